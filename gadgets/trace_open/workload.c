// `workload FILE`: opens a file that is not there, and stays until FILE is, so that its functions can be named.
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int fd = open("/missing", O_RDONLY);

	for (int i = 0; argc > 1 && access(argv[1], F_OK) && i < 15000; i++)
		usleep(20000);
	return fd != -1;
}
