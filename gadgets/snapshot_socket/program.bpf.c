// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// snapshot_socket: the TCP and UDP sockets there are. The host runs both iterators once in every network namespace
// that was asked for.

#include <gadget/common.h>
#include <gadget/sock.h>
#include <gadget/tcp.h>
#include <bpf/bpf_tracing.h>

enum transport { TCP = GADGET_IPPROTO_TCP, UDP = GADGET_IPPROTO_UDP };

struct socket_entry {
	enum transport proto_raw;
	struct gadget_l4endpoint_t src;
	struct gadget_l4endpoint_t dst;
	enum gadget_tcp_state state_raw;
	__u32 ino;
	gadget_netns_id netns_id;
};

// all, tcp or udp
const volatile char proto[4] = "all";
GADGET_PARAM(proto);

GADGET_ITER(sockets, socket_entry, ig_snap_tcp, ig_snap_udp);

// What the iterators get.
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

struct inet_timewait_sock {
	volatile unsigned char tw_substate;
};

struct udp_sock {
	struct inet_sock inet;
};

struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	struct udp_sock *udp_sk;
};

#pragma clang attribute pop

static __always_inline bool is_wanted(char first)
{
	return proto[0] == 'a' || proto[0] == first;
}

// The part that all three kinds of TCP sockets have.
static __always_inline void read_common(struct socket_entry *e, const struct sock_common *c, __u16 ip_proto)
{
	bool v4 = BPF_CORE_READ(c, skc_family) == GADGET_AF_INET;

	e->proto_raw = ip_proto;
	e->src.version = v4 ? 4 : 6;
	e->src.proto_raw = ip_proto;
	e->dst.version = e->src.version;
	e->dst.proto_raw = ip_proto;
	e->src.port = BPF_CORE_READ(c, skc_num);
	e->dst.port = bpf_ntohs(BPF_CORE_READ(c, skc_dport));
	if (v4) {
		BPF_CORE_READ_INTO(&e->src.addr_raw.v4, c, skc_rcv_saddr);
		BPF_CORE_READ_INTO(&e->dst.addr_raw.v4, c, skc_daddr);
	} else {
		bpf_core_read(&e->src.addr_raw, 16, &c->skc_v6_rcv_saddr);
		bpf_core_read(&e->dst.addr_raw, 16, &c->skc_v6_daddr);
	}
	e->state_raw = BPF_CORE_READ(c, skc_state);
	e->netns_id = BPF_CORE_READ(c, skc_net.net, ns.inum);
}

SEC("iter/tcp")
int ig_snap_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *c = ctx->sk_common;
	struct socket_entry e;

	if (!c || !is_wanted('t'))
		return 0;
	__builtin_memset(&e, 0, sizeof(e));
	read_common(&e, c, GADGET_IPPROTO_TCP);
	// What is left of a closed socket may still wait for the peer's end: FIN_WAIT2, as ss and netstat have it.
	if (e.state_raw == TIME_WAIT)
		e.state_raw = BPF_CORE_READ((const struct inet_timewait_sock *)c, tw_substate);
	else if (e.state_raw != NEW_SYN_RECV)
		e.ino = gadget_ino_of_sock((struct sock *)c);
	bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	return 0;
}

SEC("iter/udp")
int ig_snap_udp(struct bpf_iter__udp *ctx)
{
	struct sock *sk = (struct sock *)ctx->udp_sk;
	struct socket_entry e;

	if (!sk || !is_wanted('u'))
		return 0;
	__builtin_memset(&e, 0, sizeof(e));
	read_common(&e, (struct sock_common *)sk, GADGET_IPPROTO_UDP);
	e.ino = gadget_ino_of_sock(sk);
	bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
