"""Getting user pages: faulting them in, taking references, pinning them.

Mirrors mm/gup.c: MAP_POPULATE, mlock(), MADV_POPULATE_READ and MADV_POPULATE_WRITE, and the references
that I/O holds to user memory.

Simplified: no fast path without locks, no long-term pins, no protection keys; a fault here never
gives up mmap_lock.
"""

from __future__ import annotations

from mmcore.arch.x86 import pgtable as pg
from mmcore.cint import ALIGN
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EEXIST, EFAULT, EINVAL, EMLINK, ENOMEM, UsageError
from mmcore.mm import memory, rmap, swap
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_WRITE,
    MMF_HAS_PINNED,
    VM_FAULT_ERROR,
    VM_FAULT_HWPOISON,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_IO,
    VM_LOCKONFAULT,
    VM_MAYREAD,
    VM_PFNMAP,
    VM_READ,
    VM_SHADOW_STACK,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    is_cow_mapping,
    mmap_read_lock,
    mmap_read_unlock,
    vma_is_accessible,
    vma_is_anonymous,
)
from mmcore.mm.mm_types import Page, page_folio, pfn_to_page
from mmcore.mm.page_flags import PG_dirty

__all__ = [
    "EHWPOISON",
    "FOLL_FORCE",
    "FOLL_GET",
    "FOLL_PIN",
    "FOLL_TOUCH",
    "FOLL_WRITE",
    "check_vma_flags",
    "faultin_page",
    "faultin_page_range",
    "follow_page_mask",
    "get_user_pages",
    "mm_populate",
    "pin_user_pages",
    "populate_vma_page_range",
    "put_page",
    "unpin_user_page",
]

EHWPOISON = 133
# enum in include/linux/mm_types.h, mm/internal.h
FOLL_WRITE = 1 << 0
FOLL_GET = 1 << 1
FOLL_FORCE = 1 << 3
FOLL_ANON = 1 << 9
FOLL_TOUCH = 1 << 16
FOLL_PIN = 1 << 19
FOLL_MADV_POPULATE = 1 << 22


def check_vma_flags(vma: VmAreaStruct, gup_flags: int) -> int:
    """Return 0 if the access that @gup_flags describe is allowed in @vma, else -EFAULT.

    Mirrors mm/gup.c:check_vma_flags().
    """
    flags = vma.vm_flags
    if flags & (VM_IO | VM_PFNMAP) or (gup_flags & FOLL_ANON and not vma_is_anonymous(vma)):
        return -EFAULT
    if gup_flags & FOLL_WRITE:
        if not flags & VM_WRITE or flags & VM_SHADOW_STACK:
            if not gup_flags & FOLL_FORCE or not is_cow_mapping(flags):
                return -EFAULT
    elif not flags & VM_READ:
        if not gup_flags & FOLL_FORCE or not flags & VM_MAYREAD:
            return -EFAULT
    return 0


def gup_must_unshare(vma: VmAreaStruct, flags: int, page: Page) -> bool:
    """Tell whether a page must become the process's own before it is pinned for reading.

    Mirrors mm/internal.h:gup_must_unshare().
    """
    if flags & (FOLL_WRITE | FOLL_PIN) != FOLL_PIN:
        return False
    if not rmap.folio_test_anon(page_folio(page)):
        return False
    return not rmap.PageAnonExclusive(page)


def _can_follow_write(vma: VmAreaStruct, entry: int, flags: int, page: Page | None) -> bool:
    """Tell whether a write may use the entry: it is writable, or FOLL_FORCE broke COW already."""
    if pg.pte_write(entry):
        return True
    if not flags & FOLL_FORCE or page is None or vma.vm_flags & (VM_SHARED | VM_WRITE):
        return False
    return rmap.folio_test_anon(page_folio(page)) and rmap.PageAnonExclusive(page)


def follow_page_mask(vma: VmAreaStruct, address: int, flags: int) -> Page | int | None:
    """Look an address up in the page tables.

    :return: the page, with a reference if @flags ask for one; None if a fault is needed, -EMLINK if one
        that unshares; -EEXIST for an entry without a page

    Mirrors mm/gup.c:follow_page_mask().
    """
    mm = vma.vm_mm
    ptep, level = pg.lookup_address(mm, address)
    if ptep is None:
        return None
    entry = ptep[0][ptep[1]]
    if not pg.pte_present(entry):
        return None
    m = memory._machine(mm)
    page: Page | None = None
    if level == 2:
        from mmcore.mm import huge_memory

        if not huge_memory.is_huge_zero_pmd(m, entry):
            page = pfn_to_page(m, pg.pmd_pfn(entry) + (address >> PAGE_SHIFT & 511))
    else:
        page = memory.vm_normal_page(vma, address, entry)
    zero = page is None and level == 1 and memory.is_zero_pfn(m, pg.pte_pfn(entry))
    if zero:
        page = pfn_to_page(m, m.zero_pfn)
    if flags & FOLL_WRITE and not _can_follow_write(vma, entry, flags, page):
        return None
    if page is None:
        return -EEXIST
    head = page_folio(page)
    anon_page = head if level == 2 else page
    if not pg.pte_write(entry) and gup_must_unshare(vma, flags, anon_page):
        return -EMLINK
    if flags & FOLL_PIN and not zero:
        if head.folio is None:
            swap.folio_ref_add(head, rmap.GUP_PIN_COUNTING_BIAS)
        else:
            swap.folio_ref_add(head, 1)
            head.folio._pincount += 1
    elif flags & FOLL_GET and not flags & FOLL_PIN:
        swap.folio_get(head)
    if flags & FOLL_TOUCH and flags & FOLL_WRITE and not pg.pte_dirty(entry):
        head.flags |= 1 << PG_dirty
    return page


def faultin_page(vma: VmAreaStruct, address: int, write: bool, unshare: bool = False) -> int:
    """Fault one page in, with mmap_lock held: 0 or -errno.

    :param unshare: make a page that may be shared the process's own, though only to read it

    Mirrors mm/gup.c:faultin_page().
    """
    flags = FAULT_FLAG_WRITE if write else 0
    ret = memory.handle_mm_fault(vma, address, flags | (FAULT_FLAG_UNSHARE if unshare else 0))
    if ret & VM_FAULT_OOM:
        return -ENOMEM
    if ret & VM_FAULT_HWPOISON:
        return -EHWPOISON
    if ret & (VM_FAULT_ERROR | VM_FAULT_RETRY):
        return -EFAULT
    return 0


def __get_user_pages(
    mm: MmStruct, start: int, nr_pages: int, gup_flags: int, pages: list[Page] | None
) -> int:
    """Fault in and look up pages one after the other, with mmap_lock held.

    :param pages: gets the pages, each with a reference; None: only fault them in
    :return: how many pages, or -errno if the first could not be had

    Mirrors mm/gup.c:__get_user_pages().
    """
    vma: VmAreaStruct | None = None
    write = gup_flags & FOLL_WRITE != 0
    for i in range(nr_pages):
        address = start + (i << PAGE_SHIFT)
        if vma is None or address >= vma.vm_end:
            vma = vma_.vma_lookup(mm, address)
            populate = gup_flags & FOLL_MADV_POPULATE
            if vma is None:
                return i or (-ENOMEM if populate else -EFAULT)
            if check_vma_flags(vma, gup_flags):
                return i or (-EINVAL if populate else -EFAULT)
        while True:
            page = follow_page_mask(vma, address, gup_flags)
            if page is None or page == -EMLINK:
                error = faultin_page(vma, address, write, page == -EMLINK)
                if error:
                    return i or error
            else:
                break
        if isinstance(page, int):
            if pages is not None:
                return i or page
        elif pages is not None:
            pages.append(page)
    return nr_pages


def get_user_pages(
    mm: MmStruct, start: int, nr_pages: int, gup_flags: int, pages: list[Page]
) -> int:
    """Take references to the pages at a user address, e.g. to read them.

    :param gup_flags: FOLL_WRITE to write to them
    :return: how many pages @pages got, or -errno if the first could not be had

    Mirrors mm/gup.c:get_user_pages().
    """
    if gup_flags & FOLL_PIN:
        raise UsageError("get_user_pages() does not pin; pin_user_pages() does")
    mmap_read_lock(mm)
    got = __get_user_pages(
        mm, start & -PAGE_SIZE, nr_pages, gup_flags | FOLL_GET | FOLL_TOUCH, pages
    )
    mmap_read_unlock(mm)
    return got


def pin_user_pages(
    mm: MmStruct, start: int, nr_pages: int, gup_flags: int, pages: list[Page]
) -> int:
    """Pin the pages at a user address: a device reads or writes them, and fork must copy them.

    :param gup_flags: FOLL_WRITE to write to them
    :return: how many pages @pages got, or -errno if the first could not be had

    Mirrors mm/gup.c:pin_user_pages().
    """
    mm.flags |= 1 << MMF_HAS_PINNED
    mmap_read_lock(mm)
    got = __get_user_pages(
        mm, start & -PAGE_SIZE, nr_pages, gup_flags | FOLL_PIN | FOLL_TOUCH, pages
    )
    mmap_read_unlock(mm)
    return got


def put_page(page: Page) -> None:
    """Give back a reference of get_user_pages().

    Mirrors include/linux/mm.h:put_page().
    """
    swap.folio_put(page_folio(page))


def unpin_user_page(page: Page) -> None:
    """Give back a pin of pin_user_pages().

    Mirrors mm/gup.c:unpin_user_page().
    """
    folio = page_folio(page)
    if memory.is_zero_pfn(folio.zone.machine, folio.pfn):
        return
    if folio.folio is None:
        swap.folio_ref_add(folio, 1 - rmap.GUP_PIN_COUNTING_BIAS)
    else:
        folio.folio._pincount -= 1
    swap.folio_put(folio)


# --- populating -------------------------------------------------------------------------------


def populate_vma_page_range(vma: VmAreaStruct, start: int, end: int) -> int:
    """Fault in [@start, @end) of @vma; a private writable mapping is faulted in for writing.

    :return: how many pages are there now, or -errno if the first could not be faulted in

    Mirrors mm/gup.c:populate_vma_page_range().
    """
    nr_pages = (end - start) >> PAGE_SHIFT
    if vma.vm_flags & VM_LOCKONFAULT:
        return nr_pages
    if not vma_is_accessible(vma):
        return -EFAULT
    write = vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE
    flags = FOLL_TOUCH | (FOLL_WRITE if write else FOLL_FORCE)
    ret = __get_user_pages(vma.vm_mm, start, nr_pages, flags, None)
    swap.lru_add_drain(memory._machine(vma.vm_mm))
    return ret


def mm_populate(mm: MmStruct, start: int, length: int, ignore_errors: bool = True) -> int:
    """Fault in a range after mmap() or mlock(), as far as it goes.

    :param ignore_errors: go on behind a mapping that cannot be faulted in
    :return: 0 or -errno

    Mirrors mm/gup.c:__mm_populate().
    """
    end = start + ALIGN(length, PAGE_SIZE)
    error = 0
    mmap_read_lock(mm)
    nstart = start
    while nstart < end:
        vma = mm.mm_mt.find(nstart, end - 1)
        if vma is None:
            break
        nend = min(end, vma.vm_end)
        nstart = max(nstart, vma.vm_start)
        if not vma.vm_flags & (VM_IO | VM_PFNMAP):
            got = populate_vma_page_range(vma, nstart, nend)
            if got < 0:
                if not ignore_errors:
                    error = got
                    break
            else:
                nend = nstart + (got << PAGE_SHIFT)
        nstart = nend
    mmap_read_unlock(mm)
    return error


def faultin_page_range(mm: MmStruct, start: int, end: int, write: bool) -> int:
    """Fault in a range for MADV_POPULATE_READ or MADV_POPULATE_WRITE.

    :return: 0; -ENOMEM for a hole or without memory, -EINVAL for a mapping that does not allow the
        access, -EFAULT for SIGBUS

    Mirrors mm/gup.c:faultin_page_range().
    """
    flags = FOLL_TOUCH | FOLL_MADV_POPULATE | (FOLL_WRITE if write else 0)
    while start < end:
        got = __get_user_pages(mm, start, (end - start) >> PAGE_SHIFT, flags, None)
        if mm.machine is not None:
            swap.lru_add_drain(mm.machine)
        if got < 0:
            return got
        start += got << PAGE_SHIFT
    return 0
