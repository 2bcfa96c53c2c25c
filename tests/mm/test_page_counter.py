"""Page counters: charging, limits, protection, the text of a limit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.errors import EBUSY, EINVAL, KernelBug, UsageError
from mmcore.mm import page_counter as pc
from mmcore.mm.page_counter import PAGE_COUNTER_MAX, PageCounter, effective_protection

GIB = 1 << 18


def chain(*limits: int) -> list[PageCounter]:
    """Counters below each other, the root first."""
    out: list[PageCounter] = []
    for limit in limits:
        c = PageCounter()
        pc.page_counter_init(c, out[-1] if out else None, True)
        c.max = limit
        out.append(c)
    return out


def test_a_failed_charge_leaves_only_what_was_seen() -> None:
    root, mid, leaf = chain(PAGE_COUNTER_MAX, 100, 1000)
    fail: list[PageCounter] = []
    assert pc.page_counter_try_charge(leaf, 100, fail) and not fail
    assert not pc.page_counter_try_charge(leaf, 1, fail) and fail == [mid]
    assert [c.usage for c in (root, mid, leaf)] == [100, 100, 100]
    assert (leaf.watermark, mid.watermark, mid.failcnt, root.failcnt) == (101, 100, 1, 0)


def test_a_charge_without_question_goes_over_the_limit() -> None:
    root, leaf = chain(10, 10)
    pc.page_counter_charge(leaf, 11)
    assert (root.usage, leaf.usage, leaf.failcnt) == (11, 11, 0)
    assert pc.page_counter_set_max(leaf, 10) == -EBUSY
    pc.page_counter_uncharge(leaf, 11)
    with pytest.raises(KernelBug, match="underflow"):
        pc.page_counter_uncharge(leaf, 1)
    assert leaf.usage == root.usage == 0


def protect(
    parent_effective: int, children: list[tuple[int, int]], recursive: bool, parent_usage: int = 0
) -> list[int]:
    """Return the protection of (usage, setting) each."""
    total = sum(min(u, s) for u, s in children)
    usage = parent_usage or sum(u for u, _ in children)
    return [
        effective_protection(u, usage, s, parent_effective, total, recursive) for u, s in children
    ]


def test_overcommitted_protection_is_divided_by_what_is_claimed() -> None:
    got = protect(10 * GIB, [(8 * GIB, 8 * GIB), (4 * GIB, 8 * GIB), (4 * GIB, 0)], True)
    assert got == [10 * GIB * 8 // 12, 10 * GIB * 4 // 12, 0]


def test_unclaimed_protection_is_divided_by_what_is_not_protected() -> None:
    children = [(8 * GIB, 2 * GIB), (4 * GIB, 2 * GIB), (4 * GIB, 0)]
    assert protect(10 * GIB, children, False) == [2 * GIB, 2 * GIB, 0]
    assert protect(10 * GIB, children, True) == [5 * GIB, 3 * GIB, 2 * GIB]


def test_the_product_wraps() -> None:
    # "max" times 8193 pages does not fit into 64 bits.
    assert effective_protection(8193, 8193, 0, PAGE_COUNTER_MAX, 0, True) != PAGE_COUNTER_MAX


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.integers(0, 1 << 22),
    st.lists(st.tuples(st.integers(1, 1 << 20), st.integers(0, 1 << 20)), min_size=1, max_size=6),
    st.booleans(),
)
def test_children_never_get_more_than_the_parent(
    parent: int, children: list[tuple[int, int]], recursive: bool
) -> None:
    parent = min(parent, sum(u for u, _ in children))
    got = protect(parent, children, recursive)
    assert sum(got) <= max(parent, 0)
    assert all(g <= u for g, (u, _) in zip(got, children, strict=True))


def test_calculation_goes_down_from_the_root_of_the_reclaim() -> None:
    root, parent, child = chain(*[PAGE_COUNTER_MAX] * 3)
    pc.page_counter_set_low(parent, 100)
    pc.page_counter_set_low(child, 500)
    pc.page_counter_charge(child, 300)
    for c in (parent, child):
        pc.page_counter_calculate_protection(root, c, False)
    assert (parent.elow, child.elow) == (100, 100)
    pc.page_counter_calculate_protection(parent, child, False)  # reclaim of the parent itself
    assert child.elow == 500
    with pytest.raises(UsageError, match="not below the root"):
        pc.page_counter_calculate_protection(child, root, False)


@pytest.mark.parametrize(
    ("text", "pages"),
    [
        ("max", PAGE_COUNTER_MAX),
        ("4095", 0),
        ("4K", 1),
        ("1G", GIB),
        ("0x2000", 2),
        ("", 0),
        ("8191", 1),
        ("9E", PAGE_COUNTER_MAX),
    ],
)
def test_limits_are_rounded_down_to_pages(text: str, pages: int) -> None:
    assert pc.page_counter_memparse(text) == (0, pages)


@pytest.mark.parametrize("text", ["12 MB", "x", "1Gi", "-1", "MAX"])
def test_a_limit_that_is_none(text: str) -> None:
    assert pc.page_counter_memparse(text) == (-EINVAL, 0)


def test_wrong_use_is_told() -> None:
    (c,) = chain(10)
    with pytest.raises(UsageError, match="0 or more"):
        pc.page_counter_try_charge(c, -1, [])
    with pytest.raises(UsageError, match="max is -5"):
        pc.page_counter_set_max(c, -5)


def test_the_checker_sees_a_wrong_sum() -> None:
    root, leaf = chain(100, 100)
    pc.page_counter_charge(leaf, 5)
    pc.validate_page_counter(root, [leaf])
    leaf.min = 3
    with pytest.raises(KernelBug, match="protected usage"):
        pc.validate_page_counter(root, [leaf])
