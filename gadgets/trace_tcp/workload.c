// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// Connections that busybox cannot make, for test.yaml.
//
//   workload mptcp PORT   a server of MPTCP, and one client each of TCP and of MPTCP
//   workload again        twenty times a socket that does not wait and is refused, and then one that finds no way: the kernel
//                         gives it the same memory
//   workload asks         a socket that does not wait and is refused, asks how it ended by connecting again, and tries anew; and
//                         one that gets through and asks in the same way

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static struct sockaddr_in at(const char *address, int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };

	inet_pton(AF_INET, address, &a.sin_addr);
	return a;
}

static int make(int protocol)
{
	int fd = socket(AF_INET, SOCK_STREAM, protocol);

	if (fd < 0)
		fail("socket");
	return fd;
}

// Until the kernel has decided about a connect that did not wait.
static void decided(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	if (poll(&p, 1, 300000) != 1)
		fail("poll");
}

static void mptcp(int port)
{
	struct sockaddr_in here = at("127.0.0.1", port);
	int protocols[] = { IPPROTO_TCP, IPPROTO_MPTCP };
	int server = make(IPPROTO_MPTCP);

	if (bind(server, (void *)&here, sizeof(here)) || listen(server, 2))
		fail("listen");
	for (int i = 0; i < 2; i++) {
		char byte = 'x';
		int fd;

		if (!fork()) {
			int client = make(protocols[i]);

			if (connect(client, (void *)&here, sizeof(here)) || write(client, &byte, 1) != 1)
				fail("connect");
			// Until the server closes.
			if (read(client, &byte, 1))
				fail("read");
			close(client);
			exit(0);
		}
		fd = accept(server, NULL, NULL);
		if (fd < 0 || read(fd, &byte, 1) != 1)
			fail("accept");
		close(fd);
		wait(NULL);
	}
}

static void again(void)
{
	struct sockaddr_in nobody = at("127.0.0.1", 1), away = at("203.0.113.77", 4321);

	for (int i = 0; i < 20; i++) {
		int fd = make(IPPROTO_TCP);

		fcntl(fd, F_SETFL, O_NONBLOCK);
		connect(fd, (void *)&nobody, sizeof(nobody));
		decided(fd);
		close(fd);
		fd = make(IPPROTO_TCP);
		if (!connect(fd, (void *)&away, sizeof(away)) || errno != ENETUNREACH)
			fail("a connect that finds no way");
		close(fd);
	}
}

// Connects, and once more when that is decided.
static void connect_and_ask(int fd, const struct sockaddr_in *to, int answer)
{
	if (!connect(fd, (void *)to, sizeof(*to)) || errno != EINPROGRESS)
		fail("a connect that does not wait");
	decided(fd);
	errno = 0;
	connect(fd, (void *)to, sizeof(*to));
	if (errno != answer)
		fail("the answer");
}

static void asks(void)
{
	struct sockaddr_in nobody = at("127.0.0.1", 4107), here = at("127.0.0.1", 4108);
	int server = make(IPPROTO_TCP), refused = make(IPPROTO_TCP), client = make(IPPROTO_TCP);

	if (bind(server, (void *)&here, sizeof(here)) || listen(server, 2))
		fail("listen");
	fcntl(refused, F_SETFL, O_NONBLOCK);
	fcntl(client, F_SETFL, O_NONBLOCK);
	connect_and_ask(refused, &nobody, ECONNREFUSED);
	connect_and_ask(refused, &nobody, ECONNREFUSED);
	connect_and_ask(client, &here, 0);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "mptcp"))
		mptcp(atoi(argv[2]));
	else if (argc == 2 && !strcmp(argv[1], "again"))
		again();
	else if (argc == 2 && !strcmp(argv[1], "asks"))
		asks();
	else
		return 2;
	return 0;
}
