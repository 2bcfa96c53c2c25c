"""Pages that are faulted in ahead of time."""

from __future__ import annotations

import pytest

from mmcore.arch.x86.fault import Translation, touch
from mmcore.errors import EINVAL, ENOMEM
from mmcore.kernel.fork import spawn
from mmcore.machine import Machine, bare_zone
from mmcore.mm import madvise as madv
from mmcore.mm.memory import validate_mappings
from mmcore.mm.mm import get_mm_rss
from mmcore.mm.mmap import *

PG = 4096
A = 0x200000000000


@pytest.fixture
def m() -> Machine:
    machine = bare_zone(2048).machine
    machine.transparent_hugepage_enabled = "never"
    spawn(machine, "t")
    return machine


def test_map_populate_writes_private_memory(m):
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_POPULATE
    assert do_mmap(m.current.mm, None, A, 64 * PG, 3, flags) == A
    assert get_mm_rss(m.current.mm) == 64 and m.current.min_flt == 64
    for i in range(64):
        assert touch(m, A + i * PG, "w").faults == 0
    validate_mappings(m)


def test_populate_read_maps_the_zero_page(m):
    do_mmap(m.current.mm, None, A, 8 * PG, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
    assert madv.madvise(m.current.mm, A, 8 * PG, madv.MADV_POPULATE_READ) == 0
    assert get_mm_rss(m.current.mm) == 0 and touch(m, A).faults == 0
    assert madv.madvise(m.current.mm, A, 8 * PG, madv.MADV_POPULATE_WRITE) == 0
    assert get_mm_rss(m.current.mm) == 8
    assert isinstance(touch(m, A, "w"), Translation)
    assert m.current.mm.mmap_lock.readers == 0


@pytest.mark.parametrize(
    ("prot", "what", "error"),
    [(1, madv.MADV_POPULATE_WRITE, -EINVAL), (0, madv.MADV_POPULATE_READ, -EINVAL)],
)
def test_populate_needs_the_rights(m, prot, what, error):
    do_mmap(m.current.mm, None, A, 8 * PG, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
    assert madv.madvise(m.current.mm, A, 8 * PG, what) == error


def test_populate_stops_at_a_hole_and_without_memory(m):
    do_mmap(m.current.mm, None, A, 8 * PG, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
    assert madv.madvise(m.current.mm, A, 9 * PG, madv.MADV_POPULATE_WRITE) == -ENOMEM
    do_mmap(m.current.mm, None, A + (1 << 30), 4096 * PG, 3, 0x32)
    assert madv.madvise(m.current.mm, A + (1 << 30), 4096 * PG, madv.MADV_POPULATE_WRITE) == -ENOMEM
    validate_mappings(m)
