"""What the kernel prints when memory runs out: the state of nodes, zones and free lists.

Mirrors mm/show_mem.c. Lines come without the log's time stamp, as ``dmesg -t`` shows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.config import PAGE_SHIFT
from mmcore.mm.gfp import (
    __GFP_DIRECT_RECLAIM,
    __GFP_NOMEMALLOC,
    gfp_str,
    gfp_zone,
)
from mmcore.mm.internal import MAX_RECLAIM_RETRIES, PF_EXITING, PF_MEMALLOC
from mmcore.mm.mmzone import (
    MAX_NR_ZONES,
    MIGRATE_TYPES,
    MIGRATETYPE_LETTERS,
    NR_PAGE_ORDERS,
    PgData,
    Zone,
    for_each_online_pgdat,
    for_each_populated_zone,
    for_each_zone,
    high_wmark_pages,
    low_wmark_pages,
    min_wmark_pages,
)
from mmcore.mm.vmstat import (
    NR_ACTIVE_ANON,
    NR_ACTIVE_FILE,
    NR_ANON_THPS,
    NR_BOUNCE,
    NR_FILE_DIRTY,
    NR_FILE_MAPPED,
    NR_FILE_PAGES,
    NR_FREE_CMA_PAGES,
    NR_FREE_PAGES,
    NR_INACTIVE_ANON,
    NR_INACTIVE_FILE,
    NR_ISOLATED_ANON,
    NR_ISOLATED_FILE,
    NR_KERNEL_MISC_RECLAIMABLE,
    NR_KERNEL_STACK_KB,
    NR_MLOCK,
    NR_PAGETABLE,
    NR_SECONDARY_PAGETABLE,
    NR_SHMEM,
    NR_SHMEM_PMDMAPPED,
    NR_SHMEM_THPS,
    NR_SLAB_RECLAIMABLE_B,
    NR_SLAB_UNRECLAIMABLE_B,
    NR_SWAPCACHE,
    NR_UNEVICTABLE,
    NR_WRITEBACK,
    NR_WRITEBACK_TEMP,
    NR_ZONE_ACTIVE_ANON,
    NR_ZONE_ACTIVE_FILE,
    NR_ZONE_INACTIVE_ANON,
    NR_ZONE_INACTIVE_FILE,
    NR_ZONE_UNEVICTABLE,
    NR_ZONE_WRITE_PENDING,
    global_node_page_state,
    global_zone_page_state,
    node_page_state,
    zone_page_state,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = [
    "SHOW_MEM_FILTER_NODES",
    "free_list_line",
    "node_mask_text",
    "show_free_areas",
    "show_mem",
    "show_migration_types",
    "si_mem_available",
    "warn_alloc_lines",
    "warn_alloc_show_mem",
    "zone_free_list_line",
]

SHOW_MEM_FILTER_NODES = 1

#: The lines of the first paragraph: a name and the node counter (pages) it shows.
GLOBAL_LINES: tuple[tuple[tuple[str, int], ...], ...] = (
    (
        ("active_anon", NR_ACTIVE_ANON),
        ("inactive_anon", NR_INACTIVE_ANON),
        ("isolated_anon", NR_ISOLATED_ANON),
    ),
    (
        ("active_file", NR_ACTIVE_FILE),
        ("inactive_file", NR_INACTIVE_FILE),
        ("isolated_file", NR_ISOLATED_FILE),
    ),
    (("unevictable", NR_UNEVICTABLE), ("dirty", NR_FILE_DIRTY), ("writeback", NR_WRITEBACK)),
    (
        ("slab_reclaimable", NR_SLAB_RECLAIMABLE_B),
        ("slab_unreclaimable", NR_SLAB_UNRECLAIMABLE_B),
    ),
    (("mapped", NR_FILE_MAPPED), ("shmem", NR_SHMEM), ("pagetables", NR_PAGETABLE)),
)

#: A node's line: a name and the node counter it shows, in kB.
NODE_ITEMS: tuple[tuple[str, int], ...] = (
    ("active_anon", NR_ACTIVE_ANON),
    ("inactive_anon", NR_INACTIVE_ANON),
    ("active_file", NR_ACTIVE_FILE),
    ("inactive_file", NR_INACTIVE_FILE),
    ("unevictable", NR_UNEVICTABLE),
    ("isolated(anon)", NR_ISOLATED_ANON),
    ("isolated(file)", NR_ISOLATED_FILE),
    ("mapped", NR_FILE_MAPPED),
    ("dirty", NR_FILE_DIRTY),
    ("writeback", NR_WRITEBACK),
    ("shmem", NR_SHMEM),
    ("shmem_thp", NR_SHMEM_THPS),
    ("shmem_pmdmapped", NR_SHMEM_PMDMAPPED),
    ("anon_thp", NR_ANON_THPS),
    ("writeback_tmp", NR_WRITEBACK_TEMP),
    ("kernel_stack", NR_KERNEL_STACK_KB),
    ("pagetables", NR_PAGETABLE),
    ("sec_pagetables", NR_SECONDARY_PAGETABLE),
)

#: The zone counters of a zone's line, between its watermarks and its size, in kB.
ZONE_ITEMS: tuple[tuple[str, int], ...] = (
    ("active_anon", NR_ZONE_ACTIVE_ANON),
    ("inactive_anon", NR_ZONE_INACTIVE_ANON),
    ("active_file", NR_ZONE_ACTIVE_FILE),
    ("inactive_file", NR_ZONE_INACTIVE_FILE),
    ("unevictable", NR_ZONE_UNEVICTABLE),
    ("writepending", NR_ZONE_WRITE_PENDING),
)


def _k(pages: int) -> int:
    """Return pages as kB: the kernel's K()."""
    return pages << PAGE_SHIFT - 10


def si_mem_available(m: Machine) -> int:
    """Return the pages that a new workload could get without swapping: MemAvailable.

    :return: ``long`` (pages)

    Mirrors mm/show_mem.c:si_mem_available().
    """
    wmark_low = sum(low_wmark_pages(zone) for zone in for_each_zone(m))
    available = global_zone_page_state(m, NR_FREE_PAGES) - m.totalreserve_pages
    pagecache = global_node_page_state(m, NR_ACTIVE_FILE)
    pagecache += global_node_page_state(m, NR_INACTIVE_FILE)
    available += pagecache - min(pagecache // 2, wmark_low)
    reclaimable = global_node_page_state(m, NR_SLAB_RECLAIMABLE_B)
    reclaimable += global_node_page_state(m, NR_KERNEL_MISC_RECLAIMABLE)
    available += reclaimable - min(reclaimable // 2, wmark_low)
    return max(available, 0)


def node_mask_text(nodemask: int | None) -> str:
    """Return a node mask as ``%*pbl`` prints it: ``0-2,5``; ``(null)`` for no mask."""
    if nodemask is None:
        return "(null)"
    parts: list[str] = []
    nid = 0
    while nodemask >> nid:
        if not nodemask >> nid & 1:
            nid += 1
            continue
        first = nid
        while nodemask >> nid & 1:
            nid += 1
        parts.append(f"{first}" if nid - first == 1 else f"{first}-{nid - 1}")
    return ",".join(parts)


def show_migration_types(types: int) -> str:
    """Return which types have free blocks, as ``(UME) ``.

    :param types: bit n for migratetype n

    Mirrors mm/show_mem.c:show_migration_types().
    """
    return "(" + "".join(c for i, c in enumerate(MIGRATETYPE_LETTERS) if types >> i & 1) + ") "


def free_list_line(name: str, nr: list[int], types: list[int]) -> str:
    """Return the line of a zone's free lists.

    :param name: what stands before the colon: ``Node 0 DMA32``
    :param nr: the number of free blocks by order
    :param types: by order, bit n if migratetype n has free blocks
    """
    text = f"{name}: "
    for order in range(NR_PAGE_ORDERS):
        text += f"{nr[order]}*{_k(1) << order}kB "
        if nr[order]:
            text += show_migration_types(types[order])
    total = sum(count << order for order, count in enumerate(nr))
    return f"{text}= {_k(total)}kB"


def zone_free_list_line(zone: Zone) -> str:
    """Return the line of a zone's free lists: ``Node 0 DMA32: 12*4kB (UME) ... = 123kB``."""
    nr, types = [], []
    for area in zone.free_area:
        nr.append(area.nr_free)
        lists = area.free_list
        types.append(sum(1 << mt for mt in range(MIGRATE_TYPES) if lists[mt].next is not lists[mt]))
    return free_list_line(f"Node {zone.node} {zone.name}", nr, types)


def _free_pcp(m: Machine, zone: Zone) -> int:
    return sum(pcp.count for pcp in zone.per_cpu_pageset)


def _node_line(pgdat: PgData) -> str:
    """Return a node's line: its counters in kB."""
    text = f"Node {pgdat.node_id}"
    for name, item in NODE_ITEMS:
        value = node_page_state(pgdat, item)
        text += f" {name}:{value if item == NR_KERNEL_STACK_KB else _k(value)}kB"
    unreclaimable = "yes" if pgdat.kswapd_failures >= MAX_RECLAIM_RETRIES else "no"
    return f"{text} all_unreclaimable? {unreclaimable}"


def _zone_lines(m: Machine, zone: Zone) -> list[str]:
    """Return a zone's two lines: watermarks and counters in kB, reserves in pages."""
    local = zone.per_cpu_pageset[m.this_cpu].count if zone.per_cpu_pageset else 0
    text = (
        f"Node {zone.node} {zone.name} free:{_k(zone_page_state(zone, NR_FREE_PAGES))}kB"
        f" boost:{_k(zone.watermark_boost)}kB min:{_k(min_wmark_pages(zone))}kB"
        f" low:{_k(low_wmark_pages(zone))}kB high:{_k(high_wmark_pages(zone))}kB"
        f" reserved_highatomic:{_k(zone.nr_reserved_highatomic)}KB"
    )
    for name, item in ZONE_ITEMS:
        text += f" {name}:{_k(zone_page_state(zone, item))}kB"
    text += (
        f" present:{_k(zone.present_pages)}kB managed:{_k(zone.managed_pages)}kB"
        f" mlocked:{_k(zone_page_state(zone, NR_MLOCK))}kB"
        f" bounce:{_k(zone_page_state(zone, NR_BOUNCE))}kB"
        f" free_pcp:{_k(_free_pcp(m, zone))}kB local_pcp:{_k(local)}kB"
        f" free_cma:{_k(zone_page_state(zone, NR_FREE_CMA_PAGES))}kB"
    )
    reserve = " ".join(str(zone.lowmem_reserve[i]) for i in range(MAX_NR_ZONES))
    return [text, f"lowmem_reserve[]: {reserve}"]


def show_free_areas(m: Machine, filter: int, nodemask: int | None, max_zone_idx: int) -> list[str]:
    """Return the lines about counters, nodes, zones and free lists.

    Simplified: no cpusets, so a filter without a node mask hides nothing; of huge pages, none are
    reserved.

    :param filter: SHOW_MEM_FILTER_NODES to leave out nodes that @nodemask does not name

    Mirrors mm/show_mem.c:show_free_areas().
    """

    def skip(nid: int) -> bool:
        return bool(filter & SHOW_MEM_FILTER_NODES and nodemask is not None) and not (
            (nodemask or 0) >> nid & 1
        )

    zones = [
        z for z in for_each_populated_zone(m) if z.zone_idx <= max_zone_idx and not skip(z.node)
    ]
    pgdats = [p for p in for_each_online_pgdat(m) if not skip(p.node_id)]
    lines = [
        (" " if i else "") + " ".join(f"{n}:{global_node_page_state(m, item)}" for n, item in line)
        for i, line in enumerate(GLOBAL_LINES)
    ]
    lines += [
        f" sec_pagetables:{global_node_page_state(m, NR_SECONDARY_PAGETABLE)}"
        f" bounce:{global_zone_page_state(m, NR_BOUNCE)}",
        f" kernel_misc_reclaimable:{global_node_page_state(m, NR_KERNEL_MISC_RECLAIMABLE)}",
        f" free:{global_zone_page_state(m, NR_FREE_PAGES)}"
        f" free_pcp:{sum(_free_pcp(m, z) for z in zones)}"
        f" free_cma:{global_zone_page_state(m, NR_FREE_CMA_PAGES)}",
    ]
    for pgdat in pgdats:
        if any(z.managed_pages for z in pgdat.node_zones[: max_zone_idx + 1]):
            lines.append(_node_line(pgdat))
    for zone in zones:
        lines += _zone_lines(m, zone)
    lines += [zone_free_list_line(zone) for zone in zones]
    for pgdat in pgdats:
        for size in (1048576, 2048):  # hugetlb_show_meminfo_node(): the sizes of x86-64
            lines.append(
                f"Node {pgdat.node_id} hugepages_total=0 hugepages_free=0 hugepages_surp=0 "
                f"hugepages_size={size}kB"
            )
    lines.append(f"{global_node_page_state(m, NR_FILE_PAGES)} total pagecache pages")
    lines.append(f"{global_node_page_state(m, NR_SWAPCACHE)} pages in swap cache")
    lines.append(f"Free swap  = {_k(m.nr_swap_pages)}kB")
    lines.append(f"Total swap = {_k(m.total_swap_pages)}kB")
    return lines


def show_mem(m: Machine, filter: int, nodemask: int | None, max_zone_idx: int) -> list[str]:
    """Return the lines of the report on memory, from "Mem-Info:" on.

    Mirrors mm/show_mem.c:__show_mem().
    """
    lines = ["Mem-Info:"]
    lines += show_free_areas(m, filter, nodemask, max_zone_idx)
    total = reserved = 0
    for zone in for_each_populated_zone(m):
        total += zone.present_pages
        reserved += zone.present_pages - zone.managed_pages
    lines.append(f"{total} pages RAM")
    lines.append("0 pages HighMem/MovableOnly")
    lines.append(f"{reserved} pages reserved")
    lines.append("0 pages hwpoisoned")
    return lines


def warn_alloc_show_mem(m: Machine, gfp_mask: int, nodemask: int | None) -> list[str]:
    """Return the report on memory for a failed request: the nodes it could use, or all.

    Mirrors mm/page_alloc.c:warn_alloc_show_mem().
    """
    filter = SHOW_MEM_FILTER_NODES
    task = m.init_task if m.current is None else m.current
    if not gfp_mask & __GFP_NOMEMALLOC and (
        m.hooks.tsk_is_oom_victim(task) or task.flags & (PF_MEMALLOC | PF_EXITING)
    ):
        filter &= ~SHOW_MEM_FILTER_NODES
    if not gfp_mask & __GFP_DIRECT_RECLAIM:
        filter &= ~SHOW_MEM_FILTER_NODES
    return show_mem(m, filter, nodemask, gfp_zone(gfp_mask))


def warn_alloc_lines(m: Machine, gfp_mask: int, nodemask: int | None, order: int) -> list[str]:
    """Return the whole report on a failed allocation.

    Simplified: the stack dump is only its line about the task, without the version of the kernel.
    """
    task = m.init_task if m.current is None else m.current
    mems = sum(1 << p.node_id for p in for_each_online_pgdat(m))
    head = (
        f"{task.comm}: page allocation failure: order:{order}, "
        f"mode:{gfp_mask:#x}({gfp_str(gfp_mask)}), nodemask={node_mask_text(nodemask)},"
        f"cpuset=/,mems_allowed={node_mask_text(mems)}"
    )
    cpu = f"CPU: {m.this_cpu} UID: 0 PID: {task.pid} Comm: {task.comm} Not tainted"
    return [head, cpu, *warn_alloc_show_mem(m, gfp_mask, nodemask)]
