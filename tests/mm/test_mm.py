"""Address space structures: flags in words, the VMA tree, semaphores, sequence numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.errors import KernelBug
from mmcore.kernel.fork import mm_alloc
from mmcore.mm.mm import *

PG = 4096


def test_flags_in_words():
    assert vm_fault_str(VM_FAULT_MAJOR | VM_FAULT_RETRY) == "MAJOR|RETRY" and vm_fault_str(0) == "0"
    assert fault_flags_str(FAULT_FLAG_DEFAULT) == "ALLOW_RETRY|KILLABLE|INTERRUPTIBLE"
    assert fault_flags_str(0) == "0"
    flags = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | VM_ACCOUNT | VM_SOFTDIRTY
    assert vm_flags_str(flags) == "rd wr mr mw me ac sd", "as smaps prints them in the capture"


def test_values_that_the_kernel_has():
    assert (VM_GROWSDOWN, VM_LOCKED, VM_ACCOUNT, VM_SOFTDIRTY) == (0x100, 0x2000, 1 << 20, 1 << 27)
    assert (FAULT_FLAG_TRIED, FAULT_FLAG_VMA_LOCK) == (0x20, 0x1000)
    assert VM_FAULT_ERROR == 0x873
    assert (MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES) == (0, 1, 2, 3)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 6)), max_size=12), st.integers(0, 70))
def test_the_tree_answers_as_a_scan_does(ranges, at):
    mm = mm_alloc(None)
    kept: list[VmAreaStruct] = []
    for start, size in ranges:
        vma = VmAreaStruct(start * PG, (start + size) * PG, mm)
        if any(v.vm_start < vma.vm_end and vma.vm_start < v.vm_end for v in kept):
            with pytest.raises(KernelBug, match="overlaps"):
                mm.mm_mt.store(vma)
        else:
            mm.mm_mt.store(vma)
            kept.append(vma)
    kept.sort(key=lambda v: v.vm_start)
    addr = at * PG
    assert list(mm.mm_mt) == kept
    assert mm.mm_mt.walk(addr) is next((v for v in kept if v.vm_start <= addr < v.vm_end), None)
    assert mm.mm_mt.find(addr) is next((v for v in kept if v.vm_end > addr), None)
    below = [v for v in kept if v.vm_start < addr]
    assert mm.mm_mt.prev(addr) is (below[-1] if below else None)
    hit = [v for v in kept if v.vm_start < addr + 4 * PG and v.vm_end > addr]
    assert mm.mm_mt.range(addr, addr + 4 * PG) == hit
    for vma in kept:
        mm.mm_mt.erase(vma)
    assert len(mm.mm_mt) == 0


def test_sequence_numbers_of_the_vma_lock():
    mm = mm_alloc(None)
    vma = VmAreaStruct(0, PG, mm)
    assert mm.mm_lock_seq % 2 == 0 and vma_start_read(vma)
    vma_end_read(vma)
    mmap_write_lock(mm)
    assert mm.mm_lock_seq % 2 == 1
    assert vma_start_read(vma), "a writer that has not marked this VMA does not stop its readers"
    vma_end_read(vma)
    vma_start_write(vma)
    assert vma.vm_lock_seq == mm.mm_lock_seq and not vma_start_read(vma)
    mmap_write_downgrade(mm)
    assert vma_start_read(vma), "all VMA locks end together"
    with pytest.raises(KernelBug, match="would wait"):
        mmap_write_lock(mm)


def test_a_writer_waits_for_a_reader_of_the_vma():
    mm = mm_alloc(None)
    vma = VmAreaStruct(0, PG, mm)
    assert vma_start_read(vma)
    mmap_write_lock(mm)
    with pytest.raises(KernelBug, match="would wait"):
        vma_start_write(vma)


@pytest.mark.parametrize("give_back", [up_read, up_write])
def test_giving_back_what_is_not_held(give_back):
    with pytest.raises(KernelBug):
        give_back(RwSemaphore("x"))


def test_only_a_marked_vma_can_be_detached():
    mm = mm_alloc(None)
    with pytest.raises(KernelBug, match="write-locked"):
        vma_mark_detached(VmAreaStruct(0, PG, mm), True)
