// Opens ten thousand files in /many, says so, and waits.
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	char path[32];

	for (int i = 0; i < 10000; i++) {
		snprintf(path, sizeof(path), "/many/%d", i);
		if (open(path, O_RDWR | O_CREAT, 0600) < 0) {
			perror(path);
			return 1;
		}
	}
	puts("READY");
	fflush(stdout);
	pause();
	return 0;
}
