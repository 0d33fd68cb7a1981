/* Calls of the allocator with sizes that nothing else asks for. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* so that the compiler keeps calls whose result nobody needs */
static void *volatile kept;
static volatile size_t large = (size_t)1 << 33;

__attribute__((noinline)) static void inner(void)
{
	kept = malloc(123457);
}

int main(int argc, char **argv)
{
	void *aligned = NULL;
	int wrong = 0;

	if (argc > 1 && !strcmp(argv[1], "many")) {
		for (int i = 0; i < 1000; i++) {
			kept = malloc(777 + i % 2);
			free(kept);
		}
		return 0;
	}
	inner();
	kept = realloc(kept, 234569);
	free(kept);
	kept = calloc(3, 11117);
	free(kept);
	kept = calloc(large, large);
	kept = reallocarray(NULL, 5, 1009);
	free(kept);
	if (posix_memalign(&aligned, 64, 345671))
		return 1;
	kept = aligned;
	free(kept);
	wrong = posix_memalign(&aligned, 3, 456791);
	kept = aligned_alloc(64, 64 * 1013);
	free(kept);
	kept = memalign(64, 567899);
	free(kept);
	kept = mmap(NULL, 678913, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(kept, 678913);
	free(NULL);
	/* until its stacks have been named */
	for (int i = 0; argc > 2 && !strcmp(argv[1], "stay") && access(argv[2], F_OK) && i < 15000; i++)
		usleep(20000);
	return !wrong;
}
