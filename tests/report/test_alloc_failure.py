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


# ---- logs of other kernels, and other reports ----------------------------------------------------

#: In the forms of the releases named, with numbers of our own.
OLD_REPORTS = {
    "2.6.32": """swapper: page allocation failure. order:2, mode:0x20
Pid: 0, comm: swapper Not tainted 2.6.32 #1
Mem-Info:
Node 0 DMA per-cpu:
CPU    0: hi:    0, btch:   1 usd:   0
active_anon:1000 inactive_anon:20 isolated_anon:0
 free:12500 slab_reclaimable:5 slab_unreclaimable:6
Node 0 Normal free:50000kB min:60000kB low:75000kB high:90000kB active_anon:0kB present:800000kB pages_scanned:0 all_unreclaimable? yes
lowmem_reserve[]: 0 0 0 0
Node 0 Normal: 10000*4kB 1250*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB 0*2048kB 0*4096kB = 50000kB
""",
    "3.18": """writer: page allocation failure: order:3, mode:0x204010
CPU: 2 PID: 2674 Comm: writer Not tainted 3.18.18 #1
Mem-Info:
Node 0 DMA32 free:250000kB min:30000kB low:37500kB high:45000kB present:800000kB managed:790000kB pages_scanned:0 all_unreclaimable? no
lowmem_reserve[]: 0 0 60000 60000
Node 0 Normal free:90000kB min:65000kB low:81000kB high:97000kB present:800000kB managed:790000kB pages_scanned:0 all_unreclaimable? no
lowmem_reserve[]: 0 0 0 0
Node 0 DMA32: 62500*4kB (UEMR) 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB 0*2048kB 0*4096kB = 250000kB
Node 0 Normal: 22500*4kB (UEM) 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB 0*2048kB 0*4096kB = 90000kB
""",
    "4.9": """java: page allocation failure: order:10, mode:0x2084020(GFP_ATOMIC|__GFP_COMP)
CPU: 0 PID: 179 Comm: java Not tainted 4.9.56 #53
Mem-Info:
active_anon:3268 inactive_anon:2 isolated_anon:0
Normal free:248344kB min:2444kB low:3052kB high:3660kB present:1048572kB managed:733000kB free_cma:240936kB
lowmem_reserve[]: 0 0
Normal: 2*4kB (UM) 0*8kB 0*16kB 1*32kB (M) 0*64kB 0*128kB 0*256kB 5*512kB (M) 0*1024kB 0*2048kB 60*4096kB (C) = 248360kB
""",
    "4.14": """kworker/1:2: page allocation failure: order:1, mode:0x14000c0(GFP_KERNEL), nodemask=(null)
kworker/1:2 cpuset=/ mems_allowed=0
Mem-Info:
Node 0 DMA32 free:1000kB min:30000kB low:37500kB high:45000kB present:800000kB managed:790000kB
lowmem_reserve[]: 0 0 0 0 0
Node 0 DMA32: 250*4kB (UE) 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB 0*2048kB 0*4096kB = 1000kB
""",
}


def explained(text: str) -> af.Explanation:
    (report,) = af.parse_all(text)
    assert report.problems == []
    return af.explain(report)


def test_2_6_32_free_lists_without_types() -> None:
    e = explained(OLD_REPORTS["2.6.32"])
    assert (e.report.comm, e.report.order, e.report.numbering.version) == ("swapper", 2, "3.13")
    (z,) = e.zones
    # GFP_ATOMIC: min 15000, half is 7500, three quarters of that 5625; 12500 free, no block of order 2.
    assert (z.free, z.mark, z.ok, z.block, z.largest_order) == (12500, 5625, False, False, 1)
    assert e.cause == "fragmentation"
    assert e.report.counts["free"] == 12500 and e.report.counts["active_anon"] == 1000


def test_3_18_reserves_and_a_mask_without_names() -> None:
    e = explained(OLD_REPORTS["3.18"])
    assert e.report.numbering.names(e.report.gfp_mask) == "GFP_NOIO|__GFP_COMP|__GFP_NOTRACK"
    dma32, normal = e.zones
    assert (dma32.mark, dma32.reserve) == (7500, 60000) and dma32.free == 62500
    assert "too little free: 62500 free - 7 <= mark 7500 + lowmem_reserve 60000" in dma32.why
    assert (normal.free, normal.mark, normal.block) == (22500, 16250, False)
    assert e.cause == "fragmentation" and "node 0 Normal" in e.summary()


def test_4_9_blocks_of_a_cma_area_are_not_for_everybody() -> None:
    e = explained(OLD_REPORTS["4.9"])
    (z,) = e.zones
    assert (z.node, z.free, z.unusable) == (None, 62086, 240936 // 4 + 1023)
    assert not z.ok and not z.block and z.types == "C"
    assert "those that are free are of type C" in z.why
    movable = explained(
        OLD_REPORTS["4.9"].replace(
            "0x2084020(GFP_ATOMIC|__GFP_COMP)", "0x24200ca(GFP_HIGHUSER_MOVABLE)"
        )
    )
    assert movable.zones[0].ok and movable.zones[0].block


def test_4_14_cpuset_on_a_line_of_its_own() -> None:
    e = explained(OLD_REPORTS["4.14"])
    assert (e.report.cpuset, e.report.mems_allowed, e.report.nodemask) == ("/", "0", "(null)")
    assert e.cause == "shortage" and "no block that large is free either" in e.summary()


def test_nodes_that_the_request_may_not_use_do_not_count() -> None:
    zones = "".join(
        f"Node {n} Normal free:{free}kB min:1000kB low:1250kB high:1500kB managed:80000kB\n"
        "lowmem_reserve[]: 0 0 0 0 0\n"
        for n, free in ((0, 400), (1, 60000))
    )
    head = "x: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), nodemask={},cpuset=/a,mems_allowed={}\n"
    assert explained(head.format("(null)", "0-1") + zones).cause == "passes"
    for nodemask, mems in (("0", "0-1"), ("(null)", "0"), ("0,2-3", "0-1")):
        e = explained(head.format(nodemask, mems) + zones)
        assert e.cause == "shortage"
        assert [z.allowed for z in e.zones] == [True, False] and "excludes the node" in e.zones[
            1
        ].why


def test_reports_of_the_oom_killer() -> None:
    from mmcore.proc import capture

    cap = capture.load("n1-256m/oom")
    for section in ("swap_dmesg", "global_dmesg"):
        reports = af.parse_all(cap[section])
        assert len(reports) == cap[section].count("Mem-Info:")
        for report in reports:
            assert report.whole and not report.problems
            e = af.explain(report)
            assert report.kind == "failure" or (
                report.killed and e.lines()[0].startswith("OOM killer, ")
            )
            assert {z.zone for z in e.zones} == {"DMA", "DMA32"}
    for report in af.parse_all(cap["memcg_dmesg"]):
        assert report.kind == "oom" and report.memcg is not None
        assert af.explain(report).cause == "cgroup"


def test_memory_without_a_request() -> None:
    text = (
        "[ 5.0] sysrq: Show Memory\n[ 5.0] Mem-Info:\n"
        + OLD_REPORTS["4.14"].split("Mem-Info:\n")[1]
    )
    e = explained(text)
    assert e.report.kind == "memory" and e.cause == "none"
    assert "250 pages free, min mark 7500; largest free block: order 0" in str(e.zones[0])


@pytest.mark.parametrize(
    ("head", "kind", "order"),
    [
        (
            "a b: page allocation stalls for 10005ms, order:0, mode:0x14000c0(GFP_KERNEL), nodemask=(null)",
            "stall",
            0,
        ),
        ("vmalloc: allocation failure: 4096 bytes, mode:0xd2", "vmalloc", 0),
        (
            "x: vmalloc error: size 8192, failed to allocate pages, mode:0xdc0(GFP_KERNEL|__GFP_ZERO), nodemask=(null)",
            "vmalloc",
            0,
        ),
        (
            "y: vmemmap alloc failure: order:9, mode:0xcc0(GFP_KERNEL), nodemask=(null)",
            "vmalloc",
            9,
        ),
        (
            "z invoked oom-killer: gfp_mask=0x14200ca(GFP_HIGHUSER_MOVABLE), nodemask=(null), order=0, oom_score_adj=0",
            "oom",
            0,
        ),
        ("z invoked oom-killer: gfp_mask=0x201da, order=2, oom_score_adj=0", "oom", 2),
        (
            "kworker/0:1 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, oom_score_adj=0",
            "oom",
            0,
        ),
    ],
)
def test_first_lines(head: str, kind: str, order: int) -> None:
    (report,) = af.parse_all(head)
    assert (report.kind, report.order) == (kind, order)
    assert "cause unknown: the report has no zones" in af.explain(report).summary()


def test_damage_is_told_and_the_rest_is_read() -> None:
    text = OLD_REPORTS["4.14"].replace("250*4kB", "251*4kB")
    (report,) = af.parse_all(text)
    assert report.problems == ["line 6: the blocks add up to 1004kB; it was left out"]
    e = af.explain(report)
    assert e.zones[0].free == 250 and "line 6:" in e.lines()[-1]
    assert str(report) == text


def test_pages_of_64_kilobytes() -> None:
    blocks = "".join(
        f"{n}*{64 << o}kB " + ("(U) " if n else "") for o, n in enumerate([5, 1, 0, 0])
    )
    text = (
        "x: page allocation failure: order:2, mode:0xcc0(GFP_KERNEL), nodemask=(null)\n"
        "Node 0 Normal free:448kB min:128kB low:192kB high:256kB\n"
        f"lowmem_reserve[]: 0 0\nNode 0 Normal: {blocks}= 448kB\n"
    )
    e = explained(text)
    assert (e.zones[0].free, e.zones[0].mark, e.zones[0].largest_order) == (7, 2, 1)
    assert "order 2, 256 kB" in e.summary()


def test_the_verdict_on_failures_of_the_engine_itself() -> None:
    """Reports the engine writes of its own failed requests: the cause is what made them fail."""
    for order in (4, 5, 6, 8):
        e = af.explain(af.parse("\n".join(failing_machine(order))))
        assert e.cause == "fragmentation"
        assert e.zones[0].largest_order == order - 1


def test_who_asked_is_read_from_the_stack_trace() -> None:
    from mmcore.proc import capture

    cap = capture.load("n1-256m/oom")
    said = "\n".join(af.explain(af.parse(cap["swap_dmesg"])).lines())
    assert (
        "Asked for by __read_swap_cache_async() <- swap_cluster_readahead() <- swapin_readahead()"
        in said
    )
    first, *_ = af.parse_all(cap["memcg_dmesg"])
    assert "Asked for by do_anonymous_page() <- __handle_mm_fault()" in "\n".join(
        af.explain(first).lines()
    )
    old = OLD_REPORTS["3.18"].replace(
        "Mem-Info:",
        "Call Trace:\n [<ffffffff815f3246>] dump_stack+0x46/0x58\n"
        " [<ffffffff81138d22>] warn_alloc_failed+0xe2/0x150\n"
        " [<ffffffff8113c09a>] __alloc_pages_nodemask+0x22a/0x240\n"
        " [<ffffffff8118615e>] ? stale_word+0x2ee/0x300\n [<ffffffff8118615e>] new_slab+0x2ee/0x300\n"
        " [<ffffffffa02a5d81>] my_write+0x91/0x1d0 [my_driver]\nMem-Info:",
    )
    assert "Asked for by my_write()" in [line.strip() for line in explained(old).lines()]
    bare = OLD_REPORTS["3.18"].replace("Mem-Info:", " my_write+0x91/0x1d0\nMem-Info:")
    assert not any("Asked for" in line for line in explained(bare).lines())


def test_names_count_where_the_number_is_of_an_unknown_kernel() -> None:
    text = OLD_REPORTS["4.14"].replace("0x14000c0", "0x77")
    e = explained(text)
    assert e.report.gfp_mask == 0x77 and e.report.reference_mask == GFP_KERNEL
    assert "ALLOC_NON_BLOCK" not in e.lines()[1]
    assert any("its names are used" in note for note in e.notes)
    assert str(e.report) == text


def test_lines_that_several_cpus_printed_into() -> None:
    text = (
        "[ 9.1] kworker/2:1: page allocation failure: order:0, mode:0x1080020(GFP_ATOMIC), nodemask=(null)\n"
        "[ 9.2] (UMEH) DMA32 free:250304kB min:1924kB low:3800kB high:5676kB active_anon:26960kB\n"
        "[ 9.3] 7*2048kB Normal free:24284kB min:65640kB low:129584kB high:193528kB managed:63949432kB\n"
        "[ 9.4] 44*4096kB  0(UM)  0= 250304kB\n"
    )
    (report,) = af.parse_all(text)
    assert [(z.name, z.pages("free"), z.pages("min")) for z in report.zones] == [
        ("DMA32", 62576, 481),
        ("Normal", 6071, 16410),
    ]
    assert "line 2: several CPUs printed into this line; DMA32 is read" in report.problems
    assert "Normal: no lowmem_reserve line; the test takes it as 0" in report.problems
    assert str(report) == text
    lines = af.explain(report).lines()
    assert "Node" not in lines[2] and "DMA32: passes the test now" in lines[2]


def dma_alone(reserve: str, gfp: str, free_kb: int) -> af.Explanation:
    """A report that was cut down to its DMA zone."""
    return af.explain(
        af.parse(
            f"[ 1.0] x: page allocation failure: order:0, mode:{gfp}, nodemask=(null)\n"
            f"[ 1.0] Node 0 DMA free:{free_kb}kB boost:0kB min:40kB low:48kB high:56kB managed:15360kB\n"
            f"[ 1.0] lowmem_reserve[]: {reserve}\n"
        )
    )


@pytest.mark.parametrize(
    ("reserve", "gfp", "highest", "least", "more"),
    [
        ("0 700 3000 3000", "0xcc0(GFP_KERNEL)", "Normal", 700, "is 700 to 3000"),
        ("0 700 700 700", "0xcc0(GFP_KERNEL)", "Normal", 700, ""),
        ("0 700 3000 3000", "0xcc1(GFP_KERNEL|GFP_DMA)", "DMA", 0, ""),
        ("0 700 3000 3000", "0xcc4(GFP_KERNEL|GFP_DMA32)", "DMA32 or Normal", 700, ""),
        ("0 700 3000", "0x100cca(GFP_HIGHUSER_MOVABLE)", "Movable", 3000, ""),
    ],
)
def test_the_reserve_that_applies(
    reserve: str, gfp: str, highest: str, least: int, more: str
) -> None:
    explanation = dma_alone(reserve, gfp, 8000)
    (zone,) = explanation.zones
    assert explanation.highest_zone == highest and zone.reserve == least
    assert more in zone.why
    assert ("the report does not tell" in zone.why) == bool(more)


def test_a_range_of_reserves_says_what_it_changes() -> None:
    explanation = dma_alone("0 700 3000 3000", "0xcc0(GFP_KERNEL)", 8000)
    assert explanation.cause == "unknown" and "lowmem_reserve applies" in explanation.summary()
    (zone,) = explanation.zones
    assert zone.why.endswith("with 3000 too little is free") and zone.ok
    (zone,) = dma_alone("0 700 3000 3000", "0xcc0(GFP_KERNEL)", 1000).zones
    assert not zone.ok and zone.why.endswith("does not tell the kernel's zones")


def test_a_request_for_dma_on_a_kernel_without_that_zone() -> None:
    """Its highest zone is Normal then; HighMem was taken for it."""
    explanation = af.explain(
        af.parse(
            "[ 1.0] x: page allocation failure: order:0, mode:0xcc1(GFP_KERNEL|GFP_DMA), nodemask=(null)\n"
            "[ 1.0] Normal free:400kB boost:0kB min:40kB low:48kB high:56kB managed:760000kB\n"
            "[ 1.0] lowmem_reserve[]: 0 2032 2032\n"
            "[ 1.0] HighMem free:400kB boost:0kB min:40kB low:48kB high:56kB managed:260000kB\n"
            "[ 1.0] lowmem_reserve[]: 0 0 0\n"
        )
    )
    assert explanation.highest_zone == "Normal"
    assert [z.allowed for z in explanation.zones] == [True, False]
