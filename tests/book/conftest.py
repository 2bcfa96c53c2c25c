"""The built book, for the tests that look at it. It is built once, by the command `make book` runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session")
def site(html: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the book two folders below its host's root, as a forge does."""
    import serve

    host = tmp_path_factory.mktemp("host")
    (host / "some").mkdir()
    (host / "some" / "book-1").symlink_to(html)
    (host / "404.html").symlink_to(html / "404.html")
    server = serve.server(host, 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/some/book-1"
    server.shutdown()


@pytest.fixture(
    scope="module"
)  # a second Playwright in the same process needs the first one closed
def browser() -> Iterator[Any]:
    """Chromium, or a skipped test where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None and not os.environ.get("CI"):
        pytest.skip("there is no chromium (on Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield b
        b.close()
