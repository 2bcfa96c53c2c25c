"""Figures of chapter 5 about fork: copy-on-write page by page, and the reverse map through generations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86.fault import touch
from mmcore.config import PAGE_SIZE
from mmcore.errors import KernelBug
from mmcore.kernel.fork import TaskStruct, do_exit, kernel_clone, switch_to
from mmcore.mm import gup, mmap, rmap, swap
from mmcore.mm import vma as vma_
from mmcore.mm.mm import VmAreaStruct
from mmcore.mm.mm_types import Page, pfn_to_page
from mmcore.viz import svg
from mmcore.viz.explorable import Actions, Choice, Frame, Int, ParamError, explorable
from mmcore.viz.figures.ch05_bar import BASE, Letters, plural, small_task, tag

__all__ = ["Family", "cow", "forest"]

PG = PAGE_SIZE
NAMES = {"p": "parent", "c": "child", "g": "grandchild", "s": "second child"}


class Family:
    """A parent and what it forks, each with the same few pages at the same addresses."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.parent = small_task()
        self.m = self.parent.machine
        assert self.parent.mm is not None
        self.tasks: dict[str, TaskStruct] = {"p": self.parent}
        self.gone: list[str] = []
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_FIXED
        rw = mmap.PROT_READ | mmap.PROT_WRITE
        mmap.do_mmap(self.parent.mm, None, BASE, pages * PG, rw, flags)
        self.frames: list[int] = []
        self.pins: dict[int, Page] = {}
        self.references: dict[int, Page] = {}

    def task(self, who: str) -> TaskStruct:
        """Return the living task @who; a script that names another is told so."""
        if who not in self.tasks:
            state = "has exited" if who in self.gone else "does not exist yet"
            raise ParamError("script", f"the {NAMES[who]} {state}")
        return self.tasks[who]

    def fork(self, who: str, child: str) -> None:
        """Let @who fork a task that is called @child."""
        if child in self.tasks or child in self.gone:
            raise ParamError("script", f"there was a {NAMES[child]} already")
        made = kernel_clone(self.task(who))
        if isinstance(made, int):
            raise KernelBug(f"fork failed with {made}")
        self.tasks[child] = made

    def touch(self, who: str, page: int, kind: str) -> int:
        """Let @who access a page; return how many faults that took."""
        task = self.task(who)
        switch_to(self.m, task)
        before = task.min_flt
        touch(self.m, BASE + page * PG, kind)
        return task.min_flt - before

    def exit(self, who: str) -> None:
        """End @who."""
        task = self.task(who)
        switch_to(self.m, task)
        do_exit(task)
        del self.tasks[who]
        self.gone.append(who)
        if self.tasks:
            switch_to(self.m, next(iter(self.tasks.values())))

    def entry(self, who: str, page: int) -> int:
        """Return the page-table entry of a page, or 0."""
        mm = self.task(who).mm
        assert mm is not None
        found, level = pg.lookup_address(mm, BASE + page * PG)
        return found[0][found[1]] if found is not None and level == 1 else 0

    def frame(self, who: str, page: int) -> Page | None:
        """Return the page that an entry maps; None for none and for the zero page."""
        entry = self.entry(who, page)
        if not pg.pte_present(entry) or pg.pte_pfn(entry) == self.m.zero_pfn:
            return None
        return pfn_to_page(self.m, pg.pte_pfn(entry))

    def seen(self) -> list[Page]:
        """Return the pages that somebody maps or refers to now, in the order in which they first appeared."""
        now: dict[int, Page] = {}
        for who in self.tasks:
            for i in range(self.pages):
                if (page := self.frame(who, i)) is not None:
                    now[page.pfn] = page
        for page in (*self.pins.values(), *self.references.values()):
            now[page.pfn] = page
        self.frames = [pfn for pfn in self.frames if pfn in now]
        self.frames += [pfn for pfn in now if pfn not in self.frames]
        return [now[pfn] for pfn in self.frames]


# ---- ch05.cow ------------------------------------------------------------------------------------

_COW_SCRIPT = "write p 0; write p 1; read p 2; fork; write c 0; write p 0; exit c; write p 1; pin p 0; fork; write p 0; write p 1"
_WHO = Choice("p", {"p": "parent", "c": "child"})
_COW_PAGE = Int(0, 0, 2)


def _cow_rows(f: Family) -> list[dict[str, Any]]:
    """Return every page that is mapped or pinned now, with its counts."""
    rows = []
    for page in f.seen():
        rows.append(
            {
                "pfn": page.pfn,
                "refcount": page._refcount,
                "mapcount": rmap.page_mapcount(page),
                "exclusive": rmap.PageAnonExclusive(page),
                "pinned": rmap.folio_maybe_dma_pinned(page),
            }
        )
    return rows


class _Names:
    """Frame names that stay with a frame through a figure."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}

    def of(self, pfn: int) -> str:
        return self.names.setdefault(pfn, f"frame {len(self.names) + 1}")


def _entry_label(entry: int, zero: bool) -> str:
    if not pg.pte_present(entry):
        return "empty"
    return "zero page, r" if zero else "writable" if pg.pte_write(entry) else "read-only"


def _frame_label(names: _Names, row: dict[str, Any]) -> str:
    refs = f"{row['refcount']:,} ref" + ("" if row["refcount"] == 1 else "s")
    mapped = "pinned" if row["pinned"] else f"mapped {row['mapcount']}×"
    return f"{names.of(row['pfn'])}: {refs}, {mapped}" + (", excl." if row["exclusive"] else "")


def _cow_drawing(f: Family, names: _Names, active: tuple[str, int] | None) -> svg.Drawing:
    d = svg.Drawing()
    rows = _cow_rows(f)
    left_w, right_x, right_w, h = 180.0, 316.0, 244.0, 30.0
    places: dict[int, float] = {}
    d.add(tag(right_x, svg.SMALL, "frames: references, mappings", ink="muted"))
    for i, row in enumerate(rows):
        y = 20 + i * (h + 10)
        places[row["pfn"]] = y + h / 2
        edge = 3.5 if row["exclusive"] else 0.8
        d.add(svg.rect(right_x, y, right_w, h, "anon", stroke="ink", width=edge))
        d.add(tag(right_x + 8, y + h / 2 + 4, _frame_label(names, row), on="anon"))
    y = 0.0
    for who in f.tasks:
        d.add(tag(0, y + svg.SMALL, NAMES[who], bold=True))
        y += 18
        for page in range(f.pages):
            entry, target = f.entry(who, page), f.frame(who, page)
            lit = active == (who, page)
            kind, ink, width = ("lit", "accent", 2.0) if lit else ("panel", "muted", 1.25)
            zero = pg.pte_present(entry) and pg.pte_pfn(entry) == f.m.zero_pfn
            d.add(svg.rect(0, y, left_w, 22, kind, stroke="ink", width=2 if lit else 0.8))
            d.add(tag(8, y + 15, f"page {page}: {_entry_label(entry, zero)}", on=kind))
            if target is not None:
                route = [(left_w, y + 11), (right_x - 3, places[target.pfn])]
                d.add(svg.arrow(route, ink, width=width))
            y += 24
        y += 8
    d.bottom = max(y, 20 + len(rows) * (h + 10), 2 * (18 + 24 * f.pages + 8) + 4)
    words = "Thick edge, excl.: PageAnonExclusive. Mapped n×: the map count."
    d.add(svg.paragraph(words, y=d.bottom, size=svg.SMALL, ink="muted"))
    return d


def _cow_step(f: Family, verb: str, args: Sequence[Any]) -> tuple[str, tuple[str, int] | None]:
    """Carry out one action and say what came of it."""
    if verb == "fork":
        if "c" in f.gone:  # the next child has the name of the last
            f.gone.remove("c")
        f.fork("p", "c")
        own = [
            i
            for i in range(f.pages)
            if (a := f.frame("p", i)) is not None and a is not f.frame("c", i)
        ]
        if own:
            words = " and ".join(f"page {i}" for i in own)
            return (
                f"**fork(): {words} may be pinned, so the child gets a copy at once.** The parent keeps its own, writable and exclusive.",
                None,
            )
        return (
            "**fork(): no page is copied.** Both tables' entries are read-only, the pages no longer exclusive.",
            None,
        )
    if verb == "exit":
        f.exit("c")
        return (
            "**The child exits.** Its mappings and references are gone; what the parent has left is as read-only as before.",
            None,
        )
    who, page = args
    if verb in ("pin", "unpin"):
        return _cow_pin(f, verb, who, page), (who, page)
    before, copies = f.frame(who, page), f.entry(who, page)
    zero = pg.pte_present(copies) and pg.pte_pfn(copies) == f.m.zero_pfn
    faults = f.touch(who, page, "r" if verb == "read" else "w")
    after = f.frame(who, page)
    subject = f"The {NAMES[who]} {'reads' if verb == 'read' else 'writes'} page {page}"
    if not faults:
        return f"**{subject}: no fault.**", (who, page)
    if verb == "read":
        return f"**{subject}: {'the zero page' if after is None else 'a page'} is mapped.**", (
            who,
            page,
        )
    if before is None:
        where = "the zero page is replaced by a fresh page" if zero else "a fresh page"
        return f"**{subject}: {where}, exclusive.**", (who, page)
    if after is before:
        return (
            f"**{subject}: reused.** Nobody else refers to the page: it becomes exclusive and the entry writable.",
            (who, page),
        )
    return f"**{subject}: copied.** Somebody else refers to the old page; the copy is exclusive.", (
        who,
        page,
    )


def _cow_pin(f: Family, verb: str, who: str, page: int) -> str:
    task = f.task(who)
    mm = task.mm
    assert mm is not None
    if verb == "unpin":
        if page not in f.pins:
            raise ParamError("script", f"page {page} is not pinned")
        gup.unpin_user_page(f.pins.pop(page))
        return f"**Page {page} is unpinned.** The pin's 1,024 references are given back."
    if page in f.pins:
        raise ParamError("script", f"page {page} is pinned already")
    switch_to(f.m, task)
    got: list[Page] = []
    before = f.frame(who, page)
    result = gup.pin_user_pages(mm, BASE + page * PG, 1, 0, got)
    if result != 1:
        raise ParamError("script", f"page {page} of the {NAMES[who]} cannot be pinned")
    if got[0].pfn == f.m.zero_pfn:
        raise ParamError(
            "script", f"page {page} is the zero page, which is never pinned; write it first"
        )
    f.pins[page] = got[0]
    moved = before is not None and before is not got[0]
    unshared = (
        " The page was shared, so it was unshared first: a copy, mapped read-only." if moved else ""
    )
    return f"**A device pins page {page} of the {NAMES[who]}: 1,024 references more.**{unshared} A pinned page is exclusive."


@explorable(
    "ch05.cow",
    title="Copy-on-write, page by page",
    key=("fork 4", "write 5", "write 6", "fork 10"),
    help="write p 0, read c 1, fork, exit c, pin p 0, unpin p 0. Pin before the fork and see who copies.",
    params=dict(
        script=Actions(
            _COW_SCRIPT,
            verbs={"write": (_WHO, _COW_PAGE), "read": (_WHO, _COW_PAGE), "fork": None, "exit": Choice("c", ("c",)),
                   "pin": (_WHO, _COW_PAGE), "unpin": (_WHO, _COW_PAGE)},
        ),
    ),
)  # fmt: skip
def cow(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield entries and frames after each action."""
    f = Family(3)
    names = _Names()
    yield Frame(
        _cow_drawing(f, names, None),
        "**Three pages are mapped, none is there.**",
        "Three pages mapped, all entries empty.",
        mark="start",
    )
    for i, (verb, *args) in enumerate(p.script, 1):
        text, active = _cow_step(f, verb, args)
        swap.lru_add_drain(f.m)  # the CPU's batch holds a reference to each new page for a while
        rows = _cow_rows(f)
        for row in rows:
            row["name"] = names.of(row["pfn"])
        state = "; ".join(
            f"{r['name']}: {plural(r['refcount'], 'reference')}, mapped {r['mapcount']} times{', exclusive' if r['exclusive'] else ''}"
            for r in rows
        )
        alt = re.sub(r"[*`]", "", text) + (f" {state}." if state else "")
        data = {"rows": rows, "faults": {who: t.min_flt for who, t in f.tasks.items()}}
        yield Frame(_cow_drawing(f, names, active), text, alt, mark=f"{verb} {i}", data=data)


# ---- ch05.forest ---------------------------------------------------------------------------------

_FOREST_SCRIPT = (
    "write p 0; fork p c; write c 1; fork c g; write g 2; write p 3; fork p s; exit c; write g 0"
)
_ANY = Choice("p", {k: v for k, v in NAMES.items()})
_FOREST_PAGE = Int(0, 0, 3)


def _one_vma(f: Family, who: str) -> VmAreaStruct:
    mm = f.tasks[who].mm
    assert mm is not None
    vma = vma_.vma_lookup(mm, BASE)
    assert vma is not None
    return vma


def _walk(f: Family, who: str, page: int) -> tuple[Page | None, list[str], list[str]]:
    """Return a page, the tasks that the reverse walk visits for it, and those that map it."""
    target = f.frame(who, page)
    if target is None:
        return None, [], []
    visited: list[str] = []
    mapped: list[str] = []

    def rmap_one(vma: VmAreaStruct, address: int) -> bool:
        name = next(n for n, t in f.tasks.items() if t.mm is vma.vm_mm)
        visited.append(name)
        if rmap.page_vma_mapped(target, vma, address):
            mapped.append(name)
        return True

    rmap.rmap_walk_anon(target, rmap_one)
    return target, visited, mapped


def _forest_tasks(d: svg.Drawing, f: Family, names: _Names, visited: Sequence[str], mapped: Sequence[str], looked: Any) -> dict[str, float]:  # fmt: skip
    """Draw the processes with their pages; return where each one's middle is."""
    w, centre = 28.0, {}
    for i, who in enumerate(NAMES):
        cx = centre[who] = (i + 0.5) * svg.WIDTH / 4
        if who not in f.tasks:
            if who in f.gone:
                d.add(tag(cx, 14, NAMES[who], "middle", ink="muted"), tag(cx, 44, "exited", "middle", ink="muted"))  # fmt: skip
            continue
        d.add(tag(cx, 14, NAMES[who], "middle", bold=True))
        for page in range(f.pages):
            x, target = cx - 2 * w + page * w, f.frame(who, page)
            same = target is not None and target is looked
            fill = "anon" if target is not None else "paper"
            d.add(svg.rect(x, 22, w, 26, fill, stroke="ink", width=3.5 if same else 0.8))
            if target is not None:
                name = names.of(target.pfn).removeprefix("frame ")
                d.add(tag(x + w / 2, 39, name, "middle", on="anon", bold=same))
        if who in visited:
            d.add(svg.rect(cx - 2 * w - 4, 18, 4 * w + 8, 34, stroke="accent", width=2.5))
            note = "maps it" if who in mapped else "looked into"
            d.add(tag(cx, 66, note, "middle", ink="accent", bold=who in mapped))
    return centre


def _forest_anons(d: svg.Drawing, f: Family, letters: Letters, y: float, looked: Any) -> dict[str, float]:  # fmt: skip
    """Draw the anon_vmas that somebody is linked to; return where each one's middle is, by its letter."""
    anons: list[Any] = []
    for who in f.tasks:
        for avc in _one_vma(f, who).anon_vma_chain:
            if not any(a is avc.anon_vma for a in anons):
                anons.append(avc.anon_vma)
    anons.sort(key=letters.of)
    top: dict[str, float] = {}
    for i, anon in enumerate(anons):
        x = top[letters.of(anon)] = (i + 0.5) * svg.WIDTH / max(len(anons), 4)
        hit = looked is not None and looked.mapping is anon
        kind = "lit" if hit else "panel"
        d.add(svg.rect(x - 56, y, 112, 38, kind, stroke="ink", width=2 if hit else 1, rx=4))
        of = "root" if anon.parent is anon else f"child of {letters.of(anon.parent)}"
        d.add(tag(x, y + 16, f"anon_vma {letters.of(anon)}", "middle", on=kind, bold=True))
        d.add(tag(x, y + 31, of, "middle", on=kind))
    return top


def _forest_drawing(f: Family, letters: Letters, names: _Names, visited: Sequence[str], mapped: Sequence[str], looked: Any) -> svg.Drawing:  # fmt: skip
    d, y = svg.Drawing(), 150.0
    centre = _forest_tasks(d, f, names, visited, mapped, looked)
    top = _forest_anons(d, f, letters, y, looked)
    for who in NAMES:
        vma = _one_vma(f, who) if who in f.tasks else None
        for avc in vma.anon_vma_chain if vma is not None else ():
            own = vma is not None and avc.anon_vma is vma.anon_vma
            ends = (centre[who], 72, top[letters.of(avc.anon_vma)], y)
            if own:
                d.add(svg.line(*ends, "ink", width=2.5))
            else:
                d.add(svg.line(*ends, "muted", dash="4 3"))
    d.bottom = y + 42
    words = "Numbers are frames. A solid line leads to the anon_vma for new pages, a dashed one to an inherited one."
    d.add(svg.paragraph(words, y=d.bottom + 6, size=svg.SMALL, ink="muted"))
    return d


@explorable(
    "ch05.forest",
    title="anon_vma through generations",
    key=("write 3", "write 5", "exit 8", "write 9"),
    help="fork p c: the parent forks the child; then c may fork g, and p a second child s. Choose whose page is looked for.",
    params=dict(
        script=Actions(
            _FOREST_SCRIPT,
            verbs={"write": (_ANY, _FOREST_PAGE), "fork": (_ANY, _ANY), "exit": _ANY},
            help="write c 1; fork c g; exit c",
        ),
        whose=Choice("p", {k: f"the {v}'s" for k, v in NAMES.items()}, label="look for the page that is"),
        page=Int(0, 0, 3, label="page"),
    ),
)  # fmt: skip
def forest(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the family after each action, with the walk for the chosen page."""
    f, letters, names = Family(4), Letters(), _Names()
    yield Frame(_forest_drawing(f, letters, names, (), (), None), "**One process, one mapping of four pages, no `anon_vma` yet.**",
                "One process with a mapping that has no anon_vma.", mark="start")  # fmt: skip
    for i, (verb, *args) in enumerate(p.script, 1):
        if verb == "write":
            f.touch(args[0], args[1], "w")
            what = f"The {NAMES[args[0]]} writes page {args[1]}"
        elif verb == "fork":
            f.fork(args[0], args[1])
            what = f"The {NAMES[args[0]]} forks the {NAMES[args[1]]}"
        else:
            f.exit(args[0])
            what = f"The {NAMES[args[0]]} exits"
        if not f.tasks:
            raise ParamError("script", "the last process has exited; nothing is left to show")
        for who in f.tasks:  # name in the order of the generations
            for avc in _one_vma(f, who).anon_vma_chain:
                letters.of(avc.anon_vma)
        looked, visited, mapped = (
            _walk(f, p.whose, p.page) if p.whose in f.tasks else (None, [], [])
        )
        rmap.validate_anon_vmas([_one_vma(f, w) for w in f.tasks], True)
        text = f"**{what}.** {_forest_text(f, p, letters, looked, visited, mapped)}"
        data = {
            "visited": visited, "mapped": mapped,
            "chains": {w: [letters.of(a.anon_vma) for a in _one_vma(f, w).anon_vma_chain] for w in f.tasks},
            "own": {w: letters.of(_one_vma(f, w).anon_vma) for w in f.tasks},
        }  # fmt: skip
        drawing = _forest_drawing(f, letters, names, visited, mapped, looked)
        yield Frame(drawing, text, re.sub(r"[*`]", "", text), mark=f"{verb} {i}", data=data)


def _forest_text(f: Family, p: SimpleNamespace, letters: Letters, looked: Any, visited: Sequence[str], mapped: Sequence[str]) -> str:  # fmt: skip
    if looked is None:
        state = "does not exist" if p.whose not in f.tasks else "has no frame of its own"
        return f"Page {p.page} of the {NAMES[p.whose]} {state}; there is nothing to look for."
    who = ", ".join(NAMES[w] for w in visited)
    found = ", ".join(NAMES[w] for w in mapped)
    links = sum(len(_one_vma(f, w).anon_vma_chain) for w in f.tasks)
    return (
        f"Page {p.page} of the {NAMES[p.whose]} belongs to anon_vma {letters.of(looked.mapping)}: the walk looks into {who}, "
        f"and finds it in {found}. {plural(links, 'link')} in all."
    )
