"""The explorables of chapter 10, memory cgroups: charging, stocks, protection, throttling, removal, a record.

Every frame is drawn from the engine's state at that moment, or from a recording; nothing here decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from mmcore.errors import ENOMEM, KernelBug
from mmcore.kernel.cgroup import cgroup as cg
from mmcore.kernel.fork import spawn
from mmcore.machine import Machine
from mmcore.mm import memcontrol as mc
from mmcore.mm.gfp import (
    __GFP_NOFAIL,
    __GFP_NORETRY,
    __GFP_RETRY_MAYFAIL,
    GFP_ATOMIC,
    GFP_KERNEL,
    GFP_NOWAIT,
)
from mmcore.mm.page_counter import page_counter_charge
from mmcore.proc.capture import load
from mmcore.report import cgrouplog
from mmcore.viz import svg
from mmcore.viz.explorable import Actions, Bool, Choice, Frame, Int, ParamError, explorable

__all__ = ["charge", "children_of", "dying", "group", "machine", "protection", "record", "stock", "throttle"]  # fmt: skip

GIB = 1 << 18


def _plain(caption: str) -> str:
    return re.sub(r"[*`]", "", caption)


def machine(cpus: int = 1, options: str = "") -> tuple[Machine, cg.Cgroup]:
    """Return a machine with memory cgroups, a task, and the top group, which passes the controller on."""
    m = Machine.boot("64M", cpus=cpus)
    mc.mem_cgroup_init(m, options)
    spawn(m, "task")
    if m.cgrp_dfl_root is None:
        raise KernelBug("no hierarchy")
    top = m.cgrp_dfl_root.cgrp
    cg.cgroup_subtree_control_write(top, "+memory")
    return m, top


def group(parent: cg.Cgroup, name: str) -> mc.MemCgroup:
    """Make a group below @parent."""
    cg.cgroup_subtree_control_write(parent, "+memory")
    made = cg.cgroup_mkdir(parent, name)
    if isinstance(made, int):
        raise KernelBug(f"mkdir {name}: {made}")
    return mc.memcg_of(made)


# ---- ch10.charge: the ladder ---------------------------------------------------------------------

MASKS = {
    "GFP_KERNEL": GFP_KERNEL,
    "GFP_NOWAIT": GFP_NOWAIT,
    "GFP_ATOMIC": GFP_ATOMIC,
    "__GFP_NORETRY": GFP_KERNEL | __GFP_NORETRY,
    "__GFP_RETRY_MAYFAIL": GFP_KERNEL | __GFP_RETRY_MAYFAIL,
    "__GFP_NOFAIL": GFP_KERNEL | __GFP_NOFAIL,
}
_NODES = (
    svg.Node("stock", "this CPU's stock", 0, 0, "choice"),
    svg.Node("charge", "charge a batch", 1, 0, "choice"),
    svg.Node("over_limit", "over the limit", 2, 0),
    svg.Node("reclaim", "event max, reclaim", 2, 1),
    svg.Node("drain", "drain all stocks", 1, 2),
    svg.Node("oom", "OOM killer", 2, 2),
    svg.Node("done", "charged", 0, 1, "end"),
    svg.Node("force", "charged, over the limit", 1, 3, "end"),
    svg.Node("nomem", "-ENOMEM", 2, 3, "end"),
)
_EDGES = (
    svg.Edge("stock", "charge", "too few"),
    svg.Edge("charge", "over_limit", "no"),
    svg.Edge("over_limit", "reclaim"),
    svg.Edge("reclaim", "drain", "once"),
    svg.Edge("drain", "charge"),
    svg.Edge("reclaim", "oom", "no retries left"),
    svg.Edge("oom", "nomem"),
    svg.Edge("oom", "force"),
    svg.Edge("over_limit", "nomem", side="right"),
    svg.Edge("stock", "done"),
    svg.Edge("charge", "done"),
)
_SAYS = {
    "stock": "The pages come from what this CPU keeps.",
    "charge": "A batch fits below every limit; the CPU keeps the rest.",
    "over_limit": "The charge does not fit; what was added is taken back.",
    "reclaim": "The event `max` is counted, and reclaim is asked for the pages.",
    "drain": "All CPUs give back what they keep for this group, once in each charge.",
    "oom": "Reclaim got nothing, and no attempt is left: the OOM killer is asked.",
    "force": "The charge is made although it exceeds the limit.",
    "nomem": "The charge is refused.",
    "over_high": "The group is over `memory.high`: the task has a debt to pay on its way back to user space.",
}


class Ladder:
    """A group that is full, and what reclaim, other CPUs and the OOM killer can do about it.

    :ivar left: pages that reclaim can still get
    """

    def __init__(self, p: SimpleNamespace) -> None:
        self.m, top = machine(cpus=2)
        self.g = g = group(top, "g")
        mc.memory_max_write(g, str(p.limit * 4096))
        self.left, self.kills = p.reclaimable, 1 if p.killable else 0
        self.m.this_cpu = 1
        if p.kept:
            mc.try_charge_memcg(g, GFP_KERNEL, 1)
            mc.refill_stock(g, 0)
            spare = self.m.memcg.memcg_stock[1].nr_pages - p.kept
            if spare > 0:
                mc.consume_stock(g, spare)
        self.m.this_cpu = 0
        while g.memory.usage < g.memory.max:
            page_counter_charge(g.memory, 1)
        self.m.memcg.hooks.try_to_free_mem_cgroup_pages = self._reclaim
        self.m.hooks.out_of_memory = self._kill

    def _reclaim(self, memcg: mc.MemCgroup, nr: int, *args: Any) -> int:
        got: int = min(self.left, max(nr, 32))
        self.left -= got
        if got:
            mc.mem_cgroup_cancel_charge(memcg, got)
        return got

    def _kill(self, m: Machine, oc: Any) -> bool:
        if not self.kills:
            return False
        self.kills -= 1
        mc.mem_cgroup_cancel_charge(oc.memcg, min(64, oc.memcg.memory.usage))
        return True


@explorable(
    "ch10.charge",
    title="What happens to a charge that does not fit",
    key=("start", "end"),
    params={
        "gfp": Choice("GFP_KERNEL", tuple(MASKS), help="how much the caller lets the kernel do"),
        "pages": Int(1, 1, 512, help="how many are charged at once", unit="pages"),
        "limit": Int(128, 64, 1024, help="memory.max of the group, which is full", unit="pages"),
        "kept": Int(0, 0, 63, help="pages that the other CPU keeps for the group", unit="pages"),
        "reclaimable": Int(0, 0, 1024, help="pages that reclaim can get", unit="pages"),
        "killable": Bool(False, help="there is a process that the OOM killer can kill"),
    },
)
def charge(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the steps of one charge; attempts that are alike are one frame."""
    ladder = Ladder(p)
    g, m = ladder.g, ladder.m

    def frame(text: str, path: list[str], mark: str, event: Any = None) -> Frame:
        d = svg.Drawing()
        now = path[-1] if path else ""
        known = {n.id for n in _NODES}
        lit = [n for n in path if n in known]
        d.add(svg.flow(_NODES, _EDGES, margin=16, lit=lit, now=now if now in known else ""))
        top = max(p.limit, g.memory.usage) * 1.1
        d.add(svg.gauge(usage, [("memory.max", p.limit)], top=top, level_label="charged", y=d.bottom + 14))  # fmt: skip
        data = {"usage": usage, "max": p.limit, "events": list(g.memory_events)}
        return Frame(d, text, _plain(text), mark=mark, event=event, data=data)

    usage = g.memory.usage
    yield frame(f"**A group at its limit: {usage} of {p.limit} pages.** A task asks for {p.pages} more with `{p.gfp}`.", [], "start")  # fmt: skip
    with m.trace.record("model:memcg_charge") as log:
        result = mc.try_charge_memcg(g, MASKS[p.gfp], p.pages)
    steps = [e for e in log if e.fields["step"] in _SAYS]
    usage = g.memory.usage
    path: list[str] = []
    previous: tuple[str, ...] = ()
    skipped = rounds = 0
    for i, event in enumerate(steps):
        step = event.fields["step"]
        rounds += step == "reclaim"
        if step in ("reclaim", "over_limit") and rounds > 3 and i < len(steps) - 3:
            skipped += 1
            continue
        path = [*path[-3:], step]
        more = ""
        if step == "reclaim":
            more = f" Attempt {rounds}: {event.fields['value']} pages."
        if skipped:
            more += f" ({skipped} steps like these are left out.)"
            skipped = 0
        last = i == len(steps) - 1
        text = f"**{_SAYS[step]}**{more}"
        if last:
            verdict = "refused" if result == -ENOMEM else "granted"
            text += f" The charge was {verdict} after {rounds} calls of reclaim and {g.memory_events[mc.MEMCG_OOM]} of the OOM killer; {usage} pages are charged."  # fmt: skip
        yield frame(text, path, "end" if last else f"step {i}", event)
        previous = (step,)
    if not previous:
        raise ParamError("pages", "nothing was charged")


# ---- ch10.stock: what CPUs keep ------------------------------------------------------------------


@explorable(
    "ch10.stock",
    title="Pages that CPUs keep for groups",
    key=("start", "end"),
    params={
        "script": Actions(
            "a 1; a 63; cpu 1; a 1; b 1; cpu 0; b 10; free 40; drain",
            verbs={
                "a": Int(1, 1, 200, help="pages charged to group a, one by one"),
                "b": Int(1, 1, 200, help="pages charged to group b, one by one"),
                "cpu": Int(0, 0, 1, help="the CPU that runs from now on"),
                "free": Int(1, 1, 200, help="pages of a that are freed"),
                "drain": None,
            },
            help="a and b charge, cpu changes the processor, free uncharges from a, drain empties the stocks",
        )
    },
)
def stock(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield usage and stocks after each action."""
    m, top = machine(cpus=2)
    groups = {"a": group(top, "a"), "b": group(top, "b")}
    used = {"a": 0, "b": 0}

    def frame(text: str, mark: str) -> Frame:
        d = svg.Drawing()
        rows = []
        for name, g in groups.items():
            kept = [s.nr_pages if s.cached is g else 0 for s in m.memcg.memcg_stock]
            rows.append([name, used[name], *kept, g.memory.usage])
            if used[name] + kept[0] + kept[1] != g.memory.usage:
                raise KernelBug(f"{g!r} does not add up")
        d.add(svg.table(["group", "used by its tasks", "kept by CPU 0", "kept by CPU 1", "memory.current (pages)"], rows, right={1, 2, 3, 4}))  # fmt: skip
        full = max(64, *(g.memory.usage for g in groups.values())) * 1.15
        for name, g in groups.items():
            d.add(svg.gauge(used[name], [("memory.current", g.memory.usage)], top=full, level_label=f"{name}: used", y=d.bottom + 12))  # fmt: skip
        return Frame(d, text, _plain(text), mark=mark, data=rows)

    yield frame("**Nothing is charged.** Each CPU can keep up to 64 pages, for one group at a time.", "start")  # fmt: skip
    for i, (verb, *args) in enumerate(p.script, 1):
        n = args[0] if args else 0
        if verb in groups:
            g = groups[verb]
            before = g.memory.usage
            for _ in range(n):
                mc.try_charge_memcg(g, GFP_KERNEL, 1)
            used[verb] += n
            text = f"**CPU {m.this_cpu} charges {n} to {verb}: its counter grows by {g.memory.usage - before}.**"  # fmt: skip
        elif verb == "cpu":
            m.this_cpu = n
            text = f"**Now CPU {n} runs.** Its stock is its own."
        elif verb == "free":
            if n > used["a"]:
                raise ParamError("script", f"free {n}: only {used['a']} pages of a are in use")
            mc.mem_cgroup_cancel_charge(groups["a"], n)
            used["a"] -= n
            text = f"**{n} pages of a are freed:** its counter falls at once. User pages do not go back into the stock."  # fmt: skip
        else:
            mc.drain_all_stock(mc.root_mem_cgroup(m))
            text = "**The stocks are drained:** what is charged is now what is used."
        yield frame(text, "end" if i == len(p.script) else f"{verb} {i}")


# ---- ch10.protection: shares ---------------------------------------------------------------------


def children_of(low: int, children: list[tuple[int, int]], recursive: bool) -> tuple[mc.MemCgroup, list[mc.MemCgroup]]:  # fmt: skip
    """Return a parent with memory.low @low and its children with (usage, low), protection calculated; in pages."""
    m, top = machine(options="memory_recursiveprot" if recursive else "")
    parent = group(top, "parent")
    out = []
    mc.memory_low_write(parent, str(low * 4096))
    for i, (usage, setting) in enumerate(children):
        child = group(parent.css.cgroup, "abcdefgh"[i])
        page_counter_charge(child.memory, usage)
        mc.memory_low_write(child, str(setting * 4096))
        out.append(child)
    for memcg in (parent, *out):
        mc.mem_cgroup_calculate_protection(m, None, memcg)
    return parent, out


def _gib(pages: int) -> str:
    return f"{pages / GIB:.2f}"


@explorable(
    "ch10.protection",
    title="How memory.low is divided among siblings",
    key=("without", "with"),
    params={
        "parent": Int(10, 0, 64, help="memory.low of the parent", unit="GiB"),
        "a_usage": Int(8, 0, 64, unit="GiB"),
        "a_low": Int(2, 0, 64, unit="GiB"),
        "b_usage": Int(4, 0, 64, unit="GiB"),
        "b_low": Int(2, 0, 64, unit="GiB"),
        "c_usage": Int(4, 0, 64, unit="GiB"),
        "c_low": Int(0, 0, 64, unit="GiB"),
    },
)
def protection(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield effective protection without and with memory_recursiveprot."""
    sizes = [(p.a_usage, p.a_low), (p.b_usage, p.b_low), (p.c_usage, p.c_low)]
    children = [(u * GIB, s * GIB) for u, s in sizes]
    claimed = sum(min(u, s) for u, s in sizes)
    for recursive in (False, True):
        parent, got = children_of(p.parent * GIB, children, recursive)
        d = svg.Drawing()
        rows = [[f"child {c.css.cgroup.name}", u, s, min(u, s), _gib(c.memory.elow if u else 0)] for c, (u, s) in zip(got, sizes, strict=True)]  # fmt: skip
        total = sum(u for u, _ in sizes)
        head = ["parent", total, p.parent, min(total, p.parent), _gib(parent.memory.elow if total else 0)]  # fmt: skip
        d.add(svg.table(["group", "usage", "memory.low", "claimed", "effective (GiB)"], [head, *rows], right={1, 2, 3, 4}))  # fmt: skip
        full = max(1, *(max(u, s) for u, s in sizes)) * 1.1
        for c, (u, s) in zip(got, sizes, strict=True):
            elow = c.memory.elow / GIB if u else 0.0
            d.add(svg.gauge(u, [("low", s), ("effective", round(elow, 2))], top=full, unit="GiB", level_label=f"{c.css.cgroup.name}: usage", y=d.bottom + 12))  # fmt: skip
        how = "With" if recursive else "Without"
        over = claimed > p.parent
        shares = ", ".join(_gib(c.memory.elow if u else 0) for c, (u, _) in zip(got, sizes, strict=True))  # fmt: skip
        why = (
            f"they claim {claimed} GiB of {p.parent}, so each gets its part of it"
            if over
            else f"they claim {claimed} GiB of {p.parent}"
            + ("; what is left goes by unprotected usage" if recursive else "; nobody gets more")
        )
        text = (
            f"**{how} `memory_recursiveprot` the children are protected by {shares} GiB:** {why}."
        )
        data = [c.memory.elow for c in got]
        yield Frame(d, text, _plain(text), mark="with" if recursive else "without", data=data)


# ---- ch10.throttle: the wait above high ----------------------------------------------------------


@explorable(
    "ch10.throttle",
    title="How long a task waits above memory.high",
    key=("curve",),
    params={
        "high": Int(100, 1, 4096, help="memory.high", unit="MiB"),
        "pages": Int(64, 1, 512, help="charged since the last return to user space", unit="pages"),
        "hz": Choice("250", ("100", "250", "300", "1000"), help="the kernel's HZ"),
        "percent": Int(105, 100, 200, help="usage as a part of memory.high", unit="%"),
    },
)
def throttle(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the curve, with one usage on it."""
    hz, high = int(p.hz), p.high << 8

    def wait(per_mille: int) -> int:
        overage = mc.calculate_overage(high * per_mille // 1000, high)
        return min(mc.calculate_high_delay(hz, p.pages, overage), 2 * hz)

    points = [(n / 10, wait(n) * 1000 / hz) for n in range(1000, 1201, 2)]
    here = wait(p.percent * 10)
    d = svg.Drawing()
    d.add(
        svg.lines([svg.Series("wait", points, "ink", step=True)], x_label="usage, % of memory.high", y_label="wait (ms)",
                  rules=[("no sleep below", 10.0), ("2 s at most", 2000.0)], now=min(float(p.percent), 120.0), height=240)
    )  # fmt: skip
    rows = [[f"{n} %", f"{mc.calculate_overage(high * n // 100, high):,}", wait(n * 10), f"{wait(n * 10) * 1000 // hz:,}"] for n in (101, 102, 105, 110, 117, 118)]  # fmt: skip
    d.add(svg.table(["usage", "overage (of 1,048,576)", "jiffies", "ms"], rows, right={1, 2, 3}, y=d.bottom + 10))  # fmt: skip
    slept = (
        f"{here * 1000 // hz:,} ms"
        if here > hz // 100
        else "not at all (no more than a hundredth of a second is due)"
    )
    text = f"**At {p.percent} % a task that charged {p.pages} pages waits {slept}.** The wait grows with the square of the excess and ends at two seconds."  # fmt: skip
    yield Frame(d, text, _plain(text), mark="curve", data={"jiffies": here, "points": points})


# ---- ch10.dying: what outlives rmdir -------------------------------------------------------------


@explorable(
    "ch10.dying",
    title="A group that was removed and is still there",
    key=("removed", "end"),
    params={
        "cached": Int(300, 0, 2000, help="page cache that the group has read", unit="pages"),
        "anon": Int(200, 0, 2000, help="memory of its process", unit="pages"),
    },
)
def dying(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the life of a group: used, its process gone, removed, its cache reclaimed."""
    m, top = machine()
    g = group(top, "job")
    if m.current is None:
        raise KernelBug("nobody runs")
    cg.cgroup_attach_task(g.css.cgroup, m.current)
    for _ in range(p.cached + p.anon):
        mc.try_charge_memcg(g, GFP_KERNEL, 1)
        cg.css_get(g.css)  # each charged folio holds its group

    def frame(text: str, mark: str) -> Frame:
        d = svg.Drawing()
        state = "a directory" if not cg.cgroup_is_dead(g.css.cgroup) else "dying" if g.css.refcnt else "freed"  # fmt: skip
        rows = [["job", state, g.memory.usage, g.css.refcnt, mc.mem_cgroup_id(g) or "-", top.nr_dying_descendants]]  # fmt: skip
        d.add(svg.table(["group", "is", "charged pages", "references", "id", "nr_dying_descendants above"], rows, right={2, 3, 4, 5}))  # fmt: skip
        d.add(svg.gauge(g.memory.usage, [], top=max(1, p.cached + p.anon + 64), level_label="charged", y=d.bottom + 12))  # fmt: skip
        return Frame(d, text, _plain(text), mark=mark, data=rows)

    yield frame(f"**A job has used {p.anon} anonymous pages and read {p.cached} of a file.** Both are charged to it, and its CPU keeps the rest of a batch.", "start")  # fmt: skip
    mc.mem_cgroup_cancel_charge(g, p.anon)
    cg.css_put_many(g.css, p.anon)
    cg.cgroup_attach_task(top, m.current)
    yield frame("**The process is gone, and the page cache stays charged.** Nobody in the group uses it; that does not matter.", "exited")  # fmt: skip
    result = cg.cgroup_rmdir(g.css.cgroup)
    if result:
        raise KernelBug(f"rmdir: {result}")
    text = (
        "**The directory is removed, the group is not.** Its cached pages hold it; the parent counts it among its dying descendants."
        if p.cached
        else "**The directory is removed, and with no page left the group is freed.**"
    )
    yield frame(text, "removed")
    if p.cached:
        mc.mem_cgroup_cancel_charge(g, p.cached)
        cg.css_put_many(g.css, p.cached)
    yield frame("**Reclaim has taken the last page: now the group is freed.** Until then it kept its structures and its number.", "end")  # fmt: skip


# ---- ch10.record: a real run ---------------------------------------------------------------------


@explorable(
    "ch10.record",
    title="What a real kernel charged, and what the model charges",
    key=("usage", "events"),
    params={"section": Choice("limits", ("charges", "limits"), help="which part of the record")},
)
def record(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield memory.current and the events of each recorded group, beside the model's."""
    try:
        capture = load("n1-256m-pmem/cgroup")
        loads = cgrouplog.parse(capture["charges"])
        first = len(loads) if p.section == "limits" else 0
        loads += cgrouplog.parse(capture["limits"]) if p.section == "limits" else []
    except (OSError, ValueError) as err:
        raise ParamError("section", f"the recording cannot be read: {err}") from None
    done = cgrouplog.replay(loads)[first:]
    rows = []
    bars: list[tuple[str, float]] = []
    equal = total = 0
    for i, (it, used, after) in enumerate(done, 1):
        theirs = (int(it.used["memory.current"]) >> 12, int(it.after["memory.current"]) >> 12)
        ours = (used["memory.current"] >> 12, after["memory.current"] >> 12)
        if not it.uneven:
            equal += sum(a == b for a, b in zip(ours, theirs, strict=True))
            total += 2
        shown = ["not derived", "-"] if it.uneven else [f"{ours[0]:,}", f"{ours[1]:,}"]
        rows.append([f"{i}", it.name, f"{theirs[0]:,}", shown[0], f"{theirs[1]:,}", shown[1]])
        bars.append((f"{i}", float(theirs[0])))
    d = svg.Drawing()
    d.add(svg.bars(bars, y_label="memory.current of the real groups (pages)", kind="anon"))
    d.add(svg.table(["", "limits, load", "kernel", "model", "kernel, afterwards", "model"], rows, right={2, 3, 4, 5}, y=d.bottom + 10))  # fmt: skip
    text = f"**{equal} of {total} usages are equal to the page.** Each group has one process; afterwards it is gone."  # fmt: skip
    yield Frame(d, text, _plain(text), mark="usage", data=rows)
    rows = []
    same = count = 0
    for i, (it, used, _) in enumerate(done, 1):
        kernel, model = it.used["memory.events"], used["memory.events"]
        if not it.uneven:
            same += sum(kernel[n] == model[n] for n in cgrouplog.EVENTS)
            count += len(cgrouplog.EVENTS)
        cells = [f"{kernel[n]}" if it.uneven else f"{kernel[n]} / {model[n]}" for n in ("high", "max", "oom", "oom_kill")]  # fmt: skip
        rows.append([f"{i}", it.name, *cells])
    d = svg.Drawing()
    d.add(
        svg.table(["", "limits, load", "high", "max", "oom", "oom_kill"], rows, right={2, 3, 4, 5})
    )
    text = f"**{same} of {count} event counters are equal.** Each cell has the kernel's number and the model's."  # fmt: skip
    yield Frame(d, text, _plain(text), mark="events", data=rows)
