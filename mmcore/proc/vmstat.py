"""/proc/vmstat: every counter of the memory manager, one a line.

Mirrors mm/vmstat.c:vmstat_show().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.config import PAGE_SIZE
from mmcore.mm import vmstat as vs
from mmcore.mm.mmzone import for_each_zone
from mmcore.proc.lines import Lines

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = ["VmStat", "global_dirty_limits", "parse", "render", "show", "snapshot"]

HPAGE_PMD_NR = 512
#: Counters by name, in the file's order.
VmStat = dict[str, int]


def parse(text: str) -> VmStat:
    """Read the file. Counters that this kernel does not have are kept.

    :raises ParseError: with the first line that does not belong
    """
    lines = Lines(text, "/proc/vmstat")
    counters: VmStat = {}
    while lines:
        match = lines.match(r"(\w+) (\d{1,20})", "'name N'")
        if match.group(1) in counters:
            raise lines.error(f"{match.group(1)} appears twice", back=1)
        counters[match.group(1)] = int(match.group(2))
    if not counters:
        raise lines.error("the text is empty")
    return counters


def render(counters: VmStat) -> str:
    """Write the file.

    Mirrors mm/vmstat.c:vmstat_show().
    """
    return "".join(f"{name} {value}\n" for name, value in counters.items())


def global_dirty_limits(m: Machine) -> tuple[int, int]:
    """Return (background threshold, threshold) of dirty pages.

    Mirrors mm/page-writeback.c:global_dirty_limits().
    Simplified: the ratios, not the byte limits; no real-time task, no memory cgroup.
    """
    free = vs.global_zone_page_state(m, vs.NR_FREE_PAGES)
    available = free - min(free, m.totalreserve_pages)
    available += vs.global_node_page_state(m, vs.NR_INACTIVE_FILE)
    available += vs.global_node_page_state(m, vs.NR_ACTIVE_FILE)
    available += 1  # so that it is never 0
    thresh = m.vm_dirty_ratio * PAGE_SIZE // 100 * available // PAGE_SIZE
    bg_thresh = m.dirty_background_ratio * PAGE_SIZE // 100 * available // PAGE_SIZE
    if bg_thresh >= thresh:
        bg_thresh = thresh // 2
    return bg_thresh, thresh


def snapshot(m: Machine) -> VmStat:
    """Return what the file shows of a machine now."""
    counters: VmStat = {}
    for i, name in enumerate(vs.ZONE_STAT_TEXT):
        counters[name] = vs.global_zone_page_state(m, i)
    for i, name in enumerate(vs.NUMA_STAT_TEXT):
        counters[name] = sum(zone.vm_numa_event[i] for zone in for_each_zone(m))
    for i, name in enumerate(vs.NODE_STAT_TEXT):
        value = vs.global_node_page_state(m, i)
        counters[name] = value // HPAGE_PMD_NR if i in vs.NODE_ITEMS_IN_THP else value
    items = list(m.vm_stat_items)
    items[1], items[0] = global_dirty_limits(m)
    items[3] = m.mm_init.memmap_pages
    counters.update(zip(vs.VM_STAT_TEXT, items, strict=True))
    counters.update(zip(vs.VM_EVENT_TEXT, m.vm_event, strict=True))
    for name in ("pgpgin", "pgpgout"):
        counters[name] //= 2  # sectors -> kB
    counters["nr_unstable"] = 0
    return counters


def show(m: Machine) -> str:
    """Return the file of a machine."""
    return render(snapshot(m))
