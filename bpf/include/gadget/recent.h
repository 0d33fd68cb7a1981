/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Tables of what is remembered until it is asked for: queries that wait for their answers, messages of which a part came.
 *
 * A table of its own kind, because not every question is ever answered: when it is full, what was put in first has to go. An LRU
 * map does that in silence; here the gadget is asked about each entry that goes, and can count it or send it as it is.
 *
 * Linux 4.20. Include it only where needed: it defines the map of gadget/maps.h.
 */
#ifndef GADGET_RECENT_H
#define GADGET_RECENT_H

#include <gadget/maps.h>

/** Entries that are looked at when room is needed. */
#define GADGET_RECENT_TRIES 4

/**
 * A hash map `name` of `size` entries, to be read and deleted from as any other, and the order in which they were put in.
 * Define `bool <name>_goes(void *ctx, value_type *value, bool must)`: whether this entry may make room for another. With
 * `must` true it goes whatever the answer is; one whose loss matters is counted (gadget_count(&gadget_map_full)) or sent
 * there and then.
 */
#define GADGET_RECENT_MAP(name, key_type, value_type, size)                                                            \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_HASH);                                                                       \
		__uint(max_entries, size);                                                                             \
		__type(key, key_type);                                                                                 \
		__type(value, value_type);                                                                             \
	} name SEC(".maps");                                                                                           \
	/* Keys, oldest first; some of them were deleted meanwhile. */                                                 \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_QUEUE);                                                                      \
		__uint(max_entries, size);                                                                             \
		__type(value, key_type);                                                                               \
	} name##_order SEC(".maps");                                                                                   \
	static __always_inline bool name##_goes(void *ctx, value_type *value, bool must);                              \
	/* Takes the oldest entry out, unless it is still needed: then it is put behind all others. */                 \
	static __always_inline void name##_make_room(void *ctx, bool must)                                             \
	{                                                                                                              \
		value_type *value;                                                                                     \
		key_type oldest;                                                                                       \
                                                                                                                       \
		if (bpf_map_pop_elem(&name##_order, &oldest))                                                          \
			return;                                                                                        \
		value = bpf_map_lookup_elem(&name, &oldest);                                                           \
		if (!value)                                                                                            \
			return;                                                                                        \
		if (!name##_goes(ctx, value, must) && !must && !bpf_map_push_elem(&name##_order, &oldest, 0))          \
			return;                                                                                        \
		bpf_map_delete_elem(&name, &oldest);                                                                   \
	}                                                                                                              \
	/* Puts in what is not there yet. Not 0: there was no room after all, which has been counted. */               \
	static __always_inline long name##_remember(void *ctx, const key_type *key, const value_type *value)           \
	{                                                                                                              \
		bool known = bpf_map_lookup_elem(&name, key);                                                          \
		long full = known ? 0 : bpf_map_push_elem(&name##_order, key, 0);                                      \
                                                                                                                       \
		for (int i = 1; i <= GADGET_RECENT_TRIES && full; i++) {                                               \
			name##_make_room(ctx, i == GADGET_RECENT_TRIES);                                               \
			full = bpf_map_push_elem(&name##_order, key, 0);                                               \
		}                                                                                                      \
		if (full) {                                                                                            \
			gadget_count(&gadget_map_full);                                                                \
			return full;                                                                                   \
		}                                                                                                      \
		return gadget_update_or_count(&name, key, value);                                                      \
	}

#endif
