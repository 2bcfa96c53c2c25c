"""Folios on their way onto and between the lists of reclaim."""

from __future__ import annotations

import random

import pytest

from mmcore.arch.x86.fault import touch
from mmcore.errors import KernelBug
from mmcore.kernel.fork import do_exit, kernel_clone, spawn, switch_to
from mmcore.machine import Machine, bare_zone
from mmcore.mm import filemap, mlock, mmap, page_alloc, swap, workingset
from mmcore.mm import mm_inline as inline
from mmcore.mm.gfp import GFP_HIGHUSER_MOVABLE
from mmcore.mm.memory import validate_mappings
from mmcore.mm.mm_types import Folio
from mmcore.mm.page_flags import PG_active, PG_referenced, PG_swapbacked, PG_unevictable
from mmcore.mm.vmstat import (
    NR_ACTIVE_ANON,
    NR_ACTIVE_FILE,
    NR_INACTIVE_ANON,
    NR_INACTIVE_FILE,
    NR_MLOCK,
    NR_UNEVICTABLE,
    PGACTIVATE,
    PGDEACTIVATE,
    PGLAZYFREE,
    PGROTATED,
    UNEVICTABLE_PGCULLED,
    WORKINGSET_ACTIVATE_FILE,
    WORKINGSET_REFAULT_FILE,
    WORKINGSET_RESTORE_FILE,
)

RW = mmap.PROT_READ | mmap.PROT_WRITE
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def machine(mglru: bool, pages: int = 4096) -> Machine:
    m = bare_zone(pages).machine
    m.lru_gen_caps = 7 if mglru else 0
    m.transparent_hugepage_enabled = "never"
    return m


def new_folio(m: Machine, *, anon: bool) -> Folio:
    folio = page_alloc.folio_alloc(m, GFP_HIGHUSER_MOVABLE, 0)
    assert folio is not None
    if anon:
        folio.flags |= 1 << PG_swapbacked
    return folio


def state(m: Machine) -> tuple[int, ...]:
    stat = m.node_data[0].vm_stat
    return tuple(
        stat[i] for i in (NR_INACTIVE_ANON, NR_ACTIVE_ANON, NR_INACTIVE_FILE, NR_ACTIVE_FILE)
    )


@pytest.mark.parametrize("mglru", [False, True])
def test_a_batch_is_drained_when_it_is_full(mglru: bool) -> None:
    m = machine(mglru)
    folios = [new_folio(m, anon=False) for _ in range(31)]
    for folio in folios[:30]:
        swap.folio_add_lru(folio)
    assert state(m) == (0, 0, 0, 0) and folios[0]._refcount == 2
    swap.folio_add_lru(folios[30])
    assert state(m) == (0, 0, 31, 0) and folios[0]._refcount == 1
    inline.validate_lrus(m)


def test_new_folios_go_to_the_head_of_the_inactive_lists() -> None:
    m = machine(False)
    folios = [new_folio(m, anon=i % 2 == 0) for i in range(4)]
    for folio in folios:
        swap.folio_add_lru(folio)
    with m.trace.record("pagemap:*") as log:
        swap.lru_add_drain(m)
    assert [(e.fields["pfn"], e.fields["lru"]) for e in log] == [
        (folio.pfn, 2 * (i % 2)) for i, folio in enumerate(folios)
    ]
    assert [e.fields["flags"] for e in log] == [0x14, 4, 0x14, 4]
    lruvec = inline.node_lruvec(m.node_data[0])
    assert list(lruvec.lists[inline.LRU_INACTIVE_ANON]) == [folios[2], folios[0]]
    assert list(lruvec.lists[inline.LRU_INACTIVE_FILE]) == [folios[3], folios[1]]


def test_the_second_access_activates() -> None:
    m = machine(False)
    folio = new_folio(m, anon=False)
    swap.folio_add_lru(folio)
    swap.lru_add_drain(m)
    swap.folio_mark_accessed(folio)
    assert folio.flags >> PG_referenced & 1
    swap.folio_mark_accessed(folio)
    assert not folio.flags >> PG_referenced & 1 and state(m) == (0, 0, 1, 0)  # it waits
    swap.lru_add_drain(m)
    assert state(m) == (0, 0, 0, 1) and m.vm_event[PGACTIVATE] == 1
    assert inline.node_lruvec(m.node_data[0]).nonresident_age == 1
    # In a batch a folio is made active at once.
    other = new_folio(m, anon=False)
    swap.folio_add_lru(other)
    swap.folio_mark_accessed(other)
    swap.folio_mark_accessed(other)
    swap.lru_add_drain(m)
    assert state(m) == (0, 0, 0, 2) and m.vm_event[PGACTIVATE] == 1


def test_generations_count_accesses_and_sort_them_into_tiers() -> None:
    m = machine(True)
    folio = new_folio(m, anon=False)
    swap.folio_add_lru(folio)
    swap.lru_add_drain(m)
    refs = []
    for _ in range(7):
        swap.folio_mark_accessed(folio)
        refs.append(inline.folio_lru_refs(folio))
    assert refs == [0, 1, 2, 3, 4, 4, 4]
    assert [inline.lru_tier_from_refs(r) for r in range(5)] == [0, 1, 2, 2, 3]


def test_where_generations_put_a_folio() -> None:
    m = machine(True)
    lrugen = inline.node_lruvec(m.node_data[0]).lrugen
    anon, file, hot = (new_folio(m, anon=a) for a in (True, False, False))
    hot.flags |= 1 << PG_active
    for folio in (anon, file, hot):
        swap.folio_add_lru(folio)
    swap.lru_add_drain(m)
    assert (lrugen.max_seq, lrugen.min_seq) == (3, [0, 0])
    # The second youngest, the second oldest, the youngest.
    assert [inline.folio_lru_gen(f) for f in (anon, file, hot)] == [2, 1, 3]
    assert state(m) == (0, 1, 1, 1)
    swap.folio_deactivate(file)
    swap.lru_add_drain(m)
    assert m.vm_event[PGDEACTIVATE] == 1
    inline.validate_lrus(m)


@pytest.mark.parametrize("mglru", [False, True])
def test_clean_file_folios_are_rotated_to_the_tail(mglru: bool) -> None:
    m = machine(mglru)
    folios = [new_folio(m, anon=False) for _ in range(3)]
    for folio in folios:
        swap.folio_add_lru(folio)
    swap.lru_add_drain(m)
    swap.deactivate_file_folio(folios[2])
    swap.lru_add_drain(m)
    lruvec = inline.node_lruvec(m.node_data[0])
    if mglru:
        assert list(lruvec.lrugen.folios[0][1][folios[0].zone.zone_idx]) == [folios[2]]
    else:
        assert lruvec.lists[inline.LRU_INACTIVE_FILE].prev is folios[2]
    assert m.vm_event[PGROTATED] == 1
    inline.validate_lrus(m)


def test_costs_decay_when_they_exceed_a_quarter_of_the_lists() -> None:
    m = machine(False)
    lruvec = inline.node_lruvec(m.node_data[0])
    m.node_data[0].vm_stat[NR_INACTIVE_FILE] = 400
    swap.lru_note_cost(lruvec, 1, 2, 36)
    assert lruvec.file_cost == 100
    swap.lru_note_cost(lruvec, 0, 0, 1)
    assert (lruvec.anon_cost, lruvec.file_cost) == (0, 50)


@pytest.mark.parametrize("mglru", [False, True])
def test_locked_memory_is_unevictable(mglru: bool) -> None:
    m = machine(mglru)
    task = spawn(m)
    assert task.mm is not None
    addr = mmap.sys_mmap(task.mm, 0, 8 * 4096, RW, PRIVATE, None, 0)
    assert mlock.sys_mlock(task.mm, addr, 8 * 4096) == 0
    swap.lru_add_drain(m)
    stat = m.node_data[0].vm_stat
    assert stat[NR_UNEVICTABLE] == 8 == m.node_data[0].node_zones[2].vm_stat[NR_MLOCK]
    assert m.vm_event[UNEVICTABLE_PGCULLED] == 8
    inline.validate_lrus(m)
    do_exit(task)
    assert stat[NR_UNEVICTABLE] == 0


def test_shadows_hold_what_was_packed() -> None:
    m = machine(False)
    pgdat = m.node_data[0]
    for age in (0, 1, workingset.EVICTION_MASK, workingset.EVICTION_MASK + 5):
        for bit in (False, True):
            shadow = workingset.pack_shadow(0xBEEF, pgdat, age, bit)
            assert shadow < 1 << 63
            unpacked = workingset.unpack_shadow(m, shadow)
            assert unpacked == (0xBEEF, pgdat, age & workingset.EVICTION_MASK, bit)


def test_a_refault_within_the_working_set_activates() -> None:
    m = machine(False)
    stat = m.node_data[0].vm_stat
    lruvec = inline.node_lruvec(m.node_data[0])
    folio = new_folio(m, anon=False)
    shadow = workingset.workingset_eviction(folio, None)
    stat[NR_ACTIVE_FILE], stat[NR_INACTIVE_ANON] = 10, 1000
    lruvec.nonresident_age += 9  # with the eviction itself: a distance of 10
    assert workingset.workingset_test_recent(m, shadow, 1)
    lruvec.nonresident_age += 1
    assert not workingset.workingset_test_recent(m, shadow, 1)
    m.nr_swap_pages = 1  # now anonymous memory competes, too
    assert workingset.workingset_test_recent(m, shadow, 1)
    workingset.workingset_refault(folio, shadow | 1)
    assert folio.flags >> PG_active & 1
    assert [stat[i] for i in (WORKINGSET_REFAULT_FILE, WORKINGSET_ACTIVATE_FILE)] == [1, 1]
    assert stat[WORKINGSET_RESTORE_FILE] == 1 and lruvec.file_cost == 32


def test_a_generation_is_recent_until_the_oldest_is_another() -> None:
    m = machine(True)
    lrugen = inline.node_lruvec(m.node_data[0]).lrugen
    folio = new_folio(m, anon=False)
    shadow = workingset.workingset_eviction(folio, None)
    assert lrugen.evicted[0][1] == [1, 0, 0, 0]
    workingset.workingset_refault(folio, shadow)
    assert lrugen.refaulted[0][1] == [1, 0, 0, 0]
    lrugen.min_seq[1] += 1
    assert not workingset.workingset_test_recent(m, shadow, 1)


def test_adding_twice_is_a_bug() -> None:
    m = machine(False)
    folio = new_folio(m, anon=False)
    swap.folio_add_lru(folio)
    swap.lru_add_drain(m)
    swap.folio_add_lru(folio)
    with pytest.raises(KernelBug):
        swap.lru_add_drain(m)


@pytest.mark.parametrize("mglru", [False, True])
def test_random_work_leaves_every_counter_equal_to_a_recount(mglru: bool) -> None:
    m = machine(mglru, 8192)
    rng = random.Random(7)
    mapping = filemap.AddressSpace(200 * 4096, "file")
    tasks = [spawn(m, f"t{i}") for i in range(2)]
    addrs = {}
    for task in tasks:
        assert task.mm is not None
        anon = mmap.sys_mmap(task.mm, 0, 200 * 4096, RW, PRIVATE, None, 0)
        file = mmap.sys_mmap(task.mm, 0, 200 * 4096, RW, mmap.MAP_SHARED, filemap.File(mapping), 0)
        addrs[task.pid] = (anon, file)
    for step in range(1500):
        m.this_cpu = 0
        task = rng.choice(tasks)
        switch_to(m, task)
        assert task.mm is not None
        base = rng.choice(addrs[task.pid])
        what = rng.random()
        if what < 0.8:
            touch(m, base + rng.randrange(200) * 4096, rng.choice("rw"))
        elif what < 0.85:
            mmap.sys_munmap(task.mm, base + rng.randrange(200) * 4096, 4096 * rng.randrange(1, 9))
        elif what < 0.95 and mapping.i_pages:
            folio = mapping.i_pages[rng.choice(sorted(mapping.i_pages))]
            rng.choice(
                (
                    swap.folio_mark_accessed,
                    swap.folio_deactivate,
                    swap.deactivate_file_folio,
                    swap.folio_rotate_reclaimable,
                )
            )(folio)
        elif what < 0.955 and len(tasks) < 5:
            child = kernel_clone(task)
            assert not isinstance(child, int)
            addrs[child.pid] = addrs[task.pid]
            tasks.append(child)
        elif what < 0.96 and len(tasks) > 2:
            tasks.remove(task)
            do_exit(task)
        if step % 50 == 0:
            swap.lru_add_drain(m)
            inline.validate_lrus(m)
    swap.lru_add_drain_all(m)
    inline.validate_lrus(m)
    validate_mappings(m)
    for task in tasks:
        do_exit(task)
    swap.lru_add_drain_all(m)
    filemap.truncate_setsize(m, mapping, 0)
    assert state(m) == (0, 0, 0, 0)


def test_lazily_freed_memory_moves_to_the_file_list() -> None:
    m = machine(False)
    task = spawn(m)
    assert task.mm is not None
    addr = mmap.sys_mmap(task.mm, 0, 4096, RW, PRIVATE, None, 0)
    touch(m, addr, "w")
    swap.lru_add_drain(m)
    lruvec = inline.node_lruvec(m.node_data[0])
    folio = lruvec.lists[inline.LRU_INACTIVE_ANON].next
    swap.folio_mark_lazyfree(folio)
    swap.lru_add_drain(m)
    assert state(m) == (0, 0, 1, 0) and m.vm_event[PGLAZYFREE] == 1
    assert not folio.flags & (1 << PG_swapbacked | 1 << PG_unevictable)
