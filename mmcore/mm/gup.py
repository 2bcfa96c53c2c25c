"""Faulting pages in ahead of time: MAP_POPULATE, MADV_POPULATE_READ and MADV_POPULATE_WRITE.

Mirrors the populating side of mm/gup.c.

Simplified: pages are faulted in one after the other; nothing is pinned and no page is handed out.
"""

from __future__ import annotations

from mmcore.arch.x86 import pgtable as pg
from mmcore.cint import ALIGN
from mmcore.config import PAGE_SIZE
from mmcore.errors import EFAULT, ENOMEM
from mmcore.mm import memory
from mmcore.mm.mm import (
    FAULT_FLAG_WRITE,
    VM_ACCESS_FLAGS,
    VM_FAULT_ERROR,
    VM_FAULT_HWPOISON,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_IO,
    VM_PFNMAP,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    mmap_read_lock,
    mmap_read_unlock,
    vma_is_accessible,
)

__all__ = [
    "EHWPOISON",
    "faultin_page",
    "faultin_page_range",
    "mm_populate",
    "populate_vma_page_range",
]

EHWPOISON = 133


def faultin_page(vma: VmAreaStruct, address: int, write: bool) -> int:
    """Fault one page in, with mmap_lock held: 0 or -errno.

    Mirrors mm/gup.c:faultin_page().
    """
    ret = memory.handle_mm_fault(vma, address, FAULT_FLAG_WRITE if write else 0)
    if ret & VM_FAULT_OOM:
        return -ENOMEM
    if ret & VM_FAULT_HWPOISON:
        return -EHWPOISON
    if ret & (VM_FAULT_ERROR | VM_FAULT_RETRY):
        return -EFAULT
    return 0


def _present(mm: MmStruct, address: int, write: bool) -> bool:
    ptep, _level = pg.lookup_address(mm, address)
    if ptep is None:
        return False
    entry = ptep[0][ptep[1]]
    return pg.pte_present(entry) and not (write and not pg.pte_write(entry))


def populate_vma_page_range(vma: VmAreaStruct, start: int, end: int) -> int:
    """Fault in [@start, @end) of @vma; a private writable mapping is faulted in for writing.

    :return: how many pages were faulted in, or -errno of the first that could not be

    Mirrors mm/gup.c:populate_vma_page_range().
    """
    write = vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE
    if not vma_is_accessible(vma):
        return -EFAULT
    return _faultin_range(vma, start, end, write)


def _faultin_range(vma: VmAreaStruct, start: int, end: int, write: bool) -> int:
    pages = 0
    for address in range(start, end, PAGE_SIZE):
        for _ in range(4):  # a write to what was mapped read-only takes a second fault
            if _present(vma.vm_mm, address, write):
                break
            error = faultin_page(vma, address, write)
            if error:
                return error
            pages += 1
    return pages


def mm_populate(mm: MmStruct, start: int, length: int) -> int:
    """Fault in a range after mmap() or mlock(), as far as it goes; errors are forgotten.

    :return: 0, or the -errno that the kernel would ignore

    Mirrors mm/gup.c:__mm_populate().
    """
    end = start + ALIGN(length, PAGE_SIZE)
    mmap_read_lock(mm)
    error = 0
    for vma in mm.mm_mt.range(start, end):
        if vma.vm_flags & (VM_IO | VM_PFNMAP) or not vma.vm_flags & VM_ACCESS_FLAGS:
            continue
        got = populate_vma_page_range(vma, max(vma.vm_start, start), min(vma.vm_end, end))
        if got < 0:
            error = got
            break
    mmap_read_unlock(mm)
    return error


def faultin_page_range(mm: MmStruct, start: int, end: int, write: bool) -> int:
    """Fault in a range for MADV_POPULATE_READ or MADV_POPULATE_WRITE: 0 or -errno.

    Mirrors mm/gup.c:faultin_page_range().
    """
    at = start
    while at < end:
        vma = mm.mm_mt.walk(at)
        if vma is None:
            return -ENOMEM
        if not vma.vm_flags & (VM_WRITE if write else VM_ACCESS_FLAGS):
            return -EFAULT
        stop = min(vma.vm_end, end)
        got = _faultin_range(vma, at, stop, write)
        if got < 0:
            return got
        at = stop
    return 0
