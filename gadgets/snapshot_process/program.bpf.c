// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// snapshot_process: the processes there are, from the kernel's own list of tasks.

#include <gadget/common.h>
#include <gadget/filter.h>
#include <bpf/bpf_tracing.h>

struct process_entry {
	struct gadget_process proc;
};

const volatile bool threads = false;
GADGET_PARAM(threads);

GADGET_ITER(processes, process_entry, ig_snapshot_process);

SEC("iter/task")
int ig_snapshot_process(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct process_entry entry;

	if (!task)
		return 0;
	__builtin_memset(&entry, 0, sizeof(entry));
	entry.proc.pid = task->tgid;
	entry.proc.tid = task->pid;
	if (!threads && entry.proc.pid != entry.proc.tid)
		return 0;
	// One that is exiting and has left its namespaces belongs to no container; the filter then leaves it out.
	if (gadget_filter_by_mntns && gadget_should_discard_mntns_id(gadget_get_mntns_id(task)))
		return 0;
	gadget_process_populate_from_task(&entry.proc, task);
	if (gadget_should_discard_data(entry.proc.mntns_id, entry.proc.pid, entry.proc.tid, entry.proc.comm,
				       entry.proc.creds.uid, entry.proc.creds.gid))
		return 0;
	bpf_seq_write(ctx->meta->seq, &entry, sizeof(entry));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
