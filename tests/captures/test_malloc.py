"""Exact: the recorded calls of malloc(), on the model's kernel and from the model's allocator."""

from __future__ import annotations

import pytest

from mmcore.errors import ParseError
from mmcore.proc import capture
from mmcore.report import malloclog


@pytest.fixture(scope="module")
def text() -> str:
    return capture.read_text(capture.find("n1-1g/malloc"))


def parsed(text: str) -> capture.Capture:
    return capture.parse(text, "test")


def differing(rows):
    return [where for where, mine, theirs in rows if mine != theirs]


def test_every_result_and_every_mapping_is_the_kernels(text):
    rows = malloclog.compare_calls(parsed(text))
    assert differing(rows) == [] and len(rows) == 43
    results = [where for where, _, _ in rows if ": map " not in where]
    assert len(results) == text.count("\ncall ") == 17
    # Two blocks that touch stay two mappings: their anon_vmas differ.
    assert sum(where.startswith("a = realloc") for where, _, _ in rows) == 4


def test_every_call_and_fault_of_the_allocator_is_the_librarys(text):
    rows = malloclog.compare_library(parsed(text))
    assert differing(rows) == [] and len(rows) == 42
    assert ("malloc_trim(0): anonymous", "-188 kB", "-188 kB") in rows


@pytest.mark.parametrize(
    ("old", "new", "calls", "library"),
    [
        ("mmap 0 208896 3 0x22 = 0x7ffff7f93000", "mmap 0 208896 3 0x22 = 0x7ffff7f94000",
         "b = malloc(200 KiB): 1. mmap", "b = malloc(200 KiB): 1"),
        ("call brk 0x56a000 = 0x56a000", "call brk 0x56a000 = 0x56b000",
         "c = malloc(200 KiB): 1. brk", "c = malloc(200 KiB): 1"),
        ("call brk 0 = 0x4e7000", "call brk 0 = 0x4e8000", "nothing yet: 1. brk", None),
        ("faults 49 anonymous 484", "faults 48 anonymous 484", None, "every page of a written: 2"),
        ("faults 0 anonymous 100", "faults 0 anonymous 104", None, "malloc_trim(0): anonymous"),
        ("map 7ffff7fc6000-7ffff7ff9000 rw-p 00000000 00:00 0 \nstep",
         "map 7ffff7fc5000-7ffff7ff9000 rw-p 00000000 00:00 0 \nstep",
         "a = malloc(200 KiB): map 3", None),
    ],
)  # fmt: skip
def test_one_changed_value_is_one_difference(text, old, new, calls, library):
    bad = text.replace(old, new, 1)
    assert bad != text
    assert differing(malloclog.compare_calls(parsed(bad))) == ([calls] if calls else [])
    assert differing(malloclog.compare_library(parsed(bad))) == ([library] if library else [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("call brk 0 = 0x4e7000", "call brk = 0x4e7000"),
        ("faults 34 anonymous 52", "faults x anonymous 52"),
        ("map 004c6000-004e7000 rw-p", "map 004c6000-004e7000 r--p"),
        ("call brk 0x4e7d00 = 0x4e7d00", "call brk 0 = 0x4e7d00"),
    ],
)
def test_a_damaged_line_is_refused_in_words(text, old, new):
    bad = text.replace(old, new, 1)
    assert bad != text
    if "brk 0 = 0x4e7d00" in new:
        bad = bad.replace("call brk 0x508d00 = 0x508d00\ncall brk 0x509000 = 0x509000\n", "")
    with pytest.raises(ParseError):
        malloclog.compare_calls(parsed(bad))
