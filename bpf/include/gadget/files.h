/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/** The way from a file descriptor to its file. Linux 5.5 (BTF). Defines no map. */
#ifndef GADGET_FILES_H
#define GADGET_FILES_H

#include <gadget/kernel.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/** The open file behind a descriptor of `task`, or NULL. */
static __always_inline struct file *gadget_file_of_fd(struct task_struct *task, int fd)
{
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file **table = BPF_CORE_READ(fdt, fd);
	struct file *file = NULL;

	if (fd < 0 || (__u32)fd >= BPF_CORE_READ(fdt, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), &table[fd]);
	return file;
}

#endif
