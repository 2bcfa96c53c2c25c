"""gfp flags: values, names both ways, zones and migratetypes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.errors import UsageError
from mmcore.mm import gfp
from mmcore.mm.mmzone import ZONE_DMA, ZONE_DMA32, ZONE_MOVABLE, ZONE_NORMAL


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GFP_KERNEL", 0xCC0),
        ("GFP_ATOMIC", 0x820),
        ("GFP_NOWAIT", 0x2800),
        ("GFP_NOFS", 0xC40),
        ("GFP_NOIO", 0xC00),
        ("GFP_USER", 0x100CC0),
        ("GFP_HIGHUSER_MOVABLE", 0x100CCA),
        ("GFP_TRANSHUGE", 0x1C24CA),
    ],
)
def test_values_of_the_reference_kernel(name: str, value: int) -> None:
    assert gfp.GFP_BY_NAME[name] == value == getattr(gfp, name)
    assert gfp.gfp_str(value) == name


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        # As recorded from kmem:mm_page_alloc on 6.12.117.
        (0x400DC0, "GFP_KERNEL_ACCOUNT|__GFP_ZERO"),
        (0x440DC0, "GFP_KERNEL_ACCOUNT|__GFP_COMP|__GFP_ZERO"),
        (0x140DCA, "GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO"),
        (0x52CC0, "GFP_KERNEL|__GFP_NOWARN|__GFP_NORETRY|__GFP_COMP"),
        (0, "none"),
        (0x200, "0x200"),
    ],
)
def test_names_as_the_kernel_prints_them(flags: int, text: str) -> None:
    assert gfp.gfp_str(flags) == text
    assert gfp.parse_gfp(text) == flags


@given(st.integers(0, (1 << 32) - 1))
def test_every_value_survives_its_names(flags: int) -> None:
    assert gfp.parse_gfp(gfp.gfp_str(flags)) == flags


@pytest.mark.parametrize(
    "text", ["0xcc0", "cc0", " gfp_mask=0xcc0(GFP_KERNEL)", "mode:0xcc0(GFP_KERNEL)", "GFP_KERNEL"]
)
def test_what_people_paste(text: str) -> None:
    assert gfp.parse_gfp(text) == 0xCC0


@pytest.mark.parametrize(
    "text", ["", "GFP_NONSENSE", "0x", "-1", "0x1ffffffff", "\x00", "é|GFP_KERNEL"]
)
def test_nonsense_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError):
        gfp.parse_gfp(text)


@pytest.mark.parametrize(
    ("bits", "zone"),
    [
        (0, ZONE_NORMAL),
        (1, ZONE_DMA),
        (2, ZONE_NORMAL),
        (4, ZONE_DMA32),
        (8, ZONE_NORMAL),
        (9, ZONE_DMA),
        (10, ZONE_MOVABLE),
        (12, ZONE_DMA32),
    ],
)
def test_zone_table(bits: int, zone: int) -> None:
    assert gfp.gfp_zone(gfp.GFP_KERNEL | bits) == zone


@pytest.mark.parametrize("bits", [3, 5, 6, 7, 11, 13, 14, 15])
def test_contradicting_zone_bits_are_refused(bits: int) -> None:
    with pytest.raises(UsageError, match="more than one zone"):
        gfp.gfp_zone(bits)


def test_migratetypes() -> None:
    assert gfp.gfp_migratetype(gfp.GFP_KERNEL) == 0
    assert gfp.gfp_migratetype(gfp.GFP_HIGHUSER_MOVABLE) == 1
    assert gfp.gfp_migratetype(gfp.GFP_KERNEL | 0x10) == 2
    assert gfp.gfp_migratetype(gfp.GFP_HIGHUSER_MOVABLE, True) == 0
    with pytest.raises(UsageError, match="both"):
        gfp.gfp_migratetype(0x18)


def test_blocking() -> None:
    assert gfp.gfpflags_allow_blocking(gfp.GFP_KERNEL)
    assert not gfp.gfpflags_allow_blocking(gfp.GFP_ATOMIC)
    assert not gfp.gfpflags_allow_blocking(gfp.GFP_NOWAIT)
