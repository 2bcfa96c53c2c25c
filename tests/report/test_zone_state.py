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


# ---- texts of other kernels ----------------------------------------------------------------------


def same_shares(text: str) -> int:
    """Compare what the text says with what the engine says of a machine made from it."""
    from mmcore import rebuild

    cap = capture.Capture("x")
    cap.sections.append(capture.Section("zoneinfo", "cat /proc/zoneinfo", "0", text, 1))
    mine = zone_state.examine(text).states
    engine = zone_state.zone_states(rebuild.from_zoneinfo(cap))
    assert mine == engine
    return sum(len(state.shares) for state in mine)


CAPTURES = [
    "n1-1g/physical",
    "n2-5g/physical",
    "n4-1g/physical",
    "n1-1g/watermarks",
    "n4-1g/watermarks",
]


@pytest.mark.parametrize("name", CAPTURES)
def test_real_files_give_what_the_engine_gives(name: str) -> None:
    text = capture.load(name).file("/proc/zoneinfo")
    assert text is not None and same_shares(text) >= 42


def test_indentation_and_other_counters_do_not_matter() -> None:
    text = capture.load("n4-1g/physical")["zoneinfo"]
    want = zone_state.examine(text).states
    bare = "\n".join(line.strip() for line in text.split("\n") if "nr_" not in line)
    assert zone_state.examine(bare).states == want
    wrapped = text.replace(", 943", ",\n        943")
    assert zone_state.examine(wrapped).states == want


#: The form of 2.6.32 to 4.7: no per-node part, counters before the protection, four zones.
OLD = """Node 0, zone      DMA
  pages free     3976
        min      33
        low      41
        high     49
        scanned  0
        spanned  4095
        present  3840
    nr_free_pages 3976
    nr_inactive_anon 0
        protection: (0, 2983, 16095, 16095)
  pagesets
    cpu: 0
              count: 0
              high:  0
              batch: 1
  vm stats threshold: 8
  all_unreclaimable: 1
  start_pfn:         1
  inactive_ratio:    1
Node 0, zone   Normal
  pages free     20000
        min      14000
        low      17500
        high     21000
        scanned  12
        spanned  3407872
        present  3407872
        managed  3356700
    nr_free_pages 20000
        protection: (0, 0, 0, 0)
  pagesets
    cpu: 0
              count: 155
              high:  186
              batch: 31
"""


def test_an_old_kernels_file() -> None:
    report = zone_state.examine(OLD)
    assert report.kinds == ["DMA", "DMA32", "Normal", "Movable"] and report.old
    dma = report.states[0]
    assert (dma.free, dma.min, dma.managed) == (3976, 33, 3840)  # no "managed" then: present
    by_key = {(s.zone, x.request.name, x.highest): x.pages for s in report.states for x in s.shares}
    assert by_key["DMA", "GFP_KERNEL, GFP_USER", 0] == 3976 - 33
    assert by_key["DMA", "GFP_KERNEL, GFP_USER", 2] == 0  # 3976 < 33 + 16095
    assert by_key["Normal", "any, first try", 2] == 20000 - 17500
    assert by_key["Normal", "GFP_ATOMIC", 2] == 20000 - 14000 * 3 // 8
    lines = report.lines()
    assert lines[0].startswith("GFP_KERNEL can have 6000 pages")
    assert any("between low and high" in line for line in lines)
    assert any("An older kernel wrote this text, or lines were left out" in line for line in lines)


def test_zones_of_a_32_bit_kernel() -> None:
    text = "".join(
        f"Node 0, zone {name}\n pages free 1000\n min 10\n low 12\n high 14\n present 2000\n"
        f" protection: ({protection})\n"
        for name, protection in (
            ("DMA", "0, 700, 3000, 3000"),
            ("Normal", "0, 0, 2300, 2300"),
            ("HighMem", "0, 0, 0, 0"),
        )
    )
    report = zone_state.examine(text)
    assert report.kinds == ["DMA", "Normal", "HighMem", "Movable"]
    assert [who for _, who in report.columns] == [
        "GFP_DMA",
        "GFP_KERNEL",
        "GFP_HIGHUSER",
        "GFP_HIGHUSER_MOVABLE",
    ]
    normal = {x.highest: x.pages for x in report.states[1].shares if x.request.name == "GFP_NOWAIT"}
    assert normal == {1: 990, 2: 0, 3: 0}  # 1000 < 10 + 2300


def test_with_free_blocks_the_largest_order_is_told() -> None:
    cap = capture.load("n1-1g/physical")
    report = zone_state.examine(cap["zoneinfo"] + cap["buddyinfo"])
    assert {share.largest for s in report.states for share in s.shares} == {10}
    few = cap["zoneinfo"] + "Node 0, zone DMA32 100000 200 3 0 0 0 0 0 0 0 0\n"
    shares = [x for s in zone_state.examine(few).states if s.zone == "DMA32" for x in s.shares]
    assert {x.largest for x in shares} == {2}
    dma = [x for s in zone_state.examine(few).states if s.zone == "DMA" for x in s.shares]
    assert {x.largest for x in dma} == {None}


def test_low_memory_is_said_first() -> None:
    text = OLD.replace("free     20000", "free     14000")
    said = zone_state.examine(text).summary()
    assert said == (
        "GFP_KERNEL must reclaim before it gets a page, from any zone; 8750 pages are left for "
        "GFP_ATOMIC."
    )
    text = OLD.replace("free     20000", "free     15000")
    assert (
        "below the low mark: node 0 Normal. kswapd is awake" in zone_state.examine(text).summary()
    )
    text = OLD.replace("free     20000", "free     1000")
    assert zone_state.examine(text).summary().endswith("GFP_ATOMIC fails, too.")


def test_a_boosted_mark_does_not_hold_for_single_atomic_pages() -> None:
    """zone_watermark_fast() tests order-0 requests that may use the reserve against the mark itself."""
    text = OLD.replace("        min      14000", "        boost    4000\n        min      14000")
    (normal,) = [s for s in zone_state.examine(text).states if s.zone == "Normal"]
    floors = {x.request.name: x.floor for x in normal.shares if x.highest == 2}
    assert floors["GFP_KERNEL, GFP_USER"] == 14000
    assert floors["GFP_ATOMIC"] == 10000 - 5000 - 5000 // 4


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", 1, "empty"),
        ("hello\n", 1, "no line is of the form"),
        ("\n\nNode 0, zone DMA\n pages free 5\n", 3, "no 'min' line"),
        (OLD.replace("        low      41\n", ""), 1, "no 'low' line"),
        (OLD.replace("(0, 2983, 16095, 16095)", "(0, x)"), 1, "no 'protection' line"),
        ("Node x, zone DMA\n", 1, "expected"),
    ],
)
def test_damaged_texts_name_the_line(text: str, line: int, why: str) -> None:
    from mmcore.errors import ParseError

    with pytest.raises(ParseError, match=why) as caught:
        zone_state.examine(text)
    assert caught.value.line == line


def test_a_text_cut_short_is_read_as_far_as_it_is_whole() -> None:
    text = capture.load("n1-1g/physical")["zoneinfo"]
    whole = zone_state.examine(text).states
    for length in range(400, len(text), 517):
        try:
            states = zone_state.examine(text[:length]).states
        except Exception as err:
            assert "no '" in str(err) and length < text.index("Node 0, zone    DMA32") + 3000
            continue
        assert [s.zone for s in states] == [s.zone for s in whole][: len(states)]


# ---- which entry of lowmem_reserve applies -------------------------------------------------------


def cut(name: str, protection: str, free: int = 1000, managed: int = 2000) -> str:
    return (
        f"Node 0, zone {name}\n pages free {free}\n min 10\n low 12\n high 14\n promo 16\n"
        f" present {managed}\n managed {managed}\n protection: ({protection})\n"
    )


def test_one_zone_of_a_kernel_whose_others_are_not_known() -> None:
    """DMA alone, four numbers: GFP_KERNEL is the second with HighMem, the third with DMA32."""
    report = zone_state.examine(cut("DMA", "0, 700, 3000, 3000"))
    assert report.kinds == [
        "DMA",
        "DMA32 or Normal",
        "Normal or HighMem or Movable",
        "Movable or Device",
    ]
    assert "GFP_DMA32 or GFP_KERNEL" in [who for _, who in report.columns]
    assert report.summary().startswith("GFP_KERNEL can have 0 to 290 pages before it must reclaim")
    notes = " ".join(report.notes)
    assert "DMA/DMA32/Normal/Movable or DMA/Normal/HighMem/Movable or" in notes


def test_normal_of_32_bit_arm_without_zone_dma() -> None:
    """A zone keeps nothing from its own requests: Normal is the first here, not the second."""
    report = zone_state.examine(cut("Normal", "0, 2032, 2032", managed=190000))
    assert report.kinds == ["Normal", "HighMem or Movable", "Movable or Device"]
    assert dict(report.columns)[0] == "GFP_KERNEL"
    assert report.pages(zone_state.REQUESTS[1], 0) == 990
    assert report.summary().startswith("GFP_KERNEL can have 990 pages")


@pytest.mark.parametrize(
    ("zones", "length", "layouts"),
    [
        ([("Normal", (0, 0, 2032, 2032), 0), ("HighMem", (0, 0, 0, 0), 0)], 4, 1),
        ([("DMA", (0, 9, 90, 90, 90), 0)], 5, 1),
        ([("DMA", (0, 9, 90), 0)], 3, 3),
        ([("DMA", (0, 9, 90), 0), ("Normal", (0, 0, 7), 1 << 20)], 3, 1),
        ([("Movable", (0, 0, 0), 0)], 3, 4),
    ],
)
def test_the_zones_a_kernel_can_have(
    zones: list[tuple[str, tuple[int, ...], int]], length: int, layouts: int
) -> None:
    seen = [zone_state.Seen(*zone) for zone in zones]
    found = zone_state.zone_layouts(seen, length)
    assert len(found) == layouts
    for kinds in found:
        assert len(kinds) == length and all(zone.name in kinds for zone in seen)
