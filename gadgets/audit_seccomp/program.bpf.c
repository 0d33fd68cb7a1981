// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// audit_seccomp: system calls that a seccomp filter refused or asked to have logged, where the kernel tells its audit log.

#include <gadget/common.h>
#include <gadget/current_syscall.h>
#include <gadget/filter.h>
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
};

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	gadget_syscall syscall_raw;
	enum seccomp_action code_raw;
	gadget_signal sig_raw;
};

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(seccomp, events, event);

SEC("kprobe/audit_seccomp")
int BPF_KPROBE(ig_seccomp_audited, unsigned long nr, long sig, int code)
{
	struct event *e;

	if (gadget_should_discard_data_current())
		return 0;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	gadget_process_populate(&e->proc);
	e->syscall_raw = nr & ~(__u64)GADGET_X32_BIT;
	if (gadget_syscall_is_compat((struct task_struct *)bpf_get_current_task()))
		e->syscall_raw |= GADGET_SYSCALL_COMPAT;
	e->code_raw = (__u32)code;
	e->sig_raw = sig;
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
