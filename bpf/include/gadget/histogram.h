/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Histograms over powers of two. Declare the slots with a type of gadget/types.h, which tells the host to draw them:
 *
 *     struct hist { gadget_histogram_slot__u32 latency[GADGET_HISTOGRAM_SLOTS]; };
 *     gadget_histogram_add(hist->latency, GADGET_HISTOGRAM_SLOTS, microseconds);
 *
 * Linux 5.5. Needs nothing from the kernel.
 */
#ifndef GADGET_HISTOGRAM_H
#define GADGET_HISTOGRAM_H

#include <gadget/types.h>

/** Slots enough for values below 2^27: two minutes in microseconds. What is larger counts in the last slot. */
#define GADGET_HISTOGRAM_SLOTS 27

/** The slot of a value: 0 for 0 and 1, n for 2^n to 2^(n+1) - 1. Without a loop and without a branch. */
static __always_inline __u32 gadget_histogram_slot(__u64 value)
{
	__u32 slot = (value > 0xffffffffULL) << 5, shift;

	value >>= slot;
	shift = (value > 0xffff) << 4;
	value >>= shift;
	slot |= shift;
	shift = (value > 0xff) << 3;
	value >>= shift;
	slot |= shift;
	shift = (value > 0xf) << 2;
	value >>= shift;
	slot |= shift;
	shift = (value > 0x3) << 1;
	value >>= shift;
	return slot | shift | value >> 1;
}

/** Counts `value` in `slots`, an array of `count` (a compile-time constant) slots; other CPUs may do the same. */
#define gadget_histogram_add(slots, count, value)                                                                      \
	do {                                                                                                           \
		__u32 gadget_slot_ = gadget_histogram_slot(value);                                                     \
                                                                                                                       \
		if (gadget_slot_ >= (count))                                                                           \
			gadget_slot_ = (count) - 1;                                                                    \
		__sync_fetch_and_add(&(slots)[gadget_slot_], 1);                                                       \
	} while (0)

#endif
