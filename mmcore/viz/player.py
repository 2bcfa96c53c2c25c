"""The stepper of a static page: all frames of a rendering as HTML that works before and without a script.

The frames share one SVG. Elements that several frames have in common are in it once, each with the frames it
belongs to (``data-f="0-3,7"``), so that a long run stays small; ``static/explorables.js`` shows and hides them.
Without a script the first key frame is visible, the others follow in ``<noscript>``, and every step can be read
as text.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from importlib import resources
from typing import Any

from mmcore.errors import UsageError
from mmcore.viz import palette
from mmcore.viz import svg as shapes
from mmcore.viz.explorable import Frame, ParamError, Rendering

__all__ = [
    "MARKS",
    "MAX_ELEMENTS",
    "building_book",
    "count_elements",
    "glyph_by_glyph",
    "inline",
    "key_svg",
    "own_style",
    "plain_text",
    "ranges",
    "script",
    "split_key_svg",
    "split_svg",
    "standalone",
    "stepper",
    "style",
    "view_box",
]

#: The elements that a figure's whole stepper may have in a page.
MAX_ELEMENTS = 2000

_TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]*)[^>]*?(/?)>")
#: The marks of a caption: `` `code` `` (group 2) and ``**bold**`` (group 3).
MARKS = re.compile(r"(`+)(.+?)\1|\*\*(.+?)\*\*")


def inline(value: str) -> str:
    """Return a caption as HTML: `` `code` `` and ``**bold**`` are marked up, all else is escaped."""
    out, end = [], 0
    for m in MARKS.finditer(value):
        out.append(shapes.esc(value[end : m.start()]))
        if m.group(2) is not None:
            out.append(f"<code>{shapes.esc(m.group(2))}</code>")
        else:
            out.append(f"<strong>{inline(m.group(3))}</strong>")
        end = m.end()
    out.append(shapes.esc(value[end:]))
    return "".join(out)


def plain_text(value: str) -> str:
    """Return a caption without its marks."""
    return MARKS.sub(
        lambda m: m.group(2) if m.group(2) is not None else plain_text(m.group(3)), value
    )


def count_elements(markup: str) -> int:
    """Return how many elements @markup has, those in ``<noscript>`` not counted: scripts never see them."""
    seen = re.sub(r"<noscript>.*?</noscript>", "", markup, flags=re.S)
    return sum(1 for m in _TAG.finditer(seen) if not m.group(1))


def split_svg(svg: str) -> tuple[str, list[str]]:
    """Return an ``<svg>``'s opening tag and its children, each as text."""
    opening = _TAG.match(svg)
    if opening is None or opening.group(2) != "svg" or opening.group(3):
        raise UsageError(f"a frame's drawing has to begin with <svg ...>, not {svg[:40]!r}")
    items: list[str] = []
    depth, start = 0, opening.end()
    for m in _TAG.finditer(svg, opening.end()):
        if m.group(1):
            depth -= 1
            if depth < 0:
                return opening.group(0), items
            if depth == 0:
                items.append(svg[start : m.end()])
        elif m.group(3):
            if depth == 0:
                items.append(m.group(0))
        else:
            if depth == 0:
                start = m.start()
            depth += 1
    raise UsageError("a frame's drawing has an <svg> that is not closed")


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending @numbers as ``0-3,7``."""
    out: list[str] = []
    start = prev = None
    for n in [*numbers, None]:
        if prev is not None and n == prev + 1:
            prev = n
            continue
        if start is not None:
            out.append(str(start) if start == prev else f"{start}-{prev}")
        start = prev = n
    return ",".join(out)


def _merge(frames: Sequence[list[str]]) -> list[tuple[str, list[int]]]:
    """Return all frames' elements in one list, with the frames each belongs to.

    The elements of one frame appear in the list in that frame's order, so painting them in list order gives
    exactly that frame.
    """
    merged: list[tuple[str, list[int]]] = []
    for i, items in enumerate(frames):
        out: list[tuple[str, list[int]]] = []
        matcher = SequenceMatcher(None, [m[0] for m in merged], items, autojunk=False)
        for what, a0, a1, b0, b1 in matcher.get_opcodes():
            if what == "equal":
                out.extend((text, [*seen, i]) for text, seen in merged[a0:a1])
            else:
                out.extend(merged[a0:a1])
                out.extend((text, [i]) for text in items[b0:b1])
        merged = out
    return merged


Box = tuple[float, float, float, float]


def view_box(head: str) -> Box:
    """Return x, y, width and height of an ``<svg>``'s view box."""
    m = re.search(r'viewBox="(-?[\d.]+) (-?[\d.]+) ([\d.]+) ([\d.]+)"', head)
    if m is None:
        raise UsageError('a frame\'s drawing needs viewBox="x y width height"')
    return (float(m.group(1)), float(m.group(2)), float(m.group(3)), float(m.group(4)))


def _boxed(head: str, box: Box) -> str:
    shown = " ".join(shapes.num(v) for v in box)
    return re.sub(r'viewBox="[^"]*"', f'viewBox="{shown}"', head, count=1)


def merged_svg(frames: Sequence[Frame], shown: int, prefix: str, title: str) -> str:
    """Return one ``<svg>`` that holds all @frames, with frame @shown visible."""
    split = [split_svg(str(f.svg)) for f in frames]
    boxes = [view_box(head) for head, _ in split]
    x, y = min(b[0] for b in boxes), min(b[1] for b in boxes)
    right, bottom = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    head = _boxed(split[0][0], (x, y, right - x, bottom - y))
    body = []
    for item, seen in _merge([items for _, items in split]):
        if len(seen) < len(frames):
            hidden = "" if shown in seen else ' display="none"'
            item = re.sub(r"^<([\w:.-]+)", rf'<\1 data-f="{ranges(seen)}"{hidden}', item, count=1)
        body.append(item)
    return shapes.finish(
        f"{head}{''.join(body)}</svg>", prefix, title, plain_text(frames[shown].alt)
    )


_ICONS = {
    "first": ("First step", "M4 3v10M13 3L6 8l7 5z"),
    "prev": ("Previous step", "M11 3L4 8l7 5z"),
    "play": ("Play", "M5 3l8 5-8 5z"),
    "next": ("Next step", "M5 3l7 5-7 5z"),
    "last": ("Last step", "M12 3v10M3 3l7 5-7 5z"),
}


def _controls(n: int) -> str:
    out = ['<div class="mm-bar" hidden>']
    for do, (label, d) in _ICONS.items():
        out.append(
            f'<button type="button" class="mm-btn" data-do="{do}" aria-label="{label}" title="{label}">'
            f'<svg viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d="{d}"/></svg></button>'
        )
    out.append(
        f'<input type="range" class="mm-range" min="1" max="{n}" value="1" step="1" aria-label="Step">'
    )
    out.append('<span class="mm-count"></span></div>')
    return "".join(out)


def _counter(rendering: Rendering, i: int) -> str:
    return f"Step {rendering.frames[i].step} of {rendering.total}"


def _words(rendering: Rendering) -> str:
    """Return the folded list of all steps as text; the script takes captions and descriptions from it.

    A description that begins with the caption is printed without it (``data-join``).
    """
    items = []
    for f in rendering.frames:
        caption, alt = plain_text(f.caption), plain_text(f.alt)
        joined = alt.startswith(caption)
        rest = alt[len(caption) :].strip() if joined else alt
        attr = " data-join" if joined else ""
        items.append(
            f'<li value="{f.step}"><p class="mm-c">{inline(f.caption)}</p>'
            f'<p class="mm-alt"{attr}>{shapes.esc(rest)}</p></li>'
        )
    n = len(rendering.frames)
    summary = "This figure in words" if n == 1 else f"All {n} steps in words"
    if rendering.sampled:
        summary = f"{n} of the {rendering.total} steps in words"
    return f'<details class="mm-words"><summary>{summary}</summary><ol tabindex="0">{"".join(items)}</ol></details>'


def _sampling_note(rendering: Rendering) -> str:
    if not rendering.sampled:
        return ""
    shown = len(rendering.frames)
    return f'<p class="mm-note">{shown} of {rendering.total} steps are drawn, evenly spaced.</p>'


def first_step(rendering: Rendering, start: int | str) -> int:
    """Return the index of the frame to open on.

    :raises ParamError: if there is no such step or mark
    """
    frames = rendering.frames
    if isinstance(start, int) and 1 <= start <= len(frames):
        return start - 1
    for i, frame in enumerate(frames):
        if isinstance(start, str) and frame.mark == start:
            return i
    marks = ", ".join(sorted({f.mark for f in frames if f.mark})) or "none"
    raise ParamError(
        "start", f"there is no step {start!r}: 1 to {len(frames)}, or one of the marks {marks}"
    )


def stepper(
    rendering: Rendering, prefix: str, *, error: str = "", start: int | str | None = None
) -> str:
    """Return the whole HTML of a rendering.

    :param prefix: makes ids unique in the page
    :param start: the step to open on, as a number from 1 or the mark of a frame; by default the
        first one, or, where there are no scripts, the first key frame
    :param error: a message to show above the figure, for values that could not be taken
    """
    frames, n = rendering.frames, len(rendering.frames)
    keys = rendering.key_indices
    shown = keys[0] if n > 1 else 0
    opening = ""
    if start is not None:
        shown = first_step(rendering, start)
        opening = f' data-start="{shown}"'
    title = rendering.title
    stage = merged_svg(frames, shown, prefix, title)
    others = "".join(
        f'<div class="mm-key">{shapes.finish(str(frames[i].svg), f"{prefix}-k{i}", title, plain_text(frames[i].alt))}'
        f'<p class="mm-caption">{_counter(rendering, i)}. {inline(frames[i].caption)}</p></div>'
        for i in keys
        if i != shown
    )
    if rendering.explorable.params:
        opening += f' data-values="{shapes.esc(json.dumps(rendering.changed))}"'
    focus = ' tabindex="0"' if n > 1 else ""
    label = f"{shapes.esc(title)}. Arrow keys step, space plays." if n > 1 else shapes.esc(title)
    lead = f"{_counter(rendering, shown)}. " if n > 1 else ""
    out = [
        f'<div class="mm-fig" data-mm="{shapes.esc(rendering.name)}" data-total="{rendering.total}"{opening} id="{prefix}">',
        f'<p class="mm-error" role="alert">{shapes.esc(error)}</p>' if error else "",
        f'<div class="mm-stage" role="group" aria-label="{label}"{focus}>{stage}</div>',
        _controls(n) if n > 1 else "",
        _sampling_note(rendering),
        f'<p class="mm-caption" aria-live="polite">{lead}{inline(frames[shown].caption)}</p>',
        f"<noscript>{others}</noscript>" if others else "",
        _words(rendering),
        "</div>",
    ]
    return "".join(out)


_SPACED = re.compile(r'<text([^>]*?) x="([^"]* [^"]*)"([^>]*)>([^<]*)</text>')


def _one_each(match: re.Match[str]) -> str:
    before, places, after, words = match.groups()
    glyphs = html.unescape(words)
    return "".join(
        f'<text{before} x="{x}"{after}>{shapes.esc(g)}</text>'
        for x, g in zip(places.split(), glyphs, strict=False)
    )


def glyph_by_glyph(svg: str) -> str:
    """Return @svg with one ``<text>`` for each glyph that has a place of its own.

    librsvg 2.54, which makes the PDF's pictures, heeds only the first of the places in ``x="1 2 3"``.
    """
    return _SPACED.sub(_one_each, svg)


def key_svg(rendering: Rendering, prefix: str) -> str:
    """Return the key frames as one SVG, one below the other, each with its caption as text.

    The book's extension takes it apart again for the PDF, with the ``<metadata>`` it carries; anything else
    that prefers an image to HTML can show it as it is.
    """
    d = shapes.Drawing()
    parts: list[str] = []
    carried: list[dict[str, Any]] = []
    y: float = 0
    keys = rendering.key_indices
    for i in keys:
        frame = rendering.frames[i]
        head, items = split_svg(glyph_by_glyph(str(frame.svg)))
        box = view_box(head)
        width, shift = box[0] * 2 + box[2], y - box[1]
        parts.append(
            f'<g class="mm-frame" transform="translate(0 {shapes.num(shift)})">{"".join(items)}</g>'
        )
        y += box[3] + 6
        caption = frame.caption
        if len(keys) > 1:
            caption = f"{_counter(rendering, i)}. {caption}"
        carried.append({"head": head, "caption": caption, "alt": plain_text(frame.alt)})
        words = shapes.paragraph(plain_text(caption), 0, y, width)
        parts.extend(words.items)
        y = words.bottom + 18
        d.width = max(d.width, width)
    d.height = y
    alt = " ".join(plain_text(rendering.frames[i].alt) for i in keys)
    meta = f'<metadata class="mm-key-frames">{shapes.esc(json.dumps(carried))}</metadata>'
    body = str(d).replace("</svg>", meta + "".join(parts) + "</svg>")
    return shapes.finish(body, prefix, rendering.title, alt)


_KEY_FRAMES = re.compile(r'<metadata class="mm-key-frames">(.*?)</metadata>', re.S)


def split_key_svg(svg: str) -> list[tuple[str, str, str]]:
    """Take apart what `key_svg()` made: return (SVG, caption, description) of each key frame, or nothing."""
    meta = _KEY_FRAMES.search(svg)
    if meta is None:
        return []
    carried = json.loads(html.unescape(meta.group(1)))
    groups = [item for item in split_svg(svg)[1] if item.startswith('<g class="mm-frame"')]
    out = []
    for frame, group in zip(carried, groups, strict=True):
        inner = group[group.index(">") + 1 : -len("</g>")]
        out.append((f"{frame['head']}{inner}</svg>", frame["caption"], frame["alt"]))
    return out


def _static(name: str) -> str:
    return (resources.files("mmcore.viz") / "static" / name).read_text(encoding="utf-8")


def style() -> str:
    """Return the style sheet of the steppers: the palette and ``static/explorables.css``."""
    return palette.css() + _static("explorables.css")


def building_book() -> bool:
    """Whether the book is being built; its pages have the style sheet and the script already."""
    return os.environ.get("MMCORE_BOOK", "") not in ("", "0")


def own_style() -> str:
    """Return the style sheet as an element for an output in a notebook, which has no page around it."""
    return "" if building_book() else f"<style>{style()}</style>"


def script() -> str:
    """Return ``static/explorables.js``."""
    return _static("explorables.js")


def standalone(svg: str, title: str, alt: str) -> str:
    """Return an ``<svg>`` as a file of its own: it has its own ground and is dark where the reader's system is."""
    box = view_box(svg)
    head, _, rest = glyph_by_glyph(svg).partition(">")
    x, y, width, height = (shapes.num(v) for v in box)
    ground = f'<rect class="mm-paper" fill="{palette.WHITE}" x="{x}" y="{y}" width="{width}" height="{height}"/>'
    body = f"{head}><style>{palette.standalone_css()}</style>{ground}{rest}"
    return shapes.finish(body, "mm", title, alt) + "\n"
