"""The ``faults`` and ``oops`` captures: what scripted accesses cause, on the model and in Linux.

The recorded program (its source is at the end of the capture) touches addresses at which something
particular happens. Compared are every page fault with its address and error code, the signals, how
many faults were counted, VmPTE and RSS, the lines the kernel logs for processes that die, and the
lines it prints when it faults itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

from mmcore.arch.x86.fault import (
    Fixup,
    GeneralProtection,
    PtRegs,
    SigBus,
    SigSegv,
    parse_oops,
    parse_segfault_line,
    show_fault_oops,
    show_signal,
    show_signal_msg,
    touch,
)
from mmcore.errors import ParseError
from mmcore.kernel.fork import TaskStruct, spawn
from mmcore.machine import Machine
from mmcore.mm import filemap, madvise, shmem
from mmcore.mm.filemap import File
from mmcore.mm.mm import MmStruct
from mmcore.mm.mmap import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    do_mmap,
    do_munmap,
)
from mmcore.mm.mprotect import do_mprotect
from mmcore.proc.capture import Capture
from mmcore.proc.task_mmu import status_memory

__all__ = [
    "FaultRun",
    "compare",
    "compare_oops",
    "compare_segfaults",
    "parse_faults",
    "parse_steps",
]

PG = 4096
A = 0x200000000000
HOLE = 0x200040000000
RW = PROT_READ | PROT_WRITE
_MARK = re.compile(r"tracing_mark_write: (.*)")
_FAULT = re.compile(
    r"page_fault_(user|kernel): address=(0x[0-9a-f]{1,16}) ip=\S+ error_code=(0x[0-9a-f]{1,8})"
)
_GP = re.compile(r"traps: (\S+)\[(\d{1,9})\] (.*) ip:([0-9a-f]+) sp:([0-9a-f]+) error:0 in .*")

#: (user or kernel, address, error code)
FaultEvent: TypeAlias = tuple[str, int, int]
#: (where, the model's value, the kernel's value)
Row: TypeAlias = tuple[str, str, str]


def parse_faults(text: str) -> dict[str, list[FaultEvent]]:
    """Return the page faults of each step of the trace, as the tracepoints printed them."""
    out: dict[str, list[FaultEvent]] = {}
    step = ""
    for line in text.splitlines():
        if mark := _MARK.search(line):
            step = mark[1] if mark[1] != "end" else ""
            out.setdefault(step, [])
        elif fault := _FAULT.search(line):
            out.setdefault(step, []).append((fault[1], int(fault[2], 16), int(fault[3], 16)))
    return out


def parse_steps(text: str) -> dict[str, list[str]]:
    """Return what the program printed of each step."""
    out: dict[str, list[str]] = {}
    for line in text.splitlines():
        label, colon, value = line.partition(": ")
        if colon:
            out.setdefault(label, []).append(value)
    return out


def _event_text(events: list[FaultEvent]) -> str:
    return (
        "; ".join(f"{who} {addr:#x} error_code={code:#x}" for who, addr, code in events) or "none"
    )


def signal_text(result: object) -> str:
    """Return an access's outcome as the program prints a signal, or "" if there was none.

    The program sees set_signal_archinfo()'s error code, which has the user bit.
    """
    if isinstance(result, GeneralProtection):
        return "signal 11 si_code 128 si_addr 0 error_code 0"
    if isinstance(result, (SigSegv, SigBus)):
        signal = 11 if isinstance(result, SigSegv) else 7
        return (
            f"signal {signal} si_code {result.si_code} si_addr {result.address:x} "
            f"error_code {result.error_code | 4:x}"
        )
    return ""


class FaultRun:
    """The program on the model, comparing as it goes.

    :ivar rows: (where, model, kernel) of everything compared
    """

    def __init__(self, capture: Capture) -> None:
        self.events = parse_faults(capture["trace"])
        self.printed = parse_steps(capture["faults"])
        self.m = Machine.boot("1G")
        self.task: TaskStruct = spawn(self.m, "faults")
        self.rows: list[Row] = []

    @property
    def mm(self) -> MmStruct:
        """The program's address space."""
        assert self.task.mm is not None
        mm: MmStruct = self.task.mm
        return mm

    def row(self, where: str, model: object, kernel: object) -> None:
        """Note a value of both sides."""
        self.rows.append((where, str(model), str(kernel)))

    def map(
        self, addr: int, pages: int, prot: int = RW, flags: int = 0, file: File | None = None
    ) -> int:
        """Map pages at an address."""
        flags = (flags or MAP_PRIVATE | MAP_ANONYMOUS) | MAP_FIXED
        self.ok(f"mmap {addr:#x}", do_mmap(self.mm, file, addr, pages * PG, prot, flags), addr)
        return addr

    def ok(self, what: str, result: int, expected: int = 0) -> None:
        """Note it if a call failed: the program's succeeded, or it would have stopped there."""
        if result != expected:
            self.row(what, result, expected)

    def touch(
        self, address: int, kind: str, user: bool = True
    ) -> tuple[object, list[FaultEvent], int]:
        """Access an address; return the result, the fault events and the minor faults counted."""
        before = self.task.min_flt
        with self.m.trace.record("exceptions:*") as log:
            result = touch(self.m, address, kind, user=user)
        events = [
            (e.name.rpartition("_")[2], int(e.fields["address"]), int(e.fields["error_code"]))
            for e in log
        ]
        return result, events, self.task.min_flt - before

    def said(self, label: str, i: int = 0) -> str:
        """Return what the program printed of a step.

        :raises ParseError: if it printed nothing
        """
        lines = self.printed.get(label, [])
        if i >= len(lines):
            raise ParseError(
                "faults", 1, "", f"no step {label!r}: truncated, or of another program"
            )
        return lines[i]

    def traced(self, label: str) -> list[FaultEvent]:
        """Return the faults of a step.

        :raises ParseError: if the trace does not have it
        """
        if label not in self.events:
            raise ParseError("trace", 1, "", f"no step {label!r}: truncated, or of another program")
        return self.events[label]

    def same_events(self, label: str, events: list[FaultEvent], only: int | None = None) -> None:
        """Compare the faults of a step, one by one.

        :param only: how many of the kernel's; None: all
        """
        kernel = self.traced(label)[:only]
        for i in range(max(len(kernel), len(events), 1)):
            self.row(
                f"{label}: fault {i + 1}",
                _event_text(events[i : i + 1]),
                _event_text(kernel[i : i + 1]),
            )

    def step(self, label: str, address: int, kind: str, user: bool = True) -> object:
        """Access an address and compare its faults, its signal or its count of faults."""
        result, events, minor = self.touch(address, kind, user)
        self.same_events(label, events)
        self.row(label, signal_text(result) or f"minflt +{minor} majflt +0", self.said(label))
        return result


# ---- the program's parts -------------------------------------------------------------------------


def _plain(run: FaultRun) -> None:
    """First touches of one mapping."""
    run.map(A, 8)
    run.step("read 0", A, "r")
    run.step("read 0 again", A, "r")
    run.step("write 0", A, "w")
    run.step("write 1", A + PG, "w")
    run.step("read 1", A + PG, "r")


def _signals(run: FaultRun) -> None:
    """Accesses that end in a signal."""
    run.ok("mprotect 1", do_mprotect(run.mm, A + PG, PG, PROT_READ))
    run.step("write to read-only 1", A + PG, "w")
    run.ok("mprotect 2", do_mprotect(run.mm, A + 2 * PG, PG, PROT_NONE))
    run.step("read PROT_NONE 2", A + 2 * PG, "r")
    run.step("read hole", HOLE, "r")
    run.step("execute 0", A, "x")
    run.step("execute 3, fresh", A + 3 * PG, "x")
    run.step("read kernel", 0xFFFF888000001000, "r")
    run.step("write kernel hole", 0xFFFF800000001000, "w")
    run.step("read non-canonical", 0x800000000000, "r")
    memfd = shmem.shmem_file_setup("memfd:m", 2 * PG)
    f = run.map(0x200050000000, 4, RW, MAP_SHARED, memfd)
    run.step("read beyond EOF", f + 2 * PG, "r")


def _kernel_writes(run: FaultRun) -> None:
    """read() from /dev/zero: the kernel touches the program's memory."""
    run.step("kernel write to 4", A + 4 * PG, "w", user=False)
    result, events, _ = run.touch(HOLE, "w", user=False)
    errno = -result.error if isinstance(result, Fixup) else 0
    run.row("read into a hole", f"-1 errno {errno}", run.said("read into a hole"))
    # The kernel's second fault is not compared: rep_stos_alternative's fixup stores byte by byte.
    run.same_events("kernel write to hole", events, only=1)


def _sizes(run: FaultRun, label: str, i: int = 0) -> dict[str, int]:
    sizes = {k: int(v) for k, v in re.findall(r"(\w+)=(\d{1,18})", run.said(label, i))}
    if not {"RssAnon", "VmPTE"} <= sizes.keys():
        raise ParseError("faults", 1, run.said(label, i), f"no sizes in step {label!r}")
    return sizes


def _many(run: FaultRun) -> None:
    """1024 pages read, then written."""
    w = run.map(0x200080000000, 1024)
    before, then = status_memory(run.mm), _sizes(run, "before 1024")
    run.ok("madvise", madvise.madvise(run.mm, w, 1024 * PG, madvise.MADV_NOHUGEPAGE))
    for kind, label in (("r", "read 1024"), ("w", "write 1024")):
        faults = run.task.min_flt
        for i in range(1024):
            touch(run.m, w + i * PG, kind)
        minor = run.task.min_flt - faults
        run.row(label, f"minflt +{minor} majflt +0", run.said(label))
        now, kernel = status_memory(run.mm), _sizes(run, label, 1)
        for name in ("RssAnon", "VmPTE"):
            run.row(f"{label} {name}", now[name] - before[name], kernel[name] - then[name])
    run.ok("munmap", do_munmap(run.mm, w, 1024 * PG))
    now, kernel = status_memory(run.mm), _sizes(run, "unmapped")
    for name in ("RssAnon", "VmPTE"):
        run.row(f"unmapped {name}", now[name] - before[name], kernel[name] - then[name])


def _around(run: FaultRun) -> None:
    """A file in the page cache: the windows of fault-around."""
    memfd = shmem.shmem_file_setup("memfd:g", 256 * PG)
    for i in range(256):
        shmem.shmem_write(run.m, memfd, i)
    for label, start, said in (
        ("map 1 MiB", 0x2000C0000000, "file 256 pages, aligned"),
        ("map 1 MiB off", 0x2000C0001000, "file 256 pages, off by one page"),
    ):
        h = run.map(start, 256, PROT_READ, MAP_SHARED, memfd)
        events, minor = [], 0
        for i in range(256):
            _, new, more = run.touch(h + i * PG, "r")
            events += new
            minor += more
        run.same_events(label, events)
        run.row(said, f"minflt +{minor} majflt +0", run.said(said))
        run.ok("munmap", do_munmap(run.mm, h, 256 * PG))
    h = run.map(0x2000C0000000, 256, PROT_READ, MAP_SHARED, memfd)
    run.step("fault 37", h + 37 * PG, "r")
    for i in (32, 47):
        run.ok(f"page {i} was mapped with 37", len(run.touch(h + i * PG, "r")[1]))
    run.step("fault 48", h + 48 * PG, "r")


def compare(capture: Capture) -> list[Row]:
    """Take the steps of a ``faults`` capture and return (where, model, kernel) of all compared.

    :raises ParseError: if a step is missing
    """
    run = FaultRun(capture)
    for part in (_plain, _signals, _kernel_writes, _many, _around):
        part(run)
    return run.rows


def compare_segfaults(text: str) -> Iterator[Row]:
    """Yield the lines that the kernel logged for processes that died, beside the model's.

    :param text: the section ``segfaults``
    """
    m = Machine.boot("1G")
    task = spawn(m, "faults")
    binary = filemap.File(filemap.AddressSpace(0x200000, "faults"))
    assert task.mm is not None
    placed = False
    for number, line in enumerate(text.splitlines(), 1):
        gp = _GP.fullmatch(line)
        if not placed and " in faults[" in line:
            found = re.search(
                r" in faults\[(?:[0-9a-f]+,)?([0-9a-f]{1,16})\+([0-9a-f]{1,16})\]", line
            )
            if found:
                start, size = int(found[1], 16), int(found[2], 16)
                do_mmap(task.mm, binary, start, size, 5, MAP_PRIVATE | MAP_FIXED, 1)
                placed = True
        if gp:
            task.comm, task.pid = gp[1], int(gp[2])
            mine = show_signal(m, PtRegs(int(gp[4], 16), int(gp[5], 16)), gp[3])
        elif "segfault at" in line:
            parsed = parse_segfault_line(line)
            task.comm, task.pid = parsed.comm, parsed.pid
            regs = PtRegs(parsed.ip, parsed.sp)
            mine = show_signal_msg(m, regs, parsed.error_code, parsed.address)
        else:
            continue
        yield f"line {number}", str(mine), line


def compare_oops(text: str) -> Iterator[Row]:
    """Yield the first three lines of an oops, beside what the model prints for its address and code.

    Simplified: the fourth line, the page-table entries, depends on where the recorded machine's
    tables lie, and on its modules.
    """
    info = parse_oops(text)
    m = Machine.boot("1G")
    spawn(m, "oops")
    model = show_fault_oops(m, PtRegs(user_mode=False), info.error_code, info.address)
    kernel = text.splitlines()
    for i, line in enumerate(model[:3]):
        yield f"line {i + 1}", line, kernel[i] if i < len(kernel) else ""
