"""Who takes memory from memblock while the kernel boots, and how much.

The requests of the reference kernel on a PC as QEMU builds it, in their order and with their sizes,
so that a machine booted from a bare memory map has the same pages reserved as the real one. The
places of the callers (``pcpu_fc_alloc+0x79/0x160``) are those of the reference build, as its
memblock=debug log names them.

Mirrors parts of arch/x86/kernel/setup.c, mm/percpu.c, kernel/dma/swiotlb.c and init/main.c.

Simplified: one I/O APIC and one HPET; no ACPI tables in RAM; no crash kernel, no EFI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.arch.x86 import e820
from mmcore.arch.x86.image import KernelImage
from mmcore.cint import DIV_ROUND_UP, roundup_pow_of_two
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.lib.cmdline import memparse
from mmcore.mm import memblock as mb
from mmcore.mm import mm_init
from mmcore.mm.numa_memblks import LOCAL_DISTANCE

if TYPE_CHECKING:
    from mmcore.machine import Machine

LOG_BUF_LEN = 1 << 17
LOG_CPU_MAX_BUF_LEN = 1 << 12
PRB_AVGBITS = 5
SIZEOF_PRB_DESC = 24
SIZEOF_PRINTK_INFO = 88
SIZEOF_RESOURCE = 64
SIZEOF_FIRMWARE_MAP_ENTRY = 104
SIZEOF_NOSAVE_REGION = 32
MAX_DMA_ADDRESS = 16 << 20
PMD_SIZE = 2 << 20

# The per-CPU area of the reference kernel, in bytes: variables, modules, dynamic.
PCPU_STATIC_SIZE = 233472
PCPU_RESERVED_SIZE = 8192
PCPU_DYN_SIZE = 28672
PCPU_UNIT_SIZE = PCPU_STATIC_SIZE + PCPU_RESERVED_SIZE + PCPU_DYN_SIZE
PCPU_MIN_ALLOC_SIZE = 4
PCPU_BITMAP_BLOCK_SIZE = PAGE_SIZE
SIZEOF_PCPU_CHUNK = 200
SIZEOF_PCPU_BLOCK_MD = 32

SIZEOF_CPU_ENTRY_AREA = 241664
#: The last page of an entry area that is mapped unless the processor is Intel's, whose debug store
#: follows: GDT, entry stack, five pages of TSS, then four times a guard page and a stack of two.
CPU_ENTRY_AREA_LAST_STACK = 1 + 1 + 5 + 4 * 3 - 1
SIZEOF_PCPU_ALLOC_INFO = 64
SIZEOF_PCPU_GROUP_INFO = 24

IO_TLB_DEFAULT_SIZE = 64 << 20
IO_TLB_SIZE = 2048
SIZEOF_IO_TLB_SLOT = 24
SIZEOF_IO_TLB_AREA = 16

DENTRY_SCALE = 13
INODE_SCALE = 14

__all__ = [
    "early_allocations",
    "pcpu_groups",
    "pcpu_units_per_alloc",
    "setup_log_buf",
]


def setup_log_buf(m: Machine, early: bool) -> None:
    """Make the log as large as ``log_buf_len=`` asks, or later as many CPUs need.

    :param early: the call before the CPUs are known
    """
    size = 0
    for word in m.boot_params.cmdline.split():
        name, _, value = word.partition("=")
        if name == "log_buf_len":
            size = memparse(value)[0]
    if bool(size) != early:
        return
    if not early:
        cpu_extra = (m.cpus - 1) * LOG_CPU_MAX_BUF_LEN
        size = cpu_extra + LOG_BUF_LEN if cpu_extra > LOG_BUF_LEN // 2 else 0
    size = roundup_pow_of_two(size) if size else 0
    if not LOG_BUF_LEN < size <= 1 << 31:
        return
    descs = size >> PRB_AVGBITS
    for bytes_, offset in (
        (size, "0xd4"),
        (descs * SIZEOF_PRB_DESC, "0x102"),
        (descs * SIZEOF_PRINTK_INFO, "0x131"),
    ):
        mb.memblock_alloc(m.memblock, bytes_, 8, f"setup_log_buf+{offset}/0x3a0")


def _alloc(m: Machine, size: int, caller: str, align: int = mb.SMP_CACHE_BYTES) -> int | None:
    return mb.memblock_alloc(m.memblock, size, align, caller)


def _resources(m: Machine) -> None:
    """The descriptions of devices and of the memory map."""
    _alloc(m, SIZEOF_RESOURCE + 9, "acpi_parse_hpet+0x95/0x150")
    _alloc(m, SIZEOF_RESOURCE + 11, "io_apic_init_mappings+0x45/0x1f0")
    entries = m.e820_table.entries
    _alloc(m, SIZEOF_RESOURCE * len(entries), "e820__reserve_resources+0x32/0x1f0")
    for _ in range(m.firmware_map_entries):
        _alloc(m, SIZEOF_FIRMWARE_MAP_ENTRY, "firmware_map_add_early+0x2f/0x60")


def e820__register_nosave_regions(m: Machine, limit_pfn: int) -> list[tuple[int, int]]:
    """Note the holes in RAM, which hibernation must not save.

    :return: (first pfn, end pfn) of each

    Mirrors arch/x86/kernel/e820.c:e820__register_nosave_regions().
    """
    regions: list[tuple[int, int]] = []

    def register(start_pfn: int, end_pfn: int) -> None:
        if start_pfn >= end_pfn:
            return
        if regions and regions[-1][1] == start_pfn:
            regions[-1] = (regions[-1][0], end_pfn)
        else:
            _alloc(m, SIZEOF_NOSAVE_REGION, "register_nosave_region+0x57/0xe0")
            regions.append((start_pfn, end_pfn))
        m.pr_info(
            f"PM: hibernation: Registered nosave memory: [mem {start_pfn << PAGE_SHIFT:#010x}-"
            f"{(end_pfn << PAGE_SHIFT) - 1:#010x}]"
        )

    last_addr = 0
    for entry in m.e820_table.entries:
        if entry.type not in (e820.E820_TYPE_RAM, e820.E820_TYPE_RESERVED_KERN):
            continue
        if last_addr < entry.addr:
            register(last_addr >> PAGE_SHIFT, mb.PFN_UP(entry.addr))
        last_addr = entry.end
    register(last_addr >> PAGE_SHIFT, limit_pfn)
    return regions


def pcpu_groups(m: Machine) -> list[list[int]]:
    """Return the CPUs in groups that are local to each other: a group's areas lie on one node."""
    left = list(range(m.cpus))
    groups: list[list[int]] = []
    while left:
        cpu = left.pop(0)
        group = [cpu]
        for tcpu in list(left):
            a, b = m.cpu_to_node[cpu], m.cpu_to_node[tcpu]
            if m.node_distance[a][b] == m.node_distance[b][a] == LOCAL_DISTANCE:
                group.append(tcpu)
                left.remove(tcpu)
        groups.append(group)
    return groups


def pcpu_units_per_alloc(m: Machine, groups: list[list[int]]) -> int:
    """Return how many CPUs' areas share one 2 MiB page: many, unless too many would be empty.

    Mirrors mm/percpu.c:pcpu_build_alloc_info().
    """

    def possible(upa: int) -> bool:
        return PMD_SIZE % upa == 0 and PMD_SIZE // upa % PAGE_SIZE == 0

    last_allocs, best_upa = 1 << 31, 1
    for upa in range(PMD_SIZE // PCPU_UNIT_SIZE, 0, -1):
        if not possible(upa):
            continue
        per_group = [DIV_ROUND_UP(len(group), upa) for group in groups]
        allocs = sum(per_group)
        wasted = allocs * upa - m.cpus
        if wasted > m.cpus // 3:
            continue
        if allocs > last_allocs:
            break
        last_allocs, best_upa = allocs, upa
    return best_upa


def _pcpu_areas(m: Machine, groups: list[list[int]], upa: int) -> None:
    """Allocate each group's areas on its node, then give back what no CPU uses.

    Mirrors mm/percpu.c:pcpu_embed_first_chunk().
    """
    memblock = m.memblock
    unit = PMD_SIZE // upa
    areas: list[int | None] = []
    for group in groups:
        size = DIV_ROUND_UP(len(group), upa) * upa * unit
        node = m.cpu_to_node[group[0]]
        caller = "pcpu_fc_alloc+0x79/0x160"
        if node in m.node_data:
            area = mb.memblock_alloc_try_nid(
                memblock, size, PMD_SIZE, MAX_DMA_ADDRESS, 0, node, caller
            )
        else:
            area = mb.memblock_alloc_from(memblock, size, PMD_SIZE, MAX_DMA_ADDRESS, caller)
        areas.append(area)
    for group, area in zip(groups, areas, strict=True):
        if area is None:
            continue
        for i in range(DIV_ROUND_UP(len(group), upa) * upa):
            start = area + i * unit
            if i >= len(group):
                mb.memblock_phys_free(memblock, start, unit, "pcpu_embed_first_chunk+0x351/0x7e0")
            else:
                used = PCPU_UNIT_SIZE
                mb.memblock_phys_free(
                    memblock, start + used, unit - used, "pcpu_embed_first_chunk+0x1f4/0x7e0"
                )


def pcpu_alloc_first_chunk(m: Machine, size: int) -> None:
    """Allocate what describes one part of the first chunk of per-CPU memory.

    Mirrors mm/percpu.c:pcpu_alloc_first_chunk().
    """
    bits = size // PCPU_MIN_ALLOC_SIZE
    longs = DIV_ROUND_UP(bits, 64) * 8
    blocks = size // PCPU_BITMAP_BLOCK_SIZE
    _alloc(m, SIZEOF_PCPU_CHUNK, "pcpu_alloc_first_chunk+0x7b/0x280")
    _alloc(m, longs, "pcpu_alloc_first_chunk+0xdb/0x280")
    _alloc(m, DIV_ROUND_UP(bits + 1, 64) * 8, "pcpu_alloc_first_chunk+0x10a/0x280")
    _alloc(m, blocks * SIZEOF_PCPU_BLOCK_MD, "pcpu_alloc_first_chunk+0x136/0x280")


def setup_per_cpu_areas(m: Machine) -> None:
    """Allocate the per-CPU areas and what describes them, then the CPU masks of the nodes.

    Mirrors arch/x86/kernel/setup_percpu.c:setup_per_cpu_areas().
    """
    memblock = m.memblock
    mask = DIV_ROUND_UP(m.cpus, 64) * 8
    groups = pcpu_groups(m)
    upa = pcpu_units_per_alloc(m, groups)
    pages = PCPU_UNIT_SIZE >> PAGE_SHIFT
    units = sum(DIV_ROUND_UP(len(group), upa) * upa for group in groups)
    m.sysinfo.pcpu_nr_pages = pages * units  # pcpu_nr_pages(): what /proc/meminfo calls Percpu
    info_size = SIZEOF_PCPU_ALLOC_INFO + SIZEOF_PCPU_GROUP_INFO * len(groups) + 4 * units
    info_size = info_size + PAGE_SIZE - 1 & -PAGE_SIZE
    areas_size = 8 * len(groups) + PAGE_SIZE - 1 & -PAGE_SIZE
    info = _alloc(m, info_size, "pcpu_build_alloc_info+0x2e8/0x610", PAGE_SIZE)
    areas = _alloc(m, areas_size, "pcpu_embed_first_chunk+0x76/0x7e0")
    _pcpu_areas(m, groups, upa)
    slots = (PMD_SIZE // upa).bit_length() - 5 + 2 + 4
    for size, offset in (
        (8 * len(groups), "0xc7"),
        (8 * len(groups), "0xf2"),
        (4 * m.cpus, "0x120"),
        (8 * m.cpus, "0x14f"),
        (16 * slots, "0x6b5"),
    ):
        _alloc(m, size, f"pcpu_setup_first_chunk+{offset}/0x860")
    pcpu_alloc_first_chunk(m, PCPU_RESERVED_SIZE)
    pcpu_alloc_first_chunk(m, PCPU_DYN_SIZE)
    mb.memblock_free(memblock, info, info_size, "pcpu_embed_first_chunk+0x280/0x7e0")
    mb.memblock_free(memblock, areas, areas_size, "pcpu_embed_first_chunk+0x301/0x7e0")
    for _ in range(1 + m.nr_node_ids):
        _alloc(m, mask, "alloc_bootmem_cpumask_var+0x2e/0x70")


def vfs_caches_init_early(m: Machine) -> None:
    """Allocate the dentry and inode hash tables, unless they are to be spread over nodes later.

    Mirrors fs/dcache.c:vfs_caches_init_early().
    """
    if m.mm_init.hashdist:
        return
    for name, scale in (("Dentry cache", DENTRY_SCALE), ("Inode-cache", INODE_SCALE)):
        mm_init.alloc_large_system_hash(m, name, 8, 0, scale, mm_init.HASH_EARLY)


def setup_cpu_entry_areas(m: Machine) -> None:
    """Allocate the page tables that map each CPU's entry stacks and descriptor tables.

    Mirrors arch/x86/mm/cpu_entry_area.c:setup_cpu_entry_areas().
    Simplified: where KASLR scatters the areas, each is taken to need a table of its own; now and
    then one lies across two.
    """
    area = SIZEOF_CPU_ENTRY_AREA >> PAGE_SHIFT
    last = area - 1 if m.config.cpu_intel else CPU_ENTRY_AREA_LAST_STACK
    # page 0 is the IDT's; each area is mapped from its first page, with no gap as long as a table
    mapped = {0} | {1 + cpu * area + page for cpu in range(m.cpus) for page in (0, last)}
    pte_tables = len({page >> 9 for page in mapped})
    if m.kernel_image.text != KernelImage().text:
        pte_tables = 1 + m.cpus
    pmd_tables = len({page >> 18 for page in mapped})
    for _ in range(1 + pmd_tables + pte_tables):
        _alloc(m, PAGE_SIZE, "spp_getpage+0x4e/0xa0", PAGE_SIZE)


def swiotlb_init(m: Machine) -> None:
    """Set bounce buffers aside for devices that cannot reach above 4 GiB, if RAM lies there.

    Mirrors kernel/dma/swiotlb.c:swiotlb_init_remap().
    """
    if m.max_pfn <= 1 << (32 - PAGE_SHIFT):
        return
    tlb = mb.memblock_alloc_low(
        m.memblock, IO_TLB_DEFAULT_SIZE, PAGE_SIZE, "swiotlb_init_remap+0xf2/0x300"
    )
    if tlb is None:
        return
    slots = (IO_TLB_DEFAULT_SIZE // IO_TLB_SIZE * SIZEOF_IO_TLB_SLOT + PAGE_SIZE - 1) & -PAGE_SIZE
    _alloc(m, slots, "swiotlb_init_remap+0x169/0x300", PAGE_SIZE)
    areas = roundup_pow_of_two(m.cpus)
    _alloc(m, SIZEOF_IO_TLB_AREA * areas, "swiotlb_init_remap+0x193/0x300")


def early_allocations(m: Machine) -> None:
    """Take what is taken between paging_init() and the zonelists, in the kernel's order."""
    _resources(m)
    e820__register_nosave_regions(m, m.max_pfn)
    for offset in ("0x125", "0x158"):
        _alloc(m, len(m.boot_params.cmdline) + 1, f"start_kernel+{offset}/0x8d0")
    setup_per_cpu_areas(m)
    setup_log_buf(m, early=False)
    vfs_caches_init_early(m)
    setup_cpu_entry_areas(m)
