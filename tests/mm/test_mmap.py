"""Where mappings go, whether they may, brk, stacks and promises: the kernel's answers, call by call."""

from __future__ import annotations

import pytest

from mmcore.arch.x86.fault import SigSegv, Translation, touch
from mmcore.arch.x86.mmap import ADDR_COMPAT_LAYOUT, PF_RANDOMIZE, arch_pick_mmap_layout
from mmcore.arch.x86.pgtable import translate
from mmcore.errors import *
from mmcore.kernel.fork import do_exit, kernel_clone, spawn
from mmcore.machine import Machine, bare_zone
from mmcore.mm import filemap, madvise, mlock, mprotect, mremap, mseal, shmem, util
from mmcore.mm.memory import validate_mappings
from mmcore.mm.mm import (
    MMF_HAS_MDWE,
    VM_ACCOUNT,
    VM_DROPPABLE,
    VM_LOCKED,
    VM_NORESERVE,
    VM_WIPEONFORK,
)
from mmcore.mm.mmap import *
from mmcore.mm.vma import validate_mm
from mmcore.proc.task_mmu import vma_name

PG = 4096
MB = 1 << 20
A = 0x200000000000
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS
FIXED = ANON | MAP_FIXED
TOP = 0x7FFFF7FFF000


@pytest.fixture
def m() -> Machine:
    machine = bare_zone(16384).machine
    machine.transparent_hugepage_enabled = "never"
    spawn(machine, "t")
    return machine


@pytest.fixture
def mm(m):
    return m.current.mm


def pages(mm) -> list[tuple[int, int]]:
    return [((v.vm_start - A) // PG, (v.vm_end - A) // PG) for v in mm.mm_mt]


# --- where ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "where"),
    [
        (PG, TOP - PG),
        (100 << 10, TOP - (100 << 10)),
        (2 * MB, 0x7FFFF7C00000),  # 2 MiB: aligned, so that a huge page fits
        (2 * MB + PG, TOP - 2 * MB - PG),
        (4 * MB, 0x7FFFF7A00000),
        (1, TOP - PG),
    ],
)
def test_no_hint(mm, length, where):
    assert sys_mmap(mm, 0, length, RW, ANON, None) == where


def test_the_highest_hole_that_is_large_enough(mm):
    for page in (1, 3, 4, 8):
        sys_mmap(mm, TOP - page * PG, PG, PROT_NONE, FIXED, None)
    assert sys_mmap(mm, 0, PG, RW, ANON, None) == TOP - 2 * PG
    assert sys_mmap(mm, 0, 3 * PG, RW, ANON, None) == TOP - 7 * PG
    assert sys_mmap(mm, 0, 4 * PG, RW, ANON, None) == TOP - 12 * PG


def test_a_hint_is_rounded_down_and_taken_if_free(mm):
    assert sys_mmap(mm, A + 5, PG, RW, ANON, None) == A
    assert sys_mmap(mm, A, PG, RW, ANON, None) == TOP - PG, "taken: as if there were no hint"
    assert sys_mmap(mm, 0x1000, PG, RW, ANON, None) == 65536, "raised to mmap_min_addr"
    assert sys_mmap(mm, 1 << 48, PG, RW, ANON, None) == TOP - 2 * PG, "not an address: ignored"


def test_space_below_a_stack_is_kept_free(mm):
    gap = mm.sys.stack_guard_gap
    sys_mmap(mm, A, PG, RW, FIXED | MAP_GROWSDOWN, None)
    assert sys_mmap(mm, A - gap - PG, PG, RW, ANON, None) == A - gap - PG
    assert sys_mmap(mm, A - gap, PG, RW, ANON, None) == TOP - PG
    sys_mmap(mm, TOP - 600 * PG, PG, RW, FIXED | MAP_GROWSDOWN, None)
    sys_mmap(mm, TOP - 599 * PG, 598 * PG, PROT_NONE, FIXED, None)
    assert sys_mmap(mm, 0, PG, RW, ANON, None) == TOP - 600 * PG - gap - PG


def test_32_bit_addresses_are_searched_from_the_bottom(mm):
    assert sys_mmap(mm, 0, PG, RW, ANON | MAP_32BIT, None) == 0x40000000
    assert sys_mmap(mm, 0, PG, RW, ANON | MAP_32BIT, None) == 0x40001000
    assert sys_mmap(mm, 0, 1 << 31, RW, ANON | MAP_32BIT | MAP_NORESERVE, None) == -ENOMEM


def test_bottom_up_when_the_top_is_full_and_in_the_old_layout(m, mm):
    legacy = mm.mmap_legacy_base
    assert legacy == 0x2AAAAAAAB000
    flags = FIXED | MAP_NORESERVE
    assert sys_mmap(mm, 65536, TOP - 65536, PROT_NONE, flags, None) == 65536
    assert sys_mmap(mm, 0, PG, RW, ANON, None) == TOP, "above mmap_base"
    m.current.personality = ADDR_COMPAT_LAYOUT
    arch_pick_mmap_layout(mm)
    sys_munmap(mm, legacy, 8 * PG)
    assert mm.mmap_base == legacy
    assert sys_mmap(mm, 0, PG, RW, ANON, None) == legacy
    assert sys_mmap(mm, 0, PG, RW, ANON, None) == legacy + PG


def test_the_stack_limit_moves_the_base(m, mm):
    for limit, base in (
        (8 * MB, TOP),
        (1 << 30, 0x7FFFFFFFF000 - (1 << 30) - (256 << 12)),
        (util.RLIM_INFINITY, 0x7FFFFFFFF000 - 0x7FFFFFFFF000 // 6 * 5 + 4095 & -4096),
    ):
        m.current.rlim[util.RLIMIT_STACK] = (limit, util.RLIM_INFINITY)
        arch_pick_mmap_layout(mm)
        assert mm.mmap_base == base
    m.current.rlim[util.RLIMIT_STACK] = (8 * MB, util.RLIM_INFINITY)
    m.current.flags |= PF_RANDOMIZE
    bases = []
    for _ in range(20):
        arch_pick_mmap_layout(mm)
        bases.append(mm.mmap_base)
        gap = (0x3FFFFF << 12) + (256 << 12) + 8 * MB
        assert 0 <= 0x7FFFFFFFF000 - gap - mm.mmap_base < 1 << 40
    assert len(sorted(set(bases))) == 20


def test_the_event_of_a_search(m, mm):
    with m.trace.record("mmap:vm_unmapped_area") as log:
        sys_mmap(mm, 0, 3 * PG, RW, ANON, None)
        sys_mmap(mm, A, PG, RW, ANON, None)
    assert [e.values for e in log] == [(TOP - 3 * PG, 0, 0, 1, 3 * PG, PG, TOP, 0, 0)]


# --- whether ----------------------------------------------------------------------------------

FILE = filemap.File(filemap.AddressSpace(16 * PG, "f"), f_path="/f")
READ_ONLY = filemap.File(filemap.AddressSpace(16 * PG, "r"), writable=False)
WRITE_ONLY = filemap.File(filemap.AddressSpace(16 * PG, "w"), readable=False)
NOEXEC = filemap.File(filemap.AddressSpace(16 * PG, "n"), noexec=True)
SWAPFILE = filemap.File(filemap.AddressSpace(16 * PG, "s", swapfile=True))
APPEND = filemap.File(filemap.AddressSpace(16 * PG, "a", append_only=True))
PIPE = filemap.File(filemap.AddressSpace(0, "p"), can_mmap=False)
ULONG = (1 << 64) - 1


@pytest.mark.parametrize(
    ("addr", "length", "prot", "flags", "file", "off", "error"),
    [
        (A, 0, RW, FIXED, None, 0, EINVAL),
        (A, PG, RW, FIXED, None, 1, EINVAL),
        (A, -1, RW, FIXED, None, 0, ENOMEM),  # rounds to 0
        (A, -2 * PG, RW, FIXED, None, 0, ENOMEM),
        (A + 1, PG, RW, FIXED, None, 0, EINVAL),
        (0x7FFFFFFFF000, PG, RW, FIXED, None, 0, ENOMEM),
        (ULONG - 4095, PG, RW, FIXED, None, 0, ENOMEM),
        (A, PG, RW, MAP_ANONYMOUS | MAP_FIXED, None, 0, EINVAL),  # no type
        (A, PG, RW, MAP_ANONYMOUS | MAP_FIXED | 7, None, 0, EINVAL),
        (A, PG, RW, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, None, 0, EINVAL),
        (A, PG, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN, None, 0, EINVAL),
        (A, PG, RW, MAP_PRIVATE, None, 0, EBADF),
        (A, PG, RW, MAP_PRIVATE, FILE, ULONG - 4095, EOVERFLOW),
        (A, PG, RW, MAP_SHARED_VALIDATE | 0x80000, FILE, 0, EOPNOTSUPP),
        (A, PG, RW, MAP_SHARED, READ_ONLY, 0, EACCES),
        (A, PG, PROT_READ, MAP_SHARED, WRITE_ONLY, 0, EACCES),
        (A, PG, PROT_READ, MAP_PRIVATE, WRITE_ONLY, 0, EACCES),
        (A, PG, RW, MAP_SHARED, SWAPFILE, 0, ETXTBSY),
        (A, PG, PROT_READ, MAP_SHARED, APPEND, 0, EACCES),
        (A, PG, PROT_EXEC, MAP_PRIVATE, NOEXEC, 0, EPERM),
        (A, PG, PROT_READ, MAP_PRIVATE, PIPE, 0, ENODEV),
        (A, PG, PROT_READ, MAP_PRIVATE | MAP_GROWSDOWN, FILE, 0, EINVAL),
        (A, PG, PROT_READ, 7, FILE, 0, EINVAL),
        (A, PG, RW, MAP_DROPPABLE | MAP_ANONYMOUS | MAP_LOCKED, None, 0, EINVAL),
        (A, PG, RW, MAP_DROPPABLE | MAP_ANONYMOUS | MAP_GROWSDOWN, None, 0, EINVAL),
        (A, PG, RW, MAP_DROPPABLE, FILE, 0, EINVAL),
    ],
)
def test_refused_mappings(mm, addr, length, prot, flags, file, off, error):
    assert sys_mmap(mm, addr, length, prot, flags, file, off) == -error
    assert mm.map_count == 0 and mm.total_vm == 0 and not mm.mmap_lock.writer


def test_order_of_the_checks(m, mm):
    """A call with several faults gets the errno of the first check that the kernel makes."""
    mm.sys.sysctl_max_map_count = -1
    assert sys_mmap(mm, A, -1, RW, FIXED, None) == -ENOMEM
    assert sys_mmap(mm, A + 1, PG, RW, FIXED, None) == -ENOMEM, "map_count before the address"
    mm.sys.sysctl_max_map_count = 65530
    sys_mmap(mm, A, PG, RW, FIXED, None)
    m.current.cap_effective = 0
    m.current.rlim[util.RLIMIT_MEMLOCK] = (0, 0)
    both = ANON | MAP_FIXED_NOREPLACE | MAP_LOCKED
    assert sys_mmap(mm, A, PG, RW, both, None) == -EEXIST, "what is there before the right to lock"
    assert sys_mmap(mm, A + PG, PG, RW, both, None) == -EPERM
    m.current.rlim[util.RLIMIT_MEMLOCK] = (PG, PG)
    assert sys_mmap(mm, A + PG, 2 * PG, RW, both, None) == -EAGAIN
    assert sys_mmap(mm, A + PG, PG, RW, MAP_SHARED | MAP_LOCKED, READ_ONLY) == -EACCES


def test_low_addresses_need_a_right(m, mm):
    assert sys_mmap(mm, 0, PG, RW, FIXED, None) == 0
    sys_munmap(mm, 0, PG)
    m.current.cap_effective = 0
    assert sys_mmap(mm, 0, PG, RW, FIXED, None) == -EPERM
    assert sys_mmap(mm, 65535, PG, RW, FIXED, None) == -EINVAL
    assert sys_mmap(mm, 65536, PG, RW, FIXED, None) == 65536


def test_flags_of_mappings(mm):
    sys_mmap(mm, A, PG, RW, MAP_DROPPABLE | MAP_ANONYMOUS | MAP_FIXED, None)
    flags = mm.mm_mt.walk(A).vm_flags
    assert flags & VM_DROPPABLE and flags & VM_NORESERVE and flags & VM_WIPEONFORK
    assert not flags & VM_ACCOUNT
    sys_mmap(mm, A + PG, PG, PROT_READ, MAP_SHARED | MAP_FIXED, READ_ONLY)
    vma = mm.mm_mt.walk(A + PG)
    assert mprotect.sys_mprotect(mm, A + PG, PG, RW) == -EACCES, "it may never be written"
    assert vma in READ_ONLY.f_mapping.i_mmap and READ_ONLY.f_mapping.i_mmap_writable == 0
    sys_munmap(mm, A, 2 * PG)
    assert not READ_ONLY.f_mapping.i_mmap


def test_sealed_memory_files(mm):
    file = shmem.memfd_create(mm, "s", 4 * PG)
    file.f_mapping.seals = shmem.F_SEAL_WRITE
    assert sys_mmap(mm, A, PG, RW, MAP_SHARED | MAP_FIXED, file) == -EPERM
    assert sys_mmap(mm, A, PG, RW, MAP_PRIVATE | MAP_FIXED, file) == A
    assert sys_mmap(mm, A + PG, PG, PROT_READ, MAP_SHARED | MAP_FIXED, file) == A + PG
    assert mprotect.sys_mprotect(mm, A + PG, PG, RW) == -EACCES
    assert madvise.sys_madvise(mm, A + PG, PG, madvise.MADV_REMOVE) == -EACCES


def test_no_memory_is_both_writable_and_executable(mm):
    mm.flags |= 1 << MMF_HAS_MDWE
    assert sys_mmap(mm, A, PG, RW | PROT_EXEC, FIXED, None) == -EACCES
    sys_mmap(mm, A, PG, RW, FIXED, None)
    assert (
        mprotect.sys_mprotect(mm, A, PG, PROT_READ | PROT_EXEC) == -EACCES
    ), "made executable later"
    assert sys_mmap(mm, A, PG, PROT_READ | PROT_EXEC, FIXED, None) == A


# --- limits -----------------------------------------------------------------------------------


def test_address_space_and_data_limits(m, mm):
    m.current.rlim[util.RLIMIT_AS] = (8 * PG, 8 * PG)
    assert sys_mmap(mm, A, 9 * PG, RW, FIXED, None) == -ENOMEM
    assert sys_mmap(mm, A, 8 * PG, RW, FIXED, None) == A
    assert sys_mmap(mm, A, 8 * PG, RW, FIXED, None) == A, "what goes is counted off"
    assert sys_mmap(mm, A + 9 * PG, PG, RW, FIXED, None) == -ENOMEM
    assert mremap.sys_mremap(mm, A, 8 * PG, 9 * PG, 1) == -ENOMEM
    assert mremap.sys_mremap(mm, A, 8 * PG, 8 * PG, 5) == -ENOMEM, "DONTUNMAP keeps both"
    m.current.rlim[util.RLIMIT_AS] = (100 * PG, 100 * PG)
    m.current.rlim[util.RLIMIT_DATA] = (8 * PG, 8 * PG)
    assert sys_mmap(mm, A + 9 * PG, PG, RW, FIXED, None) == -ENOMEM
    assert sys_mmap(mm, A + 9 * PG, PG, PROT_READ, FIXED, None) == A + 9 * PG
    assert mprotect.sys_mprotect(mm, A + 9 * PG, PG, RW) == -ENOMEM, "it would become data"
    m.current.rlim[util.RLIMIT_DATA] = (0, 9 * PG)
    assert mprotect.sys_mprotect(mm, A + 9 * PG, PG, RW) == 0, "0 is the hard limit (Valgrind)"
    validate_mm(mm)


def test_a_refused_mapping_leaves_what_was_there(m, mm):
    sys_mmap(mm, A, 4 * PG, PROT_READ, FIXED, None)
    touch(m, A, "r")
    m.current.rlim[util.RLIMIT_AS] = (4 * PG, 4 * PG)
    assert sys_mmap(mm, A + PG, 4 * PG, PROT_READ, FIXED, None) == -ENOMEM
    assert pages(mm) == [(0, 1), (1, 4)], "the split stays"
    assert all(not v.detached for v in mm.mm_mt)
    assert touch(m, A, "r").faults == 0
    validate_mappings(m)


@pytest.mark.parametrize("room", range(6))
def test_map_count_at_each_point_of_a_call(m, mm, room):
    """With room for so many more mappings: what works, and what a failure leaves behind."""
    for i in range(3):
        sys_mmap(mm, A + i * 8 * PG, 6 * PG, RW, FIXED, None)
    limit = mm.sys.sysctl_max_map_count = mm.map_count + room
    ok = mprotect.sys_mprotect(mm, A + PG, PG, PROT_READ)
    assert ok == (0 if room >= 2 else -ENOMEM)
    assert pages(mm)[:2] == (
        [(0, 6), (8, 14)] if room == 0 else [(0, 1), (1, 6 if room < 2 else 2)]
    )
    mm.sys.sysctl_max_map_count = limit = mm.map_count + room
    assert sys_munmap(mm, A + 9 * PG, PG) == (0 if room else -ENOMEM), "a hole makes one more"
    mm.sys.sysctl_max_map_count = limit = mm.map_count
    assert sys_munmap(mm, A + 15 * PG, 2 * PG) == 0, "two ends cut: allowed at the limit"
    mm.sys.sysctl_max_map_count = limit = mm.map_count + room
    got = mremap.sys_mremap(mm, A + 18 * PG, PG, 2 * PG, 1)
    assert got == -ENOMEM if room < 4 else got > 0, "three must be left"
    assert mm.map_count <= limit
    mm.sys.sysctl_max_map_count = mm.map_count - 1 + room
    got = sys_mmap(mm, A + 100 * PG, PG, PROT_EXEC, FIXED, None)
    assert (got == -ENOMEM) if room == 0 else got == A + 100 * PG, "one above the limit is possible"
    mm.sys.sysctl_max_map_count = mm.map_count - 1
    mm.start_brk = mm.brk = A + 200 * PG
    assert sys_brk(mm, A + 201 * PG) == A + 200 * PG
    assert madvise.sys_madvise(mm, A + 4 * PG, PG, madvise.MADV_DONTFORK) == -EAGAIN
    assert mlock.sys_mlock(mm, A + 4 * PG, PG) == -ENOMEM
    assert mseal.sys_mseal(mm, A + 4 * PG, PG) == -ENOMEM
    validate_mappings(m)


# --- brk --------------------------------------------------------------------------------------


def heap(mm, at: int = A) -> None:
    mm.start_brk = mm.brk = at


def test_the_heap_grows_and_shrinks(m, mm):
    heap(mm)
    assert sys_brk(mm, 0) == A, "below its start: nothing"
    assert sys_brk(mm, A + 5) == A + 5 and pages(mm) == [(0, 1)]
    assert sys_brk(mm, A + PG) == A + PG and pages(mm) == [(0, 1)]
    assert sys_brk(mm, A + 8 * PG) == A + 8 * PG and pages(mm) == [(0, 8)]
    assert vma_name(mm.mm_mt.walk(A)) == "[heap]"
    for i in range(8):
        touch(m, A + i * PG, "w")
    assert sys_brk(mm, A + 3 * PG) == A + 3 * PG and pages(mm) == [(0, 3)]
    assert mm.data_vm == 3 and isinstance(touch(m, A + 4 * PG, "w"), SigSegv)
    assert sys_brk(mm, A) == A and pages(mm) == []
    assert sys_brk(mm, ULONG) == A and sys_brk(mm, 1 << 47) == A
    validate_mappings(m)


def test_the_heap_stops_at_what_is_behind_it(m, mm):
    heap(mm)
    sys_mmap(mm, A + 8 * PG, PG, RW, FIXED, None)
    assert sys_brk(mm, A + 8 * PG) == A, "a page must be left"
    assert sys_brk(mm, A + 7 * PG) == A + 7 * PG
    assert pages(mm) == [(0, 7), (8, 9)]
    sys_munmap(mm, A, 16 * PG)
    heap(mm)
    sys_mmap(mm, A + 300 * PG, PG, RW, FIXED | MAP_GROWSDOWN, None)
    assert sys_brk(mm, A + 44 * PG) == A, "and the gap below a stack"
    assert sys_brk(mm, A + 43 * PG) == A + 43 * PG


def test_the_heap_merges_backwards_only(mm):
    sys_mmap(mm, A - PG, PG, RW, FIXED, None)
    heap(mm)
    sys_brk(mm, A + PG)
    assert pages(mm) == [(-1, 0), (0, 1)], "not with what lies below its start"
    assert sys_brk(mm, A + 2 * PG) == A + 2 * PG and pages(mm)[1] == (0, 2)
    sys_mmap(mm, A + 3 * PG, PG, RW, FIXED, None)
    mm.brk = A + 2 * PG
    assert sys_brk(mm, A + 2 * PG + 1) == A + 2 * PG, "a page must be left"


def test_the_heap_and_the_data_limit(m, mm):
    heap(mm)
    mm.start_data, mm.end_data = 0x1000, 0x3000
    m.current.rlim[util.RLIMIT_DATA] = (6 * PG, 6 * PG)
    assert sys_brk(mm, A + 5 * PG) == A and sys_brk(mm, A + 4 * PG) == A + 4 * PG


def test_a_locked_heap_is_faulted_in(m, mm):
    heap(mm)
    assert mlock.sys_mlockall(mm, mlock.MCL_FUTURE) == 0
    sys_brk(mm, A + 4 * PG)
    assert mm.locked_vm == 4 and touch(m, A + 3 * PG, "w").faults == 0
    m.current.cap_effective = 0
    m.current.rlim[util.RLIMIT_MEMLOCK] = (4 * PG, 4 * PG)
    assert sys_brk(mm, A + 5 * PG) == A + 4 * PG
    validate_mm(mm)


# --- stacks -----------------------------------------------------------------------------------


def stack(mm) -> None:
    sys_mmap(mm, A, 4 * PG, RW, FIXED | MAP_GROWSDOWN, None)


def test_a_stack_grows_by_faults_however_far(m, mm):
    stack(mm)
    assert isinstance(touch(m, A - 100 * PG, "w"), Translation)
    assert pages(mm) == [(-100, 4)] and mm.stack_vm == mm.total_vm == 104
    vma = mm.mm_mt.walk(A)
    assert vma.vm_pgoff == A // PG - 100
    validate_mappings(m)


def test_how_far_a_stack_grows(m, mm):
    stack(mm)
    m.current.rlim[util.RLIMIT_STACK] = (8 * PG, 8 * PG)
    assert isinstance(touch(m, A - 5 * PG, "w"), SigSegv)
    assert isinstance(touch(m, A - 4 * PG, "w"), Translation)
    m.current.rlim[util.RLIMIT_STACK] = (8 * MB, 8 * MB)
    m.current.rlim[util.RLIMIT_AS] = (9 * PG, 9 * PG)
    assert isinstance(touch(m, A - 6 * PG, "w"), SigSegv)
    assert isinstance(touch(m, A - 5 * PG, "w"), Translation)
    assert pages(mm) == [(-5, 4)]


@pytest.mark.parametrize(
    ("prot", "grows", "far"), [(RW, False, 256), (PROT_NONE, False, 1), (RW, True, 1)]
)
def test_the_gap_below_a_stack(m, mm, prot, grows, far):
    stack(mm)
    flags = FIXED | (MAP_GROWSDOWN if grows else 0)
    sys_mmap(mm, A - 600 * PG, PG, prot, flags, None)
    lowest = A - 599 * PG + far * PG if far > 1 else A - 599 * PG
    assert isinstance(touch(m, lowest - PG, "w"), SigSegv) or far == 1
    assert isinstance(touch(m, lowest, "w"), Translation)
    assert mm.mm_mt.walk(lowest).vm_end == A + 4 * PG


def test_a_growing_stack_is_locked_with_it(m, mm):
    stack(mm)
    mlock.sys_mlock(mm, A, 4 * PG)
    touch(m, A - 2 * PG, "w")
    assert mm.locked_vm == 6
    m.current.cap_effective = 0
    m.current.rlim[util.RLIMIT_MEMLOCK] = (6 * PG, 6 * PG)
    assert isinstance(touch(m, A - 3 * PG, "w"), SigSegv)


def test_expand_stack_directly(m, mm):
    from mmcore.mm.mm import mmap_read_lock, mmap_read_unlock, mmap_write_lock, mmap_write_unlock

    stack(mm)
    mmap_read_lock(mm)
    vma = expand_stack(mm, A - PG)
    assert vma is mm.mm_mt.walk(A - PG)
    mmap_read_unlock(mm)
    sys_mmap(mm, A + 64 * PG, PG, RW, FIXED, None)
    mmap_read_lock(mm)
    assert expand_stack(mm, A + 63 * PG) is None and mm.mmap_lock.readers == 0
    mmap_write_lock(mm)
    assert expand_downwards(mm.mm_mt.walk(A + 64 * PG), A) == -EFAULT
    assert expand_downwards(mm.mm_mt.walk(A), 4096) == -EPERM
    mmap_write_unlock(mm)
    assert mprotect.sys_mprotect(mm, A + PG, PG, 1 | mprotect.PROT_GROWSDOWN) == 0
    assert mm.mm_mt.walk(A - PG).vm_flags & 3 == 1, "changed from its beginning"
    assert mprotect.sys_mprotect(mm, A + 64 * PG, PG, 1 | mprotect.PROT_GROWSDOWN) == -EINVAL


# --- promises ---------------------------------------------------------------------------------


def committed(m) -> int:
    return util.vm_memory_committed(m)


def test_what_is_promised(m, mm):
    sys_mmap(mm, A, 4 * PG, RW, FIXED, None)
    assert committed(m) == 4
    sys_mmap(mm, A + 4 * PG, 4 * PG, PROT_READ, FIXED, None)
    sys_mmap(mm, A + 8 * PG, 4 * PG, RW, FIXED | MAP_NORESERVE, None)
    assert committed(m) == 4
    sys_mmap(mm, A + 12 * PG, 4 * PG, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, None)
    assert committed(m) == 8, "shared memory when it is made"
    mprotect.sys_mprotect(mm, A + 4 * PG, 4 * PG, RW)
    assert committed(m) == 12
    mprotect.sys_mprotect(mm, A + 4 * PG, 4 * PG, PROT_READ)
    assert committed(m) == 8, "not written to: taken back"
    touch(m, A, "w")
    mprotect.sys_mprotect(mm, A, 4 * PG, PROT_READ)
    assert committed(m) == 8, "written to: kept"
    sys_mmap(mm, A, 2 * PG, RW, FIXED, None)
    assert committed(m) == 8, "what it replaces is counted off"
    child = kernel_clone(m.current)
    assert committed(m) == 12, "fork promises the private pages again"
    do_exit(child)
    sys_munmap(mm, A, 16 * PG)
    assert committed(m) == 0


def test_pages_of_a_memory_file_are_promised_one_by_one(m, mm):
    file = shmem.memfd_create(mm, "x", 8 * PG)
    sys_mmap(mm, A, 8 * PG, RW, MAP_SHARED | MAP_FIXED, file)
    assert committed(m) == 0
    touch(m, A, "w")
    touch(m, A + PG, "r")
    assert committed(m) == 2
    madvise.sys_madvise(mm, A, PG, madvise.MADV_REMOVE)
    assert committed(m) == 1 and isinstance(touch(m, A, "r"), Translation)
    filemap.fput(m, file)
    sys_munmap(mm, A, 8 * PG)
    assert committed(m) == 0


def test_one_request_larger_than_all_memory(m, mm):
    total = m.totalram_pages
    assert sys_mmap(mm, A, (total + 1) * PG, RW, FIXED, None) == -ENOMEM
    assert sys_mmap(mm, A, total * PG, RW, FIXED, None) == A
    assert sys_mmap(mm, A + (1 << 40), total * PG, RW, FIXED, None) == A + (
        1 << 40
    ), "again and again"
    m.total_swap_pages = 10
    assert sys_mmap(mm, A + (2 << 40), (total + 10) * PG, RW, FIXED, None) > 0
    util.set_overcommit_memory(m, 1)
    assert sys_mmap(mm, A + (3 << 40), 1 << 40, RW, FIXED, None) > 0
    assert "not enough memory for the allocation" in m.dmesg[-1]


def test_strict_promises(m, mm):
    util.set_overcommit_memory(m, 2)
    limit = util.vm_commit_limit(m)
    assert limit == m.totalram_pages // 2
    assert sys_mmap(mm, A, limit * PG, RW, FIXED, None) == -ENOMEM, "one must be left"
    assert sys_mmap(mm, A, (limit - 1) * PG, RW, FIXED | MAP_NORESERVE, None) == A
    assert committed(m) == limit - 1, "MAP_NORESERVE counts for nothing here"
    sys_munmap(mm, A, limit * PG)
    admin = m.paging.sysctl_admin_reserve_kbytes >> 2
    m.current.cap_effective = 0
    assert 0 < admin <= 2048
    assert sys_mmap(mm, A, (limit - admin) * PG, RW, FIXED, None) == -ENOMEM
    assert sys_mmap(mm, A, (limit - admin - 1) * PG, RW, FIXED, None) == A
    assert kernel_clone(m.current) == -ENOMEM, "fork wants the same again"
    assert mremap.sys_mremap(mm, A, PG, PG, 5) == -ENOMEM
    m.paging.sysctl_overcommit_kbytes = 4096
    assert util.vm_commit_limit(m) == 1024
    m.total_swap_pages = 100
    assert util.vm_commit_limit(m) == 1124


def test_cpus_pass_promises_on_in_batches(m, mm):
    batch = util.mm_compute_batch(m, 0)
    assert batch == max(m.totalram_pages // 4, 32)
    sys_mmap(mm, A, PG, RW, FIXED, None)
    assert m.paging.vm_committed_as.count == 0 and committed(m) == 1
    sys_mmap(mm, A + PG, batch * PG, RW, FIXED, None)
    assert m.paging.vm_committed_as.count == batch + 1


# --- locking, advice, sealing -----------------------------------------------------------------


def test_mlock_limits(m, mm):
    sys_mmap(mm, A, 16 * PG, RW, FIXED, None)
    m.current.cap_effective = 0
    m.current.rlim[util.RLIMIT_MEMLOCK] = (4 * PG, 4 * PG)
    assert mlock.sys_mlock(mm, A, 5 * PG) == -ENOMEM and mm.locked_vm == 0
    assert mlock.sys_mlock(mm, A, 4 * PG) == 0
    assert mlock.sys_mlock(mm, A + PG, 3 * PG) == 0, "what is locked already counts once"
    assert mlock.sys_mlock(mm, A + 3 * PG, 2 * PG) == -ENOMEM
    assert mlock.sys_mlock2(mm, A, PG, 2) == -EINVAL
    assert mlock.sys_munlock(mm, A, 16 * PG) == 0 and mm.locked_vm == 0
    assert mlock.sys_mlockall(mm, mlock.MCL_CURRENT) == -ENOMEM
    assert mlock.sys_mlockall(mm, 0) == mlock.sys_mlockall(mm, 4) == -EINVAL
    m.current.rlim[util.RLIMIT_MEMLOCK] = (0, 0)
    assert mlock.sys_mlock(mm, A, PG) == mlock.sys_mlockall(mm, 1) == -EPERM
    assert mlock.sys_munlockall(mm) == 0
    validate_mm(mm)


def test_mlock_what_cannot_be_faulted_in(m, mm):
    sys_mmap(mm, A, PG, PROT_NONE, FIXED, None)
    assert mlock.sys_mlock(mm, A, PG) == -ENOMEM and mm.mm_mt.walk(A).vm_flags & VM_LOCKED
    assert mlock.sys_mlock2(mm, A, PG, mlock.MLOCK_ONFAULT) == 0
    sys_mmap(mm, A, 4 * PG, RW, MAP_SHARED | MAP_FIXED, shmem.memfd_create(mm, "x", PG))
    assert mlock.sys_mlock(mm, A, 2 * PG) == -ENOMEM, "behind the end of the file"


def test_advice_goes_on_over_holes(mm):
    for page in (0, 2, 3):
        sys_mmap(mm, A + page * PG, PG, RW if page < 3 else PROT_READ, FIXED, None)
    assert madvise.sys_madvise(mm, A, 4 * PG, madvise.MADV_DONTDUMP) == -ENOMEM
    assert all(v.vm_flags & 0x4000000 for v in mm.mm_mt), "all that is there was changed"
    assert madvise.sys_madvise(mm, A + 4 * PG, PG, madvise.MADV_NORMAL) == -ENOMEM


@pytest.mark.parametrize(
    ("start", "length", "advice", "error"),
    [
        (A + 1, PG, 0, EINVAL),
        (A, PG, 5, EINVAL),
        (A, PG, 99, EINVAL),
        (A, -1, 0, EINVAL),
        (A, ULONG - A, 0, EINVAL),  # the end wraps
        (A, 1 << 60, 0, ENOMEM),
        (A + 8 * PG, PG, madvise.MADV_FREE, EINVAL),  # a file
        (A + 8 * PG, PG, madvise.MADV_WIPEONFORK, EINVAL),
        (A + 8 * PG, PG, madvise.MADV_REMOVE, EACCES),
        (A, PG, madvise.MADV_REMOVE, EINVAL),
        (A + 4 * PG, PG, madvise.MADV_DONTNEED, EINVAL),  # locked
        (A + 4 * PG, PG, madvise.MADV_COLD, EINVAL),
        (A, PG, madvise.MADV_HWPOISON, EOPNOTSUPP),
    ],
)
def test_refused_advice(mm, start, length, advice, error):
    sys_mmap(mm, A, 4 * PG, RW, FIXED, None)
    sys_mmap(mm, A + 4 * PG, PG, RW, FIXED | MAP_LOCKED, None)
    sys_mmap(mm, A + 8 * PG, PG, RW, MAP_PRIVATE | MAP_FIXED, FILE)
    assert madvise.sys_madvise(mm, start, length, advice) == -error
    assert madvise.sys_madvise(mm, A, 0, 0) == 0
    assert madvise.sys_madvise(mm, A + 4 * PG, PG, madvise.MADV_DONTNEED_LOCKED) == 0
    sys_munmap(mm, A, 16 * PG)


def test_sealed_mappings(m, mm):
    sys_mmap(mm, A, 8 * PG, RW, FIXED, None)
    assert mseal.sys_mseal(mm, A, 9 * PG) == -ENOMEM and mm.map_count == 1
    assert mseal.sys_mseal(mm, A + 2 * PG, 2 * PG) == 0 and pages(mm) == [(0, 2), (2, 4), (4, 8)]
    assert mseal.sys_mseal(mm, A + 2 * PG, 2 * PG) == 0, "again is no error"
    assert mseal.sys_mseal(mm, A, PG, 1) == mseal.sys_mseal(mm, A + 1, PG) == -EINVAL
    assert mseal.sys_mseal(mm, A, -1) == -EINVAL and mseal.sys_mseal(mm, A, 0) == 0
    for refused in (
        sys_munmap(mm, A, 8 * PG),
        sys_mmap(mm, A + 3 * PG, PG, RW, FIXED, None),
        mprotect.sys_mprotect(mm, A + 2 * PG, PG, PROT_READ),
        mremap.sys_mremap(mm, A + 2 * PG, PG, 2 * PG, 1),
        mremap.sys_mremap(mm, A, PG, PG, 3, A + 3 * PG),
    ):
        assert refused == -EPERM
    assert pages(mm) == [(0, 2), (2, 4), (4, 8)] and mm.total_vm == 8
    assert madvise.sys_madvise(mm, A + 2 * PG, PG, madvise.MADV_DONTNEED) == 0, "it may be written"
    assert mprotect.sys_mprotect(mm, A, 4 * PG, PROT_READ) == -EPERM
    assert mm.mm_mt.walk(A).vm_flags & 2 == 0, "up to the sealed one it is changed"
    sys_mmap(mm, A + 16 * PG, PG, PROT_READ, FIXED, None)
    mseal.sys_mseal(mm, A + 16 * PG, PG)
    assert madvise.sys_madvise(mm, A + 16 * PG, PG, madvise.MADV_DONTNEED) == -EPERM
    validate_mappings(m)


# --- mremap -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((A, PG, PG, 8), EINVAL),
        ((A, PG, PG, 2, A + 64 * PG), EINVAL),  # FIXED without MAYMOVE
        ((A, PG, PG, 4), EINVAL),
        ((A, PG, 2 * PG, 5), EINVAL),  # DONTUNMAP with another size
        ((A + 1, PG, PG, 1), EINVAL),
        ((A, PG, 0, 1), EINVAL),
        ((A + 64 * PG, PG, PG, 1), EFAULT),
        ((A, 0, PG, 1), EINVAL),  # a second mapping of private memory
        ((A, 9 * PG, 10 * PG, 1), EFAULT),
        ((A, PG, PG, 3, A + 64 * PG + 1), EINVAL),
        ((A, PG, PG, 3, 0x7FFFFFFFF000), EINVAL),
        ((A, 2 * PG, 2 * PG, 3, A + PG), EINVAL),  # overlapping
        ((A, PG, 1 << 60, 1), ENOMEM),
        ((A, 8 * PG, 16 * PG, 0), ENOMEM),  # something is in the way
    ],
)
def test_refused_moves(mm, args, error):
    sys_mmap(mm, A, 8 * PG, RW, FIXED, None)
    sys_mmap(mm, A + 12 * PG, PG, RW, FIXED, None)
    assert mremap.sys_mremap(mm, *args) == -error
    assert pages(mm) == [(0, 8), (12, 13)] and not mm.mmap_lock.writer


def test_resizing_in_place(m, mm):
    sys_mmap(mm, A, 8 * PG, RW, FIXED, None)
    assert mremap.sys_mremap(mm, A, 8 * PG, 4 * PG, 0) == A and pages(mm) == [(0, 4)]
    assert mremap.sys_mremap(mm, A, 4 * PG, 6 * PG, 0) == A and pages(mm) == [(0, 6)]
    assert mremap.sys_mremap(mm, A, 6 * PG, 6 * PG, 0) == A
    sys_mmap(mm, A + 8 * PG, PG, RW, FIXED, None)
    assert mremap.sys_mremap(mm, A, 6 * PG, 8 * PG, 0) == A
    assert pages(mm) == [(0, 9)], "it merges with what it touches"
    mlock.sys_mlock(mm, A, 9 * PG)
    mremap.sys_mremap(mm, A, 9 * PG, 10 * PG, 0)
    assert mm.locked_vm == 10 and touch(m, A + 9 * PG, "w").faults == 0
    validate_mappings(m)


def test_moving_takes_pages_and_accounts_along(m, mm):
    sys_mmap(mm, A, 8 * PG, RW, FIXED, None)
    frames = [touch(m, A + i * PG, "w").pfn for i in range(8)]
    to = mremap.sys_mremap(mm, A + 2 * PG, 4 * PG, 4 * PG, 3, A + 64 * PG)
    assert to == A + 64 * PG and pages(mm) == [(0, 2), (6, 8), (64, 68)]
    assert [touch(m, to + i * PG, "w").pfn for i in range(4)] == frames[2:6]
    assert mm.mm_mt.walk(to).vm_pgoff == A // PG + 2, "pages keep their offset"
    assert committed(m) == 8 and all(v.vm_flags & VM_ACCOUNT for v in mm.mm_mt)
    grown = mremap.sys_mremap(mm, to, 4 * PG, 6 * PG, 1)
    assert grown == to and committed(m) == 10
    back = mremap.sys_mremap(mm, A, PG, 3 * PG, 1)
    assert back == TOP - 3 * PG and touch(m, back, "w").pfn == frames[0]
    validate_mappings(m)


def test_keeping_the_old_place(m, mm):
    sys_mmap(mm, A, 4 * PG, RW, FIXED, None)
    frame = touch(m, A, "w").pfn
    to = mremap.sys_mremap(mm, A, 4 * PG, 4 * PG, 5)
    assert to == TOP - 4 * PG and pages(mm)[0] == (0, 4) and committed(m) == 8
    assert touch(m, to, "w").pfn == frame and touch(m, A, "w").pfn != frame
    validate_mappings(m)


def test_a_second_mapping_of_shared_memory(m, mm):
    sys_mmap(mm, A, 4 * PG, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, None)
    frame = touch(m, A + PG, "w").pfn
    to = mremap.sys_mremap(mm, A, 0, 4 * PG, 1)
    assert to > 0 and touch(m, to + PG, "r").pfn == frame
    validate_mappings(m)


def test_whole_tables_move(m, mm):
    m.transparent_hugepage_enabled = "never"
    sys_mmap(mm, A, 4 * MB, RW, FIXED, None)
    touch(m, A, "w")
    touch(m, A + 2 * MB + PG, "w")
    tables = mm.pgtables_bytes
    to = A + (1 << 31)
    assert mremap.sys_mremap(mm, A, 4 * MB, 4 * MB, 3, to) == to
    assert mm.pgtables_bytes == tables
    assert touch(m, to + 2 * MB + PG, "w").faults == 0
    validate_mappings(m)


def test_a_huge_page_moves_as_a_whole_or_is_split(m, mm):
    m.transparent_hugepage_enabled = "always"
    sys_mmap(mm, A, 4 * MB, RW, FIXED, None)
    frame = touch(m, A, "w").pfn
    to = A + (1 << 31)
    assert mremap.sys_mremap(mm, A, 2 * MB, 2 * MB, 3, to) == to
    assert touch(m, to + 5 * PG, "w").pfn == frame + 5
    assert mremap.sys_mremap(mm, to, 2 * MB, 2 * MB, 3, to + (1 << 31) + PG) > 0
    assert touch(m, to + (1 << 31) + 6 * PG, "w").pfn == frame + 5
    validate_mappings(m)


def test_fork_wipes_skips_and_unlocks(m, mm):
    """What the child has: nothing of MADV_WIPEONFORK, no MADV_DONTFORK at all, no locks."""
    sys_mmap(mm, A, 6 * PG, RW, FIXED, None)
    for page in range(6):
        touch(m, A + page * PG, "w")
    assert madvise.sys_madvise(mm, A, 2 * PG, madvise.MADV_WIPEONFORK) == 0
    assert madvise.sys_madvise(mm, A + 2 * PG, 2 * PG, madvise.MADV_DONTFORK) == 0
    assert mlock.sys_mlock(mm, A + 4 * PG, 2 * PG) == 0
    child = kernel_clone(m.current)
    assert not isinstance(child, int)
    got = [(v.vm_start - A) // PG for v in child.mm.mm_mt if A <= v.vm_start < A + 6 * PG]
    assert got == [0, 4] and child.mm.locked_vm == 0 and mm.locked_vm == 2
    there = [translate(child.mm, A + page * PG) is not None for page in range(6)]
    assert there == [False, False, False, False, True, True]
    wiped = child.mm.mm_mt.walk(A)
    assert wiped.anon_vma is None and not wiped.anon_vma_chain
    validate_mappings(m)
