// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// Events through a perf event array, as gadgets older than ring buffers send them.

#include <gadget/kernel.h>
#include <gadget/macros.h>
#include <gadget/types.h>
#include <bpf/bpf_helpers.h>

struct event {
	gadget_pid pid;
	__s32 value;
};

const volatile gadget_pid targ_pid = 0;
GADGET_PARAM(targ_pid);

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps");

GADGET_TRACER(calls, events, event);

SEC("tracepoint/syscalls/sys_enter_getpgid")
int on_getpgid(struct trace_event_raw_sys_enter *ctx)
{
	struct event e = {.pid = bpf_get_current_pid_tgid() >> 32, .value = ctx->args[0]};

	if (e.pid == targ_pid)
		bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &e, sizeof(e));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
