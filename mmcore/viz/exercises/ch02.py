"""The exercises of chapter 2: what the engine does, step by step, for `check()` to compare with."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmcore.errors import UsageError
from mmcore.machine import Machine, bare_zone
from mmcore.mm import khugepaged, page_alloc
from mmcore.mm.gfp import GFP_ATOMIC, gfp_str, parse_gfp
from mmcore.mm.internal import ALLOC_NON_BLOCK
from mmcore.mm.mm_types import Page
from mmcore.mm.mmzone import (
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_UNMOVABLE,
    NR_PAGE_ORDERS,
    Zone,
    for_each_populated_zone,
    min_wmark_pages,
    pageblock_nr_pages,
)
from mmcore.mm.page_flags import PG_lru
from mmcore.mm.vmstat import NR_FREE_PAGES
from mmcore.viz.check import exercise

__all__ = [
    "claim_zone",
    "failing_zone",
    "free_order_case",
    "patched",
    "sequential_pfns",
    "steal_trace",
]

Steps = list[tuple[str, Any]]


@contextmanager
def patched(name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Put @function in the place of an engine function of `page_alloc` for a while.

    :raises UsageError: if there is no function of that name
    """
    if not hasattr(page_alloc, name):
        raise UsageError(f"mmcore.mm.page_alloc has no {name!r}")
    original = getattr(page_alloc, name)
    setattr(page_alloc, name, function)
    try:
        yield
    finally:
        setattr(page_alloc, name, original)


# ---- 1: predict the free lists -------------------------------------------------------------------


def free_order_case(seed: int = 0) -> list[int]:
    """Return the pfns to free, in order: for seed 0 the chapter's own, else another case."""
    if seed == 0:
        return [8, 9, 11, 10]
    return random.Random(seed).sample(range(16), 6)


@exercise("ch02.free-order")
def free_order(seed: int = 0) -> Steps:
    """For each page freed: order and pfn of the block it ended up in, and the end of the list."""
    zone = bare_zone(64, free=False)
    placed: list[tuple[int, int, str]] = []
    zone.machine.trace.attach(
        lambda e: placed.append(
            (e.fields["order"], e.fields["pfn"], "tail" if e.fields["to_tail"] else "head")
        ),
        "model:free_list_add",
    )
    steps: Steps = []
    for pfn in free_order_case(seed):
        page = page_alloc.zone_page(zone, pfn)
        page_alloc.__free_one_page(page, pfn, zone, 0, MIGRATE_MOVABLE, page_alloc.FPI_NONE)
        steps.append((f"free {pfn}", placed[-1]))
    return steps


# ---- 2: decode a gfp value -----------------------------------------------------------------------


def _same_flags(expected: Any, given: Any) -> bool:
    """Whether a text names the flags: any order, and a number does not count as decoded."""
    text = "|".join(given) if isinstance(given, (list, tuple)) else str(given)
    words = {word.strip() for word in text.split("|")}
    if not all(word.startswith(("GFP_", "__GFP_")) for word in words):
        return False
    try:
        return parse_gfp(text) == parse_gfp(expected)
    except UsageError:
        return False


def _some_flags(rng: random.Random) -> dict[str, Any]:
    """Draw a request as a log might show it: a caller's usual mask with a few modifiers."""
    base = rng.choice(
        ("GFP_KERNEL", "GFP_ATOMIC", "GFP_NOWAIT", "GFP_HIGHUSER_MOVABLE", "GFP_NOFS")
    )
    more = rng.sample(("__GFP_COMP", "__GFP_ZERO", "__GFP_NOWARN", "__GFP_NORETRY"), 2)
    return {"value": parse_gfp("|".join([base, *more]))}


@exercise("ch02.gfp", compare=_same_flags, vary=_some_flags)
def gfp(value: int = 0x52CC0) -> Steps:
    """The names of the flags in a gfp value."""
    return [(f"{value:#x}", gfp_str(value))]


# ---- 3: compute watermarks -----------------------------------------------------------------------


@exercise("ch02.watermarks")
def watermarks(memory: str = "2G") -> Steps:
    """min_free_kbytes and the marks of each zone of a machine, with huge pages and without."""
    m = Machine.boot(memory)
    zones = list(for_each_populated_zone(m))
    steps: Steps = []
    for setting in ("always", "never"):
        m.transparent_hugepage = setting
        for zone in zones:
            zone._watermark = [0, 0, 0, 0]
        page_alloc.calculate_min_free_kbytes(m)
        if setting == "always":
            khugepaged.set_recommended_min_free_kbytes(m)
        page_alloc.setup_per_zone_wmarks(m)
        steps.append((f"THP {setting}: min_free_kbytes", m.min_free_kbytes))
        for zone in zones:
            steps.append((f"THP {setting}: {zone.name} min, low, high", tuple(zone._watermark[:3])))
    return steps


# ---- 4: expand() changed -------------------------------------------------------------------------


def sequential_pfns(expand: Callable[..., int] | None = None, count: int = 512) -> list[int]:
    """Return the pfns of @count single pages from a fresh zone, with another `expand()` if given."""
    zone = bare_zone(4096)
    with patched("expand", expand or page_alloc.expand):
        pages = [page_alloc.__rmqueue_smallest(zone, 0, MIGRATE_MOVABLE) for _ in range(count)]
    return [page.pfn for page in pages if page is not None]


def _expand_tail(zone: Zone, page: Page, low: int, high: int, migratetype: int) -> int:
    added = 0
    while high > low:
        high -= 1
        upper = page_alloc.zone_page(zone, page.pfn + (1 << high))
        page_alloc.__add_to_free_list(upper, zone, high, migratetype, True)
        page_alloc.set_buddy_order(upper, high)
        added += 1 << high
    return added


@exercise("ch02.expand-tail")
def expand_tail() -> Steps:
    """How many of 512 sequential requests get another page when expand() inserts at the tail."""
    pairs = zip(sequential_pfns(), sequential_pfns(_expand_tail), strict=True)
    return [("requests with another pfn", sum(a != b for a, b in pairs))]


# ---- 5: is the block claimed? --------------------------------------------------------------------


def claim_zone(movable: int = 300, unmovable: int = 0) -> Zone:
    """Return a zone whose only free pages lie in one MOVABLE pageblock.

    Of its 512 pages, the first @movable are movable and in use, the next @unmovable are in use and
    cannot be moved, the others are free.
    """
    if movable < 0 or unmovable < 0 or movable + unmovable > pageblock_nr_pages:
        raise UsageError(f"{movable} + {unmovable} pages do not fit one pageblock of 512")
    zone = bare_zone(2 * pageblock_nr_pages, free=False)
    for pfn in range(movable):
        page_alloc.zone_page(zone, pfn).flags = 1 << PG_lru
    for pfn in range(movable + unmovable, pageblock_nr_pages):
        page = page_alloc.zone_page(zone, pfn)
        page_alloc.__free_one_page(page, pfn, zone, 0, MIGRATE_MOVABLE, page_alloc.FPI_NONE)
    return zone


def _some_block(rng: random.Random) -> dict[str, Any]:
    movable = rng.randint(100, 400)
    return {"movable": movable, "unmovable": rng.randint(0, 500 - movable)}


@exercise("ch02.claim", vary=_some_block)
def claim(movable: int = 300, unmovable: int = 0) -> Steps:
    """What try_to_steal_block() counts in that block for an unmovable request, and decides."""
    zone = claim_zone(movable, unmovable)
    with zone.machine.trace.record("model:claim_test", "kmem:mm_page_alloc_extfrag") as log:
        page_alloc.__rmqueue(zone, 0, MIGRATE_UNMOVABLE, 0, [page_alloc.RMQUEUE_NORMAL])
    tests = [e.fields for e in log if e.name == "model:claim_test"]
    extfrag = next((e.fields for e in log if e.name == "kmem:mm_page_alloc_extfrag"), None)
    if not tests or extfrag is None:
        raise UsageError("the block has no free page to fall back to")
    return [
        ("free pages", tests[0]["free_pages"]),
        ("alike pages", tests[0]["alike_pages"]),
        ("claimed", bool(tests[0]["claimed"])),
        ("order of the block the page is cut from", extfrag["fallback_order"]),
    ]


# ---- 6: a failure report -------------------------------------------------------------------------


def failing_zone() -> Zone:
    """Return a zone of 512 MiB with 40 MiB free, all of it in blocks of orders 0 to 3."""
    zone = bare_zone(131072)
    m = zone.machine
    m.watermark_boost_factor = 0
    page_alloc.calculate_min_free_kbytes(m)
    page_alloc.setup_per_zone_wmarks(m)
    blocks = [page_alloc.__rmqueue_smallest(zone, 3, MIGRATE_MOVABLE) for _ in range(131072 // 8)]
    for page in blocks[: 2 * 1200 : 2]:
        assert page is not None
        page_alloc.__free_one_page(page, page.pfn, zone, 3, MIGRATE_MOVABLE, page_alloc.FPI_NONE)
    for page in blocks[2401 : 2401 + 2 * 160 : 2]:
        assert page is not None
        for i in (0, 2, 4, 6):  # every second page of four blocks
            single = page_alloc.zone_page(zone, page.pfn + i)
            page_alloc.__free_one_page(
                single, single.pfn, zone, 0, MIGRATE_MOVABLE, page_alloc.FPI_NONE
            )
    return zone


@exercise("ch02.failure", vary=lambda rng: {"order": rng.randint(2, 9)})
def failure(order: int = 5) -> Steps:
    """The numbers behind an atomic request's failure in `failing_zone()`."""
    zone = failing_zone()
    m = zone.machine
    flags = page_alloc.gfp_to_alloc_flags(m, GFP_ATOMIC, order)
    free = zone.vm_stat[NR_FREE_PAGES]
    minimum = min_wmark_pages(zone)
    check_zero = page_alloc.__zone_watermark_ok
    floor = next(n for n in range(minimum + 2) if check_zero(zone, 0, minimum, 0, flags, n)) - 1
    largest = max(o for o in range(NR_PAGE_ORDERS) if zone.free_area[o].nr_free)
    served = page_alloc.alloc_pages(m, GFP_ATOMIC, order) is not None
    return [
        ("free pages that count", free - ((1 << order) - 1)),
        ("pages it must exceed", floor),
        ("order of the largest free block", largest),
        ("served", served),
    ]


# ---- 7 and 8: numbers ----------------------------------------------------------------------------


def _some_zone(rng: random.Random) -> dict[str, Any]:
    return {"low": rng.randint(300, 60_000), "cpus": rng.choice((1, 2, 4, 8, 64)), "batch": 63}


@exercise("ch02.high-min", vary=_some_zone)
def high_min(low: int = 15670, cpus: int = 4, batch: int = 63) -> Steps:
    """pcp high_min from a zone's low watermark, CPUs and batch."""
    zone = bare_zone(1024, cpus=cpus, free=False)
    zone._watermark = [0, low, low, low]
    return [("high_min", page_alloc.zone_highsize(zone, batch, 0, 0))]


@exercise("ch02.nowait")
def nowait(minimum: int = 1000) -> Steps:
    """What a GFP_NOWAIT request may use of a zone's reserves."""
    zone = bare_zone(65536, free=False)
    zone._watermark = [minimum, minimum, minimum, minimum]

    def least(flags: int) -> int:
        check_zone = page_alloc.__zone_watermark_ok
        return next(n for n in range(4 * minimum + 4) if check_zone(zone, 0, minimum, 0, flags, n))

    below = minimum + 1 - least(ALLOC_NON_BLOCK)
    zone.nr_free_highatomic = 100
    counted = least(0) - least(ALLOC_NON_BLOCK)
    return [
        ("pages below min it may use", below),
        ("of 100 free HIGHATOMIC pages, how many count as free for it", counted),
        ("may take a HIGHATOMIC page in the slow path", _takes_highatomic(ALLOC_NON_BLOCK)),
    ]


def _takes_highatomic(alloc_flags: int) -> bool:
    """Whether rmqueue_buddy() gives a page when only HIGHATOMIC blocks are free."""
    zone = bare_zone(1024, free=False)
    zone.pageblock_flags[:] = bytes([MIGRATE_HIGHATOMIC]) * len(zone.pageblock_flags)
    page = page_alloc.zone_page(zone, 0)
    page_alloc.__free_one_page(page, 0, zone, 0, MIGRATE_HIGHATOMIC, page_alloc.FPI_NONE)
    return page_alloc.rmqueue_buddy(zone, zone, 0, alloc_flags, MIGRATE_UNMOVABLE) is not None


# ---- 9: steal from the largest -------------------------------------------------------------------


def steal_trace(steal: Callable[..., Page | None] | None = None, requests: int = 48) -> list[int]:
    """Return the pfns of unmovable requests that have to steal, with another steal function if given.

    The zone has eight MOVABLE pageblocks in which more than half of the pages are movable and in
    use, so that none can be claimed; free are single pages in the first four and blocks of order 6
    in the others.
    """
    zone = bare_zone(8 * pageblock_nr_pages, free=False)
    for block in range(8):
        start = block * pageblock_nr_pages
        free = range(start + 1, start + 129, 2) if block < 4 else range(start, start + 128)
        chosen = set(free)
        for pfn in range(start, start + pageblock_nr_pages):
            page = page_alloc.zone_page(zone, pfn)
            if pfn in chosen:
                page_alloc.__free_one_page(page, pfn, zone, 0, MIGRATE_MOVABLE, page_alloc.FPI_NONE)
            else:
                page.flags = 1 << PG_lru
    pfns = []
    with patched("__rmqueue_steal", steal or page_alloc.__rmqueue_steal):
        for _ in range(requests):
            page_or_none = page_alloc.__rmqueue(
                zone, 0, MIGRATE_UNMOVABLE, 0, [page_alloc.RMQUEUE_NORMAL]
            )
            if page_or_none is not None:
                pfns.append(page_or_none.pfn)
    return pfns


def _steal_largest(zone: Zone, order: int, start_migratetype: int) -> Page | None:
    """Steal as v6.12.0 did for unmovable and reclaimable requests: from the largest block."""
    for current_order in reversed(range(order, NR_PAGE_ORDERS)):
        area = zone.free_area[current_order]
        fallback_mt, _ = page_alloc.find_suitable_fallback(
            zone.machine, area, current_order, start_migratetype, False
        )
        if fallback_mt == -1:
            continue
        page = page_alloc.get_page_from_free_area(area, fallback_mt)
        assert page is not None
        page_alloc.page_del_and_expand(zone, page, order, current_order, fallback_mt)
        return page
    return None


@exercise("ch02.steal-largest")
def steal_largest() -> Steps:
    """The pfns of the requests of `steal_trace()` when stealing starts at the largest order."""
    return [(f"request {i}", pfn) for i, pfn in enumerate(steal_trace(_steal_largest), 1)]
