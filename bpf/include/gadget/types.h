/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Types whose *name* tells the host how to show a value.
 *
 * A field `x_raw` of such a type gets a sibling `x` with the readable form. Kernel memory layout is that of the base
 * type. None of these needs anything from the kernel.
 */
#ifndef GADGET_TYPES_H
#define GADGET_TYPES_H

#include <gadget/kernel.h>

/** Nanoseconds of the boot clock (bpf_ktime_get_boot_ns); shown as wall-clock time. */
typedef __u64 gadget_timestamp;
/** Inode number of a mount namespace; links a row to its container. */
typedef __u64 gadget_mntns_id;
/** Inode number of a network namespace; links a row to its container. */
typedef __u32 gadget_netns_id;
/** A positive errno; 0 = no error. */
typedef __u32 gadget_errno;
/** A signal number. */
typedef __u32 gadget_signal;
/** A system call number of the machine's native ABI. */
typedef __u64 gadget_syscall;
/** A user id of the initial user namespace. */
typedef __u32 gadget_uid;
/** A group id of the initial user namespace. */
typedef __u32 gadget_gid;
/** Ids of the host's pid namespace: process (tgid), thread, parent process, its thread. */
typedef __u32 gadget_pid;
typedef __u32 gadget_tid;
typedef __u32 gadget_ppid;
typedef __u32 gadget_ptid;
/** Element of a NUL-terminated array of 16: the name of a thread, of its parent. */
typedef char gadget_comm;
typedef char gadget_pcomm;
/** Mode bits of a file. */
typedef __u16 gadget_file_mode;
/** Flags of open(2). */
typedef __u32 gadget_file_flags;
/** A number of bytes. */
typedef __u64 gadget_bytes;
/** Nanoseconds. */
typedef __u64 gadget_duration;
/**
 * Elements of an array that is a histogram over powers of two: slot 0 counts the values 0 and 1, slot n those from 2^n
 * to 2^(n+1) - 1. The field's annotation `metrics.unit` in gadget.yaml names the unit of the values.
 */
typedef __u32 gadget_histogram_slot__u32;
typedef __u64 gadget_histogram_slot__u64;
/** A stack of the kernel: an id in the map `ig_kstack` (gadget/kernel_stack_map.h). */
typedef __u32 gadget_kernel_stack;

/** A stack of a process: filled by gadget_get_user_stack (gadget/user_stack_map.h). All zero: none was taken. */
struct gadget_user_stack {
	/* Which program it is, so that the host does not take another process with the same number for it. */
	__u64 exe_inode;
	__u64 mtime_sec;
	__u32 mtime_nsec;
	/* An id in the map `ig_ustack`. */
	__u32 stack_id;
	/* The process, in the first pid namespace and in the one below it. */
	__u32 pid_level0;
	__u32 pidns_level0;
	__u32 pid_level1;
	__u32 pidns_level1;
};

/** An IPv4 (first four bytes) or IPv6 address in network byte order. */
union gadget_ip_addr_t {
	__u8 v6[16];
	__u32 v4;
};

/** An address without a port. `version` is 4 or 6. */
struct gadget_l3endpoint_t {
	union gadget_ip_addr_t addr_raw;
	__u8 version;
};

/** An address with a port (host byte order) and an IP protocol number (IPPROTO_TCP…). `version` is 4 or 6. */
struct gadget_l4endpoint_t {
	union gadget_ip_addr_t addr_raw;
	__u16 port;
	__u16 proto_raw;
	__u8 version;
};

#ifndef TASK_COMM_LEN
#define TASK_COMM_LEN 16
#endif

/** Real ids of a process. */
struct gadget_creds {
	gadget_uid uid;
	gadget_gid gid;
};

/** The process that would be told of the exit. */
struct gadget_parent {
	gadget_pcomm comm[TASK_COMM_LEN];
	gadget_ppid pid;
	gadget_ptid tid;
};

/** Who did it: filled by gadget_process_populate (gadget/process.h). */
struct gadget_process {
	gadget_comm comm[TASK_COMM_LEN];
	gadget_pid pid;
	gadget_tid tid;
	gadget_mntns_id mntns_id;
	struct gadget_creds creds;
	struct gadget_parent parent;
};

#endif
