"""The kernel's own page tables: direct map, image, and the tables that all processes share.

Mirrors parts of arch/x86/mm/init_64.c and arch/x86/kernel/head_64.S.

On a booted machine the tables of the direct map lie where memblock put them while the machine booted,
and the image's where the reference kernel has them. A machine without a kernel (`bare_zone()`) gets
stub tables.

Simplified: made when the first address space is; the image is mapped by two kinds of large pages (text,
and everything else); fixmap, cpu_entry_area and modules are tables without entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.arch.x86 import kaslr, mitigations
from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86.init import INIT_PGD_PAGE_COUNT, ISA_END_ADDRESS
from mmcore.arch.x86.pgtable_types import (
    _PAGE_PSE,
    _PAGE_TABLE,
    PAGE_KERNEL,
    PAGE_KERNEL_LARGE,
    PAGE_KERNEL_ROX,
    PMD_SIZE,
    PUD_SIZE,
)
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.mm.mm import MmStruct

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = ["init_kernel_tables", "preallocate_vmalloc_pages"]

_IMAGE_TABLES = 0x2C22  # pfn of init_top_pgt in the reference kernel; level3_kernel_pgt is 5 on


def init_kernel_tables(m: Machine) -> MmStruct:
    """Make init_mm: its PGD and what hangs below the upper half; once per machine."""
    if m.init_mm is not None:
        return m.init_mm
    levels = pg.pgtable_levels(m)
    if m.paging.tables is None:
        m.paging.tables = pg.PhysTables(m)
    space = m.paging.tables
    if m.paging.layout is None:
        m.paging.layout = kaslr.kernel_layout(levels)
    m.page_offset_base = m.paging.layout.page_offset_base
    booted = bool(m.direct_map_tables)
    top = levels
    pgd = space.new(_IMAGE_TABLES, top) if booted else space.stub(top)
    assert pgd is not None
    if pg.pti_enabled(m):
        pgd.shadow = space.new(pgd.pfn + 1, top)
    mm = MmStruct(m, pgd, space, levels)
    mm.context.ctx_id = 1
    m.init_mm = mm
    if booted:
        _map_direct(m, mm)
        preallocate_vmalloc_pages(m, mm)
    else:
        _map_bare(m, mm)
    _map_image(m, mm, booted)
    if pgd.shadow is not None:
        mitigations.pti_clone_pgtable(m)
    return mm


def _table(mm: MmStruct, address: int, level: int, pfn: int | None) -> pg.PageTable:
    """Return the table of @level on the way to @address, making it (at @pfn, or a stub)."""
    table = mm.pgd
    for lvl in range(mm.levels, level, -1):
        i = address >> pg.LEVEL_SHIFT[lvl] & 511
        if not table[i]:
            here = pfn if lvl == level + 1 else None
            child = mm.tables.stub(lvl - 1) if here is None else mm.tables.new(here, lvl - 1)
            assert child is not None
            mm.pgtables_bytes += PAGE_SIZE if lvl < 5 else 0
            table[i] = child.pfn << PAGE_SHIFT | _PAGE_TABLE
        table = mm.tables.tables[(table[i] & pg.PTE_PFN_MASK) >> PAGE_SHIFT]
    return table


def _map_direct(m: Machine, mm: MmStruct) -> None:
    """Fill the direct map in, with the page sizes that boot decided on.

    Mirrors arch/x86/mm/init_64.c:kernel_physical_mapping_init().
    """
    base = m.paging.layout.page_offset_base
    image = m.kernel_image
    brk = image.end_of_kernel_reserve + image.brk - INIT_PGD_PAGE_COUNT * PAGE_SIZE >> PAGE_SHIFT
    tables = m.direct_map_tables
    for (level, index), addr in tables.items():
        pfn = addr >> PAGE_SHIFT
        if not addr:
            pfn, brk = brk, brk + 1
        # Keys count what the entry that points to the table spans: 512 GiB, 1 GiB, 2 MiB.
        _table(mm, base + (index << (12 + 9 * level)), level, pfn)
    ranges = [(0, ISA_END_ADDRESS)]
    ranges += [(r.base, r.base + r.size) for r in m.memblock.memory.regions if r.size]
    for start, end in ranges:
        _map_direct_range(m, mm, base, start, end)


def _map_direct_range(m: Machine, mm: MmStruct, base: int, start: int, end: int) -> None:
    tables = m.direct_map_tables
    start &= -PAGE_SIZE
    while start < end:
        if (2, start >> 30) not in tables:
            level, size = 3, PUD_SIZE
        elif (1, start >> 21) not in tables:
            level, size = 2, PMD_SIZE
        else:
            level, size = 1, PAGE_SIZE
        addr = start & -size
        table = _table(mm, base + addr, level, None)
        i = base + addr >> pg.LEVEL_SHIFT[level] & 511
        table[i] = addr | (PAGE_KERNEL if level == 1 else PAGE_KERNEL_LARGE)
        start = addr + size


def _map_bare(m: Machine, mm: MmStruct) -> None:
    """Map the zones of a machine without a kernel, by 2 MiB pages from stub tables."""
    base = m.paging.layout.page_offset_base
    for pgdat in m.node_data.values():
        for zone in pgdat.node_zones:
            start = zone.zone_start_pfn << PAGE_SHIFT & -PMD_SIZE
            end = zone.zone_start_pfn + zone.spanned_pages << PAGE_SHIFT
            for addr in range(start, end, PMD_SIZE):
                table = _table(mm, base + addr, 2, None)
                table[base + addr >> 21 & 511] = addr | PAGE_KERNEL_LARGE


def _map_image(m: Machine, mm: MmStruct, booted: bool) -> None:
    """Map the kernel image at __START_KERNEL_map: text read-only and executable, the rest not.

    Mirrors arch/x86/mm/init_64.c:mark_rodata_ro().
    """
    layout = m.paging.layout
    image = m.kernel_image
    start_map = layout.text - (image.text - layout.phys_base)
    pfns = (_IMAGE_TABLES + 5, _IMAGE_TABLES + 6, _IMAGE_TABLES + 7) if booted else (None,) * 3
    _table(mm, start_map, 3, pfns[0])
    _table(mm, start_map, 2, pfns[1])
    _table(mm, kaslr.MODULES_END, 2, pfns[2])
    end = image.end_of_kernel_reserve + image.brk
    for addr in range(image.text & -PMD_SIZE, end, PMD_SIZE):
        text = addr < image.text + image.code
        prot = PAGE_KERNEL_ROX | _PAGE_PSE if text else PAGE_KERNEL_LARGE
        virt = start_map + addr
        _table(mm, virt, 2, None)[virt >> 21 & 511] = addr | prot
    _table(mm, kaslr.CPU_ENTRY_AREA_BASE, 3, None)


def preallocate_vmalloc_pages(m: Machine, mm: MmStruct) -> None:
    """Make the top-level entries of vmalloc space now, so that every process shares their tables.

    Mirrors arch/x86/mm/init_64.c:preallocate_vmalloc_pages().
    """
    start = m.paging.layout.vmalloc_base
    tb = kaslr.VMALLOC_SIZE_TB_L5 if mm.levels == 5 else kaslr.VMALLOC_SIZE_TB_L4
    end = start + (tb << 40) - 1
    shift = pg.pgdir_shift(mm.levels)
    addr = start
    while addr <= end:
        p4d = pg.p4d_alloc(mm, pg.pgd_offset(mm, addr), addr)
        if mm.levels == 4:
            assert p4d is not None
            pg.pud_alloc(mm, p4d, addr)
        addr = (addr >> shift) + 1 << shift
