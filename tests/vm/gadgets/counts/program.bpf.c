// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// A table that is a map: how often getpgid was called with which argument.

#include <gadget/maps.h>
#include <gadget/types.h>

struct key {
	__s32 argument;
};

struct value {
	__u64 calls;
};

const volatile gadget_pid targ_pid = 0;
GADGET_PARAM(targ_pid);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct key);
	__type(value, struct value);
} table SEC(".maps");

GADGET_MAPITER(counts, table);

SEC("tracepoint/syscalls/sys_enter_getpgid")
int on_getpgid(struct trace_event_raw_sys_enter *ctx)
{
	struct key key = {.argument = ctx->args[0]};
	struct value one = {.calls = 1};
	struct value *value;

	if (bpf_get_current_pid_tgid() >> 32 != targ_pid)
		return 0;
	value = bpf_map_lookup_elem(&table, &key);
	if (value)
		__sync_fetch_and_add(&value->calls, 1);
	else
		gadget_update_or_count(&table, &key, &one);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
