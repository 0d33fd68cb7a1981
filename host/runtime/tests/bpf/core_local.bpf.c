// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
// Relocations against the types of core_target.bpf.c, which differ on purpose.
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define PAI __attribute__((preserve_access_index))

struct thing {
	int gone;
	long moved;
	char name[8];
	unsigned flag : 3;
	int wide;
	unsigned narrow;
} PAI;
struct thing___flavour {
	long b;
} PAI;
struct tail {
	int n;
	int data[0];
} PAI;
struct twin {
	int x;
} PAI;
struct same {
	int x;
} PAI;
struct absent {
	int a;
} PAI;
struct match_me {
	int x;
	struct absent *p;
} PAI;
struct match_not {
	long x;
} PAI;
enum color { RED = 1, PURPLE = 9 };
enum big : unsigned long long { HUGE_VALUE = 1ULL << 40 };

SEC("raw_tp/all")
long all(void *ctx)
{
	struct thing *t = (void *)ctx;
	struct tail *tail = (void *)ctx;
	long n = 0;

	n += bpf_core_field_offset(t->moved);
	n += bpf_core_field_exists(t->gone);
	n += bpf_core_field_exists(t->moved);
	n += bpf_core_field_size(t->name);
	n += bpf_core_field_offset(t->name[3]);
	n += __builtin_preserve_field_info(t->wide, BPF_FIELD_SIGNED);
	n += __builtin_preserve_field_info(t->flag, BPF_FIELD_LSHIFT_U64);
	n += __builtin_preserve_field_info(t->flag, BPF_FIELD_RSHIFT_U64);
	n += __builtin_preserve_field_info(t->flag, BPF_FIELD_BYTE_OFFSET);
	n += __builtin_preserve_field_info(t->flag, BPF_FIELD_BYTE_SIZE);
	n += bpf_core_field_offset(((struct thing___flavour *)ctx)->b);
	n += bpf_core_field_offset(tail->data[5]);
	n += bpf_core_field_offset(((struct same *)ctx)->x);
	n += bpf_core_type_exists(struct absent);
	n += bpf_core_type_size(struct thing);
	n += bpf_core_type_matches(struct match_me);
	n += bpf_core_type_matches(struct match_not);
	n += bpf_core_type_id_kernel(struct tail);
	n += bpf_core_type_id_local(struct absent);
	n += bpf_core_enum_value_exists(enum color, PURPLE);
	n += bpf_core_enum_value(enum color, RED);
	n += bpf_core_enum_value(enum big, HUGE_VALUE);
	return n;
}

SEC("raw_tp/poison")
long poison(void *ctx)
{
	return bpf_core_field_offset(((struct absent *)ctx)->a);
}

SEC("raw_tp/ambiguous")
long ambiguous(void *ctx)
{
	return bpf_core_field_offset(((struct twin *)ctx)->x);
}

SEC("raw_tp/load")
long load(struct thing *t)
{
	return t->narrow;
}

char LICENSE[] SEC("license") = "GPL";
