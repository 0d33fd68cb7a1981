// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * sockets.bpf.c with the paths of the sockets' processes, for gadgets that ask for them. An object of its own, so that those that
 * do not ask load and run nothing of it.
 */
#define SOCKETS_WITH_PATHS
#include "sockets.bpf.c"
