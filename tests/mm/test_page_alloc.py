"""The page allocator: lists in the kernel's order, the kernel's arithmetic, its order of decisions."""

from __future__ import annotations

import pytest

from mmcore.cint import int_sqrt
from mmcore.errors import EINVAL, BadPage, KernelBug, UsageError
from mmcore.lib.list import ListHead, list_count_nodes
from mmcore.machine import Machine, bare_zone
from mmcore.mm import page_alloc as pa
from mmcore.mm.gfp import (
    __GFP_COMP,
    __GFP_DMA,
    __GFP_DMA32,
    __GFP_HIGH,
    __GFP_MOVABLE,
    __GFP_NOFAIL,
    __GFP_NORETRY,
    __GFP_NOWARN,
    __GFP_RECLAIMABLE,
    __GFP_RETRY_MAYFAIL,
    GFP_ATOMIC,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    GFP_NOFS,
    GFP_NOWAIT,
    GFP_USER,
)
from mmcore.mm.internal import (
    ALLOC_CPUSET,
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_MIN_RESERVE,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    COMPACT_SUCCESS,
    PF_MEMALLOC,
    PF_MEMALLOC_NOFS,
)
from mmcore.mm.mm_types import Page, PageTail, folio_order, pfn_to_page
from mmcore.mm.mmzone import (
    MAX_NR_ZONES,
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    WMARK_PROMO,
    ZONE_BELOW_HIGH,
    ZONE_DMA,
    ZONE_DMA32,
    ZONE_NORMAL,
    PerCpuPages,
    PgData,
    Zone,
    Zonelist,
    pageblock_nr_pages,
)
from mmcore.mm.page_flags import PG_lru
from mmcore.mm.swap import folio_put
from mmcore.mm.vmstat import NR_FREE_PAGES, NR_ZONE_INACTIVE_FILE, PGALLOC_NORMAL, PGFREE

# Names with two underscores are rewritten inside classes only; these are for brevity.
free_one = pa.__free_one_page
smallest = pa.__rmqueue_smallest


def blocks(zone: Zone, order: int, mt: int = MIGRATE_MOVABLE) -> list[int]:
    """The pfns on one free list, head first."""
    return [page.pfn for page in zone.free_area[order].free_list[mt]]


def free_pfn(zone: Zone, pfn: int, order: int = 0, mt: int = MIGRATE_MOVABLE, fpi: int = 0) -> None:
    free_one(pa.zone_page(zone, pfn), pfn, zone, order, mt, fpi)


def take_all(zone: Zone, gfp: int = GFP_KERNEL, order: int = 0) -> list[Page]:
    pages = []
    while (page := pa.alloc_pages(zone.machine, gfp | __GFP_NOWARN, order)) is not None:
        pages.append(page)
    return pages


# ---- buddies -------------------------------------------------------------------------------------


def test_exercise_1_free_order_decides_list_ends() -> None:
    zone = bare_zone(1024, free=False)
    free_pfn(zone, 8)
    assert blocks(zone, 0) == [8]
    free_pfn(zone, 9)
    assert (blocks(zone, 0), blocks(zone, 1)) == ([], [8])
    free_pfn(zone, 11)
    assert (blocks(zone, 0), blocks(zone, 1)) == ([11], [8])
    free_pfn(zone, 10)
    assert [blocks(zone, o) for o in range(4)] == [[], [], [8], []]
    pa.validate_zone(zone)


def test_block_whose_parents_buddy_is_free_goes_to_the_tail() -> None:
    zone = bare_zone(1024, free=False)
    free_pfn(zone, 100)
    free_pfn(zone, 8, 1)
    free_pfn(zone, 11)  # its buddy 10 is in use, the parent's buddy 8 is free as order 1
    assert blocks(zone, 0) == [100, 11]
    free_pfn(zone, 200)
    assert blocks(zone, 0) == [200, 100, 11]


def test_pageblock_sized_blocks_go_to_the_head_whatever_is_free_beside_them() -> None:
    zone = bare_zone(4096, free=False)
    free_pfn(zone, 1024, 10)
    free_pfn(zone, 3072, 9)
    free_pfn(zone, 0, 9)  # its parent's buddy, 1024, is free
    assert blocks(zone, 9) == [0, 3072]


def test_fpi_to_tail_wins_over_the_head() -> None:
    zone = bare_zone(1024, free=False)
    free_pfn(zone, 0)
    free_pfn(zone, 2, fpi=pa.FPI_TO_TAIL)
    free_pfn(zone, 4)
    assert blocks(zone, 0) == [4, 0, 2]


def test_split_keeps_the_lower_half_and_frees_upper_halves_at_the_head() -> None:
    zone = bare_zone(1024)
    page = smallest(zone, 0, MIGRATE_MOVABLE)
    assert page is not None and page.pfn == 0
    assert [blocks(zone, o) for o in range(11)] == [[1 << o] for o in range(10)] + [[]]
    assert [smallest(zone, 0, MIGRATE_MOVABLE).pfn for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]


def test_freed_last_is_used_first() -> None:
    zone = bare_zone(1024)
    first = smallest(zone, 0, MIGRATE_MOVABLE)
    second = smallest(zone, 0, MIGRATE_MOVABLE)
    assert first is not None and second is not None
    free_one(second, second.pfn, zone, 0, MIGRATE_MOVABLE, 0)
    assert smallest(zone, 0, MIGRATE_MOVABLE) is second


def test_merging_stops_at_the_end_of_the_zone_and_at_max_order() -> None:
    zone = bare_zone(2048 + 512)
    assert [blocks(zone, o) for o in (9, 10)] == [[2048], [0, 1024]]
    pa.validate_zone(zone)


def test_pageblocks_that_differ_merge_only_if_both_may_and_take_the_type_freed() -> None:
    zone = bare_zone(2048, free=False)
    zone.pageblock_flags[:] = bytes([MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, MIGRATE_HIGHATOMIC, 1])
    free_pfn(zone, 0, 9, MIGRATE_UNMOVABLE)
    free_pfn(zone, 512, 9, MIGRATE_MOVABLE)
    assert blocks(zone, 10) == [0] and list(zone.pageblock_flags[:2]) == [1, 1]
    free_pfn(zone, 1024, 9, MIGRATE_HIGHATOMIC)
    free_pfn(zone, 1536, 9, MIGRATE_MOVABLE)
    assert blocks(zone, 9, MIGRATE_HIGHATOMIC) == [1024] and blocks(zone, 9) == [1536]
    assert zone.nr_free_highatomic == 512
    pa.validate_zone(zone)


def test_alloc_all_free_all_and_drain_restores_the_largest_blocks() -> None:
    zone = bare_zone(4096)
    before = [blocks(zone, o) for o in range(11)]
    pages = take_all(zone, GFP_HIGHUSER_MOVABLE)
    assert len(pages) == 4096 and zone.vm_stat[NR_FREE_PAGES] == 0
    for page in pages:
        pa.__free_pages(page, 0)
    pa.drain_all_pages(zone.machine)
    assert [sorted(blocks(zone, o)) for o in range(11)] == before
    pa.validate_zone(zone)


def test_free_pages_core_frees_mixed_pageblocks_one_by_one() -> None:
    zone = bare_zone(1024, free=False)
    zone.pageblock_flags[:] = bytes([MIGRATE_UNMOVABLE, MIGRATE_HIGHATOMIC])
    pa.__free_pages_core(pa.zone_page(zone, 0), 10)
    assert blocks(zone, 9, MIGRATE_UNMOVABLE) == [0]
    assert blocks(zone, 9, MIGRATE_HIGHATOMIC) == [512]
    pa.validate_zone(zone)


def test_a_zone_that_starts_in_mid_block_keeps_its_neighbour_out() -> None:
    zone = bare_zone(1023, 1, name="DMA")
    assert blocks(zone, 0) == [1] and blocks(zone, 9) == [512]
    pa.validate_zone(zone)


# ---- fallback ------------------------------------------------------------------------------------


def fill_block(zone: Zone, start: int, used: int, movable: int, mt: int) -> None:
    """Give a pageblock @used pages in use, the first @movable of them on an LRU, the rest free."""
    zone.pageblock_flags[start - zone.pageblock_base >> 9] = mt
    for pfn in range(start, start + used):
        page = pa.zone_page(zone, pfn)
        page._refcount = 1
        if pfn - start < movable:
            page.flags |= 1 << PG_lru
    for pfn in range(start + used, start + 512):
        free_pfn(zone, pfn, 0, mt)


def test_exercise_5_unmovable_request_does_not_claim_a_block_of_300_movable_pages() -> None:
    zone = bare_zone(512, free=False)
    fill_block(zone, 0, 300, 300, MIGRATE_MOVABLE)
    with zone.machine.trace.record("kmem:*", "model:claim_test") as log:
        page = pa.__rmqueue(zone, 0, MIGRATE_UNMOVABLE, 0, [pa.RMQUEUE_NORMAL])
    tests = [e.fields for e in log if e.name == "model:claim_test"]
    # 212 free pages are blocks of order 7, 6, 4 and 2; each leads to the same pageblock.
    assert [(t["free_pages"], t["alike_pages"], t["claimed"]) for t in tests] == [(212, 0, 0)] * 4
    assert page is not None and zone.pageblock_flags[0] == MIGRATE_MOVABLE
    extfrag = [e.fields for e in log if e.name == "kmem:mm_page_alloc_extfrag"]
    assert extfrag == [
        {
            "pfn": page.pfn,
            "alloc_order": 0,
            "fallback_order": 2,
            "alloc_migratetype": MIGRATE_UNMOVABLE,
            "fallback_migratetype": MIGRATE_MOVABLE,
            "change_ownership": 0,
        }
    ]
    pa.validate_zone(zone)


def test_unmovable_request_claims_a_block_that_is_half_free_or_unmovable() -> None:
    zone = bare_zone(512, free=False)
    fill_block(zone, 0, 300, 250, MIGRATE_MOVABLE)  # 212 free + 50 in use and not movable >= 256
    page = pa.__rmqueue(zone, 0, MIGRATE_UNMOVABLE, 0, [pa.RMQUEUE_NORMAL])
    assert page is not None and zone.pageblock_flags[0] == MIGRATE_UNMOVABLE
    assert all(not blocks(zone, o, MIGRATE_MOVABLE) for o in range(11))
    pa.validate_zone(zone)


@pytest.mark.parametrize(("movable", "claimed"), [(43, False), (44, True)])
def test_movable_request_counts_movable_pages_as_alike(movable: int, claimed: bool) -> None:
    zone = bare_zone(512, free=False)
    fill_block(zone, 0, 300, movable, MIGRATE_UNMOVABLE)
    page = pa.__rmqueue(zone, 0, MIGRATE_MOVABLE, 0, [pa.RMQUEUE_NORMAL])
    assert page is not None
    assert (zone.pageblock_flags[0] == MIGRATE_MOVABLE) is claimed
    pa.validate_zone(zone)


def test_a_claimed_pageblock_moves_its_blocks_to_the_tails_in_pfn_order() -> None:
    zone = bare_zone(1024, free=False)
    zone.pageblock_flags[1] = MIGRATE_UNMOVABLE
    free_pfn(zone, 600, 0, MIGRATE_UNMOVABLE)
    for pfn in (40, 10, 20):
        free_pfn(zone, pfn)
    assert blocks(zone, 0) == [20, 10, 40]
    moved = pa.move_freepages_block(
        zone, pa.zone_page(zone, 10), MIGRATE_MOVABLE, MIGRATE_UNMOVABLE
    )
    assert moved == 3 and blocks(zone, 0) == []
    assert blocks(zone, 0, MIGRATE_UNMOVABLE) == [600, 10, 20, 40]
    pa.validate_zone(zone)


def test_small_movable_request_may_not_claim_below_order_4() -> None:
    zone = bare_zone(512, free=False)
    zone.pageblock_flags[0] = MIGRATE_UNMOVABLE
    for pfn in range(0, 512, 16):
        free_pfn(zone, pfn, 3, MIGRATE_UNMOVABLE)  # half free, but in blocks of order 3
    mode = [pa.RMQUEUE_NORMAL]
    page = pa.__rmqueue(zone, 0, MIGRATE_MOVABLE, 0, mode)
    assert page is not None and mode == [pa.RMQUEUE_STEAL]
    assert zone.pageblock_flags[0] == MIGRATE_UNMOVABLE


def test_fallback_order_of_types() -> None:
    zone = bare_zone(3072, free=False)
    zone.pageblock_flags[:] = bytes([0, 0, 1, 1, 2, 2])
    for pfn, mt in ((0, 0), (1024, 1), (2048, 2)):
        free_pfn(zone, pfn, 9, mt)
    m, area = zone.machine, zone.free_area[9]
    find = pa.find_suitable_fallback
    assert find(m, area, 9, MIGRATE_UNMOVABLE, False) == (MIGRATE_RECLAIMABLE, True)
    assert find(m, area, 9, MIGRATE_MOVABLE, False) == (MIGRATE_RECLAIMABLE, True)
    assert find(m, area, 9, MIGRATE_RECLAIMABLE, False) == (MIGRATE_UNMOVABLE, True)
    assert find(m, zone.free_area[3], 3, MIGRATE_MOVABLE, True) == (-1, False)


def test_claim_takes_the_largest_block_steal_the_smallest() -> None:
    zone = bare_zone(2048, free=False)
    free_pfn(zone, 0, 0)
    free_pfn(zone, 1024, 10)
    page = pa.__rmqueue_steal(zone, 0, MIGRATE_UNMOVABLE)
    assert page is not None and page.pfn == 0
    page = pa.__rmqueue_claim(zone, 0, MIGRATE_UNMOVABLE, 0)
    assert page is not None and page.pfn == 1024
    assert list(zone.pageblock_flags) == [1, 1, 0, 0]


def test_nofragment_claims_whole_pageblocks_only_and_never_steals() -> None:
    zone = bare_zone(512, free=False)
    free_pfn(zone, 0, 8)
    assert pa.__rmqueue(zone, 0, 0, ALLOC_NOFRAGMENT, [pa.RMQUEUE_NORMAL]) is None
    free_pfn(zone, 256, 8)
    assert pa.__rmqueue(zone, 0, 0, ALLOC_NOFRAGMENT, [pa.RMQUEUE_NORMAL]) is not None
    assert zone.pageblock_flags[0] == MIGRATE_UNMOVABLE


def test_a_boosted_watermark_wakes_kswapd_once_at_the_next_rmqueue() -> None:
    zone = bare_zone(4096, free=False)
    zone.managed_pages = 4096
    zone._watermark[:] = [10, 20, 30, 40]
    woken = []
    zone.machine.hooks.wakeup_kswapd = lambda *args: woken.append(args)
    fill_block(zone, 0, 300, 300, MIGRATE_MOVABLE)
    pa.__rmqueue_claim(zone, 0, MIGRATE_UNMOVABLE, ALLOC_KSWAPD)
    assert zone.watermark_boost == 512  # at least a pageblock, high * 1.5 being 45
    pa.rmqueue(zone, zone, 0, GFP_KERNEL, ALLOC_KSWAPD, MIGRATE_MOVABLE)
    pa.rmqueue(zone, zone, 0, GFP_KERNEL, ALLOC_KSWAPD, MIGRATE_MOVABLE)
    assert woken == [(zone, 0, 0, ZONE_NORMAL)]


@pytest.mark.parametrize(
    ("factor", "managed", "high", "kdump", "boosts"),
    [
        (15000, 2048, 600, False, [512, 900, 900]),
        (15000, 2047, 600, False, [0, 0, 0]),
        (0, 4096, 600, False, [0, 0, 0]),
        (15000, 4096, 0, False, [0, 0, 0]),
        (15000, 4096, 600, True, [0, 0, 0]),
    ],
)
def test_boost_watermark(
    factor: int, managed: int, high: int, kdump: bool, boosts: list[int]
) -> None:
    zone = bare_zone(4096)
    zone.machine.watermark_boost_factor = factor
    zone.machine.is_kdump_kernel = kdump
    zone.managed_pages = managed
    zone._watermark[WMARK_HIGH] = high
    seen = []
    for _ in boosts:
        assert pa.boost_watermark(zone) is (boosts[0] > 0)
        seen.append(zone.watermark_boost)
    assert seen == boosts


# ---- per-CPU lists -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("managed", "batch"),
    [(0, 0), (1024, 0), (11 << 10, 1), (12 << 10, 3), (176127, 31), (176128, 63), (1 << 24, 63)],
)
def test_zone_batchsize(managed: int, batch: int) -> None:
    zone = bare_zone(1024)
    zone.managed_pages = managed
    assert pa.zone_batchsize(zone) == batch


def test_exercise_7_high_min_is_the_low_watermark_per_cpu() -> None:
    zone = bare_zone(1024, cpus=4)
    zone.managed_pages = 765000
    zone._watermark[WMARK_LOW] = 15670
    pa.zone_set_pageset_high_and_batch(zone, 0)
    pcp = zone.per_cpu_pageset[3]
    assert (pcp.batch, pcp.high_min, pcp.high_max) == (63, 3917, 765000 // 8 // 4)


def test_high_fraction_fixes_the_limit_and_refuses_small_fractions() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    zone.managed_pages = 765000
    assert pa.percpu_pagelist_high_fraction_sysctl_handler(m, True, 7) == -EINVAL
    assert pa.percpu_pagelist_high_fraction_sysctl_handler(m, True, 8) == 0
    assert (zone.pageset_high_min, zone.pageset_high_max) == (95625, 95625)
    assert pa.percpu_pagelist_high_fraction_sysctl_handler(m, True, 0) == 0
    assert zone.pageset_high_min == max(zone._watermark[WMARK_LOW], 63 * 4)


def test_refill_appends_in_order_and_the_list_is_last_in_first_out() -> None:
    zone = bare_zone(1 << 18)
    m = zone.machine
    pfns = [pa.alloc_pages(m, GFP_HIGHUSER_MOVABLE, 0).pfn for _ in range(5)]
    assert pfns == [0, 1, 2, 3, 4]
    for pfn in (2, 0):
        pa.__free_pages(pa.zone_page(zone, pfn), 0)
    assert [pa.alloc_pages(m, GFP_HIGHUSER_MOVABLE, 0).pfn for _ in range(3)] == [0, 2, 5]
    pa.validate_zone(zone)


def test_alloc_factor_doubles_the_refill_and_a_free_halves_it() -> None:
    zone = bare_zone(1 << 20)
    m = zone.machine
    pcp = zone.per_cpu_pageset[0]
    assert pcp.batch == 63
    taken = []
    with m.trace.record("kmem:mm_page_alloc_zone_locked") as log:
        for _ in range(6):
            log.clear()
            while not log:
                page = pa.alloc_pages(m, GFP_HIGHUSER_MOVABLE, 0)
            taken.append(len(log))
    assert taken == [63, 126, 252, 504, 1008, 2016]
    pa.__free_pages(page, 0)
    assert pcp.alloc_factor == 2


def test_an_allocation_halves_free_count_and_a_refill_raises_high_by_a_batch() -> None:
    zone = bare_zone(1 << 20)
    m = zone.machine
    pcp = zone.per_cpu_pageset[0]
    pcp.free_count = 101
    pa.alloc_pages(m, GFP_KERNEL, 0)
    assert pcp.free_count == 50
    assert pcp.high == pcp.high_min + pcp.batch
    pa.alloc_pages(m, GFP_KERNEL, 2)
    assert pcp.free_count == 25 and pcp.high == pcp.high_min + 2 * pcp.batch
    pa.alloc_pages(m, GFP_KERNEL, 2)
    assert pcp.free_count == 12 and pcp.high == pcp.high_min + 2 * pcp.batch


def test_highatomic_pages_go_to_the_movable_list_and_back_under_their_own_type() -> None:
    zone = bare_zone(1024)
    page = pa.alloc_pages(zone.machine, GFP_KERNEL, 0)
    pa.move_freepages_block(zone, page, pa.get_pageblock_migratetype(page), MIGRATE_HIGHATOMIC)
    pa.__free_pages(page, 0)
    assert list(zone.per_cpu_pageset[0].lists[MIGRATE_MOVABLE]) == [page]
    pa.drain_all_pages(zone.machine)
    assert blocks(zone, 9, MIGRATE_HIGHATOMIC) == [page.pfn]
    pa.validate_zone(zone)


def test_pcp_orders() -> None:
    assert [o for o in range(11) if pa.pcp_allowed_order(o)] == [0, 1, 2, 3, 9]
    indexes = [pa.order_to_pindex(mt, o) for o in range(4) for mt in range(3)]
    assert indexes == list(range(12))
    assert [pa.order_to_pindex(mt, 9) for mt in range(3)] == [12, 13, 12]
    assert [pa.pindex_to_order(i) for i in range(14)] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [
        9
    ] * 2
    with pytest.raises(KernelBug, match="order 4"):
        pa.order_to_pindex(0, 4)


def test_a_pcp_count_above_what_its_lists_hold_is_a_bug_not_an_endless_search() -> None:
    zone = bare_zone(1024)
    pcp = zone.per_cpu_pageset[0]
    pcp.count = 3
    with pytest.raises(KernelBug, match="lists are empty, and pcp->count is 3"):
        pa.free_pcppages_bulk(zone, 3, pcp, 0)


def test_bulk_free_empties_the_freed_list_from_its_tail_then_the_next() -> None:
    zone = bare_zone(1 << 18)
    m = zone.machine
    pages = [
        pa.alloc_pages(m, gfp, 0) for gfp in (GFP_KERNEL, GFP_HIGHUSER_MOVABLE) for _ in range(3)
    ]
    pa.drain_all_pages(m)
    for page in pages:
        pa.__free_pages(page, 0)
    pcp = zone.per_cpu_pageset[0]
    with m.trace.record("kmem:mm_page_pcpu_drain") as log:
        pa.free_pcppages_bulk(zone, 4, pcp, 1)
    drained = [e.fields["pfn"] for e in log]
    assert drained == [p.pfn for p in pages[3:]] + [pages[0].pfn]
    pa.validate_zone(zone)


def test_a_failing_trylock_goes_past_the_per_cpu_lists() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    m.pcp_trylock_fails = True
    page = pa.alloc_pages(m, GFP_KERNEL, 0)
    pa.__free_pages(page, 0)
    assert zone.per_cpu_pageset[0].count == 0 and zone.vm_stat[NR_FREE_PAGES] == 1024


def test_decay_pcp_high_and_drains() -> None:
    zone = bare_zone(1 << 20, cpus=2)
    m = zone.machine
    pages = [pa.alloc_pages(m, GFP_KERNEL, 0) for _ in range(1000)]
    for page in pages:
        pa.__free_pages(page, 0)
    pcp = zone.per_cpu_pageset[0]
    high = pcp.high
    assert pa.decay_pcp_high(zone, pcp)
    assert pcp.high == max(pcp.count - (63 << 5), high - (high >> 3), pcp.high_min)
    before = pcp.count
    pa.drain_zone_pages(zone, pcp)
    assert pcp.count == before - 63
    m.this_cpu = 1
    pa.drain_local_pages(m)
    assert pcp.count == before - 63
    pa.page_alloc_cpu_dead(m, 0)
    assert pcp.count == 0
    pa.validate_zone(zone)


def test_pcp_disable_and_enable() -> None:
    zone = bare_zone(1 << 18)
    m = zone.machine
    pa.zone_pcp_disable(zone)
    page = pa.alloc_pages(m, GFP_KERNEL, 0)
    pa.__free_pages(page, 0)
    assert zone.per_cpu_pageset[0].count == 0
    pa.zone_pcp_enable(zone)
    assert zone.per_cpu_pageset[0].batch == zone.pageset_batch == 63


# ---- watermarks ----------------------------------------------------------------------------------


def node_of(sizes: dict[int, int], m: Machine | None = None, nid: int = 0) -> Machine:
    """A machine whose node has zones of these managed sizes, without free pages."""
    m = m or Machine()
    pgdat = m.node_data[nid] = PgData(m, nid)
    for idx in range(MAX_NR_ZONES):
        zone = Zone(m, f"zone{idx}", idx, nid, pgdat)
        zone.managed_pages = zone.present_pages = zone.spanned_pages = sizes.get(idx, 0)
        zone.per_cpu_pageset = [PerCpuPages() for _ in range(m.cpus)]
        pgdat.node_zones.append(zone)
    return m


def test_worked_example_of_chapter_2() -> None:
    m = node_of({ZONE_DMA: 3840, ZONE_DMA32: 765000, ZONE_NORMAL: 262144})
    pa.build_all_zonelists(m)
    assert pa.min_free_kbytes_sysctl_handler(m, True, 67584) == 0
    assert [z._watermark for z in m.node_data[0].node_zones[:3]] == [
        [62, 77, 92, 107],
        [12536, 15670, 18804, 21938],
        [4296, 5370, 6444, 7518],
    ]
    # Zone Movable has no pages, but its mark is still at least SWAP_CLUSTER_MAX.
    assert m.node_data[0].node_zones[3]._watermark == [32, 32, 32, 32]


def test_scale_factor_moves_the_gaps_not_min() -> None:
    m = node_of({ZONE_NORMAL: 1_000_000})
    pa.build_all_zonelists(m)
    pa.min_free_kbytes_sysctl_handler(m, True, 8192)
    zone = m.node_data[0].node_zones[ZONE_NORMAL]
    assert zone._watermark == [2048, 3048, 4048, 5048]
    assert pa.watermark_scale_factor_sysctl_handler(m, True, 100) == 0
    assert zone._watermark == [2048, 12048, 22048, 32048]
    for wrong in (0, 3001, -1):
        assert pa.watermark_scale_factor_sysctl_handler(m, True, wrong) == -EINVAL
    assert pa.min_free_kbytes_sysctl_handler(m, True, -1) == -EINVAL
    assert m.watermark_scale_factor == 100 and m.min_free_kbytes == 8192


def test_lowmem_reserve_and_its_recomputation_on_a_read() -> None:
    m = node_of({ZONE_DMA: 3840, ZONE_DMA32: 765000, ZONE_NORMAL: 262144, 3: 4096})
    zones = m.node_data[0].node_zones
    pa.setup_per_zone_lowmem_reserve(m)
    assert zones[0].lowmem_reserve == [0, 765000 // 256, 1027144 // 256, 1031240 // 256, 4028]
    assert zones[1].lowmem_reserve == [0, 0, 1024, 1040, 1040]
    assert zones[2].lowmem_reserve == [0, 0, 0, 128, 128]
    zones[1].managed_pages += 2560
    assert pa.lowmem_reserve_ratio_sysctl_handler(m, False) == 0
    assert zones[0].lowmem_reserve[1] == 767560 // 256
    pa.lowmem_reserve_ratio_sysctl_handler(m, True, [0, -5, 1])
    assert zones[0].lowmem_reserve == [0, 0, 0, 0, 0]
    assert zones[2].lowmem_reserve[3] == 4096
    assert m.sysctl_lowmem_reserve_ratio == [0, 0, 1, 0, 0]


def test_totalreserve_pages_is_capped_by_the_zone() -> None:
    m = node_of({ZONE_DMA: 100, ZONE_NORMAL: 262144})
    pa.build_all_zonelists(m)
    pa.min_free_kbytes_sysctl_handler(m, True, 4096)
    pa.setup_per_zone_lowmem_reserve(m)
    normal = m.node_data[0].node_zones[ZONE_NORMAL]
    assert m.totalreserve_pages == 100 + normal._watermark[WMARK_HIGH]
    assert m.node_data[0].totalreserve_pages == m.totalreserve_pages


@pytest.mark.parametrize(
    ("managed", "expected"),
    [(256, 128), (262144, int_sqrt(262144 * 4 * 16)), (1 << 33, 262144)],
)
def test_calculate_min_free_kbytes(managed: int, expected: int) -> None:
    m = node_of({ZONE_NORMAL: managed})
    pa.build_all_zonelists(m)
    pa.calculate_min_free_kbytes(m)
    assert m.min_free_kbytes == expected
    m.user_min_free_kbytes = 1 << 30
    m.min_free_kbytes = 77
    pa.calculate_min_free_kbytes(m)
    assert m.min_free_kbytes == 77 and "is preferred" in m.dmesg[-1]


def marked_zone(free: int, mark: int = 1000) -> Zone:
    zone = bare_zone(4096, free=False)
    zone.vm_stat[NR_FREE_PAGES] = free
    zone._watermark[:] = [mark, mark * 2, mark * 3, mark * 4]
    return zone


@pytest.mark.parametrize(
    ("flags", "lowest"),
    [
        (0, 1001),
        (ALLOC_NON_BLOCK, 1001),
        (ALLOC_MIN_RESERVE, 501),
        (ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK, 376),
        (ALLOC_OOM, 501),
        (ALLOC_OOM | ALLOC_MIN_RESERVE, 251),
    ],
)
def test_who_may_go_how_far_below_min(flags: int, lowest: int) -> None:
    zone = marked_zone(0)
    ok = pa.__zone_watermark_ok
    assert not ok(zone, 0, 1000, ZONE_NORMAL, flags, lowest - 1)
    assert ok(zone, 0, 1000, ZONE_NORMAL, flags, lowest)


def test_watermark_of_higher_orders_needs_a_block_on_the_right_list() -> None:
    zone = marked_zone(5000)
    ok = pa.__zone_watermark_ok
    assert not ok(zone, 3, 1000, ZONE_NORMAL, 0, 5000)
    zone.pageblock_flags[0] = MIGRATE_HIGHATOMIC
    free_pfn(zone, 0, 4, MIGRATE_HIGHATOMIC)
    assert not ok(zone, 3, 1000, ZONE_NORMAL, 0, 5000)
    assert ok(zone, 3, 1000, ZONE_NORMAL, ALLOC_HIGHATOMIC, 5000)
    assert ok(zone, 3, 1000, ZONE_NORMAL, ALLOC_OOM, 5000)
    free_pfn(zone, 512, 3)
    assert ok(zone, 3, 1000, ZONE_NORMAL, 0, 1000 + 7 + 16 + 1)
    assert not ok(zone, 3, 1000, ZONE_NORMAL, 0, 1000 + 7 + 16)


def test_lowmem_reserve_is_added_for_the_request_not_for_the_zone() -> None:
    zone = marked_zone(1500)
    zone.lowmem_reserve[ZONE_NORMAL] = 600
    assert not pa.zone_watermark_ok(zone, 0, 1000, ZONE_NORMAL, 0)
    assert pa.zone_watermark_ok(zone, 0, 1000, ZONE_DMA, 0)


def test_order_0_requests_with_reserves_ignore_a_boosted_min_mark() -> None:
    zone = marked_zone(1200)
    zone.watermark_boost = 500
    fast = pa.zone_watermark_fast
    assert not fast(zone, 0, 2600, ZONE_NORMAL, 0, GFP_KERNEL)
    assert fast(zone, 0, 2600, ZONE_NORMAL, ALLOC_MIN_RESERVE, GFP_ATOMIC)
    assert not fast(zone, 0, 2600, ZONE_NORMAL, ALLOC_MIN_RESERVE | 1, GFP_ATOMIC)


@pytest.mark.parametrize(
    ("gfp", "order", "flags"),
    [
        (GFP_KERNEL, 0, ALLOC_CPUSET | ALLOC_KSWAPD),
        (GFP_ATOMIC, 0, ALLOC_KSWAPD | ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK),
        (GFP_ATOMIC, 1, ALLOC_KSWAPD | ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK | ALLOC_HIGHATOMIC),
        (GFP_NOWAIT, 3, ALLOC_KSWAPD | ALLOC_NON_BLOCK | ALLOC_CPUSET),
        (GFP_KERNEL | __GFP_HIGH, 2, ALLOC_CPUSET | ALLOC_KSWAPD | ALLOC_MIN_RESERVE),
    ],
)
def test_gfp_to_alloc_flags(gfp: int, order: int, flags: int) -> None:
    assert pa.gfp_to_alloc_flags(Machine(), gfp, order) == flags


def test_a_real_time_task_may_use_the_min_reserve_when_it_can_wait() -> None:
    m = Machine()
    usual = pa.gfp_to_alloc_flags(m, GFP_KERNEL, 0)
    cannot_wait = pa.gfp_to_alloc_flags(m, GFP_NOWAIT, 0)
    m.init_task.prio = 99
    assert pa.gfp_to_alloc_flags(m, GFP_KERNEL, 0) == usual | ALLOC_MIN_RESERVE
    assert pa.gfp_to_alloc_flags(m, GFP_NOWAIT, 0) == cannot_wait
    m.init_task.prio = 100
    assert pa.gfp_to_alloc_flags(m, GFP_KERNEL, 0) == usual


# ---- zonelists -----------------------------------------------------------------------------------


def zonelist_of(m: Machine, nid: int, which: int = 0) -> list[tuple[int, int]]:
    return [
        (ref.zone.node, ref.zone_idx) for ref in m.node_data[nid].node_zonelists[which]._zonerefs
    ]


def test_zonelists_go_node_by_node_and_down_the_zones() -> None:
    m = node_of({ZONE_DMA: 3840, ZONE_DMA32: 100000, ZONE_NORMAL: 100000})
    node_of({ZONE_NORMAL: 200000}, m, 1)
    m.node_distance = [[10, 21], [21, 10]]
    m.nr_online_nodes = 2
    pa.build_all_zonelists(m)
    assert zonelist_of(m, 0) == [(0, 2), (0, 1), (0, 0), (1, 2)]
    assert zonelist_of(m, 1) == [(1, 2), (0, 2), (0, 1), (0, 0)]
    assert zonelist_of(m, 1, 1) == [(1, 2)]
    assert m.dmesg[-4:] == [
        "Fallback order for Node 0: 0 1 ",
        "Fallback order for Node 1: 1 0 ",
        "Built 2 zonelists, mobility grouping on.  Total pages: 403840",
        "Policy zone: Normal",
    ]


def test_nodes_at_the_same_distance_take_turns() -> None:
    m = Machine()
    for nid in range(4):
        node_of({ZONE_NORMAL: 10000}, m, nid)
    m.node_distance = [[10 if a == b else 20 for b in range(4)] for a in range(4)]
    m.nr_online_nodes = 4
    pa.build_all_zonelists(m)
    orders = [[node for node, _ in zonelist_of(m, nid)] for nid in range(4)]
    assert orders == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]


def test_memoryless_node_falls_back_and_small_memory_is_not_grouped() -> None:
    m = node_of({ZONE_NORMAL: 2559})
    node_of({}, m, 1)
    m.node_distance = [[10, 20], [20, 10]]
    pa.build_all_zonelists(m)
    assert zonelist_of(m, 1) == [(0, 2)] and zonelist_of(m, 1, 1) == []
    assert m.page_group_by_mobility_disabled
    m.node_data[0].node_zones[2].managed_pages = 2560
    pa.build_all_zonelists(m)
    assert not m.page_group_by_mobility_disabled


def test_zonelist_iteration_respects_index_and_nodemask() -> None:
    m = node_of({ZONE_DMA: 10, ZONE_DMA32: 10, ZONE_NORMAL: 10})
    node_of({ZONE_NORMAL: 10}, m, 1)
    m.node_distance = [[10, 20], [20, 10]]
    pa.build_all_zonelists(m)
    walk = lambda hi, mask: [  # noqa: E731
        (z.node, z.zone_idx)
        for z in pa.for_each_zone_zonelist_nodemask(pa.node_zonelist(m, 0, 0), hi, mask)
    ]
    assert walk(ZONE_DMA32, None) == [(0, 1), (0, 0)]
    assert walk(ZONE_NORMAL, 0b10) == [(1, 2)]
    assert walk(ZONE_NORMAL, 0) == []
    assert pa.first_zones_zonelist(Zonelist(), ZONE_NORMAL, None) is None


# ---- the allocation ------------------------------------------------------------------------------


def two_zone_machine(normal: int = 8192, dma32: int = 8192) -> Machine:
    """DMA32 and Normal on one node, all free."""
    m = node_of({})
    m.gfp_allowed_mask = (1 << 25) - 1
    start = 4096
    for idx, size in ((ZONE_DMA32, dma32), (ZONE_NORMAL, normal)):
        zone = m.node_data[0].node_zones[idx]
        zone.zone_start_pfn = zone.pageblock_base = start
        zone.spanned_pages = zone.present_pages = size
        zone.pageblock_flags = bytearray([MIGRATE_MOVABLE]) * (size // 512)
        for pfn in range(start, start + size, 1024):
            pa.__free_pages_core(pa.zone_page(zone, pfn), 10)
        start += size
    pa.build_all_zonelists(m)
    pa.setup_per_cpu_pageset(m)
    m.page_group_by_mobility_disabled = False
    return m


def zone_of(m: Machine, idx: int) -> Zone:
    return m.node_data[0].node_zones[idx]


def test_gfp_chooses_the_zone() -> None:
    m = two_zone_machine()
    assert pa.alloc_pages(m, GFP_KERNEL, 0).zone is zone_of(m, ZONE_NORMAL)
    assert pa.alloc_pages(m, GFP_KERNEL | __GFP_DMA32, 0).zone is zone_of(m, ZONE_DMA32)
    assert pa.alloc_pages(m, GFP_KERNEL | __GFP_DMA | __GFP_NOWARN, 0) is None
    with pytest.raises(UsageError, match="more than one zone"):
        pa.alloc_pages(m, GFP_KERNEL | __GFP_DMA | __GFP_DMA32, 0)
    with pytest.raises(UsageError, match="both __GFP_MOVABLE and __GFP_RECLAIMABLE"):
        pa.alloc_pages(m, GFP_KERNEL | __GFP_MOVABLE | __GFP_RECLAIMABLE, 0)


def test_nofragment_spreads_to_dma32_before_it_mixes_types() -> None:
    m = two_zone_machine()
    normal, dma32 = zone_of(m, ZONE_NORMAL), zone_of(m, ZONE_DMA32)
    fill = []
    for zone in (normal, dma32):
        while (page := pa.__rmqueue_smallest(zone, 9, MIGRATE_MOVABLE)) is not None:
            fill.append(page)
    for zone, pfn in ((normal, normal.zone_start_pfn), (dma32, dma32.zone_start_pfn)):
        free_pfn(zone, pfn, 8)  # half a movable block in each zone
    pa.set_pageblock_migratetype(pa.zone_page(dma32, dma32.zone_start_pfn + 512), MIGRATE_UNMOVABLE)
    free_pfn(dma32, dma32.zone_start_pfn + 512, 0, MIGRATE_UNMOVABLE)
    page = pa.alloc_pages(m, GFP_KERNEL, 0)
    assert page is not None and page.zone is dma32
    # Nothing unmovable is left: the second walk, without NOFRAGMENT, mixes in the preferred zone.
    page = pa.alloc_pages(m, GFP_KERNEL, 0)
    assert page is not None and page.zone is normal


def test_a_zone_below_its_high_mark_is_marked_and_unmarked_by_a_free() -> None:
    zone = bare_zone(4096)
    m = zone.machine
    zone._watermark[:] = [0, 10, 4000, 7990]
    pages = [pa.alloc_pages(m, GFP_KERNEL, 0) for _ in range(200)]
    assert zone.flags >> ZONE_BELOW_HIGH & 1
    for page in pages:
        pa.__free_pages(page, 0)
    pa.drain_all_pages(m)
    for _ in range(2):
        page = pa.alloc_pages(m, GFP_KERNEL, 0)
        pa.__free_pages(page, 0)
    assert not zone.flags >> ZONE_BELOW_HIGH & 1


def test_counters() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    page = pa.alloc_pages(m, GFP_KERNEL, 3)
    assert m.vm_event[PGALLOC_NORMAL] == 8
    freed = m.vm_event[PGFREE]
    pa.__free_pages(page, 3)
    assert m.vm_event[PGFREE] == freed + 8
    assert zone.vm_numa_event == [1, 0, 0, 0, 1, 0]


def test_compound_pages_and_folios() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    folio = pa.folio_alloc(m, GFP_KERNEL, 2)
    assert folio_order(folio) == 2
    tail = pfn_to_page(m, folio.pfn + 3)
    assert PageTail(tail) and tail.next is folio
    folio_put(folio)
    assert folio.folio is None and not PageTail(tail)
    pa.drain_all_pages(m)
    pa.validate_zone(zone)


def test_last_reference_of_a_plain_block_frees_only_its_first_page_the_rest_at_free() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    page = pa.alloc_pages(m, GFP_KERNEL, 2)
    page._refcount += 1  # somebody looks at it for a moment
    with m.trace.record("kmem:mm_page_free") as log:
        pa.__free_pages(page, 2)
        folio_put(page)
    assert [(e.fields["pfn"] - page.pfn, e.fields["order"]) for e in log] == [
        (2, 1),
        (1, 0),
        (0, 0),
    ]
    pa.drain_all_pages(m)
    assert zone.vm_stat[NR_FREE_PAGES] == 1024
    pa.validate_zone(zone)


def test_alloc_pages_exact_gives_the_rest_back() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    addr = pa.alloc_pages_exact(m, 5 * 4096 - 1, GFP_KERNEL)
    page = pa.virt_to_page(m, addr)
    assert zone.vm_stat[NR_FREE_PAGES] == 1024 - 5
    assert [pfn_to_page(m, page.pfn + i)._refcount for i in range(8)] == [1] * 5 + [0] * 3
    pa.free_pages_exact(m, addr, 5 * 4096)
    pa.drain_all_pages(m)
    assert zone.vm_stat[NR_FREE_PAGES] == 1024
    pa.validate_zone(zone)


@pytest.mark.parametrize(("size", "order"), [(1, 0), (4096, 0), (4097, 1), (8192, 1), (8193, 2)])
def test_get_order(size: int, order: int) -> None:
    assert pa.get_order(size) == order


def test_split_page_frees_one_by_one() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    page = pa.alloc_pages(m, GFP_KERNEL, 2)
    pa.split_page(page, 2)
    for i in range(4):
        pa.__free_pages(pfn_to_page(m, page.pfn + i), 0)
    with pytest.raises(BadPage, match=r"!page_count"):
        pa.split_page(page, 2)
    with pytest.raises(BadPage, match="PageCompound"):
        pa.split_page(pa.alloc_pages(m, GFP_KERNEL | __GFP_COMP, 1), 1)


def test_alloc_pages_bulk_fills_holes_of_an_array_and_a_list() -> None:
    zone = bare_zone(4096)
    m = zone.machine
    there = pa.alloc_pages(m, GFP_KERNEL, 0)
    array: list[Page | None] = [None, there, None, None]
    assert pa.alloc_pages_bulk(m, GFP_KERNEL, 0, None, 4, page_array=array) == 4
    assert array[1] is there and len({p.pfn for p in array if p}) == 4
    assert pa.alloc_pages_bulk(m, GFP_KERNEL, 0, None, 4, page_array=array) == 4
    head = ListHead()
    assert pa.alloc_pages_bulk(m, GFP_KERNEL, 0, None, 7, head) == 7
    assert list_count_nodes(head) == 7
    assert pa.alloc_pages_bulk(m, GFP_KERNEL, 0, None, 0, head) == 0
    with pytest.raises(UsageError, match="one of the two"):
        pa.alloc_pages_bulk(m, GFP_KERNEL, 0, None, 1)


def test_free_unref_folios_emits_a_batch() -> None:
    zone = bare_zone(2048)
    m = zone.machine
    folios = [pa.folio_alloc(m, GFP_HIGHUSER_MOVABLE, o) for o in (0, 2, 4)]
    for folio in folios:
        folio._refcount = 0
    with m.trace.record("kmem:mm_page_free*") as log:
        pa.free_unref_folios(folios)
    names = [e.name.removeprefix("kmem:mm_page_") for e in log]
    assert names == ["free", "free", "free", "free_batched", "free_batched"]
    pa.drain_all_pages(m)
    pa.validate_zone(zone)


# ---- highatomic ----------------------------------------------------------------------------------


def test_reserve_and_unreserve_highatomic() -> None:
    zone = bare_zone(1 << 17)  # 1 % is 1310 pages: up to 3 pageblocks
    m = zone.machine
    pages = []
    with m.trace.record("model:pageblock_migratetype") as log:
        for _ in range(2000):
            zone._watermark[:] = [zone.vm_stat[NR_FREE_PAGES] * 2 - 100] + [1 << 20] * 3
            zone.per_cpu_pageset[0].high_max = zone.per_cpu_pageset[0].high_min = 4
            page = pa.alloc_pages(m, GFP_ATOMIC | __GFP_NOWARN, 2)
            if page is not None:
                pages.append(page)
    reserved = [e for e in log if e.fields["new_mt"] == MIGRATE_HIGHATOMIC]
    assert len(reserved) == 3 and zone.nr_reserved_highatomic == 1536
    zone._watermark[:] = [0] * 4
    pa.validate_zone(zone, strict=False)
    ac = pa.AllocContext()
    ac.zonelist = m.node_data[0].node_zonelists[0]
    ac.highest_zoneidx, ac.nodemask, ac.migratetype = ZONE_NORMAL, None, MIGRATE_MOVABLE
    while pa.unreserve_highatomic_pageblock(ac, False):
        pass
    assert zone.nr_reserved_highatomic == 512
    pa.unreserve_highatomic_pageblock(ac, True)
    assert zone.nr_reserved_highatomic == 0
    pa.validate_zone(zone, strict=False)


def test_small_zones_reserve_no_pageblock() -> None:
    zone = bare_zone(51199)
    page = pa.alloc_pages(zone.machine, GFP_KERNEL, 1)
    pa.reserve_highatomic_pageblock(page, 1, zone)
    assert zone.nr_reserved_highatomic == 0


# ---- the slow path -------------------------------------------------------------------------------


def exhausted(**attributes: object) -> tuple[Machine, Zone, list[Page]]:
    zone = bare_zone(1024)
    pages = take_all(zone)
    zone._watermark[:] = [10, 20, 30, 40]
    for name, value in attributes.items():
        setattr(zone.machine, name, value)
    return zone.machine, zone, pages


def steps(m: Machine, gfp: int, order: int = 0) -> list[str]:
    with m.trace.record("model:slowpath") as log:
        pa.alloc_pages(m, gfp, order)
    return [e.fields["step"] for e in log]


START = ["gfp_to_alloc_flags", "wake_kswapd", "freelist"]


def test_order_of_decisions_without_progress() -> None:
    m, _, _ = exhausted()
    retry = ["retry", "wake_kswapd", "freelist", "direct_reclaim"]
    oom = ["should_reclaim_retry", "may_oom", "nopage", "warn_alloc"]
    assert steps(m, GFP_KERNEL) == START + retry + oom
    compact = ["direct_compact"]
    assert steps(m, GFP_KERNEL, 1) == START + compact + retry + compact + oom
    # Movable requests up to order 3 compact only after reclaim.
    assert steps(m, GFP_HIGHUSER_MOVABLE, 1) == START + retry + compact + oom
    assert steps(m, GFP_HIGHUSER_MOVABLE, 4) == START + compact + retry + compact + oom[2:]
    assert steps(m, GFP_KERNEL | __GFP_NORETRY) == START + retry + ["nopage", "warn_alloc"]
    assert steps(m, GFP_KERNEL | __GFP_NORETRY, 4) == START + compact + ["nopage", "warn_alloc"]
    assert steps(m, GFP_ATOMIC) == START + retry[:3] + ["nopage", "warn_alloc"]
    mayfail = GFP_KERNEL | __GFP_RETRY_MAYFAIL
    assert steps(m, mayfail, 4) == START + compact + retry + compact + oom


def test_reclaim_with_progress_gets_a_page_and_drains_first_if_it_must() -> None:
    m, zone, pages = exhausted()

    def reclaim(m: Machine, zonelist: Zonelist, order: int, gfp: int, nodemask: int | None) -> int:
        assert m.init_task.flags & PF_MEMALLOC
        for page in pages[:64]:
            pa.__free_pages(page, 0)
        return 64

    m.hooks.try_to_free_pages = reclaim
    page = pa.alloc_pages(m, GFP_KERNEL, 0)
    assert page is not None and not m.init_task.flags & PF_MEMALLOC
    assert zone.vm_stat[NR_FREE_PAGES] > 10


def test_costly_progress_never_counts_and_reclaim_gives_up_after_16() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    while zone.vm_stat[NR_FREE_PAGES] > 32:
        pa.alloc_pages(m, GFP_KERNEL, 5)
    zone._watermark[:] = [100, 200, 300, 400]
    zone.vm_stat[NR_ZONE_INACTIVE_FILE] = 1 << 20  # it could be enough every time
    m.hooks.try_to_free_pages = lambda *args: 1
    with m.trace.record("oom:reclaim_retry_zone", "model:slowpath") as log:
        assert pa.alloc_pages(m, GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN, 4) is None
    loops = [e.fields["no_progress_loops"] for e in log if e.name == "oom:reclaim_retry_zone"]
    assert loops == list(range(1, 17))
    reclaims = [e for e in log if e.values == ("direct_reclaim",)]
    assert len(reclaims) == 17
    # Up to order 3 the same progress counts, and the kernel would go on for ever.
    with pytest.raises(KernelBug, match="would loop for ever"):
        pa.alloc_pages(m, GFP_KERNEL | __GFP_NOWARN, 0)


def test_compaction_success_is_retried_16_times_then_priority_rises() -> None:
    m, _zone, _ = exhausted()
    prios = []

    def compact(m, gfp, order, flags, ac, prio):  # type: ignore[no-untyped-def]
        prios.append(prio)
        return COMPACT_SUCCESS, None

    m.hooks.try_to_compact_pages = compact
    m.hooks.try_to_free_pages = lambda *args: 1
    with m.trace.record("oom:compact_retry") as log:
        assert pa.alloc_pages(m, GFP_KERNEL | __GFP_NOWARN, 2) is None
    # First async, then 17 rounds at each of the priorities 1 and 0; the last one gives up.
    assert prios == [2] + [1] * 17 + [0] * 17
    assert [e.fields["ret"] for e in log] == [1] * 33 + [0]
    assert {e.fields["result"] for e in log} == {3}


def test_oom_progress_retries_and_a_victim_uses_the_reserve() -> None:
    m, _zone, pages = exhausted()
    for page in pages[:8]:
        pa.__free_pages(page, 0)
    pa.drain_all_pages(m)
    killed = []
    m.hooks.out_of_memory = lambda m, oc: killed.append(oc) is None
    m.hooks.tsk_is_oom_victim = lambda task: bool(killed)
    assert pa.alloc_pages(m, GFP_KERNEL, 0) is not None  # 8 free > 10 - 5, and it is the victim now
    assert len(killed) == 1 and killed[0].order == 0


def test_pf_memalloc_ignores_the_watermarks_and_does_not_reclaim() -> None:
    m, _zone, pages = exhausted()
    pa.__free_pages(pages[0], 0)
    flags = pa.memalloc_flags_save(m, PF_MEMALLOC)
    page = pa.alloc_pages(m, GFP_KERNEL, 0)
    assert page is pages[0]
    assert "direct_reclaim" not in steps(m, GFP_KERNEL | __GFP_NOWARN)
    pa.memalloc_flags_restore(m, flags)
    assert m.init_task.flags == 0


def test_scopes_narrow_gfp() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    flags = pa.memalloc_flags_save(m, PF_MEMALLOC_NOFS)
    with m.trace.record("kmem:mm_page_alloc") as log:
        pa.alloc_pages(m, GFP_KERNEL, 0)
    pa.memalloc_flags_restore(m, flags)
    assert log[0].fields["gfp_flags"] == GFP_NOFS


def test_nofail_says_when_it_would_loop_for_ever() -> None:
    m, _, pages = exhausted()
    with pytest.raises(KernelBug, match="would loop for ever"):
        pa.alloc_pages(m, GFP_KERNEL | __GFP_NOFAIL, 0)
    pa.__free_pages(pages[0], 0)
    assert pa.alloc_pages(m, GFP_KERNEL | __GFP_NOFAIL, 0) is pages[0]


def test_atomic_requests_take_the_highatomic_list_first_and_nowait_last() -> None:
    zone = bare_zone(2048)
    m = zone.machine
    take_all(zone)
    page = pa.zone_page(zone, 512)
    page._refcount = 0
    pa.set_pageblock_migratetype(page, MIGRATE_HIGHATOMIC)
    free_pfn(zone, 512, 0, MIGRATE_HIGHATOMIC)
    assert pa.alloc_pages(m, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN, 0) is None
    assert pa.alloc_pages(m, GFP_NOWAIT, 0) is page


def test_failure_report_is_rate_limited_and_kept() -> None:
    m, _, _ = exhausted()
    assert pa.alloc_pages(m, GFP_KERNEL | __GFP_NOWARN, 0) is None and not m.alloc_failures
    pa.alloc_pages(m, GFP_KERNEL, 0)
    pa.alloc_pages(m, GFP_KERNEL, 0)
    assert len(m.alloc_failures) == 1
    m.clock += 10_000_000_000
    pa.alloc_pages(m, GFP_USER, 1)
    (_, first), (_, second) = m.alloc_failures
    assert first[0] == (
        "swapper: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), "
        "nodemask=(null),cpuset=/,mems_allowed=0"
    )
    assert second[0].startswith(
        "swapper: page allocation failure: order:1, mode:0x100cc0(GFP_USER)"
    )
    assert "Mem-Info:" in first and first[-1] == "0 pages hwpoisoned"
    assert m.dmesg[-len(second) :] == second


# ---- bad pages and bad calls ---------------------------------------------------------------------


def test_order_11_is_refused_with_a_warning() -> None:
    m = bare_zone(1024).machine
    with m.trace.record("model:warn") as log:
        assert pa.alloc_pages(m, GFP_KERNEL | __GFP_NOWARN, 11) is None
        assert not log
        assert pa.alloc_pages(m, GFP_KERNEL, 11) is None
    assert log[0].fields["text"] == "WARN_ON_ONCE_GFP(order > MAX_PAGE_ORDER, gfp)"


def test_negative_order_and_unknown_node() -> None:
    m = bare_zone(1024).machine
    with pytest.raises(UsageError, match=r"order is -1; an allocation has order 0 to 10"):
        pa.alloc_pages(m, GFP_KERNEL, -1)
    with pytest.raises(UsageError, match=r"node 7 does not exist; there are \[0\]"):
        pa.alloc_pages_node(m, 7, GFP_KERNEL, 0)
    with pytest.raises(UsageError, match="size is 0 bytes"):
        pa.alloc_pages_exact(m, 0, GFP_KERNEL)
    with pytest.raises(UsageError, match="no address in the direct map"):
        pa.free_pages(m, 0x1000, 0)


def test_double_free() -> None:
    m = bare_zone(1024).machine
    page = pa.alloc_pages(m, GFP_KERNEL, 0)
    pa.__free_pages(page, 0)
    with pytest.raises(BadPage, match=r"page_ref_count\(page\) == 0") as caught:
        pa.__free_pages(page, 0)
    assert caught.value.pfn == page.pfn
    with pytest.raises(KernelBug, match="takes 1 of its references"):
        folio_put(page)


class FakeMapping:
    """Stands for an address_space: it has i_pages."""

    i_pages = ()


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("_mapcount", 0, "nonzero mapcount"),
        ("mapping", FakeMapping(), "non-NULL mapping"),
        ("flags", 1 << PG_lru, "PAGE_FLAGS_CHECK_AT_FREE flag(s) set"),
        ("memcg_data", object(), "page still charged to cgroup"),
    ],
)
def test_bad_state_when_freed(attribute: str, value: object, reason: str) -> None:
    m = bare_zone(1024).machine
    page = pa.alloc_pages(m, GFP_KERNEL, 0)
    setattr(page, attribute, value)
    with pytest.raises(BadPage) as caught:
        pa.__free_pages(page, 0)
    assert caught.value.reason == reason


def test_bad_tail_pages() -> None:
    m = bare_zone(1024).machine
    page = pa.alloc_pages(m, GFP_KERNEL, 1)
    pfn_to_page(m, page.pfn + 1)._refcount = 1
    with pytest.raises(BadPage, match="nonzero _refcount"):
        pa.__free_pages(page, 1)
    folio = pa.folio_alloc(m, GFP_KERNEL, 2)
    folio.folio._large_mapcount = 0
    with pytest.raises(BadPage, match="nonzero large_mapcount"):
        folio_put(folio)
    folio = pa.folio_alloc(m, GFP_KERNEL, 2)
    pfn_to_page(m, folio.pfn + 1).next = None
    with pytest.raises(BadPage, match="PageTail not set"):
        folio_put(folio)


def test_wrong_order() -> None:
    m = bare_zone(1024).machine
    folio = pa.folio_alloc(m, GFP_KERNEL, 2)
    with pytest.raises(BadPage, match="compound_order"):
        pa.__free_pages(folio, 3)
    for order in (-1, 11):
        with pytest.raises(UsageError, match="a block has order 0 to 10"):
            pa.__free_pages(folio, order)
    odd = [pa.alloc_pages(m, GFP_KERNEL, 0) for _ in range(2)][1]
    with pytest.raises(BadPage, match="pfn & "):
        pa.__free_pages(odd, 1)


def test_the_checks_can_be_switched_off_as_in_the_reference_kernel() -> None:
    m = bare_zone(1024).machine
    m.check_pages_enabled = False
    page = pa.alloc_pages(m, GFP_KERNEL, 0)
    page.mapping = FakeMapping()
    pa.__free_pages(page, 0)
    assert list(m.node_data[0].node_zones[ZONE_NORMAL].per_cpu_pageset[0].lists[0])


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda z: setattr(z.free_area[10], "nr_free", 7), "nr_free is 7"),
        (lambda z: z.vm_stat.__setitem__(NR_FREE_PAGES, 3), "NR_FREE_PAGES is 3"),
        (lambda z: setattr(z.mem_map[0], "private", 3), "private says order 3"),
        (lambda z: setattr(z.mem_map[0], "_refcount", 1), "_refcount is 1"),
        (lambda z: z.pageblock_flags.__setitem__(1, 2), "has type 2"),
        (lambda z: setattr(z.mem_map[0], "prev", None), "list corruption"),
        (lambda z: setattr(z.per_cpu_pageset[0], "count", 5), "pcp count is 5"),
        (lambda z: z._watermark.__setitem__(WMARK_PROMO, 1), "uneven"),
        (lambda z: setattr(z, "nr_free_highatomic", 9), "nr_free_highatomic is 9"),
        (lambda z: z.mem_map.__setitem__(5, Page(6, z)), "mem_map"),
    ],
)
def test_validate_zone_notices(damage, text: str) -> None:  # type: ignore[no-untyped-def]
    zone = bare_zone(4096)
    pa.validate_zone(zone)
    damage(zone)
    with pytest.raises(KernelBug, match=text):
        pa.validate_zone(zone)


def test_validate_zone_notices_unmerged_buddies() -> None:
    zone = bare_zone(1024, free=False)
    for pfn in (0, 1):
        page = pa.zone_page(zone, pfn)
        pa.__add_to_free_list(page, zone, 0, MIGRATE_MOVABLE, True)
        pa.set_buddy_order(page, 0)
        pa.account_freepages(zone, 1, MIGRATE_MOVABLE)
    with pytest.raises(KernelBug, match="was not merged"):
        pa.validate_zone(zone)


def test_watermark_constants_of_the_model() -> None:
    assert (WMARK_MIN, WMARK_LOW, WMARK_HIGH, WMARK_PROMO) == (0, 1, 2, 3)
    assert pageblock_nr_pages == 512


def test_a_limit_below_its_minimum_wins() -> None:
    """A small zone with a large min_free_kbytes: high_min exceeds high_max, and clamp() takes max."""
    zone = bare_zone(1 << 14)
    pcp = zone.per_cpu_pageset[0]
    pa.pageset_update(pcp, 2226, 1024, 1)
    assert pa.nr_pcp_high(pcp, zone, 1, False) == 2226  # from 0: raised to high_min
    assert pa.nr_pcp_high(pcp, zone, 1, False) == 1024  # and from there cut to high_max
    pcp.high = 5000
    assert pa.nr_pcp_high(pcp, zone, 1, False) == 1024
    pa.nr_pcp_alloc(pcp, zone, 1)
    assert pcp.high == 1024
