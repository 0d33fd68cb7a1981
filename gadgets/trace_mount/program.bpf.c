// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_mount: file systems that are mounted and unmounted, with mount and umount and with the calls that Linux 5.2 brought
// (fsopen … move_mount, open_tree, mount_setattr).
//
// Everything is read when a call returns. Only the time it began has to be remembered, for `delta`. The Wasm half puts the
// texts `flags` and `call` together.

#include <gadget/common.h>
#include <gadget/filesystem.h>
#include <gadget/filter.h>
#include <gadget/maps.h>
#include <gadget/syscall_hooks.h>

#define TEXT_ROOM 512
#define DATA_ROOM 1024
#define NAME_ROOM 64
// Of an option of fsconfig; the kernel takes no longer one.
#define KEY_ROOM 256

// The names are what users see.
enum mount_op {
	NONE,
	MOUNT,
	UMOUNT,
	FSOPEN,
	FSPICK,
	FSCONFIG,
	FSMOUNT,
	MOVE_MOUNT,
	OPEN_TREE,
	MOUNT_SETATTR,
};

// The oldest umount of 32-bit programs, which has no flags. Shown as UMOUNT.
#define OLD_UMOUNT 32

// Of linux/mount.h.
enum fsconfig_command {
	FSCONFIG_SET_FLAG = 0,
	FSCONFIG_SET_STRING = 1,
	FSCONFIG_SET_BINARY = 2,
	FSCONFIG_SET_PATH = 3,
	FSCONFIG_SET_PATH_EMPTY = 4,
	FSCONFIG_SET_FD = 5,
	FSCONFIG_CMD_CREATE = 6,
	FSCONFIG_CMD_RECONFIGURE = 7,
	FSCONFIG_CMD_CREATE_EXCL = 8,
};

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	enum mount_op op_raw;
	gadget_errno error_raw;
	gadget_duration delta_raw;
	__u64 flags_raw;
	// FSMOUNT: attributes. MOUNT_SETATTR: attributes that are set and cleared, and propagation.
	__u64 attr_set;
	__u64 attr_clr;
	__u64 propagation;
	__s32 cmd_raw;
	__s32 fd;
	__s32 dfd;
	__s32 from_dfd;
	bool src_truncated;
	bool dest_truncated;
	bool data_truncated;
	bool fs_truncated;
	bool key_truncated;
	char fs[NAME_ROOM];
	char key[KEY_ROOM];
	char src[TEXT_ROOM];
	char dest[TEXT_ROOM];
	char data[DATA_ROOM];
};

const volatile bool failed = false;
GADGET_PARAM(failed);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(mount, events, event);
GADGET_HEAP(event_heap, sizeof(struct event));

// When the calls that are under way began, by thread. Each is taken out when its call ends.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} began SEC(".maps");

static __always_inline int new_api(int nr)
{
	switch (nr) {
	case 428:
	case 467: // open_tree_attr
		return OPEN_TREE;
	case 429:
		return MOVE_MOUNT;
	case 430:
		return FSOPEN;
	case 431:
		return FSCONFIG;
	case 432:
		return FSMOUNT;
	case 433:
		return FSPICK;
	case 442:
		return MOUNT_SETATTR;
	default:
		return NONE;
	}
}

static __always_inline int native_call(int nr)
{
	switch (nr) {
#if defined(__TARGET_ARCH_x86)
	case 165:
		return MOUNT;
	case 166:
		return UMOUNT;
#else
	case 40:
		return MOUNT;
	case 39:
		return UMOUNT;
#endif
	default:
		return new_api(nr);
	}
}

static __always_inline int compat_call(int nr)
{
	switch (nr) {
	case 21:
		return MOUNT;
	case 22:
		return OLD_UMOUNT;
	case 52:
		return UMOUNT;
	default:
		return new_api(nr);
	}
}

static __always_inline int call_began(void *ctx, void *regs, int call, bool compat, long nr)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 now = bpf_ktime_get_ns();

	gadget_update_or_count(&began, &tid, &now);
	return 0;
}

GADGET_SYSCALL_ENTER(ig_mount_begin, native_call, compat_call, call_began)

static __always_inline __u64 duration(void)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 *start = bpf_map_lookup_elem(&began, &tid);
	__u64 delta;

	// Not there: the call began before the gadget did, or was refused before it began (seccomp).
	if (!start)
		return 0;
	delta = bpf_ktime_get_ns() - *start;
	bpf_map_delete_elem(&began, &tid);
	return delta;
}

struct file_system_type___name {
	const char *name;
} __attribute__((preserve_access_index));

struct fs_context___type {
	struct file_system_type___name *fs_type;
} __attribute__((preserve_access_index));

struct file___context {
	struct fs_context___type *private_data;
} __attribute__((preserve_access_index));

struct super_block___type {
	struct file_system_type___name *s_type;
} __attribute__((preserve_access_index));

struct vfsmount___sb {
	struct super_block___type *mnt_sb;
} __attribute__((preserve_access_index));

struct mount___device {
	const char *mnt_devname;
} __attribute__((preserve_access_index));

// As gadget_read_text, of the kernel's memory.
static __always_inline void read_kernel_text(char *dst, __u32 size, const char *src, bool *truncated)
{
	char next = 0;

	if (bpf_probe_read_kernel_str(dst, size, src) < (long)size)
		return;
	bpf_probe_read_kernel(&next, 1, src + size - 1);
	if (next)
		*truncated = true;
}

static __always_inline void file_system_name(struct event *e, struct file_system_type___name *type)
{
	read_kernel_text(e->fs, NAME_ROOM, BPF_CORE_READ(type, name), &e->fs_truncated);
}

// The file system that fsopen or fspick made a context for. Only a file of theirs has one in its private data.
static __always_inline void context_of(struct event *e, int fd)
{
	struct file *file = gadget_file_of_fd((struct task_struct *)bpf_get_current_task(), fd);
	struct file___context *context = (struct file___context *)file;
	char kind[12] = {};

	if (!file)
		return;
	bpf_probe_read_kernel_str(kind, sizeof(kind), BPF_CORE_READ(file, f_path.dentry, d_name.name));
	if (__builtin_memcmp(kind, "[fscontext]", sizeof(kind)) == 0)
		file_system_name(e, BPF_CORE_READ(context, private_data, fs_type));
}

// File system and device of a mount that is held by a descriptor and not named by a path.
static __always_inline void mount_of(struct event *e, int fd)
{
	struct file *file = gadget_file_of_fd((struct task_struct *)bpf_get_current_task(), fd);
	struct vfsmount___sb *sb;
	struct mount___device *device;
	struct vfsmount *vfs;

	if (!file)
		return;
	vfs = BPF_CORE_READ(file, f_path.mnt);
	sb = (struct vfsmount___sb *)vfs;
	device = (struct mount___device *)((__u64)vfs - bpf_core_field_offset(struct mount, mnt));
	file_system_name(e, BPF_CORE_READ(sb, mnt_sb, s_type));
	read_kernel_text(e->src, TEXT_ROOM, BPF_CORE_READ(device, mnt_devname), &e->src_truncated);
}

static __always_inline void read_config(struct event *e, const struct gadget_syscall_args *args)
{
	e->fd = args->a[0];
	e->cmd_raw = args->a[1];
	context_of(e, e->fd);
	gadget_read_text(e->key, KEY_ROOM, (void *)args->a[2], &e->key_truncated);
	switch (e->cmd_raw) {
	case FSCONFIG_SET_STRING:
	case FSCONFIG_SET_PATH:
	case FSCONFIG_SET_PATH_EMPTY:
		gadget_read_text(e->data, DATA_ROOM, (void *)args->a[3], &e->data_truncated);
		break;
	default:
		// A flag and a command have no value, and binary data no text.
		break;
	}
	if (__builtin_memcmp(e->key, "source", sizeof("source")) == 0)
		read_kernel_text(e->src, TEXT_ROOM, e->data, &e->src_truncated);
}

struct mount_attributes {
	__u64 attr_set, attr_clr, propagation;
};

static __always_inline void read_attributes(struct event *e, __u64 at)
{
	struct mount_attributes attr = {};

	bpf_probe_read_user(&attr, sizeof(attr), (void *)at);
	e->attr_set = attr.attr_set;
	e->attr_clr = attr.attr_clr;
	e->propagation = attr.propagation;
}

static __always_inline void read_request(struct event *e, void *regs, int call, bool compat, long ret)
{
	struct gadget_syscall_args args;

	gadget_syscall_args(&args, regs, compat);
	switch (e->op_raw) {
	case MOUNT:
		gadget_read_text(e->src, TEXT_ROOM, (void *)args.a[0], &e->src_truncated);
		gadget_read_text(e->dest, TEXT_ROOM, (void *)args.a[1], &e->dest_truncated);
		gadget_read_text(e->fs, NAME_ROOM, (void *)args.a[2], &e->fs_truncated);
		e->flags_raw = args.a[3];
		gadget_read_text(e->data, DATA_ROOM, (void *)gadget_syscall_arg5(regs, compat), &e->data_truncated);
		break;
	case UMOUNT:
		gadget_read_text(e->dest, TEXT_ROOM, (void *)args.a[0], &e->dest_truncated);
		e->flags_raw = call == OLD_UMOUNT ? 0 : args.a[1];
		break;
	case FSOPEN:
		gadget_read_text(e->fs, NAME_ROOM, (void *)args.a[0], &e->fs_truncated);
		e->flags_raw = args.a[1];
		e->fd = ret < 0 ? -1 : ret;
		break;
	case FSPICK:
		e->dfd = args.a[0];
		gadget_read_text(e->dest, TEXT_ROOM, (void *)args.a[1], &e->dest_truncated);
		e->flags_raw = args.a[2];
		e->fd = ret < 0 ? -1 : ret;
		if (ret >= 0)
			context_of(e, ret);
		break;
	case FSCONFIG:
		read_config(e, &args);
		break;
	case FSMOUNT:
		e->from_dfd = args.a[0];
		e->flags_raw = args.a[1];
		e->attr_set = args.a[2];
		e->fd = ret < 0 ? -1 : ret;
		context_of(e, e->from_dfd);
		break;
	case MOVE_MOUNT:
		e->from_dfd = args.a[0];
		e->dfd = args.a[2];
		gadget_read_text(e->dest, TEXT_ROOM, (void *)args.a[3], &e->dest_truncated);
		e->flags_raw = gadget_syscall_arg5(regs, compat);
		gadget_read_text(e->src, TEXT_ROOM, (void *)args.a[1], &e->src_truncated);
		if (!e->src[0])
			mount_of(e, e->from_dfd);
		break;
	case OPEN_TREE:
		e->dfd = args.a[0];
		gadget_read_text(e->src, TEXT_ROOM, (void *)args.a[1], &e->src_truncated);
		e->flags_raw = args.a[2];
		e->fd = ret < 0 ? -1 : ret;
		break;
	case MOUNT_SETATTR:
		e->dfd = args.a[0];
		gadget_read_text(e->dest, TEXT_ROOM, (void *)args.a[1], &e->dest_truncated);
		e->flags_raw = args.a[2];
		read_attributes(e, args.a[3]);
		break;
	default:
		break;
	}
}

static __noinline int call_ended(void *ctx, void *regs, int call, bool compat, long ret)
{
	__u64 delta = duration();
	struct event *e;

	if (failed && ret >= 0)
		return 0;
	e = gadget_heap_get(&event_heap);
	if (!e)
		return 0;
	gadget_zero(e, sizeof(*e));
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	gadget_process_populate(&e->proc);
	e->op_raw = call == OLD_UMOUNT ? UMOUNT : call;
	e->error_raw = ret < 0 ? -ret : 0;
	e->delta_raw = delta;
	e->cmd_raw = -1;
	e->fd = -1;
	e->dfd = -1;
	e->from_dfd = -1;
	read_request(e, regs, call, compat, ret);
	gadget_output_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

GADGET_SYSCALL_EXIT(ig_mount_end, native_call, compat_call, call_ended)

char LICENSE[] SEC("license") = "GPL";
