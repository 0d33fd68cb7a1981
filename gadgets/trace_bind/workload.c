// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// For test.yaml: `workload PORT` binds a socket of MPTCP, `workload other PORT` tries to bind one of IPv6 to an IPv4 address.

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

int main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);

	if (argc == 3 && !strcmp(argv[1], "other")) {
		at.sin_port = htons(atoi(argv[2]));
		return !bind(socket(AF_INET6, SOCK_STREAM, 0), (void *)&at, sizeof(at));
	}
	if (argc != 2)
		return 2;
	at.sin_port = htons(atoi(argv[1]));
	if (fd < 0 || bind(fd, (void *)&at, sizeof(at))) {
		perror("an MPTCP socket");
		return 1;
	}
	return 0;
}
