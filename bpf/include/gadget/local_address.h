/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Whether an address is one of a network namespace's own: a router also sees packets that are for somebody else.
 *
 * The kernel's answer, a look into its routes, cannot be had in socket filters. Here the addresses of the interfaces are compared
 * one by one, which is for packets that are few. An address without an interface (`ip route add local …`) is not found, nor one of
 * what is behind GADGET_LOCAL_DEVICES interfaces or GADGET_LOCAL_ADDRESSES addresses of one. Linux 5.8 (BTF). Defines no map.
 */
#ifndef GADGET_LOCAL_ADDRESS_H
#define GADGET_LOCAL_ADDRESS_H

#include <gadget/kernel.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef GADGET_LOCAL_DEVICES
#define GADGET_LOCAL_DEVICES 64
#endif
#ifndef GADGET_LOCAL_ADDRESSES
#define GADGET_LOCAL_ADDRESSES 16
#endif

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head___local {
	struct list_head___local *next;
};

struct in_ifaddr___local {
	struct in_ifaddr___local *ifa_next;
	__be32 ifa_local;
};

struct in_device___local {
	struct in_ifaddr___local *ifa_list;
};

struct in6_addr___local {
	__u64 words[2];
};

struct inet6_ifaddr___local {
	struct in6_addr___local addr;
	struct list_head___local if_list;
};

struct inet6_dev___local {
	struct list_head___local addr_list;
};

struct net___local {
	struct list_head___local dev_base_head;
};

struct possible_net___local {
	struct net___local *net;
};

struct net_device___local {
	struct list_head___local dev_list;
	struct in_device___local *ip_ptr;
	struct inet6_dev___local *ip6_ptr;
	struct possible_net___local nd_net;
};

struct sk_buff___local {
	struct net_device___local *dev;
};

#pragma clang attribute pop

/* An address: `a` and `b` as they lie in memory, of IPv4 the lower half of `a`. */
static __always_inline bool gadget_device_has_v4(const struct net_device___local *dev, __be32 wanted)
{
	const struct in_ifaddr___local *at = BPF_CORE_READ(dev, ip_ptr, ifa_list);

	for (int i = 0; i < GADGET_LOCAL_ADDRESSES && at; i++) {
		if (BPF_CORE_READ(at, ifa_local) == wanted)
			return true;
		at = BPF_CORE_READ(at, ifa_next);
	}
	return false;
}

static __always_inline bool gadget_device_has_v6(const struct net_device___local *dev, __u64 a, __u64 b)
{
	const struct inet6_dev___local *v6 = BPF_CORE_READ(dev, ip6_ptr);
	const void *end = (const char *)v6 + bpf_core_field_offset(struct inet6_dev___local, addr_list);
	const void *at;

	if (!v6)
		return false;
	at = BPF_CORE_READ(v6, addr_list.next);
	for (int i = 0; i < GADGET_LOCAL_ADDRESSES && at && at != end; i++) {
		const struct inet6_ifaddr___local *ifa =
			at - bpf_core_field_offset(struct inet6_ifaddr___local, if_list);
		__u64 found[2] = {};

		bpf_core_read(found, sizeof(found), &ifa->addr);
		if (found[0] == a && found[1] == b)
			return true;
		at = BPF_CORE_READ(ifa, if_list.next);
	}
	return false;
}

static __always_inline bool gadget_device_has(const struct net_device___local *dev, __u64 a, __u64 b, bool v6)
{
	return v6 ? gadget_device_has_v6(dev, a, b) : gadget_device_has_v4(dev, a);
}

/* For those who have a packet of the kernel's. Not inlined: it is long, and the verifier's memory of it is not needed after. */
static __noinline bool gadget_is_local_to(const struct net_device___local *dev, __u64 a, __u64 b, bool v6)
{
	const struct net___local *net = BPF_CORE_READ(dev, nd_net.net);
	const void *end = (const char *)net + bpf_core_field_offset(struct net___local, dev_base_head);
	const void *at;

	if (!net)
		return false;
	/* Mostly it is that of the interface itself. */
	if (gadget_device_has(dev, a, b, v6))
		return true;
	at = BPF_CORE_READ(net, dev_base_head.next);
	for (int i = 0; i < GADGET_LOCAL_DEVICES && at && at != end; i++) {
		dev = at - bpf_core_field_offset(struct net_device___local, dev_list);
		if (gadget_device_has(dev, a, b, v6))
			return true;
		at = BPF_CORE_READ(dev, dev_list.next);
	}
	return false;
}

/**
 * Whether an address is one of the network namespace that the interface `dev`, a `struct net_device *`, is in; also true for
 * multicasts, the broadcast to everybody, IPv4's loopback addresses, and none at all (0.0.0.0, ::). `addr`: in network byte order, of
 * IPv4 4 bytes, of IPv6 16.
 */
static __always_inline bool gadget_is_local_address(const void *dev, const void *addr, bool v6)
{
	__u64 words[2] = {};
	__u32 first;

	if (v6)
		__builtin_memcpy(words, addr, 16);
	else
		__builtin_memcpy(words, addr, 4);
	if (!words[0] && !words[1])
		return true;
	first = *(const __u8 *)words;
	if (v6 ? first == 0xff : first == 127 || (first & 0xf0) == 0xe0 || (__u32)words[0] == 0xffffffff)
		return true;
	return gadget_is_local_to(dev, words[0], words[1], v6);
}

#endif
