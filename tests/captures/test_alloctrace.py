"""Exact: the model hands out the page frames that a real 6.12 kernel handed out.

Each capture is a workload of thousands of allocations (anonymous memory, page tables, huge pages,
pipes, fork, shared memory) on a freshly booted kernel. Compared are every event
(the page handed out, the blocks taken from the buddy, claims, drains), and after the last one every
free list and per-CPU list in order with all its counters.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mmcore.errors import ParseError, UsageError
from mmcore.machine import bare_zone
from mmcore.mm.gfp import GFP_KERNEL
from mmcore.mm.mmzone import for_each_populated_zone
from mmcore.mm.page_alloc import __free_pages, alloc_pages, validate_zone
from mmcore.mm.vmstat import NR_FREE_PAGES
from mmcore.proc import capture, snapshot
from mmcore.proc.ftrace import parse
from mmcore.report.alloctrace import _steps, _uninterrupted, _worker, replay, snapshots

#: Another harness, 800 MiB with a zone Movable, two CPUs.
TWO_CPUS = Path(__file__).parent / "n1-800m-2cpu" / "alloctrace.txt.gz"
#: And one of two nodes, CPUs 0 and 2 on the first.
FOUR_CPUS = Path(__file__).parent / "n2-900m-4cpu" / "alloctrace.txt.gz"

CAPTURES = {
    "n1-256m/alloctrace": 8867,
    # Most memory was taken first, so requests fall back between migratetypes and zones, near the marks.
    "n1-256m/alloctrace_fallback": 14143,
    # Two nodes; the program is a real-time task, which may go below the min mark.
    "n2-768m/alloctrace_fallback": 14188,
}


@pytest.mark.parametrize(("name", "allocations"), CAPTURES.items())
def test_every_page_frame_and_the_final_lists(name: str, allocations: int) -> None:
    result = replay(capture.load(name))
    assert result.seen["kmem:mm_page_alloc"] == allocations
    assert result.mismatches == []
    assert result.seen == result.equal
    assert result.lists_differ == []
    assert result.exact and result.lists > 30


@pytest.mark.parametrize("name", CAPTURES)
def test_a_snapshot_goes_through_a_machine_unchanged(name: str) -> None:
    for zones in snapshots(capture.load(name)):
        text = snapshot.render(zones)
        assert text.strip() in capture.load(name)["alloc"]
        machine = snapshot.load(zones)
        assert snapshot.render(snapshot.take(machine)) == text


def test_the_comparison_can_fail() -> None:
    """One block moved from the head to the tail of its list is noticed by page frame and list."""
    original = capture.load("n1-256m/alloctrace")
    text = original["alloc"]
    start = text.index("free node=0 zone=DMA32 order=10 mt=MOVABLE")
    end = text.index("\n", start)
    head, _, pfns = text[start:end].partition(" : ")
    first, *rest = pfns.split(",")
    damaged = text[:start] + f"{head} : {','.join([*rest, first])}" + text[end:]
    section = next(s for s in original.sections if s.name == "alloc")
    section.text = damaged
    result = replay(original)
    assert not result.exact and result.mismatches and result.lists_differ
    assert "first difference at line" in str(result) and result.stopped


def test_snapshots_are_sound() -> None:
    for name in CAPTURES:
        machine = snapshot.load(snapshots(capture.load(name))[0])
        for zone in machine.node_data[0].node_zones:
            # The kernel's free counter lags by what CPUs have not folded in yet.
            zone.vm_stat[0] = sum(a.nr_free << o for o, a in enumerate(zone.free_area))
            validate_zone(zone)


def test_damaged_captures_are_refused_in_words() -> None:
    text = "=== alloc | kwalk | rc=0\nSNAPSHOT 1\nfree node=0\n\n=== trace | cat | rc=0\n"
    with pytest.raises(UsageError, match="two snapshots"):
        replay(capture.parse(text))
    with pytest.raises(ParseError, match="line 1"):
        snapshot.parse("free node=0 zone=DMA order=11 mt=MOVABLE : 1\n")
    with pytest.raises(UsageError, match="at least one zone"):
        snapshot.load([])


@pytest.mark.parametrize("name", CAPTURES)
def test_the_counter_that_lags_ends_where_the_kernels_did(name: str) -> None:
    """Marks are compared with it, so near a mark a page more or less decides about the zone."""
    cap = capture.load(name)
    zones = for_each_populated_zone(replay(cap).machine)
    found = {(zone.node, zone.name): zone.vm_stat[NR_FREE_PAGES] for zone in zones}
    assert found == {(zone.node, zone.name): zone.nr_free_pages for zone in snapshots(cap)[1]}


def test_a_page_that_is_free_already_stops_the_replay() -> None:
    """To free it once more would ruin the lists, and the model might search them for ever."""
    cap = capture.load("n1-256m/alloctrace")
    section = next(s for s in cap.sections if s.name == "trace")
    head = "SNAP1-END\n"
    at = section.text.index(head) + len(head)
    line = section.text[at : section.text.index("\n", at) + 1]
    task = line[: line.index(": mm_page")]
    text = section.text
    last = {order: pfns[-1] for (order, _), pfns in snapshots(cap)[0][-1].free.items()}
    assert len(last) > 5
    for order, pfn in last.items():
        inner = pfn + (1 << order) - 1
        event = f"{task}: mm_page_free: page=0000000000000001 pfn=0x{inner:x} order=0\n"
        section.text = text[:at] + event + text[at:]
        assert f"pfn {inner:#x}, which is free in the model" in replay(cap).stopped


def test_what_the_worker_frees_is_a_step_of_its_own() -> None:
    """Pages that a kworker gives back just before a task allocates or after it frees."""
    drain = "kworker/0:1-9 [000] d..1. 5.{:06}: mm_page_pcpu_drain: page=00000000ce237fdc "
    drain += "pfn=0x{:x} order=0 migratetype=1"
    task = "freelists-137 [000] d..3. 5.{:06}: "
    lines = [
        drain.format(1, 0x100),
        (task + "mm_page_alloc_zone_locked: page=00000000ce237fdc pfn=0x200 order=2 ").format(2)
        + "migratetype=0 percpu_refill=1",
        (task + "mm_page_alloc: page=00000000ce237fdc pfn=0x200 order=2 migratetype=0 ").format(3)
        + "gfp_flags=GFP_KERNEL",
        (task + "mm_page_free: page=00000000ce237fdc pfn=0x200 order=2").format(4),
        drain.format(5, 0x101),
    ]
    steps = [(what, len(lines)) for what, _, lines in _steps(parse("\n".join(lines) + "\n"))]
    assert steps == [("drain", 1), ("alloc", 2), ("free", 1), ("drain", 1)]


@pytest.mark.parametrize("remote", [False, True])
def test_a_run_of_the_worker_lowers_the_limit_and_frees_what_is_over_it(remote: bool) -> None:
    zone = bare_zone(4096)
    m = zone.machine
    pcp = zone.per_cpu_pageset[0]
    pcp.high_min, pcp.high_max, pcp.high, pcp.batch = 10, 4000, 2000, 60
    pages = [alloc_pages(m, GFP_KERNEL, 0) for _ in range(750)]
    for page in pages:
        __free_pages(page, 0)
    pcp.high, freed = 800, pcp.count - 700
    assert freed > 0
    line = "kworker/0:1-9 [000] d..1. 5.000001: mm_page_pcpu_drain: page=00000000ce237fdc "
    line += "pfn=0x1 order=0 migratetype=0\n"
    drained = parse(line * (freed + (60 if remote else 0)))
    _worker(m, drained)
    assert pcp.high == 700
    assert pcp.count == (640 if remote else 700)


def test_two_cpus_and_the_kernel_stacks_that_no_event_shows() -> None:
    result = replay(capture.load(str(TWO_CPUS)))
    assert result.exact, str(result)
    assert result.stacks == 63


def test_four_cpus_on_two_nodes_and_frees_while_the_lists_were_read() -> None:
    result = replay(capture.load(str(FOUR_CPUS)))
    assert result.exact, str(result)
    assert result.machine.cpu_to_node == [0, 1, 0, 1]
    assert result.machine.node_distance == [[10, 21], [21, 10]]
    assert (result.stacks, result.late) == (40, 8)


def test_without_the_inference_a_stack_makes_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmcore.report.alloctrace._take_stacks", lambda *args: 0)
    result = replay(capture.load(str(TWO_CPUS)))
    assert result.mismatches and result.stopped


def test_another_cpus_events_in_the_middle_of_a_step_come_before_it() -> None:
    mine, other = "freelists-137 [000] d..3. 5.{:06}: ", "kworker/1:1-48 [001] ..... 5.{:06}: "
    lines = [
        (mine + "mm_page_free: page=00000000ce237fdc pfn=0x1 order=0").format(1),
        (other + "mm_page_free: page=00000000ce237fdc pfn=0x9 order=0").format(2),
        (mine + "mm_page_free: page=00000000ce237fdc pfn=0x2 order=0").format(3),
        (mine + "mm_page_free_batched: page=00000000ce237fdc pfn=0x1 order=0").format(4),
        (mine + "mm_page_free_batched: page=00000000ce237fdc pfn=0x2 order=0").format(5),
    ]
    trace = parse("\n".join(lines) + "\n")
    assert [line.number for line in _uninterrupted(trace)] == [2, 1, 3, 4, 5]
    steps = [(what, len(lines)) for what, _, lines in _steps(trace)]
    assert steps == [("free", 1), ("batch", 4)]
