"""The table of limits, and where the number of processes comes from."""

from __future__ import annotations

from mmcore.machine import Machine
from mmcore.mm import memblock
from mmcore.mm.util import RLIM_INFINITY
from mmcore.proc import limits


def test_stacks_may_take_an_eighth_of_what_was_free():
    m = Machine.boot("1G")
    free = memblock.memblock_estimated_nr_free_pages(m.memblock)
    threads = limits.set_max_threads(m)
    assert threads * 4 * 8 <= free < (threads + 1) * 4 * 8
    assert limits.init_rlimits(m)[limits.RLIMIT_NPROC] == (threads // 2, threads // 2)
    assert limits.set_max_threads(Machine.boot("2G")) > 2 * threads


def test_a_line_for_each_limit_and_a_heading():
    table = dict.fromkeys(range(16), (5, RLIM_INFINITY))
    lines = limits.render(table).splitlines()
    assert len(lines) == 17 and {len(line) for line in lines} == {78, 68}
    assert all(line[26:].split()[:2] == ["5", "unlimited"] for line in lines[1:])
    assert lines[14].startswith("Max nice priority ") and lines[14].endswith(
        "unlimited            "
    )
