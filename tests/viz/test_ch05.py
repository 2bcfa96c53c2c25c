"""Chapter 5: its figures show what the engine has, its exercises find the first wrong step, its rows equal the recordings."""

from __future__ import annotations

import importlib

import pytest

from mmcore.proc.capture import load
from mmcore.viz import ParamError, beside, check, render

ch05 = importlib.import_module("mmcore.viz.figures.ch05")
ch05_malloc = importlib.import_module("mmcore.viz.figures.ch05_malloc")
rows = importlib.import_module("mmcore.report.mapscript")
malloclog = importlib.import_module("mmcore.report.malloclog")
exercises = importlib.import_module("mmcore.viz.exercises.ch05")


def last(name, **values):
    return render(name, values).frames[-1]


def marked(name, mark, **values):
    return next(f for f in render(name, values).frames if f.mark == mark)


# ---- ch05.merge ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "merged", "splits", "ranges"),
    [
        ("new, both sides", "both", 0, [(0, 12)]),
        ("new, after the previous", "left", 0, [(0, 8)]),
        ("new, before the next", "right", 0, [(4, 12)]),
        ("new, alone", "none", 0, [(4, 8)]),
        ("new, between strangers", "left", 0, [(0, 8), (8, 12)]),
        ("changed whole, both sides", "both", 0, [(0, 12)]),
        ("changed whole, left", "left", 0, [(0, 8), (8, 12)]),
        ("changed whole, right", "right", 0, [(0, 4), (4, 12)]),
        ("left part", "left", 0, [(0, 6), (6, 8), (8, 12)]),
        ("right part", "right", 0, [(0, 4), (4, 6), (6, 12)]),
        ("left part, split", "none", 1, [(0, 4), (4, 6), (6, 8)]),
        ("right part, split", "none", 1, [(4, 6), (6, 8), (8, 12)]),
        ("middle, split twice", "none", 2, [(0, 4), (4, 5), (5, 7), (7, 8), (8, 12)]),
        ("changed whole, nobody", "none", 0, [(0, 4), (4, 8), (8, 12)]),
        ("new, before one that must not go", "left", 0, [(0, 8), (8, 12)]),
        ("new, after a child of fork()", "none", 0, [(0, 4), (4, 8)]),
        ("changed and touched, neighbours not", "none", 0, [(0, 4), (4, 8), (8, 12)]),
        ("changed, neighbours touched apart", "right", 0, [(0, 4), (4, 12)]),
    ],
)
def test_every_case_of_the_tour(mark, merged, splits, ranges):
    data = marked("ch05.merge", mark).data
    assert (data["merged"], data["splits"], data["ranges"]) == (merged, splits, ranges)


def test_the_tour_has_every_outcome():
    frames = render("ch05.merge").frames
    assert {(f.data["merged"], f.data["splits"]) for f in frames} == {
        ("both", 0), ("left", 0), ("right", 0), ("none", 0), ("none", 1), ("none", 2)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "failed"),
    [
        ("flags", "flags"),
        ("policy", "policy"),
        ("file", "file"),
        ("special", "flags"),
        ("forked", "anon_vma"),
        ("none", "no neighbour"),
    ],
)
@pytest.mark.parametrize("op", ["new", "whole"])
def test_a_neighbour_that_differs_is_named_and_left_alone(op, kind, failed):
    data = last("ch05.merge", op=op, left=kind, right="none").data
    assert data["failed"]["left"] == failed and data["merged"] == "none"


def test_a_neighbour_with_a_close_method_may_grow_but_not_vanish():
    assert last("ch05.merge", op="new", left="alike", right="close").data["merged"] == "left"
    assert last("ch05.merge", op="new", left="none", right="close").data["merged"] == "right"


def test_an_untouched_range_joins_a_touched_neighbour_but_not_the_other_way_round():
    for side in ("left", "right"):
        other = {"left": "right", "right": "left"}[side]
        untouched = last("ch05.merge", op="whole", **{side: "anon", other: "none"}).data
        touched = last(
            "ch05.merge", op="whole", touched=True, **{side: "alike", other: "none"}
        ).data
        assert untouched["merged"] == side
        assert touched["merged"] == "none" and touched["failed"][side] == "anon_vma"


def test_a_close_method_is_named_when_it_keeps_the_next_mapping():
    assert "close method" in marked("ch05.merge", "new, before one that must not go").caption


# ---- ch05.maps -----------------------------------------------------------------------------------


def maps_after(script, **values):
    return last("ch05.maps", script=script, **values).data


def test_the_default_script_tells_the_storys_points():
    counts = [f.data["map_count"] for f in render("ch05.maps").frames[1:]]
    assert counts == [1, 1, 2, 2, 2, 3, 2, 3, 5, 5, 3, 5, 5, 5]


def test_touching_between_two_changes_does_not_keep_parts_apart():
    script = "mmap 0 3 rw; touch 0; mprotect 1 1 r; touch 2; mprotect 1 1 rw"
    assert maps_after(script)["ranges"] == [(0, 3)]


def test_a_part_that_was_written_once_stays_charged():
    data = maps_after("mmap 0 2 r; mprotect 0 1 rw; touch 0; mprotect 0 1 r")
    assert data["ranges"] == [(0, 1), (1, 2)] and data["apart"] == ["at page 1: flags differ (ac)"]


def test_the_limit_stops_a_split_halfway():
    data = maps_after("mmap 0 9 rw; mprotect 1 1 r; mprotect 4 1 r", limit=4)
    assert data["result"] == -12 and data["map_count"] == 4
    assert maps_after("mmap 0 9 rw; munmap 4 1; munmap 2 1; munmap 0 1", limit=3)["result"] == 0


def test_a_moved_mapping_keeps_its_offset_and_does_not_merge():
    data = maps_after("mmap 0 2 rw; touch 0; mmap 4 2 rw; mremap 0 2 6")
    assert data["ranges"] == [(4, 6), (6, 8)]
    data = maps_after("mmap 0 2 rw; mmap 4 2 rw; mremap 0 2 6")
    assert data["ranges"] == [(4, 8)]  # never touched: it gets a new offset


def test_what_is_sealed_stays():
    for call in ("munmap 0 1", "mprotect 0 1 r", "mmap 0 1 rw", "mremap 0 1 5"):
        assert maps_after(f"mmap 0 2 rw; mseal 0 2; {call}")["result"] == -1


@pytest.mark.parametrize(
    "script", ["mmap 10 8 rw", "mremap 15 2 0", "mmap 0 1 w", "munmap 3", "fork 1"]
)
def test_the_script_refuses_in_words(script):
    with pytest.raises(ParamError) as err:
        render("ch05.maps", {"script": script})
    assert err.value.param == "script" and len(err.value.text) > 10


# ---- ch05.place ----------------------------------------------------------------------------------


def test_requests_go_where_the_recording_has_them():
    theirs = rows.kernel_questions(load("n1-1g/mappings"))
    frames = render(
        "ch05.place", {"script": "map 24; map 4; map 4; map 4; map 2048; map 2052; map 4"}
    ).frames
    got = [hex(f.data["result"]) for f in frames[2:]]
    want = [
        *theirs["three pages"],
        *theirs["2 MiB"],
        *theirs["2 MiB and a page"],
        *theirs["a page"],
    ]
    assert got == want


def test_a_hole_is_used_before_new_ground_if_it_is_the_highest():
    frames = render("ch05.place").frames
    assert frames[5].data["result"] == 0x7FFFF7FFD000
    assert last("ch05.place").data["result"] == frames[10].data["result"] - (256 << 12) - 4096


def test_an_aligned_request_searches_for_two_mebibytes_more():
    search = marked("ch05.place", "map 6").data["search"]
    assert search["length"] == 4 << 20 and search["flags"] == 1


def test_only_what_was_made_can_be_unmapped():
    with pytest.raises(ParamError, match="only 1 mapping"):
        render("ch05.place", {"script": "map 4; unmap 2"})


# ---- ch05.tree -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1, 12))
@pytest.mark.parametrize("wanted", [1, 7, 20, 40])
def test_the_path_is_the_engines_search(seed, wanted):
    r = render("ch05.tree", {"seed": seed, "wanted": wanted})
    assert r.frames[-1].mark == "found" and r.frames[-1].data["found"] > 0


def test_more_mappings_need_more_leaves():
    leaves = [
        render("ch05.tree", {"mappings": n, "wanted": 1}).frames[0].data["leaves"]
        for n in (1, 7, 20, 40)
    ]
    assert leaves == sorted(leaves) and leaves[0] == 1 and leaves[-1] >= 4


# ---- ch05.layout ---------------------------------------------------------------------------------


def test_the_layout_without_randomisation_is_the_known_one():
    data = marked("ch05.layout", "fixed").data
    assert data["mmap_base"] == 0x7FFFF7FFF000 and data["stack_top"] == 0x7FFFFFFFF000
    assert data["parts"][0][:2] == ("pie", 0x555555554000)


def test_an_unlimited_stack_leaves_five_sixths_and_is_still_top_down():
    data = marked("ch05.layout", "fixed", program="static", stack=0).data
    assert data["mmap_base"] == 0x155555556000 and data["next"] < data["mmap_base"]


def test_the_stack_limit_and_the_legacy_layout_move_where_the_search_begins():
    data = {f.mark: f.data for f in render("ch05.layout").frames}
    assert list(data) == ["fixed", "stack 1 GiB", "unlimited", "legacy", "shuffled"]
    assert data["stack 1 GiB"]["mmap_base"] == (1 << 47) - 4096 - (1 << 30) - (1 << 20)
    assert data["unlimited"]["mmap_base"] == 0x155555556000 > data["unlimited"]["next"]
    assert data["legacy"]["mmap_base"] == 0x2AAAAAAAB000 < data["legacy"]["next"]


def test_the_heap_stays_with_the_program_at_level_one():
    one = last("ch05.layout", program="static", level="1").data
    two = last("ch05.layout", program="static", level="2").data
    assert one["start_brk"] == 0x4CD000 < two["start_brk"]


# ---- ch05.stack ----------------------------------------------------------------------------------


def stack_sizes(**values):
    return [f.data["size"] >> 10 for f in render("ch05.stack", values).frames[1:]]


def test_a_stack_grows_to_the_touched_page_in_one_step():
    assert stack_sizes(script="touch 7000", neighbour="none") == [7000]
    assert last("ch05.stack", script="touch 7000", neighbour="none").data["rss"] == 2


def test_the_limit_counts_the_whole_stack():
    assert stack_sizes(script="touch 8192; touch 8193", neighbour="none") == [8192, 8192]
    data = last("ch05.stack", script="touch 8193", neighbour="none").data
    assert data["error"] == -12 and "SEGV" in data["ended"]


@pytest.mark.parametrize(
    ("neighbour", "size"), [("rw", 132), ("prot_none", 3000), ("stack", 3000), ("none", 3000)]
)
def test_only_an_accessible_neighbour_keeps_its_distance(neighbour, size):
    # The neighbour ends 2,900 KiB below a stack of 132 KiB; a touch at 3,000 leaves 32 KiB between.
    assert stack_sizes(script="touch 3000", neighbour=neighbour, distance=2900) == [size]


def test_exactly_the_gap_is_enough():
    assert stack_sizes(script="touch 1156", neighbour="rw", distance=2048) == [1156]
    assert stack_sizes(script="touch 1160", neighbour="rw", distance=2048) == [132]


# ---- ch05.cow ------------------------------------------------------------------------------------


def frames_of(script):
    return {r["name"]: r for r in last("ch05.cow", script=script).data["rows"]}


def test_the_first_writer_copies_and_the_second_reuses():
    after = frames_of("write p 0; fork; write c 0; write p 0")
    assert after["frame 1"]["exclusive"] and after["frame 1"]["mapcount"] == 1
    assert after["frame 2"]["exclusive"] and len(after) == 2
    data = last("ch05.cow", script="write p 0; fork; write c 0; write p 0").data
    assert data["faults"] == {"p": 2, "c": 1}


def test_fork_shares_and_takes_exclusivity():
    one = frames_of("write p 0; fork")["frame 1"]
    assert (one["refcount"], one["mapcount"], one["exclusive"]) == (2, 2, False)


def test_a_pinned_page_is_copied_for_the_child_and_stays_the_parents():
    after = frames_of("write p 0; pin p 0; fork; write p 0")
    assert (
        after["frame 1"]["pinned"]
        and after["frame 1"]["exclusive"]
        and after["frame 1"]["mapcount"] == 1
    )
    assert after["frame 2"]["exclusive"] and len(after) == 2


def test_pinning_a_shared_page_unshares_it_first():
    after = frames_of("write p 0; fork; pin c 0")
    assert (
        not after["frame 1"]["pinned"]
        and after["frame 2"]["pinned"]
        and after["frame 2"]["exclusive"]
    )


def test_unpinning_gives_everything_back():
    one = frames_of("write p 0; pin p 0; unpin p 0")["frame 1"]
    assert (one["refcount"], one["pinned"]) == (1, False)


@pytest.mark.parametrize(
    "script",
    [
        "write c 0",
        "fork; exit c; write c 0",
        "fork; fork",
        "unpin p 0",
        "pin p 2",
        "write p 0; pin p 0; pin p 0",
    ],
)
def test_cow_scripts_are_refused_in_words(script):
    with pytest.raises(ParamError) as err:
        render("ch05.cow", {"script": script})
    assert err.value.param == "script"


# ---- ch05.forest ---------------------------------------------------------------------------------


def test_links_grow_with_the_generations():
    data = last("ch05.forest", script="write p 0; fork p c; fork c g").data
    assert data["chains"] == {"p": ["A"], "c": ["A", "B"], "g": ["A", "B", "C"]}
    assert data["own"] == {"p": "A", "c": "B", "g": "C"}


def test_a_grandparents_page_is_looked_for_in_all_and_a_grandchilds_in_one():
    script = "write p 0; fork p c; write c 1; fork c g; write g 2"
    assert last("ch05.forest", script=script).data["visited"] == ["p", "c", "g"]
    data = last("ch05.forest", script=script, whose="g", page=2).data
    assert (data["visited"], data["mapped"]) == (["g"], ["g"])
    data = last("ch05.forest", script=script, whose="c", page=1).data
    assert (data["visited"], data["mapped"]) == (["c", "g"], ["c", "g"])


def test_a_copy_is_visited_and_not_found():
    data = last("ch05.forest", script="write p 0; fork p c; write c 0").data
    assert (data["visited"], data["mapped"]) == (["p", "c"], ["p"])


def test_an_anon_vma_without_a_mapping_is_reused():
    # The middle generation exits: its anon_vma has one child and no mapping, and serves the next fork.
    script = "write p 0; fork p c; fork c g; exit c; fork g s"
    data = last("ch05.forest", script=script, whose="p").data
    assert data["own"]["s"] == "B" and data["chains"]["s"] == ["A", "B", "C"]


# ---- ch05.overcommit -----------------------------------------------------------------------------


def test_the_modes_differ_where_the_text_says():
    frames = render("ch05.overcommit").frames[1:]
    refused = [[mode for mode, r in f.data["results"].items() if r] for f in frames]
    assert refused == [[], [], ["2"], ["2"], ["2"], ["0", "2"]]


def test_mode_two_grants_up_to_a_page_below_its_limit():
    world = ch05_malloc.Promiser("2", 1024, 0, 50, True)
    assert world.limit() == 1024 * 256 // 2
    assert world.map(511) == 0 and world.map(1) == -12


def test_no_reserve_is_free_unless_in_mode_two():
    f = last("ch05.overcommit", script="noreserve 100")
    assert f.data["committed"] == {"0": 0, "1": 0, "2": 25600}


# ---- ch05.malloc and ch05.vmaops -----------------------------------------------------------------


def test_the_allocators_calls_are_the_recorded_ones():
    capture = load("n1-1g/malloc")
    ours = malloclog.malloc_rows(malloclog.malloc_steps(capture))
    theirs = malloclog.malloc_rows(malloclog.recorded_malloc(capture))
    comparison = beside(ours, theirs, unit="values")
    assert comparison and comparison.total == 30
    assert all(f.data["same"] for f in render("ch05.malloc").frames)


def test_the_recorded_program_is_the_one_of_the_text():
    steps = {s.label: s for s in malloclog.recorded_malloc(load("n1-1g/malloc"))}
    assert (
        steps["malloc(24), 999 more"].calls == [] and len(steps["malloc(24), 5000 more"].calls) == 1
    )
    assert steps["c = malloc(200 KiB)"].calls == ["brk 0x56a000 = 0x56a000"]
    assert steps["free of the 6000, last first"].calls == []
    assert [c.split()[0] for c in steps["malloc_trim(0)"].calls] == ["madvise", "brk"]


@pytest.mark.parametrize("section", list(ch05_malloc.LOG_SECTIONS))
def test_random_calls_agree_one_by_one(section):
    counts = ch05_malloc.log_counts(section, 300)
    assert (
        counts["wrong"] == 0
        and counts["model"] == counts["kernel"]
        and len(counts["kernel"]) == 301
    )
    assert sum(bad for _, bad in counts["ops"].values()) > 20 and counts["splits"] > 50


# ---- the recorded questions ----------------------------------------------------------------------


def test_every_question_has_the_recorded_answer():
    capture = load("n1-1g/mappings")
    comparison = beside(
        rows.model_questions(capture), rows.kernel_questions(capture), unit="values"
    )
    assert comparison and comparison.total == 88 and len(comparison.rows) == 61


# ---- exercises -----------------------------------------------------------------------------------

RIGHT = {
    "three-pages": [1, 3, 1],
    "between": [[[0, 1, 2]], [[0, 1, 2]], [[0, 1], [2]]],
    "addresses": [0x7FFFF7FF8000, 0x7FFFF7FF6000, 0x7FFFF7FF5000, 1],
    "who-copies": [2, 1, 1, 2, 1, 1],
    "not-copied": [1000, 0, 4096],
    "largest": [784383, 786431],
    "cannot-fork": [0, 0, -12],
    "old-rule": [True, False],
    "two-mebibytes": [0x7FFFF7C00000, 1, 0x7FFFF7DF8000, 0],
}


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_the_solutions_are_right_and_a_wrong_last_step_is_found(name):
    answer = RIGHT[name]
    assert check(f"ch05.{name}", answer)
    wrong = [*answer[:-1], "wrong"]
    verdict = check(f"ch05.{name}", wrong)
    assert not verdict and str(len(answer) - 1) in str(verdict)


def test_the_exercises_are_those_of_the_chapter():
    known = {
        n for n in importlib.import_module("mmcore.viz.check").names() if n.startswith("ch05.")
    }
    assert known == {f"ch05.{n}" for n in RIGHT}


def test_three_pages_do_not_depend_on_being_touched():
    assert [v for _, v in exercises.three_pages(touched=True)] == [1, 3, 1]


def test_changing_the_rule_of_reuse_is_undone():
    assert exercises.leaks(lambda folio, vma: True) and not exercises.leaks()
