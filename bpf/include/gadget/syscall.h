/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Number and arguments of a system call, read from the registers that were saved on entry.
 *
 * They are intact when the call returns (except after a successful execve, and for the first argument on arm64, which is
 * kept elsewhere), so a program on the exit alone knows everything: no map from entry to exit, nothing to
 * overflow. Pointers, however, are followed *after* the call: a thread may have changed what they point to.
 * x86_64 and arm64.
 */
#ifndef GADGET_SYSCALL_H
#define GADGET_SYSCALL_H

#include <gadget/kernel.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#if defined(__TARGET_ARCH_x86)

struct pt_regs___saved {
	unsigned long r10, r8, r9, dx, si, di, bx, cx, bp, orig_ax;
} __attribute__((preserve_access_index));

#define GADGET_X32_BIT 0x40000000
#define gadget_syscall_nr_direct(regs) ((int)((struct pt_regs___saved *)(regs))->orig_ax & ~GADGET_X32_BIT)
#define gadget_syscall_nr_probed(regs) ((int)BPF_CORE_READ((struct pt_regs___saved *)(regs), orig_ax) & ~GADGET_X32_BIT)

/*
 * The number of the call whose saved registers are at `regs`: `direct` where the verifier knows the pointer (tp_btf; a
 * plain load, which matters on a hook that sees every call), `probed` elsewhere (raw_tp).
 */

/* TS_COMPAT: set in thread_info.status while a 32-bit call is served. */
static __always_inline bool gadget_syscall_is_compat(struct task_struct *task)
{
	return BPF_CORE_READ(task, thread_info.status) & 2;
}

#elif defined(__TARGET_ARCH_arm64)

struct pt_regs___saved {
	__u64 regs[31];
	__u64 orig_x0;
	__s32 syscallno;
} __attribute__((preserve_access_index));

/* There is no such ABI. */
#define GADGET_X32_BIT 0
#define gadget_syscall_nr_direct(regs) (((struct pt_regs___saved *)(regs))->syscallno)
#define gadget_syscall_nr_probed(regs) BPF_CORE_READ((struct pt_regs___saved *)(regs), syscallno)

/* TIF_32BIT */
static __always_inline bool gadget_syscall_is_compat(struct task_struct *task)
{
	return BPF_CORE_READ(task, thread_info.flags) & 1ul << 22;
}

#else
#error "gadget/syscall.h: define __TARGET_ARCH_x86 or __TARGET_ARCH_arm64"
#endif

/** The first four arguments of a system call, whichever ABI it came by. */
struct gadget_syscall_args {
	__u64 a[4];
};

/** Reads the arguments of the call whose saved registers are at `regs`; `compat`: see gadget_syscall_is_compat. */
static __always_inline void gadget_syscall_args(struct gadget_syscall_args *args, void *regs, bool compat)
{
	struct pt_regs___saved *saved = regs;

#if defined(__TARGET_ARCH_x86)
	if (compat) {
		args->a[0] = (__u32)BPF_CORE_READ(saved, bx);
		args->a[1] = (__u32)BPF_CORE_READ(saved, cx);
		args->a[2] = (__u32)BPF_CORE_READ(saved, dx);
		args->a[3] = (__u32)BPF_CORE_READ(saved, si);
		return;
	}
	args->a[0] = BPF_CORE_READ(saved, di);
	args->a[1] = BPF_CORE_READ(saved, si);
	args->a[2] = BPF_CORE_READ(saved, dx);
	args->a[3] = BPF_CORE_READ(saved, r10);
#else
	(void)compat;
	args->a[0] = BPF_CORE_READ(saved, orig_x0);
	args->a[1] = BPF_CORE_READ(saved, regs[1]);
	args->a[2] = BPF_CORE_READ(saved, regs[2]);
	args->a[3] = BPF_CORE_READ(saved, regs[3]);
#endif
}

/** The first argument alone. */
static __always_inline __u64 gadget_syscall_arg1(void *regs, bool compat)
{
	struct pt_regs___saved *saved = regs;

#if defined(__TARGET_ARCH_x86)
	return compat ? (__u32)BPF_CORE_READ(saved, bx) : BPF_CORE_READ(saved, di);
#else
	(void)compat;
	return BPF_CORE_READ(saved, orig_x0);
#endif
}

#define GADGET_SECCOMP_MODE_FILTER 2

struct seccomp___gadget {
	int mode;
} __attribute__((preserve_access_index));

struct task_struct___gadget_seccomp {
	struct seccomp___gadget seccomp;
} __attribute__((preserve_access_index));

/** Whether a seccomp filter decides on the calls of this thread. */
static __always_inline bool gadget_has_seccomp_filter(struct task_struct *task)
{
	struct task_struct___gadget_seccomp *t = (void *)task;

	if (!bpf_core_field_exists(t->seccomp))
		return false;
	return BPF_CORE_READ(t, seccomp.mode) == GADGET_SECCOMP_MODE_FILTER;
}

#endif
