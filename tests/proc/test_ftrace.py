"""Trace lines: parsed and printed as the kernel prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.errors import ParseError, UsageError
from mmcore.machine import bare_zone
from mmcore.mm import page_alloc
from mmcore.mm.gfp import GFP_KERNEL
from mmcore.proc import capture, ftrace
from mmcore.trace import Event


@pytest.mark.parametrize("name", ["n1-256m/alloctrace", "n1-256m/alloctrace_fallback"])
def test_every_recorded_line_comes_back(name: str) -> None:
    text = capture.load(name)["trace"]
    lines = ftrace.parse(text)
    assert [str(line) for line in lines] == [
        line for line in text.split("\n") if line and not line.startswith("#")
    ]
    checked = 0
    for line in lines:
        if line.event is not None:
            short, args = ftrace.render_event(line.event)
            # The pointer is hashed, differently at each boot; all else is the kernel's text.
            assert short == line.name
            assert args.split(" ", 1)[1] == line.args.split(" ", 1)[1]
            checked += 1
    assert checked > 20_000


def test_events_of_the_model_print_and_parse() -> None:
    zone = bare_zone(1024)
    machine = zone.machine
    with machine.trace.record("kmem:*") as log:
        page = page_alloc.alloc_pages(machine, GFP_KERNEL, 0)
        assert page is not None
        page_alloc.__free_pages(page, 0)
    text = ftrace.render(log, pid=7)
    parsed = ftrace.parse(text)
    assert [line.event and line.event.values for line in parsed] == [
        tuple(int(v) for v in event.values) for event in log
    ]
    assert f"pfn={page.pfn:#x} order=0 migratetype=0 gfp_flags=GFP_KERNEL" in text


def test_between_markers() -> None:
    def line(name: str, args: str) -> ftrace.TraceLine:
        event = (
            Event(0, 0, "a", "kmem:mm_page_free", (1, 0)) if name != "tracing_mark_write" else None
        )
        return ftrace.TraceLine(1, "a", 1, 0, ".....", 0, name, args, event)

    free, mark = ("mm_page_free", ""), "tracing_mark_write"
    lines = [
        line(*free),
        line(mark, "A"),
        line(*free),
        line(mark, "x"),
        line(*free),
        line(mark, "B"),
    ]
    lines.append(line(*free))
    assert len(list(ftrace.between(lines, "A", "B"))) == 2
    assert len(list(ftrace.between(lines, "A"))) == 3
    assert len(list(ftrace.between(lines))) == 4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nonsense", "not a line"),
        (" a-1 [000] ..... 1.000001: mm_page_free: page=0 pfn=0x1", "missing"),
        (" a-1 [000] ..... 1.000001: mm_page_free: page=0 pfn=zz order=0", "no number"),
        (
            " a-1 [000] ..... 1.000001: mm_page_alloc: pfn=0x1 order=0 migratetype=0 gfp_flags=WHAT",
            "",
        ),
    ],
)
def test_damaged_lines_name_themselves(text: str, why: str) -> None:
    with pytest.raises(ParseError, match=f"line 2.*{why}"):
        ftrace.parse("# tracer: nop\n" + text)


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        ftrace.parse(text)
    except ParseError as error:
        assert error.line >= 1


def test_an_event_without_a_trace_line() -> None:
    with pytest.raises(UsageError, match="no trace line"):
        ftrace.render_event(Event(0, 0, "", "model:warn", ("x",)))
    assert ftrace.render([Event(0, 0, "", "model:warn", ("x",))]) == ""
