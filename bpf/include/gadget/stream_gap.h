/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * The account of streams that a gadget could not follow: parts that it did not see, or that were more than it looks at.
 *
 * Include it only where needed: it defines the map `gadget_stream_gap`.
 */
#ifndef GADGET_STREAM_GAP_H
#define GADGET_STREAM_GAP_H

#include <gadget/buffer.h>

/**
 * Places in streams at which messages, one or more, may have been missed: gadget_count(&gadget_stream_gap). Read by the host, which adds
 * it to the ledger (`stream_gap`).
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} gadget_stream_gap SEC(".maps");

#endif
