/*
 * mappings
 *
 * What a kernel answers to the questions of the chapter on mappings: one line "NAME: VALUE ..." for each, an address
 * or number as the call returned it, a refused call as -errno. All system calls are made without the C
 * library's help. Questions that change the process for good are answered by a child.
 */
#include "guest.h"

#define WINDOW 0x100000000000L
#define RW (PROT_READ | PROT_WRITE)
#define PRIVATE (MAP_PRIVATE | MAP_ANONYMOUS)
#define FIXED (PRIVATE | MAP_FIXED)
#define MIB (1L << 20)

static long answer(long r)
{
	return r < 0 && r >= -4095 ? r : r == -1 ? -errno : r;
}

static long map(long address, long length, int prot, int flags)
{
	long r = syscall(SYS_mmap, address, length, prot, flags, -1, 0);

	return r == -1 ? -errno : r;
}

#define CALL(name, ...) answer(syscall(SYS_##name, __VA_ARGS__) == -1 ? -errno : 0)

static void touch(long address)
{
	*(volatile char *)address = 1;
}

static char text[16 << 20];

/* How many mappings lie in a range, and print the lines of maps if a title is given. */
static int mappings(unsigned long from, unsigned long to, const char *title)
{
	int n = 0;
	unsigned long start, end;

	read_file("/proc/self/maps", text, sizeof text);
	for (char *line = text, *next; *line; line = next + 1) {
		next = strchr(line, '\n');
		*next = 0;
		if (sscanf(line, "%lx-%lx", &start, &end) != 2 || start >= to || end <= from)
			continue;
		n++;
		if (title)
			printf("%s %d: %s\n", title, n, line);
	}
	return n;
}

static int lines_with(const char *word)
{
	int n = 0;

	read_file("/proc/self/maps", text, sizeof text);
	for (char *at = text; (at = strstr(at, word)); at++)
		n++;
	return n;
}

static void in_child(void (*function)(void))
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (!pid) {
		function();
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void placement(void)
{
	long a, b, c;

	a = map(0, PAGE, RW, PRIVATE);
	b = map(0, PAGE, RW, PRIVATE);
	c = map(0, PAGE, RW, PRIVATE);
	printf("three pages: %#lx %#lx %#lx\n", a, b, c);
	printf("three pages, mappings: %d\n", mappings(c, a + PAGE, NULL));
	printf("2 MiB: %#lx\n", a = map(0, 2 * MIB, RW, PRIVATE));
	printf("2 MiB and a page: %#lx\n", map(0, 2 * MIB + PAGE, RW, PRIVATE));
	printf("a page: %#lx\n", map(0, PAGE, RW, PRIVATE));
	printf("hint, free: %#lx\n", map(WINDOW + 0x123, PAGE, RW, PRIVATE));
	printf("hint, taken: %#lx\n", map(WINDOW, PAGE, RW, PRIVATE));
	printf("MAP_32BIT: %#lx\n", map(0, PAGE, RW, PRIVATE | MAP_32BIT));
	printf("MAP_FIXED_NOREPLACE, taken: %ld\n", map(WINDOW, PAGE, RW, PRIVATE | MAP_FIXED_NOREPLACE));
	CALL(munmap, WINDOW, PAGE);
}

static void errors(void)
{
	printf("length 0: %ld\n", map(0, 0, RW, PRIVATE));
	printf("length -1: %ld\n", map(0, -1, RW, PRIVATE));
	printf("length 128 TiB: %ld\n", map(0, 1L << 47, RW, PRIVATE));
	printf("no type: %ld\n", map(0, PAGE, RW, MAP_ANONYMOUS));
	printf("fixed, in a page: %ld\n", map(WINDOW + 1, PAGE, RW, FIXED));
	printf("shared stack: %ld\n", map(0, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN));
	printf("munmap of a hole: %ld\n", CALL(munmap, WINDOW, PAGE));
	printf("munmap, in a page: %ld\n", CALL(munmap, WINDOW + 1, PAGE));
	printf("mprotect of a hole: %ld\n", CALL(mprotect, WINDOW, PAGE, PROT_READ));
	printf("madvise of a hole: %ld\n", CALL(madvise, WINDOW, PAGE, MADV_DONTNEED));
	printf("mremap of a hole: %ld\n", CALL(mremap, WINDOW, PAGE, 2 * PAGE, 0, 0));
}

static void poor(void)
{
	if (setuid(65534) < 0)
		fail("setuid");
	printf("fixed, at page 1: %ld\n", map(PAGE, PAGE, RW, FIXED));
}

static void merging(void)
{
	for (int touched = 0; touched < 2; touched++) {
		map(WINDOW, PAGE, RW, FIXED);
		map(WINDOW + 2 * PAGE, PAGE, RW, FIXED);
		if (touched) {
			touch(WINDOW);
			touch(WINDOW + 2 * PAGE);
		}
		map(WINDOW + PAGE, PAGE, RW, FIXED);
		mappings(WINDOW, WINDOW + 3 * PAGE, touched ? "between touched" : "between untouched");
		CALL(munmap, WINDOW, 3 * PAGE);
	}
	map(WINDOW, 3 * PAGE, RW, FIXED);
	touch(WINDOW);
	CALL(mprotect, WINDOW + PAGE, PAGE, PROT_READ);
	mappings(WINDOW, WINDOW + 3 * PAGE, "middle read-only");
	CALL(mprotect, WINDOW + PAGE, PAGE, RW);
	mappings(WINDOW, WINDOW + 3 * PAGE, "middle writable again");
	CALL(munmap, WINDOW, 3 * PAGE);
	map(WINDOW, 2 * PAGE, PROT_READ, FIXED);
	CALL(mprotect, WINDOW, PAGE, RW);
	touch(WINDOW);
	CALL(mprotect, WINDOW, PAGE, PROT_READ);
	mappings(WINDOW, WINDOW + 2 * PAGE, "written once");
	CALL(munmap, WINDOW, 2 * PAGE);
}

static void heap_after_fork(void)
{
	long end = syscall(SYS_brk, 0);

	touch(end - 1);
	syscall(SYS_brk, end + 16 * PAGE);
	printf("[heap] in a child that grew it: %d\n", lines_with("[heap]"));
}

static void heap(void)
{
	long end = syscall(SYS_brk, 0);

	end = (end + PAGE - 1) & -PAGE;
	syscall(SYS_brk, end);
	printf("brk(1): %d\n", syscall(SYS_brk, 1) == end);
	syscall(SYS_brk, end + 16 * PAGE);
	printf("[heap] grown: %d\n", lines_with("[heap]"));
	map(end + 20 * PAGE, PAGE, RW, FIXED);
	printf("brk up to a mapping: %d\n", (u64)syscall(SYS_brk, end + 20 * PAGE) == end + 16 * PAGE);
	printf("brk, a page below it: %d\n", (u64)syscall(SYS_brk, end + 19 * PAGE) == end + 19 * PAGE);
	CALL(munmap, end + 20 * PAGE, PAGE);
}

static unsigned long stack_start(void)
{
	unsigned long start = 0;

	read_file("/proc/self/maps", text, sizeof text);
	for (char *line = text, *next; *line; line = next + 1) {
		next = strchr(line, '\n');
		*next = 0;
		if (strstr(line, "[stack]"))
			sscanf(line, "%lx", &start);
	}
	return start;
}

static unsigned long stack_target;

static void touch_stack(void)
{
	touch(stack_target);
	printf("%#lx\n", stack_start());
}

/* The child's death is its answer. */
static void stack_question(const char *name, unsigned long below)
{
	int status;
	pid_t pid;

	stack_target = stack_start() - below;
	printf("%s: ", name);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		touch_stack();
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		printf("signal %d\n", WTERMSIG(status));
}

static void stack(void)
{
	unsigned long start = stack_start();

	printf("stack begins: %#lx\n", start);
	stack_question("touch 7 MiB below", 7 * MIB);
	stack_question("touch 8 MiB below", 8 * MIB);
	map(start - 2 * MIB - PAGE, PAGE, RW, FIXED);
	stack_question("neighbour 2 MiB below, touch 1 MiB above it", MIB);
	stack_question("neighbour 2 MiB below, touch nearer", MIB + PAGE);
	CALL(mprotect, start - 2 * MIB - PAGE, PAGE, PROT_NONE);
	stack_question("PROT_NONE 2 MiB below, touch nearer", 2 * MIB - PAGE);
	CALL(munmap, start - 2 * MIB - PAGE, PAGE);
}

static void opening(void)
{
	long base, r, calls = 0;
	int before, others;

	read_file("/proc/self/maps", text, sizeof text);
	others = 0;
	for (char *p = text; *p; p++)
		others += *p == '\n';
	base = map(0, 512 * MIB, RW, PRIVATE);
	for (long page = 1;; page += 2) {
		r = CALL(mprotect, base + page * PAGE, PAGE, PROT_READ);
		if (r)
			break;
		calls++;
	}
	before = 0;
	read_file("/proc/self/maps", text, sizeof text);
	for (char *p = text; *p; p++)
		before += *p == '\n';
	printf("mappings before: %d\n", others);
	printf("calls that succeeded: %ld\n", calls);
	printf("the next one: %ld\n", r);
	printf("mappings after: %d\n", before);
}

static void copying(void)
{
	char buffer[8192];
	int fd = memfd_create("copy", 0);

	if (fd < 0)
		fail("memfd_create");
	map(WINDOW, PAGE, RW, FIXED);
	printf("write() of 4096 from 1000 before a hole: %ld\n",
	       (long)syscall(SYS_write, fd, WINDOW + PAGE - 1000, 4096));
	printf("write() from the hole: %ld\n", CALL(write, fd, WINDOW + PAGE, 4096));
	printf("size of the file: %ld\n", (long)pread(fd, buffer, sizeof buffer, 0));
	CALL(munmap, WINDOW, PAGE);
	close(fd);
}

static void promises(void)
{
	map(WINDOW, PAGE, RW, FIXED);
	printf("mode 0, 64 GiB at once: %ld\n", map(0, 65536 * MIB, RW, PRIVATE));
	printf("mode 0, 64 GiB, MAP_NORESERVE: %d\n", map(0, 65536 * MIB, RW, PRIVATE | MAP_NORESERVE) > 0);
	write_file("/proc/sys/vm/overcommit_memory", "1");
	printf("mode 1, 64 GiB at once: %d\n", map(0, 65536 * MIB, RW, PRIVATE) > 0);
	write_file("/proc/sys/vm/overcommit_memory", "0");
}

int main(void)
{
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	mappings(0, -1, "at the start");
	placement();
	errors();
	in_child(poor);
	merging();
	in_child(heap_after_fork);
	heap();
	stack();
	copying();
	in_child(promises);
	in_child(opening);
	return 0;
}
