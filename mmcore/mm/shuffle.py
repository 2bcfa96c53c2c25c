"""Shuffled free lists: harder to guess where the next allocation lands.

Mirrors mm/shuffle.c. Off unless ``page_alloc.shuffle=1`` is given (``machine.page_alloc_shuffle_key``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.cint import ALIGN, ALIGN_DOWN
from mmcore.mm.mm_types import Page
from mmcore.mm.mmzone import MAX_PAGE_ORDER, PgData, Zone, zone_end_pfn
from mmcore.mm.page_flags import PAGE_TYPE_BUDDY

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = [
    "SHUFFLE_ORDER",
    "SHUFFLE_RETRY",
    "is_shuffle_order",
    "shuffle_free_memory",
    "shuffle_pick_tail",
    "shuffle_zone",
]

SHUFFLE_ORDER = MAX_PAGE_ORDER
SHUFFLE_RETRY = 10


def is_shuffle_order(m: Machine, order: int) -> bool:
    """Tell whether freed blocks of @order go to a random end of their list.

    Mirrors mm/shuffle.h:is_shuffle_order().
    """
    return m.page_alloc_shuffle_key and order >= SHUFFLE_ORDER


def shuffle_pick_tail(m: Machine) -> bool:
    """Toss the coin: tail or head.

    Simplified: one bit of the machine's "shuffle" stream at a time; the kernel draws 64 at once.

    Mirrors mm/shuffle.c:shuffle_pick_tail().
    """
    return m.rng("shuffle").getrandbits(1) == 1


def shuffle_valid_page(zone: Zone, pfn: int, order: int) -> Page | None:
    """Return the free block of @order at @pfn, if there is one in the zone.

    Mirrors mm/shuffle.c:shuffle_valid_page().
    """
    page = zone.mem_map.get(pfn)
    if page is None or page.page_type != PAGE_TYPE_BUDDY or page.private != order:
        return None
    return page


def _list_swap(a: Page, b: Page) -> None:
    """Exchange the places of two entries in their lists.

    Mirrors include/linux/list.h:list_swap().
    """
    before = b.prev
    # list_del(b), list_replace(a, b)
    before.next, b.next.prev = b.next, before
    b.next, b.prev = a.next, a.prev
    b.next.prev = b.prev.next = b
    if before is a:
        before = b
    a.prev, a.next = before, before.next
    before.next.prev = a
    before.next = a


def __shuffle_zone(z: Zone) -> None:
    """Exchange each largest free block of the zone with a random other one.

    Mirrors mm/shuffle.c:__shuffle_zone().
    """
    rng = z.machine.rng("shuffle")
    order_pages = 1 << SHUFFLE_ORDER
    get_migratetype = z.pageblock_flags.__getitem__
    for i in range(ALIGN(z.zone_start_pfn, order_pages), zone_end_pfn(z), order_pages):
        page_i = shuffle_valid_page(z, i, SHUFFLE_ORDER)
        if page_i is None:
            continue
        for _ in range(SHUFFLE_RETRY):
            j = z.zone_start_pfn + ALIGN_DOWN(rng.getrandbits(64) % z.spanned_pages, order_pages)
            page_j = shuffle_valid_page(z, j, SHUFFLE_ORDER)
            if page_j is not None and page_j is not page_i:
                break
        else:
            continue
        if get_migratetype(i - z.pageblock_base >> 9) != get_migratetype(j - z.pageblock_base >> 9):
            continue
        _list_swap(page_i, page_j)


def shuffle_zone(z: Zone) -> None:
    """Shuffle the zone's free lists if shuffling is on.

    Mirrors mm/shuffle.h:shuffle_zone().
    """
    if z.machine.page_alloc_shuffle_key:
        __shuffle_zone(z)


def shuffle_free_memory(pgdat: PgData) -> None:
    """Shuffle the free lists of a node if shuffling is on.

    Mirrors mm/shuffle.h:shuffle_free_memory().
    """
    for z in pgdat.node_zones:
        shuffle_zone(z)
