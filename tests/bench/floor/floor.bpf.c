// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
// The cheapest probe that still tells what an open tracer must: the floor that `ig run trace_open` is measured against.
// Like a gadget's object it submits with flags 0, so that the reader, not the probe, decides about wakeups.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct ns_common { unsigned int inum; } __attribute__((preserve_access_index));
struct mnt_namespace { struct ns_common ns; } __attribute__((preserve_access_index));
struct nsproxy { struct mnt_namespace *mnt_ns; } __attribute__((preserve_access_index));
struct task_struct {
	struct task_struct *real_parent;
	struct nsproxy *nsproxy;
	int tgid;
	char comm[16];
} __attribute__((preserve_access_index));

struct enter { __u64 common; long id; unsigned long args[6]; };
struct leave { __u64 common; long id; long ret; };

struct args { const char *fname; __u32 flags; __u32 mode; };

#include "event.h"

struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4 * 1024 * 1024); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 10240); __type(key, __u32); __type(value, struct args); } start SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } lost SEC(".maps");

SEC("tracepoint/syscalls/sys_enter_openat")
int open_enter(struct enter *ctx)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct args a = { (const char *)ctx->args[1], (__u32)ctx->args[2], (__u32)ctx->args[3] };
	bpf_map_update_elem(&start, &tid, &a, BPF_ANY);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_openat")
int open_exit(struct leave *ctx)
{
	__u64 ids = bpf_get_current_pid_tgid(), owner = bpf_get_current_uid_gid();
	__u32 tid = (__u32)ids, zero = 0;
	struct args *a = bpf_map_lookup_elem(&start, &tid);
	if (!a)
		return 0;
	struct event *e = bpf_ringbuf_reserve(&events, sizeof *e, 0);
	if (!e) {
		__u64 *n = bpf_map_lookup_elem(&lost, &zero);
		if (n)
			*n += 1;
		goto out;
	}
	struct task_struct *t = (void *)bpf_get_current_task();
	e->timestamp = bpf_ktime_get_boot_ns();
	e->mntns = BPF_CORE_READ(t, nsproxy, mnt_ns, ns.inum);
	e->pid = ids >> 32;
	e->tid = tid;
	e->ppid = BPF_CORE_READ(t, real_parent, tgid);
	e->uid = (__u32)owner;
	e->gid = owner >> 32;
	e->ret = ctx->ret;
	e->flags = a->flags;
	e->mode = a->mode;
	bpf_get_current_comm(e->comm, sizeof e->comm);
	BPF_CORE_READ_STR_INTO(&e->pcomm, t, real_parent, comm);
	bpf_probe_read_user_str(e->fname, sizeof e->fname, a->fname);
	bpf_ringbuf_submit(e, 0);
out:
	bpf_map_delete_elem(&start, &tid);
	return 0;
}
