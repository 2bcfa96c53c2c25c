"""Errors: Linux error numbers, and the one small family of exceptions.

What can fail in the kernel fails the same way here: ``None`` for ``NULL``, ``-ENOMEM`` for an error
number. Exceptions are for what would be a BUG in the kernel and for misuse of the Python API.

The error numbers are written out because Python's ``errno`` module gives the numbers of the system
it runs on, and a browser's differ from Linux's.
"""

from __future__ import annotations

__all__ = [
    "E2BIG",
    "EACCES",
    "EAGAIN",
    "EBADF",
    "EBUSY",
    "EEXIST",
    "EFAULT",
    "EINTR",
    "EINVAL",
    "EIO",
    "EMLINK",
    "ENODEV",
    "ENOENT",
    "ENOMEM",
    "ENOSPC",
    "ENOSYS",
    "ENOTSUPP",
    "EOPNOTSUPP",
    "EOVERFLOW",
    "EPERM",
    "ERANGE",
    "ERRNO_NAMES",
    "ESRCH",
    "ETXTBSY",
    "BadPage",
    "KernelBug",
    "MMError",
    "ParseError",
    "UsageError",
    "errno_name",
]

EPERM = 1
ENOENT = 2
ESRCH = 3
EINTR = 4
EIO = 5
E2BIG = 7
EBADF = 9
EAGAIN = 11
ENOMEM = 12
EACCES = 13
EFAULT = 14
EBUSY = 16
EEXIST = 17
ENODEV = 19
EINVAL = 22
ETXTBSY = 26
ENOSPC = 28
EMLINK = 31
ERANGE = 34
ENOSYS = 38
EOVERFLOW = 75
EOPNOTSUPP = 95
ENOTSUPP = 524

ERRNO_NAMES: dict[int, str] = {
    value: name
    for name, value in sorted(globals().items())
    if name[0] == "E" and name.isupper()
    if isinstance(value, int)
}


def errno_name(err: int) -> str:
    """Return the name of an error number given as the kernel returns it, e.g. ``-12`` -> ``-ENOMEM``."""
    name = ERRNO_NAMES.get(abs(err), str(abs(err)))
    return f"-{name}" if err < 0 else name


class MMError(Exception):
    """The base of every exception that mmcore raises on purpose."""


class KernelBug(MMError):
    """Something happened for which the kernel has BUG_ON(), VM_BUG_ON() or WARN_ON()."""


class BadPage(KernelBug):
    """A page in a state it must not have, with the reason the kernel prints.

    Mirrors mm/page_alloc.c:bad_page().
    """

    def __init__(self, pfn: int, reason: str) -> None:
        super().__init__(f"BUG: Bad page state: pfn:{pfn:05x}: {reason}")
        self.pfn = pfn
        self.reason = reason


class UsageError(MMError, ValueError):
    """The Python API was called with something it cannot take; the text says what it takes."""


class ParseError(MMError, ValueError):
    """A text is not what it should be.

    :param what: what was being read, e.g. ``"/proc/zoneinfo"``
    :param line: line number, counted from 1
    :param text: the line as it stands
    :param why: what is wrong with it
    """

    def __init__(self, what: str, line: int, text: str, why: str) -> None:
        shown = text if len(text) <= 120 else text[:117] + "..."
        super().__init__(f"{what}, line {line}: {why}: {shown!r}")
        self.what = what
        self.line = line
        self.text = text
        self.why = why
