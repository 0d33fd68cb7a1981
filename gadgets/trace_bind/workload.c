// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// Binds a socket of MPTCP, for test.yaml: `workload PORT`.

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

int main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);

	if (argc != 2)
		return 2;
	at.sin_port = htons(atoi(argv[1]));
	if (fd < 0 || bind(fd, (void *)&at, sizeof(at))) {
		perror("an MPTCP socket");
		return 1;
	}
	return 0;
}
