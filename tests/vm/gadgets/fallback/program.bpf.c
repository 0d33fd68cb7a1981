// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// Hooks that no kernel has, which must be skipped and said, beside one that works; and a job with two ways to do it, of
// which the better needs Linux 5.11.

#include <gadget/buffer.h>
#include <gadget/macros.h>
#include <gadget/types.h>

struct event {
	gadget_pid pid;
	char way[8];
};

const volatile gadget_pid targ_pid = 0;
GADGET_PARAM(targ_pid);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(calls, events, event);

static __always_inline int called(void *ctx, const char *way)
{
	gadget_pid pid = bpf_get_current_pid_tgid() >> 32;
	struct event *e;

	if (pid != targ_pid)
		return 0;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->pid = pid;
	bpf_probe_read_kernel_str(e->way, sizeof(e->way), way);
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

SEC("kprobe/no_such_function")
int missing_kprobe(void *ctx)
{
	return called(ctx, "wrong");
}

SEC("fentry/no_such_function")
int missing_fentry(void *ctx)
{
	return called(ctx, "wrong");
}

SEC("lsm/no_such_hook")
int missing_lsm(void *ctx)
{
	return called(ctx, "wrong");
}

SEC("tracepoint/no_such_group/no_such_event")
int missing_tracepoint(void *ctx)
{
	return called(ctx, "wrong");
}

SEC("raw_tp/no_such_event")
int missing_raw_tp(void *ctx)
{
	return called(ctx, "wrong");
}

SEC("uprobe//bin/no_such_file:no_such_symbol")
int missing_uprobe(void *ctx)
{
	return called(ctx, "wrong");
}

SEC("tracepoint/syscalls/sys_enter_getpgid")
int way_new(void *ctx)
{
	// bpf_get_current_task_btf: Linux 5.11
	return bpf_get_current_task_btf() ? called(ctx, "new") : 0;
}

SEC("tracepoint/syscalls/sys_exit_getpgid")
int way_old(void *ctx)
{
	return called(ctx, "old");
}

char LICENSE[] SEC("license") = "GPL";
