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

/* Where the kernel keeps the number that no two mount namespaces ever have: since 6.18, and before. */
struct ns_common___numbered {
	__u64 ns_id;
} __attribute__((preserve_access_index));

struct mnt_namespace___numbered {
	struct ns_common___numbered ns;
} __attribute__((preserve_access_index));

struct mnt_namespace___seq {
	__u64 seq;
} __attribute__((preserve_access_index));

/**
 * Tells two mount namespaces with the same number apart: the kernel uses a number again as soon as it is free. Greater for
 * younger namespaces; 0 where the kernel keeps no such number.
 */
static __always_inline __u64 gadget_get_mntns_generation(struct task_struct *task)
{
	struct mnt_namespace *ns = BPF_CORE_READ(task, nsproxy, mnt_ns);

	if (bpf_core_field_exists(((struct mnt_namespace___numbered *)ns)->ns.ns_id))
		return BPF_CORE_READ((struct mnt_namespace___numbered *)ns, ns.ns_id);
	if (bpf_core_field_exists(((struct mnt_namespace___seq *)ns)->seq))
		return BPF_CORE_READ((struct mnt_namespace___seq *)ns, seq);
	return 0;
}

#endif
