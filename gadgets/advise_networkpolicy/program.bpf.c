// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// advise_networkpolicy: who talks to whom, as far as a network policy would have to allow it.
//
// One row for each peer and port of a container, however many packets there were. Of TCP the first packet of a connection
// counts, of UDP each that is not the answer to one that went the other way.

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/maps.h>
#include <gadget/packet.h>
#include <gadget/recent.h>
#include <gadget/sockets.h>

#define FLOWS_MAX 65536
#define ASKED_MAX 16384
// Nanoseconds without a packet after which none is expected: without an answer, and after one.
#define GIVEN_UP 10000000000ULL
#define SETTLED 1000000000ULL
#define GADGET_TCP_ACK 0x10
#define LOOPBACK_INTERFACE 1

// What tells rows apart. `endpoint` is the other side; its port is the server's: that of the peer for what goes out, the
// container's own for what comes in.
struct flow_key {
	struct gadget_l4endpoint_t endpoint;
	gadget_netns_id netns_id;
	gadget_mntns_id mntns_id;
	bool egress;
};

struct flow {
	gadget_timestamp timestamp_raw;
	gadget_comm comm[TASK_COMM_LEN];
	gadget_pid pid;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FLOWS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

GADGET_MAPITER(flows, flows);

// UDP packets that went one way: what comes the other way between the same ports is an answer.
struct asked_key {
	union gadget_ip_addr_t peer;
	__u32 netns;
	__u16 local_port;
	__u16 peer_port;
	__u8 egress;
	__u8 version;
	__u16 pad;
};

struct asked {
	// Of the latest packet of either way.
	__u64 time;
	__u64 answered;
};

GADGET_RECENT_MAP(asked, struct asked_key, struct asked, ASKED_MAX)

// An answer after that is taken for the beginning of something, and gives a flow that is none.
static __always_inline bool asked_goes(void *ctx, struct asked *a, bool must)
{
	(void)ctx;
	if (bpf_ktime_get_boot_ns() - a->time > (a->answered ? SETTLED : GIVEN_UP))
		return true;
	if (must)
		gadget_count(&gadget_map_full);
	return false;
}

// Whether the packet begins something, and which way it goes.
static __always_inline bool is_first(const struct __sk_buff *skb, const struct gadget_packet *p, bool egress)
{
	struct asked now = { .time = bpf_ktime_get_boot_ns() };
	struct asked_key key = {};
	struct asked *before;

	if (p->proto == GADGET_IPPROTO_TCP)
		return (p->tcp_flags & (GADGET_TCP_SYN | GADGET_TCP_ACK)) == GADGET_TCP_SYN;
	key.peer = egress ? p->dst : p->src;
	key.netns = gadget_packet_netns(skb);
	key.local_port = egress ? p->sport : p->dport;
	key.peer_port = egress ? p->dport : p->sport;
	key.version = p->version;
	key.egress = !egress;
	before = bpf_map_lookup_elem(&asked, &key);
	if (before) {
		before->time = now.time;
		before->answered = true;
		return false;
	}
	key.egress = egress;
	asked_remember(NULL, &key, &now);
	return true;
}

SEC("socket1")
int ig_net_flows(struct __sk_buff *skb)
{
	bool egress = skb->pkt_type == OUTGOING;
	struct gadget_socket_value *owner;
	struct flow_key key;
	struct flow flow;
	struct gadget_packet *p;

	// What stays in the container's own network no policy is asked about.
	if (skb->ifindex == LOOPBACK_INTERFACE || (!egress && skb->pkt_type != HOST))
		return 0;
	p = gadget_packet_parse(skb);
	if (!p || !is_first(skb, p, egress))
		return 0;
	owner = gadget_socket_of_parsed(skb, p);
	if (gadget_should_discard_socket(owner))
		return 0;
	// Padding is part of the key.
	__builtin_memset(&key, 0, sizeof(key));
	__builtin_memset(&flow, 0, sizeof(flow));
	gadget_packet_endpoint(&key.endpoint, egress ? &p->dst : &p->src, p->dport, p);
	key.netns_id = gadget_packet_netns(skb);
	key.egress = egress;
	flow.timestamp_raw = bpf_ktime_get_boot_ns();
	if (owner) {
		key.mntns_id = owner->mntns;
		flow.pid = owner->pid_tgid >> 32;
		__builtin_memcpy(flow.comm, owner->task, sizeof(flow.comm));
	}
	if (!bpf_map_lookup_elem(&flows, &key))
		gadget_update_or_count(&flows, &key, &flow);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
