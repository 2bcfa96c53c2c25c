"""Tests of the OOM killer on a whole machine: faults run out of memory, and somebody dies."""

from typing import Any

import pytest

from mmcore import Machine
from mmcore.arch.x86.fault import touch
from mmcore.errors import ENOMEM
from mmcore.kernel.cgroup import cgroup as cg
from mmcore.kernel.fork import spawn, switch_to
from mmcore.machine import bare_zone
from mmcore.mm import memcontrol as mc
from mmcore.mm.gfp import __GFP_NORETRY, GFP_KERNEL
from mmcore.mm.mmap import (
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    sys_mmap,
)
from mmcore.mm.oom_kill import OomPanic
from mmcore.mm.oom_machine import OomKiller, oom_init
from mmcore.mm.vmstat import NR_FREE_PAGES


def machine(pages: int = 2048) -> tuple[Machine, OomKiller]:
    m = bare_zone(pages).machine
    killer = oom_init(m)
    killer.tasks.append(spawn(m, "init"))  # pid 1, which is never killed
    return m, killer


def fill(m: Machine, task: Any, pages: int) -> int:
    """Let @task touch @pages new pages; return how many it got before it was killed."""
    switch_to(m, task)
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    start = sys_mmap(task.mm, 0, pages << 12, PROT_READ | PROT_WRITE, flags, None, 0)
    assert start > 0
    for i in range(pages):
        touch(m, start + (i << 12), "w")
        if task.fatal_signal:
            return i
    return pages


def test_a_fault_kills_the_largest() -> None:
    """The asker is small; the large one dies, its pages come back, and the asker goes on."""
    m, killer = machine()
    large, small = spawn(m, "large"), spawn(m, "small")
    killer.tasks += [large, small]
    assert fill(m, large, 1200) == 1200
    assert fill(m, small, 1000) == 1000
    assert large.mm is None and small.mm is not None
    assert [v.comm for v in killer.system.killed] == ["large"]
    log = "\n".join(killer.system.log)
    assert log.startswith("small invoked oom-killer: gfp_mask=0x")
    assert f"Out of memory: Killed process {large.pid} (large) total-vm:" in log
    assert killer.system.events["oom_kill"] == 1


def test_the_printed_report_is_read_back() -> None:
    """The decoder finds in the model's own report what the model did."""
    from mmcore.report import oom_report

    m, killer = machine()
    one, two = spawn(m, "one"), spawn(m, "two")
    killer.tasks += [one, two]
    killer.oom_score_adj[one.pid] = -1000
    fill(m, one, 1200)
    fill(m, two, 1000)
    (row,) = [oom_report.to_dict(a) for a in oom_report.examine("\n".join(killer.system.log))]
    assert row["victim"]["comm"] == "two" and row["ranking"]["verdict"] == "agrees"
    assert two.fatal_signal and one.mm is not None


def test_scores_follow_the_counters() -> None:
    m, killer = machine()
    task = spawn(m, "task")
    killer.tasks.append(task)
    before = killer.oom_score(task)
    fill(m, task, 900)
    total = m.totalram_pages
    points = 900 + task.mm.pgtables_bytes // 4096
    assert before in (666, 667)
    assert killer.oom_score(task) == (1000 + points * 1000 // total) * 2 // 3


def test_a_cgroup_at_its_limit_kills_inside() -> None:
    """The larger of the two inside dies, not the largest of the machine; with oom.group both die."""
    for whole in (False, True):
        m = Machine.boot("64M")
        mc.mem_cgroup_init(m, "")
        killer = oom_init(m)
        init, outside, one, two = (spawn(m, name) for name in ("init", "outside", "one", "two"))
        killer.tasks += [init, outside, one, two]
        assert m.cgrp_dfl_root is not None
        cg.cgroup_subtree_control_write(m.cgrp_dfl_root.cgrp, "+memory")
        made = cg.cgroup_mkdir(m.cgrp_dfl_root.cgrp, "g")
        assert not isinstance(made, int)
        group = mc.memcg_of(made)
        group.oom_group = whole
        for task in (one, two):
            cg.cgroup_attach_task(made, task)
        fill(m, outside, 900)
        fill(m, one, 300)
        fill(m, two, 200)
        mc.memory_max_write(group, "1M")
        assert mc.try_charge_memcg(group, GFP_KERNEL | __GFP_NORETRY, 256) in (0, -ENOMEM)
        switch_to(m, two)
        assert mc.mem_cgroup_out_of_memory(group, GFP_KERNEL, 0)
        assert outside.mm is not None and one.mm is None
        assert two.fatal_signal is whole
        assert group.memory_events[mc.MEMCG_OOM_KILL] == (3 if whole else 1)
        assert group.memory_events[mc.MEMCG_OOM_GROUP_KILL] == whole
        log = killer.system.log
        assert any("oom-kill:constraint=CONSTRAINT_MEMCG" in line for line in log)
        assert any(line.startswith("Memory cgroup out of memory: Killed process") for line in log)


def test_nobody_left_is_a_panic() -> None:
    m, killer = machine()
    task = spawn(m, "task")
    killer.tasks.append(task)
    killer.oom_score_adj[task.pid] = -1000
    with pytest.raises(OomPanic, match="System is deadlocked on memory"):
        fill(m, task, 4000)
    assert m.node_data[0].node_zones[0].vm_stat[NR_FREE_PAGES] >= 0
