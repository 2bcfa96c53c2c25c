"""References to folios, and their way onto and between the lists of reclaim.

Mirrors mm/swap.c, and what mm/mlock.c does with new folios.

Folios wait in batches of 31 on each CPU until the batch is full, a large folio comes or somebody
drains it; a folio in a batch has an extra reference.

Simplified: lru_cache_disable() and buffer heads are left out; devices' and hugetlb's folios never get
here; no deferred split queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmcore.errors import KernelBug
from mmcore.mm import memcontrol, page_alloc, rmap, workingset
from mmcore.mm import mm_inline as inline
from mmcore.mm.mm import VM_LOCKED, VM_SPECIAL, VmAreaStruct
from mmcore.mm.mm_inline import Lruvec, folio_is_file_lru, folio_lruvec, lru_gen_enabled
from mmcore.mm.mm_types import Folio, folio_nr_pages, folio_order
from mmcore.mm.page_flags import (
    LRU_REFS_MASK,
    LRU_REFS_PGOFF,
    PG_active,
    PG_dirty,
    PG_idle,
    PG_locked,
    PG_lru,
    PG_mlocked,
    PG_reclaim,
    PG_referenced,
    PG_swapbacked,
    PG_swapcache,
    PG_unevictable,
    PG_workingset,
    PG_writeback,
)
from mmcore.mm.vmstat import (
    NR_ACTIVE_FILE,
    NR_INACTIVE_ANON,
    NR_MLOCK,
    PGACTIVATE,
    PGDEACTIVATE,
    PGLAZYFREE,
    PGROTATED,
    UNEVICTABLE_PGCULLED,
    UNEVICTABLE_PGMLOCKED,
    UNEVICTABLE_PGRESCUED,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = [
    "PAGEVEC_SIZE",
    "SWAP_CLUSTER_MAX",
    "CpuFbatches",
    "deactivate_file_folio",
    "folio_activate",
    "folio_add_lru",
    "folio_add_lru_vma",
    "folio_deactivate",
    "folio_get",
    "folio_mark_accessed",
    "folio_mark_lazyfree",
    "folio_put",
    "folio_ref_add",
    "folio_rotate_reclaimable",
    "lru_add_drain",
    "lru_add_drain_all",
    "lru_add_drain_cpu",
    "lru_note_cost",
    "lru_note_cost_refault",
]

PAGEVEC_SIZE = 31
SWAP_CLUSTER_MAX = 32
PF_MEMALLOC = 0x00000800
_ACTIVE = 1 << PG_active
_DIRTY = 1 << PG_dirty
_LRU = 1 << PG_lru
_MLOCKED = 1 << PG_mlocked
_REFERENCED = 1 << PG_referenced
_SWAPBACKED = 1 << PG_swapbacked
_UNEVICTABLE = 1 << PG_unevictable
_WORKINGSET = 1 << PG_workingset


class CpuFbatches:
    """``struct cpu_fbatches``: the folios of one CPU that wait for a list, by what is to be done.

    ``mlock_fbatch`` is a variable of its own in the kernel.

    Mirrors mm/swap.c:cpu_fbatches.
    """

    __slots__ = (
        "lru_activate",
        "lru_add",
        "lru_deactivate",
        "lru_deactivate_file",
        "lru_lazyfree",
        "lru_move_tail",
        "mlock_fbatch",
    )

    def __init__(self) -> None:
        self.lru_add: list[Folio] = []
        self.lru_deactivate_file: list[Folio] = []
        self.lru_deactivate: list[Folio] = []
        self.lru_lazyfree: list[Folio] = []
        self.lru_activate: list[Folio] = []
        self.lru_move_tail: list[Folio] = []
        self.mlock_fbatch: list[Folio] = []


def _fbatches(m: Machine) -> CpuFbatches:
    fbatches = m.cpu_fbatches.get(m.this_cpu)
    if fbatches is None:
        fbatches = m.cpu_fbatches[m.this_cpu] = CpuFbatches()
    return fbatches


# --- references -------------------------------------------------------------------------------


def folio_get(folio: Folio) -> None:
    """Take a reference to @folio.

    Mirrors include/linux/mm.h:folio_get().
    """
    if folio._refcount <= 0:
        raise KernelBug(f"folio_get() of {folio!r}, which nobody holds")
    folio._refcount += 1


def folio_ref_add(folio: Folio, nr: int) -> None:
    """Take @nr references to @folio.

    Mirrors include/linux/page_ref.h:folio_ref_add().
    """
    folio._refcount += nr


def folio_put(folio: Folio, refs: int = 1) -> None:
    """Give back @refs references; the last one frees the folio.

    Mirrors include/linux/mm.h:folio_put().
    """
    if folio._refcount < refs:
        raise KernelBug(f"folio_put() of {folio!r} takes {refs} of its references")
    folio._refcount -= refs
    if not folio._refcount:
        _folio_put(folio)


def _folio_put(folio: Folio) -> None:
    """Take a folio without users off its list, uncharge it and free it.

    Mirrors mm/swap.c:__folio_put().
    """
    page_cache_release(folio)
    if folio.flags & _MLOCKED:
        folio.flags &= ~_MLOCKED
        folio.zone.vm_stat[NR_MLOCK] -= folio_nr_pages(folio)
    if folio.memcg_data is not None:
        memcontrol.mem_cgroup_uncharge(folio)
    page_alloc.free_unref_page(folio, folio_order(folio))


def page_cache_release(folio: Folio) -> None:
    """Take a folio that is going to be freed off its list.

    Mirrors mm/swap.c:page_cache_release().
    """
    if folio.flags & _LRU:
        inline.lruvec_del_folio(folio_lruvec(folio), folio)
        folio.flags &= ~(_LRU | _ACTIVE | _UNEVICTABLE)


# --- batches ----------------------------------------------------------------------------------


def lru_add(lruvec: Lruvec, folio: Folio) -> None:
    """Put a new folio on the list where it belongs, or among the unevictable ones.

    Mirrors mm/swap.c:lru_add().
    """
    m = lruvec.pgdat.machine
    was_unevictable = folio.flags & _UNEVICTABLE
    folio.flags &= ~_UNEVICTABLE
    if folio.flags & _LRU:
        raise KernelBug(f"{folio!r} is added to the LRU twice")
    if inline.folio_evictable(folio):
        if was_unevictable:
            m.vm_event[UNEVICTABLE_PGRESCUED] += folio_nr_pages(folio)
    else:
        folio.flags = folio.flags & ~_ACTIVE | _UNEVICTABLE
        if not was_unevictable:
            m.vm_event[UNEVICTABLE_PGCULLED] += folio_nr_pages(folio)
    inline.lruvec_add_folio(lruvec, folio)
    if m.trace.on:
        lru = inline.folio_lru_list(folio)
        m.trace.emit("pagemap:mm_lru_insertion", folio.pfn, lru, trace_pagemap_flags(folio))


def trace_pagemap_flags(folio: Folio) -> int:
    """Return what a trace shows of a folio: mapped 1, anonymous 2 or file 4, in swap cache 8, ...

    Mirrors include/trace/events/pagemap.h:trace_pagemap_flags().
    """
    return (
        (1 if rmap.folio_mapcount(folio) else 0)
        | (2 if rmap.folio_test_anon(folio) else 4)
        | (8 if folio.flags >> PG_swapcache & 1 else 0)
        | (0x10 if folio.flags & _SWAPBACKED else 0)
    )


def mlock_new_folio(lruvec: Lruvec, folio: Folio) -> None:
    """Count a new folio that is locked in memory as unevictable; it is on no list.

    Mirrors mm/mlock.c:__mlock_new_folio().
    """
    if not inline.folio_evictable(folio):
        folio.flags |= _UNEVICTABLE
        lruvec.pgdat.machine.vm_event[UNEVICTABLE_PGCULLED] += folio_nr_pages(folio)
    inline.lruvec_add_folio(lruvec, folio)


def folio_batch_move_lru(fbatch: list[Folio], move_fn: Callable[[Lruvec, Folio], None]) -> None:
    """Do with each folio of a batch what it waits for, and give back the batch's references.

    Mirrors mm/swap.c:folio_batch_move_lru().
    """
    folios = fbatch.copy()
    fbatch.clear()
    for folio in folios:
        if move_fn is not lru_add and move_fn is not mlock_new_folio:
            if not folio.flags & _LRU:
                continue
            folio.flags &= ~_LRU
        move_fn(folio_lruvec(folio), folio)
        folio.flags |= _LRU
    for folio in folios:
        folio_put(folio)


def _folio_batch_add_and_move(
    fbatch: list[Folio], folio: Folio, move_fn: Callable[[Lruvec, Folio], None]
) -> None:
    """Add @folio to a batch; a full batch, or a large folio, drains it.

    Mirrors mm/swap.c:__folio_batch_add_and_move().
    """
    folio_get(folio)
    fbatch.append(folio)
    if len(fbatch) >= PAGEVEC_SIZE or folio.folio is not None:
        folio_batch_move_lru(fbatch, move_fn)


def lru_add_drain_cpu(m: Machine, cpu: int) -> None:
    """Empty the batches of @cpu.

    Mirrors mm/swap.c:lru_add_drain_cpu().
    """
    fbatches = m.cpu_fbatches.get(cpu)
    if fbatches is None:
        return
    for fbatch, move_fn in (
        (fbatches.lru_add, lru_add),
        (fbatches.lru_move_tail, lru_move_tail),
        (fbatches.lru_deactivate_file, lru_deactivate_file),
        (fbatches.lru_deactivate, lru_deactivate),
        (fbatches.lru_lazyfree, lru_lazyfree),
        (fbatches.lru_activate, lru_activate),
        (fbatches.mlock_fbatch, mlock_new_folio),
    ):
        if fbatch:
            folio_batch_move_lru(fbatch, move_fn)


def lru_add_drain(m: Machine) -> None:
    """Empty this CPU's batches.

    Mirrors mm/swap.c:lru_add_drain().
    """
    lru_add_drain_cpu(m, m.this_cpu)


def lru_add_drain_all(m: Machine) -> None:
    """Empty every CPU's batches.

    Mirrors mm/swap.c:lru_add_drain_all().
    """
    here = m.this_cpu
    for cpu in sorted(m.cpu_fbatches):
        m.this_cpu = cpu
        lru_add_drain(m)
    m.this_cpu = here


# --- adding -----------------------------------------------------------------------------------


def folio_add_lru(folio: Folio) -> None:
    """Queue @folio for the LRU; with generations a fault makes it active.

    Mirrors mm/swap.c:folio_add_lru().
    """
    m = folio.zone.machine
    if lru_gen_enabled(m) and not folio.flags & _UNEVICTABLE:
        task = m.current
        if getattr(task, "in_lru_fault", False) and not task.flags & PF_MEMALLOC:
            folio.flags |= _ACTIVE
    _folio_batch_add_and_move(_fbatches(m).lru_add, folio, lru_add)


def folio_add_lru_vma(folio: Folio, vma: VmAreaStruct) -> None:
    """Queue @folio for the LRU that @vma wants it on: the unevictable one if it is mlocked.

    Mirrors mm/swap.c:folio_add_lru_vma().
    """
    if vma.vm_flags & (VM_LOCKED | VM_SPECIAL) == VM_LOCKED:
        m = folio.zone.machine
        folio.flags |= _MLOCKED
        folio.zone.vm_stat[NR_MLOCK] += folio_nr_pages(folio)
        m.vm_event[UNEVICTABLE_PGMLOCKED] += folio_nr_pages(folio)
        _folio_batch_add_and_move(_fbatches(m).mlock_fbatch, folio, mlock_new_folio)
    else:
        folio_add_lru(folio)


# --- activation and deactivation --------------------------------------------------------------


def lru_activate(lruvec: Lruvec, folio: Folio) -> None:
    """Move a folio to its active list.

    Mirrors mm/swap.c:lru_activate().
    """
    if folio.flags & (_ACTIVE | _UNEVICTABLE):
        return
    inline.lruvec_del_folio(lruvec, folio)
    folio.flags |= _ACTIVE
    inline.lruvec_add_folio(lruvec, folio)
    _count(lruvec, PGACTIVATE, folio_nr_pages(folio))
    m = lruvec.pgdat.machine
    if m.trace.on:
        m.trace.emit("pagemap:mm_lru_activate", folio.pfn)


def _count(lruvec: Lruvec, item: int, nr: int) -> None:
    """Count an event of the machine and of the lruvec's memory cgroup."""
    lruvec.pgdat.machine.vm_event[item] += nr
    if lruvec.pn is not None:
        memcontrol.count_memcg_events(lruvec.pn.memcg, item, nr)


def folio_activate(folio: Folio) -> None:
    """Queue a folio for its active list.

    Mirrors mm/swap.c:folio_activate().
    """
    if folio.flags & (_ACTIVE | _UNEVICTABLE) or not folio.flags & _LRU:
        return
    _folio_batch_add_and_move(_fbatches(folio.zone.machine).lru_activate, folio, lru_activate)


def _lru_cache_activate_folio(folio: Folio) -> None:
    """Make a folio active that waits in this CPU's batch of new ones.

    Mirrors mm/swap.c:__lru_cache_activate_folio().
    """
    if folio in _fbatches(folio.zone.machine).lru_add:
        folio.flags |= _ACTIVE


def folio_inc_refs(folio: Folio) -> None:
    """Count an access for the generations: PG_referenced, PG_workingset, then two more bits.

    Mirrors mm/swap.c:folio_inc_refs().
    """
    flags = folio.flags
    if flags & _UNEVICTABLE:
        return
    if not flags & _REFERENCED:
        folio.flags |= _REFERENCED
    elif not flags & _WORKINGSET:
        folio.flags |= _WORKINGSET
    elif flags & LRU_REFS_MASK != LRU_REFS_MASK:
        folio.flags += 1 << LRU_REFS_PGOFF


def folio_mark_accessed(folio: Folio) -> None:
    """Note an access: the first sets PG_referenced, the second makes the folio active.

    With generations accesses are counted, and eviction sorts by them.

    Mirrors mm/swap.c:folio_mark_accessed().
    """
    if lru_gen_enabled(folio.zone.machine):
        folio_inc_refs(folio)
        return
    flags = folio.flags
    if not flags & _REFERENCED:
        folio.flags |= _REFERENCED
    elif not flags & (_UNEVICTABLE | _ACTIVE):
        if flags & _LRU:
            folio_activate(folio)
        else:
            _lru_cache_activate_folio(folio)
        folio.flags &= ~_REFERENCED
        workingset.workingset_activation(folio)
    folio.flags &= ~(1 << PG_idle)


def lru_move_tail(lruvec: Lruvec, folio: Folio) -> None:
    """Move a folio to the tail of its inactive list: it is reclaimed next.

    Mirrors mm/swap.c:lru_move_tail().
    """
    if folio.flags & _UNEVICTABLE:
        return
    inline.lruvec_del_folio(lruvec, folio)
    folio.flags &= ~_ACTIVE
    inline.lruvec_add_folio_tail(lruvec, folio)
    lruvec.pgdat.machine.vm_event[PGROTATED] += folio_nr_pages(folio)


def folio_rotate_reclaimable(folio: Folio) -> None:
    """Queue a folio whose writeback ended, and which reclaim waits for, for the tail.

    Mirrors mm/swap.c:folio_rotate_reclaimable().
    """
    if folio.flags & (1 << PG_locked | _DIRTY | _UNEVICTABLE) or not folio.flags & _LRU:
        return
    _folio_batch_add_and_move(_fbatches(folio.zone.machine).lru_move_tail, folio, lru_move_tail)


def lru_deactivate_file(lruvec: Lruvec, folio: Folio) -> None:
    """Move an unmapped page cache folio to the inactive list, to the tail if it is clean.

    Mirrors mm/swap.c:lru_deactivate_file().
    """
    if folio.flags & _UNEVICTABLE or rmap.folio_mapcount(folio):
        return
    active = folio.flags & _ACTIVE
    inline.lruvec_del_folio(lruvec, folio)
    folio.flags &= ~(_ACTIVE | _REFERENCED)
    if folio.flags & (_DIRTY | 1 << PG_writeback):
        inline.lruvec_add_folio(lruvec, folio)
        folio.flags |= 1 << PG_reclaim
    else:
        inline.lruvec_add_folio_tail(lruvec, folio)
        lruvec.pgdat.machine.vm_event[PGROTATED] += folio_nr_pages(folio)
    if active:
        _count(lruvec, PGDEACTIVATE, folio_nr_pages(folio))


def lru_deactivate(lruvec: Lruvec, folio: Folio) -> None:
    """Move an active folio to the head of its inactive list.

    Mirrors mm/swap.c:lru_deactivate().
    """
    if folio.flags & _UNEVICTABLE:
        return
    if not (folio.flags & _ACTIVE or lru_gen_enabled(lruvec.pgdat.machine)):
        return
    inline.lruvec_del_folio(lruvec, folio)
    folio.flags &= ~(_ACTIVE | _REFERENCED)
    inline.lruvec_add_folio(lruvec, folio)
    _count(lruvec, PGDEACTIVATE, folio_nr_pages(folio))


def lru_lazyfree(lruvec: Lruvec, folio: Folio) -> None:
    """Move anonymous memory that its owner does not need to the inactive file list.

    Mirrors mm/swap.c:lru_lazyfree().
    """
    if not _may_be_lazyfree(folio):
        return
    inline.lruvec_del_folio(lruvec, folio)
    folio.flags &= ~(_ACTIVE | _REFERENCED | _SWAPBACKED)
    inline.lruvec_add_folio(lruvec, folio)
    _count(lruvec, PGLAZYFREE, folio_nr_pages(folio))


def _may_be_lazyfree(folio: Folio) -> bool:
    if not rmap.folio_test_anon(folio) or not folio.flags & _SWAPBACKED:
        return False
    return not folio.flags & (1 << PG_swapcache | _UNEVICTABLE)


def deactivate_file_folio(folio: Folio) -> None:
    """Queue a page cache folio that could not be dropped for its inactive list.

    Mirrors mm/swap.c:deactivate_file_folio().
    """
    if folio.flags & _UNEVICTABLE or not folio.flags & _LRU:
        return
    fbatches = _fbatches(folio.zone.machine)
    _folio_batch_add_and_move(fbatches.lru_deactivate_file, folio, lru_deactivate_file)


def folio_deactivate(folio: Folio) -> None:
    """Queue a folio for its inactive list.

    Mirrors mm/swap.c:folio_deactivate().
    """
    if folio.flags & _UNEVICTABLE or not folio.flags & _LRU:
        return
    m = folio.zone.machine
    if folio.flags & _ACTIVE or lru_gen_enabled(m):
        _folio_batch_add_and_move(_fbatches(m).lru_deactivate, folio, lru_deactivate)


def folio_mark_lazyfree(folio: Folio) -> None:
    """Queue anonymous memory that its owner does not need for the inactive file list.

    Mirrors mm/swap.c:folio_mark_lazyfree().
    """
    if not folio.flags & _LRU or not _may_be_lazyfree(folio):
        return
    fbatches = _fbatches(folio.zone.machine)
    _folio_batch_add_and_move(fbatches.lru_lazyfree, folio, lru_lazyfree)


# --- costs ------------------------------------------------------------------------------------


def lru_note_cost(lruvec: Lruvec, file: int, nr_io: int, nr_rotated: int) -> None:
    """Note what reclaiming one kind of memory cost: I/O counts 32 times as much as a rotation.

    When both costs together exceed a quarter of the lists, both are halved. Parents learn it, too.

    Mirrors mm/swap.c:lru_note_cost().
    """
    cost = nr_io * SWAP_CLUSTER_MAX + nr_rotated
    at: Lruvec | None = lruvec
    while at is not None:
        if file:
            at.file_cost += cost
        else:
            at.anon_cost += cost
        lrusize = sum(
            inline.lruvec_page_state(at, item)
            for item in range(NR_INACTIVE_ANON, NR_ACTIVE_FILE + 1)
        )
        if at.file_cost + at.anon_cost > lrusize // 4:
            at.file_cost //= 2
            at.anon_cost //= 2
        at = parent_lruvec(at)


def parent_lruvec(lruvec: Lruvec) -> Lruvec | None:
    """Return the lists of the parent group on the same node; None for the root.

    Mirrors include/linux/memcontrol.h:parent_lruvec().
    """
    if lruvec.pn is None:
        return None
    memcg = memcontrol.parent_mem_cgroup(lruvec.pn.memcg)
    return None if memcg is None else inline.mem_cgroup_lruvec(memcg, lruvec.pgdat)


def lru_note_cost_refault(folio: Folio) -> None:
    """Note that a folio had to be read again.

    Mirrors mm/swap.c:lru_note_cost_refault().
    """
    lru_note_cost(folio_lruvec(folio), folio_is_file_lru(folio), folio_nr_pages(folio), 0)
