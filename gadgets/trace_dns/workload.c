// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// A DNS client and its server in one, for test.yaml.
//
//   workload HOW NAME TYPE RCODE [ADDRESS ...]   asks for NAME on port 53 of the loopback interface, and is answered
//   workload raw HEX                             sends these bytes there by UDP, to nobody
//   workload echo ADDRESS                        answers queries at this IPv4 address by UDP, with nothing, until it is killed
//
// HOW: udp, udp6, udp6-options (an extension header before UDP), tcp, tcp-pieces (length, half and rest of the answer each
// in a segment of its own), tcp-two (two queries in one segment, the second for "second.NAME").

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT 53

struct message {
	unsigned char data[4096];
	int len;
};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void number(struct message *m, unsigned n)
{
	m->data[m->len++] = n >> 8;
	m->data[m->len++] = n;
}

static void bytes(struct message *m, const void *data, int len)
{
	memcpy(m->data + m->len, data, len);
	m->len += len;
}

static void name(struct message *m, const char *dotted)
{
	while (*dotted) {
		int len = strcspn(dotted, ".");

		m->data[m->len++] = len;
		bytes(m, dotted, len);
		dotted += len + (dotted[len] == '.');
	}
	m->data[m->len++] = 0;
}

static void begin(struct message *m, unsigned flags, int answers, const char *asked, int type)
{
	number(m, 0x1234);
	number(m, flags);
	number(m, 1);
	number(m, answers);
	number(m, 0);
	number(m, 0);
	name(m, asked);
	number(m, type);
	number(m, 1);
}

static void answer(struct message *m, const char *address)
{
	unsigned char raw[16];
	int is_v6 = strchr(address, ':') != NULL;

	if (inet_pton(is_v6 ? AF_INET6 : AF_INET, address, raw) != 1)
		fail(address);
	number(m, 0xc00c);
	number(m, is_v6 ? 28 : 1);
	number(m, 1);
	number(m, 0);
	number(m, 60);
	number(m, is_v6 ? 16 : 4);
	bytes(m, raw, is_v6 ? 16 : 4);
}

/* The message with its length before it. */
static void counted(struct message *to, const struct message *m)
{
	number(to, m->len);
	bytes(to, m->data, m->len);
}

static int make_socket(int family, int type, struct sockaddr_storage *at, socklen_t *len)
{
	struct sockaddr_in *v4 = (void *)at;
	struct sockaddr_in6 *v6 = (void *)at;
	int fd = socket(family, type, 0), one = 1;

	if (fd < 0)
		fail("socket");
	memset(at, 0, sizeof(*at));
	if (family == AF_INET) {
		*v4 = (struct sockaddr_in){ AF_INET, htons(PORT), { htonl(INADDR_LOOPBACK) } };
		*len = sizeof(*v4);
	} else {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(PORT);
		v6->sin6_addr = in6addr_loopback;
		*len = sizeof(*v6);
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static void send_all(int fd, const void *data, int len)
{
	if (write(fd, data, len) != len)
		fail("write");
	usleep(30000);
}

static void serve(const char *how, int fd, const struct message *response, int queries)
{
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	unsigned char query[4096];
	struct message m = {};

	usleep(20000);
	if (strncmp(how, "tcp", 3)) {
		recvfrom(fd, query, sizeof(query), 0, (void *)&from, &len);
		usleep(20000);
		sendto(fd, response->data, response->len, 0, (void *)&from, len);
		return;
	}
	fd = accept(fd, NULL, NULL);
	if (read(fd, query, sizeof(query)) <= 0)
		fail("read");
	usleep(20000);
	for (int i = 0; i < queries; i++)
		counted(&m, response);
	if (!strcmp(how, "tcp-pieces")) {
		send_all(fd, m.data, 2);
		send_all(fd, m.data + 2, m.len / 2);
		send_all(fd, m.data + 2 + m.len / 2, m.len - 2 - m.len / 2);
	} else {
		send_all(fd, m.data, m.len);
	}
	close(fd);
}

static void raw(const char *hex)
{
	struct sockaddr_storage at;
	struct message m = {};
	socklen_t len;
	int fd = make_socket(AF_INET, SOCK_DGRAM, &at, &len);

	for (; hex[0] && hex[1]; hex += 2) {
		unsigned byte;

		sscanf(hex, "%2x", &byte);
		m.data[m.len++] = byte;
	}
	if (sendto(fd, m.data, m.len, 0, (void *)&at, len) != m.len)
		fail("sendto");
}

static void echo(const char *address)
{
	struct sockaddr_storage at;
	struct sockaddr_in *v4 = (void *)&at;
	unsigned char query[512];
	socklen_t len;
	int fd = make_socket(AF_INET, SOCK_DGRAM, &at, &len);

	if (inet_pton(AF_INET, address, &v4->sin_addr) != 1 || bind(fd, (void *)&at, len))
		fail(address);
	alarm(1000);
	for (;;) {
		int got = recvfrom(fd, query, sizeof(query), 0, (void *)&at, &len);

		if (got < 4)
			continue;
		query[2] |= 0x80;
		sendto(fd, query, got, 0, (void *)&at, len);
	}
}

int main(int argc, char **argv)
{
	struct message query = {}, second = {}, response = {}, stream = {};
	struct sockaddr_storage at;
	unsigned char got[4096];
	int family, type, server, client, n = 1;
	const char *how = argv[1];
	socklen_t len;

	if (argc == 3 && !strcmp(how, "raw")) {
		raw(argv[2]);
		return 0;
	}
	if (argc == 3 && !strcmp(how, "echo"))
		echo(argv[2]);
	if (argc < 5)
		return 2;
	begin(&query, 0x0100, 0, argv[2], atoi(argv[3]));
	begin(&response, 0x8180 | atoi(argv[4]), argc - 5, argv[2], atoi(argv[3]));
	for (int i = 5; i < argc; i++)
		answer(&response, argv[i]);
	family = strncmp(how, "udp6", 4) ? AF_INET : AF_INET6;
	type = strncmp(how, "tcp", 3) ? SOCK_DGRAM : SOCK_STREAM;
	server = make_socket(family, type, &at, &len);
	if (bind(server, (void *)&at, len) || (type == SOCK_STREAM && listen(server, 1)))
		fail("bind");
	counted(&stream, &query);
	if (!strcmp(how, "tcp-two")) {
		char other[512];

		snprintf(other, sizeof(other), "second.%s", argv[2]);
		begin(&second, 0x0100, 0, other, 28);
		counted(&stream, &second);
		n = 2;
	}
	if (!fork()) {
		serve(how, server, &response, n);
		return 0;
	}
	close(server);
	client = make_socket(family, type, &at, &len);
	if (!strcmp(how, "udp6-options")) {
		/* A hop-by-hop header of eight bytes that says nothing. */
		unsigned char options[8] = { 0, 0, 1, 4 };

		if (setsockopt(client, IPPROTO_IPV6, IPV6_HOPOPTS, options, sizeof(options)))
			fail("IPV6_HOPOPTS");
	}
	if (connect(client, (void *)&at, len))
		fail("connect");
	if (type == SOCK_DGRAM)
		send_all(client, query.data, query.len);
	else
		send_all(client, stream.data, stream.len);
	while (read(client, got, sizeof(got)) > 0 && type == SOCK_STREAM)
		;
	wait(NULL);
	return 0;
}
