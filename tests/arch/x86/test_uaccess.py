"""Copies between kernel and user: what is not copied, which faults are taken, which addresses are refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.arch.x86 import uaccess
from mmcore.arch.x86.fault import touch
from mmcore.errors import EFAULT, UsageError
from mmcore.kernel.fork import kernel_clone, spawn, switch_to
from mmcore.machine import Machine
from mmcore.mm import mmap
from mmcore.mm.mm import get_mm_rss

PG = 4096
A = 0x1000_0000_0000
RW = mmap.PROT_READ | mmap.PROT_WRITE
FIXED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_FIXED


def process(*ranges, prot=RW):
    """Return a running process that has mapped pages of A: (first, number) each."""
    m = Machine.boot("64M")
    m.transparent_hugepage_enabled = "never"
    task = spawn(m, "copier")
    for first, nr in ranges:
        assert mmap.do_mmap(task.mm, None, A + first * PG, nr * PG, prot, FIXED) > 0
    return m, task


@pytest.mark.parametrize(
    ("offset", "n", "left"),
    [
        (0, 4096, 0),
        (1000, 4096, 1000),
        (4095, 4096, 4095),
        (4095, 1, 0),
        (4096, 1, 1),
        (0, 0, 0),
        (1, 8192, 4097),
    ],
)
def test_what_is_not_copied_at_the_end_of_a_page(offset, n, left):
    m, _ = process((0, 1))
    assert uaccess.copy_from_user(m, None, A + offset, n) == left
    assert uaccess.copy_to_user(m, A + offset, n) == left


def test_the_rest_of_the_kernels_buffer_is_cleared():
    m, _ = process((0, 1))
    buffer = bytearray(b"\xff" * 16)
    assert uaccess.copy_from_user(m, buffer, A + PG - 3, 10) == 7
    assert buffer == b"\1\1\1" + bytes(7) + b"\xff" * 6


def test_a_copy_faults_pages_in_like_any_access():
    m, task = process((0, 3))
    assert uaccess.copy_from_user(m, None, A, 3 * PG) == 0
    assert (task.min_flt, get_mm_rss(task.mm)) == (3, 0)  # the zero page
    assert uaccess.copy_to_user(m, A, 3 * PG) == 0
    assert (task.min_flt, get_mm_rss(task.mm)) == (6, 3)


def test_a_copy_to_a_shared_page_copies_the_page_first():
    m, task = process((0, 1))
    touch(m, A, "w")
    child = kernel_clone(task)
    switch_to(m, child)
    assert uaccess.copy_to_user(m, A, 8) == 0
    assert child.min_flt == 1 and get_mm_rss(child.mm) == 1
    switch_to(m, task)


def test_read_only_memory_can_be_read_and_not_written():
    m, _ = process((0, 1), prot=mmap.PROT_READ)
    assert uaccess.copy_from_user(m, None, A, 100) == 0
    assert uaccess.copy_to_user(m, A, 100) == 100
    assert (uaccess.get_user(m, A), uaccess.put_user(m, A)) == (0, -EFAULT)


@pytest.mark.parametrize(
    "address",
    [0, 8, 0x7FFF_FFFF_F000, 0x8000_0000_0000, 1 << 63, (1 << 64) - 1, 0xFFFF_8880_0000_0000],
)
@pytest.mark.parametrize("n", [1, 4096, 5000])
def test_no_address_reaches_the_kernel(address, n):
    m, _ = process((0, 1))
    assert uaccess.copy_from_user(m, None, address, n) == n
    assert uaccess.copy_to_user(m, address, n) == n
    assert uaccess.get_user(m, address) == uaccess.put_user(m, address) == -EFAULT
    assert uaccess.copy_from_user_nofault(m, None, address, n) == -EFAULT


def test_masking_leaves_user_addresses_and_replaces_all_others_by_one():
    m, _ = process()
    limit = uaccess.USER_PTR_MAX(m)
    assert limit == 0x7FFF_FFFF_F000
    assert uaccess.mask_user_address(m, A) == A
    assert {
        uaccess.mask_user_address(m, a) for a in (limit, limit + 1, 1 << 63, (1 << 64) - 1)
    } == {limit}


def test_a_range_that_wraps_is_refused_before_a_byte_is_written():
    m, task = process((0, 1))
    assert not uaccess.access_ok(m, A, (1 << 64) - PG)
    assert uaccess.copy_to_user(m, A, (1 << 64) - PG) == (1 << 64) - PG
    assert task.min_flt == 0


def test_strings_end_at_their_zero_or_at_the_limit():
    m, _ = process((0, 1))
    assert uaccess.strncpy_from_user(m, A, 100, 5) == 5
    assert uaccess.strncpy_from_user(m, A, 5, 100) == 5
    assert uaccess.strncpy_from_user(m, A, 0, 5) == 0
    assert uaccess.strncpy_from_user(m, A + PG - 6, 100, 5) == 5  # the 0 is the page's last byte
    assert uaccess.strncpy_from_user(m, A + PG - 5, 100, 5) == -EFAULT  # it lies in the hole


def test_nofault_does_not_bring_a_page():
    m, task = process((0, 1))
    assert uaccess.copy_from_user_nofault(m, None, A, 8) == -EFAULT
    assert task.min_flt == 0 and task.pagefault_disabled == 0
    touch(m, A, "r")
    assert uaccess.copy_from_user_nofault(m, None, A, 8) == 0


def test_fault_in_counts_what_is_missing():
    m, task = process((0, 2))
    assert uaccess.fault_in_readable(m, A + 10, 2 * PG - 10) == 0 and task.min_flt == 2
    assert uaccess.fault_in_readable(m, A + PG, 2 * PG) == PG
    assert uaccess.fault_in_readable(m, A, 0) == 0


def test_misuse_is_told():
    m, _ = process((0, 1))
    with pytest.raises(UsageError, match="buffer of 4"):
        uaccess.copy_from_user(m, bytearray(4), A, 8)
    with pytest.raises(UsageError, match="number of bytes"):
        uaccess.copy_to_user(m, A, -1)
    with pytest.raises(UsageError, match="no task"):
        uaccess.copy_to_user(Machine.boot("64M"), A, 1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    mapped=st.lists(st.booleans(), min_size=4, max_size=4),
    start=st.integers(0, 4 * PG - 1),
    n=st.integers(0, 5 * PG),
)
def test_a_copy_stops_at_the_first_byte_that_is_not_mapped(mapped, start, n):
    m, _ = process(*[(i, 1) for i, on in enumerate(mapped) if on])
    there = 0
    while there < n and (start + there) // PG < 4 and mapped[(start + there) // PG]:
        there += 1
    assert uaccess.copy_from_user(m, None, A + start, n) == n - there
    assert uaccess.copy_to_user(m, A + start, n) == n - there
