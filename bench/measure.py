"""Measuring: the best of several runs, and the yardsticks that make a rate comparable.

A rate by itself says as much about the machine as about the engine, so every rate is also given as
a ratio to a loop over a Python dict and, where a C compiler exists, to a buddy allocator in C, both
run seconds before on the same machine.
"""

from __future__ import annotations

import gc
import random
import shutil
import subprocess
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import ParamSpec, TypeVar

__all__ = ["best", "c_buddy", "dict_loop", "memory_of", "mixed_script"]


P = ParamSpec("P")
R = TypeVar("R")


def best(work: Callable[..., object], runs: int, *args: object) -> float:
    """Return the shortest time in seconds that ``work(*args)`` took in @runs runs, collector off."""
    shortest = float("inf")
    for _ in range(runs):
        gc.collect()
        gc.disable()
        try:
            start = perf_counter()
            work(*args)
            shortest = min(shortest, perf_counter() - start)
        finally:
            gc.enable()
    return shortest


def memory_of(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> tuple[R, int]:
    """Return the result of @work and the bytes of Python memory that it keeps alive."""
    gc.collect()
    tracemalloc.start()
    try:
        result = work(*args, **kwargs)
        gc.collect()
        return result, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def dict_loop(n: int = 1_000_000) -> float:
    """The Python yardstick: stores per second into a dict of 1,024 keys in a plain loop."""

    def work() -> None:
        d: dict[int, int] = {}
        for i in range(n):
            d[i & 1023] = i

    return n / best(work, 3)


def mixed_script(operations: int, pages: int, seed: int = 1) -> list[int]:
    """Return a seeded mix of allocations and frees that fills about half of @pages.

    Each number is an order to allocate (0 to 9, small ones much more often), or ``-1 - slot`` to
    free what the slot-th allocation got.
    """
    rng = random.Random(seed)
    orders = [0] * 60 + [1] * 12 + [2] * 10 + [3] * 8 + [4] * 4 + [5] * 2 + [6, 7, 8, 9]
    script: list[int] = []
    live: list[tuple[int, int]] = []
    used = slots = 0
    for _ in range(operations):
        full = used / (pages // 2)
        if live and rng.random() < full / (1 + full):
            i = rng.randrange(len(live))
            live[i], live[-1] = live[-1], live[i]
            slot, order = live.pop()
            used -= 1 << order
            script.append(-1 - slot)
        else:
            order = rng.choice(orders)
            if used + (1 << order) > pages * 3 // 4:
                order = 0
            script.append(order)
            live.append((slots, order))
            used += 1 << order
            slots += 1
    return script


def c_buddy(script: list[int], pages: int) -> float | None:
    """The C yardstick: operations per second of ``buddy.c`` on @script; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    source = Path(__file__).with_name("buddy.c")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "buddy"
        subprocess.run([compiler, "-O2", "-o", str(program), str(source)], check=True)
        text = "\n".join(map(str, script))
        runs = [
            subprocess.run(
                [str(program), str(pages)], input=text, capture_output=True, text=True, check=True
            )
            for _ in range(3)
        ]
    return 1 / min(float(run.stdout.split()[0]) for run in runs)
