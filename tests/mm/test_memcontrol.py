"""Memory cgroups: charging and what stops it, memory.high, files, and a random life of a tree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mmcore.arch.x86.fault import touch
from mmcore.errors import EAGAIN, EBUSY, EINVAL, ENOMEM
from mmcore.kernel.cgroup import cgroup as cg
from mmcore.kernel.fork import spawn
from mmcore.machine import Machine
from mmcore.mm import memcontrol as mc
from mmcore.mm import mmap
from mmcore.mm.gfp import (
    __GFP_NOFAIL,
    __GFP_NORETRY,
    __GFP_RETRY_MAYFAIL,
    GFP_ATOMIC,
    GFP_KERNEL,
    GFP_NOWAIT,
)
from mmcore.mm.internal import PF_MEMALLOC

MIB = 256


def machine(cpus: int = 1, options: str = "") -> tuple[Machine, cg.Cgroup]:
    m = Machine.boot("64M", cpus=cpus)
    mc.mem_cgroup_init(m, options)
    spawn(m, "task")
    assert m.cgrp_dfl_root is not None
    top = m.cgrp_dfl_root.cgrp
    cg.cgroup_subtree_control_write(top, "+memory")
    return m, top


def group(parent: cg.Cgroup, name: str) -> mc.MemCgroup:
    made = cg.cgroup_mkdir(parent, name)
    assert not isinstance(made, int)
    return mc.memcg_of(made)


def charge(memcg: mc.MemCgroup, pages: int, gfp: int = GFP_KERNEL) -> int:
    """Charge one page after the other; return how many could be."""
    for i in range(pages):
        if mc.try_charge_memcg(memcg, gfp, 1):
            return i
    return pages


def steps(m: Machine, memcg: mc.MemCgroup, gfp: int = GFP_KERNEL, pages: int = 1) -> list[str]:
    with m.trace.record("model:memcg_charge") as log:
        mc.try_charge_memcg(memcg, gfp, pages)
    return [e.fields["step"] for e in log]


def test_a_cpu_keeps_the_rest_of_a_batch() -> None:
    m, top = machine(cpus=2)
    g = group(top, "g")
    assert charge(g, 1) == 1
    assert (g.memory.usage, m.memcg.memcg_stock[0].nr_pages) == (64, 63)
    charge(g, 63)
    assert (g.memory.usage, m.memcg.memcg_stock[0].nr_pages) == (64, 0)
    m.this_cpu = 1
    charge(g, 1)
    assert (g.memory.usage, m.memcg.memcg_stock[1].nr_pages) == (128, 63)
    other = group(top, "other")
    charge(other, 1)  # this CPU keeps pages for one group only
    assert (g.memory.usage, other.memory.usage) == (65, 64)
    mc.validate_memcg(m, [(g, 65), (other, 1)])


def test_the_ladder_of_a_full_group() -> None:
    m, top = machine()
    g = group(top, "g")
    mc.memory_max_write(g, "256K")
    assert charge(g, 64) == 64
    got = steps(m, g)
    assert got[:3] == ["over_limit", "over_limit", "reclaim"]
    # 18 rounds: the one that drains, 16 retries, and the one that has none left.
    assert got.count("reclaim") == 18 and got.count("drain") == 1
    assert got[-2:] == ["oom", "nomem"]
    assert g.memory_events[mc.MEMCG_MAX] == 18 and g.memory_events[mc.MEMCG_OOM] == 1
    assert steps(m, g, GFP_NOWAIT) == ["over_limit", "over_limit", "nomem"]
    assert steps(m, g, GFP_KERNEL | __GFP_NORETRY).count("reclaim") == 2
    assert "oom" not in steps(m, g, GFP_KERNEL | __GFP_RETRY_MAYFAIL)
    assert g.memory.usage == 64


def test_who_may_exceed_the_limit() -> None:
    m, top = machine()
    g = group(top, "g")
    mc.memory_max_write(g, "256K")
    charge(g, 64)
    before = g.memory_events[mc.MEMCG_MAX]
    assert steps(m, g, GFP_ATOMIC)[-1] == "force"
    assert g.memory_events[mc.MEMCG_MAX] == before + 1
    assert steps(m, g, GFP_KERNEL | __GFP_NOFAIL)[-1] == "force"
    assert m.current is not None
    m.current.flags |= PF_MEMALLOC
    assert steps(m, g)[-1] == "force"
    assert g.memory.usage == 67 > g.memory.max


def test_a_large_folio_is_refused_without_a_kill() -> None:
    m, top = machine()
    g = group(top, "g")
    mc.memory_max_write(g, "256K")
    killed: list[Any] = []

    def kill(m: Machine, oc: Any) -> bool:
        killed.append(oc)
        return False

    m.hooks.out_of_memory = kill
    assert mc.try_charge_memcg(g, GFP_KERNEL, 512) == -ENOMEM
    assert not killed and not g.memory_events[mc.MEMCG_OOM]


def test_reclaim_that_gets_something_goes_on_without_end_of_retries() -> None:
    m, top = machine()
    g = group(top, "g")
    mc.memory_max_write(g, "256K")
    charge(g, 64)

    def reclaim(memcg: mc.MemCgroup, *args: Any) -> int:
        mc.mem_cgroup_cancel_charge(memcg, 1)
        return 1

    m.memcg.hooks.try_to_free_mem_cgroup_pages = reclaim
    assert charge(g, 100) == 100
    assert g.memory_events[mc.MEMCG_MAX] == 100 and not g.memory_events[mc.MEMCG_OOM]


def test_events_are_counted_above_too() -> None:
    for options, above in (("", 1), ("memory_localevents", 0)):
        _, top = machine(options=options)
        p = group(top, "p")
        cg.cgroup_subtree_control_write(p.css.cgroup, "+memory")
        c = group(p.css.cgroup, "c")
        mc.memcg_memory_event(c, mc.MEMCG_OOM_KILL)
        assert c.memory_events[mc.MEMCG_OOM_KILL] == 1
        assert p.memory_events[mc.MEMCG_OOM_KILL] == above
        assert p.memory_events_local[mc.MEMCG_OOM_KILL] == 0


@pytest.mark.parametrize(
    ("mib", "jiffies"), [(101, 1), (102, 6), (105, 39), (110, 159), (117, 462), (118, 500)]
)
def test_the_wait_above_high(mib: int, jiffies: int) -> None:
    """HZ is 250, high 100 MiB, a batch of 64 pages."""
    overage = mc.calculate_overage(mib * MIB, 100 * MIB)
    assert min(mc.calculate_high_delay(250, 64, overage), 500) == jiffies


def test_a_task_waits_when_reclaim_gets_nothing() -> None:
    m, top = machine()
    g = group(top, "g")
    assert m.current is not None
    cg.cgroup_attach_task(g.css.cgroup, m.current)
    slept: list[int] = []
    m.memcg.hooks.schedule_timeout_killable = lambda m, t: slept.append(t)
    mc.memory_high_write(g, "4M")
    charge(g, 1024 + 64)
    assert not slept and m.current.memcg_nr_pages_over_high == 64
    mc.resume_user_mode_work(m)
    wait = mc.calculate_high_delay(m.config.HZ, 64, (64 << 20) // 1024)
    assert slept == [wait] and wait > m.config.HZ // 100
    # One attempt with what is due, then 17 with 32 pages.
    assert g.memory_events[mc.MEMCG_HIGH] == 17


def test_a_fault_pays_on_its_way_back_to_user_space() -> None:
    m, top = machine()
    g = group(top, "g")
    task = m.current
    assert task is not None and task.mm is not None
    cg.cgroup_attach_task(g.css.cgroup, task)
    slept: list[int] = []
    m.memcg.hooks.schedule_timeout_killable = lambda m, t: slept.append(t)
    m.transparent_hugepage_enabled = "never"
    mc.memory_high_write(g, "1M")
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    start = mmap.do_mmap(task.mm, None, 0, 4 << 20, mmap.PROT_READ | mmap.PROT_WRITE, anonymous)
    pages = iter(range(start, start + (4 << 20), 4096))
    # A write by the kernel, as from read(), is paid when the system call returns.
    while not task.memcg_nr_pages_over_high:
        touch(m, next(pages), "w", user=False)
    assert not slept
    touch(m, next(pages), "w")
    assert not task.memcg_nr_pages_over_high
    assert g.memory_events[mc.MEMCG_HIGH] > 0


def test_files_refuse_what_they_should() -> None:
    _, top = machine()
    g = group(top, "g")
    for write in (mc.memory_min_write, mc.memory_low_write, mc.memory_high_write, mc.memory_max_write):  # fmt: skip
        assert write(g, "12 apples") == -EINVAL
        assert write(g, "1M\n") == 3
    assert mc.memory_reclaim(g, "1M swappiness=201") == -EINVAL
    assert mc.memory_reclaim(g, "1M") == -EAGAIN
    assert mc.memory_oom_group_write(g, "2") == -EINVAL


def test_a_removed_group_stays_while_pages_are_charged_to_it() -> None:
    _, top = machine()
    g = group(top, "g")
    page = mc.try_charge_memcg(g, GFP_KERNEL, 1)
    assert page == 0
    cg.css_get(g.css)  # what a charged folio holds
    assert cg.cgroup_rmdir(g.css.cgroup) == 0
    assert g.memory.usage == 1  # the stock was drained, the page stays
    assert top.nr_dying_descendants == 1
    mc.mem_cgroup_cancel_charge(g, 1)
    cg.css_put(g.css)
    assert top.nr_dying_descendants == 0
    assert g.memory.usage == 0


def test_a_group_with_a_task_cannot_be_removed() -> None:
    m, top = machine()
    g = group(top, "g")
    assert m.current is not None
    cg.cgroup_attach_task(g.css.cgroup, m.current)
    assert cg.cgroup_rmdir(g.css.cgroup) == -EBUSY


class Tree(RuleBasedStateMachine):
    """Groups made, charged, limited, squeezed and removed on two CPUs; everything adds up after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.m, self.top = machine(cpus=2, options="memory_recursiveprot")
        self.groups: list[mc.MemCgroup] = []
        self.held: list[list[Any]] = []
        self.m.memcg.hooks.try_to_free_mem_cgroup_pages = self._reclaim
        self.m.hooks.out_of_memory = lambda m, oc: False

    def _reclaim(self, memcg: mc.MemCgroup, nr: int, *args: Any) -> int:
        left = max(nr, 32)
        got = 0
        for entry in self.held:
            if not mc.mem_cgroup_is_descendant(entry[0], memcg):
                continue
            take = min(entry[1] // 2, left - got)
            mc.mem_cgroup_cancel_charge(entry[0], take)
            entry[1] -= take
            got += take
        return got

    def pick(self, i: int) -> mc.MemCgroup:
        return self.groups[i % len(self.groups)]

    @rule(i=st.integers(0, 99), inner=st.booleans())
    def mkdir(self, i: int, inner: bool) -> None:
        parent = self.pick(i).css.cgroup if inner and self.groups else self.top
        cg.cgroup_subtree_control_write(parent, "+memory")
        made = cg.cgroup_mkdir(parent, f"g{len(self.held)}-{len(self.groups)}-{i}")
        if not isinstance(made, int) and "memory" in made.subsys:
            self.groups.append(mc.memcg_of(made))

    @precondition(lambda self: self.groups)
    @rule(i=st.integers(0, 99), nr=st.sampled_from([1, 1, 2, 8, 63, 64, 65, 512]), cpu=st.integers(0, 1), gfp=st.sampled_from([GFP_KERNEL, GFP_NOWAIT, GFP_ATOMIC]))  # fmt: skip
    def charge(self, i: int, nr: int, cpu: int, gfp: int) -> None:
        self.m.this_cpu = cpu
        g = self.pick(i)
        limit = g.memory.max
        before = g.memory.usage
        failed = mc.try_charge_memcg(g, gfp, nr)
        if not failed:
            self.held.append([g, nr])
        elif gfp == GFP_ATOMIC:
            raise AssertionError("__GFP_HIGH is never refused")
        if gfp != GFP_ATOMIC:
            assert g.memory.usage <= max(limit, before)

    @precondition(lambda self: self.held)
    @rule(i=st.integers(0, 999))
    def uncharge(self, i: int) -> None:
        g, nr = self.held.pop(i % len(self.held))
        mc.mem_cgroup_cancel_charge(g, nr)

    @precondition(lambda self: self.groups)
    @rule(i=st.integers(0, 99), what=st.integers(0, 3), pages=st.integers(0, 2000))
    def limit(self, i: int, what: int, pages: int) -> None:
        write = (mc.memory_min_write, mc.memory_low_write, mc.memory_high_write, mc.memory_max_write)[what]  # fmt: skip
        assert write(self.pick(i), str(pages * 4096)) > 0

    @precondition(lambda self: self.groups)
    @rule(i=st.integers(0, 99))
    def drain(self, i: int) -> None:
        g = self.pick(i)
        mc.drain_all_stock(g)
        assert g.memory.usage == sum(n for h, n in self.held if mc.mem_cgroup_is_descendant(h, g))

    @precondition(lambda self: self.groups)
    @rule(i=st.integers(0, 99))
    def rmdir(self, i: int) -> None:
        g = self.pick(i)
        if any(h is g for h, _ in self.held):
            return
        if cg.cgroup_rmdir(g.css.cgroup) == 0:
            self.groups.remove(g)

    @invariant()
    def adds_up(self) -> None:
        mc.validate_memcg(self.m, [(g, n) for g, n in self.held])

    @invariant()
    def protection_is_divided(self) -> None:
        for g in sorted(self.groups, key=lambda g: g.css.cgroup.level):
            mc.mem_cgroup_calculate_protection(self.m, None, g)
        for g in self.groups:
            below = [h for h in self.groups if mc.parent_mem_cgroup(h) is g and h.memory.usage]
            if mc.parent_mem_cgroup(g) is not None and g.memory.usage >= g.memory.elow:
                assert sum(h.memory.elow for h in below) <= g.memory.elow or not below


Tree.TestCase.settings = settings(
    deadline=None, derandomize=True, max_examples=15, stateful_step_count=40
)
TestTree = Tree.TestCase
