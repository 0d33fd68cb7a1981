// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// advise_seccomp: which system calls the programs of a container make. One byte a call and container, set once: nothing to
// send, nothing that could overflow but the number of containers.
//
// What a runtime does inside the container's namespace to set it up is not the container's, with one exception: a runtime
// installs the seccomp filter before it starts the container's first program, and what it calls in between must be
// allowed. Hence a thread that has a filter always counts. One that has none counts once the container's first program
// has been started, unless that program had a filter: then it is a runtime that enters the container (exec).

#include <gadget/common.h>
#include <gadget/made_mntns.h>
#include <gadget/maps.h>
#include <gadget/mntns_filter.h>
#include <gadget/syscall.h>

// More numbers than there are, both powers of two: an index is bounded by a mask, which every verifier understands.
#define NATIVE_CALLS 1024
#define COMPAT_CALLS 512
#define CONTAINERS 4096
// Generations of processes that are looked at.
#define ANCESTORS 16

struct pid_namespace___reaper {
	struct task_struct *child_reaper;
} __attribute__((preserve_access_index));

struct upid___ns {
	int nr;
	struct pid_namespace___reaper *ns;
} __attribute__((preserve_access_index));

struct pid___levels {
	unsigned int level;
	struct upid___ns numbers[1];
} __attribute__((preserve_access_index));

struct task_struct___pid {
	struct pid___levels *thread_pid;
} __attribute__((preserve_access_index));

struct seen {
	// Boot clock: whose namespace it was is found by the time.
	__u64 since;
	// The container's first program runs.
	__u8 started;
	// That program has a seccomp filter.
	__u8 filtered;
	__u8 native[NATIVE_CALLS];
	__u8 compat[COMPAT_CALLS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CONTAINERS);
	__type(key, struct gadget_mntns_key);
	__type(value, struct seen);
} containers SEC(".maps");

// What a new entry is copied from.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seen);
} fresh SEC(".maps");

// The first process of a namespace that has been there before: the one whose end is that of the pid namespace; where that
// is shared with others, the caller's eldest ancestor that is inside. Any other thread may have a filter of its own
// making, which says nothing of the rest.
static __always_inline struct task_struct *first_process(struct task_struct *task, __u64 mntns_id)
{
	struct pid___levels *pid = BPF_CORE_READ((struct task_struct___pid *)task, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct task_struct *reaper, *parent;
	struct upid___ns at = {};

	if (!bpf_probe_read_kernel(&at, sizeof(at),
				   (char *)pid + bpf_core_field_offset(struct pid___levels, numbers) +
					   (__u64)level * bpf_core_type_size(struct upid___ns))) {
		reaper = BPF_CORE_READ(at.ns, child_reaper);
		if (gadget_get_mntns_id(reaper) == mntns_id)
			return reaper;
	}
	for (int i = 0; i < ANCESTORS; i++) {
		parent = BPF_CORE_READ(task, real_parent);
		if (parent == task || gadget_get_mntns_id(parent) != mntns_id)
			break;
		task = parent;
	}
	return task;
}

static __always_inline struct seen *add(const struct gadget_mntns_key *key, bool started)
{
	__u32 zero = 0;
	struct seen *new = bpf_map_lookup_elem(&fresh, &zero);

	if (!new)
		return NULL;
	// The byte tables stay zero for ever.
	new->since = bpf_ktime_get_boot_ns();
	new->started = started;
	new->filtered = 0;
	return gadget_lookup_or_insert(&containers, key, new);
}

// Attached before the one below: of every namespace that is seen being made the first program is seen, too.
SEC("raw_tracepoint/sched_process_exec")
int ig_seccomp_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct gadget_mntns_key key;
	struct seen *seen;

	(void)ctx;
	if (!gadget_wanted_mntns_key(&key, task))
		return 0;
	seen = bpf_map_lookup_elem(&containers, &key);
	if (!seen || seen->started)
		return 0;
	seen->filtered = gadget_has_seccomp_filter(task);
	seen->started = 1;
	return 0;
}

// A namespace that is made under our eyes: its first program is still to come. Any other may be one that was there before, and
// of which this is the first that is seen.
SEC("raw_tracepoint/sys_exit")
int ig_seccomp_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct gadget_mntns_key key;

	if (!gadget_made_mntns((void *)ctx->args[0], gadget_syscall_nr_probed(ctx->args[0]), ctx->args[1]))
		return 0;
	if (!gadget_wanted_mntns_key(&key, (struct task_struct *)bpf_get_current_task()))
		return 0;
	if (!bpf_map_lookup_elem(&containers, &key))
		add(&key, false);
	return 0;
}

SEC("raw_tracepoint/sys_enter")
int ig_seccomp_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct gadget_mntns_key key;
	struct seen *seen;
	__u32 nr = ctx->args[1];

	if (!gadget_wanted_mntns_key(&key, task))
		return 0;
	seen = bpf_map_lookup_elem(&containers, &key);
	if (!seen) {
		// Not seen while it was made, so that it has been there before.
		seen = add(&key, true);
		if (!seen)
			return 0;
		seen->filtered = gadget_has_seccomp_filter(first_process(task, key.mntns_id));
	}
	if ((!seen->started || seen->filtered) && !gadget_has_seccomp_filter(task))
		return 0;
	if (gadget_syscall_is_compat(task)) {
		if (nr < COMPAT_CALLS)
			seen->compat[nr & (COMPAT_CALLS - 1)] = 1;
		return 0;
	}
#if defined(GADGET_X32_BIT)
	nr &= ~GADGET_X32_BIT;
#endif
	if (nr < NATIVE_CALLS)
		seen->native[nr & (NATIVE_CALLS - 1)] = 1;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
