"""Make the notebooks that readers get: from each page, without the hidden assertion cells, links resolved.

`make lab` writes them to ``lab/``, and every page of the HTML book offers its own for download. What a reader does
to them never touches the book's source.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import kernelindex
import nbformat
from crossrefs import Links
from nbformat import NotebookNode

#: Cells that only guard the prose.
HIDDEN_TAGS = {"remove-cell", "remove_cell"}
#: Said on top of a notebook that was downloaded by itself.
NOTE = (
    "*This notebook is a page of* Linux memory management, running. *It needs the book's engine, `mmcore`: keep it in "
    "the folder `lab/` of a copy of the project (`make lab` there opens it), or install the engine with "
    "`pip install .` in the project's folder.*"
)


def reader_notebook(
    text: str, *, stem: str = "", links: Links | None = None, note: bool = False
) -> NotebookNode:
    """Return the page @text (MyST Markdown) as the notebook a reader gets.

    :param stem: the name of the page, for its figures' numbers and for @links
    :param links: where references to other pages lead
    """

    def prose(markdown: str) -> str:
        markdown = kernelindex.resolve_text(markdown)
        return links.resolve(markdown, stem) if links is not None else markdown

    import jupytext

    notebook = jupytext.reads(text, fmt="md:myst" if _is_notebook(text) else "md")
    cells = []
    figures = 0
    for cell in notebook.cells:
        if HIDDEN_TAGS & set(cell.metadata.get("tags", [])):
            continue
        if cell.cell_type == "markdown":
            cell.source = prose(cell.source)
            if not cell.source.strip():
                continue
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        cell.metadata = _kept(cell.metadata)
        cells.append(cell)
        if figure.get("caption"):  # the book prints it under the figure; so does the notebook
            figures += 1
            number = f"Fig. {int(stem[:2])}.{figures}. " if stem[:2].isdigit() else ""
            cells.append(nbformat.v4.new_markdown_cell(number + prose(figure["caption"])))
    if note:
        place = next((i for i, c in enumerate(cells) if c.source.lstrip().startswith("#")), 0)
        cells.insert(place + 1, nbformat.v4.new_markdown_cell(NOTE))
    notebook.cells = cells
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"c{number:03d}"
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _is_notebook(text: str) -> bool:
    return text.startswith("---") and "format_name: myst" in text.split("\n---", 1)[0]


def _kept(metadata: Any) -> NotebookNode:
    """Return the metadata a reader's notebook keeps: hidden inputs stay folded in JupyterLab."""
    tags = [
        t for t in metadata.get("tags", []) if t in ("hide-input", "remove-input", "hide-output")
    ]
    kept: dict[str, Any] = {}
    if "hide-input" in tags or "remove-input" in tags:
        kept["jupyter"] = {"source_hidden": True}
    if tags:
        kept["tags"] = tags
    return nbformat.from_dict(kept)


def write_text(notebook: NotebookNode) -> str:
    """Return the notebook as the text of an .ipynb file; the same page gives the same text."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def pages(root: Path) -> list[Path]:
    """Return the pages of the book that are of use as notebooks."""
    return sorted(p for p in (root / "book").glob("*.md"))


def write_lab(root: Path, folder: Path) -> list[str]:
    """Write the readers' notebooks into @folder; return remarks. A reader's changes are never overwritten."""
    folder.mkdir(exist_ok=True)
    state_file = folder / ".made.json"
    state = json.loads(state_file.read_text()) if state_file.exists() else {}
    remarks = []
    links = Links(root / "book")
    for page in pages(root):
        source = page.read_text(encoding="utf-8")
        text = write_text(reader_notebook(source, stem=page.stem, links=links))
        target = folder / f"{page.stem}.ipynb"
        made = hashlib.sha256(text.encode()).hexdigest()
        if target.exists() and state.get(target.name) == made:
            continue  # this version was handed out before; whatever the reader made of it stays
        if target.exists():
            there = hashlib.sha256(target.read_bytes()).hexdigest()
            if there != state.get(target.name):
                remarks.append(
                    f"{target.name} has your changes and stays; rename it to get the new text"
                )
                continue
        target.write_text(text, encoding="utf-8")
        state[target.name] = made
    state_file.write_text(json.dumps(state, indent=1))
    return remarks


def _add_download(
    app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Offer the page's notebook in the page's header and in front of its text."""
    source = Path(app.srcdir) / f"{pagename}.md"
    if doctree is None or not source.is_file():
        return
    target = Path(app.outdir) / "_notebooks" / f"{source.stem}.ipynb"
    target.parent.mkdir(exist_ok=True)
    notebook = reader_notebook(
        source.read_text(encoding="utf-8"), stem=source.stem, links=Links(source.parent), note=True
    )
    target.write_text(write_text(notebook), encoding="utf-8")
    url = context["pathto"](f"_notebooks/{source.stem}.ipynb", 1)
    for group in context.get("header_buttons", []):
        if group.get("label") == "download-buttons":
            group["buttons"].insert(
                0,
                {
                    "type": "link",
                    "url": url,
                    "text": ".ipynb",
                    "icon": "fas fa-code",
                    "tooltip": "Download this page as a notebook",
                    "label": "download-notebook-button",
                },
            )
    body = context.get("body", "")
    if _is_notebook(source.read_text(encoding="utf-8")) and re.search(r"/\d\d-", f"/{source.name}"):
        line = (
            f'<p class="book-get d-print-none">Run this chapter: <a href="{url}" download>download it as a notebook</a>, '
            "or <code>make lab</code> in a copy of the project.</p>"
        )
        context["body"] = re.sub(r"(</h1>)", r"\1" + line.replace("\\", r"\\"), body, count=1)


def setup(app: Any) -> dict[str, Any]:
    app.connect("html-page-context", _add_download, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
