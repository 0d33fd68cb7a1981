// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// For test.yaml, by the loopback interface:
// `workload PORT` sends 700 bytes and asks when they left: the kernel gives them back with the time.
// `workload mptcp PORT` sends 700 bytes by MPTCP, from and to its own process.

#include <arpa/inet.h>
#include <linux/net_tstamp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

#define MPTCP 262

int main(int argc, char **argv)
{
	struct sockaddr_in at = { AF_INET, htons(argc > 1 ? atoi(argv[argc - 1]) : 0), { htonl(INADDR_LOOPBACK) } };
	int mptcp = argc > 2 && !strcmp(argv[1], "mptcp"), protocol = mptcp ? MPTCP : 0;
	int server = socket(AF_INET, SOCK_STREAM, protocol), client = socket(AF_INET, SOCK_STREAM, protocol), peer;
	int flags = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
	static char data[2000], control[512];
	struct iovec to = { data, sizeof(data) };
	struct msghdr back = { .msg_iov = &to, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct pollfd error = { .fd = client };

	if (bind(server, (void *)&at, sizeof(at)) || listen(server, 1) || connect(client, (void *)&at, sizeof(at)))
		fail("connect");
	peer = accept(server, NULL, NULL);
	if (!mptcp && setsockopt(client, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof(flags)))
		fail("SO_TIMESTAMPING");
	if (write(client, data, 700) != 700)
		fail("write");
	if (!mptcp && (poll(&error, 1, 5000) != 1 || recvmsg(client, &back, MSG_ERRQUEUE) < 700))
		fail("what was sent, with its time");
	if (recv(peer, data, 700, MSG_WAITALL) != 700)
		fail("read");
	return 0;
}
