// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// top_blockio: which threads read from and write to block devices, and how much.
//
// Who it is shows when a request is made: from Linux 6.5 on by block_io_start, which runs in the thread that asks; before
// that by block_rq_issue, which may run in another. What came of it shows when the request completes.

#include <gadget/blockio.h>
#include <gadget/filter.h>
#include <gadget/maps.h>
#include <gadget/process.h>

#define MAX_REQUESTS 16384
#define MAX_ROWS 16384

struct request_of {
	struct gadget_process proc;
	__u64 start;
	// The device could not take it: it will be sent again, by whoever has the time.
	__u64 waits;
};

struct io_key {
	struct gadget_process proc;
	enum gadget_io_operation rw_raw;
	__u32 major;
	__u32 minor;
};

struct io_sum {
	// When the last of them was asked for: tells whose the mount namespace was, whose number may be used again.
	gadget_timestamp timestamp_raw;
	__u64 bytes;
	__u64 us;
	__u64 io;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_REQUESTS);
	__type(key, __u64);
	__type(value, struct request_of);
} started SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ROWS);
	__type(key, struct io_key);
	__type(value, struct io_sum);
} sums SEC(".maps");

GADGET_MAPITER(blockio, sums);

static const struct io_sum nothing;

static __always_inline int begin(__u64 rq)
{
	struct request_of who;

	if (gadget_should_discard_data_current()) {
		// The kernel uses a request's memory again: what stands there now is another one's.
		bpf_map_delete_elem(&started, &rq);
		return 0;
	}
	__builtin_memset(&who, 0, sizeof(who));
	gadget_process_populate(&who.proc);
	who.start = bpf_ktime_get_boot_ns();
	gadget_update_or_count(&started, &rq, &who);
	return 0;
}

SEC("raw_tp/block_io_start")
int ig_topio_start(struct bpf_raw_tracepoint_args *ctx)
{
	return begin(ctx->args[0]);
}

SEC("raw_tp/block_rq_issue")
int ig_topio_issue(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 rq = (__u64)gadget_io_request(ctx);
	struct request_of *who = bpf_map_lookup_elem(&started, &rq);

	if (!who || !who->waits)
		return begin(rq);
	who->waits = false;
	return 0;
}

SEC("raw_tp/block_rq_requeue")
int ig_topio_requeued(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 rq = (__u64)gadget_io_request(ctx);
	struct request_of *who = bpf_map_lookup_elem(&started, &rq);

	if (who)
		who->waits = true;
	return 0;
}

// A request that has become part of another does not complete by itself.
SEC("raw_tp/block_rq_merge")
int ig_topio_merged(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 rq = (__u64)gadget_io_request(ctx);

	bpf_map_delete_elem(&started, &rq);
	return 0;
}

SEC("raw_tp/block_rq_complete")
int ig_topio_done(struct bpf_raw_tracepoint_args *ctx)
{
	struct request___known *rq = (struct request___known *)ctx->args[0];
	__u64 at = (__u64)rq;
	__u32 bytes = ctx->args[2];
	bool whole = bytes >= BPF_CORE_READ(rq, __data_len);
	struct request_of *who = bpf_map_lookup_elem(&started, &at);
	struct io_key key;
	struct io_sum *sum;

	if (!who)
		return 0;
	__builtin_memset(&key, 0, sizeof(key));
	key.proc = who->proc;
	key.rw_raw = gadget_io_operation(rq);
	gadget_io_disk(rq, &key.major, &key.minor);
	sum = gadget_lookup_or_insert(&sums, &key, &nothing);
	if (sum) {
		sum->timestamp_raw = who->start;
		__sync_fetch_and_add(&sum->bytes, bytes);
		// Of a request that completes in parts, the last one counts.
		if (whole) {
			__sync_fetch_and_add(&sum->us, (bpf_ktime_get_boot_ns() - who->start) / 1000);
			__sync_fetch_and_add(&sum->io, 1);
		}
	}
	if (whole)
		bpf_map_delete_elem(&started, &at);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
