"""Shapes for diagrams: tables, flow graphs, trees, lanes of actors, and small charts.

Charts here are for figures that have to run everywhere the engine does; plots in chapters use
`mmcore.viz.charts`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from math import fsum

from mmcore.errors import UsageError
from mmcore.viz import palette
from mmcore.viz.draw import (
    SMALL,
    WIDTH,
    Part,
    arrow,
    line,
    num,
    path,
    polyline,
    rect,
    text,
    text_width,
    wrap,
)

__all__ = [
    "Cell",
    "Edge",
    "Node",
    "Series",
    "TreeNode",
    "bars",
    "flow",
    "heatmap",
    "lanes",
    "lines",
    "table",
    "tree",
]


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is more than text.

    :param kind: the hue it stands on
    :param ink: the ink it is written in
    """

    text: object
    kind: str = ""
    bold: bool = False
    ink: str = "ink"


def _column_widths(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], width: float, mono: Collection[int]
) -> list[float]:
    """Return column widths that add up to @width: what the texts need, squeezed or stretched alike."""
    need = []
    for c, title in enumerate(columns):
        cells = [text_width(str(r[c].text), SMALL, mono=c in mono) for r in rows if c < len(r)]
        need.append(max([text_width(title, SMALL), 12.0, *cells]) + 14)
    total = fsum(need)
    if total <= width:
        spare = (width - total) / len(need)
        return [n + spare for n in need]
    fair = width / len(need)
    small = [n for n in need if n <= fair]
    rest = (width - fsum(small)) / max(fsum(n for n in need if n > fair), 1)
    return [n if n <= fair else n * rest for n in need]


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Collection[int] = (),
    mono: Collection[int] = (),
    lit: Collection[int] = (),
    widths: Sequence[float] | None = None,
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    row_height: float = 21,
) -> Part:
    """Return a table. A cell is a text, a number or a `Cell`; what is too long for its column is wrapped.

    :param right: columns that are aligned to the right, such as numbers
    :param mono: columns in the fixed-width font
    :param lit: rows that are what happens now
    """
    filled = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
    wide = list(widths) if widths else _column_widths(columns, filled, width, mono)
    if len(wide) != len(columns):
        raise UsageError(f"table(): {len(wide)} widths for {len(columns)} columns")
    lefts = [x + fsum(wide[:c]) for c in range(len(wide))]

    def put(c: int, top: float, cell: Cell, heading: bool = False) -> tuple[list[str], int]:
        where = lefts[c] + wide[c] - 7 if c in right else lefts[c] + 7
        parts = wrap(str(cell.text), wide[c] - 12, SMALL, mono=c in mono and not heading)
        anchor = "end" if c in right else "start"
        base = top + row_height / 2 + SMALL * 0.35
        out = [
            text(where, base + i * SMALL * 1.25, part, size=SMALL, anchor=anchor, bold=cell.bold or heading,
                 ink="muted" if heading else cell.ink, on=cell.kind or None, mono=c in mono and not heading)
            for i, part in enumerate(parts) if part
        ]  # fmt: skip
        return out, len(parts)

    items: list[str] = []
    rules = ""
    at = y
    for r, row in enumerate([[Cell(t) for t in columns], *filled]):
        texts: list[str] = []
        height, back = row_height, ""
        for c, cell in enumerate(row[: len(columns)]):
            put_items, n = put(c, at, cell, heading=r == 0)
            texts += put_items
            height = max(height, row_height + (n - 1) * SMALL * 1.25)
        if r - 1 in lit and r:
            back = rect(x, at, fsum(wide), height, "lit")
        fills = [
            rect(lefts[c] + 1, at + 1, wide[c] - 2, height - 2, cell.kind, stroke="ink", width=0.8)
            for c, cell in enumerate(row[: len(columns)]) if cell.kind
        ]  # fmt: skip
        items += [i for i in [back, *fills, *texts] if i]
        at += height
        rules += f"M{num(x)} {num(at)}h{num(fsum(wide))}"
    items.append(path(rules, stroke="faint", width=0.75))
    return Part(items, x, y, fsum(wide), at - y)


@dataclass(frozen=True)
class Node:
    """A box of a flow graph, at a place of its grid.

    :param shape: ``step``, ``choice`` (a question) or ``end`` (how it ends)
    """

    id: str
    text: str
    col: float = 0
    row: float = 0
    shape: str = "step"
    note: str = ""


@dataclass(frozen=True)
class Edge:
    """A line of a flow graph from node @a to node @b.

    :param side: ``left`` or ``right``: go around on that side of the graph instead of straight
    """

    a: str
    b: str
    label: str = ""
    side: str = ""


@dataclass
class _Box:
    node: Node
    lines: list[str]
    x: float = 0
    y: float = 0
    w: float = 0
    h: float = 0
    lit: bool = False
    now: bool = False

    @property
    def cx(self) -> float:
        return self.x + self.w / 2

    @property
    def cy(self) -> float:
        return self.y + self.h / 2


def flow(
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    *,
    lit: Sequence[str] = (),
    now: str = "",
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    gap: float = 22,
    box_width: float | None = None,
    margin: float = 0,
) -> Part:
    """Return a flow graph whose taken path is lit.

    :param lit: the ids of the nodes on the path, in order; an edge is lit if the path goes along it
    :param now: the node where we are
    :param margin: room kept free at both sides for edges that go around
    """
    boxes = _place(nodes, set(lit), now, x + margin, y, width - 2 * margin, gap, box_width)
    taken = set(itertools.pairwise(lit))
    for e in edges:
        for end in (e.a, e.b):
            if end not in boxes:
                raise UsageError(
                    f"flow(): edge {e.a}-{e.b} needs a node {end!r}; there are {', '.join(boxes)}"
                )
    items: list[str] = []
    labels: list[str] = []
    for strong in (False, True):
        for e in edges:
            if ((e.a, e.b) in taken) == strong:
                route, tag = _route(boxes[e.a], boxes[e.b], e.side, x, x + width)
                stroke, w = ("accent", 2.5) if strong else ("muted" if not lit else "faint", 1.25)
                items.append(arrow(route, stroke, width=w))
                if e.label:
                    ink = "ink" if strong or not lit else "muted"
                    labels.append(
                        text(
                            tag[0], tag[1], e.label, size=SMALL, ink=ink, anchor=tag[2], bold=strong
                        )
                    )
    for box in boxes.values():
        items += _draw_node(box, bool(lit))
    bottom = max(b.y + b.h for b in boxes.values())
    return Part(items + labels, x, y, width, bottom + 2 - y)


def _place(
    nodes: Sequence[Node],
    lit: set[str],
    now: str,
    x: float,
    y: float,
    width: float,
    gap: float,
    box_width: float | None,
) -> dict[str, _Box]:
    """Return the boxes of a flow graph: columns of one width, rows as high as their highest box."""
    columns = max(n.col for n in nodes) + 1
    pitch = width / columns
    w = box_width or pitch - 36
    boxes: dict[str, _Box] = {}
    for n in nodes:
        if n.id in boxes:
            raise UsageError(f"flow(): two nodes {n.id!r}")
        room = w - (24 if n.shape == "choice" else 14)
        parts = wrap(n.text, room, SMALL)
        if n.note:
            parts += wrap(n.note, room, SMALL)
        boxes[n.id] = _Box(
            n, parts, w=w, h=len(parts) * SMALL * 1.25 + 12, lit=n.id in lit, now=n.id == now
        )
    top = y + 2
    for row in sorted({n.row for n in nodes}):
        members = [b for b in boxes.values() if b.node.row == row]
        height = max(b.h for b in members)
        for b in members:
            b.x = x + b.node.col * pitch + (pitch - w) / 2
            b.y = top + (height - b.h) / 2
        top += height + gap
    return boxes


def _route(
    a: _Box, b: _Box, side: str, left: float, right: float
) -> tuple[list[tuple[float, float]], tuple[float, float, str]]:
    """Return the points of an edge and where its label stands."""
    if side:
        lane = left + 4 if side == "left" else right - 4
        sx = a.x if side == "left" else a.x + a.w
        ex = b.x if side == "left" else b.x + b.w
        anchor = "start" if side == "left" else "end"
        tag = (lane + (6 if side == "left" else -6), (a.cy + b.cy) / 2, anchor)
        return [(sx, a.cy), (lane, a.cy), (lane, b.cy), (ex, b.cy)], tag
    if a.y + a.h <= b.y:  # downwards
        sy, ey = a.y + a.h, b.y
        if abs(a.cx - b.cx) < 1:
            return [(a.cx, sy), (a.cx, ey)], (a.cx + 5, sy + 14, "start")
        mid = ey - 9
        away = 5 if b.cx > a.cx else -5
        tag = (b.cx + away, mid - 4, "start" if b.cx < a.cx else "end")
        return [(a.cx, sy), (a.cx, mid), (b.cx, mid), (b.cx, ey)], tag
    if a.x + a.w <= b.x:
        sx, ex = a.x + a.w, b.x
    elif b.x + b.w <= a.x:
        sx, ex = a.x, b.x + b.w
    else:  # upwards in the same column
        lane = max(a.x + a.w, b.x + b.w) + 8
        return [(a.x + a.w, a.cy), (lane, a.cy), (lane, b.cy), (b.x + b.w, b.cy)], (
            lane,
            a.cy - 5,
            "start",
        )
    middle = (sx + ex) / 2
    if abs(a.cy - b.cy) < 1:
        return [(sx, a.cy), (ex, b.cy)], (middle, a.cy - 5, "middle")
    return [(sx, a.cy), (middle, a.cy), (middle, b.cy), (ex, b.cy)], (middle, a.cy - 5, "middle")


def _draw_node(box: _Box, dimmed: bool) -> list[str]:
    """Return a box of a flow graph with its text."""
    n = box.node
    strong = box.lit or not dimmed
    stroke = "ink" if strong else "faint"
    fill = "lit" if box.now else "panel" if strong else "paper"
    width = 2.5 if box.now else 1.5 if box.lit else 1
    x, y, w, h = box.x, box.y, box.w, box.h
    if n.shape == "choice":
        d = f"M{num(x)} {num(box.cy)}l10 {num(-h / 2)}h{num(w - 20)}l10 {num(h / 2)}l-10 {num(h / 2)}h{num(20 - w)}z"
        items = [path(d, fill, stroke=stroke, width=width)]
    else:
        items = [
            rect(x, y, w, h, fill, stroke=stroke, width=width, rx=h / 2 if n.shape == "end" else 4)
        ]
    ink = "ink" if strong else "muted"
    first = y + 6 + SMALL * 0.95
    for i, part in enumerate(box.lines):
        items.append(
            text(
                box.cx,
                first + i * SMALL * 1.25,
                part,
                size=SMALL,
                anchor="middle",
                ink=ink,
                bold=box.now,
            )
        )
    return items


@dataclass(frozen=True)
class TreeNode:
    """A node of a tree."""

    text: str
    children: tuple[TreeNode, ...] = ()
    kind: str = "panel"
    focus: bool = False


def tree(
    root: TreeNode, *, x: float = 0, y: float = 0, width: float = WIDTH, row_height: float = 46
) -> Part:
    """Return a tree from top to bottom; leaves share the width alike."""
    leaves = [0]

    def count(n: TreeNode) -> int:
        return sum(count(c) for c in n.children) if n.children else 1

    slot = width / count(root)
    edges: list[str] = []
    items: list[str] = []
    deepest = [0]

    def put(n: TreeNode, depth: int) -> float:
        deepest[0] = max(deepest[0], depth)
        top = y + depth * row_height
        if n.children:
            places = [put(c, depth + 1) for c in n.children]
            cx = (places[0] + places[-1]) / 2
            for p in places:
                half = (row_height - 22) / 2
                edges.append(f"M{num(cx)} {num(top + 22)}v{num(half)}H{num(p)}v{num(half)}")
        else:
            cx = x + (leaves[0] + 0.5) * slot
            leaves[0] += 1
        w = min(text_width(n.text, SMALL) + 12, max(slot * max(count(n), 1) - 2, 8))
        items.append(
            rect(cx - w / 2, top, w, 22, n.kind, stroke="ink", width=2 if n.focus else 0.8, rx=3)
        )
        if text_width(n.text, SMALL) <= w:
            items.append(
                text(cx, top + 15, n.text, size=SMALL, anchor="middle", on=n.kind, bold=n.focus)
            )
        return cx

    put(root, 0)
    lines_ = [path("".join(edges), stroke="muted")] if edges else []
    return Part(lines_ + items, x, y, width, deepest[0] * row_height + 24)


def lanes(
    actors: Sequence[str],
    events: Sequence[tuple[int, str]],
    *,
    arrows: Sequence[tuple[int, int, int, str]] = (),
    now: int | None = None,
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
) -> Part:
    """Return what several actors do, one lane each, time downwards; one event in each row.

    :param events: (actor's index, text), in the order in which they happen
    :param arrows: (event's index, from actor, to actor, text): drawn in that event's row
    :param now: the index of the event that happens now; later ones are pale
    """
    pitch = width / len(actors)
    items = [
        text(x + (i + 0.5) * pitch, y + SMALL, a, size=SMALL, anchor="middle", bold=True)
        for i, a in enumerate(actors)
    ]
    top = y + SMALL * 1.8
    rows: list[str] = []
    at = top
    for i, (actor, words) in enumerate(events):
        pale = now is not None and i > now
        parts = wrap(words, pitch - 22, SMALL)
        h = len(parts) * SMALL * 1.25 + 9
        bx = x + actor * pitch + 6
        fill = "lit" if i == now else "paper" if pale else "panel"
        stroke = "faint" if pale else "ink"
        rows.append(
            rect(bx, at, pitch - 12, h, fill, stroke=stroke, width=2 if i == now else 0.8, rx=3)
        )
        for k, part in enumerate(parts):
            ink = "muted" if pale else "ink"
            rows.append(text(bx + 7, at + 4 + SMALL * (0.95 + k * 1.25), part, size=SMALL, ink=ink))
        for e, a, b, tag in arrows:
            if e == i:
                h += 18
                ax = x + (a + 0.5) * pitch
                edge = x + b * pitch + (6 if b > a else pitch - 6)
                rows.append(
                    arrow(
                        [(ax, at + h), (edge, at + h)],
                        "faint" if pale else "accent",
                        width=2,
                    )
                )
                rows.append(
                    text((ax + edge) / 2, at + h - 4, tag, size=SMALL, anchor="middle", ink="muted")
                )
        at += h + 9
    spine = "".join(
        f"M{num(x + (i + 0.5) * pitch)} {num(top)}V{num(at)}" for i in range(len(actors))
    )
    return Part([*items, path(spine, stroke="faint", dash="2 3"), *rows], x, y, width, at - y)


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    :param points: (x, y) pairs
    :param kind: the hue or the ink of the line
    :param step: whether the value holds until the next point
    """

    name: str
    points: Sequence[tuple[float, float]]
    kind: str = "ink"
    dash: str | None = None
    step: bool = False
    tags: Sequence[str] = field(default_factory=tuple)


def _tag(x: float, y: float, value: str, anchor: str = "middle", ink: str = "muted") -> str:
    """Return a small label of a chart."""
    return text(x, y, value, size=SMALL, anchor=anchor, ink=ink)


def _nice(top: float, n: int = 4) -> list[float]:
    """Return round tick values from 0 up to about @top."""
    if top <= 0:
        return [0.0, 1.0]
    raw = top / n
    base = 10.0 ** (len(str(int(raw))) - 1) if raw >= 1 else 10.0 ** -len(str(int(1 / raw)))
    step = next(base * m for m in (1, 2, 2.5, 5, 10, 20) if base * m >= raw)
    return [i * step for i in range(int(top / step + 1e-9) + 2) if (i - 1) * step < top]


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3g}"


def _frame(
    x: float,
    y: float,
    w: float,
    h: float,
    ys: Sequence[float],
    top: float,
    y_label: str,
    fmt: Callable[[float], str],
) -> list[str]:
    """Return a chart's grid lines with their values and the name of its y axis."""
    d = "".join(f"M{num(x)} {num(y + h - v / top * h)}h{num(w)}" for v in ys)
    items = [path(d, stroke="faint", width=0.75), _tag(max(x - 44, 0), y - 9, y_label, "start")]
    for v in ys:
        items.append(_tag(x - 6, y + h - v / top * h + SMALL * 0.35, fmt(v), "end"))
    return items


def lines(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    height: float = 190,
    y_top: float | None = None,
    x_range: tuple[float, float] | None = None,
    rules: Sequence[tuple[str, float]] = (),
    now: float | None = None,
) -> Part:
    """Return a line chart with its axes named and each line named at its right end.

    :param rules: (name, value) of horizontal reference lines
    :param now: x of a vertical line: where we are
    """
    points = [p for s in series for p in s.points]
    if not points:
        raise UsageError("lines(): no points")
    top_value = y_top if y_top is not None else max([p[1] for p in points] + [v for _, v in rules])
    ticks = _nice(top_value)
    top_value = max(top_value, ticks[-1])
    lo, hi = x_range or (min(p[0] for p in points), max(p[0] for p in points))
    hi = hi if hi > lo else lo + 1
    left = max(text_width(_number(t), SMALL) for t in ticks) + 10
    named = [text_width(n, SMALL) for n in [s.name for s in series] + [r[0] for r in rules]]
    w, px, py = width - left - max(named) - 10, x + left, y + SMALL * 2
    h = height - SMALL * 2 - SMALL * 2.8

    def at(p: tuple[float, float]) -> tuple[float, float]:
        return (
            px + (p[0] - lo) / (hi - lo) * w,
            py + h - min(max(p[1], 0), top_value) / top_value * h,
        )

    items = _frame(px, py, w, h, ticks, top_value, y_label, _number)
    ends: list[tuple[float, str, str]] = []
    for name, value in rules:
        ry = at((lo, value))[1]
        items.append(line(px, ry, px + w, ry, "muted", dash="5 3"))
        ends.append((ry, name, "muted"))
    for s in series:
        pts = [at(p) for p in s.points]
        items += _series(s, pts)
        ends.append((pts[-1][1], s.name, "ink"))
    if now is not None:
        nx = at((now, 0))[0]
        items.append(line(nx, py, nx, py + h, "accent", width=2))
    items += _end_labels(ends, px + w + 6, py, py + h)
    for v in (lo, (lo + hi) / 2, hi):
        items.append(_tag(at((v, 0))[0], py + h + SMALL * 1.4, _number(v)))
    items.append(_tag(px + w / 2, py + h + SMALL * 2.7, x_label))
    return Part(items, x, y, width, height)


def _series(s: Series, pts: list[tuple[float, float]]) -> list[str]:
    """Return one line of a chart; a hue gets a dark casing so that a pale one is seen on paper."""
    if s.step:
        pts = [q for i, p in enumerate(pts) for q in ([(p[0], pts[i - 1][1]), p] if i else [p])]
    hue = s.kind in palette.HUES
    casing = [polyline(pts, "ink", width=4.5)] if hue else []
    return [*casing, polyline(pts, s.kind, width=2.5 if hue else 2, dash=s.dash)]


def _end_labels(
    ends: Sequence[tuple[float, str, str]], x: float, top: float, bottom: float
) -> list[str]:
    """Return the names of lines at their right ends, moved apart where they would overlap."""
    placed: list[tuple[float, str, str]] = []
    at = top - SMALL
    for y, name, ink in sorted(ends):
        at = max(y, at + SMALL * 1.15)
        placed.append((at, name, ink))
    over = max((placed[-1][0] if placed else 0) - bottom, 0)
    out: list[str] = []
    limit = bottom + SMALL
    for y, name, ink in reversed(placed):
        at = min(y if not over else min(y, limit - SMALL * 1.15), limit)
        limit = at
        out.append(text(x, at + SMALL * 0.35, name, size=SMALL, ink=ink))
    return out


def bars(
    values: Sequence[tuple[str, float]],
    *,
    y_label: str,
    kind: str = "used",
    kinds: Sequence[str] | None = None,
    focus: Collection[int] = (),
    x_label: str = "",
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    height: float = 170,
    y_top: float | None = None,
) -> Part:
    """Return a bar chart: a value above each bar, a name below it."""
    if not values:
        raise UsageError("bars(): no values")
    top_value = y_top if y_top is not None else max(max(v for _, v in values), 1)
    py, h = y + SMALL * 3, height - SMALL * 3 - SMALL * (2.9 if x_label else 1.6)
    pitch = width / len(values)
    w = min(pitch * 0.7, 60.0)
    items = [text(x, y + SMALL, y_label, size=SMALL, ink="muted")]
    for i, (name, value) in enumerate(values):
        cx = x + (i + 0.5) * pitch
        tall = min(value, top_value) / top_value * h
        hue = kinds[i] if kinds else kind
        items.append(
            rect(
                cx - w / 2,
                py + h - tall,
                w,
                tall,
                hue,
                stroke="ink",
                width=2 if i in focus else 0.8,
            )
        )
        shown = _number(value)
        if text_width(shown, SMALL) <= pitch + 2:
            items.append(text(cx, py + h - tall - 4, shown, size=SMALL, anchor="middle"))
        items.append(text(cx, py + h + SMALL * 1.3, name, size=SMALL, anchor="middle", ink="muted"))
    items.append(line(x, py + h, x + width, py + h, "muted"))
    if x_label:
        items.append(
            text(
                x + width / 2,
                py + h + SMALL * 2.6,
                x_label,
                size=SMALL,
                anchor="middle",
                ink="muted",
            )
        )
    return Part(items, x, y, width, height)


def heatmap(
    rows: Sequence[tuple[str, Sequence[float | None]]],
    *,
    top: float,
    kind: str = "free",
    columns: Sequence[str] = (),
    numbers: bool = False,
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    row_height: float = 20,
) -> Part:
    """Return rows of cells that are filled from the bottom in proportion to their value; None is a gap.

    Height stands for the value, not a shade: it reads the same in print, in the dark and without colour.

    :param top: the value that fills a cell
    :param numbers: whether to print the value in its cell
    """
    left = max(text_width(label, SMALL) for label, _ in rows) + 8
    n = max(len(values) for _, values in rows)
    w = (width - left) / n
    items: list[str] = []
    head = SMALL * 1.6 if columns else 0
    for c, label in enumerate(columns):
        items.append(_tag(x + left + (c + 0.5) * w, y + SMALL, label))
    filled = ground = ""
    words: list[str] = []
    for r, (label, values) in enumerate(rows):
        ry = y + head + r * row_height
        base = ry + row_height / 2 + SMALL * 0.35
        words.append(_tag(x + left - 6, base, label, "end"))
        for c, v in enumerate(values):
            if v is None:
                continue
            cx, tall = x + left + c * w, min(max(v, 0) / top, 1) * (row_height - 2)
            ground += (
                f"M{num(cx + 0.5)} {num(ry + 1)}h{num(w - 1)}v{num(row_height - 2)}h{num(1 - w)}z"
            )
            if tall > 0:
                filled += f"M{num(cx + 0.5)} {num(ry + row_height - 1)}h{num(w - 1)}v{num(-tall)}h{num(1 - w)}z"
            if numbers and text_width(_number(v), SMALL) <= w:
                words.append(_tag(cx + w / 2, base, _number(v), ink="ink"))
    items += [path(ground, "panel"), path(filled, kind)]
    return Part(items + words, x, y, width, head + len(rows) * row_height)
