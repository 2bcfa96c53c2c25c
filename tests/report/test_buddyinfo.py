"""Fragmentation, order by order: against the definitions, on real free lists and on any."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.errors import ParseError, UsageError
from mmcore.proc import buddyinfo as proc
from mmcore.proc import capture
from mmcore.report import buddyinfo as tool

COUNTS = st.lists(st.integers(0, 1 << 20) | st.just(0), min_size=1, max_size=11)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(COUNTS, st.integers(0, 10))
def test_the_indices_are_what_they_are_defined_as(nr: list[int], order: int) -> None:
    """Recomputed as exact fractions from the pages, then rounded the way C's integers do."""
    pages = sum(n << o for o, n in enumerate(nr))
    blocks = sum(nr)
    usable = sum(n << o for o, n in enumerate(nr) if o >= order)
    info = tool.fill_contig_page_info(nr, order)
    assert (info.free_pages, info.free_blocks_total) == (pages, blocks)
    assert info.free_blocks_suitable << order == usable
    unusable = tool.unusable_free_index(order, info)
    assert unusable == (int(Fraction(pages - usable, pages) * 1000) if pages else 1000)
    assert tool.extfrag_for_order(nr, order) == (
        int(Fraction(pages - usable, pages) * 100) if pages else 0
    )
    index = tool.fragmentation_index(nr, order)
    if not blocks:
        assert index == 0
    elif usable:
        assert index == -1000
    else:
        # 1 - (1 + pages/requested) / blocks, in thousandths, each division rounded down.
        exact = 1000 - (1000 + Fraction(pages * 1000, 1 << order)) / blocks
        assert exact <= index < exact + 2


def test_ends_of_the_scale() -> None:
    assert tool.fragmentation_index([1], 10) == 1000 - (1000 + 1000 // 1024)
    assert tool.fragmentation_index([100_000], 1) == 1000 - (1000 + 50_000_000) // 100_000
    assert tool.fragmentation_index([0, 0, 5], 2) == -1000
    assert tool.fragmentation_index([0] * 11, 3) == 0


def test_the_threshold_decides_only_above_order_3() -> None:
    nr = [1000, 0, 0, 0, 0]
    states = tool.order_states(nr, 500)
    assert [s.index for s in states][3:] == [1000 - 126000 // 1000, 1000 - 63500 // 1000]
    assert states[3].outcome == "no block: may compact"
    assert states[4].outcome == "no block: may compact, fragmented"
    strict = tool.order_states(nr, states[4].index)
    assert strict[4].outcome == "no block: no compaction, too little free"
    assert strict[3].outcome == "no block: may compact"
    for bad in (-1, 1001):
        with pytest.raises(UsageError, match="0 to 1000"):
            tool.order_states(nr, bad)


@pytest.mark.parametrize("name", ["n1-1g/physical", "n2-5g/physical", "n4-1g/physical"])
def test_real_files_are_read_as_the_engine_reads_them(name: str) -> None:
    text = capture.load(name)["buddyinfo"]
    report = tool.report(text)
    assert report.zones == proc.parse(text) and report.skipped == 0
    rows = report.to_rows()
    for zone in report.zones:
        mine = [r for r in rows if (r["node"], r["zone"]) == (zone.node, zone.zone)]
        assert sum(int(str(r["pages"])) for r in mine) == zone.free_pages


def test_the_last_free_lists_of_an_exhausted_guest() -> None:
    lines = [x for x in capture.load("n1-256m/oom")["global_dmesg"].split("\n") if "*4096kB" in x]
    report = tool.report("\n".join(lines[-2:]))
    assert [(z.zone, z.free_pages) for z in report.zones] == [("DMA", 193), ("DMA32", 1132)]
    dma32 = report.states[1]
    assert [s.index for s in dma32[8:]] == [924, 955, 971]
    assert report.summary().startswith("Node 0 DMA32 has free blocks up to order 7 (512 kB)")


def test_wrapped_indented_and_surrounded_by_other_lines() -> None:
    text = "$ cat /proc/buddyinfo\n  Node 0, zone   Normal 1 2 3 4 5\n 6 7 8\n9 10 11\nbye\n"
    report = tool.report(text)
    assert [z.nr_free for z in report.zones] == [list(range(1, 12))] and report.skipped == 2
    assert "2 other lines were left out." in report.lines()


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", 1, "empty"),
        ("hello", 1, "no line is of the form"),
        ("Node 0, zone DMA 1 2 x\n", 1, "expected"),
        ("\nNode 0, zone DMA 1 2\nNode 0, zone DMA32 1 -2\n", 3, "expected"),
        ("Node 0, zone DMA " + "1 " * 40, 1, "more than 32 orders"),
    ],
)
def test_damaged_texts_name_the_line(text: str, line: int, why: str) -> None:
    with pytest.raises(ParseError, match=why) as caught:
        tool.report(text)
    assert caught.value.line == line


def test_nothing_free() -> None:
    report = tool.report("Node 0, zone Normal" + " 0" * 11)
    assert report.summary() == "No zone has a free block." and "  no free block" in report.lines()
    assert {s.outcome for s in report.states[0]} == {"fails: nothing is free"}
