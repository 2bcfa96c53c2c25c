"""The figures and exercises of chapter 2: what they show is what the engine says."""

import random

import pytest

from mmcore.machine import Machine, bare_zone
from mmcore.mm import page_alloc
from mmcore.mm.gfp import GFP_KERNEL
from mmcore.mm.internal import ALLOC_MIN_RESERVE, ALLOC_NON_BLOCK, ALLOC_OOM
from mmcore.mm.mmzone import MIGRATE_MOVABLE, for_each_populated_zone
from mmcore.proc import capture
from mmcore.viz import ParamError, check, render
from mmcore.viz.check import find
from mmcore.viz.exercises import ch02 as exercises
from mmcore.viz.figures import ch02

rmqueue_smallest = getattr(page_alloc, "__rmqueue_smallest")
free_one_page = getattr(page_alloc, "__free_one_page")


def lists(zone):
    """Return the pfns of each movable free list, head first."""
    out = {}
    for order, area in enumerate(zone.free_area):
        head = area.free_list[MIGRATE_MOVABLE]
        page, pfns = head.next, []
        while page is not head:
            pfns.append(page.pfn)
            page = page.next
        if pfns:
            out[order] = pfns
    return out


# ---- ch02.buddy ----------------------------------------------------------------------------------


def test_buddy_ends_with_the_engines_lists():
    script = "alloc 2; alloc 0; alloc 1; free 4; alloc 3; free 0; alloc 0"
    frames = render("ch02.buddy", {"pages": 256, "script": script}).frames
    zone, held = bare_zone(256), {}
    for step in script.split("; "):
        verb, number = step.split()
        if verb == "alloc":
            page = rmqueue_smallest(zone, int(number), MIGRATE_MOVABLE)
            held[page.pfn] = (page, int(number))
        else:
            page, order = held.pop(int(number))
            free_one_page(page, page.pfn, zone, order, MIGRATE_MOVABLE, page_alloc.FPI_NONE)
    assert frames[-1].data["free_lists"] == lists(zone)
    assert frames[-1].data["in_use"] == {pfn: order for pfn, (_, order) in sorted(held.items())}


def test_buddy_every_frame_accounts_for_every_page():
    rng = random.Random(5)
    used, script = set(), []
    zone, held = bare_zone(128), {}
    for _ in range(50):
        if used and rng.random() < 0.45:
            pfn = rng.choice(sorted(used))
            used.remove(pfn)
            page, order = held.pop(pfn)
            free_one_page(page, pfn, zone, order, MIGRATE_MOVABLE, page_alloc.FPI_NONE)
            script.append(f"free {pfn}")
        else:
            order = rng.randrange(4)
            page = rmqueue_smallest(zone, order, MIGRATE_MOVABLE)
            script.append(f"alloc {order}")
            if page is not None:
                used.add(page.pfn)
                held[page.pfn] = (page, order)
    r = render("ch02.buddy", {"pages": 128, "script": "; ".join(script)})
    for frame in r.frames:
        pages = sum(len(p) << o for o, p in frame.data["free_lists"].items())
        pages += sum(1 << o for o in frame.data["in_use"].values())
        if frame.mark in ("given", "place", "tail", "none", "start"):
            assert pages == 128, frame.caption
        else:
            assert pages <= 128
    assert r.frames[-1].data["free_lists"] == lists(zone)


def test_buddy_says_when_a_block_goes_to_the_tail():
    frames = render("ch02.buddy").frames
    tails = [f for f in frames if f.mark == "tail"]
    assert [f.event.fields["pfn"] for f in tails] == [0, 3]
    assert all("**tail**" in f.caption for f in tails)


def test_buddy_exhausted_zone_returns_nothing():
    frames = render("ch02.buddy", {"pages": 16, "script": "alloc 4; alloc 0"}).frames
    assert frames[-1].mark == "none" and "NULL" in frames[-1].caption


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("alloc 0; free 7", "no block in use begins at page 7"),
        ("free 0", "in use are: none"),
        ("alloc 11", "11 is too large"),
        ("alloc", "takes one argument"),
        ("steal 3", "there is no 'steal'"),
        ("alloc x", "needs a whole number"),
    ],
)
def test_buddy_wrong_scripts_are_refused_in_words(script, words):
    with pytest.raises(ParamError) as err:
        render("ch02.buddy", {"script": script})
    assert err.value.param == "script" and words in str(err.value)


# ---- ch02.fragmentation --------------------------------------------------------------------------


def test_fragmentation_counts_every_page_of_every_block():
    for frame in render("ch02.fragmentation", {"blocks": 8, "rounds": 3}).frames:
        movable = unmovable = 0
        for counts in frame.data["counts"].values():
            for free, m, u in counts:
                assert free + m + u == 512 and min(free, m, u) >= 0
                movable, unmovable = movable + m, unmovable + u
        assert frame.data["held"] == {"movable": movable, "unmovable": unmovable}


def test_fragmentation_policies_differ_as_the_chapter_says():
    def mixed(**values):
        return render("ch02.fragmentation", values).frames[-1].data["mixed"]

    assert mixed(fill=90, policy="kernel") == 0
    assert mixed(fill=90, policy="steal") > 10
    assert mixed(fill=90, policy="ungrouped") > 10
    assert mixed(policy="kernel") > 10  # filled to the last page
    assert mixed(policy="kernel", nofragment=True) == 0


def test_fragmentation_without_grouping_has_one_type_only():
    frame = render("ch02.fragmentation", {"policy": "ungrouped", "rounds": 2}).frames[-1]
    assert frame.data["steals"] == 0


# ---- ch02.watermarks -----------------------------------------------------------------------------


def test_watermark_marks_are_the_captured_kernels():
    frame = render("ch02.watermarks", {"managed": 244001, "min_free_kbytes": 45056}).frames[0]
    zone = bare_zone(244001)
    zone.machine.min_free_kbytes = 45056
    page_alloc.setup_per_zone_wmarks(zone.machine)
    assert list(frame.data["marks"].values()) == zone._watermark


def test_watermark_floors_are_exact():
    for frame in render("ch02.watermarks").frames:
        served, free, low = frame.data["served"], frame.data["free"], frame.data["marks"]["min"]
        assert served["GFP_KERNEL"] is (free > low)
        assert served["GFP_NOWAIT"] is (free > low)
        assert served["OOM victim"] is (free > low - low // 2)
        half = low - low // 2
        assert served["GFP_ATOMIC"] is (free > half - half // 4)
        assert served["PF_MEMALLOC"] is (free > 0)


def test_watermarks_with_a_boost_that_nothing_survives_is_refused():
    with pytest.raises(ParamError, match="more than the zone's 2,048"):
        render("ch02.watermarks", {"managed": 2048, "boost": 65536})


# ---- ch02.zonelist -------------------------------------------------------------------------------


def test_zonelist_walk_is_refused_by_mark_then_by_reserve_then_served_remotely():
    frames = render("ch02.zonelist").frames
    rows = frames[-1].data
    assert [(r["zone"], r["verdict"]) for r in rows[:3]] == [
        ("0/Normal", "below the mark"),
        ("0/DMA32", "lowmem_reserve"),
        ("0/DMA", "lowmem_reserve"),
    ]
    assert rows[-1]["zone"] == "1/Normal" and rows[-1]["verdict"] == "passes"
    assert frames[-1].mark == "served"


def test_zonelist_must_exceed_is_the_boundary():
    """One page more than "must exceed" passes, exactly that many does not."""
    row = render("ch02.zonelist").frames[-1].data[1]
    assert row["zone"] == "0/DMA32"
    m = Machine.boot("5G", nodes=["4G", "1G"])
    zone = next(z for z in for_each_populated_zone(m) if z.name == "DMA32")
    mark, ok = zone._watermark[1], getattr(page_alloc, "__zone_watermark_ok")
    assert ok(zone, 0, mark, 3, 0, row["must_exceed"] + 1)
    assert not ok(zone, 0, mark, 3, 0, row["must_exceed"])


def test_zonelist_fails_where_all_zones_are_empty():
    values = {"normal0": 0, "dma32": 0, "dma": 0, "normal1": 0}
    assert render("ch02.zonelist", values).frames[-1].mark == "failed"


def test_zonelist_dma_requests_are_not_subject_to_the_reserve():
    frames = render("ch02.zonelist", {"gfp": "GFP_KERNEL|__GFP_DMA"}).frames
    assert frames[-1].data[-1]["zone"] == "0/DMA" and frames[-1].mark == "served"


@pytest.mark.parametrize(
    ("gfp", "words"),
    [
        ("GFP_NOSUCH", "no gfp flag"),
        ("0xcc5", "more than one zone"),
        ("0x18", "both __GFP_MOVABLE and __GFP_RECLAIMABLE"),
        ("0x80000000", "has bits that no gfp flag"),
        ("", "no gfp flag"),
    ],
)
@pytest.mark.parametrize("name", ["ch02.zonelist", "ch02.slowpath"])
def test_wrong_flags_are_refused_in_words(name, gfp, words):
    with pytest.raises(ParamError) as err:
        render(name, {"gfp": gfp})
    assert err.value.param == "gfp" and words in str(err.value)


# ---- ch02.pcp ------------------------------------------------------------------------------------


def test_pcp_series_are_the_engines():
    frame = render("ch02.pcp", {"script": "alloc 700; free 300", "cpus": 2}).frames[-1]
    zone = bare_zone(262144, cpus=2)
    m = zone.machine
    page_alloc.calculate_min_free_kbytes(m)
    page_alloc.setup_per_zone_wmarks(m)
    pcp, held = zone.per_cpu_pageset[0], []
    expected = [(pcp.count, pcp.high, pcp.alloc_factor, pcp.free_count)]
    for i in range(1000):
        if i < 700:
            held.append(page_alloc.alloc_pages(m, GFP_KERNEL, 0))
        else:
            getattr(page_alloc, "__free_pages")(held.pop(), 0)
        expected.append((pcp.count, pcp.high, pcp.alloc_factor, pcp.free_count))
    assert list(zip(*(frame.data[name] for name in ch02.PCP_FIELDS), strict=True)) == expected


def test_pcp_batches_double():
    data = render("ch02.pcp", {"script": "alloc 4000"}).frames[-1].data
    jumps = [b - a for a, b in zip(data["count"], data["count"][1:], strict=False) if b > a]
    assert [j + 1 for j in jumps[:3]] == [63, 126, 252] and data["alloc_factor"][-1] == 5


def test_pcp_frees_more_than_were_allocated_is_refused():
    with pytest.raises(ParamError, match="action 2, 'free 20': only 10 pages"):
        render("ch02.pcp", {"script": "alloc 10; free 20"})


def test_pcp_no_phase_and_too_many_are_refused():
    with pytest.raises(ParamError, match="has no phase"):
        render("ch02.pcp", {"script": ""})
    with pytest.raises(ParamError, match="60,000 are allowed"):
        render("ch02.pcp", {"script": "; ".join(["alloc 20000"] * 4)})


def test_pcp_stops_at_the_min_mark():
    frame = render("ch02.pcp", {"managed": 4096, "script": "alloc 20000"}).frames[-1]
    assert "min mark" in frame.caption


# ---- ch02.order-heatmap, ch02.page, ch02.slowpath ------------------------------------------------


def test_heatmap_rows_are_the_captured_lines():
    data = render("ch02.order-heatmap").frames[0].data
    text = capture.load("n1-256m/oom")["global_dmesg"]
    first = next(line for line in text.splitlines() if "Node 0 DMA32: " in line)
    counts = [int(word.split("*")[0]) for word in first.split() if "*" in word]
    assert data["kernel"][0] == counts and len(data["kernel"]) == 18
    assert len(data["model"]) == len(data["kernel"])


def test_heatmap_capture_without_lists_is_refused():
    with pytest.raises(ParamError):
        render("ch02.order-heatmap", {"capture": "n1-1g/watermarks"})
    with pytest.raises(ParamError):
        render("ch02.order-heatmap", {"capture": "no/such"})


@pytest.mark.parametrize("state", ch02.PAGE_NAMES)
def test_struct_page_is_64_bytes_without_gap_or_overlap(state):
    frame = render("ch02.page", {"state": state}).frames[0]
    assert frame.mark == state
    at = 0
    for offset, size, _, _ in frame.data:
        assert offset == at and size in (4, 8)
        at += size
    assert at == 64


def test_struct_page_values_come_from_the_engine():
    words = {name: value for _, _, name, value in render("ch02.page").frames[0].data}
    assert words["private"] == "order: 10" and words["page_type"] == "0xf0000000 (buddy)"
    tail = {n: v for _, _, n, v in render("ch02.page", {"state": "tail"}).frames[0].data}
    assert tail["_folio_nr_pages"] == "16" and tail["_large_mapcount"] == "-1"


def steps(**values):
    return render("ch02.slowpath", values).frames[-1].data


def test_slowpath_which_flag_ends_it():
    assert steps(gfp="GFP_ATOMIC", order=4)[-3:] == ["freelist", "nopage", "warn_alloc"]
    assert "direct_reclaim" not in steps(gfp="GFP_ATOMIC", order=4)
    noretry = steps(gfp="GFP_KERNEL|__GFP_NORETRY", order=3)
    assert noretry[-3:] == ["direct_compact", "nopage", "warn_alloc"]
    assert "should_reclaim_retry" not in noretry
    costly = steps(gfp="GFP_KERNEL", order=5)
    assert "may_oom" not in costly and costly[-1] == "warn_alloc"
    assert "may_oom" in steps(gfp="GFP_KERNEL", order=3)
    assert steps(task="memalloc")[-3:] == ["freelist", "nopage", "warn_alloc"]


def test_slowpath_ways_to_a_page():
    assert steps(memory="low", order=0, reclaim="enough")[-2:] == ["direct_reclaim", "got_pg"]
    assert steps(compaction="succeeds")[-2:] == ["direct_compact", "got_pg"]
    killed = steps(memory="low", order=0, reclaim="nothing", oom="kills")
    assert killed[-1] == "got_pg" and "may_oom" in killed
    assert steps(memory="low", order=0, gfp="GFP_ATOMIC")[-1] == "got_pg"
    assert steps(memory="low", order=0, task="memalloc")[-1] == "got_pg"
    assert steps(order=0) == []  # the fast path


def test_slowpath_nofail_for_ever_is_said_in_words():
    with pytest.raises(ParamError, match="loop for ever"):
        render("ch02.slowpath", {"gfp": "GFP_KERNEL|__GFP_NOFAIL", "order": 5})


# ---- exercises -----------------------------------------------------------------------------------

ANSWERS = {
    "ch02.free-order": [(0, 8, "head"), (1, 8, "head"), (0, 11, "tail"), (2, 8, "head")],
    "ch02.gfp": "GFP_KERNEL|__GFP_NOWARN|__GFP_NORETRY|__GFP_COMP",
    "ch02.expand-tail": 0,
    "ch02.claim": [212, 0, False, 2],
    "ch02.failure": [10209, 272, 3, False],
    "ch02.high-min": 3917,
    "ch02.nowait": [0, 100, True],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_right_answers_are_accepted(name):
    assert check(name, ANSWERS[name])


@pytest.mark.parametrize(
    ("name", "answer", "step"),
    [
        ("ch02.free-order", [(0, 8, "head"), (1, 8, "head"), (0, 11, "head"), (2, 8, "head")], 3),
        ("ch02.free-order", [(0, 8, "head")], 2),
        ("ch02.gfp", "GFP_KERNEL|__GFP_NOWARN", 1),
        ("ch02.gfp", "0x52cc0", 1),
        ("ch02.expand-tail", 512, 1),
        ("ch02.claim", [212, 300, True, 2], 2),
        ("ch02.failure", [10240, 272, 3, False], 1),
        ("ch02.high-min", 15670, 1),
        ("ch02.nowait", [250, 100, True], 1),
    ],
)
def test_wrong_answers_are_named_at_their_first_wrong_step(name, answer, step):
    verdict = check(name, answer)
    assert not verdict and verdict.step == step


@pytest.mark.parametrize("name", ANSWERS)
def test_an_empty_answer_does_not_give_the_solution_away(name):
    verdict = check(name, ...)
    assert not verdict and verdict.expected is None and "No answer yet" in verdict.text


def test_exercise_watermarks_follow_from_the_managed_pages():
    answer = find("ch02.watermarks").function()
    assert answer[0] == ("THP always: min_free_kbytes", 45056)
    assert 5600 < answer[3][1] < 5800
    assert check("ch02.watermarks", [value for _, value in answer])


def test_exercise_claim_by_half_a_block():
    for movable, unmovable in ((0, 256), (100, 156), (255, 1), (256, 0), (257, 0)):
        answer = dict(find("ch02.claim").function(movable=movable, unmovable=unmovable))
        free = 512 - movable - unmovable
        assert (answer["free pages"], answer["alike pages"]) == (free, unmovable)
        assert answer["claimed"] is (free + unmovable >= 256)


def test_exercise_free_order_new_seed_new_case():
    assert exercises.free_order_case(1) != exercises.free_order_case(2)
    assert exercises.free_order_case(1) == exercises.free_order_case(1)
    assert check(
        "ch02.free-order", [v for _, v in find("ch02.free-order").function(seed=4)], seed=4
    )


def test_exercise_steal_largest_spreads_over_more_blocks():
    kernel = exercises.steal_trace()
    largest = [pfn for _, pfn in find("ch02.steal-largest").function()]
    assert len({pfn // 512 for pfn in kernel}) == 1
    assert len({pfn // 512 for pfn in largest}) == 4
    assert check("ch02.steal-largest", largest) and not check("ch02.steal-largest", kernel)


def test_patched_restores_the_engine():
    original = page_alloc.expand
    with pytest.raises(ZeroDivisionError), exercises.patched("expand", lambda *a: 1 // 0):
        exercises.sequential_pfns(count=1)
        rmqueue_smallest(bare_zone(2), 0, MIGRATE_MOVABLE)
    assert page_alloc.expand is original
    with pytest.raises(exercises.UsageError), exercises.patched("no_such", len):
        pass


def test_floors_of_the_table_in_the_text():
    zone = bare_zone(4096)
    ok = getattr(page_alloc, "__zone_watermark_ok")
    for flags, floor in (
        (0, 1000),
        (ALLOC_NON_BLOCK, 1000),
        (ALLOC_MIN_RESERVE, 500),
        (ALLOC_OOM, 500),
        (ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK, 375),
    ):
        assert ok(zone, 0, 1000, 0, flags, floor + 1) and not ok(zone, 0, 1000, 0, flags, floor)
