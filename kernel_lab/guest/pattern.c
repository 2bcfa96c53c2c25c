/*
 * pattern megabytes=N hot=N seconds=N
 *
 * Memory with a known pattern of use, for what watches accesses: of N megabytes at a fixed address, all
 * touched once, the first "hot" ones are read again and again for half of the time, then the last ones.
 *
 * Each round changes the protection of a range of its own that is so long that the kernel drops the whole
 * TLB: QEMU sets an accessed bit only when it loads its own, and whoever clears the bit does not flush.
 */
#include "guest.h"

#define MEGABYTE (256 * PAGE)
#define FLUSHED 256UL

static u64 option(int argc, char **argv, const char *key)
{
	for (int i = 1; i < argc; i++)
		if (!strncmp(argv[i], key, strlen(key)) && argv[i][strlen(key)] == '=')
			return strtoull(argv[i] + strlen(key) + 1, NULL, 10);
	fail("%s=N is missing", key);
}

static u64 now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000UL + time.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
	u64 size = option(argc, argv, "megabytes") * MEGABYTE, hot = option(argc, argv, "hot") * MEGABYTE;
	u64 time = option(argc, argv, "seconds") * 1000, start;
	char *memory = map_pages((void *)0x200000000000UL, size / PAGE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1);
	char *flushed = map_pages(NULL, FLUSHED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	madvise(memory, size, MADV_NOHUGEPAGE);
	madvise(flushed, FLUSHED * PAGE, MADV_NOHUGEPAGE);
	for (u64 at = 0; at < size; at += PAGE)
		memory[at] = 1;
	memset(flushed, 1, FLUSHED * PAGE);
	printf("range %lx-%lx hot %lx-%lx then %lx-%lx\n", (unsigned long)memory, (unsigned long)memory + size,
	       (unsigned long)memory, (unsigned long)memory + hot, (unsigned long)memory + size - hot,
	       (unsigned long)memory + size);
	fflush(stdout);
	start = now();
	for (u64 round = 0; now() - start < time; round++) {
		char *from = now() - start < time / 2 ? memory : memory + size - hot;

		mprotect(flushed, FLUSHED * PAGE, round % 2 ? PROT_READ | PROT_WRITE : PROT_READ);
		for (u64 at = 0; at < hot; at += PAGE)
			(void)*(volatile char *)(from + at);
		usleep(2000);
	}
	return 0;
}
