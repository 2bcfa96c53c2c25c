"""Figures of chapter 5 about promises, malloc's calls, and the recorded log of random calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from mmcore import boot
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import UsageError
from mmcore.kernel.fork import TaskStruct, kernel_clone, spawn, switch_to
from mmcore.machine import Machine
from mmcore.mm import mmap, util
from mmcore.mm.mm import OVERCOMMIT_ALWAYS, OVERCOMMIT_GUESS, OVERCOMMIT_NEVER
from mmcore.proc.capture import load
from mmcore.report import vmalog
from mmcore.report.malloclog import MallocStep, malloc_rows, malloc_steps, recorded_malloc
from mmcore.viz import svg
from mmcore.viz.explorable import Actions, Bool, Choice, Frame, Int, ParamError, explorable
from mmcore.viz.figures.ch05_bar import BASE, errno_text, plural, tag

__all__ = ["Promiser", "malloc", "overcommit", "vmaops"]

PG = PAGE_SIZE
RW = mmap.PROT_READ | mmap.PROT_WRITE
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
MIB = 1 << 20


def _plain(caption: str) -> str:
    return re.sub(r"[*`]", "", caption)


# ---- ch05.overcommit: promises -------------------------------------------------------------------

MODES = {"0": OVERCOMMIT_GUESS, "1": OVERCOMMIT_ALWAYS, "2": OVERCOMMIT_NEVER}


class Promiser:
    """A process on a machine of a given size, in one mode of overcommit; memory sizes in MiB."""

    def __init__(self, mode: str, ram: int, swap: int, ratio: int, admin: bool) -> None:
        m = Machine()
        boot.make_bare_zone(m, ram << 8, 0, "Normal", True)
        m.transparent_hugepage_enabled = "never"
        m.total_swap_pages = swap << 8
        self.task = spawn(m, "program")
        self.m = m
        self.task.cap_effective = util.CAP_FULL_SET if admin else 0
        mmap.init_reserves(m)
        m.paging.sysctl_overcommit_ratio = ratio
        util.set_overcommit_memory(m, MODES[mode])
        self.tasks: list[TaskStruct] = [self.task]
        self.next = BASE

    def map(self, mib: int, noreserve: bool = False) -> int:
        """Map @mib MiB of private writable memory: 0 or -errno."""
        mm = self.task.mm
        assert mm is not None
        flags = PRIVATE | mmap.MAP_FIXED | (mmap.MAP_NORESERVE if noreserve else 0)
        got = mmap.do_mmap(mm, None, self.next, mib << 20, RW, flags)
        # A page is left free, so that each request is a mapping of its own.
        self.next += (mib << 20) + PG
        return min(got, 0)

    def fork(self) -> int:
        """Fork: 0 or -errno."""
        switch_to(self.m, self.task)
        made = kernel_clone(self.task)
        if isinstance(made, int):
            return made
        self.tasks.append(made)
        return 0

    def committed(self) -> int:
        """Return the pages that are promised."""
        return util.vm_memory_committed(self.m)

    def limit(self) -> int:
        """Return what the sum must stay below in mode 2, for this process, in pages."""
        mm = self.task.mm
        assert mm is not None
        allowed = util.vm_commit_limit(self.m)
        sys = self.m.paging
        if not util.capable(mm, util.CAP_SYS_ADMIN):
            allowed -= sys.sysctl_admin_reserve_kbytes >> (PAGE_SHIFT - 10)
        return allowed - min(mm.total_vm // 32, sys.sysctl_user_reserve_kbytes >> (PAGE_SHIFT - 10))


def _promised(worlds: dict[str, Promiser], ram: int, swap: int, full: float) -> svg.Part:
    """Return one bar for each mode: what is promised, in MiB up to @full, and where mode 2 says no."""
    left, row = 64.0, 26.0
    width = svg.WIDTH - left

    def at(mib: float) -> float:
        return left + min(max(mib, 0), full) / full * width

    items = [tag(0, svg.SMALL, "promised (MiB), in each mode", ink="muted")]
    y = 20.0
    limit = worlds["2"].limit() * PG / MIB
    for mode, world in worlds.items():
        mib = world.committed() * PG / MIB
        end, label = at(mib), f"{mib:,.0f}"
        items.append(tag(0, y + 15, f"mode {mode}"))
        items.append(svg.rect(left, y, width, row - 6, "paper", stroke="faint"))
        bar = max(end - left, 0.01)
        items.append(svg.rect(left, y, bar, row - 6, "anon", stroke="ink", width=0.8))
        if bar > svg.text_width(label, svg.SMALL) + 10:
            items.append(tag(end - 5, y + 14, label, "end", on="anon"))
        else:
            items.append(tag(end + 5, y + 14, label))
        if mode == "2":
            items.append(svg.line(at(limit), y - 4, at(limit), y + row - 2, "wrong", width=2.5))
        y += row
    ends = [
        (at(ram), f"RAM {ram:,}", "muted"),
        (at(ram + swap), f"RAM + swap {ram + swap:,}", "muted"),
        (at(limit), f"limit of mode 2: {limit:,.0f}", "wrong"),
    ]
    for i, (x, words, ink) in enumerate(sorted(ends, reverse=True)):  # no leader crosses a label
        base = y + 12 + i * 16
        dash = "4 3" if ink == "muted" else None
        items.append(svg.line(x, 18 if dash else y - 4, x, base, ink, dash=dash, width=1.25))
        right = x + 5 + svg.text_width(words, svg.SMALL) <= svg.WIDTH
        items.append(tag(x + 5 if right else x - 5, base, words, "start" if right else "end", ink=ink))  # fmt: skip
    return svg.Part(items, 0, 0, svg.WIDTH, y + 16 * 3)


@explorable(
    "ch05.overcommit",
    title="Promises in three modes",
    key=("mmap 2", "fork 4"),
    help="mmap and noreserve in MiB; fork charges everything once more.",
    params=dict(
        script=Actions(
            "mmap 1000; mmap 1400; mmap 2000; fork; noreserve 6000; mmap 6000",
            verbs={"mmap": Int(1000, 1, 1 << 16), "noreserve": Int(1000, 1, 1 << 16), "fork": None},
        ),
        ram=Int(4096, 64, 16384, unit="MiB"),
        swap=Int(1024, 0, 16384, unit="MiB"),
        ratio=Int(50, 0, 200, unit="%", label="vm.overcommit_ratio"),
        admin=Bool(False, label="CAP_SYS_ADMIN"),
    ),
)  # fmt: skip
def overcommit(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the promises after each action, in all modes."""
    worlds = {mode: Promiser(mode, p.ram, p.swap, p.ratio, p.admin) for mode in MODES}
    asked = sum(args[0] for verb, *args in p.script if args)
    full = max(p.ram + p.swap, min(asked, 4 * (p.ram + p.swap))) * 1.05
    rows: list[list[Any]] = []

    def drawing() -> svg.Drawing:
        d = svg.Drawing()
        d.add(_promised(worlds, p.ram, p.swap, full))
        d.add(
            svg.table(["", "mode 0", "mode 1", "mode 2"], rows or [["", "", "", ""]],
                      lit={len(rows) - 1} if rows else set(), widths=[230, 110, 110, 110], y=d.bottom + 10)
        )  # fmt: skip
        return d

    text = f"**Nothing is promised.** The limit of mode 2 is {worlds['2'].limit() * PG // MIB:,} MiB for this process."
    yield Frame(drawing(), text, _plain(text), mark="start")
    for i, (verb, *args) in enumerate(p.script, 1):
        results = {}
        for mode, world in worlds.items():
            results[mode] = (
                world.fork() if verb == "fork" else world.map(args[0], verb == "noreserve")
            )
        call = (
            "fork()"
            if verb == "fork"
            else f"mmap({args[0]:,} MiB{', MAP_NORESERVE' if verb == 'noreserve' else ''})"
        )
        cells = [svg.Cell(errno_text(r) if r else "granted", bold=r < 0, ink="wrong" if r < 0 else "ink") for r in results.values()]  # fmt: skip
        rows.append([call, *cells])
        refused = [mode for mode, r in results.items() if r]
        who = f"refused in mode {' and '.join(refused)}" if refused else "granted in every mode"
        sums = ", ".join(f"{w.committed() * PG // MIB:,}" for w in worlds.values())
        text = f"**{call}: {who}.** Promised now, in modes 0, 1 and 2: {sums} MiB."
        data = {"results": results, "committed": {m: w.committed() for m, w in worlds.items()}, "limit": worlds["2"].limit()}  # fmt: skip
        yield Frame(drawing(), text, _plain(text), mark=f"{verb} {i}", data=data)


# ---- ch05.malloc: what an allocator asks for -----------------------------------------------------


def _malloc_drawing(
    recorded: Sequence[MallocStep], model: dict[str, tuple[Any, ...]], upto: int
) -> svg.Drawing:
    d = svg.Drawing()
    series = [
        svg.Series(
            "heap",
            [(i, s.heap) for i, s in enumerate(recorded[: upto + 1])],
            kind="anon",
            step=True,
        ),
        svg.Series(
            "mapped",
            [(i, s.others) for i, s in enumerate(recorded[: upto + 1])],
            kind="file",
            step=True,
        ),
        svg.Series(
            "resident",
            [(i, s.resident) for i, s in enumerate(recorded[: upto + 1])],
            kind="ink",
            step=True,
        ),
    ]
    top = max(max(s.heap, s.others, s.resident) for s in recorded)
    d.add(
        svg.lines(series, x_label="step of the program", y_label="KiB", y_top=float(top),
                  x_range=(0, 16), now=float(upto), height=200)
    )  # fmt: skip
    rows = []
    theirs = malloc_rows(recorded)
    for i in range(max(0, upto - 4), upto + 1):
        s = recorded[i]
        calls = "; ".join(str(c) for c in theirs[s.label] if "faults" not in str(c))
        same = theirs[s.label] == model.get(s.label)
        rows.append([str(i), s.label, calls, str(s.faults), "=" if same else "≠"])
    rows += [["", "", "", "", ""]] * (5 - len(rows))
    d.add(
        svg.table(["", "the program", "system calls", "faults", "model"], rows, lit={min(upto, 4)}, right={3},
                  widths=[34, 158, 258, 56, 54], y=d.bottom + 8)
    )  # fmt: skip
    return d


@explorable(
    "ch05.malloc",
    title="malloc's calls as they reach the kernel",
    key=("a = realloc(a, 400 KiB)", "malloc_trim(0)"),
    help="Step through the recorded program; the last column compares the model's calls with it.",
    params=dict(first=Int(0, 0, 15, label="begin at step")),
)
def malloc(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield one frame for each step of the recorded program."""
    try:
        capture = load("n1-1g/malloc")
    except UsageError as err:
        raise ParamError("first", "this copy of the engine has no recordings with it") from err
    recorded = recorded_malloc(capture)
    model = malloc_rows(malloc_steps(capture))
    theirs = malloc_rows(recorded)
    for i in range(p.first, len(recorded)):
        s = recorded[i]
        n = sum("faults" not in str(c) and c != "no call" for c in theirs[s.label])
        text = (
            f"**{s.label}: {plural(n, 'system call') if n else 'no system call'}, {plural(s.faults, 'fault')}.** "
            f"Mapped: {s.heap:,} KiB of heap, {s.others:,} KiB besides; resident {s.resident:,} KiB."
        )
        data = {"label": s.label, "calls": s.calls, "faults": s.faults, "heap": s.heap, "others": s.others,
                "resident": s.resident, "same": theirs[s.label] == model.get(s.label)}  # fmt: skip
        yield Frame(
            _malloc_drawing(recorded, model, i), text, _plain(text), mark=s.label, data=data
        )


# ---- ch05.vmaops: a recorded log of random calls -------------------------------------------------

LOG_SECTIONS = {
    "seed1": "a window of 1,024 pages",
    "seed2_dense": "a window of 192 pages, dense",
    "seed3_wide": "a window of 6,144 pages, wide",
}


def log_counts(section: str, most: int) -> dict[str, Any]:
    """Return the number of mappings after each recorded call, by the kernel and by the model, and what calls did."""
    records = vmalog.parse_log(load("n1-1g/vma")[section])
    run = vmalog.VmaReplay(records[0])
    memory = [line for r in records for line in r.get("add", ()) if "/memfd:" in line]
    if memory:
        run.fd.f_path = memory[0].partition("|")[0].split(" ", 5)[5]
    kernel, model, wrong = [len(records[0]["add"])], [run.mm.map_count], 0
    refused: dict[str, list[int]] = {}
    with run.m.trace.record("model:vma_merge", "model:vma_split") as log:
        for record in records[1:]:
            if "op" not in record:
                continue
            if len(kernel) > most:
                break
            kernel.append(kernel[-1] + len(record["add"]) - len(record["del"]))
            wrong += sum(a != b for _, a, b in run.step(record))
            model.append(run.mm.map_count)
            counts = refused.setdefault(record["op"], [0, 0])
            counts[0] += 1
            counts[1] += record["r"] < 0
    merged = {"both": 0, "left": 0, "right": 0, "none": 0}
    splits = 0
    for event in log:
        if "merged" in event.fields:
            merged[event.fields["merged"]] += 1
        else:
            splits += 1
    return {
        "kernel": kernel,
        "model": model,
        "wrong": wrong,
        "ops": refused,
        "merged": merged,
        "splits": splits,
    }


@explorable(
    "ch05.vmaops",
    title="A recorded log of random calls",
    key=("end",),
    help="Choose another recorded sequence; more calls take longer.",
    params=dict(
        section=Choice("seed1", LOG_SECTIONS, label="recorded sequence"),
        calls=Int(600, 50, 1500, step=50),
    ),
)
def vmaops(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the number of mappings after each call, model and kernel."""
    try:
        c = log_counts(p.section, p.calls)
    except UsageError as err:
        raise ParamError("section", "this copy of the engine has no recordings with it") from err
    n = len(c["kernel"]) - 1
    series = [
        svg.Series("Linux 6.12", list(enumerate(c["kernel"])), kind="accent", step=True),
        svg.Series("model", list(enumerate(c["model"])), kind="ink", step=True, dash="5 4"),
    ]
    d = svg.Drawing()
    d.add(svg.lines(series, x_label="calls", y_label="mappings", height=220))
    rows = [
        [op, str(total), str(bad)]
        for op, (total, bad) in sorted(c["ops"].items(), key=lambda x: -x[1][0])
    ]
    half = -(-len(rows) // 2)
    d.add(
        svg.table(
            ["call", "made", "refused"],
            rows[:half],
            right={1, 2},
            widths=[120, 70, 80],
            width=270,
            y=d.bottom + 8,
        )
    )
    y = d.bottom - 21 * (half + 1)
    d.add(
        svg.table(
            ["call", "made", "refused"],
            rows[half:],
            right={1, 2},
            widths=[120, 70, 80],
            width=270,
            x=290,
            y=y,
        )
    )
    merges = c["merged"]
    done = merges["both"] + merges["left"] + merges["right"]
    text = (
        f"**{n:,} calls: {done:,} merges, {c['splits']:,} splits, and {'no difference' if not c['wrong'] else plural(c['wrong'], 'difference')} "
        f"between model and kernel.** {merges['left']:,} merges with the previous mapping, {merges['right']:,} with the next, {merges['both']:,} with both."
    )
    alt = f"The number of mappings rises and falls between {min(c['kernel'])} and {max(c['kernel'])}; the two lines are one. {_plain(text)}"
    yield Frame(d, text, alt, mark="end", data=c)
