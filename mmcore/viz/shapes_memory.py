"""Shapes for memory: pages and blocks, free lists, watermarks, bit fields, address ranges, page-table walks.

They draw what they are handed. None of them knows a rule of the kernel: which block is free, in which order a
list stands or which mark a request is held to is decided by the engine and passed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from mmcore.errors import UsageError
from mmcore.viz import palette
from mmcore.viz.draw import (
    SIZE,
    SMALL,
    WIDTH,
    Part,
    arrow,
    hatch,
    line,
    num,
    paragraph,
    path,
    rect,
    text,
    text_width,
)

__all__ = [
    "Block",
    "Entry",
    "FieldSpec",
    "WalkStep",
    "bit_fields",
    "bytes_map",
    "cell_map",
    "free_lists",
    "gauge",
    "legend",
    "page_grid",
    "page_strip",
    "ruler",
    "walk",
]


@dataclass(frozen=True)
class Block:
    """A run of pages that is drawn as one outline.

    :param pfn: its first page
    :param order: its order; or give its length with @nr
    :param kind: a hue of the palette, or ``"hole"``
    :param label: what stands inside; by default the hue's letter and, for more than one page, the order
    :param states: of ``dirty``, ``writeback``, ``referenced``, ``active``, ``pinned``
    :param focus: whether it is the one we are discussing
    """

    pfn: int
    order: int = 0
    kind: str = "used"
    nr: int = 0
    label: str | None = None
    states: tuple[str, ...] = ()
    focus: bool = False

    @property
    def pages(self) -> int:
        """Its length in pages."""
        return self.nr or 1 << self.order

    def text(self) -> str:
        """Return what stands inside."""
        if self.label is not None:
            return self.label
        letter = palette.LETTERS.get(self.kind, "")
        if self.nr or not self.order:
            return letter
        return f"{letter}{self.order}"


def _outline(first: int, last: int, per_row: int, x: float, y: float, w: float, h: float) -> str:
    """Return the path around cells @first to @last (inclusive) of a grid with @per_row cells in a row."""
    r0, c0 = divmod(first, per_row)
    r1, c1 = divmod(last, per_row)
    left, right = x, x + per_row * w
    xa, xb = x + c0 * w, x + (c1 + 1) * w
    ya, yb = y + r0 * h, y + (r1 + 1) * h
    if r0 == r1 or (c0 == 0 and c1 == per_row - 1):
        if r0 != r1:
            xa, xb = left, right
        return f"M{num(xa)} {num(ya)}H{num(xb)}V{num(yb)}H{num(xa)}Z"
    if r1 == r0 + 1 and c1 < c0:
        one = f"M{num(xa)} {num(ya)}H{num(right)}V{num(ya + h)}H{num(xa)}Z"
        return one + f"M{num(left)} {num(yb - h)}H{num(xb)}V{num(yb)}H{num(left)}Z"
    d = f"M{num(xa)} {num(ya)}H{num(right)}V{num(yb - h)}H{num(xb)}V{num(yb)}H{num(left)}V{num(ya + h)}H{num(xa)}Z"
    return d


def _segments(first: int, last: int, per_row: int) -> list[tuple[int, int, int]]:
    """Return (row, first column, last column) of each row that cells @first to @last touch."""
    out = []
    for row in range(first // per_row, last // per_row + 1):
        begin = max(first, row * per_row) - row * per_row
        end = min(last, row * per_row + per_row - 1) - row * per_row
        out.append((row, begin, end))
    return out


def _treated(block: Block, boxes: Sequence[tuple[float, float, float, float]]) -> list[str]:
    """Return what the block's states draw over it; @boxes are its rows' rectangles."""
    out = []
    for state in block.states:
        if state not in palette.TREATMENTS:
            raise UsageError(f"no state {state!r}; there are {', '.join(palette.TREATMENTS)}")
    bx, by, bw, bh = boxes[0]
    for x, y, w, h in boxes:
        if "dirty" in block.states:
            out.append(hatch(x, y, w, h, block.kind))
        if "writeback" in block.states:
            out.append(hatch(x, y, w, h, block.kind, back=True))
    if "pinned" in block.states:
        d = f"M{num(bx)} {num(by)}L{num(bx + bw)} {num(by + bh)}M{num(bx)} {num(by + bh)}L{num(bx + bw)} {num(by)}"
        colour = palette.hue(block.kind).on_light
        out.append(
            f'<path class="mm-hatch-{block.kind}" stroke="{colour}" stroke-width="1.5" fill="none" d="{d}"/>'
        )
    if "referenced" in block.states:
        r = min(bw, bh) * 0.16
        out.append(
            f'<circle class="mm-on-{block.kind}" fill="{palette.hue(block.kind).on_light}"'
            f' cx="{num(bx + bw - 2 * r)}" cy="{num(by + 2 * r)}" r="{num(r)}"/>'
        )
    return out


def _draw_block(
    block: Block, first: int, last: int, per_row: int, place: tuple[float, float, float, float]
) -> list[str]:
    """Return one block's elements: outline with fill, states, label."""
    x, y, w, h = place
    d = _outline(first, last, per_row, x, y, w, h)
    if block.kind == "hole":
        items = [
            path(
                d,
                stroke="ink" if block.focus else "muted",
                width=2 if block.focus else 1,
                dash="3 3",
            )
        ]
        on = None
    else:
        width = 2 if block.focus else 2.5 if "active" in block.states else 0.8
        items = [path(d, block.kind, stroke="ink", width=width)]
        on = block.kind
    boxes = [
        (x + a * w, y + r * h, (b - a + 1) * w, h) for r, a, b in _segments(first, last, per_row)
    ]
    if block.states and on:
        items += _treated(block, boxes)
    label = block.text()
    if label:
        full = [b for b in boxes if b[2] == max(box[2] for box in boxes)]
        bx, bw = full[0][0], full[0][2]
        top, bottom = full[0][1], full[-1][1] + h
        if text_width(label, SMALL) <= bw - 1 and h >= SMALL:
            middle = (top + bottom) / 2 + SMALL * 0.35
            if on and {"dirty", "writeback"} & set(block.states):
                half = text_width(label, SMALL) / 2 + 2
                items.append(rect(bx + bw / 2 - half, middle - 11, 2 * half, 14, on))
            items.append(
                text(bx + bw / 2, middle, label, size=SMALL, anchor="middle", on=on, ink="muted")
            )
    return items


def page_grid(
    blocks: Sequence[Block],
    *,
    nr_pages: int,
    start_pfn: int = 0,
    per_row: int = 32,
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    row_height: float = 18,
    hexadecimal: bool = False,
) -> Part:
    """Return pages as cells, left to right and then down; the pfn of each row's first page stands before it.

    :param blocks: what is drawn over the empty grid, in this order; a block with focus comes last
    :param per_row: cells in a row, a power of two so that aligned blocks are rectangles
    """
    if nr_pages < 1 or per_row < 1:
        raise UsageError(f"page_grid(): {nr_pages} pages in rows of {per_row}")
    rows = -(-nr_pages // per_row)
    show = hex if hexadecimal else str
    gutter = (
        max(text_width(show(start_pfn + r * per_row), SMALL, mono=True) for r in (0, rows - 1)) + 8
    )
    gx, w, h = x + gutter, (width - gutter) / per_row, row_height
    items = [path(_outline(0, nr_pages - 1, per_row, gx, y, w, h), "paper", stroke="faint")]
    if w >= 5:
        ticks = "".join(
            f"M{num(gx + c * w)} {num(y)}V{num(y + rows * h)}" for c in range(1, per_row)
        )
        ticks += "".join(
            f"M{num(gx)} {num(y + r * h)}H{num(gx + per_row * w)}" for r in range(1, rows)
        )
        full = nr_pages == rows * per_row
        if ticks and full:
            items.append(path(ticks, stroke="faint", width=0.5))
    for r in range(rows):
        base = y + r * h + h / 2 + SMALL * 0.35
        if h >= SMALL or r % 2 == 0:
            pfn = show(start_pfn + r * per_row)
            items.append(text(gx - 6, base, pfn, size=SMALL, anchor="end", ink="muted", mono=True))
    for block in sorted(blocks, key=lambda b: b.focus):
        first, last = block.pfn - start_pfn, block.pfn - start_pfn + block.pages - 1
        first, last = max(first, 0), min(last, nr_pages - 1)
        if first <= last:
            items += _draw_block(block, first, last, per_row, (gx, y, w, h))
    return Part(items, x, y, width, rows * h)


def page_strip(
    blocks: Sequence[Block],
    *,
    nr_pages: int,
    start_pfn: int = 0,
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    height: float = 26,
    ticks: Sequence[int] | None = None,
    label: str = "",
) -> Part:
    """Return pages as one row of cells with a scale of pfns below it.

    :param ticks: the pfns to print; by default up to nine evenly spaced powers of two
    :param label: what stands before the strip's first line, above it
    """
    items: list[str] = []
    top = y
    if label:
        items.append(text(x, y + SMALL, label, size=SMALL, ink="muted"))
        top += SMALL * 1.5
    w = width / nr_pages
    items.append(rect(x, top, width, height, "paper", stroke="faint"))
    if w >= 5:
        d = "".join(f"M{num(x + c * w)} {num(top)}v{num(height)}" for c in range(1, nr_pages))
        items.append(path(d, stroke="faint", width=0.5) if d else "")
    for block in sorted(blocks, key=lambda b: b.focus):
        first, last = (
            max(block.pfn - start_pfn, 0),
            min(block.pfn - start_pfn + block.pages, nr_pages) - 1,
        )
        if first <= last:
            items += _draw_block(block, first, last, nr_pages, (x, top, w, height))
    if ticks is None:
        step = 1
        while (
            nr_pages / step > 8
            or text_width(str(start_pfn + nr_pages), SMALL, mono=True) + 8 > step * w
        ):
            step *= 2
        ticks = range(start_pfn, start_pfn + nr_pages + 1, step)
    base = top + height + SMALL + 4
    for pfn in ticks:
        tx = x + (pfn - start_pfn) * w
        anchor = "start" if tx < x + 12 else "end" if tx > x + width - 12 else "middle"
        items.append(text(tx, base, pfn, size=SMALL, anchor=anchor, ink="muted", mono=True))
    return Part([i for i in items if i], x, y, width, base + 4 - y)


@dataclass(frozen=True)
class Entry:
    """One element of a list: its text (a pfn), the hue of its chip, whether it is the one we discuss."""

    text: object
    kind: str = "free"
    focus: bool = False


def free_lists(
    rows: Sequence[tuple[str, Sequence[Entry]]],
    *,
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    heading: tuple[str, str] = ("list", "head first"),
    row_height: float = 24,
    counts: bool = True,
    reverse: bool = False,
) -> Part:
    """Return lists one below the other, each in its order: the head is the leftmost chip.

    What does not fit is counted (``+12``); the last chip is then the list's tail.

    :param rows: (label, entries from head to tail) of each list
    :param reverse: draw the last row on top, so that high orders stand above low ones
    """
    label_w = (
        max([text_width(label, SIZE) for label, _ in rows] + [text_width(heading[0], SMALL)]) + 12
    )
    count_w = 34 if counts else 0
    room = width - label_w - count_w
    items = [
        text(x, y + SMALL, heading[0], size=SMALL, ink="muted"),
        text(x + label_w, y + SMALL, heading[1], size=SMALL, ink="muted"),
    ]
    if counts:
        items.append(text(x + width, y + SMALL, "count", size=SMALL, ink="muted", anchor="end"))
    top = y + SMALL * 1.6
    ordered = list(reversed(rows)) if reverse else list(rows)
    d = "".join(
        f"M{num(x)} {num(top + i * row_height)}h{num(width)}" for i in range(len(ordered) + 1)
    )
    items.append(path(d, stroke="faint", width=0.75))
    for i, (label, entries) in enumerate(ordered):
        ry = top + i * row_height
        base = ry + row_height / 2 + SIZE * 0.35
        items.append(text(x, base, label))
        items += _chips(entries, x + label_w, ry + 3, room, row_height - 6)
        if counts:
            ink = "ink" if entries else "muted"
            items.append(
                text(x + width, base, len(entries), anchor="end", ink=ink, mono=True, size=SMALL)
            )
    return Part(items, x, y, width, top + len(ordered) * row_height - y)


def _chips(entries: Sequence[Entry], x: float, y: float, room: float, h: float) -> list[str]:
    """Return @entries as chips joined by a line, as many as fit into @room."""
    widths = [max(text_width(str(e.text), SMALL, mono=True) + 12, 22) for e in entries]
    gap = 9
    shown = list(range(len(entries)))
    if fsum(widths) + gap * (len(widths) - 1) > room:
        used, shown = 44.0 + (widths[-1] if widths else 0), []
        for i, w in enumerate(widths[:-1]):
            if used + w + gap > room:
                break
            used += w + gap
            shown.append(i)
        shown.append(len(entries) - 1)
    out: list[str] = []
    at = x
    links = ""
    last = -1
    chips: list[str] = []
    for i in shown:
        if i != last + 1:
            chips.append(
                text(
                    at + 14,
                    y + h / 2 + SMALL * 0.35,
                    f"+{i - last - 1}",
                    size=SMALL,
                    anchor="middle",
                    ink="muted",
                )
            )
            at += 28 + gap
        if last >= 0:
            links += f"M{num(at - gap)} {num(y + h / 2)}h{num(gap)}"
        entry, w = entries[i], widths[i]
        chips.append(
            rect(at, y, w, h, entry.kind, stroke="ink", width=2 if entry.focus else 0.8, rx=3)
        )
        chips.append(
            text(
                at + w / 2,
                y + h / 2 + SMALL * 0.35,
                entry.text,
                size=SMALL,
                anchor="middle",
                on=entry.kind,
                mono=True,
            )
        )
        at += w + gap
        last = i
    if links:
        out.append(path(links, stroke="muted"))
    return out + chips


def gauge(
    level: float,
    marks: Sequence[tuple[str, float]],
    *,
    top: float,
    users: Sequence[tuple[str, float, bool]] = (),
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    height: float = 26,
    unit: str = "pages",
    level_label: str = "free",
) -> Part:
    """Return a horizontal gauge from 0 to @top with its marks, and below it how far each user may go.

    :param level: how much there is
    :param marks: (name, value) of each mark
    :param users: (name, the level it may use up to, whether its request succeeds now)
    """
    scale = width / top if top > 0 else 0.0

    def at(value: float) -> float:
        return x + min(max(value, 0), top) * scale

    items = [text(x, y + SMALL, f"{level_label} {level:,.0f} {unit}", size=SMALL, bold=True)]
    bar = y + SMALL * 1.7
    items.append(rect(x, bar, width, height, "paper", stroke="muted"))
    items.append(rect(x, bar, max(at(level) - x, 0.01), height, "free"))
    items.append(line(at(level), bar - 4, at(level), bar + height, width=2))
    marks = sorted(marks, key=lambda m: m[1])
    levels: list[float] = []
    base = bar + height
    for name, value in marks:
        label = f"{name} {value:,.0f}"
        half = text_width(label, SMALL) / 2
        cx = min(max(at(value), x + half), x + width - half)
        row = next((i for i, right in enumerate(levels) if right + 8 <= cx - half), len(levels))
        if row == len(levels):
            levels.append(0)
        levels[row] = cx + half
        ty = base + 18 + row * SMALL * 1.4
        items.append(
            line(
                at(value),
                bar,
                at(value),
                ty - SMALL,
                "ink",
                width=1.25,
                dash=None if value else "2 2",
            )
        )
        items.append(text(cx, ty, label, size=SMALL, anchor="middle"))
    bottom = base + 8 + len(levels) * SMALL * 1.4
    if not users:
        return Part(items, x, y, width, bottom + 8 - y)
    part = _gauge_users(users, at, x, bottom + 12, width)
    return Part(items + part.items, x, y, width, part.bottom - y)


def _gauge_users(
    users: Sequence[tuple[str, float, bool]], at: object, x: float, y: float, width: float
) -> Part:
    """Return one row for each user of a gauge: the part of the scale that it may use."""
    assert callable(at)
    row = 22.0
    items: list[str] = []
    for i, (name, floor, allowed) in enumerate(users):
        ry = y + i * row
        start = float(at(floor))
        items.append(
            rect(
                start,
                ry + 4,
                max(x + width - start, 1),
                row - 8,
                "free" if allowed else "panel",
                stroke="muted",
                width=0.75,
            )
        )
        items.append(
            line(start, ry + 1, start, ry + row - 1, "ink" if allowed else "wrong", width=2.5)
        )
        sign = "✓" if allowed else "✗"
        label = f"{sign} {name}"
        room = text_width(label, SMALL) + 8
        inside = x + width - start > room
        tx = start + 6 if inside else start - 6
        ink = "ink" if allowed else "wrong"
        items.append(
            text(
                tx,
                ry + row / 2 + SMALL * 0.35,
                label,
                size=SMALL,
                anchor="start" if inside else "end",
                ink=ink,
            )
        )
    return Part(items, x, y, width, row * len(users) + 4)


@dataclass(frozen=True)
class FieldSpec:
    """A named run of bits, @hi to @lo inclusive; or of bytes in `bytes_map()`, @lo their offset, @hi the last.

    :param meaning: what its value says, in a few words
    :param kind: the hue of its cells
    :param on: whether it is worth attention: drawn strong, listed
    """

    name: str
    hi: int
    lo: int
    meaning: str = ""
    kind: str = "panel"
    on: bool = True
    focus: bool = False


def bit_fields(
    value: int,
    fields: Sequence[FieldSpec],
    *,
    bits: int = 64,
    per_row: int = 32,
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    listing: bool = True,
    names: bool = False,
) -> Part:
    """Return a number as its bits, with its fields outlined and, below, listed with their values and meanings.

    :param fields: need not cover every bit; highest first is how they are listed
    :param listing: whether to print the list
    :param names: whether to print the fields' names under their bits, where there is room
    """
    per_row = min(per_row, bits)
    rows = -(-bits // per_row)
    w = width / per_row
    cell, pitch = 22.0, 22.0 + SMALL * 1.5 + (SMALL * 1.6 if names else 8)
    items: list[str] = []
    tops = [bits - 1 - r * per_row for r in range(rows)]
    for r in range(rows):
        hi = tops[r]
        lo = max(hi - per_row + 1, 0)
        top = y + r * pitch + SMALL * 1.5
        items.append(rect(x, top, (hi - lo + 1) * w, cell, "paper", stroke="faint"))
        edges = {hi, lo}
        for f in fields:
            a, b = min(f.hi, hi), max(f.lo, lo)
            if a < b:
                continue
            edges |= {a, b}
            fx = x + (hi - a) * w
            if names and a - b == max(min(f.hi, h) - max(f.lo, h - per_row + 1) for h in tops):
                items += _name_under(f, fx, (a - b + 1) * w, top + cell)
            items.append(
                rect(
                    fx, top, (a - b + 1) * w, cell, f.kind, stroke="ink", width=2 if f.focus else 1
                )
            )
        items += _bit_numbers(sorted(edges, reverse=True), hi, x, top - 4, w)
        items += _bit_digits(value, fields, hi, lo, (x, top + cell / 2 + SMALL * 0.35, w))
    bottom = y + rows * pitch - 4
    if not listing:
        return Part(items, x, y, width, bottom - y)
    for f in sorted(fields, key=lambda f: -f.hi):
        items_f, bottom = _field_line(f, value, x, bottom, width)
        items += items_f
    return Part(items, x, y, width, bottom + 4 - y)


def _name_under(f: FieldSpec, x: float, width: float, y: float) -> list[str]:
    """Return a field's name below its bits, if it fits."""
    if text_width(f.name, SMALL) > width + 8:
        return []
    return [
        text(x + width / 2, y + SMALL * 1.15, f.name, size=SMALL, anchor="middle", bold=f.focus)
    ]


def _bit_numbers(edges: Sequence[int], hi: int, x: float, base: float, w: float) -> list[str]:
    """Return the numbers of the bits at the edges of fields, as many as there is room for."""
    out = []
    free_from = x - 100
    for bit in edges:
        centre = x + (hi - bit + 0.5) * w
        half = text_width(str(bit), SMALL) / 2
        if centre - half >= free_from:
            out.append(text(centre, base, bit, size=SMALL, anchor="middle", ink="muted"))
            free_from = centre + half + 3
    return out


def _bit_digits(
    value: int, fields: Sequence[FieldSpec], hi: int, lo: int, at: tuple[float, float, float]
) -> list[str]:
    """Return the digits of bits @hi to @lo: one text element for each field and each gap between fields."""
    x, base, w = at
    owner: dict[int, FieldSpec] = {b: f for f in fields for b in range(f.lo, f.hi + 1)}
    out, run = [], [hi]
    for bit in range(hi - 1, lo - 2, -1):
        if bit >= lo and owner.get(bit) is owner.get(run[-1]):
            run.append(bit)
            continue
        field = owner.get(run[0])
        xs = " ".join(num(x + (hi - b + 0.5) * w) for b in run)
        digits = "".join(str(value >> b & 1) for b in run)
        kind = field.kind if field else "paper"
        strong = ' font-weight="700"' if field and field.on else ' fill-opacity="0.65"'
        out.append(
            f'<text class="mm-on-{kind}" fill="{palette.hue(kind).on_light}" x="{xs}" y="{num(base)}"'
            f' font-size="{SMALL}" text-anchor="middle"{strong}>{digits}</text>'
        )
        run = [bit]
    return out


def _field_line(
    f: FieldSpec, value: int, x: float, y: float, width: float
) -> tuple[list[str], float]:
    """Return one line of a field list and where the next begins."""
    bits = f"{f.hi}" if f.hi == f.lo else f"{f.hi}–{f.lo}"
    size = f.hi - f.lo + 1
    number = value >> f.lo & ((1 << size) - 1)
    shown = str(number) if size <= 3 else hex(number)
    ink = "ink" if f.on else "muted"
    base = y + SMALL * 1.3
    items = [
        text(x + 44, base, bits, size=SMALL, ink="muted", anchor="end"),
        text(x + 54, base, f.name, size=SMALL, ink=ink, bold=f.on),
        text(x + 250, base, shown, size=SMALL, ink=ink, mono=True, anchor="end"),
    ]
    words = paragraph(
        f.meaning, x + 262, y + SMALL * 0.3, width - 262, size=SMALL, ink=ink, leading=1.3
    )
    return items + (words.items if f.meaning else []), y + max(
        SMALL * 1.5, words.h if f.meaning else 0
    )


def bytes_map(
    fields: Sequence[FieldSpec],
    *,
    size: int = 64,
    per_row: int = 8,
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    row_height: float = 26,
) -> Part:
    """Return a structure as its bytes, @per_row in a row; a field's @lo and @hi are its first and last byte."""
    rows = -(-size // per_row)
    gutter = text_width(str(size), SMALL, mono=True) + 8
    gx, w = x + gutter, (width - gutter) / per_row
    items = [path(_outline(0, size - 1, per_row, gx, y, w, row_height), "paper", stroke="faint")]
    for r in range(rows):
        base = y + (r + 0.5) * row_height + SMALL * 0.35
        items.append(
            text(gx - 6, base, r * per_row, size=SMALL, anchor="end", ink="muted", mono=True)
        )
    for f in sorted(fields, key=lambda f: f.focus):
        d = _outline(f.lo, f.hi, per_row, gx, y, w, row_height)
        items.append(path(d, f.kind, stroke="ink", width=2 if f.focus else 0.8))
        boxes = _segments(f.lo, f.hi, per_row)
        _row, a, b = max(boxes, key=lambda s: s[2] - s[1])
        same = [s for s in boxes if s[1:] == (a, b)]
        mid = y + (same[0][0] + same[-1][0] + 1) / 2 * row_height + SMALL * 0.35
        room = (b - a + 1) * w - 6
        label = f.name
        while label and text_width(label, SMALL) > room:
            label = label[:-2] + "…" if len(label) > 2 else ""
        if label:
            items.append(
                text(
                    gx + (a + b + 1) / 2 * w,
                    mid,
                    label,
                    size=SMALL,
                    anchor="middle",
                    on=f.kind,
                    bold=f.focus,
                )
            )
    return Part(items, x, y, width, rows * row_height)


def cell_map(
    cells: Sequence[str],
    *,
    levels: Sequence[float] | None = None,
    focus: Sequence[int] = (),
    per_row: int = 32,
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    row_height: float = 16,
    row_labels: Sequence[str] = (),
) -> Part:
    """Return many alike cells, such as pageblocks, with one path for each kind.

    :param cells: the hue of each cell, or ``""`` for none
    :param levels: how much of each cell, 0 to 1 from the bottom, is filled; the rest is paper
    :param focus: indices of cells outlined in ink
    """
    rows = -(-len(cells) // per_row)
    gutter = max([text_width(t, SMALL, mono=True) for t in row_labels] or [-8]) + 8
    gx, w, h = x + gutter, (width - gutter) / per_row, row_height
    pad = 0.6
    paths: dict[str, str] = {}
    for i, kind in enumerate(cells):
        r, c = divmod(i, per_row)
        part = 1.0 if levels is None else min(max(levels[i], 0.0), 1.0)
        if kind and part > 0:
            tall = (h - 2 * pad) * part
            paths[kind] = paths.get(kind, "") + (
                f"M{num(gx + c * w + pad)} {num(y + (r + 1) * h - pad)}h{num(w - 2 * pad)}v{num(-tall)}h{num(2 * pad - w)}z"
            )
    items = []
    if levels is not None:
        items.append(path(_outline(0, len(cells) - 1, per_row, gx, y, w, h), "panel"))
    items += [path(d, kind) for kind, d in sorted(paths.items())]
    for r, label in enumerate(row_labels[:rows]):
        items.append(
            text(
                gx - 6,
                y + (r + 0.5) * h + SMALL * 0.35,
                label,
                size=SMALL,
                anchor="end",
                ink="muted",
                mono=True,
            )
        )
    for i in focus:
        r, c = divmod(i, per_row)
        items.append(rect(gx + c * w, y + r * h, w, h, stroke="ink", width=2))
    return Part(items, x, y, width, rows * h)


def ruler(
    ranges: Sequence[tuple[str, int, int, str]],
    *,
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    row_height: float = 30,
    focus: str = "",
    size_of: Mapping[str, str] | None = None,
) -> Part:
    """Return address ranges one below the other, low addresses on top, each with its first address; not to scale.

    :param ranges: (name, first address, last address, hue or ``"hole"``)
    :param focus: the name of the one we are discussing
    :param size_of: what to print as the size of a range, by name; by default its length with a binary unit
    """
    address_w = text_width("ffff888000000000", SMALL, mono=True) + 10
    items: list[str] = []
    for i, (name, first, last, kind) in enumerate(ranges):
        top = y + i * row_height
        base = top + row_height / 2 + SMALL * 0.35
        items.append(text(x, base, f"{first:016x}", size=SMALL, mono=True, ink="muted"))
        strong = name == focus
        bx, bw = x + address_w, width - address_w
        if kind == "hole":
            items.append(rect(bx, top + 2, bw, row_height - 4, stroke="muted", dash="3 3"))
        else:
            items.append(
                rect(
                    bx, top + 2, bw, row_height - 4, kind, stroke="ink", width=2 if strong else 0.8
                )
            )
        on = None if kind == "hole" else kind
        items.append(text(bx + 8, base, name, size=SMALL, on=on, bold=strong, ink="muted"))
        size = (size_of or {}).get(name) or binary_size(last - first + 1)
        items.append(text(bx + bw - 8, base, size, size=SMALL, anchor="end", on=on, ink="muted"))
    return Part(items, x, y, width, len(ranges) * row_height)


def binary_size(n: int) -> str:
    """Return a number of bytes with a binary unit: ``64 TiB``."""
    for shift, unit in (
        (60, "EiB"),
        (50, "PiB"),
        (40, "TiB"),
        (30, "GiB"),
        (20, "MiB"),
        (10, "KiB"),
    ):
        if n >= 1 << shift:
            return f"{n / (1 << shift):.4g} {unit}"
    return f"{n} B"


@dataclass(frozen=True)
class WalkStep:
    """One level of a page-table walk.

    :param name: the level, ``"PGD"``
    :param index: the index into its table
    :param entry: the entry's value, or None where the walk has not been there
    :param note: what the entry says, in a few words
    :param state: ``todo``, ``now``, ``done`` or ``fault``
    :param table: what to print as the table's place
    """

    name: str
    index: int
    entry: int | None = None
    note: str = ""
    state: str = "done"
    table: str = ""


def walk(
    steps: Sequence[WalkStep],
    *,
    leaf: str = "",
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    height: float = 96,
    entries: int = 512,
) -> Part:
    """Return a page-table walk: the tables side by side, in each the entry that is read, and where it leads.

    :param leaf: what the last entry leads to, once it has been read
    """
    columns = len(steps) + 1
    pitch = width / columns
    table_w = min(pitch * 0.62, 64.0)
    top = y + SMALL * (3.2 if any(s.table for s in steps) else 1.8)
    items: list[str] = []
    for i, s in enumerate(steps):
        cx = x + i * pitch
        lit = s.state in ("now", "fault")
        seen = s.state != "todo"
        ink = "ink" if seen else "muted"
        items.append(text(cx, y + SMALL, s.name, bold=lit, ink=ink))
        items.append(
            text(cx, y + SMALL * 2.4, s.table, size=SMALL, ink="muted", mono=True)
            if s.table
            else ""
        )
        items.append(
            rect(cx, top, table_w, height, "panel", stroke=ink if seen else "faint", width=1)
        )
        slot = 16.0
        sy = top + (height - slot) * s.index / max(entries - 1, 1)
        kind = "lit" if lit else "paper"
        stroke = "wrong" if s.state == "fault" else "ink" if seen else "faint"
        items.append(rect(cx, sy, table_w, slot, kind, stroke=stroke, width=2 if lit else 1))
        base = sy + slot / 2 + SMALL * 0.35
        items.append(
            text(cx + table_w / 2, base, s.index, size=SMALL, anchor="middle", on=kind, mono=True)
        )
        if s.state == "done":
            target = top + 6 if i + 1 < len(steps) else top + height / 2
            bend = cx + (table_w + pitch) / 2
            route = [
                (cx + table_w, sy + slot / 2),
                (bend, sy + slot / 2),
                (bend, target),
                (cx + pitch - 3, target),
            ]
            items.append(arrow(route, "accent", width=2))
        items += _walk_entry(s, cx, top + height + 4, pitch - 8)
    if leaf and steps and steps[-1].state == "done":
        items += _walk_leaf(leaf, x + len(steps) * pitch, top + height / 2, pitch - 2)
    return Part([i for i in items if i], x, y, width, top + height + 4 + SMALL * 6.4 - y)


def _walk_leaf(leaf: str, x: float, middle: float, width: float) -> list[str]:
    """Return the box of what a walk ends at."""
    high = paragraph(leaf, width=width - 8, size=SMALL).h + 12
    top = middle - high / 2
    words = paragraph(leaf, x + width / 2, top + 4, width - 8, size=SMALL, anchor="middle")
    return [rect(x, top, width, high, "lit", stroke="ink", width=1.5), *words.items]


def _walk_entry(s: WalkStep, x: float, y: float, width: float) -> list[str]:
    """Return what is printed under a table: the entry's 16 digits in two lines, and its note."""
    if s.entry is None:
        return []
    digits = f"{s.entry:016x}"
    ink = "wrong" if s.state == "fault" else "ink"
    out = [
        text(x, y + SMALL, digits[:8], size=SMALL, mono=True, ink=ink),
        text(x, y + SMALL * 2.2, digits[8:], size=SMALL, mono=True, ink=ink),
    ]
    if s.note:
        out += paragraph(s.note, x, y + SMALL * 2.6, width, size=SMALL, ink=ink, leading=1.2).items
    return out


def legend(
    kinds: Sequence[str] = (),
    states: Sequence[str] = (),
    *,
    labels: Mapping[str, str] | None = None,
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
) -> Part:
    """Return swatches with words, in as many lines as they need."""
    items: list[str] = []
    at, row, box = x, y, 16.0
    for name in [*kinds, *states]:
        hue = palette.HUES.get(name)
        word = (labels or {}).get(name) or (hue.meaning if hue else name)
        need = box + 6 + text_width(word, SMALL) + 16
        if at + need > x + width + 16 and at > x:
            at, row = x, row + 22
        if name == "hole":
            items.append(rect(at, row, box, box, stroke="muted", dash="3 3"))
        elif name == "focus":
            items.append(rect(at, row, box, box, "paper", stroke="ink", width=2))
        else:
            block = Block(
                0,
                kind=name if hue else "movable",
                label=hue.letter if hue else "",
                states=() if hue else (name,),
            )
            items += _draw_block(block, 0, 0, 1, (at, row, box, box))
        items.append(
            text(at + box + 6, row + box / 2 + SMALL * 0.35, word, size=SMALL, ink="muted")
        )
        at += need
    return Part(items, x, y, width, row + box + 4 - y)
