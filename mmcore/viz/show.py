"""`show(fn)`: the source of an engine function under the name of its kernel original.

What is printed is what runs: the text comes from the loaded module, so a listing cannot drift from the engine.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmcore.errors import UsageError
from mmcore.viz.player import own_style
from mmcore.viz.svg import esc

__all__ = ["KERNEL_TREE", "Listing", "kernel_url", "mirrors", "show"]

#: Where the reference release is read online: the stable tree at its tag.
KERNEL_TREE = (
    "https://git.kernel.org/pub/scm/linux/kernel/git/stable/linux.git/tree/{path}?h=v6.12.117"
)

_MIRRORS = re.compile(r"^\s*Mirrors\s+([\w./-]+):(\w+)\(\)", re.M)


def mirrors(fn: Callable[..., Any]) -> tuple[str, str] | None:
    """Return the kernel file and function that @fn models, from its docstring, or None."""
    found = _MIRRORS.search(inspect.getdoc(fn) or "")
    return (found.group(1), found.group(2)) if found else None


def kernel_url(path: str, line: int | None = None) -> str:
    """Return where file @path of the reference release is read online."""
    return KERNEL_TREE.format(path=path) + (f"#n{line}" if line else "")


def _where(fn: Callable[..., Any]) -> str:
    """Return the file of @fn as the repository names it, e.g. ``mmcore/mm/page_alloc.py``."""
    file = Path(inspect.getsourcefile(fn) or "?")
    parts = file.parts
    return "/".join(parts[parts.index("mmcore") :]) if "mmcore" in parts else file.name


def _without_docstring(source: str, fn: Callable[..., Any]) -> str:
    """Return @source with its docstring reduced to its first sentence."""
    doc = inspect.getdoc(fn)
    if not doc:
        return source
    m = re.search(r'^([ \t]*)"""(.*?)"""[ \t]*\n', source, re.S | re.M)
    if m is None:
        return source
    brief = textwrap.dedent(doc).split("\n\n")[0].strip()
    return (
        source[: m.start()]
        + m.group(1)
        + '"""'
        + brief.replace("\n", "\n" + m.group(1))
        + '"""\n'
        + source[m.end() :]
    )


def _highlighted(source: str) -> str:
    try:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer
    except ImportError:
        return f"<pre>{esc(source)}</pre>"
    return str(highlight(source, PythonLexer(), HtmlFormatter(nowrap=False, cssclass="highlight")))


class Listing:
    """The source of one engine function, as a notebook shows it."""

    def __init__(self, fn: Callable[..., Any], *, doc: bool = True) -> None:
        target = inspect.unwrap(fn)
        try:
            source = textwrap.dedent(inspect.getsource(target))
        except (OSError, TypeError):
            raise UsageError(
                f"show() needs a function or a class with a source file, not {fn!r}"
            ) from None
        self.name = target.__name__
        self.source = (
            source.rstrip() + "\n" if doc else _without_docstring(source, target).rstrip() + "\n"
        )
        self.where = _where(target)
        self.original = mirrors(target)

    def _heading(self) -> str:
        return self.where + (
            f", after {self.original[0]}:{self.original[1]}()" if self.original else ""
        )

    def html(self) -> str:
        """Return the listing with its heading and the link to the kernel's source."""
        head = f'<span class="mm-where">{esc(self.where)}</span>'
        if self.original:
            path, function = self.original
            head += (
                f' <span class="mm-after">models <a class="mm-kernel" href="{esc(kernel_url(path))}">'
                f"<code>{esc(path)}</code>: <code>{esc(function)}()</code></a></span>"
            )
        return f'<div class="mm-show"><p class="mm-show-head">{head}</p>{_highlighted(self.source)}</div>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": own_style() + self.html(), "text/plain": str(self)}

    def __str__(self) -> str:
        return f"# {self._heading()}\n{self.source}"

    __repr__ = __str__


def show(fn: Callable[..., Any], *, doc: bool = True) -> Listing:
    """Return the source of @fn with the name of its kernel original.

    :param doc: whether to print the whole docstring or only its first paragraph
    :raises UsageError: if @fn has no source
    """
    return Listing(fn, doc=doc)
