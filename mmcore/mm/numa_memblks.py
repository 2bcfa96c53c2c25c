"""Which memory belongs to which node: the table that NUMA descriptions are reduced to.

Mirrors mm/numa_memblks.c.

Simplified: no NUMA emulation (numa=fake=).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.errors import EINVAL, ENOMEM
from mmcore.mm import memblock as mb

if TYPE_CHECKING:
    from mmcore.machine import Machine

LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20
NR_NODE_MEMBLKS = mb.MAX_NUMNODES * 2
NUMA_NO_MEMBLK = -1

__all__ = [
    "LOCAL_DISTANCE",
    "NR_NODE_MEMBLKS",
    "NUMA_NO_MEMBLK",
    "NumaMemblk",
    "NumaState",
    "REMOTE_DISTANCE",
    "numa_add_memblk",
    "numa_cleanup_meminfo",
    "numa_fill_memblks",
    "numa_memblks_init",
    "numa_nodemask_from_meminfo",
    "numa_register_meminfo",
    "numa_reset_distance",
    "numa_set_distance",
]


@dataclass(slots=True, eq=False)
class NumaMemblk:
    """``struct numa_memblk``: a range of addresses of one node.

    Mirrors include/linux/numa_memblks.h:numa_memblk.
    """

    start: int
    end: int
    nid: int


@dataclass(slots=True, eq=False)
class NumaState:
    """The file's variables, as ``m.numa``.

    :ivar meminfo: ranges with memory in them
    :ivar reserved_meminfo: ranges without: room for memory to be plugged in
    :ivar nodes_parsed: nodes that the firmware named, by memory or by CPU
    :ivar distance: the table once it exists; ``distance_cnt`` its width
    :ivar apicid_to_node: the node of each CPU, by APIC id
    """

    meminfo: list[NumaMemblk] = field(default_factory=list)
    reserved_meminfo: list[NumaMemblk] = field(default_factory=list)
    nodes_parsed: list[int] = field(default_factory=list)
    distance: list[list[int]] = field(default_factory=list)
    distance_cnt: int = 0
    distance_addr: int = 0
    apicid_to_node: dict[int, int] = field(default_factory=dict)
    pxm_to_node: dict[int, int] = field(default_factory=dict)


def node_set(nodes: list[int], nid: int) -> None:
    """Add a node to a set of nodes, which is a sorted list here.

    Mirrors include/linux/nodemask.h:node_set().
    """
    if nid not in nodes:
        nodes.append(nid)
        nodes.sort()


def numa_nodemask_from_meminfo(nodes: list[int], mi: list[NumaMemblk]) -> None:
    """Add the nodes that have memory in @mi.

    Mirrors mm/numa_memblks.c:numa_nodemask_from_meminfo().
    """
    for blk in mi:
        if blk.start != blk.end and blk.nid != mb.NUMA_NO_NODE:
            node_set(nodes, blk.nid)


def numa_reset_distance(m: Machine) -> None:
    """Forget the distance table and give its memory back.

    Mirrors mm/numa_memblks.c:numa_reset_distance().
    """
    s = m.numa
    if s.distance_cnt:
        size = s.distance_cnt * s.distance_cnt
        mb.memblock_free(m.memblock, s.distance_addr, size, "numa_reset_distance")
    s.distance, s.distance_cnt = [], 0


def numa_alloc_distance(m: Machine) -> int:
    """Make a table for all nodes known so far, with 10 on the diagonal and 20 elsewhere.

    :return: 0, or -ENOMEM

    Mirrors mm/numa_memblks.c:numa_alloc_distance().
    """
    s = m.numa
    nodes_parsed = list(s.nodes_parsed)
    numa_nodemask_from_meminfo(nodes_parsed, s.meminfo)
    cnt = max(nodes_parsed, default=0) + 1
    addr = mb.memblock_alloc(m.memblock, cnt * cnt, 4096, "numa_alloc_distance+0x14a/0x200")
    if addr is None:
        return -ENOMEM
    s.distance_addr, s.distance_cnt = addr, cnt
    s.distance = [
        [LOCAL_DISTANCE if i == j else REMOTE_DISTANCE for j in range(cnt)] for i in range(cnt)
    ]
    m.pr_info(f"NUMA: Initialized distance table, cnt={cnt}")
    return 0


def numa_set_distance(m: Machine, from_: int, to: int, distance: int) -> None:
    """Set one entry of the table; values that make no sense are ignored with a warning.

    Mirrors mm/numa_memblks.c:numa_set_distance().
    """
    s = m.numa
    if not s.distance and numa_alloc_distance(m) < 0:
        return
    if not (0 <= from_ < s.distance_cnt and 0 <= to < s.distance_cnt):
        m.pr_info(f"Warning: node ids are out of bound, from={from_} to={to} distance={distance}")
        return
    if distance & 0xFF != distance or (from_ == to and distance != LOCAL_DISTANCE):
        m.pr_info(f"Warning: invalid distance parameter, from={from_} to={to} distance={distance}")
        return
    s.distance[from_][to] = distance


def numa_add_memblk_to(m: Machine, nid: int, start: int, end: int, mi: list[NumaMemblk]) -> int:
    """Append a range to @mi.

    :return: 0 (also for an empty or senseless range, which is left out), or -EINVAL

    Mirrors mm/numa_memblks.c:numa_add_memblk_to().
    """
    if start == end:
        return 0
    if start > end or not 0 <= nid < mb.MAX_NUMNODES:
        m.pr_info(f"Warning: invalid memblk node {nid} [mem {start:#010x}-{end - 1:#010x}]")
        return 0
    if len(mi) >= NR_NODE_MEMBLKS:
        m.pr_info("too many memblk ranges")
        return -EINVAL
    mi.append(NumaMemblk(start, end, nid))
    return 0


def numa_add_memblk(m: Machine, nid: int, start: int, end: int) -> int:
    """Say that [@start, @end) belongs to node @nid.

    :return: 0, or -EINVAL

    Mirrors mm/numa_memblks.c:numa_add_memblk().
    """
    return numa_add_memblk_to(m, nid, start, end, m.numa.meminfo)


def _trim_meminfo(m: Machine) -> None:
    """Set ranges without memory aside and cut the others to where memory begins and ends."""
    low, high = mb.memblock_start_of_DRAM(m.memblock), mb.memblock_end_of_DRAM(m.memblock)
    mi = m.numa.meminfo
    kept: list[NumaMemblk] = []
    for bi in mi:
        if not mb.memblock_overlaps_region(m.memblock.memory, bi.start, bi.end - bi.start):
            m.numa.reserved_meminfo.append(bi)
            continue
        bi.start = max(bi.start, low)
        if bi.end > high:
            numa_add_memblk_to(m, bi.nid, high, bi.end, m.numa.reserved_meminfo)
            bi.end = high
        if bi.start < bi.end:
            kept.append(bi)
    mi[:] = kept


def _mem(blk: NumaMemblk) -> str:
    return f"[mem {blk.start:#010x}-{blk.end - 1:#010x}]"


def numa_cleanup_meminfo(m: Machine) -> int:
    """Trim the table to memory and join ranges of a node that have no other node between them.

    :return: 0, or -EINVAL if two nodes claim the same address

    Mirrors mm/numa_memblks.c:numa_cleanup_meminfo().
    """
    _trim_meminfo(m)
    mi = m.numa.meminfo
    i = 0
    while i < len(mi):
        bi = mi[i]
        j = i + 1
        while j < len(mi):
            bj = mi[j]
            j += 1
            if bi.end > bj.start and bi.start < bj.end:
                if bi.nid != bj.nid:
                    m.pr_info(f"node {bi.nid} {_mem(bi)} overlaps with node {bj.nid} {_mem(bj)}")
                    return -EINVAL
                m.pr_info(f"Warning: node {bi.nid} {_mem(bi)} overlaps with itself {_mem(bj)}")
            if bi.nid != bj.nid:
                continue
            start, end = min(bi.start, bj.start), max(bi.end, bj.end)
            if any(bk.nid != bi.nid and start < bk.end and end > bk.start for bk in mi):
                continue
            m.pr_info(
                f"NUMA: Node {bi.nid} {_mem(bi)} + {_mem(bj)} -> "
                f"[mem {start:#010x}-{end - 1:#010x}]"
            )
            bi.start, bi.end = start, end
            j -= 1
            del mi[j]
        i += 1
    return 0


def numa_clear_kernel_node_hotplug(m: Machine) -> None:
    """Give reserved memory its node; a node with reserved memory cannot be unplugged.

    Mirrors mm/numa_memblks.c:numa_clear_kernel_node_hotplug().
    """
    memblock = m.memblock
    for blk in m.numa.meminfo:
        mb.memblock_set_node(memblock, blk.start, blk.end - blk.start, memblock.reserved, blk.nid)
    reserved_nodes: list[int] = []
    for r in memblock.reserved.regions:
        if mb.numa_valid_node(r.nid):
            node_set(reserved_nodes, r.nid)
    for blk in m.numa.meminfo:
        if blk.nid in reserved_nodes:
            mb.memblock_clear_hotplug(memblock, blk.start, blk.end - blk.start)


def numa_register_meminfo(m: Machine) -> int:
    """Give each memory region its node.

    :return: 0, or -EINVAL if there is no node at all

    Mirrors mm/numa_memblks.c:numa_register_meminfo().
    """
    possible = list(m.numa.nodes_parsed)
    numa_nodemask_from_meminfo(possible, m.numa.meminfo)
    m.node_states["N_POSSIBLE"] = possible
    if not possible:
        return -EINVAL
    memblock = m.memblock
    for blk in m.numa.meminfo:
        mb.memblock_set_node(memblock, blk.start, blk.end - blk.start, memblock.memory, blk.nid)
    numa_clear_kernel_node_hotplug(m)
    return 0


def numa_memblks_init(
    m: Machine, init_func: Callable[[Machine], int], memblock_force_top_down: bool = True
) -> int:
    """Start afresh, let @init_func describe the nodes, and give memory to them.

    :return: 0, or the negative error of @init_func or of a table that contradicts itself

    Mirrors mm/numa_memblks.c:numa_memblks_init().
    """
    memblock = m.memblock
    m.numa.nodes_parsed, m.numa.meminfo = [], []
    m.node_states["N_POSSIBLE"], m.node_states["N_ONLINE"] = [], []
    for type in (memblock.memory, memblock.reserved):
        mb.memblock_set_node(memblock, 0, mb.ULLONG_MAX, type, mb.NUMA_NO_NODE)
    mb.memblock_clear_hotplug(memblock, 0, mb.ULLONG_MAX)
    numa_reset_distance(m)
    ret = init_func(m)
    if ret < 0:
        return ret
    if memblock_force_top_down:
        mb.memblock_set_bottom_up(memblock, False)
    ret = numa_cleanup_meminfo(m)
    return ret if ret < 0 else numa_register_meminfo(m)


def numa_fill_memblks(m: Machine, start: int, end: int) -> int:
    """Extend the ranges that overlap [@start, @end) so that together they cover it.

    :return: 0, or NUMA_NO_MEMBLK if none overlaps

    Mirrors mm/numa_memblks.c:numa_fill_memblks().
    """
    blks = [
        b
        for b in m.numa.meminfo
        if mb.memblock_addrs_overlap(start, end - start, b.start, b.end - b.start)
    ]
    if not blks:
        return NUMA_NO_MEMBLK
    blks.sort(key=lambda b: b.start)
    blks[0].start = min(blks[0].start, start)
    blks[-1].end = max(blks[-1].end, end)
    prev_end = blks[0].end
    for curr in blks[1:]:
        if prev_end >= curr.start:
            prev_end = max(prev_end, curr.end)
        else:
            curr.start = prev_end
            prev_end = curr.end
    return 0
