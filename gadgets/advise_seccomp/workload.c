// `workload`: a child that has installed a filter of its own and calls without end, and a parent without one that calls now and
// then. `workload forks`: one that makes processes which run no program. Both go on until they are killed.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <stdio.h>
#include <unistd.h>

static void sandboxed(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog filter = { .len = 1, .filter = &allow };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter))
		_exit(1);
	puts("READY");
	fflush(stdout);
	for (;;)
		getppid();
}

static void forks(void)
{
	puts("READY");
	fflush(stdout);
	for (;;) {
		if (!fork()) {
			getpriority(PRIO_PROCESS, 0);
			_exit(0);
		}
		wait(NULL);
	}
}

int main(int argc, char **argv)
{
	(void)argv;
	if (argc > 1)
		forks();
	if (!fork())
		sandboxed();
	for (;;) {
		usleep(200 * 1000);
		getpriority(PRIO_PROCESS, 0);
	}
}
