"""C integer helpers against their definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore import cint


@given(st.integers(-(1 << 70), 1 << 70))
def test_wrapping_keeps_the_low_bits(x: int) -> None:
    assert cint.u32(x) == x % (1 << 32)
    assert cint.u64(x) == x % (1 << 64)
    assert cint.u32(cint.s32(x)) == cint.u32(x) and -(1 << 31) <= cint.s32(x) < 1 << 31
    assert cint.u64(cint.s64(x)) == cint.u64(x) and -(1 << 63) <= cint.s64(x) < 1 << 63


@given(st.integers(0, 1 << 60), st.integers(0, 30))
def test_alignment_brackets_the_value(x: int, shift: int) -> None:
    a = 1 << shift
    down, up = cint.ALIGN_DOWN(x, a), cint.ALIGN(x, a)
    assert down <= x <= up < x + a
    assert cint.IS_ALIGNED(down, a) and cint.IS_ALIGNED(up, a)
    assert cint.IS_ALIGNED(x, a) == (down == x == up)


@given(st.integers(1, 1 << 63))
def test_powers_of_two(n: int) -> None:
    down, up = cint.rounddown_pow_of_two(n), cint.roundup_pow_of_two(n)
    assert cint.is_power_of_2(down) and cint.is_power_of_2(up)
    assert down <= n <= up and (down == n) == (up == n)
    assert 1 << cint.ilog2(n) == down == 1 << cint.fls(n) - 1
    assert n >> cint.ffs0(n) & 1 and n % (1 << cint.ffs0(n)) == 0


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 20), st.integers(1, 1 << 20))
def test_divisions(x: int, n: int, d: int) -> None:
    assert cint.mult_frac(x, n, d) == x * n // d
    assert (cint.DIV_ROUND_UP(x, d) - 1) * d < x <= cint.DIV_ROUND_UP(x, d) * d or x == 0


@pytest.mark.parametrize(("val", "lo", "hi", "want"), [(5, 1, 9, 5), (0, 1, 9, 1), (10, 1, 9, 9)])
def test_clamp(val: int, lo: int, hi: int, want: int) -> None:
    assert cint.clamp(val, lo, hi) == want


def test_no_lowest_bit_of_zero() -> None:
    assert cint.fls(0) == 0 and not cint.is_power_of_2(0)
    with pytest.raises(ValueError, match="undefined"):
        cint.ffs0(0)
