"""Hold the model against what a kernel printed: every comparison that a capture allows.

A *comparison* has a name and a kind. **exact**: every integer, address, page frame or line has to be
the kernel's, because the model has all it follows from. **shape**: what has to agree is named, and
the sentence beside it says why no more than that can.

`compare()` runs them on one capture, a file in the format of `mmcore.proc.capture` or a folder that
looks like ``/``. What a comparison takes from the record and what it derives is kept apart: managed
pages that were copied from /proc/zoneinfo, for example, are not counted as equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from mmcore import rebuild
from mmcore.config import PAGE_SIZE
from mmcore.errors import MMError, ParseError, UsageError
from mmcore.machine import Machine
from mmcore.mm import memblock, page_alloc
from mmcore.mm.mmzone import PAGES_PER_SECTION, for_each_populated_zone
from mmcore.proc import (
    buddyinfo,
    capture,
    dmesg,
    ftrace,
    iomem,
    memblock_log,
    meminfo,
    pagetypeinfo,
    snapshot,
    vmstat,
    zoneinfo,
)
from mmcore.proc.capture import Capture
from mmcore.proc.dmesg import BootLog
from mmcore.report import (
    alloctrace,
    cgrouplog,
    faults,
    malloclog,
    mapscript,
    oom_report,
    pgmap,
    sweep,
    vmalog,
)

__all__ = [
    "COMPARISONS",
    "EXACT",
    "SHAPE",
    "Comparison",
    "Difference",
    "NotComparable",
    "Outcome",
    "Report",
    "Result",
    "Subject",
    "by_capture",
    "by_comparison",
    "captures_in",
    "compare",
    "exit_status",
    "recorded",
    "select",
    "short_name",
    "summary",
    "to_text",
]

EXACT, SHAPE = "exact", "shape"
#: Kinds of boot lines that say who may allocate from where.
ZONELIST_LINES = ("dmesg fallback", "dmesg zonelists", "dmesg policy_zone")
MARKS = ("min", "low", "high", "promo")
#: /proc files whose text is read and written back.
TEXTS: dict[str, ModuleType] = {
    "/proc/buddyinfo": buddyinfo,
    "/proc/iomem": iomem,
    "/proc/meminfo": meminfo,
    "/proc/pagetypeinfo": pagetypeinfo,
    "/proc/vmstat": vmstat,
    "/proc/zoneinfo": zoneinfo,
}
#: What a damaged text can make a reader raise; none of it may reach the user as a traceback.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class NotComparable(MMError):
    """A comparison cannot run on this capture; says what it needs."""


@dataclass(slots=True, frozen=True)
class Difference:
    """A value that differs."""

    where: str
    model: str
    kernel: str


@dataclass(slots=True)
class Result:
    """How many values were compared, how many are equal, and those that are not.

    :ivar sections: those that were read because of what is in them, whatever their names
    :ivar note: what was inferred from the capture, "" if nothing
    """

    equal: int = 0
    total: int = 0
    differences: list[Difference] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)
    note: str = ""

    def add(self, where: str, model: object, kernel: object) -> None:
        """Compare a value."""
        self.total += 1
        if model == kernel:
            self.equal += 1
        else:
            self.differences.append(Difference(where, str(model), str(kernel)))

    def extend(self, rows: Iterable[tuple[str, object, object]]) -> Result:
        """Compare rows of (where, model, kernel)."""
        for row in rows:
            self.add(*row)
        return self


@dataclass(slots=True)
class Outcome:
    """What became of one comparison.

    :ivar outcome: "equal", "differs", "not compared" or "damaged"
    :ivar reason: why it was not compared, or what is damaged
    """

    comparison: Comparison
    outcome: str
    result: Result = field(default_factory=Result)
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "name": self.comparison.name,
            "kind": self.comparison.kind,
            "why": self.comparison.why,
            "outcome": self.outcome,
            "equal": self.result.equal,
            "total": self.result.total,
            "reason": self.reason,
            "note": self.result.note,
            "differences": [
                {"where": d.where, "model": d.model, "kernel": d.kernel}
                for d in self.result.differences
            ],
        }


@dataclass(slots=True)
class Report:
    """All comparisons of one capture.

    :ivar about: what was recorded, in a few words, "" if the capture does not say
    :ivar release: of the kernel, "" if it is not recorded
    :ivar uncovered: sections that no comparison that ran has read
    :ivar notes: what else a reader has to know
    :ivar unreadable: files that may not be read
    """

    name: str
    release: str
    outcomes: list[Outcome]
    uncovered: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    about: str = ""

    def ran(self) -> list[Outcome]:
        """Return the comparisons that had something to compare."""
        return [o for o in self.outcomes if o.result.total]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "name": self.name,
            "about": self.about,
            "release": self.release,
            "comparisons": [o.to_dict() for o in self.outcomes],
            "uncovered": self.uncovered,
            "notes": self.notes,
            "unreadable": self.unreadable,
        }


def _of_one_moment(cap: Capture) -> tuple[Capture, str]:
    """Return a capture with one /proc/zoneinfo, the sysctls that go with it, and which those are.

    Between two of them sysctls may have been written. A pair belongs together if the zones' min marks
    add up to min_free_kbytes; of several such pairs, the one recorded closest together.
    """
    zones = [i for i, s in enumerate(cap.sections) if s.command == "cat /proc/zoneinfo"]
    sysctls = {i: n for i, s in enumerate(cap.sections) if (n := _min_free_of(s)) is not None}
    if len(zones) < 2 or not sysctls:
        return cap, ""

    def rank(pair: tuple[int, int]) -> tuple[bool, int]:
        return _misfit(cap.sections[pair[0]].text, sysctls[pair[1]]), abs(pair[0] - pair[1])

    z, y = min(((z, y) for z in zones for y in sysctls), key=rank)
    out = [*(i for i in zones if i != z), *(i for i in sysctls if i != y)]
    kept = [s for i, s in enumerate(cap.sections) if i not in out]
    one = Capture(cap.name, cap.header, kept, None)
    return one, f"of several states, {cap.sections[z].name} beside {cap.sections[y].name}"


def _min_free_of(section: capture.Section) -> int | None:
    """Return min_free_kbytes if a section holds sysctls, else None."""
    path = "/proc/sys/vm/min_free_kbytes"
    match = re.search(rf"^{path} = (\d{{1,12}})$", section.text, re.MULTILINE)
    if match is None and section.command == f"cat {path}":
        match = re.match(r"(\d{1,12})$", section.text)
    return int(match[1]) if match and not section.name.startswith("SOURCE ") else None


def _misfit(text: str, min_free_kbytes: int) -> bool:
    """Tell whether the min marks of the zones are not those of this min_free_kbytes."""
    try:
        zones = [z for z in zoneinfo.parse(text) if z.pages.get("managed")]
    except ParseError:
        return True
    low = [z for z in zones if z.zone != "Movable"]
    # Each zone's part is rounded down.
    return not 0 <= (min_free_kbytes >> 2) - sum(z.pages.get("min", 0) for z in low) < len(low) + 1


class Subject:
    """A capture, with what several comparisons need of it made once.

    :ivar cap: what was recorded of one state of the machine, if there are several
    :ivar whole: all of it
    :ivar moment: which state that is, in words, "" if there is but one
    """

    def __init__(self, cap: Capture) -> None:
        self.whole = cap
        self.cap, self.moment = _of_one_moment(cap)

    def section(self, name: str) -> str:
        """Return the text of a section.

        :raises NotComparable: if there is none
        """
        text = self.cap.get(name)
        if text is None:
            raise NotComparable(f"needs a section {name!r}")
        return text

    @cached_property
    def log(self) -> BootLog | None:
        """The kernel's log, if it has the firmware's memory map."""
        text = self.cap.dmesg
        log = dmesg.parse(text) if text else None
        return log if log is not None and log.first("e820") is not None else None

    def boot_log(self) -> BootLog:
        """Return the log of a whole boot.

        :raises NotComparable: if there is none
        """
        if self.log is None:
            raise NotComparable("needs the kernel's log of its boot (with BIOS-e820 lines)")
        if self.log.first("memory") is None:
            raise NotComparable("needs the whole log of a boot: this one has no 'Memory:' line")
        return self.log

    @cached_property
    def _machine(self) -> Machine | MMError:
        """A machine rebuilt from the capture, or why there is none."""
        text = self.cap.file("/proc/zoneinfo")
        if text is None and self.log is None:
            return NotComparable("needs /proc/zoneinfo, or the kernel's log of its boot")
        try:
            return Machine.from_capture(self.cap)
        except MMError as err:
            return err

    @property
    def machine(self) -> Machine:
        """The machine rebuilt from the capture.

        :raises NotComparable: if it holds too little
        """
        if isinstance(self._machine, MMError):
            raise self._machine
        return self._machine

    @cached_property
    def recorded_min_free(self) -> int | None:
        """The sysctl min_free_kbytes of the record, or None."""
        text = (self.cap.file("/proc/sys/vm/min_free_kbytes") or "").strip()
        if text.isdecimal() and len(text) < 18:
            return int(text)
        if "sweep" in self.cap:
            return int(sweep.parse_defaults(self.cap["sweep"])["min_free_kbytes"])
        return None

    @cached_property
    def rows(self) -> list[rebuild.Row]:
        """Every number that the machine derives, beside the kernel's."""
        m = self.machine
        if self.log is None and self.recorded_min_free not in (None, m.min_free_kbytes):
            assert self.recorded_min_free is not None
            page_alloc.min_free_kbytes_sysctl_handler(m, True, self.recorded_min_free)
        return rebuild.compare(m)

    @property
    def marks_are_known(self) -> bool:
        """Whether the pages are known that were managed when the kernel set its marks.

        It sets them at boot, before it frees the last of what only the boot needed, and when a sysctl
        is written, as a sweep does.
        """
        return self.log is not None or "sweep" in self.cap

    def need_known_marks(self) -> None:
        """Refuse to derive marks from pages that were not yet managed.

        :raises NotComparable: if the boot is not recorded
        """
        if not self.marks_are_known:
            raise NotComparable(
                "needs the kernel's log of its boot: marks date from then, and fewer pages were "
                "managed"
            )

    def zone_rows(self, *names: str) -> list[tuple[str, object, object]]:
        """Return the rows of zones and CPUs whose name begins with one of @names.

        :raises NotComparable: if /proc/zoneinfo was not recorded
        """
        if self.cap.file("/proc/zoneinfo") is None:
            raise NotComparable("needs /proc/zoneinfo")
        return [
            (f"{row.where} {row.name}", row.model, row.kernel)
            for row in self.rows
            if row.where.startswith("Node ") and row.name.startswith(names)
        ]

    @cached_property
    def replay(self) -> alloctrace.Replay:
        """The allocation trace, repeated on the model.

        :raises NotComparable: if it was not recorded
        """
        for name in ("alloc", "trace"):
            self.section(name)
        if "SNAPSHOT" not in self.cap["alloc"] or "mm_page_" not in self.cap["trace"]:
            raise NotComparable("needs a trace of the kmem tracepoints between two snapshots")
        return alloctrace.replay(self.cap)

    @cached_property
    def release(self) -> str:
        """The kernel's release, "" if the record does not say."""
        release = self.cap.header.get("kernel_release")
        if isinstance(release, str):
            return release
        for text in (self.cap.get("uname"), self.cap.file("/proc/version"), self.cap.dmesg):
            match = re.search(r"Linux (?:version |\S+ )(\d+\.\d+\S*)", text or "")
            if match:
                return match[1]
        return (self.cap.file("/proc/sys/kernel/osrelease") or "").strip()


# ---- the comparisons -----------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Comparison:
    """A way to hold a capture against the model.

    :ivar why: one sentence: why it is exact, or why of shape only
    :ivar reads: the sections and files that it reads
    """

    name: str
    kind: str
    why: str
    reads: tuple[str, ...]
    run: Callable[[Subject], Result]


COMPARISONS: list[Comparison] = []


def _register(
    name: str, kind: str, why: str, *reads: str
) -> Callable[[Callable[[Subject], Result]], Callable[[Subject], Result]]:
    """Register the decorated function as a comparison."""

    def add(run: Callable[[Subject], Result]) -> Callable[[Subject], Result]:
        COMPARISONS.append(Comparison(name, kind, why, reads, run))
        return run

    return add


@_register(
    "memblock",
    EXACT,
    "The log's first dump gives memblock's state; every later request is run again, and the address "
    "it gets follows from the rules alone.",
    "dmesg",
)
def _memblock(s: Subject) -> Result:
    if not s.boot_log().has_memblock_log():
        raise NotComparable("needs a log with memblock=debug")
    replay = s.machine.memblock_replay
    if replay is None or not replay.requests:
        raise NotComparable("needs a memblock=debug log with requests after its first dump")
    result = Result(replay.equal, replay.requests)
    for bad in replay.mismatches:
        where = f"dmesg line {bad.line}: {bad.request}"
        result.differences.append(Difference(where, f"{bad.model:#x}", f"{bad.kernel:#x}"))
    return result.extend(_reserved_ends(s.boot_log()))


def _reserved_ends(log: BootLog) -> Iterable[tuple[str, str, str]]:
    """Yield where each request's range ends: as many bytes behind its start as were asked for."""
    size = None
    for line in log.lines:
        if line.kind in memblock_log.LATE:
            return
        if line.kind in ("mb_phys_alloc_range", "mb_alloc"):
            size = line.values["size"]
        elif line.kind == "mb_reserve" and size is not None:
            v = line.values
            if memblock_log.ALLOC in v["caller"]:
                yield f"dmesg line {line.number} end", hex(v["start"] + size - 1), hex(v["last"])
            size = None


def _log_rows(s: Subject, zonelists: bool) -> Result:
    s.boot_log()
    return Result().extend(
        (f"{row.where} {row.name}", row.model, row.kernel)
        for row in s.rows
        if row.where.startswith("dmesg ") and (row.where in ZONELIST_LINES) == zonelists
    )


@_register(
    "boot-lines",
    EXACT,
    "From the memory map, the nodes and the boot options the kernel computes what it logs about "
    "ranges, zones and nodes.",
    "dmesg",
)
def _boot_lines(s: Subject) -> Result:
    return _log_rows(s, zonelists=False)


@_register(
    "zonelists",
    EXACT,
    "The fallback order of nodes follows from their distances, CPUs and memory.",
    "dmesg",
    "nodes",
)
def _zonelists(s: Subject) -> Result:
    return _log_rows(s, zonelists=True)


@_register(
    "zones",
    EXACT,
    "Spanned, present and managed pages follow from the memory map, the boot options and what was "
    "reserved; managed pages that had to be copied from the record are not counted.",
    "dmesg",
    "/proc/zoneinfo",
)
def _zones(s: Subject) -> Result:
    s.boot_log()
    copied = [n.partition(":")[0] for n in s.machine.notes if "taken from the record" in n]
    return Result().extend(
        row
        for row in s.zone_rows("spanned", "present", "managed", "start_pfn", "zone")
        if not (row[0].endswith(" managed") and row[0].removesuffix(" managed") in copied)
    )


@_register(
    "watermarks",
    EXACT,
    "min, low, high and promo are integer arithmetic on managed pages and two sysctls.",
    "/proc/zoneinfo",
    "sysctl_vm",
)
def _watermarks(s: Subject) -> Result:
    rows = s.zone_rows("min", "low", "high", "promo")
    s.need_known_marks()
    return Result().extend(rows)


@_register(
    "protection",
    EXACT,
    "lowmem_reserve is a quotient of managed pages and a sysctl.",
    "/proc/zoneinfo",
)
def _protection(s: Subject) -> Result:
    rows = s.zone_rows("protection")
    s.need_known_marks()
    return Result().extend(rows)


@_register(
    "pcp-limits",
    EXACT,
    "The batch of the per-CPU lists and the threshold of the per-CPU counters follow from the zone's "
    "size and the number of CPUs.",
    "/proc/zoneinfo",
)
def _pcp_limits(s: Subject) -> Result:
    return Result().extend(s.zone_rows("batch", "threshold"))


@_register(
    "mark-steps",
    EXACT,
    "low, high and promo lie one and the same step above min, low and high, whatever the step is.",
    "/proc/zoneinfo",
)
def _mark_steps(s: Subject) -> Result:
    text = s.cap.file("/proc/zoneinfo")
    if text is None:
        raise NotComparable("needs /proc/zoneinfo")
    result = Result()
    for info in zoneinfo.parse(text):
        marks = info.pages
        if not marks.get("managed"):
            continue
        where = f"Node {info.node} {info.zone}"
        result.add(f"{where} high", 2 * marks["low"] - marks["min"], marks["high"])
        if "promo" in marks:
            result.add(f"{where} promo", 2 * marks["high"] - marks["low"], marks["promo"])
    return result


@_register(
    "marks-now",
    SHAPE,
    "Marks and reserves recomputed from the pages managed now; without the log of the boot nobody "
    "knows how many were managed when the kernel computed them.",
    "/proc/zoneinfo",
    "sysctl_vm",
)
def _marks_now(s: Subject) -> Result:
    rows = s.zone_rows("min", "low", "high", "promo", "protection")
    if s.marks_are_known:
        raise NotComparable("watermarks and protection are compared exactly")
    if s.recorded_min_free is None:
        raise NotComparable("needs /proc/sys/vm/min_free_kbytes")
    return Result().extend(rows)


@_register(
    "min_free_kbytes",
    EXACT,
    "The default is computed from the pages in use at boot, and raised by khugepaged.",
    "dmesg",
    "sysctl_vm",
)
def _min_free(s: Subject) -> Result:
    s.boot_log()
    recorded = s.recorded_min_free
    if recorded is None:
        raise NotComparable("needs /proc/sys/vm/min_free_kbytes")
    kept = [section for section in s.cap.sections if "/proc/sys/vm/" not in section.command]
    root = Capture(s.cap.name, s.cap.header, kept, None)
    if s.cap.root is not None:
        raise NotComparable("this machine's value may have been written since it booted")
    own = Machine.from_capture(root).min_free_kbytes
    if own != recorded:
        raise NotComparable(
            f"the sysctl is {recorded}, not the {own} that this machine computes: it was written by "
            "hand, or the model is wrong"
        )
    result = Result()
    result.add("min_free_kbytes", own, recorded)
    return result


@_register(
    "meminfo",
    EXACT,
    "MemTotal is the sum of managed pages; CommitLimit follows from it, from huge pages and swap.",
    "/proc/meminfo",
    "/proc/zoneinfo",
)
def _meminfo(s: Subject) -> Result:
    if s.cap.file("/proc/meminfo") is None:
        raise NotComparable("needs /proc/meminfo")
    if s.cap.root is not None and s.log is None:
        raise NotComparable(
            "a running machine's files are read one after the other; ballooning and hot-plugging "
            "change MemTotal in between"
        )
    return Result().extend(
        (row.name, row.model, row.kernel) for row in s.rows if row.where == "meminfo"
    )


@_register(
    "sysctl-sweep",
    EXACT,
    "Watermarks, reserves and batches are recomputed from the sysctls at every setting; the marks "
    "before the first write date from the boot, and are compared where its log is.",
    "sweep",
    "/proc/zoneinfo",
)
def _sweep(s: Subject) -> Result:
    text = s.section("sweep")
    if s.cap.file("/proc/zoneinfo") is None:
        sweep.parse_defaults(text)
        raise NotComparable("needs /proc/zoneinfo beside the sweep")
    m = Machine.from_capture(_before_the_sweep(s.cap, text))
    if s.log is not None and re.search("^defaults", text, re.MULTILINE):
        sweep.write_changed(m, sweep.parse_defaults(text))
    names = [*sweep.LINE_FIELDS, *(f"protection[{i}]" for i in range(5)), "batch"]
    result = Result()
    for tag, zone, model, kernel in sweep.sweep(m, text):
        for name, mine, theirs in zip(names, model, kernel, strict=False):
            if name in ("boost", "spanned", "present", "managed", "start_pfn"):
                continue  # these are given to the model
            if tag != "default" or s.log is not None or name not in MARKS:
                result.add(f"{tag} {zone} {name}", mine, theirs)
    return result


def _before_the_sweep(cap: Capture, text: str) -> Capture:
    """Return a capture without sysctls that are not those which the sweep began with."""
    if not re.search("^defaults", text, re.MULTILINE):
        return cap
    own = int(sweep.parse_defaults(text)["min_free_kbytes"])
    kept = [section for section in cap.sections if _min_free_of(section) in (None, own)]
    return Capture(cap.name, cap.header, kept, None)


@_register(
    "alloc-events",
    EXACT,
    "From the recorded lists and the requests, every split, claim, refill and drain follows.",
    "alloc",
    "trace",
)
def _alloc_events(s: Subject) -> Result:
    replay = s.replay
    result = Result(sum(replay.equal.values()), sum(replay.seen.values()))
    for line, kernel, model in replay.mismatches:
        result.differences.append(Difference(f"trace line {line}", str(model), str(kernel)))
    if replay.stopped:
        result.total += 1
        result.differences.append(Difference("trace", replay.stopped, "goes on"))
    if replay.stacks:
        stacks = _count(replay.stacks, "kernel stack")
        result.note = f"inferred from the page after them: {stacks}, taken without an event"
    return result


@_register(
    "alloc-frames",
    EXACT,
    "The lists are in the kernel's order, so the page frame that each request gets is decided.",
    "alloc",
    "trace",
)
def _alloc_frames(s: Subject) -> Result:
    name = "kmem:mm_page_alloc"
    replay = s.replay
    result = Result(replay.equal.get(name, 0), replay.seen.get(name, 0))
    for line, kernel, model in replay.mismatches:
        mine = [values for key, values in model if key == name]
        theirs = [values for key, values in kernel if key == name]
        if mine != theirs:
            result.differences.append(Difference(f"trace line {line}", str(mine), str(theirs)))
    return result


def _decays(replay: alloctrace.Replay, model: str, kernel: str) -> int:
    """Return how many runs of the worker explain that two lines of per-CPU lists differ in their limit.

    :return: 0 if they differ in more, or in what no run explains
    """
    limit = re.compile(r" high=(\d{1,12}) ")
    place = re.match(r"pcp node=(\d{1,4}) zone=(\w+) cpu=(\d{1,5}) ", model)
    wanted = limit.search(kernel)
    if place is None or wanted is None or limit.sub("", model) != limit.sub("", kernel):
        return 0
    fields = {k: int(v) for k, v in re.findall(r" (\w+)=(\d{1,12})", model)}
    limits = fields["high_min"], fields["high_max"], fields["batch"]
    where = int(place[1]), place[2], int(place[3])
    return alloctrace.runs_of_the_worker(replay, where, limits, int(wanted[1]))


@_register(
    "alloc-lists",
    EXACT,
    "After the last event every free list and per-CPU list must be the recorded one, in order; when "
    "the worker of once a second lowered a CPU's limit is read off the limit.",
    "alloc",
    "trace",
)
def _alloc_lists(s: Subject) -> Result:
    replay = s.replay
    result = Result(replay.lists - len(replay.lists_differ), replay.lists)
    runs: list[int] = []
    for kernel, model in replay.lists_differ:
        if decays := _decays(replay, model, kernel):
            result.equal += 1
            runs.append(decays)
            continue
        where = re.sub(r" nr_free.*| : .*", "", kernel or model)
        result.differences.append(Difference(where, model, kernel))
    if runs:
        result.note = (
            f"inferred from the limit of {_count(len(runs), 'list')}: "
            f"{_count(max(runs), 'run')} of the worker that lowers it"
        )
    elif replay.late:
        result.note = f"with {_count(replay.late, 'step')} that fell into the snapshot"
    return result


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


@_register(
    "memory-blocks",
    EXACT,
    "Which blocks of memory there are follows from the memory map; a block has a zone if all of it lies "
    "in one zone of one node.",
    "memory_sections",
    "memblocks",
)
def _memory_blocks(s: Subject) -> Result:
    recorded: dict[int, dict[str, str]] = {}
    folder = "/sys/devices/system/memory/"
    text = s.cap.get("memblocks") or s.section("memory_sections")
    for number, name, value in re.findall(rf"^{folder}memory(\d{{1,9}})/(\w+) = (.*)$", text, re.M):
        recorded.setdefault(int(number), {})[name] = value
    size = re.search(rf"^{folder}block_size_bytes = ([0-9a-f]{{1,12}})$", text, re.MULTILINE)
    if size is None or int(size[1], 16) < PAGES_PER_SECTION * PAGE_SIZE:
        raise NotComparable("needs block_size_bytes")
    s.boot_log()
    m, per_block = s.machine, int(size[1], 16) // PAGE_SIZE
    sections = m.mm_init.present_section_nr
    blocks = sorted({nr * PAGES_PER_SECTION // per_block for nr in sections})
    result = Result()
    result.add("blocks", blocks, sorted(recorded))
    for block in blocks:
        values = recorded.get(block, {})
        zones = _zones_of_block(m, block * per_block, (block + 1) * per_block)
        name = zones[0] if len(zones) == 1 else "none"
        result.add(f"memory{block} valid_zones", name, values.get("valid_zones"))
        result.add(f"memory{block} phys_index", f"{block:08x}", values.get("phys_index"))
    return result


def _zones_of_block(m: Machine, start: int, end: int) -> list[str]:
    """Return the zones that a block of memory lies in, on each node that has memory in it."""
    ranges = memblock.for_each_mem_pfn_range(m.memblock, memblock.MAX_NUMNODES)
    nodes = {nid: None for first, last, nid in ranges if first < end and start < last}
    return [
        zone.name
        for zone in for_each_populated_zone(m)
        if zone.node in nodes
        and zone.zone_start_pfn < end
        and start < zone.zone_start_pfn + zone.spanned_pages
    ]


@_register(
    "snapshot",
    EXACT,
    "Free lists and per-CPU lists, loaded into the model's zones, must come out line for line.",
    "snap",
    "alloc",
)
def _snapshot(s: Subject) -> Result:
    texts = [s.cap.get("snap") or ""]
    texts += re.split(r"^SNAPSHOT \d+\n", s.cap.get("alloc") or "", flags=re.MULTILINE)[1:]
    result = Result()
    for number, text in enumerate(texts):
        if not re.search(r"^zone node=", text, re.MULTILINE):
            continue
        zones = snapshot.parse(text)
        total, differ = alloctrace.differences(zones, snapshot.take(snapshot.load(zones)))
        result.equal += total - len(differ)
        result.total += total
        where = f"snapshot {number}" if number else "snap"
        result.differences += [Difference(where, mine, theirs) for theirs, mine in differ]
    if not result.total:
        raise NotComparable("needs a snapshot of the allocator's lists")
    return result


@_register(
    "page-tables",
    EXACT,
    "Flags, map counts, table sizes and fault counts after each step are decided; page frames are "
    "compared as the same or another.",
    "pgmap",
    "pgmap_mthp64",
    "thp",
    "mthp_settings",
)
def _page_tables(s: Subject) -> Result:
    result = Result()
    for name in ("pgmap", "pgmap_mthp64"):
        if name in s.cap:
            rows = pgmap.compare(s.cap, name)
            result.extend((f"{name} {where}", mine, theirs) for where, mine, theirs in rows)
    if not result.total:
        raise NotComparable("needs a section 'pgmap'")
    return result


@_register(
    "address-space",
    EXACT,
    "Each call's result and every mapping with its flags follow from the calls before; the initial map "
    "is given.",
    "the sections with a log of calls",
)
def _address_space(s: Subject) -> Result:
    result = Result()
    for section in s.cap.sections:
        if not section.text.startswith('{"init":'):
            continue
        log = vmalog.compare(section.text)
        result.sections.append(section.name)
        result.equal += log.equal
        result.total += log.checks
        for d in log.differences:
            where = f"{section.name} call {d.index} {d.call}: {d.what}"
            result.differences.append(Difference(where, d.model, d.kernel))
    if not result.total:
        raise NotComparable("needs a log of calls that change an address space")
    return result


@_register(
    "mappings",
    EXACT,
    "Addresses, lines of maps, results and counts follow from the program's segments, its calls and the "
    "machine's memory, with addresses not randomised; what the lines at the start show of the program "
    "itself is given and not counted.",
    "mappings",
    "overcommit",
)
def _mappings(s: Subject) -> Result:
    if "at the start 1: " not in (s.cap.get("mappings") or ""):
        raise NotComparable("needs the answers of the program mappings")
    if "norandmaps" not in (s.cap.get("cmdline") or s.cap.header.get("kernel_cmdline") or ""):
        raise NotComparable("needs addresses that are not randomised (norandmaps)")
    return Result().extend(mapscript.compare(s.cap))


@_register(
    "limits",
    EXACT,
    "What the first process may use follows from constants and, for its children and signals, from the "
    "memory that was free before the allocator started; the guest's own shell changes none.",
    "/proc/self/limits",
)
def _limits(s: Subject) -> Result:
    spec = s.cap.header.get("topology_spec")
    plain = isinstance(spec, dict) and "memory" in spec and spec.keys() <= {"memory", "cpus"}
    if not (s.cap.get("limits") or "").startswith("Limit ") or "initrd_bytes" not in s.cap.header:
        raise NotComparable("needs /proc/self/limits of a guest of the lab")
    if not plain:
        raise NotComparable("needs a guest with one node, whose memory is that of the topology")
    return Result().extend(mapscript.compare_limits(s.cap))


@_register(
    "overcommit",
    EXACT,
    "The mode is the one that the kernel starts with; CommitLimit follows from MemTotal and SwapTotal, "
    "which are given.",
    "/proc/sys/vm/overcommit_memory",
)
def _overcommit(s: Subject) -> Result:
    if not s.section("overcommit").strip().isdecimal():
        raise NotComparable("needs /proc/sys/vm/overcommit_memory in a section 'overcommit'")
    return Result().extend(mapscript.compare_overcommit(s.cap))


def _malloc_capture(s: Subject) -> Capture:
    """Return a capture that has the steps of the program mallocs.

    :raises NotComparable: if it has not, or if addresses are randomised
    """
    if "\nstep nothing yet\n" not in (s.cap.get("malloc") or ""):
        raise NotComparable("needs the steps of the program mallocs")
    if "norandmaps" not in (s.cap.get("cmdline") or s.cap.header.get("kernel_cmdline") or ""):
        raise NotComparable("needs addresses that are not randomised (norandmaps)")
    return s.cap


@_register(
    "malloc-calls",
    EXACT,
    "The recorded calls are given; each result and each line of maps after each step follow from them, "
    "from the program's segments and from the pages that were written.",
    "malloc",
)
def _malloc_calls(s: Subject) -> Result:
    return Result().extend(malloclog.compare_calls(_malloc_capture(s)))


@_register(
    "malloc-library",
    EXACT,
    "Which calls glibc 2.36 makes follows from its thresholds and from what its heap already holds, "
    "which is given; faults and anonymous memory count from the first large block on, because the place of an "
    "array that the program wrote to before is not recorded.",
    "malloc",
)
def _malloc_library(s: Subject) -> Result:
    cap = _malloc_capture(s)
    if not cap["malloc"].startswith("glibc 2.36\n"):
        raise NotComparable("needs a program with glibc 2.36: the model of the allocator is of it")
    return Result().extend(malloclog.compare_library(cap))


@_register(
    "faults",
    EXACT,
    "Each access faults or not, with an error code and a signal that the page table decides.",
    "faults",
    "trace",
    "segfaults",
)
def _faults(s: Subject) -> Result:
    s.section("faults")
    s.section("trace")
    result = Result().extend(faults.compare(s.cap))
    if "segfaults" in s.cap:
        rows = faults.compare_segfaults(s.cap["segfaults"])
        result.extend((f"segfaults {where}", mine, theirs) for where, mine, theirs in rows)
    return result


@_register(
    "oops",
    EXACT,
    "The first lines of an oops follow from the address and the error code.",
    "oops0",
    "oops1",
    "oops2",
    "oops3",
)
def _oops(s: Subject) -> Result:
    result = Result()
    for section in s.cap.sections:
        if re.fullmatch(r"oops\d+", section.name):
            rows = faults.compare_oops(section.text)
            result.extend((f"{section.name} {where}", mine, theirs) for where, mine, theirs in rows)
    if not result.total:
        raise NotComparable("needs a section with an oops ('oops0')")
    return result


def _texts_of(cap: Capture) -> list[tuple[str, str, str]]:
    """Return (where, file, text) of each /proc text that was recorded whole."""
    if cap.root is not None:
        found = [(path, path, cap.file(path) or "") for path in TEXTS]
    else:
        found = [(s.name, s.command.removeprefix("cat "), s.text) for s in cap.sections]
    return [(where, path, text) for where, path, text in found if path in TEXTS and text]


@_register(
    "oom-victim",
    EXACT,
    "Points follow from the report's own table of tasks, and who has the most of them is killed; a choice "
    "that depends on what the report does not show is not counted.",
    "dmesg",
)
def _oom_victim(s: Subject) -> Result:
    result = Result()
    for section in s.cap.sections:
        if "oom-kill:" not in section.text or section.name.startswith("SOURCE "):
            continue
        result.sections.append(section.name)
        for number, report in enumerate(oom_report.examine(section.text), 1):
            ranking = report.ranking
            kill = ranking.selected
            if kill is None or ranking.verdict not in ("agrees", "differs"):
                continue
            best = next((score.task for score in ranking.scores if score.eligible), None)
            mine = kill.pid if ranking.verdict == "agrees" else best and best.pid
            result.add(f"{section.name} report {number} victim", mine, kill.pid)
    if not result.total:
        raise NotComparable("needs a report of the OOM killer with its table of tasks")
    return result


@_register(
    "cgroup-charges",
    EXACT,
    "What a group is charged follows from what its process used, in batches of 64 pages; events and what is "
    "left follow from the limits, if each call of reclaim gets 64 pages. Groups of which reclaim took other "
    "amounts are not counted.",
    "charges",
    "limits",
)
def _cgroup_charges(s: Subject) -> Result:
    result = Result()
    loads: list[cgrouplog.Load] = []
    for section in s.cap.sections:
        if section.name in ("charges", "limits") and section.text.startswith("-- "):
            loads += cgrouplog.parse(section.text, section.line)
            result.sections.append(section.name)
    if not loads:
        raise NotComparable("needs the sections of the experiment cgroup")
    for load, used, after in cgrouplog.replay(loads):
        result.add(f"{load.name}: names of memory.stat", cgrouplog.stat_names(), list(load.used["memory.stat"]))  # fmt: skip
        if load.uneven:
            continue
        for when, mine, theirs in (("", used, load.used), (" afterwards", after, load.after)):
            for name in mine:
                if name in theirs:
                    result.add(f"{load.name}{when}: {name}", mine[name], theirs[name])
    return result


@_register(
    "texts",
    EXACT,
    "A text that is understood can be written back: every line of /proc read and printed again.",
    *TEXTS,
    "trace",
)
def _texts(s: Subject) -> Result:
    result = Result()
    for where, path, text in _texts_of(s.whole):
        mine = TEXTS[path].render(TEXTS[path].parse(text)).split("\n")
        theirs = text.split("\n")
        for i in range(max(len(mine), len(theirs)) - 1):
            a = mine[i] if i < len(mine) else "(none)"
            b = theirs[i] if i < len(theirs) else "(none)"
            result.add(f"{where} line {i + 1}", a, b)
    if "mm_page_" in (s.cap.get("trace") or ""):
        for line in ftrace.parse(s.cap["trace"]):
            if line.event is not None and line.event.name in ftrace.FORMATS:
                # The address of the struct page may be hashed.
                mine_ = re.sub(r"page=\S+ ", "", " ".join(ftrace.render_event(line.event)))
                theirs_ = re.sub(r"page=\S+ ", "", f"{line.name} {line.args}")
                result.add(f"trace line {line.number}", mine_, theirs_)
    if not result.total:
        raise NotComparable(f"needs one of {', '.join(TEXTS)}")
    return result


@_register(
    "names",
    SHAPE,
    "A model machine prints the same lines in the same order; which ones there are depends on the "
    "kernel's configuration, and the values on what ran.",
    "/proc/zoneinfo",
    "/proc/meminfo",
    "/proc/vmstat",
)
def _names(s: Subject) -> Result:
    result = Result()
    for path in ("/proc/meminfo", "/proc/vmstat", "/proc/zoneinfo"):
        text = s.cap.file(path)
        if not text:
            continue
        mine, theirs = _blanked(TEXTS[path].show(s.machine)), _blanked(text)
        same = SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes()
        for tag, a, b, c, d in same:
            if tag == "equal":
                result.equal += d - c
                result.total += d - c
                continue
            for k in range(max(b - a, d - c)):
                ours = mine[a + k] if a + k < b else "(none)"
                kernel = theirs[c + k] if c + k < d else "(none)"
                result.add(f"{path} line {c + k + 1}", ours, kernel)
    if not result.total:
        raise NotComparable("needs /proc/meminfo, /proc/vmstat or /proc/zoneinfo")
    return result


def _blanked(text: str) -> list[str]:
    """Return the lines of a text without their numbers."""
    return [re.sub(r" *-?\d+", " N", line) for line in text.rstrip("\n").split("\n")]


# ---- running them --------------------------------------------------------------------------------


def select(names: Iterable[str]) -> list[Comparison]:
    """Return the comparisons of these names, all if there is none.

    :raises UsageError: for an unknown name
    """
    wanted = list(names)
    known = {c.name: c for c in COMPARISONS}
    for name in wanted:
        if name not in known:
            raise UsageError(f"no comparison {name!r}; there are {', '.join(known)}")
    return [c for c in COMPARISONS if not wanted or c.name in wanted]


def _run(comparison: Comparison, subject: Subject) -> Outcome:
    """Run a comparison; whatever its texts hold, there is an outcome."""
    try:
        result = comparison.run(subject)
    except NotComparable as err:
        return Outcome(comparison, "not compared", reason=str(err))
    except UsageError as err:
        return Outcome(comparison, "not compared", reason=str(err).split("\n")[0])
    except ParseError as err:
        return Outcome(comparison, "damaged", reason=str(err))
    except MMError as err:
        return Outcome(comparison, "damaged", reason=f"the model cannot follow it: {err}")
    except DAMAGE as err:
        reason = f"its texts contradict each other ({type(err).__name__}: {err})"
        return Outcome(comparison, "damaged", reason=reason[:300])
    if not result.total:
        return Outcome(comparison, "not compared", reason="the capture has no value to compare")
    return Outcome(comparison, "differs" if result.differences else "equal", result)


def _uncovered(cap: Capture, outcomes: list[Outcome]) -> list[str]:
    """Return the sections that no comparison that ran has read."""
    ran = [o for o in outcomes if o.result.total]
    read = {name: None for o in ran for name in (*o.comparison.reads, *o.result.sections)}
    return [
        s.name
        for s in cap.sections
        if s.name not in read
        and s.text.strip()
        and s.command.removeprefix("cat ") not in read
        and s.name not in ("uname", "cmdline")
        and not s.name.startswith("SOURCE ")
    ]


def compare(source: str | Path | Capture, comparisons: list[Comparison] | None = None) -> Report:
    """Run every comparison that a capture allows.

    :param source: a capture, its name, or a file or folder
    :raises UsageError: if there is no such file
    :raises ParseError: if it is no capture
    """
    cap = source if isinstance(source, Capture) else capture.load(source)
    subject = Subject(cap)
    outcomes = [_run(c, subject) for c in (COMPARISONS if comparisons is None else comparisons)]
    notes = [subject.moment] if subject.moment else []
    status = cap.header.get("status")
    if status not in (None, "ok"):
        notes.append(f"the recording did not finish (status: {status})")
    if subject.release and not re.match(r"6\.12(\D|$)", subject.release):
        notes.append(f"the model is of Linux 6.12; this is {subject.release}: it may differ")
    elif not subject.release and any(o.result.total for o in outcomes):
        notes.append("the record does not say which kernel it is of; the model is of Linux 6.12")
    return Report(
        cap.name,
        subject.release,
        outcomes,
        _uncovered(cap, outcomes),
        notes,
        cap.unreadable,
        _about(cap),
    )


def _about(cap: Capture) -> str:
    """Return what a capture says of itself, up to its first colon, semicolon or bracket."""
    text = cap.header.get("records", cap.header.get("what"))
    if not isinstance(text, str):
        found = [re.search(r"^# what: (.*)", s.text, re.MULTILINE) for s in cap.sections]
        text = next((m[1] for m in found if m), "")
    text = re.split(r"[:;(]", text)[0].strip().rstrip(".")
    return text if len(text) <= 52 else text[:52].rpartition(" ")[0] + " ..."


def by_comparison(reports: list[Report]) -> list[dict[str, Any]]:
    """Return a row for each comparison: on how many captures it ran, how many values are equal."""
    rows = []
    for c in COMPARISONS:
        ran = [o.result for r in reports for o in r.ran() if o.comparison.name == c.name]
        row = {"comparison": c.name, "kind": c.kind, "captures": len(ran)}
        rows.append(row | {"equal": sum(r.equal for r in ran), "of": sum(r.total for r in ran)})
    return rows


def by_capture(reports: list[Report]) -> list[dict[str, Any]]:
    """Return a row for each capture: its comparisons and values by kind, and what came of them.

    Its outcome is "equal", "differs" if an exact comparison does, "damaged", or "not compared"; a
    comparison of shape that differs does not count.
    """
    rows = []
    for report in reports:
        exact, shape = ([o for o in report.ran() if o.comparison.kind == k] for k in (EXACT, SHAPE))
        outcome = "differs" if any(o.outcome == "differs" for o in exact) else "equal"
        if any(o.outcome == "damaged" for o in report.outcomes):
            outcome = "damaged"
        elif not report.ran():
            outcome = "not compared"
        values, shapes = [o.result for o in exact], [o.result for o in shape]
        row = {
            "capture": short_name(report.name),
            "outcome": outcome,
            "exact": _share(sum(o.outcome == "equal" for o in exact), len(exact)),
            "values": _share(sum(r.equal for r in values), sum(r.total for r in values)),
            "shape": _share(sum(r.equal for r in shapes), sum(r.total for r in shapes)),
            "what it is": report.about,
        }
        rows.append(row)
    return rows


def _share(equal: int, total: int) -> str:
    return f"{equal:,}/{total:,}" if total else ""


def summary(reports: list[Report]) -> dict[str, dict[str, int]]:
    """Return, by kind, how many comparisons ran and were equal, and how many values."""
    out = {}
    for kind in (EXACT, SHAPE):
        ran = [o for r in reports for o in r.ran() if o.comparison.kind == kind]
        out[kind] = {
            "comparisons": len(ran),
            "comparisons_equal": sum(o.outcome == "equal" for o in ran),
            "values": sum(o.result.total for o in ran),
            "values_equal": sum(o.result.equal for o in ran),
        }
    return out


def to_text(report: Report, verbose: bool = False) -> str:
    """Return a report as lines: one for each comparison, with each difference if @verbose."""
    kernel = f" (Linux {report.release})" if report.release else ""
    lines = [f"{report.name}{kernel}"]
    absent: dict[str, list[str]] = {}
    for o in report.outcomes:
        c, r = o.comparison, o.result
        if r.total:
            line = f"  {c.kind}  {c.name:<16}{r.equal}/{r.total}"
            line += "" if o.outcome == "equal" else f"  {len(r.differences)} differ"
            lines.append(f"{line}  ({r.note})" if r.note else line)
            if verbose:
                lines.append(f"           {c.why}")
                for d in r.differences:
                    lines += [
                        f"    {d.where}",
                        f"      model   {d.model}",
                        f"      kernel  {d.kernel}",
                    ]
        elif o.outcome == "damaged":
            lines.append(f"  damaged  {c.name}: {o.reason}")
        else:
            absent.setdefault(o.reason, []).append(c.name)
    for reason, names in absent.items():
        lines.append(f"  not compared: {', '.join(names)}: {reason}")
    if report.uncovered:
        lines.append(f"  no comparison covers: {', '.join(report.uncovered)}")
    lines += [f"  could not read {path}: try as root" for path in report.unreadable]
    lines += [f"  note: {note}" for note in report.notes]
    return "\n".join(lines)


def captures_in(path: Path) -> list[Path]:
    """Return the capture files of a folder, or the path itself if it is one capture.

    :raises UsageError: if a folder has none
    """
    if not path.is_dir() or (path / "proc").is_dir():
        return [path]
    files = [
        p for p in sorted(path.rglob("*")) if p.is_file() and p.name.endswith((".txt", ".txt.gz"))
    ]
    if not files:
        raise UsageError(f"{path}: no capture (*.txt, *.txt.gz) and no proc/ in this folder")
    return files


def recorded() -> list[Path]:
    """Return the captures of the book and, where they are, those of its tests."""
    book = capture.find("n1-1g/physical").parents[1]
    tests = book.parents[1] / "tests" / "captures"
    return captures_in(book) + (captures_in(tests) if tests.is_dir() else [])


def short_name(name: str) -> str:
    """Return "topology/experiment" of a capture's path."""
    path = Path(name)
    return f"{path.parent.name}/{path.name.partition('.')[0]}"


def exit_status(reports: list[Report], bad_input: bool = False) -> int:
    """Return 1 if an exact comparison differs, 2 if something is damaged or nothing ran, else 0."""
    outcomes = [o for report in reports for o in report.outcomes]
    if any(o.outcome == "differs" and o.comparison.kind == EXACT for o in outcomes):
        return 1
    if bad_input or any(o.outcome == "damaged" for o in outcomes):
        return 2
    return 0 if any(o.result.total for o in outcomes) else 2
