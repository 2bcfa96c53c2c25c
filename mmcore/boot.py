"""What `Machine.boot()` is made of: reading its arguments, and the kernel's start-up in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from mmcore.arch.x86 import e820, early_users, setup
from mmcore.arch.x86.e820 import E820Entry, E820Table
from mmcore.arch.x86.numa import SratNode
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import UsageError
from mmcore.mm import khugepaged, mm_init, page_alloc, vmstat
from mmcore.mm import memblock as mb
from mmcore.mm.gfp import __GFP_BITS_MASK
from mmcore.mm.mm_types import Page
from mmcore.mm.mmzone import MIGRATE_MOVABLE, ZONE_NAMES, Zone, zone_end_pfn
from mmcore.mm.numa_memblks import LOCAL_DISTANCE, REMOTE_DISTANCE
from mmcore.proc import dmesg, memblock_log
from mmcore.proc.dmesg import BootLog

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = [
    "BootPlan",
    "MemoryMap",
    "Nodes",
    "check_memory_map",
    "check_range",
    "default_plan",
    "do_initcalls",
    "free_kernel_memory",
    "freed_pfn",
    "make_bare_zone",
    "make_plan",
    "parse_cpulist",
    "parse_size",
    "pc_memory_map",
    "replayed_memblock",
    "set_initrd",
    "set_memory_map",
    "set_nodes",
    "start_kernel",
]

MapEntry: TypeAlias = E820Entry | tuple[int, int] | tuple[int, int, int | str]
MemoryMap: TypeAlias = str | E820Table | Iterable[MapEntry]
Nodes: TypeAlias = int | Sequence[int | str | SratNode]

PHYS_MAX = 1 << 52
RAM_MAX = 16 << 40
ACPI_DATA = 0x20000
INITRD_DEFAULT = 0x1E8000
HT_HOLE = 0xFD00000000
SIZE_RE = re.compile(r"(\d+)([KMGT]?)(i?B)?", re.IGNORECASE)


def parse_size(text: int | str) -> int:
    """Return a size in bytes: an int as it is, a text such as "512M" or "1T" by its unit.

    :raises UsageError: if it is neither
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    match = SIZE_RE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise UsageError(
            f"size {text!r}: give bytes, or a number with K, M, G or T, such as '512M'"
        )
    return int(match.group(1)) << 10 * " KMGT".index(match.group(2).upper() or " ")


def check_range(what: str, start: int, size: int) -> tuple[int, int]:
    """Return (@start, @size) if it is a range of physical memory.

    :raises UsageError: if it is empty, negative or too high
    """
    if not (isinstance(start, int) and isinstance(size, int)):
        raise UsageError(f"{what}: ({start!r}, {size!r}) must be (address, size) in bytes")
    if start < 0 or size <= 0 or start + size > PHYS_MAX:
        raise UsageError(
            f"{what}: ({start:#x}, {size:#x}) must be an address and a size above 0, below 4 PiB"
        )
    return start, size


def pc_memory_map(size: int) -> E820Table:
    """Return the map that firmware gives on QEMU's standard PC with @size bytes of memory.

    Up to 3.5 GiB lie below 4 GiB, else 3 GiB there and the rest above; the area at the top of
    low memory holds ACPI tables. Memory that would reach 1012 GiB starts at 1 TiB.
    """
    below = size if size < 0xE0000000 else 0xC0000000
    table = E820Table()
    ram, reserved = e820.E820_TYPE_RAM, e820.E820_TYPE_RESERVED
    entries = [
        (0, 0x9FC00, ram),
        (0x9FC00, 0x400, reserved),
        (0xF0000, 0x10000, reserved),
        (0x100000, below - ACPI_DATA - 0x100000, ram),
        (below - ACPI_DATA, ACPI_DATA, reserved),
        (0xFFFC0000, 0x40000, reserved),
    ]
    if size > below:
        start = 1 << 32 if (1 << 32) + size - below <= HT_HOLE else 1 << 40
        high = (start, size - below, ram)
        hole = (HT_HOLE, 0x300000000, reserved)
        entries += [high, hole] if start < HT_HOLE else [hole, high]
    else:
        entries.append((HT_HOLE, 0x300000000, reserved))
    table.entries = [E820Entry(*entry) for entry in entries]
    return table


def _entry(item: MapEntry) -> E820Entry:
    if isinstance(item, E820Entry):
        return E820Entry(item.addr, item.size, item.type)
    if not isinstance(item, tuple) or len(item) not in (2, 3):
        raise UsageError(
            f"memory map entry {item!r}: give (address, size) or (address, size, type)"
        )
    type: int | str = item[2] if len(item) == 3 else e820.E820_TYPE_RAM
    if isinstance(type, str):
        names = {text: number for number, text in e820.E820_TYPE_TEXT.items()}
        names["usable"] = e820.E820_TYPE_RAM
        if type not in names:
            raise UsageError(f"memory map entry {item!r}: type is one of {', '.join(names)}")
        type = names[type]
    return E820Entry(*check_range("memory map", item[0], item[1]), type)


def _refuse_overlaps(entries: list[E820Entry]) -> None:
    last: E820Entry | None = None
    for entry in sorted(entries, key=lambda e: e.addr):
        if last is not None and entry.addr < last.end:
            raise UsageError(
                f"memory map: {entry} overlaps {last}; pass an E820Table to have overlaps "
                "resolved as the kernel does"
            )
        last = entry


def check_memory_map(m: Machine, entries: list[E820Entry]) -> None:
    """Check that @m can boot with these entries.

    :raises UsageError: if they have no RAM, too much of it, or no room for the kernel
    """
    image = m.kernel_image
    total = sum(e.size for e in entries if e.type == e820.E820_TYPE_RAM)
    if total > RAM_MAX or any(e.type == e820.E820_TYPE_RAM and e.end > 1 << 46 for e in entries):
        raise UsageError(f"memory map: {total:#x} bytes of RAM: at most 16 TiB, below 64 TiB")
    if not any(e.type == e820.E820_TYPE_RAM and e.size > 0 for e in entries):
        raise UsageError("memory map: it is empty: no entry is usable RAM")
    if not any(
        e.type == e820.E820_TYPE_RAM
        and e.addr <= image.text
        and e.end >= image.end_of_kernel_reserve + image.brk
        for e in entries
    ):
        raise UsageError(
            f"memory map: no usable entry holds the kernel image at [mem {image.text:#x}-"
            f"{image.end_of_kernel_reserve + image.brk - 1:#x}]"
        )


def set_memory_map(m: Machine, memory_map: MemoryMap) -> None:
    """Give @m the firmware's memory map.

    :raises UsageError: if the map has no RAM, overlaps itself, or has no room for the kernel
    """
    if isinstance(memory_map, str) and "e820" in memory_map:
        entries = dmesg.parse_e820(memory_map)
    elif isinstance(memory_map, (str, int)):
        size = parse_size(memory_map)
        if size < 64 << 20:
            raise UsageError(
                f"memory of {size} bytes: the kernel needs at least 64M; use bare_zone() for less"
            )
        if size > RAM_MAX or size % PAGE_SIZE:
            raise UsageError(f"memory of {size} bytes: at most 16T, in whole pages")
        entries = pc_memory_map(size).entries
    elif isinstance(memory_map, E820Table):
        entries = [_entry(e) for e in memory_map.entries]
    else:
        entries = [_entry(e) for e in memory_map]
        _refuse_overlaps(entries)
    check_memory_map(m, entries)
    m.e820_table.entries = entries


def set_initrd(m: Machine, initrd: tuple[int, int] | str | None) -> None:
    """Place the initial RAM disk: where it is said, or at the top of memory below 4 GiB."""
    if initrd is None:
        return
    if isinstance(initrd, str):
        low = [
            e.end
            for e in m.e820_table.entries
            if e.type == e820.E820_TYPE_RAM and e.end <= 1 << 32 and e.size > 4 * INITRD_DEFAULT
        ]
        if not low or max(low) < m.kernel_image.end_of_kernel_reserve + (8 << 20):
            return
        end = max(low) & -PAGE_SIZE
        m.boot_params.initrd = (end - INITRD_DEFAULT, end)
        return
    start, end = initrd
    check_range("initrd", start, end - start)
    m.boot_params.initrd = (start, end)


def parse_cpulist(text: str) -> list[int]:
    """Return the CPUs of a list such as "0-1,4"; none for an empty text.

    :raises UsageError: if it is not such a list
    """
    cpus: list[int] = []
    for part in text.split(",") if text else []:
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise UsageError(f"CPU list {text!r}: give numbers and ranges, such as '0-1,4'")
        cpus += range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1)
    return cpus


def _ram_ranges(entries: list[E820Entry]) -> Iterator[tuple[int, int]]:
    """Yield RAM as firmware describes it to NUMA tables, with the holes that belong to it."""
    for entry in sorted(entries, key=lambda e: e.addr):
        if entry.type == e820.E820_TYPE_RAM:
            yield entry.addr, entry.end


def _pc_ram_ranges(m: Machine) -> list[tuple[int, int]]:
    """Return RAM with its reserved edges: up to 640 KiB, and to the end of the ACPI area."""
    ranges: list[tuple[int, int]] = []
    entries = sorted(m.e820_table.entries, key=lambda e: e.addr)
    for i, entry in enumerate(entries):
        if entry.type != e820.E820_TYPE_RAM:
            continue
        end = entry.end
        if i + 1 < len(entries) and entries[i + 1].addr == end and entries[i + 1].size <= ACPI_DATA:
            end = entries[i + 1].end
        ranges.append((entry.addr, end))
    return ranges


def _split_by_size(m: Machine, sizes: list[int]) -> list[list[tuple[int, int]]]:
    """Deal memory out to nodes of the given sizes, lowest address first."""
    ranges = _pc_ram_ranges(m)
    # The legacy area counts as memory of the machine, so that 512M is 512M.
    total = sum(end - start for start, end in ranges)
    low_hole = 0x60000 if ranges and ranges[0][1] == 0xA0000 else 0
    if sum(sizes) not in (total, total + low_hole):
        raise UsageError(
            f"nodes: sizes add up to {sum(sizes):#x} bytes, the memory map has {total + low_hole:#x}"
        )
    nodes: list[list[tuple[int, int]]] = []
    for size in sizes:
        mine: list[tuple[int, int]] = []
        while size and ranges:
            start, end = ranges.pop(0)
            take = min(size, end - start)
            mine.append((start, start + take))
            size -= take
            if start == 0 and low_hole and end == 0xA0000:
                size = max(0, size - low_hole)
            if start + take < end:
                ranges.insert(0, (start + take, end))
        nodes.append(mine)
    return nodes


def set_nodes(
    m: Machine,
    nodes: Nodes | None,
    distances: Mapping[tuple[int, int], int] | Sequence[Sequence[int]] | None,
) -> None:
    """Write the firmware's NUMA tables.

    :raises UsageError: if sizes, CPUs or distances do not fit the machine
    """
    if nodes is None:
        if distances is not None:
            raise UsageError("distances are given without nodes")
        return
    if isinstance(nodes, int):
        if nodes < 1:
            raise UsageError(f"nodes is {nodes}; give at least 1")
        total = sum(end - start for start, end in _pc_ram_ranges(m))
        if _pc_ram_ranges(m)[0][1] == 0xA0000:
            total += 0x60000
        each = total // nodes & -(2 << 20)
        nodes = [each] * (nodes - 1) + [total - each * (nodes - 1)]
    specs = list(nodes)
    if not specs:
        raise UsageError("nodes is an empty list; give None for a machine without NUMA")
    if all(isinstance(spec, SratNode) for spec in specs):
        m.srat = [spec for spec in specs if isinstance(spec, SratNode)]
    else:
        m.srat = _nodes_from_sizes(m, specs)
    _check_cpus(m)
    m.slit = _distance_matrix(len(m.srat), distances)


def _nodes_from_sizes(m: Machine, specs: Sequence[int | str | SratNode]) -> list[SratNode]:
    sizes: list[int] = []
    cpus: list[list[int] | None] = []
    for spec in specs:
        if isinstance(spec, SratNode):
            raise UsageError("nodes: give either sizes or SratNode objects, not both")
        size, colon, cpulist = str(spec).partition(":") if isinstance(spec, str) else (spec, "", "")
        sizes.append(parse_size(size))
        cpus.append(parse_cpulist(cpulist) if colon else None)
    memory = _split_by_size(m, sizes)
    if all(c is None for c in cpus):
        n = len(sizes)
        dealt: list[list[int]] = [[] for _ in sizes]
        for cpu in range(m.cpus):
            dealt[cpu * n // m.cpus if m.cpus >= n else cpu].append(cpu)
        cpus = list(dealt)
    return [SratNode(i, memory[i], cpus[i] or []) for i in range(len(sizes))]


def _check_cpus(m: Machine) -> None:
    seen: list[int] = []
    for srat in m.srat:
        for cpu in srat.cpus:
            if not 0 <= cpu < m.cpus:
                raise UsageError(f"nodes: CPU {cpu} of node {srat.pxm}: there are {m.cpus} CPUs")
            if cpu in seen:
                raise UsageError(f"nodes: CPU {cpu} is on two nodes")
            seen.append(cpu)


def _distance_matrix(
    n: int, distances: Mapping[tuple[int, int], int] | Sequence[Sequence[int]] | None
) -> list[list[int]]:
    """Return the SLIT, or nothing if no distance is given."""
    if distances is None:
        return []
    matrix = [[LOCAL_DISTANCE if i == j else REMOTE_DISTANCE for j in range(n)] for i in range(n)]
    if isinstance(distances, Mapping):
        for (a, b), distance in distances.items():
            if not (0 <= a < n and 0 <= b < n):
                raise UsageError(f"distances: ({a}, {b}): there are {n} nodes")
            matrix[a][b] = distance
            if (b, a) not in distances:
                matrix[b][a] = distance
    else:
        matrix = [list(row) for row in distances]
        if len(matrix) != n or any(len(row) != n for row in matrix):
            raise UsageError(f"distances: give a matrix of {n} by {n}")
    for i, row in enumerate(matrix):
        for j, distance in enumerate(row):
            if not LOCAL_DISTANCE <= distance <= 254 or (i == j and distance != LOCAL_DISTANCE):
                raise UsageError(
                    f"distances: {distance} from {i} to {j}: 10 to itself, else 10-254"
                )
    return matrix


def _zone_ranges(m: Machine) -> Iterator[tuple[int, int, Zone]]:
    """Yield (first pfn, end pfn, zone) of all memory, in ascending order."""
    for start_pfn, end_pfn, nid in mb.for_each_mem_pfn_range(m.memblock, mb.MAX_NUMNODES):
        for zone in m.node_data[nid].node_zones:
            start, end = max(start_pfn, zone.zone_start_pfn), min(end_pfn, zone_end_pfn(zone))
            if start < end:
                yield start, end, zone


def _set_node_distance(m: Machine) -> None:
    n = m.nr_node_ids
    s = m.numa
    m.node_distance = [
        [
            (
                s.distance[i][j]
                if i < s.distance_cnt and j < s.distance_cnt
                else LOCAL_DISTANCE if i == j else REMOTE_DISTANCE
            )
            for j in range(n)
        ]
        for i in range(n)
    ]
    m.node_load = [0] * n
    m.nr_online_nodes = len(m.node_states["N_ONLINE"])


def mm_core_init(m: Machine, plan: BootPlan) -> None:
    """Build the zonelists and hand memory from memblock to the buddy allocator.

    Mirrors mm/mm_init.c:mm_core_init().
    Simplified: the slab allocator and vmalloc, which come next, belong to other chapters.
    """
    page_alloc.build_all_zonelists(m, None)
    early_users.swiotlb_init(m)
    if plan.memblock is not None:
        m.memblock = plan.memblock(m)
    mb.memblock_free_all(m)
    m.memblock.slab_is_available = True


@dataclass(slots=True, eq=False)
class BootPlan:
    """What a boot takes from a record instead of computing it.

    :ivar memblock: gives what memblock holds when it hands over, from a memblock=debug log
    :ivar early_frees: (what, first pfn, pages) given back before the "Memory:" line
    :ivar late_frees: those given back after watermarks were computed
    :ivar fix_managed: sets the managed pages that are known from elsewhere, before watermarks
    """

    memblock: Callable[[Machine], mb.Memblock] | None = None
    early_frees: list[tuple[str, int, int]] = field(default_factory=list)
    late_frees: list[tuple[str, int, int]] = field(default_factory=list)
    fix_managed: Callable[[Machine], None] | None = None


def default_plan(m: Machine) -> BootPlan:
    """Return what the reference kernel gives back when it has booted."""
    image = m.kernel_image
    ranges = [
        ("SMP alternatives", image.smp_locks),
        ("unused decrypted", image.decrypted),
        ("unused kernel image (initmem)", image.initmem),
        ("unused kernel image (rodata/data gap)", image.rodata_gap),
    ]
    if m.boot_params.initrd is not None:
        start, end = m.boot_params.initrd
        ranges.insert(1, ("initrd", (start, end + PAGE_SIZE - 1 & -PAGE_SIZE)))
    frees = [
        (what, start >> PAGE_SHIFT, end - start >> PAGE_SHIFT)
        for what, (start, end) in ranges
        if end > start
    ]
    early = [f for f in frees if f[0] == "SMP alternatives"]
    return BootPlan(early_frees=early, late_frees=[f for f in frees if f not in early])


def replayed_memblock(m: Machine, log: BootLog) -> mb.Memblock:
    """Return memblock as a memblock=debug log leaves it, and keep the comparison with the model."""

    def set_nodes(target: mb.Memblock) -> None:
        # What numa_memblks_init() does between the dumps of the log.
        mb.memblock_set_bottom_up(target, False)
        for type in (target.memory, target.reserved):
            mb.memblock_set_node(target, 0, mb.ULLONG_MAX, type, mb.NUMA_NO_NODE)
        for type in (target.memory, target.reserved):
            for blk in m.numa.meminfo:
                mb.memblock_set_node(target, blk.start, blk.end - blk.start, type, blk.nid)

    limit = m.max_pfn << PAGE_SHIFT
    movable = m.memblock.movable_node_enabled
    m.memblock_replay = memblock_log.replay(log, limit, set_nodes, movable_node=movable)
    m.memblock_replay.memblock.pr_info = m.pr_info
    return m.memblock_replay.memblock


def _only_reserved(m: Machine) -> mb.Memblock:
    """Return memblock with the machine's memory and what its user reserved."""
    memblock = mb.Memblock(pr_info=m.pr_info, can_resize=True)
    memblock.memory.regions = m.memblock.memory.regions
    memblock.memory.total_size = m.memblock.memory.total_size
    for start, size in m.boot_params.reserved:
        mb.memblock_reserve(memblock, start, size)
    return memblock


def make_plan(m: Machine, log: str | None, reserved_is_all: bool) -> BootPlan:
    """Return the plan for what `Machine.boot()` was given.

    :raises UsageError: if both ways to say what is reserved are used, or the log has no memblock dump
    """
    plan = default_plan(m)
    if log is not None and reserved_is_all:
        raise UsageError("memblock_log and reserved_is_all: give one of them")
    if log is not None:
        parsed = dmesg.parse(log)
        if not parsed.has_memblock_log():
            raise UsageError("memblock_log: there is no 'MEMBLOCK configuration:' line in it")
        plan.memblock = lambda m: replayed_memblock(m, parsed)
    if reserved_is_all:
        plan.memblock = _only_reserved
        plan.early_frees, plan.late_frees = [], []
    return plan


def freed_pfn(m: Machine, what: str, start_pfn: int) -> int:
    """Return where a planned release begins: the RAM disk may have been moved."""
    if what == "initrd" and m.boot_params.initrd is not None:
        return m.boot_params.initrd[0] >> PAGE_SHIFT
    return start_pfn


def free_kernel_memory(m: Machine, what: str, start_pfn: int, pages: int) -> None:
    """Give back memory that only booting needed, and print the size.

    Mirrors mm/page_alloc.c:free_reserved_area().
    Simplified: no poison.
    """
    start_pfn = freed_pfn(m, what, start_pfn)
    mm_init.free_reserved_range(m, start_pfn, start_pfn + pages)
    if pages:
        m.pr_info(f"Freeing {what} memory: {pages << (PAGE_SHIFT - 10)}K")


def start_kernel(m: Machine, plan: BootPlan | None = None) -> None:
    """Boot: from the firmware's map to a kernel that has given back its init memory.

    Mirrors init/main.c:start_kernel().
    Simplified: memory only, and in the order of a kernel that starts init from an initial RAM disk.
    """
    setup.setup_arch(m)
    m.set_pfn_ranges(_zone_ranges(m))
    for nid in sorted(set(m.cpu_to_node)):
        m.node_set_state(nid, "N_CPU")
    _set_node_distance(m)
    early_users.early_allocations(m)
    plan = plan or default_plan(m)
    mm_core_init(m, plan)
    page_alloc.setup_per_cpu_pageset(m)
    m.node_to_cpumask_ready = True
    m.num_online_cpus = m.cpus
    for free in plan.early_frees:
        free_kernel_memory(m, *free)
    m.gfp_allowed_mask = __GFP_BITS_MASK
    mm_init.page_alloc_init_late(m)
    if plan.fix_managed is not None:
        plan.fix_managed(m)
    do_initcalls(m)
    for free in plan.late_frees:
        free_kernel_memory(m, *free)


def do_initcalls(m: Machine) -> None:
    """Run the initcalls that compute reserves from what is managed at this moment.

    Mirrors init/main.c:do_initcalls().
    """
    for word in m.boot_params.cmdline.split():
        name, _, value = word.partition("=")
        if name == "transparent_hugepage" and value in ("always", "madvise", "never"):
            m.transparent_hugepage = value
    page_alloc.init_per_zone_wmark_min(m)
    vmstat.refresh_zone_stat_thresholds(m)
    khugepaged.hugepage_init(m)
    for cpu in range(m.cpus):  # cacheinfo_cpu_online()
        page_alloc.setup_pcp_cacheinfo(m, cpu)


def make_bare_zone(m: Machine, nr_pages: int, start_pfn: int, name: str, free: bool) -> Zone:
    """Build the zone of `mmcore.machine.bare_zone()` on machine @m."""
    if name not in ZONE_NAMES:
        raise UsageError(f"bare_zone: {name!r} is no zone; there are {', '.join(ZONE_NAMES)}")
    if nr_pages <= 0 or start_pfn < 0 or start_pfn + nr_pages > PHYS_MAX >> PAGE_SHIFT:
        raise UsageError(
            f"bare_zone: {nr_pages} pages from pfn {start_pfn}: give at least 1 page, from pfn 0 up"
        )
    pgdat = mm_init.alloc_pgdat(m, 0)
    pgdat.node_start_pfn = start_pfn
    pgdat.node_spanned_pages = pgdat.node_present_pages = nr_pages
    zone = pgdat.node_zones[ZONE_NAMES.index(name)]
    zone.zone_start_pfn = start_pfn
    zone.spanned_pages = zone.present_pages = zone.present_early_pages = nr_pages
    for state in ("N_POSSIBLE", "N_ONLINE", "N_MEMORY", "N_NORMAL_MEMORY", "N_CPU"):
        m.node_set_state(0, state)
    mm_init.free_area_init_core(m, pgdat)
    zone.pageblock_flags[:] = bytes([MIGRATE_MOVABLE]) * len(zone.pageblock_flags)
    m.gfp_allowed_mask = __GFP_BITS_MASK
    page_alloc.build_all_zonelists(m, None)
    m.page_group_by_mobility_disabled = False
    zone.managed_pages = 0
    if free:
        for pfn, order in mb.free_blocks(start_pfn, start_pfn + nr_pages):
            page = zone.mem_map[pfn] = Page(pfn, zone)
            page_alloc.__free_pages_core(page, order)
    m.node_to_cpumask_ready = True
    m.num_online_cpus = m.cpus
    page_alloc.setup_per_cpu_pageset(m)
    m.totalram_pages = zone.managed_pages
    m.dmesg.clear()
    return zone
