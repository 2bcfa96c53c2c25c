"""Addresses: every boundary of the layout, both numbers of levels, with and without KASLR."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.arch.x86 import kaslr
from mmcore.errors import UsageError
from mmcore.report import address

SHIFTS = {4: (39, 30, 21, 12), 5: (48, 39, 30, 21, 12)}


def one(text: str) -> address.Address:
    (found,) = address.decode(text).addresses
    return found


@pytest.mark.parametrize("levels", [4, 5])
def test_both_ends_of_every_region(levels: int) -> None:
    for region in kaslr.memory_layout(levels):
        for where in (region.start, region.end, (region.start + region.end) // 2):
            found = address.place(where, levels)
            assert found.region == region, f"{where:#x}"


@pytest.mark.parametrize("levels", [4, 5])
def test_holes_lie_between_their_neighbours(levels: int) -> None:
    regions = sorted(kaslr.memory_layout(levels), key=lambda r: r.start)
    for below, above in itertools.pairwise(regions):
        if below.end + 1 == above.start or below.name == "user space":
            continue
        for where in (below.end + 1, above.start - 1):
            found = address.place(where, levels)
            assert found.what == f"an unused hole between {below.name} and {above.name}"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, (1 << 64) - 1) | st.integers(0, (1 << 57) - 1), st.sampled_from([4, 5]))
def test_indices_make_the_address_again(value: int, levels: int) -> None:
    bits = 48 if levels == 4 else 57
    low = value & (1 << bits) - 1
    canonical = low if not low >> bits - 1 else low | ((1 << 64) - (1 << bits))
    found = address.place(value, levels)
    assert found.canonical == (value == canonical)
    if not found.canonical:
        assert found.indices == ()
        found = address.place(canonical, levels)
    total = found.indices[-1][1]
    for (_, index), shift in zip(found.indices, SHIFTS[levels]):
        assert 0 <= index < 512
        total |= index << shift
    assert total == low


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("seed", range(5))
def test_physical_addresses_under_kaslr(levels: int, seed: int) -> None:
    chance = random.Random(seed)
    layout = kaslr.kernel_randomize_memory(chance, levels)
    bases = f"page_offset_base={layout.page_offset_base:x} vmemmap_base={layout.vmemmap_base:#x} "
    bases += f"vmalloc_base={layout.vmalloc_base:x} levels={levels} "
    physical = chance.randrange(1 << 36)
    found = one(f"{bases}{layout.page_offset_base + physical:x}")
    assert found.best.what == "direct map" and found.best.physical == physical
    found = one(f"{bases}{layout.vmemmap_base + 64 * (physical >> 12) + 8:x}")
    assert found.best.detail == f"the struct page of frame {physical >> 12:#x}, byte 8"
    found = one(f"{bases}{layout.vmalloc_base + physical:x}")
    assert found.best.what == "vmalloc"


def test_a_base_that_was_not_given_is_not_assumed() -> None:
    found = one("page_offset_base=ffff9a0000000000 ffffea0000048d00")
    assert (
        found.best.region is None
        and "whose base was not given (vmalloc, memory map" in found.best.what
    )
    plain = one("ffffea0000048d00")
    assert plain.best.detail == "the struct page of frame 0x1234"
    assert "in the layout without KASLR" in plain.summary()
    assert any("With KASLR, the default" in line for line in plain.lines())


def test_the_kernel_image() -> None:
    assert one("ffffffff81000053").best.physical == 0x1000053
    moved = one("phys_base=0x3c00000 ffffffff81000053").best
    assert moved.physical == 0x1000053 + 0x3C00000


def test_not_canonical_is_an_error_that_still_tells() -> None:
    from mmcore.report import workbench

    answer = workbench.run("address", "0x0000800000000000 levels=4")
    assert not answer["ok"] and "bits 63 to 47 must be equal" in answer["error"]
    assert "general protection fault" in answer["text"]
    assert workbench.run("address", "0x0000800000000000")["ok"]  # with five levels it is
    both = workbench.run("address", "ffff888000000000 123456789abcdef0")
    assert not both["ok"] and "direct map" in both["text"] and "bits 63 to 56" in both["error"]


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("dead000000000100", "LIST_POISON1"),
        ("dead000000000122", "LIST_POISON2"),
        ("dead00000000012a", "LIST_POISON2"),
        ("6b6b6b6b6b6b6b6b", "POISON_FREE"),
        ("5a5a5a5a5a5a5a5a", "POISON_INUSE"),
        ("fffffffffffffff4", "ERR_PTR(-12): -ENOMEM"),
        ("fffffffffffff001", "ERR_PTR(-4095)"),
        ("fffffffffffff000", ""),
        ("ffff888012345678", ""),
        ("0", ""),
    ],
)
def test_marks(text: str, mark: str) -> None:
    found = one(text).poison()
    assert mark in found and bool(found) == bool(mark)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing was given"),
        ("main", "no hexadecimal number"),
        ("levels=6 0", "levels is 6"),
        ("page_offset_base=q 0", "is no number"),
        ("1" * 17, "64 bits"),
        ("0 " * 65, "at most 64"),
    ],
)
def test_errors(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        address.decode(text)


def test_addresses_of_a_real_oops() -> None:
    """Registers of a recorded oops: stack in vmalloc space, objects in the direct map, text."""
    places = [one(x).best.what for x in ("ffffc900005fbd88", "ffff8880049f6480", "7fffffffdbc8")]
    assert places == ["vmalloc", "direct map", "user space"]
