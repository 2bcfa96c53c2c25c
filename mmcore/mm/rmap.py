"""Reverse mapping: from a page to the VMAs that may map it, and how often it is mapped.

Mirrors mm/rmap.c and include/linux/rmap.h.

Simplified: an anonymous page's ``mapping`` is its `AnonVma` object itself; locks of anon_vmas are left
out, because one task runs at a time; no mlock, no KSM and no deferred split queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mmcore.config import PAGE_SHIFT
from mmcore.errors import EBUSY, EFAULT, ENOMEM, KernelBug
from mmcore.mm.mm import (
    MM_ANONPAGES,
    MM_SWAPENTS,
    VM_DROPPABLE,
    VM_LOCKED,
    VM_RAND_READ,
    VM_SEQ_READ,
    AnonVma,
    AnonVmaChain,
    MmStruct,
    VmAreaStruct,
    add_mm_counter,
    linear_page_index,
    should_failslab,
    vma_pages,
)
from mmcore.mm.mm_types import Folio, Page, folio_nr_pages
from mmcore.mm.page_flags import PG_anon_exclusive, PG_dirty, PG_swapbacked
from mmcore.mm.vmstat import (
    NR_ANON_MAPPED,
    NR_ANON_THPS,
    NR_FILE_MAPPED,
    NR_FILE_PMDMAPPED,
    NR_SHMEM_PMDMAPPED,
)

if TYPE_CHECKING:
    from mmcore.mm.filemap import AddressSpace

__all__ = [
    "ENTIRELY_MAPPED",
    "FOLIO_PAGES_MAPPED",
    "RMAP_EXCLUSIVE",
    "RMAP_NONE",
    "ClearPageAnonExclusive",
    "PageAnonExclusive",
    "SetPageAnonExclusive",
    "anon_vma_alloc",
    "anon_vma_chain_alloc",
    "anon_vma_clone",
    "anon_vma_fork",
    "anon_vma_interval_tree_foreach",
    "anon_vma_interval_tree_insert",
    "anon_vma_interval_tree_remove",
    "anon_vma_merge",
    "anon_vma_prepare",
    "page_address_in_vma",
    "page_vma_mapped",
    "put_anon_vma",
    "rmap_walk",
    "rmap_walk_anon",
    "rmap_walk_file",
    "unlink_anon_vmas",
    "validate_anon_vmas",
    "vma_interval_tree_foreach",
    "folio_add_anon_rmap_ptes",
    "folio_add_file_rmap_ptes",
    "folio_add_new_anon_rmap",
    "folio_dup_file_rmap_pte",
    "folio_mapcount",
    "folio_maybe_dma_pinned",
    "folio_move_anon_rmap",
    "folio_referenced",
    "folio_remove_rmap_pmd",
    "folio_remove_rmap_ptes",
    "folio_test_anon",
    "folio_try_dup_anon_rmap_ptes",
    "page_mapcount",
    "try_to_unmap",
]

# mm/internal.h
ENTIRELY_MAPPED = 0x800000
FOLIO_PAGES_MAPPED = ENTIRELY_MAPPED - 1
# include/linux/rmap.h: rmap_t
RMAP_NONE = 0
RMAP_EXCLUSIVE = 1

_EXCLUSIVE = 1 << PG_anon_exclusive
GUP_PIN_COUNTING_BIAS = 1024


# --- anon_vma: which VMAs may map a page ------------------------------------------------------


def anon_vma_alloc(mm: MmStruct) -> AnonVma | None:
    """Make an anon_vma that is its own root and parent; None when there is no memory.

    :param mm: whose allocation it is

    Mirrors mm/rmap.c:anon_vma_alloc().
    """
    if should_failslab(mm.sys):
        return None
    anon_vma = AnonVma()
    anon_vma.root = anon_vma.parent = anon_vma
    return anon_vma


def put_anon_vma(anon_vma: AnonVma) -> None:
    """Drop a reference; the last one drops the reference to the root.

    Mirrors include/linux/rmap.h:put_anon_vma().
    """
    anon_vma.refcount -= 1
    if anon_vma.refcount < 0:
        raise KernelBug("an anon_vma is put more often than it was got")
    if not anon_vma.refcount:
        root = anon_vma.root
        if root is not None and root is not anon_vma:
            root.refcount -= 1


def anon_vma_interval_tree_insert(avc: AnonVmaChain, anon_vma: AnonVma) -> None:
    """Let @anon_vma know @avc's VMA.

    Mirrors mm/interval_tree.c:anon_vma_interval_tree_insert().
    """
    anon_vma.rb_root[avc] = None


def anon_vma_interval_tree_remove(avc: AnonVmaChain, anon_vma: AnonVma) -> None:
    """Let @anon_vma forget @avc's VMA.

    Mirrors mm/interval_tree.c:anon_vma_interval_tree_remove().
    """
    del anon_vma.rb_root[avc]


def anon_vma_interval_tree_foreach(
    anon_vma: AnonVma, first: int, last: int
) -> Iterator[AnonVmaChain]:
    """Yield the chains whose VMAs cover a page offset of [@first, @last], by their first offset.

    Mirrors include/linux/mm.h:anon_vma_interval_tree_foreach().
    """
    for avc in sorted(anon_vma.rb_root, key=lambda avc: avc.vma.vm_pgoff):
        vma = avc.vma
        if vma.vm_pgoff <= last and first < vma.vm_pgoff + vma_pages(vma):
            yield avc


def anon_vma_chain_alloc(vma: VmAreaStruct, anon_vma: AnonVma) -> AnonVmaChain | None:
    """Make a link between @vma and @anon_vma that neither knows yet; None when there is no memory.

    Mirrors mm/rmap.c:anon_vma_chain_alloc().
    """
    return None if should_failslab(vma.vm_mm.sys) else AnonVmaChain(vma, anon_vma)


def anon_vma_chain_assign(vma: VmAreaStruct, avc: AnonVmaChain) -> None:
    """Put @avc in front of the VMA's chain: at the end of the list here.

    Mirrors mm/rmap.c:anon_vma_chain_assign().
    """
    vma.anon_vma_chain.append(avc)


def anon_vma_prepare(vma: VmAreaStruct) -> int:
    """Make sure that @vma has an anon_vma: a compatible neighbour's, or a new one.

    :return: 0 or -ENOMEM

    Mirrors mm/rmap.c:__anon_vma_prepare().
    """
    from mmcore.mm.vma import find_mergeable_anon_vma

    if vma.anon_vma is not None:
        return 0
    if should_failslab(vma.vm_mm.sys):  # the kernel allocates the link first
        return -ENOMEM
    anon_vma = find_mergeable_anon_vma(vma)
    if anon_vma is None:
        anon_vma = anon_vma_alloc(vma.vm_mm)
        if anon_vma is None:
            return -ENOMEM
        anon_vma.num_children += 1  # a root is its own parent
    avc = AnonVmaChain(vma, anon_vma)
    vma.anon_vma = anon_vma
    anon_vma_chain_assign(vma, avc)
    anon_vma_interval_tree_insert(avc, anon_vma)
    anon_vma.num_active_vmas += 1
    return 0


def anon_vma_clone(dst: VmAreaStruct, src: VmAreaStruct) -> int:
    """Link @dst to every anon_vma that @src is linked to.

    At fork @dst has no anon_vma yet; then one without VMAs of its own and with at most one child is
    taken over, so that a process that forks again and again does not make an endless chain.

    :return: 0; or -ENOMEM, and @dst has no link and no anon_vma

    Mirrors mm/rmap.c:anon_vma_clone().
    """
    for pavc in src.anon_vma_chain:
        anon_vma = pavc.anon_vma
        avc = anon_vma_chain_alloc(dst, anon_vma)
        if avc is None:
            dst.anon_vma = None  # it was not counted as active yet
            unlink_anon_vmas(dst)
            return -ENOMEM
        anon_vma_chain_assign(dst, avc)
        anon_vma_interval_tree_insert(avc, anon_vma)
        if (
            dst.anon_vma is None
            and src.anon_vma is not None
            and anon_vma.num_children < 2
            and anon_vma.num_active_vmas == 0
        ):
            dst.anon_vma = anon_vma
    if dst.anon_vma is not None:
        dst.anon_vma.num_active_vmas += 1
    return 0


def anon_vma_fork(vma: VmAreaStruct, pvma: VmAreaStruct) -> int:
    """Link the child's @vma to the anon_vmas of the parent's, and give it one for its own pages.

    :return: 0; or -ENOMEM, and @vma has no link and no anon_vma

    Mirrors mm/rmap.c:anon_vma_fork().
    """
    if pvma.anon_vma is None:
        return 0
    vma.anon_vma = None
    error = anon_vma_clone(vma, pvma)
    if error:
        return error
    if vma.anon_vma is not None:  # one was taken over
        return 0
    anon_vma = anon_vma_alloc(vma.vm_mm)
    avc = None if anon_vma is None else anon_vma_chain_alloc(vma, anon_vma)
    if anon_vma is None or avc is None:
        if anon_vma is not None:
            put_anon_vma(anon_vma)
        unlink_anon_vmas(vma)
        return -ENOMEM
    anon_vma.num_active_vmas += 1
    root = pvma.anon_vma.root
    assert root is not None
    anon_vma.root, anon_vma.parent = root, pvma.anon_vma
    root.refcount += 1
    vma.anon_vma = anon_vma
    anon_vma_chain_assign(vma, avc)
    anon_vma_interval_tree_insert(avc, anon_vma)
    pvma.anon_vma.num_children += 1
    return 0


def unlink_anon_vmas(vma: VmAreaStruct) -> None:
    """Take @vma out of all its anon_vmas, newest first; those without VMAs go.

    Mirrors mm/rmap.c:unlink_anon_vmas().
    """
    empty = []
    for avc in reversed(vma.anon_vma_chain):
        anon_vma = avc.anon_vma
        anon_vma_interval_tree_remove(avc, anon_vma)
        if not anon_vma.rb_root:
            assert anon_vma.parent is not None
            anon_vma.parent.num_children -= 1
            empty.append(anon_vma)
    if vma.anon_vma is not None:
        vma.anon_vma.num_active_vmas -= 1
        vma.anon_vma = None
    vma.anon_vma_chain.clear()
    for anon_vma in empty:
        if anon_vma.num_children or anon_vma.num_active_vmas:
            raise KernelBug("an anon_vma without VMAs has children or active VMAs")
        put_anon_vma(anon_vma)


def anon_vma_merge(vma: VmAreaStruct, following: VmAreaStruct) -> None:
    """Forget the links of a VMA that was merged into @vma, which has the same.

    Mirrors include/linux/rmap.h:anon_vma_merge().
    """
    if vma.anon_vma is not following.anon_vma:
        raise KernelBug(f"{vma!r} was merged with {following!r} and has another anon_vma")
    unlink_anon_vmas(following)


def vma_interval_tree_foreach(
    mapping: AddressSpace, first: int, last: int
) -> Iterator[VmAreaStruct]:
    """Yield the VMAs that map a page of [@first, @last] of a file, by their first page.

    Mirrors include/linux/mm.h:vma_interval_tree_foreach().
    """
    for vma in sorted(mapping.i_mmap, key=lambda vma: vma.vm_pgoff):
        if vma.vm_pgoff <= last and first < vma.vm_pgoff + vma_pages(vma):
            yield vma


def page_address_in_vma(page: Page, vma: VmAreaStruct) -> int:
    """Return where @vma would map @page, or -EFAULT if it cannot.

    Mirrors mm/rmap.c:page_address_in_vma().
    """
    folio = page.next if page.prev is None and page.next is not None else page
    if isinstance(folio.mapping, AnonVma):
        if vma.anon_vma is None or vma.anon_vma.root is not folio.mapping.root:
            return -EFAULT
    elif vma.vm_file is None or vma.vm_file.f_mapping is not folio.mapping:
        return -EFAULT
    pgoff = folio.index + page.pfn - folio.pfn
    if not vma.vm_pgoff <= pgoff < vma.vm_pgoff + vma_pages(vma):
        return -EFAULT
    return vma.vm_start + ((pgoff - vma.vm_pgoff) << PAGE_SHIFT)


def page_vma_mapped(page: Page, vma: VmAreaStruct, address: int) -> bool:
    """Tell whether the entry for @address in @vma maps @page.

    Mirrors mm/page_vma_mapped.c:page_mapped_in_vma().
    """
    from mmcore.arch.x86 import pgtable as pg

    ptep, level = pg.lookup_address(vma.vm_mm, address)
    if ptep is None:
        return False
    entry = ptep[0][ptep[1]]
    if not pg.pte_present(entry):
        return False
    if level == 2:
        return pg.pmd_pfn(entry) + (address >> PAGE_SHIFT & 511) == page.pfn
    return pg.pte_pfn(entry) == page.pfn


def rmap_walk_anon(folio: Folio, rmap_one: Callable[[VmAreaStruct, int], bool]) -> int:
    """Call @rmap_one(vma, address) for every VMA that may map an anonymous @folio.

    :return: how many VMAs were asked; the walk ends when @rmap_one says False

    Mirrors mm/rmap.c:rmap_walk_anon().
    """
    anon_vma = folio.mapping
    if not isinstance(anon_vma, AnonVma):
        raise KernelBug(f"{folio!r} is not anonymous")
    last = folio.index + folio_nr_pages(folio) - 1
    asked = 0
    for avc in anon_vma_interval_tree_foreach(anon_vma, folio.index, last):
        vma = avc.vma
        address = vma.vm_start + ((folio.index - vma.vm_pgoff) << PAGE_SHIFT)
        asked += 1
        if not rmap_one(vma, max(address, vma.vm_start)):
            break
    return asked


def rmap_walk_file(folio: Folio, rmap_one: Callable[[VmAreaStruct, int], bool]) -> int:
    """Call @rmap_one(vma, address) for every VMA that may map a page cache @folio.

    :return: how many VMAs were asked; the walk ends when @rmap_one says False

    Mirrors mm/rmap.c:rmap_walk_file().
    """
    mapping = folio.mapping
    if mapping is None:
        return 0
    last = folio.index + folio_nr_pages(folio) - 1
    asked = 0
    for vma in vma_interval_tree_foreach(mapping, folio.index, last):
        address = vma.vm_start + ((folio.index - vma.vm_pgoff) << PAGE_SHIFT)
        asked += 1
        if not rmap_one(vma, max(address, vma.vm_start)):
            break
    return asked


def rmap_walk(folio: Folio, rmap_one: Callable[[VmAreaStruct, int], bool]) -> int:
    """Call @rmap_one(vma, address) for every VMA that may map @folio.

    Mirrors mm/rmap.c:rmap_walk().
    """
    if folio_test_anon(folio):
        return rmap_walk_anon(folio, rmap_one)
    return rmap_walk_file(folio, rmap_one)


def validate_anon_vmas(vmas: list[VmAreaStruct], everybody: bool) -> None:
    """Check the links between @vmas and their anon_vmas, both ways.

    :param everybody: @vmas are all of a machine's, so that what anon_vmas count can be checked
    :raises KernelBug: naming what is wrong
    """
    active: dict[int, int] = {}
    known: dict[int, AnonVma] = {}
    for vma in vmas:
        if (vma.anon_vma is None) != (not vma.anon_vma_chain):
            raise KernelBug(f"{vma!r} has a chain and no anon_vma, or the other way round")
        anon_vmas = [avc.anon_vma for avc in vma.anon_vma_chain]
        if vma.anon_vma is not None:
            active[id(vma.anon_vma)] = active.get(id(vma.anon_vma), 0) + 1
            if vma.anon_vma not in anon_vmas:
                raise KernelBug(f"the anon_vma of {vma!r} is not in its chain")
            if any(a.root is not vma.anon_vma.root for a in anon_vmas):
                raise KernelBug(f"the anon_vmas of {vma!r} have several roots")
        for avc in vma.anon_vma_chain:
            known[id(avc.anon_vma)] = avc.anon_vma
            if avc.vma is not vma or avc not in avc.anon_vma.rb_root:
                raise KernelBug(f"a link of {vma!r} is not known to its anon_vma")
    for key, anon_vma in known.items() if everybody else ():
        if anon_vma.num_active_vmas != active.get(key, 0):
            raise KernelBug(f"an anon_vma counts {anon_vma.num_active_vmas} active VMAs")


# --- map counts -------------------------------------------------------------------------------


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


# --- what reclaim asks of the mappings --------------------------------------------------------


def _mapped_ptes(folio: Folio, vma: VmAreaStruct) -> Iterator[tuple[int, Page, Any, int]]:
    """Yield (address, page, entry's place, level) for each entry of @vma that maps a page of @folio.

    Mirrors mm/page_vma_mapped.c:page_vma_mapped_walk().
    """
    from mmcore.arch.x86 import pgtable as pg
    from mmcore.mm.mm_types import pfn_to_page

    m = folio.zone.machine
    first = max(folio.index, vma.vm_pgoff)
    last = min(folio.index + folio_nr_pages(folio), vma.vm_pgoff + vma_pages(vma))
    for index in range(first, last):
        address = vma.vm_start + ((index - vma.vm_pgoff) << PAGE_SHIFT)
        pfn = folio.pfn + index - folio.index
        ptep, level = pg.lookup_address(vma.vm_mm, address)
        if ptep is None or not pg.pte_present(ptep[0][ptep[1]]):
            continue
        entry = ptep[0][ptep[1]]
        if level == 2:
            if pg.pmd_pfn(entry) == folio.pfn and pfn == folio.pfn:
                yield address, folio, ptep, level
        elif pg.pte_pfn(entry) == pfn:
            yield address, folio if pfn == folio.pfn else pfn_to_page(m, pfn), ptep, level


def folio_referenced(folio: Folio, memcg: Any) -> tuple[int, int]:
    """Count the VMAs through which @folio was accessed, and forget the accesses.

    :param memcg: ask only address spaces of this group and those below it; None for all
    :return: (how many; -1: only a dying process uses it, flags of those VMAs); VM_LOCKED alone if it
        is locked in memory

    Simplified: a folio found in a locked VMA is reported, not moved to the unevictable ones.

    Mirrors mm/rmap.c:folio_referenced().
    """
    from mmcore.arch.x86 import pgtable as pg
    from mmcore.mm import memory, mm_inline, vmscan

    m = folio.zone.machine
    if not folio_mapcount(folio) or folio.mapping is None:
        return 0, 0
    found = [0, 0]

    def folio_referenced_one(vma: VmAreaStruct, _address: int) -> bool:
        if vma.vm_flags & (VM_SEQ_READ | VM_RAND_READ):
            return True
        if memcg is not None and not vmscan.mm_match_cgroup(vma.vm_mm, memcg):
            return True
        referenced = 0
        for address, _page, ptep, level in _mapped_ptes(folio, vma):
            if vma.vm_flags & VM_LOCKED:
                found[:] = [0, VM_LOCKED]
                return False
            dying = not vma.vm_mm.mm_users or memory.check_stable_address_space(vma.vm_mm)
            if dying and folio_test_anon(folio) and folio_mapcount(folio) == 1:
                found[0] = -1
                return False
            if mm_inline.lru_gen_enabled(m) and level == 1:
                referenced += vmscan.lru_gen_look_around(folio, vma, address, ptep)
            elif pg.pte_young(ptep[0][ptep[1]]):
                ptep[0][ptep[1]] = pg.pte_mkold(ptep[0][ptep[1]])
                referenced += 1
        if referenced:
            found[0] += 1
            found[1] |= vma.vm_flags & ~VM_LOCKED
        return True

    rmap_walk(folio, folio_referenced_one)
    return found[0], found[1]


def try_to_unmap(folio: Folio) -> None:
    """Take down all mappings of a locked folio; anonymous ones become swap entries.

    The folio stays mapped where it is locked in memory, pinned, or lazily freed and written since.

    Simplified: TLB flushes are not put off to the end of a batch; no userfaultfd, no poison.

    Mirrors mm/rmap.c:try_to_unmap().
    """
    from mmcore.mm import huge_memory

    def try_to_unmap_one(vma: VmAreaStruct, _address: int) -> bool:
        if vma.vm_flags & VM_LOCKED:
            return not any(True for _ in _mapped_ptes(folio, vma))
        for address, _page, ptep, level in list(_mapped_ptes(folio, vma)):
            if level == 2:
                huge_memory.split_huge_pmd(vma, ptep, address)
        return all(
            _unmap_pte(folio, page, vma, address, ptep)
            for address, page, ptep, _level in list(_mapped_ptes(folio, vma))
        )

    rmap_walk(folio, try_to_unmap_one)


def _unmap_pte(folio: Folio, page: Page, vma: VmAreaStruct, address: int, ptep: Any) -> bool:
    """Take down one entry; False if it must stay.

    Mirrors mm/rmap.c:try_to_unmap_one().
    """
    from mmcore.arch.x86 import pgtable as pg
    from mmcore.mm import memory, swap, swapfile, swapops

    mm, m = vma.vm_mm, folio.zone.machine
    exclusive = folio_test_anon(folio) and PageAnonExclusive(page)
    pteval = memory.ptep_clear_flush(vma, address, ptep)
    if pg.pte_dirty(pteval):
        folio.flags |= 1 << PG_dirty
    if not folio_test_anon(folio):
        add_mm_counter(mm, memory.mm_counter_file(folio), -1)
    elif not folio.flags >> PG_swapbacked & 1:  # lazily freed
        clean = not folio.flags >> PG_dirty & 1 or vma.vm_flags & VM_DROPPABLE
        if folio._refcount != 1 + folio_mapcount(folio) or not clean:
            ptep[0][ptep[1]] = pteval
            folio.flags |= 1 << PG_swapbacked
            return False
        add_mm_counter(mm, MM_ANONPAGES, -1)
    else:
        if exclusive and folio_maybe_dma_pinned(folio):
            ptep[0][ptep[1]] = pteval
            return False
        entry = folio.private + page.pfn - folio.pfn
        swapfile.swap_duplicate(m, entry)
        if exclusive:
            ClearPageAnonExclusive(page)
        add_mm_counter(mm, MM_ANONPAGES, -1)
        add_mm_counter(mm, MM_SWAPENTS, 1)
        swp_pte = swapops.swp_entry_to_pte(entry)
        if exclusive:
            swp_pte = pg.pte_swp_mkexclusive(swp_pte)
        if pg.pte_soft_dirty(pteval):
            swp_pte = pg.pte_swp_mksoft_dirty(swp_pte)
        ptep[0][ptep[1]] = swp_pte
    folio_remove_rmap_ptes(folio, page, 1, vma)
    swap.folio_put(folio)
    return True
