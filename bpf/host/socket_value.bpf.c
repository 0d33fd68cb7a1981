// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * The value of the map `gadget_sockets` as a type, and nothing else: published gadgets find its members by name (CO-RE),
 * as they find those of the kernel's types. The program is there because an object must have one, and never loaded. What they may ask for beside these members (cwd, exepath)
 * this host does not have, and they check for it.
 */
#include <linux/types.h>

struct gadget_socket_value {
	__u64 mntns;
	__u64 pid_tgid;
	__u64 uid_gid;
	char task[16];
	char ptask[16];
	__u64 sock;
	__u64 deletion_timestamp;
	__u32 ppid;
	__u32 ptid;
	char ipv6only;
	__u16 peer_port;
	__u32 addr[4];
};

const struct gadget_socket_value gadget_socket_value_layout __attribute__((used)) = {};
__attribute__((section("socket"), used)) int ig_socket_value(void *ctx)
{
	return 0;
}

char LICENSE[] __attribute__((section("license"), used)) = "GPL";
