/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Mount namespaces at the moment they are made, for programs at the end of system calls: clone, clone3 and unshare with CLONE_NEWNS.
 *
 * Linux 5.5 (BTF). x86_64 and arm64. Defines no map.
 */
#ifndef GADGET_MADE_MNTNS_H
#define GADGET_MADE_MNTNS_H

#include <gadget/syscall.h>

#define GADGET_CLONE_NEWNS 0x00020000
#if defined(__TARGET_ARCH_x86)
#define GADGET_NR_UNSHARE 272
#define GADGET_NR_CLONE 56
#else
#define GADGET_NR_UNSHARE 97
#define GADGET_NR_CLONE 220
#endif
#define GADGET_NR_CLONE3 435

/**
 * Whether the call that ends has made the mount namespace that the current task is in now. Asks nothing but the number of all
 * other calls.
 *
 * Not inlined: a gadget may have several programs for it.
 *
 * @param regs the saved registers
 * @param ret  what the call returns: of clone and clone3 only the child's 0 counts, which the parent does not get
 */
static __noinline bool gadget_made_mntns(void *regs, int nr, long ret)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 flags;
	bool compat;

	if (ret != 0 || (nr != GADGET_NR_UNSHARE && nr != GADGET_NR_CLONE && nr != GADGET_NR_CLONE3))
		return false;
	compat = gadget_syscall_is_compat(task);
	/* The other two have other numbers there. */
	if (compat && nr != GADGET_NR_CLONE3)
		return false;
	flags = gadget_syscall_arg1(regs, compat);
	/* Where they are the first word in memory. */
	if (nr == GADGET_NR_CLONE3 && bpf_probe_read_user(&flags, sizeof(flags), (void *)flags))
		return false;
	return flags & GADGET_CLONE_NEWNS;
}

#endif
