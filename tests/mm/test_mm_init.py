"""From regions to zones: sizes, the movable zone, deferred pages, hash tables, sections."""

from __future__ import annotations

import itertools
import re

import pytest

from mmcore import Machine
from mmcore.config import Config
from mmcore.lib.cmdline import memparse
from mmcore.mm import memblock as mb
from mmcore.mm import mm_init, page_alloc, sparse
from mmcore.mm.mmzone import PAGES_PER_SECTION, ZONE_MOVABLE, ZONE_NORMAL
from mmcore.proc import capture, dmesg

G = 1 << 30


def boot(size: str = "4G", **arguments: object) -> Machine:
    return Machine.boot(size, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [
        ("512M", 512 << 20, ""),
        ("0x10K@1G", 16 << 10, "@1G"),
        ("010", 8, ""),
        ("7", 7, ""),
        ("1T,", 1 << 40, ","),
        ("x", 0, "x"),
        ("", 0, ""),
    ],
)
def test_memparse(text: str, value: int, rest: str) -> None:
    assert memparse(text) == (value, rest)


def test_kernelcore_values() -> None:
    assert mm_init.cmdline_parse_core("400M") == (102400, 0)
    assert mm_init.cmdline_parse_core("25%") == (0, 25)


def test_zone_limits_and_holes() -> None:
    m = boot("5G")
    dma, dma32, normal, movable, device = m.node_data[0].node_zones
    assert (dma.zone_start_pfn, dma.spanned_pages, dma.present_pages) == (1, 4095, 3998)
    assert (dma32.zone_start_pfn, dma32.spanned_pages) == (4096, 1044480)
    assert dma32.present_pages == 782304  # the hole below 4 GiB is spanned, not present
    assert (normal.zone_start_pfn, normal.spanned_pages) == (1 << 20, 524288)
    assert movable.spanned_pages == device.spanned_pages == 0
    assert mm_init.absent_pages_in_range(m, 0, 1 << 20) == (1 << 20) - 3998 - 782304


@pytest.mark.parametrize("percent", [25, 50, 75])
def test_movablecore_percent(percent: int) -> None:
    m = boot("4G", cmdline=f"movablecore={percent}%")
    total = m.node_data[0].node_present_pages
    movable = m.node_data[0].node_zones[ZONE_MOVABLE].present_pages
    # Only the highest zone can be movable; here it holds a quarter of memory and more.
    normal = total - 786432
    assert movable == pytest.approx(min(total * percent // 100, normal), abs=2048)


def test_kernelcore_is_spread_over_nodes() -> None:
    """Each node gives half; what node 0 has below 4 GiB cannot be movable and counts first."""
    for size, second in (("6G", 786432), ("2G", 0)):
        m = boot("8G", nodes=["4G", "4G"], cmdline=f"kernelcore={size}")
        kernel = [
            sum(z.present_pages for z in p.node_zones if z.zone_idx != ZONE_MOVABLE)
            for p in m.node_data.values()
        ]
        assert kernel[1] == second
        assert kernel[0] >= 786432 - 256


def test_kernelcore_larger_than_memory_is_ignored() -> None:
    m = boot("1G", cmdline="kernelcore=8G")
    assert m.mm_init.zone_movable_pfn == {}


def test_movable_node() -> None:
    from mmcore.arch.x86.numa import SratNode

    nodes = [
        SratNode(0, [(0, 0xA0000), (0x100000, 2 * G)], [0]),
        SratNode(1, [(2 * G, 3 * G), (4 * G, 5 * G)], hotplug=True),
    ]
    m = boot("4G", nodes=nodes, cmdline="movable_node", initrd=None)
    zones = m.node_data[1].node_zones
    assert zones[ZONE_NORMAL].present_pages == 0
    assert zones[ZONE_MOVABLE].present_pages == 262144 + 262144 - 32
    # A RAM disk in the node's memory pins the whole node.
    pinned = boot("4G", nodes=nodes, cmdline="movable_node")
    assert pinned.node_data[1].node_zones[ZONE_MOVABLE].present_pages == 0
    plain = boot("4G", nodes=nodes)
    assert plain.node_data[1].node_zones[ZONE_NORMAL].present_pages == 262144


def _mirrored(kdump: bool = False, mirror: bool = True) -> tuple[Machine, int]:
    """Size the zones of 6 GiB once more, with 4-5 GiB mirrored and kernelcore=mirror."""
    m = boot("6G", cmdline="kernelcore=mirror")
    m.dmesg.clear()
    m.is_kdump_kernel = kdump
    if mirror:
        mb.memblock_mark_mirror(m.memblock, 4 * G, G)
    m.mm_init.zone_movable_pfn.clear()
    mm_init.find_zone_movable_pfns_for_nodes(m)
    return m, m.mm_init.zone_movable_pfn.get(0, 0)


def test_kernelcore_mirror_makes_the_rest_above_4_gib_movable() -> None:
    m, movable = _mirrored()
    assert movable << 12 == 5 * G
    assert any("results in unmirrored kernel memory" in line for line in m.dmesg)


@pytest.mark.parametrize(("kdump", "mirror"), [(True, True), (False, False)])
def test_kernelcore_mirror_is_ignored(kdump: bool, mirror: bool) -> None:
    m, movable = _mirrored(kdump, mirror)
    why = "under kdump" if kdump else "no mirror memory"
    assert movable == 0 and any(why in line for line in m.dmesg)


def test_deferred_boundary() -> None:
    """Chapter 17's exercise: a zone from pfn 4096 waits at 65536, one from 1 << 20 at 0x108000."""
    for size, pfn in (("3G", 65536), ("256M", None), ("512M", 65536), ("5G", 0x108000)):
        m = Machine(config=Config())
        from mmcore import boot as boot_
        from mmcore.arch.x86 import setup

        boot_.set_memory_map(m, size)
        setup.setup_arch(m)
        expected = mm_init.ULONG_MAX if pfn is None else pfn
        assert m.node_data[0].first_deferred_pfn == expected


def test_deferred_or_not_the_same_pages_are_managed() -> None:
    off = Config(DEFERRED_STRUCT_PAGE_INIT=False)
    assert boot("4G", config=off).totalram_pages == boot("4G").totalram_pages
    assert not any("deferred" in line for line in boot("4G", config=off).dmesg)


def test_deferred_grow_zone() -> None:
    from mmcore import boot as boot_
    from mmcore.arch.x86 import setup

    m = Machine()
    boot_.set_memory_map(m, "2G")
    setup.setup_arch(m)
    m.set_pfn_ranges(boot_._zone_ranges(m))
    boot_._set_node_distance(m)
    page_alloc.build_all_zonelists(m, None)
    mb.memblock_free_all(m)
    zone = m.node_data[0].node_zones[1]
    before = zone.managed_pages
    assert m.node_data[0].first_deferred_pfn == 65536
    assert mm_init.deferred_grow_zone(m, zone, 0)
    assert zone.managed_pages - before == PAGES_PER_SECTION
    assert m.node_data[0].first_deferred_pfn == 98304
    assert not mm_init.deferred_grow_zone(m, m.node_data[0].node_zones[0], 0)
    while m.node_data[0].first_deferred_pfn != mm_init.ULONG_MAX:
        mm_init.deferred_grow_zone(m, zone, 0)
    assert not mm_init.deferred_grow_zone(m, zone, 0)


def test_deferred_reserved_pageblocks_stay_unmovable() -> None:
    """Only free ranges set the type of deferred blocks, so those under the memory map keep 0."""
    zone = boot("4G").node_data[0].node_zones[2]
    blocks = zone.pageblock_flags
    assert 0 in blocks and blocks.count(1) > 200


def test_hash_tables_are_the_captured_ones() -> None:
    for name in ("n1-1g/physical", "n2-5g/physical"):
        log = dmesg.parse(capture.load(name).dmesg or "")
        kernel = {v["table"]: v["entries"] for v in log.of("hash_table")}
        m = Machine.from_capture(name)
        early = {v["table"]: v for v in dmesg.parse("\n".join(m.dmesg)).of("hash_table")}
        for table, scale in (("Dentry cache", 13), ("Inode-cache", 14)):
            assert mm_init.alloc_large_system_hash(m, table, 8, 0, scale, 0) == kernel[table]
            # With two nodes the tables come later, from vmalloc.
            assert (table in early) == (name == "n1-1g/physical")


def test_hash_tables_grow_more_slowly_above_64_gib() -> None:
    m = boot("1G")
    sizes = []
    for gib in (16, 64, 256, 1024):
        m.mm_init.nr_kernel_pages = m.mm_init.nr_all_pages = gib * G >> 12
        sizes.append(mm_init.alloc_large_system_hash(m, "x", 8, 0, 13, 0))
    assert [b // a for a, b in itertools.pairwise(sizes)] == [4, 2, 2]


def test_sections() -> None:
    m = boot("1G")
    assert m.mm_init.present_section_nr == list(range(8))
    assert m.mm_init.memmap_pages == 4096  # nr_memmap_boot_pages of the capture
    assert sparse.pfn_valid(m, 0) and sparse.pfn_valid(m, 262143)
    assert not sparse.pfn_valid(m, 262144)
    assert sparse.next_present_section_nr(m, 3) == 4
    assert sparse.next_present_section_nr(m, 7) == -1
    m = boot("5G")
    assert sparse.next_present_section_nr(m, 23) == 32  # nothing between 3 and 4 GiB


def test_memory_line_adds_up() -> None:
    m = boot("2G")
    line = next(line for line in m.dmesg if line.startswith("Memory:"))
    free, total, reserved = (
        int(n) for n in re.findall(r"(\d+)K/(\d+)K.* (\d+)K reserved", line)[0]
    )
    assert total == m.node_data[0].node_present_pages * 4
    # Nothing is allocated yet in this model; the ten pages of SMP alternatives are on a CPU's list.
    assert total - reserved - free == 40


def test_zones_are_contiguous_only_without_missing_sections() -> None:
    zones = boot("5G").node_data[0].node_zones
    assert [zones[i].contiguous for i in range(3)] == [True, False, True]


@pytest.mark.parametrize("config", [Config(), Config(cpu_gbpages=False)])
def test_direct_mapping_is_cut_into_page_sizes(config: Config) -> None:
    from mmcore.arch.x86 import init

    m = boot("5G", config=config)
    parts = init.split_mem_range(m, 0x100000, 0xBFFE0000)
    assert parts[0][0] == 0x100 and parts[-1][1] == 0xBFFE0
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    levels = [level for _, _, level in parts]
    assert levels == ([0, 1, 2, 1, 0] if config.cpu_gbpages else [0, 1, 0])
