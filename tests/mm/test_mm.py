"""Address space structures: flags in words, the VMA tree, semaphores, sequence numbers."""

from __future__ import annotations

import pytest

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
