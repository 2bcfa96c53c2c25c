"""Numbers as the kernel reads them from text: boot options and the files of /sys and cgroups.

Mirrors the parts of lib/cmdline.c, lib/vsprintf.c and lib/kstrtox.c that memory management uses.
"""

from __future__ import annotations

from mmcore.cint import ULONG_MAX, s64
from mmcore.errors import EINVAL, ERANGE

__all__ = ["kstrtoint", "match_int", "memparse", "simple_strtoull", "strstrip"]

NUMBER_BUF_LEN = 20
_DIGITS = "0123456789abcdef"
_SUFFIXES = "KMGTPE"
_SPACES = " \t\n\v\f\r"


def _prefix(s: str, base: int) -> tuple[str, int]:
    """Return what follows a ``0x`` that @base takes, and the base that the prefix chooses for 0."""
    hexadecimal = s[:1] == "0" and s[1:2] in ("x", "X")
    if base == 0:
        if s[:1] != "0":
            base = 10
        elif hexadecimal and s[2:3] and s[2].lower() in _DIGITS:
            base = 16
        else:
            base = 8
    return (s[2:] if base == 16 and hexadecimal else s), base


def _digits(s: str, base: int) -> int:
    """Return how many characters at the start of @s are digits in @base."""
    n = 0
    for c in s:
        value = _DIGITS.find(c.lower()) if c.isascii() else -1
        if not 0 <= value < base:
            break
        n += 1
    return n


def simple_strtoull(cp: str, base: int = 0) -> tuple[int, str]:
    """Read a number without sign; base 0 takes ``0x`` and a leading ``0`` as C does.

    :param cp: ``const char *``
    :return: (value modulo 2**64, what follows the digits); no digits are the value 0

    Mirrors lib/vsprintf.c:simple_strtoull().
    """
    s, base = _prefix(cp, base)
    n = _digits(s, base)
    return (int(s[:n], base) if n else 0) & ULONG_MAX, s[n:]


def memparse(ptr: str) -> tuple[int, str]:
    """Read a number with an optional suffix K, M, G, T, P or E.

    A suffix without a number is 0 and is taken; what no 64 bits hold is cut off at the top.

    :param ptr: ``const char *``
    :return: (``unsigned long long`` value, what follows it)

    Mirrors lib/cmdline.c:memparse().
    """
    value, rest = simple_strtoull(ptr)
    power = _SUFFIXES.find(rest[:1].upper()) if rest[:1].isascii() and rest else -1
    if power >= 0:
        value = value << 10 * (power + 1) & ULONG_MAX
        rest = rest[1:]
    return value, rest


def kstrtoint(s: str, base: int = 0) -> tuple[int, int]:
    """Read a whole text as an ``int``, with an optional sign and one newline at the end.

    :return: (0 or -EINVAL or -ERANGE, value)

    Mirrors lib/kstrtox.c:kstrtoint().
    """
    negative = s[:1] == "-"
    digits, base = _prefix(s[1:] if s[:1] in ("-", "+") else s, base)
    n = _digits(digits, base)
    if not n:
        return -EINVAL, 0
    value = int(digits[:n], base)
    if value > ULONG_MAX:
        return -ERANGE, 0
    if digits[n:] not in ("", "\n"):
        return -EINVAL, 0
    value = -value if negative else value
    if not -(1 << 31) <= value < 1 << 31:
        return -ERANGE, 0
    return 0, value


def match_int(s: str) -> tuple[int, int]:
    """Read the ``%d`` of an option such as ``swappiness=60``; a sign alone counts as 0.

    :return: (0 or -EINVAL or -ERANGE, value)

    Mirrors lib/parser.c:match_int().
    """
    negative = s[:1] == "-"
    value, rest = simple_strtoull(s[1:] if negative else s)
    if not s or rest:
        return -EINVAL, 0
    value = s64(-value if negative else value)
    if len(s) >= NUMBER_BUF_LEN or not -(1 << 31) <= value < 1 << 31:
        return -ERANGE, 0
    return 0, value


def strstrip(s: str) -> str:
    """Return a text up to its first NUL without white space around it.

    Mirrors include/linux/string.h:strstrip().
    """
    return s.partition("\0")[0].strip(_SPACES)
