"""Masks of many kernels: against the engine's own table, and against what real logs printed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.errors import ParseError, UsageError
from mmcore.mm import gfp as engine
from mmcore.report import gfp


def test_the_table_of_6_12_is_the_engines() -> None:
    table = gfp.numbering("6.12")
    for name, bits in [*table.flags.items(), *table.combined.items()]:
        assert getattr(engine, name) == bits, name
    single = {
        n: v
        for n, v in engine.GFP_BY_NAME.items()
        if n.startswith("__GFP") and v and not v & (v - 1) and "BITS" not in n
    }
    assert single == table.flags


def test_every_table_is_sound() -> None:
    for table in gfp.NUMBERINGS:
        bits = list(table.flags.values())
        assert len(set(bits)) == len(bits) and all(b & (b - 1) == 0 for b in bits)
        assert len(set(table.combined.values())) == len(table.combined)
        for name, mask in table.combined.items():
            assert mask & ~sum(bits) == 0
            assert table.names(mask) == name


#: Number and names as the logs of those kernels printed them.
PRINTED = [
    ("4.9", 0x24000C0, "GFP_KERNEL"),
    ("4.9", 0x2084120, "GFP_ATOMIC|__GFP_COLD|__GFP_COMP"),
    ("4.9", 0x24200CA, "GFP_HIGHUSER_MOVABLE"),
    ("4.14", 0x14000C0, "GFP_KERNEL"),
    ("4.14", 0x14200CA, "GFP_HIGHUSER_MOVABLE"),
    ("4.14", 0x1080020, "GFP_ATOMIC"),
    ("4.19", 0x6000C0, "GFP_KERNEL"),
    ("4.19", 0x6200CA, "GFP_HIGHUSER_MOVABLE"),
    ("4.19", 0x480020, "GFP_ATOMIC"),
    ("5.10", 0x100CCA, "GFP_HIGHUSER_MOVABLE"),
    ("5.10", 0xA20, "GFP_ATOMIC"),
    ("6.12", 0x140CCA, "GFP_HIGHUSER_MOVABLE|__GFP_COMP"),
    ("6.12", 0x820, "GFP_ATOMIC"),
    ("6.12", 0x2800, "GFP_NOWAIT"),
]


@pytest.mark.parametrize(("version", "mask", "names"), PRINTED)
def test_number_and_names_find_the_kernel(version: str, mask: int, names: str) -> None:
    assert version in [t.version for t in gfp.fits(mask, names)]
    found = gfp.decode(
        f"[ 1.0] x: page allocation failure: order:1, mode:{mask:#x}({names}), nodemask=0"
    )
    assert len(found) == 1 and found[0].sure and found[0].mask == mask
    assert found[0].names.split("|") and set(found[0].names.split("|")) == set(names.split("|"))


def test_number_and_names_of_no_kernel() -> None:
    assert gfp.fits(0x1234, "GFP_KERNEL") == []
    found = gfp.decode("mode:0x1234(GFP_KERNEL)")[0]
    assert found.names == "GFP_KERNEL" and "the number is of a kernel not known here" in found.why
    assert found.lines()[0] == "0x1234 = GFP_KERNEL"
    unknown = gfp.decode("mode:0x1234(GFP_KERNEL|__GFP_NEWER)")[0]
    assert unknown.mask == 0x1234 and not unknown.sure and "nor in any table" in unknown.why


def test_a_report_without_names_is_old() -> None:
    new = gfp.decode("swapper: page allocation failure. order:2, mode:0x20")[0]
    assert new.table.version == "3.13" and new.names == "GFP_ATOMIC"
    later = gfp.decode("java invoked oom-killer: gfp_mask=0x24201ca, order=0, oom_score_adj=0")[0]
    assert later.table.version == "4.9" and later.names == "GFP_HIGHUSER_MOVABLE|__GFP_COLD"
    assert gfp.decode("0x20")[0].table.version == "6.12"


@pytest.mark.parametrize(
    ("text", "mask", "names"),
    [
        ("0x140dca", 0x140DCA, "GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO"),
        ("3264", 3264, "GFP_KERNEL"),
        ("cc0", 0xCC0, "GFP_KERNEL"),
        ("GFP_KERNEL|__GFP_ZERO", 0xDC0, "GFP_KERNEL|__GFP_ZERO"),
        ("GFP_KERNEL | __GFP_ZERO", 0xDC0, "GFP_KERNEL|__GFP_ZERO"),
        ("(GFP_KERNEL)", 0xCC0, "GFP_KERNEL"),
        ("none", 0, "none"),
        ("0", 0, "none"),
        ("gfp_flags=GFP_ATOMIC|__GFP_NOWARN", 0x2820, "GFP_ATOMIC|__GFP_NOWARN"),
        ("kernel=4.19 0x6000c0", 0x6000C0, "GFP_KERNEL"),
        ("0x6000c0 kernel=4.19", 0x6000C0, "GFP_KERNEL"),
        ("kernel=3.13 GFP_KERNEL", 0xD0, "GFP_KERNEL"),
        ("__GFP_WAIT", 0x10, "GFP_NOIO"),
        ("__GFP_RECLAIM", 0xC00, "GFP_NOIO"),
    ],
)
def test_what_people_type(text: str, mask: int, names: str) -> None:
    found = gfp.decode(text)
    assert len(found) == 1 and (found[0].mask, found[0].names) == (mask, names)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing was given"),
        ("bogus", "'bogus' is no gfp flag"),
        ("GFP_KERNEL|__GFP_NONE", "'__GFP_NONE'"),
        ("kernel=4.19 __GFP_ZEROTAGS", "in kernel 4.19"),
        ("kernel=2.4 0x10", "no table of gfp flags"),
        ("0x100000000", "32 bits"),
        ("99999999999", "32 bits"),
    ],
)
def test_what_is_no_mask(text: str, why: str) -> None:
    with pytest.raises((UsageError, ParseError), match=why):
        gfp.decode(text)


def test_a_forbidden_zone_is_said_and_not_raised() -> None:
    lines = gfp.decode("0x3")[0].lines()
    assert lines[0] == "0x3 = GFP_DMA|__GFP_HIGHMEM" and "forbids" in lines[1]


def test_masks_of_a_trace_are_counted() -> None:
    trace = "kmalloc: gfp_flags=GFP_KERNEL\n" * 5 + "kmalloc: gfp_flags=GFP_ATOMIC\n" * 2
    assert [(m.names, m.count) for m in gfp.decode(trace)] == [("GFP_KERNEL", 5), ("GFP_ATOMIC", 2)]


def test_old_requests_in_todays_numbers() -> None:
    wait = gfp.to_reference(gfp.numbering("3.13"), 0xD0)
    assert wait == engine.GFP_KERNEL & ~getattr(engine, "__GFP_KSWAPD_RECLAIM")
    assert gfp.to_reference(gfp.numbering("4.19"), 0x6200CA) == engine.GFP_HIGHUSER_MOVABLE
    assert gfp.to_reference(gfp.numbering("5.10"), 0xA20) == engine.GFP_ATOMIC


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(gfp.NUMBERINGS), st.integers(0, (1 << 32) - 1))
def test_names_make_the_mask_again(table: gfp.Numbering, mask: int) -> None:
    found = gfp.GfpMask(mask, table, "")
    assert sum(1 << i for i, _, _ in found.bits()) == mask
    names = table.names(mask)
    assert gfp._value_of(table, names) == mask
    assert table.version in [t.version for t in gfp.fits(mask, names)]
    assert found.lines()[0].startswith(f"{mask:#x} = ")


def test_numbers_of_kernels_before_2_6_31() -> None:
    """__GFP_MOVABLE was bit 20 until then, and before 2.6.23 there was none."""
    names = [gfp.numbering(v).names(m) for v, m in (("2.6.24", 0x1201D2), ("2.6.18", 0x201D2))]
    assert names == ["GFP_HIGHUSER_MOVABLE|__GFP_COLD", "GFP_HIGHUSER|__GFP_COLD"]
    movable = gfp.to_reference(gfp.numbering("2.6.24"), 0x1200D2)
    assert movable & engine.__GFP_MOVABLE and movable & engine.__GFP_DIRECT_RECLAIM
    assert "__GFP_NO_GROW" in gfp.numbering("2.6.18").flags


@pytest.mark.parametrize(
    ("version", "table", "mask", "why", "sure"),
    [
        ("6.12.117", "6.12", 0xCC0, "as asked", True),
        ("v4.19", "4.19", 0x6000C0, "as asked", True),
        ("4.19.0-26-amd64", "4.19", 0x6000C0, "as asked", True),
        ("3.18", "3.13", 0xD0, "they differ in bits set here (4)", False),
        ("4.4", "4.9", 0x24000C0, "4.9's for 4.4: it has a flag in each of these bits", False),
        (
            "3.18",
            "3.13",
            0x20,
            "between the tables of 3.13 and 4.9; the bits set here are the",
            True,
        ),
        ("5.17", "5.15", 0x100CCA, "between the tables of 5.15 and 6.1, which are alike", True),
        ("5.4", "4.19", 0xCC0, "between the tables of 4.19 and 5.10; they differ in", False),
        ("6.3", "6.1", 0xCC0, "between the tables of 6.1 and 6.6; the bits set here are the", True),
        ("6.3", "6.1", 0xA20, "they differ in bits set here (9)", False),
        ("2.6.32-754.el6.x86_64", "3.13", 0x201DA, "between the tables of 2.6.24 and 3.13", False),
        ("2.6.30", "2.6.24", 0x1201D2, "between the tables of 2.6.24 and 3.13", False),
        ("2.6.12", "2.6.18", 0xD0, "the oldest known here; 2.6.12's own is not", False),
        ("6.18", "6.12", 0xCC0, "the newest known here; 6.18's own is not", False),
        ("7.0", "6.12", 0xCC0, "the newest known here; 7.0's own is not", False),
    ],
)
def test_any_release_has_a_table(version: str, table: str, mask: int, why: str, sure: bool) -> None:
    (found,) = gfp.decode(f"kernel={version} {mask:#x}")
    assert (found.table.version, found.mask, found.sure) == (table, mask, sure)
    assert why in found.why


def test_between_two_tables_the_other_reading_is_told() -> None:
    lines = gfp.decode("kernel=5.4 0xcc0")[0].lines()
    assert lines[0].endswith("|".join(gfp.numbering("4.19").names(0xCC0).split("|")))
    assert "  5.10    GFP_KERNEL" in lines and not any(x.startswith("  2.6.") for x in lines)
    (found,) = gfp.decode("kernel=4.6 GFP_KERNEL_ACCOUNT")
    assert found.table.version == "4.9" and "3.13's, the other near 4.6, lacks" in found.why


@pytest.mark.parametrize("version", ["2.4", "2.6", "2.6.11", "linux", "12", "6.", "4.19x.9999999/"])
def test_what_is_no_release(version: str) -> None:
    with pytest.raises(UsageError, match="no table of gfp flags"):
        gfp.asked(version)
