"""Exact: every page of the pagetables capture, flag by flag, and the counters between the steps."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mmcore.arch.x86.fault import Translation, touch
from mmcore.errors import ParseError
from mmcore.kernel.fork import kernel_clone, spawn
from mmcore.mm.mmap import do_mmap
from mmcore.proc import capture
from mmcore.proc.task_mmu import status_memory
from mmcore.report import pgmap
from mmcore.report.pgmap import ANON, LABELS, PG, PROGRAMS, RW, Run


@pytest.fixture(scope="module")
def cap() -> capture.Capture:
    return capture.load("n1-1g/pagetables")


@pytest.fixture(scope="module", params=["pgmap", "pgmap_mthp64"])
def section(request) -> str:
    """The program ran twice: with the default huge page sizes, and with 64 KiB pages enabled."""
    return request.param


#: Page lines that each part compares, and numbers and calls besides.
SIZES = {"anonymous": 22 * 8 + 1, "files": 60, "sparse": 0, "huge": 33, "every_fourth": 5}


def test_the_capture_has_every_step(cap, section):
    assert len(pgmap.parse_pages(cap[section])) == LABELS


@pytest.mark.parametrize("part", PROGRAMS)
def test_every_page_line_and_counter(cap, section, part):
    run = Run(cap, section)
    PROGRAMS[part](run)
    assert [row for row in run.rows if row[1] != row[2]] == []
    assert run.lines == SIZES[part]
    assert len(run.rows) > run.lines
    assert any("VmPTE" in where for where, _, _ in run.rows)
    if part in ("anonymous", "huge", "files"):
        assert status_memory(run.mm)["VmPTE"] == 0  # all of it was unmapped


def test_a_changed_flag_count_or_page_is_named(cap):
    """The comparison can fail: one flag, one map count and one page frame altered in the text."""
    text = cap["pgmap"]
    line = next(row for row in text.splitlines() if row.startswith("a2 write 2,3,4 3 pfn="))
    word = re.search(r"pfn=([0-9a-f]+)", line)
    assert word is not None
    for old, new, where in (
        (" D", "", "a2 write 2,3,4 3 flags"),
        ("count=1", "count=2", "a2 write 2,3,4 3 count"),
        (word[0], re.search(r"a2 write 2,3,4 2 (pfn=\w+)", text)[1], "a2 write 2,3,4 3 page"),
    ):
        changed = capture.parse(
            "=== pgmap | pgmap | rc=0\n" + text.replace(line, line.replace(old, new, 1))
        )
        rows = pgmap.compare(changed)
        assert where in [w for w, model, kernel in rows if model != kernel]


def test_a_truncated_run_is_refused(cap):
    text = cap["pgmap"]
    short = capture.parse("=== pgmap | pgmap | rc=0\n" + text[: len(text) // 2])
    with pytest.raises(ParseError, match="truncated, or of another program"):
        pgmap.compare(short)


def test_entries_of_parent_and_child_bit_by_bit(cap, section):
    """The values that the chapter names: 867 written, 825 and 805 after fork, 225 the zero page."""
    from mmcore.arch.x86.pgtable import lookup_address

    run = Run(cap, section)
    a = run.map(0x200000000000, 8)
    run.rd(a, 0)
    run.wr(a, 1)

    def entry(mm: Any, i: int) -> int:
        ptep, _ = lookup_address(mm, a + i * PG)
        return ptep[0][ptep[1]]

    pfn = entry(run.mm, 1) >> 12 & 0xFFFFFFFFFF
    assert entry(run.mm, 0) == 0x8000000000000225 | run.m.zero_pfn << 12
    assert entry(run.mm, 1) == 0x8000000000000867 | pfn << 12
    child = kernel_clone(run.task)
    assert entry(run.mm, 1) == 0x8400000000000825 | pfn << 12
    assert entry(child.mm, 1) == 0x8400000000000805 | pfn << 12
    assert entry(child.mm, 0) == 0x8000000000000205 | run.m.zero_pfn << 12


def test_mthp_does_not_fit_eight_pages_at_an_unaligned_end(cap, section):
    """With 64 KiB pages enabled the 8-page mapping still gets single pages: no aligned 16 fit."""
    assert not re.findall(r"^a2 write.*COMPOUND_HEAD", cap[section], re.M)
    m = pgmap.machine(cap, section)
    assert m.mthp_enabled.get(4, "never") == ("never" if section == "pgmap" else "always")
    spawn(m, "t")
    a = 0x200000000000
    assert do_mmap(m.current.mm, None, a, 8 * PG, RW, ANON) == a
    assert isinstance(touch(m, a + 2 * PG, "w"), Translation)
    assert status_memory(m.current.mm)["RssAnon"] == 4
