"""The figures of chapter 10 say what the engine did."""

from __future__ import annotations

import pytest

import mmcore.viz.figures.ch10  # noqa: F401
from mmcore.viz import ParamError, render

GIB = 1 << 18


def last(name: str, **values: object) -> str:
    return render(name, values).frames[-1].caption


def test_the_ladder_ends_as_the_mask_demands() -> None:
    assert "refused after 18 calls of reclaim and 1 of the OOM killer" in last("ch10.charge")
    assert "refused after 0 calls" in last("ch10.charge", gfp="GFP_NOWAIT")
    assert "granted after 0 calls" in last("ch10.charge", gfp="GFP_ATOMIC")
    assert "129 pages are charged" in last("ch10.charge", gfp="GFP_ATOMIC")
    assert "0 of the OOM killer" in last("ch10.charge", gfp="__GFP_RETRY_MAYFAIL")
    assert "granted after 18 calls" in last("ch10.charge", killable=True)


def test_what_another_cpu_keeps_is_found() -> None:
    assert "granted after 1 calls of reclaim and 0 of the OOM killer" in last(
        "ch10.charge", kept=20
    )


def test_a_large_folio_never_kills() -> None:
    assert "0 of the OOM killer" in last("ch10.charge", pages=512, limit=1024)


def test_protection_is_divided() -> None:
    without, with_ = (f.data for f in render("ch10.protection").frames)
    assert without == [2 * GIB, 2 * GIB, 0] and with_ == [5 * GIB, 3 * GIB, 2 * GIB]
    over = render("ch10.protection", {"a_low": 8, "b_low": 8}).frames[0]
    assert over.data == [10 * GIB * 8 // 12, 10 * GIB * 4 // 12, 0]


@pytest.mark.parametrize(("hz", "jiffies"), [("250", 159), ("1000", 639)])
def test_the_wait_is_the_kernels(hz: str, jiffies: int) -> None:
    data = render("ch10.throttle", {"percent": 110, "hz": hz}).frames[0].data
    assert data["jiffies"] == jiffies


def test_the_stocks_add_up() -> None:
    final = render("ch10.stock").frames[-1].data
    assert final == [["a", 25, 0, 0, 25], ["b", 11, 0, 0, 11]]
    with pytest.raises(ParamError, match="only 0 pages"):
        render("ch10.stock", {"script": "free 1"})


def test_a_removed_group_stays_for_its_cache() -> None:
    states = [f.data[0][1] for f in render("ch10.dying").frames]
    assert states == ["a directory", "a directory", "dying", "freed"]
    assert render("ch10.dying", {"cached": 0}).frames[2].data[0][1] == "freed"


@pytest.mark.parametrize(("section", "usages", "events"), [("charges", 10, 30), ("limits", 8, 24)])
def test_the_record_is_equal(section: str, usages: int, events: int) -> None:
    first, second = render("ch10.record", {"section": section}).frames
    assert f"{usages} of {usages} usages" in first.caption
    assert f"{events} of {events} event counters" in second.caption
