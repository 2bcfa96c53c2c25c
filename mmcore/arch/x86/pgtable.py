"""Page tables: the tree, walking it, mapping, unmapping and changing protection.

Mirrors arch/x86/include/asm/pgtable_64_types.h, arch/x86/mm/pgtable.c, include/linux/pgtable.h and
the table allocation of include/asm-generic/pgalloc.h and mm/memory.c.

A table is a `PageTable`: 512 entries of 64 bits in one page frame. A pointer to an entry (``pte_t
*`` ... ``pgd_t *``) is the pair (table, index); an entry is a plain ``int``. The functions on single
entries are in `pgtable_types` and are reachable from here.

Simplified: the page table lock is a list of the tables locked now, which the code asserts; tables
are freed without RCU; ``pte_offset_map()`` fails where the PMD holds no table, as after a race in
the kernel. The kernel's own tables (``swapper_pg_dir``) are made in `init_64`.
"""

# ruff: noqa: F405
from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from mmcore.arch.x86.pgtable_types import *  # noqa: F403
from mmcore.arch.x86.pgtable_types import (
    _KERNPG_TABLE,
    _PAGE_ACCESSED,
    _PAGE_GLOBAL,
    _PAGE_PRESENT,
    _PAGE_PROTNONE,
    _PAGE_PSE,
    _PAGE_TABLE,
    LEVEL_NAMES,
    LEVEL_SHIFT,
    PTE_PFN_MASK,
    pfn_pmd,
    pfn_pte,
    pfn_pud,
    pgprot_4k_2_large,
    pgprot_large_2_4k,
    pmd_modify,
    pmd_pfn,
    pte_modify,
    pte_none,
    pte_pfn,
    pud_pfn,
)
from mmcore.cint import ULONG_MAX
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import KernelBug, UsageError
from mmcore.mm import gfp as _gfp
from mmcore.mm.page_flags import PGTY_table
from mmcore.mm.vmstat import (
    DIRECT_MAP_LEVEL2_SPLIT,
    DIRECT_MAP_LEVEL3_SPLIT,
    NR_PAGETABLE,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.mm import MmStruct

    _Array = array[int]
else:
    _Array = array

# include/asm-generic/pgalloc.h
GFP_PGTABLE_KERNEL: int = _gfp.GFP_KERNEL | _gfp.__GFP_ZERO
GFP_PGTABLE_USER: int = GFP_PGTABLE_KERNEL | _gfp.__GFP_ACCOUNT

#: Where the stub pool's table pages start: below the end of the 46-bit physical address space.
STUB_PFN_BASE = 0x3F0000000
_PAGE_TYPE_TABLE = PGTY_table << 24
_ZEROS = bytes(PAGE_SIZE)


class PageTable(_Array):
    """One page of page table: ``array('Q')`` of 512 entries.

    :ivar pfn: its page frame
    :ivar level: 1 for a table of PTEs ... 5 for a PGD with LA57
    :ivar space: the `PhysTables` it belongs to
    :ivar page: its ``struct page``; None when it comes from the stub pool
    :ivar shadow: the user half of a PGD pair, with page table isolation
    """

    __slots__ = ("level", "page", "pfn", "shadow", "space")

    if TYPE_CHECKING:
        pfn: int
        level: int
        space: PhysTables
        page: Any
        shadow: PageTable | None

    def __repr__(self) -> str:
        return f"<{LEVEL_NAMES[self.level]} table at pfn {self.pfn:#x}>"

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


#: ``pte_t *``, ``pmd_t *`` ...: the table and the index in it.
Ptep = tuple[PageTable, int]


class PhysTables:
    """The table pages that exist, by pfn, and where new ones come from.

    :param machine: take pages from its page allocator; None: from a stub pool
    :param limit: how many pages the stub pool has; None: any number
    """

    __slots__ = ("_free", "_next", "limit", "machine", "tables")

    def __init__(self, machine: Machine | None = None, *, limit: int | None = None) -> None:
        self.machine = machine
        self.limit = limit
        self.tables: dict[int, PageTable] = {}
        self._next = STUB_PFN_BASE
        self._free: list[int] = []

    def __repr__(self) -> str:
        return f"<{len(self.tables)} table pages>"

    def new(self, pfn: int, level: int, page: Any = None) -> PageTable:
        """Make the table object of page frame @pfn."""
        table = PageTable("Q", _ZEROS)
        table.pfn = pfn
        table.level = level
        table.space = self
        table.page = page
        table.shadow = None
        self.tables[pfn] = table
        return table

    def stub(self, level: int) -> PageTable | None:
        """Take a page from the stub pool; None when the pool is used up."""
        if self.limit is not None and len(self.tables) >= self.limit:
            return None
        if self._free:
            return self.new(self._free.pop(), level)
        pfn = self._next
        self._next += 1
        return self.new(pfn, level)


# --- geometry ---------------------------------------------------------------------------------


def pgtable_levels(m: Machine | None) -> int:
    """Return 5 if the kernel is built for it and the CPU has LA57, else 4.

    Mirrors arch/x86/include/asm/pgtable_64_types.h:pgtable_l5_enabled().
    """
    return 5 if m is not None and m.config.X86_5LEVEL and m.config.cpu_la57 else 4


def pgdir_shift(levels: int) -> int:
    """Return how far an address is shifted to index the top table: 39 or 48."""
    return LEVEL_SHIFT[levels]


def virtual_mask_shift(levels: int) -> int:
    """Return the bits of an address that one half of the address space has: 47 or 56."""
    return 47 if levels == 4 else 56


def task_size_max(levels: int) -> int:
    """Return the first address that is not for user space: the top half's edge less one page.

    Mirrors arch/x86/include/asm/page_64.h:task_size_max().
    """
    return (1 << virtual_mask_shift(levels)) - PAGE_SIZE


def __is_canonical_address(vaddr: int, vaddr_bits: int) -> bool:
    """Tell whether the bits from @vaddr_bits - 1 up are all equal.

    Mirrors arch/x86/include/asm/page.h:__is_canonical_address().
    """
    return vaddr >> (vaddr_bits - 1) in (0, (1 << (65 - vaddr_bits)) - 1)


_is_canonical_address = __is_canonical_address


def check_address(address: int, levels: int) -> None:
    """Refuse an @address that is not a canonical 64-bit number.

    :raises UsageError: if it is not
    """
    if not isinstance(address, int) or not 0 <= address <= ULONG_MAX:
        raise UsageError(f"an address is a number of 0 to 2**64-1, not {address!r}")
    bits = virtual_mask_shift(levels) + 1
    if not _is_canonical_address(address, bits):
        raise UsageError(
            f"address {address:#x} is not canonical: bits 63 to {bits - 1} must be equal "
            f"with {levels}-level paging"
        )


def pgd_index(address: int, levels: int = 4) -> int:
    """Return the index of @address in the top-level table.

    Mirrors include/linux/pgtable.h:pgd_index().
    """
    return address >> LEVEL_SHIFT[levels] & 511


def p4d_index(address: int) -> int:
    """Return the index in a P4D table (with LA57).

    Mirrors arch/x86/include/asm/pgtable.h:p4d_index().
    """
    return address >> 39 & 511


def pud_index(address: int) -> int:
    """Return the index in a PUD table.

    Mirrors include/linux/pgtable.h:pud_index().
    """
    return address >> 30 & 511


def pmd_index(address: int) -> int:
    """Return the index in a PMD table.

    Mirrors include/linux/pgtable.h:pmd_index().
    """
    return address >> 21 & 511


def pte_index(address: int) -> int:
    """Return the index in a PTE table.

    Mirrors include/linux/pgtable.h:pte_index().
    """
    return address >> 12 & 511


def table_indices(address: int, levels: int = 4) -> list[tuple[str, int]]:
    """Return the index of @address at each level, top first, and last the offset in the page.

    :raises UsageError: if the address is not canonical
    """
    check_address(address, levels)
    out = [("PGD", pgd_index(address, levels))]
    if levels == 5:
        out.append(("P4D", p4d_index(address)))
    out += [("PUD", pud_index(address)), ("PMD", pmd_index(address)), ("PTE", pte_index(address))]
    return [*out, ("offset", address & (PAGE_SIZE - 1))]


# --- entries through pointers -----------------------------------------------------------------


def ptep_get(ptep: Ptep) -> int:
    """Return the entry that @ptep points to.

    Mirrors include/linux/pgtable.h:ptep_get().
    """
    return ptep[0][ptep[1]]


def set_pte(ptep: Ptep, pte: int) -> None:
    """Store an entry.

    Mirrors arch/x86/include/asm/pgtable_64.h:native_set_pte().
    """
    ptep[0][ptep[1]] = pte


def set_ptes(mm: MmStruct, addr: int, ptep: Ptep, pte: int, nr: int) -> None:
    """Store @nr entries for consecutive pages, starting with @pte.

    Mirrors include/linux/pgtable.h:set_ptes().
    """
    table, i = ptep
    step = PAGE_SIZE if pte & _PAGE_PRESENT or not pte else -PAGE_SIZE
    for n in range(i, i + nr):
        table[n] = pte
        pte += step


def ptep_get_and_clear(mm: MmStruct, addr: int, ptep: Ptep) -> int:
    """Empty an entry and return what it held.

    Mirrors arch/x86/include/asm/pgtable.h:ptep_get_and_clear().
    """
    table, i = ptep
    pte = table[i]
    table[i] = 0
    return pte


def ptep_set_wrprotect(mm: MmStruct, addr: int, ptep: Ptep) -> None:
    """Make an entry read-only.

    Mirrors arch/x86/include/asm/pgtable.h:ptep_set_wrprotect().
    """
    table, i = ptep
    table[i] = pte_wrprotect(table[i])


def _next_table(ptep: Ptep) -> PageTable:
    """Return the table that a non-leaf entry points to."""
    table, i = ptep
    return table.space.tables[(table[i] & PTE_PFN_MASK) >> PAGE_SHIFT]


def pgd_offset_pgd(pgd: PageTable, address: int) -> Ptep:
    """Return a pointer to the top-level entry of @address in @pgd.

    Mirrors include/linux/pgtable.h:pgd_offset_pgd().
    """
    return pgd, address >> LEVEL_SHIFT[pgd.level] & 511


def pgd_offset(mm: MmStruct, address: int) -> Ptep:
    """Return a pointer to the top-level entry of @address.

    Mirrors include/linux/pgtable.h:pgd_offset().
    """
    pgd = mm.pgd
    return pgd, address >> LEVEL_SHIFT[pgd.level] & 511


def p4d_offset(pgd: Ptep, address: int) -> Ptep:
    """Return a pointer to the P4D entry; with four levels that is the PGD entry itself.

    Mirrors arch/x86/include/asm/pgtable.h:p4d_offset().
    """
    if pgd[0].level != 5:
        return pgd
    return _next_table(pgd), address >> 39 & 511


def pud_offset(p4d: Ptep, address: int) -> Ptep:
    """Return a pointer to the PUD entry.

    Mirrors include/linux/pgtable.h:pud_offset().
    """
    table, i = p4d
    return (
        table.space.tables[(table[i] & PTE_PFN_MASK) >> PAGE_SHIFT],
        address >> 30 & 511,
    )


def pmd_offset(pud: Ptep, address: int) -> Ptep:
    """Return a pointer to the PMD entry.

    Mirrors include/linux/pgtable.h:pmd_offset().
    """
    table, i = pud
    return (
        table.space.tables[(table[i] & PTE_PFN_MASK) >> PAGE_SHIFT],
        address >> 21 & 511,
    )


def pte_offset_kernel(pmd: Ptep, address: int) -> Ptep:
    """Return a pointer to the PTE; the PMD must point to a table.

    Mirrors include/linux/pgtable.h:pte_offset_kernel().
    """
    table, i = pmd
    return (
        table.space.tables[(table[i] & PTE_PFN_MASK) >> PAGE_SHIFT],
        address >> 12 & 511,
    )


def pte_offset_map(pmd: Ptep, addr: int) -> Ptep | None:
    """Return a pointer to the PTE, or None if the PMD does not point to a table (any more).

    Mirrors include/linux/mm.h:pte_offset_map().
    """
    table, i = pmd
    pmdval = table[i]
    if not pmdval & _PAGE_PRESENT or pmdval & _PAGE_PSE:
        return None
    return table.space.tables[(pmdval & PTE_PFN_MASK) >> PAGE_SHIFT], addr >> 12 & 511


def pte_offset_map_nolock(mm: MmStruct, pmd: Ptep, addr: int) -> Ptep | None:
    """Return a pointer to the PTE without taking the page table lock; None as above.

    Mirrors mm/pgtable-generic.c:pte_offset_map_nolock().
    """
    return pte_offset_map(pmd, addr)


def pte_offset_map_lock(mm: MmStruct, pmd: Ptep, addr: int) -> Ptep | None:
    """Return a pointer to the PTE with its table locked, or None: the caller must retry.

    :raises KernelBug: if the table is locked already

    Mirrors mm/pgtable-generic.c:__pte_offset_map_lock().
    """
    ptep = pte_offset_map(pmd, addr)
    if ptep is not None:
        spin_lock_ptl(mm, ptep[0])
    return ptep


def spin_lock_ptl(mm: MmStruct, table: PageTable) -> None:
    """Take the lock of a table page (split page table lock).

    Mirrors include/linux/mm.h:pte_lockptr().
    """
    if table.pfn in mm.ptl:
        raise KernelBug(f"page table lock of {table!r} is held already")
    mm.ptl.append(table.pfn)


def pte_unmap_unlock(mm: MmStruct, ptep: Ptep) -> None:
    """Give back the lock of a table page.

    Mirrors include/linux/mm.h:pte_unmap_unlock().
    """
    try:
        mm.ptl.remove(ptep[0].pfn)
    except ValueError:
        raise KernelBug(f"page table lock of {ptep[0]!r} is not held") from None


# --- table pages ------------------------------------------------------------------------------


def pagetable_alloc(
    space: PhysTables, gfp: int, level: int, *, ctor: bool = True
) -> PageTable | None:
    """Allocate a zeroed table page; None when there is no memory.

    With @ctor the page gets type "table" and is counted in NR_PAGETABLE. A P4D table is an ordinary
    page, as p4d_alloc_one() takes it; the others ask for __GFP_COMP.

    Mirrors include/linux/mm.h:pagetable_alloc().
    """
    m = space.machine
    if m is None:
        return space.stub(level)
    from mmcore.mm import page_alloc

    page = page_alloc.alloc_pages(m, gfp if level == 4 else gfp | _gfp.__GFP_COMP, 0)
    if page is None:
        return None
    if ctor:
        page.page_type = _PAGE_TYPE_TABLE
        page.zone.zone_pgdat.vm_stat[NR_PAGETABLE] += 1
    return space.new(page.pfn, level, page)


def pagetable_free(table: PageTable) -> None:
    """Free a table page, after its destructor.

    Mirrors include/linux/mm.h:pagetable_free().
    """
    space = table.space
    del space.tables[table.pfn]
    page = table.page
    if page is None:
        space._free.append(table.pfn)
        return
    if page.page_type == _PAGE_TYPE_TABLE:
        page.page_type = -1
        page.zone.zone_pgdat.vm_stat[NR_PAGETABLE] -= 1
    from mmcore.mm import page_alloc

    getattr(page_alloc, "__free_pages")(page, 0)


def pgd_alloc(mm: MmStruct) -> PageTable | None:
    """Allocate the top-level table; its upper half is copied from the kernel's.

    It is a pair of pages where the kernel is built with page table isolation; while that is on, the
    user's table is the second of them, else nothing uses it.

    Mirrors arch/x86/mm/pgtable.c:pgd_alloc().
    """
    space = mm.tables
    m = space.machine
    pgd: PageTable | None
    if m is None:
        pgd = space.stub(mm.levels)
    else:
        from mmcore.mm import page_alloc

        page = page_alloc.alloc_pages(m, GFP_PGTABLE_USER, pgd_allocation_order(m))
        pgd = None if page is None else space.new(page.pfn, mm.levels, page)
    if pgd is None:
        return None
    if m is not None and pti_enabled(m):
        pgd.shadow = space.new(pgd.pfn + 1, mm.levels)
    mm.pgd = pgd
    if m is not None:
        pgd_ctor(m, mm, pgd)
    return pgd


def pgd_ctor(m: Machine, mm: MmStruct, pgd: PageTable) -> None:
    """Copy the kernel's upper 256 entries, so that every address space shares its tables.

    Mirrors arch/x86/mm/pgtable.c:pgd_ctor().
    """
    init_mm = m.init_mm
    if init_mm is not None:
        pgd[256:] = init_mm.pgd[256:]
        if pgd.shadow is not None and init_mm.pgd.shadow is not None:
            pgd.shadow[256:] = init_mm.pgd.shadow[256:]
    m.pgd_list.append(mm)


def pgd_free(mm: MmStruct, pgd: PageTable) -> None:
    """Free the top-level table.

    Mirrors arch/x86/mm/pgtable.c:pgd_free().
    """
    space = pgd.space
    m = space.machine
    if m is not None and mm in m.pgd_list:
        m.pgd_list.remove(mm)
    if pgd.shadow is not None:
        del space.tables[pgd.shadow.pfn]
    del space.tables[pgd.pfn]
    if pgd.page is None:
        space._free.append(pgd.pfn)
        return
    from mmcore.mm import page_alloc

    assert m is not None
    getattr(page_alloc, "__free_pages")(pgd.page, pgd_allocation_order(m))


def pgd_allocation_order(m: Machine) -> int:
    """Return PGD_ALLOCATION_ORDER, which is fixed when the kernel is built: 1, a pair of pages.

    Mirrors arch/x86/include/asm/pgalloc.h:PGD_ALLOCATION_ORDER().
    """
    return 1 if m.config.MITIGATION_PAGE_TABLE_ISOLATION else 0


def pti_enabled(m: Machine) -> bool:
    """Tell whether user space runs on tables of its own: the CPU has the Meltdown bug.

    Mirrors arch/x86/mm/pti.c:pti_check_boottime_disable().
    """
    return m.config.MITIGATION_PAGE_TABLE_ISOLATION and m.config.cpu_bug_meltdown


def set_pgd(pgdp: Ptep, pgd: int) -> None:
    """Store a top-level entry; page table isolation keeps the user's table in step.

    Mirrors arch/x86/include/asm/pgtable_64.h:native_set_pgd().
    """
    table, i = pgdp
    if table.shadow is not None:
        from mmcore.arch.x86 import mitigations

        pgd = mitigations.pti_set_user_pgtbl(pgdp, pgd)
    table[i] = pgd


def _populate(mm: MmStruct, entryp: Ptep, child: PageTable) -> None:
    """Point a non-leaf entry to @child."""
    table, i = entryp
    value = child.pfn << PAGE_SHIFT | _PAGE_TABLE
    if table is mm.pgd:
        set_pgd(entryp, value)
    else:
        table[i] = value


def _table_gfp(mm: MmStruct) -> int:
    m = mm.machine
    return GFP_PGTABLE_KERNEL if m is not None and m.init_mm is mm else GFP_PGTABLE_USER


def p4d_alloc(mm: MmStruct, pgd: Ptep, address: int) -> Ptep | None:
    """Return the P4D entry of @address, allocating its table; None when there is no memory.

    Mirrors include/linux/mm.h:p4d_alloc().
    """
    table, i = pgd
    if table.level == 5 and not table[i] & ~0x60:
        child = pagetable_alloc(mm.tables, _table_gfp(mm), 4, ctor=False)
        if child is None:
            return None
        _populate(mm, pgd, child)
    return p4d_offset(pgd, address)


def pud_alloc(mm: MmStruct, p4d: Ptep, address: int) -> Ptep | None:
    """Return the PUD entry of @address, allocating its table; None when there is no memory.

    Mirrors include/linux/mm.h:pud_alloc().
    """
    if not p4d[0][p4d[1]] & ~0x60:
        child = pagetable_alloc(mm.tables, _table_gfp(mm), 3)
        if child is None:
            return None
        mm.pgtables_bytes += PAGE_SIZE
        _populate(mm, p4d, child)
    return pud_offset(p4d, address)


def pmd_alloc(mm: MmStruct, pud: Ptep, address: int) -> Ptep | None:
    """Return the PMD entry of @address, allocating its table; None when there is no memory.

    Mirrors include/linux/mm.h:pmd_alloc().
    """
    if not pud[0][pud[1]] & ~0x60:
        child = pagetable_alloc(mm.tables, _table_gfp(mm), 2)
        if child is None:
            return None
        mm.pgtables_bytes += PAGE_SIZE
        _populate(mm, pud, child)
    return pmd_offset(pud, address)


def pte_alloc_one(mm: MmStruct) -> PageTable | None:
    """Allocate a table of PTEs that nothing points to yet.

    Mirrors arch/x86/mm/pgtable.c:pte_alloc_one().
    """
    return pagetable_alloc(mm.tables, _table_gfp(mm), 1)


def pte_free(mm: MmStruct, table: PageTable) -> None:
    """Free a table of PTEs that was not used.

    Mirrors include/asm-generic/pgalloc.h:pte_free().
    """
    pagetable_free(table)


def mm_inc_nr_ptes(mm: MmStruct) -> None:
    """Count one more table of PTEs.

    Mirrors include/linux/mm.h:mm_inc_nr_ptes().
    """
    mm.pgtables_bytes += PAGE_SIZE


def mm_dec_nr_ptes(mm: MmStruct) -> None:
    """Count one table of PTEs less.

    Mirrors include/linux/mm.h:mm_dec_nr_ptes().
    """
    mm.pgtables_bytes -= PAGE_SIZE


def pmd_install(mm: MmStruct, pmd: Ptep, table: PageTable) -> bool:
    """Point an empty PMD to @table and count it; False if the PMD is not empty any more.

    Mirrors mm/memory.c:pmd_install().
    """
    if pmd[0][pmd[1]] & ~0x60:
        return False
    mm_inc_nr_ptes(mm)
    _populate(mm, pmd, table)
    return True


def pte_alloc(mm: MmStruct, pmd: Ptep) -> bool:
    """Make sure that @pmd points to a table; True if there is no memory for it.

    Mirrors include/linux/mm.h:pte_alloc().
    """
    if pmd[0][pmd[1]] & ~0x60:
        return False
    table = pte_alloc_one(mm)
    if table is None:
        return True
    if not pmd_install(mm, pmd, table):
        pte_free(mm, table)
    return False


# --- walking ----------------------------------------------------------------------------------

_WALK4 = ((4, 39), (3, 30), (2, 21), (1, 12))
_WALK5 = ((5, 48), *_WALK4)
_SHIFTS4 = (39, 30, 21)
_SHIFTS5 = (48, *_SHIFTS4)


def walk(mm: MmStruct, address: int) -> list[tuple[int, int, int]]:
    """Follow @address down the tables as the hardware does.

    :return: (level, index, entry) from the top level to the leaf, or to the entry that ends the
        walk; level 1 is the PTE
    :raises UsageError: if the address is not canonical
    """
    if address >> 47:
        check_address(address, mm.levels)
    table = mm.pgd
    tables = mm.tables.tables
    steps = []
    for level, shift in _WALK4 if mm.levels == 4 else _WALK5:
        index = address >> shift & 511
        entry = table[index]
        steps.append((level, index, entry))
        if not entry & 1 or level == 1 or (entry & 128 and level < 4):
            break
        table = tables[(entry & 0xFFFFFFFFFF000) >> 12]
    return steps


def lookup_address(mm: MmStruct, address: int) -> tuple[Ptep | None, int]:
    """Return a pointer to the leaf entry of @address and its level; (None, 0) if a table is missing.

    The PTE may be empty. An entry above it that is neither empty nor present ends the search too.

    Simplified: the rights of the levels together are not returned.

    Mirrors arch/x86/mm/pat/set_memory.c:lookup_address_in_pgd().
    """
    if address >> 47:
        check_address(address, mm.levels)
    table = mm.pgd
    tables = mm.tables.tables
    for level, shift in _WALK4 if mm.levels == 4 else _WALK5:
        index = address >> shift & 511
        entry = table[index]
        if level == 1 or (entry & 128 and level < 4):
            return (table, index), level
        if not entry & 1:
            return (None, 0) if pte_none(entry) else ((table, index), level)
        table = tables[(entry & 0xFFFFFFFFFF000) >> 12]
    return None, 0


def translate(mm: MmStruct, address: int) -> int | None:
    """Return the physical address that @address maps to, or None; rights do not matter."""
    ptep, level = lookup_address(mm, address)
    if ptep is None:
        return None
    entry = ptep[0][ptep[1]]
    if not entry & (_PAGE_PRESENT | _PAGE_PROTNONE):
        return None
    pfn = leaf_pfn(entry, level)
    return (pfn << PAGE_SHIFT) + (address & (1 << LEVEL_SHIFT[level]) - 1)


def leaf_pfn(entry: int, level: int) -> int:
    """Return the pfn that a leaf entry of @level maps."""
    return (pte_pfn, pmd_pfn, pud_pfn)[level - 1](entry)


# --- mapping ----------------------------------------------------------------------------------


def _descend(mm: MmStruct, address: int, level: int) -> Ptep | None:
    """Return a pointer to the entry of @address at @level, allocating the tables above it.

    A larger leaf on the way is split. None when there is no memory.
    """
    table = mm.pgd
    tables = mm.tables.tables
    lvl = mm.levels
    while lvl > level:
        i = address >> LEVEL_SHIFT[lvl] & 511
        entry = table[i]
        if not entry & ~0x60:
            kernel_pte = lvl == 2 and _table_gfp(mm) == GFP_PGTABLE_KERNEL  # pte_alloc_one_kernel()
            ctor = lvl < 5 and not kernel_pte
            child = pagetable_alloc(mm.tables, _table_gfp(mm), lvl - 1, ctor=ctor)
            if child is None:
                return None
            if lvl < 5:
                mm.pgtables_bytes += PAGE_SIZE
            entry = child.pfn << PAGE_SHIFT | _PAGE_TABLE
            if table.shadow is not None:
                set_pgd((table, i), entry)
            else:
                table[i] = entry
            table = child
        else:
            if entry & _PAGE_PSE:
                if split_leaf(mm, (table, i), lvl, address) is None:
                    return None
                entry = table[i]
            table = tables[(entry & 0xFFFFFFFFFF000) >> 12]
        lvl -= 1
    return table, address >> LEVEL_SHIFT[level] & 511


def split_leaf(mm: MmStruct, entryp: Ptep, level: int, address: int) -> PageTable | None:
    """Replace a 2 MiB or 1 GiB leaf by a table of 512 smaller leaves with the same rights.

    Of the kernel's leaves, as here, those of the direct map are counted; the tables of others are
    made likewise, for the raw operations of this file.

    Returns the new table, None when there is no memory.

    Mirrors arch/x86/mm/pat/set_memory.c:__split_large_page().
    """
    table, i = entryp
    entry = table[i]
    m = mm.machine
    kernel = m is not None and m.init_mm is mm
    child = pagetable_alloc(mm.tables, _table_gfp(mm), level - 1, ctor=not kernel)
    if child is None:
        return None
    prot = entry & ~PTE_PFN_MASK & ~_PAGE_PSE | entry & 1 << 12
    pfn = leaf_pfn(entry, level)
    if level == 2:
        small, step = pfn_pte(pfn, pgprot_large_2_4k(prot)), PAGE_SIZE
    else:
        small, step = pfn_pmd(pfn, prot | (_PAGE_PSE if entry & _PAGE_PRESENT else 0)), 1 << 21
    if not entry & _PAGE_PRESENT:
        step = -step
    for n in range(512):
        child[n] = small
        small += step
    mm.pgtables_bytes += PAGE_SIZE
    table[i] = child.pfn << PAGE_SHIFT | (_KERNPG_TABLE if kernel else _PAGE_TABLE)
    if m is not None and kernel:
        _split_page_count(m, level, address, pfn)
        from mmcore.arch.x86 import tlb

        tlb.flush_tlb_kernel_range(m, 0, tlb.TLB_FLUSH_ALL)  # flush_tlb_all()
    return child


def _split_page_count(m: Machine, level: int, address: int, pfn: int) -> None:
    """Move a leaf of the direct map from its size to the next smaller one: split_page_count()."""
    if (
        address - m.page_offset_base >> LEVEL_SHIFT[level]
        != pfn << PAGE_SHIFT >> LEVEL_SHIFT[level]
    ):
        return
    if not m.direct_pages_count[level - 1]:
        return
    m.direct_pages_count[level - 1] -= 1
    m.direct_pages_count[level - 2] += 512
    m.vm_event[DIRECT_MAP_LEVEL2_SPLIT if level == 2 else DIRECT_MAP_LEVEL3_SPLIT] += 1
    k4, m2, g1 = m.direct_pages_count
    m.sysinfo.direct_kb = (k4 << 2, m2 << 11, g1 << 20)


def _check_range(mm: MmStruct, address: int, nr_pages: int, align: int) -> None:
    """Refuse a range that is empty, unaligned, not canonical or crosses into the hole."""
    if not isinstance(nr_pages, int) or nr_pages < 1:
        raise UsageError(f"nr_pages is {nr_pages!r}; a range has at least one page")
    check_address(address, mm.levels)
    if address & (align - 1):
        raise UsageError(f"address {address:#x} is not a multiple of {align:#x}")
    check_address(address + (nr_pages << PAGE_SHIFT) - 1, mm.levels)
    if (address ^ (address + (nr_pages << PAGE_SHIFT) - 1)) >> 63:
        raise UsageError(f"{nr_pages} pages from {address:#x} cross from user to kernel addresses")


def map_range(
    mm: MmStruct, address: int, pfn: int, nr_pages: int, prot: int, level: int = 1
) -> bool:
    """Map @nr_pages from page frame @pfn at @address with leaves of @level (1: 4 KiB, 2: 2 MiB ...).

    :param prot: protection bits as `vm_get_page_prot()` gives them
    :return: False when there was no memory for a table (what was mapped stays)
    :raises UsageError: if address, pfn or count is not a multiple of the leaf size
    :raises KernelBug: if an entry is not empty

    The raw operation: no VMA, no reference or map count.
    """
    size = 1 << (LEVEL_SHIFT[level] - PAGE_SHIFT) if 1 <= level <= 3 else 0
    if not size:
        raise UsageError(f"level is {level}; leaves are 1 (4 KiB), 2 (2 MiB) or 3 (1 GiB)")
    if (
        address >> 47
        or nr_pages < 1
        or address & 4095
        or size > 1
        or (address + (nr_pages << PAGE_SHIFT) - 1) >> 47
    ):
        _check_range(mm, address, nr_pages, size << PAGE_SHIFT)
    if not 0 <= pfn < 1 << 40 or pfn & (size - 1) or nr_pages & (size - 1):
        raise UsageError(f"pfn {pfn:#x} or nr_pages {nr_pages} does not fit leaves of {size} pages")
    if level == 1:
        entry, step = pfn_pte(pfn, prot), PAGE_SIZE
    else:
        make = pfn_pmd if level == 2 else pfn_pud
        entry, step = make(pfn, pgprot_4k_2_large(prot) | _PAGE_PSE), size << PAGE_SHIFT
    if not entry & _PAGE_PRESENT:
        step = -step
    left = nr_pages // size
    while left:
        ptep = _descend(mm, address, level)
        if ptep is None:
            return False
        table, i = ptep
        n = 512 - i if left > 512 - i else left
        for j in range(i, i + n):
            if table[j]:
                raise KernelBug(f"entry {j} of {table!r} is not empty: {table[j]:016x}")
            table[j] = entry
            entry += step
        left -= n
        address += n << LEVEL_SHIFT[level]
    return True


def map_page(mm: MmStruct, address: int, pfn: int, prot: int) -> bool:
    """Map one 4 KiB page: `map_range()` for a single page, without its checks of large leaves.

    :return: False when there was no memory for a table
    :raises KernelBug: if the entry is not empty
    """
    if address >> 47 or address & 4095:
        _check_range(mm, address, 1, PAGE_SIZE)
    table = mm.pgd
    tables = mm.tables.tables
    for shift in _SHIFTS4 if mm.levels == 4 else _SHIFTS5:
        entry = table[address >> shift & 511]
        if entry & 129 != 1:  # no table there, or a large page
            return map_range(mm, address, pfn, 1, prot)
        table = tables[(entry & 0xFFFFFFFFFF000) >> 12]
    i = address >> 12 & 511
    if table[i]:
        raise KernelBug(f"entry {i} of {table!r} is not empty: {table[i]:016x}")
    table[i] = pfn << 12 | prot if prot & 1 and 0 <= pfn < 1 << 40 else pfn_pte(pfn, prot)
    return True


def _leaves(mm: MmStruct, address: int, nr_pages: int) -> Any:
    """Yield (table, first index, end index, level) of the leaf entries in a range.

    A large leaf that sticks out of the range is split first (None when there is no memory).
    """
    end = address + (nr_pages << PAGE_SHIFT)
    while address < end:
        table, lvl = mm.pgd, mm.levels
        while True:
            shift = LEVEL_SHIFT[lvl]
            i = address >> shift & 511
            entry = table[i]
            if lvl == 1:
                n = min(512 - i, (end - address) >> PAGE_SHIFT)
                yield table, i, i + n, 1
                address += n << PAGE_SHIFT
                break
            if (not entry & (_PAGE_PRESENT | _PAGE_PSE) and lvl > 3) or pte_none(entry):
                address = (address >> shift) + 1 << shift
                break
            if entry & _PAGE_PSE and lvl < 4:
                if not address & (1 << shift) - 1 and address + (1 << shift) <= end:
                    yield table, i, i + 1, lvl
                    address += 1 << shift
                    break
                if split_leaf(mm, (table, i), lvl, address) is None:
                    yield None
                    return
                entry = table[i]
            elif not entry & _PAGE_PRESENT:
                address = (address >> shift) + 1 << shift
                break
            table = table.space.tables[(entry & PTE_PFN_MASK) >> PAGE_SHIFT]
            lvl -= 1


def unmap_range(mm: MmStruct, address: int, nr_pages: int) -> int:
    """Empty the entries of @nr_pages from @address; the tables stay.

    Large leaves that stick out of the range are split.

    :return: how many 4 KiB pages were mapped there; -ENOMEM if a split found no memory
    """
    _check_range(mm, address, nr_pages, PAGE_SIZE)
    pages = 0
    for found in _leaves(mm, address, nr_pages):
        if found is None:
            return -12
        table, first, last, level = found
        for i in range(first, last):
            if table[i]:
                pages += 1 << (LEVEL_SHIFT[level] - PAGE_SHIFT)
                table[i] = 0
    return pages


def protect_range(mm: MmStruct, address: int, nr_pages: int, prot: int) -> int:
    """Give the mapped pages in a range the protection @prot, as ``pte_modify()`` does.

    :return: how many 4 KiB pages changed; -ENOMEM if a split found no memory
    """
    _check_range(mm, address, nr_pages, PAGE_SIZE)
    pages = 0
    for found in _leaves(mm, address, nr_pages):
        if found is None:
            return -12
        table, first, last, level = found
        for i in range(first, last):
            old = table[i]
            if not old & (_PAGE_PRESENT | _PAGE_PROTNONE):
                continue
            new = pte_modify(old, prot) if level == 1 else pmd_modify(old, prot)
            if new != old:
                pages += 1 << (LEVEL_SHIFT[level] - PAGE_SHIFT)
                table[i] = new
    return pages


# --- dumps ------------------------------------------------------------------------------------


def iter_leaves(mm: MmStruct, start: int = 0, end: int = 1 << 64) -> Any:
    """Yield (address, level, entry) of every entry that is not empty in the lowest tables.

    In address order; addresses are canonical. Includes swap entries and markers.
    """
    yield from _iter_table(mm.pgd, mm.levels, 0, mm, start, end)


def _canonical(address: int, levels: int) -> int:
    shift = virtual_mask_shift(levels)
    return address | (ULONG_MAX >> shift << shift) if address >> shift & 1 else address


def _iter_table(table: PageTable, level: int, base: int, mm: MmStruct, start: int, end: int) -> Any:
    shift = LEVEL_SHIFT[level]
    for i, entry in enumerate(table):
        if not entry:
            continue
        address = _canonical(base + (i << shift), mm.levels)
        if address + (1 << shift) <= start or address >= end:
            continue
        leaf = level == 1 or (entry & _PAGE_PSE and level < 4) or not entry & _PAGE_PRESENT
        if leaf:
            yield address, level, entry
        else:
            child = table.space.tables[(entry & PTE_PFN_MASK) >> PAGE_SHIFT]
            yield from _iter_table(child, level - 1, base + (i << shift), mm, start, end)


def iter_tables(mm: MmStruct, *, user: bool = True) -> Any:
    """Yield (table, level, base address) of the tables of @mm below the PGD, top first.

    :param user: only the lower half, which is the address space's own
    """
    stack: list[tuple[PageTable, int, int]] = [(mm.pgd, mm.levels, 0)]
    while stack:
        table, level, base = stack.pop()
        if table is not mm.pgd:
            yield table, level, base
        if level == 1:
            continue
        last = 256 if table is mm.pgd and user else 512
        for i in range(last - 1, -1, -1):
            entry = table[i]
            if entry & _PAGE_PRESENT and not (entry & _PAGE_PSE and level < 4):
                child = table.space.tables[(entry & PTE_PFN_MASK) >> PAGE_SHIFT]
                stack.append((child, level - 1, base + (i << LEVEL_SHIFT[level])))


def validate_pgtables(mm: MmStruct) -> None:
    """Check everything that must hold between the tables of @mm and its counters.

    No table is reached twice; levels fit; PTE, PMD and PUD tables (with the deposited ones) times
    4096 are ``pgtables_bytes``; large leaves are aligned; no entry is read-only and dirty outside a
    shadow stack; no page table lock is held.

    :raises KernelBug: naming what is wrong
    """
    seen: dict[int, int] = {}
    counted = 0
    for table, level, base in iter_tables(mm):
        if table.pfn in seen:
            raise KernelBug(f"{table!r} is reached from {seen[table.pfn]:#x} and {base:#x}")
        seen[table.pfn] = base
        if table.level != level:
            raise KernelBug(f"{table!r} is used as a level {level} table")
        counted += level < 4
        for i, entry in enumerate(table):
            if not entry & _PAGE_PRESENT:
                continue
            if entry & 0x42 == 0x40 and (level == 1 or (entry & _PAGE_PSE and level < 4)):
                raise KernelBug(f"entry {i} of {table!r} is read-only and dirty: {entry:016x}")
            if level in (2, 3) and entry & _PAGE_PSE:
                low = entry & ((1 << LEVEL_SHIFT[level]) - (1 << 13))
                if low:
                    raise KernelBug(f"entry {i} of {table!r}: large page not aligned: {entry:016x}")
    deposited = sum(len(v) for v in mm.pmd_huge_pte.values())
    if (counted + deposited) * PAGE_SIZE != mm.pgtables_bytes:
        raise KernelBug(
            f"{counted} tables in the tree and {deposited} deposited, but pgtables_bytes is "
            f"{mm.pgtables_bytes}"
        )
    if mm.ptl:
        raise KernelBug(f"page table locks held: {[hex(p) for p in mm.ptl]}")


__all__ = [
    "GFP_PGTABLE_KERNEL",
    "GFP_PGTABLE_USER",
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
    "PageTable",
    "PhysTables",
    "PteInfo",
    "Ptep",
    "STUB_PFN_BASE",
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
    "check_address",
    "clear_saveddirty_shift",
    "decode_pte",
    "flip_protnone_guard",
    "iter_leaves",
    "iter_tables",
    "leaf_pfn",
    "lookup_address",
    "map_page",
    "map_range",
    "mksaveddirty_shift",
    "mm_dec_nr_ptes",
    "mm_inc_nr_ptes",
    "p4d_alloc",
    "p4d_index",
    "p4d_offset",
    "pagetable_alloc",
    "pagetable_free",
    "pfn_pmd",
    "pfn_pte",
    "pfn_pud",
    "pgd_alloc",
    "pgd_ctor",
    "pgd_free",
    "pgd_index",
    "pgd_offset",
    "pgd_offset_pgd",
    "pgdir_shift",
    "pgprot_4k_2_large",
    "pgprot_large_2_4k",
    "pgtable_levels",
    "pmd_alloc",
    "pmd_index",
    "pmd_install",
    "pmd_leaf",
    "pmd_modify",
    "pmd_none",
    "pmd_offset",
    "pmd_pfn",
    "pmd_present",
    "pmd_trans_huge",
    "protect_range",
    "protection_map",
    "protnone_mask",
    "pte_advance_pfn",
    "pte_alloc",
    "pte_alloc_one",
    "pte_clear_soft_dirty",
    "pte_clear_uffd_wp",
    "pte_dirty",
    "pte_exec",
    "pte_flags",
    "pte_free",
    "pte_index",
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
    "pte_offset_kernel",
    "pte_offset_map",
    "pte_offset_map_lock",
    "pte_offset_map_nolock",
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
    "pte_unmap_unlock",
    "pte_write",
    "pte_wrprotect",
    "pte_young",
    "ptep_get",
    "ptep_get_and_clear",
    "ptep_set_wrprotect",
    "pti_enabled",
    "pud_alloc",
    "pud_index",
    "pud_offset",
    "pud_pfn",
    "set_pgd",
    "set_pte",
    "set_ptes",
    "spin_lock_ptl",
    "split_leaf",
    "table_indices",
    "task_size_max",
    "translate",
    "unmap_range",
    "validate_pgtables",
    "virtual_mask_shift",
    "vm_get_page_prot",
    "walk",
]
