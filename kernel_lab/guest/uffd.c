/*
 * uffd api | missing | protect | minor | errors | events
 *
 * userfaultfd, step by step, in one process: a child touches the memory and stops in the fault, the parent
 * reads the message and answers it. A line is "WHAT: CALL = RESULT", with -ENAME where it failed; messages
 * and pages are printed as
 *   message fault page=N offset=N flags=BITS
 *   pages FIRST-LAST: for each P (present), S (swapped, a marker), - (nothing), with w for the write-protect bit
 */
#include "guest.h"
#include <linux/memfd.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>

#define PAGES 16UL
#define RW (PROT_READ | PROT_WRITE)
#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif
struct move {
	__u64 dst, src, len, mode;
	__s64 move;
};
#define MOVE _IOWR(UFFDIO, 0x05, struct move)
#define MODES (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP)

static const char *what = "";
static char *area, source[PAGE * PAGES] __attribute__((aligned(4096)));
static int uffd = -1;

static void say(const char *call, long result)
{
	if (result == -1)
		printf("%s = -%s\n", call, strerrorname_np(errno));
	else
		printf("%s = %ld\n", call, result);
	fflush(stdout);
}

#define TRY(call)                               \
	do {                                    \
		long result_ = (long)(call);    \
		int error_ = errno;             \
						\
		printf("%s: ", what);           \
		errno = error_;                 \
		say(#call, result_);            \
	} while (0)

static u64 at(u64 page)
{
	return (u64)area + page * PAGE;
}

/* ---- one call each, with what the kernel writes back ---- */

static void ask_api(u64 api, u64 features)
{
	struct uffdio_api question = { .api = api, .features = features };
	int result = ioctl(uffd, UFFDIO_API, &question);

	printf("%s: api %llx features %llx: ", what, (unsigned long long)api, (unsigned long long)features);
	say("UFFDIO_API", result);
	printf("%s: answer api=%llx features=%llx ioctls=%llx\n", what, question.api, question.features, question.ioctls);
}

static void watch(u64 page, u64 count, u64 modes)
{
	struct uffdio_register wish = { .range = { at(page), count * PAGE }, .mode = modes };
	int result = ioctl(uffd, UFFDIO_REGISTER, &wish);

	printf("%s: register pages %lu+%lu modes %lx: ", what, (unsigned long)page, (unsigned long)count, (unsigned long)modes);
	say("UFFDIO_REGISTER", result);
	if (!result)
		printf("%s: ioctls=%llx\n", what, wish.ioctls);
}

static void copy(u64 page, u64 count, u64 mode)
{
	struct uffdio_copy wish = { .dst = at(page), .src = (u64)source, .len = count * PAGE, .mode = mode };

	printf("%s: copy to %lu+%lu mode %lx: ", what, (unsigned long)page, (unsigned long)count, (unsigned long)mode);
	say("UFFDIO_COPY", ioctl(uffd, UFFDIO_COPY, &wish));
	printf("%s: copy=%lld\n", what, wish.copy);
}

static void zero(u64 page, u64 count)
{
	struct uffdio_zeropage wish = { .range = { at(page), count * PAGE } };

	printf("%s: zero %lu+%lu: ", what, (unsigned long)page, (unsigned long)count);
	say("UFFDIO_ZEROPAGE", ioctl(uffd, UFFDIO_ZEROPAGE, &wish));
	printf("%s: zeropage=%lld\n", what, wish.zeropage);
}

static void go_on(u64 page, u64 count)
{
	struct uffdio_continue wish = { .range = { at(page), count * PAGE } };

	printf("%s: continue %lu+%lu: ", what, (unsigned long)page, (unsigned long)count);
	say("UFFDIO_CONTINUE", ioctl(uffd, UFFDIO_CONTINUE, &wish));
	printf("%s: mapped=%lld\n", what, wish.mapped);
}

static void protect(u64 page, u64 count, u64 mode)
{
	struct uffdio_writeprotect wish = { .range = { at(page), count * PAGE }, .mode = mode };

	printf("%s: write-protect %lu+%lu mode %lx: ", what, (unsigned long)page, (unsigned long)count, (unsigned long)mode);
	say("UFFDIO_WRITEPROTECT", ioctl(uffd, UFFDIO_WRITEPROTECT, &wish));
}

static void poison(u64 page, u64 count)
{
	struct uffdio_poison wish = { .range = { at(page), count * PAGE } };

	printf("%s: poison %lu+%lu: ", what, (unsigned long)page, (unsigned long)count);
	say("UFFDIO_POISON", ioctl(uffd, UFFDIO_POISON, &wish));
	printf("%s: updated=%lld\n", what, (long long)wish.updated);
}

static void move(u64 to, u64 from, u64 count)
{
	struct move wish = { .dst = at(to), .src = at(from), .len = count * PAGE };

	printf("%s: move %lu+%lu to %lu: ", what, (unsigned long)from, (unsigned long)count, (unsigned long)to);
	say("UFFDIO_MOVE", ioctl(uffd, MOVE, &wish));
	printf("%s: move=%lld\n", what, (long long)wish.move);
}

static void range_call(const char *name, unsigned long request, u64 page, u64 count)
{
	struct uffdio_range wish = { at(page), count * PAGE };

	printf("%s: %lu+%lu: ", what, (unsigned long)page, (unsigned long)count);
	say(name, ioctl(uffd, request, &wish));
}

/* ---- what is there ---- */

static void show_pages(int pagemap)
{
	u64 words[PAGES];

	if (pread(pagemap, words, sizeof words, (u64)area / PAGE * 8) != sizeof words)
		fail("pagemap");
	printf("%s: pages 0-%lu:", what, PAGES - 1);
	for (u64 i = 0; i < PAGES; i++)
		printf(" %s%s", words[i] >> 63 ? "P" : words[i] >> 62 & 1 ? "S" : "-", words[i] >> 57 & 1 ? "w" : "");
	printf("\n");
	fflush(stdout);
}

static int own_pagemap(void)
{
	static int fd = -1;

	if (fd < 0)
		fd = open("/proc/self/pagemap", O_RDONLY);
	return fd;
}

static void show_flags(void)
{
	static char text[1 << 18], start[32];
	char *found;

	read_file("/proc/self/smaps", text, sizeof text);
	snprintf(start, sizeof start, "%lx-", (unsigned long)area);
	found = strstr(text, start);
	found = found ? strstr(found, "VmFlags:") : NULL;
	if (found)
		printf("%s: %.*s\n", what, (int)(strchr(found, '\n') - found), found);
}

static void show_fdinfo(void)
{
	char path[64], text[512];

	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", uffd);
	read_file(path, text, sizeof text);
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		if (!strncmp(line, "pending", 7) || !strncmp(line, "total", 5) || !strncmp(line, "API", 3))
			printf("%s: fdinfo %s\n", what, line);
}

/* A fresh descriptor and 16 untouched pages. */
static void fresh(const char *name, int flags, u64 features, int map_flags, int fd)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	what = name;
	if (uffd >= 0)
		close(uffd);
	if (area)
		munmap(area, PAGES * PAGE);
	area = map_pages((void *)0x200000000000UL, PAGES, RW, map_flags, fd);
	madvise(area, PAGES * PAGE, MADV_NOHUGEPAGE);
	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		fail("userfaultfd");
}

/* ---- faults: a thread touches, this one answers ---- */

struct access {
	u64 page, offset;
	bool writing;
};

static char stack[16 * PAGE] __attribute__((aligned(4096)));

static int toucher(void *argument)
{
	struct access *a = argument;
	volatile char *address = area + a->page * PAGE + a->offset;

	if (a->writing)
		*address = 'w';
	else
		(void)*address;
	syscall(SYS_exit, 0);
	return 0;
}

static long minor_faults(long *major)
{
	static char text[1024];
	long minor;

	read_file("/proc/self/stat", text, sizeof text);
	sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %ld %*d %ld", &minor, major);
	return minor;
}

static pid_t start_access(u64 page, u64 offset, bool writing)
{
	static struct access a;

	a = (struct access){ page, offset, writing };
	printf("%s: thread %s page %lu\n", what, writing ? "writes" : "reads", (unsigned long)page);
	fflush(stdout);
	return clone(toucher, stack + sizeof stack, CLONE_VM | CLONE_FILES | CLONE_FS | SIGCHLD, &a);
}

static bool next_message(void)
{
	struct pollfd waiting = { .fd = uffd, .events = POLLIN };
	struct uffd_msg m;
	int ready = poll(&waiting, 1, 300);

	if (ready <= 0 || read(uffd, &m, sizeof m) != sizeof m) {
		printf("%s: no message\n", what);
		return false;
	}
	if (m.event == UFFD_EVENT_PAGEFAULT)
		printf("%s: message fault page=%lld offset=%llu flags=%llx\n", what,
		       ((long long)m.arg.pagefault.address - (long long)area) / (long long)PAGE,
		       m.arg.pagefault.address % PAGE, m.arg.pagefault.flags);
	else if (m.event == UFFD_EVENT_REMAP)
		printf("%s: message remap from page=%lld to page=%lld pages=%llu\n", what,
		       ((long long)m.arg.remap.from - (long long)area) / (long long)PAGE,
		       ((long long)m.arg.remap.to - (long long)area) / (long long)PAGE, m.arg.remap.len / PAGE);
	else if (m.event == UFFD_EVENT_FORK)
		printf("%s: message fork\n", what);
	else
		printf("%s: message %s pages %lld to %lld\n", what, m.event == UFFD_EVENT_UNMAP ? "unmap" : "remove",
		       ((long long)m.arg.remove.start - (long long)area) / (long long)PAGE,
		       ((long long)m.arg.remove.end - (long long)area) / (long long)PAGE);
	fflush(stdout);
	return true;
}

static void finish_access(pid_t pid)
{
	int status;
	pid_t ended = waitpid(pid, &status, WNOHANG);

	for (int i = 0; !ended && i < 5; i++) {
		usleep(20000);
		ended = waitpid(pid, &status, WNOHANG);
	}
	if (!ended)
		printf("%s: thread still waits\n", what);
	else if (WIFSIGNALED(status))
		printf("%s: thread killed by signal %d\n", what, WTERMSIG(status));
	else
		printf("%s: thread done\n", what);
	if (!ended) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	fflush(stdout);
}

/* ---- the parts ---- */

static void api(void)
{
	static const u64 features[] = { 0, 1, UFFD_FEATURE_EVENT_FORK, 1 << 16, 0x1ffff, 1 << 17, 1UL << 40 };

	what = "descriptor";
	TRY((uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)) >= 0);
	TRY(read(uffd, source, 32));
	TRY(syscall(SYS_userfaultfd, 2));
	TRY(syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY) >= 0);
	area = map_pages((void *)0x200000000000UL, PAGES, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	watch(0, PAGES, UFFDIO_REGISTER_MODE_MISSING);
	what = "features";
	ask_api(0xAB, 0);
	for (unsigned i = 0; i < sizeof features / sizeof *features; i++) {
		close(uffd);
		uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
		ask_api(UFFD_API, features[i]);
		ask_api(UFFD_API, features[i]);
	}
}

static void missing(void)
{
	pid_t pid;

	fresh("missing", 0, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	watch(0, PAGES, UFFDIO_REGISTER_MODE_MISSING);
	show_flags();
	memset(source, 's', sizeof source);
	pid = start_access(0, 5, false);
	next_message();
	show_fdinfo();
	copy(0, 1, 0);
	finish_access(pid);
	pid = start_access(1, 0, true);
	next_message();
	zero(1, 1);
	finish_access(pid);
	pid = start_access(2, 0, false);
	next_message();
	zero(2, 3);
	finish_access(pid);
	show_pages(own_pagemap());
	pid = start_access(5, 0, true);
	next_message();
	copy(5, 1, UFFDIO_COPY_MODE_DONTWAKE);
	finish_access(pid);
	pid = start_access(6, 0, true);
	next_message();
	range_call("UFFDIO_WAKE", UFFDIO_WAKE, 6, 1);
	next_message();
	copy(6, 2, 0);
	finish_access(pid);
	copy(4, 4, 0);
	copy(8, 4, 0);
	madvise(area + 8 * PAGE, PAGE, MADV_DONTNEED);
	pid = start_access(8, 0, false);
	next_message();
	poison(8, 1);
	finish_access(pid);
	show_pages(own_pagemap());
	move(12, 9, 1);
	move(13, 9, 1);
	show_pages(own_pagemap());
	range_call("UFFDIO_UNREGISTER", UFFDIO_UNREGISTER, 0, PAGES);
	show_flags();
	fresh("exact-address", 0, UFFD_FEATURE_EXACT_ADDRESS, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	watch(0, PAGES, UFFDIO_REGISTER_MODE_MISSING);
	pid = start_access(3, 77, true);
	next_message();
	copy(3, 1, 0);
	finish_access(pid);
	fresh("sigbus", 0, UFFD_FEATURE_SIGBUS, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	watch(0, PAGES, UFFDIO_REGISTER_MODE_MISSING);
	pid = start_access(0, 0, true);
	next_message();
	finish_access(pid);
	fresh("unregister-while-waiting", 0, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	watch(0, PAGES, UFFDIO_REGISTER_MODE_MISSING);
	pid = start_access(0, 0, true);
	next_message();
	range_call("UFFDIO_UNREGISTER", UFFDIO_UNREGISTER, 0, PAGES);
	finish_access(pid);
	show_pages(own_pagemap());
}

static void one_protected_write(u64 page)
{
	pid_t pid = start_access(page, 0, true);

	if (next_message())
		protect(page, 1, 0);
	finish_access(pid);
}

static void protected_steps(void)
{
	watch(0, PAGES, UFFDIO_REGISTER_MODE_WP);
	show_flags();
	for (int i = 0; i < 4; i++)
		area[i * PAGE] = 1;
	(void)*(volatile char *)(area + 4 * PAGE);
	show_pages(own_pagemap());
	protect(0, 8, UFFDIO_WRITEPROTECT_MODE_WP);
	show_pages(own_pagemap());
	one_protected_write(0);
	one_protected_write(4);
	one_protected_write(6);
	show_pages(own_pagemap());
	protect(0, 2, 0);
	madvise(area + 2 * PAGE, PAGE, MADV_DONTNEED);
	show_pages(own_pagemap());
	range_call("UFFDIO_UNREGISTER", UFFDIO_UNREGISTER, 0, PAGES);
	show_pages(own_pagemap());
}

static void protected(void)
{
	int fd = memfd_create("protected", 0);

	ftruncate(fd, PAGES * PAGE);
	fresh("anonymous", 0, UFFD_FEATURE_PAGEFAULT_FLAG_WP, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	protected_steps();
	fresh("anonymous-unpopulated", 0, 1 << 13, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	protected_steps();
	fresh("anonymous-async", 0, 1 << 15, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	protected_steps();
	fresh("shared", 0, UFFD_FEATURE_WP_HUGETLBFS_SHMEM, MAP_SHARED, fd);
	protected_steps();
	fresh("copy-protected", 0, UFFD_FEATURE_PAGEFAULT_FLAG_WP, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	watch(0, PAGES, MODES);
	copy(0, 2, UFFDIO_COPY_MODE_WP);
	zero(2, 1);
	show_pages(own_pagemap());
	one_protected_write(1);
	show_pages(own_pagemap());
}

static void minor(void)
{
	int fd = memfd_create("minor", 0);
	pid_t pid;

	ftruncate(fd, PAGES * PAGE);
	if (pwrite(fd, source, 4 * PAGE, 0) < 0)
		fail("pwrite");
	fresh("minor", 0, UFFD_FEATURE_MINOR_SHMEM, MAP_SHARED, fd);
	watch(0, PAGES, UFFDIO_REGISTER_MODE_MINOR);
	show_flags();
	pid = start_access(0, 0, false);
	next_message();
	go_on(0, 1);
	finish_access(pid);
	pid = start_access(9, 0, true);
	next_message();
	finish_access(pid);
	go_on(1, 2);
	go_on(2, 1);
	go_on(12, 1);
	show_pages(own_pagemap());
}

static void errors(void)
{
	fresh("errors", 0, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	watch(0, PAGES, 0);
	watch(0, PAGES, 8);
	watch(0, 0, 1);
	watch(0, PAGES + 4, 1);
	watch(0, PAGES, UFFDIO_REGISTER_MODE_MINOR);
	watch(0, 8, UFFDIO_REGISTER_MODE_MISSING);
	watch(0, 8, UFFDIO_REGISTER_MODE_MISSING);
	copy(0, 1, 0);
	copy(0, 1, 0);
	copy(1, 0, 0);
	copy(1, 1, 4);
	copy(1, 1, UFFDIO_COPY_MODE_WP);
	copy(7, 3, 0);
	copy(12, 1, 0);
	zero(0, 1);
	zero(9, 1);
	protect(0, 1, UFFDIO_WRITEPROTECT_MODE_WP);
	protect(0, 1, 7);
	go_on(1, 1);
	poison(0, 1);
	poison(3, 1);
	move(2, 0, 1);
	move(0, 2, 1);
	move(2, 5, 1);
	range_call("UFFDIO_WAKE", UFFDIO_WAKE, 0, 0);
	range_call("UFFDIO_UNREGISTER", UFFDIO_UNREGISTER, 4, PAGES);
	munmap(area + 2 * PAGE, PAGE);
	copy(2, 1, 0);
	range_call("UFFDIO_UNREGISTER", UFFDIO_UNREGISTER, 0, PAGES);
}

/* What another thread does to the mappings, and the message that it waits with. */
static int changer(void *argument)
{
	switch (*(int *)argument) {
	case 0:
		madvise(area + 2 * PAGE, 2 * PAGE, MADV_DONTNEED);
		break;
	case 1:
		munmap(area + 4 * PAGE, 2 * PAGE);
		break;
	case 2:
		mremap(area + 8 * PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, area + 64 * PAGE);
		break;
	default:
		if (!syscall(SYS_fork))
			syscall(SYS_exit, 0);
	}
	syscall(SYS_exit, 0);
	return 0;
}

static void events(void)
{
	static const char *const names[] = { "dontneed", "munmap", "mremap", "fork" };
	int minor_before, minor_after;
	long major;

	fresh("events", 0,
	      UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_FORK,
	      MAP_PRIVATE | MAP_ANONYMOUS, -1);
	watch(0, PAGES, UFFDIO_REGISTER_MODE_MISSING);
	copy(0, PAGES, 0);
	for (int i = 0; i < 4; i++) {
		pid_t pid = clone(changer, stack + sizeof stack, CLONE_VM | CLONE_FILES | CLONE_FS | SIGCHLD, &i);

		what = names[i];
		while (next_message())
			;
		waitpid(pid, NULL, 0);
	}
	fresh("faults-counted", 0, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	watch(0, PAGES, UFFDIO_REGISTER_MODE_MISSING);
	minor_before = minor_faults(&major);
	copy(0, 4, 0);
	minor_after = minor_faults(&major);
	printf("%s: copies %d minor\n", what, minor_after - minor_before);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} parts[] = { { "api", api },     { "missing", missing }, { "protect", protected },
		      { "minor", minor }, { "errors", errors },   { "events", events } };

	memset(stack, 0, sizeof stack);
	for (unsigned i = 0; argc == 2 && i < sizeof parts / sizeof *parts; i++)
		if (!strcmp(argv[1], parts[i].name)) {
			parts[i].run();
			return 0;
		}
	fail("uffd api|missing|protect|minor|errors|events");
}
