// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_capabilities: the kernel asks whether a process has a capability.
//
// Three ways to see it. On the function with fexit, which has question and answer in one; with a pair of kprobes; and, where there is
// neither, on a tracepoint (Linux 6.14), which does not pass the options: then `audit` and `insetid` are unknown.

#include <gadget/common.h>
#include <gadget/current_syscall.h>
#include <gadget/filter.h>
#include <gadget/kernel_stack_map.h>
#include <gadget/maps.h>
#include <gadget/user_stack_map.h>
#include <linux/ptrace.h>
#include <bpf/bpf_tracing.h>

// linux/capability.h has these as macros only.
enum capability {
	CAP_CHOWN,
	CAP_DAC_OVERRIDE,
	CAP_DAC_READ_SEARCH,
	CAP_FOWNER,
	CAP_FSETID,
	CAP_KILL,
	CAP_SETGID,
	CAP_SETUID,
	CAP_SETPCAP,
	CAP_LINUX_IMMUTABLE,
	CAP_NET_BIND_SERVICE,
	CAP_NET_BROADCAST,
	CAP_NET_ADMIN,
	CAP_NET_RAW,
	CAP_IPC_LOCK,
	CAP_IPC_OWNER,
	CAP_SYS_MODULE,
	CAP_SYS_RAWIO,
	CAP_SYS_CHROOT,
	CAP_SYS_PTRACE,
	CAP_SYS_PACCT,
	CAP_SYS_ADMIN,
	CAP_SYS_BOOT,
	CAP_SYS_NICE,
	CAP_SYS_RESOURCE,
	CAP_SYS_TIME,
	CAP_SYS_TTY_CONFIG,
	CAP_MKNOD,
	CAP_LEASE,
	CAP_AUDIT_WRITE,
	CAP_AUDIT_CONTROL,
	CAP_SETFCAP,
	CAP_MAC_OVERRIDE,
	CAP_MAC_ADMIN,
	CAP_SYSLOG,
	CAP_WAKE_ALARM,
	CAP_BLOCK_SUSPEND,
	CAP_AUDIT_READ,
	CAP_PERFMON,
	CAP_BPF,
	CAP_CHECKPOINT_RESTORE,
};

// The names are what users see.
enum known_or_not {
	no,
	yes,
	unknown,
};

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	gadget_syscall syscall_raw;
	__u64 userns;
	enum capability cap_raw;
	enum known_or_not audit_raw;
	enum known_or_not insetid_raw;
	bool cap_effective;
	bool capable;
	gadget_kernel_stack kstack_raw;
	struct gadget_user_stack ustack;
};

const volatile bool audit_only = false;
GADGET_PARAM(audit_only);

const volatile bool unique = false;
GADGET_PARAM(unique);

const volatile bool collect_kstack = true;
GADGET_PARAM(collect_kstack);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(capabilities, events, event);

// Bits of the options.
#define CAP_OPT_NOAUDIT 2
#define CAP_OPT_INSETID 4

struct user_namespace {
	struct ns_common ns;
} __attribute__((preserve_access_index));

// The set is two words until Linux 6.2 and one since; its bytes are the same.
typedef struct {
	__u32 cap[2];
} kernel_cap_t;

struct cred___caps {
	kernel_cap_t cap_effective;
} __attribute__((preserve_access_index));

struct question {
	const struct cred *cred;
	const struct user_namespace *userns;
	int cap;
	enum known_or_not audit, insetid;
};

struct task_struct___unique {
	struct task_struct___unique *group_leader;
	__u64 start_boottime;
	// Counts the process's execs.
	__u64 self_exec_id;
} __attribute__((preserve_access_index));

// With --unique, what was shown. The oldest makes room, and may be shown again. Numbers of processes are used again, hence
// the time; and a program that a process turns into (exec) is another one.
struct shown {
	__u64 started;
	__u64 execs;
	__u32 pid;
	int cap;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct shown);
	__type(value, __u8);
} seen SEC(".maps");

static __always_inline bool shown_before(int cap)
{
	struct task_struct___unique *task = (void *)bpf_get_current_task();
	struct shown key = { .pid = bpf_get_current_pid_tgid() >> 32, .cap = cap };
	__u8 one = 1;

	key.started = BPF_CORE_READ(task, group_leader, start_boottime);
	key.execs = BPF_CORE_READ(task, self_exec_id);
	if (bpf_map_lookup_elem(&seen, &key))
		return true;
	// Where memory is short the question is shown twice.
	bpf_map_update_elem(&seen, &key, &one, BPF_ANY);
	return false;
}

static __always_inline bool effective(const struct question *q)
{
	struct cred___caps *cred = (struct cred___caps *)q->cred;
	__u64 caps = 0;

	bpf_probe_read_kernel(&caps, sizeof(caps), &cred->cap_effective);
	return q->cap >= 0 && q->cap < 64 && caps >> q->cap & 1;
}

static __always_inline void with_options(struct question *q, unsigned int opts)
{
	q->audit = opts & CAP_OPT_NOAUDIT ? no : yes;
	q->insetid = opts & CAP_OPT_INSETID ? yes : no;
}

static __always_inline bool unwanted(const struct question *q)
{
	return gadget_should_discard_data_current() || (audit_only && q->audit == no);
}

static __always_inline int answered(void *ctx, const struct question *q, int ret)
{
	const struct user_namespace *userns = q->userns;
	struct event *e;

	if (unique && shown_before(q->cap))
		return 0;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	gadget_process_populate(&e->proc);
	e->syscall_raw = gadget_current_syscall();
	e->userns = BPF_CORE_READ(userns, ns.inum);
	e->cap_raw = q->cap;
	e->audit_raw = q->audit;
	e->insetid_raw = q->insetid;
	e->cap_effective = effective(q);
	e->capable = ret == 0;
	e->kstack_raw = collect_kstack ? gadget_get_kernel_stack(ctx) : GADGET_NO_KERNEL_STACK;
	gadget_get_user_stack(ctx, &e->ustack);
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

SEC("fexit/cap_capable")
int BPF_PROG(ig_capable, const struct cred *cred, struct user_namespace *userns, int cap, unsigned int opts, int ret)
{
	struct question q = { .cred = cred, .userns = userns, .cap = cap };

	with_options(&q, opts);
	return unwanted(&q) ? 0 : answered(ctx, &q, ret);
}

// Questions that wait for their answer, by thread.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, struct question);
} asked SEC(".maps");

SEC("kprobe/cap_capable")
int BPF_KPROBE(ig_capable_begin, const struct cred *cred, struct user_namespace *userns, int cap, unsigned int opts)
{
	struct question q = { .cred = cred, .userns = userns, .cap = cap };
	__u32 tid = bpf_get_current_pid_tgid();

	(void)ctx;
	with_options(&q, opts);
	if (!unwanted(&q))
		gadget_update_or_count(&asked, &tid, &q);
	return 0;
}

SEC("kretprobe/cap_capable")
int BPF_KRETPROBE(ig_capable_end, int ret)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct question *q = bpf_map_lookup_elem(&asked, &tid);

	if (!q)
		return 0;
	answered(ctx, q, ret);
	bpf_map_delete_elem(&asked, &tid);
	return 0;
}

SEC("tp_btf/cap_capable")
int BPF_PROG(ig_capable_traced, const struct cred *cred, struct user_namespace *userns, const struct user_namespace *at, int cap,
	     int ret)
{
	struct question q = { .cred = cred, .userns = userns, .cap = cap, .audit = unknown, .insetid = unknown };

	(void)at;
	return unwanted(&q) ? 0 : answered(ctx, &q, ret);
}

char LICENSE[] SEC("license") = "GPL";
