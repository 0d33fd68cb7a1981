// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
// One program for each hook the host attaches to, and one for each it must refuse well.
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct task_struct {
	int pid;
	int tgid;
} __attribute__((preserve_access_index));
struct file {
	unsigned int f_flags;
} __attribute__((preserve_access_index));
struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} __attribute__((preserve_access_index));
struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
} __attribute__((preserve_access_index));
struct sock_common;
struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
	__u32 uid;
} __attribute__((preserve_access_index));
struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	void *map;
	void *key;
	void *value;
} __attribute__((preserve_access_index));

const volatile __u32 only_tgid = 0;
const volatile __u32 table_max_entries = 7;

struct row {
	__u32 tgid;
	__u32 pid;
};
struct entry_key {
	__u32 a;
};
struct entry_value {
	__u64 b;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} hits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 0);
	__type(key, struct entry_key);
	__type(value, struct entry_value);
} table SEC(".maps");

const void *gadget_param_only_tgid __attribute__((unused));
const void *gadget_iter_tasks___row___on_iter_task __attribute__((unused));
const void *gadget_iter_elems___entry_value___on_iter_elem __attribute__((unused));
const void *gadget_mapiter_table___table __attribute__((unused));
const void *gadget_mapelem_iter_target_on_iter_elem___table __attribute__((unused));
const struct row *unused_row __attribute__((unused));

static __noinline void hit(__u32 slot)
{
	__u64 *n = bpf_map_lookup_elem(&hits, &slot);

	if (n)
		__sync_fetch_and_add(n, 1);
}

static __noinline int wanted(void)
{
	return !only_tgid || (bpf_get_current_pid_tgid() >> 32) == only_tgid;
}

SEC("tracepoint/syscalls/sys_enter_getpgid")
int on_tracepoint(void *ctx)
{
	if (wanted())
		hit(0);
	return 0;
}

SEC("raw_tp/sys_enter")
int on_raw_tp(struct bpf_raw_tracepoint_args *ctx)
{
	if (wanted())
		hit(1);
	return 0;
}

SEC("tp_btf/sys_exit")
int on_tp_btf(__u64 *ctx)
{
	if (wanted())
		hit(2);
	return 0;
}

SEC("kprobe/do_sys_openat2")
int on_kprobe(void *ctx)
{
	hit(3);
	return 0;
}

SEC("fentry/do_sys_openat2")
int on_fentry(__u64 *ctx)
{
	hit(4);
	return 0;
}

SEC("kretprobe/do_sys_openat2")
int on_kretprobe(void *ctx)
{
	hit(8);
	return 0;
}

SEC("fexit/do_sys_openat2")
int on_fexit(__u64 *ctx)
{
	hit(9);
	return 0;
}

SEC("perf_event/clock")
int on_perf_event(void *ctx)
{
	hit(5);
	return 0;
}

SEC("uprobe//proc/self/exe:bpf_test_probe_me")
int on_uprobe(void *ctx)
{
	hit(6);
	return 0;
}

SEC("uretprobe//proc/self/exe:bpf_test_probe_me")
int on_uretprobe(void *ctx)
{
	hit(7);
	return 0;
}

SEC("iter/task")
int on_iter_task(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct row row;

	if (!task)
		return 0;
	row.tgid = task->tgid;
	row.pid = task->pid;
	bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	return 0;
}

SEC("iter/task_file")
int on_iter_task_file(struct bpf_iter__task_file *ctx)
{
	return 0;
}

SEC("iter/tcp")
int on_iter_tcp(struct bpf_iter__tcp *ctx)
{
	return 0;
}

SEC("iter/bpf_map_elem")
int on_iter_elem(struct bpf_iter__bpf_map_elem *ctx)
{
	struct entry_value *value = ctx->value;

	if (value)
		bpf_seq_write(ctx->meta->seq, value, sizeof(*value));
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_no_such_call")
int on_missing_tracepoint(void *ctx)
{
	return 0;
}

SEC("tp_btf/no_such_tracepoint")
int on_missing_tp_btf(__u64 *ctx)
{
	return 0;
}

SEC("socket1")
int on_socket(void *ctx)
{
	return 0;
}

SEC("program7")
int on_unknown(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
