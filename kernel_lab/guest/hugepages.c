/*
 * hugepages pool | transparent
 *
 *   pool         the counters of the pool of huge pages (hugetlbfs) after each of many steps
 *   transparent  transparent huge pages: what smaps and /proc/vmstat count after each of many steps
 *
 * A step is "WHAT: CALL = RESULT" (-ENAME where it failed), or "WHAT: NAME:VALUE ..." in the units of the
 * file that it comes from.
 */
#include "guest.h"
#include <linux/memfd.h>
#include <setjmp.h>

#define HUGE (2UL << 20)
#define RW (PROT_READ | PROT_WRITE)
#define POOL "/proc/sys/vm/nr_hugepages"
#define EXTRA "/proc/sys/vm/nr_overcommit_hugepages"

static const char *what = "";

static void say(const char *call, long result)
{
	if (result == -1)
		printf("%s: %s = -%s\n", what, call, strerrorname_np(errno));
	else
		printf("%s: %s = %ld\n", what, call, result);
	fflush(stdout);
}

#define TRY(call) say(#call, (long)(call))

static sigjmp_buf back;

static void caught(int number)
{
	siglongjmp(back, number);
}

/* The number of the signal that a write gets, or 0. */
static int touch(volatile char *address)
{
	int number = sigsetjmp(back, 1);

	if (!number)
		*address = 1;
	return number;
}

static char *huge_pages(u64 count, int flags)
{
	char *at = mmap(NULL, count * HUGE, RW, flags | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	printf("%s: mmap of %lu huge pages%s%s = ", what, (unsigned long)count, flags & MAP_SHARED ? " shared" : " private",
	       flags & MAP_NORESERVE ? " noreserve" : "");
	printf(at == MAP_FAILED ? "-%s\n" : "ok\n", strerrorname_np(errno));
	return at == MAP_FAILED ? NULL : at;
}

static void pool_counters(void)
{
	static const char *const names[] = { "HugePages_Total:", "HugePages_Free:", "HugePages_Rsvd:", "HugePages_Surp:",
					     "Hugetlb:" };
	static char text[8192];

	read_file("/proc/meminfo", text, sizeof text);
	printf("%s:", what);
	for (int i = 0; i < 5; i++)
		printf(" %s%ld", names[i], atol(strchr(strstr(text, names[i]), ':') + 1));
	printf("\n");
	fflush(stdout);
}

static void set(const char *path, const char *value)
{
	write_file(path, value);
	printf("%s: %s = %s\n", what, strrchr(path, '/') + 1, value);
	pool_counters();
}

static void shared_and_private(void)
{
	char *a, *b, *c;

	what = "reserve";
	set(POOL, "10");
	a = huge_pages(6, MAP_SHARED);
	pool_counters();
	TRY(touch(a));
	TRY(touch(a + 3 * HUGE));
	pool_counters();
	b = huge_pages(5, MAP_PRIVATE);
	b = huge_pages(4, MAP_PRIVATE);
	pool_counters();
	TRY(touch(b));
	pool_counters();
	TRY(munmap(a + 3 * HUGE, HUGE));
	pool_counters();
	TRY(munmap(b + 2 * HUGE, PAGE));
	TRY(munmap(b + 2 * HUGE, HUGE));
	pool_counters();
	what = "noreserve";
	c = huge_pages(8, MAP_PRIVATE | MAP_NORESERVE);
	pool_counters();
	for (int i = 0; i < 8; i++)
		TRY(touch(c + i * HUGE));
	pool_counters();
	TRY(munmap(c, 8 * HUGE));
	TRY(munmap(a, 6 * HUGE));
	TRY(munmap(b, 4 * HUGE));
	pool_counters();
}

static void overcommit(void)
{
	char *a, *b;

	what = "overcommit";
	set(POOL, "4");
	set(EXTRA, "3");
	a = huge_pages(8, MAP_PRIVATE);
	a = huge_pages(6, MAP_PRIVATE);
	pool_counters();
	for (int i = 0; i < 6; i++)
		touch(a + i * HUGE);
	pool_counters();
	b = huge_pages(1, MAP_SHARED);
	pool_counters();
	set(POOL, "2");
	set(POOL, "0");
	TRY(munmap(a, 3 * HUGE));
	pool_counters();
	set(POOL, "5");
	TRY(munmap(a + 3 * HUGE, 3 * HUGE));
	pool_counters();
	TRY(munmap(b, HUGE));
	set(EXTRA, "0");
}

static void copy_on_write(void)
{
	char *a;
	pid_t pid;
	int status;

	what = "fork";
	set(POOL, "2");
	a = huge_pages(2, MAP_PRIVATE);
	touch(a);
	touch(a + HUGE);
	pool_counters();
	fflush(stdout);
	pid = fork();
	if (!pid) {
		signal(SIGBUS, SIG_DFL);
		raise(SIGSTOP);
		a[0] = 2;
		_exit(0);
	}
	waitpid(pid, NULL, WUNTRACED);
	TRY(touch(a));
	pool_counters();
	kill(pid, SIGCONT);
	waitpid(pid, &status, 0);
	printf("%s: child %s %d\n", what, WIFSIGNALED(status) ? "killed by" : "exited with",
	       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	pool_counters();
	TRY(munmap(a, 2 * HUGE));
	pool_counters();
}

static void pool_files(void)
{
	int fd = memfd_create("huge", MFD_HUGETLB);
	char *a;

	what = "file";
	set(POOL, "4");
	TRY(ftruncate(fd, PAGE));
	TRY(ftruncate(fd, 3 * HUGE));
	pool_counters();
	TRY(fallocate(fd, 0, 0, 2 * HUGE));
	pool_counters();
	a = mmap(NULL, 3 * HUGE, RW, MAP_SHARED, fd, 0);
	pool_counters();
	TRY(touch(a + 2 * HUGE));
	TRY(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE));
	pool_counters();
	TRY(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, HUGE, PAGE));
	TRY(ftruncate(fd, HUGE));
	TRY(touch(a + HUGE));
	pool_counters();
	TRY(write(fd, "x", 1));
	TRY(mprotect(a, PAGE, PROT_READ));
	TRY(madvise(a, PAGE, MADV_DONTNEED));
	TRY(madvise(a, HUGE, MADV_DONTNEED));
	TRY(munmap(a, 3 * HUGE));
	close(fd);
	pool_counters();
	set(POOL, "0");
}

/* ---- transparent ---- */

static char *area;

static long vmstat(const char *name)
{
	static char text[1 << 15];
	char key[64], *found;

	read_file("/proc/vmstat", text, sizeof text);
	snprintf(key, sizeof key, "\n%s ", name);
	found = strstr(text, key);
	return found ? atol(found + strlen(key)) : -1;
}

/* What happened since the last call, and what the area's mappings show now. */
static void show(const char *step)
{
	static const char *const counters[] = {
		"thp_fault_alloc", "thp_fault_fallback", "thp_collapse_alloc", "thp_split_page", "thp_split_pmd",
		"thp_deferred_split_page", "thp_zero_page_alloc", "nr_anon_transparent_hugepages",
	};
	static const char *const names[] = { "Rss:", "Anonymous:", "AnonHugePages:", "ShmemPmdMapped:", "THPeligible:" };
	static long last[8];
	static char text[1 << 18];
	long sums[5] = { 0 };
	unsigned long start, end;
	bool inside = false;

	what = step;
	read_file("/proc/self/smaps", text, sizeof text);
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && strchr(line, '-') < strchr(line, ' '))
			inside = area && start >= (u64)area && end <= (u64)area + 16 * HUGE;
		for (int i = 0; inside && i < 5; i++)
			if (!strncmp(line, names[i], strlen(names[i])))
				sums[i] += atol(line + strlen(names[i]));
	}
	printf("%s:", what);
	for (int i = 0; i < 5; i++)
		printf(" %s%ld", names[i], sums[i]);
	for (int i = 0; i < 8; i++) {
		long now = vmstat(counters[i]);

		if (now != last[i])
			printf(" %s%+ld", counters[i], now - last[i]);
		last[i] = now;
	}
	printf("\n");
	fflush(stdout);
}

static void fresh(int flags, int fd)
{
	if (area)
		munmap(area, 16 * HUGE);
	area = map_pages((void *)0x200000000000UL, 16 * 512, RW, flags, fd);
}

static void write_pages(u64 first, u64 count)
{
	for (u64 i = first; i < first + count; i++)
		area[i * PAGE] = 1;
}

static void anonymous(void)
{
	show("start");
	fresh(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	show("mapped 32 MiB");
	(void)*(volatile char *)area;
	show("read page 0: the huge zero page");
	write_pages(0, 1);
	show("wrote page 0");
	write_pages(512, 1);
	show("wrote page 512");
	munmap(area + 511 * PAGE, PAGE);
	show("unmapped page 511");
	madvise(area + 512 * PAGE, PAGE, MADV_DONTNEED);
	show("dropped page 512");
	what = "collapse";
	TRY(madvise(area, HUGE, 25));
	map_pages(area + 511 * PAGE, 1, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	TRY(madvise(area, HUGE, 25));
	TRY(madvise(area + HUGE, HUGE, 25));
	show("collapsed the first two");
	mprotect(area + HUGE, PAGE, PROT_READ);
	show("protected page 512");
	madvise(area + 4 * HUGE, HUGE, MADV_NOHUGEPAGE);
	write_pages(4 * 512, 512);
	show("wrote 512 pages where huge pages are not wanted");
	madvise(area + 4 * HUGE, HUGE, MADV_HUGEPAGE);
	TRY(madvise(area + 4 * HUGE, HUGE, 25));
	show("wanted them after all, collapsed");
	write_pages(5 * 512 + 100, 1);
	show("wrote page 100 of the next");
	fresh(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	show("mapped anew");
	munmap(area + 8 * HUGE + PAGE, HUGE);
	write_pages(0, 1);
	write_pages(8 * 512, 1);
	show("wrote a page of a whole and of a torn 2 MiB");
}

static void forked(void)
{
	pid_t pid;

	fresh(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	write_pages(0, 1);
	show("one huge page, to be shared");
	pid = fork();
	if (!pid) {
		show("child");
		write_pages(3, 1);
		show("child wrote page 3");
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	show("parent");
	write_pages(3, 1);
	show("parent wrote page 3");
}

static void in_memory_files(void)
{
	int fd = memfd_create("thp", 0);

	ftruncate(fd, 16 * HUGE);
	fresh(MAP_SHARED, fd);
	write_pages(0, 1);
	show("memory file, wrote page 0");
	what = "memory file";
	write_pages(512, 512);
	TRY(madvise(area + HUGE, HUGE, 25));
	show("collapsed its second 2 MiB");
	TRY(madvise(area + HUGE, PAGE, MADV_REMOVE));
	show("punched a page of it");
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = caught };
	const char *part = argc == 2 ? argv[1] : "";

	sigaction(SIGBUS, &action, NULL);
	if (!strcmp(part, "pool")) {
		what = "start";
		pool_counters();
		shared_and_private();
		overcommit();
		copy_on_write();
		pool_files();
	} else if (!strcmp(part, "transparent")) {
		anonymous();
		forked();
		in_memory_files();
	} else {
		fail("hugepages pool|transparent");
	}
	return 0;
}
