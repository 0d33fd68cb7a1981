// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
// A row with a member of every kind, and a parameter of every kind.
#include <gadget/types.h>
#include <gadget/macros.h>
#include <bpf/bpf_helpers.h>

enum color { RED = 1, GREEN = 2, BLUE = -3 };
enum access_set { CAN_READ = 1, CAN_WRITE = 2, CAN_RUN = 4 };

struct inner {
	__u16 a;
	struct {
		__u8 b;
		__u8 __hide_me;
	};
	struct {
		__s64 deep;
	} lower;
};

struct everything {
	gadget_timestamp timestamp_raw;
	gadget_timestamp other_time;
	struct gadget_process proc;
	__u8 u8;
	__s8 s8;
	__u16 u16;
	__s16 s16;
	__u32 u32;
	__s32 s32;
	__u64 u64;
	__s64 s64;
	float f32;
	double f64;
	bool yes;
	char letter;
	char text[12];
	__u8 bytes[6];
	__u32 words[3];
	unsigned bits : 3;
	void *pointer;
	__u8 __invisible;
	struct inner inner;
	enum color color;
	enum color shade_raw;
	enum access_set access_raw;
	gadget_errno error_raw;
	gadget_signal sig_raw;
	gadget_syscall syscall_raw;
	gadget_uid uid;
	gadget_gid gid_raw;
	gadget_uid euid;
	gadget_file_mode mode_raw;
	gadget_file_flags flags_raw;
	gadget_bytes size_raw;
	gadget_duration took_raw;
	gadget_mntns_id mntns;
	struct gadget_l3endpoint_t host;
	struct gadget_l4endpoint_t src;
};

struct map_key {
	gadget_pid pid;
	gadget_comm comm[TASK_COMM_LEN];
};
struct map_value {
	__u64 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 100);
	__type(key, struct map_key);
	__type(value, struct map_value);
} counts SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__array(values, int());
} jumps SEC(".maps");

GADGET_TRACER(all, events, everything);
GADGET_MAPITER(counts, counts);

const volatile bool flag = true;
GADGET_PARAM(flag);
const volatile __s8 tiny = -5;
GADGET_PARAM(tiny);
const volatile __u16 small = 500;
GADGET_PARAM(small);
const volatile __s32 targ_pid = -1;
GADGET_PARAM(targ_pid);
const volatile __u64 large = 18446744073709551615ULL;
GADGET_PARAM(large);
const volatile double ratio = 0.5;
GADGET_PARAM(ratio);
const volatile char text[8] = "abc";
GADGET_PARAM(text);
const volatile struct gadget_l3endpoint_t peer = {};
GADGET_PARAM(peer);

SEC("tracepoint/syscalls/sys_enter_getpgid")
int uses_all(void *ctx)
{
	struct everything *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	struct map_key key = {};

	if (!e)
		return 0;
	e->yes = flag;
	e->s8 = tiny + small + targ_pid + large + text[1] + peer.version;
	e->color = RED;
	e->access_raw = CAN_READ;
	bpf_map_lookup_elem(&counts, &key);
	bpf_ringbuf_submit(e, 0);
	bpf_tail_call(ctx, &jumps, 0);
	return *(const volatile __u64 *)&ratio != 0;
}

char LICENSE[] SEC("license") = "GPL";
