/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/** Filling `struct gadget_process`: who caused an event. Linux 5.5 (BTF). */
#ifndef GADGET_PROCESS_H
#define GADGET_PROCESS_H

#include <gadget/mntns.h>

/* The parent and the mount namespace, which no helper gives. */
static __always_inline void gadget_process_relations(struct gadget_process *p, struct task_struct *task)
{
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);

	p->mntns_id = gadget_get_mntns_id(task);
	p->parent.pid = BPF_CORE_READ(parent, tgid);
	p->parent.tid = BPF_CORE_READ(parent, pid);
	bpf_probe_read_kernel(p->parent.comm, sizeof(p->parent.comm), &parent->comm);
}

/** Fills all of `p` from the current task. */
static __always_inline void gadget_process_populate(struct gadget_process *p)
{
	__u64 ids = bpf_get_current_pid_tgid();
	__u64 owner = bpf_get_current_uid_gid();

	p->pid = ids >> 32;
	p->tid = (__u32)ids;
	p->creds.uid = (__u32)owner;
	p->creds.gid = owner >> 32;
	bpf_get_current_comm(p->comm, sizeof(p->comm));
	gadget_process_relations(p, (struct task_struct *)bpf_get_current_task());
}

/** Fills all of `p` from any task. */
static __always_inline void gadget_process_populate_from_task(struct gadget_process *p, struct task_struct *task)
{
	const struct cred *cred = BPF_CORE_READ(task, cred);

	p->pid = BPF_CORE_READ(task, tgid);
	p->tid = BPF_CORE_READ(task, pid);
	p->creds.uid = BPF_CORE_READ(cred, uid.val);
	p->creds.gid = BPF_CORE_READ(cred, gid.val);
	bpf_probe_read_kernel(p->comm, sizeof(p->comm), &task->comm);
	gadget_process_relations(p, task);
}

#endif
