"""The engine in the reader's browser: what the page's worker calls, one function for all its questions.

The page sends the name of an operation and JSON, and gets JSON back (`handle()`); whatever goes wrong comes back as
words. Markup in an answer is made by the book's own renderers, which escape; text that a reader typed or pasted
stays text. Nothing here needs a browser, so CPython's tests run the same code.
"""

from __future__ import annotations

import importlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmcore.errors import MMError, UsageError
from mmcore.proc import capture
from mmcore.viz import cells, player
from mmcore.viz.check import check_typed
from mmcore.viz.check import find as find_exercise
from mmcore.viz.explorable import Explorable, ParamError, find, render

__all__ = ["handle", "provide_captures"]

#: Called with a number that grows while something runs.
Tick = Callable[[int], None]
#: Tell the page at most this often, in seconds, how far a run is.
TICK = 0.1
#: What an operation answers, ready for JSON.
Answer = dict[str, Any]


def provide_captures(names: list[str], fetch: Callable[[str], Any], folder: str) -> None:
    """Let `mmcore.proc.capture` find the book's captures, each fetched when it is first asked for.

    :param names: their paths below ``book/captures``, such as ``n1-1g/physical.txt``
    :param fetch: returns the bytes of a path
    :param folder: where to put them
    """
    root = Path(folder) / "book" / "captures"
    by_name = {path.removesuffix(".gz").removesuffix(".txt"): path for path in names}
    find_here = capture.find

    def find_or_fetch(name: str) -> Path:
        path = by_name.get(name)
        if path is not None and not (root / path).exists():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(bytes(fetch(path)))
        return find_here(name)

    capture.find = find_or_fetch


def _slowly(tick: Tick | None) -> Tick | None:
    """Return @tick, called only so often that it costs nothing."""
    if tick is None:
        return None
    last = time.monotonic()

    def sometimes(n: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > TICK:
            last = now
            tick(n)

    return sometimes


def _controls(figure: Explorable) -> Answer:
    """Return what a page needs to make an explorable's controls."""
    params = [{"name": name, **param.schema()} for name, param in figure.params.items()]
    return {"title": figure.title, "help": figure.help, "params": params}


def _figure(asked: Mapping[str, Any], tick: Tick | None) -> Answer:
    """Run an explorable with the values of its controls.

    Asks for ``name``, ``values`` and ``prefix`` (of the ids); answers with the stepper as ``html``, the ``values`` as
    they were understood, and the ``controls``.
    """
    figure = find(asked["name"])
    answer: Answer = {"controls": _controls(figure)}
    try:
        rendering = render(asked["name"], asked["values"], _slowly(tick))
    except ParamError as err:
        return answer | {"error": {"param": err.param, "text": err.text}}
    values = {n: figure.params[n].format(v) for n, v in rendering.values.items()}
    html = player.stepper(rendering, asked["prefix"])
    return answer | {"html": html, "values": values, "frames": len(rendering.frames)}


def _cells(asked: Mapping[str, Any], tick: Tick | None) -> Answer:
    """Run cells of a page in order: see `mmcore.viz.cells.run_cells()`."""
    return cells.run_cells(asked["cells"], fresh=bool(asked["fresh"]), tick=tick)


def _check(asked: Mapping[str, Any], tick: Tick | None) -> Answer:
    """Compare what a reader typed into an exercise's form with what the engine does."""
    verdict = check_typed(asked["name"], [str(a) for a in asked["answers"]], asked["params"])
    shown = verdict if verdict.form is None else replace(verdict, form=None)
    return {"html": shown.html(), "right": verdict.right, "step": verdict.step}


def _problem(asked: Mapping[str, Any], tick: Tick | None) -> Answer:
    """Draw another case of an exercise; ``given`` says in words what its steps' names do not."""
    task = find_exercise(asked["name"])
    params = task.case(int(asked["seed"]))
    labels = task.labels(params)
    said = _words(labels)
    if any(_spelled(value) <= said for value in params.values()):
        said -= _words(task.labels({}))  # what every case says tells nothing about this one
    given = [
        f"{name} = {value}"
        for name, value in params.items()
        if name != "seed" and not _spelled(value) <= said
    ]
    return {"params": params, "labels": labels, "given": ", ".join(given)}


def _words(labels: list[str]) -> set[str]:
    return set(re.findall(r"\w+", " ".join(labels)))


def _spelled(value: Any) -> set[str]:
    """Return the words that say @value in a step's name: those of its hexadecimal form where it is long."""
    if isinstance(value, (list, tuple)):
        return set().union(*(_spelled(item) for item in value))
    return {f"{value:#x}" if isinstance(value, int) and value > 0xFFFF else str(value)}


def _tool(asked: Mapping[str, Any], tick: Tick | None) -> Answer:
    """Run a tool of the workbench on a reader's text, or on the bytes of a file."""
    data = asked["bytes"] if asked["text"] is None else asked["text"]
    workbench = importlib.import_module("mmcore.report.workbench")
    return dict(workbench.run(asked["tool"], data))


OPERATIONS: dict[str, Callable[[Mapping[str, Any], Tick | None], Answer]] = {
    "figure": _figure,
    "cells": _cells,
    "check": _check,
    "problem": _problem,
    "tool": _tool,
}


def handle(operation: str, asked: str, tick: Tick | None = None, data: Any = None) -> str:
    """Carry out one of the page's requests.

    :param operation: a key of `OPERATIONS`
    :param asked: what it needs, as JSON
    :param tick: called now and then while it runs
    :param data: bytes that belong to the request, such as a file's
    :return: JSON; where something is wrong it has ``error`` with ``text``, in words, and ``param`` where a
        single parameter is to blame
    """
    try:
        request = json.loads(asked)
        if data is not None:
            request["bytes"] = data.to_bytes() if hasattr(data, "to_bytes") else bytes(data)
        answer = OPERATIONS[operation](request, tick)
    except ParamError as err:
        answer = {"error": {"param": err.param, "text": err.text}}
    except (UsageError, MMError) as err:
        answer = {"error": {"param": "", "text": str(err)}}
    except (MemoryError, RecursionError) as err:
        answer = {"error": {"param": "", "text": f"this is too large for the page: {err!r}"}}
    except Exception as err:  # a fault of ours: the reader is told, and the page goes on
        answer = {"error": {"param": "", "text": f"the engine failed: {type(err).__name__}: {err}"}}
    return json.dumps(answer)
