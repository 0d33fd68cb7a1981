// Three times setpriority(2) by the native ABI, once by the 32-bit one; x86_64 only.
#include <sys/resource.h>

int main(void)
{
	long result;

	for (int n = 0; n < 3; n++)
		setpriority(PRIO_PROCESS, 0, -5);
	asm volatile("int $0x80" : "=a"(result) : "a"(97), "b"(0), "c"(0), "d"(-5) : "memory", "r8", "r9", "r10", "r11");
	return result != -1 && result != -13;
}
