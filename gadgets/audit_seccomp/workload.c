// Calls that a seccomp filter has logged, answers with an error that is logged, traps or kills for; and a signal that looks
// like the kernel's, but is made by the program itself. x86_64 and arm64.
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Until the file is there, so that the program's functions can be named. */
static int stay(const char *file)
{
	for (int i = 0; access(file, F_OK) && i < 15000; i++)
		usleep(20000);
	return 0;
}

static int install(int nr, unsigned int action, unsigned int flags)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { .len = 4, .filter = code };

	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
}

static void nothing(int sig)
{
	(void)sig;
}

static void *stopped(void *action)
{
	install(SYS_getsid, *(unsigned int *)action, 0);
	getsid(0);
	return NULL;
}

static int in_a_thread(unsigned int action)
{
	pthread_t thread;

	return pthread_create(&thread, NULL, stopped, &action) || pthread_join(thread, NULL);
}

static int pretend(void)
{
	siginfo_t info = { .si_signo = SIGSYS, .si_code = 1 };

	info.si_syscall = SYS_getpgid;
	return install(SYS_getsid, SECCOMP_RET_ERRNO, 0) ||
	       syscall(SYS_rt_tgsigqueueinfo, getpid(), getpid(), SIGSYS, &info) || raise(SIGSYS);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return 2;
	if (!strcmp(what, "log"))
		return install(SYS_getppid, SECCOMP_RET_LOG, 0) || getppid() < 0;
	if (!strcmp(what, "errno"))
		return install(SYS_getsid, SECCOMP_RET_ERRNO | EPERM, SECCOMP_FILTER_FLAG_LOG) || getsid(0) != -1;
	if (!strcmp(what, "kill"))
		return install(SYS_getpgid, SECCOMP_RET_KILL_PROCESS, 0) || getpgid(0);
	if (!strcmp(what, "thread"))
		return in_a_thread(SECCOMP_RET_KILL_THREAD);
	if (!strcmp(what, "process"))
		return in_a_thread(SECCOMP_RET_KILL_PROCESS);
	signal(SIGSYS, nothing);
	if (!strcmp(what, "trap"))
		return install(SYS_getpgid, SECCOMP_RET_TRAP, SECCOMP_FILTER_FLAG_LOG) || getpgid(0) == -1 ||
		       (argc > 2 && stay(argv[2]));
	if (!strcmp(what, "pretend"))
		return pretend();
	return 2;
}
