"""What the lab needs of the machine it runs on, checked before anything is done."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["PACKAGES", "LabError", "installed", "missing", "require", "where"]

#: Debian package of each program; a path stands for a file that has to be there.
PACKAGES = {
    "apt-get": "apt",
    "dpkg": "dpkg",
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "gcc": "gcc",
    "strip": "binutils",
    "/usr/lib/x86_64-linux-gnu/libc.a": "libc6-dev",
    "setarch": "util-linux",
    "zstd": "zstd",
}


class LabError(Exception):
    """Something that the person at the keyboard can put right; its text says what and how."""


def where(program: str) -> str | None:
    """Return the path of a program, or of a file named by its path, or None."""
    if program.startswith("/"):
        return program if Path(program).exists() else None
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def missing(
    programs: Iterable[str], look: Callable[[str], str | None] = where
) -> list[tuple[str, str]]:
    """Return (program, package) for each program that is not there."""
    return [(name, PACKAGES[name]) for name in programs if look(name) is None]


def require(programs: Iterable[str], look: Callable[[str], str | None] = where) -> None:
    """Return if every program is there.

    :raises LabError: with one line for each that is not, and the command that installs them
    """
    absent = missing(programs, look)
    if absent:
        lines = [f"not found: {name} (Debian package {package})" for name, package in absent]
        packages = sorted({package for _, package in absent})
        raise LabError("\n".join([*lines, f"sudo apt-get install {' '.join(packages)}"]))


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Return package -> version for those that dpkg knows as installed."""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *sorted(packages)],
        capture_output=True,
        text=True,
        check=False,
    )
    pairs = (line.partition(" ") for line in done.stdout.splitlines())
    return {name: version for name, _, version in pairs if version}
