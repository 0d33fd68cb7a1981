// A process whose first thread has ended, while another goes on, with a name of its own.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int first_has_ended(void)
{
	char path[64], stat[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", getpid());
	file = fopen(path, "r");
	if (!file)
		return 0;
	if (!fgets(stat, sizeof(stat), file))
		stat[0] = 0;
	fclose(file);
	return strstr(stat, ") Z ") != NULL;
}

static void *goes_on(void *unused)
{
	pthread_setname_np(pthread_self(), "second");
	while (!first_has_ended())
		usleep(10 * 1000);
	puts("READY");
	fflush(stdout);
	pause();
	return unused;
}

int main(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, goes_on, NULL))
		return 1;
	pthread_exit(NULL);
}
