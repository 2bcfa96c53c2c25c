"""Making mappings: where they go, whether they may, and brk and stacks.

Mirrors mm/mmap.c, mm/util.c:vm_mmap_pgoff(), security/min_addr.c and the system calls.

Simplified: no hugetlb, no userfaultfd, no perf events and no security modules but capabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcore.cint import ULONG_MAX
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import (
    EACCES,
    EAGAIN,
    EBADF,
    EEXIST,
    EFAULT,
    EINVAL,
    ENODEV,
    ENOMEM,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
    ETXTBSY,
    KernelBug,
)
from mmcore.mm import filemap, gup, huge_memory, memory, mmu_gather, rmap, shmem, swap, util
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    MMF_HAS_MDWE,
    MMF_OOM_SKIP,
    MMF_TOPDOWN,
    OVERCOMMIT_NEVER,
    VM_ACCOUNT,
    VM_DATA_DEFAULT_FLAGS,
    VM_DONTDUMP,
    VM_DROPPABLE,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_SPECIAL,
    VM_STARTGAP_FLAGS,
    VM_SYNC,
    VM_WIPEONFORK,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_downgrade,
    mmap_write_lock,
    mmap_write_unlock,
    vma_is_accessible,
    vma_is_anonymous,
    vma_pages,
    vma_start_write,
)
from mmcore.mm.vmstat import NR_FREE_PAGES, global_zone_page_state

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.filemap import File

__all__ = [
    "MAP_32BIT",
    "MAP_ABOVE4G",
    "MAP_ANONYMOUS",
    "MAP_DROPPABLE",
    "MAP_FIXED",
    "MAP_FIXED_NOREPLACE",
    "MAP_GROWSDOWN",
    "MAP_LOCKED",
    "MAP_NONBLOCK",
    "MAP_NORESERVE",
    "MAP_POPULATE",
    "MAP_PRIVATE",
    "MAP_SHARED",
    "MAP_SHARED_VALIDATE",
    "MAP_STACK",
    "PROT_EXEC",
    "PROT_NONE",
    "PROT_READ",
    "PROT_WRITE",
    "VmUnmappedAreaInfo",
    "do_brk_flags",
    "do_mmap",
    "do_munmap",
    "exit_mmap",
    "expand_downwards",
    "expand_stack",
    "expand_stack_locked",
    "get_unmapped_area",
    "insert_vm_struct",
    "may_expand_vm",
    "mlock_future_ok",
    "mm_get_unmapped_area_vmflags",
    "mmap_region",
    "sys_brk",
    "sys_mmap",
    "sys_munmap",
    "vm_brk_flags",
    "vm_mmap_pgoff",
    "vm_munmap",
    "vm_unmapped_area",
]

PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 0, 1, 2, 4
PROT_SEM = 8
MAP_SHARED = 0x01
MAP_PRIVATE = 0x02
MAP_SHARED_VALIDATE = 0x03
MAP_DROPPABLE = 0x08
MAP_TYPE = 0x0F
MAP_FIXED = 0x10
MAP_ANONYMOUS = 0x20
MAP_32BIT = 0x40
MAP_ABOVE4G = 0x80
MAP_GROWSDOWN = 0x0100
MAP_DENYWRITE = 0x0800
MAP_EXECUTABLE = 0x1000
MAP_LOCKED = 0x2000
MAP_NORESERVE = 0x4000
MAP_POPULATE = 0x8000
MAP_NONBLOCK = 0x10000
MAP_STACK = 0x20000
MAP_HUGETLB = 0x40000
MAP_SYNC = 0x80000
MAP_FIXED_NOREPLACE = 0x100000
MAP_UNINITIALIZED = 0x4000000
MAP_HUGE_2MB = 21 << 26
MAP_HUGE_1GB = 30 << 26
#: What a file's mmap() takes without having said that it knows new flags.
LEGACY_MAP_MASK = (
    MAP_SHARED
    | MAP_PRIVATE
    | MAP_FIXED
    | MAP_ANONYMOUS
    | MAP_DENYWRITE
    | MAP_EXECUTABLE
    | MAP_GROWSDOWN
    | MAP_LOCKED
    | MAP_NORESERVE
    | MAP_POPULATE
    | MAP_NONBLOCK
    | MAP_STACK
    | MAP_HUGETLB
    | MAP_32BIT
    | MAP_ABOVE4G
    | MAP_HUGE_2MB
    | MAP_HUGE_1GB
)
VM_UNMAPPED_AREA_TOPDOWN = 1
MAX_LFS_FILESIZE = (1 << 63) - 1
_OFFSET = PAGE_SIZE - 1


def page_align(x: int) -> int:
    """Round up to whole pages in 64 bits: what does not fit wraps to 0 (``PAGE_ALIGN()``)."""
    return x + _OFFSET & -PAGE_SIZE & ULONG_MAX


# --- where ------------------------------------------------------------------------------------


@dataclass(slots=True)
class VmUnmappedAreaInfo:
    """``struct vm_unmapped_area_info``: what kind of hole is looked for, and where.

    Mirrors include/linux/mm.h:vm_unmapped_area_info.
    """

    flags: int
    length: int
    low_limit: int
    high_limit: int
    align_mask: int = 0
    align_offset: int = 0
    start_gap: int = 0


def unmapped_area(mm: MmStruct, info: VmUnmappedAreaInfo) -> int:
    """Return the lowest address of a hole, or -ENOMEM.

    Mirrors mm/mmap.c:unmapped_area().
    """
    length = info.length + info.align_mask + info.start_gap
    if length > ULONG_MAX:
        return -ENOMEM
    low = max(info.low_limit, mm.sys.mmap_min_addr)
    while True:
        found = mm.mm_mt.empty_area(low, info.high_limit - 1, length)
        if found < 0:
            return -ENOMEM
        gap = found + info.start_gap
        gap += info.align_offset - gap & info.align_mask
        following = mm.mm_mt.find(found)
        if following is not None and following.vm_flags & VM_STARTGAP_FLAGS:
            if vma_.vm_start_gap(following) < gap + length - 1:
                low = following.vm_end
                continue
        else:
            prev = mm.mm_mt.prev(found)
            if prev is not None and vma_.vm_end_gap(prev) > gap:
                low = vma_.vm_end_gap(prev)
                continue
        return gap


def unmapped_area_topdown(mm: MmStruct, info: VmUnmappedAreaInfo) -> int:
    """Return the highest address of a hole, or -ENOMEM.

    Mirrors mm/mmap.c:unmapped_area_topdown().
    """
    length = info.length + info.align_mask + info.start_gap
    if length > ULONG_MAX:
        return -ENOMEM
    low = max(info.low_limit, mm.sys.mmap_min_addr)
    high = info.high_limit
    while True:
        last = mm.mm_mt.empty_area_rev(low, high - 1, length) if high > 0 else -1
        if last < 0:
            return -ENOMEM
        gap_end = last + 1
        gap = gap_end - info.length
        gap -= gap - info.align_offset & info.align_mask
        following = mm.mm_mt.find(last)
        if following is not None and following.vm_flags & VM_STARTGAP_FLAGS:
            if vma_.vm_start_gap(following) < gap_end:
                high = vma_.vm_start_gap(following)
                continue
        else:
            prev = mm.mm_mt.prev(last)
            if prev is not None and vma_.vm_end_gap(prev) > gap:
                high = prev.vm_start
                continue
        return gap


def vm_unmapped_area(mm: MmStruct, info: VmUnmappedAreaInfo) -> int:
    """Return the address of a hole as @info asks for, or -ENOMEM.

    Mirrors mm/mmap.c:vm_unmapped_area().
    """
    if info.flags & VM_UNMAPPED_AREA_TOPDOWN:
        addr = unmapped_area_topdown(mm, info)
    else:
        addr = unmapped_area(mm, info)
    m = mm.machine
    if m is not None and m.trace.on:
        m.trace.emit(
            "mmap:vm_unmapped_area",
            max(addr, 0),
            min(addr, 0),
            mm.total_vm,
            info.flags,
            info.length,
            info.low_limit,
            info.high_limit,
            info.align_mask,
            info.align_offset,
        )
    return addr


def mm_get_unmapped_area_vmflags(
    mm: MmStruct, filp: File | None, addr: int, length: int, pgoff: int, flags: int, vm_flags: int
) -> int:
    """Return an address in the layout's direction, or -errno.

    Mirrors mm/mmap.c:mm_get_unmapped_area_vmflags().
    """
    from mmcore.arch.x86 import sys_x86_64

    if mm.flags >> MMF_TOPDOWN & 1:
        return sys_x86_64.arch_get_unmapped_area_topdown(
            mm, filp, addr, length, pgoff, flags, vm_flags
        )
    return sys_x86_64.arch_get_unmapped_area(mm, filp, addr, length, pgoff, flags, vm_flags)


def get_unmapped_area(
    mm: MmStruct,
    file: File | None,
    addr: int,
    length: int,
    pgoff: int,
    flags: int,
    vm_flags: int = 0,
) -> int:
    """Return the address for a mapping: @addr if it will do, else a hole; or -errno.

    Without a hint, a multiple of 2 MiB is placed so that huge pages fit.

    Mirrors mm/mmap.c:__get_unmapped_area().
    """
    if length > mm.task_size:
        return -ENOMEM
    get_area = None
    if file is not None:
        get_area = file.f_mapping.get_unmapped_area
    elif flags & MAP_SHARED:
        get_area = shmem.shmem_get_unmapped_area
    if file is None:
        pgoff = 0
    m = mm.machine
    thp = m is None or m.config.TRANSPARENT_HUGEPAGE
    if get_area is not None:
        addr = get_area(mm, file, addr, length, pgoff, flags)
    elif thp and not addr and not length % huge_memory.PMD_SIZE:
        addr = huge_memory.thp_get_unmapped_area_vmflags(
            mm, file, addr, length, pgoff, flags, vm_flags
        )
    else:
        addr = mm_get_unmapped_area_vmflags(mm, file, addr, length, pgoff, flags, vm_flags)
    if addr < 0:
        return addr
    if addr > mm.task_size - length:
        return -ENOMEM
    if addr & _OFFSET:
        return -EINVAL
    return security_mmap_addr(mm, addr) or addr


def security_mmap_addr(mm: MmStruct, addr: int) -> int:
    """Return -EPERM for the lowest addresses without CAP_SYS_RAWIO, else 0 (``cap_mmap_addr()``)."""
    if addr < mm.sys.dac_mmap_min_addr and not util.capable(mm, util.CAP_SYS_RAWIO):
        return -EPERM
    return 0


def round_hint_to_min(mm: MmStruct, hint: int) -> int:
    """Return a hint rounded down to a page, but not below mmap_min_addr.

    Mirrors mm/mmap.c:round_hint_to_min().
    """
    hint &= -PAGE_SIZE
    if hint and hint < mm.sys.mmap_min_addr:
        return page_align(mm.sys.mmap_min_addr)
    return hint


# --- whether ----------------------------------------------------------------------------------


def calc_vm_prot_bits(prot: int) -> int:
    """Return the vm_flags for PROT_ bits.

    Simplified: no protection keys.

    Mirrors include/linux/mman.h:calc_vm_prot_bits().
    """
    return prot & (VM_READ | VM_WRITE | VM_EXEC)


def calc_vm_flag_bits(flags: int) -> int:
    """Return the vm_flags for MAP_ bits.

    Mirrors include/linux/mman.h:calc_vm_flag_bits().
    """
    vm_flags = 0
    if flags & MAP_GROWSDOWN:
        vm_flags |= VM_GROWSDOWN
    if flags & MAP_LOCKED:
        vm_flags |= VM_LOCKED
    if flags & MAP_SYNC:  # whether it is allowed is asked for files only
        vm_flags |= VM_SYNC
    if flags & MAP_STACK:
        vm_flags |= VM_NOHUGEPAGE
    return vm_flags


def mlock_future_ok(mm: MmStruct, flags: int, nr_bytes: int) -> bool:
    """Tell whether RLIMIT_MEMLOCK allows @nr_bytes more, if @flags lock them.

    Mirrors mm/mmap.c:mlock_future_ok().
    """
    if not flags & VM_LOCKED or util.capable(mm, util.CAP_IPC_LOCK):
        return True
    locked = (nr_bytes >> PAGE_SHIFT) + mm.locked_vm
    return locked <= util.rlimit(mm, util.RLIMIT_MEMLOCK) >> PAGE_SHIFT


def can_do_mlock(mm: MmStruct) -> bool:
    """Tell whether the task may lock memory at all.

    Mirrors mm/mlock.c:can_do_mlock().
    """
    return util.rlimit(mm, util.RLIMIT_MEMLOCK) != 0 or util.capable(mm, util.CAP_IPC_LOCK)


def may_expand_vm(mm: MmStruct, flags: int, npages: int) -> bool:
    """Tell whether RLIMIT_AS and RLIMIT_DATA allow @npages more.

    Mirrors mm/mmap.c:may_expand_vm().
    """
    if mm.total_vm + npages > util.rlimit(mm, util.RLIMIT_AS) >> PAGE_SHIFT:
        return False
    data = util.rlimit(mm, util.RLIMIT_DATA)
    if vma_.is_data_mapping(flags) and mm.data_vm + npages > data >> PAGE_SHIFT:
        limit = util.rlimit_max(mm, util.RLIMIT_DATA) >> PAGE_SHIFT
        if not data and mm.data_vm + npages <= limit:
            return True
        if not mm.sys.ignore_rlimit_data:
            return False
    return True


def accountable_mapping(vm_flags: int) -> bool:
    """Tell whether a mapping's pages are promised: private, writable, not MAP_NORESERVE.

    Mirrors mm/mmap.c:accountable_mapping().
    """
    return vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE


def map_deny_write_exec(mm: MmStruct, old: int, new: int) -> bool:
    """Tell whether prctl(PR_SET_MDWE) forbids these flags: writable code, or code made later.

    Mirrors include/linux/mman.h:map_deny_write_exec().
    """
    if not mm.flags >> MMF_HAS_MDWE & 1 or not new & VM_EXEC:
        return False
    return bool(new & VM_WRITE) or not old & VM_EXEC


def vma_supports_mlock(vma: VmAreaStruct) -> bool:
    """Tell whether the pages of @vma can be locked.

    Mirrors mm/internal.h:vma_supports_mlock().
    """
    return not vma.vm_flags & (VM_SPECIAL | VM_DROPPABLE)


def _file_flags(file: File, prot: int, flags: int, vm_flags: int) -> int:
    """Check a file against what is asked for: the vm_flags, or -errno."""
    kind = flags & MAP_TYPE
    if kind not in (MAP_SHARED, MAP_SHARED_VALIDATE, MAP_PRIVATE):
        return -EINVAL
    if kind != MAP_PRIVATE:
        if kind == MAP_SHARED_VALIDATE and flags & ~LEGACY_MAP_MASK:
            return -EOPNOTSUPP
        if prot & PROT_WRITE:
            if not file.writable:
                return -EACCES
            if file.f_mapping.swapfile:
                return -ETXTBSY
        if file.f_mapping.append_only and file.writable:
            return -EACCES
        vm_flags |= VM_SHARED | VM_MAYSHARE
        if not file.writable:
            vm_flags &= ~(VM_MAYWRITE | VM_SHARED)
    if not file.readable:
        return -EACCES
    if file.noexec:
        if vm_flags & VM_EXEC:
            return -EPERM
        vm_flags &= ~VM_MAYEXEC
    if not file.can_mmap:
        return -ENODEV
    if vm_flags & VM_GROWSDOWN:
        return -EINVAL
    return shmem.memfd_check_seals_mmap(file, vm_flags)


def _anon_flags(flags: int, vm_flags: int) -> int:
    """Check what is asked for without a file: the vm_flags, or -errno."""
    kind = flags & MAP_TYPE
    if kind == MAP_SHARED:
        return -EINVAL if vm_flags & VM_GROWSDOWN else vm_flags | VM_SHARED | VM_MAYSHARE
    if kind == MAP_DROPPABLE:
        if flags & (MAP_LOCKED | MAP_HUGETLB) or vm_flags & VM_GROWSDOWN:
            return -EINVAL
        return vm_flags | VM_DROPPABLE | VM_NORESERVE | VM_WIPEONFORK | VM_DONTDUMP
    return vm_flags if kind == MAP_PRIVATE else -EINVAL


def file_mmap_ok(pgoff: int, length: int) -> bool:
    """Tell whether a range of a regular file can exist.

    Mirrors mm/mmap.c:file_mmap_ok().
    """
    return length <= MAX_LFS_FILESIZE and pgoff <= (MAX_LFS_FILESIZE - length) >> PAGE_SHIFT


def do_mmap(
    mm: MmStruct,
    file: File | None,
    addr: int,
    length: int,
    prot: int,
    flags: int,
    pgoff: int = 0,
    populate: list[int] | None = None,
) -> int:
    """Map @length bytes and return the address, or -errno.

    Called without mmap_lock, it does what `vm_mmap_pgoff()` does around it.

    :param file: None for anonymous memory
    :param addr: hint, or the address with MAP_FIXED; 0 for any
    :param prot: PROT_ bits
    :param flags: MAP_SHARED or MAP_PRIVATE, and other MAP_ bits
    :param pgoff: first page in the file
    :param populate: gets the number of bytes that the caller must fault in

    Mirrors mm/mmap.c:do_mmap().
    """
    if not mm.mmap_lock.writer:
        return vm_mmap_pgoff(mm, file, addr, length, prot, flags, pgoff)
    from mmcore.arch.x86.mmap import READ_IMPLIES_EXEC, personality

    addr, length, pgoff = addr & ULONG_MAX, length & ULONG_MAX, pgoff & ULONG_MAX
    if not length:
        return -EINVAL
    if prot & PROT_READ and personality(mm) & READ_IMPLIES_EXEC:
        if file is None or not file.noexec:
            prot |= PROT_EXEC
    if flags & MAP_FIXED_NOREPLACE:
        flags |= MAP_FIXED
    if not flags & MAP_FIXED:
        addr = round_hint_to_min(mm, addr)
    length = page_align(length)
    if not length:
        return -ENOMEM
    if pgoff + (length >> PAGE_SHIFT) > ULONG_MAX:
        return -EOVERFLOW
    if mm.map_count > mm.sys.sysctl_max_map_count:
        return -ENOMEM
    vm_flags = calc_vm_prot_bits(prot) | calc_vm_flag_bits(flags) | mm.def_flags
    vm_flags |= VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    addr = get_unmapped_area(mm, file, addr, length, pgoff, flags, vm_flags)
    if addr < 0:
        return addr
    if flags & MAP_FIXED_NOREPLACE and vma_.find_vma_intersection(mm, addr, addr + length):
        return -EEXIST
    if flags & MAP_LOCKED and not can_do_mlock(mm):
        return -EPERM
    if not mlock_future_ok(mm, vm_flags, length):
        return -EAGAIN
    if file is not None:
        if not file_mmap_ok(pgoff, length):
            return -EOVERFLOW
        vm_flags = _file_flags(file, prot, flags, vm_flags)
    else:
        vm_flags = _anon_flags(flags, vm_flags)
        pgoff = 0 if flags & MAP_TYPE == MAP_SHARED else addr >> PAGE_SHIFT
    if vm_flags < 0:
        return vm_flags
    if flags & MAP_NORESERVE and mm.sys.sysctl_overcommit_memory != OVERCOMMIT_NEVER:
        vm_flags |= VM_NORESERVE
    addr = mmap_region(mm, file, addr, length, vm_flags, pgoff)
    wanted = vm_flags & VM_LOCKED or flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE
    if addr >= 0 and wanted and populate is not None:
        populate.append(length)
    return addr


def vm_mmap_pgoff(
    mm: MmStruct, file: File | None, addr: int, length: int, prot: int, flags: int, pgoff: int
) -> int:
    """Take mmap_lock, map, and fault the pages in if that is asked for: the address or -errno.

    Mirrors mm/util.c:vm_mmap_pgoff().
    """
    populate: list[int] = []
    mmap_write_lock(mm)
    ret = do_mmap(mm, file, addr, length, prot, flags, pgoff, populate)
    mmap_write_unlock(mm)
    if populate:
        gup.mm_populate(mm, ret, populate[0])
    return ret


# --- doing it ---------------------------------------------------------------------------------


def mmap_region(
    mm: MmStruct, file: File | None, addr: int, length: int, vm_flags: int, pgoff: int
) -> int:
    """Put a mapping into the address space; what was mapped there goes away: @addr or -errno.

    Mirrors mm/mmap.c:mmap_region().
    """
    if map_deny_write_exec(mm, vm_flags, vm_flags):
        return -EACCES
    writable = file is not None and vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_SHARED | VM_MAYWRITE
    if writable and file is not None:
        if file.f_mapping.i_mmap_writable < 0:
            return -EPERM
        file.f_mapping.i_mmap_writable += 1
    ret = __mmap_region(mm, file, addr, length, vm_flags, pgoff)
    if writable and file is not None:
        file.f_mapping.i_mmap_writable -= 1
    return ret


def __mmap_region(
    mm: MmStruct, file: File | None, addr: int, length: int, vm_flags: int, pgoff: int
) -> int:
    """Merge the mapping into a neighbour or make a VMA for it: @addr or -errno.

    Mirrors mm/mmap.c:__mmap_region().
    """
    end, pglen = addr + length, length >> PAGE_SHIFT
    vmg = vma_.VmaMergeStruct(mm, addr, end, vm_flags, pgoff, file=file)
    vma = vma_.find_vma_intersection(mm, addr, end)
    vms = vma_.VmaMunmapStruct(mm, vma, addr, end)
    if vma is not None:
        error = vma_.vms_gather_munmap_vmas(vms)
        if error:
            return error
        vmg.next, vmg.prev = vms.next, vms.prev
    else:
        vmg.next, vmg.prev = vma_.find_vma_prev(mm, addr)
    if not may_expand_vm(mm, vm_flags, pglen - vms.nr_pages):
        vma_.vms_abort_munmap_vmas(vms)
        return -ENOMEM
    charged = 0
    if accountable_mapping(vm_flags):
        charged = pglen - vms.nr_accounted
        if charged and util.vm_enough_memory(mm, charged):
            vma_.vms_abort_munmap_vmas(vms)
            return -ENOMEM
        vms.nr_accounted = 0
        vm_flags |= VM_ACCOUNT
        vmg.flags = vm_flags
    vma_.vms_clean_up_area(vms)
    vma = vma_.vma_merge_new_range(vmg)
    if vma is None:
        made = _new_vma(mm, file, addr, end, vm_flags, pgoff)
        if isinstance(made, int):
            if charged:
                util.vm_unacct_memory(mm, charged)
            vma_.vms_abort_munmap_vmas(vms)
            return made
        vma = made
    vma_.vms_complete_munmap_vmas(vms)
    vma_.vm_stat_account(mm, vm_flags, pglen)
    if vm_flags & VM_LOCKED:
        if vma_supports_mlock(vma):
            mm.locked_vm += pglen
        else:
            vma.vm_flags &= ~VM_LOCKED_MASK
    vma.vm_flags |= VM_SOFTDIRTY
    vma_.vma_set_page_prot(vma)
    return addr


def _new_vma(
    mm: MmStruct, file: File | None, addr: int, end: int, vm_flags: int, pgoff: int
) -> VmAreaStruct | int:
    """Make the VMA of a mapping that no neighbour takes in: the middle of __mmap_region()."""
    vma = vma_.vm_area_alloc(mm, addr, end, vm_flags, pgoff)
    if vma is None or vma_.vma_iter_prealloc(mm):
        return -ENOMEM
    if file is not None:
        vma.vm_file = filemap.get_file(file)
        error = filemap.mmap_file(file, vma)
        if error:
            filemap.fput(mm.machine, file)
            return error
    elif vm_flags & VM_SHARED:
        error = shmem.shmem_zero_setup(vma)
        if error:
            return error
    vma_start_write(vma)
    if mm.machine is not None and mm.machine.trace.on:
        mm.machine.trace.emit("mmap:vma_store", mm.mm_id, repr(vma), addr, end - 1)
    vma_.vma_iter_store(mm, vma)
    mm.map_count += 1
    vma_.vma_link_file(vma)
    return vma


def do_munmap(mm: MmStruct, start: int, length: int) -> int:
    """Remove all mappings in a range: 0 or -errno.

    Called without mmap_lock, it does what `vm_munmap()` does around it.

    Mirrors mm/mmap.c:do_munmap().
    """
    if not mm.mmap_lock.writer:
        return vm_munmap(mm, start, length)
    return vma_.do_vmi_munmap(mm, start & ULONG_MAX, length & ULONG_MAX, False)


def vm_munmap(mm: MmStruct, start: int, length: int, unlock: bool = False) -> int:
    """Take mmap_lock and remove all mappings in a range: 0 or -errno.

    :param unlock: let others read the address space while the pages are taken down

    Mirrors mm/mmap.c:__vm_munmap().
    """
    mmap_write_lock(mm)
    ret = vma_.do_vmi_munmap(mm, start & ULONG_MAX, length & ULONG_MAX, unlock)
    if ret or not unlock:
        mmap_write_unlock(mm)
    return ret


def insert_vm_struct(mm: MmStruct, vma: VmAreaStruct) -> int:
    """Put a VMA made by hand into the address space: 0; or -ENOMEM, also if there is one already.

    Mirrors mm/mmap.c:insert_vm_struct().
    """
    charged = vma_pages(vma)
    if vma_.find_vma_intersection(mm, vma.vm_start, vma.vm_end) is not None:
        return -ENOMEM
    if vma.vm_flags & VM_ACCOUNT and util.vm_enough_memory(mm, charged):
        return -ENOMEM
    if vma_is_anonymous(vma):
        if vma.anon_vma is not None:
            raise KernelBug(f"{vma!r} has pages before it is inserted")
        vma.vm_pgoff = vma.vm_start >> PAGE_SHIFT
    if vma_.vma_link(mm, vma):
        if vma.vm_flags & VM_ACCOUNT:
            util.vm_unacct_memory(mm, charged)
        return -ENOMEM
    return 0


# --- brk --------------------------------------------------------------------------------------


def check_brk_limits(mm: MmStruct, addr: int, length: int) -> int:
    """Return 0 if the heap may be there and may be locked as much as all is, else -errno.

    Mirrors mm/mmap.c:check_brk_limits().
    """
    mapped = get_unmapped_area(mm, None, addr, length, 0, MAP_FIXED)
    if mapped < 0:
        return mapped
    return 0 if mlock_future_ok(mm, mm.def_flags, length) else -EAGAIN


def _brk_shrink(mm: MmStruct, brk: int, newbrk: int, oldbrk: int) -> int:
    """Give back heap; the lock is given back, too."""
    origbrk = mm.brk
    vma = mm.mm_mt.find(newbrk, oldbrk - 1)
    if vma is not None and vma.vm_start < oldbrk:
        mm.brk = brk
        if not vma_.do_vmi_align_munmap(vma, mm, newbrk, oldbrk, True):
            return brk
    mm.brk = origbrk
    mmap_write_unlock(mm)
    return origbrk


def sys_brk(mm: MmStruct, brk: int) -> int:
    """Move the end of the heap: the new end, or the old one if it stays.

    Mirrors mm/mmap.c:brk().
    """
    brk &= ULONG_MAX
    mmap_write_lock(mm)
    data = util.rlimit(mm, util.RLIMIT_DATA)
    newbrk, oldbrk = page_align(brk), page_align(mm.brk)
    ok = brk >= mm.start_brk and (
        data == util.RLIM_INFINITY
        or (brk - mm.start_brk) + (mm.end_data - mm.start_data) & ULONG_MAX <= data
    )
    populate = False
    if ok and oldbrk == newbrk:
        mm.brk = brk
    elif ok and brk <= mm.brk:
        return _brk_shrink(mm, brk, newbrk, oldbrk)
    elif ok and not check_brk_limits(mm, oldbrk, newbrk - oldbrk & ULONG_MAX):
        limit = newbrk + PAGE_SIZE + mm.sys.stack_guard_gap
        following = mm.mm_mt.find(oldbrk, limit - 1)
        if following is None or newbrk + PAGE_SIZE <= vma_.vm_start_gap(following):
            brkvma = mm.mm_mt.prev(oldbrk)
            if brkvma is not None and brkvma.vm_end <= mm.start_brk:
                brkvma = None  # vma_prev_limit()
            if not do_brk_flags(mm, brkvma, oldbrk, newbrk - oldbrk, 0):
                mm.brk = brk
                populate = bool(mm.def_flags & VM_LOCKED)
    ret = mm.brk
    mmap_write_unlock(mm)
    if populate:
        gup.mm_populate(mm, oldbrk, newbrk - oldbrk)
    return ret


def do_brk_flags(mm: MmStruct, vma: VmAreaStruct | None, addr: int, length: int, flags: int) -> int:
    """Let the VMA before @addr grow by @length, or make a new one: 0 or -ENOMEM.

    It never merges with what comes behind it.

    Mirrors mm/mmap.c:do_brk_flags().
    """
    pages = length >> PAGE_SHIFT
    flags |= VM_DATA_DEFAULT_FLAGS | VM_ACCOUNT | mm.def_flags
    if not may_expand_vm(mm, flags, pages):
        return -ENOMEM
    if mm.map_count > mm.sys.sysctl_max_map_count:
        return -ENOMEM
    if util.vm_enough_memory(mm, pages):
        return -ENOMEM
    merged: VmAreaStruct | None = None
    if vma is not None and vma.vm_end == addr:
        vmg = vma_.VmaMergeStruct(mm, addr, addr + length, flags, addr >> PAGE_SHIFT, prev=vma)
        vmg.merge_flags = vma_.VMG_FLAG_JUST_EXPAND
        merged = vma_.vma_merge_new_range(vmg)
        if vmg.state == vma_.VMA_MERGE_ERROR_NOMEM:  # vmg_nomem()
            util.vm_unacct_memory(mm, pages)
            return -ENOMEM
    if merged is None:
        merged = vma_.vm_area_alloc(mm, addr, addr + length, flags, addr >> PAGE_SHIFT)
        if merged is None or vma_.vma_iter_prealloc(mm):
            util.vm_unacct_memory(mm, pages)
            return -ENOMEM
        vma_start_write(merged)
        vma_.vma_iter_store(mm, merged)
        mm.map_count += 1
    mm.total_vm += pages
    mm.data_vm += pages
    if flags & VM_LOCKED:
        mm.locked_vm += pages
    merged.vm_flags |= VM_SOFTDIRTY
    return 0


def vm_brk_flags(mm: MmStruct, addr: int, request: int, flags: int) -> int:
    """Map zeroed memory at @addr, as exec does for a program's bss: 0 or -errno.

    Mirrors mm/mmap.c:vm_brk_flags().
    """
    length = page_align(request)
    if length < request:
        return -ENOMEM
    if not length:
        return 0
    if flags & ~VM_EXEC:
        return -EINVAL
    mmap_write_lock(mm)
    ret = check_brk_limits(mm, addr, length)
    if not ret:
        ret = vma_.do_vmi_munmap(mm, addr, length, False)
    if not ret:
        ret = do_brk_flags(mm, mm.mm_mt.prev(addr), addr, length, flags)
    mmap_write_unlock(mm)
    if mm.def_flags & VM_LOCKED and not ret:
        gup.mm_populate(mm, addr, length)
    return ret


# --- stacks -----------------------------------------------------------------------------------


def acct_stack_growth(vma: VmAreaStruct, size: int, grow: int) -> int:
    """Return 0 if the limits allow a stack of @size bytes, @grow pages more than now, else -ENOMEM.

    Mirrors mm/mmap.c:acct_stack_growth().
    """
    mm = vma.vm_mm
    if not may_expand_vm(mm, vma.vm_flags, grow):
        return -ENOMEM
    if size > util.rlimit(mm, util.RLIMIT_STACK):
        return -ENOMEM
    if not mlock_future_ok(mm, vma.vm_flags, grow << PAGE_SHIFT):
        return -ENOMEM
    return -ENOMEM if util.vm_enough_memory(mm, grow) else 0


def expand_downwards(vma: VmAreaStruct, address: int) -> int:
    """Grow a VM_GROWSDOWN mapping down to @address, with mmap_lock held for writing: 0 or -errno.

    Mirrors mm/mmap.c:expand_downwards().
    """
    mm = vma.vm_mm
    if not vma.vm_flags & VM_GROWSDOWN:
        return -EFAULT
    address &= -PAGE_SIZE
    if address < mm.sys.mmap_min_addr:
        return -EPERM
    prev = mm.mm_mt.prev(vma.vm_start)
    if prev is not None and not prev.vm_flags & VM_GROWSDOWN and vma_is_accessible(prev):
        if address - prev.vm_end & ULONG_MAX < mm.sys.stack_guard_gap:
            return -ENOMEM
    if vma_.vma_iter_prealloc(mm) or rmap.anon_vma_prepare(vma):
        return -ENOMEM
    vma_start_write(vma)
    if address >= vma.vm_start:
        return 0
    size, grow = vma.vm_end - address, (vma.vm_start - address) >> PAGE_SHIFT
    if grow > vma.vm_pgoff:
        return -ENOMEM
    error = acct_stack_growth(vma, size, grow)
    if error:
        return error
    if vma.vm_flags & VM_LOCKED:
        mm.locked_vm += grow
    vma_.vm_stat_account(mm, vma.vm_flags, grow)
    vma.vm_start = address
    vma.vm_pgoff -= grow
    vma_.vma_iter_store(mm, vma)
    vma_._anon_tree_update(vma)
    return 0


def expand_stack_locked(vma: VmAreaStruct, address: int) -> int:
    """Grow a stack VMA to @address: 0 or -errno.

    Mirrors mm/mmap.c:expand_stack_locked().
    """
    return expand_downwards(vma, address)


def find_extend_vma_locked(mm: MmStruct, addr: int) -> VmAreaStruct | None:
    """Return the VMA of @addr, growing a stack above it; mmap_lock is held for writing.

    Mirrors mm/mmap.c:find_extend_vma_locked().
    """
    addr &= -PAGE_SIZE
    vma = vma_.find_vma(mm, addr)
    if vma is None or vma.vm_start <= addr:
        return vma
    start = vma.vm_start
    if expand_stack_locked(vma, addr):
        return None
    if vma.vm_flags & VM_LOCKED:
        gup.populate_vma_page_range(vma, addr, start)
    return vma


def expand_stack(mm: MmStruct, addr: int) -> VmAreaStruct | None:
    """Trade the read lock for the write lock, grow a stack, and go back to reading.

    :return: the VMA; None with no lock held if there is none that could grow

    Mirrors mm/mmap.c:expand_stack().
    """
    mmap_read_unlock(mm)
    mmap_write_lock(mm)
    vma = vma_.find_vma(mm, addr)
    if vma is not None and (vma.vm_start <= addr or not expand_downwards(vma, addr)):
        mmap_write_downgrade(mm)
        return vma
    mmap_write_unlock(mm)
    return None


# --- the end ----------------------------------------------------------------------------------


def exit_mmap(mm: MmStruct) -> None:
    """Take the whole address space down.

    Mirrors mm/mmap.c:exit_mmap().
    """
    m = mm.machine
    vmas: Sequence[VmAreaStruct] = list(mm.mm_mt)
    if m is not None:
        swap.lru_add_drain(m)
    tlb = mmu_gather.tlb_gather_mmu_fullmm(mm)
    mmap_read_lock(mm)
    memory.unmap_vmas(tlb, list(vmas), 0, ULONG_MAX)
    mmap_read_unlock(mm)
    mm.flags |= 1 << MMF_OOM_SKIP
    mmap_write_lock(mm)
    if vmas:
        memory.free_pgtables(tlb, list(vmas), 0, 0)
    mmu_gather.tlb_finish_mmu(tlb)
    nr_accounted = 0
    for vma in vmas:
        if vma.vm_flags & VM_ACCOUNT:
            nr_accounted += vma_pages(vma)
        vma_start_write(vma)
        vma.detached = True
        vma_.remove_vma(vma)
    if len(vmas) != mm.map_count:
        raise KernelBug(f"map_count is {mm.map_count}, there were {len(vmas)} VMAs")
    if m is not None and m.trace.on:
        m.trace.emit("mmap:exit_mmap", mm.mm_id)
    mm.mm_mt.store(0, ULONG_MAX, None)
    mm.map_count = mm.total_vm = mm.data_vm = mm.exec_vm = mm.stack_vm = mm.locked_vm = 0
    mmap_write_unlock(mm)
    util.vm_unacct_memory(mm, nr_accounted)


def init_reserves(m: Machine) -> None:
    """Set how much vm.overcommit_memory = 2 keeps for root and for others: at most 8 and 128 MiB.

    Simplified: when the first process is made, not among the kernel's initcalls.

    Mirrors mm/mmap.c:init_user_reserve().
    """
    free_kbytes = global_zone_page_state(m, NR_FREE_PAGES) << (PAGE_SHIFT - 10)
    m.paging.sysctl_user_reserve_kbytes = min(free_kbytes // 32, 128 << 10)
    m.paging.sysctl_admin_reserve_kbytes = min(free_kbytes // 32, 8 << 10)


# --- system calls -----------------------------------------------------------------------------


def sys_mmap(
    mm: MmStruct, addr: int, length: int, prot: int, flags: int, fd: File | None, off: int = 0
) -> int:
    """mmap(): the address or -errno; any integers are taken as the kernel's unsigned longs.

    :param fd: the open file (the model has no table of numbers); None is a bad descriptor

    Mirrors arch/x86/kernel/sys_x86_64.c:mmap().
    """
    addr, length, off = addr & ULONG_MAX, length & ULONG_MAX, off & ULONG_MAX
    if off & _OFFSET:
        return -EINVAL
    file = None
    if not flags & MAP_ANONYMOUS:
        if fd is None:
            return -EBADF
        file = fd
        if flags & MAP_HUGETLB:
            return -EINVAL
    elif flags & MAP_HUGETLB:
        return -ENOMEM  # the machine has no pool of huge pages
    return vm_mmap_pgoff(mm, file, addr, length, prot, flags, off >> PAGE_SHIFT)


def sys_munmap(mm: MmStruct, addr: int, length: int) -> int:
    """munmap(): 0 or -errno.

    Mirrors mm/mmap.c:munmap().
    """
    return vm_munmap(mm, addr, length, True)
