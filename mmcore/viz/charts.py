"""Data plots in the book's palette, and tables of what the engine did, for notebooks.

This is the one module of the package that needs numpy, matplotlib and pandas; the engine and the figures never
import it. A plot ends with `chart()`, which a page shows as inline SVG: text stays text, and the page's style
sheet recolours it in the dark::

    from mmcore.viz import charts

    fig, ax = charts.subplots()
    charts.line(ax, xs, ys, "movable", "count")
    ax.set(xlabel="allocations", ylabel="pages")
    charts.chart(fig, alt="count stays under high until the list is drained")
"""

from __future__ import annotations

import io
import re
import textwrap
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.patheffects
import pandas as pd
from cycler import cycler
from matplotlib.figure import Figure

from mmcore.errors import UsageError
from mmcore.viz import palette
from mmcore.viz.draw import esc, finish
from mmcore.viz.explorable import plain
from mmcore.viz.player import own_style

__all__ = [
    "Chart",
    "Table",
    "RC",
    "chart",
    "colour",
    "event_plot",
    "events_frame",
    "line",
    "pages_frame",
    "series_frame",
    "subplots",
    "table",
    "vmstat_plot",
    "zones_frame",
]

_INK = palette.INKS["ink"].light
_MUTED = palette.INKS["muted"].light
_FAINT = palette.INKS["faint"].light

#: The matplotlib settings of every plot in the book.
RC: Any = {
    "figure.figsize": (6.4, 3.2),
    "figure.facecolor": palette.WHITE,
    "figure.constrained_layout.use": True,
    "axes.facecolor": palette.WHITE,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.xmargin": 0.01,
    "grid.color": _FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "ytick.left": False,
    "text.color": _INK,
    "font.size": 10.5,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "patch.edgecolor": _INK,
    "legend.frameon": False,
    "savefig.facecolor": palette.WHITE,
    "svg.fonttype": "none",
    "svg.hashsalt": "mmcore",
    "axes.prop_cycle": cycler(
        color=[
            palette.HUES[n].light for n in ("file", "unmovable", "used", "anon", "swap", "movable")
        ]
    ),
}


def colour(name: str) -> str:
    """Return the light colour of a hue or an ink of the palette, for matplotlib."""
    return palette.INKS[name].light if name in palette.INKS else palette.hue(name).light


def subplots(
    rows: int = 1, columns: int = 1, *, height: float = 3.2, **kwargs: Any
) -> tuple[Figure, Any]:
    """Return a figure of the book's width and its axes, in the book's style.

    The figure is not registered with pyplot: a cell shows it by ending in `chart()`, and only once.
    """
    with matplotlib.rc_context(RC):
        fig = Figure(figsize=(6.4, height))
        return fig, fig.subplots(rows, columns, **kwargs)


def line(
    ax: Any,
    x: Iterable[float],
    y: Iterable[float],
    kind: str = "file",
    label: str = "",
    **kwargs: Any,
) -> Any:
    """Draw a line in a hue, named at its right end; a pale hue gets a dark casing so that it is seen on paper.

    :return: the matplotlib line
    """
    xs, ys = list(x), list(y)
    effects = []
    if kind in palette.HUES and palette.contrast(colour(kind), palette.WHITE) < 3:
        width = kwargs.get("linewidth", RC["lines.linewidth"])
        effects = [
            matplotlib.patheffects.Stroke(linewidth=width + 1.8, foreground=_INK),
            matplotlib.patheffects.Normal(),
        ]
    (drawn,) = ax.plot(xs, ys, color=colour(kind), path_effects=effects or None, **kwargs)
    if label and xs:
        ax.annotate(
            label, (xs[-1], ys[-1]), xytext=(5, 0), textcoords="offset points", va="center", color=_INK,
            annotation_clip=False,
        )  # fmt: skip
    return drawn


class Chart:
    """A finished plot, as a notebook shows it: inline SVG in a page, an image elsewhere."""

    def __init__(self, svg: str, alt: str, title: str) -> None:
        self.alt = alt
        self.title = title
        self._svg = svg

    def svg(self, prefix: str = "mm-chart") -> str:
        """Return the plot as an SVG text."""
        return finish(self._svg, prefix, self.title or "Plot", self.alt)

    def html(self) -> str:
        """Return the plot as inline SVG."""
        prefix = f"mm-chart-{zlib.crc32(self._svg.encode()):08x}"
        return f'<div class="mm-chart"><div class="mm-stage" role="group" aria-label="{esc(self.title or "Plot")}">{self.svg(prefix)}</div></div>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {
            "text/html": own_style() + self.html(),
            "image/svg+xml": self.svg(),
            "text/plain": repr(self),
        }

    def __repr__(self) -> str:
        return f"<chart: {self.alt}>"


#: The palette's light colours, as matplotlib writes them, to the classes that recolour them.
_FILL_CLASS = {h.light.lower(): f"mm-{h.name}" for h in reversed(list(palette.HUES.values()))} | {
    i.light.lower(): f"mm-t-{i.name}" for i in palette.INKS.values()
}
_LINE_CLASS = {h.light.lower(): f"mm-l-{h.name}" for h in reversed(list(palette.HUES.values()))} | {
    i.light.lower(): f"mm-l-{i.name}" for i in palette.INKS.values()
}
_STYLE = re.compile(r'\sstyle="([^"]*)"')
_SHORT = re.compile(r"#([0-9a-f])([0-9a-f])([0-9a-f])$")
_SVG_ATTRIBUTES = frozenset(
    "fill fill-opacity stroke stroke-width stroke-linecap stroke-linejoin stroke-dasharray stroke-dashoffset"
    " stroke-opacity stroke-miterlimit opacity text-anchor font-size font-weight".split()
)


def _attributes(match: re.Match[str]) -> str:
    """Turn an inline style of matplotlib's into attributes, with classes for the palette's colours."""
    classes: list[str] = []
    attrs: list[str] = []
    rest: list[str] = []
    for declaration in match.group(1).split(";"):
        name, _, value = (s.strip() for s in declaration.partition(":"))
        if not name:
            continue
        value = _SHORT.sub(r"#\1\1\2\2\3\3", value)
        if name == "fill" and value in _FILL_CLASS:
            classes.append(_FILL_CLASS[value])
        if name == "stroke" and value in _LINE_CLASS:
            classes.append(_LINE_CLASS[value])
        if name in _SVG_ATTRIBUTES:
            attrs.append(f' {name}="{value}"')
        elif name == "font":
            rest.append(_font(value))
        elif name not in ("font-family", "stroke-linejoin"):
            rest.append(f"{name}: {value}")
    styles = [r for r in rest if not r.startswith(" ")]
    out = "".join(attrs) + "".join(r for r in rest if r.startswith(" "))
    if classes:
        out = f' class="{" ".join(classes)}"{out}'
    return out + (f' style="{"; ".join(styles)}"' if styles else "")


def _font(value: str) -> str:
    """Turn matplotlib's ``font`` shorthand into attributes."""
    size = re.search(r"([\d.]+)px", value)
    return f' font-size="{size.group(1)}"' if size else ""


def _recoloured(svg: str, salt: str) -> str:
    """Return matplotlib's SVG made fit for a page: attributes and classes for styles, unique ids, no preamble."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    svg = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>\s*", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?)\s(?:width|height)="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?)\s(?:width|height)="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?)\sversion="[^"]*"', r"\1", svg, count=1)
    referenced = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(
        r'\sid="([^"]+)"',
        lambda m: f' id="{salt}-{m.group(1)}"' if m.group(1) in referenced else "",
        svg,
    )
    svg = re.sub(r'xlink:href="#', f'xlink:href="#{salt}-', svg)
    svg = re.sub(r"url\(#", f"url(#{salt}-", svg)
    svg = _STYLE.sub(_attributes, svg)
    svg = re.sub(r"<g>\s*</g>\s*", "", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><")
    head, _, body = svg.partition(">")
    return f"{head} font-family=\"system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',Arial,sans-serif\">{body}"


def chart(fig: Figure, *, alt: str, title: str = "") -> Chart:
    """Return @fig as the last expression of a cell.

    :param alt: what the plot shows, for those who do not see it: its conclusion
    """
    if not alt.strip():
        raise UsageError("chart(): needs alt=, what the plot shows in a sentence")
    out = io.StringIO()
    with matplotlib.rc_context(RC):
        fig.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    raw = out.getvalue()
    return Chart(_recoloured(raw, f"c{zlib.crc32(raw.encode()):08x}"), alt, title)


#: Characters that fit a line of the printed book.
LINE = 90


class Table:
    """A pandas table as a page shows it: no inline style, no empty headings, text on paper."""

    def __init__(self, frame: pd.DataFrame) -> None:
        named = frame.index.name is not None
        self.frame = frame.reset_index() if named else frame

    def html(self) -> str:
        """Return the table; numbers stand to the right, words to the left."""
        words = {c for c in self.frame.columns if not pd.api.types.is_numeric_dtype(self.frame[c])}
        head = "".join(
            f'<th scope="col"{_left(c in words)}>{esc(c)}</th>' for c in self.frame.columns
        )
        body = "".join(
            "<tr>"
            + "".join(
                f"<td{_left(c in words)}>{esc(_cell(v))}</td>"
                for c, v in zip(self.frame.columns, row, strict=True)
            )
            + "</tr>"
            for row in self.frame.itertuples(index=False)
        )
        table_ = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f'<div class="mm-beside mm-table">{table_}</div>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": own_style() + self.html(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        """Return the table as text, for the printed book: a last column of words wraps inside itself."""
        columns = list(self.frame.columns)
        words = [not pd.api.types.is_numeric_dtype(self.frame[c]) for c in columns]
        rows = [[_cell(v) for v in row] for row in self.frame.itertuples(index=False)]
        widths = [max(map(len, column)) for column in zip(map(str, columns), *rows, strict=True)]
        room = max(LINE - sum(w + 2 for w in widths[:-1]), 20)
        lines = []
        for row in [list(map(str, columns)), *rows]:
            last = textwrap.wrap(row[-1], room) if words[-1] else [row[-1].rjust(widths[-1])]
            cells = zip(row[:-1], widths, words, strict=False)
            start = "".join((c.ljust(w) if left else c.rjust(w)) + "  " for c, w, left in cells)
            lines += [
                (start if i == 0 else " " * len(start)) + t for i, t in enumerate(last or [""])
            ]
        return "\n".join(line.rstrip() for line in lines)


def _left(yes: bool) -> str:
    return ' class="mm-word"' if yes else ""


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:,.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def table(frame: pd.DataFrame) -> Table:
    """Return a pandas table as the last expression of a cell; a named index becomes its first column."""
    return Table(frame)


# ---- tables of what the engine did


def events_frame(log: Iterable[Any]) -> pd.DataFrame:
    """Return an event log as a table: time (ns), cpu, task, event, and one column for each field that occurs."""
    rows = [
        {
            "time": e.time,
            "cpu": e.cpu,
            "task": e.task,
            "event": e.name,
            **{k: plain(v) for k, v in e.fields.items()},
        }
        for e in log
    ]
    return pd.DataFrame(rows)


def series_frame(rows: Iterable[Mapping[str, Any]], index: str | None = None) -> pd.DataFrame:
    """Return rows, such as the ``data`` of an explorable's frames, as a table."""
    frame = pd.DataFrame([dict(r) for r in rows])
    return frame.set_index(index) if index else frame


def zones_frame(machine: Any) -> pd.DataFrame:
    """Return the populated zones of a machine with their sizes and watermarks, in pages."""
    rows = []
    for nid in sorted(machine.node_data):
        for zone in machine.node_data[nid].node_zones:
            if zone.managed_pages:
                row = {"node": nid, "zone": zone.name, "spanned": zone.spanned_pages}
                row |= {"present": zone.present_pages, "managed": zone.managed_pages}
                marks = zip(("min", "low", "high", "promo"), zone._watermark, strict=False)
                rows.append(row | dict(marks) | {"boost": zone.watermark_boost})
    return pd.DataFrame(rows)


def pages_frame(zone: Any, *fields: str) -> pd.DataFrame:
    """Return fields of the zone's materialised pages as a table with the pfn as its index.

    :param fields: names of slots of `mmcore.mm.mm_types.Page`, such as ``"flags"`` or ``"_refcount"``
    """
    chosen = fields or ("flags", "_refcount", "private")
    pfns = sorted(zone.mem_map)
    data = {f: [plain(getattr(zone.mem_map[pfn], f)) for pfn in pfns] for f in chosen}
    return pd.DataFrame(data, index=pd.Index(pfns, name="pfn"))


def vmstat_plot(
    samples: Sequence[Mapping[str, float]], names: Sequence[str], *, x: Sequence[float] | None = None, ax: Any = None,
    kinds: Sequence[str] = ("file", "unmovable", "used", "anon", "swap", "movable"), xlabel: str = "sample",
    ylabel: str = "pages",
) -> tuple[Figure, Any]:  # fmt: skip
    """Plot counters, such as those of ``/proc/vmstat``, over samples from the model or from a kernel."""
    fig, axis = (ax.figure, ax) if ax is not None else subplots()
    xs = list(x) if x is not None else list(range(len(samples)))
    for i, name in enumerate(names):
        ys = [s[name] for s in samples]
        line(axis, xs, ys, kinds[i % len(kinds)], name)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    return fig, axis


def event_plot(
    log: Iterable[Any],
    *,
    field: str = "pfn",
    ax: Any = None,
    kinds: Mapping[str, str] | None = None,
) -> tuple[Figure, Any]:
    """Plot one field of a log's events in the order in which they happened, one marker for each event name."""
    fig, axis = (ax.figure, ax) if ax is not None else subplots()
    by_name: dict[str, list[tuple[int, Any]]] = {}
    for i, e in enumerate(log):
        if field in e.fields:
            by_name.setdefault(e.name, []).append((i, e.fields[field]))
    hues = kinds or dict(zip(by_name, ("file", "unmovable", "used", "anon", "swap"), strict=False))
    for (name, points), mark in zip(by_name.items(), "osD^v<>P*" * 5, strict=False):
        xs, ys = zip(*points, strict=True)
        axis.plot(xs, ys, mark, color=colour(hues.get(name, "used")), markeredgecolor=_INK, markeredgewidth=0.5,
                  markersize=4.5, label=name.partition(":")[2], linestyle="none")  # fmt: skip
    axis.set(xlabel="event", ylabel=field)
    axis.legend(loc="upper left", bbox_to_anchor=(0, 1.14), ncols=max(len(by_name), 1))
    return fig, axis
