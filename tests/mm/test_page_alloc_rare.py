"""The page allocator's rare turns: NUMA, hooks, scopes, page states, memory hotplug."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mmcore.errors import EINVAL, BadPage, KernelBug
from mmcore.machine import Machine, bare_zone
from mmcore.mm import page_alloc as pa
from mmcore.mm.gfp import (
    __GFP_COMP,
    __GFP_DMA32,
    __GFP_HIGHMEM,
    __GFP_MEMALLOC,
    __GFP_MOVABLE,
    __GFP_NOFAIL,
    __GFP_NOMEMALLOC,
    __GFP_NORETRY,
    __GFP_NOWARN,
    __GFP_RETRY_MAYFAIL,
    __GFP_THISNODE,
    __GFP_WRITE,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    GFP_NOIO,
)
from mmcore.mm.internal import (
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_NO_WATERMARKS,
    ALLOC_NOFRAGMENT,
    ALLOC_OOM,
    COMPACT_COMPLETE,
    COMPACT_DEFERRED,
    COMPACT_SUCCESS,
    NODE_RECLAIM_SUCCESS,
    PF_DUMPCORE,
    PF_MEMALLOC,
    PF_MEMALLOC_NOIO,
    PF_MEMALLOC_PIN,
    AllocContext,
    __find_buddy_pfn,
    alloc_flags_str,
    buddy_order,
    zone_reclaimable_pages,
)
from mmcore.mm.mm_types import Page, folio_order, pfn_to_page
from mmcore.mm.mmzone import (
    MIGRATE_HIGHATOMIC,
    MIGRATE_ISOLATE,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    PCPF_FREE_HIGH_BATCH,
    WMARK_HIGH,
    ZONE_BELOW_HIGH,
    ZONE_DMA32,
    ZONE_MOVABLE,
    ZONE_NORMAL,
    ZONE_RECLAIM_ACTIVE,
    Zone,
)
from mmcore.mm.page_flags import PG_head, PG_hwpoison, PG_lru, PG_mlocked, PG_reserved
from mmcore.mm.swap import folio_get, folio_put
from mmcore.mm.vmstat import (
    COMPACTFAIL,
    COMPACTSTALL,
    COMPACTSUCCESS,
    NR_FREE_PAGES,
    NR_MLOCK,
    NR_ZONE_ACTIVE_ANON,
    NUMA_FOREIGN,
    NUMA_HIT,
    NUMA_LOCAL,
    NUMA_MISS,
    NUMA_OTHER,
    PGFREE,
    UNEVICTABLE_PGCLEARED,
)


def blocks(zone: Zone, order: int, mt: int = MIGRATE_MOVABLE) -> list[int]:
    return [page.pfn for page in zone.free_area[order].free_list[mt]]


def take_all(zone: Zone) -> list[Page]:
    pages = []
    while (page := pa.alloc_pages(zone.machine, GFP_KERNEL | __GFP_NOWARN, 0)) is not None:
        pages.append(page)
    return pages


def context(zone: Zone, mt: int = MIGRATE_MOVABLE) -> AllocContext:
    ac = AllocContext()
    ac.zonelist = zone.machine.node_data[zone.node].node_zonelists[0]
    ac.highest_zoneidx, ac.nodemask, ac.migratetype = ZONE_NORMAL, None, mt
    return ac


# ---- helpers of mm/internal.h --------------------------------------------------------------------


def test_buddy_arithmetic() -> None:
    assert [__find_buddy_pfn(8, o) for o in range(4)] == [9, 10, 12, 0]
    zone = bare_zone(1024)
    page = zone.mem_map[0]
    assert buddy_order(page) == 10 and pa.find_buddy_page_pfn(zone, 0, 10) is None
    assert not pa.buddy_merge_likely(0, 512, zone, 9)
    pa.__rmqueue_smallest(zone, 0, MIGRATE_MOVABLE)
    # 1, 2, 4 ... are free: the parent of 0 and 1 has the free buddy 2 of order 1.
    assert pa.buddy_merge_likely(0, 1, zone, 0)
    assert not pa.buddy_merge_likely(2, 3, zone, 0)


def test_alloc_flags_by_name() -> None:
    assert alloc_flags_str(0) == "ALLOC_WMARK_MIN"
    assert alloc_flags_str(1 | ALLOC_KSWAPD) == "ALLOC_WMARK_LOW|ALLOC_KSWAPD"
    assert alloc_flags_str(ALLOC_NO_WATERMARKS) == "ALLOC_NO_WATERMARKS"


def test_zone_reclaimable_pages() -> None:
    zone = bare_zone(1024)
    assert zone_reclaimable_pages(zone) == 1024  # nothing to reclaim: the free pages
    zone.vm_stat[NR_ZONE_ACTIVE_ANON] = 50
    assert zone_reclaimable_pages(zone) == 1024
    zone.machine.nr_swap_pages = 1
    assert zone_reclaimable_pages(zone) == 50


# ---- page states on the way to the free lists ----------------------------------------------------


def test_mlocked_pages_are_counted_off() -> None:
    zone = bare_zone(1024)
    page = pa.folio_alloc(zone.machine, GFP_HIGHUSER_MOVABLE, 2)
    page.flags |= 1 << PG_mlocked
    zone.vm_stat[NR_MLOCK] = 4
    pa.__free_pages(page, 2)
    assert zone.vm_stat[NR_MLOCK] == 0 and page.flags == 0
    assert zone.machine.vm_event[UNEVICTABLE_PGCLEARED] == 4


def test_poisoned_pages_never_come_back() -> None:
    zone = bare_zone(1024)
    page = pa.alloc_pages(zone.machine, GFP_KERNEL, 0)
    pa.drain_all_pages(zone.machine)
    page.flags |= 1 << PG_hwpoison
    pa.__free_pages(page, 0)
    assert zone.vm_stat[NR_FREE_PAGES] == 1023 and zone.per_cpu_pageset[0].count == 0
    page.flags = 0
    pa.__free_one_page(page, page.pfn, zone, 0, pa.get_pageblock_migratetype(page), 0)
    page = next(iter(zone.free_area[10].free_list[MIGRATE_UNMOVABLE]))
    page.flags |= 1 << PG_hwpoison
    with pytest.raises(BadPage, match="hardware poison"):
        pa.alloc_pages(zone.machine, GFP_KERNEL, 10)


def test_anonymous_mappings_are_cleared() -> None:
    zone = bare_zone(1024)
    page = pa.alloc_pages(zone.machine, GFP_HIGHUSER_MOVABLE, 0)
    page.mapping = object()  # an anon_vma
    pa.__free_pages(page, 0)
    assert page.mapping is None


def test_a_page_that_changes_on_a_per_cpu_list_is_noticed_when_handed_out() -> None:
    zone = bare_zone(1 << 18)
    page = pa.alloc_pages(zone.machine, GFP_KERNEL, 0)
    pa.__free_pages(page, 0)
    page._refcount = 1
    with pytest.raises(BadPage, match="nonzero _refcount"):
        pa.alloc_pages(zone.machine, GFP_KERNEL, 0)


def test_folio_state_in_tail_pages() -> None:
    m = bare_zone(2048).machine
    first, second = (pa.folio_alloc(m, GFP_KERNEL, 3) for _ in range(2))
    pa.list_add(first.folio._deferred_list, second.folio._deferred_list)
    with pytest.raises(BadPage, match="on deferred list") as caught:
        folio_put(second)
    assert caught.value.pfn == second.pfn + 2
    third = pa.folio_alloc(m, GFP_KERNEL, 1)
    pfn_to_page(m, third.pfn + 1).next = second
    with pytest.raises(BadPage, match="compound_head not consistent"):
        folio_put(third)


def test_folio_get() -> None:
    m = bare_zone(1024).machine
    folio = pa.folio_alloc(m, GFP_KERNEL, 0)
    folio_get(folio)
    folio_put(folio)
    assert folio._refcount == 1
    folio_put(folio)
    with pytest.raises(KernelBug, match="which nobody holds"):
        folio_get(folio)


def test_hotplugged_and_reserved_memory() -> None:
    zone = bare_zone(2048, free=False)
    m = zone.machine
    total = m.totalram_pages
    page = pa.zone_page(zone, 1024)
    page.flags |= 1 << PG_reserved
    pa.__free_pages_core(page, 9, pa.MEMINIT_HOTPLUG)
    assert zone.managed_pages == 512 and m.totalram_pages == total + 512
    reserved = pa.zone_page(zone, 100)
    reserved.flags |= 1 << PG_reserved
    pa.free_reserved_page(reserved)
    pa.drain_all_pages(m)
    assert blocks(zone, 0) == [100] and zone.managed_pages == 513
    with m.trace.record("kmem:mm_page_free") as log:
        pa.__free_pages_core(pa.zone_page(zone, 512), 9)
    assert [e.values for e in log] == [(512, 9)] and m.vm_event[PGFREE] == 512 + 1 + 512
    pa.validate_zone(zone)


# ---- pageblocks ----------------------------------------------------------------------------------


def test_without_grouping_every_block_is_unmovable_and_may_be_claimed() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    m.page_group_by_mobility_disabled = True
    pa.set_pageblock_migratetype(zone.mem_map[0], MIGRATE_RECLAIMABLE)
    assert zone.pageblock_flags[0] == MIGRATE_UNMOVABLE
    pa.set_pageblock_migratetype(zone.mem_map[0], MIGRATE_ISOLATE)
    assert zone.pageblock_flags[0] == MIGRATE_ISOLATE
    assert pa.can_steal_fallback(m, 0, MIGRATE_MOVABLE)
    m.page_group_by_mobility_disabled = False
    assert not pa.can_steal_fallback(m, 3, MIGRATE_MOVABLE)
    assert pa.can_steal_fallback(m, 4, MIGRATE_MOVABLE)


def test_pageblocks_across_a_zone_border_stay_as_they_are() -> None:
    zone = bare_zone(1000, 100)
    page = pa.zone_page(zone, 110)
    assert pa.move_freepages_block(zone, page, MIGRATE_MOVABLE, MIGRATE_UNMOVABLE) == -1
    assert not pa.move_freepages_block_isolate(zone, page, MIGRATE_ISOLATE)
    take = pa.try_to_steal_block(zone, page, 1, 0, MIGRATE_UNMOVABLE, 0)
    assert take is None and set(zone.pageblock_flags) == {MIGRATE_MOVABLE}


def test_highatomic_blocks_are_not_claimed() -> None:
    zone = bare_zone(1024)
    zone.pageblock_flags[0] = MIGRATE_HIGHATOMIC
    page = pa.zone_page(zone, 0)
    assert pa.try_to_steal_block(zone, page, 9, 0, MIGRATE_UNMOVABLE, 0) is None


def test_unmovable_request_finds_nothing_alike_in_a_reclaimable_block() -> None:
    zone = bare_zone(512, free=False)
    zone.pageblock_flags[0] = MIGRATE_RECLAIMABLE
    for pfn in range(257, 512):
        pa.__free_one_page(pa.zone_page(zone, pfn), pfn, zone, 0, MIGRATE_RECLAIMABLE, 0)
    assert pa.try_to_steal_block(zone, pa.zone_page(zone, 257), 0, 0, 0, 0) is None
    pa.__free_one_page(pa.zone_page(zone, 256), 256, zone, 0, MIGRATE_RECLAIMABLE, 0)
    assert pa.try_to_steal_block(zone, pa.zone_page(zone, 256), 8, 0, 0, 0) is not None


def test_pages_of_large_folios_count_with_their_head() -> None:
    zone = bare_zone(2048)
    m = zone.machine
    folio = pa.folio_alloc(m, GFP_HIGHUSER_MOVABLE, 10)
    assert pa._count_free_and_movable(zone, folio.pfn + 512, folio.pfn + 1024) == (0, 0)
    folio.flags |= 1 << PG_lru
    assert pa._count_free_and_movable(zone, folio.pfn, folio.pfn + 512) == (0, 512)
    assert pa._count_free_and_movable(zone, folio.pfn + 512, folio.pfn + 1024) == (0, 512)
    folio.flags = 1 << PG_head
    folio.mapping = SimpleNamespace(movable_ops=object())  # movable by its owner: page by page
    assert pa._count_free_and_movable(zone, folio.pfn, folio.pfn + 512) == (0, 1)
    assert pa._count_free_and_movable(zone, folio.pfn + 512, folio.pfn + 1024) == (0, 0)
    single = pa.alloc_pages(m, GFP_HIGHUSER_MOVABLE, 0)
    single.mapping = SimpleNamespace(movable_ops=object())
    start = single.pfn & -512
    free, movable = pa._count_free_and_movable(zone, start, start + 512)
    assert movable == 1 and free == 511 - zone.per_cpu_pageset[0].count


def test_highatomic_reserves_of_pageblock_size() -> None:
    zone = bare_zone(1 << 17)
    m = zone.machine
    page = pa.alloc_pages(m, GFP_KERNEL, 10)
    pa.reserve_highatomic_pageblock(page, 10, zone)
    assert zone.nr_reserved_highatomic == 1024
    pa.reserve_highatomic_pageblock(page, 10, zone)  # it is reserved already
    assert zone.nr_reserved_highatomic == 1024
    pa.__free_pages(page, 10)
    assert blocks(zone, 10, MIGRATE_HIGHATOMIC) == [page.pfn]
    assert pa.rmqueue_buddy(zone, zone, 9, ALLOC_HIGHATOMIC, MIGRATE_MOVABLE).pfn == page.pfn
    pa.__free_one_page(page, page.pfn, zone, 9, MIGRATE_HIGHATOMIC, 0)
    assert pa.unreserve_highatomic_pageblock(context(zone), True) == 1
    assert zone.nr_reserved_highatomic == 0 and zone.nr_free_highatomic == 0
    assert zone.pageblock_flags[page.pfn >> 9] == MIGRATE_MOVABLE
    assert pa.unreserve_highatomic_pageblock(context(zone), True) == 0
    zone.nr_reserved_highatomic = 1 << 20
    pa.reserve_highatomic_pageblock(zone.mem_map[4096], 0, zone)
    assert zone.nr_reserved_highatomic == 1 << 20
    pa.validate_zone(zone, strict=False)


def test_pageblocks_inside_a_folio_change_without_disturbing_its_tail_pages() -> None:
    zone = bare_zone(1 << 17)
    m = zone.machine
    folio = pa.alloc_pages(m, GFP_KERNEL | __GFP_COMP, 10)
    pa.reserve_highatomic_pageblock(folio, 10, zone)
    assert set(zone.pageblock_flags[folio.pfn >> 9 :][:2]) == {MIGRATE_HIGHATOMIC}
    middle = pfn_to_page(m, folio.pfn + 512)
    pa.move_freepages_block(zone, middle, MIGRATE_HIGHATOMIC, MIGRATE_MOVABLE)
    pa.move_freepages_block_isolate(zone, middle, MIGRATE_ISOLATE)
    folio_put(folio)
    assert blocks(zone, 9, MIGRATE_ISOLATE) == [folio.pfn + 512]
    assert blocks(zone, 9, MIGRATE_HIGHATOMIC) == [folio.pfn]
    pa.validate_zone(zone)


@pytest.mark.parametrize(("order", "mt"), [(8, MIGRATE_MOVABLE), (7, MIGRATE_UNMOVABLE)])
def test_isolating_half_a_pageblock_or_more_makes_it_movable(order: int, mt: int) -> None:
    zone = bare_zone(1024, free=False)
    zone.pageblock_flags[0] = MIGRATE_UNMOVABLE
    pa.__free_one_page(pa.zone_page(zone, 512), 512, zone, 9, MIGRATE_MOVABLE, 0)
    page = pa.zone_page(zone, 0)
    pa.__free_one_page(page, 0, zone, order, MIGRATE_UNMOVABLE, 0)
    assert pa.__isolate_free_page(page, order) == 1 << order
    assert pa.get_pageblock_migratetype(page) == mt
    pa.validate_zone(zone)


# ---- per-CPU lists -------------------------------------------------------------------------------


def test_limits_while_reclaim_is_active_or_below_high() -> None:
    zone = bare_zone(1 << 20)
    pcp = zone.per_cpu_pageset[0]
    pa.pageset_update(pcp, 300, 2000, 63)
    pcp.high, pcp.free_count = 1000, 200
    zone.flags = 1 << ZONE_RECLAIM_ACTIVE
    assert pa.nr_pcp_high(pcp, zone, 63, False) == 252 and pcp.high == 800
    zone.flags = 1 << ZONE_BELOW_HIGH
    assert pa.nr_pcp_high(pcp, zone, 63, False) == 300 and pcp.high == 600
    pcp.count = 500
    assert pa.nr_pcp_high(pcp, zone, 63, False) == 500 and pcp.high == 400
    zone.flags = 0
    pcp.free_count = 400
    assert pa.nr_pcp_high(pcp, zone, 63, False) == 400 and pcp.high == 463
    assert pa.nr_pcp_high(pcp, zone, 63, True) == 0 and pcp.high == 300
    pa.pageset_update(pcp, 700, 700, 63)
    assert pa.nr_pcp_high(pcp, zone, 63, False) == 700


def test_free_high_orders_in_a_row_go_back_in_bulk() -> None:
    zone = bare_zone(1 << 20)
    m = zone.machine
    pages = [pa.alloc_pages(m, GFP_KERNEL, 3) for _ in range(60)]
    pcp = zone.per_cpu_pageset[0]
    with m.trace.record("kmem:mm_page_pcpu_drain") as log:
        freed = 0
        while not log:
            pa.__free_pages(pages[freed], 3)
            freed += 1
    # The counter reaches a batch of 63 with the eighth; the ninth finds it there.
    assert freed == 9 and pcp.count == 0
    m.per_cpu_data_slice_size = 1 << 30
    pa.setup_pcp_cacheinfo(m, 0)
    assert pcp.flags & PCPF_FREE_HIGH_BATCH
    m.per_cpu_data_slice_size = 0
    pa.setup_pcp_cacheinfo(m, 0)
    assert not pcp.flags & PCPF_FREE_HIGH_BATCH


def test_huge_pages_stay_on_lists_of_their_own() -> None:
    zone = bare_zone(1 << 18)
    m = zone.machine
    folios = [pa.folio_alloc(m, gfp, 9) for gfp in (GFP_KERNEL, GFP_HIGHUSER_MOVABLE)]
    pa.drain_all_pages(m)
    pa.pageset_update(zone.per_cpu_pageset[0], 4000, 8000, 63)
    for folio in folios:
        folio_put(folio)
    lists = zone.per_cpu_pageset[0].lists
    assert [list(lists[12]), list(lists[13])] == [[folios[0]], [folios[1]]]
    assert pa.alloc_pages(m, GFP_HIGHUSER_MOVABLE, 9) is folios[1]


def test_batches_of_folios_that_do_not_fit_per_cpu_lists() -> None:
    zone = bare_zone(1 << 18)
    m = zone.machine
    isolated = pa.alloc_pages(m, GFP_HIGHUSER_MOVABLE, 0)
    reserved = pa.alloc_pages(m, GFP_KERNEL, 0)
    poisoned = pa.alloc_pages(m, GFP_KERNEL, 0)
    pa.drain_all_pages(m)
    pa.move_freepages_block(zone, isolated, MIGRATE_MOVABLE, MIGRATE_ISOLATE)
    pa.move_freepages_block(zone, reserved, MIGRATE_UNMOVABLE, MIGRATE_HIGHATOMIC)
    poisoned.flags |= 1 << PG_hwpoison
    for page in (isolated, reserved, poisoned):
        page._refcount = 0
    pa.free_unref_folios([isolated, reserved, poisoned])
    assert list(zone.per_cpu_pageset[0].lists[MIGRATE_MOVABLE]) == [reserved]
    assert blocks(zone, 9, MIGRATE_ISOLATE) == [isolated.pfn & -512]


def test_a_zone_without_pagesets_works_straight_on_the_free_lists() -> None:
    zone = bare_zone(1024)
    zone.per_cpu_pageset = []
    m = zone.machine
    page = pa.alloc_pages(m, GFP_KERNEL, 0)
    pa.__free_pages(page, 0)
    pa.drain_all_pages(m)
    assert zone.vm_stat[NR_FREE_PAGES] == 1024
    pa.zone_pcp_init(zone)
    assert zone.per_cpu_pageset[0].batch == 1
    page = pa.alloc_pages(m, GFP_KERNEL, 0)
    pa.__free_pages(page, 0)
    assert zone.per_cpu_pageset[0].count == 0
    pa.drain_local_pages(m, zone)
    pa.validate_zone(zone)


def test_limits_when_cpus_come_and_go() -> None:
    zone = bare_zone(1 << 20, cpus=4)
    m = zone.machine
    zone._watermark[:] = [1000, 12000, 23000, 34000]
    pa.page_alloc_cpu_online(m, 0)
    assert zone.pageset_high_min == 12000 // (len(pa.cpumask_of_node(m, 0)) + 1)
    m.node_to_cpumask_ready = True
    pa.page_alloc_cpu_dead(m, 3)
    assert zone.pageset_high_min == 3000
    m.cpu_to_node = [1, 1, 1, 1]  # a node without CPUs: all of them share
    m.num_online_cpus = 2
    pa.zone_set_pageset_high_and_batch(zone, 0)
    assert zone.pageset_high_min == 6000


def test_init_per_zone_wmark_min() -> None:
    zone = bare_zone(1 << 20)
    m = zone.machine
    pa.init_per_zone_wmark_min(m)
    assert m.min_free_kbytes == 8192 and zone._watermark[WMARK_HIGH] == 2048 + 2 * 1048
    assert m.node_data[0].min_unmapped_pages == (1 << 20) // 100
    assert m.node_data[0].min_slab_pages == (1 << 20) * 5 // 100


def test_watermark_boost_factor() -> None:
    m = bare_zone(1024).machine
    assert pa.watermark_boost_factor_sysctl_handler(m, True, -1) == -EINVAL
    assert pa.watermark_boost_factor_sysctl_handler(m, True, 0) == 0
    assert m.watermark_boost_factor == 0
    assert pa.watermark_boost_factor_sysctl_handler(m, False) == 0


# ---- NUMA ----------------------------------------------------------------------------------------


def two_nodes() -> Machine:
    return Machine.boot("2G", nodes=["1G", "1G"], cpus=2, distances={(0, 1): 20})


@pytest.fixture(scope="module")
def numa() -> Machine:
    return two_nodes()


def test_numa_counters_and_thisnode(numa: Machine) -> None:
    m = numa
    m.this_cpu = 0
    zones = {z.node: z for p in m.node_data.values() for z in p.node_zones if z.managed_pages}
    remote = 1 - m.cpu_to_node[0]
    before = list(zones[remote].vm_numa_event)
    page = pa.alloc_pages_node(m, remote, GFP_KERNEL | __GFP_THISNODE, 0)
    assert page is not None and page.zone.node == remote
    zone = page.zone
    changed = [a - b for a, b in zip(zone.vm_numa_event, before, strict=True)]
    assert changed[NUMA_HIT] == 1 and changed[NUMA_OTHER] == 1 and changed[NUMA_LOCAL] == 0
    assert pa.alloc_pages_node(m, pa.NUMA_NO_NODE, GFP_KERNEL, 0).zone.node == m.cpu_to_node[0]
    page = pa.__alloc_pages(m, GFP_KERNEL, 0, 0, 1 << 1)
    assert page is not None and page.zone.node == 1


def test_a_full_node_overflows_and_counts_a_miss() -> None:
    m = two_nodes()
    m.this_cpu = 0
    local = m.cpu_to_node[0]
    home = [z for z in m.node_data[local].node_zones if z.managed_pages]
    for zone in home:
        zone._watermark[:] = [1 << 30] * 4
    page = pa.alloc_pages(m, GFP_KERNEL, 0)
    assert page is not None and page.zone.node != local
    assert page.zone.vm_numa_event[NUMA_MISS] >= 1
    assert sum(z.vm_numa_event[NUMA_FOREIGN] for z in home) >= 1
    # alloc_pages_bulk() does not leave the node in bulk, it takes one page.
    assert pa.alloc_pages_bulk(m, GFP_KERNEL, local, None, 5, pa.ListHead()) == 1


def test_node_reclaim_may_lift_a_zone_above_its_mark() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    zone._watermark[:] = [2000, 2000, 2000, 2000]
    m.node_reclaim_mode = 1
    assert pa.alloc_pages(m, GFP_KERNEL | __GFP_NOWARN, 0) is None  # it does not scan by default

    def node_reclaim(pgdat: object, gfp_mask: int, order: int) -> int:
        zone._watermark[:] = [10, 10, 10, 10]
        return NODE_RECLAIM_SUCCESS

    m.hooks.node_reclaim = node_reclaim
    with m.trace.record("model:zone_tried") as log:
        assert pa.alloc_pages(m, GFP_KERNEL, 0) is not None
    # The mark is read before reclaim, as in the kernel, so this pass still fails on it.
    assert log[-1].fields["result"] in ("ok", "reclaimed")


def test_dirty_limits_are_asked_once_per_node_and_only_in_the_fast_path() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    asked = []
    m.hooks.node_dirty_ok = lambda pgdat: asked.append(pgdat) is not None
    assert pa.alloc_pages(m, GFP_HIGHUSER_MOVABLE | __GFP_WRITE, 0) is not None
    assert asked == [zone.zone_pgdat]


def test_nodes_without_cpus_are_preferred_once_cpus_are_known() -> None:
    m = two_nodes()
    m.node_to_cpumask_ready = True
    used: list[int] = [0]
    assert pa.find_next_best_node(m, 0, used) == 1 and used == [0, 1]
    assert pa.find_next_best_node(m, 0, used) == -1


def test_nofragment_needs_dma32_on_the_node() -> None:
    m = two_nodes()
    for pgdat in m.node_data.values():
        normal = pgdat.node_zones[ZONE_NORMAL]
        expected = ALLOC_NOFRAGMENT if pgdat.node_zones[ZONE_DMA32].present_pages else 0
        assert pa.alloc_flags_nofragment(normal, 0) == expected
        assert pa.alloc_flags_nofragment(pgdat.node_zones[ZONE_DMA32], GFP_KERNEL) == ALLOC_KSWAPD
    assert pa.alloc_flags_nofragment(None, 0) == 0


# ---- scopes and reserves -------------------------------------------------------------------------


def test_pin_scope_keeps_out_of_zone_movable_and_noio_beats_nofs() -> None:
    m = bare_zone(1024).machine
    flags = pa.memalloc_flags_save(m, PF_MEMALLOC_PIN | PF_MEMALLOC_NOIO)
    assert pa.current_gfp_context(m, GFP_KERNEL | __GFP_MOVABLE) == GFP_NOIO
    assert pa.memalloc_flags_save(m, PF_MEMALLOC_PIN) == 0
    pa.memalloc_flags_restore(m, flags)
    task = SimpleNamespace(flags=PF_MEMALLOC_NOIO, comm="sh", pid=7)
    m.current = task
    assert pa.current_gfp_context(m, GFP_KERNEL) == GFP_NOIO


def test_reserve_flags() -> None:
    m = bare_zone(1024).machine
    flags = pa.__gfp_pfmemalloc_flags
    assert flags(m, GFP_KERNEL | __GFP_MEMALLOC) == ALLOC_NO_WATERMARKS
    assert flags(m, GFP_KERNEL | __GFP_MEMALLOC | __GFP_NOMEMALLOC) == 0
    assert not pa.gfp_pfmemalloc_allowed(m, GFP_KERNEL)
    m.hooks.tsk_is_oom_victim = lambda task: True
    assert flags(m, GFP_KERNEL) == ALLOC_OOM


def exhausted() -> tuple[Machine, Zone, list[Page]]:
    zone = bare_zone(1024)
    pages = take_all(zone)
    zone._watermark[:] = [10, 20, 30, 40]
    return zone.machine, zone, pages


def test_compaction_that_captures_a_page_or_frees_one() -> None:
    m, zone, pages = exhausted()
    captured = pages[0]
    captured._refcount = 0
    m.hooks.try_to_compact_pages = lambda *args: (COMPACT_SUCCESS, captured)
    zone.compact_defer_shift = 3
    assert pa.alloc_pages(m, GFP_KERNEL | __GFP_COMP, 1) is captured
    assert folio_order(captured) == 1 and captured._refcount == 1
    assert (zone.compact_defer_shift, zone.compact_order_failed) == (0, 2)
    assert m.vm_event[COMPACTSTALL] == m.vm_event[COMPACTSUCCESS] == 1
    m.hooks.try_to_compact_pages = lambda *args: (COMPACT_COMPLETE, None)
    assert pa.alloc_pages(m, GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY, 1) is None
    assert m.vm_event[COMPACTFAIL] == 2


def test_costly_requests_that_do_not_retry() -> None:
    m, _, _ = exhausted()
    gfp = GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY

    def steps(gfp: int, result: int) -> list[str]:
        m.hooks.try_to_compact_pages = lambda *args: (result, None)
        with m.trace.record("model:slowpath") as log:
            pa.alloc_pages(m, gfp, 4)
        return [e.fields["step"] for e in log]

    assert "retry" not in steps(gfp, COMPACT_DEFERRED)
    assert "retry" not in steps(gfp | __GFP_THISNODE, COMPACT_COMPLETE)
    assert "retry" in steps(gfp, COMPACT_COMPLETE)


def test_costly_compaction_retries_four_times() -> None:
    m, _, _ = exhausted()
    prios = []
    m.hooks.try_to_compact_pages = lambda m, g, o, f, ac, prio: (
        prios.append(prio) or COMPACT_SUCCESS,
        None,
    )
    m.hooks.try_to_free_pages = lambda *args: 1
    gfp = GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN
    assert pa.alloc_pages(m, gfp, 4) is None
    assert prios == [2] + [1] * 5  # async first, then at most 4 successes without a page


def test_a_dying_task_does_not_wait_for_compaction() -> None:
    """fatal_signal_pending() ends the retries of should_compact_retry() at once."""
    m, _, _ = exhausted()
    prios = []
    m.hooks.try_to_compact_pages = lambda m, g, o, f, ac, prio: (
        prios.append(prio) or COMPACT_SUCCESS,
        None,
    )
    m.hooks.try_to_free_pages = lambda *args: 1
    m.init_task.fatal_signal = True
    gfp = GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN
    with m.trace.record("oom:compact_retry") as log:
        assert pa.alloc_pages(m, gfp, 4) is None
    assert prios == [2, 1] and not log


def test_oom_is_not_asked_where_it_cannot_help() -> None:
    m, _, _ = exhausted()
    asked = []
    m.hooks.out_of_memory = lambda m, oc: bool(asked.append(oc))
    for gfp in (GFP_KERNEL | __GFP_RETRY_MAYFAIL, GFP_KERNEL | __GFP_THISNODE):
        pa.alloc_pages(m, gfp | __GFP_NOWARN, 0)
    pa.alloc_pages(m, GFP_KERNEL | __GFP_NOWARN | __GFP_DMA32, 0)
    m.init_task.flags |= PF_DUMPCORE
    pa.alloc_pages(m, GFP_KERNEL | __GFP_NOWARN, 0)
    assert not asked
    m.init_task.flags = 0
    pa.alloc_pages(m, GFP_KERNEL | __GFP_NOWARN, 0)
    assert len(asked) == 1


def test_an_oom_victim_gives_up_when_its_reserve_is_used_up() -> None:
    m, _, _ = exhausted()
    m.hooks.tsk_is_oom_victim = lambda task: True
    m.hooks.out_of_memory = lambda m, oc: True
    assert pa.alloc_pages(m, GFP_KERNEL | __GFP_NOWARN, 0) is None


def test_memory_freed_by_another_oom_kill_is_found_at_the_high_mark() -> None:
    m, _, pages = exhausted()
    m.hooks.out_of_memory = lambda m, oc: pytest.fail("there is memory again")

    def reclaim(*args: object) -> int:
        for page in pages:
            pa.__free_pages(page, 0)
        pa.drain_all_pages(m)
        return 0

    m.hooks.try_to_free_pages = reclaim
    assert pa.alloc_pages(m, GFP_KERNEL, 0) is not None


def test_nofail_gets_part_of_the_reserve_and_warns_on_large_orders() -> None:
    m, zone, pages = exhausted()
    m.hooks.out_of_memory = lambda m, oc: False
    freed = pages[:7]
    for page in freed:
        pa.__free_pages(page, 0)
    pa.drain_all_pages(m)
    with m.trace.record("model:slowpath", "model:warn") as log:
        assert pa.alloc_pages(m, GFP_KERNEL | __GFP_NOFAIL, 0) in freed
    assert any(e.name == "model:warn" for e in log)  # the OOM killer found nobody
    gfp = (GFP_KERNEL | __GFP_NOFAIL | __GFP_NOWARN) & ~0x400  # no __GFP_DIRECT_RECLAIM
    assert pa.alloc_pages(m, gfp, 4) is None
    assert "WARNING: WARN_ON_ONCE(order > 1)" in m.dmesg
    assert "WARNING: WARN_ON_ONCE(!can_direct_reclaim)" in m.dmesg
    assert not any("PF_MEMALLOC" in line for line in m.dmesg)
    m.init_task.flags |= PF_MEMALLOC
    pa.alloc_pages(m, gfp, 4)
    m.init_task.flags = 0
    assert "WARNING: WARN_ON_ONCE(current->flags & PF_MEMALLOC)" in m.dmesg
    assert zone.vm_stat[NR_FREE_PAGES] == 6


# ---- addresses, bulk, contiguous -----------------------------------------------------------------


def test_get_free_pages_and_zeroing() -> None:
    zone = bare_zone(1024)
    m = zone.machine
    m.init_on_alloc = False
    with m.trace.record("model:kernel_init_pages") as log:
        addr = pa.get_free_pages(m, GFP_KERNEL | __GFP_HIGHMEM, 2)
        assert addr == pa.page_address(pa.virt_to_page(m, addr)) and not log
        zeroed = pa.get_zeroed_page(m, GFP_KERNEL)
    assert [e.fields["numpages"] for e in log] == [1]
    pa.free_pages(m, addr, 2)
    pa.free_pages(m, zeroed, 0)
    pa.free_pages(m, 0, 0)
    take_all(zone)
    assert pa.get_free_pages(m, GFP_KERNEL | __GFP_NOWARN, 0) == 0
    assert pa.alloc_pages_exact(m, 100, GFP_KERNEL | __GFP_NOWARN) == 0


def test_alloc_pages_exact_takes_no_compound_pages() -> None:
    m = bare_zone(1024).machine
    assert pa.alloc_pages_exact(m, 4096, GFP_KERNEL | __GFP_COMP) != 0
    assert "__GFP_COMP" in m.dmesg[-1]


def test_bulk_falls_back_to_a_single_page() -> None:
    m, zone, pages = exhausted()
    array: list[Page | None] = [None, None]
    assert pa.alloc_pages_bulk(m, GFP_KERNEL | __GFP_NOWARN, 0, None, 2, page_array=array) == 0
    zone._watermark[:] = [0, 0, 0, 0]
    pa.__free_pages(pages[0], 0)
    pa.drain_all_pages(m)  # pages on per-CPU lists do not count as free
    assert pa.alloc_pages_bulk(m, GFP_KERNEL, 0, None, 1, page_array=[None]) == 1
    assert pa.alloc_pages_bulk(m, GFP_KERNEL | __GFP_NOWARN, 0, None, 3, pa.ListHead()) == 0


def test_contig_compound_pages_must_be_a_power_of_two_and_freed_as_one() -> None:
    zone = bare_zone(4096)
    m = zone.machine
    contig = pa.alloc_contig_range
    assert contig(m, 1024, 1600, MIGRATE_MOVABLE, GFP_KERNEL | __GFP_COMP) == -EINVAL
    assert "requested [1024, 1600)" in m.dmesg[-1]
    assert contig(m, 2048, 2560, MIGRATE_MOVABLE, GFP_KERNEL | __GFP_COMP) == 0
    pa.free_contig_range(m, 2048, 100)
    assert "nr_pages 100 != expected 512" in m.dmesg[-1]
    pfn_to_page(m, 3100)._refcount = 0
    assert contig(m, 3100, 3102, MIGRATE_MOVABLE, GFP_KERNEL) == 0
    pfn_to_page(m, 3101)._refcount = 2
    pa.free_contig_range(m, 3100, 2)
    assert "1 pages are still in use!" in m.dmesg[-1]


def test_contig_pages_avoid_reserved_pages() -> None:
    zone = bare_zone(2048, free=False)
    pfn_to_page(zone.machine, 5).flags |= 1 << PG_reserved
    assert not pa.pfn_range_valid_contig(zone.machine, zone, 0, 6)
    assert not pa.pfn_range_valid_contig(zone.machine, zone, 2047, 2)
    assert pa.pfn_range_valid_contig(zone.machine, zone, 6, 100)


def test_isolating_a_free_page_respects_the_min_mark() -> None:
    zone = bare_zone(1024)
    zone._watermark[0] = 10
    page = zone.mem_map[0]
    assert pa.__isolate_free_page(page, 10) == 0
    zone.vm_stat[NR_FREE_PAGES] += 11
    assert pa.__isolate_free_page(page, 10) == 1024
    assert pa.zone_watermark_ok_safe(zone, 0, 5, ZONE_MOVABLE)
    assert not pa.zone_watermark_ok_safe(zone, 0, 11, ZONE_MOVABLE)


def test_validate_zone_on_corrupted_lists() -> None:
    zone = bare_zone(4096)
    head = zone.free_area[10].free_list[MIGRATE_MOVABLE]
    last, head.prev = head.prev, head.next
    with pytest.raises(KernelBug, match="the head's prev"):
        pa.validate_zone(zone)
    head.prev = last
    pa.validate_zone(zone)


def free_block_over(zone: Zone) -> None:
    """Put pages 0 and 1 on a free list as one block, though page 1 waits on a per-CPU list."""
    page = pa.zone_page(zone, 0)
    page._refcount = 0
    pa.__add_to_free_list(page, zone, 1, pa.get_pageblock_migratetype(page), False)
    pa.set_buddy_order(page, 1)
    pa.account_freepages(zone, 2, pa.get_pageblock_migratetype(page))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda z, p: setattr(p, "_refcount", 1), "not a page waiting for use"),
        (lambda z, p: setattr(p, "pfn", 7), "does not belong there"),
        (lambda z, p: free_block_over(z), "is free twice"),
        (lambda z, p: setattr(p, "next", p), "list corruption|has a loop"),
    ],
)
def test_validate_zone_on_per_cpu_lists(damage, text: str) -> None:  # type: ignore[no-untyped-def]
    zone = bare_zone(1 << 18)
    _, page = (pa.alloc_pages(zone.machine, GFP_KERNEL, 0) for _ in range(2))
    assert page is not None and page.pfn == 1
    pa.__free_pages(page, 0)
    pa.validate_zone(zone)
    damage(zone, page)
    with pytest.raises(KernelBug, match=text):
        pa.validate_zone(zone)
