"""pagemap words and the memory lines of /proc/PID/status, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.arch.x86.fault import touch
from mmcore.arch.x86.pgtable import lookup_address, set_pte
from mmcore.errors import ParseError, UsageError
from mmcore.kernel.fork import spawn
from mmcore.machine import bare_zone
from mmcore.mm import swapops
from mmcore.mm.mmap import do_mmap
from mmcore.proc import capture
from mmcore.proc.task_mmu import *

PG = 4096
A = 0x200000000000


@pytest.fixture
def m():
    machine = bare_zone(4096).machine
    machine.transparent_hugepage_enabled = "never"
    spawn(machine, "t")
    assert do_mmap(machine.current.mm, None, A, 8 * PG, 3, 0x32) == A
    return machine


def test_the_word_of_a_written_page(m):
    pfn = touch(m, A, "w").pfn
    word = pagemap_read(m.current.mm, A)
    assert word == pfn | PM_PRESENT | PM_SOFT_DIRTY | PM_MMAP_EXCLUSIVE
    assert str(pagemap_decode(word)) == f"pfn={pfn:x} P D X"


def test_an_empty_entry_of_a_new_vma_is_soft_dirty(m):
    assert pagemap_read(m.current.mm, A) == PM_SOFT_DIRTY
    assert pagemap_read(m.current.mm, A - PG) == 0, "no VMA, no word"


def test_without_privilege_there_is_no_frame(m):
    touch(m, A, "w")
    word = pagemap_read(m.current.mm, A, show_pfn=False)
    assert word & ((1 << PM_PFRAME_BITS) - 1) == 0 and word & PM_PRESENT


def test_swap_entries_and_markers(m):
    touch(m, A, "w")
    ptep, _ = lookup_address(m.current.mm, A)
    set_pte(ptep, swapops.swp_entry_to_pte(swapops.swp_entry(2, 0x1234)))
    info = pagemap_decode(pagemap_read(m.current.mm, A))
    assert (info.swapped, info.swp_type, info.swp_offset) == (True, 2, 0x1234)
    assert str(info) == "type=2 offset=1234 S D"
    set_pte(ptep, swapops.make_pte_marker(swapops.PTE_MARKER_UFFD_WP))
    assert pagemap_decode(pagemap_read(m.current.mm, A)).uffd_wp


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, (1 << 64) - 1))
def test_any_word_decodes(word):
    info = pagemap_decode(word)
    frame = info.swp_type | info.swp_offset << 5 if info.swapped else info.pfn
    assert frame == word & ((1 << 55) - 1)


@pytest.mark.parametrize("bad", [-1, 1 << 64, None])
def test_what_is_no_word(bad):
    with pytest.raises(UsageError):
        pagemap_decode(bad)


@pytest.mark.parametrize("bad", [-4096, 1 << 63, "0"])
def test_what_is_no_user_address(m, bad):
    with pytest.raises(UsageError, match="not in user space"):
        pagemap_read(m.current.mm, bad)


def test_status_lines_round_trip(m):
    touch(m, A, "w")
    touch(m, A + PG)
    text = render_status_memory(m.current.mm)
    assert "VmPTE:\t      12 kB\n" in text
    assert parse_status_memory(text) == status_memory(m.current.mm)


def test_a_real_status_parses():
    text = capture.load("n1-1g/faults")["status"]
    values = parse_status_memory(text)
    assert values["VmRSS"] == values["RssAnon"] + values["RssFile"] + values["RssShmem"]
    for line in text.splitlines():
        name, size = line.split(":")
        assert line == f"{name}:\t{int(size.split()[0]):8d} kB", "the kernel's own format"


@pytest.mark.parametrize("text", ["", "Name:\tcat\n", "VmRSS:\tmany kB\n", "VmRSS: 12 MB\n"])
def test_broken_status_texts(text):
    with pytest.raises(ParseError):
        parse_status_memory(text)
