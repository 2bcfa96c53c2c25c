"""SVG drawing: primitives and the shapes that the book's figures are made of.

Everything returns text. A primitive returns one element; a shape returns a `Part`, a list of elements with
the rectangle they cover; a `Drawing` collects them and is what a `mmcore.viz.Frame` holds::

    from mmcore.viz import svg

    d = svg.Drawing()
    d.add(svg.page_grid([svg.Block(8, order=3, kind="movable")], nr_pages=64))
    d.add(svg.free_lists([("order 3", [svg.Entry(16)])], y=d.bottom + 16))
    yield Frame(d, caption, alt)

Rules that the tests hold every figure to: a shape carries a class and the plain light colour
(``class="mm-free" fill="#BFE3D0"``), so that the page's style sheet can recolour it and a PDF converter need
not understand style sheets; never ``var()``; one element per block or run of alike cells, never one per page;
every text is escaped; no text smaller than `SMALL`; no ids (what needs one gets it from `finish()`).

A drawing is `WIDTH` units wide. A book page shows it at about 1.25 px a unit, a phone at 0.65, paper at 0.8 pt.
"""

from mmcore.viz.draw import (
    MONO,
    SIZE,
    SMALL,
    WIDTH,
    Drawing,
    Part,
    arrow,
    circle,
    esc,
    finish,
    hatch,
    line,
    num,
    paragraph,
    path,
    polyline,
    rect,
    text,
    text_width,
    wrap,
)
from mmcore.viz.shapes_diagram import (
    Cell,
    Edge,
    Node,
    Series,
    TreeNode,
    bars,
    flow,
    heatmap,
    lanes,
    lines,
    table,
    tree,
)
from mmcore.viz.shapes_memory import (
    Block,
    Entry,
    FieldSpec,
    WalkStep,
    bit_fields,
    bytes_map,
    cell_map,
    free_lists,
    gauge,
    legend,
    page_grid,
    page_strip,
    ruler,
    walk,
)

__all__ = [
    "MONO",
    "SIZE",
    "SMALL",
    "WIDTH",
    "Block",
    "Cell",
    "Drawing",
    "Edge",
    "Entry",
    "FieldSpec",
    "Node",
    "Part",
    "Series",
    "TreeNode",
    "WalkStep",
    "arrow",
    "bars",
    "bit_fields",
    "bytes_map",
    "cell_map",
    "circle",
    "esc",
    "finish",
    "flow",
    "free_lists",
    "gauge",
    "hatch",
    "heatmap",
    "lanes",
    "legend",
    "line",
    "lines",
    "num",
    "page_grid",
    "page_strip",
    "paragraph",
    "path",
    "polyline",
    "rect",
    "ruler",
    "table",
    "text",
    "text_width",
    "tree",
    "walk",
    "wrap",
]
