"""Swap entries: what a PTE that is not present, and not empty, says.

Mirrors include/linux/swapops.h and the type numbers of include/linux/swap.h for the reference kernel,
with MIGRATION and MEMORY_FAILURE and without DEVICE_PRIVATE: 27 of the 32 types are swap devices.

Simplified: a kernel with DEVICE_PRIVATE takes four types for device memory from the devices, which
moves the poison and migration types down by four, and with 5-level paging the pfn of an entry has 40
bits instead of 34. The decoder `decode_pte()` reads such entries too.

An entry exists in two formats: the architecture's (what the PTE holds) and the generic one, with
the type in the six top bits and the offset below. The generic one is an ``int`` here too.
"""

from __future__ import annotations

from mmcore.arch.x86 import pgtable_types as _arch
from mmcore.errors import UsageError

MAX_SWAPFILES_SHIFT = 5
SWP_PTE_MARKER_NUM = 1
SWP_DEVICE_NUM = 0  # 4 with CONFIG_DEVICE_PRIVATE
SWP_MIGRATION_NUM = 3
SWP_HWPOISON_NUM = 1
MAX_SWAPFILES = (
    (1 << MAX_SWAPFILES_SHIFT)
    - SWP_DEVICE_NUM
    - SWP_MIGRATION_NUM
    - SWP_HWPOISON_NUM
    - SWP_PTE_MARKER_NUM
)
SWP_HWPOISON = MAX_SWAPFILES
SWP_MIGRATION_READ = MAX_SWAPFILES + SWP_HWPOISON_NUM
SWP_MIGRATION_READ_EXCLUSIVE = SWP_MIGRATION_READ + 1
SWP_MIGRATION_WRITE = SWP_MIGRATION_READ + 2
SWP_PTE_MARKER = MAX_SWAPFILES + SWP_HWPOISON_NUM + SWP_MIGRATION_NUM + SWP_DEVICE_NUM

BITS_PER_XA_VALUE = 63
SWP_TYPE_SHIFT = BITS_PER_XA_VALUE - MAX_SWAPFILES_SHIFT
SWP_OFFSET_MASK = (1 << SWP_TYPE_SHIFT) - 1
SWP_PFN_BITS = 46 - 12  # MAX_PHYSMEM_BITS of 4-level paging; 52 - 12 with five levels
SWP_PFN_MASK = (1 << SWP_PFN_BITS) - 1
SWP_MIG_YOUNG = 1 << SWP_PFN_BITS
SWP_MIG_DIRTY = 1 << (SWP_PFN_BITS + 1)

PTE_MARKER_UFFD_WP = 1
PTE_MARKER_POISONED = 2
PTE_MARKER_MASK = 3

_SWP_OFFSET_BITS = 50  # bits 9-58 of the PTE
_swp_type = getattr(_arch, "__swp_type")
_swp_offset = getattr(_arch, "__swp_offset")
_swp_entry = getattr(_arch, "__swp_entry")


def swp_entry(type: int, offset: int) -> int:
    """Make a swap entry in the generic format.

    :raises UsageError: if @type is not 0 to 31 or @offset does not fit the 50 bits of a PTE

    Mirrors include/linux/swapops.h:swp_entry().
    """
    if not 0 <= type < 1 << MAX_SWAPFILES_SHIFT:
        raise UsageError(f"swap type is {type}; it is 0 to 31, devices are 0 to 26")
    if not 0 <= offset < 1 << _SWP_OFFSET_BITS:
        raise UsageError(f"swap offset is {offset:#x}; a PTE holds 0 to 2**50-1")
    return type << SWP_TYPE_SHIFT | offset


def swp_type(entry: int) -> int:
    """Return the type of an entry in the generic format.

    Mirrors include/linux/swapops.h:swp_type().
    """
    return entry >> SWP_TYPE_SHIFT


def swp_offset(entry: int) -> int:
    """Return the offset of an entry in the generic format.

    Mirrors include/linux/swapops.h:swp_offset().
    """
    return entry & SWP_OFFSET_MASK


def swp_offset_pfn(entry: int) -> int:
    """Return the pfn that a migration or poison entry holds.

    Mirrors include/linux/swapops.h:swp_offset_pfn().
    """
    return entry & SWP_OFFSET_MASK & SWP_PFN_MASK


def is_swap_pte(pte: int) -> bool:
    """Tell whether @pte is neither empty nor a mapping.

    Mirrors include/linux/swapops.h:is_swap_pte().
    """
    return not _arch.pte_none(pte) and not _arch.pte_present(pte)


def pte_to_swp_entry(pte: int) -> int:
    """Return the generic entry that @pte holds, without its flag bits.

    Mirrors include/linux/swapops.h:pte_to_swp_entry().
    """
    kind: int = _swp_type(pte)
    offset: int = _swp_offset(pte)
    return kind << SWP_TYPE_SHIFT | offset & SWP_OFFSET_MASK


def swp_entry_to_pte(entry: int) -> int:
    """Return the PTE that holds @entry.

    Mirrors include/linux/swapops.h:swp_entry_to_pte().
    """
    pte: int = _swp_entry(swp_type(entry), swp_offset(entry))
    return pte


def non_swap_entry(entry: int) -> bool:
    """Tell whether the entry is of a kind that names no swap slot.

    Mirrors include/linux/swapops.h:non_swap_entry().
    """
    return swp_type(entry) >= MAX_SWAPFILES


def make_readable_migration_entry(pfn: int) -> int:
    """Make the entry that replaces a read-only mapping of @pfn while the page moves.

    Mirrors include/linux/swapops.h:make_readable_migration_entry().
    """
    return swp_entry(SWP_MIGRATION_READ, pfn)


def make_readable_exclusive_migration_entry(pfn: int) -> int:
    """Make the entry that replaces a read-only mapping of an exclusive page.

    Mirrors include/linux/swapops.h:make_readable_exclusive_migration_entry().
    """
    return swp_entry(SWP_MIGRATION_READ_EXCLUSIVE, pfn)


def make_writable_migration_entry(pfn: int) -> int:
    """Make the entry that replaces a writable mapping of @pfn while the page moves.

    Mirrors include/linux/swapops.h:make_writable_migration_entry().
    """
    return swp_entry(SWP_MIGRATION_WRITE, pfn)


def is_migration_entry(entry: int) -> bool:
    """Tell whether the entry stands for a page that is being moved.

    Mirrors include/linux/swapops.h:is_migration_entry().
    """
    return SWP_MIGRATION_READ <= swp_type(entry) <= SWP_MIGRATION_WRITE


def is_writable_migration_entry(entry: int) -> bool:
    """Tell whether the mapping that is being moved was writable.

    Mirrors include/linux/swapops.h:is_writable_migration_entry().
    """
    return swp_type(entry) == SWP_MIGRATION_WRITE


def make_pte_marker(marker: int) -> int:
    """Return the PTE that holds @marker: a note about a page that is not there.

    Mirrors include/linux/swapops.h:make_pte_marker().
    """
    return swp_entry_to_pte(swp_entry(SWP_PTE_MARKER, marker))


def is_pte_marker_entry(entry: int) -> bool:
    """Tell whether the entry is a marker.

    Mirrors include/linux/swapops.h:is_pte_marker_entry().
    """
    return swp_type(entry) == SWP_PTE_MARKER


def pte_marker_get(entry: int) -> int:
    """Return the PTE_MARKER bits of a marker entry.

    Mirrors include/linux/swapops.h:pte_marker_get().
    """
    return swp_offset(entry) & PTE_MARKER_MASK


__all__ = [
    "is_migration_entry",
    "is_pte_marker_entry",
    "is_swap_pte",
    "is_writable_migration_entry",
    "make_pte_marker",
    "make_readable_exclusive_migration_entry",
    "make_readable_migration_entry",
    "make_writable_migration_entry",
    "non_swap_entry",
    "pte_marker_get",
    "pte_to_swp_entry",
    "swp_entry",
    "swp_entry_to_pte",
    "swp_offset",
    "swp_offset_pfn",
    "swp_type",
    *[n for n in globals() if n.isupper() and n[0] != "_"],
]
