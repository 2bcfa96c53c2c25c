"""Every function of the kernel that the engine or the book names exists in the reference source.

The index in book/_ext was made from that source by tools/kernel_index.py. The failing list says what is wrong
and, where the name lives elsewhere, in which file.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import kernelindex  # noqa: E402

MODULES = sorted((ROOT / "mmcore").rglob("*.py"))
PAGES = sorted((ROOT / "book").glob("*.md"))


def docstrings(path: Path) -> list[tuple[int, str, str]]:
    """Return (line, name, docstring) of everything in a module that has one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    out = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                out.append((getattr(node, "lineno", 1), getattr(node, "name", ""), text))
    return out


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_mirrored_functions_exist(path: Path) -> None:
    index = kernelindex.load()
    problems = []
    for line, _, text in docstrings(path):
        for found in kernelindex.MIRRORS.finditer(text):
            problem = index.problem(found["path"], found["name"])
            if problem:
                problems.append(f"{path.relative_to(ROOT)}:{line}: {problem}")
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_mirrors_lines_have_the_form_that_is_checked(path: Path) -> None:
    """A ``Mirrors`` line in another form would never be looked up."""
    bad = []
    for line, name, text in docstrings(path):
        if name == "":
            continue  # module docstrings speak about files
        for row in re.findall(r"^\s*(Mirrors\b.*)", text, re.M):
            if not kernelindex.MIRRORS.search(row):
                bad.append(f"{path.relative_to(ROOT)}:{line}: {row!r}")
            elif re.search(r":\d+", row):
                bad.append(f"{path.relative_to(ROOT)}:{line}: no line numbers: {row!r}")
    assert not bad, "\n" + "\n".join(bad)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_kernel_links_of_the_book_exist(path: Path) -> None:
    index = kernelindex.load()
    text = path.read_text(encoding="utf-8")
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        for found in re.finditer(r"\]\((kernel:[^)\s]*)\)", line):
            citation = kernelindex.CITATION.fullmatch(found[1])
            problem = (
                index.problem(citation["path"], citation["name"])
                if citation
                else f"{found[1]} is not kernel:path#name"
            )
            if problem:
                problems.append(f"{path.name}:{number}: {problem}")
    assert not problems, "\n" + "\n".join(problems)


def test_the_index_is_of_the_reference_release() -> None:
    index = kernelindex.load()
    assert index.release == "6.12.117"
    assert index.line("mm/page_alloc.c", "__free_one_page")
    assert index.line("mm/page_alloc.c", "alloc_pages_bulk") == index.line(
        "mm/page_alloc.c", "alloc_pages_bulk_noprof"
    )


def test_an_unknown_name_is_refused() -> None:
    index = kernelindex.load()
    assert "does not define no_such_function" in str(
        index.problem("mm/page_alloc.c", "no_such_function")
    )
    assert "is not in the index" in str(index.problem("mm/no_such_file.c", None))
    assert "it is in mm/page_alloc.c" in str(index.problem("mm/vmscan.c", "__free_one_page"))


def test_links_point_at_the_tag_and_the_line() -> None:
    index = kernelindex.load()
    line = index.line("mm/page_alloc.c", "__free_one_page")
    url = index.url("mm/page_alloc.c", "__free_one_page")
    assert url.endswith(f"/linux.git/tree/mm/page_alloc.c?h=v6.12.117#n{line}")
    text = kernelindex.resolve_text("[`x`](kernel:mm/page_alloc.c#__free_one_page) and (kernel:x)")
    assert text == f"[`x`]({url}) and (kernel:x)"
