"""The machines that experiments run on, as one table."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["TOPOLOGIES", "Node", "Topology", "megabytes"]


def megabytes(size: str) -> int:
    """Return a size such as "640M" or "4G" in MiB.

    :raises ValueError: if it is no such size
    """
    unit = {"M": 1, "G": 1024}.get(size[-1:])
    if unit is None or not size[:-1].isdecimal():
        raise ValueError(f"{size!r} is no size: a whole number with M or G behind it")
    return int(size[:-1]) * unit


@dataclass(frozen=True, slots=True)
class Node:
    """One NUMA node.

    :ivar memory: its size, "0M" for a node without memory
    :ivar cpus: the numbers of its CPUs, none for a node of memory only
    """

    memory: str
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Topology:
    """One machine.

    :ivar about: what it is for, one line
    :ivar memory: all of it; the nodes' sizes add up to it
    :ivar nodes: its nodes; none means one node that the firmware does not describe
    :ivar distance: (node, node) -> distance, each pair once; 10 is a node's distance to itself
    :ivar append: what it adds to the kernel's command line
    """

    about: str
    memory: str
    cpus: int = 1
    nodes: tuple[Node, ...] = ()
    distance: dict[tuple[int, int], int] = field(default_factory=dict)
    append: str = ""

    @property
    def repeatable(self) -> bool:
        """Whether two runs give the same bytes: one CPU, whose instructions QEMU counts."""
        return self.cpus == 1


_FOUR = {(0, 1): 15, (0, 2): 20, (0, 3): 30, (1, 2): 25, (1, 3): 20, (2, 3): 12}
_PMEM = "memmap=192M!256M memmap=240M!448M memmap=16M$688M"

TOPOLOGIES: dict[str, Topology] = {
    # One node.
    "n1-128m": Topology("the least that is comfortable", "128M"),
    "n1-256m": Topology("small: free lists that fit on a page", "256M"),
    "n1-512m": Topology("small", "512M"),
    "n1-1g": Topology("the book's reference machine", "1G"),
    "n1-4g": Topology("memory on both sides of the hole below 4 GiB: zone Normal", "4G"),
    "n1-1g-2cpu": Topology("two CPUs: pages per CPU", "1G", cpus=2),
    "n1-2g-8cpu": Topology("eight CPUs", "2G", cpus=8),
    "n1-1g-movablecore": Topology("zone Movable", "1G", append="movablecore=300M"),
    "n1-1g-kernelcore": Topology(
        "zone Movable, said the other way", "1G", append="kernelcore=400M"
    ),
    # Two synchronous block devices in memory, pmem0 (192M) and pmem1 (240M), beside 256M to use.
    "n1-256m-pmem": Topology("small, with disks that answer at once", "704M", append=_PMEM),
    # Several nodes, with one CPU: memory-only nodes, and the same bytes each time.
    "n2-768m": Topology(
        "two unequal nodes", "768M", 1, (Node("512M", (0,)), Node("256M")), {(0, 1): 20}
    ),
    "n2-5g": Topology(
        "two unequal nodes, three zones on the first",
        "5G",
        1,
        (Node("4G", (0,)), Node("1G")),
        {(0, 1): 21},
    ),
    "n4-1g": Topology(
        "four nodes with distances",
        "1G",
        1,
        (Node("256M", (0,)), Node("256M"), Node("128M"), Node("384M")),
        _FOUR,
    ),
    # Several nodes with CPUs: zones and marks repeat, the order of allocations does not.
    "n4-1g-4cpu": Topology(
        "four nodes with a CPU each",
        "1G",
        4,
        (Node("256M", (0,)), Node("256M", (1,)), Node("128M", (2,)), Node("384M", (3,))),
        _FOUR,
    ),
    "n3-memless": Topology(
        "a node without memory",
        "768M",
        3,
        (Node("512M", (0,)), Node("256M", (1,)), Node("0M", (2,))),
        {(0, 1): 20, (0, 2): 30, (1, 2): 15},
    ),
    "n2-5g-movablecore": Topology(
        "two nodes with zone Movable",
        "5G",
        1,
        (Node("4G", (0,)), Node("1G")),
        {(0, 1): 21},
        "movablecore=1G",
    ),
}
