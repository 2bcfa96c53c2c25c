"""Isolation of pageblocks and contiguous ranges."""

from __future__ import annotations

import pytest

from mmcore.errors import EBUSY, EINTR, EINVAL, ENOMEM, UsageError
from mmcore.machine import bare_zone
from mmcore.mm import compaction
from mmcore.mm import page_alloc as pa
from mmcore.mm import page_isolation as pi
from mmcore.mm.gfp import (
    __GFP_COMP,
    __GFP_NOFAIL,
    __GFP_NORETRY,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
)
from mmcore.mm.mm_types import folio_order, pfn_to_page
from mmcore.mm.mmzone import MIGRATE_ISOLATE, MIGRATE_MOVABLE, Zone
from mmcore.mm.page_flags import PG_lru, PG_reserved
from mmcore.mm.vmstat import NR_FREE_PAGES


def isolate(zone: Zone, start: int, end: int) -> int:
    return pi.start_isolate_page_range(zone.machine, start, end, MIGRATE_MOVABLE, 0, GFP_KERNEL)


def test_isolating_half_of_a_large_block_cuts_it() -> None:
    zone = bare_zone(2048)
    assert isolate(zone, 512, 1024) == 0
    assert [p.pfn for p in zone.free_area[9].free_list[MIGRATE_MOVABLE]] == [0]
    assert [p.pfn for p in zone.free_area[9].free_list[MIGRATE_ISOLATE]] == [512]
    assert zone.vm_stat[NR_FREE_PAGES] == 2048 - 512 and pi.has_isolate_pageblock(zone)
    pa.validate_zone(zone)
    pi.undo_isolate_page_range(zone.machine, 512, 1024, MIGRATE_MOVABLE)
    # The halves merge again, and the block goes to the tail.
    assert [p.pfn for p in zone.free_area[10].free_list[MIGRATE_MOVABLE]] == [1024, 0]
    assert not pi.has_isolate_pageblock(zone)
    pa.validate_zone(zone)


def test_isolated_pages_are_never_handed_out_and_bypass_the_per_cpu_lists() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    page = pa.alloc_pages(m, GFP_HIGHUSER_MOVABLE, 0)
    page.flags |= 1 << PG_lru
    assert isolate(zone, 0, 512) == 0
    page.flags &= ~(1 << PG_lru)
    pa.__free_pages(page, 0)
    assert zone.per_cpu_pageset[0].count == 0
    assert {pa.alloc_pages(m, GFP_HIGHUSER_MOVABLE, 0).pfn // 512 for _ in range(500)} == {1}
    assert pi.test_pages_isolated(m, 0, 512, 0) == 0
    assert pi.test_pages_isolated(m, 0, 1024, 0) == -EBUSY
    pa.validate_zone(zone, strict=False)


def test_unmovable_pages_refuse_isolation_and_nothing_stays_isolated() -> None:
    zone = bare_zone(2048)
    m = zone.machine
    pages = [pa.alloc_pages(m, GFP_KERNEL, 0) for _ in range(1030)]
    assert pi.has_unmovable_pages(m, 0, 512, MIGRATE_MOVABLE, 0) is pages[0]
    assert isolate(zone, 1024, 2048) == -EBUSY
    assert zone.nr_isolate_pageblock == 0
    assert MIGRATE_ISOLATE not in zone.pageblock_flags
    pa.validate_zone(zone)


def test_reserved_pages_refuse_isolation() -> None:
    zone = bare_zone(1024, free=False)
    page = pfn_to_page(zone.machine, 100)
    page.flags |= 1 << PG_reserved
    assert isolate(zone, 0, 512) == -EBUSY
    assert isolate(zone, 512, 1024) == 0
    assert isolate(zone, 512, 1024) == -EBUSY  # somebody has it


def test_a_pageblock_that_leaves_the_zone_refuses_isolation() -> None:
    zone = bare_zone(1000, 100)
    assert isolate(zone, 200, 300) == -EBUSY
    assert isolate(zone, 1025, 1026) == -EBUSY
    assert isolate(zone, 600, 700) == 0


def test_alloc_contig_range_takes_exactly_the_range() -> None:
    zone = bare_zone(4096)
    m = zone.machine
    assert pa.alloc_contig_range(m, 700, 1900, MIGRATE_MOVABLE, GFP_KERNEL) == 0
    assert zone.vm_stat[NR_FREE_PAGES] == 4096 - 1200
    assert pfn_to_page(m, 699)._refcount == 0 and pfn_to_page(m, 700)._refcount == 1
    assert pfn_to_page(m, 1899)._refcount == 1 and pfn_to_page(m, 1900)._refcount == 0
    pa.drain_all_pages(m)
    pa.validate_zone(zone)
    pa.free_contig_range(m, 700, 1200)
    pa.drain_all_pages(m)
    pa.validate_zone(zone)
    assert zone.vm_stat[NR_FREE_PAGES] == 4096


def test_alloc_contig_range_as_one_compound_page() -> None:
    zone = bare_zone(4096)
    m = zone.machine
    assert pa.alloc_contig_range(m, 1024, 2048, MIGRATE_MOVABLE, GFP_KERNEL | __GFP_COMP) == 0
    head = pfn_to_page(m, 1024)
    assert folio_order(head) == 10 and head._refcount == 1
    pa.free_contig_range(m, 1024, 1024)
    pa.validate_zone(zone)
    assert zone.vm_stat[NR_FREE_PAGES] == 4096


def test_alloc_contig_range_errors() -> None:
    zone = bare_zone(4096)
    m = zone.machine
    contig = pa.alloc_contig_range
    for gfp in (GFP_KERNEL | __GFP_NOFAIL, GFP_KERNEL | __GFP_NORETRY):
        assert contig(m, 0, 512, MIGRATE_MOVABLE, gfp) == -EINVAL
    for start, end in ((0, 0), (10, 5), (4000, 5000), (9999, 10000)):
        with pytest.raises(UsageError, match="not a range of pfns within one zone"):
            contig(m, start, end, MIGRATE_MOVABLE, GFP_KERNEL)
    page = pa.alloc_pages(m, GFP_HIGHUSER_MOVABLE, 0)
    page.flags |= 1 << PG_lru
    assert contig(m, page.pfn, page.pfn + 1, MIGRATE_MOVABLE, GFP_KERNEL) == -EBUSY
    for error in (-ENOMEM, -EINTR):
        m.hooks.migrate_range = lambda *args, error=error: error
        assert contig(m, 1024, 1025, MIGRATE_MOVABLE, GFP_KERNEL) == error
    assert MIGRATE_ISOLATE not in zone.pageblock_flags
    pa.validate_zone(zone, strict=False)


def test_migration_empties_the_range() -> None:
    zone = bare_zone(4096)
    m = zone.machine
    page = pa.alloc_pages(m, GFP_HIGHUSER_MOVABLE, 0)
    page.flags |= 1 << PG_lru

    def migrate(zone: Zone, start: int, end: int, migratetype: int, gfp_mask: int) -> int:
        page.flags &= ~(1 << PG_lru)
        pa.__free_pages(page, 0)
        return 0

    m.hooks.migrate_range = migrate
    assert pa.alloc_contig_range(m, page.pfn, page.pfn + 4, MIGRATE_MOVABLE, GFP_KERNEL) == 0
    assert page._refcount == 1


def test_alloc_contig_pages_finds_an_aligned_range() -> None:
    zone = bare_zone(4096)
    m = zone.machine
    pa.alloc_pages(m, GFP_KERNEL, 0)
    page = pa.alloc_contig_pages(m, 1024, GFP_KERNEL, 0)
    assert page is not None and page.pfn == 1024
    page = pa.alloc_contig_pages(m, 1500, GFP_KERNEL, 0)
    assert page is None  # nothing of that size at a multiple of 1500 is free
    assert pa.alloc_contig_pages(m, 5000, GFP_KERNEL, 0) is None
    with pytest.raises(UsageError, match="at least 1"):
        pa.alloc_contig_pages(m, 0, GFP_KERNEL, 0)
    pa.validate_zone(zone)


def test_isolate_freepages_range_takes_all_or_nothing() -> None:
    zone = bare_zone(4096)
    end, blocks = compaction.isolate_freepages_range(zone, 0, 1000)
    assert end == 1024 and [p.pfn for p in blocks[10]] == [0]
    compaction.release_free_list(blocks)
    pa.drain_all_pages(zone.machine)
    page = pa.alloc_pages(zone.machine, GFP_KERNEL, 9)
    before = zone.vm_stat[NR_FREE_PAGES]
    start = page.pfn & -1024
    end, blocks = compaction.isolate_freepages_range(zone, start, start + 1024)
    assert end == 0 and not any(blocks)
    assert zone.vm_stat[NR_FREE_PAGES] + zone.per_cpu_pageset[0].count == before + 0


def test_break_down_and_poisoned_pages() -> None:
    zone = bare_zone(1024)
    page = pa.zone_page(zone, 5)
    assert pa.is_free_buddy_page(page)
    assert pa.take_page_off_buddy(page)
    assert not pa.is_free_buddy_page(page) and zone.vm_stat[NR_FREE_PAGES] == 1023
    assert not pa.take_page_off_buddy(page)
    pa.validate_zone(zone)
