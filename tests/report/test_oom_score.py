"""Tests of the scores of a live machine, against what the reference kernel showed."""

import json
import re
from pathlib import Path

import pytest

from mmcore.__main__ import main
from mmcore.errors import UsageError
from mmcore.proc.capture import load
from mmcore.report import oom_score
from mmcore.report.oom_score import Process, System

SCORE = re.compile(
    r"score pid=(\d+) comm=(\S+) oom_score=(\d+) oom_score_adj=(-?\d+) statm=.* VmRSS:(\d+) .*"
    r"VmPTE:(\d+) VmSwap:(\d+)"
)


def recorded() -> System:
    """Return the processes of the lab's recording; its kernel's total is in its report."""
    found = [m for m in map(SCORE.match, load("n1-256m/oom")["global_before"].split("\n")) if m]
    processes = []
    for match in found:
        pid, score, adj, rss, pte, swap = (int(match[i]) for i in (1, 3, 4, 5, 6, 7))
        processes.append(Process(pid, match[2], score, adj, rss // 4, swap // 4, pte << 10))
    return System(54589, 1, (6, 12), 4, processes)


def test_recorded_scores_within_the_counters_error() -> None:
    """Every score lies within what one CPU may keep of four counters, and most are equal."""
    rows = [row for row in oom_score.table(recorded()) if row.process.pid != 1]
    assert len(rows) == 8
    assert {row.verdict for row in rows} <= {"equal", "counters"}
    by_name = {row.process.comm: row for row in rows}
    assert by_name["immune"].points is None and by_name["immune"].score == 0
    assert [row.process.comm for row in rows][:2] == ["smallpos", "big"]
    for row in rows:
        assert abs(row.score - row.process.oom_score) <= 124 * 1000 * 2 // (3 * 54589) + 1


def test_scores_of_both_formulas() -> None:
    """Half the machine: 1000 since 5.9, 500 before; nothing: 666 and 0."""
    big, idle = Process(5, "big", 1000, 0, rss=500), Process(6, "idle", 666, 0)
    new = oom_score.table(System(1000, 1, (6, 12), 4, [big, idle]))
    assert [(row.score, row.verdict) for row in new] == [(1000, "equal"), (666, "equal")]
    old = oom_score.table(System(1000, 1, (5, 4), 4, [big, idle]))
    assert [row.score for row in old] == [500, 1]


def test_ties_adjustments_and_refusals() -> None:
    twins = [Process(5, "a", 700, 0, rss=50), Process(6, "b", 700, 0, rss=50)]
    system = System(1000, 1, (6, 12), 4, twins)
    assert [row.process.pid for row in oom_score.table(system)] == [6, 5]
    assert [row.process.pid for row in oom_score.table(system, {5: 1})] == [5, 6]
    assert oom_score.table(system, {6: -1000})[1].points is None
    with pytest.raises(UsageError):
        oom_score.table(system, {7: 0})
    with pytest.raises(UsageError):
        oom_score.table(system, {5: 1001})


def test_a_copy_of_procfs(tmp_path: Path) -> None:
    """Processes are read in the order of their pids; what cannot be read is left out."""
    (tmp_path / "meminfo").write_text("MemTotal:  4000000 kB\nSwapTotal:  0 kB\n")
    for pid, rss in ((2, None), (30, 403_900), (9, 4)):
        one = tmp_path / str(pid)
        one.mkdir()
        memory = f"VmRSS:\t{rss} kB\nVmPTE:\t40 kB\nVmSwap:\t0 kB\n" if rss else ""
        (one / "status").write_text(f"Name:\tt {pid}\n{memory}")
        (one / "oom_score").write_text("734\n" if pid == 30 else "666\n")
        (one / "oom_score_adj").write_text("0\n")
    (tmp_path / "31").mkdir()
    system = oom_score.read_proc(str(tmp_path))
    assert [p.pid for p in system.processes] == [2, 9, 30]
    rows = oom_score.table(system)
    assert (rows[0].process.comm, rows[0].score, rows[0].verdict) == ("t 30", 733, "counters")
    text = oom_score.lines(system, rows)
    assert text[0].startswith("If memory ran out now, t 30 (pid 30) would be killed")
    assert [d["pid"] for d in oom_score.to_dict(rows)] == [30, 9]
    with pytest.raises(UsageError):
        oom_score.read_proc(str(tmp_path / "none"))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints the ranking, with an adjustment assumed, as JSON, or says what is wrong."""
    (tmp_path / "meminfo").write_text("MemTotal:  4000000 kB\n")
    one = tmp_path / "8"
    one.mkdir()
    (one / "status").write_text("Name:\tx\nVmRSS:\t400 kB\n")
    (one / "oom_score").write_text("666\n")
    (one / "oom_score_adj").write_text("0\n")
    where = ["oom-score", "--proc", str(tmp_path)]
    assert main(where) == 0
    assert "x (pid 8) would be killed: 100 points" in capsys.readouterr().out
    assert main([*where, "--pid", "8", "--adj", "10", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["rows"][0]
    assert row["points"] == 100 + 10 * 1000 and row["verdict"] == "asked"
    assert main([*where, "--pid", "9", "--adj", "1"]) == 2
    assert main(["oom-score", "--proc", str(tmp_path / "no")]) == 2
    assert "mmcore oom-score: there is no process 9" in capsys.readouterr().err
