"""The OOM killer on a whole machine: the allocator's slow path and a cgroup's limit really kill.

`oom_kill` works on records; `oom_init()` fills them from a machine's tasks whenever memory runs out, lets
`oom_kill.out_of_memory()` choose, and carries the kill out::

    killer = oom_init(m)
    killer.tasks += [spawn(m, "first"), spawn(m, "second")]

Simplified: a victim that is not running ends at once, so that the reaper has nothing to do; the running
one has a fatal signal, may go below the min mark, and ends when the caller lets it (`do_exit`). Tasks have
no uid, no cpuset and no policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmcore.mm import memcontrol, oom_kill, show_mem, vmstat
from mmcore.mm.internal import PF_KTHREAD, OomControl
from mmcore.mm.mm import MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS, MmStruct
from mmcore.mm.oom_kill import OomMemcg, OomMm, OomSystem, OomTask

if TYPE_CHECKING:
    from mmcore.kernel.fork import TaskStruct
    from mmcore.machine import Machine

__all__ = ["OomKiller", "oom_init"]

#: Events of a cgroup that the killer counts.
EVENTS = (
    ("oom_kill", memcontrol.MEMCG_OOM_KILL),
    ("oom_group_kill", memcontrol.MEMCG_OOM_GROUP_KILL),
)


@dataclass(slots=True, eq=False)
class OomKiller:
    """The killer of a machine.

    :ivar tasks: in the order of for_each_process(); those that ended are passed over
    :ivar oom_score_adj: by pid; 0 for who is not in it
    :ivar system: the sysctls, what was printed, who was killed
    """

    machine: Machine = field(repr=False)
    tasks: list[TaskStruct] = field(default_factory=list, repr=False)
    oom_score_adj: dict[int, int] = field(default_factory=dict)
    system: OomSystem = field(default_factory=lambda: OomSystem(1), repr=False)
    _records: dict[int, OomTask] = field(default_factory=dict, repr=False)
    _mms: dict[int, OomMm] = field(default_factory=dict, repr=False)
    _groups: dict[int, tuple[Any, OomMemcg]] = field(default_factory=dict, repr=False)
    _real: dict[int, TaskStruct] = field(default_factory=dict, repr=False)

    def oom_score(self, task: TaskStruct) -> int:
        """Return what /proc/PID/oom_score shows."""
        self._refresh()
        return oom_kill.proc_oom_score(self.system, self._record(task))

    def _mm(self, mm: MmStruct | None) -> OomMm | None:
        if mm is None:
            return None
        record = self._mms.setdefault(id(mm), OomMm())
        record.rss_anon = mm.rss_stat[MM_ANONPAGES]
        record.rss_file = mm.rss_stat[MM_FILEPAGES]
        record.rss_shmem = mm.rss_stat[MM_SHMEMPAGES]
        record.swapents = mm.rss_stat[MM_SWAPENTS]
        record.pgtables_bytes, record.total_vm = mm.pgtables_bytes, mm.total_vm
        return record

    def _record(self, task: Any) -> OomTask:
        record = self._records.get(task.pid)
        if record is None:
            record = self._records[task.pid] = OomTask(task.pid, task.comm)
        record.mm = self._mm(task.mm)
        record.flags = task.flags
        record.oom_score_adj = self.oom_score_adj.get(task.pid, 0)
        self._real[task.pid] = task
        return record

    def _current(self) -> OomTask:
        current = self.machine.current
        if current is None:
            return OomTask(0, "swapper/0", flags=PF_KTHREAD)
        return self._record(current)

    def _refresh(self) -> None:
        """Fill the records from the machine as it is now."""
        m, s = self.machine, self.system
        s.totalram_pages = m.totalram_pages
        s.total_swap_pages = getattr(m, "total_swap_pages", 0)
        s.node_present_pages = {
            node.node_id: node.node_present_pages
            for node in m.node_data.values()
            if node.node_present_pages
        }
        s.tasks = [self._record(task) for task in self.tasks if task.mm is not None]
        s.current = self._current()
        s.show_mem = lambda filter, mask, idx: show_mem.show_mem(m, filter, mask, idx)

    def _memcg(self, memcg: Any, parent: OomMemcg | None) -> OomMemcg:
        """Copy a cgroup with all below it."""
        mine = OomMemcg(memcg.path, parent, memcg.memory.max, memcg.memory.usage)
        mine.failcnt, mine.oom_group = memcg.memory.failcnt, memcg.oom_group
        mine.swap_max, mine.swap_usage = memcg.swap.max, memcg.swap.usage
        mine.swap_failcnt = memcg.swap.failcnt
        mine.swappiness = memcontrol.mem_cgroup_swappiness(memcg)
        self._groups[id(memcg)] = (memcg, mine)
        for task in memcg.css.cgroup.procs:
            if task.mm is not None:
                record = self._record(task)
                record.memcg = mine
                mine.tasks.append(record)
        lines = memcontrol.memcg_stat_format(memcg).split("\n") if parent is not None else []
        for line in lines:
            name, _, value = line.partition(" ")
            if value.isdecimal():
                mine.stat.append((name, int(value)))
        for child in memcg.css.children:
            self._memcg(child.container, mine)
        return mine

    def out_of_memory(self, m: Machine, oc: OomControl) -> bool:
        """Choose and kill; the machine's ``hooks.out_of_memory``."""
        self._refresh()
        s = self.system
        self._groups.clear()
        if not memcontrol.mem_cgroup_disabled(m):
            s.root_memcg = self._memcg(memcontrol.root_mem_cgroup(m), None)
        domain = None if oc.memcg is None else self._groups[id(oc.memcg)][1]
        before, counted = len(s.killed), s.events.get("oom_kill", 0)
        mine = OomControl(oc.zonelist, oc.nodemask, oc.gfp_mask, oc.order, domain)
        progress = oom_kill.out_of_memory(s, mine)
        oc.totalpages, oc.constraint = mine.totalpages, mine.constraint
        oc.chosen, oc.chosen_points = mine.chosen, mine.chosen_points
        self._count(s.events.get("oom_kill", 0) - counted)
        for victim in s.killed[before:]:
            self._end(victim)
        return progress

    def _count(self, kills: int) -> None:
        """Count kills in /proc/vmstat and in the memory.events of the victims' cgroups."""
        if kills:
            vmstat.count_vm_events(self.machine, vmstat.OOM_KILL, kills)
        for memcg, mine in self._groups.values():
            for name, event in EVENTS:
                below = sum(child.events.get(name, 0) for child in mine.children)
                for _ in range(mine.events.get(name, 0) - below):
                    memcontrol.memcg_memory_event(memcg, event)

    def _end(self, victim: OomTask) -> None:
        from mmcore.kernel import fork

        task = self._real[victim.pid]
        task.fatal_signal = True
        if task is not self.machine.current and task.mm is not None:
            fork.do_exit(task)
            oom_kill.exit_oom_victim(self.system, victim)

    def is_victim(self, task: Any) -> bool:
        """Tell whether a task was chosen and has not ended.

        Mirrors include/linux/oom.h:tsk_is_oom_victim().
        """
        record = self._records.get(task.pid)
        return record is not None and record.oom_mm is not None and task.mm is not None


def oom_init(m: Machine) -> OomKiller:
    """Give a machine an OOM killer; its list of tasks is the caller's to fill.

    Mirrors mm/oom_kill.c:oom_init().
    """
    killer = OomKiller(m)
    m.hooks.out_of_memory = killer.out_of_memory
    m.hooks.tsk_is_oom_victim = killer.is_victim
    return killer
