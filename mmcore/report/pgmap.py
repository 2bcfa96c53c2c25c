"""Every page of a ``pagetables`` capture, flag by flag: what the model maps against what Linux mapped.

The recorded program (its source is at the end of the capture) maps, touches, forks and unmaps at fixed
addresses and prints after each step the pagemap word and the map count of each page, and VmPTE, RSS
and fault counts. `compare()` takes the same steps on the model. Page frame numbers differ; which pages
share one must not. RSS and fault counts are compared as differences, because the process also runs libc.

Simplified: the last steps of the program, which ask for MADV_COLLAPSE, are not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from mmcore.arch.x86.fault import touch
from mmcore.arch.x86.pgtable import validate_pgtables
from mmcore.errors import ParseError
from mmcore.kernel.fork import TaskStruct, do_exit, kernel_clone, spawn, switch_to
from mmcore.machine import Machine
from mmcore.mm import filemap, rmap, shmem
from mmcore.mm import madvise as madv
from mmcore.mm.filemap import File
from mmcore.mm.mlock import do_mlock, do_munlock
from mmcore.mm.mm import MmStruct
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
from mmcore.mm.mremap import sys_mremap
from mmcore.mm.vma import validate_mm
from mmcore.proc.capture import Capture
from mmcore.proc.task_mmu import clear_refs_soft_dirty, pagemap_decode, pagemap_read, status_memory

__all__ = [
    "ANON",
    "LABELS",
    "PG",
    "PROGRAMS",
    "RW",
    "PageLine",
    "Run",
    "compare",
    "machine",
    "parse_pages",
    "parse_status",
]

PG = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
_LINE = re.compile(
    r"(?P<label>.+?) (?P<index>\d+) (?:(?P<none>-)|pfn=(?P<pfn>[0-9a-f]+)(?P<flags>(?: [PFDXW])*)"
    r" count=(?P<count>\d+)(?P<kflags>.*))"
)
_STATUS = re.compile(r"(?P<label>.+?) status (?P<values>VmRSS=.*)")
_THP = "/sys/kernel/mm/transparent_hugepage"
#: How many labels with page lines the program prints.
LABELS = 49

#: (page index, the kernel's pfn or "", flags, map count)
PageLine: TypeAlias = tuple[int, str, str, int]
#: (where, the model's value, the kernel's value)
Row: TypeAlias = tuple[str, str, str]


def parse_pages(text: str) -> dict[str, list[PageLine]]:
    """Return the page lines of each label of the program's output."""
    out: dict[str, list[PageLine]] = {}
    for line in text.splitlines():
        m = _LINE.fullmatch(line)
        if m:
            flags = (m["flags"] or "").strip()
            row = (int(m["index"]), m["pfn"] or "", flags, int(m["count"] or 0))
            out.setdefault(m["label"], []).append(row)
    return out


def parse_status(text: str) -> dict[str, dict[str, int]]:
    """Return VmRSS, RssAnon, VmPTE, minflt and so on of each label of the program's output."""
    out: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        m = _STATUS.fullmatch(line)
        if m:
            out[m["label"]] = {k: int(v) for k, v in re.findall(r"(\w+)=(\d{1,18})", m["values"])}
    return out


def machine(capture: Capture, section: str) -> Machine:
    """Return a machine with the switches of huge pages as they were in a run of the program."""
    m = Machine.boot("1G")
    enabled = re.search(r"\[(\w+)\]", capture.file(f"{_THP}/enabled") or "")
    if enabled:
        m.transparent_hugepage_enabled = enabled[1]
    zero = capture.file(f"{_THP}/use_zero_page")
    m.transparent_hugepage_use_zero_page = zero is None or zero.strip() != "0"
    if section != "pgmap":
        for order in range(2, 10):
            path = f"{_THP}/hugepages-{4 << order}kB/enabled"
            switch = re.search(r"\[(\w+)\]", capture.file(path) or "")
            if switch:
                m.mthp_enabled[order] = switch[1]
    return m


class Run:
    """A part of the program on the model, comparing as it goes.

    :param capture: a ``pagetables`` capture
    :param section: ``pgmap`` or ``pgmap_mthp64``: the program ran twice, the second time with the
        sizes of huge pages that the section ``mthp_settings`` shows
    :ivar rows: (where, model, kernel) of everything compared
    :ivar lines: page lines compared
    """

    def __init__(self, capture: Capture, section: str = "pgmap") -> None:
        text = capture[section]
        self.kernel = parse_pages(text)
        self.status = parse_status(text)
        self.m = machine(capture, section)
        self.task: TaskStruct = spawn(self.m, "pgmap")
        self.frames: dict[str, int] = {}  # the kernel's pfn -> ours
        self.lines = 0
        self.rows: list[Row] = []
        self._rss = self.memory()
        self._faults = 0
        self._since = ""

    @property
    def mm(self) -> MmStruct:
        """The address space of the running task."""
        assert self.m.current is not None and self.m.current.mm is not None
        mm: MmStruct = self.m.current.mm
        return mm

    def memory(self) -> dict[str, int]:
        """Return VmPTE and the parts of RSS, in kB."""
        now = status_memory(self.mm)
        return {name: now[name] for name in ("RssAnon", "RssShmem", "VmPTE")}

    def map(
        self, addr: int, pages: int, prot: int = RW, flags: int = ANON, file: File | None = None
    ) -> int:
        """Map pages at an address."""
        found = do_mmap(self.mm, file, addr, pages * PG, prot, flags | MAP_FIXED)
        self.ok(f"mmap {addr:#x}", found, addr)
        return addr

    def ok(self, what: str, result: int, expected: int = 0) -> None:
        """Note it if a call failed: the program's succeeded, or it would have stopped there."""
        if result != expected:
            self.row(what, result, expected)

    def rd(self, base: int, i: int) -> None:
        """Read a byte of a page."""
        touch(self.m, base + i * PG, "r")

    def wr(self, base: int, i: int) -> None:
        """Write a byte of a page."""
        touch(self.m, base + i * PG, "w")

    def row(self, where: str, model: object, kernel: object) -> None:
        """Note a value of both sides."""
        self.rows.append((where, str(model), str(kernel)))

    def page_lines(self, label: str) -> list[PageLine]:
        """Return what the kernel printed under a label.

        :raises ParseError: if it printed nothing
        """
        if label not in self.kernel:
            raise ParseError("pgmap", 1, "", f"no step {label!r}: truncated, or of another program")
        return self.kernel[label]

    def show(self, label: str, base: int) -> None:
        """Compare every line of the capture with that label."""
        for index, pfn, flags, count in self.page_lines(label):
            where = f"{label} {index}"
            word = pagemap_read(self.mm, base + index * PG)
            entry = pagemap_decode(word)
            ours = str(entry).partition(" ")[2] if word else ""
            self.row(f"{where} flags", ours if word else "-", flags if pfn else "-")
            if entry.present and pfn:
                assert entry.pfn is not None
                mine = self.frames.setdefault(pfn, entry.pfn)
                same = f"the page seen as {pfn}"
                self.row(f"{where} page", same if mine == entry.pfn else "another page", same)
                page = pfn_to_page(self.m, entry.pfn)
                mapcount = 0 if entry.pfn == self.m.zero_pfn else rmap.page_mapcount(page)
                self.row(f"{where} count", mapcount, count)
            self.lines += 1
        validate_pgtables(self.mm)
        validate_mm(self.mm)

    def keep_only(self, label: str) -> None:
        """Forget the pages that are not in @label: they were freed, and may be used again."""
        live = {pfn: None for _, pfn, _, _ in self.page_lines(label)}
        self.frames = {pfn: ours for pfn, ours in self.frames.items() if pfn in live}

    def from_here(self, label: str) -> None:
        """Count memory and faults from now on, and the kernel's from @label."""
        self._rss, self._faults, self._since = self.memory(), self.task.min_flt, label

    def kernel_since(self, label: str, name: str) -> int:
        """Return by how much a number of the kernel's grew up to @label.

        :raises ParseError: if it was not printed
        """
        try:
            return self.status[label][name] - self.status[self._since][name]
        except KeyError:
            raise ParseError(
                "pgmap", 1, "", f"no status {name} of step {label!r} or {self._since!r}"
            ) from None

    def grown(self, label: str, *names: str, libc_faults: int = 0) -> None:
        """Compare by how much numbers grew.

        :param names: ``RssAnon``, ``RssShmem``, ``VmPTE`` (all three if none is given), ``minflt``
        :param libc_faults: faults of the program's own in between, outside the mappings
        """
        now = self.memory()
        for name in names or tuple(now):
            kernel = self.kernel_since(label, name)
            if name == "minflt":
                ours = self.task.min_flt - self._faults + libc_faults
            else:
                ours = now[name] - self._rss[name]
            if name == "RssAnon" and libc_faults and kernel - ours == 4 * libc_faults:
                ours = kernel  # such a fault adds a page of libc's or finds one in place
            self.row(f"{label} {name} since {self._since}", ours, kernel)


# ---- the program's parts -------------------------------------------------------------------------


def _anonymous(run: Run) -> int:
    """Steps a0 to a3: zero page, new pages, a write after a read."""
    a = run.map(0x200000000000, 8)
    run.from_here("a0")
    run.show("a0 untouched", a)
    run.rd(a, 0)
    run.rd(a, 1)
    run.grown("a1")
    run.grown("a1", "minflt")
    run.show("a1 read 0,1", a)
    for i in (2, 3, 4):
        run.wr(a, i)
    run.show("a2 write 2,3,4", a)
    run.wr(a, 0)
    run.show("a3 write 0 after read", a)
    run.grown("a3")
    run.grown("a3", "minflt")
    return a


def _child(run: Run) -> TaskStruct:
    child = kernel_clone(run.task)
    assert isinstance(child, TaskStruct)
    return child


def _forked(run: Run, a: int) -> None:
    """Steps b0 to b5: copies and reuse between parent and child."""
    m, parent = run.m, run.task
    child = _child(run)
    switch_to(m, child)
    run.show("b0 child after fork", a)
    switch_to(m, parent)
    run.show("b1 parent after fork", a)
    run.wr(a, 2)
    run.show("b2 parent wrote 2", a)
    switch_to(m, child)
    run.show("b2 child after parent wrote 2", a)
    run.wr(a, 3)
    run.show("b3 child wrote 3", a)
    run.wr(a, 2)
    run.show("b3 child wrote 2", a)
    switch_to(m, parent)
    run.show("b3 parent", a)
    switch_to(m, child)
    do_exit(child)
    switch_to(m, parent)
    run.show("b4 parent after child exit", a)
    run.wr(a, 4)
    run.show("b5 parent wrote 4 (sole owner)", a)
    run.wr(a, 3)
    run.show("b5 parent wrote 3", a)


def anonymous(run: Run) -> None:
    """Steps a to d: anonymous memory, fork, copy on write, soft-dirty, madvise, mlock, mremap."""
    a = _anonymous(run)
    _forked(run, a)
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
    run.ok("mprotect NONE 0", do_mprotect(run.mm, a, PG, PROT_NONE))
    run.show("d2 NONE 0", a)
    run.ok("mprotect RW 0", do_mprotect(run.mm, a, PG, RW))
    run.ok("mlock 5,6", do_mlock(run.mm, a + 5 * PG, 2 * PG))
    run.keep_only("d2 NONE 0")
    run.show("d3 mlock 5,6", a)
    run.ok("munlock", do_munlock(run.mm, a + 5 * PG, 2 * PG))
    run.show("d4 munlock", a)
    run.ok("mremap", sys_mremap(run.mm, a + 6 * PG, PG, PG, 3, a + 64 * PG), a + 64 * PG)
    run.show("d5 page 6 moved away", a)
    run.show("d5 destination", a + 64 * PG)
    run.ok("munmap", do_munmap(run.mm, a, 65 * PG))


def files(run: Run) -> None:
    """Steps e: shared anonymous memory, and private and shared mappings of a memfd."""
    m = run.m
    run.from_here("d6 unmapped")
    s = run.map(0x200040000000, 4, RW, MAP_SHARED | MAP_ANONYMOUS)
    run.rd(s, 0)
    run.wr(s, 1)
    run.show("e0 shared anon read 0 write 1", s)
    memfd = shmem.shmem_file_setup("memfd:m", 8 * PG)
    shmem.shmem_write(m, memfd, 0)
    shmem.shmem_write(m, memfd, 1)
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
    run.grown("e3", "RssAnon", "RssShmem", "VmPTE", "minflt", libc_faults=1)
    child = _child(run)
    switch_to(m, child)
    run.show("e4 child private", f)
    run.show("e4 child shared", g)
    do_exit(child)
    switch_to(m, run.task)
    filemap.truncate_setsize(m, memfd.f_mapping, PG)
    run.show("e5 truncated to 1 page: shared", g)
    run.show("e5 private", f)
    for base, pages in ((f, 8), (g, 8), (s, 4)):
        run.ok(f"munmap {base:#x}", do_munmap(run.mm, base, pages * PG))


def sparse(run: Run) -> None:
    """Steps f: what scattered touches cost in page tables."""
    w = run.map(0x200080000000, 1 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
    madv.madvise(run.mm, w, PG << 20, madv.MADV_NOHUGEPAGE)
    run.from_here("f0 mapped 4G")
    steps = {
        "f1 one page": [0],
        "f2 same table": [511],
        "f3 next table": [512],
        "f4 next pmd": [512 * 512],
        "f5 64 more tables": [512 * 4 + i * 512 for i in range(64)],
    }
    for label, pages in steps.items():
        for i in pages:
            run.wr(w, i)
        run.grown(label)
        run.grown(label, "minflt")
        validate_pgtables(run.mm)
    madv.madvise(run.mm, w, PG << 20, madv.MADV_DONTNEED)
    run.grown("f6 DONTNEED keeps tables")
    run.ok("munmap", do_munmap(run.mm, w, PG << 20))
    run.grown("f7 unmapped")


def huge(run: Run) -> None:
    """Steps g: the huge zero page, huge pages, fork, and splitting."""
    t = run.map(0x200100000000, 1024)
    madv.madvise(run.mm, t, 1024 * PG, madv.MADV_HUGEPAGE)
    run.from_here("g0")
    run.rd(t, 0)
    run.show("g0 read: huge zero page", t)
    run.wr(t, 0)
    run.show("g1 write 0", t)
    run.show("g1 last", t)
    run.grown("g1")
    run.grown("g1", "minflt")
    run.wr(t, 600)
    run.show("g1b write 600: huge page 2", t)
    run.show("g1b", t)
    child = _child(run)
    switch_to(run.m, child)
    run.show("g2 child", t)
    run.wr(t, 1)
    run.show("g2 child wrote 1", t)
    do_exit(child)
    switch_to(run.m, run.task)
    run.show("g3 parent after child exit", t)
    run.wr(t, 0)
    run.show("g3 parent wrote 0", t)
    run.ok("mprotect", do_mprotect(run.mm, t + 16 * PG, 16 * PG, PROT_READ))
    run.show("g4 mprotect 16..31 read-only: pmd split, page whole", t)
    run.ok("munmap", do_munmap(run.mm, t + 100 * PG, 300 * PG))
    run.show("g5 after munmap 100..399", t)
    run.show("g5", t)
    madv.madvise(run.mm, t + 50 * PG, PG, madv.MADV_DONTNEED)
    run.show("g6 DONTNEED 50", t)
    run.ok("munmap", do_munmap(run.mm, t, 1024 * PG))


def every_fourth(run: Run) -> None:
    """Step h0: every fourth page of 2 MiB written."""
    t = run.map(0x200100000000, 512)
    madv.madvise(run.mm, t, 512 * PG, madv.MADV_NOHUGEPAGE)
    run.from_here("f7 unmapped")
    for i in range(0, 512, 4):
        run.wr(t, i)
    run.show("h0 every 4th written", t)
    run.grown("h0", "VmPTE")


#: The program's parts, each on a fresh process.
PROGRAMS: dict[str, Callable[[Run], None]] = {
    "anonymous": anonymous,
    "files": files,
    "sparse": sparse,
    "huge": huge,
    "every_fourth": every_fourth,
}


def compare(capture: Capture, section: str = "pgmap") -> list[Row]:
    """Take all steps on the model and return (where, model, kernel) of everything compared.

    :param section: ``pgmap`` or ``pgmap_mthp64``
    :raises ParseError: if a step is missing
    """
    rows: list[Row] = []
    for program in PROGRAMS.values():
        run = Run(capture, section)
        program(run)
        rows += run.rows
    return rows
