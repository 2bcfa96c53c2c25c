"""Where a process's mappings begin: mmap_base.

Mirrors arch/x86/mm/mmap.c, for 64-bit processes.
"""

from __future__ import annotations

from mmcore.arch.x86.pgtable import task_size_max
from mmcore.cint import ALIGN, ULONG_MAX
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.mm import util
from mmcore.mm.mm import MMF_TOPDOWN, MmStruct

__all__ = [
    "ADDR_COMPAT_LAYOUT",
    "ADDR_NO_RANDOMIZE",
    "DEFAULT_MAP_WINDOW",
    "PF_RANDOMIZE",
    "arch_pick_mmap_layout",
    "mmap_address_hint_valid",
    "mmap_base",
    "mmap_rnd_bits",
    "randomized",
]

# include/uapi/linux/personality.h
ADDR_NO_RANDOMIZE = 0x0040000
READ_IMPLIES_EXEC = 0x0400000
ADDR_COMPAT_LAYOUT = 0x0200000
# include/linux/sched.h
PF_RANDOMIZE = 0x00400000

#: The highest address that a process gets without asking for more: 47 bits less a page.
DEFAULT_MAP_WINDOW = (1 << 47) - PAGE_SIZE
SIZE_128M = 128 << 20
STACK_RND_MASK = 0x3FFFFF
mmap_rnd_bits = 28


def randomized(mm: MmStruct) -> bool:
    """Tell whether the running task was loaded at random addresses."""
    task = None if mm.machine is None else mm.machine.current
    return bool(getattr(task, "flags", 0) & PF_RANDOMIZE)


def personality(mm: MmStruct) -> int:
    """Return the running task's personality bits."""
    task = None if mm.machine is None else mm.machine.current
    return int(getattr(task, "personality", 0))


def stack_maxrandom_size(mm: MmStruct) -> int:
    """Return how far down the stack's top may be moved at random: 16 GiB.

    Mirrors arch/x86/mm/mmap.c:stack_maxrandom_size().
    """
    return STACK_RND_MASK << PAGE_SHIFT if randomized(mm) else 0


def mmap_is_legacy(mm: MmStruct) -> bool:
    """Tell whether mappings are placed bottom-up; an unlimited stack alone does not do that on x86.

    Mirrors arch/x86/mm/mmap.c:mmap_is_legacy().
    """
    return bool(personality(mm) & ADDR_COMPAT_LAYOUT or mm.sys.sysctl_legacy_va_layout)


def arch_rnd(mm: MmStruct) -> int:
    """Return the random part of mmap_base in bytes; 0 without randomisation.

    Mirrors arch/x86/mm/mmap.c:arch_rnd().
    """
    if not randomized(mm) or mm.machine is None:
        return 0
    return mm.machine.rng("aslr").getrandbits(mmap_rnd_bits) << PAGE_SHIFT


def mmap_base(mm: MmStruct, rnd: int, task_size: int, rlim_stack: int) -> int:
    """Return where top-down placement begins: below the largest stack there may be.

    :param rlim_stack: RLIMIT_STACK in bytes

    Mirrors arch/x86/mm/mmap.c:mmap_base().
    """
    gap = rlim_stack
    pad = stack_maxrandom_size(mm) + mm.sys.stack_guard_gap
    if gap + pad & ULONG_MAX > gap:
        gap += pad
    gap = min(max(gap, SIZE_128M), task_size // 6 * 5)
    return ALIGN(task_size - gap - rnd, PAGE_SIZE)


def arch_pick_mmap_layout(mm: MmStruct, rlim_stack: int | None = None) -> None:
    """Choose the layout of a new address space.

    :param rlim_stack: RLIMIT_STACK in bytes; by default the running task's

    Mirrors arch/x86/mm/mmap.c:arch_pick_mmap_layout().
    """
    legacy = mmap_is_legacy(mm)
    mm.flags = mm.flags & ~(1 << MMF_TOPDOWN) | (0 if legacy else 1 << MMF_TOPDOWN)
    if rlim_stack is None:
        rlim_stack = util.rlimit(mm, util.RLIMIT_STACK)
    rnd = arch_rnd(mm)
    mm.mmap_legacy_base = ALIGN(DEFAULT_MAP_WINDOW // 3, PAGE_SIZE) + rnd
    if legacy:
        mm.mmap_base = mm.mmap_legacy_base
    else:
        mm.mmap_base = mmap_base(mm, rnd, DEFAULT_MAP_WINDOW, rlim_stack)


def mmap_address_hint_valid(mm: MmStruct, addr: int, length: int) -> bool:
    """Tell whether a hint lies in user space and does not cross the 47-bit border.

    Mirrors arch/x86/mm/mmap.c:mmap_address_hint_valid().
    """
    if mm.task_size - length < addr:
        return False
    return (addr > DEFAULT_MAP_WINDOW) == (addr + length > DEFAULT_MAP_WINDOW)


def task_size_64bit(mm: MmStruct, full_addr_space: bool) -> int:
    """Return the end of user space, above 47 bits only on request.

    Mirrors arch/x86/mm/mmap.c:task_size_64bit().
    """
    return task_size_max(mm.levels) if full_addr_space else DEFAULT_MAP_WINDOW
