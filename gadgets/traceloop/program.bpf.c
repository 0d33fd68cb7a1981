// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// traceloop: a flight recorder. The last calls of every container are kept in the kernel, the oldest are overwritten, and
// nothing is sent until somebody asks.
//
// A container's recorder is RING_CALLS entries of one hash map, which is preallocated. The how-manyth call it is decides
// which entry a call overwrites, so that the numbers of the rows tell how many came before. Containers share
// RINGS recorders in turn: beyond that many, the oldest and the newest write into the same one, and each loses calls to the
// other; numbers then have gaps.
//
// Three ways to the same rows, of which the host takes one (gadget.yaml): raw tracepoints; plain ones, which from Linux 7.0 on
// are the only ones that see every call; and raw ones that count under a lock, for kernels before 5.12, where no atomic
// operation gives back what it made.
//
// A call that a seccomp filter answers in the kernel's place never comes to sys_enter: it is recorded at sys_exit.

#include <gadget/common.h>
#include <gadget/current_syscall.h>
#include <gadget/made_mntns.h>
#include <gadget/maps.h>
#include <gadget/mntns_filter.h>
#include <gadget/syscall.h>
#include "strings.h"

#define RINGS 64
#define RING_CALLS 1024 // a power of two
#define CONTAINERS 4096
#define THREADS 16384
#define TEXT_MAX 96

#if defined(__TARGET_ARCH_x86)
#define NR_EXIT 60
#define NR_EXIT_GROUP 231
#define NR_FORK 57
#define NR_VFORK 58
#define NR_EXECVE 59
#define NR_EXECVEAT 322
#define NR_X32_EXECVE 520
#define NR_X32_EXECVEAT 545
#define NR_SETNS 308
#define NR_COMPAT_EXECVEAT 358
#define NR_COMPAT_SETNS 346
#else
#define NR_EXIT 93
#define NR_EXIT_GROUP 94
#define NR_EXECVE 221
#define NR_EXECVEAT 281
#define NR_SETNS 268
#define NR_COMPAT_EXECVEAT 387
#define NR_COMPAT_SETNS 375
#endif
#define NR_COMPAT_FORK 2
#define NR_COMPAT_EXECVE 11
#define NR_COMPAT_CLONE 120
#define NR_COMPAT_VFORK 190
#define NR_COMPAT_EXIT 1
#define NR_COMPAT_EXIT_GROUP 252

// Where a call lies.
struct place {
	__u32 ring;
	__u32 slot;
};

struct call {
	gadget_timestamp timestamp_raw;
	gadget_mntns_id mntns_id;
	__u64 number;
	__u64 a0;
	__u64 a1;
	__u64 a2;
	__u64 a3;
	__u64 a4;
	__u64 a5;
	__s64 ret_raw;
	__u32 cpu;
	gadget_pid pid;
	gadget_tid tid;
	__u16 syscall_raw;
	bool compat;
	bool returned;
	gadget_comm comm[TASK_COMM_LEN];
	// Which argument each text is of, from 1; 0 for none.
	__u8 text1_of;
	__u8 text2_of;
	bool text1_cut;
	bool text2_cut;
	__u16 text1_size;
	__u16 text2_size;
	char text1[TEXT_MAX];
	char text2[TEXT_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, RINGS * RING_CALLS);
	__type(key, struct place);
	__type(value, struct call);
} calls SEC(".maps");

GADGET_MAPITER(traceloop, calls);

struct recorder {
	__u64 written;
	__u32 ring;
	// The container's first program runs.
	__u32 started;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CONTAINERS);
	__type(key, struct gadget_mntns_key);
	__type(value, struct recorder);
} recorders SEC(".maps");

// Rings given out so far.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} rings SEC(".maps");

// The call that a thread is in. By address of the thread, which unlike its number stays the same in execve.
struct open_call {
	struct place place;
	__u64 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, THREADS);
	__type(key, __u64);
	__type(value, struct open_call);
} open_calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct call);
} scratch SEC(".maps");

// Recorders in which a number is being given out, for kernels without the atomic operation. Only the key matters.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, RINGS + 1);
	__type(key, __u32);
	__type(value, __u8);
} locks SEC(".maps");

// The lock of `rings`.
#define RINGS_LOCK RINGS
// How often a lock is tried. Its holder cannot be preempted, and needs well below a microsecond.
#define LOCK_TRIES 512

// Adds 1 and gives the sum; 0 where the lock was not to be had. `locked` is a constant: each program has one of the two.
static __always_inline __u64 next(__u64 *counter, __u32 lock, bool locked)
{
	__u64 n;
	__u8 held = 1;

	if (!locked)
		return __sync_fetch_and_add(counter, 1) + 1;
	for (int i = 0; i < LOCK_TRIES; i++) {
		if (bpf_map_update_elem(&locks, &lock, &held, BPF_NOEXIST))
			continue;
		n = *(volatile __u64 *)counter + 1;
		*(volatile __u64 *)counter = n;
		bpf_map_delete_elem(&locks, &lock);
		return n;
	}
	gadget_count(&gadget_map_full);
	return 0;
}

static __always_inline struct recorder *add(const struct gadget_mntns_key *key, bool started, bool locked)
{
	__u32 zero = 0;
	__u64 *given = bpf_map_lookup_elem(&rings, &zero);
	struct recorder new = {.started = started};
	__u64 turn;

	if (!given)
		return NULL;
	turn = next(given, RINGS_LOCK, locked);
	if (!turn)
		return NULL;
	new.ring = (turn - 1) % RINGS;
	// If another CPU has been quicker, its entry counts, and a ring is left out in this turn.
	return gadget_lookup_or_insert(&recorders, key, &new);
}

// Not inlined: five programs have it.
static __noinline void read_args(struct call *c, void *regs)
{
	struct pt_regs___saved *saved = regs;

#if defined(__TARGET_ARCH_x86)
	if (c->compat) {
		c->a0 = (__u32)BPF_CORE_READ(saved, bx);
		c->a1 = (__u32)BPF_CORE_READ(saved, cx);
		c->a2 = (__u32)BPF_CORE_READ(saved, dx);
		c->a3 = (__u32)BPF_CORE_READ(saved, si);
		c->a4 = (__u32)BPF_CORE_READ(saved, di);
		c->a5 = (__u32)BPF_CORE_READ(saved, bp);
		return;
	}
	c->a0 = BPF_CORE_READ(saved, di);
	c->a1 = BPF_CORE_READ(saved, si);
	c->a2 = BPF_CORE_READ(saved, dx);
	c->a3 = BPF_CORE_READ(saved, r10);
	c->a4 = BPF_CORE_READ(saved, r8);
	c->a5 = BPF_CORE_READ(saved, r9);
#else
	c->a0 = BPF_CORE_READ(saved, regs[0]);
	c->a1 = BPF_CORE_READ(saved, regs[1]);
	c->a2 = BPF_CORE_READ(saved, regs[2]);
	c->a3 = BPF_CORE_READ(saved, regs[3]);
	c->a4 = BPF_CORE_READ(saved, regs[4]);
	c->a5 = BPF_CORE_READ(saved, regs[5]);
#endif
}

static __always_inline __u64 narrow(__u64 arg, bool compat)
{
	return compat ? (__u32)arg : arg;
}

// Gives the size without the NUL; -1 where nothing could be read.
static __always_inline long read_string(char *to, __u64 from, bool *cut)
{
	long n = bpf_probe_read_user_str(to, TEXT_MAX, (const void *)from);
	char next = 0;

	if (n <= 0)
		return -1;
	*cut = n == TEXT_MAX && !bpf_probe_read_user(&next, 1, (const void *)(from + TEXT_MAX - 1)) && next;
	return n - 1;
}

static __always_inline void read_buffer(struct call *c)
{
	__u64 size = c->a2;

	c->text1_cut = size > TEXT_MAX;
	if (size > TEXT_MAX)
		size = TEXT_MAX;
	if (bpf_probe_read_user(c->text1, size, (const void *)c->a1))
		return;
	c->text1_size = size;
	c->text1_of = 2;
}

// At most two, as no call has more.
static __always_inline void read_texts(struct call *c, __u8 which)
{
	__u64 from = c->a0;
	__u8 of = 1;
	long n;

	c->text1_of = 0;
	c->text2_of = 0;
	c->text1_cut = false;
	c->text2_cut = false;
	c->text1_size = 0;
	c->text2_size = 0;
	if (!which)
		return;
	if (which & TEXT_BUFFER) {
		read_buffer(c);
		return;
	}
	if (!(which & 1)) {
		from = which & 2 ? c->a1 : c->a2;
		of = which & 2 ? 2 : 3;
	}
	n = read_string(c->text1, from, &c->text1_cut);
	if (n >= 0) {
		c->text1_size = n;
		c->text1_of = of;
	}
	if (which & 8) {
		from = c->a3;
		of = 4;
	} else if (which & 4 && of != 3) {
		from = c->a2;
		of = 3;
	} else if (which & 2 && of != 2) {
		from = c->a1;
		of = 2;
	} else {
		return;
	}
	n = read_string(c->text2, from, &c->text2_cut);
	if (n >= 0) {
		c->text2_size = n;
		c->text2_of = of;
	}
}

// The call never comes back.
static __always_inline bool ends_the_thread(const struct call *c)
{
	if (c->compat)
		return c->syscall_raw == NR_COMPAT_EXIT || c->syscall_raw == NR_COMPAT_EXIT_GROUP;
	return c->syscall_raw == NR_EXIT || c->syscall_raw == NR_EXIT_GROUP;
}

struct now {
	struct task_struct *task;
	struct recorder *recorder;
	struct gadget_mntns_key key;
};

// A call to fill; NULL where it is not to be recorded.
static __always_inline struct call *new_call(struct now *now, __u32 nr)
{
	struct call *c;
	__u32 zero = 0;
	__u64 ids;

	c = bpf_map_lookup_elem(&scratch, &zero);
	if (!now->recorder->started || !c)
		return NULL;
#if defined(GADGET_X32_BIT)
	nr &= ~GADGET_X32_BIT;
#endif
	c->timestamp_raw = bpf_ktime_get_boot_ns();
	c->mntns_id = now->key.mntns_id;
	c->compat = gadget_syscall_is_compat(now->task);
	c->returned = false;
	c->ret_raw = 0;
	c->syscall_raw = nr;
	c->cpu = bpf_get_smp_processor_id();
	ids = bpf_get_current_pid_tgid();
	c->pid = ids >> 32;
	c->tid = ids;
	bpf_get_current_comm(c->comm, sizeof(c->comm));
	return c;
}

// The recorder of this call, and a call to fill.
static __always_inline struct call *begin(struct now *now, __u32 nr, bool locked)
{
	now->task = (struct task_struct *)bpf_get_current_task();
	if (!gadget_wanted_mntns_key(&now->key, now->task))
		return NULL;
	now->recorder = bpf_map_lookup_elem(&recorders, &now->key);
	if (!now->recorder) {
		// Not seen while it was made, so that it has been there before.
		now->recorder = add(&now->key, true, locked);
		if (!now->recorder)
			return NULL;
	}
	return new_call(now, nr);
}

// With its arguments known. False where it finds no place.
static __always_inline bool write_down(struct call *c, const struct now *now, struct open_call *open, bool locked)
{
	__u32 nr = c->syscall_raw, ring = now->recorder->ring;

	read_texts(c, c->compat ? compat_text[nr & 511] : native_text[nr & 1023]);
	c->number = next(&now->recorder->written, ring, locked);
	if (!c->number)
		return false;
	open->number = c->number;
	open->place.ring = ring;
	open->place.slot = (c->number - 1) & (RING_CALLS - 1);
	return !gadget_update_or_count(&calls, &open->place, c);
}

static __always_inline int keep(struct call *c, const struct now *now, bool locked)
{
	__u64 thread = (__u64)now->task;
	struct open_call open = {};

	if (write_down(c, now, &open, locked) && !ends_the_thread(c))
		gadget_update_or_count(&open_calls, &thread, &open);
	return 0;
}

// Attached before the others: of every namespace that is seen being made the first program is seen, too.
static __always_inline int runs_a_program(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct recorder *recorder;
	struct gadget_mntns_key key;

	if (!gadget_wanted_mntns_key(&key, task))
		return 0;
	recorder = bpf_map_lookup_elem(&recorders, &key);
	if (recorder)
		recorder->started = 1;
	return 0;
}

SEC("raw_tracepoint/sched_process_exec")
int ig_loop_exec(struct bpf_raw_tracepoint_args *ctx)
{
	(void)ctx;
	return runs_a_program();
}

SEC("tracepoint/sched/sched_process_exec")
int ig_loop_exec_plain(void *ctx)
{
	(void)ctx;
	return runs_a_program();
}

static __always_inline int enter_raw(struct bpf_raw_tracepoint_args *ctx, bool locked)
{
	struct now now = {};
	struct call *c = begin(&now, ctx->args[1], locked);

	if (!c)
		return 0;
	read_args(c, (void *)ctx->args[0]);
	return keep(c, &now, locked);
}

SEC("raw_tracepoint/sys_enter")
int ig_loop_enter(struct bpf_raw_tracepoint_args *ctx)
{
	return enter_raw(ctx, false);
}

SEC("raw_tracepoint/sys_enter")
int ig_loop_enter_lock(struct bpf_raw_tracepoint_args *ctx)
{
	return enter_raw(ctx, true);
}

SEC("tracepoint/raw_syscalls/sys_enter")
int ig_loop_enter_plain(struct trace_event_raw_sys_enter *ctx)
{
	struct now now = {};
	struct call *c = begin(&now, ctx->id, false);

	if (!c)
		return 0;
	c->a0 = narrow(ctx->args[0], c->compat);
	c->a1 = narrow(ctx->args[1], c->compat);
	c->a2 = narrow(ctx->args[2], c->compat);
	c->a3 = narrow(ctx->args[3], c->compat);
	c->a4 = narrow(ctx->args[4], c->compat);
	c->a5 = narrow(ctx->args[5], c->compat);
	return keep(c, &now, false);
}

// False where the call was not open.
static __always_inline bool close_call(__u64 thread, long ret)
{
	struct open_call *open = bpf_map_lookup_elem(&open_calls, &thread);
	struct call *c;

	if (!open)
		return false;
	c = bpf_map_lookup_elem(&calls, &open->place);
	if (c && c->number == open->number) {
		c->ret_raw = ret;
		c->returned = true;
	}
	bpf_map_delete_elem(&open_calls, &thread);
	return true;
}

// Calls that are left by others than came in: by a child, by a new program, in another namespace.
static __always_inline bool came_in_elsewhere(const struct call *c, long ret)
{
	if (ret != 0)
		return false;
	if (c->syscall_raw == GADGET_NR_CLONE3)
		return true;
	if (c->compat)
		return c->syscall_raw == NR_COMPAT_FORK || c->syscall_raw == NR_COMPAT_VFORK || c->syscall_raw == NR_COMPAT_CLONE ||
		       c->syscall_raw == NR_COMPAT_EXECVE || c->syscall_raw == NR_COMPAT_EXECVEAT || c->syscall_raw == NR_COMPAT_SETNS;
	switch (c->syscall_raw) {
	case GADGET_NR_CLONE:
#if defined(__TARGET_ARCH_x86)
	case NR_FORK:
	case NR_VFORK:
	case NR_X32_EXECVE:
	case NR_X32_EXECVEAT:
#endif
	case NR_EXECVE:
	case NR_EXECVEAT:
	case NR_SETNS:
		return true;
	default:
		return false;
	}
}

// A call that began nowhere: the thread's filter has answered it.
static __always_inline void keep_refused(struct task_struct *task, const struct gadget_mntns_key *key, void *regs, __u32 nr, long ret,
					 bool locked)
{
	struct now now = {.task = task, .key = *key};
	struct open_call unused = {};
	struct call *c;

	now.recorder = bpf_map_lookup_elem(&recorders, key);
	if (!now.recorder)
		return;
	c = new_call(&now, nr);
	if (!c || came_in_elsewhere(c, ret))
		return;
	read_args(c, regs);
#if defined(__TARGET_ARCH_arm64)
	// The result is in its place.
	c->a0 = BPF_CORE_READ((struct pt_regs___saved *)regs, orig_x0);
#endif
	// With a signal for an answer there is no result: the number of the call stands in its register.
	c->returned = ret != (long)nr;
	c->ret_raw = c->returned ? ret : 0;
	write_down(c, &now, &unused, locked);
}

// `regs` NULL: not at hand.
static __always_inline int leave(void *regs, int nr, long ret, bool locked)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct gadget_mntns_key key;

	if (!gadget_wanted_mntns_key(&key, task))
		return 0;
	if (!regs)
		regs = gadget_current_regs(task);
	// Negative: back from a signal handler.
	if (!close_call((__u64)task, ret) && nr >= 0 && gadget_has_seccomp_filter(task))
		keep_refused(task, &key, regs, nr, ret, locked);
	// A namespace that is made under our eyes: its first program is still to come. Any other may be one that was there before, and
	// of which this is the first that is seen.
	if (gadget_made_mntns(regs, nr, ret) && !bpf_map_lookup_elem(&recorders, &key))
		add(&key, false, locked);
	return 0;
}

SEC("raw_tracepoint/sys_exit")
int ig_loop_exit(struct bpf_raw_tracepoint_args *ctx)
{
	return leave((void *)ctx->args[0], gadget_syscall_nr_probed(ctx->args[0]), ctx->args[1], false);
}

SEC("raw_tracepoint/sys_exit")
int ig_loop_exit_lock(struct bpf_raw_tracepoint_args *ctx)
{
	return leave((void *)ctx->args[0], gadget_syscall_nr_probed(ctx->args[0]), ctx->args[1], true);
}

SEC("tracepoint/raw_syscalls/sys_exit")
int ig_loop_exit_plain(struct trace_event_raw_sys_exit *ctx)
{
	return leave(NULL, ctx->id & ~GADGET_X32_BIT, ctx->ret, false);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
