"""Nodes, zones, free areas, per-CPU lists and zonelists.

Mirrors include/linux/mmzone.h and include/linux/pageblock-flags.h for x86-64 with 4 KiB pages.

Simplified: the migratetype of a pageblock is one byte in its zone (the kernel has four bits in the
memory section, the fourth being the compaction skip bit); zone statistics have no per-CPU part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmcore.lib.list import ListHead
from mmcore.mm.vmstat import NR_VM_NODE_STAT_ITEMS, NR_VM_NUMA_EVENT_ITEMS, NR_VM_ZONE_STAT_ITEMS

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.mm_types import LargeFolio, Page

MAX_PAGE_ORDER = 10
NR_PAGE_ORDERS = MAX_PAGE_ORDER + 1
MAX_ORDER_NR_PAGES = 1 << MAX_PAGE_ORDER
PAGE_ALLOC_COSTLY_ORDER = 3
HPAGE_PMD_ORDER = 9

# enum migratetype; the reference kernel has no CMA, so ISOLATE follows HIGHATOMIC.
MIGRATE_UNMOVABLE = 0
MIGRATE_MOVABLE = 1
MIGRATE_RECLAIMABLE = 2
MIGRATE_PCPTYPES = 3
MIGRATE_HIGHATOMIC = 3
MIGRATE_ISOLATE = 4
MIGRATE_TYPES = 5
#: mm/page_alloc.c:migratetype_names
MIGRATETYPE_NAMES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")
#: mm/show_mem.c:show_migration_types()
MIGRATETYPE_LETTERS = "UMEHI"

# enum zone_type
ZONE_DMA = 0
ZONE_DMA32 = 1
ZONE_NORMAL = 2
ZONE_MOVABLE = 3
ZONE_DEVICE = 4
MAX_NR_ZONES = 5
#: mm/page_alloc.c:zone_names
ZONE_NAMES = ("DMA", "DMA32", "Normal", "Movable", "Device")

# enum zone_watermarks
WMARK_MIN = 0
WMARK_LOW = 1
WMARK_HIGH = 2
WMARK_PROMO = 3
NR_WMARK = 4

# enum zone_flags: bit numbers in zone->flags
ZONE_BOOSTED_WATERMARK = 0
ZONE_RECLAIM_ACTIVE = 1
ZONE_BELOW_HIGH = 2

# pcp->flags
PCPF_PREV_FREE_HIGH_ORDER = 1
PCPF_FREE_HIGH_BATCH = 2
NR_PCP_THP = 2
NR_LOWORDER_PCP_LISTS = MIGRATE_PCPTYPES * (PAGE_ALLOC_COSTLY_ORDER + 1)
NR_PCP_LISTS = NR_LOWORDER_PCP_LISTS + NR_PCP_THP

# Which of a node's two zonelists.
ZONELIST_FALLBACK = 0
ZONELIST_NOFALLBACK = 1

SECTION_SIZE_BITS = 27
PFN_SECTION_SHIFT = SECTION_SIZE_BITS - 12
PAGES_PER_SECTION = 1 << PFN_SECTION_SHIFT

pageblock_order = min(HPAGE_PMD_ORDER, MAX_PAGE_ORDER)
pageblock_nr_pages = 1 << pageblock_order


def pageblock_start_pfn(pfn: int) -> int:
    """Return the first pfn of the pageblock that holds @pfn.

    Mirrors include/linux/pageblock-flags.h:pageblock_start_pfn().
    """
    return pfn & -pageblock_nr_pages


def pageblock_end_pfn(pfn: int) -> int:
    """Return the first pfn after the pageblock that holds @pfn.

    Mirrors include/linux/pageblock-flags.h:pageblock_end_pfn().
    """
    return (pfn & -pageblock_nr_pages) + pageblock_nr_pages


class FreeArea:
    """``struct free_area``: the free blocks of one order, a list per migratetype.

    Mirrors include/linux/mmzone.h:free_area.
    """

    __slots__ = ("free_list", "nr_free")

    def __init__(self) -> None:
        self.free_list: list[ListHead] = [ListHead() for _ in range(MIGRATE_TYPES)]
        self.nr_free = 0


class PerCpuPages:
    """``struct per_cpu_pages``: the pages that one CPU keeps of one zone.

    Mirrors include/linux/mmzone.h:per_cpu_pages.
    """

    __slots__ = (
        "alloc_factor",
        "batch",
        "count",
        "expire",
        "flags",
        "free_count",
        "high",
        "high_max",
        "high_min",
        "lists",
    )

    def __init__(self) -> None:
        self.count = 0
        self.high = 0
        self.high_min = 0
        self.high_max = 0
        self.batch = 1
        self.flags = 0
        self.alloc_factor = 0
        self.expire = 0
        self.free_count = 0
        self.lists: list[ListHead] = [ListHead() for _ in range(NR_PCP_LISTS)]


@dataclass(slots=True, eq=False)
class Zone:
    """``struct zone``: a range of one node's memory with its own free lists and watermarks.

    Sizes are in pages. ``mem_map`` holds the `Page` objects that exist, by pfn;
    ``large_folios`` the words of large folios that lie in their tail pages, by pfn of the head;
    ``pageblock_flags`` one migratetype byte per pageblock, counted from ``pageblock_base``, the
    pageblock that holds ``zone_start_pfn``.

    Mirrors include/linux/mmzone.h:zone.
    """

    machine: Machine = field(repr=False)
    name: str
    zone_idx: int
    node: int
    zone_pgdat: PgData = field(repr=False)
    _watermark: list[int] = field(default_factory=lambda: [0] * NR_WMARK)
    watermark_boost: int = 0
    nr_reserved_highatomic: int = 0
    nr_free_highatomic: int = 0
    lowmem_reserve: list[int] = field(default_factory=lambda: [0] * MAX_NR_ZONES)
    per_cpu_pageset: list[PerCpuPages] = field(default_factory=list, repr=False)
    pageset_high_min: int = 0
    pageset_high_max: int = 0
    pageset_batch: int = 1
    zone_start_pfn: int = 0
    managed_pages: int = 0
    spanned_pages: int = 0
    present_pages: int = 0
    present_early_pages: int = 0
    nr_isolate_pageblock: int = 0
    initialized: bool = False
    free_area: list[FreeArea] = field(
        default_factory=lambda: [FreeArea() for _ in range(NR_PAGE_ORDERS)], repr=False
    )
    flags: int = 0
    percpu_drift_mark: int = 0
    stat_threshold: int = 0
    compact_considered: int = 0
    compact_defer_shift: int = 0
    compact_order_failed: int = 0
    contiguous: bool = False
    vm_stat: list[int] = field(default_factory=lambda: [0] * NR_VM_ZONE_STAT_ITEMS, repr=False)
    vm_numa_event: list[int] = field(
        default_factory=lambda: [0] * NR_VM_NUMA_EVENT_ITEMS, repr=False
    )
    mem_map: dict[int, Page] = field(default_factory=dict, repr=False)
    large_folios: dict[int, LargeFolio] = field(default_factory=dict, repr=False)
    pageblock_base: int = 0
    pageblock_flags: bytearray = field(default_factory=bytearray, repr=False)

    def __repr__(self) -> str:
        from mmcore.mm.show_mem import zone_free_list_line

        return zone_free_list_line(self)


@dataclass(slots=True, eq=False)
class Zoneref:
    """``struct zoneref``: a zone and its index, as one entry of a zonelist.

    ``next`` is the entry behind it, None at the end: the kernel's ``++z``.

    Mirrors include/linux/mmzone.h:zoneref.
    """

    zone: Zone
    zone_idx: int
    next: Zoneref | None = field(default=None, repr=False)


@dataclass(slots=True, eq=False)
class Zonelist:
    """``struct zonelist``: the zones to try, in order. The kernel ends the array with a NULL zone.

    Mirrors include/linux/mmzone.h:zonelist.
    """

    _zonerefs: list[Zoneref] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class PgData:
    """``pg_data_t``: one NUMA node.

    Mirrors include/linux/mmzone.h:pglist_data.
    """

    machine: Machine = field(repr=False)
    node_id: int
    node_zones: list[Zone] = field(default_factory=list, repr=False)
    node_zonelists: list[Zonelist] = field(
        default_factory=lambda: [Zonelist(), Zonelist()], repr=False
    )
    nr_zones: int = 0
    node_start_pfn: int = 0
    node_present_pages: int = 0
    node_spanned_pages: int = 0
    totalreserve_pages: int = 0
    min_unmapped_pages: int = 0
    min_slab_pages: int = 0
    kswapd: Any = field(default=None, repr=False)
    kswapd_order: int = 0
    kswapd_highest_zoneidx: int = MAX_NR_ZONES
    kswapd_failures: int = 0
    first_deferred_pfn: int = (1 << 64) - 1
    flags: int = 0
    lruvec: Any = field(default=None, repr=False)  # __lruvec
    vm_stat: list[int] = field(default_factory=lambda: [0] * NR_VM_NODE_STAT_ITEMS, repr=False)


def wmark_pages(z: Zone, w: int) -> int:
    """Return watermark @w of the zone in pages, its boost included.

    Mirrors include/linux/mmzone.h:wmark_pages().
    """
    return z._watermark[w] + z.watermark_boost


def min_wmark_pages(z: Zone) -> int:
    """Return the min watermark of the zone in pages.

    Mirrors include/linux/mmzone.h:min_wmark_pages().
    """
    return z._watermark[WMARK_MIN] + z.watermark_boost


def low_wmark_pages(z: Zone) -> int:
    """Return the low watermark of the zone in pages.

    Mirrors include/linux/mmzone.h:low_wmark_pages().
    """
    return z._watermark[WMARK_LOW] + z.watermark_boost


def high_wmark_pages(z: Zone) -> int:
    """Return the high watermark of the zone in pages.

    Mirrors include/linux/mmzone.h:high_wmark_pages().
    """
    return z._watermark[WMARK_HIGH] + z.watermark_boost


def promo_wmark_pages(z: Zone) -> int:
    """Return the promo watermark of the zone in pages.

    Mirrors include/linux/mmzone.h:promo_wmark_pages().
    """
    return z._watermark[WMARK_PROMO] + z.watermark_boost


def zone_managed_pages(zone: Zone) -> int:
    """Return the pages of the zone that the buddy allocator manages.

    Mirrors include/linux/mmzone.h:zone_managed_pages().
    """
    return zone.managed_pages


def zone_end_pfn(zone: Zone) -> int:
    """Return the first pfn after the zone.

    Mirrors include/linux/mmzone.h:zone_end_pfn().
    """
    return zone.zone_start_pfn + zone.spanned_pages


def zone_spans_pfn(zone: Zone, pfn: int) -> bool:
    """Tell whether @pfn lies between the ends of the zone, holes included.

    Mirrors include/linux/mmzone.h:zone_spans_pfn().
    """
    return zone.zone_start_pfn <= pfn < zone.zone_start_pfn + zone.spanned_pages


def zone_idx(zone: Zone) -> int:
    """Return which of its node's zones this is.

    Mirrors include/linux/mmzone.h:zone_idx().
    """
    return zone.zone_idx


def populated_zone(zone: Zone) -> bool:
    """Tell whether the zone has present pages.

    Mirrors include/linux/mmzone.h:populated_zone().
    """
    return zone.present_pages != 0


def managed_zone(zone: Zone) -> bool:
    """Tell whether the zone has managed pages.

    Mirrors include/linux/mmzone.h:managed_zone().
    """
    return zone.managed_pages != 0


def migratetype_is_mergeable(mt: int) -> bool:
    """Tell whether blocks of type @mt may merge with blocks of another such type.

    Mirrors include/linux/mmzone.h:migratetype_is_mergeable().
    """
    return mt < MIGRATE_PCPTYPES


def get_pfnblock_migratetype(zone: Zone, pfn: int) -> int:
    """Return the migratetype of the pageblock that holds @pfn.

    :raises IndexError: if the zone has no pageblock there

    Mirrors include/linux/mmzone.h:get_pageblock_migratetype().
    """
    return zone.pageblock_flags[pfn - zone.pageblock_base >> pageblock_order]


def for_each_online_pgdat(m: Machine) -> Iterator[PgData]:
    """Yield the nodes in ascending order of node id.

    Mirrors include/linux/mmzone.h:for_each_online_pgdat().
    """
    for nid in sorted(m.node_data):
        yield m.node_data[nid]


def for_each_zone(m: Machine) -> Iterator[Zone]:
    """Yield the zones of all nodes, empty ones too, lowest zone of the first node first.

    Mirrors include/linux/mmzone.h:for_each_zone().
    """
    for pgdat in for_each_online_pgdat(m):
        yield from pgdat.node_zones


def for_each_populated_zone(m: Machine) -> Iterator[Zone]:
    """Yield the zones that have present pages.

    Mirrors include/linux/mmzone.h:for_each_populated_zone().
    """
    for zone in for_each_zone(m):
        if zone.present_pages:
            yield zone


__all__ = [
    "FreeArea",
    "PerCpuPages",
    "PgData",
    "Zone",
    "Zonelist",
    "Zoneref",
    "for_each_online_pgdat",
    "for_each_populated_zone",
    "for_each_zone",
    "get_pfnblock_migratetype",
    "high_wmark_pages",
    "low_wmark_pages",
    "managed_zone",
    "migratetype_is_mergeable",
    "min_wmark_pages",
    "pageblock_end_pfn",
    "pageblock_nr_pages",
    "pageblock_order",
    "pageblock_start_pfn",
    "populated_zone",
    "promo_wmark_pages",
    "wmark_pages",
    "zone_end_pfn",
    "zone_idx",
    "zone_managed_pages",
    "zone_spans_pfn",
    *[
        n
        for n, v in globals().items()
        if n.isupper() and n[0] != "_" and isinstance(v, (int, str, tuple))
    ],
]
