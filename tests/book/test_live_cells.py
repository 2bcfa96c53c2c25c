"""Cells tagged ``live`` need the engine's wheel and nothing else, and give in the page what the book prints."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import check_book
import live
import nbformat
import pytest

from mmcore.viz import cells

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = [p for p in check_book.pages_of(ROOT / "_toc.yml") if re.search(r"/\d\d-", p)]

#: Runs inside a Python without site-packages: the wheel and the captures are all there is.
INSIDE = """
import json, os, sys
wheel, captures, folder = sys.argv[1:]
sys.path.insert(0, wheel)
os.environ["MMCORE_BOOK"] = "1"
os.chdir(folder)
from mmcore.viz import live
import mmcore
assert mmcore.__file__.startswith(wheel), mmcore.__file__
names = [os.path.relpath(os.path.join(d, f), captures) for d, _, fs in os.walk(captures) for f in fs]
live.provide_captures(names, lambda name: open(os.path.join(captures, name), "rb").read(), folder)
print(live.handle("cells", sys.stdin.read()))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wheel") / "mmcore-py3-none-any.whl"
    path.write_bytes(live.wheel(ROOT))
    return path


def printed(cell: nbformat.NotebookNode) -> tuple[str, bool]:
    """Return the text that the book prints under a cell, and whether it shows a figure or a table."""
    text, html = "", False
    for output in cell.outputs:
        if output.output_type == "stream":
            text += output.text
        elif "text/html" in output.data:
            html = True
        else:
            text += output.data["text/plain"]
    return text, html


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_pages_live_cells_run_alone(
    html: Path, wheel: Path, tmp_path: Path, chapter: str
) -> None:
    executed = html.parent / "executed" / f"{chapter}.ipynb"
    notebook = nbformat.read(executed, as_version=4)
    chain = [
        c for c in notebook.cells if c.cell_type == "code" and "live" in c.metadata.get("tags", [])
    ]
    assert len(chain) > 20
    asked = [{"id": i, "source": cell.source} for i, cell in enumerate(chain)]
    command = [sys.executable, "-I", "-S", "-c", INSIDE]
    command += [str(wheel), str(ROOT / "book" / "captures"), str(tmp_path)]
    ran = subprocess.run(
        command,
        input=json.dumps({"cells": asked, "fresh": True}),
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(ran.stdout)
    assert "error" not in answer, answer
    for done in answer["done"]:
        cell = chain[done["id"]]
        assert not cells.failed(done["outputs"]), (cell.source, done["outputs"][-1])
        text, has_html = printed(cell)
        assert "".join(part.get("text", "") for part in done["outputs"]) == text, cell.source
        assert any("html" in part for part in done["outputs"]) is has_html, cell.source
    assert len(answer["done"]) == len(chain)
