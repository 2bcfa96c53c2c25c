"""/proc/zoneinfo: what each zone has, what it keeps back, and what its CPUs hold.

Mirrors mm/vmstat.c:zoneinfo_show_print().
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.mm.mmzone import (
    Zone,
    for_each_online_pgdat,
    high_wmark_pages,
    low_wmark_pages,
    min_wmark_pages,
    promo_wmark_pages,
)
from mmcore.mm.vmstat import (
    NODE_ITEMS_IN_THP,
    NODE_STAT_TEXT,
    NUMA_STAT_TEXT,
    ZONE_STAT_TEXT,
)
from mmcore.proc.lines import Lines

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = ["CpuPageset", "ZoneInfo", "parse", "render", "show", "snapshot"]

HPAGE_PMD_NR = 512
MAX_RECLAIM_RETRIES = 16
D = r"(\d{1,20})"


@dataclass(slots=True)
class CpuPageset:
    """One CPU's part: ``count``, ``high``, ``batch`` by name, and the threshold below them.

    :ivar width: characters of a name; newer kernels have lined the values up
    """

    cpu: int
    values: dict[str, int] = field(default_factory=dict)
    threshold: int | None = None
    width: int = 6


@dataclass(slots=True)
class ZoneInfo:
    """One zone as the file shows it. All numbers are pages unless the kernel says otherwise.

    :ivar node_stats: the per-node counters, on the first populated zone of a node only
    :ivar pages: free, boost, min, low, high, promo, spanned, present, managed, cma
    :ivar protection: ``lowmem_reserve``
    :ivar stats: the zone's and the NUMA counters; none if the zone is empty
    :ivar pagesets: one entry per CPU; none if the zone is empty
    :ivar tail: node_unreclaimable and start_pfn
    """

    node: int
    zone: str
    node_stats: dict[str, int] = field(default_factory=dict)
    pages: dict[str, int] = field(default_factory=dict)
    protection: list[int] = field(default_factory=list)
    stats: dict[str, int] = field(default_factory=dict)
    pagesets: list[CpuPageset] = field(default_factory=list)
    tail: dict[str, int] = field(default_factory=dict)


def _parse_counters(lines: Lines) -> dict[str, int]:
    out: dict[str, int] = {}
    while match := lines.try_match(rf"      (\w+) +{D}"):
        out[match.group(1)] = int(match.group(2))
    return out


def _parse_pagesets(lines: Lines) -> list[CpuPageset]:
    sets: list[CpuPageset] = []
    while match := lines.try_match(rf"    cpu: {D}"):
        cpu = CpuPageset(int(match.group(1)))
        while match := lines.try_match(r"              (\w+):( +)(-?\d{1,20})"):
            if not cpu.values:
                cpu.width = len(match.group(1) + match.group(2))
            cpu.values[match.group(1)] = int(match.group(3))
        if match := lines.try_match(r"  vm stats threshold: (-?\d{1,20})"):
            cpu.threshold = int(match.group(1))
        sets.append(cpu)
    return sets


def _parse_zone(lines: Lines) -> ZoneInfo:
    match = lines.match(rf"Node {D}, zone +(\S+)", "'Node N, zone NAME'")
    info = ZoneInfo(int(match.group(1)), match.group(2))
    if lines.try_match("  per-node stats"):
        info.node_stats = _parse_counters(lines)
    match = lines.match(rf"  pages free +{D}", "'  pages free     N'")
    info.pages["free"] = int(match.group(1))
    while match_ := lines.try_match(rf"        (\w+) +{D}"):
        info.pages[match_.group(1)] = int(match_.group(2))
    match = lines.match(
        r"        protection: \((-?\d{1,20}(?:, -?\d{1,20})*)\)", "'        protection: (N, ...)'"
    )
    info.protection = [int(n) for n in match.group(1).split(", ")]
    info.stats = _parse_counters(lines)
    if lines.try_match("  pagesets"):
        info.pagesets = _parse_pagesets(lines)
    while match_ := lines.try_match(rf"  (\w+): +{D}"):
        info.tail[match_.group(1)] = int(match_.group(2))
    return info


def parse(text: str) -> list[ZoneInfo]:
    """Read the file.

    Counters that this kernel does not know are kept under their names.

    :raises ParseError: with the first line that does not belong
    """
    lines = Lines(text, "/proc/zoneinfo")
    zones: list[ZoneInfo] = []
    while lines:
        zones.append(_parse_zone(lines))
    if not zones:
        raise lines.error("the text is empty")
    return zones


def _render_zone(info: ZoneInfo) -> str:
    out = [f"Node {info.node}, zone {info.zone:>8}"]
    if info.node_stats:
        out.append("  per-node stats")
        out += [f"      {name:<12} {value}" for name, value in info.node_stats.items()]
    for name, value in info.pages.items():
        out.append(f"  pages free     {value}" if name == "free" else f"        {name:<8} {value}")
    out.append(f"        protection: ({', '.join(map(str, info.protection))})")
    out += [f"      {name:<12} {value}" for name, value in info.stats.items()]
    if info.pagesets:
        out.append("  pagesets")
    for cpu in info.pagesets:
        out.append(f"    cpu: {cpu.cpu}")
        out += [
            f"              {name + ':':<{cpu.width}} {value}" for name, value in cpu.values.items()
        ]
        if cpu.threshold is not None:
            out.append(f"  vm stats threshold: {cpu.threshold}")
    out += [f"  {name + ':':<20} {value}" for name, value in info.tail.items()]
    return "\n".join(out) + "\n"


def render(zones: list[ZoneInfo]) -> str:
    """Write the file.

    Mirrors mm/vmstat.c:zoneinfo_show_print().
    """
    return "".join(map(_render_zone, zones))


def _zone_pages(zone: Zone) -> dict[str, int]:
    return {
        "free": zone.vm_stat[0],
        "boost": zone.watermark_boost,
        "min": min_wmark_pages(zone),
        "low": low_wmark_pages(zone),
        "high": high_wmark_pages(zone),
        "promo": promo_wmark_pages(zone),
        "spanned": zone.spanned_pages,
        "present": zone.present_pages,
        "managed": zone.managed_pages,
        "cma": 0,
    }


def _snapshot_zone(zone: Zone, first_populated: bool) -> ZoneInfo:
    pgdat = zone.zone_pgdat
    info = ZoneInfo(zone.node, zone.name)
    if first_populated:
        info.node_stats = {
            name: pgdat.vm_stat[i] // (HPAGE_PMD_NR if i in NODE_ITEMS_IN_THP else 1)
            for i, name in enumerate(NODE_STAT_TEXT)
        }
    info.pages = _zone_pages(zone)
    info.protection = list(zone.lowmem_reserve)
    if not zone.present_pages:
        return info
    info.stats = dict(zip(ZONE_STAT_TEXT, zone.vm_stat, strict=True))
    info.stats.update(zip(NUMA_STAT_TEXT, zone.vm_numa_event, strict=True))
    for cpu, pcp in enumerate(zone.per_cpu_pageset):
        values = {"count": pcp.count, "high": pcp.high, "batch": pcp.batch}
        info.pagesets.append(CpuPageset(cpu, values, zone.stat_threshold))
    info.tail = {
        "node_unreclaimable": int(pgdat.kswapd_failures >= MAX_RECLAIM_RETRIES),
        "start_pfn": zone.zone_start_pfn,
    }
    return info


def snapshot(m: Machine) -> list[ZoneInfo]:
    """Return what the file shows of a machine now."""
    zones: list[ZoneInfo] = []
    for pgdat in for_each_online_pgdat(m):
        if pgdat.node_id not in m.node_states["N_ONLINE"]:
            continue
        first = next((z for z in pgdat.node_zones if z.present_pages), None)
        zones += [_snapshot_zone(zone, zone is first) for zone in pgdat.node_zones]
    return zones


def show(m: Machine) -> str:
    """Return the file of a machine."""
    return render(snapshot(m))
