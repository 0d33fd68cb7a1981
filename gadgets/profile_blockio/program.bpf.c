// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// profile_blockio: how long requests to block devices take, as a histogram for each disk and kind of request.

#include <gadget/blockio.h>
#include <gadget/histogram.h>
#include <gadget/macros.h>
#include <gadget/maps.h>

// Requests at work at once that can be told apart.
#define MAX_REQUESTS 16384
// Disks times kinds of requests.
#define MAX_ROWS 1024

struct disk {
	__u32 major;
	__u32 minor;
	enum gadget_io_operation rw_raw;
};

struct hist {
	gadget_histogram_slot__u32 latency[GADGET_HISTOGRAM_SLOTS];
};

const volatile bool queued = false;
GADGET_PARAM(queued);

struct beginning {
	__u64 time;
	// The device has it; before that, it waits in the queue.
	__u64 is_sent;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_REQUESTS);
	__type(key, __u64);
	__type(value, struct beginning);
} started SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ROWS);
	__type(key, struct disk);
	__type(value, struct hist);
} hists SEC(".maps");

GADGET_MAPITER(blockio, hists);

static const struct hist nothing;

static __always_inline int begin(__u64 rq, bool is_sent)
{
	struct beginning now = { .time = bpf_ktime_get_ns(), .is_sent = is_sent };

	gadget_update_or_count(&started, &rq, &now);
	return 0;
}

SEC("raw_tp/block_rq_insert")
int ig_profio_insert(struct bpf_raw_tracepoint_args *ctx)
{
	return queued ? begin((__u64)gadget_io_request(ctx), false) : 0;
}

SEC("raw_tp/block_rq_issue")
int ig_profio_issue(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 rq = (__u64)gadget_io_request(ctx);
	struct beginning *known = queued ? bpf_map_lookup_elem(&started, &rq) : NULL;

	// One that was sent before has ended without a word (flushes do on some disks), and this is another in its memory.
	if (!known || known->is_sent)
		return begin(rq, true);
	known->is_sent = true;
	return 0;
}

// The device could not take it: it waits again. When it is sent again it begins anew, unless it began in the queue.
SEC("raw_tp/block_rq_requeue")
int ig_profio_requeued(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 rq = (__u64)gadget_io_request(ctx);
	struct beginning *known = bpf_map_lookup_elem(&started, &rq);

	if (known)
		known->is_sent = false;
	return 0;
}

// A request that has become part of another does not complete by itself, and the kernel uses its memory again: with
// --queued, the next one there would have begun long ago.
SEC("raw_tp/block_rq_merge")
int ig_profio_merged(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 rq = (__u64)gadget_io_request(ctx);

	bpf_map_delete_elem(&started, &rq);
	return 0;
}

SEC("raw_tp/block_rq_complete")
int ig_profio_done(struct bpf_raw_tracepoint_args *ctx)
{
	struct request___known *rq = (struct request___known *)ctx->args[0];
	__u32 bytes = ctx->args[2];
	__u64 at = (__u64)rq, took;
	struct beginning *start;
	struct disk key = {};
	struct hist *hist;

	start = bpf_map_lookup_elem(&started, &at);
	if (!start)
		return 0;
	// Part of it is done, and the rest will come.
	if (bytes < BPF_CORE_READ(rq, __data_len))
		return 0;
	took = (bpf_ktime_get_ns() - start->time) / 1000;
	bpf_map_delete_elem(&started, &at);
	gadget_io_disk(rq, &key.major, &key.minor);
	key.rw_raw = gadget_io_operation(rq);
	hist = gadget_lookup_or_insert(&hists, &key, &nothing);
	if (hist)
		gadget_histogram_add(hist->latency, GADGET_HISTOGRAM_SLOTS, took);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
