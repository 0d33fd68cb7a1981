// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * What programs send and receive through TLS, before it is encrypted and after it was decrypted: calls of OpenSSL, GnuTLS and
 * NSS, in the libraries of each container.
 *
 * A call is told when it returns. The data is read then, in the caller's memory, as much of it as an event has room for.
 */

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/maps.h>
#include <linux/ptrace.h>
#include <bpf/bpf_tracing.h>

#define MAX_DATA 4096
#define MAX_CALLS 65536

/* By the numbers that users know; 9 to 17 are functions of libcrypto, which are not followed. */
enum ssl_operation {
	libssl_SSL_do_handshake = 0,
	libssl_SSL_read = 1,
	libssl_SSL_write = 2,
	libgnutls_gnutls_record_send = 3,
	libgnutls_gnutls_record_recv = 4,
	libnss_PR_Write = 5,
	libnss_PR_Send = 6,
	libnss_PR_Read = 7,
	libnss_PR_Recv = 8,
	libssl_SSL_read_ex = 18,
	libssl_SSL_write_ex = 19,
	libgnutls_gnutls_handshake = 20,
};

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	enum ssl_operation operation_raw;
	/* What the library says went wrong; 0 if nothing did. The libraries' own numbers, so not an errno. */
	__s32 error;
	gadget_duration latency_ns_raw;
	__u64 len;
	__u32 buf_len;
	bool buf_truncated;
	char buf[MAX_DATA];
};

/* Events are written in place and not in scratch memory: programs of uprobes can be preempted by one another. */
#define WITHOUT_DATA ((__u32)__builtin_offsetof(struct event, buf))
#define LITTLE_DATA 256

GADGET_TRACER_MAP(events, 1024 * 256);
GADGET_TRACER(ssl, events, event);

const volatile bool record_data = true;
GADGET_PARAM(record_data);

/* A call on its way. Libraries call each other's and their own functions: only the outermost of a thread is told. */
struct call {
	__u64 begun;
	__u64 buf;
	/* Where an _ex function leaves the length, or 0. */
	__u64 len_at;
	enum ssl_operation operation;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CALLS);
	__type(key, __u32);
	__type(value, struct call);
} calls SEC(".maps");

/* Calls and not copies of the code: there are two dozen programs. */
static __noinline int begins(enum ssl_operation operation, __u64 buf, __u64 len_at)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct call call = {.buf = buf, .len_at = len_at, .operation = operation};
	struct call *known;

	if (gadget_should_discard_data_current())
		return 0;
	known = bpf_map_lookup_elem(&calls, &tid);
	/* one of the same function never came to its end: it was jumped out of */
	if (known && known->operation != operation)
		return 0;
	call.begun = bpf_ktime_get_ns();
	gadget_update_or_count(&calls, &tid, &call);
	return 0;
}

static __always_inline void fill(struct event *event, const struct call *call, __s64 result)
{
	event->timestamp_raw = bpf_ktime_get_boot_ns();
	gadget_process_populate(&event->proc);
	event->operation_raw = call->operation;
	event->error = result < 0 ? result : 0;
	event->latency_ns_raw = bpf_ktime_get_ns() - call->begun;
	event->len = result > 0 ? result : 0;
	event->buf_len = 0;
	event->buf_truncated = false;
}

/* `room` is a constant: how much memory the kernel is asked for is to be known before. */
static __always_inline int tell(void *ctx, const struct call *call, __s64 result, __u32 room)
{
	struct event *event = gadget_reserve_buf(&events, WITHOUT_DATA + room);
	__u32 want;

	if (!event)
		return 0;
	fill(event, call, result);
	if (room) {
		/* what is beyond the data is somebody's earlier event; the last byte stays 0 */
		bpf_probe_read_kernel(event->buf, room, (void *)0);
		want = result >= room ? room - 1 : (__u32)result & (room - 1);
		event->buf_truncated = want < result;
		if (!bpf_probe_read_user(event->buf, want & (room - 1), (void *)call->buf))
			event->buf_len = want;
		else
			event->buf_truncated = true;
	}
	gadget_submit_buf(ctx, &events, event, WITHOUT_DATA + room);
	return 0;
}

static __noinline int ends(struct pt_regs *ctx, enum ssl_operation operation, bool wide)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct call *known = bpf_map_lookup_elem(&calls, &tid);
	__s64 result = wide ? (__s64)PT_REGS_RC(ctx) : (__s32)PT_REGS_RC(ctx);
	struct call call;
	__u64 len = 0;

	/* a call that began before the gadget did, inside another, or of somebody not asked for */
	if (!known || known->operation != operation)
		return 0;
	call = *known;
	bpf_map_delete_elem(&calls, &tid);
	if (call.len_at) {
		/* 1, and the length is left behind; else it failed */
		if (result == 1 && !bpf_probe_read_user(&len, sizeof(len), (void *)call.len_at))
			result = len;
		else
			result = -1;
	}
	/* OpenSSL's handshake is done with 1, and failed in good order with 0; of GnuTLS 0 is success */
	if (operation == libssl_SSL_do_handshake && result == 0)
		result = -1;
	if ((operation == libssl_SSL_do_handshake || operation == libgnutls_gnutls_handshake) && result > 0)
		result = 0;
	if (!record_data || result <= 0 || !call.buf)
		return tell(ctx, &call, result, 0);
	if (result < LITTLE_DATA)
		return tell(ctx, &call, result, LITTLE_DATA);
	return tell(ctx, &call, result, MAX_DATA);
}

#define TRACED(library, shown_as, symbol, buf, len_at, wide)                                                            \
	SEC("uprobe/" library ":" #symbol)                                                                             \
	int ig_##symbol##_e(struct pt_regs *ctx)                                                                       \
	{                                                                                                              \
		return begins(shown_as##_##symbol, buf, len_at);                                                       \
	}                                                                                                              \
	SEC("uretprobe/" library ":" #symbol)                                                                          \
	int ig_##symbol##_x(struct pt_regs *ctx)                                                                       \
	{                                                                                                              \
		return ends(ctx, shown_as##_##symbol, wide);                                                           \
	}

#define SECOND PT_REGS_PARM2(ctx)
#define FOURTH PT_REGS_PARM4(ctx)

TRACED("libssl", libssl, SSL_read, SECOND, 0, false)
TRACED("libssl", libssl, SSL_write, SECOND, 0, false)
TRACED("libssl", libssl, SSL_read_ex, SECOND, FOURTH, false)
TRACED("libssl", libssl, SSL_write_ex, SECOND, FOURTH, false)
TRACED("libssl", libssl, SSL_do_handshake, 0, 0, false)
TRACED("libgnutls", libgnutls, gnutls_record_recv, SECOND, 0, true)
TRACED("libgnutls", libgnutls, gnutls_record_send, SECOND, 0, true)
TRACED("libgnutls", libgnutls, gnutls_handshake, 0, 0, false)
TRACED("libnspr4", libnss, PR_Read, SECOND, 0, false)
TRACED("libnspr4", libnss, PR_Recv, SECOND, 0, false)
TRACED("libnspr4", libnss, PR_Write, SECOND, 0, false)
TRACED("libnspr4", libnss, PR_Send, SECOND, 0, false)

/* A thread that ends in the middle of a call leaves nothing behind. */
SEC("tracepoint/sched/sched_process_exit")
int ig_thread_ends(void *ctx)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&calls, &tid);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
