"""Random histories of the allocator: after every step the checker, and no page owned twice."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mmcore.machine import bare_zone
from mmcore.mm import page_alloc as pa
from mmcore.mm.gfp import (
    __GFP_COMP,
    __GFP_NOWARN,
    __GFP_RECLAIMABLE,
    GFP_ATOMIC,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    GFP_NOWAIT,
)
from mmcore.mm.mm_types import Page, folio_nr_pages
from mmcore.mm.mmzone import MIGRATE_MOVABLE, Zone
from mmcore.mm.page_flags import PG_lru
from mmcore.mm.vmstat import NR_FREE_PAGES

# Functions with two leading underscores cannot be called from a class body by their own names.
free_pages = pa.__free_pages
take_smallest = pa.__rmqueue_smallest
put_back = pa.__putback_isolated_page
NOWARN = __GFP_NOWARN

GFPS = (
    GFP_KERNEL,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL | __GFP_RECLAIMABLE,
    GFP_ATOMIC,
    GFP_NOWAIT,
    GFP_KERNEL | __GFP_COMP,
)
ORDERS = st.integers(0, 10)


class Allocator(RuleBasedStateMachine):
    """Allocations and frees of all orders, flags and CPUs, with a set of owned pfns beside them."""

    zone: Zone

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[Page, int]] = []
        self.owned: set[int] = set()

    @initialize(
        pages=st.sampled_from([1024, 2048, 2500]),
        start=st.sampled_from([0, 1, 512, 777]),
        cpus=st.integers(1, 3),
        low=st.sampled_from([0, 40, 300]),
    )
    def boot(self, pages: int, start: int, cpus: int, low: int) -> None:
        self.zone = bare_zone(pages, start, cpus=cpus)
        self.zone._watermark[:] = [low, low * 2, low * 3, low * 4]
        pa.zone_set_pageset_high_and_batch(self.zone, 0)

    @rule(gfp=st.sampled_from(GFPS), order=ORDERS, cpu=st.integers(0, 2), lru=st.booleans())
    def alloc(self, gfp: int, order: int, cpu: int, lru: bool) -> None:
        m = self.zone.machine
        m.this_cpu = cpu % m.cpus
        page = pa.alloc_pages(m, gfp | NOWARN, order)
        if page is None:
            return
        pfns = set(range(page.pfn, page.pfn + (1 << order)))
        assert page.pfn % (1 << order) == 0
        assert not pfns & self.owned, "handed out twice"
        assert page._refcount == 1 and page.page_type == -1
        self.owned |= pfns
        self.held.append((page, order))
        if lru and gfp == GFP_HIGHUSER_MOVABLE:
            page.flags |= 1 << PG_lru

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 1 << 20), cpu=st.integers(0, 2))
    def free(self, which: int, cpu: int) -> None:
        m = self.zone.machine
        m.this_cpu = cpu % m.cpus
        page, order = self.held.pop(which % len(self.held))
        page.flags &= ~(1 << PG_lru)
        self.owned -= set(range(page.pfn, page.pfn + (1 << order)))
        free_pages(page, order)

    @precondition(lambda self: self.held)
    @rule(count=st.integers(1, 20))
    def free_batch(self, count: int) -> None:
        batch = [h for h in self.held if h[1] == 0 or folio_nr_pages(h[0]) > 1][:count]
        for page, order in batch:
            self.held.remove((page, order))
            page.flags &= ~(1 << PG_lru)
            page._refcount = 0
            self.owned -= set(range(page.pfn, page.pfn + (1 << order)))
        pa.free_unref_folios([page for page, _ in batch])

    @rule(order=ORDERS, mt=st.sampled_from([0, 1, 2]))
    def take_and_put_back(self, order: int, mt: int) -> None:
        page = take_smallest(self.zone, order, mt)
        if page is not None:
            put_back(page, order, pa.get_pageblock_migratetype(page))

    @rule()
    def drain(self) -> None:
        pa.drain_all_pages(self.zone.machine)
        assert all(pcp.count == 0 for pcp in self.zone.per_cpu_pageset)

    @rule(fraction=st.sampled_from([0, 8, 64]))
    def tune(self, fraction: int) -> None:
        pa.percpu_pagelist_high_fraction_sysctl_handler(self.zone.machine, True, fraction)

    @rule(start=st.integers(0, 2400), size=st.sampled_from([1, 100, 512, 700]))
    def contig(self, start: int, size: int) -> None:
        zone = self.zone
        start += zone.zone_start_pfn
        if start + size > zone.zone_start_pfn + zone.spanned_pages:
            return
        ret = pa.alloc_contig_range(
            zone.machine, start, start + size, MIGRATE_MOVABLE, GFP_KERNEL | NOWARN
        )
        wanted = set(range(start, start + size))
        if ret == 0:
            assert not wanted & self.owned
            self.owned |= wanted
            self.held += [(pa.zone_page(zone, pfn), 0) for pfn in sorted(wanted)]
        else:
            assert zone.nr_isolate_pageblock == 0

    @invariant()
    def sound(self) -> None:
        if not hasattr(self, "zone"):
            return
        pa.validate_zone(self.zone, strict=False)
        on_lists = self.zone.vm_stat[NR_FREE_PAGES]
        on_lists += sum(pcp.count for pcp in self.zone.per_cpu_pageset)
        assert on_lists + len(self.owned) == self.zone.managed_pages

    def teardown(self) -> None:
        if not hasattr(self, "zone"):
            return
        for page, order in self.held:
            page.flags &= ~(1 << PG_lru)
            free_pages(page, order)
        pa.drain_all_pages(self.zone.machine)
        pa.validate_zone(self.zone, strict=False)
        assert self.zone.vm_stat[NR_FREE_PAGES] == self.zone.managed_pages


TestAllocator = Allocator.TestCase
TestAllocator.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, derandomize=True
)
