"""khugepaged's rule for min_free_kbytes.

Whoever wants huge pages needs whole pageblocks to stay free, so starting khugepaged raises the
kernel's free-memory reserve. (What khugepaged does with pages belongs to huge pages, chapter 16.)

Mirrors mm/khugepaged.c and hugepage_init() of mm/huge_memory.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.config import PAGE_SHIFT
from mmcore.mm import page_alloc
from mmcore.mm.gfp import GFP_USER, gfp_zone
from mmcore.mm.mmzone import (
    MIGRATE_PCPTYPES,
    for_each_populated_zone,
    pageblock_nr_pages,
    zone_idx,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = [
    "hugepage_init",
    "hugepage_pmd_enabled",
    "khugepaged_min_free_kbytes_update",
    "set_recommended_min_free_kbytes",
    "start_stop_khugepaged",
]


def hugepage_pmd_enabled(m: Machine) -> bool:
    """Tell whether some mapping could get a PMD-sized huge page.

    Mirrors mm/khugepaged.c:hugepage_pmd_enabled().
    Simplified: one switch; the kernel looks at anonymous, file and shmem settings and every size.
    """
    return m.config.TRANSPARENT_HUGEPAGE and m.transparent_hugepage != "never"


def set_recommended_min_free_kbytes(m: Machine) -> None:
    """Raise min_free_kbytes for huge pages, or return it to the common rule; recompute watermarks.

    Two pageblocks free per zone, and room for the three migratetypes to fall back to each other, at
    most 5 % of low memory.

    Mirrors mm/khugepaged.c:set_recommended_min_free_kbytes().
    """
    if not hugepage_pmd_enabled(m):
        page_alloc.calculate_min_free_kbytes(m)
    else:
        nr_zones = 0
        for zone in for_each_populated_zone(m):
            if zone_idx(zone) <= gfp_zone(GFP_USER):
                nr_zones += 1
        recommended_min = pageblock_nr_pages * nr_zones * 2
        recommended_min += pageblock_nr_pages * nr_zones * MIGRATE_PCPTYPES * MIGRATE_PCPTYPES
        recommended_min = min(recommended_min, page_alloc.nr_free_buffer_pages(m) // 20)
        recommended_min <<= PAGE_SHIFT - 10
        if recommended_min > m.min_free_kbytes:
            if m.user_min_free_kbytes >= 0:
                m.pr_info(
                    f"raising min_free_kbytes from {m.min_free_kbytes} to {recommended_min} "
                    "to help transparent hugepage allocations"
                )
            m.min_free_kbytes = recommended_min
    page_alloc.setup_per_zone_wmarks(m)


def start_stop_khugepaged(m: Machine) -> int:
    """Start or stop the daemon after its switch was set.

    :return: 0

    Mirrors mm/khugepaged.c:start_stop_khugepaged().
    Simplified: there is no daemon yet.
    """
    m.khugepaged_thread = hugepage_pmd_enabled(m)
    set_recommended_min_free_kbytes(m)
    return 0


def khugepaged_min_free_kbytes_update(m: Machine) -> None:
    """Apply the rule again after memory was added or removed.

    Mirrors mm/khugepaged.c:khugepaged_min_free_kbytes_update().
    """
    if hugepage_pmd_enabled(m) and m.khugepaged_thread:
        set_recommended_min_free_kbytes(m)


def hugepage_init(m: Machine) -> int:
    """Start khugepaged at boot, unless the machine has less than 512 MiB.

    On such a machine the kernel turns huge pages off and leaves min_free_kbytes alone.

    :return: 0

    Mirrors mm/huge_memory.c:hugepage_init().
    """
    if not m.config.TRANSPARENT_HUGEPAGE:
        return 0
    if m.totalram_pages < 512 << (20 - PAGE_SHIFT):
        m.transparent_hugepage = "never"
        return 0
    return start_stop_khugepaged(m)
