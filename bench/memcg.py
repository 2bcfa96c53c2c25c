"""Memory cgroups: single-page charges per second, alone and below seven ancestors."""

from __future__ import annotations

from collections.abc import Iterator

from bench.measure import best
from bench.row import Row
from mmcore import Machine
from mmcore.kernel.cgroup import cgroup as cg
from mmcore.kernel.fork import spawn
from mmcore.mm import memcontrol as mc
from mmcore.mm.gfp import GFP_KERNEL
from mmcore.mm.page_counter import page_counter_charge, page_counter_uncharge

__all__ = ["memcg"]


def _group(depth: int) -> mc.MemCgroup:
    m = Machine.boot("64M")
    mc.mem_cgroup_init(m)
    spawn(m, "bench")
    assert m.cgrp_dfl_root is not None
    at = m.cgrp_dfl_root.cgrp
    for level in range(depth):
        cg.cgroup_subtree_control_write(at, "+memory")
        made = cg.cgroup_mkdir(at, f"level{level}")
        assert not isinstance(made, int)
        at = made
    return mc.memcg_of(at)


def _charges(memcg: mc.MemCgroup, n: int) -> None:
    for _ in range(n):
        mc.try_charge_memcg(memcg, GFP_KERNEL, 1)
    mc.mem_cgroup_cancel_charge(memcg, n)


def _counters(memcg: mc.MemCgroup, n: int) -> None:
    for _ in range(n):
        page_counter_charge(memcg.memory, 1)
    page_counter_uncharge(memcg.memory, n)


def memcg(quick: bool) -> Iterator[Row]:
    """Charges from the stock and in batches, beside a walk up the tree for each page."""
    n = 20_000 if quick else 200_000
    for depth in (1, 8):
        group = _group(depth)
        stocked = n / best(_charges, 3, group, n)
        each = n / best(_counters, 3, group, n)
        yield Row(f"memcg charges, depth {depth}", stocked, "charge/s")
        yield Row("  the counters alone, page by page", each, "charge/s")
