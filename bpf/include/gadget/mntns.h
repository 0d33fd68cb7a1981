/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/** The mount namespace of a task: what tells containers apart. Linux 5.5 (BTF). */
#ifndef GADGET_MNTNS_H
#define GADGET_MNTNS_H

#include <gadget/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/** Inode number of the task's mount namespace; 0 for a task that is exiting and has given it up. */
static __always_inline gadget_mntns_id gadget_get_mntns_id(struct task_struct *task)
{
	return BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
}

/** Inode number of the current task's mount namespace. */
static __always_inline gadget_mntns_id gadget_get_current_mntns_id(void)
{
	return gadget_get_mntns_id((struct task_struct *)bpf_get_current_task());
}

#endif
