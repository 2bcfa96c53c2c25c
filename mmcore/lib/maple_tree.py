"""The maple tree: a B-tree of ranges that also finds gaps.

Mirrors lib/maple_tree.c as address spaces use it: a tree of allocation ranges. Every index from 0 to
ULONG_MAX belongs to exactly one slot of one leaf: a slot holds an entry or, for a gap, NULL. A leaf has
16 slots and an inner node 10, as 256 bytes hold them; an inner node knows the largest gap below each
child, so that looking for a hole of a given size goes straight down.

Simplified: nodes are changed in place (the kernel copies them, so that readers need no lock), pivots
have no type bits, nodes split in halves and join as soon as they are less than half full. The shape may
therefore differ from the kernel's; what a lookup or a search answers may not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Generator, Iterator
from typing import Any, Generic, TypeVar

from mmcore.cint import ULONG_MAX
from mmcore.errors import EBUSY, EINVAL, KernelBug

__all__ = [
    "MAPLE_ARANGE64_SLOTS",
    "MAPLE_RANGE64_SLOTS",
    "MaState",
    "MapleNode",
    "MapleTree",
    "mas_empty_area",
    "mas_empty_area_rev",
    "mas_find",
    "mas_next",
    "mas_prev",
    "mas_store",
    "mas_walk",
    "mt_dup",
    "mt_leaves",
    "mt_search_path",
    "mt_validate",
]

MAPLE_RANGE64_SLOTS = 16
MAPLE_ARANGE64_SLOTS = 10
# mt_min_slots: fewer slots than this, and a node joins its neighbour.
_MIN_LEAF = MAPLE_RANGE64_SLOTS // 2 - 2
_MIN_NODE = MAPLE_ARANGE64_SLOTS // 2 - 1

T = TypeVar("T")


class MapleNode:
    """``struct maple_node``: a leaf (``maple_range_64``) or an inner node (``maple_arange_64``).

    :ivar pivots: the last index of each slot; the first is one above the pivot before
    :ivar slots: entries or None in a leaf, nodes in an inner node
    :ivar gaps: None in a leaf; the largest gap below each child in an inner node

    Mirrors include/linux/maple_tree.h:maple_node.
    """

    __slots__ = ("gaps", "pivots", "slots")

    def __init__(self, pivots: list[int], slots: list[Any], gaps: list[int] | None = None) -> None:
        self.pivots = pivots
        self.slots = slots
        self.gaps = gaps


def _max_gap(node: MapleNode, lo: int) -> int:
    """Return the largest gap in @node, whose first index is @lo (``mas_max_gap()``)."""
    if node.gaps is not None:
        return max(node.gaps)
    best = 0
    for pivot, entry in zip(node.pivots, node.slots, strict=True):
        if entry is None and pivot - lo >= best:
            best = pivot - lo + 1
        lo = pivot + 1
    return best


class MapleTree(Generic[T]):
    """``struct maple_tree``: what every index from 0 to ULONG_MAX is mapped to.

    Mirrors include/linux/maple_tree.h:maple_tree.
    """

    __slots__ = ("count", "root")

    def __init__(self) -> None:
        self.root = MapleNode([ULONG_MAX], [None])
        self.count = 0  # entries, each counted once per range it is stored at

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[T]:
        """Yield the entries in order; the tree may change meanwhile only behind the iterator."""
        stack = [self.root]
        while stack:
            node = stack.pop()
            if node.gaps is None:
                yield from [entry for entry in node.slots if entry is not None]
            else:
                stack.extend(reversed(node.slots))

    @property
    def height(self) -> int:
        """How many levels of nodes there are (``ma_height``)."""
        height, node = 1, self.root
        while node.gaps is not None:
            height, node = height + 1, node.slots[0]
        return height

    # --- looking up ---

    def range_at(self, index: int) -> tuple[int, int, T | None]:
        """Return (first, last, entry or None) of the slot that @index is in."""
        node, lo = self.root, 0
        while True:
            pivots = node.pivots
            i = bisect_left(pivots, index)
            if i:
                lo = pivots[i - 1] + 1
            if node.gaps is None:
                return lo, pivots[i], node.slots[i]
            node = node.slots[i]

    def walk(self, index: int) -> T | None:
        """Return the entry whose range holds @index, or None (``mtree_load()``)."""
        node = self.root
        while node.gaps is not None:
            node = node.slots[bisect_left(node.pivots, index)]
        entry: T | None = node.slots[bisect_left(node.pivots, index)]
        return entry

    def find(self, index: int, limit: int = ULONG_MAX) -> T | None:
        """Return the first entry at or above @index that begins at @limit or below, or None.

        Mirrors lib/maple_tree.c:mt_find().
        """
        while index <= limit:
            _, last, entry = self.range_at(index)
            if entry is not None:
                return entry
            index = last + 1
        return None

    def prev(self, index: int) -> T | None:
        """Return the last entry that begins below @index, or None.

        Mirrors lib/maple_tree.c:mt_prev().
        """
        while index > 0:
            first, _, entry = self.range_at(index - 1)
            if entry is not None:
                return entry
            index = first
        return None

    def range(self, start: int, end: int) -> list[T]:
        """Return the entries that overlap [@start, @end), in order."""
        found = []
        while start < end:
            _, last, entry = self.range_at(start)
            if entry is not None:
                found.append(entry)
            start = last + 1
        return found

    # --- changing ---

    def store(self, first: int, last: int, entry: T | None) -> None:
        """Map [@first, @last] to @entry, whatever was there; None makes a gap.

        Mirrors lib/maple_tree.c:mas_store().
        """
        if not 0 <= first <= last <= ULONG_MAX:
            raise KernelBug(f"a range from {first:#x} to {last:#x} cannot be stored")
        if entry is None:  # mas_wr_extend_null(): two gaps never touch
            first, last = self._extend_null(first, last)
        root = self.root
        self._write(root, 0, first, last, entry)
        limit = MAPLE_RANGE64_SLOTS if root.gaps is None else MAPLE_ARANGE64_SLOTS
        if len(root.slots) > limit:
            left, right = _halves(root)
            middle = left.pivots[-1]
            gaps = [_max_gap(left, 0), _max_gap(right, middle + 1)]
            self.root = MapleNode([middle, ULONG_MAX], [left, right], gaps)
        while self.root.gaps is not None and len(self.root.slots) == 1:
            self.root = self.root.slots[0]

    def _extend_null(self, first: int, last: int) -> tuple[int, int]:
        lo, _, entry = self.range_at(first)
        if entry is None:
            first = lo
        elif lo == first and first:
            lo, _, entry = self.range_at(first - 1)
            if entry is None:
                first = lo
        _, hi, entry = self.range_at(last)
        if entry is None:
            last = hi
        elif hi == last and last < ULONG_MAX:
            _, hi, entry = self.range_at(last + 1)
            if entry is None:
                last = hi
        return first, last

    def _write(self, node: MapleNode, lo: int, first: int, last: int, entry: T | None) -> None:
        """Store a range that lies inside @node; the caller looks at how full it is afterwards."""
        pivots, slots = node.pivots, node.slots
        i = bisect_left(pivots, first)
        j = bisect_left(pivots, last, i)
        base = lo
        if i:
            lo = pivots[i - 1] + 1
        if node.gaps is None:
            self._count(slots[i : j + 1], -1)
            new_pivots, new_slots = [last], [entry]
            if first > lo:
                new_pivots.insert(0, first - 1)
                new_slots.insert(0, slots[i])
            if last < pivots[j]:
                new_pivots.append(pivots[j])
                new_slots.append(slots[j])
            self._count(new_slots, 1)
            pivots[i : j + 1] = new_pivots
            slots[i : j + 1] = new_slots
            return
        if i == j:
            self._write(slots[i], lo, first, last, entry)
        else:
            self._tail(slots[i], lo, first, last, entry)
            keep = last < pivots[j]
            for child in slots[i + 1 : j + (not keep)]:
                self._drop(child)
            if keep:
                self._head(slots[j], last)
            end = j if keep else j + 1
            pivots[i] = last
            del pivots[i + 1 : end], slots[i + 1 : end], node.gaps[i + 1 : end]
            if keep:
                self._refit(node, i + 1, base)
        self._refit(node, i, base)

    def _count(self, entries: list[Any], sign: int) -> None:
        for entry in entries:
            if entry is not None:
                self.count += sign

    def _drop(self, node: MapleNode) -> None:
        """Forget the entries below @node."""
        if node.gaps is None:
            self._count(node.slots, -1)
        else:
            for child in node.slots:
                self._drop(child)

    def _tail(self, node: MapleNode, lo: int, first: int, last: int, entry: T | None) -> None:
        """Let @entry be the last slot of @node, from @first to @last, which may be a new maximum."""
        pivots, slots = node.pivots, node.slots
        i = bisect_left(pivots, first)
        base = lo
        if i:
            lo = pivots[i - 1] + 1
        if node.gaps is None:
            keep = i + 1 if first > lo else i
            self._count(slots[keep:], -1)
            del pivots[keep:], slots[keep:]
            if keep > i:
                pivots[i] = first - 1
            pivots.append(last)
            slots.append(entry)
            self._count([entry], 1)
            return
        for child in slots[i + 1 :]:
            self._drop(child)
        del pivots[i + 1 :], slots[i + 1 :], node.gaps[i + 1 :]
        self._tail(slots[i], lo, first, last, entry)
        pivots[i] = last
        self._refit(node, i, base)

    def _head(self, node: MapleNode, last: int) -> None:
        """Let @node begin above @last, which is below its maximum."""
        i = bisect_left(node.pivots, last + 1)
        if node.gaps is None:
            self._count(node.slots[:i], -1)
            del node.pivots[:i], node.slots[:i]
            return
        for child in node.slots[:i]:
            self._drop(child)
        del node.pivots[:i], node.slots[:i], node.gaps[:i]
        self._head(node.slots[0], last)
        self._refit(node, 0, last + 1)

    def _refit(self, node: MapleNode, i: int, base: int) -> None:
        """Split or join child @i of @node, which begins at @base, if it must be; note its gap."""
        child = node.slots[i]
        leaf = child.gaps is None
        size = len(child.slots)
        assert node.gaps is not None
        if size > (MAPLE_RANGE64_SLOTS if leaf else MAPLE_ARANGE64_SLOTS):
            self._split(node, i, base)
        elif size < (_MIN_LEAF if leaf else _MIN_NODE) and len(node.slots) > 1:
            self._join(node, i - 1 if i else 0, base)
        else:
            node.gaps[i] = _max_gap(child, node.pivots[i - 1] + 1 if i else base)

    def _split(self, node: MapleNode, i: int, base: int) -> None:
        left, right = _halves(node.slots[i])
        lo = node.pivots[i - 1] + 1 if i else base
        middle = left.pivots[-1]
        assert node.gaps is not None
        node.slots[i : i + 1] = [left, right]
        node.pivots.insert(i, middle)
        node.gaps[i : i + 1] = [_max_gap(left, lo), _max_gap(right, middle + 1)]

    def _join(self, node: MapleNode, i: int, base: int) -> None:
        """Join children @i and @i + 1; if that is too much for one node, share the slots."""
        left, right = node.slots[i], node.slots[i + 1]
        lo = node.pivots[i - 1] + 1 if i else base
        assert node.gaps is not None
        seam = len(left.slots)
        gaps = None if left.gaps is None else left.gaps + right.gaps
        both = MapleNode(left.pivots + right.pivots, left.slots + right.slots, gaps)
        node.slots[i : i + 2] = [both]
        del node.pivots[i], node.gaps[i]
        if gaps is not None:  # an only child could not be joined before
            for k in (seam, seam - 1):
                if k < len(both.slots):
                    self._refit(both, k, lo)
        if len(both.slots) > (MAPLE_RANGE64_SLOTS if gaps is None else MAPLE_ARANGE64_SLOTS):
            self._split(node, i, base)
        else:
            node.gaps[i] = _max_gap(both, lo)

    # --- gaps ---

    def empty_area(self, low: int, high: int, size: int) -> int:
        """Return the lowest address of a gap of @size inside [@low, @high], or -EBUSY.

        Mirrors lib/maple_tree.c:mas_empty_area().
        """
        if size < 1 or low > high or high - low < size - 1:
            return -EINVAL
        return self._search(self.root, 0, low, high, size, False)

    def empty_area_rev(self, low: int, high: int, size: int) -> int:
        """Return the last address of the highest gap of @size inside [@low, @high], or -EBUSY.

        Mirrors lib/maple_tree.c:mas_empty_area_rev().
        """
        if size < 1 or low > high or high - low < size - 1:
            return -EINVAL
        return self._search(self.root, 0, low, high, size, True)

    def _search(self, node: MapleNode, lo: int, low: int, high: int, size: int, rev: bool) -> int:
        """Look below @node: the children's gaps say where it is worth going."""
        pivots, gaps = node.pivots, node.gaps
        i = bisect_left(pivots, low)
        j = bisect_left(pivots, min(high, pivots[-1]), i)
        for k in range(j, i - 1, -1) if rev else range(i, j + 1):
            first = pivots[k - 1] + 1 if k else lo
            if gaps is not None:
                if gaps[k] >= size:
                    found = self._search(node.slots[k], first, low, high, size, rev)
                    if found >= 0:
                        return found
            elif node.slots[k] is None:
                first, last = max(first, low), min(pivots[k], high)
                if last - first >= size - 1:
                    return last if rev else first
        return -EBUSY


#: (node, slot, first index, last index, largest gap there, what is done)
SearchStep = tuple[MapleNode, int, int, int, int, str]


def _search_steps(
    node: MapleNode, lo: int, low: int, high: int, size: int, rev: bool
) -> Generator[SearchStep, None, bool]:
    i = bisect_left(node.pivots, low)
    j = bisect_left(node.pivots, min(high, node.pivots[-1]), i)
    for k in range(j, i - 1, -1) if rev else range(i, j + 1):
        first, last = node.pivots[k - 1] + 1 if k else lo, node.pivots[k]
        if node.gaps is not None:
            enough = node.gaps[k] >= size
            yield node, k, first, last, node.gaps[k], "down" if enough else "too small"
            if enough and (yield from _search_steps(node.slots[k], first, low, high, size, rev)):
                return True
        elif node.slots[k] is not None:
            yield node, k, first, last, 0, "taken"
        else:
            found = min(last, high) - max(first, low) >= size - 1
            gap = last - first + 1
            what = "found" if found else "clipped" if gap >= size else "too small"
            yield node, k, first, last, gap, what
            if found:
                return True
    return False


def mt_search_path(
    tree: MapleTree[Any], low: int, high: int, size: int, rev: bool = True
) -> Iterator[SearchStep]:
    """Yield how a gap of @size inside [@low, @high] is looked for, slot by slot.

    What is done at a slot is one of "down", "too small", "taken", "found", and "clipped": the gap is
    large enough, its part inside the limits is not.

    :param rev: from the top, as `mas_empty_area_rev()` does
    """
    yield from _search_steps(tree.root, 0, low, high, size, rev)


def _halves(node: MapleNode) -> tuple[MapleNode, MapleNode]:
    half = len(node.slots) // 2
    gaps = node.gaps
    return (
        MapleNode(node.pivots[:half], node.slots[:half], gaps if gaps is None else gaps[:half]),
        MapleNode(node.pivots[half:], node.slots[half:], gaps if gaps is None else gaps[half:]),
    )


def _copy_node(node: MapleNode) -> MapleNode:
    if node.gaps is None:
        return MapleNode(node.pivots[:], node.slots[:])
    return MapleNode(node.pivots[:], [_copy_node(c) for c in node.slots], node.gaps[:])


def mt_dup(tree: MapleTree[T]) -> MapleTree[T]:
    """Return a tree of the same shape with the same entries.

    Mirrors lib/maple_tree.c:__mt_dup().
    """
    new: MapleTree[T] = MapleTree()
    new.root = _copy_node(tree.root)
    new.count = tree.count
    return new


def mt_leaves(tree: MapleTree[T]) -> Iterator[MapleNode]:
    """Yield the leaves in order, for bulk stores over entries that stay where they are."""
    stack = [tree.root]
    while stack:
        node = stack.pop()
        if node.gaps is None:
            yield node
        else:
            stack.extend(reversed(node.slots))


class MaState:
    """``struct ma_state``: a place in a tree.

    :ivar index: first index of the place, or where to look next
    :ivar last: last index of the place

    Mirrors include/linux/maple_tree.h:ma_state.
    """

    __slots__ = ("index", "last", "tree")

    def __init__(self, tree: MapleTree[Any], index: int = 0, last: int | None = None) -> None:
        self.tree = tree
        self.index = index
        self.last = index if last is None else last


def mas_walk(mas: MaState) -> Any:
    """Go to the slot that holds ``mas.index``; return its entry, or None.

    Mirrors lib/maple_tree.c:mas_walk().
    """
    mas.index, mas.last, entry = mas.tree.range_at(mas.index)
    return entry


def mas_next(mas: MaState, limit: int = ULONG_MAX) -> Any:
    """Go to the next entry above the place, up to @limit; None if there is none.

    Mirrors lib/maple_tree.c:mas_next().
    """
    index = mas.last + 1
    while index <= limit:
        first, last, entry = mas.tree.range_at(index)
        if entry is not None:
            mas.index, mas.last = first, last
            return entry
        index = last + 1
    return None


def mas_find(mas: MaState, limit: int = ULONG_MAX) -> Any:
    """Go to the first entry at or above ``mas.index``, up to @limit; None if there is none.

    Mirrors lib/maple_tree.c:mas_find().
    """
    if mas.index <= limit:
        entry = mas_walk(mas)
        if entry is not None:
            return entry
    return mas_next(mas, limit)


def mas_prev(mas: MaState, limit: int = 0) -> Any:
    """Go to the last entry below the place, down to @limit; None if there is none.

    Mirrors lib/maple_tree.c:mas_prev().
    """
    index = mas.index - 1
    while index >= limit:
        first, last, entry = mas.tree.range_at(index)
        if entry is not None:
            mas.index, mas.last = first, last
            return entry
        index = first - 1
    return None


def mas_store(mas: MaState, entry: Any) -> None:
    """Store @entry at [``mas.index``, ``mas.last``]."""
    mas.tree.store(mas.index, mas.last, entry)


def mas_empty_area(mas: MaState, low: int, high: int, size: int) -> int:
    """Go to the lowest gap of @size inside [@low, @high]: 0, -EBUSY or -EINVAL.

    The place is the first @size indices of the gap.
    """
    found = mas.tree.empty_area(low, high, size)
    if found < 0:
        return found
    mas.index, mas.last = found, found + size - 1
    return 0


def mas_empty_area_rev(mas: MaState, low: int, high: int, size: int) -> int:
    """Go to the highest gap of @size inside [@low, @high]: 0, -EBUSY or -EINVAL.

    The place is the last @size indices of the gap.
    """
    found = mas.tree.empty_area_rev(low, high, size)
    if found < 0:
        return found
    mas.index, mas.last = found - size + 1, found
    return 0


def _check_node(node: MapleNode, lo: int, hi: int, depth: int, depths: list[int]) -> int:
    """Check one node and what is below it; return how many entries it has."""
    limit = MAPLE_RANGE64_SLOTS if node.gaps is None else MAPLE_ARANGE64_SLOTS
    if not 1 <= len(node.slots) <= limit or len(node.slots) != len(node.pivots):
        raise KernelBug(f"a node at depth {depth} has {len(node.slots)} slots")
    if node.pivots[-1] != hi:
        raise KernelBug(f"a node ends at {node.pivots[-1]:#x}, its parent says {hi:#x}")
    count = 0
    for i, (pivot, slot) in enumerate(zip(node.pivots, node.slots, strict=True)):
        if pivot < lo:
            raise KernelBug(f"slot {i} from {lo:#x} to {pivot:#x} is empty or out of order")
        if node.gaps is not None:
            count += _check_node(slot, lo, pivot, depth + 1, depths)
            if node.gaps[i] != _max_gap(slot, lo):
                raise KernelBug(f"the largest gap below {lo:#x} is not {node.gaps[i]:#x}")
        elif slot is not None:
            count += 1
        lo = pivot + 1
    if node.gaps is None:
        depths.append(depth)
    return count


def mt_validate(tree: MapleTree[Any]) -> None:
    """Check pivots, gaps, fill and depth of every node.

    :raises KernelBug: naming what is wrong

    Mirrors lib/maple_tree.c:mt_validate().
    """
    depths: list[int] = []
    count = _check_node(tree.root, 0, ULONG_MAX, 1, depths)
    if min(depths) != max(depths):
        raise KernelBug(f"leaves at depths {min(depths)} to {max(depths)}")
    if count != tree.count:
        raise KernelBug(f"the tree has {count} entries and counts {tree.count}")
    hole = False
    for leaf in mt_leaves(tree):
        for entry in leaf.slots:
            if entry is None and hole:
                raise KernelBug("two gaps touch")
            hole = entry is None
