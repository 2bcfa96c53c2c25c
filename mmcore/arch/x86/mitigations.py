"""Page table isolation, and the inverted page frame numbers against L1TF.

Mirrors arch/x86/mm/pti.c and the parts of arch/x86/kernel/cpu/bugs.c and pgtable-invert.h that shape
page tables.

With page table isolation every PGD is a pair of pages. The kernel runs on the first; user space on
the second, which holds the same user half but of the kernel only what entering it needs.

Simplified: of the kernel's part in the user table the model has the cpu_entry_area's top-level entry
and nothing of the entry text's own small mappings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86.pgtable_types import (
    _PAGE_NOPTISHADOW,
    _PAGE_NX,
    _PAGE_PRESENT,
    _PAGE_PSE,
    _PAGE_USER,
    LEVEL_SHIFT,
    PTE_PFN_MASK,
)
from mmcore.config import PAGE_SHIFT
from mmcore.errors import UsageError

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.mm import MmStruct

__all__ = [
    "CPU_ENTRY_AREA_PGD",
    "l1tf_pfn_limit",
    "pti_clone_pgtable",
    "pti_set_user_pgtbl",
    "walk_user",
]

#: The top-level slot of cpu_entry_area (0xfffffe0000000000) with four levels: 512 - 4.
CPU_ENTRY_AREA_PGD = 508


def pti_set_user_pgtbl(pgdp: pg.Ptep, pgd: int) -> int:
    """Store a user half entry in the user's PGD and return what the kernel's PGD gets: with NX.

    Mirrors arch/x86/mm/pti.c:__pti_set_user_pgtbl().
    """
    table, i = pgdp
    if i >= 256 or pgd & _PAGE_NOPTISHADOW or table.shadow is None:
        return pgd
    table.shadow[i] = pgd
    if pgd & (_PAGE_USER | _PAGE_PRESENT) == _PAGE_USER | _PAGE_PRESENT:
        pgd |= _PAGE_NX
    return pgd


def pti_clone_pgtable(m: Machine, index: int = CPU_ENTRY_AREA_PGD) -> None:
    """Show one of the kernel's top-level entries in the user tables of init_mm.

    Mirrors arch/x86/mm/pti.c:pti_clone_p4d().
    """
    init_mm = m.init_mm
    if init_mm is not None and init_mm.pgd.shadow is not None:
        init_mm.pgd.shadow[index] = init_mm.pgd[index]


def walk_user(mm: MmStruct, address: int) -> list[tuple[int, int, int]]:
    """Follow @address down the tables that user space runs on.

    :raises UsageError: if the address is not canonical, or there is no isolation
    """
    pg.check_address(address, mm.levels)
    table = mm.pgd.shadow
    if table is None:
        raise UsageError("this address space has no user tables of its own: no isolation")
    steps = []
    for level in range(mm.levels, 0, -1):
        index = address >> LEVEL_SHIFT[level] & 511
        entry = table[index]
        steps.append((level, index, entry))
        if not entry & _PAGE_PRESENT or (entry & _PAGE_PSE and level < 4):
            break
        if level > 1:
            table = mm.tables.tables[(entry & PTE_PFN_MASK) >> PAGE_SHIFT]
    return steps


def l1tf_pfn_limit(x86_cache_bits: int) -> int:
    """Return the first pfn that an inverted entry would not protect: above half the cache's reach.

    Mirrors arch/x86/include/asm/processor.h:l1tf_pfn_limit().
    """
    return 1 << (x86_cache_bits - 1 - PAGE_SHIFT)
