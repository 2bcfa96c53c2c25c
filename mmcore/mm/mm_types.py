"""Pages and folios.

Mirrors include/linux/mm_types.h.

In the kernel ``struct page`` is 64 bytes of unions: the same words mean one thing while the page is
free, another while it is anonymous memory, a third in a slab. `Page` keeps those unions: two names
that share a word in the kernel share a slot here (``page_type`` and ``_mapcount``), and a page is on
at most one list because ``lru``, ``buddy_list`` and ``pcp_list`` are the same two words.

A `Page` is made when it is first allocated or becomes the head of a free block; the pages behind the
head of a free block, or behind the head of a folio, have no object until somebody asks for one with
`pfn_to_page()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmcore.errors import UsageError
from mmcore.lib.list import ListHead
from mmcore.mm.page_flags import (
    PAGE_TYPE_BUDDY,
    PG_head,
    flags_str,
    page_type_name,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.mmzone import Zone

__all__ = [
    "Folio",
    "LargeFolio",
    "Page",
    "PageHead",
    "PageTail",
    "compound_head",
    "compound_order",
    "folio_nr_pages",
    "folio_order",
    "page_folio",
    "page_to_pfn",
    "pfn_to_page",
]


class LargeFolio:
    """The words of a large folio that live in its tail pages 1 and 2.

    ``_folio_order`` stands for the low byte of ``_flags_1``. The counts start as the kernel starts
    them: map counts at -1, because the kernel tests the transition to and from "mapped" by sign.

    Mirrors include/linux/mm_types.h:folio.
    """

    __slots__ = (
        "_deferred_list",
        "_entire_mapcount",
        "_folio_nr_pages",
        "_folio_order",
        "_large_mapcount",
        "_nr_pages_mapped",
        "_pincount",
        "flags_1",
    )

    def __init__(self, order: int) -> None:
        self._folio_order = order
        self._folio_nr_pages = 1 << order
        self._large_mapcount = -1
        self._entire_mapcount = -1
        self._nr_pages_mapped = 0
        self._pincount = 0
        self._deferred_list = ListHead()
        self.flags_1 = 0


class Page(ListHead):
    """``struct page``: one page frame, named by its pfn.

    :ivar pfn: ``unsigned long``; page frame number, physical address / 4096
    :ivar zone: the zone it belongs to (in the kernel: bits of ``flags``)
    :ivar flags: the PG_ bits
    :ivar next: ``lru``/``buddy_list``/``pcp_list``; for a tail page, its head (``compound_head``)
    :ivar prev: the other link; None while the page is on no list
    :ivar mapping: ``struct address_space *`` or anon_vma, for page cache and anonymous pages
    :ivar index: offset within the mapping, in pages
    :ivar private: the order while the page heads a free block; else its owner's
    :ivar page_type: ``_mapcount`` and the page type share this word; -1 is "neither"
    :ivar _refcount: number of references; 0 while free
    :ivar memcg_data: the memory cgroup the page is charged to

    Mirrors include/linux/mm_types.h:page.
    """

    __slots__ = (
        "_refcount",
        "flags",
        "index",
        "mapping",
        "memcg_data",
        "page_type",
        "pfn",
        "private",
        "zone",
    )
    if TYPE_CHECKING:
        _mapcount: int  # the same slot as page_type; bound below

    def __init__(self, pfn: int, zone: Zone) -> None:
        self.next = self.prev = None
        self.pfn = pfn
        self.zone = zone
        self.flags = 0
        self._refcount = 0
        self.page_type = -1
        self.private: Any = 0
        self.mapping: Any = None
        self.index = 0
        self.memcg_data: Any = None

    @property
    def folio(self) -> LargeFolio | None:
        """The words in the tail pages, for the head of a large folio, else None.

        Few pages head a large folio, so these words have no slot of their own in every page.
        """
        return self.zone.large_folios.get(self.pfn)

    @folio.setter
    def folio(self, words: LargeFolio | None) -> None:
        if words is None:
            self.zone.large_folios.pop(self.pfn, None)
        else:
            self.zone.large_folios[self.pfn] = words

    def __repr__(self) -> str:
        kind = page_type_name(self.page_type)
        if kind == "buddy":
            kind = f"buddy order:{self.private}"
        elif PageTail(self):
            kind = f"tail of {self.next.pfn:#x}"
        elif self.folio is not None:
            kind = f"folio order:{self.folio._folio_order}"
        return (
            f"<page pfn:{self.pfn:#x} refcount:{self._refcount} mapcount:"
            f"{0 if self.page_type >= PAGE_TYPE_BUDDY else self.page_type + 1} "
            f"flags:{flags_str(self.flags)}{' ' + kind if kind else ''}>"
        )


# The union of struct page: both names are the same slot, so neither costs more than the other.
Page._mapcount = Page.page_type  # type: ignore[misc]

#: A folio is its head page seen as a whole: the same memory in the kernel, the same object here.
Folio = Page


def PageHead(page: Page) -> bool:
    """Tell whether @page is the head of a compound page.

    Mirrors include/linux/page-flags.h:PageHead().
    """
    return page.flags >> PG_head & 1 == 1


def PageTail(page: Page) -> bool:
    """Tell whether @page is a tail: its first link holds its head and it is on no list.

    Mirrors include/linux/page-flags.h:PageTail().
    """
    return page.prev is None and page.next is not None


def compound_head(page: Page) -> Page:
    """Return the head of the compound page that @page belongs to, or @page itself.

    Mirrors include/linux/page-flags.h:compound_head().
    """
    return page.next if page.prev is None and page.next is not None else page


def page_folio(page: Page) -> Folio:
    """Return the folio that contains @page.

    Mirrors include/linux/page-flags.h:page_folio().
    """
    return compound_head(page)


def folio_order(folio: Folio) -> int:
    """Return the order of @folio: it has 2**order pages.

    Mirrors include/linux/mm.h:folio_order().
    """
    return 0 if folio.folio is None else folio.folio._folio_order


def compound_order(page: Page) -> int:
    """Return the order of the compound page that @page heads, 0 if it heads none.

    Mirrors include/linux/mm.h:compound_order().
    """
    return folio_order(page)


def folio_nr_pages(folio: Folio) -> int:
    """Return the number of pages in @folio.

    Mirrors include/linux/mm.h:folio_nr_pages().
    """
    return 1 if folio.folio is None else folio.folio._folio_nr_pages


def page_to_pfn(page: Page) -> int:
    """Return the page frame number of @page.

    Mirrors include/asm-generic/memory_model.h:page_to_pfn().
    """
    return page.pfn


def _tail_of(zone: Zone, pfn: int) -> Page | None:
    """Return the head of the large folio or free block that covers @pfn, if there is one."""
    for order in range(1, 19):
        start = pfn & -(1 << order)
        head = zone.mem_map.get(start)
        if head is None or start == pfn:
            continue
        size = folio_order(head) if head.folio else 0
        if head.page_type == PAGE_TYPE_BUDDY:
            size = head.private
        if start + (1 << size) > pfn:
            return head
    return None


def pfn_to_page(m: Machine, pfn: int) -> Page:
    """Return the page with page frame number @pfn, making its object if there is none yet.

    :param pfn: ``unsigned long``
    :raises UsageError: if no zone spans @pfn

    Mirrors include/asm-generic/memory_model.h:pfn_to_page().
    """
    zone = m.pfn_zone(pfn)
    if zone is None:
        raise UsageError(f"pfn {pfn:#x} lies in no zone of this machine")
    page = zone.mem_map.get(pfn)
    if page is None:
        page = zone.mem_map[pfn] = Page(pfn, zone)
        head = _tail_of(zone, pfn)
        if head is not None and head.folio is not None:
            page.next = head
    return page
