/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Requests to block devices: what they are, and the arguments of their tracepoints on any kernel.
 *
 * For raw tracepoints (raw_tp): block_rq_insert, block_rq_issue, block_rq_requeue, block_rq_complete (Linux 5.5, for BTF) and
 * block_rq_merge (5.9).
 */
#ifndef GADGET_BLOCKIO_H
#define GADGET_BLOCKIO_H

#include <gadget/kernel.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/** What a request does; the names are those of `rw` in rows. */
enum gadget_io_operation { read, write, flush, discard, other };

struct gendisk___known {
	int major;
	int first_minor;
} __attribute__((preserve_access_index));

struct request_queue___known {
	struct gendisk___known *disk; /* Linux 5.17 */
} __attribute__((preserve_access_index));

struct request___known {
	struct request_queue___known *q;
	unsigned int cmd_flags;
	unsigned int __data_len;
	struct gendisk___known *rq_disk; /* until Linux 5.16 */
} __attribute__((preserve_access_index));

struct request_queue;
struct request;

/* The tracepoints of inserted, issued and merged requests before 5.11, and before it was changed in 5.10 too (5.10.137). */
typedef void (*btf_trace_block_rq_issue___old)(void *, struct request_queue *, struct request *);

/*
 * The request of block_rq_insert, block_rq_issue, block_rq_requeue and block_rq_merge. The two reads must stay two: of a context, the verifier takes only
 * fixed offsets, and a kernel with one argument refuses to attach a program that could read a second. Hence written out:
 * the compiler would make one of them.
 */
static __always_inline struct request___known *gadget_io_request(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 rq;

	if (bpf_core_type_matches(btf_trace_block_rq_issue___old))
		asm volatile("%[rq] = *(u64 *)(%[ctx] + 8)" : [rq] "=r"(rq) : [ctx] "r"(ctx));
	else
		asm volatile("%[rq] = *(u64 *)(%[ctx] + 0)" : [rq] "=r"(rq) : [ctx] "r"(ctx));
	return (struct request___known *)rq;
}

static __always_inline enum gadget_io_operation gadget_io_operation(struct request___known *rq)
{
	switch (BPF_CORE_READ(rq, cmd_flags) & 0xff) {
	case 0:
		return read;
	case 1:
	case 7: /* appended to a zone */
	case 9: /* zeroes */
	case 13: /* appended to a zone, before Linux 6.5 */
		return write;
	case 2:
		return flush;
	case 3:
	case 5: /* secure erase */
		return discard;
	default:
		return other;
	}
}

/** Major and minor number of the whole disk that a request is for; 0 and 0 where there is none. */
static __always_inline void gadget_io_disk(struct request___known *rq, __u32 *major, __u32 *minor)
{
	struct gendisk___known *disk;

	if (bpf_core_field_exists(struct request___known, rq_disk))
		disk = BPF_CORE_READ(rq, rq_disk);
	else
		disk = BPF_CORE_READ(rq, q, disk);
	*major = BPF_CORE_READ(disk, major);
	*minor = BPF_CORE_READ(disk, first_minor);
}

#endif
