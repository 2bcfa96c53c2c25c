"""Lists of folios for reclaim: where a folio is put, what is counted, and how it leaves.

Mirrors include/linux/mm_inline.h, and struct lruvec of include/linux/mmzone.h.

Simplified: ``mlock_count`` is not kept; tiers are limited to what three spare flag bits can hold, as in
the reference kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mmcore.errors import KernelBug
from mmcore.lib.list import ListHead, list_add, list_add_tail, list_del
from mmcore.mm import memcontrol
from mmcore.mm.mm_types import Folio, folio_nr_pages
from mmcore.mm.mmzone import MAX_NR_ZONES
from mmcore.mm.page_flags import (
    LRU_GEN_MASK,
    LRU_GEN_PGOFF,
    LRU_REFS_MASK,
    LRU_REFS_PGOFF,
    PG_active,
    PG_dirty,
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
from mmcore.mm.vmstat import NR_INACTIVE_ANON, NR_ZONE_INACTIVE_ANON

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.mmzone import PgData

# enum lru_list
LRU_INACTIVE_ANON = 0
LRU_ACTIVE_ANON = 1
LRU_INACTIVE_FILE = 2
LRU_ACTIVE_FILE = 3
LRU_UNEVICTABLE = 4
NR_LRU_LISTS = 5
#: include/trace/events/mmflags.h:LRU_NAMES
LRU_NAMES = ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")
LRU_ACTIVE = 1
LRU_FILE = 2

MIN_NR_GENS = 2
MAX_NR_GENS = 4
MAX_NR_TIERS = 4
NR_HIST_GENS = 1
LRU_GEN_ANON = 0
LRU_GEN_FILE = 1
LRU_REFS_FLAGS = 1 << PG_referenced | 1 << PG_workingset

_ACTIVE = 1 << PG_active
_UNEVICTABLE = 1 << PG_unevictable
_WRITE = 1 << PG_dirty | 1 << PG_writeback


class LruGenFolio:
    """``struct lru_gen_folio``: the generations of one lruvec.

    Mirrors include/linux/mmzone.h:lru_gen_folio.
    """

    __slots__ = (
        "avg_refaulted",
        "avg_total",
        "enabled",
        "evicted",
        "folios",
        "max_seq",
        "min_seq",
        "nr_pages",
        "protected",
        "refaulted",
        "timestamps",
    )

    def __init__(self, enabled: bool, jiffies: int) -> None:
        self.max_seq = MIN_NR_GENS + 1
        self.min_seq = [0, 0]
        self.timestamps = [jiffies] * MAX_NR_GENS
        self.folios = [
            [[ListHead() for _ in range(MAX_NR_ZONES)] for _ in range(2)]
            for _ in range(MAX_NR_GENS)
        ]
        self.nr_pages = [[[0] * MAX_NR_ZONES for _ in range(2)] for _ in range(MAX_NR_GENS)]
        self.avg_refaulted = [[0] * MAX_NR_TIERS for _ in range(2)]
        self.avg_total = [[0] * MAX_NR_TIERS for _ in range(2)]
        self.protected = [[[0] * (MAX_NR_TIERS - 1) for _ in range(2)]]
        self.evicted = [[[0] * MAX_NR_TIERS for _ in range(2)]]
        self.refaulted = [[[0] * MAX_NR_TIERS for _ in range(2)]]
        self.enabled = enabled


class Lruvec:
    """``struct lruvec``: the lists of one node, or of one memory cgroup on one node.

    :ivar pn: the group's part of the node; None without memory cgroups

    Mirrors include/linux/mmzone.h:lruvec.
    """

    __slots__ = (
        "anon_cost",
        "file_cost",
        "flags",
        "lists",
        "lrugen",
        "nonresident_age",
        "pgdat",
        "pn",
        "refaults",
    )

    def __init__(self, pgdat: PgData) -> None:
        m = pgdat.machine
        self.pgdat = pgdat
        self.pn: memcontrol.MemCgroupPerNode | None = None
        self.lists = [ListHead() for _ in range(NR_LRU_LISTS)]
        self.anon_cost = 0
        self.file_cost = 0
        self.nonresident_age = 0
        self.refaults = [0, 0]
        self.flags = 0
        self.lrugen = LruGenFolio(lru_gen_enabled(m), m.jiffies)


def lru_gen_enabled(m: Machine) -> bool:
    """Tell whether reclaim works with generations instead of two lists.

    Mirrors include/linux/mm_inline.h:lru_gen_enabled().
    """
    return m.lru_gen_caps & 1 == 1


def node_lruvec(pgdat: PgData) -> Lruvec:
    """Return the node's own lists, made when they are first needed."""
    if pgdat.lruvec is None:
        pgdat.lruvec = Lruvec(pgdat)
    lruvec: Lruvec = pgdat.lruvec
    return lruvec


def mem_cgroup_lruvec(memcg: memcontrol.MemCgroup | None, pgdat: PgData) -> Lruvec:
    """Return the lists of a group on a node; the node's own for the root or without groups."""
    if memcg is None or memcg is pgdat.machine.memcg.root_mem_cgroup:
        lruvec = node_lruvec(pgdat)
        if lruvec.pn is None and memcg is not None:
            _give_to_root(lruvec, memcontrol.mem_cgroup_lruvec(memcg, pgdat))
        return lruvec
    pn = memcontrol.mem_cgroup_lruvec(memcg, pgdat)
    if pn.lruvec is None:
        pn.lruvec = Lruvec(pgdat)
        pn.lruvec.pn = pn
    found: Lruvec = pn.lruvec
    return found


def _give_to_root(lruvec: Lruvec, pn: memcontrol.MemCgroupPerNode) -> None:
    """Let the root group own the lists that a node filled before there were groups."""
    lruvec.pn = pn
    pn.lruvec = lruvec
    for zone in lruvec.pgdat.node_zones:
        # Generations are not counted by group and list.
        for lru in range(LRU_UNEVICTABLE if lruvec.lrugen.enabled else 0, NR_LRU_LISTS):
            n = zone.vm_stat[NR_ZONE_INACTIVE_ANON + lru]
            if n:
                memcontrol.mem_cgroup_update_lru_size(pn, lru, zone.zone_idx, n)


def folio_lruvec(folio: Folio) -> Lruvec:
    """Return the lists that @folio belongs to.

    Mirrors include/linux/memcontrol.h:folio_lruvec().
    """
    pgdat = folio.zone.zone_pgdat
    root = pgdat.machine.memcg.root_mem_cgroup
    if root is None:
        return node_lruvec(pgdat)
    return mem_cgroup_lruvec(memcontrol.folio_memcg(folio) or root, pgdat)


def lruvec_page_state(lruvec: Lruvec, item: int) -> int:
    """Return a counter of the lruvec's group and those below it, or of the node without groups."""
    if lruvec.pn is None:
        return max(0, lruvec.pgdat.vm_stat[item])
    return memcontrol.lruvec_page_state(lruvec.pn, item)


def mod_lruvec_state(lruvec: Lruvec, item: int, val: int) -> None:
    """Add @val to a counter of the node and of the lruvec's group.

    Mirrors include/linux/vmstat.h:__mod_lruvec_state().
    """
    if lruvec.pn is None:
        lruvec.pgdat.vm_stat[item] += val
    else:
        memcontrol.mod_lruvec_state(lruvec.pn, lruvec.pgdat, item, val)


def folio_is_file_lru(folio: Folio) -> int:
    """Return 1 for page cache and lazily freed memory, 0 for what only swap can hold.

    Mirrors include/linux/mm_inline.h:folio_is_file_lru().
    """
    return ~folio.flags >> PG_swapbacked & 1


def folio_lru_list(folio: Folio) -> int:
    """Return the classic list that @folio's flags say.

    Mirrors include/linux/mm_inline.h:folio_lru_list().
    """
    flags = folio.flags
    if flags & _UNEVICTABLE:
        if flags & _ACTIVE:
            raise KernelBug(f"{folio!r} is active and unevictable")
        return LRU_UNEVICTABLE
    lru = LRU_INACTIVE_ANON if flags >> PG_swapbacked & 1 else LRU_INACTIVE_FILE
    return lru + (flags >> PG_active & 1)


def folio_evictable(folio: Folio) -> bool:
    """Tell whether reclaim may take @folio.

    Simplified: no mapping is unevictable (ramfs, SHM_LOCK, secretmem).

    Mirrors mm/internal.h:folio_evictable().
    """
    return not folio.flags >> PG_mlocked & 1


def _update_zone(lruvec: Lruvec, lru: int, zid: int, nr_pages: int) -> None:
    """Count pages on a list of the node and the zone.

    Mirrors include/linux/mm_inline.h:__update_lru_size().
    """
    mod_lruvec_state(lruvec, NR_INACTIVE_ANON + lru, nr_pages)
    lruvec.pgdat.node_zones[zid].vm_stat[NR_ZONE_INACTIVE_ANON + lru] += nr_pages


def update_lru_size(lruvec: Lruvec, lru: int, zid: int, nr_pages: int) -> None:
    """Count pages on a list of the node, the zone and the memory cgroup.

    Mirrors include/linux/mm_inline.h:update_lru_size().
    """
    _update_zone(lruvec, lru, zid, nr_pages)
    if lruvec.pn is not None:
        memcontrol.mem_cgroup_update_lru_size(lruvec.pn, lru, zid, nr_pages)


def lru_gen_from_seq(seq: int) -> int:
    """Return which of the four slots the generation @seq uses.

    Mirrors include/linux/mm_inline.h:lru_gen_from_seq().
    """
    return seq % MAX_NR_GENS


def lru_tier_from_refs(refs: int) -> int:
    """Return the tier of a folio with @refs accesses beyond the first: ceil(log2(refs + 1)).

    Mirrors include/linux/mm_inline.h:lru_tier_from_refs().
    """
    return refs.bit_length()


def folio_lru_refs(folio: Folio) -> int:
    """Return the number of accesses through file descriptors beyond PG_referenced.

    Mirrors include/linux/mm_inline.h:folio_lru_refs().
    """
    flags = folio.flags
    return ((flags & LRU_REFS_MASK) >> LRU_REFS_PGOFF) + (flags >> PG_workingset & 1)


def folio_lru_gen(folio: Folio) -> int:
    """Return the slot of @folio's generation, -1 if it is in none.

    Mirrors include/linux/mm_inline.h:folio_lru_gen().
    """
    return ((folio.flags & LRU_GEN_MASK) >> LRU_GEN_PGOFF) - 1


def lru_gen_is_active(lruvec: Lruvec, gen: int) -> bool:
    """Tell whether the slot holds one of the two youngest generations.

    Mirrors include/linux/mm_inline.h:lru_gen_is_active().
    """
    max_seq = lruvec.lrugen.max_seq
    return gen in (lru_gen_from_seq(max_seq), lru_gen_from_seq(max_seq - 1))


def lru_gen_update_size(lruvec: Lruvec, folio: Folio, old_gen: int, new_gen: int) -> None:
    """Count @folio out of one generation and into another; -1 is none.

    Mirrors include/linux/mm_inline.h:lru_gen_update_size().
    """
    kind = folio_is_file_lru(folio)
    zone = folio.zone.zone_idx
    delta = folio_nr_pages(folio)
    lru = kind * LRU_INACTIVE_FILE
    nr_pages = lruvec.lrugen.nr_pages
    if old_gen >= 0:
        nr_pages[old_gen][kind][zone] -= delta
    if new_gen >= 0:
        nr_pages[new_gen][kind][zone] += delta
    if old_gen < 0:
        _update_zone(lruvec, lru + lru_gen_is_active(lruvec, new_gen), zone, delta)
    elif new_gen < 0:
        _update_zone(lruvec, lru + lru_gen_is_active(lruvec, old_gen), zone, -delta)
    elif not lru_gen_is_active(lruvec, old_gen) and lru_gen_is_active(lruvec, new_gen):
        _update_zone(lruvec, lru, zone, -delta)
        _update_zone(lruvec, lru + LRU_ACTIVE, zone, delta)


def lru_gen_add_folio(lruvec: Lruvec, folio: Folio, reclaiming: bool) -> bool:
    """Put @folio into a generation: the youngest if it is active, an older one by its kind and state.

    Mirrors include/linux/mm_inline.h:lru_gen_add_folio().
    """
    lrugen = lruvec.lrugen
    flags = folio.flags
    if flags & _UNEVICTABLE or not lrugen.enabled:
        return False
    kind = folio_is_file_lru(folio)
    if folio_lru_gen(folio) != -1:
        raise KernelBug(f"{folio!r} is in a generation already")
    if flags & _ACTIVE:
        seq = lrugen.max_seq
    elif (kind == LRU_GEN_ANON and not flags >> PG_swapcache & 1) or (
        flags >> PG_reclaim & 1 and flags & _WRITE
    ):
        seq = lrugen.max_seq - 1
    elif reclaiming or lrugen.min_seq[kind] + MIN_NR_GENS >= lrugen.max_seq:
        seq = lrugen.min_seq[kind]
    else:
        seq = lrugen.min_seq[kind] + 1
    gen = lru_gen_from_seq(seq)
    mask = LRU_GEN_MASK
    if flags & _ACTIVE:
        mask |= LRU_REFS_MASK | 1 << PG_referenced | _ACTIVE
    folio.flags = flags & ~mask | (gen + 1) << LRU_GEN_PGOFF
    lru_gen_update_size(lruvec, folio, -1, gen)
    head = lrugen.folios[gen][kind][folio.zone.zone_idx]
    (list_add_tail if reclaiming else list_add)(folio, head)
    return True


def lru_gen_del_folio(lruvec: Lruvec, folio: Folio, reclaiming: bool) -> bool:
    """Take @folio out of its generation; PG_active keeps that it was one of the two youngest.

    Mirrors include/linux/mm_inline.h:lru_gen_del_folio().
    """
    gen = folio_lru_gen(folio)
    if gen < 0:
        return False
    flags = _ACTIVE if not reclaiming and lru_gen_is_active(lruvec, gen) else 0
    folio.flags = folio.flags & ~LRU_GEN_MASK | flags
    lru_gen_update_size(lruvec, folio, gen, -1)
    list_del(folio)
    return True


def lruvec_add_folio(lruvec: Lruvec, folio: Folio) -> None:
    """Put @folio at the head of the list where it belongs.

    Mirrors include/linux/mm_inline.h:lruvec_add_folio().
    """
    if lru_gen_add_folio(lruvec, folio, False):
        return
    lru = folio_lru_list(folio)
    update_lru_size(lruvec, lru, folio.zone.zone_idx, folio_nr_pages(folio))
    if lru != LRU_UNEVICTABLE:
        list_add(folio, lruvec.lists[lru])


def lruvec_add_folio_tail(lruvec: Lruvec, folio: Folio) -> None:
    """Put @folio at the tail of the list where it belongs: it is taken next.

    Mirrors include/linux/mm_inline.h:lruvec_add_folio_tail().
    """
    if lru_gen_add_folio(lruvec, folio, True):
        return
    lru = folio_lru_list(folio)
    update_lru_size(lruvec, lru, folio.zone.zone_idx, folio_nr_pages(folio))
    list_add_tail(folio, lruvec.lists[lru])


def lruvec_del_folio(lruvec: Lruvec, folio: Folio) -> None:
    """Take @folio off its list.

    Mirrors include/linux/mm_inline.h:lruvec_del_folio().
    """
    if lru_gen_del_folio(lruvec, folio, False):
        return
    lru = folio_lru_list(folio)
    if lru != LRU_UNEVICTABLE:
        list_del(folio)
    update_lru_size(lruvec, lru, folio.zone.zone_idx, -folio_nr_pages(folio))


def for_each_lruvec(m: Machine) -> Iterator[Lruvec]:
    """Yield the lists of every node and every memory cgroup that has some."""
    for nid in sorted(m.node_data):
        pgdat = m.node_data[nid]
        if pgdat.lruvec is not None:
            yield pgdat.lruvec
        memcg = None
        while m.memcg.root_mem_cgroup is not None:
            memcg = memcontrol.mem_cgroup_iter(m, None, memcg)
            if memcg is None:
                break
            pn = memcg.nodeinfo.get(nid)
            if pn is not None and pn.lruvec is not None and pn.lruvec is not pgdat.lruvec:
                yield pn.lruvec


def _check_list(head: ListHead, want: Any, seen: dict[int, Folio], sums: dict[Any, int]) -> None:
    for folio in head:
        if folio.pfn in seen:
            raise KernelBug(f"{folio!r} is on two lists")
        seen[folio.pfn] = folio
        if not folio.flags >> PG_lru & 1:
            raise KernelBug(f"{folio!r} is on list {want} without PG_lru")
        if folio._refcount <= 0:
            raise KernelBug(f"{folio!r} is free and on list {want}")
        key = (*want[:-1], folio.zone.zone_idx)
        sums[key] = sums.get(key, 0) + folio_nr_pages(folio)


def validate_lruvec(lruvec: Lruvec, seen: dict[int, Folio]) -> dict[tuple[int, int], int]:
    """Check the lists and generations of one lruvec and return its pages by (list, zone).

    :param seen: folios by pfn that were found on a list; those of this lruvec are added
    :raises KernelBug: naming what is wrong
    """
    gen_ = lruvec.lrugen
    sums: dict[Any, int] = {}
    for lru in range(LRU_UNEVICTABLE):
        before = len(seen)
        _check_list(lruvec.lists[lru], ("list", lru, None), seen, sums)
        if gen_.enabled and len(seen) != before:
            raise KernelBug(f"generations are in use, and {LRU_NAMES[lru]} is not empty")
    found: dict[tuple[int, int], int] = {}
    for (_, lru, zid), n in sums.items():
        found[lru, zid] = found.get((lru, zid), 0) + n
    by_gen: dict[tuple[int, int, int], int] = {}
    for kind in range(2):
        nr_gens = gen_.max_seq - gen_.min_seq[kind] + 1
        if not MIN_NR_GENS <= nr_gens <= MAX_NR_GENS:
            raise KernelBug(f"{nr_gens} generations of type {kind}")
        for gen in range(MAX_NR_GENS):
            for zid in range(MAX_NR_ZONES):
                head = gen_.folios[gen][kind][zid]
                _check_list(head, ("gen", gen, kind, None), seen, {})
                for folio in head:  # a folio that was found young lies in its old list for a while
                    key = (folio_lru_gen(folio), kind, folio.zone.zone_idx)
                    by_gen[key] = by_gen.get(key, 0) + folio_nr_pages(folio)
    for gen in range(MAX_NR_GENS):
        for kind in range(2):
            for zid in range(MAX_NR_ZONES):
                n = by_gen.get((gen, kind, zid), 0)
                if n != gen_.nr_pages[gen][kind][zid]:
                    raise KernelBug(f"generation slot {gen} type {kind} zone {zid}: {n} pages")
                at = (kind * 2 + lru_gen_is_active(lruvec, gen), zid)
                found[at] = found.get(at, 0) + n
    return found


def validate_lrus(m: Machine) -> None:
    """Check every LRU: each folio on one list, each counter equal to a recount.

    :raises KernelBug: naming what is wrong
    """
    seen: dict[int, Folio] = {}
    total: dict[tuple[int, int, int], int] = {}
    for lruvec in for_each_lruvec(m):
        nid = lruvec.pgdat.node_id
        for (lru, zid), n in validate_lruvec(lruvec, seen).items():
            total[nid, lru, zid] = total.get((nid, lru, zid), 0) + n
    for nid in sorted(m.node_data):
        pgdat = m.node_data[nid]
        for zone in pgdat.node_zones:
            for folio in zone.mem_map.values():
                if folio.flags >> PG_lru & 1 and folio.flags & _UNEVICTABLE:
                    key = (nid, LRU_UNEVICTABLE, zone.zone_idx)
                    total[key] = total.get(key, 0) + folio_nr_pages(folio)
                elif folio.flags >> PG_lru & 1 and folio.pfn not in seen:
                    raise KernelBug(f"{folio!r} has PG_lru and is on no list")
            for lru in range(NR_LRU_LISTS):
                n = total.get((nid, lru, zone.zone_idx), 0)
                counted = zone.vm_stat[NR_ZONE_INACTIVE_ANON + lru]
                if n != counted:
                    raise KernelBug(f"{zone.name} {LRU_NAMES[lru]}: {counted} counted, {n} there")
        for lru in range(NR_LRU_LISTS):
            n = sum(v for (node, at, _), v in total.items() if node == nid and at == lru)
            if n != pgdat.vm_stat[NR_INACTIVE_ANON + lru]:
                raise KernelBug(f"node {nid} {LRU_NAMES[lru]}: {n} there, counter differs")


__all__ = [
    "LruGenFolio",
    "Lruvec",
    "folio_evictable",
    "folio_is_file_lru",
    "folio_lru_gen",
    "folio_lru_list",
    "folio_lru_refs",
    "folio_lruvec",
    "for_each_lruvec",
    "lru_gen_add_folio",
    "lru_gen_del_folio",
    "lru_gen_enabled",
    "lru_gen_from_seq",
    "lru_gen_is_active",
    "lru_gen_update_size",
    "lru_tier_from_refs",
    "lruvec_add_folio",
    "lruvec_add_folio_tail",
    "lruvec_del_folio",
    "lruvec_page_state",
    "mem_cgroup_lruvec",
    "mod_lruvec_state",
    "node_lruvec",
    "update_lru_size",
    "validate_lrus",
    "validate_lruvec",
    *[n for n in globals() if n.startswith(("LRU_A", "LRU_F", "LRU_I", "LRU_N", "LRU_U"))],
    "LRU_GEN_ANON",
    "LRU_GEN_FILE",
    "LRU_REFS_FLAGS",
    "MAX_NR_GENS",
    "MAX_NR_TIERS",
    "MIN_NR_GENS",
    "NR_LRU_LISTS",
]
