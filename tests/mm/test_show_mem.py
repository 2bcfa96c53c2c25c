"""The report on memory: the kernel's text, line by line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmcore.machine import bare_zone
from mmcore.mm import page_alloc as pa
from mmcore.mm import show_mem
from mmcore.mm.gfp import GFP_ATOMIC, GFP_HIGHUSER_MOVABLE, GFP_KERNEL
from mmcore.mm.mmzone import MIGRATE_UNMOVABLE
from mmcore.mm.vmstat import (
    NR_ACTIVE_FILE,
    NR_FREE_PAGES,
    NR_INACTIVE_FILE,
    NR_KERNEL_MISC_RECLAIMABLE,
    NR_SLAB_RECLAIMABLE_B,
)

OOM = Path(__file__).parents[2] / "book" / "captures" / "n1-256m" / "oom.txt"


def test_free_list_line() -> None:
    zone = bare_zone(16, free=False)
    assert show_mem.zone_free_list_line(zone) == (
        "Node 0 Normal: 0*4kB 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB "
        "0*2048kB 0*4096kB = 0kB"
    )
    zone = bare_zone(1024, free=False)
    zone.pageblock_flags[1] = MIGRATE_UNMOVABLE
    for pfn, order, mt in ((1, 0, 1), (513, 0, 0), (514, 1, 0), (768, 8, 0)):
        pa.__free_one_page(pa.zone_page(zone, pfn), pfn, zone, order, mt, 0)
    assert show_mem.zone_free_list_line(zone) == (
        "Node 0 Normal: 2*4kB (UM) 1*8kB (U) 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB "
        "1*1024kB (U) 0*2048kB 0*4096kB = 1040kB"
    )


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (None, "(null)"),
        (0, ""),
        (1, "0"),
        (0b111, "0-2"),
        (0b100101, "0,2,5"),
        (0b110011, "0-1,4-5"),
    ],
)
def test_node_mask_text(mask: int | None, text: str) -> None:
    assert show_mem.node_mask_text(mask) == text


def shape(line: str) -> str:
    """A line without its numbers, node names and migratetype letters."""
    line = re.sub(r"\([UMEHI]+\) ", "", line)
    line = re.sub(r"Node \d+ (DMA32|DMA|Normal)", "Node N ZONE", line)
    return re.sub(r"\d+", "N", line).replace("yes", "no")


def test_report_has_the_shape_of_a_real_one() -> None:
    text = OOM.read_text()
    start = text.index("sparse: page allocation failure")
    real = [re.sub(r"^\[ *[\d.]+\] ", "", line) for line in text[start:].split("\n")]
    real = real[real.index("Mem-Info:") : real.index("0 pages hwpoisoned") + 1]
    m = bare_zone(4096).machine
    model = show_mem.show_mem(m, 0, None, 2)
    shapes = list(dict.fromkeys(map(shape, model)))
    assert shapes == list(dict.fromkeys(map(shape, real)))


def test_numbers_of_the_report() -> None:
    zone = bare_zone(4096, cpus=2)
    m = zone.machine
    page = pa.alloc_pages(m, GFP_HIGHUSER_MOVABLE, 0)
    m.this_cpu = 1
    pa.__free_pages(page, 0)
    zone._watermark[:] = [10, 20, 30, 40]
    zone.watermark_boost = 5
    zone.lowmem_reserve[3] = 7
    pcp = zone.per_cpu_pageset
    lines = show_mem.show_mem(m, 0, None, 2)
    line = next(line for line in lines if line.startswith("Node 0 Normal free:"))
    assert (
        f"free:{zone.vm_stat[NR_FREE_PAGES] * 4}kB boost:20kB min:60kB low:100kB high:140kB" in line
    )
    assert f"free_pcp:{(pcp[0].count + pcp[1].count) * 4}kB local_pcp:{pcp[1].count * 4}kB" in line
    assert "lowmem_reserve[]: 0 0 0 7 0" in lines
    assert "4096 pages RAM" in lines and "0 pages reserved" in lines


def test_filters() -> None:
    m = bare_zone(4096).machine
    assert any("Normal" in x for x in show_mem.show_mem(m, show_mem.SHOW_MEM_FILTER_NODES, None, 2))
    hidden = show_mem.show_mem(m, show_mem.SHOW_MEM_FILTER_NODES, 0b10, 2)
    assert not any("Normal" in x for x in hidden)
    assert not any("Normal" in x for x in show_mem.show_mem(m, 0, None, 1))
    # A request that may not block shows all nodes.
    assert any("Normal" in x for x in show_mem.warn_alloc_show_mem(m, GFP_ATOMIC, 0b10))
    assert not any("Normal" in x for x in show_mem.warn_alloc_show_mem(m, GFP_KERNEL, 0b10))


def test_si_mem_available() -> None:
    zone = bare_zone(4096)
    m = zone.machine
    zone._watermark[:] = [50, 100, 150, 200]
    m.totalreserve_pages = 200
    assert show_mem.si_mem_available(m) == 4096 - 200
    stat = m.node_data[0].vm_stat
    stat[NR_ACTIVE_FILE], stat[NR_INACTIVE_FILE] = 60, 100
    assert show_mem.si_mem_available(m) == 3896 + 160 - 80
    stat[NR_SLAB_RECLAIMABLE_B], stat[NR_KERNEL_MISC_RECLAIMABLE] = 300, 20
    assert show_mem.si_mem_available(m) == 3896 + 160 - 80 + 320 - 100
    m.totalreserve_pages = 1 << 20
    assert show_mem.si_mem_available(m) == 0
