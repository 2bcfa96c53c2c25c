"""Kernel logs however they were written down."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.proc import capture
from mmcore.report import alloc_failure
from mmcore.report.kernlog import MAX_LINE, logical_lines, numbered_lines, split_prefix

PREFIXES = [
    "",
    "[   12.345678] ",
    "[Wed Nov 25 09:39:56 2026] ",
    "<4>[   12.345678] ",
    "4,1234,100000,-;",
    "kern  :warn  : [   12.345678] ",
    "[   12.345678][ T1234] ",
    "[   12.345678][    C0] ",
    "Nov 25 09:39:56 host kernel: ",
    "Nov  5 09:39:56 ip-172-19-13-114 kernel: [   12.345678] ",
    "2026-11-25T09:39:56.123456+00:00 host kernel: [   12.345678] ",
    "2026-11-25T09:39:56+0000 host kernel: ",
    "[   12.345678] host kernel: ",
    "kernel: ",
    "> [   12.345678] ",
    "> > Nov 25 09:39:56 host kernel: ",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    "text", ["Mem-Info:", " active_file:1", "Node 0 DMA: 1*4kB (U) = 4kB", "x: y"]
)
def test_prefixes(prefix: str, text: str) -> None:
    assert split_prefix(prefix + text) == (prefix, text)


def real_report() -> str:
    """The allocation failure of a real log, without time stamps."""
    log = capture.load("n1-256m/oom")["swap_dmesg"]
    return "\n".join(split_prefix(x)[1] for x in str(alloc_failure.parse(log)).split("\n"))


def verdicts(text: str) -> list[str]:
    (report,) = alloc_failure.parse_all(text)
    assert report.problems == []
    return alloc_failure.explain(report).lines()


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_real_report_in_every_log_says_the_same(prefix: str) -> None:
    text = real_report()
    assert verdicts("\n".join(prefix + x for x in text.split("\n"))) == verdicts(text)


@pytest.mark.parametrize("width", [60, 72, 80, 100, 132])
@pytest.mark.parametrize("hard", [False, True])
def test_a_real_report_wrapped_says_the_same(width: int, hard: bool) -> None:
    """At spaces, as mail programs wrap, or in the middle of words, as terminals do."""
    lines = []
    for line in real_report().split("\n"):
        if hard:
            lines += [line[i : i + width] for i in range(0, len(line), width)] or [""]
            continue
        while len(line) > width and (at := line.rfind(" ", 20, width)) > 0:
            lines.append(line[:at])
            line = line[at + 1 :]
        lines.append(line)
    assert verdicts("\n".join(lines)) == verdicts(real_report())


def test_a_line_with_a_prefix_is_never_the_rest_of_another() -> None:
    text = "[ 1.0] Node 0 DMA free:1kB min:2kB\n[ 1.0] low:3kB"
    assert [x.text for x in logical_lines(text)] == ["Node 0 DMA free:1kB min:2kB", "low:3kB"]


def test_joined_lines_keep_what_stood_there() -> None:
    text = "x\nNode 0 DMA free:1kB min:2\n3kB low:3kB\ny"
    found = list(logical_lines(text))
    assert [(x.number, x.text, x.lines) for x in found] == [
        (1, "x", 1),
        (2, "Node 0 DMA free:1kB min:23kB low:3kB", 2),
        (4, "y", 1),
    ]
    assert "\n".join(x.stamp + x.raw for x in found) == text


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(max_size=300))
def test_no_text_is_lost(text: str) -> None:
    text = text.replace("\r", "")
    assert "\n".join(x.stamp + x.raw for x in logical_lines(text)) == text
    assert [(n, x) for n, x in enumerate(text.split("\n"), 1) if x] == list(numbered_lines(text))


def test_long_lines_are_cut() -> None:
    (line,) = logical_lines("a" * (3 * MAX_LINE))
    assert len(line.text) == MAX_LINE


def test_a_report_shuffled_by_another_cpu_is_still_read() -> None:
    """Lines of others in between, and lines in any order: an answer, and no zone invented."""
    lines = real_report().split("\n")
    chance = random.Random(3)
    for _ in range(20):
        mixed = lines[1:]
        chance.shuffle(mixed)
        reports = alloc_failure.parse_all("\n".join([lines[0], *mixed]))
        assert 1 <= len(reports) <= 2  # what stands behind the last line may be taken for another
        for report in reports:
            assert {z.name for z in report.zones} <= {"DMA", "DMA32"}
            alloc_failure.explain(report).lines()
