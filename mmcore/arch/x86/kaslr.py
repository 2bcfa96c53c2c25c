"""The kernel's virtual address space: its regions, and how KASLR moves them.

Mirrors arch/x86/mm/kaslr.c, find_random_virt_addr() of arch/x86/boot/compressed/kaslr.c, the
constants of arch/x86/include/asm/pgtable_64_types.h and page_64_types.h, and the table in
Documentation/arch/x86/x86_64/mm.rst.

Simplified: random numbers come from a stream of the machine; the kernel seeds a generator of its own
from the hardware, so no run of it can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcore.arch.x86.pgtable import virtual_mask_shift
from mmcore.cint import DIV_ROUND_UP, ULONG_MAX
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import UsageError

if TYPE_CHECKING:
    from random import Random

    from mmcore.machine import Machine

__all__ = [
    "CPU_ENTRY_AREA_BASE",
    "KERNEL_IMAGE_SIZE",
    "MODULES_END",
    "KernelLayout",
    "Region",
    "find_random_virt_addr",
    "kernel_layout",
    "kernel_randomize_memory",
    "memory_layout",
    "pa",
    "va",
]

TB_SHIFT = 40
PUD_SIZE = 1 << 30
__PAGE_OFFSET_BASE_L4 = 0xFFFF888000000000
__PAGE_OFFSET_BASE_L5 = 0xFF11000000000000
__VMALLOC_BASE_L4 = 0xFFFFC90000000000
__VMALLOC_BASE_L5 = 0xFFA0000000000000
__VMEMMAP_BASE_L4 = 0xFFFFEA0000000000
__VMEMMAP_BASE_L5 = 0xFFD4000000000000
VMALLOC_SIZE_TB_L4 = 32
VMALLOC_SIZE_TB_L5 = 12800
__START_KERNEL_map = 0xFFFFFFFF80000000
KERNEL_IMAGE_SIZE = 1 << 30  # with CONFIG_RANDOMIZE_BASE, also under nokaslr; 512 MiB without
MODULES_END = 0xFFFFFFFFFF000000
CPU_ENTRY_AREA_BASE = 0xFFFFFE0000000000
ESPFIX_BASE_ADDR = 0xFFFFFF0000000000
EFI_VA_END = 0xFFFFFFEF00000000  # the lower end: the region grows down from EFI_VA_START
EFI_VA_START = 0xFFFFFFFF00000000
FIXADDR_TOP = 0xFFFFFFFFFF5FF000
VSYSCALL_ADDR = 0xFFFFFFFFFF600000
STRUCT_PAGE_SIZE = 64
PHYSICAL_ALIGN = 0x200000
LOAD_PHYSICAL_ADDR = 0x1000000


@dataclass(slots=True)
class KernelLayout:
    """Where the kernel's movable regions begin.

    :ivar phys_base: how far the kernel image was moved in physical memory
    :ivar text: virtual address of ``_text``
    :ivar physmem_end: last physical address that the direct map can hold
    """

    levels: int
    page_offset_base: int
    vmalloc_base: int
    vmemmap_base: int
    physmem_end: int
    text: int = 0xFFFFFFFF81000000
    phys_base: int = 0
    kaslr: bool = False


@dataclass(slots=True, frozen=True)
class Region:
    """One region of the virtual address space: first and last address, and the kernel's name."""

    name: str
    start: int
    end: int
    symbol: str = ""

    @property
    def size(self) -> int:
        """Bytes in the region."""
        return self.end - self.start + 1


def max_physmem_bits(levels: int) -> int:
    """Return how many bits of physical address the memory map covers: 46, or 52 with LA57.

    Mirrors arch/x86/include/asm/sparsemem.h:MAX_PHYSMEM_BITS().
    """
    return 52 if levels == 5 else 46


def _check_levels(levels: int) -> None:
    if levels not in (4, 5):
        raise UsageError(f"levels is {levels!r}; page tables have 4 or 5")


def kernel_layout(levels: int = 4) -> KernelLayout:
    """Return the layout without KASLR.

    :raises UsageError: if @levels is not 4 or 5
    """
    _check_levels(levels)
    end = (1 << max_physmem_bits(levels)) - 1
    if levels == 5:
        return KernelLayout(5, __PAGE_OFFSET_BASE_L5, __VMALLOC_BASE_L5, __VMEMMAP_BASE_L5, end)
    return KernelLayout(4, __PAGE_OFFSET_BASE_L4, __VMALLOC_BASE_L4, __VMEMMAP_BASE_L4, end)


def kernel_randomize_memory(
    rng: Random,
    levels: int = 4,
    max_pfn: int = 0,
    *,
    zone_device: bool = True,
    padding_tb: int = 10,
) -> KernelLayout:
    """Move the direct map, vmalloc space and vmemmap, in steps of 1 GiB; their order stays.

    :param rng: where chance comes from, e.g. ``machine.rng("aslr")``
    :param max_pfn: the machine's memory; matters only without @zone_device
    :param zone_device: CONFIG_ZONE_DEVICE: the direct map must be able to hold any address
    :param padding_tb: CONFIG_RANDOMIZE_MEMORY_PHYSICAL_PADDING, for memory that is added later

    Mirrors arch/x86/mm/kaslr.c:kernel_randomize_memory().
    """
    layout = kernel_layout(levels)
    layout.kaslr = True
    bits = max_physmem_bits(levels)
    size_tb = [
        1 << (bits - TB_SHIFT),
        VMALLOC_SIZE_TB_L5 if levels == 5 else VMALLOC_SIZE_TB_L4,
        0,
    ]
    memory_tb = DIV_ROUND_UP(max_pfn << PAGE_SHIFT, 1 << TB_SHIFT) + padding_tb
    if not zone_device and memory_tb < size_tb[0]:
        size_tb[0] = memory_tb
    vmemmap_size = (size_tb[0] << (TB_SHIFT - PAGE_SHIFT)) * STRUCT_PAGE_SIZE
    size_tb[2] = DIV_ROUND_UP(vmemmap_size, 1 << TB_SHIFT)
    vaddr = layout.page_offset_base
    remain_entropy = CPU_ENTRY_AREA_BASE - vaddr - (sum(size_tb) << TB_SHIFT)
    bases = []
    for i in range(3):
        entropy = remain_entropy // (3 - i)
        entropy = rng.getrandbits(64) % (entropy + 1) & -PUD_SIZE
        vaddr += entropy
        bases.append(vaddr)
        vaddr += size_tb[i] << TB_SHIFT
        if i == 0:
            layout.physmem_end = vaddr - 1 - bases[0]
        vaddr = (vaddr + PUD_SIZE) & -PUD_SIZE
        remain_entropy -= entropy
    layout.page_offset_base, layout.vmalloc_base, layout.vmemmap_base = bases
    return layout


def find_random_virt_addr(rng: Random, image_size: int) -> int:
    """Choose where the kernel image goes: its offset from __START_KERNEL_map, in steps of 2 MiB.

    :raises UsageError: if the image does not fit

    Mirrors arch/x86/boot/compressed/kaslr.c:find_random_virt_addr().
    """
    if not 0 < image_size <= KERNEL_IMAGE_SIZE - LOAD_PHYSICAL_ADDR:
        raise UsageError(f"an image of {image_size:#x} bytes does not fit into 1 GiB less 16 MiB")
    slots = 1 + (KERNEL_IMAGE_SIZE - LOAD_PHYSICAL_ADDR - image_size) // PHYSICAL_ALIGN
    return rng.getrandbits(64) % slots * PHYSICAL_ALIGN + LOAD_PHYSICAL_ADDR


def memory_layout(levels: int = 4, layout: KernelLayout | None = None) -> list[Region]:
    """Return the regions of the whole address space in ascending order, holes left out.

    :param layout: where KASLR put things; None: nowhere
    :raises UsageError: if @levels is not 4 or 5, or not the layout's
    """
    _check_levels(levels)
    if layout is None:
        layout = kernel_layout(levels)
    if layout.levels != levels:
        raise UsageError(f"a layout of {layout.levels} levels was given for {levels}")
    shift = 39 if levels == 4 else 48
    guard = -256 << shift & ULONG_MAX
    ldt = -240 << shift & ULONG_MAX
    user_end = (1 << virtual_mask_shift(levels)) - 1
    bits = max_physmem_bits(levels)
    vmalloc_tb = VMALLOC_SIZE_TB_L5 if levels == 5 else VMALLOC_SIZE_TB_L4
    # mm.rst gives the direct map 32 PiB with five levels, of which MAX_PHYSMEM_BITS use 4.
    direct_end = layout.page_offset_base + layout.physmem_end
    if not layout.kaslr and levels == 5:
        direct_end = layout.page_offset_base + (1 << 55) - 1
    vmemmap_size = (1 << (bits - PAGE_SHIFT)) * STRUCT_PAGE_SIZE
    regions = [
        Region("user space", 0, user_end, "TASK_SIZE_MAX"),
        Region("guard hole, for hypervisors", guard, guard + (16 << shift) - 1, "GUARD_HOLE"),
        Region("LDT remap for PTI", ldt, ldt + (1 << shift) - 1, "LDT_BASE_ADDR"),
        Region("direct map", layout.page_offset_base, direct_end, "page_offset_base"),
        Region(
            "vmalloc",
            layout.vmalloc_base,
            layout.vmalloc_base + (vmalloc_tb << 40) - 1,
            "vmalloc_base",
        ),
        Region(
            "memory map (struct page)",
            layout.vmemmap_base,
            layout.vmemmap_base + vmemmap_size - 1,
            "vmemmap_base",
        ),
    ]
    if not layout.kaslr:
        kasan = 0xFFDF000000000000 if levels == 5 else 0xFFFFEC0000000000
        regions.append(Region("KASAN shadow", kasan, 0xFFFFFBFFFFFFFFFF, "KASAN_SHADOW_START"))
    modules = __START_KERNEL_map + KERNEL_IMAGE_SIZE
    regions += [
        Region("cpu_entry_area", CPU_ENTRY_AREA_BASE, 0xFFFFFE7FFFFFFFFF, "CPU_ENTRY_AREA_BASE"),
        Region("espfix stacks", ESPFIX_BASE_ADDR, 0xFFFFFF7FFFFFFFFF, "ESPFIX_BASE_ADDR"),
        Region("EFI runtime services", EFI_VA_END, EFI_VA_START - 1, "EFI_VA_START"),
        Region("kernel image", __START_KERNEL_map, modules - 1, "_text"),
        Region("modules", modules, MODULES_END - 1, "MODULES_VADDR"),
        Region("fixmap", MODULES_END, VSYSCALL_ADDR - 1, "FIXADDR_START"),
        Region("vsyscall", VSYSCALL_ADDR, VSYSCALL_ADDR + PAGE_SIZE - 1, "VSYSCALL_ADDR"),
    ]
    return regions


def _layout_of(m: Machine) -> KernelLayout:
    layout: KernelLayout | None = m.paging.layout
    if layout is None:
        layout = m.paging.layout = kernel_layout(4)
    return layout


def pa(m: Machine, x: int) -> int:
    """Return the physical address of a direct map or kernel image address (``__pa()``).

    :raises UsageError: if @x is neither

    Mirrors arch/x86/include/asm/page_64.h:__phys_addr_nodebug().
    """
    layout = _layout_of(m)
    if x > __START_KERNEL_map:
        if x >= __START_KERNEL_map + KERNEL_IMAGE_SIZE:
            raise UsageError(f"{x:#x} is not in the kernel image: __pa() would be wrong")
        return x - __START_KERNEL_map + layout.phys_base
    phys = x - layout.page_offset_base
    if not 0 <= phys <= layout.physmem_end:
        raise UsageError(f"{x:#x} is not in the direct map: __pa() would be wrong")
    return phys


def va(m: Machine, x: int) -> int:
    """Return the direct map address of physical address @x (``__va()``).

    :raises UsageError: if the direct map does not reach it

    Mirrors arch/x86/include/asm/page.h:__va().
    """
    layout = _layout_of(m)
    if not 0 <= x <= layout.physmem_end:
        raise UsageError(f"physical address {x:#x} is beyond the direct map")
    return layout.page_offset_base + x
