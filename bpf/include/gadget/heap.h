/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Scratch memory per CPU, for what does not fit on the 512 bytes of BPF stack.
 *
 * The memory keeps what the last run on this CPU left there. Until Linux 6.19 programs of tracepoints, raw tracepoints and
 * tp_btf run with preemption off, so nobody else writes while one of them is at work. From 7.0 on a program on a raw
 * tracepoint or tp_btf may be preempted: the kernel does not start the *same* program again on that CPU meanwhile (it
 * counts such a run as missed, and the ledger shows it), but it does start others. Give each program a heap of its own.
 */
#ifndef GADGET_HEAP_H
#define GADGET_HEAP_H

#include <gadget/kernel.h>
#include <bpf/bpf_helpers.h>

/** Declares scratch memory of `size` bytes (at most 32768, the kernel's limit per CPU). */
#define GADGET_HEAP(name, size)                                                                                        \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                               \
		__uint(max_entries, 1);                                                                                \
		__uint(key_size, sizeof(__u32));                                                                       \
		__uint(value_size, size);                                                                              \
	} name SEC(".maps")

/** The scratch memory of this CPU; NULL never happens, but the verifier wants the check. */
static __always_inline void *gadget_heap_get(void *heap)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(heap, &zero);
}

/**
 * Zeroes memory of any constant size without a loop: a read that fails fills its destination with zeros (promised
 * by the helper since Linux 5.5), and address 0 is refused before any access.
 */
static __always_inline void gadget_zero(void *dst, __u32 size)
{
	bpf_probe_read_kernel(dst, size, (void *)0);
}

#endif
