"""SVG primitives, text setting, and the `Drawing` that a frame holds. See `mmcore.viz.svg`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmcore.errors import UsageError
from mmcore.viz import palette

__all__ = [
    "MONO",
    "SIZE",
    "SMALL",
    "WIDTH",
    "Drawing",
    "Part",
    "arrow",
    "circle",
    "esc",
    "finish",
    "hatch",
    "line",
    "num",
    "paragraph",
    "path",
    "polyline",
    "rect",
    "text",
    "text_width",
    "wrap",
]

#: The width of every drawing, in its own units.
WIDTH = 560
#: Text sizes in the same units.
SIZE = 13
SMALL = 12

SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',Arial,sans-serif"
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def esc(value: object) -> str:
    """Return @value as text that is safe in an element or an attribute of SVG and HTML.

    Characters that XML cannot hold become U+FFFD.
    """
    text = _CONTROL.sub("\ufffd", str(value))
    return (
        text.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace('"', "&quot;")
        .replace("'", "&#39;")
    )


def num(value: float) -> str:
    """Return a coordinate with at most two decimals, without a trailing zero."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text


def _attrs(attrs: Mapping[str, object]) -> str:
    out = []
    for name, value in attrs.items():
        if value is None:
            continue
        shown = num(value) if isinstance(value, (int, float)) else esc(value)
        out.append(f' {name.rstrip("_").replace("_", "-")}="{shown}"')
    return "".join(out)


def _fill(name: str | None) -> dict[str, object]:
    if name is None:
        return {"fill": "none"}
    if name in palette.INKS:
        return {"class_": f"mm-t-{name}", "fill": palette.INKS[name].light}
    return {"class_": f"mm-{name}", "fill": palette.hue(name).light}


def _stroke(name: str | None, width: float, dash: str | None) -> dict[str, object]:
    if name is None:
        return {}
    colour = palette.INKS[name].light if name in palette.INKS else palette.hue(name).light
    out: dict[str, object] = {"class_": f"mm-l-{name}", "stroke": colour, "stroke_width": width}
    if dash is not None:
        out["stroke_dasharray"] = dash
    return out


def _paint(
    fill: str | None, stroke: str | None, width: float, dash: str | None
) -> dict[str, object]:
    first, second = _fill(fill), _stroke(stroke, width, dash)
    classes = " ".join(str(p["class_"]) for p in (first, second) if "class_" in p)
    out: dict[str, object] = {"class_": classes} if classes else {}
    out.update((k, v) for p in (first, second) for k, v in p.items() if k != "class_")
    return out


def rect(
    x: float,
    y: float,
    w: float,
    h: float,
    fill: str | None = None,
    *,
    stroke: str | None = None,
    width: float = 1,
    dash: str | None = None,
    rx: float | None = None,
) -> str:
    """Return a rectangle. @fill and @stroke name a hue or an ink of the palette, or are None."""
    place = {"x": x, "y": y, "width": max(w, 0), "height": max(h, 0), "rx": rx}
    return f"<rect{_attrs(_paint(fill, stroke, width, dash))}{_attrs(place)}/>"


def path(
    d: str,
    fill: str | None = None,
    *,
    stroke: str | None = None,
    width: float = 1,
    dash: str | None = None,
) -> str:
    """Return a path whose commands are @d."""
    return f"<path{_attrs(_paint(fill, stroke, width, dash))}{_attrs({'d': d})}/>"


def line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    stroke: str = "ink",
    *,
    width: float = 1,
    dash: str | None = None,
) -> str:
    """Return a straight line."""
    return path(f"M{num(x1)} {num(y1)}L{num(x2)} {num(y2)}", stroke=stroke, width=width, dash=dash)


def polyline(
    points: Sequence[tuple[float, float]],
    stroke: str = "ink",
    *,
    width: float = 1.5,
    dash: str | None = None,
    fill: str | None = None,
) -> str:
    """Return a line through @points."""
    d = "M" + "L".join(f"{num(x)} {num(y)}" for x, y in points)
    return path(d, fill, stroke=stroke, width=width, dash=dash)


def circle(
    x: float,
    y: float,
    r: float,
    fill: str | None = "ink",
    *,
    stroke: str | None = None,
    width: float = 1,
) -> str:
    """Return a circle."""
    return (
        f"<circle{_attrs(_paint(fill, stroke, width, None))}{_attrs({'cx': x, 'cy': y, 'r': r})}/>"
    )


def arrow(
    points: Sequence[tuple[float, float]],
    stroke: str = "ink",
    *,
    width: float = 1.5,
    dash: str | None = None,
    head: float = 5,
) -> str:
    """Return a line through @points with an open arrow head at its end, as one path."""
    (x0, y0), (x1, y1) = points[-2], points[-1]
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5 or 1.0
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    left = (x1 - head * ux + head * 0.7 * uy, y1 - head * uy - head * 0.7 * ux)
    right = (x1 - head * ux - head * 0.7 * uy, y1 - head * uy + head * 0.7 * ux)
    d = "M" + "L".join(f"{num(x)} {num(y)}" for x, y in points)
    d += f"M{num(left[0])} {num(left[1])}L{num(x1)} {num(y1)}L{num(right[0])} {num(right[1])}"
    return path(d, stroke=stroke, width=width, dash=dash)


def text(
    x: float,
    y: float,
    value: object,
    *,
    size: float = SIZE,
    anchor: str = "start",
    ink: str = "ink",
    on: str | None = None,
    bold: bool = False,
    mono: bool = False,
    italic: bool = False,
) -> str:
    """Return one line of text with its baseline at @y.

    :param ink: the palette's ink; ignored where @on is given
    :param on: the hue the text stands on, which decides its colour
    :param anchor: ``start``, ``middle`` or ``end``
    """
    if size < SMALL:
        raise UsageError(
            f"text of size {size}: nothing smaller than {SMALL} can be read on a phone"
        )
    if on is not None:
        colour = {"class_": f"mm-on-{on}", "fill": palette.hue(on).on_light}
    else:
        colour = {"class_": f"mm-t-{ink}", "fill": palette.INKS[ink].light}
    attrs: dict[str, object] = {**colour, "x": x, "y": y}
    if size != SIZE:
        attrs["font_size"] = size
    if anchor != "start":
        attrs["text_anchor"] = anchor
    if bold:
        attrs["font_weight"] = "600"
    if italic:
        attrs["font_style"] = "italic"
    if mono:
        attrs["font_family"] = MONO
    return f"<text{_attrs(attrs)}>{esc(value)}</text>"


# Widths in hundredths of an em of the widest of the fonts in SANS (DejaVu Sans, which librsvg falls back on).
# Whole numbers, because sum() of floats rounds otherwise since Python 3.12, and a figure is the same everywhere.
_NARROW = {c: 36 for c in "ilj.,:;'|!()[]ftI /\\"} | {c: 45 for c in 'rts-"*`'}
_WIDE = {c: 95 for c in "mwMW@%"} | {c: 74 for c in "ABCDEGHKNOPQRUVXY&+=<>~#"}


_BREAK = re.compile(r"[^_/.:(]*[_/.:(]+|[^_/.:(]+")


def text_width(value: str, size: float = SIZE, *, mono: bool = False) -> float:
    """Return about how wide @value is, rather too much than too little."""
    if mono:
        return 0.605 * size * len(value)
    return size * sum(_NARROW.get(c) or _WIDE.get(c) or 62 for c in value) / 100


def _pieces(word: str, width: float, size: float, mono: bool) -> list[str]:
    """Return a word that is wider than @width in pieces, cut after ``_ / . : (`` if that is enough."""
    pieces: list[str] = []
    current = ""
    for part in _BREAK.findall(word):
        if current and text_width(current + part, size, mono=mono) > width:
            pieces.append(current)
            current = ""
        current += part
        while text_width(current, size, mono=mono) > width and len(current) > 1:
            cut = len(current) - 1
            while cut > 1 and text_width(current[:cut], size, mono=mono) > width:
                cut -= 1
            pieces.append(current[:cut])
            current = current[cut:]
    return [*pieces, current] if current else pieces


def wrap(value: str, width: float, size: float = SIZE, *, mono: bool = False) -> list[str]:
    """Return @value in lines that are at most @width wide; a word that is wider is cut."""
    lines: list[str] = []
    for paragraph_text in str(value).split("\n"):
        current = ""
        for word in paragraph_text.split():
            trial = f"{current} {word}" if current else word
            if text_width(trial, size, mono=mono) <= width:
                current = trial
                continue
            if current:
                lines.append(current)
            *full, current = _pieces(word, width, size, mono)
            lines.extend(full)
        lines.append(current)
    return lines


@dataclass
class Part:
    """A piece of a drawing: its elements and the rectangle they cover."""

    items: list[str]
    x: float
    y: float
    w: float
    h: float

    @property
    def right(self) -> float:
        """The x of its right edge."""
        return self.x + self.w

    @property
    def bottom(self) -> float:
        """The y of its lower edge."""
        return self.y + self.h


def hatch(
    x: float, y: float, w: float, h: float, on: str, *, back: bool = False, gap: float = 5
) -> str:
    """Return diagonal lines over a rectangle, ``///`` or with @back ``\\\\\\``, as one path clipped by arithmetic.

    A ``<pattern>`` would need an id, and one in a hidden drawing does not paint in every browser.
    """
    d = []
    offset = gap
    while offset < w + h:
        # The line u + v = offset inside the rectangle, u to the right, v up from the bottom (/) or mirrored.
        u0, u1 = max(0.0, offset - h), min(w, offset)
        v0, v1 = offset - u0, offset - u1
        if back:
            d.append(f"M{num(x + u0)} {num(y + h - v0)}L{num(x + u1)} {num(y + h - v1)}")
        else:
            d.append(f"M{num(x + u0)} {num(y + v0)}L{num(x + u1)} {num(y + v1)}")
        offset += gap
    colour = palette.hue(on).on_light
    attrs = {
        "class": f"mm-hatch-{on}",
        "stroke": colour,
        "stroke_width": 1,
        "fill": "none",
        "d": "".join(d),
    }
    return f"<path{_attrs(attrs)}/>"


def paragraph(
    value: str,
    x: float = 0,
    y: float = 0,
    width: float = WIDTH,
    *,
    size: float = SIZE,
    ink: str = "ink",
    anchor: str = "start",
    bold: bool = False,
    mono: bool = False,
    leading: float = 1.35,
) -> Part:
    """Return @value set in lines below @y, at most @width wide; @x is where @anchor says."""
    step = size * leading
    lines = wrap(value, width, size, mono=mono)
    items = [
        text(x, y + size + i * step, part, size=size, ink=ink, anchor=anchor, bold=bold, mono=mono)
        for i, part in enumerate(lines)
    ]
    left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
    return Part(items, left, y, width, step * len(lines))


class Drawing:
    """An SVG in the making: elements from back to front, and the height they need."""

    def __init__(self, width: float = WIDTH, height: float = 0) -> None:
        self.width = width
        self.height = height
        self.items: list[str] = []
        #: The lower edge of the lowest part added so far.
        self.bottom: float = 0

    def add(self, *parts: Part | str) -> Drawing:
        """Add parts, or single elements (which do not count for the height). Returns the drawing."""
        for part in parts:
            if isinstance(part, Part):
                self.items.extend(part.items)
                self.bottom = max(self.bottom, part.bottom)
            else:
                self.items.append(part)
        return self

    def __str__(self) -> str:
        height = max(self.height, self.bottom)
        # Two units around it, so that an outline at the edge is not cut in half.
        box = f"-2 -2 {num(self.width + 4)} {num(height + 4)}"
        body = "".join(self.items)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}"'
            f' font-family="{SANS}" font-size="{SIZE}">{body}</svg>'
        )


def finish(svg: str, prefix: str, title: str, alt: str) -> str:
    """Return an ``<svg>`` text with its accessible name and description.

    :param prefix: makes the two ids unique in the page
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", prefix):
        raise UsageError(f"id prefix {prefix!r}: letters, digits, '-' and '_' only, a letter first")
    head, _, rest = svg.partition(">")
    name = f'<title id="{prefix}-t">{esc(title)}</title><desc id="{prefix}-d">{esc(alt)}</desc>'
    return f'{head} role="img" aria-labelledby="{prefix}-t {prefix}-d">{name}{rest}'
