"""Sealing mappings: they can be neither unmapped, nor moved, nor given another protection.

Mirrors mm/mseal.c.
"""

from __future__ import annotations

from mmcore.cint import ULONG_MAX
from mmcore.config import PAGE_SIZE
from mmcore.errors import EINVAL, ENOMEM
from mmcore.mm import mmap
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    VM_SEALED,
    MmStruct,
    VmAreaStruct,
    mmap_write_lock,
    mmap_write_unlock,
)

__all__ = ["do_mseal", "sys_mseal"]


def mseal_fixup(
    vma: VmAreaStruct, prev: VmAreaStruct | None, start: int, end: int, newflags: int
) -> VmAreaStruct | int:
    """Seal a part of @vma: the VMA of the range, or -errno.

    Mirrors mm/mseal.c:mseal_fixup().
    """
    if newflags == vma.vm_flags:
        return vma
    changed = vma_.vma_modify_flags(prev, vma, start, end, newflags)
    if not isinstance(changed, int):
        changed.vm_flags |= VM_SEALED
    return changed


def check_mm_seal(mm: MmStruct, start: int, end: int) -> int:
    """Return 0 if the whole range is mapped, else -ENOMEM.

    Mirrors mm/mseal.c:check_mm_seal().
    """
    nstart = start
    for vma in mm.mm_mt.range(start, end):
        if vma.vm_start > nstart:
            return -ENOMEM
        if vma.vm_end >= end:
            return 0
        nstart = vma.vm_end
    return -ENOMEM


def apply_mm_seal(mm: MmStruct, start: int, end: int) -> int:
    """Seal a range that is mapped: 0, or -ENOMEM at sysctl_max_map_count.

    Mirrors mm/mseal.c:apply_mm_seal().
    """
    vma = vma_.vma_lookup(mm, start)
    assert vma is not None
    prev = vma if start > vma.vm_start else vma_.vma_prev(vma)
    nstart = start
    while vma is not None:
        tmp = min(vma.vm_end, end)
        done = mseal_fixup(vma, prev, nstart, tmp, vma.vm_flags | VM_SEALED)
        if isinstance(done, int):
            return done
        prev = done
        nstart = prev.vm_end
        vma = mm.mm_mt.find(nstart, end - 1) if nstart < end else None
    return 0


def do_mseal(mm: MmStruct, start: int, len_in: int, flags: int) -> int:
    """Seal a range: 0 or -errno; nothing is sealed if part of it is not mapped.

    Mirrors mm/mseal.c:do_mseal().
    """
    start, len_in = start & ULONG_MAX, len_in & ULONG_MAX
    if flags or start & (PAGE_SIZE - 1):
        return -EINVAL
    length = mmap.page_align(len_in)
    if len_in and not length:
        return -EINVAL
    end = start + length & ULONG_MAX
    if end < start:
        return -EINVAL
    if end == start:
        return 0
    mmap_write_lock(mm)
    ret = check_mm_seal(mm, start, end) or apply_mm_seal(mm, start, end)
    mmap_write_unlock(mm)
    return ret


def sys_mseal(mm: MmStruct, start: int, length: int, flags: int = 0) -> int:
    """mseal(): 0 or -errno.

    Mirrors mm/mseal.c:mseal().
    """
    return do_mseal(mm, start, length, flags)
