/*
 * readahead FILE
 *
 * Which pages of a file or block device come into the page cache with each access of some patterns. A
 * line is "PATTERN STEP ACCESS FIRST+COUNT new FIRST-LAST,..."; page numbers are relative to a window of
 * WINDOW pages at the beginning of the file (of the patterns named at_end: at its end, at which "+n"
 * may reach beyond it). What is new is what mincore() says after the access and did not before; it counts
 * pages that are up to date, and a device that answers at once has read them by then.
 */
#include "guest.h"
#include <linux/fs.h>
#include <sys/ioctl.h>

#define WINDOW 4096L
#define STEPS 40L

static const char *path;
static int file;
static char *window, buffer[256 * PAGE];
static long window_start, end;
static unsigned char cached[WINDOW], before[WINDOW];

enum access { READ, TOUCH, WILLNEED, READAHEAD, ADVISED };
static const char *const access_names[] = { "read", "touch", "willneed", "readahead", "madvise-willneed" };

static void report(const char *pattern, long step, enum access how, long first, long count)
{
	const char *separator = "";

	if (mincore(window, WINDOW * PAGE, cached))
		fail("mincore");
	printf("%s %ld %s %ld+%ld new ", pattern, step, access_names[how], first, count);
	for (long i = 0; i < WINDOW; i++) {
		long last = i;

		if (!(cached[i] & 1) || before[i] & 1)
			continue;
		while (last + 1 < WINDOW && cached[last + 1] & 1 && !(before[last + 1] & 1))
			last++;
		printf("%s%ld-%ld", separator, i, last);
		separator = ",";
		i = last;
	}
	printf("\n");
	memcpy(before, cached, sizeof before);
}

static void do_access(const char *pattern, long step, enum access how, long first, long count)
{
	off_t at = (window_start + first) * PAGE;

	if (how == READ && pread(file, buffer, count * PAGE, at) < 0)
		fail("pread");
	else if (how == TOUCH)
		(void)*(volatile char *)(window + first * PAGE);
	else if (how == WILLNEED)
		posix_fadvise(file, at, count * PAGE, POSIX_FADV_WILLNEED);
	else if (how == READAHEAD)
		readahead(file, at, count * PAGE);
	else if (how == ADVISED)
		madvise(window + first * PAGE, count * PAGE, MADV_WILLNEED);
	report(pattern, step, how, first, count);
}

/* A fresh descriptor on a file that is not cached. */
static void begin(bool at_end, int advice, int map_advice)
{
	if (window)
		munmap(window, WINDOW * PAGE);
	if (file > 0)
		close(file);
	sync();
	write_file("/proc/sys/vm/drop_caches", "1");
	file = open(path, O_RDONLY);
	window_start = at_end ? end - WINDOW : 0;
	window = mmap(NULL, WINDOW * PAGE, PROT_READ, MAP_SHARED, file, window_start * PAGE);
	if (file < 0 || window == MAP_FAILED)
		fail("open or mmap of %s", path);
	if (advice)
		posix_fadvise(file, 0, 0, advice);
	if (map_advice)
		madvise(window, WINDOW * PAGE, map_advice);
	memset(before, 0, sizeof before);
}

/* The same distance and length at each step. */
static void regular(const char *pattern, enum access how, long stride, long count)
{
	for (long i = 0; i < STEPS && i * stride + count <= WINDOW; i++)
		do_access(pattern, i, how, i * stride, count);
}

static void scattered(const char *pattern, enum access how, long longest)
{
	for (long i = 0; i < STEPS; i++) {
		long count = 1 + below(longest);

		do_access(pattern, i, how, below(WINDOW - longest), count);
	}
}

static void sequential(void)
{
	static const long counts[] = { 1, 2, 3, 4, 7, 16, 32, 33, 64, 100 };
	char name[32];

	for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
		begin(false, 0, 0);
		snprintf(name, sizeof name, "sequential-%ld", counts[i]);
		regular(name, READ, counts[i], counts[i]);
	}
	begin(false, 0, 0);
	for (long i = 0; i < STEPS; i++)
		do_access("from-500", i, READ, 500 + i, 1);
	begin(false, 0, 0);
	for (long i = 0; i < STEPS; i++)
		do_access("backward", i, READ, WINDOW - 1 - i, 1);
	begin(false, 0, 0);
	for (long i = 0; i < STEPS; i++)
		do_access("two-streams", i, READ, (i & 1) * 1024 + i / 2, 1);
	begin(false, 0, 0);
	for (long i = 0; i < STEPS; i++)
		do_access("sequential-after-scattered", i, READ, i < 12 ? (long)below(WINDOW) : 512 + i, 1);
	begin(false, 0, 0);
	for (long i = 0; i < STEPS; i++)
		do_access("growing", i, READ, i * (i + 1) / 2, i + 1);
	begin(true, 0, 0);
	for (long i = 0; i < STEPS; i++)
		do_access("at_end", i, READ, WINDOW - 24 + i, 1);
}

static void strided(void)
{
	static const long strides[] = { 2, 3, 8, 31, 64 };
	char name[32];

	for (unsigned i = 0; i < sizeof strides / sizeof *strides; i++) {
		begin(false, 0, 0);
		snprintf(name, sizeof name, "stride-%ld", strides[i]);
		regular(name, READ, strides[i], 1);
	}
	begin(false, 0, 0);
	scattered("scattered-1", READ, 1);
	begin(false, 0, 0);
	scattered("scattered-48", READ, 48);
}

static void advised(void)
{
	begin(false, POSIX_FADV_RANDOM, 0);
	regular("fadvise-random", READ, 1, 1);
	begin(false, POSIX_FADV_RANDOM, 0);
	regular("fadvise-random-64", READ, 64, 64);
	begin(false, POSIX_FADV_SEQUENTIAL, 0);
	regular("fadvise-sequential", READ, 1, 1);
	begin(false, POSIX_FADV_SEQUENTIAL, 0);
	regular("fadvise-sequential-4", READ, 4, 4);
	begin(false, POSIX_FADV_NOREUSE, 0);
	regular("fadvise-noreuse", READ, 1, 1);
	begin(false, 0, 0);
	scattered("willneed", WILLNEED, 90);
	begin(false, 0, 0);
	scattered("readahead", READAHEAD, 90);
	begin(false, 0, 0);
	scattered("madvise-willneed", ADVISED, 90);
}

static void mapped(void)
{
	begin(false, 0, 0);
	regular("touch-sequential", TOUCH, 1, 1);
	begin(false, 0, 0);
	regular("touch-stride-16", TOUCH, 16, 1);
	begin(false, 0, 0);
	scattered("touch-scattered", TOUCH, 1);
	begin(false, 0, MADV_RANDOM);
	regular("touch-madvise-random", TOUCH, 1, 1);
	begin(false, 0, MADV_SEQUENTIAL);
	regular("touch-madvise-sequential", TOUCH, 1, 1);
	begin(false, 0, 0);
	for (long i = 0; i < STEPS; i++)
		do_access("read-then-touch", i, i < 20 ? READ : TOUCH, i, 1);
}

int main(int argc, char **argv)
{
	u64 bytes = 0;
	struct stat status;

	if (argc != 2)
		fail("readahead FILE");
	path = argv[1];
	file = open(path, O_RDONLY);
	if (file < 0 || fstat(file, &status))
		fail("%s", path);
	if (S_ISBLK(status.st_mode) ? ioctl(file, BLKGETSIZE64, &bytes) : !(bytes = status.st_size))
		fail("size of %s", path);
	end = bytes / PAGE;
	seed(1);
	memset(buffer, 1, sizeof buffer);
	printf("pages %ld window %ld\n", end, WINDOW);
	sequential();
	strided();
	advised();
	mapped();
	return 0;
}
