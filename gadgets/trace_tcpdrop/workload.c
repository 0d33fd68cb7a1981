// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// workload PORT: a connection to itself by the loopback interface, and a segment in it that is far from where the connection is.

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct packet {
	unsigned char ip[20];
	unsigned char tcp[20];
	unsigned char data[4];
};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static unsigned add(const void *data, int bytes, unsigned sum)
{
	unsigned short word;

	for (int i = 0; i < bytes; i += 2) {
		memcpy(&word, (const char *)data + i, 2);
		sum += word;
	}
	return sum;
}

static void set_checksum(struct packet *p)
{
	const unsigned char length[4] = { 0, 6, 0, sizeof(p->tcp) + sizeof(p->data) };
	unsigned sum = add(p->ip + 12, 8, add(length, 4, add(p->tcp, sizeof(p->tcp) + sizeof(p->data), 0)));
	unsigned short folded;

	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	folded = ~sum;
	memcpy(p->tcp + 16, &folded, 2);
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = { AF_INET, htons(argc > 1 ? atoi(argv[1]) : 0), { htonl(INADDR_LOOPBACK) } }, me;
	struct packet p = { .ip = { 0x45, 0, 0, sizeof(p), 0, 0, 0, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1 } };
	int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
	int raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	socklen_t len = sizeof(me);

	if (raw < 0 || bind(server, (void *)&at, sizeof(at)) || listen(server, 1))
		fail("server");
	if (connect(client, (void *)&at, sizeof(at)) || accept(server, NULL, NULL) < 0)
		fail("connect");
	getsockname(client, (void *)&me, &len);
	memcpy(p.tcp, &me.sin_port, 2);
	memcpy(p.tcp + 2, &at.sin_port, 2);
	// Sequence numbers begin anywhere: an acknowledgement of nothing, far in the past or the future.
	p.tcp[4] = 0x12;
	p.tcp[12] = sizeof(p.tcp) / 4 << 4;
	p.tcp[13] = 0x10;
	p.tcp[14] = 1;
	set_checksum(&p);
	if (sendto(raw, &p, sizeof(p), 0, (void *)&at, sizeof(at)) != sizeof(p))
		fail("sendto");
	usleep(200000);
	return 0;
}
