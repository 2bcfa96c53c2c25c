"""One contract for both reclaimers, and the formulas of each."""

from __future__ import annotations

import random

import pytest

from mmcore.arch.x86.fault import touch
from mmcore.kernel.cgroup import cgroup
from mmcore.kernel.fork import do_exit, kernel_clone, spawn, switch_to
from mmcore.machine import Machine, bare_zone
from mmcore.mm import filemap, memcontrol, mlock, mmap, page_alloc, swap, swapfile, vmscan
from mmcore.mm import mm_inline as inline
from mmcore.mm.gfp import GFP_HIGHUSER_MOVABLE
from mmcore.mm.memory import validate_mappings
from mmcore.mm.page_flags import PG_uptodate
from mmcore.mm.vmstat import (
    KSWAPD_LOW_WMARK_HIT_QUICKLY,
    NR_ACTIVE_ANON,
    NR_ACTIVE_FILE,
    NR_FILE_PAGES,
    NR_FREE_PAGES,
    NR_INACTIVE_ANON,
    NR_INACTIVE_FILE,
    NR_ISOLATED_ANON,
    NR_ISOLATED_FILE,
    PAGEOUTRUN,
    PGMAJFAULT,
    PGSCAN_ANON,
    PGSCAN_DIRECT,
    PGSCAN_FILE,
    PGSCAN_KSWAPD,
    PGSTEAL_ANON,
    PGSTEAL_DIRECT,
    PGSTEAL_FILE,
    PGSTEAL_KSWAPD,
    PSWPIN,
    PSWPOUT,
    SLABS_SCANNED,
    SWAP_RA,
    SWAP_RA_HIT,
    THP_SWPOUT,
    WORKINGSET_REFAULT_ANON,
    WORKINGSET_REFAULT_FILE,
)
from mmcore.proc import capture

RAM = 4096
RW = mmap.PROT_READ | mmap.PROT_WRITE
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_NORESERVE
BOTH = pytest.mark.parametrize("mglru", [False, True], ids=["lists", "generations"])


def machine(mglru: bool, *, swap_pages: int = 0, synchronous: bool = True) -> Machine:
    m = bare_zone(4096).machine
    page_alloc.init_per_zone_wmark_min(m)
    m.lru_gen_caps = 7 if mglru else 0
    m.transparent_hugepage_enabled = "never"
    if swap_pages:
        swapfile.swapon(m, swap_pages, synchronous=synchronous)
    vmscan.kswapd_init(m)
    return m


def free_pages(m: Machine) -> int:
    zones = [z for pgdat in m.node_data.values() for z in pgdat.node_zones]
    return sum(z.vm_stat[NR_FREE_PAGES] for z in zones)


def check_lists(m: Machine) -> None:
    swap.lru_add_drain_all(m)
    inline.validate_lrus(m)
    swapfile.validate_swap(m)
    validate_mappings(m)


def check(m: Machine) -> None:
    check_lists(m)
    stat = m.node_data[0].vm_stat
    assert stat[NR_ISOLATED_ANON] == stat[NR_ISOLATED_FILE] == 0
    e = m.vm_event
    assert e[PGSTEAL_KSWAPD] + e[PGSTEAL_DIRECT] == e[PGSTEAL_ANON] + e[PGSTEAL_FILE]
    assert e[PGSCAN_KSWAPD] + e[PGSCAN_DIRECT] == e[PGSCAN_ANON] + e[PGSCAN_FILE]
    assert e[PGSTEAL_ANON] <= e[PGSCAN_ANON] and e[PGSTEAL_FILE] <= e[PGSCAN_FILE]


@BOTH
def test_a_file_larger_than_memory_is_read_by_evicting_it(mglru: bool) -> None:
    m = machine(mglru)
    task = spawn(m)
    assert task.mm is not None
    pages = RAM + 2000
    mapping = filemap.AddressSpace(pages * 4096, "big")
    addr = mmap.sys_mmap(
        task.mm, 0, pages * 4096, mmap.PROT_READ, mmap.MAP_SHARED, filemap.File(mapping), 0
    )
    for i in range(pages):
        touch(m, addr + i * 4096, "r")
    check(m)
    assert m.vm_event[PGSTEAL_FILE] > 2000 and m.vm_event[PAGEOUTRUN] > 0
    assert m.vm_event[PGSTEAL_ANON] == 0 == m.vm_event[PSWPOUT]
    touch(m, addr + next(iter(mapping.i_shadows)) * 4096, "r")
    assert m.node_data[0].vm_stat[WORKINGSET_REFAULT_FILE] > 0
    assert mapping.nrpages + len(mapping.i_shadows) == pages


@BOTH
@pytest.mark.parametrize("synchronous", [False, True])
def test_more_anonymous_memory_than_ram_goes_to_swap_and_comes_back(
    mglru: bool, synchronous: bool
) -> None:
    m = machine(mglru, swap_pages=8192, synchronous=synchronous)
    task = spawn(m)
    assert task.mm is not None
    pages = RAM + 500
    addr = mmap.sys_mmap(task.mm, 0, pages * 4096, RW, PRIVATE, None, 0)
    for _ in range(2):
        for i in range(pages):
            touch(m, addr + i * 4096, "w")
    check(m)
    assert m.vm_event[PSWPOUT] > 500 and m.vm_event[PSWPIN] > 0 < m.vm_event[PGMAJFAULT]
    assert m.node_data[0].vm_stat[WORKINGSET_REFAULT_ANON] > 0
    used = m.total_swap_pages - m.nr_swap_pages
    assert used > 0
    do_exit(task)
    check(m)
    for cache in m.swap.swp_slots.values():  # what is left are slots that CPUs keep
        used = m.total_swap_pages - m.nr_swap_pages - len(cache.slots) - len(cache.slots_ret)
    assert used == 0
    stat = m.node_data[0].vm_stat
    assert not any(stat[i] for i in (NR_INACTIVE_ANON, NR_ACTIVE_ANON, NR_INACTIVE_FILE))


@BOTH
def test_without_swap_anonymous_memory_stays(mglru: bool) -> None:
    m = machine(mglru)
    task = spawn(m)
    assert task.mm is not None
    addr = mmap.sys_mmap(task.mm, 0, 1500 * 4096, RW, PRIVATE, None, 0)
    for i in range(1500):
        touch(m, addr + i * 4096, "w")
    mapping = filemap.AddressSpace(6400 * 4096, "stream")
    for i in range(0, 6400, 32):
        filemap.populate(m, mapping, i, 32)
    check(m)
    assert m.vm_event[PGSTEAL_ANON] == 0 < m.vm_event[PGSTEAL_FILE]
    stat = m.node_data[0].vm_stat
    assert stat[NR_INACTIVE_ANON] + stat[NR_ACTIVE_ANON] == 1500


@BOTH
def test_a_stream_does_not_push_out_what_is_used(mglru: bool) -> None:
    m = machine(mglru, swap_pages=16384)
    task = spawn(m)
    assert task.mm is not None
    addr = mmap.sys_mmap(task.mm, 0, 600 * 4096, RW, PRIVATE, None, 0)
    mapping = filemap.AddressSpace(12000 * 4096, "stream")
    faults = 0
    for i in range(0, 12000, 50):
        filemap.populate(m, mapping, i, 50)
        for n in range(0, 600, 10):
            before = m.vm_event[PGMAJFAULT]
            touch(m, addr + (i // 50 % 10 + n) * 4096, "w")
            faults += m.vm_event[PGMAJFAULT] - before
    check(m)
    assert m.vm_event[PGSTEAL_FILE] > 5000 and faults < 60


@BOTH
def test_memory_that_is_locked_is_never_taken(mglru: bool) -> None:
    m = machine(mglru, swap_pages=8192)
    task = spawn(m)
    assert task.mm is not None
    locked = mmap.sys_mmap(task.mm, 0, 500 * 4096, RW, PRIVATE, None, 0)
    assert mlock.sys_mlock(task.mm, locked, 500 * 4096) == 0
    addr = mmap.sys_mmap(task.mm, 0, RAM * 4096, RW, PRIVATE, None, 0)
    for i in range(RAM):
        touch(m, addr + i * 4096, "w")
    check(m)
    before = m.vm_event[PGMAJFAULT]
    for i in range(500):
        touch(m, locked + i * 4096, "r")
    assert m.vm_event[PGMAJFAULT] == before


@BOTH
def test_kswapd_gives_up_after_16_runs_without_progress(mglru: bool) -> None:
    m = machine(mglru)
    task = spawn(m)
    assert task.mm is not None
    addr = mmap.sys_mmap(task.mm, 0, RAM * 4096, RW, PRIVATE, None, 0)
    for i in range(RAM):
        touch(m, addr + i * 4096, "w")
        if m.node_data[0].kswapd_failures == 16:
            break
    pgdat = m.node_data[0]
    for _ in range(40):
        vmscan.wakeup_kswapd(pgdat.node_zones[2], 0, 0, 2)
    assert pgdat.kswapd_failures == 16
    runs = m.vm_event[PAGEOUTRUN]
    vmscan.wakeup_kswapd(pgdat.node_zones[2], 0, 0, 2)
    assert m.vm_event[PAGEOUTRUN] == runs


@BOTH
def test_random_work_under_pressure_keeps_everything_counted(mglru: bool) -> None:
    m = machine(mglru, swap_pages=3000)
    rng = random.Random(11)
    mapping = filemap.AddressSpace(4000 * 4096, "file")
    tasks = [spawn(m, f"t{i}") for i in range(2)]
    areas: dict[int, tuple[int, int]] = {}
    for task in tasks:
        assert task.mm is not None
        anon = mmap.sys_mmap(task.mm, 0, 2500 * 4096, RW, PRIVATE, None, 0)
        file = mmap.sys_mmap(
            task.mm, 0, 4000 * 4096, mmap.PROT_READ, mmap.MAP_SHARED, filemap.File(mapping), 0
        )
        areas[task.pid] = anon, file
    for step in range(12000):
        task = rng.choice(tasks)
        switch_to(m, task)
        assert task.mm is not None
        anon, file = areas[task.pid]
        what = rng.random()
        if what < 0.6:
            touch(m, anon + int(rng.random() ** 2 * 2500) * 4096, rng.choice("rww"))
        elif what < 0.98:
            touch(m, file + int(rng.random() ** 2 * 4000) * 4096, "r")
        elif what < 0.99:
            start = rng.randrange(2490)
            mmap.sys_munmap(task.mm, anon + start * 4096, 4096)
            flags = PRIVATE | mmap.MAP_FIXED
            mmap.sys_mmap(task.mm, anon + start * 4096, 4096, RW, flags, None, 0)
        elif what < 0.9905 and len(tasks) < 4:
            child = kernel_clone(task)
            assert not isinstance(child, int)
            areas[child.pid] = areas[task.pid]
            tasks.append(child)
        elif what < 0.991 and len(tasks) > 2:
            tasks.remove(task)
            do_exit(task)
        if step % 3000 == 2999:
            check(m)
            if step > 6000:
                vmscan.lru_gen_change_state(m, not inline.lru_gen_enabled(m))
                check(m)
    assert m.vm_event[PSWPOUT] > 100 and m.vm_event[PGSTEAL_FILE] > 1000
    for task in tasks:
        do_exit(task)
    filemap.truncate_setsize(m, mapping, 0)
    check(m)
    stat = m.node_data[0].vm_stat
    items = NR_INACTIVE_ANON, NR_ACTIVE_ANON, NR_INACTIVE_FILE, NR_ACTIVE_FILE
    assert [stat[i] for i in items] == [0, 0, 0, 0]


def test_how_the_scan_is_shared() -> None:
    assert vmscan.scan_fractions(60, 0, 0) == (60, 140)
    assert vmscan.scan_fractions(60, 1000, 1000) == (119, 279)
    m = machine(False, swap_pages=8192)
    pgdat = m.node_data[0]
    lruvec = inline.node_lruvec(pgdat)
    for zone in pgdat.node_zones:
        zone.vm_stat[1] = zone.vm_stat[3] = 0
    zone = pgdat.node_zones[2]
    zone.vm_stat[1], zone.vm_stat[3] = 204800, 51200
    sc = vmscan.ScanControl()
    assert vmscan.get_scan_count(lruvec, sc)[0::2] == [15, 8, 0]
    sc.anon_cost = sc.file_cost = 1000
    assert vmscan.get_scan_count(lruvec, sc)[0::2] == [14, 8, 0]
    sc.cache_trim_mode = True
    assert vmscan.get_scan_count(lruvec, sc)[0::2] == [0, 12, 0]
    sc.file_is_tiny = True
    assert vmscan.get_scan_count(lruvec, sc)[0::2] == [50, 0, 0]
    sc.priority = 0
    assert vmscan.get_scan_count(lruvec, sc)[0::2] == [204800, 51200, 0]
    m.nr_swap_pages = 0
    assert vmscan.get_scan_count(lruvec, sc)[0::2] == [0, 51200, 0]


def test_when_the_inactive_list_is_low() -> None:
    m = machine(False)
    lruvec = inline.node_lruvec(m.node_data[0])
    stat = m.node_data[0].vm_stat
    for inactive, active, low in ((100, 100, False), (99, 100, True)):
        stat[NR_INACTIVE_FILE], stat[NR_ACTIVE_FILE] = inactive, active
        assert vmscan.inactive_is_low(lruvec, 2) is low
    # 4 GiB: isqrt(40) = 6.
    stat[NR_INACTIVE_FILE], stat[NR_ACTIVE_FILE] = 150000, 900000
    assert not vmscan.inactive_is_low(lruvec, 2)
    stat[NR_ACTIVE_FILE] = 900001
    assert vmscan.inactive_is_low(lruvec, 2)


def test_which_tier_is_protected() -> None:
    err = vmscan.positive_ctrl_err
    assert err((0, 0, 2), (63, 10, 2))
    assert not err((0, 0, 2), (64, 10, 2))
    assert err((1000, 1000, 1), (64, 1000, 2))


def test_a_shrinkers_share() -> None:
    m = machine(False)
    asked: list[int] = []

    def scan(_nid: int, nr: int) -> int:
        asked.append(nr)
        return nr

    shrinker = vmscan.Shrinker("dentry", lambda _nid: 10000, scan)
    assert vmscan.do_shrink_slab(m, shrinker, 0, 10) == 0  # 18 are deferred
    assert shrinker.nr_deferred[0] == 18
    assert vmscan.do_shrink_slab(m, shrinker, 0, 4) == 1152  # (625 * 4 / 2 + 18 >> 4) by 128
    assert asked == [128] * 9 and m.vm_event[SLABS_SCANNED] == 1152
    assert shrinker.nr_deferred[0] == 18 + 1250 - 1152


@BOTH
def test_the_events_of_one_direct_reclaim(mglru: bool) -> None:
    m = machine(mglru)
    mapping = filemap.AddressSpace(1500 * 4096, "file")
    filemap.populate(m, mapping, 0, 1500)
    swap.lru_add_drain(m)
    before = free_pages(m)
    zonelist = page_alloc.node_zonelist(m, 0, vmscan.gfp_.GFP_KERNEL)
    with m.trace.record("vmscan:*") as log:
        freed = vmscan.try_to_free_pages(m, zonelist, 0, vmscan.gfp_.GFP_KERNEL, None)
    page_alloc.drain_all_pages(m, None)
    assert freed >= 32 and free_pages(m) >= before + 32
    assert log[0].name.endswith("direct_reclaim_begin") and log[-1].fields["nr_reclaimed"] == freed
    isolated = [e.fields for e in log if e.name.endswith("lru_isolate")]
    assert all(f["lru"] == inline.LRU_INACTIVE_FILE for f in isolated if f["nr_taken"])
    shrunk = [e.fields for e in log if e.name.endswith("shrink_inactive")]
    assert sum(f["nr_reclaimed"] for f in shrunk) == freed
    assert all(f["reclaim_flags"] == 0xA for f in shrunk)  # RECLAIM_WB_FILE|RECLAIM_WB_ASYNC
    # The oldest go first: the head of the file.
    assert 0 not in mapping.i_pages and 1499 in mapping.i_pages


def test_batches_are_those_of_a_recorded_trace() -> None:
    m = machine(True)
    mapping = filemap.AddressSpace(5000 * 4096, "file")
    with m.trace.record("vmscan:*") as log:
        filemap.populate(m, mapping, 0, 5000)
    recorded = capture.load("n1-256m-pmem/reclaim").get("mglru_y_file_trace")
    assert recorded is not None
    isolated = [e.fields for e in log if e.name.endswith("lru_isolate")]
    full = [f for f in isolated if f["nr_taken"]]
    assert full
    for f in full:
        assert (
            f"order=0 nr_requested={f['nr_requested']} nr_scanned={f['nr_scanned']} nr_skipped="
            f"{f['nr_skipped']} nr_taken={f['nr_taken']} lru={inline.LRU_NAMES[f['lru']]}"
        ) in recorded
    # kswapd is woken again within its short sleep, both there and here.
    assert not any(e.name.endswith("kswapd_sleep") for e in log)
    assert m.vm_event[KSWAPD_LOW_WMARK_HIT_QUICKLY] > 1
    m.clock += 10**9
    with m.trace.record("vmscan:*") as log:
        filemap.populate(m, mapping, 0, 3000)
    assert sum(e.name.endswith("kswapd_sleep") for e in log) == 1


@BOTH
def test_huge_pages_are_swapped_whole(mglru: bool) -> None:
    m = machine(mglru, swap_pages=8192)
    m.transparent_hugepage_enabled = "always"
    task = spawn(m)
    assert task.mm is not None
    addr = mmap.sys_mmap(task.mm, 0, 5000 * 4096, RW, PRIVATE, None, 0)
    for i in range(5000):
        touch(m, addr + i * 4096, "w")
    check(m)
    si = m.swap.swap_info[0]
    assert any(ci.order == 9 and ci.count == 512 for ci in si.cluster_info)
    assert m.vm_event[THP_SWPOUT] * 512 <= m.vm_event[PSWPOUT] and m.vm_event[THP_SWPOUT] > 0
    for i in range(5000):
        touch(m, addr + i * 4096, "w")
    check(m)
    do_exit(task)
    check(m)


@BOTH
def test_a_groups_limit_takes_pages_of_that_group_only(mglru: bool) -> None:
    m = machine(mglru)
    memcontrol.mem_cgroup_init(m, "")
    spawn(m, "task")
    assert m.cgrp_dfl_root is not None
    top = m.cgrp_dfl_root.cgrp
    cgroup.cgroup_subtree_control_write(top, "+memory")
    groups = []
    for name in ("a", "b"):
        made = cgroup.cgroup_mkdir(top, name)
        assert not isinstance(made, int)
        groups.append(memcontrol.memcg_of(made))
    files = [filemap.AddressSpace(1000 * 4096, name) for name in ("a", "b")]
    for memcg, mapping in zip(groups, files, strict=True):
        for i in range(1000):
            folio = page_alloc.folio_alloc(m, GFP_HIGHUSER_MOVABLE, 0)
            assert folio is not None
            assert memcontrol.charge_memcg(folio, memcg, GFP_HIGHUSER_MOVABLE) == 0
            folio.mapping, folio.index = mapping, i
            folio.flags |= 1 << PG_uptodate
            mapping.i_pages[i] = folio
            m.node_data[0].vm_stat[NR_FILE_PAGES] += 1
            swap.folio_add_lru(folio)
    check(m)
    a = groups[0]
    freed = vmscan.try_to_free_mem_cgroup_pages(a, 100, GFP_HIGHUSER_MOVABLE, 0, None)
    assert freed >= 100 and len(files[0].i_pages) == 1000 - freed
    assert len(files[1].i_pages) == 1000 and m.vm_event[PGSTEAL_DIRECT] == 0
    inline.validate_lrus(m)
    assert a.memory.usage <= 1000 - freed + 64


@BOTH
def test_a_task_above_its_limit_swaps_its_own_memory(mglru: bool) -> None:
    m = machine(mglru, swap_pages=8192)
    memcontrol.mem_cgroup_init(m, "")
    task = spawn(m, "task")
    assert m.cgrp_dfl_root is not None and task.mm is not None
    top = m.cgrp_dfl_root.cgrp
    cgroup.cgroup_subtree_control_write(top, "+memory")
    made = cgroup.cgroup_mkdir(top, "g")
    assert not isinstance(made, int)
    memcg = memcontrol.memcg_of(made)
    assert memcontrol.memory_max_write(memcg, str(1000 * 4096)) > 0
    assert cgroup.cgroup_attach_task(made, task) == 0
    addr = mmap.sys_mmap(task.mm, 0, 1500 * 4096, RW, PRIVATE, None, 0)
    for _ in range(2):
        for i in range(1500):
            touch(m, addr + i * 4096, "w")
            assert memcg.memory.usage <= 1000
    swap.lru_add_drain_all(m)
    inline.validate_lrus(m)
    swapfile.validate_swap(m)
    validate_mappings(m)
    assert m.vm_event[PSWPOUT] >= 500 and m.vm_event[PSWPIN] >= 500
    assert m.vm_event[PAGEOUTRUN] == 0 == m.vm_event[PGSCAN_KSWAPD]  # memory was not short
    assert memcg.swap.usage >= 500
    do_exit(task)
    swap.lru_add_drain_all(m)
    cache = m.swap.swp_slots[0]  # slots that the CPU keeps stay charged until it gives them back
    assert memcg.swap.usage == len(cache.slots_ret)
    memcontrol.drain_all_stock(memcg)
    assert memcg.memory.usage == 0


@pytest.mark.parametrize("rotational", [False, True], ids=["by VMA", "by slot"])
def test_neighbours_are_read_in_advance(rotational: bool) -> None:
    m = bare_zone(2048).machine
    page_alloc.init_per_zone_wmark_min(m)
    m.transparent_hugepage_enabled = "never"
    swapfile.swapon(m, 4096, rotational=rotational, synchronous=False)
    vmscan.kswapd_init(m)
    task = spawn(m)
    assert task.mm is not None
    addr = mmap.sys_mmap(task.mm, 0, 2500 * 4096, RW, PRIVATE, None, 0)
    for _ in range(2):
        for i in range(2500):
            touch(m, addr + i * 4096, "w")
    check(m)
    ra, hits, major = (m.vm_event[i] for i in (SWAP_RA, SWAP_RA_HIT, PGMAJFAULT))
    # Windows of 8: of eight pages one is a major fault and seven are hits.
    assert hits > 1200 and hits <= ra and hits > 5 * major
    m.swap.page_cluster = 0
    for i in range(2500):
        touch(m, addr + i * 4096, "w")
    assert m.vm_event[SWAP_RA] == ra
    check(m)


@BOTH
def test_boosted_watermarks_are_paid_for_with_page_cache(mglru: bool) -> None:
    m = bare_zone(10000).machine
    page_alloc.init_per_zone_wmark_min(m)
    m.lru_gen_caps = 7 if mglru else 0
    swapfile.swapon(m, 8192)
    vmscan.kswapd_init(m)
    mapping = filemap.AddressSpace(8400 * 4096, "file")
    filemap.populate(m, mapping, 0, 8400)
    swap.lru_add_drain(m)
    zone = m.node_data[0].node_zones[2]
    zone.watermark_boost = 100
    vmscan.wakeup_kswapd(zone, 0, 0, 2)
    assert zone.watermark_boost == 0 and m.vm_event[PSWPOUT] == 0
    if mglru:
        # Generations are not touched by a reclaim that may not write: a run without progress.
        assert m.vm_event[PGSCAN_KSWAPD] == 0 and m.node_data[0].kswapd_failures == 1
    else:
        assert 100 <= m.vm_event[PGSTEAL_KSWAPD] < 200
    check(m)


@BOTH
def test_groups_forks_and_huge_pages_under_pressure(mglru: bool) -> None:
    m = machine(mglru, swap_pages=4000, synchronous=mglru)
    m.transparent_hugepage_enabled = "always" if mglru else "never"
    rng = random.Random(5)
    memcontrol.mem_cgroup_init(m, "")
    spawn(m, "init")
    assert m.cgrp_dfl_root is not None
    top = m.cgrp_dfl_root.cgrp
    cgroup.cgroup_subtree_control_write(top, "+memory")
    mapping = filemap.AddressSpace(4000 * 4096, "file")
    tasks, areas, groups = [], {}, []
    for name in ("a", "b", "c"):
        made = cgroup.cgroup_mkdir(top, name)
        assert not isinstance(made, int)
        groups.append(memcontrol.memcg_of(made))
        if name != "c":
            memcontrol.memory_max_write(groups[-1], str(1200 * 4096))
        task = spawn(m, name)
        assert task.mm is not None and cgroup.cgroup_attach_task(made, task) == 0
        anon = mmap.sys_mmap(task.mm, 0, 2500 * 4096, RW, PRIVATE, None, 0)
        file = mmap.sys_mmap(
            task.mm, 0, 4000 * 4096, mmap.PROT_READ, mmap.MAP_SHARED, filemap.File(mapping), 0
        )
        areas[task.pid] = anon, file
        tasks.append(task)
    for step in range(6000):
        task = rng.choice(tasks)
        switch_to(m, task)
        anon, file = areas[task.pid]
        what = rng.random()
        if what < 0.6:
            touch(m, anon + int(rng.random() ** 2 * 2500) * 4096, rng.choice("rww"))
        elif what < 0.997:
            touch(m, file + int(rng.random() ** 2 * 4000) * 4096, "r")
        elif len(tasks) < 5:
            child = kernel_clone(task)
            assert not isinstance(child, int)
            areas[child.pid] = areas[task.pid]
            tasks.append(child)
        else:
            do_exit(tasks.pop())
        if step % 2000 == 1999:
            check_lists(m)
            assert all(memcg.memory.usage <= 1200 for memcg in groups[:2])
    assert m.vm_event[PSWPOUT] > 1000 < m.vm_event[PGSTEAL_FILE]
    for task in tasks:
        do_exit(task)
    filemap.truncate_setsize(m, mapping, 0)
    check_lists(m)
    for memcg in groups:
        memcontrol.drain_all_stock(memcg)
        assert memcg.memory.usage == 0
