// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// `workload fast PORT`, `workload tail PORT`, for test.yaml: connections by the loopback interface of which segments are lost, in
// the middle or at the end.
// `workload late ADDRESS PORT`: connects by a route to a /16 on the loopback interface, which it takes away at once; waits to be killed.

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/route.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE 100
#ifndef IP_MINTTL
#define IP_MINTTL 21
#endif

static void check(int good, const char *what)
{
	if (good)
		return;
	perror(what);
	exit(1);
}

// While `yes`, what comes is lost: it has not the time to live that is asked for.
static void lose(int fd, int yes)
{
	int least = yes ? 255 : 0;

	check(!setsockopt(fd, IPPROTO_IP, IP_MINTTL, &least, sizeof(least)), "IP_MINTTL");
}

static void segment(int fd, char filled_with)
{
	char data[SIZE];

	memset(data, filled_with, sizeof(data));
	check(write(fd, data, sizeof(data)) == sizeof(data), "write");
}

static void receive(int fd, int segments)
{
	char data[16 * SIZE];

	check(recv(fd, data, segments * SIZE, MSG_WAITALL) == segments * SIZE, "recv");
}

static int late(const char *address, int port)
{
	struct sockaddr_in at = { AF_INET, htons(port), { inet_addr(address) } };
	struct sockaddr_in net = { AF_INET, 0, { at.sin_addr.s_addr & htonl(0xffff0000) } }, mask = { AF_INET, 0, { htonl(0xffff0000) } };
	struct rtentry route = { .rt_flags = RTF_UP, .rt_dev = "lo" };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	memcpy(&route.rt_dst, &net, sizeof(net));
	memcpy(&route.rt_genmask, &mask, sizeof(mask));
	check(!fcntl(fd, F_SETFL, O_NONBLOCK), "O_NONBLOCK");
	check(connect(fd, (void *)&at, sizeof(at)) && errno == EINPROGRESS, "connect");
	check(!ioctl(fd, SIOCDELRT, &route), "SIOCDELRT");
	return pause();
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = { AF_INET, htons(argc == 3 ? atoi(argv[2]) : 0), { htonl(INADDR_LOOPBACK) } };
	int server = socket(AF_INET, SOCK_STREAM, 0), one = 1, tail = argc > 1 && !strcmp(argv[1], "tail");

	if (argc == 4 && !strcmp(argv[1], "late"))
		return late(argv[2], atoi(argv[3]));
	check(!bind(server, (void *)&at, sizeof(at)) && !listen(server, 1), "listen");
	// Several, because on a busy machine one may wait so long in between that something else is sent again.
	for (int n = 0; n < 5; n++) {
		int client = socket(AF_INET, SOCK_STREAM, 0), peer;

		check(!connect(client, (void *)&at, sizeof(at)), "connect");
		peer = accept(server, NULL, NULL);
		check(!setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), "TCP_NODELAY");
		for (int i = 0; i < 20; i++) {
			segment(client, 'w');
			receive(peer, 1);
		}
		lose(peer, 1);
		segment(client, 'x');
		if (tail)
			segment(client, 'x');
		lose(peer, 0);
		// What comes behind it tells the sender at once that it is missing.
		for (int i = 0; i < 6 && !tail; i++)
			segment(client, 'o');
		receive(peer, tail ? 2 : 7);
		close(client);
		close(peer);
	}
	return 0;
}
