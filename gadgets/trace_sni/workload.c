// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// A TLS client that says hello and no more, and whoever listens to it, for test.yaml.
//
//   workload NAME PORT SEGMENT RECORD PADDING [cut]
//
// Sends a ClientHello that names NAME ("-": none) in TCP segments of SEGMENT bytes and TLS records of RECORD bytes, with
// PADDING bytes of another extension before the name. "cut": closes the connection before the last segment.

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct buffer {
	unsigned char data[32768];
	int len;
};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void number(struct buffer *b, unsigned n)
{
	b->data[b->len++] = n >> 8;
	b->data[b->len++] = n;
}

static void bytes(struct buffer *b, const void *data, int len)
{
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

static void counted(struct buffer *to, const struct buffer *b)
{
	number(to, b->len);
	bytes(to, b->data, b->len);
}

static struct buffer message(const char *name, int padding)
{
	static struct buffer extensions, body, all;
	unsigned char zeros[64] = {};

	number(&extensions, 21);
	number(&extensions, padding);
	memset(extensions.data + extensions.len, 0, padding);
	extensions.len += padding;
	if (strcmp(name, "-")) {
		int len = strlen(name);

		number(&extensions, 0);
		number(&extensions, len + 5);
		number(&extensions, len + 3);
		bytes(&extensions, "", 1);
		number(&extensions, len);
		bytes(&extensions, name, len);
	}
	number(&body, 0x0303);
	bytes(&body, zeros, 32); /* random */
	bytes(&body, zeros, 1);	 /* no session */
	number(&body, 2);
	number(&body, 0x1301);
	bytes(&body, "\1\0", 2); /* no compression */
	counted(&body, &extensions);
	bytes(&all, "\1\0", 2);
	counted(&all, &body);
	return all;
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = { AF_INET, 0, { htonl(INADDR_LOOPBACK) } };
	int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	struct buffer hello, wire = {};

	if (argc < 6)
		return 2;
	int port = atoi(argv[2]), segment = atoi(argv[3]), record = atoi(argv[4]);

	hello = message(argv[1], atoi(argv[5]));
	for (int from = 0; from < hello.len; from += record) {
		int len = hello.len - from < record ? hello.len - from : record;

		bytes(&wire, "\x16\3\1", 3);
		number(&wire, len);
		bytes(&wire, hello.data + from, len);
	}
	at.sin_port = htons(port);
	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (bind(server, (void *)&at, sizeof(at)) || listen(server, 1))
		fail("bind");
	if (!fork()) {
		unsigned char got[4096];
		int fd = accept(server, NULL, NULL);
		ssize_t n;

		if (fd < 0)
			fail("accept");
		close(client);
		while ((n = read(fd, got, sizeof(got))) > 0)
			;
		if (n < 0)
			fail("read");
		return 0;
	}
	close(server);
	if (connect(client, (void *)&at, sizeof(at)))
		fail("connect");
	for (int from = 0; from < wire.len; from += segment) {
		int len = wire.len - from < segment ? wire.len - from : segment;

		if (argc > 6 && from + len == wire.len)
			break;
		if (write(client, wire.data + from, len) != len)
			fail("write");
		usleep(3000);
	}
	close(client);
	wait(NULL);
	return 0;
}
