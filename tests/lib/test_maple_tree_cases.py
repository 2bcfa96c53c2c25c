"""What the kernel's own tests of the maple tree try, on trees of our own and against a list of ranges.

The situations are those of lib/test_maple_tree.c and tools/testing/radix-tree/maple.c that a tree of
allocation ranges can be in: roots, splits, stores over many nodes, gaps that meet at a node's edge, searches
inside limits, the ends of the index space, changes while somebody iterates, copies.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from itertools import pairwise

import pytest

from mmcore.cint import ULONG_MAX
from mmcore.errors import EBUSY, EINVAL
from mmcore.lib.maple_tree import *

Range = tuple[int, int, object]


class Both:
    """A tree, and the ranges that should be in it."""

    def __init__(self, tree: MapleTree | None = None, ranges: list[Range] | None = None) -> None:
        self.tree: MapleTree[object] = MapleTree() if tree is None else tree
        self.ranges: list[Range] = ranges or [(0, ULONG_MAX, None)]

    def copy(self) -> Both:
        return Both(mt_dup(self.tree), self.ranges[:])

    def store(self, first: int, last: int, entry: object) -> None:
        self.tree.store(first, last, entry)
        lasts = [r[1] for r in self.ranges]
        i, j = bisect_left(lasts, first), bisect_left(lasts, last)
        new: list[Range] = [(first, last, entry)]
        if self.ranges[i][0] < first:
            new.insert(0, (self.ranges[i][0], first - 1, self.ranges[i][2]))
        if self.ranges[j][1] > last:
            new.append((last + 1, self.ranges[j][1], self.ranges[j][2]))
        lo, hi = max(i - 1, 0), j + 2
        joined: list[Range] = []
        for r in self.ranges[lo:i] + new + self.ranges[j + 1 : hi]:
            if joined and joined[-1][2] is None and r[2] is None:
                joined[-1] = (joined[-1][0], r[1], None)
            else:
                joined.append(r)
        self.ranges[lo:hi] = joined

    def erase(self, index: int) -> object:
        """Leave a gap where the entry at @index is."""
        first, last, entry = self.tree.range_at(index)
        self.store(first, last, None)
        return entry

    def check(self) -> None:
        mt_validate(self.tree)
        found, index = [], 0
        while index <= ULONG_MAX:
            found.append(self.tree.range_at(index))
            index = found[-1][1] + 1
        assert found == self.ranges

    def gaps(self, low: int, high: int, size: int) -> list[tuple[int, int]]:
        """The parts inside [low, high] of all gaps that can hold @size."""
        cut = [(max(f, low), min(t, high)) for f, t, entry in self.ranges if entry is None]
        return [(f, t) for f, t in cut if t - f + 1 >= size]

    def search(self, low: int, high: int, size: int) -> None:
        gaps = self.gaps(low, high, size)
        assert self.tree.empty_area(low, high, size) == (gaps[0][0] if gaps else -EBUSY)
        assert self.tree.empty_area_rev(low, high, size) == (gaps[-1][1] if gaps else -EBUSY)


def row(count: int, step: int = 10, width: int = 6, base: int = 0) -> Both:
    """@count entries of @width indices, one each @step."""
    both = Both()
    for i in range(count):
        both.store(base + i * step, base + i * step + width - 1, i)
    return both


def edges(tree: MapleTree) -> list[tuple[int, int, int]]:
    """(depth, first, last) of every node."""
    found, stack = [], [(tree.root, 1, 0, ULONG_MAX)]
    while stack:
        node, depth, lo, hi = stack.pop()
        found.append((depth, lo, hi))
        if node.gaps is not None:
            for pivot, child in zip(node.pivots, node.slots, strict=True):
                stack.append((child, depth + 1, lo, pivot))
                lo = pivot + 1
    return sorted(found)


# --- roots and the ends of the index space ---


def test_an_empty_tree():
    mas = MaState(MapleTree(), 3)
    assert mas_walk(mas) is None and (mas.index, mas.last) == (0, ULONG_MAX)
    assert mas_find(mas) is None and mas_next(mas) is None and mas_prev(mas) is None
    assert mas_empty_area(mas, 0, ULONG_MAX, ULONG_MAX) == 0 and mas.index == 0
    assert mas_empty_area_rev(mas, 0, ULONG_MAX, ULONG_MAX) == 0 and mas.index == 1
    assert len(mas.tree) == 0 and list(mas.tree) == [] and mas.tree.height == 1


@pytest.mark.parametrize(
    ("first", "last"),
    [(0, 0), (1, 1), (0, 7), (5, 9), (ULONG_MAX, ULONG_MAX), (9, ULONG_MAX), (0, ULONG_MAX)],
)
def test_one_entry(first, last):
    both = Both()
    both.store(first, last, "x")
    both.check()
    mas = MaState(both.tree, 0)
    assert mas_find(mas) == "x" and (mas.index, mas.last) == (first, last)
    assert mas_next(mas) is None and mas_prev(mas) is None
    mas = MaState(both.tree, ULONG_MAX)
    assert (mas_find(mas) == "x") is (last == ULONG_MAX)
    for low, high in ((0, ULONG_MAX), (0, first), (last, ULONG_MAX)):
        for size in (1, 2, ULONG_MAX - last, first):
            if 0 < size <= high - low + 1:
                both.search(low, high, size)
    both.erase(last)
    both.check()
    assert both.ranges == [(0, ULONG_MAX, None)]


def test_the_whole_space_is_cut_up_and_joined_again():
    both = Both()
    both.store(0, ULONG_MAX, "all")
    for index in (0, ULONG_MAX, 5, 4, ULONG_MAX - 1, 6, 1):
        both.store(index, index, index)
        both.check()
    assert both.tree.empty_area(0, ULONG_MAX, 1) == both.tree.empty_area_rev(0, ULONG_MAX, 1)
    for index in (4, 0, ULONG_MAX, 5, ULONG_MAX - 1, 6, 1):
        assert both.erase(index) == index
        both.check()
    both.store(0, ULONG_MAX, None)
    both.check()
    assert both.tree.height == 1


def test_both_ends_of_a_deep_tree():
    both = row(300, base=1)
    top = ULONG_MAX - 3000
    for i in range(300):
        both.store(top + i * 10 + 1, top + i * 10 + 6, -i)
    both.store(0, 0, "first")
    both.store(ULONG_MAX, ULONG_MAX, "last")
    both.check()
    assert both.tree.height > 2
    for size in (1, 3, 4, 5, ULONG_MAX // 2, ULONG_MAX - 6000, ULONG_MAX - 5999):
        both.search(0, ULONG_MAX, size)
    both.erase(ULONG_MAX)
    both.erase(0)
    both.store(ULONG_MAX - 20, ULONG_MAX, "wide")
    both.check()
    both.store(0, top + 1500, None)
    both.check()
    both.store(top, ULONG_MAX, None)
    both.check()
    assert both.tree.height == 1


# --- growing and shrinking ---


@pytest.mark.parametrize("order", ["up", "down", "outside in", "inside out", "mixed"])
@pytest.mark.parametrize("step", [1, 2])  # entries that touch, entries with gaps between
def test_entries_come_and_go_in_any_order(order, step):
    n = 180
    up = list(range(n))
    orders = {
        "up": up,
        "down": up[::-1],
        "outside in": [i // 2 if i % 2 else n - 1 - i // 2 for i in up],
        "mixed": random.Random(5).sample(up, n),
    }
    orders["inside out"] = orders["outside in"][::-1]
    both = Both()
    for done, i in enumerate(orders[order]):
        both.store(i * step, i * step, i)
        assert len(both.tree) == done + 1
        if done % 7 == 0:
            both.check()
    assert list(both.tree) == up
    for left, i in enumerate(orders[order]):
        assert both.erase(i * step) == i and both.tree.walk(i * step) is None
        assert len(both.tree) == n - 1 - left
        if left % 7 == 0:
            both.check()
    both.check()
    assert both.tree.height == 1


@pytest.mark.parametrize("part", ["lower", "upper", "middle", "all"])
def test_a_store_into_one_range(part):
    for n in (1, 15, 16, 17, 60):
        both = row(n, 10, 10)
        for i in range(n):
            first = i * 10 + (0 if part in ("lower", "all") else 4)
            last = i * 10 + (9 if part in ("upper", "all") else 5)
            both.store(first, last, f"{part} {i}")
            both.check()
        assert len(both.tree) == n * {"lower": 2, "upper": 2, "middle": 3, "all": 1}[part]


def test_the_same_entry_stored_beside_itself_stays_two_ranges():
    both = Both()
    both.store(0, 4, "x")
    both.store(5, 9, "x")
    both.check()
    assert len(both.tree) == 2 and both.tree.range_at(7) == (5, 9, "x")


# --- stores over several nodes ---


@pytest.mark.parametrize("entry", ["new", None])
@pytest.mark.parametrize("width", [6, 10])
def test_stores_from_one_leaf_into_another(entry, width):
    """Every leaf as the left end, its neighbours, cousins and the last one as the right end."""
    both = row(230, 10, width)
    assert both.tree.height >= 3
    depth = both.tree.height
    leaves = [(lo, hi) for d, lo, hi in edges(both.tree) if d == depth]
    for i, (first, _) in enumerate(leaves):
        for j in sorted({i, i + 1, i + 2, i + 7, i + 15, len(leaves) - 1}):
            if j >= len(leaves):
                continue
            for start, end in ((first, leaves[j][1]), (first + 7, leaves[j][1] - 3)):
                if start <= end:
                    again = both.copy()
                    again.store(start, end, entry)
                    again.check()


def test_a_store_that_takes_all_of_the_right_node():
    """From the last slot of one leaf to the end of the parent's last leaf."""
    both = row(600, 10, 10)
    depth, tried = both.tree.height, 0
    nodes = edges(both.tree)
    for level, lo, hi in nodes:
        if level != depth - 1:
            continue
        leaves = [n for n in nodes if n[0] == depth and lo <= n[1] and n[2] <= hi]
        for before, after in pairwise(leaves):
            start = both.tree.range_at(before[2])[0]
            for end in (after[2], hi):
                again = both.copy()
                again.store(start, end, "spanning")
                mt_validate(again.tree)
                assert again.tree.range_at(end) == (start, end, "spanning")
                assert len(again.tree) == sum(r[2] is not None for r in again.ranges)
                tried += 1
    assert tried > 50


@pytest.mark.parametrize(
    ("first", "last"), [(1203, 2377), (0, 29995), (8, 29997), (0, 7705), (14995, 29994), (7, 20004)]
)
def test_long_gaps_in_a_large_tree(first, last):
    both = row(3000)
    before = both.tree.height
    both.store(first, last, None)
    both.check()
    assert both.tree.walk((first + last) // 2) is None and both.tree.height <= before
    both.search(0, 30010, 1000)
    both.store(first, last, "filled")
    both.check()
    assert both.tree.range_at(first) == (first, last, "filled")


def test_gaps_join_their_neighbours():
    both = row(100)
    slots = len(both.ranges)
    both.store(956, 963, None)  # a gap, and the front of an entry: the gap grows
    assert both.tree.range_at(960) == (956, 963, None) and len(both.ranges) == slots
    both.store(884, 887, None)  # the end of an entry, and part of a gap
    assert both.tree.range_at(889) == (884, 889, None) and len(both.ranges) == slots
    both.store(900, 905, None)  # exactly an entry: two gaps become one
    assert both.tree.range_at(903) == (896, 909, None) and len(both.ranges) == slots - 2
    both.store(810, 825, None)  # two entries and the gap between them
    assert both.tree.range_at(811) == (806, 829, None) and len(both.ranges) == slots - 6
    both.store(898, 905, None)  # inside a gap: nothing
    assert len(both.ranges) == slots - 6
    both.check()


# --- looking for gaps ---


def test_all_searches_in_a_small_space():
    both = Both()
    for first, last in ((3, 3), (6, 9), (12, 20), (21, 22), (25, 25), (32, 39), (41, 44)):
        both.store(first, last, first)
    for low in range(50):
        for high in range(low, 50):
            for size in range(1, min(high - low + 1, 10) + 1):
                both.search(low, high, size)


def test_searches_over_many_nodes():
    rng = random.Random(17)
    both, at = Both(), 0
    for i in range(400):
        at += rng.choice([0, 0, 1, 2, 3, 8])
        width = rng.randrange(1, 9)
        both.store(at, at + width - 1, i)
        at += width
    both.store(at + 40, ULONG_MAX, "end")
    both.check()
    for _ in range(3000):
        low = rng.randrange(at)
        both.search(low, min(low + rng.choice([9, 60, 700, at]), ULONG_MAX), rng.randrange(1, 10))
    both.search(0, ULONG_MAX, 40)
    assert both.tree.empty_area(0, ULONG_MAX, 41) == -EBUSY
    for low, high, size in ((5, 4, 1), (0, 9, 0), (0, 8, 10), (7, 7, 2)):
        assert both.tree.empty_area(low, high, size) == -EINVAL
        assert both.tree.empty_area_rev(low, high, size) == -EINVAL


def test_gaps_that_meet_at_the_edge_of_a_node():
    both = row(400, 1, 1)
    depth = both.tree.height
    for level in range(2, depth + 1):
        again = both.copy()
        for lo in [lo for d, lo, _ in edges(both.tree) if d == level][1:-1]:
            for size, indices in ((2, (lo - 1, lo)), (4, (lo + 1, lo - 2))):
                for index in indices:
                    again.erase(index)
                assert again.tree.empty_area(lo - 5, lo + 5, size) == lo - size // 2
                assert again.tree.empty_area_rev(lo - 5, lo + 5, size) == lo + size // 2 - 1
                assert again.tree.empty_area(lo - 5, lo + 5, size + 1) == -EBUSY
            for index in range(lo - 2, lo + 2):
                again.store(index, index, index)
        again.check()
        assert again.tree.empty_area(0, 399, 1) == -EBUSY


@pytest.mark.parametrize("rev", [False, True])
def test_a_window_is_filled_to_the_last_index(rev):
    """As mmap() does it: search, store, larger each time; then what was freed is found again."""
    search = mas_empty_area_rev if rev else mas_empty_area
    both = Both()
    low, high, used = 1000, 20999, 0
    for size in (1, 2, 4, 8, 16):
        for n in range(250):
            mas = MaState(both.tree)
            assert search(mas, low, high, size) == 0 and mas.last == mas.index + size - 1
            assert mas.index == (high + 1 - used - size if rev else low + used)
            both.store(mas.index, mas.last, (size, n))
            used += size
    both.check()
    left = high + 1 - low - used
    assert search(MaState(both.tree), low, high, left + 1) == -EBUSY
    mas = MaState(both.tree)
    assert search(mas, low, high, left) == 0
    both.store(mas.index, mas.last, "rest")
    assert search(MaState(both.tree), low, high, 1) == -EBUSY
    for index in (low, high, 5003, 5002, 12345):
        first, last, _ = both.tree.range_at(index)
        both.erase(index)
        mas = MaState(both.tree)
        assert search(mas, low, high, last - first + 1) == 0
        both.store(first, last, "again")
    both.check()


def test_a_search_that_begins_right_behind_a_gap():
    both = row(600, 10, 10)
    for lo in [lo for d, lo, _ in edges(both.tree) if d == both.tree.height][3:40:6]:
        both.erase(lo)
    for first, last, entry in both.ranges:
        if entry is None and last < ULONG_MAX:
            both.search(last + 1, 5999, 10)
            both.search(0, first, 1)
            both.search(first + 1, last, 9)
            both.search(first + 1, last, 5)


# --- going from place to place ---


def test_next_and_prev_keep_to_their_limits():
    both = row(120)
    for at in range(0, 1200, 3):
        nxt = -(-(at + 1) // 10) * 10 if at % 10 < 6 else at // 10 * 10 + 10
        for limit in (at, nxt - 1, nxt, nxt + 3, ULONG_MAX):
            mas = MaState(both.tree, at)
            here = mas_walk(mas)
            assert (here is None) is (at % 10 > 5)
            want = nxt // 10 if nxt <= limit and nxt < 1200 else None
            assert mas_next(mas, limit) == want
            if want is not None:
                assert (mas.index, mas.last) == (nxt, nxt + 5)
                assert mas_prev(mas, mas.index - 4) is None, "that is in the gap"
                assert mas_prev(mas) == (want - 1 if want else None)


def test_entries_are_erased_while_somebody_goes_over_them():
    for keep in (0, 2, 3):  # erase all, every second, every third
        both = row(250)
        mas, seen = MaState(both.tree), []
        while (entry := mas_find(mas)) is not None:
            seen.append(entry)
            if not keep or entry % keep:
                both.store(mas.index, mas.last, None)
            mas.index = mas.last + 1
        assert seen == list(range(250))
        both.check()
        assert list(both.tree) == [i for i in range(250) if keep and i % keep == 0]


def test_an_entry_is_changed_while_somebody_goes_over_it():
    def until(limit: int) -> tuple[Both, MaState]:
        both, mas = row(126, 10, 10), MaState(None)
        mas.tree = both.tree
        while mas_next(mas) != limit // 10:
            pass
        assert (mas.index, mas.last) == (limit // 10 * 10, limit // 10 * 10 + 9)
        return both, mas

    both, mas = until(920)  # its end becomes an entry of its own, and that is the place
    mas.index = 925
    mas_store(mas, "end")
    assert mas_next(mas) == 93 and mas_prev(mas) == "end" and mas_prev(mas) == 92
    assert (mas.index, mas.last) == (920, 924)
    both, mas = until(780)  # its front: the rest comes next
    mas.last = 785
    mas_store(mas, "front")
    assert mas_next(mas) == 78 and (mas.index, mas.last) == (786, 789)
    assert mas_prev(mas) == "front" and mas_prev(mas) == 77
    both, mas = until(500)  # it and the three behind it
    mas.last = 535
    mas_store(mas, "four")
    assert mas_next(mas) == 53 and (mas.index, mas.last) == (536, 539)
    mt_validate(both.tree)


# --- copies ---


@pytest.mark.parametrize("width", [1, 7, 10])
def test_copies_of_trees_of_every_size(width):
    both = Both()
    for i in range(330):
        if i % 13 == 0 or i in (15, 16, 17, 160, 161):
            copy = both.copy()
            copy.check()
            assert copy.tree.height == both.tree.height
            copy.store(i * 5, i * 10 + 3, "copy")
            copy.store(0, i * 3, None)
            copy.check()
            both.check()
        both.store(i * 10, i * 10 + width - 1, i)


def test_as_fork_does_it():
    """A copy whose entries are replaced in place, and then loses some of them."""
    both = row(200)
    copy = both.copy()
    for leaf in mt_leaves(copy.tree):
        leaf.slots[:] = [None if e is None else ("child", e) for e in leaf.slots]
    copy.ranges = [(f, t, None if e is None else ("child", e)) for f, t, e in copy.ranges]
    copy.check()
    both.check()
    for i in range(0, 200, 7):
        copy.store(i * 10, i * 10 + 5, None)
    copy.check()
    assert list(both.tree) == list(range(200))


# --- few indices, many calls: where fuzzers found the kernel's mistakes ---


@pytest.mark.parametrize("seed", range(12))
def test_random_calls_on_few_indices(seed):
    rng = random.Random(seed)
    pool = [*range(12), *rng.sample(range(12, 900), 40), *range(ULONG_MAX - 4, ULONG_MAX + 1)]
    both = Both()
    for n in range(350):
        index, other = rng.choice(pool), rng.choice(pool)
        what = rng.choice(["insert", "insert", "store", "store", "range", "erase", "erase", "gap"])
        if what == "insert" and both.tree.walk(index) is None:
            both.store(index, index, n)
        elif what == "store":
            both.store(index, index, n)
        elif what == "range" and abs(other - index) < rng.choice([10, 100, 1000, 1 << 64]):
            both.store(min(index, other), max(index, other), n)
        elif what == "erase":
            both.erase(index)
        elif what == "gap":
            both.store(index, min(index + rng.randrange(30), ULONG_MAX), None)
        if n % 5 == 0:
            both.check()
            both.search(rng.choice(pool[:30]), ULONG_MAX - rng.randrange(3), rng.randrange(1, 90))
    both.check()
