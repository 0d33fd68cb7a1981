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

SEC("iter/task")
int ig_snapshot_process(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct gadget_process p;

	if (!task)
		return 0;
	__builtin_memset(&p, 0, sizeof(p));
	p.pid = task->tgid;
	p.tid = task->pid;
	if (!threads && p.pid != p.tid)
		return 0;
	// One that is exiting and has left its namespaces belongs to no container; the filter then leaves it out.
	if (gadget_filter_by_mntns && gadget_should_discard_mntns_id(gadget_get_mntns_id(task)))
		return 0;
	gadget_process_populate_from_task(&p, task);
	if (gadget_should_discard_data(p.mntns_id, p.pid, p.tid, p.comm, p.creds.uid, p.creds.gid))
		return 0;
	bpf_seq_write(ctx->meta->seq, &p, sizeof(p));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
