"""What a chapter's cell ends with: `explore()`, the same figure while a book is built and in a live kernel.

While the book is built (``MMCORE_BOOK=1``) the object has two representations and no other: the static stepper
as text/html and the key frames as image/svg+xml. In JupyterLab it is a set of native widgets. ipywidgets is
imported only there, because a page in which it was imported drags in the whole widget manager.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

from mmcore.viz import player
from mmcore.viz.explorable import Rendering, find, render

__all__ = ["Explore", "explore"]

_used_prefixes: dict[str, int] = {}


def _prefix(name: str, values: Mapping[str, Any]) -> str:
    """Return an id prefix that no other figure of this page has; the same cells give the same ids."""
    base = "mm-" + re.sub(r"[^A-Za-z0-9]+", "-", name)
    if values:
        base += f"-{zlib.crc32(repr(sorted(values.items())).encode()):08x}"
    n = _used_prefixes.get(base, 0) + 1
    _used_prefixes[base] = n
    return base if n == 1 else f"{base}-{n}"


class Explore:
    """An explorable with values, as a notebook shows it."""

    def __init__(
        self, name: str, values: Mapping[str, Any], start: int | str | None = None
    ) -> None:
        self.start = start
        self.explorable = find(name)
        self.values = dict(values)
        self.rendering: Rendering = render(name, values)
        self._prefix = _prefix(name, values)
        self._widget: Any = None

    def html(self) -> str:
        """Return the static stepper."""
        return player.stepper(self.rendering, self._prefix, start=self.start)

    def svg(self) -> str:
        """Return the key frames as one SVG."""
        return player.key_svg(self.rendering, f"{self._prefix}-key")

    def widget(self) -> Any:
        """Return the controls and the figure as one ipywidgets widget, or None where there is no ipywidgets."""
        if self._widget is None:
            try:
                from mmcore.viz import widgets
            except ImportError:
                return None
            self._widget = widgets.build(self.rendering, self._prefix, self.start)
        return self._widget

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        if player.building_book():
            return {"text/html": self.html(), "image/svg+xml": self.svg()}
        # Notebook pages have neither the book's style sheet nor its script; the output brings its own.
        own = f"{player.own_style()}{self.html()}<script>{player.script()}</script>"
        bundle: dict[str, Any] = {"text/html": own, "text/plain": repr(self)}
        widget = self.widget()
        if widget is None:
            return bundle | {"image/svg+xml": self.svg()}
        shown = widget._repr_mimebundle_(include=include, exclude=exclude)
        return bundle | {k: v for k, v in shown.items() if k != "text/plain"}

    def __repr__(self) -> str:
        shown = self.rendering.values
        values = ", ".join(f"{k}={self.explorable.params[k].format(v)!r}" for k, v in shown.items())
        return f"<explorable {self.rendering.name}({values}): {len(self.rendering.frames)} frames>"


def explore(name: str, *, start: int | str | None = None, **values: Any) -> Explore:
    """Return the explorable called @name with @values, to be the last expression of a cell.

    :param start: the step a page opens on, as a number from 1 or the mark of a frame
    :raises ParamError: for a name or a value that does not exist, saying what there is
    """
    return Explore(name, values, start)
