"""beside(): counting what is equal, marking what is not."""

import pytest

from mmcore.errors import UsageError
from mmcore.viz import beside

KERNEL = "Node 0, zone   Normal\n        min      4296\n        protection: (0, 0, 12)\n"


def test_a_text_is_compared_integer_by_integer():
    same = beside(KERNEL, KERNEL)
    assert same and same.verdict == "5 of 5 integers equal" and same.differences == []
    other = beside(KERNEL.replace("4296", "4297"), KERNEL)
    assert not other and other.verdict == "4 of 5 integers equal"
    assert [row[0] for row in other.differences] == ["2"]


def test_words_without_numbers_count_too():
    assert not beside("min\nfoo", "min\nbar")
    assert beside("min  x", "min x")


def test_words_around_the_numbers_count():
    found = beside("Node 0 DMA32", "Node 0 DMA")
    assert not found and found.verdict == "1 of 1 integers equal; 1 row differs in words"
    assert beside("min:62kB 0xcc0 2*4kB", "min:62kB 0xcc0 2*4kB").total == 4
    assert beside("min:62kB 0xcc0", "min:63kB 0xcc1").equal == 0


def test_a_missing_line_is_a_difference():
    found = beside("a 1", "a 1\nb 2")
    assert not found and found.verdict == "1 of 2 integers equal"
    assert not beside("a 1\nb 2", "a 1")


def test_a_line_with_too_many_numbers_is_a_difference():
    assert not beside("a 1 2", "a 1")


def test_rows_are_paired_by_name():
    found = beside({"low": 2, "min": 1, "extra": 5}, {"min": 1, "low": 3})
    assert (found.equal, found.total) == (1, 3)
    assert [r[0] for r in found.rows] == ["min", "low", "extra"]
    rows = beside([("DMA", 1, 2, 3)], [("DMA", 1, 9, 3)])
    assert rows.verdict == "2 of 3 integers equal"


def test_differences_are_marked_by_more_than_colour():
    page = beside({"min": 1, "low": 2}, {"min": 1, "low": 3}).html()
    assert page.count("≠") == 1 and page.count("<mark>") == 2
    assert "1 of 2 integers equal" in page
    text = str(beside({"min": 1, "low": 2}, {"min": 1, "low": 3}))
    assert "low  2      != 3" in text and "min  1      == 1" in text


def test_only_differences():
    page = beside({"min": 1, "low": 2}, {"min": 1, "low": 3}, only_differences=True).html()
    assert "min" not in page and "low" in page
    assert "No difference" in beside({"a": 1}, {"a": 1}, only_differences=True).html()


def test_hostile_text_stays_text():
    page = beside({"<b>": "<script>"}, {"<b>": "</td><i>"}, labels=("<u>", "x")).html()
    assert not any(t in page for t in ("<script>", "<b>", "<i>", "<u>"))


@pytest.mark.parametrize("bad", [3, None, [1], ["ab"]])
def test_what_is_not_rows_is_refused(bad):
    with pytest.raises(UsageError, match="beside\\(\\)"):
        beside(bad, {"a": 1})


def test_two_rows_of_one_name_are_refused():
    with pytest.raises(UsageError, match="same name"):
        beside([("a", 1), ("a", 2)], {"a": 1})
