"""The TLB: entries, identifiers, generations, and who is told about a flush."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mmcore.arch.x86 import tlb
from mmcore.arch.x86.fault import Translation, touch
from mmcore.arch.x86.pgtable import PAGE_NONE, PAGE_READONLY, PAGE_SHARED, pfn_pte
from mmcore.arch.x86.tlb import Tlb, pte_needs_flush, validate_tlb
from mmcore.config import Config
from mmcore.errors import EINVAL, UsageError
from mmcore.kernel.fork import TaskStruct, kernel_clone, spawn, switch_to
from mmcore.machine import Machine, bare_zone
from mmcore.mm import madvise, memory
from mmcore.mm.mmap import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, do_mmap, do_munmap
from mmcore.mm.mprotect import do_mprotect

PG = 4096
A = 0x200000000000


def two_cpus(pages: int = 16384) -> tuple[Machine, TaskStruct, TaskStruct]:
    """Two threads of one process, each on its CPU; the first runs now."""
    m = bare_zone(pages, cpus=2).machine
    m.transparent_hugepage_enabled = "never"
    a = spawn(m, "a")
    b = kernel_clone(a, vm=True)
    m.this_cpu = 1
    switch_to(m, b)
    m.this_cpu = 0
    switch_to(m, a)
    return m, a, b


def mapped(m: Machine, pages: int, addr: int = A) -> int:
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    assert do_mmap(m.current.mm, None, addr, pages * PG, 3, flags) == addr
    for i in range(pages):
        assert isinstance(touch(m, addr + i * PG, "w"), Translation)
    return addr


def flushes(m: Machine, what) -> list[tuple[int, int]]:
    with m.trace.record("tlb:tlb_flush") as log:
        what()
    return [(e.fields["reason"], e.fields["pages"]) for e in log]


def test_a_set_holds_ways_entries_and_drops_the_oldest():
    t = Tlb(8, 2)  # 4 sets
    for vpn in (0, 4, 0, 8):  # all in set 0; 4 is the least recently used when 8 comes
        t.access(vpn)
    assert (t.hits, t.misses) == (1, 3)
    assert t.access(0) and not t.access(4)
    assert len(t) == 2


def test_reach_of_page_sizes():
    """64 entries reach 256 KiB of 4 KiB pages, and 128 MiB of 2 MiB pages."""
    for level, pages in ((1, 64), (2, 64 * 512)):
        t = Tlb(64, 4)
        step = tlb.LEVEL_PAGES[level]
        for _ in range(2):
            for vpn in range(0, pages, step):
                t.access(vpn, level=level)
        assert (t.hits, t.misses) == (64, 64)


@pytest.mark.parametrize(("entries", "ways"), [(0, 1), (64, 0), (10, 4), (-4, 2)])
def test_impossible_geometries(entries, ways):
    with pytest.raises(UsageError, match="cannot have"):
        Tlb(entries, ways)


def test_global_entries_survive_a_cr3_write_and_match_every_tag():
    t = Tlb()
    t.fill(1, 0x1000, 1, 5, 0x100)
    t.fill(1, 0x2000, 1, 6, 0)
    t.flush_pcid(1)
    assert t.lookup(3, 0x1000) and not t.lookup(1, 0x2000)
    t.flush_all()
    assert len(t) == 0


def test_six_identifiers_round_robin():
    m = bare_zone(2048).machine
    tasks = [spawn(m, str(i)) for i in range(7)]
    state = tlb.cpu_tlbstate(m)
    # The first task took slot 1 (next_asid starts at 1), then 2 .. 5, 0, 1.
    asids = []
    for t in tasks:
        switch_to(m, t)
        asids.append(state.loaded_mm_asid)
    assert sorted(set(asids)) == [0, 1, 2, 3, 4, 5]
    assert len([c for c in state.ctxs if c.ctx_id == tasks[-1].mm.context.ctx_id]) == 1


def test_coming_back_to_a_known_context_needs_no_flush():
    m = bare_zone(2048).machine
    a, b = spawn(m, "a"), spawn(m, "b")
    assert flushes(m, lambda: switch_to(m, a)) == [(0, 0)]
    assert flushes(m, lambda: switch_to(m, b)) == [(0, 0)]
    tlb.inc_mm_tlb_gen(a.mm)  # somebody changed a's tables meanwhile
    assert flushes(m, lambda: switch_to(m, a)) == [(0, -1)]


def test_without_pcid_every_switch_flushes():
    m = bare_zone(2048).machine
    m.config = Config(cpu_pcid=False)
    a = spawn(m, "a")
    spawn(m, "b")
    assert flushes(m, lambda: switch_to(m, a)) == [(0, -1)]
    assert tlb.cpu_tlbstate(m).loaded_mm_asid == 0


@pytest.mark.parametrize(("pages", "shown"), [(1, 1), (33, 33), (34, -1)])
def test_the_ceiling_of_33_with_two_threads(pages, shown):
    """MADV_DONTNEED of 33 and 34 pages: the reasons and pages that a real 6.12.117 printed."""
    m, a, _ = two_cpus()
    mapped(m, 64)
    seen = flushes(m, lambda: madvise.madvise(a.mm, A, pages * PG, madvise.MADV_DONTNEED))
    assert sorted(seen) == [(1, shown), (3, shown), (4, shown)]
    validate_tlb(m)


def test_munmap_of_20_pages_that_start_a_pmd():
    m, a, _ = two_cpus()
    mapped(m, 20)
    assert {p for _, p in flushes(m, lambda: do_munmap(a.mm, A, 20 * PG))} == {20}


def test_mprotect_flushes_in_both_directions_but_not_from_prot_none():
    m, a, _ = two_cpus()
    mapped(m, 8)
    for prot in (1, 3):
        seen = flushes(m, lambda p=prot: do_mprotect(a.mm, A, 5 * PG, p))
        assert {p for _, p in seen} == {5}
    do_mprotect(a.mm, A, 5 * PG, 0)
    assert flushes(m, lambda: do_mprotect(a.mm, A, 5 * PG, 3)) == []


def test_a_lazy_cpu_is_not_interrupted():
    m, a, b = two_cpus()
    mapped(m, 8)
    m.this_cpu = 1
    switch_to(m, None)  # a kernel thread runs there
    m.this_cpu = 0
    m.current = a
    seen = flushes(m, lambda: madvise.madvise(a.mm, A, PG, madvise.MADV_DONTNEED))
    assert sorted(seen) == [(3, 1), (4, 1)]
    m.this_cpu = 1
    assert flushes(m, lambda: switch_to(m, b)) == [(0, -1)], "it catches up when it comes back"


def test_fork_flushes_everything():
    m, a, _ = two_cpus()
    mapped(m, 4)
    assert {p for _, p in flushes(m, lambda: kernel_clone(a))} == {-1}
    validate_tlb(m)


def test_a_partial_flush_never_skips_a_generation():
    """Two flushes that arrive in reverse order: the first to arrive flushes everything."""
    m, a, _ = two_cpus()
    mapped(m, 4)
    mm = a.mm
    state = tlb.cpu_tlbstate(m)
    gen = state.ctxs[state.loaded_mm_asid].tlb_gen
    tlb.inc_mm_tlb_gen(mm)
    second = tlb.inc_mm_tlb_gen(mm)
    info = tlb.FlushTlbInfo(mm, A, A + PG, second, 0, 12, False)
    assert flushes(m, lambda: tlb.flush_tlb_func(m, info)) == [(3, -1)]
    first = tlb.FlushTlbInfo(mm, A, A + PG, gen + 1, 0, 12, False)
    assert flushes(m, lambda: tlb.flush_tlb_func(m, first)) == []


@pytest.mark.parametrize(
    ("old", "new", "needed"),
    [
        (0, pfn_pte(1, PAGE_SHARED), False),
        (pfn_pte(1, PAGE_NONE), pfn_pte(1, PAGE_SHARED), False),
        (pfn_pte(1, PAGE_SHARED), pfn_pte(2, PAGE_SHARED), True),
        (pfn_pte(1, PAGE_SHARED), pfn_pte(1, PAGE_READONLY), True),
        (pfn_pte(1, PAGE_READONLY), pfn_pte(1, PAGE_SHARED), True),  # RW on any change
        (pfn_pte(1, PAGE_SHARED), pfn_pte(1, PAGE_SHARED) | 1 << 11, False),  # software bits
        (pfn_pte(1, PAGE_SHARED) | 1 << 6, pfn_pte(1, PAGE_SHARED), True),  # dirty cleared
        (pfn_pte(1, PAGE_SHARED), pfn_pte(1, PAGE_SHARED) | 1 << 6, False),  # dirty set
        (pfn_pte(1, PAGE_SHARED), pfn_pte(1, PAGE_SHARED) & ~0x20, False),  # accessed ignored
        (pfn_pte(1, PAGE_SHARED), 0, True),
    ],
)
def test_when_a_change_needs_a_flush(old, new, needed):
    assert pte_needs_flush(old, new) is needed


def test_the_ceiling_is_tunable():
    m, a, _ = two_cpus()
    mapped(m, 8)
    assert tlb.tlb_set_single_page_flush_ceiling(m, -1) == -EINVAL
    assert tlb.tlb_set_single_page_flush_ceiling(m, 2) == 0
    seen = flushes(m, lambda: madvise.madvise(a.mm, A, 3 * PG, madvise.MADV_DONTNEED))
    assert {p for _, p in seen} == {-1}


def test_a_reversed_range_is_refused():
    m, a, _ = two_cpus()
    with pytest.raises(UsageError, match="reversed"):
        tlb.flush_tlb_mm_range(m, a.mm, 8192, 4096, 12, False)


@pytest.mark.parametrize(("pages", "left"), [(1, 2), (33, 1), (34, 0)])
def test_kernel_ranges_are_dropped_on_every_cpu(pages, left):
    m, _, _ = two_cpus()
    base = m.paging.layout.page_offset_base
    for cpu in (0, 1):
        t = tlb.cpu_tlbstate(m, cpu).tlb
        t.flush_all()
        for vpn in (0, 20, 100):
            t.fill(0, base + vpn * PG, 1, vpn, 0x100)
    tlb.flush_tlb_kernel_range(m, base, base + pages * PG)
    for cpu in (0, 1):
        assert len(tlb.cpu_tlbstate(m, cpu).tlb) == left


def test_the_kernels_own_tables_hold_slot_0_from_the_start():
    """The first task gets ASID 1; back to init_mm means ASID 0, with nothing to flush."""
    m = bare_zone(4096).machine
    task = spawn(m, "task")
    state = tlb.cpu_tlbstate(m)
    assert (state.loaded_mm, state.loaded_mm_asid) == (task.mm, 1)
    with m.trace.record("tlb:tlb_flush") as log:
        tlb.switch_mm_irqs_off(m, None)
    assert state.loaded_mm_asid == 0 and [e.fields["pages"] for e in log] == [0]


def test_the_checker_finds_a_stale_entry():
    from mmcore.arch.x86.pgtable import unmap_range
    from mmcore.errors import KernelBug

    m, a, _ = two_cpus()
    mapped(m, 2)
    unmap_range(a.mm, A, 1)  # behind the TLB's back
    with pytest.raises(KernelBug, match="is stale"):
        validate_tlb(m)


class StaleRights(RuleBasedStateMachine):
    """Whatever two threads map, protect, drop and touch: no TLB allows more than the tables."""

    @initialize()
    def start(self):
        self.m, self.a, self.b = two_cpus(4096)
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
        assert do_mmap(self.a.mm, None, A, 64 * PG, 3, flags) == A

    @rule(cpu=st.integers(0, 1))
    def switch_cpu(self, cpu):
        self.m.this_cpu = cpu
        self.m.current = (self.a, self.b)[cpu]
        if tlb.cpu_tlbstate(self.m).is_lazy:
            switch_to(self.m, self.m.current)

    @rule(page=st.integers(0, 63), kind=st.sampled_from("rw"))
    def touch(self, page, kind):
        touch(self.m, A + page * PG, kind)

    @rule(page=st.integers(0, 60), n=st.integers(1, 40), prot=st.sampled_from([0, 1, 3]))
    def protect(self, page, n, prot):
        do_mprotect(self.a.mm, A + page * PG, min(n, 64 - page) * PG, prot)

    @rule(page=st.integers(0, 60), n=st.integers(1, 40))
    def drop(self, page, n):
        n = min(n, 64 - page)
        madvise.madvise(self.a.mm, A + page * PG, n * PG, madvise.MADV_DONTNEED)

    @rule()
    def idle(self):
        switch_to(self.m, None)
        self.m.current = (self.a, self.b)[self.m.this_cpu]

    @rule()
    def fork(self):
        if len(self.a.children) < 3 and not tlb.cpu_tlbstate(self.m).is_lazy:
            kernel_clone(self.m.current)

    @invariant()
    def safe(self):
        if hasattr(self, "m"):
            validate_tlb(self.m)
            memory.validate_mappings(self.m)


StaleRights.TestCase.settings = settings(
    max_examples=20, stateful_step_count=25, deadline=None, derandomize=True
)
TestStaleRights = StaleRights.TestCase
