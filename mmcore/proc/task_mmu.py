"""/proc/PID/pagemap, clear_refs, and the memory lines of /proc/PID/status.

Mirrors parts of fs/proc/task_mmu.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86 import tlb as tlb_
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import ParseError, UsageError
from mmcore.mm import huge_memory, memory, rmap, swapops
from mmcore.mm.mm import (
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SHMEMPAGES,
    MM_SWAPENTS,
    VM_EXEC,
    VM_MAYSHARE,
    VM_READ,
    VM_SOFTDIRTY,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    get_mm_counter,
    get_mm_rss,
    mmap_write_lock,
    mmap_write_unlock,
    vma_start_write,
)
from mmcore.mm.mm_types import page_folio, pfn_to_page
from mmcore.mm.vma import vma_lookup, vma_set_page_prot

if TYPE_CHECKING:
    from mmcore.mm.mm_types import Page

__all__ = [
    "PM_FILE",
    "PM_MMAP_EXCLUSIVE",
    "PM_PFRAME_BITS",
    "PM_PRESENT",
    "PM_SOFT_DIRTY",
    "PM_SWAP",
    "PM_UFFD_WP",
    "PagemapEntry",
    "clear_refs_soft_dirty",
    "pagemap_decode",
    "pagemap_read",
    "parse_status_memory",
    "pte_to_pagemap_entry",
    "render_status_memory",
    "status_memory",
]

PM_PFRAME_BITS = 55
PM_PFRAME_MASK = (1 << PM_PFRAME_BITS) - 1
PM_SOFT_DIRTY = 1 << 55
PM_MMAP_EXCLUSIVE = 1 << 56
PM_UFFD_WP = 1 << 57
PM_FILE = 1 << 61
PM_SWAP = 1 << 62
PM_PRESENT = 1 << 63


@dataclass(slots=True, frozen=True)
class PagemapEntry:
    """One 64-bit word of /proc/PID/pagemap taken apart.

    :ivar pfn: page frame; 0 also without CAP_SYS_ADMIN; None for a swap entry
    """

    value: int
    present: bool
    swapped: bool
    file: bool
    soft_dirty: bool
    exclusive: bool
    uffd_wp: bool
    pfn: int | None
    swp_type: int | None
    swp_offset: int | None

    def __str__(self) -> str:
        flags = "".join(
            f" {letter}"
            for letter, on in (
                ("P", self.present),
                ("S", self.swapped),
                ("F", self.file),
                ("D", self.soft_dirty),
                ("X", self.exclusive),
                ("W", self.uffd_wp),
            )
            if on
        )
        if self.swapped:
            return f"type={self.swp_type} offset={self.swp_offset:x}{flags}"
        return f"pfn={self.pfn:x}{flags}"


def pagemap_decode(value: int) -> PagemapEntry:
    """Take a pagemap word apart.

    :raises UsageError: if it is not a 64-bit number
    """
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise UsageError(f"a pagemap entry is a number of 0 to 2**64-1, not {value!r}")
    swapped = value & PM_SWAP != 0
    frame = value & PM_PFRAME_MASK
    return PagemapEntry(
        value,
        value & PM_PRESENT != 0,
        swapped,
        value & PM_FILE != 0,
        value & PM_SOFT_DIRTY != 0,
        value & PM_MMAP_EXCLUSIVE != 0,
        value & PM_UFFD_WP != 0,
        None if swapped else frame,
        frame & 31 if swapped else None,
        frame >> 5 if swapped else None,
    )


def _page_flags(page: Page | None, present: bool) -> int:
    if page is None:
        return 0
    flags = 0 if rmap.folio_test_anon(page_folio(page)) else PM_FILE
    if present and rmap.page_mapcount(page) == 1:
        flags |= PM_MMAP_EXCLUSIVE
    return flags


def pte_to_pagemap_entry(vma: VmAreaStruct, addr: int, pte: int, *, show_pfn: bool = True) -> int:
    """Return the pagemap word of one PTE.

    :param show_pfn: the reader has CAP_SYS_ADMIN

    Mirrors fs/proc/task_mmu.c:pte_to_pagemap_entry().
    """
    frame = flags = 0
    page: Page | None = None
    if pg.pte_present(pte):
        frame = pg.pte_pfn(pte)
        flags = PM_PRESENT
        page = memory.vm_normal_page(vma, addr, pte)
        if pg.pte_soft_dirty(pte):
            flags |= PM_SOFT_DIRTY
        if pg.pte_uffd_wp(pte):
            flags |= PM_UFFD_WP
    elif swapops.is_swap_pte(pte):
        entry = swapops.pte_to_swp_entry(pte)
        if pg.pte_swp_soft_dirty(pte):
            flags |= PM_SOFT_DIRTY
        if pg.pte_swp_uffd_wp(pte):
            flags |= PM_UFFD_WP
        kind = swapops.swp_type(entry)
        has_pfn = swapops.SWP_HWPOISON <= kind < swapops.SWP_PTE_MARKER
        offset = swapops.swp_offset_pfn(entry) if has_pfn else swapops.swp_offset(entry)
        frame = kind | offset << swapops.MAX_SWAPFILES_SHIFT
        flags |= PM_SWAP
        if has_pfn and vma.vm_mm.machine is not None:
            page = pfn_to_page(vma.vm_mm.machine, offset)
        if swapops.is_pte_marker_entry(entry):
            if swapops.pte_marker_get(entry) & swapops.PTE_MARKER_UFFD_WP:
                flags |= PM_UFFD_WP
    flags |= _page_flags(page, flags & PM_PRESENT != 0)
    if vma.vm_flags & VM_SOFTDIRTY:
        flags |= PM_SOFT_DIRTY
    return flags | (frame & PM_PFRAME_MASK if show_pfn else 0)


def pagemap_read(mm: MmStruct, address: int, *, show_pfn: bool = True) -> int:
    """Return the word of /proc/PID/pagemap for @address.

    :raises UsageError: if @address is not a user address

    Mirrors fs/proc/task_mmu.c:pagemap_pmd_range().
    """
    if not isinstance(address, int) or not 0 <= address < mm.task_size:
        raise UsageError(f"address {address!r} is not in user space")
    address &= -PAGE_SIZE
    vma = vma_lookup(mm, address)
    if vma is None:
        return 0
    ptep, level = pg.lookup_address(mm, address)
    soft = PM_SOFT_DIRTY if vma.vm_flags & VM_SOFTDIRTY else 0
    if ptep is None:
        return soft
    entry = ptep[0][ptep[1]]
    if level == 1:
        return pte_to_pagemap_entry(vma, address, entry, show_pfn=show_pfn)
    pfn = pg.pmd_pfn(entry) + (address >> PAGE_SHIFT & 511)
    assert mm.machine is not None
    flags = PM_PRESENT | soft | (PM_SOFT_DIRTY if pg.pte_soft_dirty(entry) else 0)
    if huge_memory.is_huge_zero_pmd(mm.machine, entry):
        flags |= PM_FILE
    else:
        flags |= _page_flags(pfn_to_page(mm.machine, pfn), True)
    return flags | (pfn & PM_PFRAME_MASK if show_pfn else 0)


def clear_refs_soft_dirty(mm: MmStruct) -> None:
    """Forget which pages were written: ``echo 4 > /proc/PID/clear_refs``.

    Mirrors fs/proc/task_mmu.c:clear_soft_dirty().
    """
    mmap_write_lock(mm)
    for vma in mm.mm_mt:
        if vma.vm_flags & VM_SOFTDIRTY:
            vma_start_write(vma)
            vma.vm_flags &= ~VM_SOFTDIRTY
            vma_set_page_prot(vma)
    for address, level, entry in list(pg.iter_leaves(mm, 0, mm.task_size)):
        ptep, _ = pg.lookup_address(mm, address)
        if ptep is None or level > 2:
            continue
        if pg.pte_present(entry):
            ptep[0][ptep[1]] = pg.pte_clear_soft_dirty(pg.pte_wrprotect(entry))
        elif swapops.is_swap_pte(entry):
            ptep[0][ptep[1]] = pg.pte_swp_clear_soft_dirty(entry)
    tlb_.flush_tlb_mm(mm)
    mmap_write_unlock(mm)


def vma_name(vma: VmAreaStruct) -> str:
    """Return what stands for a path behind a mapping without one: [heap], [stack], [vdso] or "".

    Mirrors fs/proc/task_mmu.c:get_vma_name().
    """
    mm = vma.vm_mm
    if vma.vm_ops is not None and vma.vm_ops.vma_name is not None:
        name = vma.vm_ops.vma_name(vma)
        if name:
            return name
    if vma.vm_start < mm.brk and vma.vm_end > mm.start_brk:
        return "[heap]"
    if vma.vm_start <= mm.start_stack <= vma.vm_end:
        return "[stack]"
    return f"[anon:{vma.anon_name}]" if vma.anon_name is not None else ""


def map_fields(vma: VmAreaStruct) -> tuple[int, int, str, int]:
    """Return (start, end, permissions, file offset in bytes) as maps shows them.

    Mirrors fs/proc/task_mmu.c:show_vma_header_prefix().
    """
    f = vma.vm_flags
    perms = ("r" if f & VM_READ else "-") + ("w" if f & VM_WRITE else "-")
    perms += ("x" if f & VM_EXEC else "-") + ("s" if f & VM_MAYSHARE else "p")
    return vma.vm_start, vma.vm_end, perms, vma.vm_pgoff << PAGE_SHIFT if vma.vm_file else 0


def status_memory(mm: MmStruct) -> dict[str, int]:
    """Return the memory lines of /proc/PID/status that paging decides, in kB.

    Mirrors fs/proc/task_mmu.c:task_mem().
    """
    kb = PAGE_SIZE >> 10
    return {
        "VmRSS": get_mm_rss(mm) * kb,
        "RssAnon": get_mm_counter(mm, MM_ANONPAGES) * kb,
        "RssFile": get_mm_counter(mm, MM_FILEPAGES) * kb,
        "RssShmem": get_mm_counter(mm, MM_SHMEMPAGES) * kb,
        "VmPTE": mm.pgtables_bytes >> 10,
        "VmSwap": get_mm_counter(mm, MM_SWAPENTS) * kb,
    }


def render_status_memory(mm: MmStruct) -> str:
    """Return those lines as /proc/PID/status prints them."""
    return "".join(f"{name}:\t{value:8d} kB\n" for name, value in status_memory(mm).items())


_STATUS_LINE = re.compile(r"(\w+):[ \t]+(\d{1,19}) kB")


def parse_status_memory(text: str) -> dict[str, int]:
    """Read the ``kB`` lines of a /proc/PID/status text, in kB.

    :raises ParseError: if there is none, or a line that should be one is not
    """
    values: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith(("Vm", "Rss", "HugetlbPages")):
            continue
        match = _STATUS_LINE.fullmatch(line.rstrip())
        if match is None:
            raise ParseError("/proc/PID/status", number, line, "not a size in kB")
        values[match[1]] = int(match[2])
    if not values:
        raise ParseError("/proc/PID/status", 1, text.partition("\n")[0], "no memory lines")
    return values
