"""Drawing: figures that are declared once and shown in the page, in JupyterLab and on paper.

Chapters use `explore()`, `show()`, `check()` and `beside()`; figure modules declare with `explorable()`
and the parameter types. Importing this package needs the standard library only.
"""

from mmcore.viz.beside import beside
from mmcore.viz.check import check, exercise
from mmcore.viz.explorable import (
    Actions,
    Bool,
    Choice,
    Float,
    Frame,
    Hex,
    Int,
    ParamError,
    Rendering,
    Seed,
    Text,
    explorable,
    render,
)
from mmcore.viz.notebook import explore
from mmcore.viz.show import show

__all__ = [
    "Actions",
    "Bool",
    "Choice",
    "Float",
    "Frame",
    "Hex",
    "Int",
    "ParamError",
    "Rendering",
    "Seed",
    "Text",
    "beside",
    "check",
    "exercise",
    "explorable",
    "explore",
    "render",
    "show",
]
