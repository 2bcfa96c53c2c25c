"""How the kernel reads and writes what a program points to.

Mirrors arch/x86/include/asm/uaccess_64.h, include/linux/uaccess.h and lib/strncpy_from_user.c. Every page that a
copy reaches is accessed as the kernel accesses it, so a copy takes faults and maps pages; the one that cannot be
mapped ends it.

Simplified: the model's pages have no contents. A byte that arrives in the kernel's buffer is 1, whatever the
program has there; one that was cleared is 0. A copy of words that fails is not tried again byte by byte,
which gives the same count and one fault less (``rep_movs_alternative``). No hardened usercopy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.arch.x86.fault import Translation, touch
from mmcore.arch.x86.pgtable import task_size_max
from mmcore.cint import ULONG_MAX
from mmcore.config import PAGE_SIZE
from mmcore.errors import EFAULT, UsageError

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = [
    "USER_PTR_MAX",
    "access_ok",
    "clear_user",
    "copy_from_user",
    "copy_from_user_nofault",
    "copy_to_user",
    "fault_in_readable",
    "get_user",
    "mask_user_address",
    "put_user",
    "strncpy_from_user",
    "valid_user_address",
]

_OFFSET = PAGE_SIZE - 1


def USER_PTR_MAX(m: Machine) -> int:
    """Return the largest address that is not replaced: a constant that is patched into the code at boot.

    Mirrors arch/x86/kernel/cpu/common.c:USER_PTR_MAX().
    """
    mm = getattr(m.current, "mm", None)
    if mm is None:
        raise UsageError("no task with an address space runs; spawn() one")
    return task_size_max(mm.levels)


def valid_user_address(m: Machine, x: int) -> bool:
    """Tell whether an address is not above user space.

    :param x: ``unsigned long``

    Mirrors arch/x86/include/asm/uaccess_64.h:valid_user_address().
    """
    return x <= USER_PTR_MAX(m)


def mask_user_address(m: Machine, ptr: int) -> int:
    """Return a user address as it is, and anything above as one that is never mapped.

    Mirrors arch/x86/include/asm/uaccess_64.h:mask_user_address().
    """
    return min(ptr & ULONG_MAX, USER_PTR_MAX(m))


def access_ok(m: Machine, ptr: int, size: int) -> bool:
    """Tell whether a range is in user space and does not wrap.

    Mirrors arch/x86/include/asm/uaccess_64.h:__access_ok().
    """
    if size <= PAGE_SIZE:
        return valid_user_address(m, ptr)
    end = ptr + size & ULONG_MAX
    return valid_user_address(m, end) and end >= ptr


def _check(n: int) -> None:
    if not isinstance(n, int) or not 0 <= n <= ULONG_MAX:
        raise UsageError(f"a length is a number of bytes, not {n!r}")


def copy_user_generic(m: Machine, address: int, n: int, kind: str) -> int:
    """Access @n bytes from @address on, up to the first that cannot be: how many are left.

    :param kind: ``"r"`` or ``"w"``: what is done to the program's memory

    Mirrors arch/x86/include/asm/uaccess_64.h:copy_user_generic().
    """
    while n:
        if address > ULONG_MAX or not isinstance(touch(m, address, kind, user=False), Translation):
            return n
        step = min(n, PAGE_SIZE - (address & _OFFSET))
        address += step
        n -= step
    return 0


def copy_from_user(m: Machine, to: bytearray | None, src: int, n: int) -> int:
    """Copy from the program to the kernel: the number of bytes that were **not** copied; their place is cleared.

    :param to: the kernel's buffer; None if nobody looks at it
    :param src: ``const void __user *``

    Mirrors include/linux/uaccess.h:copy_from_user().
    """
    _check(n)
    if to is not None and len(to) < n:
        raise UsageError(f"copy_from_user() of {n} bytes into a buffer of {len(to)}")
    left = copy_user_generic(m, mask_user_address(m, src), n, "r")
    if to is not None:
        to[:n] = b"\1" * (n - left) + bytes(left)
    return left


def copy_to_user(m: Machine, to: int, n: int) -> int:
    """Copy @n bytes of the kernel to the program: the number of bytes that were **not** copied.

    :param to: ``void __user *``

    Mirrors include/linux/uaccess.h:copy_to_user().
    """
    _check(n)
    if not access_ok(m, to, n):
        return n
    return copy_user_generic(m, to, n, "w")


def clear_user(m: Machine, to: int, n: int) -> int:
    """Write zeros to the program: the number of bytes that were not written.

    Mirrors arch/x86/include/asm/uaccess_64.h:clear_user().
    """
    return copy_to_user(m, to, n)


def get_user(m: Machine, ptr: int, size: int = 8) -> int:
    """Read one value: 0, or -EFAULT and the value is 0.

    :param size: 1, 2, 4 or 8 bytes

    Mirrors arch/x86/include/asm/uaccess.h:get_user().
    """
    return -EFAULT if copy_user_generic(m, mask_user_address(m, ptr), size, "r") else 0


def put_user(m: Machine, ptr: int, size: int = 8) -> int:
    """Write one value: 0 or -EFAULT.

    Mirrors arch/x86/include/asm/uaccess.h:put_user().
    """
    return -EFAULT if copy_user_generic(m, mask_user_address(m, ptr), size, "w") else 0


def strncpy_from_user(m: Machine, src: int, count: int, length: int) -> int:
    """Copy a string: its length without the 0, or @count if it is not shorter, or -EFAULT.

    :param length: how long the program's string is, since pages have no contents

    Mirrors lib/strncpy_from_user.c:strncpy_from_user().
    """
    if count <= 0:
        return 0
    n = min(count, length + 1)
    if copy_user_generic(m, mask_user_address(m, src), n, "r"):
        return -EFAULT
    return min(length, count)


def copy_from_user_nofault(m: Machine, dst: bytearray | None, src: int, size: int) -> int:
    """Copy without taking a fault that would sleep: 0 or -EFAULT, also where a page is only not there yet.

    Mirrors mm/maccess.c:copy_from_user_nofault().
    """
    if not access_ok(m, src, size):
        return -EFAULT
    task = m.current
    task.pagefault_disabled += 1
    left = copy_user_generic(m, src, size, "r")
    task.pagefault_disabled -= 1
    if dst is not None:
        dst[: size - left] = b"\1" * (size - left)
    return -EFAULT if left else 0


def fault_in_readable(m: Machine, uaddr: int, size: int) -> int:
    """Touch every page of a range, so that a copy under a lock finds them: bytes that could not be faulted in.

    Mirrors mm/gup.c:fault_in_readable().
    """
    if not size:
        return 0
    if not access_ok(m, uaddr, size):
        return size
    return copy_user_generic(m, uaddr, size, "r")
