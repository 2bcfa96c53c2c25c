"""Run the tests: what `make test` runs.

    python tools/run_tests.py                     # everything, on every Python that is here
    python tools/run_tests.py tests/mm            # some tests, with this Python only
    python tools/run_tests.py -- -k buddy -x      # options for pytest

Everything means: all tests with the environment's Python; the engine's tests with Python 3.12 and 3.13 where those
are installed (on PATH or under ~/.pyenv); the engine in Pyodide under node; the pages in chromium where it is
installed. What is not run here, and why, is said. The last line counts all of it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import web_packages

ROOT = Path(__file__).resolve().parents[1]
OTHER_PYTHONS = ["3.12", "3.13"]
#: What the engine's tests need with another Python; versions are those of requirements.txt.
NEEDED = [
    "pytest",
    "hypothesis",
    "iniconfig",
    "packaging",
    "pluggy",
    "Pygments",
    "sortedcontainers",
]
#: Tests of the book and its pages run with the environment's Python only.
ENGINE_ONLY = [
    "--ignore=tests/book",
    "--ignore=tests/pyodide",
    "-m",
    "not browser and not book and not pyodide",
]


def find_python(version: str) -> str | None:
    """Return the interpreter of @version, or None."""
    found = [shutil.which(f"python{version}")]
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found += [str(p) for p in sorted(home.glob(f"versions/{version}.*/bin/python"), reverse=True)]
    for candidate in found:
        if candidate:
            code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
            done = subprocess.run(
                [candidate, "-c", code], capture_output=True, text=True, check=False
            )
            if done.stdout.strip() == version:
                return candidate
    return None


def pins(names: list[str]) -> list[str]:
    """Return the lines of requirements.txt for @names."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    found = {line.split("==")[0].lower(): line for line in lines if "==" in line}
    return [found[n.lower()] for n in names]


def environment(version: str, python: str) -> Path:
    """Make or find the small environment for another Python; return its interpreter."""
    folder = ROOT / f".venv-{version}"
    wanted = "\n".join(pins(NEEDED))
    stamp = folder / "made-with.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"making {folder.name} with {python} ...", flush=True)
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
        ]
        subprocess.run([*pip, "--no-deps", *pins(NEEDED)], check=True)
        stamp.write_text(wanted)
    return folder / "bin" / "python"


class Totals:
    """What all runs together came to."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0
        self.broken: list[str] = []

    def add(self, other: Totals) -> None:
        """Count what @other counted, too."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.broken += other.broken

    def run(self, title: str, command: list[str], *, show: bool = True) -> str:
        """Run pytest and count; show what it prints, or return it."""
        lines = [f"\n== {title}\n"]
        if show:
            print(lines[0], end="", flush=True)
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            lines.append(line)
            if show:
                print(line, end="", flush=True)
            if re.search(r"\d+ (passed|failed|error)|no tests ran", line):
                last = line
        code = process.wait()
        for word in ("passed", "failed", "skipped", "error"):
            count = sum(int(n) for n in re.findall(rf"(\d+) {word}", last))
            name = "failed" if word == "error" else word
            setattr(self, name, getattr(self, name) + count)
        if code not in (0, 5):
            self.broken.append(title)
        return "".join(lines)


def run_others(totals: Totals, notes: list[str]) -> str:
    """Run the engine's tests with the other Pythons, one after the other; return what they printed."""
    printed = []
    for other in OTHER_PYTHONS:
        python = find_python(other)
        if python is None:
            notes.append(f"not run: Python {other} (it is not installed)")
            continue
        try:
            command = [str(environment(other, python)), "-m", "pytest", "-p", "no:cacheprovider"]
        except subprocess.CalledProcessError as error:
            totals.broken.append(f"the environment for Python {other}: {error}")
            continue
        title = f"Python {other}: the engine"
        printed.append(totals.run(title, [*command, *ENGINE_ONLY, "tests"], show=False))
    return "".join(printed)


def arguments(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return (paths, options for pytest)."""
    if "--" in argv:
        place = argv.index("--")
        return argv[:place], argv[place + 1 :]
    return argv, []


def main() -> None:
    start = time.monotonic()
    paths, options = arguments(sys.argv[1:])
    everything = not paths and not options
    totals = Totals()
    notes = []
    why = (
        web_packages.install()
        if everything or any("pyodide" in p or "browser" in p for p in paths)
        else None
    )
    if why:
        notes.append(f"not run: the engine in Pyodide ({why})")
        if os.environ.get("CI"):
            totals.broken.append("front-end packages")
    if shutil.which("chromium") is None and everything:
        notes.append("not run: the pages in a browser (on Debian: sudo apt-get install chromium)")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    this = [sys.executable, "-m", "pytest", "--durations=8", *options, *(paths or ["tests"])]
    if everything:
        # The other Pythons run beside this one, on the second core; what they print comes after.
        others = Totals()
        with ThreadPoolExecutor(1) as pool:
            beside = pool.submit(run_others, others, notes)
            totals.run(f"Python {version}: everything", this)
            print("waiting for the other Pythons ..." if not beside.done() else "", flush=True)
            print(beside.result(), end="")
        totals.add(others)
    else:
        totals.run(f"Python {version}", this)
    print()
    for note in notes:
        print(note)
    if totals.broken:
        print("broken: " + ", ".join(totals.broken))
    print(f"{time.monotonic() - start:.0f} s")
    failed = max(totals.failed, len(totals.broken))
    print(f"{totals.passed} passed, {failed} failed, {totals.skipped} skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
