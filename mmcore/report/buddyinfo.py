"""How fragmented free memory is: /proc/buddyinfo with the kernel's own two indices, order by order.

The *unusable free index* is the share of free memory in blocks too small for an order. The
*fragmentation index* exists where a request would fail: near 0 it would fail for want of memory, near
1 because what is free lies in small blocks. The kernel compares the second with
``vm.extfrag_threshold`` when a request above order 3 asks whether to compact::

    print("\\n".join(report(open("/proc/buddyinfo").read()).lines()))

The lines of free blocks in an OOM report (``Node 0 DMA32: 2*4kB (UM) ...``) are read as well.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field

from mmcore.errors import ParseError, UsageError
from mmcore.mm.mmzone import PAGE_ALLOC_COSTLY_ORDER
from mmcore.proc.buddyinfo import BuddyInfo
from mmcore.report.kernlog import numbered_lines, split_prefix

__all__ = [
    "EXTFRAG_THRESHOLD",
    "BuddyReport",
    "ContigPageInfo",
    "OrderState",
    "extfrag_for_order",
    "fill_contig_page_info",
    "fragmentation_index",
    "order_states",
    "read_zones",
    "report",
    "size",
    "unusable_free_index",
]

#: The default of ``vm.extfrag_threshold``.
EXTFRAG_THRESHOLD = 500
#: More zones, or orders of one zone, than any kernel has.
MAX_ZONES, MAX_ORDERS = 6144, 32


@dataclass(slots=True)
class ContigPageInfo:
    """``struct contig_page_info``: free pages, free blocks, and blocks' worth of the order asked for."""

    free_pages: int = 0
    free_blocks_total: int = 0
    free_blocks_suitable: int = 0


def fill_contig_page_info(nr_free: list[int], suitable_order: int) -> ContigPageInfo:
    """Count a zone's free blocks from the view of a request of @suitable_order.

    :param nr_free: free blocks by order, as /proc/buddyinfo has them

    Mirrors mm/vmstat.c:fill_contig_page_info().
    """
    info = ContigPageInfo()
    for order, blocks in enumerate(nr_free):
        info.free_blocks_total += blocks
        info.free_pages += blocks << order
        if order >= suitable_order:
            info.free_blocks_suitable += blocks << (order - suitable_order)
    return info


def __fragmentation_index(order: int, info: ContigPageInfo) -> int:
    """Return -1000 if a block is there, else how much of a failure were fragmentation, 0 to 1000.

    Mirrors mm/vmstat.c:__fragmentation_index().
    """
    requested = 1 << order
    if not info.free_blocks_total:
        return 0
    if info.free_blocks_suitable:
        return -1000
    return 1000 - (1000 + info.free_pages * 1000 // requested) // info.free_blocks_total


def fragmentation_index(nr_free: list[int], order: int) -> int:
    """Return the fragmentation index of a zone for an order, in thousandths.

    Mirrors mm/vmstat.c:fragmentation_index().
    """
    return __fragmentation_index(order, fill_contig_page_info(nr_free, order))


def unusable_free_index(order: int, info: ContigPageInfo) -> int:
    """Return the share of free memory in blocks below @order, in thousandths.

    Mirrors mm/vmstat.c:unusable_free_index().
    """
    if not info.free_pages:
        return 1000
    unusable = info.free_pages - (info.free_blocks_suitable << order)
    return unusable * 1000 // info.free_pages


def extfrag_for_order(nr_free: list[int], order: int) -> int:
    """Return the percentage of free pages in blocks below @order.

    Mirrors mm/vmstat.c:extfrag_for_order().
    """
    info = fill_contig_page_info(nr_free, order)
    if not info.free_pages:
        return 0
    return (info.free_pages - (info.free_blocks_suitable << order)) * 100 // info.free_pages


@dataclass(slots=True, frozen=True)
class OrderState:
    """One order of one zone.

    :ivar unusable: unusable free index, in thousandths
    :ivar index: fragmentation index, in thousandths; -1000 where a block is there
    :ivar outcome: what becomes of a request of this order
    """

    order: int
    blocks: int
    unusable: int
    index: int
    outcome: str


def _outcome(index: int, order: int, nr_free: list[int], threshold: int) -> str:
    """Say what follows from the index, as compaction_suit_allocation_order() and its callers decide."""
    if not any(nr_free):
        return "fails: nothing is free"
    if index == -1000:
        return "a block is there"
    if order <= PAGE_ALLOC_COSTLY_ORDER:
        return "no block: may compact"
    if index <= threshold:
        return "no block: no compaction, too little free"
    return "no block: may compact, fragmented"


def order_states(nr_free: list[int], threshold: int = EXTFRAG_THRESHOLD) -> list[OrderState]:
    """Return the state of each order of a zone.

    :param threshold: ``vm.extfrag_threshold``
    :raises UsageError: if it is not 0 to 1000
    """
    if not 0 <= threshold <= 1000:
        raise UsageError(f"extfrag_threshold is {threshold}; the kernel takes 0 to 1000")
    states = []
    for order, blocks in enumerate(nr_free):
        info = fill_contig_page_info(nr_free, order)
        index = __fragmentation_index(order, info)
        outcome = _outcome(index, order, nr_free, threshold)
        states.append(OrderState(order, blocks, unusable_free_index(order, info), index, outcome))
    return states


def size(pages: int) -> str:
    """Return a number of 4 KiB pages as people say it.

    >>> size(1), size(512), size(236548)
    ('4 kB', '2048 kB', '924 MB')
    """
    kb = pages << 2
    for unit in ("kB", "MB", "GB"):
        if kb < 10240:
            return f"{kb} {unit}"
        kb >>= 10
    return f"{kb} TB"


# ---- reading -------------------------------------------------------------------------------------

_ZONE = re.compile(r"Node (\d{1,6}), zone +(\S{1,32}) +(\d[\d ]*)")
_MORE = re.compile(r"\d{1,20}(?: +\d{1,20})*")
_LIST = re.compile(
    r"(?:Node (\d{1,6}) )?(\w{1,16}): ((?:\d{1,20}\*\d{1,20}kB (?:\([A-Z]{0,8}\) ?)?)+)"
)
_LIST_BLOCK = re.compile(r"(\d{1,20})\*")


def read_zones(text: str) -> tuple[list[BuddyInfo], int]:
    """Return the zones that a text names with their free blocks, and how many lines were no such.

    Lines of /proc/buddyinfo, also wrapped, and lines of free blocks of a kernel log.

    :raises ParseError: if there is none, or one is damaged
    """
    zones: list[BuddyInfo] = []
    skipped, open_zone = 0, False
    last = 0
    for number, raw in numbered_lines(text):
        open_zone = open_zone and number == last + 1
        last = number
        if not open_zone and "Node " not in raw and "kB" not in raw:
            skipped += not raw.isspace()
            continue
        line = raw.strip()
        if not line.startswith("Node "):
            line = split_prefix(raw)[1].strip()
        if open_zone and _MORE.fullmatch(line):
            zones[-1].nr_free += [int(word) for word in line.split()]
            _check_zone(zones, number, line)
            continue
        open_zone = False
        if match := _ZONE.fullmatch(line):
            counts = [int(word[:20]) for word in match[3].split()]
            zones.append(BuddyInfo(int(match[1]), match[2], counts))
            open_zone = True
            _check_zone(zones, number, line)
        elif match := _LIST.match(line):
            counts = [int(n) for n in _LIST_BLOCK.findall(match[3])]
            zones.append(BuddyInfo(int(match[1] or 0), match[2], counts))
            _check_zone(zones, number, line)
        elif line.startswith("Node ") and ", zone" in line and re.search(r"zone +\S+ +\S", line):
            raise ParseError(
                "/proc/buddyinfo", number, line, "expected 'Node N, zone NAME N N ...'"
            )
        elif line:
            skipped += 1
    if not zones:
        first = text.lstrip().partition("\n")[0]
        why = "no line is of the form 'Node N, zone NAME N N ...'" if first else "the text is empty"
        raise ParseError("/proc/buddyinfo", 1, first, why)
    return zones, skipped


def _check_zone(zones: list[BuddyInfo], number: int, line: str) -> None:
    if len(zones[-1].nr_free) > MAX_ORDERS:
        raise ParseError("/proc/buddyinfo", number, line, f"more than {MAX_ORDERS} orders")
    if len(zones) > MAX_ZONES:
        raise ParseError("/proc/buddyinfo", number, line, f"more than {MAX_ZONES} zones")


# ---- the report ----------------------------------------------------------------------------------


@dataclass(slots=True)
class BuddyReport:
    """What /proc/buddyinfo says about each zone and order."""

    zones: list[BuddyInfo]
    threshold: int = EXTFRAG_THRESHOLD
    skipped: int = 0
    states: list[list[OrderState]] = field(default_factory=list)

    def summary(self) -> str:
        """Return the answer: up to which order the zone with the most free memory has blocks."""
        best = max(range(len(self.zones)), key=lambda i: self.zones[i].free_pages)
        zone, states = self.zones[best], self.states[best]
        name = f"Node {zone.node} {zone.zone}"
        if not zone.free_pages:
            return "No zone has a free block."
        top = max(s.order for s in states if s.blocks)
        said = f"{name} has free blocks up to order {top} ({size(1 << top)})"
        if top + 1 >= len(states):
            share = (
                sum(s.blocks << s.order for s in states if s.order >= 9) * 100 // zone.free_pages
            )
            return f"{said}, the largest there is; {share} % of its free memory is in blocks of 2 MB or more."
        failing = states[top + 1]
        why = "fragmentation" if failing.index > self.threshold else "too little free memory"
        return (
            f"{said}; order {top + 1} and above fail for {why} (index {failing.index / 1000:.3f})."
        )

    def lines(self) -> list[str]:
        """Return the report, the answer first."""
        out = [*textwrap.wrap(self.summary(), 88), ""]
        for zone, states in zip(self.zones, self.states, strict=True):
            out += _zone_lines(zone, states) + [""]
        out += [
            "unusable: the share of free memory in blocks too small for the order (0 to 1).",
            "index: where no block is free, what a failure is due to: towards 0 too little memory,",
            "  towards 1 fragmentation. Above order 3 the kernel compacts only if it is above",
            f"  vm.extfrag_threshold, here {self.threshold / 1000:.3f}; below that it reclaims first.",
            "  Compaction also needs twice the block free above the zone's low mark (up to order 3:",
            "  its min mark), which this file does not show; see the zoneinfo tool.",
            "A block counts whatever its migratetype: one reserved for atomic requests or CMA, too.",
        ]
        if self.skipped:
            out.append(f"{self.skipped} other lines were left out.")
        return out

    def to_rows(self) -> list[dict[str, object]]:
        """Return one row per zone and order."""
        return [
            {
                "node": zone.node,
                "zone": zone.zone,
                "order": s.order,
                "blocks": s.blocks,
                "pages": s.blocks << s.order,
                "unusable_free_index": s.unusable,
                "fragmentation_index": s.index,
                "outcome": s.outcome,
            }
            for zone, states in zip(self.zones, self.states, strict=True)
            for s in states
        ]


def _zone_lines(zone: BuddyInfo, states: list[OrderState]) -> list[str]:
    free = zone.free_pages
    out = [f"Node {zone.node} {zone.zone}: {free} pages free ({size(free)})"]
    if not free:
        return [*out, "  no free block"]
    largest = max(s.order for s in states if s.blocks)
    out.append(f"  largest free block: order {largest} ({size(1 << largest)})")
    out.append(
        f"  {'order':>5}{'block':>9}{'blocks':>10}{'free':>9}{'share':>7}  unusable  index  a request of this order"
    )
    for s in states:
        share = 100 * (s.blocks << s.order) / free
        index = "    -" if s.index == -1000 else f"{s.index / 1000:.3f}"
        out.append(
            f"  {s.order:>5}{size(1 << s.order):>9}{s.blocks:>10}{size(s.blocks << s.order):>9}"
            f"{share:6.1f}%{s.unusable / 1000:>10.3f}  {index}  {s.outcome}"
        )
    return out


def report(text: str, threshold: int = EXTFRAG_THRESHOLD) -> BuddyReport:
    """Return the report on a text of /proc/buddyinfo.

    :param threshold: ``vm.extfrag_threshold`` of the machine
    :raises ParseError: if the text has no zone, or a damaged one
    :raises UsageError: if @threshold is not 0 to 1000
    """
    zones, skipped = read_zones(text)
    states = [order_states(zone.nr_free, threshold) for zone in zones]
    return BuddyReport(zones, threshold, skipped, states)
