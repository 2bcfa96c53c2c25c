"""Swap areas: which slot a page gets, how often it is used, and when it is free again.

Mirrors mm/swapfile.c, mm/swap_slots.c and parts of include/linux/swap.h.

A non-rotational area is divided into clusters of 512 slots, each on one list; a rotating disk is
searched from where the last search ended. In front of both every CPU keeps up to 64 slots that it will
use and up to 64 that it gave back.

Simplified: no header is read and there are no extents; no discard; swapoff and hibernation are left
out; counts that do not fit a byte are carried in a dict where the kernel has continuation pages; pages
have no contents, so there is no zeromap and no zswap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.errors import EEXIST, EINVAL, ENOENT, KernelBug, UsageError
from mmcore.lib.list import ListHead, list_add_tail, list_del, list_empty
from mmcore.mm import memcontrol, rmap, swap, swap_state
from mmcore.mm.mm_types import Folio, folio_nr_pages, folio_order
from mmcore.mm.mmzone import HPAGE_PMD_ORDER
from mmcore.mm.page_flags import PG_dirty, PG_locked, PG_swapcache, PG_writeback
from mmcore.mm.swapops import MAX_SWAPFILES, swp_entry, swp_offset, swp_type

if TYPE_CHECKING:
    from mmcore.machine import Machine

SWAPFILE_CLUSTER = 1 << HPAGE_PMD_ORDER
SWAP_NR_ORDERS = HPAGE_PMD_ORDER + 1
SWAP_NEXT_INVALID = 0
SWAP_BATCH = 64
SWAP_SLOTS_CACHE_SIZE = SWAP_BATCH
SWAP_CLUSTER_COLS = max(-(-64 // 32), -(-(1 << 14) // SWAPFILE_CLUSTER))
LATENCY_LIMIT = 256

SWAP_HAS_CACHE = 0x40
COUNT_CONTINUED = 0x80
SWAP_MAP_MAX = 0x3E
SWAP_MAP_BAD = 0x3F
SWAP_MAP_SHMEM = 0xBF

SWP_USED = 1 << 0
SWP_WRITEOK = 1 << 1
SWP_SOLIDSTATE = 1 << 4
SWP_BLKDEV = 1 << 6
SWP_SYNCHRONOUS_IO = 1 << 12

CLUSTER_FLAG_FREE = 1
CLUSTER_FLAG_NONFULL = 2
CLUSTER_FLAG_FRAG = 4
CLUSTER_FLAG_FULL = 8
#: The name of the list that a cluster is on.
CLUSTER_FLAG_NAMES = {1: "free", 2: "nonfull", 4: "frag", 8: "full"}

TTRS_ANYWAY = 1
TTRS_UNMAPPED = 2
TTRS_FULL = 4
TTRS_DIRECT = 8


class SwapClusterInfo(ListHead):
    """``struct swap_cluster_info``: 512 slots.

    Mirrors include/linux/swap.h:swap_cluster_info.
    """

    __slots__ = ("count", "flags", "index", "order")

    def __init__(self, index: int) -> None:
        self.next = self.prev = None
        self.index = index
        self.count = 0
        self.flags = 0
        self.order = 0


@dataclass(slots=True, eq=False)
class SwapInfoStruct:
    """``struct swap_info_struct``: one swap area.

    :ivar swap_map: one byte for each slot: how often it is used, and SWAP_HAS_CACHE
    :ivar cluster_info: the clusters; empty for a rotating disk
    :ivar percpu_cluster: by CPU, for each order the next slot to try
    :ivar i_pages: what the swap cache holds, by slot; shadows: what was evicted from it

    Mirrors include/linux/swap.h:swap_info_struct.
    """

    type: int
    name: str
    max: int
    prio: int = 0
    flags: int = SWP_USED
    node: int = -1
    swap_map: bytearray = field(default_factory=bytearray, repr=False)
    continued: dict[int, int] = field(default_factory=dict, repr=False)
    cluster_info: list[SwapClusterInfo] = field(default_factory=list, repr=False)
    free_clusters: ListHead = field(default_factory=ListHead, repr=False)
    full_clusters: ListHead = field(default_factory=ListHead, repr=False)
    nonfull_clusters: list[ListHead] = field(default_factory=list, repr=False)
    frag_clusters: list[ListHead] = field(default_factory=list, repr=False)
    frag_cluster_nr: list[int] = field(default_factory=list, repr=False)
    percpu_cluster: dict[int, list[int]] = field(default_factory=dict, repr=False)
    lowest_bit: int = 1
    highest_bit: int = 0
    pages: int = 0
    inuse_pages: int = 0
    cluster_next: int = 1
    cluster_nr: int = 0
    i_pages: dict[int, Folio] = field(default_factory=dict, repr=False)
    shadows: dict[int, int] = field(default_factory=dict, repr=False)


@dataclass(slots=True, eq=False)
class SwapSlotsCache:
    """``struct swap_slots_cache``: the slots that one CPU took, and those it gave back.

    Mirrors include/linux/swap_slots.h:swap_slots_cache.
    """

    slots: list[int] = field(default_factory=list)
    slots_ret: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class SwapState:
    """The variables of mm/swapfile.c, mm/swap_slots.c and mm/swap_state.c, as ``m.swap``."""

    swap_info: list[SwapInfoStruct] = field(default_factory=list)
    #: By node: the areas with free slots, (plist priority, area), the best first.
    swap_avail_heads: dict[int, list[tuple[int, SwapInfoStruct]]] = field(default_factory=dict)
    least_priority: int = -1
    nr_rotate_swap: int = 0
    swp_slots: dict[int, SwapSlotsCache] = field(default_factory=dict)
    swap_slot_cache_active: bool = False
    page_cluster: int = 3
    enable_vma_readahead: bool = True
    swapin_readahead_hits: int = 4
    prev_offset: int = 0
    last_readahead_pages: int = 0


def vm_swap_full(m: Machine) -> bool:
    """Tell whether more than half of all swap is in use.

    Mirrors include/linux/swap.h:vm_swap_full().
    """
    return m.nr_swap_pages * 2 < m.total_swap_pages


def swap_count(ent: int) -> int:
    """Return a slot's byte without the cache's mark.

    Mirrors mm/swapfile.c:swap_count().
    """
    return ent & ~SWAP_HAS_CACHE


def swp_swap_info(m: Machine, entry: int) -> SwapInfoStruct | None:
    """Return the area that @entry names, None if there is none.

    Mirrors mm/swapfile.c:swp_swap_info().
    """
    kind = swp_type(entry)
    return m.swap.swap_info[kind] if kind < len(m.swap.swap_info) else None


def _swap_info_get(m: Machine, entry: int) -> SwapInfoStruct:
    """Return the area of a slot that is in use.

    :raises KernelBug: for a slot that is free or does not exist, as the kernel's log says

    Mirrors mm/swapfile.c:_swap_info_get().
    """
    si = swp_swap_info(m, entry)
    if si is None:
        raise KernelBug(f"Bad swap file entry {entry:08x}")
    if swp_offset(entry) >= si.max:
        raise KernelBug(f"Bad swap offset entry {entry:08x}")
    if not si.swap_map[swp_offset(entry)]:
        raise KernelBug(f"Unused swap offset entry {entry:08x}")
    return si


# --- clusters ---------------------------------------------------------------------------------


def _move(ci: SwapClusterInfo, head: ListHead, flags: int) -> None:
    """Put a cluster at the tail of a list."""
    if ci.flags:
        list_del(ci)
    list_add_tail(ci, head)
    ci.flags = flags


def free_cluster(si: SwapInfoStruct, ci: SwapClusterInfo) -> None:
    """Put an empty cluster at the end of the free ones.

    Mirrors mm/swapfile.c:free_cluster().
    """
    if ci.flags & CLUSTER_FLAG_FRAG:
        si.frag_cluster_nr[ci.order] -= 1
    _move(ci, si.free_clusters, CLUSTER_FLAG_FREE)
    ci.order = 0


def dec_cluster_info_page(si: SwapInfoStruct, offset: int, nr_pages: int) -> None:
    """Count slots of a cluster as free; it moves to the tail of the free or of the nonfull ones.

    Mirrors mm/swapfile.c:dec_cluster_info_page().
    """
    if not si.cluster_info:
        return
    ci = si.cluster_info[offset // SWAPFILE_CLUSTER]
    if ci.count < nr_pages or ci.flags & CLUSTER_FLAG_FREE:
        raise KernelBug(f"cluster {ci.index} of {si.name} has no {nr_pages} slots to free")
    ci.count -= nr_pages
    if not ci.count:
        free_cluster(si, ci)
    elif not ci.flags & CLUSTER_FLAG_NONFULL:
        if ci.flags & CLUSTER_FLAG_FRAG:
            si.frag_cluster_nr[ci.order] -= 1
        _move(ci, si.nonfull_clusters[ci.order], CLUSTER_FLAG_NONFULL)


def cluster_scan_range(m: Machine, si: SwapInfoStruct, start: int, nr_pages: int) -> bool:
    """Tell whether slots are free; while swap is more than half full, those only cached are freed.

    Mirrors mm/swapfile.c:cluster_scan_range().
    """
    values = si.swap_map[start : start + nr_pages]
    if not any(values):
        return True
    if any(v and v != SWAP_HAS_CACHE for v in values) or not vm_swap_full(m):
        return False
    for offset in range(start, start + nr_pages):  # cluster_reclaim_range()
        if si.swap_map[offset] == SWAP_HAS_CACHE:
            if _try_to_reclaim_swap(m, si, offset, TTRS_ANYWAY | TTRS_DIRECT) <= 0:
                return False
    return not any(si.swap_map[start : start + nr_pages])


def cluster_alloc_range(
    m: Machine, si: SwapInfoStruct, ci: SwapClusterInfo, start: int, usage: int, order: int
) -> bool:
    """Take slots; a free cluster becomes one of @order, a cluster without free slots a full one.

    Mirrors mm/swapfile.c:cluster_alloc_range().
    """
    nr_pages = 1 << order
    if not si.flags & SWP_WRITEOK:
        return False
    if ci.flags & CLUSTER_FLAG_FREE:
        if nr_pages < SWAPFILE_CLUSTER:
            _move(ci, si.nonfull_clusters[order], CLUSTER_FLAG_NONFULL)
        ci.order = order
    si.swap_map[start : start + nr_pages] = bytes([usage]) * nr_pages
    swap_range_alloc(m, si, start, nr_pages)
    ci.count += nr_pages
    if ci.count == SWAPFILE_CLUSTER:
        if ci.flags & CLUSTER_FLAG_FRAG:
            si.frag_cluster_nr[ci.order] -= 1
        _move(ci, si.full_clusters, CLUSTER_FLAG_FULL)
    return True


def alloc_swap_scan_cluster(
    m: Machine, si: SwapInfoStruct, offset: int, order: int, usage: int
) -> tuple[int, int]:
    """Look for @order's slots in one cluster, from @offset up.

    :return: (where the next search goes on, 0 for "not in this cluster"; the slot found, or 0)

    Mirrors mm/swapfile.c:alloc_swap_scan_cluster().
    """
    start = offset & -SWAPFILE_CLUSTER
    nr_pages = 1 << order
    end = min(start + SWAPFILE_CLUSTER, si.max) - nr_pages
    if end < 0:
        return SWAP_NEXT_INVALID, 0
    ci = si.cluster_info[offset // SWAPFILE_CLUSTER]
    if ci.count + nr_pages > SWAPFILE_CLUSTER:
        return SWAP_NEXT_INVALID, 0
    found = 0
    while offset <= end:
        if cluster_scan_range(m, si, offset, nr_pages):
            if not cluster_alloc_range(m, si, ci, offset, usage, order):
                return SWAP_NEXT_INVALID, 0
            found = offset
            if ci.count == SWAPFILE_CLUSTER:
                return SWAP_NEXT_INVALID, found
            offset += nr_pages
            break
        offset += nr_pages
    return (SWAP_NEXT_INVALID if offset > end else offset), found


def swap_reclaim_full_clusters(m: Machine, si: SwapInfoStruct, force: bool) -> None:
    """Free the slots of full clusters that only the swap cache uses.

    Mirrors mm/swapfile.c:swap_reclaim_full_clusters().
    """
    to_scan = si.inuse_pages // SWAPFILE_CLUSTER if force else 1
    while not list_empty(si.full_clusters):
        ci: SwapClusterInfo = si.full_clusters.next
        _move(ci, si.full_clusters, CLUSTER_FLAG_FULL)
        offset = ci.index * SWAPFILE_CLUSTER
        end = min(si.max, offset + SWAPFILE_CLUSTER)
        to_scan -= 1
        while offset < end:
            nr = 0
            if si.swap_map[offset] == SWAP_HAS_CACHE:
                nr = _try_to_reclaim_swap(m, si, offset, TTRS_ANYWAY | TTRS_DIRECT)
            offset += abs(nr) or 1
        if to_scan <= 0:
            break


def _from_nonfull(m: Machine, si: SwapInfoStruct, order: int, usage: int) -> tuple[int, int]:
    """Look through the nonfull and fragmented clusters of @order: step (4) of the search."""
    offset = found = frags = 0
    while not found and not list_empty(si.nonfull_clusters[order]):
        ci: SwapClusterInfo = si.nonfull_clusters[order].next
        _move(ci, si.frag_clusters[order], CLUSTER_FLAG_FRAG)
        si.frag_cluster_nr[order] += 1
        offset, found = alloc_swap_scan_cluster(m, si, ci.index * SWAPFILE_CLUSTER, order, usage)
        frags += 1
    while not found and frags < si.frag_cluster_nr[order]:
        ci = si.frag_clusters[order].next
        _move(ci, si.frag_clusters[order], CLUSTER_FLAG_FRAG)
        offset, found = alloc_swap_scan_cluster(m, si, ci.index * SWAPFILE_CLUSTER, order, usage)
        frags += 1
    return offset, found


def cluster_alloc_swap_entry(m: Machine, si: SwapInfoStruct, order: int, usage: int) -> int:
    """Find @order's slots: this CPU's cluster, a free one, one of the same order, any for order 0.

    :return: the offset, 0 if there is none

    Mirrors mm/swapfile.c:cluster_alloc_swap_entry().
    """
    following = si.percpu_cluster.setdefault(m.this_cpu, [SWAP_NEXT_INVALID] * SWAP_NR_ORDERS)
    offset, found = following[order], 0
    if offset:
        offset, found = alloc_swap_scan_cluster(m, si, offset, order, usage)
    if not found and not list_empty(si.free_clusters):
        first: SwapClusterInfo = si.free_clusters.next
        offset, found = alloc_swap_scan_cluster(m, si, first.index * SWAPFILE_CLUSTER, order, usage)
        if si.flags & SWP_WRITEOK and not found:
            raise KernelBug(f"free cluster {first.index} of {si.name} has no free slot")
    elif not found:
        if vm_swap_full(m):
            swap_reclaim_full_clusters(m, si, False)
        if order < HPAGE_PMD_ORDER:
            offset, found = _from_nonfull(m, si, order, usage)
        if not found and not order:
            offset, found = _steal(m, si, usage)
    following[order] = offset
    return found


def _steal(m: Machine, si: SwapInfoStruct, usage: int) -> tuple[int, int]:
    """Take a single slot out of a cluster of a higher order: the last step of the search."""
    offset = found = 0
    for order in range(1, SWAP_NR_ORDERS):
        for head in (si.frag_clusters[order], si.nonfull_clusters[order]):
            while not list_empty(head):
                at = head.next.index * SWAPFILE_CLUSTER
                offset, found = alloc_swap_scan_cluster(m, si, at, 0, usage)
                if found:
                    return offset, found
    return offset, found


# --- available areas --------------------------------------------------------------------------


def _avail_prio(si: SwapInfoStruct, nid: int) -> int:
    if si.prio < 0 and si.node == nid:
        return 1
    return -si.prio


def add_to_avail_list(m: Machine, si: SwapInfoStruct) -> None:
    """Let an area be looked at, behind those of the same priority.

    Mirrors mm/swapfile.c:add_to_avail_list().
    """
    for nid in sorted(m.node_data) or [0]:
        head = m.swap.swap_avail_heads.setdefault(nid, [])
        prio = _avail_prio(si, nid)
        at = sum(1 for p, _ in head if p <= prio)
        head.insert(at, (prio, si))


def del_from_avail_list(m: Machine, si: SwapInfoStruct) -> None:
    """Let an area not be looked at any more: it is full.

    Mirrors mm/swapfile.c:del_from_avail_list().
    """
    for nid, head in m.swap.swap_avail_heads.items():
        m.swap.swap_avail_heads[nid] = [item for item in head if item[1] is not si]


def swap_range_alloc(m: Machine, si: SwapInfoStruct, offset: int, nr_entries: int) -> None:
    """Count slots as used.

    Mirrors mm/swapfile.c:swap_range_alloc().
    """
    end = offset + nr_entries - 1
    if offset == si.lowest_bit:
        si.lowest_bit += nr_entries
    if end == si.highest_bit:
        si.highest_bit -= nr_entries
    si.inuse_pages += nr_entries
    if si.inuse_pages == si.pages:
        si.lowest_bit = si.max
        si.highest_bit = 0
        del_from_avail_list(m, si)


def swap_range_free(m: Machine, si: SwapInfoStruct, offset: int, nr_entries: int) -> None:
    """Count slots as free and forget what was evicted from them.

    Mirrors mm/swapfile.c:swap_range_free().
    """
    end = offset + nr_entries - 1
    si.lowest_bit = min(si.lowest_bit, offset)
    if end > si.highest_bit:
        was_full = not si.highest_bit
        si.highest_bit = end
        if was_full and si.flags & SWP_WRITEOK:
            add_to_avail_list(m, si)
    swap_state.clear_shadow_from_swap_cache(si, offset, end)
    m.nr_swap_pages += nr_entries
    si.inuse_pages -= nr_entries


# --- rotating disks ---------------------------------------------------------------------------


def _new_cluster(si: SwapInfoStruct) -> tuple[int, int]:
    """Return where a rotating disk goes on after 512 slots: at the first 512 that are free.

    :return: (offset, where the search began)
    """
    si.cluster_nr = SWAPFILE_CLUSTER - 1
    if si.pages - si.inuse_pages < SWAPFILE_CLUSTER:
        return si.cluster_next, si.cluster_next
    run = 0
    for offset in range(si.lowest_bit, si.highest_bit + 1):
        run = 0 if si.swap_map[offset] else run + 1
        if run == SWAPFILE_CLUSTER:
            si.cluster_next = offset - SWAPFILE_CLUSTER + 1
            return si.cluster_next, si.lowest_bit
    return si.lowest_bit, si.lowest_bit


class _Patience:
    """How many more slots a search looks at without a break, and whether it had one already."""

    __slots__ = ("left", "scanned_many")

    def __init__(self) -> None:
        self.left = LATENCY_LIMIT
        self.scanned_many = False

    def one_more(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.left = LATENCY_LIMIT
            self.scanned_many = True


def _scan(m: Machine, si: SwapInfoStruct, offset: int, scan_base: int, patience: _Patience) -> int:
    """Return the first slot behind @offset that may be had, then from the lowest one; 0 for none."""
    order = [*range(offset + 1, si.highest_bit + 1), *range(si.lowest_bit, scan_base)]
    for at in order:
        patience.one_more()
        if not si.swap_map[at] or (vm_swap_full(m) and si.swap_map[at] == SWAP_HAS_CACHE):
            return int(at)
    return 0


def _next_slot(si: SwapInfoStruct, offset: int, scan_base: int, patience: _Patience) -> int:
    """Return the next free slot behind one that was taken; negative: ~offset where the search ended."""
    patience.left -= 1
    if patience.left < 0:
        return ~offset
    if si.cluster_nr:
        offset += 1
        if not si.swap_map[offset]:
            si.cluster_nr -= 1
            return offset
    if not patience.scanned_many:
        limit = scan_base if offset < scan_base else si.highest_bit
        while offset <= limit:
            patience.left -= 1
            if patience.left <= 0:
                break
            if not si.swap_map[offset]:
                return offset
            offset += 1
    return ~offset


def scan_swap_map_slots(
    m: Machine, si: SwapInfoStruct, usage: int, nr: int, order: int
) -> list[int]:
    """Take up to @nr slots (of @order pages) of one area.

    :return: entries

    Mirrors mm/swapfile.c:scan_swap_map_slots().
    """
    slots: list[int] = []
    if order and (not si.flags & SWP_BLKDEV or not si.cluster_info):
        return slots
    if si.cluster_info:
        return cluster_alloc_swap(m, si, usage, nr, order)
    offset = scan_base = si.cluster_next
    si.cluster_nr -= 1
    if si.cluster_nr < 0:
        offset, scan_base = _new_cluster(si)
    patience = _Patience()
    while True:
        if not si.flags & SWP_WRITEOK or not si.highest_bit:
            return slots
        if offset > si.highest_bit:
            scan_base = offset = si.lowest_bit
        busy = si.swap_map[offset]
        if vm_swap_full(m) and busy == SWAP_HAS_CACHE:
            if _try_to_reclaim_swap(m, si, offset, TTRS_ANYWAY | TTRS_DIRECT) > 0:
                continue
        elif busy and slots:
            break
        if busy:
            offset = _scan(m, si, offset, scan_base, patience)
            if not offset:
                return slots
            continue
        si.swap_map[offset] = usage
        swap_range_alloc(m, si, offset, 1)
        slots.append(swp_entry(si.type, offset))
        if len(slots) == nr or offset >= si.highest_bit:
            break
        following = _next_slot(si, offset, scan_base, patience)
        if following < 0:
            offset = ~following
            break
        offset = following
    si.cluster_next = offset + 1
    return slots


def cluster_alloc_swap(
    m: Machine, si: SwapInfoStruct, usage: int, nr: int, order: int
) -> list[int]:
    """Take up to @nr times @order's slots out of clusters.

    Mirrors mm/swapfile.c:cluster_alloc_swap().
    """
    slots: list[int] = []
    while len(slots) < nr:
        offset = cluster_alloc_swap_entry(m, si, order, usage)
        if not offset:
            break
        slots.append(swp_entry(si.type, offset))
    return slots


def get_swap_pages(m: Machine, n_goal: int, order: int) -> list[int]:
    """Take up to 64 slots from the best area; areas of one priority take turns, call by call.

    :return: entries; a large folio asks only the first area

    Mirrors mm/swapfile.c:get_swap_pages().
    """
    size = 1 << order
    avail_pgs = m.nr_swap_pages // size
    if avail_pgs <= 0:
        return []
    n_goal = min(n_goal, SWAP_BATCH, avail_pgs)
    m.nr_swap_pages -= n_goal * size
    slots: list[int] = []
    nid = m.cpu_to_node[m.this_cpu]
    for item in list(m.swap.swap_avail_heads.get(nid, [])):
        head = m.swap.swap_avail_heads[nid]
        if item not in head:
            continue
        head.remove(item)  # plist_requeue()
        head.insert(sum(1 for p, _ in head if p <= item[0]), item)
        slots = scan_swap_map_slots(m, item[1], SWAP_HAS_CACHE, n_goal, order)
        if slots or size > 1:
            break
    m.nr_swap_pages += (n_goal - len(slots)) * size
    return slots


# --- counting the users of a slot -------------------------------------------------------------


def _swap_entry_free_locked(si: SwapInfoStruct, offset: int, usage: int) -> int:
    """Take one use, or the cache's mark, from a slot; what is left, 0 for nothing.

    A slot without use keeps the mark until it is free for others.

    Mirrors mm/swapfile.c:__swap_entry_free_locked().
    """
    count = si.swap_map[offset]
    has_cache = count & SWAP_HAS_CACHE
    count &= ~SWAP_HAS_CACHE
    if usage == SWAP_HAS_CACHE:
        if not has_cache:
            raise KernelBug(f"slot {offset} of {si.name} is not in the swap cache")
        has_cache = 0
    elif count == SWAP_MAP_SHMEM:
        count = 0
    elif count & ~COUNT_CONTINUED <= SWAP_MAP_MAX:
        if count == COUNT_CONTINUED:
            si.continued[offset] -= 1
            if not si.continued[offset]:
                del si.continued[offset]
                count = SWAP_MAP_MAX
            else:
                count = SWAP_MAP_MAX | COUNT_CONTINUED
        elif not count:
            raise KernelBug(f"slot {offset} of {si.name} has no user")
        else:
            count -= 1
    left = count | has_cache
    si.swap_map[offset] = left or SWAP_HAS_CACHE
    return left


def swap_entry_range_free(m: Machine, si: SwapInfoStruct, entry: int, nr_pages: int) -> None:
    """Give back slots that nobody uses.

    Mirrors mm/swapfile.c:swap_entry_range_free().
    """
    offset = swp_offset(entry)
    if si.swap_map[offset : offset + nr_pages] != bytes([SWAP_HAS_CACHE]) * nr_pages:
        raise KernelBug(f"slots {offset}+{nr_pages} of {si.name} are in use")
    si.swap_map[offset : offset + nr_pages] = bytes(nr_pages)
    dec_cluster_info_page(si, offset, nr_pages)
    if not memcontrol.mem_cgroup_disabled(m):
        memcontrol.mem_cgroup_uncharge_swap(m, entry, nr_pages)
    swap_range_free(m, si, offset, nr_pages)


def swap_free_nr(m: Machine, entry: int, nr_pages: int = 1) -> None:
    """Take one use from each of @nr_pages slots.

    Mirrors mm/swapfile.c:swap_free_nr().
    """
    si = _swap_info_get(m, entry)
    for i in range(nr_pages):
        if not _swap_entry_free_locked(si, swp_offset(entry) + i, 1):
            free_swap_slot(m, entry + i)


def put_swap_folio(m: Machine, folio: Folio, entry: int) -> None:
    """Take the cache's mark from a folio's slots.

    Mirrors mm/swapfile.c:put_swap_folio().
    """
    si = _swap_info_get(m, entry)
    offset, size = swp_offset(entry), folio_nr_pages(folio)
    if size > 1 and all(b == SWAP_HAS_CACHE for b in si.swap_map[offset : offset + size]):
        swap_entry_range_free(m, si, entry, size)
        return
    for i in range(size):
        if not _swap_entry_free_locked(si, offset + i, SWAP_HAS_CACHE):
            free_swap_slot(m, entry + i)


def _swap_duplicate(m: Machine, entry: int, usage: int, nr: int) -> int:
    """Add a use, or the cache's mark, to @nr slots.

    :return: 0; -ENOENT for a free slot, -EEXIST if it has the mark, -EINVAL for a bad one

    Mirrors mm/swapfile.c:__swap_duplicate().
    """
    si = swp_swap_info(m, entry)
    if si is None:
        return -EINVAL
    offset = swp_offset(entry)
    for at in range(offset, offset + nr):
        value = si.swap_map[at]
        count = swap_count(value)
        if count == SWAP_MAP_BAD or not value:
            return -ENOENT
        if usage == SWAP_HAS_CACHE:
            if value & SWAP_HAS_CACHE:
                return -EEXIST
        elif count & ~COUNT_CONTINUED > SWAP_MAP_MAX:
            return -EINVAL
    for at in range(offset, offset + nr):
        value = si.swap_map[at]
        has_cache, count = value & SWAP_HAS_CACHE, swap_count(value)
        if usage == SWAP_HAS_CACHE:
            has_cache = SWAP_HAS_CACHE
        elif count & ~COUNT_CONTINUED < SWAP_MAP_MAX:
            count += usage
        else:
            si.continued[at] = si.continued.get(at, 0) + 1
            count = COUNT_CONTINUED
        si.swap_map[at] = count | has_cache
    return 0


def swap_duplicate(m: Machine, entry: int) -> int:
    """Count one more page table entry that names the slot; 0, also for a slot that is free.

    Mirrors mm/swapfile.c:swap_duplicate().
    """
    _swap_duplicate(m, entry, 1, 1)
    return 0


def swapcache_prepare(m: Machine, entry: int, nr: int) -> int:
    """Mark slots as cached, so that only one reads them: 0, -EEXIST or -ENOENT.

    Mirrors mm/swapfile.c:swapcache_prepare().
    """
    return _swap_duplicate(m, entry, SWAP_HAS_CACHE, nr)


def swapcache_clear(m: Machine, si: SwapInfoStruct, entry: int, nr: int) -> None:
    """Take the cache's mark from slots that were read without the cache.

    Mirrors mm/swapfile.c:swapcache_clear().
    """
    for i in range(nr):
        if not _swap_entry_free_locked(si, swp_offset(entry) + i, SWAP_HAS_CACHE):
            free_swap_slot(m, entry + i)


def swap_swapcount(m: Machine, entry: int) -> int:
    """Return how many page table entries name the slot, as far as its byte tells.

    Mirrors mm/swapfile.c:swap_swapcount().
    """
    si = swp_swap_info(m, entry)
    return 0 if si is None else swap_count(si.swap_map[swp_offset(entry)])


def folio_swapped(m: Machine, folio: Folio) -> bool:
    """Tell whether a page table entry names one of the folio's slots.

    Mirrors mm/swapfile.c:folio_swapped().
    """
    entry = folio.private
    return any(swap_swapcount(m, entry + i) for i in range(folio_nr_pages(folio)))


def folio_free_swap(folio: Folio) -> bool:
    """Give back the slots of a cached folio that no page table entry names; it is dirty then.

    Mirrors mm/swapfile.c:folio_free_swap().
    """
    m = folio.zone.machine
    if not folio.flags >> PG_swapcache & 1 or folio.flags >> PG_writeback & 1:
        return False
    if folio_swapped(m, folio):
        return False
    swap_state.delete_from_swap_cache(folio)
    folio.flags |= 1 << PG_dirty
    return True


def _try_to_reclaim_swap(m: Machine, si: SwapInfoStruct, offset: int, flags: int) -> int:
    """Free the slots of a folio that is cached and not named any more.

    :return: its pages; negative if it stays; 0 if there is none

    Mirrors mm/swapfile.c:__try_to_reclaim_swap().
    """
    folio = si.i_pages.get(offset)
    if folio is None:
        return 0
    nr_pages = folio_nr_pages(folio)
    if folio.flags >> PG_locked & 1:
        return -nr_pages
    entry = folio.private
    offset = swp_offset(entry)
    wanted = (
        flags & TTRS_ANYWAY
        or (flags & TTRS_UNMAPPED and not rmap.folio_mapcount(folio))
        or (flags & TTRS_FULL and vm_swap_full(m))
    )
    only_cache = all(b == SWAP_HAS_CACHE for b in si.swap_map[offset : offset + nr_pages])
    if not wanted or folio.flags >> PG_writeback & 1 or not only_cache:
        return -nr_pages
    if flags & TTRS_DIRECT:
        swap_state.delete_from_cache_locked(folio, entry, None)
        swap_entry_range_free(m, si, entry, nr_pages)
        folio.flags |= 1 << PG_dirty
        swap.folio_put(folio, nr_pages)
    else:
        folio.flags |= 1 << PG_dirty
        swap_state.delete_from_swap_cache(folio)
    return nr_pages


def free_swap_and_cache(m: Machine, entry: int) -> None:
    """Take a use from a slot whose entry was unmapped, and drop its cached page if that was the last.

    Mirrors mm/swapfile.c:free_swap_and_cache_nr().
    """
    si = _swap_info_get(m, entry)
    offset = swp_offset(entry)
    usage = _swap_entry_free_locked(si, offset, 1)
    if not usage:
        free_swap_slot(m, entry)
    elif usage == SWAP_HAS_CACHE:
        _try_to_reclaim_swap(m, si, offset, TTRS_UNMAPPED | TTRS_FULL)


# --- the slots each CPU keeps -----------------------------------------------------------------


def check_cache_active(m: Machine) -> bool:
    """Tell whether CPUs keep slots; turn that on or off by the number of free ones.

    Mirrors mm/swap_slots.c:check_cache_active().
    """
    state = m.swap
    if not state.swap_slot_cache_active:
        if m.nr_swap_pages > m.num_online_cpus * 5 * SWAP_SLOTS_CACHE_SIZE:
            state.swap_slot_cache_active = True
    elif m.nr_swap_pages < m.num_online_cpus * 2 * SWAP_SLOTS_CACHE_SIZE:
        state.swap_slot_cache_active = False
        for cpu in sorted(state.swp_slots):
            cache = state.swp_slots[cpu]
            for slots in (cache.slots, cache.slots_ret):
                taken = slots.copy()
                slots.clear()
                swapcache_free_entries(m, taken)
    return state.swap_slot_cache_active


def swapcache_free_entries(m: Machine, entries: Iterable[int]) -> None:
    """Give back single slots, area by area.

    Mirrors mm/swapfile.c:swapcache_free_entries().
    """
    for entry in sorted(entries, key=swp_type):
        swap_entry_range_free(m, _swap_info_get(m, entry), entry, 1)


def free_swap_slot(m: Machine, entry: int) -> None:
    """Let this CPU keep a slot that nobody uses; 64 of them are given back at once.

    Mirrors mm/swap_slots.c:free_swap_slot().
    """
    if not m.swap.swap_slot_cache_active:
        swapcache_free_entries(m, [entry])
        return
    cache = m.swap.swp_slots.setdefault(m.this_cpu, SwapSlotsCache())
    if len(cache.slots_ret) >= SWAP_SLOTS_CACHE_SIZE:
        taken = cache.slots_ret.copy()
        cache.slots_ret.clear()
        swapcache_free_entries(m, taken)
    cache.slots_ret.append(entry)


def folio_alloc_swap(m: Machine, folio: Folio) -> int:
    """Take the slots for @folio: out of this CPU's 64, or of the area itself for a large one.

    :return: the entry, 0 if there is none or the group may not have more

    Mirrors mm/swap_slots.c:folio_alloc_swap().
    """
    entry = 0
    if folio.folio is not None:
        slots = get_swap_pages(m, 1, folio_order(folio))
        entry = slots[0] if slots else 0
    else:
        if check_cache_active(m):
            cache = m.swap.swp_slots.setdefault(m.this_cpu, SwapSlotsCache())
            if not cache.slots:
                cache.slots = get_swap_pages(m, SWAP_SLOTS_CACHE_SIZE, 0)
            if cache.slots:
                entry = cache.slots.pop(0)
        if not entry:
            slots = get_swap_pages(m, 1, 0)
            entry = slots[0] if slots else 0
    if entry and not memcontrol.mem_cgroup_disabled(m):
        if memcontrol.mem_cgroup_try_charge_swap(folio, entry):
            put_swap_folio(m, folio, entry)
            entry = 0
    return entry


# --- swapon -----------------------------------------------------------------------------------


def setup_clusters(si: SwapInfoStruct, badpages: Iterable[int]) -> None:
    """Make the clusters and list them in columns of 32, so that neighbours are not used together.

    Mirrors mm/swapfile.c:setup_clusters().
    """
    nr_clusters = -(-si.max // SWAPFILE_CLUSTER)
    si.cluster_info = [SwapClusterInfo(i) for i in range(nr_clusters)]
    si.nonfull_clusters = [ListHead() for _ in range(SWAP_NR_ORDERS)]
    si.frag_clusters = [ListHead() for _ in range(SWAP_NR_ORDERS)]
    si.frag_cluster_nr = [0] * SWAP_NR_ORDERS
    for offset in (0, *badpages, *range(si.max, nr_clusters * SWAPFILE_CLUSTER)):
        si.cluster_info[offset // SWAPFILE_CLUSTER].count += 1
    col = si.cluster_next // SWAPFILE_CLUSTER % SWAP_CLUSTER_COLS
    for k in range(SWAP_CLUSTER_COLS):
        for idx in range((k + col) % SWAP_CLUSTER_COLS, nr_clusters, SWAP_CLUSTER_COLS):
            ci = si.cluster_info[idx]
            if ci.count:
                _move(ci, si.nonfull_clusters[0], CLUSTER_FLAG_NONFULL)
            else:
                _move(ci, si.free_clusters, CLUSTER_FLAG_FREE)


def swapon(
    m: Machine,
    pages: int,
    *,
    name: str = "/dev/swap",
    prio: int = -1,
    rotational: bool = False,
    synchronous: bool = True,
    node: int = -1,
    badpages: Iterable[int] = (),
) -> SwapInfoStruct:
    """Add a swap area of @pages slots, the header's included.

    :param prio: 0 to 32767; below 0 the area gets the next of -2, -3, ...
    :param synchronous: reads and writes complete at once (zram, pmem); such reads may skip the cache
    :param node: where the device is; for its own node it comes before others without priority
    :raises UsageError: for an area without slots, a slot outside it, or one area too many

    Mirrors mm/swapfile.c:enable_swap_info().
    """
    state = m.swap
    if len(state.swap_info) >= MAX_SWAPFILES:
        raise UsageError(f"there are {MAX_SWAPFILES} swap areas already")
    bad = sorted(dict.fromkeys(badpages))
    if pages < 2 or len(bad) > pages - 2 or any(not 0 < b < pages for b in bad):
        raise UsageError(f"an area of {pages} pages with bad pages {bad[:5]} has no slot")
    si = SwapInfoStruct(len(state.swap_info), name, pages, node=node)
    si.swap_map = bytearray(pages)
    si.swap_map[0] = SWAP_MAP_BAD
    for offset in bad:
        si.swap_map[offset] = SWAP_MAP_BAD
    si.pages = pages - 1 - len(bad)
    si.highest_bit = pages - 1
    si.flags |= SWP_BLKDEV | SWP_WRITEOK | (SWP_SYNCHRONOUS_IO if synchronous else 0)
    if rotational:
        state.nr_rotate_swap += 1
    else:
        si.flags |= SWP_SOLIDSTATE
        setup_clusters(si, bad)
    if prio < 0:
        state.least_priority -= 1
        prio = state.least_priority
    si.prio = min(prio, 32767)
    state.swap_info.append(si)
    m.nr_swap_pages += si.pages
    m.total_swap_pages += si.pages
    add_to_avail_list(m, si)
    return si


# --- checking ---------------------------------------------------------------------------------


def validate_swap(m: Machine) -> None:
    """Check every area: counts, lists and the swap cache agree with the bytes of its slots.

    :raises KernelBug: naming what is wrong
    """
    total = 0
    for si in m.swap.swap_info:
        used = sum(1 for b in si.swap_map if b and swap_count(b) != SWAP_MAP_BAD)
        if used != si.inuse_pages:
            raise KernelBug(f"{si.name}: {si.inuse_pages} slots counted, {used} in use")
        total += si.pages - used
        _validate_clusters(si)
        for offset, folio in si.i_pages.items():
            if not si.swap_map[offset] & SWAP_HAS_CACHE or not folio.flags >> PG_swapcache & 1:
                raise KernelBug(f"slot {offset} is cached and not marked so: {folio!r}")
            if folio._refcount <= 0:
                raise KernelBug(f"{folio!r} is free and in the swap cache")
    if total != m.nr_swap_pages:
        raise KernelBug(f"nr_swap_pages is {m.nr_swap_pages}, {total} slots are free")


def _validate_clusters(si: SwapInfoStruct) -> None:
    seen: dict[int, int] = {}
    heads = [(si.free_clusters, CLUSTER_FLAG_FREE), (si.full_clusters, CLUSTER_FLAG_FULL)]
    for order in range(len(si.nonfull_clusters)):
        heads.append((si.nonfull_clusters[order], CLUSTER_FLAG_NONFULL))
        heads.append((si.frag_clusters[order], CLUSTER_FLAG_FRAG))
        n = sum(1 for _ in si.frag_clusters[order])
        if n != si.frag_cluster_nr[order]:
            raise KernelBug(f"{si.name}: {n} fragmented clusters of order {order}")
    for head, flag in heads if si.cluster_info else ():
        for ci in head:
            if ci.index in seen or ci.flags != flag:
                raise KernelBug(f"cluster {ci.index} of {si.name} is on a wrong list")
            seen[ci.index] = flag
    for ci in si.cluster_info:
        start = ci.index * SWAPFILE_CLUSTER
        used = sum(1 for b in si.swap_map[start : start + SWAPFILE_CLUSTER] if b)
        used += max(0, start + SWAPFILE_CLUSTER - si.max)
        if used != ci.count or ci.index not in seen:
            raise KernelBug(f"cluster {ci.index} of {si.name} counts {ci.count}, {used} in use")
        if (ci.flags == CLUSTER_FLAG_FREE) != (not used):
            raise KernelBug(f"cluster {ci.index} of {si.name} is free and not empty, or reverse")


__all__ = [
    "SwapClusterInfo",
    "SwapInfoStruct",
    "SwapSlotsCache",
    "SwapState",
    "cluster_alloc_swap_entry",
    "folio_alloc_swap",
    "folio_free_swap",
    "free_swap_and_cache",
    "free_swap_slot",
    "get_swap_pages",
    "put_swap_folio",
    "scan_swap_map_slots",
    "setup_clusters",
    "swap_count",
    "swap_duplicate",
    "swap_free_nr",
    "swap_swapcount",
    "swapcache_clear",
    "swapcache_prepare",
    "swapon",
    "swp_swap_info",
    "validate_swap",
    "vm_swap_full",
    *[n for n in globals() if n.startswith(("SWAP_", "SWP_", "CLUSTER_", "TTRS_"))],
    "COUNT_CONTINUED",
    "SWAPFILE_CLUSTER",
]
