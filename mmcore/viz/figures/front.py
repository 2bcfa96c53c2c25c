"""Figures of the pages in front of the chapters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmcore.viz import Frame, explorable, palette, svg

__all__ = ["vocabulary"]

#: What the hues are called where the palette's own word is too short to stand alone.
_WORDS = {
    "free": "free",
    "used": "used, whatever for",
    "unmovable": "unmovable: the kernel's own",
    "movable": "movable: can be migrated",
    "reclaimable": "reclaimable: shrinkable caches",
    "anon": "anonymous memory of a program",
    "file": "contents of a file",
    "swap": "swapped out, or in swap",
}
_STATES = {
    "dirty": "dirty",
    "writeback": "under writeback",
    "referenced": "referenced",
    "active": "active",
    "pinned": "pinned or unevictable",
    "hole": "hole or reserved",
    "focus": "the one we are discussing",
}
_BOX = 34.0
_ROW = 46.0
_COLUMN = 280.0


def _swatch(x: float, y: float, block: svg.Block, words: str) -> list[str]:
    """Return one example with its meaning."""
    box = svg.page_strip([block], x=x, y=y, width=_BOX, nr_pages=1, height=_BOX, ticks=())
    return [*box.items, svg.text(x + _BOX + 12, y + _BOX / 2 + 5, words, size=svg.SIZE)]


@explorable(
    "front.vocabulary",
    title="What the colours mean",
    key=("all",),
    params={},
    help="The hues and treatments of all figures.",
)
def vocabulary(p: Any) -> Iterator[Frame]:
    """Every hue with its letter, and every treatment."""
    d = svg.Drawing()
    y = 0.0
    d.add(svg.text(0, y + 14, "What a page is", bold=True))
    y += 26
    rows = [(name, svg.Block(0, kind=name, nr=1), word) for name, word in _WORDS.items()]
    half = (len(rows) + 1) // 2
    for i, (_, block, word) in enumerate(rows):
        d.add(*_swatch(_COLUMN * (i // half), y + _ROW * (i % half), block, word))
    y += _ROW * half + 8
    d.add(svg.text(0, y + 14, "What state it is in", bold=True))
    y += 26
    states = list(_STATES.items())
    half = (len(states) + 1) // 2
    for i, (name, word) in enumerate(states):
        if name == "hole":
            block = svg.Block(0, kind="hole", nr=1, label="")
        elif name == "focus":
            block = svg.Block(0, kind="free", nr=1, label="", focus=True)
        else:
            block = svg.Block(0, kind="movable", nr=1, label="", states=(name,))
        d.add(*_swatch(_COLUMN * (i // half), y + _ROW * (i % half), block, word))
    d.height = y + _ROW * half
    letters = ", ".join(f"{palette.LETTERS[n]} for {n}" for n in _WORDS if n in palette.LETTERS)
    treatments = "; ".join(f"{w}: {palette.TREATMENTS[n]}" for n, w in _STATES.items())
    yield Frame(
        d,
        "Eight hues say what a page is, each with its letter; seven treatments say what state it is in.",
        f"Letters: {letters}. Treatments: {treatments}.",
        mark="all",
    )
