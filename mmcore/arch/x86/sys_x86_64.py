"""Where a new mapping goes.

Mirrors arch/x86/kernel/sys_x86_64.c, for 64-bit system calls.
"""

from __future__ import annotations

from typing import Any

from mmcore.arch.x86.mmap import (
    DEFAULT_MAP_WINDOW,
    mmap_address_hint_valid,
    randomized,
    task_size_64bit,
)
from mmcore.arch.x86.pgtable import task_size_max
from mmcore.cint import ALIGN
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import ENOMEM
from mmcore.mm import mmap
from mmcore.mm import vma as vma_
from mmcore.mm.mm import VM_SHADOW_STACK, MmStruct

__all__ = ["arch_get_unmapped_area", "arch_get_unmapped_area_topdown", "find_start_end"]

SZ_4G = 1 << 32


def find_start_end(mm: MmStruct, addr: int, flags: int) -> tuple[int, int]:
    """Return the range that is searched bottom-up.

    Mirrors arch/x86/kernel/sys_x86_64.c:find_start_end().
    """
    if flags & mmap.MAP_32BIT:
        begin = 0x40000000
        if randomized(mm) and mm.machine is not None:
            begin += (
                mm.machine.rng("aslr").getrandbits(64) % (0x02000000 >> PAGE_SHIFT) << PAGE_SHIFT
            )
        return begin, 0x80000000
    return mm.mmap_legacy_base, task_size_64bit(mm, addr > DEFAULT_MAP_WINDOW)


def stack_guard_placement(vm_flags: int) -> int:
    """Return how much room a new mapping wants below itself.

    Mirrors arch/x86/kernel/sys_x86_64.c:stack_guard_placement().
    """
    return PAGE_SIZE if vm_flags & VM_SHADOW_STACK else 0


def arch_get_unmapped_area(
    mm: MmStruct, filp: Any, addr: int, length: int, pgoff: int, flags: int, vm_flags: int
) -> int:
    """Return the lowest address for a mapping, or the hint if that will do; or -ENOMEM.

    Mirrors arch/x86/kernel/sys_x86_64.c:arch_get_unmapped_area().
    """
    if flags & mmap.MAP_FIXED:
        return addr
    begin, end = find_start_end(mm, addr, flags)
    if length > end:
        return -ENOMEM
    if addr:
        addr = ALIGN(addr, PAGE_SIZE)
        vma = vma_.find_vma(mm, addr)
        if end - length >= addr and (vma is None or addr + length <= vma_.vm_start_gap(vma)):
            return addr
    info = mmap.VmUnmappedAreaInfo(0, length, begin, end, align_offset=pgoff << PAGE_SHIFT)
    info.start_gap = stack_guard_placement(vm_flags)
    return mmap.vm_unmapped_area(mm, info)


def arch_get_unmapped_area_topdown(
    mm: MmStruct, filp: Any, addr0: int, length: int, pgoff: int, flags: int, vm_flags: int
) -> int:
    """Return the highest address below mmap_base, or the hint if that will do; or -ENOMEM.

    Simplified: no alignment of files for CPUs that share an instruction cache (AMD family 15h).

    Mirrors arch/x86/kernel/sys_x86_64.c:arch_get_unmapped_area_topdown().
    """
    addr = addr0
    if length > mm.task_size:
        return -ENOMEM
    if flags & mmap.MAP_FIXED:
        return addr
    if not flags & mmap.MAP_32BIT:
        if addr:
            addr &= -PAGE_SIZE
            if mmap_address_hint_valid(mm, addr, length):
                vma = vma_.find_vma(mm, addr)
                if vma is None or addr + length <= vma_.vm_start_gap(vma):
                    return addr
        low = SZ_4G if flags & mmap.MAP_ABOVE4G else PAGE_SIZE
        high = mm.mmap_base
        if addr > DEFAULT_MAP_WINDOW:
            high += task_size_max(mm.levels) - DEFAULT_MAP_WINDOW
        info = mmap.VmUnmappedAreaInfo(
            mmap.VM_UNMAPPED_AREA_TOPDOWN, length, low, high, align_offset=pgoff << PAGE_SHIFT
        )
        info.start_gap = stack_guard_placement(vm_flags)
        found = mmap.vm_unmapped_area(mm, info)
        if found >= 0:
            return found
    return arch_get_unmapped_area(mm, filp, addr0, length, pgoff, flags, 0)
