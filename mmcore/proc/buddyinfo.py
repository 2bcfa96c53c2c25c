"""/proc/buddyinfo: how many free blocks of each order every zone has.

Mirrors mm/vmstat.c:frag_show_print().
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcore.mm.mmzone import for_each_online_pgdat
from mmcore.proc.lines import Lines

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = ["BuddyInfo", "parse", "render", "show", "snapshot"]


@dataclass(slots=True)
class BuddyInfo:
    """One zone: ``nr_free`` counts blocks, not pages; its index is the order."""

    node: int
    zone: str
    nr_free: list[int]

    @property
    def free_pages(self) -> int:
        """All free pages, which the file does not print."""
        return sum(n << order for order, n in enumerate(self.nr_free))


def parse(text: str) -> list[BuddyInfo]:
    """Read the file.

    :raises ParseError: with the first line that does not belong
    """
    lines = Lines(text, "/proc/buddyinfo")
    zones: list[BuddyInfo] = []
    while lines:
        match = lines.match(
            r"Node (\d{1,20}), zone +(\S+)((?: +\d{1,20})+) ?", "'Node N, zone NAME N N ...'"
        )
        counts = [int(n) for n in match.group(3).split()]
        zones.append(BuddyInfo(int(match.group(1)), match.group(2), counts))
    if not zones:
        raise lines.error("the text is empty")
    return zones


def render(zones: list[BuddyInfo]) -> str:
    """Write the file.

    Mirrors mm/vmstat.c:frag_show_print().
    """
    return "".join(
        f"Node {z.node}, zone {z.zone:>8} {''.join(f'{n:6d} ' for n in z.nr_free)}\n" for z in zones
    )


def snapshot(m: Machine) -> list[BuddyInfo]:
    """Return what the file shows of a machine now: its populated zones."""
    return [
        BuddyInfo(zone.node, zone.name, [area.nr_free for area in zone.free_area])
        for pgdat in for_each_online_pgdat(m)
        for zone in pgdat.node_zones
        if zone.present_pages
    ]


def show(m: Machine) -> str:
    """Return the file of a machine."""
    return render(snapshot(m))
