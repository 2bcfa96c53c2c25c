"""References to folios, and the batches in which new folios wait for the LRU.

Mirrors the parts of mm/swap.c that faults and unmapping need.

Simplified: there are no LRU lists yet (chapter 7): draining a batch sets PG_lru and counts the folio
as active or inactive, as a kernel with multi-gen LRU does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.errors import KernelBug
from mmcore.mm import page_alloc
from mmcore.mm.mm import VM_LOCKED, VM_SPECIAL, VmAreaStruct
from mmcore.mm.mm_types import Folio, folio_nr_pages, folio_order
from mmcore.mm.page_flags import (
    PG_active,
    PG_lru,
    PG_mlocked,
    PG_referenced,
    PG_swapbacked,
    PG_unevictable,
)
from mmcore.mm.vmstat import (
    NR_INACTIVE_ANON,
    NR_MLOCK,
    NR_UNEVICTABLE,
    NR_ZONE_INACTIVE_ANON,
    NR_ZONE_UNEVICTABLE,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = [
    "PAGEVEC_SIZE",
    "folio_add_lru",
    "folio_add_lru_vma",
    "folio_get",
    "folio_mark_accessed",
    "folio_put",
    "folio_ref_add",
    "lru_add_drain",
    "lru_add_drain_all",
]

PAGEVEC_SIZE = 31
_ACTIVE = 1 << PG_active
_LRU = 1 << PG_lru
_UNEVICTABLE = 1 << PG_unevictable
_MLOCKED = 1 << PG_mlocked


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
    """Take a folio without users off the LRU and free it.

    Mirrors mm/swap.c:__folio_put().
    """
    if folio.flags & _LRU:
        _update_lru_size(folio, -folio_nr_pages(folio))
        folio.flags &= ~(_LRU | _ACTIVE | _UNEVICTABLE)
    if folio.flags & _MLOCKED:
        folio.flags &= ~_MLOCKED
        folio.zone.vm_stat[NR_MLOCK] -= folio_nr_pages(folio)
    page_alloc.free_unref_page(folio, folio_order(folio))


def _update_lru_size(folio: Folio, nr: int) -> None:
    """Count @nr pages on the LRU that the folio belongs to (``update_lru_size()``)."""
    if folio.flags & _UNEVICTABLE:
        node, zone = NR_UNEVICTABLE, NR_ZONE_UNEVICTABLE
    else:
        lru = 0 if folio.flags >> PG_swapbacked & 1 else 2
        # PG_active is taken away when the folio enters a generation; private says which it was.
        lru += 1 if _counts_as_active(folio) else 0
        node, zone = NR_INACTIVE_ANON + lru, NR_ZONE_INACTIVE_ANON + lru
    folio.zone.zone_pgdat.vm_stat[node] += nr
    folio.zone.vm_stat[zone] += nr


def _counts_as_active(folio: Folio) -> bool:
    """Tell whether the generation a folio entered is one of the two youngest.

    Anonymous folios enter one of those in any case; page cache only if it was faulted in.
    """
    return folio.flags >> PG_swapbacked & 1 == 1


def folio_add_lru(folio: Folio) -> None:
    """Queue @folio for the LRU; with multi-gen LRU a fault makes it active.

    Mirrors mm/swap.c:folio_add_lru().
    """
    m = folio.zone.machine
    if m.config.LRU_GEN and not folio.flags & _UNEVICTABLE:
        if getattr(m.current, "in_lru_fault", False):
            folio.flags |= _ACTIVE
    _folio_batch_add(m, folio)


def _folio_batch_add(m: Machine, folio: Folio) -> None:
    """Add @folio to this CPU's batch; a full batch, or a large folio, drains it.

    Mirrors mm/swap.c:__folio_batch_add_and_move().
    """
    folio._refcount += 1
    batch = m.paging.lru_add.setdefault(m.this_cpu, [])
    batch.append(folio)
    if len(batch) >= PAGEVEC_SIZE or folio.folio is not None:
        lru_add_drain(m)


def folio_add_lru_vma(folio: Folio, vma: VmAreaStruct) -> None:
    """Queue @folio for the LRU that @vma wants it on: the unevictable one if it is mlocked.

    Mirrors mm/swap.c:folio_add_lru_vma().
    """
    if vma.vm_flags & (VM_LOCKED | VM_SPECIAL) == VM_LOCKED:
        folio.flags |= _MLOCKED
        folio.zone.vm_stat[NR_MLOCK] += folio_nr_pages(folio)
        _folio_batch_add(folio.zone.machine, folio)
    else:
        folio_add_lru(folio)


def lru_add_drain(m: Machine) -> None:
    """Put this CPU's waiting folios on the LRU.

    Mirrors mm/swap.c:lru_add_drain().
    """
    batch = m.paging.lru_add.get(m.this_cpu)
    if not batch:
        return
    m.paging.lru_add[m.this_cpu] = []
    for folio in batch:
        if folio.flags & _MLOCKED:
            folio.flags = folio.flags & ~_ACTIVE | _UNEVICTABLE
        elif m.config.LRU_GEN and folio.flags & _ACTIVE:
            folio.flags &= ~(_ACTIVE | 1 << PG_referenced)
        folio.flags |= _LRU
        _update_lru_size(folio, folio_nr_pages(folio))
        folio_put(folio)


def lru_add_drain_all(m: Machine) -> None:
    """Put every CPU's waiting folios on the LRU.

    Mirrors mm/swap.c:lru_add_drain_all().
    """
    here = m.this_cpu
    for cpu in sorted(m.paging.lru_add):
        m.this_cpu = cpu
        lru_add_drain(m)
    m.this_cpu = here


def folio_mark_accessed(folio: Folio) -> None:
    """Note an access: the first sets PG_referenced, the second makes the folio active.

    Simplified: multi-gen LRU's reference counters are chapter 7's.

    Mirrors mm/swap.c:folio_mark_accessed().
    """
    if not folio.flags >> PG_referenced & 1:
        folio.flags |= 1 << PG_referenced
