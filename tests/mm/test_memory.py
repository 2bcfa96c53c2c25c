"""Faults, fork and unmapping: the chapter's numbers, and a state machine over processes."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mmcore.arch.x86.fault import (
    BUS_ADRERR,
    BUS_MCEERR_AR,
    Handled,
    OutOfMemory,
    SigBus,
    SigSegv,
    Translation,
    touch,
)
from mmcore.arch.x86.pgtable import lookup_address, set_pte, translate, walk
from mmcore.arch.x86.tlb import flush_tlb_mm, validate_tlb
from mmcore.errors import EINVAL, ENOMEM, KernelBug, UsageError
from mmcore.kernel.fork import TaskStruct, do_exit, kernel_clone, mm_alloc, spawn, switch_to
from mmcore.machine import Machine, bare_zone
from mmcore.mm import filemap, madvise, memory, page_alloc, rmap, swap, swapops
from mmcore.mm.filemap import AddressSpace, File
from mmcore.mm.memory import validate_mappings
from mmcore.mm.mm import *
from mmcore.mm.mm_types import pfn_to_page
from mmcore.mm.mmap import *
from mmcore.mm.mprotect import do_mprotect
from mmcore.mm.vmstat import NR_FREE_PAGES, PGFAULT, PGMAJFAULT, PGREUSE
from mmcore.proc.task_mmu import status_memory

PG = 4096
A = 0x200000000000
ANON = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
RW = PROT_READ | PROT_WRITE


def machine(pages: int = 16384) -> Machine:
    m = bare_zone(pages).machine
    m.transparent_hugepage_enabled = "never"
    spawn(m, "task")
    return m


def mapped(m: Machine, pages: int, addr: int = A, prot: int = RW, flags: int = ANON, file=None):
    assert do_mmap(m.current.mm, file, addr, pages * PG, prot, flags | MAP_FIXED) == addr
    return addr


def free_pages(m: Machine) -> int:
    swap.lru_add_drain_all(m)
    page_alloc.drain_all_pages(m, None)
    return sum(z.vm_stat[NR_FREE_PAGES] for p in m.node_data.values() for z in p.node_zones)


def pte(m: Machine, addr: int) -> int:
    ptep, _ = lookup_address(m.current.mm, addr)
    return 0 if ptep is None else ptep[0][ptep[1]]


# --- the chapter's exercises ------------------------------------------------------------------


@pytest.mark.parametrize(("addr", "tables"), [(A, 2), (A + PG, 3)])
def test_1024_fresh_pages_read_then_written(addr, tables):
    m = machine()
    mapped(m, 1024, addr)
    for kind, rss in (("r", 0), ("w", 1024)):
        before = m.current.min_flt
        for i in range(1024):
            touch(m, addr + i * PG, kind)
        assert m.current.min_flt - before == 1024
        assert get_mm_rss(m.current.mm) == rss
    assert m.current.mm.pgtables_bytes == (tables + 2) * PG


def test_without_the_zero_page_reads_cost_memory_and_writes_no_fault():
    m = machine()
    mapped(m, 1024)
    m.current.mm.forbids_zeropage = True
    for kind in "rw":
        for i in range(1024):
            touch(m, A + i * PG, kind)
    assert m.current.min_flt == 1024 and get_mm_rss(m.current.mm) == 1024


@pytest.mark.parametrize(("addr", "faults"), [(A, 16), (A + PG, 17)])
def test_a_cached_mebibyte_read_through_fault_around(addr, faults):
    m = machine()
    file = File(AddressSpace(1 << 20, "f"))
    filemap.populate(m, file.f_mapping, 0, 256)
    mapped(m, 256, addr, PROT_READ, MAP_SHARED, file)
    for i in range(256):
        touch(m, addr + i * PG)
    assert (m.current.min_flt, m.current.maj_flt) == (faults, 0)
    assert m.current.mm.rss_stat[MM_FILEPAGES] == 256


def test_one_mebibyte_of_page_tables():
    """One touch per 512 GiB costs three tables: 86 touches. One per 2 MiB in a fresh slot: 254."""
    m = machine()
    for i in range(86):
        touch(m, mapped(m, 1, (i + 1) << 39), "w")
    assert m.current.mm.pgtables_bytes >= 1 << 20
    assert 85 * 3 * PG < 1 << 20 <= 86 * 3 * PG
    m = machine()
    mapped(m, 512 * 300, flags=ANON | MAP_NORESERVE)
    touches = 0
    while m.current.mm.pgtables_bytes < 1 << 20:
        touch(m, A + touches * (2 << 20), "w")
        touches += 1
    assert touches == 254


def test_the_first_page_in_a_fresh_slot_costs_12_kib():
    m = machine()
    touch(m, mapped(m, 1), "w")
    assert status_memory(m.current.mm)["VmPTE"] == 12


def test_the_window_of_fault_around():
    m = machine()
    file = File(AddressSpace(64 * PG, "f"))
    filemap.populate(m, file.f_mapping, 0, 64)
    mapped(m, 64, A, PROT_READ, MAP_SHARED, file)
    with m.trace.record("model:fault_step") as log:
        touch(m, A + 37 * PG)
    steps = [e.fields["step"] for e in log if e.fields["function"] == "do_fault_around"]
    assert steps == ["32..47"]
    assert [bool(pte(m, A + i * PG)) for i in (31, 32, 47, 48)] == [False, True, True, False]


def test_fault_around_maps_only_what_is_ready():
    m = machine()
    file = File(AddressSpace(10 * PG - 5, "f"))
    mapping = file.f_mapping
    filemap.populate(m, mapping, 0, 10)
    from mmcore.mm.page_flags import PG_locked, PG_readahead, PG_uptodate

    mapping.i_pages[1].flags |= 1 << PG_locked
    mapping.i_pages[2].flags |= 1 << PG_readahead
    mapping.i_pages[3].flags &= ~(1 << PG_uptodate)
    filemap.filemap_remove_folio(mapping, mapping.i_pages[4])
    mapped(m, 16, A, PROT_READ, MAP_SHARED, file)
    touch(m, A)
    assert [i for i in range(16) if pte(m, A + i * PG)] == [0, 5, 6, 7, 8, 9]
    assert touch(m, A + 10 * PG) == SigBus(A + 10 * PG, BUS_ADRERR, 4), "beyond the end of file"


@pytest.mark.parametrize(("val", "pages"), [(0, 1), (4096, 1), (65536, 16), (70000, 16)])
def test_fault_around_bytes(val, pages):
    m = machine()
    assert memory.fault_around_bytes_set(m, val) == 0 and m.fault_around_pages == pages


def test_fault_around_bytes_refuses_more_than_a_table():
    m = machine()
    assert memory.fault_around_bytes_set(m, 513 * PG) == -EINVAL
    assert memory.fault_around_bytes_set(m, -1) == -EINVAL


def test_replaying_accesses_faults_zero_times():
    m = machine()
    mapped(m, 64)
    script = [(i * 7 % 64, "rw"[i % 3 == 0]) for i in range(200)]
    for page, kind in script:
        touch(m, A + page * PG, kind)
    before = m.vm_event[PGFAULT]
    for page, kind in script:
        assert isinstance(touch(m, A + page * PG, kind), Translation)
    assert m.vm_event[PGFAULT] == before


# --- accounting -------------------------------------------------------------------------------


def test_failed_faults_count_in_pgfault_only():
    m = machine()
    file = File(AddressSpace(PG, "f"))
    mapped(m, 4, A, PROT_READ, MAP_SHARED, file)
    before = m.vm_event[PGFAULT]
    assert isinstance(touch(m, A + 2 * PG), SigBus)
    assert m.vm_event[PGFAULT] == before + 1
    assert (m.current.min_flt, m.current.maj_flt) == (0, 0)
    assert isinstance(touch(m, 0x1000), SigSegv)
    assert m.vm_event[PGFAULT] == before + 1, "no VMA: handle_mm_fault() was not reached"


def test_vmstat_and_rusage_can_differ():
    """A major fault whose page another fault read meanwhile is counted by the task alone."""
    m = machine()
    file = File(AddressSpace(64 * PG, "f"))
    mapped(m, 64, A, PROT_READ, MAP_SHARED, file)
    touch(m, A)
    assert (m.current.maj_flt, m.vm_event[PGMAJFAULT]) == (1, 1)
    # The marked page starts the next window: the fault retries (TRIED not set, no I/O): minor.
    marked = next(i for i, p in file.f_mapping.i_pages.items() if p.flags >> 16 & 1)  # PG_readahead
    touch(m, A + marked * PG)
    assert m.vm_event[PGMAJFAULT] == 1


def test_a_swapped_page_comes_back_by_a_major_fault():
    m = machine()
    mapped(m, 2)
    touch(m, A, "w")
    mm = m.current.mm
    ptep, _ = lookup_address(mm, A)
    page = pfn_to_page(m, pte(m, A) >> 12 & 0xFFFFFFFFFF)
    # What reclaim does: the entry names a slot, the page is freed.
    from mmcore.arch.x86.pgtable import pte_swp_mkexclusive, pte_swp_mksoft_dirty

    entry = swapops.swp_entry_to_pte(swapops.swp_entry(0, 7))
    set_pte(ptep, pte_swp_mksoft_dirty(pte_swp_mkexclusive(entry)))
    rmap.folio_remove_rmap_ptes(page, page, 1, mm.mm_mt.walk(A))
    add_mm_counter(mm, MM_ANONPAGES, -1)
    add_mm_counter(mm, MM_SWAPENTS, 1)
    swap.folio_put(page)
    validate_mappings(m)
    flush_tlb_mm(mm)
    assert isinstance(touch(m, A), Translation)
    assert m.current.maj_flt == 1 and m.vm_event[PGMAJFAULT] == 1
    assert pte(m, A) & 0x867 == 0x827 | 0x40 or pte(m, A) & 0x2, "exclusive: writable again"
    assert mm.rss_stat[MM_SWAPENTS] == 0
    validate_mappings(m)


@pytest.mark.parametrize(
    ("marker", "code"), [(swapops.PTE_MARKER_POISONED, BUS_MCEERR_AR), (0, BUS_ADRERR)]
)
def test_markers_that_kill(marker, code):
    m = machine()
    mapped(m, 2)
    touch(m, A, "w")
    set_pte((lookup_address(m.current.mm, A)[0][0], 1), swapops.make_pte_marker(marker))
    result = touch(m, A + PG)
    assert isinstance(result, SigBus) and result.si_code == code


def test_protnone_in_an_accessible_vma_is_a_numa_hint():
    m = machine()
    mapped(m, 1)
    touch(m, A, "w")
    from mmcore.arch.x86.pgtable import PAGE_NONE, pte_modify

    ptep, _ = lookup_address(m.current.mm, A)
    before = ptep[0][ptep[1]]
    set_pte(ptep, pte_modify(before, PAGE_NONE))
    flush_tlb_mm(m.current.mm)
    with m.trace.record("model:fault_step") as log:
        assert isinstance(touch(m, A), Translation)
    assert "do_numa_page" in [e.fields["function"] for e in log]
    assert pte(m, A) >> 12 == before >> 12 | 1 << 46 or pte(m, A) & PTE_PFN == before & PTE_PFN


PTE_PFN = 0xFFFFFFFFFF000


# --- copy-on-write ----------------------------------------------------------------------------


def test_fork_write_exit_write_is_one_copy_and_one_reuse():
    m = machine()
    mapped(m, 1)
    touch(m, A, "w")
    parent = m.current
    child = kernel_clone(parent)
    switch_to(m, child)
    reuse = m.vm_event[PGREUSE]
    before = free_pages(m)
    touch(m, A, "w")
    assert before - free_pages(m) == 1 and m.vm_event[PGREUSE] == reuse
    do_exit(child)
    switch_to(m, parent)
    before = free_pages(m)
    touch(m, A, "w")
    assert before - free_pages(m) == 0 and m.vm_event[PGREUSE] == reuse + 1
    validate_mappings(m)


def test_a_pinned_page_is_copied_for_the_child_at_fork():
    m = machine()
    mapped(m, 1)
    touch(m, A, "w")
    page = pfn_to_page(m, pte(m, A) >> 12 & 0xFFFFFFFFFF)
    page._refcount += rmap.GUP_PIN_COUNTING_BIAS
    child = kernel_clone(m.current)
    theirs, _ = lookup_address(child.mm, A)
    assert theirs[0][theirs[1]] & PTE_PFN != pte(m, A) & PTE_PFN
    assert pte(m, A) & 2, "the parent's stays writable"
    page._refcount -= rmap.GUP_PIN_COUNTING_BIAS
    validate_mappings(m)


def test_an_extra_reference_prevents_reuse():
    m = machine()
    mapped(m, 1)
    touch(m, A, "w")
    child = kernel_clone(m.current)
    do_exit(child)
    page = pfn_to_page(m, pte(m, A) >> 12 & 0xFFFFFFFFFF)
    swap.folio_get(page)
    touch(m, A, "w")
    assert pte(m, A) >> 12 & 0xFFFFFFFFFF != page.pfn
    swap.folio_put(page)
    validate_mappings(m)


def test_vmas_without_anon_vma_are_not_copied():
    m = machine()
    file = File(AddressSpace(16 * PG, "f"))
    filemap.populate(m, file.f_mapping, 0, 16)
    mapped(m, 16, A, PROT_READ, MAP_SHARED, file)
    touch(m, A)
    child = kernel_clone(m.current)
    assert child.mm.pgtables_bytes == 0 and walk(child.mm, A) == [(4, 64, 0)]


def test_fork_without_memory_fails_and_gives_everything_back():
    m = machine(256)
    mapped(m, 64)
    for i in range(64):
        touch(m, A + i * PG, "w")
    hog = []
    while free_pages(m) > 2:
        hog.append(page_alloc.alloc_pages(m, 0xCC0, 0))
    before = free_pages(m)
    assert kernel_clone(m.current) == -ENOMEM
    assert free_pages(m) == before
    validate_mappings(m)


# --- huge pages -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("enabled", "advice", "huge"),
    [
        ("always", None, True),
        ("always", madvise.MADV_NOHUGEPAGE, False),
        ("madvise", None, False),
        ("madvise", madvise.MADV_HUGEPAGE, True),
        ("never", madvise.MADV_HUGEPAGE, False),
    ],
)
def test_when_a_write_gets_two_mebibytes(enabled, advice, huge):
    m = machine()
    m.transparent_hugepage_enabled = enabled
    mapped(m, 512)
    if advice is not None:
        madvise.madvise(m.current.mm, A, 512 * PG, advice)
    result = touch(m, A + 5 * PG, "w")
    assert result.level == (2 if huge else 1)
    assert get_mm_rss(m.current.mm) == (512 if huge else 1)
    validate_mappings(m)


def test_a_vma_that_does_not_cover_an_aligned_range_gets_small_pages():
    m = machine()
    m.transparent_hugepage_enabled = "always"
    mapped(m, 600, A + 256 * PG)
    assert touch(m, A + 300 * PG, "w").level == 1


@pytest.mark.parametrize(("pages", "page", "rss"), [(16, 3, 16), (15, 3, 1), (32, 20, 16)])
def test_mthp_of_64_kib(pages, page, rss):
    m = machine()
    m.mthp_enabled = {4: "always"}
    mapped(m, pages)
    touch(m, A + page * PG, "w")
    assert get_mm_rss(m.current.mm) == rss
    validate_mappings(m)


def test_mthp_takes_the_largest_free_order():
    m = machine()
    m.mthp_enabled = {4: "always", 2: "always"}
    mapped(m, 16)
    touch(m, A + 9 * PG)  # the zero page occupies an entry of the 64 KiB range
    touch(m, A, "w")
    assert get_mm_rss(m.current.mm) == 4
    touch(m, A + 10 * PG, "w")
    assert get_mm_rss(m.current.mm) == 5, "no aligned four are free around page 10"
    validate_mappings(m)


# --- taking down ------------------------------------------------------------------------------


def test_munmap_frees_tables_that_nobody_else_uses():
    m = machine()
    mm = m.current.mm
    for i in (0, 1, 512, 512 * 512):
        mapped(m, 1, A + i * PG)
        touch(m, A + i * PG, "w")
    assert mm.pgtables_bytes == 6 * PG  # PUD, two PMD tables, three PTE tables
    assert do_munmap(mm, A, PG) == 0
    assert mm.pgtables_bytes == 6 * PG, "page 1 lives in the same table"
    assert do_munmap(mm, A + PG, PG) == 0
    assert mm.pgtables_bytes == 5 * PG
    assert do_munmap(mm, A + 512 * 512 * PG, PG) == 0
    assert mm.pgtables_bytes == 3 * PG
    assert do_munmap(mm, A + 512 * PG, PG) == 0
    assert mm.pgtables_bytes == 0 and get_mm_rss(mm) == 0
    validate_mappings(m)


def test_exit_gives_every_page_back():
    m = bare_zone(8192).machine
    m.transparent_hugepage_enabled = "never"
    mm_alloc(m)  # the machine's own: kernel tables and zero page
    before = free_pages(m)
    t = spawn(m, "t")
    for i in range(40):
        mapped(m, 8, A + (i << 25))
        touch(m, A + (i << 25), "w")
        touch(m, A + (i << 25) + PG, "r")
    child = kernel_clone(t)
    do_exit(t)
    do_exit(child)
    assert free_pages(m) == before


def test_dontneed_keeps_tables_and_outside_ranges_are_refused():
    m = machine()
    mapped(m, 4)
    touch(m, A, "w")
    vma = m.current.mm.mm_mt.walk(A)
    memory.zap_page_range_single(vma, A, 4 * PG)
    assert m.current.mm.pgtables_bytes == 3 * PG and not get_mm_rss(m.current.mm)
    with pytest.raises(UsageError, match="not inside"):
        memory.zap_page_range_single(vma, A, 5 * PG)


def test_a_shared_write_dirties_the_page_when_it_is_unmapped():
    m = machine()
    file = File(AddressSpace(4 * PG, "f"))
    filemap.populate(m, file.f_mapping, 0, 4)
    mapped(m, 4, A, RW, MAP_SHARED, file)
    touch(m, A, "r")
    from mmcore.mm.page_flags import PG_dirty

    folio = file.f_mapping.i_pages[1]
    touch(m, A + PG, "w")  # writable since the read: only the processor sets D
    assert not folio.flags >> PG_dirty & 1
    do_munmap(m.current.mm, A, 4 * PG)
    assert folio.flags >> PG_dirty & 1
    assert folio._mapcount == -1


@pytest.mark.parametrize(
    ("addr", "length", "flags", "error"),
    [
        (A, 0, ANON, -EINVAL),
        (A, -4096, ANON, -ENOMEM),
        (A + 1, PG, ANON, -EINVAL),
        (0x7FFFFFFFF000, PG, ANON, -ENOMEM),
        (A, 1 << 60, ANON, -ENOMEM),
        (A, PG, MAP_ANONYMOUS | MAP_FIXED, -EINVAL),
    ],
)
def test_mmap_errors(addr, length, flags, error):
    m = machine()
    assert do_mmap(m.current.mm, None, addr, length, RW, flags) == error


def test_munmap_errors():
    m = machine()
    assert do_munmap(m.current.mm, A + 1, PG) == -EINVAL
    assert do_munmap(m.current.mm, A, 0) == -EINVAL
    assert do_munmap(m.current.mm, A, PG) == 0, "nothing there is no error"


def test_mmap_finds_room_from_the_top():
    m = machine()
    a = do_mmap(m.current.mm, None, 0, 3 * PG, RW, MAP_PRIVATE | MAP_ANONYMOUS)
    b = do_mmap(m.current.mm, None, 0, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS)
    assert a == 0x7FFFF7FFF000 - 3 * PG and b == a - PG


def test_faults_need_a_machine():
    mm = mm_alloc(None)
    with pytest.raises(UsageError, match="mm_alloc\\(m\\)"):
        memory.handle_mm_fault(
            VmAreaStruct(0, PG, mm, VM_READ | VM_MAYREAD), 0, FAULT_FLAG_DEFAULT, None
        )


@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (lambda m: add_mm_counter(m.current.mm, MM_ANONPAGES, 1), "rss_stat"),
        (lambda m: setattr(m.current.mm, "total_vm", 3), "total_vm"),
        (lambda m: set_pte(lookup_address(m.current.mm, A)[0], 0), "rss_stat"),
    ],
)
def test_the_checker_finds_what_is_broken(break_it, text):
    m = machine()
    mapped(m, 1)
    touch(m, A, "w")
    validate_mappings(m)
    break_it(m)
    with pytest.raises(KernelBug, match=text):
        validate_mappings(m)


def test_handled_is_what_a_write_protect_fault_returns():
    from mmcore.arch.x86.fault import PtRegs, exc_page_fault

    m = machine()
    mapped(m, 1)
    touch(m, A, "w")
    assert exc_page_fault(m, PtRegs(), 7, A) == Handled(), "a spurious fault"


# --- processes --------------------------------------------------------------------------------


#: Pages of one area that the state machine uses: inside and at the ends of page tables and huge pages.
PAGES = st.sampled_from([0, 1, 2, 3, 5, 510, 511, 512, 513, 600, 1023])
AREA = 1024


class Processes(RuleBasedStateMachine):
    """mmap, touch, fork, exit, munmap, mprotect, madvise in up to four processes.

    Memory contents are modelled beside the machine: a write gives the page a fresh token, fork copies
    the tokens. Two entries of private memory may share a frame only where the tokens are equal.
    """

    @initialize(thp=st.sampled_from(["never", "always"]))
    def start(self, thp):
        self.m = bare_zone(16384).machine
        self.m.transparent_hugepage_enabled = thp
        self.m.mthp_enabled = {9: "inherit", 2: "always"} if thp == "always" else {9: "inherit"}
        self.tasks: list[TaskStruct] = [spawn(self.m, "t0")]
        self.tokens: dict[tuple[int, int], int] = {}  # (pid, address) -> token of its contents
        self.fresh = 0
        assert do_mmap(self.here().mm, None, A, AREA * PG, RW, ANON) == A

    def here(self) -> TaskStruct:
        return self.m.current

    @rule(page=PAGES, n=st.sampled_from([1, 2, 512, 700]))
    def mmap(self, page, n):
        addr = A + page * PG
        if self.here().mm.mm_mt.range(addr, addr + n * PG):
            return
        assert do_mmap(self.here().mm, None, addr, n * PG, RW, ANON) == addr

    @rule(page=PAGES, kind=st.sampled_from("rwwx"))
    def touch(self, page, kind):
        addr = A + page * PG
        vma = self.here().mm.mm_mt.walk(addr)
        result = touch(self.m, addr, kind)
        if isinstance(result, OutOfMemory):
            return
        if vma is None:
            assert isinstance(result, SigSegv) and result.si_code == 1
            return
        allowed = vma.vm_flags & (VM_WRITE if kind == "w" else VM_ACCESS_FLAGS)
        if not allowed or kind == "x":
            assert isinstance(result, SigSegv) and result.si_code == 2
            return
        assert isinstance(result, Translation)
        again = touch(self.m, addr, kind)
        assert isinstance(again, Translation) and again.faults == 0
        if kind == "w":
            self.fresh += 1
            self.tokens[self.here().pid, addr] = self.fresh

    @rule(page=PAGES, n=st.sampled_from([1, 2, 3, 511, 512, 1024]))
    def munmap(self, page, n):
        assert do_munmap(self.here().mm, A + page * PG, n * PG) == 0
        self.forget(page, n)

    def forget(self, page, n):
        for p in range(page, page + n):
            self.tokens.pop((self.here().pid, A + p * PG), None)

    @rule(page=PAGES, n=st.sampled_from([1, 2, 512, 600]), prot=st.sampled_from([0, 1, 3, 3]))
    def mprotect(self, page, n, prot):
        do_mprotect(self.here().mm, A + page * PG, n * PG, prot)

    @rule(page=PAGES, n=st.sampled_from([1, 2, 512, 1024]), what=st.sampled_from([4, 8, 14, 15]))
    def advise(self, page, n, what):
        madvise.madvise(self.here().mm, A + page * PG, n * PG, what)
        if what == madvise.MADV_DONTNEED:
            self.forget(page, n)

    @precondition(lambda self: hasattr(self, "tasks") and len(self.tasks) < 4)
    @rule()
    def fork(self):
        child = kernel_clone(self.here())
        if isinstance(child, TaskStruct):
            self.tasks.append(child)
            for (pid, addr), token in list(self.tokens.items()):
                if pid == self.here().pid:
                    self.tokens[child.pid, addr] = token

    @rule(i=st.integers(0, 3))
    def switch(self, i):
        switch_to(self.m, self.tasks[i % len(self.tasks)])

    @precondition(lambda self: hasattr(self, "tasks") and len(self.tasks) > 1)
    @rule()
    def exit(self):
        gone = self.here()
        self.tasks.remove(gone)
        switch_to(self.m, self.tasks[0])
        do_exit(gone)

    @invariant()
    def everything_agrees(self):
        if hasattr(self, "m"):
            validate_mappings(self.m)
            validate_tlb(self.m)
            self.nobody_sees_anothers_write()

    def nobody_sees_anothers_write(self):
        owner: dict[int, int] = {}
        for task in self.tasks:
            for (pid, addr), token in self.tokens.items():
                if pid != task.pid:
                    continue
                phys = translate(task.mm, addr)
                assert phys is not None, f"the page that {pid} wrote at {addr:#x} is gone"
                assert owner.setdefault(phys, token) == token, f"{pid} at {addr:#x}"

    def teardown(self):
        if not hasattr(self, "m"):
            return
        for task in list(self.tasks):
            do_exit(task)
        assert self.m.pgd_list == []
        left = [t for t in self.m.paging.tables.tables.values() if t.page is not None]
        assert left == []


Processes.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True
)
TestProcesses = Processes.TestCase


def test_user_pages_are_asked_for_with_the_flags_that_the_kernel_records():
    """In the recorded traces a page of user memory has __GFP_COMP also when it is a single one."""
    m = machine()
    mapped(m, 2)
    touch(m, A, "r")
    with m.trace.record("kmem:mm_page_alloc") as log:
        touch(m, A + PG, "w")
    assert [(e.fields["order"], e.fields["gfp_flags"]) for e in log] == [(0, 0x140DCA)]
    with m.trace.record("kmem:mm_page_alloc") as log:
        filemap.populate(m, AddressSpace(i_size=PG), 0, 1)
    assert [e.fields["gfp_flags"] for e in log] == [0x140CCA]


def test_memory_that_may_be_dropped_is_asked_for_without_a_warning():
    m = machine()
    assert (
        do_mmap(m.current.mm, None, A, PG, RW, 0x38) == A
    )  # MAP_DROPPABLE | MAP_ANONYMOUS | MAP_FIXED
    with m.trace.record("kmem:mm_page_alloc") as log:
        touch(m, A, "w")
    flags = [e.fields["gfp_flags"] for e in log if e.fields["gfp_flags"] & 0x8]
    assert flags == [0x140DCA | 0x2000]
