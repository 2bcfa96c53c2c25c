"""The exercises of chapter 3. Each function lets the engine find the answer; `check()` compares."""

from __future__ import annotations

import re
from typing import Any

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86.fault import PageFault, access, describe_error_code, parse_oops, touch
from mmcore.errors import KernelBug, UsageError
from mmcore.kernel.fork import TaskStruct, mm_alloc, spawn
from mmcore.machine import Machine
from mmcore.mm import filemap, mmap
from mmcore.mm import mm as mm_
from mmcore.proc.capture import load
from mmcore.viz.check import exercise

__all__ = [
    "error_codes",
    "fault_around",
    "indices",
    "million",
    "no_zero_page",
    "oops",
    "predict",
    "vma_lock",
]

PG = 4096
A = 0x2000_0000_0000
RW = mmap.PROT_READ | mmap.PROT_WRITE
FIXED_ANON = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_FIXED
Steps = list[tuple[str, Any]]


def _task() -> TaskStruct:
    m = Machine.boot("256M")
    m.transparent_hugepage_enabled = "never"
    return spawn(m, "exercise")


def _map(task: TaskStruct, addr: int, pages: int) -> int:
    got = mmap.do_mmap(task.mm, None, addr, pages * PG, RW, FIXED_ANON)  # type: ignore[arg-type]
    if got != addr:
        raise KernelBug(f"mmap at {addr:#x} gave {got}")
    return addr


@exercise("ch03.indices", vary=lambda rng: {"address": rng.randrange(1 << 47)})
def indices(address: int = 0x7F3A12345678, levels: int = 4) -> Steps:
    """Return the index in each table, top level first, and the offset."""
    return [(f"{name} of {address:#x}", i) for name, i in pg.table_indices(address, levels)]


@exercise("ch03.error-codes")
def error_codes() -> Steps:
    """Return the error codes of four accesses."""
    task = _task()
    mm = task.mm
    assert mm is not None
    _map(task, A, 4)
    touch(task.machine, A, "w")
    pg.protect_range(mm, A, 1, pg.PAGE_READONLY)
    cases = (
        ("user write to a present read-only page", A, "w", True),
        ("user read of an address with no page", A + PG, "r", True),
        ("user fetch from a present page with NX", A, "x", True),
        ("kernel write to a user page that is not there", A + PG, "w", False),
    )
    steps: Steps = []
    for label, address, kind, user in cases:
        result = access(None, mm, address, kind, user)
        assert isinstance(result, PageFault)
        steps.append((label, result.error_code))
    return steps


def _read_then_write(task: TaskStruct, shift: int) -> Steps:
    base = _map(task, A + shift * PG, 1024)
    mm = task.mm
    assert mm is not None
    steps: Steps = []
    for kind, word in (("r", "reads"), ("w", "writes")):
        for i in range(1024):
            touch(task.machine, base + i * PG, kind)
        steps.append((f"faults after the {word}", task.min_flt))
        steps.append((f"resident pages after the {word}", mm_.get_mm_rss(mm)))
    return steps


@exercise("ch03.predict")
def predict(shift: int = 0) -> Steps:
    """Return faults and resident pages of reading and writing 1,024 fresh pages, and VmPTE.

    :param shift: how many pages behind a 2 MiB boundary the mapping begins
    """
    if not 0 <= shift < 512:
        raise UsageError(f"shift is {shift}; it is 0 to 511 pages")
    task = _task()
    steps = _read_then_write(task, shift)
    assert task.mm is not None
    return [*steps, ("VmPTE in KiB", task.mm.pgtables_bytes >> 10)]


@exercise("ch03.no-zero-page")
def no_zero_page() -> Steps:
    """Return the same with the zero page forbidden, without VmPTE."""
    task = _task()
    assert task.mm is not None
    task.mm.forbids_zeropage = True
    return _read_then_write(task, 0)


def _read_file(shift: int, backwards: bool) -> int:
    task = _task()
    m = task.machine
    mapping = filemap.AddressSpace(i_size=256 * PG, name="file")
    filemap.populate(m, mapping, 0, 256)
    base = A + shift * PG
    flags = mmap.MAP_SHARED | mmap.MAP_FIXED
    assert task.mm is not None
    mmap.do_mmap(task.mm, filemap.File(mapping), base, 256 * PG, mmap.PROT_READ, flags)
    for i in reversed(range(256)) if backwards else range(256):
        touch(m, base + i * PG, "r")
    return task.min_flt + task.maj_flt


@exercise("ch03.fault-around")
def fault_around() -> Steps:
    """Return the faults of reading a cached 1 MiB file in three ways."""
    return [
        ("from start to end, aligned to 64 KiB", _read_file(0, False)),
        ("from start to end, mapped 4 KiB later", _read_file(1, False)),
        ("backwards, aligned to 64 KiB", _read_file(0, True)),
    ]


@exercise("ch03.oops")
def oops(section: str = "oops1") -> Steps:
    """Return mode, access and presence of a recorded oops, from its error code alone."""
    code = parse_oops(load("n1-1g/oops")[section]).error_code
    first, second = describe_error_code(code)
    found = re.fullmatch(r"#PF: (user|supervisor) (.+) in \w+ mode", first)
    assert found is not None
    return [
        ("whose access", found[1]),
        ("which access", found[2]),
        ("was there a page", second.partition(" - ")[2]),
    ]


def _touches_for(size: int, step: int, most: int) -> int:
    """Return how many touches, @step bytes apart, it takes until the tables weigh @size bytes."""
    mm = mm_alloc(None)
    assert mm is not None
    for n in range(1, most + 1):
        pg.map_page(mm, (n - 1) * step, 1, pg.PAGE_SHARED)
        if mm.pgtables_bytes >= size:
            return n
    raise UsageError(f"{most} touches {step} bytes apart do not cost {size} bytes of tables")


@exercise("ch03.million", vary=lambda rng: {"size": rng.randint(20, 400) * 4096})
def million(size: int = 1 << 20) -> Steps:
    """Return the smallest number of touches whose tables weigh @size bytes, in three confines."""
    return [
        ("(1) anywhere", _touches_for(size, pg.P4D_SIZE, 256)),
        ("(2) in one range of 512 GiB", _touches_for(size, pg.PUD_SIZE, 512)),
        ("(3) in one GiB", _touches_for(size, pg.PMD_SIZE, 512)),
    ]


def _counter_of(m: Machine, address: int, kind: str) -> str:
    """Return the per-VMA lock counter that one access increments first."""
    before = dict(m.vma_lock_event)
    touch(m, address, kind)
    names = [n for n in ("vma_lock_retry", "vma_lock_abort", "vma_lock_success") if m.vma_lock_event[n] > before[n]]  # fmt: skip
    return names[0]


@exercise("ch03.vma-lock")
def vma_lock() -> Steps:
    """Return the counter that each of three faults increments."""
    task = _task()
    m, mm = task.machine, task.mm
    assert mm is not None
    other = _map(task, A + (1 << 30), 4)
    _map(task, A, 4)
    for address in (A, other):
        touch(m, address, "w")
    mapping = filemap.AddressSpace(i_size=4 * PG, name="file")
    flags = mmap.MAP_SHARED | mmap.MAP_FIXED
    at = A + (2 << 30)
    mmap.do_mmap(mm, filemap.File(mapping), at, 4 * PG, mmap.PROT_READ, flags)

    def begin(write: bool) -> None:
        mm_.mmap_write_lock(mm)
        if write:
            vma = mm.mm_mt.walk(A)
            assert vma is not None
            mm_.vma_start_write(vma)

    steps: Steps = []
    m.race_points["mas_walk"] = [lambda: begin(True)]
    m.race_points["lock_mmap"] = [lambda: mm_.mmap_write_unlock(mm)]
    steps.append(("(a) a write-locked mapping", _counter_of(m, A + PG, "w")))
    begin(False)
    steps.append(("(b) another mapping beside a writer", _counter_of(m, other + PG, "w")))
    mm_.mmap_write_unlock(mm)
    steps.append(("(c) a file page that has to be read", _counter_of(m, at, "r")))
    return steps
