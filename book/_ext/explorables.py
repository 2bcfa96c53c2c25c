"""The book's figures in Sphinx: their style sheet and script, and their key frames in the PDF.

A chapter's figure cell puts out two representations (see `mmcore.viz.notebook`). HTML takes the stepper. LaTeX
takes the SVG, which holds the key frames of the figure; here each of them becomes an image of its own with its
caption, so that a printed figure can be broken over pages and its words are words.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmcore.viz import player

#: What a page holds below and above a figure, in points, and the smallest acceptable size of one unit.
PAGE_HEIGHT = 560.0
CAPTION_HEIGHT = 34.0
TEXT_WIDTH = 440.0
SMALLEST = 0.6


def _write_static(app: Sphinx) -> None:
    """Write the style sheet and the script where Sphinx collects static files."""
    folder = Path(app.doctreedir) / "explorables-static"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("explorables.css", player.style()), ("explorables.js", player.script())):
        file = folder / name
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            file.write_text(content, encoding="utf-8")
    app.config.html_static_path.append(str(folder))


def caption_nodes(caption: str) -> list[nodes.Node]:
    """Return a frame's caption as docutils nodes."""
    out: list[nodes.Node] = []
    end = 0
    for m in player.MARKS.finditer(caption):
        if caption[end : m.start()]:
            out.append(nodes.Text(caption[end : m.start()]))
        if m.group(2) is not None:
            out.append(nodes.literal(m.group(2), m.group(2)))
        else:
            out.append(nodes.strong(m.group(3), "", *caption_nodes(m.group(3))))
        end = m.end()
    if caption[end:]:
        out.append(nodes.Text(caption[end:]))
    return out


def unit_size(heights: list[float], width: float) -> float:
    """Return how many points a unit of the drawings gets, so that they fit on one page if they can."""
    room = PAGE_HEIGHT - CAPTION_HEIGHT * len(heights)
    return min(TEXT_WIDTH / width, max(room / sum(heights), SMALLEST))


class KeyFrames(SphinxPostTransform):
    """In the PDF, show each key frame of an explorable as an image with its caption."""

    # After myst-nb has chosen the representation (4), before images are converted (200).
    default_priority = 5
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        for image in list(self.document.findall(nodes.image)):
            uri = image.get("uri", "")
            if uri.endswith(".svg"):
                self._replace(image, uri)
        for block in self.document.findall(nodes.literal_block):
            if "text_plain" in block["classes"] and block.astext().startswith("# mmcore/"):
                block["language"] = "python3"

    def _replace(self, image: nodes.image, uri: str) -> None:
        file = Path(self.app.srcdir) / uri.lstrip("/")
        if not file.is_file():
            return
        frames = player.split_key_svg(file.read_text(encoding="utf-8"))
        if not frames:
            return
        boxes = [player.view_box(svg) for svg, _, _ in frames]
        size = unit_size([b[3] for b in boxes], boxes[0][2])
        new: list[list[nodes.Node]] = []
        for (svg, caption, alt), box in zip(frames, boxes, strict=True):
            shown = self._image(file.parent, svg, alt, image)
            shown["width"] = f"{min(100, round(100 * size * box[2] / TEXT_WIDTH))}%"
            words = nodes.paragraph(caption, "", *caption_nodes(caption), classes=["mm-caption"])
            gap: list[nodes.Node] = [nodes.raw("", r"\medskip", format="latex")] if new else []
            new.append([*gap, shown, words] if caption else [*gap, shown])
        parent = image.parent
        fits = sum(b[3] * size + CAPTION_HEIGHT for b in boxes) <= PAGE_HEIGHT
        if isinstance(parent, nodes.figure) and not fits and len(new) > 1:
            # Too tall for one page: the earlier frames stand before the numbered figure.
            place = parent.parent.index(parent)
            parent.parent[place:place] = [n for group in new[:-1] for n in group]
            new = new[-1:]
        image.replace_self([n for group in new for n in group])

    def _image(self, folder: Path, svg: str, alt: str, old: nodes.image) -> nodes.image:
        """Write one key frame beside the file it came from and return its image node."""
        file = folder / f"{hashlib.sha256(svg.encode()).hexdigest()}.svg"
        if not file.exists():
            file.write_text(svg, encoding="utf-8")
        uri = os.path.relpath(file, self.app.srcdir).replace(os.sep, "/")
        self.env.images.add_file(self.env.docname, uri)
        new = nodes.image(uri=uri, candidates={"image/svg+xml": uri}, alt=alt, align="center")
        new.source, new.line = old.source, old.line
        return new


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    os.environ.setdefault("MMCORE_BOOK", "1")
    app.connect("builder-inited", _write_static)
    app.add_css_file("explorables.css")
    app.add_js_file("explorables.js", loading_method="defer")
    app.add_post_transform(KeyFrames)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
