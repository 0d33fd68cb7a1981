// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// Two ends of a conversation over UDP, for test.yaml.
//
//   workload answer ADDRESS   waits for a question at port 53 of ADDRESS, and answers it again and again, four times a second
//   workload ask ADDRESS      asks there, from a socket with a peer, until the first answer is there, and says READY; asks once
//                             more every second, but not in the first eight

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(53) }, from;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	socklen_t len = sizeof(from);
	char text[16] = "question";
	struct pollfd answered = { .fd = fd, .events = POLLIN };

	if (argc != 3 || inet_pton(AF_INET, argv[2], &at.sin_addr) != 1)
		return 2;
	if (!strcmp(argv[1], "answer")) {
		if (bind(fd, (void *)&at, sizeof(at)) || recvfrom(fd, text, sizeof(text), 0, (void *)&from, &len) < 0)
			goto failed;
		for (int i = 0; i < 4000; i++) {
			sendto(fd, "answer", 6, 0, (void *)&from, len);
			usleep(250000);
		}
		return 0;
	}
	if (connect(fd, (void *)&at, sizeof(at)))
		goto failed;
	// What is sent before both ends of the cable are up is thrown away.
	for (int i = 0; poll(&answered, 1, i ? 1000 : 0) != 1; i++)
		if (i == 300 || send(fd, text, 8, 0) != 8)
			goto failed;
	if (recv(fd, text, sizeof(text), 0) != 6)
		goto failed;
	puts("READY");
	fflush(stdout);
	sleep(8);
	for (int i = 0; i < 1000; i++) {
		send(fd, text, 8, 0);
		sleep(1);
	}
	return 0;
failed:
	perror(argv[1]);
	return 1;
}
