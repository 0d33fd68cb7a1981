// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// One map of each kind that its guest asks for. What a process does is only told if the guest has put it into `wanted`.

#include <gadget/common.h>
#include <gadget/mntns_filter.h>

struct event {
	gadget_pid pid;
	__u32 value;
};

#define PERF_ARRAY(name)                                                                                               \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);                                                           \
		__uint(key_size, sizeof(__u32));                                                                       \
		__uint(value_size, sizeof(__u32));                                                                     \
	} name SEC(".maps")

PERF_ARRAY(rows);
PERF_ARRAY(first);
PERF_ARRAY(last);

GADGET_TRACER(calls, rows, event);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} wanted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} on_each_cpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

SEC("tracepoint/syscalls/sys_enter_getpgid")
int on_getpgid(struct trace_event_raw_sys_enter *ctx)
{
	struct event e = {.pid = bpf_get_current_pid_tgid() >> 32, .value = ctx->args[0]};
	__u32 zero = 0;
	__u32 *mark = bpf_map_lookup_elem(&on_each_cpu, &zero);
	gadget_mntns_id nobody = 0;

	if (!bpf_map_lookup_elem(&wanted, &e.pid) || !mark || *mark != 7)
		return 0;
	// Only so that the object has the map.
	if (gadget_should_discard_mntns_id(nobody))
		bpf_tail_call(ctx, &programs, 0);
	bpf_perf_event_output(ctx, &first, BPF_F_CURRENT_CPU, &e, sizeof(e));
	bpf_perf_event_output(ctx, &last, BPF_F_CURRENT_CPU, &e, sizeof(e));
	if (!e.value)
		bpf_perf_event_output(ctx, &rows, BPF_F_CURRENT_CPU, &e, sizeof(e));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
