"""Random address-space calls on the kernel that runs here, and the same calls on the model.

A child process (Python with ctypes, nothing to compile) makes the calls in a window of addresses that
nothing else uses, and reports each result and what /proc/self/smaps shows of the window. The model must
say the same after every call; if it does not, the sequence is shortened as far as it still differs.

Kernels of other releases than the model's differ where their source does. Each known difference has a
name in `RELEASE_DIFFERENCES`: either the calls that would meet it are not made there, or the model follows
the newer rule during the run, and how often that made a difference is counted. Nothing else is excused.

A run is bounded: so many calls, all in one window, children that may use a minute of processor time. The
same seed gives the same calls on the same release. ``python -m mmcore.report.vmafuzz --seed 1 --steps
1000`` prints how it went: exit status 0 all equal, 1 a difference, 2 this machine cannot be asked.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mmcore.errors import UsageError
from mmcore.mm import madvise as madv
from mmcore.mm import mremap
from mmcore.mm import vma as vma_
from mmcore.mm.mm import AnonVma, VmAreaStruct
from mmcore.report.vmalog import VmaReplay

__all__ = [
    "RELEASE_DIFFERENCES",
    "FuzzResult",
    "fuzz",
    "generate",
    "main",
    "run_here",
    "to_text",
    "unsupported",
]

WINDOW = 0x100000000000
PAGE = 4096
FILE_PAGES = 64

#: name -> (first release that differs, what is different)
RELEASE_DIFFERENCES: dict[str, tuple[tuple[int, int], str]] = {
    "untouched neighbours": (
        (6, 16),
        "newer kernels let a mapping that was never forked merge with a neighbour that has no pages yet; "
        "6.12 asks the neighbour for exactly one anon_vma",
    ),
    "mremap over several mappings": (
        (6, 17),
        "newer kernels move several mappings in one call; 6.12 answers -EFAULT after it has unmapped "
        "the target",
    ),
    "mremap checks before it unmaps": (
        (6, 17),
        "newer kernels check a move's arguments before they look for the mapping, and refuse it before "
        "they unmap the target or the tail",
    ),
}

_CHILD = r"""
import ctypes, json, re, resource, sys
libc = ctypes.CDLL(None, use_errno=True)
call = libc.syscall
call.restype = ctypes.c_long
W, PAGE = 0x100000000000, 4096
NR = {"mmap": 9, "mprotect": 10, "munmap": 11, "mremap": 25, "madvise": 28, "mlock": 149, "munlock": 150,
      "mlock2_onfault": 325, "mseal": 462}
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
job = json.load(sys.stdin)
end = W + job["pages"] * PAGE
fd = call(319, b"fuzz", 0)
if fd < 0 or call(77, fd, job["file_pages"] * PAGE):
    sys.exit("memfd_create() is refused: errno %d" % ctypes.get_errno())
head = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) (\S+) (\d+) *(.*)")
def look():
    rows, keep = [], False
    for line in open("/proc/self/smaps", "rb"):
        m = head.match(line)
        if m:
            start = int(m[1], 16)
            keep = W <= start < end
            if keep:
                rows.append([m[0].decode().rstrip(), ""])
        elif keep and line.startswith(b"VmFlags:"):
            rows[-1][1] = line[8:].decode().strip()
    return rows
if look():
    sys.exit("the window is in use")
print(json.dumps({"memlock": resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
                  "caps": int(re.search(r"CapEff:\s*(\w+)", open("/proc/self/status").read())[1], 16)}))
for op, a in job["ops"]:
    if op == "write":
        ctypes.memset(a[0], 1, 1)
        r = 1
    else:
        a = list(a)
        if op == "mmap" and a[4] >= 0:
            a[4] = fd
        if op in ("mlock2_onfault", "mseal"):
            a.append(op != "mseal")
        r = call(NR[op], *[ctypes.c_long(v - (1 << 64) if v >> 63 else v) for v in a])
        if r == -1:
            r = -ctypes.get_errno()
    print(json.dumps([r, look()]))
"""


@dataclass(slots=True)
class FuzzResult:
    """How a run went.

    :ivar release: the kernel's release
    :ivar calls: how many calls were compared
    :ivar avoided: name of a difference between releases -> how many calls were not made for it
    :ivar applied: name of a difference -> how many times a newer kernel's rule decided
    :ivar difference: "" if all were equal; else the call and both answers
    :ivar shortest: the shortest sequence that still differs, as (call, arguments)
    """

    release: str
    calls: int = 0
    avoided: dict[str, int] = field(default_factory=dict)
    applied: dict[str, int] = field(default_factory=dict)
    difference: str = ""
    shortest: list[tuple[str, list[int]]] = field(default_factory=list)


def unsupported() -> str:
    """Return why this machine cannot be asked; "" if it can.

    Linux on x86-64 from 6.12 on can, unless something stands between the program and the kernel: a filter
    of system calls (seccomp), or a kernel in user space (gVisor), whose maps are its own.
    """
    if not sys.platform.startswith("linux"):
        return f"the kernel here is not Linux ({sys.platform})"
    if platform.machine() != "x86_64":
        return f"the processor here is not x86-64 ({platform.machine()})"
    if _release(platform.release()) < (6, 12):
        return f"Linux {platform.release()} is older than 6.12, and its merge rules differ"
    probe: list[tuple[str, list[int]]] = [
        ("mmap", [WINDOW, 2 * PAGE, 3, 0x100022, -1, 0]),
        ("mprotect", [WINDOW, PAGE, 1]),
    ]
    try:
        _, (result, _), (error, rows) = run_here(probe, 16)
    except (UsageError, OSError, subprocess.SubprocessError) as err:
        return f"no child process can make the calls here (seccomp?): {err}"
    if (result, error) != (WINDOW, 0):
        return f"mmap() and mprotect() of new pages answer {result} and {error} here (seccomp?)"
    if len(rows) != 2 or not all(flags for _, flags in rows):
        return "smaps has no VmFlags, or not one entry for each mapping here (gVisor?)"
    return ""


#: What the child may lock, and its capabilities.
Facts = dict[str, int]


def _release(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _new_replay(facts: Facts, soft_dirty: bool = True) -> VmaReplay:
    sd = " sd" if soft_dirty else ""
    init: dict[str, Any] = {
        "fd_pages": FILE_PAGES,
        "brk": 0,
        "add": [
            f"7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0 [stack]|rd wr mr mw me gd ac{sd}"
        ],
        "memlock": facts["memlock"] if facts["memlock"] >= 0 else (1 << 64) - 1,
    }
    replay = VmaReplay(init)
    replay.fd.f_path = "/memfd:fuzz (deleted)"
    replay.task.cap_effective = facts["caps"]
    return replay


@contextmanager
def _rules_of(release: tuple[int, int], met: dict[str, int]) -> Iterator[None]:
    """Let the model merge as @release does; @met counts where 6.12 would not have merged.

    Nothing in a run was forked, so "never forked" is always true.
    """
    name = "untouched neighbours"
    if release < RELEASE_DIFFERENCES[name][0]:
        yield
        return
    mergeable, new_range = vma_.is_mergeable_anon_vma, vma_.vma_merge_new_range

    def newer(one: AnonVma | None, other: AnonVma | None, vma: VmAreaStruct | None) -> bool:
        if mergeable(one, other, vma):
            return True
        if one is not None and other is not None:
            return False
        met[name] = met.get(name, 0) + 1
        return True

    def merge(vmg: vma_.VmaMergeStruct) -> VmAreaStruct | None:
        """A copy with pages brings its anon_vma to a neighbour that has none."""
        merged = new_range(vmg)
        if merged is not None and merged.anon_vma is None and vmg.anon_vma is not None:
            source = next(v for v in vmg.mm.mm_mt if v.anon_vma is vmg.anon_vma)
            vma_.dup_anon_vma(merged, source)
        return merged

    setattr(vma_, "is_mergeable_anon_vma", newer)  # noqa: B010  (mypy: a function is replaced)
    setattr(vma_, "vma_merge_new_range", merge)  # noqa: B010
    try:
        yield
    finally:
        setattr(vma_, "is_mergeable_anon_vma", mergeable)  # noqa: B010
        setattr(vma_, "vma_merge_new_range", new_range)  # noqa: B010


def _in_window(replay: VmaReplay) -> list[VmAreaStruct]:
    return [v for v in replay.mm.mm_mt if v.vm_start < 0x7FF000000000]


def _any_range(rng: random.Random, replay: VmaReplay, pages: int) -> tuple[int, int]:
    """Return (start, length): mostly in what is mapped, sometimes anywhere."""
    vmas = _in_window(replay)
    if vmas and rng.randrange(8):
        vma = rng.choice(vmas)
        size = (vma.vm_end - vma.vm_start) // PAGE
        first = rng.randrange(size) if rng.randrange(2) else 0
        count = size - first if rng.randrange(2) else 1 + rng.randrange(size - first)
        if not rng.randrange(6):
            count += 1 + rng.randrange(12)
        return vma.vm_start + first * PAGE, count * PAGE
    start = rng.randrange(pages)
    return WINDOW + start * PAGE, (1 + rng.randrange(12)) * PAGE


_PROTS = (3, 3, 3, 1, 1, 0, 5, 7)
_ADVICE = (0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 99)


#: Lengths that no caller should pass: none, a part of a page, and what wraps.
_ODD_LENGTHS = (0, 1, PAGE - 1, PAGE + 1, (1 << 64) - PAGE, (1 << 64) - 1)


def _odd_call(rng: random.Random, op: str, args: list[int]) -> None:
    """Spoil one argument of a call."""
    which = rng.randrange(3)
    if which == 0:
        args[0] += rng.choice((1, PAGE // 2, PAGE - 1))
    elif which == 1:
        args[1] = rng.choice(_ODD_LENGTHS)
    elif op == "mprotect":
        args[2] |= rng.choice((0x10, 0x01000000, 0x02000000, 0x03000000))
    elif op == "mmap":
        args[3] = rng.choice((args[3] & ~3, args[3] | 3, args[3] | 0x80000))
        args[5] += rng.choice((0, 0, 512))
    elif op == "mremap":
        if rng.randrange(2):
            args[2] = rng.choice((0, 1, (1 << 64) - 1))
        else:
            args[3:] = rng.choice((2, 4, 6, 8, 7)), WINDOW + rng.randrange(64) * 8


def _one_call(rng: random.Random, replay: VmaReplay, pages: int) -> tuple[str, list[int]]:
    """Choose a call, seldom with an argument that no caller should pass."""
    op, args = _good_call(rng, replay, pages)
    if op != "write" and not rng.randrange(16):
        _odd_call(rng, op, args)
    return op, args


def _good_call(rng: random.Random, replay: VmaReplay, pages: int) -> tuple[str, list[int]]:
    """Choose a call; all addresses that the kernel would choose itself are given."""
    kind = rng.randrange(100)
    start, length = _any_range(rng, replay, pages)
    if kind < 30:
        start = WINDOW + rng.randrange(pages) * PAGE
        flags, fd, off = 0x22, -1, 0
        which = rng.randrange(10)
        if which >= 6:
            flags = 0x21 if which == 6 else 0x02 if which < 9 else 0x01
        if which > 6:
            fd, off = 0, rng.randrange(FILE_PAGES) * PAGE
        flags |= 0x10 if rng.randrange(3) else 0x100000
        flags |= 0 if rng.randrange(12) else rng.choice((0x4000, 0x20000, 0x2000, 0x8000))
        if fd < 0 and flags & 2 and not rng.randrange(20):
            flags |= 0x100
        return "mmap", [start, min(length, 64 * PAGE), rng.choice(_PROTS), flags, fd, off]
    if kind < 44:
        return "munmap", [start, length]
    if kind < 60:
        return "mprotect", [start, length, rng.choice(_PROTS)]
    if kind < 72:
        new = length if rng.randrange(2) else (1 + rng.randrange(24)) * PAGE
        flags, to = 0, 0
        if rng.randrange(3):
            flags, to = 3, WINDOW + rng.randrange(pages) * PAGE
        return "mremap", [start, length, new, flags, to]
    if kind < 84:
        advice = rng.choice(_ADVICE)
        if advice in (madv.MADV_POPULATE_READ, madv.MADV_POPULATE_WRITE):
            length = min(length, 32 * PAGE)
        return "madvise", [start, length, advice]
    if kind == 84 and not rng.randrange(4):
        return "mseal", [start, min(length, 2 * PAGE)]
    if kind < 89:
        return rng.choice(("mlock", "munlock", "mlock2_onfault")), [start, min(length, 32 * PAGE)]
    return "write", [start]


def _avoid(replay: VmaReplay, op: str, args: list[int], release: tuple[int, int]) -> str | None:
    """Return why a call is not made: "" because it would fault, or the name of a difference."""
    if op == "write":
        vma = replay.mm.mm_mt.walk(args[0])
        if vma is None or not vma.vm_flags & 2 or vma.vm_start < WINDOW:
            return ""
        page = vma.vm_pgoff + (args[0] - vma.vm_start) // PAGE
        limit = FILE_PAGES if vma.vm_file is replay.fd else None
        if vma.vm_file is not None and limit is None:
            limit = (vma.vm_file.f_mapping.i_size + PAGE - 1) // PAGE
        return "" if limit is not None and page >= limit else None
    if op != "mremap":
        return None
    several, checks = "mremap over several mappings", "mremap checks before it unmaps"
    vma = replay.mm.mm_mt.walk(args[0])
    inside = vma is not None and args[0] + args[1] <= vma.vm_end
    if release >= RELEASE_DIFFERENCES[several][0] and not inside and vma is not None:
        return several
    moving = args[3] & mremap.MREMAP_FIXED
    overlap = args[0] < args[4] + args[2] and args[4] < args[0] + args[1]
    late = args[1] != args[2] or vma is None or overlap
    if release >= RELEASE_DIFFERENCES[checks][0] and moving and late:
        return checks
    return None


def generate(
    seed: int, count: int, pages: int, release: tuple[int, int], facts: Facts
) -> tuple[list[tuple[str, list[int]]], dict[str, int]]:
    """Return (calls, how many were avoided for each difference between releases)."""
    rng = random.Random(f"vmafuzz:{seed}")
    replay = _new_replay(facts)
    calls: list[tuple[str, list[int]]] = []
    avoided: dict[str, int] = {}
    while len(calls) < count:
        op, args = _one_call(rng, replay, pages)
        why = _avoid(replay, op, args, release)
        if why is not None:
            if why:
                avoided[why] = avoided.get(why, 0) + 1
            continue
        replay.call(op, args)
        calls.append((op, args))
    return calls, avoided


def run_here(calls: list[tuple[str, list[int]]], pages: int, timeout: float = 60) -> list[Any]:
    """Make the calls in a child process; its facts first, then [result, rows] for each call.

    :raises UsageError: if the child cannot start, or ends before its last call
    """
    job = json.dumps({"ops": calls, "pages": pages + 256, "file_pages": FILE_PAGES})
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _CHILD],
        input=job,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if len(lines) != len(calls) + 1:
        raise UsageError(
            f"the child ended after {len(lines) - 1} calls: {done.stderr[-200:].strip()}"
        )
    return lines


def _kernel_rows(rows: list[list[str]], inodes: dict[str, int]) -> list[str]:
    """Return rows in the form of a log: single blanks, shared memory by order of first sight."""
    lines = []
    for head, flags in rows:
        words = head.split(None, 5)
        if words[3] == "00:01":
            words[4] = f"#{inodes.setdefault(words[4], len(inodes) + 1)}"
        lines.append(f"{' '.join(words)}|{flags}")
    return lines


def first_difference(calls: list[tuple[str, list[int]]], pages: int) -> tuple[int, str]:
    """Make the calls here and on the model: (index, both answers) of the first difference, or (-1, "")."""
    facts, *answers = run_here(calls, pages)
    soft_dirty = any(" sd" in f" {row[1]}" for _, rows in answers for row in rows)
    replay = _new_replay(facts, soft_dirty)
    inodes: dict[str, int] = {}
    for i, ((op, args), (result, rows)) in enumerate(zip(calls, answers, strict=True)):
        got = replay.call(op, args)
        if got != result:
            return i, f"{op}{tuple(args)}: model {got}, kernel {result}"
        kernel = _kernel_rows(rows, inodes)
        model = [replay.line_of(vma) for vma in _in_window(replay)]
        if kernel != model:
            apart = [line for line in model if line not in kernel]
            other = [line for line in kernel if line not in model]
            return i, f"{op}{tuple(args)}: model {apart}, kernel {other}"
    return -1, ""


def _shorten(
    calls: list[tuple[str, list[int]]],
    differs: Callable[[list[tuple[str, list[int]]]], bool],
    deadline: float,
) -> list[tuple[str, list[int]]]:
    """Leave out as many calls as possible while the rest still differs; half of them at once first."""
    size = len(calls) // 2
    while size:
        before, at = len(calls), 0
        while at < len(calls) and time.monotonic() < deadline:
            fewer = calls[:at] + calls[at + size :]
            if fewer and differs(fewer):
                calls = fewer
            else:
                at += size
        if size > 1 or len(calls) == before:  # single ones until none can go
            size //= 2
    return calls


def _may_run(calls: list[tuple[str, list[int]]], release: tuple[int, int], facts: Facts) -> bool:
    """Tell whether no call would fault or meet a known difference, now that others were left out."""
    replay = _new_replay(facts)
    for op, args in calls:
        if _avoid(replay, op, args, release) is not None:
            return False
        replay.call(op, args)
    return True


def fuzz(seed: int = 1, count: int = 300, pages: int = 64, *, shorten: float = 20) -> FuzzResult:
    """Compare @count random calls with the kernel that runs here.

    :param pages: size of the window that the calls are made in
    :param shorten: how many seconds may be spent to shorten a sequence that differs
    :raises UsageError: if this machine cannot be asked; `unsupported()` says why
    """
    why = unsupported()
    if why:
        raise UsageError(why)
    name = platform.release()
    release = _release(name)
    facts: Facts = run_here([], pages)[0]
    applied: dict[str, int] = {}
    with _rules_of(release, {}):
        calls, avoided = generate(seed, count, pages, release, facts)
    result = FuzzResult(name, len(calls), avoided, applied)
    with _rules_of(release, applied):
        at, result.difference = first_difference(calls, pages)
    if at >= 0:
        calls = calls[: at + 1]

        def differs(some: list[tuple[str, list[int]]]) -> bool:
            ok = _may_run(some, release, facts)
            return ok and first_difference(some, pages)[0] >= 0

        with _rules_of(release, {}):
            result.shortest = _shorten(calls, differs, time.monotonic() + shorten)
            result.difference = first_difference(result.shortest, pages)[1]
    return result


def to_text(result: FuzzResult, seed: int) -> str:
    """Return what a run found, in words."""
    lines = [f"kernel {result.release}, seed {seed}: {result.calls} calls"]
    for name in sorted(result.avoided):
        since, what = RELEASE_DIFFERENCES[name]
        lines.append(
            f"  not made {result.avoided[name]} times: {name} (since {since[0]}.{since[1]}: {what})"
        )
    for name in sorted(result.applied):
        since, what = RELEASE_DIFFERENCES[name]
        lines.append(
            f"  decided {result.applied[name]} times: {name} (since {since[0]}.{since[1]}: {what})"
        )
    if not result.difference:
        lines.append("  every result and every mapping, with its flags, equal after every call")
        return "\n".join(lines)
    lines.append(f"  DIFFERENT after {len(result.shortest)} calls:")
    lines += [f"    {op}({', '.join(hex(v) for v in args)})" for op, args in result.shortest]
    lines.append(f"  {result.difference}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the fuzz from the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mmcore.report.vmafuzz",
        description="Random calls that change an address space, on this kernel and on the model.",
    )
    parser.add_argument("--seed", type=int, default=1, help="first seed (1)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds (1)")
    parser.add_argument(
        "--steps", type=int, default=1000, help="calls per seed, up to 20000 (1000)"
    )
    parser.add_argument("--pages", type=int, default=64, help="pages of the window, 8 to 4096 (64)")
    args = parser.parse_args(argv)
    if not (1 <= args.steps <= 20000 and 8 <= args.pages <= 4096 and 1 <= args.seeds <= 10000):
        parser.error(
            "--steps goes from 1 to 20000, --pages from 8 to 4096, --seeds from 1 to 10000"
        )
    why = unsupported()
    if why:
        print(f"vmafuzz: {why}", file=sys.stderr)
        return 2
    status = 0
    for seed in range(args.seed, args.seed + args.seeds):
        result = fuzz(seed, args.steps, args.pages)
        print(to_text(result, seed), flush=True)
        status |= bool(result.difference)
    return status


if __name__ == "__main__":
    sys.exit(main())
