/*
 * freelists snapshot
 * freelists workload SEED OPERATIONS [PIPES]
 *
 * Prints the page allocator's own lists, which no file of /proc shows in their order. They are read
 * from the kernel's memory through /proc/kcore; layout.h says where fields lie in this very kernel.
 *
 * It runs as a real-time task, which may go below the min mark by half, and says so.
 *
 * "workload" takes a snapshot, does a seeded sequence of operations, and takes another. Both are
 * printed at the end, so that printing does not come between them, and the trace is marked:
 * the allocator's events between SNAP1-END and SNAP2-BEGIN lead from the first to the second.
 *
 * Lines of a snapshot; page frame numbers and sizes in hexadecimal, lists from head to tail:
 *   zone node= name= start_pfn= spanned= wmark=[] boost= reserved_highatomic= lowmem_reserve=[] nr_free_pages=
 *   free node= zone= order= mt= nr_free_all_mt= : pfn,pfn,...
 *   pcp node= zone= cpu= count= high= high_min= high_max= batch= flags= alloc_factor= free_count=
 *   pcplist node= zone= cpu= idx= order= mt= : pfn,pfn,...
 *   blocks node= zone= first_block_pfn= : one digit per pageblock, its migratetype; f in a hole
 */
#include "guest.h"
#include "layout.h"

#define NR_SHOWN_RESERVES 5
#define NR_LOW_ORDER_PCP_LISTS 12
#define PAGEBLOCK 512UL
#define SECTION_SHIFT 15
#define TEXT (6UL << 20)

_Static_assert(NR_MIGRATETYPES == 5, "this kernel has no CMA");
_Static_assert(NR_PCP_LISTS == NR_LOW_ORDER_PCP_LISTS + 2, "orders 0 to 3, and huge pages");
_Static_assert(NR_WATERMARKS == 4, "min, low, high, promo");

static const char *const migratetypes[] = {
	"UNMOVABLE", "MOVABLE", "RECLAIMABLE", "HIGHATOMIC", "ISOLATE",
};

/* The parts of the kernel's memory that /proc/kcore offers. */
static struct segment {
	u64 address, offset, size;
} segments[64];
static int nr_segments, kcore;

static u64 node_data, per_cpu_offset, mem_section, vmemmap;

static char first[TEXT], second[TEXT], *out;

#define PRINT(...) (out += sprintf(out, __VA_ARGS__))

static void kernel_read(u64 address, void *to, u64 size)
{
	for (int i = 0; i < nr_segments; i++) {
		struct segment *s = &segments[i];

		if (address < s->address || address + size > s->address + s->size)
			continue;
		if (pread(kcore, to, size, s->offset + address - s->address) != (ssize_t)size)
			break;
		return;
	}
	fail("no kernel memory at %lx", (unsigned long)address);
}

#define READER(name, type)                                \
	static type name(u64 address)                     \
	{                                                 \
		type value;                               \
                                                          \
		kernel_read(address, &value, sizeof value); \
		return value;                             \
	}
READER(read_u64, u64)
READER(read_int, int)
READER(read_short, short)
READER(read_byte, unsigned char)

static u64 symbol(const char *name)
{
	static char symbols[1 << 24];
	char line[80], *found;

	if (!symbols[0])
		read_file("/proc/kallsyms", symbols, sizeof symbols);
	sprintf(line, " %s\n", name);
	found = strstr(symbols, line);
	if (!found)
		fail("no symbol %s", name);
	while (found > symbols && found[-1] != '\n')
		found--;
	return strtoull(found, NULL, 16);
}

static void open_kernel(void)
{
	static unsigned char elf[8192];
	ssize_t size;
	u64 table;
	unsigned short count;

	kcore = open("/proc/kcore", O_RDONLY);
	size = kcore < 0 ? -1 : pread(kcore, elf, sizeof elf, 0);
	if (size < 64)
		fail("/proc/kcore");
	memcpy(&table, elf + 32, sizeof table);
	memcpy(&count, elf + 56, sizeof count);
	for (int i = 0; i < count && table + 56 * (i + 1) <= (u64)size; i++) {
		unsigned char *header = elf + table + 56 * i;
		u32 type;

		memcpy(&type, header, sizeof type);
		if (type != 1 || nr_segments == 64)
			continue;
		struct segment *s = &segments[nr_segments++];
		memcpy(&s->offset, header + 8, 8);
		memcpy(&s->address, header + 16, 8);
		memcpy(&s->size, header + 32, 8);
	}
	node_data = symbol("node_data");
	per_cpu_offset = symbol("__per_cpu_offset");
	mem_section = symbol("mem_section");
	vmemmap = read_u64(symbol("vmemmap_base"));
	/* Touch the buffers now: a snapshot must not allocate. */
	memset(first, 1, sizeof first);
	memset(second, 1, sizeof second);
}

/* The pages on a list, by the offset of the list's links in struct page. */
static void print_list(u64 head, u64 links)
{
	const char *separator = "";

	for (u64 at = read_u64(head); at != head; at = read_u64(at)) {
		PRINT("%s%lx", separator, (unsigned long)((at - links - vmemmap) / SIZE_page));
		separator = ",";
	}
	PRINT("\n");
}

static bool list_empty(u64 head)
{
	return read_u64(head) == head;
}

/* Four bits per pageblock in the section's usage map; the lower three are the migratetype. */
static int migratetype_of(u64 pfn)
{
	u64 section = pfn >> SECTION_SHIFT, per_root = PAGE / SIZE_mem_section;
	u64 root = read_u64(read_u64(mem_section) + section / per_root * 8), usage, bit;

	if (!root)
		return 15;
	usage = read_u64(root + section % per_root * SIZE_mem_section + OFF_mem_section_usage);
	if (!usage)
		return 15;
	bit = pfn % (1UL << SECTION_SHIFT) / PAGEBLOCK * 4;
	return read_u64(usage + OFF_mem_section_usage_pageblock_flags + bit / 64 * 8) >> bit % 64 & 7;
}

static void print_longs(const char *name, u64 address, int count)
{
	PRINT(" %s=[", name);
	for (int i = 0; i < count; i++)
		PRINT("%s%ld", i ? "," : "", (long)read_u64(address + 8 * i));
	PRINT("]");
}

static void print_pcp(u64 pcp, int node, const char *zone, int cpu)
{
	PRINT("pcp node=%d zone=%s cpu=%d count=%d high=%d high_min=%d high_max=%d batch=%d flags=%d "
	      "alloc_factor=%d free_count=%d\n",
	      node, zone, cpu, read_int(pcp + OFF_per_cpu_pages_count),
	      read_int(pcp + OFF_per_cpu_pages_high), read_int(pcp + OFF_per_cpu_pages_high_min),
	      read_int(pcp + OFF_per_cpu_pages_high_max), read_int(pcp + OFF_per_cpu_pages_batch),
	      read_byte(pcp + OFF_per_cpu_pages_flags), read_byte(pcp + OFF_per_cpu_pages_alloc_factor),
	      read_short(pcp + OFF_per_cpu_pages_free_count));
	for (int i = 0; i < NR_PCP_LISTS; i++) {
		u64 head = pcp + OFF_per_cpu_pages_lists + 16 * i;
		bool huge = i >= NR_LOW_ORDER_PCP_LISTS;

		if (list_empty(head))
			continue;
		PRINT("pcplist node=%d zone=%s cpu=%d idx=%d order=%d mt=%s : ", node, zone, cpu, i,
		      huge ? 9 : i / 3,
		      !huge ? migratetypes[i % 3] : i == NR_PCP_LISTS - 1 ? "MOVABLE" : "NONMOVABLE");
		print_list(head, OFF_page_pcp_list);
	}
}

static void print_free(u64 zone, int node, const char *name)
{
	for (int order = 0; order < NR_ORDERS; order++) {
		u64 area = zone + OFF_zone_free_area + order * SIZE_free_area;

		for (int type = 0; type < NR_MIGRATETYPES; type++) {
			u64 head = area + OFF_free_area_free_list + 16 * type;

			if (list_empty(head))
				continue;
			PRINT("free node=%d zone=%s order=%d mt=%s nr_free_all_mt=%lu : ", node, name, order,
			      migratetypes[type], (unsigned long)read_u64(area + OFF_free_area_nr_free));
			print_list(head, OFF_page_buddy_list);
		}
	}
}

static void print_zone(u64 zone, int node)
{
	u64 start = read_u64(zone + OFF_zone_zone_start_pfn);
	u64 spanned = read_u64(zone + OFF_zone_spanned_pages);
	u64 pages = read_u64(zone + OFF_zone_per_cpu_pageset);
	u64 block = start / PAGEBLOCK * PAGEBLOCK;
	char name[9] = "";

	if (!spanned)
		return;
	kernel_read(read_u64(zone + OFF_zone_name), name, 8);
	PRINT("zone node=%d name=%s start_pfn=%lx spanned=%lx", node, name, (unsigned long)start,
	      (unsigned long)spanned);
	print_longs("wmark", zone + OFF_zone__watermark, NR_WATERMARKS);
	PRINT(" boost=%ld reserved_highatomic=%ld", (long)read_u64(zone + OFF_zone_watermark_boost),
	      (long)read_u64(zone + OFF_zone_nr_reserved_highatomic));
	print_longs("lowmem_reserve", zone + OFF_zone_lowmem_reserve, NR_SHOWN_RESERVES);
	PRINT(" nr_free_pages=%ld\n", (long)read_u64(zone + OFF_zone_vm_stat));
	print_free(zone, node, name);
	for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_ONLN); cpu++)
		print_pcp(pages + read_u64(per_cpu_offset + 8 * cpu), node, name, cpu);
	PRINT("blocks node=%d zone=%s first_block_pfn=%lx : ", node, name, (unsigned long)block);
	for (; block < start + spanned; block += PAGEBLOCK)
		PRINT("%x", migratetype_of(block < start ? start : block));
	PRINT("\n");
}

static void snapshot(char *buffer)
{
	u64 data;

	out = buffer;
	for (int node = 0; (data = read_u64(node_data + 8 * node)); node++)
		for (int zone = 0; zone < NR_ZONES; zone++)
			print_zone(data + OFF_pglist_data_node_zones + zone * SIZE_zone, node);
	*out = 0;
}

/* ---- the workload: every way in which a process makes the kernel allocate pages ---- */

#define SLOTS 48
static struct {
	char *start;
	u64 pages;
} slots[SLOTS];
#define MAX_PIPES 400
static int pipes[MAX_PIPES][2], nr_pipes, most_pipes = 24, shared_file;

static void release(int slot)
{
	if (slots[slot].start)
		munmap(slots[slot].start, slots[slot].pages * PAGE);
	slots[slot].start = NULL;
}

/* Order 0, movable; the first touch of a region also takes page tables. */
static void anonymous(int slot)
{
	release(slot);
	slots[slot].pages = 1 + below(80);
	slots[slot].start =
		map_pages(NULL, slots[slot].pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	for (u64 i = 0; i < slots[slot].pages; i++)
		slots[slot].start[i * PAGE] = 1;
}

/* Order 9: a whole huge page at the first touch. */
static void huge(int slot)
{
	const u64 size = 2UL << 20;
	char *area, *aligned;

	release(slot);
	area = map_pages(NULL, 1024, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	aligned = (char *)(((u64)area + size - 1) & ~(size - 1));
	munmap(area, 2 * size);
	slots[slot].start =
		map_pages(aligned, 512, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	slots[slot].pages = 512;
	madvise(aligned, size, MADV_HUGEPAGE);
	aligned[0] = 1;
}

static void discard(int slot)
{
	u64 from;

	if (!slots[slot].start)
		return;
	from = below(slots[slot].pages);
	madvise(slots[slot].start + from * PAGE, (1 + below(slots[slot].pages - from)) * PAGE, MADV_DONTNEED);
}

/* Pipe buffers: order 0, unmovable. With many pipes, more at a time, so that such pages run short. */
static void pipe_buffers(void)
{
	static char bytes[49152];

	if (nr_pipes == most_pipes) {
		while (nr_pipes > most_pipes / 4) {
			nr_pipes--;
			close(pipes[nr_pipes][0]);
			close(pipes[nr_pipes][1]);
		}
		return;
	}
	for (int i = 0; i < most_pipes / 24 && nr_pipes < most_pipes; i++, nr_pipes++)
		if (pipe(pipes[nr_pipes]) || write(pipes[nr_pipes][1], bytes, 1 + below(sizeof bytes)) < 0)
			fail("pipe");
}

/*
 * Page tables and slabs; the child copies one page of what it shares. Its kernel stack must be one that
 * the kernel keeps for reuse: a new one is taken by alloc_pages_bulk(), which has no event. It comes back
 * when the child is switched away from for the last time.
 */
static void child(int slot)
{
	pid_t pid = fork();

	if (!pid) {
		if (slots[slot].start)
			slots[slot].start[0] = 2;
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

/*
 * Have two kernel stacks kept for reuse. From here on nothing sleeps: whoever ran meanwhile, kswapd for
 * one, would change the allocator's state without an event.
 */
static void keep_stacks(void)
{
	pid_t pids[2];

	for (int i = 0; i < 2; i++) {
		pids[i] = fork();
		if (!pids[i]) {
			usleep(100000);
			_exit(0);
		}
	}
	for (int i = 0; i < 2; i++)
		waitpid(pids[i], NULL, 0);
	sleep(1);
}

/* Pages of a file in memory, in large folios where the kernel likes. */
static void shared_pages(void)
{
	static char bytes[49152];

	if (!below(5)) {
		if (ftruncate(shared_file, 0))
			fail("ftruncate");
	} else if (pwrite(shared_file, bytes, 1 + below(sizeof bytes), below(256) * PAGE) < 0) {
		fail("pwrite");
	}
}

static void workload(u64 operations)
{
	for (u64 i = 0; i < operations; i++) {
		u64 kind = below(16);
		int slot = below(SLOTS);

		if (kind < 6)
			anonymous(slot);
		else if (kind < 8)
			release(slot);
		else if (kind < 10)
			discard(slot);
		else if (kind < 11)
			huge(slot);
		else if (kind < 13)
			pipe_buffers();
		else if (kind < 14)
			child(slot);
		else
			shared_pages();
	}
	for (int slot = 0; slot < SLOTS; slot += 2)
		release(slot);
}

static int marker;

static void mark(const char *text)
{
	if (write(marker, text, strlen(text)) < 0)
		fail("trace_marker");
}

int main(int argc, char **argv)
{
	struct sched_param first_in_line = { .sched_priority = 1 };
	int tracing_on;

	open_kernel();
	/* No kernel thread gets the CPU while a list is walked, or between the two snapshots. */
	if (sched_setscheduler(0, SCHED_FIFO, &first_in_line))
		fail("sched_setscheduler");
	snapshot(first);
	if (argc < 4 || strcmp(argv[1], "workload")) {
		fputs(first, stdout);
		return argc != 2 || strcmp(argv[1], "snapshot");
	}
	seed(strtoull(argv[2], NULL, 10));
	if (argc == 5)
		most_pipes = atoi(argv[4]);
	if (most_pipes < 24 || most_pipes > MAX_PIPES)
		fail("from 24 to %d pipes", MAX_PIPES);
	marker = open("/sys/kernel/tracing/trace_marker", O_WRONLY);
	tracing_on = open("/sys/kernel/tracing/tracing_on", O_WRONLY);
	shared_file = memfd_create("workload", 0);
	if (marker < 0 || tracing_on < 0 || shared_file < 0)
		fail("tracing or memfd");
	keep_stacks();
	snapshot(second); /* once for practice: both paths have run before the first mark */
	mark("SNAP1-BEGIN");
	snapshot(first);
	mark("SNAP1-END");
	workload(strtoull(argv[3], NULL, 10));
	mark("SNAP2-BEGIN");
	snapshot(second);
	mark("SNAP2-END");
	if (write(tracing_on, "0", 1) < 0)
		fail("tracing_on");
	printf("policy=fifo rt_priority=%d\nSNAPSHOT 1\n%sSNAPSHOT 2\n%s", first_in_line.sched_priority, first, second);
	return 0;
}
