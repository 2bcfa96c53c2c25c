"""Advice about mappings: as much as paging shows.

Mirrors parts of mm/madvise.c.

Simplified: dropping, lazy freeing, huge pages and populating only; a page that becomes
lazily freeable keeps PG_swapbacked until reclaim is modelled (chapter 4).
"""

from __future__ import annotations

from mmcore.arch.x86.pgtable import (
    Ptep,
    pmd_none,
    pmd_trans_huge,
    pte_dirty,
    pte_mkclean,
    pte_mkold,
    pte_offset_map_lock,
    pte_present,
    pte_unmap_unlock,
    pte_young,
)
from mmcore.cint import ALIGN
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EINVAL, ENOMEM
from mmcore.mm import gup, huge_memory, memory, mmu_gather, swap
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    VM_HUGEPAGE,
    VM_LOCKED,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    MmStruct,
    VmAreaStruct,
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    vma_is_anonymous,
    vma_start_write,
)

__all__ = [
    "MADV_DONTNEED",
    "MADV_FREE",
    "MADV_HUGEPAGE",
    "MADV_NOHUGEPAGE",
    "MADV_POPULATE_READ",
    "MADV_POPULATE_WRITE",
    "madvise",
]

MADV_DONTNEED = 4
MADV_FREE = 8
MADV_HUGEPAGE = 14
MADV_NOHUGEPAGE = 15
MADV_POPULATE_READ = 22
MADV_POPULATE_WRITE = 23


def madvise(mm: MmStruct, start: int, length: int, behavior: int) -> int:
    """Give advice about a range: 0, or -EINVAL, or -ENOMEM if part of it is not mapped.

    Mirrors mm/madvise.c:do_madvise().
    """
    if start & (PAGE_SIZE - 1) or start < 0 or length < 0:
        return -EINVAL
    populate = behavior in (MADV_POPULATE_READ, MADV_POPULATE_WRITE)
    known = (MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE)
    if behavior not in known and not populate:
        return -EINVAL
    end = start + ALIGN(length, PAGE_SIZE)
    if start == end:
        return 0
    if populate:
        mmap_read_lock(mm)
        error = gup.faultin_page_range(mm, start, end, behavior == MADV_POPULATE_WRITE)
        mmap_read_unlock(mm)
        return error
    mmap_write_lock(mm)
    error, at, unmapped = 0, start, 0
    for vma in mm.mm_mt.range(start, end):
        if vma.vm_start > at:
            unmapped = -ENOMEM
            at = vma.vm_start
        stop = min(vma.vm_end, end)
        if behavior in (MADV_HUGEPAGE, MADV_NOHUGEPAGE):
            error = _set_flags(vma, at, stop, behavior)
        else:
            error = madvise_dontneed_free(vma, at, stop, behavior)
        if error:
            break
        at = stop
    mmap_write_unlock(mm)
    return error or (unmapped if at >= end else -ENOMEM)


def _set_flags(vma: VmAreaStruct, start: int, end: int, behavior: int) -> int:
    """Set VM_HUGEPAGE or VM_NOHUGEPAGE on a range (``hugepage_madvise()``)."""
    for edge, below in ((start, True), (end, False)):
        if vma.vm_start < edge < vma.vm_end:
            error = vma_.split_vma(vma, edge, below)
            if error:
                return error
    vma_start_write(vma)
    on, off = VM_HUGEPAGE, VM_NOHUGEPAGE
    if behavior == MADV_NOHUGEPAGE:
        on, off = off, on
    vma.vm_flags = vma.vm_flags & ~off | on
    return 0


def madvise_dontneed_free(vma: VmAreaStruct, start: int, end: int, behavior: int) -> int:
    """Drop the pages of a range now, or let reclaim drop them if nobody writes to them first.

    Mirrors mm/madvise.c:madvise_dontneed_free().
    """
    if vma.vm_flags & (VM_LOCKED | VM_PFNMAP):
        return -EINVAL
    if behavior == MADV_DONTNEED:
        memory.zap_page_range_single(vma, start, end - start)
        return 0
    if not vma_is_anonymous(vma):
        return -EINVAL
    mm = vma.vm_mm
    if mm.machine is not None:
        swap.lru_add_drain(mm.machine)
    tlb = mmu_gather.tlb_gather_mmu(mm)
    for pmd, addr, following in memory._pmd_ranges(mm, start, end):
        if pmd_trans_huge(pmd[0][pmd[1]]):
            huge_memory.split_huge_pmd(vma, pmd, addr)
        if not pmd_none(pmd[0][pmd[1]]):
            madvise_free_pte_range(tlb, vma, pmd, addr, following)
    mmu_gather.tlb_finish_mmu(tlb)
    return 0


def madvise_free_pte_range(
    tlb: mmu_gather.MmuGather,
    vma: VmAreaStruct,
    pmd: Ptep,
    addr: int,
    end: int,
) -> None:
    """Clear the accessed and dirty bits of the entries of one page table.

    Mirrors mm/madvise.c:madvise_free_pte_range().
    """
    first = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if first is None:
        return
    table, i = first
    for n in range(i, i + ((end - addr) >> PAGE_SHIFT)):
        pte = table[n]
        here = addr + ((n - i) << PAGE_SHIFT)
        if not pte_present(pte) or memory.vm_normal_page(vma, here, pte) is None:
            continue
        if pte_young(pte) or pte_dirty(pte):
            table[n] = pte_mkclean(pte_mkold(pte))
            mmu_gather.tlb_flush_pte_range(tlb, here, PAGE_SIZE)
    pte_unmap_unlock(vma.vm_mm, first)
