"""The recording of malloc(): the calls of the C library's allocator, and the kernel's answers.

A recording has, for each step of a fixed program, lines "call NAME ARGUMENTS = RESULT", "step LABEL",
"faults N anonymous KB" and "map LINE" for each private writable mapping without a file. `compare_calls()`
makes the recorded calls on the model; `compare_library()` lets a model of the allocator decide on them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from mmcore.arch.x86.fault import touch
from mmcore.config import PAGE_SIZE
from mmcore.errors import ParseError, UsageError
from mmcore.fs.exec import Program, Segment, do_execve
from mmcore.kernel.fork import TaskStruct, spawn
from mmcore.mm import madvise, mmap, mprotect, mremap
from mmcore.mm.mm import MM_ANONPAGES, MmStruct, get_mm_counter
from mmcore.proc import task_mmu
from mmcore.proc.capture import Capture
from mmcore.report.mapscript import boot

__all__ = [
    "Glibc",
    "MallocStep",
    "compare_calls",
    "compare_library",
    "malloc_rows",
    "malloc_steps",
    "program",
    "recorded_malloc",
]

PG = PAGE_SIZE
RW = mmap.PROT_READ | mmap.PROT_WRITE
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
U64 = (1 << 64) - 1
#: What the C library had taken of the heap when the recorded program's first malloc() ran.
LIBRARY_USED = 0x9C0
MINSIZE, TOP_PAD = 32, 128 << 10
SMALLS = 6000
#: The step from which on the program touches nothing but what it gets from malloc().
LATE = "a = malloc(200 KiB)"
#: Call -> how many arguments are recorded.
CALLS = {"brk": 1, "mmap": 4, "munmap": 2, "mremap": 4, "madvise": 3, "mprotect": 3}
_NUMBER = r"-?(?:0x[0-9a-f]{1,16}|[0-9]{1,20})"
_CALL = re.compile(rf"([a-z]+)((?: {_NUMBER})+) = ({_NUMBER})")
_MAP = re.compile(r"([0-9a-f]{8,16})-([0-9a-f]{8,16}) rw-p 00000000 00:00 0 *(\[heap\])?")


@dataclass(slots=True)
class MallocStep:
    """One step of the program: its calls, its faults, and what was mapped and resident afterwards.

    :ivar heap, others: KiB of the heap, and of mappings above it
    :ivar resident: KiB of anonymous memory
    :ivar maps: the lines of maps for private writable mappings without a file
    """

    label: str
    calls: list[str] = field(default_factory=list)
    faults: int = 0
    heap: int = 0
    others: int = 0
    resident: int = 0
    maps: list[str] = field(default_factory=list)

    def add_map(self, line: str) -> bool:
        """Note a line of maps; False if it is none."""
        match = _MAP.fullmatch(line)
        if match is None:
            return False
        size = int(match[2], 16) - int(match[1], 16) >> 10
        if match[3]:
            self.heap += size
        elif self.heap:  # below the heap is .bss
            self.others += size
        self.maps.append(line)
        return True


def recorded_malloc(capture: Capture) -> list[MallocStep]:
    """Return the steps of the recorded program.

    :raises ParseError: for a line that is none of a recording
    """
    steps: list[MallocStep] = []
    calls: list[str] = []
    for number, line in enumerate(capture["malloc"].splitlines(), 1):
        word, _, rest = line.partition(" ")
        if word == "call":
            match = _CALL.fullmatch(rest)
            if match is None or len(match[2].split()) != CALLS.get(match[1]):
                raise ParseError("malloc", number, line, "no call of the allocator")
            calls.append(rest)
        elif word == "step":
            steps.append(MallocStep(rest, calls))
            calls = []
        elif word == "faults" and steps:
            match = re.fullmatch(r"(\d{1,9}) anonymous (\d{1,12})", rest)
            if match is None:
                raise ParseError("malloc", number, line, "not 'faults N anonymous KB'")
            steps[-1].faults, steps[-1].resident = int(match[1]), int(match[2])
        elif word == "map" and not (steps and steps[-1].add_map(rest)):
            raise ParseError("malloc", number, line, "no private writable mapping without a file")
    return steps


@dataclass(slots=True)
class _First:
    """What the first step says of the program: .bss, where RELRO begins, the break of the first malloc()."""

    bss: tuple[int, int]
    relro: int
    start: int


def _numbers(call: str) -> tuple[str, list[int]]:
    """Return a call's name and its arguments."""
    name, *words = call.partition(" = ")[0].split()
    return name, [int(w, 0) for w in words]


def _first(steps: Sequence[MallocStep]) -> _First:
    if not steps or not steps[0].maps:
        raise ParseError("malloc", 1, "", "no step, or no mapping after the first")
    match = _MAP.fullmatch(steps[0].maps[0])
    assert match is not None
    bss = int(match[1], 16), int(match[2], 16)
    calls = [_numbers(c) for c in steps[0].calls]
    relro = next((a[0] for name, a in calls if name == "mprotect"), bss[0] - PG)
    start = next((a[0] for name, a in calls if name == "brk" and a[0]), 0)
    if not start or match[3] or relro % PG or not 0 < relro < bss[0] < bss[1]:
        raise ParseError(
            "malloc", 1, "", "not the first steps of a static program: .bss, brk(), RELRO"
        )
    return _First(bss, relro, start)


def program(capture: Capture) -> TaskStruct:
    """Return a process whose data, .bss, stack and vDSO are where the recorded one's are.

    :raises ParseError: if the recording is not that of a static program
    :raises UsageError: if there can be no such program
    """
    first = _first(recorded_malloc(capture))
    m = boot(capture)
    m.paging.randomize_va_space = 0
    task = spawn(m, "mallocs")
    data = first.bss[0] - first.relro
    code = Segment(first.relro - PG, 0, PG, PG, "rx")
    segments = (code, Segment(first.relro, PG, data, data + first.bss[1] - first.bss[0], "rw"))
    if error := do_execve(task, Program("/bin/mallocs", segments)):
        raise UsageError(f"execve() of the recorded program gives {error}")
    return task


def _call(mm: MmStruct, name: str, a: list[int]) -> str:
    """Make a call; return its result as it is recorded."""
    a = [v & U64 for v in a]
    if name == "mmap":
        result = mmap.sys_mmap(mm, a[0], a[1], a[2], a[3], None)
    elif name == "mremap":
        result = mremap.sys_mremap(mm, a[0], a[1], a[2], a[3], 0)
    elif name == "brk":
        result = mmap.sys_brk(mm, a[0])
    else:
        calls: dict[str, Any] = {
            "munmap": mmap.sys_munmap,
            "madvise": madvise.sys_madvise,
            "mprotect": mprotect.sys_mprotect,
        }
        return str(calls[name](mm, *a))
    return f"{result & U64:#x}"


def _maps(mm: MmStruct) -> list[str]:
    """Return the lines of maps that a recording has: writable, private, no file, not the stack."""
    lines = task_mmu.render_maps(mm).splitlines()
    return [line for line in lines if " rw-p 00000000 00:00 0 " in line and "[stack]" not in line]


def compare_calls(capture: Capture) -> list[tuple[str, str, str]]:
    """Make the recorded calls; return (where, model, kernel) of each result and each line of maps.

    After mmap(), mremap() and a brk() that grows the heap the allocator writes what it keeps before a
    block, and one step writes to every page of a block: the model writes there too. The line of .bss is
    given.
    """
    steps = recorded_malloc(capture)
    task = program(capture)
    mm, rows = task.mm, []
    assert mm is not None
    last = 0
    for step in steps:
        for number, call in enumerate(step.calls, 1):
            name, args = _numbers(call)
            before = mm.brk
            result = _call(mm, name, args)
            rows.append((f"{step.label}: {number}. {name}", result, call.partition(" = ")[2]))
            if name in ("mmap", "mremap") and not int(result, 16) % PG:
                last = int(result, 16)
                touch(task.machine, last + 8, "w")
            elif name == "brk" and mm.brk > before:
                touch(task.machine, before, "w")
        if step.label == "every page of a written":
            for page in range(50):
                touch(task.machine, last + 16 + page * PG, "w")
        mine = _maps(mm)
        for i in range(max(len(mine), len(step.maps)))[1:]:
            a, b = (lines[i] if i < len(lines) else "(none)" for lines in (mine, step.maps))
            rows.append((f"{step.label}: map {i + 1}", a, b))
    return rows


class Glibc:
    """glibc's decisions about brk(), mmap() and their relatives, for one arena.

    Simplified: of the bins only their effect on this program is here: a small block that is freed stays
    taken for the kernel's purposes (tcache keeps seven of a size, fastbins the rest) until malloc_trim().

    :param start: the break when the first malloc() runs
    """

    def __init__(self, task: TaskStruct, start: int) -> None:
        self.task, self.m = task, task.machine
        assert task.mm is not None
        self.mm = task.mm
        self.calls: list[str] = []
        self.start = self.top = self.end = start
        self.mmap_threshold = self.trim_threshold = 128 << 10
        self.mapped: dict[int, int] = {}
        self.small: list[int] = []
        self.faults = 0

    def write(self, address: int) -> None:
        """Write a word, as the allocator or the program does."""
        before = self.task.min_flt
        touch(self.m, address, "w")
        self.faults += self.task.min_flt - before

    def brk(self, end: int) -> None:
        """Move the break."""
        got = mmap.sys_brk(self.mm, end)
        self.calls.append(f"brk {end:#x} = {got:#x}")
        self.end = got

    def _more(self, nb: int) -> None:
        """Extend the heap so that @nb bytes fit: sysmalloc()."""
        size = nb + TOP_PAD + MINSIZE - (self.end - self.top)
        first = self.end == self.start
        self.brk(self.end + (size + PG - 1 & -PG))
        if first and self.end % PG:
            self.brk(self.end + PG - 1 & -PG)
        self.write(self.top + 8)

    def malloc(self, n: int) -> int:
        """Return a block of @n bytes."""
        nb = max(n + 8 + 15 & -16, 32)
        if nb >= self.mmap_threshold and self.end - self.top < nb + MINSIZE:
            size = nb + 8 + PG - 1 & -PG
            at = mmap.do_mmap(self.mm, None, 0, size, RW, PRIVATE)
            self.calls.append(f"mmap 0 {size} 3 0x22 = {at:#x}")
            self.mapped[at + 16] = size
            self.write(at + 8)
            return at + 16
        if self.end - self.top < nb + MINSIZE:
            self._more(nb)
        p, self.top = self.top, self.top + nb
        self.write(p + 8)
        self.write(self.top + 8)
        return p + 16

    def realloc(self, p: int, n: int) -> int:
        """Resize a block that has a mapping of its own."""
        old = self.mapped.pop(p)
        size = (n + 8 + 15 & -16) + 8 + PG - 1 & -PG
        at = mremap.sys_mremap(self.mm, p - 16, old, size, mremap.MREMAP_MAYMOVE, 0)
        self.calls.append(f"mremap {p - 16:#x} {old} {size} 1 = {at:#x}")
        self.mapped[at + 16] = size
        self.write(at + 8)
        return at + 16

    def free(self, p: int, n: int = 0) -> None:
        """Give back a block; one of @n bytes from the heap's end goes back to the top."""
        if p in self.mapped:
            size = self.mapped.pop(p)
            if size > self.mmap_threshold:
                self.mmap_threshold, self.trim_threshold = size, 2 * size
            result = mmap.do_munmap(self.mm, p - 16, size)
            self.calls.append(f"munmap {p - 16:#x} {size} = {result}")
            return
        nb = max(n + 8 + 15 & -16, 32)
        if p - 16 + nb == self.top and nb > 1024:
            self.top -= nb
            if self.end - self.top >= self.trim_threshold:
                self.trim_top(TOP_PAD)

    def trim_top(self, pad: int) -> None:
        """Give back the end of the heap: systrim()."""
        extra = self.end - self.top - MINSIZE - 1 - pad & -PG
        if extra > 0:
            self.brk(self.end - extra)

    def trim(self, first: int, last: int) -> None:
        """malloc_trim(0), when everything from @first to @last is one free block: whole pages, then the top."""
        a, b = first + 48 + PG - 1 & -PG, last & -PG
        if b > a:
            result = madvise.sys_madvise(self.mm, a, b - a, madvise.MADV_DONTNEED)
            self.calls.append(f"madvise {a:#x} {b - a} 4 = {result}")
        self.trim_top(0)


def malloc_steps(capture: Capture) -> list[MallocStep]:
    """Return the same steps, by the model's allocator on the model's kernel."""
    first = _first(recorded_malloc(capture))
    task = program(capture)
    assert task.mm is not None
    mmap.sys_brk(task.mm, first.start)
    g = Glibc(task, first.start)
    steps: list[MallocStep] = []
    a = b = c = d = 0

    def mark(label: str) -> None:
        resident = get_mm_counter(g.mm, MM_ANONPAGES) * 4
        steps.append(MallocStep(label, g.calls, g.faults, resident=resident))
        g.calls, g.faults = [], 0

    def take(n: int) -> None:
        for _ in range(n):
            g.small.append(g.malloc(24))
            g.write(g.small[-1])

    g.malloc(LIBRARY_USED - 8)
    mark("nothing yet")
    take(1)
    mark("malloc(24), the first")
    take(999)
    mark("malloc(24), 999 more")
    take(SMALLS - 1000)
    mark("malloc(24), 5000 more")
    a = g.malloc(200 << 10)
    mark("a = malloc(200 KiB)")
    for i in range(50):
        g.write(a + i * PG)
    mark("every page of a written")
    b = g.malloc(200 << 10)
    mark("b = malloc(200 KiB)")
    a = g.realloc(a, 400 << 10)
    mark("a = realloc(a, 400 KiB)")
    g.free(a)
    mark("free(a)")
    c = g.malloc(200 << 10)
    mark("c = malloc(200 KiB)")
    d = g.malloc(1 << 20)
    mark("d = calloc(1 MiB)")
    for label, p in (("free(d)", d), ("free(c)", c), ("free(b)", b)):
        g.free(p, 200 << 10)
        mark(label)
    mark("free of the 6000, last first")
    # The seven that were freed first stay in the cache of small blocks; the others are one free block.
    g.trim(g.small[0] - 16, g.small[SMALLS - 7] - 16)
    mark("malloc_trim(0)")
    return steps


def malloc_rows(steps: Sequence[MallocStep], faults_from: str = LATE) -> dict[str, tuple[Any, ...]]:  # fmt: skip
    """Return label -> its calls, and from @faults_from on the faults: before, the program's own array takes some."""
    rows: dict[str, tuple[Any, ...]] = {}
    late = False
    for step in steps:
        late = late or step.label == faults_from
        calls = tuple(step.calls) or ("no call",)
        if (
            step.label == "nothing yet"
        ):  # what the loader did before the allocator first ran is not its business
            calls = calls[-2:] if "mprotect" not in calls[-1] else calls[-3:-1]
        rows[step.label] = (*calls, f"{step.faults} faults") if late else calls
    return rows


def compare_library(capture: Capture) -> list[tuple[str, str, str]]:
    """Let the model of the allocator run the program; return (where, model, kernel) of all that is its work.

    From `LATE` on, faults and anonymous memory too: before, the program also writes to an array whose
    place in .bss is not recorded.
    """
    recorded, mine = recorded_malloc(capture), malloc_steps(capture)
    ours, theirs = malloc_rows(mine), malloc_rows(recorded)
    rows: list[tuple[str, str, str]] = []
    for label in dict.fromkeys([*theirs, *ours]):
        a, b = ours.get(label, ()), theirs.get(label, ())
        for i in range(max(len(a), len(b))):
            x, y = (str(row[i]) if i < len(row) else "(none)" for row in (a, b))
            rows.append((f"{label}: {i + 1}", x, y))
    grown = {s.label: s.resident - before.resident for before, s in pairwise(mine)}
    late = False
    for before, step in pairwise(recorded):
        late = late or step.label == LATE
        if late:
            kernel = f"{step.resident - before.resident:+} kB"
            rows.append((f"{step.label}: anonymous", f"{grown.get(step.label, 0):+} kB", kernel))
    return rows
