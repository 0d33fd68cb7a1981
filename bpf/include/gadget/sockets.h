/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Whose socket it is: the process behind a packet or a `struct sock`, for hooks that run in no process's context.
 *
 * Including this header declares the map `gadget_sockets`; the host sees that and puts its own in its place, which it
 * keeps filled: with the sockets that exist when the gadget starts, and with every socket that gets a port afterwards. Without the
 * host's help the map is empty, and every process is unknown.
 *
 * A socket is found by network namespace, family, protocol and *local* port. Sockets that share a port (SO_REUSEPORT, or
 * connections from one port to several peers) share an entry: that of the latest of them.
 *
 * Functions on `struct sock` need Linux 5.5 (BTF); those on packets and numbers work in any program.
 */
#ifndef GADGET_SOCKETS_H
#define GADGET_SOCKETS_H

#include <gadget/kernel.h>
#include <gadget/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define GADGET_AF_INET 2
#define GADGET_AF_INET6 10
#define GADGET_IPPROTO_TCP 6
#define GADGET_IPPROTO_UDP 17
/** What `__sk_buff.pkt_type` says of a packet that this host sends. */
#define GADGET_PACKET_OUTGOING 4

/** Twelve bytes, of which those at 7, 10 and 11 are padding and must be 0: start from `= {}`. */
struct gadget_socket_key {
	__u32 netns;
	__u16 family;
	/** IPPROTO_TCP or IPPROTO_UDP */
	__u8 proto;
	/** local, in host byte order */
	__u16 port;
};

/** Filled by the host; gadgets only read it. 88 bytes. */
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

/**
 * The socket bound to a local port; NULL: not known. `port` in host byte order. An IPv4 port may also be that of an IPv6
 * socket which takes both.
 */
static __always_inline struct gadget_socket_value *gadget_socket_find(__u32 netns, __u16 family, __u8 proto, __u16 port)
{
	struct gadget_socket_key key = {};
	struct gadget_socket_value *v;

	key.netns = netns;
	key.family = family;
	key.proto = proto;
	key.port = port;
	v = bpf_map_lookup_elem(&gadget_sockets, &key);
	if (v || family != GADGET_AF_INET)
		return v;
	key.family = GADGET_AF_INET6;
	v = bpf_map_lookup_elem(&gadget_sockets, &key);
	return v && !v->ipv6only ? v : NULL;
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
	__be16 port = 0;
	__u16 family;
	__u32 l4;

	if (bpf_skb_load_bytes(skb, ip, &first, sizeof(first)))
		return NULL;
	if (first >> 4 == 4) {
		__be16 fragment = 0;

		family = GADGET_AF_INET;
		l4 = ip + (first & 0xf) * 4;
		if (bpf_skb_load_bytes(skb, ip + 9, &proto, sizeof(proto)) ||
		    bpf_skb_load_bytes(skb, ip + 6, &fragment, sizeof(fragment)))
			return NULL;
		/* Only the first fragment has ports. */
		if (fragment & bpf_htons(0x1fff))
			return NULL;
	} else if (first >> 4 == 6) {
		family = GADGET_AF_INET6;
		l4 = ip + 40;
		if (bpf_skb_load_bytes(skb, ip + 6, &proto, sizeof(proto)))
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
	if (bpf_skb_load_bytes(skb, l4 + (ingress ? 2 : 0), &port, sizeof(port)))
		return NULL;
	return gadget_socket_find(netns, family, proto, bpf_ntohs(port));
}

/**
 * As gadget_socket_of_packet, for a socket filter of this host: the network namespace is in `cb[0]`, the direction in
 * the packet's type.
 */
static __always_inline struct gadget_socket_value *gadget_socket_lookup(const struct __sk_buff *skb)
{
	return gadget_socket_of_packet(skb, skb->cb[0], 14, skb->pkt_type != GADGET_PACKET_OUTGOING);
}

/** Fills `p` from a socket's owner and is true; of an unknown one (`v` NULL) all of it is zero, and it is false. */
static __always_inline bool gadget_process_populate_from_socket(const struct gadget_socket_value *v,
								struct gadget_process *p)
{
	__builtin_memset(p, 0, sizeof(*p));
	if (!v)
		return false;
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
