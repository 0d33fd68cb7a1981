/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Reading a `struct sock`: its addresses, its network namespace, and the way to it from a file descriptor.
 *
 * Linux 5.6 (BTF; `sk_protocol` as a member of its own). Defines no map.
 */
#ifndef GADGET_SOCK_H
#define GADGET_SOCK_H

#include <gadget/files.h>
#include <gadget/kernel.h>
#include <gadget/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef GADGET_AF_INET
#define GADGET_AF_INET 2
#define GADGET_AF_INET6 10
#define GADGET_IPPROTO_TCP 6
#define GADGET_IPPROTO_UDP 17
#endif

#define GADGET_IPPROTO_MPTCP 262

#define GADGET_SOCKFS_MAGIC 0x534f434b

#ifndef __VMLINUX_H__
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr___gadget {
	__u8 bytes[16];
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned char skc_reuse : 4;
	unsigned char skc_reuseport : 1;
	unsigned char skc_ipv6only : 1;
	int skc_bound_dev_if;
	possible_net_t skc_net;
	struct in6_addr___gadget skc_v6_daddr;
	struct in6_addr___gadget skc_v6_rcv_saddr;
};

struct socket;

struct sock {
	struct sock_common __sk_common;
	__u16 sk_type;
	__u16 sk_protocol;
	int sk_err;
	struct socket *sk_socket;
};

struct socket {
	struct file *file;
	struct sock *sk;
};

struct inet_sock {
	struct sock sk;
	__be32 inet_saddr;
	__be16 inet_sport;
};

#pragma clang attribute pop
#endif

/* What kernel.h leaves out of a file. */
struct file___private {
	struct inode *f_inode;
	void *private_data;
} __attribute__((preserve_access_index));

struct inode___number {
	unsigned long i_ino;
} __attribute__((preserve_access_index));

/** Inode number of the socket's network namespace. */
static __always_inline gadget_netns_id gadget_netns_of_sock(const struct sock *sk)
{
	return BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
}

/**
 * Protocol of the socket's packets: that of MPTCP is TCP. Programs hold the MPTCP socket; beneath it the kernel has a TCP
 * socket of its own for each path.
 */
static __always_inline __u16 gadget_proto_of_sock(const struct sock *sk)
{
	__u16 proto = BPF_CORE_READ(sk, sk_protocol);

	return proto == GADGET_IPPROTO_MPTCP ? GADGET_IPPROTO_TCP : proto;
}

struct tcp_sock___mptcp {
	bool is_mptcp;
} __attribute__((preserve_access_index));

/** True for such a TCP socket beneath an MPTCP socket. Only ask it of a TCP socket. */
static __always_inline bool gadget_is_mptcp_path(const struct sock *sk)
{
	const struct tcp_sock___mptcp *tcp = (const void *)sk;

	return bpf_core_field_exists(tcp->is_mptcp) && BPF_CORE_READ_BITFIELD_PROBED(tcp, is_mptcp);
}

/**
 * Fills the local (`src`) and the remote (`dst`) end of an IPv4 or IPv6 socket, either of which may be NULL.
 * Returns 0, or -1 for a socket of another family; then nothing is written.
 */
static __always_inline int gadget_l4endpoints_from_sock(struct gadget_l4endpoint_t *src, struct gadget_l4endpoint_t *dst,
							const struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	__u16 proto = gadget_proto_of_sock(sk);
	bool v4 = family == GADGET_AF_INET;

	if (!v4 && family != GADGET_AF_INET6)
		return -1;
	if (src) {
		__builtin_memset(src, 0, sizeof(*src));
		src->version = v4 ? 4 : 6;
		src->proto_raw = proto;
		src->port = BPF_CORE_READ(sk, __sk_common.skc_num);
		/* In the hash tables skc_num is 0 for a moment while a port is looked for. */
		if (!src->port)
			src->port = bpf_ntohs(BPF_CORE_READ((const struct inet_sock *)sk, inet_sport));
		if (v4)
			BPF_CORE_READ_INTO(&src->addr_raw.v4, sk, __sk_common.skc_rcv_saddr);
		else
			bpf_core_read(&src->addr_raw, 16, &sk->__sk_common.skc_v6_rcv_saddr);
	}
	if (dst) {
		__builtin_memset(dst, 0, sizeof(*dst));
		dst->version = v4 ? 4 : 6;
		dst->proto_raw = proto;
		dst->port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
		if (v4)
			BPF_CORE_READ_INTO(&dst->addr_raw.v4, sk, __sk_common.skc_daddr);
		else
			bpf_core_read(&dst->addr_raw, 16, &sk->__sk_common.skc_v6_daddr);
	}
	return 0;
}

/** True if the address is an IPv4 one in the clothes of IPv6 (::ffff:a.b.c.d). */
static __always_inline bool gadget_is_v4_mapped(const struct gadget_l4endpoint_t *e)
{
	const __u8 *a = e->addr_raw.v6;

	for (int i = 0; i < 10; i++)
		if (a[i])
			return false;
	return a[10] == 0xff && a[11] == 0xff;
}

/** The socket behind an open file; NULL if it is something else. */
static __always_inline struct sock *gadget_sock_of_file(struct file *file)
{
	struct socket *socket;

	if (BPF_CORE_READ(file, f_inode, i_sb, s_magic) != GADGET_SOCKFS_MAGIC)
		return NULL;
	socket = BPF_CORE_READ((struct file___private *)file, private_data);
	return BPF_CORE_READ(socket, sk);
}

/** The socket behind a descriptor of `task`; NULL if there is none. */
static __always_inline struct sock *gadget_sock_of_fd(struct task_struct *task, int fd)
{
	struct file *file = gadget_file_of_fd(task, fd);

	return file ? gadget_sock_of_file(file) : NULL;
}

/** Inode number of the socket, as in /proc/PID/fd; 0 for one that no file refers to. */
static __always_inline __u64 gadget_ino_of_sock(const struct sock *sk)
{
	struct file *file = BPF_CORE_READ(sk, sk_socket, file);
	struct inode___number *inode;

	if (!file)
		return 0;
	inode = (struct inode___number *)BPF_CORE_READ(file, f_inode);
	return BPF_CORE_READ(inode, i_ino);
}

#endif
