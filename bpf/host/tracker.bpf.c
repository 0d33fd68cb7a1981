// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * Sees every container from the birth of its mount namespace, and lets the gadgets see it from then on.
 *
 * What runs where: five raw tracepoints (fork, exec, exit, cgroup mkdir, cgroup rmdir), the two halves of unshare(2), and
 * the beginning of execve(2) and execveat(2).
 * The work on an event that has nothing to do with a container is a comparison or one hash lookup.
 *
 * A new mount namespace is put into the filter map of every gadget right here, before its first program runs: user
 * space would come too late for the shortest containers. User space then takes out what was not asked for.
 *
 * The numbers of mount namespaces are reused at once, so a namespace is known by (number, time of birth).
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "GPL";

/* Only the kernel fields that are read here; the loader finds their real places. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct ns_common {
	unsigned int inum;
	__u64 ns_id; /* since 6.18; never reused */
};
struct mnt_namespace {
	struct ns_common ns;
	__u64 seq; /* before 6.18; never reused either */
};
struct net {
	struct ns_common ns;
};
struct user_namespace {
	struct ns_common ns;
};
struct nsproxy {
	struct mnt_namespace *mnt_ns;
	struct net *net_ns;
};
typedef struct {
	__u32 val;
} kuid_t;
struct cred {
	kuid_t euid;
	struct user_namespace *user_ns;
};
struct kernfs_node {
	__u64 id;
};
struct cgroup_root {
	int hierarchy_id;
	__u32 subsys_mask;
};
struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
};
struct cgroup_subsys_state {
	struct cgroup *cgroup;
};
struct css_set {
	struct cgroup_subsys_state *subsys[16];
	struct cgroup *dfl_cgrp;
};
typedef struct {
	int counter;
} atomic_t;
struct signal_struct {
	atomic_t live;
};
struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
};
struct task_struct {
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct nsproxy *nsproxy;
	struct mm_struct *mm;
	const struct cred *cred;
	struct css_set *cgroups;
	struct signal_struct *signal;
	char comm[16];
};
#pragma clang attribute pop

enum cgroup_subsys_id { pids_cgrp_id = 0 };

#define CLONE_NEWNS 0x00020000
#define ARGS_MAX 4096
/* As much of a path as the kernel gives to its tracepoints: a container in a container in a pod has more than 512. */
#define PATH_MAX_SENT 1024
#define FILTERS_MAX 64
#define ANCESTORS 6

enum event_type { EV_BIRTH = 1, EV_FIRST_EXEC, EV_RUNTIME_EXEC, EV_EXIT, EV_CGROUP_MKDIR, EV_CGROUP_RMDIR };
enum birth_how {
	BORN_BY_FORK = 1,
	BORN_BY_UNSHARE,
	FOUND_LATE,	/* nothing was known of this number */
	FOUND_REPLACED, /* its birth was missed, and the number had been another's */
};
enum counter { LOST_EVENTS, ARGS_CUT, ARGS_UNREADABLE, FILTER_FULL, BIRTHS_FULL, COUNTERS };

/* What user space reads; `host/runtime/src/containers/tracker.rs` has the same layout. */
struct task_event {
	__u32 type;
	__u32 how;
	__u64 time;	/* boot clock, ns; of a birth found late: 0 */
	__u64 mntns;
	__u64 identity;
	__u64 parent_mntns; /* where the namespace was made */
	__u64 netns;
	__u64 cgroup;	 /* id in the default hierarchy */
	__u64 cgroup_v1; /* id in the pids hierarchy where that is v1, else 0 */
	__u64 entered;	 /* of a first exec: when its system call began; 0: not seen */
	__u32 tgid;
	__u32 parent_tgid;
	__u32 launcher; /* nearest ancestor that is a container runtime; 0: none */
	__u32 pad;
	char comm[16];
};
struct runtime_event {
	__u32 type;
	__u32 tgid;
	__u64 time;
	__u64 mntns;
	__u32 parent_tgid;
	__u32 euid;
	__u32 user_ns;
	__u32 args_len;
	__u32 args_cut;
	__u32 pad;
	char args[ARGS_MAX];
};
struct exit_event {
	__u32 type;
	__u32 tgid;
	__u64 time;
};
struct cgroup_event {
	__u32 type;
	__u32 hierarchy;
	__u64 time;
	__u64 id;
	char path[PATH_MAX_SENT];
};

struct birth {
	__u64 time; /* 0: existed before the tracker, or was found late */
	__u64 executed;
	__u64 identity; /* see identity_of */
	__u64 entered;	/* when the last exec that did not end yet began; until the first one is through */
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* mount namespace -> its present generation */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64);
	__type(value, struct birth);
} births SEC(".maps");

/* names of programs that start containers, as in task_struct.comm */
struct comm {
	char name[16];
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct comm);
	__type(value, __u32);
} runtime_names SEC(".maps");

/* processes whose end is reported: 1 runtime, 2 first process of a namespace */
enum watched_as { A_RUNTIME = 1, AN_INIT };
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, __u32);
	__type(value, __u32);
} watched SEC(".maps");

/* threads inside unshare(CLONE_NEWNS) -> the namespace they leave; taken out when the call ends */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} unsharing SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* The gadgets' filter maps. Inner maps need the same key and value; their size is the gadget's. */
struct filter {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u32);
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, FILTERS_MAX);
	__type(key, __u32);
	__array(values, struct filter);
} filters SEC(".maps");

/* [0]: bit i set: filters[i] is in use. [1]: the mount namespace of the machine's first process, once known. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} state SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &which);
	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline __u64 *state_at(__u32 which)
{
	return bpf_map_lookup_elem(&state, &which);
}

/* 0 where the task has none any more (it is exiting). */
static __always_inline __u64 mntns_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
}

/* Tells a namespace from all others for ever; 0 on a kernel without such a number. */
static __always_inline __u64 identity_of(struct task_struct *task)
{
	struct mnt_namespace *ns = BPF_CORE_READ(task, nsproxy, mnt_ns);
	if (bpf_core_field_exists(ns->ns.ns_id))
		return BPF_CORE_READ(ns, ns.ns_id);
	if (bpf_core_field_exists(ns->seq))
		return BPF_CORE_READ(ns, seq);
	return 0;
}

/* Learns the first process's mount namespace by walking up from any task: works without /proc and without privilege over it. */
static __always_inline __u64 host_mntns(struct task_struct *task)
{
	__u64 *host = state_at(1);
	if (!host)
		return 0;
	if (*host)
		return *host;
	for (int i = 0; i < 32; i++) {
		if (!task || BPF_CORE_READ(task, tgid) == 1)
			break;
		task = BPF_CORE_READ(task, real_parent);
	}
	if (task && BPF_CORE_READ(task, tgid) == 1)
		*host = mntns_of(task);
	return *host;
}

static __always_inline __u64 cgroup_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
}

static __always_inline __u64 pids_cgroup_v1_of(struct task_struct *task)
{
	if (!bpf_core_enum_value_exists(enum cgroup_subsys_id, pids_cgrp_id))
		return 0;
	__u32 index = bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id);
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *css = 0;
	bpf_probe_read_kernel(&css, sizeof(css), (void *)set + bpf_core_field_offset(struct css_set, subsys) + index * 8);
	struct cgroup *cgroup = BPF_CORE_READ(css, cgroup);
	if (!BPF_CORE_READ(cgroup, root, hierarchy_id))
		return 0;
	return BPF_CORE_READ(cgroup, kn, id);
}

/* A runtime's child makes the namespace, or its child's child: look a few generations up. */
static __always_inline __u32 launcher_of(struct task_struct *task)
{
	for (int i = 0; i < ANCESTORS; i++) {
		__u32 tgid = BPF_CORE_READ(task, tgid);
		if (tgid <= 1)
			return 0;
		__u32 *as = bpf_map_lookup_elem(&watched, &tgid);
		if (as && *as == A_RUNTIME)
			return tgid;
		task = BPF_CORE_READ(task, real_parent);
	}
	return 0;
}

static __always_inline void send_task(struct task_struct *task, __u32 type, __u32 how, __u64 time, __u64 mntns, __u64 parent_mntns, __u64 entered)
{
	struct task_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(LOST_EVENTS);
		return;
	}
	e->type = type;
	e->how = how;
	e->time = time;
	e->mntns = mntns;
	e->identity = identity_of(task);
	e->parent_mntns = parent_mntns;
	e->netns = BPF_CORE_READ(task, nsproxy, net_ns, ns.inum);
	e->cgroup = cgroup_of(task);
	e->cgroup_v1 = pids_cgroup_v1_of(task);
	e->entered = entered;
	e->tgid = BPF_CORE_READ(task, tgid);
	e->parent_tgid = BPF_CORE_READ(task, real_parent, tgid);
	e->launcher = type == EV_BIRTH ? launcher_of(task) : 0;
	e->pad = 0;
	BPF_CORE_READ_INTO(&e->comm, task, comm);
	bpf_ringbuf_submit(e, 0);
}

static __always_inline void admit(__u64 mntns)
{
	__u64 *mask = state_at(0);
	__u32 one = 1;
	if (!mask || !*mask)
		return;
	__u64 used = *mask;
	for (__u32 i = 0; i < FILTERS_MAX; i++) {
		__u32 key = i;
		if (!(used >> i & 1))
			continue;
		void *filter = bpf_map_lookup_elem(&filters, &key);
		if (filter && bpf_map_update_elem(filter, &mntns, &one, BPF_ANY))
			count(FILTER_FULL);
	}
}

/* The birth is written before the filters: who deletes a filter key looks at the birth afterwards (see filter.rs). */
static __always_inline void born(struct task_struct *task, __u64 mntns, __u64 parent_mntns, __u32 how)
{
	struct birth b = {};
	if (!mntns || mntns == host_mntns(task))
		return;
	if (how != FOUND_LATE)
		b.time = bpf_ktime_get_boot_ns();
	b.identity = identity_of(task);
	if (bpf_map_update_elem(&births, &mntns, &b, BPF_ANY))
		count(BIRTHS_FULL);
	admit(mntns);
	send_task(task, EV_BIRTH, how, b.time, mntns, parent_mntns, 0);
}

SEC("raw_tp/sched_process_fork")
int ig_ctr_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *parent = (void *)ctx->args[0], *child = (void *)ctx->args[1];
	struct nsproxy *a = BPF_CORE_READ(parent, nsproxy), *b = BPF_CORE_READ(child, nsproxy);
	__u64 *host = state_at(1);

	if (host && !*host)
		host_mntns(parent);
	if (a == b)
		return 0;
	__u64 from = mntns_of(parent), to = mntns_of(child);
	if (from != to)
		born(child, to, from, BORN_BY_FORK);
	return 0;
}

struct sys_enter_args {
	__u64 unused;
	long id;
	unsigned long args[6];
};
struct sys_exit_args {
	__u64 unused;
	long id;
	long ret;
};

SEC("tracepoint/syscalls/sys_enter_unshare")
int ig_ctr_unshare(struct sys_enter_args *ctx)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	if (ctx->args[0] & CLONE_NEWNS) {
		__u64 from = mntns_of((void *)bpf_get_current_task());
		if (bpf_map_update_elem(&unsharing, &tid, &from, BPF_ANY))
			count(BIRTHS_FULL);
	} else {
		/* What an unshare left here whose end was not seen. */
		bpf_map_delete_elem(&unsharing, &tid);
	}
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_unshare")
int ig_ctr_unshared(struct sys_exit_args *ctx)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	__u64 *from = bpf_map_lookup_elem(&unsharing, &tid);
	if (!from)
		return 0;
	__u64 left = *from;
	bpf_map_delete_elem(&unsharing, &tid);
	if (ctx->ret == 0) {
		struct task_struct *task = (void *)bpf_get_current_task();
		born(task, mntns_of(task), left, BORN_BY_UNSHARE);
	}
	return 0;
}

/*
 * When the first program of a container begins: what happened in its namespace before was its runtime's doing. Gadgets take
 * the time of an exec where its system call begins, so that is the moment that counts.
 */
static __always_inline int exec_begins(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 mntns = mntns_of(task), *host = state_at(1);

	if (!host || mntns == *host)
		return 0;
	struct birth *b = bpf_map_lookup_elem(&births, &mntns);
	if (b && !b->executed)
		b->entered = bpf_ktime_get_boot_ns();
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_execve")
int ig_ctr_execve(void *ctx)
{
	return exec_begins();
}

SEC("tracepoint/syscalls/sys_enter_execveat")
int ig_ctr_execveat(void *ctx)
{
	return exec_begins();
}

static __always_inline void runtime_started(struct task_struct *task, __u32 tgid)
{
	__u32 as = A_RUNTIME;
	struct runtime_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (bpf_map_update_elem(&watched, &tgid, &as, BPF_ANY))
		count(BIRTHS_FULL);
	if (!e) {
		count(LOST_EVENTS);
		return;
	}
	e->type = EV_RUNTIME_EXEC;
	e->tgid = tgid;
	e->time = bpf_ktime_get_boot_ns();
	e->mntns = mntns_of(task);
	e->parent_tgid = BPF_CORE_READ(task, real_parent, tgid);
	e->euid = BPF_CORE_READ(task, cred, euid.val);
	e->user_ns = BPF_CORE_READ(task, cred, user_ns, ns.inum);
	e->args_cut = 0;
	e->pad = 0;
	unsigned long start = BPF_CORE_READ(task, mm, arg_start), end = BPF_CORE_READ(task, mm, arg_end);
	__u64 len = end - start;
	if (len >= ARGS_MAX) {
		len = ARGS_MAX - 1;
		e->args_cut = 1;
		count(ARGS_CUT);
	}
	e->args_len = len;
	if (bpf_probe_read_user(e->args, len & (ARGS_MAX - 1), (void *)start)) {
		e->args_len = 0;
		count(ARGS_UNREADABLE);
	}
	bpf_ringbuf_submit(e, 0);
}

SEC("raw_tp/sched_process_exec")
int ig_ctr_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];
	__u64 mntns = mntns_of(task);
	__u32 tgid = BPF_CORE_READ(task, tgid), as = AN_INIT;
	struct comm comm = {};

	/* As a string: kernels before 5.12 leave the longer name of before behind the NUL. */
	BPF_CORE_READ_STR_INTO(&comm.name, task, comm);
	__u32 *runtime = bpf_map_lookup_elem(&runtime_names, &comm);
	if (runtime)
		runtime_started(task, tgid);
	if (!mntns || mntns == host_mntns(task))
		return 0;

	struct birth *b = bpf_map_lookup_elem(&births, &mntns);
	if (!b || b->identity != identity_of(task)) {
		born(task, mntns, 0, b ? FOUND_REPLACED : FOUND_LATE);
		b = bpf_map_lookup_elem(&births, &mntns);
	}
	if (!b || b->executed)
		return 0;
	b->executed = 1;
	if (!runtime && bpf_map_update_elem(&watched, &tgid, &as, BPF_ANY))
		count(BIRTHS_FULL);
	send_task(task, EV_FIRST_EXEC, 0, bpf_ktime_get_boot_ns(), mntns, 0, b->entered);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int ig_ctr_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];
	__u32 tgid = BPF_CORE_READ(task, tgid);

	if (!bpf_map_lookup_elem(&watched, &tgid))
		return 0;
	/* The process ends with its last thread, which need not be the first one. */
	if (BPF_CORE_READ(task, signal, live.counter) != 0)
		return 0;
	bpf_map_delete_elem(&watched, &tgid);
	struct exit_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(LOST_EVENTS);
		return 0;
	}
	e->type = EV_EXIT;
	e->tgid = tgid;
	e->time = bpf_ktime_get_boot_ns();
	bpf_ringbuf_submit(e, 0);
	return 0;
}

static __always_inline int cgroup_changed(struct bpf_raw_tracepoint_args *ctx, __u32 type)
{
	struct cgroup *cgroup = (void *)ctx->args[0];
	int hierarchy = BPF_CORE_READ(cgroup, root, hierarchy_id);

	if (hierarchy) {
		/* Of the v1 hierarchies the one with the pids controller: every runtime uses it. */
		if (!bpf_core_enum_value_exists(enum cgroup_subsys_id, pids_cgrp_id))
			return 0;
		__u32 mask = BPF_CORE_READ(cgroup, root, subsys_mask);
		if (!(mask >> bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id) & 1))
			return 0;
	}
	struct cgroup_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(LOST_EVENTS);
		return 0;
	}
	e->type = type;
	e->hierarchy = hierarchy;
	e->time = bpf_ktime_get_boot_ns();
	e->id = BPF_CORE_READ(cgroup, kn, id);
	if (bpf_probe_read_kernel_str(e->path, sizeof(e->path), (void *)ctx->args[1]) < 0)
		e->path[0] = 0;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

SEC("raw_tp/cgroup_mkdir")
int ig_ctr_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	return cgroup_changed(ctx, EV_CGROUP_MKDIR);
}

SEC("raw_tp/cgroup_rmdir")
int ig_ctr_rmdir(struct bpf_raw_tracepoint_args *ctx)
{
	return cgroup_changed(ctx, EV_CGROUP_RMDIR);
}
