"""Read a "page allocation failure" report from a kernel log, and say why the request failed.

`parse()` finds a report in a log, `str()` writes it out again as it stood, `explain()` puts the
allocator's own test to each zone: what was free, what had to stay free, which orders and types of
blocks were there::

    report = parse(open("dmesg.txt").read())
    print(explain(report))

The line of free blocks, ``Node 0 DMA32: 2*4kB (UM) 0*8kB ... = 1848kB``, can be read alone with
`parse_free_list()`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from mmcore.config import PAGE_SHIFT
from mmcore.errors import ParseError
from mmcore.lib.list import ListHead, list_add_tail
from mmcore.machine import Machine
from mmcore.mm import page_alloc
from mmcore.mm.gfp import __GFP_DIRECT_RECLAIM, __GFP_IO, gfp_zone
from mmcore.mm.internal import ALLOC_HIGHATOMIC, ALLOC_OOM, alloc_flags_str
from mmcore.mm.mmzone import (
    MAX_NR_ZONES,
    MIGRATE_HIGHATOMIC,
    MIGRATE_PCPTYPES,
    MIGRATETYPE_LETTERS,
    NR_PAGE_ORDERS,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    ZONE_NAMES,
    PgData,
    Zone,
    min_wmark_pages,
)
from mmcore.mm.vmstat import NR_FREE_PAGES

__all__ = [
    "AllocFailure",
    "Explanation",
    "FreeList",
    "ZoneReport",
    "ZoneVerdict",
    "explain",
    "parse",
    "parse_all",
    "parse_free_list",
]

HEAD_RE = re.compile(
    r"(?P<comm>.*): page allocation failure: order:(?P<order>\d+), "
    r"mode:(?P<mode>0x[0-9a-f]+)\((?P<names>[^)]*)\), nodemask=(?P<nodemask>\(null\)|[-\d,]*?)"
    r"(?:,cpuset=(?P<cpuset>.*),mems_allowed=(?P<mems>.*))?"
)
STAMP_RE = re.compile(r"^(.*?\[ *\d+\.\d+\] |.*? kernel: (?:\[ *\d+\.\d+\] )?|)(.*)$", re.S)
FREE_LIST_RE = re.compile(r"(?:Node (\d+) )?(\w+): ((?:\d+\*\d+kB (?:\([UMEHCI]*\) )?)+)= (\d+)kB")
ORDER_RE = re.compile(r"(\d+)\*(\d+)kB (?:\(([UMEHCI]*)\) )?")
ZONE_RE = re.compile(r"(?:Node (\d+) )?(\w+) (free:\d+kB .*)")
NODE_RE = re.compile(r"Node (\d+) (active_anon:\d+kB .*) all_unreclaimable\? (yes|no)")
VALUE_RE = re.compile(r"([\w()]+):(\d+)([kK]B)?")
RESERVE_RE = re.compile(r"lowmem_reserve\[\]:((?: -?\d+)+)")
COUNTS_RE = re.compile(r" ?\w+:\d+(?: \w+:\d+)*")
PAGES_RE = re.compile(r"(\d+) (total pagecache pages|pages .*)")
END_RE = re.compile(r"\d+ pages hwpoisoned")


@dataclass(slots=True)
class FreeList:
    """A zone's free blocks: how many of each order, and of which types.

    :ivar node: node id, None from a kernel without NUMA
    :ivar types: by order, the letters of the types that have free blocks: Unmovable, Movable,
        rEclaimable, Highatomic, Cma, Isolate
    """

    node: int | None
    zone: str
    nr: list[int]
    types: list[str]

    def __str__(self) -> str:
        name = self.zone if self.node is None else f"Node {self.node} {self.zone}"
        blocks = "".join(
            f"{n}*{4 << order}kB " + (f"({types}) " if n else "")
            for order, (n, types) in enumerate(zip(self.nr, self.types, strict=True))
        )
        return f"{name}: {blocks}= {self.pages << PAGE_SHIFT - 10}kB"

    @property
    def pages(self) -> int:
        """The free pages in all blocks."""
        return sum(n << order for order, n in enumerate(self.nr))

    @property
    def largest_order(self) -> int:
        """The order of the largest free block, -1 if there is none."""
        return max((order for order, n in enumerate(self.nr) if n), default=-1)


def parse_free_list(text: str, line: int = 1) -> FreeList:
    """Read one line of free blocks.

    :raises ParseError: if it is none, or its numbers do not add up
    """
    match = FREE_LIST_RE.search(text)
    if match is None:
        raise ParseError("free list", line, text, "not of the form 'Node 0 DMA32: 2*4kB (UM) ...'")
    node, zone, blocks, total = match.groups()
    found = FreeList(None if node is None else int(node), zone, [], [])
    for order, (count, size, types) in enumerate(ORDER_RE.findall(blocks)):
        if int(size) != 4 << order:
            raise ParseError("free list", line, text, f"{size}kB where {4 << order}kB was expected")
        if bool(int(count)) != bool(types):
            raise ParseError(
                "free list", line, text, f"{count} blocks of {size}kB, types {types!r}"
            )
        found.nr.append(int(count))
        found.types.append(types)
    if len(found.nr) != NR_PAGE_ORDERS:
        raise ParseError("free list", line, text, f"{len(found.nr)} orders, not {NR_PAGE_ORDERS}")
    if found.pages << PAGE_SHIFT - 10 != int(total):
        raise ParseError("free list", line, text, f"the blocks add up to {found.pages * 4}kB")
    return found


@dataclass(slots=True)
class ZoneReport:
    """A zone's lines in a report.

    :ivar values: in the order printed, each with its unit: ``{"free": (776, "kB"), ...}``
    :ivar lowmem_reserve: pages, by zone index of the request
    """

    node: int | None
    name: str
    values: dict[str, tuple[int, str]] = field(default_factory=dict)
    lowmem_reserve: list[int] = field(default_factory=list)
    free_list: FreeList | None = None

    def __str__(self) -> str:
        where = "" if self.node is None else f"Node {self.node} "
        return f"{where}{self.name} {_values_text(self.values)}"

    def pages(self, name: str) -> int:
        """Return a value in pages; 0 if an older kernel does not print it."""
        return self.values.get(name, (0, ""))[0] >> PAGE_SHIFT - 10


def _values(text: str) -> dict[str, tuple[int, str]]:
    return {name: (int(value), unit) for name, value, unit in VALUE_RE.findall(text)}


def _values_text(values: dict[str, tuple[int, str]]) -> str:
    return " ".join(f"{name}:{value}{unit}" for name, (value, unit) in values.items())


@dataclass(slots=True)
class AllocFailure:
    """A report: the request, the zones, and every line as it can be written again.

    :ivar counts: the machine's counters, in pages
    :ivar nodes: each node's counters
    :ivar zones: in the order of the report
    """

    comm: str
    order: int
    gfp_mask: int
    gfp_names: str
    nodemask: str
    cpuset: str | None = None
    mems_allowed: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    nodes: dict[int, dict[str, tuple[int, str]]] = field(default_factory=dict)
    zones: list[ZoneReport] = field(default_factory=list)
    _lines: list[tuple[str, str | Callable[[], str]]] = field(default_factory=list, repr=False)

    @property
    def head(self) -> str:
        """The report's first line."""
        text = (
            f"{self.comm}: page allocation failure: order:{self.order}, "
            f"mode:{self.gfp_mask:#x}({self.gfp_names}), nodemask={self.nodemask}"
        )
        if self.cpuset is not None:
            text += f",cpuset={self.cpuset},mems_allowed={self.mems_allowed}"
        return text

    def __str__(self) -> str:
        return "\n".join(
            f"{stamp}{part() if callable(part) else part}" for stamp, part in self._lines
        )

    def zone(self, node: int | None, name: str) -> ZoneReport:
        """Return a zone's part of the report, which begins with its first mention."""
        for zone in self.zones:
            if zone.node == node and zone.name == name:
                return zone
        zone = ZoneReport(node, name)
        self.zones.append(zone)
        return zone


def _head_text(report: AllocFailure) -> Callable[[], str]:
    return lambda: report.head


def _node_text(report: AllocFailure, node: int, last: str) -> str:
    return f"Node {node} {_values_text(report.nodes[node])} all_unreclaimable? {last}"


def _counts_text(report: AllocFailure, indent: str, names: list[str]) -> str:
    return indent + " ".join(f"{name}:{report.counts[name]}" for name in names)


def _take_line(report: AllocFailure, text: str, line: int) -> str | Callable[[], str]:
    """Read one line behind the head; return what writes it again."""
    if match := FREE_LIST_RE.fullmatch(text):
        free_list = parse_free_list(text, line)
        report.zone(free_list.node, free_list.zone).free_list = free_list
        return free_list.__str__
    if match := NODE_RE.fullmatch(text):
        node, last = int(match[1]), match[3]
        report.nodes[node] = _values(match[2])
        return lambda: _node_text(report, node, last)
    if match := ZONE_RE.fullmatch(text):
        zone = report.zone(None if match[1] is None else int(match[1]), match[2])
        zone.values = _values(match[3])
        return zone.__str__
    if (match := RESERVE_RE.fullmatch(text)) and report.zones:
        zone = report.zones[-1]
        zone.lowmem_reserve = [int(word) for word in match[1].split()]
        return lambda: "lowmem_reserve[]:" + "".join(f" {n}" for n in zone.lowmem_reserve)
    if COUNTS_RE.fullmatch(text):
        found = {name: int(value) for name, value, _ in VALUE_RE.findall(text)}
        report.counts.update(found)
        indent, names = text[: len(text) - len(text.lstrip())], list(found)
        return lambda: _counts_text(report, indent, names)
    if match := PAGES_RE.fullmatch(text):
        what = match[2]
        report.counts[what] = int(match[1])
        return lambda: f"{report.counts[what]} {what}"
    return text


def parse_all(text: str) -> list[AllocFailure]:
    """Return all reports of a kernel log; lines between them are left out.

    Lines may have the log's time stamp or none; a line that is not understood is kept as it is. A
    report ends with its last known line, "pages hwpoisoned", or where the next report begins.

    :raises ParseError: if a line of free blocks does not add up
    """
    reports: list[AllocFailure] = []
    report: AllocFailure | None = None
    for number, raw in enumerate(text.split("\n"), 1):
        stamp_match = STAMP_RE.match(raw.rstrip("\r"))
        stamp, line = stamp_match.groups() if stamp_match else ("", raw)
        if head := HEAD_RE.fullmatch(line):
            report = AllocFailure(
                head["comm"],
                int(head["order"]),
                int(head["mode"], 16),
                head["names"],
                head["nodemask"],
                head["cpuset"],
                head["mems"],
            )
            report._lines.append((stamp, _head_text(report)))
            reports.append(report)
        elif report is not None:
            part = _take_line(report, line, number)
            # What is cut short or printed otherwise is read as far as it goes and kept as it is.
            report._lines.append((stamp, line if callable(part) and part() != line else part))
            if END_RE.fullmatch(line):
                report = None
    return reports


def parse(text: str) -> AllocFailure:
    """Return the first report of a kernel log.

    :raises ParseError: if there is none
    """
    reports = parse_all(text)
    if not reports:
        first = text.partition("\n")[0]
        raise ParseError("kernel log", 1, first, 'no line has "page allocation failure: order:"')
    return reports[0]


# ---- why it failed -------------------------------------------------------------------------------


@dataclass(slots=True)
class ZoneVerdict:
    """The allocator's test of one zone, with the numbers of the report. All sizes are in pages.

    :ivar allowed: the request may use the zone
    :ivar ok: the test passes
    :ivar free: free pages
    :ivar unusable: of those, what the request cannot count on: 2**order - 1
    :ivar mark: the min watermark, lowered if the request may use part of the reserve
    :ivar reserve: what the zone keeps from requests that could use a higher zone
    :ivar block: a block of the order or above is free, on a list that the request may use
    """

    node: int | None
    zone: str
    allowed: bool
    ok: bool
    free: int
    unusable: int
    mark: int
    reserve: int
    block: bool
    largest_order: int
    why: str

    def __str__(self) -> str:
        where = self.zone if self.node is None else f"Node {self.node} {self.zone}"
        return f"{where}: {self.why}"


@dataclass(slots=True)
class Explanation:
    """Why a request failed, zone by zone.

    :ivar alloc_flags: the ALLOC_* flags of the slow path for it
    :ivar highest_zone: the highest zone that it may use
    """

    report: AllocFailure
    alloc_flags: int
    highest_zone: str
    zones: list[ZoneVerdict]
    notes: list[str]

    def __str__(self) -> str:
        size = 4 << self.report.order
        head = (
            f"{self.report.comm} asked for a block of order {self.report.order} ({size} kB) with "
            f"{self.report.gfp_names}: zones up to {self.highest_zone}, "
            f"{alloc_flags_str(self.alloc_flags)}."
        )
        return "\n".join([head, *map(str, self.zones), *self.notes])


def _model_zone(m: Machine, part: ZoneReport) -> Zone:
    """Make a zone of the engine with the numbers of the report."""
    idx = ZONE_NAMES.index(part.name) if part.name in ZONE_NAMES else 0
    zone = Zone(m, part.name, idx, part.node or 0, PgData(m, part.node or 0))
    zone.watermark_boost = part.pages("boost")
    for wmark, name in ((WMARK_MIN, "min"), (WMARK_LOW, "low"), (WMARK_HIGH, "high")):
        zone._watermark[wmark] = part.pages(name) - zone.watermark_boost
    zone.managed_pages = part.pages("managed")
    zone.vm_stat[NR_FREE_PAGES] = part.pages("free")
    for i, value in enumerate(part.lowmem_reserve[:MAX_NR_ZONES]):
        zone.lowmem_reserve[i] = value
    if part.free_list is not None:
        for order, letters in enumerate(part.free_list.types):
            area = zone.free_area[order]
            area.nr_free = part.free_list.nr[order]
            for letter in letters:
                if letter in MIGRATETYPE_LETTERS:  # CMA ("C") is for movable requests alone
                    mt = MIGRATETYPE_LETTERS.index(letter)
                    list_add_tail(ListHead(), area.free_list[mt])
    return zone


def _has_block(zone: Zone, order: int, alloc_flags: int) -> bool:
    """Tell whether a block of @order or above is free on a list that the test looks at."""
    types = list(range(MIGRATE_PCPTYPES))
    if alloc_flags & (ALLOC_HIGHATOMIC | ALLOC_OOM):
        types.append(MIGRATE_HIGHATOMIC)
    return any(
        not page_alloc.free_area_empty(zone.free_area[o], mt)
        for o in range(order, NR_PAGE_ORDERS)
        for mt in types
    )


def _verdict(
    report: AllocFailure, part: ZoneReport, hi: int, alloc_flags: int, m: Machine
) -> ZoneVerdict:
    """Put the allocator's watermark test to one zone."""
    zone = _model_zone(m, part)
    order = report.order
    free = zone.vm_stat[NR_FREE_PAGES]
    unusable = page_alloc.__zone_watermark_unusable_free(zone, order, alloc_flags)
    mark = page_alloc.min_with_reserves(min_wmark_pages(zone), alloc_flags)
    reserve = zone.lowmem_reserve[hi]
    ok = page_alloc.zone_watermark_fast(
        zone, order, min_wmark_pages(zone), hi, alloc_flags, report.gfp_mask
    )
    block = _has_block(zone, order, alloc_flags)
    largest = -1 if part.free_list is None else part.free_list.largest_order
    allowed = zone.zone_idx <= hi
    left = f"{free} free" + (f" - {unusable}" if unusable else "")
    must = f"mark {mark}" + (f" + lowmem_reserve {reserve}" if reserve else "")
    if not allowed:
        why = "not for this request: the zone is above what its gfp flags allow"
    elif ok:
        why = (
            f"passes the test now ({left} > {must}"
            + (", and a block is there" if order else "")
            + "): the request failed before, or on another rule"
        )
    elif free - unusable <= mark + reserve:
        why = f"too little free: {left} <= {must} pages"
        if order and not block:
            why += f"; nor is a block of order {order} or above free (largest: {largest})"
    else:
        why = (
            f"enough free ({left} > {must} pages), but no block of order {order} or above on the "
            f"lists it may use (largest free block: order {largest})"
        )
    return ZoneVerdict(
        part.node, part.name, allowed, ok, free, unusable, mark, reserve, block, largest, why
    )


def explain(report: AllocFailure) -> Explanation:
    """Say why a request failed, by the allocator's own arithmetic on the numbers of its report.

    The report does not say whether the task was an OOM victim or reclaiming memory itself, nor how
    many free pages HIGHATOMIC pageblocks hold: the test takes neither into account.
    """
    m = Machine()
    hi = gfp_zone(report.gfp_mask)
    alloc_flags = page_alloc.gfp_to_alloc_flags(m, report.gfp_mask, report.order)
    zones = [_verdict(report, part, hi, alloc_flags, m) for part in report.zones if part.values]
    notes: list[str] = []
    if not report.gfp_mask & __GFP_DIRECT_RECLAIM:
        notes.append("The request could neither reclaim nor compact: it may not block.")
    elif report.order and not report.gfp_mask & __GFP_IO:
        notes.append("The request could not compact: that needs __GFP_IO.")
    enough = [
        z for z in zones if z.allowed and not z.ok and z.free - z.unusable > z.mark + z.reserve
    ]
    if enough and report.order:
        pages = sum(z.free for z in enough)
        notes.append(f"Fragmentation, not shortage: {pages * 4} kB are free in smaller blocks.")
    return Explanation(report, alloc_flags, ZONE_NAMES[hi], zones, notes)
