"""Who may allocate from which zone now: /proc/zoneinfo read with the allocator's own test.

`report()` takes the text of /proc/zoneinfo; `zone_states()` a machine. For each zone and each kind of
request it says how many pages are left above the level at which the kernel says no.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.mm import page_alloc
from mmcore.mm.internal import (
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    ALLOC_RESERVES,
    ALLOC_WMARK_LOW,
    ALLOC_WMARK_MIN,
)
from mmcore.mm.mmzone import (
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    ZONE_DMA,
    ZONE_DMA32,
    ZONE_MOVABLE,
    ZONE_NORMAL,
    Zone,
    wmark_pages,
)
from mmcore.mm.vmstat import NR_FREE_PAGES
from mmcore.proc.capture import Capture, Section

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = ["REQUESTS", "Request", "Share", "ZoneState", "report", "zone_states"]


@dataclass(slots=True, frozen=True)
class Request:
    """One kind of request, as the allocator classifies it.

    :ivar mark: which watermark it must leave
    """

    name: str
    mark: int
    alloc_flags: int
    what: str


#: Who asks, most modest first.
REQUESTS: tuple[Request, ...] = (
    Request("any, first try", ALLOC_WMARK_LOW, 0, "without waking kswapd"),
    Request("GFP_KERNEL, GFP_USER", ALLOC_WMARK_MIN, 0, "before it must reclaim itself"),
    Request("GFP_NOWAIT", ALLOC_WMARK_MIN, ALLOC_NON_BLOCK, "before it fails"),
    Request("__GFP_HIGH", ALLOC_WMARK_MIN, ALLOC_MIN_RESERVE, "half of min"),
    Request(
        "GFP_ATOMIC",
        ALLOC_WMARK_MIN,
        ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK,
        "five eighths of min",
    ),
    Request("OOM victim", ALLOC_WMARK_MIN, ALLOC_OOM, "half of min"),
    Request("PF_MEMALLOC", ALLOC_WMARK_MIN, ALLOC_NO_WATERMARKS, "all of it"),
)

#: The highest zone that a request may use, and what asks for it.
HIGHEST: tuple[tuple[int, str], ...] = (
    (ZONE_DMA, "GFP_DMA"),
    (ZONE_DMA32, "GFP_DMA32"),
    (ZONE_NORMAL, "GFP_KERNEL"),
    (ZONE_MOVABLE, "GFP_HIGHUSER_MOVABLE"),
)


@dataclass(slots=True)
class Share:
    """What one kind of request may take from a zone.

    :ivar highest: the highest zone it may use, which decides how much is kept for lower ones
    :ivar floor: it is refused when free pages would not stay above this
    :ivar pages: single pages it can have now
    """

    request: Request
    highest: int
    floor: int
    pages: int


@dataclass(slots=True)
class ZoneState:
    """A zone and what each kind of request may take from it."""

    node: int
    zone: str
    free: int
    min: int
    low: int
    high: int
    managed: int
    shares: list[Share] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """One sentence on where the zone stands between its marks."""
        if self.free > self.high:
            return "above high: kswapd sleeps"
        if self.free > self.low:
            return "between low and high: kswapd goes on if it runs, but is not woken"
        if self.free > self.min:
            return "between min and low: each allocation wakes kswapd"
        return "at or below min: who may wait must reclaim, others take from the reserve"


def _share(zone: Zone, request: Request, highest: int) -> Share:
    free = zone.vm_stat[NR_FREE_PAGES]
    if request.alloc_flags & ALLOC_NO_WATERMARKS:
        return Share(request, highest, 0, free)
    usable = free
    if not request.alloc_flags & ALLOC_RESERVES:
        usable -= zone.nr_free_highatomic
    mark = wmark_pages(zone, request.mark)
    if request.alloc_flags & ALLOC_RESERVES:
        mark = page_alloc.min_with_reserves(mark, request.alloc_flags)
    floor = mark + zone.lowmem_reserve[highest]
    return Share(request, highest, floor, max(0, usable - floor))


def zone_states(m: Machine) -> list[ZoneState]:
    """Return the state of each populated zone of a machine."""
    states: list[ZoneState] = []
    for nid in sorted(m.node_data):
        for zone in m.node_data[nid].node_zones:
            if not zone.present_pages:
                continue
            state = ZoneState(
                nid,
                zone.name,
                zone.vm_stat[NR_FREE_PAGES],
                wmark_pages(zone, WMARK_MIN),
                wmark_pages(zone, WMARK_LOW),
                wmark_pages(zone, WMARK_HIGH),
                zone.managed_pages,
            )
            for highest, _ in HIGHEST:
                if highest >= zone.zone_idx:
                    state.shares += [_share(zone, request, highest) for request in REQUESTS]
            states.append(state)
    return states


def _size(pages: int) -> str:
    kb = pages * 4
    return f"{kb} kB" if kb < 10240 else f"{kb >> 10} MB"


def _text(state: ZoneState) -> str:
    out = [
        f"Node {state.node} {state.zone}: {state.free} pages free ({_size(state.free)}) of "
        f"{state.managed} managed; min {state.min}, low {state.low}, high {state.high}",
        f"  {state.verdict}",
    ]
    columns = [h for h, _ in HIGHEST if any(s.highest == h for s in state.shares)]
    names = dict(HIGHEST)
    head = "".join(f"{names[h]:>22}" for h in columns)
    out.append(f"  {'pages that may be taken by':<28}{head}")
    for request in REQUESTS:
        cells = ""
        for h in columns:
            share = next(s for s in state.shares if s.highest == h and s.request is request)
            cells += f"{share.pages:>22}" if share.pages else f"{'none':>22}"
        out.append(f"  {request.name:<28}{cells}")
    return "\n".join(out)


def report(text: str) -> str:
    """Return the report on a text of /proc/zoneinfo.

    Watermarks and reserves are those in the text.

    :raises ParseError: if it is none
    """
    from mmcore import rebuild

    cap = Capture("/proc/zoneinfo")
    cap.sections.append(Section("zoneinfo", "cat /proc/zoneinfo", "0", text, 1))
    m = rebuild.from_zoneinfo(cap)
    header = (
        "A request is served from a zone while its free pages stay above the mark that the request\n"
        "must leave, plus what lower zones keep from requests that could use a higher one.\n"
    )
    return header + "\n\n".join(map(_text, zone_states(m))) + "\n"
