"""The direct mapping of physical memory, and the page tables it takes from memblock.

Mirrors arch/x86/mm/init.c and the sizes of arch/x86/mm/init_64.c.

Simplified: counts and allocates page tables, does not fill them in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import KernelBug
from mmcore.mm import memblock as mb

if TYPE_CHECKING:
    from mmcore.machine import Machine

PMD_SIZE = 2 << 20
PUD_SIZE = 1 << 30
LEVEL_SHIFTS = (12, 21, 30)
PMD_PFNS = PMD_SIZE >> PAGE_SHIFT
PUD_PFNS = PUD_SIZE >> PAGE_SHIFT
ISA_END_ADDRESS = 1 << 20
#: ``INIT_PGD_PAGE_COUNT``: page-table pages in the kernel image's brk area.
INIT_PGD_PAGE_COUNT = 16

__all__ = [
    "INIT_PGD_PAGE_COUNT",
    "add_pfn_range_mapped",
    "get_new_step_size",
    "init_mem_mapping",
    "memory_map_bottom_up",
    "memory_map_top_down",
    "pfn_range_is_mapped",
    "split_mem_range",
]


def get_new_step_size(step_size: int) -> int:
    """Return the next, larger step of the top-down mapping.

    Mirrors arch/x86/mm/init.c:get_new_step_size().
    """
    return step_size << 8


def _adjust_page_size(m: Machine, mr: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Use larger pages where all of the larger page is RAM.

    Mirrors arch/x86/mm/init.c:adjust_range_page_size_mask().
    """
    out = []
    for start, end, size in mr:
        for level, bytes_ in ((1, PMD_SIZE), (2, PUD_SIZE)):
            if size < level and (level == 1 or m.config.cpu_gbpages):
                lo = start << PAGE_SHIFT & -bytes_
                hi = ((end << PAGE_SHIFT) + bytes_ - 1) & -bytes_
                if mb.memblock_is_region_memory(m.memblock, lo, hi - lo):
                    size = level
        out.append((start, end, size))
    return out


def split_mem_range(m: Machine, start: int, end: int) -> list[tuple[int, int, int]]:
    """Cut a range into parts to be mapped with 4 KiB, 2 MiB and 1 GiB pages.

    :return: (first pfn, end pfn, level) with level 0, 1 or 2

    Mirrors arch/x86/mm/init.c:split_mem_range().
    """
    limit = end >> PAGE_SHIFT
    pfn = start >> PAGE_SHIFT
    gb = 2 if m.config.cpu_gbpages else 1
    mr: list[tuple[int, int, int]] = []

    def save(lo: int, hi: int, level: int) -> int:
        if lo < hi:
            mr.append((lo, hi, level))
            return hi
        return pfn

    def up(x: int, a: int) -> int:
        return (x + a - 1) & -a

    pfn = save(pfn, min(up(pfn, PMD_PFNS), limit), 0)
    pfn = save(up(pfn, PMD_PFNS), min(up(pfn, PUD_PFNS), limit & -PMD_PFNS), 1)
    pfn = save(up(pfn, PUD_PFNS), limit & -PUD_PFNS, gb)
    pfn = save(up(pfn, PMD_PFNS), limit & -PMD_PFNS, 1)
    save(pfn, limit, 0)
    merged: list[tuple[int, int, int]] = []
    for lo, hi, level in _adjust_page_size(m, mr):
        if merged and merged[-1][1] == lo and merged[-1][2] == level:
            lo = merged.pop()[0]
        merged.append((lo, hi, level))
    return merged


def _alloc_low_page(m: Machine, level: int, index: int) -> None:
    """Take one page for a page table: from brk while that lasts, then from mapped memory.

    Mirrors arch/x86/mm/init.c:alloc_low_pages().
    """
    if (level, index) in m.direct_map_tables:
        return
    addr = 0
    if m.pgt_buf_used < INIT_PGD_PAGE_COUNT and m.can_use_brk_pgt:
        m.pgt_buf_used += 1
    else:
        addr = mb.memblock_phys_alloc_range(
            m.memblock,
            PAGE_SIZE,
            PAGE_SIZE,
            m.min_pfn_mapped << PAGE_SHIFT,
            m.max_pfn_mapped << PAGE_SHIFT,
            "alloc_low_pages+0x96/0x150",
        )
        if not addr:
            raise KernelBug("Kernel panic: alloc_low_pages: can not alloc memory")
    m.direct_map_tables[level, index] = addr


def add_pfn_range_mapped(m: Machine, start_pfn: int, end_pfn: int) -> None:
    """Note that a range is mapped, joined with its neighbours.

    Mirrors arch/x86/mm/init.c:add_pfn_range_mapped().
    """
    m.pfn_mapped.append((start_pfn, end_pfn))
    merged: list[tuple[int, int]] = []
    for lo, hi in sorted(m.pfn_mapped):
        if merged and lo <= merged[-1][1]:
            lo, hi = merged[-1][0], max(hi, merged.pop()[1])
        merged.append((lo, hi))
    m.pfn_mapped = merged
    m.max_pfn_mapped = max(m.max_pfn_mapped, end_pfn)


def pfn_range_is_mapped(m: Machine, start_pfn: int, end_pfn: int) -> bool:
    """Tell whether the direct mapping covers a whole range.

    Mirrors arch/x86/mm/init.c:pfn_range_is_mapped().
    """
    return any(lo <= start_pfn and end_pfn <= hi for lo, hi in m.pfn_mapped)


def init_memory_mapping(m: Machine, start: int, end: int) -> None:
    """Map a range, allocating the tables that are missing, upper levels first.

    Mirrors arch/x86/mm/init.c:init_memory_mapping().
    """
    for lo, hi, level in split_mem_range(m, start, end):
        lo_addr, hi_addr = lo << PAGE_SHIFT, hi << PAGE_SHIFT
        # An entry that a later step visits again is counted again, as the kernel does.
        entries = (hi_addr - 1 >> LEVEL_SHIFTS[level]) - (lo_addr >> LEVEL_SHIFTS[level]) + 1
        m.direct_pages_count[level] += entries
        for p4d in range(lo_addr >> 39, (hi_addr - 1 >> 39) + 1):
            if m.config.cpu_la57:
                _alloc_low_page(m, 4, p4d >> 9)
            _alloc_low_page(m, 3, p4d)
        if level == 2:
            continue
        for pud in range(lo_addr >> 30, (hi_addr - 1 >> 30) + 1):
            _alloc_low_page(m, 2, pud)
            if level == 1:
                continue
            for pmd in range(
                max(lo_addr, pud << 30) >> 21, (min(hi_addr, pud + 1 << 30) - 1 >> 21) + 1
            ):
                _alloc_low_page(m, 1, pmd)
    add_pfn_range_mapped(m, start >> PAGE_SHIFT, end >> PAGE_SHIFT)


def init_range_memory_mapping(m: Machine, r_start: int, r_end: int) -> int:
    """Map the memory in a range, region by region.

    :return: bytes mapped

    Mirrors arch/x86/mm/init.c:init_range_memory_mapping().
    """
    mapped_ram_size = 0
    image = m.kernel_image
    pgt_buf_top = image.end_of_kernel_reserve + image.brk
    pgt_buf_start = pgt_buf_top - INIT_PGD_PAGE_COUNT * PAGE_SIZE
    for start_pfn, end_pfn, _ in mb.for_each_mem_pfn_range(m.memblock, mb.MAX_NUMNODES):
        start = min(max(start_pfn << PAGE_SHIFT, r_start), r_end)
        end = min(max(end_pfn << PAGE_SHIFT, r_start), r_end)
        if start < end:
            # Tables must not lie in memory that is only being mapped.
            pgt_buf_end = pgt_buf_start + m.pgt_buf_used * PAGE_SIZE
            m.can_use_brk_pgt = max(start, pgt_buf_end) >= min(end, pgt_buf_top)
            init_memory_mapping(m, start, end)
            mapped_ram_size += end - start
            m.can_use_brk_pgt = True
    return mapped_ram_size


def memory_map_top_down(m: Machine, map_start: int, map_end: int) -> None:
    """Map memory from its end downwards, in steps that grow as more memory is mapped.

    Page tables for one step come from memory that an earlier step has mapped, so the first step must
    be small enough for the tables in the kernel image.

    Mirrors arch/x86/mm/init.c:memory_map_top_down().
    """
    addr = mb.memblock_phys_alloc_range(
        m.memblock, PMD_SIZE, PMD_SIZE, map_start, map_end, "init_mem_mapping+0x1c4/0x3d0"
    )
    if addr:
        mb.memblock_phys_free(m.memblock, addr, PMD_SIZE, "init_mem_mapping+0x1e4/0x3d0")
        real_end = addr + PMD_SIZE
    else:
        real_end = max(map_start, map_end & -PMD_SIZE)
    step_size = PMD_SIZE
    m.max_pfn_mapped = 0
    m.min_pfn_mapped = real_end >> PAGE_SHIFT
    last_start = real_end
    mapped_ram_size = 0
    while last_start > map_start:
        start = map_start
        if last_start > step_size:
            start = max(last_start - 1 & -step_size, map_start)
        mapped_ram_size += init_range_memory_mapping(m, start, last_start)
        last_start = start
        m.min_pfn_mapped = last_start >> PAGE_SHIFT
        if mapped_ram_size >= step_size:
            step_size = get_new_step_size(step_size)
    if real_end < map_end:
        init_range_memory_mapping(m, real_end, map_end)


def memory_map_bottom_up(m: Machine, map_start: int, map_end: int) -> None:
    """Map memory upwards, so that page tables lie near the kernel and away from hotplug memory.

    Mirrors arch/x86/mm/init.c:memory_map_bottom_up().
    """
    start = map_start
    step_size = PMD_SIZE
    m.min_pfn_mapped = start >> PAGE_SHIFT
    mapped_ram_size = 0
    while start < map_end:
        end = map_end
        if map_end - start > step_size:
            end = min(start + step_size & -step_size, map_end)
        mapped_ram_size += init_range_memory_mapping(m, start, end)
        start = end
        if mapped_ram_size >= step_size:
            step_size = get_new_step_size(step_size)


def init_mem_mapping(m: Machine) -> None:
    """Map the first MiB, then all other memory. From here on memblock may use it.

    Mirrors arch/x86/mm/init.c:init_mem_mapping().
    """
    end = m.max_pfn << PAGE_SHIFT
    if m.config.cpu_gbpages:
        m.pr_info("Using GB pages for direct mapping")
    init_memory_mapping(m, 0, ISA_END_ADDRESS)
    if m.memblock.bottom_up:
        kernel_end = m.kernel_image.end_of_kernel_reserve + m.kernel_image.brk
        memory_map_bottom_up(m, kernel_end, end)
        memory_map_bottom_up(m, ISA_END_ADDRESS, kernel_end)
    else:
        memory_map_top_down(m, ISA_END_ADDRESS, end)
    m.max_low_pfn = max(m.max_low_pfn, m.max_pfn)
    k4, m2, g1 = m.direct_pages_count
    m.sysinfo.direct_kb = (k4 << 2, m2 << 11, g1 << 20)
