"""C integer arithmetic: wrapping, rounding and bit scans as the kernel's macros do them.

Python integers never overflow, so every place where the kernel relies on a width says so here.
"""

from __future__ import annotations

from math import isqrt

__all__ = [
    "ALIGN",
    "ALIGN_DOWN",
    "BITS_PER_LONG",
    "DIV_ROUND_UP",
    "IS_ALIGNED",
    "ULONG_MAX",
    "UINT_MAX",
    "clamp",
    "ffs0",
    "fls",
    "ilog2",
    "int_sqrt",
    "is_power_of_2",
    "mult_frac",
    "rounddown_pow_of_two",
    "roundup_pow_of_two",
    "s32",
    "s64",
    "u32",
    "u64",
]

BITS_PER_LONG = 64
UINT_MAX = (1 << 32) - 1
ULONG_MAX = (1 << 64) - 1


def u32(x: int) -> int:
    """Return @x as ``u32``: its low 32 bits."""
    return x & UINT_MAX


def u64(x: int) -> int:
    """Return @x as ``u64``: its low 64 bits."""
    return x & ULONG_MAX


def s32(x: int) -> int:
    """Return @x as ``s32``, two's complement."""
    x &= UINT_MAX
    return x - (1 << 32) if x >> 31 else x


def s64(x: int) -> int:
    """Return @x as ``s64``, two's complement."""
    x &= ULONG_MAX
    return x - (1 << 64) if x >> 63 else x


def ALIGN(x: int, a: int) -> int:
    """Round @x up to a multiple of @a, a power of two.

    Mirrors include/linux/align.h:ALIGN().
    """
    return (x + a - 1) & ~(a - 1)


def ALIGN_DOWN(x: int, a: int) -> int:
    """Round @x down to a multiple of @a, a power of two.

    Mirrors include/linux/align.h:ALIGN_DOWN().
    """
    return x & ~(a - 1)


def IS_ALIGNED(x: int, a: int) -> bool:
    """Tell whether @x is a multiple of @a, a power of two.

    Mirrors include/linux/align.h:IS_ALIGNED().
    """
    return x & (a - 1) == 0


def DIV_ROUND_UP(n: int, d: int) -> int:
    """Return the quotient of two non-negative integers, rounded up.

    Mirrors include/linux/math.h:DIV_ROUND_UP().
    """
    return (n + d - 1) // d


def mult_frac(x: int, n: int, d: int) -> int:
    """Return ``x * n / d`` computed so that the product cannot overflow in C.

    Mirrors include/linux/math.h:mult_frac().
    """
    return x // d * n + x % d * n // d


def clamp(val: int, lo: int, hi: int) -> int:
    """Return @val limited to [@lo, @hi]; should @lo exceed @hi, the upper limit is looked at first.

    Mirrors include/linux/minmax.h:clamp().
    """
    return hi if val >= hi else lo if val <= lo else val


def int_sqrt(x: int) -> int:
    """Return the integer square root of @x, rounded down.

    Mirrors lib/math/int_sqrt.c:int_sqrt().
    """
    return isqrt(x)


def fls(x: int) -> int:
    """Return the position of the highest set bit, counted from 1; 0 if none is set.

    Mirrors include/asm-generic/bitops/fls.h:fls().
    """
    return x.bit_length()


def ffs0(x: int) -> int:
    """Return the position of the lowest set bit, counted from 0, as ``__ffs()`` does.

    :raises ValueError: if @x is 0, for which the kernel's result is undefined.

    Mirrors include/asm-generic/bitops/__ffs.h:__ffs().
    """
    if not x:
        raise ValueError("ffs0(0) is undefined, as __ffs(0) is in the kernel")
    return (x & -x).bit_length() - 1


def ilog2(n: int) -> int:
    """Return the base 2 logarithm of @n > 0, rounded down.

    Mirrors include/linux/log2.h:ilog2().
    """
    return n.bit_length() - 1


def is_power_of_2(n: int) -> bool:
    """Tell whether @n is a power of two (0 is not).

    Mirrors include/linux/log2.h:is_power_of_2().
    """
    return n != 0 and n & (n - 1) == 0


def roundup_pow_of_two(n: int) -> int:
    """Return the smallest power of two that is at least @n > 0.

    Mirrors include/linux/log2.h:roundup_pow_of_two().
    """
    return 1 << (n - 1).bit_length()


def rounddown_pow_of_two(n: int) -> int:
    """Return the largest power of two that is at most @n > 0.

    Mirrors include/linux/log2.h:rounddown_pow_of_two().
    """
    return 1 << (n.bit_length() - 1)
