"""The boot of an x86 machine, as far as memory goes: from the firmware's map to sized zones.

Mirrors arch/x86/kernel/setup.c.

Simplified: no EFI, MTRRs, crash kernel, memory encryption; the many small things that boot code
takes from memblock are those of the reference kernel on a PC as QEMU builds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.arch.x86 import e820, early_users, init, numa
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import KernelBug
from mmcore.mm import memblock as mb
from mmcore.mm import mm_init, sparse
from mmcore.mm.mmzone import MAX_NR_ZONES, ZONE_DMA, ZONE_DMA32, ZONE_NORMAL

if TYPE_CHECKING:
    from mmcore.machine import Machine

SZ_64K = 64 << 10
SZ_1M = 1 << 20
ISA_END_ADDRESS = SZ_1M
MAX_DMA_PFN = 16 << 20 >> PAGE_SHIFT
MAX_DMA32_PFN = 1 << (32 - PAGE_SHIFT)
REAL_MODE_SIZE = 28672

__all__ = [
    "ISA_END_ADDRESS",
    "MAX_DMA32_PFN",
    "MAX_DMA_PFN",
    "early_reserve_memory",
    "parse_early_param",
    "reserve_initrd",
    "setup_arch",
    "zone_sizes_init",
]


def early_reserve_memory(m: Machine) -> None:
    """Reserve what must not be overwritten, before memblock knows of any memory.

    Mirrors arch/x86/kernel/setup.c:early_reserve_memory().
    """
    image, params = m.kernel_image, m.boot_params
    memblock = m.memblock
    mb.memblock_reserve(memblock, image.text, image.end_of_kernel_reserve - image.text)
    mb.memblock_reserve(memblock, 0, SZ_64K)
    if params.initrd is not None:
        start, end = params.initrd
        mb.memblock_reserve(memblock, start, ((end + PAGE_SIZE - 1) & -PAGE_SIZE) - start)
    mb.memblock_reserve(memblock, params.bios_start, SZ_1M - params.bios_start)
    for start, size in params.reserved:
        mb.memblock_reserve(memblock, start, size)


def parse_early_param(m: Machine) -> None:
    """Apply the boot options that act before memory is set up, in the order they stand in.

    Mirrors init/main.c:parse_early_param().
    Simplified: those about memory only; ``page_alloc.shuffle``, a module parameter that the kernel
    reads a little later, is among them.
    """
    s = m.mm_init
    for word in m.boot_params.cmdline.split():
        name, _, value = word.partition("=")
        if name == "mem":
            e820.parse_memopt(m.e820_table, value)
        elif name == "memmap":
            e820.parse_memmap_opt(m.e820_table, value)
        elif name == "memblock" and "debug" in value:
            m.memblock.debug = True
        elif name == "movable_node":
            m.memblock.movable_node_enabled = True
        elif name == "numa" and value.startswith("off"):
            m.numa_off = True
        elif name == "page_alloc.shuffle":
            m.page_alloc_shuffle_key |= value[:1] in (*"1yYtTeE", "") or value[:2].lower() == "on"
        elif name == "kernelcore" and value == "mirror":
            m.memblock.mirrored_kernelcore = True
        elif name == "kernelcore":
            s.required_kernelcore, s.required_kernelcore_percent = mm_init.cmdline_parse_core(value)
        elif name == "movablecore":
            s.required_movablecore, s.required_movablecore_percent = mm_init.cmdline_parse_core(
                value
            )


def e820_add_kernel_range(m: Machine) -> None:
    """Make sure that the kernel's own memory counts as RAM.

    Mirrors arch/x86/kernel/setup.c:e820_add_kernel_range().
    """
    table, start = m.e820_table, m.kernel_image.text
    size = m.kernel_image.end_of_kernel_reserve - start
    if e820.e820__mapped_all(table, start, start + size, e820.E820_TYPE_RAM):
        return
    m.pr_info(".text .data .bss are not marked as E820_TYPE_RAM!")
    e820.e820__range_remove(table, start, size, e820.E820_TYPE_RAM, False)
    e820.e820__range_add(table, start, size, e820.E820_TYPE_RAM)


def zone_sizes_init(m: Machine) -> None:
    """Say where each zone ends: DMA at 16 MiB, DMA32 at 4 GiB, Normal at the end of RAM.

    Mirrors arch/x86/mm/init.c:zone_sizes_init().
    """
    max_zone_pfns = [0] * MAX_NR_ZONES
    max_zone_pfns[ZONE_DMA] = min(MAX_DMA_PFN, m.max_low_pfn)
    max_zone_pfns[ZONE_DMA32] = min(MAX_DMA32_PFN, m.max_low_pfn)
    max_zone_pfns[ZONE_NORMAL] = m.max_low_pfn
    mm_init.free_area_init(m, max_zone_pfns)


def _find_end_of_ram(m: Machine) -> None:
    m.max_pfn = m.max_low_pfn = e820.e820__end_of_ram_pfn(m.e820_table, m.max_arch_pfn)
    if m.max_pfn > MAX_DMA32_PFN:
        m.max_low_pfn = e820.e820__end_of_low_ram_pfn(m.e820_table, m.max_arch_pfn)


def _reserve_low_megabyte(m: Machine) -> None:
    """Place the real-mode trampoline, then reserve all of the first MiB.

    Mirrors arch/x86/realmode/init.c:reserve_real_mode().
    """
    mb.memblock_phys_alloc_range(
        m.memblock, REAL_MODE_SIZE, PAGE_SIZE, 0, SZ_1M, "reserve_real_mode+0x57/0x90"
    )
    mb.memblock_reserve(m.memblock, 0, SZ_1M, "setup_arch+0x887/0xe60")


def acpi_reserve_initial_tables(m: Machine) -> None:
    """Reserve the firmware's tables, as the ACPI code does. They need not lie in RAM."""
    caller = "acpi_reserve_initial_tables+0x4a/0x70"
    for name, start, size in m.boot_params.acpi_tables:
        m.pr_info(f"ACPI: Reserving {name} table memory at [mem {start:#x}-{start + size - 1:#x}]")
        mb.memblock_reserve(m.memblock, start, size, caller)


def reserve_initrd(m: Machine) -> None:
    """Find the initial RAM disk; move it into mapped memory if mem= has cut it off.

    Mirrors arch/x86/kernel/setup.c:reserve_initrd().
    """
    if m.boot_params.initrd is None:
        return
    start, last = m.boot_params.initrd[0], m.boot_params.initrd[1] - 1
    size = last + 1 - start
    end = last + PAGE_SIZE & -PAGE_SIZE
    m.pr_info(f"RAMDISK: [mem {start:#010x}-{end - 1:#010x}]")
    if init.pfn_range_is_mapped(m, start >> PAGE_SHIFT, end >> PAGE_SHIFT):
        return
    limit = m.max_pfn_mapped << PAGE_SHIFT
    caller = "setup_arch+0xcfe/0xe60"
    new = mb.memblock_phys_alloc_range(m.memblock, end - start, PAGE_SIZE, 0, limit, caller)
    if not new:
        raise KernelBug(f"Kernel panic: Cannot find place for new RAMDISK of size {size}")
    m.pr_info(f"Allocated new RAMDISK: [mem {new:#010x}-{new + size - 1:#010x}]")
    m.pr_info(
        f"Move RAMDISK from [mem {start:#010x}-{last:#010x}] to "
        f"[mem {new:#010x}-{new + size - 1:#010x}]"
    )
    m.boot_params.initrd = (new, new + size)
    mb.memblock_phys_free(m.memblock, start, end - start, "setup_arch+0xd76/0xe60")


def setup_arch(m: Machine) -> None:
    """Bring memory up: map, memblock, direct mapping, nodes, sections, zones.

    Mirrors arch/x86/kernel/setup.c:setup_arch().
    """
    table, memblock = m.e820_table, m.memblock
    if m.boot_params.cmdline:
        m.pr_info(f"Command line: {m.boot_params.cmdline}")
    early_reserve_memory(m)
    e820.e820__memory_setup(table)
    m.firmware_map_entries = len(table.entries)
    parse_early_param(m)
    if memblock.movable_node_enabled:
        mb.memblock_set_bottom_up(memblock, True)
    e820.e820__finish_early_params(table)
    e820_add_kernel_range(m)
    e820.trim_bios_range(table)
    _find_end_of_ram(m)
    image = m.kernel_image
    mb.memblock_reserve(memblock, image.end_of_kernel_reserve, image.brk, "setup_arch+0xc74/0xe60")
    mb.memblock_set_current_limit(memblock, ISA_END_ADDRESS)
    e820.e820__memblock_setup(memblock, table)
    _reserve_low_megabyte(m)
    init.init_mem_mapping(m)
    mb.memblock_set_current_limit(memblock, m.max_pfn_mapped << PAGE_SHIFT)
    early_users.setup_log_buf(m, early=True)
    reserve_initrd(m)
    acpi_reserve_initial_tables(m)
    numa.x86_numa_init(m)
    sparse.sparse_init(m)
    zone_sizes_init(m)
    numa.init_cpu_to_node(m)
