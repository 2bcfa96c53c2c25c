"""Exact: memory maps, memblock and zones as the kernel's own functions make them.

The files in ``boot_sequences/`` were recorded from functions of arch/x86/kernel/e820.c,
mm/memblock.c and mm/mm_init.c (Linux 6.12.117), compiled in user space and driven at random: what
was called, what it returned, and the tables that came of it.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmcore import Machine
from mmcore.arch.x86 import e820
from mmcore.mm import memblock as mb
from mmcore.mm import mm_init
from mmcore.mm.mmzone import MAX_NR_ZONES, ZONE_MOVABLE, ZONE_NAMES, PgData, Zone

FOLDER = Path(__file__).parent / "boot_sequences"


@functools.cache
def lines(name: str) -> list[Any]:
    text = gzip.decompress((FOLDER / f"{name}.jsonl.gz").read_bytes()).decode()
    return [json.loads(line) for line in text.splitlines()]


# ---- memblock ------------------------------------------------------------------------------------


def set_bottom_up(memblock: mb.Memblock, base: int, size: int, value: int) -> None:
    memblock.bottom_up = bool(value)


def set_limit(memblock: mb.Memblock, base: int, size: int, value: int) -> None:
    memblock.current_limit = base


def set_movable_node(memblock: mb.Memblock, base: int, size: int, value: int) -> None:
    memblock.movable_node_enabled = bool(value)


def ranged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of (memblock, base, size) take the files' fourth value as well."""
    return lambda memblock, base, size, value: function(memblock, base, size)


MEMBLOCK: dict[str, Callable[..., Any]] = {
    "add_node": mb.memblock_add_node,
    "alloc_range_nid": mb.memblock_alloc_range_nid,
    "alloc_exact_nid_raw": mb.memblock_alloc_exact_nid_raw,
    "alloc_try_nid_raw": mb.memblock_alloc_try_nid_raw,
    "free_ranges": mb.for_each_free_mem_range,
    "free_ranges_reverse": mb.for_each_free_mem_range_reverse,
    "pfn_ranges": lambda memblock, nid, flags: mb.for_each_mem_pfn_range(memblock, nid),
    "set_node": lambda memblock, base, size, nid: mb.memblock_set_node(
        memblock, base, size, memblock.memory, nid
    ),
    "trim_memory": lambda memblock, base, size, value: mb.memblock_trim_memory(memblock, size),
    "enforce_memory_limit": lambda memblock, base, size, value: mb.memblock_enforce_memory_limit(
        memblock, base
    ),
    "mem_limit_remove_map": lambda memblock, base, size, value: mb.memblock_mem_limit_remove_map(
        memblock, base
    ),
    "is_map_memory": lambda memblock, base, size, value: mb.memblock_is_map_memory(memblock, base),
    "bottom_up": set_bottom_up,
    "current_limit": set_limit,
    "movable_node": set_movable_node,
}
MEMBLOCK |= {
    name: ranged(getattr(mb, f"memblock_{name}"))
    for name in (
        "remove",
        "reserve",
        "phys_free",
        "mark_hotplug",
        "clear_hotplug",
        "mark_mirror",
        "mark_nomap",
        "clear_nomap",
        "reserved_mark_noinit",
        "cap_memory_range",
        "is_region_reserved",
        "is_region_memory",
    )
}


@pytest.mark.parametrize("case", range(40))
def test_memblock(case: int) -> None:
    record = lines("memblock")[case]
    memblock = mb.Memblock()
    memblock.mirrored_kernelcore = record["mirrored_kernelcore"]
    tables = 0
    for number, row in enumerate(record["rows"]):
        if isinstance(row, dict):
            for name, regions in row.items():
                found = getattr(memblock, name).regions
                assert [[r.base, r.size, r.flags, r.nid] for r in found] == regions, number
            tables += 1
            continue
        (name, *values), result = row
        got = MEMBLOCK[name](memblock, *values)
        if isinstance(result, list):
            got = [list(item) for item in got]
        assert (got or 0) == (result or 0), f"operation {number}: {name} {values}"
    assert tables >= 8
    mb.validate_memblock(memblock)


def test_memblock_records_hold_every_operation() -> None:
    names = {row[0][0] for case in lines("memblock") for row in case["rows"] if type(row) is list}
    assert names == set(MEMBLOCK)


# ---- e820 ----------------------------------------------------------------------------------------


def test_e820() -> None:
    updates = 0
    for case, rows in enumerate(lines("e820")):
        table = e820.E820Table()
        for (name, *values), result, entries in rows:
            got: int | None = 0
            if name == "add":
                e820.e820__range_add(table, *values)
            elif name == "upd":
                got = e820.e820__range_update(table, *values)
            elif name == "rem":
                got = e820.e820__range_remove(table, *values[:3], bool(values[3]))
            elif name == "table":
                got = e820.e820__update_table(table)
            else:
                got = e820.e820__end_ram_pfn(table, *values)
            assert got == result, (case, name, values)
            if entries is not None:
                updates += 1
                assert [[e.addr, e.size, e.type] for e in table.entries] == entries, case
    assert updates > 100


# ---- zones ---------------------------------------------------------------------------------------


def test_zones() -> None:
    """Where ZONE_MOVABLE starts, and what every zone of every node spans and holds."""
    cases = lines("zones")
    movable = 0
    for number, case in enumerate(cases):
        m = Machine()
        m.memblock.memory.regions = [mb.MemblockRegion(*values) for values in case["regions"]]
        m.memblock.mirrored_kernelcore = case["mirror"]
        m.memblock.system_has_some_mirror = any(r[2] & mb.MEMBLOCK_MIRROR for r in case["regions"])
        m.memblock.movable_node_enabled = case["movable_node"]
        s = m.mm_init
        s.required_kernelcore, s.required_kernelcore_percent = case["kernelcore"]
        s.required_movablecore, s.required_movablecore_percent = case["movablecore"]
        m.node_states["N_MEMORY"] = []
        start = mb.memblock_start_of_DRAM(m.memblock) >> 12
        for zone in range(MAX_NR_ZONES):
            if zone != ZONE_MOVABLE:
                end = max(case["max_zone_pfns"][zone], start)
                s.arch_zone_lowest_possible_pfn[zone] = start
                s.arch_zone_highest_possible_pfn[zone] = end
                start = end
        mm_init.find_zone_movable_pfns_for_nodes(m)
        for nid, wanted in enumerate(case["nodes"]):
            pgdat = PgData(m, nid)
            pgdat.node_zones = [Zone(m, n, i, nid, pgdat) for i, n in enumerate(ZONE_NAMES)]
            first, end = mm_init.get_pfn_range_for_nid(m, nid)
            mm_init.calculate_node_totalpages(m, pgdat, first, end)
            got = [s.zone_movable_pfn.get(nid, 0), first, end]
            for z in pgdat.node_zones:
                got += [z.zone_start_pfn, z.spanned_pages, z.present_pages]
            got += [pgdat.node_spanned_pages, pgdat.node_present_pages]
            # Where nodes overlap, mirrored memory may count twice: the kernel's number then wraps.
            assert [n % (1 << 64) for n in got] == wanted, f"case {number}, node {nid}"
            movable += wanted[0] != 0
    assert len(cases) == 300 and movable > 100
