"""The explorables of chapter 3, virtual memory, and the rows that it sets beside recordings.

Every frame is drawn from the state of the engine at that moment, or from a recording; nothing here decides.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from mmcore import boot
from mmcore.arch.x86 import kaslr, mitigations
from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86 import tlb as tlb_
from mmcore.arch.x86.fault import touch
from mmcore.arch.x86.pgtable_types import LEVEL_NAMES, LEVEL_SHIFT, PteInfo, decode_pte
from mmcore.arch.x86.tlb import Tlb
from mmcore.config import PAGE_SHIFT, PAGE_SIZE, Config
from mmcore.errors import KernelBug, UsageError
from mmcore.kernel.fork import kernel_clone, spawn
from mmcore.machine import Machine
from mmcore.mm import filemap, memory, mmap, swapops
from mmcore.mm import mm as mm_
from mmcore.proc.capture import load
from mmcore.viz import svg
from mmcore.viz.explorable import (
    Actions,
    Bool,
    Choice,
    Frame,
    Hex,
    Int,
    ParamError,
    Seed,
    explorable,
)

__all__ = ["fault", "layout", "pte", "tlb_reach", "touch_map", "vma_lock", "walk"]

GIB = 1 << 30
DIRECT_MAP = 0xFFFF_8880_0000_0000  # without randomisation, 4 levels


def _plural(n: int, word: str) -> str:
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def small_machine(pages: int = 4096, **config: Any) -> Machine:
    """Return a machine with one zone and nothing else, for figures that need only a few pages."""
    m = Machine(config=Config(**config))
    boot.make_bare_zone(m, pages, 0, "Normal", True)
    return m


# ---- ch03.walk: translating one address ----------------------------------------------------------

LEAF_LEVEL = {"4K": 1, "2M": 2, "1G": 3}
LEAF_PFN = {"4K": 0x123456, "2M": 0x123400, "1G": 0x100000}


def _address_fields(address: int, levels: int) -> svg.Part:
    """Return the bits of an address with its index fields outlined."""
    top = pg.virtual_mask_shift(levels)
    fields = [svg.FieldSpec("sign", 63, top + 1, kind="panel", on=False)]
    names = _level_names(levels)
    for level in range(levels, 0, -1):
        lo = LEVEL_SHIFT[level]
        kind = "tint" if level % 2 else "tint2"
        index = address >> lo & 511
        fields.append(svg.FieldSpec(f"{names[level]} {index}", lo + 8, lo, kind=kind))
    fields.append(svg.FieldSpec(f"offset {address & 4095:#x}", 11, 0, kind="lit"))
    return svg.bit_fields(address, fields, listing=False, names=True)


def _level_names(levels: int) -> dict[int, str]:
    """Return what each level is called: with four levels the top table is the PGD."""
    names = dict(LEVEL_NAMES)
    if levels == 4:
        names[4] = "PGD"
    return names


def _entry_note(info: PteInfo) -> str:
    if info.kind == "none":
        return "empty"
    words = [f for f in info.flags if f in ("RW", "US", "NX", "PSE", "G")]
    return " ".join(words) or "P"


def _rights_so_far(entries: Sequence[int]) -> str:
    """Return what all entries together allow: RW and US if all have it, NX if one has."""
    words = [n for n, bit in (("RW", 1), ("US", 2)) if all(e >> bit & 1 for e in entries)]
    return " ".join(words + ["NX"] * any(e >> 63 for e in entries)) or "read by the kernel"


def _walk_steps(
    entries: Sequence[tuple[int, int, int]], address: int, levels: int, now: int
) -> tuple[list[svg.WalkStep], list[int]]:
    """Return the drawing's columns when step @now has been read, and the frames of the tables."""
    names = _level_names(levels)
    steps = []
    for i, level in enumerate(range(levels, 0, -1)):
        if i >= len(entries) and entries and now >= len(entries) - 1:
            break  # the walk has ended before this level
        index = address >> LEVEL_SHIFT[level] & 511
        if i > now or i >= len(entries):
            steps.append(svg.WalkStep(names[level], index, state="todo"))
            continue
        info = decode_pte(entries[i][2], level)
        state = "done" if info.kind in ("table", "page") else "fault"
        if i == now and info.kind == "table":
            state = "now"
        steps.append(svg.WalkStep(names[level], index, entries[i][2], _entry_note(info), state))
    return steps, []


@explorable(
    "ch03.walk",
    title="A page-table walk",
    key=("end",),
    help="Type an address and step through the loads that translate it.",
    params=dict(
        address=Hex(0x7F3A12345678, label="virtual address", help="in base 16; a kernel address works too"),
        leaf=Choice("4K", {"4K": "4 KiB page", "2M": "2 MiB leaf", "1G": "1 GiB leaf", "none": "nothing mapped"},
                    help="what the program has mapped there"),
        levels=Choice("4", {"4": "4 levels", "5": "5 levels (LA57)"}),
        pti=Bool(False, label="page table isolation", help="the processor has the Meltdown bug"),
        tables=Choice("kernel", {"kernel": "the kernel's", "user": "user mode's"}, label="walk from which table",
                      help="matters with page table isolation only"),
    ),
)  # fmt: skip
def walk(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the steps of one walk."""
    levels = int(p.levels)
    if p.tables == "user" and not p.pti:
        raise ParamError("tables", "user mode has tables of its own only with page table isolation")
    m = Machine.boot("256M", config=Config(cpu_la57=levels == 5, cpu_bug_meltdown=p.pti))
    mm = spawn(m, "walker").mm
    assert mm is not None
    fields = _address_fields(p.address, levels)
    if not pg.__dict__["__is_canonical_address"](p.address, pg.virtual_mask_shift(levels) + 1):
        d = svg.Drawing().add(fields)
        top = pg.virtual_mask_shift(levels)
        text = (
            f"**{p.address:#x} is not canonical.** Bits 63 to {top} are not all equal: the processor looks at no table "
            "and raises a general protection fault, not a page fault."
        )
        yield Frame(d, text, f"{p.address:#x} is not canonical; no table is read.", mark="end")
        return
    if p.leaf != "none" and p.address >> 63 == 0:
        level = LEAF_LEVEL[p.leaf]
        start = p.address & -(1 << LEVEL_SHIFT[level])
        if start >= pg.task_size_max(levels):
            raise ParamError(
                "address",
                "is the last page below the hole, which the kernel never maps for a program",
            )
        size = 1 << (LEVEL_SHIFT[level] - PAGE_SHIFT)
        pg.map_range(mm, start, LEAF_PFN[p.leaf], size, pg.PAGE_SHARED, level=level)
    read = mitigations.walk_user if p.tables == "user" else pg.walk
    yield from _walk_frames(p, read(mm, p.address), fields, levels)


def _walk_frames(
    p: SimpleNamespace, entries: Sequence[tuple[int, int, int]], fields: svg.Part, levels: int
) -> Iterator[Frame]:
    names = _level_names(levels)
    y = fields.bottom + 12

    def drawing(now: int, leaf: str = "") -> svg.Drawing:
        steps, _ = _walk_steps(entries, p.address, levels, now)
        return svg.Drawing().add(fields, svg.walk(steps, leaf=leaf, y=y))

    which = "user mode's copy of the top table" if p.tables == "user" else "the top table"
    indices = ", ".join(f"{n} {i}" for n, i in pg.table_indices(p.address, levels)[:-1])
    yield Frame(
        drawing(-1),
        f"**{levels} index fields and an offset.** CR3 names {which}. The fields of `{p.address:#x}` are {indices}, "
        f"offset {p.address & 4095:#x}.",
        f"The address {p.address:#x} taken apart: {indices}, offset {p.address & 4095:#x}.",
        mark="start",
        data={"indices": dict(pg.table_indices(p.address, levels))},
    )
    for i, (level, index, entry) in enumerate(entries):
        info = decode_pte(entry, level)
        last = i == len(entries) - 1
        name, loads = names[level], _plural(i + 1, "load")
        rows = {"level": level, "index": index, "entry": f"{entry:016x}", "kind": info.kind}
        if info.kind == "table":
            rights = _rights_so_far([e for _, _, e in entries[: i + 1]])
            what = f"points to the table at page frame {info.pfn:#x}. Rights so far: {rights}."
            text, leaf = f"**{name} entry {index}: `{entry:x}`** {what}", ""
        elif info.kind == "page":
            physical = (info.pfn or 0) << PAGE_SHIFT | p.address & (info.size - 1)
            rows["physical"] = f"{physical:#x}"
            leaf = f"{physical:#x}"
            text = (
                f"**{loads.capitalize()}, and the address is physical `{physical:#x}`.** {name} entry {index} maps "
                f"{_size(info.size)} from page frame {info.pfn:#x}; the low {LEVEL_SHIFT[level]} bits are the offset in it."
            )
        else:
            leaf = ""
            text = (
                f"**The walk ends after {loads}: {name} entry {index} is empty.** P is clear, so the processor stops "
                "here and raises a page fault."
            )
        alt = re.sub(r"[*`]", "", text)
        yield Frame(drawing(i, leaf), text, alt, mark="end" if last else "", data=rows)


def _size(n: int) -> str:
    return {1 << 12: "4 KiB", 1 << 21: "2 MiB", 1 << 30: "1 GiB"}[n]


# ---- ch03.pte: sixty-four bits -------------------------------------------------------------------

WRITTEN, ZERO_PAGE = 0x8000000123456867, 0x8000000001234225


def _presets() -> dict[str, tuple[int, int, str]]:
    """Return name -> (entry, level, what it is); all made by the engine's own functions."""
    forked = pg.pte_wrprotect(WRITTEN)
    swap = swapops.swp_entry_to_pte(swapops.swp_entry(0, 0x1234))
    moving = swapops.swp_entry_to_pte(swapops.make_readable_migration_entry(0x123456))
    huge = pg.pte_mkdirty(pg.pfn_pmd(0x123400, pg.PAGE_SHARED | 1 << 7))
    return {
        "written": (WRITTEN, 1, "an anonymous page after a write"),
        "zero page": (ZERO_PAGE, 1, "the zero page, after a read"),
        "forked, parent": (forked, 1, "the written page after fork, in the parent"),
        "forked, child": (pg.pte_mkold(forked), 1, "the written page after fork, in the child"),
        "PROT_NONE": (pg.pte_modify(WRITTEN, pg.PAGE_NONE), 1, "the written page under PROT_NONE"),
        "swapped out": (pg.pte_swp_mkexclusive(swap), 1, "a page in swap slot 0x1234 of device 0"),
        "migrating": (moving, 1, "a page that is being moved"),
        "marker": (swapops.make_pte_marker(swapops.PTE_MARKER_UFFD_WP), 1, "a note about a page that is not there"),
        "table": (0x123456 << 12 | 0x067, 2, "a PMD entry that points to a PTE table"),
        "2 MiB leaf": (huge, 2, "a PMD entry that maps 2 MiB"),
        "kernel code": (0x502E121, 1, "module code, from a recorded oops"),
    }  # fmt: skip


_PRESETS = _presets()


def _pte_drawing(info: PteInfo) -> svg.Drawing:
    specs = []
    for f in info.fields:
        wide = f.hi - f.lo > 8
        on = bool(f.value) or wide or f.name == "P"
        kind = (
            ("tint2" if f.name == "type" else "tint")
            if wide or f.name == "type"
            else "lit" if on else "panel"
        )
        specs.append(
            svg.FieldSpec(
                f.name,
                f.hi,
                f.lo,
                f.meaning,
                kind=kind,
                on=on,
                focus=f.name in ("P", "PROTNONE") and on,
            )
        )
    shown = [s for s in specs if s.on]
    bits = svg.bit_fields(info.value, specs, listing=False)
    d = svg.Drawing().add(bits)
    d.add(_field_list(shown, info.value, bits.bottom + 6))
    return d


def _field_list(fields: Sequence[svg.FieldSpec], value: int, y: float) -> svg.Part:
    rows = []
    for f in sorted(fields, key=lambda f: -f.hi):
        bits = str(f.hi) if f.hi == f.lo else f"{f.hi}–{f.lo}"
        number = value >> f.lo & (1 << f.hi - f.lo + 1) - 1
        rows.append([bits, f.name, f"{number:#x}" if f.hi - f.lo > 3 else str(number), f.meaning])
    return svg.table(
        ["bits", "name", "value", "meaning"], rows, mono={2}, widths=[56, 120, 128, 256], y=y
    )


@explorable(
    "ch03.pte",
    title="Page-table entry decoder",
    key=("written", "forked, parent", "swapped out"),
    help="Choose a preset, or choose 'own entry' and paste one.",
    params=dict(
        preset=Choice("tour", {"tour": "all, one after the other", "own": "own entry", **{k: v[2] for k, v in _PRESETS.items()}}),
        entry=Hex(WRITTEN, label="own entry", help="64 bits in base 16; used with the preset 'own entry'"),
        level=Choice("1", {"1": "PTE", "2": "PMD", "3": "PUD", "4": "P4D (PGD with 4 levels)", "5": "PGD"}, label="level of the own entry"),
    ),
)  # fmt: skip
def pte(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield one frame for each entry."""
    if p.preset == "own":
        chosen = {"own": (p.entry, int(p.level), "your entry")}
    elif p.preset == "tour":
        chosen = dict(_PRESETS)
    else:
        chosen = {p.preset: _PRESETS[p.preset]}
    for mark, (value, level, what) in chosen.items():
        info = decode_pte(value, level)
        yield Frame(
            _pte_drawing(info) if info.fields else _empty_entry(value),
            f"**`{value:016x}`: {what}.** {_reading(info)}",
            f"{value:016x}, {what}: {_reading(info)} {' '.join(info.flags)}".strip(),
            mark=mark,
            data={"value": f"{value:016x}", "level": level, "kind": info.kind, "pfn": info.pfn, "flags": info.flags,
                  "swp_type": info.swp_type, "swp_offset": info.swp_offset},
        )  # fmt: skip


def _empty_entry(value: int) -> svg.Drawing:
    return svg.Drawing().add(svg.bit_fields(value, [], listing=False))


def _reading(info: PteInfo) -> str:
    """Return an entry in one sentence."""
    name = LEVEL_NAMES[info.level]
    if info.kind == "none":
        return "Empty: no page, no note. The next access faults and asks the mapping."
    if info.kind == "page":
        user = "user" if "US" in info.flags else "kernel only"
        rights = f"{'writable' if 'RW' in info.flags else 'read-only'}, {'no execution' if 'NX' in info.flags else 'executable'}"
        return f"Present: maps {_size(info.size)} at page frame {info.pfn:#x}, {user}, {rights}."
    if info.kind == "table":
        return f"Present: the {name} entry points to the table at page frame {info.pfn:#x}."
    if info.kind == "prot_none":
        return f"P is clear and bit 8 set: page frame {info.pfn:#x} is mapped, stored inverted, and the processor must not see it."
    if info.kind == "swap":
        return f"P and bit 8 are clear: slot {info.swp_offset:#x} of swap device {info.swp_type}, stored inverted."
    if info.kind == "marker":
        return f"Type {info.swp_type}: a marker. There is no page; the bits of the offset say what to remember."
    return f"Type {info.swp_type}: {info.kind} entry for page frame {info.pfn:#x}, stored inverted."


# ---- ch03.layout: who lives where ----------------------------------------------------------------

RANDOMISED = ("page_offset_base", "vmalloc_base", "vmemmap_base")


def _hue(region: Any) -> str:
    """Return the surface of a region: what randomisation moves is lit."""
    if region.symbol in RANDOMISED:
        return "lit"
    if "hole" in region.name:
        return "hole"
    return (
        "tint2"
        if region.name in ("kernel image", "modules")
        else "tint" if region.start == 0 else "panel"
    )


def _regions(levels: int, seed: int) -> list[Any]:
    """Return the regions of a layout; seed 0 means nokaslr."""
    if not seed:
        return list(kaslr.memory_layout(levels=levels))
    drawn = kaslr.kernel_randomize_memory(random.Random(seed), levels, GIB >> PAGE_SHIFT)
    return list(kaslr.memory_layout(levels, drawn))


def _layout_drawing(regions: Sequence[Any], bases: Sequence[tuple[str, int, int]]) -> svg.Drawing:
    ranges, taken = [], set()
    for r in regions:
        name = f"{r.name} ({r.symbol})" if r.symbol else r.name
        while name in taken:
            name += " "
        taken.add(name)
        ranges.append((name, r.start, r.end, _hue(r)))
    d = svg.Drawing().add(svg.ruler(ranges, row_height=25))
    if bases:
        rows = [[n, f"{a:016x}", f"+{(a - b) / (1 << 40):,.3f} TiB"] for n, a, b in bases]
        d.add(
            svg.table(
                ["symbol", "address", "moved by"], rows, mono={0, 1}, right={2}, y=d.bottom + 12
            )
        )
    return d


@explorable(
    "ch03.layout",
    title="The address space",
    key=("shuffled",),
    help="Choose a seed to randomise; 0 is nokaslr.",
    params=dict(
        levels=Choice("4", {"4": "4 levels", "5": "5 levels"}),
        seed=Seed(1, label="seed of the randomisation", help="another number is another boot; 0 is nokaslr"),
        part=Choice("kernel", {"all": "all 64 bits", "kernel": "the kernel's half", "top": "the last 2 TiB"}),
    ),
)  # fmt: skip
def layout(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the layout without and with randomisation."""
    levels = int(p.levels)
    floor = {"all": 0, "kernel": 1 << 63, "top": 0xFFFF_FE00_0000_0000}[p.part]
    fixed = {r.symbol: r.start for r in _regions(levels, 0)}
    for mark, seed in (("fixed", 0), ("shuffled", p.seed)) if p.seed else (("fixed", 0),):
        regions = [r for r in _regions(levels, seed) if r.end >= floor]
        bases = []
        if seed and p.part != "top":
            bases = [
                (r.symbol, r.start, fixed[r.symbol]) for r in regions if r.symbol in RANDOMISED
            ]
        text = (
            f"**With seed {seed}, three regions have moved, in steps of 1 GiB and in the same order.** The image and the "
            "modules move by another mechanism, `cpu_entry_area` and what lies above it not at all."
            if seed
            else f"**{len(regions)} regions, as booted with `nokaslr`.** Address, name with the kernel's symbol, size; not to scale."
        )
        alt = "; ".join(f"{r.start:016x} {r.name}" for r in regions)
        rows = [(f"{r.start:016x}", f"{r.end:016x}", r.name, r.symbol) for r in regions]
        yield Frame(_layout_drawing(regions, bases), text, alt, mark=mark, data=rows)


# ---- ch03.tlb: reach, modelled and measured ------------------------------------------------------

TLB_SIZES = {"4 KiB": 0, "64 KiB": 4, "2 MiB": 9}  # how many low page-number bits one entry covers


def tlb_misses(entries: int, ways: int, pages: int, shift: int, seed: int = 1) -> float:
    """Return the misses per access of a random walk over @pages 4 KiB pages, each once per round.

    :param shift: log2 of the small pages that one entry covers
    """
    rng, groups = random.Random(seed), -(-pages >> shift)
    most = max(2 * entries, 2048)  # of a larger working set, so many accesses stand for all
    tlb = Tlb(entries, ways)
    for first in rng.sample(range(groups), min(groups, most)):
        tlb.access(first)
    before = tlb.misses
    order = rng.sample(range(pages), min(pages, most))
    for page in order:
        tlb.access(page >> shift)
    return (tlb.misses - before) / len(order)


def measured_chase() -> dict[str, list[tuple[int, float]]]:
    """Return the recorded nanoseconds per access: page size -> (pages, ns)."""
    out: dict[str, list[tuple[int, float]]] = {}
    for size, n, ns in re.findall(
        r"^(\w+) pages (\d+) ns ([\d.]+)$", load("host/tlb")["chase"], re.M
    ):
        out.setdefault(size, []).append((int(n), float(ns)))
    return out


def _bytes(n: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if n >= 1 << shift:
            return f"{n >> shift} {unit}"
    return f"{n} B"


def _log_chart(
    series: Sequence[tuple[str, Sequence[tuple[int, float]], str]],
    *,
    y_label: str,
    y_ticks: Sequence[float],
    y: float,
    height: float = 200,
    reach: Sequence[tuple[str, float]] = (),
) -> svg.Part:
    """Return a line chart over a logarithmic axis of working-set sizes (in pages)."""
    lo, hi = 4, 17
    left, right, top = 40.0, 118.0, y + 24
    w, h = svg.WIDTH - left - right, height - 24 - 34
    most = y_ticks[-1]

    def at(n: float, v: float) -> tuple[float, float]:
        return left + (_log2(n) - lo) / (hi - lo) * w, top + h - v / most * h

    items = [svg.text(0, y + 12, y_label, size=svg.SMALL, ink="muted")]
    grid = "".join(f"M{svg.num(left)} {svg.num(at(16, v)[1])}h{svg.num(w)}" for v in y_ticks)
    items.append(svg.path(grid, stroke="faint", width=0.75))
    for v in y_ticks:
        items.append(
            svg.text(
                left - 6, at(16, v)[1] + 4, f"{v:g}", size=svg.SMALL, ink="muted", anchor="end"
            )
        )
    for e in range(lo, hi + 1, 3):
        cx = at(1 << e, 0)[0]
        items.append(
            svg.text(
                cx,
                top + h + 15,
                _bytes(PAGE_SIZE << e),
                size=svg.SMALL,
                ink="muted",
                anchor="middle",
            )
        )
    items.append(
        svg.text(
            left + w / 2, top + h + 31, "working set", size=svg.SMALL, ink="muted", anchor="middle"
        )
    )
    for name, n in reach:
        if 1 << lo <= n <= 1 << hi:
            cx = at(n, 0)[0]
            items.append(svg.line(cx, top, cx, top + h, "muted", dash="4 3"))
            items.append(
                svg.text(cx - 5, top + 10, name, size=svg.SMALL, ink="muted", anchor="end")
            )
    used: list[float] = []
    for name, points, kind in series:
        pts = [at(n, min(v, most)) for n, v in points]
        items.append(svg.polyline(pts, kind, width=2.5, dash="6 3" if kind == "muted" else None))
        ly = pts[-1][1]
        while any(abs(ly - u) < 15 for u in used):
            ly -= 15
        used.append(ly)
        items.append(svg.text(left + w + 8, ly + 4, name, size=svg.SMALL))
    return svg.Part(items, 0, y, svg.WIDTH, height)


def _log2(n: float) -> float:
    e = 0
    while n >= 2:
        n /= 2
        e += 1
    return e + (n - 1)  # exact at powers of two, between them linear


@explorable(
    "ch03.tlb",
    title="TLB reach",
    key=("measured",),
    help="Change the TLB and see where each page size begins to miss.",
    params=dict(
        entries=Int(1536, 16, 4096, step=16, label="TLB entries"),
        ways=Choice("12", ("1", "4", "8", "12", "16"), label="ways"),
        seed=Seed(1, help="another order of the accesses"),
    ),
)
def tlb_reach(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the modelled misses, then the measured times."""
    ways = int(p.ways)
    if p.entries % ways:
        raise ParamError("ways", f"{p.entries} entries cannot be divided into sets of {ways}")
    sizes = [1 << e for e in range(4, 18)]
    kinds = ("accent", "muted", "ink")
    data = {
        name: [(n, tlb_misses(p.entries, ways, n, shift, p.seed)) for n in sizes]
        for name, shift in TLB_SIZES.items()
    }
    reach = [(f"reach {_bytes(p.entries << PAGE_SHIFT)}", float(p.entries))]
    model = _log_chart(
        [(name, pts, kind) for (name, pts), kind in zip(data.items(), kinds, strict=True)],
        y_label="misses per access (model)", y_ticks=(0, 0.25, 0.5, 0.75, 1), y=0, reach=reach,
    )  # fmt: skip
    beyond = next((n for n, v in data["4 KiB"] if v > 0.5), None)
    where = f"from {_bytes(beyond << PAGE_SHIFT)} on" if beyond else "nowhere here"
    yield Frame(
        svg.Drawing().add(model),
        f"**{p.entries:,} entries reach {_bytes(p.entries << PAGE_SHIFT)} with 4 KiB pages and 512 times as much with 2 MiB.** "
        f"A random walk over the working set, each page once per round, misses on more than half of its accesses {where}.",
        f"With 4 KiB pages the modelled TLB misses on most accesses {where}; with 2 MiB pages it does not miss at any size shown "
        "up to its own reach.",
        mark="model",
        data=data,
    )
    try:
        measured = measured_chase()
    except UsageError:  # an installed engine without the book's recordings
        return
    yield _measured_frame(model, measured)


def _measured_frame(model: svg.Part, measured: dict[str, list[tuple[int, float]]]) -> Frame:
    most = max(v for pts in measured.values() for _, v in pts)
    top = -(-int(most) // 20) * 20
    chart = _log_chart(
        [("4 KiB pages", measured["4K"], "accent"), ("2 MiB pages", measured["2M"], "ink")],
        y_label="ns per access (measured)", y_ticks=[top * i / 4 for i in range(5)], y=model.bottom + 10,
    )  # fmt: skip
    small, large = dict(measured["4K"]), dict(measured["2M"])
    worst = max(small, key=lambda n: small[n] - large[n])
    alike = max(n for n in small if all(abs(small[k] - large[k]) < 0.1 for k in small if k <= n))
    n = 1 << 14
    return Frame(
        svg.Drawing().add(model, chart),
        f"**Measured: at {_bytes(n << PAGE_SHIFT)}, {small[n]:.0f} ns with 4 KiB pages and {large[n]:.0f} ns with 2 MiB.** The same cache "
        f"lines in the same order: up to {_bytes(alike << PAGE_SHIFT)} the two are equal. The steps that both share are the caches'.",
        f"Measured times per access: equal for both page sizes up to {_bytes(alike << PAGE_SHIFT)}; at "
        f"{_bytes(worst << PAGE_SHIFT)} 4 KiB pages are slower by {small[worst] - large[worst]:.0f} ns.",
        mark="measured",
        data=measured,
    )


# ---- ch03.vma-lock: two faults and a writer ------------------------------------------------------

VMA_START = {"a": 0x2000_0000_0000, "b": 0x2000_4000_0000}
_THREAD = Int(1, 1, 2)
_MAPPING = Choice("a", ("a", "b"))


class _LockRace:
    """The actors of the figure; each action calls the engine's functions in the order in which the kernel's callers do."""

    def __init__(self) -> None:
        self.m = small_machine(TRANSPARENT_HUGEPAGE=False)
        self.m.transparent_hugepage_enabled = "never"
        self.task = spawn(self.m, "racer")
        assert self.task.mm is not None
        self.mm = self.task.mm
        flags = mmap.MAP_PRIVATE | mmap.MAP_FIXED | mmap.MAP_ANONYMOUS
        self.vmas: dict[str, mm_.VmAreaStruct] = {}
        for n, a in VMA_START.items():
            mmap.do_mmap(self.mm, None, a, 16 * PAGE_SIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags)
            vma = self.mm.mm_mt.walk(a)
            assert vma is not None
            self.vmas[n] = vma
        for (
            address
        ) in VMA_START.values():  # both have an anon_vma, so that no fault needs mmap_lock for it
            touch(self.m, address, "w")
        self.m.vma_lock_event.update(dict.fromkeys(self.m.vma_lock_event, 0))
        self.next_page = {"a": 1, "b": 1}
        #: thread -> (mapping, address, the VMA whose lock it has or None, state)
        self.threads: dict[int, dict[str, Any]] = {}
        self.writer_waits = ""
        self.events: list[tuple[int, str]] = []

    def say(self, actor: int, text: str) -> None:
        self.events.append((actor, text))

    def fault(self, t: int, name: str) -> None:
        if t in self.threads:
            raise ParamError("script", f"thread {t} is already in a fault; end it with 'done {t}'")
        address = VMA_START[name] + self.next_page[name] * PAGE_SIZE
        self.next_page[name] = (self.next_page[name] + 1) % 16
        vma = memory.lock_vma_under_rcu(self.m, self.mm, address)
        if vma is not None:
            self.threads[t] = {
                "name": name,
                "address": address,
                "vma": vma,
                "state": f"holds the lock of {name}",
            }
            self.say(
                t - 1,
                f"fault on {name}: lock_vma_under_rcu() succeeds, reads under the lock of {name}",
            )
            return
        self.say(t - 1, f"fault on {name}: {name} is write-locked: abort, wants mmap_lock")
        self.threads[t] = {
            "name": name,
            "address": address,
            "vma": None,
            "state": "waits for mmap_lock",
        }
        self.try_slow(t)

    def try_slow(self, t: int) -> None:
        state = self.threads[t]
        if self.mm.mmap_lock.writer:
            return  # mmap_read_lock() sleeps until the writer is done
        vma = memory.lock_mm_and_find_vma(self.mm, state["address"], None)
        assert vma is self.vmas[state["name"]]
        state["state"] = "holds mmap_lock for reading"
        self.say(t - 1, "gets mmap_lock for reading")

    def done(self, t: int) -> None:
        state = self.threads.get(t)
        if state is None:
            raise ParamError("script", f"thread {t} is in no fault; begin one with 'fault {t} a'")
        if state["state"].startswith("waits"):
            raise ParamError(
                "script", f"thread {t} waits for mmap_lock; the writer has to 'unlock' first"
            )
        flags = mm_.FAULT_FLAG_DEFAULT | mm_.FAULT_FLAG_USER | mm_.FAULT_FLAG_WRITE
        vma = self.vmas[state["name"]]
        if state["vma"] is not None:
            if memory.handle_mm_fault(vma, state["address"], flags | mm_.FAULT_FLAG_VMA_LOCK):
                raise KernelBug("a write to an anonymous page that has to be retried")
            mm_.vma_end_read(vma)
            self.m.vma_lock_event["vma_lock_success"] += 1  # as do_user_addr_fault() does
            self.say(t - 1, f"page mapped, lock of {state['name']} released: success")
        else:
            memory.handle_mm_fault(vma, state["address"], flags)
            mm_.mmap_read_unlock(self.mm)
            self.say(t - 1, "page mapped, mmap_lock released")
        del self.threads[t]
        self.wake_writer()

    def lock(self) -> None:
        if self.mm.mmap_lock.writer or self.writer_waits:
            raise ParamError("script", "the writer already has mmap_lock, or waits; 'unlock' first")
        if self.mm.mmap_lock.readers:
            self.writer_waits = "lock"
            self.say(2, "mmap_write_lock() waits for a reader of mmap_lock")
            return
        mm_.mmap_write_lock(self.mm)
        self.say(2, f"mmap_write_lock(): mm_lock_seq is now {self.mm.mm_lock_seq}")

    def write(self, name: str) -> None:
        if not self.mm.mmap_lock.writer:
            raise ParamError(
                "script", f"write-locking mapping {name} needs mmap_lock: use 'lock' first"
            )
        if self.writer_waits:
            raise ParamError("script", "the writer waits for a fault to end; use 'done' first")
        try:
            mm_.vma_start_write(self.vmas[name])
        except KernelBug:  # the model's way to say that down_write() would sleep
            self.writer_waits = name
            self.say(2, f"vma_start_write({name}) waits for the fault that reads under its lock")
            return
        self.say(
            2, f"vma_start_write({name}): its vm_lock_seq is now {self.vmas[name].vm_lock_seq}"
        )

    def unlock(self) -> None:
        if not self.mm.mmap_lock.writer:
            raise ParamError("script", "the writer does not hold mmap_lock; use 'lock' first")
        if self.writer_waits:
            raise ParamError("script", "the writer waits for a fault to end; use 'done' first")
        mm_.mmap_write_unlock(self.mm)
        self.say(
            2,
            f"mmap_write_unlock(): mm_lock_seq is now {self.mm.mm_lock_seq}, every mapping is unlocked",
        )
        for t in sorted(self.threads):
            if self.threads[t]["state"].startswith("waits"):
                self.try_slow(t)

    def wake_writer(self) -> None:
        waits, self.writer_waits = self.writer_waits, ""
        if waits == "lock":
            self.lock()
        elif waits:
            self.write(waits)

    def rows(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            "mm_lock_seq": self.mm.mm_lock_seq,
            "vm_lock_seq": {n: v.vm_lock_seq for n, v in self.vmas.items()},
            "write_locked": {n: v.vm_lock_seq == self.mm.mm_lock_seq for n, v in self.vmas.items()},
            "threads": {t: s["state"] for t, s in sorted(self.threads.items())},
            "counters": dict(self.m.vma_lock_event),
        }

    def drawing(self) -> svg.Drawing:
        rows = self.rows()
        d = svg.Drawing()

        def seq(n: int) -> str:
            return "never" if n == (1 << 32) - 1 else str(n)

        table = [
            [
                "mmap_lock",
                f"mm_lock_seq {rows['mm_lock_seq']}",
                "writer" if self.mm.mmap_lock.writer else f"{self.mm.mmap_lock.readers} readers",
            ]
        ]
        for n, v in self.vmas.items():
            held = (
                "write-locked"
                if rows["write_locked"][n]
                else f"{v.vm_lock.readers} readers" if v.vm_lock.readers else "free"
            )
            table.append([f"mapping {n}", f"vm_lock_seq {seq(v.vm_lock_seq)}", held])
        d.add(svg.table(["lock", "number", "held by"], table, widths=[120, 160, 150]))
        counters = [[k.removeprefix("vma_lock_"), str(v)] for k, v in rows["counters"].items()]
        d.add(svg.table(["vma_lock_", ""], counters, x=440, width=120, widths=[80, 40], right={1}))
        shown = self.events[-7:]
        if shown:
            d.add(
                svg.lanes(
                    ["thread 1", "thread 2", "writer"], shown, now=len(shown) - 1, y=d.bottom + 14
                )
            )
        return d


@explorable(
    "ch03.vma-lock",
    title="Per-VMA lock, two faults and a writer",
    key=("abort", "beside"),
    help="Script the three: fault 1 a, done 1, lock, write a, unlock.",
    params=dict(
        script=Actions(
            "fault 1 a; done 1; lock; write a; fault 2 b; done 2; fault 1 a; unlock; done 1; fault 2 a; lock; write a; done 2; unlock",
            verbs={"fault": (_THREAD, _MAPPING), "done": _THREAD, "lock": None, "write": _MAPPING, "unlock": None},
            limit=60,
            help="fault T M: thread T faults on mapping M; done T: it ends; lock, write M, unlock: the writer",
        ),
    ),
)  # fmt: skip
def vma_lock(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the state after each action."""
    race = _LockRace()
    yield Frame(
        race.drawing(),
        "**Nobody holds anything.** Two threads may fault on the mappings a and b; a writer may change mappings.",
        f"No lock is held, and no mapping's number equals mm_lock_seq, {race.mm.mm_lock_seq}.",
        mark="start",
        data=race.rows(),
    )
    for verb, *args in p.script:
        counters = dict(race.m.vma_lock_event)
        before = len(race.events)
        getattr(race, verb)(*args)
        mark = ""
        if race.m.vma_lock_event["vma_lock_abort"] > counters["vma_lock_abort"]:
            mark = "abort"
        elif verb == "fault" and race.mm.mmap_lock.writer:
            mark = "beside"
        who = ("Thread 1", "Thread 2", "The writer")
        said = ". ".join(f"{who[a]}: {text}" for a, text in race.events[before:])
        claim = {
            "abort": "**The numbers are equal, so the fault aborts and queues on mmap_lock.** ",
            "beside": "**The writer holds mmap_lock, and a fault on the other mapping goes on.** ",
        }.get(mark, "")
        text = f"{claim}`{' '.join([verb, *map(str, args)])}`: {said or 'nothing changes'}."
        state = race.rows()
        counted = ", ".join(
            f"{n.removeprefix('vma_lock_')} {v}" for n, v in state["counters"].items()
        )
        alt = re.sub(r"[*`]", "", text) + f" Counters: {counted}."
        yield Frame(race.drawing(), text, alt, mark=mark, data=state)


# ---- ch03.fault: the path of one fault -----------------------------------------------------------

FLOW_NODES = (
    svg.Node("entry", "exc_page_fault", 1, 0),
    svg.Node("kern", "do_kern_addr_fault", 3, 0),
    svg.Node("checks", "do_user_addr_fault", 1, 1, note="RSVD, SMAP, no mm ..."),
    svg.Node("oops", "oops or -EFAULT", 3, 1, shape="end"),
    svg.Node("fast", "lock_vma_under_rcu", 1, 2),
    svg.Node("slow", "lock_mm_and_find_vma", 2, 2),
    svg.Node("acc", "access_error?", 1, 3, shape="choice"),
    svg.Node("sig", "SIGSEGV", 3, 3, shape="end"),
    svg.Node("pte", "handle_pte_fault", 1, 4, shape="choice"),
    svg.Node("flags", "A and D bits, NUMA hint", 0, 4),
    svg.Node("anon", "do_anonymous_page", 0, 5),
    svg.Node("file", "do_fault", 1, 5),
    svg.Node("swap", "do_swap_page", 2, 5),
    svg.Node("wp", "do_wp_page", 3, 5),
    svg.Node("done", "repeat the instruction", 1, 6, shape="end"),
    svg.Node("bus", "SIGBUS", 3, 6, shape="end"),
)
FLOW_EDGES = (
    svg.Edge("entry", "kern", "kernel address"), svg.Edge("entry", "checks"), svg.Edge("checks", "oops", "kernel"),
    svg.Edge("kern", "oops"), svg.Edge("checks", "fast"), svg.Edge("fast", "slow"), svg.Edge("fast", "acc"),
    svg.Edge("slow", "acc"), svg.Edge("slow", "sig"), svg.Edge("acc", "sig", "yes"), svg.Edge("acc", "pte", "no"),
    svg.Edge("pte", "flags"), svg.Edge("pte", "anon"), svg.Edge("pte", "file", "none"), svg.Edge("pte", "swap", "swap"),
    svg.Edge("pte", "wp", "write, no RW"), svg.Edge("flags", "done", side="left"), svg.Edge("anon", "done"), svg.Edge("file", "done"),
    svg.Edge("swap", "done"), svg.Edge("wp", "done"), svg.Edge("file", "bus"),
)  # fmt: skip
#: Which node an event of the engine lights: by function, or by function and step.
_NODE_OF = {
    ("exc_page_fault", "kernel address"): "kern", ("do_kern_addr_fault", "spurious"): "done",
    "exc_page_fault": "checks", "page_fault_oops": "oops", "kernelmode_fixup_or_oops": "oops",
    "lock_vma_under_rcu": "fast", "lock_mm_and_find_vma": "slow", "access_error": "acc", "bad_area": "sig",
    "do_sigbus": "bus", "handle_pte_fault": "pte", ("handle_pte_fault", "access flags"): "flags",
    ("handle_pte_fault", "spurious"): "flags", "do_numa_page": "flags", "do_anonymous_page": "anon", "do_fault": "file",
    "do_fault_around": "file", "do_read_fault": "file", "__do_fault": "file", "finish_fault": "file",
    "vmf_can_call_fault": "file", "do_swap_page": "swap", "do_wp_page": "wp", "wp_page_copy": "wp", "wp_page_reuse": "wp",
}  # fmt: skip
_FAULT_AT = 0x2000_0000_3000
_FAULT_BASE = 0x2000_0000_0000
MAPPINGS = {
    "anon": "private anonymous, read-write", "anon-ro": "private anonymous, read-only", "file": "shared file, read-write",
    "file-private": "private file, read-write", "beyond": "shared file, address beyond its end", "stack": "just below the stack",
    "none": "no mapping", "kernel": "a kernel address",
}  # fmt: skip
ENTRIES = {
    "empty": "empty", "zero": "the zero page", "written": "a page, written", "forked": "a page, shared since fork",
    "swap": "in swap", "prot_none": "PROT_NONE by mprotect",
}  # fmt: skip


def fault_setup(p: SimpleNamespace) -> tuple[Machine, int]:
    """Return a machine whose current task has the mapping and the entry that were chosen, and the address."""
    m = small_machine()
    m.transparent_hugepage_enabled = "never"
    task = spawn(m, "faulter")
    mm = task.mm
    assert mm is not None
    if p.mapping == "kernel":
        return m, DIRECT_MAP + 0x1000
    rw = mmap.PROT_READ | mmap.PROT_WRITE
    private, shared = mmap.MAP_PRIVATE, mmap.MAP_SHARED
    at, length = _FAULT_BASE, 16 * PAGE_SIZE
    fixed = mmap.MAP_FIXED
    if p.mapping in ("anon", "anon-ro"):
        mmap.do_mmap(mm, None, at, length, rw, private | fixed | mmap.MAP_ANONYMOUS)
    elif p.mapping in ("file", "file-private", "beyond"):
        mapping = filemap.AddressSpace(
            i_size=(2 if p.mapping == "beyond" else 16) * PAGE_SIZE, name="data"
        )
        if p.cached:
            filemap.populate(m, mapping, 0, mapping.i_size // PAGE_SIZE)
        kind = private if p.mapping == "file-private" else shared
        mmap.do_mmap(mm, filemap.File(mapping), at, length, rw, kind | fixed)
    elif p.mapping == "stack":
        flags = private | fixed | mmap.MAP_ANONYMOUS | mmap.MAP_GROWSDOWN
        mmap.do_mmap(mm, None, at + 4 * PAGE_SIZE, length, rw, flags)
    _fault_entry(m, p)
    return m, _FAULT_AT


def _fault_entry(m: Machine, p: SimpleNamespace) -> None:
    """Bring the entry at the address into the state that was chosen."""
    mm = m.current.mm
    if p.entry != "empty" and p.mapping not in ("anon", "anon-ro"):
        if p.entry == "zero" or p.mapping in ("none", "stack", "beyond"):
            raise ParamError(
                "entry",
                f"'{ENTRIES[p.entry]}' does not go with '{MAPPINGS[p.mapping]}'; choose 'empty'",
            )
    if p.entry != "empty":
        touch(m, _FAULT_AT, "r" if p.entry == "zero" else "w")
    if p.entry == "forked":
        kernel_clone(m.current)
    vma = mm.mm_mt.walk(_FAULT_AT)
    if p.entry == "swap":
        if not p.mapping.startswith("anon"):
            raise ParamError(
                "entry", "only anonymous pages go to swap; choose an anonymous mapping"
            )
        ptep, _ = pg.lookup_address(mm, _FAULT_AT)
        assert ptep is not None
        slot = pg.pte_swp_mkexclusive(swapops.swp_entry_to_pte(swapops.swp_entry(0, 0x1234)))
        ptep[0][ptep[1]] = slot
        mm_.add_mm_counter(mm, mm_.MM_ANONPAGES, -1)
        mm_.add_mm_counter(mm, mm_.MM_SWAPENTS, 1)
    access_flags = mm_.VM_READ | mm_.VM_WRITE | mm_.VM_EXEC
    if p.entry == "prot_none":
        vma.vm_flags &= ~access_flags
    elif p.mapping == "anon-ro":
        vma.vm_flags &= ~mm_.VM_WRITE
    if vma is not None and (p.entry == "prot_none" or p.mapping == "anon-ro"):
        vma.vm_page_prot = pg.vm_get_page_prot(vma.vm_flags)
        if p.entry not in ("empty", "swap"):
            pg.protect_range(mm, _FAULT_AT, 1, vma.vm_page_prot)
    tlb_.flush_tlb_mm(mm)


def _script_writer(m: Machine) -> None:
    """Let a writer lock the mapping while it is being looked up, and finish before the fault waits for it."""
    mm = m.current.mm

    def begin() -> None:
        mm_.mmap_write_lock(mm)
        vma = mm.mm_mt.walk(_FAULT_AT)
        if vma is not None:
            mm_.vma_start_write(vma)

    m.race_points["mas_walk"] = [begin]
    m.race_points["lock_mmap"] = [lambda: mm_.mmap_write_unlock(mm)]


def fault_run(p: SimpleNamespace) -> tuple[list[dict[str, Any]], Any]:
    """Return the steps of the access (function, decision, locks held) and what it ended in."""
    m, address = fault_setup(p)
    if p.writer:
        if p.mode == "kernel" or p.mapping == "kernel":
            raise ParamError(
                "writer",
                "the kernel's own faults and kernel addresses never look at the mapping's lock",
            )
        _script_writer(m)
    with m.trace.record("model:fault_step", "exceptions:page_fault_*") as log:
        ended = touch(m, address, p.access, p.mode == "user")
    rows: list[dict[str, Any]] = []
    for event in log:
        f = event.fields
        if "error_code" in f:
            rows.append(
                {
                    "function": "#PF",
                    "step": f"error code {f['error_code']:#x}",
                    "lock": "",
                    "node": "entry",
                }
            )
            continue
        node = _NODE_OF.get((f["function"], f["step"])) or _NODE_OF.get(f["function"])
        rows.append({"function": f["function"], "step": f["step"], "lock": f["lock"], "node": node})
    task = m.current
    summary = {"min_flt": task.min_flt, "maj_flt": task.maj_flt, "rss": mm_.get_mm_rss(task.mm)}
    return rows, (ended, summary)


def _outcome(ended: Any) -> str:
    kind = type(ended).__name__
    if kind == "Translation":
        return "the access goes through" + (f", at page frame {ended.pfn:#x}" if ended.pfn else "")
    if kind == "Fixup":
        return "the kernel's instruction is in the exception table: -EFAULT"
    if kind == "Oops":
        return "an oops"
    return str(ended)


def _fault_drawing(
    path: Sequence[str], rows: Sequence[dict[str, Any]], total: int = 1
) -> svg.Drawing:
    """Return the graph with the path lit, and the last steps of @total below it; rows to come are empty."""
    lit = list(dict.fromkeys(path))
    d = svg.Drawing()
    d.add(
        svg.flow(
            FLOW_NODES,
            FLOW_EDGES,
            lit=lit,
            now=lit[-1] if lit else "",
            gap=20,
            box_width=124,
            margin=4,
        )
    )
    shown = rows[-6:]
    table = [[r["function"], r["step"] or "-", r["lock"] or "-"] for r in shown]
    table += [["", "", ""]] * (min(total, 6) - len(shown))
    d.add(
        svg.table(
            ["function", "what it decides", "locks held"],
            table,
            widths=[176, 244, 140],
            lit={len(shown) - 1},
            y=d.bottom + 12,
        )
    )
    return d


@explorable(
    "ch03.fault",
    title="The path of a page fault",
    key=("end",),
    help="Choose mapping, access and entry; step through what the kernel does.",
    params=dict(
        mapping=Choice("anon", MAPPINGS),
        entry=Choice("zero", ENTRIES, help="what the page-table entry holds before the access"),
        access=Choice("w", {"r": "read", "w": "write", "x": "execute"}),
        mode=Choice("user", {"user": "user mode", "kernel": "the kernel, copying to or from the user"}),
        writer=Bool(False, label="a writer holds the mapping", help="another thread write-locks it while it is looked up"),
        cached=Bool(True, label="file is in the page cache"),
    ),
)  # fmt: skip
def fault(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield one frame for each decision."""
    rows, (ended, summary) = fault_run(p)
    kind = {"r": "A read", "w": "A write", "x": "An instruction fetch"}[p.access]
    what = f"{kind}; mapping: {MAPPINGS[p.mapping]}; entry: {ENTRIES[p.entry]}"
    if not rows:
        d = _fault_drawing((), [{"function": "processor", "step": "translates", "lock": ""}])
        yield Frame(
            d,
            f"**No fault.** {what}: the processor finds everything it needs; {_outcome(ended)}.",
            f"{what}: no fault.",
            mark="end",
        )
        return
    path: list[str] = []
    for i, row in enumerate(rows):
        if row["node"] == "entry":
            path = []
        if row["node"]:
            path.append(row["node"])
        last = i == len(rows) - 1
        if last and type(ended).__name__ == "Translation":
            path.append("done")
        step = f"`{row['function']}`: {row['step'] or 'done'}"
        lock = f" Locks held: {row['lock']}." if row["lock"] else ""
        text = f"{step}.{lock}"
        if last:
            counts = f"{_plural(summary['min_flt'], 'minor')} and {_plural(summary['maj_flt'], 'major')}".replace(
                "minors", "minor"
            ).replace(
                "majors", "major"
            )
            text = f"**{what}. It ends: {_outcome(ended)}.** {text} Faults so far: {counts}; resident {_plural(summary['rss'], 'page')}."
        alt = re.sub(r"[*`]", "", text)
        yield Frame(_fault_drawing(path, rows[: i + 1], len(rows)), text, f"Step {i + 1} of {len(rows)}. {alt}", mark="end" if last else "", event=None,
                    data={**row, "outcome": _outcome(ended) if last else None, **(summary if last else {})})  # fmt: skip


# ---- ch03.touch: what touching costs -------------------------------------------------------------

TOUCH_BASE = 0x2000_0000_0000
_CELLS = 512


def _touch_machine(p: SimpleNamespace) -> tuple[Machine, Any]:
    """Return a machine with one mapping of the chosen kind, and the mapping's address space."""
    nr = p.mib << 8
    m = small_machine(max(4096, 2 * nr + 4096))
    m.transparent_hugepage_enabled = "always" if p.huge == "2M" else "never"
    m.mthp_enabled = {9: "inherit", **({4: "always"} if p.huge == "64K" else {})}
    memory.fault_around_bytes_set(m, (64 << 10) if p.around else 4096)
    task = spawn(m, "toucher")
    assert task.mm is not None
    task.mm.forbids_zeropage = not p.zero_page
    rw = mmap.PROT_READ | mmap.PROT_WRITE
    if p.kind == "anon":
        flags = mmap.MAP_PRIVATE | mmap.MAP_FIXED | mmap.MAP_ANONYMOUS
        mmap.do_mmap(task.mm, None, TOUCH_BASE, p.mib << 20, rw, flags)
    else:
        mapping = filemap.AddressSpace(i_size=p.mib << 20, name="data")
        filemap.populate(m, mapping, 0, nr)
        mmap.do_mmap(
            task.mm,
            filemap.File(mapping),
            TOUCH_BASE,
            p.mib << 20,
            rw,
            mmap.MAP_SHARED | mmap.MAP_FIXED,
        )
    return m, task


def touch_state(task: Any, nr: int) -> dict[str, Any]:
    """Return counters and, for each page of the mapping, what its entry maps: ``""``, zero, anon or file."""
    mm, m = task.mm, task.machine
    pages = [""] * nr
    for address, level, entry in pg.iter_leaves(mm, TOUCH_BASE, TOUCH_BASE + (nr << PAGE_SHIFT)):
        pfn = pg.leaf_pfn(entry, level)
        huge_zero = m.paging.huge_zero_folio
        if pfn == m.zero_pfn or (huge_zero is not None and pfn == huge_zero.pfn):
            kind = "zero"
        else:
            kind = "file" if mm.mm_mt.walk(address).vm_file is not None else "anon"
        first = address - TOUCH_BASE >> PAGE_SHIFT
        pages[first : first + (1 << 9 * (level - 1))] = [kind] * (1 << 9 * (level - 1))
    return {
        "minor faults": task.min_flt,
        "major faults": task.maj_flt,
        "resident pages": mm_.get_mm_rss(mm),
        "KiB resident": mm_.get_mm_rss(mm) * 4,
        "KiB of tables": mm.pgtables_bytes >> 10,
        "pages": pages[:nr],
    }


def _touch_drawing(
    state: dict[str, Any], before: dict[str, Any], p: SimpleNamespace
) -> svg.Drawing:
    pages = state["pages"]
    scale = -(-len(pages) // _CELLS)
    cells, levels = [], []
    for i in range(0, len(pages), scale):
        part = [k for k in pages[i : i + scale] if k]
        kind = max(sorted(set(part)), key=part.count) if part else ""
        cells.append({"zero": "used", "": ""}.get(kind, kind))
        levels.append(len(part) / scale)
    d = svg.Drawing()
    unit = "1 page" if scale == 1 else f"{scale} pages, filled as far as they are mapped"
    d.add(svg.paragraph(f"{p.mib} MiB; one cell is {unit}", size=svg.SMALL, ink="muted"))
    d.add(svg.cell_map(cells, levels=levels, y=d.bottom + 4))
    kinds = ["anon", "used"] if p.kind == "anon" else ["file"]
    labels = {
        "used": "zero page, or huge zero page",
        "anon": "anonymous page",
        "file": "page-cache page",
    }
    d.add(svg.legend(kinds, labels=labels, y=d.bottom + 8))
    names = ("minor faults", "major faults", "resident pages", "KiB resident", "KiB of tables")
    rows = [[n, f"{before[n]:,}", f"{state[n]:,}", f"{state[n] - before[n]:+,}"] for n in names]
    d.add(svg.table(["", "before", "now", "difference"], rows, right={1, 2, 3}, y=d.bottom + 8))
    return d


@explorable(
    "ch03.touch",
    title="Touching pages, before and after",
    key=("end",),
    help="Change stride, access and page sizes; the totals are the engine's.",
    params=dict(
        kind=Choice("anon", {"anon": "private anonymous", "file": "shared file, cached"}),
        mib=Int(4, 1, 32, label="length", unit="MiB"),
        stride=Int(8, 1, 4096, unit="pages", help="touch every n-th page"),
        access=Choice("rw", {"r": "read", "w": "write", "rw": "read all, then write all", "wr": "write all, then read all"}),
        huge=Choice("never", {"never": "4 KiB pages only", "64K": "64 KiB folios (mTHP)", "2M": "2 MiB huge pages"}, label="folio sizes"),
        around=Bool(True, label="fault-around"),
        zero_page=Bool(True, label="zero page allowed"),
    ),
)  # fmt: skip
def touch_map(p: SimpleNamespace) -> Iterator[Frame]:
    """Yield the mapping before, at about twenty moments, and after."""
    nr = p.mib << 8
    if p.stride > nr:
        raise ParamError("stride", f"{p.stride} is longer than the mapping's {nr} pages")
    m, task = _touch_machine(p)
    before = touch_state(task, nr)
    todo = [(how, page) for how in p.access for page in range(0, nr, p.stride)]
    step = -(-len(todo) // 20)
    yield Frame(
        _touch_drawing(before, before, p),
        f"**{p.mib} MiB mapped, nothing allocated.** No page, and no page table.",
        f"The mapping of {p.mib} MiB before the first access: no page is mapped.",
        mark="start",
        data={k: v for k, v in before.items() if k != "pages"},
    )
    verb = {"r": "Reading", "w": "Writing"}
    for i, (how, page) in enumerate(todo, 1):
        touch(m, TOUCH_BASE + (page << PAGE_SHIFT), how)
        if i % step and i != len(todo):
            continue
        state = touch_state(task, nr)
        faults = state["minor faults"] + state["major faults"]
        each = "every page" if p.stride == 1 else f"one page in {p.stride}"
        text = (
            f"**{i:,} {'access' if i == 1 else 'accesses'}, {_plural(faults, 'fault')}, "
            f"{_plural(state['resident pages'], 'resident page')}, {state['KiB of tables']} KiB of tables.** "
            f"{verb[how]} {each}."
        )
        alt = re.sub(r"[*`]", "", text)
        data = {k: v for k, v in state.items() if k != "pages"}
        yield Frame(
            _touch_drawing(state, before, p),
            text,
            alt,
            mark="end" if i == len(todo) else "",
            data=data,
        )
