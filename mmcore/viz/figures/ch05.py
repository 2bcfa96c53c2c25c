"""The explorables of chapter 5, userland memory: mappings, where they go, how they merge and split, heap and stack.

Every frame is drawn from the state of the engine at that moment, or from a recording; nothing here decides. The
figures about fork are in `ch05_fork`, those about promises and malloc in `ch05_malloc`.
"""

from __future__ import annotations

import itertools
import random
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86.fault import touch
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import ENOMEM, KernelBug
from mmcore.fs import exec as exec_
from mmcore.kernel.fork import kernel_clone, spawn, switch_to
from mmcore.lib.maple_tree import MAPLE_ARANGE64_SLOTS, MAPLE_RANGE64_SLOTS, MapleNode
from mmcore.machine import Machine
from mmcore.mm import filemap, madvise, mlock, mmap, mprotect, mremap, mseal, util
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    VM_GROWSDOWN,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_READ,
    VM_SOFTDIRTY,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    VmOperationsStruct,
    mmap_write_lock,
    mmap_write_unlock,
    vm_flags_str,
    vma_pages,
)
from mmcore.proc import task_mmu
from mmcore.viz import svg
from mmcore.viz.explorable import (
    Actions,
    Bool,
    Choice,
    Frame,
    Int,
    ParamError,
    Seed,
    explorable,
)
from mmcore.viz.figures import ch05_fork, ch05_malloc
from mmcore.viz.figures.ch05_bar import (
    BASE,
    Letters,
    bar,
    errno_text,
    plural,
    small_task,
    tag,
    vma_rows,
)

__all__ = ["ch05_fork", "ch05_malloc", "layout", "maps", "merge", "place", "stack", "tree"]

PG = PAGE_SIZE
RW = mmap.PROT_READ | mmap.PROT_WRITE
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
FIXED = PRIVATE | mmap.MAP_FIXED
KIB, MIB = 1 << 10, 1 << 20


def _plain(caption: str) -> str:
    return re.sub(r"[*`]", "", caption)


def _present(mm: MmStruct) -> Callable[[int], bool]:
    def present(address: int) -> bool:
        entry, level = pg.lookup_address(mm, address)
        return entry is not None and level == 1 and pg.pte_present(entry[0][entry[1]])

    return present


# ---- ch05.merge: every case of merging and splitting ---------------------------------------------

OPS = {
    "tour": "all cases, one after the other",
    "new": "a new range is mapped in between",
    "whole": "mprotect() of the whole mapping",
    "left": "mprotect() of its left half",
    "right": "mprotect() of its right half",
    "middle": "mprotect() of its middle",
}
NEIGHBOURS = {
    "alike": "like what the range becomes",
    "none": "a hole",
    "flags": "other flags (MADV_NOHUGEPAGE)",
    "anon": "alike, and touched",
    "forked": "alike, touched, in a child after fork",
    "policy": "another memory policy",
    "file": "a file",
    "close": "alike, but with a close method",
    "special": "a device's (VM_IO)",
}
#: The cases of the tour: operation, left neighbour, right neighbour, whether the changed mapping was written, name.
CASES = (
    ("new", "alike", "alike", False, "new, both sides"),
    ("new", "alike", "none", False, "new, after the previous"),
    ("new", "none", "alike", False, "new, before the next"),
    ("new", "none", "none", False, "new, alone"),
    ("new", "anon", "anon", False, "new, between strangers"),
    ("new", "alike", "close", False, "new, before one that must not go"),
    ("new", "forked", "none", False, "new, after a child of fork()"),
    ("whole", "alike", "alike", False, "changed whole, both sides"),
    ("whole", "alike", "flags", False, "changed whole, left"),
    ("whole", "flags", "alike", False, "changed whole, right"),
    ("left", "alike", "alike", False, "left part"),
    ("right", "alike", "alike", False, "right part"),
    ("left", "flags", "none", False, "left part, split"),
    ("right", "none", "flags", False, "right part, split"),
    ("middle", "alike", "alike", False, "middle, split twice"),
    ("whole", "flags", "flags", False, "changed whole, nobody"),
    ("whole", "alike", "alike", True, "changed and touched, neighbours not"),
    ("whole", "anon", "anon", True, "changed, neighbours touched apart"),
)
_WINDOW = 12
_SPAN = {"new": (4, 4), "whole": (4, 4), "left": (4, 2), "right": (6, 2), "middle": (5, 2)}


def _neighbour(mm: MmStruct, first: int, kind: str) -> None:
    """Map four pages that are as @kind says."""
    if kind == "none":
        return
    start = BASE + first * PG
    file = (
        filemap.File(filemap.AddressSpace(i_size=4 * PG, name="file")) if kind == "file" else None
    )
    flags = FIXED if file is None else mmap.MAP_PRIVATE | mmap.MAP_FIXED
    mmap.do_mmap(mm, file, start, 4 * PG, RW, flags)
    vma = vma_.vma_lookup(mm, start)
    assert vma is not None
    if kind == "flags":
        madvise.sys_madvise(mm, start, 4 * PG, madvise.MADV_NOHUGEPAGE)
    elif kind in ("anon", "forked"):
        assert mm.machine is not None
        touch(mm.machine, start, "w")
    elif kind == "policy":
        vma.vm_policy = "MPOL_BIND"
    elif kind == "close":
        vma.vm_ops = VmOperationsStruct(close=lambda v: None, name="with close")
    elif kind == "special":
        vma.vm_flags |= 0x4000  # VM_IO, as a driver's ->mmap would


def _questions(vmg: vma_.VmaMergeStruct, right: bool) -> tuple[list[tuple[str, str]], str]:
    """Return the questions about one neighbour with their answers, and the first that says no ("" if none does)."""
    side = vmg.next if right else vmg.prev
    edge = vmg.end if right else vmg.start
    if side is None or (side.vm_start if right else side.vm_end) != edge:
        inside = vmg.vma is not None and (
            vmg.end < vmg.vma.vm_end if right else vmg.start > vmg.vma.vm_start
        )
        return [], "the part does not reach it" if inside else "no neighbour"
    pglen = (vmg.end - vmg.start) >> PAGE_SHIFT
    offset = (
        side.vm_pgoff == vmg.pgoff + pglen
        if right
        else side.vm_pgoff + vma_pages(side) == vmg.pgoff
    )
    asked = [
        ("policy", vmg.policy == side.vm_policy),
        ("flags", not (side.vm_flags ^ vmg.flags) & ~VM_SOFTDIRTY),
        ("file", side.vm_file is vmg.file),
        ("anon_vma", vma_.is_mergeable_anon_vma(vmg.anon_vma, side.anon_vma, side)),
        ("offset", offset),
    ]
    decided = (vma_.can_vma_merge_before if right else vma_.can_vma_merge_after)(vmg)
    if decided != all(ok for _, ok in asked):
        raise KernelBug(f"the questions do not give what {vmg!r} decides")
    failed = next((name for name, ok in asked if not ok), "")
    return [(name, "yes" if ok else "no") for name, ok in asked], failed


def _changed(mm: MmStruct, touched: bool) -> None:
    """Map the four pages whose protection changes: readable, and written before if @touched."""
    start, readable = BASE + 4 * PG, mmap.PROT_READ
    if touched:  # executable as well: else it would be one with the neighbours before it is written
        mmap.do_mmap(mm, None, start, 4 * PG, RW | mmap.PROT_EXEC, FIXED)
        assert mm.machine is not None
        touch(mm.machine, start, "w")
        mprotect.sys_mprotect(mm, start, 4 * PG, readable)
    else:
        mmap.do_mmap(mm, None, start, 4 * PG, readable, FIXED)


def merge_case(op: str, left: str, right: str, touched: bool = False) -> dict[str, Any]:
    """Return what a case looks like before and after, why, and what the engine did."""
    task = small_task()
    mm = task.mm
    assert mm is not None
    letters = Letters()
    _neighbour(mm, 0, left)
    _neighbour(mm, 8, right)
    if op != "new":
        _changed(mm, touched)
    first, length = _SPAN[op]
    start, end = BASE + first * PG, BASE + (first + length) * PG
    if "forked" in (left, right):  # look at the child's mappings
        child = kernel_clone(task)
        assert not isinstance(child, int)
        switch_to(task.machine, child)
        assert child.mm is not None
        mm = child.mm
    before = bar(
        mm, _WINDOW, letters, title="before", y=0, focus=(first, length), present=_present(mm)
    )
    vmg = _the_merge(mm, op, start, end)
    asked = {"left": _questions(vmg, False), "right": _questions(vmg, True)}
    fits = [bool(asked[side][0]) and not asked[side][1] for side in ("left", "right")]
    each_other: bool | None = None
    if all(fits) and vmg.prev is not None and vmg.next is not None:
        each_other = vma_.are_anon_vmas_compatible(vmg.prev, vmg.next)
    m = mm.machine
    assert m is not None
    with m.trace.record("model:vma_merge", "model:vma_split") as log:
        if op == "new":
            mmap.do_mmap(mm, None, start, end - start, RW, FIXED)
        else:
            mprotect.sys_mprotect(mm, start, end - start, RW)
    merged = next((e.fields["merged"] for e in log if "merged" in e.fields), "none")
    splits = sum("addr" in e.fields for e in log)
    vma_.validate_mm(mm)
    after = bar(
        mm, _WINDOW, letters, title="after", y=0, focus=(first, length), present=_present(mm)
    )
    ranges = [
        ((v.vm_start - BASE) >> PAGE_SHIFT, (v.vm_end - BASE) >> PAGE_SHIFT) for v in mm.mm_mt
    ]
    return {"before": before, "after": after, "asked": asked, "merged": merged, "splits": splits, "ranges": ranges, "op": op, "each_other": each_other}  # fmt: skip


def _the_merge(mm: MmStruct, op: str, start: int, end: int) -> vma_.VmaMergeStruct:
    """Return the merge as the kernel sets it up for this operation, to ask the questions beforehand."""
    flags = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | 0x100000
    if op == "new":
        following, prev = vma_.find_vma_prev(mm, start)
        vmg = vma_.VmaMergeStruct(mm, start, end, flags, start >> PAGE_SHIFT)
        vmg.next, vmg.prev = following, prev
        return vmg
    vma = vma_.vma_lookup(mm, start)
    assert vma is not None
    prev = mm.mm_mt.prev(vma.vm_start)
    vmg = vma_.vmg_vma_state(prev, vma, start, end)
    vmg.flags = vma.vm_flags | VM_WRITE | 0x100000
    vmg.next = vma_.vma_lookup(mm, vma.vm_end)
    return vmg


def _shifted(part: svg.Part, y: float) -> str:
    """Return a part moved down by @y."""
    return f'<g transform="translate(0 {svg.num(y)})">{"".join(part.items)}</g>'


def _merge_drawing(case: dict[str, Any]) -> svg.Drawing:
    d = svg.Drawing()
    d.add(case["before"])
    rows = []
    for side in ("left", "right"):
        asked, failed = case["asked"][side]
        answers = {name: answer for name, answer in asked}
        row: list[Any] = [side]
        for name in ("policy", "flags", "file", "anon_vma", "offset"):
            answer = answers.get(name, "")
            row.append(
                svg.Cell(answer, bold=answer == "no", ink="wrong" if answer == "no" else "ink")
            )
        row.append(failed if not asked else f"no: {failed}" if failed else "fits")
        rows.append(row)
    if case["each_other"] is not None:
        word = "fit each other" if case["each_other"] else "do not fit each other: anon_vma"
        rows.append(
            [
                "both",
                "",
                "",
                "",
                svg.Cell(
                    "yes" if case["each_other"] else "no",
                    bold=not case["each_other"],
                    ink="ink" if case["each_other"] else "wrong",
                ),
                "",
                word,
            ]
        )
    d.add(
        svg.table(
            ["side", "policy", "flags", "file", "anon_vma", "offset", "together"],
            rows,
            widths=[50, 60, 58, 52, 84, 64, 192],
            y=d.bottom + 10,
        )
    )
    y = d.bottom + 14
    d.add(_shifted(case["after"], y))
    d.bottom = y + case["after"].bottom
    return d


_DID = {
    "both": "both neighbours and the range become one",
    "left": "the previous mapping takes the range in",
    "right": "the next mapping takes the range in",
    "none": "no neighbour takes the range in",
}


def _merge_caption(case: dict[str, Any], what: str) -> str:
    merged, splits = case["merged"], case["splits"]
    now = ", ".join(f"{a}–{b - 1}" if b - a > 1 else str(a) for a, b in case["ranges"])
    did = _DID[merged]
    if case["op"] == "new" and merged == "none":
        did = "no neighbour takes the range in, it becomes a mapping of its own"
    elif splits:
        did += f"; the mapping is split {'once' if splits == 1 else 'twice'}"
    elif merged == "none":
        did += ", and nothing has to be split"
    why = [
        f"{side}: {failed}" for side, (asked, failed) in case["asked"].items() if asked and failed
    ]
    if case["each_other"] is False:
        why.append("left and right have different anon_vmas")
    elif case["each_other"] and merged != "both":
        why.append("one that would be removed has a close method")
    reason = f" What kept them apart: {'; '.join(why)}." if why else ""
    return f"**{what}: {did}.** Mappings now: pages {now}.{reason}"


@explorable(
    "ch05.merge",
    title="Merge and split, every case",
    key=("new, both sides", "new, between strangers", "left part", "middle, split twice"),
    help="Step through the cases; or choose one and make a neighbour differ.",
    params=dict(
        op=Choice("tour", OPS, label="what happens"),
        left=Choice("alike", NEIGHBOURS, label="left neighbour", help="not used by the tour"),
        right=Choice("alike", NEIGHBOURS, label="right neighbour", help="not used by the tour"),
        touched=Bool(False, label="the changed mapping was written before", help="not used by the tour"),
    ),
)  # fmt: skip
def merge(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield one frame for each case."""
    cases = CASES if p.op == "tour" else ((p.op, p.left, p.right, p.touched, OPS[p.op]),)
    for op, left, right, touched, name in cases:
        case = merge_case(op, left, right, touched)
        text = _merge_caption(case, name if "(" in name.split()[0] else name[0].upper() + name[1:])
        rows = {k: case[k] for k in ("merged", "splits", "ranges")}
        rows["failed"] = {side: failed for side, (_, failed) in case["asked"].items()}
        yield Frame(_merge_drawing(case), text, _plain(text), mark=name, data=rows)


# ---- ch05.maps: a script of calls, line by line --------------------------------------------------

_PAGE = Int(0, 0, 15)
_NR = Int(1, 1, 16)
_PROT = Choice("rw", {"rw": "rw", "r": "r", "none": "none", "rx": "rx"})
PROTS = {
    "rw": RW,
    "r": mmap.PROT_READ,
    "none": mmap.PROT_NONE,
    "rx": mmap.PROT_READ | mmap.PROT_EXEC,
}
ADVICE = {
    "dontneed": madvise.MADV_DONTNEED, "nohugepage": madvise.MADV_NOHUGEPAGE, "hugepage": madvise.MADV_HUGEPAGE,
    "dontfork": madvise.MADV_DONTFORK, "dofork": madvise.MADV_DOFORK, "random": madvise.MADV_RANDOM,
    "normal": madvise.MADV_NORMAL,
}  # fmt: skip
_MAPS_SCRIPT = (
    "mmap 0 2 rw; touch 0; mmap 3 2 rw; touch 3; mmap 2 1 rw; mprotect 3 1 r; mprotect 3 1 rw; mmap 6 4 rw; "
    "mprotect 7 2 r; touch 6; mprotect 7 2 rw; madvise 8 1 dontfork; munmap 1 2; mremap 3 2 12"
)


class _Script:
    """A process with a window of 16 pages, and the calls of the script."""

    def __init__(self, limit: int) -> None:
        self.task = small_task()
        assert self.task.mm is not None
        self.mm = self.task.mm
        self.mm.sys.sysctl_max_map_count = limit
        self.letters = Letters()

    def do(self, verb: str, *args: Any) -> tuple[str, int]:
        """Carry out one action; return it as a call, and its result."""
        at = BASE + args[0] * PG
        if verb == "touch":
            result = touch(self.task.machine, at, "w")
            ok = type(result).__name__ == "Translation"
            return f"write to page {args[0]}", 0 if ok else -14
        size = args[1] * PG
        pages = f"page {args[0]}" if args[1] == 1 else f"pages {args[0]}–{args[0] + args[1] - 1}"
        mm = self.mm
        if verb == "mmap":
            got = mmap.do_mmap(mm, None, at, size, PROTS[args[2]], FIXED)
            return f"mmap({pages}, {args[2]})", min(got, 0)
        if verb == "munmap":
            return f"munmap({pages})", mmap.do_munmap(mm, at, size)
        if verb == "mprotect":
            return f"mprotect({pages}, {args[2]})", mprotect.sys_mprotect(
                mm, at, size, PROTS[args[2]]
            )
        if verb == "madvise":
            return f"madvise({pages}, {args[2]})", madvise.sys_madvise(
                mm, at, size, ADVICE[args[2]]
            )
        if verb == "mlock":
            return f"mlock({pages})", mlock.sys_mlock(mm, at, size)
        if verb == "mseal":
            return f"mseal({pages})", mseal.sys_mseal(mm, at, size)
        to = BASE + args[2] * PG
        flags = mremap.MREMAP_MAYMOVE | mremap.MREMAP_FIXED
        got = mremap.sys_mremap(mm, at, size, size, flags, to)
        return f"mremap({pages}, to page {args[2]})", min(got, 0)

    def apart(self) -> list[str]:
        """Return, for each pair of mappings that touch, why they are two."""
        out = []
        vmas = list(self.mm.mm_mt)
        for a, b in itertools.pairwise(vmas):
            if a.vm_end == b.vm_start:
                page = (b.vm_start - BASE) >> PAGE_SHIFT
                why = vma_.merge_obstacle(a, b)
                out.append(f"at page {page}: {_words(why, a, b)}")
        return out


def _words(why: str, a: VmAreaStruct, b: VmAreaStruct) -> str:
    """Return an obstacle in the words of the text, with the flags by name."""
    if why.startswith("flags"):
        differ = (a.vm_flags ^ b.vm_flags) & ~VM_SOFTDIRTY
        return f"flags differ ({vm_flags_str(differ)})"
    return why or "nothing, but no call has tried to merge them"


def _maps_drawing(s: _Script, call: str, result: int, focus: tuple[int, int] | None) -> svg.Drawing:
    d = svg.Drawing()
    d.add(
        svg.paragraph(f"{call} = {errno_text(result)}" if call else "nothing is mapped", bold=True)
    )
    d.add(
        bar(s.mm, 16, s.letters, title="mappings, rights inside; a dot for each page that is present; below, the anon_vma",
            y=d.bottom + 4, focus=focus, present=_present(s.mm))
    )  # fmt: skip
    rows = vma_rows(s.mm, s.letters)
    d.add(
        svg.table(["maps", "", "offset", "flags", "anon_vma"], [r for r in rows] or [["", "", "", "", ""]],
                  mono={0, 1, 2}, widths=[220, 56, 90, 104, 90], y=d.bottom + 8)
    )  # fmt: skip
    return d


def _focus(verb: str, args: Sequence[Any]) -> tuple[int, int]:
    if verb == "touch":
        return args[0], 1
    if verb == "mremap":
        return args[2], args[1]
    return args[0], args[1]


@explorable(
    "ch05.maps",
    title="A script of calls, line by line",
    key=("mmap 5", "mprotect 6", "mprotect 11", "mremap 14"),
    help="Pages 0 to 15; change the script and predict the lines before you step.",
    params=dict(
        script=Actions(
            _MAPS_SCRIPT,
            verbs={
                "mmap": (_PAGE, _NR, _PROT), "munmap": (_PAGE, _NR), "mprotect": (_PAGE, _NR, _PROT), "touch": _PAGE,
                "madvise": (_PAGE, _NR, Choice("dontneed", tuple(ADVICE))), "mlock": (_PAGE, _NR), "mseal": (_PAGE, _NR),
                "mremap": (_PAGE, _NR, _PAGE),
            },
            help="for example mmap 0 4 rw; touch 1; mprotect 1 1 r; mremap 2 1 9",
        ),
        limit=Int(65530, 1, 65530, label="vm.max_map_count"),
    ),
)  # fmt: skip
def maps(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the mappings after each action."""
    s = _Script(p.limit)
    yield Frame(_maps_drawing(s, "", 0, None), "**An empty window of 16 pages.**", "No mapping in the window of 16 pages.", mark="start")  # fmt: skip
    for i, (verb, *args) in enumerate(p.script, 1):
        first, length = _focus(verb, args)
        if first + length > 16 or (verb == "mremap" and args[0] + args[1] > 16):
            raise ParamError("script", f"action {i} reaches beyond page 15, the last of the window")
        call, result = s.do(verb, *args)
        vma_.validate_mm(s.mm)
        count = s.mm.map_count
        apart = s.apart()
        why = f" Neighbours that stay apart, {'; '.join(apart)}." if apart else ""
        lines = plural(count, "line")
        answer = "" if not result else f" It answers {errno_text(result)}."
        text = f"**{call}: {lines} in `maps`.**{answer}{why}"
        data = {
            "call": call, "result": result, "map_count": count, "total_vm": s.mm.total_vm,
            "ranges": [((v.vm_start - BASE) >> PAGE_SHIFT, (v.vm_end - BASE) >> PAGE_SHIFT) for v in s.mm.mm_mt],
            "apart": apart,
        }  # fmt: skip
        yield Frame(
            _maps_drawing(s, call, result, (first, length)),
            text,
            _plain(text),
            mark=f"{verb} {i}",
            data=data,
        )


# ---- ch05.place: where the next mapping goes -----------------------------------------------------

_PLACE_SCRIPT = "map 4; map 8; map 4; unmap 2; map 4; map 2048; map 2052; low 4; hint 64; stack 132; map 4; map 4"


class _Placer:
    """A process whose mappings begin at mmap_base, and the requests of the script."""

    def __init__(self) -> None:
        self.task = small_task()
        assert self.task.mm is not None
        self.mm = self.task.mm
        #: Every request: label, address, bytes; in the order of the script.
        self.made: list[tuple[str, int, int]] = []

    def request(self, verb: str, n: int) -> tuple[str, int, dict[str, Any]]:
        m = self.mm.machine
        assert m is not None
        size = n << 10
        with m.trace.record("mmap:vm_unmapped_area") as log:
            if verb == "unmap":
                if n > len(self.made):
                    raise ParamError(
                        "script", f"unmap {n}: only {plural(len(self.made), 'mapping')} made so far"
                    )
                _label, at, size = self.made[n - 1]
                return f"munmap of number {n}", mmap.do_munmap(self.mm, at, size), {}
            if verb == "stack":
                got = mmap.do_mmap(self.mm, None, 0, size, RW, PRIVATE | mmap.MAP_GROWSDOWN)
                call = f"mmap(NULL, {n} KiB, MAP_GROWSDOWN)"
            elif verb == "hint":
                got = mmap.do_mmap(self.mm, None, BASE + 0x123, size, RW, PRIVATE)
                call = f"mmap({BASE + 0x123:#x}, {n} KiB)"
            else:
                extra = mmap.MAP_32BIT if verb == "low" else 0
                got = mmap.do_mmap(self.mm, None, 0, size, RW, PRIVATE | extra)
                call = f"mmap(NULL, {n} KiB{', MAP_32BIT' if extra else ''})"
        searches = [e.fields for e in log]
        self.made.append((f"{len(self.made) + 1}: {n} KiB", got, size))
        return call, got, searches[0] if searches else {}


def _size_text(n: int) -> str:
    return f"{n >> 10} KiB" if n < MIB or n % MIB else f"{n >> 20} MiB"


def _place_rows(p: _Placer, chosen: int) -> list[list[Any]]:
    """Return mappings and holes from mmap_base down, and what lies far below."""
    mm = p.mm
    rows: list[list[Any]] = []
    upper = mm.mmap_base
    for vma in reversed(list(mm.mm_mt)):
        if vma.vm_end < upper:
            size = upper - vma.vm_end
            rows.append([f"{vma.vm_end:x}", _size_text(size) if size < 1 << 30 else f"{size / (1 << 40):.1f} TiB", svg.Cell("hole", ink="muted")])  # fmt: skip
        lit = vma.vm_start <= chosen < vma.vm_end
        name = "stack (grows down)" if vma.vm_flags & VM_GROWSDOWN else "mapping"
        rows.append([svg.Cell(f"{vma.vm_start:x}", bold=lit), _size_text(vma.vm_end - vma.vm_start), svg.Cell(name, bold=lit)])  # fmt: skip
        upper = vma.vm_start
    return rows


def _place_drawing(p: _Placer, call: str, got: int, search: dict[str, Any]) -> svg.Drawing:
    d = svg.Drawing()
    d.add(svg.paragraph(f"{call} = {hex(got) if got > 0 else errno_text(got)}" if call else "mmap_base, and nothing below it", bold=True))  # fmt: skip
    rows = _place_rows(p, got)
    lit = {i for i, r in enumerate(rows) if isinstance(r[0], svg.Cell) and r[0].bold}
    d.add(
        svg.table([f"from mmap_base {p.mm.mmap_base:x} down", "size", "what"], rows or [["", "", "hole"]], mono={0},
                  right={1}, lit=lit, widths=[250, 130, 180], y=d.bottom + 6)
    )  # fmt: skip
    if search:
        way = "top-down" if search["flags"] & 1 else "bottom-up"
        words = (
            f"vm_unmapped_area: {way}, length {_size_text(search['length'])}, between {search['low_limit']:#x} and "
            f"{search['high_limit']:#x}, found {search['addr']:#x}"
        )
        d.add(svg.paragraph(words, y=d.bottom + 8, size=svg.SMALL, ink="muted"))
    return d


def _place_caption(call: str, got: int, size: int, search: dict[str, Any], verb: str, stack_above: bool) -> str:  # fmt: skip
    if verb == "unmap":
        return f"**{call}: a hole.** The next request that fits will take its upper end, if no higher hole does."
    if got < 0:
        return f"**{call} answers {errno_text(got)}.**"
    if verb == "hint" and search:
        how = "What the hint names is taken: it is forgotten, and the search is as without it."
    elif verb == "hint":
        how = "The hint was rounded down to a page and is free: no search."
    elif verb == "stack":
        how = "A stack: the 256 pages below it are its guard gap from now on."
    elif verb == "low":
        how = "From the bottom up, from 1 GiB."
    elif search and search["length"] != size:
        how = f"A multiple of 2 MiB: the search was for 2 MiB more, and the aligned part of `{search['addr']:x}` was taken."
    elif stack_above:
        how = "The highest hole is below a stack: 256 pages are left free for its growth."
    else:
        how = "The upper end of the highest hole that is large enough."
    return f"**{call} goes to `{got:x}`.** {how}"


_KB = Int(4, 4, 1 << 16, step=4)


@explorable(
    "ch05.place",
    title="Where the next mapping goes",
    key=("map 5", "map 6", "map 7", "map 12"),
    help="Sizes in KiB: map 4; map 2048; unmap 1 removes the first one made; low is MAP_32BIT, stack a MAP_GROWSDOWN mapping.",
    params=dict(
        script=Actions(
            _PLACE_SCRIPT,
            verbs={"map": _KB, "unmap": Int(1, 1, 99), "low": _KB, "hint": _KB, "stack": _KB},
        ),
    ),
)  # fmt: skip
def place(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the address of each request."""
    s = _Placer()
    base = f"{s.mm.mmap_base:x}"
    yield Frame(_place_drawing(s, "", -1, {}), f"**The search begins at `mmap_base`, `{base}`.** Addresses are not randomised; the stack limit is 8 MiB.",
                f"Nothing is mapped below mmap_base, {base}.", mark="start")  # fmt: skip
    for i, (verb, n) in enumerate(p.script, 1):
        call, got, search = s.request(verb, n)
        above = vma_.find_vma(s.mm, got + (n << 10)) if got >= 0 else None
        gap = (
            above is not None and above.vm_flags & VM_GROWSDOWN and above.vm_start - got - (n << 10)
        )
        text = _place_caption(call, got, n << 10, search, verb, gap == s.mm.sys.stack_guard_gap)
        data = {"call": call, "result": got, "map_count": s.mm.map_count, "search": dict(search)}
        yield Frame(
            _place_drawing(s, call, got, search), text, _plain(text), mark=f"{verb} {i}", data=data
        )


# ---- ch05.tree: the maple tree -------------------------------------------------------------------


def _tree_mm(count: int, seed: int) -> MmStruct:
    """Return an address space with @count mappings and holes of random sizes below mmap_base."""
    task = small_task()
    assert task.mm is not None
    rng = random.Random(seed)
    top = BASE + (1 << 20) * PG
    for i in range(count):
        size = rng.choice((1, 1, 2, 3, 4, 8))
        prot = RW if i % 2 else mmap.PROT_READ
        mmap.do_mmap(task.mm, None, top - size * PG, size * PG, prot, FIXED)
        top -= (size + rng.choice((0, 1, 2, 4, 7, 12, 20))) * PG
    return task.mm


def _gap_of(node: MapleNode, i: int, lo: int) -> int:
    """Return the largest hole in slot @i of @node, whose first index is @lo, in bytes."""
    if node.gaps is not None:
        return node.gaps[i]
    first = node.pivots[i - 1] + 1 if i else lo
    return 0 if node.slots[i] is not None else node.pivots[i] - first + 1


def _search_path(node: MapleNode, lo: int, low: int, high: int, size: int, path: list[tuple[MapleNode, int, int]]) -> int:  # fmt: skip
    """Follow the search for the highest hole, noting (node, slot, whether it was enough): its last address or -1."""
    pivots = node.pivots
    i, j = bisect_left(pivots, low), bisect_left(pivots, min(high, pivots[-1]))
    for k in range(j, i - 1, -1):
        first = pivots[k - 1] + 1 if k else lo
        gap = _gap_of(node, k, lo)
        enough = gap >= size
        path.append((node, k, int(enough)))
        if node.gaps is not None:
            if enough:
                found = _search_path(node.slots[k], first, low, high, size, path)
                if found >= 0:
                    return found
        elif node.slots[k] is None:
            a, b = max(first, low), min(pivots[k], high)
            if b - a >= size - 1:
                return b
    return -1


def _tree_row(
    node: MapleNode, lo: int, x: float, y: float, w: float, marks: dict[int, str], name: str
) -> svg.Part:
    """Return one node as its slots: mappings filled, holes with their size in pages where there is room."""
    slots = MAPLE_RANGE64_SLOTS if node.gaps is None else MAPLE_ARANGE64_SLOTS
    cell = w / slots
    items = [svg.text(x, y + svg.SMALL, name, size=svg.SMALL, ink="muted")]
    top = y + svg.SMALL * 1.5
    for i in range(slots):
        cx = x + i * cell
        if i >= len(node.slots):
            items.append(svg.rect(cx, top, cell, 22, stroke="faint", dash="2 2"))
            continue
        gap = _gap_of(node, i, lo)
        leaf_entry = node.gaps is None and node.slots[i] is not None
        fill = "anon" if leaf_entry else "paper"
        if marks.get(i):
            fill = "lit" if not leaf_entry else fill
        strong = marks.get(i) == "taken"
        items.append(svg.rect(cx, top, cell, 22, fill, stroke="ink", width=2.5 if strong else 0.8))
        label = "" if leaf_entry else _pages_text(gap)
        if label and svg.text_width(label, svg.SMALL) <= cell + 1:
            items.append(
                svg.text(
                    cx + cell / 2,
                    top + 15,
                    label,
                    size=svg.SMALL,
                    anchor="middle",
                    on=fill,
                    bold=strong,
                )
            )
    return svg.Part(items, x, y, w, svg.SMALL * 1.5 + 24)


def _pages_text(gap: int) -> str:
    pages = gap >> PAGE_SHIFT
    return "∞" if pages > 1 << 20 else str(pages)


def _leaves(root: MapleNode) -> list[tuple[MapleNode, int]]:
    """Return the leaves below @root with their first index."""
    if root.gaps is None:
        return [(root, 0)]
    out, lo = [], 0
    for child, pivot in zip(root.slots, root.pivots, strict=True):
        out.append((child, lo))
        lo = pivot + 1
    return out


def _tree_drawing(
    mm: MmStruct, path: Sequence[tuple[MapleNode, int, int]], done: bool
) -> svg.Drawing:
    root = mm.mm_mt.root
    d = svg.Drawing()

    def marks(node: MapleNode) -> dict[int, str]:
        out = {k: "seen" for n, k, _ in path if n is node}
        here = [(k, ok) for n, k, ok in path if n is node]
        if here and here[-1][1] and (done or node.gaps is not None):
            out[here[-1][0]] = "taken"
        return out

    if root.gaps is not None:
        d.add(
            _tree_row(
                root,
                0,
                0,
                0,
                svg.WIDTH,
                marks(root),
                "root: the largest hole below each slot, in pages",
            )
        )
    for i, (leaf, lo) in enumerate(_leaves(root)):
        name = f"leaf {i}, from {lo:x}" if lo else f"leaf {i}, from 0"
        d.add(_tree_row(leaf, lo, 0, d.bottom + 8, svg.WIDTH, marks(leaf), name))
    labels = {"anon": "mapping", "paper": "hole, its size in pages", "hole": "unused slot"}
    d.add(svg.legend(["anon", "paper", "hole"], labels=labels, y=d.bottom + 8))
    return d


@explorable(
    "ch05.tree",
    title="The maple tree, and the search for a hole",
    key=("tree", "found"),
    help="More mappings, another hole, another seed.",
    params=dict(
        mappings=Int(24, 1, 60, help="how many there are; one node of the second level holds 10 leaves"),
        wanted=Int(15, 1, 40, unit="pages", label="hole wanted"),
        seed=Seed(3),
    ),
)  # fmt: skip
def tree(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the tree, then the search for the highest hole, slot by slot."""
    mm = _tree_mm(p.mappings, p.seed)
    mt = mm.mm_mt
    if mt.height > 2:
        raise ParamError(
            "mappings", f"{p.mappings} mappings make three levels with this seed; take fewer"
        )
    low, high, size = BASE - (1 << 30), BASE + (1 << 20) * PG - 1, p.wanted * PG
    path: list[tuple[MapleNode, int, int]] = []
    found = _search_path(mt.root, 0, low, high, size, path)
    if found != mt.empty_area_rev(low, high, size):
        raise KernelBug("the figure's path is not the engine's search")
    leaves = len(_leaves(mt.root))
    text = (
        f"**{plural(len(mt), 'mapping')} in {'one leaf' if leaves == 1 else f'{leaves} leaves'}, {mt.height} "
        f"{'level' if mt.height == 1 else 'levels'}.** Holes take slots like mappings. The root knows the largest hole below each of its slots."
    )
    yield Frame(_tree_drawing(mm, [], False), text, _plain(text), mark="tree", data={"height": mt.height, "mappings": len(mt), "leaves": leaves})  # fmt: skip
    for i in range(1, len(path) + 1):
        node, slot, ok = path[i - 1]
        last = i == len(path)
        gap = _pages_text(_gap_of(node, slot, _first_of(mt.root, node)))
        if node.gaps is not None:
            text = f"Slot {slot} of the root: the largest hole below is {gap} pages. {'Large enough: go down.' if ok else 'Too small: on to the left.'}"
            if gap == "∞":
                text += " (What lies above the search's limit counts here.)"
        elif node.slots[slot] is not None:
            text = f"Slot {slot} of the leaf is a mapping. On to the left."
        else:
            text = f"Slot {slot} of the leaf is a hole of {gap} pages. {'It ends the search.' if last else 'Too small: on to the left.'}"
        mark = ""
        if last:
            at = found - size + 1
            text = f"**Found after {plural(i, 'slot')}: the mapping would begin at `{at:x}`.** It lies at the upper end of the hole."
            mark = "found"
        yield Frame(_tree_drawing(mm, path[:i], last), text, _plain(text), mark=mark, data={"slots": i, "found": found if last else None})  # fmt: skip


def _first_of(root: MapleNode, node: MapleNode) -> int:
    return next((lo for leaf, lo in _leaves(root) if leaf is node), 0)


# ---- ch05.stack: growth, limit and guard gap -----------------------------------------------------

STACK_TOP = 0x7FFF_FFFF_F000
_STACK_PAGES = 33
_STACK_KINDS = {
    "none": "no neighbour", "rw": "rw-, anonymous", "prot_none": "PROT_NONE", "stack": "another stack (MAP_GROWSDOWN)",
}  # fmt: skip
_SHOWN = 10 * MIB


class _Stack:
    """A stack of 132 KiB as execve() leaves it, and a neighbour below."""

    def __init__(self, p: SimpleNamespace) -> None:
        self.task = small_task()
        assert self.task.mm is not None
        self.mm = self.task.mm
        self.task.rlim[util.RLIMIT_STACK] = (p.limit << 20, util.RLIM_INFINITY)
        start = STACK_TOP - _STACK_PAGES * PG
        mmap.do_mmap(self.mm, None, start, _STACK_PAGES * PG, RW, FIXED | mmap.MAP_GROWSDOWN)
        touch(self.task.machine, STACK_TOP - 8, "w")
        self.neighbour = 0
        if p.neighbour != "none":
            self.neighbour = start - (p.distance << 10) - 16 * PG
            prot = mmap.PROT_NONE if p.neighbour == "prot_none" else RW
            extra = mmap.MAP_GROWSDOWN if p.neighbour == "stack" else 0
            mmap.do_mmap(self.mm, None, self.neighbour, 16 * PG, prot, FIXED | extra)

    def vma(self) -> VmAreaStruct:
        vma = vma_.vma_lookup(self.mm, STACK_TOP - 8)
        assert vma is not None
        return vma

    def touch(self, kib: int) -> tuple[int, str, int]:
        """Write @kib KiB below the top; return the address, how it ended, and what expand_downwards() answered."""
        address = STACK_TOP - (kib << 10)
        result = touch(self.task.machine, address, "w")
        if type(result).__name__ == "Translation":
            return address, "", 0
        above = vma_.find_vma(self.mm, address)
        error = -14
        if above is not None and above.vm_start > address:
            mmap_write_lock(self.mm)
            error = mmap.expand_downwards(above, address)
            mmap_write_unlock(self.mm)
        return address, str(result), error


def _stack_x(address: int) -> float:
    return svg.WIDTH - (STACK_TOP - address) / _SHOWN * svg.WIDTH


def _stack_bar(s: _Stack, p: SimpleNamespace, address: int, ended: str) -> svg.Part:
    """Return the last 10 MiB of user space to scale: stack, gap, limit, neighbour, and the touch."""
    top, h = 52.0, 44.0
    vma, gap = s.vma(), s.mm.sys.stack_guard_gap
    x, scale = _stack_x(vma.vm_start), svg.WIDTH / _SHOWN

    def middle(at: float, half: float) -> float:
        return min(max(at, half), svg.WIDTH - half)

    items = [
        tag(0, svg.SMALL, "10 MiB below STACK_TOP, to scale; low addresses left", ink="muted"),
        svg.rect(0, top, svg.WIDTH, h, "paper", stroke="faint"),
        svg.rect(_stack_x(vma.vm_start - gap), top, gap * scale, h, stroke="muted", dash="3 3"),
        svg.rect(x, top, svg.WIDTH - x, h, "anon", stroke="ink"),
    ]
    limit = _stack_x(STACK_TOP - (p.limit << 20))
    if limit >= 0:
        items.append(svg.line(limit, top - 8, limit, top + h + 4, "wrong", width=2))
        items.append(
            tag(middle(limit, 32), top - 11, f"limit {p.limit} MiB", "middle", ink="wrong")
        )
    if s.neighbour:
        nx, kind = _stack_x(s.neighbour), "panel" if p.neighbour == "prot_none" else "anon"
        items.append(svg.rect(nx, top, max(16 * PG * scale, 3), h, kind, stroke="ink", width=1.5))
        items.append(tag(middle(nx, 34), top + h + 15, "neighbour", "middle"))
    if address:
        tx, ink = _stack_x(address), "wrong" if ended else "accent"
        items.append(svg.arrow([(tx, top + h + 40), (tx, top + h + 3)], ink, width=2))
        items.append(tag(middle(tx, 24), top + h + 53, "touch", "middle", ink=ink))
    return svg.Part(items, 0, 0, svg.WIDTH, top + h + 58)


def _stack_drawing(s: _Stack, p: SimpleNamespace, address: int, ended: str) -> svg.Drawing:
    vma, gap = s.vma(), s.mm.sys.stack_guard_gap
    rows = [
        ["stack", f"{vma.vm_start:x}-{vma.vm_end:x}", _size_text(vma.vm_end - vma.vm_start)],
        ["guard gap below it", f"{vma.vm_start - gap:x}-{vma.vm_start:x}", _size_text(gap)],
    ]
    if s.neighbour:
        end = s.neighbour + 16 * PG
        away = f"{(vma.vm_start - end) >> 10} KiB away"
        rows.append(["neighbour", f"{s.neighbour:x}-{end:x}", away])
    rows.append(["present", plural(s.mm.rss_stat[1], "page"), plural(s.task.min_flt, "fault")])
    d = svg.Drawing().add(_stack_bar(s, p, address, ended))
    return d.add(svg.table(["", "", ""], rows, mono={1}, widths=[150, 270, 140], y=d.bottom))


_STACK_WHY = {
    -14: "EFAULT: the next mapping above is not a stack", -12: "ENOMEM from `expand_downwards()`", -1: "EPERM: below `mmap_min_addr`",
}  # fmt: skip


def _stack_reason(s: _Stack, address: int, error: int, limit: int) -> str:
    if error != -ENOMEM:
        return _STACK_WHY.get(error, errno_text(error))
    if STACK_TOP - (address & -PG) > limit << 20:
        return "ENOMEM: the stack would be larger than `RLIMIT_STACK`"
    return "ENOMEM: less than 256 pages would remain to an accessible neighbour"


@explorable(
    "ch05.stack",
    title="A stack grows",
    key=("touch 2", "touch 4"),
    help="Touches in KiB below the top of the stack; move the neighbour or make it harmless.",
    params=dict(
        script=Actions("touch 140; touch 3000; touch 4000; touch 5200; touch 9000", verbs={"touch": Int(140, 1, 10 << 10, help="KiB below STACK_TOP")}),
        neighbour=Choice("rw", _STACK_KINDS),
        distance=Int(6000, 0, 9000, step=4, unit="KiB", label="its distance below the stack at the start"),
        limit=Int(8, 1, 64, unit="MiB", label="RLIMIT_STACK"),
    ),
)  # fmt: skip
def stack(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the stack after each touch."""
    s = _Stack(p)
    text = "**A stack of 132 KiB, one page present.** Dashed: the 256 pages that must stay between it and an accessible neighbour."
    yield Frame(_stack_drawing(s, p, 0, ""), text, _plain(text), mark="start")
    for i, (_, kib) in enumerate(p.script, 1):
        before = s.vma().vm_start
        address, ended, error = s.touch(kib)
        grown = before - s.vma().vm_start
        if ended:
            text = f"**A touch {kib:,} KiB below the top: SIGSEGV.** {_stack_reason(s, address, error, p.limit)}."
        elif grown:
            text = f"**A touch {kib:,} KiB below the top: the stack grows by {grown >> 10:,} KiB.** One page is allocated, the one that was touched."
        else:
            text = f"**A touch {kib:,} KiB below the top, inside the stack.** An ordinary fault or none."
        data = {"address": address, "ended": ended, "error": error, "size": STACK_TOP - s.vma().vm_start, "rss": s.mm.rss_stat[1]}  # fmt: skip
        yield Frame(
            _stack_drawing(s, p, address, ended), text, _plain(text), mark=f"touch {i}", data=data
        )


# ---- ch05.layout: what execve() makes ------------------------------------------------------------

PROGRAMS = {"static": exec_.STATIC, "pie": exec_.PIE, "dynamic": exec_.DYNAMIC}


def layout_of(program: str, seed: int, stack_mib: int, legacy: bool, level: int) -> Any:
    """Return a process that has executed a program; seed 0 is no randomisation.

    :param stack_mib: RLIMIT_STACK in MiB; 0 for unlimited
    :param level: kernel.randomize_va_space with another seed
    """
    m = Machine.boot("256M", seed=seed)
    m.paging.randomize_va_space = level if seed else 0
    m.paging.sysctl_legacy_va_layout = int(legacy)
    task = spawn(m, program)
    limit = stack_mib << 20 if stack_mib else util.RLIM_INFINITY
    task.rlim[util.RLIMIT_STACK] = (limit, util.RLIM_INFINITY)
    if error := exec_.do_execve(task, PROGRAMS[program]):
        raise KernelBug(f"execve() gives {error}")
    assert task.mm is not None
    mmap.sys_brk(task.mm, task.mm.brk + 132 * KIB)
    return task


def layout_parts(mm: MmStruct) -> list[tuple[str, int, int, str]]:
    """Return (name, first address, end, kind) of what lies in an address space, from low to high."""
    parts: list[tuple[str, int, int, str]] = []
    for vma in mm.mm_mt:
        name = (
            vma.vm_file.f_path.rpartition("/")[2]
            if vma.vm_file is not None
            else task_mmu.vma_name(vma) or ".bss"
        )
        kind = (
            "file"
            if vma.vm_file is not None
            else "panel" if name in ("[vvar]", "[vdso]") else "anon"
        )
        if parts and parts[-1][0] == name and parts[-1][2] == vma.vm_start:
            parts[-1] = (name, parts[-1][1], vma.vm_end, kind)
        else:
            parts.append((name, vma.vm_start, vma.vm_end, kind))
    return parts


def _far(n: int) -> str:
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if n >= 1 << shift:
            return f"{n / (1 << shift):,.4g} {unit}"
    return f"{n} B"


def _layout_drawing(mm: MmStruct, nxt: int, size: int) -> svg.Drawing:
    parts = [*layout_parts(mm), ("next mmap(NULL, 4 KiB)", nxt, nxt + size, "lit")]
    parts.sort(key=lambda part: part[1])
    d = svg.Drawing()
    y, row, last = 0.0, 24.0, 0
    left = svg.text_width("ffff888000000000", svg.SMALL, mono=True) - 14
    for name, start, end, kind in parts:
        if last and start > last:
            d.add(tag(left + 8, y + 15, f"a hole of {_far(start - last)}", ink="muted"))
            y += 20
        focus = kind == "lit"
        edge = 2 if focus else 0.8
        d.add(svg.text(0, y + 16, f"{start:x}", size=svg.SMALL, mono=True, ink="muted"))
        d.add(svg.rect(left, y + 1, svg.WIDTH - left, row - 2, kind, stroke="ink", width=edge))
        d.add(tag(left + 8, y + 16, name, on=kind, bold=focus))
        d.add(tag(svg.WIDTH - 8, y + 16, _far(end - start), "end", on=kind))
        y, last = y + row, end
    d.bottom = y + 4
    below = _far(exec_.STACK_TOP - mm.mmap_base) + " below STACK_TOP"
    rows = [
        ["mmap_base", f"{mm.mmap_base:x}", below],
        ["start_brk", f"{mm.start_brk:x}", "the heap begins"],
        ["stack's top", f"{max(v.vm_end for v in mm.mm_mt):x}", ""],
    ]
    return d.add(svg.table(["", "", ""], rows, mono={1}, widths=[110, 150, 300], y=d.bottom))


@explorable(
    "ch05.layout",
    title="The layout that execve() makes",
    key=("fixed", "shuffled"),
    help="Another seed is another execve(); a stack limit of 0 is unlimited.",
    params=dict(
        program=Choice("pie", {"static": "static, ET_EXEC", "pie": "PIE with a dynamic linker", "dynamic": "ET_EXEC with a dynamic linker"}),
        seed=Seed(1, label="seed of the randomisation", help="0 shows the fixed layout alone"),
        stack=Int(8, 0, 1 << 20, unit="MiB", label="RLIMIT_STACK", help="0 is unlimited"),
        level=Choice("2", {"1": "1: all but the heap", "2": "2: the heap as well"}, label="kernel.randomize_va_space"),
        legacy=Bool(False, label="vm.legacy_va_layout"),
    ),
)  # fmt: skip
def layout(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the layout without randomisation, with other stack limits, bottom-up, and with randomisation."""
    cases = [("fixed", "nothing randomised", 0, p.stack, p.legacy)]
    if p.stack == 8 and not p.legacy:
        cases.append(("stack 1 GiB", "a stack limit of 1 GiB", 0, 1024, False))
        cases.append(("unlimited", "an unlimited stack", 0, 0, False))
        cases.append(("legacy", "vm.legacy_va_layout = 1", 0, 8, True))
    if p.seed:
        cases.append(("shuffled", f"seed {p.seed}", p.seed, p.stack, p.legacy))
    for mark, how, seed, stack, legacy in cases:
        task = layout_of(p.program, seed, stack, legacy, int(p.level))
        mm = task.mm
        parts = layout_parts(mm)
        nxt = mmap.get_unmapped_area(mm, None, 0, PG, 0, PRIVATE)
        stack_top = max(v.vm_end for v in mm.mm_mt)
        gap = stack_top - mm.mmap_base
        if not how.startswith("vm."):
            how = how[0].upper() + how[1:]
        text = (
            f"**{how}: `mmap_base` is `{mm.mmap_base:x}`, {_far(gap)} below the top of the stack.** "
            f"The heap begins at `{mm.start_brk:x}`; the next mapping goes to `{nxt:x}`."
        )
        alt = (
            _plain(text)
            + " From low to high: "
            + ", ".join(f"{name} at {start:x}" for name, start, _, _ in parts)
            + "."
        )
        data = {
            "mmap_base": mm.mmap_base,
            "start_brk": mm.start_brk,
            "stack_top": stack_top,
            "next": nxt,
            "parts": parts,
        }
        yield Frame(_layout_drawing(mm, nxt, PG), text, alt, mark=mark, data=data)
