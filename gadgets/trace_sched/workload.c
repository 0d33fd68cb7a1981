// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// Leaves a CPU for each of the reasons there are: sleeping, waiting for a child of vfork, pushed out by another, stopped,
// ended. Each has a name of its own. Without arguments it does so and ends; `hold` first says READY, and goes on.

#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void nap(long ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

static void burn(long ms)
{
	struct timespec from, now;

	clock_gettime(CLOCK_MONOTONIC, &from);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - from.tv_sec) * 1000 + (now.tv_nsec - from.tv_nsec) / 1000000 < ms);
}

static pid_t start(const char *name, void (*work)(void))
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_NAME, name);
	work();
	_exit(0);
}

static void sleeper(void)
{
	for (int i = 0; i < 5; i++)
		nap(2);
}

static void waiter(void)
{
	pid_t pid = vfork();

	if (!pid) {
		// So long that the parent has begun to wait, on a busy machine too.
		nap(300);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

// Two of these on one CPU push each other out, once both have begun.
static void pusher(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_setaffinity(0, sizeof(one), &one);
	burn(1000);
}

static void stopper(void)
{
	raise(SIGSTOP);
}

static void all(void)
{
	pid_t stopped = start("ig-stopper", stopper);
	int status;

	start("ig-sleeper", sleeper);
	start("ig-waiter", waiter);
	start("ig-pusher", pusher);
	start("ig-pusher", pusher);
	waitpid(stopped, &status, WUNTRACED);
	kill(stopped, SIGCONT);
	while (wait(&status) > 0)
		;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		all();
		return 0;
	}
	puts("READY");
	fflush(stdout);
	for (;;) {
		prctl(PR_SET_NAME, "ig-long \"\\\xff");
		nap(20);
		burn(5);
	}
}
