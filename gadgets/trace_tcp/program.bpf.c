// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_tcp: TCP connections that programs open, accept and close.
//
// connect and accept are seen when the system call ends. A connect that does not wait is decided later, in no process's
// context: the socket's change of state tells, and whose it was is kept until then. A close is a change of state, too. What
// a failed connect wanted is gone from the socket when its call ends, and kept from the moment it failed.

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/maps.h>
#include <gadget/recent.h>
#include <gadget/sock.h>
#include <gadget/socket_calls.h>
#include <gadget/tcp.h>
#include <bpf/bpf_tracing.h>

enum event_type { connect, accept, close };

struct event {
	gadget_timestamp timestamp_raw;
	gadget_netns_id netns_id;
	struct gadget_process proc;
	enum event_type type_raw;
	struct gadget_l4endpoint_t src;
	struct gadget_l4endpoint_t dst;
	gadget_errno error_raw;
	__s32 fd;
	__s32 accept_fd;
};

const volatile bool connect_only = false;
GADGET_PARAM(connect_only);

const volatile bool accept_only = false;
GADGET_PARAM(accept_only);

const volatile bool failure_only = false;
GADGET_PARAM(failure_only);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(tracetcp, events, event);

#define EINTR 4
#define EAGAIN 11
#define EALREADY 114
#define EINPROGRESS 115
#define ECANCELED 125
#define ERESTART_FIRST 512
#define ERESTART_LAST 516
#define AF_UNSPEC 0

struct pending {
	struct gadget_process proc;
	__s32 fd;
};

// Connects that are not decided yet, by socket.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct pending);
} undecided SEC(".maps");

// Sockets whose connect was told although its caller may still ask how it ended, by connecting once more, and the answer that
// was told: 0 or an errno. Where the oldest made room, that connect is told twice.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u32);
} told SEC(".maps");

struct ends {
	__u64 time;
	struct gadget_l4endpoint_t src;
	struct gadget_l4endpoint_t dst;
};

// What connects wanted that failed, until their system calls end.
GADGET_RECENT_MAP(failed, __u64, struct ends, 4096)

// A call that waits for it is about to return.
static __always_inline bool failed_goes(void *ctx, struct ends *ends, bool must)
{
	(void)ctx;
	if (bpf_ktime_get_ns() - ends->time > 1000000000ULL)
		return true;
	if (must)
		gadget_count(&gadget_map_full);
	return false;
}

// Whose a connection is, for one that ends with a reset. Each is taken out when its socket is closed.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct pending);
} owners SEC(".maps");

// Non-zero while the socket is in the hands of the current process.
struct sock___lock {
	struct {
		int owned;
	} sk_lock;
} __attribute__((preserve_access_index));

static __always_inline bool is_wanted(enum event_type type, bool success)
{
	if (failure_only && success)
		return false;
	if (connect_only || accept_only)
		return (connect_only && type == connect) || (accept_only && type == accept);
	return true;
}

static __always_inline bool is_tcp(const struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return (family == GADGET_AF_INET || family == GADGET_AF_INET6) &&
	       gadget_proto_of_sock(sk) == GADGET_IPPROTO_TCP;
}

// All that comes from the socket; `whose` NULL: it is the current process's.
static __noinline int fill(struct event *e, enum event_type type, const struct sock *sk, const struct pending *whose)
{
	if (!e)
		return 0;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	e->netns_id = gadget_netns_of_sock(sk);
	if (whose)
		e->proc = whose->proc;
	else
		gadget_process_populate(&e->proc);
	e->type_raw = type;
	gadget_l4endpoints_from_sock(&e->src, &e->dst, sk);
	e->error_raw = 0;
	e->fd = whose ? whose->fd : -1;
	e->accept_fd = -1;
	return 0;
}

// Room for an event, filled. Inline: kernels before 6.2 lose track of room that another function has made.
static __always_inline struct event *begin(enum event_type type, const struct sock *sk, const struct pending *whose)
{
	struct event *e = gadget_reserve_buf(&events, sizeof(*e));

	if (e)
		fill(e, type, sk, whose);
	return e;
}

static __always_inline void remember_owner(const struct sock *sk, int fd)
{
	struct pending p = {};
	__u64 key = (__u64)sk;

	if (connect_only || accept_only || failure_only)
		return;
	gadget_process_populate(&p.proc);
	p.fd = fd;
	if (gadget_update_or_count(&owners, &key, &p))
		return;
	// The connection may have ended before it was entered: nobody would take it out.
	if (BPF_CORE_READ(sk, __sk_common.skc_state) == CLOSE)
		bpf_map_delete_elem(&owners, &key);
}

// The address that a program gave to connect.
static __always_inline void read_wanted(struct gadget_l4endpoint_t *dst, const void *from)
{
	struct {
		__u16 family;
		__be16 port;
		__u8 v4[4];
		__u8 v6[16];
	} a = {};

	bpf_probe_read_user(&a, 8, from);
	__builtin_memset(dst, 0, sizeof(*dst));
	dst->proto_raw = GADGET_IPPROTO_TCP;
	dst->port = bpf_ntohs(a.port);
	if (a.family == GADGET_AF_INET6) {
		dst->version = 6;
		bpf_probe_read_user(&dst->addr_raw, 16, (const char *)from + 8);
	} else {
		dst->version = 4;
		__builtin_memcpy(&dst->addr_raw, a.v4, 4);
	}
}

// Whether a failure was that of this call: an address that another socket had before has failures of its own.
static __always_inline bool is_of(const struct ends *kept, const struct gadget_l4endpoint_t *wanted)
{
	__u64 had[2], want[2];

	if (kept->dst.port != wanted->port || kept->dst.version != wanted->version)
		return false;
	__builtin_memcpy(had, &kept->dst.addr_raw, sizeof(had));
	__builtin_memcpy(want, &wanted->addr_raw, sizeof(want));
	// The kernel takes no address for its own.
	return (had[0] == want[0] && had[1] == want[1]) || !(want[0] | want[1]);
}

static __always_inline void connect_decided(void *ctx, const struct sock *sk, int fd, __u32 error, const void *wanted)
{
	struct gadget_l4endpoint_t want = {};
	__u64 key = (__u64)sk;
	struct event *e;
	struct ends *kept = NULL;

	if (!error)
		remember_owner(sk, fd);
	else
		kept = bpf_map_lookup_elem(&failed, &key);
	if (!is_wanted(connect, !error))
		goto out;
	e = begin(connect, sk, NULL);
	if (!e)
		goto out;
	e->fd = fd;
	e->error_raw = error;
	if (error)
		read_wanted(&want, wanted);
	if (kept && is_of(kept, &want)) {
		e->src = kept->src;
		e->dst = kept->dst;
	} else if (error && !e->dst.port) {
		e->dst = want;
	}
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
out:
	if (kept)
		bpf_map_delete_elem(&failed, &key);
}

// A connect that went on without its caller, or was interrupted, has been decided. False if there is none.
static __noinline bool undecided_ended(void *ctx, const struct sock *sk, bool established)
{
	__u64 key = (__u64)sk;
	struct pending *found = bpf_map_lookup_elem(&undecided, &key);
	__u32 error = 0;
	struct pending p;
	struct event *e;

	if (!found)
		return false;
	p = *found;
	// Whoever takes it out tells it.
	if (bpf_map_delete_elem(&undecided, &key))
		return true;
	if (!established) {
		error = BPF_CORE_READ(sk, sk_err);
		if (!error)
			error = ECANCELED;
	}
	bpf_map_update_elem(&told, &key, &error, BPF_ANY);
	if (established && !connect_only && !accept_only && !failure_only)
		gadget_update_or_count(&owners, &key, &p);
	if (!is_wanted(connect, established))
		return true;
	e = begin(connect, sk, &p);
	if (!e)
		return true;
	e->error_raw = error;
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return true;
}

static __always_inline void connect_ended(void *ctx, const struct sock *sk, int fd, long ret, const void *wanted)
{
	__u64 key = (__u64)sk;
	__u16 family = 0;
	__u32 *answer;

	bpf_probe_read_user(&family, sizeof(family), wanted);
	// Not a connection but the end of one.
	if (family == AF_UNSPEC)
		return;
	if (ret == -EALREADY)
		return;
	if (ret == -EINPROGRESS || ret == -EINTR || (ret <= -ERESTART_FIRST && ret >= -ERESTART_LAST)) {
		struct pending p = {};
		__u8 state;

		gadget_process_populate(&p.proc);
		p.fd = fd;
		if (gadget_update_or_count(&undecided, &key, &p))
			return;
		// It may have been decided before it was entered.
		state = BPF_CORE_READ(sk, __sk_common.skc_state);
		if (state != SYN_SENT && state != SYN_RECV) {
			undecided_ended(ctx, sk, state != CLOSE);
			bpf_map_delete_elem(&failed, &key);
		}
		return;
	}
	// The answer of a connect that was told when it was decided.
	answer = bpf_map_lookup_elem(&told, &key);
	if (answer) {
		bool is_told = *answer == (ret < 0 ? -ret : 0);

		bpf_map_delete_elem(&told, &key);
		if (is_told)
			return;
	}
	connect_decided(ctx, sk, fd, ret < 0 ? -ret : 0, wanted);
}

static __always_inline void accept_ended(void *ctx, const struct sock *listener, int fd, long ret)
{
	const struct sock *sk = listener;
	struct event *e;

	if (ret == -EAGAIN || (ret <= -ERESTART_FIRST && ret >= -ERESTART_LAST))
		return;
	if (ret >= 0) {
		sk = gadget_sock_of_fd((struct task_struct *)bpf_get_current_task(), ret);
		if (!sk)
			sk = listener;
		else
			remember_owner(sk, ret);
	}
	if (!is_wanted(accept, ret >= 0))
		return;
	e = begin(accept, sk, NULL);
	if (!e)
		return;
	e->fd = fd;
	e->error_raw = ret < 0 ? -ret : 0;
	e->accept_fd = ret < 0 ? -1 : ret;
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
}

static __noinline int call_ended(void *ctx, void *regs, int nr, long ret)
{
	struct gadget_syscall_args args = {};
	enum gadget_socket_call call;
	struct sock *sk;

	if (gadget_should_discard_data_current())
		return 0;
	call = gadget_socket_call_read(&args, regs, nr);
	if (call != GADGET_CALL_CONNECT && call != GADGET_CALL_ACCEPT)
		return 0;
	sk = gadget_sock_of_fd((struct task_struct *)bpf_get_current_task(), args.a[0]);
	if (!sk || !is_tcp(sk))
		return 0;
	if (call == GADGET_CALL_CONNECT)
		connect_ended(ctx, sk, args.a[0], ret, (const void *)args.a[1]);
	else
		accept_ended(ctx, sk, args.a[0], ret);
	return 0;
}

// The connection ends: the program closes its end, or the peer or the network tore it down.
static __always_inline void closed(void *ctx, const struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct pending *owner = bpf_map_lookup_elem(&owners, &key);
	bool in_hand = BPF_CORE_READ((const struct sock___lock *)sk, sk_lock.owned);
	struct event *e;

	if (!is_wanted(close, true))
		return;
	// A program that exits has left its namespaces when its sockets are closed.
	if (in_hand && gadget_get_current_mntns_id()) {
		if (gadget_should_discard_data_current())
			return;
		e = begin(close, sk, NULL);
	} else if (owner) {
		e = begin(close, sk, owner);
	} else {
		// Of a connection from before the start only its network is known, by which the host finds the container.
		struct pending nobody = {};

		if (targ_pid || targ_tid || targ_uid != (gadget_uid)-1 || targ_gid != (gadget_gid)-1 || targ_comm[0])
			return;
		if (in_hand)
			gadget_process_populate(&nobody.proc);
		e = begin(close, sk, &nobody);
	}
	if (!e)
		return;
	e->fd = -1;
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
}

static __noinline int state_changed(void *ctx, const struct sock *sk, int before, int after)
{
	__u64 key = (__u64)sk;

	if (!is_tcp(sk))
		return 0;
	// The socket above it tells.
	if (BPF_CORE_READ(sk, sk_protocol) == GADGET_IPPROTO_TCP && gadget_is_mptcp_path(sk))
		return 0;
	if ((before == SYN_SENT || before == SYN_RECV) && after == ESTABLISHED) {
		undecided_ended(ctx, sk, true);
		return 0;
	}
	if (after == SYN_SENT) {
		// A new attempt.
		bpf_map_delete_elem(&told, &key);
		bpf_map_delete_elem(&failed, &key);
		return 0;
	}
	if (before == SYN_SENT && after == CLOSE) {
		struct ends ends = { .time = bpf_ktime_get_ns() };

		// Told, and no call waits for it.
		if (undecided_ended(ctx, sk, false))
			return 0;
		// Which of them is needed shows when the system call ends; most sockets that come here are in one.
		gadget_l4endpoints_from_sock(&ends.src, &ends.dst, sk);
		failed_remember(ctx, &key, &ends);
		return 0;
	}
	if ((before == ESTABLISHED && (after == FIN_WAIT1 || after == CLOSE)) ||
	    (before == CLOSE_WAIT && (after == LAST_ACK || after == CLOSE)))
		closed(ctx, sk);
	if (after == CLOSE) {
		// The address may be another socket's soon.
		bpf_map_delete_elem(&told, &key);
		bpf_map_delete_elem(&owners, &key);
		bpf_map_delete_elem(&undecided, &key);
		bpf_map_delete_elem(&failed, &key);
	}
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(ig_tcp_call, struct pt_regs *regs, long ret)
{
	int nr = gadget_syscall_nr_direct(regs);

	return gadget_may_be_socket_call(nr) ? call_ended(ctx, regs, nr, ret) : 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(ig_tcp_state, const struct sock *sk, int before, int after)
{
	return state_changed(ctx, sk, before, after);
}

// The same where the kernel has no BTF of its own for tp_btf to use.
SEC("raw_tp/sys_exit")
int ig_tcp_call_raw(struct bpf_raw_tracepoint_args *ctx)
{
	void *regs = (void *)ctx->args[0];
	int nr = gadget_syscall_nr_probed(regs);

	return gadget_may_be_socket_call(nr) ? call_ended(ctx, regs, nr, ctx->args[1]) : 0;
}

SEC("raw_tp/inet_sock_set_state")
int ig_tcp_state_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return state_changed(ctx, (const struct sock *)ctx->args[0], ctx->args[1], ctx->args[2]);
}

char LICENSE[] SEC("license") = "GPL";
