"""What the figures of chapter 5 share: mappings as a bar, their names, and small programs to act on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mmcore import boot
from mmcore.config import PAGE_SHIFT, PAGE_SIZE, Config
from mmcore.kernel.fork import TaskStruct, spawn
from mmcore.machine import Machine
from mmcore.mm.mm import VM_READ, VM_WRITE, AnonVma, MmStruct, VmAreaStruct, vm_flags_str
from mmcore.proc import task_mmu
from mmcore.viz import svg

__all__ = [
    "BASE",
    "Letters",
    "bar",
    "tag",
    "errno_text",
    "perms",
    "plural",
    "small_task",
    "vma_rows",
]

#: Where the figures map: far from everything, and round.
BASE = 0x1000_0000_0000
ERRNO = {1: "EPERM", 11: "EAGAIN", 12: "ENOMEM", 13: "EACCES", 14: "EFAULT", 16: "EBUSY", 17: "EEXIST", 19: "ENODEV",
         22: "EINVAL", 75: "EOVERFLOW"}  # fmt: skip


def plural(n: int, word: str) -> str:
    """Return ``1 page`` or ``2 pages``."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def errno_text(result: int) -> str:
    """Return what a call answered: the name of the error, or ``0``."""
    return ERRNO.get(-result, str(-result)) if result < 0 else "0"


def tag(x: float, y: float, words: str, anchor: str = "start", *, ink: str = "ink", on: str | None = None, bold: bool = False) -> str:  # fmt: skip
    """Return a small line of text."""
    return svg.text(x, y, words, size=svg.SMALL, anchor=anchor, ink=ink, on=on, bold=bold)


def small_task(pages: int = 4096, **config: Any) -> TaskStruct:
    """Return a process with nothing mapped, on a machine with one zone of @pages and small pages only."""
    m = Machine(config=Config(**config))
    boot.make_bare_zone(m, pages, 0, "Normal", True)
    m.transparent_hugepage_enabled = "never"
    return spawn(m, "program")


class Letters:
    """Names for objects in the order in which they are first seen: A, B, C."""

    def __init__(self) -> None:
        self._names: list[Any] = []

    def of(self, thing: Any) -> str:
        """Return the letter of @thing; "" for None."""
        if thing is None:
            return ""
        for i, known in enumerate(self._names):
            if known is thing:
                return chr(65 + i % 26)
        self._names.append(thing)
        return chr(65 + (len(self._names) - 1) % 26)


def perms(vma: VmAreaStruct) -> str:
    """Return the rights of a mapping as two letters."""
    return ("r" if vma.vm_flags & VM_READ else "-") + ("w" if vma.vm_flags & VM_WRITE else "-")


def _tags(vma: VmAreaStruct, letters: Letters) -> str:
    """Return what stands under a mapping: its anon_vma."""
    anon: AnonVma | None = vma.anon_vma
    return letters.of(anon)


def bar(
    mm: MmStruct,
    pages: int,
    letters: Letters,
    *,
    title: str,
    y: float,
    start: int = BASE,
    focus: tuple[int, int] | None = None,
    present: Callable[[int], bool] | None = None,
    new: Sequence[VmAreaStruct] = (),
) -> svg.Part:
    """Return the mappings of a window as a strip of pages, with the rights inside and the anon_vma below.

    :param focus: the pages that are discussed, first and number
    :param present: tells whether the page at an address has been touched: its cell gets a dot
    :param new: mappings with a thick outline
    """
    blocks = []
    notes: list[tuple[float, str]] = []
    w = svg.WIDTH / pages
    for vma in mm.mm_mt.range(start, start + (pages << PAGE_SHIFT)):
        first, last = (vma.vm_start - start) >> PAGE_SHIFT, (vma.vm_end - start) >> PAGE_SHIFT
        kind = "file" if vma.vm_file is not None else "anon"
        lit = any(vma is n for n in new)
        blocks.append(svg.Block(first, kind=kind, nr=last - first, label=perms(vma), focus=lit))
        if tag := _tags(vma, letters):
            notes.append(((first + last) / 2 * w, tag))
    top = y + 23
    part = svg.page_strip(blocks, nr_pages=pages, y=top, ticks=range(0, pages + 1, 2))
    items = [svg.text(0, y + svg.SMALL, title, size=svg.SMALL, ink="muted"), *part.items]
    if present is not None:
        for i in range(pages):
            if present(start + (i << PAGE_SHIFT)):
                items.append(svg.circle((i + 0.5) * w, top + 21.5, 2.2, "ink"))
    bottom = part.bottom
    if notes:
        items += [
            svg.text(x, bottom + svg.SMALL, t, size=svg.SMALL, anchor="middle", bold=True)
            for x, t in notes
        ]
        bottom += svg.SMALL * 1.4
    if focus is not None:
        x0, x1 = focus[0] * w, (focus[0] + focus[1]) * w
        items.append(svg.line(x0 + 1, top - 3.5, x1 - 1, top - 3.5, "accent", width=3))
    return svg.Part(items, 0, y, svg.WIDTH, bottom - y)


def vma_rows(mm: MmStruct, letters: Letters, start: int = BASE) -> list[list[str]]:
    """Return one row for each mapping: pages, rights, flags that matter, anon_vma."""
    rows = []
    for vma in mm.mm_mt:
        s, e, rights, offset = task_mmu.map_fields(vma)
        flags = [
            w
            for w in vm_flags_str(vma.vm_flags).split()
            if w in ("ac", "lo", "nh", "hg", "dc", "wf", "sl", "gd", "nr", "io", "rr", "sr", "dd")
        ]
        rows.append(
            [
                f"{s:x}-{e:x}",
                rights,
                f"{offset:08x}",
                " ".join(flags),
                letters.of(vma.anon_vma) or "-",
            ]
        )
    return rows


def pages_between(a: int, b: int) -> int:
    """Return how many pages lie between two addresses."""
    return (b - a) // PAGE_SIZE
