// Installs a seccomp filter that answers getpriority(2) with EPERM, and mkdir(2) with a signal; then calls them and one that
// is allowed. `workload forks` makes processes that run no program, until it is killed. x86_64.
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void handler(int sig)
{
	(void)sig;
}

static void forks(void)
{
	puts("READY");
	fflush(stdout);
	for (;;) {
		if (!fork()) {
			syscall(SYS_getpriority, 1, 77);
			_exit(0);
		}
		wait(NULL);
	}
}

int main(int argc, char **argv)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpriority, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mkdir, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { .len = sizeof(code) / sizeof(code[0]), .filter = code };
	pid_t child;

	(void)argv;
	if (argc > 1)
		forks();
	signal(SIGSYS, handler);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter))
		return 1;
	for (int n = 0; n < 5; n++) {
		if (syscall(SYS_getpriority, 1, n) != -1)
			return 1;
		syscall(SYS_sched_getscheduler, 0);
	}
	syscall(SYS_mkdir, "/refused", 0755);
	// fchmodat2, of Linux 6.6; before that it is a call that fails.
	syscall(452, AT_FDCWD, "/not/there", 0600, 0);
	// Both leave calls by another way than they came in: the child, and the new program.
	child = vfork();
	if (!child) {
		execl("/bin/busybox", "true", (char *)NULL);
		_exit(1);
	}
	// What is still in execve when the container ends would be killed there.
	return child < 0 || waitpid(child, NULL, 0) != child;
}
