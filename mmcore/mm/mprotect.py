"""Changing the protection of mappings.

Mirrors parts of mm/mprotect.c.

Simplified: neighbours are not merged, no commit accounting, no NUMA hinting, no userfaultfd, and huge
mappings are split even when they are changed as a whole (chapter 5).
"""

from __future__ import annotations

from mmcore.arch.x86.pgtable import (
    Ptep,
    pmd_none,
    pmd_trans_huge,
    pte_dirty,
    pte_mkwrite,
    pte_modify,
    pte_offset_map_lock,
    pte_present,
    pte_protnone,
    pte_soft_dirty,
    pte_unmap_unlock,
    pte_write,
)
from mmcore.arch.x86.tlb import pte_needs_flush
from mmcore.cint import ALIGN
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EACCES, EINVAL, ENOMEM
from mmcore.mm import huge_memory, memory, mmu_gather, rmap
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    VM_ACCESS_FLAGS,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    mmap_write_lock,
    mmap_write_unlock,
    vma_start_write,
)
from mmcore.mm.mm_types import page_folio
from mmcore.mm.mmu_gather import MmuGather

__all__ = ["can_change_pte_writable", "change_protection", "do_mprotect", "mprotect_fixup"]


def can_change_pte_writable(vma: VmAreaStruct, addr: int, pte: int) -> bool:
    """Tell whether @pte can be writable at once, because a write fault would make it so.

    Mirrors mm/mprotect.c:can_change_pte_writable().
    """
    if pte_protnone(pte):
        return False
    if not vma.vm_flags & VM_SOFTDIRTY and not pte_soft_dirty(pte):
        return False  # pte_needs_soft_dirty_wp()
    if vma.vm_flags & VM_SHARED:
        return pte_dirty(pte)
    page = memory.vm_normal_page(vma, addr, pte)
    return (
        page is not None and rmap.folio_test_anon(page_folio(page)) and rmap.PageAnonExclusive(page)
    )


def change_protection(tlb: MmuGather, vma: VmAreaStruct, start: int, end: int) -> int:
    """Give the entries of a range the protection of @vma: how many pages changed.

    Mirrors mm/mprotect.c:change_protection().
    """
    pages = 0
    for pmd, addr, following in memory._pmd_ranges(vma.vm_mm, start, end):
        if pmd_trans_huge(pmd[0][pmd[1]]):
            huge_memory.split_huge_pmd(vma, pmd, addr)
        if not pmd_none(pmd[0][pmd[1]]):
            pages += change_pte_range(tlb, vma, pmd, addr, following)
    return pages


def change_pte_range(tlb: MmuGather, vma: VmAreaStruct, pmd: Ptep, addr: int, end: int) -> int:
    """Change the entries of one page table.

    Mirrors mm/mprotect.c:change_pte_range().
    """
    first = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if first is None:
        return 0
    table, i = first
    pages = 0
    upgrade = vma.vm_flags & VM_WRITE
    for n in range(i, i + ((end - addr) >> PAGE_SHIFT)):
        old = table[n]
        here = addr + ((n - i) << PAGE_SHIFT)
        if not pte_present(old):
            continue
        new = pte_modify(old, vma.vm_page_prot)
        if upgrade and not pte_write(new) and can_change_pte_writable(vma, here, new):
            new = pte_mkwrite(new, vma)
        table[n] = new
        if pte_needs_flush(old, new):
            mmu_gather.tlb_flush_pte_range(tlb, here, PAGE_SIZE)
        pages += 1
    pte_unmap_unlock(vma.vm_mm, first)
    return pages


def mprotect_fixup(tlb: MmuGather, vma: VmAreaStruct, start: int, end: int, newflags: int) -> int:
    """Give [@start, @end) of @vma new flags, splitting it where needed: 0 or -errno.

    Mirrors mm/mprotect.c:mprotect_fixup().
    """
    if newflags == vma.vm_flags:
        return 0
    mm = vma.vm_mm
    for edge, below in ((start, True), (end, False)):
        if vma.vm_start < edge < vma.vm_end:
            error = vma_.split_vma(vma, edge, below)
            if error:
                return error
    vma_start_write(vma)
    pages = (end - start) >> PAGE_SHIFT
    vma_.vm_stat_account(mm, vma.vm_flags, -pages)
    vma_.vm_stat_account(mm, newflags, pages)
    vma.vm_flags = newflags
    vma_.vma_set_page_prot(vma)
    change_protection(tlb, vma, start, end)
    return 0


def do_mprotect(mm: MmStruct, start: int, length: int, prot: int) -> int:
    """Change the protection of whole pages: 0, or -EINVAL, -ENOMEM for a hole, -EACCES.

    Mirrors mm/mprotect.c:do_mprotect_pkey().
    """
    if start & (PAGE_SIZE - 1) or start < 0 or prot & ~VM_ACCESS_FLAGS:
        return -EINVAL
    if length <= 0:
        return 0 if not length else -EINVAL
    end = start + ALIGN(length, PAGE_SIZE)
    mmap_write_lock(mm)
    vmas = mm.mm_mt.range(start, end)
    error = 0 if vmas and vmas[0].vm_start <= start else -ENOMEM
    tlb = mmu_gather.tlb_gather_mmu(mm)
    at = start
    for vma in vmas if not error else ():
        if vma.vm_start > at:
            error = -ENOMEM
            break
        newflags = prot | vma.vm_flags & ~VM_ACCESS_FLAGS
        if newflags & ~(newflags >> 4) & VM_ACCESS_FLAGS:
            error = -EACCES
            break
        stop = min(vma.vm_end, end)
        error = mprotect_fixup(tlb, vma, at, stop, newflags)
        if error:
            break
        at = stop
    mmu_gather.tlb_finish_mmu(tlb)
    if not error and at < end:
        error = -ENOMEM
    mmap_write_unlock(mm)
    return error
