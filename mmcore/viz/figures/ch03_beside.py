"""What chapter 3 sets side by side: rows of the model and rows of a recording, under the same names.

The recorded programs (their sources are in the captures) map, touch, fork and fault at fixed addresses; the
functions called ``model_*`` take the same steps on the engine, those called ``kernel_*`` read the recording.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

from mmcore.arch.x86.fault import Fixup, GeneralProtection, SigBus, Translation, touch
from mmcore.errors import KernelBug
from mmcore.kernel.fork import TaskStruct, do_exit, kernel_clone, spawn, switch_to
from mmcore.machine import Machine
from mmcore.mm import madvise, mmap, rmap, shmem
from mmcore.mm.mm_types import pfn_to_page
from mmcore.mm.mprotect import do_mprotect
from mmcore.proc.capture import Capture
from mmcore.proc.task_mmu import (
    clear_refs_soft_dirty,
    pagemap_decode,
    pagemap_read,
    status_memory,
)

__all__ = [
    "kernel_faults",
    "kernel_opening",
    "kernel_pagemap",
    "kernel_sparse",
    "model_faults",
    "model_opening",
    "model_pagemap",
    "model_sparse",
]

PG = 4096
A = 0x2000_0000_0000
RW = mmap.PROT_READ | mmap.PROT_WRITE
ANON = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
Rows = dict[str, tuple[Any, ...]]


class _Program:
    """A recorded program on the engine: one task on a 1 GiB machine."""

    def __init__(self) -> None:
        self.m = Machine.boot("1G")
        self.task = spawn(self.m, "program")

    @property
    def mm(self) -> Any:
        return self.m.current.mm

    def map(
        self, addr: int, pages: int, prot: int = RW, flags: int = ANON, file: Any = None
    ) -> int:
        got = mmap.do_mmap(self.mm, file, addr, pages * PG, prot, flags | mmap.MAP_FIXED)
        if got != addr:
            raise KernelBug(f"mmap at {addr:#x} gave {got:#x}")
        return addr

    def touch(self, address: int, kind: str) -> None:
        if not isinstance(touch(self.m, address, kind), Translation):
            raise KernelBug(f"{kind} access to {address:#x} did not go through")

    def counters(self) -> tuple[int, int, int]:
        """Return (kB of tables, kB of anonymous pages, minor faults)."""
        s = status_memory(self.mm)
        return s["VmPTE"], s["RssAnon"], self.task.min_flt


def _minus(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x - y for x, y in zip(a, b, strict=True))


# ---- the opening: 1,024 pages, read and then written ---------------------------------------------


def model_opening() -> Rows:
    """Return (faults, kB resident, kB of tables) of reading and of writing 1,024 fresh pages."""
    p = _Program()
    p.touch(p.map(A, 8), "w")  # the program had mappings in this 512 GiB, so the PUD table is there
    w = p.map(0x2000_8000_0000, 1024)
    madvise.madvise(p.mm, w, 1024 * PG, madvise.MADV_NOHUGEPAGE)
    rows: Rows = {}
    for kind, label in (("r", "read 1024"), ("w", "write 1024")):
        tables, rss, faults = p.counters()
        for i in range(1024):
            p.touch(w + i * PG, kind)
        after = p.counters()
        rows[label] = (after[2] - faults, after[1] - rss, after[0] - tables)
    tables, rss, _ = p.counters()
    mmap.do_munmap(p.mm, w, 1024 * PG)
    after = p.counters()
    rows["unmapped"] = (0, after[1] - rss, after[0] - tables)
    return rows


def kernel_opening(capture: Capture) -> Rows:
    """Return the recording's side of `model_opening()`."""
    lines = capture["faults"].splitlines()
    size = {}
    for line in lines:
        if m := re.fullmatch(r"(.+): RssAnon=(\d+) .*VmPTE=(\d+)", line):
            size[m[1]] = int(m[2]), int(m[3])
    faults = {
        m[1]: int(m[2])
        for m in (re.fullmatch(r"(.+): minflt \+(\d+) majflt \+0", x) for x in lines)
        if m
    }
    rows: Rows = {}
    steps = ("before 1024", "read 1024", "write 1024", "unmapped")
    for before, now in itertools.pairwise(steps):
        rss, tables = _minus(size[now], size[before])
        rows[now] = (faults.get(now, 0), rss, tables)
    return rows


# ---- tables of a sparse mapping ------------------------------------------------------------------

_SPARSE: dict[str, list[int]] = {
    "one page": [0],
    "same table": [511],
    "next table": [512],
    "next pmd": [512 * 512],
    "64 more tables": [512 * 4 + i * 512 for i in range(64)],
}


def model_sparse() -> Rows:
    """Return (kB of tables, kB of pages, faults) since the mapping was made, step by step."""
    p = _Program()
    w = p.map(0x2000_8000_0000, 1 << 20, RW, ANON | mmap.MAP_NORESERVE)
    madvise.madvise(p.mm, w, PG << 20, madvise.MADV_NOHUGEPAGE)
    start = p.counters()
    rows: Rows = {}
    for label, pages in _SPARSE.items():
        for i in pages:
            p.touch(w + i * PG, "w")
        rows[label] = _minus(p.counters(), start)
    madvise.madvise(p.mm, w, PG << 20, madvise.MADV_DONTNEED)
    rows["DONTNEED keeps tables"] = _minus(p.counters(), start)
    mmap.do_munmap(p.mm, w, PG << 20)
    rows["unmapped"] = _minus(p.counters(), start)
    return rows


def kernel_sparse(capture: Capture) -> Rows:
    """Return the recording's side of `model_sparse()`."""
    seen: Rows = {}
    pattern = r"f\d (.+) status .*RssAnon=(\d+) .*VmPTE=(\d+) .*minflt=(\d+)"
    for line in capture["pgmap"].splitlines():
        if m := re.match(pattern, line):
            seen[m[1]] = (int(m[3]), int(m[2]), int(m[4]))
    start = seen.pop("mapped 4G")
    return {label: _minus(now, start) for label, now in seen.items()}


# ---- pagemap, page by page -----------------------------------------------------------------------

_LABELS = (
    "a0 untouched", "a1 read 0,1", "a2 write 2,3,4", "a3 write 0 after read", "b0 child after fork",
    "b1 parent after fork", "b2 parent wrote 2", "b2 child after parent wrote 2", "b3 child wrote 3",
    "b3 child wrote 2", "b3 parent", "b4 parent after child exit", "b5 parent wrote 4 (sole owner)",
    "b5 parent wrote 3", "c0 cleared", "c1 wrote 2,1 read 3", "d0 DONTNEED 2, FREE 3,4", "d1 wrote 3", "d2 NONE 0",
)  # fmt: skip


class _Frames:
    """Names for page frames, by the order in which they appear; a frame that was freed loses its name."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.given = 0

    def row(self, pfn: int | None, flags: str, count: int) -> tuple[str, str, int]:
        """Return a page's frame, flags and map count."""
        if pfn is None:
            return "-", flags, 0
        if pfn not in self.names:
            self.given += 1
            self.names[pfn] = f"frame {self.given}"
        return self.names[pfn], flags, count

    def after(self, label: str, rows: Rows) -> None:
        """When the child has ended, keep only the frames that the parent maps."""
        if label.startswith("b4"):
            kept = {row[0] for name, row in rows.items() if name.startswith(label)}
            self.names = {pfn: name for pfn, name in self.names.items() if name in kept}


def _model_page(p: _Program, address: int, frames: _Frames) -> tuple[str, str, int]:
    word = pagemap_read(p.mm, address)
    entry = pagemap_decode(word)
    if not entry.present:
        return frames.row(None, str(entry).partition(" ")[2] if word else "", 0)
    assert entry.pfn is not None
    zero = entry.pfn == p.m.zero_pfn
    count = 0 if zero else rmap.page_mapcount(pfn_to_page(p.m, entry.pfn))
    return frames.row(entry.pfn, str(entry).partition(" ")[2], count)


def model_pagemap(which: str = "") -> Rows:
    """Return (frame, flags, map count) of every page line of the steps whose label begins with @which.

    A frame is named by the order in which it first appears.
    """
    p = _Program()
    a = p.map(A, 8)
    rows: Rows = {}
    frames = _Frames()
    for label, act in _pagemap_steps(p, a):
        act()
        for i in range(8):
            rows[f"{label} {i}"] = _model_page(p, a + i * PG, frames)
        frames.after(label, rows)
    return {name: row for name, row in rows.items() if name.startswith(which)}


def _pagemap_steps(p: _Program, a: int) -> Iterable[tuple[str, Callable[[], object]]]:
    """Yield each label of the recording with what the program did before it printed it."""
    parent = p.task
    child: list[TaskStruct] = []

    def acts(kind: str, *pages: int, by: TaskStruct | None = None) -> Callable[[], object]:
        def act() -> None:
            switch_to(p.m, by or parent)
            for i in pages:
                p.touch(a + i * PG, kind)

        return act

    def fork() -> None:
        made = kernel_clone(parent)
        assert isinstance(made, TaskStruct)
        child.append(made)
        switch_to(p.m, made)

    def child_exits() -> None:
        switch_to(p.m, child[0])
        do_exit(child[0])
        switch_to(p.m, parent)

    def rewrite() -> None:
        for kind, i in (("w", 2), ("r", 3), ("w", 1)):
            p.touch(a + i * PG, kind)

    def give_up() -> None:
        madvise.madvise(p.mm, a + 2 * PG, PG, madvise.MADV_DONTNEED)
        madvise.madvise(p.mm, a + 3 * PG, 2 * PG, madvise.MADV_FREE)

    names = iter(_LABELS)
    yield next(names), acts("r")
    yield next(names), acts("r", 0, 1)
    yield next(names), acts("w", 2, 3, 4)
    yield next(names), acts("w", 0)
    yield next(names), fork
    yield next(names), acts("r")
    yield next(names), acts("w", 2)
    yield next(names), acts("w", by=child[0])
    yield next(names), acts("w", 3, by=child[0])
    yield next(names), acts("w", 2, by=child[0])
    yield next(names), acts("r")
    yield next(names), child_exits
    yield next(names), acts("w", 4)
    yield next(names), acts("w", 3)
    yield next(names), lambda: clear_refs_soft_dirty(p.mm)
    yield next(names), rewrite
    yield next(names), give_up
    yield next(names), acts("w", 3)
    yield next(names), lambda: do_mprotect(p.mm, a, PG, mmap.PROT_NONE)


def kernel_pagemap(capture: Capture, which: str = "") -> Rows:
    """Return the recording's side of `model_pagemap()`."""
    line_re = re.compile(r"(.+?) (\d+) (?:-|pfn=([0-9a-f]+)((?: [PFDXW])*) count=(\d+)(.*))")
    rows: Rows = {}
    frames = _Frames()
    for line in capture["pgmap"].splitlines():
        m = line_re.fullmatch(line)
        if m is None or m[1] not in _LABELS:
            continue
        flags = (m[4] or "").strip()
        pfn = int(m[3], 16) if m[3] and "P" in flags else None
        rows[f"{m[1]} {m[2]}"] = frames.row(pfn, flags, int(m[5] or 0))
        if m[2] == "7":
            frames.after(m[1], rows)
    return {name: row for name, row in rows.items() if name.startswith(which)}


# ---- error codes, signals and counters -----------------------------------------------------------

_FAULT_STEPS: dict[str, tuple[int, str]] = {
    "read 0": (A, "r"),
    "read 0 again": (A, "r"),
    "write 0": (A, "w"),
    "write 1": (A + PG, "w"),
    "read 1": (A + PG, "r"),
    "write to read-only 1": (A + PG, "w"),
    "read PROT_NONE 2": (A + 2 * PG, "r"),
    "read hole": (0x2000_4000_0000, "r"),
    "execute 0": (A, "x"),
    "execute 3, fresh": (A + 3 * PG, "x"),
    "read kernel": (0xFFFF_8880_0000_1000, "r"),
    "write kernel hole": (0xFFFF_8000_0000_1000, "w"),
    "read non-canonical": (0x8000_0000_0000, "r"),
    "read beyond EOF": (0x2000_5000_2000, "r"),
    "kernel write to 4": (A + 4 * PG, "w"),
}


def _ending(result: Any, minor: int, major: int) -> str:
    """Return how an access ended, as the recorded program prints it."""
    if isinstance(result, Translation):
        return f"minflt +{minor} majflt +{major}"
    if isinstance(result, Fixup):
        return f"errno {-result.error}"
    if isinstance(result, GeneralProtection):
        return "signal 11 si_code 128 error_code 0"
    signal = 7 if isinstance(result, SigBus) else 11
    return f"signal {signal} si_code {result.si_code} error_code {result.error_code:x}"


def model_faults() -> Rows:
    """Return (error codes of the faults in order, how it ended) of each scripted access."""
    p = _Program()
    p.map(A, 8)
    p.map(0x2000_5000_0000, 4, RW, mmap.MAP_SHARED, shmem.shmem_file_setup("memfd:m", 2 * PG))
    rows: Rows = {}
    for label, (address, kind) in _FAULT_STEPS.items():
        if label == "write to read-only 1":
            do_mprotect(p.mm, A + PG, PG, mmap.PROT_READ)
        elif label == "read PROT_NONE 2":
            do_mprotect(p.mm, A + 2 * PG, PG, mmap.PROT_NONE)
        minor, major = p.task.min_flt, p.task.maj_flt
        with p.m.trace.record("exceptions:*") as log:
            result = touch(p.m, address, kind, user=not label.startswith("kernel"))
        codes = " ".join(f"{e.fields['error_code']:#x}" for e in log) or "none"
        rows[label] = (codes, _ending(result, p.task.min_flt - minor, p.task.maj_flt - major))
    return rows


def kernel_faults(capture: Capture) -> Rows:
    """Return the recording's side of `model_faults()`."""
    codes: dict[str, list[str]] = {}
    step = ""
    for line in capture["trace"].splitlines():
        if mark := re.search(r"tracing_mark_write: (.*)", line):
            step = "" if mark[1] == "end" else mark[1]
            codes.setdefault(step, [])
        elif fault := re.search(r"page_fault_\w+: .* error_code=(0x[0-9a-f]+)", line):
            codes[step].append(fault[1])
    printed = dict(line.split(": ", 1) for line in capture["faults"].splitlines() if ": " in line)
    rows: Rows = {}
    for label in _FAULT_STEPS:
        ending = re.sub(r" si_addr [0-9a-f]+", "", printed[label])
        rows[label] = (" ".join(codes[label]) or "none", ending)
    return rows
