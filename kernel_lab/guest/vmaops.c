/*
 * vmaops seed=N ops=N [window=PAGES] [seal=1] [lockall=1]
 *
 * A seeded sequence of calls that change an address space, each followed by what it changed. Output is
 * one JSON object a line:
 *   {"init":1, "seed":, "ops":, "window":[start,end], "fd_pages":, "brk":, "memlock":, "root":, "add":[...], "hash":}
 *   {"i":, "op":, "a":[arguments], "r": result or -errno, "del":[...], "add":[...]}
 *   {"ck":, "n": number of mappings, "hash":, VmSize and others of /proc/self/status in kB}   every 100
 *   {"final":1, "add":[...], "hash":}
 * "del" and "add" hold the mappings that went and came, in order of address, as a line of maps with single
 * blanks, "|", and the VmFlags of smaps; applied one after the other they give the whole map after each
 * call, of which "hash" is FNV-1a, 64 bit, each line followed by a newline.
 *
 * So that two kernels can be compared: the program's own file shows as "exe exe exe" for device, inode and
 * path, inodes of device 00:01 (memory files) as #1, #2 in order of first sight, and all below the stack
 * down to CEILING is taken, so that the kernel's choice of an address begins there. Calls have the
 * arguments of their system call; a mapping of the memory file has descriptor 0, others -1. "write" and
 * "read" touch one byte; their result is 1, or 0 where a mapping does not permit it or the file has no such
 * page, and then they do nothing.
 */
#include "guest.h"
#include <setjmp.h>

#define MAX_MAPPINGS 4096
#define LINE 200
#define WINDOW 0x100000000000UL
#define CEILING 0x7ffff0000000UL
#define FILE_PAGES 256UL
#define BIG_PAGE (512 * PAGE)

struct mapping {
	u64 start, end, offset;
	bool readable, writable, file;
	char line[LINE];
};

static struct mapping states[2][MAX_MAPPINGS], *now = states[0], *before = states[1];
static int nr_now, nr_before;
static char text[8 << 20], output[1 << 16];
static u64 window_pages = 1024, heap_start, heap_end;
static int file = -1;
static bool sealing, locking_all;

/* ---- the map as the kernel shows it ---- */

/* Memory files get their inode numbers from one counter of the whole kernel. */
static int inode_name(u64 inode)
{
	static u64 seen[8192];
	static int nr_seen;
	int i = 0;

	while (i < nr_seen && seen[i] != inode)
		i++;
	if (i == nr_seen) {
		if (nr_seen == 8192)
			fail("too many memory files");
		seen[nr_seen++] = inode;
	}
	return i + 1;
}

static void parse_mapping(struct mapping *m, char *line)
{
	static char own[256];
	char modes[8], device[16], *path = "";
	unsigned long start, end, offset, inode;
	int used = 0;

	if (!own[0] && readlink("/proc/self/exe", own, sizeof own - 1) < 0)
		fail("readlink");
	if (sscanf(line, "%lx-%lx %7s %lx %15s %lu%n", &start, &end, modes, &offset, device, &inode, &used) != 6)
		fail("no mapping: %s", line);
	path = line + used;
	while (*path == ' ')
		path++;
	m->start = start;
	m->end = end;
	m->offset = offset;
	m->readable = modes[0] == 'r';
	m->writable = modes[1] == 'w';
	m->file = strstr(path, "memfd:") != NULL;
	used = snprintf(m->line, LINE, "%08lx-%08lx %s %08lx ", start, end, modes, offset);
	if (!strcmp(path, own))
		used += snprintf(m->line + used, LINE - used, "exe exe exe");
	else if (!strcmp(device, "00:01"))
		used += snprintf(m->line + used, LINE - used, "%s #%d %s", device, inode_name(inode), path);
	else
		used += snprintf(m->line + used, LINE - used, "%s %lu%s%s", device, inode, *path ? " " : "", path);
	if (used >= LINE)
		fail("long line: %s", line);
}

static void add_flags(struct mapping *m, char *flags)
{
	int length = strlen(flags), used = strlen(m->line);

	while (length && flags[length - 1] == ' ')
		flags[--length] = 0;
	while (*flags == ' ')
		flags++;
	if (snprintf(m->line + used, LINE - used, "|%s", flags) >= LINE - used)
		fail("long flags");
}

static void look(void)
{
	struct mapping *other = before;
	char *next;

	before = now;
	nr_before = nr_now;
	now = other;
	nr_now = 0;
	read_file("/proc/self/smaps", text, sizeof text);
	for (char *line = text; *line; line = next + 1) {
		next = strchr(line, '\n');
		*next = 0;
		if (strchr("0123456789abcdef", *line)) {
			if (nr_now == MAX_MAPPINGS)
				fail("too many mappings");
			parse_mapping(&now[nr_now++], line);
		} else if (!strncmp(line, "VmFlags:", 8)) {
			add_flags(&now[nr_now - 1], line + 8);
		}
	}
}

/* The lines of one map that the other does not have; both are sorted by address. */
static void print_missing(const char *key, struct mapping *a, int nr_a, struct mapping *b, int nr_b)
{
	const char *separator = "";
	int j = 0;

	printf(",\"%s\":[", key);
	for (int i = 0; i < nr_a; i++) {
		while (j < nr_b && b[j].start < a[i].start)
			j++;
		if (j < nr_b && !strcmp(a[i].line, b[j].line))
			continue;
		printf("%s\"%s\"", separator, a[i].line);
		separator = ",";
	}
	printf("]");
}

static void print_hash(void)
{
	u64 hash = 0xcbf29ce484222325UL;

	for (int i = 0; i < nr_now; i++) {
		for (char *c = now[i].line; *c; c++)
			hash = (hash ^ (unsigned char)*c) * 0x100000001b3UL;
		hash = (hash ^ '\n') * 0x100000001b3UL;
	}
	printf(",\"hash\":\"%016lx\"", (unsigned long)hash);
}

static void print_check(u64 number)
{
	static const char *const counters[] = {
		"VmSize", "VmLck", "RssAnon", "RssFile", "RssShmem", "VmData", "VmStk", "VmExe", "VmPTE", "VmSwap",
	};
	static char status[8192];

	printf("{\"ck\":%lu,\"n\":%d", (unsigned long)number, nr_now);
	print_hash();
	read_file("/proc/self/status", status, sizeof status);
	for (unsigned i = 0; i < sizeof counters / sizeof *counters; i++) {
		char *found = strstr(status, counters[i]);

		if (found)
			printf(",\"%s\":%ld", counters[i], atol(strchr(found, ':') + 1));
	}
	printf("}\n");
}

/* ---- what to call ---- */

static u64 smaller(u64 a, u64 b)
{
	return a < b ? a : b;
}

static u64 any_address(void)
{
	return WINDOW + below(window_pages) * PAGE;
}

/* Mostly short, so that neighbours meet often. */
static u64 any_length(void)
{
	static const u64 most[] = { 4, 4, 4, 12, 12, 40, 40, 120 };

	return (1 + below(below(12) ? most[below(8)] : 1 + window_pages / 3)) * PAGE;
}

/* A range that has to do with what is mapped: the whole of a mapping, a part, or past its end. */
static void known_range(u64 *start, u64 *length)
{
	struct mapping *m = NULL;
	u64 seen = 0, pages, from;

	for (int i = 0; i < nr_now; i++)
		if (now[i].start >= WINDOW && now[i].end <= WINDOW + window_pages * PAGE && !below(++seen))
			m = &now[i];
	if (!m || !below(9)) {
		*start = any_address();
		*length = any_length();
		return;
	}
	pages = (m->end - m->start) / PAGE;
	from = below(2) ? 0 : below(pages);
	*start = m->start + from * PAGE;
	*length = (below(2) ? pages - from : 1 + below(pages - from)) * PAGE;
	if (!below(5))
		*length += (1 + below(40)) * PAGE;
	/* Seldom, what no caller should pass. */
	if (!below(60))
		*start += below(2) ? 1 : PAGE / 2;
	if (!below(60))
		*length -= below(*length < PAGE ? 1 : PAGE);
	if (!below(90))
		*length = 0;
}

static int any_protection(void)
{
	static const int some[] = {
		PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ, PROT_READ,
		PROT_NONE, PROT_WRITE, PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE | PROT_EXEC,
	};

	return some[below(9)];
}

static long call(long result)
{
	return result == -1 ? -errno : result;
}

static long do_map(void)
{
	int protection = any_protection(), flags, fd = -1;
	u64 start = any_address(), length = any_length(), offset = 0, kind = below(10), placing = below(10);

	flags = kind < 6 || kind == 7 ? MAP_PRIVATE : MAP_SHARED;
	if (kind == 7 || kind > 7) {
		fd = file;
		offset = below(FILE_PAGES) * PAGE;
	} else {
		flags |= MAP_ANONYMOUS;
	}
	if (placing < 5) {
		flags |= MAP_FIXED;
	} else if (placing < 7) {
		flags |= MAP_FIXED_NOREPLACE;
	} else if (placing < 9) {
		start = 0;
		if (!below(4))
			length = (1 + below(3)) * BIG_PAGE + below(2) * below(512) * PAGE;
	}
	flags |= below(10) ? 0 : MAP_NORESERVE;
	flags |= below(18) ? 0 : MAP_STACK;
	flags |= fd >= 0 || below(18) ? 0 : MAP_GROWSDOWN;
	flags |= length > 64 * PAGE || below(16) ? 0 : MAP_LOCKED;
	flags |= length > 64 * PAGE || below(12) ? 0 : MAP_POPULATE;
	if (!below(80))
		offset += 512;
	if (!below(80))
		length = 0;
	printf("\"mmap\",\"a\":[%lu,%lu,%d,%d,%d,%lu]", (unsigned long)start, (unsigned long)length, protection,
	       flags, fd < 0 ? -1 : 0, (unsigned long)offset);
	return call(syscall(SYS_mmap, start, length, protection, flags, fd, offset));
}

static long do_unmap(void)
{
	u64 start, length;

	if (below(2)) {
		known_range(&start, &length);
	} else {
		start = any_address();
		length = any_length();
	}
	printf("\"munmap\",\"a\":[%lu,%lu]", (unsigned long)start, (unsigned long)length);
	return call(syscall(SYS_munmap, start, length));
}

static long do_protect(void)
{
	int protection = any_protection();
	u64 start, length;

	known_range(&start, &length);
	if (!below(24))
		protection |= PROT_GROWSDOWN;
	printf("\"mprotect\",\"a\":[%lu,%lu,%d]", (unsigned long)start, (unsigned long)length, protection);
	return call(syscall(SYS_mprotect, start, length, protection));
}

static long do_remap(void)
{
	u64 start, length, new_length, to = 0, kind = below(12);
	int flags = below(3) ? MREMAP_MAYMOVE : 0;

	known_range(&start, &length);
	new_length = length;
	if (kind < 3)
		new_length = (1 + below(1 + length / PAGE)) * PAGE;
	else if (kind < 7)
		new_length = length + (1 + below(24)) * PAGE;
	if (kind == 8 || kind == 9 || !below(6)) {
		flags = MREMAP_MAYMOVE | MREMAP_FIXED;
		to = below(40) ? any_address() : any_address() + 8;
	}
	if (kind == 10) {
		flags |= MREMAP_MAYMOVE | MREMAP_DONTUNMAP;
		new_length = length;
	}
	if (kind == 11 && below(2))
		length = 0; /* a second mapping of shared memory */
	printf("\"mremap\",\"a\":[%lu,%lu,%lu,%d,%lu]", (unsigned long)start, (unsigned long)length,
	       (unsigned long)new_length, flags, (unsigned long)to);
	return call(syscall(SYS_mremap, start, length, new_length, flags, to));
}

static long do_advise(void)
{
	/* 18 to 25 are those from MADV_WIPEONFORK to MADV_COLLAPSE, which old headers lack. */
	static const int some[] = {
		MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTNEED, MADV_FREE, MADV_REMOVE,
		MADV_DONTFORK, MADV_DOFORK, MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
		MADV_DONTDUMP, MADV_DODUMP, 18, 19, 20, 22, 23, 24, 99,
	};
	int advice = some[below(sizeof some / sizeof *some)];
	u64 start, length;

	known_range(&start, &length);
	if (advice == 22 || advice == 23)
		length = smaller(length, 64 * PAGE);
	printf("\"madvise\",\"a\":[%lu,%lu,%d]", (unsigned long)start, (unsigned long)length, advice);
	return call(syscall(SYS_madvise, start, length, advice));
}

static long do_lock(void)
{
	u64 start, length, kind = below(4);

	known_range(&start, &length);
	length = smaller(length, 64 * PAGE);
	printf("\"%s\",\"a\":[%lu,%lu]", kind == 0 ? "mlock" : kind == 1 ? "mlock2_onfault" : "munlock",
	       (unsigned long)start, (unsigned long)length);
	if (kind == 1)
		return call(syscall(SYS_mlock2, start, length, 1));
	return call(syscall(kind ? SYS_munlock : SYS_mlock, start, length));
}

static long do_heap(void)
{
	u64 to = heap_end + below(64) * PAGE;

	to -= smaller(below(48) * PAGE, to - heap_start);
	if (!below(5))
		to += below(PAGE);
	printf("\"brk\",\"a\":[%lu]", (unsigned long)to);
	heap_end = syscall(SYS_brk, to);
	return heap_end;
}

static long do_seal(void)
{
	u64 start, length;

	known_range(&start, &length);
	length = smaller(length, 3 * PAGE);
	printf("\"mseal\",\"a\":[%lu,%lu]", (unsigned long)start, (unsigned long)length);
	return call(syscall(462, start, length, 0));
}

/* MCL_ONFAULT is always with it: the whole window need not be in memory. */
static long do_lock_all(void)
{
	u64 kind = below(4);
	int flags = MCL_ONFAULT | (kind == 1 ? MCL_CURRENT : kind == 2 ? MCL_FUTURE : MCL_CURRENT | MCL_FUTURE);

	if (!kind) {
		printf("\"munlockall\",\"a\":[]");
		return call(syscall(SYS_munlockall));
	}
	printf("\"mlockall\",\"a\":[%d]", flags);
	return call(syscall(SYS_mlockall, flags));
}

static sigjmp_buf back;

static void beyond_the_end(int number)
{
	siglongjmp(back, number);
}

static long do_touch(void)
{
	bool writing = below(3);
	u64 start, length, allowed = 0;

	known_range(&start, &length);
	for (int i = 0; i < nr_now; i++) {
		struct mapping *m = &now[i];

		if (start < m->start || start >= m->end || start < WINDOW || start >= WINDOW + window_pages * PAGE)
			continue;
		allowed = writing ? m->writable : m->readable;
		if (m->file && (m->offset + start - m->start) / PAGE >= FILE_PAGES)
			allowed = 0;
	}
	printf("\"%s\",\"a\":[%lu]", writing ? "write" : "read", (unsigned long)start);
	if (!allowed || sigsetjmp(back, 1))
		return 0;
	if (writing)
		*(volatile char *)start = 1;
	else
		(void)*(volatile char *)start;
	return 1;
}

static long one_call(void)
{
	u64 kind = below(100);

	if (kind < 28)
		return do_map();
	if (kind < 42)
		return do_unmap();
	if (kind < 57)
		return do_protect();
	if (kind < 68)
		return do_remap();
	if (kind < 80)
		return do_advise();
	if (kind < 84)
		return do_lock();
	if (kind < 87)
		return do_heap();
	if (kind < 88 && sealing)
		return do_seal();
	if (kind < 90 && locking_all)
		return do_lock_all();
	return do_touch();
}

/* ---- the program ---- */

/* What the program itself needs must not change the map later: its stack, and its buffers. */
static __attribute__((noinline)) void deep_stack(void)
{
	volatile char pages[48 * PAGE];

	for (int i = sizeof pages - 1; i >= 0; i -= PAGE)
		pages[i] = 1;
}

static void prepare(void)
{
	u64 lowest = ~0UL;

	signal(SIGBUS, beyond_the_end);
	deep_stack();
	setvbuf(stdout, output, _IOFBF, sizeof output);
	memset(text, 1, sizeof text);
	memset(states, 1, sizeof states);
	file = memfd_create("ops", 0);
	if (file < 0 || ftruncate(file, FILE_PAGES * PAGE))
		fail("memfd_create");
	look();
	for (int i = 0; i < nr_now; i++)
		if (now[i].start >= CEILING)
			lowest = smaller(lowest, now[i].start);
	map_pages((void *)CEILING, (lowest - CEILING) / PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	heap_start = heap_end = syscall(SYS_brk, 0);
	look();
}

static u64 option(int argc, char **argv, const char *key, u64 value)
{
	for (int i = 1; i < argc; i++)
		if (!strncmp(argv[i], key, strlen(key)) && argv[i][strlen(key)] == '=')
			value = strtoull(argv[i] + strlen(key) + 1, NULL, 10);
	return value;
}

int main(int argc, char **argv)
{
	u64 first = option(argc, argv, "seed", 1), ops = option(argc, argv, "ops", 100);
	struct rlimit locked;

	window_pages = option(argc, argv, "window", window_pages);
	sealing = option(argc, argv, "seal", 0);
	locking_all = option(argc, argv, "lockall", 0);
	seed(first);
	prepare();
	getrlimit(RLIMIT_MEMLOCK, &locked);
	printf("{\"init\":1,\"seed\":%lu,\"ops\":%lu,\"window\":[%lu,%lu],\"fd_pages\":%lu,\"brk\":%lu,\"memlock\":%ld,"
	       "\"root\":%d",
	       (unsigned long)first, (unsigned long)ops, WINDOW, (unsigned long)(WINDOW + window_pages * PAGE),
	       FILE_PAGES, (unsigned long)heap_start, (long)locked.rlim_cur, !geteuid());
	print_missing("add", now, nr_now, NULL, 0);
	print_hash();
	printf("}\n");
	for (u64 i = 0; i < ops; i++) {
		long result;

		printf("{\"i\":%lu,\"op\":", (unsigned long)i);
		errno = 0;
		result = one_call();
		printf(",\"r\":%ld", result);
		look();
		print_missing("del", before, nr_before, now, nr_now);
		print_missing("add", now, nr_now, before, nr_before);
		printf("}\n");
		if (i % 100 == 99)
			print_check(i);
	}
	printf("{\"final\":1");
	print_missing("add", now, nr_now, NULL, 0);
	print_hash();
	printf("}\n");
	return 0;
}
