"""The HTML book: complete, on its own host, without dead ends, light."""

from __future__ import annotations

import json
import re
from pathlib import Path

import check_book
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = check_book.pages_of(ROOT / "_toc.yml")
CHAPTERS = [p for p in PAGES if re.search(r"/\d\d-", p)]


def listed(problems: list[str]) -> str:
    return "\n  ".join(["", *problems[:20]])


def test_every_page_of_the_contents_is_there(html: Path) -> None:
    problems = check_book.check_missing(html, PAGES)
    assert not problems, listed(problems)


def test_every_chapter_file_is_in_the_contents() -> None:
    there = {f"book/{p.stem}" for p in (ROOT / "book").glob("*.md")}
    assert there == set(PAGES)


def test_the_readme_says_which_chapters_are_complete() -> None:
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \|$", (ROOT / "README.md").read_text(), re.M)
    complete = {int(number) for number, state in rows if state == "complete"}
    assert len(rows) == 21
    assert complete == {int(page.split("/")[1][:2]) for page in CHAPTERS}


def test_every_cell_was_executed_and_is_shown(html: Path) -> None:
    problems = check_book.check_outputs(html, PAGES, html.parent / "executed")
    assert not problems, listed(problems)


def test_nothing_is_fetched_from_another_host(html: Path) -> None:
    problems = check_book.check_hosts(html)
    assert not problems, listed(problems)


def test_every_link_inside_the_book_leads_somewhere(html: Path) -> None:
    problems = check_book.check_links(html)
    assert not problems, listed(problems)


def test_every_picture_has_alternative_text(html: Path) -> None:
    problems = check_book.check_names(html)
    assert not problems, listed(problems)


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_light(html: Path, page: str) -> None:
    assert check_book.weight(html, html / f"{page}.html") <= check_book.PAGE_BUDGET


def test_formulas_are_mathml_and_need_no_script(html: Path) -> None:
    text = "".join((html / f"{p}.html").read_text(encoding="utf-8") for p in PAGES)
    assert "mathjax.js" not in text.lower() and "tex-mml" not in text
    assert "\\(" not in re.sub(r"<(pre|script|style|code).*?</\1>", "", text, flags=re.S)


def test_no_widget_manager_thebe_or_icon_script(html: Path) -> None:
    for page in check_book.html_files(html):
        for address in check_book.page_at(page).fetched:
            assert not re.search(r"require|embed-amd|html-manager|thebe|fontawesome", address), page


def test_kernel_links_carry_the_tag_and_a_line(html: Path) -> None:
    for chapter in CHAPTERS:
        page = check_book.page_at(html / f"{chapter}.html")
        kernel = [a for a in page.links if "git.kernel.org" in a]
        assert len(kernel) > 20
        assert all("?h=v6.12.117" in a for a in kernel)
        assert sum("#n" in a for a in kernel) > 0.8 * len(kernel)


def test_every_chapter_offers_its_notebook(html: Path) -> None:
    for chapter in CHAPTERS:
        name = Path(chapter).name
        assert f"../_notebooks/{name}.ipynb" in check_book.page_at(html / f"{chapter}.html").links
        notebook = json.loads((html / "_notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        text = json.dumps(notebook)
        assert "kernel:mm" not in text and "remove-cell" not in text


def test_chapters_and_figures_carry_the_chapters_number(html: Path) -> None:
    for chapter in CHAPTERS:
        number = int(Path(chapter).name[:2])
        text = (html / f"{chapter}.html").read_text(encoding="utf-8")
        assert f'<h1><span class="section-number">{number}. </span>' in text
        figures = re.findall(r'caption-number">Fig\. ([\d.]+) ', text)
        assert figures == [f"{number}.{i}" for i in range(1, len(figures) + 1)] and figures


def test_the_404_page_needs_nothing_beside_it(html: Path) -> None:
    page = check_book.page_at(html / "404.html")
    assert page.fetched == []


def test_pages_are_complete_without_scripts(html: Path) -> None:
    """What a reader sees does not wait for a script: steppers hold their drawing and their words."""
    for chapter in CHAPTERS:
        text = (html / f"{chapter}.html").read_text(encoding="utf-8")
        for figure in re.findall(r'<div class="mm-fig".*?<svg(.*?)</svg>', text, re.S):
            assert len(figure) > 300
