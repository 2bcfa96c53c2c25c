"""Refaults: what was evicted leaves a shadow that tells, when it comes back, how long it was away.

Mirrors mm/workingset.c.

Simplified: the shrinker of shadow nodes is left out, a mapping keeps its shadows in a dict; a refault
of a workingset folio is no PSI event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.mm import memcontrol, swap
from mmcore.mm import mm_inline as inline
from mmcore.mm.mm_inline import Lruvec, folio_is_file_lru, folio_lruvec, mod_lruvec_state
from mmcore.mm.mm_types import Folio, folio_nr_pages
from mmcore.mm.page_flags import LRU_REFS_MASK, LRU_REFS_WIDTH, PG_active, PG_workingset
from mmcore.mm.vmstat import (
    NR_ACTIVE_ANON,
    NR_ACTIVE_FILE,
    NR_INACTIVE_ANON,
    NR_INACTIVE_FILE,
    WORKINGSET_ACTIVATE_ANON,
    WORKINGSET_REFAULT_ANON,
    WORKINGSET_RESTORE_ANON,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.memcontrol import MemCgroup
    from mmcore.mm.mmzone import PgData

__all__ = [
    "EVICTION_MASK",
    "bucket_order",
    "pack_shadow",
    "unpack_shadow",
    "workingset_activation",
    "workingset_age_nonresident",
    "workingset_eviction",
    "workingset_refault",
    "workingset_test_recent",
]

WORKINGSET_SHIFT = 1
NODES_SHIFT = 10
MEM_CGROUP_ID_SHIFT = 16
#: One bit of a word is lost to the value's own mark in the XArray.
EVICTION_SHIFT = 1 + WORKINGSET_SHIFT + NODES_SHIFT + MEM_CGROUP_ID_SHIFT
EVICTION_MASK = (1 << 64 - EVICTION_SHIFT) - 1


def bucket_order(m: Machine) -> int:
    """Return how many low bits of an age a shadow leaves out: 0 below 2**36 pages of memory.

    Mirrors mm/workingset.c:workingset_init().
    """
    max_order = (m.totalram_pages - 1).bit_length() if m.totalram_pages else 0
    return max(0, max_order - (64 - EVICTION_SHIFT))


def pack_shadow(memcgid: int, pgdat: PgData, eviction: int, workingset: bool) -> int:
    """Return the shadow: age or generation, group, node and the workingset bit in one word.

    Mirrors mm/workingset.c:pack_shadow().
    """
    eviction = (eviction & EVICTION_MASK) << MEM_CGROUP_ID_SHIFT | memcgid
    eviction = eviction << NODES_SHIFT | pgdat.node_id
    return eviction << WORKINGSET_SHIFT | workingset


def unpack_shadow(m: Machine, shadow: int) -> tuple[int, PgData, int, bool]:
    """Return what a shadow holds: (group's number, node, age or generation, workingset bit).

    Mirrors mm/workingset.c:unpack_shadow().
    """
    workingset = bool(shadow & 1)
    shadow >>= WORKINGSET_SHIFT
    nid = shadow & (1 << NODES_SHIFT) - 1
    shadow >>= NODES_SHIFT
    memcgid = shadow & (1 << MEM_CGROUP_ID_SHIFT) - 1
    return memcgid, m.node_data[nid], shadow >> MEM_CGROUP_ID_SHIFT, workingset


def _memcg_id(lruvec: Lruvec) -> int:
    return 0 if lruvec.pn is None else memcontrol.mem_cgroup_id(lruvec.pn.memcg)


def _lruvec_of(m: Machine, memcgid: int, pgdat: PgData) -> Lruvec | None:
    """Return the lists that a shadow names; None if the group is gone."""
    if memcontrol.mem_cgroup_disabled(m):
        return inline.node_lruvec(pgdat)
    memcg = memcontrol.mem_cgroup_from_id(m, memcgid)
    return None if memcg is None else inline.mem_cgroup_lruvec(memcg, pgdat)


def lru_gen_eviction(folio: Folio) -> int:
    """Count an eviction in its tier, and return a shadow with the oldest generation.

    Mirrors mm/workingset.c:lru_gen_eviction().
    """
    lruvec = folio_lruvec(folio)
    lrugen = lruvec.lrugen
    kind = folio_is_file_lru(folio)
    refs = inline.folio_lru_refs(folio)
    token = lrugen.min_seq[kind] << LRU_REFS_WIDTH | max(refs - 1, 0)
    tier = inline.lru_tier_from_refs(refs)
    lrugen.evicted[0][kind][tier] += folio_nr_pages(folio)
    return pack_shadow(_memcg_id(lruvec), lruvec.pgdat, token, refs > 0)


def lru_gen_test_recent(m: Machine, shadow: int, file: int) -> tuple[bool, Lruvec | None, int]:
    """Tell whether the generation that a shadow names is still the oldest of its type.

    :return: (recent, the lists it was evicted from, token)

    Mirrors mm/workingset.c:lru_gen_test_recent().
    """
    memcgid, pgdat, token, _ = unpack_shadow(m, shadow)
    lruvec = _lruvec_of(m, memcgid, pgdat)
    if lruvec is None:  # the kernel then looks at the root's lists
        lruvec = inline.node_lruvec(pgdat)
    min_seq = lruvec.lrugen.min_seq[file]
    recent = token >> LRU_REFS_WIDTH == min_seq & EVICTION_MASK >> LRU_REFS_WIDTH
    return recent, lruvec, token


def lru_gen_refault(folio: Folio, shadow: int) -> None:
    """Count a refault in its tier; protect what was hot when it was evicted.

    Mirrors mm/workingset.c:lru_gen_refault().
    """
    m = folio.zone.machine
    kind = folio_is_file_lru(folio)
    delta = folio_nr_pages(folio)
    recent, lruvec, token = lru_gen_test_recent(m, shadow, kind)
    if lruvec is None or lruvec is not folio_lruvec(folio):
        return
    mod_lruvec_state(lruvec, WORKINGSET_REFAULT_ANON + kind, delta)
    if not recent:
        return
    refs = (token & (1 << LRU_REFS_WIDTH) - 1) + (shadow & 1)
    lruvec.lrugen.refaulted[0][kind][inline.lru_tier_from_refs(refs)] += delta
    mod_lruvec_state(lruvec, WORKINGSET_ACTIVATE_ANON + kind, delta)
    if getattr(m.current, "in_lru_fault", False) or refs >= (1 << LRU_REFS_WIDTH) - 1:
        folio.flags |= LRU_REFS_MASK | 1 << PG_workingset
        mod_lruvec_state(lruvec, WORKINGSET_RESTORE_ANON + kind, delta)


def workingset_age_nonresident(lruvec: Lruvec, nr_pages: int) -> None:
    """Let @nr_pages pass: the clock by which the time since an eviction is measured.

    Mirrors mm/workingset.c:workingset_age_nonresident().
    """
    at: Lruvec | None = lruvec
    while at is not None:
        at.nonresident_age += nr_pages
        at = swap.parent_lruvec(at)


def workingset_eviction(folio: Folio, target_memcg: MemCgroup | None) -> int:
    """Return the shadow for a folio that is evicted.

    :param target_memcg: the group whose limit is the reason; None for the machine

    Mirrors mm/workingset.c:workingset_eviction().
    """
    m = folio.zone.machine
    if inline.lru_gen_enabled(m):
        return lru_gen_eviction(folio)
    memcg = target_memcg or m.memcg.root_mem_cgroup
    lruvec = inline.mem_cgroup_lruvec(memcg, folio.zone.zone_pgdat)
    eviction = lruvec.nonresident_age >> bucket_order(m)
    workingset_age_nonresident(lruvec, folio_nr_pages(folio))
    was_workingset = folio.flags >> PG_workingset & 1 == 1
    return pack_shadow(_memcg_id(lruvec), lruvec.pgdat, eviction, was_workingset)


def workingset_test_recent(m: Machine, shadow: int, file: int) -> bool:
    """Tell whether the folio would still be there had the working set had all the memory.

    With two lists the distance, pages evicted and activated since, must not exceed the size of the
    lists that it would have competed with.

    Simplified: the swap space of the group's own limit is not looked at, only the machine's.

    Mirrors mm/workingset.c:workingset_test_recent().
    """
    if inline.lru_gen_enabled(m):
        return lru_gen_test_recent(m, shadow, file)[0]
    memcgid, pgdat, eviction, _ = unpack_shadow(m, shadow)
    lruvec = _lruvec_of(m, memcgid, pgdat)
    if lruvec is None:
        return False
    refault_distance = (lruvec.nonresident_age - (eviction << bucket_order(m))) & EVICTION_MASK
    size = inline.lruvec_page_state(lruvec, NR_ACTIVE_FILE)
    if not file:
        size += inline.lruvec_page_state(lruvec, NR_INACTIVE_FILE)
    if m.nr_swap_pages > 0:
        size += inline.lruvec_page_state(lruvec, NR_ACTIVE_ANON)
        if file:
            size += inline.lruvec_page_state(lruvec, NR_INACTIVE_ANON)
    return refault_distance <= size


def workingset_refault(folio: Folio, shadow: int) -> None:
    """Count a refault, and make the folio active if it belongs to the working set.

    Mirrors mm/workingset.c:workingset_refault().
    """
    m = folio.zone.machine
    if inline.lru_gen_enabled(m):
        lru_gen_refault(folio, shadow)
        return
    file = folio_is_file_lru(folio)
    nr = folio_nr_pages(folio)
    lruvec = folio_lruvec(folio)
    mod_lruvec_state(lruvec, WORKINGSET_REFAULT_ANON + file, nr)
    if not workingset_test_recent(m, shadow, file):
        return
    folio.flags |= 1 << PG_active
    workingset_age_nonresident(lruvec, nr)
    mod_lruvec_state(lruvec, WORKINGSET_ACTIVATE_ANON + file, nr)
    if shadow & 1:
        folio.flags |= 1 << PG_workingset
        swap.lru_note_cost_refault(folio)
        mod_lruvec_state(lruvec, WORKINGSET_RESTORE_ANON + file, nr)


def workingset_activation(folio: Folio) -> None:
    """Let the clock of its lists advance for a folio that becomes active.

    Mirrors mm/workingset.c:workingset_activation().
    """
    m = folio.zone.machine
    if memcontrol.mem_cgroup_disabled(m) or memcontrol.folio_memcg_charged(folio):
        workingset_age_nonresident(folio_lruvec(folio), folio_nr_pages(folio))
