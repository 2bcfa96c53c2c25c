"""Locking memory: pages that must stay.

Mirrors mm/mlock.c.

Simplified: pages that are there already stay on their LRU lists (chapter 7); no secretmem.
"""

from __future__ import annotations

from mmcore.cint import ULONG_MAX
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EAGAIN, EFAULT, EINVAL, ENOMEM, EPERM
from mmcore.mm import gup, mmap, util
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_LOCKONFAULT,
    MmStruct,
    VmAreaStruct,
    mmap_write_lock,
    mmap_write_unlock,
    vma_start_write,
)

__all__ = [
    "MCL_CURRENT",
    "MCL_FUTURE",
    "MCL_ONFAULT",
    "MLOCK_ONFAULT",
    "apply_mlockall_flags",
    "apply_vma_lock_flags",
    "do_mlock",
    "do_munlock",
    "mlock_fixup",
    "sys_mlock",
    "sys_mlock2",
    "sys_mlockall",
    "sys_munlock",
    "sys_munlockall",
]

MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
MLOCK_ONFAULT = 1


def mlock_fixup(
    vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int, newflags: int
) -> VmAreaStruct | int:
    """Give [@start, @end) of @vma new lock flags, splitting and merging where needed.

    :return: the VMA of the range, or -errno

    Mirrors mm/mlock.c:mlock_fixup().
    """
    oldflags = vma.vm_flags
    if newflags == oldflags or not mmap.vma_supports_mlock(vma):
        return vma
    changed = vma_.vma_modify_flags(prev, vma, start, end, newflags)
    if isinstance(changed, int):
        return changed
    pages = (end - start) >> PAGE_SHIFT
    if not newflags & VM_LOCKED:
        pages = -pages
    elif oldflags & VM_LOCKED:
        pages = 0
    vma.vm_mm.locked_vm += pages
    vma_start_write(changed)
    changed.vm_flags = newflags
    return changed


def apply_vma_lock_flags(mm: MmStruct, start: int, length: int, flags: int) -> int:
    """Set the lock flags of a range: 0 or -errno; what comes before a hole stays changed.

    Mirrors mm/mlock.c:apply_vma_lock_flags().
    """
    end = start + length & ULONG_MAX
    if end < start:
        return -EINVAL
    if end == start:
        return 0
    vma = vma_.vma_lookup(mm, start)
    if vma is None:
        return -ENOMEM
    prev = vma if start > vma.vm_start else vma_.vma_prev(vma)
    nstart, tmp = start, vma.vm_start
    while vma is not None:
        if vma.vm_start != tmp:
            return -ENOMEM
        newflags = vma.vm_flags & ~VM_LOCKED_MASK | flags
        tmp = min(vma.vm_end, end)
        done = mlock_fixup(vma, prev, nstart, tmp, newflags)
        if isinstance(done, int):
            return done
        prev = done
        tmp = nstart = prev.vm_end
        vma = mm.mm_mt.find(nstart, end - 1) if nstart < end else None
    return -ENOMEM if tmp < end else 0


def count_mm_mlocked_page_nr(mm: MmStruct, start: int, length: int) -> int:
    """Return how many pages of a range are locked already.

    Mirrors mm/mlock.c:count_mm_mlocked_page_nr().
    """
    end = min(start + length, ULONG_MAX)
    count = 0
    for vma in mm.mm_mt.range(start, end):
        if vma.vm_flags & VM_LOCKED:
            if start > vma.vm_start:
                count -= start - vma.vm_start
            if end < vma.vm_end:
                count += end - vma.vm_start
                break
            count += vma.vm_end - vma.vm_start
    return count >> PAGE_SHIFT


def _pages_of(start: int, length: int) -> tuple[int, int]:
    """Return (first address, length) of the whole pages that a range touches."""
    start, length = start & ULONG_MAX, length & ULONG_MAX
    return start & -PAGE_SIZE, mmap.page_align(length + (start & PAGE_SIZE - 1))


def do_mlock(mm: MmStruct, start: int, length: int, flags: int = VM_LOCKED) -> int:
    """Lock a range in memory and fault it in: 0 or -errno.

    :param flags: VM_LOCKED, and VM_LOCKONFAULT to wait for the first touch

    Mirrors mm/mlock.c:do_mlock().
    """
    if not mmap.can_do_mlock(mm):
        return -EPERM
    start, length = _pages_of(start, length)
    limit = util.rlimit(mm, util.RLIMIT_MEMLOCK) >> PAGE_SHIFT
    privileged = util.capable(mm, util.CAP_IPC_LOCK)
    mmap_write_lock(mm)
    locked = (length >> PAGE_SHIFT) + mm.locked_vm
    if locked > limit and not privileged:
        locked -= count_mm_mlocked_page_nr(mm, start, length)
    error = -ENOMEM
    if locked <= limit or privileged:
        error = apply_vma_lock_flags(mm, start, length, flags)
    mmap_write_unlock(mm)
    if error:
        return error
    error = gup.mm_populate(mm, start, length, ignore_errors=False)
    return {-EFAULT: -ENOMEM, -ENOMEM: -EAGAIN}.get(error, error)


def sys_mlock(mm: MmStruct, start: int, length: int) -> int:
    """mlock(): 0 or -errno.

    Mirrors mm/mlock.c:mlock().
    """
    return do_mlock(mm, start, length)


def sys_mlock2(mm: MmStruct, start: int, length: int, flags: int) -> int:
    """mlock2(): 0 or -errno.

    Mirrors mm/mlock.c:mlock2().
    """
    if flags & ~MLOCK_ONFAULT:
        return -EINVAL
    return do_mlock(mm, start, length, VM_LOCKED | (VM_LOCKONFAULT if flags else 0))


def sys_munlock(mm: MmStruct, start: int, length: int) -> int:
    """munlock(): 0 or -errno; the pages stay.

    Mirrors mm/mlock.c:munlock().
    """
    start, length = _pages_of(start, length)
    mmap_write_lock(mm)
    error = apply_vma_lock_flags(mm, start, length, 0)
    mmap_write_unlock(mm)
    return error


do_munlock = sys_munlock


def apply_mlockall_flags(mm: MmStruct, flags: int) -> None:
    """Set the lock flags of all VMAs, of future ones, or of both; errors are ignored.

    Mirrors mm/mlock.c:apply_mlockall_flags().
    """
    mm.def_flags &= ~VM_LOCKED_MASK
    lock = VM_LOCKED | (VM_LOCKONFAULT if flags & MCL_ONFAULT else 0)
    if flags & MCL_FUTURE:
        mm.def_flags |= lock
        if not flags & MCL_CURRENT:
            return
    to_add = lock if flags & MCL_CURRENT else 0
    prev: VmAreaStruct | None = None
    vma = mm.mm_mt.find(0)
    while vma is not None:
        newflags = vma.vm_flags & ~VM_LOCKED_MASK | to_add
        done = mlock_fixup(vma, prev, vma.vm_start, vma.vm_end, newflags)
        prev = vma if isinstance(done, int) else done
        vma = mm.mm_mt.find(prev.vm_end)


def sys_mlockall(mm: MmStruct, flags: int) -> int:
    """mlockall(): 0 or -errno.

    Mirrors mm/mlock.c:mlockall().
    """
    if not flags or flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) or flags == MCL_ONFAULT:
        return -EINVAL
    if not mmap.can_do_mlock(mm):
        return -EPERM
    limit = util.rlimit(mm, util.RLIMIT_MEMLOCK) >> PAGE_SHIFT
    mmap_write_lock(mm)
    ret = -ENOMEM
    if not flags & MCL_CURRENT or mm.total_vm <= limit or util.capable(mm, util.CAP_IPC_LOCK):
        apply_mlockall_flags(mm, flags)
        ret = 0
    mmap_write_unlock(mm)
    if not ret and flags & MCL_CURRENT:
        gup.mm_populate(mm, 0, mm.task_size)
    return ret


def sys_munlockall(mm: MmStruct) -> int:
    """munlockall(): 0.

    Mirrors mm/mlock.c:munlockall().
    """
    mmap_write_lock(mm)
    apply_mlockall_flags(mm, 0)
    mmap_write_unlock(mm)
    return 0
