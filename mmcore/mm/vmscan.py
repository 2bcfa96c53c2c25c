"""Page reclaim: kswapd, direct reclaim, the two lists and the generations.

Mirrors mm/vmscan.c.

`kswapd_init()` switches reclaim on for a machine: the page allocator's hooks then lead here. kswapd
runs as soon as it is woken, as it does on one CPU where it preempts whoever woke it.

Simplified: nobody is throttled and nobody sleeps; dirty page cache and shared memory are not written
(they are activated); large folios are not split; no compaction, demotion, PSI or vmpressure; groups are
walked in the order of the tree instead of the memcg LRU; no min_ttl_ms; every page table is walked when generations
age, without Bloom filters; the sizes of generations are counted at once, not in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmcore.arch.x86 import pgtable as pg
from mmcore.cint import clamp, int_sqrt
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.lib.list import (
    ListHead,
    list_add,
    list_del,
    list_empty,
    list_move,
    list_move_tail,
)
from mmcore.mm import (
    compaction,
    filemap,
    memcontrol,
    page_alloc,
    rmap,
    swap,
    swap_state,
    swapfile,
    workingset,
)
from mmcore.mm import gfp as gfp_
from mmcore.mm import mm_inline as inline
from mmcore.mm.internal import MAX_RECLAIM_RETRIES, InitTask
from mmcore.mm.mm import VM_EXEC, VM_LOCKED, VM_RAND_READ, VM_SEQ_READ, VM_SPECIAL, VmAreaStruct
from mmcore.mm.mm_inline import (
    LRU_ACTIVE,
    LRU_ACTIVE_ANON,
    LRU_FILE,
    LRU_GEN_ANON,
    LRU_GEN_FILE,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    LRU_REFS_FLAGS,
    LRU_UNEVICTABLE,
    MAX_NR_GENS,
    MAX_NR_TIERS,
    MIN_NR_GENS,
    Lruvec,
    folio_is_file_lru,
    lru_gen_enabled,
    lru_gen_from_seq,
)
from mmcore.mm.mm_types import Folio, folio_nr_pages, page_folio, pfn_to_page
from mmcore.mm.mmzone import MAX_NR_ZONES, high_wmark_pages, managed_zone
from mmcore.mm.page_flags import (
    LRU_GEN_MASK,
    LRU_GEN_PGOFF,
    LRU_REFS_MASK,
    LRU_REFS_WIDTH,
    PG_active,
    PG_dirty,
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
    ALLOCSTALL_DMA,
    KSWAPD_HIGH_WMARK_HIT_QUICKLY,
    KSWAPD_LOW_WMARK_HIT_QUICKLY,
    NR_ACTIVE_FILE,
    NR_FREE_PAGES,
    NR_INACTIVE_ANON,
    NR_INACTIVE_FILE,
    NR_ISOLATED_ANON,
    NR_VMSCAN_IMMEDIATE,
    NR_VMSCAN_WRITE,
    NR_ZONE_INACTIVE_ANON,
    PAGEOUTRUN,
    PGACTIVATE,
    PGDEACTIVATE,
    PGLAZYFREED,
    PGREFILL,
    PGSCAN_ANON,
    PGSCAN_KSWAPD,
    PGSCAN_SKIP_DMA,
    PGSTEAL_ANON,
    PGSTEAL_KSWAPD,
    SLABS_SCANNED,
    WORKINGSET_ACTIVATE_ANON,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.memcontrol import MemCgroup
    from mmcore.mm.mmzone import PgData, Zone, Zonelist

DEF_PRIORITY = 12
SWAP_CLUSTER_MAX = swap.SWAP_CLUSTER_MAX
MAX_SWAPPINESS = 200
MIN_LRU_BATCH = 64
MAX_LRU_BATCH = 4096
DEACTIVATE_ANON = 1
DEACTIVATE_FILE = 2
PF_MEMALLOC = 0x00000800
PF_KSWAPD = 0x00020000
FOLIOREF_RECLAIM = "reclaim"
FOLIOREF_RECLAIM_CLEAN = "reclaim clean"
FOLIOREF_KEEP = "keep"
FOLIOREF_ACTIVATE = "activate"
#: mm/vmscan.c:scan_balance
SCAN_EQUAL, SCAN_FRACT, SCAN_ANON, SCAN_FILE = "equal", "fract", "anon", "file"

_ACTIVE = 1 << PG_active
_DIRTY = 1 << PG_dirty
_LOCKED = 1 << PG_locked
_LRU = 1 << PG_lru
_REFERENCED = 1 << PG_referenced
_SWAPBACKED = 1 << PG_swapbacked
_SWAPCACHE = 1 << PG_swapcache
_WRITEBACK = 1 << PG_writeback
_GFP_IO: int = getattr(gfp_, "__GFP_IO")
_GFP_DIRECT_RECLAIM: int = getattr(gfp_, "__GFP_DIRECT_RECLAIM")


@dataclass(slots=True, eq=False)
class ScanControl:
    """``struct scan_control``: what one reclaim is for, and how far it is.

    Mirrors mm/vmscan.c:scan_control.
    """

    nr_to_reclaim: int = 0
    gfp_mask: int = 0
    reclaim_idx: int = MAX_NR_ZONES - 1
    order: int = 0
    nodemask: int | None = None
    target_mem_cgroup: MemCgroup | None = None
    priority: int = DEF_PRIORITY
    may_writepage: bool = True
    may_unmap: bool = True
    may_swap: bool = True
    proactive: bool = False
    proactive_swappiness: int | None = None
    may_deactivate: int = 0
    force_deactivate: bool = False
    skipped_deactivate: bool = False
    cache_trim_mode: bool = False
    cache_trim_mode_failed: bool = False
    no_cache_trim_mode: bool = False
    file_is_tiny: bool = False
    memcg_full_walk: bool = False
    memcg_low_reclaim: bool = False
    memcg_low_skipped: bool = False
    anon_cost: int = 0
    file_cost: int = 0
    nr_scanned: int = 0
    nr_reclaimed: int = 0


@dataclass(slots=True, eq=False)
class ReclaimStat:
    """``struct reclaim_stat``: what became of the folios of one list.

    Mirrors include/linux/vmstat.h:reclaim_stat.
    """

    nr_dirty: int = 0
    nr_unqueued_dirty: int = 0
    nr_writeback: int = 0
    nr_pageout: int = 0
    nr_activate: list[int] = field(default_factory=lambda: [0, 0])
    nr_ref_keep: int = 0
    nr_unmap_fail: int = 0
    nr_lazyfree_fail: int = 0


@dataclass(slots=True, eq=False)
class Shrinker:
    """``struct shrinker``: a cache that gives memory back when it is asked.

    :ivar count_objects: (nid) -> objects that could be freed
    :ivar scan_objects: (nid, nr_to_scan) -> objects freed, None to stop
    :ivar seeks: what it costs to make an object again; 2 by default

    Mirrors include/linux/shrinker.h:shrinker.
    """

    name: str
    count_objects: Callable[[int], int]
    scan_objects: Callable[[int, int], int | None]
    seeks: int = 2
    batch: int = 0
    nr_deferred: dict[int, int] = field(default_factory=dict)


def current_is_kswapd(m: Machine) -> bool:
    """Tell whether kswapd runs.

    Mirrors include/linux/swap.h:current_is_kswapd().
    """
    return m.current is not None and m.current.flags & PF_KSWAPD != 0


def reclaimer_offset(m: Machine) -> int:
    """Return the place of this reclaimer's counter behind kswapd's.

    Mirrors mm/vmscan.c:reclaimer_offset().
    """
    return 0 if current_is_kswapd(m) else 1


def cgroup_reclaim(sc: ScanControl) -> bool:
    """Tell whether a group's limit is the reason.

    Mirrors mm/vmscan.c:cgroup_reclaim().
    """
    return sc.target_mem_cgroup is not None


def root_reclaim(sc: ScanControl) -> bool:
    """Tell whether all groups are reclaimed from.

    Mirrors mm/vmscan.c:root_reclaim().
    """
    return sc.target_mem_cgroup is None or sc.target_mem_cgroup.css.parent is None


def mm_match_cgroup(mm: Any, memcg: MemCgroup) -> bool:
    """Tell whether an address space belongs to @memcg or a group below it.

    Mirrors include/linux/memcontrol.h:mm_match_cgroup().
    """
    at = memcontrol.mem_cgroup_from_task(memcg.machine, mm.owner)
    while at is not None and at is not memcg:
        at = memcontrol.parent_mem_cgroup(at)
    return at is memcg


def _memcg(lruvec: Lruvec) -> MemCgroup | None:
    return None if lruvec.pn is None else lruvec.pn.memcg


def _count(lruvec: Lruvec, sc: ScanControl | None, item: int, nr: int) -> None:
    """Count an event of the group, and of the machine unless a group's limit is the reason."""
    if sc is None or not cgroup_reclaim(sc):
        lruvec.pgdat.machine.vm_event[item] += nr
    if lruvec.pn is not None:
        memcontrol.count_memcg_events(lruvec.pn.memcg, item, nr)


def sc_swappiness(m: Machine, sc: ScanControl) -> int:
    """Return how much anonymous memory is preferred, 0 to 200.

    Mirrors mm/vmscan.c:sc_swappiness().
    """
    return m.vm_swappiness if sc.proactive_swappiness is None else sc.proactive_swappiness


def can_reclaim_anon_pages(m: Machine, memcg: MemCgroup | None) -> bool:
    """Tell whether there is swap space left.

    Mirrors mm/vmscan.c:can_reclaim_anon_pages().
    """
    if memcg is None:
        return m.nr_swap_pages > 0
    return memcontrol.mem_cgroup_get_nr_swap_pages(m, memcg) > 0


def lruvec_lru_size(lruvec: Lruvec, lru: int, zone_idx: int) -> int:
    """Return the pages of a list in the zones up to @zone_idx.

    Mirrors mm/vmscan.c:lruvec_lru_size().
    """
    size = 0
    for zone in lruvec.pgdat.node_zones[: zone_idx + 1]:
        if managed_zone(zone):
            if lruvec.pn is None:
                size += max(0, zone.vm_stat[NR_ZONE_INACTIVE_ANON + lru])
            else:
                size += lruvec.pn.lru_zone_size[zone.zone_idx][lru]
    return size


# --- one list of folios -----------------------------------------------------------------------


def folio_check_references(folio: Folio, sc: ScanControl) -> str:
    """Decide by its references whether a folio is reclaimed, kept for another round, or activated.

    Mirrors mm/vmscan.c:folio_check_references().
    """
    referenced_ptes, vm_flags = rmap.folio_referenced(folio, sc.target_mem_cgroup)
    referenced_folio = folio.flags & _REFERENCED
    folio.flags &= ~_REFERENCED
    if vm_flags & VM_LOCKED:
        return FOLIOREF_ACTIVATE
    if referenced_ptes == -1:
        return FOLIOREF_KEEP
    if referenced_ptes:
        folio.flags |= _REFERENCED
        if referenced_folio or referenced_ptes > 1:
            return FOLIOREF_ACTIVATE
        if vm_flags & VM_EXEC and folio_is_file_lru(folio):
            return FOLIOREF_ACTIVATE
        return FOLIOREF_KEEP
    if referenced_folio and folio_is_file_lru(folio):
        return FOLIOREF_RECLAIM_CLEAN
    return FOLIOREF_RECLAIM


def remove_mapping(folio: Folio, target_memcg: MemCgroup | None) -> bool:
    """Take a folio that only reclaim and its cache hold out of the cache; a shadow stays.

    Mirrors mm/vmscan.c:__remove_mapping().
    """
    nr = folio_nr_pages(folio)
    if folio._refcount != 1 + nr or folio.flags & _DIRTY:
        return False
    m = folio.zone.machine
    if folio.flags & _SWAPCACHE:
        entry = folio.private
        shadow = workingset.workingset_eviction(folio, target_memcg)
        swap_state.delete_from_cache_locked(folio, entry, shadow)
        swapfile.put_swap_folio(m, folio, entry)
        swap.folio_put(folio, nr)
    else:
        mapping: filemap.AddressSpace = folio.mapping
        index = folio.index
        mapping.i_shadows[index] = workingset.workingset_eviction(folio, target_memcg)
        filemap.filemap_remove_folio(mapping, folio)
    return True


def _try_swap_out(folio: Folio, sc: ScanControl) -> str:
    """Give an anonymous folio its slot: "" when it has one, else what becomes of the folio."""
    if folio.flags & _SWAPCACHE:
        return ""
    if not sc.gfp_mask & _GFP_IO or rmap.folio_maybe_dma_pinned(folio):
        return FOLIOREF_KEEP
    return "" if swap_state.add_to_swap(folio) else FOLIOREF_ACTIVATE


def _pageout(folio: Folio, sc: ScanControl, stat: ReclaimStat, references: str) -> str:
    """Write a dirty folio: "" when it is clean now, else what becomes of it.

    Mirrors mm/vmscan.c:pageout().
    """
    if folio_is_file_lru(folio) or not folio.flags & _SWAPCACHE:
        folio.zone.zone_pgdat.vm_stat[NR_VMSCAN_IMMEDIATE] += folio_nr_pages(folio)
        folio.flags |= 1 << PG_reclaim
        return FOLIOREF_ACTIVATE
    if references == FOLIOREF_RECLAIM_CLEAN or not sc.gfp_mask & _GFP_IO or not sc.may_writepage:
        return FOLIOREF_KEEP
    if folio._refcount != 1 + folio_nr_pages(folio):
        return FOLIOREF_KEEP
    swap_state.swap_writepage(folio)
    m = folio.zone.machine
    folio.zone.zone_pgdat.vm_stat[NR_VMSCAN_WRITE] += folio_nr_pages(folio)
    if m.trace.on:
        m.trace.emit(
            "vmscan:mm_vmscan_write_folio",
            folio.pfn,
            trace_reclaim_flags(folio_is_file_lru(folio)),
        )
    stat.nr_pageout += folio_nr_pages(folio)
    if folio.flags & (_DIRTY | _WRITEBACK):
        return FOLIOREF_KEEP
    folio.flags |= _LOCKED
    return ""


def _shrink_folio(folio: Folio, sc: ScanControl, stat: ReclaimStat, ignore: bool) -> str:
    """Try to free one locked folio: "" when it is ready to be freed, else what becomes of it."""
    nr_pages = folio_nr_pages(folio)
    sc.nr_scanned += nr_pages
    if not inline.folio_evictable(folio):
        return FOLIOREF_ACTIVATE
    mapped = rmap.folio_mapcount(folio) > 0
    if not sc.may_unmap and mapped:
        return FOLIOREF_KEEP
    if lru_gen_enabled(folio.zone.machine) and not ignore and mapped:
        if folio.flags & _REFERENCED:
            return FOLIOREF_KEEP
    if folio.flags & _DIRTY and folio_is_file_lru(folio) and not rmap.folio_test_anon(folio):
        stat.nr_dirty += nr_pages
        stat.nr_unqueued_dirty += nr_pages
    references = FOLIOREF_RECLAIM if ignore else folio_check_references(folio, sc)
    if references == FOLIOREF_ACTIVATE:
        return FOLIOREF_ACTIVATE
    if references == FOLIOREF_KEEP:
        stat.nr_ref_keep += nr_pages
        return FOLIOREF_KEEP
    anon = rmap.folio_test_anon(folio)
    if anon and folio.flags & _SWAPBACKED:
        verdict = _try_swap_out(folio, sc)
        if verdict:
            return verdict
    elif not anon and folio.flags & _SWAPBACKED:
        return FOLIOREF_ACTIVATE  # shared memory
    if rmap.folio_mapcount(folio):
        was_swapbacked = folio.flags & _SWAPBACKED
        rmap.try_to_unmap(folio)
        if rmap.folio_mapcount(folio):
            stat.nr_unmap_fail += nr_pages
            if not was_swapbacked and folio.flags & _SWAPBACKED:
                stat.nr_lazyfree_fail += nr_pages
            return FOLIOREF_ACTIVATE
    if rmap.folio_maybe_dma_pinned(folio):
        return FOLIOREF_ACTIVATE
    if folio.flags & _DIRTY:
        verdict = _pageout(folio, sc, stat, references)
        if verdict:
            return verdict
    if anon and not folio.flags & _SWAPBACKED:  # lazily freed
        if folio._refcount != 1:
            return FOLIOREF_KEEP
        folio.zone.machine.vm_event[PGLAZYFREED] += nr_pages
        return ""
    if folio.mapping is None or not remove_mapping(folio, sc.target_mem_cgroup):
        return FOLIOREF_KEEP
    return ""


def shrink_folio_list(
    folio_list: ListHead, pgdat: PgData, sc: ScanControl, ignore_references: bool
) -> tuple[int, ReclaimStat]:
    """Free what can be freed of isolated folios; the others are left on the list.

    :return: (pages freed, what became of the others)

    Mirrors mm/vmscan.c:shrink_folio_list().
    """
    m = pgdat.machine
    stat = ReclaimStat()
    ret_folios = ListHead()
    free_folios: list[Folio] = []
    nr_reclaimed = 0
    while not list_empty(folio_list):
        folio: Folio = folio_list.prev
        list_del(folio)
        if folio.flags & _LOCKED:
            list_add(folio, ret_folios)
            continue
        folio.flags |= _LOCKED
        nr_pages = folio_nr_pages(folio)
        verdict = _shrink_folio(folio, sc, stat, ignore_references)
        if not verdict:
            folio.flags &= ~_LOCKED
            nr_reclaimed += nr_pages
            free_folios.append(folio)
            if len(free_folios) == swap.PAGEVEC_SIZE:
                _free_folios(free_folios)
            continue
        if verdict == FOLIOREF_ACTIVATE:
            mlocked = folio.flags >> PG_mlocked & 1
            if folio.flags & _SWAPCACHE and (memcontrol.mem_cgroup_swap_full(folio) or mlocked):
                swapfile.folio_free_swap(folio)
            if not mlocked:
                folio.flags |= _ACTIVE
                stat.nr_activate[folio_is_file_lru(folio)] += nr_pages
        folio.flags &= ~_LOCKED
        list_add(folio, ret_folios)
    _free_folios(free_folios)
    while not list_empty(ret_folios):
        list_move_tail(ret_folios.next, folio_list)
    m.vm_event[PGACTIVATE] += stat.nr_activate[0] + stat.nr_activate[1]
    return nr_reclaimed, stat


def _free_folios(folios: list[Folio]) -> None:
    for folio in folios:
        swap.folio_put(folio)
    folios.clear()


def move_folios_to_lru(lruvec: Lruvec, folios: ListHead) -> int:
    """Put isolated folios back where they belong now, and free those that nobody holds any more.

    :return: pages put back

    Mirrors mm/vmscan.c:move_folios_to_lru().
    """
    nr_moved = 0
    while not list_empty(folios):
        folio: Folio = folios.prev
        list_del(folio)
        if not inline.folio_evictable(folio):
            folio.flags &= ~_ACTIVE
            swap.folio_add_lru(folio)
            swap.folio_put(folio)
            continue
        if folio._refcount == 1:
            folio.flags &= ~(_ACTIVE | 1 << PG_unevictable)
            swap.folio_put(folio)
            continue
        folio._refcount -= 1
        folio.flags |= _LRU
        was_active = folio.flags & _ACTIVE
        inline.lruvec_add_folio(lruvec, folio)
        nr_moved += folio_nr_pages(folio)
        if was_active and not lruvec.lrugen.enabled:
            workingset.workingset_age_nonresident(lruvec, folio_nr_pages(folio))
    return nr_moved


# --- two lists --------------------------------------------------------------------------------


def isolate_lru_folios(
    nr_to_scan: int, lruvec: Lruvec, dst: ListHead, sc: ScanControl, lru: int
) -> tuple[int, int]:
    """Take folios off the tail of a list; those of zones that are not wanted go back to its head.

    :return: (pages taken, pages looked at)

    Mirrors mm/vmscan.c:isolate_lru_folios().
    """
    m = lruvec.pgdat.machine
    src = lruvec.lists[lru]
    folios_skipped = ListHead()
    nr_skipped = [0] * MAX_NR_ZONES
    taken = [0] * MAX_NR_ZONES
    total_scan = scan = 0
    while scan < nr_to_scan and not list_empty(src):
        folio: Folio = src.prev
        nr_pages = folio_nr_pages(folio)
        zid = folio.zone.zone_idx
        total_scan += nr_pages
        if zid > sc.reclaim_idx:
            nr_skipped[zid] += nr_pages
            list_move(folio, folios_skipped)
            continue
        scan += nr_pages
        if not folio.flags & _LRU or (not sc.may_unmap and rmap.folio_mapcount(folio)):
            list_move(folio, src)
            continue
        swap.folio_get(folio)
        folio.flags &= ~_LRU
        taken[zid] += nr_pages
        list_move(folio, dst)
    while not list_empty(folios_skipped):
        list_move(folios_skipped.prev, src)
    for zid in range(MAX_NR_ZONES):
        m.vm_event[PGSCAN_SKIP_DMA + zid] += nr_skipped[zid]
        if taken[zid]:
            inline.update_lru_size(lruvec, lru, zid, -taken[zid])
    if m.trace.on:
        values = sc.reclaim_idx, sc.order, nr_to_scan, total_scan, sum(nr_skipped), sum(taken), lru
        m.trace.emit("vmscan:mm_vmscan_lru_isolate", *values)
    return sum(taken), total_scan


def shrink_inactive_list(nr_to_scan: int, lruvec: Lruvec, sc: ScanControl, lru: int) -> int:
    """Reclaim from the tail of an inactive list; return the pages freed.

    Mirrors mm/vmscan.c:shrink_inactive_list().
    """
    pgdat = lruvec.pgdat
    m = pgdat.machine
    file = int(lru >= LRU_FILE)
    folio_list = ListHead()
    swap.lru_add_drain(m)
    nr_taken, nr_scanned = isolate_lru_folios(nr_to_scan, lruvec, folio_list, sc, lru)
    pgdat.vm_stat[NR_ISOLATED_ANON + file] += nr_taken
    _count(lruvec, sc, PGSCAN_KSWAPD + reclaimer_offset(m), nr_scanned)
    m.vm_event[PGSCAN_ANON + file] += nr_scanned
    if not nr_taken:
        return 0
    nr_reclaimed, stat = shrink_folio_list(folio_list, pgdat, sc, False)
    move_folios_to_lru(lruvec, folio_list)
    pgdat.vm_stat[NR_ISOLATED_ANON + file] -= nr_taken
    _count(lruvec, sc, PGSTEAL_KSWAPD + reclaimer_offset(m), nr_reclaimed)
    m.vm_event[PGSTEAL_ANON + file] += nr_reclaimed
    swap.lru_note_cost(lruvec, file, stat.nr_pageout, nr_scanned - nr_reclaimed)
    _trace_shrink_inactive(pgdat, nr_scanned, nr_reclaimed, stat, sc.priority, lru)
    return nr_reclaimed


def trace_reclaim_flags(file: int) -> int:
    """Return what a trace calls the kind of memory: RECLAIM_WB_ANON or _FILE, and _ASYNC.

    Mirrors include/trace/events/vmscan.h:trace_reclaim_flags().
    """
    return (2 if file else 1) | 8


def _trace_shrink_inactive(
    pgdat: PgData, scanned: int, reclaimed: int, stat: ReclaimStat, priority: int, lru: int
) -> None:
    trace = pgdat.machine.trace
    if trace.on:
        trace.emit(
            "vmscan:mm_vmscan_lru_shrink_inactive",
            pgdat.node_id,
            scanned,
            reclaimed,
            stat.nr_dirty,
            stat.nr_writeback,
            0,
            0,
            stat.nr_activate[0],
            stat.nr_activate[1],
            stat.nr_ref_keep,
            stat.nr_unmap_fail,
            priority,
            trace_reclaim_flags(lru),
        )


def shrink_active_list(nr_to_scan: int, lruvec: Lruvec, sc: ScanControl, lru: int) -> None:
    """Move folios from the tail of an active list to the inactive one; code that is used stays.

    Mirrors mm/vmscan.c:shrink_active_list().
    """
    pgdat = lruvec.pgdat
    m = pgdat.machine
    file = int(lru >= LRU_FILE)
    l_hold, l_active, l_inactive = ListHead(), ListHead(), ListHead()
    nr_rotated = 0
    swap.lru_add_drain(m)
    nr_taken, nr_scanned = isolate_lru_folios(nr_to_scan, lruvec, l_hold, sc, lru)
    pgdat.vm_stat[NR_ISOLATED_ANON + file] += nr_taken
    _count(lruvec, sc, PGREFILL, nr_scanned)
    while not list_empty(l_hold):
        folio: Folio = l_hold.prev
        list_del(folio)
        if not inline.folio_evictable(folio):
            folio.flags &= ~_ACTIVE
            swap.folio_add_lru(folio)
            swap.folio_put(folio)
            continue
        referenced, vm_flags = rmap.folio_referenced(folio, sc.target_mem_cgroup)
        if referenced and vm_flags & VM_EXEC and folio_is_file_lru(folio):
            nr_rotated += folio_nr_pages(folio)
            list_add(folio, l_active)
            continue
        folio.flags = folio.flags & ~_ACTIVE | 1 << PG_workingset
        list_add(folio, l_inactive)
    nr_activate = move_folios_to_lru(lruvec, l_active)
    nr_deactivate = move_folios_to_lru(lruvec, l_inactive)
    _count(lruvec, None, PGDEACTIVATE, nr_deactivate)
    pgdat.vm_stat[NR_ISOLATED_ANON + file] -= nr_taken
    if nr_rotated:
        swap.lru_note_cost(lruvec, file, 0, nr_rotated)
    if m.trace.on:
        flags = trace_reclaim_flags(file)
        values = nr_taken, nr_activate, nr_deactivate, nr_rotated, sc.priority, flags
        m.trace.emit("vmscan:mm_vmscan_lru_shrink_active", pgdat.node_id, *values)


def inactive_is_low(lruvec: Lruvec, inactive_lru: int) -> bool:
    """Tell whether the inactive list is too short beside the active one.

    Mirrors mm/vmscan.c:inactive_is_low().
    """
    inactive = inline.lruvec_page_state(lruvec, NR_INACTIVE_ANON + inactive_lru)
    active = inline.lruvec_page_state(lruvec, NR_INACTIVE_ANON + inactive_lru + LRU_ACTIVE)
    gb = inactive + active >> 30 - PAGE_SHIFT
    return inactive * (int_sqrt(10 * gb) if gb else 1) < active


def prepare_scan_control(pgdat: PgData, sc: ScanControl) -> None:
    """Look at a node before it is scanned: costs, what may be deactivated, is there cache to trim.

    Mirrors mm/vmscan.c:prepare_scan_control().
    """
    m = pgdat.machine
    memcg = sc.target_mem_cgroup or m.memcg.root_mem_cgroup
    target = inline.mem_cgroup_lruvec(memcg, pgdat)
    sc.anon_cost, sc.file_cost = target.anon_cost, target.file_cost
    if sc.force_deactivate:
        sc.may_deactivate = DEACTIVATE_ANON | DEACTIVATE_FILE
    else:
        for file, bit in ((0, DEACTIVATE_ANON), (1, DEACTIVATE_FILE)):
            refaults = inline.lruvec_page_state(target, WORKINGSET_ACTIVATE_ANON + file)
            changed = refaults != target.refaults[file]
            if changed or inactive_is_low(target, LRU_FILE * file):
                sc.may_deactivate |= bit
            else:
                sc.may_deactivate &= ~bit
    inactive_file = inline.lruvec_page_state(target, NR_INACTIVE_FILE)
    sc.cache_trim_mode = (
        inactive_file >> sc.priority > 0
        and not sc.may_deactivate & DEACTIVATE_FILE
        and not sc.no_cache_trim_mode
    )
    if not cgroup_reclaim(sc):
        zones = [zone for zone in pgdat.node_zones if managed_zone(zone)]
        free = sum(zone.vm_stat[NR_FREE_PAGES] for zone in zones)
        file_pages = pgdat.vm_stat[NR_ACTIVE_FILE] + pgdat.vm_stat[NR_INACTIVE_FILE]
        sc.file_is_tiny = (
            file_pages + free <= sum(high_wmark_pages(zone) for zone in zones)
            and not sc.may_deactivate & DEACTIVATE_ANON
            and pgdat.vm_stat[NR_INACTIVE_ANON] >> sc.priority > 0
        )


def scan_balance(m: Machine, memcg: MemCgroup | None, sc: ScanControl) -> str:
    """Decide how anonymous memory and page cache share the scan; the first test that is met says."""
    swappiness = sc_swappiness(m, sc)
    if not sc.may_swap or not can_reclaim_anon_pages(m, memcg):
        return SCAN_FILE
    if cgroup_reclaim(sc) and not swappiness:
        return SCAN_FILE
    if not sc.priority and swappiness:
        return SCAN_EQUAL
    if sc.file_is_tiny:
        return SCAN_ANON
    return SCAN_FILE if sc.cache_trim_mode else SCAN_FRACT


def scan_fractions(swappiness: int, anon_cost: int, file_cost: int) -> tuple[int, int]:
    """Return the weights of anonymous memory and page cache by swappiness and what they cost."""
    total_cost = anon_cost + file_cost
    anon_cost, file_cost = total_cost + anon_cost, total_cost + file_cost
    total_cost = anon_cost + file_cost
    ap = swappiness * (total_cost + 1) // (anon_cost + 1)
    return ap, (MAX_SWAPPINESS - swappiness) * (total_cost + 1) // (file_cost + 1)


def get_scan_count(lruvec: Lruvec, sc: ScanControl) -> list[int]:
    """Return how many pages of each list to scan: its size, shifted by the priority, and shared.

    Mirrors mm/vmscan.c:get_scan_count().
    """
    m = lruvec.pgdat.machine
    memcg = _memcg(lruvec)
    balance = scan_balance(m, memcg, sc)
    fraction = scan_fractions(sc_swappiness(m, sc), sc.anon_cost, sc.file_cost)
    online = memcg is None or memcontrol.mem_cgroup_online(memcg)
    nr = [0] * inline.NR_LRU_LISTS
    for lru in range(LRU_UNEVICTABLE):
        file = int(lru >= LRU_FILE)
        lruvec_size = scan = lruvec_lru_size(lruvec, lru, sc.reclaim_idx)
        low = minimum = 0
        if memcg is not None:
            minimum, low = memcontrol.mem_cgroup_protection(sc.target_mem_cgroup, memcg)
        if memcg is not None and (minimum or low):
            protection = minimum
            if not sc.memcg_low_reclaim and low > minimum:
                protection = low
                sc.memcg_low_skipped = True
            size = max(memcontrol.mem_cgroup_size(memcg), protection)
            scan = lruvec_size - lruvec_size * protection // (size + 1)
            scan = max(scan, SWAP_CLUSTER_MAX)
        scan >>= sc.priority
        if not scan and not online:
            scan = min(lruvec_size, SWAP_CLUSTER_MAX)
        if balance == SCAN_FRACT:
            scan *= fraction[file]
            denominator = sum(fraction)
            scan = scan // denominator if online else -(-scan // denominator)
        elif balance != SCAN_EQUAL and (balance == SCAN_FILE) != bool(file):
            scan = 0
        nr[lru] = scan
    return nr


def shrink_list(lru: int, nr_to_scan: int, lruvec: Lruvec, sc: ScanControl) -> int:
    """Scan one list: an active one only if it may be deactivated. Return the pages freed.

    Mirrors mm/vmscan.c:shrink_list().
    """
    if lru & LRU_ACTIVE:
        if sc.may_deactivate & (1 << (lru >= LRU_FILE)):
            shrink_active_list(nr_to_scan, lruvec, sc, lru)
        else:
            sc.skipped_deactivate = True
        return 0
    return shrink_inactive_list(nr_to_scan, lruvec, sc, lru)


def shrink_lruvec(lruvec: Lruvec, sc: ScanControl) -> None:
    """Reclaim from the lists of one group on one node, 32 pages of each list in turn.

    Mirrors mm/vmscan.c:shrink_lruvec().
    """
    m = lruvec.pgdat.machine
    if lru_gen_enabled(m) and not root_reclaim(sc):
        lru_gen_shrink_lruvec(lruvec, sc)
        return
    nr = get_scan_count(lruvec, sc)
    targets = nr.copy()
    nr_reclaimed = 0
    direct = not cgroup_reclaim(sc) and not current_is_kswapd(m)
    proportional_reclaim = direct and sc.priority == DEF_PRIORITY
    while nr[LRU_INACTIVE_ANON] or nr[inline.LRU_ACTIVE_FILE] or nr[LRU_INACTIVE_FILE]:
        for lru in range(LRU_UNEVICTABLE):
            if nr[lru]:
                nr_to_scan = min(nr[lru], SWAP_CLUSTER_MAX)
                nr[lru] -= nr_to_scan
                nr_reclaimed += shrink_list(lru, nr_to_scan, lruvec, sc)
        if nr_reclaimed < sc.nr_to_reclaim or proportional_reclaim:
            continue
        if not _cut_the_rest(nr, targets):
            break
    sc.nr_reclaimed += nr_reclaimed
    if m.total_swap_pages > 0 and inactive_is_low(lruvec, LRU_INACTIVE_ANON):
        shrink_active_list(SWAP_CLUSTER_MAX, lruvec, sc, LRU_ACTIVE_ANON)


def _cut_the_rest(nr: list[int], targets: list[int]) -> bool:
    """After the goal: stop the kind with less left, and cut the other to the same share.

    :return: False if only one kind was left
    """
    nr_file, nr_anon = nr[2] + nr[3], nr[0] + nr[1]
    if not nr_file or not nr_anon:
        return False
    stop, other = (0, LRU_FILE) if nr_file > nr_anon else (LRU_FILE, 0)
    percentage = min(nr_anon, nr_file) * 100 // (targets[stop] + targets[stop + 1] + 1)
    nr[stop] = nr[stop + 1] = 0
    for lru in (other, other + 1):
        nr_scanned = targets[lru] - nr[lru]
        nr[lru] = targets[lru] * (100 - percentage) // 100
        nr[lru] -= min(nr[lru], nr_scanned)
    return True


# --- generations ------------------------------------------------------------------------------


def get_nr_gens(lruvec: Lruvec, kind: int) -> int:
    """Return how many generations of one type there are.

    Mirrors mm/vmscan.c:get_nr_gens().
    """
    return lruvec.lrugen.max_seq - lruvec.lrugen.min_seq[kind] + 1


def get_swappiness(lruvec: Lruvec, sc: ScanControl) -> int:
    """Return the swappiness, 0 without swap space for a batch.

    Mirrors mm/vmscan.c:get_swappiness().
    """
    m = lruvec.pgdat.machine
    memcg = _memcg(lruvec)
    if not sc.may_swap:
        return 0
    slots = m.nr_swap_pages if memcg is None else memcontrol.mem_cgroup_get_nr_swap_pages(m, memcg)
    return 0 if slots < MIN_LRU_BATCH else sc_swappiness(m, sc)


def positive_ctrl_err(sp: tuple[int, int, int], pv: tuple[int, int, int]) -> bool:
    """Tell whether @pv refaults less than @sp, each (refaulted, total, gain).

    Mirrors mm/vmscan.c:positive_ctrl_err().
    """
    if pv[0] < MIN_LRU_BATCH:
        return True
    return pv[0] * (sp[1] + MIN_LRU_BATCH) * sp[2] <= (sp[0] + 1) * pv[1] * pv[2]


def read_ctrl_pos(lruvec: Lruvec, kind: int, tier: int, gain: int) -> tuple[int, int, int]:
    """Return (refaulted, evicted and protected, gain) of one tier, the past half-weighted.

    Mirrors mm/vmscan.c:read_ctrl_pos().
    """
    g = lruvec.lrugen
    total = g.avg_total[kind][tier] + g.evicted[0][kind][tier]
    if tier:
        total += g.protected[0][kind][tier - 1]
    return g.avg_refaulted[kind][tier] + g.refaulted[0][kind][tier], total, gain


def reset_ctrl_pos(lruvec: Lruvec, kind: int) -> None:
    """Fold what happened in the oldest generation into the averages when the next one is the oldest.

    Mirrors mm/vmscan.c:reset_ctrl_pos().
    """
    g = lruvec.lrugen
    for tier in range(MAX_NR_TIERS):
        refaulted, total, _ = read_ctrl_pos(lruvec, kind, tier, 0)
        g.avg_refaulted[kind][tier] = refaulted // 2
        g.avg_total[kind][tier] = total // 2
        g.refaulted[0][kind][tier] = g.evicted[0][kind][tier] = 0
        if tier:
            g.protected[0][kind][tier - 1] = 0


def folio_update_gen(folio: Folio, gen: int) -> int:
    """Write a generation into a folio's flags; it moves to its list later. Return the old slot.

    Mirrors mm/vmscan.c:folio_update_gen().
    """
    old_gen = inline.folio_lru_gen(folio)
    if old_gen < 0:
        folio.flags |= _REFERENCED
    else:
        keep = ~(LRU_GEN_MASK | LRU_REFS_MASK | LRU_REFS_FLAGS)
        folio.flags = folio.flags & keep | (gen + 1) << LRU_GEN_PGOFF
    return old_gen


def folio_inc_gen(lruvec: Lruvec, folio: Folio) -> int:
    """Move a folio of the oldest generation to the next one, unless its flags name a younger one.

    Mirrors mm/vmscan.c:folio_inc_gen().
    """
    old_gen = lru_gen_from_seq(lruvec.lrugen.min_seq[folio_is_file_lru(folio)])
    new_gen = inline.folio_lru_gen(folio)
    if new_gen >= 0 and new_gen != old_gen:
        return new_gen
    new_gen = (old_gen + 1) % MAX_NR_GENS
    folio_update_gen(folio, new_gen)
    inline.lru_gen_update_size(lruvec, folio, old_gen, new_gen)
    return new_gen


def _promote(lruvec: Lruvec, folio: Folio) -> None:
    """Write the youngest generation into a folio that was found young."""
    new_gen = lru_gen_from_seq(lruvec.lrugen.max_seq)
    old_gen = folio_update_gen(folio, new_gen)
    if old_gen >= 0 and old_gen != new_gen:
        inline.lru_gen_update_size(lruvec, folio, old_gen, new_gen)


def _young_folio(lruvec: Lruvec, vma: VmAreaStruct, pte: int, can_swap: bool) -> Folio | None:
    """Return the folio that a young entry maps, if it is on these lists and of a kind that counts."""
    from mmcore.mm import memory

    if not pg.pte_present(pte) or not pg.pte_young(pte):
        return None
    page = memory.vm_normal_page(vma, 0, pte)
    if page is None:
        return None
    folio = page_folio(page)
    if not can_swap and not folio_is_file_lru(folio):
        return None
    return folio if inline.folio_lruvec(folio) is lruvec else None


def _note_dirty(folio: Folio, pte: int) -> None:
    if pg.pte_dirty(pte) and not (
        rmap.folio_test_anon(folio) and folio.flags & _SWAPBACKED and not folio.flags & _SWAPCACHE
    ):
        folio.flags |= _DIRTY


def lru_gen_look_around(folio: Folio, vma: VmAreaStruct, address: int, ptep: pg.Ptep) -> bool:
    """Forget an access, and those of up to 64 pages around: what is young there gets younger.

    :return: the entry was accessed

    Mirrors mm/vmscan.c:lru_gen_look_around().
    """
    table, i = ptep
    if not pg.pte_young(table[i]):
        return False
    table[i] = pg.pte_mkold(table[i])
    if vma.vm_flags & VM_SPECIAL:
        return True
    m = folio.zone.machine
    lruvec = inline.folio_lruvec(folio)
    start = max(address & -pg.PMD_SIZE, vma.vm_start)
    end = min(address | pg.PMD_SIZE - 1, vma.vm_end - 1) + 1
    if end - start > MIN_LRU_BATCH * PAGE_SIZE:
        half = MIN_LRU_BATCH * PAGE_SIZE // 2
        if address - start < half:
            end = start + 2 * half
        elif end - address < half:
            start = end - 2 * half
        else:
            start, end = address - half, address + half
    can_swap = not folio_is_file_lru(folio)
    new_gen = lru_gen_from_seq(lruvec.lrugen.max_seq)
    for n in range(i - (address - start >> PAGE_SHIFT), i + (end - address >> PAGE_SHIFT)):
        pte = table[n]
        other = _young_folio(lruvec, vma, pte, can_swap)
        if other is None:
            continue
        table[n] = pg.pte_mkold(pte)
        _note_dirty(other, pte)
        if current_is_kswapd(m):
            _promote(lruvec, other)
        elif inline.folio_lru_gen(other) < 0:
            other.flags |= _REFERENCED
        elif inline.folio_lru_gen(other) != new_gen:
            other.flags &= ~(LRU_REFS_MASK | LRU_REFS_FLAGS)
            swap.folio_activate(other)
    return True


def walk_mm(lruvec: Lruvec, mm: Any, can_swap: bool) -> None:
    """Look through the page tables of one address space for accessed pages: they become the youngest.

    Mirrors mm/vmscan.c:walk_mm().
    """
    for vma in mm.mm_mt:
        if vma.vm_flags & (VM_LOCKED | VM_SPECIAL | VM_SEQ_READ | VM_RAND_READ):
            continue
        if vma.vm_file is None and not can_swap:
            continue
        for address, level, entry in list(pg.iter_leaves(mm, vma.vm_start, vma.vm_end)):
            page = _young_folio(lruvec, vma, entry, can_swap) if level == 1 else None
            if level == 2 and pg.pte_young(entry) and pg.pte_present(entry):
                folio = pfn_to_page(lruvec.pgdat.machine, pg.pmd_pfn(entry))
                page = folio if inline.folio_lruvec(folio) is lruvec else None
            ptep, _ = pg.lookup_address(mm, address)
            if page is None or ptep is None:
                continue
            ptep[0][ptep[1]] = pg.pte_mkold(entry)
            _note_dirty(page, entry)
            _promote(lruvec, page)


def inc_min_seq(lruvec: Lruvec, kind: int, can_swap: bool) -> None:
    """Merge the oldest generation of a type into the next one.

    Mirrors mm/vmscan.c:inc_min_seq().
    """
    g = lruvec.lrugen
    old_gen = lru_gen_from_seq(g.min_seq[kind])
    if kind != LRU_GEN_ANON or can_swap:
        for zone in range(MAX_NR_ZONES):
            head = g.folios[old_gen][kind][zone]
            while not list_empty(head):
                folio: Folio = head.prev
                new_gen = folio_inc_gen(lruvec, folio)
                list_move_tail(folio, g.folios[new_gen][kind][zone])
    reset_ctrl_pos(lruvec, kind)
    g.min_seq[kind] += 1


def try_to_inc_min_seq(lruvec: Lruvec, can_swap: bool) -> bool:
    """Drop the oldest generations that are empty, two always remain.

    Mirrors mm/vmscan.c:try_to_inc_min_seq().
    """
    g = lruvec.lrugen
    min_seq = g.min_seq.copy()
    kinds = range(0 if can_swap else 1, 2)
    for kind in kinds:
        while min_seq[kind] + MIN_NR_GENS <= g.max_seq:
            gen = lru_gen_from_seq(min_seq[kind])
            if not all(list_empty(head) for head in g.folios[gen][kind]):
                break
            min_seq[kind] += 1
    if can_swap:
        min_seq[LRU_GEN_ANON] = min(min_seq)
        min_seq[LRU_GEN_FILE] = max(min_seq[LRU_GEN_ANON], g.min_seq[LRU_GEN_FILE])
    success = False
    for kind in kinds:
        if min_seq[kind] != g.min_seq[kind]:
            reset_ctrl_pos(lruvec, kind)
            g.min_seq[kind] = min_seq[kind]
            success = True
    return success


def inc_max_seq(lruvec: Lruvec, can_swap: bool) -> None:
    """Start a new youngest generation; the third youngest is not active any more.

    Mirrors mm/vmscan.c:inc_max_seq().
    """
    g = lruvec.lrugen
    for kind in (LRU_GEN_FILE, LRU_GEN_ANON):
        if get_nr_gens(lruvec, kind) == MAX_NR_GENS:
            inc_min_seq(lruvec, kind, can_swap)
    prev = lru_gen_from_seq(g.max_seq - 1)
    following = lru_gen_from_seq(g.max_seq + 1)
    for kind in range(2):
        for zone in range(MAX_NR_ZONES):
            delta = g.nr_pages[prev][kind][zone] - g.nr_pages[following][kind][zone]
            if delta:
                inline._update_zone(lruvec, kind * LRU_FILE, zone, delta)
                inline._update_zone(lruvec, kind * LRU_FILE + LRU_ACTIVE, zone, -delta)
    g.timestamps[following] = lruvec.pgdat.machine.jiffies
    g.max_seq += 1


def try_to_inc_max_seq(lruvec: Lruvec, can_swap: bool) -> bool:
    """Age: walk the page tables of the group's address spaces, then start a new generation.

    Mirrors mm/vmscan.c:try_to_inc_max_seq().
    """
    m = lruvec.pgdat.machine
    for mm in m.pgd_list if m.lru_gen_caps & 2 else ():
        memcg = _memcg(lruvec)
        if memcg is None or memcontrol.mem_cgroup_from_task(m, mm.owner) is memcg:
            walk_mm(lruvec, mm, can_swap)
    inc_max_seq(lruvec, can_swap)
    return True


def should_run_aging(lruvec: Lruvec, can_swap: bool) -> tuple[bool, int]:
    """Tell whether a new generation is due: (due, pages that could be evicted).

    Mirrors mm/vmscan.c:should_run_aging().
    """
    g = lruvec.lrugen
    oldest = g.min_seq[0 if can_swap else 1]
    if oldest + MIN_NR_GENS > g.max_seq:
        return True, 0
    old = young = total = 0
    for kind in range(0 if can_swap else 1, 2):
        for seq in range(g.min_seq[kind], g.max_seq + 1):
            size = sum(max(0, n) for n in g.nr_pages[lru_gen_from_seq(seq)][kind])
            total += size
            if seq == g.max_seq:
                young += size
            elif seq + MIN_NR_GENS == g.max_seq:
                old += size
    if oldest + MIN_NR_GENS < g.max_seq:
        return False, total
    return young * MIN_NR_GENS > total or old * (MIN_NR_GENS + 2) < total, total


def get_nr_to_scan(lruvec: Lruvec, sc: ScanControl, can_swap: bool) -> int:
    """Return how many pages to scan; -1 when the generations were aged, or the group is protected.

    Mirrors mm/vmscan.c:get_nr_to_scan().
    """
    memcg = _memcg(lruvec)
    if memcg is not None and memcontrol.mem_cgroup_below_min(sc.target_mem_cgroup, memcg):
        return -1
    due, nr_to_scan = should_run_aging(lruvec, can_swap)
    if nr_to_scan and memcg is not None and not memcontrol.mem_cgroup_online(memcg):
        return nr_to_scan
    if not due or sc.priority == DEF_PRIORITY:
        return nr_to_scan >> sc.priority
    return -1 if try_to_inc_max_seq(lruvec, can_swap) else 0


def sort_folio(lruvec: Lruvec, folio: Folio, sc: ScanControl, tier_idx: int) -> bool:
    """Move a folio that is not to be evicted now to another generation; False if it may be evicted.

    Mirrors mm/vmscan.c:sort_folio().
    """
    g = lruvec.lrugen
    gen = inline.folio_lru_gen(folio)
    kind = folio_is_file_lru(folio)
    zone = folio.zone.zone_idx
    refs = inline.folio_lru_refs(folio)
    tier = inline.lru_tier_from_refs(refs)
    if not inline.folio_evictable(folio):
        return False
    if gen != lru_gen_from_seq(g.min_seq[kind]):
        list_move(folio, g.folios[gen][kind][zone])
        return True
    protect = tier > tier_idx or refs == 1 << LRU_REFS_WIDTH
    if protect or zone > sc.reclaim_idx:
        list_move_tail(folio, g.folios[folio_inc_gen(lruvec, folio)][kind][zone])
        if protect:
            g.protected[0][kind][tier - 1] += folio_nr_pages(folio)
        return True
    return False


def isolate_folio(lruvec: Lruvec, folio: Folio, sc: ScanControl) -> bool:
    """Take a folio out of its generation, unless it needs I/O that is not allowed.

    Mirrors mm/vmscan.c:isolate_folio().
    """
    if not sc.gfp_mask & _GFP_IO and (
        (folio.flags & _DIRTY and not folio_is_file_lru(folio))
        or (rmap.folio_test_anon(folio) and not folio.flags & _SWAPCACHE)
    ):
        return False
    if not folio.flags & _LRU:
        return False
    swap.folio_get(folio)
    folio.flags &= ~_LRU
    if not folio.flags & _REFERENCED:
        folio.flags &= ~(LRU_REFS_MASK | LRU_REFS_FLAGS)
    folio.flags &= ~_REFERENCED
    inline.lru_gen_del_folio(lruvec, folio, True)
    return True


def scan_folios(lruvec: Lruvec, sc: ScanControl, kind: int, tier: int, folios: ListHead) -> int:
    """Take up to 64 pages off the oldest generation of a type; return the pages looked at.

    Mirrors mm/vmscan.c:scan_folios().
    """
    m = lruvec.pgdat.machine
    if get_nr_gens(lruvec, kind) == MIN_NR_GENS:
        return 0
    gen = lru_gen_from_seq(lruvec.lrugen.min_seq[kind])
    sorted_ = scanned = isolated = skipped = 0
    remaining = MAX_LRU_BATCH
    for i in range(MAX_NR_ZONES, 0, -1):
        moved = ListHead()
        skipped_zone = 0
        zone = (sc.reclaim_idx + i) % MAX_NR_ZONES
        head = lruvec.lrugen.folios[gen][kind][zone]
        while not list_empty(head):
            folio: Folio = head.prev
            delta = folio_nr_pages(folio)
            scanned += delta
            if sort_folio(lruvec, folio, sc, tier):
                sorted_ += delta
            elif isolate_folio(lruvec, folio, sc):
                list_add(folio, folios)
                isolated += delta
            else:
                list_move(folio, moved)
                skipped_zone += delta
            remaining -= 1
            if not remaining or max(isolated, skipped_zone) >= MIN_LRU_BATCH:
                break
        if skipped_zone:
            while not list_empty(moved):
                list_move(moved.prev, head)
            m.vm_event[PGSCAN_SKIP_DMA + zone] += skipped_zone
            skipped += skipped_zone
        if not remaining or isolated >= MIN_LRU_BATCH:
            break
    _count(lruvec, sc, PGSCAN_KSWAPD + reclaimer_offset(m), isolated)
    _count(lruvec, sc, PGREFILL, sorted_)
    m.vm_event[PGSCAN_ANON + kind] += isolated
    if m.trace.on:
        values = sc.reclaim_idx, sc.order, MAX_LRU_BATCH, scanned, skipped, isolated
        m.trace.emit("vmscan:mm_vmscan_lru_isolate", *values, kind * LRU_FILE)
    return scanned if isolated or not remaining else 0


def get_tier_idx(lruvec: Lruvec, kind: int) -> int:
    """Return the last tier whose folios may be evicted: those above refault more than the first.

    Mirrors mm/vmscan.c:get_tier_idx().
    """
    sp = read_ctrl_pos(lruvec, kind, 0, 1)
    for tier in range(1, MAX_NR_TIERS):
        if not positive_ctrl_err(sp, read_ctrl_pos(lruvec, kind, tier, 2)):
            return tier - 1
    return MAX_NR_TIERS - 1


def get_type_to_scan(lruvec: Lruvec, swappiness: int) -> tuple[int, int]:
    """Return the type that refaults less, weighted by swappiness, and its last tier to evict.

    Mirrors mm/vmscan.c:get_type_to_scan().
    """
    gain = (swappiness, MAX_SWAPPINESS - swappiness)
    sp = read_ctrl_pos(lruvec, LRU_GEN_ANON, 0, gain[0])
    pv = read_ctrl_pos(lruvec, LRU_GEN_FILE, 0, gain[1])
    kind = int(positive_ctrl_err(sp, pv))
    sp = read_ctrl_pos(lruvec, 1 - kind, 0, gain[1 - kind])
    for tier in range(1, MAX_NR_TIERS):
        if not positive_ctrl_err(sp, read_ctrl_pos(lruvec, kind, tier, gain[kind])):
            return kind, tier - 1
    return kind, MAX_NR_TIERS - 1


def isolate_folios(
    lruvec: Lruvec, sc: ScanControl, swappiness: int, folios: ListHead
) -> tuple[int, int]:
    """Choose a type and take a batch; the other type if that one has none.

    :return: (pages looked at, type)

    Mirrors mm/vmscan.c:isolate_folios().
    """
    min_seq = lruvec.lrugen.min_seq
    tier = -1
    if not swappiness:
        kind = LRU_GEN_FILE
    elif min_seq[LRU_GEN_ANON] < min_seq[LRU_GEN_FILE]:
        kind = LRU_GEN_ANON
    elif swappiness == 1:
        kind = LRU_GEN_FILE
    elif swappiness == MAX_SWAPPINESS:
        kind = LRU_GEN_ANON
    elif not sc.gfp_mask & _GFP_IO:
        kind = LRU_GEN_FILE
    else:
        kind, tier = get_type_to_scan(lruvec, swappiness)
    scanned = 0
    for _ in range(2 if swappiness else 1):
        if tier < 0:
            tier = get_tier_idx(lruvec, kind)
        scanned = scan_folios(lruvec, sc, kind, tier, folios)
        if scanned:
            break
        kind, tier = 1 - kind, -1
    return scanned, kind


def _sort_out_unreclaimed(folios: ListHead, skip_retry: bool) -> ListHead:
    """Take those folios off the list that became clean and free meanwhile; they are tried again."""
    clean = ListHead()
    busy = _ACTIVE | _REFERENCED | _LOCKED | _DIRTY | _WRITEBACK
    for folio in reversed(list(folios)):
        if not inline.folio_evictable(folio):
            continue
        if folio.flags >> PG_reclaim & 1 and folio.flags & (_DIRTY | _WRITEBACK):
            if folio.flags >> PG_workingset & 1:
                folio.flags |= _REFERENCED
            continue
        if skip_retry or folio.flags & busy or rmap.folio_mapcount(folio):
            folio.flags = folio.flags & ~(LRU_REFS_MASK | LRU_REFS_FLAGS) | _ACTIVE
            continue
        list_move(folio, clean)
    return clean


def evict_folios(lruvec: Lruvec, sc: ScanControl, swappiness: int) -> int:
    """Evict one batch of the oldest generation; return the pages looked at, 0 when there is nothing.

    Mirrors mm/vmscan.c:evict_folios().
    """
    pgdat = lruvec.pgdat
    m = pgdat.machine
    folios = ListHead()
    scanned, kind = isolate_folios(lruvec, sc, swappiness, folios)
    scanned += try_to_inc_min_seq(lruvec, swappiness > 0)
    if get_nr_gens(lruvec, 0 if swappiness else 1) == MIN_NR_GENS:
        scanned = 0
    skip_retry = False
    while not list_empty(folios):
        reclaimed, stat = shrink_folio_list(folios, pgdat, sc, False)
        sc.nr_reclaimed += reclaimed
        _trace_shrink_inactive(pgdat, scanned, reclaimed, stat, sc.priority, kind * LRU_FILE)
        clean = _sort_out_unreclaimed(folios, skip_retry)
        move_folios_to_lru(lruvec, folios)
        _count(lruvec, sc, PGSTEAL_KSWAPD + reclaimer_offset(m), reclaimed)
        m.vm_event[PGSTEAL_ANON + kind] += reclaimed
        while not list_empty(clean):
            list_move_tail(clean.next, folios)
        skip_retry = True
    return scanned


def should_abort_scan(lruvec: Lruvec, sc: ScanControl) -> bool:
    """Tell whether a global reclaim has enough.

    Mirrors mm/vmscan.c:should_abort_scan().
    """
    if not root_reclaim(sc):
        return False
    if sc.nr_reclaimed >= max(sc.nr_to_reclaim, compaction.compact_gap(sc.order)):
        return True
    if not current_is_kswapd(lruvec.pgdat.machine) or sc.order:
        return False
    for zone in lruvec.pgdat.node_zones[: sc.reclaim_idx + 1]:
        size = high_wmark_pages(zone) + MIN_LRU_BATCH
        if managed_zone(zone) and not page_alloc.zone_watermark_ok(
            zone, 0, size, sc.reclaim_idx, 0
        ):
            return False
    return True


def try_to_shrink_lruvec(lruvec: Lruvec, sc: ScanControl) -> bool:
    """Evict batch by batch until the share of this priority is done; True if the lists were aged.

    Mirrors mm/vmscan.c:try_to_shrink_lruvec().
    """
    scanned = 0
    swappiness = get_swappiness(lruvec, sc)
    while True:
        nr_to_scan = get_nr_to_scan(lruvec, sc, swappiness > 0)
        if nr_to_scan <= 0:
            break
        delta = evict_folios(lruvec, sc, swappiness)
        scanned += delta
        if not delta or scanned >= nr_to_scan or should_abort_scan(lruvec, sc):
            break
    return nr_to_scan < 0


def lru_gen_shrink_lruvec(lruvec: Lruvec, sc: ScanControl) -> None:
    """Reclaim from the generations of one group because of a limit.

    Mirrors mm/vmscan.c:lru_gen_shrink_lruvec().
    """
    swap.lru_add_drain(lruvec.pgdat.machine)
    try_to_shrink_lruvec(lruvec, sc)


def set_initial_priority(pgdat: PgData, sc: ScanControl) -> None:
    """Start where the first round can be expected to reach the goal: priority 6 to 12.

    Mirrors mm/vmscan.c:set_initial_priority().
    """
    if sc.priority != DEF_PRIORITY or sc.nr_to_reclaim < MIN_LRU_BATCH:
        return
    reclaimable = max(0, pgdat.vm_stat[NR_INACTIVE_FILE])
    if can_reclaim_anon_pages(pgdat.machine, None):
        reclaimable += max(0, pgdat.vm_stat[NR_INACTIVE_ANON])
    priority = reclaimable.bit_length() - 1 - (sc.nr_to_reclaim - 1).bit_length()
    sc.priority = clamp(priority, DEF_PRIORITY // 2, DEF_PRIORITY)


def lru_gen_shrink_node(pgdat: PgData, sc: ScanControl) -> None:
    """Reclaim from the generations of all groups on a node.

    Mirrors mm/vmscan.c:lru_gen_shrink_node().
    """
    m = pgdat.machine
    reclaimed = sc.nr_reclaimed
    if sc.may_writepage and sc.may_unmap:
        swap.lru_add_drain(m)
        set_initial_priority(pgdat, sc)
        if current_is_kswapd(m):
            sc.nr_reclaimed = 0
        for lruvec in _lruvecs(pgdat, None):
            memcg = _memcg(lruvec)
            if memcg is not None and _protected(m, sc, memcg):
                continue
            try_to_shrink_lruvec(lruvec, sc)
            shrink_slab(m, sc.gfp_mask, pgdat.node_id, sc.priority)
            if memcg is not None and should_abort_scan(lruvec, sc):
                break
        if current_is_kswapd(m):
            sc.nr_reclaimed += reclaimed
    if sc.nr_reclaimed > reclaimed:
        pgdat.kswapd_failures = 0


def lru_gen_change_state(m: Machine, enabled: bool) -> None:
    """Switch between generations and lists, moving every folio: ``/sys/kernel/mm/lru_gen/enabled``.

    Mirrors mm/vmscan.c:lru_gen_change_state().
    """
    if enabled == lru_gen_enabled(m):
        return
    swap.lru_add_drain_all(m)
    m.lru_gen_caps = 7 if enabled else 0
    for lruvec in list(inline.for_each_lruvec(m)):
        heads = lruvec.lists[:LRU_UNEVICTABLE]
        if not enabled:
            g = lruvec.lrugen
            heads = [h for gens in g.folios for kinds in gens for h in kinds]
        found = [folio for head in heads for folio in reversed(list(head))]
        for folio in found:
            inline.lruvec_del_folio(lruvec, folio)
        lruvec.lrugen.enabled = enabled
        for folio in found:
            inline.lruvec_add_folio(lruvec, folio)


# --- shrinkers --------------------------------------------------------------------------------


def do_shrink_slab(m: Machine, shrinker: Shrinker, nid: int, priority: int) -> int:
    """Ask one cache for its share: freeable objects, shifted by the priority, by what they cost.

    Mirrors mm/shrinker.c:do_shrink_slab().
    """
    freeable = shrinker.count_objects(nid)
    if freeable <= 0:
        return 0
    nr = shrinker.nr_deferred.get(nid, 0)
    delta = (freeable >> priority) * 4 // shrinker.seeks if shrinker.seeks else freeable // 2
    total_scan = min((nr >> priority) + delta, 2 * freeable)
    batch_size = shrinker.batch or 128
    freed = scanned = 0
    while total_scan >= batch_size or total_scan >= freeable:
        nr_to_scan = min(batch_size, total_scan)
        ret = shrinker.scan_objects(nid, nr_to_scan)
        if ret is None:
            break
        freed += ret
        m.vm_event[SLABS_SCANNED] += nr_to_scan
        total_scan -= nr_to_scan
        scanned += nr_to_scan
        if not total_scan:
            break
    shrinker.nr_deferred[nid] = min(max(nr + delta - scanned, 0), 2 * freeable)
    return freed


def shrink_slab(m: Machine, gfp_mask: int, nid: int, priority: int) -> int:
    """Ask all caches; return the objects freed.

    Mirrors mm/shrinker.c:shrink_slab().
    """
    return sum(do_shrink_slab(m, shrinker, nid, priority) for shrinker in m.shrinkers)


# --- nodes ------------------------------------------------------------------------------------


def _lruvecs(pgdat: PgData, root: MemCgroup | None) -> Iterator[Lruvec]:
    """Yield the lists of @root and all groups below it on a node."""
    m = pgdat.machine
    if memcontrol.mem_cgroup_disabled(m):
        yield inline.node_lruvec(pgdat)
        return
    memcg = memcontrol.mem_cgroup_iter(m, root, None)
    while memcg is not None:
        yield inline.mem_cgroup_lruvec(memcg, pgdat)
        memcg = memcontrol.mem_cgroup_iter(m, root, memcg)


def _protected(m: Machine, sc: ScanControl, memcg: MemCgroup) -> bool:
    """Tell whether a group keeps its memory: it is below min, or below low in a first attempt."""
    target = sc.target_mem_cgroup
    memcontrol.mem_cgroup_calculate_protection(m, target, memcg)
    if memcontrol.mem_cgroup_below_min(target, memcg):
        return True
    if memcontrol.mem_cgroup_below_low(target, memcg):
        if not sc.memcg_low_reclaim:
            sc.memcg_low_skipped = True
            return True
        memcontrol.memcg_memory_event(memcg, memcontrol.MEMCG_LOW)
    return False


def shrink_node_memcgs(pgdat: PgData, sc: ScanControl) -> None:
    """Reclaim from each group of a node in turn.

    Simplified: a limited reclaim begins with the first group each time, not where the last ended.

    Mirrors mm/vmscan.c:shrink_node_memcgs().
    """
    m = pgdat.machine
    partial = not current_is_kswapd(m) and not sc.memcg_full_walk
    for lruvec in list(_lruvecs(pgdat, sc.target_mem_cgroup)):
        memcg = _memcg(lruvec)
        if memcg is not None and _protected(m, sc, memcg):
            continue
        shrink_lruvec(lruvec, sc)
        shrink_slab(m, sc.gfp_mask, pgdat.node_id, sc.priority)
        if partial and sc.nr_reclaimed >= sc.nr_to_reclaim:
            break


def shrink_node(pgdat: PgData, sc: ScanControl) -> None:
    """Reclaim from a node at the present priority.

    Mirrors mm/vmscan.c:shrink_node().
    """
    m = pgdat.machine
    if lru_gen_enabled(m) and root_reclaim(sc):
        lru_gen_shrink_node(pgdat, sc)
        return
    nr_reclaimed = sc.nr_reclaimed
    if not lru_gen_enabled(m):
        prepare_scan_control(pgdat, sc)
    shrink_node_memcgs(pgdat, sc)
    if sc.nr_reclaimed > nr_reclaimed:
        pgdat.kswapd_failures = 0
    elif sc.cache_trim_mode:
        sc.cache_trim_mode_failed = True


# --- direct reclaim ---------------------------------------------------------------------------


def snapshot_refaults(target_memcg: MemCgroup | None, pgdat: PgData) -> None:
    """Note how many refaults were activated up to now.

    Mirrors mm/vmscan.c:snapshot_refaults().
    """
    m = pgdat.machine
    if lru_gen_enabled(m):
        return
    target = inline.mem_cgroup_lruvec(target_memcg or m.memcg.root_mem_cgroup, pgdat)
    for file in range(2):
        target.refaults[file] = inline.lruvec_page_state(target, WORKINGSET_ACTIVATE_ANON + file)


def shrink_zones(zonelist: Zonelist, sc: ScanControl) -> None:
    """Reclaim from each node that the request may use.

    Mirrors mm/vmscan.c:shrink_zones().
    """
    last_pgdat = None
    for zone in page_alloc.for_each_zone_zonelist_nodemask(zonelist, sc.reclaim_idx, sc.nodemask):
        if zone.zone_pgdat is not last_pgdat:
            last_pgdat = zone.zone_pgdat
            shrink_node(zone.zone_pgdat, sc)


def do_try_to_free_pages(m: Machine, zonelist: Zonelist, sc: ScanControl) -> int:
    """Reclaim at ever lower priority numbers until the goal is met; then once more with less regard.

    Mirrors mm/vmscan.c:do_try_to_free_pages().
    """
    initial_priority = sc.priority
    while True:
        if not cgroup_reclaim(sc):
            m.vm_event[ALLOCSTALL_DMA + sc.reclaim_idx] += 1
        while sc.priority >= 0:
            sc.nr_scanned = 0
            shrink_zones(zonelist, sc)
            if sc.nr_reclaimed >= sc.nr_to_reclaim:
                break
            if sc.priority < DEF_PRIORITY - 2:
                sc.may_writepage = True
            sc.priority -= 1
        for pgdat in {z.zone.node: z.zone.zone_pgdat for z in zonelist._zonerefs}.values():
            snapshot_refaults(sc.target_mem_cgroup, pgdat)
        if sc.nr_reclaimed:
            return sc.nr_reclaimed
        if not sc.memcg_full_walk:
            sc.memcg_full_walk = True
        elif sc.skipped_deactivate:
            sc.force_deactivate, sc.skipped_deactivate = True, False
        elif sc.memcg_low_skipped:
            sc.force_deactivate, sc.memcg_low_reclaim = False, True
            sc.memcg_low_skipped = False
        else:
            return 0
        sc.priority = initial_priority


def try_to_free_pages(
    m: Machine, zonelist: Zonelist, order: int, gfp_mask: int, nodemask: int | None
) -> int:
    """Reclaim 32 pages for a request that found no memory; return the pages freed.

    Mirrors mm/vmscan.c:try_to_free_pages().
    """
    sc = ScanControl(
        nr_to_reclaim=SWAP_CLUSTER_MAX,
        gfp_mask=gfp_mask,
        reclaim_idx=gfp_.gfp_zone(gfp_mask),
        order=order,
        nodemask=nodemask,
    )
    if m.trace.on:
        m.trace.emit("vmscan:mm_vmscan_direct_reclaim_begin", order, sc.gfp_mask)
    nr_reclaimed = do_try_to_free_pages(m, zonelist, sc)
    if m.trace.on:
        m.trace.emit("vmscan:mm_vmscan_direct_reclaim_end", nr_reclaimed)
    return nr_reclaimed


def try_to_free_mem_cgroup_pages(
    memcg: MemCgroup, nr_pages: int, gfp_mask: int, reclaim_options: int, swappiness: int | None
) -> int:
    """Reclaim at least 32 pages from a group and those below it; return the pages freed.

    Mirrors mm/vmscan.c:try_to_free_mem_cgroup_pages().
    """
    m = memcg.machine
    mask = gfp_.GFP_RECLAIM_MASK
    sc = ScanControl(
        nr_to_reclaim=max(nr_pages, SWAP_CLUSTER_MAX),
        proactive_swappiness=swappiness,
        gfp_mask=gfp_mask & mask | gfp_.GFP_HIGHUSER_MOVABLE & ~mask,
        target_mem_cgroup=memcg,
        may_swap=reclaim_options & memcontrol.MEMCG_RECLAIM_MAY_SWAP != 0,
        proactive=reclaim_options & memcontrol.MEMCG_RECLAIM_PROACTIVE != 0,
    )
    nid = m.cpu_to_node[m.this_cpu]
    task = m.current if m.current is not None else m.init_task
    before = task.flags & PF_MEMALLOC
    task.flags |= PF_MEMALLOC
    nr_reclaimed = do_try_to_free_pages(m, page_alloc.node_zonelist(m, nid, sc.gfp_mask), sc)
    task.flags = task.flags & ~PF_MEMALLOC | before
    return nr_reclaimed


# --- kswapd -----------------------------------------------------------------------------------


def pgdat_balanced(pgdat: PgData, order: int, highest_zoneidx: int) -> bool:
    """Tell whether one of the zones that the request may use is above its high watermark.

    Mirrors mm/vmscan.c:pgdat_balanced().
    """
    zones = [z for z in pgdat.node_zones[: highest_zoneidx + 1] if managed_zone(z)]
    return not zones or any(
        page_alloc.zone_watermark_ok_safe(zone, order, high_wmark_pages(zone), highest_zoneidx)
        for zone in zones
    )


def kswapd_shrink_node(pgdat: PgData, sc: ScanControl) -> bool:
    """Reclaim at the present priority; True if as much was scanned as is to be reclaimed.

    Mirrors mm/vmscan.c:kswapd_shrink_node().
    """
    nr_reclaimed = sc.nr_reclaimed
    sc.nr_to_reclaim = sum(
        max(high_wmark_pages(zone), SWAP_CLUSTER_MAX)
        for zone in pgdat.node_zones[: sc.reclaim_idx + 1]
        if managed_zone(zone)
    )
    shrink_node(pgdat, sc)
    if sc.order and sc.nr_reclaimed >= compaction.compact_gap(sc.order):
        sc.order = 0
    return max(sc.nr_scanned, sc.nr_reclaimed - nr_reclaimed) >= sc.nr_to_reclaim


def kswapd_age_node(pgdat: PgData, sc: ScanControl) -> None:
    """Refill the inactive anonymous list; with generations choose where to start.

    Mirrors mm/vmscan.c:kswapd_age_node().
    """
    m = pgdat.machine
    if lru_gen_enabled(m):
        set_initial_priority(pgdat, sc)
        return
    root = inline.mem_cgroup_lruvec(m.memcg.root_mem_cgroup, pgdat)
    if m.total_swap_pages > 0 and inactive_is_low(root, LRU_INACTIVE_ANON):
        for lruvec in list(_lruvecs(pgdat, None)):
            shrink_active_list(SWAP_CLUSTER_MAX, lruvec, sc, LRU_ACTIVE_ANON)


def _balance_loop(pgdat: PgData, sc: ScanControl, highest: int, nr_boost_reclaim: int) -> str:
    """One pass of `balance_pgdat()` over the priorities: "out", "restart" or "" at the end of it."""
    sc.priority = DEF_PRIORITY
    while sc.priority >= 1:
        nr_reclaimed = sc.nr_reclaimed
        raise_priority = True
        sc.reclaim_idx = highest
        balanced = pgdat_balanced(pgdat, sc.order, highest)
        if not balanced and nr_boost_reclaim:
            return "restart"
        if not nr_boost_reclaim and balanced:
            return "out"
        if nr_boost_reclaim and sc.priority == DEF_PRIORITY - 2:
            raise_priority = False
        sc.may_writepage = sc.may_swap = not nr_boost_reclaim
        kswapd_age_node(pgdat, sc)
        if sc.priority < DEF_PRIORITY - 2:
            sc.may_writepage = True
        sc.nr_scanned = 0
        if kswapd_shrink_node(pgdat, sc):
            raise_priority = False
        nr_reclaimed = sc.nr_reclaimed - nr_reclaimed
        nr_boost_reclaim -= min(nr_boost_reclaim, nr_reclaimed)
        if nr_boost_reclaim and not nr_reclaimed:
            return ""
        if raise_priority or not nr_reclaimed:
            sc.priority -= 1
    return ""


def balance_pgdat(pgdat: PgData, order: int, highest_zoneidx: int) -> int:
    """Reclaim until the node is balanced, or nothing more can be had; return the order still aimed at.

    Mirrors mm/vmscan.c:balance_pgdat().
    """
    m = pgdat.machine
    sc = ScanControl(gfp_mask=gfp_.GFP_KERNEL, order=order)
    m.vm_event[PAGEOUTRUN] += 1
    zones = pgdat.node_zones[: highest_zoneidx + 1]
    zone_boosts = [zone.watermark_boost if managed_zone(zone) else 0 for zone in zones]
    nr_boost_reclaim = sum(zone_boosts)
    while True:
        end = _balance_loop(pgdat, sc, highest_zoneidx, nr_boost_reclaim)
        if end == "restart":
            nr_boost_reclaim = 0
            continue
        exhausted = not end and not sc.nr_reclaimed and sc.priority < 1
        if exhausted and not sc.no_cache_trim_mode and sc.cache_trim_mode_failed:
            sc.no_cache_trim_mode = True
            continue
        break
    if not end and not sc.nr_reclaimed:
        pgdat.kswapd_failures += 1
    for zone, boost in zip(zones, zone_boosts, strict=True):
        zone.watermark_boost -= min(zone.watermark_boost, boost)
    snapshot_refaults(None, pgdat)
    return sc.order


def kswapd(pgdat: PgData) -> Iterator[None]:
    """The thread of a node: yields where it sleeps for good, and goes on when it is woken.

    Whoever wakes it within HZ/10 finds it in its first, short sleep, which is counted.

    Simplified: the long sleep begins, for a trace, when it ends.

    Mirrors mm/vmscan.c:kswapd().
    """
    m = pgdat.machine
    pgdat.kswapd_order, pgdat.kswapd_highest_zoneidx = 0, MAX_NR_ZONES
    highest = MAX_NR_ZONES - 1
    alloc_order = reclaim_order = 0
    while True:
        if _prepare_kswapd_sleep(pgdat, reclaim_order, highest):
            asleep = m.jiffies
            yield
            if m.jiffies - asleep < m.config.HZ // 10:
                pgdat.kswapd_order = max(pgdat.kswapd_order, reclaim_order)
                m.vm_event[KSWAPD_LOW_WMARK_HIT_QUICKLY] += 1
            elif m.trace.on:
                m.trace.emit("vmscan:mm_vmscan_kswapd_sleep", pgdat.node_id)
        else:
            m.vm_event[KSWAPD_HIGH_WMARK_HIT_QUICKLY] += 1
        alloc_order = pgdat.kswapd_order
        if pgdat.kswapd_highest_zoneidx != MAX_NR_ZONES:
            highest = pgdat.kswapd_highest_zoneidx
        pgdat.kswapd_order, pgdat.kswapd_highest_zoneidx = 0, MAX_NR_ZONES
        if m.trace.on:
            m.trace.emit("vmscan:mm_vmscan_kswapd_wake", pgdat.node_id, highest, alloc_order)
        reclaim_order = balance_pgdat(pgdat, alloc_order, highest)
        if reclaim_order >= alloc_order:
            alloc_order = reclaim_order = pgdat.kswapd_order
            if pgdat.kswapd_highest_zoneidx != MAX_NR_ZONES:
                highest = pgdat.kswapd_highest_zoneidx


def _prepare_kswapd_sleep(pgdat: PgData, order: int, highest_zoneidx: int) -> bool:
    """Tell whether kswapd may sleep: the node is balanced, or there is no hope for it.

    Mirrors mm/vmscan.c:prepare_kswapd_sleep().
    """
    if pgdat.kswapd_failures >= MAX_RECLAIM_RETRIES:
        return True
    return pgdat_balanced(pgdat, order, highest_zoneidx)


def wakeup_kswapd(zone: Zone, gfp_flags: int, order: int, highest_zoneidx: int) -> None:
    """Tell kswapd what is wanted, and let it run unless the node is balanced or hopeless.

    Mirrors mm/vmscan.c:wakeup_kswapd().
    """
    if not managed_zone(zone):
        return
    pgdat = zone.zone_pgdat
    m = pgdat.machine
    if pgdat.kswapd_highest_zoneidx in range(highest_zoneidx) or (
        pgdat.kswapd_highest_zoneidx == MAX_NR_ZONES
    ):
        pgdat.kswapd_highest_zoneidx = highest_zoneidx
    pgdat.kswapd_order = max(pgdat.kswapd_order, order)
    if pgdat.kswapd is None or current_is_kswapd(m):
        return
    boosted = any(z.watermark_boost for z in pgdat.node_zones[: highest_zoneidx + 1])
    if pgdat.kswapd_failures >= MAX_RECLAIM_RETRIES or (
        pgdat_balanced(pgdat, order, highest_zoneidx) and not boosted
    ):
        return
    if m.trace.on:
        fields = pgdat.node_id, highest_zoneidx, order, gfp_flags
        m.trace.emit("vmscan:mm_vmscan_wakeup_kswapd", *fields)
    run_kswapd(pgdat)


def run_kswapd(pgdat: PgData) -> None:
    """Let a node's kswapd run until it sleeps."""
    m = pgdat.machine
    before = m.current
    thread, task = pgdat.kswapd
    m.current = task
    try:
        next(thread)
    finally:
        m.current = before


def kswapd_init(m: Machine) -> None:
    """Start kswapd on every node with memory, and let the allocator and limits reclaim.

    Mirrors mm/vmscan.c:kswapd_init().
    """
    for nid in sorted(m.node_data):
        pgdat = m.node_data[nid]
        task = InitTask()
        task.comm = f"kswapd{nid}"
        task.flags = PF_MEMALLOC | PF_KSWAPD
        pgdat.kswapd = kswapd(pgdat), task
        run_kswapd(pgdat)
    m.hooks.wakeup_kswapd = wakeup_kswapd
    m.hooks.try_to_free_pages = try_to_free_pages
    m.memcg.hooks.try_to_free_mem_cgroup_pages = try_to_free_mem_cgroup_pages
    m.memcg.hooks.lru_add_drain_all = swap.lru_add_drain_all


__all__ = [
    "ReclaimStat",
    "ScanControl",
    "Shrinker",
    "balance_pgdat",
    "do_shrink_slab",
    "evict_folios",
    "folio_check_references",
    "get_scan_count",
    "inactive_is_low",
    "isolate_lru_folios",
    "kswapd",
    "kswapd_init",
    "lru_gen_change_state",
    "lru_gen_look_around",
    "mm_match_cgroup",
    "pgdat_balanced",
    "positive_ctrl_err",
    "prepare_scan_control",
    "scan_fractions",
    "should_run_aging",
    "shrink_active_list",
    "shrink_folio_list",
    "shrink_inactive_list",
    "shrink_lruvec",
    "shrink_node",
    "try_to_free_mem_cgroup_pages",
    "try_to_free_pages",
    "try_to_inc_max_seq",
    "wakeup_kswapd",
]
