// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// snapshot_file: the files that processes have open, from the kernel's own tables of descriptors.

#include <gadget/common.h>
#include <gadget/filesystem.h>
#include <gadget/filter.h>
#include <bpf/bpf_tracing.h>

#define S_IFMT 0170000

// In the order of the bits of --type-mask. The names are those of `type`.
enum opened_file_kind { REGULAR, SOCKET, PIPE, BPF_MAP, DIRECTORY, CHAR_DEV, BLOCK_DEV, SYMLINK, OTHER };

// Of the file system of eventfd, epoll, BPF objects and others that are no files, whatever kind their inodes claim to be.
#define ANON_INODE_FS_MAGIC 0x09041934

struct super_block___open {
	unsigned long s_magic;
} __attribute__((preserve_access_index));

struct inode___open {
	__u16 i_mode;
	unsigned long i_ino;
	struct super_block___open *i_sb;
} __attribute__((preserve_access_index));

struct file___open {
	unsigned int f_flags;
} __attribute__((preserve_access_index));

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
} __attribute__((preserve_access_index));

struct file_entry {
	gadget_mntns_id mntns_id;
	gadget_comm comm[TASK_COMM_LEN];
	gadget_pid pid;
	gadget_tid tid;
	gadget_uid uid;
	gadget_gid gid;
	__u32 fd;
	enum opened_file_kind type_raw;
	__u64 inode;
	gadget_file_flags flags_raw;
	bool path_truncated;
	char path[GADGET_PATH_MAX];
};

const volatile bool paths = false;
GADGET_PARAM(paths);

// Regular files and directories.
const volatile __u32 file_type_mask = 1 << REGULAR | 1 << DIRECTORY;
GADGET_PARAM(file_type_mask);

GADGET_ITER(files, file_entry, ig_snapshot_file);
GADGET_HEAP(entry_heap, sizeof(struct file_entry));

static __always_inline bool is_bpf_map(struct file *file)
{
	char name[sizeof("bpf-map")] = {};

	bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(file, f_path.dentry, d_name.name));
	return !__builtin_memcmp(name, "bpf-map", sizeof(name));
}

static __always_inline enum opened_file_kind kind_of(struct file *file, struct inode___open *inode)
{
	if (BPF_CORE_READ(inode, i_sb, s_magic) == ANON_INODE_FS_MAGIC)
		return is_bpf_map(file) ? BPF_MAP : OTHER;
	switch (BPF_CORE_READ(inode, i_mode) & S_IFMT) {
	case 0100000:
		return REGULAR;
	case 0020000:
		return CHAR_DEV;
	case 0060000:
		return BLOCK_DEV;
	case 0010000:
		return PIPE;
	case 0040000:
		return DIRECTORY;
	case 0120000:
		return SYMLINK;
	case 0140000:
		return SOCKET;
	default:
		return OTHER;
	}
}

// Only the last part of the name, without a walk.
static __always_inline void read_name(struct file_entry *e, struct file *file)
{
	const unsigned char *name = BPF_CORE_READ(file, f_path.dentry, d_name.name);

	bpf_probe_read_kernel_str(e->path, GADGET_NAME_MAX + 1, name);
}

SEC("iter/task_file")
int ig_snapshot_file(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct inode___open *inode;
	enum opened_file_kind kind;
	struct file_entry *e;

	if (!task || !file)
		return 0;
	inode = (struct inode___open *)BPF_CORE_READ(file, f_inode);
	kind = kind_of(file, inode);
	if (!(file_type_mask & 1u << kind))
		return 0;
	e = gadget_heap_get(&entry_heap);
	if (!e)
		return 0;
	gadget_zero(e, sizeof(*e));
	e->mntns_id = gadget_get_mntns_id(task);
	e->pid = task->tgid;
	e->tid = task->pid;
	e->uid = BPF_CORE_READ(task, cred, uid.val);
	e->gid = BPF_CORE_READ(task, cred, gid.val);
	bpf_probe_read_kernel(e->comm, sizeof(e->comm), &task->comm);
	if (gadget_should_discard_data(e->mntns_id, e->pid, e->tid, e->comm, e->uid, e->gid))
		return 0;
	e->fd = ctx->fd;
	e->type_raw = kind;
	e->inode = BPF_CORE_READ(inode, i_ino);
	e->flags_raw = BPF_CORE_READ((struct file___open *)file, f_flags);
	if (paths)
		gadget_file_path(e->path, file, task, &e->path_truncated);
	else
		read_name(e, file);
	bpf_seq_write(ctx->meta->seq, e, sizeof(*e));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
