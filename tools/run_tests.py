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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WEB = ROOT / "tools" / "web"
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


def web_packages() -> str | None:
    """Install the front-end packages (Pyodide, axe); return why that did not work, or None."""
    lock = (WEB / "package-lock.json").read_text()
    stamp = WEB / "node_modules" / ".made-with.json"
    if stamp.exists() and stamp.read_text() == lock:
        return None
    npm = shutil.which("npm") or str(Path(sys.executable).parent / "npm")
    print("installing the front-end packages (npm ci, 17 MB) ...", flush=True)
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=WEB, check=False
    )
    if done.returncode:
        return "npm ci failed"
    stamp.write_text(lock)
    return None


class Totals:
    """What all runs together came to."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0
        self.broken: list[str] = []

    def run(self, title: str, command: list[str]) -> None:
        """Run pytest, show what it prints, and count."""
        print(f"\n== {title}", flush=True)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ},
        )
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
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
        web_packages()
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
    totals.run(
        f"Python {version}: everything" if everything else f"Python {version}",
        [sys.executable, "-m", "pytest", "--durations=8", *options, *(paths or ["tests"])],
    )
    if everything:
        for other in OTHER_PYTHONS:
            python = find_python(other)
            if python is None:
                notes.append(f"not run: Python {other} (it is not installed)")
                continue
            totals.run(
                f"Python {other}: the engine",
                [
                    str(environment(other, python)),
                    "-m",
                    "pytest",
                    "-p",
                    "no:cacheprovider",
                    *ENGINE_ONLY,
                    "tests",
                ],
            )
    print()
    for note in notes:
        print(note)
    if totals.broken:
        print("broken: " + ", ".join(totals.broken))
    print(f"{time.monotonic() - start:.0f} s")
    failed = totals.failed or len(totals.broken)
    print(f"{totals.passed} passed, {failed} failed, {totals.skipped} skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
