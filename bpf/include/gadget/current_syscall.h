/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Which system call the current task is in, for programs on other hooks than those of system calls.
 *
 * Linux 5.5 (BTF). x86_64 and arm64.
 */
#ifndef GADGET_CURRENT_SYSCALL_H
#define GADGET_CURRENT_SYSCALL_H

#include <gadget/syscall.h>
#include <gadget/types.h>

/** Set in a number that is one of the 32-bit ABI; the host knows the names of both. */
#define GADGET_SYSCALL_COMPAT (1ull << 32)
/** A kernel thread, an interrupt or a fault: no system call. */
#define GADGET_SYSCALL_NONE (~0ull)

#define GADGET_THREAD_SIZE 16384
#define GADGET_PF_KTHREAD 0x00200000

struct task_struct___regs {
	void *stack;
	unsigned int flags;
} __attribute__((preserve_access_index));

/* The registers that the current task had when it entered the kernel. */
static __always_inline void *gadget_current_regs(struct task_struct *task)
{
	struct task_struct___regs *t = (struct task_struct___regs *)task;

	/* Linux 5.15. The other branch is gone by the time the kernel looks at the program. */
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	return (char *)BPF_CORE_READ(t, stack) + GADGET_THREAD_SIZE - bpf_core_type_size(struct pt_regs___saved);
}

/** The number of the system call that the current task is in, for a field of type gadget_syscall. */
static __always_inline gadget_syscall gadget_current_syscall(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	unsigned int flags = BPF_CORE_READ((struct task_struct___regs *)task, flags);
	int nr;

	if (flags & GADGET_PF_KTHREAD)
		return GADGET_SYSCALL_NONE;
	nr = gadget_syscall_nr_probed(gadget_current_regs(task));
	if (nr < 0)
		return GADGET_SYSCALL_NONE;
	return gadget_syscall_is_compat(task) ? GADGET_SYSCALL_COMPAT | nr : nr;
}

#endif
