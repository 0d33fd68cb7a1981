// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_tcpdrop: TCP packets that the kernel drops, and why. Most are dropped in no process's time: the host's map of
// sockets tells whose the socket is that the packet came from or was for.

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/kernel_stack_map.h>
#include <gadget/local_address.h>
#include <gadget/sock.h>
#include <gadget/sockets.h>
#include <gadget/tcp.h>
#include <bpf/bpf_tracing.h>

// The kernel that runs knows the others.
enum skb_drop_reason { SKB_NOT_DROPPED_YET, SKB_CONSUMED, SKB_DROP_REASON_NOT_SPECIFIED };

// Written as users of this gadget know them.
enum tcp_state {
	no_socket, // not of the kernel's: there is none that could have a state
	tcp_established,
	tcp_syn_sent,
	tcp_syn_recv,
	tcp_fin_wait1,
	tcp_fin_wait2,
	tcp_time_wait,
	tcp_close,
	tcp_close_wait,
	tcp_last_ack,
	tcp_listen,
	tcp_closing,
	tcp_new_syn_recv,
};

struct event {
	gadget_timestamp timestamp_raw;
	gadget_netns_id netns_id;
	// The process stands at the top, without a `proc` around it.
	gadget_mntns_id mount_ns_id;
	gadget_comm comm[TASK_COMM_LEN];
	gadget_pid pid;
	gadget_tid tid;
	gadget_uid uid;
	gadget_gid gid;
	struct gadget_parent parent;
	struct gadget_l4endpoint_t src;
	struct gadget_l4endpoint_t dst;
	enum tcp_state state_raw;
	enum tcp_flags_set tcpflags_raw;
	enum skb_drop_reason reason_raw;
	gadget_kernel_stack kernel_stack_raw;
};

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(tcpdrop, events, event);

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct net_device {
	possible_net_t nd_net;
};

struct dst_entry {
	struct net_device *dev;
};

struct sk_buff {
	struct net_device *dev;
	unsigned long _skb_refdst;
	struct sock *sk;
	unsigned char *head;
	__u16 network_header;
	__u16 transport_header;
	__be16 protocol;
};
#pragma clang attribute pop

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define NO_HEADER 0xffff

struct tcp_header {
	__be16 source, dest;
	__be32 seq, ack;
	__u8 offset, flags;
};

// What is known of a packet before there is room for an event.
struct packet {
	struct gadget_l4endpoint_t src;
	struct gadget_l4endpoint_t dst;
	gadget_netns_id netns_id;
	enum tcp_state state_raw;
	enum tcp_flags_set tcpflags_raw;
};

// Reads addresses, ports and flags; false if it is no TCP packet, or not built yet.
static __always_inline bool read_packet(struct packet *p, const struct sk_buff *skb)
{
	__u16 ip = BPF_CORE_READ(skb, network_header), l4 = BPF_CORE_READ(skb, transport_header);
	const unsigned char *head = BPF_CORE_READ(skb, head);
	struct tcp_header tcp = {};
	__u8 first[40] = {};

	if (ip == NO_HEADER || bpf_probe_read_kernel(first, 20, head + ip))
		return false;
	if (first[0] >> 4 == 4) {
		if (first[9] != GADGET_IPPROTO_TCP)
			return false;
		p->src.version = p->dst.version = 4;
		__builtin_memcpy(&p->src.addr_raw, first + 12, 4);
		__builtin_memcpy(&p->dst.addr_raw, first + 16, 4);
		// Not set on every way a packet takes.
		if (l4 == NO_HEADER || l4 <= ip)
			l4 = ip + (first[0] & 0xf) * 4;
	} else if (first[0] >> 4 == 6) {
		if (first[6] != GADGET_IPPROTO_TCP || bpf_probe_read_kernel(first, 40, head + ip))
			return false;
		p->src.version = p->dst.version = 6;
		__builtin_memcpy(&p->src.addr_raw, first + 8, 16);
		__builtin_memcpy(&p->dst.addr_raw, first + 24, 16);
		if (l4 == NO_HEADER || l4 <= ip)
			l4 = ip + 40;
	} else {
		return false;
	}
	if (bpf_probe_read_kernel(&tcp, sizeof(tcp), head + l4))
		return false;
	p->src.port = bpf_ntohs(tcp.source);
	p->dst.port = bpf_ntohs(tcp.dest);
	p->src.proto_raw = p->dst.proto_raw = GADGET_IPPROTO_TCP;
	p->tcpflags_raw = tcp.flags;
	return true;
}

// The interface that the packet is at; once TCP has it, only its route still knows.
static __always_inline struct net_device *device_of(const struct sk_buff *skb)
{
	struct net_device *dev = BPF_CORE_READ(skb, dev);
	// The lowest bit says whether the route is counted.
	const struct dst_entry *route = (const void *)(BPF_CORE_READ(skb, _skb_refdst) & ~1UL);

	return dev ? dev : BPF_CORE_READ(route, dev);
}

// Whose the packet is: of the socket that it hangs on, else of that which it was for: `sk`, if the kernel says so.
static __always_inline struct gadget_socket_value *owner_of(struct packet *p, const struct sk_buff *skb, const struct sock *rx_sk)
{
	__u16 family = p->src.version == 4 ? GADGET_AF_INET : GADGET_AF_INET6;
	const struct net_device *dev = device_of(skb);
	const struct sock *sk = BPF_CORE_READ(skb, sk);
	struct gadget_l4endpoint_t local = p->dst;

	if (!sk)
		sk = rx_sk;
	p->state_raw = 0;
	p->netns_id = BPF_CORE_READ(dev, nd_net.net, ns.inum);
	// A packet that is only forwarded is nobody's.
	if (!sk && !gadget_is_local_address(dev, &local.addr_raw, p->dst.version == 6))
		return NULL;
	if (sk) {
		p->state_raw = BPF_CORE_READ(sk, __sk_common.skc_state);
		p->netns_id = gadget_netns_of_sock(sk);
		family = BPF_CORE_READ(sk, __sk_common.skc_family);
		gadget_l4endpoints_from_sock(&local, NULL, sk);
		local.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	}
	return gadget_socket_find_at(p->netns_id, family, GADGET_IPPROTO_TCP, local.port, &local.addr_raw);
}

static __always_inline void set_process(struct event *e, const struct gadget_socket_value *owner)
{
	struct gadget_process p;

	gadget_process_populate_from_socket(owner, &p);
	e->mount_ns_id = p.mntns_id;
	__builtin_memcpy(e->comm, p.comm, sizeof(e->comm));
	e->pid = p.pid;
	e->tid = p.tid;
	e->uid = p.creds.uid;
	e->gid = p.creds.gid;
	e->parent = p.parent;
}

static __noinline int dropped(void *ctx, const struct sk_buff *skb, __u32 reason, const struct sock *rx_sk)
{
	__u16 protocol = bpf_ntohs(BPF_CORE_READ(skb, protocol));
	struct gadget_socket_value *owner;
	struct packet p;
	struct event *e;

	if (protocol != ETH_P_IP && protocol != ETH_P_IPV6)
		return 0;
	__builtin_memset(&p, 0, sizeof(p));
	if (!read_packet(&p, skb))
		return 0;
	owner = owner_of(&p, skb, rx_sk);
	if (gadget_should_discard_socket(owner))
		return 0;
	// Room is taken only for what is wanted: else packets of others would count as lost where there is none.
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	e->netns_id = p.netns_id;
	set_process(e, owner);
	e->src = p.src;
	e->dst = p.dst;
	e->state_raw = p.state_raw;
	e->tcpflags_raw = p.tcpflags_raw;
	e->reason_raw = reason;
	e->kernel_stack_raw = gadget_get_kernel_stack(ctx);
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

// Since Linux 6.11 the kernel says which socket a packet was for.
SEC("tp_btf/kfree_skb")
int BPF_PROG(ig_tcpdrop_for, const struct sk_buff *skb, void *location, enum skb_drop_reason reason, const struct sock *rx_sk)
{
	return dropped(ctx, skb, reason, rx_sk);
}

// The same where the kernel has no BTF of its own for tp_btf to use.
SEC("raw_tp/kfree_skb")
int ig_tcpdrop_for_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return dropped(ctx, (const struct sk_buff *)ctx->args[0], ctx->args[2], (const struct sock *)ctx->args[3]);
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(ig_tcpdrop, const struct sk_buff *skb, void *location, enum skb_drop_reason reason)
{
	return dropped(ctx, skb, reason, NULL);
}

SEC("raw_tp/kfree_skb")
int ig_tcpdrop_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return dropped(ctx, (const struct sk_buff *)ctx->args[0], ctx->args[2], NULL);
}

// Before Linux 5.17 no reason is given, and normal ends of packets come here, too.
SEC("raw_tp/kfree_skb")
int ig_tcpdrop_bare(struct bpf_raw_tracepoint_args *ctx)
{
	return dropped(ctx, (const struct sk_buff *)ctx->args[0], SKB_DROP_REASON_NOT_SPECIFIED, NULL);
}

char LICENSE[] SEC("license") = "GPL";
