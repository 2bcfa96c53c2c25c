"""Captures: what a guest printed, with all that is needed to make it again.

A capture begins with ``# key: value`` lines whose values are JSON, goes on with the sections that the
guest recorded, ``=== name | command | rc=N``, and ends with the sources of what ran. It is written
whole or not at all. `mmcore.proc.capture` reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["TIMING", "Section", "header", "render", "sections", "without_timing", "write"]

#: The only line that two runs of a repeatable experiment may differ in.
TIMING = "timing (not reproducible)"


@dataclass(frozen=True, slots=True)
class Section:
    """What one command printed."""

    name: str
    command: str
    rc: str
    text: str


def sections(stream: bytes) -> list[Section]:
    """Return the sections of a guest's result stream.

    In it, ``@@BEGIN name command`` and ``@@END name status`` stand around each command's output. A
    section without its end is left out: the guest died in it.
    """
    found: list[Section] = []
    name, command, lines = "", "", list[str]()
    for line in stream.decode("utf-8", "replace").replace("\r\n", "\n").split("\n"):
        if line.startswith("@@BEGIN "):
            name, _, command = line.removeprefix("@@BEGIN ").partition(" ")
            lines = []
        elif line.startswith("@@END ") and name:
            status = line.split()[-1]
            found.append(Section(name, command, status, "\n".join(lines).rstrip("\n")))
            name = ""
        elif name:
            lines.append(line)
    return found


def header(text: str) -> dict[str, Any]:
    """Return the ``# key: value`` lines at the top of a capture."""
    values: dict[str, Any] = {}
    for line in text.split("\n"):
        if not line.startswith("# "):
            break
        key, _, value = line[2:].partition(": ")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values


def without_timing(text: str) -> str:
    """Return a capture without the line that always differs."""
    return "".join(
        line for line in text.splitlines(keepends=True) if not line.startswith(f"# {TIMING}: ")
    )


def render(
    head: Mapping[str, Any],
    timing: Mapping[str, Any],
    found: list[Section],
    sources: Mapping[str, str],
) -> str:
    """Return the text of a capture.

    :param head: its header, in order
    :param sources: file name -> text of each script and program that ran
    """
    lines = [f"# {key}: {json.dumps(value)}" for key, value in {**head, TIMING: timing}.items()]
    for section in found:
        lines += ["", f"=== {section.name} | {section.command} | rc={section.rc}", section.text]
    for name, source in sources.items():
        digest = hashlib.sha256(source.encode()).hexdigest()
        lines += ["", f"=== SOURCE {name} | sha256 {digest} | rc=0", source.rstrip("\n")]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Write a capture whole: under another name first, so that no half of it is ever found there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
