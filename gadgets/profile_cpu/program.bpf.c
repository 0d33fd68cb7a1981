// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Counts on which stacks the CPUs are found, 49 times a second on each. */

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/kernel_stack_map.h>
#include <gadget/maps.h>
#include <gadget/user_stack_map.h>
#include <linux/bpf_perf_event.h>

#define MAX_STACKS 32768

struct key_t {
	struct gadget_process proc;
	gadget_kernel_stack kern_stack_raw;
	struct gadget_user_stack user_stack_raw;
};

struct value_t {
	__u64 samples;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_STACKS);
	__type(key, struct key_t);
	__type(value, struct value_t);
} counts SEC(".maps");

GADGET_MAPITER(samples, counts);

const volatile bool kernel_stacks_only = false;
const volatile bool user_stacks_only = false;
const volatile bool include_idle = false;

GADGET_PARAM(kernel_stacks_only);
GADGET_PARAM(user_stacks_only);
GADGET_PARAM(include_idle);

static __always_inline void count(const struct key_t *key)
{
	static const struct value_t one = {.samples = 1};
	struct value_t *value = bpf_map_lookup_elem(&counts, key);

	if (!value) {
		/* another CPU may have been faster: then there is something to add to */
		if (!bpf_map_update_elem(&counts, key, &one, BPF_NOEXIST))
			return;
		value = bpf_map_lookup_elem(&counts, key);
		if (!value) {
			gadget_count(&gadget_map_full);
			return;
		}
	}
	__sync_fetch_and_add(&value->samples, 1);
}

SEC("perf_event/profile_cpu")
int ig_profile_cpu(struct bpf_perf_event_data *ctx)
{
	struct key_t key;

	if (!include_idle && !(__u32)bpf_get_current_pid_tgid())
		return 0;
	if (gadget_should_discard_data_current())
		return 0;
	/* padding is part of a map's key */
	__builtin_memset(&key, 0, sizeof(key));
	gadget_process_populate(&key.proc);
	key.kern_stack_raw = GADGET_NO_KERNEL_STACK;
	/* both together leave nothing out */
	if (!user_stacks_only || kernel_stacks_only)
		key.kern_stack_raw = gadget_get_kernel_stack(ctx);
	if (!kernel_stacks_only || user_stacks_only)
		gadget_get_user_stack(ctx, &key.user_stack_raw);
	count(&key);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
