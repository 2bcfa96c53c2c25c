/*
 * pagemap: what stands in the page table for known mappings, step by step.
 *
 * The steps and their labels are those of mmcore/report/pgmap.py, which takes them on the model.
 * A line is: label, page of the mapping, then "-" for an empty word of /proc/self/pagemap, or
 *   pfn= P(resent) F(ile or shared) D (soft-dirty) X (exclusive) W (write-protected for userfaultfd)
 *   count= (how often it is mapped) and the names of its bits in /proc/kpageflags;
 * "label status" lines have sizes of /proc/self/status and fault counts.
 */
#include "guest.h"

#define SOFT_DIRTY (1UL << 55)
#define EXCLUSIVE (1UL << 56)
#define WRITE_PROTECTED (1UL << 57)
#define FILE_OR_SHARED (1UL << 61)
#define SWAPPED (1UL << 62)
#define PRESENT (1UL << 63)

#define READ_WRITE (PROT_READ | PROT_WRITE)
#define PRIVATE (MAP_PRIVATE | MAP_ANONYMOUS)

static const char *const page_flags[64] = {
	"LOCKED", "ERROR", "REFERENCED", "UPTODATE", "DIRTY", "LRU", "ACTIVE", "SLAB", "WRITEBACK",
	"RECLAIM", "BUDDY", "MMAP", "ANON", "SWAPCACHE", "SWAPBACKED", "COMPOUND_HEAD", "COMPOUND_TAIL",
	"HUGE", "UNEVICTABLE", "HWPOISON", "NOPAGE", "KSM", "THP", "OFFLINE", "ZERO_PAGE", "IDLE", "PGTABLE",
	[32] = "RESERVED", "MLOCKED", "OWNER_2", "PRIVATE", "PRIVATE_2", "OWNER_PRIVATE", "ARCH", "UNCACHED",
	"SOFTDIRTY", "ARCH_2", "ARCH_3",
};

static int pagemap, kpageflags, kpagecount;
static char text[1 << 14];

static u64 word(int fd, u64 index)
{
	u64 value = 0;

	if (pread(fd, &value, sizeof value, index * sizeof value) != sizeof value)
		fail("pread of word %lu", (unsigned long)index);
	return value;
}

static void show(const char *label, char *base, int from, int count)
{
	for (int i = from; i < from + count; i++) {
		u64 entry = word(pagemap, (u64)base / PAGE + i), flags, pfn = entry & (SOFT_DIRTY - 1);

		if (!entry || entry & SWAPPED) {
			printf("%s %d %s\n", label, i, entry ? "SWAP" : "-");
			continue;
		}
		printf("%s %d pfn=%lx%s%s%s%s%s", label, i, (unsigned long)pfn, entry & PRESENT ? " P" : "",
		       entry & FILE_OR_SHARED ? " F" : "", entry & SOFT_DIRTY ? " D" : "",
		       entry & EXCLUSIVE ? " X" : "", entry & WRITE_PROTECTED ? " W" : "");
		flags = entry & PRESENT ? word(kpageflags, pfn) : 0;
		printf(" count=%lu", entry & PRESENT ? (unsigned long)word(kpagecount, pfn) : 0);
		for (int bit = 0; bit < 64; bit++)
			if (flags >> bit & 1 && page_flags[bit])
				printf(" %s", page_flags[bit]);
		printf("\n");
	}
}

static void status(const char *label)
{
	static const char *const names[] = { "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmPTE", "VmLck", "VmSwap" };
	struct rusage usage;

	read_file("/proc/self/status", text, sizeof text);
	printf("%s status", label);
	for (unsigned int i = 0; i < sizeof names / sizeof *names; i++) {
		char *found = strstr(text, names[i]);

		if (found)
			printf(" %s=%ld", names[i], atol(strchr(found, ':') + 1));
	}
	getrusage(RUSAGE_SELF, &usage);
	printf(" minflt=%ld majflt=%ld\n", usage.ru_minflt, usage.ru_majflt);
}

static void rd(char *base, int page)
{
	(void)((volatile char *)base)[page * PAGE];
}

static void wr(char *base, int page)
{
	((volatile char *)base)[page * PAGE] = page + 1;
}

/* Fork; the child looks at its own page tables. */
static pid_t child(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid)
		return pid;
	close(pagemap);
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	return 0;
}

static void leave(void)
{
	fflush(stdout);
	_exit(0);
}

/* Parent and child take turns: each side gives the turn away and waits for it to come back. */
static int turns[2][2];

static void give(int to)
{
	fflush(stdout);
	if (write(turns[to][1], "x", 1) != 1)
		fail("give");
}

static void await(int side)
{
	char byte;

	if (read(turns[side][0], &byte, 1) != 1)
		fail("await");
}

enum { PARENT, CHILD };

static void forked(char *a)
{
	pid_t pid;

	if (pipe(turns[PARENT]) || pipe(turns[CHILD]))
		fail("pipe");
	pid = child();
	if (!pid) {
		show("b0 child after fork", a, 0, 8);
		give(PARENT);
		await(CHILD);
		show("b2 child after parent wrote 2", a, 0, 8);
		wr(a, 3);
		show("b3 child wrote 3", a, 0, 8);
		wr(a, 2);
		show("b3 child wrote 2", a, 0, 8);
		give(PARENT);
		await(CHILD);
		leave();
	}
	await(PARENT);
	show("b1 parent after fork", a, 0, 8);
	wr(a, 2);
	show("b2 parent wrote 2", a, 0, 8);
	give(CHILD);
	await(PARENT);
	show("b3 parent", a, 0, 8);
	give(CHILD);
	waitpid(pid, NULL, 0);
	show("b4 parent after child exit", a, 0, 8);
	wr(a, 4);
	show("b5 parent wrote 4 (sole owner)", a, 0, 8);
	wr(a, 3);
	show("b5 parent wrote 3", a, 0, 8);
	status("b5");
}

static void anonymous(void)
{
	char *a = map_pages((void *)0x200000000000, 8, READ_WRITE, PRIVATE, -1);

	status("a0");
	show("a0 untouched", a, 0, 8);
	rd(a, 0);
	rd(a, 1);
	status("a1");
	show("a1 read 0,1", a, 0, 8);
	wr(a, 2);
	wr(a, 3);
	wr(a, 4);
	show("a2 write 2,3,4", a, 0, 8);
	wr(a, 0);
	show("a3 write 0 after read", a, 0, 8);
	status("a3");
	forked(a);
	write_file("/proc/self/clear_refs", "4");
	show("c0 cleared", a, 0, 8);
	wr(a, 2);
	rd(a, 3);
	wr(a, 1);
	show("c1 wrote 2,1 read 3", a, 0, 8);
	madvise(a + 2 * PAGE, PAGE, MADV_DONTNEED);
	madvise(a + 3 * PAGE, 2 * PAGE, MADV_FREE);
	show("d0 DONTNEED 2, FREE 3,4", a, 0, 8);
	wr(a, 3);
	show("d1 wrote 3", a, 0, 8);
	mprotect(a, PAGE, PROT_NONE);
	show("d2 NONE 0", a, 0, 8);
	mprotect(a, PAGE, READ_WRITE);
	if (mlock(a + 5 * PAGE, 2 * PAGE))
		fail("mlock");
	show("d3 mlock 5,6", a, 0, 8);
	status("d3");
	munlock(a + 5 * PAGE, 2 * PAGE);
	show("d4 munlock", a, 0, 8);
	if (mremap(a + 6 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, a + 64 * PAGE) == MAP_FAILED)
		fail("mremap");
	show("d5 page 6 moved away", a, 0, 8);
	show("d5 destination", a + 64 * PAGE, 0, 1);
	munmap(a, 65 * PAGE);
	status("d6 unmapped");
}

static void files(void)
{
	char *s = map_pages((void *)0x200040000000, 4, READ_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1), *f, *g;
	int fd = memfd_create("m", 0);
	pid_t pid;

	rd(s, 0);
	wr(s, 1);
	show("e0 shared anon read 0 write 1", s, 0, 4);
	if (ftruncate(fd, 8 * PAGE) || pwrite(fd, "abc", 3, 0) != 3 || pwrite(fd, "abc", 3, PAGE) != 3)
		fail("memfd");
	f = map_pages((void *)0x200050000000, 8, READ_WRITE, MAP_PRIVATE, fd);
	g = map_pages((void *)0x200060000000, 8, READ_WRITE, MAP_SHARED, fd);
	rd(f, 0);
	show("e1 private file read 0", f, 0, 8);
	wr(f, 1);
	show("e2 private file wrote 1", f, 0, 8);
	show("e2 shared view", g, 0, 8);
	rd(g, 0);
	wr(g, 2);
	show("e3 shared view read 0 write 2", g, 0, 8);
	show("e3 private view", f, 0, 8);
	status("e3");
	pid = child();
	if (!pid) {
		show("e4 child private", f, 0, 4);
		show("e4 child shared", g, 0, 4);
		leave();
	}
	waitpid(pid, NULL, 0);
	if (ftruncate(fd, PAGE))
		fail("ftruncate");
	show("e5 truncated to 1 page: shared", g, 0, 4);
	show("e5 private", f, 0, 4);
	munmap(f, 8 * PAGE);
	munmap(g, 8 * PAGE);
	munmap(s, 4 * PAGE);
	close(fd);
}

static void scattered(void)
{
	const u64 pages = 1UL << 20;
	char *w = map_pages((void *)0x200080000000, pages, READ_WRITE, PRIVATE | MAP_NORESERVE, -1);

	madvise(w, pages * PAGE, MADV_NOHUGEPAGE);
	status("f0 mapped 4G");
	wr(w, 0);
	status("f1 one page");
	wr(w, 511);
	status("f2 same table");
	wr(w, 512);
	status("f3 next table");
	wr(w, 512 * 512);
	status("f4 next pmd");
	for (int i = 0; i < 64; i++)
		wr(w, 512 * 4 + i * 512);
	status("f5 64 more tables");
	madvise(w, pages * PAGE, MADV_DONTNEED);
	status("f6 DONTNEED keeps tables");
	munmap(w, pages * PAGE);
	status("f7 unmapped");
}

static void huge(void)
{
	char *t = map_pages((void *)0x200100000000, 1024, READ_WRITE, PRIVATE, -1);
	pid_t pid;

	madvise(t, 1024 * PAGE, MADV_HUGEPAGE);
	status("g0");
	rd(t, 0);
	show("g0 read: huge zero page", t, 0, 2);
	wr(t, 0);
	show("g1 write 0", t, 0, 3);
	show("g1 last", t, 511, 2);
	status("g1");
	wr(t, 600);
	show("g1b write 600: huge page 2", t, 512, 1);
	show("g1b", t, 600, 1);
	pid = child();
	if (!pid) {
		show("g2 child", t, 0, 2);
		wr(t, 1);
		show("g2 child wrote 1", t, 0, 3);
		leave();
	}
	waitpid(pid, NULL, 0);
	show("g3 parent after child exit", t, 0, 3);
	wr(t, 0);
	show("g3 parent wrote 0", t, 0, 3);
	mprotect(t + 16 * PAGE, 16 * PAGE, PROT_READ);
	show("g4 mprotect 16..31 read-only: pmd split, page whole", t, 14, 4);
	munmap(t + 100 * PAGE, 300 * PAGE);
	show("g5 after munmap 100..399", t, 98, 4);
	show("g5", t, 399, 2);
	madvise(t + 50 * PAGE, PAGE, MADV_DONTNEED);
	show("g6 DONTNEED 50", t, 49, 3);
	munmap(t, 1024 * PAGE);
}

static void every_fourth(void)
{
	char *t = map_pages((void *)0x200100000000, 512, READ_WRITE, PRIVATE, -1);
	int result;

	madvise(t, 512 * PAGE, MADV_NOHUGEPAGE);
	for (int i = 0; i < 512; i += 4)
		wr(t, i);
	show("h0 every 4th written", t, 0, 5);
	status("h0");
	madvise(t, 512 * PAGE, MADV_HUGEPAGE);
	result = madvise(t, 512 * PAGE, 25 /* MADV_COLLAPSE */);
	printf("h1 MADV_COLLAPSE returned %d, errno %d\n", result, result ? errno : 0);
	show("h1", t, 0, 5);
	munmap(t, 512 * PAGE);
}

int main(void)
{
	static char buffer[1 << 16];

	/* Touched now, so that no fault of the program's own falls between two counts. */
	memset(buffer, 1, sizeof buffer);
	memset(text, 1, sizeof text);
	setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	kpageflags = open("/proc/kpageflags", O_RDONLY);
	kpagecount = open("/proc/kpagecount", O_RDONLY);
	if (pagemap < 0 || kpageflags < 0 || kpagecount < 0)
		fail("pagemap");
	anonymous();
	files();
	scattered();
	huge();
	every_fourth();
	return 0;
}
