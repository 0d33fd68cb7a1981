// Three times setpriority(2) by the native ABI, once by the 32-bit one; x86_64 only.
//
// `workload stay` stays for two seconds, so that its functions can be named. `workload exec` then becomes the same program
// anew. `workload reuse` does it in a child, and again in another child with the same number (of the first pid namespace:
// CAP_SYS_ADMIN there).
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long ask(void)
{
	long result;

	for (int n = 0; n < 3; n++)
		setpriority(PRIO_PROCESS, 0, -5);
	asm volatile("int $0x80" : "=a"(result) : "a"(97), "b"(0), "c"(0), "d"(-5) : "memory", "r8", "r9", "r10", "r11");
	return result;
}

// A child; with `pid` not 0 one of that number.
static int child(int pid)
{
	struct clone_args how = { .exit_signal = SIGCHLD };
	long born;

	if (pid) {
		how.set_tid = (unsigned long)&pid;
		how.set_tid_size = 1;
	}
	born = syscall(SYS_clone3, &how, sizeof(how));
	if (born == 0) {
		ask();
		_exit(0);
	}
	if (born > 0)
		waitpid(born, NULL, 0);
	return born;
}

static int reuse(void)
{
	// Somebody else may have got the number meanwhile: then with the next one. The first child is another one each time.
	for (int n = 0; n < 20; n++) {
		int first = child(0);

		if (first > 0 && child(first) == first)
			return 0;
	}
	return 1;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	long result;

	if (!strcmp(what, "reuse"))
		return reuse();
	result = ask();
	if (!strcmp(what, "stay"))
		sleep(2);
	if (!strcmp(what, "exec"))
		execl("/workload", "workload", (char *)NULL);
	return result != -1 && result != -13;
}
