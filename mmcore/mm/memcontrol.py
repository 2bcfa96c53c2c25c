"""Memory cgroups: charging, limits, protection, throttling, events and statistics.

Mirrors mm/memcontrol.c and include/linux/memcontrol.h for the unified hierarchy (no CONFIG_MEMCG_V1).

`mem_cgroup_init()` gives a machine its root group; until then every call here that a fault makes does
nothing. A page is charged to a group when its first user touches it, in batches that the CPU keeps
(`consume_stock()`); `try_charge_memcg()` climbs from there to reclaim and to the OOM killer. Reclaim,
the OOM killer, PSI and sleeping are calls in `MemcgHooks`.

Simplified: steps are atomic, so no race is retried; stocks of other CPUs are drained at once, where the
kernel queues work on them; no hotplug of CPUs; foreign dirty pages, vmpressure and socket pressure are
not tracked; slab objects are charged by whoever allocates them (`obj_cgroup_charge()`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmcore.cint import u64
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import (
    EAGAIN,
    EBUSY,
    EINTR,
    EINVAL,
    ENOMEM,
    EOPNOTSUPP,
    KernelBug,
    UsageError,
)
from mmcore.kernel.cgroup import cgroup as cg
from mmcore.kernel.cgroup.cgroup import (
    CSS_ONLINE,
    Cgroup,
    CgroupSubsys,
    CgroupSubsysState,
    css_get,
    css_get_many,
    css_put,
    css_tryget,
)
from mmcore.kernel.cgroup.rstat import cgroup_rstat_flush, cgroup_rstat_updated
from mmcore.lib.cmdline import kstrtoint, match_int, memparse, strstrip
from mmcore.mm import vmstat as vs
from mmcore.mm.gfp import (
    __GFP_HIGH,
    __GFP_NOFAIL,
    __GFP_NORETRY,
    __GFP_RETRY_MAYFAIL,
    GFP_KERNEL,
    gfpflags_allow_blocking,
)
from mmcore.mm.internal import (
    MAX_RECLAIM_RETRIES,
    PF_EXITING,
    PF_KTHREAD,
    PF_MEMALLOC,
    OomControl,
)
from mmcore.mm.mm_types import Folio, Page, folio_nr_pages, page_folio, pfn_to_page
from mmcore.mm.page_counter import (
    PAGE_COUNTER_MAX,
    PageCounter,
    page_counter_calculate_protection,
    page_counter_charge,
    page_counter_init,
    page_counter_memparse,
    page_counter_read,
    page_counter_set_high,
    page_counter_set_low,
    page_counter_set_max,
    page_counter_set_min,
    page_counter_try_charge,
    page_counter_uncharge,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.mmzone import PgData

NSEC_PER_SEC = 1_000_000_000
MEMCG_CHARGE_BATCH = 64
MEM_CGROUP_ID_SHIFT = 16
MEM_CGROUP_ID_MAX = (1 << MEM_CGROUP_ID_SHIFT) - 1
MEMCG_DELAY_PRECISION_SHIFT = 20
MEMCG_DELAY_SCALING_SHIFT = 14
SWAP_CLUSTER_MAX = 32
PAGE_ALLOC_COSTLY_ORDER = 3
MIN_SWAPPINESS = 0
MAX_SWAPPINESS = 200
MEMCG_RECLAIM_MAY_SWAP = 1 << 1
MEMCG_RECLAIM_PROACTIVE = 1 << 2
OFP_PEAK_UNSET = (1 << 64) - 1
#: Rounds without any change after which a loop that the kernel would not leave is reported.
NO_END = 100_000

# enum memcg_stat_item, behind the items of nodes
(
    MEMCG_SWAP,
    MEMCG_SOCK,
    MEMCG_PERCPU_B,
    MEMCG_VMALLOC,
    MEMCG_KMEM,
    MEMCG_ZSWAP_B,
    MEMCG_ZSWAPPED,
) = range(vs.NR_VM_NODE_STAT_ITEMS, vs.NR_VM_NODE_STAT_ITEMS + 7)
MEMCG_NR_STAT = MEMCG_ZSWAPPED + 1

# enum memcg_memory_event
(
    MEMCG_LOW,
    MEMCG_HIGH,
    MEMCG_MAX,
    MEMCG_OOM,
    MEMCG_OOM_KILL,
    MEMCG_OOM_GROUP_KILL,
    MEMCG_SWAP_HIGH,
    MEMCG_SWAP_MAX,
    MEMCG_SWAP_FAIL,
) = range(9)
MEMCG_NR_MEMORY_EVENTS = 9
MEMCG_EVENT_TEXT: tuple[str, ...] = (
    "low",
    "high",
    "max",
    "oom",
    "oom_kill",
    "oom_group_kill",
    "swap_high",
    "swap_max",
    "swap_fail",
)
_SWAP_EVENTS = (MEMCG_SWAP_HIGH, MEMCG_SWAP_MAX, MEMCG_SWAP_FAIL)

#: The items of a node that are also counted by group.
memcg_node_stat_items: tuple[int, ...] = (
    vs.NR_INACTIVE_ANON,
    vs.NR_ACTIVE_ANON,
    vs.NR_INACTIVE_FILE,
    vs.NR_ACTIVE_FILE,
    vs.NR_UNEVICTABLE,
    vs.NR_SLAB_RECLAIMABLE_B,
    vs.NR_SLAB_UNRECLAIMABLE_B,
    vs.WORKINGSET_REFAULT_ANON,
    vs.WORKINGSET_REFAULT_FILE,
    vs.WORKINGSET_ACTIVATE_ANON,
    vs.WORKINGSET_ACTIVATE_FILE,
    vs.WORKINGSET_RESTORE_ANON,
    vs.WORKINGSET_RESTORE_FILE,
    vs.WORKINGSET_NODERECLAIM,
    vs.NR_ANON_MAPPED,
    vs.NR_FILE_MAPPED,
    vs.NR_FILE_PAGES,
    vs.NR_FILE_DIRTY,
    vs.NR_WRITEBACK,
    vs.NR_SHMEM,
    vs.NR_SHMEM_THPS,
    vs.NR_FILE_THPS,
    vs.NR_ANON_THPS,
    vs.NR_KERNEL_STACK_KB,
    vs.NR_PAGETABLE,
    vs.NR_SECONDARY_PAGETABLE,
    vs.NR_SWAPCACHE,
    vs.PGPROMOTE_SUCCESS,
    vs.PGDEMOTE_KSWAPD,
    vs.PGDEMOTE_DIRECT,
    vs.PGDEMOTE_KHUGEPAGED,
)
memcg_stat_items: tuple[int, ...] = tuple(range(MEMCG_SWAP, MEMCG_NR_STAT))
NR_MEMCG_NODE_STAT_ITEMS = len(memcg_node_stat_items)
MEMCG_VMSTAT_SIZE = NR_MEMCG_NODE_STAT_ITEMS + len(memcg_stat_items)
_stats_index: dict[int, int] = {
    item: i for i, item in enumerate(memcg_node_stat_items + memcg_stat_items)
}

# Events of kernels with zswap; the reference kernel has no number for them.
ZSWPIN, ZSWPOUT, ZSWPWB = range(vs.NR_VM_EVENT_ITEMS, vs.NR_VM_EVENT_ITEMS + 3)
_ZSWAP_EVENT_TEXT = {ZSWPIN: "zswpin", ZSWPOUT: "zswpout", ZSWPWB: "zswpwb"}
#: The events that are also counted by group, in memory.stat's order.
memcg_vm_event_stat: tuple[int, ...] = (
    vs.PGSCAN_KSWAPD,
    vs.PGSCAN_DIRECT,
    vs.PGSCAN_KHUGEPAGED,
    vs.PGSTEAL_KSWAPD,
    vs.PGSTEAL_DIRECT,
    vs.PGSTEAL_KHUGEPAGED,
    vs.PGFAULT,
    vs.PGMAJFAULT,
    vs.PGREFILL,
    vs.PGACTIVATE,
    vs.PGDEACTIVATE,
    vs.PGLAZYFREE,
    vs.PGLAZYFREED,
    vs.SWPIN_ZERO,
    vs.SWPOUT_ZERO,
    ZSWPIN,
    ZSWPOUT,
    ZSWPWB,
    vs.THP_FAULT_ALLOC,
    vs.THP_COLLAPSE_ALLOC,
    vs.THP_SWPOUT,
    vs.THP_SWPOUT_FALLBACK,
    vs.NUMA_PAGE_MIGRATE,
    vs.NUMA_PTE_UPDATES,
    vs.NUMA_HINT_FAULTS,
)
NR_MEMCG_EVENTS = len(memcg_vm_event_stat)
_events_index: dict[int, int] = {item: i for i, item in enumerate(memcg_vm_event_stat)}

#: What memory.stat prints first: name and item.
memory_stats: tuple[tuple[str, int], ...] = (
    ("anon", vs.NR_ANON_MAPPED),
    ("file", vs.NR_FILE_PAGES),
    ("kernel", MEMCG_KMEM),
    ("kernel_stack", vs.NR_KERNEL_STACK_KB),
    ("pagetables", vs.NR_PAGETABLE),
    ("sec_pagetables", vs.NR_SECONDARY_PAGETABLE),
    ("percpu", MEMCG_PERCPU_B),
    ("sock", MEMCG_SOCK),
    ("vmalloc", MEMCG_VMALLOC),
    ("shmem", vs.NR_SHMEM),
    ("zswap", MEMCG_ZSWAP_B),
    ("zswapped", MEMCG_ZSWAPPED),
    ("file_mapped", vs.NR_FILE_MAPPED),
    ("file_dirty", vs.NR_FILE_DIRTY),
    ("file_writeback", vs.NR_WRITEBACK),
    ("swapcached", vs.NR_SWAPCACHE),
    ("anon_thp", vs.NR_ANON_THPS),
    ("file_thp", vs.NR_FILE_THPS),
    ("shmem_thp", vs.NR_SHMEM_THPS),
    ("inactive_anon", vs.NR_INACTIVE_ANON),
    ("active_anon", vs.NR_ACTIVE_ANON),
    ("inactive_file", vs.NR_INACTIVE_FILE),
    ("active_file", vs.NR_ACTIVE_FILE),
    ("unevictable", vs.NR_UNEVICTABLE),
    ("slab_reclaimable", vs.NR_SLAB_RECLAIMABLE_B),
    ("slab_unreclaimable", vs.NR_SLAB_UNRECLAIMABLE_B),
    ("workingset_refault_anon", vs.WORKINGSET_REFAULT_ANON),
    ("workingset_refault_file", vs.WORKINGSET_REFAULT_FILE),
    ("workingset_activate_anon", vs.WORKINGSET_ACTIVATE_ANON),
    ("workingset_activate_file", vs.WORKINGSET_ACTIVATE_FILE),
    ("workingset_restore_anon", vs.WORKINGSET_RESTORE_ANON),
    ("workingset_restore_file", vs.WORKINGSET_RESTORE_FILE),
    ("workingset_nodereclaim", vs.WORKINGSET_NODERECLAIM),
    ("pgdemote_kswapd", vs.PGDEMOTE_KSWAPD),
    ("pgdemote_direct", vs.PGDEMOTE_DIRECT),
    ("pgdemote_khugepaged", vs.PGDEMOTE_KHUGEPAGED),
    ("pgpromote_success", vs.PGPROMOTE_SUCCESS),
)
_ZSWAP_STATS = (MEMCG_ZSWAP_B, MEMCG_ZSWAPPED)
_BYTE_ITEMS = (
    MEMCG_PERCPU_B,
    MEMCG_ZSWAP_B,
    vs.NR_SLAB_RECLAIMABLE_B,
    vs.NR_SLAB_UNRECLAIMABLE_B,
)
_COUNT_ITEMS = (
    vs.WORKINGSET_REFAULT_ANON,
    vs.WORKINGSET_REFAULT_FILE,
    vs.WORKINGSET_ACTIVATE_ANON,
    vs.WORKINGSET_ACTIVATE_FILE,
    vs.WORKINGSET_RESTORE_ANON,
    vs.WORKINGSET_RESTORE_FILE,
    vs.WORKINGSET_NODERECLAIM,
    vs.PGDEMOTE_KSWAPD,
    vs.PGDEMOTE_DIRECT,
    vs.PGDEMOTE_KHUGEPAGED,
    vs.PGPROMOTE_SUCCESS,
)


# ---- structures ----------------------------------------------------------------------------------


class MemcgVmstatsPercpu:
    """``struct memcg_vmstats_percpu``: what one CPU counted for a group since it began.

    :ivar stats_updates: changes since the last flush, in pages

    Mirrors mm/memcontrol.c:memcg_vmstats_percpu.
    """

    __slots__ = (
        "events",
        "events_prev",
        "parent",
        "state",
        "state_prev",
        "stats_updates",
        "vmstats",
    )

    def __init__(self, parent: MemcgVmstatsPercpu | None, vmstats: MemcgVmstats) -> None:
        self.stats_updates = 0
        self.parent = parent
        self.vmstats = vmstats
        self.state = [0] * MEMCG_VMSTAT_SIZE
        self.state_prev = [0] * MEMCG_VMSTAT_SIZE
        self.events = [0] * NR_MEMCG_EVENTS
        self.events_prev = [0] * NR_MEMCG_EVENTS


class MemcgVmstats:
    """``struct memcg_vmstats``: what readers see, of a group and all below it.

    Mirrors mm/memcontrol.c:memcg_vmstats.
    """

    __slots__ = (
        "events",
        "events_local",
        "events_pending",
        "state",
        "state_local",
        "state_pending",
        "stats_updates",
    )

    def __init__(self) -> None:
        self.state = [0] * MEMCG_VMSTAT_SIZE
        self.state_local = [0] * MEMCG_VMSTAT_SIZE
        self.state_pending = [0] * MEMCG_VMSTAT_SIZE
        self.events = [0] * NR_MEMCG_EVENTS
        self.events_local = [0] * NR_MEMCG_EVENTS
        self.events_pending = [0] * NR_MEMCG_EVENTS
        self.stats_updates = 0


class LruvecStats:
    """``struct lruvec_stats``: what readers see, of one node.

    Mirrors mm/memcontrol.c:lruvec_stats.
    """

    __slots__ = ("state", "state_local", "state_pending")

    def __init__(self) -> None:
        self.state = [0] * NR_MEMCG_NODE_STAT_ITEMS
        self.state_local = [0] * NR_MEMCG_NODE_STAT_ITEMS
        self.state_pending = [0] * NR_MEMCG_NODE_STAT_ITEMS


class LruvecStatsPercpu:
    """``struct lruvec_stats_percpu``: what one CPU counted for a group on one node.

    Mirrors mm/memcontrol.c:lruvec_stats_percpu.
    """

    __slots__ = ("state", "state_prev")

    def __init__(self) -> None:
        self.state = [0] * NR_MEMCG_NODE_STAT_ITEMS
        self.state_prev = [0] * NR_MEMCG_NODE_STAT_ITEMS


@dataclass(slots=True, eq=False)
class MemCgroupReclaimIter:
    """``struct mem_cgroup_reclaim_iter``: where the reclaimers of one node are in a subtree.

    Mirrors include/linux/memcontrol.h:mem_cgroup_reclaim_iter.
    """

    position: MemCgroup | None = None
    generation: int = 0


@dataclass(slots=True, eq=False)
class MemCgroupReclaimCookie:
    """``struct mem_cgroup_reclaim_cookie``: a reclaimer's ticket for a shared walk.

    Mirrors include/linux/memcontrol.h:mem_cgroup_reclaim_cookie.
    """

    pgdat: PgData
    generation: int = 0


class MemCgroupPerNode:
    """``struct mem_cgroup_per_node``: a group's part of one node.

    :ivar lruvec: the LRU lists; what `MemcgHooks.lruvec_init` made
    :ivar lru_zone_size: pages by zone and list

    Mirrors include/linux/memcontrol.h:mem_cgroup_per_node.
    """

    __slots__ = (
        "iter",
        "lru_zone_size",
        "lruvec",
        "lruvec_stats",
        "lruvec_stats_percpu",
        "memcg",
        "nid",
    )

    def __init__(self, memcg: MemCgroup, nid: int) -> None:
        self.memcg = memcg
        self.nid = nid
        self.lruvec_stats = LruvecStats()
        self.lruvec_stats_percpu = [LruvecStatsPercpu() for _ in range(memcg.machine.cpus)]
        self.lru_zone_size = [[0] * 5 for _ in range(5)]
        self.iter = MemCgroupReclaimIter()
        self.lruvec: Any = memcg.machine.memcg.hooks.lruvec_init(self)


class ObjCgroup:
    """``struct obj_cgroup``: what kernel objects point to; goes to the parent when a group is removed.

    :ivar nr_charged_bytes: bytes of charged pages that no object uses and no CPU keeps
    :ivar refcnt: references; 1 belongs to its group while that is online

    Mirrors include/linux/memcontrol.h:obj_cgroup.
    """

    __slots__ = ("memcg", "nr_charged_bytes", "refcnt")

    def __init__(self, memcg: MemCgroup) -> None:
        self.memcg = memcg
        self.nr_charged_bytes = 0
        self.refcnt = 1

    def __repr__(self) -> str:
        return f"<objcg of {self.memcg.path} refcnt:{self.refcnt}>"


class MemCgroup:
    """``struct mem_cgroup``: one memory control group.

    :ivar memory: counter of memory; limits, protection, peaks
    :ivar swap: counter of swap slots
    :ivar id_id: number in swap entries and shadow entries, 0 once it is given back
    :ivar id_ref: references to that number (``id.ref``)
    :ivar objcg: where kernel objects are charged; None once removed
    :ivar memory_events: by `MEMCG_LOW` and so on, with what happened below
    :ivar nodeinfo: by node

    Mirrors include/linux/memcontrol.h:mem_cgroup.
    """

    __slots__ = (
        "css",
        "high_work",
        "id_id",
        "id_ref",
        "machine",
        "memory",
        "memory_events",
        "memory_events_local",
        "memory_peaks",
        "nodeinfo",
        "objcg",
        "objcg_list",
        "oom_group",
        "orig_objcg",
        "swap",
        "swap_peaks",
        "swappiness",
        "vmstats",
        "vmstats_percpu",
        "zswap_max",
        "zswap_writeback",
    )

    def __init__(self, machine: Machine, css: CgroupSubsysState) -> None:
        self.machine = machine
        self.css = css
        self.id_id = 0
        self.id_ref = 0
        self.memory = PageCounter()
        self.swap = PageCounter()
        self.memory.container = self.swap.container = self
        self.memory_peaks: list[CgroupOfPeak] = []
        self.swap_peaks: list[CgroupOfPeak] = []
        self.high_work = False
        self.zswap_max = PAGE_COUNTER_MAX
        self.zswap_writeback = True
        self.oom_group = False
        self.swappiness = 0
        self.memory_events = [0] * MEMCG_NR_MEMORY_EVENTS
        self.memory_events_local = [0] * MEMCG_NR_MEMORY_EVENTS
        self.objcg: ObjCgroup | None = None
        self.orig_objcg: ObjCgroup | None = None
        self.objcg_list: list[ObjCgroup] = []
        self.vmstats = MemcgVmstats()
        parent = css.parent.container.vmstats_percpu if css.parent else None
        self.vmstats_percpu = [
            MemcgVmstatsPercpu(parent[cpu] if parent else None, self.vmstats)
            for cpu in range(machine.cpus)
        ]
        self.nodeinfo: dict[int, MemCgroupPerNode] = {}

    @property
    def path(self) -> str:
        """Its path below the mount point; stays when the group was removed."""
        return cg.cgroup_path(self.css.cgroup)

    def __repr__(self) -> str:
        state = "" if self.css.flags & CSS_ONLINE else " dying"
        limit = "max" if self.memory.max == PAGE_COUNTER_MAX else self.memory.max
        return f"<memcg {self.path}{state} {self.memory.usage} of {limit} pages>"


@dataclass(slots=True, eq=False)
class CgroupOfPeak:
    """``struct cgroup_of_peak``: an open memory.peak or memory.swap.peak.

    :ivar value: peak since somebody wrote to this file, or `OFP_PEAK_UNSET`

    Mirrors include/linux/cgroup-defs.h:cgroup_of_peak.
    """

    memcg: MemCgroup
    swap: bool = False
    value: int = OFP_PEAK_UNSET


@dataclass(slots=True, eq=False)
class MemcgStockPcp:
    """``struct memcg_stock_pcp``: charges that one CPU keeps in advance, for one group.

    :ivar cached: whose pages they are
    :ivar nr_pages: charged and not used
    :ivar cached_objcg: whose bytes they are
    :ivar nr_bytes: of charged pages, not used by an object
    :ivar nr_slab_reclaimable_b: change of a statistic that was not passed on yet

    Mirrors mm/memcontrol.c:memcg_stock_pcp.
    """

    cached: MemCgroup | None = None
    nr_pages: int = 0
    cached_objcg: ObjCgroup | None = None
    cached_pgdat: PgData | None = None
    nr_bytes: int = 0
    nr_slab_reclaimable_b: int = 0
    nr_slab_unreclaimable_b: int = 0


def _reclaim_nothing(
    memcg: MemCgroup, nr_pages: int, gfp_mask: int, reclaim_options: int, swappiness: int | None
) -> int:
    return 0


def _sleep(m: Machine, timeout: int) -> None:
    """Let the clock run for @timeout jiffies."""
    m.clock += timeout * NSEC_PER_SEC // m.config.HZ


def _nothing(*args: Any) -> None:
    return None


@dataclass(slots=True, eq=False)
class MemcgHooks:
    """The calls from here into reclaim, PSI, the scheduler and who watches files.

    The OOM killer is ``m.hooks.out_of_memory`` with ``oc.memcg`` set.

    :ivar try_to_free_mem_cgroup_pages: (memcg, nr_pages, gfp_mask, reclaim_options, swappiness) -> pages
        reclaimed; the default has none
    :ivar schedule_timeout_killable: (m, jiffies); the default lets the clock run
    :ivar psi_memstall_enter: (m); so psi_memstall_leave
    :ivar lru_add_drain_all: (m)
    :ivar cgroup_file_notify: (memcg, "memory.events"): the file has changed
    :ivar lruvec_init: (pn) -> the LRU lists of a group on a node
    :ivar css_hooks: by name ("online", "offline", "released", "free"): (memcg), what reclaim, zswap and
        writeback do then
    """

    try_to_free_mem_cgroup_pages: Callable[[MemCgroup, int, int, int, int | None], int] = (
        _reclaim_nothing
    )
    schedule_timeout_killable: Callable[[Machine, int], None] = _sleep
    psi_memstall_enter: Callable[[Machine], None] = _nothing
    psi_memstall_leave: Callable[[Machine], None] = _nothing
    lru_add_drain_all: Callable[[Machine], None] = _nothing
    cgroup_file_notify: Callable[[MemCgroup, str], None] = _nothing
    lruvec_init: Callable[[MemCgroupPerNode], Any] = _nothing
    css_hooks: dict[str, list[Callable[[MemCgroup], None]]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class MemcgState:
    """The variables of mm/memcontrol.c, as ``m.memcg``.

    :ivar root_mem_cgroup: None until `mem_cgroup_init()`
    :ivar memcg_stock: by CPU
    :ivar mem_cgroup_ids: groups by their number
    :ivar in_interrupt: the code that runs is not a task's
    :ivar int_active_memcg: whom an interrupt charges
    :ivar isolated_cpus: CPUs whose stock nobody drains from elsewhere
    :ivar zswap: the kernel has zswap (CONFIG_ZSWAP; the reference kernel has not)
    :ivar swap_cgroup: who was charged for a swap entry, by entry
    """

    root_mem_cgroup: MemCgroup | None = None
    memcg_stock: list[MemcgStockPcp] = field(default_factory=list)
    mem_cgroup_ids: dict[int, MemCgroup] = field(default_factory=dict)
    lowest_free_id: int = 1
    hooks: MemcgHooks = field(default_factory=MemcgHooks)
    in_interrupt: bool = False
    int_active_memcg: MemCgroup | None = None
    isolated_cpus: list[int] = field(default_factory=list)
    cgroup_memory_nokmem: bool = False
    cgroup_memory_nosocket: bool = False
    zswap: bool = False
    flush_last_time: int = 0
    swap_cgroup: dict[int, int] = field(default_factory=dict)
    vm_swappiness: int = 60


# ---- small questions -----------------------------------------------------------------------------


def mem_cgroup_disabled(m: Machine) -> bool:
    """Tell whether the machine has no memory cgroups.

    Mirrors include/linux/memcontrol.h:mem_cgroup_disabled().
    """
    return m.memcg.root_mem_cgroup is None


def root_mem_cgroup(m: Machine) -> MemCgroup:
    """Return the root group.

    :raises UsageError: if the machine has no memory cgroups
    """
    root = m.memcg.root_mem_cgroup
    if root is None:
        raise UsageError("this machine has no memory cgroups; call mem_cgroup_init(m)")
    return root


def mem_cgroup_is_root(memcg: MemCgroup) -> bool:
    """Tell whether @memcg is the root group, which has no limits.

    Mirrors include/linux/memcontrol.h:mem_cgroup_is_root().
    """
    return memcg.css.parent is None


def parent_mem_cgroup(memcg: MemCgroup) -> MemCgroup | None:
    """Return the group above, None for the root.

    Mirrors include/linux/memcontrol.h:parent_mem_cgroup().
    """
    return None if memcg.css.parent is None else memcg.css.parent.container


def mem_cgroup_from_css(css: CgroupSubsysState | None) -> MemCgroup | None:
    """Return the group whose css this is.

    Mirrors include/linux/memcontrol.h:mem_cgroup_from_css().
    """
    return None if css is None else css.container


def mem_cgroup_from_counter(counter: PageCounter) -> MemCgroup:
    """Return the group that a counter belongs to.

    Mirrors include/linux/memcontrol.h:mem_cgroup_from_counter().
    """
    memcg: MemCgroup = counter.container
    return memcg


def mem_cgroup_is_descendant(memcg: MemCgroup, root: MemCgroup) -> bool:
    """Tell whether @memcg is @root or below it.

    Mirrors include/linux/memcontrol.h:mem_cgroup_is_descendant().
    """
    return root is memcg or cg.cgroup_is_descendant(memcg.css.cgroup, root.css.cgroup)


def mem_cgroup_online(memcg: MemCgroup) -> bool:
    """Tell whether the group was not removed.

    Mirrors include/linux/memcontrol.h:mem_cgroup_online().
    """
    return memcg.css.flags & CSS_ONLINE != 0


def mem_cgroup_id(memcg: MemCgroup) -> int:
    """Return the group's number in swap and shadow entries.

    Mirrors include/linux/memcontrol.h:mem_cgroup_id().
    """
    return memcg.id_id


def mem_cgroup_swappiness(memcg: MemCgroup) -> int:
    """Return how much reclaim prefers anonymous pages; the same for all groups.

    Mirrors include/linux/swap.h:mem_cgroup_swappiness().
    """
    return memcg.machine.memcg.vm_swappiness


def mem_cgroup_size(memcg: MemCgroup) -> int:
    """Return the pages charged to the group and all below it.

    Mirrors mm/memcontrol.c:mem_cgroup_size().
    """
    return page_counter_read(memcg.memory)


def mem_cgroup_get_max(memcg: MemCgroup) -> int:
    """Return the most memory and swap that the group can use, in pages.

    Mirrors mm/memcontrol.c:mem_cgroup_get_max().
    """
    limit = memcg.memory.max
    if mem_cgroup_swappiness(memcg):
        limit += min(memcg.swap.max, memcg.machine.total_swap_pages)
    return limit


def mem_cgroup_margin(memcg: MemCgroup) -> int:
    """Return how many pages can still be charged to this group, ancestors aside.

    Mirrors mm/memcontrol.c:mem_cgroup_margin().
    """
    return max(0, memcg.memory.max - memcg.memory.usage)


def in_task(m: Machine) -> bool:
    """Tell whether a task runs, not an interrupt.

    Mirrors include/linux/preempt.h:in_task().
    """
    return not m.memcg.in_interrupt


def _current(m: Machine) -> Any:
    return m.init_task if m.current is None else m.current


def task_is_dying(m: Machine) -> bool:
    """Tell whether the running task was killed or is exiting.

    Mirrors mm/memcontrol.c:task_is_dying().
    """
    task = _current(m)
    return m.hooks.tsk_is_oom_victim(task) or task.fatal_signal or task.flags & PF_EXITING != 0


def _signal_pending(m: Machine) -> bool:
    task = _current(m)
    return bool(task.fatal_signal or getattr(task, "signal_pending", False))


def _oom_skip(task: Any) -> bool:
    """Tell whether nothing is left to reap of an OOM victim (MMF_OOM_SKIP)."""
    return bool(getattr(task, "oom_skip", False))


# ---- whose memory --------------------------------------------------------------------------------


def mem_cgroup_from_task(m: Machine, p: Any) -> MemCgroup | None:
    """Return the group of a task, None for no task.

    Mirrors mm/memcontrol.c:mem_cgroup_from_task().
    """
    if p is None:
        return None
    return mem_cgroup_from_css(cg.cgroup_e_css(cg.task_cgroup(m, p), "memory"))


def active_memcg(m: Machine) -> MemCgroup | None:
    """Return the group that was set to be charged instead of the task's.

    Mirrors mm/memcontrol.c:active_memcg().
    """
    if not in_task(m):
        return m.memcg.int_active_memcg
    active: MemCgroup | None = _current(m).active_memcg
    return active


def set_active_memcg(m: Machine, memcg: MemCgroup | None) -> MemCgroup | None:
    """Charge @memcg instead of the running task's group from now on; return the one before.

    Mirrors include/linux/sched/mm.h:set_active_memcg().
    """
    old = active_memcg(m)
    if in_task(m):
        _current(m).active_memcg = memcg
    else:
        m.memcg.int_active_memcg = memcg
    return old


def get_mem_cgroup_from_mm(m: Machine, mm: Any) -> MemCgroup | None:
    """Return the group that pays for an address space, with a reference.

    :param mm: ``struct mm_struct *``; None for the active group, else that of the running task

    Mirrors mm/memcontrol.c:get_mem_cgroup_from_mm().
    """
    if mem_cgroup_disabled(m):
        return None
    if mm is None:
        memcg = active_memcg(m)
        if memcg is not None:
            css_get(memcg.css)
            return memcg
        mm = getattr(_current(m), "mm", None)
        if mm is None:
            return root_mem_cgroup(m)
    memcg = mem_cgroup_from_task(m, mm.owner) or root_mem_cgroup(m)
    css_get(memcg.css)
    return memcg


def get_mem_cgroup_from_folio(m: Machine, folio: Folio) -> MemCgroup | None:
    """Return the group that a folio is charged to, else the root, with a reference.

    Mirrors mm/memcontrol.c:get_mem_cgroup_from_folio().
    """
    if mem_cgroup_disabled(m):
        return None
    memcg = folio_memcg(folio)
    if memcg is None or not css_tryget(memcg.css):
        return root_mem_cgroup(m)
    return memcg


def folio_memcg_kmem(folio: Folio) -> bool:
    """Tell whether the folio is kernel memory, charged through an object cgroup.

    Mirrors include/linux/memcontrol.h:folio_memcg_kmem().
    """
    return type(folio.memcg_data) is ObjCgroup


def folio_memcg(folio: Folio) -> MemCgroup | None:
    """Return the group that a folio is charged to, or None.

    Mirrors include/linux/memcontrol.h:folio_memcg().
    """
    data = folio.memcg_data
    if type(data) is ObjCgroup:
        return data.memcg
    memcg: MemCgroup | None = data
    return memcg


def folio_memcg_charged(folio: Folio) -> bool:
    """Tell whether a folio is charged to a group.

    Mirrors include/linux/memcontrol.h:folio_memcg_charged().
    """
    return folio.memcg_data is not None


def page_cgroup_ino(m: Machine, page: Page) -> str | None:
    """Return the path of the group that a page is charged to, or of its nearest live ancestor.

    Simplified: groups are named by path, where /proc/kpagecgroup has inode numbers.

    Mirrors mm/memcontrol.c:page_cgroup_ino().
    """
    memcg = folio_memcg(page_folio(page))
    while memcg is not None and not mem_cgroup_online(memcg):
        memcg = parent_mem_cgroup(memcg)
    return None if memcg is None else memcg.path


# ---- walks ---------------------------------------------------------------------------------------


def mem_cgroup_iter(
    m: Machine,
    root: MemCgroup | None,
    prev: MemCgroup | None,
    reclaim: MemCgroupReclaimCookie | None = None,
) -> MemCgroup | None:
    """Return the group behind @prev in a walk over @root and all below it; None at the end.

    The group has a reference, which the next call gives back. With @reclaim, all reclaimers of a node
    share one position, and a walk ends when another one has completed the round.

    Mirrors mm/memcontrol.c:mem_cgroup_iter().
    """
    if mem_cgroup_disabled(m):
        return None
    root = root or root_mem_cgroup(m)
    position = None if reclaim is None else _nodeinfo(root, reclaim.pgdat.node_id).iter
    following: MemCgroup | None = None
    while True:
        pos = prev
        if reclaim is not None and position is not None:
            if prev is None:
                reclaim.generation = position.generation
            elif reclaim.generation != position.generation:
                following = None
                break
            pos = position.position
        css = cg.css_next_descendant_pre(None if pos is None else pos.css, root.css)
        while css is not None and css is not root.css and not css_tryget(css):
            css = cg.css_next_descendant_pre(css, root.css)
        following = mem_cgroup_from_css(css)
        if position is None:
            break
        position.position = following
        if following is None:
            position.generation += 1
            if prev is None:
                continue
        break
    mem_cgroup_iter_break(m, root, prev)
    return following


def mem_cgroup_iter_break(m: Machine, root: MemCgroup | None, prev: MemCgroup | None) -> None:
    """End a walk before it is complete: give back the reference to @prev.

    Mirrors mm/memcontrol.c:mem_cgroup_iter_break().
    """
    if prev is not None and prev is not (root or root_mem_cgroup(m)):
        css_put(prev.css)


def _for_each_mem_cgroup_tree(root: MemCgroup) -> Iterable[MemCgroup]:
    memcg = mem_cgroup_iter(root.machine, root, None)
    while memcg is not None:
        yield memcg
        memcg = mem_cgroup_iter(root.machine, root, memcg)


def invalidate_reclaim_iterators(dead_memcg: MemCgroup) -> None:
    """Let no shared walk stand at a group that goes away.

    Mirrors mm/memcontrol.c:invalidate_reclaim_iterators().
    """
    memcg: MemCgroup | None = dead_memcg
    while memcg is not None:
        for pn in memcg.nodeinfo.values():
            if pn.iter.position is dead_memcg:
                pn.iter.position = None
        memcg = parent_mem_cgroup(memcg)


def _css_tasks(css: CgroupSubsysState) -> list[Any]:
    """Return the tasks that use a css: of its group, and of groups below without one of their own."""
    tasks: list[Any] = []
    if css.flags & CSS_ONLINE:
        groups = [css.cgroup]
        for cgrp in groups:
            tasks += cgrp.procs
            groups += [c.cgroup for c in cgrp.self.children if "memory" not in c.cgroup.subsys]
    return tasks


def mem_cgroup_scan_tasks(memcg: MemCgroup, fn: Callable[[Any, Any], int], arg: Any) -> None:
    """Call @fn(task, @arg) for the tasks of a group and all below it until one answers non-zero.

    :raises KernelBug: for the root group

    Mirrors mm/memcontrol.c:mem_cgroup_scan_tasks().
    """
    if mem_cgroup_is_root(memcg):
        raise KernelBug("mem_cgroup_scan_tasks() of the root group")
    m = memcg.machine
    for group in _for_each_mem_cgroup_tree(memcg):
        for task in _css_tasks(group.css):
            if fn(task, arg):
                mem_cgroup_iter_break(m, memcg, group)
                return


# ---- events --------------------------------------------------------------------------------------


def memcg_memory_event(memcg: MemCgroup, event: int) -> None:
    """Count an event in a group and, unless memory_localevents is set, in its ancestors below the root.

    :param event: ``enum memcg_memory_event``

    Mirrors include/linux/memcontrol.h:memcg_memory_event().
    """
    m = memcg.machine
    if m.trace.on:
        m.trace.emit("model:memcg_event", memcg.path, MEMCG_EVENT_TEXT[event])
    swap_event = event in _SWAP_EVENTS
    notify = m.memcg.hooks.cgroup_file_notify
    memcg.memory_events_local[event] += 1
    if not swap_event:
        notify(memcg, "memory.events.local")
    assert m.cgrp_dfl_root is not None
    local = m.cgrp_dfl_root.flags & cg.CGRP_ROOT_MEMORY_LOCAL_EVENTS
    at: MemCgroup | None = memcg
    while at is not None:
        at.memory_events[event] += 1
        notify(at, "memory.swap.events" if swap_event else "memory.events")
        if local:
            break
        at = parent_mem_cgroup(at)
        if at is None or mem_cgroup_is_root(at):
            break


def memcg_memory_event_mm(m: Machine, mm: Any, event: int) -> None:
    """Count an event in the group of an address space.

    Mirrors include/linux/memcontrol.h:memcg_memory_event_mm().
    """
    if mem_cgroup_disabled(m):
        return
    memcg = mem_cgroup_from_task(m, mm.owner)
    if memcg is not None:
        memcg_memory_event(memcg, event)


# ---- statistics ----------------------------------------------------------------------------------


def _nodeinfo(memcg: MemCgroup, nid: int) -> MemCgroupPerNode:
    """Return a group's part of a node, making it for a node that came later than the group."""
    pn = memcg.nodeinfo.get(nid)
    if pn is None:
        pn = memcg.nodeinfo[nid] = MemCgroupPerNode(memcg, nid)
    return pn


def memcg_stats_index(idx: int) -> int:
    """Return where item @idx stands in a group's arrays.

    :raises KernelBug: if groups do not count it

    Mirrors mm/memcontrol.c:memcg_stats_index().
    """
    i = _stats_index.get(idx)
    if i is None:
        raise KernelBug(f"missing stat item {idx}")
    return i


def memcg_events_index(idx: int) -> int:
    """Return where event @idx stands in a group's arrays.

    :raises KernelBug: if groups do not count it

    Mirrors mm/memcontrol.c:memcg_events_index().
    """
    i = _events_index.get(idx)
    if i is None:
        raise KernelBug(f"missing stat item {idx}")
    return i


def memcg_page_state_unit(item: int) -> int:
    """Return the bytes that one unit of a counter stands for.

    Mirrors mm/memcontrol.c:memcg_page_state_unit().
    """
    if item in _BYTE_ITEMS:
        return 1
    return 1024 if item == vs.NR_KERNEL_STACK_KB else PAGE_SIZE


def memcg_page_state_output_unit(item: int) -> int:
    """Return what memory.stat multiplies a counter with: bytes, but 1 for counts of events.

    Mirrors mm/memcontrol.c:memcg_page_state_output_unit().
    """
    return 1 if item in _COUNT_ITEMS else memcg_page_state_unit(item)


def memcg_state_val_in_pages(idx: int, val: int) -> int:
    """Return a change in pages; bytes round up to one page when they grow, down when they shrink.

    Mirrors mm/memcontrol.c:memcg_state_val_in_pages().
    """
    unit = memcg_page_state_unit(idx)
    if not val or unit == PAGE_SIZE:
        return val
    pages = val * unit // PAGE_SIZE
    return max(pages, 1) if val > 0 else pages


def memcg_vmstats_needs_flush(m: Machine, vmstats: MemcgVmstats) -> bool:
    """Tell whether enough has changed for a reader to flush: more than 64 pages a CPU.

    Mirrors mm/memcontrol.c:memcg_vmstats_needs_flush().
    """
    return vmstats.stats_updates > MEMCG_CHARGE_BATCH * m.num_online_cpus


def memcg_rstat_updated(memcg: MemCgroup, val: int) -> None:
    """Note a change of @val pages, here and in all ancestors; every 64 pages they tell the group.

    Mirrors mm/memcontrol.c:memcg_rstat_updated().
    """
    if not val:
        return
    m = memcg.machine
    cpu = m.this_cpu
    cgroup_rstat_updated(memcg.css.cgroup, cpu)
    statc: MemcgVmstatsPercpu | None = memcg.vmstats_percpu[cpu]
    while statc is not None:
        statc.stats_updates += abs(val)
        if statc.stats_updates >= MEMCG_CHARGE_BATCH:
            if not memcg_vmstats_needs_flush(m, statc.vmstats):
                statc.vmstats.stats_updates += statc.stats_updates
            statc.stats_updates = 0
        statc = statc.parent


def do_flush_stats(memcg: MemCgroup) -> None:
    """Collect what all CPUs counted in the group and below it.

    Mirrors mm/memcontrol.c:do_flush_stats().
    """
    m = memcg.machine
    if mem_cgroup_is_root(memcg):
        m.memcg.flush_last_time = m.jiffies
    cgroup_rstat_flush(memcg.css.cgroup)


def mem_cgroup_flush_stats(m: Machine, memcg: MemCgroup | None) -> None:
    """Flush if enough has changed; what readers of memory.stat call.

    Mirrors mm/memcontrol.c:mem_cgroup_flush_stats().
    """
    if mem_cgroup_disabled(m):
        return
    memcg = memcg or root_mem_cgroup(m)
    if memcg_vmstats_needs_flush(m, memcg.vmstats):
        do_flush_stats(memcg)


def mem_cgroup_flush_stats_ratelimited(m: Machine, memcg: MemCgroup | None) -> None:
    """Flush if the periodic flush is a whole period late.

    Mirrors mm/memcontrol.c:mem_cgroup_flush_stats_ratelimited().
    """
    if m.jiffies > m.memcg.flush_last_time + 2 * 2 * m.config.HZ:
        mem_cgroup_flush_stats(m, memcg)


def flush_memcg_stats_dwork(m: Machine) -> None:
    """Flush everything; the kernel does so every two seconds.

    Mirrors mm/memcontrol.c:flush_memcg_stats_dwork().
    """
    do_flush_stats(root_mem_cgroup(m))


def memcg_page_state(memcg: MemCgroup, idx: int) -> int:
    """Return a counter of the group and all below it, as of the last flush; never below 0.

    Mirrors mm/memcontrol.c:memcg_page_state().
    """
    return max(0, memcg.vmstats.state[memcg_stats_index(idx)])


def memcg_page_state_local(memcg: MemCgroup, idx: int) -> int:
    """Return a counter of the group alone, as of the last flush; never below 0.

    Mirrors mm/memcontrol.c:memcg_page_state_local().
    """
    return max(0, memcg.vmstats.state_local[memcg_stats_index(idx)])


def memcg_page_state_output(memcg: MemCgroup, item: int) -> int:
    """Return a counter in memory.stat's unit.

    Mirrors mm/memcontrol.c:memcg_page_state_output().
    """
    return memcg_page_state(memcg, item) * memcg_page_state_output_unit(item)


def memcg_events(memcg: MemCgroup, event: int) -> int:
    """Return an event counter of the group and all below it, as of the last flush.

    Mirrors mm/memcontrol.c:memcg_events().
    """
    return memcg.vmstats.events[memcg_events_index(event)]


def mod_memcg_state(memcg: MemCgroup, idx: int, val: int) -> None:
    """Add @val to a counter of the group on this CPU.

    Mirrors include/linux/memcontrol.h:mod_memcg_state().
    """
    memcg.vmstats_percpu[memcg.machine.this_cpu].state[memcg_stats_index(idx)] += val
    memcg_rstat_updated(memcg, memcg_state_val_in_pages(idx, val))


def mod_memcg_lruvec_state(memcg: MemCgroup, nid: int, idx: int, val: int) -> None:
    """Add @val to a counter of the group and of its part of a node, on this CPU.

    Mirrors mm/memcontrol.c:__mod_memcg_lruvec_state().
    """
    i = memcg_stats_index(idx)
    cpu = memcg.machine.this_cpu
    memcg.vmstats_percpu[cpu].state[i] += val
    _nodeinfo(memcg, nid).lruvec_stats_percpu[cpu].state[i] += val
    memcg_rstat_updated(memcg, memcg_state_val_in_pages(idx, val))


def mod_lruvec_state(pn: MemCgroupPerNode, pgdat: PgData, idx: int, val: int) -> None:
    """Add @val to a counter of the node, of the group, and of the group's part of the node.

    Mirrors mm/memcontrol.c:__mod_lruvec_state().
    """
    vs.mod_node_page_state(pgdat, idx, val)
    mod_memcg_lruvec_state(pn.memcg, pn.nid, idx, val)


def lruvec_stat_mod_folio(folio: Folio, idx: int, val: int) -> None:
    """Add @val to a counter of the folio's node and of the group it is charged to, if any.

    Mirrors mm/memcontrol.c:__lruvec_stat_mod_folio().
    """
    zone = folio.zone
    pgdat = zone.zone_pgdat
    vs.mod_node_page_state(pgdat, idx, val)
    memcg = folio_memcg(folio)
    if memcg is not None:
        mod_memcg_lruvec_state(memcg, zone.node, idx, val)


def count_memcg_events(memcg: MemCgroup, idx: int, count: int) -> None:
    """Add @count to an event counter of the group on this CPU.

    Mirrors include/linux/memcontrol.h:count_memcg_events().
    """
    memcg.vmstats_percpu[memcg.machine.this_cpu].events[memcg_events_index(idx)] += count
    memcg_rstat_updated(memcg, count)


def count_memcg_event_mm(m: Machine, mm: Any, idx: int) -> None:
    """Count one event in the group of an address space.

    Mirrors include/linux/memcontrol.h:count_memcg_event_mm().
    """
    if mem_cgroup_disabled(m):
        return
    memcg = mem_cgroup_from_task(m, mm.owner)
    if memcg is not None:
        count_memcg_events(memcg, idx, 1)


def lruvec_page_state(pn: MemCgroupPerNode, idx: int) -> int:
    """Return a counter of a node's part of the group and all below it; never below 0.

    Mirrors mm/memcontrol.c:lruvec_page_state().
    """
    return max(0, pn.lruvec_stats.state[memcg_stats_index(idx)])


def lruvec_page_state_local(pn: MemCgroupPerNode, idx: int) -> int:
    """Return a counter of a node's part of the group alone; never below 0.

    Mirrors mm/memcontrol.c:lruvec_page_state_local().
    """
    return max(0, pn.lruvec_stats.state_local[memcg_stats_index(idx)])


def mem_cgroup_lruvec(memcg: MemCgroup, pgdat: PgData) -> MemCgroupPerNode:
    """Return the group's part of a node, whose ``lruvec`` has the LRU lists.

    Mirrors include/linux/memcontrol.h:mem_cgroup_lruvec().
    """
    return _nodeinfo(memcg, pgdat.node_id)


def mem_cgroup_update_lru_size(pn: MemCgroupPerNode, lru: int, zid: int, nr_pages: int) -> None:
    """Count pages that join (or, negative, leave) an LRU list of the group.

    :raises KernelBug: if more leave than there were

    Mirrors mm/memcontrol.c:mem_cgroup_update_lru_size().
    """
    size = pn.lru_zone_size[zid]
    size[lru] += nr_pages
    if size[lru] < 0:
        raise KernelBug(f"lru_size {size[lru]} of {pn.memcg!r}, zone {zid}, list {lru}")


def _fold(
    cpu_now: list[int], cpu_prev: list[int], pending: list[int], local: list[int], total: list[int]
) -> list[tuple[int, int]]:
    """Bring one array up to date; return (index, change) of what the parent must learn."""
    changes = []
    for i, v in enumerate(cpu_now):
        delta = pending[i]
        if delta:
            pending[i] = 0
        if v != cpu_prev[i]:
            local[i] += v - cpu_prev[i]
            delta += v - cpu_prev[i]
            cpu_prev[i] = v
        if delta:
            total[i] += delta
            changes.append((i, delta))
    return changes


def mem_cgroup_css_rstat_flush(css: CgroupSubsysState, cpu: int) -> None:
    """Add what @cpu counted to what readers see of the group, and leave it for the parent.

    Mirrors mm/memcontrol.c:mem_cgroup_css_rstat_flush().
    """
    memcg: MemCgroup = css.container
    parent = parent_mem_cgroup(memcg)
    statc, vmstats = memcg.vmstats_percpu[cpu], memcg.vmstats
    state = _fold(
        statc.state, statc.state_prev, vmstats.state_pending, vmstats.state_local, vmstats.state
    )
    events = _fold(
        statc.events,
        statc.events_prev,
        vmstats.events_pending,
        vmstats.events_local,
        vmstats.events,
    )
    if parent is not None:
        for i, delta in state:
            parent.vmstats.state_pending[i] += delta
        for i, delta in events:
            parent.vmstats.events_pending[i] += delta
    for nid, pn in memcg.nodeinfo.items():
        stats, percpu = pn.lruvec_stats, pn.lruvec_stats_percpu[cpu]
        changes = _fold(
            percpu.state, percpu.state_prev, stats.state_pending, stats.state_local, stats.state
        )
        if parent is not None and changes:
            pending = _nodeinfo(parent, nid).lruvec_stats.state_pending
            for i, delta in changes:
                pending[i] += delta
    statc.stats_updates = 0
    vmstats.stats_updates = 0


def vm_event_name(item: int) -> str:
    """Return the name of an event, those of zswap included.

    Mirrors include/linux/vmstat.h:vm_event_name().
    """
    return _ZSWAP_EVENT_TEXT.get(item) or vs.VM_EVENT_TEXT[item]


def memcg_stat_format(memcg: MemCgroup) -> str:
    """Return the text of memory.stat: bytes, then counts.

    Mirrors mm/memcontrol.c:memcg_stat_format().
    """
    m = memcg.machine
    mem_cgroup_flush_stats(m, memcg)
    rows: list[tuple[str, int]] = []
    for name, item in memory_stats:
        if item in _ZSWAP_STATS and not m.memcg.zswap:
            continue
        size = memcg_page_state_output(memcg, item)
        rows.append((name, size))
        if item == vs.NR_SLAB_UNRECLAIMABLE_B:
            size += memcg_page_state_output(memcg, vs.NR_SLAB_RECLAIMABLE_B)
            rows.append(("slab", size))
    events = {item: memcg_events(memcg, item) for item in memcg_vm_event_stat}
    for name, first in (("pgscan", vs.PGSCAN_KSWAPD), ("pgsteal", vs.PGSTEAL_KSWAPD)):
        rows.append((name, sum(events[first + i] for i in range(3))))
    rows += [
        (vm_event_name(item), value)
        for item, value in events.items()
        if m.memcg.zswap or item not in _ZSWAP_EVENT_TEXT
    ]
    return "".join(f"{name} {value}\n" for name, value in rows)


# ---- stocks --------------------------------------------------------------------------------------


def consume_stock(memcg: MemCgroup, nr_pages: int) -> bool:
    """Take @nr_pages from what this CPU keeps for the group, if it keeps enough.

    Mirrors mm/memcontrol.c:consume_stock().
    """
    if nr_pages > MEMCG_CHARGE_BATCH:
        return False
    m = memcg.machine
    stock = m.memcg.memcg_stock[m.this_cpu]
    if memcg is not stock.cached or stock.nr_pages < nr_pages:
        return False
    stock.nr_pages -= nr_pages
    return True


def drain_stock(stock: MemcgStockPcp) -> None:
    """Uncharge what a CPU keeps, and forget whose it was.

    Mirrors mm/memcontrol.c:drain_stock().
    """
    old = stock.cached
    if old is None:
        return
    nr_pages, stock.nr_pages = stock.nr_pages, 0
    if nr_pages:
        page_counter_uncharge(old.memory, nr_pages)
        m = old.machine
        if m.trace.on:
            cpu = m.memcg.memcg_stock.index(stock)
            m.trace.emit("model:memcg_stock", cpu, old.path, "drain", -nr_pages, 0)
    stock.cached = None
    css_put(old.css)


def drain_local_stock(m: Machine, cpu: int) -> None:
    """Drain what @cpu keeps, bytes of kernel objects first.

    Mirrors mm/memcontrol.c:drain_local_stock().
    """
    stock = m.memcg.memcg_stock[cpu]
    here, m.this_cpu = m.this_cpu, cpu
    old = drain_obj_stock(m, stock)
    drain_stock(stock)
    m.this_cpu = here
    obj_cgroup_put(old)


def refill_stock(memcg: MemCgroup, nr_pages: int) -> None:
    """Keep @nr_pages that are charged to the group for later; more than 64 are given back at once.

    Mirrors mm/memcontrol.c:refill_stock().
    """
    m = memcg.machine
    stock = m.memcg.memcg_stock[m.this_cpu]
    if stock.cached is not memcg:
        drain_stock(stock)
        css_get(memcg.css)
        stock.cached = memcg
    stock.nr_pages += nr_pages
    if m.trace.on:
        m.trace.emit(
            "model:memcg_stock", m.this_cpu, memcg.path, "refill", nr_pages, stock.nr_pages
        )
    if stock.nr_pages > MEMCG_CHARGE_BATCH:
        drain_stock(stock)


def drain_all_stock(root_memcg: MemCgroup) -> None:
    """Drain what all CPUs keep for a group and for all below it.

    Simplified: at once; the kernel queues work on the other CPUs and goes on.

    Mirrors mm/memcontrol.c:drain_all_stock().
    """
    m = root_memcg.machine
    for cpu, stock in enumerate(m.memcg.memcg_stock):
        memcg = stock.cached
        flush = (
            memcg is not None and stock.nr_pages > 0 and mem_cgroup_is_descendant(memcg, root_memcg)
        )
        if not flush and not obj_stock_flush_required(stock, root_memcg):
            continue
        if cpu == m.this_cpu or cpu not in m.memcg.isolated_cpus:
            drain_local_stock(m, cpu)


# ---- memory.high ---------------------------------------------------------------------------------


def _try_to_free(
    memcg: MemCgroup, nr_pages: int, gfp_mask: int, options: int, swappiness: int | None = None
) -> int:
    """Let reclaim take pages from the group; this counts as a stall."""
    return memcg.machine.memcg.hooks.try_to_free_mem_cgroup_pages(
        memcg, nr_pages, gfp_mask, options, swappiness
    )


def reclaim_high(memcg: MemCgroup, nr_pages: int, gfp_mask: int) -> int:
    """Reclaim from the group and each ancestor that is over its memory.high.

    :return: ``unsigned long`` pages reclaimed

    Mirrors mm/memcontrol.c:reclaim_high().
    """
    hooks, m = memcg.machine.memcg.hooks, memcg.machine
    nr_reclaimed = 0
    at: MemCgroup | None = memcg
    while at is not None:
        if page_counter_read(at.memory) > at.memory.high:
            memcg_memory_event(at, MEMCG_HIGH)
            hooks.psi_memstall_enter(m)
            nr_reclaimed += _try_to_free(at, nr_pages, gfp_mask, MEMCG_RECLAIM_MAY_SWAP)
            hooks.psi_memstall_leave(m)
        at = parent_mem_cgroup(at)
        if at is None or mem_cgroup_is_root(at):
            break
    return nr_reclaimed


def high_work_func(memcg: MemCgroup) -> None:
    """Reclaim for a charge that an interrupt made; the kernel runs it from a workqueue.

    Mirrors mm/memcontrol.c:high_work_func().
    """
    memcg.high_work = False
    reclaim_high(memcg, MEMCG_CHARGE_BATCH, GFP_KERNEL)


def calculate_overage(usage: int, high: int) -> int:
    """Return by which part of @high the usage is above it, as a fraction of 2**20.

    :param usage: ``unsigned long`` pages
    :return: ``u64``

    Mirrors mm/memcontrol.c:calculate_overage().
    """
    if usage <= high:
        return 0
    high = max(high, 1)
    return u64(usage - high << MEMCG_DELAY_PRECISION_SHIFT) // high


def mem_find_max_overage(memcg: MemCgroup) -> int:
    """Return the largest overage over memory.high of the group and its ancestors below the root.

    Mirrors mm/memcontrol.c:mem_find_max_overage().
    """
    max_overage = 0
    at: MemCgroup | None = memcg
    while at is not None:
        max_overage = max(calculate_overage(at.memory.usage, at.memory.high), max_overage)
        at = parent_mem_cgroup(at)
        if at is None or mem_cgroup_is_root(at):
            break
    return max_overage


def swap_find_max_overage(memcg: MemCgroup) -> int:
    """Return the largest overage over memory.swap.high; each one found is an event.

    Mirrors mm/memcontrol.c:swap_find_max_overage().
    """
    max_overage = 0
    at: MemCgroup | None = memcg
    while at is not None:
        overage = calculate_overage(at.swap.usage, at.swap.high)
        if overage:
            memcg_memory_event(at, MEMCG_SWAP_HIGH)
        max_overage = max(overage, max_overage)
        at = parent_mem_cgroup(at)
        if at is None or mem_cgroup_is_root(at):
            break
    return max_overage


def calculate_high_delay(HZ: int, nr_pages: int, max_overage: int) -> int:
    """Return how many jiffies a charge of @nr_pages must wait: the square of the overage, scaled.

    Simplified: without the kernel's first parameter, the group, which it does not use.

    :param nr_pages: ``unsigned int``
    :param max_overage: ``u64``
    :return: ``unsigned long`` jiffies

    Mirrors mm/memcontrol.c:calculate_high_delay().
    """
    if not max_overage:
        return 0
    penalty_jiffies = u64(max_overage * max_overage * HZ)
    penalty_jiffies >>= MEMCG_DELAY_PRECISION_SHIFT
    penalty_jiffies >>= MEMCG_DELAY_SCALING_SHIFT
    return u64(penalty_jiffies * nr_pages) // MEMCG_CHARGE_BATCH


def _high_penalty(memcg: MemCgroup, nr_pages: int) -> int:
    """Return the wait for memory and swap together, at most two seconds."""
    HZ = memcg.machine.config.HZ
    penalty = calculate_high_delay(HZ, nr_pages, mem_find_max_overage(memcg))
    penalty += calculate_high_delay(HZ, nr_pages, swap_find_max_overage(memcg))
    return min(u64(penalty), 2 * HZ)


def mem_cgroup_handle_over_high(m: Machine, gfp_mask: int) -> int:
    """Make the running task reclaim, and wait, for what it charged above memory.high.

    Runs when the task returns to user space (`resume_user_mode_work()`), and from a charge when more
    than 64 pages are due.

    :return: the jiffies that it slept (the kernel returns nothing)

    Mirrors mm/memcontrol.c:mem_cgroup_handle_over_high().
    """
    task = _current(m)
    nr_pages = task.memcg_nr_pages_over_high
    if not nr_pages:
        return 0
    memcg = get_mem_cgroup_from_mm(m, getattr(task, "mm", None))
    assert memcg is not None
    task.memcg_nr_pages_over_high = 0
    nr_retries = MAX_RECLAIM_RETRIES
    in_retry = False
    slept = 0
    hooks = m.memcg.hooks
    while not task_is_dying(m):
        nr_reclaimed = reclaim_high(memcg, SWAP_CLUSTER_MAX if in_retry else nr_pages, gfp_mask)
        penalty_jiffies = _high_penalty(memcg, nr_pages)
        if m.trace.on:
            m.trace.emit("model:memcg_high", memcg.path, nr_pages, nr_reclaimed, penalty_jiffies)
        if penalty_jiffies <= m.config.HZ // 100:
            break
        if not nr_reclaimed:
            nr_retries -= 1
        if nr_reclaimed or nr_retries >= 0:
            in_retry = True
            continue
        hooks.psi_memstall_enter(m)
        hooks.schedule_timeout_killable(m, penalty_jiffies)
        hooks.psi_memstall_leave(m)
        slept = penalty_jiffies
        break
    css_put(memcg.css)
    return slept


def resume_user_mode_work(m: Machine) -> None:
    """What a task does for its group on the way back to user space.

    Mirrors include/linux/resume_user_mode.h:resume_user_mode_work().
    """
    if not mem_cgroup_disabled(m):
        mem_cgroup_handle_over_high(m, GFP_KERNEL)


# ---- charging ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Attempt:
    """What `try_charge_memcg()` remembers from one attempt to the next."""

    nr_retries: int = MAX_RECLAIM_RETRIES
    rounds: int = 0
    passed_oom: bool = False
    drained: bool = False
    raised_max_event: bool = False


def _step(m: Machine, memcg: MemCgroup, step: str, nr_pages: int, value: int = 0) -> None:
    if m.trace.on:
        m.trace.emit("model:memcg_charge", memcg.path, step, nr_pages, value)


def try_charge(memcg: MemCgroup, gfp_mask: int, nr_pages: int) -> int:
    """Charge pages to a group, unless it is the root, which counts none.

    Mirrors mm/memcontrol-v1.h:try_charge().
    """
    return 0 if mem_cgroup_is_root(memcg) else try_charge_memcg(memcg, gfp_mask, nr_pages)


def try_charge_memcg(memcg: MemCgroup, gfp_mask: int, nr_pages: int) -> int:
    """Charge pages to a group: from the CPU's stock, in a batch, after reclaim, after a kill, or not.

    :param gfp_mask: ``gfp_t``
    :param nr_pages: ``unsigned int``
    :return: 0 or -ENOMEM

    Mirrors mm/memcontrol.c:try_charge_memcg().
    """
    if nr_pages < 1:
        raise UsageError(f"nr_pages is {nr_pages}; a charge has 1 or more pages")
    batch = max(MEMCG_CHARGE_BATCH, nr_pages)
    m = memcg.machine
    attempt = _Attempt()
    fail: list[PageCounter] = []
    while True:
        if consume_stock(memcg, nr_pages):
            _step(m, memcg, "stock", nr_pages)
            return 0
        if page_counter_try_charge(memcg.memory, batch, fail):
            _step(m, memcg, "charge", nr_pages, batch)
            _done_restock(memcg, gfp_mask, nr_pages, batch)
            return 0
        mem_over_limit = mem_cgroup_from_counter(fail[0])
        _step(m, mem_over_limit, "over_limit", nr_pages, batch)
        if batch > nr_pages:
            batch = nr_pages
            continue
        verdict = _over_limit(mem_over_limit, gfp_mask, nr_pages, attempt)
        if verdict != "retry":
            break
    if verdict == "nomem" and not gfp_mask & (__GFP_NOFAIL | __GFP_HIGH):
        _step(m, mem_over_limit, "nomem", nr_pages)
        return -ENOMEM
    if not attempt.raised_max_event:
        memcg_memory_event(mem_over_limit, MEMCG_MAX)
    page_counter_charge(memcg.memory, nr_pages)
    _step(m, memcg, "force", nr_pages)
    return 0


def _over_limit(memcg: MemCgroup, gfp_mask: int, nr_pages: int, attempt: _Attempt) -> str:
    """Make room in a group that is at its limit; return "retry", "nomem" or "force"."""
    m = memcg.machine
    task = _current(m)
    attempt.rounds += 1
    if attempt.rounds > NO_END:
        raise _no_end("a charge", memcg)
    if task.flags & PF_MEMALLOC:
        return "force"
    if not gfpflags_allow_blocking(gfp_mask):
        return "nomem"
    if m.hooks.tsk_is_oom_victim(task) and _oom_skip(task):
        return "nomem"
    memcg_memory_event(memcg, MEMCG_MAX)
    attempt.raised_max_event = True
    hooks = m.memcg.hooks
    hooks.psi_memstall_enter(m)
    nr_reclaimed = _try_to_free(memcg, nr_pages, gfp_mask, MEMCG_RECLAIM_MAY_SWAP)
    hooks.psi_memstall_leave(m)
    _step(m, memcg, "reclaim", nr_pages, nr_reclaimed)
    if mem_cgroup_margin(memcg) >= nr_pages:
        return "retry"
    if not attempt.drained:
        drain_all_stock(memcg)
        attempt.drained = True
        _step(m, memcg, "drain", nr_pages)
        return "retry"
    if gfp_mask & __GFP_NORETRY:
        return "nomem"
    if nr_reclaimed and nr_pages <= 1 << PAGE_ALLOC_COSTLY_ORDER:
        return "retry"
    if attempt.nr_retries:
        attempt.nr_retries -= 1
        return "retry"
    if gfp_mask & __GFP_RETRY_MAYFAIL:
        return "nomem"
    if attempt.passed_oom and task_is_dying(m):
        return "nomem"
    killed = mem_cgroup_oom(memcg, gfp_mask, max(0, (nr_pages - 1).bit_length()))
    _step(m, memcg, "oom", nr_pages, int(killed))
    if killed:
        attempt.passed_oom = True
        attempt.nr_retries = MAX_RECLAIM_RETRIES
        return "retry"
    return "nomem"


def _done_restock(memcg: MemCgroup, gfp_mask: int, nr_pages: int, batch: int) -> None:
    """Keep the rest of a batch, and see whether the group or an ancestor is over high."""
    m = memcg.machine
    if batch > nr_pages:
        refill_stock(memcg, batch - nr_pages)
    task = _current(m)
    at: MemCgroup | None = memcg
    while at is not None:
        mem_high = at.memory.usage > at.memory.high
        if not in_task(m):
            if mem_high:
                at.high_work = True
                break
        elif mem_high or at.swap.usage > at.swap.high:
            task.memcg_nr_pages_over_high += batch
            _step(m, at, "over_high", nr_pages, task.memcg_nr_pages_over_high)
            break
        at = parent_mem_cgroup(at)
    if (
        task.memcg_nr_pages_over_high > MEMCG_CHARGE_BATCH
        and not task.flags & PF_MEMALLOC
        and gfpflags_allow_blocking(gfp_mask)
    ):
        mem_cgroup_handle_over_high(m, gfp_mask)


def mem_cgroup_out_of_memory(memcg: MemCgroup, gfp_mask: int, order: int) -> bool:
    """Let the OOM killer choose in the group, unless there is room by now.

    :return: there is room, the task is dying, or somebody was killed

    Mirrors mm/memcontrol.c:mem_cgroup_out_of_memory().
    """
    m = memcg.machine
    if mem_cgroup_margin(memcg) >= 1 << order:
        return True
    if task_is_dying(m):
        return True
    oc = OomControl(None, None, gfp_mask, order, memcg)
    return m.hooks.out_of_memory(m, oc)


def mem_cgroup_oom(memcg: MemCgroup, mask: int, order: int) -> bool:
    """Count an OOM event and let the OOM killer act; nobody is killed for a costly order.

    Mirrors mm/memcontrol.c:mem_cgroup_oom().
    """
    if order > PAGE_ALLOC_COSTLY_ORDER:
        return False
    memcg_memory_event(memcg, MEMCG_OOM)
    return mem_cgroup_out_of_memory(memcg, mask, order)


def mem_cgroup_cancel_charge(memcg: MemCgroup, nr_pages: int) -> None:
    """Take back a charge that no folio got.

    Mirrors mm/memcontrol.c:mem_cgroup_cancel_charge().
    """
    if not mem_cgroup_is_root(memcg):
        page_counter_uncharge(memcg.memory, nr_pages)


def commit_charge(folio: Folio, memcg: MemCgroup) -> None:
    """Write into the folio who pays for it.

    :raises KernelBug: if it is charged already

    Mirrors mm/memcontrol.c:commit_charge().
    """
    if folio_memcg_charged(folio):
        raise KernelBug(f"{folio!r} is charged to {folio.memcg_data!r} already")
    folio.memcg_data = memcg


def mem_cgroup_commit_charge(folio: Folio, memcg: MemCgroup) -> None:
    """Give a charge to a folio, which holds a reference to the group from now on.

    Mirrors mm/memcontrol.c:mem_cgroup_commit_charge().
    """
    css_get(memcg.css)
    commit_charge(folio, memcg)


def charge_memcg(folio: Folio, memcg: MemCgroup, gfp: int) -> int:
    """Charge a folio to a group.

    :return: 0 or -ENOMEM

    Mirrors mm/memcontrol.c:charge_memcg().
    """
    ret = try_charge(memcg, gfp, folio_nr_pages(folio))
    if not ret:
        mem_cgroup_commit_charge(folio, memcg)
    return ret


def mem_cgroup_charge(folio: Folio, mm: Any, gfp: int) -> int:
    """Charge a new folio to the group of an address space, or to the active one.

    :return: 0, also on a machine without memory cgroups, or -ENOMEM

    Mirrors include/linux/memcontrol.h:mem_cgroup_charge().
    """
    memcg = get_mem_cgroup_from_mm(folio.zone.machine, mm)
    if memcg is None:
        return 0
    ret = charge_memcg(folio, memcg, gfp)
    css_put(memcg.css)
    return ret


def mem_cgroup_hugetlb_try_charge(memcg: MemCgroup | None, gfp: int, nr_pages: int) -> int:
    """Charge for a hugetlb folio, if the hierarchy is mounted with memory_hugetlb_accounting.

    :return: 0, -EOPNOTSUPP when such folios are not charged, -ENOMEM

    Mirrors mm/memcontrol.c:mem_cgroup_hugetlb_try_charge().
    """
    root = None if memcg is None else memcg.machine.cgrp_dfl_root
    if memcg is None or root is None:
        return -EOPNOTSUPP
    if not root.flags & cg.CGRP_ROOT_MEMORY_HUGETLB_ACCOUNTING:
        return -EOPNOTSUPP
    return -ENOMEM if try_charge(memcg, gfp, nr_pages) else 0


# ---- uncharging ----------------------------------------------------------------------------------


@dataclass(slots=True)
class UnchargeGather:
    """``struct uncharge_gather``: folios of one group that are uncharged together.

    Mirrors mm/memcontrol.c:uncharge_gather.
    """

    memcg: MemCgroup | None = None
    nr_memory: int = 0
    pgpgout: int = 0
    nr_kmem: int = 0


def uncharge_batch(ug: UnchargeGather) -> None:
    """Uncharge what was gathered.

    Mirrors mm/memcontrol.c:uncharge_batch().
    """
    memcg = ug.memcg
    assert memcg is not None
    if ug.nr_memory:
        page_counter_uncharge(memcg.memory, ug.nr_memory)
        if ug.nr_kmem:
            mod_memcg_state(memcg, MEMCG_KMEM, -ug.nr_kmem)
    css_put(memcg.css)


def uncharge_folio(folio: Folio, ug: UnchargeGather) -> None:
    """Take the charge off a folio, and gather it.

    Mirrors mm/memcontrol.c:uncharge_folio().
    """
    objcg = folio.memcg_data if folio_memcg_kmem(folio) else None
    if objcg is not None:
        memcg: MemCgroup | None = get_mem_cgroup_from_objcg(objcg)
    else:
        memcg = folio.memcg_data
    if memcg is None:
        return
    if ug.memcg is not memcg:
        if ug.memcg is not None:
            uncharge_batch(ug)
            ug.nr_memory = ug.pgpgout = ug.nr_kmem = 0
        ug.memcg = memcg
        css_get(memcg.css)
    nr_pages = folio_nr_pages(folio)
    folio.memcg_data = None
    if objcg is not None:
        ug.nr_memory += nr_pages
        ug.nr_kmem += nr_pages
        obj_cgroup_put(objcg)
    else:
        if not mem_cgroup_is_root(memcg):
            ug.nr_memory += nr_pages
        ug.pgpgout += 1
    css_put(memcg.css)


def mem_cgroup_uncharge(folio: Folio) -> None:
    """Take the charge off a folio that is going to be freed; nothing if it has none.

    Mirrors include/linux/memcontrol.h:mem_cgroup_uncharge().
    """
    if folio.memcg_data is None:
        return
    ug = UnchargeGather()
    uncharge_folio(folio, ug)
    uncharge_batch(ug)


def mem_cgroup_uncharge_folios(folios: Iterable[Folio]) -> None:
    """Take the charges off several folios, those of one group in one go.

    Mirrors include/linux/memcontrol.h:mem_cgroup_uncharge_folios().
    """
    ug = UnchargeGather()
    for folio in folios:
        uncharge_folio(folio, ug)
    if ug.memcg is not None:
        uncharge_batch(ug)


def mem_cgroup_replace_folio(old: Folio, new: Folio) -> None:
    """Charge a page cache folio that takes the place of another, over the limit if need be.

    Mirrors mm/memcontrol.c:mem_cgroup_replace_folio().
    """
    if folio_memcg_charged(new):
        return
    memcg = folio_memcg(old)
    if memcg is None:
        return
    if not mem_cgroup_is_root(memcg):
        page_counter_charge(memcg.memory, folio_nr_pages(new))
    css_get(memcg.css)
    commit_charge(new, memcg)


def mem_cgroup_migrate(old: Folio, new: Folio) -> None:
    """Hand the charge of a folio to the one that its content moved to.

    Mirrors mm/memcontrol.c:mem_cgroup_migrate().
    """
    memcg = folio_memcg(old)
    if memcg is None:
        return
    commit_charge(new, memcg)
    old.memcg_data = None


def split_page_memcg(head: Page, old_order: int, new_order: int) -> None:
    """Charge the parts of a folio that is split to the group of the whole.

    Mirrors mm/memcontrol.c:split_page_memcg().
    """
    folio = page_folio(head)
    data = folio.memcg_data
    if data is None:
        return
    parts = 1 << old_order - new_order
    m = head.zone.machine
    for i in range(1, parts):
        pfn_to_page(m, head.pfn + (i << new_order)).memcg_data = data
    if type(data) is ObjCgroup:
        data.refcnt += parts - 1
    else:
        css_get_many(data.css, parts - 1)


# ---- kernel memory -------------------------------------------------------------------------------


def get_mem_cgroup_from_objcg(objcg: ObjCgroup) -> MemCgroup:
    """Return the group that pays for an object cgroup, with a reference.

    Mirrors include/linux/memcontrol.h:get_mem_cgroup_from_objcg().
    """
    memcg = objcg.memcg
    if not css_tryget(memcg.css):
        raise KernelBug(f"{objcg!r} points to a group that is gone")
    return memcg


def obj_cgroup_get(objcg: ObjCgroup) -> None:
    """Take a reference.

    Mirrors include/linux/memcontrol.h:obj_cgroup_get().
    """
    objcg.refcnt += 1


def obj_cgroup_put(objcg: ObjCgroup | None) -> None:
    """Give back a reference; the last one uncharges what no object uses.

    Mirrors include/linux/memcontrol.h:obj_cgroup_put().
    """
    if objcg is None:
        return
    if objcg.refcnt <= 0:
        raise KernelBug(f"{objcg!r} gives back a reference that it does not have")
    objcg.refcnt -= 1
    if not objcg.refcnt:
        obj_cgroup_release(objcg)


def obj_cgroup_release(objcg: ObjCgroup) -> None:
    """Uncharge the whole pages that are left, and forget the object cgroup.

    :raises KernelBug: if part of a page is left, which means that an object was lost

    Mirrors mm/memcontrol.c:obj_cgroup_release().
    """
    nr_bytes = objcg.nr_charged_bytes
    if nr_bytes & (PAGE_SIZE - 1):
        raise KernelBug(f"{objcg!r} has {nr_bytes} bytes charged at its end")
    if nr_bytes:
        obj_cgroup_uncharge_pages(objcg, nr_bytes >> PAGE_SHIFT)
    if objcg in objcg.memcg.objcg_list:
        objcg.memcg.objcg_list.remove(objcg)


def memcg_reparent_objcgs(memcg: MemCgroup, parent: MemCgroup) -> None:
    """Let everything that kernel objects of a group point to belong to its parent.

    Mirrors mm/memcontrol.c:memcg_reparent_objcgs().
    """
    objcg, memcg.objcg = memcg.objcg, None
    if objcg is None:
        return
    moved = [objcg, *memcg.objcg_list]
    for each in moved:
        each.memcg = parent
    parent.objcg_list[:0] = moved
    memcg.objcg_list = []
    obj_cgroup_put(objcg)


def _objcg_of(memcg: MemCgroup) -> ObjCgroup | None:
    """Return the object cgroup of the group or of its nearest ancestor that has one."""
    at: MemCgroup | None = memcg
    while at is not None and not mem_cgroup_is_root(at):
        if at.objcg is not None:
            return at.objcg
        at = parent_mem_cgroup(at)
    return None


def current_objcg_update(m: Machine) -> ObjCgroup | None:
    """Find the running task's object cgroup anew, after it was moved or made.

    Mirrors mm/memcontrol.c:current_objcg_update().
    """
    task = _current(m)
    obj_cgroup_put(task.objcg)
    task.objcg = None
    task.objcg_update = False
    if getattr(task, "mm", None) is None or task.flags & PF_KTHREAD:
        return None
    memcg = mem_cgroup_from_task(m, task)
    assert memcg is not None
    objcg = _objcg_of(memcg)
    if objcg is not None:
        obj_cgroup_get(objcg)
    task.objcg = objcg
    return objcg


def current_obj_cgroup(m: Machine) -> ObjCgroup | None:
    """Return whom kernel memory is charged to now, None for nobody; without a reference.

    Mirrors mm/memcontrol.c:current_obj_cgroup().
    """
    if mem_cgroup_disabled(m):
        return None
    active = active_memcg(m)
    if active is not None:
        return _objcg_of(active)
    if not in_task(m):
        return None
    task = _current(m)
    if task.objcg_update:
        return current_objcg_update(m)
    objcg: ObjCgroup | None = task.objcg
    return objcg


def get_obj_cgroup_from_folio(folio: Folio) -> ObjCgroup | None:
    """Return the object cgroup for what is stored on a folio's behalf (zswap), with a reference.

    Mirrors mm/memcontrol.c:get_obj_cgroup_from_folio().
    """
    data = folio.memcg_data
    objcg = data if type(data) is ObjCgroup else None
    if objcg is None and data is not None:
        objcg = _objcg_of(data)
    if objcg is not None:
        obj_cgroup_get(objcg)
    return objcg


def obj_cgroup_charge_pages(objcg: ObjCgroup, gfp: int, nr_pages: int) -> int:
    """Charge whole pages of kernel memory.

    :return: 0 or -ENOMEM

    Mirrors mm/memcontrol.c:obj_cgroup_charge_pages().
    """
    memcg = get_mem_cgroup_from_objcg(objcg)
    ret = try_charge_memcg(memcg, gfp, nr_pages)
    if not ret:
        mod_memcg_state(memcg, MEMCG_KMEM, nr_pages)
    css_put(memcg.css)
    return ret


def obj_cgroup_uncharge_pages(objcg: ObjCgroup, nr_pages: int) -> None:
    """Uncharge whole pages of kernel memory; the CPU keeps them for the group.

    Mirrors mm/memcontrol.c:obj_cgroup_uncharge_pages().
    """
    memcg = get_mem_cgroup_from_objcg(objcg)
    mod_memcg_state(memcg, MEMCG_KMEM, -nr_pages)
    refill_stock(memcg, nr_pages)
    css_put(memcg.css)


def memcg_kmem_charge_page(page: Page, gfp: int, order: int) -> int:
    """Charge a page of kernel memory (__GFP_ACCOUNT) to the running task's group.

    :return: 0, also when nobody pays, or -ENOMEM

    Mirrors mm/memcontrol.c:__memcg_kmem_charge_page().
    """
    objcg = current_obj_cgroup(page.zone.machine)
    if objcg is None:
        return 0
    ret = obj_cgroup_charge_pages(objcg, gfp, 1 << order)
    if not ret:
        obj_cgroup_get(objcg)
        page.memcg_data = objcg
    return ret


def memcg_kmem_uncharge_page(page: Page, order: int) -> None:
    """Take the charge off a page of kernel memory; nothing if it has none.

    Mirrors mm/memcontrol.c:__memcg_kmem_uncharge_page().
    """
    folio = page_folio(page)
    objcg = folio.memcg_data
    if type(objcg) is not ObjCgroup:
        return
    obj_cgroup_uncharge_pages(objcg, 1 << order)
    folio.memcg_data = None
    obj_cgroup_put(objcg)


def _flush_slab_bytes(stock: MemcgStockPcp, objcg: ObjCgroup) -> None:
    """Pass on the changes of slab statistics that the CPU holds back."""
    pgdat = stock.cached_pgdat
    if pgdat is None:
        return
    rows = (
        (vs.NR_SLAB_RECLAIMABLE_B, stock.nr_slab_reclaimable_b),
        (vs.NR_SLAB_UNRECLAIMABLE_B, stock.nr_slab_unreclaimable_b),
    )
    for idx, nr in rows:
        if nr:
            mod_memcg_lruvec_state(objcg.memcg, pgdat.node_id, idx, nr)
    stock.nr_slab_reclaimable_b = stock.nr_slab_unreclaimable_b = 0


def _cache_objcg(m: Machine, objcg: ObjCgroup) -> ObjCgroup | None:
    """Let this CPU keep bytes of @objcg; return the one before, whose reference the caller drops."""
    stock = m.memcg.memcg_stock[m.this_cpu]
    old = drain_obj_stock(m, stock)
    obj_cgroup_get(objcg)
    stock.nr_bytes, objcg.nr_charged_bytes = objcg.nr_charged_bytes, 0
    stock.cached_objcg = objcg
    return old


def mod_objcg_state(m: Machine, objcg: ObjCgroup, pgdat: PgData, idx: int, nr: int) -> None:
    """Add @nr bytes to a slab statistic; the CPU passes it on when it is more than a page.

    :param idx: NR_SLAB_RECLAIMABLE_B or NR_SLAB_UNRECLAIMABLE_B

    Mirrors mm/memcontrol.c:mod_objcg_state().
    """
    stock = m.memcg.memcg_stock[m.this_cpu]
    old = None
    if stock.cached_objcg is not objcg:
        old = _cache_objcg(m, objcg)
        stock.cached_pgdat = pgdat
    elif stock.cached_pgdat is not pgdat:
        _flush_slab_bytes(stock, objcg)
        stock.cached_pgdat = pgdat
    reclaimable = idx == vs.NR_SLAB_RECLAIMABLE_B
    held = stock.nr_slab_reclaimable_b if reclaimable else stock.nr_slab_unreclaimable_b
    total = held + nr
    passed = total if held and abs(total) > PAGE_SIZE else 0
    if reclaimable:
        stock.nr_slab_reclaimable_b = total - passed
    else:
        stock.nr_slab_unreclaimable_b = total - passed
    if passed:
        mod_memcg_lruvec_state(objcg.memcg, pgdat.node_id, idx, passed)
    obj_cgroup_put(old)


def consume_obj_stock(m: Machine, objcg: ObjCgroup, nr_bytes: int) -> bool:
    """Take bytes from what this CPU keeps of the object cgroup, if it keeps enough.

    Mirrors mm/memcontrol.c:consume_obj_stock().
    """
    stock = m.memcg.memcg_stock[m.this_cpu]
    if stock.cached_objcg is not objcg or stock.nr_bytes < nr_bytes:
        return False
    stock.nr_bytes -= nr_bytes
    return True


def drain_obj_stock(m: Machine, stock: MemcgStockPcp) -> ObjCgroup | None:
    """Give back the bytes that a CPU keeps: whole pages to the stock of pages, the rest to the objcg.

    :return: whose they were; the caller drops the reference

    Mirrors mm/memcontrol.c:drain_obj_stock().
    """
    old = stock.cached_objcg
    if old is None:
        return None
    if stock.nr_bytes:
        nr_pages, nr_bytes = divmod(stock.nr_bytes, PAGE_SIZE)
        if nr_pages:
            memcg = get_mem_cgroup_from_objcg(old)
            mod_memcg_state(memcg, MEMCG_KMEM, -nr_pages)
            refill_stock(memcg, nr_pages)
            css_put(memcg.css)
        old.nr_charged_bytes += nr_bytes
        stock.nr_bytes = 0
    if stock.nr_slab_reclaimable_b or stock.nr_slab_unreclaimable_b:
        _flush_slab_bytes(stock, old)
        stock.cached_pgdat = None
    stock.cached_objcg = None
    return old


def obj_stock_flush_required(stock: MemcgStockPcp, root_memcg: MemCgroup) -> bool:
    """Tell whether a CPU keeps bytes of a group at or below @root_memcg.

    Mirrors mm/memcontrol.c:obj_stock_flush_required().
    """
    objcg = stock.cached_objcg
    return objcg is not None and mem_cgroup_is_descendant(objcg.memcg, root_memcg)


def refill_obj_stock(m: Machine, objcg: ObjCgroup, nr_bytes: int, allow_uncharge: bool) -> None:
    """Keep bytes of charged pages on this CPU; whole pages among them are uncharged.

    Mirrors mm/memcontrol.c:refill_obj_stock().
    """
    stock = m.memcg.memcg_stock[m.this_cpu]
    old = None
    nr_pages = 0
    if stock.cached_objcg is not objcg:
        old = _cache_objcg(m, objcg)
        allow_uncharge = True
    stock.nr_bytes += nr_bytes
    if allow_uncharge and stock.nr_bytes > PAGE_SIZE:
        nr_pages, stock.nr_bytes = divmod(stock.nr_bytes, PAGE_SIZE)
    obj_cgroup_put(old)
    if nr_pages:
        obj_cgroup_uncharge_pages(objcg, nr_pages)


def obj_cgroup_charge(m: Machine, objcg: ObjCgroup, gfp: int, size: int) -> int:
    """Charge @size bytes: from the CPU's bytes, else whole pages of which it keeps the rest.

    :param size: ``size_t``; for a slab object its size and 8 more for the pointer to @objcg
    :return: 0 or -ENOMEM

    Mirrors mm/memcontrol.c:obj_cgroup_charge().
    """
    if size <= 0:
        raise UsageError(f"size is {size}; an object has 1 or more bytes")
    if consume_obj_stock(m, objcg, size):
        return 0
    nr_pages, nr_bytes = divmod(size, PAGE_SIZE)
    if nr_bytes:
        nr_pages += 1
    ret = obj_cgroup_charge_pages(objcg, gfp, nr_pages)
    if not ret and nr_bytes:
        refill_obj_stock(m, objcg, PAGE_SIZE - nr_bytes, False)
    return ret


def obj_cgroup_uncharge(m: Machine, objcg: ObjCgroup, size: int) -> None:
    """Take back the charge of @size bytes.

    Mirrors mm/memcontrol.c:obj_cgroup_uncharge().
    """
    refill_obj_stock(m, objcg, size, True)


def mem_cgroup_charge_skmem(memcg: MemCgroup, nr_pages: int, gfp_mask: int) -> bool:
    """Charge socket memory; tell whether it fits.

    Mirrors mm/memcontrol.c:mem_cgroup_charge_skmem().
    """
    if try_charge(memcg, gfp_mask, nr_pages):
        return False
    mod_memcg_state(memcg, MEMCG_SOCK, nr_pages)
    return True


def mem_cgroup_uncharge_skmem(memcg: MemCgroup, nr_pages: int) -> None:
    """Uncharge socket memory; the CPU keeps it for the group.

    Mirrors mm/memcontrol.c:mem_cgroup_uncharge_skmem().
    """
    mod_memcg_state(memcg, MEMCG_SOCK, -nr_pages)
    refill_stock(memcg, nr_pages)


# ---- swap ----------------------------------------------------------------------------------------


def swap_cgroup_record(m: Machine, entry: int, id: int, nr_ents: int) -> int:
    """Write who was charged for swap entries; return who was before.

    :raises KernelBug: if the entries belonged to different groups

    Mirrors mm/swap_cgroup.c:swap_cgroup_record().
    """
    table = m.memcg.swap_cgroup
    old = table.get(entry, 0)
    for each in range(entry, entry + nr_ents):
        if table.get(each, 0) != old:
            raise KernelBug(f"swap entries {entry:#x} and {each:#x} belong to different groups")
        if id:
            table[each] = id
        else:
            table.pop(each, None)
    return old


def lookup_swap_cgroup_id(m: Machine, entry: int) -> int:
    """Return the number of the group that was charged for a swap entry, 0 for none.

    Mirrors mm/swap_cgroup.c:lookup_swap_cgroup_id().
    """
    return m.memcg.swap_cgroup.get(entry, 0)


def mem_cgroup_from_id(m: Machine, id: int) -> MemCgroup | None:
    """Return the group with that number, if it still has it.

    Mirrors mm/memcontrol.c:mem_cgroup_from_id().
    """
    return m.memcg.mem_cgroup_ids.get(id)


def mem_cgroup_id_put_many(memcg: MemCgroup, n: int) -> None:
    """Give back references to the group's number; without any it is free for another group.

    Mirrors mm/memcontrol.c:mem_cgroup_id_put_many().
    """
    if memcg.id_ref < n:
        raise KernelBug(f"{memcg!r} gives back {n} references to its number, has {memcg.id_ref}")
    memcg.id_ref -= n
    if not memcg.id_ref:
        mem_cgroup_id_remove(memcg)
        css_put(memcg.css)


def mem_cgroup_id_remove(memcg: MemCgroup) -> None:
    """Let another group have the number.

    Mirrors mm/memcontrol.c:mem_cgroup_id_remove().
    """
    state = memcg.machine.memcg
    if memcg.id_id > 0:
        state.mem_cgroup_ids.pop(memcg.id_id, None)
        state.lowest_free_id = min(state.lowest_free_id, memcg.id_id)
        memcg.id_id = 0


def mem_cgroup_id_get_online(memcg: MemCgroup) -> MemCgroup:
    """Take a reference to the number of the group, or of its nearest ancestor that has one.

    Mirrors mm/memcontrol.c:mem_cgroup_id_get_online().
    """
    while not memcg.id_ref:
        memcg = parent_mem_cgroup(memcg) or root_mem_cgroup(memcg.machine)
    memcg.id_ref += 1
    return memcg


def mem_cgroup_try_charge_swap(folio: Folio, entry: int) -> int:
    """Charge a folio's group for swap entries.

    :param entry: the first entry; 0 when there was no space, which is an event
    :return: 0, also when nobody pays, or -ENOMEM

    Mirrors mm/memcontrol.c:__mem_cgroup_try_charge_swap().
    """
    nr_pages = folio_nr_pages(folio)
    memcg = folio_memcg(folio)
    if memcg is None:
        return 0
    if not entry:
        memcg_memory_event(memcg, MEMCG_SWAP_FAIL)
        return 0
    memcg = mem_cgroup_id_get_online(memcg)
    if not mem_cgroup_is_root(memcg) and not page_counter_try_charge(memcg.swap, nr_pages, []):
        memcg_memory_event(memcg, MEMCG_SWAP_MAX)
        memcg_memory_event(memcg, MEMCG_SWAP_FAIL)
        mem_cgroup_id_put_many(memcg, 1)
        return -ENOMEM
    memcg.id_ref += nr_pages - 1
    if swap_cgroup_record(memcg.machine, entry, memcg.id_id, nr_pages):
        raise KernelBug(f"swap entry {entry:#x} is charged already")
    mod_memcg_state(memcg, MEMCG_SWAP, nr_pages)
    return 0


def mem_cgroup_uncharge_swap(m: Machine, entry: int, nr_pages: int) -> None:
    """Uncharge swap entries that are free now.

    Mirrors mm/memcontrol.c:__mem_cgroup_uncharge_swap().
    """
    memcg = mem_cgroup_from_id(m, swap_cgroup_record(m, entry, 0, nr_pages))
    if memcg is None:
        return
    if not mem_cgroup_is_root(memcg):
        page_counter_uncharge(memcg.swap, nr_pages)
    mod_memcg_state(memcg, MEMCG_SWAP, -nr_pages)
    mem_cgroup_id_put_many(memcg, nr_pages)


def mem_cgroup_swapin_charge_folio(folio: Folio, mm: Any, gfp: int, entry: int) -> int:
    """Charge a folio that is read from swap to the group that was charged for the swap entry.

    If that group was removed, to the one of the address space.

    :return: 0 or -ENOMEM

    Mirrors mm/memcontrol.c:mem_cgroup_swapin_charge_folio().
    """
    m = folio.zone.machine
    if mem_cgroup_disabled(m):
        return 0
    memcg = mem_cgroup_from_id(m, lookup_swap_cgroup_id(m, entry))
    if memcg is None or not cg.css_tryget_online(memcg.css):
        memcg = get_mem_cgroup_from_mm(m, mm)
    assert memcg is not None
    ret = charge_memcg(folio, memcg, gfp)
    css_put(memcg.css)
    return ret


def mem_cgroup_get_nr_swap_pages(m: Machine, memcg: MemCgroup | None) -> int:
    """Return how many swap slots a group can still get; may be below 0.

    Mirrors mm/memcontrol.c:mem_cgroup_get_nr_swap_pages().
    """
    nr_swap_pages = m.nr_swap_pages
    at = memcg
    while at is not None and not mem_cgroup_is_root(at):
        nr_swap_pages = min(nr_swap_pages, at.swap.max - at.swap.usage)
        at = parent_mem_cgroup(at)
    return nr_swap_pages


def mem_cgroup_swap_full(folio: Folio) -> bool:
    """Tell whether swap space is short, so that a slot is freed once its folio is back in memory.

    Mirrors mm/memcontrol.c:mem_cgroup_swap_full().
    """
    m = folio.zone.machine
    if m.nr_swap_pages * 2 < m.total_swap_pages:  # vm_swap_full()
        return True
    at = folio_memcg(folio)
    while at is not None and not mem_cgroup_is_root(at):
        usage = at.swap.usage
        if usage * 2 >= at.swap.high or usage * 2 >= at.swap.max:
            return True
        at = parent_mem_cgroup(at)
    return False


# ---- zswap ---------------------------------------------------------------------------------------


def obj_cgroup_may_zswap(objcg: ObjCgroup) -> bool:
    """Tell whether the group and its ancestors are below their memory.zswap.max.

    Mirrors mm/memcontrol.c:obj_cgroup_may_zswap().
    """
    at: MemCgroup | None = objcg.memcg
    while at is not None and not mem_cgroup_is_root(at):
        limit = at.zswap_max
        if limit == 0:
            return False
        if limit != PAGE_COUNTER_MAX:
            do_flush_stats(at)
            if memcg_page_state(at, MEMCG_ZSWAP_B) // PAGE_SIZE >= limit:
                return False
        at = parent_mem_cgroup(at)
    return True


def obj_cgroup_charge_zswap(m: Machine, objcg: ObjCgroup, size: int) -> None:
    """Charge compressed data; the caller runs with PF_MEMALLOC, so that it cannot fail.

    :raises KernelBug: if it fails

    Mirrors mm/memcontrol.c:obj_cgroup_charge_zswap().
    """
    if obj_cgroup_charge(m, objcg, GFP_KERNEL, size):
        raise KernelBug("obj_cgroup_charge_zswap() could not charge")
    mod_memcg_state(objcg.memcg, MEMCG_ZSWAP_B, size)
    mod_memcg_state(objcg.memcg, MEMCG_ZSWAPPED, 1)


def obj_cgroup_uncharge_zswap(m: Machine, objcg: ObjCgroup, size: int) -> None:
    """Uncharge compressed data.

    Mirrors mm/memcontrol.c:obj_cgroup_uncharge_zswap().
    """
    obj_cgroup_uncharge(m, objcg, size)
    mod_memcg_state(objcg.memcg, MEMCG_ZSWAP_B, -size)
    mod_memcg_state(objcg.memcg, MEMCG_ZSWAPPED, -1)


def mem_cgroup_zswap_writeback_enabled(memcg: MemCgroup | None) -> bool:
    """Tell whether zswap may write the group's pages to the swap device.

    Mirrors mm/memcontrol.c:mem_cgroup_zswap_writeback_enabled().
    """
    if memcg is None or not memcg.machine.memcg.zswap:
        return True
    at: MemCgroup | None = memcg
    while at is not None:
        if not at.zswap_writeback:
            return False
        at = parent_mem_cgroup(at)
    return True


# ---- protection ----------------------------------------------------------------------------------


def mem_cgroup_calculate_protection(m: Machine, root: MemCgroup | None, memcg: MemCgroup) -> None:
    """Set the group's effective min and low for a reclaim that starts at @root (None: everywhere).

    Mirrors mm/memcontrol.c:mem_cgroup_calculate_protection().
    """
    if mem_cgroup_disabled(m):
        return
    assert m.cgrp_dfl_root is not None
    recursive = m.cgrp_dfl_root.flags & cg.CGRP_ROOT_MEMORY_RECURSIVE_PROT != 0
    root = root or root_mem_cgroup(m)
    page_counter_calculate_protection(root.memory, memcg.memory, recursive)


def mem_cgroup_unprotected(target: MemCgroup | None, memcg: MemCgroup) -> bool:
    """Tell whether protection does not count: for the root, and for the target of a reclaim.

    Mirrors include/linux/memcontrol.h:mem_cgroup_unprotected().
    """
    return mem_cgroup_is_root(memcg) or memcg is target


def mem_cgroup_below_low(target: MemCgroup | None, memcg: MemCgroup) -> bool:
    """Tell whether all of the group's memory is within its effective low.

    Mirrors include/linux/memcontrol.h:mem_cgroup_below_low().
    """
    if mem_cgroup_unprotected(target, memcg):
        return False
    return memcg.memory.elow >= memcg.memory.usage


def mem_cgroup_below_min(target: MemCgroup | None, memcg: MemCgroup) -> bool:
    """Tell whether all of the group's memory is within its effective min.

    Mirrors include/linux/memcontrol.h:mem_cgroup_below_min().
    """
    if mem_cgroup_unprotected(target, memcg):
        return False
    return memcg.memory.emin >= memcg.memory.usage


def mem_cgroup_protection(root: MemCgroup | None, memcg: MemCgroup) -> tuple[int, int]:
    """Return the group's effective min and low; none for the target of a reclaim.

    Mirrors include/linux/memcontrol.h:mem_cgroup_protection().
    """
    if root is memcg:
        return 0, 0
    return memcg.memory.emin, memcg.memory.elow


# ---- the OOM killer's questions ------------------------------------------------------------------


def mem_cgroup_get_oom_group(
    m: Machine, victim: Any, oom_domain: MemCgroup | None
) -> MemCgroup | None:
    """Return the highest group with memory.oom.group set between a victim and @oom_domain.

    :param oom_domain: the group that ran out of memory; None for the whole machine
    :return: the group whose tasks all die, with a reference; None: the victim alone

    Mirrors mm/memcontrol.c:mem_cgroup_get_oom_group().
    """
    if mem_cgroup_disabled(m):
        return None
    domain = oom_domain or root_mem_cgroup(m)
    memcg = mem_cgroup_from_task(m, victim)
    if memcg is None or mem_cgroup_is_root(memcg):
        return None
    if not mem_cgroup_is_descendant(memcg, domain):
        return None
    oom_group = None
    at: MemCgroup | None = memcg
    while at is not None:
        if at.oom_group:
            oom_group = at
        if at is domain:
            break
        at = parent_mem_cgroup(at)
    if oom_group is not None:
        css_get(oom_group.css)
    return oom_group


def mem_cgroup_print_oom_context(m: Machine, memcg: MemCgroup | None, p: Any) -> str:
    """Return what the OOM killer's summary line says about groups.

    Mirrors mm/memcontrol.c:mem_cgroup_print_oom_context().
    """
    text = ",global_oom" if memcg is None else f",oom_memcg={memcg.path}"
    if p is not None:
        text += f",task_memcg={cg.cgroup_path(cg.task_cgroup(m, p))}"
    return text


def mem_cgroup_print_oom_meminfo(memcg: MemCgroup) -> list[str]:
    """Return the lines about the group that ran out of memory.

    Mirrors mm/memcontrol.c:mem_cgroup_print_oom_meminfo().
    """
    lines = [
        f"{name}: usage {c.usage << 2}kB, limit {c.max << 2}kB, failcnt {c.failcnt}"
        for name, c in (("memory", memcg.memory), ("swap", memcg.swap))
    ]
    lines.append(f"Memory cgroup stats for {memcg.path}:")
    return lines + memcg_stat_format(memcg).splitlines()


def mem_cgroup_print_oom_group(memcg: MemCgroup) -> str:
    """Return the line that announces the death of a whole group.

    Mirrors mm/memcontrol.c:mem_cgroup_print_oom_group().
    """
    return f"Tasks in {memcg.path} are going to be killed due to memory.oom.group set"


# ---- writeback -----------------------------------------------------------------------------------


def mem_cgroup_wb_stats(memcg: MemCgroup) -> tuple[int, int, int, int]:
    """Return what dirty throttling needs to know of a group, in pages.

    :return: (file pages, headroom, dirty, under writeback); headroom is the least that the group and its
        ancestors below the root have left of the smaller of max and high

    Mirrors mm/memcontrol.c:mem_cgroup_wb_stats().
    """
    m = memcg.machine
    mem_cgroup_flush_stats_ratelimited(m, memcg)
    filepages = memcg_page_state(memcg, vs.NR_INACTIVE_FILE)
    filepages += memcg_page_state(memcg, vs.NR_ACTIVE_FILE)
    headroom = PAGE_COUNTER_MAX
    at, parent = memcg, parent_mem_cgroup(memcg)
    while parent is not None:
        ceiling = min(at.memory.max, at.memory.high)
        headroom = min(headroom, ceiling - min(ceiling, at.memory.usage))
        at, parent = parent, parent_mem_cgroup(parent)
    dirty = memcg_page_state(memcg, vs.NR_FILE_DIRTY)
    return filepages, headroom, dirty, memcg_page_state(memcg, vs.NR_WRITEBACK)


# ---- a group's life ------------------------------------------------------------------------------


def _css_hooks(memcg: MemCgroup, when: str) -> None:
    for hook in memcg.machine.memcg.hooks.css_hooks.get(when, ()):
        hook(memcg)


def mem_cgroup_alloc_id(m: Machine, memcg: MemCgroup) -> int:
    """Give the group the lowest free number.

    :return: 0, or -EBUSY when all 65535 are taken

    Mirrors mm/memcontrol.c:mem_cgroup_alloc().
    """
    state = m.memcg
    id = state.lowest_free_id
    while id in state.mem_cgroup_ids:
        id += 1
    if id > MEM_CGROUP_ID_MAX:
        return -EBUSY
    state.mem_cgroup_ids[id] = memcg
    state.lowest_free_id = id + 1
    memcg.id_id = id
    return 0


def mem_cgroup_css_alloc(css: CgroupSubsysState) -> int:
    """Make a group.

    Mirrors mm/memcontrol.c:mem_cgroup_css_alloc().
    """
    m = css.cgroup.root.machine
    memcg = css.container = MemCgroup(m, css)
    err = mem_cgroup_alloc_id(m, memcg)
    if err:
        return err
    parent = parent_mem_cgroup(memcg)
    page_counter_set_high(memcg.memory, PAGE_COUNTER_MAX)
    page_counter_set_high(memcg.swap, PAGE_COUNTER_MAX)
    page_counter_init(memcg.memory, None if parent is None else parent.memory, True)
    page_counter_init(memcg.swap, None if parent is None else parent.swap, False)
    if parent is None:
        m.memcg.root_mem_cgroup = memcg
    else:
        memcg.swappiness = mem_cgroup_swappiness(parent)
    for nid in sorted(m.node_data):
        memcg.nodeinfo[nid] = MemCgroupPerNode(memcg, nid)
    return 0


def mem_cgroup_css_online(css: CgroupSubsysState) -> int:
    """Let a new group be charged; its number holds a reference to it.

    Mirrors mm/memcontrol.c:mem_cgroup_css_online().
    """
    memcg: MemCgroup = css.container
    if not mem_cgroup_is_root(memcg) and not memcg.machine.memcg.cgroup_memory_nokmem:
        memcg.objcg = memcg.orig_objcg = ObjCgroup(memcg)
        obj_cgroup_get(memcg.objcg)
    _css_hooks(memcg, "online")
    memcg.id_ref = 1
    css_get(css)
    return 0


def mem_cgroup_css_offline(css: CgroupSubsysState) -> None:
    """Take a removed group out of service: no protection, kernel memory to the parent, stocks empty.

    Pages on LRU lists stay charged to it.

    Mirrors mm/memcontrol.c:mem_cgroup_css_offline().
    """
    memcg: MemCgroup = css.container
    page_counter_set_min(memcg.memory, 0)
    page_counter_set_low(memcg.memory, 0)
    parent = parent_mem_cgroup(memcg)
    assert parent is not None
    memcg_reparent_objcgs(memcg, parent)
    _css_hooks(memcg, "offline")
    drain_all_stock(memcg)
    mem_cgroup_id_put_many(memcg, 1)


def mem_cgroup_css_released(css: CgroupSubsysState) -> None:
    """Let no walk stand at a group that nothing holds any more.

    Mirrors mm/memcontrol.c:mem_cgroup_css_released().
    """
    invalidate_reclaim_iterators(css.container)
    _css_hooks(css.container, "released")


def mem_cgroup_css_free(css: CgroupSubsysState) -> None:
    """Free a group.

    Mirrors mm/memcontrol.c:mem_cgroup_css_free().
    """
    memcg: MemCgroup = css.container
    _css_hooks(memcg, "free")
    obj_cgroup_put(memcg.orig_objcg)
    memcg.orig_objcg = None


def mem_cgroup_css_reset(memcg: MemCgroup) -> None:
    """Take all limits and protection off a group.

    Mirrors mm/memcontrol.c:mem_cgroup_css_reset().
    """
    page_counter_set_max(memcg.memory, PAGE_COUNTER_MAX)
    page_counter_set_max(memcg.swap, PAGE_COUNTER_MAX)
    page_counter_set_min(memcg.memory, 0)
    page_counter_set_low(memcg.memory, 0)
    page_counter_set_high(memcg.memory, PAGE_COUNTER_MAX)
    page_counter_set_high(memcg.swap, PAGE_COUNTER_MAX)


def mem_cgroup_attach(task: Any) -> None:
    """Let a task that was moved look for its object cgroup anew.

    Simplified: no list of address spaces for MGLRU's page table walks.

    Mirrors mm/memcontrol.c:mem_cgroup_attach().
    """
    task.objcg_update = True


def mem_cgroup_fork(task: Any) -> None:
    """Let a new task look for its object cgroup when it first needs one.

    Mirrors mm/memcontrol.c:mem_cgroup_fork().
    """
    task.objcg = None
    task.objcg_update = True


def mem_cgroup_exit(task: Any) -> None:
    """Give back a task's reference to its object cgroup.

    Mirrors mm/memcontrol.c:mem_cgroup_exit().
    """
    obj_cgroup_put(task.objcg)
    task.objcg = None
    task.objcg_update = False


def mem_cgroup_init(m: Machine, options: str = "") -> MemCgroup:
    """Give a machine memory cgroups: the unified hierarchy with its root group.

    :param options: how it is mounted: ``memory_recursiveprot``, ``memory_localevents``,
        ``memory_hugetlb_accounting``, separated by commas
    :raises UsageError: for another option, or if the machine has them already

    Mirrors mm/memcontrol.c:mem_cgroup_init().
    """
    if not mem_cgroup_disabled(m):
        raise UsageError("this machine has memory cgroups already")
    m.memcg.memcg_stock = [MemcgStockPcp() for _ in range(m.cpus)]
    memory_cgrp_subsys = CgroupSubsys(
        name="memory",
        css_alloc=mem_cgroup_css_alloc,
        css_online=mem_cgroup_css_online,
        css_offline=mem_cgroup_css_offline,
        css_released=mem_cgroup_css_released,
        css_free=mem_cgroup_css_free,
        css_rstat_flush=mem_cgroup_css_rstat_flush,
        attach=mem_cgroup_attach,
        fork=mem_cgroup_fork,
        exit=mem_cgroup_exit,
    )
    cg.cgroup_init(m, [memory_cgrp_subsys], options)
    return root_mem_cgroup(m)


def cgroup_memory(m: Machine, s: str) -> None:
    """Take the boot option ``cgroup.memory=``: nokmem, nosocket.

    Mirrors mm/memcontrol.c:cgroup_memory().
    """
    for token in s.split(","):
        if token == "nokmem":
            m.memcg.cgroup_memory_nokmem = True
        elif token == "nosocket":
            m.memcg.cgroup_memory_nosocket = True


def memcg_of(cgrp: Cgroup) -> MemCgroup:
    """Return the group of a directory that has the memory controller.

    :raises UsageError: if it has not
    """
    css = cgrp.subsys.get("memory")
    if css is None:
        raise UsageError(f"{cg.cgroup_path(cgrp)} has no memory controller of its own")
    memcg: MemCgroup = css.container
    return memcg


# ---- writing to the files ------------------------------------------------------------------------
# Each takes what was written and returns its length, or -errno.


def _no_end(what: str, memcg: MemCgroup) -> KernelBug:
    return KernelBug(
        f"{what} of {memcg.path} does not end: reclaim or the OOM killer report progress, and its usage "
        f"stays at {memcg.memory.usage} pages"
    )


def memory_min_write(memcg: MemCgroup, buf: str) -> int:
    """Set memory.min.

    Mirrors mm/memcontrol.c:memory_min_write().
    """
    err, nr_pages = page_counter_memparse(strstrip(buf))
    if err:
        return err
    page_counter_set_min(memcg.memory, nr_pages)
    return len(buf)


def memory_low_write(memcg: MemCgroup, buf: str) -> int:
    """Set memory.low.

    Mirrors mm/memcontrol.c:memory_low_write().
    """
    err, nr_pages = page_counter_memparse(strstrip(buf))
    if err:
        return err
    page_counter_set_low(memcg.memory, nr_pages)
    return len(buf)


def memory_high_write(memcg: MemCgroup, buf: str) -> int:
    """Set memory.high, and reclaim what is above it, as far as reclaim gets in 17 fruitless attempts.

    Mirrors mm/memcontrol.c:memory_high_write().
    """
    m = memcg.machine
    err, high = page_counter_memparse(strstrip(buf))
    if err:
        return err
    page_counter_set_high(memcg.memory, high)
    nr_retries = MAX_RECLAIM_RETRIES
    drained = False
    for _ in range(NO_END):
        nr_pages = page_counter_read(memcg.memory)
        if high != memcg.memory.high or nr_pages <= high or _signal_pending(m):
            return len(buf)
        if not drained:
            drain_all_stock(memcg)
            drained = True
            continue
        reclaimed = _try_to_free(memcg, nr_pages - high, GFP_KERNEL, MEMCG_RECLAIM_MAY_SWAP)
        if not reclaimed:
            if not nr_retries:
                return len(buf)
            nr_retries -= 1
    raise _no_end("memory.high", memcg)


def memory_max_write(memcg: MemCgroup, buf: str) -> int:
    """Set memory.max at once, then reclaim and finally kill until the group is below it.

    Mirrors mm/memcontrol.c:memory_max_write().
    """
    m = memcg.machine
    err, limit = page_counter_memparse(strstrip(buf))
    if err:
        return err
    memcg.memory.max = limit
    nr_reclaims = MAX_RECLAIM_RETRIES
    drained = False
    for _ in range(NO_END):
        nr_pages = page_counter_read(memcg.memory)
        if limit != memcg.memory.max or nr_pages <= limit or _signal_pending(m):
            return len(buf)
        if not drained:
            drain_all_stock(memcg)
            drained = True
            continue
        if nr_reclaims:
            if not _try_to_free(memcg, nr_pages - limit, GFP_KERNEL, MEMCG_RECLAIM_MAY_SWAP):
                nr_reclaims -= 1
            continue
        memcg_memory_event(memcg, MEMCG_OOM)
        if not mem_cgroup_out_of_memory(memcg, GFP_KERNEL, 0):
            return len(buf)
    raise _no_end("memory.max", memcg)


def _parse_reclaim(buf: str) -> tuple[int, int, int | None]:
    """Read what was written to memory.reclaim: (0 or -EINVAL, pages, swappiness)."""
    buf = strstrip(buf)
    size, rest = memparse(buf)
    if rest == buf:
        return -EINVAL, 0, None
    swappiness: int | None = None
    for word in strstrip(rest).split(" "):
        if not word:
            continue
        name, equals, value = word.partition("=")
        if name != "swappiness" or not equals:
            return -EINVAL, 0, None
        err, swappiness = match_int(value)
        if err or not MIN_SWAPPINESS <= swappiness <= MAX_SWAPPINESS:
            return -EINVAL, 0, None
    return 0, size // PAGE_SIZE, swappiness


def memory_reclaim(memcg: MemCgroup, buf: str) -> int:
    """Reclaim what memory.reclaim was asked for: "1G" or "1G swappiness=60".

    Each call of reclaim is asked for a quarter of what is left; reclaim does at least 32 pages.

    :return: the length, -EINVAL, -EINTR after a signal, -EAGAIN when it got less

    Mirrors mm/memcontrol.c:memory_reclaim().
    """
    m = memcg.machine
    err, nr_to_reclaim, swappiness = _parse_reclaim(buf)
    if err:
        return err
    nr_retries = MAX_RECLAIM_RETRIES
    nr_reclaimed = 0
    options = MEMCG_RECLAIM_MAY_SWAP | MEMCG_RECLAIM_PROACTIVE
    while nr_reclaimed < nr_to_reclaim:
        if _signal_pending(m):
            return -EINTR
        if not nr_retries:
            m.memcg.hooks.lru_add_drain_all(m)
        batch_size = (nr_to_reclaim - nr_reclaimed) // 4
        reclaimed = _try_to_free(memcg, batch_size, GFP_KERNEL, options, swappiness)
        if not reclaimed:
            if not nr_retries:
                return -EAGAIN
            nr_retries -= 1
        nr_reclaimed += reclaimed
    return len(buf)


def memory_oom_group_write(memcg: MemCgroup, buf: str) -> int:
    """Set memory.oom.group to 0 or 1.

    Mirrors mm/memcontrol.c:memory_oom_group_write().
    """
    err, oom_group = kstrtoint(strstrip(buf), 0)
    if err:
        return err
    if oom_group not in (0, 1):
        return -EINVAL
    memcg.oom_group = bool(oom_group)
    return len(buf)


def swap_high_write(memcg: MemCgroup, buf: str) -> int:
    """Set memory.swap.high.

    Mirrors mm/memcontrol.c:swap_high_write().
    """
    err, high = page_counter_memparse(strstrip(buf))
    if err:
        return err
    page_counter_set_high(memcg.swap, high)
    return len(buf)


def swap_max_write(memcg: MemCgroup, buf: str) -> int:
    """Set memory.swap.max; what is in swap already stays there.

    Mirrors mm/memcontrol.c:swap_max_write().
    """
    err, limit = page_counter_memparse(strstrip(buf))
    if err:
        return err
    memcg.swap.max = limit
    return len(buf)


def zswap_max_write(memcg: MemCgroup, buf: str) -> int:
    """Set memory.zswap.max.

    Mirrors mm/memcontrol.c:zswap_max_write().
    """
    err, limit = page_counter_memparse(strstrip(buf))
    if err:
        return err
    memcg.zswap_max = limit
    return len(buf)


def zswap_writeback_write(memcg: MemCgroup, buf: str) -> int:
    """Set memory.zswap.writeback to 0 or 1.

    Mirrors mm/memcontrol.c:zswap_writeback_write().
    """
    err, value = kstrtoint(strstrip(buf), 0)
    if err:
        return err
    if value not in (0, 1):
        return -EINVAL
    memcg.zswap_writeback = bool(value)
    return len(buf)


def peak_open(memcg: MemCgroup, swap: bool = False) -> CgroupOfPeak:
    """Open memory.peak, or memory.swap.peak.

    Mirrors mm/memcontrol.c:peak_open().
    """
    return CgroupOfPeak(memcg, swap)


def peak_show(ofp: CgroupOfPeak) -> str:
    """Return the text of an open peak file: of all time, or since it was written to.

    Mirrors mm/memcontrol.c:peak_show().
    """
    counter = ofp.memcg.swap if ofp.swap else ofp.memcg.memory
    peak = counter.watermark
    if ofp.value != OFP_PEAK_UNSET:
        peak = max(ofp.value, counter.local_watermark)
    return f"{peak * PAGE_SIZE}\n"


def peak_write(ofp: CgroupOfPeak, buf: str) -> int:
    """Start the peak of this open file again; other open files keep theirs.

    Mirrors mm/memcontrol.c:peak_write().
    """
    memcg = ofp.memcg
    counter = memcg.swap if ofp.swap else memcg.memory
    watchers = memcg.swap_peaks if ofp.swap else memcg.memory_peaks
    usage = counter.local_watermark = counter.usage
    for peer in watchers:
        peer.value = max(usage, peer.value)
    if ofp.value == OFP_PEAK_UNSET:
        watchers.insert(0, ofp)
    ofp.value = usage
    return len(buf)


def peak_release(ofp: CgroupOfPeak) -> None:
    """Close a peak file.

    Mirrors mm/memcontrol.c:peak_release().
    """
    if ofp.value != OFP_PEAK_UNSET:
        (ofp.memcg.swap_peaks if ofp.swap else ofp.memcg.memory_peaks).remove(ofp)
        ofp.value = OFP_PEAK_UNSET


# ---- checking ------------------------------------------------------------------------------------


def _tree(css: CgroupSubsysState) -> list[MemCgroup]:
    """Return a group and all below it that are not freed, dying ones included; parents first."""
    found, at = [], [css]
    while at:
        css = at.pop()
        found.append(css.container)
        at += reversed(list(css.children))
    return found


def _charged(
    m: Machine,
    charges: Iterable[tuple[MemCgroup, int]],
    objects: Iterable[tuple[ObjCgroup, int]],
) -> dict[int, int]:
    """Add up the pages that are charged, by the id of the group's css."""
    pages: dict[int, int] = {}
    objcgs: dict[int, tuple[ObjCgroup, int]] = {}

    def add(memcg: MemCgroup, nr: int) -> None:
        pages[memcg.css.id] = pages.get(memcg.css.id, 0) + nr

    for memcg, nr in charges:
        add(memcg, nr)
    for nid in sorted(m.node_data):
        for zone in m.node_data[nid].node_zones:
            for page in zone.mem_map.values():
                data = page.memcg_data
                if data is not None and not (page.prev is None and page.next is not None):
                    kmem = type(data) is ObjCgroup
                    add(data.memcg if kmem else data, folio_nr_pages(page))
    for stock in m.memcg.memcg_stock:
        if stock.cached is not None:
            add(stock.cached, stock.nr_pages)
        if stock.cached_objcg is not None:
            objects = [*objects, (stock.cached_objcg, stock.nr_bytes)]
    known: list[ObjCgroup] = []
    for objcg, size in objects:
        old = objcgs.get(id(objcg), (objcg, 0))[1]
        objcgs[id(objcg)] = (objcg, old + size)
    for memcg in _tree(root_mem_cgroup(m).css):
        known += [*memcg.objcg_list, *([memcg.objcg] if memcg.objcg else [])]
    for objcg in known:
        objcgs.setdefault(id(objcg), (objcg, 0))
    for objcg, size in objcgs.values():
        size += objcg.nr_charged_bytes
        if size % PAGE_SIZE:
            raise KernelBug(f"{objcg!r}: {size} bytes of objects and rests are not whole pages")
        add(objcg.memcg, size // PAGE_SIZE)
    return pages


def validate_memcg(
    m: Machine,
    charges: Iterable[tuple[MemCgroup, int]] = (),
    objects: Iterable[tuple[ObjCgroup, int]] = (),
) -> None:
    """Check all groups: usage against what is charged, protected sums, stocks, references, numbers.

    Folios of the machine are counted by looking at each; what was charged without a folio must be named.

    :param charges: pages charged with try_charge() that no folio has: (group, pages)
    :param objects: bytes charged with obj_cgroup_charge(): (object cgroup, bytes)
    :raises KernelBug: naming what does not add up
    """
    root = root_mem_cgroup(m)
    groups = _tree(root.css)
    own = _charged(m, charges, objects)
    subtree: dict[int, int] = {}
    for memcg in reversed(groups):
        below = [css.container for css in memcg.css.children]
        total = own.get(memcg.css.id, 0) + sum(subtree[c.css.id] for c in below)
        subtree[memcg.css.id] = total
        usage = memcg.memory.usage
        # Kernel memory of a removed group is uncharged at its parent; its own counter keeps it.
        if usage != total and not (usage > total and not mem_cgroup_online(memcg)):
            raise KernelBug(f"{memcg!r}: usage {usage}, charged {total}")
        _validate_counters(memcg, below)
    for cpu, stock in enumerate(m.memcg.memcg_stock):
        if not 0 <= stock.nr_pages <= MEMCG_CHARGE_BATCH or stock.nr_bytes < 0:
            raise KernelBug(f"CPU {cpu} keeps {stock.nr_pages} pages, {stock.nr_bytes} bytes")
        if stock.nr_pages and stock.cached is None:
            raise KernelBug(f"CPU {cpu} keeps {stock.nr_pages} pages of nobody")
    swap: dict[int, int] = {}
    for owner in m.memcg.swap_cgroup.values():
        swap[owner] = swap.get(owner, 0) + 1
    for memcg in groups:
        held = swap.get(memcg.id_id, 0) + (1 if mem_cgroup_online(memcg) else 0)
        if memcg.id_ref != held:
            raise KernelBug(f"{memcg!r}: {memcg.id_ref} references to its number, {held} users")
        if memcg.id_id and m.memcg.mem_cgroup_ids.get(memcg.id_id) is not memcg:
            raise KernelBug(f"{memcg!r}: its number {memcg.id_id} names another group")
    cg.validate_cgroup(root.css.cgroup)


def _validate_counters(memcg: MemCgroup, below: list[MemCgroup]) -> None:
    """Check the counters of one group against those of its children."""
    counter = memcg.memory
    if not counter.local_watermark <= counter.watermark >= counter.usage:
        raise KernelBug(f"{memcg!r}: watermarks {counter.local_watermark}, {counter.watermark}")
    for child in below:
        c = child.memory
        wanted = (min(c.usage, c.min), min(c.usage, c.low))
        if (c.min_usage, c.low_usage) != wanted:
            raise KernelBug(
                f"{child!r}: protected usage {c.min_usage}, {c.low_usage}, not {wanted}"
            )
    sums = (
        sum(c.memory.min_usage for c in below),
        sum(c.memory.low_usage for c in below),
    )
    if (counter.children_min_usage, counter.children_low_usage) != sums:
        raise KernelBug(f"{memcg!r}: the children's protected usage is {sums}")
    if memcg.swap.usage < sum(c.swap.usage for c in below):
        raise KernelBug(f"{memcg!r}: less swap than its children")
    if memcg.css.refcnt <= 0 and not mem_cgroup_is_root(memcg):
        raise KernelBug(f"{memcg!r} is in the tree without a reference")


__all__ = [
    "CgroupOfPeak",
    "LruvecStats",
    "LruvecStatsPercpu",
    "MemCgroup",
    "MemCgroupPerNode",
    "MemCgroupReclaimCookie",
    "MemCgroupReclaimIter",
    "MemcgHooks",
    "MemcgState",
    "MemcgStockPcp",
    "MemcgVmstats",
    "MemcgVmstatsPercpu",
    "ObjCgroup",
    "UnchargeGather",
    "active_memcg",
    "calculate_high_delay",
    "calculate_overage",
    "cgroup_memory",
    "charge_memcg",
    "commit_charge",
    "consume_obj_stock",
    "consume_stock",
    "count_memcg_event_mm",
    "count_memcg_events",
    "current_obj_cgroup",
    "current_objcg_update",
    "do_flush_stats",
    "drain_all_stock",
    "drain_local_stock",
    "drain_obj_stock",
    "drain_stock",
    "flush_memcg_stats_dwork",
    "folio_memcg",
    "folio_memcg_charged",
    "folio_memcg_kmem",
    "get_mem_cgroup_from_folio",
    "get_mem_cgroup_from_mm",
    "get_mem_cgroup_from_objcg",
    "get_obj_cgroup_from_folio",
    "high_work_func",
    "in_task",
    "invalidate_reclaim_iterators",
    "lookup_swap_cgroup_id",
    "lruvec_page_state",
    "lruvec_page_state_local",
    "lruvec_stat_mod_folio",
    "mem_cgroup_alloc_id",
    "mem_cgroup_attach",
    "mem_cgroup_below_low",
    "mem_cgroup_below_min",
    "mem_cgroup_calculate_protection",
    "mem_cgroup_cancel_charge",
    "mem_cgroup_charge",
    "mem_cgroup_charge_skmem",
    "mem_cgroup_commit_charge",
    "mem_cgroup_css_alloc",
    "mem_cgroup_css_free",
    "mem_cgroup_css_offline",
    "mem_cgroup_css_online",
    "mem_cgroup_css_released",
    "mem_cgroup_css_reset",
    "mem_cgroup_css_rstat_flush",
    "mem_cgroup_disabled",
    "mem_cgroup_exit",
    "mem_cgroup_flush_stats",
    "mem_cgroup_flush_stats_ratelimited",
    "mem_cgroup_fork",
    "mem_cgroup_from_counter",
    "mem_cgroup_from_css",
    "mem_cgroup_from_id",
    "mem_cgroup_from_task",
    "mem_cgroup_get_max",
    "mem_cgroup_get_nr_swap_pages",
    "mem_cgroup_get_oom_group",
    "mem_cgroup_handle_over_high",
    "mem_cgroup_hugetlb_try_charge",
    "mem_cgroup_id",
    "mem_cgroup_id_get_online",
    "mem_cgroup_id_put_many",
    "mem_cgroup_id_remove",
    "mem_cgroup_init",
    "mem_cgroup_is_descendant",
    "mem_cgroup_is_root",
    "mem_cgroup_iter",
    "mem_cgroup_iter_break",
    "mem_cgroup_lruvec",
    "mem_cgroup_margin",
    "mem_cgroup_migrate",
    "mem_cgroup_online",
    "mem_cgroup_oom",
    "mem_cgroup_out_of_memory",
    "mem_cgroup_print_oom_context",
    "mem_cgroup_print_oom_group",
    "mem_cgroup_print_oom_meminfo",
    "mem_cgroup_protection",
    "mem_cgroup_replace_folio",
    "mem_cgroup_scan_tasks",
    "mem_cgroup_size",
    "mem_cgroup_swap_full",
    "mem_cgroup_swapin_charge_folio",
    "mem_cgroup_swappiness",
    "mem_cgroup_try_charge_swap",
    "mem_cgroup_uncharge",
    "mem_cgroup_uncharge_folios",
    "mem_cgroup_uncharge_skmem",
    "mem_cgroup_uncharge_swap",
    "mem_cgroup_unprotected",
    "mem_cgroup_update_lru_size",
    "mem_cgroup_wb_stats",
    "mem_cgroup_zswap_writeback_enabled",
    "mem_find_max_overage",
    "memcg_events",
    "memcg_events_index",
    "memcg_kmem_charge_page",
    "memcg_kmem_uncharge_page",
    "memcg_memory_event",
    "memcg_memory_event_mm",
    "memcg_of",
    "memcg_page_state",
    "memcg_page_state_local",
    "memcg_page_state_output",
    "memcg_page_state_output_unit",
    "memcg_page_state_unit",
    "memcg_reparent_objcgs",
    "memcg_rstat_updated",
    "memcg_stat_format",
    "memcg_state_val_in_pages",
    "memcg_stats_index",
    "memcg_vmstats_needs_flush",
    "memory_high_write",
    "memory_low_write",
    "memory_max_write",
    "memory_min_write",
    "memory_oom_group_write",
    "memory_reclaim",
    "mod_lruvec_state",
    "mod_memcg_lruvec_state",
    "mod_memcg_state",
    "mod_objcg_state",
    "obj_cgroup_charge",
    "obj_cgroup_charge_pages",
    "obj_cgroup_charge_zswap",
    "obj_cgroup_get",
    "obj_cgroup_may_zswap",
    "obj_cgroup_put",
    "obj_cgroup_release",
    "obj_cgroup_uncharge",
    "obj_cgroup_uncharge_pages",
    "obj_cgroup_uncharge_zswap",
    "obj_stock_flush_required",
    "page_cgroup_ino",
    "parent_mem_cgroup",
    "peak_open",
    "peak_release",
    "peak_show",
    "peak_write",
    "reclaim_high",
    "refill_obj_stock",
    "refill_stock",
    "resume_user_mode_work",
    "root_mem_cgroup",
    "set_active_memcg",
    "split_page_memcg",
    "swap_cgroup_record",
    "swap_find_max_overage",
    "swap_high_write",
    "swap_max_write",
    "task_is_dying",
    "try_charge",
    "try_charge_memcg",
    "uncharge_batch",
    "uncharge_folio",
    "validate_memcg",
    "vm_event_name",
    "zswap_max_write",
    "zswap_writeback_write",
    "memory_stats",
    *[n for n in globals() if n.startswith(("MEMCG_", "MEM_CGROUP_ID", "ZSWP", "memcg_"))],
]
