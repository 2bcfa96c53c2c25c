"""Shared anonymous memory and memfds: the fault side.

Mirrors parts of mm/shmem.c.

Simplified: single pages, no swap, no quota (chapter 15).
"""

from __future__ import annotations

from mmcore.config import PAGE_SHIFT
from mmcore.machine import Machine
from mmcore.mm import filemap, swap
from mmcore.mm.filemap import AddressSpace, File
from mmcore.mm.mm import (
    VM_FAULT_LOCKED,
    VM_FAULT_OOM,
    VM_FAULT_SIGBUS,
    VmFault,
    VmOperationsStruct,
)
from mmcore.mm.mm_types import Folio
from mmcore.mm.page_flags import PG_dirty, PG_locked, PG_uptodate

__all__ = ["shmem_fault", "shmem_file_setup", "shmem_get_folio", "shmem_vm_ops", "shmem_write"]


def shmem_file_setup(name: str, size: int) -> File:
    """Make a file whose pages live in memory and swap.

    Mirrors mm/shmem.c:shmem_file_setup().
    """
    return File(AddressSpace(size, name, swapbacked=True))


def shmem_get_folio(m: Machine, mapping: AddressSpace, index: int) -> Folio | None:
    """Return the page at @index, making a zeroed one if there is none; None without memory.

    Mirrors mm/shmem.c:shmem_get_folio().
    """
    folio = mapping.i_pages.get(index)
    if folio is None:
        folio = filemap.filemap_add_folio(m, mapping, index)
        if folio is not None:
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
    fault=shmem_fault, map_pages=filemap.filemap_map_pages, name="shmem_vm_ops"
)
