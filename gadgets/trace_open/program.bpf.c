// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_open: files opened with open, creat, openat and openat2, native and 32-bit.
//
// One program at the end of the call does it all: it finds the arguments in the saved registers, so there is no map
// from entry to exit that could overflow, and nothing to pay on entry. It sees the end of every system call of the
// machine, hence the number is the first thing it looks at.

#include <gadget/common.h>
#include <gadget/filesystem.h>
#include <gadget/filter.h>
#include <gadget/syscall_hooks.h>
#include <gadget/user_stack_map.h>
#include <bpf/bpf_tracing.h>

// Names longer than this are cut, and the event says so.
#define FNAME_MAX 256

#define CREAT_FLAGS (01 | 0100 | 01000) // O_WRONLY | O_CREAT | O_TRUNC
#define USES_MODE (0100 | 020000000)    // O_CREAT, __O_TMPFILE

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	struct gadget_user_stack ustack;
	gadget_errno error_raw;
	__s32 fd;
	gadget_file_flags flags_raw;
	gadget_file_mode mode_raw;
	bool fname_truncated;
	bool fpath_truncated;
	// Last, because only as much is sent as is used: see send().
	char fname[FNAME_MAX];
	char fpath[GADGET_PATH_MAX];
};

const volatile bool failed = false;
GADGET_PARAM(failed);

const volatile bool paths = false;
GADGET_PARAM(paths);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(open, events, event);
GADGET_HEAP(event_heap, sizeof(struct event));

enum call { CALL_NONE, CALL_OPEN, CALL_CREAT, CALL_OPENAT, CALL_OPENAT2 };

// The first two words of openat2's struct open_how.
struct open_how_head {
	__u64 flags;
	__u64 mode;
};

static __always_inline enum call native_call(int nr)
{
	switch (nr) {
#if defined(__TARGET_ARCH_x86)
	case 2:
		return CALL_OPEN;
	case 85:
		return CALL_CREAT;
	case 257:
		return CALL_OPENAT;
#else
	case 56:
		return CALL_OPENAT;
#endif
	case 437:
		return CALL_OPENAT2;
	default:
		return CALL_NONE;
	}
}

static __always_inline enum call compat_call(int nr)
{
	switch (nr) {
	case 5:
		return CALL_OPEN;
	case 8:
		return CALL_CREAT;
#if defined(__TARGET_ARCH_x86)
	case 295:
#else
	case 322:
#endif
		return CALL_OPENAT;
	case 437:
		return CALL_OPENAT2;
	default:
		return CALL_NONE;
	}
}

// Reads the flags and the mode and returns the user's pointer to the name.
static __always_inline const char *read_request(struct event *e, enum call call, const struct gadget_syscall_args *args)
{
	struct open_how_head how = {};

	switch (call) {
	case CALL_CREAT:
		e->flags_raw = CREAT_FLAGS;
		e->mode_raw = args->a[1];
		return (const char *)args->a[0];
	case CALL_OPENAT:
		e->flags_raw = args->a[2];
		e->mode_raw = args->a[3];
		return (const char *)args->a[1];
	case CALL_OPENAT2:
		bpf_probe_read_user(&how, sizeof(how), (void *)args->a[2]);
		e->flags_raw = how.flags;
		e->mode_raw = how.mode;
		return (const char *)args->a[1];
	default:
		e->flags_raw = args->a[1];
		e->mode_raw = args->a[2];
		return (const char *)args->a[0];
	}
}

static __always_inline void send(void *ctx, struct event *e, const char *name)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 size;

	if (!paths) {
		size = offsetof(struct event, fname) + gadget_read_text(e->fname, FNAME_MAX, name, &e->fname_truncated);
	} else {
		struct file *file = NULL;

		gadget_zero(e->fname, FNAME_MAX);
		gadget_read_text(e->fname, FNAME_MAX, name, &e->fname_truncated);
		e->fpath[0] = '\0';
		size = offsetof(struct event, fpath) + 1;
		if (!e->error_raw)
			file = gadget_file_of_fd(task, e->fd);
		if (file)
			size = offsetof(struct event, fpath) + gadget_file_path(e->fpath, file, task, &e->fpath_truncated);
	}
	if (size > sizeof(*e))
		size = sizeof(*e);
	gadget_output_buf(ctx, &events, e, size);
}

static __always_inline int call_ended(void *ctx, void *regs, int nr, long ret)
{
	bool compat;
	enum call call;
	const char *name;
	struct gadget_syscall_args args;
	struct event *e;

	if (failed && ret >= 0)
		return 0;
	if (gadget_should_discard_data_current())
		return 0;
	compat = gadget_syscall_is_compat((struct task_struct *)bpf_get_current_task());
	call = compat ? compat_call(nr) : native_call(nr);
	if (call == CALL_NONE)
		return 0;
	e = gadget_heap_get(&event_heap);
	if (!e)
		return 0;

	e->timestamp_raw = bpf_ktime_get_boot_ns();
	gadget_process_populate(&e->proc);
	gadget_get_user_stack(ctx, &e->ustack);
	e->error_raw = ret < 0 ? -ret : 0;
	e->fd = ret < 0 ? -1 : ret;
	e->fname_truncated = false;
	e->fpath_truncated = false;
	gadget_syscall_args(&args, regs, compat);
	name = read_request(e, call, &args);
	// Without these flags the call takes no mode, and what stands in its place is left over from something else.
	if (!(e->flags_raw & USES_MODE))
		e->mode_raw = 0;
	send(ctx, e, name);
	return 0;
}

// True for the numbers that are an open in either ABI; which one applies costs a look at the task.
static __always_inline bool may_open(int nr)
{
	return native_call(nr) != CALL_NONE || compat_call(nr) != CALL_NONE;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(ig_open_exit, struct pt_regs *regs, long ret)
{
	int nr = gadget_syscall_nr_direct(regs);

	return may_open(nr) ? call_ended(ctx, regs, nr, ret) : 0;
}

// The same where the kernel has no BTF of its own for tp_btf to use.
SEC("raw_tp/sys_exit")
int ig_open_exit_raw(struct bpf_raw_tracepoint_args *ctx)
{
	void *regs = (void *)ctx->args[0];
	int nr = gadget_syscall_nr_probed(regs);

	return may_open(nr) ? call_ended(ctx, regs, nr, ctx->args[1]) : 0;
}

// The same for Linux 7.0 and later, which may preempt the other two and then skips what they should have seen.
SEC("tracepoint/raw_syscalls/sys_exit")
int ig_open_exit_plain(struct trace_event_raw_sys_exit *ctx)
{
	// The number that the event carries is that of the ABI of the call, as in the registers.
	int nr = ctx->id & ~GADGET_X32_BIT;

	return may_open(nr) ? call_ended(ctx, (void *)bpf_task_pt_regs(bpf_get_current_task_btf()), nr, ctx->ret) : 0;
}

char LICENSE[] SEC("license") = "GPL";
