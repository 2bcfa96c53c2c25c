"""Taking pageblocks out of circulation, before their memory is claimed as a whole or removed.

Mirrors mm/page_isolation.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.cint import ALIGN, ALIGN_DOWN
from mmcore.errors import EBUSY
from mmcore.mm import page_alloc
from mmcore.mm.internal import __PageMovable, find_buddy_page_pfn
from mmcore.mm.mm_types import Page, compound_head, folio_nr_pages, pfn_to_page
from mmcore.mm.mmzone import (
    MAX_ORDER_NR_PAGES,
    MAX_PAGE_ORDER,
    MIGRATE_ISOLATE,
    ZONE_MOVABLE,
    Zone,
    pageblock_end_pfn,
    pageblock_nr_pages,
    pageblock_order,
    pageblock_start_pfn,
)
from mmcore.mm.page_flags import PAGE_TYPE_BUDDY, PG_hwpoison, PG_lru, PG_reserved, PGTY_offline

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = [
    "MEMORY_OFFLINE",
    "REPORT_FAILURE",
    "has_isolate_pageblock",
    "has_unmovable_pages",
    "is_migrate_isolate_page",
    "isolate_single_pageblock",
    "set_migratetype_isolate",
    "start_isolate_page_range",
    "test_pages_isolated",
    "undo_isolate_page_range",
    "unset_migratetype_isolate",
]

MEMORY_OFFLINE = 0x1
REPORT_FAILURE = 0x2


def has_isolate_pageblock(zone: Zone) -> bool:
    """Tell whether any pageblock of the zone is isolated.

    Mirrors include/linux/page-isolation.h:has_isolate_pageblock().
    """
    return zone.nr_isolate_pageblock != 0


def is_migrate_isolate_page(page: Page) -> bool:
    """Tell whether the pageblock of @page is isolated.

    Mirrors include/linux/page-isolation.h:is_migrate_isolate_page().
    """
    return page_alloc.get_pageblock_migratetype(page) == MIGRATE_ISOLATE


def _online_page(m: Machine, pfn: int) -> Page | None:
    """Return the page at @pfn if some zone spans it: pfn_to_online_page()."""
    return None if m.pfn_zone(pfn) is None else pfn_to_page(m, pfn)


def has_unmovable_pages(
    m: Machine, start_pfn: int, end_pfn: int, migratetype: int, flags: int
) -> Page | None:
    """Return the first page of a part of one pageblock that could not be moved away, or None.

    A pfn that no zone spans counts as reserved, which is what the kernel makes of such a hole.

    Simplified: huge pages of hugetlbfs count like other folios.

    Mirrors mm/page_isolation.c:has_unmovable_pages().
    """
    pfn = start_pfn
    while pfn < end_pfn:
        if m.pfn_zone(pfn) is None:
            return pfn_to_page(m, start_pfn)
        page = pfn_to_page(m, pfn)
        pfn += 1
        if page.flags >> PG_reserved & 1:
            return page
        if page.zone.zone_idx == ZONE_MOVABLE:
            continue
        folio = compound_head(page)
        if folio.folio is not None:
            if not folio.flags >> PG_lru & 1 and not __PageMovable(folio):
                return page
            pfn = folio.pfn + folio_nr_pages(folio)
            continue
        if not page._refcount:
            if page.page_type == PAGE_TYPE_BUDDY:
                pfn = page.pfn + (1 << page.private)
            continue
        if flags & MEMORY_OFFLINE and (
            page.flags >> PG_hwpoison & 1 or page.page_type >> 24 == PGTY_offline
        ):
            continue
        if __PageMovable(page) or page.flags >> PG_lru & 1:
            continue
        return page
    return None


def set_migratetype_isolate(
    page: Page, migratetype: int, isol_flags: int, start_pfn: int, end_pfn: int
) -> int:
    """Isolate the pageblock of @page if nothing unmovable lies in [@start_pfn, @end_pfn) of it.

    :return: ``int``, 0 or -EBUSY

    Mirrors mm/page_isolation.c:set_migratetype_isolate().
    """
    zone = page.zone
    if is_migrate_isolate_page(page):
        return -EBUSY
    check_start = max(page.pfn, start_pfn)
    check_end = min(pageblock_end_pfn(page.pfn), end_pfn)
    unmovable = has_unmovable_pages(zone.machine, check_start, check_end, migratetype, isol_flags)
    if unmovable is not None:
        if isol_flags & REPORT_FAILURE:
            zone.machine.dmesg.append(f"page dumped because: unmovable page: {unmovable!r}")
        return -EBUSY
    if not page_alloc.move_freepages_block_isolate(zone, page, MIGRATE_ISOLATE):
        return -EBUSY
    zone.nr_isolate_pageblock += 1
    return 0


def unset_migratetype_isolate(page: Page, migratetype: int) -> None:
    """Give an isolated pageblock a type again; a free block may merge with its neighbour now.

    Mirrors mm/page_isolation.c:unset_migratetype_isolate().
    """
    zone = page.zone
    if not is_migrate_isolate_page(page):
        return
    isolated_page = False
    order = 0
    if page.page_type == PAGE_TYPE_BUDDY:
        order = page.private
        if pageblock_order <= order < MAX_PAGE_ORDER:
            buddy = find_buddy_page_pfn(zone, page.pfn, order)
            if buddy is not None and not is_migrate_isolate_page(buddy):
                isolated_page = page_alloc.__isolate_free_page(page, order) != 0
    if not isolated_page:
        page_alloc.move_freepages_block_isolate(zone, page, migratetype)
    else:
        page_alloc.set_pageblock_migratetype(page, migratetype)
        page_alloc.__putback_isolated_page(page, order, migratetype)
    zone.nr_isolate_pageblock -= 1


def __first_valid_page(m: Machine, pfn: int, nr_pages: int) -> Page | None:
    """Return the first page of the range that exists.

    Mirrors mm/page_isolation.c:__first_valid_page().
    """
    for i in range(nr_pages):
        page = _online_page(m, pfn + i)
        if page is not None:
            return page
    return None


def _straddling_folio(m: Machine, start_pfn: int, boundary_pfn: int) -> bool:
    """Tell whether a folio in [@start_pfn, @boundary_pfn) reaches across @boundary_pfn."""
    pfn = start_pfn
    while pfn < boundary_pfn:
        page = __first_valid_page(m, pfn, boundary_pfn - pfn)
        if page is None:
            return False
        pfn = page.pfn
        if page.page_type == PAGE_TYPE_BUDDY:
            pfn += 1 << page.private
            continue
        head = compound_head(page)
        if head.folio is not None:
            end = head.pfn + folio_nr_pages(head)
            if end > boundary_pfn:
                return True
            pfn = end
            continue
        pfn += 1
    return False


def isolate_single_pageblock(
    m: Machine,
    boundary_pfn: int,
    flags: int,
    gfp_flags: int,
    isolate_before: bool,
    skip_isolation: bool,
    migratetype: int,
) -> int:
    """Isolate the pageblock before or after a boundary that a block may reach across.

    :return: ``int``, 0 or -EBUSY

    Mirrors mm/page_isolation.c:isolate_single_pageblock().
    """
    block_pfn = boundary_pfn - pageblock_nr_pages if isolate_before else boundary_pfn
    if m.pfn_zone(block_pfn) is None:
        return -EBUSY  # a hole: its pages are reserved
    block = pfn_to_page(m, block_pfn)
    start_pfn = max(ALIGN_DOWN(block_pfn, MAX_ORDER_NR_PAGES), block.zone.zone_start_pfn)
    if not skip_isolation:
        end = block_pfn + pageblock_nr_pages
        ret = set_migratetype_isolate(block, migratetype, flags, block_pfn, end)
        if ret:
            return ret
    if m.pfn_zone(boundary_pfn if isolate_before else boundary_pfn - 1) is None:
        return 0
    if _straddling_folio(m, start_pfn, boundary_pfn):
        if not skip_isolation:
            unset_migratetype_isolate(block, migratetype)
        return -EBUSY
    return 0


def start_isolate_page_range(
    m: Machine, start_pfn: int, end_pfn: int, migratetype: int, flags: int, gfp_flags: int
) -> int:
    """Isolate all pageblocks that [@start_pfn, @end_pfn) touches.

    :param migratetype: the type to set again if that fails
    :return: ``int``, 0 or -EBUSY with nothing isolated

    Mirrors mm/page_isolation.c:start_isolate_page_range().
    """
    isolate_start = pageblock_start_pfn(start_pfn)
    isolate_end = ALIGN(end_pfn, pageblock_nr_pages)
    last = isolate_end - pageblock_nr_pages
    ret = isolate_single_pageblock(m, isolate_start, flags, gfp_flags, False, False, migratetype)
    if ret:
        return ret
    ret = isolate_single_pageblock(
        m, isolate_end, flags, gfp_flags, True, isolate_start == last, migratetype
    )
    if ret:
        unset_migratetype_isolate(pfn_to_page(m, isolate_start), migratetype)
        return ret
    for pfn in range(isolate_start + pageblock_nr_pages, last, pageblock_nr_pages):
        page = __first_valid_page(m, pfn, pageblock_nr_pages)
        if page is not None and set_migratetype_isolate(
            page, migratetype, flags, start_pfn, end_pfn
        ):
            undo_isolate_page_range(m, isolate_start, pfn, migratetype)
            unset_migratetype_isolate(pfn_to_page(m, last), migratetype)
            return -EBUSY
    return 0


def undo_isolate_page_range(m: Machine, start_pfn: int, end_pfn: int, migratetype: int) -> None:
    """Give all isolated pageblocks that [@start_pfn, @end_pfn) touches a type again.

    Mirrors mm/page_isolation.c:undo_isolate_page_range().
    """
    isolate_start = pageblock_start_pfn(start_pfn)
    isolate_end = ALIGN(end_pfn, pageblock_nr_pages)
    for pfn in range(isolate_start, isolate_end, pageblock_nr_pages):
        page = __first_valid_page(m, pfn, pageblock_nr_pages)
        if page is None or not is_migrate_isolate_page(page):
            continue
        unset_migratetype_isolate(page, migratetype)


def __test_page_isolated_in_pageblock(m: Machine, pfn: int, end_pfn: int, flags: int) -> int:
    """Return the first pfn from @pfn on that is not free, @end_pfn or more if all are.

    Mirrors mm/page_isolation.c:__test_page_isolated_in_pageblock().
    """
    while pfn < end_pfn:
        page = pfn_to_page(m, pfn)
        if page.page_type == PAGE_TYPE_BUDDY:
            pfn += 1 << page.private
        elif flags & MEMORY_OFFLINE and (
            page.flags >> PG_hwpoison & 1
            or (page.page_type >> 24 == PGTY_offline and not page._refcount)
        ):
            pfn += 1
        else:
            break
    return pfn


def test_pages_isolated(m: Machine, start_pfn: int, end_pfn: int, isol_flags: int) -> int:
    """Tell whether all of [@start_pfn, @end_pfn) is isolated and free.

    :return: ``int``, 0 or -EBUSY

    Mirrors mm/page_isolation.c:test_pages_isolated().
    """
    for pfn in range(start_pfn, end_pfn, pageblock_nr_pages):
        page = __first_valid_page(m, pfn, pageblock_nr_pages)
        if page is not None and not is_migrate_isolate_page(page):
            return -EBUSY
    if __first_valid_page(m, start_pfn, end_pfn - start_pfn) is None:
        return -EBUSY
    pfn = __test_page_isolated_in_pageblock(m, start_pfn, end_pfn, isol_flags)
    return -EBUSY if pfn < end_pfn else 0
