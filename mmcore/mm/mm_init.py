"""From memory regions to nodes, zones and free pages.

`free_area_init()` sizes the zones of each node from memblock; `memblock_free_pages()` receives the
free blocks when memblock hands over; `page_alloc_init_late()` adds the pages whose initialisation
was put off; `free_reserved_range()` those that the kernel gives back when it has booted.

Mirrors mm/mm_init.c.

Simplified: struct pages have no state before they are freed (no PG_reserved); the threads that
initialise deferred pages run one after the other, each in ascending order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.cint import ALIGN, ilog2, roundup_pow_of_two
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import KernelBug, UsageError
from mmcore.lib.cmdline import memparse
from mmcore.mm import memblock as mb
from mmcore.mm import page_alloc, shuffle, sparse
from mmcore.mm.mm_types import Page
from mmcore.mm.mmzone import (
    MAX_NR_ZONES,
    MAX_ORDER_NR_PAGES,
    MAX_PAGE_ORDER,
    MIGRATE_MOVABLE,
    PAGES_PER_SECTION,
    PFN_SECTION_SHIFT,
    ZONE_MOVABLE,
    ZONE_NAMES,
    ZONE_NORMAL,
    PgData,
    Zone,
    for_each_populated_zone,
    pageblock_end_pfn,
    pageblock_nr_pages,
    pageblock_order,
    pageblock_start_pfn,
    populated_zone,
    zone_end_pfn,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine

ULONG_MAX = (1 << 64) - 1
MEMINIT_EARLY = 0
MEMINIT_HOTPLUG = 1
HASH_EARLY = 1
ADAPT_SCALE_NPAGES = (64 << 30) >> PAGE_SHIFT
ADAPT_SCALE_SHIFT = 2


@dataclass(slots=True, eq=False)
class MmInit:
    """The file's own variables, as ``m.mm_init``. All sizes are in pages.

    :ivar max_zone_pfns: what free_area_init() was called with
    :ivar zone_movable_pfn: where ZONE_MOVABLE starts, by node that has one
    :ivar required_kernelcore: ``kernelcore=``; likewise ``movablecore=``, in pages or percent
    :ivar nr_kernel_pages: free pages in memblock; sizes the large hash tables
    :ivar present_section_nr: the memory sections there are
    :ivar memmap_pages: pages that hold struct pages
    """

    arch_zone_lowest_possible_pfn: list[int] = field(default_factory=lambda: [0] * MAX_NR_ZONES)
    arch_zone_highest_possible_pfn: list[int] = field(default_factory=lambda: [0] * MAX_NR_ZONES)
    zone_movable_pfn: dict[int, int] = field(default_factory=dict)
    movable_zone: int = 0
    required_kernelcore: int = 0
    required_kernelcore_percent: int = 0
    required_movablecore: int = 0
    required_movablecore_percent: int = 0
    nr_kernel_pages: int = 0
    nr_all_pages: int = 0
    deferred_struct_pages: bool = False
    prev_end_pfn: int = 0
    nr_initialised: int = 0
    present_section_nr: list[int] = field(default_factory=list)
    memmap_pages: int = 0
    hashdist: int = 1


def cmdline_parse_core(p: str) -> tuple[int, int]:
    """Read the value of kernelcore= or movablecore=: a size, or a percentage of memory.

    :return: (pages, percent), one of them 0

    Mirrors mm/mm_init.c:cmdline_parse_core().
    """
    percent = re.match(r"(\d+)%", p)
    if percent:
        return 0, int(percent.group(1))
    return memparse(p)[0] >> PAGE_SHIFT, 0


def early_calculate_totalpages(m: Machine) -> int:
    """Return the pages of all memory, and note which nodes have some.

    Mirrors mm/mm_init.c:early_calculate_totalpages().
    """
    nids: list[int] = []
    totalpages = 0
    for start_pfn, end_pfn, nid in mb.for_each_mem_pfn_range(m.memblock, mb.MAX_NUMNODES):
        totalpages += end_pfn - start_pfn
        if nid not in nids:
            nids.append(nid)
    m.node_states["N_MEMORY"] = sorted(nids)
    return totalpages


def find_usable_zone_for_movable(m: Machine) -> None:
    """Note the highest zone with memory: ZONE_MOVABLE is cut from it.

    Mirrors mm/mm_init.c:find_usable_zone_for_movable().
    """
    s = m.mm_init
    for zone in range(MAX_NR_ZONES - 1, -1, -1):
        if zone == ZONE_MOVABLE:
            continue
        if s.arch_zone_highest_possible_pfn[zone] > s.arch_zone_lowest_possible_pfn[zone]:
            s.movable_zone = zone
            return
    raise KernelBug("VM_BUG_ON: find_usable_zone_for_movable: no zone has memory")


def _movable_from_regions(m: Machine, movable: int, wanted: bool) -> None:
    """Start ZONE_MOVABLE of each node at its lowest region whose flag @movable is @wanted."""
    pfns = m.mm_init.zone_movable_pfn
    mem_below_4gb_not_mirrored = False
    for r in m.memblock.memory.regions:
        if bool(r.flags & movable) != wanted:
            continue
        start = mb.PFN_UP(r.base)
        if movable == mb.MEMBLOCK_MIRROR and start < 1 << (32 - PAGE_SHIFT):
            mem_below_4gb_not_mirrored = True
            continue
        pfns[r.nid] = min(start, pfns.get(r.nid, start))
    if mem_below_4gb_not_mirrored:
        m.pr_info("This configuration results in unmirrored kernel memory.")


def _spread_kernelcore(m: Machine, required_kernelcore: int, usable_nodes: int) -> int:
    """One pass over the nodes: give each its share of kernelcore, the rest to ZONE_MOVABLE.

    :return: kernelcore that found no room yet, in pages
    """
    s = m.mm_init
    usable_startpfn = s.arch_zone_lowest_possible_pfn[s.movable_zone]
    kernelcore_node = required_kernelcore // usable_nodes
    for nid in m.node_states["N_MEMORY"]:
        if required_kernelcore < kernelcore_node:
            kernelcore_node = required_kernelcore // usable_nodes
        kernelcore_remaining = kernelcore_node
        for start_pfn, end_pfn, _ in mb.for_each_mem_pfn_range(m.memblock, nid):
            start_pfn = max(start_pfn, s.zone_movable_pfn.get(nid, 0))
            if start_pfn >= end_pfn:
                continue
            if start_pfn < usable_startpfn:
                kernel_pages = min(end_pfn, usable_startpfn) - start_pfn
                kernelcore_remaining -= min(kernel_pages, kernelcore_remaining)
                required_kernelcore -= min(kernel_pages, required_kernelcore)
                if end_pfn <= usable_startpfn:
                    s.zone_movable_pfn[nid] = end_pfn
                    continue
                start_pfn = usable_startpfn
            size_pages = min(end_pfn - start_pfn, kernelcore_remaining)
            s.zone_movable_pfn[nid] = start_pfn + size_pages
            required_kernelcore -= min(required_kernelcore, size_pages)
            kernelcore_remaining -= size_pages
            if not kernelcore_remaining:
                break
    return required_kernelcore


def _required_kernelcore(s: MmInit, totalpages: int) -> int:
    """Turn kernelcore= and movablecore= into one number of pages."""
    kernelcore, movablecore = s.required_kernelcore, s.required_movablecore
    if s.required_kernelcore_percent:
        kernelcore = totalpages * 100 * s.required_kernelcore_percent // 10000
    if s.required_movablecore_percent:
        movablecore = totalpages * 100 * s.required_movablecore_percent // 10000
    if movablecore:
        movablecore = min(totalpages, ALIGN(movablecore, MAX_ORDER_NR_PAGES))
        kernelcore = max(kernelcore, totalpages - movablecore)
    return kernelcore


def find_zone_movable_pfns_for_nodes(m: Machine) -> None:
    """Find where ZONE_MOVABLE starts on each node: by movable_node, mirroring, or size.

    Mirrors mm/mm_init.c:find_zone_movable_pfns_for_nodes().
    """
    s = m.mm_init
    saved_node_state = list(m.node_states["N_MEMORY"])
    totalpages = early_calculate_totalpages(m)
    usable_nodes = len(m.node_states["N_MEMORY"])
    find_usable_zone_for_movable(m)
    done = False
    if m.memblock.movable_node_enabled:
        _movable_from_regions(m, mb.MEMBLOCK_HOTPLUG, True)
        done = True
    elif m.memblock.mirrored_kernelcore:
        if not m.memblock.system_has_some_mirror:
            m.pr_info("The system has no mirror memory, ignore kernelcore=mirror.")
        elif m.is_kdump_kernel:
            m.pr_info("The system is under kdump, ignore kernelcore=mirror.")
        else:
            _movable_from_regions(m, mb.MEMBLOCK_MIRROR, False)
            done = True
    else:
        required_kernelcore = _required_kernelcore(s, totalpages)
        if required_kernelcore and required_kernelcore < totalpages:
            done = True
            required_kernelcore = _spread_kernelcore(m, required_kernelcore, usable_nodes)
            usable_nodes -= 1
            while usable_nodes and required_kernelcore > usable_nodes:
                required_kernelcore = _spread_kernelcore(m, required_kernelcore, usable_nodes)
                usable_nodes -= 1
    if done:
        for nid in sorted(s.zone_movable_pfn):
            pfn = ALIGN(s.zone_movable_pfn[nid], MAX_ORDER_NR_PAGES)
            s.zone_movable_pfn[nid] = pfn
            if pfn >= get_pfn_range_for_nid(m, nid)[1]:
                del s.zone_movable_pfn[nid]
    m.node_states["N_MEMORY"] = saved_node_state


def early_pfn_to_nid(m: Machine, pfn: int) -> int:
    """Return the node of the memory at @pfn; the first online node when there is none.

    Mirrors mm/mm_init.c:early_pfn_to_nid().
    """
    nid = mb.memblock_search_pfn_nid(m.memblock, pfn)
    if nid < 0:
        online = m.node_states["N_ONLINE"]
        return online[0] if online else 0
    return nid


def early_page_initialised(m: Machine, pfn: int, nid: int) -> bool:
    """Tell whether the struct page of @pfn is initialised by now.

    Mirrors mm/mm_init.c:early_page_initialised().
    """
    pgdat = m.node_data.get(nid)
    return pgdat is None or pfn < pgdat.first_deferred_pfn


def defer_init(m: Machine, nid: int, pfn: int, size: int, end_pfn: int) -> int:
    """Return how many of the @size pages from @pfn on are initialised now.

    The kernel asks page by page; the answer changes only at the first section boundary at which a
    section's worth of the node's last zone is done, so it can be computed for the whole range.

    :param end_pfn: end of the zone
    :return: ``unsigned long``; less than @size when the rest is deferred

    Mirrors mm/mm_init.c:defer_init().
    """
    s = m.mm_init
    pgdat = m.node_data[nid]
    if not m.config.DEFERRED_STRUCT_PAGE_INIT:
        return size
    if end_pfn < pgdat.node_start_pfn + pgdat.node_spanned_pages:
        return size
    if pgdat.first_deferred_pfn != ULONG_MAX:
        return 0
    if s.prev_end_pfn != end_pfn:
        s.prev_end_pfn = end_pfn
        s.nr_initialised = 0
    # The page at @pfn is number nr_initialised + 1 of the zone; deferring needs more than a section.
    first = pfn + max(0, PAGES_PER_SECTION - s.nr_initialised)
    first = ALIGN(first, PAGES_PER_SECTION)
    if first < pfn + size:
        pgdat.first_deferred_pfn = first
        s.nr_initialised += first - pfn + 1
        return first - pfn
    s.nr_initialised += size
    return size


def init_unavailable_range(m: Machine, spfn: int, epfn: int, zone: int, node: int) -> None:
    """Initialise, as reserved, the struct pages of a hole in memory.

    Only pageblocks in sections that exist have struct pages.

    Mirrors mm/mm_init.c:init_unavailable_range().
    Simplified: counts the pages for the kernel's message; holes have no page objects.
    """
    pgcnt = 0
    pfn = spfn
    while pfn < epfn:
        end = min(pageblock_end_pfn(pfn), epfn)
        if m.pfn_valid(pageblock_start_pfn(pfn)):
            pgcnt += end - pfn
            pfn = end
        else:
            # A section has struct pages for all of its frames or for none.
            nr = sparse.next_present_section_nr(m, pfn >> PFN_SECTION_SHIFT)
            pfn = epfn if nr < 0 else nr << PFN_SECTION_SHIFT
    if pgcnt:
        m.pr_info(f"On node {node}, zone {ZONE_NAMES[zone]}: {pgcnt} pages in unavailable ranges")


def _set_pageblocks_movable(zone: Zone, start_pfn: int, end_pfn: int) -> None:
    """Set the type of each pageblock that starts within the range."""
    first = (start_pfn + pageblock_nr_pages - 1 - zone.pageblock_base) >> pageblock_order
    last = (end_pfn - 1 - zone.pageblock_base) >> pageblock_order
    if start_pfn < end_pfn and first <= last:
        zone.pageblock_flags[first : last + 1] = bytes([MIGRATE_MOVABLE]) * (last + 1 - first)


def memmap_init_range(
    m: Machine, size: int, nid: int, zone: int, start_pfn: int, zone_end_pfn: int
) -> None:
    """Initialise the struct pages of a range, except those that can wait.

    A pageblock becomes MIGRATE_MOVABLE if its first page is initialised here; blocks that begin in
    a hole stay at 0, which is MIGRATE_UNMOVABLE.

    Mirrors mm/mm_init.c:memmap_init_range().
    Simplified: no memory hotplug, no ZONE_DEVICE; with kernelcore=mirror the mirrored memory that lies
    within ZONE_MOVABLE's span is not left to ZONE_NORMAL.
    """
    done = defer_init(m, nid, start_pfn, size, zone_end_pfn)
    if done < size:
        m.mm_init.deferred_struct_pages = True
    _set_pageblocks_movable(m.node_data[nid].node_zones[zone], start_pfn, start_pfn + done)


def memmap_init(m: Machine) -> None:
    """Initialise the struct pages of all zones and of the holes between them.

    Mirrors mm/mm_init.c:memmap_init().
    """
    hole_pfn = zone_id = nid = end_pfn = 0
    for start_pfn, end_pfn, nid in mb.for_each_mem_pfn_range(m.memblock, mb.MAX_NUMNODES):
        for j, zone in enumerate(m.node_data[nid].node_zones):
            if not populated_zone(zone):
                continue
            hole_pfn = memmap_init_zone_range(m, zone, start_pfn, end_pfn, hole_pfn)
            zone_id = j
    end_pfn = ALIGN(end_pfn, PAGES_PER_SECTION)
    if hole_pfn < end_pfn:
        init_unavailable_range(m, hole_pfn, end_pfn, zone_id, nid)


def memmap_init_zone_range(
    m: Machine, zone: Zone, start_pfn: int, end_pfn: int, hole_pfn: int
) -> int:
    """Initialise the part of a range that lies in @zone, and the hole before it.

    :return: where the next hole begins

    Mirrors mm/mm_init.c:memmap_init_zone_range().
    """
    end = zone_end_pfn(zone)
    start_pfn = min(max(start_pfn, zone.zone_start_pfn), end)
    end_pfn = min(max(end_pfn, zone.zone_start_pfn), end)
    if start_pfn >= end_pfn:
        return hole_pfn
    memmap_init_range(m, end_pfn - start_pfn, zone.node, zone.zone_idx, start_pfn, end)
    if hole_pfn < start_pfn:
        init_unavailable_range(m, hole_pfn, start_pfn, zone.zone_idx, zone.node)
    return end_pfn


def adjust_zone_range_for_zone_movable(
    m: Machine, nid: int, zone_type: int, node_end_pfn: int, zone_start_pfn: int, zone_end_pfn: int
) -> tuple[int, int]:
    """Return the zone's range after ZONE_MOVABLE has taken its part of the node.

    Mirrors mm/mm_init.c:adjust_zone_range_for_zone_movable().
    """
    s = m.mm_init
    movable = s.zone_movable_pfn.get(nid, 0)
    if movable:
        if zone_type == ZONE_MOVABLE:
            high = s.arch_zone_highest_possible_pfn[s.movable_zone]
            return movable, min(node_end_pfn, high)
        if (
            not m.memblock.mirrored_kernelcore
            and zone_start_pfn < movable
            and zone_end_pfn > movable
        ):
            return zone_start_pfn, movable
        if zone_start_pfn >= movable:
            return zone_end_pfn, zone_end_pfn
    return zone_start_pfn, zone_end_pfn


def __absent_pages_in_range(m: Machine, nid: int, range_start_pfn: int, range_end_pfn: int) -> int:
    """Return the pages of a range that are not memory of @nid.

    Mirrors mm/mm_init.c:__absent_pages_in_range().
    """
    nr_absent = range_end_pfn - range_start_pfn
    for start_pfn, end_pfn, _ in mb.for_each_mem_pfn_range(m.memblock, nid):
        start_pfn = min(max(start_pfn, range_start_pfn), range_end_pfn)
        end_pfn = min(max(end_pfn, range_start_pfn), range_end_pfn)
        nr_absent -= end_pfn - start_pfn
    return nr_absent


def absent_pages_in_range(m: Machine, start_pfn: int, end_pfn: int) -> int:
    """Return the pages of a range that are no memory of any node.

    Mirrors mm/mm_init.c:absent_pages_in_range().
    """
    return __absent_pages_in_range(m, mb.MAX_NUMNODES, start_pfn, end_pfn)


def zone_absent_pages_in_node(
    m: Machine, nid: int, zone_type: int, zone_start_pfn: int, zone_end_pfn: int
) -> int:
    """Return the pages of a zone that are holes.

    With kernelcore=mirror, ZONE_NORMAL and ZONE_MOVABLE overlap: each counts the other's pages as
    holes.

    Mirrors mm/mm_init.c:zone_absent_pages_in_node().
    """
    if zone_start_pfn == zone_end_pfn:
        return 0
    nr_absent = __absent_pages_in_range(m, nid, zone_start_pfn, zone_end_pfn)
    if m.memblock.mirrored_kernelcore and m.mm_init.zone_movable_pfn.get(nid):
        for r in m.memblock.memory.regions:
            start_pfn = min(max(mb.PFN_UP(r.base), zone_start_pfn), zone_end_pfn)
            end_pfn = min(max(mb.PFN_DOWN(r.end), zone_start_pfn), zone_end_pfn)
            mirror = bool(r.flags & mb.MEMBLOCK_MIRROR)
            if (zone_type == ZONE_MOVABLE and mirror) or (zone_type == ZONE_NORMAL and not mirror):
                nr_absent += end_pfn - start_pfn
    return nr_absent


def zone_spanned_pages_in_node(
    m: Machine, nid: int, zone_type: int, node_start_pfn: int, node_end_pfn: int
) -> tuple[int, int, int]:
    """Return (pages, first pfn, end pfn) of a zone on a node, holes included.

    Mirrors mm/mm_init.c:zone_spanned_pages_in_node().
    """
    s = m.mm_init
    zone_low = s.arch_zone_lowest_possible_pfn[zone_type]
    zone_high = s.arch_zone_highest_possible_pfn[zone_type]
    zone_start_pfn = min(max(node_start_pfn, zone_low), zone_high)
    zone_end_pfn = min(max(node_end_pfn, zone_low), zone_high)
    zone_start_pfn, zone_end_pfn = adjust_zone_range_for_zone_movable(
        m, nid, zone_type, node_end_pfn, zone_start_pfn, zone_end_pfn
    )
    if zone_end_pfn < node_start_pfn or zone_start_pfn > node_end_pfn:
        return 0, zone_start_pfn, zone_end_pfn
    zone_end_pfn = min(zone_end_pfn, node_end_pfn)
    zone_start_pfn = max(zone_start_pfn, node_start_pfn)
    return zone_end_pfn - zone_start_pfn, zone_start_pfn, zone_end_pfn


def calc_nr_kernel_pages(m: Machine) -> None:
    """Count the free pages in memblock.

    Mirrors mm/mm_init.c:calc_nr_kernel_pages().
    """
    for start_addr, end_addr, _ in mb.for_each_free_mem_range(m.memblock):
        start_pfn, end_pfn = mb.PFN_UP(start_addr), mb.PFN_DOWN(end_addr)
        if start_pfn < end_pfn:
            m.mm_init.nr_all_pages += end_pfn - start_pfn
    m.mm_init.nr_kernel_pages = m.mm_init.nr_all_pages


def calculate_node_totalpages(
    m: Machine, pgdat: PgData, node_start_pfn: int, node_end_pfn: int
) -> None:
    """Set start, spanned and present pages of each zone of a node.

    Mirrors mm/mm_init.c:calculate_node_totalpages().
    """
    realtotalpages = 0
    for i, zone in enumerate(pgdat.node_zones):
        spanned, zone_start_pfn, zone_end_pfn = zone_spanned_pages_in_node(
            m, pgdat.node_id, i, node_start_pfn, node_end_pfn
        )
        absent = zone_absent_pages_in_node(m, pgdat.node_id, i, zone_start_pfn, zone_end_pfn)
        zone.zone_start_pfn = zone_start_pfn if spanned else 0
        zone.spanned_pages = spanned
        zone.present_pages = zone.present_early_pages = spanned - absent
        realtotalpages += spanned - absent
    pgdat.node_spanned_pages = node_end_pfn - node_start_pfn
    pgdat.node_present_pages = realtotalpages


def init_currently_empty_zone(zone: Zone, zone_start_pfn: int, size: int) -> None:
    """Prepare the free lists and pageblock types of a zone that has a range but no free page.

    Mirrors mm/mm_init.c:init_currently_empty_zone().
    """
    zone.zone_pgdat.nr_zones = max(zone.zone_pgdat.nr_zones, zone.zone_idx + 1)
    zone.zone_start_pfn = zone_start_pfn
    zone.pageblock_base = pageblock_start_pfn(zone_start_pfn)
    blocks = (zone_start_pfn + size - zone.pageblock_base - 1 >> pageblock_order) + 1
    zone.pageblock_flags = bytearray(blocks)
    zone.initialized = True


def free_area_init_core(m: Machine, pgdat: PgData) -> None:
    """Set up the zones of a node; until memblock hands over, all present pages count as managed.

    Mirrors mm/mm_init.c:free_area_init_core().
    """
    for zone in pgdat.node_zones:
        zone.managed_pages = zone.present_pages
        page_alloc.zone_pcp_init(zone)
        if zone.spanned_pages:
            init_currently_empty_zone(zone, zone.zone_start_pfn, zone.spanned_pages)


def get_pfn_range_for_nid(m: Machine, nid: int) -> tuple[int, int]:
    """Return (first pfn, pfn after the last) of the memory of a node; (0, 0) if it has none.

    Mirrors mm/mm_init.c:get_pfn_range_for_nid().
    """
    start_pfn, end_pfn = ULONG_MAX, 0
    for this_start, this_end, _ in mb.for_each_mem_pfn_range(m.memblock, nid):
        start_pfn, end_pfn = min(start_pfn, this_start), max(end_pfn, this_end)
    return (0 if start_pfn == ULONG_MAX else start_pfn), end_pfn


def free_area_init_node(m: Machine, nid: int) -> None:
    """Size and set up one node.

    Simplified: no LRU generations and no counters of the node are set up here.

    Mirrors mm/mm_init.c:free_area_init_node().
    """
    pgdat = m.node_data[nid]
    start_pfn, end_pfn = get_pfn_range_for_nid(m, nid)
    pgdat.node_start_pfn = start_pfn
    if start_pfn != end_pfn:
        m.pr_info(
            f"Initmem setup node {nid} [mem {start_pfn << PAGE_SHIFT:#018x}-"
            f"{(end_pfn << PAGE_SHIFT) - 1:#018x}]"
        )
        calculate_node_totalpages(m, pgdat, start_pfn, end_pfn)
    else:
        m.pr_info(f"Initmem setup node {nid} as memoryless")
    pgdat.first_deferred_pfn = ULONG_MAX
    free_area_init_core(m, pgdat)


def alloc_pgdat(m: Machine, nid: int) -> PgData:
    """Make the structure of a node with its zones, all empty."""
    pgdat = PgData(m, nid)
    pgdat.node_zones = [
        Zone(machine=m, name=name, zone_idx=i, node=nid, zone_pgdat=pgdat)
        for i, name in enumerate(ZONE_NAMES)
    ]
    m.node_data[nid] = pgdat
    return pgdat


def _print_zone_ranges(m: Machine) -> None:
    s = m.mm_init
    m.pr_info("Zone ranges:")
    for i, name in enumerate(ZONE_NAMES):
        if i == ZONE_MOVABLE:
            continue
        low, high = s.arch_zone_lowest_possible_pfn[i], s.arch_zone_highest_possible_pfn[i]
        what = (
            "empty"
            if low == high
            else f"[mem {low << PAGE_SHIFT:#018x}-{(high << PAGE_SHIFT) - 1:#018x}]"
        )
        m.pr_info(f"  {name:<8} {what}")
    m.pr_info("Movable zone start for each node")
    for nid in sorted(s.zone_movable_pfn):
        m.pr_info(f"  Node {nid}: {s.zone_movable_pfn[nid] << PAGE_SHIFT:#018x}")
    m.pr_info("Early memory node ranges")
    for start_pfn, end_pfn, nid in mb.for_each_mem_pfn_range(m.memblock, mb.MAX_NUMNODES):
        m.pr_info(
            f"  node {nid:3d}: [mem {start_pfn << PAGE_SHIFT:#018x}-"
            f"{(end_pfn << PAGE_SHIFT) - 1:#018x}]"
        )


def free_area_init(m: Machine, max_zone_pfn: list[int]) -> None:
    """Initialise all nodes and zones.

    :param max_zone_pfn: ``unsigned long[MAX_NR_ZONES]``; the end of each zone. A zone starts where
        the one before ended, and is empty when both ends are equal.

    Mirrors mm/mm_init.c:free_area_init().
    """
    s = m.mm_init
    start_pfn = mb.memblock_start_of_DRAM(m.memblock) >> PAGE_SHIFT
    for zone in range(MAX_NR_ZONES):
        if zone == ZONE_MOVABLE:
            continue
        end_pfn = max(max_zone_pfn[zone], start_pfn)
        s.arch_zone_lowest_possible_pfn[zone] = start_pfn
        s.arch_zone_highest_possible_pfn[zone] = end_pfn
        start_pfn = end_pfn
    find_zone_movable_pfns_for_nodes(m)
    _print_zone_ranges(m)
    m.nr_node_ids = max(m.node_states["N_POSSIBLE"]) + 1
    for nid in m.node_states["N_POSSIBLE"]:
        if nid not in m.node_states["N_ONLINE"]:
            # sizeof(pg_data_t) of a node that is not online: alloc_offline_node_data()
            mb.memblock_alloc(
                m.memblock,
                m.sizeof_pg_data,
                mb.SMP_CACHE_BYTES,
                "alloc_offline_node_data+0x26/0x50",
            )
        if nid not in m.node_data:
            alloc_pgdat(m, nid)
        free_area_init_node(m, nid)
        pgdat = m.node_data[nid]
        if pgdat.node_present_pages:
            m.node_set_state(nid, "N_MEMORY")
            if any(populated_zone(z) for z in pgdat.node_zones[: ZONE_NORMAL + 1]):
                m.node_set_state(nid, "N_NORMAL_MEMORY")
    calc_nr_kernel_pages(m)
    memmap_init(m)
    if len(m.node_states["N_MEMORY"]) == 1:
        s.hashdist = 0


def memblock_free_pages(m: Machine, pfn: int, order: int) -> None:
    """Take a block from memblock into the buddy allocator, unless its struct pages are deferred.

    Mirrors mm/mm_init.c:memblock_free_pages().
    """
    if m.config.DEFERRED_STRUCT_PAGE_INIT:
        if not early_page_initialised(m, pfn, early_pfn_to_nid(m, pfn)):
            return
    free_pages_core(m, pfn, order)


def free_pages_core(m: Machine, pfn: int, order: int) -> None:
    """Make the head page of a block and pass it to __free_pages_core()."""
    zone = m.pfn_zone(pfn)
    if zone is None:
        raise KernelBug(f"memblock frees pfn {pfn:#x}, which lies in no zone")
    page = zone.mem_map.get(pfn)
    if page is None:
        page = zone.mem_map[pfn] = Page(pfn, zone)
    page_alloc.__free_pages_core(page, order, MEMINIT_EARLY)


def deferred_free_pages(m: Machine, zone: Zone, pfn: int, nr_pages: int) -> None:
    """Free a deferred range: a whole aligned block at once, anything else page by page.

    Mirrors mm/mm_init.c:deferred_free_pages().
    """
    _set_pageblocks_movable(zone, pfn, pfn + nr_pages)
    if nr_pages == MAX_ORDER_NR_PAGES and pfn & (MAX_ORDER_NR_PAGES - 1) == 0:
        free_pages_core(m, pfn, MAX_PAGE_ORDER)
        return
    for page in range(pfn, pfn + nr_pages):
        free_pages_core(m, page, 0)


def for_each_free_mem_pfn_range_in_zone(
    m: Machine, zone: Zone, first_init_pfn: int
) -> Iterator[tuple[int, int]]:
    """Yield the free ranges of a zone from @first_init_pfn on, in pages.

    Mirrors mm/memblock.c:__next_mem_pfn_range_in_zone().
    """
    for spa, epa, _ in mb.for_each_free_mem_range(m.memblock, zone.node):
        spfn, epfn = mb.PFN_UP(spa), mb.PFN_DOWN(epa)
        if zone.zone_start_pfn < epfn and spfn < epfn:
            if zone_end_pfn(zone) <= spfn:
                return
            spfn = max(zone.zone_start_pfn, spfn, first_init_pfn)
            epfn = min(zone_end_pfn(zone), epfn)
            if spfn < epfn:
                yield spfn, epfn


def deferred_init_memmap(m: Machine, pgdat: PgData) -> None:
    """Initialise and free what is left of a node's last zone.

    Mirrors mm/mm_init.c:deferred_init_memmap().
    Simplified: one thread; the kernel splits the range into chunks of sections for the node's CPUs.
    """
    first_init_pfn = pgdat.first_deferred_pfn
    if first_init_pfn == ULONG_MAX:
        return
    pgdat.first_deferred_pfn = ULONG_MAX
    zone = pgdat.node_zones[pgdat.nr_zones - 1]
    for spfn, epfn in for_each_free_mem_pfn_range_in_zone(m, zone, first_init_pfn):
        while spfn < epfn:
            t = min(ALIGN(spfn + 1, MAX_ORDER_NR_PAGES), epfn)
            deferred_free_pages(m, zone, spfn, t - spfn)
            spfn = t
    m.pr_info(f"node {pgdat.node_id} deferred pages initialised in 0ms")


def deferred_grow_zone(m: Machine, zone: Zone, order: int) -> bool:
    """Initialise and free one more section for an allocation that cannot wait.

    :return: whether the zone grew

    Mirrors mm/mm_init.c:deferred_grow_zone().
    """
    nr_pages_needed = ALIGN(1 << order, PAGES_PER_SECTION)
    pgdat = zone.zone_pgdat
    first = pgdat.first_deferred_pfn
    if zone_end_pfn(zone) != pgdat.node_start_pfn + pgdat.node_spanned_pages:
        return False
    nr_pages = 0
    for spfn, epfn in for_each_free_mem_pfn_range_in_zone(m, zone, first):
        while spfn < epfn:
            # Stop at a section boundary only, and only when there is enough.
            if nr_pages >= nr_pages_needed and spfn & (PAGES_PER_SECTION - 1) == 0:
                pgdat.first_deferred_pfn = spfn
                return True
            t = min(ALIGN(spfn + 1, MAX_ORDER_NR_PAGES), epfn)
            deferred_free_pages(m, zone, spfn, t - spfn)
            nr_pages += t - spfn
            spfn = t
    pgdat.first_deferred_pfn = ULONG_MAX
    return nr_pages > 0 or first != ULONG_MAX


def set_zone_contiguous(m: Machine, zone: Zone) -> None:
    """Note that a zone has no hole, so that compaction need not look for one.

    Mirrors mm/mm_init.c:set_zone_contiguous().
    """
    pfn = zone.zone_start_pfn
    end = zone_end_pfn(zone)
    zone.contiguous = all(
        m.pfn_valid(p) for p in (*range(pfn & -PAGES_PER_SECTION, end, PAGES_PER_SECTION), end - 1)
    )


def page_alloc_init_late(m: Machine) -> None:
    """Finish deferred pages, print the totals, discard memblock's arrays, shuffle the free lists.

    Simplified: the limits of files and buffers, hugetlb's pages, page extensions and the sysctls are
    set up elsewhere or not at all.

    Mirrors mm/mm_init.c:page_alloc_init_late().
    """
    for nid in m.node_states["N_MEMORY"]:
        deferred_init_memmap(m, m.node_data[nid])
    mem_init_print_info(m)
    mb.memblock_discard(m)
    for nid in m.node_states["N_MEMORY"]:
        shuffle.shuffle_free_memory(m.node_data[nid])
    for zone in for_each_populated_zone(m):
        set_zone_contiguous(m, zone)


def mem_init_print_info(m: Machine) -> None:
    """Print the "Memory:" line.

    Mirrors mm/mm_init.c:mem_init_print_info().
    """
    image = m.kernel_image
    physpages = sum(pgdat.node_present_pages for pgdat in m.node_data.values())
    free = sum(zone.vm_stat[0] for zone in for_each_populated_zone(m))

    def k(pages: int) -> int:
        return pages << (PAGE_SHIFT - 10)

    m.pr_info(
        f"Memory: {k(free)}K/{k(physpages)}K available ({image.code >> 10}K kernel code, "
        f"{image.rwdata >> 10}K rwdata, {image.rodata >> 10}K rodata, {image.init >> 10}K init, "
        f"{image.bss >> 10}K bss, {k(physpages - m.totalram_pages)}K reserved, 0K cma-reserved)"
    )


def alloc_large_system_hash(
    m: Machine,
    tablename: str,
    bucketsize: int,
    numentries: int,
    scale: int,
    flags: int,
    low_limit: int = 0,
    high_limit: int = 0,
) -> int:
    """Size one of the kernel's large hash tables, and take its memory from memblock if early.

    :return: number of buckets, a power of two

    Mirrors mm/mm_init.c:alloc_large_system_hash().
    Simplified: tables made after memblock is gone are sized and reported, not allocated; where memory
    is short, no smaller table is tried.
    """
    s = m.mm_init
    if not numentries:
        numentries = ALIGN(s.nr_kernel_pages, (1 << 20) // PAGE_SIZE)
        if not high_limit:
            adapt = ADAPT_SCALE_NPAGES
            while adapt < numentries:
                scale += 1
                adapt <<= ADAPT_SCALE_SHIFT
        if scale > PAGE_SHIFT:
            numentries >>= scale - PAGE_SHIFT
        else:
            numentries <<= PAGE_SHIFT - scale
        if numentries * bucketsize < PAGE_SIZE:
            numentries = PAGE_SIZE // bucketsize
    numentries = roundup_pow_of_two(numentries)
    limit = high_limit or (s.nr_all_pages << PAGE_SHIFT >> 4) // bucketsize
    numentries = min(max(numentries, low_limit), limit, 0x80000000)
    log2qty = ilog2(numentries)
    size = bucketsize << log2qty
    where = "linear"
    order = max(0, (size - 1 >> PAGE_SHIFT).bit_length())
    if flags & HASH_EARLY:
        caller = "alloc_large_system_hash+0x21b/0x2d0"
        mb.memblock_alloc(m.memblock, size, mb.SMP_CACHE_BYTES, caller)
    elif order > MAX_PAGE_ORDER or s.hashdist:
        where = "vmalloc hugepage" if size >= 2 << 20 else "vmalloc"
    m.pr_info(
        f"{tablename} hash table entries: {1 << log2qty} (order: {order}, {size} bytes, {where})"
    )
    return 1 << log2qty


def free_reserved_range(m: Machine, start_pfn: int, end_pfn: int) -> int:
    """Give reserved pages to the buddy allocator, one by one.

    :return: pages freed
    """
    if start_pfn > end_pfn:
        raise UsageError(f"free_reserved_range: {start_pfn:#x} lies behind {end_pfn:#x}")
    for pfn in range(start_pfn, end_pfn):
        zone = m.pfn_zone(pfn)
        if zone is None:
            continue
        page = zone.mem_map.get(pfn)
        if page is None:
            page = zone.mem_map[pfn] = Page(pfn, zone)
        page._refcount = 1
        page_alloc.free_reserved_page(page)
    return end_pfn - start_pfn


__all__ = [
    n
    for n, v in list(globals().items())
    if not n.startswith("_") and (n.isupper() or getattr(v, "__module__", None) == __name__)
]
