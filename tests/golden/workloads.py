"""Seeded workloads whose every event is kept as text: one per subsystem.

A workload is a function that runs the engine and returns lines. What it does is decided by `Lcg`, a
generator small enough to be the same on every Python, so the lines are the same everywhere too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmcore import Machine
from mmcore.errors import KernelBug
from mmcore.machine import bare_zone
from mmcore.mm import mmzone, page_alloc
from mmcore.mm.gfp import GFP_ATOMIC, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOWAIT, gfp_str
from mmcore.mm.mmzone import MIGRATETYPE_NAMES, NR_PAGE_ORDERS, Zone
from mmcore.proc import buddyinfo, pagetypeinfo, zoneinfo

rmqueue = getattr(page_alloc, "__rmqueue")
free_pages_ok = getattr(page_alloc, "__free_pages_ok")
free_pages = getattr(page_alloc, "__free_pages")
alloc_node = getattr(page_alloc, "__alloc_pages")
prep_new_page = page_alloc.prep_new_page

RECLAIMABLE = GFP_KERNEL | 0x10


class Lcg:
    """Knuth's 64-bit linear congruential generator; the upper 31 bits of each state."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def below(self, n: int) -> int:
        """Return a number from 0 to n - 1."""
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self.state >> 33) % n


@contextmanager
def events(m: Machine, lines: list[str], *patterns: str) -> Iterator[None]:
    """Append every event that matches, with its CPU."""

    def listen(event: Any) -> None:
        lines.append(f"cpu{event.cpu} {event}")

    m.trace.attach(listen, *patterns)
    try:
        yield
    finally:
        m.trace.detach(listen)


def free_lists(zone: Zone) -> Iterator[str]:
    """Each free list and per-CPU list that is not empty, in order."""
    for order in range(NR_PAGE_ORDERS):
        for mt, name in enumerate(MIGRATETYPE_NAMES):
            head = zone.free_area[order].free_list[mt]
            pfns = [page.pfn for page in head]  # type: ignore[attr-defined]
            if pfns:
                yield f"free order {order} {name}: {' '.join(map(str, pfns))}"
    for cpu, pcp in enumerate(zone.per_cpu_pageset):
        yield (
            f"pcp cpu{cpu} count {pcp.count} high {pcp.high} ({pcp.high_min} to {pcp.high_max})"
            f" batch {pcp.batch} alloc_factor {pcp.alloc_factor} free_count {pcp.free_count}"
        )
        for index, head in enumerate(pcp.lists):
            pfns = [page.pfn for page in head]  # type: ignore[attr-defined]
            if pfns:
                yield f"pcp cpu{cpu} list {index}: {' '.join(map(str, pfns))}"
    yield "pageblocks " + "".join(MIGRATETYPE_NAMES[mt][0] for mt in zone.pageblock_flags)


def boot() -> list[str]:
    """Two machines boot: the log, the zones, the free lists."""
    lines: list[str] = []
    nodes = ["1536M:0", "512M:1", "3G", "0:2"]
    distances = {(0, 1): 20, (0, 2): 31, (0, 3): 15, (1, 2): 12, (1, 3): 30, (2, 3): 20}
    for m in (
        Machine.boot("300M"),
        Machine.boot("5G", nodes=nodes, cpus=3, distances=distances, cmdline="movablecore=700M"),
    ):
        lines += m.dmesg
        for module in (zoneinfo, buddyinfo, pagetypeinfo):
            lines += module.show(m).splitlines()
    return lines


def buddy() -> list[str]:
    """Blocks of all orders and types, straight from and to the free lists of one zone."""
    lines: list[str] = []
    rng = Lcg(2)
    zone = bare_zone(4096 + 300, 37)
    held: list[tuple[Any, int]] = []
    with events(zone.machine, lines, "kmem:*", "model:*"):
        for _ in range(260):
            if rng.below(100) < 55 or not held:
                order = min(rng.below(11), rng.below(11))
                page = rmqueue(zone, order, rng.below(3), 0, [0])
                if page is None:
                    lines.append(f"order {order}: none")
                    continue
                prep_new_page(page, order, 0, 0)
                held.append((page, order))
            else:
                page, order = held.pop(rng.below(len(held)))
                page._refcount = 0
                free_pages_ok(page, order, 2 * rng.below(2))
    return lines + list(free_lists(zone))


def pcp() -> list[str]:
    """Small blocks through the per-CPU lists of two CPUs, in phases that make the lists adapt."""
    lines: list[str] = []
    rng = Lcg(3)
    m = Machine.boot("128M", cpus=2)
    held: list[tuple[Any, int]] = []
    zone = m.node_data[0].node_zones[mmzone.ZONE_DMA32]
    with events(m, lines, "kmem:mm_page_alloc_zone_locked", "kmem:mm_page_pcpu_drain"):
        for step in range(6000):
            m.this_cpu = rng.below(16) // 15
            growing = step // 500 % 2 == 0
            if rng.below(100) < (80 if growing else 20) or not held:
                order = (0, 0, 0, 0, 0, 1, 2, 3)[rng.below(8)]
                gfp = (GFP_KERNEL, GFP_HIGHUSER_MOVABLE, RECLAIMABLE)[rng.below(3)]
                page = page_alloc.alloc_pages(m, gfp, order)
                assert page is not None
                held.append((page, order))
            else:
                page, order = held.pop(rng.below(len(held)))
                free_pages(page, order)
            if step % 250 == 249:
                page_alloc.decay_pcp_high(zone, zone.per_cpu_pageset[1])
                lines += [line for line in free_lists(zone) if line.startswith("pcp cpu")]
    page_alloc.drain_all_pages(m, None)
    # Two lines a thousand steps are enough to see how, the counts tell the rest.
    return lines[:700] + [f"({len(lines)} lines)"] + lines[-120:] + list(free_lists(zone))


def fallback() -> list[str]:
    """A zone that fills up with three types, so that requests claim pageblocks and steal."""
    lines: list[str] = []
    rng = Lcg(4)
    m = Machine.boot("96M")
    held: list[tuple[Any, int]] = []
    patterns = (
        "kmem:mm_page_alloc_extfrag",
        "model:claim_test",
        "model:pageblock_migratetype",
        "model:free_list_move",
        "model:boost_watermark",
    )
    with events(m, lines, *patterns):
        for step in range(40000):
            wanted = (98, 60, 55, 45)[step // 10000]  # mostly movable first, then other types too
            if rng.below(100) < 62 or not held:
                movable = rng.below(100) < wanted
                gfp = (
                    GFP_HIGHUSER_MOVABLE
                    if movable
                    else (GFP_KERNEL, RECLAIMABLE, GFP_ATOMIC)[rng.below(3)]
                )
                order = (0, 0, 0, 0, 0, 1, 2, 3, 4, 5)[rng.below(10)]
                page = page_alloc.alloc_pages(m, gfp | 0x2000, order)
                if page is None:
                    lines.append(f"step {step}: {gfp_str(gfp)} order {order}: none")
                    for _ in range(len(held) // 8):
                        page, order = held.pop(rng.below(len(held)))
                        free_pages(page, order)
                else:
                    held.append((page, order))
            else:
                page, order = held.pop(rng.below(len(held)))
                free_pages(page, order)
    for zone in m.node_data[0].node_zones:
        if zone.managed_pages:
            lines += [f"zone {zone.name}", *list(free_lists(zone))[-1:]]
    lines += buddyinfo.show(m).splitlines() + pagetypeinfo.show(m).splitlines()
    return lines[:900] + [f"({len(lines)} lines)"] + lines[-200:]


def slowpath() -> list[str]:
    """Requests of all kinds against nodes that are full: which stations each passes."""
    lines: list[str] = []
    m = Machine.boot("256M", nodes=["160M:0", "96M:1"], cpus=2, distances={(0, 1): 20})
    taken: list[Any] = []
    while True:
        page = alloc_node(m, 0x2800 | 0x20000, 0, 0, None)  # PF_MEMALLOC-like: to the last page
        if page is None:
            break
        taken.append(page)
    rng = Lcg(5)
    for _ in range(9000):
        free_pages(taken.pop(rng.below(len(taken))), 0)
    page_alloc.drain_all_pages(m, None)
    requests = (
        (GFP_KERNEL, 0),
        (GFP_KERNEL, 2),
        (GFP_KERNEL, 4),
        (GFP_KERNEL | 0x10000, 4),
        (GFP_KERNEL | 0x4000, 5),
        (GFP_KERNEL | 0x4000, 9),
        (GFP_ATOMIC, 0),
        (GFP_ATOMIC, 3),
        (GFP_ATOMIC, 6),
        (GFP_NOWAIT, 3),
        (GFP_NOWAIT, 7),
        (GFP_HIGHUSER_MOVABLE, 9),
        (GFP_HIGHUSER_MOVABLE | 0x200000, 9),
        (GFP_KERNEL | 0x20000, 8),
        (GFP_KERNEL, 11),
    )
    with events(m, lines):
        for free in (8000, 3000, 1200, 0):
            for nid in (0, 1):
                for gfp, order in requests:
                    lines.append(
                        f"request node {nid} {gfp_str(gfp)} order {order}, {free} more pages"
                    )
                    try:
                        page = alloc_node(m, gfp, order, nid, None)
                    except KernelBug as bug:
                        lines.append(str(bug))
                        continue
                    if page is not None:
                        free_pages(page, order)
            lines.append("take more")
            m.trace.on = False
            for _ in range(3000):
                page = alloc_node(m, 0x2800 | 0x20000, 0, 0, None)
                if page is not None:
                    taken.append(page)
            m.trace.on = True
    kept = [line for line in lines if "free_list" not in line and "buddy_" not in line]
    return kept[:1500] + [f"({len(kept)} lines)"] + kept[-150:] + m.dmesg[-40:]


def faults() -> list[str]:
    """A process maps memory, touches it, forks, writes, unmaps: every step of its page faults."""
    from mmcore.arch.x86 import fault
    from mmcore.arch.x86.pgtable import iter_leaves
    from mmcore.kernel import fork
    from mmcore.mm import mmap

    lines: list[str] = []
    m = Machine.boot("256M")
    task = fork.spawn(m, "golden")
    mm = task.mm
    assert mm is not None
    rng = Lcg(6)
    anon, private = mmap.MAP_ANONYMOUS, mmap.MAP_PRIVATE
    areas = []
    with events(
        m,
        lines,
        "exceptions:*",
        "kmem:mm_page_alloc",
        "kmem:mm_page_free",
        "kmem:rss_stat",
        "model:fault_step",
    ):
        for length, prot, flags in (
            (64 << 12, mmap.PROT_READ | mmap.PROT_WRITE, anon | private),
            (6 << 20, mmap.PROT_READ | mmap.PROT_WRITE, anon | private),
            (32 << 12, mmap.PROT_READ, anon | private),
        ):
            address = mmap.do_mmap(mm, None, 0, length, prot, flags, 0)
            lines.append(f"mmap {length:#x} prot {prot} -> {address:#x}")
            areas.append((address, length))
        for step in range(90):
            address, length = areas[rng.below(len(areas))]
            va = address + rng.below(length >> 12) * 4096 + rng.below(4096)
            kind = "rwrwwx"[rng.below(6)]
            got = fault.touch(m, va, kind)
            lines.append(f"touch {va:#x} {kind}: {type(got).__name__}")
            if step == 45:
                child = fork.kernel_clone(task)
                lines.append(f"fork {child.comm}")
        mmap.do_munmap(mm, *areas[1])
        lines.append("munmap")
    return lines + [str(leaf) for leaf in list(iter_leaves(mm))[:80]]


WORKLOADS: dict[str, Callable[[], list[str]]] = {
    fn.__name__: fn for fn in (boot, buddy, pcp, fallback, slowpath, faults)
}
