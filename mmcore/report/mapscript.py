"""The recording of the questions about mappings, and the model's side: the same process asks the engine.

A recording has one line "NAME: ANSWER" for each question: addresses, errors as -errno, counts, lines of
/proc/self/maps. The model's process is made by execve() of the recorded program and makes the same calls.
"""

from __future__ import annotations

import re
from typing import Any

from mmcore.arch.x86 import uaccess
from mmcore.arch.x86.fault import touch
from mmcore.boot import set_initrd, set_memory_map
from mmcore.errors import ParseError, UsageError
from mmcore.fs.exec import Program, Segment, do_execve
from mmcore.kernel.fork import TaskStruct, do_exit, kernel_clone, spawn, switch_to
from mmcore.machine import Machine
from mmcore.mm import madvise, mmap, mprotect, mremap, util
from mmcore.mm.mm import MmStruct
from mmcore.proc import limits, meminfo, task_mmu
from mmcore.proc.capture import Capture

__all__ = [
    "boot",
    "compare",
    "compare_limits",
    "compare_overcommit",
    "kernel_questions",
    "model_questions",
    "recorded_program",
]

PG, MIB = 4096, 1 << 20
W = 0x1000_0000_0000
RW = mmap.PROT_READ | mmap.PROT_WRITE
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
FIXED = PRIVATE | mmap.MAP_FIXED
Rows = dict[str, tuple[str, ...]]

_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (....) ([0-9a-f]+) (\S+) (\S+) *(.*)")


def boot(capture: Capture) -> Machine:
    """Boot a machine of the recorded size, with the recorded initial RAM disk if its size is known.

    :raises UsageError: for sizes that no machine has
    """
    spec = capture.header.get("topology_spec")
    known = spec if isinstance(spec, dict) else {}
    memory, cpus = known.get("memory"), known.get("cpus")
    size, cmdline = (capture.header.get(key) for key in ("initrd_bytes", "kernel_cmdline"))
    m = Machine()
    initrd = None
    if type(size) is int:
        # The loader puts the disk's end below the top of low memory, whatever its size.
        set_memory_map(m, memory if isinstance(memory, str) else "1G")
        set_initrd(m, "default")
        assert m.boot_params.initrd is not None
        end = m.boot_params.initrd[1]
        initrd = (end - size & -PG, (end - size & -PG) + size)
    return Machine.boot(
        memory if isinstance(memory, str) else "1G",
        cpus=cpus if type(cpus) is int else 1,
        cmdline=cmdline if isinstance(cmdline, str) else "",
        initrd=initrd or "default",
    )


def _answers(capture: Capture) -> list[tuple[str, str]]:
    """Return (question, answer as it was printed) of each recorded line."""
    rows = []
    for line in capture["mappings"].splitlines():
        name, colon, answer = line.partition(": ")
        if colon:
            rows.append((name, answer))
    return rows


def kernel_questions(capture: Capture, only: str = "") -> Rows:
    """Return the recorded answers: name -> words; a line of maps is its range, rights and name."""
    rows: Rows = {}
    for name, answer in _answers(capture):
        match = _LINE.fullmatch(answer)
        if match is not None:
            path = "" if match[7].startswith("/") else match[7]
            rows[name] = (
                f"{int(match[1], 16):x}-{int(match[2], 16):x}",
                match[3],
                *([path] if path else []),
            )
        else:
            rows[name] = tuple(answer.split())
    return {k: v for k, v in rows.items() if k.startswith(only)}


def recorded_program(capture: Capture) -> tuple[Program, int, int, int]:
    """Return the program whose start was recorded, the end of its RELRO, and its heap's two ends.

    :raises ParseError: if its mappings are not those of a static program
    """
    found = [_LINE.fullmatch(text) for name, text in _answers(capture) if name.startswith("at the start")]  # fmt: skip
    rows = [
        (int(m[1], 16), int(m[2], 16), m[3], int(m[4], 16), m[7]) for m in found if m is not None
    ]
    code = [r for r in rows if r[4].startswith("/")]
    bss = next((r for r in rows if not r[4]), None)
    heap = next((r for r in rows if r[4] == "[heap]"), None)
    if len(code) != 5 or bss is None or heap is None:
        problem = "no map of a static program, which has five mappings of its file, .bss and [heap]"
        raise ParseError("mappings", 1, "", problem)
    relro, data = code[3], code[4]
    segments = [
        Segment(a, offset, b - a, b - a, rights.replace("-", "").rstrip("p"))
        for a, b, rights, offset, _ in code[:3]
    ]
    # RELRO and data are one segment, of which the C library makes the beginning read-only.
    filesz = data[1] - relro[0]
    segments.append(Segment(relro[0], relro[3], filesz, filesz + bss[1] - bss[0], "rw"))
    return Program(code[0][4], tuple(segments)), relro[1], heap[0], heap[1]


class _Asker:
    """The recorded program, on the model."""

    def __init__(self, capture: Capture) -> None:
        self.m = boot(capture)
        text = (capture.get("overcommit") or "").strip()
        if text in ("0", "1", "2"):
            util.set_overcommit_memory(self.m, int(text))
        self.m.paging.randomize_va_space = 0
        task = spawn(self.m, "mappings")
        program, relro, _, end = recorded_program(capture)
        if error := do_execve(task, program):
            raise UsageError(f"execve() of the recorded program gives {error}")
        self.task = task
        mm = self.mm
        start = program.segments[-1].vaddr
        mprotect.sys_mprotect(mm, start, relro - start, mmap.PROT_READ)
        mmap.sys_brk(mm, end)
        self.heap_start = f"{mm.start_brk:08x}"
        self.rows: Rows = {}
        #: name -> the line of maps as the kernel prints it
        self.texts: dict[str, str] = {}

    @property
    def mm(self) -> MmStruct:
        """The running task's address space."""
        mm = self.m.current.mm
        assert isinstance(mm, MmStruct)
        return mm

    def say(self, name: str, *answer: Any) -> None:
        self.rows[name] = tuple(str(a) for a in answer)

    def map(self, at: int, length: int, prot: int = RW, flags: int = PRIVATE) -> int:
        return mmap.sys_mmap(self.mm, at, length, prot, flags, None)

    def lines(self, title: str, start: int = 0, end: int = 1 << 47) -> None:
        """Note the lines of maps in a range."""
        n = 0
        for vma in self.mm.mm_mt:
            if vma.vm_start < end and vma.vm_end > start:
                n += 1
                a, b, rights, _ = task_mmu.map_fields(vma)
                name = "" if vma.vm_file is not None else task_mmu.vma_name(vma)
                self.say(f"{title} {n}", f"{a:x}-{b:x}", rights, *([name] if name else []))
                self.texts[f"{title} {n}"] = task_mmu.show_map_vma(vma).rstrip("\n")

    def forked(self) -> TaskStruct:
        """Let a child run; `back()` ends it."""
        child = kernel_clone(self.task)
        assert isinstance(child, TaskStruct)
        switch_to(self.m, child)
        return child

    def back(self, child: TaskStruct) -> None:
        do_exit(child)
        switch_to(self.m, self.task)

    # Each method is a function of the recorded program.

    def placement(self) -> None:
        a, b, c = (self.map(0, PG) for _ in range(3))
        self.say("three pages", hex(a), hex(b), hex(c))
        self.say("three pages, mappings", len(self.mm.mm_mt.range(c, a + PG)))
        for name, size in (("2 MiB", 2 * MIB), ("2 MiB and a page", 2 * MIB + PG), ("a page", PG)):
            self.say(name, hex(self.map(0, size)))
        self.say("hint, free", hex(self.map(W + 0x123, PG)))
        self.say("hint, taken", hex(self.map(W, PG)))
        self.say("MAP_32BIT", hex(self.map(0, PG, RW, PRIVATE | mmap.MAP_32BIT)))
        self.say(
            "MAP_FIXED_NOREPLACE, taken", self.map(W, PG, RW, PRIVATE | mmap.MAP_FIXED_NOREPLACE)
        )
        mmap.sys_munmap(self.mm, W, PG)

    def errors(self) -> None:
        mm = self.mm
        self.say("length 0", self.map(0, 0))
        self.say("length -1", self.map(0, -1))
        self.say("length 128 TiB", self.map(0, 1 << 47))
        self.say("no type", self.map(0, PG, RW, mmap.MAP_ANONYMOUS))
        self.say("fixed, in a page", self.map(W + 1, PG, RW, FIXED))
        shared = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_GROWSDOWN
        self.say("shared stack", self.map(0, PG, RW, shared))
        self.say("munmap of a hole", mmap.sys_munmap(mm, W, PG))
        self.say("munmap, in a page", mmap.sys_munmap(mm, W + 1, PG))
        self.say("mprotect of a hole", mprotect.sys_mprotect(mm, W, PG, mmap.PROT_READ))
        self.say("madvise of a hole", madvise.sys_madvise(mm, W, PG, madvise.MADV_DONTNEED))
        self.say("mremap of a hole", mremap.sys_mremap(mm, W, PG, 2 * PG, 0, 0))

    def poor(self) -> None:
        child = self.forked()
        child.cap_effective = 0
        self.say("fixed, at page 1", self.map(PG, PG, RW, FIXED))
        self.back(child)

    def merging(self) -> None:
        mm, m = self.mm, self.m
        for title in ("between untouched", "between touched"):
            for page in (0, 2):
                self.map(W + page * PG, PG, RW, FIXED)
            if title.endswith(" touched"):
                touch(m, W, "w")
                touch(m, W + 2 * PG, "w")
            self.map(W + PG, PG, RW, FIXED)
            self.lines(title, W, W + 3 * PG)
            mmap.sys_munmap(mm, W, 3 * PG)
        self.map(W, 3 * PG, RW, FIXED)
        touch(m, W, "w")
        for title, prot in (("middle read-only", mmap.PROT_READ), ("middle writable again", RW)):
            mprotect.sys_mprotect(mm, W + PG, PG, prot)
            self.lines(title, W, W + 3 * PG)
        mmap.sys_munmap(mm, W, 3 * PG)
        self.map(W, 2 * PG, mmap.PROT_READ, FIXED)
        mprotect.sys_mprotect(mm, W, PG, RW)
        touch(m, W, "w")
        mprotect.sys_mprotect(mm, W, PG, mmap.PROT_READ)
        self.lines("written once", W, W + 2 * PG)
        mmap.sys_munmap(mm, W, 2 * PG)

    def _heaps(self) -> int:
        return sum(task_mmu.vma_name(v) == "[heap]" and v.vm_file is None for v in self.mm.mm_mt)

    def heap(self) -> None:
        touch(self.m, self.mm.brk - 1, "w")  # the C library's allocator has been there
        child = self.forked()
        mm = self.mm
        touch(self.m, mm.brk - 1, "w")
        mmap.sys_brk(mm, mm.brk + 16 * PG)
        self.say("[heap] in a child that grew it", self._heaps())
        self.back(child)
        mm = self.mm
        end = mmap.sys_brk(mm, 0) + PG - 1 & -PG
        mmap.sys_brk(mm, end)
        self.say("brk(1)", int(mmap.sys_brk(mm, 1) == end))
        mmap.sys_brk(mm, end + 16 * PG)
        self.say("[heap] grown", self._heaps())
        self.map(end + 20 * PG, PG, RW, FIXED)
        self.say("brk up to a mapping", int(mmap.sys_brk(mm, end + 20 * PG) == end + 16 * PG))
        self.say("brk, a page below it", int(mmap.sys_brk(mm, end + 19 * PG) == end + 19 * PG))
        mmap.sys_munmap(mm, end + 20 * PG, PG)

    def _stack_start(self) -> int:
        return next(v.vm_start for v in self.mm.mm_mt if task_mmu.vma_name(v) == "[stack]")

    def _stack_question(self, name: str, below: int) -> None:
        target = self._stack_start() - below
        child = self.forked()
        result = touch(self.m, target, "w")
        ok = type(result).__name__ == "Translation"
        self.say(name, *([hex(self._stack_start())] if ok else ["signal", 11]))
        self.back(child)

    def stack(self) -> None:
        start = self._stack_start()
        self.say("stack begins", hex(start))
        self._stack_question("touch 7 MiB below", 7 * MIB)
        self._stack_question("touch 8 MiB below", 8 * MIB)
        self.map(start - 2 * MIB - PG, PG, RW, FIXED)
        self._stack_question("neighbour 2 MiB below, touch 1 MiB above it", MIB)
        self._stack_question("neighbour 2 MiB below, touch nearer", MIB + PG)
        mprotect.sys_mprotect(self.mm, start - 2 * MIB - PG, PG, mmap.PROT_NONE)
        self._stack_question("PROT_NONE 2 MiB below, touch nearer", 2 * MIB - PG)
        mmap.sys_munmap(self.mm, start - 2 * MIB - PG, PG)

    def copying(self) -> None:
        self.map(W, PG, RW, FIXED)
        arrived = 4096 - uaccess.copy_from_user(self.m, None, W + PG - 1000, 4096)
        self.say("write() of 4096 from 1000 before a hole", arrived)
        self.say(
            "write() from the hole",
            -14 if uaccess.copy_from_user(self.m, None, W + PG, 4096) == 4096 else 0,
        )
        self.say("size of the file", arrived)
        mmap.sys_munmap(self.mm, W, PG)

    def promises(self) -> None:
        child = self.forked()
        self.map(W, PG, RW, FIXED)
        self.say("mode 0, 64 GiB at once", self.map(0, 65536 * MIB))
        self.say(
            "mode 0, 64 GiB, MAP_NORESERVE",
            int(self.map(0, 65536 * MIB, RW, PRIVATE | mmap.MAP_NORESERVE) > 0),
        )
        util.set_overcommit_memory(self.m, 1)
        self.say("mode 1, 64 GiB at once", int(self.map(0, 65536 * MIB) > 0))
        util.set_overcommit_memory(self.m, 0)
        self.back(child)

    def opening(self) -> None:
        child = self.forked()
        mm = self.mm
        self.say("mappings before", mm.map_count)
        base, calls = self.map(0, 512 * MIB), 0
        while not (
            result := mprotect.sys_mprotect(mm, base + (2 * calls + 1) * PG, PG, mmap.PROT_READ)
        ):
            calls += 1
        self.say("calls that succeeded", calls)
        self.say("the next one", result)
        self.say("mappings after", mm.map_count)
        self.back(child)


def _asked(capture: Capture) -> _Asker:
    """Ask the model everything that the recorded program asked."""
    a = _Asker(capture)
    a.lines("at the start")
    for ask in (
        a.placement,
        a.errors,
        a.poor,
        a.merging,
        a.heap,
        a.stack,
        a.copying,
        a.promises,
        a.opening,
    ):
        ask()
    return a


def model_questions(capture: Capture, only: str = "") -> Rows:
    """Return the model's answers to all questions of the recording, or to those whose name begins with @only."""
    return {k: v for k, v in _asked(capture).rows.items() if k.startswith(only)}


def compare(capture: Capture) -> list[tuple[str, str, str]]:
    """Return (question, model's answer, kernel's answer), lines of maps character by character.

    The program's own segments and its heap's end are taken from the recording, so the lines that show
    them at the start are not compared; where the heap begins is.

    :raises ParseError: if the recorded program's own mappings are missing
    """
    asked = _asked(capture)
    theirs = dict(_answers(capture))
    heap = recorded_program(capture)[2]
    rows = [("at the start, the heap begins", asked.heap_start, f"{heap:08x}")]
    for name in dict.fromkeys([*asked.rows, *theirs]):
        mine = asked.texts.get(name) or " ".join(asked.rows.get(name, ("(not asked)",)))
        kernel = theirs.get(name, "(no answer)")
        line = _LINE.fullmatch(kernel)
        given = line is not None and (line[7].startswith("/") or line[7] in ("", "[heap]"))
        if not (given and name.startswith("at the start")):
            rows.append((name, mine, kernel))
    return rows


def compare_limits(capture: Capture) -> list[tuple[str, str, str]]:
    """Return (where, model, kernel) of each line of /proc/self/limits, in a guest whose init set none."""
    mine = limits.render(limits.init_rlimits(boot(capture))).splitlines()
    theirs = capture["limits"].splitlines()
    rows = []
    for i in range(max(len(mine), len(theirs))):
        a, b = (lines[i] if i < len(lines) else "(none)" for lines in (mine, theirs))
        rows.append((f"limits line {i + 1}", a, b))
    return rows


def compare_overcommit(capture: Capture) -> list[tuple[str, int, int]]:
    """Return (where, model, kernel) of the mode nobody changed, and of what mode 2 would promise.

    The pages that promises may be made from are those of the recorded MemTotal and SwapTotal. A machine
    that is no guest of the lab may have been set up otherwise: its mode is not compared.
    """
    m, rows = boot(capture), []
    if "initrd_bytes" in capture.header:
        ours = m.paging.sysctl_overcommit_memory
        rows.append(("overcommit_memory", ours, int(capture["overcommit"])))
    info = meminfo.parse(capture.file("/proc/meminfo") or "MemTotal: 0 kB")
    pool = info.get("HugePages_Total", 0)  # the model has none, which the limit would leave out
    if not pool and {"CommitLimit", "MemTotal", "SwapTotal"} <= info.keys():
        m.totalram_pages, m.total_swap_pages = info["MemTotal"] >> 2, info["SwapTotal"] >> 2
        rows.append(("CommitLimit", util.vm_commit_limit(m) << 2, info["CommitLimit"]))
    return rows
