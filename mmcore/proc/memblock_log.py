"""Replaying a ``memblock=debug`` log: what was reserved when memblock handed over.

The kernel logs each request and each reservation; the first dump gives the state before them. So the
whole history can be run again, and every address that the kernel got compared with the one that
`mmcore.mm.memblock` finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mmcore.errors import UsageError
from mmcore.mm import memblock as mb
from mmcore.proc.dmesg import BootLog, DmesgLine

__all__ = ["Mismatch", "Replay", "replay"]

ALLOC = "memblock_alloc_range_nid"
LATE = ("mb_free_late", "memory")


@dataclass(slots=True)
class Mismatch:
    """A request for which kernel and model disagree."""

    line: int
    request: str
    kernel: int
    model: int


@dataclass(slots=True)
class Replay:
    """The outcome: memblock as it is when it hands over, and how the addresses compared.

    :ivar requests: requests for memory that were run
    """

    memblock: mb.Memblock
    requests: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)

    @property
    def equal(self) -> int:
        """Requests that got the kernel's address."""
        return self.requests - len(self.mismatches)


def _start_state(log: BootLog, limit: int) -> mb.Memblock:
    """Return memblock as the first dump shows it."""
    dumps = log.dumps()
    if not dumps or "memory" not in dumps[0] or "reserved" not in dumps[0]:
        raise UsageError("the log has no memblock dump: boot with memblock=debug")
    memblock = mb.Memblock(current_limit=limit)
    for type in (memblock.memory, memblock.reserved):
        for r in dumps[0][type.name]:
            nid = mb.MAX_NUMNODES if r.nid is None else r.nid
            type.regions.append(mb.MemblockRegion(r.start, r.size, r.flags, nid))
        type.total_size = sum(r.size for r in type.regions)
    sizes = log.first("mb_sizes")
    if sizes is not None:
        memblock.memory.total_size = max(sizes["memory"], memblock.memory.total_size)
    mb.memblock_allow_resize(memblock)
    return memblock


def _run(memblock: mb.Memblock, request: DmesgLine) -> int:
    """Run a request as the kernel did; return the address it got."""
    v = request.values
    if request.kind == "mb_phys_alloc_range":
        return mb.memblock_phys_alloc_range(memblock, v["size"], v["align"], v["from_"], v["max"])
    run: Callable[..., int | None] = (
        mb.memblock_alloc_exact_nid_raw
        if v["variant"] == "exact_nid_raw"
        else mb.memblock_alloc_try_nid
    )
    addr = run(memblock, v["size"], v["align"], v["from_"], v["max"], v["nid"])
    return addr or 0


def _node_data(lines: list[DmesgLine], i: int) -> dict[str, Any] | None:
    """Return the NODE_DATA line that follows the reservation at @i, if one does."""
    for line in lines[i + 1 : i + 3]:
        if line.kind == "node_data":
            return line.values
        if line.kind.startswith("mb_"):
            break
    return None


class _Player:
    """Runs the lines of a log against a memblock of its own."""

    def __init__(
        self,
        log: BootLog,
        limit: int,
        set_nodes: Callable[[mb.Memblock], None] | None,
        movable_node: bool,
    ) -> None:
        self.result = Replay(_start_state(log, limit))
        self.result.memblock.movable_node_enabled = movable_node
        self.result.memblock.bottom_up = movable_node
        self.lines = log.lines
        self.set_nodes = set_nodes
        self.pending: DmesgLine | None = None

    def request(self, line: DmesgLine, text: str, found: int, kernel: int, size: int) -> None:
        """Compare an address; where they differ, go on with the kernel's."""
        self.result.requests += 1
        if found == kernel:
            return
        self.result.mismatches.append(Mismatch(line.number, text, kernel, found))
        memblock = self.result.memblock
        if found:
            mb.memblock_phys_free(memblock, found, size)
        mb.memblock_reserve(memblock, kernel, size)

    def reserve(self, i: int, line: DmesgLine) -> None:
        """Run a reservation: the outcome of a request, a node's data, or a plain one."""
        memblock = self.result.memblock
        start, size = line.values["start"], line.values["last"] + 1 - line.values["start"]
        if self.pending is not None and ALLOC in line.values["caller"]:
            request, self.pending = self.pending, None
            text = f"{size} bytes{request.values['caller']}"
            self.request(line, text, _run(memblock, request), start, size)
            return
        node = _node_data(self.lines, i)
        if node is not None:
            if self.set_nodes is not None:
                self.set_nodes(memblock)
                self.set_nodes = None
            found = mb.memblock_phys_alloc_try_nid(memblock, size, mb.SMP_CACHE_BYTES, node["node"])
            self.request(line, f"NODE_DATA({node['node']})", found, start, size)
            return
        mb.memblock_reserve(memblock, start, size)

    def run(self) -> Replay:
        """Run everything up to the hand-over."""
        started = False
        for i, line in enumerate(self.lines):
            kind, v = line.kind, line.values
            if kind in LATE:
                break
            if kind == "mb_config":
                started = True
            elif not started:
                continue
            elif kind in ("mb_phys_alloc_range", "mb_alloc"):
                self.pending = line
            elif kind == "mb_reserve":
                self.reserve(i, line)
            elif kind == "mb_phys_free":
                mb.memblock_phys_free(self.result.memblock, v["start"], v["last"] + 1 - v["start"])
            elif kind == "mb_remove":
                mb.memblock_remove(self.result.memblock, v["start"], v["last"] + 1 - v["start"])
        if self.set_nodes is not None:
            self.set_nodes(self.result.memblock)
        return self.result


def replay(
    log: BootLog,
    limit: int,
    set_nodes: Callable[[mb.Memblock], None] | None = None,
    *,
    movable_node: bool = False,
) -> Replay:
    """Run a memblock log again.

    :param limit: the end of mapped memory, in bytes
    :param set_nodes: called with the memblock when the nodes become known
    :param movable_node: the boot option: search upwards until the nodes are known
    :raises UsageError: if the log has no memblock dump
    """
    return _Player(log, limit, set_nodes, movable_node).run()
