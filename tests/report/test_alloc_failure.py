"""Reports of failed allocations: read, written again, explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmcore.errors import ParseError
from mmcore.machine import bare_zone
from mmcore.mm import page_alloc as pa
from mmcore.mm import show_mem
from mmcore.mm.gfp import __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL
from mmcore.report import alloc_failure as af

LOG = (Path(__file__).parents[2] / "book" / "captures" / "n1-256m" / "oom.txt").read_text()


def test_a_real_report_is_written_again_byte_for_byte() -> None:
    report = af.parse(LOG)
    text = str(report)
    assert text in LOG and text.count("\n") == 87
    assert (report.comm, report.order, report.gfp_mask) == ("sparse", 0, 0x140CCA)
    assert report.gfp_names == "GFP_HIGHUSER_MOVABLE|__GFP_COMP"
    assert (report.nodemask, report.cpuset, report.mems_allowed) == ("(null)", "/", "0")
    assert report.counts["active_anon"] == 38078 and report.counts["pages RAM"] == 65403
    assert report.nodes[0]["kernel_stack"] == (928, "kB")
    assert [(z.node, z.name) for z in report.zones] == [(0, "DMA"), (0, "DMA32")]
    assert report.zones[0].lowmem_reserve == [0, 188, 188, 188, 188]


def test_every_line_that_carries_numbers_is_rendered_from_them() -> None:
    report = af.parse(LOG)
    report.order = 3
    report.zones[0].values["free"] = (4, "kB")
    report.zones[1].lowmem_reserve[4] = 77
    report.counts["free"] = 123456
    text = str(report)
    for piece in ("order:3,", "DMA free:4kB", "lowmem_reserve[]: 0 0 0 0 77", " free:123456 "):
        assert piece in text and piece not in LOG


def test_the_real_failure_explained() -> None:
    explanation = af.explain(af.parse(LOG))
    assert explanation.highest_zone == "Movable"
    dma, dma32 = explanation.zones
    assert (dma.free, dma.mark, dma.reserve, dma.ok) == (194, 33, 188, False)
    assert (dma32.free, dma32.mark, dma32.reserve, dma32.ok) == (462, 1370, 0, False)
    assert str(dma) == "Node 0 DMA: too little free: 194 free <= mark 33 + lowmem_reserve 188 pages"


def test_all_free_list_lines_of_the_capture_round_trip() -> None:
    lines = [line.partition("] ")[2] for line in LOG.split("\n") if "*4096kB" in line]
    assert len(lines) > 20
    for line in lines:
        assert str(af.parse_free_list(line)) == line


FREE = "0*4kB 1*8kB (U) 0*16kB 0*32kB 0*64kB 0*128kB 1*256kB (U) 0*512kB 0*1024kB 0*2048kB 0*4096kB"


def test_free_list_values() -> None:
    found = af.parse_free_list(f"Node 3 DMA32: {FREE} = 264kB")
    assert (found.node, found.zone, found.pages, found.largest_order) == (3, "DMA32", 66, 6)
    assert found.types[1] == "U" and found.types[0] == ""
    assert af.parse_free_list(f"Normal: {FREE} = 264kB").node is None


def test_lines_of_kernels_with_cma() -> None:
    line = f"Node 0 DMA: {FREE.replace('(U)', '(UC)')} = 264kB"
    assert str(af.parse_free_list(line)) == line


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("Node 0 DMA: nothing", "not of the form"),
        ("", "not of the form"),
        ("\x00\xff", "not of the form"),
        (f"Node 0 DMA: {FREE} = 265kB", "add up to 264kB"),
        (f"Node 0 DMA: {FREE.replace('1*8kB', '1*9kB')} = 264kB", "8kB was expected"),
        (f"Node 0 DMA: {FREE.replace('1*8kB (U)', '1*8kB')} = 264kB", "1 blocks of 8kB"),
        (f"Node 0 DMA: {FREE.replace(' 0*4096kB', '')} = 264kB", "10 orders, not 11"),
    ],
)
def test_bad_free_lists(line: str, why: str) -> None:
    with pytest.raises(ParseError, match=why):
        af.parse_free_list(line)


@pytest.mark.parametrize(
    "text", ["", "nothing here", "\x00\x01\x02", "page allocation failure: order"]
)
def test_no_report(text: str) -> None:
    with pytest.raises(ParseError, match='no line has "page allocation failure'):
        af.parse(text)


def test_a_report_cut_short_is_read_as_far_as_it_goes() -> None:
    start = LOG.index("[   87.653460]")
    for length in range(100, 6000, 701):
        cut = LOG[start : start + length]
        try:
            report = af.parse(cut)
        except ParseError as error:
            assert error.text
            continue
        assert str(report) == cut
        str(af.explain(report))


def failing_machine(order: int) -> list[str]:
    """A zone with every other block in use, so that no block of @order is free."""
    zone = bare_zone(1 << 14)
    m = zone.machine
    pages = []
    while (page := pa.alloc_pages(m, GFP_KERNEL | __GFP_NOWARN, order - 1)) is not None:
        pages.append(page)
    for page in pages:
        if page.pfn >> order - 1 & 1:
            pa.__free_pages(page, order - 1)
    pa.drain_all_pages(m)
    zone._watermark[:] = [100, 200, 300, 400]
    assert pa.alloc_pages(m, GFP_ATOMIC, order) is None
    return m.alloc_failures[-1][1]


def test_exercise_6_an_order_5_atomic_failure_with_much_free() -> None:
    lines = failing_machine(5)
    text = "\n".join(f"[  100.000000] {line}" for line in lines)
    report = af.parse(text)
    assert str(report) == text
    explanation = af.explain(report)
    zone = explanation.zones[0]
    assert zone.free == 1 << 13 and zone.mark == 38 and not zone.ok and not zone.block
    assert zone.largest_order == 4
    assert "no block of order 5 or above" in zone.why
    assert explanation.notes == [
        "The request could neither reclaim nor compact: it may not block.",
        f"Fragmentation, not shortage: {(1 << 13) * 4} kB are free in smaller blocks.",
    ]


def test_two_reports_in_one_log() -> None:
    text = "\n".join([*failing_machine(4), "something else", *failing_machine(6)])
    first, second = af.parse_all(text)
    assert (first.order, second.order) == (4, 6)
    assert "something else" not in str(first) + str(second)


def test_the_verdict_agrees_with_the_engine_on_its_own_machine() -> None:
    zone = bare_zone(4096)
    m = zone.machine
    zone._watermark[:] = [5000, 6000, 7000, 8000]
    pa.alloc_pages(m, GFP_KERNEL, 0)
    verdict = af.explain(af.parse("\n".join(m.alloc_failures[-1][1]))).zones[0]
    assert verdict.ok is pa.zone_watermark_ok(zone, 0, 5000, 2, 0) is False
    assert verdict.free == zone.vm_stat[0]
    assert str(af.parse_free_list(show_mem.zone_free_list_line(zone))) == (
        show_mem.zone_free_list_line(zone)
    )
