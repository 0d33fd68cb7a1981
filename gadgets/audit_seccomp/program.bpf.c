// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// audit_seccomp: system calls that a seccomp filter refused or asked to have logged.
//
// Best where the kernel tells its audit log. Without kprobes, what a filter kills or traps for is seen by what follows:
// the signal SIGSYS that the kernel sends to the thread, or the end of the one thread that is killed.

#include <gadget/common.h>
#include <gadget/current_syscall.h>
#include <gadget/filter.h>
#include <gadget/user_stack_map.h>
#include <linux/ptrace.h>
#include <bpf/bpf_tracing.h>

// linux/seccomp.h has these as macros only.
enum seccomp_action {
	SECCOMP_RET_KILL_THREAD = 0,
	SECCOMP_RET_TRAP = 0x00030000,
	SECCOMP_RET_ERRNO = 0x00050000,
	SECCOMP_RET_USER_NOTIF = 0x7fc00000,
	SECCOMP_RET_TRACE = 0x7ff00000,
	SECCOMP_RET_LOG = 0x7ffc0000,
	SECCOMP_RET_ALLOW = 0x7fff0000,
	SECCOMP_RET_KILL_PROCESS = 0x80000000,
	// Not the kernel's: one of the two, of a process that has one thread and ends either way.
	SECCOMP_RET_KILL_PROCESS_OR_THREAD = 0x80000001,
};

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	gadget_syscall syscall_raw;
	enum seccomp_action code_raw;
	gadget_signal sig_raw;
	struct gadget_user_stack ustack;
};

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(seccomp, events, event);

static __always_inline int decided(void *ctx, gadget_syscall syscall, enum seccomp_action code, int sig)
{
	struct event *e;

	if (gadget_should_discard_data_current())
		return 0;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	gadget_process_populate(&e->proc);
	e->syscall_raw = syscall;
	e->code_raw = code;
	e->sig_raw = sig;
	gadget_get_user_stack(ctx, &e->ustack);
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

SEC("kprobe/audit_seccomp")
int BPF_KPROBE(ig_seccomp_audited, unsigned long nr, long sig, int code)
{
	gadget_syscall syscall = nr & ~(__u64)GADGET_X32_BIT;

	if (gadget_syscall_is_compat((struct task_struct *)bpf_get_current_task()))
		syscall |= GADGET_SYSCALL_COMPAT;
	return decided(ctx, syscall, (__u32)code, sig);
}

#define SIGSYS 31
#define SYS_SECCOMP 1
#define SA_IMMUTABLE 0x00800000
#define SIGNAL_GROUP_EXIT 4
#define MODE_FILTER 2
// A filter has killed (Linux 5.17).
#define MODE_DEAD 3

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct seccomp___mode {
	int mode;
};

struct sigaction___flags {
	unsigned long sa_flags;
};

struct k_sigaction___flags {
	struct sigaction___flags sa;
};

struct sighand_struct___actions {
	struct k_sigaction___flags action[64];
};

struct signal_struct___end {
	int nr_threads;
	unsigned int flags;
};

struct task_struct___seccomp {
	struct seccomp___mode seccomp;
	struct signal_struct___end *signal;
	struct sighand_struct___actions *sighand;
	int exit_code;
};

struct kernel_siginfo___seccomp {
	int si_code;
};

#if defined(__TARGET_ARCH_x86)
struct pt_regs___answer {
	unsigned long ax;
	unsigned long orig_ax;
};
#endif
#pragma clang attribute pop

// What a filter stops is put back to where it was before the call, so that the answer's register holds the call's number.
// In a call that a program makes to send itself a signal like the kernel's, the register holds an error.
static __always_inline bool call_was_undone(struct task_struct___seccomp *task)
{
#if defined(__TARGET_ARCH_x86)
	struct pt_regs___answer *regs = gadget_current_regs((struct task_struct *)task);

	return BPF_CORE_READ(regs, ax) == BPF_CORE_READ(regs, orig_ax);
#else
	return true;
#endif
}

// The kernel ends the process by a signal that cannot be handled.
static __always_inline bool is_killed(struct task_struct___seccomp *task)
{
	unsigned long flags = BPF_CORE_READ(task, sighand, action[SIGSYS - 1].sa.sa_flags);

	return BPF_CORE_READ(task, seccomp.mode) >= MODE_DEAD || flags & SA_IMMUTABLE;
}

SEC("raw_tp/signal_generate")
int ig_seccomp_signal(struct bpf_raw_tracepoint_args *ctx)
{
	struct kernel_siginfo___seccomp *info = (void *)ctx->args[1];
	struct task_struct___seccomp *task = (void *)bpf_get_current_task();
	enum seccomp_action code = SECCOMP_RET_TRAP;

	// The kernel sends it to the running thread alone (args[3]: not to its group), and only where there is a filter.
	if ((int)ctx->args[0] != SIGSYS || ctx->args[2] != (__u64)task || (int)ctx->args[3] || ctx->args[1] <= 1)
		return 0;
	if (BPF_CORE_READ(info, si_code) != SYS_SECCOMP || BPF_CORE_READ(task, seccomp.mode) < MODE_FILTER)
		return 0;
	if (!call_was_undone(task))
		return 0;
	if (is_killed(task))
		code = BPF_CORE_READ(task, signal, nr_threads) > 1 ? SECCOMP_RET_KILL_PROCESS :
								     SECCOMP_RET_KILL_PROCESS_OR_THREAD;
	return decided(ctx, gadget_current_syscall(), code, SIGSYS);
}

// One thread of several is ended without a signal.
SEC("raw_tp/sched_process_exit")
int ig_seccomp_thread(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct___seccomp *task = (void *)bpf_get_current_task();

	if (BPF_CORE_READ(task, seccomp.mode) < MODE_DEAD || BPF_CORE_READ(task, exit_code) != SIGSYS ||
	    BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT)
		return 0;
	return decided(ctx, gadget_current_syscall(), SECCOMP_RET_KILL_THREAD, SIGSYS);
}

char LICENSE[] SEC("license") = "GPL";
