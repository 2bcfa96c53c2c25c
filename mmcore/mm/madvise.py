"""Advice about mappings.

Mirrors mm/madvise.c.

Simplified: MADV_COLD and MADV_PAGEOUT check, and move no pages (chapter 7); MADV_COLLAPSE checks, and
finds nothing that it can collapse (chapter 16); MADV_WILLNEED reads nothing; MADV_HWPOISON and
MADV_SOFT_OFFLINE are chapter 20's. A page that becomes lazily freeable keeps PG_swapbacked until
reclaim is modelled (chapter 4).
"""

from __future__ import annotations

from collections.abc import Callable

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
from mmcore.cint import ULONG_MAX
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EACCES, EAGAIN, EINVAL, ENOMEM, EOPNOTSUPP, EPERM
from mmcore.mm import gup, huge_memory, ksm, memory, mmap, mmu_gather, shmem, swap
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_DROPPABLE,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WIPEONFORK,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    vma_is_anonymous,
    vma_start_write,
)

# include/uapi/asm-generic/mman-common.h
MADV_NORMAL = 0
MADV_RANDOM = 1
MADV_SEQUENTIAL = 2
MADV_WILLNEED = 3
MADV_DONTNEED = 4
MADV_FREE = 8
MADV_REMOVE = 9
MADV_DONTFORK = 10
MADV_DOFORK = 11
MADV_MERGEABLE = 12
MADV_UNMERGEABLE = 13
MADV_HUGEPAGE = 14
MADV_NOHUGEPAGE = 15
MADV_DONTDUMP = 16
MADV_DODUMP = 17
MADV_WIPEONFORK = 18
MADV_KEEPONFORK = 19
MADV_COLD = 20
MADV_PAGEOUT = 21
MADV_POPULATE_READ = 22
MADV_POPULATE_WRITE = 23
MADV_DONTNEED_LOCKED = 24
MADV_COLLAPSE = 25
MADV_HWPOISON = 100
MADV_SOFT_OFFLINE = 101
MADV_NAMES: dict[int, str] = {
    value: name for name, value in list(globals().items()) if name.startswith("MADV_")
}

#: Advice that changes no vm_flags, and needs mmap_lock for reading only.
_READ_LOCK = (
    MADV_REMOVE,
    MADV_WILLNEED,
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MADV_COLD,
    MADV_PAGEOUT,
    MADV_FREE,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    MADV_COLLAPSE,
)
#: Advice that throws data away (mm/mseal.c:is_madv_discard()).
_DISCARD = (
    MADV_FREE,
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MADV_REMOVE,
    MADV_DONTFORK,
    MADV_WIPEONFORK,
)

__all__ = [
    *MADV_NAMES.values(),
    "MADV_NAMES",
    "do_madvise",
    "madvise",
    "madvise_behavior_valid",
    "madvise_vma_behavior",
    "madvise_walk_vmas",
    "sys_madvise",
]


def madvise_behavior_valid(behavior: int) -> bool:
    """Tell whether the reference kernel knows a kind of advice.

    Mirrors mm/madvise.c:madvise_behavior_valid().
    """
    return behavior in MADV_NAMES


def can_modify_vma_madv(vma: VmAreaStruct, behavior: int) -> bool:
    """Tell whether a sealed, read-only anonymous mapping forbids the advice.

    Mirrors mm/mseal.c:can_modify_vma_madv().
    """
    if behavior not in _DISCARD or vma_.can_modify_vma(vma):
        return True
    read_only_anon = vma.vm_file is None and not vma.vm_flags & (VM_SHARED | VM_WRITE)
    return not read_only_anon


def madvise_update_vma(
    vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int, new_flags: int
) -> VmAreaStruct | int:
    """Give a range other vm_flags: the VMA that has it now, or -errno.

    Mirrors mm/madvise.c:madvise_update_vma().
    """
    if new_flags == vma.vm_flags:
        return vma
    changed = vma_.vma_modify_flags(prev, vma, start, end, new_flags)
    if isinstance(changed, int):
        return changed
    vma_start_write(changed)
    changed.vm_flags = new_flags
    return changed


def _new_flags(vma: VmAreaStruct, behavior: int) -> int:
    """Return the vm_flags that advice asks for, or -errno: the switch of madvise_vma_behavior()."""
    flags = vma.vm_flags
    if behavior == MADV_DOFORK:
        return -EINVAL if flags & VM_IO else flags & ~VM_DONTCOPY
    if behavior == MADV_WIPEONFORK:
        bad = vma.vm_file is not None or flags & VM_SHARED
        return -EINVAL if bad else flags | VM_WIPEONFORK
    if behavior == MADV_KEEPONFORK:
        return -EINVAL if flags & VM_DROPPABLE else flags & ~VM_WIPEONFORK
    if behavior == MADV_DODUMP:
        bad = (not flags & VM_HUGETLB and flags & VM_SPECIAL) or flags & VM_DROPPABLE
        return -EINVAL if bad else flags & ~VM_DONTDUMP
    if behavior == MADV_MERGEABLE:
        return ksm.ksm_madvise_mergeable(vma, flags)
    if behavior == MADV_UNMERGEABLE:
        return ksm.ksm_madvise_unmergeable(vma, flags)
    on, off = {
        MADV_NORMAL: (0, VM_RAND_READ | VM_SEQ_READ),
        MADV_SEQUENTIAL: (VM_SEQ_READ, VM_RAND_READ),
        MADV_RANDOM: (VM_RAND_READ, VM_SEQ_READ),
        MADV_DONTFORK: (VM_DONTCOPY, 0),
        MADV_DONTDUMP: (VM_DONTDUMP, 0),
        MADV_HUGEPAGE: (VM_HUGEPAGE, VM_NOHUGEPAGE),
        MADV_NOHUGEPAGE: (VM_NOHUGEPAGE, VM_HUGEPAGE),
    }[behavior]
    return flags & ~off | on


def madvise_vma_behavior(
    vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int, behavior: int
) -> VmAreaStruct | int | None:
    """Apply advice to a part of one VMA.

    :return: the VMA before what comes next; None if mmap_lock was given back meanwhile; or -errno

    Mirrors mm/madvise.c:madvise_vma_behavior().
    """
    if not can_modify_vma_madv(vma, behavior):
        return -EPERM
    if behavior == MADV_REMOVE:
        return madvise_remove(vma, start, end) or None
    if behavior == MADV_WILLNEED:
        file = vma.vm_file
        return vma if file is None or file.f_mapping.swapbacked else None
    if behavior in (MADV_COLD, MADV_PAGEOUT):
        return -EINVAL if vma.vm_flags & (VM_LOCKED | VM_PFNMAP | VM_HUGETLB) else vma
    if behavior in (MADV_FREE, MADV_DONTNEED, MADV_DONTNEED_LOCKED):
        return madvise_dontneed_free(vma, start, end, behavior) or vma
    if behavior == MADV_COLLAPSE:
        return madvise_collapse(vma, start, end) or vma
    new_flags = _new_flags(vma, behavior)
    if -4096 < new_flags < 0:
        return -EAGAIN if new_flags == -ENOMEM else new_flags
    changed = madvise_update_vma(vma, prev, start, end, new_flags)
    return -EAGAIN if isinstance(changed, int) and changed == -ENOMEM else changed


def madvise_collapse(vma: VmAreaStruct, start: int, end: int) -> int:
    """Make huge pages of a range: 0 if no whole 2 MiB are in it, else -EINVAL.

    Simplified: nothing is collapsed; a range with huge pages already is not recognised.

    Mirrors mm/khugepaged.c:madvise_collapse().
    """
    if not vma_is_anonymous(vma) or vma.vm_flags & VM_NOHUGEPAGE:
        return -EINVAL
    first = start + huge_memory.PMD_SIZE - 1 & -huge_memory.PMD_SIZE
    return -EINVAL if first < end & -huge_memory.PMD_SIZE else 0


def madvise_remove(vma: VmAreaStruct, start: int, end: int) -> int:
    """Free pages together with what is behind them in the file: 0 or -errno.

    Simplified: shared memory only; other file systems answer -EOPNOTSUPP.

    Mirrors mm/madvise.c:madvise_remove().
    """
    if vma.vm_flags & VM_LOCKED or vma.vm_file is None:
        return -EINVAL
    if not vma_.vma_is_shared_maywrite(vma):
        return -EACCES
    mm = vma.vm_mm
    offset = start - vma.vm_start + (vma.vm_pgoff << PAGE_SHIFT)
    if not vma.vm_file.f_mapping.swapbacked:
        return -EOPNOTSUPP
    assert mm.machine is not None
    return shmem.shmem_fallocate_punch_hole(mm.machine, vma.vm_file, offset, end - start)


def madvise_walk_vmas(
    mm: MmStruct,
    start: int,
    end: int,
    behavior: int,
    visit: Callable[[VmAreaStruct, VmAreaStruct | None, int, int, int], VmAreaStruct | int | None],
) -> int:
    """Call @visit for each part of a VMA in a range; holes are skipped and make -ENOMEM.

    Mirrors mm/madvise.c:madvise_walk_vmas().
    """
    unmapped_error = 0
    vma, prev = vma_.find_vma_prev(mm, start)
    if vma is not None and start > vma.vm_start:
        prev = vma
    while True:
        if vma is None:
            return -ENOMEM
        if start < vma.vm_start:
            unmapped_error = -ENOMEM
            start = vma.vm_start
            if start >= end:
                break
        tmp = min(vma.vm_end, end)
        got = visit(vma, prev, start, tmp, behavior)
        if isinstance(got, int):
            return got
        prev = got
        start = tmp
        if prev is not None and start < prev.vm_end:
            start = prev.vm_end
        if start >= end:
            break
        vma = vma_.find_vma(mm, prev.vm_end if prev is not None else start)
    return unmapped_error


def do_madvise(mm: MmStruct, start: int, len_in: int, behavior: int) -> int:
    """Give advice about a range: 0 or -errno; what comes before an error stays changed.

    Mirrors mm/madvise.c:do_madvise().
    """
    start, len_in = start & ULONG_MAX, len_in & ULONG_MAX
    if not madvise_behavior_valid(behavior) or start & (PAGE_SIZE - 1):
        return -EINVAL
    length = mmap.page_align(len_in)
    if len_in and not length:
        return -EINVAL
    end = start + length & ULONG_MAX
    if end < start:
        return -EINVAL
    if end == start:
        return 0
    if behavior in (MADV_HWPOISON, MADV_SOFT_OFFLINE):
        return -EOPNOTSUPP
    write = behavior not in _READ_LOCK
    (mmap_write_lock if write else mmap_read_lock)(mm)
    if behavior in (MADV_POPULATE_READ, MADV_POPULATE_WRITE):
        error = gup.faultin_page_range(mm, start, end, behavior == MADV_POPULATE_WRITE)
    else:
        error = madvise_walk_vmas(mm, start, end, behavior, madvise_vma_behavior)
    (mmap_write_unlock if write else mmap_read_unlock)(mm)
    return error


def sys_madvise(mm: MmStruct, start: int, len_in: int, behavior: int) -> int:
    """madvise(): 0 or -errno.

    Mirrors mm/madvise.c:madvise().
    """
    return do_madvise(mm, start, len_in, behavior)


madvise = sys_madvise


def madvise_dontneed_free(vma: VmAreaStruct, start: int, end: int, behavior: int) -> int:
    """Drop the pages of a range now, or let reclaim drop them if nobody writes to them first.

    Mirrors mm/madvise.c:madvise_dontneed_free().
    """
    forbidden = VM_PFNMAP if behavior == MADV_DONTNEED_LOCKED else VM_PFNMAP | VM_LOCKED
    if vma.vm_flags & forbidden:
        return -EINVAL
    if behavior != MADV_FREE:
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
