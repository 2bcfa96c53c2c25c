"""The page allocator: free lists, per-CPU lists, fallback, watermarks, the allocation itself.

Mirrors mm/page_alloc.c of the 6.12 stable series for the reference configuration: SMP, NUMA,
COMPACTION, TRANSPARENT_HUGEPAGE and MEMORY_ISOLATION on, CMA off. Functions have the kernel's names
without ``_noprof``, which marks the real symbols behind the allocation profiling wrappers.

The free lists and the per-CPU lists hold the kernel's pages in the kernel's order. A free block has
one `Page` object, its head; the pages behind it get one when they are split off. An object once
made stays in ``zone.mem_map``, so that a page has one identity for ever.

Simplified: nothing runs in parallel, so there are no locks, and a trylock fails only if
``machine.pcp_trylock_fails`` says so; no KASAN, page poisoning or guard pages; no memory that is
initialised late (deferred struct pages) or must be accepted first; no cpusets; no page reporting;
no compaction capture. Reclaim, compaction and the OOM killer are called through
``machine.hooks`` (`mmcore.mm.internal.PageAllocHooks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mmcore.cint import ALIGN, DIV_ROUND_UP, clamp, int_sqrt, mult_frac, rounddown_pow_of_two
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EBUSY, EINVAL, BadPage, KernelBug, UsageError
from mmcore.lib.list import (
    ListHead,
    list_add,
    list_add_tail,
    list_del,
    list_empty,
)
from mmcore.mm import khugepaged, page_isolation, show_mem, shuffle
from mmcore.mm.gfp import (
    __GFP_COMP,
    __GFP_DIRECT_RECLAIM,
    __GFP_DMA,
    __GFP_FS,
    __GFP_HARDWALL,
    __GFP_HIGH,
    __GFP_HIGHMEM,
    __GFP_IO,
    __GFP_KSWAPD_RECLAIM,
    __GFP_MEMALLOC,
    __GFP_MOVABLE,
    __GFP_NOFAIL,
    __GFP_NOMEMALLOC,
    __GFP_NORETRY,
    __GFP_NOWARN,
    __GFP_RECLAIM,
    __GFP_RECLAIMABLE,
    __GFP_RETRY_MAYFAIL,
    __GFP_SKIP_KASAN,
    __GFP_SKIP_ZERO,
    __GFP_THISNODE,
    __GFP_WRITE,
    __GFP_ZERO,
    __GFP_ZEROTAGS,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    GFP_MOVABLE_MASK,
    GFP_MOVABLE_SHIFT,
    GFP_USER,
    GFP_ZONE_BAD,
    GFP_ZONEMASK,
    gfp_migratetype,
    gfp_zone,
)
from mmcore.mm.internal import (
    ALLOC_CPUSET,
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    ALLOC_RESERVES,
    ALLOC_WMARK_HIGH,
    ALLOC_WMARK_LOW,
    ALLOC_WMARK_MASK,
    ALLOC_WMARK_MIN,
    COMPACT_COMPLETE,
    COMPACT_DEFERRED,
    COMPACT_SKIPPED,
    COMPACT_SUCCESS,
    DEF_COMPACT_PRIORITY,
    INIT_COMPACT_PRIORITY,
    MAX_RECLAIM_RETRIES,
    MAX_RT_PRIO,
    MIN_COMPACT_COSTLY_PRIORITY,
    MIN_COMPACT_PRIORITY,
    NODE_RECLAIM_FULL,
    NODE_RECLAIM_NOSCAN,
    PF_DUMPCORE,
    PF_MEMALLOC,
    PF_MEMALLOC_NOFS,
    PF_MEMALLOC_NOIO,
    PF_MEMALLOC_PIN,
    AllocContext,
    OomControl,
    __PageMovable,
    find_buddy_page_pfn,
    prep_compound_page,
    zone_reclaimable_pages,
)
from mmcore.mm.mm_types import Folio, LargeFolio, Page, folio_order, pfn_to_page
from mmcore.mm.mmzone import (
    HPAGE_PMD_ORDER,
    MAX_NR_ZONES,
    MAX_ORDER_NR_PAGES,
    MAX_PAGE_ORDER,
    MIGRATE_HIGHATOMIC,
    MIGRATE_ISOLATE,
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    MIGRATE_RECLAIMABLE,
    MIGRATE_TYPES,
    MIGRATE_UNMOVABLE,
    NR_LOWORDER_PCP_LISTS,
    NR_PAGE_ORDERS,
    NR_PCP_LISTS,
    PAGE_ALLOC_COSTLY_ORDER,
    PCPF_FREE_HIGH_BATCH,
    PCPF_PREV_FREE_HIGH_ORDER,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    WMARK_PROMO,
    ZONE_BELOW_HIGH,
    ZONE_BOOSTED_WATERMARK,
    ZONE_DMA,
    ZONE_DMA32,
    ZONE_MOVABLE,
    ZONE_NAMES,
    ZONE_NORMAL,
    ZONE_RECLAIM_ACTIVE,
    ZONELIST_FALLBACK,
    ZONELIST_NOFALLBACK,
    FreeArea,
    PerCpuPages,
    PgData,
    Zone,
    Zonelist,
    Zoneref,
    for_each_online_pgdat,
    for_each_populated_zone,
    for_each_zone,
    get_pfnblock_migratetype,
    high_wmark_pages,
    low_wmark_pages,
    managed_zone,
    migratetype_is_mergeable,
    min_wmark_pages,
    pageblock_end_pfn,
    pageblock_nr_pages,
    pageblock_order,
    pageblock_start_pfn,
    populated_zone,
    zone_spans_pfn,
)
from mmcore.mm.page_flags import (
    PAGE_FLAGS_CHECK_AT_FREE,
    PAGE_FLAGS_CHECK_AT_PREP,
    PAGE_TYPE_BUDDY,
    PG_hwpoison,
    PG_large_rmappable,
    PG_lru,
    PG_mlocked,
    PG_reserved,
)
from mmcore.mm.vmstat import (
    COMPACTFAIL,
    COMPACTSTALL,
    COMPACTSUCCESS,
    NR_FREE_PAGES,
    NR_MLOCK,
    NUMA_FOREIGN,
    NUMA_HIT,
    NUMA_LOCAL,
    NUMA_MISS,
    NUMA_OTHER,
    PGALLOC_DMA,
    PGFREE,
    UNEVICTABLE_PGCLEARED,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine

# Free Page Internal flags.
FPI_NONE = 0
FPI_SKIP_REPORT_NOTIFY = 1
FPI_TO_TAIL = 2

# include/linux/mmzone.h enum meminit_context
MEMINIT_EARLY = 0
MEMINIT_HOTPLUG = 1

MIN_PERCPU_PAGELIST_HIGH_FRACTION = 8
MAX_COMPACT_RETRIES = 16
SWAP_CLUSTER_MAX = 32
BOOT_PAGESET_HIGH = 0
BOOT_PAGESET_BATCH = 1

NUMA_NO_NODE = -1
MAX_NUMNODES = 1024
PENALTY_FOR_NODE_WITH_CPUS = 1
RECLAIM_DISTANCE = 30
INT_MAX = (1 << 31) - 1

#: Where the kernel's direct map of all memory starts with 4-level tables and no KASLR.
PAGE_OFFSET = 0xFFFF_8880_0000_0000

#: The order in which the lists of other types are tried when those of the wanted type are empty.
fallbacks: tuple[tuple[int, int], ...] = (
    (MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE),  # MIGRATE_UNMOVABLE
    (MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE),  # MIGRATE_MOVABLE
    (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE),  # MIGRATE_RECLAIMABLE
)

#: The task flags that narrow the gfp flags of every request.
PF_MEMALLOC_SCOPES = PF_MEMALLOC_NOIO | PF_MEMALLOC_NOFS | PF_MEMALLOC_PIN

#: gfp_zone() of each combination of zone bits, -1 for those that are forbidden.
GFP_ZONE_TABLE: tuple[int, ...] = tuple(
    -1 if GFP_ZONE_BAD >> bits & 1 else gfp_zone(bits) for bits in range(GFP_ZONEMASK + 1)
)

# enum rmqueue_mode
RMQUEUE_NORMAL = 0
RMQUEUE_CMA = 1
RMQUEUE_CLAIM = 2
RMQUEUE_STEAL = 3


# ---- pageblocks and pages ------------------------------------------------------------------------


def zone_page(zone: Zone, pfn: int) -> Page:
    """Return the page at @pfn of @zone, making its object if there is none: ``page + n`` in C."""
    page = zone.mem_map.get(pfn)
    if page is None:
        page = zone.mem_map[pfn] = Page(pfn, zone)
    return page


def get_pageblock_migratetype(page: Page) -> int:
    """Return the migratetype of the pageblock that @page lies in."""
    zone = page.zone
    return zone.pageblock_flags[page.pfn - zone.pageblock_base >> pageblock_order]


def set_pageblock_migratetype(page: Page, migratetype: int) -> None:
    """Set the migratetype of the pageblock that @page lies in.

    :param migratetype: ``int``; becomes MIGRATE_UNMOVABLE where grouping by mobility is off

    Mirrors mm/page_alloc.c:set_pageblock_migratetype().
    """
    _set_pfnblock_migratetype(page.zone, page.pfn, migratetype)


def _set_pfnblock_migratetype(zone: Zone, pfn: int, migratetype: int) -> None:
    """set_pageblock_migratetype() by pfn, for pages that need not have an object."""
    m = zone.machine
    if m.page_group_by_mobility_disabled and migratetype < MIGRATE_PCPTYPES:
        migratetype = MIGRATE_UNMOVABLE
    block = pfn - zone.pageblock_base >> pageblock_order
    if m.trace.on and zone.pageblock_flags[block] != migratetype:
        old = zone.pageblock_flags[block]
        m.trace.emit("model:pageblock_migratetype", pageblock_start_pfn(pfn), old, migratetype)
    zone.pageblock_flags[block] = migratetype


def page_bad_reason(page: Page, flags: int) -> str | None:
    """Return what is wrong with a page that should be free, in the kernel's words, or None.

    :param flags: the PG_ bits that must be clear: PAGE_FLAGS_CHECK_AT_PREP or _AT_FREE

    Simplified: no network page pools, whose pages may leak too.

    Mirrors mm/page_alloc.c:page_bad_reason().
    """
    bad_reason = None
    if page.page_type != -1:
        bad_reason = "nonzero mapcount"
    if page.mapping is not None:
        bad_reason = "non-NULL mapping"
    if page._refcount != 0:
        bad_reason = "nonzero _refcount"
    if page.flags & flags:
        when = "PREP" if flags == PAGE_FLAGS_CHECK_AT_PREP else "FREE"
        bad_reason = f"PAGE_FLAGS_CHECK_AT_{when} flag(s) set"
    if page.memcg_data:
        bad_reason = "page still charged to cgroup"
    return bad_reason


def page_expected_state(page: Page, check_flags: int) -> bool:
    """Tell whether nothing is wrong with a page that should be free.

    Mirrors mm/page_alloc.c:page_expected_state().
    """
    return (
        page.page_type == -1
        and page.mapping is None
        and not page._refcount
        and not page.memcg_data
        and not page.flags & check_flags
    )


def order_to_pindex(migratetype: int, order: int) -> int:
    """Return which of the per-CPU lists holds blocks of @order and @migratetype.

    :raises KernelBug: for an order that is never kept on per-CPU lists

    Mirrors mm/page_alloc.c:order_to_pindex().
    """
    if order > PAGE_ALLOC_COSTLY_ORDER:
        if order != HPAGE_PMD_ORDER:
            raise KernelBug(f"VM_BUG_ON(order != HPAGE_PMD_ORDER): order {order}")
        return NR_LOWORDER_PCP_LISTS + (migratetype == MIGRATE_MOVABLE)
    return MIGRATE_PCPTYPES * order + migratetype


def pindex_to_order(pindex: int) -> int:
    """Return the order of the blocks on per-CPU list @pindex.

    Mirrors mm/page_alloc.c:pindex_to_order().
    """
    return HPAGE_PMD_ORDER if pindex >= NR_LOWORDER_PCP_LISTS else pindex // MIGRATE_PCPTYPES


def pcp_allowed_order(order: int) -> bool:
    """Tell whether blocks of @order may stay on per-CPU lists: 0 to 3, and 9 for huge pages.

    Mirrors mm/page_alloc.c:pcp_allowed_order().
    """
    return order <= PAGE_ALLOC_COSTLY_ORDER or order == HPAGE_PMD_ORDER


# ---- free lists ----------------------------------------------------------------------------------


def set_buddy_order(page: Page, order: int) -> None:
    """Mark @page as the head of a free block of @order.

    Mirrors mm/page_alloc.c:set_buddy_order().
    """
    page.private = order
    page.page_type = PAGE_TYPE_BUDDY


def account_freepages(zone: Zone, nr_pages: int, migratetype: int) -> None:
    """Count @nr_pages more (or fewer) free pages; isolated ones do not count as free.

    Mirrors mm/page_alloc.c:account_freepages().
    """
    if migratetype == MIGRATE_ISOLATE:
        return
    zone.vm_stat[NR_FREE_PAGES] += nr_pages
    if migratetype == MIGRATE_HIGHATOMIC:
        zone.nr_free_highatomic += nr_pages


def __add_to_free_list(page: Page, zone: Zone, order: int, migratetype: int, tail: bool) -> None:
    """Put a block that is on no list on the free list of its order and type.

    Mirrors mm/page_alloc.c:__add_to_free_list().
    """
    area = zone.free_area[order]
    if tail:
        list_add_tail(page, area.free_list[migratetype])
    else:
        list_add(page, area.free_list[migratetype])
    area.nr_free += 1
    if zone.machine.trace.on:
        zone.machine.trace.emit("model:free_list_add", page.pfn, order, migratetype, tail)


def move_to_free_list(page: Page, zone: Zone, order: int, old_mt: int, new_mt: int) -> None:
    """Move a free block to the tail of the list of another type.

    Mirrors mm/page_alloc.c:move_to_free_list().
    """
    list_del(page)
    list_add_tail(page, zone.free_area[order].free_list[new_mt])
    account_freepages(zone, -(1 << order), old_mt)
    account_freepages(zone, 1 << order, new_mt)
    if zone.machine.trace.on:
        zone.machine.trace.emit("model:free_list_move", page.pfn, order, old_mt, new_mt)


def __del_page_from_free_list(page: Page, zone: Zone, order: int, migratetype: int) -> None:
    """Take a free block off its list; it is no buddy any more.

    Mirrors mm/page_alloc.c:__del_page_from_free_list().
    """
    following, before = page.next, page.prev
    before.next = following
    following.prev = before
    page.next = page.prev = None
    page.page_type = -1
    page.private = 0
    zone.free_area[order].nr_free -= 1
    if zone.machine.trace.on:
        zone.machine.trace.emit("model:free_list_del", page.pfn, order, migratetype)


def del_page_from_free_list(page: Page, zone: Zone, order: int, migratetype: int) -> None:
    """Take a free block off its list and count its pages as no longer free.

    Mirrors mm/page_alloc.c:del_page_from_free_list().
    """
    __del_page_from_free_list(page, zone, order, migratetype)
    account_freepages(zone, -(1 << order), migratetype)


def get_page_from_free_area(area: FreeArea, migratetype: int) -> Page | None:
    """Return the first block on the free list of @migratetype, or None.

    Mirrors mm/page_alloc.c:get_page_from_free_area().
    """
    head = area.free_list[migratetype]
    first: Page = head.next
    return None if first is head else first


def free_area_empty(area: FreeArea, migratetype: int) -> bool:
    """Tell whether the free list of @migratetype is empty.

    Mirrors mm/internal.h:free_area_empty().
    """
    head = area.free_list[migratetype]
    return head.next is head


def buddy_merge_likely(pfn: int, buddy_pfn: int, zone: Zone, order: int) -> bool:
    """Tell whether the block may soon become part of a block two orders up.

    If the buddy of its parent is free already, only the block's own buddy is missing; the block then
    goes to the tail of its list, where it is used late.

    Mirrors mm/page_alloc.c:buddy_merge_likely().
    """
    if order >= MAX_PAGE_ORDER - 1:
        return False
    higher = zone.mem_map.get((buddy_pfn & pfn) ^ (2 << order))  # find_buddy_page_pfn()
    return (
        higher is not None and higher.page_type == PAGE_TYPE_BUDDY and higher.private == order + 1
    )


def change_pageblock_range(pageblock_page: Page, start_order: int, migratetype: int) -> None:
    """Set the type of all pageblocks of a block of @start_order >= pageblock_order.

    Mirrors mm/page_alloc.c:change_pageblock_range().
    """
    zone = pageblock_page.zone
    pfn = pageblock_page.pfn
    for block_pfn in range(pfn, pfn + (1 << start_order), pageblock_nr_pages):
        _set_pfnblock_migratetype(zone, block_pfn, migratetype)


def _merge_pageblocks(buddy: Page, order: int, migratetype: int) -> bool:
    """Let a block of @migratetype merge with a buddy of pageblock size or more, if types allow it.

    The buddy's pageblocks then take the type, so that a later split finds the right lists.
    """
    buddy_mt = get_pageblock_migratetype(buddy)
    if buddy_mt != migratetype:
        if migratetype >= MIGRATE_PCPTYPES or buddy_mt >= MIGRATE_PCPTYPES:
            return False
        change_pageblock_range(buddy, order, migratetype)
    return True


def __free_one_page(
    page: Page, pfn: int, zone: Zone, order: int, migratetype: int, fpi_flags: int
) -> None:
    """Put a block on the free lists, merging it with its buddy as long as that is free.

    Which end of its list it goes to decides how soon it is used again: the head, unless the caller
    asks for the tail (FPI_TO_TAIL), the lists are shuffled, or its parent's buddy is free. For
    speed, the list functions and set_buddy_order() are written out, as comments say.

    Mirrors mm/page_alloc.c:__free_one_page().
    """
    tracing = zone.machine.trace.on
    mem_map = zone.mem_map
    free_area = zone.free_area
    buddy_pfn = 0
    if migratetype < MIGRATE_PCPTYPES:  # account_freepages()
        zone.vm_stat[NR_FREE_PAGES] += 1 << order
    else:
        account_freepages(zone, 1 << order, migratetype)

    while order < MAX_PAGE_ORDER:
        buddy_pfn = pfn ^ (1 << order)
        buddy = mem_map.get(buddy_pfn)  # find_buddy_page_pfn()
        if buddy is None or buddy.page_type != PAGE_TYPE_BUDDY or buddy.private != order:
            break
        if order >= pageblock_order and not _merge_pageblocks(buddy, order, migratetype):
            break
        following, before = buddy.next, buddy.prev  # __del_page_from_free_list()
        before.next = following
        following.prev = before
        buddy.next = buddy.prev = None
        buddy.page_type = -1
        buddy.private = 0
        free_area[order].nr_free -= 1
        if tracing:
            zone.machine.trace.emit("model:buddy_merge", pfn, buddy_pfn, order, migratetype)
        if buddy_pfn < pfn:
            page = buddy
            pfn = buddy_pfn
        order += 1

    page.private = order  # set_buddy_order()
    page.page_type = PAGE_TYPE_BUDDY
    if fpi_flags & FPI_TO_TAIL:
        to_tail = True
    elif order >= shuffle.SHUFFLE_ORDER and zone.machine.page_alloc_shuffle_key:
        to_tail = shuffle.shuffle_pick_tail(zone.machine)
    else:
        to_tail = buddy_merge_likely(pfn, buddy_pfn, zone, order)
    head = free_area[order].free_list[migratetype]  # __add_to_free_list()
    before = head.prev if to_tail else head
    page.prev = before
    page.next = following = before.next
    following.prev = before.next = page
    free_area[order].nr_free += 1
    if tracing:
        zone.machine.trace.emit("model:free_list_add", pfn, order, migratetype, to_tail)


# ---- freeing -------------------------------------------------------------------------------------


def _large_folio_is_free(page: Page, folio: LargeFolio) -> None:
    """Check the words of a large folio that live in its first tail pages.

    :raises BadPage: with the kernel's reason
    """
    for value, field in (
        (folio._entire_mapcount + 1, "entire_mapcount"),
        (folio._large_mapcount + 1, "large_mapcount"),
        (folio._nr_pages_mapped, "nr_pages_mapped"),
        (folio._pincount, "pincount"),
    ):
        if value:
            raise BadPage(page.pfn + 1, f"nonzero {field}")
    if folio._folio_order > 1 and not list_empty(folio._deferred_list):
        raise BadPage(page.pfn + 2, "on deferred list")


def free_tail_page_prepare(head_page: Page, page: Page, check: bool) -> None:
    """Make the tail page of a compound page an ordinary page again.

    :raises BadPage: if it is no tail of @head_page

    Mirrors mm/page_alloc.c:free_tail_page_prepare().
    """
    if check:
        if page.prev is not None or page.next is None:
            raise BadPage(page.pfn, "PageTail not set")
        if page.next is not head_page:
            raise BadPage(page.pfn, "compound_head not consistent")
    page.mapping = None
    page.next = None


def _free_tails_prepare(page: Page, order: int, check: bool) -> None:
    """Prepare the pages behind the head that have an object: the loop of free_pages_prepare()."""
    folio = page.folio
    if folio is not None:
        if folio._folio_order != order:
            raise BadPage(page.pfn, "VM_BUG_ON_PAGE(compound && compound_order(page) != order)")
        if check:
            _large_folio_is_free(page, folio)
    pfn = page.pfn
    if check and pfn & (1 << order) - 1:
        raise BadPage(pfn, "VM_BUG_ON_PAGE(pfn & ((1 << order) - 1))")
    for tail in map(page.zone.mem_map.get, range(pfn + 1, pfn + (1 << order))):
        if tail is None:
            continue
        if folio is not None:
            free_tail_page_prepare(page, tail, check)
        # page_expected_state(), for all that could be wrong at once
        if (
            tail.flags
            or tail._refcount
            or tail.page_type != -1
            or tail.mapping is not None
            or tail.memcg_data
        ):
            if check and not page_expected_state(tail, PAGE_FLAGS_CHECK_AT_FREE):
                raise BadPage(tail.pfn, page_bad_reason(tail, PAGE_FLAGS_CHECK_AT_FREE) or "")
            tail.flags &= ~PAGE_FLAGS_CHECK_AT_PREP
    page.folio = None


def free_pages_prepare(page: Page, order: int) -> bool:
    """Make a block whose last reference is gone ready for the free lists.

    :param order: ``unsigned int``
    :return: ``bool``; False if the page must not be used again (hardware poison)
    :raises BadPage: if it is still in use somehow; the kernel looks only in debug kernels
        (``machine.check_pages_enabled``), and then keeps the page out of circulation

    Simplified: no memory cgroup charge to give back, no zeroing for init_on_free, no page owner or
    allocation tag, and the counter of anonymous huge folios does not move.

    Mirrors mm/page_alloc.c:free_pages_prepare().
    """
    zone = page.zone
    m = zone.machine
    check = m.check_pages_enabled
    if m.trace.on:
        m.trace.emit("kmem:mm_page_free", page.pfn, order)
    flags = page.flags
    if flags:
        if flags >> PG_mlocked & 1:
            page.flags = flags = flags & ~(1 << PG_mlocked)
            nr_pages = 1 << folio_order(page)
            zone.vm_stat[NR_MLOCK] -= nr_pages
            m.vm_event[UNEVICTABLE_PGCLEARED] += nr_pages
        if flags >> PG_hwpoison & 1 and not order:
            return False
    if order:
        _free_tails_prepare(page, order, check)
    if page.mapping is not None and not hasattr(page.mapping, "i_pages"):
        page.mapping = None  # PageMappingFlags(): anonymous, or movable
    # page_expected_state()
    if check and (
        page.page_type != -1
        or page.mapping is not None
        or page._refcount
        or page.memcg_data
        or flags & PAGE_FLAGS_CHECK_AT_FREE
    ):
        raise BadPage(page.pfn, page_bad_reason(page, PAGE_FLAGS_CHECK_AT_FREE) or "")
    page.flags = flags & ~PAGE_FLAGS_CHECK_AT_PREP
    page.private = 0
    return True


def free_pcppages_bulk(zone: Zone, count: int, pcp: PerCpuPages, pindex: int) -> None:
    """Give @count pages from the per-CPU lists back to the buddy lists.

    List @pindex is emptied first, from its tail, then the ones behind it in turn. Each block goes
    back under the type that its pageblock has now.

    :raises KernelBug: if the lists hold fewer pages than ``pcp->count`` says, where the kernel would
        search them for ever

    Mirrors mm/page_alloc.c:free_pcppages_bulk().
    """
    trace = zone.machine.trace
    blocks, base = zone.pageblock_flags, zone.pageblock_base
    lists = pcp.lists
    if pcp.count < count:
        count = pcp.count
    pindex -= 1
    while count > 0:
        for _ in lists:
            pindex += 1
            if pindex > NR_PCP_LISTS - 1:
                pindex = 0
            head = lists[pindex]
            if head.next is not head:
                break
        else:
            raise KernelBug(f"per-CPU lists are empty, and pcp->count is {pcp.count}")
        order = pindex_to_order(pindex)
        nr_pages = 1 << order
        while True:
            page = head.prev
            pfn = page.pfn
            mt = blocks[pfn - base >> pageblock_order]
            before = page.prev
            before.next = head
            head.prev = before
            page.next = page.prev = None
            count -= nr_pages
            pcp.count -= nr_pages
            __free_one_page(page, pfn, zone, order, mt, FPI_NONE)
            if trace.on:
                trace.emit("kmem:mm_page_pcpu_drain", pfn, order, mt)
            if count <= 0 or head.next is head:
                break


def split_large_buddy(zone: Zone, page: Page, pfn: int, order: int, fpi: int) -> None:
    """Free a block pageblock by pageblock, each under its own type.

    Pageblocks of one type go in as one block: they would merge at once, and into the same place.

    Mirrors mm/page_alloc.c:split_large_buddy().
    """
    flags = zone.pageblock_flags
    block = pfn - zone.pageblock_base >> pageblock_order
    mt = flags[block]
    # A block of MAX_PAGE_ORDER has two pageblocks.
    if order <= pageblock_order or flags[block + 1] == mt:
        __free_one_page(page, pfn, zone, order, mt, fpi)
        return
    for mt in flags[block : block + 2]:
        __free_one_page(zone_page(zone, pfn), pfn, zone, pageblock_order, mt, fpi)
        pfn += pageblock_nr_pages


def free_one_page(zone: Zone, page: Page, pfn: int, order: int, fpi_flags: int) -> None:
    """Free a prepared block to the buddy lists, past the per-CPU lists.

    Mirrors mm/page_alloc.c:free_one_page().
    """
    split_large_buddy(zone, page, pfn, order, fpi_flags)
    zone.machine.vm_event[PGFREE] += 1 << order


def __free_pages_ok(page: Page, order: int, fpi_flags: int) -> None:
    """Prepare and free a block to the buddy lists, past the per-CPU lists.

    Mirrors mm/page_alloc.c:__free_pages_ok().
    """
    if free_pages_prepare(page, order):
        free_one_page(page.zone, page, page.pfn, order, fpi_flags)


def __free_pages_core(page: Page, order: int, context: int = MEMINIT_EARLY) -> None:
    """Hand a block to the allocator for the first time, at boot or when memory is added.

    :param context: ``enum meminit_context``: MEMINIT_EARLY counts the pages as managed only,
        MEMINIT_HOTPLUG also in the machine's total

    Simplified: memory need not be accepted first.

    Mirrors mm/page_alloc.c:__free_pages_core().
    """
    zone = page.zone
    nr_pages = 1 << order
    if context == MEMINIT_HOTPLUG:
        adjust_managed_page_count(page, nr_pages)
    else:
        zone.managed_pages += nr_pages
    page.flags &= ~(1 << PG_reserved)
    page._refcount = 0
    if context == MEMINIT_HOTPLUG:
        __free_pages_ok(page, order, FPI_TO_TAIL)
        return
    # Nobody has used the block yet, so no page behind its head has an object to prepare.
    if zone.machine.trace.on:
        zone.machine.trace.emit("kmem:mm_page_free", page.pfn, order)
    free_one_page(zone, page, page.pfn, order, FPI_TO_TAIL)


# ---- taking from the free lists ------------------------------------------------------------------


def expand(zone: Zone, page: Page, low: int, high: int, migratetype: int) -> int:
    """Split a block of order @high down to @low: keep the lower half, free each upper one.

    Each upper half goes to the head of its list, so the pages of one block come out in ascending
    order.

    :return: ``unsigned int``, the pages put on the lists

    Mirrors mm/page_alloc.c:expand().
    """
    tracing = zone.machine.trace.on
    mem_map = zone.mem_map
    free_area = zone.free_area
    pfn = page.pfn
    nr_added = 0
    while high > low:
        high -= 1
        upper_pfn = pfn + (1 << high)
        try:
            upper = mem_map[upper_pfn]
        except KeyError:
            upper = mem_map[upper_pfn] = Page(upper_pfn, zone)
        area = free_area[high]  # __add_to_free_list(), at the head
        head = area.free_list[migratetype]
        first = head.next
        upper.next = first
        upper.prev = head
        first.prev = head.next = upper
        area.nr_free += 1
        upper.private = high  # set_buddy_order()
        upper.page_type = PAGE_TYPE_BUDDY
        nr_added += 1 << high
        if tracing:
            trace = zone.machine.trace
            trace.emit("model:buddy_split", upper_pfn, high, migratetype)
            trace.emit("model:free_list_add", upper_pfn, high, migratetype, False)
    return nr_added


def page_del_and_expand(zone: Zone, page: Page, low: int, high: int, migratetype: int) -> None:
    """Take a free block off its list and split it down to order @low.

    Mirrors mm/page_alloc.c:page_del_and_expand().
    """
    __del_page_from_free_list(page, zone, high, migratetype)
    nr_pages = (1 << high) - expand(zone, page, low, high, migratetype)
    account_freepages(zone, -nr_pages, migratetype)


def __rmqueue_smallest(zone: Zone, order: int, migratetype: int) -> Page | None:
    """Take the first block of the smallest order that is large enough, splitting it.

    :return: ``struct page *``

    Mirrors mm/page_alloc.c:__rmqueue_smallest().
    """
    for current_order in range(order, NR_PAGE_ORDERS):
        area = zone.free_area[current_order]
        head = area.free_list[migratetype]
        page: Page = head.next
        if page is head:
            continue
        following = page.next  # page_del_and_expand()
        head.next = following
        following.prev = head
        page.next = page.prev = None
        page.page_type = -1
        page.private = 0
        area.nr_free -= 1
        tracing = zone.machine.trace.on
        if tracing:
            zone.machine.trace.emit("model:free_list_del", page.pfn, current_order, migratetype)
        if current_order > order:
            expand(zone, page, order, current_order, migratetype)
        if migratetype < MIGRATE_PCPTYPES:  # account_freepages()
            zone.vm_stat[NR_FREE_PAGES] -= 1 << order
        else:
            account_freepages(zone, -(1 << order), migratetype)
        if tracing:
            refill = int(pcp_allowed_order(order) and migratetype < MIGRATE_PCPTYPES)
            zone.machine.trace.emit(
                "kmem:mm_page_alloc_zone_locked", page.pfn, order, migratetype, refill
            )
        return page
    return None


# ---- pageblocks change hands ---------------------------------------------------------------------


def __move_freepages_block(zone: Zone, start_pfn: int, old_mt: int, new_mt: int) -> int:
    """Give a pageblock a new type and move its free blocks to the tails of that type's lists.

    :return: ``int``, the pages moved

    Mirrors mm/page_alloc.c:__move_freepages_block().
    """
    get = zone.mem_map.get
    pages_moved = 0
    pfn = start_pfn
    end_pfn = pageblock_end_pfn(start_pfn)
    while pfn < end_pfn:
        page = get(pfn)
        if page is None or page.page_type != PAGE_TYPE_BUDDY:
            pfn += 1
            continue
        order = page.private
        move_to_free_list(page, zone, order, old_mt, new_mt)
        pfn += 1 << order
        pages_moved += 1 << order
    _set_pfnblock_migratetype(zone, start_pfn, new_mt)
    return pages_moved


def _count_free_and_movable(zone: Zone, start: int, end: int) -> tuple[int, int]:
    """Return how many pages of [@start, @end) are free, and how many look movable.

    Pages that are on an LRU list, or whose owner can move them, count as movable. A folio's tail
    pages count with their head on an LRU list, because PageLRU() looks at the head; they do not
    where only the owner can move the folio, because __PageMovable() looks at each page.
    """
    get = zone.mem_map.get
    num_free = num_movable = 0
    pfn = start
    if start & (MAX_ORDER_NR_PAGES - 1):
        head = get(start & -MAX_ORDER_NR_PAGES)
        if head is not None and folio_order(head) == MAX_PAGE_ORDER:
            return 0, end - start if head.flags >> PG_lru & 1 else 0
    while pfn < end:
        page = get(pfn)
        nr = 1
        if page is not None:
            if page.page_type == PAGE_TYPE_BUDDY:
                nr = 1 << page.private
                num_free += nr
            elif page.flags >> PG_lru & 1:
                nr = min(1 << folio_order(page), end - pfn)
                num_movable += nr
            elif __PageMovable(page):
                num_movable += 1
        pfn += nr
    return num_free, num_movable


def prep_move_freepages_block(
    zone: Zone, page: Page, count: bool = False
) -> tuple[int, int, int] | None:
    """Look at the pageblock of @page before its free blocks are moved to another type.

    :param count: also count, which the kernel does if it is given pointers to count into
    :return: first pfn, free pages, movable pages; None if the pageblock is not wholly in the zone

    Mirrors mm/page_alloc.c:prep_move_freepages_block().
    """
    start = pageblock_start_pfn(page.pfn)
    end = pageblock_end_pfn(page.pfn)
    if not zone_spans_pfn(zone, start) or not zone_spans_pfn(zone, end - 1):
        return None
    if not count:
        return start, 0, 0
    return start, *_count_free_and_movable(zone, start, end)


def move_freepages_block(zone: Zone, page: Page, old_mt: int, new_mt: int) -> int:
    """Give the pageblock of @page another type together with its free blocks.

    :return: ``int``, the pages moved, or -1 if the pageblock is not wholly in the zone

    Mirrors mm/page_alloc.c:move_freepages_block().
    """
    prep = prep_move_freepages_block(zone, page)
    if prep is None:
        return -1
    return __move_freepages_block(zone, prep[0], old_mt, new_mt)


def find_large_buddy(zone: Zone, start_pfn: int) -> int:
    """Return the pfn of the free block that reaches across @start_pfn, or @start_pfn.

    Mirrors mm/page_alloc.c:find_large_buddy().
    """
    order = 0
    pfn = start_pfn
    while True:
        page = zone.mem_map.get(pfn)
        if page is not None and page.page_type == PAGE_TYPE_BUDDY:
            break
        order += 1
        if order > MAX_PAGE_ORDER:
            return start_pfn
        pfn &= -1 << order
    return pfn if pfn + (1 << page.private) > start_pfn else start_pfn


def move_freepages_block_isolate(zone: Zone, page: Page, migratetype: int) -> bool:
    """Give one pageblock another type, cutting it out of a free block of several pageblocks.

    :return: ``bool``; False if the pageblock is not wholly in the zone

    Mirrors mm/page_alloc.c:move_freepages_block_isolate().
    """
    prep = prep_move_freepages_block(zone, page)
    if prep is None:
        return False
    start_pfn = prep[0]
    # A free block that starts before this pageblock, or starts here and is larger.
    pfn = find_large_buddy(zone, start_pfn)
    buddy = zone.mem_map.get(pfn)
    if buddy is not None and buddy.page_type == PAGE_TYPE_BUDDY:
        order = buddy.private
        if pfn != start_pfn or order > pageblock_order:
            del_page_from_free_list(buddy, zone, order, get_pageblock_migratetype(buddy))
            set_pageblock_migratetype(page, migratetype)
            split_large_buddy(zone, buddy, pfn, order, FPI_NONE)
            return True
    __move_freepages_block(zone, start_pfn, get_pfnblock_migratetype(zone, start_pfn), migratetype)
    return True


def can_steal_fallback(m: Machine, order: int, start_mt: int) -> bool:
    """Tell whether a request may try to claim the whole pageblock it falls back into.

    Large blocks, and unmovable or reclaimable requests of any size: they pollute a movable block
    more than movable requests pollute theirs.

    Mirrors mm/page_alloc.c:can_steal_fallback().
    """
    return (
        order >= pageblock_order
        or order >= pageblock_order // 2
        or start_mt == MIGRATE_RECLAIMABLE
        or start_mt == MIGRATE_UNMOVABLE
        or bool(m.page_group_by_mobility_disabled)
    )


def boost_watermark(zone: Zone) -> bool:
    """Raise the zone's watermarks for a while because types are being mixed.

    :return: ``bool``, whether they were raised

    Mirrors mm/page_alloc.c:boost_watermark().
    """
    m = zone.machine
    if not m.watermark_boost_factor or m.is_kdump_kernel:
        return False
    if pageblock_nr_pages * 4 > zone.managed_pages:
        return False
    max_boost = mult_frac(zone._watermark[WMARK_HIGH], m.watermark_boost_factor, 10000)
    if not max_boost:
        return False
    max_boost = max(pageblock_nr_pages, max_boost)
    zone.watermark_boost = min(zone.watermark_boost + pageblock_nr_pages, max_boost)
    if m.trace.on:
        m.trace.emit("model:boost_watermark", zone.node, zone.zone_idx, zone.watermark_boost)
    return True


def try_to_steal_block(
    zone: Zone, page: Page, current_order: int, order: int, start_type: int, alloc_flags: int
) -> Page | None:
    """Claim the pageblock of @page for @start_type if enough of it is free or alike.

    "Alike" are, for a movable request, the movable pages; for another one that claims a movable
    block, the pages in use that are not movable; else none.

    :return: ``struct page *`` of @order out of the claimed block, or None

    Mirrors mm/page_alloc.c:try_to_steal_block().
    """
    block_type = get_pageblock_migratetype(page)
    if block_type == MIGRATE_HIGHATOMIC:
        return None
    if current_order >= pageblock_order:
        del_page_from_free_list(page, zone, current_order, block_type)
        change_pageblock_range(page, current_order, start_type)
        nr_added = expand(zone, page, order, current_order, start_type)
        account_freepages(zone, nr_added, start_type)
        return page

    if boost_watermark(zone) and alloc_flags & ALLOC_KSWAPD:
        zone.flags |= 1 << ZONE_BOOSTED_WATERMARK
    prep = prep_move_freepages_block(zone, page, count=True)
    if prep is None:
        return None
    start_pfn, free_pages, movable_pages = prep
    if start_type == MIGRATE_MOVABLE:
        alike_pages = movable_pages
    elif block_type == MIGRATE_MOVABLE:
        alike_pages = pageblock_nr_pages - (free_pages + movable_pages)
    else:
        alike_pages = 0
    m = zone.machine
    claimed = free_pages + alike_pages >= 1 << pageblock_order - 1
    if m.trace.on:
        m.trace.emit(
            "model:claim_test", page.pfn, block_type, start_type, free_pages, alike_pages, claimed
        )
    if claimed or m.page_group_by_mobility_disabled:
        __move_freepages_block(zone, start_pfn, block_type, start_type)
        return __rmqueue_smallest(zone, order, start_type)
    return None


def find_suitable_fallback(
    m: Machine, area: FreeArea, order: int, migratetype: int, only_stealable: bool
) -> tuple[int, bool]:
    """Return the first other type that has a free block in @area, and whether it may be claimed.

    :return: the type or -1, and the kernel's ``*can_steal``

    Mirrors mm/page_alloc.c:find_suitable_fallback().
    """
    if area.nr_free == 0:
        return -1, False
    can_steal = False
    for fallback_mt in fallbacks[migratetype]:
        if free_area_empty(area, fallback_mt):
            continue
        if can_steal_fallback(m, order, migratetype):
            can_steal = True
        if not only_stealable or can_steal:
            return fallback_mt, can_steal
    return -1, can_steal


def reserve_highatomic_pageblock(page: Page, order: int, zone: Zone) -> None:
    """Set the pageblock of a high-order atomic allocation aside for others of that kind.

    At most 1 % of the zone, rounded up to a pageblock; nothing if 1 % is less than one.

    Mirrors mm/page_alloc.c:reserve_highatomic_pageblock().
    """
    if zone.managed_pages // 100 < pageblock_nr_pages:
        return
    max_managed = ALIGN(zone.managed_pages // 100, pageblock_nr_pages)
    if zone.nr_reserved_highatomic >= max_managed:
        return
    mt = get_pageblock_migratetype(page)
    if not migratetype_is_mergeable(mt):
        return
    if order < pageblock_order:
        if move_freepages_block(zone, page, mt, MIGRATE_HIGHATOMIC) == -1:
            return
        zone.nr_reserved_highatomic += pageblock_nr_pages
    else:
        change_pageblock_range(page, order, MIGRATE_HIGHATOMIC)
        zone.nr_reserved_highatomic += 1 << order


def unreserve_highatomic_pageblock(ac: AllocContext, force: bool) -> int:
    """Give one reserved pageblock with free pages to the request's type, as memory runs out.

    :param force: take the zone's last reserved pageblock as well
    :return: ``bool``, whether free pages were moved

    Mirrors mm/page_alloc.c:unreserve_highatomic_pageblock().
    """
    for zone in for_each_zone_zonelist_nodemask(ac.zonelist, ac.highest_zoneidx, ac.nodemask):
        if not force and zone.nr_reserved_highatomic <= pageblock_nr_pages:
            continue
        for order in range(NR_PAGE_ORDERS):
            page = get_page_from_free_area(zone.free_area[order], MIGRATE_HIGHATOMIC)
            if page is None:
                continue
            mt = get_pageblock_migratetype(page)
            if mt == MIGRATE_HIGHATOMIC:
                size = max(pageblock_nr_pages, 1 << order)
                zone.nr_reserved_highatomic -= min(size, zone.nr_reserved_highatomic)
            if order < pageblock_order:
                ret = move_freepages_block(zone, page, mt, ac.migratetype)
            else:
                move_to_free_list(page, zone, order, mt, ac.migratetype)
                change_pageblock_range(page, order, ac.migratetype)
                ret = 1
            if ret > 0:
                return ret
    return 0


def _trace_extfrag(
    zone: Zone, page: Page, order: int, fallback_order: int, mt: int, to: int
) -> None:
    """Emit mm_page_alloc_extfrag: @page of type @to serves a request of type @mt."""
    trace = zone.machine.trace
    if trace.on:
        change_ownership = int(mt == get_pageblock_migratetype(page))
        trace.emit(
            "kmem:mm_page_alloc_extfrag", page.pfn, order, fallback_order, mt, to, change_ownership
        )


def __rmqueue_claim(
    zone: Zone, order: int, start_migratetype: int, alloc_flags: int
) -> Page | None:
    """Fall back by claiming a whole pageblock, looking at the largest free blocks first.

    Mirrors mm/page_alloc.c:__rmqueue_claim().
    """
    min_order = order
    if order < pageblock_order and alloc_flags & ALLOC_NOFRAGMENT:
        min_order = pageblock_order
    for current_order in range(MAX_PAGE_ORDER, min_order - 1, -1):
        area = zone.free_area[current_order]
        fallback_mt, can_steal = find_suitable_fallback(
            zone.machine, area, current_order, start_migratetype, False
        )
        if fallback_mt == -1:
            continue
        if not can_steal:
            break
        page: Page | None = area.free_list[fallback_mt].next
        assert page is not None
        page = try_to_steal_block(zone, page, current_order, order, start_migratetype, alloc_flags)
        if page is not None:
            _trace_extfrag(zone, page, order, current_order, start_migratetype, fallback_mt)
            return page
    return None


def __rmqueue_steal(zone: Zone, order: int, start_migratetype: int) -> Page | None:
    """Fall back by taking a single block of another type, the smallest that is large enough.

    Mirrors mm/page_alloc.c:__rmqueue_steal().
    """
    for current_order in range(order, NR_PAGE_ORDERS):
        area = zone.free_area[current_order]
        fallback_mt, _ = find_suitable_fallback(
            zone.machine, area, current_order, start_migratetype, False
        )
        if fallback_mt == -1:
            continue
        page: Page = area.free_list[fallback_mt].next
        page_del_and_expand(zone, page, order, current_order, fallback_mt)
        _trace_extfrag(zone, page, order, current_order, start_migratetype, fallback_mt)
        return page
    return None


def __rmqueue(
    zone: Zone, order: int, migratetype: int, alloc_flags: int, mode: list[int]
) -> Page | None:
    """Take a block from the free lists: of the wanted type, else claim a pageblock, else steal.

    :param mode: ``enum rmqueue_mode *``: a list of one, where the search was lucky last time

    Mirrors mm/page_alloc.c:__rmqueue().
    """
    if mode[0] == RMQUEUE_NORMAL:
        page = __rmqueue_smallest(zone, order, migratetype)
        if page is not None:
            return page
    if mode[0] <= RMQUEUE_CLAIM:
        page = __rmqueue_claim(zone, order, migratetype, alloc_flags)
        if page is not None:
            mode[0] = RMQUEUE_NORMAL
            return page
    if not alloc_flags & ALLOC_NOFRAGMENT:
        page = __rmqueue_steal(zone, order, migratetype)
        if page is not None:
            mode[0] = RMQUEUE_STEAL
            return page
    return None


def rmqueue_bulk(
    zone: Zone, order: int, count: int, head: ListHead, migratetype: int, alloc_flags: int
) -> int:
    """Take up to @count blocks from the free lists and append them to a per-CPU list.

    :return: ``int``, how many

    Mirrors mm/page_alloc.c:rmqueue_bulk().
    """
    rmqm = [RMQUEUE_NORMAL]
    for i in range(count):
        page = __rmqueue(zone, order, migratetype, alloc_flags, rmqm)
        if page is None:
            return i
        last = head.prev
        page.next = head
        page.prev = last
        last.next = head.prev = page
    return count


# ---- per-CPU lists -------------------------------------------------------------------------------


def decay_pcp_high(zone: Zone, pcp: PerCpuPages) -> bool:
    """Lower a per-CPU list's limit by an eighth and free what is over it; the vmstat worker calls it.

    :return: ``bool``, whether there is more to do

    Mirrors mm/page_alloc.c:decay_pcp_high().
    """
    high_min = pcp.high_min
    batch = pcp.batch
    todo = False
    if pcp.high > high_min:
        scale = zone.machine.config.PCP_BATCH_SCALE_MAX
        pcp.high = max(pcp.count - (batch << scale), pcp.high - (pcp.high >> 3), high_min)
        if pcp.high > high_min:
            todo = True
    to_drain = pcp.count - pcp.high
    while to_drain > 0:
        to_drain_batched = min(to_drain, batch)
        free_pcppages_bulk(zone, to_drain_batched, pcp, 0)
        todo = True
        to_drain -= to_drain_batched
    return todo


def drain_zone_pages(zone: Zone, pcp: PerCpuPages) -> None:
    """Free one batch from the lists that a CPU keeps of a remote node's zone.

    Mirrors mm/page_alloc.c:drain_zone_pages().
    """
    to_drain = min(pcp.count, pcp.batch)
    if to_drain > 0:
        free_pcppages_bulk(zone, to_drain, pcp, 0)


def drain_pages_zone(cpu: int, zone: Zone) -> None:
    """Empty the lists that @cpu keeps of @zone.

    Mirrors mm/page_alloc.c:drain_pages_zone().
    """
    if not zone.per_cpu_pageset:
        return
    pcp = zone.per_cpu_pageset[cpu]
    scale = zone.machine.config.PCP_BATCH_SCALE_MAX
    while pcp.count:
        free_pcppages_bulk(zone, min(pcp.count, pcp.batch << scale), pcp, 0)


def drain_pages(m: Machine, cpu: int) -> None:
    """Empty the lists that @cpu keeps of all zones.

    Mirrors mm/page_alloc.c:drain_pages().
    """
    for zone in for_each_populated_zone(m):
        drain_pages_zone(cpu, zone)


def drain_local_pages(m: Machine, zone: Zone | None = None) -> None:
    """Empty the lists of the CPU that runs now, of one zone or of all.

    Mirrors mm/page_alloc.c:drain_local_pages().
    """
    if zone is not None:
        drain_pages_zone(m.this_cpu, zone)
    else:
        drain_pages(m, m.this_cpu)


def drain_all_pages(m: Machine, zone: Zone | None = None) -> None:
    """Empty the lists of all CPUs, of one zone or of all.

    Mirrors mm/page_alloc.c:drain_all_pages().
    """
    for cpu in range(m.cpus):
        if zone is not None:
            drain_pages_zone(cpu, zone)
        else:
            drain_pages(m, cpu)


def nr_pcp_free(zone: Zone, pcp: PerCpuPages, batch: int, high: int, free_high: bool) -> int:
    """Return how many pages to give back to the buddy lists at once.

    Mirrors mm/page_alloc.c:nr_pcp_free().
    """
    if free_high:
        return min(pcp.count, batch << zone.machine.config.PCP_BATCH_SCALE_MAX)
    if high < batch:
        return 1  # per-CPU lists disabled, or the boot pageset
    min_nr_free = batch
    max_nr_free = high - batch
    return clamp(pcp.free_count, min_nr_free, max_nr_free)


def nr_pcp_high(pcp: PerCpuPages, zone: Zone, batch: int, free_high: bool) -> int:
    """Return the limit above which pages go back to the buddy lists, adapting ``pcp->high``.

    Mirrors mm/page_alloc.c:nr_pcp_high().
    """
    high_min = pcp.high_min
    high_max = pcp.high_max
    high = pcp.high
    if high >= high_max:  # clamp(), which looks at the upper bound first
        pcp.high = high = high_max
    elif high <= high_min:
        pcp.high = high = high_min
    if not high:
        return 0
    if free_high:
        pcp.high = max(high - (batch << zone.machine.config.PCP_BATCH_SCALE_MAX), high_min)
        return 0
    if zone.flags >> ZONE_RECLAIM_ACTIVE & 1:
        free_count = max(pcp.free_count, batch)
        pcp.high = max(high - free_count, high_min)
        return min(batch << 2, pcp.high)
    if high_min == high_max:
        return high
    if zone.flags >> ZONE_BELOW_HIGH & 1:
        free_count = max(pcp.free_count, batch)
        pcp.high = max(high - free_count, high_min)
        high = max(pcp.count, high_min)
    elif pcp.count >= high:
        need_high = pcp.free_count + batch
        if pcp.high < need_high:
            pcp.high = clamp(need_high, high_min, high_max)
    return high


def free_unref_page_commit(
    zone: Zone, pcp: PerCpuPages, page: Page, migratetype: int, order: int
) -> None:
    """Put a prepared block at the head of its per-CPU list, and give pages back if it is too long.

    Mirrors mm/page_alloc.c:free_unref_page_commit().
    """
    m = zone.machine
    scale = m.config.PCP_BATCH_SCALE_MAX
    pcp.alloc_factor >>= 1
    m.vm_event[PGFREE] += 1 << order
    if order > PAGE_ALLOC_COSTLY_ORDER:  # order_to_pindex()
        pindex = NR_LOWORDER_PCP_LISTS + (migratetype == MIGRATE_MOVABLE)
    else:
        pindex = MIGRATE_PCPTYPES * order + migratetype
    head = pcp.lists[pindex]
    first = head.next
    page.next = first
    page.prev = head
    first.prev = head.next = page
    pcp.count += 1 << order

    batch = pcp.batch
    free_high = False
    if order and order <= PAGE_ALLOC_COSTLY_ORDER:
        free_high = (
            pcp.free_count >= batch
            and pcp.flags & PCPF_PREV_FREE_HIGH_ORDER != 0
            and (not pcp.flags & PCPF_FREE_HIGH_BATCH or pcp.count >= batch)
        )
        pcp.flags |= PCPF_PREV_FREE_HIGH_ORDER
    elif pcp.flags & PCPF_PREV_FREE_HIGH_ORDER:
        pcp.flags &= ~PCPF_PREV_FREE_HIGH_ORDER
    if pcp.free_count < batch << scale:
        pcp.free_count += 1 << order
    high = pcp.high
    if (
        pcp.count < high
        and pcp.high_min <= high <= pcp.high_max
        and not free_high
        and not zone.flags
    ):
        return  # nr_pcp_high() would return high as it is
    high = nr_pcp_high(pcp, zone, batch, free_high)
    if pcp.count >= high:
        free_pcppages_bulk(zone, nr_pcp_free(zone, pcp, batch, high, free_high), pcp, pindex)
        if zone.flags >> ZONE_BELOW_HIGH & 1 and zone_watermark_ok(
            zone, 0, high_wmark_pages(zone), ZONE_MOVABLE, 0
        ):
            zone.flags &= ~(1 << ZONE_BELOW_HIGH)


def free_unref_page(page: Page, order: int) -> None:
    """Free a block whose last reference is gone: to a per-CPU list where its order allows.

    Mirrors mm/page_alloc.c:free_unref_page().
    """
    if order > PAGE_ALLOC_COSTLY_ORDER and order != HPAGE_PMD_ORDER:  # pcp_allowed_order()
        __free_pages_ok(page, order, FPI_NONE)
        return
    if not free_pages_prepare(page, order):
        return
    zone = page.zone
    m = zone.machine
    pfn = page.pfn
    migratetype = zone.pageblock_flags[pfn - zone.pageblock_base >> pageblock_order]
    if migratetype >= MIGRATE_PCPTYPES:
        if migratetype == MIGRATE_ISOLATE:
            free_one_page(zone, page, pfn, order, FPI_NONE)
            return
        migratetype = MIGRATE_MOVABLE
    if not zone.per_cpu_pageset or m.pcp_trylock_fails:
        free_one_page(zone, page, pfn, order, FPI_NONE)
        return
    free_unref_page_commit(zone, zone.per_cpu_pageset[m.this_cpu], page, migratetype, order)


def free_unref_folios(folios: Sequence[Folio]) -> None:
    """Free a batch of folios whose last references are gone.

    Mirrors mm/page_alloc.c:free_unref_folios().
    """
    ready: list[tuple[Folio, int]] = []
    for folio in folios:
        order = folio_order(folio)
        if not free_pages_prepare(folio, order):
            continue
        if not pcp_allowed_order(order):
            free_one_page(folio.zone, folio, folio.pfn, order, FPI_NONE)
            continue
        ready.append((folio, order))
    for folio, order in ready:
        zone = folio.zone
        m = zone.machine
        migratetype = get_pageblock_migratetype(folio)
        if migratetype == MIGRATE_ISOLATE or m.pcp_trylock_fails or not zone.per_cpu_pageset:
            free_one_page(zone, folio, folio.pfn, order, FPI_NONE)
            continue
        if migratetype >= MIGRATE_PCPTYPES:
            migratetype = MIGRATE_MOVABLE
        if m.trace.on:
            m.trace.emit("kmem:mm_page_free_batched", folio.pfn)
        pcp = zone.per_cpu_pageset[m.this_cpu]
        free_unref_page_commit(zone, pcp, folio, migratetype, order)


def split_page(page: Page, order: int) -> None:
    """Split a non-compound block in use into pages that are freed one by one.

    :raises BadPage: if it is a compound page or not in use

    Mirrors mm/page_alloc.c:split_page().
    """
    if page.folio is not None:
        raise BadPage(page.pfn, "VM_BUG_ON_PAGE(PageCompound(page))")
    if not page._refcount:
        raise BadPage(page.pfn, "VM_BUG_ON_PAGE(!page_count(page))")
    for pfn in range(page.pfn + 1, page.pfn + (1 << order)):
        zone_page(page.zone, pfn)._refcount = 1


def __isolate_free_page(page: Page, order: int) -> int:
    """Take a free block off the lists if the min watermark allows it.

    :return: ``int``, its pages, or 0

    Mirrors mm/page_alloc.c:__isolate_free_page().
    """
    zone = page.zone
    mt = get_pageblock_migratetype(page)
    if mt != MIGRATE_ISOLATE:
        watermark = zone._watermark[WMARK_MIN] + (1 << order)
        if not zone_watermark_ok(zone, 0, watermark, 0, 0):
            return 0
    del_page_from_free_list(page, zone, order, mt)
    if order >= pageblock_order - 1:
        for pfn in range(page.pfn, page.pfn + (1 << order) - 1, pageblock_nr_pages):
            block = zone_page(zone, pfn)
            mt = get_pageblock_migratetype(block)
            if migratetype_is_mergeable(mt):
                move_freepages_block(zone, block, mt, MIGRATE_MOVABLE)
    return 1 << order


def __putback_isolated_page(page: Page, order: int, mt: int) -> None:
    """Return a block that __isolate_free_page() took to the tail of its list.

    Mirrors mm/page_alloc.c:__putback_isolated_page().
    """
    __free_one_page(page, page.pfn, page.zone, order, mt, FPI_SKIP_REPORT_NOTIFY | FPI_TO_TAIL)


def zone_statistics(preferred_zone: Zone, z: Zone, nr_account: int) -> None:
    """Count an allocation as NUMA hit, miss, foreign, local or other.

    Mirrors mm/page_alloc.c:zone_statistics().
    """
    m = z.machine
    node = z.node
    events = z.vm_numa_event
    if node == preferred_zone.node:
        events[NUMA_HIT] += nr_account
    else:
        events[NUMA_MISS] += nr_account
        preferred_zone.vm_numa_event[NUMA_FOREIGN] += nr_account
    events[NUMA_LOCAL if node == m.cpu_to_node[m.this_cpu] else NUMA_OTHER] += nr_account


def rmqueue_buddy(
    preferred_zone: Zone, zone: Zone, order: int, alloc_flags: int, migratetype: int
) -> Page | None:
    """Take a block straight from the zone's free lists.

    The HIGHATOMIC lists come first for high-order atomic requests, and last, as a last resort, for
    OOM victims and requests that cannot block.

    Mirrors mm/page_alloc.c:rmqueue_buddy().
    """
    page = None
    if alloc_flags & ALLOC_HIGHATOMIC:
        page = __rmqueue_smallest(zone, order, MIGRATE_HIGHATOMIC)
    if page is None:
        page = __rmqueue(zone, order, migratetype, alloc_flags, [RMQUEUE_NORMAL])
        if page is None and alloc_flags & (ALLOC_OOM | ALLOC_NON_BLOCK):
            page = __rmqueue_smallest(zone, order, MIGRATE_HIGHATOMIC)
        if page is None:
            return None
    if zone.machine.check_pages_enabled:
        check_new_page(page)
    zone.machine.vm_event[PGALLOC_DMA + zone.zone_idx] += 1 << order
    zone_statistics(preferred_zone, zone, 1)
    return page


def check_new_page(page: Page) -> None:
    """Look at a page that is about to be handed out.

    Simplified: of a high-order block, only the head; its other pages were looked at when freed.

    :raises BadPage: if it is not in the state of a free page; the kernel would try the next one

    Mirrors mm/page_alloc.c:check_new_page().
    """
    if not page_expected_state(page, PAGE_FLAGS_CHECK_AT_PREP | 1 << PG_hwpoison):
        raise BadPage(
            page.pfn, page_bad_reason(page, PAGE_FLAGS_CHECK_AT_PREP) or "hardware poison"
        )


def nr_pcp_alloc(pcp: PerCpuPages, zone: Zone, order: int) -> int:
    """Return how many blocks to take from the buddy lists at once, adapting ``pcp->high``.

    Mirrors mm/page_alloc.c:nr_pcp_alloc().
    """
    base_batch = pcp.batch
    high_min = pcp.high_min
    high_max = pcp.high_max
    high = pcp.high = clamp(pcp.high, high_min, high_max)
    if high < base_batch:
        return 1  # per-CPU lists disabled, or the boot pageset
    batch = base_batch if order else base_batch << pcp.alloc_factor
    if high_min != high_max and not zone.flags >> ZONE_BELOW_HIGH & 1:
        high = pcp.high = min(high + batch, high_max)
    if not order:
        max_nr_alloc = max(high - pcp.count - base_batch, base_batch)
        if batch <= max_nr_alloc and pcp.alloc_factor < zone.machine.config.PCP_BATCH_SCALE_MAX:
            pcp.alloc_factor += 1
        batch = min(batch, max_nr_alloc)
    if batch > 1:
        batch = max(batch >> order, 2)
    return batch


def __rmqueue_pcplist(
    zone: Zone, order: int, migratetype: int, alloc_flags: int, pcp: PerCpuPages, head: ListHead
) -> Page | None:
    """Take the first block of a per-CPU list, refilling the list if it is empty.

    Mirrors mm/page_alloc.c:__rmqueue_pcplist().
    """
    page: Page = head.next
    if page is head:
        batch = nr_pcp_alloc(pcp, zone, order)
        alloced = rmqueue_bulk(zone, order, batch, head, migratetype, alloc_flags)
        pcp.count += alloced << order
        page = head.next
        if page is head:
            return None
    following = page.next
    head.next = following
    following.prev = head
    page.next = page.prev = None
    pcp.count -= 1 << order
    if zone.machine.check_pages_enabled and (
        page.page_type != -1 or page._refcount or page.flags or page.mapping is not None
    ):
        check_new_page(page)
    return page


def rmqueue_pcplist(
    preferred_zone: Zone, zone: Zone, order: int, migratetype: int, alloc_flags: int
) -> Page | None:
    """Take a block from the lists of the CPU that runs now.

    Mirrors mm/page_alloc.c:rmqueue_pcplist().
    """
    m = zone.machine
    if not zone.per_cpu_pageset or m.pcp_trylock_fails:
        return None
    pcp = zone.per_cpu_pageset[m.this_cpu]
    pcp.free_count >>= 1
    if order > PAGE_ALLOC_COSTLY_ORDER:  # order_to_pindex()
        head = pcp.lists[NR_LOWORDER_PCP_LISTS + (migratetype == MIGRATE_MOVABLE)]
    else:
        head = pcp.lists[MIGRATE_PCPTYPES * order + migratetype]
    page = __rmqueue_pcplist(zone, order, migratetype, alloc_flags, pcp, head)
    if page is not None:
        m.vm_event[PGALLOC_DMA + zone.zone_idx] += 1 << order
        if zone is preferred_zone and zone.node == m.cpu_to_node[m.this_cpu]:
            numa_event = zone.vm_numa_event  # zone_statistics(), its usual case
            numa_event[NUMA_HIT] += 1
            numa_event[NUMA_LOCAL] += 1
        else:
            zone_statistics(preferred_zone, zone, 1)
    return page


def rmqueue(
    preferred_zone: Zone,
    zone: Zone,
    order: int,
    gfp_flags: int,
    alloc_flags: int,
    migratetype: int,
) -> Page | None:
    """Take a block from one zone: per-CPU lists first, then the free lists.

    Mirrors mm/page_alloc.c:rmqueue().
    """
    page = None
    if order <= PAGE_ALLOC_COSTLY_ORDER or order == HPAGE_PMD_ORDER:  # pcp_allowed_order()
        page = rmqueue_pcplist(preferred_zone, zone, order, migratetype, alloc_flags)
    if page is None:
        page = rmqueue_buddy(preferred_zone, zone, order, alloc_flags, migratetype)
    if alloc_flags & ALLOC_KSWAPD and zone.flags >> ZONE_BOOSTED_WATERMARK & 1:
        zone.flags &= ~(1 << ZONE_BOOSTED_WATERMARK)
        zone.machine.hooks.wakeup_kswapd(zone, 0, 0, zone.zone_idx)
    return page


# ---- watermark tests -----------------------------------------------------------------------------


def __zone_watermark_unusable_free(z: Zone, order: int, alloc_flags: int) -> int:
    """Return how many of the zone's free pages the request cannot count on.

    Mirrors mm/page_alloc.c:__zone_watermark_unusable_free().
    """
    unusable_free = (1 << order) - 1
    if not alloc_flags & ALLOC_RESERVES:
        unusable_free += z.nr_free_highatomic
    return unusable_free


def min_with_reserves(mark: int, alloc_flags: int) -> int:
    """Return the mark as it is for requests that may use part of the reserve below it."""
    if alloc_flags & ALLOC_MIN_RESERVE:
        mark -= mark // 2
        if alloc_flags & ALLOC_NON_BLOCK:
            mark -= mark // 4
    if alloc_flags & ALLOC_OOM:
        mark -= mark // 2
    return mark


def __zone_watermark_ok(
    z: Zone, order: int, mark: int, highest_zoneidx: int, alloc_flags: int, free_pages: int
) -> bool:
    """Tell whether the zone stays above @mark if the request is served from it.

    :param mark: ``unsigned long`` (pages)
    :param highest_zoneidx: ``int``, chooses the lowmem_reserve to add to @mark
    :param free_pages: ``long`` (pages)

    Mirrors mm/page_alloc.c:__zone_watermark_ok().
    """
    free_pages -= __zone_watermark_unusable_free(z, order, alloc_flags)
    if alloc_flags & ALLOC_RESERVES:
        mark = min_with_reserves(mark, alloc_flags)
    if free_pages <= mark + z.lowmem_reserve[highest_zoneidx]:
        return False
    if not order:
        return True
    for o in range(order, NR_PAGE_ORDERS):
        area = z.free_area[o]
        if not area.nr_free:
            continue
        for mt in range(MIGRATE_PCPTYPES):
            if not free_area_empty(area, mt):
                return True
        if alloc_flags & (ALLOC_HIGHATOMIC | ALLOC_OOM) and not free_area_empty(
            area, MIGRATE_HIGHATOMIC
        ):
            return True
    return False


def zone_watermark_ok(
    z: Zone, order: int, mark: int, highest_zoneidx: int, alloc_flags: int
) -> bool:
    """Tell whether the zone, with what is free now, stays above @mark.

    Mirrors mm/page_alloc.c:zone_watermark_ok().
    """
    free_pages = max(z.vm_stat[NR_FREE_PAGES], 0)
    return __zone_watermark_ok(z, order, mark, highest_zoneidx, alloc_flags, free_pages)


def zone_watermark_fast(
    z: Zone, order: int, mark: int, highest_zoneidx: int, alloc_flags: int, gfp_mask: int
) -> bool:
    """The watermark test of the allocation path, with a shortcut for order 0.

    Order-0 requests that may use the min reserve ignore a boosted min watermark.

    Mirrors mm/page_alloc.c:zone_watermark_fast().
    """
    free_pages = z.vm_stat[NR_FREE_PAGES]
    if not order:
        # __zone_watermark_unusable_free()
        reserved = 0 if alloc_flags & ALLOC_RESERVES else z.nr_free_highatomic
        usable_free = free_pages - reserved if reserved < free_pages else 0
        if usable_free > mark + z.lowmem_reserve[highest_zoneidx]:
            return True
    if __zone_watermark_ok(z, order, mark, highest_zoneidx, alloc_flags, free_pages):
        return True
    if (
        not order
        and alloc_flags & ALLOC_MIN_RESERVE
        and z.watermark_boost
        and alloc_flags & ALLOC_WMARK_MASK == WMARK_MIN
    ):
        mark = z._watermark[WMARK_MIN]
        return __zone_watermark_ok(z, order, mark, highest_zoneidx, alloc_flags, free_pages)
    return False


def zone_watermark_ok_safe(z: Zone, order: int, mark: int, highest_zoneidx: int) -> bool:
    """The watermark test of kswapd and compaction.

    Simplified: the free pages are always exact, so there is no drift to allow for.

    Mirrors mm/page_alloc.c:zone_watermark_ok_safe().
    """
    return zone_watermark_ok(z, order, mark, highest_zoneidx, 0)


# ---- the zonelist --------------------------------------------------------------------------------


def next_zones_zonelist(
    z: Zoneref | None, highest_zoneidx: int, nodes: int | None
) -> Zoneref | None:
    """Return the first entry from @z on that lies at or below a zone index and in a node mask.

    :param nodes: ``nodemask_t *``: bit n for node n, or None for all nodes

    Mirrors include/linux/mmzone.h:next_zones_zonelist().
    """
    while z is not None and (
        z.zone_idx > highest_zoneidx or (nodes is not None and not nodes >> z.zone.node & 1)
    ):
        z = z.next
    return z


def first_zones_zonelist(
    zonelist: Zonelist, highest_zoneidx: int, nodes: int | None
) -> Zoneref | None:
    """Return the first entry of a zonelist that lies at or below a zone index and in a node mask.

    Mirrors include/linux/mmzone.h:first_zones_zonelist().
    """
    refs = zonelist._zonerefs
    return next_zones_zonelist(refs[0] if refs else None, highest_zoneidx, nodes)


def for_each_zone_zonelist_nodemask(
    zlist: Zonelist, highidx: int, nodemask: int | None = None
) -> Iterator[Zone]:
    """Yield the zones of a zonelist at or below a zone index and within a node mask.

    Mirrors include/linux/mmzone.h:for_each_zone_zonelist_nodemask().
    """
    z = first_zones_zonelist(zlist, highidx, nodemask)
    while z is not None:
        yield z.zone
        z = next_zones_zonelist(z.next, highidx, nodemask)


def node_zonelist(m: Machine, nid: int, flags: int) -> Zonelist:
    """Return the zonelist of a node for a request: its own zones only with __GFP_THISNODE.

    Mirrors include/linux/gfp.h:node_zonelist().
    """
    which = ZONELIST_NOFALLBACK if flags & __GFP_THISNODE else ZONELIST_FALLBACK
    return m.node_data[nid].node_zonelists[which]


def zone_allows_reclaim(local_zone: Zone, zone: Zone) -> bool:
    """Tell whether node_reclaim may work on a zone for the sake of another node.

    Mirrors mm/page_alloc.c:zone_allows_reclaim().
    """
    m = zone.machine
    return m.node_distance[local_zone.node][zone.node] <= RECLAIM_DISTANCE


def alloc_flags_nofragment(zone: Zone | None, gfp_mask: int) -> int:
    """Return the flags that the fast path adds: ALLOC_KSWAPD, and ALLOC_NOFRAGMENT.

    Types are kept apart at first only if the preferred zone is Normal with a DMA32 zone below it.

    Mirrors mm/page_alloc.c:alloc_flags_nofragment().
    """
    alloc_flags = gfp_mask & __GFP_KSWAPD_RECLAIM
    if zone is None or zone.zone_idx != ZONE_NORMAL:
        return alloc_flags
    if zone.machine.nr_online_nodes > 1 and not populated_zone(
        zone.zone_pgdat.node_zones[ZONE_DMA32]
    ):
        return alloc_flags
    return alloc_flags | ALLOC_NOFRAGMENT


# ---- the allocation ------------------------------------------------------------------------------


def prep_new_page(page: Page, order: int, gfp_flags: int, alloc_flags: int) -> None:
    """Make a block that left the free lists ready for its user: one reference, compound or not.

    Simplified: pages have no contents, so zeroing is an event; pfmemalloc is not marked.

    Mirrors mm/page_alloc.c:prep_new_page().
    """
    page.private = 0
    page._refcount = 1
    if order and gfp_flags & __GFP_COMP:
        prep_compound_page(page, order)
    trace = page.zone.machine.trace
    if trace.on:
        post_alloc_hook(page, order, gfp_flags)


def post_alloc_hook(page: Page, order: int, gfp_flags: int) -> None:
    """Record the zeroing: all new pages with init_on_alloc=1 (the default), else on __GFP_ZERO.

    Mirrors mm/page_alloc.c:post_alloc_hook().
    """
    m = page.zone.machine
    if m.init_on_alloc or gfp_flags & __GFP_ZERO:
        m.trace.emit("model:kernel_init_pages", page.pfn, 1 << order)


def _trace_zone(zone: Zone, wmark: int, result: str) -> None:
    """Emit what became of one zone of the walk, with the watermark that was looked at."""
    mark = zone._watermark[wmark] + zone.watermark_boost
    free = zone.vm_stat[NR_FREE_PAGES]
    zone.machine.trace.emit("model:zone_tried", zone.node, zone.zone_idx, wmark, mark, free, result)


def _zone_below_mark(
    zone: Zone, order: int, alloc_flags: int, ac: AllocContext, gfp_mask: int
) -> bool:
    """Test the watermark that the request must respect; node_reclaim may have a try to lift it.

    :return: ``bool``: True to go on to the next zone
    """
    m = zone.machine
    wmark = alloc_flags & ALLOC_WMARK_MASK
    mark = zone._watermark[wmark] + zone.watermark_boost
    if zone_watermark_fast(zone, order, mark, ac.highest_zoneidx, alloc_flags, gfp_mask):
        result = "ok"
    elif alloc_flags & ALLOC_NO_WATERMARKS:
        result = "ignored"
    else:
        result = "watermark"
        assert ac.preferred_zoneref is not None
        if m.node_reclaim_mode and zone_allows_reclaim(ac.preferred_zoneref.zone, zone):
            ret = m.hooks.node_reclaim(zone.zone_pgdat, gfp_mask, order)
            if ret not in (NODE_RECLAIM_NOSCAN, NODE_RECLAIM_FULL) and zone_watermark_ok(
                zone, order, mark, ac.highest_zoneidx, alloc_flags
            ):
                result = "reclaimed"
    if m.trace.on:
        _trace_zone(zone, wmark, result)
    return result == "watermark"


def get_page_from_freelist(
    gfp_mask: int, order: int, alloc_flags: int, ac: AllocContext
) -> Page | None:
    """Walk the zonelist and take a block from the first zone that has enough.

    Mirrors mm/page_alloc.c:get_page_from_freelist().
    """
    hi = ac.highest_zoneidx
    preferred = ac.preferred_zoneref
    last_pgdat: PgData | None = None
    dirty_ok = True
    while preferred is not None:
        no_fallback = alloc_flags & ALLOC_NOFRAGMENT
        z: Zoneref | None = preferred
        while z is not None:
            zone = z.zone
            if ac.spread_dirty_pages and last_pgdat is not zone.zone_pgdat:
                last_pgdat = zone.zone_pgdat
                dirty_ok = zone.machine.hooks.node_dirty_ok(last_pgdat)
            if z is not preferred and no_fallback and dirty_ok and zone.node != preferred.zone.node:
                # Locality matters more than avoiding fragmentation: once more, without it.
                alloc_flags &= ~ALLOC_NOFRAGMENT
                break
            try_this_zone = False
            if dirty_ok and not zone.flags & 1 << ZONE_BELOW_HIGH:
                # Probe the high mark; in a zone below it, frees keep per-CPU lists short.
                mark = zone._watermark[WMARK_HIGH] + zone.watermark_boost
                try_this_zone = zone_watermark_fast(zone, order, mark, hi, alloc_flags, gfp_mask)
                if not try_this_zone:
                    zone.flags |= 1 << ZONE_BELOW_HIGH
                elif zone.machine.trace.on:
                    _trace_zone(zone, WMARK_HIGH, "ok")
            if not try_this_zone and dirty_ok:
                try_this_zone = not _zone_below_mark(zone, order, alloc_flags, ac, gfp_mask)
            if try_this_zone:
                page = rmqueue(preferred.zone, zone, order, gfp_mask, alloc_flags, ac.migratetype)
                if page is not None:
                    prep_new_page(page, order, gfp_mask, alloc_flags)
                    if alloc_flags & ALLOC_HIGHATOMIC:
                        reserve_highatomic_pageblock(page, order, zone)
                    return page
                if zone.machine.trace.on:
                    _trace_zone(zone, alloc_flags & ALLOC_WMARK_MASK, "no page")
            z = next_zones_zonelist(z.next, hi, ac.nodemask)
        else:
            if not no_fallback:
                return None
            alloc_flags &= ~ALLOC_NOFRAGMENT
    return None


def current_gfp_context(m: Machine, flags: int) -> int:
    """Return gfp flags as the scopes that the running task has entered narrow them.

    Mirrors include/linux/sched/mm.h:current_gfp_context().
    """
    task = m.current
    pflags = m.init_task.flags if task is None else task.flags
    if pflags & PF_MEMALLOC_SCOPES:
        if pflags & PF_MEMALLOC_NOIO:
            flags &= ~(__GFP_IO | __GFP_FS)
        elif pflags & PF_MEMALLOC_NOFS:
            flags &= ~__GFP_FS
        if pflags & PF_MEMALLOC_PIN:
            flags &= ~__GFP_MOVABLE
    return flags


def prepare_alloc_pages(
    m: Machine,
    gfp_mask: int,
    order: int,
    preferred_nid: int,
    nodemask: int | None,
    ac: AllocContext,
) -> bool:
    """Work out what a request's gfp flags mean: highest zone, zonelist, migratetype, first zone.

    Simplified: no cpusets, no fault injection, no CMA, so neither gfp nor alloc_flags change.

    Mirrors mm/page_alloc.c:prepare_alloc_pages().
    """
    highest_zoneidx = GFP_ZONE_TABLE[gfp_mask & GFP_ZONEMASK]
    if highest_zoneidx < 0 or gfp_mask & GFP_MOVABLE_MASK == GFP_MOVABLE_MASK:
        gfp_zone(gfp_mask), gfp_migratetype(gfp_mask)  # say what is wrong with the flags
    ac.highest_zoneidx = highest_zoneidx
    which = ZONELIST_NOFALLBACK if gfp_mask & __GFP_THISNODE else ZONELIST_FALLBACK
    ac.zonelist = zonelist = m.node_data[preferred_nid].node_zonelists[which]
    ac.nodemask = nodemask
    ac.migratetype = (
        MIGRATE_UNMOVABLE
        if m.page_group_by_mobility_disabled
        else (gfp_mask & GFP_MOVABLE_MASK) >> GFP_MOVABLE_SHIFT
    )
    ac.spread_dirty_pages = gfp_mask & __GFP_WRITE != 0
    refs = zonelist._zonerefs
    z = refs[0] if refs else None
    if z is not None and (z.zone_idx > highest_zoneidx or nodemask is not None):
        z = next_zones_zonelist(z, highest_zoneidx, nodemask)
    ac.preferred_zoneref = z
    return True


def __alloc_pages(
    m: Machine, gfp: int, order: int, preferred_nid: int, nodemask: int | None
) -> Page | None:
    """Allocate a block of 2**@order pages: the heart of the zoned buddy allocator.

    :param gfp: ``gfp_t``
    :param order: ``unsigned int``, 0 to MAX_PAGE_ORDER (10)
    :param preferred_nid: ``int``, the node to start from
    :param nodemask: ``nodemask_t *``: bit n for node n, None for all
    :return: ``struct page *`` of the head, or None; above order 10 None, with a warning
    :raises UsageError: for a negative order, an unknown node or gfp flags that no kernel has

    Simplified: no memory cgroup is charged for __GFP_ACCOUNT, which could make the request fail.

    Mirrors mm/page_alloc.c:__alloc_pages().
    """
    if not 0 <= order <= MAX_PAGE_ORDER:
        if order < 0:
            raise UsageError(f"order is {order}; an allocation has order 0 to {MAX_PAGE_ORDER}")
        if not gfp & __GFP_NOWARN:
            warn(m, "WARN_ON_ONCE_GFP(order > MAX_PAGE_ORDER, gfp)")
        return None
    gfp &= m.gfp_allowed_mask
    task = m.current
    if (m.init_task if task is None else task).flags & PF_MEMALLOC_SCOPES:
        gfp = current_gfp_context(m, gfp)
    if preferred_nid not in m.node_data:
        raise UsageError(f"node {preferred_nid} does not exist; there are {sorted(m.node_data)}")
    ac = AllocContext()
    if not prepare_alloc_pages(m, gfp, order, preferred_nid, nodemask, ac):
        return None
    z = ac.preferred_zoneref
    alloc_flags = ALLOC_WMARK_LOW | alloc_flags_nofragment(None if z is None else z.zone, gfp)
    page = get_page_from_freelist(gfp, order, alloc_flags, ac)
    if page is None:
        ac.spread_dirty_pages = False
        ac.nodemask = nodemask
        page = __alloc_pages_slowpath(m, gfp, order, ac)
    if m.trace.on:
        pfn = (1 << 64) - 1 if page is None else page.pfn
        m.trace.emit("kmem:mm_page_alloc", pfn, order, gfp, ac.migratetype)
    return page


def warn(m: Machine, text: str) -> None:
    """What WARN_ON() does: print a line, and record it. Those of the kernel that warn once do so each time."""
    m.dmesg.append(f"WARNING: {text}")
    if m.trace.on:
        m.trace.emit("model:warn", text)


# ---- the slow path -------------------------------------------------------------------------------

#: Rounds of the slow path after which the model says that the kernel would loop for ever.
LIVELOCK_ROUNDS = 10_000


def current_task(m: Machine) -> Any:
    """Return ``current``: the running task, or the boot task while there is none."""
    return m.init_task if m.current is None else m.current


def rt_or_dl_task(p: Any) -> bool:
    """Tell whether task @p has the priority of a real-time or a deadline task.

    Mirrors include/linux/sched/rt.h:rt_or_dl_task().
    """
    return bool(p.prio < MAX_RT_PRIO)


def memalloc_flags_save(m: Machine, flags: int) -> int:
    """Set PF_MEMALLOC_* flags on the running task; return those that were not set before.

    Mirrors include/linux/sched/mm.h:memalloc_flags_save().
    """
    task = current_task(m)
    oldflags: int = ~task.flags & flags
    task.flags |= flags
    return oldflags


def memalloc_flags_restore(m: Machine, flags: int) -> None:
    """Clear the flags that memalloc_flags_save() returned.

    Mirrors include/linux/sched/mm.h:memalloc_flags_restore().
    """
    current_task(m).flags &= ~flags


def _step(m: Machine, step: str) -> None:
    """Emit a station of the slow path."""
    if m.trace.on:
        m.trace.emit("model:slowpath", step)


def gfp_to_alloc_flags(m: Machine, gfp_mask: int, order: int) -> int:
    """Return the ALLOC_* flags that the slow path works with: the min mark, and who may go below.

    Simplified: never in interrupt context, where a real-time task's rank says nothing.

    Mirrors mm/page_alloc.c:gfp_to_alloc_flags().
    """
    alloc_flags = ALLOC_WMARK_MIN | ALLOC_CPUSET
    alloc_flags |= gfp_mask & (__GFP_HIGH | __GFP_KSWAPD_RECLAIM)  # the same bits in both
    if not gfp_mask & __GFP_DIRECT_RECLAIM:
        if not gfp_mask & __GFP_NOMEMALLOC:
            alloc_flags |= ALLOC_NON_BLOCK
            if order > 0 and alloc_flags & ALLOC_MIN_RESERVE:
                alloc_flags |= ALLOC_HIGHATOMIC
        if alloc_flags & ALLOC_MIN_RESERVE:
            alloc_flags &= ~ALLOC_CPUSET
    elif rt_or_dl_task(current_task(m)):
        alloc_flags |= ALLOC_MIN_RESERVE
    return alloc_flags


def __gfp_pfmemalloc_flags(m: Machine, gfp_mask: int) -> int:
    """Return ALLOC_NO_WATERMARKS or ALLOC_OOM for a request that may use the reserves, else 0.

    Simplified: never in interrupt context.

    Mirrors mm/page_alloc.c:__gfp_pfmemalloc_flags().
    """
    if gfp_mask & __GFP_NOMEMALLOC:
        return 0
    if gfp_mask & __GFP_MEMALLOC:
        return ALLOC_NO_WATERMARKS
    task = current_task(m)
    if task.flags & PF_MEMALLOC:
        return ALLOC_NO_WATERMARKS
    if m.hooks.tsk_is_oom_victim(task):
        return ALLOC_OOM
    return 0


def gfp_pfmemalloc_allowed(m: Machine, gfp_mask: int) -> bool:
    """Tell whether the request may use the reserves.

    Mirrors mm/page_alloc.c:gfp_pfmemalloc_allowed().
    """
    return __gfp_pfmemalloc_flags(m, gfp_mask) != 0


def gfp_compaction_allowed(m: Machine, gfp_mask: int) -> bool:
    """Tell whether compaction may run for the request: it needs __GFP_IO.

    Mirrors include/linux/gfp.h:gfp_compaction_allowed().
    """
    return m.config.COMPACTION and gfp_mask & __GFP_IO != 0


def wake_all_kswapds(m: Machine, order: int, gfp_mask: int, ac: AllocContext) -> None:
    """Wake the kswapd of each node that the request may use.

    Mirrors mm/page_alloc.c:wake_all_kswapds().
    """
    _step(m, "wake_kswapd")
    last_pgdat = None
    for zone in for_each_zone_zonelist_nodemask(ac.zonelist, ac.highest_zoneidx, ac.nodemask):
        if not managed_zone(zone):
            continue
        if last_pgdat is not zone.zone_pgdat:
            m.hooks.wakeup_kswapd(zone, gfp_mask, order, ac.highest_zoneidx)
            last_pgdat = zone.zone_pgdat


def __alloc_pages_cpuset_fallback(
    gfp_mask: int, order: int, alloc_flags: int, ac: AllocContext
) -> Page | None:
    """Try within the cpuset, then without. There are no cpusets here, so both are the same.

    Mirrors mm/page_alloc.c:__alloc_pages_cpuset_fallback().
    """
    page = get_page_from_freelist(gfp_mask, order, alloc_flags | ALLOC_CPUSET, ac)
    if page is None:
        page = get_page_from_freelist(gfp_mask, order, alloc_flags, ac)
    return page


def __alloc_pages_may_oom(
    m: Machine, gfp_mask: int, order: int, ac: AllocContext
) -> tuple[Page | None, bool]:
    """Call the OOM killer unless it would not help.

    :return: a page, and the kernel's ``*did_some_progress``

    Simplified: nobody else holds oom_lock, which would count as progress, and storage is never
    suspended.

    Mirrors mm/page_alloc.c:__alloc_pages_may_oom().
    """
    _step(m, "may_oom")
    page = get_page_from_freelist(
        (gfp_mask | __GFP_HARDWALL) & ~__GFP_DIRECT_RECLAIM,
        order,
        ALLOC_WMARK_HIGH | ALLOC_CPUSET,
        ac,
    )
    if page is not None:
        return page, False
    if current_task(m).flags & PF_DUMPCORE or order > PAGE_ALLOC_COSTLY_ORDER:
        return None, False
    if gfp_mask & (__GFP_RETRY_MAYFAIL | __GFP_THISNODE) or ac.highest_zoneidx < ZONE_NORMAL:
        return None, False
    oc = OomControl(ac.zonelist, ac.nodemask, gfp_mask, order)
    progress = m.hooks.out_of_memory(m, oc)
    if not progress and gfp_mask & __GFP_NOFAIL:
        warn(m, "WARN_ON_ONCE_GFP(gfp_mask & __GFP_NOFAIL, gfp_mask)")
        progress = True
    if progress and gfp_mask & __GFP_NOFAIL:
        page = __alloc_pages_cpuset_fallback(gfp_mask, order, ALLOC_NO_WATERMARKS, ac)
    return page, progress


def __alloc_pages_direct_compact(
    m: Machine, gfp_mask: int, order: int, alloc_flags: int, ac: AllocContext, prio: int
) -> tuple[Page | None, int]:
    """Compact memory, then try again.

    :return: a page, and the kernel's ``*compact_result``

    Simplified: no pressure stall or delay accounting; pageblocks have no skip hints to flush.

    Mirrors mm/page_alloc.c:__alloc_pages_direct_compact().
    """
    if not order:
        return None, COMPACT_SKIPPED
    _step(m, "direct_compact")
    noreclaim_flag = memalloc_flags_save(m, PF_MEMALLOC)
    compact_result, page = m.hooks.try_to_compact_pages(m, gfp_mask, order, alloc_flags, ac, prio)
    memalloc_flags_restore(m, noreclaim_flag)
    if compact_result == COMPACT_SKIPPED:
        return None, compact_result
    m.vm_event[COMPACTSTALL] += 1
    if page is not None:
        prep_new_page(page, order, gfp_mask, alloc_flags)
    else:
        page = get_page_from_freelist(gfp_mask, order, alloc_flags, ac)
    if page is not None:
        zone = page.zone
        zone.compact_considered = zone.compact_defer_shift = 0  # compaction_defer_reset()
        zone.compact_order_failed = max(zone.compact_order_failed, order + 1)
        m.vm_event[COMPACTSUCCESS] += 1
        return page, compact_result
    m.vm_event[COMPACTFAIL] += 1
    return None, compact_result


class SlowPath:
    """The local variables of one walk through the slow path, which its parts share.

    :ivar alloc_flags: what the request may do now
    :ivar compact_priority: how hard compaction tries next
    :ivar compact_result: what it said last
    :ivar compaction_retries: its successes that brought no page
    :ivar no_progress_loops: rounds of reclaim without progress, in a row
    :ivar rounds: times that "retry" was passed
    """

    __slots__ = (
        "alloc_flags",
        "compact_priority",
        "compact_result",
        "compaction_retries",
        "no_progress_loops",
        "rounds",
    )

    def __init__(self, alloc_flags: int) -> None:
        self.alloc_flags = alloc_flags
        self.compact_priority = DEF_COMPACT_PRIORITY
        self.compact_result = COMPACT_SKIPPED
        self.compaction_retries = 0
        self.no_progress_loops = 0
        self.rounds = 0


def compact_result_to_feedback(result: int) -> int:
    """Return what the tracepoint makes of a compact_result: 1 failed, 2 withdrawn, 3 progress.

    Mirrors include/trace/events/mmflags.h:compact_result_to_feedback().
    """
    return {COMPACT_COMPLETE: 1, COMPACT_SUCCESS: 3}.get(result, 2)


def should_compact_retry(m: Machine, ac: AllocContext, order: int, sp: SlowPath) -> bool:
    """Tell whether compaction deserves another round, adapting its priority.

    Mirrors mm/page_alloc.c:should_compact_retry().
    """
    if not order or current_task(m).fatal_signal:
        return False
    _step(m, "should_compact_retry")
    costly = order > PAGE_ALLOC_COSTLY_ORDER
    max_retries = MAX_COMPACT_RETRIES
    priority, retries = sp.compact_priority, sp.compaction_retries
    ret = False
    if sp.compact_result == COMPACT_SKIPPED:
        ret = m.hooks.compaction_zonelist_suitable(m, ac, order, sp.alloc_flags)
    else:
        if sp.compact_result == COMPACT_SUCCESS:
            if costly:
                max_retries //= 4
            sp.compaction_retries += 1
            ret = sp.compaction_retries <= max_retries
        min_priority = MIN_COMPACT_COSTLY_PRIORITY if costly else MIN_COMPACT_PRIORITY
        if not ret and sp.compact_priority > min_priority:
            sp.compact_priority -= 1
            sp.compaction_retries = 0
            ret = True
    if m.trace.on:
        m.trace.emit(
            "oom:compact_retry",
            order,
            priority,
            compact_result_to_feedback(sp.compact_result),
            retries,
            max_retries,
            int(ret),
        )
    return ret


def __perform_reclaim(m: Machine, gfp_mask: int, order: int, ac: AllocContext) -> int:
    """Reclaim pages in the context of the caller.

    :return: ``unsigned long``, the pages that were freed

    Simplified: no lockdep annotation, no memory pressure notice to the cpuset.

    Mirrors mm/page_alloc.c:__perform_reclaim().
    """
    noreclaim_flag = memalloc_flags_save(m, PF_MEMALLOC)
    progress = m.hooks.try_to_free_pages(m, ac.zonelist, order, gfp_mask, ac.nodemask)
    memalloc_flags_restore(m, noreclaim_flag)
    return progress


def __alloc_pages_direct_reclaim(
    m: Machine, gfp_mask: int, order: int, alloc_flags: int, ac: AllocContext
) -> tuple[Page | None, int]:
    """Reclaim, then try again; once more with reserves and per-CPU lists given back.

    :return: a page, and the kernel's ``*did_some_progress``

    Mirrors mm/page_alloc.c:__alloc_pages_direct_reclaim().
    """
    _step(m, "direct_reclaim")
    did_some_progress = __perform_reclaim(m, gfp_mask, order, ac)
    if not did_some_progress:
        return None, 0
    page = get_page_from_freelist(gfp_mask, order, alloc_flags, ac)
    if page is None:
        unreserve_highatomic_pageblock(ac, False)
        drain_all_pages(m)
        page = get_page_from_freelist(gfp_mask, order, alloc_flags, ac)
    return page, did_some_progress


def should_reclaim_retry(
    m: Machine,
    gfp_mask: int,
    order: int,
    ac: AllocContext,
    sp: SlowPath,
    did_some_progress: bool,
) -> bool:
    """Tell whether reclaim deserves another round: could all that is reclaimable be enough?

    Simplified: a worker thread does not sleep a tick here, nor anybody else yield the CPU.

    Mirrors mm/page_alloc.c:should_reclaim_retry().
    """
    _step(m, "should_reclaim_retry")
    if did_some_progress and order <= PAGE_ALLOC_COSTLY_ORDER:
        sp.no_progress_loops = 0
    else:
        sp.no_progress_loops += 1
    ret = False
    if sp.no_progress_loops <= MAX_RECLAIM_RETRIES:
        for zone in for_each_zone_zonelist_nodemask(ac.zonelist, ac.highest_zoneidx, ac.nodemask):
            reclaimable = zone_reclaimable_pages(zone)
            available = reclaimable + max(zone.vm_stat[NR_FREE_PAGES], 0)
            min_wmark = min_wmark_pages(zone)
            ret = __zone_watermark_ok(
                zone, order, min_wmark, ac.highest_zoneidx, sp.alloc_flags, available
            )
            if m.trace.on:
                m.trace.emit(
                    "oom:reclaim_retry_zone",
                    zone.node,
                    zone.zone_idx,
                    order,
                    reclaimable,
                    available,
                    min_wmark,
                    sp.no_progress_loops,
                    int(ret),
                )
            if ret:
                break
    if not ret:
        return unreserve_highatomic_pageblock(ac, True) != 0
    return ret


def _slowpath_start(
    m: Machine, gfp_mask: int, order: int, ac: AllocContext, sp: SlowPath
) -> tuple[Page | None, str]:
    """The slow path up to its label "retry": wake kswapd, try at the min mark, maybe compact.

    :return: a page, and the label to go to
    """
    costly_order = order > PAGE_ALLOC_COSTLY_ORDER
    ac.preferred_zoneref = first_zones_zonelist(ac.zonelist, ac.highest_zoneidx, ac.nodemask)
    if ac.preferred_zoneref is None:
        return None, "nopage"
    if sp.alloc_flags & ALLOC_KSWAPD:
        wake_all_kswapds(m, order, gfp_mask, ac)
    _step(m, "freelist")
    page = get_page_from_freelist(gfp_mask, order, sp.alloc_flags, ac)
    if page is not None:
        return page, "got_pg"
    if (
        gfp_mask & __GFP_DIRECT_RECLAIM
        and gfp_compaction_allowed(m, gfp_mask)
        and (costly_order or (order > 0 and ac.migratetype != MIGRATE_MOVABLE))
        and not gfp_pfmemalloc_allowed(m, gfp_mask)
    ):
        page, sp.compact_result = __alloc_pages_direct_compact(
            m, gfp_mask, order, sp.alloc_flags, ac, INIT_COMPACT_PRIORITY
        )
        if page is not None:
            return page, "got_pg"
        if costly_order and gfp_mask & __GFP_NORETRY:
            if sp.compact_result in (COMPACT_SKIPPED, COMPACT_DEFERRED):
                return None, "nopage"
            if gfp_mask & __GFP_THISNODE:
                return None, "nopage"
            sp.compact_priority = INIT_COMPACT_PRIORITY
    return None, "retry"


def _slowpath_reclaim(
    m: Machine, gfp_mask: int, order: int, ac: AllocContext, sp: SlowPath
) -> tuple[Page | None, str]:
    """The slow path from direct reclaim to the OOM killer: one round of what may take long.

    :return: a page, and the label to go to
    """
    can_compact = gfp_compaction_allowed(m, gfp_mask)
    page, progress = __alloc_pages_direct_reclaim(m, gfp_mask, order, sp.alloc_flags, ac)
    if page is not None:
        return page, "got_pg"
    page, result = __alloc_pages_direct_compact(
        m, gfp_mask, order, sp.alloc_flags, ac, sp.compact_priority
    )
    if order:
        sp.compact_result = result
    if page is not None:
        return page, "got_pg"
    if gfp_mask & __GFP_NORETRY:
        return None, "nopage"
    if order > PAGE_ALLOC_COSTLY_ORDER and (not can_compact or not gfp_mask & __GFP_RETRY_MAYFAIL):
        return None, "nopage"
    if should_reclaim_retry(m, gfp_mask, order, ac, sp, progress > 0):
        return None, "retry"
    if progress > 0 and can_compact and should_compact_retry(m, ac, order, sp):
        return None, "retry"
    page, oom_progress = __alloc_pages_may_oom(m, gfp_mask, order, ac)
    if page is not None:
        return page, "got_pg"
    if m.hooks.tsk_is_oom_victim(current_task(m)) and (
        sp.alloc_flags & ALLOC_OOM or gfp_mask & __GFP_NOMEMALLOC
    ):
        return None, "nopage"
    if oom_progress:
        sp.no_progress_loops = 0
        return None, "retry"
    return None, "nopage"


def _slowpath_retry(
    m: Machine, gfp_mask: int, order: int, ac: AllocContext, sp: SlowPath
) -> tuple[Page | None, str]:
    """The slow path from its label "retry": reserves, free lists, then reclaim if it may block.

    :return: a page, and the label to go to
    """
    _step(m, "retry")
    if sp.alloc_flags & ALLOC_KSWAPD:
        wake_all_kswapds(m, order, gfp_mask, ac)
    reserve_flags = __gfp_pfmemalloc_flags(m, gfp_mask)
    if reserve_flags:
        sp.alloc_flags = reserve_flags | sp.alloc_flags & ALLOC_KSWAPD
    if not sp.alloc_flags & ALLOC_CPUSET or reserve_flags:
        ac.nodemask = None
        ac.preferred_zoneref = first_zones_zonelist(ac.zonelist, ac.highest_zoneidx, None)
    _step(m, "freelist")
    page = get_page_from_freelist(gfp_mask, order, sp.alloc_flags, ac)
    if page is not None:
        return page, "got_pg"
    if not gfp_mask & __GFP_DIRECT_RECLAIM or current_task(m).flags & PF_MEMALLOC:
        return None, "nopage"
    return _slowpath_reclaim(m, gfp_mask, order, ac, sp)


def __alloc_pages_slowpath(m: Machine, gfp_mask: int, order: int, ac: AllocContext) -> Page | None:
    """Allocate where the fast path found no zone with enough.

    Simplified: cpusets and zonelists do not change meanwhile, so nothing goes back to "restart".

    :raises KernelBug: if the kernel would loop for ever, say for __GFP_NOFAIL with nothing to reclaim

    Mirrors mm/page_alloc.c:__alloc_pages_slowpath().
    """
    nofail = gfp_mask & __GFP_NOFAIL
    can_direct_reclaim = gfp_mask & __GFP_DIRECT_RECLAIM
    if nofail and order > 1:
        warn(m, "WARN_ON_ONCE(order > 1)")
    if nofail and not can_direct_reclaim:
        warn(m, "WARN_ON_ONCE(!can_direct_reclaim)")
    if nofail and current_task(m).flags & PF_MEMALLOC:
        warn(m, "WARN_ON_ONCE(current->flags & PF_MEMALLOC)")
    _step(m, "gfp_to_alloc_flags")
    sp = SlowPath(gfp_to_alloc_flags(m, gfp_mask, order))
    page, label = _slowpath_start(m, gfp_mask, order, ac, sp)
    while True:
        while label == "retry":
            sp.rounds += 1
            if sp.rounds > LIVELOCK_ROUNDS:
                raise KernelBug(
                    f"the allocation of order {order}, gfp {gfp_mask:#x} would loop for ever: "
                    f"no page after {LIVELOCK_ROUNDS} rounds of the slow path"
                )
            page, label = _slowpath_retry(m, gfp_mask, order, ac, sp)
        if label == "got_pg":
            _step(m, "got_pg")
            return page
        _step(m, "nopage")
        if not nofail or not can_direct_reclaim:
            break
        _step(m, "nofail")
        page = __alloc_pages_cpuset_fallback(gfp_mask, order, ALLOC_MIN_RESERVE, ac)
        if page is not None:
            return page
        label = "retry"
    _step(m, "warn_alloc")
    warn_alloc(m, gfp_mask, ac.nodemask, order)
    return None


def warn_alloc(m: Machine, gfp_mask: int, nodemask: int | None, order: int) -> None:
    """Print the report of an allocation that failed, at most one in 10 seconds of machine time.

    It goes to ``machine.dmesg``, and as a whole to ``machine.alloc_failures``.

    Simplified: no stack dump; the text is that of "page allocation failure" alone.

    Mirrors mm/page_alloc.c:warn_alloc().
    """
    if m.trace.on:
        m.trace.emit("model:page_allocation_failure", order, gfp_mask)
    if gfp_mask & __GFP_NOWARN or (gfp_mask & __GFP_DMA and not has_managed_dma(m)):
        return
    if m.alloc_failures and m.clock - m.alloc_failures[-1][0] < 10_000_000_000:
        return  # __ratelimit(&nopage_rs)
    lines = show_mem.warn_alloc_lines(m, gfp_mask, nodemask, order)
    m.alloc_failures.append((m.clock, lines))
    m.dmesg.extend(lines)


def has_managed_dma(m: Machine) -> bool:
    """Tell whether any node has usable memory in ZONE_DMA.

    Mirrors mm/page_alloc.c:has_managed_dma().
    """
    return any(managed_zone(p.node_zones[ZONE_DMA]) for p in for_each_online_pgdat(m))


# ---- what others call ----------------------------------------------------------------------------


def numa_node_id(m: Machine) -> int:
    """Return the node of the CPU that runs now.

    Mirrors include/linux/topology.h:numa_node_id().
    """
    return m.cpu_to_node[m.this_cpu]


def alloc_pages(m: Machine, gfp: int, order: int) -> Page | None:
    """Allocate 2**@order pages from the node of the CPU that runs now, or what is near.

    Simplified: no memory policies, so the node is always the local one.

    :param gfp: ``gfp_t``
    :param order: ``unsigned int``
    :return: ``struct page *`` of the head, or None

    Mirrors mm/mempolicy.c:alloc_pages().
    """
    return __alloc_pages(m, gfp, order, m.cpu_to_node[m.this_cpu], None)


def alloc_pages_node(m: Machine, nid: int, gfp_mask: int, order: int) -> Page | None:
    """Allocate 2**@order pages from node @nid or what is near it; NUMA_NO_NODE (-1): the local node.

    Mirrors include/linux/gfp.h:alloc_pages_node().
    """
    if nid == NUMA_NO_NODE:
        nid = numa_node_id(m)
    return __alloc_pages(m, gfp_mask, order, nid, None)


def __folio_alloc(
    m: Machine, gfp: int, order: int, preferred_nid: int, nodemask: int | None
) -> Folio | None:
    """Allocate a folio of 2**@order pages.

    Mirrors mm/page_alloc.c:__folio_alloc().
    """
    page = __alloc_pages(m, gfp | __GFP_COMP, order, preferred_nid, nodemask)
    if page is not None and page.folio is not None and order > 1:
        page.folio.flags_1 |= 1 << PG_large_rmappable  # page_rmappable_folio()
    return page


def folio_alloc(m: Machine, gfp: int, order: int) -> Folio | None:
    """Allocate a folio of 2**@order pages from the node of the CPU that runs now.

    Mirrors mm/mempolicy.c:folio_alloc().
    """
    return __folio_alloc(m, gfp, order, numa_node_id(m), None)


def page_address(page: Page) -> int:
    """Return the address of @page in the kernel's direct map.

    Mirrors include/linux/mm.h:page_address().
    """
    base: int = page.zone.machine.page_offset_base
    return base + (page.pfn << PAGE_SHIFT)


def virt_to_page(m: Machine, addr: int) -> Page:
    """Return the page behind an address in the kernel's direct map.

    :raises UsageError: if the address lies in no zone's part of the direct map

    Mirrors arch/x86/include/asm/page.h:virt_to_page().
    """
    if addr < m.page_offset_base:
        raise UsageError(f"{addr:#x} is no address in the direct map ({m.page_offset_base:#x} up)")
    return pfn_to_page(m, addr - m.page_offset_base >> PAGE_SHIFT)


def get_free_pages(m: Machine, gfp_mask: int, order: int) -> int:
    """Allocate 2**@order pages and return their address, 0 if there are none: __get_free_pages().

    Mirrors mm/page_alloc.c:get_free_pages().
    """
    page = alloc_pages(m, gfp_mask & ~__GFP_HIGHMEM, order)
    return 0 if page is None else page_address(page)


__get_free_pages = get_free_pages


def get_zeroed_page(m: Machine, gfp_mask: int) -> int:
    """Allocate one page of zeroes and return its address, 0 if there is none.

    Mirrors mm/page_alloc.c:get_zeroed_page().
    """
    return get_free_pages(m, gfp_mask | __GFP_ZERO, 0)


def __free_pages(page: Page, order: int) -> None:
    """Drop a reference to a block of 2**@order pages; the last one frees it.

    Of a block that is not compound, a reference that is dropped while others are left still frees
    the pages behind the first.

    :raises BadPage: if the page has no reference to drop, as in a double free
    :raises UsageError: for an order that no block has

    Mirrors mm/page_alloc.c:__free_pages().
    """
    if not 0 <= order <= MAX_PAGE_ORDER:
        raise UsageError(f"order is {order}; a block has order 0 to {MAX_PAGE_ORDER}")
    refcount = page._refcount
    if refcount <= 0:
        raise BadPage(page.pfn, "VM_BUG_ON_PAGE(page_ref_count(page) == 0)")
    page._refcount = refcount - 1
    if refcount == 1:
        free_unref_page(page, order)
    elif page.folio is None:
        while order > 0:
            order -= 1
            free_unref_page(zone_page(page.zone, page.pfn + (1 << order)), order)


def free_pages(m: Machine, addr: int, order: int) -> None:
    """Free the pages at an address of the direct map.

    Mirrors mm/page_alloc.c:free_pages().
    """
    if addr:
        __free_pages(virt_to_page(m, addr), order)


def get_order(size: int) -> int:
    """Return the smallest order whose block holds @size bytes.

    Mirrors include/asm-generic/getorder.h:get_order().
    """
    return (size - 1 >> PAGE_SHIFT).bit_length()


def alloc_pages_exact(m: Machine, size: int, gfp_mask: int) -> int:
    """Allocate as many pages as @size bytes need, next to each other, and no more.

    :param size: ``size_t`` (bytes), at least 1
    :return: the address, or 0
    :raises UsageError: for a size below 1

    Mirrors mm/page_alloc.c:alloc_pages_exact().
    """
    if size < 1:
        raise UsageError(f"size is {size} bytes; it must be at least 1")
    if gfp_mask & (__GFP_COMP | __GFP_HIGHMEM):
        warn(m, "WARN_ON_ONCE(gfp_mask & (__GFP_COMP | __GFP_HIGHMEM))")
        gfp_mask &= ~(__GFP_COMP | __GFP_HIGHMEM)
    order = get_order(size)
    page = alloc_pages(m, gfp_mask, order)
    if page is None:
        return 0
    # make_alloc_exact(): a reference for each page kept, the others back to the tail of the lists
    nr = DIV_ROUND_UP(size, PAGE_SIZE)
    zone, pfn = page.zone, page.pfn
    for kept in range(pfn + nr - 1, pfn, -1):
        zone_page(zone, kept)._refcount = 1
    for unused in range(pfn + nr, pfn + (1 << order)):
        __free_pages_ok(zone_page(zone, unused), 0, FPI_TO_TAIL)
    return page_address(page)


def free_pages_exact(m: Machine, virt: int, size: int) -> None:
    """Free what alloc_pages_exact() returned for the same size.

    Mirrors mm/page_alloc.c:free_pages_exact().
    """
    for addr in range(virt, virt + ALIGN(size, PAGE_SIZE), PAGE_SIZE):
        free_pages(m, addr, 0)


def _bulk_zone(
    m: Machine, gfp: int, nr_pages: int, ac: AllocContext, alloc_flags: int
) -> Zone | None:
    """Return the first local zone that keeps its mark after @nr_pages are taken from it."""
    preferred = ac.preferred_zoneref
    z = preferred
    while z is not None:
        assert preferred is not None
        zone = z.zone
        if zone.node != preferred.zone.node:
            return None
        mark = zone._watermark[alloc_flags & ALLOC_WMARK_MASK] + zone.watermark_boost + nr_pages
        if zone_watermark_fast(zone, 0, mark, preferred.zone_idx, alloc_flags, gfp):
            return zone
        z = next_zones_zonelist(z.next, ac.highest_zoneidx, ac.nodemask)
    return None


def alloc_pages_bulk(
    m: Machine,
    gfp: int,
    preferred_nid: int,
    nodemask: int | None,
    nr_pages: int,
    page_list: ListHead | None = None,
    page_array: list[Page | None] | None = None,
) -> int:
    """Allocate single pages in bulk, onto a list or into the empty places of an array.

    :return: ``unsigned long``, the pages on the list or in the array, maybe less than asked for

    Simplified: there are no memory cgroups, with which __GFP_ACCOUNT gets a single page here.

    Mirrors mm/page_alloc.c:alloc_pages_bulk().
    """
    if (page_list is None) == (page_array is None):
        raise UsageError("give page_list or page_array, one of the two")
    nr_populated = nr_account = 0
    if page_array is not None:
        while nr_populated < nr_pages and page_array[nr_populated] is not None:
            nr_populated += 1
    if nr_pages <= 0 or (page_array is not None and nr_pages == nr_populated):
        return nr_populated

    def store(page: Page) -> None:
        if page_list is not None:
            list_add(page, page_list)
        elif page_array is not None:
            page_array[nr_populated] = page

    zone = None
    gfp &= m.gfp_allowed_mask
    ac = AllocContext()
    if nr_pages - nr_populated > 1:
        prepare_alloc_pages(m, gfp, 0, preferred_nid, nodemask, ac)
        zone = _bulk_zone(m, gfp, nr_pages, ac, ALLOC_WMARK_LOW)
    if zone is not None and zone.per_cpu_pageset and not m.pcp_trylock_fails:
        pcp = zone.per_cpu_pageset[m.this_cpu]
        head = pcp.lists[order_to_pindex(ac.migratetype, 0)]
        while nr_populated < nr_pages:
            if page_array is not None and page_array[nr_populated] is not None:
                nr_populated += 1
                continue
            page = __rmqueue_pcplist(zone, 0, ac.migratetype, ALLOC_WMARK_LOW, pcp, head)
            if page is None:
                break
            nr_account += 1
            prep_new_page(page, 0, gfp, 0)
            store(page)
            nr_populated += 1
    if nr_account:
        assert zone is not None and ac.preferred_zoneref is not None
        m.vm_event[PGALLOC_DMA + zone.zone_idx] += nr_account
        zone_statistics(ac.preferred_zoneref.zone, zone, nr_account)
        return nr_populated
    page = __alloc_pages(m, gfp, 0, preferred_nid, nodemask)
    if page is not None:
        store(page)
        nr_populated += 1
    return nr_populated


# ---- zonelists -----------------------------------------------------------------------------------


def nr_free_zone_pages(m: Machine, offset: int) -> int:
    """Return the pages above the high watermarks of the zones up to zone index @offset.

    Mirrors mm/page_alloc.c:nr_free_zone_pages().
    """
    zonelist = node_zonelist(m, numa_node_id(m), GFP_KERNEL)
    total = 0
    for zone in for_each_zone_zonelist_nodemask(zonelist, offset):
        high = high_wmark_pages(zone)
        if zone.managed_pages > high:
            total += zone.managed_pages - high
    return total


def nr_free_buffer_pages(m: Machine) -> int:
    """Return the pages above the high watermarks of the zones that GFP_USER may use.

    Mirrors mm/page_alloc.c:nr_free_buffer_pages().
    """
    return nr_free_zone_pages(m, gfp_zone(GFP_USER))


def build_zonerefs_node(pgdat: PgData, zonerefs: list[Zoneref]) -> int:
    """Append the populated zones of a node, highest first.

    :return: ``int``, how many

    Mirrors mm/page_alloc.c:build_zonerefs_node().
    """
    nr_zones = 0
    for zone in reversed(pgdat.node_zones):
        if populated_zone(zone):
            zoneref = Zoneref(zone, zone.zone_idx)
            if zonerefs:
                zonerefs[-1].next = zoneref
            zonerefs.append(zoneref)
            nr_zones += 1
    return nr_zones


def _nodes_with_memory(m: Machine) -> list[int]:
    """Return the nodes in state N_MEMORY, in ascending order."""
    return [p.node_id for p in for_each_online_pgdat(m) if any(map(populated_zone, p.node_zones))]


def cpumask_of_node(m: Machine, nid: int) -> list[int]:
    """Return the online CPUs of a node; none until the kernel has put its CPUs into the masks.

    Mirrors arch/x86/include/asm/topology.h:cpumask_of_node().
    """
    if not m.node_to_cpumask_ready:
        return []
    return [cpu for cpu, node in enumerate(m.cpu_to_node) if node == nid]


def find_next_best_node(m: Machine, node: int, used_node_mask: list[int]) -> int:
    """Return the node that follows in a node's fallback list, and mark it as used.

    The nearest, after it the next in number; one without CPUs, or less often chosen, is preferred.

    :param used_node_mask: ``nodemask_t *``: the nodes already in the list
    :return: ``int``, or NUMA_NO_NODE (-1)

    Mirrors mm/page_alloc.c:find_next_best_node().
    """
    with_memory = _nodes_with_memory(m)
    if node not in used_node_mask and node in with_memory:
        used_node_mask.append(node)
        return node
    min_val = INT_MAX
    best_node = NUMA_NO_NODE
    for n in with_memory:
        if n in used_node_mask:
            continue
        val = m.node_distance[node][n]
        val += n < node
        if cpumask_of_node(m, n):
            val += PENALTY_FOR_NODE_WITH_CPUS
        val *= MAX_NUMNODES
        val += m.node_load[n]
        if val < min_val:
            min_val = val
            best_node = n
    if best_node >= 0:
        used_node_mask.append(best_node)
    return best_node


def build_zonelists_in_node_order(m: Machine, pgdat: PgData, node_order: list[int]) -> None:
    """Build a node's fallback zonelist: node after node, and within each the highest zone first.

    Mirrors mm/page_alloc.c:build_zonelists_in_node_order().
    """
    zonerefs: list[Zoneref] = []
    for nid in node_order:
        build_zonerefs_node(m.node_data[nid], zonerefs)
    pgdat.node_zonelists[ZONELIST_FALLBACK]._zonerefs = zonerefs


def build_thisnode_zonelists(pgdat: PgData) -> None:
    """Build a node's zonelist for __GFP_THISNODE: its own zones.

    Mirrors mm/page_alloc.c:build_thisnode_zonelists().
    """
    zonerefs: list[Zoneref] = []
    build_zonerefs_node(pgdat, zonerefs)
    pgdat.node_zonelists[ZONELIST_NOFALLBACK]._zonerefs = zonerefs


def build_zonelists(m: Machine, pgdat: PgData) -> None:
    """Build both zonelists of a node.

    Mirrors mm/page_alloc.c:build_zonelists().
    """
    local_node = prev_node = pgdat.node_id
    used_mask: list[int] = []
    node_order: list[int] = []
    while (node := find_next_best_node(m, local_node, used_mask)) >= 0:
        # The first node of a distance group gets a handicap, so that nodes take turns.
        distance = m.node_distance[local_node]
        if distance[node] != distance[prev_node]:
            m.node_load[node] += 1
        node_order.append(node)
        prev_node = node
    build_zonelists_in_node_order(m, pgdat, node_order)
    build_thisnode_zonelists(pgdat)
    order = "".join(f"{nid} " for nid in node_order)
    m.pr_info(f"Fallback order for Node {local_node}: {order}")


def build_all_zonelists(m: Machine, pgdat: PgData | None = None) -> None:
    """Build the zonelists of all nodes, and decide whether grouping by mobility is worth while.

    Simplified: a node that is added later gets its lists with all others.

    Mirrors mm/page_alloc.c:build_all_zonelists().
    """
    m.node_load = [0] * (max(m.node_data, default=0) + 1)
    for node in for_each_online_pgdat(m):
        build_zonelists(m, node)
    vm_total_pages = nr_free_zone_pages(m, gfp_zone(GFP_HIGHUSER_MOVABLE))
    m.page_group_by_mobility_disabled = vm_total_pages < pageblock_nr_pages * MIGRATE_TYPES
    grouping = "off" if m.page_group_by_mobility_disabled else "on"
    m.pr_info(
        f"Built {m.nr_online_nodes} zonelists, mobility grouping {grouping}.  "
        f"Total pages: {vm_total_pages}"
    )
    policy_zone = max(  # check_highest_zone()
        (z.zone_idx for z in for_each_populated_zone(m) if z.zone_idx < ZONE_MOVABLE),
        default=ZONE_DMA,
    )
    m.pr_info(f"Policy zone: {ZONE_NAMES[policy_zone]}")


# ---- sizes of the per-CPU lists ------------------------------------------------------------------


def zone_batchsize(zone: Zone) -> int:
    """Return how many pages move between a per-CPU list and the buddy lists at once.

    Mirrors mm/page_alloc.c:zone_batchsize().
    """
    batch = min(zone.managed_pages >> 10, (1 << 20) // PAGE_SIZE)
    batch //= 4
    if batch < 1:
        batch = 1
    return rounddown_pow_of_two(batch + batch // 2) - 1


def zone_highsize(zone: Zone, batch: int, cpu_online: int, high_fraction: int) -> int:
    """Return a limit for the per-CPU lists: the low watermark or a fraction of the zone, per CPU.

    :param cpu_online: 1 while a CPU comes online that is not in the masks yet, else 0
    :param high_fraction: 0 for the low watermark

    Mirrors mm/page_alloc.c:zone_highsize().
    """
    m = zone.machine
    total_pages = zone.managed_pages // high_fraction if high_fraction else low_wmark_pages(zone)
    nr_split_cpus = len(cpumask_of_node(m, zone.node)) + cpu_online
    if not nr_split_cpus:
        nr_split_cpus = m.num_online_cpus
    return max(total_pages // nr_split_cpus, batch << 2)


def pageset_update(pcp: PerCpuPages, high_min: int, high_max: int, batch: int) -> None:
    """Set the limits of one CPU's lists.

    Mirrors mm/page_alloc.c:pageset_update().
    """
    pcp.batch = batch
    pcp.high_min = high_min
    pcp.high_max = high_max


def __zone_set_pageset_high_and_batch(zone: Zone, high_min: int, high_max: int, batch: int) -> None:
    """Set the limits of all CPUs' lists of a zone.

    Mirrors mm/page_alloc.c:__zone_set_pageset_high_and_batch().
    """
    for pcp in zone.per_cpu_pageset:
        pageset_update(pcp, high_min, high_max, batch)


def zone_set_pageset_high_and_batch(zone: Zone, cpu_online: int) -> None:
    """Work out the limits of a zone's per-CPU lists and set them if they changed.

    Mirrors mm/page_alloc.c:zone_set_pageset_high_and_batch().
    """
    new_batch = max(1, zone_batchsize(zone))
    fraction = zone.machine.percpu_pagelist_high_fraction
    new_high_min = zone_highsize(zone, new_batch, cpu_online, fraction)
    if fraction:
        new_high_max = new_high_min
    else:
        new_high_max = zone_highsize(zone, new_batch, cpu_online, MIN_PERCPU_PAGELIST_HIGH_FRACTION)
    if (
        zone.pageset_high_min == new_high_min
        and zone.pageset_high_max == new_high_max
        and zone.pageset_batch == new_batch
    ):
        return
    zone.pageset_high_min = new_high_min
    zone.pageset_high_max = new_high_max
    zone.pageset_batch = new_batch
    __zone_set_pageset_high_and_batch(zone, new_high_min, new_high_max, new_batch)


def zone_pcp_init(zone: Zone) -> None:
    """Give a zone the boot pagesets, whose limits send every page straight to the buddy lists.

    Simplified: each zone has boot pagesets of its own; in the kernel all zones share them.

    Mirrors mm/page_alloc.c:zone_pcp_init().
    """
    zone.per_cpu_pageset = [PerCpuPages() for _ in range(zone.machine.cpus)]
    zone.pageset_high_min = BOOT_PAGESET_HIGH
    zone.pageset_high_max = BOOT_PAGESET_HIGH
    zone.pageset_batch = BOOT_PAGESET_BATCH
    __zone_set_pageset_high_and_batch(zone, BOOT_PAGESET_HIGH, BOOT_PAGESET_HIGH, 1)


def setup_zone_pageset(zone: Zone) -> None:
    """Give a zone its real per-CPU lists.

    Mirrors mm/page_alloc.c:setup_zone_pageset().
    """
    zone.per_cpu_pageset = [PerCpuPages() for _ in range(zone.machine.cpus)]
    for pcp in zone.per_cpu_pageset:
        pageset_update(pcp, BOOT_PAGESET_HIGH, BOOT_PAGESET_HIGH, BOOT_PAGESET_BATCH)
    zone_set_pageset_high_and_batch(zone, 0)


def setup_per_cpu_pageset(m: Machine) -> None:
    """Give all populated zones their real per-CPU lists.

    Mirrors mm/page_alloc.c:setup_per_cpu_pageset().
    """
    for zone in for_each_populated_zone(m):
        setup_zone_pageset(zone)


def setup_pcp_cacheinfo(m: Machine, cpu: int) -> None:
    """Let a CPU keep a batch of high-order pages if its data cache is large enough for three.

    Mirrors mm/page_alloc.c:setup_pcp_cacheinfo().
    """
    for zone in for_each_populated_zone(m):
        pcp = zone.per_cpu_pageset[cpu]
        if m.per_cpu_data_slice_size >> PAGE_SHIFT > 3 * pcp.batch:
            pcp.flags |= PCPF_FREE_HIGH_BATCH
        else:
            pcp.flags &= ~PCPF_FREE_HIGH_BATCH


def zone_pcp_disable(zone: Zone) -> None:
    """Empty a zone's per-CPU lists and keep them empty until zone_pcp_enable().

    Mirrors mm/page_alloc.c:zone_pcp_disable().
    """
    __zone_set_pageset_high_and_batch(zone, 0, 0, 1)
    drain_all_pages(zone.machine, zone)


def zone_pcp_enable(zone: Zone) -> None:
    """Give a zone's per-CPU lists their limits back.

    Mirrors mm/page_alloc.c:zone_pcp_enable().
    """
    __zone_set_pageset_high_and_batch(
        zone, zone.pageset_high_min, zone.pageset_high_max, zone.pageset_batch
    )


def page_alloc_cpu_online(m: Machine, cpu: int) -> None:
    """A CPU comes online: share the limits of the per-CPU lists among one more.

    Mirrors mm/page_alloc.c:page_alloc_cpu_online().
    """
    for zone in for_each_populated_zone(m):
        zone_set_pageset_high_and_batch(zone, 1)


def page_alloc_cpu_dead(m: Machine, cpu: int) -> None:
    """A CPU is gone: empty its lists and share the limits among the others.

    Simplified: counters have no per-CPU part to fold, and there are no LRU caches to drain.

    Mirrors mm/page_alloc.c:page_alloc_cpu_dead().
    """
    drain_pages(m, cpu)
    for zone in for_each_populated_zone(m):
        zone_set_pageset_high_and_batch(zone, 0)


def adjust_managed_page_count(page: Page, count: int) -> None:
    """Count @count more pages as managed, in the zone of @page and in the machine.

    Mirrors mm/page_alloc.c:adjust_managed_page_count().
    """
    page.zone.managed_pages += count
    page.zone.machine.totalram_pages += count


def free_reserved_page(page: Page) -> None:
    """Hand a page that was reserved at boot to the allocator.

    Mirrors mm/page_alloc.c:free_reserved_page().
    """
    page.flags &= ~(1 << PG_reserved)
    page._refcount = 1
    __free_pages(page, 0)
    adjust_managed_page_count(page, 1)


# ---- watermarks and reserves ---------------------------------------------------------------------


def calculate_totalreserve_pages(m: Machine) -> None:
    """Sum up, per node and in all, what zones keep: their largest lowmem_reserve and high mark.

    Mirrors mm/page_alloc.c:calculate_totalreserve_pages().
    """
    reserve_pages = 0
    for pgdat in for_each_online_pgdat(m):
        pgdat.totalreserve_pages = 0
        for i, zone in enumerate(pgdat.node_zones):
            reserve = max(max(zone.lowmem_reserve[i:]), 0) + high_wmark_pages(zone)
            reserve = min(reserve, zone.managed_pages)
            pgdat.totalreserve_pages += reserve
            reserve_pages += reserve
    m.totalreserve_pages = reserve_pages


def setup_per_zone_lowmem_reserve(m: Machine) -> None:
    """Work out what each zone keeps from requests that could use a higher zone.

    Mirrors mm/page_alloc.c:setup_per_zone_lowmem_reserve().
    """
    for pgdat in for_each_online_pgdat(m):
        for i in range(MAX_NR_ZONES - 1):
            zone = pgdat.node_zones[i]
            ratio = m.sysctl_lowmem_reserve_ratio[i]
            clear = not ratio or not zone.managed_pages
            managed_pages = 0
            for j in range(i + 1, MAX_NR_ZONES):
                managed_pages += pgdat.node_zones[j].managed_pages
                zone.lowmem_reserve[j] = 0 if clear else managed_pages // ratio
    calculate_totalreserve_pages(m)


def __setup_per_zone_wmarks(m: Machine) -> None:
    """Work out each zone's watermarks from min_free_kbytes and watermark_scale_factor.

    Mirrors mm/page_alloc.c:__setup_per_zone_wmarks().
    """
    pages_min = m.min_free_kbytes >> PAGE_SHIFT - 10
    lowmem_pages = sum(z.managed_pages for z in for_each_zone(m) if z.zone_idx != ZONE_MOVABLE)
    for zone in for_each_zone(m):
        managed = zone.managed_pages
        tmp = pages_min * managed // lowmem_pages if lowmem_pages else 0
        watermark = zone._watermark
        if zone.zone_idx == ZONE_MOVABLE:
            watermark[WMARK_MIN] = clamp(managed // 1024, SWAP_CLUSTER_MAX, 128)
        else:
            watermark[WMARK_MIN] = tmp
        tmp = max(tmp >> 2, mult_frac(managed, m.watermark_scale_factor, 10000))
        zone.watermark_boost = 0
        watermark[WMARK_LOW] = watermark[WMARK_MIN] + tmp
        watermark[WMARK_HIGH] = watermark[WMARK_LOW] + tmp
        watermark[WMARK_PROMO] = watermark[WMARK_HIGH] + tmp
    calculate_totalreserve_pages(m)


def setup_per_zone_wmarks(m: Machine) -> None:
    """Work out each zone's watermarks, and the limits of the per-CPU lists that follow from them.

    Mirrors mm/page_alloc.c:setup_per_zone_wmarks().
    """
    __setup_per_zone_wmarks(m)
    for zone in for_each_zone(m):
        zone_set_pageset_high_and_batch(zone, 0)


def calculate_min_free_kbytes(m: Machine) -> None:
    """Set min_free_kbytes from the amount of memory, unless the user has set a larger value.

    Mirrors mm/page_alloc.c:calculate_min_free_kbytes().
    """
    lowmem_kbytes = nr_free_buffer_pages(m) * (PAGE_SIZE >> 10)
    new_min_free_kbytes = int_sqrt(lowmem_kbytes * 16)
    if new_min_free_kbytes > m.user_min_free_kbytes:
        m.min_free_kbytes = clamp(new_min_free_kbytes, 128, 262144)
    else:
        m.pr_info(
            f"min_free_kbytes is not updated to {new_min_free_kbytes} because user defined value "
            f"{m.user_min_free_kbytes} is preferred"
        )


def init_per_zone_wmark_min(m: Machine) -> None:
    """Set up watermarks and reserves: at boot, and when memory is added or removed.

    Simplified: the thresholds for folding per-CPU counters are set by the boot, after this.

    Mirrors mm/page_alloc.c:init_per_zone_wmark_min().
    """
    calculate_min_free_kbytes(m)
    setup_per_zone_wmarks(m)
    setup_per_zone_lowmem_reserve(m)
    setup_min_unmapped_ratio(m)
    setup_min_slab_ratio(m)
    khugepaged.khugepaged_min_free_kbytes_update(m)


def setup_min_unmapped_ratio(m: Machine) -> None:
    """Work out, per node, the file pages below which node_reclaim does not start.

    Mirrors mm/page_alloc.c:setup_min_unmapped_ratio().
    """
    for pgdat in for_each_online_pgdat(m):
        pgdat.min_unmapped_pages = sum(
            z.managed_pages * m.sysctl_min_unmapped_ratio // 100 for z in pgdat.node_zones
        )


def setup_min_slab_ratio(m: Machine) -> None:
    """Work out, per node, the slab pages below which node_reclaim leaves slabs alone.

    Mirrors mm/page_alloc.c:setup_min_slab_ratio().
    """
    for pgdat in for_each_online_pgdat(m):
        pgdat.min_slab_pages = sum(
            z.managed_pages * m.sysctl_min_slab_ratio // 100 for z in pgdat.node_zones
        )


# ---- /proc/sys/vm --------------------------------------------------------------------------------


def _in_range(value: int, low: int, high: int = INT_MAX) -> bool:
    return low <= value <= high


def min_free_kbytes_sysctl_handler(m: Machine, write: bool, value: int = 0) -> int:
    """Write vm.min_free_kbytes (kB, at least 0): the user's value stays, the watermarks follow.

    :return: ``int``, 0 or -EINVAL

    Mirrors mm/page_alloc.c:min_free_kbytes_sysctl_handler().
    """
    if write:
        if not _in_range(value, 0):
            return -EINVAL
        m.min_free_kbytes = m.user_min_free_kbytes = value
        setup_per_zone_wmarks(m)
    return 0


def watermark_scale_factor_sysctl_handler(m: Machine, write: bool, value: int = 0) -> int:
    """Write vm.watermark_scale_factor (1/10000 of the zone, 1 to 3000).

    :return: ``int``, 0 or -EINVAL

    Mirrors mm/page_alloc.c:watermark_scale_factor_sysctl_handler().
    """
    if write:
        if not _in_range(value, 1, 3000):
            return -EINVAL
        m.watermark_scale_factor = value
        setup_per_zone_wmarks(m)
    return 0


def lowmem_reserve_ratio_sysctl_handler(m: Machine, write: bool, values: Iterable[int] = ()) -> int:
    """Read or write vm.lowmem_reserve_ratio; either way the reserves are worked out afresh.

    :param values: the ratios of the lowest zones; zones that are not named keep theirs
    :return: ``int``, 0

    Mirrors mm/page_alloc.c:lowmem_reserve_ratio_sysctl_handler().
    """
    ratio = m.sysctl_lowmem_reserve_ratio
    if write:
        for i, value in zip(range(MAX_NR_ZONES), values, strict=False):
            ratio[i] = value
    ratio[:] = [value if value >= 1 else 0 for value in ratio]
    setup_per_zone_lowmem_reserve(m)
    return 0


def percpu_pagelist_high_fraction_sysctl_handler(m: Machine, write: bool, value: int = 0) -> int:
    """Write vm.percpu_pagelist_high_fraction: 0 for limits that adapt, or at least 8.

    :return: ``int``, 0 or -EINVAL

    Mirrors mm/page_alloc.c:percpu_pagelist_high_fraction_sysctl_handler().
    """
    if write:
        if not _in_range(value, 0) or 0 < value < MIN_PERCPU_PAGELIST_HIGH_FRACTION:
            return -EINVAL
        if value != m.percpu_pagelist_high_fraction:
            m.percpu_pagelist_high_fraction = value
            for zone in for_each_populated_zone(m):
                zone_set_pageset_high_and_batch(zone, 0)
    return 0


def watermark_boost_factor_sysctl_handler(m: Machine, write: bool, value: int = 0) -> int:
    """Write vm.watermark_boost_factor (1/10000 of the high mark, 0 switches boosting off).

    The kernel has no handler of its own for it; the value alone is stored.

    :return: ``int``, 0 or -EINVAL
    """
    if write:
        if not _in_range(value, 0):
            return -EINVAL
        m.watermark_boost_factor = value
    return 0


# ---- contiguous ranges ---------------------------------------------------------------------------


def __alloc_contig_verify_gfp_mask(gfp_mask: int) -> tuple[int, int]:
    """Check the flags for alloc_contig_range(): only reclaim and a few action flags are allowed.

    :return: 0 or -EINVAL, and the flags for migration

    Mirrors mm/page_alloc.c:__alloc_contig_verify_gfp_mask().
    """
    reclaim_mask = __GFP_IO | __GFP_FS | __GFP_RECLAIM
    cc_action_mask = __GFP_RETRY_MAYFAIL | __GFP_NOWARN
    action_mask = cc_action_mask | __GFP_COMP | __GFP_ZERO | __GFP_ZEROTAGS
    action_mask |= __GFP_SKIP_ZERO | __GFP_SKIP_KASAN
    gfp_mask &= ~(
        GFP_ZONEMASK
        | __GFP_RECLAIMABLE
        | __GFP_WRITE
        | __GFP_HARDWALL
        | __GFP_THISNODE
        | __GFP_MOVABLE
    )
    if gfp_mask & ~(reclaim_mask | action_mask):
        return -EINVAL, 0
    gfp_cc_mask = gfp_mask & (reclaim_mask | cc_action_mask)
    return 0, gfp_cc_mask | __GFP_HARDWALL | __GFP_MOVABLE | __GFP_RETRY_MAYFAIL


def split_free_pages(freepages: list[list[Page]], gfp_mask: int) -> None:
    """Make isolated free blocks pages in use, with a reference each.

    Mirrors mm/page_alloc.c:split_free_pages().
    """
    for order, pages in enumerate(freepages):
        for page in pages:
            page.private = 0
            page._refcount = 1
            if page.zone.machine.trace.on:
                post_alloc_hook(page, order, gfp_mask)
            if order:
                split_page(page, order)


def alloc_contig_range(m: Machine, start: int, end: int, migratetype: int, gfp_mask: int) -> int:
    """Allocate exactly the pages [@start, @end), moving away what is movable there.

    :param start: ``unsigned long`` pfn
    :param end: ``unsigned long`` pfn, one past the last; both in one zone
    :param migratetype: the type that the pageblocks get again: MIGRATE_MOVABLE
    :return: ``int``: 0, -EBUSY if something cannot be moved, -EINVAL for flags that are not allowed,
        or what ``hooks.migrate_range`` returned (-ENOMEM, -EINTR)
    :raises UsageError: if the range is empty or leaves its zone

    Mirrors mm/page_alloc.c:alloc_contig_range().
    """
    from mmcore.mm import compaction

    zone = m.pfn_zone(start)
    if zone is None or end <= start or not zone_spans_pfn(zone, end - 1):
        raise UsageError(f"[{start:#x}, {end:#x}) is not a range of pfns within one zone")
    gfp_mask = current_gfp_context(m, gfp_mask)
    ret, gfp_cc_mask = __alloc_contig_verify_gfp_mask(gfp_mask)
    if ret:
        return ret
    ret = page_isolation.start_isolate_page_range(m, start, end, migratetype, 0, gfp_mask)
    if not ret:
        drain_all_pages(m, zone)
        ret = m.hooks.migrate_range(zone, start, end, migratetype, gfp_cc_mask)
        if not ret or ret == -EBUSY:
            ret = _take_isolated_range(m, compaction, zone, start, end, gfp_mask)
    page_isolation.undo_isolate_page_range(m, start, end, migratetype)
    return ret


def _take_isolated_range(
    m: Machine, compaction: Any, zone: Zone, start: int, end: int, gfp_mask: int
) -> int:
    """Take an isolated range off the free lists: the second half of alloc_contig_range()."""
    outer_start = find_large_buddy(zone, start)
    if page_isolation.test_pages_isolated(m, outer_start, end, 0):
        return -EBUSY
    outer_end, freepages = compaction.isolate_freepages_range(zone, outer_start, end)
    if not outer_end:
        return -EBUSY
    nr_pages = end - start
    if not gfp_mask & __GFP_COMP:
        split_free_pages(freepages, gfp_mask)
        if start != outer_start:
            free_contig_range(m, outer_start, start - outer_start)
        if end != outer_end:
            free_contig_range(m, end, outer_end - end)
        return 0
    if start == outer_start and end == outer_end and nr_pages & (nr_pages - 1) == 0:
        order = nr_pages.bit_length() - 1
        prep_new_page(zone_page(zone, start), order, gfp_mask, 0)
        return 0
    warn(
        m,
        f"PFN range: requested [{start}, {end}), allocated [{outer_start}, {outer_end})",
    )
    return -EINVAL


def pfn_range_valid_contig(m: Machine, z: Zone, start_pfn: int, nr_pages: int) -> bool:
    """Tell whether a range could be asked for: in the zone, nothing reserved.

    Simplified: every pfn of the zone's span counts as online, and there are no hugetlb pages.

    Mirrors mm/page_alloc.c:pfn_range_valid_contig().
    """
    for pfn in range(start_pfn, start_pfn + nr_pages):
        if not zone_spans_pfn(z, pfn):
            return False
        page = z.mem_map.get(pfn)
        if page is not None and page.flags >> PG_reserved & 1:
            return False
    return True


def alloc_contig_pages(
    m: Machine, nr_pages: int, gfp_mask: int, nid: int, nodemask: int | None = None
) -> Page | None:
    """Find and allocate @nr_pages pages next to each other, any number of them.

    :param nr_pages: ``unsigned long``; if a power of two, the range is aligned to it
    :return: ``struct page *`` of the first, or None

    Mirrors mm/page_alloc.c:alloc_contig_pages().
    """
    if nr_pages < 1:
        raise UsageError(f"nr_pages is {nr_pages}; it must be at least 1")
    zonelist = node_zonelist(m, nid, gfp_mask)
    for zone in for_each_zone_zonelist_nodemask(zonelist, gfp_zone(gfp_mask), nodemask):
        pfn = ALIGN(zone.zone_start_pfn, nr_pages)
        while zone_spans_pfn(zone, pfn + nr_pages - 1):
            if pfn_range_valid_contig(m, zone, pfn, nr_pages) and not alloc_contig_range(
                m, pfn, pfn + nr_pages, MIGRATE_MOVABLE, gfp_mask
            ):
                return zone_page(zone, pfn)
            pfn += nr_pages
    return None


def free_contig_range(m: Machine, pfn: int, nr_pages: int) -> None:
    """Free the pages that alloc_contig_range() allocated.

    Mirrors mm/page_alloc.c:free_contig_range().
    """
    from mmcore.mm import swap  # which needs Machine, and so cannot be imported above

    folio = pfn_to_page(m, pfn)
    if folio.folio is not None:
        expected = folio.folio._folio_nr_pages
        if nr_pages == expected:
            swap.folio_put(folio)
        else:
            warn(m, f"PFN {pfn}: nr_pages {nr_pages} != expected {expected}")
        return
    count = 0
    for page_pfn in range(pfn, pfn + nr_pages):
        page = zone_page(folio.zone, page_pfn)
        count += page._refcount != 1
        __free_pages(page, 0)
    if count:
        warn(m, f"{count} pages are still in use!")


def is_free_buddy_page(page: Page) -> bool:
    """Tell whether @page is part of a free block.

    Mirrors mm/page_alloc.c:is_free_buddy_page().
    """
    for order in range(NR_PAGE_ORDERS):
        head = page.zone.mem_map.get(page.pfn & -(1 << order))
        if head is not None and head.page_type == PAGE_TYPE_BUDDY and head.private >= order:
            return True
    return False


def break_down_buddy_pages(
    zone: Zone, page: Page, target: Page, low: int, high: int, migratetype: int
) -> None:
    """Split a block so that only @target stays out of the free lists.

    Mirrors mm/page_alloc.c:break_down_buddy_pages().
    """
    size = 1 << high
    while high > low:
        high -= 1
        size >>= 1
        upper = zone_page(zone, page.pfn + size)
        if target.pfn >= upper.pfn:
            current_buddy, page = page, upper
        else:
            current_buddy = upper
        __add_to_free_list(current_buddy, zone, high, migratetype, False)
        account_freepages(zone, 1 << high, migratetype)
        set_buddy_order(current_buddy, high)


def take_page_off_buddy(page: Page) -> bool:
    """Take one page out of the free block it is part of, for good: it is broken.

    Simplified: the page is not marked as taken off, and so not put back by unpoison_memory().

    Mirrors mm/page_alloc.c:take_page_off_buddy().
    """
    zone = page.zone
    for order in range(NR_PAGE_ORDERS):
        head = zone.mem_map.get(page.pfn & -(1 << order))
        if head is None:
            continue
        if head.page_type == PAGE_TYPE_BUDDY and head.private >= order:
            page_order = head.private
            migratetype = get_pageblock_migratetype(head)
            del_page_from_free_list(head, zone, page_order, migratetype)
            break_down_buddy_pages(zone, head, page, 0, page_order, migratetype)
            return True
        if head._refcount > 0:
            break
    return False


# ---- checking ------------------------------------------------------------------------------------


def _validate_free_block(zone: Zone, page: Page, order: int, mt: int, strict: bool) -> None:
    """Check one block of a free list."""
    pfn = page.pfn
    where = f"{zone.name}: block {pfn:#x} on list order {order} type {mt}"

    def check(ok: bool, what: str) -> None:
        if not ok:
            raise KernelBug(f"validate_zone: {where}: {what}")

    check(zone.mem_map.get(pfn) is page, "is not the zone's page of that pfn")
    check(page.page_type == PAGE_TYPE_BUDDY, f"page_type is {page.page_type:#x}, not PGTY_buddy")
    check(page.private == order, f"private says order {page.private}")
    check(page._refcount == 0, f"_refcount is {page._refcount}")
    check(page.folio is None, "is a compound page")
    check(pfn & (1 << order) - 1 == 0, "is not aligned to its order")
    check(
        zone_spans_pfn(zone, pfn) and zone_spans_pfn(zone, pfn + (1 << order) - 1),
        "leaves the zone",
    )
    base = zone.pageblock_base
    for block_pfn in range(pfn, pfn + (1 << order), pageblock_nr_pages):
        block_mt = zone.pageblock_flags[block_pfn - base >> pageblock_order]
        check(block_mt == mt, f"its pageblock {block_pfn:#x} has type {block_mt}")
    if order < MAX_PAGE_ORDER and (strict or order < pageblock_order):
        buddy = find_buddy_page_pfn(zone, pfn, order)
        if buddy is not None:
            buddy_mt = get_pageblock_migratetype(buddy)
            mergeable = mt == buddy_mt or (mt < MIGRATE_PCPTYPES and buddy_mt < MIGRATE_PCPTYPES)
            check(not mergeable, f"its buddy {buddy.pfn:#x} is free too and was not merged")


def _walk(head: ListHead, limit: int, what: str) -> list[Page]:
    """Return the entries of a list, checking both links."""
    pages: list[Page] = []
    entry = head
    while entry.next is not head:
        following = entry.next
        if following is None or following.prev is not entry:
            raise KernelBug(f"validate_zone: {what}: list corruption after {len(pages)} entries")
        entry = following
        pages.append(entry)
        if len(pages) > limit:
            raise KernelBug(f"validate_zone: {what}: more entries than pages, the list has a loop")
    if head.prev is not entry:
        raise KernelBug(f"validate_zone: {what}: the head's prev is not the last entry")
    return pages


def _validate_free_lists(zone: Zone, strict: bool, spans: list[tuple[int, int]]) -> None:
    """Check the free lists and what is counted of them; append the blocks to @spans."""
    limit = zone.spanned_pages
    total = highatomic = blocks = 0
    for order, area in enumerate(zone.free_area):
        nr_free = 0
        for mt in range(MIGRATE_TYPES):
            what = f"{zone.name}: order {order} type {mt}"
            for page in _walk(area.free_list[mt], limit, what):
                _validate_free_block(zone, page, order, mt, strict)
                spans.append((page.pfn, 1 << order))
                nr_free += 1
                total += (1 << order) * (mt != MIGRATE_ISOLATE)
                highatomic += (1 << order) * (mt == MIGRATE_HIGHATOMIC)
        if area.nr_free != nr_free:
            raise KernelBug(
                f"validate_zone: {zone.name}: order {order}: nr_free is {area.nr_free}, "
                f"the lists hold {nr_free}"
            )
        blocks += nr_free
    buddies = sum(page.page_type == PAGE_TYPE_BUDDY for page in zone.mem_map.values())
    for name, counted, found in (
        ("NR_FREE_PAGES", zone.vm_stat[NR_FREE_PAGES], total),
        ("nr_free_highatomic", zone.nr_free_highatomic, highatomic),
        ("pages marked PGTY_buddy", buddies, blocks),
    ):
        if counted != found:
            raise KernelBug(
                f"validate_zone: {zone.name}: {name} is {counted}, the lists hold {found}"
            )


def _validate_pcp(zone: Zone, cpu: int, pcp: PerCpuPages, spans: list[tuple[int, int]]) -> None:
    """Check the lists that one CPU keeps of the zone; append the blocks to @spans."""
    count = 0
    for pindex, head in enumerate(pcp.lists):
        order = pindex_to_order(pindex)
        what = f"{zone.name}: cpu {cpu} pcp list {pindex}"
        for page in _walk(head, zone.spanned_pages, what):
            count += 1 << order
            spans.append((page.pfn, 1 << order))
            if zone.mem_map.get(page.pfn) is not page or page.pfn & (1 << order) - 1:
                raise KernelBug(f"validate_zone: {what}: {page!r} does not belong there")
            if page.page_type != -1 or page._refcount:
                raise KernelBug(f"validate_zone: {what}: {page!r} is not a page waiting for use")
    if pcp.count != count:
        raise KernelBug(
            f"validate_zone: {zone.name}: cpu {cpu}: pcp count is {pcp.count}, the lists hold {count}"
        )


def validate_zone(zone: Zone, *, strict: bool = True) -> None:
    """Check everything that must hold of a zone's free lists, per-CPU lists and counters.

    Free blocks are aligned, lie in the zone, on the list of their pageblocks' type, with no mergeable
    buddy free beside them; no page is on two lists; what is counted is what is there; the watermarks
    are equally far apart.

    :param strict: also no mergeable free buddies of pageblock size. The kernel leaves such a pair
        unmerged after it gives back a HIGHATOMIC pageblock, so pass False where that happens
    :raises KernelBug: saying what does not hold
    """
    spans: list[tuple[int, int]] = []
    _validate_free_lists(zone, strict, spans)
    for cpu, pcp in enumerate(zone.per_cpu_pageset):
        _validate_pcp(zone, cpu, pcp, spans)
    spans.sort()
    end = zone.zone_start_pfn
    for pfn, size in spans:
        if pfn < end:
            raise KernelBug(f"validate_zone: {zone.name}: page {pfn:#x} is free twice")
        end = pfn + size
    for pfn, page in zone.mem_map.items():
        if page.pfn != pfn or page.zone is not zone:
            raise KernelBug(f"validate_zone: {zone.name}: mem_map[{pfn:#x}] is {page!r}")
    low, high = zone._watermark[WMARK_LOW], zone._watermark[WMARK_HIGH]
    gaps = low - zone._watermark[WMARK_MIN], high - low, zone._watermark[WMARK_PROMO] - high
    if gaps[0] != gaps[1] or gaps[1] != gaps[2]:
        raise KernelBug(f"validate_zone: {zone.name}: watermarks {zone._watermark} are uneven")


__all__ = [
    *[
        name
        for name, value in globals().items()
        if getattr(value, "__module__", "") == __name__ and not name.startswith("_")
    ],
    *[
        name
        for name, value in globals().items()
        if name.startswith("__")
        and not name.endswith("__")
        and getattr(value, "__module__", "") == __name__
    ],
    "BOOT_PAGESET_BATCH",
    "BOOT_PAGESET_HIGH",
    "FPI_NONE",
    "FPI_SKIP_REPORT_NOTIFY",
    "FPI_TO_TAIL",
    "LIVELOCK_ROUNDS",
    "MAX_COMPACT_RETRIES",
    "MEMINIT_EARLY",
    "MEMINIT_HOTPLUG",
    "MIN_PERCPU_PAGELIST_HIGH_FRACTION",
    "NUMA_NO_NODE",
    "PAGE_OFFSET",
    "RMQUEUE_CLAIM",
    "RMQUEUE_CMA",
    "RMQUEUE_NORMAL",
    "RMQUEUE_STEAL",
    "SWAP_CLUSTER_MAX",
    "fallbacks",
]
