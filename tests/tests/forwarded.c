// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// A machine that routes and runs servers of its own, for dns.rs: in this network namespace, between two others that it makes.
//
// The router is 10.1.0.1 and fd01::1 to the machine `a` (10.1.0.2, fd01::2), 10.2.0.1 and fd02::1 to `b` (10.2.0.2, fd02::2). It has
// UDP sockets at port 53 of every IPv4 address and at port 5353 of every address; they send back what they get. The names in the
// queries say which way each packet goes.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int query(unsigned char *m, const char *name)
{
	static const unsigned char head[] = { 0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0 }, tail[] = { 0, 0, 1, 0, 1 };
	int len = strlen(name);

	memcpy(m, head, 12);
	m[12] = len;
	memcpy(m + 13, name, len);
	memcpy(m + 13 + len, tail, 5);
	return 18 + len;
}

static socklen_t address(struct sockaddr_storage *to, const char *text, int port)
{
	struct sockaddr_in *v4 = (void *)to;
	struct sockaddr_in6 *v6 = (void *)to;

	memset(to, 0, sizeof(*to));
	if (strchr(text, ':')) {
		*v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
		if (inet_pton(AF_INET6, text, &v6->sin6_addr) != 1)
			fail(text);
		return sizeof(*v6);
	}
	*v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
	if (inet_pton(AF_INET, text, &v4->sin_addr) != 1)
		fail(text);
	return sizeof(*v4);
}

static int bound(const char *at, int port)
{
	struct sockaddr_storage here;
	socklen_t len = address(&here, at, port);
	int fd = socket(here.ss_family, SOCK_DGRAM, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof(one));
	if (fd < 0 || bind(fd, (void *)&here, len))
		fail("bind");
	return fd;
}

// From the port that it goes to, so that both ends of it are ports of the router's sockets. Returns when it was answered, or when the
// machine that it went to has said that nobody is there.
static void ask(const char *name, const char *at, int port)
{
	struct sockaddr_storage to;
	socklen_t len = address(&to, at, port);
	unsigned char m[512];
	int fd = bound(strchr(at, ':') ? "::" : "0.0.0.0", port), one = 1;
	struct pollfd answer = { .fd = fd, .events = POLLIN };

	if (setsockopt(fd, strchr(at, ':') ? IPPROTO_IPV6 : IPPROTO_IP, strchr(at, ':') ? IPV6_RECVERR : IP_RECVERR, &one, sizeof(one)))
		fail("RECVERR");
	if (sendto(fd, m, query(m, name), 0, (void *)&to, len) < 0)
		fail(name);
	do {
		if (poll(&answer, 1, 100000) != 1)
			fail(name);
		// A broadcast comes back to its sender, too, as the query that it is.
	} while (recv(fd, m, sizeof(m), 0) > 2 && !(m[2] & 0x80));
	close(fd);
}

// What a machine behind this one would have sent: it leaves by an interface here, and never came in at one.
static void inject(const char *name, const char *interface)
{
	static const unsigned char ip[] = { 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 9, 9, 10, 1, 0, 2 };
	unsigned char frame[256] = { 2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 0 };
	int len = query(frame + 42, name), fd = socket(AF_PACKET, SOCK_RAW, 0);
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_halen = 6, .sll_ifindex = if_nametoindex(interface) };

	memcpy(frame + 14, ip, sizeof(ip));
	frame[17] = 28 + len;
	frame[35] = frame[37] = 53;
	frame[39] = 8 + len;
	if (sendto(fd, frame, 42 + len, 0, (void *)&to, sizeof(to)) < 0)
		fail(name);
	close(fd);
}

static void write_to(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	if (!f || fputs(text, f) < 0 || fclose(f))
		fail(path);
}

static void set_up(void)
{
	// No waiting for whether somebody else has the address.
	write_to("/proc/sys/net/ipv6/conf/all/accept_dad", "0");
	write_to("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
}

static void run(const char *format, const char *name, const char *more)
{
	char command[256];

	snprintf(command, sizeof(command), format, name, more);
	if (system(command))
		fail(command);
}

#define BUSYBOX "/bin/busybox "

// Until there is an answer from there: cables that are being plugged in lose packets, and a neighbour must be asked for.
static void reach(const char *at)
{
	char command[256];

	snprintf(command, sizeof(command), BUSYBOX "ping -c 1 -W 1 %s >/dev/null 2>&1", at);
	for (int i = 0; system(command); i++) {
		if (i == 1000)
			fail(at);
		usleep(20000);
	}
}

// A process in a network of its own, which asks when it is told.
static pid_t machine(const char *interface, const char *net, int go, int is_a)
{
	int ready[2];
	char c;
	pid_t pid;

	if (pipe(ready))
		fail("pipe");
	pid = fork();
	if (!pid) {
		if (unshare(CLONE_NEWNET))
			fail("unshare");
		set_up();
		write(ready[1], "x", 1);
		if (read(go, &c, 1) != 1)
			exit(1);
		run(BUSYBOX "ip link set lo up; " BUSYBOX "ip link set %s up; true", interface, "");
		run(BUSYBOX "ip addr add 10.%s.0.2/24 dev %s", net, interface);
		run(BUSYBOX "ip addr add fd0%s::2/64 dev %s", net, interface);
		run(BUSYBOX "ip route add default via 10.%s.0.1", net, "");
		run(BUSYBOX "ip -6 route add default via fd0%s::1", net, "");
		if (!is_a)
			pause();
		for (int i = 0; i < 6; i++)
			reach((const char *[]){ "10.1.0.1", "10.2.0.1", "10.2.0.2", "fd01::1", "fd02::1", "fd02::2" }[i]);
		ask("near", "10.1.0.1", 53);
		ask("far", "10.2.0.1", 53);
		ask("through", "10.2.0.2", 53);
		ask("all", "10.1.0.255", 53);
		ask("near-six", "fd01::1", 5353);
		ask("far-six", "fd02::1", 5353);
		ask("through-six", "fd02::2", 5353);
		ask("near-both", "10.1.0.1", 5353);
		ask("through-both", "10.2.0.2", 5353);
		exit(0);
	}
	if (read(ready[0], &c, 1) != 1)
		exit(1);
	return pid;
}

int main(void)
{
	struct pollfd sockets[2] = { { .events = POLLIN }, { .events = POLLIN } };
	unsigned char m[512];
	char number[16];
	int go_a[2], go_b[2], status;
	pid_t a, b;

	if (pipe(go_a) || pipe(go_b))
		fail("pipe");
	set_up();
	write_to("/proc/sys/net/ipv4/ip_forward", "1");
	write_to("/proc/sys/net/ipv6/conf/all/forwarding", "1");
	sockets[0].fd = bound("0.0.0.0", 53);
	sockets[1].fd = bound("::", 5353);
	run(BUSYBOX "ip link set lo up; " BUSYBOX "ip link add type veth; " BUSYBOX "ip link add type veth%s%s", "", "");
	a = machine("veth1", "1", go_a[0], 1);
	b = machine("veth3", "2", go_b[0], 0);
	snprintf(number, sizeof(number), "%d", a);
	run(BUSYBOX "ip link set veth1 netns %s%s", number, "");
	snprintf(number, sizeof(number), "%d", b);
	run(BUSYBOX "ip link set veth3 netns %s%s", number, "");
	run(BUSYBOX "ip link set %s up; " BUSYBOX "ip link set %s up", "veth0", "veth2");
	run(BUSYBOX "ip addr add %s dev %s", "10.1.0.1/24", "veth0");
	run(BUSYBOX "ip addr add %s dev %s", "fd01::1/64", "veth0");
	run(BUSYBOX "ip addr add %s dev %s", "10.2.0.1/24", "veth2");
	run(BUSYBOX "ip addr add %s dev %s", "fd02::1/64", "veth2");
	write(go_b[1], "x", 1);
	write(go_a[1], "x", 1);
	while (waitpid(a, &status, WNOHANG) == 0) {
		poll(sockets, 2, 50);
		for (int i = 0; i < 2; i++) {
			struct sockaddr_storage from;
			socklen_t len = sizeof(from);
			ssize_t n = recvfrom(sockets[i].fd, m, sizeof(m), MSG_DONTWAIT, (void *)&from, &len);

			m[2] |= 0x80;
			if (n > 0)
				sendto(sockets[i].fd, m, n, 0, (void *)&from, len);
		}
	}
	// At b's interface: a is gone, and with its network goes, whenever the kernel gets to it, the other end of its cable.
	inject("injected", "veth2");
	kill(b, 9);
	return status != 0;
}
