"""Finding and making VMAs: as much as demand paging needs.

Mirrors parts of mm/vma.c, mm/mmap.c and kernel/fork.c.

Simplified: neighbours are not merged (chapter 5).
"""

from __future__ import annotations

from mmcore.arch.x86.pgtable_types import vm_get_page_prot
from mmcore.errors import EINVAL, ENOMEM, KernelBug
from mmcore.mm.mm import (
    VM_EXEC,
    VM_GROWSDOWN,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    vma_mark_detached,
    vma_pages,
    vma_start_write,
)

__all__ = [
    "find_vma",
    "split_vma",
    "sysctl_max_map_count",
    "validate_mm",
    "vm_area_alloc",
    "vm_area_dup",
    "vm_stat_account",
    "vma_link",
    "vma_lookup",
    "vma_set_page_prot",
    "vma_unlink",
]

sysctl_max_map_count = 65530


def find_vma(mm: MmStruct, addr: int) -> VmAreaStruct | None:
    """Return the first VMA that ends above @addr, or None.

    Mirrors mm/mmap.c:find_vma().
    """
    return mm.mm_mt.find(addr)


def vma_lookup(mm: MmStruct, addr: int) -> VmAreaStruct | None:
    """Return the VMA that contains @addr, or None.

    Mirrors include/linux/mm.h:vma_lookup().
    """
    return mm.mm_mt.walk(addr)


def vm_area_alloc(mm: MmStruct, start: int, end: int, vm_flags: int, pgoff: int) -> VmAreaStruct:
    """Make a VMA that is in no tree yet.

    Mirrors kernel/fork.c:vm_area_alloc().
    """
    return VmAreaStruct(start, end, mm, vm_flags, vm_get_page_prot(vm_flags), pgoff)


def vm_area_dup(orig: VmAreaStruct) -> VmAreaStruct:
    """Copy a VMA; the copy has its own lock and is in no tree.

    Mirrors kernel/fork.c:vm_area_dup().
    """
    new = VmAreaStruct(
        orig.vm_start, orig.vm_end, orig.vm_mm, orig.vm_flags, orig.vm_page_prot, orig.vm_pgoff
    )
    new.vm_file, new.vm_ops, new.anon_vma = orig.vm_file, orig.vm_ops, orig.anon_vma
    new.vm_private_data = orig.vm_private_data
    return new


def vm_stat_account(mm: MmStruct, flags: int, npages: int) -> None:
    """Count @npages more in total_vm and in the kind of memory that @flags say.

    Mirrors mm/mmap.c:vm_stat_account().
    """
    mm.total_vm += npages
    if flags & (VM_EXEC | VM_WRITE | VM_GROWSDOWN) == VM_EXEC:
        mm.exec_vm += npages
    elif flags & VM_GROWSDOWN:
        mm.stack_vm += npages
    elif flags & (VM_WRITE | VM_SHARED | VM_GROWSDOWN) == VM_WRITE:
        mm.data_vm += npages


def vma_link(mm: MmStruct, vma: VmAreaStruct) -> None:
    """Put @vma into the tree. The caller holds mmap_lock for writing.

    Mirrors mm/vma.c:vma_link().
    """
    vma_start_write(vma)
    mm.mm_mt.store(vma)
    mm.map_count += 1
    vma.detached = False


def vma_unlink(mm: MmStruct, vma: VmAreaStruct) -> None:
    """Take @vma out of the tree. The caller holds mmap_lock for writing.

    Mirrors mm/vma.c:vms_gather_munmap_vmas().
    """
    vma_start_write(vma)
    mm.mm_mt.erase(vma)
    mm.map_count -= 1
    vma_mark_detached(vma, True)


def vma_set_page_prot(vma: VmAreaStruct) -> None:
    """Derive the PTE protection from vm_flags.

    Simplified: no write notification of shared mappings: soft-dirty tracking and page_mkwrite would
    start them read-only.

    Mirrors mm/mmap.c:vma_set_page_prot().
    """
    vma.vm_page_prot = vm_get_page_prot(vma.vm_flags)


def split_vma(vma: VmAreaStruct, addr: int, new_below: bool) -> int:
    """Split @vma at @addr; the new VMA is the part below or above.

    :return: 0, -EINVAL for an address outside, -ENOMEM above sysctl_max_map_count

    Mirrors mm/vma.c:split_vma().
    """
    mm = vma.vm_mm
    if mm.map_count >= sysctl_max_map_count:
        return -ENOMEM
    if not vma.vm_start < addr < vma.vm_end:
        return -EINVAL
    new = vm_area_dup(vma)
    pages = (addr - vma.vm_start) >> 12
    vma_start_write(vma)
    mm.mm_mt.erase(vma)
    if new_below:
        new.vm_end = vma.vm_start = addr
        vma.vm_pgoff += pages
    else:
        new.vm_start = vma.vm_end = addr
        new.vm_pgoff += pages
    mm.mm_mt.store(vma)
    vma_link(mm, new)
    return 0


def validate_mm(mm: MmStruct) -> None:
    """Check the VMAs of @mm: sorted, not overlapping, page-aligned, counted.

    :raises KernelBug: naming what is wrong
    """
    last = 0
    count = total = 0
    for vma in mm.mm_mt:
        if vma.vm_start >= vma.vm_end or (vma.vm_start | vma.vm_end) & 4095:
            raise KernelBug(f"{vma!r} is empty or not page-aligned")
        if vma.vm_start < last:
            raise KernelBug(f"{vma!r} overlaps the VMA before it")
        if vma.detached or vma.vm_mm is not mm:
            raise KernelBug(f"{vma!r} does not belong into this tree")
        last = vma.vm_end
        count += 1
        total += vma_pages(vma)
    if count != mm.map_count:
        raise KernelBug(f"map_count is {mm.map_count}, there are {count} VMAs")
    if total != mm.total_vm:
        raise KernelBug(f"total_vm is {mm.total_vm} pages, the VMAs have {total}")
