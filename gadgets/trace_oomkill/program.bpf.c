// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_oomkill: processes that the kernel kills because memory ran out, and whose request it could not meet.
//
// The tracepoint fires once for every victim, also where a whole control group is killed. Since Linux 6.9 it passes the
// victim; before that only a number, and a kprobe on the function that chooses keeps the victim at hand. The kprobe alone knows
// how much memory there was to share.

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/heap.h>
#include <linux/ptrace.h>
#include <bpf/bpf_tracing.h>

struct event {
	gadget_timestamp timestamp_raw;
	// The victim's. First of its kind, so that the row is that of the victim's container.
	gadget_mntns_id tmntns_id;
	gadget_pid tpid;
	gadget_comm tcomm[TASK_COMM_LEN];
	gadget_uid tuid;
	__s16 oom_score_adj;
	__u64 total_vm;
	__u64 pages;
	struct gadget_process fprocess;
};

GADGET_TRACER_MAP(events, 64 * 1024);
GADGET_TRACER(oomkill, events, event);

struct oom_control {
	unsigned long totalpages;
	struct task_struct *chosen;
} __attribute__((preserve_access_index));

struct trace_event_raw_mark_victim {
	unsigned int uid;
} __attribute__((preserve_access_index));

struct signal_struct___oom {
	short oom_score_adj;
} __attribute__((preserve_access_index));

struct mm_struct___size {
	unsigned long total_vm;
} __attribute__((preserve_access_index));

// What was chosen last, by the thread that chose. One place is enough: the kernel does it under a lock.
struct choice {
	__u64 task;
	__u64 pages;
	__u32 tid;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct choice);
} chosen SEC(".maps");

SEC("kprobe/oom_kill_process")
int BPF_KPROBE(ig_oom_choice, struct oom_control *oc)
{
	__u32 zero = 0;
	struct choice *c = bpf_map_lookup_elem(&chosen, &zero);

	(void)ctx;
	if (!c)
		return 0;
	c->task = (__u64)BPF_CORE_READ(oc, chosen);
	c->pages = BPF_CORE_READ(oc, totalpages);
	c->tid = bpf_get_current_pid_tgid();
	return 0;
}

// The victim, where it is known.
static __always_inline struct task_struct *victim_of(__u64 passed, const struct choice *c)
{
	struct task_struct *task = c ? (struct task_struct *)c->task : NULL;

	if (bpf_core_field_exists(struct trace_event_raw_mark_victim, uid))
		return (struct task_struct *)passed;
	// Another process of a group that is killed as a whole is not the one that was chosen.
	if (task && (BPF_CORE_READ(task, pid) == (pid_t)passed || BPF_CORE_READ(task, tgid) == (pid_t)passed))
		return task;
	return NULL;
}

static __always_inline void describe(struct event *e, struct task_struct *task)
{
	struct signal_struct___oom *signal = (struct signal_struct___oom *)BPF_CORE_READ(task, signal);
	struct mm_struct___size *mm = (struct mm_struct___size *)BPF_CORE_READ(task, mm);

	e->tmntns_id = gadget_get_mntns_id(task);
	e->tpid = BPF_CORE_READ(task, tgid);
	bpf_probe_read_kernel(e->tcomm, sizeof(e->tcomm), &task->comm);
	e->tuid = BPF_CORE_READ(task, cred, uid.val);
	e->oom_score_adj = BPF_CORE_READ(signal, oom_score_adj);
	e->total_vm = BPF_CORE_READ(mm, total_vm);
}

SEC("raw_tp/mark_victim")
int ig_oom_victim(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 zero = 0;
	struct choice *c = bpf_map_lookup_elem(&chosen, &zero);
	struct task_struct *task;
	struct event *e;

	if (c && (!c->tid || c->tid != (__u32)bpf_get_current_pid_tgid()))
		c = NULL;
	task = victim_of(ctx->args[0], c);
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	gadget_zero(e, sizeof(*e));
	gadget_process_populate(&e->fprocess);
	if (task) {
		describe(e, task);
	} else {
		e->tpid = ctx->args[0];
		e->tmntns_id = e->fprocess.mntns_id;
		e->tuid = (gadget_uid)-1;
	}
	if (gadget_should_discard_data(e->tmntns_id, e->tpid, e->tpid, e->tcomm, e->tuid, targ_gid)) {
		gadget_discard_buf(e);
		return 0;
	}
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	e->pages = c ? c->pages : 0;
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
