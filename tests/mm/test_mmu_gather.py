"""What a gather holds, and that nothing is freed before its flush."""

from __future__ import annotations

import pytest

from mmcore.arch.x86.fault import touch
from mmcore.arch.x86.tlb import TLB_FLUSH_ALL
from mmcore.errors import KernelBug
from mmcore.kernel.fork import spawn
from mmcore.machine import Machine, bare_zone
from mmcore.mm import filemap, madvise, memory
from mmcore.mm import mmu_gather as mg
from mmcore.mm.mmap import *

PG = 4096
A = 0x200000000000


def machine(pages: int) -> Machine:
    m = bare_zone(pages).machine
    m.transparent_hugepage_enabled = "never"
    spawn(m, "t")
    return m


def test_sizes():
    assert (mg.MMU_GATHER_BUNDLE, mg.MAX_GATHER_BATCH, mg.MAX_GATHER_BATCH_COUNT) == (8, 510, 19)


@pytest.mark.slow
def test_a_gather_holds_9678_single_pages():
    """Of 12000 pages the kernel flushes twice, as measured; 9678 fit."""
    m = machine(1 << 15)
    assert do_mmap(m.current.mm, None, A, 12000 * PG, 3, 0x32) == A
    for i in range(12000):
        touch(m, A + i * PG, "w")
    with m.trace.record("tlb:tlb_flush") as log:
        madvise.madvise(m.current.mm, A, 12000 * PG, madvise.MADV_DONTNEED)
    assert [(e.fields["reason"], e.fields["pages"]) for e in log] == [(3, -1), (3, -1)]
    memory.validate_mappings(m)
    gather = mg.tlb_gather_mmu(m.current.mm)
    mg.tlb_flush_pte_range(gather, A, PG)
    page = m.node_data[0].node_zones[2].mem_map[m.current.mm.pgd.pfn]
    n = 1
    while not mg.tlb_remove_folio_pages(gather, page, 1, False):
        n += 1
    assert n == 7 + 19 * 509 == 9678


def test_delayed_rmap_limits_the_gather_to_two_batches():
    m = machine(1 << 12)
    gather = mg.tlb_gather_mmu(m.current.mm)
    mg.tlb_flush_pte_range(gather, A, PG)
    page = m.node_data[0].node_zones[2].mem_map[m.current.mm.pgd.pfn]
    n = 1
    while not mg.tlb_remove_folio_pages(gather, page, 1, True):
        n += 1
    assert n == 7 + 509 == 516


def test_dirty_file_pages_are_flushed_before_their_map_count_drops():
    m = machine(1 << 13)
    file = filemap.File(filemap.AddressSpace(1000 * PG, "f"))
    filemap.populate(m, file.f_mapping, 0, 1000)
    assert do_mmap(m.current.mm, file, A, 1000 * PG, 3, MAP_SHARED | MAP_FIXED) == A
    for i in range(1000):
        touch(m, A + i * PG, "w")
    with m.trace.record("tlb:tlb_flush") as log:
        assert do_munmap(m.current.mm, A, 1000 * PG) == 0
    assert len(log) >= 2
    assert all(p._mapcount == -1 for p in file.f_mapping.i_pages.values())
    memory.validate_mappings(m)


def test_nothing_may_be_gathered_before_an_address_was_cleared():
    m = machine(1 << 11)
    gather = mg.tlb_gather_mmu(m.current.mm)
    page = m.node_data[0].node_zones[2].mem_map[m.current.mm.pgd.pfn]
    with pytest.raises(KernelBug, match="no address"):
        mg.tlb_remove_folio_pages(gather, page, 1, False)


def test_a_nested_gather_flushes_everything():
    m = machine(1 << 11)
    mm = m.current.mm
    outer, inner = mg.tlb_gather_mmu(mm), mg.tlb_gather_mmu(mm)
    with m.trace.record("tlb:tlb_flush") as log:
        mg.tlb_finish_mmu(inner)
        mg.tlb_finish_mmu(outer)
    assert [e.fields["pages"] for e in log] == [-1] and TLB_FLUSH_ALL == (1 << 64) - 1
    assert mm.tlb_flush_pending == 0
