"""The visual vocabulary: one meaning for each colour, letter and treatment, in all chapters.

Hue says what a page is; treatment says what state it is in. Everything that draws takes its colours from
here: the SVG shapes (`mmcore.viz.svg`), the pages' style sheet (`css()`), and the charts
(`mmcore.viz.charts`). SVG elements carry a class and the plain light colour; the style sheet overrides the
colour by class where the page is dark, so that a drawing is right on paper, in a page and on its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmcore.errors import UsageError

__all__ = [
    "BLACK",
    "HUES",
    "INKS",
    "LETTERS",
    "TREATMENTS",
    "WHITE",
    "Hue",
    "Ink",
    "contrast",
    "css",
    "dark_css",
    "delta_e",
    "hue",
    "lab",
    "light_css",
    "simulate",
    "standalone_css",
]

WHITE = "#FFFFFF"
BLACK = "#000000"


@dataclass(frozen=True)
class Hue:
    """What a page is: a fill with the colour its label has on it.

    :param letter: stands for the hue where there is no colour; the kernel's own letter where it has one
    :param pale: the fill is too near the paper to be seen without an outline
    """

    name: str
    light: str
    dark: str
    letter: str
    on_light: str
    on_dark: str
    meaning: str
    pale: bool = False


@dataclass(frozen=True)
class Ink:
    """A colour for lines and text, which means nothing by itself."""

    name: str
    light: str
    dark: str
    meaning: str


_HUES = (
    Hue("free", "#BFE3D0", "#17413A", "", BLACK, WHITE, "free", pale=True),
    Hue("used", "#5A5A5A", "#6E6E6E", "", WHITE, WHITE, "used, kind irrelevant"),
    Hue("unmovable", "#D55E00", "#FF7F2A", "U", BLACK, BLACK, "unmovable"),
    Hue("movable", "#56B4E9", "#7CC8F2", "M", BLACK, BLACK, "movable"),
    Hue("reclaimable", "#F0C840", "#FBE38A", "E", BLACK, BLACK, "reclaimable", pale=True),
    Hue("anon", "#CC79A7", "#D884B4", "a", BLACK, BLACK, "anonymous"),
    # White has a contrast of 3.9 on the dark file blue, black 5.4: too small a label needs 4.5.
    Hue("file", "#3B5BA9", "#5B7FD6", "f", WHITE, BLACK, "file"),
    Hue("swap", "#7B4A12", "#9A6122", "s", WHITE, WHITE, "swapped out, in swap"),
    # Kinds that are not hues of their own: they borrow one, and their letter tells them apart.
    Hue(
        "highatomic",
        "#D55E00",
        "#FF7F2A",
        "H",
        BLACK,
        BLACK,
        "reserved for high-order atomic requests",
    ),
    Hue("cma", "#56B4E9", "#7CC8F2", "C", BLACK, BLACK, "contiguous memory area"),
    Hue("isolate", "#5A5A5A", "#6E6E6E", "I", WHITE, WHITE, "isolated"),
    # Surfaces.
    Hue(
        "paper", "#FFFFFF", "#14181E", "", BLACK, WHITE, "nothing: the page's own ground", pale=True
    ),
    Hue("panel", "#F2F4F5", "#222832", "", BLACK, WHITE, "a table, a box of a diagram", pale=True),
    Hue("lit", "#FFF1B8", "#4A3D0A", "", BLACK, WHITE, "what happens now in a diagram", pale=True),
    # Two grounds without a meaning, to tell neighbours apart: fields of an address, rows of a map.
    Hue("tint", "#DCE8F5", "#20344C", "", BLACK, WHITE, "a field or a row", pale=True),
    Hue("tint2", "#EDE4F3", "#382C4A", "", BLACK, WHITE, "its neighbour", pale=True),
)

_INKS = (
    Ink("ink", "#1B1F24", "#ECEFF1", "text, outlines, the one we are discussing"),
    Ink("muted", "#57606A", "#A9B2BC", "secondary text"),
    Ink("faint", "#C4CAD0", "#434C57", "grid lines, what is not lit"),
    Ink("accent", "#0B57D0", "#8AB4F8", "focus, the path taken"),
    Ink("wrong", "#B3261E", "#F2B8B5", "a difference, a refusal"),
)

HUES: dict[str, Hue] = {h.name: h for h in _HUES}
INKS: dict[str, Ink] = {i.name: i for i in _INKS}

#: The letter of each hue that has one.
LETTERS: dict[str, str] = {h.name: h.letter for h in _HUES if h.letter}

#: How a state is drawn over any hue.
TREATMENTS: dict[str, str] = {
    "dirty": "hatched ///",
    "writeback": "hatched \\\\\\ (under writeback)",
    "referenced": "a dot",
    "active": "a thick edge",
    "pinned": "a cross (unevictable or pinned)",
    "hole": "a dashed outline without fill (hole or reserved)",
    "focus": "an outline in ink, 2 px: the one we are discussing",
}


def hue(name: str) -> Hue:
    """Return the hue called @name.

    :raises UsageError: if there is none
    """
    if name not in HUES:
        raise UsageError(f"no hue {name!r}; there are {', '.join(HUES)}")
    return HUES[name]


def _rules(prefix: str, dark: bool) -> str:
    out = []
    for h in _HUES:
        fill, label = (h.dark, h.on_dark) if dark else (h.light, h.on_light)
        out.append(f"{prefix}.mm-{h.name}{{fill:{fill}}}")
        out.append(f"{prefix}.mm-on-{h.name}{{fill:{label}}}")
        out.append(f"{prefix}.mm-hatch-{h.name}{{stroke:{label}}}")
    for i in _INKS:
        colour = i.dark if dark else i.light
        out.append(f"{prefix}.mm-t-{i.name}{{fill:{colour}}}")
        out.append(f"{prefix}.mm-l-{i.name}{{stroke:{colour}}}")
    for h in _HUES:
        if h.letter or h.name in ("free", "used"):
            colour = h.dark if dark else h.light
            out.append(f"{prefix}.mm-l-{h.name}{{stroke:{colour}}}")
    return "".join(out)


def _variables(dark: bool) -> str:
    out = [f"--mm-{h.name}:{h.dark if dark else h.light}" for h in _HUES]
    out += [f"--mm-on-{h.name}:{h.on_dark if dark else h.on_light}" for h in _HUES]
    out += [f"--mm-{i.name}:{i.dark if dark else i.light}" for i in _INKS]
    return ";".join(out)


def light_css(scope: str = "") -> str:
    """Return the rules of the light palette for everything inside @scope."""
    return _rules(f"{scope} " if scope else "", dark=False)


def dark_css(scope: str = "") -> str:
    """Return the rules of the dark palette for everything inside @scope."""
    return _rules(f"{scope} " if scope else "", dark=True)


def css() -> str:
    """Return the palette as a style sheet for pages of the book and for JupyterLab.

    A page says which palette it wants with ``data-theme`` on its root (the book's theme) or
    ``data-jp-theme-light`` on its body (JupyterLab); where neither is said, the reader's system decides.
    """
    dark_roots = ('html[data-theme="dark"]', 'body[data-jp-theme-light="false"]')
    parts = [f":root{{{_variables(False)}}}"]
    for root in dark_roots:
        parts.append(f"{root}{{{_variables(True)}}}")
        parts.append("@media screen{" + dark_css(root) + "}")
    quiet = "html:not([data-theme]) body:not([data-jp-theme-light])"
    parts.append(
        "@media screen and (prefers-color-scheme:dark){"
        f"{quiet}{{{_variables(True)}}}" + dark_css(quiet) + "}"
    )
    return "\n".join(parts) + "\n"


def standalone_css() -> str:
    """Return the rules for an SVG file that is looked at on its own: dark where the system is."""
    return "@media (prefers-color-scheme:dark){" + dark_css() + "}"


# ---- measuring colours: what the tests hold the palette to


def _linear(colour: str) -> tuple[float, float, float]:
    def channel(v: int) -> float:
        c = v / 255
        return c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4

    return (
        channel(int(colour[1:3], 16)),
        channel(int(colour[3:5], 16)),
        channel(int(colour[5:7], 16)),
    )


def contrast(a: str, b: str) -> float:
    """Return the WCAG contrast ratio of two colours such as ``"#BFE3D0"``: 1 to 21."""

    def luminance(colour: str) -> float:
        r, g, b = _linear(colour)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    hi, lo = sorted((luminance(a), luminance(b)), reverse=True)
    return (hi + 0.05) / (lo + 0.05)


#: Linear-RGB matrices for complete dichromacy (Machado, Oliveira and Fernandes 2009, severity 1.0).
_DICHROMACY = {
    "protan": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deutan": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritan": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def simulate(colour: str, vision: str) -> tuple[float, float, float]:
    """Return @colour in linear RGB as ``"normal"``, ``"protan"``, ``"deutan"`` or ``"tritan"`` vision has it."""
    rgb = _linear(colour)
    if vision == "normal":
        return rgb
    r, g, b = (
        min(max(sum(m * c for m, c in zip(row, rgb, strict=True)), 0.0), 1.0)
        for row in _DICHROMACY[vision]
    )
    return (r, g, b)


def lab(rgb: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return linear RGB as CIELAB (D65)."""
    r, g, b = rgb
    x = (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047
    y = 0.2126729 * r + 0.7151522 * g + 0.0721750 * b
    z = (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883

    def f(t: float) -> float:
        return float(t ** (1 / 3)) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116

    return (116 * f(y) - 16, 500 * (f(x) - f(y)), 200 * (f(y) - f(z)))


def delta_e(a: str, b: str, vision: str = "normal") -> float:
    """Return the CIELAB distance (1976) of two colours as @vision sees them."""
    p, q = lab(simulate(a, vision)), lab(simulate(b, vision))
    return float(sum((u - v) ** 2 for u, v in zip(p, q, strict=True)) ** 0.5)
