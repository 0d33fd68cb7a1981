/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/** Names for what the kernel and the TCP header keep as numbers. Needs nothing from the kernel. */
#ifndef GADGET_TCP_H
#define GADGET_TCP_H

#include <gadget/kernel.h>

/** States of a TCP socket. UDP sockets use two of them: ESTABLISHED with a peer, CLOSE without. */
enum gadget_tcp_state {
	ESTABLISHED = 1,
	SYN_SENT,
	SYN_RECV,
	FIN_WAIT1,
	FIN_WAIT2,
	TIME_WAIT,
	CLOSE,
	CLOSE_WAIT,
	LAST_ACK,
	LISTEN,
	CLOSING,
	NEW_SYN_RECV,
};

/** Flags of a TCP segment, as in byte 13 of its header. */
enum tcp_flags_set : __u8 {
	FIN = 0x01,
	SYN = 0x02,
	RST = 0x04,
	PSH = 0x08,
	ACK = 0x10,
	URG = 0x20,
	ECE = 0x40,
	CWR = 0x80,
};

#endif
