"""Kernel samepage merging: only the advice that marks mappings.

Mirrors a part of mm/ksm.c; the daemon is chapter 19's.
"""

from __future__ import annotations

from mmcore.mm.mm import (
    MMF_VM_MERGEABLE,
    VM_DONTEXPAND,
    VM_DROPPABLE,
    VM_HUGETLB,
    VM_IO,
    VM_MAYSHARE,
    VM_MERGEABLE,
    VM_MIXEDMAP,
    VM_PFNMAP,
    VM_SHARED,
    VmAreaStruct,
)

__all__ = ["ksm_madvise_mergeable", "ksm_madvise_unmergeable", "vma_ksm_compatible"]

_INCOMPATIBLE = (
    VM_SHARED
    | VM_MAYSHARE
    | VM_PFNMAP
    | VM_IO
    | VM_DONTEXPAND
    | VM_HUGETLB
    | VM_MIXEDMAP
    | VM_DROPPABLE
)


def vma_ksm_compatible(vma: VmAreaStruct) -> bool:
    """Tell whether pages of @vma may be merged with equal ones.

    Mirrors mm/ksm.c:vma_ksm_compatible().
    """
    return not vma.vm_flags & _INCOMPATIBLE


def ksm_madvise_mergeable(vma: VmAreaStruct, vm_flags: int) -> int:
    """Return @vm_flags with VM_MERGEABLE if the pages may be merged.

    Mirrors mm/ksm.c:ksm_madvise().
    """
    if vma.vm_flags & VM_MERGEABLE or not vma_ksm_compatible(vma):
        return vm_flags
    vma.vm_mm.flags |= 1 << MMF_VM_MERGEABLE
    return vm_flags | VM_MERGEABLE


def ksm_madvise_unmergeable(vma: VmAreaStruct, vm_flags: int) -> int:
    """Return @vm_flags without VM_MERGEABLE; no page has been merged in this model."""
    return vm_flags & ~VM_MERGEABLE
