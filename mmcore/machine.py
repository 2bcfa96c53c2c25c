"""The machine: what boots, and what every subsystem plugs into.

The kernel's global variables are attributes of a `Machine` under their kernel names, so that two
machines live side by side.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from mmcore.config import REFERENCE, Config
from mmcore.errors import UsageError
from mmcore.mm.gfp import GFP_BOOT_MASK
from mmcore.mm.internal import PageAllocHooks
from mmcore.mm.vmstat import NR_VM_EVENT_ITEMS, NR_VM_STAT_ITEMS
from mmcore.trace import Trace

if TYPE_CHECKING:
    from mmcore.mm.mmzone import PgData, Zone

__all__ = ["Machine"]

NSEC_PER_SEC = 1_000_000_000


class Machine:
    """A machine and its kernel's global state.

    :param cpus: number of online CPUs, at least 1
    :param config: kernel configuration and CPU profile
    :param seed: seed of every named random stream
    """

    def __init__(self, *, cpus: int = 1, config: Config = REFERENCE, seed: int = 1) -> None:
        if not 1 <= cpus <= config.NR_CPUS:
            raise UsageError(f"cpus is {cpus}; a machine has 1 to {config.NR_CPUS} (NR_CPUS)")
        self.config = config
        self.cpus = cpus
        self.seed = seed
        self.clock = 0  # ns since boot
        self.this_cpu = 0
        self.current: Any = None  # the running task, None before there is one
        self.trace = Trace(self._trace_context)
        self._streams: dict[str, random.Random] = {}

        # mm/page_alloc.c, mm/mm_init.c, mm/vmstat.c
        self.node_data: dict[int, PgData] = {}
        self.cpu_to_node: list[int] = [0] * cpus
        self.totalram_pages = 0
        self.totalreserve_pages = 0
        self.gfp_allowed_mask = GFP_BOOT_MASK
        self.page_group_by_mobility_disabled = False
        self.vm_event: list[int] = [0] * NR_VM_EVENT_ITEMS
        self.vm_stat_items: list[int] = [0] * NR_VM_STAT_ITEMS
        self.min_free_kbytes = 1024
        self.user_min_free_kbytes = -1
        self.watermark_boost_factor = 15000
        self.watermark_scale_factor = 10
        self.percpu_pagelist_high_fraction = 0
        self.sysctl_min_unmapped_ratio = 1
        self.sysctl_min_slab_ratio = 5
        self.node_reclaim_mode = 0
        self.nr_online_nodes = 1
        self.node_distance: list[list[int]] = [[10]]  # [from][to], as the firmware's SLIT gives it
        self.node_load: list[int] = [0]
        self.check_pages_enabled = True  # look for bad pages, as a kernel with DEBUG_VM does
        self.page_alloc_shuffle_key = False
        self.is_kdump_kernel = False
        self.pcp_trylock_fails = False  # let every pcp_spin_trylock() fail, as under contention
        self.per_cpu_data_slice_size = 4 << 20  # bytes of data cache that one CPU has for itself
        self.hooks = PageAllocHooks()
        self.dmesg: list[str] = []  # what the kernel has printed, a line each
        self.sysctl_lowmem_reserve_ratio: list[int] = [256, 256, 32, 0, 0]

    def __repr__(self) -> str:
        return (
            f"<Machine {self.totalram_pages} pages, {len(self.node_data)} node(s), "
            f"{self.cpus} CPU(s)>"
        )

    def _trace_context(self) -> tuple[int, int, str]:
        task = self.current
        return self.clock, self.this_cpu, "swapper" if task is None else task.comm

    @property
    def jiffies(self) -> int:
        """Timer ticks since boot, ``HZ`` per second."""
        return self.clock * self.config.HZ // NSEC_PER_SEC

    def rng(self, stream: str) -> random.Random:
        """Return the random stream of that name ("aslr", "shuffle" ...), seeded by the machine."""
        if stream not in self._streams:
            self._streams[stream] = random.Random(f"{self.seed}:{stream}")
        return self._streams[stream]

    def pfn_zone(self, pfn: int) -> Zone | None:
        """Return the zone that spans @pfn, or None."""
        for pgdat in self.node_data.values():
            for zone in pgdat.node_zones:
                if zone.zone_start_pfn <= pfn < zone.zone_start_pfn + zone.spanned_pages:
                    return zone
        return None
