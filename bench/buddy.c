/* SPDX-License-Identifier: GPL-2.0-only
 *
 * A yardstick: a binary buddy allocator with intrusive free lists in the order in which the Linux
 * page allocator keeps them (head or tail by "is the parent's buddy free"), one migratetype, no
 * per-CPU lists. It replays the script that the Python engine replays and prints the time per
 * operation, so that the engine's rates can be given as a ratio to plain C on the same machine.
 *
 * usage: buddy PAGES < script       one number per line: order to allocate, or -1-slot to free
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ORDERS 11

struct page { int prev, next; signed char order; };   /* order < 0: not a free block's head */

static struct page *map;
static int head[ORDERS], pages;                        /* list heads live behind the pages */

static int head_of(int order) { return pages + order; }

static void add(int pfn, int order, int tail)
{
	int h = head_of(order), before = tail ? map[h].prev : h, after = map[before].next;

	map[pfn].prev = before; map[pfn].next = after;
	map[before].next = pfn; map[after].prev = pfn;
	map[pfn].order = order;
}

static void del(int pfn)
{
	map[map[pfn].prev].next = map[pfn].next;
	map[map[pfn].next].prev = map[pfn].prev;
	map[pfn].order = -1;
}

static int is_free(int pfn, int order)
{
	return pfn + (1 << order) <= pages && map[pfn].order == order;
}

static int alloc(int order)
{
	for (int o = order; o < ORDERS; o++) {
		int pfn = map[head_of(o)].next;

		if (pfn >= pages)
			continue;
		del(pfn);
		while (o > order) {
			o--;
			add(pfn + (1 << o), o, 0);
		}
		return pfn;
	}
	return -1;
}

static void release(int pfn, int order)
{
	while (order < ORDERS - 1 && is_free(pfn ^ (1 << order), order)) {
		del(pfn ^ (1 << order));
		pfn &= ~(1 << order);
		order++;
	}
	add(pfn, order, order < ORDERS - 2 && is_free((pfn & ~(1 << order)) ^ (2 << order), order + 1));
}

int main(int argc, char **argv)
{
	int n = 0, room = 1 << 22, slots = 0, value;
	int *op = malloc(room * sizeof *op), *at = malloc(room * sizeof *at);
	signed char *ord = malloc(room);
	struct timespec a, b;
	long sum = 0;

	if (argc != 2 || (pages = atoi(argv[1])) <= 0 || !op || !at || !ord)
		return 2;
	while (n < room && scanf("%d", &value) == 1)
		op[n++] = value;
	map = calloc(pages + ORDERS, sizeof *map);
	if (!map)
		return 2;
	for (int i = 0; i < pages; i++)
		map[i].order = -1;
	for (int o = 0; o < ORDERS; o++)
		map[head_of(o)].prev = map[head_of(o)].next = head_of(o);
	for (int pfn = 0; pfn + 1024 <= pages; pfn += 1024)
		add(pfn, 10, 1);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < n; i++) {
		if (op[i] >= 0) {
			at[slots] = alloc(op[i]);
			ord[slots] = op[i];
			sum += at[slots++];
		} else if (at[-1 - op[i]] >= 0) {
			release(at[-1 - op[i]], ord[-1 - op[i]]);
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%.9f %ld\n", ((b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) * 1e-9) / (n ? n : 1), sum);
	return 0;
}
