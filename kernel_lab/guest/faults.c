/*
 * faults: accesses at which something particular happens, at known addresses.
 *
 * The steps and their labels are those of mmcore/report/faults.py, which takes them on the model.
 * A step writes its label into the trace, and "end" after it. It prints what the program itself saw:
 * the signal with its code, address and error code, or how many faults getrusage() counted.
 * "faults die N" ends by a signal that nobody handles.
 */
#include "guest.h"
#include <setjmp.h>
#include <ucontext.h>

#define BASE 0x200000000000UL
#define HOLE 0x200040000000UL
#define MANY 0x200080000000UL
#define FILE_AT 0x2000c0000000UL
#define KERNEL 0xffff888000001000UL
#define NON_CANONICAL 0x800000000000UL
#define READ_WRITE (PROT_READ | PROT_WRITE)
#define PRIVATE (MAP_PRIVATE | MAP_ANONYMOUS)
#define FILE_PAGES 256
#define MANY_PAGES 1024

enum access { NOTHING, READ, WRITE, EXECUTE };

static sigjmp_buf before_access;
static siginfo_t seen;
static u64 error_code;
static int marker;
static struct rusage then;
static char text[1 << 13], page[PAGE];

static void on_signal(int number UNUSED, siginfo_t *info, void *context)
{
	seen = *info;
	error_code = ((ucontext_t *)context)->uc_mcontext.gregs[REG_ERR];
	siglongjmp(before_access, 1);
}

static void mark(const char *label)
{
	if (write(marker, label, strlen(label)) < 0)
		fail("write of a marker");
}

static void access_memory(u64 address, enum access kind)
{
	if (kind == READ)
		(void)*(volatile char *)address;
	else if (kind == WRITE)
		*(volatile char *)address = 1;
	else if (kind == EXECUTE)
		((void (*)(void))address)();
}

static void count_from_here(void)
{
	getrusage(RUSAGE_SELF, &then);
}

static void counted(const char *label)
{
	struct rusage now;

	getrusage(RUSAGE_SELF, &now);
	printf("%s: minflt +%ld majflt +%ld\n", label, now.ru_minflt - then.ru_minflt,
	       now.ru_majflt - then.ru_majflt);
	fflush(stdout);
}

/* An access that succeeds. */
static void step(const char *label, u64 address, enum access kind)
{
	count_from_here();
	mark(label);
	access_memory(address, kind);
	mark("end");
	counted(label);
}

/* An access that ends in a signal. */
static void refused(const char *label, u64 address, enum access kind)
{
	mark(label);
	if (sigsetjmp(before_access, 1) == 0) {
		access_memory(address, kind);
		mark("end");
		printf("%s: no signal\n", label);
	} else {
		mark("end");
		printf("%s: signal %d si_code %d si_addr %lx error_code %lx\n", label, seen.si_signo,
		       seen.si_code, (unsigned long)seen.si_addr, (unsigned long)error_code);
	}
	fflush(stdout);
}

static void sizes(const char *label)
{
	static const char *const names[] = { "RssAnon", "RssFile", "RssShmem", "VmPTE" };

	read_file("/proc/self/status", text, sizeof text);
	printf("%s:", label);
	for (unsigned int i = 0; i < sizeof names / sizeof *names; i++) {
		char *found = strstr(text, names[i]);

		printf(" %s=%ld", names[i], found ? atol(strchr(found, ':') + 1) : -1);
	}
	printf("\n");
	fflush(stdout);
}

static int memory_file(u64 pages)
{
	int fd = memfd_create("m", 0);

	if (fd < 0 || ftruncate(fd, pages * PAGE) < 0)
		fail("memfd of %lu pages", (unsigned long)pages);
	return fd;
}

static void protect(u64 address, int protection)
{
	if (mprotect((void *)address, PAGE, protection) < 0)
		fail("mprotect %lx", (unsigned long)address);
}

/* What the program needs itself, so that no later step faults for it. */
static void warm(void)
{
	for (int i = 0; i < 2; i++) {
		sizes("warm");
		step("warm", 0, NOTHING);
		refused("warm", 8, WRITE);
	}
}

static void plain(void)
{
	map_pages((void *)BASE, 8, READ_WRITE, PRIVATE, -1);
	step("read 0", BASE, READ);
	step("read 0 again", BASE, READ);
	step("write 0", BASE, WRITE);
	step("write 1", BASE + PAGE, WRITE);
	step("read 1", BASE + PAGE, READ);
}

static void signals(void)
{
	u64 file = 0x200050000000UL;

	protect(BASE + PAGE, PROT_READ);
	refused("write to read-only 1", BASE + PAGE, WRITE);
	protect(BASE + 2 * PAGE, PROT_NONE);
	refused("read PROT_NONE 2", BASE + 2 * PAGE, READ);
	refused("read hole", HOLE, READ);
	refused("execute 0", BASE, EXECUTE);
	refused("execute 3, fresh", BASE + 3 * PAGE, EXECUTE);
	refused("read kernel", KERNEL, READ);
	refused("write kernel hole", 0xffff800000001000UL, WRITE);
	refused("read non-canonical", NON_CANONICAL, READ);
	map_pages((void *)file, 4, READ_WRITE, MAP_SHARED, memory_file(2));
	refused("read beyond EOF", file + 2 * PAGE, READ);
}

/* The kernel itself writes to the program's memory. */
static void kernel_writes(void)
{
	int zero = open("/dev/zero", O_RDONLY);
	ssize_t got;

	count_from_here();
	mark("kernel write to 4");
	got = read(zero, (void *)(BASE + 4 * PAGE), PAGE);
	mark("end");
	counted("kernel write to 4");
	printf("read: %zd\n", got);
	mark("kernel write to hole");
	got = read(zero, (void *)HOLE, PAGE);
	mark("end");
	printf("read into a hole: %zd errno %d\n", got, got < 0 ? errno : 0);
}

static void each_page(u64 start, int pages, enum access kind)
{
	for (int i = 0; i < pages; i++)
		access_memory(start + i * PAGE, kind);
}

static void many(void)
{
	sizes("before 1024");
	map_pages((void *)MANY, MANY_PAGES, READ_WRITE, PRIVATE, -1);
	madvise((void *)MANY, MANY_PAGES * PAGE, MADV_NOHUGEPAGE);
	count_from_here();
	each_page(MANY, MANY_PAGES, READ);
	counted("read 1024");
	sizes("read 1024");
	count_from_here();
	each_page(MANY, MANY_PAGES, WRITE);
	counted("write 1024");
	sizes("write 1024");
	munmap((void *)MANY, MANY_PAGES * PAGE);
	sizes("unmapped");
}

static void whole_file(const char *label, const char *printed, u64 start, int fd)
{
	map_pages((void *)start, FILE_PAGES, PROT_READ, MAP_SHARED, fd);
	count_from_here();
	mark(label);
	each_page(start, FILE_PAGES, READ);
	mark("end");
	counted(printed);
	munmap((void *)start, FILE_PAGES * PAGE);
}

static void around(void)
{
	int fd = memory_file(0);

	for (int i = 0; i < FILE_PAGES; i++)
		if (write(fd, page, PAGE) != PAGE)
			fail("write of page %d", i);
	whole_file("map 1 MiB", "file 256 pages, aligned", FILE_AT, fd);
	whole_file("map 1 MiB off", "file 256 pages, off by one page", FILE_AT + PAGE, fd);
	map_pages((void *)FILE_AT, FILE_PAGES, PROT_READ, MAP_SHARED, fd);
	step("fault 37", FILE_AT + 37 * PAGE, READ);
	access_memory(FILE_AT + 32 * PAGE, READ);
	access_memory(FILE_AT + 47 * PAGE, READ);
	step("fault 48", FILE_AT + 48 * PAGE, READ);
	munmap((void *)FILE_AT, FILE_PAGES * PAGE);
}

static void sparse(void)
{
	u64 start = 0x210000000000UL;

	sizes("before sparse");
	map_pages((void *)start, 1, READ_WRITE, PRIVATE, -1);
	access_memory(start, WRITE);
	sizes("fresh 512 GiB slot");
}

static void die(int how)
{
	switch (how) {
	case 0:
		access_memory(0, WRITE);
		break;
	case 1:
		access_memory(0, EXECUTE);
		break;
	case 2:
		access_memory((u64)die, WRITE);
		break;
	case 3:
		access_memory(KERNEL, READ);
		break;
	case 4:
		map_pages((void *)BASE, 1, READ_WRITE, PRIVATE, -1);
		access_memory(BASE, WRITE);
		access_memory(BASE, EXECUTE);
		break;
	case 5:
		access_memory(NON_CANONICAL, READ);
		break;
	default:
		map_pages((void *)BASE, 1, READ_WRITE, MAP_SHARED, memory_file(0));
		access_memory(BASE, READ);
	}
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

	if (argc == 3 && strcmp(argv[1], "die") == 0) {
		die(atoi(argv[2]));
		return 0;
	}
	marker = open("/sys/kernel/tracing/trace_marker", O_WRONLY);
	if (marker < 0)
		fail("open the trace marker");
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	warm();
	plain();
	signals();
	kernel_writes();
	many();
	around();
	sparse();
	return 0;
}
