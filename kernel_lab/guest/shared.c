/*
 * shared seals | sysv | counters | limits
 *
 * Shared memory, step by step. A line is "WHAT: CALL = RESULT", with "-ENAME" where it failed.
 *   seals     what each seal refuses, and which seal may be added while what is mapped
 *   sysv      identifiers, attachments, removal and errors of System V segments
 *   counters  three processes on one object of each kind: smaps, Shmem, Committed_AS and faults
 *   limits    a tmpfs of 2 pages, memfd names and flags, and what lies behind the end of an object
 */
#include "guest.h"
#include <linux/memfd.h>
#include <setjmp.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/shm.h>
#include <sys/statfs.h>

#define EXEC_SEAL 0x20 /* F_SEAL_EXEC and MFD_NOEXEC_SEAL, which old headers lack */
#define NOEXEC_SEAL 8U
#define RW (PROT_READ | PROT_WRITE)

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

/* An address does not matter, only whether there is one. */
static long mapped(void *result)
{
	return result == MAP_FAILED ? -1 : 0;
}

static sigjmp_buf back;

static void caught(int number)
{
	siglongjmp(back, number);
}

/* The number of the signal that an access gets, or 0. */
static int touch(volatile char *address, bool writing)
{
	int number = sigsetjmp(back, 1);

	if (number)
		return number;
	if (writing)
		*address = 1;
	else
		(void)*address;
	return 0;
}

/* ---- seals ---- */

static int sealable(const char *name)
{
	int fd = memfd_create(name, MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, 4 * PAGE))
		fail("memfd_create");
	return fd;
}

static void sealed_operations(int fd)
{
	char *whole = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);

	TRY(fcntl(fd, F_GET_SEALS));
	TRY(write(fd, "x", 1));
	TRY(pwrite(fd, "x", 1, 6 * PAGE));
	TRY(mapped(mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0)));
	TRY(mapped(mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0)));
	TRY(mapped(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0)));
	if (whole != MAP_FAILED)
		TRY(mprotect(whole, PAGE, RW));
	TRY(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE));
	TRY(fallocate(fd, 0, 0, 8 * PAGE));
	TRY(ftruncate(fd, 9 * PAGE));
	TRY(ftruncate(fd, PAGE));
	TRY(fchmod(fd, 0600));
	TRY(fchmod(fd, 0700));
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	TRY(fcntl(fd, F_GET_SEALS));
	close(fd);
}

static void seals(void)
{
	static const struct {
		const char *name;
		int seal;
	} each[] = {
		{ "none", 0 },
		{ "seal", F_SEAL_SEAL },
		{ "shrink", F_SEAL_SHRINK },
		{ "grow", F_SEAL_GROW },
		{ "write", F_SEAL_WRITE },
		{ "future-write", F_SEAL_FUTURE_WRITE },
		{ "exec", EXEC_SEAL },
		{ "grow+shrink+write", F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE },
		{ "unknown", 0x40 },
	};
	int fd;

	for (unsigned i = 0; i < sizeof each / sizeof *each; i++) {
		what = each[i].name;
		fd = sealable(what);
		say("F_ADD_SEALS", fcntl(fd, F_ADD_SEALS, each[i].seal));
		sealed_operations(fd);
	}
	what = "while-mapped-shared-rw";
	fd = sealable(what);
	map_pages(NULL, 1, RW, MAP_SHARED, fd);
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	TRY(fcntl(fd, F_GET_SEALS));
	what = "while-mapped-shared-ro";
	fd = sealable(what);
	map_pages(NULL, 1, PROT_READ, MAP_SHARED, fd);
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	what = "while-mapped-private";
	fd = sealable(what);
	map_pages(NULL, 1, RW, MAP_PRIVATE, fd);
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	what = "plain";
	fd = memfd_create("plain", 0);
	TRY(fcntl(fd, F_GET_SEALS));
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	what = "noexec";
	fd = memfd_create("noexec", NOEXEC_SEAL);
	TRY(fcntl(fd, F_GET_SEALS));
	TRY(fchmod(fd, 0700));
	TRY(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	what = "pipe";
	TRY(fcntl(0, F_GET_SEALS));
}

/* ---- System V ---- */

/* Without the times, which are the emulator's. */
static void show_segments(void)
{
	static char text[1 << 16];
	char *line = text, *next;
	long key, id, mode, size, creator, last, attached, rss, swap;

	read_file("/proc/sysvipc/shm", text, sizeof text);
	while ((next = strchr(line, '\n'))) {
		if (sscanf(line, "%ld %ld %lo %ld %ld %ld %ld %*d %*d %*d %*d %*d %*d %*d %ld %ld", &key, &id, &mode,
			   &size, &creator, &last, &attached, &rss, &swap) == 9)
			printf("%s: segment key=%ld id=%ld mode=%lo size=%ld nattch=%ld rss=%ld swap=%ld\n", what, key, id,
			       mode, size, attached, rss, swap);
		line = next + 1;
	}
	fflush(stdout);
}

static void sysv(void)
{
	struct shm_info info;
	struct shmid_ds status;
	int first, second, ids[6];
	char *at, *again;
	pid_t pid;

	what = "get";
	TRY(shmget(IPC_PRIVATE, 0, 0600));
	TRY(first = shmget(7, 3 * PAGE + 1, IPC_CREAT | 0600));
	TRY(shmget(7, 0, 0));
	TRY(shmget(7, 4 * PAGE, 0));
	TRY(shmget(7, 5 * PAGE, 0));
	TRY(shmget(7, PAGE, IPC_CREAT | IPC_EXCL | 0600));
	TRY(shmget(8, PAGE, 0600));
	TRY(shmget(9, PAGE, IPC_CREAT | SHM_HUGETLB | 0600));
	what = "attach";
	at = shmat(first, NULL, 0);
	say("shmat", mapped(at));
	TRY(touch(at, true));
	TRY(touch(at + 3 * PAGE, true));
	TRY(touch(at + 4 * PAGE, false));
	again = shmat(first, NULL, SHM_RDONLY);
	TRY(touch(again, true));
	TRY(mapped(shmat(first, at, 0)));
	TRY(mapped(shmat(first, at + 1, 0)));
	TRY(shmat(first, at + 1, SHM_RND | SHM_REMAP) == at);
	TRY(mapped(shmat(first + 1000, NULL, 0)));
	show_segments();
	what = "fork";
	pid = fork();
	if (!pid) {
		show_segments();
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	show_segments();
	what = "remove";
	TRY(shmctl(first, IPC_RMID, NULL));
	show_segments();
	TRY(shmget(7, PAGE, 0));
	TRY(mapped(shmat(first, NULL, 0)));
	TRY(munmap(at + PAGE, PAGE));
	show_segments();
	TRY(shmdt(at));
	TRY(shmdt(again));
	for (int i = 0; i < 4; i++)
		shmdt(again + i * PAGE);
	show_segments();
	what = "identifiers";
	for (int i = 0; i < 6; i++)
		TRY(ids[i] = shmget(IPC_PRIVATE, PAGE, 0600));
	TRY(shmctl(ids[1], IPC_RMID, NULL));
	TRY(shmctl(ids[4], IPC_RMID, NULL));
	TRY(second = shmget(IPC_PRIVATE, PAGE, 0600));
	TRY(shmctl(second, IPC_STAT, &status));
	TRY(shmctl(ids[1], IPC_STAT, &status));
	show_segments();
	TRY(shmctl(0, SHM_INFO, (struct shmid_ds *)&info));
	printf("%s: used_ids=%d shm_tot=%lu shm_rss=%lu shm_swp=%lu\n", what, info.used_ids, info.shm_tot, info.shm_rss,
	       info.shm_swp);
}

/* ---- counters ---- */

#define PAGES 96UL

static char *object;

static void show_meminfo(const char *when)
{
	static const char *const names[] = { "Shmem:", "Committed_AS:", "AnonPages:" };
	static char text[8192];

	read_file("/proc/meminfo", text, sizeof text);
	printf("%s: %s", what, when);
	for (int i = 0; i < 3; i++)
		printf(" %s%ld", names[i], atol(strchr(strstr(text, names[i]), ':') + 1));
	printf("\n");
}

static void show_process(const char *who, pid_t pid)
{
	static const char *const names[] = { "Rss:", "Pss:", "Shared_Clean:", "Shared_Dirty:", "Private_Clean:",
					     "Private_Dirty:", "Anonymous:" };
	static char text[1 << 18];
	char path[64], start[32], *at;
	long minor = 0;

	snprintf(path, sizeof path, "/proc/%d/smaps", pid);
	read_file(path, text, sizeof text);
	snprintf(start, sizeof start, "%lx-", (unsigned long)object);
	at = strstr(text, start);
	printf("%s: %s", what, who);
	for (unsigned i = 0; at && i < sizeof names / sizeof *names; i++)
		printf(" %s%ld", names[i], atol(strchr(strstr(at, names[i]), ':') + 1));
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	read_file(path, text, sizeof text);
	sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %lu", &minor);
	printf(" minflt=%ld\n", minor);
	fflush(stdout);
}

/* A child that touches a part of the object and then stops. */
static pid_t sharer(u64 first, u64 count, bool writing)
{
	pid_t pid = fork();

	if (!pid) {
		for (u64 i = first; i < first + count; i++)
			touch(object + i * PAGE, writing);
		raise(SIGSTOP);
		_exit(0);
	}
	waitpid(pid, NULL, WUNTRACED);
	return pid;
}

static void three_sharers(const char *kind, char *at)
{
	pid_t pids[3];

	what = kind;
	object = at;
	show_meminfo("mapped");
	pids[0] = sharer(0, PAGES / 3, true);
	pids[1] = sharer(PAGES / 3, PAGES / 3, true);
	pids[2] = sharer(20, 5, false);
	show_process("writes-first-third", pids[0]);
	show_process("writes-second-third", pids[1]);
	show_process("reads-5-pages", pids[2]);
	show_process("parent", getpid());
	show_meminfo("shared");
	for (int i = 0; i < 3; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	show_process("parent-alone", getpid());
	show_meminfo("alone");
	munmap(at, PAGES * PAGE);
	show_meminfo("unmapped");
}

static void counters(void)
{
	int fd = memfd_create("object", 0), id = shmget(IPC_PRIVATE, PAGES * PAGE, IPC_CREAT | 0600);

	what = "before";
	if (fd < 0 || ftruncate(fd, PAGES * PAGE))
		fail("memfd_create");
	show_meminfo("created");
	three_sharers("anonymous", map_pages(NULL, PAGES, RW, MAP_SHARED | MAP_ANONYMOUS, -1));
	three_sharers("anonymous-noreserve",
		      map_pages(NULL, PAGES, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1));
	three_sharers("memfd", map_pages(NULL, PAGES, RW, MAP_SHARED, fd));
	three_sharers("memfd-private", map_pages(NULL, PAGES, RW, MAP_PRIVATE, fd));
	three_sharers("sysv", shmat(id, NULL, 0));
	what = "after";
	shmctl(id, IPC_RMID, NULL);
	show_meminfo("sysv-removed");
	close(fd);
	show_meminfo("memfd-closed");
}

/* ---- limits ---- */

static void limits(void)
{
	static char name[260], page[PAGE];
	struct statfs space;
	char *at;
	int fd;

	what = "memfd";
	memset(name, 'n', 250);
	TRY(memfd_create(name, 0));
	name[249] = 0;
	TRY(memfd_create(name, 0) >= 0);
	TRY(memfd_create("flags", 0x40));
	TRY(memfd_create("exec-and-noexec", NOEXEC_SEAL | 0x10));
	TRY(memfd_create("huge", MFD_HUGETLB) >= 0);
	TRY(memfd_create("huge-size-only", MFD_HUGE_2MB));
	what = "tmpfs";
	TRY(mount("none", "/mnt", "tmpfs", 0, "size=8k"));
	TRY(fd = open("/mnt/file", O_RDWR | O_CREAT, 0600));
	TRY(ftruncate(fd, 3 * PAGE));
	at = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0);
	for (int i = 0; i < 4; i++)
		TRY(touch(at + i * PAGE, true));
	TRY(touch(at + 2 * PAGE, false));
	TRY(pwrite(fd, page, PAGE, 2 * PAGE));
	TRY(fallocate(fd, 0, 2 * PAGE, PAGE));
	TRY(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE));
	TRY(fallocate(fd, 0, 2 * PAGE, PAGE));
	TRY(touch(at + PAGE, true));
	TRY(touch(at, true));
	TRY(madvise(at, PAGE, MADV_REMOVE));
	TRY(ftruncate(fd, PAGE));
	TRY(touch(at + PAGE, false));
	statfs("/mnt", &space);
	printf("%s: blocks=%ld free=%ld files=%ld\n", what, (long)space.f_blocks, (long)space.f_bfree, (long)space.f_files);
	TRY(mount("none", "/mnt", "tmpfs", MS_REMOUNT, "size=4k"));
	TRY(mount("none", "/mnt", "tmpfs", MS_REMOUNT, "size=10%"));
	statfs("/mnt", &space);
	printf("%s: blocks=%ld\n", what, (long)space.f_blocks);
	TRY(mount("none", "/tmp", "tmpfs", 0, ""));
	statfs("/tmp", &space);
	printf("%s: default blocks=%ld files=%ld\n", what, (long)space.f_blocks, (long)space.f_files);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = caught };
	const char *part = argc == 2 ? argv[1] : "";

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	if (!strcmp(part, "seals"))
		seals();
	else if (!strcmp(part, "sysv"))
		sysv();
	else if (!strcmp(part, "counters"))
		counters();
	else if (!strcmp(part, "limits"))
		limits();
	else
		fail("shared seals|sysv|counters|limits");
	return 0;
}
