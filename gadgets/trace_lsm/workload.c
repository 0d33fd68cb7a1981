// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// Asks hooks whose answer is not 0 where no security module has an opinion, and makes a folder if no program there changed it.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static int is(int right, const char *what)
{
	if (!right)
		perror(what);
	return right;
}

int main(void)
{
	char name[16] = "";
	int shm, ok = 1, fd = open("/dev/labelled", O_CREAT | O_RDWR, 0600);

	// A file in memory takes attributes of users since Linux 6.6.
	ok &= is(fd >= 0, "open");
	ok &= is(!setxattr("/dev/labelled", "user.note", "x", 1, 0) || errno == EOPNOTSUPP, "setxattr");
	ok &= is(prctl(PR_SET_NAME, "asks-lsm") == 0, "PR_SET_NAME");
	ok &= is(prctl(PR_GET_NAME, name) == 0 && !strcmp(name, "asks-lsm"), "PR_GET_NAME");
	ok &= is(prctl(12345) == -1 && errno == EINVAL, "an option that there is not");
	shm = shmget(IPC_PRIVATE, 4096, 0600);
	ok &= is(shm >= 0 && shmctl(shm, IPC_RMID, NULL) == 0, "shmctl");
	// The row of this says that all was well.
	return !(ok && is(mkdir("/dev/all-well", 0700) == 0, "mkdir"));
}
