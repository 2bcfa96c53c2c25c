/*
 * fill megabytes=N kind=zero|text|noise
 *
 * Writes that much anonymous memory, page by page, then reads it again in the same order, and stays.
 * "zero" pages hold zeros, "text" pages half noise and half one byte, "noise" pages cannot be compressed.
 */
#include "guest.h"

static void fill(u64 *page, char kind)
{
	u64 words = kind == 'z' ? 0 : kind == 't' ? PAGE / 16 : PAGE / 8;

	for (u64 i = 0; i < PAGE / 8; i++)
		page[i] = i < words ? below(~0UL) * 0x9E3779B97F4A7C15UL : kind == 'z' ? 0 : 7;
}

int main(int argc, char **argv)
{
	const char *kind = "text";
	u64 pages = 256, wrong = 0;
	char *memory;

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "megabytes=", 10))
			pages = strtoull(argv[i] + 10, NULL, 10) * 256;
		else if (!strncmp(argv[i], "kind=", 5))
			kind = argv[i] + 5;
		else
			fail("no option %s", argv[i]);
	}
	memory = map_pages(NULL, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
	for (u64 i = 0; i < pages; i++) {
		seed(i);
		fill((u64 *)(memory + i * PAGE), *kind);
	}
	printf("written %lu pages of %s\n", (unsigned long)pages, kind);
	fflush(stdout);
	sleep(3);
	for (u64 i = 0; i < pages; i++) {
		static u64 expected[PAGE / 8];

		seed(i);
		fill(expected, *kind);
		wrong += memcmp(expected, memory + i * PAGE, PAGE) != 0;
	}
	printf("read them, %lu wrong\n", (unsigned long)wrong);
	fflush(stdout);
	sleep(3600);
	return 0;
}
