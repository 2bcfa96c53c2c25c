"""Exact: the faults and oops captures: error codes, signals, counters and log lines."""

from __future__ import annotations

import pytest

from mmcore.arch.x86.fault import (
    PtRegs,
    dump_pagetable,
    parse_oops,
    parse_segfault_line,
    show_fault_oops,
)
from mmcore.errors import ParseError
from mmcore.kernel.fork import spawn
from mmcore.machine import Machine
from mmcore.proc import capture
from mmcore.report import faults


@pytest.fixture(scope="module")
def cap() -> capture.Capture:
    return capture.load("n1-1g/faults")


def differing(rows):
    return [row for row in rows if row[1] != row[2]]


def test_every_fault_signal_and_counter(cap):
    rows = faults.compare(cap)
    assert differing(rows) == []
    names = [where for where, _, _ in rows]
    traced = sum(
        len(events) for label, events in faults.parse_faults(cap["trace"]).items() if label
    )
    # Each traced fault once (but the second one of the fixup), and steps that must not fault.
    steps_without = ["read 0 again", "read 1", "read non-canonical"]
    assert len([n for n in names if ": fault " in n]) == traced - 1 + len(steps_without)
    assert {"read beyond EOF", "read into a hole", "read 1024 VmPTE", "fault 48"} <= set(names)


def test_the_windows_of_fault_around(cap):
    """16 pages at a time, aligned: a mapping off by one page has one window more."""
    events = faults.parse_faults(cap["trace"])
    assert len(events["map 1 MiB"]) == 16 and len(events["map 1 MiB off"]) == 17


@pytest.mark.parametrize(
    ("section", "old", "new", "where"),
    [
        ("trace", "error_code=0x15", "error_code=0x14", "execute 0: fault 1"),
        ("faults", "signal 7 si_code 2", "signal 7 si_code 3", "read beyond EOF"),
        ("faults", "write 1024: minflt +1024", "write 1024: minflt +1023", "write 1024"),
        ("trace", "address=0x2000c0001000", "address=0x2000c0002000", "map 1 MiB off: fault 1"),
    ],
)
def test_a_changed_number_is_named(section, old, new, where):
    cap = capture.load("n1-1g/faults")
    changed = next(s for s in cap.sections if s.name == section)
    assert old in changed.text
    changed.text = changed.text.replace(old, new, 1)
    assert [row[0] for row in differing(faults.compare(cap))] == [where]


def test_a_truncated_capture_is_refused():
    cap = capture.load("n1-1g/faults")
    section = next(s for s in cap.sections if s.name == "faults")
    section.text = section.text[:400]
    with pytest.raises(ParseError, match="truncated, or of another program"):
        faults.compare(cap)


def test_segfault_lines_parse_and_render(cap):
    rows = list(faults.compare_segfaults(cap["segfaults"]))
    assert len(rows) == 6 and differing(rows) == []
    first = parse_segfault_line(cap["segfaults"].splitlines()[0])
    assert (first.file, first.start, first.size, first.offset) == (
        "faults",
        0x401000,
        0x79000,
        0x1B82,
    )
    assert first.explanation == "user-mode write at 0x0: no page is mapped"


@pytest.mark.parametrize("section", ["oops0", "oops1", "oops2", "oops3"])
def test_oops_lines(section):
    text = capture.load("n1-1g/oops")[section]
    rows = list(faults.compare_oops(text))
    assert len(rows) == 3 and differing(rows) == []
    info = parse_oops(text)
    assert info.null_pointer == ("NULL pointer" in text.splitlines()[0])
    assert dict(info.entries)["PGD"] == dict(info.entries)["P4D"]


def test_the_page_table_line_from_the_model():
    """oops2 reads ffff8880f0000000, beyond the direct map: all four lines, addresses included."""
    m = Machine.boot("1G")
    spawn(m, "faults")
    text = capture.load("n1-1g/oops")["oops2"].splitlines()
    info = parse_oops("\n".join(text))
    lines = show_fault_oops(m, PtRegs(user_mode=False), info.error_code, info.address)
    assert lines == text[:4]
    assert dump_pagetable(m.init_mm, info.address) == text[3]
