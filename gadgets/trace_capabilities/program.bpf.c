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
#define CAPABILITIES(X)                                                                                                \
	X(CAP_CHOWN)                                                                                                   \
	X(CAP_DAC_OVERRIDE)                                                                                            \
	X(CAP_DAC_READ_SEARCH)                                                                                         \
	X(CAP_FOWNER)                                                                                                  \
	X(CAP_FSETID)                                                                                                  \
	X(CAP_KILL)                                                                                                    \
	X(CAP_SETGID)                                                                                                  \
	X(CAP_SETUID)                                                                                                  \
	X(CAP_SETPCAP)                                                                                                 \
	X(CAP_LINUX_IMMUTABLE)                                                                                         \
	X(CAP_NET_BIND_SERVICE)                                                                                        \
	X(CAP_NET_BROADCAST)                                                                                           \
	X(CAP_NET_ADMIN)                                                                                               \
	X(CAP_NET_RAW)                                                                                                 \
	X(CAP_IPC_LOCK)                                                                                                \
	X(CAP_IPC_OWNER)                                                                                               \
	X(CAP_SYS_MODULE)                                                                                              \
	X(CAP_SYS_RAWIO)                                                                                               \
	X(CAP_SYS_CHROOT)                                                                                              \
	X(CAP_SYS_PTRACE)                                                                                              \
	X(CAP_SYS_PACCT)                                                                                               \
	X(CAP_SYS_ADMIN)                                                                                               \
	X(CAP_SYS_BOOT)                                                                                                \
	X(CAP_SYS_NICE)                                                                                                \
	X(CAP_SYS_RESOURCE)                                                                                            \
	X(CAP_SYS_TIME)                                                                                                \
	X(CAP_SYS_TTY_CONFIG)                                                                                          \
	X(CAP_MKNOD)                                                                                                   \
	X(CAP_LEASE)                                                                                                   \
	X(CAP_AUDIT_WRITE)                                                                                             \
	X(CAP_AUDIT_CONTROL)                                                                                           \
	X(CAP_SETFCAP)                                                                                                 \
	X(CAP_MAC_OVERRIDE)                                                                                            \
	X(CAP_MAC_ADMIN)                                                                                               \
	X(CAP_SYSLOG)                                                                                                  \
	X(CAP_WAKE_ALARM)                                                                                              \
	X(CAP_BLOCK_SUSPEND)                                                                                           \
	X(CAP_AUDIT_READ)                                                                                              \
	X(CAP_PERFMON)                                                                                                 \
	X(CAP_BPF)                                                                                                     \
	X(CAP_CHECKPOINT_RESTORE)

#define NUMBER(cap) cap,
enum capability { CAPABILITIES(NUMBER) };

// As bits of a set; the names are what users see. No typedef for the type: clang would cut the numbers to 32 bits.
#define BIT_OF(cap) FLAG_##cap = 1ull << cap,
enum cap_effective_flags_set : unsigned long long { CAPABILITIES(BIT_OF) };

// Of `audit` and `insetid`, which only some hooks can tell.
#define UNKNOWN -1

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	gadget_syscall syscall_raw;
	// Inode numbers: the namespace of the process, and the one that the capability must hold in.
	__u64 current_userns;
	__u64 target_userns;
	enum cap_effective_flags_set cap_effective_raw;
	enum capability cap_raw;
	int audit;
	int insetid;
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
	struct user_namespace *user_ns;
} __attribute__((preserve_access_index));

struct question {
	const struct cred *cred;
	const struct user_namespace *userns;
	int cap;
	int audit, insetid;
};

// With --unique, what was shown. The oldest makes room, and may be shown again.
struct shown {
	__u64 mntns_id;
	// Numbers of namespaces are used again; see gadget_get_mntns_generation.
	__u64 generation;
	__u64 cap;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct shown);
	__type(value, __u8);
} seen SEC(".maps");

static __always_inline bool shown_before(int cap)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct shown key = {
		.mntns_id = gadget_get_mntns_id(task),
		.generation = gadget_get_mntns_generation(task),
		.cap = cap,
	};
	__u8 one = 1;

	if (bpf_map_lookup_elem(&seen, &key))
		return true;
	// Where memory is short the question is shown twice.
	bpf_map_update_elem(&seen, &key, &one, BPF_ANY);
	return false;
}

static __always_inline void read_cred(struct event *e, const struct cred *subject)
{
	struct cred___caps *cred = (struct cred___caps *)subject;
	__u64 caps = 0;

	bpf_probe_read_kernel(&caps, sizeof(caps), &cred->cap_effective);
	e->cap_effective_raw = caps;
	e->current_userns = BPF_CORE_READ(cred, user_ns, ns.inum);
}

static __always_inline void with_options(struct question *q, unsigned int opts)
{
	q->audit = !(opts & CAP_OPT_NOAUDIT);
	q->insetid = !!(opts & CAP_OPT_INSETID);
}

static __always_inline bool unwanted(const struct question *q)
{
	return gadget_should_discard_data_current() || (audit_only && !q->audit);
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
	e->target_userns = BPF_CORE_READ(userns, ns.inum);
	e->cap_raw = q->cap;
	e->audit = q->audit;
	e->insetid = q->insetid;
	read_cred(e, q->cred);
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
	struct question q = { .cred = cred, .userns = userns, .cap = cap, .audit = UNKNOWN, .insetid = UNKNOWN };

	(void)at;
	return unwanted(&q) ? 0 : answered(ctx, &q, ret);
}

char LICENSE[] SEC("license") = "GPL";
