"""Code cells that run in a page: what a cell prints, and the value it ends in, as a notebook would show them.

The cells of a page share one namespace, as in a notebook. Markup is taken from the book's own classes only, whose
renderers escape; every other value is shown as text. The text is laid out as IPython lays it out, so that a cell
that was not changed gives what the page has printed.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import linecache
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType
from typing import Any

from mmcore.viz import player
from mmcore.viz.notebook import Explore

__all__ = ["pretty", "run_cells"]

#: A line of a printed value is at most this long where it can be broken, as in IPython.
WIDTH = 79
#: Longer sequences are cut, as in IPython.
MAX_ITEMS = 1000
#: A cell shows at most this many characters.
MAX_TEXT = 200_000

_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"), tuple: ("(", ")"), dict: ("{", "}"), set: ("{", "}"), frozenset: ("frozenset({", "})")
}  # fmt: skip


def _atom(value: Any) -> str:
    """Return a value that has no parts, as IPython prints it."""
    if isinstance(value, type) and type(value).__repr__ is type.__repr__:
        return _full_name(value)
    if isinstance(value, (FunctionType, BuiltinFunctionType)):
        try:
            return f"<function {_full_name(value)}{inspect.signature(value)}>"
        except (TypeError, ValueError):
            return repr(value)
    return repr(value)


def _full_name(value: Any) -> str:
    module = value.__module__
    return f"{value.__qualname__}" if module == "builtins" else f"{module}.{value.__qualname__}"


def _items(value: Any) -> list[tuple[str, Any]] | None:
    """Return the parts of a container, each with what stands before it, or None for other values."""
    brackets = _BRACKETS.get(type(value))
    if brackets is None or not value:
        return None
    if isinstance(value, dict):
        pairs = list(value.items())[: MAX_ITEMS + 1]
        return [(f"{pretty(key)}: ", part) for key, part in pairs]
    if isinstance(value, (set, frozenset)):
        try:
            return [("", part) for part in sorted(value)]
        except TypeError:
            return [("", part) for part in value]
    return [("", part) for part in value[: MAX_ITEMS + 1]]


def _flat(value: Any, room: int) -> str | None:
    """Return @value on one line if that takes at most @room characters."""
    items = _items(value)
    if items is None:
        text = _atom(value)
        return text if len(text) <= room and "\n" not in text else None
    opening, closing = _BRACKETS[type(value)]
    if len(items) > MAX_ITEMS:
        return None
    parts: list[str] = []
    used = len(opening) + len(closing)
    for before, part in items:
        flat = _flat(part, room - used - len(before))
        if flat is None:
            return None
        parts.append(before + flat)
        used += len(parts[-1]) + 2
    end = "," if isinstance(value, tuple) and len(items) == 1 else ""
    line = opening + ", ".join(parts) + end + closing
    return line if len(line) <= room else None


def pretty(value: Any, column: int = 0, indent: int = 0, after: int = 0) -> str:
    """Return @value as text: on one line if it fits, else with the parts of the outer containers one to a line.

    :param column: where the text begins
    :param indent: where the lines that follow begin
    :param after: how many characters follow on the last line
    """
    line = _flat(value, WIDTH - column - after)
    if line is not None:
        return line
    items = _items(value)
    if items is None:
        return _atom(value).replace("\n", "\n" + " " * indent)
    opening, closing = _BRACKETS[type(value)]
    inner = indent + len(opening)
    cut = len(items) > MAX_ITEMS
    shown = items[:MAX_ITEMS]
    end = "," if isinstance(value, tuple) and len(items) == 1 else ""
    out = []
    for i, (before, part) in enumerate(shown):
        start = (column + len(opening) if i == 0 else inner) + len(before)
        last = i == len(shown) - 1 and not cut
        out.append(before + pretty(part, start, inner, len(end + closing) + after if last else 1))
    if cut:
        out.append("...")
    return opening + (",\n" + " " * inner).join(out) + end + closing


class _Printed:
    """What a cell has printed: a file that keeps only so much."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0

    def write(self, text: str) -> int:
        if self.size < MAX_TEXT:
            self.parts.append(text[: MAX_TEXT - self.size])
        self.size += len(text)
        return len(text)

    def flush(self) -> None:
        pass

    def text(self) -> str:
        left_out = self.size - MAX_TEXT
        return "".join(self.parts) + (f"\n... {left_out} more characters\n" if left_out > 0 else "")


def shown(value: Any, prefix: str) -> dict[str, str]:
    """Return how a page shows @value: ``html`` for the book's own figures and tables, else ``text``."""
    if isinstance(value, Explore):
        return {"html": player.stepper(value.rendering, prefix, start=value.start)}
    if type(value).__module__.partition(".")[0] == "mmcore":
        bundle = getattr(value, "_repr_mimebundle_", None)
        made = bundle() if callable(bundle) else {}
        if "text/html" in made:
            return {"html": str(made["text/html"])}
    text = pretty(value)
    return {
        "text": text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "\n... cut, it is too long"
    }


def _compiled(source: str, name: str) -> tuple[Any, Any]:
    """Return a cell's statements and the expression that it ends in, each compiled, or None."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    tree = ast.parse(source, name)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
        expression = tree.body.pop()
        assert isinstance(expression, ast.Expr)
        last = compile(ast.Expression(expression.value), name, "eval")
    return compile(tree, name, "exec"), last


def _explained(err: BaseException, name: str) -> str:
    """Return the traceback of a cell's error, from the cell on."""
    tb = err.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename != name:
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(err), err, tb)).rstrip()


def run_cell(
    source: str, namespace: dict[str, Any], name: str, prefix: str
) -> list[dict[str, str]]:
    """Run one cell; return its outputs, in order: ``text``, ``html``, or ``error`` as the last one."""
    printed = _Printed()
    out: list[dict[str, str]] = []
    ended: dict[str, str] | None = None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            body, last = _compiled(source, name)
            exec(body, namespace)
            value = eval(last, namespace) if last is not None else None
            if value is not None:
                namespace["_"] = value
                ended = shown(value, prefix)
        except BaseException as err:  # SystemExit too: a cell cannot end the page's Python
            ended = {"error": _explained(err, name)}
    if printed.size:
        out.append({"text": printed.text()})
    if ended is not None:
        out.append(ended)
    return out


_namespace: dict[str, Any] = {}


def run_cells(
    cells: Sequence[Mapping[str, Any]], *, fresh: bool, tick: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Run cells one after the other until one fails.

    :param cells: each has its ``id``, a number, and its ``source``
    :param fresh: begin with an empty namespace; else go on in the one of the last call
    :param tick: called with the number of each cell before it runs
    :return: ``done``: for each cell that ran, its ``id`` and its ``outputs``
    """
    if fresh or not _namespace:
        _namespace.clear()
        _namespace.update({"__name__": "__main__", "__builtins__": __builtins__})
    done = []
    for number, cell in enumerate(cells, 1):
        if tick is not None:
            tick(number)
        name = f"<cell {cell['id']}>"
        outputs = run_cell(str(cell["source"]), _namespace, name, f"mm-cell-{cell['id']}")
        done.append({"id": cell["id"], "outputs": outputs})
        if failed(outputs):
            break
    return {"done": done}


def failed(outputs: Iterable[Mapping[str, str]]) -> bool:
    """Return whether a cell with these @outputs failed."""
    return any("error" in part for part in outputs)
