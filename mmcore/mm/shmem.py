"""Shared anonymous memory and memfds: the fault side.

Mirrors parts of mm/shmem.c.

Simplified: single pages, no swap, no quota (chapter 15).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.config import PAGE_SHIFT
from mmcore.errors import ENOMEM, EPERM
from mmcore.lib.percpu_counter import percpu_counter_add_batch
from mmcore.mm import filemap, memory, mmap, swap, util
from mmcore.mm.mm import (
    VM_FAULT_LOCKED,
    VM_FAULT_OOM,
    VM_FAULT_SIGBUS,
    VM_MAYWRITE,
    VM_NORESERVE,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    VmFault,
    VmOperationsStruct,
)
from mmcore.mm.mm_types import Folio
from mmcore.mm.page_flags import PG_dirty, PG_locked, PG_uptodate

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.filemap import AddressSpace, File

__all__ = [
    "F_SEAL_FUTURE_WRITE",
    "F_SEAL_WRITE",
    "memfd_check_seals_mmap",
    "memfd_create",
    "shmem_evict_inode",
    "shmem_fallocate_punch_hole",
    "shmem_fault",
    "shmem_file_setup",
    "shmem_get_folio",
    "shmem_get_unmapped_area",
    "shmem_mmap",
    "shmem_vm_ops",
    "shmem_write",
    "shmem_zero_setup",
]

# include/uapi/linux/fcntl.h
F_SEAL_WRITE = 0x0008
F_SEAL_FUTURE_WRITE = 0x0010


def shmem_file_setup(name: str, size: int, mm: MmStruct | None = None, flags: int = 0) -> File:
    """Make a file whose pages live in memory and swap.

    :param mm: whose memory it is, if its size is to be promised now; see `shmem_acct_size()`
    :param flags: VM_NORESERVE: promise pages one by one, when they are made
    :return: the file; its ``f_mapping.acct_size`` is -1 when the promise was refused

    Mirrors mm/shmem.c:shmem_file_setup().
    """
    mapping = filemap.AddressSpace(size, name, swapbacked=True)
    mapping.get_unmapped_area = shmem_get_unmapped_area
    mapping.s_dev = (0, 1)
    mapping.acct_blocks = flags & VM_NORESERVE != 0
    if mm is not None:
        mapping.i_ino = mm.sys.next_ino
        mm.sys.next_ino += 1
        mapping.acct_size = shmem_acct_size(mm, flags, size)
    return filemap.File(mapping, f_path=f"/{name} (deleted)")


def memfd_create(mm: MmStruct, name: str, size: int = 0) -> File:
    """Make an anonymous file, as memfd_create() and ftruncate() do.

    Mirrors mm/memfd.c:memfd_create().
    """
    return shmem_file_setup(f"memfd:{name}", size, mm, VM_NORESERVE)


def shmem_acct_size(mm: MmStruct, flags: int, size: int) -> int:
    """Promise @size bytes unless VM_NORESERVE is set: the bytes promised, or -1 if refused.

    Mirrors mm/shmem.c:shmem_acct_size().
    """
    if flags & VM_NORESERVE:
        return 0
    return -1 if util.vm_enough_memory(mm, (size + 4095) >> PAGE_SHIFT) else size


def shmem_zero_setup(vma: VmAreaStruct) -> int:
    """Give a shared anonymous mapping a file: 0 or -ENOMEM.

    Mirrors mm/shmem.c:shmem_zero_setup().
    """
    size = vma.vm_end - vma.vm_start
    file = shmem_file_setup("dev/zero", size, vma.vm_mm, vma.vm_flags)
    if file.f_mapping.acct_size < 0:
        return -ENOMEM
    vma.vm_file = file
    vma.vm_ops = shmem_vm_ops
    return 0


def shmem_mmap(file: File, vma: VmAreaStruct) -> int:
    """Prepare a mapping of shared memory: 0.

    Mirrors mm/shmem.c:shmem_mmap().
    """
    vma.vm_ops = shmem_vm_ops
    return 0


def shmem_evict_inode(m: Machine, mapping: AddressSpace) -> None:
    """Free the pages of shared memory that nobody can reach, and take its promises back.

    Mirrors mm/shmem.c:shmem_evict_inode().
    """
    for index in sorted(mapping.i_pages):
        filemap.filemap_remove_folio(mapping, mapping.i_pages[index])
    if mapping.acct_size > 0:
        shmem_unacct(m, (mapping.acct_size + 4095) >> PAGE_SHIFT)
        mapping.acct_size = 0


def shmem_unacct(m: Machine, pages: int) -> None:
    """Take back the promise of @pages of shared memory.

    Mirrors mm/shmem.c:shmem_unacct_size().
    """
    batch = util.mm_compute_batch(m, m.paging.sysctl_overcommit_memory)
    percpu_counter_add_batch(m.paging.vm_committed_as, m.this_cpu, -pages, batch)


def shmem_fallocate_punch_hole(m: Machine, file: File, offset: int, length: int) -> int:
    """Free whole pages of a range: 0, or -EPERM if it is sealed.

    Mirrors mm/shmem.c:shmem_fallocate().
    """
    mapping = file.f_mapping
    if mapping.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
        return -EPERM
    first = (offset + 4095) >> PAGE_SHIFT
    last = (offset + length) >> PAGE_SHIFT
    if last > first:
        memory.unmap_mapping_pages(m, mapping, first, last - first, False)
    for index in sorted(i for i in mapping.i_pages if first <= i < last):
        filemap.filemap_remove_folio(mapping, mapping.i_pages[index])
    return 0


def memfd_check_seals_mmap(file: File, vm_flags: int) -> int:
    """Return the vm_flags that the seals of @file leave, or -EPERM.

    Mirrors mm/memfd.c:memfd_check_seals_mmap().
    """
    if not file.f_mapping.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
        return vm_flags
    if not vm_flags & VM_SHARED:
        return vm_flags
    return -EPERM if vm_flags & VM_WRITE else vm_flags & ~VM_MAYWRITE


def shmem_get_unmapped_area(
    mm: MmStruct, file: File | None, uaddr: int, length: int, pgoff: int, flags: int
) -> int:
    """Return the address for a mapping of shared memory, aligned if it may have huge pages.

    Simplified: huge pages of shared memory are off (``m.paging.shmem_huge`` "never" or "deny"), or
    forced ("force").

    Mirrors mm/shmem.c:shmem_get_unmapped_area().
    """
    if length > mm.task_size:
        return -ENOMEM
    addr = mmap.mm_get_unmapped_area_vmflags(mm, file, uaddr, length, pgoff, flags, 0)
    if addr < 0 or addr & 4095 or addr > mm.task_size - length:
        return addr
    if mm.sys.shmem_huge != "force" or flags & mmap.MAP_FIXED or uaddr == addr:
        return addr
    hpage_size = 1 << 21
    offset = pgoff << PAGE_SHIFT & hpage_size - 1
    if length < hpage_size or (offset and offset + length < 2 * hpage_size):
        return addr
    if addr & hpage_size - 1 == offset:
        return addr
    inflated = length + hpage_size - 4096
    if inflated > mm.task_size:
        return addr
    at = mmap.mm_get_unmapped_area_vmflags(mm, None, uaddr, inflated, 0, flags, 0)
    if at < 0 or at & 4095:
        return addr
    inflated_offset = at & hpage_size - 1
    at += offset - inflated_offset + (hpage_size if inflated_offset > offset else 0)
    return addr if at > mm.task_size - length else at


def shmem_get_folio(m: Machine, mapping: AddressSpace, index: int) -> Folio | None:
    """Return the page at @index, making a zeroed one if there is none; None without memory.

    Mirrors mm/shmem.c:shmem_get_folio().
    """
    folio = mapping.i_pages.get(index)
    if folio is None:
        folio = filemap.filemap_add_folio(m, mapping, index)
        if folio is not None:
            if mapping.acct_blocks:
                shmem_unacct(m, -1)
            folio.flags = folio.flags & ~(1 << PG_locked) | 1 << PG_uptodate
    return folio


def shmem_fault(vmf: VmFault) -> int:
    """Find or make the page.

    Mirrors mm/shmem.c:shmem_fault().
    """
    mapping: AddressSpace = vmf.vma.vm_file.f_mapping
    m = vmf.vma.vm_mm.machine
    assert m is not None
    if vmf.pgoff >= (mapping.i_size + 4095) >> PAGE_SHIFT:
        return VM_FAULT_SIGBUS
    folio = shmem_get_folio(m, mapping, vmf.pgoff)
    if folio is None:
        return VM_FAULT_OOM
    swap.folio_get(folio)
    folio.flags |= 1 << PG_locked
    vmf.page = folio
    return VM_FAULT_LOCKED


def shmem_write(m: Machine, file: File, index: int) -> bool:
    """Write to page @index with write(): the page is there, accessed and dirty afterwards."""
    folio = shmem_get_folio(m, file.f_mapping, index)
    if folio is None:
        return False
    folio.flags |= 1 << PG_dirty
    swap.folio_mark_accessed(folio)
    return True


#: ``shmem_anon_vm_ops`` and ``shmem_vm_ops``, which do the same on a fault.
shmem_vm_ops = VmOperationsStruct(
    fault=shmem_fault,
    map_pages=lambda vmf, start, end: filemap.filemap_map_pages(vmf, start, end),
    name="shmem_vm_ops",
)
