// SPDX-License-Identifier: Apache-2.0
/* A function to put uprobes on: prints the pid, waits for a line, calls probe_me with 1 to 5. */
#include <stdio.h>
#include <unistd.h>

__attribute__((noinline, noclone)) long probe_me(long x)
{
	__asm__ volatile("");
	return 3 * x + 1;
}

int main(void)
{
	long sum = 0;

	printf("%d\n", getpid());
	fflush(stdout);
	getchar();
	for (long x = 1; x <= 5; x++)
		sum += probe_me(x);
	return sum == 50 ? 0 : 1;
}
