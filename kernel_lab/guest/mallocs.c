/*
 * mallocs
 *
 * What the C library's allocator asks of the kernel. A child works through fixed steps of malloc(), realloc(),
 * calloc() and free(); the parent traces it with ptrace() and prints, for each step, the system calls and
 * what they returned, the minor faults, and the mappings that are writable, private and without a file:
 *   step LABEL
 *   call NAME ARGUMENTS = RESULT
 *   faults N anonymous KB
 *   map LINE
 * The child is this program executed anew, so that its heap has seen no fork(), and without threads. It ends
 * a step by write(-1, label), which fails and changes nothing.
 */
#include "guest.h"
#include <gnu/libc-version.h>
#include <malloc.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#define KIB(n) ((size_t)(n) << 10)
#define SMALL 6000

static void mark(const char *label)
{
	syscall(SYS_write, -1, label, strlen(label));
}

static char *smalls[SMALL];
/* What is stored here, the compiler cannot do without. */
static char *volatile kept;

static char *keep(void *p)
{
	kept = p;
	return kept;
}

static void take(int from, int to)
{
	for (int i = from; i < to; i++) {
		smalls[i] = keep(malloc(24));
		*(volatile char *)smalls[i] = 1;
	}
}

static void touch_pages(char *p, size_t length)
{
	for (size_t i = 0; i < length; i += PAGE)
		((volatile char *)p)[i] = 1;
}

static void steps(void)
{
	char *a, *b, *c, *d;

	mark("nothing yet");
	take(0, 1);
	mark("malloc(24), the first");
	take(1, 1000);
	mark("malloc(24), 999 more");
	take(1000, SMALL);
	mark("malloc(24), 5000 more");
	a = keep(malloc(KIB(200)));
	mark("a = malloc(200 KiB)");
	touch_pages(a, KIB(200));
	mark("every page of a written");
	b = keep(malloc(KIB(200)));
	mark("b = malloc(200 KiB)");
	a = keep(realloc(a, KIB(400)));
	mark("a = realloc(a, 400 KiB)");
	free(a);
	mark("free(a)");
	c = keep(malloc(KIB(200)));
	mark("c = malloc(200 KiB)");
	d = keep(calloc(1, KIB(1024)));
	mark("d = calloc(1 MiB)");
	free(d);
	mark("free(d)");
	free(c);
	mark("free(c)");
	free(b);
	mark("free(b)");
	for (int i = SMALL - 1; i >= 0; i--)
		free(smalls[i]);
	mark("free of the 6000, last first");
	malloc_trim(0);
	mark("malloc_trim(0)");
}

static long faults(pid_t pid)
{
	char path[64], text[1024];
	unsigned long minor = 0;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	read_file(path, text, sizeof text);
	if (sscanf(strrchr(text, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %lu", &minor) != 1)
		fail("stat: %s", text);
	return minor;
}

static void print_memory(pid_t pid)
{
	static char text[1 << 16];
	char path[64], *line, *next;

	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
	read_file(path, text, sizeof text);
	line = strstr(text, "Anonymous:");
	printf("%ld\n", line ? strtol(line + 10, NULL, 10) : -1);
	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	read_file(path, text, sizeof text);
	for (line = text; *line; line = next + 1) {
		next = strchr(line, '\n');
		*next = 0;
		if (strstr(line, " rw-p 00000000 00:00 0 ") && !strstr(line, "[stack]"))
			printf("map %s\n", line);
	}
}

static void read_child(pid_t pid, unsigned long address, size_t length, char *to)
{
	for (size_t i = 0; i < length; i++)
		to[i] = ptrace(PTRACE_PEEKDATA, pid, address + i, 0) & 0xff;
	to[length] = 0;
}

static void print_call(struct user_regs_struct *r, long result)
{
	switch (r->orig_rax) {
	case SYS_brk:
		printf("call brk %#llx = %#lx\n", r->rdi, result);
		break;
	case SYS_mmap:
		printf("call mmap %#llx %llu %llu %#llx = %#lx\n", r->rdi, r->rsi, r->rdx, r->r10, result);
		break;
	case SYS_munmap:
		printf("call munmap %#llx %llu = %ld\n", r->rdi, r->rsi, result);
		break;
	case SYS_mremap:
		printf("call mremap %#llx %llu %llu %llu = %#lx\n", r->rdi, r->rsi, r->rdx, r->r10, result);
		break;
	case SYS_madvise:
		printf("call madvise %#llx %llu %llu = %ld\n", r->rdi, r->rsi, r->rdx, result);
		break;
	case SYS_mprotect:
		printf("call mprotect %#llx %llu %llu = %ld\n", r->rdi, r->rsi, r->rdx, result);
		break;
	}
}

static bool next_stop(pid_t pid)
{
	int status;

	if (ptrace(PTRACE_SYSCALL, pid, 0, 0) < 0 || waitpid(pid, &status, 0) != pid)
		fail("ptrace");
	return !WIFEXITED(status);
}

static void trace(pid_t pid)
{
	struct user_regs_struct before, after;
	long seen = 0, now;
	char label[128];
	int status;

	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		fail("wait");
	while (next_stop(pid)) {
		ptrace(PTRACE_GETREGS, pid, 0, &before);
		if (before.orig_rax == SYS_write && (int)before.rdi == -1) {
			now = faults(pid);
			read_child(pid, before.rsi, before.rdx, label);
			printf("step %s\nfaults %ld anonymous ", label, now - seen);
			print_memory(pid);
			seen = now;
			if (!next_stop(pid))
				break;
			continue;
		}
		if (!next_stop(pid))
			break;
		ptrace(PTRACE_GETREGS, pid, 0, &after);
		print_call(&before, after.rax);
	}
}

int main(int argc, char **argv)
{
	pid_t pid;

	if (argc > 1) {
		steps();
		_exit(0);
	}
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	printf("glibc %s\n", gnu_get_libc_version());
	fflush(stdout);
	pid = syscall(SYS_fork);
	if (pid < 0)
		fail("fork");
	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		execl("/proc/self/exe", argv[0], "child", NULL);
		_exit(1);
	}
	trace(pid);
	return 0;
}
