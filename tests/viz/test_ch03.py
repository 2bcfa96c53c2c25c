"""Chapter 3: its figures show what the engine has, its exercises find the first wrong step, its rows equal the recordings."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest

from mmcore.arch.x86 import kaslr
from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86.pgtable_types import decode_pte
from mmcore.proc.capture import load
from mmcore.viz import ParamError, beside, check, render

ch03 = importlib.import_module("mmcore.viz.figures.ch03")
rows = importlib.import_module("mmcore.viz.figures.ch03_beside")


def last(name, **values):
    return render(name, values).frames[-1]


# ---- ch03.walk -----------------------------------------------------------------------------------


def test_the_walk_shows_the_indices_that_the_exercise_asks_for():
    first = render("ch03.walk").frames[0]
    assert first.data["indices"] == {
        "PGD": 254,
        "PUD": 232,
        "PMD": 145,
        "PTE": 325,
        "offset": 0x678,
    }


@pytest.mark.parametrize(
    ("leaf", "loads", "physical"),
    [
        ("4K", 4, 0x123456 << 12 | 0x678),
        ("2M", 3, 0x123400 << 12 | 0x7F3A12345678 & (1 << 21) - 1),
        ("1G", 2, 0x100000 << 12 | 0x7F3A12345678 & (1 << 30) - 1),
    ],
)
def test_a_large_leaf_ends_the_walk_earlier(leaf, loads, physical):
    r = render("ch03.walk", {"leaf": leaf})
    assert len(r.frames) == 1 + loads
    assert int(r.frames[-1].data["physical"], 16) == physical


def test_five_levels_read_one_entry_more():
    assert len(render("ch03.walk", {"levels": "5"}).frames) == 6


def test_isolation_hides_the_direct_map_from_user_mode():
    where = {"address": "0xffff888000100abc", "pti": True}
    kernel = last("ch03.walk", tables="kernel", **where)
    assert int(kernel.data["physical"], 16) == 0x100ABC
    user = last("ch03.walk", tables="user", **where)
    assert user.data["kind"] == "none" and "empty" in user.caption


def test_isolation_marks_the_kernels_copy_of_a_user_entry_nx():
    kernel = render("ch03.walk", {"pti": True}).frames[1].data["entry"]
    user = render("ch03.walk", {"pti": True, "tables": "user"}).frames[1].data["entry"]
    assert int(kernel, 16) == int(user, 16) | 1 << 63


def test_a_non_canonical_address_is_no_page_fault():
    r = render("ch03.walk", {"address": "0x800000000000"})
    assert len(r.frames) == 1 and "general protection fault" in r.frames[0].caption
    assert len(render("ch03.walk", {"address": "0x800000000000", "levels": "5"}).frames) > 1


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"address": "7fgh"}, "address"),
        ({"address": "0x1" + "0" * 16}, "address"),
        ({"address": "0x7ffffffff000"}, "address"),
        ({"tables": "user"}, "tables"),
        ({"leaf": "3M"}, "leaf"),
    ],
)
def test_the_walk_refuses_in_words(values, param):
    with pytest.raises(ParamError) as err:
        render("ch03.walk", values)
    assert err.value.param == param and len(err.value.text) > 10


# ---- ch03.pte ------------------------------------------------------------------------------------


def test_the_tour_shows_the_entries_of_the_text():
    shown = {f.mark: f.data for f in render("ch03.pte").frames}
    assert shown["written"]["value"] == "8000000123456867"
    assert shown["zero page"]["value"] == "8000000001234225"
    assert shown["forked, parent"]["value"] == "8400000123456825"
    assert shown["forked, child"]["value"] == "8400000123456805"
    kinds = {mark: data["kind"] for mark, data in shown.items()}
    assert kinds["PROT_NONE"] == "prot_none" and kinds["migrating"] == "migration"
    assert kinds["swapped out"] == "swap" and kinds["marker"] == "marker"
    assert shown["PROT_NONE"]["pfn"] == 0x123456 and shown["swapped out"]["swp_offset"] == 0x1234


@pytest.mark.parametrize("value", [0, 0x60, 1, 1 << 63, (1 << 64) - 1, 0x100, 0x80, 0xFFF])
@pytest.mark.parametrize("level", ["1", "2", "3", "4", "5"])
def test_any_entry_at_any_level_is_decoded(value, level):
    data = last("ch03.pte", preset="own", entry=hex(value), level=level).data
    info = decode_pte(value, int(level))
    assert (data["kind"], data["pfn"]) == (info.kind, info.pfn)


def test_an_entry_has_sixty_four_bits():
    with pytest.raises(ParamError, match="too large"):
        render("ch03.pte", {"preset": "own", "entry": "0x1" + "0" * 16})


# ---- ch03.fault ----------------------------------------------------------------------------------


def outcome(**values):
    return last("ch03.fault", **values).data["outcome"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mapping": "none", "entry": "empty"}, "SEGV_MAPERR"),
        ({"mapping": "anon-ro", "entry": "written"}, "SEGV_ACCERR"),
        ({"mapping": "anon", "entry": "prot_none"}, "SEGV_ACCERR"),
        ({"mapping": "kernel", "entry": "empty"}, "SEGV_MAPERR"),
        ({"mapping": "beyond", "entry": "empty"}, "BUS_ADRERR"),
        ({"mapping": "none", "entry": "empty", "mode": "kernel"}, "-EFAULT"),
        ({"mapping": "stack", "entry": "empty"}, "goes through"),
    ],
)
def test_how_a_fault_ends(values, words):
    assert words in outcome(**values)


def path(**values):
    return [f.data["function"] for f in render("ch03.fault", values).frames if f.data]


def test_a_write_after_a_read_is_two_faults_and_one_page():
    data = last("ch03.fault", mapping="anon", entry="zero", access="w").data
    assert (data["min_flt"], data["rss"]) == (2, 1)
    assert "do_wp_page" in path(mapping="anon", entry="zero", access="w")


def test_the_lock_of_the_mapping_is_tried_in_user_mode_only():
    assert "lock_vma_under_rcu" in path(mapping="anon", entry="empty")
    assert "lock_vma_under_rcu" not in path(mapping="anon", entry="empty", mode="kernel")


def test_a_writer_sends_the_fault_to_mmap_lock():
    steps = render("ch03.fault", {"entry": "empty", "writer": True}).frames
    locks = [(f.data["function"], f.data["step"], f.data["lock"]) for f in steps]
    assert ("lock_vma_under_rcu", "write-locked", "rcu") in locks
    assert ("lock_mm_and_find_vma", "ok", "mmap_lock:r") in locks


def test_an_uncached_file_page_is_a_major_fault():
    data = last("ch03.fault", mapping="file", entry="empty", access="r", cached=False).data
    assert (data["min_flt"], data["maj_flt"]) == (0, 1)
    data = last("ch03.fault", mapping="file", entry="empty", access="r", cached=True).data
    assert (data["min_flt"], data["maj_flt"]) == (1, 0)


def test_a_fresh_page_is_fetched_twice_before_the_signal():
    codes = [f.data["step"] for f in render("ch03.fault", {"entry": "empty", "access": "x"}).frames
             if f.data["function"] == "#PF"]  # fmt: skip
    assert codes == ["error code 0x14", "error code 0x15"]


@pytest.mark.parametrize("mapping", sorted(ch03.MAPPINGS))
@pytest.mark.parametrize("entry", sorted(ch03.ENTRIES))
def test_every_combination_ends_or_says_why_not(mapping, entry):
    for access in "rwx":
        for mode in ("user", "kernel"):
            for writer in (False, True):
                p = SimpleNamespace(
                    mapping=mapping,
                    entry=entry,
                    access=access,
                    mode=mode,
                    writer=writer,
                    cached=True,
                )
                try:
                    steps, (ended, _) = ch03.fault_run(p)
                except ParamError as err:
                    assert err.param in ("entry", "writer") and err.text
                    continue
                assert not steps or steps[0]["node"] == "entry"
                assert ch03._outcome(ended)


# ---- ch03.touch ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "faults", "resident"),
    [
        ({"access": "r"}, 1024, 0),
        ({"access": "w"}, 1024, 1024),
        ({"access": "rw"}, 2048, 1024),
        ({"access": "wr"}, 1024, 1024),
        ({"access": "r", "zero_page": False}, 1024, 1024),
        ({"access": "w", "huge": "64K"}, 64, 1024),
        ({"access": "w", "huge": "2M"}, 2, 1024),
        ({"access": "r", "kind": "file"}, 64, 1024),
        ({"access": "r", "kind": "file", "around": False}, 1024, 1024),
    ],
)
def test_what_touching_four_mib_costs(values, faults, resident):
    data = last("ch03.touch", stride=1, **values).data
    assert data["minor faults"] == faults and data["resident pages"] == resident
    assert data["KiB of tables"] == 16 and data["major faults"] == 0


def test_sparse_touches_cost_more_tables_than_pages():
    data = last("ch03.touch", mib=32, stride=512, access="w").data
    assert data["resident pages"] == 16 and data["KiB of tables"] == 16 * 4 + 8


def test_the_touch_map_refuses_a_stride_beyond_the_mapping():
    with pytest.raises(ParamError) as err:
        render("ch03.touch", {"mib": 1, "stride": 257})
    assert err.value.param == "stride" and "256 pages" in err.value.text


# ---- ch03.layout ---------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [4, 5])
def test_the_layout_is_the_engines(levels):
    frame = render("ch03.layout", {"levels": str(levels), "seed": 0, "part": "all"}).frames[0]
    want = [
        (f"{r.start:016x}", f"{r.end:016x}", r.name, r.symbol) for r in kaslr.memory_layout(levels)
    ]
    assert frame.data == want


@pytest.mark.parametrize("seed", [1, 2, 3, 4294967295])
def test_a_shuffle_keeps_the_order_and_the_step(seed):
    frame = last("ch03.layout", seed=seed)
    starts = {symbol: int(start, 16) for start, _, _, symbol in frame.data}
    three = [starts[name] for name in ch03.RANDOMISED]
    assert three == sorted(three) and all(a % pg.PUD_SIZE == 0 for a in three)
    assert starts["CPU_ENTRY_AREA_BASE"] == 0xFFFFFE0000000000


# ---- ch03.tlb ------------------------------------------------------------------------------------


def test_the_plot_is_what_the_tlb_counts():
    data = render("ch03.tlb").frames[0].data
    for name, shift in ch03.TLB_SIZES.items():
        for pages in (16, 1024, 2048):
            assert dict(data[name])[pages] == ch03.tlb_misses(1536, 12, pages, shift)
    assert dict(data["4 KiB"])[1024] == 0 and dict(data["4 KiB"])[4096] > 0.8
    assert dict(data["64 KiB"])[1 << 14] == 0 and set(dict(data["2 MiB"]).values()) == {0}


def test_a_full_tlb_of_one_set_misses_only_beyond_its_entries():
    assert ch03.tlb_misses(16, 16, 16, 0) == 0
    assert ch03.tlb_misses(16, 16, 17, 0) > 0


def test_measured_times_come_from_the_recording():
    measured = ch03.measured_chase()
    assert (
        [n for n, _ in measured["4K"]]
        == [n for n, _ in measured["2M"]]
        == [1 << e for e in range(4, 15)]
    )
    assert last("ch03.tlb").data == measured


def test_without_the_recording_the_model_is_shown_alone(monkeypatch):
    monkeypatch.setattr(ch03, "load", lambda name: (_ for _ in ()).throw(ch03.UsageError(name)))
    r = render("ch03.tlb")
    assert [f.mark for f in r.frames] == ["model"] and r.key_frames == r.frames


def test_ways_must_divide_the_entries():
    with pytest.raises(ParamError) as err:
        render("ch03.tlb", {"entries": 64, "ways": "12"})
    assert err.value.param == "ways"


# ---- ch03.vma-lock -------------------------------------------------------------------------------


def counters(script):
    data = last("ch03.vma-lock", script=script).data
    return {k.removeprefix("vma_lock_"): v for k, v in data["counters"].items() if v}


def test_a_fault_beside_a_writer_succeeds():
    assert counters("lock; write a; fault 2 b; done 2; unlock") == {"success": 1}


def test_a_fault_on_the_locked_mapping_aborts_and_waits():
    r = render("ch03.vma-lock", {"script": "lock; write a; fault 1 a"})
    assert r.frames[-1].data["threads"] == {1: "waits for mmap_lock"}
    r = render("ch03.vma-lock", {"script": "lock; write a; fault 1 a; unlock"})
    assert r.frames[-1].data["threads"] == {1: "holds mmap_lock for reading"}
    assert counters("lock; write a; fault 1 a; unlock; done 1") == {"abort": 1}


def test_a_writer_waits_for_the_fault_that_reads_the_mapping():
    r = render("ch03.vma-lock", {"script": "fault 1 a; lock; write a; done 1"})
    assert "waits" in r.frames[3].caption and r.frames[3].data["write_locked"]["a"] is False
    assert r.frames[4].data["write_locked"]["a"] is True


def test_unlocking_unlocks_every_mapping_at_once():
    r = render("ch03.vma-lock", {"script": "lock; write a; write b; unlock"})
    assert [f.data["write_locked"] for f in r.frames[2:]] == [
        {"a": True, "b": False},
        {"a": True, "b": True},
        {"a": False, "b": False},
    ]


@pytest.mark.parametrize(
    "script",
    ["done 1", "write a", "unlock", "fault 3 a", "fault 1 c", "fly", "fault 1 a; fault 1 b",
     "lock; lock", "lock; write a; fault 1 a; done 1", "fault 1 a; lock; write a; unlock"],
)  # fmt: skip
def test_impossible_scripts_are_refused_in_words(script):
    with pytest.raises(ParamError) as err:
        render("ch03.vma-lock", {"script": script})
    assert err.value.param == "script" and len(err.value.text) > 15


# ---- exercises -----------------------------------------------------------------------------------

ANSWERS = [
    ("ch03.indices", {}, [254, 232, 145, 325, 0x678]),
    ("ch03.error-codes", {}, [7, 4, 0x15, 2]),
    ("ch03.predict", {}, [1024, 0, 2048, 1024, 16]),
    ("ch03.predict", {"shift": 1}, [1024, 0, 2048, 1024, 20]),
    ("ch03.fault-around", {}, [16, 17, 16]),
    ("ch03.no-zero-page", {}, [1024, 1024, 1024, 1024]),
    ("ch03.oops", {}, ["supervisor", "instruction fetch", "not-present page"]),
    ("ch03.oops", {"section": "oops3"}, ["supervisor", "write access", "permissions violation"]),
    ("ch03.million", {}, [86, 128, 254]),
    ("ch03.vma-lock", {}, ["vma_lock_abort", "vma_lock_success", "vma_lock_retry"]),
]


@pytest.mark.parametrize(("name", "params", "answer"), ANSWERS)
def test_the_right_answer_is_right_and_a_wrong_one_is_named(name, params, answer):
    assert check(name, answer, **params)
    for i in range(len(answer)):
        wrong = [*answer[:i], "nonsense", *answer[i + 1 :]]
        verdict = check(name, wrong, **params)
        assert not verdict and verdict.step == i + 1 and verdict.expected == answer[i]


# ---- recordings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "kernel", "capture", "total"),
    [
        (rows.model_opening, rows.kernel_opening, "n1-1g/faults", 9),
        (rows.model_sparse, rows.kernel_sparse, "n1-1g/pagetables", 21),
        (rows.model_faults, rows.kernel_faults, "n1-1g/faults", 30),
        (rows.model_pagemap, rows.kernel_pagemap, "n1-1g/pagetables", 456),
    ],
)
def test_every_value_equals_the_recording(model, kernel, capture, total):
    comparison = beside(model(), kernel(load(capture)))
    assert comparison.differences == [] and (comparison.equal, comparison.total) == (total, total)
