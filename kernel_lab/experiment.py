"""Experiments: shell scripts whose first lines say what they record and what they need.

# records: free lists before and after a seeded workload, and every event between
# topologies: n1-256m n2-768m
# programs: freelists
# modules: nd_pmem
# append: memblock=debug
# timeout: 400
# kernel: full
# here: yes

A module is one of the kernel's package, or of this lab: then its source is in the folder guest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kernel_lab.kernel import FLAVOURS
from kernel_lab.needs import LabError

__all__ = ["FOLDER", "GUEST", "Experiment", "available", "load", "parse"]

FOLDER = Path(__file__).resolve().parent / "experiments"
GUEST = Path(__file__).resolve().parent / "guest"
KEYS = ("records", "topologies", "programs", "modules", "append", "timeout", "kernel", "here")
LINE_RE = re.compile(r"# (\w+):(?: (.*))?")


@dataclass(frozen=True, slots=True)
class Experiment:
    """A script and what its head says.

    :ivar timeout: seconds of real time after which the guest is given up
    :ivar kernel: "cloud" or "full": which of Debian's builds, see `kernel_lab.kernel.FLAVOURS`
    :ivar here: whether it also runs on a machine's own kernel, as an ordinary user and without harm
    """

    name: str
    script: str
    records: str
    topologies: tuple[str, ...]
    programs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    append: str = ""
    timeout: int = 400
    kernel: str = "cloud"
    here: bool = False


def parse(name: str, script: str) -> Experiment:
    """Read the head of a script: its first lines, as long as they are comments.

    A line that begins with two spaces behind the # goes on with the line above.

    :raises LabError: for a key that does not exist, or if one that is needed is missing
    """
    values: dict[str, str] = {}
    key = ""
    for number, line in enumerate(script.splitlines(), 1):
        if not line.startswith("#"):
            break
        match = LINE_RE.fullmatch(line)
        if match:
            key = match[1]
            if key not in KEYS:
                raise LabError(
                    f"{name}, line {number}: no key {key!r}; there are {', '.join(KEYS)}"
                )
            values[key] = (match[2] or "").strip()
        elif key and line.startswith("#  "):
            values[key] += " " + line[1:].strip()
        else:
            raise LabError(f"{name}, line {number}: not '# key: value': {line}")
    for key in ("records", "topologies"):
        if not values.get(key):
            raise LabError(f"{name}: its head has no line '# {key}: ...'")
    timeout = values.get("timeout", "400")
    if not timeout.isdecimal():
        raise LabError(f"{name}: timeout is {timeout!r}, not a number of seconds")
    if values.get("kernel", "cloud") not in FLAVOURS:
        raise LabError(f"{name}: no kernel {values['kernel']!r}; there are {', '.join(FLAVOURS)}")
    return Experiment(
        name,
        script,
        values["records"],
        tuple(values["topologies"].split()),
        tuple(values.get("programs", "").split()),
        tuple(values.get("modules", "").split()),
        values.get("append", ""),
        int(timeout),
        values.get("kernel", "cloud"),
        values.get("here", "no") == "yes",
    )


def available() -> list[str]:
    """Return the names of all experiments."""
    return sorted(path.stem for path in FOLDER.glob("*.sh"))


def load(name: str) -> Experiment:
    """Return an experiment by name, or from a script given by its path.

    :raises LabError: if there is none of that name
    """
    path = Path(name) if name.endswith(".sh") else FOLDER / f"{name}.sh"
    if not path.is_file():
        raise LabError(f"no experiment {name!r}; there are {', '.join(available())}")
    return parse(path.stem, path.read_text(encoding="utf-8"))
