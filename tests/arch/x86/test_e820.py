"""The firmware's memory map."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.arch.x86 import e820
from mmcore.arch.x86.e820 import E820Entry, E820Table
from mmcore.errors import EINVAL, KernelBug
from mmcore.mm import memblock as mb

K, M, G = 1 << 10, 1 << 20, 1 << 30
RAM, RES, ACPI, NVS, PRAM = 1, 2, 3, 4, 12


def table(*entries: tuple[int, int, int]) -> E820Table:
    return E820Table([E820Entry(*e) for e in entries])


def triples(t: E820Table) -> list[tuple[int, int, int]]:
    return [(e.addr, e.size, e.type) for e in t.entries]


def test_update_table_drawing() -> None:
    """The picture in the kernel's comment on e820__update_table(), column by column."""
    rows = [
        "    22                  ",
        "                      4 ",
        "    1111                ",
        " 44                     ",
        "11111111                ",
        "                    33  ",
        "           44           ",
        "          33333         ",
        "              22        ",
        "                   2222 ",
        "         111111111      ",
        "                     11 ",
        "                 4      ",
    ]
    entries = []
    for row in rows:
        digits = [(i, int(c)) for i, c in enumerate(row) if c != " "]
        entries.append((digits[0][0] + 1, len(digits), digits[0][1]))
    t = table(*entries)
    assert e820.e820__update_table(t) == 0
    e820.validate_e820(t)
    column = [max((int(r[i]) for r in rows if r[i] != " "), default=0) for i in range(24)]
    flat = [0] * 24
    for addr, size, type in triples(t):
        for i in range(addr - 1, addr - 1 + size):
            flat[i] = type
    assert flat == column


def test_update_table_refuses() -> None:
    assert e820.e820__update_table(table((0, G, RAM))) == -1
    assert e820.e820__update_table(table((0, G, RAM), ((1 << 64) - K, M, RAM))) == -1


def test_persistent_memory_is_not_merged() -> None:
    t = table((0, M, PRAM), (M, M, PRAM), (2 * M, M, RAM), (3 * M, M, RAM))
    e820.e820__update_table(t)
    assert triples(t) == [(0, M, PRAM), (M, M, PRAM), (2 * M, 2 * M, RAM)]


ENTRIES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20), st.sampled_from([RAM, RES, ACPI, NVS])),
    min_size=2,
    max_size=12,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(ENTRIES)
def test_highest_type_wins(entries: list[tuple[int, int, int]]) -> None:
    t = table(*entries)
    assert e820.e820__update_table(t) == 0
    e820.validate_e820(t)
    for i in range(90):
        expected = max((ty for a, s, ty in entries if a <= i < a + s), default=0)
        found = [ty for a, s, ty in triples(t) if a <= i < a + s]
        assert found == ([expected] if expected else [])
    # Neighbours of one type are one entry.
    for a, b in zip(t.entries, t.entries[1:], strict=False):
        assert a.end < b.addr or a.type != b.type


@settings(max_examples=200, deadline=None, derandomize=True)
@given(ENTRIES, st.integers(0, 60), st.integers(1, 25))
def test_update_and_remove_by_address(
    entries: list[tuple[int, int, int]], start: int, size: int
) -> None:
    for change in ("update", "remove"):
        t = table(*entries)
        e820.e820__update_table(t)
        before = {i: ty for a, s, ty in triples(t) for i in range(a, a + s)}
        if change == "update":
            n = e820.e820__range_update(t, start, size, RAM, RES)
        else:
            n = e820.e820__range_remove(t, start, size, RAM, True)
        inside = [i for i in range(start, start + size) if before.get(i) == RAM]
        assert n == len(inside)
        after = {i: ty for a, s, ty in triples(t) for i in range(a, a + s)}
        expected = dict(before)
        for i in inside:
            if change == "update":
                expected[i] = RES
            else:
                del expected[i]
        assert after == expected


def test_equal_types_are_a_bug() -> None:
    with pytest.raises(KernelBug):
        e820.e820__range_update(table((0, G, RAM)), 0, K, RAM, RAM)


def test_options() -> None:
    t = table((0, G, RAM), (2 * G, G, RAM))
    assert e820.parse_memopt(t, "512M") == 0 and t.userdef
    assert e820.parse_memopt(t, "nonsense") == -EINVAL
    assert e820.parse_memopt(t, "nopentium") == -EINVAL
    e820.e820__finish_early_params(t)
    assert triples(t) == [(0, 512 * M, RAM)]
    for option, expected in (
        ("64M$256M", (256 * M, 64 * M, RES)),
        ("64M#256M", (256 * M, 64 * M, ACPI)),
        ("64M!256M", (256 * M, 64 * M, PRAM)),
        ("64M%256M-1+7", (256 * M, 64 * M, 7)),
        ("1M@4G", (4 * G, M, RAM)),
    ):
        t = table((0, G, RAM), (G, M, RES))
        assert e820.parse_memmap_one(t, option) == 0
        e820.e820__update_table(t)
        assert expected in triples(t)
    t = table((0, G, RAM), (G, M, RES))
    assert e820.parse_memmap_opt(t, "exactmap,640K@0,64M@1M") == 0
    assert triples(t) == [(0, 640 * K, RAM), (M, 64 * M, RAM)]
    assert e820.parse_memmap_one(t, "x") == -EINVAL
    assert e820.parse_memmap_one(t, "1M@4Gx") == -EINVAL
    t = table((0, G, RAM))
    t.userdef = True
    with pytest.raises(KernelBug, match="Invalid user supplied memory map"):
        e820.e820__finish_early_params(t)


def test_types_that_become_memory() -> None:
    m = mb.Memblock()
    t = table(
        (0, 640 * K, RAM),
        (M, 16 * M, RAM),
        (17 * M, M, ACPI),
        (18 * M, M, NVS),
        (19 * M, M, e820.E820_TYPE_RESERVED_KERN),
        (32 * M, M, e820.E820_TYPE_SOFT_RESERVED),
        (64 * M, M, PRAM),
    )
    e820.e820__memblock_setup(m, t)
    assert [(r.base, r.size) for r in m.memory.regions] == [
        (0, 640 * K),
        (M, 16 * M),
        (19 * M, M),
    ]
    assert [(r.base, r.size) for r in m.reserved.regions] == [(32 * M, M)]


def test_end_of_ram() -> None:
    t = table((0, G, RAM), (G, M, ACPI), (3 * G, 2 * G, RAM))
    assert e820.e820__end_of_ram_pfn(t, 1 << 34) == (5 * G) >> 12
    assert e820.e820__end_of_low_ram_pfn(t, 1 << 34) == (4 * G) >> 12
    assert e820.e820__mapped_all(t, 0, G + M) and not e820.e820__mapped_all(t, 0, 2 * G)
    assert e820.e820__mapped_any(t, 2 * G, 4 * G, RAM) and not e820.e820__mapped_any(
        t, 2 * G, 3 * G
    )


@pytest.mark.parametrize(
    ("end", "buffer"),
    [
        (0x9FC00, (0x9FC00, 0x9FFFF)),
        (0x3FFE0000, (0x3FFE0000, 0x3FFFFFFF)),
        (0x500000, (0x500000, 0x4FFFFF)),
    ],
)
def test_ram_buffer(end: int, buffer: tuple[int, int]) -> None:
    assert e820.ram_buffer(end) == buffer
