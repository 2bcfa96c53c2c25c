"""The machine: what boots, and what every subsystem plugs into.

The kernel's global variables are attributes of a `Machine` under their kernel names, so that two
machines live side by side.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmcore import boot as boot_
from mmcore.arch.x86.e820 import E820Table
from mmcore.arch.x86.image import BootParams, KernelImage
from mmcore.arch.x86.numa import SratNode
from mmcore.config import REFERENCE, Config
from mmcore.errors import UsageError
from mmcore.kernel.cgroup.cgroup import CgroupRoot
from mmcore.mm import sparse
from mmcore.mm.gfp import GFP_BOOT_MASK
from mmcore.mm.internal import InitTask, PageAllocHooks
from mmcore.mm.memblock import Memblock
from mmcore.mm.memcontrol import MemcgState
from mmcore.mm.mm import VMA_LOCK_EVENTS, MmStruct, PagingState
from mmcore.mm.mm_init import MmInit
from mmcore.mm.mmzone import Zone
from mmcore.mm.numa_memblks import NumaState
from mmcore.mm.swapfile import SwapState
from mmcore.mm.vmstat import NR_VM_EVENT_ITEMS, NR_VM_STAT_ITEMS
from mmcore.proc.meminfo import SysInfo
from mmcore.trace import Trace

if TYPE_CHECKING:
    from pathlib import Path

    from mmcore.mm.mmzone import PgData
    from mmcore.mm.swap import CpuFbatches
    from mmcore.mm.vmscan import Shrinker
    from mmcore.proc.capture import Capture
    from mmcore.proc.memblock_log import Replay
    from mmcore.proc.zoneinfo import ZoneInfo

__all__ = ["Machine", "bare_zone"]

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
        self._init_globals()
        self._init_boot_state()

    def _init_globals(self) -> None:
        """Set the variables of mm/page_alloc.c, mm/mm_init.c and mm/vmstat.c."""
        self.node_data: dict[int, PgData] = {}
        self.cpu_to_node: list[int] = [0] * self.cpus
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
        self.nr_swap_pages = 0
        self.nr_online_nodes = 1
        self.node_distance: list[list[int]] = [[10]]  # [from][to], as the firmware's SLIT gives it
        self.node_load: list[int] = [0]
        self.node_to_cpumask_ready = False  # set when the CPUs have entered their nodes' masks
        self.num_online_cpus = 1  # 1 until the other CPUs are started
        self.check_pages_enabled = True  # look for bad pages, as a kernel with DEBUG_VM does
        self.page_alloc_shuffle_key = False
        self.is_kdump_kernel = False
        self.init_on_alloc = True  # CONFIG_INIT_ON_ALLOC_DEFAULT_ON
        self.pcp_trylock_fails = False  # let every pcp_spin_trylock() fail, as under contention
        self.per_cpu_data_slice_size = 4 << 20  # bytes of data cache that one CPU has for itself
        self.hooks = PageAllocHooks()
        self.init_task = InitTask()  # stands for "current" while there is no task
        self.total_swap_pages = 0
        self.page_offset_base = 0xFFFF_8880_0000_0000  # where the direct map starts
        self.alloc_failures: list[tuple[int, list[str]]] = []  # (clock, lines) of warn_alloc()
        self.dmesg: list[str] = []  # what the kernel has printed, a line each
        self.sysctl_lowmem_reserve_ratio: list[int] = [256, 256, 32, 0, 0]

        # mm/swap.c, mm/vmscan.c
        self.cpu_fbatches: dict[int, CpuFbatches] = {}
        self.swap = SwapState()
        self.vm_swappiness = 60
        self.shrinkers: list[Shrinker] = []
        self.lru_gen_caps = 7 if self.config.LRU_GEN else 0  # /sys/kernel/mm/lru_gen/enabled

        # arch/x86/mm, mm/memory.c, mm/huge_memory.c, kernel/fork.c
        self.paging = PagingState()
        self.init_mm: MmStruct | None = None  # the kernel's own address space
        self.pgd_list: list[MmStruct] = []  # address spaces that share its upper half
        self.zero_pfn = -1  # empty_zero_page; mm/memory.py:paging_init() finds it a page
        self.fault_around_pages = 16
        self.transparent_hugepage_enabled = "always"  # or "madvise", "never"
        self.transparent_hugepage_use_zero_page = True
        self.mthp_enabled: dict[int, str] = {9: "inherit"}  # by order; missing is "never"
        self.vma_lock_event: dict[str, int] = dict.fromkeys(VMA_LOCK_EVENTS, 0)
        self.race_points: dict[str, list[Callable[[], None]]] = {}  # scripted concurrent actors

        # kernel/cgroup/cgroup.c, mm/memcontrol.c; mem_cgroup_init() fills them
        self.cgrp_dfl_root: CgroupRoot | None = None
        self.memcg = MemcgState()

    def _init_boot_state(self) -> None:
        """Set what the boot code uses and leaves behind."""
        self.e820_table = E820Table(pr_info=self.pr_info)
        self.memblock = Memblock(pr_info=self.pr_info)
        self.kernel_image = KernelImage()
        self.boot_params = BootParams()
        self.mm_init = MmInit()
        self.numa = NumaState()
        self.srat: list[SratNode] = []  # the firmware's description of nodes
        self.slit: list[list[int]] = []  # and of their distances, in the order of srat
        self.numa_off = False
        self.nr_node_ids = 1
        self.node_states: dict[str, list[int]] = {
            name: [] for name in ("N_POSSIBLE", "N_ONLINE", "N_NORMAL_MEMORY", "N_MEMORY", "N_CPU")
        }
        self.node_data_phys: dict[int, int] = {}
        self.sizeof_pg_data = 0x2A980  # of the reference kernel
        self.max_pfn = 0
        self.max_low_pfn = 0
        self.max_physmem_bits = 52 if self.config.cpu_la57 else 46
        self.max_arch_pfn = 1 << (self.max_physmem_bits - 12)
        self.min_pfn_mapped = 0
        self.pfn_mapped: list[tuple[int, int]] = []
        self.max_pfn_mapped = 0
        self.firmware_map_entries = 0
        self.pgt_buf_used = 0
        self.can_use_brk_pgt = True
        # Page tables of the direct mapping and of vmemmap, by (level, index) to physical address.
        self.direct_map_tables: dict[tuple[int, int], int] = {}
        self.direct_pages_count = [0, 0, 0]  # 4 KiB, 2 MiB and 1 GiB pages
        self.vmemmap_tables: dict[tuple[int, int], int | None] = {}
        self.sysinfo = SysInfo()
        self.vm_dirty_ratio = 20
        self.dirty_background_ratio = 10
        self.transparent_hugepage = "always"
        self.khugepaged_thread = False
        # What from_capture() read, and what it could not make agree.
        self.capture: Capture | None = None
        self.recorded: list[ZoneInfo] | None = None
        self.memblock_replay: Replay | None = None
        self.notes: list[str] = []
        self._pfn_starts: list[int] = []
        self.pfn_ranges: list[tuple[int, int, Zone]] = []

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

    def pr_info(self, text: str) -> None:
        """Print a line to the kernel's log."""
        self.dmesg.append(text)

    def node_set_state(self, nid: int, state: str) -> None:
        """Add a node to one of the sets of nodes ("N_ONLINE", "N_MEMORY" ...)."""
        nodes = self.node_states[state]
        if nid not in nodes:
            nodes.append(nid)
            nodes.sort()

    def pfn_valid(self, pfn: int) -> bool:
        """Tell whether @pfn has a struct page."""
        return sparse.pfn_valid(self, pfn)

    def set_pfn_ranges(self, ranges: Iterable[tuple[int, int, Zone]]) -> None:
        """Say which zone each range of memory belongs to, in ascending order of pfn."""
        self.pfn_ranges = list(ranges)
        self._pfn_starts = [start for start, _, _ in self.pfn_ranges]

    def pfn_zone(self, pfn: int) -> Zone | None:
        """Return the zone of @pfn; for a hole in memory, a zone that spans it; else None."""
        i = bisect_right(self._pfn_starts, pfn) - 1
        if i >= 0:
            _, end, zone = self.pfn_ranges[i]
            if pfn < end:
                return zone
        for pgdat in self.node_data.values():
            for zone in pgdat.node_zones:
                if zone.zone_start_pfn <= pfn < zone.zone_start_pfn + zone.spanned_pages:
                    return zone
        return None

    @classmethod
    def boot(
        cls,
        memory_map: boot_.MemoryMap = "1G",
        reserved: Iterable[tuple[int, int]] = (),
        nodes: boot_.Nodes | None = None,
        cpus: int = 1,
        config: Config = REFERENCE,
        cmdline: str = "",
        *,
        distances: Mapping[tuple[int, int], int] | Sequence[Sequence[int]] | None = None,
        initrd: tuple[int, int] | str | None = "default",
        kernel_image: KernelImage | None = None,
        memblock_log: str | None = None,
        reserved_is_all: bool = False,
        seed: int = 1,
    ) -> Machine:
        """Boot a machine.

        :param memory_map: a size ("1G": a PC as QEMU builds it), the kernel's ``BIOS-e820:`` lines,
            a list of (address, size) or (address, size, type), or an `E820Table`
        :param reserved: (address, size) of what else must not be touched
        :param nodes: None for one node; a number of equal nodes; their sizes, optionally with CPUs
            ("512M:0-1"); or a list of `SratNode`
        :param cpus: number of CPUs
        :param cmdline: boot options; those about memory act (``mem=``, ``memmap=``, ``kernelcore=``,
            ``movablecore=``, ``movable_node``, ``numa=off``, ``memblock=debug``, ``log_buf_len=``,
            ``transparent_hugepage=``, ``page_alloc.shuffle=``)
        :param distances: between nodes, as a matrix or {(from, to): distance}
        :param initrd: (first address, end) of the initial RAM disk; by default a small one at the
            top of low memory
        :param memblock_log: a log with memblock=debug: what it reserves is reserved, nothing else
        :param reserved_is_all: @reserved is all that memblock holds when it hands over; by default
            the kernel's image, its memory map, hash tables and so on come on top
        :raises UsageError: for a map that is empty, overlaps itself or has no room for the kernel,
            nodes that do not match it, or a CPU count out of range

        Simplified: what the kernel allocates while its drivers start is not taken from the free
        lists; see `mmcore.arch.x86.setup` for what comes before.
        """
        m = cls(cpus=cpus, config=config, seed=seed)
        m.boot_params.cmdline = cmdline
        m.boot_params.reserved = [boot_.check_range("reserved", *r) for r in reserved]
        if kernel_image is not None:
            m.kernel_image = kernel_image
        boot_.set_memory_map(m, memory_map)
        boot_.set_initrd(m, initrd)
        boot_.set_nodes(m, nodes, distances)
        boot_.start_kernel(m, boot_.make_plan(m, memblock_log, reserved_is_all))
        return m

    @classmethod
    def from_capture(cls, source: str | Path | Capture) -> Machine:
        """Rebuild a machine from what a real kernel printed.

        With the kernel's log (``BIOS-e820:`` lines), the machine boots again from the same map,
        nodes and options; with a memblock=debug log it also replays every reservation. Without a
        log, zones have the sizes that /proc/zoneinfo gives. Either way watermarks, reserves, per-CPU
        limits and zonelists are computed; counters and free blocks are taken from /proc. Where free
        blocks lie is not in /proc: they are laid out in places of the model's choice.

        :param source: a capture's name ("n1-1g/physical"), a file, a folder that looks like /, or a
            `mmcore.proc.capture.Capture`
        :raises UsageError: if there is no such capture, or neither zones nor a log in it
        :raises ParseError: if a text in it is damaged

        What the record and the model do not agree on is in ``notes``; ``mmcore.rebuild.compare()``
        puts both side by side.
        """
        from mmcore import rebuild

        return rebuild.from_capture(cls, source)


def bare_zone(
    nr_pages: int,
    start_pfn: int = 0,
    *,
    name: str = "Normal",
    cpus: int = 1,
    free: bool = True,
) -> Zone:
    """Return one zone on a machine of its own, for a figure or a test.

    All pageblocks are movable, watermarks and reserves are 0.

    :param free: hand all pages to the buddy allocator, in the largest aligned blocks
    :raises UsageError: if a number is negative, there are no pages, or @name is no zone's
    """
    return boot_.make_bare_zone(Machine(cpus=cpus), nr_pages, start_pfn, name, free)
