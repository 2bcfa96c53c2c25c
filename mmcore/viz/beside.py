"""`beside()`: what the model printed next to what a real kernel printed, with the differences marked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmcore.errors import UsageError
from mmcore.viz.player import own_style
from mmcore.viz.svg import esc

__all__ = ["Comparison", "beside"]

_INTEGER = re.compile(r"(?<!\w)0x[0-9a-fA-F]+\b|(?<![\w.])-?\d+(?!\d|\.\d)")

Row = tuple[str, Any, Any]


def _as_rows(data: Any, what: str) -> list[tuple[str, Any]]:
    """Return @data as (name, value) pairs: a mapping, pairs, or the lines of a text."""
    if isinstance(data, str):
        lines = [line.rstrip() for line in data.strip("\n").split("\n")]
        return [(str(i), line) for i, line in enumerate(lines, 1)]
    if isinstance(data, Mapping):
        return [(str(k), v) for k, v in data.items()]
    if isinstance(data, Iterable):
        rows = []
        for row in data:
            if not isinstance(row, (tuple, list)) or len(row) < 2:
                raise UsageError(f"beside(): {what} rows are (name, value, ...), not {row!r}")
            rows.append((str(row[0]), row[1] if len(row) == 2 else tuple(row[1:])))
        return rows
    raise UsageError(
        f"beside(): {what} is {type(data).__name__}; it may be a text, a mapping or rows"
    )


def _count(model: Any, kernel: Any) -> tuple[int, int]:
    """Return how many of the kernel's values in one row the model has, and how many there are."""
    if isinstance(model, str) and isinstance(kernel, str):
        ours, theirs = _INTEGER.findall(model), _INTEGER.findall(kernel)
        if not theirs:
            return int(model.split() == kernel.split()), 1
        return sum(a == b for a, b in zip(ours, theirs)), max(len(theirs), len(ours))
    if isinstance(model, (list, tuple)) and isinstance(kernel, (list, tuple)):
        return sum(a == b for a, b in zip(model, kernel)), max(len(model), len(kernel))
    return int(model == kernel), 1


class Comparison:
    """A model's and a kernel's rows, paired by name.

    :ivar equal: how many of the kernel's integers (or other values) the model has
    :ivar total: how many there are
    """

    def __init__(
        self,
        rows: Sequence[Row],
        labels: tuple[str, str],
        unit: str,
        only_differences: bool,
        text: bool,
    ) -> None:
        self.rows = list(rows)
        self.labels = labels
        self.unit = unit
        self._text = text
        self._only = only_differences
        counts = [_count(m, k) for _, m, k in self.rows]
        self.equal = sum(c[0] for c in counts)
        self.total = sum(c[1] for c in counts)
        self.differences = [
            row
            for row, c in zip(self.rows, counts, strict=True)
            if c[0] != c[1] or _plain(row[1]).split() != _plain(row[2]).split()
        ]

    @property
    def verdict(self) -> str:
        """The result in words: "412 of 412 integers equal"."""
        text = f"{self.equal} of {self.total} {self.unit} equal"
        if self.equal == self.total and self.differences:
            n = len(self.differences)
            text += f"; {n} {'rows differ' if n > 1 else 'row differs'} in words"
        return text

    def __bool__(self) -> bool:
        return not self.differences

    def _shown(self) -> list[Row]:
        return self.differences if self._only else self.rows

    def html(self) -> str:
        """Return the comparison as a table; a row that differs is marked by a sign, weight and colour."""
        differ = {id(row) for row in self.differences}
        body = []
        for row in self._shown():
            name, model, kernel = row
            wrong = id(row) in differ
            sign = (
                '<td class="mm-sign" aria-label="differs">≠</td>'
                if wrong
                else '<td class="mm-sign">=</td>'
            )
            cls = ' class="mm-differs"' if wrong else ""
            body.append(
                f'<tr{cls}><th scope="row">{esc(name)}</th><td>{_cell(model, kernel)}</td>{sign}'
                f"<td>{_cell(kernel, model)}</td></tr>"
            )
        if not body:
            body.append('<tr><td colspan="4">No difference.</td></tr>')
        kind = " mm-beside-text" if self._text else ""
        return (
            f'<div class="mm-beside{kind}"><table><thead><tr><td></td><th>{esc(self.labels[0])}</th><td></td>'
            f'<th>{esc(self.labels[1])}</th></tr></thead><tbody>{"".join(body)}</tbody></table>'
            f'<p class="mm-verdict">{esc(self.verdict)}</p></div>'
        )

    def __str__(self) -> str:
        rows = [(n, _plain(m), _plain(k)) for n, m, k in self._shown()]
        wide = [max([len(r[i]) for r in rows] + [len(h)]) for i, h in enumerate(("", *self.labels))]
        out = [f"{'':{wide[0]}}  {self.labels[0]:{wide[1]}}     {self.labels[1]}".rstrip()]
        differ = {row[0] for row in self.differences}
        for n, m, k in rows:
            sign = "!=" if n in differ else "=="
            out.append(f"{n:{wide[0]}}  {m:{wide[1]}}  {sign} {k}".rstrip())
        return "\n".join([*out, self.verdict])

    __repr__ = __str__

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": own_style() + self.html(), "text/plain": str(self)}


def _plain(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, (list, tuple)):
        return " ".join(str(v) for v in value)
    return str(value)


def _cell(value: Any, other: Any) -> str:
    """Return a value as HTML, with the words that differ from @other marked."""
    mine, theirs = _plain(value).split(), _plain(other).split()
    if mine == theirs or len(mine) != len(theirs) or len(mine) == 1:
        text = esc(_plain(value))
        return text if mine == theirs else f"<mark>{text}</mark>"
    words = (
        esc(a) if a == b else f"<mark>{esc(a)}</mark>" for a, b in zip(mine, theirs, strict=True)
    )
    return " ".join(words)


def beside(
    model_rows: Any,
    kernel_rows: Any,
    *,
    labels: tuple[str, str] = ("model", "Linux 6.12"),
    unit: str = "integers",
    only_differences: bool = False,
) -> Comparison:
    """Return model and kernel side by side, differences marked, with a count of what is equal.

    :param model_rows: a text (compared line by line), a mapping from name to value, or rows (name, value, ...)
    :param kernel_rows: the same from a capture; rows are paired by name, lines of a text by number
    :param unit: what is counted: in a text the integers of each line, else the values
    :param only_differences: whether to leave out rows that are equal
    """
    model = _as_rows(model_rows, "model")
    kernel = _as_rows(kernel_rows, "kernel")
    ours = dict(model)
    if len(ours) != len(model) or len({n for n, _ in kernel}) != len(kernel):
        raise UsageError("beside(): two rows have the same name")
    theirs = dict(kernel)
    rows: list[Row] = [(name, ours.get(name), value) for name, value in kernel]
    rows += [(name, value, None) for name, value in model if name not in theirs]
    is_text = isinstance(model_rows, str) and isinstance(kernel_rows, str)
    return Comparison(rows, labels, unit, only_differences, is_text)
