"""Exact: random machines and requests, against what the kernel's own functions answered.

Each file in ``sequences/`` was recorded from the functions of mm/page_alloc.c (Linux 6.12.117),
compiled in user space and driven with a random machine and random operations: allocations of all
orders with many gfp masks and node masks, frees of all kinds, drains, isolation, watermarks, sysctl
writes; what reclaim, compaction and the OOM killer answered is in the file too. A line is one
operation: what was called, what it returned, the tracepoints that fired on the way. Lines called
"final" hold every free list and per-CPU list in order, pageblock types and zone counters.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmcore import Machine
from mmcore.mm import page_alloc
from mmcore.mm.mm_types import Page, pfn_to_page
from mmcore.mm.mmzone import MIGRATE_MOVABLE, ZONE_NAMES, PgData, Zone, for_each_populated_zone
from mmcore.mm.page_flags import PG_lru
from mmcore.mm.vmstat import NR_FREE_PAGES, NR_ZONE_INACTIVE_FILE

FILES = sorted((Path(__file__).parent / "sequences").glob("*.jsonl.gz"))
alloc = getattr(page_alloc, "__alloc_pages")
free = getattr(page_alloc, "__free_pages")
free_ok = getattr(page_alloc, "__free_pages_ok")
free_core = getattr(page_alloc, "__free_pages_core")
rmqueue = getattr(page_alloc, "__rmqueue")
rmqueue_smallest = getattr(page_alloc, "__rmqueue_smallest")
isolate_free_page = getattr(page_alloc, "__isolate_free_page")
putback_isolated_page = getattr(page_alloc, "__putback_isolated_page")
setup_wmarks = getattr(page_alloc, "__setup_per_zone_wmarks")
watermark_ok = getattr(page_alloc, "__zone_watermark_ok")

#: Numbers of the tracepoints in the files.
EVENTS = {
    "kmem:mm_page_alloc": 1,
    "kmem:mm_page_alloc_zone_locked": 2,
    "kmem:mm_page_alloc_extfrag": 3,
    "kmem:mm_page_free": 4,
    "kmem:mm_page_free_batched": 5,
    "kmem:mm_page_pcpu_drain": 6,
    "oom:reclaim_retry_zone": 7,
    "oom:compact_retry": 8,
}
NO_PAGE = (1 << 64) - 1


class Movable:
    """What the mapping of a page looks like whose owner can move it."""

    movable_ops = True


class Replay:
    """A machine as the file describes it, and its operations by name.

    :ivar log: the tracepoints and hook calls of the operation that runs
    :ivar pool: pages that the reclaim of the file gives back, oldest first
    :ivar answers: what the hooks answer to this operation: (which, answer, pages freed)
    """

    def __init__(self, header: dict[str, Any]) -> None:
        self.log: list[list[int]] = []
        self.pool: list[tuple[int, int]] = []
        self.answers: list[list[int]] = []
        self.victim = False
        m = self.m = Machine(cpus=header["cpus"])
        m.gfp_allowed_mask = 0xFFFFFFFF
        m.init_on_alloc = False
        m.node_data.clear()
        m.node_distance = header["distances"]
        m.node_load = [0] * len(header["nodes"])
        for nid, (cpus, zones) in enumerate(header["nodes"]):
            self.add_node(nid, cpus, zones)
        m.nr_online_nodes = m.nr_node_ids = len(header["nodes"])
        m.num_online_cpus = m.cpus
        m.node_to_cpumask_ready = True
        self.zones = list(for_each_populated_zone(m))
        m.set_pfn_ranges(
            (z.zone_start_pfn, z.zone_start_pfn + z.spanned_pages, z) for z in self.zones
        )
        for pgdat in m.node_data.values():
            for zone in pgdat.node_zones:
                page_alloc.zone_pcp_init(zone)
        for nid, (_, zones) in enumerate(header["nodes"]):
            for index, _, _, ranges in zones:
                for start, end in ranges:
                    self.free_range(m.node_data[nid].node_zones[index], start, end)
        page_alloc.build_all_zonelists(m, None)
        m.page_group_by_mobility_disabled = header["mob"]
        page_alloc.calculate_min_free_kbytes(m)
        assert m.min_free_kbytes == header["min_free_kbytes"]
        for zone in self.zones:
            page_alloc.setup_zone_pageset(zone)
        self.marks()
        self.pagesets()
        self.set_hooks()
        m.trace.attach(self.listen, "kmem:*", "oom:*")

    def add_node(self, nid: int, cpus: list[int], zones: list[list[Any]]) -> None:
        m = self.m
        pgdat = m.node_data[nid] = PgData(m, nid)
        m.node_set_state(nid, "N_ONLINE")
        pgdat.node_zones = [Zone(m, name, i, nid, pgdat) for i, name in enumerate(ZONE_NAMES)]
        for cpu in cpus:
            m.cpu_to_node[cpu] = nid
            m.node_set_state(nid, "N_CPU")
        for index, start, pages, _ in zones:
            zone = pgdat.node_zones[index]
            zone.initialized = True
            zone.zone_start_pfn = start
            zone.spanned_pages = zone.present_pages = zone.present_early_pages = pages
            zone.pageblock_base = start & ~511
            blocks = (start + pages + 511 >> 9) - (start >> 9)
            zone.pageblock_flags = bytearray([MIGRATE_MOVABLE]) * blocks
            pgdat.node_present_pages += pages
            pgdat.nr_zones = index + 1
            m.node_set_state(nid, "N_MEMORY")

    def free_range(self, zone: Zone, start: int, end: int) -> None:
        while start < end:
            order = min(10, (start & -start).bit_length() - 1 if start else 10)
            while start + (1 << order) > end:
                order -= 1
            free_core(page_alloc.zone_page(zone, start), order)
            start += 1 << order

    def set_hooks(self) -> None:
        hooks = self.m.hooks
        hook = self.hook
        hooks.wakeup_kswapd = lambda zone, gfp, order, high: self.log.append(
            [105, zone.node * 10 + zone.zone_idx, gfp, order, high]
        )
        hooks.try_to_free_pages = lambda m, zonelist, order, gfp, nodes: hook(
            1, order, gfp, -1 if nodes is None else nodes, 0
        )
        hooks.try_to_compact_pages = lambda m, gfp, order, flags, ac, prio: (
            hook(2, order, gfp, flags, prio),
            None,
        )
        hooks.out_of_memory = lambda m, oc: bool(hook(3, oc.order, oc.gfp_mask, 0, 0))
        hooks.compaction_zonelist_suitable = lambda m, ac, order, flags: bool(
            hook(4, order, flags, 0, 0)
        )
        hooks.node_reclaim = lambda pgdat, gfp, order: hook(6, pgdat.node_id, gfp, order, 0)
        hooks.node_dirty_ok = lambda pgdat: bool(self.answer(7))
        hooks.tsk_is_oom_victim = lambda task: self.victim

    def answer(self, which: int) -> int:
        """Take the next answer from the file; it must be that hook's turn."""
        assert self.answers, f"hook {which} is called once more than by the kernel"
        wanted, result, freed = self.answers.pop(0)
        assert wanted == which, f"hook {which} is called where the kernel calls hook {wanted}"
        for _ in range(freed):
            pfn, order = self.pool.pop(0)
            free(self.page(pfn), order)
        return result

    def hook(self, which: int, *values: int) -> int:
        self.log.append([100 + which, *values])
        return self.answer(which)

    def listen(self, event: Any) -> None:
        values = [int(v) for v in event.values]
        number = EVENTS[event.name]
        if number == 1 and values[0] == NO_PAGE:
            values[0] = -1
        if number == 7:  # the last three are packed in the files
            values = [*values[:5], values[5] * 100 + values[6] * 2 + values[7]]
        self.log.append([number, *values])

    def page(self, pfn: int) -> Page:
        return pfn_to_page(self.m, pfn)

    def zone(self, nid: int, index: int) -> Zone:
        return self.m.node_data[nid].node_zones[index]

    def marks(self) -> None:
        page_alloc.setup_per_zone_lowmem_reserve(self.m)
        setup_wmarks(self.m)

    def pagesets(self) -> None:
        for zone in self.zones:
            page_alloc.zone_set_pageset_high_and_batch(zone, 0)

    def disown(self, pfn: int) -> Page:
        page = self.page(pfn)
        page.flags &= ~(1 << PG_lru)
        page.mapping = None
        return page

    # ---- the operations, by their names in the files -------------------------------------------

    def alloc(self, gfp: int, order: int, nid: int, nodes: int, pool: int) -> int:
        page = alloc(self.m, gfp, order, nid, None if nodes == -1 else nodes)
        if page is not None and pool:
            self.pool.append((page.pfn, order))
        return -1 if page is None else page.pfn

    def free(self, pfn: int, order: int) -> None:
        free(self.disown(pfn), order)

    def free_ok(self, pfn: int, order: int, fpi: int) -> None:
        page = self.disown(pfn)
        page._refcount = 0
        free_ok(page, order, fpi)

    def folios(self, pfns: list[int]) -> None:
        pages = [self.disown(pfn) for pfn in pfns]
        for page in pages:
            page._refcount = 0
        page_alloc.free_unref_folios(pages)

    def split(self, pfn: int, order: int) -> None:
        page_alloc.split_page(self.disown(pfn), order)

    def get_free(self, pfn: int, order: int) -> None:
        """Free a block that somebody else holds a reference to."""
        page = self.disown(pfn)
        page._refcount += 1
        free(page, order)

    def bulk(self, gfp: int, nid: int, nr: int) -> list[int]:
        pages: list[Page | None] = [None] * nr
        page_alloc.alloc_pages_bulk(self.m, gfp, nid, None, nr, page_array=pages)
        return [-1 if page is None else page.pfn for page in pages]

    def drain(self, cpu: int, nid: int, index: int) -> None:
        if cpu >= 0:
            page_alloc.drain_pages_zone(cpu, self.zone(nid, index))
        else:
            page_alloc.drain_all_pages(self.m, None)

    def decay(self, cpu: int, nid: int, index: int) -> bool:
        zone = self.zone(nid, index)
        return page_alloc.decay_pcp_high(zone, zone.per_cpu_pageset[cpu])

    def drain_zone_pages(self, cpu: int, nid: int, index: int) -> None:
        zone = self.zone(nid, index)
        page_alloc.drain_zone_pages(zone, zone.per_cpu_pageset[cpu])

    def cpu(self, cpu: int) -> None:
        self.m.this_cpu = cpu

    def rmqueue(self, nid: int, index: int, order: int, mt: int, flags: int) -> int:
        page = rmqueue(self.zone(nid, index), order, mt, flags, [0])
        if page is None:
            return -1
        page_alloc.prep_new_page(page, order, 0, 0)
        return page.pfn

    def smallest(self, nid: int, index: int, order: int, mt: int) -> int:
        page = rmqueue_smallest(self.zone(nid, index), order, mt)
        if page is None:
            return -1
        page._refcount = 1
        return page.pfn

    def isolate(self, pfn: int, on: int) -> bool:
        page = self.page(pfn)
        done = page_alloc.move_freepages_block_isolate(page.zone, page, 4 if on else 1)
        if done:
            page.zone.nr_isolate_pageblock += 1 if on else -1
        return done

    def take_free(self, pfn: int, order: int, put_back: int) -> int:
        page = self.page(pfn)
        taken = isolate_free_page(page, order)
        if taken and put_back:
            putback_isolated_page(page, order, page_alloc.get_pageblock_migratetype(page))
        elif taken:
            page._refcount = 1
        return taken

    def owner(self, pfn: int, kind: int) -> None:
        page = self.disown(pfn)
        if kind == 1:
            page.flags |= 1 << PG_lru
        elif kind == 2:
            page.mapping = Movable()

    def task(self, flags: int, victim: int) -> None:
        (self.m.current or self.m.init_task).flags = flags
        self.victim = bool(victim)

    def set_zone(self, nid: int, index: int, what: int, value: int) -> None:
        zone = self.zone(nid, index)
        if what == 0:
            zone.watermark_boost = value
        elif what == 1:
            zone.flags = value
        else:
            zone.vm_stat[NR_ZONE_INACTIVE_FILE] = value

    def pcp_flag(self, nid: int, index: int) -> None:
        for pcp in self.zone(nid, index).per_cpu_pageset:
            pcp.flags |= 2

    def sysctl(self, name: str, value: Any) -> None:
        m = self.m
        if name == "min":
            m.min_free_kbytes = value
        elif name == "scale":
            m.watermark_scale_factor = value
        elif name == "ratio":
            m.sysctl_lowmem_reserve_ratio[:] = value
        elif name == "frac":
            m.percpu_pagelist_high_fraction = value
            self.pagesets()
        elif name == "boost":
            m.watermark_boost_factor = value
        elif name == "trylock":
            m.pcp_trylock_fails = bool(value)
        else:
            m.node_reclaim_mode = value
        if name in ("min", "scale", "ratio"):
            self.marks()

    def watermark(
        self, nid: int, index: int, order: int, mark: int, high: int, flags: int, free_pages: int,
        gfp: int, fast_mark: int,
    ) -> list[bool]:  # fmt: skip
        zone = self.zone(nid, index)
        return [
            watermark_ok(zone, order, mark, high, flags, free_pages),
            page_alloc.zone_watermark_fast(zone, order, fast_mark, high, flags, gfp),
        ]

    def reap(self, nr: int) -> None:
        for pfn, order in self.pool[:nr]:
            free(self.page(pfn), order)
        del self.pool[:nr]

    def operation(self, name: str) -> Callable[..., Any]:
        operation: Callable[..., Any] = getattr(self, "set_zone" if name == "zone" else name)
        return operation

    def final(self, zone: Zone) -> dict[str, Any]:
        """Everything that can be seen of a zone, in the shape of the files."""
        lists = {}
        for order, area in enumerate(zone.free_area):
            for mt, head in enumerate(area.free_list):
                lists[f"free {order} {mt}"] = [page.pfn for page in head]  # type: ignore[attr-defined]
        pcps = []
        for cpu, pcp in enumerate(zone.per_cpu_pageset):
            for index, head in enumerate(pcp.lists):
                lists[f"pcp {cpu} {index}"] = [page.pfn for page in head]  # type: ignore[attr-defined]
            limits = [pcp.count, pcp.high, pcp.high_min, pcp.high_max, pcp.batch]
            pcps.append([*limits, pcp.flags, pcp.alloc_factor, pcp.free_count])
        counters = [zone.watermark_boost, zone.flags, *zone._watermark, zone.managed_pages]
        counters += [zone.vm_stat[NR_FREE_PAGES], zone.nr_reserved_highatomic]
        counters += [zone.nr_free_highatomic, *zone.lowmem_reserve, *zone.vm_numa_event]
        return {
            "zone": [zone.node, zone.zone_idx],
            "lists": {name: pfns for name, pfns in lists.items() if pfns},
            "pcp": pcps,
            "types": "".join(map(str, zone.pageblock_flags)),
            "state": counters,
        }


def replay(path: Path) -> tuple[int, set[str], int]:
    """Replay a file; returns operations, their kinds, and the most pages held for HIGHATOMIC."""
    text = gzip.decompress(path.read_bytes()).decode()
    header, *rows = [json.loads(line) for line in text.splitlines()]
    run = Replay(header)
    done, kinds, reserved = 0, set(), 0
    for row in rows:
        if isinstance(row, dict):
            for wanted in row["final"]:
                assert run.final(run.zone(*wanted["zone"])) == wanted, f"after operation {done}"
            reserved = max([reserved, *(z.nr_reserved_highatomic for z in run.zones)])
            continue
        (name, *values), result, events, *answers = row
        where = f"operation {done}: {name} {values}"
        run.log.clear()
        run.answers = answers[0] if answers else []
        got = run.operation(name)(*values)
        assert got == result, where
        assert run.log == events, where
        assert run.answers == [], where
        done += 1
        kinds.add(name)
    for zone in run.zones:
        page_alloc.validate_zone(zone, strict=False)
    return done, kinds, reserved


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.partition(".")[0])
def test_as_the_kernel_does(path: Path) -> None:
    done, _, reserved = replay(path)
    assert done > 300
    assert reserved or not path.name.startswith("large")


def test_the_files_hold_every_kind_of_operation() -> None:
    kinds: set[str] = set()
    events = set()
    for path in FILES:
        for line in gzip.decompress(path.read_bytes()).decode().splitlines()[1:]:
            row = json.loads(line)
            if isinstance(row, list):
                kinds.add("set_zone" if row[0][0] == "zone" else row[0][0])
                events |= {event[0] for event in row[2]}
    skip = {"add_node", "free_range", "set_hooks", "answer", "hook", "listen", "page", "zone"}
    skip |= {"marks", "pagesets", "disown", "operation", "final"}
    assert kinds == {name for name in vars(Replay) if name[0] != "_"} - skip
    assert events >= {1, 2, 3, 4, 5, 6, 7, 8, 101, 102, 103, 104, 105, 106}
    assert len(FILES) >= 10
