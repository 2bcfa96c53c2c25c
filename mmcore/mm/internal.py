"""What the memory manager's own files share: allocation flags, the buddy's arithmetic, hooks.

Mirrors mm/internal.h, and the task flags of include/linux/sched.h that the allocator looks at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmcore.mm.mm_types import LargeFolio, Page
from mmcore.mm.mmzone import WMARK_HIGH, WMARK_LOW, WMARK_MIN
from mmcore.mm.page_flags import PAGE_TYPE_BUDDY, PG_head
from mmcore.mm.vmstat import (
    ALLOCSTALL_DMA,
    NR_FREE_PAGES,
    NR_ZONE_ACTIVE_ANON,
    NR_ZONE_ACTIVE_FILE,
    NR_ZONE_INACTIVE_ANON,
    NR_ZONE_INACTIVE_FILE,
    count_vm_event,
    zone_page_state,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.mmzone import PgData, Zone, Zonelist, Zoneref

# What an allocation may do; the low bits are an index to zone->_watermark.
ALLOC_WMARK_MIN = WMARK_MIN
ALLOC_WMARK_LOW = WMARK_LOW
ALLOC_WMARK_HIGH = WMARK_HIGH
ALLOC_NO_WATERMARKS = 0x04
ALLOC_WMARK_MASK = ALLOC_NO_WATERMARKS - 1
ALLOC_OOM = 0x08
ALLOC_NON_BLOCK = 0x10
ALLOC_MIN_RESERVE = 0x20
ALLOC_CPUSET = 0x40
ALLOC_CMA = 0x80
ALLOC_NOFRAGMENT = 0x100
ALLOC_HIGHATOMIC = 0x200
ALLOC_KSWAPD = 0x800
ALLOC_RESERVES = ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC | ALLOC_OOM
#: The flags by name; a mark of 0 (WMARK_MIN) has no bit.
ALLOC_FLAG_NAMES: tuple[tuple[int, str], ...] = (
    (ALLOC_NO_WATERMARKS, "ALLOC_NO_WATERMARKS"),
    (ALLOC_OOM, "ALLOC_OOM"),
    (ALLOC_NON_BLOCK, "ALLOC_NON_BLOCK"),
    (ALLOC_MIN_RESERVE, "ALLOC_MIN_RESERVE"),
    (ALLOC_CPUSET, "ALLOC_CPUSET"),
    (ALLOC_CMA, "ALLOC_CMA"),
    (ALLOC_NOFRAGMENT, "ALLOC_NOFRAGMENT"),
    (ALLOC_HIGHATOMIC, "ALLOC_HIGHATOMIC"),
    (ALLOC_KSWAPD, "ALLOC_KSWAPD"),
)

MAX_RECLAIM_RETRIES = 16

# include/linux/sched.h: the flags of a task that change how it may allocate.
PF_WQ_WORKER = 0x00000020
PF_EXITING = 0x00000004
PF_DUMPCORE = 0x00000200
PF_MEMALLOC = 0x00000800
PF_MEMALLOC_NOFS = 0x00040000
PF_MEMALLOC_NOIO = 0x00080000
PF_KTHREAD = 0x00200000
PF_MEMALLOC_PIN = 0x10000000

#: Priorities of include/linux/sched/prio.h: real-time tasks are below MAX_RT_PRIO.
MAX_RT_PRIO = 100
DEFAULT_PRIO = 120

# enum compact_priority and enum compact_result (include/linux/compaction.h)
COMPACT_PRIO_SYNC_FULL = 0
COMPACT_PRIO_SYNC_LIGHT = 1
COMPACT_PRIO_ASYNC = 2
MIN_COMPACT_PRIORITY = COMPACT_PRIO_SYNC_FULL
MIN_COMPACT_COSTLY_PRIORITY = COMPACT_PRIO_SYNC_LIGHT
DEF_COMPACT_PRIORITY = COMPACT_PRIO_SYNC_LIGHT
INIT_COMPACT_PRIORITY = COMPACT_PRIO_ASYNC
COMPACT_NOT_SUITABLE_ZONE = 0
COMPACT_SKIPPED = 1
COMPACT_DEFERRED = 2
COMPACT_NO_SUITABLE_PAGE = 3
COMPACT_CONTINUE = 4
COMPACT_COMPLETE = 5
COMPACT_PARTIAL_SKIPPED = 6
COMPACT_CONTENDED = 7
COMPACT_SUCCESS = 8
COMPACT_RESULT_NAMES: tuple[str, ...] = (
    "not_suitable_zone",
    "skipped",
    "deferred",
    "no_suitable_page",
    "continue",
    "complete",
    "partial_skipped",
    "contended",
    "success",
)

# What node_reclaim() may answer.
NODE_RECLAIM_NOSCAN = -2
NODE_RECLAIM_FULL = -1
NODE_RECLAIM_SOME = 0
NODE_RECLAIM_SUCCESS = 1


def alloc_flags_str(alloc_flags: int) -> str:
    """Return @alloc_flags by name, the watermark first: ``ALLOC_WMARK_LOW|ALLOC_KSWAPD``."""
    names = [("ALLOC_WMARK_MIN", "ALLOC_WMARK_LOW", "ALLOC_WMARK_HIGH", "3")[alloc_flags & 3]]
    if alloc_flags & ALLOC_NO_WATERMARKS:
        names = []
    names += [name for bit, name in ALLOC_FLAG_NAMES if alloc_flags & bit]
    return "|".join(names)


class AllocContext:
    """``struct alloc_context``: what stays the same while one request walks the zonelist.

    :ivar zonelist: the zones to try, in order
    :ivar nodemask: the allowed nodes as a bit mask, or None for all
    :ivar preferred_zoneref: where the walk starts
    :ivar migratetype: the type asked for
    :ivar highest_zoneidx: highest zone the request may use; also the index to lowmem_reserve
    :ivar spread_dirty_pages: the page is going to be written, keep nodes below their dirty limit

    Mirrors mm/internal.h:alloc_context.
    """

    __slots__ = (
        "highest_zoneidx",
        "migratetype",
        "nodemask",
        "preferred_zoneref",
        "spread_dirty_pages",
        "zonelist",
    )
    zonelist: Zonelist
    nodemask: int | None
    preferred_zoneref: Zoneref | None
    migratetype: int
    highest_zoneidx: int
    spread_dirty_pages: bool


@dataclass(slots=True, eq=False)
class OomControl:
    """``struct oom_control``: what the allocator tells out_of_memory(), and what that finds.

    Mirrors include/linux/oom.h:oom_control.
    """

    zonelist: Zonelist | None
    nodemask: int | None
    gfp_mask: int
    order: int
    memcg: Any = None
    totalpages: int = 0
    chosen: Any = None
    chosen_points: int = 0
    constraint: int = 0


def __find_buddy_pfn(page_pfn: int, order: int) -> int:
    """Return the pfn of the block's buddy at @order.

    :param page_pfn: ``unsigned long``
    :param order: ``unsigned int``
    :return: ``unsigned long``

    Mirrors mm/internal.h:__find_buddy_pfn().
    """
    return page_pfn ^ (1 << order)


def buddy_order(page: Page) -> int:
    """Return the order of the free block that @page heads; the caller has checked PageBuddy().

    Mirrors mm/internal.h:buddy_order().
    """
    order: int = page.private
    return order


def find_buddy_page_pfn(zone: Zone, pfn: int, order: int) -> Page | None:
    """Return the buddy of the block at @pfn if it is free as a whole, else None.

    The kernel takes the page and tests that both lie in the same zone; here looking only in the
    zone's own pages does both.

    :param pfn: ``unsigned long``
    :param order: ``unsigned int``
    :return: ``struct page *``

    Mirrors mm/internal.h:find_buddy_page_pfn().
    """
    buddy = zone.mem_map.get(pfn ^ (1 << order))
    if buddy is None or buddy.page_type != PAGE_TYPE_BUDDY or buddy.private != order:
        return None
    return buddy


def __PageMovable(page: Page) -> bool:
    """Tell whether @page is no LRU page but its owner can move it (zsmalloc, balloon).

    A mapping with ``movable_ops`` stands for PAGE_MAPPING_MOVABLE in the kernel's low bits.

    Mirrors include/linux/page-flags.h:__PageMovable().
    """
    return page.mapping is not None and hasattr(page.mapping, "movable_ops")


def prep_compound_page(page: Page, order: int) -> None:
    """Make the 2**@order pages from @page on one compound page, of which @page is the head.

    Tail pages that have no object get none: `pfn_to_page()` makes them as tails when asked.

    :param order: ``unsigned int``, at least 1

    Mirrors mm/page_alloc.c:prep_compound_page().
    """
    page.flags |= 1 << PG_head
    pfn = page.pfn
    for tail in map(page.zone.mem_map.get, range(pfn + 1, pfn + (1 << order))):
        if tail is not None:
            tail.next = page
            tail.prev = None
            tail.private = 0
    page.folio = LargeFolio(order)


def zone_reclaimable_pages(zone: Zone) -> int:
    """Return how many pages of the zone reclaim could hope to free.

    File pages always; anonymous ones only where there is swap (``nr_swap_pages`` of the machine).
    A zone with none of either counts its free pages, so that it is not skipped.

    Simplified: no demotion to another node instead of swap.

    Mirrors mm/vmscan.c:zone_reclaimable_pages().
    """
    nr = zone_page_state(zone, NR_ZONE_INACTIVE_FILE) + zone_page_state(zone, NR_ZONE_ACTIVE_FILE)
    if zone.machine.nr_swap_pages > 0:
        nr += zone_page_state(zone, NR_ZONE_INACTIVE_ANON)
        nr += zone_page_state(zone, NR_ZONE_ACTIVE_ANON)
    return nr or zone_page_state(zone, NR_FREE_PAGES)


class InitTask:
    """The task that runs while the machine has no other: what the page allocator asks of a task.

    :ivar prio: 0-99 for a real-time task, 120 for one with nice 0, as in include/linux/sched/prio.h
    """

    __slots__ = (
        "active_memcg",
        "cgroup",
        "comm",
        "fatal_signal",
        "flags",
        "memcg_nr_pages_over_high",
        "objcg",
        "objcg_update",
        "pid",
        "prio",
    )

    def __init__(self) -> None:
        self.flags = 0
        self.fatal_signal = False
        self.comm = "swapper"
        self.pid = 0
        self.prio = DEFAULT_PRIO
        self.cgroup: Any = None
        self.memcg_nr_pages_over_high = 0
        self.active_memcg: Any = None
        self.objcg: Any = None
        self.objcg_update = False


# ---- what later subsystems plug in ---------------------------------------------------------------


def no_wakeup_kswapd(zone: Zone, gfp_flags: int, order: int, highest_zoneidx: int) -> None:
    """Record that kswapd would be woken; nobody reclaims."""
    trace = zone.machine.trace
    if trace.on:
        trace.emit("model:wakeup_kswapd", zone.node, highest_zoneidx, order, gfp_flags)


def no_try_to_free_pages(
    m: Machine, zonelist: Zonelist, order: int, gfp_mask: int, nodemask: int | None
) -> int:
    """Count the stall as direct reclaim does, record it, and free nothing."""
    from mmcore.mm.gfp import gfp_zone

    count_vm_event(m, ALLOCSTALL_DMA + gfp_zone(gfp_mask))
    if m.trace.on:
        m.trace.emit("model:try_to_free_pages", order, gfp_mask, 0)
    return 0


def no_try_to_compact_pages(
    m: Machine, gfp_mask: int, order: int, alloc_flags: int, ac: AllocContext, prio: int
) -> tuple[int, Page | None]:
    """Record the attempt; every zone is skipped and no page captured."""
    if m.trace.on:
        m.trace.emit("model:try_to_compact_pages", order, gfp_mask, prio, COMPACT_SKIPPED)
    return COMPACT_SKIPPED, None


def no_out_of_memory(m: Machine, oc: OomControl) -> bool:
    """Record the call; no victim is found."""
    if m.trace.on:
        m.trace.emit("model:out_of_memory", oc.order, oc.gfp_mask)
    return False


def _no_compaction_zonelist_suitable(
    m: Machine, ac: AllocContext, order: int, alloc_flags: int
) -> bool:
    return False


def _node_reclaim_noscan(pgdat: PgData, gfp_mask: int, order: int) -> int:
    return NODE_RECLAIM_NOSCAN


def _always_dirty_ok(pgdat: PgData) -> bool:
    return True


def _migrate_nothing(zone: Zone, start: int, end: int, migratetype: int, gfp_mask: int) -> int:
    return 0


def _never_oom_victim(tsk: Any) -> bool:
    return False


@dataclass(slots=True, eq=False)
class PageAllocHooks:
    """The calls from the page allocator into reclaim, compaction and the OOM killer.

    The defaults make no progress and record ``model:*`` events; the chapters on reclaim, compaction
    and the OOM killer put their own functions here. Each has the kernel's name and meaning.

    :ivar wakeup_kswapd: (zone, gfp_flags, order, highest_zoneidx)
    :ivar try_to_free_pages: (m, zonelist, order, gfp_mask, nodemask) -> pages reclaimed
    :ivar try_to_compact_pages: (m, gfp_mask, order, alloc_flags, ac, prio) -> (result, captured page)
    :ivar out_of_memory: (m, oc) -> progress was made
    :ivar compaction_zonelist_suitable: (m, ac, order, alloc_flags) -> reclaim can make it suitable
    :ivar node_reclaim: (pgdat, gfp_mask, order) -> NODE_RECLAIM_*; asked when node_reclaim_mode is set
    :ivar node_dirty_ok: (pgdat) -> the node is within its dirty limit
    :ivar migrate_range: (zone, start, end, migratetype, gfp_mask) -> 0 or -errno: empties the range
        for alloc_contig_range()
    :ivar tsk_is_oom_victim: (task) -> the OOM killer has chosen it
    """

    wakeup_kswapd: Callable[[Zone, int, int, int], None] = no_wakeup_kswapd
    try_to_free_pages: Callable[[Machine, Zonelist, int, int, int | None], int] = (
        no_try_to_free_pages
    )
    try_to_compact_pages: Callable[
        [Machine, int, int, int, AllocContext, int], tuple[int, Page | None]
    ] = no_try_to_compact_pages
    out_of_memory: Callable[[Machine, OomControl], bool] = no_out_of_memory
    compaction_zonelist_suitable: Callable[[Machine, AllocContext, int, int], bool] = (
        _no_compaction_zonelist_suitable
    )
    node_reclaim: Callable[[PgData, int, int], int] = _node_reclaim_noscan
    node_dirty_ok: Callable[[PgData], bool] = _always_dirty_ok
    migrate_range: Callable[[Zone, int, int, int, int], int] = _migrate_nothing
    tsk_is_oom_victim: Callable[[Any], bool] = _never_oom_victim


__all__ = [
    "AllocContext",
    "InitTask",
    "OomControl",
    "PageAllocHooks",
    "__PageMovable",
    "__find_buddy_pfn",
    "alloc_flags_str",
    "buddy_order",
    "find_buddy_page_pfn",
    "prep_compound_page",
    "zone_reclaimable_pages",
    *[
        n
        for n in globals()
        if n.startswith(
            ("ALLOC_", "PF_", "COMPACT_", "MIN_COMPACT", "DEF_COMPACT", "NODE_RECLAIM_")
        )
    ],
    "DEFAULT_PRIO",
    "INIT_COMPACT_PRIORITY",
    "MAX_RT_PRIO",
    "MAX_RECLAIM_RETRIES",
]
