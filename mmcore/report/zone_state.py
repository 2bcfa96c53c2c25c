"""Who may allocate from which zone now: /proc/zoneinfo read with the allocator's own test.

`examine()` takes the text of /proc/zoneinfo, of this kernel or an older one; `zone_states()` a machine.
For each zone and each kind of request they say how many pages are left above the level at which the
kernel says no. With the lines of /proc/buddyinfo behind it (``cat /proc/zoneinfo /proc/buddyinfo``)
the text also tells how large a block each kind of request can have.

The rules are those of Linux 6.12, whatever kernel wrote the text. /proc/zoneinfo does not show how many
free pages lie in HIGHATOMIC pageblocks; the test takes none.
"""

from __future__ import annotations

import itertools
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.errors import ParseError
from mmcore.lib.list import ListHead, list_add_tail
from mmcore.mm import page_alloc
from mmcore.mm.internal import (
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    ALLOC_RESERVES,
    ALLOC_WMARK_LOW,
    ALLOC_WMARK_MIN,
)
from mmcore.mm.mmzone import (
    MIGRATE_MOVABLE,
    NR_PAGE_ORDERS,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    ZONE_DMA,
    ZONE_DMA32,
    ZONE_MOVABLE,
    ZONE_NORMAL,
    PgData,
    Zone,
    wmark_pages,
)
from mmcore.mm.vmstat import NR_FREE_PAGES
from mmcore.report.buddyinfo import MAX_ZONES, read_zones, size
from mmcore.report.kernlog import numbered_lines

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = [
    "REQUESTS",
    "Request",
    "Share",
    "ZoneReport",
    "ZoneState",
    "ZoneText",
    "examine",
    "read",
    "report",
    "Seen",
    "zone_for",
    "zone_layouts",
    "zone_states",
]


@dataclass(slots=True, frozen=True)
class Request:
    """One kind of request, as the allocator classifies it.

    :ivar mark: which watermark it must leave
    """

    name: str
    mark: int
    alloc_flags: int
    what: str


#: Who asks, most modest first.
REQUESTS: tuple[Request, ...] = (
    Request("any, first try", ALLOC_WMARK_LOW, 0, "without waking kswapd"),
    Request("GFP_KERNEL, GFP_USER", ALLOC_WMARK_MIN, 0, "before it must reclaim itself"),
    Request("GFP_NOWAIT", ALLOC_WMARK_MIN, ALLOC_NON_BLOCK, "before it fails"),
    Request("__GFP_HIGH", ALLOC_WMARK_MIN, ALLOC_MIN_RESERVE, "half of min"),
    Request(
        "GFP_ATOMIC",
        ALLOC_WMARK_MIN,
        ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK,
        "five eighths of min",
    ),
    Request("OOM victim", ALLOC_WMARK_MIN, ALLOC_OOM, "half of min"),
    Request("PF_MEMALLOC", ALLOC_WMARK_MIN, ALLOC_NO_WATERMARKS, "all of it"),
)

#: The highest zone that a request may use, and what asks for it.
HIGHEST: tuple[tuple[int, str], ...] = (
    (ZONE_DMA, "GFP_DMA"),
    (ZONE_DMA32, "GFP_DMA32"),
    (ZONE_NORMAL, "GFP_KERNEL"),
    (ZONE_MOVABLE, "GFP_HIGHUSER_MOVABLE"),
)
#: The same by the zone's name, for kernels that have other zones.
ASKS: dict[str, str] = {
    "DMA": "GFP_DMA",
    "DMA32": "GFP_DMA32",
    "Normal": "GFP_KERNEL",
    "HighMem": "GFP_HIGHUSER",
    "Movable": "GFP_HIGHUSER_MOVABLE",
}


@dataclass(slots=True)
class Share:
    """What one kind of request may take from a zone.

    :ivar highest: the highest zone it may use, which decides how much is kept for lower ones
    :ivar floor: it is refused when free pages would not stay above this
    :ivar pages: single pages it can have now
    :ivar largest: the largest order it can have now; -1: none; None: the free blocks are not known
    """

    request: Request
    highest: int
    floor: int
    pages: int
    largest: int | None = None


@dataclass(slots=True)
class ZoneState:
    """A zone and what each kind of request may take from it."""

    node: int
    zone: str
    free: int
    min: int
    low: int
    high: int
    managed: int
    shares: list[Share] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """One sentence on where the zone stands between its marks."""
        if self.free > self.high:
            return "above high: kswapd sleeps"
        if self.free > self.low:
            return "between low and high: kswapd goes on if it runs, but is not woken"
        if self.free > self.min:
            return "between min and low: each allocation wakes kswapd"
        return "at or below min: who may wait must reclaim, others take from the reserve"


def _share(zone: Zone, request: Request, highest: int) -> Share:
    free = zone.vm_stat[NR_FREE_PAGES]
    if request.alloc_flags & ALLOC_NO_WATERMARKS:
        return Share(request, highest, 0, free)
    usable = free
    if not request.alloc_flags & ALLOC_RESERVES:
        usable -= zone.nr_free_highatomic
    mark = wmark_pages(zone, request.mark)
    if request.alloc_flags & ALLOC_MIN_RESERVE and request.mark == ALLOC_WMARK_MIN:
        mark = zone._watermark[WMARK_MIN]  # single pages: zone_watermark_fast() ignores the boost
    if request.alloc_flags & ALLOC_RESERVES:
        mark = page_alloc.min_with_reserves(mark, request.alloc_flags)
    floor = mark + zone.lowmem_reserve[highest]
    return Share(request, highest, floor, max(0, usable - floor))


def _state(zone: Zone, nid: int) -> ZoneState:
    return ZoneState(
        nid,
        zone.name,
        zone.vm_stat[NR_FREE_PAGES],
        wmark_pages(zone, WMARK_MIN),
        wmark_pages(zone, WMARK_LOW),
        wmark_pages(zone, WMARK_HIGH),
        zone.managed_pages,
    )


def zone_states(m: Machine) -> list[ZoneState]:
    """Return the state of each populated zone of a machine."""
    states: list[ZoneState] = []
    for nid in sorted(m.node_data):
        for zone in m.node_data[nid].node_zones:
            if not zone.present_pages:
                continue
            state = _state(zone, nid)
            for highest, _ in HIGHEST:
                if highest >= zone.zone_idx:
                    state.shares += [_share(zone, request, highest) for request in REQUESTS]
            states.append(state)
    return states


# ---- reading -------------------------------------------------------------------------------------

#: The lines of a zone that are needed, and those that older kernels lack.
NEEDED, OPTIONAL = ("free", "min", "low", "high"), ("boost", "promo", "present", "managed", "cma")
#: Zones in the kernel's order; each kernel has some of them.
ALL_ZONES = ("DMA", "DMA32", "Normal", "HighMem", "Movable", "Device")


@dataclass(slots=True)
class ZoneText:
    """A zone as the file shows it, in pages.

    :ivar blocks: free blocks by order, if /proc/buddyinfo followed
    """

    node: int
    name: str
    line: int
    head: str = ""
    pages: dict[str, int] = field(default_factory=dict)
    protection: list[int] = field(default_factory=list)
    blocks: list[int] | None = None

    @property
    def present(self) -> int:
        """The zone's pages; kernels before 3.9 do not print ``managed``."""
        return self.pages.get("managed", self.pages.get("present", 0))

    def missing(self) -> str:
        """Return what the text does not say, "" if it is whole."""
        lack = [name for name in NEEDED if name not in self.pages]
        return lack[0] if lack else "" if self.protection else "protection"


def _number(word: str) -> int | None:
    return int(word) if len(word) <= 20 and word.isascii() and word.isdigit() else None


def _protection(text: str) -> list[int]:
    """Read what stands between the parentheses of a protection line."""
    words = [word.strip() for word in text.partition("(")[2].partition(")")[0].split(",")]
    numbers = [_number(word.removeprefix("-")) for word in words]
    return [n for n in numbers if n is not None] if None not in numbers else []


def _take(zone: ZoneText, words: list[str]) -> None:
    """Read one line of a zone."""
    if words[0] == "pages" and len(words) == 3:
        words = words[1:]
    if len(words) == 2 and (words[0] in NEEDED or words[0] in OPTIONAL):
        value = _number(words[1])
        if value is not None:
            zone.pages.setdefault(words[0], value)


def read(text: str) -> tuple[list[ZoneText], list[str]]:
    """Return the zones of a text of /proc/zoneinfo, and notes on what was left out.

    Indentation does not matter, nor do counters of other kernels. Lines of /proc/buddyinfo in the
    same text give the zones their free blocks.

    :raises ParseError: if no zone is whole
    """
    zones: list[ZoneText] = []
    blocks: list[str] = []
    wrapped = ""  # a protection line that goes on
    for number, line in numbered_lines(text):
        words = line.split()
        if not words:
            continue
        if words[0] == "Node" and len(words) >= 4 and words[2] == "zone":
            node = _number(words[1].rstrip(","))
            if node is None or node >= 1 << 16 or len(zones) >= MAX_ZONES:
                raise ParseError("/proc/zoneinfo", number, line, "expected 'Node N, zone NAME'")
            if len(words) == 4:
                zones.append(ZoneText(node, words[3][:16], number, line))
            else:
                blocks.append(line)
            wrapped = ""
        elif zones and (wrapped or words[0] == "protection:"):
            wrapped = f"{wrapped} {line}"
            if ")" in wrapped or len(wrapped) > 400:
                zones[-1].protection = zones[-1].protection or _protection(wrapped)
                wrapped = ""
        elif zones:
            _take(zones[-1], words)
    if not zones:
        first = text.partition("\n")[0] if text.strip() else ""
        why = "no line is of the form 'Node N, zone NAME'" if text.strip() else "the text is empty"
        raise ParseError("/proc/zoneinfo", 1, first, why)
    return _whole(zones), _add_blocks(zones, blocks)


def _whole(zones: list[ZoneText]) -> list[ZoneText]:
    """Return the zones of which everything needed is there.

    :raises ParseError: if one in the middle is not, or none is
    """
    last = zones[-1]
    if last.missing() and len(zones) > 1:
        zones.pop()  # the text was cut short
    for zone in zones:
        if lack := zone.missing():
            why = f"the zone that begins here has no '{lack}' line"
            raise ParseError("/proc/zoneinfo", zone.line, zone.head, why)
    return zones


def _add_blocks(zones: list[ZoneText], lines: list[str]) -> list[str]:
    """Give the zones their free blocks; return a note where the two files do not go together."""
    if not lines:
        return []
    by_name = {(z.node, z.name): z for z in zones}
    for found in read_zones("\n".join(lines))[0]:
        zone = by_name.get((found.node, found.zone))
        if zone is not None:
            zone.blocks = found.nr_free
    return []


@dataclass(slots=True, frozen=True)
class Seen:
    """A zone that a text shows, as far as it tells which zones the kernel has.

    :ivar pages: its pages, 0 if they are not known
    """

    name: str
    reserve: tuple[int, ...]
    pages: int = 0
    node: int | None = None


def _possible(kinds: list[str], seen: list[Seen], movable: bool) -> bool:
    """Tell whether a kernel can have these zones, and the text be its."""
    high, dma32 = "HighMem" in kinds, "DMA32" in kinds
    if "Normal" not in kinds or any(z.name not in kinds for z in seen if z.name in ALL_ZONES):
        return False
    if "Movable" in kinds:
        if high and ("Device" in kinds or (dma32 and not any(z.name == "DMA32" for z in seen))):
            return False
    elif movable or "Device" in kinds or (high and dma32 and "DMA" not in kinds):
        return False
    for zone in seen:
        if zone.name not in kinds:
            continue
        if any(zone.reserve[: kinds.index(zone.name) + 1]):
            return False  # nothing is kept from requests that can have no higher zone
        if high and zone.name == "Normal" and zone.pages >= 1 << 20:
            return False  # 4 GiB and more have kernel addresses only in 64 bits
    return not any(_contradict(kinds, a, b) for a in seen for b in seen)


def _contradict(kinds: list[str], low: Seen, high: Seen) -> bool:
    """Tell whether two zones of a node say different things of the zones above both.

    Where the lower one keeps more from the next zone than from the one before, that has pages; then
    the higher keeps something from it, too (if its ``lowmem_reserve_ratio`` is not 0, as it is for HighMem).
    """
    if low.node != high.node or high.name not in ("DMA32", "Normal") or not high.pages:
        return False
    if low.name not in kinds or high.name not in kinds or not high.reserve:
        return False
    first = kinds.index(high.name) + 1
    if kinds.index(low.name) >= first - 1 or len(low.reserve) != len(high.reserve):
        return False
    return any(
        low.reserve[i] > low.reserve[i - 1] and not high.reserve[i]
        for i in range(first, min(len(low.reserve), len(kinds)))
    )


def zone_layouts(seen: list[Seen], length: int, movable: bool = False) -> list[list[str]]:
    """Return all sets of zones that the kernel of a text can have, which ``lowmem_reserve`` counts by.

    Zone Normal every kernel has, Movable those from 2.6.23 on. HighMem is of 32-bit kernels; these have
    no Device, and no DMA32 either, but for those that show one and the oldest ones.

    :param length: how many numbers ``lowmem_reserve`` has, 0 if it is not in the text
    :param movable: the kernel is known to have zone Movable
    """
    names = {zone.name for zone in seen}
    if not length:
        names |= {"Normal", "Movable"} | (set() if "HighMem" in names else {"DMA", "DMA32"})
        return [[name for name in ALL_ZONES if name in names]]
    sets = (list(kinds) for kinds in itertools.combinations(ALL_ZONES, min(length, 7)))
    found = [kinds for kinds in sets if _possible(kinds, seen, movable)]
    # A damaged text may fit none: then its zones alone.
    return found or [[name for name in ALL_ZONES if name in names]]


def zone_for(asks: str, kinds: list[str]) -> str:
    """Return the highest zone for a request, by the zone that it names: what is missing is Normal."""
    if asks == "Movable" and asks not in kinds and "HighMem" in kinds:
        return "HighMem"
    return asks if asks in kinds else "Normal"


def _model(m: Machine, text: ZoneText, idx: int) -> Zone:
    """Make a zone of the engine with the numbers of the text."""
    zone = Zone(m, text.name, idx, text.node, PgData(m, text.node))
    zone.watermark_boost = text.pages.get("boost", 0)
    for wmark, name in ((WMARK_MIN, "min"), (WMARK_LOW, "low"), (WMARK_HIGH, "high")):
        zone._watermark[wmark] = text.pages[name] - zone.watermark_boost
    zone.managed_pages = zone.present_pages = text.present
    zone.vm_stat[NR_FREE_PAGES] = text.pages["free"]
    zone.lowmem_reserve[:] = (text.protection + [0] * len(zone.lowmem_reserve))[
        : len(zone.lowmem_reserve)
    ]
    for order, n in enumerate((text.blocks or [])[:NR_PAGE_ORDERS]):
        zone.free_area[order].nr_free = n
        if n:  # the file does not tell types apart
            list_add_tail(ListHead(), zone.free_area[order].free_list[MIGRATE_MOVABLE])
    return zone


def _largest(zone: Zone, share: Share) -> int:
    """Return the largest order that passes the allocator's test now, -1 if none does."""
    request, free = share.request, zone.vm_stat[NR_FREE_PAGES]
    top = max((o for o in range(NR_PAGE_ORDERS) if zone.free_area[o].nr_free), default=-1)
    if request.alloc_flags & ALLOC_NO_WATERMARKS:
        return top
    mark = wmark_pages(zone, request.mark)
    for order in range(top, -1, -1):
        if page_alloc.__zone_watermark_ok(
            zone, order, mark, share.highest, request.alloc_flags, free
        ):
            return order
    return -1


# ---- the report ----------------------------------------------------------------------------------


@dataclass(slots=True)
class ZoneReport:
    """What a text of /proc/zoneinfo says about who may allocate.

    :ivar columns: (zone index, who asks) for each highest zone that a request may have
    """

    states: list[ZoneState]
    columns: list[tuple[int, str]]
    kinds: list[str]
    old: bool = False
    notes: list[str] = field(default_factory=list)

    def pages(self, request: Request, highest: int) -> int:
        """Return how many single pages a kind of request may have from all zones together."""
        return sum(
            share.pages
            for state in self.states
            for share in state.shares
            if share.request is request and share.highest == highest
        )

    def summary(self) -> str:
        """Return the answer: can the kernel have memory, and is anybody reclaiming for it."""
        if not self.states:
            return "No zone has memory."
        known = [h for h, w in self.columns if "GFP_KERNEL" in w.split(" or ")]
        who = "GFP_KERNEL" if known else self.columns[-1][1]
        highest = known[-1] if known else self.columns[-1][0]  # the least it can have
        direct = self.pages(REQUESTS[1], highest)
        quiet = self.pages(REQUESTS[0], highest)
        most = self.pages(REQUESTS[1], known[0]) if known else direct
        if most != direct:
            return (
                f"{who} can have {direct} to {most} pages before it must reclaim: the text does not "
                "say which zones this kernel has, so not what is kept from it."
            )
        low = [s for s in self.states if s.free <= s.low]
        where = ", ".join(f"node {s.node} {s.zone}" for s in low[:4]) + (" ..." if low[4:] else "")
        if not direct:
            atomic = self.pages(REQUESTS[4], highest)
            left = f"{atomic} pages are left for GFP_ATOMIC" if atomic else "GFP_ATOMIC fails, too"
            return f"{who} must reclaim before it gets a page, from any zone; {left}."
        text = f"{who} can have {direct} pages ({size(direct)}) before it must reclaim"
        if low:
            return f"{text}; below the low mark: {where}. kswapd is awake there."
        return f"{text}, {quiet} of them without waking kswapd. No zone is below its low mark."

    def lines(self) -> list[str]:
        """Return the report, the answer first."""
        out = [*textwrap.wrap(self.summary(), 88), ""]
        for state in self.states:
            out += [*_zone_lines(state, self.columns), ""]
        out += [
            "Pages (and the largest order) that each kind of request may take from a zone now: it is",
            "served while free pages stay above the mark it must leave, plus what the zone keeps from",
            "requests that could use a higher one (protection). Columns that are alike are one.",
        ]
        if not any(share.largest is not None for s in self.states for share in s.shares):
            out.append("For orders, put /proc/buddyinfo behind: cat /proc/zoneinfo /proc/buddyinfo")
        else:
            out.append(
                "The blocks count whatever their migratetype, which /proc/buddyinfo does not say."
            )
        if self.old:
            out += [
                "An older kernel wrote this text, or lines were left out (no 'promo'); the rules applied",
                "are Linux 6.12's.",
            ]
        return out + self.notes

    def to_rows(self) -> list[dict[str, object]]:
        """Return one row per zone, kind of request and highest zone."""
        who = dict(self.columns)
        return [
            {
                "node": s.node,
                "zone": s.zone,
                "free": s.free,
                "min": s.min,
                "low": s.low,
                "high": s.high,
                "managed": s.managed,
                "request": share.request.name,
                "highest_zone": self.kinds[share.highest],
                "asks": who[share.highest],
                "floor": share.floor,
                "pages": share.pages,
                "largest_order": share.largest,
            }
            for s in self.states
            for share in s.shares
        ]


def _zone_lines(state: ZoneState, columns: list[tuple[int, str]]) -> list[str]:
    out = [
        f"Node {state.node} {state.zone}: {state.free} pages free ({size(state.free)}) of "
        f"{state.managed} managed; min {state.min}, low {state.low}, high {state.high}",
        f"  {state.verdict}",
    ]
    table: list[tuple[str, str, list[str]]] = []  # from whom, to whom, a cell for each request
    for highest, who in columns:
        cells = [_cell(s) for s in state.shares if s.highest == highest]
        if not cells:
            continue
        if table and table[-1][2] == cells:
            table[-1] = (table[-1][0], who, cells)
        else:
            table.append((who, who, cells))
    wide = max((len(text) + 4 for first, last, _ in table for text in (first, last)), default=24)
    wide = max(24, wide)
    out.append(f"  {'may be taken by':<22}" + "".join(f"{first:>{wide}}" for first, _, _ in table))
    if any(first != last for first, last, _ in table):
        to = ("" if first == last else f"to {last}" for first, last, _ in table)
        out.append((f"  {'':<22}" + "".join(f"{text:>{wide}}" for text in to)).rstrip())
    for i, request in enumerate(REQUESTS):
        out.append(
            f"  {request.name:<22}" + "".join(f"{cells[i]:>{wide}}" for _, _, cells in table)
        )
    return out


def _cell(share: Share) -> str:
    """Say what a kind of request may take: pages, and the largest order if it is known."""
    cell = str(share.pages) if share.pages else "none"
    if share.largest is not None and share.largest >= 0:
        return f"{cell}, order {share.largest}"
    return f"{cell}, no block" if share.largest is not None and share.pages else cell


def _by_index(layouts: list[list[str]]) -> list[str]:
    """Return the zone with each index; where the kernel's zones are not known, all it can be."""
    columns = itertools.zip_longest(*layouts, fillvalue="")
    return [" or ".join(dict.fromkeys(filter(None, names))) for names in columns]


def _columns(layouts: list[list[str]]) -> list[tuple[int, str]]:
    """Return (index, who asks for the zone with it) for all zones that a request can name."""
    out = []
    for i, names in enumerate(_by_index(layouts)):
        if who := [ASKS[name] for name in names.split(" or ") if name in ASKS]:
            out.append((i, " or ".join(who)))
    return out


def examine(text: str) -> ZoneReport:
    """Return the report on a text of /proc/zoneinfo, with or without /proc/buddyinfo behind it.

    Watermarks and reserves are those in the text.

    :raises ParseError: if no zone in it is whole
    """
    from mmcore.machine import Machine

    zones, notes = read(text)
    length = max(len(z.protection) for z in zones)
    seen = [Seen(z.name, tuple(z.protection), z.present, z.node) for z in zones]
    layouts = zone_layouts(seen, length, any("managed" in z.pages for z in zones))
    kinds = _by_index(layouts)
    columns = _columns(layouts)
    if len(layouts) > 1:
        notes += textwrap.wrap(
            "Which zones this kernel has does not follow from the text; it may be "
            + " or ".join("/".join(names) for names in layouts)
            + ". A column is for the requests whose highest zone is at its place in one of these.",
            88,
        )
    m = Machine()
    states = []
    for part in zones:
        if not part.present:
            continue
        places = [names.index(part.name) for names in layouts if part.name in names]
        if not places:
            notes.append(f"zone {part.name!r} is not known; it was left out.")
            continue
        zone = _model(m, part, min(places))
        state = _state(zone, part.node)
        state.shares = [
            _share(zone, request, highest)
            for highest, _ in columns
            if highest >= zone.zone_idx
            for request in REQUESTS
        ]
        if part.blocks is not None:
            for share in state.shares:
                share.largest = _largest(zone, share)
        states.append(state)
    return ZoneReport(states, columns, kinds, any("promo" not in z.pages for z in zones), notes)


def report(text: str) -> str:
    """Return the report on a text of /proc/zoneinfo as lines of text.

    :raises ParseError: if no zone in it is whole
    """
    return "\n".join(examine(text).lines()) + "\n"
