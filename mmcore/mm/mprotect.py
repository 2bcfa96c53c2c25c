"""Changing the protection of mappings.

Mirrors parts of mm/mprotect.c.

Simplified: no NUMA hinting, no userfaultfd, no protection keys.
"""

from __future__ import annotations

from mmcore.arch.x86.mmap import READ_IMPLIES_EXEC, personality
from mmcore.arch.x86.pgtable import (
    PMD_SIZE,
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
from mmcore.cint import ULONG_MAX
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EACCES, EINVAL, ENOMEM, EPERM
from mmcore.mm import gup, huge_memory, memory, mmap, mmu_gather, rmap, util
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_NORESERVE,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    mmap_write_lock,
    mmap_write_unlock,
    vma_is_anonymous,
    vma_start_write,
)
from mmcore.mm.mm_types import page_folio
from mmcore.mm.mmu_gather import MmuGather

__all__ = [
    "PROT_GROWSDOWN",
    "can_change_pte_writable",
    "change_protection",
    "do_mprotect",
    "do_mprotect_pkey",
    "mprotect_fixup",
    "sys_mprotect",
]

PROT_GROWSDOWN = 0x01000000
PROT_GROWSUP = 0x02000000


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


def vma_wants_manual_pte_write_upgrade(vma: VmAreaStruct) -> bool:
    """Tell whether entries may become writable here that a write fault would make writable.

    Mirrors mm/vma.h:vma_wants_manual_pte_write_upgrade().
    """
    if vma.vm_flags & VM_SHARED:
        return vma_.vma_wants_writenotify(vma)
    return vma.vm_flags & VM_WRITE != 0


def change_protection(tlb: MmuGather, vma: VmAreaStruct, start: int, end: int) -> int:
    """Give the entries of a range the protection of @vma: how many pages changed.

    Mirrors mm/mprotect.c:change_protection().
    """
    upgrade = vma_wants_manual_pte_write_upgrade(vma)
    pages = 0
    for pmd, addr, following in memory._pmd_ranges(vma.vm_mm, start, end):
        if pmd_trans_huge(pmd[0][pmd[1]]):
            if following - addr == PMD_SIZE:
                pages += huge_memory.change_huge_pmd(tlb, vma, pmd, addr, upgrade)
                continue
            huge_memory.split_huge_pmd(vma, pmd, addr)
        if not pmd_none(pmd[0][pmd[1]]):
            pages += change_pte_range(tlb, vma, pmd, addr, following, upgrade)
    return pages


def change_pte_range(
    tlb: MmuGather, vma: VmAreaStruct, pmd: Ptep, addr: int, end: int, upgrade: bool
) -> int:
    """Change the entries of one page table.

    :param upgrade: make entries writable where a write fault would

    Mirrors mm/mprotect.c:change_pte_range().
    """
    first = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if first is None:
        return 0
    table, i = first
    pages = 0
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


def mprotect_fixup(
    tlb: MmuGather,
    vma: VmAreaStruct,
    pprev: VmAreaStruct | None,
    start: int,
    end: int,
    newflags: int,
) -> VmAreaStruct | int:
    """Give [@start, @end) of @vma new flags, splitting and merging where needed.

    A private mapping that becomes writable is promised its pages; the promise is taken back when it
    becomes read-only before anything was written to it.

    :param pprev: the VMA before the range
    :return: the VMA of the range, which is the one before what comes next; or -errno

    Mirrors mm/mprotect.c:mprotect_fixup().
    """
    mm, oldflags, nrpages = vma.vm_mm, vma.vm_flags, (end - start) >> PAGE_SHIFT
    charged = 0
    if not vma_.can_modify_vma(vma):
        return -EPERM
    if newflags == oldflags:
        return vma
    if newflags & VM_WRITE:
        if not mmap.may_expand_vm(mm, newflags, nrpages) and mmap.may_expand_vm(
            mm, oldflags, nrpages
        ):
            return -ENOMEM
        if not oldflags & (VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE):
            charged = nrpages
            if util.vm_enough_memory(mm, charged):
                return -ENOMEM
            newflags |= VM_ACCOUNT
    elif oldflags & VM_ACCOUNT and vma_is_anonymous(vma) and vma.anon_vma is None:
        newflags &= ~VM_ACCOUNT
    changed = vma_.vma_modify_flags(pprev, vma, start, end, newflags)
    if isinstance(changed, int):
        util.vm_unacct_memory(mm, charged)
        return changed
    vma = changed
    vma_start_write(vma)
    vma.vm_flags = newflags
    vma_.vma_set_page_prot(vma)
    change_protection(tlb, vma, start, end)
    if oldflags & VM_ACCOUNT and not newflags & VM_ACCOUNT:
        util.vm_unacct_memory(mm, nrpages)
    if oldflags & (VM_WRITE | VM_SHARED | VM_LOCKED) == VM_LOCKED and newflags & VM_WRITE:
        gup.populate_vma_page_range(vma, start, end)
    vma_.vm_stat_account(mm, oldflags, -nrpages)
    vma_.vm_stat_account(mm, newflags, nrpages)
    return vma


def _first_vma(mm: MmStruct, start: int, end: int, grows: int) -> tuple[VmAreaStruct | int, int]:
    """Return (the VMA that mprotect() begins with or -errno, where it begins)."""
    vma = mm.mm_mt.find(start, end - 1)
    if vma is None:
        return -ENOMEM, start
    if grows & PROT_GROWSDOWN:
        if vma.vm_start >= end:
            return -ENOMEM, start
        return (vma if vma.vm_flags & VM_GROWSDOWN else -EINVAL), vma.vm_start
    if vma.vm_start > start:
        return -ENOMEM, start
    return (-EINVAL if grows & PROT_GROWSUP else vma), start


def do_mprotect_pkey(mm: MmStruct, start: int, length: int, prot: int) -> int:
    """Change the protection of whole pages: 0 or -errno; what comes before an error stays changed.

    Mirrors mm/mprotect.c:do_mprotect_pkey().
    """
    start, length = start & ULONG_MAX, length & ULONG_MAX
    grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP)
    prot &= ~(PROT_GROWSDOWN | PROT_GROWSUP)
    if grows == PROT_GROWSDOWN | PROT_GROWSUP or start & (PAGE_SIZE - 1):
        return -EINVAL
    if not length:
        return 0
    end = start + mmap.page_align(length) & ULONG_MAX
    if end <= start:
        return -ENOMEM
    if prot & ~(VM_ACCESS_FLAGS | mmap.PROT_SEM):
        return -EINVAL
    mmap_write_lock(mm)
    first, start = _first_vma(mm, start, end, grows)
    error = first if isinstance(first, int) else _mprotect_vmas(mm, first, start, end, prot)
    mmap_write_unlock(mm)
    return error


def _mprotect_vmas(mm: MmStruct, first: VmAreaStruct, nstart: int, end: int, reqprot: int) -> int:
    """The loop of do_mprotect_pkey() over the VMAs of a range."""
    rier = personality(mm) & READ_IMPLIES_EXEC and reqprot & mmap.PROT_READ
    prev: VmAreaStruct | None = first if nstart > first.vm_start else vma_.vma_prev(first)
    tlb = mmu_gather.tlb_gather_mmu(mm)
    error, tmp = 0, first.vm_start
    vma: VmAreaStruct | None = first
    while vma is not None:
        prot = reqprot
        if vma.vm_start != tmp:
            error = -ENOMEM
            break
        if rier and vma.vm_flags & VM_MAYEXEC:
            prot |= mmap.PROT_EXEC
        newflags = mmap.calc_vm_prot_bits(prot) | vma.vm_flags & ~VM_ACCESS_FLAGS
        if newflags & ~(newflags >> 4) & VM_ACCESS_FLAGS:
            error = -EACCES
            break
        if mmap.map_deny_write_exec(mm, vma.vm_flags, newflags):
            error = -EACCES
            break
        tmp = min(vma.vm_end, end)
        if vma.vm_ops is not None and vma.vm_ops.mprotect is not None:
            error = vma.vm_ops.mprotect(vma, nstart, tmp, newflags)
            if error:
                break
        done = mprotect_fixup(tlb, vma, prev, nstart, tmp, newflags)
        if isinstance(done, int):
            error = done
            break
        prev = done
        tmp = nstart = prev.vm_end
        vma = mm.mm_mt.find(nstart, end - 1) if nstart < end else None
    mmu_gather.tlb_finish_mmu(tlb)
    return error or (-ENOMEM if tmp < end else 0)


def sys_mprotect(mm: MmStruct, start: int, length: int, prot: int) -> int:
    """mprotect(): 0 or -errno.

    Mirrors mm/mprotect.c:mprotect().
    """
    return do_mprotect_pkey(mm, start, length, prot)


do_mprotect = sys_mprotect
