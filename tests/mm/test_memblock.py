"""memblock: the kernel's own cases (tools/testing/memblock), and a model that knows only bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.errors import EBUSY, EINVAL, KernelBug, UsageError
from mmcore.mm import memblock as mb
from mmcore.mm.memblock import MEMBLOCK_HOTPLUG, NUMA_NO_NODE, PHYS_ADDR_MAX, Memblock

K, M, G = 1 << 10, 1 << 20, 1 << 30
CACHE = 32  # what the kernel's test programs are built with


def regions(type: mb.MemblockType) -> list[tuple[int, int]]:
    return [(r.base, r.size) for r in type.regions]


# ---- basic_api.c ---------------------------------------------------------------------------------

# Name of the kernel's case, ranges added one after the other, regions expected.
ADD_CASES = [
    ("simple", [(G, 4 * M)], [(G, 4 * M)]),
    ("disjoint", [(G, 8 * K), (G + 16 * K, 8 * K)], [(G, 8 * K), (G + 16 * K, 8 * K)]),
    ("overlap_top", [(512 * M, G), (256 * M, 512 * M)], [(256 * M, G + 256 * M)]),
    ("overlap_bottom", [(128 * M, 512 * M), (256 * M, G)], [(128 * M, G + 128 * M)]),
    ("within", [(8 * M, 32 * M), (16 * M, M)], [(8 * M, 32 * M)]),
    ("twice", [(16 * K, 2 * M), (16 * K, 2 * M)], [(16 * K, 2 * M)]),
    (
        "between",
        [(G, 8 * K), (G + 16 * K, 8 * K), (G + 8 * K, 8 * K)],
        [(G, 24 * K)],
    ),
    ("near_max", [(PHYS_ADDR_MAX - M, 2 * M)], [(PHYS_ADDR_MAX - M, M)]),
]
RESERVE_CASES = [
    ("simple", [(2 * G, 128 * M)], [(2 * G, 128 * M)]),
    (
        "disjoint",
        [(256 * M, 16 * M), (512 * M, 512 * M)],
        [(256 * M, 16 * M), (512 * M, 512 * M)],
    ),
    ("overlap_top", [(G, G), (128 * M, G)], [(128 * M, 2 * G - 128 * M)]),
    ("overlap_bottom", [(2 * K, 128 * K), (128 * K, 128 * K)], [(2 * K, 254 * K)]),
    ("within", [(M, 8 * M), (2 * M, 64 * K)], [(M, 8 * M)]),
    ("twice", [(16 * K, 2 * M), (16 * K, 2 * M)], [(16 * K, 2 * M)]),
    (
        "between",
        [(G, 8 * K), (G + 16 * K, 8 * K), (G + 8 * K, 8 * K)],
        [(G, 24 * K)],
    ),
    ("near_max", [(PHYS_ADDR_MAX - M, 2 * M)], [(PHYS_ADDR_MAX - M, M)]),
]
# Ranges added, range taken out, regions expected; the same for remove and free.
REMOVE_CASES = [
    ("simple", [(2 * K, 4 * K), (128 * K, 4 * M)], (2 * K, 4 * K), [(128 * K, 4 * M)]),
    ("absent", [(512 * K, 4 * M)], (64 * M, G), [(512 * K, 4 * M)]),
    ("overlap_top", [(32 * M, 32 * M)], (16 * M, 32 * M), [(48 * M, 16 * M)]),
    ("overlap_bottom", [(2 * M, 64 * M)], (32 * M, 256 * M), [(2 * M, 30 * M)]),
    ("within", [(M, 32 * M)], (16 * M, M), [(M, 15 * M), (17 * M, 16 * M)]),
    ("only_region", [(2 * K, 4 * K)], (2 * K, 4 * K), []),
    (
        "near_max",
        [(PHYS_ADDR_MAX - 2 * M, 2 * M)],
        (PHYS_ADDR_MAX - M, 2 * M),
        [(PHYS_ADDR_MAX - 2 * M, M)],
    ),
    (
        "overlap_two",
        [(16 * M, 32 * M), (64 * M, 64 * M)],
        (32 * M, 64 * M),
        [(16 * M, 16 * M), (96 * M, 32 * M)],
    ),
]
FREE_CASES = [
    ("simple", [(4 * M, M), (8 * M, M)], (4 * M, M), [(8 * M, M)]),
    ("absent", [(2 * M, 8 * K)], (16 * M, 128 * M), [(2 * M, 8 * K)]),
    ("overlap_top", [(8 * M, 32 * M)], (M, 8 * M), [(9 * M, 31 * M)]),
    ("overlap_bottom", [(8 * M, 32 * M)], (32 * M, 32 * M), [(8 * M, 24 * M)]),
    ("within", [(M, 8 * M)], (4 * M, M), [(M, 3 * M), (5 * M, 4 * M)]),
    *REMOVE_CASES[5:],
]


@pytest.mark.parametrize(("name", "ranges", "expected"), ADD_CASES, ids=lambda v: str(v)[:20])
def test_add(name: str, ranges: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    """basic_api.c:memblock_add_*_check"""
    m = Memblock()
    for base, size in ranges:
        assert mb.memblock_add(m, base, size) == 0
    assert regions(m.memory) == expected
    assert m.memory.total_size == sum(size for _, size in expected)


@pytest.mark.parametrize(("name", "ranges", "expected"), RESERVE_CASES, ids=lambda v: str(v)[:20])
def test_reserve(name: str, ranges: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    """basic_api.c:memblock_reserve_*_check"""
    m = Memblock()
    for base, size in ranges:
        assert mb.memblock_reserve(m, base, size) == 0
    assert regions(m.reserved) == expected
    assert m.reserved.total_size == sum(size for _, size in expected)


@pytest.mark.parametrize(
    ("name", "ranges", "gone", "expected"), REMOVE_CASES, ids=lambda v: str(v)[:20]
)
def test_remove(
    name: str,
    ranges: list[tuple[int, int]],
    gone: tuple[int, int],
    expected: list[tuple[int, int]],
) -> None:
    """basic_api.c:memblock_remove_*_check"""
    m = Memblock()
    for base, size in ranges:
        mb.memblock_add(m, base, size)
    mb.memblock_remove(m, *gone)
    assert regions(m.memory) == expected
    assert m.memory.total_size == sum(size for _, size in expected)


@pytest.mark.parametrize(
    ("name", "ranges", "gone", "expected"), FREE_CASES, ids=lambda v: str(v)[:20]
)
def test_free(
    name: str,
    ranges: list[tuple[int, int]],
    gone: tuple[int, int],
    expected: list[tuple[int, int]],
) -> None:
    """basic_api.c:memblock_free_*_check"""
    m = Memblock()
    for base, size in ranges:
        mb.memblock_reserve(m, base, size)
    mb.memblock_free(m, *gone)
    assert regions(m.reserved) == expected
    assert m.reserved.total_size == sum(size for _, size in expected)


def test_initialization() -> None:
    """basic_api.c:memblock_initialization_check"""
    m = Memblock()
    assert (m.memory.cnt, m.memory.max, m.memory.name) == (0, 128, "memory")
    assert (m.reserved.cnt, m.reserved.max, m.reserved.name) == (0, 128, "reserved")
    assert m.bottom_up is False and m.current_limit == mb.MEMBLOCK_ALLOC_ANYWHERE


def test_add_node_simple() -> None:
    """basic_api.c:memblock_add_node_simple_check"""
    m = Memblock()
    mb.memblock_add_node(m, M, 16 * M, 1, MEMBLOCK_HOTPLUG)
    [r] = m.memory.regions
    assert (r.base, r.size, r.nid, r.flags) == (M, 16 * M, 1, MEMBLOCK_HOTPLUG)


def test_add_many_doubles_the_array() -> None:
    """basic_api.c:memblock_add_many_check"""
    m = Memblock()
    mb.memblock_allow_resize(m)
    array = 128 * 2 * mb.SIZEOF_MEMBLOCK_REGION
    array = (array + 4095) & -4096
    mb.memblock_add(m, 16 * M, array)
    base = 16 * M + array + 64
    for i in range(128):
        mb.memblock_add(m, base, 64)
        base += 128
        assert m.memory.cnt == i + 2
        assert m.memory.total_size == array + (i + 1) * 64
    assert m.memory.max == 256
    assert regions(m.reserved) == [(16 * M, array)]
    mb.memblock_add(m, 16 * K, 16 * K)
    assert regions(m.memory)[0] == (16 * K, 16 * K)
    assert m.memory.cnt == 130 and m.memory.max == 256


def test_reserve_many_doubles_the_array() -> None:
    """basic_api.c:memblock_reserve_many_check"""
    m = Memblock()
    mb.memblock_allow_resize(m)
    mb.memblock_add(m, 1 * G, 32 * K)
    base = 2 * K
    for i in range(128):
        mb.memblock_reserve(m, base, 2 * K)
        base += 4 * K
        assert m.reserved.cnt == i + 1
    mb.memblock_reserve(m, base, 2 * K)
    array = (256 * mb.SIZEOF_MEMBLOCK_REGION + 4095) & -4096
    assert m.reserved.max == 256
    assert m.reserved.cnt == 130
    assert m.reserved.total_size == 129 * 2 * K + array
    assert regions(m.reserved)[-1] == (G + 32 * K - array, array)


@pytest.mark.parametrize("skip", range(0, 129, 16))
def test_reserve_all_locations(skip: int) -> None:
    """basic_api.c:memblock_reserve_all_locations_check"""
    m = Memblock()
    mb.memblock_allow_resize(m)
    mb.memblock_add(m, G, 32 * K)
    for i in range(129):
        if i != skip:
            mb.memblock_reserve(m, 128 * M + i * 256 * K, 128 * K)
    assert m.reserved.cnt == 128
    mb.memblock_reserve(m, 128 * M + skip * 256 * K, 128 * K)
    assert m.reserved.cnt == 130 and m.reserved.max == 256
    mb.validate_memblock(m)


def test_array_of_reserved_avoids_what_is_being_reserved() -> None:
    """basic_api.c:memblock_reserve_many_may_conflict_check: the new array and the new range."""
    m = Memblock()
    mb.memblock_allow_resize(m)
    array = (256 * mb.SIZEOF_MEMBLOCK_REGION + 4095) & -4096
    mb.memblock_add(m, G, 2 * array)
    for i in range(128):
        mb.memblock_reserve(m, 128 * M + i * 256 * K, 128 * K)
    # Above the new range nothing is free, so the array must go below it.
    mb.memblock_reserve(m, G + array, array)
    assert mb.memblock_is_region_reserved(m, G, array)
    assert m.reserved.addr == G
    mb.validate_memblock(m)


def test_resize_before_it_is_allowed_panics() -> None:
    m = Memblock()
    mb.memblock_add(m, G, G)
    for i in range(127):
        mb.memblock_add(m, i * 64 * K, 4 * K)
    with pytest.raises(KernelBug, match="cannot resize memory array"):
        mb.memblock_add(m, 200 * 64 * K, 4 * K)


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ([(8 * M, 8 * M)], [(8 * M, 8 * M)]),  # aligned_check
        ([(8 * M, 8 * M), (4 * M, 8)], [(8 * M, 8 * M)]),  # too_small_check
        (  # unaligned_base_check
            [(8 * M, 2 * M), (12 * M + 2, 8 * K - 2)],
            [(8 * M, 2 * M), (12 * M + 4 * K, 4 * K)],
        ),
        (  # unaligned_end_check
            [(8 * M, 2 * M), (12 * M, 8 * K - 2)],
            [(8 * M, 2 * M), (12 * M, 4 * K)],
        ),
    ],
)
def test_trim(added: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    """basic_api.c:memblock_trim_memory_*_check, at page size"""
    m = Memblock()
    for base, size in added:
        mb.memblock_add(m, base, size)
    mb.memblock_trim_memory(m, 4 * K)
    assert regions(m.memory) == expected


def test_trim_keeps_total_size() -> None:
    """The quirk behind "memory size" in every PC's log: 0xc00 bytes more than the regions."""
    m = Memblock()
    mb.memblock_add(m, 0x1000, 0x9EC00)
    mb.memblock_trim_memory(m, 4096)
    assert regions(m.memory) == [(0x1000, 0x9E000)]
    assert m.memory.total_size == 0x9EC00


def test_overlaps_region() -> None:
    """basic_api.c:memblock_overlaps_region_check"""
    m = Memblock()
    mb.memblock_add(m, G, 4 * M)
    for base, size, overlaps in (
        (G - M, M, False),
        (G + 4 * M, M, False),
        (G - M, 2 * M, True),
        (G + 2 * M, 4 * M, True),
        (G, 4 * M, True),
        (G + M, M, True),
        (G - M, 6 * M, True),
    ):
        assert mb.memblock_overlaps_region(m.memory, base, size) is overlaps


# ---- alloc_api.c, alloc_helpers_api.c, alloc_nid_api.c: one block of memory ---------------------

SIZE = 32 * K
START = 16 * M
END = START + SIZE


def one_block(bottom_up: bool = False) -> Memblock:
    m = Memblock(bottom_up=bottom_up)
    mb.memblock_add(m, START, SIZE)
    return m


# Reserved before; size, align, min, max of the request; where top-down and bottom-up put it.
R1 = END - 2 * CACHE
HALF = (SIZE - (2 * CACHE + 64)) // 2
ALLOC_CASES = [
    ("simple", [], (2, CACHE, 0, 0), END - CACHE, START),
    ("disjoint", [(END - 2, 2)], (16, 2 * CACHE, 0, 0), END - 2 * CACHE, START),
    ("before", [(END - CACHE - 512, CACHE)], (512, CACHE, 0, 0), END - 512, START),
    ("after", [(END - CACHE, 8)], (512, CACHE, 0, 0), END - CACHE - 512, START),
    ("second_fit", [(END - 512, 512), (END - 1024, 256)], (1024, CACHE, 0, 0), END - 2048, START),
    (
        "in_between",
        [(END - CACHE - HALF, HALF), (START + CACHE, HALF)],
        (64, CACHE, 0, 0),
        START + CACHE + HALF,
        START + CACHE + HALF,
    ),
    ("all_reserved", [(START, SIZE)], (256, CACHE, 0, 0), None, None),
    ("no_space", [(START, SIZE - 256)], (1024, CACHE, 0, 0), None, None),
    ("limited_space", [(START, SIZE - 256)], (256, CACHE, 0, 0), END - 256, END - 256),
    ("too_large", [], (SIZE + 2, CACHE, 0, 0), None, None),
    ("nid_simple", [], (128, CACHE, START + 64, START + 576), START + 448, START + 64),
    ("end_misaligned", [], (128, CACHE, START + 64, START + 578), START + 448, START + 64),
    ("start_misaligned", [], (128, CACHE, START + 2, START + 514), START + 384, START + CACHE),
    ("exact_address", [], (1024, CACHE, START + 32, START + 1056), START + 32, START + 32),
    ("narrow_range", [], (256, CACHE, START + 512, START + 544), START + 288, START),
    ("low_max", [], (1024, CACHE, START, START + CACHE), None, None),
    ("min_reserved", [(END - 192, 128)], (64, CACHE, END - 64, END), END - 64, END - 64),
    ("max_reserved", [(END - 64, 64)], (128, CACHE, END - 192, END - 64), END - 192, END - 192),
    (
        "reserved_with_space",
        [(R1, CACHE), (R1 - 64 - CACHE - 128, 128)],
        (64, CACHE, R1 - 64 - CACHE, R1),
        R1 - 64,
        R1 - 64 - CACHE,
    ),
    (
        "reserved_no_space",
        [(R1, CACHE), (R1 - 128 - CACHE, 128)],
        (256, CACHE, R1 - CACHE, R1),
        R1 - 128 - CACHE - 256,
        START,
    ),
    (
        "reserved_all",
        [(END - CACHE, CACHE), (START, SIZE - 2 * CACHE)],
        (256, CACHE, END - 2 * CACHE, END - CACHE),
        None,
        None,
    ),
    ("cap_max", [], (256, CACHE, START + 1024, END + 256), END - 256, START + 1024),
    ("cap_min", [], (1024, CACHE, START - 256, END), END - 1024, START),
    ("from_simple", [], (16, CACHE, END - CACHE, 0), END - CACHE, END - CACHE),
    ("from_misaligned", [], (32, CACHE, END - 63, 0), END - CACHE, END - CACHE),
    ("from_high_addr", [], (32, CACHE, END - 16, 0), END - CACHE, START),
    ("from_no_space_above", [(R1, 2 * CACHE)], (64, CACHE, R1, 0), R1 - 64, START),
    ("from_min_addr_cap", [(START + 64, SIZE - 64)], (64, CACHE, START - 96, 0), START, START),
]


@pytest.mark.parametrize("bottom_up", [False, True], ids=["top_down", "bottom_up"])
@pytest.mark.parametrize(
    ("name", "reserved", "request_", "top_down", "bottom"), ALLOC_CASES, ids=lambda v: str(v)[:20]
)
def test_alloc(
    name: str,
    reserved: list[tuple[int, int]],
    request_: tuple[int, int, int, int],
    top_down: int | None,
    bottom: int | None,
    bottom_up: bool,
) -> None:
    """alloc_api.c:alloc_*_check, alloc_helpers_api.c:alloc_from_*_check, alloc_nid_api.c"""
    m = one_block(bottom_up)
    for base, size in reserved:
        mb.memblock_reserve(m, base, size)
    before = m.reserved.total_size
    size, align, low, high = request_
    addr = mb.memblock_alloc_try_nid(m, size, align, low, high, NUMA_NO_NODE)
    assert addr == (bottom if bottom_up else top_down)
    assert m.reserved.total_size == before + (size if addr else 0)
    mb.validate_memblock(m)


def test_alloc_no_memory() -> None:
    """alloc_api.c:alloc_no_memory_generic_check"""
    m = Memblock()
    assert mb.memblock_alloc(m, 1024, CACHE) is None
    assert m.reserved.cnt == 0


def test_small_gaps() -> None:
    """alloc_api.c:alloc_small_gaps_generic_check"""
    m = one_block()
    pos = START
    while pos < END:
        mb.memblock_reserve(m, pos + 256, 1024)
        pos += 1280
    assert mb.memblock_alloc(m, 1024, CACHE) is None


def test_reserved_full_merge() -> None:
    """alloc_nid_api.c:alloc_nid_reserved_full_merge_generic_check"""
    m = one_block()
    mb.memblock_reserve(m, R1, CACHE)
    mb.memblock_reserve(m, R1 - 192, 128)
    assert mb.memblock_alloc_try_nid(m, 64, CACHE, R1 - 64, R1, NUMA_NO_NODE)
    assert regions(m.reserved) == [(R1 - 192, 192 + CACHE)]


# ---- alloc_nid_api.c, alloc_exact_nid_api.c: eight nodes -----------------------------------------

FRACTIONS = (8192, 2048, 4096, 4096, 2048, 2048, 8192, 2048)
NODE = [(START + sum(FRACTIONS[:i]), START + sum(FRACTIONS[: i + 1])) for i in range(8)]


def nodes(bottom_up: bool = False) -> Memblock:
    m = Memblock(bottom_up=bottom_up)
    for nid, (start, end) in enumerate(NODE):
        mb.memblock_add_node(m, start, end - start, nid, MEMBLOCK_HOTPLUG)
    return m


# Node, reserved, size, min, max; addresses for try_nid and exact_nid, each (top-down, bottom-up).
NUMA_CASES = [
    ("simple", 3, [], 1024, START, END, (NODE[3][1] - 1024, NODE[3][0]), True),
    ("small_node", 1, [], 4096, START, END, (NODE[6][1] - 4096, START), False),
    (
        "node_reserved",
        2,
        [(NODE[2][0], 4096)],
        4096,
        START,
        END,
        (NODE[6][1] - 4096, START),
        False,
    ),
    (
        "part_reserved",
        4,
        [(NODE[4][0], 1024)],
        256,
        START,
        END,
        (NODE[4][1] - 256, NODE[4][0] + 1024),
        True,
    ),
    (
        "part_reserved_fallback",
        4,
        [(NODE[4][0] + 512, 1024)],
        1024,
        START,
        END,
        (NODE[7][1] - 1024, START),
        False,
    ),
    (
        "split_range_low",
        2,
        [],
        512,
        NODE[2][1] - 256,
        NODE[2][1] + 256,
        (NODE[2][1] - 512, NODE[2][0]),
        True,
    ),
    (
        "no_overlap_low",
        0,
        [],
        64,
        NODE[1][0],
        NODE[7][1],
        (NODE[0][1] - 64, NODE[0][0]),
        True,
    ),
    ("large_region", 3, [], SIZE // 2, START, END, (END - SIZE // 2, START), False),
]


def regions_of(case: tuple[object, ...]) -> str:
    return str(case[0])


@pytest.mark.parametrize("bottom_up", [False, True], ids=["top_down", "bottom_up"])
@pytest.mark.parametrize("case", NUMA_CASES, ids=regions_of)
def test_alloc_exact_nid(case: tuple[object, ...], bottom_up: bool) -> None:
    """alloc_exact_nid_api.c:alloc_exact_nid_*_check: on the node, or not at all"""
    _, nid, reserved, size, low, high, expected, on_node = case
    m = nodes(bottom_up)
    for base, length in reserved:  # type: ignore[attr-defined]
        mb.memblock_reserve(m, base, length)
    addr = mb.memblock_alloc_exact_nid_raw(m, size, CACHE, low, high, nid)  # type: ignore[arg-type]
    assert addr == (expected[bottom_up] if on_node else None)  # type: ignore[index]


@pytest.mark.parametrize("case", NUMA_CASES, ids=regions_of)
def test_alloc_try_nid_falls_back(case: tuple[object, ...]) -> None:
    """alloc_nid_api.c:alloc_nid_top_down_numa_*_check: elsewhere, if not on the node"""
    name, nid, reserved, size, low, high, expected, _ = case
    m = nodes()
    for base, length in reserved:  # type: ignore[attr-defined]
        mb.memblock_reserve(m, base, length)
    addr = mb.memblock_alloc_try_nid(m, size, CACHE, low, high, nid)  # type: ignore[arg-type]
    if name == "large_region":
        assert addr is None  # no node is large enough, and a block never spans two
    elif name == "no_overlap_low":
        assert addr == high - size  # type: ignore[operator]
    else:
        assert addr == expected[0]  # type: ignore[index]


def test_hotplug_memory_is_left_alone_with_movable_node() -> None:
    """The kernel's tests run again with --movable-node."""
    m = nodes()
    m.movable_node_enabled = True
    assert mb.memblock_alloc(m, 64, CACHE) is None
    mb.memblock_clear_hotplug(m, *(NODE[1][0], 2048))
    assert mb.memblock_alloc(m, 64, CACHE) == NODE[1][1] - 64


def test_set_node_splits_and_does_not_merge_across_nodes() -> None:
    m = Memblock()
    mb.memblock_reserve(m, 0, 4 * M)
    mb.memblock_set_node(m, M, M, m.reserved, 1)
    assert [(r.base, r.size, r.nid) for r in m.reserved.regions] == [
        (0, M, mb.MAX_NUMNODES),
        (M, M, 1),
        (2 * M, 2 * M, mb.MAX_NUMNODES),
    ]
    mb.memblock_set_node(m, 0, mb.ULLONG_MAX, m.reserved, NUMA_NO_NODE)
    assert regions(m.reserved) == [(0, 4 * M)]


def test_adding_over_another_node_warns() -> None:
    m = Memblock()
    mb.memblock_add_node(m, 8 * K, 8 * K, 1)
    mb.memblock_add_node(m, 4 * K, 8 * K, 0)
    assert [(r.base, r.size, r.nid) for r in m.memory.regions] == [
        (4 * K, 4 * K, 0),
        (8 * K, 8 * K, 1),
    ]
    assert len(m.warnings) == 1


def test_mirrored_memory_is_asked_first() -> None:
    m = Memblock(mirrored_kernelcore=True)
    mb.memblock_add(m, 0, 64 * M)
    mb.memblock_mark_mirror(m, 16 * M, M)
    assert mb.memblock_alloc(m, 64 * K, CACHE) == 17 * M - 64 * K
    assert mb.memblock_alloc(m, 2 * M, CACHE) == 62 * M
    assert "mirrored memory" in m.warnings[0]


def test_nomap_memory_is_skipped_and_survives_a_cap() -> None:
    m = Memblock()
    mb.memblock_add(m, 0, 64 * M)
    mb.memblock_mark_nomap(m, 60 * M, 4 * M)
    assert mb.memblock_alloc(m, M, M) == 59 * M
    assert not mb.memblock_is_map_memory(m, 61 * M)
    mb.memblock_cap_memory_range(m, 0, 32 * M)
    assert regions(m.memory) == [(0, 32 * M), (60 * M, 4 * M)]
    mb.memblock_clear_nomap(m, 60 * M, 4 * M)
    mb.memblock_enforce_memory_limit(m, 16 * M)
    assert regions(m.memory) == [(0, 16 * M)]


def test_page_0_is_never_given() -> None:
    m = Memblock()
    mb.memblock_add(m, 0, 2 * 4096)
    assert mb.memblock_alloc(m, 4096, 4096) == 4096
    assert mb.memblock_alloc(m, 1, 1) is None


def test_dump_and_log_are_the_kernels() -> None:
    lines: list[str] = []
    m = Memblock(debug=True, pr_info=lines.append)
    mb.memblock_add(m, 0x1000, 0x9EC00, "e820__memblock_setup+0x73/0xb0")
    mb.memblock_trim_memory(m, 4096)
    mb.memblock_set_node(m, 0, mb.ULLONG_MAX, m.memory, 0)
    mb.memblock_dump_all(m)
    assert lines == [
        "memblock_add: [0x0000000000001000-0x000000000009fbff] e820__memblock_setup+0x73/0xb0",
        "MEMBLOCK configuration:",
        " memory size = 0x000000000009ec00 reserved size = 0x0000000000000000",
        " memory.cnt  = 0x1",
        " memory[0x0]\t[0x0000000000001000-0x000000000009efff], 0x000000000009e000 bytes on node 0"
        " flags: 0x0",
        " reserved.cnt  = 0x0",
    ]
    assert mb.memblock_debug_show(m.memory) == (
        "   0: 0x0000000000001000..0x000000000009efff    0 NONE\n"
    )


def test_reserve_mem() -> None:
    m = Memblock()
    mb.memblock_add(m, 16 * M, M)
    assert mb.reserve_mem(m, 64 * K, 4096, "log") == 1
    assert m.reserved_mem_table["log"] == (17 * M - 64 * K, 64 * K)
    assert mb.reserve_mem(m, 64 * K, 4096, "log") == -EBUSY
    assert mb.reserve_mem(m, 0, 4096, "none") == -EINVAL
    assert mb.reserve_mem(m, 64, 64, "a name of 16 chr") == -EINVAL
    assert mb.reserve_mem(m, 64, 64, "  ") == -EINVAL
    assert mb.reserve_mem(m, 4 * M, 64, "big") < 0


def test_misuse() -> None:
    m = Memblock()
    with pytest.raises(UsageError, match="2\\*\\*64"):
        mb.memblock_add(m, -1, 4096)
    with pytest.raises(UsageError, match="power of two"):
        mb.memblock_alloc(m, 64, 48)
    m.slab_is_available = True
    with pytest.raises(KernelBug, match="slab is available"):
        mb.memblock_alloc(m, 64, 64)


@pytest.mark.parametrize(
    ("start", "end", "orders"),
    [
        (0, 1024, [10]),
        (768, 1025, [8, 0]),
        (768, 896, [7]),
        (897, 1025, [0, 1, 2, 3, 4, 5, 6, 0]),
        (1, 4, [0, 1]),
    ],
)
def test_orders_of_the_handover(start: int, end: int, orders: list[int]) -> None:
    blocks = list(mb.free_blocks(start, end))
    assert [order for _, order in blocks] == orders
    assert all(pfn % (1 << order) == 0 for pfn, order in blocks)


# ---- against a model that knows only which bytes are which ---------------------------------------

UNIT = 4096
PAGES = 48
OPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "reserve", "free", "node", "alloc", "hotplug"]),
        st.integers(1, PAGES - 1),
        st.integers(1, 12),
        st.integers(0, 2),
    ),
    max_size=25,
)


def _top_down(memory: list[int], reserved: list[bool], size: int, align: int) -> int:
    """The highest free run of @size pages at a multiple of @align, by looking at every place."""
    for at in range(PAGES * 2 - size, 0, -1):
        if at % align == 0 and all(
            memory[i] >= 0 and not reserved[i] for i in range(at, at + size)
        ):
            # A run may not cross regions of different kind: they are separate ranges.
            if len({memory[i] for i in range(at, at + size)}) == 1:
                return at
    return 0


@settings(max_examples=150, deadline=None, derandomize=True)
@given(OPS)
def test_against_pages(ops: list[tuple[str, int, int, int]]) -> None:
    """Regions always equal a plain array of pages; allocation finds the highest place there is."""
    m = Memblock()
    memory = [-1] * (PAGES * 2)  # node of each page of memory, -1 for none
    reserved = [False] * (PAGES * 2)
    for op, at, size, arg in ops:
        base, length = at * UNIT, size * UNIT
        span = range(at, at + size)
        if op == "add":
            mb.memblock_add_node(m, base, length, arg)
            for i in span:
                memory[i] = arg if memory[i] < 0 else memory[i]
        elif op == "remove":
            mb.memblock_remove(m, base, length)
            for i in span:
                memory[i] = -1
        elif op == "node":
            mb.memblock_set_node(m, base, length, m.memory, arg)
            for i in span:
                memory[i] = arg if memory[i] >= 0 else -1
        elif op in ("reserve", "free"):
            (mb.memblock_reserve if op == "reserve" else mb.memblock_phys_free)(m, base, length)
            for i in span:
                reserved[i] = op == "reserve"
        elif op == "alloc":
            align = 1 << arg
            expected = _top_down(memory, reserved, size, align)
            found = mb.memblock_phys_alloc(m, length, align * UNIT)
            assert found == expected * UNIT
            if found:
                for i in range(expected, expected + size):
                    reserved[i] = True
        mb.validate_memblock(m)
    assert [mb.memblock_is_memory(m, i * UNIT) for i in range(PAGES * 2)] == [
        n >= 0 for n in memory
    ]
    assert [mb.memblock_is_reserved(m, i * UNIT) for i in range(PAGES * 2)] == reserved
    free = [(s // UNIT, e // UNIT) for s, e, _ in mb.for_each_free_mem_range(m)]
    assert sum(e - s for s, e in free) == sum(
        n >= 0 and not r for n, r in zip(memory, reserved, strict=True)
    )
    backwards = [(s // UNIT, e // UNIT) for s, e, _ in mb.for_each_free_mem_range_reverse(m)]
    assert backwards == free[::-1]
