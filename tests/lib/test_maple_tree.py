"""The maple tree against a plain list of ranges; per-CPU counters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.cint import ULONG_MAX
from mmcore.errors import EBUSY, EINVAL, KernelBug
from mmcore.lib.maple_tree import *
from mmcore.lib.percpu_counter import *

Range = tuple[int, int, object]


def assign(ranges: list[Range], first: int, last: int, entry: object) -> list[Range]:
    """Store into the list that the tree is compared with: cut, insert, join touching gaps."""
    new: list[Range] = [(first, last, entry)]
    for lo, hi, old in ranges:
        if lo < first:
            new.append((lo, min(hi, first - 1), old))
        if hi > last:
            new.append((max(lo, last + 1), hi, old))
    joined: list[Range] = []
    for r in sorted(new, key=lambda r: r[0]):
        if joined and joined[-1][2] is None and r[2] is None:
            joined[-1] = (joined[-1][0], r[1], None)
        else:
            joined.append(r)
    return joined


def slots(tree: MapleTree) -> list[Range]:
    found, index = [], 0
    while index <= ULONG_MAX:
        found.append(tree.range_at(index))
        index = found[-1][1] + 1
    return found


store = st.tuples(st.integers(0, 400), st.integers(1, 30), st.booleans(), st.integers(0, 15))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(store, min_size=1, max_size=120), st.integers(0, 420), st.integers(1, 60))
def test_it_answers_as_a_list_does(stores, at, size):
    tree: MapleTree[object] = MapleTree()
    ranges: list[Range] = [(0, ULONG_MAX, None)]
    for n, (first, length, keep, wide) in enumerate(stores):
        last = first + length - 1 + (200 if wide == 0 else 0)
        entry = n if keep else None
        tree.store(first, last, entry)
        ranges = assign(ranges, first, last, entry)
        mt_validate(tree)
    assert slots(tree) == ranges
    entries = [r for r in ranges if r[2] is not None]
    assert list(tree) == [r[2] for r in entries] and len(tree) == len(entries)
    assert tree.walk(at) == next(r[2] for r in ranges if r[0] <= at <= r[1])
    assert tree.find(at) == next((r[2] for r in entries if r[1] >= at), None)
    assert tree.find(at, at + 9) == next(
        (r[2] for r in entries if r[1] >= at and r[0] <= at + 9), None
    )
    assert tree.prev(at) == next((r[2] for r in reversed(entries) if r[0] < at), None)
    assert tree.range(at, at + size) == [r[2] for r in entries if r[0] < at + size and r[1] >= at]
    gaps = [(max(r[0], at), min(r[1], at + 200)) for r in ranges if r[2] is None]
    gaps = [g for g in gaps if g[1] - g[0] + 1 >= size]
    assert tree.empty_area(at, at + 200, size) == (gaps[0][0] if gaps else -EBUSY)
    assert tree.empty_area_rev(at, at + 200, size) == (gaps[-1][1] if gaps else -EBUSY)
    for rev in (False, True):
        steps = list(mt_search_path(tree, at, at + 200, size, rev))
        assert (steps[-1][5] == "found") is bool(gaps)
        if gaps:
            edge = min(steps[-1][3], at + 200) if rev else max(steps[-1][2], at)
            assert edge == (gaps[-1][1] if rev else gaps[0][0])


@pytest.mark.parametrize("count", [1, 8, 9, 100, 5000])
def test_depth_grows_with_the_logarithm(count):
    tree: MapleTree[int] = MapleTree()
    for i in range(count):
        tree.store(i * 16, i * 16 + 7, i)
    mt_validate(tree)
    slots_needed = 2 * count
    least, most = 1, 1
    while 16 * 10 ** (least - 1) < slots_needed:
        least += 1
    while 8 * 5 ** (most - 1) < slots_needed:
        most += 1
    assert least <= tree.height <= most
    for i in range(count):
        tree.store(i * 16, i * 16 + 7, None)
    assert tree.height == 1 and slots(tree) == [(0, ULONG_MAX, None)]


def test_a_search_looks_at_few_slots():
    tree: MapleTree[int] = MapleTree()
    for i in range(20000):  # holes of 8 everywhere, one of 100 in the middle
        tree.store(i * 16 + (92 if i >= 10000 else 0), i * 16 + 7 + (92 if i >= 10000 else 0), i)
    path = list(mt_search_path(tree, 0, 20000 * 16, 100))
    assert path[-1][5] == "found" and path[-1][2] == 10000 * 16 - 8
    assert len(path) <= 16 + 10 * tree.height


def test_places_in_the_tree():
    tree: MapleTree[str] = MapleTree()
    for name, first in (("a", 10), ("b", 20), ("c", 40)):
        tree.store(first, first + 4, name)
    mas = MaState(tree, 12)
    assert mas_walk(mas) == "a" and (mas.index, mas.last) == (10, 14)
    assert mas_next(mas) == "b" and mas_next(mas, 30) is None and mas_next(mas) == "c"
    assert mas_prev(mas) == "b" and mas_prev(mas) == "a" and mas_prev(mas) is None
    mas = MaState(tree, 15)
    assert mas_find(mas, 19) is None and mas_find(mas) == "b"
    assert mas_empty_area(mas, 0, 100, 11) == 0 and (mas.index, mas.last) == (25, 35)
    assert mas_empty_area_rev(mas, 0, 39, 11) == 0 and (mas.index, mas.last) == (29, 39)
    assert mas_empty_area(mas, 0, 39, 30) == -EBUSY
    assert mas_empty_area(mas, 5, 4, 1) == mas_empty_area_rev(mas, 0, 5, 7) == -EINVAL
    mas = MaState(tree, 12, 21)
    mas_store(mas, "d")
    assert [tree.range_at(i)[:2] for i in (10, 12, 22)] == [(10, 11), (12, 21), (22, 24)]


def test_a_copy_is_a_tree_of_its_own():
    tree: MapleTree[int] = MapleTree()
    for i in range(500):
        tree.store(i * 4, i * 4 + 1, i)
    copy = mt_dup(tree)
    copy.store(0, 999, None)
    mt_validate(copy)
    mt_validate(tree)
    assert len(tree) == 500 and len(copy) == 250 and tree.walk(4) == 1


@pytest.mark.parametrize(("first", "last"), [(-1, 3), (5, 4), (0, ULONG_MAX + 1)])
def test_what_is_no_range(first, last):
    with pytest.raises(KernelBug):
        MapleTree().store(first, last, 1)


def test_the_checker_sees_damage():
    tree: MapleTree[int] = MapleTree()
    for i in range(100):
        tree.store(i * 4, i * 4 + 1, i)
    assert tree.root.gaps is not None
    tree.root.gaps[0] += 1
    with pytest.raises(KernelBug, match="largest gap"):
        mt_validate(tree)
    tree.root.gaps[0] -= 1
    tree.count += 1
    with pytest.raises(KernelBug, match="counts"):
        mt_validate(tree)


def test_a_cpu_passes_its_part_on_in_batches():
    counter = PercpuCounter()
    for _ in range(9):
        percpu_counter_add_batch(counter, 0, 1, 10)
    percpu_counter_add_batch(counter, 1, -4, 10)
    assert percpu_counter_read_positive(counter) == 0
    assert percpu_counter_sum_positive(counter) == 5
    percpu_counter_add_batch(counter, 0, 1, 10)
    assert counter.count == 10 and percpu_counter_read_positive(counter) == 10
    percpu_counter_sync(counter, 1)
    assert counter.count == 6
    percpu_counter_add_batch(counter, 0, -100, 10)
    assert percpu_counter_read_positive(counter) == percpu_counter_sum_positive(counter) == 0
