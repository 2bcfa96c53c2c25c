"""The intrusive list against a plain Python list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mmcore.lib import list as kl


class Entry(kl.ListHead):
    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        self.next = self.prev = None
        self.n = n


def values(head: kl.ListHead) -> list[int]:
    forward = [entry.n for entry in kl.list_for_each(head)]
    assert forward[::-1] == [entry.n for entry in kl.list_for_each_reverse(head)]
    assert kl.list_count_nodes(head) == len(forward)
    assert kl.list_empty(head) == (not forward)
    return forward


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add_tail", "del", "move", "move_tail", "splice"]),
        st.integers(0, 7),
    ),
    max_size=60,
)


@given(steps)
def test_same_order_as_a_python_list(script: list[tuple[str, int]]) -> None:
    a, b = kl.ListHead(), kl.ListHead()
    entries = [Entry(n) for n in range(8)]
    model: tuple[list[int], list[int]] = ([], [])
    for op, n in script:
        entry = entries[n]
        home = 0 if n in model[0] else 1 if n in model[1] else None
        if op == "splice":
            kl.list_splice_tail_init(a, b)
            model[1].extend(model[0])
            model[0].clear()
        elif home is None:
            if op == "add":
                kl.list_add(entry, a)
                model[0].insert(0, n)
            elif op == "add_tail":
                kl.list_add_tail(entry, a)
                model[0].append(n)
        else:
            if op == "del":
                kl.list_del(entry)
                model[home].remove(n)
                assert entry.next is None and entry.prev is None
            elif op == "move":
                kl.list_move(entry, b)
                model[home].remove(n)
                model[1].insert(0, n)
            elif op == "move_tail":
                kl.list_move_tail(entry, b)
                model[home].remove(n)
                model[1].append(n)
        assert values(a) == model[0] and values(b) == model[1]
    first = kl.list_first_entry_or_null(a)
    last = kl.list_last_entry_or_null(a)
    assert (first.n if first else None) == (model[0][0] if model[0] else None)
    assert (last.n if last else None) == (model[0][-1] if model[0] else None)


def test_entries_may_leave_while_being_walked() -> None:
    head = kl.ListHead()
    for n in range(5):
        kl.list_add_tail(Entry(n), head)
    for entry in kl.list_for_each(head):
        if entry.n % 2:
            kl.list_del(entry)
    assert values(head) == [0, 2, 4]
    kl.INIT_LIST_HEAD(head)
    assert values(head) == []
