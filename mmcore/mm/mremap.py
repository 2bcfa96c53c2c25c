"""Moving mappings: the page table side.

Mirrors parts of mm/mremap.c.

Simplified: entries are moved one by one (the kernel moves whole tables where both ends are aligned),
and only a move to a fixed place without a change of size (chapter 5).
"""

from __future__ import annotations

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86 import tlb as tlb_
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EFAULT, EINVAL, ENOMEM
from mmcore.mm import huge_memory, mmap, swapops
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    MmStruct,
    VmAreaStruct,
    mmap_write_lock,
    mmap_write_unlock,
    vma_is_anonymous,
    vma_pages,
)

__all__ = ["MREMAP_FIXED", "MREMAP_MAYMOVE", "mremap_to", "move_page_tables"]

MREMAP_MAYMOVE = 1
MREMAP_FIXED = 2


def move_soft_dirty_pte(pte: int) -> int:
    """Mark a moved entry soft-dirty: user space shall notice.

    Mirrors mm/mremap.c:move_soft_dirty_pte().
    """
    if pg.pte_present(pte):
        return pg.pte_mksoft_dirty(pte)
    return pg.pte_swp_mksoft_dirty(pte) if swapops.is_swap_pte(pte) else pte


def move_page_tables(vma: VmAreaStruct, old_addr: int, new_addr: int, length: int) -> int:
    """Move the entries of a range; how many bytes were moved (less when there is no memory).

    Mirrors mm/mremap.c:move_page_tables().
    """
    mm = vma.vm_mm
    flush = False
    moved = 0
    while moved < length:
        old, level = pg.lookup_address(mm, old_addr + moved)
        if old is not None and level == 2:
            huge_memory.split_huge_pmd(vma, old, old_addr + moved)
            continue
        if old is not None and not pg.pte_none(old[0][old[1]]):
            p4d = pg.p4d_alloc(mm, pg.pgd_offset(mm, new_addr + moved), new_addr + moved)
            pud = None if p4d is None else pg.pud_alloc(mm, p4d, new_addr + moved)
            pmd = None if pud is None else pg.pmd_alloc(mm, pud, new_addr + moved)
            if pmd is None or pg.pte_alloc(mm, pmd):
                break
            pte = pg.ptep_get_and_clear(mm, old_addr + moved, old)
            flush |= pg.pte_present(pte)
            new = pg.pte_offset_kernel(pmd, new_addr + moved)
            pg.set_pte(new, move_soft_dirty_pte(pte))
        moved += PAGE_SIZE
    if flush:
        tlb_.flush_tlb_range(vma, old_addr, old_addr + length)
    return moved


def mremap_to(mm: MmStruct, addr: int, length: int, new_addr: int) -> int:
    """Move a mapping to @new_addr, unmapping what is there: the new address or -errno.

    Mirrors mm/mremap.c:mremap_to().
    """
    if (addr | new_addr | length) & (PAGE_SIZE - 1) or length <= 0:
        return -EINVAL
    if new_addr + length > mm.task_size or (addr + length > new_addr and new_addr + length > addr):
        return -EINVAL
    error = mmap.do_munmap(mm, new_addr, length)
    if error:
        return error
    vma = vma_.vma_lookup(mm, addr)
    if vma is None or addr + length > vma.vm_end:
        return -EFAULT
    mmap_write_lock(mm)
    new = vma_.vm_area_dup(vma)
    new.vm_start, new.vm_end = new_addr, new_addr + length
    if vma_is_anonymous(vma) and vma.anon_vma is None:
        new.vm_pgoff = new_addr >> PAGE_SHIFT
    else:
        new.vm_pgoff = vma.vm_pgoff + ((addr - vma.vm_start) >> PAGE_SHIFT)
    vma_.vma_link(mm, new)
    vma_.vm_stat_account(mm, new.vm_flags, vma_pages(new))
    moved = move_page_tables(vma, addr, new_addr, length)
    if moved < length:  # put back what was moved
        move_page_tables(new, new_addr, addr, moved)
    mmap_write_unlock(mm)
    if moved < length:
        mmap.do_munmap(mm, new_addr, length)
        return -ENOMEM
    mmap.do_munmap(mm, addr, length)
    return new_addr
