/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Whose socket it is: the process behind a packet or a `struct sock`, for hooks that run in no process's context.
 *
 * Including this header declares the map `gadget_sockets`; the host sees that and puts its own in its place, which it
 * keeps filled: with the sockets that exist when the gadget starts, and with every socket that gets a port afterwards. Without the
 * host's help the map is empty, and every process is unknown.
 *
 * A socket is found by network namespace, family, protocol and *local* port. Sockets that share a port (SO_REUSEPORT, servers on
 * several addresses, or connections from one port to several peers) share an entry: that of the latest of them. Where the local
 * address is known, too, a socket that is bound to another one is not taken for the owner: then nobody is. Accepted connections are
 * their listener's: once it is closed they are nobody's.
 *
 * A host also sees packets that are not its own: it forwards them, or is a bridge. Those have no owner: what is for another machine
 * by its hardware address (OTHERHOST), what goes out and came in at another interface, and what has an address that is not of this network
 * namespace (gadget/local_address.h), where the socket is bound to none. Of a UDP socket with a peer, only what comes from the peer's port.
 *
 * Functions on `struct sock` need Linux 5.5 (BTF); those on packets and numbers work in any program.
 */
#ifndef GADGET_SOCKETS_H
#define GADGET_SOCKETS_H

#include <gadget/kernel.h>
#include <gadget/local_address.h>
#include <gadget/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define GADGET_AF_INET 2
#define GADGET_AF_INET6 10
#define GADGET_IPPROTO_TCP 6
#define GADGET_IPPROTO_UDP 17
/** What `__sk_buff.pkt_type` says of a packet that this host sends, and of one that is for another by its hardware address. */
#define GADGET_PACKET_OUTGOING 4
#define GADGET_PACKET_OTHERHOST 3
#define GADGET_LOOPBACK_INTERFACE 1

/** Twelve bytes, of which those at 7, 10 and 11 are padding and must be 0: start from `= {}`. */
struct gadget_socket_key {
	__u32 netns;
	__u16 family;
	/** IPPROTO_TCP or IPPROTO_UDP */
	__u8 proto;
	/** local, in host byte order */
	__u16 port;
};

/** Filled by the host; gadgets only read it. 104 bytes. */
struct gadget_socket_value {
	__u64 mntns;
	__u64 pid_tgid;
	__u64 uid_gid;
	char task[TASK_COMM_LEN];
	char ptask[TASK_COMM_LEN];
	/** address of the struct sock */
	__u64 sock;
	/** 0: the host takes an entry out as soon as the socket is closed */
	__u64 deletion_timestamp;
	__u32 ppid;
	__u32 ptid;
	/** not 0: an IPv6 socket that takes no IPv4 packets */
	char ipv6only;
	/** port of the peer that it is connected to, in host byte order; 0: none */
	__u16 peer_port;
	/** local address, of IPv6 sockets for IPv4 as ::ffff:a.b.c.d; all zero: any. In network byte order. */
	__u32 addr[4];
};

/* The size here matters only where no host replaces the map. */
#ifndef GADGET_SOCKETS_MAX
#define GADGET_SOCKETS_MAX 1
#endif

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GADGET_SOCKETS_MAX);
	__type(key, struct gadget_socket_key);
	__type(value, struct gadget_socket_value);
} gadget_sockets SEC(".maps");

/** Whether a socket takes packets for this address, which is 16 bytes long; `mapped`: an IPv4 address, and the socket is of IPv6. */
static __always_inline bool gadget_socket_is_at(const struct gadget_socket_value *v, const void *addr, bool v4, bool mapped)
{
	__u32 want[4] = {};

	if (!(v->addr[0] | v->addr[1] | v->addr[2] | v->addr[3]))
		return true;
	if (mapped) {
		want[2] = bpf_htonl(0xffff);
		__builtin_memcpy(&want[3], addr, 4);
		/* Any address, but of IPv4 only. */
		if (v->addr[2] == want[2] && !(v->addr[0] | v->addr[1] | v->addr[3]))
			return true;
	} else if (v4) {
		__builtin_memcpy(want, addr, 4);
	} else {
		__builtin_memcpy(want, addr, 16);
	}
	return v->addr[0] == want[0] && v->addr[1] == want[1] && v->addr[2] == want[2] && v->addr[3] == want[3];
}

/**
 * The socket bound to a local port; NULL: not known. `port` in host byte order. An IPv4 port may also be that of an IPv6
 * socket which takes both. `addr`: the local address, in network byte order and 16 bytes long, of IPv4 the first four of them; NULL:
 * not known.
 */
static __always_inline struct gadget_socket_value *gadget_socket_find_at(__u32 netns, __u16 family, __u8 proto, __u16 port,
									 const void *addr)
{
	struct gadget_socket_key key = {};
	struct gadget_socket_value *v;
	bool v4 = family == GADGET_AF_INET;

	key.netns = netns;
	key.family = family;
	key.proto = proto;
	key.port = port;
	v = bpf_map_lookup_elem(&gadget_sockets, &key);
	if (v && (!addr || gadget_socket_is_at(v, addr, v4, false)))
		return v;
	if (!v4)
		return NULL;
	key.family = GADGET_AF_INET6;
	v = bpf_map_lookup_elem(&gadget_sockets, &key);
	if (!v || v->ipv6only || (addr && !gadget_socket_is_at(v, addr, v4, true)))
		return NULL;
	return v;
}

/** As gadget_socket_find_at, where the local address is not known. */
static __always_inline struct gadget_socket_value *gadget_socket_find(__u32 netns, __u16 family, __u8 proto, __u16 port)
{
	return gadget_socket_find_at(netns, family, proto, port, NULL);
}

/* Whether a socket is not bound to an address, but for IPv4 or IPv6. */
static __always_inline bool gadget_socket_is_anywhere(const struct gadget_socket_value *v)
{
	return !(v->addr[0] | v->addr[1] | v->addr[3]) && (!v->addr[2] || v->addr[2] == bpf_htonl(0xffff));
}

/*
 * The socket of a packet, by the local end: that of its sender if it goes out, that of its receiver if it comes in. NULL: not known,
 * or the packet is not of this network namespace.
 */
static __always_inline struct gadget_socket_value *gadget_socket_of_ends(const struct __sk_buff *skb, __u32 netns, __u16 family,
									 __u8 proto, bool ingress, const void *addr,
									 __u16 port, __u16 peer_port)
{
	const struct sk_buff___local *kernel_skb = (const void *)skb;
	struct gadget_socket_value *v;

	/* It came in at another interface, and is sent on. Or it was only overheard. */
	if (ingress ? skb->pkt_type == GADGET_PACKET_OTHERHOST : skb->ingress_ifindex)
		return NULL;
	v = gadget_socket_find_at(netns, family, proto, port, addr);
	if (!v)
		return NULL;
	if (ingress && proto == GADGET_IPPROTO_UDP && v->peer_port && v->peer_port != peer_port)
		return NULL;
	/* What comes in at the loopback interface was sent here. A broadcast or multicast is for all, whatever its address is. */
	if (!gadget_socket_is_anywhere(v) ||
	    (ingress && (skb->ifindex == GADGET_LOOPBACK_INTERFACE || skb->pkt_type)))
		return v;
	return gadget_is_local_address(BPF_CORE_READ(kernel_skb, dev), addr, family == GADGET_AF_INET6) ? v : NULL;
}

/**
 * The socket of a packet seen by a socket filter or a classifier; NULL: not known, or neither TCP nor UDP.
 *
 * @param netns   network namespace that the packet was seen in
 * @param ip      where the IP header begins: 14 on Ethernet and loopback
 * @param ingress true for a packet that comes in: then its destination is the local port
 */
static __always_inline struct gadget_socket_value *gadget_socket_of_packet(const struct __sk_buff *skb, __u32 netns,
									   __u32 ip, bool ingress)
{
	__u8 first = 0, proto = 0;
	__u32 addr[4] = {};
	__be16 ports[2] = {};
	__u16 family;
	__u32 l4;

	if (bpf_skb_load_bytes(skb, ip, &first, sizeof(first)))
		return NULL;
	if (first >> 4 == 4) {
		__be16 fragment = 0;

		family = GADGET_AF_INET;
		l4 = ip + (first & 0xf) * 4;
		if (bpf_skb_load_bytes(skb, ip + 9, &proto, sizeof(proto)) ||
		    bpf_skb_load_bytes(skb, ip + 6, &fragment, sizeof(fragment)) ||
		    bpf_skb_load_bytes(skb, ip + (ingress ? 16 : 12), addr, 4))
			return NULL;
		/* Only the first fragment has ports. */
		if (fragment & bpf_htons(0x1fff))
			return NULL;
	} else if (first >> 4 == 6) {
		family = GADGET_AF_INET6;
		l4 = ip + 40;
		if (bpf_skb_load_bytes(skb, ip + 6, &proto, sizeof(proto)) ||
		    bpf_skb_load_bytes(skb, ip + (ingress ? 24 : 8), addr, 16))
			return NULL;
		/* Headers between: hop-by-hop 0, routing 43, fragment 44, authentication 51, destination 60. */
		for (int i = 0; i < 6; i++) {
			__u8 head[2];

			if (proto == GADGET_IPPROTO_TCP || proto == GADGET_IPPROTO_UDP)
				break;
			if (proto != 0 && proto != 43 && proto != 44 && proto != 51 && proto != 60)
				return NULL;
			if (bpf_skb_load_bytes(skb, l4, head, sizeof(head)))
				return NULL;
			if (proto == 44) {
				__be16 fragment = 0;

				if (bpf_skb_load_bytes(skb, l4 + 2, &fragment, sizeof(fragment)) ||
				    fragment & bpf_htons(0xfff8))
					return NULL;
				l4 += 8;
			} else if (proto == 51) {
				l4 += (head[1] + 2) * 4;
			} else {
				l4 += (head[1] + 1) * 8;
			}
			proto = head[0];
		}
	} else {
		return NULL;
	}
	if (proto != GADGET_IPPROTO_TCP && proto != GADGET_IPPROTO_UDP)
		return NULL;
	if (bpf_skb_load_bytes(skb, l4, ports, sizeof(ports)))
		return NULL;
	return gadget_socket_of_ends(skb, netns, family, proto, ingress, addr, bpf_ntohs(ports[ingress]),
				     bpf_ntohs(ports[!ingress]));
}

/**
 * As gadget_socket_of_packet, for a socket filter of this host: the network namespace is in `cb[0]`, the direction in
 * the packet's type.
 */
static __always_inline struct gadget_socket_value *gadget_socket_lookup(const struct __sk_buff *skb)
{
	return gadget_socket_of_packet(skb, skb->cb[0], 14, skb->pkt_type != GADGET_PACKET_OUTGOING);
}

#ifdef GADGET_PACKET_H
/** The socket of a packet that gadget_packet_parse has read; NULL: not known, or not of this network. Include gadget/packet.h first. */
static __always_inline struct gadget_socket_value *gadget_socket_of_parsed(const struct __sk_buff *skb,
									   const struct gadget_packet *p)
{
	__u16 family = p->version == 4 ? GADGET_AF_INET : GADGET_AF_INET6;
	bool ingress = skb->pkt_type != GADGET_PACKET_OUTGOING;

	return gadget_socket_of_ends(skb, skb->cb[0], family, p->proto, ingress, ingress ? &p->dst : &p->src,
				     ingress ? p->dport : p->sport, ingress ? p->sport : p->dport);
}
#endif

/** Fills `p` from a socket's owner and is true; of an unknown one (`v` NULL) it is of no
 * user and no group, all else is zero, and it is false. */
static __always_inline bool gadget_process_populate_from_socket(const struct gadget_socket_value *v,
								struct gadget_process *p)
{
	__builtin_memset(p, 0, sizeof(*p));
	if (!v) {
		// Nobody is known: 0 would be root.
		p->creds.uid = p->creds.gid = (__u32)-1;
		return false;
	}
	p->mntns_id = v->mntns;
	p->pid = v->pid_tgid >> 32;
	p->tid = (__u32)v->pid_tgid;
	p->creds.uid = (__u32)v->uid_gid;
	p->creds.gid = v->uid_gid >> 32;
	__builtin_memcpy(p->comm, v->task, sizeof(p->comm));
	__builtin_memcpy(p->parent.comm, v->ptask, sizeof(p->parent.comm));
	p->parent.pid = v->ppid;
	p->parent.tid = v->ptid;
	return true;
}

#ifdef GADGET_FILTER_H
/**
 * True when an event of this socket is not wanted. Of an unknown owner only a filter on the process can say so: which
 * container it is in, the host decides by network namespace. Include gadget/filter.h first.
 */
static __always_inline bool gadget_should_discard_socket(const struct gadget_socket_value *v)
{
	if (!v)
		return targ_pid || targ_tid || targ_uid != (gadget_uid)-1 || targ_gid != (gadget_gid)-1 || targ_comm[0];
	return gadget_should_discard_data(v->mntns, v->pid_tgid >> 32, (__u32)v->pid_tgid, v->task, (__u32)v->uid_gid,
					  v->uid_gid >> 32);
}
#endif

#endif
