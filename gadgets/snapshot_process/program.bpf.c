// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// snapshot_process: the processes there are, from the kernel's own list of tasks.

#include <gadget/common.h>
#include <gadget/filter.h>
#include <bpf/bpf_tracing.h>

const volatile bool threads = false;
GADGET_PARAM(threads);

// A row is a process: the fields stand at the top, without a `proc` around them.
GADGET_ITER(processes, gadget_process, ig_snapshot_process);

// Threads of a process that are looked at: those that have ended leave the list, all but the first.
#define LOOKED_AT 32

struct list_head___next {
	struct list_head___next *next;
} __attribute__((preserve_access_index));

struct signal_struct___threads {
	struct list_head___next thread_head;
} __attribute__((preserve_access_index));

struct task_struct___threads {
	struct task_struct___threads *group_leader;
	struct signal_struct___threads *signal;
	struct list_head___next thread_node;
	struct nsproxy *nsproxy;
	char comm[TASK_COMM_LEN];
} __attribute__((preserve_access_index));

// Which thread stands for the process: the first one; or, if that has ended while others go on, the next that has its
// namespaces still.
static __always_inline struct task_struct___threads *speaker(struct task_struct___threads *leader)
{
	struct signal_struct___threads *signal = BPF_CORE_READ(leader, signal);
	__u64 end = (__u64)signal + bpf_core_field_offset(struct signal_struct___threads, thread_head);
	struct task_struct___threads *thread = leader;
	__u64 next;

	for (int i = 0; i < LOOKED_AT; i++) {
		if (BPF_CORE_READ(thread, nsproxy))
			return thread;
		next = (__u64)BPF_CORE_READ(thread, thread_node.next);
		if (!next || next == end)
			break;
		thread = (void *)(next - bpf_core_field_offset(struct task_struct___threads, thread_node));
	}
	return leader;
}

SEC("iter/task")
int ig_snapshot_process(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_struct___threads *leader;
	struct gadget_process p;

	if (!task)
		return 0;
	__builtin_memset(&p, 0, sizeof(p));
	p.pid = task->tgid;
	p.tid = task->pid;
	leader = BPF_CORE_READ((struct task_struct___threads *)task, group_leader);
	if (!threads && (__u64)speaker(leader) != (__u64)task)
		return 0;
	// One that is exiting and has left its namespaces belongs to no container; the filter then leaves it out.
	if (gadget_filter_by_mntns && gadget_should_discard_mntns_id(gadget_get_mntns_id(task)))
		return 0;
	gadget_process_populate_from_task(&p, task);
	// The process is called what its first thread is, or was.
	if (!threads)
		BPF_CORE_READ_STR_INTO(&p.comm, leader, comm);
	if (gadget_should_discard_data(p.mntns_id, p.pid, p.tid, p.comm, p.creds.uid, p.creds.gid))
		return 0;
	bpf_seq_write(ctx->meta->seq, &p, sizeof(p));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
