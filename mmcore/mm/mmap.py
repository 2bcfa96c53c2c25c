"""Making and removing mappings: as much as demand paging needs.

Mirrors parts of mm/mmap.c and mm/vma.c.

Simplified: VMAs do not merge, there is no commit accounting, no resource limit, and an address that
the caller leaves open is the highest gap below ``mmap_base`` (chapter 5 has all of it).
"""

from __future__ import annotations

from mmcore.cint import ALIGN, ULONG_MAX
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EACCES, EEXIST, EINVAL, ENOMEM
from mmcore.mm import filemap, gup, memory, mmu_gather, shmem, swap
from mmcore.mm import vma as vma_
from mmcore.mm.filemap import File
from mmcore.mm.mm import (
    VM_ACCOUNT,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    mmap_write_lock,
    mmap_write_unlock,
    vma_pages,
)

__all__ = [
    "MAP_ANONYMOUS",
    "MAP_FIXED",
    "MAP_FIXED_NOREPLACE",
    "MAP_GROWSDOWN",
    "MAP_NORESERVE",
    "MAP_POPULATE",
    "MAP_PRIVATE",
    "MAP_SHARED",
    "MAP_STACK",
    "PROT_EXEC",
    "PROT_NONE",
    "PROT_READ",
    "PROT_WRITE",
    "do_mmap",
    "do_munmap",
    "mmap_region",
]

PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 0, 1, 2, 4
MAP_SHARED = 0x01
MAP_PRIVATE = 0x02
MAP_SHARED_VALIDATE = 0x03
MAP_TYPE = 0x0F
MAP_FIXED = 0x10
MAP_ANONYMOUS = 0x20
MAP_GROWSDOWN = 0x0100
MAP_LOCKED = 0x2000
MAP_NORESERVE = 0x4000
MAP_POPULATE = 0x8000
MAP_STACK = 0x20000
MAP_FIXED_NOREPLACE = 0x100000
EOVERFLOW = 75


def calc_vm_flags(mm: MmStruct, prot: int, flags: int) -> int:
    """Return the vm_flags that PROT_ and MAP_ bits ask for, before the mapping's type.

    Mirrors include/linux/mman.h:calc_vm_prot_bits().
    """
    vm_flags = prot & (VM_READ | VM_WRITE | VM_EXEC)
    if flags & MAP_GROWSDOWN:
        vm_flags |= VM_GROWSDOWN
    if flags & MAP_LOCKED:
        vm_flags |= VM_LOCKED
    if flags & MAP_STACK:
        vm_flags |= VM_NOHUGEPAGE
    return vm_flags | mm.def_flags | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC


def get_unmapped_area(mm: MmStruct, addr: int, length: int, flags: int) -> int:
    """Return the address for a mapping: @addr if it will do, else the highest gap; or -errno.

    Simplified: no guard gaps, no alignment for huge pages.

    Mirrors mm/mmap.c:__get_unmapped_area().
    """
    if length > mm.task_size:
        return -ENOMEM
    if flags & MAP_FIXED:
        if addr & (PAGE_SIZE - 1):
            return -EINVAL
        return addr if addr <= mm.task_size - length else -ENOMEM
    addr = ALIGN(addr, PAGE_SIZE)
    if addr and addr <= mm.task_size - length and not mm.mm_mt.range(addr, addr + length):
        return addr
    end = mm.mmap_base
    while end >= length + 65536:
        vma = mm.mm_mt.prev(end)
        if vma is None or vma.vm_end <= end - length:
            return end - length
        end = min(end, vma.vm_start)
    return -ENOMEM


def do_mmap(
    mm: MmStruct, file: File | None, addr: int, length: int, prot: int, flags: int, pgoff: int = 0
) -> int:
    """Map @length bytes and return the address, or -errno.

    :param file: None for anonymous memory
    :param addr: hint, or the address with MAP_FIXED; 0 for any
    :param prot: PROT_ bits
    :param flags: MAP_SHARED or MAP_PRIVATE, and other MAP_ bits
    :param pgoff: first page in the file

    Mirrors mm/mmap.c:do_mmap().
    """
    if length <= 0 or length > ULONG_MAX:
        return -EINVAL
    if flags & MAP_FIXED_NOREPLACE:
        flags |= MAP_FIXED
    length = ALIGN(length, PAGE_SIZE)
    if length > ULONG_MAX:
        return -ENOMEM
    if pgoff < 0 or pgoff + (length >> PAGE_SHIFT) > ULONG_MAX:
        return -EOVERFLOW
    if mm.map_count > vma_.sysctl_max_map_count:
        return -ENOMEM
    vm_flags = calc_vm_flags(mm, prot, flags)
    addr = get_unmapped_area(mm, addr, length, flags)
    if addr < 0:
        return addr
    if flags & MAP_FIXED_NOREPLACE and mm.mm_mt.range(addr, addr + length):
        return -EEXIST
    kind = flags & MAP_TYPE
    if kind not in (MAP_SHARED, MAP_PRIVATE) and not (kind == MAP_SHARED_VALIDATE and file):
        return -EINVAL
    if kind != MAP_PRIVATE:
        if vm_flags & VM_GROWSDOWN:
            return -EINVAL
        if file is not None and prot & PROT_WRITE and not file.writable:
            return -EACCES
        vm_flags |= VM_SHARED | VM_MAYSHARE
        if file is None:
            pgoff = 0
        elif not file.writable:
            vm_flags &= ~(VM_MAYWRITE | VM_SHARED)
    elif file is None:
        pgoff = addr >> PAGE_SHIFT
    elif vm_flags & VM_GROWSDOWN:
        return -EINVAL
    if flags & MAP_NORESERVE:
        vm_flags |= VM_NORESERVE
    mmap_region(mm, file, addr, length, vm_flags, pgoff)
    if flags & MAP_POPULATE or vm_flags & VM_LOCKED:
        gup.mm_populate(mm, addr, length)
    return addr


def mmap_region(
    mm: MmStruct, file: File | None, addr: int, length: int, vm_flags: int, pgoff: int
) -> VmAreaStruct:
    """Put a VMA into the address space; what was mapped there goes away.

    Mirrors mm/mmap.c:mmap_region().
    """
    if mm.mm_mt.range(addr, addr + length):
        do_munmap(mm, addr, length)
    if vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE:
        vm_flags |= VM_ACCOUNT  # accountable_mapping()
    if file is None and vm_flags & VM_SHARED:
        file = shmem.shmem_file_setup("dev/zero", length)
    vma = vma_.vm_area_alloc(mm, addr, addr + length, vm_flags | VM_SOFTDIRTY, pgoff)
    if file is not None:
        vma.vm_file = file
        backed = file.f_mapping.swapbacked
        vma.vm_ops = shmem.shmem_vm_ops if backed else filemap.generic_file_vm_ops
        if vm_flags & VM_SHARED:
            file.f_mapping.i_mmap_writable += 1
    mmap_write_lock(mm)
    vma_.vma_link(mm, vma)
    vma_.vm_stat_account(mm, vm_flags, length >> PAGE_SHIFT)
    mmap_write_unlock(mm)
    return vma


def do_munmap(mm: MmStruct, start: int, length: int) -> int:
    """Remove all mappings in a range: 0 or -errno.

    Mirrors mm/vma.c:do_vmi_munmap().
    """
    if start & (PAGE_SIZE - 1) or start < 0 or start > mm.task_size:
        return -EINVAL
    length = ALIGN(length, PAGE_SIZE)
    end = start + length
    if length <= 0 or length > mm.task_size - start:
        return -EINVAL
    mmap_write_lock(mm)
    for vma in mm.mm_mt.range(start, end):
        for edge in (start, end):
            if vma.vm_start < edge < vma.vm_end:
                error = vma_.split_vma(vma, edge, edge == start)
                if error:
                    mmap_write_unlock(mm)
                    return error
    vmas = mm.mm_mt.range(start, end)
    if not vmas:
        mmap_write_unlock(mm)
        return 0
    prev = mm.mm_mt.prev(start)
    following = mm.mm_mt.find(end)
    for vma in vmas:
        vma_.vma_unlink(mm, vma)
        vma_.vm_stat_account(mm, vma.vm_flags, -vma_pages(vma))
        if vma.vm_file is not None and vma.vm_flags & VM_SHARED:
            vma.vm_file.f_mapping.i_mmap_writable -= 1
    if mm.machine is not None:
        swap.lru_add_drain(mm.machine)
    tlb = mmu_gather.tlb_gather_mmu(mm)
    memory.unmap_vmas(tlb, vmas, start, end)
    floor = prev.vm_end if prev is not None else 0
    memory.free_pgtables(tlb, vmas, floor, following.vm_start if following is not None else 0)
    mmu_gather.tlb_finish_mmu(tlb)
    mmap_write_unlock(mm)
    return 0
