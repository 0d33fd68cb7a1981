/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The half of sockets_paths.bpf.c that sockets.bpf.c has not: the paths of a socket's process, in the map
 * `gadget_socket_paths` (gadget/socket_paths.h).
 *
 * A path is put together in memory of the task that is at work. Memory of a CPU, which tracing programs use, will not do:
 * programs on control groups can be preempted, and another would go on in the middle of the first one's path.
 */
#ifndef SOCKET_PATHS_H
#define SOCKET_PATHS_H

struct gadget_path_scratch;
static __always_inline struct gadget_path_scratch *path_scratch(void);
#define GADGET_PATH_SCRATCH() path_scratch()
#include <gadget/filesystem.h>
#include <gadget/socket_paths.h>

_Static_assert(GADGET_SOCKET_PATH_MAX == GADGET_PATH_MAX, "a path must fit");

/* By the address of the task. No more are at work than there are CPUs, and those that were preempted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct gadget_path_scratch);
} paths_at_work SEC(".maps");

/* What entries begin with: too large for the stack. */
static const struct gadget_path_scratch no_scratch = {};
static const struct gadget_socket_paths no_paths = {};

static __always_inline struct gadget_path_scratch *path_scratch(void)
{
	__u64 me = bpf_get_current_task();

	return bpf_map_lookup_elem(&paths_at_work, &me);
}

/* False where there was no room. */
static __always_inline bool enter_paths(__u64 id, struct task_struct *task)
{
	__u64 me = bpf_get_current_task();
	struct gadget_socket_paths *p;
	struct file *exe = BPF_CORE_READ(task, mm, exe_file);
	bool cut = false;

	if (bpf_map_update_elem(&gadget_socket_paths, &id, &no_paths, BPF_ANY))
		return false;
	p = bpf_map_lookup_elem(&gadget_socket_paths, &id);
	if (!p || bpf_map_update_elem(&paths_at_work, &me, &no_scratch, BPF_ANY))
		return false;
	gadget_cwd(p->cwd, task, &cut);
	if (cut)
		p->cut |= GADGET_SOCKET_CWD_CUT;
	cut = false;
	if (exe)
		gadget_file_path(p->exepath, exe, task, &cut);
	if (cut)
		p->cut |= GADGET_SOCKET_EXEPATH_CUT;
	bpf_map_delete_elem(&paths_at_work, &me);
	return true;
}

static __always_inline void remove_paths(__u64 id)
{
	bpf_map_delete_elem(&gadget_socket_paths, &id);
}

#endif
