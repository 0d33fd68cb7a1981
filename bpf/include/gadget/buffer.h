/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Sending events to the host, with every failure counted.
 *
 * Ring buffers: Linux 5.8.
 */
#ifndef GADGET_BUFFER_H
#define GADGET_BUFFER_H

#include <gadget/kernel.h>
#include <gadget/macros.h>
#include <bpf/bpf_helpers.h>

/**
 * A ring buffer for events, with its counter of lost events (`<name>_lost_samples`, read by the host).
 *
 * @param name map name, to be used in GADGET_TRACER
 * @param size bytes, a power of two and a multiple of the page size. A minimum: the host raises it (--buffer-size).
 */
#define GADGET_TRACER_MAP(name, size)                                                                                  \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_RINGBUF);                                                                    \
		__uint(max_entries, size);                                                                             \
	} name SEC(".maps");                                                                                           \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                               \
		__uint(max_entries, 1);                                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, __u64);                                                                                  \
	} name##_lost_samples SEC(".maps");                                                                            \
	GADGET_MARK(gadget_map_tracer_##name)

/**
 * Adds one to the counter in slot 0 of a per-CPU array. Atomic, because an interrupt on the same CPU may run another
 * program between the load and the store of a plain increment.
 */
static __always_inline void gadget_count(void *percpu_counter)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(percpu_counter, &zero);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline void *gadget_reserve_or_count(void *map, void *lost, __u64 size)
{
	void *buf = bpf_ringbuf_reserve(map, size, 0);

	if (!buf)
		gadget_count(lost);
	return buf;
}

static __always_inline long gadget_output_or_count(void *map, void *lost, void *buf, __u64 size)
{
	long err = bpf_ringbuf_output(map, buf, size, 0);

	if (err)
		gadget_count(lost);
	return err;
}

/**
 * Room for one event in the ring buffer, or NULL: then the event is lost and has been counted.
 * The memory is *not* zeroed. Every pointer must go to gadget_submit_buf or gadget_discard_buf.
 *
 * @param map  address of a map made with GADGET_TRACER_MAP: `&events`
 * @param size bytes, a compile-time constant
 */
#define gadget_reserve_buf(map, size) gadget_reserve_or_count((map), (map##_lost_samples), (size))

/** Hands a reserved event to the host. `ctx`, `map` and `size` are there for symmetry. Returns 0. */
#define gadget_submit_buf(ctx, map, buf, size) ((void)(ctx), bpf_ringbuf_submit((buf), 0), 0L)

/** Gives reserved room back: the host never sees it, and it is not counted as lost. */
#define gadget_discard_buf(buf) bpf_ringbuf_discard((buf), 0)

/**
 * Copies `size` bytes at `buf` into the ring buffer as one event; `size` may vary and may be less than the event's
 * struct. Returns 0, or a negative errno: then the event is lost and has been counted.
 */
#define gadget_output_buf(ctx, map, buf, size)                                                                         \
	((void)(ctx), gadget_output_or_count((map), (map##_lost_samples), (buf), (size)))

#endif
