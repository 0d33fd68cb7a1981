// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// `workload PORT`, for test.yaml: sends 700 bytes by the loopback interface and asks when they left: the kernel gives them back with
// the time.

#include <arpa/inet.h>
#include <linux/net_tstamp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = { AF_INET, htons(argc > 1 ? atoi(argv[1]) : 0), { htonl(INADDR_LOOPBACK) } };
	int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), peer;
	int flags = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
	static char data[2000], control[512];
	struct iovec to = { data, sizeof(data) };
	struct msghdr back = { .msg_iov = &to, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct pollfd error = { .fd = client };

	if (bind(server, (void *)&at, sizeof(at)) || listen(server, 1) || connect(client, (void *)&at, sizeof(at)))
		fail("connect");
	peer = accept(server, NULL, NULL);
	if (setsockopt(client, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof(flags)))
		fail("SO_TIMESTAMPING");
	if (write(client, data, 700) != 700)
		fail("write");
	if (poll(&error, 1, 5000) != 1 || recvmsg(client, &back, MSG_ERRQUEUE) < 700)
		fail("what was sent, with its time");
	if (read(peer, data, sizeof(data)) != 700)
		fail("read");
	return 0;
}
