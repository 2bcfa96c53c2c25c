"""Replay what a real kernel's page allocator did, page by page.

An ``alloctrace`` capture holds the allocator's lists before and after a workload, and in between
every event of the kmem tracepoints. `replay()` puts the model into the first state, gives it the
requests of the trace, and compares every event that they cause: which page was handed out, which
blocks were taken from the buddy for it, which pageblock changed its type, which pages were drained.
In the end all lists must be those of the second snapshot.

The trace says what was asked for (order and gfp flags) and what was freed. Which zone serves a
request, when it falls back, when the per-CPU lists are filled and emptied, and which page comes out
is the model's own answer.

Simplified: pages in use at the snapshot are unknown to it, so a movable one does not count as such
when a pageblock is claimed; a page that the trace shows being allocated as movable counts at once.
A kernel stack is taken without an event; that one is gone follows from the page that comes next.
Other work that no event shows is not repeated: kswapd, and the worker that lowers ``pcp->high`` once a second.
Where it frees pages at once, the trace shows it; else `runs_of_the_worker()` reads it off the limits.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmcore.errors import KernelBug, UsageError
from mmcore.machine import Machine
from mmcore.mm import page_alloc, vmstat
from mmcore.mm.gfp import __GFP_HIGHMEM as GFP_HIGHMEM
from mmcore.mm.gfp import __GFP_ZERO as GFP_ZERO
from mmcore.mm.gfp import GFP_KERNEL
from mmcore.mm.internal import DEFAULT_PRIO, MAX_RT_PRIO, buddy_order
from mmcore.mm.mm_types import LargeFolio, Page, folio_order
from mmcore.mm.mmzone import (
    MAX_PAGE_ORDER,
    MIGRATE_MOVABLE,
    MIGRATE_UNMOVABLE,
    for_each_populated_zone,
)
from mmcore.mm.page_flags import PageBuddy, PG_lru
from mmcore.mm.vmstat import NR_FREE_PAGES
from mmcore.proc import ftrace, snapshot
from mmcore.proc.capture import Capture
from mmcore.proc.ftrace import TraceLine
from mmcore.trace import TRACEPOINTS, Event

__all__ = ["Replay", "differences", "replay", "runs_of_the_worker", "snapshots"]

#: What is compared of each event: all fields but the flags of the request, which are given to the
#: model, and a refill flag that follows from the others.
COMPARED: dict[str, tuple[str, ...]] = {
    name: tuple(f for f in fields if f not in ("gfp_flags", "percpu_refill"))
    for name, fields in TRACEPOINTS.items()
    if name.startswith("kmem:mm_page_")
}
FREE, BATCHED = "kmem:mm_page_free", "kmem:mm_page_free_batched"
REFILL = ("kmem:mm_page_alloc_zone_locked", "kmem:mm_page_alloc_extfrag")
DRAIN = "kmem:mm_page_pcpu_drain"
NO_PFN = (1 << 64) - 1
CONFIG_PCP_BATCH_SCALE_MAX = 5
#: How far apart vmstat_update() runs on a CPU at least, in ns: about a second, rounded to whole ones.
WORKER_PERIOD = 900_000_000

#: A kernel stack, THREAD_SIZE in pages; how many are looked for before one allocation.
STACK_PAGES = 4
MAX_STACKS = 32
#: How many steps of other CPUs may lie within a snapshot.
MAX_LATE = 50
#: THREADINFO_GFP | __GFP_HIGHMEM without the accounting, which charges the pages later.
GFP_STACK = GFP_KERNEL | GFP_ZERO | GFP_HIGHMEM

Key = tuple[str, tuple[int, ...]]
#: What to do, the lines that say it, and all lines that belong to it.
Step = tuple[str, list[TraceLine], list[TraceLine]]


@dataclass(slots=True, repr=False)
class Replay:
    """What a replay found.

    :ivar machine: the machine after the last event
    :ivar seen: events of the kernel, by name
    :ivar equal: those that the model repeated exactly, by name
    :ivar mismatches: the steps in which the model did something else, as (line number in the trace,
        the kernel's events, the model's)
    :ivar stopped: why the replay could not go on, "" if it reached the end: once the model has handed
        out other pages than the kernel, a later free may name a page that is free in the model
    :ivar lists: lines of the final lists that were compared
    :ivar lists_differ: (the kernel's line, the model's) of each that differs
    :ivar limits: (node, zone, CPU) -> (time, ``pcp->high``, ``pcp->count``) at first and after each
        change of the limit
    :ivar end: time of the last event, in ns
    :ivar stacks: kernel stacks that were taken without an event, as the next page of their list shows
    :ivar late: steps that other CPUs did while the second snapshot was taken, and that are in it
    """

    machine: Machine
    seen: dict[str, int] = field(default_factory=dict)
    equal: dict[str, int] = field(default_factory=dict)
    mismatches: list[tuple[int, list[Key], list[Key]]] = field(default_factory=list)
    stopped: str = ""
    lists: int = 0
    lists_differ: list[tuple[str, str]] = field(default_factory=list)
    limits: dict[tuple[int, str, int], list[tuple[int, int, int]]] = field(default_factory=dict)
    end: int = 0
    stacks: int = 0
    late: int = 0

    @property
    def exact(self) -> bool:
        """Whether every event and every final list was the kernel's."""
        return not self.mismatches and not self.lists_differ

    def __str__(self) -> str:
        rows = [f"{name}: {self.equal.get(name, 0)} of {n} equal" for name, n in self.seen.items()]
        rows.append(f"final lists: {self.lists - len(self.lists_differ)} of {self.lists} equal")
        if self.mismatches:
            line, kernel, model = self.mismatches[0]
            rows.append(f"first difference at line {line}: kernel {kernel}, model {model}")
        if self.stopped:
            rows.append(f"stopped: {self.stopped}")
        return "\n".join(rows)

    __repr__ = __str__


def snapshots(
    capture: Capture,
) -> tuple[list[snapshot.ZoneSnapshot], list[snapshot.ZoneSnapshot]]:
    """Return the allocator's lists before and after the workload.

    :raises UsageError: if the capture does not hold two snapshots
    """
    parts = _parts(capture)
    return snapshot.parse(parts[1]), snapshot.parse(parts[2])


def _parts(capture: Capture) -> list[str]:
    """Return what stands before the snapshots, and both of them."""
    parts = re.split(r"^SNAPSHOT \d+\n", capture.get("alloc") or "", flags=re.MULTILINE)
    if len(parts) != 3:
        raise UsageError(f"an alloctrace capture holds two snapshots; this one {len(parts) - 1}")
    return parts


def _priority(head: str) -> int:
    """Return ``task_struct.prio`` of the recorded task: a real-time one may go below the min mark."""
    match = re.search(r"^policy=(?:fifo|rr) rt_priority=(\d{1,2})$", head, re.MULTILINE)
    return MAX_RT_PRIO - 1 - int(match[1]) if match else DEFAULT_PRIO


def differences(
    expected: list[snapshot.ZoneSnapshot], found: list[snapshot.ZoneSnapshot]
) -> tuple[int, list[tuple[str, str]]]:
    """Return how many lines two snapshots have, and those that differ as (expected, found).

    ``nr_free_pages`` is left out: the kernel's lags behind its lists by what its CPUs have not
    folded in yet.
    """

    def by_place(zones: list[snapshot.ZoneSnapshot]) -> dict[str, str]:
        table: dict[str, str] = {}
        for line in snapshot.render(zones).splitlines():
            line = re.sub(r" nr_free_pages=-?\d+$", "", line)
            place = re.match(r"zone node=\S+ name=\S+|pcp node=\S+ zone=\S+ cpu=\S+", line)
            name = place[0] if place else line.partition(" : ")[0].partition(" nr_free")[0]
            table[name] = line
        return table

    a, b = by_place(expected), by_place(found)
    places = sorted(a.keys() | b.keys())
    return len(places), [
        (a.get(place, ""), b.get(place, "")) for place in places if a.get(place) != b.get(place)
    ]


def _key(event: Event) -> Key:
    fields = event.fields
    values = [int(fields[f]) for f in COMPARED[event.name]]
    if event.name == "kmem:mm_page_alloc" and values[0] == NO_PFN:
        values[0] = 0  # how the kernel prints "no page"
    return event.name, tuple(values)


def _page_to_free(m: Machine, pfn: int, order: int) -> Page:
    """Return a page in use as its owner leaves it before its last reference goes.

    :raises KernelBug: if it is free in the model; to free it once more would ruin the lists
    """
    zone = m.pfn_zone(pfn)
    if zone is None:
        raise UsageError(f"pfn {pfn:#x} of the trace lies in no zone of the snapshot")
    for block in range(MAX_PAGE_ORDER + 1):
        head = zone.mem_map.get(pfn >> block << block)
        if head is not None and head.prev is not None:
            if head.pfn == pfn or (PageBuddy(head) and buddy_order(head) >= block):
                raise KernelBug(f"the trace frees pfn {pfn:#x}, which is free in the model")
    known = pfn in zone.mem_map
    page = page_alloc.zone_page(zone, pfn)
    page._refcount = 0
    page.flags = 0
    page.mapping = None
    if folio_order(page) != order and not (known and page.folio is None):
        # Split since, or allocated before the trace. A known block without a folio, such as a page
        # global directory of order 1, was asked for without __GFP_COMP and has no tail pages.
        page.folio = LargeFolio(order) if order else None
    if page.prev is None:
        page.next = None
    return page


def _event(line: TraceLine) -> Event:
    assert line.event is not None
    return line.event


class _LaggingCounters(list[int]):
    """A zone's counters, of which NR_FREE_PAGES is what the kernel's readers see.

    A CPU keeps its changes to itself until they exceed the threshold, and marks are compared with the
    sum that lags behind (__mod_zone_page_state()). The model's own counter is exact.

    :ivar diff: what the only CPU has not folded in yet
    """

    def __init__(self, counters: list[int], diff: int, threshold: int) -> None:
        super().__init__(counters)
        self.diff = diff
        self.threshold = threshold

    def __setitem__(self, item: Any, value: Any) -> None:
        if item == NR_FREE_PAGES:
            seen = self[NR_FREE_PAGES]
            self.diff += value - seen
            value = seen
            if abs(self.diff) > self.threshold:
                value += self.diff
                self.diff = 0
        super().__setitem__(item, value)

    def fold(self) -> None:
        """Add what was not folded in, as refresh_cpu_vm_stats() does once a second."""
        super().__setitem__(NR_FREE_PAGES, self[NR_FREE_PAGES] + self.diff)
        self.diff = 0


def _let_counters_lag(m: Machine) -> None:
    """Have free pages counted as the kernel counts them, where one CPU holds all that is not folded.

    The threshold follows from the managed pages, of which ``pcp->high_max`` is an eighth, unless
    percpu_pagelist_high_fraction has set it: then ``high_min`` is the same, and the span has to do.
    """
    if m.num_online_cpus > 1:
        return
    for zone in for_each_populated_zone(m):
        pcp = zone.per_cpu_pageset[0]
        if pcp.high_min == pcp.high_max:
            zone.managed_pages = zone.present_pages = zone.spanned_pages
        free = sum(area.nr_free << order for order, area in enumerate(zone.free_area))
        threshold = vmstat.calculate_normal_threshold(zone)
        zone.vm_stat = _LaggingCounters(zone.vm_stat, free - zone.vm_stat[NR_FREE_PAGES], threshold)


def _note_limits(result: Replay, now: int) -> None:
    """Add to the history of each CPU's limit what the last step made of it."""
    for zone in for_each_populated_zone(result.machine):
        for cpu, pcp in enumerate(zone.per_cpu_pageset):
            history = result.limits.setdefault((zone.node, zone.name, cpu), [])
            if not history or history[-1][1] != pcp.high:
                history.append((now, pcp.high, pcp.count))


def runs_of_the_worker(
    result: Replay, place: tuple[int, str, int], limits: tuple[int, int, int], wanted: int
) -> int:
    """Return the least number of calls of decay_pcp_high() that explain a final ``pcp->high``.

    A worker calls it once a second, and no event shows when: each moment is tried, and each that
    comes a second (WORKER_PERIOD) after it.

    :param limits: ``high_min``, ``high_max`` and ``batch`` of the list
    :return: 0 if none explain it
    """
    low, top, batch = limits
    history = result.limits.get(place, [])
    ends = [*[time for time, _, _ in history], result.end][1:]
    # (limit, number of calls) -> the earliest time of the last; -WORKER_PERIOD before the first.
    states: dict[tuple[int, int], int] = {}
    before = 0
    for (start, high, count), end in zip(history, ends, strict=True):
        moved = {(min(max(h + high - before, low), top), n): t for (h, n), t in states.items()}
        states = moved or {(high, 0): start - WORKER_PERIOD}
        before = high
        floor = max(count - (batch << CONFIG_PCP_BATCH_SCALE_MAX), low)
        todo = list(states.items())
        while todo:
            (h, n), last = todo.pop()
            new, at = max(h - (h >> 3), floor), max(start, last + WORKER_PERIOD)
            if new < h and at <= end and at < states.get((new, n + 1), at + 1):
                states[new, n + 1] = at
                todo.append(((new, n + 1), at))
    return min((n for h, n in states if h == wanted and n), default=0)


def _pfn(line: TraceLine) -> int:
    return int(_event(line).values[0])


def _free_steps(frees: list[TraceLine], after: list[TraceLine]) -> list[Step]:
    """Turn a run of mm_page_free events and the drains and batched frees after it into steps.

    Folios freed in a batch are first all announced by mm_page_free, then one by one put away with
    mm_page_free_batched: so those are the last ones of the run. The others were freed singly; what
    follows them at once was drained by the last.
    """
    batched = [_pfn(line) for line in after if _event(line).name == BATCHED]
    pcp = [line for line in frees if page_alloc.pcp_allowed_order(_event(line).values[1])]
    tail = pcp[len(pcp) - len(batched) :] if batched else []
    if batched and [_pfn(line) for line in tail] == batched:
        first = frees.index(tail[0])
        singles: list[Step] = [("free", [line], [line]) for line in frees[:first]]
        return [*singles, ("batch", frees[first:], frees[first:] + after)]
    singles = [("free", [line], [line]) for line in frees[:-1]]
    return [*singles, ("free", [frees[-1]], [frees[-1], *after])]


#: What a step goes on with after an event, on the same CPU.
GOES_ON = {
    FREE: (FREE, BATCHED, DRAIN),
    BATCHED: (BATCHED, DRAIN),
    DRAIN: (BATCHED, DRAIN),
    REFILL[0]: (*REFILL, "kmem:mm_page_alloc"),
    REFILL[1]: (*REFILL, "kmem:mm_page_alloc"),
}


def _uninterrupted(lines: Sequence[TraceLine]) -> list[TraceLine]:
    """Put what another CPU did in the middle of a step before it, where several CPUs ran."""
    out: list[TraceLine] = []
    following: list[TraceLine | None] = [None] * len(lines)
    last: dict[int, TraceLine] = {}
    for i in range(len(lines) - 1, -1, -1):
        following[i] = last.get(lines[i].cpu)  # the next line of the same CPU
        last[lines[i].cpu] = lines[i]
    if len(last) < 2:
        return list(lines)
    numbers = {line.number: i for i, line in enumerate(lines)}
    for line in lines:
        at = len(out)
        if out and out[-1].cpu != line.cpu:
            then = following[numbers[out[-1].number]]
            names = GOES_ON.get(_event(out[-1]).name, ())
            if then is not None and then.pid == out[-1].pid and _event(then).name in names:
                while at and out[at - 1].pid == then.pid and _event(out[at - 1]).name in GOES_ON:
                    at -= 1
        out.insert(at, line)
    return out


def _steps(lines: Sequence[TraceLine]) -> Iterator[Step]:
    """Group a trace into steps, each with the events that it caused."""
    lines = _uninterrupted(lines)

    def run(start: int, *names: str) -> int:
        task = lines[i].pid
        while start < len(lines) and _event(lines[start]).name in names:
            if lines[start].pid != task:
                break
            start += 1
        return start

    i = 0
    while i < len(lines):
        end = run(i, *REFILL, DRAIN)
        if run(end, "kmem:mm_page_alloc") > end:
            yield "alloc", [lines[end]], list(lines[i : end + 1])
            i = end + 1
            continue
        frees_end = run(i, FREE)
        if frees_end > i:
            end = run(frees_end, BATCHED, DRAIN)
            yield from _free_steps(list(lines[i:frees_end]), list(lines[frees_end:end]))
        else:  # a drain by the kernel's worker, or an event without its cause
            end = max(end, i + 1)
            yield "drain", list(lines[i:end]), list(lines[i:end])
        i = end


def _do(m: Machine, what: str, causes: Sequence[TraceLine]) -> None:
    """Repeat one step."""
    if what == "alloc":
        _, order, gfp_flags, migratetype = _event(causes[0]).values
        page = page_alloc.alloc_pages(m, gfp_flags, order)
        if page is not None and migratetype == MIGRATE_MOVABLE:
            page.flags |= 1 << PG_lru
    elif what == "free":
        pfn, order = _event(causes[0]).values
        page_alloc.free_unref_page(_page_to_free(m, pfn, order), order)
    elif what == "drain" and causes[0].comm.startswith("kworker/"):
        _worker(m, causes)
    elif what == "batch":
        page_alloc.free_unref_folios([_page_to_free(m, *_event(line).values) for line in causes])


def _worker(m: Machine, drained: Sequence[TraceLine]) -> None:
    """Repeat a run of the worker of once a second, refresh_cpu_vm_stats(), that freed pages.

    It lowers the limit of each list, and frees what is over it, and a batch of a remote node's zone
    that nobody has used for three runs.
    """
    freed: dict[tuple[int, str], int] = {}
    for line in drained:
        zone = m.pfn_zone(_pfn(line))
        if zone is not None:
            place = zone.node, zone.name
            freed[place] = freed.get(place, 0) + (1 << _event(line).values[1])
    for zone in for_each_populated_zone(m):
        if isinstance(zone.vm_stat, _LaggingCounters):
            zone.vm_stat.fold()
        pcp = zone.per_cpu_pageset[m.this_cpu]
        before = pcp.count
        page_alloc.decay_pcp_high(zone, pcp)
        if freed.get((zone.node, zone.name), 0) > before - pcp.count:
            page_alloc.drain_zone_pages(zone, pcp)


def _take_a_stack(m: Machine) -> None:
    pages: list[Page | None] = [None] * STACK_PAGES
    nid = m.cpu_to_node[m.this_cpu]
    page_alloc.alloc_pages_bulk(m, GFP_STACK, nid, None, STACK_PAGES, page_array=pages)


def _take_stacks(m: Machine, what: str, expected: Sequence[TraceLine], log: list[Event]) -> int:
    """Take the kernel stacks that forks took without an event before a step, and count them.

    vmalloc() gets a stack's four pages by alloc_pages_bulk(), which has no tracepoint, from the list
    that a single page comes from. If that list is filled by no allocation of a single page, stacks had
    emptied it; if the page of the next event stands behind four others, or a multiple, those are gone.
    """
    last = _event(expected[-1])
    filled = [_event(line).values for line in expected if _event(line).name == REFILL[0]]
    single = [values[0] for values in filled if tuple(values[1:3]) == (0, MIGRATE_UNMOVABLE)]
    if what == "drain" or tuple(last.values[1:4:2]) != (0, MIGRATE_UNMOVABLE):
        stacks = 0
        while single and stacks < MAX_STACKS and not any(e.name in REFILL for e in log):
            _take_a_stack(m)
            stacks += 1
        return stacks
    pfn, migratetype = last.values[0], MIGRATE_UNMOVABLE
    zone = m.pfn_zone(pfn)
    if zone is None:
        return 0
    head = zone.per_cpu_pageset[m.this_cpu].lists[migratetype]
    waiting: list[int] = []
    page = head.next
    while page is not head and len(waiting) < STACK_PAGES * MAX_STACKS + 1:
        waiting.append(page.pfn)
        page = page.next
    waiting += single
    place = waiting.index(pfn) if pfn in waiting else 0
    if place % STACK_PAGES:
        return 0
    for _ in range(place // STACK_PAGES):
        _take_a_stack(m)
    return place // STACK_PAGES


def _nodes_of_the_machine(
    capture: Capture, nodes: list[int]
) -> tuple[list[list[int]] | None, dict[int, int]]:
    """Return the distances of the nodes and the node of each CPU, as QEMU was told; None, {} if unknown.

    The kernel's numbers are QEMU's where every node has memory.
    """
    command = str(capture.header.get("qemu_command", ""))
    told = re.findall(
        r"-numa node,nodeid=(\d{1,3})((?:,cpus=\d{1,4}(?:-\d{1,4})?)*),memdev=", command
    )
    ids = [int(nid) for nid, _ in told]
    if ids != nodes or ids != list(range(len(ids))) or len(ids) < 2:
        return None, {}
    cpus: dict[int, int] = {}
    for nid, ranges in told:
        for first, last in re.findall(r"cpus=(\d+)(?:-(\d+))?", ranges):
            for cpu in range(int(first), int(last or first) + 1):
                cpus[cpu] = int(nid)
    size = len(nodes)
    distances = [[10 if a == b else 20 for b in range(size)] for a in range(size)]
    for numbers in re.findall(r"-numa dist,src=(\d{1,3}),dst=(\d{1,3}),val=(\d{1,3})", command):
        a, b, value = (int(n) for n in numbers)
        if a < size and b < size:
            distances[a][b] = distances[b][a] = value
    return distances, cpus


def _machine(capture: Capture, before: list[snapshot.ZoneSnapshot]) -> Machine:
    """Return a machine in the recorded state, its nodes as near and its CPUs where they were."""
    nodes = sorted({zone.node for zone in before})
    distances, where = _nodes_of_the_machine(capture, nodes)
    cpus = sorted({cpu for zone in before for cpu in zone.pcp})
    if not where.keys() >= set(cpus):
        return snapshot.load(before, distances)
    return snapshot.load(before, distances, [where.get(cpu, 0) for cpu in range(cpus[-1] + 1)])


def replay(capture: Capture) -> Replay:
    """Repeat the requests of an ``alloctrace`` capture and compare all that they cause.

    :raises UsageError: if the capture holds no trace between two snapshots, or the trace names a
        page that the snapshot does not have
    :raises ParseError: if one of its texts is damaged
    """
    before, after = snapshots(capture)
    m = _machine(capture, before)
    trace = ftrace.parse(capture.get("trace") or "")
    lines = [
        line
        for line in ftrace.between(trace, "SNAP1-END", "SNAP2-BEGIN")
        if _event(line).name in COMPARED
    ]
    if not lines:
        raise UsageError("the trace has no allocator event between SNAP1-END and SNAP2-BEGIN")
    _let_counters_lag(m)
    page_alloc.current_task(m).prio = _priority(_parts(capture)[0])
    result = Replay(m)
    result.end = lines[-1].time
    _note_limits(result, lines[0].time)
    with m.trace.record("kmem:mm_page_*") as log:
        for what, causes, expected in _steps(lines):
            m.this_cpu, m.clock = causes[0].cpu, causes[0].time
            log.clear()
            try:
                if what in ("alloc", "drain"):
                    result.stacks += _take_stacks(m, what, expected, log)
                _do(m, what, causes)
            except KernelBug as bug:
                result.stopped = f"line {causes[0].number}: {bug}"
                break
            _compare(result, expected, [_key(event) for event in log])
            _note_limits(result, m.clock)
    result.lists, result.lists_differ = differences(after, snapshot.take(m))
    if result.lists_differ and not result.stopped:
        late = ftrace.between(trace, "SNAP2-BEGIN", "SNAP2-END")
        _go_on(result, after, [line for line in late if _event(line).name in COMPARED])
    return result


def _go_on(result: Replay, after: list[snapshot.ZoneSnapshot], late: Sequence[TraceLine]) -> None:
    """Repeat what other CPUs did while the lists were being read, until the lists are the recorded ones."""
    m = result.machine
    for done, (what, causes, _) in enumerate(itertools.islice(_steps(late), MAX_LATE), 1):
        m.this_cpu, m.clock = causes[0].cpu, causes[0].time
        try:
            _do(m, what, causes)
        except KernelBug:
            return
        if not differences(after, snapshot.take(m))[1]:
            result.lists_differ, result.late = [], done
            return


def _compare(result: Replay, expected: list[TraceLine], found: list[Key]) -> None:
    wanted = [_key(_event(line)) for line in expected]
    for name, _ in wanted:
        result.seen[name] = result.seen.get(name, 0) + 1
    for key, other in zip(wanted, found, strict=False):
        if key == other:
            result.equal[key[0]] = result.equal.get(key[0], 0) + 1
    if found != wanted:
        result.mismatches.append((expected[0].number, wanted, found))
