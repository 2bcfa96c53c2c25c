"""/proc/meminfo: the machine's memory in kB.

Mirrors fs/proc/meminfo.c:meminfo_proc_show().
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcore.config import PAGE_SHIFT
from mmcore.mm import vmstat as vs
from mmcore.mm.show_mem import si_mem_available
from mmcore.proc.lines import Lines

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = [
    "MemInfo",
    "SysInfo",
    "parse",
    "render",
    "show",
    "snapshot",
    "vm_commit_limit",
]

VMALLOC_TOTAL = 34359738367  # kB, with 4-level page tables
#: Names whose value the kernel prints five characters wide after a wider label.
NARROW = (
    "HardwareCorrupted",
    "HugePages_Total",
    "HugePages_Free",
    "HugePages_Rsvd",
    "HugePages_Surp",
)
#: Values that are counts, without a unit.
UNITLESS = NARROW[1:]


@dataclass(slots=True)
class SysInfo:
    """What the file shows and no zone or node counts, in pages; parts of it come with later chapters.

    :ivar nr_huge_pages: hugetlb pages of the default size; so free, resv and surplus
    :ivar hugetlb_total_pages: hugetlb pages of every size, in pages of 4 kB
    :ivar hugepage_kb: the default hugetlb page size in kB
    :ivar direct_kb: DirectMap4k, 2M and 1G in kB
    """

    bufferram: int = 0
    totalswap: int = 0
    freeswap: int = 0
    vm_committed_as: int = 0
    vmalloc_nr_pages: int = 0
    pcpu_nr_pages: int = 0
    num_poisoned_pages: int = 0
    overcommit_ratio: int = 50
    overcommit_kbytes: int = 0
    nr_huge_pages: int = 0
    free_huge_pages: int = 0
    resv_huge_pages: int = 0
    surplus_huge_pages: int = 0
    hugetlb_total_pages: int = 0
    hugepage_kb: int = 2048
    direct_kb: tuple[int, int, int] = (0, 0, 0)


#: One line by name: the value, in kB unless it is a count.
MemInfo = dict[str, int]


def parse(text: str) -> MemInfo:
    """Read the file. Lines that this kernel does not print are kept.

    :raises ParseError: with the first line that does not belong
    """
    lines = Lines(text, "/proc/meminfo")
    info: MemInfo = {}
    while lines:
        match = lines.match(r"([A-Za-z0-9_()]+): +(\d{1,20})( kB)?", "'Name:   N kB'")
        if match.group(1) in info:
            raise lines.error(f"{match.group(1)} appears twice", back=1)
        info[match.group(1)] = int(match.group(2))
    if not info:
        raise lines.error("the text is empty")
    return info


def render(info: MemInfo) -> str:
    """Write the file.

    Mirrors fs/proc/meminfo.c:show_val_kb().
    """
    out = []
    for name, value in info.items():
        label, width = (f"{name}: ", 5) if name in NARROW else (f"{name}:", 8)
        pad = 19 if name in NARROW else 16
        unit = "" if name in UNITLESS else " kB"
        out.append(f"{label:<{pad}}{value:{width}d}{unit}\n")
    return "".join(out)


def vm_commit_limit(m: Machine) -> int:
    """Return how many pages may be promised when overcommit is off.

    Mirrors mm/util.c:vm_commit_limit().
    """
    s = m.sysinfo
    if s.overcommit_kbytes:
        allowed = s.overcommit_kbytes >> (PAGE_SHIFT - 10)
    else:
        allowed = (m.totalram_pages - s.hugetlb_total_pages) * s.overcommit_ratio // 100
    return allowed + s.totalswap


def _lru(m: Machine) -> MemInfo:
    anon_a = vs.global_node_page_state(m, vs.NR_ACTIVE_ANON)
    anon_i = vs.global_node_page_state(m, vs.NR_INACTIVE_ANON)
    file_a = vs.global_node_page_state(m, vs.NR_ACTIVE_FILE)
    file_i = vs.global_node_page_state(m, vs.NR_INACTIVE_FILE)
    return {
        "Active": anon_a + file_a,
        "Inactive": anon_i + file_i,
        "Active(anon)": anon_a,
        "Inactive(anon)": anon_i,
        "Active(file)": file_a,
        "Inactive(file)": file_i,
        "Unevictable": vs.global_node_page_state(m, vs.NR_UNEVICTABLE),
        "Mlocked": vs.global_zone_page_state(m, vs.NR_MLOCK),
    }


def _use(m: Machine) -> MemInfo:
    node = vs.global_node_page_state
    reclaimable = node(m, vs.NR_SLAB_RECLAIMABLE_B)
    unreclaimable = node(m, vs.NR_SLAB_UNRECLAIMABLE_B)
    return {
        "Dirty": node(m, vs.NR_FILE_DIRTY),
        "Writeback": node(m, vs.NR_WRITEBACK),
        "AnonPages": node(m, vs.NR_ANON_MAPPED),
        "Mapped": node(m, vs.NR_FILE_MAPPED),
        "Shmem": node(m, vs.NR_SHMEM),
        "KReclaimable": reclaimable + node(m, vs.NR_KERNEL_MISC_RECLAIMABLE),
        "Slab": reclaimable + unreclaimable,
        "SReclaimable": reclaimable,
        "SUnreclaim": unreclaimable,
        "KernelStack": node(m, vs.NR_KERNEL_STACK_KB) >> (PAGE_SHIFT - 10),
        "PageTables": node(m, vs.NR_PAGETABLE),
        "SecPageTables": node(m, vs.NR_SECONDARY_PAGETABLE),
        "NFS_Unstable": 0,
        "Bounce": vs.global_zone_page_state(m, vs.NR_BOUNCE),
        "WritebackTmp": node(m, vs.NR_WRITEBACK_TEMP),
    }


def _huge(m: Machine) -> MemInfo:
    node = vs.global_node_page_state
    return {
        "AnonHugePages": node(m, vs.NR_ANON_THPS),
        "ShmemHugePages": node(m, vs.NR_SHMEM_THPS),
        "ShmemPmdMapped": node(m, vs.NR_SHMEM_PMDMAPPED),
        "FileHugePages": node(m, vs.NR_FILE_THPS),
        "FilePmdMapped": node(m, vs.NR_FILE_PMDMAPPED),
        "Unaccepted": vs.global_zone_page_state(m, vs.NR_UNACCEPTED),
    }


def snapshot(m: Machine) -> MemInfo:
    """Return what the file shows of a machine now."""
    s = m.sysinfo
    swapcached = vs.global_node_page_state(m, vs.NR_SWAPCACHE)
    cached = vs.global_node_page_state(m, vs.NR_FILE_PAGES) - swapcached - s.bufferram
    pages: MemInfo = {
        "MemTotal": m.totalram_pages,
        "MemFree": vs.global_zone_page_state(m, vs.NR_FREE_PAGES),
        "MemAvailable": si_mem_available(m),
        "Buffers": s.bufferram,
        "Cached": max(0, cached),
        "SwapCached": swapcached,
        **_lru(m),
        "SwapTotal": s.totalswap,
        "SwapFree": s.freeswap,
        **_use(m),
        "CommitLimit": vm_commit_limit(m),
        "Committed_AS": s.vm_committed_as,
        "VmallocTotal": 0,
        "VmallocUsed": s.vmalloc_nr_pages,
        "VmallocChunk": 0,
        "Percpu": s.pcpu_nr_pages,
        "HardwareCorrupted": s.num_poisoned_pages,
        **_huge(m),
    }
    info = {name: value << (PAGE_SHIFT - 10) for name, value in pages.items()}
    info["KernelStack"] = vs.global_node_page_state(m, vs.NR_KERNEL_STACK_KB)
    info["VmallocTotal"] = VMALLOC_TOTAL
    info["HugePages_Total"] = s.nr_huge_pages
    info["HugePages_Free"] = s.free_huge_pages
    info["HugePages_Rsvd"] = s.resv_huge_pages
    info["HugePages_Surp"] = s.surplus_huge_pages
    info["Hugepagesize"] = s.hugepage_kb
    info["Hugetlb"] = s.hugetlb_total_pages << (PAGE_SHIFT - 10)
    for name, value in zip(("4k", "2M", "1G"), s.direct_kb, strict=True):
        info[f"DirectMap{name}"] = value
    return info


def show(m: Machine) -> str:
    """Return the file of a machine."""
    return render(snapshot(m))
