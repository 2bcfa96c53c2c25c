"""The engine behaves as the kept traces say, event by event, on every Python and in Pyodide."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SPEC = importlib.util.spec_from_file_location("golden_workloads", HERE / "workloads.py")
assert SPEC is not None and SPEC.loader is not None
workloads = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(workloads)


@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_golden(name: str) -> None:
    kept = (HERE / f"{name}.txt").read_text().splitlines()
    now = workloads.WORKLOADS[name]()
    if now != kept:
        diff = list(difflib.unified_diff(kept, now, "kept", "now", lineterm="", n=2))
        pytest.fail(
            f"{len(diff)} lines of difference; if this behaviour is meant:\n"
            f"    python tests/golden/regenerate.py --write {name}\n" + "\n".join(diff[:60]),
            pytrace=False,
        )


@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_the_traces_hold_something(name: str) -> None:
    """A workload that does nothing would pass the test above for ever."""
    kept = (HERE / f"{name}.txt").read_text().splitlines()
    wanted = {
        "boot": ["DMA32", "Movable zone start", "Built 1 zonelists", "protection:"],
        "buddy": ["buddy_split", "buddy_merge", "to_tail=True", "to_tail=False", "mm_page_free"],
        "pcp": ["mm_page_alloc_zone_locked", "mm_page_pcpu_drain", "alloc_factor"],
        "fallback": ["mm_page_alloc_extfrag", "claimed=True", "claimed=False", "Unmovable"],
        "slowpath": ["direct_compact", "may_oom", "nopage", "wakeup_kswapd", "zone_tried"],
        "faults": ["page_fault_user", "fault_step", "SigSegv", "mm_page_alloc", "fork"],
    }[name]
    text = "\n".join(kept)
    assert [word for word in wanted if word not in text] == []
    assert len(kept) > 150
