"""The exercises of chapter 10. Each function lets the engine find the answer; `check()` compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcore.kernel.cgroup import cgroup as cg
from mmcore.machine import Machine
from mmcore.mm import memcontrol as mc
from mmcore.mm.gfp import GFP_ATOMIC, GFP_KERNEL
from mmcore.viz.check import exercise
from mmcore.viz.figures.ch10 import children_of, group, machine

__all__ = ["batches", "diagnose", "dying", "false_oom", "first_toucher", "oom_without_drain", "over_limit", "shares", "sleep", "unclaimed"]  # fmt: skip

GIB = 1 << 18
Steps = list[tuple[str, Any]]


@exercise("ch10.batches", vary=lambda rng: {"pages": [rng.randint(1, 200) for _ in range(3)]})
def batches(pages: Sequence[int] = (1, 64, 100)) -> Steps:
    """Return memory.current in pages after single-page charges on one CPU, by one group alone."""
    _, top = machine()
    g = group(top, "g")
    steps: Steps = []
    for n in pages:
        for _ in range(n):
            mc.try_charge_memcg(g, GFP_KERNEL, 1)
        steps.append((f"{n} more pages", g.memory.usage))
    return steps


@exercise("ch10.shares")
def shares() -> Steps:
    """Return elow of three children in MiB: claims exceed the parent's."""
    _, got = children_of(10 * GIB, [(8 * GIB, 8 * GIB), (4 * GIB, 8 * GIB), (4 * GIB, 0)], True)
    return [(f"child {c.css.cgroup.name}, in MiB", c.memory.elow >> 8) for c in got]


@exercise("ch10.unclaimed")
def unclaimed() -> Steps:
    """Return elow of three children in GiB, with and without memory_recursiveprot."""
    steps: Steps = []
    for how, recursive in (("with", True), ("without", False)):
        _, got = children_of(10 * GIB, [(8 * GIB, 2 * GIB), (4 * GIB, 2 * GIB), (4 * GIB, 0)], recursive)  # fmt: skip
        steps += [(f"child {c.css.cgroup.name}, {how}", c.memory.elow // GIB) for c in got]
    return steps


@exercise(
    "ch10.sleep",
    vary=lambda rng: {"percent": rng.randint(101, 116), "pages": rng.randint(4, 60)},
)
def sleep(percent: int = 105, pages: int = 16) -> Steps:
    """Return overage, jiffies for 64 pages and for fewer, and milliseconds, at HZ 250.

    :param percent: of memory.high, in use
    """
    high = 100 << 8
    overage = mc.calculate_overage(percent << 8, high)
    few = mc.calculate_high_delay(250, pages, overage)
    return [
        ("overage", overage),
        ("jiffies for 64 pages", mc.calculate_high_delay(250, 64, overage)),
        (f"jiffies for {pages} pages", few),
        (f"milliseconds for {pages} pages", few * 1000 // 250),
    ]


@exercise("ch10.over-limit")
def over_limit() -> Steps:
    """Return by how much a full group of 64 pages exceeds its limit after two kinds of charges."""
    _, top = machine()
    g = group(top, "g")
    mc.memory_max_write(g, "256K")
    for _ in range(64):
        mc.try_charge_memcg(g, GFP_KERNEL, 1)
    result = mc.try_charge_memcg(g, GFP_KERNEL, 1)
    steps: Steps = [("GFP_KERNEL: result", result)]
    for _ in range(3):
        mc.try_charge_memcg(g, GFP_ATOMIC, 1)
    steps.append(("pages over the limit after three GFP_ATOMIC charges", g.memory.usage - g.memory.max))  # fmt: skip
    steps.append(("memory.events max", g.memory_events[mc.MEMCG_MAX]))
    return steps


@exercise("ch10.diagnose")
def diagnose() -> Steps:
    """Return the events of a group that reads a file of 10,000 pages through a limit of 1,000."""
    _, top = machine()
    g = group(top, "g")
    mc.memory_max_write(g, str(1000 * 4096))

    def reclaim(memcg: mc.MemCgroup, *args: Any) -> int:
        mc.mem_cgroup_cancel_charge(memcg, 64)  # clean cache: always to be had
        return 64

    g.machine.memcg.hooks.try_to_free_mem_cgroup_pages = reclaim
    for _ in range(10_000):
        mc.try_charge_memcg(g, GFP_KERNEL, 1)
    return [("max", g.memory_events[mc.MEMCG_MAX]), ("oom", g.memory_events[mc.MEMCG_OOM])]


def oom_without_drain(drain: bool = True) -> tuple[int, int]:
    """Charge a page to a group of 128 whose room another CPU keeps; return (result, OOM events).

    :param drain: False leaves out the step that empties the stocks
    """
    m, top = machine(cpus=2)
    g = group(top, "g")
    mc.memory_max_write(g, "512K")
    m.this_cpu = 1
    mc.try_charge_memcg(g, GFP_KERNEL, 1)
    m.this_cpu = 0
    for _ in range(64):
        mc.try_charge_memcg(g, GFP_KERNEL, 1)
    if not drain:  # the kernel leaves isolated CPUs alone
        m.memcg.isolated_cpus = [1]
    return mc.try_charge_memcg(g, GFP_KERNEL, 1), g.memory_events[mc.MEMCG_OOM]


@exercise("ch10.false-oom")
def false_oom() -> Steps:
    """Return result and OOM events of the same charge with the drain and without it."""
    steps: Steps = []
    for how, drain in (("with the drain", True), ("without it", False)):
        result, ooms = oom_without_drain(drain)
        steps += [(f"{how}: result", result), (f"{how}: oom events", ooms)]
    return steps


@exercise("ch10.first-toucher", vary=lambda rng: {"pages": rng.randint(1, 2000)})
def first_toucher(pages: int = 640) -> Steps:
    """Return what two groups are charged in pages for a file that both read, a first."""
    _, top = machine()
    a, b = group(top, "a"), group(top, "b")
    cached = 0

    def read(memcg: mc.MemCgroup) -> None:
        nonlocal cached
        while (
            cached < pages
        ):  # pages that are in the page cache already are charged to nobody again
            mc.try_charge_memcg(memcg, GFP_KERNEL, 1)
            cached += 1

    read(a)
    read(b)
    steps: Steps = [("a", a.memory.usage), ("b", b.memory.usage)]
    cg.cgroup_rmdir(a.css.cgroup)
    read(b)
    return [*steps, ("a, removed", a.memory.usage), ("b", b.memory.usage)]


@exercise("ch10.dying")
def dying() -> Steps:
    """Return dying descendants after three jobs, of which two have left page cache, and after it is reclaimed."""
    m, top = machine()
    steps: Steps = []
    held: list[mc.MemCgroup] = []
    for name, pages in (("one", 10), ("two", 0), ("three", 1)):
        g = group(top, name)
        for _ in range(pages):
            mc.try_charge_memcg(g, GFP_KERNEL, 1)
            cg.css_get(g.css)
            held.append(g)
        cg.cgroup_rmdir(g.css.cgroup)
        steps.append((f"after job {name}", top.nr_dying_descendants))
    _reclaim(m, held)
    return [*steps, ("after reclaim", top.nr_dying_descendants)]


def _reclaim(m: Machine, held: list[mc.MemCgroup]) -> None:
    for g in held:
        mc.mem_cgroup_cancel_charge(g, 1)
        cg.css_put(g.css)
