"""Do again what a recorded experiment charged to its groups, and say what the files must show.

The record has one group after the other: limits, a process that uses a known amount, its files, and the
files after it has gone. What the process used (pages of ``memory.stat``) is taken from the record and
charged to a model group page by page; ``memory.current``, ``memory.peak`` and ``memory.events`` follow.

Simplified: what reclaim gets is an input. Each call gets 64 pages until all that ``pgsteal`` counts are
had; a record where that is not what happened (`Load.uneven`) says nothing about limits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from mmcore.config import PAGE_SIZE
from mmcore.errors import KernelBug, ParseError
from mmcore.kernel.cgroup import cgroup as cg
from mmcore.kernel.fork import spawn
from mmcore.lib.cmdline import memparse
from mmcore.machine import Machine
from mmcore.mm import memcontrol as mc
from mmcore.mm.gfp import GFP_KERNEL
from mmcore.mm.internal import PF_EXITING
from mmcore.mm.page_counter import page_counter_read

__all__ = ["EVENTS", "Load", "Replay", "parse", "replay", "stat_names"]

EVENTS = ("low", "high", "max", "oom", "oom_kill", "oom_group_kill")
#: What one call of reclaim takes from a group under MGLRU: as many pages as a word has bits.
RECLAIMED = 64
_HEAD_RE = re.compile(r"-- (.*), (\w+=\S+)")


@dataclass(slots=True)
class Load:
    """One group of the record.

    :ivar limits: such as {"max": "16M"}
    :ivar used: the file values while the process was there, by name; memory.stat and memory.events as dicts
    :ivar after: memory.current and memory.events after it had gone
    :ivar status: the exit status of the process
    """

    limits: dict[str, str]
    load: str
    line: int
    used: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    status: int = 0

    @property
    def name(self) -> str:
        """What was limited and used, as the record says it."""
        limits = " ".join(f"{k}={v}" for k, v in self.limits.items())
        return f"{limits or 'no limits'}, {self.load}"

    def pages(self, name: str) -> int:
        """Return a value of memory.stat in pages, rounded up."""
        return -(-int(self.used["memory.stat"][name]) // PAGE_SIZE)

    @property
    def steals(self) -> int:
        """How many calls of reclaim there were."""
        events = self.used["memory.events"]
        return int(self.used["memory.stat"]["pgsteal"]) // RECLAIMED if events else 0

    @property
    def uneven(self) -> bool:
        """Reclaim took other amounts than 64 pages each time, which nothing here predicts."""
        stat, events = self.used["memory.stat"], self.used["memory.events"]
        return bool(
            stat["pgsteal"] % RECLAIMED
            or (events["high"] and stat["pgsteal"] != RECLAIMED * events["high"])
        )


def _value(name: str, text: str, line: int) -> Any:
    words = text.split()
    try:
        if name in ("memory.events", "memory.stat"):
            return {words[i]: int(words[i + 1]) for i in range(0, len(words), 2)}
        return None if words == ["max"] else int(words[0])
    except (ValueError, IndexError):
        raise ParseError(name, line, text, "no number where one belongs") from None


def parse(text: str, first_line: int = 1) -> list[Load]:
    """Read a section of the experiment "cgroup".

    :raises ParseError: for a line that is none of it
    """
    loads: list[Load] = []
    into: dict[str, Any] = {}
    for number, line in enumerate(text.split("\n"), first_line):
        head = _HEAD_RE.fullmatch(line)
        if head is not None:
            limits = (
                {} if head[1] == "no limits" else dict(w.split("=", 1) for w in head[1].split())
            )
            loads.append(Load(limits, head[2], number))
            into = loads[-1].used
        elif not loads:
            if line.strip():
                raise ParseError(
                    "a record of groups", number, line, "it does not begin with a group"
                )
        elif line == "-- afterwards":
            into = loads[-1].after
        elif line.startswith("memory."):
            name, _, rest = line.partition(" ")
            into[name] = _value(name, rest, number)
        elif line.startswith("exit "):
            loads[-1].status = _value("exit", line[5:], number)
    for load in loads:
        for part, name in (("used", "memory.stat"), ("used", "memory.events"), ("after", "memory.current")):  # fmt: skip
            if name not in getattr(load, part):
                raise ParseError("a record of groups", load.line, load.name, f"{name} is missing")
    return loads


class Replay:
    """A machine with one CPU on which the groups come and go as in the record.

    :ivar charges: pages that no object has, by what they are: "page" or "table"
    """

    def __init__(self) -> None:
        self.m = m = Machine.boot("64M")
        mc.mem_cgroup_init(m)
        self.hooks = m.memcg.hooks
        self.steals_left = 0
        self.pages = 0
        assert m.cgrp_dfl_root is not None
        self.top = m.cgrp_dfl_root.cgrp
        cg.cgroup_subtree_control_write(self.top, "+memory")
        self.hooks.try_to_free_mem_cgroup_pages = self._reclaim
        m.hooks.out_of_memory = self._kill

    def _reclaim(self, memcg: mc.MemCgroup, *args: Any) -> int:
        if not self.steals_left or self.pages < RECLAIMED:
            return 0
        self.steals_left -= 1
        self.pages -= RECLAIMED
        mc.mem_cgroup_cancel_charge(memcg, RECLAIMED)
        return RECLAIMED

    def _kill(self, m: Machine, oc: Any) -> bool:
        """Kill the only task there is."""
        assert m.current is not None
        m.current.flags |= PF_EXITING
        mc.memcg_memory_event(oc.memcg, mc.MEMCG_OOM_KILL)
        return True

    def page(self, memcg: mc.MemCgroup) -> bool:
        """Charge one page of the process; tell whether it got it."""
        if mc.try_charge_memcg(memcg, GFP_KERNEL, 1):
            return False
        self.pages += 1
        assert self.m.current is not None
        if not self.m.current.flags & PF_EXITING:
            mc.resume_user_mode_work(self.m)
        return True

    def state(self, memcg: mc.MemCgroup) -> dict[str, Any]:
        """Return what the files show that follows from the charges."""
        return {
            "memory.current": page_counter_read(memcg.memory) * PAGE_SIZE,
            "memory.peak": memcg.memory.watermark * PAGE_SIZE,
            "memory.events": dict(
                zip(
                    EVENTS,
                    (
                        memcg.memory_events[item]
                        for item in (
                            mc.MEMCG_LOW,
                            mc.MEMCG_HIGH,
                            mc.MEMCG_MAX,
                            mc.MEMCG_OOM,
                            mc.MEMCG_OOM_KILL,
                            mc.MEMCG_OOM_GROUP_KILL,
                        )
                    ),
                    strict=True,
                )
            ),
        }

    def run(self, load: Load) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the files while the process is there, and after it has gone."""
        m = self.m
        task = spawn(m, "eater")
        group = cg.cgroup_mkdir(self.top, "g")
        if isinstance(group, int):
            raise KernelBug(f"mkdir answers {group}")
        memcg = mc.memcg_of(group)
        for name, value in load.limits.items():
            writes = {"max": mc.memory_max_write, "high": mc.memory_high_write, "swap.max": mc.swap_max_write}  # fmt: skip
            writes[name](memcg, value)
        cg.cgroup_attach_task(group, task)
        self.pages, self.steals_left = 0, load.steals
        killed = bool(load.used["memory.events"]["oom_kill"])
        tables, objects, wanted = _amounts(load, killed)
        objcg = mc.current_obj_cgroup(m)
        assert objcg is not None
        for _ in range(objects):  # each fills a page but for a few bytes
            mc.obj_cgroup_charge(m, objcg, GFP_KERNEL, PAGE_SIZE - 8)
        for _ in range(tables):
            mc.obj_cgroup_charge_pages(objcg, GFP_KERNEL, 1)
        for _ in range(wanted):
            if not self.page(memcg):
                break
        if killed:
            self._leave(memcg, tables)
        used = self.state(memcg)
        if not killed:
            self._leave(memcg, tables)
        for _ in range(objects - 1):
            mc.obj_cgroup_uncharge(m, objcg, PAGE_SIZE - 8)
        after = self.state(memcg)
        mc.obj_cgroup_get(objcg)
        cg.cgroup_attach_task(self.top, task)
        mc.current_obj_cgroup(m)
        cg.cgroup_rmdir(group)
        # The last object outlives the directory: its page, free by then, is what the CPU keeps when the
        # next group's first object comes, and giving it back takes that group's pages from the CPU.
        mc.obj_cgroup_uncharge(m, objcg, PAGE_SIZE - 8)
        mc.obj_cgroup_put(objcg)
        return used, after

    def _leave(self, memcg: mc.MemCgroup, tables: int) -> None:
        """The process exits: its pages and page tables are freed, its kernel objects stay."""
        mc.mem_cgroup_cancel_charge(memcg, self.pages + tables)
        self.pages = 0


def _amounts(load: Load, killed: bool) -> tuple[int, int, int]:
    """Return pages of page tables, of kernel objects, and of the process."""
    tables = load.pages("pagetables")
    objects = load.pages("kernel") - tables
    if killed:  # its page tables are gone with it: one for each 512 pages that its limit allows
        size, _ = memparse(load.limits["max"])
        return -(-(size // PAGE_SIZE) // 512), objects, 1 << 20
    wanted = load.pages("anon") + load.pages("file") + int(load.used["memory.stat"]["pgsteal"])
    return tables, objects, wanted


def replay(loads: list[Load]) -> list[tuple[Load, dict[str, Any], dict[str, Any]]]:
    """Do all groups again, in order, on one machine: what a CPU keeps for one meets the next."""
    machine = Replay()
    return [(load, *machine.run(load)) for load in loads]


def stat_names() -> list[str]:
    """Return the names of memory.stat in the order in which the model's machine prints them."""
    m = Machine.boot("64M")
    root = mc.mem_cgroup_init(m)
    return [line.split()[0] for line in mc.memcg_stat_format(root).splitlines()]
