"""Page flags, page types and the layout of ``page->flags``.

Mirrors include/linux/page-flags.h and include/linux/page-flags-layout.h for the reference
configuration: x86-64, SPARSEMEM_VMEMMAP, MEMORY_FAILURE, PAGE_IDLE_FLAG, ARCH_USES_PG_ARCH_2.

In the model a page's `flags` holds the PG_ bits and the LRU fields; its node and zone are found by
`Page.zone`. `page_flags_word()` puts the whole word together as the kernel lays it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcore.mm.mm_types import Page

#: enum pageflags in order: the index is the bit.
PAGEFLAG_NAMES: tuple[str, ...] = (
    "locked",
    "writeback",
    "referenced",
    "uptodate",
    "dirty",
    "lru",
    "head",
    "waiters",
    "active",
    "workingset",
    "owner_priv_1",
    "owner_2",
    "arch_1",
    "reserved",
    "private",
    "private_2",
    "reclaim",
    "swapbacked",
    "unevictable",
    "mlocked",
    "hwpoison",
    "young",
    "idle",
    "arch_2",
)
NR_PAGEFLAGS = len(PAGEFLAG_NAMES)

(
    PG_locked,
    PG_writeback,
    PG_referenced,
    PG_uptodate,
    PG_dirty,
    PG_lru,
    PG_head,
    PG_waiters,
    PG_active,
    PG_workingset,
    PG_owner_priv_1,
    PG_owner_2,
    PG_arch_1,
    PG_reserved,
    PG_private,
    PG_private_2,
    PG_reclaim,
    PG_swapbacked,
    PG_unevictable,
    PG_mlocked,
    PG_hwpoison,
    PG_young,
    PG_idle,
    PG_arch_2,
) = range(NR_PAGEFLAGS)

# One bit, several meanings: which one depends on what the page is.
PG_readahead = PG_reclaim
PG_swapcache = PG_owner_priv_1
PG_checked = PG_owner_priv_1
PG_anon_exclusive = PG_owner_2
PG_mappedtodisk = PG_owner_2
PG_fscache = PG_private_2
PG_isolated = PG_reclaim
PG_reported = PG_uptodate
PG_has_hwpoisoned = PG_active
PG_large_rmappable = PG_workingset
PG_partially_mapped = PG_reclaim

PAGEFLAGS_MASK = (1 << NR_PAGEFLAGS) - 1

# enum pagetype: the top byte of page_type, the word that _mapcount shares.
PGTY_buddy = 0xF0
PGTY_offline = 0xF1
PGTY_table = 0xF2
PGTY_guard = 0xF3
PGTY_hugetlb = 0xF4
PGTY_slab = 0xF5
PGTY_zsmalloc = 0xF6
PGTY_unaccepted = 0xF7
PGTY_mapcount_underflow = 0xFF
PAGE_TYPE_NAMES: dict[int, str] = {
    PGTY_buddy: "buddy",
    PGTY_offline: "offline",
    PGTY_table: "table",
    PGTY_guard: "guard",
    PGTY_hugetlb: "hugetlb",
    PGTY_slab: "slab",
    PGTY_zsmalloc: "zsmalloc",
    PGTY_unaccepted: "unaccepted",
}

#: The page_type word of a free block's first page, compared in the allocator's hot paths.
PAGE_TYPE_BUDDY = PGTY_buddy << 24

# include/linux/page-flags-layout.h, from the top of the 64-bit word: node, zone, last_cpupid,
# LRU generation, LRU references, then unused bits, then the PG_ bits.
NODES_WIDTH = 10
ZONES_WIDTH = 3
LAST_CPUPID_SHIFT = 8 + 13
LRU_GEN_WIDTH = 3
LRU_REFS_WIDTH = 2
NODES_PGSHIFT = 64 - NODES_WIDTH
ZONES_PGSHIFT = NODES_PGSHIFT - ZONES_WIDTH
LAST_CPUPID_PGSHIFT = ZONES_PGSHIFT - LAST_CPUPID_SHIFT
LRU_GEN_PGOFF = LAST_CPUPID_PGSHIFT - LRU_GEN_WIDTH
LRU_REFS_PGOFF = LRU_GEN_PGOFF - LRU_REFS_WIDTH
LRU_GEN_MASK = ((1 << LRU_GEN_WIDTH) - 1) << LRU_GEN_PGOFF
LRU_REFS_MASK = ((1 << LRU_REFS_WIDTH) - 1) << LRU_REFS_PGOFF

#: mm/page_alloc.c: set on a page when it is prepared for a user, these must be clear.
PAGE_FLAGS_CHECK_AT_PREP = PAGEFLAGS_MASK & ~(1 << PG_hwpoison) | LRU_GEN_MASK | LRU_REFS_MASK
PAGE_FLAGS_CHECK_AT_FREE = (
    1 << PG_lru
    | 1 << PG_locked
    | 1 << PG_private
    | 1 << PG_private_2
    | 1 << PG_writeback
    | 1 << PG_reserved
    | 1 << PG_active
    | 1 << PG_unevictable
    | 1 << PG_mlocked
    | LRU_GEN_MASK
)


def PageBuddy(page: Page) -> bool:
    """Tell whether @page is the first page of a free block.

    Mirrors include/linux/page-flags.h:PAGE_TYPE_OPS().
    """
    return page.page_type == PAGE_TYPE_BUDDY


def page_type_name(page_type: int) -> str:
    """Return the name of a ``page_type`` word: ``"buddy"``, ``"slab"`` ..., or ``""`` for none."""
    return PAGE_TYPE_NAMES.get(page_type >> 24 & 0xFF, "") if page_type >= 0 else ""


def page_flags_word(page: Page) -> int:
    """Return the whole ``page->flags`` word as the kernel lays it out.

    Simplified: last_cpupid is the value meaning "none" (all ones).

    Mirrors include/linux/mm.h:set_page_links().
    """
    zone = page.zone
    none = (1 << LAST_CPUPID_SHIFT) - 1
    word = zone.node << NODES_PGSHIFT | zone.zone_idx << ZONES_PGSHIFT
    bits = PAGEFLAGS_MASK | LRU_GEN_MASK | LRU_REFS_MASK
    return word | none << LAST_CPUPID_PGSHIFT | page.flags & bits


def flags_str(flags: int) -> str:
    """Return the PG_ bits of @flags as the kernel's trace output names them, joined by ``|``."""
    names = [name for bit, name in enumerate(PAGEFLAG_NAMES) if flags >> bit & 1]
    return "|".join(names) or "none"


__all__ = [
    "PageBuddy",
    "flags_str",
    "page_flags_word",
    "page_type_name",
    *[n for n in globals() if n.startswith(("PG_", "PGTY_", "PAGE", "NR_PAGEFLAGS", "LRU_"))],
    "LAST_CPUPID_PGSHIFT",
    "LAST_CPUPID_SHIFT",
    "NODES_PGSHIFT",
    "NODES_WIDTH",
    "ZONES_PGSHIFT",
    "ZONES_WIDTH",
]
