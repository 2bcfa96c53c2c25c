"""Who may allocate what: against the allocator's own test, page by page."""

from __future__ import annotations

import pytest

from mmcore import Machine
from mmcore.mm import page_alloc
from mmcore.mm.internal import ALLOC_NO_WATERMARKS
from mmcore.mm.mmzone import wmark_pages
from mmcore.proc import capture
from mmcore.report import zone_state

# Names of the kernel that begin with two underscores.
zone_watermark_ok = getattr(page_alloc, "__zone_watermark_ok")


@pytest.mark.parametrize("free", [0, 100, 3000, 11000, 14000, 40000])
def test_the_last_page_is_given_and_the_next_is_not(free: int) -> None:
    m = Machine.boot("5G")
    for zone in m.node_data[0].node_zones[:3]:
        zone.vm_stat[0] = min(free, zone.managed_pages)
    for state in zone_state.zone_states(m):
        zone = next(z for z in m.node_data[0].node_zones if z.name == state.zone)
        for share in state.shares:
            if share.request.alloc_flags & ALLOC_NO_WATERMARKS:
                assert share.pages == zone.vm_stat[0]
                continue

            def ok(taken: int) -> bool:
                return bool(
                    zone_watermark_ok(
                        zone,  # noqa: B023
                        0,
                        wmark_pages(zone, share.request.mark),  # noqa: B023
                        share.highest,  # noqa: B023
                        share.request.alloc_flags,  # noqa: B023
                        zone.vm_stat[0] - taken,  # noqa: B023
                    )
                )

            if share.pages:
                assert ok(share.pages - 1)
            assert not ok(share.pages)


def test_verdicts() -> None:
    m = Machine.boot("1G")
    zone = m.node_data[0].node_zones[1]
    marks = [wmark_pages(zone, i) for i in range(3)]
    said = []
    for free in (marks[0], marks[0] + 1, marks[1] + 1, marks[2] + 1):
        zone.vm_stat[0] = free
        said.append(zone_state.zone_states(m)[1].verdict.split(":")[0])
    assert said == [
        "at or below min",
        "between min and low",
        "between low and high",
        "above high",
    ]


def test_report_takes_marks_from_the_text() -> None:
    text = capture.load("n1-1g/physical")["zoneinfo"].replace("min      11087", "min      12345")
    assert "min 12345, low 13858, high 16629" in zone_state.report(text)
