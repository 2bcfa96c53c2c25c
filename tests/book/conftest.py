"""The built book, for the tests that look at it. It is built once, by the command `make book` runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT / "tools", ROOT / "book" / "_ext"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

pytest.importorskip("jupyter_book", reason="the book's packages are not in this environment")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.book)


@pytest.fixture(scope="session")
def html() -> Path:
    """Return the folder of the HTML book, built from the tree as it is; BOOK_HTML names one built before."""
    if os.environ.get("BOOK_HTML"):
        return Path(os.environ["BOOK_HTML"]).resolve()
    done = subprocess.run(
        [sys.executable, "tools/build_book.py", "html"], cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        pytest.fail("make book fails:\n" + (done.stdout + done.stderr)[-4000:], pytrace=False)
    return ROOT / "_build" / "html"
