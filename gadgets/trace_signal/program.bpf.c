// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_signal: signals, who sent them to whom, and calls that failed to send one.
//
// The tracepoint of the kernel's signal code knows every signal that is made, also those of the kernel itself, but not
// the calls that were refused. Those are seen at the end of the system call. With --kill-only all calls are seen there, and
// the tracepoint is left alone.

#include <gadget/common.h>
#include <gadget/filesystem.h>
#include <gadget/filter.h>
#include <gadget/syscall_hooks.h>

// What made the signal. The names are what users see.
enum signal_origin {
	unknown,
	kernel,
	kill,
	tkill,
	tgkill,
	rt_sigqueueinfo,
	rt_tgsigqueueinfo,
	pidfd_send_signal,
};

// The first five are the kernel's own numbers (TRACE_SIGNAL_…).
enum signal_fate {
	delivered,
	ignored,
	already_pending,
	no_room,
	delivered_without_info,
	refused,
	accepted,
};

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	__s32 tpid;
	__s32 ttid;
	gadget_comm tcomm[TASK_COMM_LEN];
	gadget_signal sig_raw;
	gadget_errno error_raw;
	enum signal_origin origin_raw;
	enum signal_fate result_raw;
};

const volatile bool failed = false;
GADGET_PARAM(failed);

const volatile bool kill_only = false;
GADGET_PARAM(kill_only);

// Bit n - 1 for signal n; none: all.
const volatile __u64 target_signals = 0;
GADGET_PARAM(target_signals);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(signal, events, event);

#define LAST_SIGNAL 64
#define THREAD_SIZE 16384
#define EBADF 9
#define EAGAIN 11
#define EINVAL 22
#define SI_USER 0
#define SI_TKILL -6
// Values of the pointer to the info where there is none.
#define SEND_SIG_NOINFO 0
#define SEND_SIG_PRIV 1

struct kernel_siginfo___head {
	int si_code;
} __attribute__((preserve_access_index));

struct task_struct___stack {
	void *stack;
} __attribute__((preserve_access_index));

struct upid___x {
	int nr;
} __attribute__((preserve_access_index));

struct pid___x {
	struct upid___x numbers[1];
} __attribute__((preserve_access_index));

struct file___pidfd {
	struct pid___x *private_data;
} __attribute__((preserve_access_index));

struct inode___pidfs {
	struct pid___x *i_private;
} __attribute__((preserve_access_index));

// True if the running task is the one that sends. Signals that the kernel sends by itself (a timer, ^C on a terminal) come
// at a time when any task may be running: that is no sender. A task that sends has the info on its own stack; the code
// in it says nothing, because programs can make up any.
static __always_inline bool current_sends(__u64 info, struct task_struct *current)
{
	__u64 stack = (__u64)BPF_CORE_READ((struct task_struct___stack *)current, stack);

	return info == SEND_SIG_NOINFO || info - stack < THREAD_SIZE;
}

static __always_inline enum signal_origin origin_of(__u64 info, bool sends)
{
	int code;

	if (info == SEND_SIG_NOINFO || info == SEND_SIG_PRIV || !sends)
		return kernel;
	code = BPF_CORE_READ((struct kernel_siginfo___head *)info, si_code);
	if (code > 0)
		return kernel;
	if (code == SI_USER)
		return kill;
	return code == SI_TKILL ? tgkill : rt_sigqueueinfo;
}

static __always_inline bool unwanted(const struct gadget_process *p)
{
	return gadget_should_discard_data(p->mntns_id, p->pid, p->tid, p->comm, p->creds.uid, p->creds.gid);
}

static __always_inline bool other_signal(int sig)
{
	return target_signals && (sig < 1 || sig > LAST_SIGNAL || !(target_signals >> (sig - 1) & 1));
}

SEC("raw_tp/signal_generate")
int ig_signal_made(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *current = (struct task_struct *)bpf_get_current_task();
	struct task_struct *target = (struct task_struct *)ctx->args[2];
	int sig = ctx->args[0], result = ctx->args[4];
	__u64 info = ctx->args[1];
	struct gadget_process proc;
	struct event *e;
	bool sends;

	if (kill_only || (failed && result != no_room) || other_signal(sig))
		return 0;
	sends = current_sends(info, current);
	// The call fails with EAGAIN, and is shown when it ends.
	if (result == no_room && sends && origin_of(info, sends) != kernel)
		return 0;
	__builtin_memset(&proc, 0, sizeof(proc));
	gadget_process_populate_from_task(&proc, sends ? current : target);
	// A process that ends has no namespaces left when it tells its parent.
	if (!proc.mntns_id)
		proc.mntns_id = gadget_get_mntns_id(target);
	// Room is taken only for what is wanted: else signals of others would count as lost where there is none.
	if (unwanted(&proc))
		return 0;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->proc = proc;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	e->tpid = BPF_CORE_READ(target, tgid);
	e->ttid = BPF_CORE_READ(target, pid);
	bpf_probe_read_kernel(e->tcomm, sizeof(e->tcomm), &target->comm);
	e->sig_raw = sig;
	e->error_raw = result == no_room ? EAGAIN : 0;
	e->origin_raw = origin_of(info, sends);
	e->result_raw = result;
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

static __always_inline int native_call(int nr)
{
	switch (nr) {
#if defined(__TARGET_ARCH_x86)
	case 62:
		return kill;
	case 200:
		return tkill;
	case 234:
		return tgkill;
	case 129:
	case 524: // x32
		return rt_sigqueueinfo;
	case 297:
	case 536: // x32
		return rt_tgsigqueueinfo;
#else
	case 129:
		return kill;
	case 130:
		return tkill;
	case 131:
		return tgkill;
	case 138:
		return rt_sigqueueinfo;
	case 240:
		return rt_tgsigqueueinfo;
#endif
	case 424:
		return pidfd_send_signal;
	default:
		return unknown;
	}
}

static __always_inline int compat_call(int nr)
{
	switch (nr) {
	case 37:
		return kill;
	case 238:
		return tkill;
	case 178:
		return rt_sigqueueinfo;
#if defined(__TARGET_ARCH_x86)
	case 270:
		return tgkill;
	case 335:
		return rt_tgsigqueueinfo;
#else
	case 268:
		return tgkill;
	case 363:
		return rt_tgsigqueueinfo;
#endif
	case 424:
		return pidfd_send_signal;
	default:
		return unknown;
	}
}

// The process behind a pidfd, as the host numbers it.
static __always_inline int pid_of_fd(int fd)
{
	struct file *file = gadget_file_of_fd((struct task_struct *)bpf_get_current_task(), fd);
	struct pid___x *pid;

	if (!file)
		return 0;
	pid = BPF_CORE_READ((struct file___pidfd *)file, private_data);
	// Since Linux 6.9 it stands in the inode.
	if (!pid) {
		struct inode___pidfs *inode = (struct inode___pidfs *)BPF_CORE_READ(file, f_inode);

		pid = BPF_CORE_READ(inode, i_private);
	}
	return BPF_CORE_READ(pid, numbers[0].nr);
}

static __always_inline int call_ended(void *ctx, void *regs, int call, bool compat, long ret)
{
	struct gadget_syscall_args args;
	bool thread_too = call == tgkill || call == rt_tgsigqueueinfo;
	struct event *e;
	int sig;

	if (ret >= 0 && (failed || !kill_only))
		return 0;
	gadget_syscall_args(&args, regs, compat);
	sig = thread_too ? args.a[2] : args.a[1];
	if (other_signal(sig))
		return 0;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	gadget_process_populate(&e->proc);
	e->tpid = call == tkill ? 0 : args.a[0];
	e->ttid = call == tkill ? args.a[0] : thread_too ? args.a[1] : 0;
	if (call == pidfd_send_signal)
		e->tpid = ret == -EBADF || ret == -EINVAL ? 0 : pid_of_fd(args.a[0]);
	__builtin_memset(e->tcomm, 0, sizeof(e->tcomm));
	e->sig_raw = sig;
	e->error_raw = ret < 0 ? -ret : 0;
	e->origin_raw = call;
	e->result_raw = ret < 0 ? refused : accepted;
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

GADGET_SYSCALL_EXIT(ig_signal_call, native_call, compat_call, call_ended)

char LICENSE[] SEC("license") = "GPL";
