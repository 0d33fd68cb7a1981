// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_sched: which thread was on which CPU, and why it left. A flight recorder: one record for each time that a thread had
// a CPU, in perf buffers where the newest takes the place of the oldest. Nothing is sent; the Wasm half reads them when
// somebody wants to know.
//
// Programs here run with interrupts off, so that the slot of a CPU belongs to nobody else.

#include <gadget/common.h>
#include <gadget/mntns_filter.h>

#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_STOPPED 0x4
#define TASK_TRACED 0x8
#define TASK_DEAD 0x80
// A kernel thread with nothing to do waits where signals do not reach, but for nothing.
#define TASK_NOLOAD 0x400

// What the Wasm half has names for.
enum left {
	PREEMPTED,
	SLEEPS,
	WAITS,
	ENDED,
	STOPPED,
};

/* The state of a task: since 5.14, and before. */
struct task_struct___new {
	unsigned int __state;
} __attribute__((preserve_access_index));

struct task_struct___old {
	long state;
} __attribute__((preserve_access_index));

struct slice {
	__u64 start;
	__u64 end;
	gadget_mntns_id mntns_id;
	__u32 cpu;
	__u32 left;
	gadget_pid pid;
	gadget_tid tid;
	char comm[TASK_COMM_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} slices SEC(".maps");

// The thread that has the CPU now; `start` is 0 before the first switch.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct slice);
} running SEC(".maps");

static __always_inline __u32 why(struct task_struct *task, bool preempted)
{
	struct task_struct___new *new = (void *)task;
	__u64 state;

	if (preempted)
		return PREEMPTED;
	if (bpf_core_field_exists(new->__state))
		state = BPF_CORE_READ(new, __state);
	else
		state = BPF_CORE_READ((struct task_struct___old *)task, state);
	if (!state)
		return PREEMPTED;
	if (state & TASK_DEAD)
		return ENDED;
	if (state & (TASK_STOPPED | TASK_TRACED))
		return STOPPED;
	return state & TASK_UNINTERRUPTIBLE && !(state & TASK_NOLOAD) ? WAITS : SLEEPS;
}

SEC("raw_tracepoint/sched_switch")
int ig_sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx->args[1];
	struct task_struct *next = (struct task_struct *)ctx->args[2];
	__u64 now = bpf_ktime_get_boot_ns();
	__u32 zero = 0;
	struct slice *slice = bpf_map_lookup_elem(&running, &zero);
	gadget_mntns_id mntns_id;

	if (!slice)
		return 0;
	if (slice->start && slice->tid) {
		// A thread that has ended has no namespaces any more; then it is that of its start.
		mntns_id = gadget_get_mntns_id(prev);
		if (mntns_id)
			slice->mntns_id = mntns_id;
		if (slice->mntns_id && !gadget_should_discard_mntns_id(slice->mntns_id)) {
			// It may have another name now.
			bpf_probe_read_kernel(slice->comm, sizeof(slice->comm), &prev->comm);
			slice->end = now;
			slice->left = why(prev, ctx->args[0]);
			bpf_perf_event_output(ctx, &slices, BPF_F_CURRENT_CPU, slice, sizeof(*slice));
		}
	}
	slice->start = now;
	slice->end = 0;
	slice->cpu = bpf_get_smp_processor_id();
	slice->tid = BPF_CORE_READ(next, pid);
	// The idle thread is no work.
	if (!slice->tid)
		return 0;
	slice->pid = BPF_CORE_READ(next, tgid);
	slice->mntns_id = gadget_get_mntns_id(next);
	bpf_probe_read_kernel(slice->comm, sizeof(slice->comm), &next->comm);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
