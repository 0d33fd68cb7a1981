// Opens a file that is not there, and stays for two seconds, so that its functions can be named.
#include <fcntl.h>
#include <unistd.h>

int main(void)
{
	int fd = open("/missing", O_RDONLY);

	sleep(6);
	return fd != -1;
}
