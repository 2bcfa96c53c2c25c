"""Cells that run in a page: what they show, and what they may not do."""

import pytest

from mmcore.viz import cells


def outputs(*sources, fresh=True):
    asked = [{"id": i, "source": source} for i, source in enumerate(sources)]
    return [done["outputs"] for done in cells.run_cells(asked, fresh=fresh)["done"]]


def test_a_cell_shows_what_it_prints_and_what_it_ends_in():
    assert outputs("print('a')\nprint('b')\n1 + 1") == [[{"text": "a\nb\n"}, {"text": "2"}]]
    assert outputs("x = 1") == [[]]
    assert outputs("1 + 1;") == [[]]
    assert outputs("None") == [[]]
    assert outputs("") == [[]]


def test_cells_share_names_until_a_fresh_start():
    assert outputs("x = 5", "x + 1")[-1] == [{"text": "6"}]
    assert outputs("x", fresh=False) == [[{"text": "5"}]]
    assert "NameError" in outputs("x")[0][-1]["error"]


def test_an_error_ends_the_run_and_is_shown_from_the_cell_on():
    ran = outputs("def f():\n    return 1 / 0", "f()", "print('not reached')")
    assert len(ran) == 2
    error = ran[1][-1]["error"]
    assert "<cell 1>" in error and "return 1 / 0" in error and "cells.py" not in error
    assert error.endswith("ZeroDivisionError: division by zero")
    assert outputs("1 +")[0][-1]["error"].startswith("  File")
    assert "SystemExit" in outputs("raise SystemExit")[0][-1]["error"]


def test_only_the_books_own_classes_give_markup():
    mine = "class T:\n    def _repr_html_(self): return '<b>x</b>'\n    def __repr__(self): return '<i>'\nT()"
    assert outputs(mine) == [[{"text": "<i>"}]]
    (figure,) = outputs("from mmcore.viz import explore\nexplore('ch03.walk')")[0]
    assert figure["html"].startswith('<div class="mm-fig" data-mm="ch03.walk"')
    assert 'id="mm-cell-0"' in figure["html"]
    (verdict,) = outputs(
        "from mmcore.viz import check\ncheck('ch02.gfp', '<script>alert(1)</script>')"
    )[0]
    assert "<script>" not in verdict["html"] and "&lt;script&gt;" in verdict["html"]


def test_endless_output_is_cut():
    text = outputs("for i in range(100_000): print('0123456789')")[0][0]["text"]
    assert len(text) < cells.MAX_TEXT + 100 and text.endswith("more characters\n")


VALUES = [
    list(range(100)),
    {"a": [1] * 40, "b": {"c": tuple(range(30)), "d": ()}},
    [("x" * 30, "y" * 30, 1), ("x" * 10,)],
    (list(range(24)), ["a"] * 16),
    {i: {j: [j] * j for j in range(6)} for i in range(6)},
    {1, 3, 2},
    frozenset({1}),
    (1,),
    [[]] * 3,
    ["x" * 100, "y"],
    {("k", i): "v" * i for i in range(20)},
    list(range(1200)),
    int,
    pytest,
    print,
    [int, len],
    "text\nwith lines",
    [(["a" * 20] * 3, {"k": ["b" * 9] * 8})] * 2,
    {"long key " * 5: ["b" * 9] * 8, "s": "t"},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_values_are_laid_out_as_ipython_does(value):
    ipython = pytest.importorskip("IPython.lib.pretty")
    assert cells.pretty(value) == ipython.pretty(value)
