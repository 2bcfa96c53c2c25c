"""Logs of address-space operations, call by call, model against kernel.

A log is a file of JSON lines that a program wrote about itself on a real kernel: its mappings before,
and for each call the arguments, the result, and the lines of /proc/self/smaps (header and VmFlags) that
went and came. The model makes the same calls and must give the same answers after every one.

Two programs write such logs (``vmaop`` and ``vmaops``); they differ in a few names, and both are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mmcore.arch.x86.fault import touch
from mmcore.errors import EPERM, ParseError
from mmcore.kernel.fork import kernel_clone, spawn, switch_to
from mmcore.machine import Machine
from mmcore.mm import filemap, madvise, mlock, mmap, mprotect, mremap, mseal, rmap, shmem, util
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    MM_SHMEMPAGES,
    MM_SWAPENTS,
    VM_ACCOUNT,
    VM_FLAG_MNEMONICS,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    VmOperationsStruct,
    get_mm_counter,
    mmap_write_lock,
    mmap_write_unlock,
    vm_flags_str,
)
from mmcore.proc import task_mmu

__all__ = [
    "Difference",
    "LogResult",
    "VmaReplay",
    "compare",
    "parse_log",
    "replay",
]

_BITS = {name: 1 << bit for bit, name in VM_FLAG_MNEMONICS.items()}
_LINE = re.compile(
    r"([0-9a-f]{8,16})-([0-9a-f]{8,16}) ([r-][w-][x-][ps]) ([0-9a-f]{8,16}) "
    r"(\S+) (\S+)(?: ([^|]*))?\|([a-z ?]*)"
)
#: Operation -> how many arguments it has.
OPERATIONS: dict[str, int] = {
    "mmap": 6,
    "munmap": 2,
    "mprotect": 3,
    "mremap": 5,
    "madvise": 3,
    "mlock": 2,
    "mlock2_onfault": 2,
    "munlock": 2,
    "mlockall": 1,
    "munlockall": 0,
    "brk": 1,
    "mseal": 2,
    "touch": 1,
    "write": 1,
    "read": 1,
    "fork": 0,  # the log goes on in the child
    "setrlimit": 2,
    "max_map_count": 1,
    "setuid": 1,
}


@dataclass(slots=True)
class Difference:
    """Where model and kernel part: which call, what about it, and both answers."""

    index: int
    call: str
    what: str
    model: str
    kernel: str

    def __str__(self) -> str:
        return (
            f"call {self.index} {self.call}: {self.what}: model {self.model}, kernel {self.kernel}"
        )


@dataclass(slots=True)
class LogResult:
    """How a replay went.

    :ivar operations: calls that were replayed
    :ivar checks: single answers compared (results, lines, hashes, counters)
    :ivar equal: how many of them were equal
    :ivar mappings: mappings at the end
    """

    operations: int = 0
    checks: int = 0
    equal: int = 0
    mappings: int = 0
    differences: list[Difference] = field(default_factory=list)


def parse_log(text: str) -> list[dict[str, Any]]:
    """Read the JSON lines of a log.

    :raises ParseError: for a line that is no JSON object, an operation that is unknown or has the
        wrong number of arguments, or a log that does not begin with its initial map
    """
    records: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("{"):
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise ParseError("vma log", number, line, "not a JSON object") from None
        problem = _record_problem(record, not records)
        if problem:
            raise ParseError("vma log", number, line, problem)
        records.append(record)
    if not records:
        raise ParseError("vma log", 1, text.partition("\n")[0], "no records")
    return records


def _int_list(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int for v in value)


def _lines(record: dict[str, Any], key: str) -> bool:
    value = record.get(key)
    return isinstance(value, list) and all(
        isinstance(v, str) and _LINE.fullmatch(v) is not None for v in value
    )


def _record_problem(record: Any, first: bool) -> str:
    """Return what is wrong with a record; "" if nothing is."""
    if not isinstance(record, dict):
        return "not a JSON object"
    if first != ("init" in record):
        return "the initial map is the first record, and only that"
    if first:
        for key in ("fd_pages", "brk"):
            if type(record.get(key)) is not int or record[key] < 0:
                return f"{key} is missing or no number"
        return "" if _lines(record, "add") else "no map lines"
    if "op" in record:
        if record["op"] not in OPERATIONS:
            return f"unknown operation {record['op']!r}"
        args = record.get("a")
        if not _int_list(args) or args is None or len(args) != OPERATIONS[record["op"]]:
            return f"{record['op']} takes {OPERATIONS[record['op']]} numbers"
        if type(record.get("r")) is not int or type(record.get("i")) is not int:
            return "the result or the number of the call is missing"
        return "" if _lines(record, "del") and _lines(record, "add") else "no map lines"
    return "" if "ck" in record or "final" in record else "neither a call nor a check"


def _fnv(lines: list[str]) -> str:
    value = 0xCBF29CE484222325
    for line in lines:
        for byte in (line + "\n").encode():
            value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return f"{value:016x}"


class VmaReplay:
    """A process of the model that starts with a recorded map and repeats recorded calls.

    :param init: the log's first record
    :param m: the machine to run on; by default one with 1 GiB
    """

    def __init__(self, init: dict[str, Any], m: Machine | None = None) -> None:
        self.m = Machine.boot("1G") if m is None else m
        self.task = spawn(self.m, "vma")
        assert self.task.mm is not None
        self.mm: MmStruct = self.task.mm
        self.exe = filemap.File(filemap.AddressSpace(1 << 30, "exe"), f_path="exe")
        self.fd = shmem.memfd_create(self.mm, "file", init["fd_pages"] << 12)
        self.inodes: dict[int, int] = {}
        if type(init.get("memlock")) is int and init["memlock"] >= 0:
            self.task.rlim[util.RLIMIT_MEMLOCK] = (init["memlock"], init["memlock"])
        if init.get("root", 1) != 1:
            self.task.cap_effective = 0
        self.exe_tail = ""
        # A kernel without CONFIG_MEM_SOFT_DIRTY has no such bit; merging ignores it anyway.
        soft_dirty = any(" sd" in line for line in init["add"])
        self.shown = ~0 if soft_dirty else ~VM_SOFTDIRTY
        self.mm.start_brk = self.mm.brk = init["brk"]
        for line in init["add"]:
            self._add(line)
        # The program has written to all its own data before it wrote the first line.
        for vma in self.mm.mm_mt:
            if vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE or vma.vm_flags & VM_ACCOUNT:
                rmap.anon_vma_prepare(vma)
        if self.mm.start_stack:
            touch(self.m, self.mm.start_stack, "w")
        for vma in list(self.mm.mm_mt):  # its code is in memory, and has page tables
            if vma.vm_file is self.exe:
                touch(self.m, vma.vm_start, "r")
        #: counter -> kernel's value less the model's at the first check: the program's own pages
        self.own: dict[str, int] = {}
        self.forked = False
        self.lines = self.render()

    def _add(self, line: str) -> None:
        match = _LINE.fullmatch(line)
        assert match is not None
        start, end, offset = int(match[1], 16), int(match[2], 16), int(match[4], 16)
        name = match[7] or ""
        flags = 0
        for word in match[8].split():
            flags |= _BITS.get(word, 0)
        mm = self.mm
        vma = vma_.vm_area_alloc(mm, start, end, flags, start >> 12)
        assert vma is not None
        if match[5] == "exe":
            self.exe_tail = f"exe exe {name}"
            vma.vm_file, vma.vm_ops = filemap.get_file(self.exe), filemap.generic_file_vm_ops
            vma.vm_pgoff = offset >> 12
        elif name.startswith("[v"):
            vma.vm_ops = VmOperationsStruct(
                name="special_mapping_vmops", vma_name=lambda _vma: name, close=lambda _vma: None
            )
            vma.vm_pgoff = offset >> 12
        elif name == "[heap]":
            mm.start_brk = min(mm.start_brk, start)
        elif name == "[stack]":
            mm.start_stack = end - 8
        mmap_write_lock(mm)
        vma_.vma_link(mm, vma)
        vma_.vm_stat_account(mm, flags, (end - start) >> 12)
        if flags & VM_ACCOUNT and not flags & VM_SHARED:
            util.vm_acct_memory(mm, (end - start) >> 12)
        mmap_write_unlock(mm)

    def line_of(self, vma: VmAreaStruct) -> str:
        """Return a mapping as the log has it: its maps line with single blanks, "|", its VmFlags."""
        start, end, perms, offset = task_mmu.map_fields(vma)
        where = f"{start:08x}-{end:08x} {perms} {offset:08x} "
        file = vma.vm_file
        if file is self.exe:
            where += self.exe_tail
        elif file is not None:
            mapping = file.f_mapping
            number = self.inodes.setdefault(mapping.i_ino, len(self.inodes) + 1)
            where += f"00:01 #{number} {self.path(file)}"
        else:
            name = task_mmu.vma_name(vma)
            where += f"00:00 0 {name}" if name else "00:00 0"
        return f"{where}|{vm_flags_str(vma.vm_flags & self.shown)}"

    def path(self, file: filemap.File) -> str:
        """Return what maps shows of a memory file."""
        return file.f_path

    def render(self) -> dict[int, str]:
        """Return the whole map: start address -> line."""
        return {vma.vm_start: self.line_of(vma) for vma in self.mm.mm_mt}

    def call(self, op: str, args: list[int]) -> int:
        """Make one call; return its result or -errno."""
        mm = self.mm
        a = [v & (1 << 64) - 1 for v in args]
        if op == "mmap":
            fd = self.fd if args[4] >= 0 else None
            return mmap.sys_mmap(mm, a[0], a[1], a[2], a[3], fd, a[5])
        if op in ("touch", "write", "read"):
            touch(self.m, a[0], "r" if op == "read" else "w")
            return 1
        if op in ("fork", "setrlimit", "max_map_count", "setuid"):
            return self._set(op, a)
        calls: dict[str, Any] = {
            "munmap": mmap.sys_munmap,
            "mprotect": mprotect.sys_mprotect,
            "mremap": mremap.sys_mremap,
            "madvise": madvise.sys_madvise,
            "mlock": mlock.sys_mlock,
            "mlock2_onfault": lambda mm, start, length: mlock.sys_mlock2(mm, start, length, 1),
            "munlock": mlock.sys_munlock,
            "mlockall": mlock.sys_mlockall,
            "munlockall": mlock.sys_munlockall,
            "brk": mmap.sys_brk,
            "mseal": mseal.sys_mseal,
        }
        result: int = calls[op](mm, *a)
        return result

    def _set(self, op: str, a: list[int]) -> int:
        """Do what changes the process or its limits, not its mappings."""
        task = self.task
        if op == "fork":
            child = kernel_clone(task)
            if isinstance(child, int):
                return child
            switch_to(self.m, child)
            assert child.mm is not None
            self.forked = True  # it faults its own pages in again, one by one
            self.task, self.mm = child, child.mm
        elif op == "setrlimit":
            hard = task.rlim[a[0]][1]
            if a[1] > hard and not util.capable(self.mm, util.CAP_SYS_RESOURCE):
                return -EPERM
            task.rlim[a[0]] = (a[1], max(hard, a[1]))
        elif op == "max_map_count":
            self.m.paging.sysctl_max_map_count = a[0]
        else:
            task.cap_effective = 0 if a[0] else util.CAP_FULL_SET
        return 0

    def step(self, record: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
        """Repeat a recorded call; yield (what, model, kernel) for its result and for the maps."""
        op = record["op"]
        if op not in ("touch", "write", "read") or record["r"] == 1:
            result = self.call(op, record["a"])
            yield "result", str(result), str(record["r"])
        before, after = self.lines, self.render()
        self.lines = after
        gone = [line for at, line in before.items() if after.get(at) != line]
        came = [line for at, line in after.items() if before.get(at) != line]
        yield "mappings that went", str(gone), str(record["del"])
        yield "mappings that came", str(came), str(record["add"])
        if "VmSize" in record:
            yield from self.counters(record)

    def check(self, record: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
        """Compare the whole map and the counters with a recorded check."""
        lines = list(self.lines.values())
        if "n" in record:
            yield "number of mappings", str(len(lines)), str(record["n"])
        if "hash" in record:
            yield "hash of the map", _fnv(lines), str(record["hash"])
        if "add" in record:
            yield "map", str(lines), str(record["add"])
        yield from self.counters(record)

    def counters(self, record: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
        """Compare what /proc/self/status counts, as far as a record has it."""
        mm, kb = self.mm, 4
        for name, value in (
            ("VmSize", mm.total_vm * kb),
            ("VmLck", mm.locked_vm * kb),
            ("VmData", mm.data_vm * kb),
            ("VmStk", mm.stack_vm * kb),
        ):
            if name in record:
                yield name, str(value), str(record[name])
        for name, value in (
            ("RssShmem", get_mm_counter(mm, MM_SHMEMPAGES) * kb),
            ("VmPTE", mm.pgtables_bytes >> 10),
            ("VmSwap", get_mm_counter(mm, MM_SWAPENTS) * kb),
        ):
            if type(record.get(name)) is int and not self.forked:
                own = self.own.setdefault(name, record[name] - value)
                yield f"{name} since the first check", str(value + own), str(record[name])


def replay(
    records: list[dict[str, Any]], *, m: Machine | None = None, limit: int = 20
) -> LogResult:
    """Repeat a log's calls and compare every answer.

    :param limit: stop after so many differences
    """
    result = LogResult()
    run = VmaReplay(records[0], m)
    names = [line for r in records for line in r.get("add", ()) if "/memfd:" in line]
    if names:
        run.fd.f_path = names[0].partition("|")[0].split(" ", 5)[5]
    pending = [(records[0], run.check(records[0]))]
    for record in records[1:]:
        pending.append((record, run.step(record) if "op" in record else run.check(record)))
    for record, answers in pending:
        result.operations += "op" in record
        for what, model, kernel in answers:
            result.checks += 1
            if model == kernel:
                result.equal += 1
                continue
            call = f"{record.get('op', 'check')}{tuple(record.get('a', ()))}"
            index = record.get("i", record.get("ck", -1))
            result.differences.append(Difference(index, call, what, model, kernel))
        if len(result.differences) >= limit:
            break
    result.mappings = run.mm.map_count
    return result


def compare(text: str, *, m: Machine | None = None, limit: int = 20) -> LogResult:
    """Read a log and repeat it on the model.

    :raises ParseError: if the log is damaged

    ``differences`` of the result is empty when every answer is equal.
    """
    return replay(parse_log(text), m=m, limit=limit)
