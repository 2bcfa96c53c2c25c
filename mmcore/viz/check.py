"""Exercises that answer back: `check()` says where an answer first goes wrong and what the engine did there.

The expected steps are computed by the engine each time, from the exercise's parameters; none is written down::

    @exercise("ch02.free-order")
    def free_order(pfns=(8, 9, 11, 10)):
        ...
        return [("free 8", {0: [8]}), ("free 9", {1: [8]}), ...]

    check("ch02.free-order", [{0: [8]}, {1: [8]}])
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcore.errors import UsageError
from mmcore.viz.explorable import plain
from mmcore.viz.player import own_style
from mmcore.viz.svg import esc

__all__ = [
    "Exercise",
    "Verdict",
    "check",
    "check_typed",
    "exercise",
    "find",
    "names",
    "read_answer",
]

Steps = Sequence[tuple[str, Any]]
#: Draws the parameters of another case of an exercise.
Vary = Callable[[random.Random], Mapping[str, Any]]


@dataclass(frozen=True)
class Exercise:
    """A declared exercise: see `exercise()`."""

    name: str
    function: Callable[..., Steps]
    compare: Callable[[Any, Any], bool] | None = None
    vary: Vary | None = None

    @property
    def varies(self) -> bool:
        """Whether a seed gives another case."""
        return self.vary is not None or "seed" in inspect.signature(self.function).parameters

    def case(self, seed: int) -> dict[str, Any]:
        """Return the parameters of case number @seed.

        :raises UsageError: if the exercise has one case only
        """
        if not self.varies:
            raise UsageError(f"exercise {self.name} has one case only")
        return dict(self.vary(random.Random(seed))) if self.vary is not None else {"seed": seed}

    def labels(self, params: Mapping[str, Any]) -> list[str]:
        """Return the names of the steps, in order."""
        return [label for label, _ in self.function(**params)]


_registry: dict[str, Exercise] = {}


def exercise(
    name: str, *, compare: Callable[[Any, Any], bool] | None = None, vary: Vary | None = None
) -> Callable[[Callable[..., Steps]], Callable[..., Steps]]:
    """Register a function that computes the expected steps of an exercise with the engine.

    :param name: ``chNN.word``; the function is found in ``mmcore/viz/exercises/chNN.py``
    :param compare: says whether an answer to one step is as good as the expected one; equality by default,
        where lists and tuples, dicts in any order, and whole numbers and their text count as equal
    :param vary: draws the parameters of another case; not needed where the function takes a ``seed``
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)+", name):
        raise UsageError(f"exercise name {name!r}: needs the form 'ch02.free-order'")

    def register(function: Callable[..., Steps]) -> Callable[..., Steps]:
        _registry[name] = Exercise(name, function, compare, vary)
        return function

    return register


def names() -> list[str]:
    """Return the names of the exercises declared so far, sorted."""
    return sorted(_registry)


def find(name: str) -> Exercise:
    """Return the exercise called @name, importing the module that declares it if need be.

    :raises UsageError: if there is none
    """
    if name not in _registry:
        module = name.partition(".")[0]
        if re.fullmatch(r"[a-z][a-z0-9_]*", module):
            try:
                importlib.import_module(f"mmcore.viz.exercises.{module}")
            except ModuleNotFoundError as err:
                if err.name not in (f"mmcore.viz.exercises.{module}", "mmcore.viz.exercises"):
                    raise
    if name not in _registry:
        raise UsageError(
            f"there is no exercise {name!r}; there are: {', '.join(names()) or 'none'}"
        )
    return _registry[name]


@dataclass(frozen=True)
class Verdict:
    """What `check()` found.

    :param right: whether every step is right
    :param step: the number of the first wrong step, counted from 1, or 0
    """

    exercise: str
    right: bool
    step: int
    label: str
    expected: Any
    given: Any
    text: str
    #: Where no answer was given: what a page needs to make a form for one.
    form: Mapping[str, Any] | None = None

    def __bool__(self) -> bool:
        return self.right

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def html(self) -> str:
        """Return the verdict as HTML."""
        kind = "right" if self.right else "wrong"
        if self.form is None:
            return f'<p class="mm-verdict mm-{kind}-answer" role="status">{esc(self.text)}</p>'
        form = esc(json.dumps({"name": self.exercise, **plain(self.form)}))
        return f'<p class="mm-verdict mm-no-answer" data-exercise="{form}">{esc(self.text)}</p>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": own_style() + self.html(), "text/plain": self.text}

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as what JSON can carry."""
        return {
            "exercise": self.exercise,
            "right": self.right,
            "step": self.step,
            "label": self.label,
            "expected": plain(self.expected),
            "given": plain(self.given),
            "text": self.text,
        }


def _same(expected: Any, given: Any) -> bool:
    """Whether two answers mean the same: see `exercise()`."""
    if isinstance(expected, Mapping) and isinstance(given, Mapping):
        one = {str(k): v for k, v in expected.items()}
        two = {str(k): v for k, v in given.items()}
        return one.keys() == two.keys() and all(_same(v, two[k]) for k, v in one.items())
    if isinstance(expected, (list, tuple)) and isinstance(given, (list, tuple)):
        return len(expected) == len(given) and all(
            _same(a, b) for a, b in zip(expected, given, strict=True)
        )
    if isinstance(expected, bool) or isinstance(given, bool):
        return expected is given
    if isinstance(expected, int) and isinstance(given, str):
        try:
            return int(given.strip(), 0) == expected
        except ValueError:
            return False
    if isinstance(expected, str) and isinstance(given, str):
        return expected.split() == given.split()
    return bool(expected == given)


def _answers(answer: Any, labels: Sequence[str]) -> list[Any]:
    """Return the reader's answers in the order of the steps."""
    if isinstance(answer, Mapping) and labels and all(str(k) in labels for k in answer):
        return [answer[label] for label in labels if label in answer]
    if isinstance(answer, (list, tuple)) and len(labels) != 1:
        return list(answer)
    if isinstance(answer, (list, tuple)) and len(answer) == 1:
        return list(answer)
    if isinstance(answer, Iterable) and not isinstance(answer, (str, bytes, Mapping, list, tuple)):
        return list(answer)
    return [answer]


def check(name: str, answer: Any, **params: Any) -> Verdict:
    """Compare @answer with what the engine does, and say where it first goes wrong.

    :param answer: one entry for each step of the exercise, in order; a single value where there is one step;
        ``...`` while there is none
    :param params: parameters of the exercise, such as a seed
    """
    task = find(name)
    steps = list(task.function(**params))
    labels = [label for label, _ in steps]
    if answer is ... or (isinstance(answer, (list, tuple)) and not answer and len(steps) > 1):
        many = "one value" if len(steps) == 1 else f"{len(steps)} values, first"
        text = f"No answer yet. It takes {many}: {labels[0]}."
        form = {"labels": labels, "params": params, "varies": task.varies}
        return Verdict(name, False, 1, labels[0], None, None, text, form)
    given = _answers(answer, labels)
    if len(steps) == 1 and len(given) == 1 and _matches(task, steps[0][1], answer):
        given = [answer]
    for i, (label, expected) in enumerate(steps):
        if i >= len(given):
            text = f"Right so far, {i} of {len(steps)} steps. Next is {label}."
            return Verdict(name, False, i + 1, label, expected, None, text)
        if not _matches(task, expected, given[i]):
            before = {0: "", 1: "Step 1 is right. "}.get(i, f"Steps 1 to {i} are right. ")
            where = f"Step {i + 1}, {label}" if len(steps) > 1 else label
            text = f"{before}{where}: you have {shown(given[i])}; the engine has {shown(expected)}."
            return Verdict(name, False, i + 1, label, expected, given[i], text)
    if len(given) > len(steps):
        text = f"All {len(steps)} steps are right, but your answer has {len(given)}."
        return Verdict(name, False, len(steps) + 1, "", None, given[len(steps)], text)
    text = "Right." if len(steps) == 1 else f"Right, all {len(steps)} steps."
    return Verdict(name, True, 0, "", None, None, text)


def _word(text: str) -> Any:
    """Return one word of an answer: a number, yes or no, or the word itself."""
    word = text.strip().strip("'\"`")
    if word in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[word]
    try:
        return int(word.replace("_", ""), 0)
    except ValueError:
        return word


def read_answer(text: str, expected: Any) -> Any:
    """Return what a reader typed for one step as a value of the kind that is @expected.

    Python is understood, and so is what one would write on paper: ``1,024``, ``yes``, ``0, 8, head``.
    """
    text = text.strip()
    if isinstance(expected, bool):
        return {"yes": True, "true": True, "no": False, "false": False}.get(text.lower(), text)
    if isinstance(expected, int):
        number = re.sub(r"(?<=\d)[,_ ](?=\d)", "", text)
        number = number.lstrip("0") or "0" if number.isdigit() else number
        try:
            return int(number, 0)
        except ValueError:
            return text
    if isinstance(expected, str):
        return text.strip("'\"")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        pass
    if isinstance(expected, (list, tuple)):
        inner = text.strip("()[] ")
        words = [_word(w) for w in (inner.split(",") if "," in inner else inner.split())]
        return type(expected)(words)
    return text


def check_typed(name: str, answers: Sequence[str], params: Mapping[str, Any]) -> Verdict:
    """Check what a reader typed into the form of an exercise, one text for each step.

    The first empty one ends the answer.
    """
    steps = list(find(name).function(**params))
    given: list[Any] = []
    for text, (_, expected) in zip(answers, steps, strict=False):
        if not text.strip():
            break
        given.append(read_answer(text, expected))
    if not given:
        return check(name, ..., **params)
    return check(name, given if len(steps) > 1 else given[0], **params)


def _matches(task: Exercise, expected: Any, given: Any) -> bool:
    if task.compare is None:
        return _same(expected, given)
    try:
        return bool(task.compare(expected, given))
    except (TypeError, ValueError, AttributeError, KeyError, IndexError):
        return False


def shown(value: Any) -> str:
    """Return @value as a verdict prints it, cut where it is long. What is that large is an address."""
    if isinstance(value, int) and value >= 1 << 32:
        return hex(value)
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else text[:197] + "..."
