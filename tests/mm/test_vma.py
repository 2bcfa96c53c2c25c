"""VMAs: splitting, locking, moving; and the checker."""

from __future__ import annotations

import pytest

from mmcore.arch.x86.fault import Translation, touch
from mmcore.errors import EFAULT, EINVAL, ENOMEM, KernelBug
from mmcore.kernel.fork import spawn
from mmcore.machine import Machine, bare_zone
from mmcore.mm import vma as vma_
from mmcore.mm.memory import validate_mappings
from mmcore.mm.mlock import do_mlock, do_munlock
from mmcore.mm.mm import VM_LOCKED, mmap_write_lock, mmap_write_unlock
from mmcore.mm.mmap import *
from mmcore.mm.mprotect import do_mprotect
from mmcore.mm.mremap import sys_mremap
from mmcore.mm.vma import validate_mm

PG = 4096
A = 0x200000000000


@pytest.fixture
def m() -> Machine:
    machine = bare_zone(2048).machine
    machine.transparent_hugepage_enabled = "never"
    spawn(machine, "t")
    assert do_mmap(machine.current.mm, None, A, 8 * PG, 3, 0x32) == A
    return machine


def ranges(m: Machine) -> list[tuple[int, int]]:
    return [((v.vm_start - A) // PG, (v.vm_end - A) // PG) for v in m.current.mm.mm_mt]


def test_munmap_in_the_middle_makes_two(m):
    assert do_munmap(m.current.mm, A + 2 * PG, 3 * PG) == 0
    assert ranges(m) == [(0, 2), (5, 8)]
    assert [v.vm_pgoff - A // PG for v in m.current.mm.mm_mt] == [0, 5]
    assert m.current.mm.total_vm == 5
    validate_mm(m.current.mm)


def test_mprotect_splits_and_refuses_holes(m):
    mm = m.current.mm
    assert do_mprotect(mm, A + PG, PG, 1) == 0 and ranges(m) == [(0, 1), (1, 2), (2, 8)]
    assert do_mprotect(mm, A + 7 * PG, 2 * PG, 1) == -ENOMEM
    assert do_mprotect(mm, A + 1, PG, 1) == -EINVAL
    assert do_mprotect(mm, A, PG, 16) == -EINVAL
    assert do_mprotect(mm, A, 0, 1) == 0
    validate_mm(mm)


def test_split_errors(m):
    vma = m.current.mm.mm_mt.walk(A)
    mmap_write_lock(m.current.mm)
    with pytest.raises(KernelBug, match="cannot be split"):
        vma_.split_vma(vma, A, True)
    m.paging.sysctl_max_map_count = 1
    assert vma_.split_vma(vma, A + PG, True) == -ENOMEM
    mmap_write_unlock(m.current.mm)


def test_mlock_faults_in_and_counts(m):
    mm = m.current.mm
    assert do_mlock(mm, A + 2 * PG + 100, PG) == 0, "rounded to whole pages"
    assert mm.locked_vm == 2 and ranges(m) == [(0, 2), (2, 4), (4, 8)]
    assert touch(m, A + 2 * PG, "w").faults == 0
    assert mm.mm_mt.walk(A + 2 * PG).vm_flags & VM_LOCKED
    assert do_mlock(mm, A + 7 * PG, 2 * PG) == -ENOMEM
    assert do_munlock(mm, A, 8 * PG) == 0 and mm.locked_vm == 0
    validate_mappings(m)


def test_moving_a_mapping_keeps_its_pages(m):
    mm = m.current.mm
    pfns = [touch(m, A + i * PG, "w").pfn for i in range(4)]
    to = A + (1 << 30)
    assert sys_mremap(mm, A, 4 * PG, 4 * PG, 3, to) == to
    assert [touch(m, to + i * PG, "w").pfn for i in range(4)] == pfns
    assert not isinstance(touch(m, A), Translation)
    validate_mappings(m)


@pytest.mark.parametrize(
    ("addr", "length", "to", "error"),
    [
        (A + 1, PG, A + (1 << 30), -EINVAL),
        (A, 0, A + (1 << 30), -EINVAL),
        (A, 2 * PG, A + PG, -EINVAL),  # overlapping
        (A, 9 * PG, A + (1 << 30), -EFAULT),
        (A - PG, PG, A + (1 << 30), -EFAULT),
    ],
)
def test_moves_that_are_refused(m, addr, length, to, error):
    assert sys_mremap(m.current.mm, addr, length, length, 3, to) == error


def test_the_checker_counts(m):
    m.current.mm.map_count += 1
    with pytest.raises(KernelBug, match="map_count"):
        validate_mm(m.current.mm)
