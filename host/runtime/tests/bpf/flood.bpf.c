// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
// An event for each getpgid of one process, through a ring and through a perf event array, losses counted.
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct event {
	__u64 sequence;
	char filler[56];
};

const volatile __u32 only_tgid = 0;
const volatile __u32 pad = 0;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} events_lost_samples SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} perf SEC(".maps");

const void *gadget_map_tracer_events __attribute__((unused));
const void *gadget_tracer_flood___events___event __attribute__((unused));
const struct event *unused_event __attribute__((unused));

__u64 sequence = 0;

SEC("tracepoint/syscalls/sys_enter_getpgid")
int to_ring(void *ctx)
{
	__u32 zero = 0;
	struct event *e;
	__u64 *lost;

	if ((bpf_get_current_pid_tgid() >> 32) != only_tgid)
		return 0;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		lost = bpf_map_lookup_elem(&events_lost_samples, &zero);
		if (lost)
			__sync_fetch_and_add(lost, 1);
		return 0;
	}
	e->sequence = __sync_fetch_and_add(&sequence, 1);
	if (e->sequence % 7 == 3)
		bpf_ringbuf_discard(e, 0);
	else
		bpf_ringbuf_submit(e, 0);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_getsid")
int to_perf(void *ctx)
{
	struct event e = {};

	if ((bpf_get_current_pid_tgid() >> 32) != only_tgid)
		return 0;
	e.sequence = __sync_fetch_and_add(&sequence, 1);
	bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &e, sizeof(e));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
