"""/proc/PID/maps, smaps, smaps_rollup, pagemap, clear_refs, statm, and status's memory lines; both ways.

Mirrors parts of fs/proc/task_mmu.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
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
    VM_LOCKED,
    VM_MAYSHARE,
    VM_PKEY_SHIFT,
    VM_READ,
    VM_SOFTDIRTY,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    get_mm_counter,
    get_mm_rss,
    mmap_write_lock,
    mmap_write_unlock,
    vm_flags_str,
    vma_start_write,
)
from mmcore.mm.mm_types import folio_nr_pages, page_folio, pfn_to_page
from mmcore.mm.page_flags import PG_dirty, PG_referenced, PG_swapbacked
from mmcore.mm.vma import vma_lookup, vma_set_page_prot

if TYPE_CHECKING:
    from mmcore.mm.mm_types import Folio, Page

__all__ = [
    "MapsEntry",
    "MemSizeStats",
    "PM_FILE",
    "PM_MMAP_EXCLUSIVE",
    "PM_PFRAME_BITS",
    "PM_PRESENT",
    "PM_SOFT_DIRTY",
    "PM_SWAP",
    "PM_UFFD_WP",
    "PagemapEntry",
    "clear_refs_soft_dirty",
    "map_fields",
    "pagemap_decode",
    "pagemap_read",
    "parse_maps",
    "parse_smaps",
    "parse_statm",
    "parse_status_memory",
    "pte_to_pagemap_entry",
    "render_maps",
    "render_smaps",
    "render_smaps_rollup",
    "render_statm",
    "render_status_memory",
    "smap_gather_stats",
    "status_memory",
    "task_statm",
    "vma_name",
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


def _sizes(text: Iterable[tuple[str, int]]) -> str:
    return "".join(f"{name + ':':<16}{value:8d} kB\n" for name, value in text)


def show_map_vma(vma: VmAreaStruct) -> str:
    """Return one line of /proc/PID/maps.

    Mirrors fs/proc/task_mmu.c:show_map_vma().
    """
    start, end, perms, offset = map_fields(vma)
    major = minor = ino = 0
    name = ""
    if vma.vm_file is not None:
        mapping = vma.vm_file.f_mapping
        major, minor = mapping.s_dev
        ino = mapping.i_ino
        name = (vma.vm_file.f_path or f"/{mapping.name}").replace("\n", "\\012")
    else:
        name = vma_name(vma)
    line = f"{start:08x}-{end:08x} {perms} {offset:08x} {major:02x}:{minor:02x} {ino} "
    return f"{line:<73}{name}\n" if name else f"{line}\n"


def render_maps(mm: MmStruct) -> str:
    """Return /proc/PID/maps.

    Mirrors fs/proc/task_mmu.c:show_map().
    """
    return "".join(show_map_vma(vma) for vma in mm.mm_mt)


@dataclass(slots=True)
class MemSizeStats:
    """``struct mem_size_stats``: what smaps adds up, in bytes; the pss values shifted by PSS_SHIFT.

    Mirrors fs/proc/task_mmu.c:mem_size_stats.
    """

    resident: int = 0
    shared_clean: int = 0
    shared_dirty: int = 0
    private_clean: int = 0
    private_dirty: int = 0
    referenced: int = 0
    anonymous: int = 0
    lazyfree: int = 0
    anonymous_thp: int = 0
    shmem_thp: int = 0
    file_thp: int = 0
    swap: int = 0
    pss: int = 0
    pss_anon: int = 0
    pss_file: int = 0
    pss_shmem: int = 0
    pss_dirty: int = 0
    pss_locked: int = 0
    swap_pss: int = 0


PSS_SHIFT = 12


def smaps_page_accumulate(
    mss: MemSizeStats,
    folio: Folio,
    size: int,
    pss: int,
    dirty: bool,
    locked: bool,
    private: bool,
) -> None:
    """Add @size bytes of @folio, of which this process pays @pss.

    Mirrors fs/proc/task_mmu.c:smaps_page_accumulate().
    """
    mss.pss += pss
    if rmap.folio_test_anon(folio):
        mss.pss_anon += pss
    elif folio.flags >> PG_swapbacked & 1:
        mss.pss_shmem += pss
    else:
        mss.pss_file += pss
    if locked:
        mss.pss_locked += pss
    dirty = dirty or folio.flags >> PG_dirty & 1 == 1
    if dirty:
        mss.pss_dirty += pss
    name = ("private_" if private else "shared_") + ("dirty" if dirty else "clean")
    setattr(mss, name, getattr(mss, name) + size)


def smaps_account(
    mss: MemSizeStats, page: Page, compound: bool, young: bool, dirty: bool, locked: bool
) -> None:
    """Add one present entry.

    Simplified: no KSM pages; the page's own young flag belongs to idle page tracking.

    Mirrors fs/proc/task_mmu.c:smaps_account().
    """
    folio = page_folio(page)
    nr = folio_nr_pages(folio) if compound else 1
    size = nr << PAGE_SHIFT
    if rmap.folio_test_anon(folio):
        mss.anonymous += size
        if not (folio.flags >> PG_swapbacked & 1 or dirty or folio.flags >> PG_dirty & 1):
            mss.lazyfree += size
    mss.resident += size
    if young or folio.flags >> PG_referenced & 1:
        mss.referenced += size
    if folio._refcount == 1:
        smaps_page_accumulate(mss, folio, size, size << PSS_SHIFT, dirty, locked, True)
        return
    for i in range(nr):
        each = pfn_to_page(page.zone.machine, page.pfn + i) if nr > 1 else page
        mapcount = rmap.page_mapcount(each)
        pss = PAGE_SIZE << PSS_SHIFT
        if mapcount >= 2:
            pss //= mapcount
        smaps_page_accumulate(mss, folio, PAGE_SIZE, pss, dirty, locked, mapcount < 2)


def smap_gather_stats(vma: VmAreaStruct, mss: MemSizeStats) -> None:
    """Add what @vma maps.

    Simplified: a swap entry is this process's alone; pages of shared memory in swap are not seen.

    Mirrors fs/proc/task_mmu.c:smap_gather_stats().
    """
    m = vma.vm_mm.machine
    if m is None:
        return
    locked = vma.vm_flags & VM_LOCKED != 0
    for address, level, entry in pg.iter_leaves(vma.vm_mm, vma.vm_start, vma.vm_end):
        young, dirty = pg.pte_young(entry), pg.pte_dirty(entry)
        if level == 2:
            if huge_memory.is_huge_zero_pmd(m, entry):
                continue
            page: Page | None = pfn_to_page(m, pg.pmd_pfn(entry))
            if page is not None and rmap.folio_test_anon(page_folio(page)):
                mss.anonymous_thp += huge_memory.PMD_SIZE
            smaps_account(mss, page_folio(page), True, young, dirty, locked)  # type: ignore[arg-type]
            continue
        if pg.pte_present(entry):
            page = memory.vm_normal_page(vma, address, entry)
            if page is not None:
                smaps_account(mss, page, False, young, dirty, locked)
        elif swapops.is_swap_pte(entry):
            if not swapops.non_swap_entry(swapops.pte_to_swp_entry(entry)):
                mss.swap += PAGE_SIZE
                mss.swap_pss += PAGE_SIZE << PSS_SHIFT


def show_smap_sizes(mss: MemSizeStats, rollup: bool) -> str:
    """Return the lines from Rss to Locked.

    Mirrors fs/proc/task_mmu.c:__show_smap().
    """
    kb = {name: getattr(mss, name) >> 10 for name in MemSizeStats.__dataclass_fields__}
    for name in list(kb):
        if name.startswith("pss") or name == "swap_pss":
            kb[name] >>= PSS_SHIFT
    lines = [("Rss", kb["resident"]), ("Pss", kb["pss"]), ("Pss_Dirty", kb["pss_dirty"])]
    if rollup:
        lines += [(f"Pss_{n}", kb[f"pss_{n.lower()}"]) for n in ("Anon", "File", "Shmem")]
    lines += [
        ("Shared_Clean", kb["shared_clean"]),
        ("Shared_Dirty", kb["shared_dirty"]),
        ("Private_Clean", kb["private_clean"]),
        ("Private_Dirty", kb["private_dirty"]),
        ("Referenced", kb["referenced"]),
        ("Anonymous", kb["anonymous"]),
        ("KSM", 0),
        ("LazyFree", kb["lazyfree"]),
        ("AnonHugePages", kb["anonymous_thp"]),
        ("ShmemPmdMapped", kb["shmem_thp"]),
        ("FilePmdMapped", kb["file_thp"]),
        ("Shared_Hugetlb", 0),
    ]
    tail = [("Swap", kb["swap"]), ("SwapPss", kb["swap_pss"]), ("Locked", kb["pss_locked"])]
    return f"{_sizes(lines)}Private_Hugetlb: {0:7d} kB\n{_sizes(tail)}"


def show_smap(vma: VmAreaStruct) -> str:
    """Return one mapping's part of /proc/PID/smaps.

    Mirrors fs/proc/task_mmu.c:show_smap().
    """
    mss = MemSizeStats()
    smap_gather_stats(vma, mss)
    sizes = _sizes(
        (
            ("Size", (vma.vm_end - vma.vm_start) >> 10),
            ("KernelPageSize", 4),
            ("MMUPageSize", 4),
        )
    )
    eligible = int(huge_memory.thp_vma_allowable_orders(vma, vma.vm_flags, (1 << 10) - 1) != 0)
    text = show_map_vma(vma) + sizes + show_smap_sizes(mss, False)
    text += f"THPeligible:    {eligible:8d}\n"
    m = vma.vm_mm.machine
    if m is not None and m.config.cpu_pku:
        text += f"ProtectionKey:  {vma.vm_flags >> VM_PKEY_SHIFT & 15:8d}\n"
    return f"{text}VmFlags: {vm_flags_str(vma.vm_flags)} \n"


def render_smaps(mm: MmStruct) -> str:
    """Return /proc/PID/smaps."""
    return "".join(show_smap(vma) for vma in mm.mm_mt)


def render_smaps_rollup(mm: MmStruct) -> str:
    """Return /proc/PID/smaps_rollup.

    Mirrors fs/proc/task_mmu.c:show_smaps_rollup().
    """
    mss = MemSizeStats()
    first = last = 0
    for vma in mm.mm_mt:
        smap_gather_stats(vma, mss)
        first, last = first or vma.vm_start, vma.vm_end
    line = f"{first:08x}-{last:08x} ---p 00000000 00:00 0 "
    return f"{line:<73}[rollup]\n{show_smap_sizes(mss, True)}"


def status_memory(mm: MmStruct) -> dict[str, int]:
    """Return the memory lines of /proc/PID/status in kB.

    Mirrors fs/proc/task_mmu.c:task_mem().
    """
    kb = PAGE_SIZE >> 10
    rss = get_mm_rss(mm)
    text = page_align(mm.end_code) - (mm.start_code & -PAGE_SIZE)
    text = min(text, mm.exec_vm << PAGE_SHIFT)
    return {
        "VmPeak": max(mm.hiwater_vm, mm.total_vm) * kb,
        "VmSize": mm.total_vm * kb,
        "VmLck": mm.locked_vm * kb,
        "VmPin": mm.pinned_vm * kb,
        "VmHWM": max(mm.hiwater_rss, rss) * kb,
        "VmRSS": rss * kb,
        "RssAnon": get_mm_counter(mm, MM_ANONPAGES) * kb,
        "RssFile": get_mm_counter(mm, MM_FILEPAGES) * kb,
        "RssShmem": get_mm_counter(mm, MM_SHMEMPAGES) * kb,
        "VmData": mm.data_vm * kb,
        "VmStk": mm.stack_vm * kb,
        "VmExe": text >> 10,
        "VmLib": ((mm.exec_vm << PAGE_SHIFT) - text) >> 10,
        "VmPTE": mm.pgtables_bytes >> 10,
        "VmSwap": get_mm_counter(mm, MM_SWAPENTS) * kb,
        "HugetlbPages": 0,
    }


def task_statm(mm: MmStruct) -> tuple[int, int, int, int, int]:
    """Return (size, resident, shared, text, data) in pages.

    Mirrors fs/proc/task_mmu.c:task_statm().
    """
    shared = get_mm_counter(mm, MM_FILEPAGES) + get_mm_counter(mm, MM_SHMEMPAGES)
    text = (page_align(mm.end_code) - (mm.start_code & -PAGE_SIZE)) >> PAGE_SHIFT
    resident = shared + get_mm_counter(mm, MM_ANONPAGES)
    return mm.total_vm, resident, shared, text, mm.data_vm + mm.stack_vm


def render_statm(mm: MmStruct) -> str:
    """Return /proc/PID/statm."""
    size, resident, shared, text, data = task_statm(mm)
    return f"{size} {resident} {shared} {text} 0 {data} 0\n"


def page_align(x: int) -> int:
    """Round up to whole pages (``PAGE_ALIGN()``)."""
    return x + PAGE_SIZE - 1 & -PAGE_SIZE


def render_status_memory(mm: MmStruct) -> str:
    """Return those lines as /proc/PID/status prints them."""
    return "".join(f"{name}:\t{value:8d} kB\n" for name, value in status_memory(mm).items())


_STATUS_LINE = re.compile(r"(\w+):[ \t]+(\d{1,19}) kB")


def parse_status_memory(text: str) -> dict[str, int]:
    """Read the ``kB`` lines of a /proc/PID/status text, in kB.

    :raises ParseError: if there is none, or a line that should be one is not
    """
    values: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.startswith(("Vm", "Rss", "HugetlbPages")):
            continue
        match = _STATUS_LINE.fullmatch(line.rstrip())
        if match is None:
            raise ParseError("/proc/PID/status", number, line, "not a size in kB")
        values[match[1]] = int(match[2])
    if not values:
        raise ParseError("/proc/PID/status", 1, text.partition("\n")[0], "no memory lines")
    return values


# --- reading maps and smaps -------------------------------------------------------------------


@dataclass(slots=True)
class MapsEntry:
    """One mapping as /proc/PID/maps and smaps show it.

    :ivar offset: file offset in bytes
    :ivar dev: "major:minor" as printed
    :ivar name: path, [heap] ..., or ""; newlines of a path are still \\012
    :ivar sizes: the kB lines of smaps, by name; empty for maps
    :ivar flags: the VmFlags words; None where the text has none
    :ivar line: number of its line in the text
    """

    start: int
    end: int
    perms: str
    offset: int
    dev: str
    inode: int
    name: str
    line: int
    sizes: dict[str, int] = field(default_factory=dict)
    flags: tuple[str, ...] | None = None

    @property
    def pages(self) -> int:
        """Its length in pages."""
        return (self.end - self.start) >> PAGE_SHIFT

    def header(self) -> str:
        """Return the line of maps again."""
        where = f"{self.start:08x}-{self.end:08x} {self.perms} {self.offset:08x} "
        where += f"{self.dev} {self.inode} "
        return f"{where:<73}{self.name}" if self.name else where


_HEADER = re.compile(
    r"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][ps]) ([0-9a-f]{1,16}) "
    r"([0-9a-f]{1,8}:[0-9a-f]{1,8}) (\d{1,20})(?: *$| +(\S.*?)$)"
)
_SIZE = re.compile(r"(\w[\w ]*):\s*(\d{1,19}) kB")
_OTHER = re.compile(r"(THPeligible|ProtectionKey|VmFlags):\s*(.*)")


def _parse_header(number: int, line: str, last: int) -> MapsEntry:
    match = _HEADER.fullmatch(line)
    if match is None:
        raise ParseError("/proc/PID/maps", number, line, "not a mapping")
    start, end = int(match[1], 16), int(match[2], 16)
    if start >= end or start < last:
        raise ParseError("/proc/PID/maps", number, line, "mappings out of order")
    return MapsEntry(
        start, end, match[3], int(match[4], 16), match[5], int(match[6]), match[7] or "", number
    )


def parse_maps(text: str) -> list[MapsEntry]:
    """Read a /proc/PID/maps text.

    :raises ParseError: for a line that is no mapping, or mappings that are out of order
    """
    entries: list[MapsEntry] = []
    last = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        if "[vsyscall]" in line:
            last = 0
        entry = _parse_header(number, line, last)
        last = entry.end
        entries.append(entry)
    if not entries:
        raise ParseError("/proc/PID/maps", 1, text.partition("\n")[0], "no mappings")
    return entries


def parse_smaps(text: str) -> list[MapsEntry]:
    """Read a /proc/PID/smaps (or smaps_rollup) text.

    :raises ParseError: for a line that is neither a mapping nor one of its values
    """
    entries: list[MapsEntry] = []
    last = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        size, other = _SIZE.fullmatch(line.rstrip()), _OTHER.match(line)
        if size is None and other is None:
            last = 0 if "[vsyscall]" in line else last
            entries.append(_parse_header(number, line, last))
            last = entries[-1].end
        elif not entries:
            raise ParseError("/proc/PID/smaps", number, line, "a value before the first mapping")
        elif size is not None:
            entries[-1].sizes[size[1]] = int(size[2])
        elif other is not None and other[1] == "VmFlags":
            entries[-1].flags = tuple(other[2].split())
        elif other is not None:
            if not other[2].strip().isdecimal():
                raise ParseError("/proc/PID/smaps", number, line, "not a number")
            entries[-1].sizes[other[1]] = int(other[2])
    if not entries:
        raise ParseError("/proc/PID/smaps", 1, text.partition("\n")[0], "no mappings")
    return entries


def parse_statm(text: str) -> tuple[int, ...]:
    """Read /proc/PID/statm: seven numbers of pages.

    :raises ParseError: if there are not seven numbers
    """
    words = text.split()
    if len(words) != 7 or not all(w.isascii() and w.isdecimal() and len(w) < 20 for w in words):
        raise ParseError("/proc/PID/statm", 1, text.partition("\n")[0], "not seven numbers")
    return tuple(int(w) for w in words)
