// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
// All thirteen kinds of CO-RE relocations against types of the running kernel, and calls between functions.
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct list_head {
	struct list_head *next, *prev;
} __attribute__((preserve_access_index));

struct task_struct___core {
	int pid;
	int no_such_field;
	struct list_head tasks;
	struct task_struct___core *group_leader;
	unsigned in_execve : 1;
	char comm[16];
} __attribute__((preserve_access_index));

struct no_such_struct {
	int a;
} __attribute__((preserve_access_index));

enum bpf_prog_type___core { BPF_PROG_TYPE_TRACING___core = 1, NO_SUCH_VALUE = 2 };

union unused {
	struct task_struct___core *t;
};

int total = 0;
__u64 version = 0;

extern int LINUX_KERNEL_VERSION __kconfig;

__attribute__((visibility("hidden"))) __noinline int hidden(int *x)
{
	return *x;
}

static __noinline int deep(int x)
{
	return hidden(&x) + total;
}

static __noinline int inner(int x)
{
	return deep(x) * 3;
}

__noinline int global_function(int x)
{
	return inner(x) + 1;
}

SEC("raw_tp/sys_enter")
int all_kinds(void *ctx)
{
	struct task_struct___core *t = (void *)bpf_get_current_task();
	long n = 0;

	n += BPF_CORE_READ(t, group_leader, pid);
	n += BPF_CORE_READ(t, comm[3]);
	n += bpf_core_field_exists(t->no_such_field);
	n += bpf_core_field_exists(t->tasks);
	n += bpf_core_field_offset(t->tasks.prev);
	n += bpf_core_field_size(t->comm);
	n += BPF_CORE_READ_BITFIELD_PROBED(t, in_execve);
	n += bpf_core_type_exists(struct no_such_struct);
	n += bpf_core_type_exists(struct list_head);
	n += bpf_core_type_size(struct list_head);
	n += bpf_core_type_matches(struct list_head);
	n += bpf_core_type_id_local(struct no_such_struct);
	n += bpf_core_type_id_kernel(struct list_head);
	n += bpf_core_enum_value_exists(enum bpf_prog_type___core, NO_SUCH_VALUE);
	n += bpf_core_enum_value(enum bpf_prog_type___core, BPF_PROG_TYPE_TRACING___core);
	total += inner(n);
	return global_function(n);
}

SEC("tracepoint/syscalls/sys_enter_getsid")
int second(void *ctx)
{
	version = 0x1234567800000000ULL | LINUX_KERNEL_VERSION;
	return global_function(2) + deep(1);
}

static long step(__u32 i, void *sum)
{
	*(int *)sum += i;
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_getpgid")
int callback(void *ctx)
{
	int sum = 0;

	bpf_loop(10, step, &sum, 0);
	return sum;
}

char LICENSE[] SEC("license") = "GPL";
