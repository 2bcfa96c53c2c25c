"""Numbers in the kernel's way; expected values read off lib/vsprintf.c and lib/cmdline.c."""

from __future__ import annotations

import pytest

from mmcore.errors import EINVAL, ERANGE
from mmcore.lib.cmdline import kstrtoint, match_int, memparse, simple_strtoull, strstrip


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [
        ("0", 0, ""),
        ("12x", 12, "x"),
        ("0x1fG", 31, "G"),
        ("0xg", 0, "xg"),  # no digit behind 0x: octal 0, then an x
        ("089", 0, "89"),  # 8 is no octal digit
        ("-1", 0, "-1"),
        ("18446744073709551617", 1, ""),  # cut off at 64 bits
        ("٣", 0, "٣"),  # a digit elsewhere, none to the kernel
    ],
)
def test_simple_strtoull(text: str, value: int, rest: str) -> None:
    assert simple_strtoull(text) == (value, rest)


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [
        ("4K", 4096, ""),
        ("4kB", 4096, "B"),
        ("1.5G", 1, ".5G"),
        ("K", 0, ""),  # a suffix alone is taken
        ("1E", 1 << 60, ""),
        ("17E", 1 << 60, ""),  # the top bits are lost
        ("0x10M,", 16 << 20, ","),
    ],
)
def test_memparse(text: str, value: int, rest: str) -> None:
    assert memparse(text) == (value, rest)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("1\n", (0, 1)),
        ("-0x10", (0, -16)),
        ("+7", (0, 7)),
        ("", (-EINVAL, 0)),
        ("-", (-EINVAL, 0)),
        ("-+1", (-EINVAL, 0)),
        ("1 ", (-EINVAL, 0)),
        ("2147483648", (-ERANGE, 0)),
        ("-2147483648", (0, -(1 << 31))),
        ("99999999999999999999x", (-ERANGE, 0)),
    ],
)
def test_kstrtoint(text: str, result: tuple[int, int]) -> None:
    assert kstrtoint(text) == result


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("60", (0, 60)),
        ("-", (0, 0)),
        ("0x10000000000000001", (0, 1)),
        ("10000000000000000000000", (-ERANGE, 0)),
        ("", (-EINVAL, 0)),
        ("6 ", (-EINVAL, 0)),
    ],
)
def test_match_int(text: str, result: tuple[int, int]) -> None:
    assert match_int(text) == result


def test_strstrip_ends_at_the_first_nul() -> None:
    assert strstrip(" \t12M \n\0junk") == "12M"
