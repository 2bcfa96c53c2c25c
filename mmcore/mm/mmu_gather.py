"""Gathering pages that leave an address space, so that they are freed after the TLBs forgot them.

Mirrors mm/mmu_gather.c, include/asm-generic/tlb.h and arch/x86/include/asm/tlb.h.

Simplified: a batch is a list with the kernel's capacity and costs no page; table pages share the
batches with ordinary pages, as on bare metal (not by RCU as under a hypervisor).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86 import tlb as tlb_
from mmcore.arch.x86.tlb import TLB_FLUSH_ALL
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import KernelBug
from mmcore.mm import rmap, swap, swap_state
from mmcore.mm.mm import VM_MIXEDMAP, VM_PFNMAP, MmStruct, VmAreaStruct
from mmcore.mm.mm_types import page_folio

if TYPE_CHECKING:
    from mmcore.mm.mm_types import Page

__all__ = [
    "MAX_GATHER_BATCH",
    "MAX_GATHER_BATCH_COUNT",
    "MMU_GATHER_BUNDLE",
    "MmuGather",
    "pmd_free_tlb",
    "pte_free_tlb",
    "pud_free_tlb",
    "p4d_free_tlb",
    "tlb_end_vma",
    "tlb_finish_mmu",
    "tlb_flush_mmu",
    "tlb_flush_mmu_tlbonly",
    "tlb_flush_pte_range",
    "tlb_flush_pmd_range",
    "tlb_flush_rmaps",
    "tlb_gather_mmu",
    "tlb_gather_mmu_fullmm",
    "tlb_remove_folio_pages",
    "tlb_remove_table",
    "tlb_start_vma",
]

MMU_GATHER_BUNDLE = 8
MAX_GATHER_BATCH = (PAGE_SIZE - 16) // 8
MAX_GATHER_BATCH_COUNT = 10000 // MAX_GATHER_BATCH


@dataclass(slots=True, eq=False)
class MmuGather:
    """``struct mmu_gather``: what was unmapped and is not freed yet.

    ``batches`` holds (page or table, pages, delayed rmap); each list is one batch, the first the
    bundle on the stack.

    Mirrors include/asm-generic/tlb.h:mmu_gather.
    """

    mm: MmStruct
    fullmm: bool = False
    need_flush_all: bool = False
    start: int = 0
    end: int = 0
    freed_tables: bool = False
    cleared_ptes: bool = False
    cleared_pmds: bool = False
    cleared_puds: bool = False
    cleared_p4ds: bool = False
    vma_pfn: bool = False
    delayed_rmap: bool = False
    batches: list[list[tuple[Page | pg.PageTable, int, bool]]] = field(default_factory=lambda: [[]])
    nr: list[int] = field(default_factory=lambda: [0])  # entries used in each batch


def tlb_gather_mmu(mm: MmStruct) -> MmuGather:
    """Start to gather what is unmapped from @mm.

    Mirrors mm/mmu_gather.c:tlb_gather_mmu().
    """
    gather = MmuGather(mm)
    __tlb_reset_range(gather)
    mm.tlb_flush_pending += 1
    return gather


def tlb_gather_mmu_fullmm(mm: MmStruct) -> MmuGather:
    """Start to gather when all of @mm goes away.

    Mirrors mm/mmu_gather.c:tlb_gather_mmu_fullmm().
    """
    gather = MmuGather(mm, fullmm=True)
    __tlb_reset_range(gather)
    mm.tlb_flush_pending += 1
    return gather


def __tlb_reset_range(tlb: MmuGather) -> None:
    """Forget what was to be flushed.

    Mirrors include/asm-generic/tlb.h:__tlb_reset_range().
    """
    if tlb.fullmm:
        tlb.start = tlb.end = TLB_FLUSH_ALL
    else:
        tlb.start, tlb.end = pg.task_size_max(tlb.mm.levels), 0
    tlb.freed_tables = False
    tlb.cleared_ptes = tlb.cleared_pmds = tlb.cleared_puds = tlb.cleared_p4ds = False


def _adjust_range(tlb: MmuGather, address: int, size: int) -> None:
    tlb.start = min(tlb.start, address)
    tlb.end = max(tlb.end, address + size)


def tlb_flush_pte_range(tlb: MmuGather, address: int, size: int) -> None:
    """Remember that PTEs were cleared.

    Mirrors include/asm-generic/tlb.h:tlb_flush_pte_range().
    """
    _adjust_range(tlb, address, size)
    tlb.cleared_ptes = True


def tlb_flush_pmd_range(tlb: MmuGather, address: int, size: int) -> None:
    """Remember that PMDs were cleared.

    Mirrors include/asm-generic/tlb.h:tlb_flush_pmd_range().
    """
    _adjust_range(tlb, address, size)
    tlb.cleared_pmds = True


def pte_free_tlb(tlb: MmuGather, table: pg.PageTable, address: int) -> None:
    """Gather a table of PTEs.

    Mirrors include/asm-generic/tlb.h:pte_free_tlb().
    """
    tlb_flush_pmd_range(tlb, address, PAGE_SIZE)
    tlb.freed_tables = True
    tlb_remove_table(tlb, table)


def pmd_free_tlb(tlb: MmuGather, table: pg.PageTable, address: int) -> None:
    """Gather a table of PMDs.

    Mirrors include/asm-generic/tlb.h:pmd_free_tlb().
    """
    _adjust_range(tlb, address, PAGE_SIZE)
    tlb.cleared_puds = True
    tlb.freed_tables = True
    tlb_remove_table(tlb, table)


def pud_free_tlb(tlb: MmuGather, table: pg.PageTable, address: int) -> None:
    """Gather a table of PUDs.

    Mirrors include/asm-generic/tlb.h:pud_free_tlb().
    """
    _adjust_range(tlb, address, PAGE_SIZE)
    tlb.cleared_p4ds = True
    tlb.freed_tables = True
    tlb_remove_table(tlb, table)


def p4d_free_tlb(tlb: MmuGather, table: pg.PageTable, address: int) -> None:
    """Gather a table of P4Ds.

    Mirrors include/asm-generic/tlb.h:p4d_free_tlb().
    """
    _adjust_range(tlb, address, PAGE_SIZE)
    tlb.freed_tables = True
    tlb_remove_table(tlb, table)


def tlb_remove_table(tlb: MmuGather, table: pg.PageTable) -> None:
    """Gather a page table page; flush when the batches are full.

    Mirrors arch/x86/mm/pgtable.c:___pte_free_tlb().
    """
    if _add(tlb, table, 1, False):
        tlb_flush_mmu(tlb)


def _add(tlb: MmuGather, page: Page | pg.PageTable, nr_pages: int, delay_rmap: bool) -> bool:
    """Add an entry to the active batch; True when everything is full.

    Mirrors mm/mmu_gather.c:__tlb_remove_folio_pages_size().
    """
    if not tlb.end:
        raise KernelBug("a page is gathered, but no address was unmapped")
    tlb.batches[-1].append((page, nr_pages, delay_rmap))
    tlb.nr[-1] += 1 if nr_pages == 1 else 2
    room = MMU_GATHER_BUNDLE if len(tlb.batches) == 1 else MAX_GATHER_BATCH
    if tlb.nr[-1] >= room - 1:
        # tlb_next_batch()
        if tlb.delayed_rmap and len(tlb.batches) > 1:
            return True
        if len(tlb.batches) - 1 == MAX_GATHER_BATCH_COUNT:
            return True
        tlb.batches.append([])
        tlb.nr.append(0)
    return False


def tlb_remove_folio_pages(tlb: MmuGather, page: Page, nr_pages: int, delay_rmap: bool) -> bool:
    """Gather @nr_pages of one folio; True when the caller must flush now.

    Mirrors mm/mmu_gather.c:__tlb_remove_folio_pages().
    """
    if delay_rmap:
        tlb.delayed_rmap = True
    return _add(tlb, page, nr_pages, delay_rmap)


def tlb_delay_rmap(tlb: MmuGather) -> bool:
    """Note that map counts are to be dropped only after the flush.

    Mirrors include/asm-generic/tlb.h:tlb_delay_rmap().
    """
    tlb.delayed_rmap = True
    return True


def tlb_flush_rmaps(tlb: MmuGather, vma: VmAreaStruct) -> None:
    """Drop the map counts that waited for the flush: of dirty page cache pages.

    Mirrors mm/mmu_gather.c:tlb_flush_rmaps().
    """
    if not tlb.delayed_rmap:
        return
    for batch in tlb.batches:
        for i, (page, nr, delayed) in enumerate(batch):
            if delayed and not isinstance(page, pg.PageTable):
                rmap.folio_remove_rmap_ptes(page_folio(page), page, nr, vma)
                batch[i] = (page, nr, False)
    tlb.delayed_rmap = False


def tlb_flush_mmu_tlbonly(tlb: MmuGather) -> None:
    """Make the TLBs forget what was unmapped so far.

    Mirrors include/asm-generic/tlb.h:tlb_flush_mmu_tlbonly().
    """
    if not (
        tlb.freed_tables
        or tlb.cleared_ptes
        or tlb.cleared_pmds
        or tlb.cleared_puds
        or tlb.cleared_p4ds
    ):
        return
    start, end = 0, TLB_FLUSH_ALL
    if not tlb.fullmm and not tlb.need_flush_all:
        start, end = tlb.start, tlb.end
    shift = PAGE_SHIFT
    if not tlb.cleared_ptes:
        if tlb.cleared_pmds:
            shift = 21
        elif tlb.cleared_puds:
            shift = 30
        elif tlb.cleared_p4ds:
            shift = 39
    tlb_.flush_tlb_mm_range(tlb.mm.machine, tlb.mm, start, end, shift, tlb.freed_tables)
    __tlb_reset_range(tlb)


def tlb_flush_mmu(tlb: MmuGather) -> None:
    """Flush, then free what was gathered.

    Mirrors mm/mmu_gather.c:tlb_flush_mmu().
    """
    tlb_flush_mmu_tlbonly(tlb)
    for batch in tlb.batches:
        for page, nr, delayed in batch:
            if delayed:
                raise KernelBug(f"{page!r} is freed before its map count was dropped")
            if isinstance(page, pg.PageTable):
                pg.pagetable_free(page)
            else:
                swap_state.free_swap_cache(page_folio(page))
                swap.folio_put(page_folio(page), nr)
    tlb.batches = [[]]
    tlb.nr = [0]


def tlb_finish_mmu(tlb: MmuGather) -> None:
    """Flush and free the rest.

    Mirrors mm/mmu_gather.c:tlb_finish_mmu().
    """
    mm = tlb.mm
    if mm.tlb_flush_pending > 1:  # another gather is under way: what it cleared must go, too
        tlb.fullmm = True
        __tlb_reset_range(tlb)
        tlb.freed_tables = True
    tlb_flush_mmu(tlb)
    mm.tlb_flush_pending -= 1


def tlb_start_vma(tlb: MmuGather, vma: VmAreaStruct) -> None:
    """Begin with the next VMA.

    Mirrors include/asm-generic/tlb.h:tlb_start_vma().
    """
    if not tlb.fullmm:
        tlb.vma_pfn = vma.vm_flags & (VM_PFNMAP | VM_MIXEDMAP) != 0


def tlb_end_vma(tlb: MmuGather, vma: VmAreaStruct) -> None:
    """End a VMA: PFN maps are flushed at once, others wait.

    Mirrors include/asm-generic/tlb.h:tlb_end_vma().
    """
    if not tlb.fullmm and tlb.vma_pfn:
        tlb_flush_mmu_tlbonly(tlb)
