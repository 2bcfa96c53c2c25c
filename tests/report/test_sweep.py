"""Every number that a kernel derives from its memory sysctls, at every setting of a recorded sweep."""

import pytest

from mmcore.errors import ParseError
from mmcore.machine import Machine
from mmcore.proc import capture
from mmcore.report.sweep import LINE_FIELDS, apply_setting, parse_lines, sweep, zone_numbers


def test_every_integer_of_the_sysctl_sweep_is_the_kernels():
    text = capture.load("n1-1g/watermarks")["sweep"]
    rows = sweep(Machine.from_capture("n1-1g/physical"), text)
    assert len(rows) == 98 and sum(len(kernel) for *_, kernel in rows) == 1470
    for tag, zone, model, kernel in rows:
        assert model == kernel, (tag, zone)


def test_a_wrong_engine_would_be_seen():
    """The comparison is not of a thing with itself: another scale factor gives other numbers."""
    text = capture.load("n1-1g/watermarks")["sweep"]
    line = next(
        row for row in parse_lines(text) if row[:2] == ("watermark_scale_factor=500", "0/DMA32")
    )
    m = Machine.from_capture("n1-1g/physical")
    zone = next(z for z in m.node_data[0].node_zones if z.name == "DMA32")
    apply_setting(m, "watermark_scale_factor=499")
    numbers = dict(zip(LINE_FIELDS, zip(zone_numbers(zone), line[2], strict=True), strict=False))
    assert numbers["min"][0] == numbers["min"][1] and numbers["low"][0] != numbers["low"][1]


@pytest.mark.parametrize(
    "line",
    [
        "default node=0 zone=DMA min=x",
        "default node=0 zone=DMA",
        "a node=0 zone=DMA32 min=1 low=2 high=3 promo=4 boost=0 spanned=1 present=1",
    ],
)
def test_a_damaged_line_is_named(line):
    with pytest.raises(ParseError) as err:
        list(parse_lines("fine\n" + line))
    assert "line 2" in str(err.value)


def test_lines_without_a_zone_are_passed_over():
    assert list(parse_lines("defaults min_free_kbytes=45056\ndefault meminfo MemFree: 1\n")) == []
