/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Programs on the start or the end of chosen system calls, native and 32-bit, in all the ways there are to hook them.
 *
 * One program sees the calls of the whole machine and looks at the number first. Three ways to the same events, of which
 * the host takes one: list them in gadget.yaml as
 *
 *     alternatives:
 *       job:
 *         - [NAME]         tp_btf: quickest; Linux 5.5
 *         - [NAME_raw]     raw tracepoint: where there is no BTF for tp_btf
 *         - [NAME_plain]   tracepoint: Linux 5.15; never skipped by the kernel (see heap.h), first choice from 7.0 on
 */
#ifndef GADGET_SYSCALL_HOOKS_H
#define GADGET_SYSCALL_HOOKS_H

#include <gadget/filter.h>
#include <gadget/syscall.h>
#include <bpf/bpf_tracing.h>

/*
 * native(nr), compat(nr): a number of the gadget's own for the calls it wants, 0 for others.
 * seen(ctx, regs, call, is_compat, result): called for those of processes that the filters let through.
 */
#define GADGET_SYSCALL_HOOK(name, hook, native, compat, seen, arg, plain_type, plain_field)                            \
	static __always_inline int name##_any(void *ctx, void *regs, int nr, long value)                               \
	{                                                                                                              \
		bool is_compat;                                                                                        \
		int call;                                                                                              \
                                                                                                                       \
		if (native(nr) == 0 && compat(nr) == 0)                                                                \
			return 0;                                                                                      \
		if (gadget_should_discard_data_current())                                                              \
			return 0;                                                                                      \
		is_compat = gadget_syscall_is_compat((struct task_struct *)bpf_get_current_task());                    \
		call = is_compat ? compat(nr) : native(nr);                                                            \
		return call ? seen(ctx, regs, call, is_compat, value) : 0;                                             \
	}                                                                                                              \
	SEC("tp_btf/" #hook)                                                                                           \
	int BPF_PROG(name, struct pt_regs *regs, long arg)                                                             \
	{                                                                                                              \
		return name##_any(ctx, regs, gadget_syscall_nr_direct(regs), arg);                                     \
	}                                                                                                              \
	SEC("raw_tp/" #hook)                                                                                           \
	int name##_raw(struct bpf_raw_tracepoint_args *ctx)                                                            \
	{                                                                                                              \
		void *regs = (void *)ctx->args[0];                                                                     \
                                                                                                                       \
		return name##_any(ctx, regs, gadget_syscall_nr_probed(regs), ctx->args[1]);                            \
	}                                                                                                              \
	SEC("tracepoint/raw_syscalls/" #hook)                                                                          \
	int name##_plain(struct plain_type *ctx)                                                                       \
	{                                                                                                              \
		int nr = ctx->id & ~GADGET_X32_BIT;                                                                    \
                                                                                                                       \
		/* The registers are asked for only where the number is wanted: this runs for every call of the machine. */ \
		if (native(nr) == 0 && compat(nr) == 0)                                                                \
			return 0;                                                                                      \
		return name##_any(ctx, (void *)bpf_task_pt_regs(bpf_get_current_task_btf()), nr, ctx->plain_field);    \
	}

/** Programs at the end of calls; `result` is what the call returned. */
#define GADGET_SYSCALL_EXIT(name, native, compat, seen)                                                                \
	GADGET_SYSCALL_HOOK(name, sys_exit, native, compat, seen, ret, trace_event_raw_sys_exit, ret)

/** Programs at the start of calls; `result` is the number of the call. */
#define GADGET_SYSCALL_ENTER(name, native, compat, seen)                                                               \
	GADGET_SYSCALL_HOOK(name, sys_enter, native, compat, seen, id, trace_event_raw_sys_enter, id)

/** The fifth argument: what gadget_syscall_args leaves out. */
static __always_inline __u64 gadget_syscall_arg5(void *regs, bool compat)
{
	struct pt_regs___saved *saved = regs;

#if defined(__TARGET_ARCH_x86)
	return compat ? (__u32)BPF_CORE_READ(saved, di) : BPF_CORE_READ(saved, r8);
#else
	(void)compat;
	return BPF_CORE_READ(saved, regs[4]);
#endif
}

/**
 * Copies a text of the program into `dst`, always ended by a NUL; empty where there is none or it cannot be read.
 *
 * @param size      bytes of `dst`, a compile-time constant
 * @param truncated set to true if the text did not fit; never set to false
 * @return bytes written, the NUL included
 */
static __always_inline __u32 gadget_read_text(char *dst, __u32 size, const void *src, bool *truncated)
{
	long n = bpf_probe_read_user_str(dst, size, src);
	char next = 0;

	if (n <= 0) {
		dst[0] = '\0';
		return 1;
	}
	if (n >= size) {
		/* A text that just fits is not a cut one. */
		bpf_probe_read_user(&next, 1, (const char *)src + size - 1);
		if (next)
			*truncated = true;
		return size;
	}
	return n;
}

#endif
