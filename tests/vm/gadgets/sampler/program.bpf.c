// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// perf_event programs whose events and pace are set in gadget.yaml: a clock at 200 Hz, and every single page fault.

#include <gadget/buffer.h>
#include <gadget/macros.h>
#include <gadget/types.h>
#include <linux/ptrace.h>
#include <linux/bpf_perf_event.h>

struct event {
	gadget_pid pid;
	char what[8];
	// Events between two samples; of a clock, nanoseconds.
	__u64 period;
	__u64 address;
};

const volatile gadget_pid targ_pid = 0;
GADGET_PARAM(targ_pid);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(samples, events, event);

static __always_inline int sampled(struct bpf_perf_event_data *ctx, const char *what, __u64 address)
{
	gadget_pid pid = bpf_get_current_pid_tgid() >> 32;
	struct event *e;

	if (pid != targ_pid)
		return 0;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->pid = pid;
	e->period = ctx->sample_period;
	e->address = address;
	bpf_probe_read_kernel_str(e->what, sizeof(e->what), what);
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

SEC("perf_event/clock")
int on_clock(struct bpf_perf_event_data *ctx)
{
	return sampled(ctx, "clock", 0);
}

SEC("perf_event/fault")
int on_fault(struct bpf_perf_event_data *ctx)
{
	return sampled(ctx, "fault", ctx->addr);
}

char LICENSE[] SEC("license") = "GPL";
