/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Maps a gadget keeps for itself: scratch memory, and the account of what a full map made it miss.
 *
 * Include it only where needed: it defines the map `gadget_map_full`.
 */
#ifndef GADGET_MAPS_H
#define GADGET_MAPS_H

#include <gadget/buffer.h>

/** Events that could not be followed because a map was full; read by the host, which adds it to the ledger. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} gadget_map_full SEC(".maps");

/** As bpf_map_update_elem, and counts a failed insertion. */
static __always_inline long gadget_update_or_count(void *map, const void *key, const void *value)
{
	long err = bpf_map_update_elem(map, key, value, BPF_ANY);

	if (err)
		gadget_count(&gadget_map_full);
	return err;
}

/**
 * The value of `key`, which is made from `first` if it is not there; NULL, and counted, if there is no room. If another CPU
 * is quicker, its value is the one.
 */
static __always_inline void *gadget_lookup_or_insert(void *map, const void *key, const void *first)
{
	void *value = bpf_map_lookup_elem(map, key);

	if (value)
		return value;
	bpf_map_update_elem(map, key, first, BPF_NOEXIST);
	value = bpf_map_lookup_elem(map, key);
	if (!value)
		gadget_count(&gadget_map_full);
	return value;
}

#endif
