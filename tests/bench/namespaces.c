// SPDX-License-Identifier: Apache-2.0
/*
 * namespaces: many cheap containers that work in turn, for measuring what a tracer pays for their number.
 *
 *   namespaces CONTAINERS OPENS CGROUP_DIR [-u UID]
 *
 * Each container is one process in a mount namespace of its own and in the cgroup CGROUP_DIR/<64 hex digits>, by which a
 * tracer that starts later knows it. When all are there, "ready" is printed. Every line on standard input then has the
 * containers make OPENS failing opens together, BURST at a time and in turn, RATE a second (so that many cold processes
 * are not slower than a few warm ones, and the tracer has as much to do at a time), and prints a line with the CPU
 * nanoseconds that an open took. At the end of the input everything goes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BURST = 20, RATE = 100000, MAX = 30000 };

/* Shared by all; one word to wait on for each container, and one for the parent. */
struct shared {
	_Atomic uint64_t nanoseconds;
	_Atomic uint32_t ready;
	_Atomic uint32_t done;
	_Atomic uint32_t go[MAX];
};

static struct shared *shared;
static char paths[MAX][256];

static void die(const char *what)
{
	fprintf(stderr, "namespaces: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void wait_while(_Atomic uint32_t *word, uint32_t value)
{
	while (atomic_load(word) == value)
		syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static uint64_t cpu(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void enter_cgroup(const char *dir)
{
	char file[300];
	snprintf(file, sizeof(file), "%s/cgroup.procs", dir);
	int fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		die(file);
	close(fd);
}

static void container(int i, uid_t uid)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	enter_cgroup(paths[i]);
	if (unshare(CLONE_NEWNS))
		die("unshare");
	if (uid && setresuid(uid, uid, uid))
		die("setresuid");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	uint32_t round = 0;
	atomic_fetch_add(&shared->ready, 1);
	wake(&shared->ready);
	for (;;) {
		wait_while(&shared->go[i], round);
		round = atomic_load(&shared->go[i]);
		uint64_t before = cpu();
		for (int n = 0; n < BURST; n++)
			syscall(SYS_openat, AT_FDCWD, "/nonexistent/file", O_RDONLY);
		atomic_fetch_add(&shared->nanoseconds, cpu() - before);
		atomic_fetch_add(&shared->done, 1);
		wake(&shared->done);
	}
}

static void work(int containers, uint64_t opens)
{
	const long pause = 1000000000l / RATE * BURST;
	struct timespec next;

	clock_gettime(CLOCK_MONOTONIC, &next);
	atomic_store(&shared->nanoseconds, 0);
	for (uint64_t burst = 0; burst < opens / BURST; burst++) {
		uint32_t before = atomic_load(&shared->done);
		_Atomic uint32_t *go = &shared->go[burst % containers];
		atomic_fetch_add(go, 1);
		wake(go);
		wait_while(&shared->done, before);
		next.tv_nsec += pause;
		next.tv_sec += next.tv_nsec / 1000000000l;
		next.tv_nsec %= 1000000000l;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
	uint64_t done = opens / BURST * BURST;
	printf("%llu opens, %.1f ns each\n", (unsigned long long)done, (double)atomic_load(&shared->nanoseconds) / done);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	/* A group of its own: the end is a signal to all of it. */
	setpgid(0, 0);
	prctl(PR_SET_TIMERSLACK, 1);
	int containers = argc > 3 ? atoi(argv[1]) : 0;
	uint64_t opens = argc > 3 ? strtoull(argv[2], NULL, 10) : 0;
	uid_t uid = argc == 6 && !strcmp(argv[4], "-u") ? (uid_t)atoi(argv[5]) : 0;
	char line[16];

	if (containers < 1 || containers > MAX || opens < BURST) {
		fprintf(stderr, "usage: namespaces CONTAINERS OPENS CGROUP_DIR [-u UID]\n");
		return 2;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap");
	if (mkdir(argv[3], 0755) && errno != EEXIST)
		die(argv[3]);
	for (int i = 0; i < containers; i++) {
		snprintf(paths[i], sizeof(paths[i]), "%s/%064x", argv[3], i);
		if (mkdir(paths[i], 0755) && errno != EEXIST)
			die(paths[i]);
		pid_t child = fork();
		if (child < 0)
			die("fork");
		if (child == 0)
			container(i, uid);
	}
	for (uint32_t n; (n = atomic_load(&shared->ready)) < (uint32_t)containers;) {
		if (waitpid(-1, NULL, WNOHANG) > 0)
			return 1;
		wait_while(&shared->ready, n);
	}
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		work(containers, opens);
	signal(SIGTERM, SIG_IGN);
	kill(0, SIGTERM);
	while (wait(NULL) > 0)
		;
	for (int i = 0; i < containers; i++)
		rmdir(paths[i]);
	rmdir(argv[3]);
	return 0;
}
