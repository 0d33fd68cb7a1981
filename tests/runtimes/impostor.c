// SPDX-License-Identifier: Apache-2.0
/*
 * Passes itself off as a container runtime: compiled to a file named `runc` and called as `runc run ID`, it makes a mount
 * namespace as any user may, in a user namespace of its own, and runs a program there that prints the namespace's number.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	int status;

	if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) {
		perror("unshare");
		return 1;
	}
	pid_t child = fork();
	if (child == 0) {
		execl("/bin/busybox", "/bin/busybox", "readlink", "/proc/self/ns/mnt", (char *)0);
		perror("/bin/busybox");
		_exit(1);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
		return 1;
	return WEXITSTATUS(status);
}
