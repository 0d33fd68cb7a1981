// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * Calls of a process's allocator: malloc, free and their kin, in the C library of each container.
 *
 * An allocation is told when it returns, with what it gave; the size asked for is remembered since its entry. A function of the
 * library that calls another of them inside is told once for each, as the library does it.
 */

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/maps.h>
#include <gadget/user_stack_map.h>
#include <linux/ptrace.h>
#include <bpf/bpf_tracing.h>

/* Calls on their way: one a thread and function. */
#define MAX_CALLS 65536

enum malloc_operation {
	malloc,
	free,
	calloc,
	realloc,
	realloc_free,
	mmap,
	munmap,
	posix_memalign,
	aligned_alloc,
	valloc,
	memalign,
	pvalloc,
	reallocarray,
};

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	enum malloc_operation operation_raw;
	__u64 addr;
	__u64 size;
	struct gadget_user_stack ustack;
};

GADGET_TRACER_MAP(events, 1024 * 256);
GADGET_TRACER(malloc, events, event);

struct call_key {
	__u32 tid;
	__u32 operation;
};

struct call {
	__u32 operation;
	__u64 size;
	/* Where the address is left, for functions that do not return it. */
	__u64 into;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CALLS);
	__type(key, struct call_key);
	__type(value, struct call);
} calls SEC(".maps");

/* Calls and not copies of the code: there are two dozen programs. */
static __noinline int tell(void *ctx, enum malloc_operation operation, __u64 addr, __u64 size)
{
	struct event *event = gadget_reserve_buf(&events, sizeof(*event));

	if (!event)
		return 0;
	event->timestamp_raw = bpf_ktime_get_boot_ns();
	gadget_process_populate(&event->proc);
	event->operation_raw = operation;
	event->addr = addr;
	event->size = size;
	gadget_get_user_stack(ctx, &event->ustack);
	gadget_submit_buf(ctx, &events, event, sizeof(*event));
	return 0;
}

/* In older libraries one function has both names, and in musl one jumps to the other: two programs see each call, which is one. */
static __always_inline __u32 slot(enum malloc_operation operation)
{
	return operation == aligned_alloc ? memalign : operation;
}

static __noinline int begins(enum malloc_operation operation, __u64 size, __u64 into)
{
	struct call_key key = {.tid = (__u32)bpf_get_current_pid_tgid(), .operation = slot(operation)};
	struct call call = {.operation = operation, .size = size, .into = into};

	if (gadget_should_discard_data_current())
		return 0;
	gadget_update_or_count(&calls, &key, &call);
	return 0;
}

static __noinline int ends(struct pt_regs *ctx, enum malloc_operation operation)
{
	struct call_key key = {.tid = (__u32)bpf_get_current_pid_tgid(), .operation = slot(operation)};
	struct call *known = bpf_map_lookup_elem(&calls, &key);
	struct call call;
	__u64 addr = PT_REGS_RC(ctx);

	/* a call that began before the gadget did, or of somebody not asked for */
	if (!known)
		return 0;
	call = *known;
	bpf_map_delete_elem(&calls, &key);
	if (call.into) {
		/* posix_memalign: an error number is returned, and nothing left behind */
		addr = 0;
		if (!(__u32)PT_REGS_RC(ctx))
			bpf_probe_read_user(&addr, sizeof(addr), (void *)call.into);
	} else if (operation == mmap && addr == (__u64)-1) {
		addr = 0;
	}
	return tell(ctx, call.operation, addr, call.size);
}

/* n * size as the library computes it: what does not fit is asked for all the same, and refused. */
static __always_inline __u64 product(__u64 n, __u64 size)
{
	__u64 most = n ? (__u64)-1 / n : (__u64)-1;

	/* or the compiler makes one multiplication of 128 bits of it, which BPF has not */
	asm volatile("" : "+r"(most));
	return size > most ? (__u64)-1 : n * size;
}

#define ALLOCATES(name, argument)                                                                                      \
	SEC("uprobe/libc:" #name)                                                                                      \
	int ig_##name##_e(struct pt_regs *ctx)                                                                         \
	{                                                                                                              \
		return begins(name, argument, 0);                                                                      \
	}                                                                                                              \
	SEC("uretprobe/libc:" #name)                                                                                   \
	int ig_##name##_x(struct pt_regs *ctx)                                                                         \
	{                                                                                                              \
		return ends(ctx, name);                                                                                \
	}

ALLOCATES(malloc, PT_REGS_PARM1(ctx))
ALLOCATES(calloc, product(PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx)))
ALLOCATES(mmap, PT_REGS_PARM2(ctx))
ALLOCATES(aligned_alloc, PT_REGS_PARM2(ctx))
ALLOCATES(valloc, PT_REGS_PARM1(ctx))
ALLOCATES(memalign, PT_REGS_PARM2(ctx))
ALLOCATES(pvalloc, PT_REGS_PARM1(ctx))

SEC("uprobe/libc:posix_memalign")
int ig_posix_memalign_e(struct pt_regs *ctx)
{
	return begins(posix_memalign, PT_REGS_PARM3(ctx), PT_REGS_PARM1(ctx));
}

SEC("uretprobe/libc:posix_memalign")
int ig_posix_memalign_x(struct pt_regs *ctx)
{
	return ends(ctx, posix_memalign);
}

/* What realloc is given is gone when it returns, or is what it gives again. */
static __always_inline int reallocates(struct pt_regs *ctx, enum malloc_operation operation, __u64 size)
{
	__u64 old = PT_REGS_PARM1(ctx);

	if (gadget_should_discard_data_current())
		return 0;
	if (old)
		tell(ctx, realloc_free, old, 0);
	return begins(operation, size, 0);
}

SEC("uprobe/libc:realloc")
int ig_realloc_e(struct pt_regs *ctx)
{
	return reallocates(ctx, realloc, PT_REGS_PARM2(ctx));
}

SEC("uretprobe/libc:realloc")
int ig_realloc_x(struct pt_regs *ctx)
{
	return ends(ctx, realloc);
}

/* The library does it by a call of realloc, which tells what is freed. */
SEC("uprobe/libc:reallocarray")
int ig_reallocarray_e(struct pt_regs *ctx)
{
	return begins(reallocarray, product(PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx)), 0);
}

SEC("uretprobe/libc:reallocarray")
int ig_reallocarray_x(struct pt_regs *ctx)
{
	return ends(ctx, reallocarray);
}

SEC("uprobe/libc:free")
int ig_free(struct pt_regs *ctx)
{
	__u64 addr = PT_REGS_PARM1(ctx);

	if (!addr || gadget_should_discard_data_current())
		return 0;
	return tell(ctx, free, addr, 0);
}

SEC("uprobe/libc:munmap")
int ig_munmap(struct pt_regs *ctx)
{
	if (gadget_should_discard_data_current())
		return 0;
	return tell(ctx, munmap, PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx));
}

/* A thread that ends in the middle of a call, by exit or a signal, leaves nothing behind. */
SEC("tracepoint/sched/sched_process_exit")
int ig_thread_ends(void *ctx)
{
	struct call_key key = {.tid = (__u32)bpf_get_current_pid_tgid()};

	for (__u32 operation = malloc; operation <= reallocarray; operation++) {
		key.operation = operation;
		bpf_map_delete_elem(&calls, &key);
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
