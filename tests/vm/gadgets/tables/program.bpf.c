// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// One iterator of each kind: tasks, their open files, TCP and UDP sockets. The four tables have one struct, so that a
// row says which it belongs to.

#include <gadget/kernel.h>
#include <gadget/macros.h>
#include <gadget/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

struct sock_common {
	__u16 skc_num;
	volatile unsigned char skc_state;
};

struct sock {
	struct sock_common __sk_common;
};

struct inet_sock {
	struct sock sk;
};

struct udp_sock {
	struct inet_sock inet;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	struct udp_sock *udp_sk;
};

struct inode___number {
	unsigned long i_ino;
};

#pragma clang attribute pop

struct row {
	char kind[12];
	gadget_pid pid;
	// Descriptor or port.
	__u32 number;
	// Inode of the file, or state of the socket.
	__u64 value;
};

GADGET_ITER(tasks, row, on_task);
GADGET_ITER(files, row, on_task_file);
GADGET_ITER(tcp, row, on_tcp);
GADGET_ITER(udp, row, on_udp);

SEC("iter/task")
int on_task(struct bpf_iter__task *ctx)
{
	struct row row = {.kind = "task"};
	// Kept: the verifier forgets what it knew of a pointer that is read from the context again.
	struct task_struct *task = ctx->task;

	if (!task)
		return 0;
	row.pid = task->tgid;
	row.number = task->pid;
	bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	return 0;
}

SEC("iter/task_file")
int on_task_file(struct bpf_iter__task_file *ctx)
{
	struct row row = {.kind = "task_file"};
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;

	if (!task || !file)
		return 0;
	row.pid = task->tgid;
	row.number = ctx->fd;
	row.value = BPF_CORE_READ((struct inode___number *)file->f_inode, i_ino);
	bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	return 0;
}

SEC("iter/tcp")
int on_tcp(struct bpf_iter__tcp *ctx)
{
	struct row row = {.kind = "tcp"};
	struct sock_common *sk = ctx->sk_common;

	if (!sk)
		return 0;
	row.number = BPF_CORE_READ(sk, skc_num);
	row.value = BPF_CORE_READ(sk, skc_state);
	bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	return 0;
}

SEC("iter/udp")
int on_udp(struct bpf_iter__udp *ctx)
{
	struct row row = {.kind = "udp"};
	struct udp_sock *sk = ctx->udp_sk;

	if (!sk)
		return 0;
	row.number = BPF_CORE_READ(sk, inet.sk.__sk_common.skc_num);
	row.value = BPF_CORE_READ(sk, inet.sk.__sk_common.skc_state);
	bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
