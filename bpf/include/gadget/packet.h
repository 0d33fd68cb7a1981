/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Reading packets in socket filters: the headers of IPv4, IPv6, UDP and TCP, and whose network it is.
 *
 * The host runs a socket filter in the network namespace of every container that was asked for. The programs see each packet
 * of every interface: what is sent, and what arrives; on the loopback interface a packet is both. Linux 5.2.
 */
#ifndef GADGET_PACKET_H
#define GADGET_PACKET_H

#include <gadget/heap.h>
#include <gadget/kernel.h>
#include <gadget/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define GADGET_ETH_P_IP 0x0800
#define GADGET_ETH_P_IPV6 0x86dd
#define GADGET_ETH_P_8021Q 0x8100
#define GADGET_ETH_P_8021AD 0x88a8
#define GADGET_ETH_HEADER 14
/** Extension headers of IPv6 that are passed over. */
#define GADGET_IPV6_EXTENSIONS 6
#define GADGET_IPPROTO_TCP 6
#define GADGET_IPPROTO_UDP 17

/** Which way a packet goes: values of `skb->pkt_type`. */
enum gadget_packet_type {
	HOST = 0,
	BROADCAST = 1,
	MULTICAST = 2,
	OTHERHOST = 3,
	OUTGOING = 4,
};

/** Flags of TCP. */
#define GADGET_TCP_FIN 0x01
#define GADGET_TCP_SYN 0x02
#define GADGET_TCP_RST 0x04

/** Where things are in a packet, and who sent it to whom. */
struct gadget_packet {
	union gadget_ip_addr_t src;
	union gadget_ip_addr_t dst;
	__u32 seq; /* of TCP */
	/*
	 * Offsets of header and payload for bpf_skb_load_bytes; bytes of payload, by the packet's own account. Of a UDP message that
	 * came in pieces payload_len is that of the message, and payload_here that of this piece, the first.
	 */
	__u32 transport;
	__u32 payload;
	__u32 payload_len;
	__u32 payload_here;
	__u16 sport;
	__u16 dport;
	__u8 version;
	__u8 proto;
	__u8 tcp_flags;
};

/** The network namespace of the packet. */
static __always_inline gadget_netns_id gadget_packet_netns(const struct __sk_buff *skb)
{
	return skb->cb[0];
}

/*
 * Where the network header begins, and what protocol it is of; negative: not known. Devices without a header of their own
 * (tunnels) show the packet from its network header on; the kernel does not say which those are, so the two places are
 * compared with the network header itself.
 */
static __always_inline int gadget_packet_network(struct __sk_buff *skb, __u16 *ethertype)
{
	__u32 at = GADGET_ETH_HEADER;
	__u64 network, there;

	*ethertype = bpf_ntohs(skb->protocol);
	if (*ethertype == GADGET_ETH_P_8021Q || *ethertype == GADGET_ETH_P_8021AD) {
		/* A tag that is still in the packet, or two. */
		for (int i = 0; i < 2; i++) {
			__be16 tag[2];

			if (bpf_skb_load_bytes(skb, at, tag, sizeof(tag)))
				return -1;
			at += sizeof(tag);
			*ethertype = bpf_ntohs(tag[1]);
			if (*ethertype != GADGET_ETH_P_8021Q && *ethertype != GADGET_ETH_P_8021AD)
				break;
		}
		return at;
	}
	if (bpf_skb_load_bytes_relative(skb, 0, &network, sizeof(network), BPF_HDR_START_NET))
		return at;
	if (!bpf_skb_load_bytes(skb, at, &there, sizeof(there)) && there == network)
		return at;
	if (!bpf_skb_load_bytes(skb, 0, &there, sizeof(there)) && there == network)
		return 0;
	return -1;
}

static __always_inline bool gadget_packet_ipv4(struct __sk_buff *skb, struct gadget_packet *p, __u32 at)
{
	struct {
		__u8 version_len, tos;
		__be16 total;
		__be16 id, fragment;
		__u8 ttl, proto;
		__be16 checksum;
		__be32 src, dst;
	} ip;
	__u32 header, total;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version_len >> 4 != 4)
		return false;
	/* Of a packet in pieces the first has the ports; the others cannot be told apart here. */
	if (ip.fragment & bpf_htons(0x1fff))
		return false;
	header = (ip.version_len & 0xf) * 4;
	total = bpf_ntohs(ip.total);
	/* Packets that the kernel has put together for speed may be longer than the header can say. skb->len counts from offset 0. */
	if (!total)
		total = skb->len - at;
	if (header < sizeof(ip) || total < header)
		return false;
	p->version = 4;
	p->proto = ip.proto;
	p->src.v4 = ip.src;
	p->dst.v4 = ip.dst;
	p->transport = at + header;
	p->payload_len = total - header;
	return true;
}

static __always_inline bool gadget_packet_ipv6(struct __sk_buff *skb, struct gadget_packet *p, __u32 at)
{
	struct {
		__be32 flow;
		__be16 len;
		__u8 next, hops;
		__u8 src[16], dst[16];
	} ip;
	__u32 left;
	__u8 next;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || (*(__u8 *)&ip.flow) >> 4 != 6)
		return false;
	__builtin_memcpy(p->src.v6, ip.src, 16);
	__builtin_memcpy(p->dst.v6, ip.dst, 16);
	at += sizeof(ip);
	next = ip.next;
	left = bpf_ntohs(ip.len);
	if (!left)
		left = skb->len - at;
	for (int i = 0; i < GADGET_IPV6_EXTENSIONS; i++) {
		struct {
			__u8 next, len;
			__be16 fragment;
		} ext;
		__u32 size;

		/* Hop-by-hop, routing, fragment, destination, authentication, mobility. */
		if (next != 0 && next != 43 && next != 44 && next != 60 && next != 51 && next != 135)
			break;
		if (bpf_skb_load_bytes(skb, at, &ext, sizeof(ext)))
			return false;
		if (next == 44 && (ext.fragment & bpf_htons(0xfff8)))
			return false;
		size = next == 44 ? 8 : next == 51 ? ((__u32)ext.len + 2) * 4 : ((__u32)ext.len + 1) * 8;
		if (size > left)
			return false;
		left -= size;
		at += size;
		next = ext.next;
	}
	p->version = 6;
	p->proto = next;
	p->transport = at;
	p->payload_len = left;
	return true;
}

/* Where the packet at hand is described. */
GADGET_HEAP(gadget_packet_heap, sizeof(struct gadget_packet));

/*
 * A global function, so that the verifier looks at it once, and keeps nothing in mind of how the headers were found. It
 * takes no pointer but the packet because Linux 5.10 allows no other.
 */
__attribute__((noinline)) int gadget_packet_find(struct __sk_buff *skb)
{
	struct gadget_packet *p = gadget_heap_get(&gadget_packet_heap);
	struct {
		__be16 sport, dport;
		__be32 seq;
	} ports;
	__u16 ethertype;
	__u32 header;
	__u8 tcp[2];
	int at = gadget_packet_network(skb, &ethertype);

	if (!p || at < 0)
		return 0;
	__builtin_memset(p, 0, sizeof(*p));
	if (ethertype == GADGET_ETH_P_IP) {
		if (!gadget_packet_ipv4(skb, p, at))
			return 0;
	} else if (ethertype == GADGET_ETH_P_IPV6) {
		if (!gadget_packet_ipv6(skb, p, at))
			return 0;
	} else {
		return 0;
	}
	if (p->proto != GADGET_IPPROTO_UDP && p->proto != GADGET_IPPROTO_TCP)
		return 0;
	if (bpf_skb_load_bytes(skb, p->transport, &ports, sizeof(ports)))
		return 0;
	p->sport = bpf_ntohs(ports.sport);
	p->dport = bpf_ntohs(ports.dport);
	header = 8;
	if (p->proto == GADGET_IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, p->transport + 12, tcp, sizeof(tcp)))
			return 0;
		header = (tcp[0] >> 4) * 4;
		if (header < 20)
			return 0;
		p->seq = bpf_ntohl(ports.seq);
		p->tcp_flags = tcp[1];
	}
	if (p->payload_len < header)
		return 0;
	p->payload_len -= header;
	p->payload_here = p->payload_len;
	p->payload = p->transport + header;
	if (p->proto == GADGET_IPPROTO_UDP) {
		/* The upper half of what is TCP's sequence number. 0: longer than it can say. */
		__u32 len = bpf_ntohl(ports.seq) >> 16;

		if (len >= header) {
			p->payload_len = len - header;
			if (p->payload_here > p->payload_len)
				p->payload_here = p->payload_len;
		}
	}
	return 1;
}

/**
 * The addresses, ports and payload of a UDP or TCP packet; NULL for anything else, later pieces of a packet that came in
 * pieces included. Good until the program ends.
 */
static __always_inline struct gadget_packet *gadget_packet_parse(struct __sk_buff *skb)
{
	return gadget_packet_find(skb) ? gadget_heap_get(&gadget_packet_heap) : NULL;
}

/** An end of the packet, as events carry it. */
static __always_inline void gadget_packet_endpoint(struct gadget_l4endpoint_t *to, const union gadget_ip_addr_t *addr,
						   __u16 port, const struct gadget_packet *p)
{
	__builtin_memcpy(&to->addr_raw, addr, sizeof(to->addr_raw));
	to->port = port;
	to->proto_raw = p->proto;
	to->version = p->version;
}

#endif
