"""Page table isolation: two top-level tables, one user half."""

from __future__ import annotations

import pytest

from mmcore.arch.x86.fault import PageFault, SigSegv, Translation, access, touch
from mmcore.arch.x86.mitigations import CPU_ENTRY_AREA_PGD, l1tf_pfn_limit, walk_user
from mmcore.arch.x86.pgtable import PAGE_NONE, pfn_pte, walk
from mmcore.config import Config
from mmcore.errors import UsageError
from mmcore.kernel.fork import do_exit, mm_alloc, spawn
from mmcore.machine import Machine
from mmcore.mm.mmap import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, do_mmap, do_munmap

PG = 4096
A = 0x200000000000
PTI = Config(cpu_bug_meltdown=True)


@pytest.fixture
def m() -> Machine:
    machine = Machine.boot("1G", config=PTI)
    spawn(machine, "task")
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    assert do_mmap(machine.current.mm, None, A, 8 * PG, 3, flags) == A
    return machine


def test_the_pair_of_tables_is_two_pages_in_a_row(m):
    pgd = m.current.mm.pgd
    assert pgd.shadow.pfn == pgd.pfn + 1 and pgd.pfn % 2 == 0


def test_user_entries_are_in_both_and_no_code_runs_on_the_kernels(m):
    mm = m.current.mm
    touch(m, A, "w")
    kernel, user = walk(mm, A), walk_user(mm, A)
    assert kernel[0][2] == user[0][2] | 1 << 63 and not user[0][2] >> 63
    assert kernel[1:] == user[1:]


def test_the_kernel_is_not_in_the_users_table(m):
    mm = m.current.mm
    direct = m.paging.layout.page_offset_base + 0x1000
    assert walk(mm, direct)[-1][2] & 1
    assert walk_user(mm, direct) == [(4, 273, 0)]
    present = [i for i in range(256, 512) if mm.pgd.shadow[i] & 1]
    assert present == [CPU_ENTRY_AREA_PGD]
    # So user mode finds nothing present there: error 4, where the shared table gives 5.
    assert access(m, mm, direct, "r") == PageFault(direct, 4)
    result = touch(m, direct)
    assert (
        isinstance(result, SigSegv) and result.error_code == 5
    ), "user space is told 5 in any case"


def test_unmapping_clears_both(m):
    mm = m.current.mm
    touch(m, A, "w")
    assert do_munmap(mm, A, 8 * PG) == 0
    assert not mm.pgd[A >> 39] and not mm.pgd.shadow[A >> 39]
    do_exit(m.current)


def test_off_on_cpus_without_meltdown():
    mm = mm_alloc(Machine.boot("1G"))
    assert mm.pgd.shadow is None
    with pytest.raises(UsageError, match="no isolation"):
        walk_user(mm, 0)


def test_the_kernel_can_still_reach_user_memory(m):
    assert isinstance(touch(m, A, "w", user=False), Translation)


def test_inverted_entries_point_above_what_the_cache_reaches():
    """L1TF: below the limit an inverted frame has the top address bit set."""
    limit = l1tf_pfn_limit(46)
    assert limit << 12 == 1 << 45
    for pfn in (0, 1, limit - 1):
        raw = pfn_pte(pfn, PAGE_NONE) >> 12 & (1 << 34) - 1
        assert raw >= limit
