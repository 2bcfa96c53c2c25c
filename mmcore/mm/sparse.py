"""The memory map in sections: which page frames have a struct page, and where those lie.

Physical memory is cut into sections of 128 MiB. A section with any memory in it is *present*: all its
32768 frames have a struct page, 2 MiB of them, mapped at ``vmemmap + pfn``.

Mirrors mm/sparse.c and mm/sparse-vmemmap.c for SPARSEMEM_VMEMMAP and SPARSEMEM_EXTREME.

Simplified: the struct pages themselves are Python objects made on demand; only the memory that they
take is accounted for. No memory hotplug.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from mmcore.cint import DIV_ROUND_UP
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import KernelBug
from mmcore.mm import memblock as mb
from mmcore.mm import mm_init
from mmcore.mm.mmzone import PAGES_PER_SECTION, PFN_SECTION_SHIFT, SECTION_SIZE_BITS

if TYPE_CHECKING:
    from mmcore.machine import Machine

SIZEOF_STRUCT_PAGE = 64
SECTION_MAP_SIZE = PAGES_PER_SECTION * SIZEOF_STRUCT_PAGE
SIZEOF_MEM_SECTION_USAGE = 16 + 8 + 32  # rcu head, subsection map, pageblock flags
SIZEOF_MEM_SECTION = 16
SECTIONS_PER_ROOT = PAGE_SIZE // SIZEOF_MEM_SECTION
MAX_DMA_ADDRESS = 16 << 20
PMD_SHIFT = 21
PUD_SHIFT = 30
P4D_SHIFT = 39
PGD_SHIFT = 48
VMEMMAP_START = 0xFFFFEA0000000000
VMEMMAP_START_L5 = 0xFFD4000000000000

__all__ = [
    "MAX_DMA_ADDRESS",
    "SECTIONS_PER_ROOT",
    "SECTION_MAP_SIZE",
    "SIZEOF_MEM_SECTION",
    "SIZEOF_MEM_SECTION_USAGE",
    "SIZEOF_STRUCT_PAGE",
    "VMEMMAP_START",
    "VMEMMAP_START_L5",
    "memblocks_present",
    "next_present_section_nr",
    "pfn_to_section_nr",
    "pfn_valid",
    "sparse_init",
    "vmemmap_populate_hugepages",
]


def pfn_to_section_nr(pfn: int) -> int:
    """Return the number of the section that holds @pfn.

    Mirrors include/linux/mmzone.h:pfn_to_section_nr().
    """
    return pfn >> PFN_SECTION_SHIFT


def pfn_valid(m: Machine, pfn: int) -> bool:
    """Tell whether @pfn has a struct page. In a section present at boot every frame has one.

    Mirrors include/linux/mmzone.h:pfn_valid().
    """
    sections = m.mm_init.present_section_nr
    nr = pfn >> PFN_SECTION_SHIFT
    i = bisect_left(sections, nr)
    return i < len(sections) and sections[i] == nr


def next_present_section_nr(m: Machine, section_nr: int) -> int:
    """Return the first present section after @section_nr, -1 if there is none.

    Mirrors include/linux/mmzone.h:next_present_section_nr().
    """
    sections = m.mm_init.present_section_nr
    i = bisect_right(sections, section_nr)
    return sections[i] if i < len(sections) else -1


def memblocks_present(m: Machine) -> dict[int, int]:
    """Mark each section that has memory, and allocate the table of sections as it grows.

    :return: the node of each present section: that of the lowest memory in it

    Mirrors mm/sparse.c:memblocks_present().
    """
    memblock = m.memblock
    nr_roots = DIV_ROUND_UP(1 << (m.max_physmem_bits - SECTION_SIZE_BITS), SECTIONS_PER_ROOT)
    mb.memblock_alloc(memblock, nr_roots * 8, mb.SMP_CACHE_BYTES, "sparse_init+0x403/0x440")
    section_nid: dict[int, int] = {}
    roots: list[int] = []
    for start, end, nid in mb.for_each_mem_pfn_range(memblock, mb.MAX_NUMNODES):
        for nr in range(start >> PFN_SECTION_SHIFT, (end - 1 >> PFN_SECTION_SHIFT) + 1):
            root = nr // SECTIONS_PER_ROOT
            if not roots or roots[-1] != root:
                size = SECTIONS_PER_ROOT * SIZEOF_MEM_SECTION
                caller = "sparse_index_alloc+0x40/0x70"
                mb.memblock_alloc_node(memblock, size, mb.SMP_CACHE_BYTES, nid, caller)
                roots.append(root)
            section_nid.setdefault(nr, nid)
    m.mm_init.present_section_nr = list(section_nid)
    return section_nid


def _usemaps_alloc(m: Machine, nid: int, size: int) -> None:
    """Allocate section usage maps, in the section that holds the node's pg_data_t if possible.

    Mirrors mm/sparse.c:sparse_early_usemaps_alloc_pgdat_section().
    """
    goal = m.node_data_phys.get(nid, 0) & -(1 << SECTION_SIZE_BITS)
    goal_nid = mm_init.early_pfn_to_nid(m, goal >> PAGE_SHIFT)
    for limit in (goal + (1 << SECTION_SIZE_BITS), mb.MEMBLOCK_ALLOC_ACCESSIBLE):
        if mb.memblock_alloc_try_nid(
            m.memblock,
            size,
            mb.SMP_CACHE_BYTES,
            goal,
            limit,
            goal_nid,
            "sparse_init_nid+0x9f/0x590",
        ):
            return
    raise KernelBug(f"sparse_init_nid: node[{nid}] usemap allocation failed")


def vmemmap_populate_hugepages(m: Machine, start: int, end: int, node: int) -> None:
    """Allocate the page tables that map struct pages with 2 MiB pages, as far as they are missing.

    :param start: ``unsigned long``; virtual address in vmemmap

    Mirrors mm/sparse-vmemmap.c:vmemmap_populate_hugepages().
    Simplified: the 2 MiB pages themselves come from the buffer of sparse_init_nid(); vmemmap is at
    its address without KASLR.
    """
    levels = (PGD_SHIFT, P4D_SHIFT, PUD_SHIFT) if m.config.cpu_la57 else (P4D_SHIFT, PUD_SHIFT)
    for level in levels:
        for index in range(start >> level, (end - 1 >> level) + 1):
            if (level, index) not in m.vmemmap_tables:
                m.vmemmap_tables[level, index] = mb.memblock_alloc_try_nid_raw(
                    m.memblock,
                    PAGE_SIZE,
                    PAGE_SIZE,
                    MAX_DMA_ADDRESS,
                    mb.MEMBLOCK_ALLOC_ACCESSIBLE,
                    node,
                    "vmemmap_alloc_block_zero.constprop.0+0x11/0x50",
                )


def sparse_init_nid(m: Machine, nid: int, sections: list[int]) -> None:
    """Allocate usage maps and struct pages for a node's run of sections.

    Mirrors mm/sparse.c:sparse_init_nid().
    """
    _usemaps_alloc(m, nid, SIZEOF_MEM_SECTION_USAGE * len(sections))
    buffer = mb.memblock_alloc_exact_nid_raw(
        m.memblock,
        SECTION_MAP_SIZE * len(sections),
        SECTION_MAP_SIZE,
        MAX_DMA_ADDRESS,
        mb.MEMBLOCK_ALLOC_ACCESSIBLE,
        nid,
        "sparse_init_nid+0x111/0x590",
    )
    vmemmap = VMEMMAP_START_L5 if m.config.cpu_la57 else VMEMMAP_START
    for nr in sections:
        start = vmemmap + nr * SECTION_MAP_SIZE
        vmemmap_populate_hugepages(m, start, start + SECTION_MAP_SIZE, nid)
        if buffer is None:
            mb.memblock_alloc_try_nid_raw(
                m.memblock,
                SECTION_MAP_SIZE,
                SECTION_MAP_SIZE,
                MAX_DMA_ADDRESS,
                mb.MEMBLOCK_ALLOC_ACCESSIBLE,
                nid,
                "vmemmap_alloc_block+0x11/0x50",
            )
        m.mm_init.memmap_pages += SECTION_MAP_SIZE >> PAGE_SHIFT


def sparse_init(m: Machine) -> None:
    """Find the present sections and allocate the memory map of each, node by node.

    Mirrors mm/sparse.c:sparse_init().
    """
    section_nid = memblocks_present(m)
    run: list[int] = []
    for nr, nid in section_nid.items():
        if run and section_nid[run[0]] != nid:
            sparse_init_nid(m, section_nid[run[0]], run)
            run = []
        run.append(nr)
    if run:
        sparse_init_nid(m, section_nid[run[0]], run)
