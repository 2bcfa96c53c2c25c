"""/proc/pagetypeinfo: free blocks by migratetype and order, and pageblocks by migratetype.

Mirrors mm/vmstat.c:pagetypeinfo_show().

Simplified: without the table of mixed blocks, which needs page_owner.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.lib.list import list_for_each
from mmcore.mm.mmzone import (
    MIGRATETYPE_NAMES,
    NR_PAGE_ORDERS,
    Zone,
    for_each_online_pgdat,
    pageblock_nr_pages,
    pageblock_order,
    zone_end_pfn,
)
from mmcore.proc.lines import Lines

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = ["PageTypeNode", "PageTypeZone", "parse", "render", "show", "snapshot"]

FREE_CAP = 100000
D = r"(\d{1,20})"


@dataclass(slots=True)
class PageTypeZone:
    """One zone: ``free[type][order]`` blocks, -1 standing for ">100000"; ``blocks[type]``."""

    zone: str
    free: dict[str, list[int]] = field(default_factory=dict)
    blocks: list[int] = field(default_factory=list)


@dataclass(slots=True)
class PageTypeNode:
    """One node with memory; the kernel repeats the whole heading for each."""

    node: int
    page_block_order: int
    pages_per_block: int
    orders: int
    types: list[str]
    zones: list[PageTypeZone] = field(default_factory=list)


def _count(text: str) -> int:
    return -1 if text[0] == ">" else int(text)


def _parse_free(lines: Lines, node: PageTypeNode) -> None:
    while match := lines.try_match(rf"Node +{D}, zone +(\S+), type +(\S+)((?: +>?\d{{1,20}})+) ?"):
        node.node = int(match.group(1))
        if not node.zones or node.zones[-1].zone != match.group(2):
            node.zones.append(PageTypeZone(match.group(2)))
        counts = [_count(n) for n in match.group(4).split()]
        if len(counts) != node.orders:
            raise lines.error(f"expected {node.orders} counts, as in the heading", back=1)
        node.zones[-1].free[match.group(3)] = counts


def _parse_node(lines: Lines) -> PageTypeNode:
    order = lines.match(rf"Page block order: {D}", "'Page block order: N'")
    pages = lines.match(rf"Pages per block: +{D}", "'Pages per block:  N'")
    lines.match("", "an empty line")
    head = lines.match(
        r"Free pages count per migrate type at order((?: +\d{1,3})+) ?", "the heading of orders"
    )
    orders = len(head.group(1).split())
    node = PageTypeNode(0, int(order.group(1)), int(pages.group(1)), orders, [])
    _parse_free(lines, node)
    lines.match("", "a line of a zone's free blocks, or an empty line")
    head = lines.match(r"Number of blocks type((?: +\S+)+) ?", "'Number of blocks type ...'")
    node.types = head.group(1).split()
    by_name = {zone.zone: zone for zone in node.zones}
    while match := lines.try_match(rf"Node {D}, zone +(\S+)((?: +\d{{1,20}})+) ?"):
        zone = by_name.get(match.group(2))
        counts = [int(n) for n in match.group(3).split()]
        if zone is None or len(counts) != len(node.types):
            raise lines.error("no such zone above, or not one count per type", back=1)
        zone.blocks = counts
    return node


def parse(text: str) -> list[PageTypeNode]:
    """Read the file.

    :raises ParseError: with the first line that does not belong
    """
    lines = Lines(text, "/proc/pagetypeinfo")
    nodes: list[PageTypeNode] = []
    while lines:
        nodes.append(_parse_node(lines))
    if not nodes:
        raise lines.error("the text is empty")
    return nodes


def _render_count(n: int) -> str:
    return f">{FREE_CAP:6d} " if n < 0 else f"{n:6d} "


def _render_node(node: PageTypeNode) -> str:
    out = [
        f"Page block order: {node.page_block_order}",
        f"Pages per block:  {node.pages_per_block}",
        "",
        f"{'Free pages count per migrate type at order ':<43} "
        + "".join(f"{order:6d} " for order in range(node.orders)),
    ]
    for zone in node.zones:
        for name, counts in zone.free.items():
            out.append(
                f"Node {node.node:4d}, zone {zone.zone:>8}, type {name:>12} "
                + "".join(map(_render_count, counts))
            )
    out += ["", f"{'Number of blocks type ':<23}" + "".join(f"{t:>12} " for t in node.types)]
    for zone in node.zones:
        if zone.blocks:
            out.append(
                f"Node {node.node}, zone {zone.zone:>8} "
                + "".join(f"{n:12d} " for n in zone.blocks)
            )
    return "\n".join(out) + "\n"


def render(nodes: list[PageTypeNode]) -> str:
    """Write the file.

    Mirrors mm/vmstat.c:pagetypeinfo_show().
    """
    return "".join(map(_render_node, nodes))


def _free_counts(zone: Zone, mtype: int) -> list[int]:
    """Return the free blocks of a type by order; the kernel stops counting at 100000.

    Mirrors mm/vmstat.c:pagetypeinfo_showfree_print().
    """
    counts = []
    for order in range(NR_PAGE_ORDERS):
        n = 0
        for _ in list_for_each(zone.free_area[order].free_list[mtype]):
            n += 1
            if n >= FREE_CAP:
                n = -1
                break
        counts.append(n)
    return counts


def _block_counts(m: Machine, zone: Zone) -> list[int]:
    """Return the pageblocks of each type.

    Mirrors mm/vmstat.c:pagetypeinfo_showblockcount_print().
    """
    counts = [0] * len(MIGRATETYPE_NAMES)
    known = bool(m.mm_init.present_section_nr)
    # The kernel steps by a pageblock from the first pfn, aligned or not.
    for pfn in range(zone.zone_start_pfn, zone_end_pfn(zone), pageblock_nr_pages):
        if known and (not m.pfn_valid(pfn) or m.pfn_zone(pfn) is not zone):
            continue
        counts[zone.pageblock_flags[pfn - zone.pageblock_base >> pageblock_order]] += 1
    return counts


def snapshot(m: Machine) -> list[PageTypeNode]:
    """Return what the file shows of a machine now."""
    nodes: list[PageTypeNode] = []
    for pgdat in for_each_online_pgdat(m):
        if pgdat.node_id not in m.node_states["N_MEMORY"]:
            continue
        node = PageTypeNode(
            pgdat.node_id,
            pageblock_order,
            pageblock_nr_pages,
            NR_PAGE_ORDERS,
            list(MIGRATETYPE_NAMES),
        )
        for zone in pgdat.node_zones:
            if zone.present_pages:
                free = {t: _free_counts(zone, i) for i, t in enumerate(MIGRATETYPE_NAMES)}
                node.zones.append(PageTypeZone(zone.name, free, _block_counts(m, zone)))
        nodes.append(node)
    return nodes


def show(m: Machine) -> str:
    """Return the file of a machine."""
    return render(snapshot(m))
