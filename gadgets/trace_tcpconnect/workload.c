// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// Connections that the kernel refuses before anything is sent, for test.yaml. Wants two ports in ip_local_port_range.
//
//   workload PORT FROM   to PORT: two connections, which take all ports there are, and one more; then two from port FROM

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static struct sockaddr_in here(int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_port = htons(port),
				     .sin_addr = { htonl(INADDR_LOOPBACK) } };
}

/* Connects, or ends the program if that does not end as it should. */
static void attempt(int to, int from, int error)
{
	struct sockaddr_in peer = here(to), mine = here(from);
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, got;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (from && bind(fd, (void *)&mine, sizeof(mine))) {
		perror("bind");
		exit(1);
	}
	got = connect(fd, (void *)&peer, sizeof(peer)) ? errno : 0;
	if (got != error) {
		fprintf(stderr, "errno %d instead of %d\n", got, error);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	int port, from, server = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in at;

	if (argc != 3)
		return 2;
	port = atoi(argv[1]);
	from = atoi(argv[2]);
	at = here(port);
	if (bind(server, (void *)&at, sizeof(at)) || listen(server, 9)) {
		perror("listen");
		return 1;
	}
	attempt(port, 0, 0);
	attempt(port, 0, 0);
	attempt(port, 0, EADDRNOTAVAIL);
	attempt(port, from, 0);
	attempt(port, from, EADDRNOTAVAIL);
	return 0;
}
