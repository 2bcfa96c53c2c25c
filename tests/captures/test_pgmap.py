"""Every page of the pagetables capture, flag by flag: what the model maps against what Linux mapped.

The program (its source is at the end of the capture) maps, touches, forks and unmaps at fixed
addresses and prints after each step the pagemap word and map count of each page, and VmPTE, RSS and
fault counts. The test does the same steps on the model. Page frame numbers differ; which pages share
one must not. RSS and fault counts are compared as differences, because the process also runs libc.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from mmcore.arch.x86.fault import Translation, touch
from mmcore.arch.x86.pgtable import validate_pgtables
from mmcore.kernel.fork import TaskStruct, do_exit, kernel_clone, spawn, switch_to
from mmcore.machine import Machine
from mmcore.mm import filemap, rmap, shmem
from mmcore.mm import madvise as madv
from mmcore.mm.mlock import do_mlock, do_munlock
from mmcore.mm.mm_types import pfn_to_page
from mmcore.mm.mmap import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    do_mmap,
    do_munmap,
)
from mmcore.mm.mprotect import do_mprotect
from mmcore.mm.mremap import mremap_to
from mmcore.mm.vma import validate_mm
from mmcore.proc import capture
from mmcore.proc.task_mmu import clear_refs_soft_dirty, pagemap_decode, pagemap_read, status_memory

PG = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
LINE = re.compile(
    r"(?P<label>.+?) (?P<index>\d+) (?:(?P<none>-)|pfn=(?P<pfn>[0-9a-f]+)(?P<flags>(?: [PFDXW])*)"
    r" count=(?P<count>\d+)(?P<kflags>.*))"
)
STATUS = re.compile(r"(?P<label>.+?) status (?P<values>VmRSS=.*)")


@pytest.fixture(scope="module", params=["pgmap", "pgmap_mthp64"])
def section(request) -> str:
    """The program ran twice: with the default huge page sizes, and with 64 KiB pages enabled."""
    return request.param


@pytest.fixture(scope="module")
def kernel(section) -> dict[str, list[tuple[int, str, str, int]]]:
    """label -> [(page index, pfn or "", flags, count)]"""
    out: dict[str, list[tuple[int, str, str, int]]] = {}
    for line in capture.load("n1-1g/pagetables")[section].splitlines():
        m = LINE.fullmatch(line)
        if m:
            flags = (m["flags"] or "").strip()
            row = (int(m["index"]), m["pfn"] or "", flags, int(m["count"] or 0))
            out.setdefault(m["label"], []).append(row)
    assert len(out) == 49
    return out


@pytest.fixture(scope="module")
def status(section) -> dict[str, dict[str, int]]:
    out: dict[str, dict[str, int]] = {}
    for line in capture.load("n1-1g/pagetables")[section].splitlines():
        m = STATUS.fullmatch(line)
        if m:
            out[m["label"]] = {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", m["values"])}
    return out


class Run:
    """The program on the model, comparing as it goes."""

    def __init__(self, kernel: dict[str, list[tuple[int, str, str, int]]], section: str) -> None:
        self.kernel = kernel
        self.m = Machine.boot("1G")
        if section == "pgmap_mthp64":
            self.m.mthp_enabled[4] = "always"
        self.task = spawn(self.m, "pgmap")
        self.frames: dict[str, int] = {}  # the kernel's pfn -> ours
        self.lines = 0

    @property
    def mm(self) -> Any:
        return self.m.current.mm

    def map(
        self, addr: int, pages: int, prot: int = RW, flags: int = ANON, file: Any = None
    ) -> int:
        assert do_mmap(self.mm, file, addr, pages * PG, prot, flags | MAP_FIXED) == addr
        return addr

    def rd(self, base: int, i: int) -> None:
        assert isinstance(touch(self.m, base + i * PG, "r"), Translation)

    def wr(self, base: int, i: int) -> None:
        assert isinstance(touch(self.m, base + i * PG, "w"), Translation)

    def show(self, label: str, base: int) -> None:
        """Compare every line of the capture with that label."""
        for index, pfn, flags, count in self.kernel[label]:
            where = f"{label} {index}"
            word = pagemap_read(self.mm, base + index * PG)
            entry = pagemap_decode(word)
            ours = str(entry).partition(" ")[2] if word else ""
            assert (ours, bool(word)) == (flags, bool(pfn)), where
            if entry.present:
                assert entry.pfn is not None
                assert self.frames.setdefault(pfn, entry.pfn) == entry.pfn, f"{where}: same page?"
                page = pfn_to_page(self.m, entry.pfn)
                mapcount = 0 if entry.pfn == self.m.zero_pfn else rmap.page_mapcount(page)
                assert mapcount == count, where
            self.lines += 1
        validate_pgtables(self.mm)
        validate_mm(self.mm)

    def keep_only(self, label: str) -> None:
        """Forget the pages that are not in @label: they were freed, and both sides may use them again."""
        live = {pfn for _, pfn, _, _ in self.kernel[label]}
        self.frames = {pfn: ours for pfn, ours in self.frames.items() if pfn in live}


def delta(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {k: b[k] - a[k] for k in ("RssAnon", "RssShmem", "VmPTE")}


def anonymous(run: Run, status: dict[str, dict[str, int]]) -> int:
    """Steps a0 to a3: zero page, new pages, a write after a read."""
    a = run.map(0x200000000000, 8)
    t = run.task
    s0, f0 = status_memory(run.mm), t.min_flt
    run.show("a0 untouched", a)
    run.rd(a, 0)
    run.rd(a, 1)
    assert t.min_flt - f0 == status["a1"]["minflt"] - status["a0"]["minflt"]
    assert delta(s0, status_memory(run.mm)) == delta(status["a0"], status["a1"])
    run.show("a1 read 0,1", a)
    for i in (2, 3, 4):
        run.wr(a, i)
    run.show("a2 write 2,3,4", a)
    run.wr(a, 0)
    run.show("a3 write 0 after read", a)
    assert t.min_flt - f0 == status["a3"]["minflt"] - status["a0"]["minflt"]
    assert delta(s0, status_memory(run.mm)) == delta(status["a0"], status["a3"])
    return a


def forked(run: Run, a: int) -> None:
    """Steps b0 to b5: copies and reuse between parent and child."""
    m, parent = run.m, run.task
    child = kernel_clone(parent)
    assert isinstance(child, TaskStruct)

    def as_task(task: TaskStruct) -> None:
        switch_to(m, task)

    as_task(child)
    run.show("b0 child after fork", a)
    as_task(parent)
    run.show("b1 parent after fork", a)
    run.wr(a, 2)
    run.show("b2 parent wrote 2", a)
    as_task(child)
    run.show("b2 child after parent wrote 2", a)
    run.wr(a, 3)
    run.show("b3 child wrote 3", a)
    run.wr(a, 2)
    run.show("b3 child wrote 2", a)
    as_task(parent)
    run.show("b3 parent", a)
    as_task(child)
    do_exit(child)
    as_task(parent)
    run.show("b4 parent after child exit", a)
    run.wr(a, 4)
    run.show("b5 parent wrote 4 (sole owner)", a)
    run.wr(a, 3)
    run.show("b5 parent wrote 3", a)


def test_anonymous_memory_fork_and_copy_on_write(kernel, status, section):
    run = Run(kernel, section)
    a = anonymous(run, status)
    forked(run, a)
    clear_refs_soft_dirty(run.mm)
    run.show("c0 cleared", a)
    run.wr(a, 2)
    run.rd(a, 3)
    run.wr(a, 1)
    run.show("c1 wrote 2,1 read 3", a)
    madv.madvise(run.mm, a + 2 * PG, PG, madv.MADV_DONTNEED)
    madv.madvise(run.mm, a + 3 * PG, 2 * PG, madv.MADV_FREE)
    run.show("d0 DONTNEED 2, FREE 3,4", a)
    run.wr(a, 3)
    run.show("d1 wrote 3", a)
    assert do_mprotect(run.mm, a, PG, PROT_NONE) == 0
    run.show("d2 NONE 0", a)
    assert do_mprotect(run.mm, a, PG, RW) == 0
    assert do_mlock(run.mm, a + 5 * PG, 2 * PG) == 0
    run.keep_only("d2 NONE 0")
    run.show("d3 mlock 5,6", a)
    assert run.mm.locked_vm == 2
    assert do_munlock(run.mm, a + 5 * PG, 2 * PG) == 0
    run.show("d4 munlock", a)
    assert mremap_to(run.mm, a + 6 * PG, PG, a + 64 * PG) == a + 64 * PG
    run.show("d5 page 6 moved away", a)
    run.show("d5 destination", a + 64 * PG)
    assert run.lines == 22 * 8 + 1
    assert do_munmap(run.mm, a, 65 * PG) == 0
    assert status_memory(run.mm)["VmPTE"] == 0
    assert len([t for t in run.m.paging.tables.tables.values() if t.level < 4 and t.page]) == 64


def test_entries_of_parent_and_child_bit_by_bit(kernel, section):
    """The values that the chapter names: 867 written, 825 and 805 after fork, 225 the zero page."""
    from mmcore.arch.x86.pgtable import lookup_address

    run = Run(kernel, section)
    a = run.map(0x200000000000, 8)
    run.rd(a, 0)
    run.wr(a, 1)

    def entry(mm: Any, i: int) -> int:
        ptep, _ = lookup_address(mm, a + i * PG)
        return ptep[0][ptep[1]]

    pfn = entry(run.mm, 1) >> 12 & 0xFFFFFFFFFF
    assert entry(run.mm, 0) == 0x8000000000000225 | run.m.zero_pfn << 12
    assert entry(run.mm, 1) == 0x8000000000000867 | pfn << 12
    child = kernel_clone(run.task)
    assert entry(run.mm, 1) == 0x8400000000000825 | pfn << 12
    assert entry(child.mm, 1) == 0x8400000000000805 | pfn << 12
    assert entry(child.mm, 0) == 0x8000000000000205 | run.m.zero_pfn << 12


def test_shared_memory_and_private_file_mappings(kernel, status, section):
    run = Run(kernel, section)
    m = run.m
    # One fault in between is the program's own, outside the mappings that the steps name. In the first
    # run it adds a page to RSS, in the second it does not.
    libc_kb = 4 if section == "pgmap" else 0
    s0 = status_memory(run.mm)
    f0 = run.task.min_flt
    s = run.map(0x200040000000, 4, RW, MAP_SHARED | MAP_ANONYMOUS)
    run.rd(s, 0)
    run.wr(s, 1)
    run.show("e0 shared anon read 0 write 1", s)
    memfd = shmem.shmem_file_setup("memfd:m", 8 * PG)
    assert shmem.shmem_write(m, memfd, 0) and shmem.shmem_write(m, memfd, 1)
    f = run.map(0x200050000000, 8, RW, MAP_PRIVATE, memfd)
    g = run.map(0x200060000000, 8, RW, MAP_SHARED, memfd)
    run.rd(f, 0)
    run.show("e1 private file read 0", f)
    run.wr(f, 1)
    run.show("e2 private file wrote 1", f)
    run.show("e2 shared view", g)
    run.rd(g, 0)
    run.wr(g, 2)
    run.show("e3 shared view read 0 write 2", g)
    run.show("e3 private view", f)
    assert delta(s0, status_memory(run.mm)) == {
        "RssAnon": status["e3"]["RssAnon"] - status["d6 unmapped"]["RssAnon"] - libc_kb,
        "RssShmem": status["e3"]["RssShmem"] - status["d6 unmapped"]["RssShmem"],
        "VmPTE": status["e3"]["VmPTE"] - status["d6 unmapped"]["VmPTE"],
    }
    assert run.task.min_flt - f0 == status["e3"]["minflt"] - status["d6 unmapped"]["minflt"] - 1
    child = kernel_clone(run.task)
    switch_to(m, child)
    run.show("e4 child private", f)
    run.show("e4 child shared", g)
    do_exit(child)
    switch_to(m, run.task)
    filemap.truncate_setsize(m, memfd.f_mapping, PG)
    run.show("e5 truncated to 1 page: shared", g)
    run.show("e5 private", f)
    for base, pages in ((f, 8), (g, 8), (s, 4)):
        assert do_munmap(run.mm, base, pages * PG) == 0
    assert status_memory(run.mm) == s0


def test_sparse_touches_cost_page_tables(kernel, status, section):
    run = Run(kernel, section)
    w = run.map(0x200080000000, 1 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
    madv.madvise(run.mm, w, PG << 20, madv.MADV_NOHUGEPAGE)
    base, faults = status_memory(run.mm), run.task.min_flt
    steps = {
        "f1 one page": [0],
        "f2 same table": [511],
        "f3 next table": [512],
        "f4 next pmd": [512 * 512],
        "f5 64 more tables": [512 * 4 + i * 512 for i in range(64)],
    }
    k0 = status["f0 mapped 4G"]
    for label, pages in steps.items():
        for i in pages:
            run.wr(w, i)
        assert delta(base, status_memory(run.mm)) == delta(k0, status[label]), label
        assert run.task.min_flt - faults == status[label]["minflt"] - k0["minflt"], label
        validate_pgtables(run.mm)
    madv.madvise(run.mm, w, PG << 20, madv.MADV_DONTNEED)
    after = delta(base, status_memory(run.mm))
    assert after == delta(k0, status["f6 DONTNEED keeps tables"])
    assert do_munmap(run.mm, w, PG << 20) == 0
    assert delta(base, status_memory(run.mm)) == delta(k0, status["f7 unmapped"])


def test_huge_pages_zero_page_and_split(kernel, status, section):
    run = Run(kernel, section)
    t = run.map(0x200100000000, 1024)
    madv.madvise(run.mm, t, 1024 * PG, madv.MADV_HUGEPAGE)
    base, faults = status_memory(run.mm), run.task.min_flt
    run.rd(t, 0)
    run.show("g0 read: huge zero page", t)
    run.wr(t, 0)
    run.show("g1 write 0", t)
    run.show("g1 last", t)
    assert delta(base, status_memory(run.mm)) == delta(status["g0"], status["g1"])
    assert run.task.min_flt - faults == status["g1"]["minflt"] - status["g0"]["minflt"]
    run.wr(t, 600)
    run.show("g1b write 600: huge page 2", t)
    run.show("g1b", t)
    child = kernel_clone(run.task)
    switch_to(run.m, child)
    run.show("g2 child", t)
    run.wr(t, 1)
    run.show("g2 child wrote 1", t)
    do_exit(child)
    switch_to(run.m, run.task)
    run.show("g3 parent after child exit", t)
    run.wr(t, 0)
    run.show("g3 parent wrote 0", t)
    assert do_mprotect(run.mm, t + 16 * PG, 16 * PG, PROT_READ) == 0
    run.show("g4 mprotect 16..31 read-only: pmd split, page whole", t)
    assert do_munmap(run.mm, t + 100 * PG, 300 * PG) == 0
    run.show("g5 after munmap 100..399", t)
    run.show("g5", t)
    madv.madvise(run.mm, t + 50 * PG, PG, madv.MADV_DONTNEED)
    run.show("g6 DONTNEED 50", t)
    assert do_munmap(run.mm, t, 1024 * PG) == 0
    assert status_memory(run.mm)["VmPTE"] == 0


def test_every_fourth_page(kernel, status, section):
    run = Run(kernel, section)
    t = run.map(0x200100000000, 512)
    madv.madvise(run.mm, t, 512 * PG, madv.MADV_NOHUGEPAGE)
    for i in range(0, 512, 4):
        run.wr(t, i)
    run.show("h0 every 4th written", t)
    assert status_memory(run.mm)["RssAnon"] == 512
    assert status_memory(run.mm)["VmPTE"] == status["h0"]["VmPTE"] - status["f7 unmapped"]["VmPTE"]


def test_mthp_does_not_fit_eight_pages_at_an_unaligned_end(section):
    """With 64 KiB pages enabled the 8-page mapping still gets single pages: no aligned 16 fit."""
    text = capture.load("n1-1g/pagetables")[section]
    heads = re.findall(r"^a2 write.*COMPOUND_HEAD", text, re.M)
    assert not heads
    m = Machine.boot("1G")
    if section == "pgmap_mthp64":
        m.mthp_enabled[4] = "always"
    spawn(m, "t")
    a = 0x200000000000
    assert do_mmap(m.current.mm, None, a, 8 * PG, RW, ANON) == a
    assert isinstance(touch(m, a + 2 * PG, "w"), Translation)
    assert status_memory(m.current.mm)["RssAnon"] == 4
