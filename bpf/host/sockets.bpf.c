// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * Keeps the map `gadget_sockets`: which process a socket with a local port belongs to (gadget/sockets.h).
 *
 * A socket gets its port by bind, by connect, by listen, or by the first datagram it sends. The end of those system calls shows
 * them all. Two come too late there, because packets leave before the call returns: a TCP connection, which
 * is caught by a socket operation just before its SYN, and a datagram of a socket that is not connected, which is caught in
 * sendmsg. Sockets that were there before are found by a walk over all open files.
 *
 * A socket's end: the change of a TCP socket's state to CLOSE, the release of any other, and of a TCP socket that never left
 * that state. A socket may have lost its port before its end, or have another one by then: what it is entered by is kept by socket.
 * Sockets that share a port overwrite one another's entry, and only the one that is in it takes it out.
 *
 * No program here decides anything about a packet or a call: each returns what lets it pass.
 */
#include <gadget/buffer.h>
#include <gadget/process.h>
#include <gadget/sock.h>
#include <gadget/socket_calls.h>
#define GADGET_SOCKETS_MAX 65536
#include <gadget/sockets.h>
#include <bpf/bpf_tracing.h>
#ifdef SOCKETS_WITH_PATHS
#include "socket_paths.h"
#else
static __always_inline bool enter_paths(__u64 id, struct task_struct *task)
{
	return true;
}
static __always_inline void remove_paths(__u64 id)
{
}
#endif

char LICENSE[] SEC("license") = "GPL";

#define TCP_CLOSE 7
#define SOCK_OPS_TCP_CONNECT 3

/* Set by the host where no program on a control group can be had: then datagrams are looked at when the call ends. */
const volatile bool late_sends = false;

/* Sockets for which the map had no room. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sockets_full SEC(".maps");

/* What each socket is entered by. The host makes this map as large as the other. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GADGET_SOCKETS_MAX);
	__type(key, __u64);
	__type(value, struct gadget_socket_key);
} sockets_entered SEC(".maps");

/* False for a socket that has no port, or none any more. */
static __always_inline bool key_of(struct gadget_socket_key *key, const struct sock *sk)
{
	__u16 proto = gadget_proto_of_sock(sk);

	key->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (key->family != GADGET_AF_INET && key->family != GADGET_AF_INET6)
		return false;
	if (proto != GADGET_IPPROTO_TCP && proto != GADGET_IPPROTO_UDP)
		return false;
	key->proto = proto;
	key->port = BPF_CORE_READ(sk, __sk_common.skc_num);
	key->netns = gadget_netns_of_sock(sk);
	return key->port != 0;
}

static __always_inline bool is_same(const struct gadget_socket_key *a, const struct gadget_socket_key *b)
{
	return a->netns == b->netns && a->family == b->family && a->proto == b->proto && a->port == b->port;
}

/* Takes out what a socket is entered by; the entry itself only if no other socket has taken it over. */
static __always_inline void remove(const struct sock *sk)
{
	__u64 id = (__u64)sk;
	struct gadget_socket_key *found = bpf_map_lookup_elem(&sockets_entered, &id);
	struct gadget_socket_key key;
	struct gadget_socket_value *v;

	if (!found)
		return;
	key = *found;
	/* In this order: see the end of enter(). */
	bpf_map_delete_elem(&sockets_entered, &id);
	remove_paths(id);
	v = bpf_map_lookup_elem(&gadget_sockets, &key);
	if (v && v->sock == id)
		bpf_map_delete_elem(&gadget_sockets, &key);
}

/* Fills what is known of the two ends, for gadget_socket_is_at. */
static __always_inline void read_ends(struct gadget_socket_value *v, const struct sock *sk, __u16 family)
{
	__be32 v4;

	v->peer_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (family == GADGET_AF_INET) {
		v->addr[0] = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		v4 = v->addr[0];
		/* A broadcast address: packets leave from another. */
		if (!BPF_CORE_READ((const struct inet_sock *)sk, inet_saddr))
			v->addr[0] = 0;
	} else {
		bpf_core_read(v->addr, sizeof(v->addr), &sk->__sk_common.skc_v6_rcv_saddr);
		v4 = v->addr[2] == bpf_htonl(0xffff) ? v->addr[3] : 0;
	}
	/* The same of multicasts. */
	if ((v4 & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) ||
	    (family == GADGET_AF_INET6 && (v->addr[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000)))
		__builtin_memset(v->addr, 0, sizeof(v->addr));
}

static __always_inline bool has_same_ends(const struct gadget_socket_value *a, const struct gadget_socket_value *b)
{
	return a->peer_port == b->peer_port && a->addr[0] == b->addr[0] && a->addr[1] == b->addr[1] &&
	       a->addr[2] == b->addr[2] && a->addr[3] == b->addr[3];
}

/* Enters a socket as that of `task`. `flags`: BPF_ANY, or BPF_NOEXIST for what may be known better. */
static __always_inline void enter(const struct sock *sk, struct task_struct *task, __u64 flags)
{
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);
	const struct cred *cred = BPF_CORE_READ(task, cred);
	struct gadget_socket_key key = {};
	struct gadget_socket_value v = {};
	struct gadget_socket_value *old;
	struct gadget_socket_key *entered;
	__u64 id = (__u64)sk;
	bool known, was_entered;
	__u64 pid;
	long err;

	if (!sk)
		return;
	known = key_of(&key, sk);
	entered = bpf_map_lookup_elem(&sockets_entered, &id);
	/* It had another port, or was another socket at this address whose end was not seen. */
	if (entered && (!known || !is_same(entered, &key))) {
		remove(sk);
		entered = NULL;
	}
	if (!known)
		return;
	was_entered = entered;
	pid = (__u64)BPF_CORE_READ(task, tgid) << 32 | (__u32)BPF_CORE_READ(task, pid);
	read_ends(&v, sk, key.family);
	if (flags == BPF_ANY) {
		old = bpf_map_lookup_elem(&gadget_sockets, &key);
		if (old && old->sock == id && old->pid_tgid == pid && has_same_ends(old, &v))
			return;
	}
	v.mntns = gadget_get_mntns_id(task);
	v.pid_tgid = pid;
	v.uid_gid = (__u64)BPF_CORE_READ(cred, gid.val) << 32 | BPF_CORE_READ(cred, uid.val);
	bpf_probe_read_kernel(v.task, sizeof(v.task), &task->comm);
	bpf_probe_read_kernel(v.ptask, sizeof(v.ptask), &parent->comm);
	v.sock = (__u64)sk;
	v.ppid = BPF_CORE_READ(parent, tgid);
	v.ptid = BPF_CORE_READ(parent, pid);
	v.ipv6only = BPF_CORE_READ_BITFIELD_PROBED(sk, __sk_common.skc_ipv6only);
	if (bpf_map_update_elem(&sockets_entered, &id, &key, BPF_ANY)) {
		gadget_count(&sockets_full);
		return;
	}
	err = bpf_map_update_elem(&gadget_sockets, &key, &v, flags);
	if (err) {
		if (err != -17 /* EEXIST */)
			gadget_count(&sockets_full);
		/* The entry may be its own: found before, by another descriptor or in another process. Then it takes it out at its end. */
		if (!was_entered)
			bpf_map_delete_elem(&sockets_entered, &id);
		return;
	}
	if (!enter_paths(id, task))
		gadget_count(&sockets_full);
	/* It may have ended meanwhile, before there was anything to take out. */
	if (!bpf_map_lookup_elem(&sockets_entered, &id)) {
		bpf_map_delete_elem(&gadget_sockets, &key);
		remove_paths(id);
	}
}

/* ---- the ends of system calls ---- */

static __always_inline int call_ended(void *regs, int nr)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct gadget_syscall_args args = {};
	enum gadget_socket_call call;

	if (!gadget_may_be_socket_call(nr))
		return 0;
	call = gadget_socket_call_read(&args, regs, nr);
	if (call == GADGET_CALL_BIND || call == GADGET_CALL_CONNECT || call == GADGET_CALL_LISTEN ||
	    (late_sends && call == GADGET_CALL_SEND))
		enter(gadget_sock_of_fd(task, args.a[0]), task, BPF_ANY);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(ig_sockets_call, struct pt_regs *regs, long ret)
{
	return call_ended(regs, gadget_syscall_nr_direct(regs));
}

SEC("raw_tp/sys_exit")
int ig_sockets_call_raw(struct bpf_raw_tracepoint_args *ctx)
{
	void *regs = (void *)ctx->args[0];

	return call_ended(regs, gadget_syscall_nr_probed(regs));
}

/* ---- before packets leave, and at the end of sockets ---- */

/* The address of a socket that the verifier knows as something else, as a number that it knows nothing of. */
static __always_inline struct sock *plain(const void *known)
{
	const void *at = known;
	struct sock *sk = NULL;

	bpf_probe_read_kernel(&sk, sizeof(sk), &at);
	return sk;
}

SEC("sockops")
int ig_sockets_syn(struct bpf_sock_ops *ctx)
{
	if (ctx->op == SOCK_OPS_TCP_CONNECT && ctx->sk)
		enter(plain(ctx->sk), (struct task_struct *)bpf_get_current_task(), BPF_ANY);
	return 1;
}

SEC("cgroup/sendmsg4")
int ig_sockets_send4(struct bpf_sock_addr *ctx)
{
	if (ctx->sk)
		enter(plain(ctx->sk), (struct task_struct *)bpf_get_current_task(), BPF_ANY);
	return 1;
}

SEC("cgroup/sendmsg6")
int ig_sockets_send6(struct bpf_sock_addr *ctx)
{
	if (ctx->sk)
		enter(plain(ctx->sk), (struct task_struct *)bpf_get_current_task(), BPF_ANY);
	return 1;
}

SEC("cgroup/sock_release")
int ig_sockets_release(struct bpf_sock *ctx)
{
	struct sock *sk = plain(ctx);

	/* A TCP socket lives on without its file, until the peer has everything. Of one that was only bound there is no change of state. */
	if (BPF_CORE_READ(sk, sk_protocol) == GADGET_IPPROTO_UDP || BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_CLOSE)
		remove(sk);
	return 1;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(ig_sockets_state, const struct sock *sk, int before, int after)
{
	if (after == TCP_CLOSE)
		remove(sk);
	return 0;
}

SEC("raw_tp/inet_sock_set_state")
int ig_sockets_state_raw(struct bpf_raw_tracepoint_args *ctx)
{
	if (ctx->args[2] == TCP_CLOSE)
		remove((const struct sock *)ctx->args[0]);
	return 0;
}

/* ---- what was there before ---- */

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
} __attribute__((preserve_access_index));

SEC("iter/task_file")
int ig_sockets_present(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;

	/*
	 * The kernel leaves out threads that have the files of their process' first one in common: what comes here has files of its own,
	 * or goes on after the first one has ended.
	 */
	if (task && file)
		enter(gadget_sock_of_file(file), task, BPF_NOEXIST);
	return 0;
}
