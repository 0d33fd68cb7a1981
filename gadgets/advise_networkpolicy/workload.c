// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// Two ends of a conversation over UDP, for test.yaml.
//
//   workload answer ADDRESS   waits for a question at port 53 of ADDRESS, and answers it again and again, for a minute
//   workload ask ADDRESS      asks there, from a socket with a peer, and says READY when the first answer is there; asks once
//                             more every second, but not in the first eight

#include <arpa/inet.h>
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

	if (argc != 3 || inet_pton(AF_INET, argv[2], &at.sin_addr) != 1)
		return 2;
	if (!strcmp(argv[1], "answer")) {
		if (bind(fd, (void *)&at, sizeof(at)) || recvfrom(fd, text, sizeof(text), 0, (void *)&from, &len) < 0)
			goto failed;
		for (int i = 0; i < 240; i++) {
			sendto(fd, "answer", 6, 0, (void *)&from, len);
			usleep(250000);
		}
		return 0;
	}
	if (connect(fd, (void *)&at, sizeof(at)) || send(fd, text, 8, 0) != 8 || recv(fd, text, sizeof(text), 0) != 6)
		goto failed;
	puts("READY");
	fflush(stdout);
	sleep(8);
	for (int i = 0; i < 50; i++) {
		send(fd, text, 8, 0);
		sleep(1);
	}
	return 0;
failed:
	perror(argv[1]);
	return 1;
}
