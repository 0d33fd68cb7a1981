// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_init_module: kernel modules that are loaded and unloaded, or that somebody tries to: init_module, finit_module and
// delete_module.

#include <gadget/common.h>
#include <gadget/filesystem.h>
#include <gadget/filter.h>
#include <gadget/syscall_hooks.h>

#define VALUES_ROOM 1024
#define NAME_ROOM 64

// The names are what users see.
enum module_call {
	none,
	init_module,
	finit_module,
	delete_module,
};

// Those of finit_module and those of delete_module.
enum module_flags_set {
	MODULE_INIT_IGNORE_MODVERSIONS = 1,
	MODULE_INIT_IGNORE_VERMAGIC = 2,
	MODULE_INIT_COMPRESSED_FILE = 4,
	O_EXCL = 0200,
	O_TRUNC = 01000,
	O_NONBLOCK = 04000,
};

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	enum module_call syscall_raw;
	gadget_errno error_raw;
	__u64 len;
	__s32 fd;
	enum module_flags_set flags_raw;
	bool filepath_truncated;
	bool param_values_truncated;
	char name[NAME_ROOM];
	char filepath[GADGET_PATH_MAX];
	char param_values[VALUES_ROOM];
};

const volatile bool failed = false;
GADGET_PARAM(failed);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(init, events, event);

static __always_inline int native_call(int nr)
{
	switch (nr) {
#if defined(__TARGET_ARCH_x86)
	case 175:
		return init_module;
	case 313:
		return finit_module;
	case 176:
		return delete_module;
#else
	case 105:
		return init_module;
	case 273:
		return finit_module;
	case 106:
		return delete_module;
#endif
	default:
		return none;
	}
}

static __always_inline int compat_call(int nr)
{
	switch (nr) {
	case 128:
		return init_module;
#if defined(__TARGET_ARCH_x86)
	case 350:
#else
	case 379:
#endif
		return finit_module;
	case 129:
		return delete_module;
	default:
		return none;
	}
}

static __always_inline int call_ended(void *ctx, void *regs, int call, bool compat, long ret)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct gadget_syscall_args args;
	struct file *file = NULL;
	const void *values = NULL;
	struct event *e;
	bool cut = false;

	if (failed && ret >= 0)
		return 0;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	gadget_process_populate(&e->proc);
	e->syscall_raw = call;
	e->error_raw = ret < 0 ? -ret : 0;
	e->len = 0;
	e->fd = -1;
	e->flags_raw = 0;
	e->filepath_truncated = false;
	e->param_values_truncated = false;
	e->name[0] = '\0';
	e->filepath[0] = '\0';
	e->param_values[0] = '\0';
	gadget_syscall_args(&args, regs, compat);
	switch (call) {
	case init_module:
		e->len = args.a[1];
		values = (void *)args.a[2];
		break;
	case finit_module:
		e->fd = args.a[0];
		values = (void *)args.a[1];
		e->flags_raw = args.a[2];
		file = gadget_file_of_fd(task, e->fd);
		break;
	default:
		// A module's name has at most 55 bytes.
		gadget_read_text(e->name, NAME_ROOM, (void *)args.a[0], &cut);
		e->flags_raw = args.a[1];
	}
	if (file)
		gadget_file_path(e->filepath, file, task, &e->filepath_truncated);
	if (values)
		gadget_read_text(e->param_values, VALUES_ROOM, values, &e->param_values_truncated);
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

GADGET_SYSCALL_EXIT(ig_module_call, native_call, compat_call, call_ended)

char LICENSE[] SEC("license") = "GPL";
