/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Leaving out what happens outside the chosen containers, in the kernel.
 *
 * Including this header makes the gadget a container-aware one: the host replaces the map `gadget_mntns_filter_map` by
 * its own (whose size it chooses) and sets `gadget_filter_by_mntns`, unless the user asked for the whole host.
 */
#ifndef GADGET_MNTNS_FILTER_H
#define GADGET_MNTNS_FILTER_H

#include <gadget/mntns.h>

/** Set by the host: true when only mount namespaces in the map are wanted. */
const volatile bool gadget_filter_by_mntns = false;

/** Mount namespaces that are wanted. The value has no meaning. */
struct gadget_mntns_filter_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, gadget_mntns_id);
	__type(value, __u32);
} gadget_mntns_filter_map SEC(".maps");

/** True when events of this mount namespace are not wanted. */
static __always_inline bool gadget_should_discard_mntns_id(gadget_mntns_id mntns_id)
{
	return gadget_filter_by_mntns && !bpf_map_lookup_elem(&gadget_mntns_filter_map, &mntns_id);
}

/** A mount namespace as the key of a map: numbers are used again, see gadget_get_mntns_generation. */
struct gadget_mntns_key {
	gadget_mntns_id mntns_id;
	__u64 generation;
};

/** Fills `key` for the task's namespace; false if it has none, or one that is not wanted. */
static __always_inline bool gadget_wanted_mntns_key(struct gadget_mntns_key *key, struct task_struct *task)
{
	key->mntns_id = gadget_get_mntns_id(task);
	if (!key->mntns_id || gadget_should_discard_mntns_id(key->mntns_id))
		return false;
	key->generation = gadget_get_mntns_generation(task);
	return true;
}

#endif
