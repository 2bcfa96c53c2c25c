"""The exercises of chapter 5. Each function lets the engine find the answer; `check()` compares."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from mmcore import boot
from mmcore.arch.x86 import uaccess
from mmcore.arch.x86.fault import touch
from mmcore.errors import KernelBug
from mmcore.kernel.fork import TaskStruct, do_exit, kernel_clone, spawn, switch_to
from mmcore.machine import Machine
from mmcore.mm import gup, memory, mmap, mprotect, rmap, swap
from mmcore.mm.mm import MmStruct, VmAreaStruct
from mmcore.mm.mm_types import Folio, Page
from mmcore.viz.check import exercise
from mmcore.viz.figures.ch05_fork import Family
from mmcore.viz.figures.ch05_malloc import Promiser

__all__ = [
    "addresses",
    "between",
    "cannot_fork",
    "largest",
    "not_copied",
    "old_rule",
    "three_pages",
    "two_mebibytes",
    "who_copies",
]

PG = 4096
A = 0x1000_0000_0000
RW = mmap.PROT_READ | mmap.PROT_WRITE
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
FIXED = PRIVATE | mmap.MAP_FIXED
MIB = 1 << 20
Steps = list[tuple[str, Any]]


def _task() -> TaskStruct:
    m = Machine.boot("256M")
    m.transparent_hugepage_enabled = "never"
    return spawn(m, "exercise")


def _mm(task: TaskStruct) -> MmStruct:
    if task.mm is None:
        raise KernelBug(f"{task.comm} has no address space")
    return task.mm


def _pages(mm: MmStruct) -> list[list[int]]:
    """Return each mapping as the list of its pages, counted from A."""
    return [list(range((v.vm_start - A) // PG, (v.vm_end - A) // PG)) for v in mm.mm_mt]


@exercise("ch05.three-pages")
def three_pages(touched: bool = False) -> Steps:
    """Return the number of mappings after mapping three pages, protecting the middle one, and undoing it.

    :param touched: write to all of them after each step
    """
    task = _task()
    mm = _mm(task)

    def count() -> int:
        if touched:
            for i in range(3):
                touch(task.machine, A + i * PG, "w")
        return mm.map_count

    for i in range(3):
        mmap.do_mmap(mm, None, A + i * PG, PG, RW, FIXED)
    steps: Steps = [("three pages, mapped one by one", count())]
    mprotect.sys_mprotect(mm, A + PG, PG, mmap.PROT_READ)
    steps.append(("the middle one read-only", count()))
    mprotect.sys_mprotect(mm, A + PG, PG, RW)
    steps.append(("and writable again", count()))
    return steps


@exercise("ch05.between")
def between() -> Steps:
    """Return the mappings after page 1 is mapped between pages 0 and 2, with none, one and both of these touched."""
    steps: Steps = []
    for label, touched in (("(a) nothing was touched", ()), ("(b) page 0 was written", (0,)), ("(c) pages 0 and 2 were written", (0, 2))):  # fmt: skip
        task = _task()
        mm = _mm(task)
        for i in (0, 2):
            mmap.do_mmap(mm, None, A + i * PG, PG, RW, FIXED)
        for i in touched:
            touch(task.machine, A + i * PG, "w")
        mmap.do_mmap(mm, None, A + PG, PG, RW, FIXED)
        steps.append((label, _pages(mm)))
    return steps


def _static_program() -> MmStruct:
    """Return the address space of a static program: nothing below mmap_base but [vvar] and [vdso]."""
    mm = _mm(_task())
    mmap.do_mmap(mm, None, mm.mmap_base - 6 * PG, 6 * PG, mmap.PROT_READ, FIXED)
    return mm


@exercise("ch05.addresses", vary=lambda rng: {"kib": [4 * rng.randint(1, 99) for _ in range(3)]})
def addresses(kib: Sequence[int] = (4, 8, 4)) -> Steps:
    """Return the addresses of three small mappings, and how many mappings they make."""
    mm = _static_program()
    before = mm.map_count
    steps: Steps = [
        (f"mmap(NULL, {n} KiB)", mmap.do_mmap(mm, None, 0, n << 10, RW, PRIVATE)) for n in kib
    ]
    return [*steps, ("mappings they make", mm.map_count - before)]


@exercise("ch05.two-mebibytes")
def two_mebibytes() -> Steps:
    """Return where 2 MiB and 2 MiB + 4 KiB go in a fresh program, and how many huge pages they can hold."""
    steps: Steps = []
    for name, size in (("2 MiB", 2 * MIB), ("2 MiB + 4 KiB", 2 * MIB + PG)):
        at = mmap.do_mmap(_static_program(), None, 0, size, RW, PRIVATE)
        first = -(-at // (2 * MIB)) * 2 * MIB
        steps.append((f"address of {name}", at))
        steps.append((f"huge pages in {name}", max(at + size - first, 0) // (2 * MIB)))
    return steps


def _two_writes(order: tuple[str, str]) -> tuple[int, int, int]:
    """Return (faults, copies, reuses) of a write by each process after a fork; a child exits after its own."""
    f = Family(1)
    f.touch("p", 0, "w")
    f.fork("p", "c")
    faults = copies = reuses = 0
    for who in order:
        before = f.frame(who, 0)
        faults += f.touch(who, 0, "w")
        after = f.frame(who, 0)
        copies += after is not before
        reuses += after is before
        if who == "c":
            f.exit("c")
    return faults, copies, reuses


@exercise("ch05.who-copies")
def who_copies() -> Steps:
    """Return faults, copies and reuses when the child writes first, and when the parent does."""
    steps: Steps = []
    for label, order in (("child first", ("c", "p")), ("parent first", ("p", "c"))):
        for name, value in zip(("faults", "copies", "reuses"), _two_writes(order), strict=True):
            steps.append((f"{label}: {name}", value))
    return steps


def _other_copy(rng: random.Random) -> dict[str, int]:
    return {"offset": rng.randrange(1, PG), "n": rng.randrange(1, 2 * PG)}


@exercise("ch05.not-copied", vary=_other_copy)
def not_copied(offset: int = 1000, n: int = 4096) -> Steps:
    """Return the result of copy_from_user() from three places around a page that a hole follows."""
    task = _task()
    mm = _mm(task)
    mmap.do_mmap(mm, None, A, PG, RW, FIXED)
    places = ((f"from {offset} bytes into the page", A + offset), ("from its beginning", A), ("from the hole", A + PG))  # fmt: skip
    return [(label, uaccess.copy_from_user(task.machine, None, at, n)) for label, at in places]


def _largest(ram: int, swap_mib: int, ratio: int, admin: bool) -> int:
    """Return the largest mapping in pages that mode 2 grants to a process with nothing mapped."""
    low, high = 0, (ram + swap_mib) << 8
    while low < high:
        middle = (low + high + 1) // 2
        world = Promiser("2", ram, swap_mib, ratio, admin)
        got = mmap.do_mmap(_mm(world.task), None, 0, middle * PG, RW, PRIVATE)
        low, high = (middle, high) if got > 0 else (low, middle - 1)
    return low


def _other_promise(rng: random.Random) -> dict[str, int]:
    ram, swap_mib = 1024 * rng.randint(1, 16), 512 * rng.randint(0, 8)
    return {"ram_mib": ram, "swap_mib": swap_mib, "ratio": 5 * rng.randint(4, 18)}


@exercise("ch05.largest", vary=_other_promise)
def largest(ram_mib: int = 4096, swap_mib: int = 1024, ratio: int = 50) -> Steps:
    """Return the largest mapping in pages that mode 2 grants, as user and as administrator.

    :param ratio: vm.overcommit_ratio, in percent
    """
    return [
        ("a user's process", _largest(ram_mib, swap_mib, ratio, False)),
        ("with CAP_SYS_ADMIN", _largest(ram_mib, swap_mib, ratio, True)),
    ]


def _other_database(rng: random.Random) -> dict[str, int]:
    """Return a machine and a database that fits while the ratio is 80, with room for what is reserved."""
    ram, swap_mib = 1024 * rng.randint(2, 16), 1024 * rng.randint(0, 4)
    most = (ram * 8 // 10 + swap_mib) * 9 // 10
    return {"database_mib": 128 * rng.randint(4, most // 128), "ram_mib": ram, "swap_mib": swap_mib}


@exercise("ch05.cannot-fork", vary=_other_database)
def cannot_fork(database_mib: int = 6144, ram_mib: int = 10240, swap_mib: int = 1024) -> Steps:
    """Return the result of fork() for a large process in the three modes.

    :param database_mib: private writable memory, in one mapping
    """
    steps: Steps = []
    for mode in ("0", "1", "2"):
        # The process has got its memory while the ratio was high enough for it.
        world = Promiser(mode, ram_mib, swap_mib, 80, False)
        if world.map(database_mib):
            raise KernelBug(f"mode {mode} refuses the database itself")
        world.m.paging.sysctl_overcommit_ratio = 50
        steps.append((f"fork() in mode {mode}", world.fork()))
    return steps


def _by_map_count(folio: Folio, vma: VmAreaStruct) -> bool:
    """Tell whether a page may be reused, by the rule of old kernels: one mapping."""
    return rmap.folio_mapcount(folio) == 1


def leaks(rule: Callable[[Folio, VmAreaStruct], bool] | None = None) -> bool:
    """Tell whether a child's reference sees what the parent writes after the fork.

    :param rule: takes the place of wp_can_reuse_anon_folio(); None for the kernel's
    """
    m = Machine()
    boot.make_bare_zone(m, 1024, 0, "Normal", True)
    m.transparent_hugepage_enabled = "never"
    parent = spawn(m, "parent")
    mmap.do_mmap(_mm(parent), None, A, PG, RW, FIXED)
    touch(m, A, "w")
    child = kernel_clone(parent)
    if isinstance(child, int):
        raise KernelBug(f"fork failed with {child}")
    switch_to(m, child)
    pipe: list[Page] = []
    gup.get_user_pages(_mm(child), A, 1, 0, pipe)  # as vmsplice() does
    mmap.do_munmap(_mm(child), A, PG)
    switch_to(m, parent)
    swap.lru_add_drain(m)
    kernels = memory.wp_can_reuse_anon_folio
    if rule is not None:
        memory.wp_can_reuse_anon_folio = rule  # type: ignore[assignment]
    try:
        touch(m, A, "w")
    finally:
        memory.wp_can_reuse_anon_folio = kernels
    mine: list[Page] = []
    gup.get_user_pages(_mm(parent), A, 1, 0, mine)
    same = mine[0] is pipe[0]
    do_exit(child)
    return same


@exercise("ch05.old-rule")
def old_rule() -> Steps:
    """Return whether the page in the pipe is the parent's, by the old rule and by the kernel's."""
    return [
        ("reuse by map count", leaks(_by_map_count)),
        ("the rule of 6.12", leaks()),
    ]
