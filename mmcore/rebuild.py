"""What `Machine.from_capture()` is made of: a machine rebuilt from what a real kernel printed.

With the kernel's log the machine boots again: the same memory map, nodes and boot options, and with
memblock=debug the same reservations, so that managed pages need not be copied. What follows from
them (watermarks, reserves, per-CPU limits, zonelists) is computed, never copied; counters and free
block counts are taken from /proc. `compare()` puts model and kernel side by side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmcore import boot
from mmcore.arch.x86.e820 import E820_TYPE_RAM
from mmcore.arch.x86.image import KernelImage
from mmcore.arch.x86.numa import SratNode
from mmcore.config import PAGE_SHIFT, PAGE_SIZE, Config
from mmcore.errors import MMError, ParseError, UsageError
from mmcore.mm import memblock as mb
from mmcore.mm import mm_init, page_alloc
from mmcore.mm import vmstat as vs
from mmcore.mm.gfp import __GFP_BITS_MASK
from mmcore.mm.mm_types import Page
from mmcore.mm.mmzone import (
    MAX_NR_ZONES,
    MAX_ORDER_NR_PAGES,
    MAX_PAGE_ORDER,
    MIGRATE_MOVABLE,
    MIGRATETYPE_NAMES,
    ZONE_NAMES,
    FreeArea,
    PerCpuPages,
    Zone,
    pageblock_nr_pages,
    pageblock_order,
    zone_end_pfn,
)
from mmcore.proc import (
    buddyinfo,
    capture,
    dmesg,
    iomem,
    meminfo,
    pagetypeinfo,
    vmstat,
    zoneinfo,
)
from mmcore.proc.dmesg import BootLog
from mmcore.proc.zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from mmcore.machine import Machine

PFN_MAX = 1 << 34  # 64 TiB
UNKNOWN_DISTANCES = "the distances of the nodes are not recorded: 20 is assumed"

__all__ = ["Row", "compare", "from_capture", "from_zoneinfo"]


@dataclass(slots=True)
class Row:
    """One number on both sides.

    :ivar where: which zone, CPU or file
    """

    where: str
    name: str
    model: int | str
    kernel: int | str

    @property
    def equal(self) -> bool:
        """Model and kernel agree."""
        return self.model == self.kernel


# ---- reading the record --------------------------------------------------------------------------


def _cpus_of_nodes(cap: capture.Capture, log: BootLog | None) -> dict[int, list[int]]:
    """Return the CPUs of each node that the record names."""
    nodes: dict[int, list[int]] = {}
    for path, text in cap.files("/sys/devices/system/node/node*/cpulist").items():
        number = re.search(r"node(\d+)/", path)
        if number:
            nodes[int(number.group(1))] = boot.parse_cpulist(text.strip())
    if nodes or log is None:
        return nodes
    for line in (cap.dmesg or "").split("\n"):
        match = re.search(r"\.\.\.\. node +#(\d{1,4}), CPUs: +((?:#\d{1,5} *)+)$", line)
        if match:
            cpus = [int(n) for n in re.findall(r"#(\d+)", match.group(2))]
            nodes.setdefault(int(match.group(1)), []).extend(cpus)
    if nodes and all(0 not in cpus for cpus in nodes.values()):
        nodes.setdefault(0, []).insert(0, 0)  # the boot CPU is not listed
    return nodes


def _distances(cap: capture.Capture) -> dict[int, list[int]]:
    rows: dict[int, list[int]] = {}
    for path, text in cap.files("/sys/devices/system/node/node*/distance").items():
        number = re.search(r"node(\d+)/", path)
        if number and re.fullmatch(r"[\d\s]+", text):
            rows[int(number.group(1))] = [int(n) for n in text.split()]
    return rows


def _srat(log: BootLog, cpus: dict[int, list[int]]) -> list[SratNode]:
    """Return the firmware's entries in their order, each with the number that the kernel gave it."""
    nodes: list[SratNode] = []
    for v in log.of("srat_mem"):
        hotplug = "hotplug" in v["flags"]
        if not nodes or nodes[-1].node != v["node"] or nodes[-1].hotplug != hotplug:
            nodes.append(SratNode(v["pxm"], hotplug=hotplug, node=v["node"]))
        nodes[-1].memory.append((v["start"], v["last"] + 1))
    if not nodes:
        return []
    for nid in sorted(cpus):
        first = next((node for node in nodes if node.node == nid), None)
        if first is None:
            # A node of CPUs only: the log does not say which domain it is.
            pxm = max(node.pxm for node in nodes) + 1
            first = SratNode(pxm, node=nid)
            nodes.append(first)
        first.cpus = cpus[nid]
    return nodes


def _slit(srat: list[SratNode], rows: dict[int, list[int]]) -> list[list[int]]:
    """Return distances by node as a table in the order of the firmware's domains."""
    nids = [node.node for node in {srat_.pxm: srat_ for srat_ in srat}.values()]
    order = {nid: i for i, nid in enumerate(sorted(rows))}
    return [
        [rows[a][order[b]] for b in nids if b in order] for a in nids if a is not None and a in rows
    ]


def _kernel_image(cap: capture.Capture, log: BootLog) -> KernelImage:
    """Return where the kernel lay: moved by KASLR if /proc/iomem says so."""
    image = KernelImage()
    text = cap.file("/proc/iomem")
    code = iomem.find(iomem.parse(text), "Kernel code") if text else []
    shift = code[0].start - image.text if code and code[0].start else 0
    memory = log.first("memory")
    if memory is not None:
        if memory["code"] != image.code >> 10:
            bss = iomem.find(iomem.parse(text), "Kernel bss") if text else []
            if bss and bss[0].end > image.text + shift:
                end = bss[0].end + 1 - shift
                image.end_of_kernel_reserve = end + PAGE_SIZE - 1 & -PAGE_SIZE
        image.code, image.rwdata = memory["code"] << 10, memory["rwdata"] << 10
        image.rodata, image.init = memory["rodata"] << 10, memory["init"] << 10
        image.bss = memory["bss"] << 10
    if shift:
        image.text += shift
        image.end_of_kernel_reserve += shift
        for name in ("smp_locks", "decrypted", "initmem", "rodata_gap"):
            start, end = getattr(image, name)
            setattr(image, name, (start + shift, end + shift))
    return image


def _frees(log: BootLog, image: KernelImage) -> boot.BootPlan:
    """Return what the kernel gave back, with the addresses as far as they are known."""
    known = {
        "SMP alternatives": image.smp_locks,
        "unused decrypted": image.decrypted,
        "unused kernel image (initmem)": image.initmem,
        "unused kernel image (rodata/data gap)": image.rodata_gap,
    }
    ramdisk = log.first("ramdisk")
    if ramdisk is not None:
        known["initrd"] = (ramdisk["start"], ramdisk["last"] + 1)
    plan = boot.BootPlan()
    late = False
    # Where a section lies is not in the log of another build: any place in the image will do.
    spare = image.text >> PAGE_SHIFT
    for line in log.lines:
        if line.kind == "memory":
            late = True
        if line.kind != "freeing":
            continue
        what, pages = line.values["what"], line.values["kb"] >> (PAGE_SHIFT - 10)
        start, end = known.get(what, (0, 0))
        if what == "initrd" or end - start >> PAGE_SHIFT == pages:
            pfn = start >> PAGE_SHIFT
        else:
            pfn = spare
            spare += pages
        (plan.late_frees if late else plan.early_frees).append((what, pfn, pages))
    return plan


# ---- booting again from a log --------------------------------------------------------------------


def _fix_managed(m: Machine, zones: list[ZoneInfo], plan: boot.BootPlan) -> None:
    """Where the model's early users differ from this kernel's, take managed from /proc/zoneinfo.

    What is given back later is taken off again.
    """
    late: dict[tuple[int, str], int] = {}
    for what, pfn, pages in plan.late_frees:
        start = boot.freed_pfn(m, what, pfn)
        for p in range(start, start + pages):
            zone = m.pfn_zone(p)
            if zone is not None:
                late[zone.node, zone.name] = late.get((zone.node, zone.name), 0) + 1
    for info in zones:
        zone = _zone(m, info.node, info.zone)
        if zone is None:
            continue
        managed = info.pages.get("managed", 0) - late.get((info.node, info.zone), 0)
        if managed != zone.managed_pages:
            m.notes.append(
                f"Node {zone.node} {zone.name}: {zone.managed_pages} pages would be managed; "
                f"{managed} taken from the record"
            )
            zone.managed_pages = max(0, managed)
    m.totalram_pages = sum(z.managed_pages for p in m.node_data.values() for z in p.node_zones)


def _check_log(m: Machine, cap: capture.Capture, log: BootLog) -> None:
    """Refuse numbers that no log of this memory map can hold."""
    ram = sum(e.size for e in m.e820_table.entries if e.type == E820_TYPE_RAM)
    for line in log.lines:
        v = line.values
        wrong = ""
        if line.kind == "freeing" and v["kb"] << 10 > ram:
            wrong = "more is freed than there is RAM"
        elif line.kind == "srat_mem" and (v["node"] >= mb.MAX_NUMNODES or v["last"] < v["start"]):
            wrong = "no such node or range"
        elif line.kind in ("ramdisk", "acpi_reserve") and v["last"] < v["start"]:
            wrong = "the range ends before it begins"
        elif line.kind == "ramdisk" and v["last"] - v["start"] > ram:
            wrong = "the RAM disk is larger than RAM"
        if wrong:
            raise ParseError(f"{cap.name}: log", line.number, dmesg.render_line(line), wrong)


def _boot_again(
    m: Machine, cap: capture.Capture, log: BootLog, zones: list[ZoneInfo] | None
) -> None:
    """Boot @m from the log."""
    cmdline = log.first("cmdline")
    m.boot_params.cmdline = cmdline["cmdline"] if cmdline else ""
    m.kernel_image = _kernel_image(cap, log)
    m.e820_table.entries = dmesg.parse_e820(cap.dmesg or "")
    boot.check_memory_map(m, m.e820_table.entries)
    _check_log(m, cap, log)
    ramdisk = log.first("ramdisk")
    if ramdisk is not None:
        moved = log.first("ramdisk_move")  # this line alone has its true size
        last = moved["last"] if moved is not None else ramdisk["last"]
        m.boot_params.initrd = (ramdisk["start"], last + 1)
    m.boot_params.acpi_tables = [
        (v["table"], v["start"], v["last"] + 1 - v["start"]) for v in log.of("acpi_reserve")
    ]
    m.srat = _srat(log, _cpus_of_nodes(cap, log))
    rows = _distances(cap)
    nodes = len({srat.pxm: None for srat in m.srat})
    tables = [name for name, _, _ in m.boot_params.acpi_tables]
    if tables and "SLIT" not in tables:
        pass  # the firmware gives no distances: the kernel takes its own
    elif m.srat and len(rows) == nodes:
        m.slit = _slit(m.srat, rows)
    elif nodes > 1:
        m.notes.append(UNKNOWN_DISTANCES)
        if log.first("numa_distance") is not None:  # the table took its page all the same
            m.slit = [[10 if i == j else 20 for j in range(nodes)] for i in range(nodes)]
    plan = _frees(log, m.kernel_image)
    if log.has_memblock_log():
        plan.memblock = lambda m: boot.replayed_memblock(m, log)
    elif zones is not None:
        plan.fix_managed = lambda m: _fix_managed(m, zones, plan)
    boot.start_kernel(m, plan)


# ---- building from /proc alone -------------------------------------------------------------------


def _zone(m: Machine, nid: int, name: str) -> Zone | None:
    pgdat = m.node_data.get(nid)
    if pgdat is None or name not in ZONE_NAMES:
        return None
    return pgdat.node_zones[ZONE_NAMES.index(name)]


def _build(m: Machine, cap: capture.Capture, zones: list[ZoneInfo]) -> None:
    """Make nodes and zones of the sizes that /proc/zoneinfo gives."""
    cpus = _cpus_of_nodes(cap, None)
    m.cpu_to_node = [0] * m.cpus
    for info in zones:
        if info.node >= mb.MAX_NUMNODES:
            raise UsageError(f"{cap.name}: node {info.node}: there are at most {mb.MAX_NUMNODES}")
        if info.zone not in ZONE_NAMES:
            raise UsageError(f"{cap.name}: zone {info.zone!r}: this machine has {ZONE_NAMES}")
        if info.node not in m.node_data:
            mm_init.alloc_pgdat(m, info.node)
            for state in ("N_POSSIBLE", "N_ONLINE"):
                m.node_set_state(info.node, state)
        zone = _zone(m, info.node, info.zone)
        assert zone is not None
        zone.zone_start_pfn = info.tail.get("start_pfn", 0)
        zone.spanned_pages = info.pages.get("spanned", 0)
        if zone_end_pfn(zone) > PFN_MAX or info.pages.get("present", 0) > zone.spanned_pages:
            raise UsageError(
                f"{cap.name}: Node {info.node} {info.zone}: {zone.spanned_pages} pages from "
                f"{zone.zone_start_pfn}: a zone ends below 64 TiB and spans what is present"
            )
        zone.present_pages = zone.present_early_pages = info.pages.get("present", 0)
    for nid, pgdat in m.node_data.items():
        present = [z for z in pgdat.node_zones if z.present_pages]
        pgdat.node_present_pages = sum(z.present_pages for z in present)
        if present:
            m.node_set_state(nid, "N_MEMORY")
            pgdat.node_start_pfn = min(z.zone_start_pfn for z in present)
            end = max(zone_end_pfn(z) for z in present)
            pgdat.node_spanned_pages = end - pgdat.node_start_pfn
        for cpu in cpus.get(nid, []):
            if cpu < m.cpus:
                m.cpu_to_node[cpu] = nid
        mm_init.free_area_init_core(m, pgdat)
    _finish_build(m, cap, zones)


def _finish_build(m: Machine, cap: capture.Capture, zones: list[ZoneInfo]) -> None:
    n = m.nr_node_ids = max(m.node_data) + 1
    rows = _distances(cap)
    m.node_distance = [[10 if i == j else 20 for j in range(n)] for i in range(n)]
    for nid, row in rows.items():
        for to, distance in zip(sorted(rows), row, strict=False):
            if nid < n and to < n:
                m.node_distance[nid][to] = distance
    m.nr_online_nodes = len(m.node_data)
    for nid in sorted(set(m.cpu_to_node)):
        m.node_set_state(nid, "N_CPU")
    page_alloc.build_all_zonelists(m, None)
    m.node_to_cpumask_ready = True
    m.num_online_cpus = m.cpus
    m.gfp_allowed_mask = __GFP_BITS_MASK
    for info in zones:
        zone = _zone(m, info.node, info.zone)
        if zone is not None:
            zone.managed_pages = info.pages.get("managed", 0)
            zone.pageblock_flags[:] = bytes([MIGRATE_MOVABLE]) * len(zone.pageblock_flags)
    m.totalram_pages = sum(z.managed_pages for p in m.node_data.values() for z in p.node_zones)
    page_alloc.setup_per_cpu_pageset(m)
    boot.do_initcalls(m)


# ---- counters and free lists ---------------------------------------------------------------------


def _sysctl(cap: capture.Capture, name: str) -> str | None:
    text = cap.file(f"/proc/sys/vm/{name}")
    return text.strip() if text and text.strip() else None


def _apply_sysctls(m: Machine, cap: capture.Capture) -> None:
    """Take over settings that differ from the defaults, and recompute what hangs on them."""
    changed = False
    for name in (
        "min_free_kbytes",
        "watermark_scale_factor",
        "watermark_boost_factor",
        "percpu_pagelist_high_fraction",
    ):
        text = _sysctl(cap, name)
        if text is not None and text.isdecimal() and int(text[:18]) != getattr(m, name):
            setattr(m, name, int(text[:18]))
            changed = True
    ratio = _sysctl(cap, "lowmem_reserve_ratio")
    if ratio is not None and re.fullmatch(r"\d{1,9}(\s+\d{1,9}){4}", ratio):
        values = [int(n) for n in ratio.split()]
        if values != m.sysctl_lowmem_reserve_ratio:
            m.sysctl_lowmem_reserve_ratio = values
            page_alloc.setup_per_zone_lowmem_reserve(m)
            changed = True
    for name, attribute in (
        ("dirty_ratio", "vm_dirty_ratio"),
        ("dirty_background_ratio", "dirty_background_ratio"),
    ):
        text = _sysctl(cap, name)
        if text is not None and text.isdecimal():
            setattr(m, attribute, int(text[:9]))
    if changed:
        page_alloc.setup_per_zone_wmarks(m)


def _counters(table: tuple[str, ...], values: dict[str, int], into: list[int]) -> None:
    for i, name in enumerate(table):
        if name in values:
            into[i] = values[name]


def _take_counters(m: Machine, zones: list[ZoneInfo]) -> None:
    """Take the counters of zones and nodes, and the state of the CPUs' lists."""
    for info in zones:
        zone = _zone(m, info.node, info.zone)
        if zone is None:
            continue
        pgdat = zone.zone_pgdat
        if info.node_stats:
            _counters(vs.NODE_STAT_TEXT, info.node_stats, pgdat.vm_stat)
            for i in vs.NODE_ITEMS_IN_THP:
                pgdat.vm_stat[i] *= 512
        _counters(vs.ZONE_STAT_TEXT, info.stats, zone.vm_stat)
        _counters(vs.NUMA_STAT_TEXT, info.stats, zone.vm_numa_event)
        zone.vm_stat[vs.NR_FREE_PAGES] = info.pages["free"]
        zone.watermark_boost = info.pages.get("boost", 0)
        for cpu in info.pagesets:
            if cpu.cpu < len(zone.per_cpu_pageset):
                zone.per_cpu_pageset[cpu.cpu].high = cpu.values.get("high", 0)


def _take_meminfo(m: Machine, info: dict[str, int]) -> None:
    s = m.sysinfo
    for name, attribute in (
        ("Buffers", "bufferram"),
        ("SwapTotal", "totalswap"),
        ("SwapFree", "freeswap"),
        ("Committed_AS", "vm_committed_as"),
        ("VmallocUsed", "vmalloc_nr_pages"),
        ("Percpu", "pcpu_nr_pages"),
    ):
        setattr(s, attribute, info.get(name, 0) >> (PAGE_SHIFT - 10))
    s.nr_huge_pages = info.get("HugePages_Total", 0)
    s.free_huge_pages = info.get("HugePages_Free", 0)
    s.resv_huge_pages = info.get("HugePages_Rsvd", 0)
    s.surplus_huge_pages = info.get("HugePages_Surp", 0)
    s.hugepage_kb = info.get("Hugepagesize", s.hugepage_kb)
    hugetlb_kb = info.get("Hugetlb", s.nr_huge_pages * s.hugepage_kb)  # absent in old kernels
    s.hugetlb_total_pages = hugetlb_kb >> (PAGE_SHIFT - 10)
    s.direct_kb = (
        info.get("DirectMap4k", 0),
        info.get("DirectMap2M", 0),
        info.get("DirectMap1G", 0),
    )


def _free_counts(cap: capture.Capture) -> dict[tuple[int, str], list[list[int]]]:
    """Return free blocks by zone, as [type][order]; without pagetypeinfo all count as movable."""
    counts: dict[tuple[int, str], list[list[int]]] = {}
    text = cap.file("/proc/buddyinfo")
    for zone in buddyinfo.parse(text) if text else []:
        by_type = [[0] * len(zone.nr_free) for _ in MIGRATETYPE_NAMES]
        by_type[MIGRATE_MOVABLE] = zone.nr_free
        counts[zone.node, zone.zone] = by_type
    text = cap.file("/proc/pagetypeinfo")
    for node in pagetypeinfo.parse(text) if text else []:
        for z in node.zones:
            rows = [z.free.get(name, [0] * node.orders) for name in MIGRATETYPE_NAMES]
            if all(n >= 0 for row in rows for n in row):
                counts[node.node, z.zone] = rows
    return counts


def _clear_free_lists(zone: Zone) -> None:
    zone.free_area = [FreeArea() for _ in zone.free_area]
    zone.mem_map.clear()
    for i, old in enumerate(zone.per_cpu_pageset):
        new = PerCpuPages()
        new.high, new.batch = old.high, old.batch
        new.high_min, new.high_max, new.flags = old.high_min, old.high_max, old.flags
        zone.per_cpu_pageset[i] = new


def _chains(row: list[int]) -> list[list[int]]:
    """Deal the blocks below a pageblock out to chains of distinct orders, largest chain first.

    A chain is what splitting one block for its first page leaves: the block of order o lies 2**o
    pages behind the chain's start. So a chain takes twice its largest block, and none of its blocks
    has a free buddy.
    """
    left = row[:pageblock_order]
    chains: list[list[int]] = []
    while any(left):
        chains.append([order for order, n in enumerate(left) if n])
        left = [max(0, n - 1) for n in left]
    chains.sort(key=lambda chain: -chain[-1])
    return chains


def _mixed_pageblocks(counts: list[list[int]]) -> list[list[tuple[int, int, int]]]:
    """Return pageblocks of one type each, as (offset, order, type) of their free blocks."""
    out: list[list[tuple[int, int, int]]] = []
    for mtype, row in enumerate(counts):
        room = 0
        for chain in _chains(row):
            size = 2 << chain[-1]
            if room < size:
                out.append([])
                room = pageblock_nr_pages
            room -= size
            out[-1] += [(room + (1 << order), order, mtype) for order in chain]
    return out


def _chunks(m: Machine, zone: Zone) -> list[int]:
    """Return the first pfn of each aligned 1024 pages of the zone's memory, highest first."""
    ranges = [(a, b) for a, b, z in m.pfn_ranges if z is zone]
    if not ranges:
        ranges = [
            (zone.zone_start_pfn, min(zone_end_pfn(zone), zone.zone_start_pfn + zone.present_pages))
        ]
        if zone.zone_start_pfn < MAX_ORDER_NR_PAGES:
            ranges = [(zone.zone_start_pfn, zone_end_pfn(zone))]
    chunks: list[int] = []
    for start, end in ranges:
        first = start & -MAX_ORDER_NR_PAGES
        if start - first >= pageblock_nr_pages:
            first += MAX_ORDER_NR_PAGES
        last = end - MAX_ORDER_NR_PAGES
        chunks += [c for c in range(first, last + 1, MAX_ORDER_NR_PAGES) if c not in chunks[-1:]]
    return chunks[::-1]


def _blocks(chunks: list[int], counts: list[list[int]]) -> list[tuple[int, int, int]] | None:
    """Return (pfn, order, type) that lay the counted blocks out, or None if there is no room.

    The true places are not in /proc. No two buddies are both free, for they would have merged, and
    each pageblock holds free blocks of one type.
    """
    blocks: list[tuple[int, int, int]] = []
    largest = [mtype for mtype, row in enumerate(counts) for _ in range(row[10])]
    nines = [mtype for mtype, row in enumerate(counts) for _ in range(row[9])]
    mixed = _mixed_pageblocks(counts)
    need = len(largest) + max(len(nines), (len(nines) + len(mixed) + 1) // 2)
    if need > len(chunks):
        return None
    free = iter(chunks)
    blocks += [(pfn, 10, mtype) for mtype, pfn in zip(largest, free, strict=False)]
    while nines or mixed:
        pfn = next(free)
        upper = pfn + pageblock_nr_pages
        if nines:
            blocks.append((upper, 9, nines.pop(0)))
        elif len(mixed) > 1:
            blocks += [(upper + offset, order, t) for offset, order, t in mixed.pop(0)]
        if mixed:
            blocks += [(pfn + offset, order, t) for offset, order, t in mixed.pop(0)]
    return blocks


def _fill_free_lists(m: Machine, zone: Zone, counts: list[list[int]]) -> None:
    if any(len(row) != MAX_PAGE_ORDER + 1 for row in counts):
        m.notes.append(f"Node {zone.node} {zone.name}: free blocks of another number of orders")
        return
    if sum(n << order for row in counts for order, n in enumerate(row)) > zone.present_pages:
        m.notes.append(f"Node {zone.node} {zone.name}: more free blocks than memory; left out")
        return
    # The last chunks of the list are the lowest; where a zone begins within one, it comes last.
    blocks = _blocks(_chunks(m, zone), counts)
    if blocks is None:
        m.notes.append(f"Node {zone.node} {zone.name}: free blocks do not fit; lists stay empty")
        return
    free = zone.vm_stat[vs.NR_FREE_PAGES]
    zone.vm_stat[vs.NR_FREE_PAGES] = 0
    zone.nr_free_highatomic = 0
    for pfn, order, mtype in blocks:
        for block in range(pfn, pfn + (1 << order), pageblock_nr_pages):
            zone.pageblock_flags[block - zone.pageblock_base >> pageblock_order] = mtype
        page = zone.mem_map[pfn] = Page(pfn, zone)
        page_alloc.set_buddy_order(page, order)
        page_alloc.__add_to_free_list(page, zone, order, mtype, True)
        page_alloc.account_freepages(zone, 1 << order, mtype)
    counted = zone.vm_stat[vs.NR_FREE_PAGES]
    if counted != free:
        # The files were read one after the other, and counters drift per CPU.
        m.notes.append(f"Node {zone.node} {zone.name}: {free} pages free, {counted} in the lists")


def _take_free_lists(m: Machine, cap: capture.Capture) -> None:
    counts = _free_counts(cap)
    for pgdat in m.node_data.values():
        for zone in pgdat.node_zones:
            if not zone.present_pages:
                continue
            _clear_free_lists(zone)
            rows = counts.get((zone.node, zone.name))
            if rows is not None:
                _fill_free_lists(m, zone, rows)


# ---- the whole -----------------------------------------------------------------------------------


def _cpu_count(zones: list[ZoneInfo] | None, log: BootLog | None) -> int:
    cpus = max((c.cpu + 1 for z in zones or [] for c in z.pagesets), default=0)
    if not cpus and log is not None:
        up = log.first("brought_up")
        cpus = up["cpus"] if up is not None else 1
    return cpus or 1


def _config(log: BootLog) -> Config:
    """Return what the log says about the processor."""
    last_pfn = log.first("last_pfn")
    la57 = last_pfn is not None and last_pfn["max_arch_pfn"] == 1 << 40  # five-level paging
    cpu0 = log.first("cpu0")
    return Config(
        cpu_la57=la57,
        cpu_gbpages=log.first("gbpages") is not None,
        cpu_intel=cpu0 is not None and cpu0["model"].startswith("Intel"),
    )


def from_capture(cls: type[Machine], source: str | Path | capture.Capture) -> Machine:
    """Rebuild a machine; see `Machine.from_capture()`."""
    cap = source if isinstance(source, capture.Capture) else capture.load(source)
    text = cap.file("/proc/zoneinfo")
    zones = zoneinfo.parse(text) if text is not None else None
    log = dmesg.parse(cap.dmesg) if cap.dmesg else None
    booted = log is not None and log.first("e820") is not None
    if zones is None and not booted:
        raise UsageError(
            f"{cap.name}: neither /proc/zoneinfo nor a log with BIOS-e820 lines was recorded"
        )
    config = _config(log) if booted and log is not None else Config()
    m = cls(cpus=_cpu_count(zones, log), config=config)
    if zones is not None and not any(z.pages.get("present") for z in zones):
        raise UsageError(f"{cap.name}: /proc/zoneinfo has no zone with present pages")
    try:
        if booted and log is not None:
            _boot_again(m, cap, log, zones)
        elif zones is not None:
            _build(m, cap, zones)
    except (ParseError, UsageError):
        raise
    except (MMError, IndexError, KeyError, ValueError, OverflowError, MemoryError) as err:
        raise ParseError(cap.name, 1, "", f"its texts contradict each other ({err})") from None
    _apply_sysctls(m, cap)
    m.recorded = zones
    if zones is not None:
        _take_counters(m, zones)
        _take_free_lists(m, cap)
    text = cap.file("/proc/meminfo")
    if text is not None:
        _take_meminfo(m, meminfo.parse(text))
    text = cap.file("/proc/vmstat")
    if text is not None:
        events = vmstat.parse(text)
        _counters(vs.VM_EVENT_TEXT, events, m.vm_event)
        m.mm_init.memmap_pages = events.get("nr_memmap_boot_pages", m.mm_init.memmap_pages)
    m.capture = cap
    m.notes += [f"{path} may not be read: try as root" for path in cap.unreadable]
    return m


def _adopt_marks(m: Machine, zones: list[ZoneInfo]) -> None:
    """Set marks, reserves and per-CPU batches to what /proc/zoneinfo says."""
    for info in zones:
        zone = _zone(m, info.node, info.zone)
        if zone is None:
            continue
        boost = info.pages.get("boost", 0)
        zone.watermark_boost = boost
        for i, name in enumerate(("min", "low", "high", "promo")):
            if name in info.pages:
                zone._watermark[i] = info.pages[name] - boost
        for i, pages in enumerate(info.protection[:MAX_NR_ZONES]):
            zone.lowmem_reserve[i] = pages
        for cpu in info.pagesets:
            if cpu.cpu < len(zone.per_cpu_pageset):
                zone.per_cpu_pageset[cpu.cpu].batch = cpu.values.get("batch", 1)


def from_zoneinfo(cap: capture.Capture) -> Machine:
    """Return a machine in the state of /proc/zoneinfo: sizes, marks and counters as recorded.

    :raises UsageError: if the capture has no populated zone
    :raises ParseError: if the text is damaged
    """
    from mmcore.machine import Machine

    m = from_capture(Machine, cap)
    _adopt_marks(m, m.recorded or [])
    return m


def _compare_zone(info: ZoneInfo, model: ZoneInfo) -> Iterator[Row]:
    where = f"Node {info.node} {info.zone}"
    for name in ("min", "low", "high", "promo", "boost", "spanned", "present", "managed"):
        if name in info.pages:
            yield Row(where, name, model.pages[name], info.pages[name])
    for i, (a, b) in enumerate(zip(model.protection, info.protection, strict=False)):
        yield Row(where, f"protection[{i}]", a, b)
    for name in info.tail:
        if name in model.tail:
            yield Row(where, name, model.tail[name], info.tail[name])
    for cpu, mine in zip(info.pagesets, model.pagesets, strict=False):
        batch = cpu.values.get("batch", 0)
        yield Row(f"{where} cpu {cpu.cpu}", "batch", mine.values["batch"], batch)
        if cpu.threshold is not None and mine.threshold is not None:
            yield Row(f"{where} cpu {cpu.cpu}", "threshold", mine.threshold, cpu.threshold)


def compare(m: Machine) -> list[Row]:
    """Return every number that the model derives beside the one that the kernel printed.

    For a machine from `Machine.from_capture()`.

    :raises UsageError: if the machine comes from no capture
    """
    cap = m.capture
    if cap is None:
        raise UsageError("compare: this machine was not made by from_capture()")
    rows: list[Row] = []
    models = {(z.node, z.zone): z for z in zoneinfo.snapshot(m)}
    for info in m.recorded or []:
        model = models.get((info.node, info.zone))
        if model is None:
            rows.append(Row(f"Node {info.node} {info.zone}", "zone", "absent", "present"))
        else:
            rows += _compare_zone(info, model)
    text = _sysctl(cap, "min_free_kbytes")
    if text is not None:
        rows.append(Row("sysctl", "min_free_kbytes", m.min_free_kbytes, int(text)))
    text = cap.file("/proc/meminfo")
    if text is not None:
        theirs, mine = meminfo.parse(text), meminfo.snapshot(m)
        for name in ("MemTotal", "CommitLimit"):
            if name in theirs:
                rows.append(Row("meminfo", name, mine[name], theirs[name]))
    return rows + list(_compare_log(m, cap))


#: Lines that a machine prints as the kernel does, to the last character.
SAME_LINES = (
    "e820",
    "e820_user",
    "e820_update",
    "e820_remove",
    "last_pfn",
    "ramdisk",
    "ramdisk_new",
    "ramdisk_move",
    "acpi_reserve",
    "srat_mem",
    "numa_merge",
    "numa_distance",
    "node_data",
    "faking",
    "zone_range",
    "zone_empty",
    "movable_start",
    "early_node",
    "initmem",
    "memoryless",
    "unavailable",
    "fallback",
    "zonelists",
    "policy_zone",
    "freeing",
)


def _compare_log(m: Machine, cap: capture.Capture) -> Iterator[Row]:
    """Compare the lines that both print, kind by kind and in order."""
    if cap.dmesg is None:
        return
    theirs = dmesg.parse(cap.dmesg)
    mine = dmesg.parse("\n".join(m.dmesg))
    if theirs.first("e820") is None:
        return
    for kind in SAME_LINES:
        a = [dmesg.TEMPLATES[kind].render(v) for v in mine.of(kind)]
        b = [dmesg.TEMPLATES[kind].render(v) for v in theirs.of(kind)]
        if kind == "node_data" and theirs.has_memblock_log():
            continue  # their addresses are compared by the replay
        if kind in ("fallback", "numa_distance") and UNKNOWN_DISTANCES in m.notes:
            continue
        for i in range(max(len(a), len(b))):
            yield Row(
                f"dmesg {kind}",
                f"line {i + 1}",
                a[i] if i < len(a) else "(none)",
                b[i] if i < len(b) else "(none)",
            )
