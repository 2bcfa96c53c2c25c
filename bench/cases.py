"""The cases: each yields rows of (name, value, unit, yardstick or None)."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from time import perf_counter

from bench import memcg, vma
from bench.live import live
from bench.measure import best, c_buddy, memory_of, mixed_script
from bench.row import Row
from mmcore import Machine
from mmcore.arch.x86 import pgtable
from mmcore.arch.x86.pgtable_types import PAGE_SHARED
from mmcore.kernel.fork import mm_alloc
from mmcore.machine import bare_zone
from mmcore.mm import page_alloc
from mmcore.mm.gfp import GFP_HIGHUSER_MOVABLE
from mmcore.mm.mm import MmStruct
from mmcore.mm.mm_types import Page
from mmcore.mm.mmzone import MIGRATE_MOVABLE, Zone
from mmcore.mm.page_alloc import FPI_NONE

__all__ = ["CASES", "Row"]


def boot(quick: bool) -> Iterator[Row]:
    """Boot machines of three sizes: seconds, and the memory that the booted machine keeps."""
    for size in ("1G", "64G") if quick else ("1G", "64G", "1T"):
        yield Row(f"boot {size}", best(Machine.boot, 2, size), "s", better="lower")
        machine, kept = memory_of(Machine.boot, size)
        yield Row(f"boot {size}, memory", kept / 1e6, "MB", better="lower")
        del machine


def page_memory(quick: bool) -> Iterator[Row]:
    """What one page costs once it has an object: order-0 pages of a 1 GiB machine, without the list.

    The table that finds a page by its number doubles when it is full, so the cost swings with the
    count: the mean over one doubling, and the worst.
    """
    costs = []
    for eighths in (8, 10, 12, 14):
        pages: list[Page | None] = [None] * ((2_500 if quick else 15_000) * eighths)
        machine = Machine.boot("1G")
        _, kept = memory_of(_allocate, machine, pages)
        costs.append(kept / len(pages))
        pages.clear()
    mean = sum(costs) / len(costs)
    yield Row("memory per materialised page", mean, "bytes", better="lower")
    yield Row("  at the worst count", max(costs), "bytes", better="lower")


def _allocate(machine: Machine, pages: list[Page | None]) -> None:
    for i in range(len(pages)):
        pages[i] = page_alloc.alloc_pages(machine, GFP_HIGHUSER_MOVABLE, 0)


def _free(pages: list[Page | None]) -> None:
    for page in pages:
        assert page is not None
        page_alloc.__free_pages(page, 0)


def _pairs(machine: Machine, n: int) -> None:
    for _ in range(n):
        page = page_alloc.alloc_pages(machine, GFP_HIGHUSER_MOVABLE, 0)
        assert page is not None
        page_alloc.__free_pages(page, 0)


def pcp(quick: bool) -> Iterator[Row]:
    """Order 0 through the per-CPU lists: the whole path from alloc_pages() to __free_pages()."""
    machine = Machine.boot("1G")
    n = 20_000 if quick else 100_000
    pages: list[Page | None] = [None] * n
    yield Row(
        "order 0, alloc and free in turn", 2 * n / best(_pairs, 3, machine, n), "op/s", "dict"
    )
    yield from _fill_and_empty(
        "order 0 through pcp", n, lambda: _allocate(machine, pages), lambda: _free(pages)
    )


def _fill_and_empty(
    name: str, n: int, fill: Callable[[], None], empty: Callable[[], None], runs: int = 3
) -> Iterator[Row]:
    """Time filling and emptying in turn; the best of each.

    A first round, which makes the page objects, is not counted: what is measured is the steady state.
    """
    fill()
    empty()
    filling = emptying = float("inf")
    for _ in range(runs):
        gc.collect()
        gc.disable()
        start = perf_counter()
        fill()
        middle = perf_counter()
        empty()
        emptying = min(emptying, perf_counter() - middle)
        filling = min(filling, middle - start)
        gc.enable()
    yield Row(f"{name}, alloc", n / filling, "op/s", "dict")
    yield Row(f"{name}, free", n / emptying, "op/s", "dict")


def buddy(quick: bool) -> Iterator[Row]:
    """Orders 0 and 9 at the buddy itself: __rmqueue_smallest() and __free_one_page()."""
    for order, pages_in_zone in ((0, 1 << 13 if quick else 1 << 16), (9, 1 << 20)):
        yield from _buddy(bare_zone(pages_in_zone), order, pages_in_zone >> order)


def _buddy(zone: Zone, order: int, n: int) -> Iterator[Row]:
    taken: list[Page | None] = [None] * n

    def fill() -> None:
        take = page_alloc.__rmqueue_smallest
        for i in range(n):
            taken[i] = take(zone, order, MIGRATE_MOVABLE)

    def empty() -> None:
        give = page_alloc.__free_one_page
        for page in taken:
            assert page is not None
            give(page, page.pfn, zone, order, MIGRATE_MOVABLE, FPI_NONE)

    yield from _fill_and_empty(f"buddy order {order}", n, fill, empty)


def _replay(machine: Machine, script: list[int]) -> None:
    got: list[tuple[Page | None, int]] = []
    alloc, free = page_alloc.alloc_pages, page_alloc.__free_pages
    for step in script:
        if step >= 0:
            got.append((alloc(machine, GFP_HIGHUSER_MOVABLE, step), step))
        else:
            page, order = got[-1 - step]
            if page is not None:
                free(page, order)


def mixed(quick: bool) -> Iterator[Row]:
    """A seeded mix of orders 0 to 9, over three sizes: the time per operation must not grow."""
    sizes: tuple[tuple[int, int], ...] = (
        ((1 << 16, 10_000), (1 << 18, 30_000))
        if quick
        else ((1 << 16, 100_000), (1 << 18, 300_000))
    )
    if not quick:
        sizes += ((1 << 20, 1_000_000),)
    for pages, operations in sizes:
        script = mixed_script(operations, pages)
        machine = bare_zone(pages).machine
        seconds = best(_replay, 1, machine, script)
        yield Row(
            f"mixed replay, {operations:,} on {pages >> 8} MiB", operations / seconds, "op/s", "c"
        )
        in_c = c_buddy(script, pages)
        if in_c is not None:
            yield Row(f"  the same in C, {operations:,}", in_c, "op/s")


def paging(quick: bool) -> Iterator[Row]:
    """Page tables: mapping and walking 4 KiB pages, dense, over three sizes."""
    base = 0x7F00_0000_0000
    for n in (1 << 10, 1 << 13) if quick else (1 << 10, 1 << 14, 1 << 17):
        mm = mm_alloc(Machine.boot("2G"))
        assert mm is not None
        yield Row(f"map {n:,} pages", n / best(_map_all, 1, mm, base, n), "page/s", "dict")
        yield Row(f"walk {n:,} addresses", n / best(_walk_all, 3, mm, base, n), "walk/s", "dict")


def _map_all(mm: MmStruct, base: int, n: int) -> None:
    for i in range(n):
        pgtable.map_page(mm, base + (i << 12), 0x1000 + i, PAGE_SHARED)


def _walk_all(mm: MmStruct, base: int, n: int) -> None:
    for i in range(n):
        pgtable.walk(mm, base + (i << 12))


CASES: dict[str, Callable[[bool], Iterator[Row]]] = {
    "boot": boot,
    "memory": page_memory,
    "pcp": pcp,
    "buddy": buddy,
    "mixed": mixed,
    "paging": paging,
    "live": live,
    "faults": vma.faults,
    "mappings": vma.mappings,
    "forks": vma.forks,
    "memcg": memcg.memcg,
}
