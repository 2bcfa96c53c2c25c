"""Compaction; for now the one part of it that the page allocator itself uses.

Mirrors mm/compaction.c.
"""

from __future__ import annotations

from mmcore.mm import page_alloc
from mmcore.mm.mm_types import Page
from mmcore.mm.mmzone import NR_PAGE_ORDERS, Zone, pageblock_end_pfn, zone_spans_pfn
from mmcore.mm.page_flags import PAGE_TYPE_BUDDY

__all__ = ["compact_gap", "isolate_freepages_range", "release_free_list"]


def compact_gap(order: int) -> int:
    """Return the pages that must be free besides for compaction to have room: twice the block.

    Mirrors include/linux/compaction.h:compact_gap().
    """
    return 2 << order


def _isolate_freepages_block(
    zone: Zone, start_pfn: int, end_pfn: int, freepages: list[list[Page]]
) -> int:
    """Take all of a range within one pageblock off the free lists: the strict mode.

    :return: ``int``, the pages taken; 0 if a page of the range was not free

    Mirrors mm/compaction.c:isolate_freepages_block().
    """
    pfn = start_pfn
    total_isolated = 0
    while pfn < end_pfn:
        page = zone.mem_map.get(pfn)
        if page is None or page.page_type != PAGE_TYPE_BUDDY:
            break
        order = page.private
        isolated = page_alloc.__isolate_free_page(page, order)
        if not isolated:
            break
        page.private = order
        freepages[order].append(page)
        total_isolated += isolated
        pfn += isolated
    return total_isolated if pfn >= end_pfn else 0


def release_free_list(freepages: list[list[Page]]) -> None:
    """Give isolated blocks back to the allocator.

    Mirrors mm/compaction.c:release_free_list().
    """
    for order, pages in enumerate(freepages):
        for page in pages:
            page.private = 0
            page._refcount = 1
            page_alloc.__free_pages(page, order)
        pages.clear()


def isolate_freepages_range(
    zone: Zone, start_pfn: int, end_pfn: int
) -> tuple[int, list[list[Page]]]:
    """Take all free blocks of [@start_pfn, @end_pfn) off the lists, or none.

    Simplified: the statistics of compaction are not counted.

    :return: one past the last pfn taken, which may lie beyond @end_pfn, and the blocks by order; 0 and
        nothing if a page of the range is not free

    Mirrors mm/compaction.c:isolate_freepages_range().
    """
    freepages: list[list[Page]] = [[] for _ in range(NR_PAGE_ORDERS)]
    pfn = start_pfn
    while pfn < end_pfn:
        block_end_pfn = min(pageblock_end_pfn(pfn), end_pfn)
        if not zone_spans_pfn(zone, pfn) or not zone_spans_pfn(zone, block_end_pfn - 1):
            break
        isolated = _isolate_freepages_block(zone, pfn, block_end_pfn, freepages)
        if not isolated:
            break
        pfn += isolated
    if pfn < end_pfn:
        release_free_list(freepages)
        return 0, freepages
    return pfn, freepages
