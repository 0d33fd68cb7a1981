// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
// Programs the verifier refuses, and one it takes.
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct task_struct {
	int no_such_field;
} __attribute__((preserve_access_index));

SEC("tracepoint/syscalls/sys_enter_getpgid")
int wild(void *ctx)
{
	return *(int *)(bpf_get_current_pid_tgid());
}

SEC("raw_tp/sys_enter")
int no_field(void *ctx)
{
	struct task_struct *t = (void *)bpf_get_current_task();

	return BPF_CORE_READ(t, no_such_field);
}

SEC("raw_tp/sys_exit")
int guarded(void *ctx)
{
	struct task_struct *t = (void *)bpf_get_current_task();

	if (bpf_core_field_exists(t->no_such_field))
		return BPF_CORE_READ(t, no_such_field);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
