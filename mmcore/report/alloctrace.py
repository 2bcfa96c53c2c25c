"""Replay what a real kernel's page allocator did, page by page.

A snapshot holds a kernel's free lists and per-CPU lists in their order, and its pageblock types; a
trace holds the allocator's events after it. `build_machine()` makes a machine from the snapshot,
`replay()` repeats each request of the trace on it and compares every event: which page was handed
out, which blocks were split for it, which pages were drained. In the end the lists must be those of a
second snapshot::

    snapshots, events = load(capture)
    machine = build_machine(snapshots[0])
    result = replay(machine, events)
    print(result)                                  # 8867 of 8867 allocations ...
    differences(snapshots[1], snapshot_text(machine))

Simplified: pages in use at the snapshot are unknown to it, so a movable one does not count as such
when a pageblock is claimed; a page that the trace shows being allocated as movable counts at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.errors import ParseError, UsageError
from mmcore.lib.list import list_add_tail
from mmcore.machine import Machine
from mmcore.mm import page_alloc
from mmcore.mm.gfp import __GFP_BITS_MASK, parse_gfp
from mmcore.mm.mm_types import LargeFolio, Page, folio_order
from mmcore.mm.mmzone import (
    MAX_NR_ZONES,
    MIGRATETYPE_NAMES,
    NR_PAGE_ORDERS,
    ZONE_NAMES,
    PerCpuPages,
    PgData,
    Zone,
    for_each_zone,
    pageblock_nr_pages,
)
from mmcore.mm.page_flags import PG_lru
from mmcore.mm.vmstat import NR_FREE_PAGES
from mmcore.trace import Event

if TYPE_CHECKING:
    from mmcore.proc.capture import Capture

__all__ = [
    "Replay",
    "TraceEvent",
    "build_machine",
    "differences",
    "load",
    "parse_trace",
    "replay",
    "snapshot_text",
]

EVENT_RE = re.compile(r"\s*(.*)-(\d+)\s+\[(\d+)\] \S+\s+([\d.]+): (\w+): (.*)")
FIELD_RE = re.compile(r"(\w+)=(\[[^\]]*\]|\S+)")
MT_NAMES = tuple(name.upper() for name in MIGRATETYPE_NAMES)
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

#: What is compared, per event: the fields by which the model and the kernel must agree.
COMPARED: dict[str, tuple[str, ...]] = {
    "mm_page_alloc": ("pfn", "order", "migratetype"),
    "mm_page_alloc_zone_locked": ("pfn", "order", "migratetype"),
    "mm_page_alloc_extfrag": (
        "pfn",
        "alloc_order",
        "fallback_order",
        "alloc_migratetype",
        "fallback_migratetype",
        "change_ownership",
    ),
    "mm_page_free": ("pfn", "order"),
    "mm_page_free_batched": ("pfn",),
    "mm_page_pcpu_drain": ("pfn", "order", "migratetype"),
}

Key = tuple[str, tuple[int, ...]]


@dataclass(slots=True)
class TraceEvent:
    """One line of ftrace's text: an allocator event, or a mark written by a program.

    :ivar values: the numeric fields, those in hexadecimal too
    :ivar text: the line's fields as they stand
    """

    line: int
    cpu: int
    time: str
    name: str
    values: dict[str, int]
    text: str

    @property
    def key(self) -> Key:
        """The event's name and the values that are compared."""
        return self.name, tuple(self.values.get(f, 0) for f in COMPARED[self.name])

    @property
    def gfp_flags(self) -> int:
        """The gfp flags of an mm_page_alloc event."""
        return parse_gfp(self.text.rpartition("gfp_flags=")[2])


def parse_trace(text: str, first_line: int = 1) -> list[TraceEvent]:
    """Return the allocator events and marks of ftrace's ``trace`` file; other events are left out.

    :raises ParseError: if a line is no trace line or an allocator event lacks a field
    """
    events: list[TraceEvent] = []
    for number, line in enumerate(text.split("\n"), first_line):
        if not line.strip() or line.startswith("#"):
            continue
        match = EVENT_RE.fullmatch(line)
        if match is None:
            raise ParseError("trace", number, line, "not a line of ftrace's text")
        _, _, cpu, time, name, rest = match.groups()
        if name == "tracing_mark_write":
            events.append(TraceEvent(number, int(cpu), time, name, {}, rest))
            continue
        if name not in COMPARED:
            continue
        values: dict[str, int] = {}
        for key, value in FIELD_RE.findall(rest):
            try:
                values[key] = int(value, 16 if value.startswith("0x") else 10)
            except ValueError:
                continue
        missing = [f for f in COMPARED[name] if f not in values]
        if missing:
            raise ParseError("trace", number, line, f"the event has no {missing[0]}")
        events.append(TraceEvent(number, int(cpu), time, name, values, rest))
    return events


def load(capture: Capture) -> tuple[list[str], list[TraceEvent]]:
    """Return the two snapshots of an alloctrace capture and the events between them.

    :raises ParseError: if the capture does not hold two snapshots and the marks around them
    """
    parts = capture["alloc"].split("SNAPSHOT ")
    if len(parts) != 3:
        raise ParseError(capture.name, 1, parts[0], "section alloc does not hold two snapshots")
    snapshots = [part.partition("\n")[2] for part in parts[1:]]
    events = parse_trace(capture["trace"])
    marks = {e.text.strip(): i for i, e in enumerate(events) if e.name == "tracing_mark_write"}
    if "SNAP1-END" not in marks or "SNAP2-BEGIN" not in marks:
        raise ParseError(capture.name, 1, "", "section trace lacks the marks of the snapshots")
    between = events[marks["SNAP1-END"] + 1 : marks["SNAP2-BEGIN"]]
    return snapshots, [e for e in between if e.name in COMPARED]


# ---- snapshots -----------------------------------------------------------------------------------


def _pfns(text: str) -> list[int]:
    return [int(word, 16) for word in text.split(",") if word]


def _ints(text: str) -> list[int]:
    return [int(word) for word in text.strip("[]").split(",")]


def _zone_line(m: Machine, values: Mapping[str, str], managed: Mapping[str, int]) -> None:
    """Make a zone from its line of a snapshot."""
    nid = int(values["node"])
    if nid not in m.node_data:
        m.node_data[nid] = pgdat = PgData(m, nid)
        pgdat.node_zones = [Zone(m, ZONE_NAMES[i], i, nid, pgdat) for i in range(MAX_NR_ZONES)]
    zone = m.node_data[nid].node_zones[ZONE_NAMES.index(values["name"])]
    zone.zone_start_pfn = int(values["start_pfn"], 16)
    zone.spanned_pages = zone.present_pages = int(values["spanned"], 16)
    zone.managed_pages = managed.get(f"{nid} {zone.name}", zone.present_pages)
    zone._watermark = _ints(values["wmark"])
    zone.watermark_boost = int(values["boost"])
    zone.nr_reserved_highatomic = int(values["reserved_highatomic"])
    zone.lowmem_reserve = _ints(values["lowmem_reserve"])
    zone.pageblock_base = zone.zone_start_pfn & -pageblock_nr_pages
    zone.initialized = True


def _lists_line(m: Machine, zone: Zone, kind: str, values: Mapping[str, str], rest: str) -> None:
    """Fill a zone from one of the other lines of a snapshot."""
    if kind == "free":
        order, mt = int(values["order"]), MT_NAMES.index(values["mt"])
        for pfn in _pfns(rest):
            page = page_alloc.zone_page(zone, pfn)
            page_alloc.__add_to_free_list(page, zone, order, mt, True)
            page_alloc.set_buddy_order(page, order)
            page_alloc.account_freepages(zone, 1 << order, mt)
    elif kind == "blocks":
        zone.pageblock_flags = bytearray(int(c, 16) for c in rest.strip())
    else:
        cpu = int(values["cpu"])
        while len(zone.per_cpu_pageset) <= cpu:
            zone.per_cpu_pageset.append(PerCpuPages())
        pcp = zone.per_cpu_pageset[cpu]
        if kind == "pcp":
            for name in PCP_FIELDS:
                setattr(pcp, name, int(values[name]))
        else:
            for pfn in _pfns(rest):
                list_add_tail(page_alloc.zone_page(zone, pfn), pcp.lists[int(values["idx"])])


def build_machine(
    snapshot: str,
    *,
    managed: Mapping[str, int] | None = None,
    cpu_to_node: Sequence[int] | None = None,
    node_distance: Sequence[Sequence[int]] | None = None,
) -> Machine:
    """Make a machine whose free lists, per-CPU lists and pageblocks are those of a snapshot.

    :param managed: managed pages by ``"0 DMA32"``; a snapshot has none, so spanned pages stand in
    :param cpu_to_node: the node of each CPU; without it CPUs are dealt out evenly
    :param node_distance: from node to node; without it 10 to itself and 20 to others
    :raises ParseError: for a line that is none of a snapshot's
    """
    lines = snapshot.split("\n")
    cpus = max((int(c) for c in re.findall(r"^pcp .*\bcpu=(\d+)", snapshot, re.M)), default=0) + 1
    m = Machine(cpus=cpus)
    m.gfp_allowed_mask = __GFP_BITS_MASK
    for number, line in enumerate(lines, 1):
        kind, _, rest = line.partition(" ")
        if not rest:
            continue
        head, _, tail = rest.partition(" : ")
        values = dict(FIELD_RE.findall(head))
        try:
            if kind == "zone":
                _zone_line(m, values, managed or {})
            elif kind in ("free", "pcp", "pcplist", "blocks"):
                zone = m.node_data[int(values["node"])].node_zones[ZONE_NAMES.index(values["zone"])]
                _lists_line(m, zone, kind, values, tail)
            else:
                raise ParseError("snapshot", number, line, f"no line begins with {kind!r}")
        except (KeyError, ValueError, IndexError) as error:
            if isinstance(error, ParseError):
                raise
            raise ParseError("snapshot", number, line, f"not a {kind} line: {error}") from error
    if not m.node_data:
        raise ParseError("snapshot", 1, lines[0], "no zone")
    nodes = len(m.node_data)
    m.nr_online_nodes = nodes
    m.num_online_cpus = cpus
    m.node_to_cpumask_ready = True
    m.cpu_to_node = list(cpu_to_node or (cpu * nodes // cpus for cpu in range(cpus)))
    m.node_distance = [
        list(node_distance[a]) if node_distance else [10 if a == b else 20 for b in range(nodes)]
        for a in range(nodes)
    ]
    page_alloc.build_all_zonelists(m)
    return m


def snapshot_text(m: Machine) -> str:
    """Return the state of a machine's free lists as a snapshot."""
    return "\n".join(_snapshot_lines(m)) + "\n"


def _snapshot_lines(m: Machine) -> Iterator[str]:
    for zone in for_each_zone(m):
        if not zone.spanned_pages:
            continue
        wmark = ",".join(map(str, zone._watermark))
        reserve = ",".join(map(str, zone.lowmem_reserve))
        yield (
            f"zone node={zone.node} name={zone.name} start_pfn={zone.zone_start_pfn:x} "
            f"spanned={zone.spanned_pages:x} wmark=[{wmark}] boost={zone.watermark_boost} "
            f"reserved_highatomic={zone.nr_reserved_highatomic} lowmem_reserve=[{reserve}] "
            f"nr_free_pages={zone.vm_stat[NR_FREE_PAGES]}"
        )
        where = f"node={zone.node} zone={zone.name}"
        for order in range(NR_PAGE_ORDERS):
            area = zone.free_area[order]
            for mt, head in enumerate(area.free_list):
                if head.next is not head:
                    pfns = ",".join(f"{page.pfn:x}" for page in head)
                    yield (
                        f"free {where} order={order} mt={MT_NAMES[mt]} "
                        f"nr_free_all_mt={area.nr_free} : {pfns}"
                    )
        for cpu, pcp in enumerate(zone.per_cpu_pageset):
            fields = " ".join(f"{name}={getattr(pcp, name)}" for name in PCP_FIELDS)
            yield f"pcp {where} cpu={cpu} {fields}"
            for idx, head in enumerate(pcp.lists):
                if head.next is not head:
                    order = page_alloc.pindex_to_order(idx)
                    mt_name = MT_NAMES[idx % 3] if idx < 12 else ("NONMOVABLE", "MOVABLE")[idx - 12]
                    pfns = ",".join(f"{page.pfn:x}" for page in head)
                    yield f"pcplist {where} cpu={cpu} idx={idx} order={order} mt={mt_name} : {pfns}"
        blocks = "".join(f"{mt:x}" for mt in zone.pageblock_flags)
        yield f"blocks {where} first_block_pfn={zone.pageblock_base:x} : {blocks}"


def differences(expected: str, found: str) -> list[tuple[str, str]]:
    """Return the lines in which two snapshots differ, as (expected, found).

    ``nr_free_pages`` is left out: the kernel's lags behind its lists by what its CPUs have not
    reported yet.
    """

    def by_place(text: str) -> dict[str, str]:
        table: dict[str, str] = {}
        for line in text.split("\n"):
            line = re.sub(r" nr_free_pages=-?\d+$", "", line).rstrip()
            if line:
                place = re.match(r"zone node=\S+ name=\S+|pcp node=\S+ zone=\S+ cpu=\S+", line)
                table[place[0] if place else line.partition(" nr_free")[0].partition(" : ")[0]] = (
                    line
                )
        return table

    a, b = by_place(expected), by_place(found)
    return [
        (a.get(place, ""), b.get(place, ""))
        for place in sorted(a.keys() | b.keys())
        if a.get(place) != b.get(place)
    ]


# ---- the replay ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Replay:
    """What a replay found.

    :ivar seen: events of the kernel, by name
    :ivar equal: those that the model repeated exactly, by name
    :ivar mismatches: the first steps in which the model did something else, as (line of the trace,
        the kernel's events, the model's)
    """

    seen: dict[str, int] = field(default_factory=dict)
    equal: dict[str, int] = field(default_factory=dict)
    mismatches: list[tuple[int, list[Key], list[Key]]] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether every event was repeated exactly."""
        return not self.mismatches

    def __str__(self) -> str:
        rows = [f"{name}: {self.equal.get(name, 0)} of {n}" for name, n in self.seen.items()]
        if self.mismatches:
            line, kernel, model = self.mismatches[0]
            rows.append(f"first difference at line {line}: kernel {kernel}, model {model}")
        return "\n".join(rows)


def _key(event: Event) -> Key:
    name = event.name.partition(":")[2]
    fields = event.fields
    values = [int(fields[f]) for f in COMPARED[name]]
    if name == "mm_page_alloc" and values[0] == (1 << 64) - 1:
        values[0] = 0  # how the kernel prints "no page"
    return name, tuple(values)


def _page_to_free(m: Machine, pfn: int, order: int) -> Page:
    """Return a page in use as its owner leaves it before its last reference goes."""
    zone = m.pfn_zone(pfn)
    if zone is None:
        raise UsageError(f"pfn {pfn:#x} of the trace lies in no zone of the snapshot")
    page = page_alloc.zone_page(zone, pfn)
    page._refcount = 0
    page.flags = 0
    page.mapping = None
    if folio_order(page) != order:
        page.folio = LargeFolio(order) if order else None
    if page.prev is None:
        page.next = None
    return page


Step = tuple[str, list[TraceEvent], list[TraceEvent]]


def _free_steps(frees: list[TraceEvent], after: list[TraceEvent]) -> list[Step]:
    """Turn a run of mm_page_free events and the drains and batched frees after it into steps.

    Folios freed in a batch are first all announced by mm_page_free, then one by one put away with
    mm_page_free_batched: so those are the last ones of the run. The others were freed singly; what
    follows them at once was drained by the last.
    """
    batched = [e.values["pfn"] for e in after if e.name == "mm_page_free_batched"]
    pcp = [e for e in frees if page_alloc.pcp_allowed_order(e.values["order"])]
    tail = pcp[len(pcp) - len(batched) :] if batched else []
    if batched and [e.values["pfn"] for e in tail] == batched:
        first = frees.index(tail[0])
        singles: list[Step] = [("free", [e], [e]) for e in frees[:first]]
        return [*singles, ("batch", frees[first:], frees[first:] + after)]
    singles = [("free", [e], [e]) for e in frees[:-1]]
    return [*singles, ("free", [frees[-1]], [frees[-1], *after])]


def _steps(events: Sequence[TraceEvent]) -> Iterator[Step]:
    """Group a trace into steps: what to do, the events that say it, all events that belong to it."""

    def run(start: int, *names: str) -> int:
        while start < len(events) and events[start].name in names:
            start += 1
        return start

    i = 0
    while i < len(events):
        end = run(i, "mm_page_alloc_zone_locked", "mm_page_alloc_extfrag", "mm_page_pcpu_drain")
        if end < len(events) and events[end].name == "mm_page_alloc":
            yield "alloc", [events[end]], list(events[i : end + 1])
            i = end + 1
            continue
        frees_end = run(i, "mm_page_free")
        if frees_end > i:
            end = run(frees_end, "mm_page_free_batched", "mm_page_pcpu_drain")
            yield from _free_steps(list(events[i:frees_end]), list(events[frees_end:end]))
        else:  # a drain by the kernel's worker, or an event without its cause
            end = max(end, i + 1)
            yield "drain", list(events[i:end]), list(events[i:end])
        i = end


def _do(m: Machine, what: str, events: Sequence[TraceEvent]) -> None:
    """Repeat one step."""
    if what == "alloc":
        event = events[0]
        page = page_alloc.alloc_pages(m, event.gfp_flags, event.values["order"])
        if page is not None and event.values["migratetype"] == 1:
            page.flags |= 1 << PG_lru
    elif what == "free":
        order = events[0].values["order"]
        page_alloc.free_unref_page(_page_to_free(m, events[0].values["pfn"], order), order)
    elif what == "batch":
        page_alloc.free_unref_folios(
            [_page_to_free(m, e.values["pfn"], e.values["order"]) for e in events]
        )


def replay(m: Machine, events: Sequence[TraceEvent]) -> Replay:
    """Repeat the requests of a trace and compare every event that they cause.

    :param m: a machine from `build_machine()`
    :raises UsageError: if the trace names a page that the snapshot does not have
    """
    result = Replay()
    with m.trace.record("kmem:mm_page_*") as log:
        for what, causes, expected in _steps(events):
            m.this_cpu = causes[0].cpu
            log.clear()
            _do(m, what, causes)
            found = [_key(event) for event in log]
            wanted = [event.key for event in expected]
            for key in wanted:
                result.seen[key[0]] = result.seen.get(key[0], 0) + 1
            for key, other in zip(wanted, found, strict=False):
                if key == other:
                    result.equal[key[0]] = result.equal.get(key[0], 0) + 1
            if found != wanted:
                result.mismatches.append((expected[0].line, wanted, found))
    return result
