// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
// A kernel-supplied variable larger than any that exists.
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern char LINUX_KERNEL_VERSION[1 << 20] __kconfig;

SEC("raw_tp/sys_enter")
int reads(void *ctx)
{
	return LINUX_KERNEL_VERSION[1];
}

char LICENSE[] SEC("license") = "GPL";
