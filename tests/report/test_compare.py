"""The comparisons: equal on every capture, and able to fail; words instead of tracebacks."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmcore.__main__ import main
from mmcore.errors import MMError, UsageError
from mmcore.machine import Machine
from mmcore.mm.mmzone import for_each_populated_zone
from mmcore.proc import capture
from mmcore.report import compare as c
from mmcore.report import sweep
from mmcore.report.alloctrace import Replay

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book" / "captures"
FILES = [*c.captures_in(BOOK), *c.captures_in(ROOT / "tests" / "captures")]
HEAVY = ("alloc-events", "alloc-frames", "alloc-lists", "snapshot")


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.name.partition('.')[0]}"


def outcome(report: c.Report, comparison: str) -> c.Outcome:
    return next(o for o in report.outcomes if o.comparison.name == comparison)


def text_of(which: str) -> str:
    return capture.read_text(capture.find(which))


def run(text: str, *only: str) -> c.Report:
    return c.compare(capture.parse(text, "test"), c.select(only))


# ---- equal on the captures -----------------------------------------------------------------------


@pytest.mark.parametrize("path", [p for p in FILES if "alloctrace" not in p.name], ids=name)
def test_every_exact_comparison_is_equal(path: Path) -> None:
    report = c.compare(path)
    for o in report.outcomes:
        assert o.outcome in ("equal", "not compared"), (o.comparison.name, o.reason, o.result)
    ran = {o.comparison.name: o.result.total for o in report.ran()}
    if "physical" in path.name:
        assert ran["zones"] >= 15 and ran["watermarks"] >= 20 and ran["zonelists"] >= 3
        assert ran["min_free_kbytes"] == 1 and ran["meminfo"] == 2
    if "memblock" in path.name:
        assert ran["memblock"] > 40
    if "watermarks" in path.name:
        assert ran["sysctl-sweep"] > 850


def test_an_allocation_trace_is_equal_in_events_frames_and_lists() -> None:
    report = c.compare("n1-256m/alloctrace_fallback", c.select(HEAVY))
    got = {o.comparison.name: (o.outcome, o.result.equal, o.result.total) for o in report.outcomes}
    assert got["alloc-frames"] == ("equal", 14143, 14143)
    assert got["alloc-lists"][0] == got["snapshot"][0] == got["alloc-events"][0] == "equal"
    assert report.uncovered and "alloc" not in report.uncovered


def test_each_comparison_runs_on_some_capture() -> None:
    """None of them is dead; marks-now alone needs a record without its boot."""
    names = ["n1-1g/memblock", "n1-1g/physical", "n1-1g/watermarks", "n1-1g/pagetables"]
    names += ["n1-1g/faults", "n1-1g/oops", "n1-256m-pmem/cgroup"]
    names += ["n1-1g/mappings", "n1-1g/malloc"]
    ran = {o.comparison.name for n in names for o in c.compare(n).ran()}
    text = re.sub(r"=== dmesg \|.*?(?==== )", "", text_of("n1-1g/physical"), flags=re.DOTALL)
    ran |= {o.comparison.name for o in run(text).ran()}
    assert ran | {*HEAVY, "address-space", "oom-victim"} == {
        comparison.name for comparison in c.COMPARISONS
    }


def test_kinds_have_a_reason() -> None:
    for comparison in c.COMPARISONS:
        assert comparison.kind in (c.EXACT, c.SHAPE)
        assert comparison.why.endswith(".") and comparison.reads


# ---- a changed number is found -------------------------------------------------------------------


def changed(text: str, section: str, pattern: str) -> str:
    """Add 1 to the last number that @pattern matches in a section."""
    start = text.index(f"=== {section} |")
    match = re.compile(pattern, re.MULTILINE).search(text, start)
    assert match is not None
    value = match[1]
    number = f"{int(value, 16) + 1:0{len(value)}x}" if "-" in match[0] else str(int(value) + 1)
    return text[: match.start(1)] + number + text[match.end(1) :]


@pytest.mark.parametrize(
    ("which", "section", "pattern", "comparison", "where"),
    [
        ("physical", "zoneinfo", r"^        low +(\d+)", "watermarks", "Node 0 DMA low"),
        ("physical", "zoneinfo", r"^        managed +(\d+)", "meminfo", "MemTotal"),
        ("physical", "zoneinfo", r"^        present +(\d+)", "zones", "Node 0 DMA present"),
        ("physical", "zoneinfo", r"protection: \(0, (\d+)", "protection", "DMA protection[1]"),
        ("physical", "zoneinfo", r"batch: (\d+)", "pcp-limits", "Node 0 DMA cpu 0 batch"),
        ("physical", "zoneinfo", r"^        high +(\d+)", "mark-steps", "Node 0 DMA high"),
        ("physical", "memblocks", r"memory1/phys_index = (\d+)", "memory-blocks", "memory1 phys"),
        ("physical", "dmesg", r"On node 0, zone DMA: (\d+) pages", "boot-lines", "unavailable"),
        ("physical", "dmesg", r"Built (\d+) zonelists", "zonelists", "zonelists line 1"),
        (
            "memblock",
            "dmesg",
            r"memblock_reserve: .*-0x([0-9a-f]+)\] memblock_alloc_r",
            "memblock",
            "",
        ),
        ("watermarks", "sweep", r"^watermark_scale_factor=50 .*promo=(\d+)", "sysctl-sweep", "=50"),
        ("pagetables", "pgmap", r"^a2 write 2,3,4 3 .*count=(\d+)", "page-tables", "a2 write"),
        ("faults", "faults", r"^write 1: minflt \+(\d)", "faults", "write 1"),
        ("malloc", "malloc", r"^call munmap 0x7ffff7f2e000 413696 = (0)", "malloc-calls", "munmap"),
        ("malloc", "malloc", r"^map 7ffff7f93000-(7ffff7fc6000)", "malloc-calls", "map 4"),
        ("malloc", "malloc", r"^call madvise 0x4e9000 (\d+)", "malloc-library", "malloc_trim"),
        ("mappings", "limits", r"^Max pending signals +(\d+)", "limits", "limits line 13"),
        ("mappings", "overcommit", r"^(0)$", "overcommit", "overcommit_memory"),
        ("mappings", "meminfo", r"^CommitLimit: +(\d+)", "overcommit", "CommitLimit"),
        ("mappings", "mappings", r"^calls that succeeded: (\d+)", "mappings", "calls that"),
        ("mappings", "mappings", r"^between touched 1: \w+-(\w+)", "mappings", "touched 1"),
    ],
)
def test_a_changed_integer_is_found_and_named(
    which: str, section: str, pattern: str, comparison: str, where: str
) -> None:
    text = changed(text_of(f"n1-1g/{which}"), section, pattern)
    report = run(text)
    o = outcome(report, comparison)
    if comparison == "memblock":
        assert o.outcome in ("differs", "damaged")
    else:
        assert o.outcome == "differs", (o.reason, [x.comparison.name for x in report.ran()])
        assert any(where in d.where for d in o.result.differences)
        assert o.result.equal < o.result.total
    assert c.exit_status([report]) in (1, 2) and (
        o.outcome == "damaged" or c.exit_status([report]) == 1
    )


def test_a_task_with_more_points_than_the_victim_is_named() -> None:
    text = text_of("n1-512m/oom")
    good = run(text, "oom-victim").outcomes[0]
    assert (good.outcome, good.result.total) == ("equal", 12)
    row = re.search(r"^.*\[ *(\d+)\] +0 +\d+ +(\d+) +(\d+) +.* small$", text, re.MULTILINE)
    assert row is not None
    larger = row[0].replace(f" {row[3]} ", " 999999 ", 1)
    bad = run(text.replace(row[0], larger, 1), "oom-victim").outcomes[0]
    assert bad.outcome == "differs" and bad.result.equal == 11
    assert bad.result.differences[0].where == "glutton_dmesg report 1 victim"
    assert bad.result.differences[0].model == row[1]


def test_a_wrong_result_in_a_log_of_calls_is_named() -> None:
    text = capture.load("n1-1g/vma")["seed5_lockall"]
    lines = text.splitlines(keepends=True)[:400]
    assert '"op":"munlockall"' in lines[304]
    head = "=== any_name | vmaops | rc=0\n"
    report = run(head + "".join(lines), "address-space")
    assert report.outcomes[0].outcome == "equal" and report.uncovered == []
    lines[304] = lines[304].replace('"r":0', '"r":-12')
    bad = run(head + "".join(lines), "address-space").outcomes[0]
    assert bad.outcome == "differs" and bad.result.differences[0].kernel == "-12"
    assert bad.result.differences[0].where.startswith("any_name call 300 munlockall()")


def test_a_wrong_address_in_a_memblock_log_is_named() -> None:
    text = text_of("n1-1g/memblock")
    lines = text.split("\n")
    i = next(
        i
        for i, line in enumerate(lines)
        if "memblock_alloc_try_nid: 640" in line
        or ("memblock_alloc_" in line and "bytes align" in line)
    )
    j = next(j for j in range(i, i + 4) if "memblock_reserve: [" in lines[j])
    first, last = (int(n, 16) for n in re.findall(r"0x([0-9a-f]{16})", lines[j])[:2])
    lines[j] = lines[j].replace(f"{first:016x}", f"{first - 4096:016x}")
    lines[j] = lines[j].replace(f"{last:016x}", f"{last - 4096:016x}")
    o = outcome(run("\n".join(lines), "memblock"), "memblock")
    assert o.outcome == "differs"
    assert o.result.differences[0].kernel == hex(first - 4096)
    assert o.result.differences[0].model == hex(first)


def test_a_moved_free_block_is_found() -> None:
    cap = capture.load("n1-256m/alloctrace")
    section = next(s for s in cap.sections if s.name == "alloc")
    start = section.text.index("free node=0 zone=DMA32 order=10 mt=MOVABLE")
    end = section.text.index("\n", start)
    head, _, pfns = section.text[start:end].partition(" : ")
    first, *rest = pfns.split(",")
    moved = f"{head} : {','.join([*rest, first])}"
    section.text = section.text[:start] + moved + section.text[end:]
    report = c.compare(cap, c.select(["alloc-events", "alloc-frames", "alloc-lists"]))
    assert [o.outcome for o in report.outcomes] == ["differs"] * 3
    assert outcome(report, "alloc-frames").result.differences[0].where.startswith("trace line")
    assert c.exit_status([report]) == 1


def test_a_lowered_limit_is_explained_only_by_the_workers_steps() -> None:
    line = "pcp node=0 zone=Normal cpu=0 count=4018 high={} high_min=10565 high_max=94808 batch=63 flags=2"
    model = line.format(37261)
    ms = 1_000_000
    replay = Replay(Machine.boot("128M"), end=1300 * ms)
    history = [(0, 30000, 100), (1000 * ms, 37198, 900), (1100 * ms, 37261, 4018)]
    replay.limits[0, "Normal", 0] = history

    def explained(high: int, text: str = line) -> int:
        return c._decays(replay, model, text.format(high))

    def lowered(high: int) -> int:
        return high - (high >> 3)

    assert explained(lowered(37261)) == 1
    # Between two changes: what was added after it is on top.
    assert explained(lowered(37198) + 63) == explained(lowered(30000) + 7261) == 1
    assert explained(lowered(lowered(30000) + 7198) + 63) == 2  # a second apart
    assert not explained(lowered(lowered(37198) + 63))  # not twice in 300 ms
    assert not explained(lowered(37261) + 1) and not explained(37262)
    assert not explained(lowered(37261), line.replace("count=4018", "count=4017"))
    replay.limits.clear()
    assert not explained(lowered(37261))


def test_copied_managed_pages_are_not_counted() -> None:
    """Without a memblock log a wrong managed count is adopted, so it may not count as equal."""
    text = changed(text_of("n1-1g/physical"), "zoneinfo", r"^        managed +(\d+)")
    names = [d.where for o in run(text, "zones").outcomes for d in o.result.differences]
    zones = outcome(run(text, "zones"), "zones").result
    original = outcome(run(text_of("n1-1g/physical"), "zones"), "zones").result
    assert names == [] and zones.total == original.total - 1


# ---- foreign, old and broken input ---------------------------------------------------------------


def test_another_kernel_says_whose_the_model_is() -> None:
    text = text_of("n1-1g/physical").replace("6.12.117+deb12", "6.1.0-40")
    assert any("the model is of Linux 6.12" in note for note in run(text, "zones").notes)
    assert run(text_of("n1-1g/physical"), "zones").notes == []


def test_a_capture_without_its_log_says_what_is_needed() -> None:
    text = re.sub(r"=== dmesg \|.*?(?==== )", "", text_of("n1-1g/physical"), flags=re.DOTALL)
    report = run(text)
    assert "log of its boot" in outcome(report, "watermarks").reason
    assert "log of its boot" in outcome(report, "zones").reason
    assert outcome(report, "marks-now").comparison.kind == c.SHAPE
    assert c.exit_status([report]) == 0


def test_a_log_that_ends_early_and_one_without_debug() -> None:
    assert (
        "memblock=debug" in outcome(run(text_of("n1-1g/physical"), "memblock"), "memblock").reason
    )
    text = text_of("n1-1g/memblock")
    cut = text[: text.index("Memory: ")]
    assert "no 'Memory:' line" in outcome(run(cut, "boot-lines"), "boot-lines").reason


def test_a_sysctl_written_by_hand_is_no_difference() -> None:
    text = text_of("n1-1g/physical").replace("min_free_kbytes = 45056", "min_free_kbytes = 50000")
    o = outcome(run(text, "min_free_kbytes"), "min_free_kbytes")
    assert o.outcome == "not compared" and "50000" in o.reason and "45056" in o.reason


def test_a_damaged_section_is_named_with_its_line() -> None:
    text = text_of("n1-1g/physical").replace("        spanned  4095", "        spanned  40x5")
    report = run(text, "zones", "texts")
    assert {o.outcome for o in report.outcomes} == {"damaged"}
    assert "40x5" in report.outcomes[0].reason and c.exit_status([report]) == 2


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.binary(max_size=300))
def test_garbage_is_refused_in_words(data: bytes) -> None:
    for blob in (
        data,
        b"=== zoneinfo | cat /proc/zoneinfo | rc=0\n" + data,
        gzip.compress(data)[:-4],
    ):
        try:
            report = c.compare(capture.parse(capture.decode(blob, "x"), "x"))
        except MMError as err:
            assert str(err)
        else:
            assert c.exit_status([report]) in (1, 2)
            assert c.to_text(report, verbose=True)


LIGHT = ["physical", "memblock", "watermarks", "oops"]


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.sampled_from(LIGHT), st.floats(0, 1), st.integers(0, 40), st.binary(max_size=8))
def test_truncated_and_overwritten_captures_never_raise(
    which: str, at: float, cut: int, junk: bytes
) -> None:
    text = text_of(f"n1-1g/{which}")
    i = int(at * len(text))
    end = "" if cut < 20 else text[i + cut :]
    try:
        report = run(text[:i] + junk.decode("latin-1") + end)
    except MMError as err:
        assert "no section" in str(err)
    else:
        assert c.exit_status([report]) in (0, 1, 2)
        json.dumps(report.to_dict())


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False), st.sampled_from(LIGHT))
def test_the_order_of_sections_does_not_matter(random: Random, which: str) -> None:
    text = text_of(f"n1-1g/{which}")
    head, *sections = re.split(r"^(?==== )", text, flags=re.MULTILINE)
    random.shuffle(sections)
    rows = [(o.comparison.name, o.outcome, o.result.total) for o in run(text).outcomes]
    shuffled = run(head + "".join(s.rstrip("\n") + "\n\n" for s in sections)).outcomes
    assert [(o.comparison.name, o.outcome, o.result.total) for o in shuffled] == rows


# ---- the tables of the scoreboard ----------------------------------------------------------------


def test_a_row_for_each_capture_and_for_each_comparison() -> None:
    good = run(text_of("n1-1g/physical"), "zones", "watermarks", "names")
    bad = run(changed(text_of("n1-1g/physical"), "zoneinfo", r"^        low +(\d+)"), "watermarks")
    none = run('# records: "a thing (in words): and more"\n\n=== a | b | rc=0\nc\n')
    first, second, third = c.by_capture([good, bad, none])
    assert first["outcome"] == "equal" and first["exact"] == "2/2" and first["shape"] == "395/395"
    assert first["what it is"] == "physical memory as the kernel sees it right after ..."
    assert second["outcome"] == "differs" and second["exact"] == "0/1"
    assert second["values"] == "19/20" and second["shape"] == ""
    assert third["outcome"] == "not compared" and third["what it is"] == "a thing"
    rows = {row["comparison"]: row for row in c.by_comparison([good, bad, none])}
    assert list(rows) == [comparison.name for comparison in c.COMPARISONS]
    assert rows["watermarks"]["captures"] == 2 and rows["memblock"]["of"] == 0
    assert (rows["watermarks"]["equal"], rows["watermarks"]["of"]) == (39, 40)


# ---- the command ---------------------------------------------------------------------------------


def test_exit_status_and_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = str(BOOK / "n1-1g" / "physical.txt")
    assert main(["compare", good]) == 0
    out = capsys.readouterr().out
    assert "  exact  watermarks      20/20\n" in out and "no comparison covers: " in out
    bad = tmp_path / "bad.txt"
    bad.write_text(changed(text_of("n1-1g/physical"), "zoneinfo", r"^        low +(\d+)"))
    assert main(["compare", good, str(bad), "-v"]) == 1
    out = capsys.readouterr().out
    assert "Node 0 DMA low\n      model   220\n      kernel  221" in out
    (tmp_path / "x.gz").write_bytes(b"\x1f\x8b\x08garbage")
    assert main(["compare", str(tmp_path / "x.gz")]) == 2
    assert "not a complete gzip file" in capsys.readouterr().err
    assert main(["compare", "nosuch/file"]) == 2
    assert main(["compare", good, "--only", "sweep"]) == 2
    assert "no comparison 'sweep'; there are memblock" in capsys.readouterr().err
    assert main(["compare", good, "--only", "memblock"]) == 2
    assert "nothing could be compared" in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "empty")]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["compare", str(tmp_path / "empty")]) == 2


def test_a_folder_of_captures_and_gz(capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(ROOT / "tests" / "captures" / "n1-128m")
    assert main(["compare", folder, "--only", "zones", "--only", "watermarks"]) == 0
    assert capsys.readouterr().out.count("exact  watermarks") == 3


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "n1-1g/watermarks", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data) == {"captures", "bad_input", "summary", "exit"} and data["exit"] == 0
    report = data["captures"][0]
    assert set(report) == {
        "name",
        "about",
        "release",
        "comparisons",
        "uncovered",
        "notes",
        "unreadable",
    }
    assert report["release"].startswith("6.12.") and len(report["comparisons"]) == len(
        c.COMPARISONS
    )
    for row in report["comparisons"]:
        assert row["outcome"] in ("equal", "differs", "not compared", "damaged")
        assert bool(row["reason"]) == (row["outcome"] in ("not compared", "damaged"))
        assert row["total"] >= row["equal"] >= 0
    values = sum(r["total"] for r in report["comparisons"] if r["kind"] == "exact")
    assert data["summary"]["exact"]["values"] == values


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever this machine is, there is a report and no traceback."""
    status = main(["compare"])
    out = capsys.readouterr().out
    assert status in (0, 1, 2) and out.startswith("this machine")


def test_a_folder_that_looks_like_the_root(tmp_path: Path) -> None:
    cap = capture.load("n1-1g/physical")
    (tmp_path / "proc" / "sys" / "vm").mkdir(parents=True)
    (tmp_path / "proc" / "zoneinfo").write_text(cap["zoneinfo"])
    (tmp_path / "proc" / "sys" / "vm" / "min_free_kbytes").write_text("45056\n")
    (tmp_path / "dmesg.txt").write_text(cap["dmesg"])
    report = c.compare(c.captures_in(tmp_path)[0])
    assert outcome(report, "watermarks").outcome == outcome(report, "zones").outcome == "equal"


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="no comparison 'x'; there are memblock, boot-lines"):
        c.select(["x"])


@pytest.mark.parametrize("name", ["n2-5g/physical", "n4-1g/physical"])
def test_distances_that_are_not_recorded_took_a_page_all_the_same(name: str) -> None:
    cap = capture.load(name)
    cap.sections = [s for s in cap.sections if s.name != "nodes"]
    report = c.compare(cap, c.select(["boot-lines", "zones"]))
    assert [o.outcome for o in report.outcomes] == ["equal", "equal"]


def test_of_several_states_the_one_that_goes_with_the_sysctls_is_compared() -> None:
    cap = capture.load("n1-1g/physical")
    now = next(s for s in cap.sections if s.name == "zoneinfo")
    other = re.sub(r"^        min      \d+$", "        min      7", now.text, flags=re.MULTILINE)
    cap.sections.insert(0, capture.Section("before", now.command, "0", other, 1))
    report = c.compare(cap)
    assert outcome(report, "watermarks").outcome == "equal"
    assert c.exit_status([report]) == 0
    assert "of several states, zoneinfo beside sysctl_vm" in report.notes
    cap.sections.append(cap.sections.pop(0))
    assert outcome(c.compare(cap), "watermarks").outcome == "equal"


def test_a_sweep_begins_with_the_sysctls_that_it_names() -> None:
    cap = capture.load("n1-1g/watermarks")
    late = "/proc/sys/vm/min_free_kbytes = 1234\n/proc/sys/vm/watermark_scale_factor = 77"
    cap.sections.append(capture.Section("late", "vals /proc/sys/vm/*", "0", late, 1))
    report = c.compare(cap, c.select(["sysctl-sweep"]))
    assert outcome(report, "sysctl-sweep").outcome == "equal"


def test_sysctls_written_before_a_sweep() -> None:
    a, b = (Machine.from_capture(capture.load("n4-1g/physical")) for _ in range(2))
    values = dict(sweep.DEFAULTS) | {"min_free_kbytes": "3456", "watermark_scale_factor": "300"}
    values |= {"lowmem_reserve_ratio": "11_7_5_0_0", "percpu_pagelist_high_fraction": "13"}
    sweep.write_changed(a, values)
    sweep.apply_setting(b, "x=1", values)
    mine, theirs = ([sweep.zone_numbers(z) for z in for_each_populated_zone(m)] for m in (a, b))
    assert mine == theirs
    assert a.min_free_kbytes == 3456 and a.percpu_pagelist_high_fraction == 13
