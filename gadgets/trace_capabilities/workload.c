// Three times setpriority(2) by the native ABI, once by the 32-bit one; x86_64 only. `workload FILE` stays until
// FILE is there, so that its functions can be named.
#include <sys/resource.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long result;

	for (int n = 0; n < 3; n++)
		setpriority(PRIO_PROCESS, 0, -5);
	asm volatile("int $0x80" : "=a"(result) : "a"(97), "b"(0), "c"(0), "d"(-5) : "memory", "r8", "r9", "r10", "r11");
	for (int i = 0; argc > 1 && access(argv[1], F_OK) && i < 15000; i++)
		usleep(20000);
	return result != -1 && result != -13;
}
