"""The checks of the built book find what they are there to find."""

from __future__ import annotations

from pathlib import Path

import check_book
import nbformat
import pytest
import selfhost

HEAD = '<!DOCTYPE html><html lang="en"><head></head><body><h1 id="t">T</h1>'


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "_static").mkdir()
    (tmp_path / "_notebooks").mkdir()
    return tmp_path


def page(out: Path, body: str, name: str = "a.html") -> None:
    (out / name).write_text(HEAD + body + "</body></html>", encoding="utf-8")


@pytest.mark.parametrize(
    "body",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/x.css">',
        '<img alt="" src="http://x.example/a.png">',
        '<iframe src="https://x.example/"></iframe>',
        "<p style=\"background: url('https://x.example/a.png')\">",
    ],
)
def test_requests_to_other_hosts_are_found(out: Path, body: str) -> None:
    page(out, body)
    assert len(check_book.check_hosts(out)) == 1


def test_links_to_other_hosts_are_no_requests(out: Path) -> None:
    page(out, '<a href="https://git.kernel.org/x">x</a>')
    assert check_book.check_hosts(out) == []


def test_style_sheets_are_looked_into(out: Path) -> None:
    page(out, "")
    (out / "_static" / "a.css").write_text(
        "@import 'https://x.example/b.css'; a{background:url(https://x.example/c.png)} b{background:url(gone.png)}"
    )
    assert len(check_book.check_hosts(out)) == 3


def test_dead_links_and_dead_places_are_found(out: Path) -> None:
    page(
        out,
        '<a href="b.html">b</a><a href="#nowhere">n</a><a href="#t">t</a><a href="kernel:mm/x.c">k</a>',
    )
    problems = check_book.check_links(out)
    assert [p.split(": ", 1)[1] for p in problems] == [
        "b.html leads nowhere",
        "#nowhere: no such place on that page",
        "unresolved kernel:mm/x.c",
    ]


def test_pictures_without_words_are_found(out: Path) -> None:
    page(
        out,
        '<img src="a.png"><svg viewBox="0 0 1 1"></svg><svg aria-hidden="true"></svg><svg aria-label="x"></svg>',
    )
    assert len(check_book.check_names(out)) == 2


def test_heavy_pages_are_found(out: Path) -> None:
    import random

    rng = random.Random(1)
    page(out, "<p>" + "".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(400_000)))
    assert len(check_book.check_weight(out)) == 1


def notebook(*cells: tuple[str, int | None, bool]) -> nbformat.NotebookNode:
    made = []
    for source, count, output in cells:
        cell = nbformat.v4.new_code_cell(source, execution_count=count)
        if output:
            cell.outputs = [nbformat.v4.new_output("stream", text="x")]
        made.append(cell)
    return nbformat.v4.new_notebook(cells=made)


def test_lost_outputs_are_found(out: Path) -> None:
    executed = out / "executed"
    executed.mkdir()
    nbformat.write(
        notebook(("1", 1, True), ("x = 1", 2, False), ("x", 3, False), ("y", None, False)),
        executed / "a.ipynb",
    )
    page(out, "")
    problems = check_book.check_outputs(out, ["a"], executed)
    assert [p.split(": ", 1)[1] for p in problems] == [
        "code cell 2 shows nothing: x",
        "code cell 3 was not executed: y",
        "code cell 3 shows nothing: y",
        "the page shows 0 outputs of 1",
    ]
    page(out, '<div class="cell_output"><div><svg aria-label="x"></svg></div></div>')
    assert len(check_book.check_outputs(out, ["a"], executed)) == 3
    page(out, '<div class="cell_output"><div> </div></div>')
    assert "a: 1 outputs on the page are empty" in check_book.check_outputs(out, ["a"], executed)


def test_missing_pages_and_notebooks_are_found(out: Path) -> None:
    page(out, "")
    assert check_book.check_missing(out, ["a", "b"]) == [
        "b: the page is missing",
        "a: its notebook is missing",
        "b: its notebook is missing",
    ]


def test_icons_become_drawings_and_an_unknown_one_is_an_error() -> None:
    text = selfhost.clean_page('<i class="fa-solid fa-bars"></i>', "x")
    assert "fa-" not in text and "<svg" in text and 'aria-hidden="true"' in text
    assert selfhost.clean_page(text, "x") == text
    with pytest.raises(ValueError, match="without a drawing"):
        selfhost.clean_page('<i class="fas fa-no-such-icon"></i>', "x")


def test_search_scripts_stay_on_the_search_page_alone() -> None:
    script = '<p></p><script src="../searchindex.js"></script>'
    assert "searchindex" not in selfhost.clean_page(script, "book/x")
    assert "searchindex" in selfhost.clean_page(script, "search")


def test_the_picture_of_the_readme_is_what_the_engine_draws() -> None:
    import readme_picture

    assert (
        readme_picture.PICTURE.read_text(encoding="utf-8") == readme_picture.picture()
    ), "run python tools/readme_picture.py"
