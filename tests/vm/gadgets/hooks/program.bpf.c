// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// One program for each kind of hook, all around the system call getpgid and around the function probe_me of
// /bin/target. A row says which hook ran and what value it saw: the argument on the way in, the result on the way out.

#include <linux/ptrace.h>
#include <gadget/buffer.h>
#include <gadget/macros.h>
#include <gadget/syscall.h>
#include <gadget/types.h>
#include <bpf/bpf_tracing.h>

#define NR_GETPGID 121

struct event {
	gadget_pid pid;
	char hook[20];
	__s64 value;
};

const volatile gadget_pid targ_pid = 0;
GADGET_PARAM(targ_pid);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(hooks, events, event);

static __always_inline int saw(void *ctx, const char *hook, __s64 value)
{
	gadget_pid pid = bpf_get_current_pid_tgid() >> 32;
	struct event *e;

	if (pid != targ_pid)
		return 0;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->pid = pid;
	e->value = value;
	bpf_probe_read_kernel_str(e->hook, sizeof(e->hook), hook);
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

// The first argument of the system call whose saved registers are at `regs`.
static __always_inline __s64 argument(void *regs)
{
	return (__s32)BPF_CORE_READ((struct pt_regs___saved *)regs, di);
}

SEC("tracepoint/syscalls/sys_enter_getpgid")
int on_tracepoint(struct trace_event_raw_sys_enter *ctx)
{
	return saw(ctx, "tracepoint", (__s32)ctx->args[0]);
}

SEC("raw_tp/sys_enter")
int on_raw_tp(struct bpf_raw_tracepoint_args *ctx)
{
	if (ctx->args[1] != NR_GETPGID)
		return 0;
	return saw(ctx, "raw_tp", argument((void *)ctx->args[0]));
}

SEC("tp_btf/sys_exit")
int on_tp_btf(__u64 *ctx)
{
	if (gadget_syscall_nr_probed(ctx[0]) != NR_GETPGID)
		return 0;
	return saw(ctx, "tp_btf", (__s64)ctx[1]);
}

SEC("kprobe/__x64_sys_getpgid")
int on_kprobe(struct pt_regs *ctx)
{
	return saw(ctx, "kprobe", argument((void *)PT_REGS_PARM1(ctx)));
}

SEC("kretprobe/__x64_sys_getpgid")
int on_kretprobe(struct pt_regs *ctx)
{
	return saw(ctx, "kretprobe", (__s64)PT_REGS_RC(ctx));
}

SEC("fentry/__x64_sys_getpgid")
int on_fentry(__u64 *ctx)
{
	return saw(ctx, "fentry", argument((void *)ctx[0]));
}

SEC("fexit/__x64_sys_getpgid")
int on_fexit(__u64 *ctx)
{
	return saw(ctx, "fexit", (__s64)ctx[1]);
}

// Asked only for a process that exists; the answer 0 lets the call go on.
SEC("lsm/task_getpgid")
int on_lsm(__u64 *ctx)
{
	return saw(ctx, "lsm", BPF_CORE_READ((struct task_struct *)ctx[0], tgid));
}

SEC("uprobe//bin/target:probe_me")
int on_uprobe(struct pt_regs *ctx)
{
	return saw(ctx, "uprobe", (__s64)PT_REGS_PARM1(ctx));
}

SEC("uretprobe//bin/target:probe_me")
int on_uretprobe(struct pt_regs *ctx)
{
	return saw(ctx, "uretprobe", (__s64)PT_REGS_RC(ctx));
}

char LICENSE[] SEC("license") = "GPL";
