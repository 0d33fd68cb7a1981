/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Stacks of the kernel. A field `x_raw` of type `gadget_kernel_stack` gets a sibling `x` with the functions' names.
 *
 * Of a stack that was taken at an event the host leaves out the frames of the tracing itself at its beginning.
 *
 * Include it only where needed: it defines the map `ig_kstack`, which takes 10 MB of the kernel's memory. Linux 4.6.
 */
#ifndef GADGET_KERNEL_STACK_MAP_H
#define GADGET_KERNEL_STACK_MAP_H

#include <gadget/types.h>
#include <bpf/bpf_helpers.h>

#define GADGET_KERNEL_MAX_STACK_DEPTH 127
#define GADGET_KERNEL_STACK_MAP_MAX_ENTRIES 10000

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, GADGET_KERNEL_MAX_STACK_DEPTH * sizeof(__u64));
	__uint(max_entries, GADGET_KERNEL_STACK_MAP_MAX_ENTRIES);
} ig_kstack SEC(".maps");

/** For a field that has no stack: the host shows nothing. Zero is a stack's id like any other. */
#define GADGET_NO_KERNEL_STACK ((gadget_kernel_stack)-1)

/**
 * The kernel's stack at this place. Where the map has no room for it, the host shows the row without and counts it.
 *
 * Equal stacks have equal ids as long as a gadget runs, so an id may be part of a map's key.
 */
static __always_inline gadget_kernel_stack gadget_get_kernel_stack(void *ctx)
{
	return (gadget_kernel_stack)bpf_get_stackid(ctx, &ig_kstack, 0);
}

#endif
