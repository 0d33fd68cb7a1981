// What busybox cannot do: the calls that Linux 5.2 brought, calls of 32-bit programs, and odd ones.
//
// `workload new DIR`, `workload old32 DIR`, `workload odd`, `workload long`. Numbers of the calls stand here because C libraries may lack them.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OPEN_TREE = 428, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, FSPICK, MOUNT_SETATTR = 442 };

static int step(const char *what, long result)
{
	if (result >= 0)
		return result;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	_exit(1);
}

static void new_calls(const char *dir)
{
	struct { unsigned long long set, clear, propagation, userns; } attr = { .set = 8, .clear = 1 };
	int fs = step("fsopen", syscall(FSOPEN, "tmpfs", 1));
	int mnt, tree;

	step("source", syscall(FSCONFIG, fs, 1, "source", "my-source", 0));
	step("size", syscall(FSCONFIG, fs, 1, "size", "1m", 0));
	step("create", syscall(FSCONFIG, fs, 6, NULL, NULL, 0));
	mnt = step("fsmount", syscall(FSMOUNT, fs, 1, 1));
	step("move_mount", syscall(MOVE_MOUNT, mnt, "", AT_FDCWD, dir, 4));
	tree = step("open_tree", syscall(OPEN_TREE, AT_FDCWD, dir, 02000001));
	close(tree);
	// Kernels before 5.12 do not have it.
	if (syscall(MOUNT_SETATTR, AT_FDCWD, dir, 0, &attr, sizeof(attr)) && errno != ENOSYS)
		step("mount_setattr", -1);
	step("fspick", syscall(FSPICK, AT_FDCWD, dir, 1));
	step("umount2", umount2(dir, MNT_DETACH));
	// A context of nothing, and a file that is no context.
	syscall(FSCONFIG, -1, 0, "ro", NULL, 0);
	syscall(FSCONFIG, 0, 0, "ro", NULL, 0);
}

#ifdef __x86_64__
static long call32(long nr, const void *a, const void *b, const void *c, long d, const void *e)
{
	long result;

	asm volatile("int $0x80"
		     : "=a"(result)
		     : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
		     : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static void old_calls_of_32_bits(const char *dir)
{
	// In the first 4 GiB, where such a call can reach: the program is not relocatable.
	static char where[256], none[] = "none32", fs[] = "tmpfs", data[] = "size=2m";

	strncpy(where, dir, sizeof(where) - 1);
	if (call32(21, none, where, fs, MS_NOSUID, data) || call32(52, where, NULL, NULL, 0, NULL))
		_exit(1);
	// The one without flags: what stands in the register is none.
	if (call32(21, none, where, fs, MS_NOSUID, data) || call32(22, where, (void *)0x1234567f, NULL, 0, NULL))
		_exit(1);
}
#endif

// Longer than there is room for, and just as long.
static void long_texts(void)
{
	static char source[901], key[257], type[65];
	int fs = step("fsopen", syscall(FSOPEN, "tmpfs", 0));

	memset(source, 's', sizeof(source) - 1);
	memset(key, 'k', sizeof(key) - 1);
	memset(type, 't', sizeof(type) - 1);
	syscall(FSCONFIG, fs, 1, "source", source, 0);
	source[511] = '\0';
	syscall(FSCONFIG, fs, 1, "source", source, 0);
	syscall(FSCONFIG, fs, 0, key, NULL, 0);
	key[255] = '\0';
	syscall(FSCONFIG, fs, 0, key, NULL, 0);
	syscall(FSOPEN, type, 0);
	type[63] = '\0';
	syscall(FSOPEN, type, 0);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "new"))
		new_calls(argv[2]);
#ifdef __x86_64__
	else if (!strcmp(what, "old32"))
		old_calls_of_32_bits(argv[2]);
#endif
	else if (!strcmp(what, "long"))
		long_texts();
	else if (!strcmp(what, "odd"))
		// Texts that are not there, and one that is no address at all.
		mount(NULL, "/mnt", (char *)8, 0xc0ed0000 | MS_REMOUNT | MS_BIND, NULL);
	else
		return 2;
	return 0;
}
