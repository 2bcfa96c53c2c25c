"""The tree of page tables against a dict of pages."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86.fault import GeneralProtection, PageFault, Translation, access
from mmcore.arch.x86.pgtable import *
from mmcore.errors import KernelBug, UsageError
from mmcore.kernel.fork import mm_alloc
from mmcore.machine import Machine, bare_zone
from mmcore.mm import memory, mmu_gather
from mmcore.mm.mm import VM_READ, VM_SHARED, VM_WRITE

RW = vm_get_page_prot(VM_READ | VM_WRITE | VM_SHARED)
RO = vm_get_page_prot(VM_READ)
NONE = vm_get_page_prot(0)


def test_indices_of_the_chapters_address():
    found = table_indices(0x7F3A12345678)
    assert found == [("PGD", 254), ("PUD", 232), ("PMD", 145), ("PTE", 325), ("offset", 0x678)]
    assert table_indices(0xFF11000000100000, 5)[:2] == [("PGD", 273), ("P4D", 0)]


def test_walk_of_an_empty_space_ends_at_the_top():
    mm = mm_alloc(None)
    assert walk(mm, 0) == [(4, 0, 0)]
    assert lookup_address(mm, 0) == (None, 0)
    assert translate(mm, 0x1000) is None


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize(("leaf", "pages"), [(1, 1), (2, 512), (3, 512 * 512)])
def test_leaves_of_three_sizes(levels, leaf, pages):
    mm = mm_alloc(None, levels)
    va, pfn = 0x40000000, 0x40000
    assert map_range(mm, va, pfn, pages, RW, level=leaf)
    steps = walk(mm, va + 0x123)
    assert [s[0] for s in steps] == list(range(levels, leaf - 1, -1))
    assert decode_pte(steps[-1][2], leaf).pfn == pfn
    assert translate(mm, va + (pages << 12) - 1) == ((pfn + pages) << 12) - 1
    assert translate(mm, va + (pages << 12)) is None
    assert mm.pgtables_bytes == (4 - leaf) * 4096  # PGD and P4D tables are not counted
    validate_pgtables(mm)


def test_splitting_keeps_every_translation():
    mm = mm_alloc(None)
    map_range(mm, 1 << 30, 1 << 18, 1 << 18, RW, level=3)
    assert unmap_range(mm, (1 << 30) + 0x5000, 1) == 1
    assert mm.pgtables_bytes == 3 * 4096
    for off in (0, 0x4FFF, 0x6000, 0x200000, 0x3FFFFFFF):
        assert translate(mm, (1 << 30) + off) == (1 << 30) + off
    assert translate(mm, (1 << 30) + 0x5000) is None
    validate_pgtables(mm)


def test_splitting_moves_the_pat_bit():
    mm = mm_alloc(None)
    map_range(mm, 0, 0, 512, RW | 1 << 7, level=2)  # PAT of a 4 KiB entry
    entry = walk(mm, 0)[-1][2]
    assert entry >> 12 & 1 and entry >> 7 & 1
    protect_range(mm, 0, 1, RO)
    steps = walk(mm, 0x1000)
    assert steps[-1][0] == 1 and steps[-1][2] >> 7 & 1 and steps[-1][2] & PTE_PFN_MASK == 4096


def test_protect_to_none_and_back_is_the_identity():
    mm = mm_alloc(None)
    map_range(mm, 0x1000, 77, 3, RW)
    before = [walk(mm, 0x1000 * i)[-1] for i in (1, 2, 3)]
    assert protect_range(mm, 0x1000, 3, NONE) == 3
    assert translate(mm, 0x1000) == 77 << 12  # the kernel still knows the page
    assert isinstance(access(None, mm, 0x1000, "r"), PageFault)  # the processor does not
    assert protect_range(mm, 0x1000, 3, RW) == 3
    assert [walk(mm, 0x1000 * i)[-1] for i in (1, 2, 3)] == before


def test_the_kernel_splits_its_direct_map_and_counts_it():
    m = Machine.boot("1G")
    mm_alloc(m)
    base = m.paging.layout.page_offset_base
    assert protect_range(m.init_mm, base + 0x400000, 1, PAGE_KERNEL_RO) == 1
    from mmcore.mm.vmstat import DIRECT_MAP_LEVEL2_SPLIT

    assert m.vm_event[DIRECT_MAP_LEVEL2_SPLIT] == 1
    assert walk(m.init_mm, base + 0x400000)[-2][2] & 0xFFF == 0x063  # _KERNPG_TABLE
    assert translate(m.init_mm, base + 0x400000) == 0x400000


def test_every_process_shares_the_kernels_tables():
    m = Machine.boot("1G")
    a, b = mm_alloc(m), mm_alloc(m)
    assert a.pgd[256:] == b.pgd[256:] == m.init_mm.pgd[256:]
    assert list(a.pgd[:256]) == [0] * 256
    va = m.paging.layout.page_offset_base + 0x1234000
    assert translate(a, va) == translate(b, va) == 0x1234000


def test_tables_cost_real_pages_and_come_back():
    m = Machine.boot("1G")
    mm = mm_alloc(m)
    zone = m.pfn_zone(mm.pgd.pfn)

    def free() -> int:
        from mmcore.mm import page_alloc
        from mmcore.mm.vmstat import NR_FREE_PAGES

        page_alloc.drain_all_pages(m, None)
        return sum(z.vm_stat[NR_FREE_PAGES] for p in m.node_data.values() for z in p.node_zones)

    from mmcore.mm.vmstat import NR_PAGETABLE

    before, tables = free(), zone.zone_pgdat.vm_stat[NR_PAGETABLE]
    for i in range(8):
        map_page(mm, i << 30, i, RW)
    assert before - free() == 8 + 8 + 1  # PTE and PMD tables, one PUD table
    assert zone.zone_pgdat.vm_stat[NR_PAGETABLE] - tables == 17
    unmap_range(mm, 0, 8 << 18)
    tlb = mmu_gather.tlb_gather_mmu(mm)
    memory.free_pgd_range(tlb, 0, 8 << 30, 0, 0)
    mmu_gather.tlb_finish_mmu(tlb)
    assert free() == before and mm.pgtables_bytes == 0
    assert zone.zone_pgdat.vm_stat[NR_PAGETABLE] == tables


def test_no_memory_for_a_table_is_reported_and_nothing_is_lost():
    mm = mm_alloc(None)
    mm.tables.limit = 2
    assert map_page(mm, 0, 1, RW) is False
    validate_pgtables(mm)
    mm.tables.limit = 4
    assert map_page(mm, 0, 1, RW) is True
    assert map_range(mm, 1 << 30, 0, 512, RW, level=2) is False
    assert unmap_range(mm, 0, 1) == 1


def test_mapping_twice_is_a_bug():
    mm = mm_alloc(None)
    assert map_page(mm, 0, 1, RW)
    for again in (map_page, lambda *a: map_range(*a[:3], 1, a[3])):
        with pytest.raises(KernelBug, match="is not empty"):
            again(mm, 0, 2, RW)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (0x800000000000, "not canonical"),
        (0xFFFF7FFFFFFFF000, "not canonical"),
        (-4096, "an address is a number"),
        (1 << 64, "an address is a number"),
        (0x1001, "not a multiple"),
        ("0x1000", "an address is a number"),
    ],
)
def test_bad_addresses_say_what_is_wrong(address, text):
    mm = mm_alloc(None)
    calls = [
        lambda: unmap_range(mm, address, 1),
        lambda: protect_range(mm, address, 1, RO),
        lambda: map_range(mm, address, 0, 1, RW, level=1),
    ]
    if isinstance(address, int):
        calls.append(lambda: map_page(mm, address, 0, RW))
        if address != 0x1001:
            calls.append(lambda: walk(mm, address))
    for call in calls:
        with pytest.raises((UsageError, TypeError)) as caught:
            call()
        if caught.type is UsageError:
            assert text in str(caught.value)


@pytest.mark.parametrize("nr", [0, -1])
def test_empty_and_negative_ranges_are_refused(nr):
    mm = mm_alloc(None)
    for call in (lambda: unmap_range(mm, 0, nr), lambda: map_range(mm, 0, 0, nr, RW)):
        with pytest.raises(UsageError, match="at least one page"):
            call()


def test_ranges_that_cross_the_hole_are_refused():
    mm = mm_alloc(None)
    with pytest.raises(UsageError, match="not canonical"):
        map_range(mm, 0x7FFFFFFFF000, 0, 2, RW)


def test_large_leaves_must_be_aligned():
    mm = mm_alloc(None)
    with pytest.raises(UsageError, match="does not fit leaves"):
        map_range(mm, 0, 1, 512, RW, level=2)
    with pytest.raises(UsageError, match="not a multiple"):
        map_range(mm, 0x1000, 0, 512, RW, level=2)
    with pytest.raises(UsageError, match="leaves are"):
        map_range(mm, 0, 0, 512, RW, level=4)


def test_levels_are_four_or_five():
    with pytest.raises(UsageError, match="4 or 5"):
        mm_alloc(None, 3)


def test_five_levels_reach_further():
    mm4, mm5 = mm_alloc(None, 4), mm_alloc(None, 5)
    assert task_size_max(4) == 0x7FFFFFFFF000 and task_size_max(5) == 0xFFFFFFFFFFF000
    far = 0x123456789ABC000
    with pytest.raises(UsageError):
        map_page(mm4, far & 0xFFFFFFFFFFFFF, 1, RW)
    far &= 0xFFFFFFFFFFFFFF
    assert map_page(mm5, far, 1, RW) and translate(mm5, far + 5) == 4096 + 5
    assert isinstance(access(None, mm4, far, "r"), GeneralProtection)


def test_the_page_table_lock_is_asserted():
    mm = mm_alloc(None)
    map_page(mm, 0, 1, RW)
    pmd = pg.pmd_offset(pg.pud_offset(pg.p4d_offset(pgd_offset(mm, 0), 0), 0), 0)
    ptep = pte_offset_map_lock(mm, pmd, 0)
    with pytest.raises(KernelBug, match="held already"):
        pte_offset_map_lock(mm, pmd, 0)
    with pytest.raises(KernelBug, match="locks held"):
        validate_pgtables(mm)
    pte_unmap_unlock(mm, ptep)
    with pytest.raises(KernelBug, match="not held"):
        pte_unmap_unlock(mm, ptep)


def test_pte_offset_map_fails_on_a_huge_pmd():
    mm = mm_alloc(None)
    map_range(mm, 0, 0, 512, RW, level=2)
    pmd = pg.pmd_offset(pg.pud_offset(pg.p4d_offset(pgd_offset(mm, 0), 0), 0), 0)
    assert pte_offset_map(pmd, 0) is None


@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (lambda mm: setattr(mm, "pgtables_bytes", 0), "pgtables_bytes"),
        (lambda mm: mm.pgd.__setitem__(1, mm.pgd[0]), "is reached from"),
        (lambda mm: lookup_address(mm, 0)[0][0].__setitem__(5, 0x65), "read-only and dirty"),
    ],
)
def test_the_checker_finds_what_is_broken(break_it, text):
    mm = mm_alloc(None)
    map_page(mm, 0, 1, RW)
    validate_pgtables(mm)
    break_it(mm)
    with pytest.raises(KernelBug, match=text):
        validate_pgtables(mm)


#: Pages that the state machine maps: the ends of tables at every level.
SLOTS = [0, 1, 511, 512, 513, 1023, 512 * 512 - 1, 512 * 512, 3 * 512 * 512 + 7, (1 << 27) - 2]


class Tables(RuleBasedStateMachine):
    """map, unmap, protect and access against a dict: page -> (pfn, protection)."""

    @initialize(levels=st.sampled_from([4, 5]))
    def start(self, levels):
        self.mm = mm_alloc(None, levels)
        self.pages: dict[int, tuple[int, int]] = {}
        self.touched: set[int] = set()

    @rule(slot=st.sampled_from(SLOTS), n=st.integers(1, 3), prot=st.sampled_from([RW, RO, NONE]))
    def map(self, slot, n, prot):
        pages = range(slot, slot + n)
        if any(p in self.pages for p in pages):
            return
        assert map_range(self.mm, slot << 12, 1000 + slot, n, prot)
        for p in pages:
            self.pages[p] = (1000 + p, prot)

    @rule(block=st.integers(0, 3), prot=st.sampled_from([RW, RO]))
    def map_large(self, block, prot):
        first = (8 + block) * 512
        if any(first <= p < first + 512 for p in self.pages):
            return
        assert map_range(self.mm, first << 12, 4096 * (block + 1), 512, prot, level=2)
        for i in range(512):
            self.pages[first + i] = (4096 * (block + 1) + i, prot)

    @rule(slot=st.sampled_from([*SLOTS, 8 * 512 + 3, 9 * 512]), n=st.integers(1, 600))
    def unmap(self, slot, n):
        n = min(n, (1 << 35) - slot)
        expected = [p for p in range(slot, slot + n) if p in self.pages]
        assert unmap_range(self.mm, slot << 12, n) == len(expected)
        for p in expected:
            del self.pages[p]

    @rule(
        slot=st.sampled_from([*SLOTS, 8 * 512 + 3, 9 * 512]),
        n=st.integers(1, 600),
        prot=st.sampled_from([RW, RO, NONE]),
    )
    def protect(self, slot, n, prot):
        protect_range(self.mm, slot << 12, n, prot)
        for p in range(slot, slot + n):
            if p in self.pages:
                self.pages[p] = (self.pages[p][0], prot)

    @rule(slot=st.sampled_from([*SLOTS, 8 * 512 + 3, 10 * 512 + 511]), kind=st.sampled_from("rwx"))
    def access(self, slot, kind):
        result = access(None, self.mm, (slot << 12) + 5, kind)
        pfn, prot = self.pages.get(slot, (None, NONE))
        code = 4 | {"r": 0, "w": 2, "x": 16}[kind]
        if prot == NONE:
            assert result == PageFault((slot << 12) + 5, code)
        elif kind == "x" or (kind == "w" and prot == RO):
            assert result == PageFault((slot << 12) + 5, code | 1)
        else:
            assert isinstance(result, Translation) and result.phys == (pfn << 12) + 5

    @invariant()
    def tables_agree(self):
        if not hasattr(self, "mm"):
            return
        validate_pgtables(self.mm)
        for p in [*SLOTS, 8 * 512, 9 * 512 + 100]:
            got = translate(self.mm, p << 12)
            assert got == (self.pages[p][0] << 12 if p in self.pages else None)

    def teardown(self):
        if hasattr(self, "mm"):
            tlb = mmu_gather.tlb_gather_mmu(self.mm)
            unmap_range(self.mm, 0, 1 << 28)
            memory.free_pgd_range(tlb, 0, 1 << 40, 0, 0)
            mmu_gather.tlb_finish_mmu(tlb)
            assert self.mm.pgtables_bytes == 0
            assert list(iter_tables(self.mm)) == []


Tables.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, derandomize=True
)
TestTables = Tables.TestCase


def test_tables_are_allocated_as_the_recorded_kernel_does():
    """In the recorded traces a PGD is order 1 without __GFP_COMP, every other table order 0 with it."""
    from mmcore.arch.x86.fault import touch
    from mmcore.kernel.fork import do_exit, spawn
    from mmcore.mm.gfp import gfp_str
    from mmcore.mm.mmap import MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, do_mmap

    m = bare_zone(4096).machine
    m.transparent_hugepage_enabled = "never"
    spawn(m, "first")  # with what is made once per machine
    with m.trace.record("kmem:mm_page_alloc", "kmem:mm_page_free") as log:
        task = spawn(m, "task")
        address = do_mmap(
            task.mm, None, 0x200000000000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS
        )
        touch(m, address, "r")
        do_exit(task)
    allocs = [e.fields for e in log if e.name == "kmem:mm_page_alloc"]
    seen = [(f["order"], gfp_str(f["gfp_flags"])) for f in allocs]
    assert seen[0] == (1, "GFP_KERNEL_ACCOUNT|__GFP_ZERO")
    assert seen[1:] == [(0, "GFP_KERNEL_ACCOUNT|__GFP_COMP|__GFP_ZERO")] * 3
    freed = [e.fields["order"] for e in log if e.name == "kmem:mm_page_free"]
    assert sorted(freed) == [0, 0, 0, 1]


def test_a_split_leaf_of_the_direct_map_is_counted_and_its_table_is_not():
    from mmcore.arch.x86.init_64 import init_kernel_tables
    from mmcore.mm.vmstat import DIRECT_MAP_LEVEL2_SPLIT, NR_PAGETABLE

    m = Machine.boot("256M")
    init = init_kernel_tables(m)
    pgdat = m.node_data[0]
    k4, m2, g1 = m.direct_pages_count
    tables = pgdat.vm_stat[NR_PAGETABLE]
    address = m.page_offset_base + (64 << 20)
    protect_range(init, address, 1, PAGE_KERNEL_RO)
    assert m.direct_pages_count == [k4 + 512, m2 - 1, g1]
    assert m.sysinfo.direct_kb == ((k4 + 512) * 4, (m2 - 1) * 2048, g1 << 20)
    assert m.vm_event[DIRECT_MAP_LEVEL2_SPLIT] == 1 and pgdat.vm_stat[NR_PAGETABLE] == tables
    entry = walk(init, address)[-2][2]
    assert entry & 0xFFF == 0x063 and pte_pfn(walk(init, address)[-1][2]) == 64 << 8
