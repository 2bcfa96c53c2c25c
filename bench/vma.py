"""Address spaces: faults, calls at three sizes, and forks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from time import perf_counter

from bench.measure import best
from bench.row import Row
from mmcore import Machine
from mmcore.arch.x86.fault import touch
from mmcore.kernel.fork import TaskStruct, do_exit, kernel_clone, spawn, switch_to
from mmcore.mm import filemap, mmap, mprotect
from mmcore.mm.mm import MmStruct

__all__ = ["faults", "forks", "mappings"]

PAGE = 4096
BASE = 0x200000000000
#: Mappings; the last is the most that a process may have by default.
SIZES = (10, 1_000, 65_530)


def _touch_all(m: Machine, start: int, n: int, kind: str) -> None:
    for i in range(n):
        touch(m, start + i * PAGE, kind)


def _once(setup: Callable[[], None], work: Callable[[], None], runs: int = 3) -> float:
    """Return the shortest time of @work, which needs @setup each time."""
    shortest = float("inf")
    for _ in range(runs):
        setup()
        gc.collect()
        gc.disable()
        try:
            start = perf_counter()
            work()
            shortest = min(shortest, perf_counter() - start)
        finally:
            gc.enable()
    return shortest


def faults(quick: bool) -> Iterator[Row]:
    """Page faults per second: fresh anonymous pages, cached file pages one by one, copies after fork."""
    n = 1_000 if quick else 8_000
    m = Machine.boot("1G")
    m.transparent_hugepage_enabled = "never"
    task = spawn(m, "bench")
    assert task.mm is not None
    mm = task.mm

    def fresh() -> None:
        mmap.do_munmap(mm, BASE, n * PAGE)
        mmap.do_mmap(mm, None, BASE, n * PAGE, 3, 0x32)

    anonymous = _once(fresh, lambda: _touch_all(m, BASE, n, "w"))
    yield Row("faults, anonymous memory", n / anonymous, "fault/s", "dict")

    file = filemap.File(filemap.AddressSpace(n * PAGE, "bench"), f_path="bench")
    at = BASE + (1 << 30)
    mmap.do_mmap(mm, file, at, n * PAGE, 1, 0x12)
    _touch_all(m, at, n, "r")  # now the file is in the page cache
    around, m.fault_around_pages = m.fault_around_pages, 1

    def again() -> None:
        mmap.do_munmap(mm, at, n * PAGE)
        mmap.do_mmap(mm, file, at, n * PAGE, 1, 0x12)

    cached = _once(again, lambda: _touch_all(m, at, n, "r"))
    m.fault_around_pages = around
    yield Row("faults, cached file pages", n / cached, "fault/s", "dict")

    children: list[TaskStruct] = []

    def fork() -> None:
        switch_to(m, task)
        for old in children:
            do_exit(old)
        child = kernel_clone(task)
        assert not isinstance(child, int)
        children[:] = [child]
        switch_to(m, child)

    copies = _once(fork, lambda: _touch_all(m, BASE, n, "w"))
    yield Row("faults, copy-on-write", n / copies, "fault/s", "dict")


def _space(count: int) -> MmStruct:
    """Return an address space with @count mappings of which no two can merge."""
    task = spawn(Machine.boot("4G"), "bench")
    assert task.mm is not None
    for i in range(count):
        mmap.do_mmap(task.mm, None, BASE + i * 2 * PAGE, PAGE, i & 1, 0x4032)
    return task.mm


def _calls(mm: MmStruct, count: int, n: int) -> None:
    """Make @n rounds of calls all over the address space: map, change twice, unmap; map anywhere, unmap."""
    at = 0
    for _ in range(n):
        at = (at * 5 + 7919) % count
        addr = BASE + at * 2 * PAGE + PAGE
        mmap.do_mmap(mm, None, addr, PAGE, 3, 0x4032)
        mprotect.do_mprotect(mm, addr, PAGE, 7)
        mprotect.do_mprotect(mm, addr, PAGE, 3)
        mmap.do_munmap(mm, addr, PAGE)
        where = mmap.do_mmap(mm, None, 0, 2 * PAGE, 3, 0x4022)
        mmap.do_munmap(mm, where, 2 * PAGE)


def mappings(quick: bool) -> Iterator[Row]:
    """Calls per second among few and many mappings; the cost may grow with their logarithm only."""
    n = 100 if quick else 600
    first = 0.0
    for count in SIZES:
        mm = _space(count - 2)
        seconds = best(_calls, 3, mm, count - 4, n) / (6 * n)
        yield Row(f"calls among {count:,} mappings", 1 / seconds, "op/s", "dict")
        first = first or seconds
        if count > SIZES[0]:
            growth = seconds / first
            yield Row(f"  times the cost among {SIZES[0]}", growth, "times", better="lower")


def forks(quick: bool) -> Iterator[Row]:
    """Milliseconds to fork, and mappings copied per second; no page is in memory."""
    for count in SIZES:
        seconds = _fork(count, 2 if quick else 3)
        yield Row(f"fork with {count:,} mappings", seconds * 1e3, "ms", better="lower")
        yield Row("  mappings copied", count / seconds, "VMA/s", "dict")


def _fork(count: int, runs: int) -> float:
    m = _space(count).machine
    assert m is not None
    parent = m.current
    children: list[TaskStruct] = []

    def end() -> None:
        for child in children:
            do_exit(child)
        children.clear()

    def fork() -> None:
        child = kernel_clone(parent)
        assert not isinstance(child, int)
        children.append(child)

    return _once(end, fork, runs)
