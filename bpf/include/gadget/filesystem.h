/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Paths of files as their task sees them, and the layers of overlayfs.
 *
 * The kernel's own bpf_d_path is not allowed in tracepoints, so the path is put together by walking from the file
 * towards the root, across mounts. Linux 5.5 (BTF, bounded loops). Include it only where needed: it defines a map.
 */
#ifndef GADGET_FILESYSTEM_H
#define GADGET_FILESYSTEM_H

#include <gadget/files.h>
#include <gadget/heap.h>
#include <gadget/kernel.h>
#include <bpf/bpf_core_read.h>

/** Bytes of a path, its NUL included. A longer one keeps its *end*, and is reported as truncated. */
#define GADGET_PATH_MAX 512
/** Directories and mount points on the way to the root. A deeper path is reported as truncated. */
#define GADGET_PATH_DEPTH 96
#define GADGET_NAME_MAX 255
#define GADGET_OVERLAYFS_MAGIC 0x794c7630

/*
 * Where a path is put together. It grows from the end of its first GADGET_PATH_MAX bytes; the rest lets the verifier see
 * that a name fits. The position is kept here and not in a register: the verifier, which follows every turn of the
 * loop, then finds the same state each time, however the turn went.
 */
struct gadget_path_scratch {
	char buf[GADGET_PATH_MAX + GADGET_NAME_MAX + 1];
	__u32 pos;
};

/* Bits of gadget_path_walk's answer. */
#define GADGET_PATH_CUT (1u << 31)
/* No name at all: a pipe or a socket. */
#define GADGET_PATH_NONE (1u << 30)

/* Where programs can be preempted, memory of the CPU will not do: one may name a function here that gives other. */
#ifndef GADGET_PATH_SCRATCH
GADGET_HEAP(gadget_path_heap, sizeof(struct gadget_path_scratch));
#define GADGET_PATH_SCRATCH() gadget_heap_get(&gadget_path_heap)
#endif

/* overlayfs may be a module, whose types are not in the kernel's own BTF: hence the flavour and the guard below. */
struct ovl_inode___known {
	struct inode vfs_inode;
	struct dentry *__upperdentry;
} __attribute__((preserve_access_index));

/*
 * Walks from a dentry to the root and leaves the path in the scratch memory; returns where it starts, GADGET_PATH_CUT
 * if something is missing, and GADGET_PATH_NONE if there is no path. A global function, with plain numbers for pointers: so the verifier looks at it once and not at
 * every call, which makes a program with three paths load four times as fast.
 */
__attribute__((noinline)) __u32 gadget_path_walk(__u64 vfs_at, __u64 dentry_at, __u64 root_vfs, __u64 root_dentry)
{
	struct gadget_path_scratch *scratch = GADGET_PATH_SCRATCH();
	struct vfsmount *vfs = (struct vfsmount *)vfs_at;
	struct dentry *dentry = (struct dentry *)dentry_at;
	struct mount *mnt = (struct mount *)(vfs_at - bpf_core_field_offset(struct mount, mnt));
	volatile __u32 *at;

	if (!scratch)
		return GADGET_PATH_CUT;
	at = &scratch->pos;
	*at = GADGET_PATH_MAX - 1;
	scratch->buf[GADGET_PATH_MAX - 1] = '\0';
	for (int i = 0; i < GADGET_PATH_DEPTH; i++) {
		struct dentry *parent;
		__u32 len, pos;

		if ((__u64)dentry == root_dentry && (__u64)vfs == root_vfs)
			return *at;
		if (dentry == BPF_CORE_READ(vfs, mnt_root)) {
			struct mount *above = BPF_CORE_READ(mnt, mnt_parent);

			if (above == mnt || !above)
				return *at;
			dentry = BPF_CORE_READ(mnt, mnt_mountpoint);
			mnt = above;
			vfs = &mnt->mnt;
			continue;
		}
		parent = BPF_CORE_READ(dentry, d_parent);
		len = BPF_CORE_READ(dentry, d_name.len);
		/* The top of something that is not mounted: nameless, or a single file such as a memfd. */
		if (parent == dentry && len <= 1)
			return len == 0 && *at == GADGET_PATH_MAX - 1 ? GADGET_PATH_NONE : *at;
		pos = *at;
		if (len > GADGET_NAME_MAX || len >= pos)
			break;
		pos = (pos - len - 1) & (GADGET_PATH_MAX - 1);
		scratch->buf[pos] = '/';
		bpf_probe_read_kernel(&scratch->buf[pos + 1], len & GADGET_NAME_MAX, BPF_CORE_READ(dentry, d_name.name));
		*at = pos;
		if (parent == dentry)
			return *at;
		dentry = parent;
	}
	return *at | GADGET_PATH_CUT;
}

/**
 * The path of (mnt, dentry) seen from `task`'s root directory, into `dst` of GADGET_PATH_MAX bytes.
 * What lies outside that root is shown from the root of its mount tree; of what has no name, a pipe, the path is empty.
 *
 * @param truncated set to true if the path did not fit; never set to false
 * @return bytes written, the NUL included
 */
static __always_inline __u32 gadget_path_read(char *dst, struct vfsmount *mnt, struct dentry *dentry,
					      struct task_struct *task, bool *truncated)
{
	struct gadget_path_scratch *scratch = GADGET_PATH_SCRATCH();
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	__u32 pos;
	long n;

	dst[0] = '\0';
	if (!scratch || !mnt || !dentry)
		return 1;
	pos = gadget_path_walk((__u64)mnt, (__u64)dentry, (__u64)BPF_CORE_READ(fs, root.mnt),
			       (__u64)BPF_CORE_READ(fs, root.dentry));
	if (pos & GADGET_PATH_NONE)
		return 1;
	if (pos & GADGET_PATH_CUT)
		*truncated = true;
	pos &= GADGET_PATH_MAX - 1;
	if (pos == GADGET_PATH_MAX - 1) {
		dst[0] = '/';
		dst[1] = '\0';
		return 2;
	}
	n = bpf_probe_read_kernel_str(dst, GADGET_PATH_MAX, &scratch->buf[pos]);
	return n > 0 ? n : 1;
}

/** As gadget_path_read, for an open file. */
static __always_inline __u32 gadget_file_path(char *dst, struct file *file, struct task_struct *task, bool *truncated)
{
	return gadget_path_read(dst, BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_path.dentry), task,
				truncated);
}

/** As gadget_path_read, for the task's working directory. */
static __always_inline __u32 gadget_cwd(char *dst, struct task_struct *task, bool *truncated)
{
	struct fs_struct *fs = BPF_CORE_READ(task, fs);

	return gadget_path_read(dst, BPF_CORE_READ(fs, pwd.mnt), BPF_CORE_READ(fs, pwd.dentry), task, truncated);
}

/** True if the file lies in the upper, writable layer of an overlay: it was made or changed after the image. */
static __always_inline bool gadget_in_upper_layer(struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct dentry *upper = NULL;
	__u64 behind;

	if (BPF_CORE_READ(inode, i_sb, s_magic) != GADGET_OVERLAYFS_MAGIC)
		return false;
	/* The upper dentry has followed the embedded inode in every kernel so far. */
	behind = bpf_core_type_size(struct inode);
	if (bpf_core_field_exists(struct ovl_inode___known, __upperdentry))
		behind = bpf_core_field_offset(struct ovl_inode___known, __upperdentry) -
			 bpf_core_field_offset(struct ovl_inode___known, vfs_inode);
	bpf_probe_read_kernel(&upper, sizeof(upper), (char *)inode + behind);
	return upper != NULL;
}

#endif
