"""The chapters as notebooks: the readers' copies run from a clean kernel, and playing with them changes nothing."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import crossrefs
import nbformat
import notebooks
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "book").glob("*.md"))
WITH_CODE = [p for p in PAGES if "{code-cell}" in p.read_text(encoding="utf-8")]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.stem)
def test_run_all_passes_in_a_clean_kernel(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in JupyterLab: no book is being built, so figures are widgets."""
    from nbclient import NotebookClient

    monkeypatch.delenv("MMCORE_BOOK", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = notebooks.reader_notebook(page.read_text(encoding="utf-8"))
    lab = ROOT / "lab"
    lab.mkdir(exist_ok=True)
    client = NotebookClient(
        notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(lab)}}
    )
    client.execute()
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert outputs and not any(o.output_type == "error" for o in outputs)


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.stem)
def test_front_matter_is_in_the_form_jupyterlab_saves(page: Path) -> None:
    """Saving a chapter in JupyterLab must not change a line that nobody touched."""
    text = page.read_text(encoding="utf-8")
    head = text.split("\n---", 1)[0] + "\n---\n"
    assert head == (
        "---\njupytext:\n  text_representation:\n    extension: .md\n    format_name: myst\n    format_version: 0.13\n"
        "    jupytext_version: 1.19.6\nkernelspec:\n  display_name: Python 3 (ipykernel)\n  language: python\n"
        "  name: python3\n---\n"
    )  # fmt: skip


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.stem)
def test_chapters_hold_no_outputs_and_long_cells_are_rare(page: Path) -> None:
    cells = re.findall(r"```\{code-cell\}.*?\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    shown = [c for c in cells if "remove-cell" not in c and "remove-input" not in c]
    long = [c for c in shown if len(c.strip().splitlines()) > 24]
    assert len(long) <= max(1, len(shown) // 10), long[0]


def test_readers_get_no_assertion_cells_and_real_links() -> None:
    for page in WITH_CODE:
        text = page.read_text(encoding="utf-8")
        notebook = notebooks.reader_notebook(text)
        nbformat.validate(notebook)
        hidden = len(re.findall(r"remove-cell", text))
        code = sum(c.cell_type == "code" for c in notebook.cells)
        assert code == len(re.findall(r"^```\{code-cell\}", text, re.M)) - hidden
        assert "](kernel:" not in json.dumps(notebook)


def test_references_to_other_pages_are_links_between_notebooks() -> None:
    links = crossrefs.Links(ROOT / "book")
    for page in PAGES:
        notebook = notebooks.reader_notebook(
            page.read_text(encoding="utf-8"), stem=page.stem, links=links
        )
        text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
        assert "{cite" not in text and "{numref}" not in text and "{bibliography}" not in text
        # What is left leads to the page itself, which JupyterLab resolves.
        for inner in re.findall(r"\{ref\}`([^`]+)`", text):
            label = inner.split("<")[-1].strip(" >")
            assert links.labels[label].page == page.stem, (page.stem, inner)
        for linked in re.findall(r"\]\(([\w-]+)\.ipynb\)", text):
            assert (ROOT / "book" / f"{linked}.md").is_file()


def test_references_and_citations_in_words(tmp_path: Path) -> None:
    (tmp_path / "02-a.md").write_text(
        "(a)=\n# A\n\n```{code-cell}\n---\nmystnb:\n  figure:\n    name: fig-a\n---\n```\n(b)=\n\n## B\n"
    )
    (tmp_path / "c.md").write_text("(c)=\n# C\n")
    (tmp_path / "references.bib").write_text(
        "@misc{x2021,\n  author = {Xu, Y. and Zed, W.},\n  title  = {Why {X}},\n  year   = {2021}\n}\n"
    )
    links = crossrefs.Links(tmp_path)
    text = "{ref}`c`, {ref}`see\n<b>`, {numref}`fig-a`, {ref}`none`, {cite:t}`x2021`, {cite}`y`"
    assert links.resolve(text, "02-a") == (
        "[C](c.ipynb), {ref}`see\n<b>`, Fig. 2.1, {ref}`none`, [Xu and Zed (2021)](bibliography.ipynb), {cite}`y`"
    )
    assert (
        links.resolve("{ref}`see\n<b>` and {ref}`b`", "c")
        == "[see](02-a.ipynb) and [B](02-a.ipynb)"
    )
    listed = links.resolve("```{bibliography}\n:all:\n```\n", "bibliography")
    assert listed == "- Xu, Zed (2021): *Why X*.\n"


def test_a_readers_changes_are_never_overwritten(tmp_path: Path) -> None:
    root, lab = tmp_path / "project", tmp_path / "project" / "lab"
    (root / "book").mkdir(parents=True)
    page = root / "book" / "02-a.md"
    page.write_text("# A\n\nfirst\n")
    assert notebooks.write_lab(root, lab) == []
    copy = lab / "02-a.ipynb"
    page.write_text("# A\n\nsecond\n")
    assert notebooks.write_lab(root, lab) == []  # untouched: follows the book
    assert "second" in copy.read_text()
    copy.write_text(copy.read_text().replace("second", "mine"))
    assert notebooks.write_lab(root, lab) == []  # same book: nothing to say
    page.write_text("# A\n\nthird\n")
    remarks = notebooks.write_lab(root, lab)
    assert "mine" in copy.read_text() and "third" not in copy.read_text()
    assert remarks == ["02-a.ipynb has your changes and stays; rename it to get the new text"]
    os.rename(copy, lab / "mine.ipynb")
    assert notebooks.write_lab(root, lab) == []
    assert "third" in copy.read_text()


def test_the_lab_folder_is_not_under_version_control() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "/lab/" in ignored
    assert not any(line.strip().strip("/") == "lib" for line in ignored)  # mmcore/lib is source
