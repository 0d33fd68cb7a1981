// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_tcpconnect: TCP connections that programs open, and how long the handshake took.
//
// A socket's change of state tells all: to SYN_SENT in the time of the process that connects, then to ESTABLISHED or
// to CLOSE. So it does not matter which system call it was.

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/maps.h>
#include <gadget/sock.h>
#include <gadget/tcp.h>
#include <bpf/bpf_tracing.h>

struct event {
	gadget_timestamp timestamp_raw;
	gadget_netns_id netns_id;
	struct gadget_process proc;
	struct gadget_l4endpoint_t src;
	struct gadget_l4endpoint_t dst;
	gadget_errno error_raw;
	gadget_duration latency_ns_raw;
};

// Only connections that came about.
const volatile bool latency = false;
GADGET_PARAM(latency);

// Milliseconds.
const volatile __u64 min = 0;
GADGET_PARAM(min);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(tcpconnect, events, event);

#define EADDRNOTAVAIL 99
#define ECANCELED 125
#define NS_PER_MS 1000000ull

// Until the first packet is sent the kernel calls a socket unconnected, afterwards connecting.
struct socket___state {
	enum { SS_FREE, SS_UNCONNECTED, SS_CONNECTING } state;
} __attribute__((preserve_access_index));

struct attempt {
	__u64 began;
	struct gadget_process proc;
};

// Sockets that wait for their peer's answer.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct attempt);
} attempts SEC(".maps");

static __always_inline void began(const struct sock *sk)
{
	struct attempt a = {};
	__u64 key = (__u64)sk;

	if (gadget_should_discard_data_current())
		return;
	a.began = bpf_ktime_get_ns();
	gadget_process_populate(&a.proc);
	gadget_update_or_count(&attempts, &key, &a);
}

// Why a connection did not come about. Where the socket does not know, either nothing was sent, mostly for want of a port, or the
// program gave up.
static __always_inline __u32 error_of(const struct sock *sk)
{
	const struct socket___state *socket = (const void *)BPF_CORE_READ(sk, sk_socket);
	int error = BPF_CORE_READ(sk, sk_err);

	if (error)
		return error;
	return socket && BPF_CORE_READ(socket, state) == SS_UNCONNECTED ? EADDRNOTAVAIL : ECANCELED;
}

static __always_inline void decided(void *ctx, const struct sock *sk, bool established)
{
	__u64 key = (__u64)sk, took;
	struct attempt *found = bpf_map_lookup_elem(&attempts, &key);
	struct attempt a;
	struct event *e;

	if (!found)
		return;
	a = *found;
	bpf_map_delete_elem(&attempts, &key);
	took = bpf_ktime_get_ns() - a.began;
	if ((latency && !established) || took < min * NS_PER_MS)
		return;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	e->netns_id = gadget_netns_of_sock(sk);
	e->proc = a.proc;
	gadget_l4endpoints_from_sock(&e->src, &e->dst, sk);
	e->error_raw = established ? 0 : error_of(sk);
	e->latency_ns_raw = took;
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
}

static __noinline int state_changed(void *ctx, const struct sock *sk, int before, int after)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	if (family != GADGET_AF_INET && family != GADGET_AF_INET6)
		return 0;
	if (BPF_CORE_READ(sk, sk_protocol) != GADGET_IPPROTO_TCP)
		return 0;
	if (after == SYN_SENT)
		began(sk);
	else if (after == ESTABLISHED || after == CLOSE)
		// Of a socket that was not connecting there is no attempt.
		decided(ctx, sk, after == ESTABLISHED);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(ig_tcpconnect, const struct sock *sk, int before, int after)
{
	return state_changed(ctx, sk, before, after);
}

// The same where the kernel has no BTF of its own for tp_btf to use.
SEC("raw_tp/inet_sock_set_state")
int ig_tcpconnect_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return state_changed(ctx, (const struct sock *)ctx->args[0], ctx->args[1], ctx->args[2]);
}

char LICENSE[] SEC("license") = "GPL";
