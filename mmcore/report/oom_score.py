"""Recompute ``/proc/PID/oom_score`` of a live machine, and say whom the OOM killer would choose.

`read_proc()` reads what the score is made of, `table()` puts it beside what the kernel shows, `lines()`
writes it out. The kernel reads counters of memory without what CPUs keep to themselves, and ``status``
sums them exactly; so a score may differ by a point or two on a machine with little memory. `slack()` is
the bound.

Linux 5.9 and later show ``(1000 + points * 1000 / total) * 2 / 3``, so that an idle process has 666;
older ones ``points * 1000 / total``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcore.errors import UsageError
from mmcore.mm.oom_kill import (
    LONG_MIN,
    OOM_SCORE_ADJ_MAX,
    OOM_SCORE_ADJ_MIN,
    OomMm,
    OomSystem,
    OomTask,
    oom_badness,
    proc_oom_score,
)
from mmcore.report.oom_report import kib

__all__ = ["Process", "Row", "System", "lines", "read_proc", "slack", "table", "to_dict"]

#: More processes than this are not read.
MAX_PROCESSES = 100_000


@dataclass(slots=True)
class Process:
    """What a score is made of; pages, but for @pgtables_bytes.

    :ivar oom_score: what the kernel shows
    :ivar mm: it has memory of its own: kernel threads and zombies have none
    """

    pid: int
    comm: str
    oom_score: int
    oom_score_adj: int
    rss: int = 0
    swapents: int = 0
    pgtables_bytes: int = 0
    mm: bool = True


@dataclass(slots=True)
class System:
    """The machine: pages, CPUs, and the numbers of its kernel's release."""

    totalpages: int
    cpus: int
    release: tuple[int, int]
    page_kb: int
    processes: list[Process]


@dataclass(slots=True)
class Row:
    """A process with its score recomputed.

    :ivar points: None if it must not be killed
    :ivar score: recomputed
    :ivar verdict: ``equal``, ``counters`` (within what CPUs may keep), or ``differs``
    """

    process: Process
    points: int | None
    score: int
    verdict: str


def _field(text: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s*(\d{{1,18}})", text, re.MULTILINE)
    return int(found[1]) if found else None


def _process(path: Path, page_kb: int) -> Process | None:
    """Read a process; None if it is gone or may not be read."""
    try:
        status = (path / "status").read_text(errors="replace")
        score = int((path / "oom_score").read_text())
        adj = int((path / "oom_score_adj").read_text())
    except (OSError, ValueError):
        return None
    name = re.search(r"^Name:\s*(.*)$", status, re.MULTILINE)
    rss = _field(status, "VmRSS")
    one = Process(int(path.name), name[1] if name else "?", score, adj, mm=rss is not None)
    one.rss = (rss or 0) // page_kb
    one.swapents = (_field(status, "VmSwap") or 0) // page_kb
    one.pgtables_bytes = (_field(status, "VmPTE") or 0) << 10
    return one


def read_proc(proc: str = "/proc") -> System:
    """Read the machine's processes and totals.

    :param proc: where procfs is, or a copy of its files
    :raises UsageError: if there is no procfs of Linux there
    """
    root = Path(proc)
    try:
        meminfo = (root / "meminfo").read_text()
    except OSError as err:
        raise UsageError(f"{proc} is not the procfs of Linux: {err.strerror}") from err
    page_kb = os.sysconf("SC_PAGE_SIZE") >> 10 if hasattr(os, "sysconf") else 4
    total = (_field(meminfo, "MemTotal") or 0) + (_field(meminfo, "SwapTotal") or 0)
    if not total:
        raise UsageError(f"{proc}/meminfo has no MemTotal")
    try:
        release = (root / "sys/kernel/osrelease").read_text()
    except OSError:
        release = ""
    version = re.match(r"(\d{1,2})\.(\d{1,3})", release)
    numbers = (int(version[1]), int(version[2])) if version else (6, 12)
    paths = [path for path in root.iterdir() if path.name.isdecimal()]
    paths.sort(key=lambda path: int(path.name))
    found = [_process(path, page_kb) for path in paths[:MAX_PROCESSES]]
    return System(
        total // page_kb, os.cpu_count() or 1, numbers, page_kb, [p for p in found if p is not None]
    )


def slack(system: System) -> int:
    """Return by how many pages the kernel's four counters of a process may be off.

    Each CPU keeps up to ``max(32, 2 * CPUs)`` pages of a counter to itself.
    """
    return 4 * (max(32, 2 * system.cpus) - 1) * system.cpus


def _score(system: System, task: OomTask, points: int) -> int:
    if points == LONG_MIN:
        return 0
    if system.release >= (5, 9):
        machine = OomSystem(system.totalpages)
        return proc_oom_score(machine, task)
    return max(points, 1) * 1000 // system.totalpages


def _task(one: Process, adj: int) -> OomTask:
    mm = OomMm(rss_anon=one.rss, swapents=one.swapents, pgtables_bytes=one.pgtables_bytes)
    return OomTask(one.pid, one.comm, mm if one.mm else None, adj)


def _row(system: System, one: Process, adj: int) -> Row:
    task = _task(one, adj)
    points = oom_badness(task, system.totalpages)
    score = _score(system, task, points)
    if adj != one.oom_score_adj:
        verdict = "asked"
    elif score == one.oom_score:
        verdict = "equal"
    else:
        low, high = (_process_score(system, one, sign * slack(system)) for sign in (-1, 1))
        verdict = "counters" if low <= one.oom_score <= high else "differs"
    return Row(one, None if points == LONG_MIN else points, score, verdict)


def _process_score(system: System, one: Process, more: int) -> int:
    """Return the score with the counters off by @more pages."""
    task = _task(one, one.oom_score_adj)
    if task.mm is not None:
        task.mm.rss_anon = max(task.mm.rss_anon + more, 0)
    return _score(system, task, oom_badness(task, system.totalpages))


def table(system: System, adjust: dict[int, int] | None = None) -> list[Row]:
    """Return all processes, the likeliest victim first; of equals the later, as the kernel keeps it.

    :param adjust: oom_score_adj to assume, by pid
    :raises UsageError: for a pid that is not there, or an adjustment beyond -1000 to 1000
    """
    adjust = adjust or {}
    pids = {one.pid for one in system.processes}
    for pid, adj in adjust.items():
        if pid not in pids:
            raise UsageError(f"there is no process {pid}")
        if not OOM_SCORE_ADJ_MIN <= adj <= OOM_SCORE_ADJ_MAX:
            raise UsageError(f"oom_score_adj {adj}; it lies between -1000 and 1000")
    rows = [_row(system, p, adjust.get(p.pid, p.oom_score_adj)) for p in system.processes]
    later = system.release >= (5, 9)

    def key(row: Row) -> tuple[bool, int, int]:
        points = row.points if row.points is not None else 0
        return (row.points is None, -points, -row.process.pid if later else row.process.pid)

    rows.sort(key=key)
    return rows


def _shown(row: Row, page_kb: int) -> list[str]:
    one = row.process
    said = {"equal": "equal", "counters": "within the counters' error", "asked": "assumed"}
    return [
        one.comm,
        str(one.pid),
        str(row.points) if row.points is not None else "never",
        str(row.score),
        str(one.oom_score),
        kib(one.rss * page_kb),
        kib(one.swapents * page_kb),
        kib(one.pgtables_bytes >> 10),
        str(one.oom_score_adj),
        said.get(row.verdict, "differs"),
    ]


def lines(system: System, rows: list[Row], top: int = 15) -> list[str]:
    """Write the ranking out, the answer first; @top processes of it, and all that differ."""
    may = [row for row in rows if row.points is not None and row.process.pid != 1]
    if not may:
        return ["No process may be killed."]
    first = may[0]
    out = [
        f"If memory ran out now, {first.process.comm} (pid {first.process.pid}) would be killed: "
        f"{first.points} points of {system.totalpages} pages of RAM and swap."
    ]
    compared = [row for row in rows if row.process.mm and row.verdict != "asked"]
    compared = [row for row in compared if row.process.pid != 1]
    equal = sum(1 for row in compared if row.verdict == "equal")
    near = sum(1 for row in compared if row.verdict == "counters")
    out.append(
        f"  oom_score recomputed: {equal} of {len(compared)} equal, {near} within what CPUs keep of the "
        f"counters ({slack(system)} pages a process at most)."
    )
    head = ["process", "pid", "points", "score", "kernel's", "rss", "swap", "tables", "adj", ""]
    shown = may[:top] + [row for row in may[top:] if row.verdict == "differs"][:50]
    cells = [head, *(_shown(row, system.page_kb) for row in shown)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        parts = [row[0].ljust(widths[0])]
        parts += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1])]
        out.append("    " + "   ".join([*parts, row[-1]]).rstrip())
    unit = system.totalpages // 1000
    out.append(f"  one unit of oom_score_adj is {unit} pages, {kib(unit * system.page_kb)}")
    if any(row.verdict == "differs" for row in shown):
        out.append(
            "  A process that differs was changing while it was read, waits in vfork(), or was killed and "
            "reaped already; those the kernel shows as 0."
        )
    return out


def to_dict(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the ranking as data."""
    return [
        {
            "pid": row.process.pid,
            "comm": row.process.comm,
            "points": row.points,
            "oom_score_computed": row.score,
            "oom_score": row.process.oom_score,
            "oom_score_adj": row.process.oom_score_adj,
            "rss_pages": row.process.rss,
            "swap_entries": row.process.swapents,
            "pgtables_bytes": row.process.pgtables_bytes,
            "verdict": row.verdict,
        }
        for row in rows
        if row.process.mm
    ]
