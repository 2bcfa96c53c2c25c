/* What guest programs share. They are single files without threads: one CPU, one order of events. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define UNUSED __attribute__((unused))

typedef uint64_t u64;
typedef uint32_t u32;

/* Say what failed, on standard output, where the capture sees it, and exit. */
UNUSED __attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("failed: ");
	vprintf(format, args);
	printf(" (%s)\n", strerror(errno));
	va_end(args);
	fflush(stdout);
	_exit(1);
}

/* Read a file into a buffer and end it with a 0; the buffer must hold all of it. */
UNUSED static void read_file(const char *path, char *buffer, size_t size)
{
	int fd = open(path, O_RDONLY);
	size_t used = 0;
	ssize_t got;

	if (fd < 0)
		fail("open %s", path);
	while (used < size - 1 && (got = read(fd, buffer + used, size - 1 - used)) > 0)
		used += got;
	buffer[used] = 0;
	close(fd);
}

UNUSED static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fail("write %s", path);
	close(fd);
}

/* Pages with their own mapping, at a fixed address if one is given. */
UNUSED static char *map_pages(void *at, u64 pages, int protection, int flags, int fd)
{
	char *start = mmap(at, pages * PAGE, protection, flags | (at ? MAP_FIXED : 0), fd, 0);

	if (start == MAP_FAILED)
		fail("mmap of %lu pages", (unsigned long)pages);
	return start;
}

/* A sequence of numbers that depends on the seed only: Marsaglia's xorshift, multiplied. */
static u64 random_state = 1;

UNUSED static void seed(u64 value)
{
	random_state = value * 0x9E3779B97F4A7C15UL + 1;
}

UNUSED static u64 below(u64 limit)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * 0x2545F4914F6CDD1DUL >> 16) % limit;
}
