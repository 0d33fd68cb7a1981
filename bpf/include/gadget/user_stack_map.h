/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Stacks of processes. A field `x_raw` of type `struct gadget_user_stack` gets a sibling `x` with the functions' names;
 * under any other name it gets a member `symbols`.
 *
 * Include it only where needed: it defines the map `ig_ustack`, which with the parameter `--collect-ustack`, that it
 * defines too, takes 10 MB of the kernel's memory. The kernel follows frame pointers: code built without them has short or no stacks.
 * Linux 5.5 (BTF).
 */
#ifndef GADGET_USER_STACK_MAP_H
#define GADGET_USER_STACK_MAP_H

#include <gadget/macros.h>
#include <gadget/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define GADGET_USER_MAX_STACK_DEPTH 127
#define GADGET_USER_STACK_MAP_MAX_ENTRIES 10000

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, GADGET_USER_MAX_STACK_DEPTH * sizeof(__u64));
	__uint(max_entries, GADGET_USER_STACK_MAP_MAX_ENTRIES);
} ig_ustack SEC(".maps");

/** Whether stacks of processes are taken. */
const volatile bool collect_ustack = false;
GADGET_PARAM(collect_ustack);

#ifndef __VMLINUX_H__
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct timespec64___stack {
	__s64 tv_sec;
	long tv_nsec;
};

/* The time of the last change has been kept under three names. */
struct inode___mtime {
	unsigned long i_ino;
	struct timespec64___stack i_mtime; /* before 6.7 */
};

struct inode___mtime_6_7 {
	struct timespec64___stack __i_mtime;
};

struct inode___mtime_6_11 {
	__s64 i_mtime_sec;
	__u32 i_mtime_nsec;
};

struct upid___stack {
	int nr;
	struct pid_namespace___stack *ns;
};

struct pid_namespace___stack {
	struct ns_common ns;
};

struct pid___stack {
	struct upid___stack numbers[1];
	unsigned int level;
};

struct task_struct___stack {
	struct task_struct___stack *group_leader;
	struct pid___stack *thread_pid;
	struct mm_struct *mm;
};

#pragma clang attribute pop
#else
#error "include gadget/user_stack_map.h without a vmlinux.h"
#endif

static __always_inline void gadget_user_stack_program(struct gadget_user_stack *ustack, struct file *exe)
{
	struct inode___mtime *inode = (void *)BPF_CORE_READ(exe, f_inode);
	struct inode___mtime_6_7 *newer = (void *)inode;
	struct inode___mtime_6_11 *newest = (void *)inode;

	ustack->exe_inode = BPF_CORE_READ(inode, i_ino);
	if (bpf_core_field_exists(newest->i_mtime_sec)) {
		ustack->mtime_sec = BPF_CORE_READ(newest, i_mtime_sec);
		ustack->mtime_nsec = BPF_CORE_READ(newest, i_mtime_nsec);
	} else if (bpf_core_field_exists(newer->__i_mtime)) {
		ustack->mtime_sec = BPF_CORE_READ(newer, __i_mtime.tv_sec);
		ustack->mtime_nsec = BPF_CORE_READ(newer, __i_mtime.tv_nsec);
	} else {
		ustack->mtime_sec = BPF_CORE_READ(inode, i_mtime.tv_sec);
		ustack->mtime_nsec = BPF_CORE_READ(inode, i_mtime.tv_nsec);
	}
}

static __always_inline void gadget_user_stack_numbers(struct gadget_user_stack *ustack, struct task_struct___stack *task)
{
	struct pid___stack *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	struct upid___stack *first = (void *)pid + bpf_core_field_offset(pid->numbers);
	struct upid___stack *second = (void *)first + bpf_core_type_size(struct upid___stack);

	ustack->pid_level0 = BPF_CORE_READ(first, nr);
	ustack->pidns_level0 = BPF_CORE_READ(first, ns, ns.inum);
	if (BPF_CORE_READ(pid, level) > 0) {
		ustack->pid_level1 = BPF_CORE_READ(second, nr);
		ustack->pidns_level1 = BPF_CORE_READ(second, ns, ns.inum);
	}
}

/**
 * Fills `ustack` with the stack of the current process, or with zeros: without `--collect-ustack`, and where there is no
 * process. Equal stacks of a process have equal ids as long as a gadget runs.
 */
static __always_inline void gadget_get_user_stack(void *ctx, struct gadget_user_stack *ustack)
{
	struct task_struct___stack *task = (void *)bpf_get_current_task();
	struct file *exe;

	__builtin_memset(ustack, 0, sizeof(*ustack));
	if (!collect_ustack)
		return;
	exe = BPF_CORE_READ(task, mm, exe_file);
	if (!exe)
		return;
	gadget_user_stack_program(ustack, exe);
	gadget_user_stack_numbers(ustack, task);
	ustack->stack_id = bpf_get_stackid(ctx, &ig_ustack, BPF_F_USER_STACK);
}

#endif
