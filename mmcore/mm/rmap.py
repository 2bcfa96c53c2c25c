"""Map counts: how often a page is mapped, and whether an anonymous page belongs to one process.

Mirrors the counting side of mm/rmap.c and include/linux/rmap.h.

Simplified: an anonymous page's ``mapping`` is its `AnonVma` object itself; there are no chains and no
walks from a page to its mappings (chapter 5), no mlock and no deferred split queue.
"""

from __future__ import annotations

from mmcore.errors import EBUSY, KernelBug
from mmcore.mm.mm import VM_DROPPABLE, AnonVma, VmAreaStruct, linear_page_index
from mmcore.mm.mm_types import Folio, Page, folio_nr_pages
from mmcore.mm.page_flags import PG_anon_exclusive, PG_swapbacked
from mmcore.mm.vmstat import (
    NR_ANON_MAPPED,
    NR_ANON_THPS,
    NR_FILE_MAPPED,
    NR_FILE_PMDMAPPED,
    NR_SHMEM_PMDMAPPED,
)

__all__ = [
    "ENTIRELY_MAPPED",
    "FOLIO_PAGES_MAPPED",
    "RMAP_EXCLUSIVE",
    "RMAP_NONE",
    "ClearPageAnonExclusive",
    "PageAnonExclusive",
    "SetPageAnonExclusive",
    "folio_add_anon_rmap_ptes",
    "folio_add_file_rmap_ptes",
    "folio_add_new_anon_rmap",
    "folio_dup_file_rmap_pte",
    "folio_mapcount",
    "folio_maybe_dma_pinned",
    "folio_move_anon_rmap",
    "folio_remove_rmap_pmd",
    "folio_remove_rmap_ptes",
    "folio_test_anon",
    "folio_try_dup_anon_rmap_ptes",
    "page_mapcount",
]

# mm/internal.h
ENTIRELY_MAPPED = 0x800000
FOLIO_PAGES_MAPPED = ENTIRELY_MAPPED - 1
# include/linux/rmap.h: rmap_t
RMAP_NONE = 0
RMAP_EXCLUSIVE = 1

_EXCLUSIVE = 1 << PG_anon_exclusive
GUP_PIN_COUNTING_BIAS = 1024


def PageAnonExclusive(page: Page) -> bool:
    """Tell whether an anonymous page is certainly mapped by one process only.

    Mirrors include/linux/page-flags.h:PageAnonExclusive().
    """
    return page.flags & _EXCLUSIVE != 0


def SetPageAnonExclusive(page: Page) -> None:
    """Mark an anonymous page as one process's own.

    Mirrors include/linux/page-flags.h:SetPageAnonExclusive().
    """
    page.flags |= _EXCLUSIVE


def ClearPageAnonExclusive(page: Page) -> None:
    """Mark an anonymous page as one that may be shared.

    Mirrors include/linux/page-flags.h:ClearPageAnonExclusive().
    """
    page.flags &= ~_EXCLUSIVE


def folio_test_anon(folio: Folio) -> bool:
    """Tell whether @folio is anonymous memory.

    Mirrors include/linux/page-flags.h:folio_test_anon().
    """
    return isinstance(folio.mapping, AnonVma)


def page_mapcount(page: Page) -> int:
    """Return how often @page itself is mapped, by PTEs and as a part of a large mapping.

    Mirrors fs/proc/internal.h:folio_precise_page_mapcount().
    """
    head = page.next if page.prev is None and page.next is not None else page
    count = page._mapcount + 1
    if head.folio is not None:
        count += head.folio._entire_mapcount + 1
    return count


def folio_mapcount(folio: Folio) -> int:
    """Return how many mappings of any of the folio's pages there are.

    Mirrors include/linux/mm.h:folio_mapcount().
    """
    if folio.folio is None:
        return folio._mapcount + 1
    return folio.folio._large_mapcount + 1


def _mod_stat(folio: Folio, nr: int, nr_pmdmapped: int) -> None:
    """Count mapped pages of a node (``__folio_mod_stat()``)."""
    stat = folio.zone.zone_pgdat.vm_stat
    anon = isinstance(folio.mapping, AnonVma)
    if nr:
        stat[NR_ANON_MAPPED if anon else NR_FILE_MAPPED] += nr
    if nr_pmdmapped:
        if anon:
            stat[NR_ANON_THPS] += nr_pmdmapped
        elif folio.flags >> PG_swapbacked & 1:
            stat[NR_SHMEM_PMDMAPPED] += nr_pmdmapped
        else:
            stat[NR_FILE_PMDMAPPED] += nr_pmdmapped


def _subpages(page: Page, nr_pages: int) -> list[Page]:
    """Return @nr_pages pages from @page on, making the objects of tails that have none yet."""
    if nr_pages == 1:
        return [page]
    from mmcore.mm.mm_types import pfn_to_page

    m = page.zone.machine
    return [page, *(pfn_to_page(m, page.pfn + i) for i in range(1, nr_pages))]


def folio_add_new_anon_rmap(folio: Folio, vma: VmAreaStruct, address: int, flags: int) -> None:
    """Count the first mapping of a new anonymous folio, and tie it to @vma's anon_vma.

    Mirrors mm/rmap.c:folio_add_new_anon_rmap().
    """
    nr = folio_nr_pages(folio)
    if address < vma.vm_start or address + (nr << 12) > vma.vm_end:
        raise KernelBug(f"folio of {nr} pages at {address:#x} sticks out of {vma!r}")
    if vma.anon_vma is None:
        raise KernelBug(f"{vma!r} has no anon_vma")
    if not vma.vm_flags & VM_DROPPABLE:
        folio.flags |= 1 << PG_swapbacked
    folio.mapping = vma.anon_vma
    folio.index = linear_page_index(vma, address)
    exclusive = flags & RMAP_EXCLUSIVE
    large = folio.folio
    nr_pmdmapped = 0
    if large is None:
        folio._mapcount = 0  # type: ignore[misc]
        if exclusive:
            folio.flags |= _EXCLUSIVE
    elif nr < 512:
        for page in _subpages(folio, nr):
            page._mapcount = 0  # type: ignore[misc]
            if exclusive:
                page.flags |= _EXCLUSIVE
        large._large_mapcount = nr - 1
        large._nr_pages_mapped = nr
    else:
        large._entire_mapcount = 0
        large._large_mapcount = 0
        large._nr_pages_mapped = ENTIRELY_MAPPED
        if exclusive:
            folio.flags |= _EXCLUSIVE
        nr_pmdmapped = nr
    _mod_stat(folio, nr, nr_pmdmapped)


def _add_ptes(folio: Folio, page: Page, nr_pages: int) -> int:
    """Count @nr_pages more PTE mappings; return how many pages became mapped (``__folio_add_rmap``)."""
    large = folio.folio
    if large is None:
        folio._mapcount += 1  # type: ignore[misc]
        return 1 if folio._mapcount == 0 else 0
    first = 0
    for p in _subpages(page, nr_pages):
        p._mapcount += 1  # type: ignore[misc]
        first += p._mapcount == 0
    large._large_mapcount += nr_pages
    if first:
        large._nr_pages_mapped += first
        if large._nr_pages_mapped >= ENTIRELY_MAPPED:
            return 0
    return first


def folio_add_file_rmap_ptes(folio: Folio, page: Page, nr_pages: int, vma: VmAreaStruct) -> None:
    """Count PTE mappings of a page cache folio.

    Mirrors mm/rmap.c:folio_add_file_rmap_ptes().
    """
    _mod_stat(folio, _add_ptes(folio, page, nr_pages), 0)


def folio_add_anon_rmap_ptes(
    folio: Folio, page: Page, nr_pages: int, vma: VmAreaStruct, address: int, flags: int
) -> None:
    """Count PTE mappings of an anonymous folio that exists already.

    Mirrors mm/rmap.c:folio_add_anon_rmap_ptes().
    """
    nr = _add_ptes(folio, page, nr_pages)
    _mod_stat(folio, nr, 0)
    if flags & RMAP_EXCLUSIVE:
        for p in _subpages(page, nr_pages):
            p.flags |= _EXCLUSIVE


def folio_dup_file_rmap_pte(folio: Folio, page: Page, nr_pages: int = 1) -> None:
    """Count the copies of PTE mappings that fork makes of a page cache folio.

    Mirrors include/linux/rmap.h:folio_dup_file_rmap_ptes().
    """
    for p in _subpages(page, nr_pages):
        p._mapcount += 1  # type: ignore[misc]
    if folio.folio is not None:
        folio.folio._large_mapcount += nr_pages


def folio_maybe_dma_pinned(folio: Folio) -> bool:
    """Tell whether somebody may have pinned @folio.

    Mirrors include/linux/mm.h:folio_maybe_dma_pinned().
    """
    if folio.folio is not None:
        return folio.folio._pincount > 0
    return folio._refcount >= GUP_PIN_COUNTING_BIAS


def folio_try_dup_anon_rmap_ptes(
    folio: Folio, page: Page, nr_pages: int, src_vma: VmAreaStruct
) -> int:
    """Count the copies that fork makes of anonymous mappings; the pages stop being exclusive.

    :return: 0, or -EBUSY if an exclusive page may be pinned: the child needs a copy now

    Mirrors include/linux/rmap.h:folio_try_dup_anon_rmap_ptes().
    """
    pages = _subpages(page, nr_pages)
    if folio_maybe_dma_pinned(folio) and any(p.flags & _EXCLUSIVE for p in pages):
        return -EBUSY
    for p in pages:
        p.flags &= ~_EXCLUSIVE
        p._mapcount += 1  # type: ignore[misc]
    if folio.folio is not None:
        folio.folio._large_mapcount += nr_pages
    return 0


def folio_remove_rmap_ptes(folio: Folio, page: Page, nr_pages: int, vma: VmAreaStruct) -> None:
    """Count @nr_pages PTE mappings less.

    Mirrors mm/rmap.c:folio_remove_rmap_ptes().
    """
    large = folio.folio
    if large is None:
        folio._mapcount -= 1  # type: ignore[misc]
        if folio._mapcount < -1:
            raise KernelBug(f"{folio!r} is unmapped more often than it was mapped")
        nr = int(folio._mapcount == -1)
    else:
        large._large_mapcount -= nr_pages
        last = 0
        for p in _subpages(page, nr_pages):
            p._mapcount -= 1  # type: ignore[misc]
            last += p._mapcount == -1
        nr = 0
        if last:
            large._nr_pages_mapped -= last
            if large._nr_pages_mapped < ENTIRELY_MAPPED:
                nr = last
    _mod_stat(folio, -nr, 0)


def folio_remove_rmap_pmd(folio: Folio, page: Page, vma: VmAreaStruct) -> None:
    """Count one mapping of the whole folio by a PMD less.

    Mirrors mm/rmap.c:folio_remove_rmap_pmd().
    """
    large = folio.folio
    if large is None:
        raise KernelBug(f"{folio!r} is not large enough for a PMD mapping")
    large._large_mapcount -= 1
    large._entire_mapcount -= 1
    nr: int = 0
    nr_pmdmapped: int = 0
    if large._entire_mapcount == -1:
        large._nr_pages_mapped -= ENTIRELY_MAPPED
        if large._nr_pages_mapped < ENTIRELY_MAPPED:
            nr_pmdmapped = large._folio_nr_pages
            nr = nr_pmdmapped - (large._nr_pages_mapped & FOLIO_PAGES_MAPPED)
    _mod_stat(folio, -nr, -nr_pmdmapped)


def folio_move_anon_rmap(folio: Folio, vma: VmAreaStruct) -> None:
    """Give @folio to @vma's anon_vma: only this process uses it now.

    Mirrors mm/rmap.c:folio_move_anon_rmap().
    """
    folio.mapping = vma.anon_vma
