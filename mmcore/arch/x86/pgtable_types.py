"""Page table entries: their bits, the functions that make and change them, and a decoder.

Mirrors arch/x86/include/asm/pgtable_types.h, pgtable.h (the functions on single entries),
pgtable_64.h (swap entries), pgtable-invert.h and arch/x86/mm/pgprot.c for x86-64 with
MEM_SOFT_DIRTY, HAVE_ARCH_USERFAULTFD_WP and X86_INTEL_MEMORY_PROTECTION_KEYS.

An entry is a plain ``int`` of 64 bits, whatever its level. The kernel has a type per level
(``pte_t`` ... ``pgd_t``) so that the compiler catches mistakes; the layout is the same.

Simplified: no memory encryption (``_PAGE_ENC`` and ``cc_mask`` are 0) and every flag bit is
supported (``__supported_pte_mask`` is all ones: the CPU has NX and PGE).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.cint import ULONG_MAX
from mmcore.config import PAGE_SHIFT
from mmcore.errors import UsageError

if TYPE_CHECKING:
    from mmcore.mm.mm import VmAreaStruct

# --- bits -------------------------------------------------------------------------------------

_PAGE_BIT_PRESENT = 0
_PAGE_BIT_RW = 1
_PAGE_BIT_USER = 2
_PAGE_BIT_PWT = 3
_PAGE_BIT_PCD = 4
_PAGE_BIT_ACCESSED = 5
_PAGE_BIT_DIRTY = 6
_PAGE_BIT_PSE = 7
_PAGE_BIT_PAT = 7
_PAGE_BIT_GLOBAL = 8
_PAGE_BIT_SPECIAL = 9
_PAGE_BIT_UFFD_WP = 10
_PAGE_BIT_SOFT_DIRTY = 11
_PAGE_BIT_PAT_LARGE = 12
_PAGE_BIT_DEVMAP = 57
_PAGE_BIT_SAVED_DIRTY = 58
_PAGE_BIT_NOPTISHADOW = 58
_PAGE_BIT_PKEY_BIT0 = 59
_PAGE_BIT_NX = 63
_PAGE_BIT_PROTNONE = _PAGE_BIT_GLOBAL

_PAGE_PRESENT = 1 << _PAGE_BIT_PRESENT
_PAGE_RW = 1 << _PAGE_BIT_RW
_PAGE_USER = 1 << _PAGE_BIT_USER
_PAGE_PWT = 1 << _PAGE_BIT_PWT
_PAGE_PCD = 1 << _PAGE_BIT_PCD
_PAGE_ACCESSED = 1 << _PAGE_BIT_ACCESSED
_PAGE_DIRTY = 1 << _PAGE_BIT_DIRTY
_PAGE_PSE = 1 << _PAGE_BIT_PSE
_PAGE_PAT = 1 << _PAGE_BIT_PAT
_PAGE_GLOBAL = 1 << _PAGE_BIT_GLOBAL
_PAGE_SPECIAL = 1 << _PAGE_BIT_SPECIAL
_PAGE_UFFD_WP = 1 << _PAGE_BIT_UFFD_WP
_PAGE_SOFT_DIRTY = 1 << _PAGE_BIT_SOFT_DIRTY
_PAGE_PAT_LARGE = 1 << _PAGE_BIT_PAT_LARGE
_PAGE_DEVMAP = 1 << _PAGE_BIT_DEVMAP
_PAGE_SAVED_DIRTY = 1 << _PAGE_BIT_SAVED_DIRTY
_PAGE_NOPTISHADOW = 1 << _PAGE_BIT_NOPTISHADOW
_PAGE_PKEY_MASK = 0xF << _PAGE_BIT_PKEY_BIT0
_PAGE_NX = 1 << _PAGE_BIT_NX
_PAGE_PROTNONE = 1 << _PAGE_BIT_PROTNONE
_PAGE_SWP_SOFT_DIRTY = _PAGE_RW
_PAGE_SWP_UFFD_WP = _PAGE_USER
_PAGE_SWP_EXCLUSIVE = _PAGE_PWT
_PAGE_KNL_ERRATUM_MASK = _PAGE_DIRTY | _PAGE_ACCESSED
_PAGE_DIRTY_BITS = _PAGE_DIRTY | _PAGE_SAVED_DIRTY

PMD_SHIFT = 21
PUD_SHIFT = 30
P4D_SHIFT = 39
PTRS_PER_PTE = 512
PMD_SIZE = 1 << PMD_SHIFT
PUD_SIZE = 1 << PUD_SHIFT
P4D_SIZE = 1 << P4D_SHIFT

_PHYSICAL_MASK = (1 << 52) - 1
PTE_PFN_MASK = _PHYSICAL_MASK & -(1 << PAGE_SHIFT)
PHYSICAL_PMD_PAGE_MASK = _PHYSICAL_MASK & -PMD_SIZE
PHYSICAL_PUD_PAGE_MASK = _PHYSICAL_MASK & -PUD_SIZE
PTE_FLAGS_MASK = ULONG_MAX & ~PTE_PFN_MASK

_COMMON_PAGE_CHG_MASK = (
    PTE_PFN_MASK
    | _PAGE_PCD
    | _PAGE_PWT
    | _PAGE_SPECIAL
    | _PAGE_ACCESSED
    | _PAGE_DIRTY_BITS
    | _PAGE_SOFT_DIRTY
    | _PAGE_DEVMAP
    | _PAGE_UFFD_WP
)
#: Bits that pte_modify() leaves alone.
_PAGE_CHG_MASK = _COMMON_PAGE_CHG_MASK | _PAGE_PAT
_HPAGE_CHG_MASK = _COMMON_PAGE_CHG_MASK | _PAGE_PSE | _PAGE_PAT_LARGE

_P, _W, _U, _A, _D, _G = _PAGE_PRESENT, _PAGE_RW, _PAGE_USER, _PAGE_ACCESSED, _PAGE_DIRTY, 1 << 8
PAGE_NONE = _A | _G
PAGE_SHARED = _P | _W | _U | _A | _PAGE_NX
PAGE_SHARED_EXEC = _P | _W | _U | _A
PAGE_COPY_NOEXEC = _P | _U | _A | _PAGE_NX
PAGE_COPY_EXEC = _P | _U | _A
PAGE_COPY = PAGE_COPY_NOEXEC
PAGE_READONLY = _P | _U | _A | _PAGE_NX
PAGE_READONLY_EXEC = _P | _U | _A
_KERNPG_TABLE = _P | _W | _A | _D
_PAGE_TABLE = _P | _W | _U | _A | _D
PAGE_KERNEL = _P | _W | _A | _PAGE_NX | _D | _G
PAGE_KERNEL_EXEC = _P | _W | _A | _D | _G
PAGE_KERNEL_RO = _P | _A | _PAGE_NX | _G
PAGE_KERNEL_ROX = _P | _A | _G
PAGE_KERNEL_LARGE = PAGE_KERNEL | _PAGE_PSE
PAGE_KERNEL_LARGE_EXEC = PAGE_KERNEL_EXEC | _PAGE_PSE

# enum pg_level: level 1 holds PTEs, level 2 PMDs ...
PG_LEVEL_NONE, PG_LEVEL_4K, PG_LEVEL_2M, PG_LEVEL_1G, PG_LEVEL_512G, PG_LEVEL_256T = range(6)
LEVEL_NAMES: dict[int, str] = {1: "PTE", 2: "PMD", 3: "PUD", 4: "P4D", 5: "PGD"}
#: How far to shift an address right to get a level's index into its low 9 bits.
LEVEL_SHIFT: tuple[int, ...] = (0, 12, 21, 30, 39, 48)


# --- the pfn of entries that are not present (L1TF) -------------------------------------------


def __pte_needs_invert(val: int) -> bool:
    """Tell whether the address bits of @val are stored inverted: not empty and not present.

    Mirrors arch/x86/include/asm/pgtable-invert.h:__pte_needs_invert().
    """
    return val != 0 and not val & _PAGE_PRESENT


_needs_invert = __pte_needs_invert  # the name without leading underscores, for use in classes


def protnone_mask(val: int) -> int:
    """Return what to xor @val with to get the real address bits.

    Mirrors arch/x86/include/asm/pgtable-invert.h:protnone_mask().
    """
    return ULONG_MAX if val and not val & _PAGE_PRESENT else 0


def flip_protnone_guard(oldval: int, val: int, mask: int) -> int:
    """Invert the bits of @val in @mask if it changes between present and PROT_NONE.

    Mirrors arch/x86/include/asm/pgtable-invert.h:flip_protnone_guard().
    """
    if __pte_needs_invert(oldval) != __pte_needs_invert(val):
        val = (val & ~mask) | (~val & mask)
    return val


# --- questions about a PTE --------------------------------------------------------------------


def pte_none(pte: int) -> bool:
    """Tell whether the entry is empty; A and D may be set in one by a CPU erratum.

    Mirrors arch/x86/include/asm/pgtable.h:pte_none().
    """
    return not pte & ~_PAGE_KNL_ERRATUM_MASK


def pte_present(pte: int) -> bool:
    """Tell whether the entry maps a page: present for the CPU, or PROT_NONE.

    Mirrors arch/x86/include/asm/pgtable.h:pte_present().
    """
    return pte & (_PAGE_PRESENT | _PAGE_PROTNONE) != 0


def pte_protnone(pte: int) -> bool:
    """Tell whether the entry maps a page that the CPU must not see.

    Mirrors arch/x86/include/asm/pgtable.h:pte_protnone().
    """
    return pte & (_PAGE_PROTNONE | _PAGE_PRESENT) == _PAGE_PROTNONE


def pte_same(a: int, b: int) -> bool:
    """Tell whether two entries are equal in every bit.

    Mirrors arch/x86/include/asm/pgtable.h:pte_same().
    """
    return a == b


def pte_write(pte: int) -> bool:
    """Tell whether the entry allows writing.

    Simplified: no shadow stack hardware (``pte_shstk()`` is false).

    Mirrors arch/x86/include/asm/pgtable.h:pte_write().
    """
    return pte & _PAGE_RW != 0


def pte_dirty(pte: int) -> bool:
    """Tell whether the page was written through the entry, in either dirty bit.

    Mirrors arch/x86/include/asm/pgtable.h:pte_dirty().
    """
    return pte & _PAGE_DIRTY_BITS != 0


def pte_young(pte: int) -> bool:
    """Tell whether the accessed bit is set.

    Mirrors arch/x86/include/asm/pgtable.h:pte_young().
    """
    return pte & _PAGE_ACCESSED != 0


def pte_exec(pte: int) -> bool:
    """Tell whether the entry allows execution.

    Mirrors arch/x86/include/asm/pgtable.h:pte_exec().
    """
    return not pte & _PAGE_NX


def pte_special(pte: int) -> bool:
    """Tell whether the mapping has no struct page to be counted (zero page, PFN maps).

    Mirrors arch/x86/include/asm/pgtable.h:pte_special().
    """
    return pte & _PAGE_SPECIAL != 0


def pte_soft_dirty(pte: int) -> bool:
    """Tell whether the page was written since ``clear_refs``.

    Mirrors arch/x86/include/asm/pgtable.h:pte_soft_dirty().
    """
    return pte & _PAGE_SOFT_DIRTY != 0


def pte_uffd_wp(pte: int) -> bool:
    """Tell whether userfaultfd write-protects the entry.

    Mirrors arch/x86/include/asm/pgtable.h:pte_uffd_wp().
    """
    return pte & _PAGE_UFFD_WP != 0


def pte_flags(pte: int) -> int:
    """Return the bits of the entry that are not the address.

    Mirrors arch/x86/include/asm/pgtable_types.h:pte_flags().
    """
    return pte & PTE_FLAGS_MASK


def pte_pfn(pte: int) -> int:
    """Return the page frame number that the entry maps.

    Mirrors arch/x86/include/asm/pgtable.h:pte_pfn().
    """
    if pte and not pte & _PAGE_PRESENT:
        pte ^= ULONG_MAX
    return (pte & PTE_PFN_MASK) >> PAGE_SHIFT


def pmd_none(pmd: int) -> bool:
    """Tell whether the entry is empty.

    Mirrors arch/x86/include/asm/pgtable.h:pmd_none().
    """
    return not pmd & ~_PAGE_KNL_ERRATUM_MASK


def pmd_present(pmd: int) -> bool:
    """Tell whether the entry leads somewhere; true while a huge page is being split, too.

    Mirrors arch/x86/include/asm/pgtable.h:pmd_present().
    """
    return pmd & (_PAGE_PRESENT | _PAGE_PROTNONE | _PAGE_PSE) != 0


def pmd_leaf(pmd: int) -> bool:
    """Tell whether the entry maps a large page itself.

    Mirrors arch/x86/include/asm/pgtable.h:pmd_leaf().
    """
    return pmd & _PAGE_PSE != 0


def pmd_trans_huge(pmd: int) -> bool:
    """Tell whether the entry maps a transparent huge page.

    Mirrors arch/x86/include/asm/pgtable.h:pmd_trans_huge().
    """
    return pmd & (_PAGE_PSE | _PAGE_DEVMAP) == _PAGE_PSE


def pmd_pfn(pmd: int) -> int:
    """Return the page frame number that a PMD holds: of a table, or of a 2 MiB page.

    Mirrors arch/x86/include/asm/pgtable.h:pmd_pfn().
    """
    val = pmd ^ protnone_mask(pmd)
    mask = PHYSICAL_PMD_PAGE_MASK if pmd & _PAGE_PSE else PTE_PFN_MASK
    return (val & mask) >> PAGE_SHIFT


def pud_pfn(pud: int) -> int:
    """Return the page frame number that a PUD holds: of a table, or of a 1 GiB page.

    Mirrors arch/x86/include/asm/pgtable.h:pud_pfn().
    """
    val = pud ^ protnone_mask(pud)
    mask = PHYSICAL_PUD_PAGE_MASK if pud & _PAGE_PSE else PTE_PFN_MASK
    return (val & mask) >> PAGE_SHIFT


# --- changing a PTE ---------------------------------------------------------------------------


def mksaveddirty_shift(v: int) -> int:
    """Move the dirty bit to SAVED_DIRTY if the entry is read-only: RW=0, D=1 is a shadow stack.

    Mirrors arch/x86/include/asm/pgtable.h:mksaveddirty_shift().
    """
    cond = ~v >> _PAGE_BIT_RW & 1
    v |= (v >> _PAGE_BIT_DIRTY & cond) << _PAGE_BIT_SAVED_DIRTY
    return v & ~(cond << _PAGE_BIT_DIRTY)


def clear_saveddirty_shift(v: int) -> int:
    """Move SAVED_DIRTY back to the dirty bit if the entry is writable.

    Mirrors arch/x86/include/asm/pgtable.h:clear_saveddirty_shift().
    """
    cond = v >> _PAGE_BIT_RW & 1
    v |= (v >> _PAGE_BIT_SAVED_DIRTY & cond) << _PAGE_BIT_DIRTY
    return v & ~(cond << _PAGE_BIT_SAVED_DIRTY)


def pte_wrprotect(pte: int) -> int:
    """Make the entry read-only; a dirty bit moves to SAVED_DIRTY.

    Mirrors arch/x86/include/asm/pgtable.h:pte_wrprotect().
    """
    return mksaveddirty_shift(pte & ~_PAGE_RW)


def pte_mkdirty(pte: int) -> int:
    """Mark the entry dirty and soft-dirty; in a read-only entry the dirty bit is SAVED_DIRTY.

    Mirrors arch/x86/include/asm/pgtable.h:pte_mkdirty().
    """
    return mksaveddirty_shift(pte | _PAGE_DIRTY | _PAGE_SOFT_DIRTY)


def pte_mkclean(pte: int) -> int:
    """Clear both dirty bits.

    Mirrors arch/x86/include/asm/pgtable.h:pte_mkclean().
    """
    return pte & ~_PAGE_DIRTY_BITS


def pte_mkyoung(pte: int) -> int:
    """Set the accessed bit.

    Mirrors arch/x86/include/asm/pgtable.h:pte_mkyoung().
    """
    return pte | _PAGE_ACCESSED


def pte_mkold(pte: int) -> int:
    """Clear the accessed bit.

    Mirrors arch/x86/include/asm/pgtable.h:pte_mkold().
    """
    return pte & ~_PAGE_ACCESSED


def pte_mkexec(pte: int) -> int:
    """Allow execution.

    Mirrors arch/x86/include/asm/pgtable.h:pte_mkexec().
    """
    return pte & ~_PAGE_NX


def pte_mkspecial(pte: int) -> int:
    """Mark the mapping as one without a struct page to count.

    Mirrors arch/x86/include/asm/pgtable.h:pte_mkspecial().
    """
    return pte | _PAGE_SPECIAL


def pte_mkhuge(pte: int) -> int:
    """Set PSE: the entry maps a large page.

    Mirrors arch/x86/include/asm/pgtable.h:pte_mkhuge().
    """
    return pte | _PAGE_PSE


def pte_mkwrite_novma(pte: int) -> int:
    """Allow writing, without looking where the dirty bit is.

    Mirrors arch/x86/include/asm/pgtable.h:pte_mkwrite_novma().
    """
    return pte | _PAGE_RW


def pte_mkwrite_shstk(pte: int) -> int:
    """Make a shadow stack entry: read-only and dirty.

    Mirrors arch/x86/include/asm/pgtable.h:pte_mkwrite_shstk().
    """
    return pte & ~_PAGE_RW | _PAGE_DIRTY


def pte_mkwrite(pte: int, vma: VmAreaStruct) -> int:
    """Allow writing as @vma does it: a SAVED_DIRTY bit becomes the dirty bit again.

    Mirrors arch/x86/mm/pgtable.c:pte_mkwrite().
    """
    if vma.vm_flags >> 37 & 1:  # VM_SHADOW_STACK
        return pte_mkwrite_shstk(pte)
    return clear_saveddirty_shift(pte | _PAGE_RW)


def pte_mksoft_dirty(pte: int) -> int:
    """Set the soft-dirty bit.

    Mirrors arch/x86/include/asm/pgtable.h:pte_mksoft_dirty().
    """
    return pte | _PAGE_SOFT_DIRTY


def pte_clear_soft_dirty(pte: int) -> int:
    """Clear the soft-dirty bit.

    Mirrors arch/x86/include/asm/pgtable.h:pte_clear_soft_dirty().
    """
    return pte & ~_PAGE_SOFT_DIRTY


def pte_mkuffd_wp(pte: int) -> int:
    """Write-protect the entry for userfaultfd.

    Mirrors arch/x86/include/asm/pgtable.h:pte_mkuffd_wp().
    """
    return pte_wrprotect(pte | _PAGE_UFFD_WP)


def pte_clear_uffd_wp(pte: int) -> int:
    """Clear the userfaultfd mark (and leave the entry read-only).

    Mirrors arch/x86/include/asm/pgtable.h:pte_clear_uffd_wp().
    """
    return pte & ~_PAGE_UFFD_WP


def pte_modify(pte: int, newprot: int) -> int:
    """Give the entry the protection @newprot and keep address, A, D and the software bits.

    Mirrors arch/x86/include/asm/pgtable.h:pte_modify().
    """
    val = pte & _PAGE_CHG_MASK | newprot & ~_PAGE_CHG_MASK
    val = flip_protnone_guard(pte, val, PTE_PFN_MASK)
    return mksaveddirty_shift(val) if pte & _PAGE_RW else clear_saveddirty_shift(val)


def pmd_modify(pmd: int, newprot: int) -> int:
    """Give a huge PMD the protection @newprot.

    Mirrors arch/x86/include/asm/pgtable.h:pmd_modify().
    """
    val = pmd & _HPAGE_CHG_MASK | newprot & ~_HPAGE_CHG_MASK
    val = flip_protnone_guard(pmd, val, PHYSICAL_PMD_PAGE_MASK)
    return mksaveddirty_shift(val) if pmd & _PAGE_RW else clear_saveddirty_shift(val)


def pte_advance_pfn(pte: int, nr: int) -> int:
    """Return the entry for the page @nr pages further on.

    Mirrors arch/x86/include/asm/pgtable.h:pte_advance_pfn().
    """
    step = nr << PAGE_SHIFT
    return pte - step if __pte_needs_invert(pte) else pte + step


def pfn_pte(page_nr: int, pgprot: int) -> int:
    """Make the entry that maps pfn @page_nr with @pgprot.

    Mirrors arch/x86/include/asm/pgtable.h:pfn_pte().
    """
    pfn = page_nr << PAGE_SHIFT
    if pgprot and not pgprot & _PAGE_PRESENT:
        pfn ^= ULONG_MAX
    return pfn & PTE_PFN_MASK | pgprot


def pfn_pmd(page_nr: int, pgprot: int) -> int:
    """Make a PMD that maps the 2 MiB page at pfn @page_nr with @pgprot.

    Mirrors arch/x86/include/asm/pgtable.h:pfn_pmd().
    """
    pfn = page_nr << PAGE_SHIFT ^ protnone_mask(pgprot)
    return pfn & PHYSICAL_PMD_PAGE_MASK | pgprot


def pfn_pud(page_nr: int, pgprot: int) -> int:
    """Make a PUD that maps the 1 GiB page at pfn @page_nr with @pgprot.

    Mirrors arch/x86/include/asm/pgtable.h:pfn_pud().
    """
    pfn = page_nr << PAGE_SHIFT ^ protnone_mask(pgprot)
    return pfn & PHYSICAL_PUD_PAGE_MASK | pgprot


def pgprot_4k_2_large(pgprot: int) -> int:
    """Move the PAT bit where a large entry has it.

    Mirrors arch/x86/include/asm/pgtable_types.h:pgprot_4k_2_large().
    """
    pat = pgprot & _PAGE_PAT
    return pgprot & ~(_PAGE_PAT | _PAGE_PAT_LARGE) | pat << (_PAGE_BIT_PAT_LARGE - _PAGE_BIT_PAT)


def pgprot_large_2_4k(pgprot: int) -> int:
    """Move the PAT bit where a 4 KiB entry has it.

    Mirrors arch/x86/include/asm/pgtable_types.h:pgprot_large_2_4k().
    """
    pat = pgprot & _PAGE_PAT_LARGE
    return pgprot & ~(_PAGE_PAT | _PAGE_PAT_LARGE) | pat >> (_PAGE_BIT_PAT_LARGE - _PAGE_BIT_PAT)


# --- protection of a mapping ------------------------------------------------------------------

#: Indexed by VM_READ 1, VM_WRITE 2, VM_EXEC 4, VM_SHARED 8. A private writable mapping starts
#: read-only: the first write must fault so that the page can be copied.
protection_map: tuple[int, ...] = (
    PAGE_NONE,
    PAGE_READONLY,
    PAGE_COPY,
    PAGE_COPY,
    PAGE_READONLY_EXEC,
    PAGE_READONLY_EXEC,
    PAGE_COPY_EXEC,
    PAGE_COPY_EXEC,
    PAGE_NONE,
    PAGE_READONLY,
    PAGE_SHARED,
    PAGE_SHARED,
    PAGE_READONLY_EXEC,
    PAGE_READONLY_EXEC,
    PAGE_SHARED_EXEC,
    PAGE_SHARED_EXEC,
)


def vm_get_page_prot(vm_flags: int) -> int:
    """Return the protection bits that PTEs of a mapping with @vm_flags get.

    Simplified: the processor supports all of them (``__supported_pte_mask``), and memory is not encrypted.

    Mirrors arch/x86/mm/pgprot.c:vm_get_page_prot().
    """
    return protection_map[vm_flags & 15] | (vm_flags >> 32 & 0xF) << _PAGE_BIT_PKEY_BIT0


# --- entries that are not present: swap -------------------------------------------------------

SWP_TYPE_BITS = 5
SWP_OFFSET_FIRST_BIT = _PAGE_BIT_PROTNONE + 1
SWP_OFFSET_SHIFT = SWP_OFFSET_FIRST_BIT + SWP_TYPE_BITS


def __swp_type(val: int) -> int:
    """Return the swap type in an entry in the hardware's format.

    Mirrors arch/x86/include/asm/pgtable_64.h:__swp_type().
    """
    return val >> (64 - SWP_TYPE_BITS)


def __swp_offset(val: int) -> int:
    """Return the swap offset in an entry in the hardware's format; it is stored inverted.

    Mirrors arch/x86/include/asm/pgtable_64.h:__swp_offset().
    """
    return (~val << SWP_TYPE_BITS & ULONG_MAX) >> SWP_OFFSET_SHIFT


def __swp_entry(type: int, offset: int) -> int:
    """Make an entry in the hardware's format: type in bits 59-63, inverted offset in 9-58.

    Mirrors arch/x86/include/asm/pgtable_64.h:__swp_entry().
    """
    low = (~offset << SWP_OFFSET_SHIFT & ULONG_MAX) >> SWP_TYPE_BITS
    return low | (type << (64 - SWP_TYPE_BITS) & ULONG_MAX)


def pte_swp_mkexclusive(pte: int) -> int:
    """Remember in a swap PTE that the anonymous page was exclusive.

    Mirrors arch/x86/include/asm/pgtable.h:pte_swp_mkexclusive().
    """
    return pte | _PAGE_SWP_EXCLUSIVE


def pte_swp_exclusive(pte: int) -> bool:
    """Tell whether a swap PTE remembers an exclusive page.

    Mirrors arch/x86/include/asm/pgtable.h:pte_swp_exclusive().
    """
    return pte & _PAGE_SWP_EXCLUSIVE != 0


def pte_swp_clear_exclusive(pte: int) -> int:
    """Forget in a swap PTE that the page was exclusive.

    Mirrors arch/x86/include/asm/pgtable.h:pte_swp_clear_exclusive().
    """
    return pte & ~_PAGE_SWP_EXCLUSIVE


def pte_swp_mksoft_dirty(pte: int) -> int:
    """Set the soft-dirty bit of a swap PTE.

    Mirrors arch/x86/include/asm/pgtable.h:pte_swp_mksoft_dirty().
    """
    return pte | _PAGE_SWP_SOFT_DIRTY


def pte_swp_soft_dirty(pte: int) -> bool:
    """Tell whether a swap PTE is soft-dirty.

    Mirrors arch/x86/include/asm/pgtable.h:pte_swp_soft_dirty().
    """
    return pte & _PAGE_SWP_SOFT_DIRTY != 0


def pte_swp_clear_soft_dirty(pte: int) -> int:
    """Clear the soft-dirty bit of a swap PTE.

    Mirrors arch/x86/include/asm/pgtable.h:pte_swp_clear_soft_dirty().
    """
    return pte & ~_PAGE_SWP_SOFT_DIRTY


def pte_swp_mkuffd_wp(pte: int) -> int:
    """Set the userfaultfd mark of a swap PTE.

    Mirrors arch/x86/include/asm/pgtable.h:pte_swp_mkuffd_wp().
    """
    return pte | _PAGE_SWP_UFFD_WP


def pte_swp_uffd_wp(pte: int) -> bool:
    """Tell whether a swap PTE carries the userfaultfd mark.

    Mirrors arch/x86/include/asm/pgtable.h:pte_swp_uffd_wp().
    """
    return pte & _PAGE_SWP_UFFD_WP != 0


def pte_swp_clear_uffd_wp(pte: int) -> int:
    """Clear the userfaultfd mark of a swap PTE.

    Mirrors arch/x86/include/asm/pgtable.h:pte_swp_clear_uffd_wp().
    """
    return pte & ~_PAGE_SWP_UFFD_WP


# --- the decoder ------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class BitField:
    """One field of an entry: bits @lo to @hi, their value, a short name and what it says."""

    lo: int
    hi: int
    name: str
    value: int
    meaning: str


@dataclass(slots=True, frozen=True)
class PteInfo:
    """A page table entry taken apart.

    :ivar kind: ``none``, ``page`` (a leaf that is present), ``table``, ``prot_none``, ``swap``,
        ``migration``, ``hwpoison``, ``device`` or ``marker``
    :ivar pfn: the page frame mapped or the table pointed to; None where there is none
    :ivar size: bytes that a leaf maps, else 0
    :ivar flags: names of the bits that are set, low to high
    :ivar fields: every field with its value and meaning, low to high
    :ivar swp_type: swap type, for entries that are not present
    :ivar swp_offset: swap offset, for entries that are not present
    """

    value: int
    level: int
    kind: str
    pfn: int | None
    size: int
    flags: tuple[str, ...]
    fields: tuple[BitField, ...] = field(repr=False)
    swp_type: int | None = None
    swp_offset: int | None = None

    def __str__(self) -> str:
        name = LEVEL_NAMES[self.level]
        text = f"{name} {self.value:016x} {self.kind}"
        if self.pfn is not None:
            text += f" pfn={self.pfn:x}"
        if self.swp_type is not None:
            text += f" type={self.swp_type} offset={self.swp_offset:x}"
        return f"{text} {' '.join(self.flags)}".rstrip()


_PRESENT_BITS: tuple[tuple[int, str, str, str], ...] = (
    (0, "P", "present: the CPU may use the entry", "not present"),
    (1, "RW", "writable", "read-only"),
    (2, "US", "user may access", "supervisor only"),
    (3, "PWT", "write-through", "write-back"),
    (4, "PCD", "cache disabled", "cached"),
    (5, "A", "accessed (the CPU sets it)", "not accessed since it was cleared"),
    (6, "D", "dirty (the CPU sets it on a write)", "not dirty"),
    (8, "G", "global: survives a CR3 write", "not global"),
    (9, "SPECIAL", "no struct page to count (zero page, PFN map)", "an ordinary page"),
    (10, "UFFD_WP", "write-protected by userfaultfd", "not write-protected by userfaultfd"),
    (11, "SOFT_DIRTY", "written since clear_refs", "not written since clear_refs"),
    (57, "DEVMAP", "device memory (DAX)", "not device memory"),
    (58, "SAVED_DIRTY", "dirty, kept here because RW is 0", "no saved dirty bit"),
    (63, "NX", "no execution", "executable"),
)

_TABLE_IGNORED = ("D", "G", "SPECIAL", "UFFD_WP", "SOFT_DIRTY", "DEVMAP")

#: The types that are not swap devices, up to the last one, 31: kind and name.
_SWP_KINDS = (
    ("hwpoison", "SWP_HWPOISON"),
    ("migration", "SWP_MIGRATION_READ"),
    ("migration", "SWP_MIGRATION_READ_EXCLUSIVE"),
    ("migration", "SWP_MIGRATION_WRITE"),
    ("marker", "SWP_PTE_MARKER"),
)
#: What CONFIG_DEVICE_PRIVATE puts in front of the marker.
_SWP_DEVICE_KINDS = (
    ("device", "SWP_DEVICE_WRITE"),
    ("device", "SWP_DEVICE_READ"),
    ("device", "SWP_DEVICE_EXCLUSIVE_WRITE"),
    ("device", "SWP_DEVICE_EXCLUSIVE_READ"),
)


def _swap_kind(stype: int, device_private: bool) -> tuple[str, str]:
    """Return what a swap type stands for: its kind and its name."""
    device = _SWP_DEVICE_KINDS if device_private else ()
    kinds = (*_SWP_KINDS[:-1], *device, _SWP_KINDS[-1])
    first = (1 << SWP_TYPE_BITS) - len(kinds)
    return kinds[stype - first] if stype >= first else ("swap", f"swap device {stype}")


def _decode_swap(value: int, level: int, device_private: bool, pfn_bits: int) -> PteInfo:
    """Decode an entry that is neither empty nor present."""
    stype, offset = __swp_type(value), __swp_offset(value)
    kind, name = _swap_kind(stype, device_private)
    flags: list[str] = []
    fields: list[BitField] = [BitField(0, 0, "P", 0, "not present")]
    low = (
        (1, "SD", "soft-dirty", "not soft-dirty"),
        (2, "UFFD_WP", "userfaultfd write-protect", "no userfaultfd mark"),
        (3, "EXCLUSIVE", "the anonymous page was exclusive", "not known to be exclusive"),
    )
    for bit, short, yes, no in low:
        on = value >> bit & 1
        fields.append(BitField(bit, bit, short, on, yes if on else no))
        if on:
            flags.append(short)
    fields.append(BitField(4, 6, "unused", value >> 4 & 7, "not used in a swap entry"))
    fields.append(BitField(7, 8, "L,G", value >> 7 & 3, "0: else the entry would be a mapping"))
    pfn = None
    text = f"offset {offset:#x}, stored inverted"
    if kind in ("hwpoison", "migration", "device"):
        pfn = offset & ((1 << pfn_bits) - 1)
        text = f"pfn {pfn:#x}, stored inverted"
        if kind == "migration":
            flags += [n for b, n in enumerate(("YOUNG", "DIRTY"), pfn_bits) if offset >> b & 1]
    elif kind == "marker":
        flags += [n for b, n in ((0, "MARKER_UFFD_WP"), (1, "MARKER_POISONED")) if offset >> b & 1]
    fields.append(BitField(9, 58, "~offset", value >> 9 & (1 << 50) - 1, text))
    fields.append(BitField(59, 63, "type", stype, name))
    return PteInfo(value, level, kind, pfn, 0, tuple(flags), tuple(fields), stype, offset)


def _present_fields(value: int, level: int, leaf: bool, none: bool) -> list[BitField]:
    """Return the single-bit fields of a present or PROT_NONE entry."""
    fields = []
    for bit, name, yes, no in _PRESENT_BITS:
        on = value >> bit & 1
        if bit == 8 and none:
            name, yes = "PROTNONE", "PROT_NONE: a page is mapped, the CPU must not see it"
        meaning = yes if on else no
        if not leaf and name in _TABLE_IGNORED:
            meaning = "ignored by the CPU in an entry that points to a table"
        elif bit == 58 and level == 5:
            name, meaning = "NOPTISHADOW", "not copied to the user PGD" if on else "normal"
        fields.append(BitField(bit, bit, name, on, meaning))
    return fields


def decode_pte(
    value: int, level: int = PG_LEVEL_4K, *, device_private: bool = False, levels: int = 4
) -> PteInfo:
    """Take a page table entry apart.

    :param value: the 64-bit entry
    :param level: 1 for a PTE, 2 PMD, 3 PUD, 4 P4D, 5 PGD (the top level of 4-level paging
        counts as P4D)
    :param device_private: whether the entry is from a kernel with CONFIG_DEVICE_PRIVATE, which
        numbers the types of entries that are not present differently from the reference kernel
    :param levels: of the paging that the kernel uses, 4 or 5: how wide the pfn of a migration entry is
    :raises UsageError: if @value has more than 64 bits or @level is not 1 to 5
    """
    if not isinstance(value, int) or not 0 <= value <= ULONG_MAX:
        raise UsageError(f"an entry is a number of 0 to 2**64-1, not {value!r}")
    if level not in LEVEL_NAMES:
        raise UsageError(f"level is {level!r}; it is 1 (PTE) to 5 (PGD)")
    if pte_none(value):
        return PteInfo(value, level, "none", None, 0, (), ())
    large = level in (PG_LEVEL_2M, PG_LEVEL_1G) and value & _PAGE_PSE != 0
    if not value & (_PAGE_PRESENT | _PAGE_PROTNONE) and not large:
        return _decode_swap(value, level, device_private, 34 if levels == 4 else 40)
    none = not value & _PAGE_PRESENT
    leaf = level == PG_LEVEL_4K or large
    shift = LEVEL_SHIFT[level] if leaf else PAGE_SHIFT
    fields = _present_fields(value, level, leaf, none)
    on = value >> 7 & 1
    if level == PG_LEVEL_4K:
        fields.append(BitField(7, 7, "PAT", on, "memory type, with PCD and PWT"))
    else:
        fields.append(BitField(7, 7, "PSE", on, "a large page" if on else "points to a table"))
    if large:
        on = value >> 12 & 1
        fields.append(BitField(12, 12, "PAT_LARGE", on, "memory type, with PCD and PWT"))
    pkey = value >> _PAGE_BIT_PKEY_BIT0 & 0xF
    fields.append(BitField(59, 62, "PKEY", pkey, f"protection key {pkey}"))
    pfn = ((value ^ protnone_mask(value)) & _PHYSICAL_MASK & -(1 << shift)) >> PAGE_SHIFT
    what = "page frame" if leaf else "next table's page frame"
    raw = value >> shift & (1 << (52 - shift)) - 1
    fields.append(
        BitField(shift, 51, "pfn", raw, f"{what} {pfn:#x}{', stored inverted' if none else ''}")
    )
    fields.sort(key=lambda f: f.lo)
    flags = tuple(f.name for f in fields if f.value and f.name not in ("pfn", "PKEY"))
    if pkey:
        flags += (f"PKEY{pkey}",)
    kind = "prot_none" if none else "page" if leaf else "table"
    size = 1 << LEVEL_SHIFT[level] if leaf else 0
    return PteInfo(value, level, kind, pfn, size, flags, tuple(fields))


__all__ = [
    "BitField",
    "LEVEL_NAMES",
    "LEVEL_SHIFT",
    "P4D_SHIFT",
    "P4D_SIZE",
    "PAGE_COPY",
    "PAGE_COPY_EXEC",
    "PAGE_COPY_NOEXEC",
    "PAGE_KERNEL",
    "PAGE_KERNEL_EXEC",
    "PAGE_KERNEL_LARGE",
    "PAGE_KERNEL_LARGE_EXEC",
    "PAGE_KERNEL_RO",
    "PAGE_KERNEL_ROX",
    "PAGE_NONE",
    "PAGE_READONLY",
    "PAGE_READONLY_EXEC",
    "PAGE_SHARED",
    "PAGE_SHARED_EXEC",
    "PAGE_SHIFT",
    "PG_LEVEL_1G",
    "PG_LEVEL_256T",
    "PG_LEVEL_2M",
    "PG_LEVEL_4K",
    "PG_LEVEL_512G",
    "PG_LEVEL_NONE",
    "PHYSICAL_PMD_PAGE_MASK",
    "PHYSICAL_PUD_PAGE_MASK",
    "PMD_SHIFT",
    "PMD_SIZE",
    "PTE_FLAGS_MASK",
    "PTE_PFN_MASK",
    "PTRS_PER_PTE",
    "PUD_SHIFT",
    "PUD_SIZE",
    "PteInfo",
    "SWP_OFFSET_FIRST_BIT",
    "SWP_OFFSET_SHIFT",
    "SWP_TYPE_BITS",
    "_KERNPG_TABLE",
    "_PAGE_ACCESSED",
    "_PAGE_BIT_ACCESSED",
    "_PAGE_BIT_DEVMAP",
    "_PAGE_BIT_DIRTY",
    "_PAGE_BIT_GLOBAL",
    "_PAGE_BIT_NOPTISHADOW",
    "_PAGE_BIT_NX",
    "_PAGE_BIT_PAT",
    "_PAGE_BIT_PAT_LARGE",
    "_PAGE_BIT_PCD",
    "_PAGE_BIT_PKEY_BIT0",
    "_PAGE_BIT_PRESENT",
    "_PAGE_BIT_PROTNONE",
    "_PAGE_BIT_PSE",
    "_PAGE_BIT_PWT",
    "_PAGE_BIT_RW",
    "_PAGE_BIT_SAVED_DIRTY",
    "_PAGE_BIT_SOFT_DIRTY",
    "_PAGE_BIT_SPECIAL",
    "_PAGE_BIT_UFFD_WP",
    "_PAGE_BIT_USER",
    "_PAGE_CHG_MASK",
    "_PAGE_DEVMAP",
    "_PAGE_DIRTY",
    "_PAGE_DIRTY_BITS",
    "_PAGE_GLOBAL",
    "_PAGE_KNL_ERRATUM_MASK",
    "_PAGE_NOPTISHADOW",
    "_PAGE_NX",
    "_PAGE_PAT",
    "_PAGE_PAT_LARGE",
    "_PAGE_PCD",
    "_PAGE_PKEY_MASK",
    "_PAGE_PRESENT",
    "_PAGE_PROTNONE",
    "_PAGE_PSE",
    "_PAGE_PWT",
    "_PAGE_RW",
    "_PAGE_SAVED_DIRTY",
    "_PAGE_SOFT_DIRTY",
    "_PAGE_SPECIAL",
    "_PAGE_SWP_EXCLUSIVE",
    "_PAGE_SWP_SOFT_DIRTY",
    "_PAGE_SWP_UFFD_WP",
    "_PAGE_TABLE",
    "_PAGE_UFFD_WP",
    "_PAGE_USER",
    "__pte_needs_invert",
    "__swp_entry",
    "__swp_offset",
    "__swp_type",
    "clear_saveddirty_shift",
    "decode_pte",
    "flip_protnone_guard",
    "mksaveddirty_shift",
    "pfn_pmd",
    "pfn_pte",
    "pfn_pud",
    "pgprot_4k_2_large",
    "pgprot_large_2_4k",
    "pmd_leaf",
    "pmd_modify",
    "pmd_none",
    "pmd_pfn",
    "pmd_present",
    "pmd_trans_huge",
    "protection_map",
    "protnone_mask",
    "pte_advance_pfn",
    "pte_clear_soft_dirty",
    "pte_clear_uffd_wp",
    "pte_dirty",
    "pte_exec",
    "pte_flags",
    "pte_mkclean",
    "pte_mkdirty",
    "pte_mkexec",
    "pte_mkhuge",
    "pte_mkold",
    "pte_mksoft_dirty",
    "pte_mkspecial",
    "pte_mkuffd_wp",
    "pte_mkwrite",
    "pte_mkwrite_novma",
    "pte_mkwrite_shstk",
    "pte_mkyoung",
    "pte_modify",
    "pte_none",
    "pte_pfn",
    "pte_present",
    "pte_protnone",
    "pte_same",
    "pte_soft_dirty",
    "pte_special",
    "pte_swp_clear_exclusive",
    "pte_swp_clear_soft_dirty",
    "pte_swp_clear_uffd_wp",
    "pte_swp_exclusive",
    "pte_swp_mkexclusive",
    "pte_swp_mksoft_dirty",
    "pte_swp_mkuffd_wp",
    "pte_swp_soft_dirty",
    "pte_swp_uffd_wp",
    "pte_uffd_wp",
    "pte_write",
    "pte_wrprotect",
    "pte_young",
    "pud_pfn",
    "vm_get_page_prot",
]
