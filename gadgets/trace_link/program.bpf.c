// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_link: names that are made for files, hard and symbolic, with link, linkat, symlink and symlinkat.

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/syscall_hooks.h>

#define PATH_ROOM 512

// The names are what users see.
enum link_kind {
	HARDLINK,
	SYMLINK,
};

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	enum link_kind type_raw;
	gadget_errno error_raw;
	bool target_truncated;
	bool linkpath_truncated;
	char target[PATH_ROOM];
	char linkpath[PATH_ROOM];
};

const volatile bool failed = false;
GADGET_PARAM(failed);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(link, events, event);

enum call { CALL_NONE, CALL_LINK, CALL_LINKAT, CALL_SYMLINK, CALL_SYMLINKAT };

static __always_inline int native_call(int nr)
{
	switch (nr) {
#if defined(__TARGET_ARCH_x86)
	case 86:
		return CALL_LINK;
	case 88:
		return CALL_SYMLINK;
	case 265:
		return CALL_LINKAT;
	case 266:
		return CALL_SYMLINKAT;
#else
	case 37:
		return CALL_LINKAT;
	case 36:
		return CALL_SYMLINKAT;
#endif
	default:
		return CALL_NONE;
	}
}

static __always_inline int compat_call(int nr)
{
	switch (nr) {
	case 9:
		return CALL_LINK;
	case 83:
		return CALL_SYMLINK;
#if defined(__TARGET_ARCH_x86)
	case 303:
		return CALL_LINKAT;
	case 304:
		return CALL_SYMLINKAT;
#else
	case 330:
		return CALL_LINKAT;
	case 331:
		return CALL_SYMLINKAT;
#endif
	default:
		return CALL_NONE;
	}
}

static __always_inline int call_ended(void *ctx, void *regs, int call, bool compat, long ret)
{
	struct gadget_syscall_args args;
	__u64 target, linkpath;
	struct event *e;

	if (failed && ret >= 0)
		return 0;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	gadget_process_populate(&e->proc);
	e->type_raw = call == CALL_LINK || call == CALL_LINKAT ? HARDLINK : SYMLINK;
	e->error_raw = ret < 0 ? -ret : 0;
	gadget_syscall_args(&args, regs, compat);
	// link(old, new), symlink(old, new), linkat(dir, old, dir, new, flags), symlinkat(old, dir, new)
	target = call == CALL_LINKAT ? args.a[1] : args.a[0];
	linkpath = call == CALL_LINKAT ? args.a[3] : call == CALL_SYMLINKAT ? args.a[2] : args.a[1];
	e->target_truncated = false;
	e->linkpath_truncated = false;
	gadget_read_text(e->target, PATH_ROOM, (void *)target, &e->target_truncated);
	gadget_read_text(e->linkpath, PATH_ROOM, (void *)linkpath, &e->linkpath_truncated);
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

GADGET_SYSCALL_EXIT(ig_link_call, native_call, compat_call, call_ended)

char LICENSE[] SEC("license") = "GPL";
