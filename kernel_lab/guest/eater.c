/*
 * eater [name=X] [score=N] [group=DIR] [anon=MB] [shared=MB] [scattered=N] [file=MB:PATH] [rounds=N] [stay=SECONDS]
 *
 * A process that uses what it is told to, says so, stays for a while and exits. score is its
 * oom_score_adj, group a cgroup that it enters first; scattered touches one page in each of N page
 * tables; rounds walks the anonymous memory and the file that often. anon=all never stops.
 */
#include "guest.h"

static long number(const char *text)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (end == text)
		fail("not a number: %s", text);
	return value;
}

static char *small_pages(u64 pages, int flags)
{
	char *start = map_pages(NULL, pages, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1);

	madvise(start, pages * PAGE, MADV_NOHUGEPAGE);
	return start;
}

static void touch(volatile char *start, u64 pages, u64 step)
{
	for (u64 i = 0; i < pages; i++)
		start[i * step * PAGE] = 1;
}

__attribute__((noreturn)) static void eat_all(void)
{
	for (;;)
		touch(small_pages(256, MAP_PRIVATE), 256, 1);
}

int main(int argc, char **argv)
{
	long anon = 0, shared = 0, scattered = 0, file = 0, rounds = 1, stay = 0;
	const char *name = "eater", *path = NULL;
	char *memory = NULL, *mapped = NULL, buffer[256];
	bool all = false;

	for (int i = 1; i < argc; i++) {
		char *value = strchr(argv[i], '=');

		if (!value)
			fail("not key=value: %s", argv[i]);
		*value++ = 0;
		if (!strcmp(argv[i], "name")) {
			name = value;
			prctl(PR_SET_NAME, name);
		} else if (!strcmp(argv[i], "score")) {
			write_file("/proc/self/oom_score_adj", value);
		} else if (!strcmp(argv[i], "group")) {
			snprintf(buffer, sizeof buffer, "%s/cgroup.procs", value);
			write_file(buffer, "0");
		} else if (!strcmp(argv[i], "anon")) {
			all = !strcmp(value, "all");
			anon = all ? 0 : number(value) * 256;
		} else if (!strcmp(argv[i], "shared")) {
			shared = number(value) * 256;
		} else if (!strcmp(argv[i], "scattered")) {
			scattered = number(value);
		} else if (!strcmp(argv[i], "file")) {
			file = number(value) * 256;
			path = strchr(value, ':');
		} else if (!strcmp(argv[i], "rounds")) {
			rounds = number(value);
		} else if (!strcmp(argv[i], "stay")) {
			stay = number(value);
		} else {
			fail("no key %s", argv[i]);
		}
	}
	if (all)
		eat_all();
	if (shared)
		touch(small_pages(shared, MAP_SHARED), shared, 1);
	if (scattered)
		touch(small_pages(scattered * 512, MAP_PRIVATE | MAP_NORESERVE), scattered, 512);
	if (anon)
		memory = small_pages(anon, MAP_PRIVATE);
	if (file && path) {
		int fd = open(path + 1, O_RDONLY);

		if (fd < 0)
			fail("open %s", path + 1);
		mapped = map_pages(NULL, file, PROT_READ, MAP_SHARED, fd);
	}
	for (long round = 0; round < rounds; round++) {
		touch(memory, anon, 1);
		for (long i = 0; i < file; i++)
			(void)((volatile char *)mapped)[i * PAGE];
	}
	printf("ready %s pid=%d\n", name, getpid());
	fflush(stdout);
	sleep(stay);
	return 0;
}
