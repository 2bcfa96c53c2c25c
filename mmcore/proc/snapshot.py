"""Free-list snapshots: the page allocator's own lists of a running kernel, in order.

No file of /proc shows the order of the free lists, and the order decides which page is allocated
next. The kernel lab reads the lists out of the kernel's memory and prints them; this module reads
that text, makes a machine whose allocator is in exactly that state, and prints the state of a
machine in the same form::

    zone node=0 name=DMA32 start_pfn=1000 spanned=efe0 wmark=[422,527,632,737] boost=0 ...
    free node=0 zone=DMA32 order=3 mt=MOVABLE nr_free_all_mt=3 : 58a8
    pcp node=0 zone=DMA32 cpu=0 count=521 high=5355 high_min=527 ...
    pcplist node=0 zone=DMA32 cpu=0 idx=0 order=0 mt=UNMOVABLE : 538a,53ab
    blocks node=0 zone=DMA32 first_block_pfn=1000 : 1111111111

Lists are printed from head, the block that is taken next, to tail. Page frame numbers and sizes are
hexadecimal; ``blocks`` has one digit per pageblock: its migratetype, or f in a hole of the memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from mmcore.errors import ParseError, UsageError
from mmcore.lib.list import list_add_tail
from mmcore.machine import Machine
from mmcore.mm import page_alloc
from mmcore.mm.gfp import __GFP_BITS_MASK
from mmcore.mm.mm_types import Page
from mmcore.mm.mmzone import (
    MAX_NR_ZONES,
    MIGRATE_HIGHATOMIC,
    MIGRATE_TYPES,
    NR_PAGE_ORDERS,
    NR_PCP_LISTS,
    ZONE_NAMES,
    PerCpuPages,
    PgData,
    Zone,
)
from mmcore.mm.vmstat import NR_FREE_PAGES

__all__ = ["PcpSnapshot", "ZoneSnapshot", "load", "parse", "render", "take"]

MT_NAMES = ("UNMOVABLE", "MOVABLE", "RECLAIMABLE", "HIGHATOMIC", "ISOLATE")
#: What each per-CPU list holds; of the two for huge pages, one is for everything not movable.
PCP_MT_NAMES = (*MT_NAMES[:3] * 4, "NONMOVABLE", "MOVABLE")
#: The digit for a pageblock in a hole, of which the kernel keeps no type.
NO_PAGEBLOCK = 15
PCP_FIELDS = (
    "count",
    "high",
    "high_min",
    "high_max",
    "batch",
    "flags",
    "alloc_factor",
    "free_count",
)
KEY_RE = re.compile(r"(\w+)=(\[[^\]]*\]|\S+)", re.ASCII)


@dataclass(slots=True)
class PcpSnapshot:
    """One CPU's lists of one zone: the fields of `PerCpuPages`, and the pfns of each list."""

    fields: dict[str, int]
    lists: dict[int, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class ZoneSnapshot:
    """One zone: what its lines say. ``free`` maps (order, migratetype) to the pfns in list order."""

    node: int
    name: str
    start_pfn: int
    spanned: int
    wmark: list[int]
    boost: int
    reserved_highatomic: int
    lowmem_reserve: list[int]
    nr_free_pages: int
    free: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    pcp: dict[int, PcpSnapshot] = field(default_factory=dict)
    first_block_pfn: int = 0
    blocks: list[int] = field(default_factory=list)

    def nr_free(self, order: int) -> int:
        """Return the number of free blocks of @order, all migratetypes together."""
        return sum(len(pfns) for (o, _), pfns in self.free.items() if o == order)


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.strip("[]").split(",")]


def _pfns(text: str) -> list[int]:
    return [int(word, 16) for word in text.split(",") if word]


def _read(line: str, zones: dict[tuple[int, str], ZoneSnapshot]) -> None:
    """Read one line into @zones; raises KeyError, ValueError or IndexError if it is malformed."""
    head, _, tail = line.partition(" : ")
    kind, _, rest = head.partition(" ")
    d = dict(KEY_RE.findall(rest))
    if kind == "zone":
        if d["name"] not in ZONE_NAMES:
            raise ValueError(d["name"])
        zone = ZoneSnapshot(
            int(d["node"]),
            d["name"],
            int(d["start_pfn"], 16),
            int(d["spanned"], 16),
            _numbers(d["wmark"]),
            int(d["boost"]),
            int(d["reserved_highatomic"]),
            _numbers(d["lowmem_reserve"]),
            int(d["nr_free_pages"]),
        )
        zones[zone.node, zone.name] = zone
        return
    zone = zones[int(d["node"]), d["zone"]]
    if kind == "free":
        order = int(d["order"])
        if not 0 <= order < NR_PAGE_ORDERS:
            raise ValueError(order)
        zone.free[order, MT_NAMES.index(d["mt"])] = _pfns(tail)
    elif kind == "pcp":
        zone.pcp[int(d["cpu"])] = PcpSnapshot({name: int(d[name]) for name in PCP_FIELDS})
    elif kind == "pcplist":
        if not 0 <= int(d["idx"]) < NR_PCP_LISTS:
            raise ValueError(d["idx"])
        zone.pcp[int(d["cpu"])].lists[int(d["idx"])] = _pfns(tail)
    elif kind == "blocks":
        zone.first_block_pfn = int(d["first_block_pfn"], 16)
        zone.blocks = [int(digit, 16) for digit in tail.strip()]
        if any(MIGRATE_TYPES <= mt < NO_PAGEBLOCK for mt in zone.blocks):
            raise ValueError(tail)
    else:
        raise ValueError(kind)


def parse(text: str) -> list[ZoneSnapshot]:
    """Return the zones of one snapshot, in the order of the text.

    :raises ParseError: for a line that no snapshot has
    """
    zones: dict[tuple[int, str], ZoneSnapshot] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("SNAPSHOT "):
            continue
        try:
            _read(line, zones)
        except (KeyError, ValueError, IndexError):
            raise ParseError("a free-list snapshot", number, line, "not a line of one") from None
    return list(zones.values())


def _lines(zone: ZoneSnapshot) -> Iterator[str]:
    where = f"node={zone.node} zone={zone.name}"
    yield (
        f"zone node={zone.node} name={zone.name} start_pfn={zone.start_pfn:x} "
        f"spanned={zone.spanned:x} wmark=[{','.join(map(str, zone.wmark))}] boost={zone.boost} "
        f"reserved_highatomic={zone.reserved_highatomic} "
        f"lowmem_reserve=[{','.join(map(str, zone.lowmem_reserve))}] "
        f"nr_free_pages={zone.nr_free_pages}"
    )
    for (order, mt), pfns in sorted(zone.free.items()):
        if pfns:
            yield (
                f"free {where} order={order} mt={MT_NAMES[mt]} "
                f"nr_free_all_mt={zone.nr_free(order)} : {','.join(f'{p:x}' for p in pfns)}"
            )
    for cpu, pcp in sorted(zone.pcp.items()):
        fields = " ".join(f"{name}={pcp.fields[name]}" for name in PCP_FIELDS)
        yield f"pcp {where} cpu={cpu} {fields}"
        for idx, pfns in sorted(pcp.lists.items()):
            if pfns:
                order = page_alloc.pindex_to_order(idx)
                yield (
                    f"pcplist {where} cpu={cpu} idx={idx} order={order} mt={PCP_MT_NAMES[idx]} : "
                    + ",".join(f"{p:x}" for p in pfns)
                )
    digits = "".join(f"{mt:x}" for mt in zone.blocks)
    yield f"blocks {where} first_block_pfn={zone.first_block_pfn:x} : {digits}"


def render(zones: list[ZoneSnapshot]) -> str:
    """Return the text of a snapshot."""
    return "".join(f"{line}\n" for zone in zones for line in _lines(zone))


def _take_zone(zone: Zone) -> ZoneSnapshot:
    snap = ZoneSnapshot(
        zone.node,
        zone.name,
        zone.zone_start_pfn,
        zone.spanned_pages,
        list(zone._watermark),
        zone.watermark_boost,
        zone.nr_reserved_highatomic,
        list(zone.lowmem_reserve),
        zone.vm_stat[NR_FREE_PAGES],
        first_block_pfn=zone.pageblock_base,
        blocks=list(zone.pageblock_flags),
    )
    for order, area in enumerate(zone.free_area):
        for mt, head in enumerate(area.free_list):
            pfns = [page.pfn for page in head]
            if pfns:
                snap.free[order, mt] = pfns
    for cpu, pcp in enumerate(zone.per_cpu_pageset):
        taken = PcpSnapshot({name: getattr(pcp, name) for name in PCP_FIELDS})
        for idx, head in enumerate(pcp.lists):
            pfns = [page.pfn for page in head]
            if pfns:
                taken.lists[idx] = pfns
        snap.pcp[cpu] = taken
    return snap


def take(m: Machine) -> list[ZoneSnapshot]:
    """Return the snapshot of a machine's populated zones, node by node."""
    return [
        _take_zone(zone)
        for nid in sorted(m.node_data)
        for zone in m.node_data[nid].node_zones
        if zone.spanned_pages
    ]


def _load_lists(zone: Zone, snap: ZoneSnapshot) -> None:
    for (order, mt), pfns in snap.free.items():
        area = zone.free_area[order]
        for pfn in pfns:
            page = zone.mem_map[pfn] = Page(pfn, zone)
            page_alloc.set_buddy_order(page, order)
            list_add_tail(page, area.free_list[mt])
        area.nr_free += len(pfns)
        if mt == MIGRATE_HIGHATOMIC:
            zone.nr_free_highatomic += len(pfns) << order
    for cpu, taken in sorted(snap.pcp.items()):
        while len(zone.per_cpu_pageset) <= cpu:
            zone.per_cpu_pageset.append(PerCpuPages())
        pcp = zone.per_cpu_pageset[cpu]
        for name, value in taken.fields.items():
            setattr(pcp, name, value)
        for idx, pfns in taken.lists.items():
            for pfn in pfns:
                page = zone.mem_map[pfn] = Page(pfn, zone)
                list_add_tail(page, pcp.lists[idx])


def _load_zone(zone: Zone, snap: ZoneSnapshot, cpus: int) -> None:
    zone.zone_start_pfn, zone.spanned_pages = snap.start_pfn, snap.spanned
    zone._watermark[:] = snap.wmark
    zone.watermark_boost = snap.boost
    zone.nr_reserved_highatomic = snap.reserved_highatomic
    zone.lowmem_reserve[:] = snap.lowmem_reserve
    zone.vm_stat[NR_FREE_PAGES] = snap.nr_free_pages
    zone.pageblock_base = snap.first_block_pfn
    zone.pageblock_flags = bytearray(snap.blocks)
    # A snapshot does not say how many pages are managed; pageset_high_max is an eighth of them
    # shared by the CPUs, which is near enough for the limits that are derived from it.
    pcp = snap.pcp[min(snap.pcp)].fields
    zone.managed_pages = zone.present_pages = min(snap.spanned, pcp["high_max"] * 8 * cpus)
    zone.pageset_high_min, zone.pageset_high_max = pcp["high_min"], pcp["high_max"]
    zone.pageset_batch = pcp["batch"]
    zone.initialized = True
    _load_lists(zone, snap)


def load(
    zones: list[ZoneSnapshot],
    distances: list[list[int]] | None = None,
    cpu_to_node: list[int] | None = None,
) -> Machine:
    """Return a machine whose page allocator is in the state of the snapshot.

    :param distances: the node distance matrix; None: 10 to a node itself, 20 to any other
    :param cpu_to_node: the node of each CPU; None: all on the first node
    :raises UsageError: if there is no zone, or a zone has no per-CPU line
    """
    if not zones or any(not snap.pcp for snap in zones):
        raise UsageError("a snapshot needs at least one zone, and a pcp line for each")
    cpus = 1 + max(cpu for snap in zones for cpu in snap.pcp)
    m = Machine(cpus=cpus)
    nodes = sorted({snap.node for snap in zones})
    m.cpu_to_node = cpu_to_node or [nodes[0]] * cpus
    size = nodes[-1] + 1
    m.nr_online_nodes = len(nodes)
    m.node_distance = distances or [
        [10 if a == b else 20 for b in range(size)] for a in range(size)
    ]
    m.node_load = [0] * size
    for nid in nodes:
        pgdat = m.node_data[nid] = PgData(m, nid)
        pgdat.node_zones = [Zone(m, ZONE_NAMES[i], i, nid, pgdat) for i in range(MAX_NR_ZONES)]
    for snap in zones:
        pgdat = m.node_data[snap.node]
        zone = pgdat.node_zones[ZONE_NAMES.index(snap.name)]
        _load_zone(zone, snap, cpus)
        pgdat.nr_zones = zone.zone_idx + 1
    m.gfp_allowed_mask = __GFP_BITS_MASK
    page_alloc.build_all_zonelists(m)
    return m
