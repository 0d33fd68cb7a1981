// `workload FILE`: writes 32 blocks of 4 KiB over what stands in FILE, all in one call and past the kernel's memory: first every
// other one, then those between, so that a disk with a queue puts requests together.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BLOCKS 32
#define BLOCK 4096

int main(int argc, char **argv)
{
	static char data[BLOCK] __attribute__((aligned(BLOCK)));
	struct io_event done[BLOCKS];
	struct iocb requests[BLOCKS], *list[BLOCKS];
	aio_context_t queue = 0;
	int fd = argc > 1 ? open(argv[1], O_WRONLY | O_DIRECT) : -1;

	if (fd < 0 || syscall(SYS_io_setup, BLOCKS, &queue))
		return 1;
	memset(requests, 0, sizeof(requests));
	for (int n = 0; n < BLOCKS; n++) {
		int block = n < BLOCKS / 2 ? 2 * n : 2 * (n - BLOCKS / 2) + 1;

		requests[n].aio_lio_opcode = IOCB_CMD_PWRITE;
		requests[n].aio_fildes = fd;
		requests[n].aio_buf = (unsigned long)data;
		requests[n].aio_nbytes = BLOCK;
		requests[n].aio_offset = block * BLOCK;
		list[n] = &requests[n];
	}
	if (syscall(SYS_io_submit, queue, BLOCKS, list) != BLOCKS)
		return 1;
	return syscall(SYS_io_getevents, queue, BLOCKS, BLOCKS, done, NULL) != BLOCKS;
}
