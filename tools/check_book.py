"""Check a built book: every page there, every output there, nothing fetched from other hosts."""

from __future__ import annotations

from pathlib import Path

import yaml


def pages_of(toc: Path) -> list[str]:
    """Return the pages that the table of contents names, in order."""
    pages: list[str] = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            for key in ("root", "file"):
                if key in node:
                    pages.append(str(node[key]))
            for key in ("parts", "chapters", "sections"):
                walk(node.get(key))
        elif isinstance(node, list):
            for entry in node:
                walk(entry)

    walk(yaml.safe_load(toc.read_text(encoding="utf-8")))
    return pages


def check_html(out: Path, pages: list[str], root: Path, *, whole: bool) -> list[str]:
    """Return what is wrong with the HTML pages in @out."""
    problems = []
    for page in pages:
        if not (out / f"{page}.html").is_file():
            problems.append(f"{page}: the page is missing")
    return problems


def missing_tex() -> list[tuple[str, str]]:
    return []


def check_pdf(pdf: Path, log: Path, root: Path) -> list[str]:
    return []
