"""The OOM killer: every report of a real kernel, chosen and printed again; and its rules one by one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.errors import UsageError
from mmcore.machine import Machine
from mmcore.mm import oom_kill as ok
from mmcore.mm.gfp import __GFP_THISNODE, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOFS
from mmcore.mm.internal import PF_EXITING, PF_KTHREAD
from mmcore.mm.oom_kill import OomControl, OomMemcg, OomMm, OomPanic, OomSystem, OomTask
from mmcore.proc.capture import load

CAPTURE = load("n1-256m/oom")
RAM = 54589
ROW = re.compile(
    r"\[ *(\d+)\] +(\d+) +\d+ +(\d+) +\d+ +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(-?\d+) (.*)"
)


def log(section: str) -> list[str]:
    """The lines of a section, without time stamps."""
    return [line.partition("] ")[2] for line in CAPTURE[section].split("\n")]


def reports(section: str) -> list[list[str]]:
    """The lines of each report, from the one that names who asked."""
    out: list[list[str]] = []
    for line in log(section):
        if " invoked oom-killer: " in line:
            out.append([])
        if out:
            out[-1].append(line)
    return out


def task_of(row: str, memcg: OomMemcg | None = None) -> OomTask:
    found = ROW.fullmatch(row)
    assert found is not None, row
    pid, uid, total_vm, anon, file, shmem, pgtables, swap, adj = map(int, found.groups()[:9])
    mm = OomMm(anon, file, shmem, swap, pgtables, total_vm)
    return OomTask(pid, found[10], mm, adj, uid, memcg=memcg)


def again(lines: list[str], **sysctl: int) -> tuple[OomSystem, OomTask]:
    """Give the tasks of a report to the killer; return what it did, and who died first."""
    total = next((line for line in lines if line.startswith("Total swap")), "0")
    swap = int(re.sub(r"\D", "", total)) // 4
    head = re.match(r"(.*) invoked oom-killer: gfp_mask=(\w+)\(.*order=(-?\d+), ", lines[0])
    assert head is not None
    start = lines.index("Tasks state (memory values in pages):")
    rows = [line for line in lines[start + 2 :] if line.startswith("[")]
    summary = next(line for line in lines if line.startswith("oom-kill:"))
    where = re.search(r"oom_memcg=(\S+?),task_memcg", summary)
    root = OomMemcg("/")
    memcg = OomMemcg(where[1], root, max=6144, usage=6144) if where else None
    system = OomSystem(RAM, swap, node_present_pages={0: 65403}, root_memcg=root, **sysctl)
    system.tasks = [task_of(row, memcg) for row in rows]
    init = OomTask(1, "init", OomMm(1))  # is in no table
    system.current = next((t for t in system.tasks if t.comm == head[1]), init)
    assert system.current.comm == head[1]
    if memcg is not None:
        memcg.oom_group = any("memory.oom.group" in line for line in lines)
        assert ok.mem_cgroup_out_of_memory(system, memcg, int(head[2], 16), int(head[3]))
    else:
        oc = OomControl(None, None, int(head[2], 16), int(head[3]))
        assert ok.out_of_memory(system, oc)
        if not sysctl:
            ok.validate_choice(system, oc)
    return system, system.killed[0]


SECTIONS: list[tuple[str, dict[str, int]]] = [
    ("global_dmesg", {}),
    ("alloctask_dmesg", {"sysctl_oom_kill_allocating_task": 1}),
    ("swap_dmesg", {}),
    ("memcg_dmesg", {}),
    ("memcg_group_dmesg", {}),
]


@pytest.mark.parametrize("section,sysctl", SECTIONS)
def test_every_report_of_the_capture_ends_in_the_same_lines(
    section: str, sysctl: dict[str, int]
) -> None:
    found = reports(section)
    assert found
    for lines in found:
        system, victim = again(lines, **sysctl)
        start = lines.index("Tasks state (memory values in pages):")
        printed = [
            line
            for line in lines[start:]
            if line.startswith(("Tasks ", "[", "oom-kill:")) or "Killed process" in line
        ]
        mine = system.log[system.log.index("Tasks state (memory values in pages):") :]
        assert mine == printed
        assert f"pid={victim.pid}," in next(x for x in lines if x.startswith("oom-kill:"))


def test_the_reports_are_as_many_as_the_kernel_says() -> None:
    assert [len(reports(section)) for section, _ in SECTIONS] == [8, 1, 8, 2, 1]


def scores(section: str) -> list[tuple[int, OomTask, int]]:
    """(score, task, total pages) of each process that a section lists."""
    ram = swap = 0
    out = []
    for line in CAPTURE[section].split("\n"):
        if found := re.match(r"totals MemTotal: (\d+) kB", line):
            ram = int(found[1]) // 4
        if found := re.match(r"totals SwapTotal: (\d+) kB", line):
            swap = int(found[1]) // 4
        if not line.startswith("score "):
            continue
        pid, comm, score, adj = re.findall(
            r"pid=(\d+) comm=(\S+) oom_score=(\d+) oom_score_adj=(-?\d+)", line
        )[0]
        kb = {k: int(v) // 4 for k, v in re.findall(r"(\w+):(\d+)", line)}
        mm = OomMm(kb["RssAnon"], kb["RssFile"], kb["RssShmem"], kb["VmSwap"], kb["VmPTE"] << 12)
        out.append((int(score), OomTask(int(pid), comm, mm, int(adj)), ram + swap))
    return out


@pytest.mark.parametrize("section", ["global_before", "swap_before", "memcg_run"])
def test_oom_score_of_the_capture_up_to_the_counters_batch(section: str) -> None:
    """status sums the counters exactly, oom_score reads them within 32 pages each (one CPU)."""
    rows = scores(section)
    assert len(rows) > 2
    for score, task, total in rows:
        s = OomSystem(total)
        best = ok.proc_oom_score(s, task)
        if task.pid == 1 or task.oom_score_adj == ok.OOM_SCORE_ADJ_MIN:
            assert score == best == 0
            continue
        assert task.mm is not None
        values = []
        for lag in (-128, 0, 128):
            mm = OomMm(task.mm.rss + lag, 0, 0, task.mm.swapents, task.mm.pgtables_bytes)
            values.append(
                ok.proc_oom_score(s, OomTask(task.pid, task.comm, mm, task.oom_score_adj))
            )
        assert values[0] <= score <= values[2] and values[2] - values[0] <= 4


def test_oom_score_of_the_capture_from_the_counters_that_the_killer_saw() -> None:
    """The same tasks' rows in the report some seconds later give the scores exactly."""
    rows = {
        t.comm: t for t in map(task_of, (x for x in reports("global_dmesg")[0] if ROW.fullmatch(x)))
    }
    s = OomSystem(RAM)
    for score, task, total in scores("global_before"):
        assert total == RAM
        if task.comm in rows:
            assert ok.proc_oom_score(s, rows[task.comm]) == score, task.comm


def test_golden_scores() -> None:
    """What chapter 9 says of /proc/PID/oom_score, for nothing, half and all of the machine."""
    s = OomSystem(262144)
    for pages, adj, score in [
        (0, 0, 666),
        (131072, 0, 1000),
        (262144, 0, 1333),
        (0, -999, 1),
        (0, -1000, 0),
        (0, 1000, 1332),
    ]:
        assert ok.proc_oom_score(s, OomTask(9, "x", OomMm(pages), adj)) == score
    assert ok.proc_oom_score(OomSystem(54589), OomTask(9, "x", OomMm(), -999)) == 8


def test_badness_counts_swap_and_page_tables_and_scales_adj_by_whole_thousandths() -> None:
    mm = OomMm(100, 20, 3, swapents=7, pgtables_bytes=8191, total_vm=99999)
    assert ok.oom_badness(OomTask(5, "x", mm), 10**6) == 131
    assert ok.oom_badness(OomTask(5, "x", mm, 10), 54589) == 131 + 540
    assert ok.oom_badness(OomTask(5, "x", mm, -10), 54589) == 131 - 540
    assert ok.oom_badness(OomTask(5, "x", mm, 999), 999) == 131


def test_who_is_never_chosen() -> None:
    big = OomMm(10**6)
    immune = [
        OomTask(1, "init", big),
        OomTask(2, "kthreadd", big, flags=PF_KTHREAD),
        OomTask(3, "zombie", None),
        OomTask(4, "adj", big, -1000),
        OomTask(5, "reaped", OomMm(10**6, oom_skip=True)),
        OomTask(6, "vfork", big, in_vfork=True),
    ]
    assert {ok.oom_badness(task, 10**6) for task in immune} == {ok.LONG_MIN}
    s = OomSystem(10**6, tasks=[*immune, OomTask(7, "tiny", OomMm(1))])
    oc = OomControl(None, None, GFP_KERNEL, 0)
    ok.select_bad_process(s, oc)
    assert oc.chosen.comm == "tiny"


def test_of_equals_the_later_dies_and_negative_points_can_win() -> None:
    s = OomSystem(10**6, tasks=[OomTask(n, f"t{n}", OomMm(5), -10) for n in (8, 9, 10)])
    oc = OomControl(None, None, GFP_KERNEL, 0, totalpages=10**6)
    ok.select_bad_process(s, oc)
    assert (oc.chosen.pid, oc.chosen_points) == (10, 5 - 10000)


def test_a_victim_on_its_way_out_stops_the_scan_until_it_is_reaped() -> None:
    tasks = [OomTask(7, "old", OomMm(50)), OomTask(8, "big", OomMm(500))]
    s = OomSystem(1000, tasks=tasks, current=OomTask(9, "asker", OomMm(1)))
    s.tasks.append(s.current or tasks[0])
    oc = OomControl(None, None, GFP_KERNEL, 0)
    assert ok.out_of_memory(s, oc) and oc.chosen is tasks[1]
    again = OomControl(None, None, GFP_KERNEL, 0)
    assert ok.out_of_memory(s, again) and again.chosen is False and len(s.killed) == 1
    sysrq = OomControl(None, None, GFP_KERNEL, -1)
    ok.select_bad_process(s, sysrq)
    assert sysrq.chosen is tasks[1]  # SysRq-f looks at it once more
    assert ok.oom_reap_task(s, tasks[1])
    third = OomControl(None, None, GFP_KERNEL, 0)
    assert ok.out_of_memory(s, third) and third.chosen is tasks[0]


def test_swapoff_goes_first() -> None:
    s = OomSystem(1000, tasks=[OomTask(7, "swapoff", OomMm(1), oom_flag_origin=True)])
    s.tasks.append(OomTask(8, "big", OomMm(900)))
    oc = OomControl(None, None, GFP_KERNEL, 0)
    ok.select_bad_process(s, oc)
    assert oc.chosen.comm == "swapoff" and oc.chosen_points == ok.LONG_MAX


def test_a_request_that_may_not_enter_filesystems_kills_nobody_unless_a_cgroup_is_full() -> None:
    memcg = OomMemcg("/a", OomMemcg("/"), max=100, usage=100)
    task = OomTask(7, "x", OomMm(90), memcg=memcg)
    s = OomSystem(1000, tasks=[task], current=task)
    assert ok.out_of_memory(s, OomControl(None, None, GFP_NOFS, 0)) and not s.killed
    assert ok.mem_cgroup_out_of_memory(s, memcg, GFP_NOFS, 0) and s.killed == [task]
    memcg.usage = 99
    assert ok.mem_cgroup_out_of_memory(s, memcg, GFP_KERNEL, 0) and len(s.killed) == 1


def test_memory_policy_and_cpuset_narrow_pages_and_tasks() -> None:
    m = Machine.boot("2G", nodes=2)
    zonelist = m.node_data[0].node_zonelists[0]
    present = {nid: pgdat.node_present_pages for nid, pgdat in m.node_data.items()}
    here = OomTask(7, "here", OomMm(10), policy_nodes=1, mems_allowed=1)
    there = OomTask(8, "there", OomMm(10**5), policy_nodes=2, mems_allowed=2)
    s = OomSystem(m.totalram_pages, 100, [here, there], here, node_present_pages=present)
    oc = OomControl(zonelist, 1, GFP_HIGHUSER_MOVABLE, 0)
    oc.constraint = ok.constrained_alloc(s, oc)
    assert oc.constraint == ok.CONSTRAINT_MEMORY_POLICY and oc.totalpages == present[0] + 100
    ok.select_bad_process(s, oc)
    assert oc.chosen is here
    cpuset = OomControl(zonelist, None, GFP_HIGHUSER_MOVABLE, 0)
    assert ok.constrained_alloc(s, cpuset) == ok.CONSTRAINT_CPUSET
    assert cpuset.totalpages == present[0] + 100
    soft = OomControl(zonelist, None, GFP_KERNEL, 0)  # no __GFP_HARDWALL
    assert ok.constrained_alloc(s, soft) == ok.CONSTRAINT_NONE
    pinned = OomControl(zonelist, 1, GFP_HIGHUSER_MOVABLE | __GFP_THISNODE, 0)
    assert ok.constrained_alloc(s, pinned) == ok.CONSTRAINT_NONE
    assert pinned.totalpages == m.totalram_pages + 100


def test_a_cgroups_pages_are_its_limit_and_its_swap() -> None:
    memcg = OomMemcg("/a", OomMemcg("/"), max=6144, swap_max=1000)
    assert ok.mem_cgroup_get_max(OomSystem(1, 500), memcg) == 6644
    assert ok.mem_cgroup_get_max(OomSystem(1, 5000), memcg) == 7144
    memcg.swappiness = 0
    assert ok.mem_cgroup_get_max(OomSystem(1, 5000), memcg) == 6144
    oc = OomControl(None, None, GFP_KERNEL, 0, OomMemcg("/0", memcg, max=0, swap_max=0))
    assert ok.constrained_alloc(OomSystem(1), oc) == ok.CONSTRAINT_MEMCG and oc.totalpages == 1


def test_group_kill_takes_the_highest_cgroup_in_the_domain_and_spares_minus_1000() -> None:
    root = OomMemcg("/")
    top = OomMemcg("/a", root, max=50, usage=50, oom_group=True)
    low = OomMemcg("/a/b", top, oom_group=True)
    big = OomTask(7, "big", OomMm(40), memcg=low)
    other = OomTask(8, "other", OomMm(5), memcg=top)
    safe = OomTask(9, "safe", OomMm(5), -1000, memcg=low)
    s = OomSystem(1000, tasks=[big, other, safe], current=big, root_memcg=root)
    assert ok.mem_cgroup_out_of_memory(s, top, GFP_KERNEL, 0)
    assert s.killed == [big, other, big]  # the victim is met again: its mm is still there
    assert s.events["oom_kill"] == 3
    assert top.events == {"oom_kill": 3, "oom_group_kill": 1} and low.events == {"oom_kill": 2}
    assert not safe.group_exit
    assert "Tasks in /a are going to be killed due to memory.oom.group set" in s.log


def test_all_that_share_the_memory_die_even_at_minus_1000_but_init_is_spared() -> None:
    mm = OomMm(50)
    tasks = [OomTask(7, "a", mm), OomTask(8, "b", mm, -1000), OomTask(1, "init", mm)]
    s = OomSystem(1000, tasks=tasks, current=OomTask(9, "asker", OomMm(1)))
    assert ok.out_of_memory(s, OomControl(None, None, GFP_KERNEL, 0))
    assert tasks[1].group_exit and not tasks[2].group_exit
    assert mm.oom_skip and not s.reaper  # pinned by init: nothing to reap
    assert s.log[-1] == "oom killer 7 (a) has mm pinned by 1 (init)"


def test_a_dying_task_gets_memory_instead_of_a_report() -> None:
    task = OomTask(7, "x", OomMm(50), flags=PF_EXITING)
    s = OomSystem(1000, tasks=[task], current=task)
    assert ok.out_of_memory(s, OomControl(None, None, GFP_KERNEL, 0))
    assert task.oom_mm is task.mm and not s.log and s.reaper == [(2.0, task)]


def test_the_reaper_tries_ten_times_and_leaves_shared_memory() -> None:
    task = OomTask(7, "x", OomMm(50, 30, 20, swapents=9, shared_file=10))
    s = OomSystem(1000, tasks=[task], current=OomTask(8, "y", OomMm(1)))
    ok.out_of_memory(s, OomControl(None, None, GFP_KERNEL, 0))
    assert task.mm is not None
    task.mm.mmap_locked = True
    assert not ok.oom_reap_task(s, task) and abs(s.now - 1.0) < 1e-9 and task.mm.oom_skip
    assert s.log[-1] == "oom_reaper: unable to reap pid:7 (x)"
    other = OomTask(9, "z", OomMm(50, 30, 20, shared_file=10))
    ok.mark_oom_victim(s, other)
    assert ok.oom_reap_task(s, other)
    assert s.log[-1].endswith("now anon-rss:0kB, file-rss:40kB, shmem-rss:80kB")


def test_nobody_left_is_a_panic_and_panic_on_oom_comes_first() -> None:
    task = OomTask(7, "x", OomMm(50), -1000)
    s = OomSystem(1000, tasks=[task], current=task)
    with pytest.raises(OomPanic, match="System is deadlocked on memory"):
        ok.out_of_memory(s, OomControl(None, None, GFP_KERNEL, 0))
    assert s.log[-1] == "Out of memory and no killable processes..."
    s.sysctl_panic_on_oom = 1
    with pytest.raises(OomPanic, match="system-wide"):
        ok.out_of_memory(s, OomControl(None, None, GFP_KERNEL, 0))
    s.sysctl_panic_on_oom = 0
    assert not ok.out_of_memory(s, OomControl(None, None, GFP_KERNEL, -1))  # SysRq-f: no panic
    s.oom_killer_disabled = True
    assert not ok.out_of_memory(s, OomControl(None, None, GFP_KERNEL, 0))


def test_reports_are_limited_to_ten_in_five_seconds_but_kills_are_not() -> None:
    s = OomSystem(1000, current=OomTask(6, "asker", OomMm(1)))
    for pid in range(100, 113):
        task = OomTask(pid, "x", OomMm(50))
        s.tasks = [task]
        ok.out_of_memory(s, OomControl(None, None, GFP_KERNEL, 0))
        ok.exit_oom_victim(s, task)
    heads = [line for line in s.log if "invoked oom-killer" in line]
    kills = [line for line in s.log if "Killed process" in line]
    assert (len(heads), len(kills)) == (10, 13)
    s.now = 6.0
    s.tasks = [OomTask(200, "x", OomMm(50))]
    ok.out_of_memory(s, OomControl(None, None, GFP_KERNEL, 0))
    assert "oom_kill_process: 3 callbacks suppressed" in s.log


def test_wrong_use_says_what_is_allowed() -> None:
    with pytest.raises(UsageError, match="between -1000 and 1000"):
        OomTask(7, "x", oom_score_adj=1001)
    with pytest.raises(UsageError, match="current is None"):
        ok.out_of_memory(OomSystem(1000), OomControl(None, None, GFP_KERNEL, 0))


TASKS = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 500), st.integers(-1000, 1000)),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(TASKS, st.integers(1, 10**6), st.integers(0, 11), st.integers(0, 1000))
def test_raising_one_tasks_adj_never_makes_another_the_victim(
    rows: list[tuple[int, int, int]], total: int, which: int, more: int
) -> None:
    def choose(adjs: list[int]) -> int | None:
        tasks = [
            OomTask(100 + i, "t", OomMm(rss, swapents=swap), adj)
            for i, ((rss, swap, _), adj) in enumerate(zip(rows, adjs))
        ]
        s = OomSystem(total, tasks=tasks)
        oc = OomControl(None, None, GFP_KERNEL, 0)
        oc.totalpages = total
        ok.select_bad_process(s, oc)
        ok.validate_choice(s, oc)
        return None if oc.chosen is None else oc.chosen.pid - 100

    adjs = [adj for _, _, adj in rows]
    which %= len(rows)
    before = choose(adjs)
    raised = [min(a + more, 1000) if i == which else a for i, a in enumerate(adjs)]
    after = choose(raised)
    assert after in (before, which)
