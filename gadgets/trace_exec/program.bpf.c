// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_exec: programs that were started, and on request those that could not be.
//
// A successful exec is seen where the kernel announces it: the new program's memory then holds the exact arguments, all of
// them, one after the other. A failed one is seen when execve or execveat returns: the arguments are picked up
// through the pointers that are still in the saved registers. No map connects one hook with another.

#include <gadget/common.h>
#include <gadget/filesystem.h>
#include <gadget/filter.h>
#include <gadget/syscall_hooks.h>
#include <bpf/bpf_tracing.h>

// The longest arguments (all together, each with its NUL) that an event holds; the rest is cut, and the event says so.
#define ARGS_MAX (128 * 1024)

// Limits for failed execs, whose arguments have to be collected one by one.
#define FAILED_ARGS_COUNT 512
#define FAILED_ARGS_SIZE (16 * 1024)
#define FAILED_ARG_SIZE 4096

// Paths that did not fit into their field.
enum cut_paths_set {
	file = 1,
	cwd = 2,
	exepath = 4,
	parent_exepath = 8,
};

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	gadget_uid loginuid;
	__u32 sessionid;
	gadget_errno error_raw;
	__u32 tty_major;
	__u32 tty_minor;
	__u32 args_count;
	// Bytes used of args_raw.
	__u32 args_size;
	enum cut_paths_set cut_paths_raw;
	bool args_truncated;
	bool upper_layer;
	bool pupper_layer;
	bool from_rootfs;
	bool fupper_layer;
	bool file_from_rootfs;
	__u32 dev_major;
	__u32 dev_minor;
	__u64 inode;
	__u64 ctime;
	__u64 fctime;
	__u64 pctime;
	char tty[32];
	char file[GADGET_PATH_MAX];
	char cwd[GADGET_PATH_MAX];
	char exepath[GADGET_PATH_MAX];
	char parent_exepath[GADGET_PATH_MAX];
	// Each argument with its NUL. Last, because only as much is sent as is used: see send().
	char args_raw[ARGS_MAX];
};

struct linux_binprm___files {
	struct file *file;
	const char *filename;
	const char *interp;
} __attribute__((preserve_access_index));

struct super_block___device {
	__u32 s_dev;
} __attribute__((preserve_access_index));

struct timespec64___change {
	__s64 tv_sec;
	long tv_nsec;
} __attribute__((preserve_access_index));

// The time of the last change has been kept under three names.
struct inode___change {
	unsigned long i_ino;
	struct super_block___device *i_sb;
	struct timespec64___change i_ctime; // before Linux 6.6
} __attribute__((preserve_access_index));

struct inode___change_6_6 {
	struct timespec64___change __i_ctime;
} __attribute__((preserve_access_index));

struct inode___change_6_11 {
	__s64 i_ctime_sec;
	__u32 i_ctime_nsec;
} __attribute__((preserve_access_index));

#define HEAD_SIZE offsetof(struct event, args_raw)

const volatile bool ignore_failed = true;
GADGET_PARAM(ignore_failed);

const volatile bool paths = false;
GADGET_PARAM(paths);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(exec, events, event);

// An event without its arguments. One for each kind: either may preempt the other (gadget/heap.h).
GADGET_HEAP(head_heap, HEAD_SIZE);
GADGET_HEAP(failed_head_heap, HEAD_SIZE);
// The arguments of a failed exec: room for one more after the last that may begin.
GADGET_HEAP(args_heap, FAILED_ARGS_SIZE + FAILED_ARG_SIZE);

static __always_inline void read_tty(struct event *e, struct task_struct *task)
{
	struct tty_struct *tty = BPF_CORE_READ(task, signal, tty);

	if (!tty)
		return;
	bpf_probe_read_kernel_str(e->tty, sizeof(e->tty), &tty->name);
	e->tty_major = BPF_CORE_READ(tty, driver, major);
	e->tty_minor = BPF_CORE_READ(tty, driver, minor_start) + BPF_CORE_READ(tty, index);
}

static __always_inline void read_audit(struct event *e, struct task_struct *task)
{
	e->loginuid = (__u32)-1;
	e->sessionid = (__u32)-1;
	if (bpf_core_field_exists(task->loginuid))
		e->loginuid = BPF_CORE_READ(task, loginuid.val);
	if (bpf_core_field_exists(task->sessionid))
		e->sessionid = BPF_CORE_READ(task, sessionid);
}

// From Linux 6.13 on, the bit with which the kernel notes that somebody has read the time.
#define CTIME_ASKED_FOR (1u << 31)

// Nanoseconds since 1970; 0 without a file.
static __always_inline __u64 change_time(struct file *file)
{
	struct inode___change *inode = (void *)BPF_CORE_READ(file, f_inode);
	struct inode___change_6_6 *newer = (void *)inode;
	struct inode___change_6_11 *newest = (void *)inode;

	if (bpf_core_field_exists(newest->i_ctime_sec))
		return BPF_CORE_READ(newest, i_ctime_sec) * 1000000000ull +
		       (BPF_CORE_READ(newest, i_ctime_nsec) & ~CTIME_ASKED_FOR);
	if (bpf_core_field_exists(newer->__i_ctime))
		return BPF_CORE_READ(newer, __i_ctime.tv_sec) * 1000000000ull + BPF_CORE_READ(newer, __i_ctime.tv_nsec);
	return BPF_CORE_READ(inode, i_ctime.tv_sec) * 1000000000ull + BPF_CORE_READ(inode, i_ctime.tv_nsec);
}

static __always_inline bool is_from_rootfs(struct file *file, struct task_struct *task)
{
	return file && BPF_CORE_READ(file, f_path.mnt) == BPF_CORE_READ(task, fs, root.mnt);
}

// The file that the call named, of which the kernel keeps hold only where it is the one that runs: of a script it lets
// go before it announces the new program.
static __always_inline void read_named_file(struct event *e, struct task_struct *task, struct linux_binprm *announced)
{
	struct linux_binprm___files *bprm = (void *)announced;
	struct file *file = BPF_CORE_READ(bprm, file);
	struct inode___change *inode = (void *)BPF_CORE_READ(file, f_inode);
	__u32 dev;

	if (!file || BPF_CORE_READ(bprm, interp) != BPF_CORE_READ(bprm, filename))
		return;
	dev = BPF_CORE_READ(inode, i_sb, s_dev);
	e->dev_major = dev >> 20;
	e->dev_minor = dev & 0xfffff;
	e->inode = BPF_CORE_READ(inode, i_ino);
	e->fctime = change_time(file);
	e->fupper_layer = gadget_in_upper_layer(file);
	e->file_from_rootfs = is_from_rootfs(file, task);
}

static __always_inline void read_paths(struct event *e, struct task_struct *task, struct task_struct *parent,
				       struct file *exe)
{
	struct file *parent_exe = BPF_CORE_READ(parent, mm, exe_file);
	bool cut = false;

	gadget_cwd(e->cwd, task, &cut);
	if (cut)
		e->cut_paths_raw |= cwd;
	cut = false;
	if (exe)
		gadget_file_path(e->exepath, exe, task, &cut);
	if (cut)
		e->cut_paths_raw |= exepath;
	cut = false;
	if (parent_exe)
		gadget_file_path(e->parent_exepath, parent_exe, parent, &cut);
	if (cut)
		e->cut_paths_raw |= parent_exepath;
}

// Everything that both kinds of events have. Returns the event without arguments.
static __noinline struct event *new_event(bool failed)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);
	struct file *exe = BPF_CORE_READ(task, mm, exe_file);
	struct event *e = failed ? gadget_heap_get(&failed_head_heap) : gadget_heap_get(&head_heap);

	if (!e)
		return NULL;
	gadget_zero(e, HEAD_SIZE);
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	gadget_process_populate(&e->proc);
	read_audit(e, task);
	read_tty(e, task);
	e->upper_layer = gadget_in_upper_layer(exe);
	e->pupper_layer = gadget_in_upper_layer(BPF_CORE_READ(parent, mm, exe_file));
	e->ctime = change_time(exe);
	e->pctime = change_time(BPF_CORE_READ(parent, mm, exe_file));
	e->from_rootfs = is_from_rootfs(exe, task);
	if (paths)
		read_paths(e, task, parent, exe);
	return e;
}

// Sends `head` with `size` bytes of arguments in a record with room for `room` of them (a constant, as the kernel
// demands). The unused rest is zero. False if the ring buffer has no room; nothing is counted yet.
static __always_inline bool send_in(struct event *head, const void *args, __u32 size, bool from_user, const __u32 room)
{
	struct event *e = bpf_ringbuf_reserve(&events, HEAD_SIZE + room, 0);
	long err;

	if (!e)
		return false;
	if (size > room) {
		size = room;
		head->args_truncated = true;
	}
	gadget_zero(e->args_raw, room);
	if (from_user)
		err = bpf_probe_read_user(e->args_raw, size, args);
	else
		err = bpf_probe_read_kernel(e->args_raw, size, args);
	if (err) {
		// Swapped out in between: rare, but not to be passed off as an exec without arguments.
		head->args_truncated = true;
		size = 0;
	}
	head->args_size = size;
	bpf_probe_read_kernel(e, HEAD_SIZE, head);
	bpf_ringbuf_submit(e, 0);
	return true;
}

#define SMALLEST_ROOM 128

// Sends the event in the smallest of a few record sizes. If the ring buffer has no room for that one, an event with
// its arguments cut is still better than none.
static __noinline void send(struct event *head, const void *args, __u32 size, bool from_user)
{
	bool sent;

	if (size <= SMALLEST_ROOM)
		sent = false;
	else if (size <= 512)
		sent = send_in(head, args, size, from_user, 512);
	else if (size <= 2048)
		sent = send_in(head, args, size, from_user, 2048);
	else if (size <= 8192)
		sent = send_in(head, args, size, from_user, 8192);
	else if (size <= 32768)
		sent = send_in(head, args, size, from_user, 32768);
	else
		sent = send_in(head, args, size, from_user, ARGS_MAX);
	if (!sent && !send_in(head, args, size, from_user, SMALLEST_ROOM))
		gadget_count(&events_lost_samples);
}

static __always_inline int exec_succeeded(struct task_struct *task, struct linux_binprm *bprm)
{
	unsigned long start, end;
	struct event *e;
	const char *name;
	char next = 0;
	long n;

	if (gadget_should_discard_data_current())
		return 0;
	e = new_event(false);
	if (!e)
		return 0;
	name = BPF_CORE_READ(bprm, filename);
	n = bpf_probe_read_kernel_str(e->file, sizeof(e->file), name);
	// One that just fits is not a cut one.
	if (n == sizeof(e->file)) {
		bpf_probe_read_kernel(&next, 1, name + n - 1);
		if (next)
			e->cut_paths_raw |= file;
	}
	read_named_file(e, task, bprm);
	e->args_count = BPF_CORE_READ(bprm, argc);
	start = BPF_CORE_READ(task, mm, arg_start);
	end = BPF_CORE_READ(task, mm, arg_end);
	// The kernel allows 6 MiB at most, so the difference fits.
	send(e, (void *)start, end > start ? end - start : 0, true);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(ig_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	(void)ctx;
	(void)old_pid;
	return exec_succeeded(task, bprm);
}

// The same where the kernel has no BTF of its own for tp_btf to use.
SEC("raw_tp/sched_process_exec")
int ig_exec_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return exec_succeeded((void *)ctx->args[0], (void *)ctx->args[2]);
}

// Collects the strings that `argv` points to in `buf`. The sum is kept in memory, not in a register: the verifier then
// finds the same state after every turn of the loop, and after every way out of it.
static __always_inline void collect_args(struct event *e, const char **argv, char *buf)
{
	volatile __u32 *used = &e->args_size;

	for (__u32 i = 0; i <= FAILED_ARGS_COUNT; i++) {
		const char *arg = NULL;
		__u32 at = *used;
		long n;

		if (bpf_probe_read_user(&arg, sizeof(arg), &argv[i]))
			break;
		if (!arg)
			return;
		if (at >= FAILED_ARGS_SIZE || i == FAILED_ARGS_COUNT)
			break;
		n = bpf_probe_read_user_str(&buf[at], FAILED_ARG_SIZE, arg);
		if (n <= 0)
			break;
		if (n == FAILED_ARG_SIZE) {
			char next = 0;

			// One that just fits is not a cut one.
			bpf_probe_read_user(&next, 1, arg + FAILED_ARG_SIZE - 1);
			if (next)
				e->args_truncated = true;
		}
		e->args_count = i + 1;
		*used = at + n;
	}
	e->args_truncated = true;
}

static __noinline int exec_failed(const char *name, const char **argv, long ret)
{
	__u32 size;
	struct event *e;
	bool cut = false;
	char *buf;

	if (gadget_should_discard_data_current())
		return 0;
	e = new_event(true);
	buf = gadget_heap_get(&args_heap);
	if (!e || !buf)
		return 0;
	e->error_raw = -ret;
	gadget_read_text(e->file, sizeof(e->file), name, &cut);
	if (cut)
		e->cut_paths_raw |= file;
	collect_args(e, argv, buf);
	size = *(volatile __u32 *)&e->args_size;
	if (size > FAILED_ARGS_SIZE + FAILED_ARG_SIZE)
		size = FAILED_ARGS_SIZE + FAILED_ARG_SIZE;
	send(e, buf, size, false);
	return 0;
}

static __always_inline int call_failed(void *regs, bool has_dirfd, long ret)
{
	struct gadget_syscall_args args;

	if (ignore_failed || ret >= 0)
		return 0;
	gadget_syscall_args(&args, regs, false);
	if (has_dirfd)
		return exec_failed((const char *)args.a[1], (const char **)args.a[2], ret);
	return exec_failed((const char *)args.a[0], (const char **)args.a[1], ret);
}

// From Linux 5.15 on, a program on the exit of one call can ask for the saved registers, so other calls pay nothing.
SEC("tracepoint/syscalls/sys_exit_execve")
int ig_execve_failed(struct trace_event_raw_sys_exit *ctx)
{
	if (ignore_failed)
		return 0;
	return call_failed((void *)bpf_task_pt_regs(bpf_get_current_task_btf()), false, ctx->ret);
}

SEC("tracepoint/syscalls/sys_exit_execveat")
int ig_execveat_failed(struct trace_event_raw_sys_exit *ctx)
{
	if (ignore_failed)
		return 0;
	return call_failed((void *)bpf_task_pt_regs(bpf_get_current_task_btf()), true, ctx->ret);
}

#if defined(__TARGET_ARCH_x86)
#define NR_EXECVE 59
#define NR_EXECVEAT 322
#else
#define NR_EXECVE 221
#define NR_EXECVEAT 281
#endif

// Before that, the end of every call has to be looked at.
SEC("tp_btf/sys_exit")
int BPF_PROG(ig_any_exec_failed, struct pt_regs *regs, long ret)
{
	int nr = gadget_syscall_nr_direct(regs);

	(void)ctx;
	if (ignore_failed || (nr != NR_EXECVE && nr != NR_EXECVEAT))
		return 0;
	if (gadget_syscall_is_compat((struct task_struct *)bpf_get_current_task()))
		return 0;
	return call_failed(regs, nr == NR_EXECVEAT, ret);
}

char LICENSE[] SEC("license") = "GPL";
