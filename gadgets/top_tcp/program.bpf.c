// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// top_tcp: bytes that threads send and receive over TCP, by connection.

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/maps.h>
#include <gadget/sock.h>
#include <bpf/bpf_tracing.h>

struct connection {
	gadget_mntns_id mntns_id;
	gadget_pid pid;
	gadget_tid tid;
	struct gadget_l4endpoint_t src;
	struct gadget_l4endpoint_t dst;
	gadget_comm comm[TASK_COMM_LEN];
};

struct traffic {
	// Whose it was: the number of a mount namespace may belong to another container when the table is read.
	gadget_timestamp timestamp_raw;
	gadget_bytes sent_raw;
	gadget_bytes received_raw;
};

// 4 or 6; -1: both.
const volatile int target_family = -1;
GADGET_PARAM(target_family);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, struct connection);
	__type(value, struct traffic);
} connections SEC(".maps");

GADGET_MAPITER(tcp, connections);

#define MSG_PEEK 2
// What was sent comes back with its time: it is no data that was received.
#define MSG_ERRQUEUE 0x2000

static const struct traffic nothing;

static __noinline int moved(const struct sock *sk, long bytes, bool received)
{
	struct connection key;
	struct traffic *t;
	__u64 ids;

	if (bytes <= 0 || gadget_proto_of_sock(sk) != GADGET_IPPROTO_TCP)
		return 0;
	if (gadget_should_discard_data_current())
		return 0;
	__builtin_memset(&key, 0, sizeof(key));
	if (gadget_l4endpoints_from_sock(&key.src, &key.dst, sk))
		return 0;
	if (target_family > 0 && key.src.version != target_family)
		return 0;
	ids = bpf_get_current_pid_tgid();
	key.mntns_id = gadget_get_current_mntns_id();
	key.pid = ids >> 32;
	key.tid = (__u32)ids;
	bpf_get_current_comm(key.comm, sizeof(key.comm));
	t = gadget_lookup_or_insert(&connections, &key, &nothing);
	if (!t)
		return 0;
	t->timestamp_raw = bpf_ktime_get_boot_ns();
	if (received)
		__sync_fetch_and_add(&t->received_raw, bytes);
	else
		__sync_fetch_and_add(&t->sent_raw, bytes);
	return 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(ig_toptcp_sent, struct sock *sk, int ret, int flags)
{
	return moved(sk, ret, false);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(ig_toptcp_received, struct sock *sk, int ret, int flags)
{
	return flags & (MSG_PEEK | MSG_ERRQUEUE) ? 0 : moved(sk, ret, true);
}

// Before Linux 6.3 there are no such tracepoints.
#if defined(__TARGET_ARCH_x86)
struct pt_regs___call {
	unsigned long di, si, dx;
} __attribute__((preserve_access_index));
#define FIRST(ctx) BPF_CORE_READ((struct pt_regs___call *)(ctx), di)
#define SECOND(ctx) BPF_CORE_READ((struct pt_regs___call *)(ctx), si)
#define THIRD(ctx) BPF_CORE_READ((struct pt_regs___call *)(ctx), dx)
#else
struct pt_regs___call {
	__u64 regs[31];
} __attribute__((preserve_access_index));
#define FIRST(ctx) BPF_CORE_READ((struct pt_regs___call *)(ctx), regs[0])
#define SECOND(ctx) BPF_CORE_READ((struct pt_regs___call *)(ctx), regs[1])
#define THIRD(ctx) BPF_CORE_READ((struct pt_regs___call *)(ctx), regs[2])
#endif

SEC("kprobe/tcp_sendmsg")
int ig_toptcp_sendmsg(void *ctx)
{
	return moved((const struct sock *)FIRST(ctx), THIRD(ctx), false);
}

SEC("kprobe/tcp_cleanup_rbuf")
int ig_toptcp_cleanup(void *ctx)
{
	const struct sock *sk = (const struct sock *)FIRST(ctx);

	// Of an MPTCP socket's paths it says that something was read, and not how much.
	return gadget_is_mptcp_path(sk) ? 0 : moved(sk, (int)SECOND(ctx), true);
}

char LICENSE[] SEC("license") = "GPL";
