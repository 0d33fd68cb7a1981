// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_tcpretrans: TCP segments that are sent again. That happens in no process's time: the host's map of sockets tells
// whose the connection is.

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/sock.h>
#include <gadget/sockets.h>
#include <gadget/tcp.h>
#include <bpf/bpf_tracing.h>

enum retransmission { RETRANS, LOSS };

struct event {
	gadget_timestamp timestamp_raw;
	gadget_netns_id netns_id;
	struct gadget_process proc;
	struct gadget_l4endpoint_t src;
	struct gadget_l4endpoint_t dst;
	enum gadget_tcp_state state_raw;
	enum tcp_flags_set tcpflags_raw;
	enum retransmission type_raw;
};

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(tcpretrans, events, event);

#define LOSS_PROBE 5 // ICSK_TIME_LOSS_PROBE
#define RECOVERY 3   // TCP_CA_Recovery; behind it TCP_CA_Loss

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sk_buff {
	char cb[48];
};

// What TCP keeps in cb.
struct tcp_skb_cb {
	__u8 tcp_flags;
};

struct inet_connection_sock {
	__u8 icsk_ca_state : 5;
	__u8 icsk_pending;
};
#pragma clang attribute pop

// From Linux 6.17 on the tracepoint is passed also what could not be sent, with the error.
typedef void (*btf_trace_tcp_retransmit_skb___err)(void *, const struct sock *, const struct sk_buff *, int);

// Of a context, the verifier takes only fixed offsets and no more arguments than there are: hence a read of its own, in a
// branch that is not there on kernels without the argument.
static __always_inline bool not_sent(void *ctx)
{
	__u64 err;

	if (!bpf_core_type_matches(btf_trace_tcp_retransmit_skb___err))
		return false;
	asm volatile("%[err] = *(u64 *)(%[ctx] + 16)" : [err] "=r"(err) : [ctx] "r"(ctx));
	return (int)err != 0;
}

// The timer at work says that it is a probe; it may still be set when the kernel knows already, by what else was
// acknowledged, that a segment is lost.
static __always_inline enum retransmission kind_of(const struct sock *sk)
{
	const struct inet_connection_sock *icsk = (const void *)sk;

	if (BPF_CORE_READ(icsk, icsk_pending) != LOSS_PROBE)
		return RETRANS;
	return BPF_CORE_READ_BITFIELD_PROBED(icsk, icsk_ca_state) < RECOVERY ? LOSS : RETRANS;
}

static __noinline int sent_again(void *ctx, const struct sock *sk, const struct sk_buff *skb)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	__u32 netns = gadget_netns_of_sock(sk);
	struct gadget_l4endpoint_t src, dst;
	struct gadget_socket_value *owner;
	struct event *e;

	if (gadget_l4endpoints_from_sock(&src, &dst, sk))
		return 0;
	owner = gadget_socket_find_at(netns, family, GADGET_IPPROTO_TCP, src.port, &src.addr_raw);
	if (gadget_should_discard_socket(owner))
		return 0;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	e->netns_id = netns;
	gadget_process_populate_from_socket(owner, &e->proc);
	e->src = src;
	e->dst = dst;
	e->state_raw = BPF_CORE_READ(sk, __sk_common.skc_state);
	bpf_probe_read_kernel(&e->tcpflags_raw, 1,
			      (const char *)skb + bpf_core_field_offset(struct sk_buff, cb) +
				      bpf_core_field_offset(struct tcp_skb_cb, tcp_flags));
	e->type_raw = kind_of(sk);
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(ig_tcpretrans, const struct sock *sk, const struct sk_buff *skb)
{
	return not_sent(ctx) ? 0 : sent_again(ctx, sk, skb);
}

// The same where the kernel has no BTF of its own for tp_btf to use.
SEC("raw_tp/tcp_retransmit_skb")
int ig_tcpretrans_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return not_sent(ctx) ? 0 : sent_again(ctx, (const struct sock *)ctx->args[0], (const struct sk_buff *)ctx->args[1]);
}

char LICENSE[] SEC("license") = "GPL";
