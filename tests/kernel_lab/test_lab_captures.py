"""What this lab recorded, and the page about it.

`test_machine.py` compares the physical, memblock and watermarks captures like any others.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_lab import capture as lab_capture
from kernel_lab import experiment, run
from kernel_lab.topology import TOPOLOGIES
from mmcore.proc import capture
from mmcore.report.alloctrace import replay

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ["n4-1g/physical", "n4-1g/memblock", "n4-1g/watermarks", "n1-512m/alloctrace"]


@pytest.mark.parametrize("name", RECORDED)
def test_a_capture_is_of_the_sources_that_are_here(name: str) -> None:
    """So that ``python -m kernel_lab check`` can record the same bytes again."""
    read = capture.load(name)
    one = experiment.load(read.header["experiment"])
    for file, text in run.sources(one).items():
        assert read[f"SOURCE {file}"] == text.rstrip("\n") + "\n", f"{file}: record {name} again"
    assert read.header["topology"] == name.partition("/")[0]
    assert lab_capture.TIMING in read.header and read.header["status"] == "ok"


def test_the_engine_predicts_every_page_frame_of_this_labs_workload() -> None:
    """Exact, as in tests/captures/test_alloctrace.py, for a program and a sequence written apart."""
    result = replay(capture.load("n1-512m/alloctrace"))
    assert result.mismatches == [] and result.lists_differ == [] and result.exact
    assert result.seen["kmem:mm_page_alloc"] > 5000 and result.lists > 30


def test_the_page_names_every_experiment_and_topology() -> None:
    page = (ROOT / "book" / "kernel-lab.md").read_text(encoding="utf-8")
    for name in (*experiment.available(), *TOPOLOGIES):
        assert f"`{name}`" in page, name
