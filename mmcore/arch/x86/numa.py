"""Nodes on x86: what the firmware's tables say, and which node each CPU belongs to.

Firmware counts *proximity domains* (PXM); the kernel numbers them as it meets them, so node 1 need
not be domain 1. Memory comes from the SRAT table, distances from the SLIT.

Mirrors arch/x86/mm/numa.c, drivers/acpi/numa/srat.c and mm/numa.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.cint import ALIGN
from mmcore.config import PAGE_SHIFT
from mmcore.errors import EINVAL, ENOENT, KernelBug
from mmcore.mm import memblock as mb
from mmcore.mm import mm_init, numa_memblks

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = [
    "SratNode",
    "acpi_map_pxm_to_node",
    "alloc_node_data",
    "dummy_numa_init",
    "init_cpu_to_node",
    "numa_init",
    "numa_init_array",
    "numa_register_nodes",
    "x86_acpi_numa_init",
    "x86_numa_init",
]


@dataclass(slots=True, eq=False)
class SratNode:
    """One proximity domain as the firmware describes it.

    :ivar pxm: its number in the firmware's tables
    :ivar memory: (start, end) of its memory in bytes, end excluded; none for a node of CPUs only
    :ivar cpus: its CPUs; none for a node of memory only
    :ivar hotplug: its memory may be unplugged
    :ivar node: its number in the kernel, if that is to be given and not to be found
    """

    pxm: int
    memory: list[tuple[int, int]] = field(default_factory=list)
    cpus: list[int] = field(default_factory=list)
    hotplug: bool = False
    node: int | None = None


def acpi_map_pxm_to_node(m: Machine, pxm: int) -> int:
    """Return the node of a proximity domain, the next free number if it is new.

    Mirrors drivers/acpi/numa/srat.c:acpi_map_pxm_to_node().
    """
    nodes = m.numa.pxm_to_node
    if pxm not in nodes:
        nodes[pxm] = next(n for n in range(mb.MAX_NUMNODES) if n not in nodes.values())
    return nodes[pxm]


def _parse_srat_memory(m: Machine) -> int:
    """Read the memory entries in the order of the table."""
    found = 0
    for srat in m.srat:
        for start, end in srat.memory:
            node = acpi_map_pxm_to_node(m, srat.pxm)
            if numa_memblks.numa_add_memblk(m, node, start, end) < 0:
                return -EINVAL
            numa_memblks.node_set(m.numa.nodes_parsed, node)
            found += 1
            hot = " hotplug" if srat.hotplug else ""
            m.pr_info(
                f"ACPI: SRAT: Node {node} PXM {srat.pxm} [mem {start:#010x}-{end - 1:#010x}]{hot}"
            )
            if srat.hotplug:
                mb.memblock_mark_hotplug(m.memblock, start, end - start)
    return found


def x86_acpi_numa_init(m: Machine) -> int:
    """Read SRAT and SLIT: CPUs first, then memory, then distances.

    :return: 0, or -ENOENT when there is no SRAT with memory in it

    Mirrors arch/x86/mm/srat.c:x86_acpi_numa_init().
    Simplified: ``m.srat`` stands for the tables; no CEDT, no generic initiators.
    """
    if not m.srat:
        return -ENOENT
    m.numa.pxm_to_node = {srat.pxm: srat.node for srat in m.srat if srat.node is not None}
    m.numa.apicid_to_node.clear()
    # Firmware lists CPUs by number.
    for cpu, pxm in sorted((cpu, srat.pxm) for srat in m.srat for cpu in srat.cpus):
        node = acpi_map_pxm_to_node(m, pxm)
        m.numa.apicid_to_node[cpu] = node
        numa_memblks.node_set(m.numa.nodes_parsed, node)
    found = _parse_srat_memory(m)
    if found <= 0:
        return found or -ENOENT
    pxms = list(dict.fromkeys(srat.pxm for srat in m.srat))
    for i, row in enumerate(m.slit):
        for j, distance in enumerate(row):
            from_ = acpi_map_pxm_to_node(m, pxms[i])
            to = acpi_map_pxm_to_node(m, pxms[j])
            numa_memblks.numa_set_distance(m, from_, to, distance)
    return 0


def dummy_numa_init(m: Machine) -> int:
    """Make one node of all memory, for machines whose firmware names none.

    :return: 0

    Mirrors arch/x86/mm/numa.c:dummy_numa_init().
    """
    m.pr_info("NUMA turned off" if m.numa_off else "No NUMA configuration found")
    end = m.max_pfn << PAGE_SHIFT
    m.pr_info(f"Faking a node at [mem {0:#018x}-{end - 1:#018x}]")
    numa_memblks.node_set(m.numa.nodes_parsed, 0)
    numa_memblks.numa_add_memblk(m, 0, 0, end)
    return 0


def alloc_node_data(m: Machine, nid: int) -> None:
    """Allocate a node's pg_data_t in its own memory if possible, and bring the node up.

    Mirrors mm/numa.c:alloc_node_data().
    """
    nd_size = ALIGN(m.sizeof_pg_data, mb.SMP_CACHE_BYTES)
    nd_pa = mb.memblock_phys_alloc_try_nid(m.memblock, nd_size, mb.SMP_CACHE_BYTES, nid)
    if not nd_pa:
        raise KernelBug(f"Kernel panic: Cannot allocate {nd_size} bytes for node {nid} data")
    m.node_data_phys[nid] = nd_pa
    m.pr_info(f"NODE_DATA({nid}) allocated [mem {nd_pa:#010x}-{nd_pa + nd_size - 1:#010x}]")
    tnid = mm_init.early_pfn_to_nid(m, nd_pa >> PAGE_SHIFT)
    if tnid != nid:
        m.pr_info(f"    NODE_DATA({nid}) on node {tnid}")
    mm_init.alloc_pgdat(m, nid)


def numa_register_nodes(m: Machine) -> int:
    """Bring up each node that has memory.

    :return: 0, or -EINVAL if more than 1 MiB of memory belongs to no node

    Mirrors arch/x86/mm/numa.c:numa_register_nodes().
    """
    if not mb.memblock_validate_numa_coverage(m.memblock, 1 << 20):
        return -EINVAL
    for nid in m.node_states["N_POSSIBLE"]:
        start_pfn, end_pfn = mm_init.get_pfn_range_for_nid(m, nid)
        if start_pfn < end_pfn:
            alloc_node_data(m, nid)
            m.node_set_state(nid, "N_ONLINE")
    mb.memblock_dump_all(m.memblock)
    return 0


def numa_init_array(m: Machine) -> None:
    """Give each CPU without a node one of the nodes in turn.

    Mirrors arch/x86/mm/numa.c:numa_init_array().
    """
    online = m.node_states["N_ONLINE"]
    rr = 0
    for cpu in range(m.cpus):
        if m.cpu_to_node[cpu] == mb.NUMA_NO_NODE:
            m.cpu_to_node[cpu] = online[rr]
            rr = (rr + 1) % len(online)


def numa_init(m: Machine, init_func: Callable[[Machine], int]) -> int:
    """Try one way of finding the nodes.

    :return: 0, or a negative error, and then the next way is tried

    Mirrors arch/x86/mm/numa.c:numa_init().
    """
    m.cpu_to_node = [mb.NUMA_NO_NODE] * m.cpus
    m.numa.apicid_to_node.clear()
    ret = numa_memblks.numa_memblks_init(m, init_func)
    if ret >= 0:
        ret = numa_register_nodes(m)
    if ret < 0:
        return ret
    numa_init_array(m)
    return 0


def x86_numa_init(m: Machine) -> None:
    """Find the nodes: from the firmware's tables, else one node of everything.

    Mirrors arch/x86/mm/numa.c:x86_numa_init().
    Simplified: no AMD northbridge or device-tree probing.
    """
    if not m.numa_off and not numa_init(m, x86_acpi_numa_init):
        return
    numa_init(m, dummy_numa_init)


def init_cpu_to_node(m: Machine) -> None:
    """Set the node of each CPU that the firmware placed; such a node is online even without memory.

    Mirrors arch/x86/mm/numa.c:init_cpu_to_node().
    """
    for cpu in range(m.cpus):
        node = m.numa.apicid_to_node.get(cpu, mb.NUMA_NO_NODE)
        if node == mb.NUMA_NO_NODE:
            continue
        m.node_set_state(node, "N_ONLINE")
        m.cpu_to_node[cpu] = node
