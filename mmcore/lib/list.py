"""The kernel's doubly linked list: circular, intrusive, with its head as a sentinel.

An entry *is* a `ListHead` (`Page` inherits from it), so that an entry can leave its list without
anybody searching for it, and so that the order of a list is exactly the kernel's. `list_add()` puts
an entry at the head, `list_add_tail()` at the tail; which of the two the kernel calls is behaviour.

Mirrors include/linux/list.h.
Simplified: a deleted entry points to nothing instead of LIST_POISON1 and LIST_POISON2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = [
    "INIT_LIST_HEAD",
    "ListHead",
    "list_add",
    "list_add_tail",
    "list_count_nodes",
    "list_del",
    "list_empty",
    "list_first_entry_or_null",
    "list_for_each",
    "list_for_each_reverse",
    "list_last_entry_or_null",
    "list_move",
    "list_move_tail",
    "list_splice_tail_init",
]


class ListHead:
    """``struct list_head``: two links. A new one is an empty list.

    The links are typed Any because an entry is whatever class inherits from this one.
    """

    __slots__ = ("next", "prev")
    next: Any
    prev: Any

    def __init__(self) -> None:
        self.next = self.prev = self

    def __iter__(self) -> Iterator[Any]:
        return list_for_each(self)

    def __bool__(self) -> bool:
        return True


def INIT_LIST_HEAD(head: ListHead) -> None:
    """Make @head an empty list.

    Mirrors include/linux/list.h:INIT_LIST_HEAD().
    """
    head.next = head.prev = head


def list_add(new: ListHead, head: ListHead) -> None:
    """Put @new at the head of the list.

    Mirrors include/linux/list.h:list_add().
    """
    first = head.next
    new.next = first
    new.prev = head
    first.prev = head.next = new


def list_add_tail(new: ListHead, head: ListHead) -> None:
    """Put @new at the tail of the list.

    Mirrors include/linux/list.h:list_add_tail().
    """
    last = head.prev
    new.next = head
    new.prev = last
    last.next = head.prev = new


def list_del(entry: ListHead) -> None:
    """Take @entry off its list.

    Mirrors include/linux/list.h:list_del().
    """
    nxt, prv = entry.next, entry.prev
    prv.next = nxt
    nxt.prev = prv
    entry.next = entry.prev = None


def list_move(entry: ListHead, head: ListHead) -> None:
    """Take @entry off its list and put it at the head of another.

    Mirrors include/linux/list.h:list_move().
    """
    list_del(entry)
    list_add(entry, head)


def list_move_tail(entry: ListHead, head: ListHead) -> None:
    """Take @entry off its list and put it at the tail of another.

    Mirrors include/linux/list.h:list_move_tail().
    """
    list_del(entry)
    list_add_tail(entry, head)


def list_empty(head: ListHead) -> bool:
    """Tell whether the list has no entry.

    Mirrors include/linux/list.h:list_empty().
    """
    return head.next is head


def list_first_entry_or_null(head: ListHead) -> Any:
    """Return the entry at the head, or None.

    Mirrors include/linux/list.h:list_first_entry_or_null().
    """
    first = head.next
    return None if first is head else first


def list_last_entry_or_null(head: ListHead) -> Any:
    """Return the entry at the tail, or None.

    Mirrors include/linux/list.h:list_last_entry().
    """
    last = head.prev
    return None if last is head else last


def list_for_each(head: ListHead) -> Iterator[Any]:
    """Yield the entries from head to tail; the entry last yielded may be taken off meanwhile.

    Mirrors include/linux/list.h:list_for_each_safe().
    """
    entry = head.next
    while entry is not head:
        following = entry.next
        yield entry
        entry = following


def list_for_each_reverse(head: ListHead) -> Iterator[Any]:
    """Yield the entries from tail to head; the entry last yielded may be taken off meanwhile.

    Mirrors include/linux/list.h:list_for_each_prev_safe().
    """
    entry = head.prev
    while entry is not head:
        following = entry.prev
        yield entry
        entry = following


def list_count_nodes(head: ListHead) -> int:
    """Return the number of entries, by walking the list.

    Mirrors include/linux/list.h:list_count_nodes().
    """
    n = 0
    entry = head.next
    while entry is not head:
        n += 1
        entry = entry.next
    return n


def list_splice_tail_init(src: ListHead, head: ListHead) -> None:
    """Append all entries of @src to the list @head and leave @src empty.

    Mirrors include/linux/list.h:list_splice_tail_init().
    """
    if src.next is src:
        return
    first, last, tail = src.next, src.prev, head.prev
    tail.next, first.prev = first, tail
    last.next, head.prev = head, last
    src.next = src.prev = src
