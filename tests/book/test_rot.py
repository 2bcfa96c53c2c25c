"""Prose cannot rot: when the engine no longer does what a chapter says, the chapter is not built.

Jupyter's own cache would hand out the old outputs. The test changes one rule of the engine in a copy of the tree,
whose cache is full of outputs of the unchanged engine, and requires the build to fail at a cell.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import execution
import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ["mmcore", "book", "tools", "_config.yml", "_toc.yml", "requirements.txt"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what a build needs."""
    copy = tmp_path_factory.mktemp("tree") / "project"
    copy.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy / name)
    return copy


def build(tree: Path, chapter: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MMCORE_BOOK")}
    return subprocess.run(
        [sys.executable, "tools/build_book.py", "html", "--chapter", chapter],
        cwd=tree, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_changing_one_rule_of_the_engine_breaks_its_chapter(tree: Path) -> None:
    whole = build(tree, "02")
    assert whole.returncode == 0, (whole.stdout + whole.stderr)[-3000:]
    assert "executing 1 chapter(s)" in whole.stdout

    again = build(tree, "02")
    assert again.returncode == 0
    assert "executing" not in again.stdout  # nothing changed: nothing is executed

    module = tree / "mmcore" / "mm" / "page_alloc.py"
    text = module.read_text(encoding="utf-8")
    assert "\ndef zone_batchsize(" in text
    # A zone's per-CPU batch is one page larger than the kernel would make it.
    changed = text + (
        "\n_kernels_batch = zone_batchsize\n\n\n"
        "def zone_batchsize(zone: Zone) -> int:\n    return _kernels_batch(zone) + 1\n"
    )
    module.write_text(changed, encoding="utf-8")
    broken = build(tree, "02")
    module.write_text(text, encoding="utf-8")
    assert broken.returncode != 0
    assert "a cell failed" in broken.stderr + broken.stdout
    assert "AssertionError" in broken.stderr + broken.stdout

    back = build(tree, "02")
    assert back.returncode == 0
    assert "executing" not in back.stdout  # the outputs of the unchanged engine are still known


def test_the_key_of_the_cache_sees_engine_captures_and_packages(tmp_path: Path) -> None:
    (tmp_path / "mmcore" / "mm").mkdir(parents=True)
    (tmp_path / "book" / "captures").mkdir(parents=True)
    module = tmp_path / "mmcore" / "mm" / "a.py"
    capture = tmp_path / "book" / "captures" / "x.txt"
    pins = tmp_path / "requirements.txt"
    for file in (module, capture, pins):
        file.write_text("1\n")
    states = {execution.digest(tmp_path)}
    for file in (module, capture, pins):
        file.write_text("2\n")
        states.add(execution.digest(tmp_path))
    module.rename(module.with_name("b.py"))
    states.add(execution.digest(tmp_path))
    assert len(states) == 5
    (tmp_path / "mmcore" / "__pycache__").mkdir()
    (tmp_path / "mmcore" / "__pycache__" / "a.pyc").write_text("x")
    assert execution.digest(tmp_path) in states


def test_a_failing_cell_fails_the_build_with_its_text(tree: Path) -> None:
    page = tree / "book" / "02-physical-memory.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(text + "\n```{code-cell} ipython3\nassert 1 + 1 == 3, 'arithmetic'\n```\n")
    done = build(tree, "02")
    page.write_text(text, encoding="utf-8")
    assert done.returncode != 0 and "arithmetic" in done.stdout + done.stderr
