// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
// What plays the kernel for core_local.bpf.c.
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct thing {
	long a;
	char name[32];
	long b;
	unsigned pad : 5;
	unsigned flag : 4;
	struct {
		int deep;
		union {
			int other;
			long moved;
		};
	};
	unsigned char wide;
	unsigned char narrow;
} thing;
struct tail {
	long n;
	int data[];
} tail;
struct twin___a {
	int x;
} twin_a;
struct twin___b {
	int y;
	int x;
} twin_b;
struct same___a {
	int x;
} same_a;
struct same___b {
	int x;
	int y;
} same_b;
struct absent;
struct match_me {
	long before;
	struct absent *p;
	int x;
} match_me;
struct match_not {
	int x;
} match_not;
enum color { RED = 77, GREEN = 78 } color;
enum big : unsigned long long { HUGE_VALUE = 1ULL << 41 } big;

SEC("raw_tp/none")
int none(void *ctx)
{
	return thing.a + tail.n + twin_a.x + twin_b.x + same_a.x + same_b.x + match_me.x + match_not.x + color + (int)big;
}

char LICENSE[] SEC("license") = "GPL";
