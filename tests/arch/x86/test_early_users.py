"""What takes memory from memblock while the kernel boots."""

from __future__ import annotations

import pytest

from mmcore import Machine
from mmcore.arch.x86 import early_users
from mmcore.config import Config


@pytest.mark.parametrize(
    ("cpus", "intel", "tables"),
    [
        # recorded: AMD processors, whose areas are mapped up to the fourth exception stack
        (1, False, 3),
        (9, False, 3),
        # from the layout: 1 + 59 pages per CPU; Intel's debug store fills the rest of each area
        (9, True, 4),
        (17, False, 4),
        (18, False, 4),
        (18, True, 5),
    ],
)
def test_entry_areas_take_a_table_for_each_2_mib_they_are_mapped_in(
    cpus: int, intel: bool, tables: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers: list[str] = []
    alloc = early_users._alloc

    def spy(m: Machine, size: int, caller: str, align: int = 64) -> int | None:
        callers.append(caller)
        return alloc(m, size, caller, align)

    monkeypatch.setattr(early_users, "_alloc", spy)
    Machine.boot("1G", cpus=cpus, config=Config(cpu_intel=intel))
    assert sum(caller.startswith("spp_getpage") for caller in callers) == tables
