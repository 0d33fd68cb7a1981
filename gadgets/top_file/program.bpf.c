// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// top_file: which threads read and write which files, and how much.
//
// Seen when a call that reads or writes returns: the file is that of the call's descriptor. What is read and written
// through memory mappings makes no call, and is not seen.

#include <gadget/common.h>
#include <gadget/filesystem.h>
#include <gadget/maps.h>
#include <gadget/syscall_hooks.h>

#define MAX_ROWS 10240

#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_IFSOCK 0140000

// Regular files, sockets, others. The names are the letters of `t`.
enum file_letter { R, S, O };

struct super_block___dev {
	__u32 s_dev;
} __attribute__((preserve_access_index));

struct inode___top {
	__u16 i_mode;
	unsigned long i_ino;
	struct super_block___dev *i_sb;
} __attribute__((preserve_access_index));

struct file_key {
	struct gadget_process proc;
	__u64 inode;
	__u32 dev;
	enum file_letter t_raw;
};

struct file_sum {
	// When the last of them returned: tells whose the mount namespace was, whose number may be used again.
	gadget_timestamp timestamp_raw;
	__u64 reads;
	__u64 writes;
	gadget_bytes rbytes_raw;
	gadget_bytes wbytes_raw;
	bool file_truncated;
	char file[GADGET_PATH_MAX];
};

const volatile bool all_files = false;
GADGET_PARAM(all_files);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ROWS);
	__type(key, struct file_key);
	__type(value, struct file_sum);
} sums SEC(".maps");

GADGET_MAPITER(file, sums);
GADGET_HEAP(sum_heap, sizeof(struct file_sum));

// Which arguments of a call are descriptors: of what is read, and of what is written.
enum call {
	CALL_NONE,
	CALL_READ,     // the first is read
	CALL_WRITE,    // the first is written
	CALL_SENDFILE, // the second is read, the first written
	CALL_COPY,     // the first is read, the third written
};

static __always_inline int native_call(int nr)
{
	switch (nr) {
#if defined(__TARGET_ARCH_x86)
	case 0:   // read
	case 17:  // pread64
	case 19:  // readv
	case 295: // preadv
	case 327: // preadv2
	case 515: // readv, preadv, preadv2 of x32
	case 534:
	case 546:
		return CALL_READ;
	case 1:   // write
	case 18:  // pwrite64
	case 20:  // writev
	case 296: // pwritev
	case 328: // pwritev2
	case 516: // writev, pwritev, pwritev2 of x32
	case 535:
	case 547:
		return CALL_WRITE;
	case 40:
		return CALL_SENDFILE;
	case 326:
		return CALL_COPY;
#else
	case 63:  // read
	case 65:  // readv
	case 67:  // pread64
	case 69:  // preadv
	case 286: // preadv2
		return CALL_READ;
	case 64:  // write
	case 66:  // writev
	case 68:  // pwrite64
	case 70:  // pwritev
	case 287: // pwritev2
		return CALL_WRITE;
	case 71:
		return CALL_SENDFILE;
	case 285:
		return CALL_COPY;
#endif
	default:
		return CALL_NONE;
	}
}

static __always_inline int compat_call(int nr)
{
	switch (nr) {
	case 3:   // read
	case 145: // readv
	case 180: // pread64
#if defined(__TARGET_ARCH_x86)
	case 333: // preadv
	case 378: // preadv2
#else
	case 361:
	case 392:
#endif
		return CALL_READ;
	case 4:   // write
	case 146: // writev
	case 181: // pwrite64
#if defined(__TARGET_ARCH_x86)
	case 334: // pwritev
	case 379: // pwritev2
#else
	case 362:
	case 393:
#endif
		return CALL_WRITE;
	case 187: // sendfile
	case 239: // sendfile64
		return CALL_SENDFILE;
#if defined(__TARGET_ARCH_x86)
	case 377:
#else
	case 391:
#endif
		return CALL_COPY;
	default:
		return CALL_NONE;
	}
}

static __always_inline struct file_sum *sum_of(struct file_key *key, struct file *file, struct task_struct *task)
{
	struct file_sum *sum = bpf_map_lookup_elem(&sums, key), *fresh;

	if (sum)
		return sum;
	fresh = gadget_heap_get(&sum_heap);
	if (!fresh)
		return NULL;
	gadget_zero(fresh, sizeof(*fresh));
	gadget_file_path(fresh->file, file, task, &fresh->file_truncated);
	return gadget_lookup_or_insert(&sums, key, fresh);
}

static __noinline int seen(__s32 fd, __u64 bytes, bool written)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct file *file = gadget_file_of_fd(task, fd);
	struct inode___top *inode = (struct inode___top *)BPF_CORE_READ(file, f_inode);
	__u16 kind = BPF_CORE_READ(inode, i_mode) & S_IFMT;
	struct file_key key;
	struct file_sum *sum;

	if (!file || (kind != S_IFREG && !all_files))
		return 0;
	__builtin_memset(&key, 0, sizeof(key));
	gadget_process_populate(&key.proc);
	key.inode = BPF_CORE_READ(inode, i_ino);
	key.dev = BPF_CORE_READ(inode, i_sb, s_dev);
	key.t_raw = kind == S_IFREG ? R : kind == S_IFSOCK ? S : O;
	sum = sum_of(&key, file, task);
	if (!sum)
		return 0;
	sum->timestamp_raw = bpf_ktime_get_boot_ns();
	if (written) {
		__sync_fetch_and_add(&sum->writes, 1);
		__sync_fetch_and_add(&sum->wbytes_raw, bytes);
	} else {
		__sync_fetch_and_add(&sum->reads, 1);
		__sync_fetch_and_add(&sum->rbytes_raw, bytes);
	}
	return 0;
}

static __always_inline int call_ended(void *ctx, void *regs, int call, bool compat, long ret)
{
	struct gadget_syscall_args args;

	if (ret < 0)
		return 0;
	gadget_syscall_args(&args, regs, compat);
	if (call == CALL_WRITE)
		return seen(args.a[0], ret, true);
	seen(call == CALL_SENDFILE ? args.a[1] : args.a[0], ret, false);
	if (call == CALL_SENDFILE)
		seen(args.a[0], ret, true);
	else if (call == CALL_COPY)
		seen(args.a[2], ret, true);
	return 0;
}

GADGET_SYSCALL_EXIT(ig_topfile_exit, native_call, compat_call, call_ended)

char LICENSE[] SEC("license") = "GPL";
