// SPDX-License-Identifier: Apache-2.0
/* load: a small, exact event generator for tests and benchmarks of event tracers.
 *
 *   load open|exec|getppid [-n ops per process] [-p processes] [-r ops/s per process] [-b burst]
 *                          [-c cpu[,cpu...]] [-f path] [-s]                 (or LOAD_PATH=path)
 *
 * open    one openat(path) + close() per operation (openat alone when the path cannot be opened)
 * exec    one vfork + execve(path) + wait per operation; path is a small static program
 * getppid one cheap system call, a control that no open or exec tracer looks at
 *
 * Every process does exactly -n operations, so "generated" is exact. SIGTERM ends the work early, between two operations,
 * and the count is exact then too. With -r the operations are spread evenly over time (in bursts of -b, default 1);
 * without -r they go as fast as possible. With -s, every path ends in `.<process>.<number of the operation>`.
 * One JSON object is printed at the end:
 *   ops         operations done by all processes
 *   wall_s      from the common start to the last process's end
 *   ns_wall     median process's wall nanoseconds per operation
 *   ns_cpu      median process's CPU nanoseconds per operation (own and, for exec, its children's);
 *               the number to compare: other work on the machine disturbs it least
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PROCS = 256, MAX_CPUS = 64 };

struct slot { uint64_t ops, wall, cpu, end; };

struct plan {
	int mode, procs, ncpu, numbered;
	int cpus[MAX_CPUS];
	uint64_t n, rate, burst;
	const char *path;
};

static volatile sig_atomic_t stop;

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

static uint64_t now(clockid_t c)
{
	struct timespec t;
	clock_gettime(c, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t cpu_with_children(void)
{
	struct rusage r;
	getrusage(RUSAGE_CHILDREN, &r);
	return now(CLOCK_PROCESS_CPUTIME_ID) +
	       (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000000ull +
	       (r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1000ull;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void one(int mode, const char *path)
{
	if (mode == 'o') {
		int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
		if (fd >= 0)
			close(fd);
	} else if (mode == 'e') {
		char *argv[] = { (char *)path, NULL }, *envp[] = { NULL };
		pid_t p = vfork();
		if (p == 0) {
			execve(path, argv, envp);
			_exit(127);
		}
		int st;
		pid_t w;
		/* a SIGTERM to the whole group may interrupt the wait; the operation still counts as one */
		while ((w = waitpid(p, &st, 0)) < 0 && errno == EINTR)
			;
		if (p < 0 || w < 0 || (!stop && (!WIFEXITED(st) || WEXITSTATUS(st) != 0))) {
			fprintf(stderr, "load: exec of %s failed\n", path);
			_exit(1);
		}
	} else {
		syscall(SYS_getppid);
	}
}

static void wait_until(uint64_t due)
{
	if (now(CLOCK_MONOTONIC) >= due)
		return;
	struct timespec t = { due / 1000000000ull, due % 1000000000ull };
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR && !stop)
		;
}

static void work(const struct plan *p, int i, struct slot *slot, volatile int *go)
{
	char path[4096];
	if (p->ncpu) {
		cpu_set_t s;
		CPU_ZERO(&s);
		CPU_SET(p->cpus[i % p->ncpu], &s);
		sched_setaffinity(0, sizeof s, &s);
	}
	snprintf(path, sizeof path, "%s", p->path);
	while (!*go)
		usleep(200);
	uint64_t c0 = cpu_with_children(), w0 = now(CLOCK_MONOTONIC), k = 0;
	for (; k < p->n && !stop; k++) {
		if (p->rate && k % p->burst == 0) {
			wait_until(w0 + k * 1000000000ull / p->rate);
			if (stop)
				break;
		}
		if (p->numbered)
			snprintf(path, sizeof path, "%s.%d.%llu", p->path, i, (unsigned long long)k);
		one(p->mode, path);
	}
	slot->end = now(CLOCK_MONOTONIC);
	slot->wall = slot->end - w0;
	slot->cpu = cpu_with_children() - c0;
	slot->ops = k;
}

static int usage(void)
{
	fprintf(stderr, "usage: load open|exec|getppid [-n ops] [-p procs] [-r rate] [-b burst] [-c cpus] [-f path] [-s]\n");
	return 2;
}

static int parse(int argc, char **argv, struct plan *p)
{
	int o;
	if (argc < 2 || !strchr("oeg", argv[1][0]))
		return usage();
	/* the path may also come by environment, so that it is in no argument list an exec tracer prints */
	const char *env = getenv("LOAD_PATH");
	*p = (struct plan){ .mode = argv[1][0], .procs = 1, .n = 1000000, .burst = 1, .path = env ? env : "/dev/null" };
	optind = 2;
	while ((o = getopt(argc, argv, "n:p:r:c:f:b:s")) != -1) {
		switch (o) {
		case 'n': p->n = strtoull(optarg, 0, 10); break;
		case 'p': p->procs = atoi(optarg); break;
		case 'r': p->rate = strtoull(optarg, 0, 10); break;
		case 'b': p->burst = strtoull(optarg, 0, 10); break;
		case 'f': p->path = optarg; break;
		case 's': p->numbered = 1; break;
		case 'c':
			for (char *s = strtok(optarg, ","); s && p->ncpu < MAX_CPUS; s = strtok(NULL, ","))
				p->cpus[p->ncpu++] = atoi(s);
			break;
		default: return usage();
		}
	}
	return p->procs < 1 || p->procs > MAX_PROCS || p->burst < 1 || (p->numbered && p->mode != 'o') ? usage() : 0;
}

int main(int argc, char **argv)
{
	struct plan p = { 0 };
	if (parse(argc, argv, &p))
		return 2;
	struct slot *slots = mmap(0, (MAX_PROCS + 1) * sizeof *slots, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (slots == MAP_FAILED)
		return perror("load: mmap"), 1;
	volatile int *go = (volatile int *)&slots[MAX_PROCS];
	pid_t kids[MAX_PROCS];

	struct sigaction act = { .sa_handler = on_term };
	sigaction(SIGTERM, &act, NULL);
	for (int i = 0; i < p.procs; i++) {
		kids[i] = fork();
		if (kids[i] < 0)
			return perror("load: fork"), 1;
		if (kids[i] == 0) {
			/* a load without its parent would never be told to stop */
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			work(&p, i, &slots[i], go);
			_exit(0);
		}
	}
	usleep(20000);
	uint64_t t0 = now(CLOCK_MONOTONIC), last = t0, ops = 0, w[MAX_PROCS], c[MAX_PROCS];
	*go = 1;
	int bad = 0, st, told = 0;
	for (;;) {
		/* checked on a timer: a signal between the check and the wait must not be missed */
		pid_t k = waitpid(-1, &st, WNOHANG);
		if (k > 0) {
			bad |= st;
			continue;
		}
		if (k < 0 && errno == ECHILD)
			break;
		if (stop && !told) {
			for (int i = 0; i < p.procs; i++)
				kill(kids[i], SIGTERM);
			told = 1;
		}
		usleep(1000);
	}
	for (int i = 0; i < p.procs; i++) {
		uint64_t n = slots[i].ops ? slots[i].ops : 1;
		ops += slots[i].ops;
		w[i] = slots[i].wall / n;
		c[i] = slots[i].cpu / n;
		if (slots[i].end > last)
			last = slots[i].end;
	}
	qsort(w, p.procs, sizeof *w, by_value);
	qsort(c, p.procs, sizeof *c, by_value);
	printf("{\"mode\":\"%s\",\"procs\":%d,\"ops\":%llu,\"wall_s\":%.6f,\"ns_wall\":%llu,\"ns_cpu\":%llu,\"ops_per_s\":%.0f}\n",
	       argv[1], p.procs, (unsigned long long)ops, (last - t0) / 1e9, (unsigned long long)w[p.procs / 2],
	       (unsigned long long)c[p.procs / 2], ops / ((last - t0) / 1e9));
	return bad ? 1 : 0;
}
