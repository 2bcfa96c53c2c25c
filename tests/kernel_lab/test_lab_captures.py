"""What this lab recorded, and the page about it.

`test_machine.py` compares the physical, memblock and watermarks captures like any others.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernel_lab import capture as lab_capture
from kernel_lab import experiment, run
from kernel_lab.topology import TOPOLOGIES
from mmcore.proc import capture
from mmcore.report.alloctrace import replay

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book" / "captures"


def of_this_lab() -> list[str]:
    """The captures of the book that this lab made: the older ones do not carry its record.sh."""
    names = [f"{p.parent.name}/{p.name.partition('.')[0]}" for p in sorted(BOOK.glob("*/*.txt*"))]
    return [name for name in names if "SOURCE record.sh" in capture.load(name)]


RECORDED = of_this_lab()


def test_there_are_captures_of_this_lab() -> None:
    assert {"n4-1g/physical", "n1-512m/alloctrace", "n1-1g/vma"} <= set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_a_capture_is_of_the_sources_that_are_here(name: str) -> None:
    """So that ``python -m kernel_lab check`` can record the same bytes again."""
    read = capture.load(name)
    one = experiment.load(read.header["experiment"])
    for file, text in run.sources(one).items():
        assert read[f"SOURCE {file}"] == text.rstrip("\n") + "\n", f"{file}: record {name} again"
    assert read.header["topology"] == name.partition("/")[0]
    assert lab_capture.TIMING in read.header and read.header["status"] == "ok"


VMA_SECTIONS = ["seed1", "seed2_dense", "seed3_wide", "seed4_seal", "seed5_lockall"]


def lines_hash(lines: list[str]) -> str:
    """FNV-1a, 64 bit, of lines that each end with a newline."""
    value = 0xCBF29CE484222325
    for byte in "".join(f"{line}\n" for line in lines).encode():
        value = ((value ^ byte) * 0x100000001B3) & (1 << 64) - 1
    return f"{value:016x}"


@pytest.mark.parametrize("section", VMA_SECTIONS)
def test_what_a_call_changed_adds_up_to_the_whole_map(section: str) -> None:
    """The program prints changes only; its checksums say whether all of them are there."""
    state: dict[int, str] = {}
    checks = operations = 0
    for line in capture.load("n1-1g/vma")[section].splitlines():
        entry = json.loads(line)
        if "final" in entry:
            assert entry["add"] == [state[start] for start in sorted(state)]
        else:
            for gone in entry.get("del", []):
                del state[int(gone.partition("-")[0], 16)]
            state |= {int(new.partition("-")[0], 16): new for new in entry.get("add", [])}
        operations += "op" in entry
        if "hash" in entry:
            checks += 1
            assert lines_hash([state[start] for start in sorted(state)]) == entry["hash"]
    assert operations >= 800 and checks == operations // 100 + 2


def test_the_engine_predicts_every_page_frame_of_this_labs_workload() -> None:
    """Exact, as in tests/captures/test_alloctrace.py, for a program and a sequence written apart."""
    result = replay(capture.load("n1-512m/alloctrace"))
    assert result.mismatches == [] and result.lists_differ == [] and result.exact
    assert result.seen["kmem:mm_page_alloc"] > 5000 and result.lists > 30


def test_the_page_names_every_experiment_and_topology() -> None:
    page = (ROOT / "book" / "kernel-lab.md").read_text(encoding="utf-8")
    for name in (*experiment.available(), *TOPOLOGIES):
        assert f"`{name}`" in page, name
