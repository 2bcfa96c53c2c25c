"""The OOM killer: whom it chooses, what it prints, what happens then.

Mirrors mm/oom_kill.c. It works on plain records (`oom_machine` fills them from a whole machine),
`OomTask` with an `OomMm` and perhaps an `OomMemcg`, so that a list of tasks is enough to ask who would
die::

    system = OomSystem(totalram_pages=54589, tasks=[OomTask(7, "big", OomMm(rss_anon=30000))])
    oc = OomControl(None, None, GFP_KERNEL, 0)
    out_of_memory(system, oc)
    print("\\n".join(system.log))

`OomSystem` stands for the kernel's globals. What the kernel prints goes to `OomSystem.log`, in the
format of Linux 6.12.

Simplified: a record is a process, not a thread; oom_lock is always free and no task changes while it is
looked at; counters are exact, where the kernel reads ``percpu_counter`` values that may lag by a batch
per CPU. A killed task keeps its memory until it is told to exit (`exit_oom_victim`) or is reaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import KernelBug, UsageError
from mmcore.mm import page_alloc
from mmcore.mm.gfp import __GFP_FS, __GFP_HARDWALL, __GFP_THISNODE, gfp_str, gfp_zone
from mmcore.mm.internal import PF_EXITING, PF_KTHREAD, OomControl
from mmcore.mm.mmzone import Zone
from mmcore.mm.show_mem import SHOW_MEM_FILTER_NODES, node_mask_text

__all__ = [
    "CONSTRAINT_CPUSET",
    "CONSTRAINT_MEMCG",
    "CONSTRAINT_MEMORY_POLICY",
    "CONSTRAINT_NAMES",
    "CONSTRAINT_NONE",
    "LONG_MAX",
    "LONG_MIN",
    "MAX_OOM_REAP_RETRIES",
    "OOM_REAPER_DELAY",
    "OOM_SCORE_ADJ_MAX",
    "OOM_SCORE_ADJ_MIN",
    "PAGE_COUNTER_MAX",
    "TASK_TABLE_HEAD",
    "OomControl",
    "OomMemcg",
    "OomMm",
    "OomPanic",
    "OomSystem",
    "OomTask",
    "constrained_alloc",
    "dump_header",
    "dump_oom_victim",
    "dump_task",
    "dump_tasks",
    "exit_oom_victim",
    "mark_oom_victim",
    "mem_cgroup_get_max",
    "mem_cgroup_get_oom_group",
    "mem_cgroup_out_of_memory",
    "mem_cgroup_scan_tasks",
    "oom_badness",
    "oom_evaluate_task",
    "oom_kill_process",
    "oom_reap_task",
    "oom_unkillable_task",
    "out_of_memory",
    "proc_oom_score",
    "queue_oom_reaper",
    "select_bad_process",
    "task_will_free_mem",
    "validate_choice",
]

LONG_MIN, LONG_MAX = -(1 << 63), (1 << 63) - 1
#: The largest limit of a page counter: LONG_MAX / PAGE_SIZE.
PAGE_COUNTER_MAX = LONG_MAX // PAGE_SIZE

# include/uapi/linux/oom.h
OOM_SCORE_ADJ_MIN, OOM_SCORE_ADJ_MAX = -1000, 1000

# enum oom_constraint
CONSTRAINT_NONE, CONSTRAINT_CPUSET, CONSTRAINT_MEMORY_POLICY, CONSTRAINT_MEMCG = range(4)
CONSTRAINT_NAMES: tuple[str, ...] = (
    "CONSTRAINT_NONE",
    "CONSTRAINT_CPUSET",
    "CONSTRAINT_MEMORY_POLICY",
    "CONSTRAINT_MEMCG",
)

#: Seconds between the kill and the reaper's first try; it tries so often, a tenth of a second apart.
OOM_REAPER_DELAY = 2.0
MAX_OOM_REAP_RETRIES = 10
#: DEFAULT_RATELIMIT_INTERVAL in seconds, and DEFAULT_RATELIMIT_BURST.
RATELIMIT_INTERVAL, RATELIMIT_BURST = 5.0, 10

TASK_TABLE_HEAD = (
    "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem "
    "pgtables_bytes swapents oom_score_adj name"
)


class OomPanic(KernelBug):
    """The kernel panics: there is nobody to kill, or vm.panic_on_oom says so."""


@dataclass(slots=True, eq=False)
class OomMm:
    """What the killer reads of ``struct mm_struct``, in pages but for @pgtables_bytes.

    :ivar shared_file: of @rss_file, pages in shared mappings, which the reaper leaves
    :ivar oom_skip: MMF_OOM_SKIP, there is nothing more to get here
    :ivar reap_queued: MMF_OOM_REAP_QUEUED
    :ivar mmap_locked: somebody holds mmap_lock for writing, so that the reaper cannot work
    """

    rss_anon: int = 0
    rss_file: int = 0
    rss_shmem: int = 0
    swapents: int = 0
    pgtables_bytes: int = 0
    total_vm: int = 0
    shared_file: int = 0
    oom_skip: bool = False
    reap_queued: bool = False
    mmap_locked: bool = False

    @property
    def rss(self) -> int:
        """Resident pages.

        Mirrors include/linux/mm.h:get_mm_rss().
        """
        return self.rss_anon + self.rss_file + self.rss_shmem


@dataclass(slots=True, eq=False)
class OomMemcg:
    """What the killer reads of ``struct mem_cgroup``; sizes in pages.

    :ivar children: in the order of for_each_mem_cgroup_tree()
    :ivar tasks: its own processes, in the order of css_task_iter
    :ivar stat: name and value of the lines of memory.stat
    """

    path: str
    parent: OomMemcg | None = None
    max: int = PAGE_COUNTER_MAX
    usage: int = 0
    failcnt: int = 0
    swap_max: int = PAGE_COUNTER_MAX
    swap_usage: int = 0
    swap_failcnt: int = 0
    swappiness: int = 60
    oom_group: bool = False
    children: list[OomMemcg] = field(default_factory=list, repr=False)
    tasks: list[OomTask] = field(default_factory=list, repr=False)
    stat: list[tuple[str, int]] = field(default_factory=list, repr=False)
    events: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.parent is not None:
            self.parent.children.append(self)


@dataclass(slots=True, eq=False)
class OomTask:
    """What the killer reads of a process.

    :ivar mems_allowed: bit n for node n, None for all: its cpuset
    :ivar policy_nodes: the nodes of its MPOL_BIND policy, None if it has another or none
    :ivar in_vfork: it shares the mm of a parent that waits for it
    :ivar oom_flag_origin: it runs swapoff or unmerges KSM pages, and is to go first
    :ivar group_exit: SIGNAL_GROUP_EXIT, set by SIGKILL
    :ivar oom_mm: the mm it had when it was chosen; tsk_is_oom_victim() tests it
    """

    pid: int
    comm: str
    mm: OomMm | None = None
    oom_score_adj: int = 0
    uid: int = 0
    flags: int = 0
    memcg: OomMemcg | None = None
    mems_allowed: int | None = None
    policy_nodes: int | None = None
    in_vfork: bool = False
    oom_flag_origin: bool = False
    group_exit: bool = False
    core_state: bool = False
    oom_mm: OomMm | None = None

    def __post_init__(self) -> None:
        if not OOM_SCORE_ADJ_MIN <= self.oom_score_adj <= OOM_SCORE_ADJ_MAX:
            raise UsageError(f"oom_score_adj {self.oom_score_adj}; it lies between -1000 and 1000")
        if self.memcg is not None:
            self.memcg.tasks.append(self)


@dataclass(slots=True, eq=False)
class OomSystem:
    """The kernel's globals, as far as the killer reads them.

    :ivar tasks: in the order of for_each_process()
    :ivar node_present_pages: by node; nodes without memory are left out
    :ivar show_mem: returns the lines from "Mem-Info:" on; None prints none
    :ivar unreclaimable_slab: lines to print, if unreclaimable slab exceeds all LRU pages
    :ivar oom_notify: what the notifier chain frees, in pages
    :ivar now: seconds since boot
    :ivar log: what the kernel printed
    :ivar events: the counters of /proc/vmstat
    :ivar reaper: (due time, victim)
    """

    totalram_pages: int
    total_swap_pages: int = 0
    tasks: list[OomTask] = field(default_factory=list, repr=False)
    current: OomTask | None = None
    root_memcg: OomMemcg | None = None
    node_present_pages: dict[int, int] = field(default_factory=dict)
    show_mem: Callable[[int, int | None, int], list[str]] | None = field(default=None, repr=False)
    unreclaimable_slab: list[str] = field(default_factory=list, repr=False)
    sysctl_panic_on_oom: int = 0
    sysctl_oom_kill_allocating_task: int = 0
    sysctl_oom_dump_tasks: int = 1
    oom_killer_disabled: bool = False
    oom_notify: Callable[[], int] | None = None
    now: float = 0.0
    log: list[str] = field(default_factory=list, repr=False)
    events: dict[str, int] = field(default_factory=dict)
    reaper: list[tuple[float, OomTask]] = field(default_factory=list, repr=False)
    killed: list[OomTask] = field(default_factory=list, repr=False)
    _rs_begin: float | None = None
    _rs_printed: int = 0
    _rs_missed: int = 0

    @property
    def node_memory(self) -> int:
        """node_states[N_MEMORY]: bit n for node n."""
        return sum(1 << nid for nid in self.node_present_pages)


def K(pages: int) -> int:
    """Return pages as kB."""
    return pages << PAGE_SHIFT - 10


def is_memcg_oom(oc: OomControl) -> bool:
    """A cgroup is at its limit, not the machine.

    Mirrors mm/oom_kill.c:is_memcg_oom().
    """
    return oc.memcg is not None


def is_sysrq_oom(oc: OomControl) -> bool:
    """SysRq-f asked for it.

    Mirrors mm/oom_kill.c:is_sysrq_oom().
    """
    return oc.order == -1


def is_global_init(task: OomTask) -> bool:
    """Tell whether it is process 1.

    Mirrors include/linux/pid.h:is_global_init().
    """
    return task.pid == 1


def _current(s: OomSystem) -> OomTask:
    if s.current is None:
        raise UsageError("OomSystem.current is None: somebody must be asking for memory")
    return s.current


def oom_cpuset_eligible(s: OomSystem, start: OomTask, oc: OomControl) -> bool:
    """Tell whether a task may have memory where it is missing: by its policy, or by its cpuset.

    Mirrors mm/oom_kill.c:oom_cpuset_eligible().
    """
    if oc.nodemask is not None:  # mempolicy_in_oom_domain(): no MPOL_BIND, no objection
        return start.policy_nodes is None or bool(start.policy_nodes & oc.nodemask)
    mine, its = s.current.mems_allowed if s.current else None, start.mems_allowed
    return mine is None or its is None or bool(mine & its)


def oom_unkillable_task(task: OomTask) -> bool:
    """The first process and kernel threads are never killed.

    Mirrors mm/oom_kill.c:oom_unkillable_task().
    """
    return is_global_init(task) or bool(task.flags & PF_KTHREAD)


def oom_badness(p: OomTask, totalpages: int) -> int:
    """Return how much killing a task would bring, in pages; LONG_MIN if it must not be killed.

    :param totalpages: ``unsigned long`` (pages that count: RAM and swap, or a cgroup's limit)
    :return: ``long`` (pages)

    Mirrors mm/oom_kill.c:oom_badness().
    """
    mm = p.mm
    if oom_unkillable_task(p) or mm is None:
        return LONG_MIN
    adj = p.oom_score_adj
    if adj == OOM_SCORE_ADJ_MIN or mm.oom_skip or p.in_vfork:
        return LONG_MIN
    points = mm.rss + mm.swapents + mm.pgtables_bytes // PAGE_SIZE
    return points + adj * (totalpages // 1000)


def mem_cgroup_get_max(s: OomSystem, memcg: OomMemcg) -> int:
    """Return what a cgroup may use: its limit, and swap if it swaps at all.

    :return: ``unsigned long`` (pages)

    Simplified: cgroup v2.

    The record of mmcore.mm.memcontrol.mem_cgroup_get_max().
    """
    if not memcg.swappiness:
        return memcg.max
    return memcg.max + min(memcg.swap_max, s.total_swap_pages)


def _cpuset_zone_allowed(s: OomSystem, zone: Zone, gfp_mask: int) -> bool:
    """Tell whether the caller's cpuset lets a request into a zone.

    Simplified: an ancestor with hardwalls allows every node, so that a request without
    __GFP_HARDWALL passes.

    Mirrors include/linux/cpuset.h:cpuset_zone_allowed().
    """
    allowed = _current(s).mems_allowed
    return allowed is None or bool(allowed >> zone.node & 1) or not gfp_mask & __GFP_HARDWALL


def constrained_alloc(s: OomSystem, oc: OomControl) -> int:
    """Find what keeps the request from memory, and set oc.totalpages accordingly.

    :return: ``enum oom_constraint``

    Mirrors mm/oom_kill.c:constrained_alloc().
    """
    if is_memcg_oom(oc):
        oc.totalpages = mem_cgroup_get_max(s, oc.memcg) or 1
        return CONSTRAINT_MEMCG
    oc.totalpages = s.totalram_pages + s.total_swap_pages
    if oc.zonelist is None or oc.gfp_mask & __GFP_THISNODE:
        return CONSTRAINT_NONE
    pages = s.node_present_pages
    if oc.nodemask is not None and s.node_memory & ~oc.nodemask:
        oc.totalpages = s.total_swap_pages
        oc.totalpages += sum(n for nid, n in pages.items() if oc.nodemask >> nid & 1)
        return CONSTRAINT_MEMORY_POLICY
    highest_zoneidx = gfp_zone(oc.gfp_mask)
    for zone in page_alloc.for_each_zone_zonelist_nodemask(
        oc.zonelist, highest_zoneidx, oc.nodemask
    ):
        if not _cpuset_zone_allowed(s, zone, oc.gfp_mask):
            allowed = _current(s).mems_allowed or 0
            oc.totalpages = s.total_swap_pages
            oc.totalpages += sum(n for nid, n in pages.items() if allowed >> nid & 1)
            return CONSTRAINT_CPUSET
    return CONSTRAINT_NONE


def oom_evaluate_task(s: OomSystem, task: OomTask, oc: OomControl) -> bool:
    """Look at one task; keep it in oc.chosen if no better one was seen. True ends the scan.

    Of equals, the one that is looked at last is kept. oc.chosen is False, the kernel's -1, if a
    victim in this domain has not given up its memory yet: nobody else is to die meanwhile.

    Mirrors mm/oom_kill.c:oom_evaluate_task().
    """
    if oom_unkillable_task(task):
        return False
    if not is_memcg_oom(oc) and not oom_cpuset_eligible(s, task, oc):
        return False
    if not is_sysrq_oom(oc) and task.oom_mm is not None:
        if task.oom_mm.oom_skip:
            return False
        oc.chosen = False
        return True
    if task.oom_flag_origin:
        points = LONG_MAX
    else:
        points = oom_badness(task, oc.totalpages)
        if points == LONG_MIN or points < oc.chosen_points:
            return False
    oc.chosen, oc.chosen_points = task, points
    return False


def _memcg_tree(memcg: OomMemcg) -> Iterator[OomMemcg]:
    """Yield a cgroup and all below it, parents first."""
    stack = [memcg]
    while stack:
        memcg = stack.pop()
        yield memcg
        stack += reversed(memcg.children)


def mem_cgroup_scan_tasks(memcg: OomMemcg, fn: Callable[[OomTask], bool]) -> None:
    """Call @fn for each process of a cgroup and those below, until it returns true.

    The record of mmcore.mm.memcontrol.mem_cgroup_scan_tasks().
    """
    for part in _memcg_tree(memcg):
        for task in list(part.tasks):
            if fn(task):
                return


def select_bad_process(s: OomSystem, oc: OomControl) -> None:
    """Set oc.chosen to the task with the most points: None if there is none, False if to wait.

    Mirrors mm/oom_kill.c:select_bad_process().
    """
    oc.chosen, oc.chosen_points = None, LONG_MIN
    if is_memcg_oom(oc):
        mem_cgroup_scan_tasks(oc.memcg, lambda task: oom_evaluate_task(s, task, oc))
        return
    for task in s.tasks:
        if oom_evaluate_task(s, task, oc):
            return


# ---- what is printed -----------------------------------------------------------------------------


def dump_task(s: OomSystem, p: OomTask, oc: OomControl) -> str | None:
    """Return a task's line of the table, None if it is not shown.

    Mirrors mm/oom_kill.c:dump_task().
    """
    if oom_unkillable_task(p) or p.mm is None:
        return None
    if not is_memcg_oom(oc) and not oom_cpuset_eligible(s, p, oc):
        return None
    mm = p.mm
    return (
        f"[{p.pid:7d}] {p.uid:5d} {p.pid:5d} {mm.total_vm:8d} {mm.rss:8d} {mm.rss_anon:8d} "
        f"{mm.rss_file:8d} {mm.rss_shmem:9d} {mm.pgtables_bytes:8d} {mm.swapents:8d}         "
        f"{p.oom_score_adj:5d} {p.comm}"
    )


def dump_tasks(s: OomSystem, oc: OomControl) -> None:
    """Print the table of the tasks that may be killed.

    Mirrors mm/oom_kill.c:dump_tasks().
    """
    s.log += ["Tasks state (memory values in pages):", TASK_TABLE_HEAD]

    def dump(task: OomTask) -> bool:
        line = dump_task(s, task, oc)
        if line is not None:
            s.log.append(line)
        return False

    if is_memcg_oom(oc):
        mem_cgroup_scan_tasks(oc.memcg, dump)
        return
    for task in s.tasks:
        dump(task)


def dump_oom_victim(s: OomSystem, oc: OomControl, victim: OomTask) -> None:
    """Print the one line that sums it up.

    Mirrors mm/oom_kill.c:dump_oom_victim().
    """
    allowed = _current(s).mems_allowed
    if allowed is None:
        allowed = s.node_memory or 1
    where = f",oom_memcg={oc.memcg.path}" if is_memcg_oom(oc) else ",global_oom"
    task_memcg = victim.memcg.path if victim.memcg else "/"
    s.log.append(
        f"oom-kill:constraint={CONSTRAINT_NAMES[oc.constraint]},"
        f"nodemask={node_mask_text(oc.nodemask)},cpuset=/,mems_allowed={node_mask_text(allowed)}"
        f"{where},task_memcg={task_memcg},task={victim.comm},pid={victim.pid},uid={victim.uid}"
    )


def mem_cgroup_print_oom_meminfo(s: OomSystem, memcg: OomMemcg) -> None:
    """Print a cgroup's usage, limits and statistics.

    The record of mmcore.mm.memcontrol.mem_cgroup_print_oom_meminfo().
    """
    s.log += [
        f"memory: usage {K(memcg.usage)}kB, limit {K(memcg.max)}kB, failcnt {memcg.failcnt}",
        f"swap: usage {K(memcg.swap_usage)}kB, limit {K(memcg.swap_max)}kB, "
        f"failcnt {memcg.swap_failcnt}",
        f"Memory cgroup stats for {memcg.path}:",
    ]
    s.log += [f"{name} {value}" for name, value in memcg.stat]


def dump_header(s: OomSystem, oc: OomControl) -> None:
    """Print who asked for what, the state of memory, and the tasks.

    Simplified: the stack dump is only its line about the task.

    Mirrors mm/oom_kill.c:dump_header().
    """
    current = _current(s)
    s.log += [
        f"{current.comm} invoked oom-killer: gfp_mask={oc.gfp_mask:#x}({gfp_str(oc.gfp_mask)}), "
        f"order={oc.order}, oom_score_adj={current.oom_score_adj}",
        f"CPU: 0 UID: {current.uid} PID: {current.pid} Comm: {current.comm} Not tainted",
    ]
    if is_memcg_oom(oc):
        mem_cgroup_print_oom_meminfo(s, oc.memcg)
    else:
        if s.show_mem is not None:
            s.log += s.show_mem(SHOW_MEM_FILTER_NODES, oc.nodemask, gfp_zone(oc.gfp_mask))
        s.log += s.unreclaimable_slab
    if s.sysctl_oom_dump_tasks:
        dump_tasks(s, oc)


# ---- killing -------------------------------------------------------------------------------------


def _count(counters: dict[str, int], name: str) -> None:
    counters[name] = counters.get(name, 0) + 1


def _memcg_memory_event(memcg: OomMemcg | None, event: str) -> None:
    """Count an event in a cgroup and those above it, but for the root.

    The record of mmcore.mm.memcontrol.memcg_memory_event().
    """
    while memcg is not None and memcg.parent is not None:
        _count(memcg.events, event)
        memcg = memcg.parent


def _thread_group_will_free_mem(task: OomTask) -> bool:
    """Tell whether a task is on its way out.

    Mirrors mm/oom_kill.c:__task_will_free_mem().
    """
    if task.core_state:
        return False
    return task.group_exit or bool(task.flags & PF_EXITING)


def _sharing(s: OomSystem, mm: OomMm) -> list[OomTask]:
    return [p for p in s.tasks if p.mm is mm]


def task_will_free_mem(s: OomSystem, task: OomTask) -> bool:
    """Tell whether a task, and all that share its mm, will soon give their memory back.

    Mirrors mm/oom_kill.c:task_will_free_mem().
    """
    mm = task.mm
    if mm is None or not _thread_group_will_free_mem(task) or mm.oom_skip:
        return False
    return all(_thread_group_will_free_mem(p) for p in _sharing(s, mm) if p is not task)


def mark_oom_victim(s: OomSystem, task: OomTask) -> None:
    """Give a task access to the reserves, and remember its mm.

    Mirrors mm/oom_kill.c:mark_oom_victim().
    """
    if s.oom_killer_disabled:
        raise KernelBug("WARN_ON(oom_killer_disabled) in mark_oom_victim()")
    if task.oom_mm is None:
        task.oom_mm = task.mm


def exit_oom_victim(s: OomSystem, task: OomTask) -> None:
    """Let a killed task go: its mm is gone if nobody else has it, and it leaves the task list.

    Mirrors mm/oom_kill.c:exit_oom_victim().
    """
    mm, task.mm = task.mm, None
    if mm is not None and not _sharing(s, mm):
        mm.oom_skip = True  # exit_mmap()
    s.tasks[:] = [p for p in s.tasks if p is not task]
    if task.memcg is not None:
        task.memcg.tasks[:] = [p for p in task.memcg.tasks if p is not task]


def queue_oom_reaper(s: OomSystem, task: OomTask) -> None:
    """Have the reaper look at a victim in two seconds.

    Mirrors mm/oom_kill.c:queue_oom_reaper().
    """
    mm = task.oom_mm
    if mm is None or mm.reap_queued:
        return
    mm.reap_queued = True
    s.reaper.append((s.now + OOM_REAPER_DELAY, task))


def oom_reap_task_mm(s: OomSystem, task: OomTask, mm: OomMm) -> bool:
    """Take a victim's anonymous and private memory; false if it must be tried again.

    Mirrors mm/oom_kill.c:oom_reap_task_mm().
    """
    if mm.mmap_locked:
        return False
    if mm.oom_skip:
        return True
    mm.rss_anon = mm.swapents = 0
    mm.rss_file = min(mm.rss_file, mm.shared_file)
    s.log.append(
        f"oom_reaper: reaped process {task.pid} ({task.comm}), now anon-rss:{K(mm.rss_anon)}kB, "
        f"file-rss:{K(mm.rss_file)}kB, shmem-rss:{K(mm.rss_shmem)}kB"
    )
    return True


def oom_reap_task(s: OomSystem, task: OomTask) -> bool:
    """Reap a victim, with up to ten tries; whatever comes of it, its mm counts for nothing then.

    :return: whether it was reaped

    Mirrors mm/oom_kill.c:oom_reap_task().
    """
    mm = task.oom_mm
    if mm is None:
        raise UsageError(f"{task.comm} (pid {task.pid}) is no OOM victim")
    attempts = 0
    done = False
    while attempts < MAX_OOM_REAP_RETRIES and not done:
        attempts += 1
        done = oom_reap_task_mm(s, task, mm)
        if not done:
            s.now += 0.1
    if not done and not mm.oom_skip:
        s.log.append(f"oom_reaper: unable to reap pid:{task.pid} ({task.comm})")
    mm.oom_skip = True
    return done


def _sigkill(task: OomTask) -> None:
    task.group_exit = True


def _oom_kill_process(s: OomSystem, victim: OomTask, message: str) -> None:
    """Kill one process, and all that share its memory.

    Mirrors mm/oom_kill.c:__oom_kill_process().
    """
    mm = victim.mm
    if mm is None:
        s.log.append(
            f"{message}: OOM victim {victim.pid} ({victim.comm}) is already exiting. "
            "Skip killing the task"
        )
        return
    can_oom_reap = True
    _count(s.events, "oom_kill")
    _memcg_memory_event(victim.memcg, "oom_kill")
    _sigkill(victim)
    mark_oom_victim(s, victim)
    s.killed.append(victim)
    s.log.append(
        f"{message}: Killed process {victim.pid} ({victim.comm}) total-vm:{K(mm.total_vm)}kB, "
        f"anon-rss:{K(mm.rss_anon)}kB, file-rss:{K(mm.rss_file)}kB, "
        f"shmem-rss:{K(mm.rss_shmem)}kB, UID:{victim.uid} pgtables:{mm.pgtables_bytes >> 10}kB "
        f"oom_score_adj:{victim.oom_score_adj}"
    )
    for p in _sharing(s, mm):
        if p is victim:
            continue
        if is_global_init(p):
            can_oom_reap = False
            mm.oom_skip = True
            s.log.append(
                f"oom killer {victim.pid} ({victim.comm}) has mm pinned by {p.pid} ({p.comm})"
            )
        elif not p.flags & PF_KTHREAD:
            _sigkill(p)
            s.killed.append(p)
    if can_oom_reap:
        queue_oom_reaper(s, victim)


def mem_cgroup_get_oom_group(
    s: OomSystem, victim: OomTask, oom_domain: OomMemcg | None
) -> OomMemcg | None:
    """Return the highest cgroup within the domain that wants to be killed as a whole.

    Simplified: cgroup v2.

    The record of mmcore.mm.memcontrol.mem_cgroup_get_oom_group().
    """
    domain = oom_domain or s.root_memcg
    memcg = victim.memcg
    if memcg is None or memcg.parent is None:
        return None
    chain: list[OomMemcg] = []
    part: OomMemcg | None = memcg
    while part is not None:
        chain.append(part)
        if part is domain:
            break
        part = part.parent
    if domain is not None and chain[-1] is not domain:
        return None  # moved out of the domain meanwhile
    return next((part for part in reversed(chain) if part.oom_group), None)


def _ratelimit(s: OomSystem) -> bool:
    """Ten reports in five seconds, no more.

    Mirrors lib/ratelimit.c:___ratelimit().
    """
    if s._rs_begin is None or s.now > s._rs_begin + RATELIMIT_INTERVAL:
        if s._rs_missed:
            s.log.append(f"oom_kill_process: {s._rs_missed} callbacks suppressed")
        s._rs_begin, s._rs_printed, s._rs_missed = s.now, 0, 0
    if s._rs_printed < RATELIMIT_BURST:
        s._rs_printed += 1
        return True
    s._rs_missed += 1
    return False


def oom_kill_process(s: OomSystem, oc: OomControl, message: str) -> None:
    """Report, and kill the chosen task, with its cgroup if that wants to die as a whole.

    Mirrors mm/oom_kill.c:oom_kill_process().
    """
    victim: OomTask = oc.chosen
    if task_will_free_mem(s, victim):
        mark_oom_victim(s, victim)
        queue_oom_reaper(s, victim)
        return
    if _ratelimit(s):
        dump_header(s, oc)
        dump_oom_victim(s, oc, victim)
    oom_group = mem_cgroup_get_oom_group(s, victim, oc.memcg)
    _oom_kill_process(s, victim, message)
    if oom_group is None:
        return
    _memcg_memory_event(oom_group, "oom_group_kill")
    s.log.append(f"Tasks in {oom_group.path} are going to be killed due to memory.oom.group set")

    def member(task: OomTask) -> bool:
        if task.oom_score_adj != OOM_SCORE_ADJ_MIN and not is_global_init(task):
            _oom_kill_process(s, task, message)
        return False

    mem_cgroup_scan_tasks(oom_group, member)


def check_panic_on_oom(s: OomSystem, oc: OomControl) -> None:
    """Panic if vm.panic_on_oom says so.

    :raises OomPanic: then

    Mirrors mm/oom_kill.c:check_panic_on_oom().
    """
    if not s.sysctl_panic_on_oom:
        return
    if s.sysctl_panic_on_oom != 2 and oc.constraint != CONSTRAINT_NONE:
        return
    if is_sysrq_oom(oc):
        return
    dump_header(s, oc)
    which = "compulsory" if s.sysctl_panic_on_oom == 2 else "system-wide"
    raise OomPanic(f"Out of memory: {which} panic_on_oom is enabled")


def out_of_memory(s: OomSystem, oc: OomControl) -> bool:
    """Kill somebody, or say why not; true if the caller should try again.

    :raises OomPanic: if nobody can be killed, or vm.panic_on_oom is set

    Mirrors mm/oom_kill.c:out_of_memory().
    """
    if s.oom_killer_disabled:
        return False
    if not is_memcg_oom(oc) and s.oom_notify is not None:
        if s.oom_notify() > 0 and not is_sysrq_oom(oc):
            return True
    current = _current(s)
    if task_will_free_mem(s, current):
        mark_oom_victim(s, current)
        queue_oom_reaper(s, current)
        return True
    if not oc.gfp_mask & __GFP_FS and not is_memcg_oom(oc):
        return True
    oc.constraint = constrained_alloc(s, oc)
    if oc.constraint != CONSTRAINT_MEMORY_POLICY:
        oc.nodemask = None
    check_panic_on_oom(s, oc)
    if (
        not is_memcg_oom(oc)
        and s.sysctl_oom_kill_allocating_task
        and current.mm is not None
        and not oom_unkillable_task(current)
        and oom_cpuset_eligible(s, current, oc)
        and current.oom_score_adj != OOM_SCORE_ADJ_MIN
    ):
        oc.chosen = current
        oom_kill_process(s, oc, "Out of memory (oom_kill_allocating_task)")
        return True
    select_bad_process(s, oc)
    if oc.chosen is None:
        dump_header(s, oc)
        s.log.append("Out of memory and no killable processes...")
        if not is_sysrq_oom(oc) and not is_memcg_oom(oc):
            raise OomPanic("System is deadlocked on memory")
        return False
    if oc.chosen is not False:
        cgroup = is_memcg_oom(oc)
        oom_kill_process(s, oc, "Memory cgroup out of memory" if cgroup else "Out of memory")
    return True


def mem_cgroup_out_of_memory(s: OomSystem, memcg: OomMemcg, gfp_mask: int, order: int) -> bool:
    """Kill somebody in a cgroup that cannot get below its limit, unless there is room again.

    The record of mmcore.mm.memcontrol.mem_cgroup_out_of_memory().
    """
    if memcg.max - memcg.usage >= 1 << order:  # mem_cgroup_margin()
        return True
    current = _current(s)
    if current.oom_mm is not None or current.group_exit or current.flags & PF_EXITING:
        return True  # task_is_dying()
    return out_of_memory(s, OomControl(None, None, gfp_mask, order, memcg))


def proc_oom_score(s: OomSystem, task: OomTask) -> int:
    """Return what /proc/PID/oom_score shows: 666 for a task that uses nothing, 0 for one immune.

    Mirrors fs/proc/base.c:proc_oom_score().
    """
    totalpages = s.totalram_pages + s.total_swap_pages
    badness = oom_badness(task, totalpages)
    if badness == LONG_MIN:
        return 0
    share = abs(badness) * 1000 // totalpages
    points = (1000 + (share if badness >= 0 else -share)) * 2
    return points // 3 if points >= 0 else -(-points // 3)


def validate_choice(s: OomSystem, oc: OomControl) -> None:
    """Assert what must hold after select_bad_process().

    :raises AssertionError: if it does not
    """
    if oc.chosen is None or oc.chosen is False:
        return
    victim: OomTask = oc.chosen
    assert not oom_unkillable_task(victim), "init or a kernel thread was chosen"
    assert victim.oom_flag_origin or oom_badness(victim, oc.totalpages) == oc.chosen_points
    if is_memcg_oom(oc):
        assert any(victim in part.tasks for part in _memcg_tree(oc.memcg)), "outside of the cgroup"
    else:
        assert oom_cpuset_eligible(s, victim, oc), "has no memory where it is missing"
        better = [
            p
            for p in s.tasks
            if not p.oom_flag_origin
            and oom_cpuset_eligible(s, p, oc)
            and oom_badness(p, oc.totalpages) > oc.chosen_points
        ]
        assert not better, f"{better[0].comm} has more points than {victim.comm}"
