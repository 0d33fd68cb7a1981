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
#include <gadget/sockets.h>

#define FLOWS_MAX 65536
#define ASKED_MAX 16384
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

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ASKED_MAX);
	__type(key, struct asked_key);
	__type(value, __u8);
} asked SEC(".maps");

// Whether the packet begins something, and which way it goes.
static __always_inline bool is_first(const struct __sk_buff *skb, const struct gadget_packet *p, bool egress)
{
	struct asked_key key = {};
	__u8 one = 1;

	if (p->proto == GADGET_IPPROTO_TCP)
		return (p->tcp_flags & (GADGET_TCP_SYN | GADGET_TCP_ACK)) == GADGET_TCP_SYN;
	key.peer = egress ? p->dst : p->src;
	key.netns = gadget_packet_netns(skb);
	key.local_port = egress ? p->sport : p->dport;
	key.peer_port = egress ? p->dport : p->sport;
	key.version = p->version;
	key.egress = !egress;
	if (bpf_map_lookup_elem(&asked, &key))
		return false;
	key.egress = egress;
	bpf_map_update_elem(&asked, &key, &one, BPF_ANY);
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
	owner = gadget_socket_find(gadget_packet_netns(skb), p->version == 4 ? GADGET_AF_INET : GADGET_AF_INET6, p->proto,
				   egress ? p->sport : p->dport);
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
