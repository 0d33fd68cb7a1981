// SPDX-License-Identifier: Apache-2.0
/* floor: the least an open tracer with JSON output can cost, as far as we know how to write one.
 *
 *   floor floor.bpf.o
 *
 * One JSON line an open on stdout; reads the ring buffer on a 1 ms timer with one record left unreleased, writes in large
 * pieces. It has no containers, no filters, no images, no plug-ins: what `ig` costs more than this is the price of those.
 * Loads with libbpf. Ends on SIGINT and then says on stderr how many events the kernel had no room for.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "event.h"

enum { RING = 4 << 20, PAGE = 4096, OUT = 256 << 10, LINE = 4096 };

static volatile sig_atomic_t stop;
static char out[OUT];
static size_t used;

static void on_signal(int s)
{
	(void)s;
	stop = 1;
}

static void flush(void)
{
	size_t at = 0;
	while (at < used) {
		ssize_t n = write(1, out + at, used - at);
		if (n <= 0)
			exit(1);
		at += n;
	}
	used = 0;
}

static void text(const char *s)
{
	size_t n = strlen(s);
	memcpy(out + used, s, n);
	used += n;
}

static void number(const char *key, unsigned long long v)
{
	char digits[20];
	int n = 0;
	text(key);
	do
		digits[n++] = '0' + v % 10;
	while (v /= 10);
	while (n)
		out[used++] = digits[--n];
}

static void string(const char *key, const char *s, size_t max)
{
	static const char hex[] = "0123456789abcdef";
	text(key);
	out[used++] = '"';
	for (size_t i = 0; i < max && s[i]; i++) {
		unsigned char c = s[i];
		if (c == '"' || c == '\\') {
			out[used++] = '\\';
			out[used++] = c;
		} else if (c < 0x20) {
			text("\\u00");
			out[used++] = hex[c >> 4];
			out[used++] = hex[c & 15];
		} else {
			out[used++] = c;
		}
	}
	out[used++] = '"';
}

static void print(const struct event *e)
{
	if (used > OUT - LINE)
		flush();
	string("{\"comm\":", e->comm, sizeof e->comm);
	number(",\"error\":", e->ret < 0 ? -e->ret : 0);
	number(",\"fd\":", e->ret < 0 ? 0 : e->ret);
	number(",\"flags\":", e->flags);
	string(",\"fname\":", e->fname, sizeof e->fname);
	number(",\"gid\":", e->gid);
	number(",\"mntns_id\":", e->mntns);
	number(",\"mode\":", e->mode);
	string(",\"pcomm\":", e->pcomm, sizeof e->pcomm);
	number(",\"pid\":", e->pid);
	number(",\"ppid\":", e->ppid);
	number(",\"tid\":", e->tid);
	number(",\"timestamp\":", e->timestamp);
	number(",\"uid\":", e->uid);
	text("}\n");
}

struct ring {
	_Atomic unsigned long *consumer;
	const _Atomic unsigned long *producer;
	const char *data;
	unsigned long at;
};

static void drain(struct ring *r)
{
	unsigned long last = r->at, end;
	int any = 0;
	while (r->at < (end = atomic_load_explicit(r->producer, memory_order_acquire))) {
		while (r->at < end) {
			const char *record = r->data + (r->at & (RING - 1));
			unsigned int head = atomic_load_explicit((const _Atomic unsigned int *)record, memory_order_acquire);
			if (head & BPF_RINGBUF_BUSY_BIT)
				goto released;
			if (!(head & BPF_RINGBUF_DISCARD_BIT))
				print((const struct event *)(record + BPF_RINGBUF_HDR_SZ));
			last = r->at;
			r->at += ((head & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT)) + BPF_RINGBUF_HDR_SZ + 7) & ~7ul;
			any = 1;
		}
		atomic_store_explicit(r->consumer, last, memory_order_release);
	}
released:
	if (any)
		atomic_store_explicit(r->consumer, last, memory_order_release);
	flush();
}

static int fail(const char *what)
{
	perror(what);
	return 1;
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return fprintf(stderr, "usage: floor floor.bpf.o\n"), 2;
	struct bpf_object *object = bpf_object__open_file(argv[1], NULL);
	if (!object || bpf_object__load(object))
		return fail("floor: load");
	struct bpf_program *program;
	bpf_object__for_each_program(program, object)
		if (!bpf_program__attach(program))
			return fail("floor: attach");
	int fd = bpf_object__find_map_fd_by_name(object, "events");
	int lost = bpf_object__find_map_fd_by_name(object, "lost");
	char *consumer = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	char *producer = mmap(NULL, PAGE + 2ul * RING, PROT_READ, MAP_SHARED, fd, PAGE);
	if (consumer == MAP_FAILED || producer == MAP_FAILED)
		return fail("floor: mmap");
	struct ring ring = { (void *)consumer, (void *)producer, producer + PAGE, 0 };
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);

	struct timespec period = { 0, 1000000 };
	while (!stop) {
		drain(&ring);
		nanosleep(&period, NULL);
	}
	drain(&ring);

	int cpus = libbpf_num_possible_cpus(), key = 0;
	unsigned long long total = 0, per_cpu[1024];
	if (cpus > 0 && cpus <= 1024 && !bpf_map_lookup_elem(lost, &key, per_cpu))
		for (int i = 0; i < cpus; i++)
			total += per_cpu[i];
	fprintf(stderr, "lost %llu\n", total);
	return 0;
}
