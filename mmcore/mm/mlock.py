"""Locking memory: as pre-faulting.

Mirrors parts of mm/mlock.c.

Simplified: no limits, no LRU moves of pages that are there already (chapter 7), no VM_LOCKONFAULT.
"""

from __future__ import annotations

from mmcore.cint import ALIGN
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EINVAL, ENOMEM
from mmcore.mm import gup
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_SPECIAL,
    MmStruct,
    VmAreaStruct,
    mmap_write_lock,
    mmap_write_unlock,
    vma_start_write,
)

__all__ = ["do_mlock", "do_munlock", "mlock_fixup"]


def mlock_fixup(vma: VmAreaStruct, start: int, end: int, newflags: int) -> int:
    """Give [@start, @end) of @vma new lock flags, splitting it where needed: 0 or -errno.

    Mirrors mm/mlock.c:mlock_fixup().
    """
    if newflags == vma.vm_flags or vma.vm_flags & VM_SPECIAL:
        return 0
    for edge, below in ((start, True), (end, False)):
        if vma.vm_start < edge < vma.vm_end:
            error = vma_.split_vma(vma, edge, below)
            if error:
                return error
    pages = (end - start) >> PAGE_SHIFT
    if not newflags & VM_LOCKED:
        pages = -pages
    elif vma.vm_flags & VM_LOCKED:
        pages = 0
    vma.vm_mm.locked_vm += pages
    vma_start_write(vma)
    vma.vm_flags = newflags
    return 0


def apply_vma_lock_flags(mm: MmStruct, start: int, length: int, flags: int) -> int:
    """Set the lock flags of a range: 0, or -EINVAL, or -ENOMEM if part of it is not mapped.

    Mirrors mm/mlock.c:apply_vma_lock_flags().
    """
    end = start + length
    if end < start:
        return -EINVAL
    if end == start:
        return 0
    vmas = mm.mm_mt.range(start, end)
    at = start
    for vma in vmas:
        if vma.vm_start > at:
            return -ENOMEM
        stop = min(vma.vm_end, end)
        error = mlock_fixup(vma, at, stop, vma.vm_flags & ~VM_LOCKED_MASK | flags)
        if error:
            return error
        at = stop
    return 0 if at >= end else -ENOMEM


def do_mlock(mm: MmStruct, start: int, length: int) -> int:
    """Lock a range in memory and fault it in: 0 or -errno.

    Mirrors mm/mlock.c:do_mlock().
    """
    length = ALIGN(length + (start & (PAGE_SIZE - 1)), PAGE_SIZE)
    start &= -PAGE_SIZE
    mmap_write_lock(mm)
    error = apply_vma_lock_flags(mm, start, length, VM_LOCKED)
    mmap_write_unlock(mm)
    return error or gup.mm_populate(mm, start, length)


def do_munlock(mm: MmStruct, start: int, length: int) -> int:
    """Unlock a range: 0 or -errno; the pages stay."""
    length = ALIGN(length + (start & (PAGE_SIZE - 1)), PAGE_SIZE)
    start &= -PAGE_SIZE
    mmap_write_lock(mm)
    error = apply_vma_lock_flags(mm, start, length, 0)
    mmap_write_unlock(mm)
    return error
