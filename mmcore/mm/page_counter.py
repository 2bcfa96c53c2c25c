"""Page counters: usage, limits and protection of a tree, in pages.

Mirrors mm/page_counter.c and include/linux/page_counter.h.

A counter charges itself and every ancestor; each level has its own limit. Two things make a charge
more than an addition. A failed one is rolled back, but the highest usage ever seen stays. And each
counter keeps the sum of what its children use *within* their protection up to date, so that reclaim
can divide protection among siblings without visiting them.

Simplified: one charge ends before the next begins, so the limit is never missed by a race, and
`page_counter_set_max()` needs no second attempt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmcore.cint import ULONG_MAX, u64
from mmcore.config import PAGE_SIZE
from mmcore.errors import EBUSY, EINVAL, KernelBug, UsageError
from mmcore.lib.cmdline import memparse

__all__ = [
    "PAGE_COUNTER_MAX",
    "PageCounter",
    "effective_protection",
    "page_counter_calculate_protection",
    "page_counter_cancel",
    "page_counter_charge",
    "page_counter_init",
    "page_counter_memparse",
    "page_counter_read",
    "page_counter_reset_watermark",
    "page_counter_set_high",
    "page_counter_set_low",
    "page_counter_set_max",
    "page_counter_set_min",
    "page_counter_try_charge",
    "page_counter_uncharge",
    "propagate_protected_usage",
    "track_protection",
    "validate_page_counter",
]

LONG_MAX = (1 << 63) - 1
#: What a limit of "max" is: more pages than an address can name.
PAGE_COUNTER_MAX = LONG_MAX // PAGE_SIZE


@dataclass(slots=True, eq=False)
class PageCounter:
    """``struct page_counter``: one level of a tree of counters; everything in pages.

    :ivar usage: pages charged to it and to all below it
    :ivar emin: effective minimum, as reclaim last calculated it
    :ivar min_usage: its usage within ``min``, as its parent knows it
    :ivar children_min_usage: sum of the children's ``min_usage``
    :ivar watermark: highest usage since the start or a reset
    :ivar local_watermark: highest usage since somebody wrote to a peak file
    :ivar failcnt: charges that hit its limit
    :ivar protection_support: keep the sums for ``min`` and ``low``
    :ivar container: what the counter is part of (container_of() in the kernel)

    ``high`` starts at 0, which would throttle everything: whoever makes a counter sets it.

    Mirrors include/linux/page_counter.h:page_counter.
    """

    parent: PageCounter | None = field(default=None, repr=False)
    protection_support: bool = False
    usage: int = 0
    emin: int = 0
    min_usage: int = 0
    children_min_usage: int = 0
    elow: int = 0
    low_usage: int = 0
    children_low_usage: int = 0
    watermark: int = 0
    local_watermark: int = 0
    failcnt: int = 0
    min: int = 0
    low: int = 0
    high: int = 0
    max: int = PAGE_COUNTER_MAX
    container: Any = field(default=None, repr=False)


def check_setting(name: str, nr_pages: int) -> None:
    """Refuse a limit that no ``unsigned long`` number of pages is.

    :raises UsageError: saying what is allowed
    """
    if type(nr_pages) is not int or not 0 <= nr_pages <= ULONG_MAX:
        raise UsageError(f"{name} is {nr_pages!r}; a limit is 0 to {PAGE_COUNTER_MAX} pages")


def page_counter_init(
    counter: PageCounter, parent: PageCounter | None, protection_support: bool
) -> None:
    """Set up a counter below @parent; its other fields stay as they are.

    Mirrors include/linux/page_counter.h:page_counter_init().
    """
    counter.usage = 0
    counter.max = PAGE_COUNTER_MAX
    counter.parent = parent
    counter.protection_support = protection_support


def page_counter_read(counter: PageCounter) -> int:
    """Return the pages charged to the counter and to all below it.

    Mirrors include/linux/page_counter.h:page_counter_read().
    """
    return counter.usage


def track_protection(c: PageCounter) -> bool:
    """Tell whether the counter keeps sums for protection.

    Mirrors mm/page_counter.c:track_protection().
    """
    return c.protection_support


def propagate_protected_usage(c: PageCounter, usage: int) -> None:
    """Tell the parent how much of @usage lies within the counter's ``min`` and ``low``.

    Mirrors mm/page_counter.c:propagate_protected_usage().
    """
    parent = c.parent
    if parent is None:
        return
    protected = c.min if c.min < usage else usage
    if protected != c.min_usage:
        parent.children_min_usage += protected - c.min_usage
        c.min_usage = protected
    protected = c.low if c.low < usage else usage
    if protected != c.low_usage:
        parent.children_low_usage += protected - c.low_usage
        c.low_usage = protected


def page_counter_cancel(counter: PageCounter, nr_pages: int) -> None:
    """Take pages out of this counter alone.

    :param nr_pages: ``unsigned long``
    :raises KernelBug: if it has fewer; it then counts 0, as after the kernel's warning

    Mirrors mm/page_counter.c:page_counter_cancel().
    """
    new = counter.usage - nr_pages
    underflow = new < 0
    counter.usage = 0 if underflow else new
    if counter.protection_support:
        propagate_protected_usage(counter, counter.usage)
    if underflow:
        raise KernelBug(f"page_counter underflow: {new} nr_pages={nr_pages}")


def page_counter_charge(counter: PageCounter, nr_pages: int) -> None:
    """Charge pages to the counter and its ancestors, whatever their limits are.

    :param nr_pages: ``unsigned long``

    Mirrors mm/page_counter.c:page_counter_charge().
    """
    if nr_pages < 0:
        raise UsageError(f"nr_pages is {nr_pages}; a charge has 0 or more pages")
    protection = track_protection(counter)
    c: PageCounter | None = counter
    while c is not None:
        new = c.usage = c.usage + nr_pages
        if protection:
            propagate_protected_usage(c, new)
        if new > c.local_watermark:
            c.local_watermark = new
            if new > c.watermark:
                c.watermark = new
        c = c.parent


def page_counter_try_charge(counter: PageCounter, nr_pages: int, fail: list[PageCounter]) -> bool:
    """Charge pages to the counter and its ancestors, unless one would exceed its limit.

    :param nr_pages: ``unsigned long``
    :param fail: gets the first counter that is in the way as its only item
    :return: ``bool``: whether they are charged; if not, nothing is

    Mirrors mm/page_counter.c:page_counter_try_charge().
    """
    if nr_pages < 0:
        raise UsageError(f"nr_pages is {nr_pages}; a charge has 0 or more pages")
    protection = track_protection(counter)
    c: PageCounter | None = counter
    while c is not None:
        new = c.usage + nr_pages
        if new > c.max:
            c.failcnt += 1
            fail[:] = [c]
            break
        c.usage = new
        if protection:
            propagate_protected_usage(c, new)
        if new > c.local_watermark:
            c.local_watermark = new
            if new > c.watermark:
                c.watermark = new
        c = c.parent
    else:
        return True
    charged = counter
    while charged is not c:
        page_counter_cancel(charged, nr_pages)
        assert charged.parent is not None
        charged = charged.parent
    return False


def page_counter_uncharge(counter: PageCounter, nr_pages: int) -> None:
    """Take pages out of the counter and its ancestors.

    :param nr_pages: ``unsigned long``
    :raises KernelBug: if one has fewer; every level is done first, as in the kernel

    Mirrors mm/page_counter.c:page_counter_uncharge().
    """
    bug: KernelBug | None = None
    c: PageCounter | None = counter
    while c is not None:
        try:
            page_counter_cancel(c, nr_pages)
        except KernelBug as err:
            bug = bug or err
        c = c.parent
    if bug is not None:
        raise bug


def page_counter_set_max(counter: PageCounter, nr_pages: int) -> int:
    """Set the limit, unless the counter already holds more.

    :param nr_pages: ``unsigned long``
    :return: 0 or -EBUSY

    Mirrors mm/page_counter.c:page_counter_set_max().
    """
    check_setting("max", nr_pages)
    if counter.usage > nr_pages:
        return -EBUSY
    counter.max = nr_pages
    return 0


def page_counter_set_min(counter: PageCounter, nr_pages: int) -> None:
    """Set the amount that reclaim never takes.

    :param nr_pages: ``unsigned long``

    Mirrors mm/page_counter.c:page_counter_set_min().
    """
    check_setting("min", nr_pages)
    counter.min = nr_pages
    c: PageCounter | None = counter
    while c is not None:
        propagate_protected_usage(c, c.usage)
        c = c.parent


def page_counter_set_low(counter: PageCounter, nr_pages: int) -> None:
    """Set the amount that reclaim takes last.

    :param nr_pages: ``unsigned long``

    Mirrors mm/page_counter.c:page_counter_set_low().
    """
    check_setting("low", nr_pages)
    counter.low = nr_pages
    c: PageCounter | None = counter
    while c is not None:
        propagate_protected_usage(c, c.usage)
        c = c.parent


def page_counter_set_high(counter: PageCounter, nr_pages: int) -> None:
    """Set the amount above which tasks are slowed down.

    :param nr_pages: ``unsigned long``

    Mirrors include/linux/page_counter.h:page_counter_set_high().
    """
    check_setting("high", nr_pages)
    counter.high = nr_pages


def page_counter_reset_watermark(counter: PageCounter) -> None:
    """Start both watermarks again at the present usage.

    Mirrors include/linux/page_counter.h:page_counter_reset_watermark().
    """
    counter.local_watermark = counter.watermark = counter.usage


def page_counter_memparse(buf: str, max: str = "max") -> tuple[int, int]:
    """Read a limit in bytes, with an optional suffix, and round it down to pages.

    An empty text is 0, and so is a suffix without a number.

    :param buf: ``const char *``
    :param max: the word for "no limit"
    :return: (0 or -EINVAL, ``unsigned long`` pages, at most `PAGE_COUNTER_MAX`)

    Mirrors mm/page_counter.c:page_counter_memparse().
    """
    if buf == max:
        return 0, PAGE_COUNTER_MAX
    size, end = memparse(buf)
    if end:
        return -EINVAL, 0
    return 0, min(size // PAGE_SIZE, PAGE_COUNTER_MAX)


def effective_protection(
    usage: int,
    parent_usage: int,
    setting: int,
    parent_effective: int,
    siblings_protected: int,
    recursive_protection: bool,
) -> int:
    """Return how much of a group's usage is protected, given what its parent can pass on.

    When all siblings together use more protection than the parent has, each gets its part of the
    parent's. Otherwise each gets what it uses of its own setting, and, with memory_recursiveprot,
    what nobody claimed is divided by unprotected usage.

    The products are ``unsigned long`` and lose their top bits: with a parent protected by "max" and
    a child of 32 MiB or more, what the child gets of the unclaimed part is what is left of them.

    :return: ``unsigned long`` pages

    Mirrors mm/page_counter.c:effective_protection().
    """
    protected = min(usage, setting)
    if siblings_protected > parent_effective:
        return u64(protected * parent_effective) // siblings_protected
    ep = protected
    if not recursive_protection:
        return ep
    if (
        parent_effective > siblings_protected
        and parent_usage > siblings_protected
        and usage > protected
    ):
        unclaimed = u64((parent_effective - siblings_protected) * (usage - protected))
        ep += unclaimed // (parent_usage - siblings_protected)
    return u64(ep)


def page_counter_calculate_protection(
    root: PageCounter, counter: PageCounter, recursive_protection: bool
) -> None:
    """Set ``emin`` and ``elow`` of a counter below @root, which is what reclaim works on.

    It uses the parent's effective values, so a tree is calculated from the top down; @root itself
    and a counter without pages keep what they have.

    Mirrors mm/page_counter.c:page_counter_calculate_protection().
    """
    parent = counter.parent
    if root is counter:
        return
    usage = counter.usage
    if not usage:
        return
    if parent is None:
        raise UsageError("the counter is not below the root that was given")
    if parent is root:
        counter.emin = counter.min
        counter.elow = counter.low
        return
    counter.emin = effective_protection(
        usage,
        parent.usage,
        counter.min,
        parent.emin,
        parent.children_min_usage,
        recursive_protection,
    )
    counter.elow = effective_protection(
        usage,
        parent.usage,
        counter.low,
        parent.elow,
        parent.children_low_usage,
        recursive_protection,
    )


def validate_page_counter(counter: PageCounter, children: list[PageCounter]) -> None:
    """Check one level: sums of the children, watermarks, nothing below 0.

    :raises KernelBug: naming what does not add up
    """
    held = sum(child.usage for child in children)
    if counter.usage < 0 or held > counter.usage:
        raise KernelBug(f"usage {counter.usage}, children {held}")
    if not counter.usage <= counter.local_watermark <= counter.watermark:
        raise KernelBug(
            f"usage {counter.usage}, watermarks {counter.local_watermark}, {counter.watermark}"
        )
    if not counter.protection_support:
        return
    for child in children:
        wanted = (min(child.usage, child.min), min(child.usage, child.low))
        if (child.min_usage, child.low_usage) != wanted:
            raise KernelBug(f"protected usage {child.min_usage}, {child.low_usage}, not {wanted}")
    sums = (sum(c.min_usage for c in children), sum(c.low_usage for c in children))
    if (counter.children_min_usage, counter.children_low_usage) != sums:
        raise KernelBug(
            f"children_min_usage {counter.children_min_usage}, children_low_usage "
            f"{counter.children_low_usage}; the children have {sums}"
        )
