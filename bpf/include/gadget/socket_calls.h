/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Which of the socket calls a system call is, in the native and in the 32-bit ABI, where all of them may also come as
 * socketcall(2). x86_64 and arm64.
 */
#ifndef GADGET_SOCKET_CALLS_H
#define GADGET_SOCKET_CALLS_H

#include <gadget/syscall.h>

enum gadget_socket_call {
	GADGET_CALL_NONE,
	GADGET_CALL_BIND,
	GADGET_CALL_CONNECT,
	GADGET_CALL_LISTEN,
	GADGET_CALL_ACCEPT,
	GADGET_CALL_SEND, /* sendto, sendmsg, sendmmsg */
	GADGET_CALL_SOCKETCALL, /* one of them all: see gadget_socket_call_read */
};

static __always_inline enum gadget_socket_call gadget_socket_call_native(int nr)
{
	switch (nr) {
#if defined(__TARGET_ARCH_x86)
	case 49:
		return GADGET_CALL_BIND;
	case 42:
		return GADGET_CALL_CONNECT;
	case 50:
		return GADGET_CALL_LISTEN;
	case 43:
	case 288:
		return GADGET_CALL_ACCEPT;
	case 44:
	case 46:
	case 307:
		return GADGET_CALL_SEND;
	/* x32 has numbers of its own for two of them. */
	case 518:
	case 538:
		return GADGET_CALL_SEND;
#else
	case 200:
		return GADGET_CALL_BIND;
	case 203:
		return GADGET_CALL_CONNECT;
	case 201:
		return GADGET_CALL_LISTEN;
	case 202:
	case 242:
		return GADGET_CALL_ACCEPT;
	case 206:
	case 211:
	case 269:
		return GADGET_CALL_SEND;
#endif
	default:
		return GADGET_CALL_NONE;
	}
}

static __always_inline enum gadget_socket_call gadget_socket_call_compat(int nr)
{
	switch (nr) {
#if defined(__TARGET_ARCH_x86)
	case 361:
		return GADGET_CALL_BIND;
	case 362:
		return GADGET_CALL_CONNECT;
	case 363:
		return GADGET_CALL_LISTEN;
	case 364:
		return GADGET_CALL_ACCEPT;
	case 345:
	case 369:
	case 370:
		return GADGET_CALL_SEND;
#else
	case 282:
		return GADGET_CALL_BIND;
	case 283:
		return GADGET_CALL_CONNECT;
	case 284:
		return GADGET_CALL_LISTEN;
	case 285:
	case 366:
		return GADGET_CALL_ACCEPT;
	case 290:
	case 296:
	case 374:
		return GADGET_CALL_SEND;
#endif
	case 102:
		return GADGET_CALL_SOCKETCALL;
	default:
		return GADGET_CALL_NONE;
	}
}

/** False for numbers that are a socket call in no ABI: the cheap question, to be asked first. */
static __always_inline bool gadget_may_be_socket_call(int nr)
{
	return gadget_socket_call_native(nr) != GADGET_CALL_NONE || gadget_socket_call_compat(nr) != GADGET_CALL_NONE;
}

/**
 * What the call is, and its first three arguments in `args`. Those of socketcall(2) lie in the caller's memory, from where they
 * are read.
 */
static __always_inline enum gadget_socket_call gadget_socket_call_read(struct gadget_syscall_args *args, void *regs, int nr)
{
	bool compat = gadget_syscall_is_compat((struct task_struct *)bpf_get_current_task());
	enum gadget_socket_call call = compat ? gadget_socket_call_compat(nr) : gadget_socket_call_native(nr);
	__u32 inner[3] = {};

	if (call == GADGET_CALL_NONE)
		return call;
	gadget_syscall_args(args, regs, compat);
	if (call != GADGET_CALL_SOCKETCALL)
		return call;
	bpf_probe_read_user(inner, sizeof(inner), (void *)args->a[1]);
	switch ((__u32)args->a[0]) {
	case 2:
		call = GADGET_CALL_BIND;
		break;
	case 3:
		call = GADGET_CALL_CONNECT;
		break;
	case 4:
		call = GADGET_CALL_LISTEN;
		break;
	case 5:
	case 18:
		call = GADGET_CALL_ACCEPT;
		break;
	case 9:
	case 11:
	case 16:
	case 20:
		call = GADGET_CALL_SEND;
		break;
	default:
		call = GADGET_CALL_NONE;
	}
	args->a[0] = inner[0];
	args->a[1] = inner[1];
	args->a[2] = inner[2];
	return call;
}

#endif
