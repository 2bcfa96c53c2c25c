"""Counters: what /proc/vmstat, /proc/zoneinfo and /proc/meminfo are made of.

Mirrors include/linux/mmzone.h (enum zone_stat_item, numa_stat_item, node_stat_item),
include/linux/vm_event_item.h and mm/vmstat.c for the reference configuration.

A zone keeps its zone items, a node its node items, the machine the global ones and the events, each
as a list indexed by the enum. A name table per enum gives the kernel's text for each item.

Simplified: counters are exact. The kernel adds to a per-CPU part first and folds it into the zone
when it passes a threshold, so what it reads may be off by the threshold times the CPUs; and
NR_KERNEL_STACK_KB counts KiB, the slab items pages, as in the kernel's internal representation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.mmzone import PgData, Zone

# enum zone_stat_item
(
    NR_FREE_PAGES,
    NR_ZONE_INACTIVE_ANON,
    NR_ZONE_ACTIVE_ANON,
    NR_ZONE_INACTIVE_FILE,
    NR_ZONE_ACTIVE_FILE,
    NR_ZONE_UNEVICTABLE,
    NR_ZONE_WRITE_PENDING,
    NR_MLOCK,
    NR_BOUNCE,
    NR_ZSPAGES,
    NR_FREE_CMA_PAGES,
    NR_UNACCEPTED,
) = range(12)
NR_VM_ZONE_STAT_ITEMS = 12
ZONE_STAT_TEXT: tuple[str, ...] = (
    "nr_free_pages",
    "nr_zone_inactive_anon",
    "nr_zone_active_anon",
    "nr_zone_inactive_file",
    "nr_zone_active_file",
    "nr_zone_unevictable",
    "nr_zone_write_pending",
    "nr_mlock",
    "nr_bounce",
    "nr_zspages",
    "nr_free_cma",
    "nr_unaccepted",
)

# enum numa_stat_item
(
    NUMA_HIT,
    NUMA_MISS,
    NUMA_FOREIGN,
    NUMA_INTERLEAVE_HIT,
    NUMA_LOCAL,
    NUMA_OTHER,
) = range(6)
NR_VM_NUMA_EVENT_ITEMS = 6
NUMA_STAT_TEXT: tuple[str, ...] = (
    "numa_hit",
    "numa_miss",
    "numa_foreign",
    "numa_interleave",
    "numa_local",
    "numa_other",
)

# enum node_stat_item
(
    NR_INACTIVE_ANON,
    NR_ACTIVE_ANON,
    NR_INACTIVE_FILE,
    NR_ACTIVE_FILE,
    NR_UNEVICTABLE,
    NR_SLAB_RECLAIMABLE_B,
    NR_SLAB_UNRECLAIMABLE_B,
    NR_ISOLATED_ANON,
    NR_ISOLATED_FILE,
    WORKINGSET_NODES,
    WORKINGSET_REFAULT_ANON,
    WORKINGSET_REFAULT_FILE,
    WORKINGSET_ACTIVATE_ANON,
    WORKINGSET_ACTIVATE_FILE,
    WORKINGSET_RESTORE_ANON,
    WORKINGSET_RESTORE_FILE,
    WORKINGSET_NODERECLAIM,
    NR_ANON_MAPPED,
    NR_FILE_MAPPED,
    NR_FILE_PAGES,
    NR_FILE_DIRTY,
    NR_WRITEBACK,
    NR_WRITEBACK_TEMP,
    NR_SHMEM,
    NR_SHMEM_THPS,
    NR_SHMEM_PMDMAPPED,
    NR_FILE_THPS,
    NR_FILE_PMDMAPPED,
    NR_ANON_THPS,
    NR_VMSCAN_WRITE,
    NR_VMSCAN_IMMEDIATE,
    NR_DIRTIED,
    NR_WRITTEN,
    NR_THROTTLED_WRITTEN,
    NR_KERNEL_MISC_RECLAIMABLE,
    NR_FOLL_PIN_ACQUIRED,
    NR_FOLL_PIN_RELEASED,
    NR_KERNEL_STACK_KB,
    NR_PAGETABLE,
    NR_SECONDARY_PAGETABLE,
    NR_IOMMU_PAGES,
    NR_SWAPCACHE,
    PGPROMOTE_SUCCESS,
    PGPROMOTE_CANDIDATE,
    PGDEMOTE_KSWAPD,
    PGDEMOTE_DIRECT,
    PGDEMOTE_KHUGEPAGED,
) = range(47)
NR_VM_NODE_STAT_ITEMS = 47
NODE_STAT_TEXT: tuple[str, ...] = (
    "nr_inactive_anon",
    "nr_active_anon",
    "nr_inactive_file",
    "nr_active_file",
    "nr_unevictable",
    "nr_slab_reclaimable",
    "nr_slab_unreclaimable",
    "nr_isolated_anon",
    "nr_isolated_file",
    "workingset_nodes",
    "workingset_refault_anon",
    "workingset_refault_file",
    "workingset_activate_anon",
    "workingset_activate_file",
    "workingset_restore_anon",
    "workingset_restore_file",
    "workingset_nodereclaim",
    "nr_anon_pages",
    "nr_mapped",
    "nr_file_pages",
    "nr_dirty",
    "nr_writeback",
    "nr_writeback_temp",
    "nr_shmem",
    "nr_shmem_hugepages",
    "nr_shmem_pmdmapped",
    "nr_file_hugepages",
    "nr_file_pmdmapped",
    "nr_anon_transparent_hugepages",
    "nr_vmscan_write",
    "nr_vmscan_immediate_reclaim",
    "nr_dirtied",
    "nr_written",
    "nr_throttled_written",
    "nr_kernel_misc_reclaimable",
    "nr_foll_pin_acquired",
    "nr_foll_pin_released",
    "nr_kernel_stack",
    "nr_page_table_pages",
    "nr_sec_page_table_pages",
    "nr_iommu_pages",
    "nr_swapcached",
    "pgpromote_success",
    "pgpromote_candidate",
    "pgdemote_kswapd",
    "pgdemote_direct",
    "pgdemote_khugepaged",
)

# enum vm_stat_item: system-wide values that are computed or set, not counted
(
    NR_DIRTY_THRESHOLD,
    NR_DIRTY_BG_THRESHOLD,
    NR_MEMMAP_PAGES,
    NR_MEMMAP_BOOT_PAGES,
) = range(4)
NR_VM_STAT_ITEMS = 4
VM_STAT_TEXT: tuple[str, ...] = (
    "nr_dirty_threshold",
    "nr_dirty_background_threshold",
    "nr_memmap_pages",
    "nr_memmap_boot_pages",
)

# enum vm_event_item
(
    PGPGIN,
    PGPGOUT,
    PSWPIN,
    PSWPOUT,
    PGALLOC_DMA,
    PGALLOC_DMA32,
    PGALLOC_NORMAL,
    PGALLOC_MOVABLE,
    PGALLOC_DEVICE,
    ALLOCSTALL_DMA,
    ALLOCSTALL_DMA32,
    ALLOCSTALL_NORMAL,
    ALLOCSTALL_MOVABLE,
    ALLOCSTALL_DEVICE,
    PGSCAN_SKIP_DMA,
    PGSCAN_SKIP_DMA32,
    PGSCAN_SKIP_NORMAL,
    PGSCAN_SKIP_MOVABLE,
    PGSCAN_SKIP_DEVICE,
    PGFREE,
    PGACTIVATE,
    PGDEACTIVATE,
    PGLAZYFREE,
    PGFAULT,
    PGMAJFAULT,
    PGLAZYFREED,
    PGREFILL,
    PGREUSE,
    PGSTEAL_KSWAPD,
    PGSTEAL_DIRECT,
    PGSTEAL_KHUGEPAGED,
    PGSCAN_KSWAPD,
    PGSCAN_DIRECT,
    PGSCAN_KHUGEPAGED,
    PGSCAN_DIRECT_THROTTLE,
    PGSCAN_ANON,
    PGSCAN_FILE,
    PGSTEAL_ANON,
    PGSTEAL_FILE,
    PGSCAN_ZONE_RECLAIM_SUCCESS,
    PGSCAN_ZONE_RECLAIM_FAILED,
    PGINODESTEAL,
    SLABS_SCANNED,
    KSWAPD_INODESTEAL,
    KSWAPD_LOW_WMARK_HIT_QUICKLY,
    KSWAPD_HIGH_WMARK_HIT_QUICKLY,
    PAGEOUTRUN,
    PGROTATED,
    DROP_PAGECACHE,
    DROP_SLAB,
    OOM_KILL,
    NUMA_PTE_UPDATES,
    NUMA_HUGE_PTE_UPDATES,
    NUMA_HINT_FAULTS,
    NUMA_HINT_FAULTS_LOCAL,
    NUMA_PAGE_MIGRATE,
    PGMIGRATE_SUCCESS,
    PGMIGRATE_FAIL,
    THP_MIGRATION_SUCCESS,
    THP_MIGRATION_FAIL,
    THP_MIGRATION_SPLIT,
    COMPACTMIGRATE_SCANNED,
    COMPACTFREE_SCANNED,
    COMPACTISOLATED,
    COMPACTSTALL,
    COMPACTFAIL,
    COMPACTSUCCESS,
    KCOMPACTD_WAKE,
    KCOMPACTD_MIGRATE_SCANNED,
    KCOMPACTD_FREE_SCANNED,
    HTLB_BUDDY_PGALLOC,
    HTLB_BUDDY_PGALLOC_FAIL,
    UNEVICTABLE_PGCULLED,
    UNEVICTABLE_PGSCANNED,
    UNEVICTABLE_PGRESCUED,
    UNEVICTABLE_PGMLOCKED,
    UNEVICTABLE_PGMUNLOCKED,
    UNEVICTABLE_PGCLEARED,
    UNEVICTABLE_PGSTRANDED,
    THP_FAULT_ALLOC,
    THP_FAULT_FALLBACK,
    THP_FAULT_FALLBACK_CHARGE,
    THP_COLLAPSE_ALLOC,
    THP_COLLAPSE_ALLOC_FAILED,
    THP_FILE_ALLOC,
    THP_FILE_FALLBACK,
    THP_FILE_FALLBACK_CHARGE,
    THP_FILE_MAPPED,
    THP_SPLIT_PAGE,
    THP_SPLIT_PAGE_FAILED,
    THP_DEFERRED_SPLIT_PAGE,
    THP_UNDERUSED_SPLIT_PAGE,
    THP_SPLIT_PMD,
    THP_SCAN_EXCEED_NONE_PTE,
    THP_SCAN_EXCEED_SWAP_PTE,
    THP_SCAN_EXCEED_SHARED_PTE,
    THP_SPLIT_PUD,
    THP_ZERO_PAGE_ALLOC,
    THP_ZERO_PAGE_ALLOC_FAILED,
    THP_SWPOUT,
    THP_SWPOUT_FALLBACK,
    BALLOON_INFLATE,
    BALLOON_DEFLATE,
    BALLOON_MIGRATE,
    SWAP_RA,
    SWAP_RA_HIT,
    SWPIN_ZERO,
    SWPOUT_ZERO,
    KSM_SWPIN_COPY,
    COW_KSM,
    DIRECT_MAP_LEVEL2_SPLIT,
    DIRECT_MAP_LEVEL3_SPLIT,
) = range(112)
NR_VM_EVENT_ITEMS = 112
VM_EVENT_TEXT: tuple[str, ...] = (
    "pgpgin",
    "pgpgout",
    "pswpin",
    "pswpout",
    "pgalloc_dma",
    "pgalloc_dma32",
    "pgalloc_normal",
    "pgalloc_movable",
    "pgalloc_device",
    "allocstall_dma",
    "allocstall_dma32",
    "allocstall_normal",
    "allocstall_movable",
    "allocstall_device",
    "pgskip_dma",
    "pgskip_dma32",
    "pgskip_normal",
    "pgskip_movable",
    "pgskip_device",
    "pgfree",
    "pgactivate",
    "pgdeactivate",
    "pglazyfree",
    "pgfault",
    "pgmajfault",
    "pglazyfreed",
    "pgrefill",
    "pgreuse",
    "pgsteal_kswapd",
    "pgsteal_direct",
    "pgsteal_khugepaged",
    "pgscan_kswapd",
    "pgscan_direct",
    "pgscan_khugepaged",
    "pgscan_direct_throttle",
    "pgscan_anon",
    "pgscan_file",
    "pgsteal_anon",
    "pgsteal_file",
    "zone_reclaim_success",
    "zone_reclaim_failed",
    "pginodesteal",
    "slabs_scanned",
    "kswapd_inodesteal",
    "kswapd_low_wmark_hit_quickly",
    "kswapd_high_wmark_hit_quickly",
    "pageoutrun",
    "pgrotated",
    "drop_pagecache",
    "drop_slab",
    "oom_kill",
    "numa_pte_updates",
    "numa_huge_pte_updates",
    "numa_hint_faults",
    "numa_hint_faults_local",
    "numa_pages_migrated",
    "pgmigrate_success",
    "pgmigrate_fail",
    "thp_migration_success",
    "thp_migration_fail",
    "thp_migration_split",
    "compact_migrate_scanned",
    "compact_free_scanned",
    "compact_isolated",
    "compact_stall",
    "compact_fail",
    "compact_success",
    "compact_daemon_wake",
    "compact_daemon_migrate_scanned",
    "compact_daemon_free_scanned",
    "htlb_buddy_alloc_success",
    "htlb_buddy_alloc_fail",
    "unevictable_pgs_culled",
    "unevictable_pgs_scanned",
    "unevictable_pgs_rescued",
    "unevictable_pgs_mlocked",
    "unevictable_pgs_munlocked",
    "unevictable_pgs_cleared",
    "unevictable_pgs_stranded",
    "thp_fault_alloc",
    "thp_fault_fallback",
    "thp_fault_fallback_charge",
    "thp_collapse_alloc",
    "thp_collapse_alloc_failed",
    "thp_file_alloc",
    "thp_file_fallback",
    "thp_file_fallback_charge",
    "thp_file_mapped",
    "thp_split_page",
    "thp_split_page_failed",
    "thp_deferred_split_page",
    "thp_underused_split_page",
    "thp_split_pmd",
    "thp_scan_exceed_none_pte",
    "thp_scan_exceed_swap_pte",
    "thp_scan_exceed_share_pte",
    "thp_split_pud",
    "thp_zero_page_alloc",
    "thp_zero_page_alloc_failed",
    "thp_swpout",
    "thp_swpout_fallback",
    "balloon_inflate",
    "balloon_deflate",
    "balloon_migrate",
    "swap_ra",
    "swap_ra_hit",
    "swpin_zero",
    "swpout_zero",
    "ksm_swpin_copy",
    "cow_ksm",
    "direct_map_level2_splits",
    "direct_map_level3_splits",
)

#: /proc/vmstat's order: zone, NUMA, node, system-wide, events.
VMSTAT_TEXT = ZONE_STAT_TEXT + NUMA_STAT_TEXT + NODE_STAT_TEXT + VM_STAT_TEXT + VM_EVENT_TEXT

#: Node items that are kept in pages and printed in huge pages (vmstat_item_print_in_thp()).
NODE_ITEMS_IN_THP = (
    NR_ANON_THPS,
    NR_FILE_THPS,
    NR_SHMEM_THPS,
    NR_SHMEM_PMDMAPPED,
    NR_FILE_PMDMAPPED,
)


def zone_page_state(zone: Zone, item: int) -> int:
    """Return zone counter @item, in pages; never below 0.

    Mirrors include/linux/vmstat.h:zone_page_state().
    """
    x = zone.vm_stat[item]
    return x if x > 0 else 0


def global_zone_page_state(m: Machine, item: int) -> int:
    """Return zone counter @item summed over all zones; never below 0.

    Mirrors include/linux/vmstat.h:global_zone_page_state().
    """
    x = sum(z.vm_stat[item] for pgdat in m.node_data.values() for z in pgdat.node_zones)
    return x if x > 0 else 0


def node_page_state(pgdat: PgData, item: int) -> int:
    """Return node counter @item; never below 0.

    Mirrors mm/vmstat.c:node_page_state().
    """
    x = pgdat.vm_stat[item]
    return x if x > 0 else 0


def global_node_page_state(m: Machine, item: int) -> int:
    """Return node counter @item summed over all nodes; never below 0.

    Mirrors include/linux/vmstat.h:global_node_page_state().
    """
    x = sum(pgdat.vm_stat[item] for pgdat in m.node_data.values())
    return x if x > 0 else 0


def mod_zone_page_state(zone: Zone, item: int, delta: int) -> None:
    """Add @delta to zone counter @item.

    Mirrors mm/vmstat.c:mod_zone_page_state().
    """
    zone.vm_stat[item] += delta


def mod_node_page_state(pgdat: PgData, item: int, delta: int) -> None:
    """Add @delta to node counter @item.

    Mirrors mm/vmstat.c:mod_node_page_state().
    """
    pgdat.vm_stat[item] += delta


def count_vm_events(m: Machine, item: int, delta: int) -> None:
    """Add @delta to event counter @item.

    Mirrors include/linux/vmstat.h:count_vm_events().
    """
    m.vm_event[item] += delta


def count_vm_event(m: Machine, item: int) -> None:
    """Add one to event counter @item.

    Mirrors include/linux/vmstat.h:count_vm_event().
    """
    m.vm_event[item] += 1


def calculate_normal_threshold(zone: Zone) -> int:
    """Return how far a CPU's part of a counter may drift before it is folded into the zone's.

    It grows with the logarithms of the CPUs and of the zone's memory in units of 128 MiB.

    Mirrors mm/vmstat.c:calculate_normal_threshold().
    """
    mem = zone.managed_pages >> (27 - 12)
    threshold = 2 * zone.machine.num_online_cpus.bit_length() * (1 + mem.bit_length())
    return min(125, threshold)


def refresh_zone_stat_thresholds(m: Machine) -> None:
    """Set each zone's threshold, and the free-page count below which readers must add up CPUs.

    Mirrors mm/vmstat.c:refresh_zone_stat_thresholds().
    Simplified: one threshold for a zone, as all CPUs have the same; counters themselves are exact.
    """
    for nid in sorted(m.node_data):
        for zone in m.node_data[nid].node_zones:
            if not zone.present_pages:
                continue
            zone.stat_threshold = calculate_normal_threshold(zone)
            mark = zone._watermark
            max_drift = m.num_online_cpus * zone.stat_threshold
            if max_drift > mark[1] - mark[0]:
                zone.percpu_drift_mark = mark[2] + zone.watermark_boost + max_drift


__all__ = [
    "calculate_normal_threshold",
    "count_vm_event",
    "count_vm_events",
    "global_node_page_state",
    "global_zone_page_state",
    "mod_node_page_state",
    "mod_zone_page_state",
    "node_page_state",
    "refresh_zone_stat_thresholds",
    "zone_page_state",
    *[n for n, v in globals().items() if n.isupper() and isinstance(v, (int, tuple))],
]
