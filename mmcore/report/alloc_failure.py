"""Read the memory reports of a kernel log, and say why a request failed.

A report is what the kernel prints when an allocation fails (``warn_alloc()``), when the OOM killer runs,
or on SysRq-m: the request, if there was one, and the state of all zones. `parse()` finds one in a log,
`str()` writes it out again as it stood, `explain()` puts the allocator's own test to each zone: what was
free, what had to stay free, which orders and types of blocks were there::

    report = parse(open("dmesg.txt").read())
    print(explain(report))

Logs of older kernels are read, too, with any prefix, wrapped, or cut short; what is not understood is
kept and left alone. The line of free blocks, ``Node 0 DMA32: 2*4kB (UM) 0*8kB ... = 1848kB``, can be read
alone with `parse_free_list()`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mmcore.errors import ParseError, UsageError
from mmcore.lib.list import ListHead, list_add_tail
from mmcore.machine import Machine
from mmcore.mm import page_alloc
from mmcore.mm.gfp import __GFP_DIRECT_RECLAIM, __GFP_HIGHMEM, __GFP_IO, __GFP_MOVABLE, gfp_zone
from mmcore.mm.internal import ALLOC_HIGHATOMIC, ALLOC_OOM, alloc_flags_str
from mmcore.mm.mmzone import (
    MAX_NR_ZONES,
    MAX_PAGE_ORDER,
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    MIGRATE_UNMOVABLE,
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
from mmcore.report.buddyinfo import size
from mmcore.report.gfp import NUMBERINGS, Numbering, by_names, fits, nameless, to_reference
from mmcore.report.kernlog import LogLine, logical_lines
from mmcore.report.zone_state import ALL_ZONES, Seen, zone_for, zone_layouts

__all__ = [
    "MAX_REPORTS",
    "AllocFailure",
    "Explanation",
    "FreeList",
    "ZoneReport",
    "ZoneVerdict",
    "explain",
    "parse",
    "parse_all",
    "parse_free_list",
    "take_head",
    "take_line",
]

#: At most this many reports of one log are read, and this many lines of one report.
MAX_REPORTS, MAX_REPORT_LINES = 256, 4096

#: What a report begins with; only around these a log is looked at.
START_RE = re.compile(
    r"allocation failure|page allocation stalls|vmalloc error|vmemmap alloc failure"
    r"|invoked oom-killer|Mem-[Ii]nfo:"
)
HEAD_RE = re.compile(
    r"(?P<what>(?:page|vmalloc:) allocation failure[:.]|page allocation stalls for \d{1,9}ms,"
    r"|vmalloc error:|vmemmap alloc failure:|invoked oom-killer:)"
    r"(?P<text>[^()]{0,200}?)\b(?:mode:|gfp_mask=)(?P<mode>0x[0-9a-f]{1,8})(?:\((?P<names>[^)]{0,600})\))?"
    r"(?P<rest>.*)"
)
ORDER_OF_RE = re.compile(r"\border[:=] ?(-?\d{1,4})\b")
NODEMASK_RE = re.compile(r"\bnodemask=(\(null\)|[-\d,]+?)(?=,?$|, |,cpuset)")
CPUSET_RE = re.compile(r"\bcpuset=(\S{0,200}?),? ?mems_allowed=([-\d,]{1,80})")
FREE_LIST_RE = re.compile(
    r"(?:Node (\d{1,6}) )?(\w{1,16}): ((?:\d{1,20}\*\d{1,12}kB (?:\([UMERHCI]*\) )?)+)= (\d{1,20})kB"
)
ORDER_RE = re.compile(r"(\d+)\*(\d+)kB (?:\(([UMERHCI]*)\) )?")
ZONE_RE = re.compile(r"(?:Node (\d{1,6}) )?(\w{1,16}) (free:\d{1,20}kB .*)")
#: The same behind what another CPU printed into the line.
MIXED_RE = re.compile(
    r"\b(?:Node (\d{1,6}) )?(DMA|DMA32|Normal|HighMem|Movable) (free:\d{1,20}kB (?:boost|min):.*)"
)
NODE_RE = re.compile(r"Node (\d{1,6}) (active_anon:\d{1,20}kB .*) all_unreclaimable\? (yes|no)")
VALUE_RE = re.compile(r"([\w()]{1,40}):(\d{1,20})([kK]B)?")
RESERVE_RE = re.compile(r"lowmem_reserve\[\]:((?: -?\d{1,20}){1,16})")
COUNTS_RE = re.compile(r" {0,40}[a-z_]{2,40}:\d{1,20}(?: [a-z_]{2,40}:\d{1,20})*")
PAGES_RE = re.compile(r"(\d{1,20}) (total pagecache pages|pages [\w/ ]{1,40})")
SWAP_RE = re.compile(r"(Free|Total) swap +[=:] +(\d{1,20})kB")
MEMCG_RE = re.compile(r"memory: usage (\d{1,20})kB, limit (\d{1,20})kB, failcnt \d{1,20}")
TRACE_RE = re.compile(
    r" {0,4}(?:\[<[0-9a-f]{1,16}>\] ?)?([\w.]{1,100})\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}\b.{0,80}"
)
#: Functions of the allocator and of what prints: what stands above them in a stack trace asked.
OURS_RE = re.compile(
    r"mem_cgroup_oom|mem_cgroup_out_of_memory|try_charge|_*mem_cgroup_(?:try_)?charge"
    r"|dump_stack|show_stack|dump_header|oom_kill_process|out_of_memory|warn_alloc|_*alloc_pages?"
    r"|get_page_from_freelist|pagecache_get_page$|_*folio_alloc|_*get_free_pages?|get_zeroed_page"
    r"|_*kmalloc|_*kv?malloc_node|kmem_cache_alloc|_*slab_alloc|new_slab|allocate_slab|cache_grow"
    r"|cache_alloc|fallback_alloc|kmem_getpages|_*vmalloc|do_kmalloc|page_frag_alloc|alloc_slab_page"
    r"|_*memdup|mempool_alloc|vma_alloc_folio|__filemap_get_folio|alloc_skb$"
)
END_RE = re.compile(r"\d+ pages hwpoisoned|Tasks state \(memory values in pages\):|\[ *pid *\].*")
KILLED_RE = re.compile(r"Killed process (\d{1,10}) \(([^\n]{1,64}?)\)")


@dataclass(slots=True)
class FreeList:
    """A zone's free blocks: how many of each order, and of which types.

    :ivar node: node id, None from a kernel without NUMA
    :ivar types: by order, the letters of the types that have free blocks: Unmovable, Movable,
        rEclaimable, Highatomic, Cma, Isolate; before 4.4 also Reserve
    :ivar typed: the kernel printed types; before 3.9 it did not
    :ivar page_kb: kilobytes of a page, the size of the first column
    """

    node: int | None
    zone: str
    nr: list[int]
    types: list[str]
    typed: bool = True
    page_kb: int = 4

    def __str__(self) -> str:
        name = self.zone if self.node is None else f"Node {self.node} {self.zone}"
        blocks = "".join(
            f"{n}*{self.page_kb << order}kB " + (f"({types}) " if n and self.typed else "")
            for order, (n, types) in enumerate(zip(self.nr, self.types, strict=True))
        )
        return f"{name}: {blocks}= {self.pages * self.page_kb}kB"

    @property
    def pages(self) -> int:
        """The free pages in all blocks."""
        return sum(n << order for order, n in enumerate(self.nr))

    @property
    def largest_order(self) -> int:
        """The order of the largest free block, -1 if there is none."""
        return max((order for order, n in enumerate(self.nr) if n), default=-1)


def parse_free_list(text: str, line: int = 1, orders: int | None = NR_PAGE_ORDERS) -> FreeList:
    """Read one line of free blocks.

    :param orders: how many orders there must be; None: as many as there are
    :raises ParseError: if it is none, or its numbers do not add up
    """
    match = FREE_LIST_RE.search(text)
    if match is None:
        raise ParseError("free list", line, text, "not of the form 'Node 0 DMA32: 2*4kB (UM) ...'")
    node, zone, blocks, total = match.groups()
    found = FreeList(None if node is None else int(node), zone, [], [], "(" in blocks)
    columns = ORDER_RE.findall(blocks)
    if orders is None and int(columns[0][1]) in (4, 8, 16, 32, 64):
        found.page_kb = int(columns[0][1])
    for order, (count, kb, types) in enumerate(columns):
        expected = found.page_kb << order
        if int(kb) != expected:
            raise ParseError("free list", line, text, f"{kb}kB where {expected}kB was expected")
        if found.typed and bool(int(count)) != bool(types):
            raise ParseError("free list", line, text, f"{count} blocks of {kb}kB, types {types!r}")
        found.nr.append(int(count))
        found.types.append(types)
    if orders is not None and len(found.nr) != orders:
        raise ParseError("free list", line, text, f"{len(found.nr)} orders, not {orders}")
    if len(found.nr) > 32:
        raise ParseError("free list", line, text, f"{len(found.nr)} orders, which no kernel has")
    if found.pages * found.page_kb != int(total):
        add = found.pages * found.page_kb
        raise ParseError("free list", line, text, f"the blocks add up to {add}kB")
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
    page_kb: int = 4

    def __str__(self) -> str:
        where = "" if self.node is None else f"Node {self.node} "
        return f"{where}{self.name} {_values_text(self.values)}"

    def pages(self, name: str) -> int:
        """Return a value in pages; 0 if an older kernel does not print it."""
        return self.values.get(name, (0, ""))[0] // self.page_kb


def _values(text: str) -> dict[str, tuple[int, str]]:
    return {name: (int(value), unit) for name, value, unit in VALUE_RE.findall(text)}


def _values_text(values: dict[str, tuple[int, str]]) -> str:
    return " ".join(f"{name}:{value}{unit}" for name, (value, unit) in values.items())


@dataclass(slots=True)
class AllocFailure:
    """A report: the request, the zones, and every line as it can be written again.

    :ivar gfp_mask: the number as printed; `reference_mask` is the same request in 6.12's numbers
    :ivar counts: the machine's counters, in pages
    :ivar nodes: each node's counters
    :ivar zones: in the order of the report
    :ivar kind: ``failure``, ``stall``, ``vmalloc``, ``oom``, or ``memory`` if there was no request
    :ivar numbering: the release whose gfp numbers these are
    :ivar line: the line of the log it begins in
    :ivar problems: what could not be read, in words
    :ivar named_mask: the mask in that numbering, by the names if the number is of another kernel
    :ivar trace: the functions of the stack trace that are certain, innermost first
    :ivar cpuset_apart: the cpuset stands on a line of its own, as until 4.18
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
    kind: str = "failure"
    numbering: Numbering = NUMBERINGS[0]
    sure: bool = True
    line: int = 1
    problems: list[str] = field(default_factory=list)
    killed: str = ""
    memcg: tuple[int, int] | None = None
    swap: dict[str, int] = field(default_factory=dict)
    page_kb: int = 4
    whole: bool = False
    cpuset_apart: bool = False
    trace: list[str] = field(default_factory=list)
    named_mask: int | None = None

    @property
    def head(self) -> str:
        """The report's first line, as Linux 6.12 writes it."""
        text = (
            f"{self.comm}: page allocation failure: order:{self.order}, "
            f"mode:{self.gfp_mask:#x}({self.gfp_names}), nodemask={self.nodemask}"
        )
        if self.cpuset is not None and not self.cpuset_apart:
            text += f",cpuset={self.cpuset},mems_allowed={self.mems_allowed}"
        return text

    @property
    def reference_mask(self) -> int:
        """The request's mask in the numbering of Linux 6.12."""
        mask = self.gfp_mask if self.named_mask is None else self.named_mask
        return to_reference(self.numbering, mask)

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


def _take_numbers(report: AllocFailure, text: str) -> str | Callable[[], str]:
    """Read a line of the machine's counters."""
    if COUNTS_RE.fullmatch(text):
        found = {name: int(value) for name, value, _ in VALUE_RE.findall(text)}
        report.counts.update(found)
        indent, names = text[: len(text) - len(text.lstrip())], list(found)
        return lambda: _counts_text(report, indent, names)
    if match := PAGES_RE.fullmatch(text):
        what = match[2]
        report.counts[what] = int(match[1])
        return lambda: f"{report.counts[what]} {what}"
    if len(report.trace) < 64 and not report.counts and (match := TRACE_RE.fullmatch(text)):
        report.trace.append(match[1].partition(".")[0].removesuffix("_noprof"))
    elif match := SWAP_RE.fullmatch(text.rstrip()):
        report.swap[match[1].lower()] = int(match[2])
    elif match := MEMCG_RE.search(text):
        report.memcg = (int(match[1]), int(match[2]))
    elif report.cpuset is None and (match := CPUSET_RE.search(text)):
        report.cpuset, report.mems_allowed = match[1], match[2]
        report.cpuset_apart = True
    return text


def take_line(report: AllocFailure, text: str, line: int) -> str | Callable[[], str]:
    """Read one line behind the head; return what writes it again.

    :raises ParseError: if it is a line of free blocks that does not add up
    """
    if match := FREE_LIST_RE.fullmatch(text):
        free_list = parse_free_list(text, line, None)
        report.zone(free_list.node, free_list.zone).free_list = free_list
        report.page_kb = free_list.page_kb
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
    if match := MIXED_RE.search(text):
        zone = report.zone(None if match[1] is None else int(match[1]), match[2])
        zone.values = zone.values or _values(match[3])
        report.problems.append(
            f"line {line}: several CPUs printed into this line; {match[2]} is read"
        )
        return text
    return _take_numbers(report, text)


_KINDS = {"page allocation failure": "failure", "page allocation stalls": "stall"}


def _numbering(mask: int, names: str | None) -> tuple[Numbering, bool, int]:
    """Return the numbering of a report's mask, whether number and names agree, and the mask in it.

    Where they agree in none, the names count: their meaning has not changed.
    """
    if not names:
        return nameless(mask).table, False, mask
    tables = fits(mask, names)
    if tables:
        return tables[0], True, mask
    table, named = by_names(names) or (NUMBERINGS[0], mask)
    return table, False, named


def take_head(text: str, line: int) -> AllocFailure | None:
    """Read the first line of a report, None if it is none."""
    start = START_RE.search(text)
    if start is None:
        return None
    if start[0].lower() == "mem-info:":
        return AllocFailure("", 0, 0, "", "(null)", kind="memory", line=line)
    at = max(start.start() - 9, 0)
    match = HEAD_RE.search(text, at)
    if match is None:
        return None
    what, mask, names = match["what"], int(match["mode"], 16), match["names"]
    kind = "oom" if "oom" in what else _KINDS.get(what[:23].rstrip(":."), "vmalloc")
    kind = "stall" if "stalls" in what else kind
    found = ORDER_OF_RE.search(match["text"] + what + match["rest"])
    order = int(found[1]) if found else 0
    table, sure, named = _numbering(mask, names)
    comm = text[: match.start()].rstrip(": ").removesuffix("vmalloc")[-64:]
    report = AllocFailure(comm, max(order, 0), mask, names or "", "(null)", kind=kind, line=line)
    report.numbering, report.sure, report.named_mask = table, sure, named
    if node := NODEMASK_RE.search(match["rest"]):
        report.nodemask = node[1]
    if cpuset := CPUSET_RE.search(match["rest"]):
        report.cpuset, report.mems_allowed = cpuset[1], cpuset[2]
    if order > 31:
        report.problems.append(f"line {line}: order {order}, which no kernel has, is read as 0")
        report.order = 0
    return report


def _starts(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the lines begin that may begin a report, each with its line number."""
    at, number = 0, 1
    for match in START_RE.finditer(text):
        begin = text.rfind("\n", 0, match.start()) + 1
        if begin < at:
            continue
        number += text.count("\n", at, begin)
        at = begin
        yield begin, number
        end = text.find("\n", begin)
        if end < 0:
            return


def _read_report(
    report: AllocFailure, first: LogLine, lines: Iterator[LogLine], offset: int
) -> None:
    """Read the lines of a report up to its last, or the first of another."""
    head: str | Callable[[], str] = first.raw
    if first.lines == 1 and report.kind == "failure" and report.head == first.raw:
        head = _head_text(report)
    report._lines.append((first.stamp, head))
    mem_info = report.kind == "memory"
    for count, line in enumerate(lines):
        text = line.text
        if count >= MAX_REPORT_LINES:
            break
        if START_RE.search(text) and take_head(text, 0) is not None:
            if mem_info or not text.startswith("Mem-"):
                break
            mem_info = True
        ends = END_RE.fullmatch(text)
        if ends and not text.endswith("hwpoisoned"):
            report.whole = True
            break
        number = line.number + offset
        part: str | Callable[[], str] = line.raw
        try:
            part = take_line(report, text, number)
        except ParseError as err:
            report.problems.append(f"line {number}: {err.why}; it was left out")
        # What is cut short, wrapped or printed otherwise is read as far as it goes and kept.
        report._lines.append(
            (line.stamp, line.raw if not callable(part) or part() != line.raw else part)
        )
        if ends:
            report.whole = True
            break
    for zone in report.zones:
        zone.page_kb = report.page_kb
        if zone.values and not zone.lowmem_reserve:
            report.problems.append(f"{zone.name}: no lowmem_reserve line; the test takes it as 0")


def parse_all(text: str, limit: int = MAX_REPORTS) -> list[AllocFailure]:
    """Return the reports of a kernel log, at most @limit; lines between them are left out.

    Lines may have any log's prefix or none; a line that is not understood is kept as it is. A report
    ends with its last known line, "pages hwpoisoned", or where the next report begins.
    """
    reports: list[AllocFailure] = []
    end = 0
    for begin, number in _starts(text):
        if begin < end or len(reports) >= limit:
            continue
        lines = logical_lines(text, begin)
        first = next(lines)
        report = take_head(first.text, number)
        if report is None:
            continue
        _read_report(report, first, lines, number - 1)
        length = 0
        for stamp, part in report._lines:
            length += len(stamp) + len(part() if callable(part) else part) + 1
        end = begin + length - 1
        if report.kind == "oom" and (killed := KILLED_RE.search(text, end, end + 400_000)):
            report.killed = f"{killed[2]} (pid {killed[1]})"
        reports.append(report)
    return reports


def parse(text: str) -> AllocFailure:
    """Return the first report of a failed allocation in a kernel log.

    If none failed, the first report of another kind: OOM killer, SysRq-m.

    :raises ParseError: if there is none
    """
    reports = parse_all(text)
    for report in reports:
        if report.kind == "failure":
            return report
    if not reports:
        first = text.partition("\n")[0]
        raise ParseError(
            "kernel log",
            1,
            first,
            'no line has "page allocation failure: order:" or "invoked oom-killer:"',
        )
    return reports[0]


# ---- why it failed -------------------------------------------------------------------------------


@dataclass(slots=True)
class ZoneVerdict:
    """The allocator's test of one zone, with the numbers of the report. All sizes are in pages.

    :ivar allowed: the request may use the zone
    :ivar ok: the test passes
    :ivar free: free pages
    :ivar unusable: of those, what the request cannot count on: 2**order - 1, CMA, HIGHATOMIC
    :ivar mark: the min watermark, lowered if the request may use part of the reserve
    :ivar reserve: what the zone keeps from requests that could use a higher zone
    :ivar block: a block of the order or above is free, on a list that the request may use
    :ivar sure: False if it passes with the least reserve that can apply and not with the most
    :ivar types: the types of all free blocks of that order or above
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
    types: str = ""
    sure: bool = True

    def __str__(self) -> str:
        where = self.zone if self.node is None else f"Node {self.node} {self.zone}"
        return f"{where}: {self.why}"


@dataclass(slots=True)
class Explanation:
    """Why a request failed, zone by zone.

    :ivar alloc_flags: the ALLOC_* flags of the slow path for it
    :ivar highest_zone: the highest zone that it may use
    :ivar usage: who asked, and where memory was, the largest part first
    """

    report: AllocFailure
    alloc_flags: int
    highest_zone: str
    zones: list[ZoneVerdict]
    notes: list[str]
    usage: list[str] = field(default_factory=list)

    @property
    def cause(self) -> str:
        """``shortage``, ``fragmentation``, ``cgroup``, ``passes``, ``unknown`` or ``none``."""
        if self.report.kind == "memory":
            return "none"
        if self.report.memcg is not None:
            return "cgroup"
        mine = [z for z in self.zones if z.allowed]
        if not mine:
            return "unknown"
        if any(z.ok for z in mine):
            return "passes" if any(z.ok and z.sure for z in mine) else "unknown"
        enough = any(z.free - z.unusable > z.mark + z.reserve for z in mine)
        return "fragmentation" if enough else "shortage"

    def summary(self) -> str:
        """Return the answer in a sentence: shortage, fragmentation, or neither."""
        r = self.report
        if r.kind == "memory":
            return "The state of memory; no request failed (SysRq-m or a driver printed it)."
        mode = r.gfp_names or r.numbering.names(r.gfp_mask)
        who = r.comm or "somebody"
        block = f"order {r.order}, {r.page_kb << r.order} kB, {mode}"
        head = {"oom": "OOM killer, ", "stall": "A stall, ", "vmalloc": "vmalloc, "}.get(r.kind, "")
        mine = [z for z in self.zones if z.allowed]
        enough = [z for z in mine if z.free - z.unusable > z.mark + z.reserve]
        if self.cause == "cgroup" and r.memcg is not None:
            return (
                f"{head}memory cgroup: {who}'s was at its limit, {r.memcg[0]} of {r.memcg[1]} kB."
            )
        if self.cause == "unknown":
            why = "none it may use is in the report" if self.zones else "the report has no zones"
            if mine:
                why = "which number of lowmem_reserve applies does not follow from the report"
            return f"{head}cause unknown: {why}; {who} asked for a block ({block})."
        if self.cause == "passes":
            names = ", ".join(_where(z) for z in mine if z.ok)
            return (
                f"{head}no cause in these numbers: {names} would serve {who}'s request ({block}) "
                "now. Memory came back before they were printed, or another rule refused."
            )
        if self.cause == "fragmentation":
            free = sum(z.free for z in enough)
            return (
                f"{head}fragmentation: {size(free)} are free in {', '.join(map(_where, enough))}, but "
                f"no block that {who}'s request may use ({block})."
            )
        extra = (
            ""
            if not r.order or any(z.block for z in mine)
            else "; no block that large is free either"
        )
        return (
            f"{head}shortage: every zone that {who}'s request may use is at or below its mark "
            f"({block}){extra}."
        )

    def lines(self) -> list[str]:
        """Return the report, the answer first."""
        r = self.report
        summary = self.summary()
        out = [summary[:1].upper() + summary[1:]]
        if r.kind != "memory":
            flags = alloc_flags_str(self.alloc_flags)
            out.append(f"  zones up to {self.highest_zone}, {flags}")
        out += [f"  {zone}" for zone in self.zones]
        out += [f"  {text}" for text in [*self.notes, *self.usage]]
        if r.killed:
            out.append(f"  Killed: {r.killed}.")
        return out + [f"  {text}" for text in r.problems]

    def __str__(self) -> str:
        r = self.report
        head = (
            f"{r.comm} asked for a block of order {r.order} ({r.page_kb << r.order} kB) with "
            f"{r.gfp_names}: zones up to {self.highest_zone}, "
            f"{alloc_flags_str(self.alloc_flags)}."
        )
        return "\n".join([head, *map(str, self.zones), *self.notes])

    def to_dict(self) -> dict[str, object]:
        """Return the same as data."""
        r = self.report
        return {
            "line": r.line,
            "kind": r.kind,
            "comm": r.comm,
            "order": r.order,
            "gfp_mask": r.gfp_mask,
            "gfp_names": r.gfp_names or r.numbering.names(r.gfp_mask),
            "numbering": r.numbering.version,
            "cause": self.cause,
            "summary": self.summary(),
            "highest_zone": self.highest_zone,
            "alloc_flags": alloc_flags_str(self.alloc_flags),
            "zones": [
                {
                    "node": z.node,
                    "zone": z.zone,
                    "allowed": z.allowed,
                    "ok": z.ok,
                    "free": z.free,
                    "unusable": z.unusable,
                    "mark": z.mark,
                    "reserve": z.reserve,
                    "block": z.block,
                    "largest_order": z.largest_order,
                    "why": z.why,
                }
                for z in self.zones
            ],
            "notes": [*self.notes, *self.usage],
            "killed": r.killed or None,
            "problems": list(r.problems),
        }


def _where(z: ZoneVerdict) -> str:
    return z.zone if z.node is None else f"node {z.node} {z.zone}"


def _callers(report: AllocFailure) -> list[str]:
    """Say who asked, by the functions above the allocator's in the stack trace."""
    trace = report.trace
    first = next((i for i, name in enumerate(trace) if not OURS_RE.match(name)), len(trace))
    names = [f"{name}()" for name in trace[first : first + 5]]
    if not names or first == 0:  # without the allocator in it, it is another trace, or cut
        return []
    more = " <- ..." if len(trace) > first + 5 else ""
    return [f"Asked for by {' <- '.join(names)}{more}"]


def _nodes_of(text: str | None) -> set[int] | None:
    """Return the nodes of a mask such as ``0-1,4``; None if there is none."""
    if not text or text == "(null)":
        return None
    nodes: set[int] = set()
    for part in text.split(",")[:256]:
        first, _, last = part.partition("-")
        if first.isdigit() and len(first) < 6:
            end = int(last) if last.isdigit() and len(last) < 6 else int(first)
            nodes.update(range(int(first), min(end, int(first) + 1024) + 1))
    return nodes


def _model_zone(m: Machine, part: ZoneReport, cma: bool) -> Zone:
    """Make a zone of the engine with the numbers of the report.

    :param cma: blocks and pages of CMA areas are for this request
    """
    idx = ZONE_NAMES.index(part.name) if part.name in ZONE_NAMES else 0
    zone = Zone(m, part.name, idx, part.node or 0, PgData(m, part.node or 0))
    zone.watermark_boost = part.pages("boost")
    for wmark, name in ((WMARK_MIN, "min"), (WMARK_LOW, "low"), (WMARK_HIGH, "high")):
        zone._watermark[wmark] = part.pages(name) - zone.watermark_boost
    zone.managed_pages = part.pages("managed")
    zone.vm_stat[NR_FREE_PAGES] = part.pages("free") - (0 if cma else part.pages("free_cma"))
    for i, value in enumerate(part.lowmem_reserve[:MAX_NR_ZONES]):
        zone.lowmem_reserve[i] = value
    if part.free_list is None:
        return zone
    lists = part.free_list
    for order, letters in enumerate(lists.types[:NR_PAGE_ORDERS]):
        area = zone.free_area[order]
        area.nr_free = lists.nr[order]
        for letter in letters if lists.typed else "M" * bool(lists.nr[order]):
            mt = MIGRATETYPE_LETTERS.find(letter)
            if letter == "C" and cma:
                mt = MIGRATE_MOVABLE
            elif letter == "R":  # MIGRATE_RESERVE, until 4.4, served everybody
                mt = MIGRATE_UNMOVABLE
            if mt >= 0:
                list_add_tail(ListHead(), area.free_list[mt])
        if letters == "H":
            zone.nr_free_highatomic += lists.nr[order] << order
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


def _why(z: ZoneVerdict, order: int, listed: bool) -> str:
    """Say why a zone that the request may use passes or fails the test."""
    left = f"{z.free} free" + (f" - {z.unusable}" if z.unusable else "")
    must = f"mark {z.mark}" + (f" + lowmem_reserve {z.reserve}" if z.reserve else "")
    if z.ok:
        block = ", and a block is there" if order else ""
        return (
            f"passes the test now ({left} > {must}{block}): the request failed before, or on another "
            "rule"
        )
    if z.free - z.unusable <= z.mark + z.reserve:
        why = f"too little free: {left} <= {must} pages"
        if order and listed and not z.block:
            why += f"; nor is a block of order {order} or above free (largest: {z.largest_order})"
        return why
    if not listed:
        return f"enough free ({left} > {must} pages); its free blocks are not in the report"
    text = f"enough free ({left} > {must} pages), but no block of order {order} or above on the "
    if z.largest_order >= order:
        return f"{text}lists it may use (those that are free are of type {z.types})"
    return f"{text}lists it may use (largest free block: order {z.largest_order})"


def _or_more(z: ZoneVerdict, most: int) -> str:
    """Say what changes if the zone keeps @most from the request and not the least it may keep."""
    text = (
        f"; lowmem_reserve is {z.reserve} to {most}, as the report does not tell the kernel's zones"
    )
    left = z.free - z.unusable - z.mark
    if z.reserve < left <= most:
        text += f": with {most} too little is free"
    return text


def _verdict(report: AllocFailure, part: ZoneReport, request: _Request) -> ZoneVerdict:
    """Put the allocator's watermark test to one zone."""
    flags, order = request.alloc_flags, report.order
    cma = request.mask & __GFP_MOVABLE != 0
    zone = _model_zone(request.m, part, cma)
    free = part.pages("free")
    unusable = page_alloc.__zone_watermark_unusable_free(zone, order, flags)
    unusable += free - zone.vm_stat[NR_FREE_PAGES]
    mark = page_alloc.min_with_reserves(min_wmark_pages(zone), flags)
    reserves = sorted((zone.lowmem_reserve[i], i) for i in request.entries)
    reserve, entry = reserves[0]  # the least that can apply; what else can is said
    listed = part.free_list is not None
    ok = page_alloc.zone_watermark_fast(
        zone, order, min_wmark_pages(zone), entry, flags, request.mask
    )
    block = _has_block(zone, order, flags)
    largest = part.free_list.largest_order if part.free_list else -1
    z = ZoneVerdict(
        part.node, part.name, True, ok, free, unusable, mark, reserve, block, largest, ""
    )
    if part.free_list is not None:
        letters = "".join(part.free_list.types[order:])
        z.types = "".join(c for c in "UMERHCI" if c in letters)
    above = part.name in ALL_ZONES and all(
        ALL_ZONES.index(part.name) > ALL_ZONES.index(name) for name in request.highest
    )
    if above:
        z.why = "not for this request: the zone is above what its gfp flags allow"
    elif request.nodes is not None and (part.node or 0) not in request.nodes:
        z.why = "not for this request: its memory policy or cpuset excludes the node"
    else:
        z.why = _why(z, order, listed)
        if reserves[-1][0] != reserve:
            z.why += _or_more(z, reserves[-1][0])
            z.sure = not z.ok or free - unusable > mark + reserves[-1][0]
        return z
    z.allowed = False
    return z


@dataclass(slots=True)
class _Request:
    """A report's request, as the allocator sees it.

    :ivar entries: which of the numbers of lowmem_reserve can be the one that applies to it
    :ivar highest: the highest zone it may use; several where the report does not tell the zones
    :ivar nodes: the nodes it may use, None for all
    """

    m: Machine
    mask: int
    alloc_flags: int
    entries: list[int]
    highest: list[str]
    nodes: set[int] | None


def _request(report: AllocFailure) -> _Request:
    """Work out what a report's request may use."""
    m, mask = Machine(), report.reference_mask
    order = min(report.order, MAX_PAGE_ORDER)
    flags = page_alloc.gfp_to_alloc_flags(m, mask, order)
    length = max((len(z.lowmem_reserve) for z in report.zones), default=0)
    movable = bool(mask & __GFP_MOVABLE) or bool(report.gfp_names)
    seen = [
        Seen(z.name, tuple(z.lowmem_reserve), z.pages("managed") * report.page_kb // 4, z.node)
        for z in report.zones
    ]
    layouts = zone_layouts(seen, length, movable)
    try:
        name = ZONE_NAMES[gfp_zone(mask)]
    except UsageError:
        name = "Normal"
        report.problems.append(f"line {report.line}: {mask:#x} names more than one zone")
    if mask & __GFP_HIGHMEM and not mask & __GFP_MOVABLE:
        name = "HighMem"
    names = [zone_for(name, kinds) for kinds in layouts]
    pairs = zip(names, layouts, strict=True)
    entries = sorted({kinds.index(name) if name in kinds else 0 for name, kinds in pairs})
    nodes = _nodes_of(report.nodemask)
    allowed = _nodes_of(report.mems_allowed)
    if allowed is not None:
        nodes = allowed if nodes is None else nodes & allowed
    return _Request(m, mask, flags, entries, list(dict.fromkeys(names)), nodes)


def _usage(report: AllocFailure) -> list[str]:
    """Say where memory was, by the machine's counters."""
    c, kb = report.counts, report.page_kb
    parts = [
        ("anonymous", c.get("active_anon", 0) + c.get("inactive_anon", 0)),
        ("files", c.get("active_file", 0) + c.get("inactive_file", 0)),
        ("unevictable", c.get("unevictable", 0)),
        ("unreclaimable slab", c.get("slab_unreclaimable", 0)),
        ("reclaimable slab", c.get("slab_reclaimable", 0)),
        ("page tables", c.get("pagetables", 0)),
        ("free", c.get("free", 0)),
    ]
    parts = [(name, n * kb // 4) for name, n in parts if n]
    if not parts:
        return []
    parts.sort(key=lambda part: -part[1])
    total = c.get("pages RAM", 0) * kb // 4
    of = f" of {size(total)} RAM" if total else ""
    out = [f"Memory{of}: " + ", ".join(f"{name} {size(n)}" for name, n in parts) + "."]
    if total and (missing := total - sum(n for _, n in parts)) > total // 4:
        out.append(
            f"{size(missing)} of it are in none of these counters: the kernel itself, drivers, hugetlb."
        )
    if "total" in report.swap:
        out.append(f"Swap: {report.swap.get('free', 0)} of {report.swap['total']} kB free.")
    return out


def _notes(report: AllocFailure, mask: int, zones: list[ZoneVerdict]) -> list[str]:
    notes: list[str] = []
    if report.kind == "memory":
        return notes
    if not mask & __GFP_DIRECT_RECLAIM:
        notes.append("The request could neither reclaim nor compact: it may not block.")
    elif report.order and not mask & __GFP_IO:
        notes.append("The request could not compact: that needs __GFP_IO.")
    enough = [
        z
        for z in zones
        if z.allowed and not z.ok and z.free - z.unusable > z.mark + z.reserve
        if z.largest_order < report.order
    ]
    if enough and report.order:
        kb = sum(z.free for z in enough) * report.page_kb
        notes.append(f"Fragmentation, not shortage: {kb} kB are free in smaller blocks.")
    if not report.sure and report.gfp_names:
        notes.append("The gfp number is of a kernel not known here; its names are used.")
    elif report.numbering.version != "6.12":
        names = f"gfp numbers as in Linux {report.numbering.version}"
        notes.append(f"An older kernel ({names}); the test is Linux 6.12's.")
    return notes


def explain(report: AllocFailure) -> Explanation:
    """Say why a request failed, by the allocator's own arithmetic on the numbers of its report.

    The report does not say whether the task was an OOM victim or reclaiming memory itself, nor how
    many free pages HIGHATOMIC pageblocks hold: of those, only blocks on HIGHATOMIC lists alone are
    taken into account.
    """
    request = _request(report)
    zones = [_verdict(report, part, request) for part in report.zones if part.values]
    if report.kind == "memory":
        for z in zones:
            z.allowed, z.why = True, f"{z.free} pages free, min mark {z.mark}"
            z.why += (
                f"; largest free block: order {z.largest_order}" if z.largest_order >= 0 else ""
            )
    notes = _notes(report, request.mask, zones)
    highest = " or ".join(request.highest)
    usage = [*_callers(report), *_usage(report)]
    return Explanation(report, request.alloc_flags, highest, zones, notes, usage)
