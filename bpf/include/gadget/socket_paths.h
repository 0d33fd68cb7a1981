/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * What the process behind a socket runs, and where: beside gadget/sockets.h, for the parameter `paths` of a gadget.
 *
 * Including this header declares the map `gadget_socket_paths`. Where the gadget has a parameter (GADGET_PARAM) named `paths` and it is on, the
 * host puts its own in the map's place and fills it; for a gadget that does not ask nothing is done, and the map stays empty. A path is
 * that of the moment when the socket got its port or was connected, of a socket from before the start that of the start.
 */
#ifndef GADGET_SOCKET_PATHS_H
#define GADGET_SOCKET_PATHS_H

#include <gadget/sockets.h>

/** As GADGET_PATH_MAX of gadget/filesystem.h, which gadgets of packets do not need otherwise. */
#define GADGET_SOCKET_PATH_MAX 512

/** Bits of gadget_socket_paths.cut: which path did not fit, and keeps its end. */
#define GADGET_SOCKET_CWD_CUT 1
#define GADGET_SOCKET_EXEPATH_CUT 2

/** Filled by the host; gadgets only read it. 1,032 bytes. */
struct gadget_socket_paths {
	__u64 cut;
	char cwd[GADGET_SOCKET_PATH_MAX];
	char exepath[GADGET_SOCKET_PATH_MAX];
};

/* By the address of the struct sock. The size here matters only where no host replaces the map. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GADGET_SOCKETS_MAX);
	__type(key, __u64);
	__type(value, struct gadget_socket_paths);
} gadget_socket_paths SEC(".maps");

/** What is known of a socket's owner; NULL: nothing. */
static __always_inline struct gadget_socket_paths *gadget_socket_paths_of(const struct gadget_socket_value *v)
{
	__u64 sock;

	if (!v)
		return NULL;
	sock = v->sock;
	return bpf_map_lookup_elem(&gadget_socket_paths, &sock);
}

#endif
