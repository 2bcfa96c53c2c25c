"""The swap cache, and what is read from swap in advance.

Mirrors mm/swap_state.c and mm/page_io.c.

Simplified: one dict for each area instead of an address space for each 64 MiB; reads and writes
complete at once and do not fail, as on a synchronous device; memory policies are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.arch.x86 import pgtable as pg
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EEXIST, KernelBug
from mmcore.mm import memcontrol, mm_inline, page_alloc, swap, swapfile, swapops, workingset
from mmcore.mm.mm import VmAreaStruct, VmFault
from mmcore.mm.mm_types import Folio, folio_nr_pages
from mmcore.mm.page_flags import (
    PG_dirty,
    PG_locked,
    PG_readahead,
    PG_swapbacked,
    PG_swapcache,
    PG_uptodate,
)
from mmcore.mm.swapops import swp_entry, swp_offset, swp_type
from mmcore.mm.vmstat import (
    NR_FILE_PAGES,
    NR_SWAPCACHE,
    PSWPIN,
    PSWPOUT,
    SWAP_RA,
    SWAP_RA_HIT,
    THP_SWPOUT,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.swapfile import SwapInfoStruct

__all__ = [
    "add_to_swap",
    "add_to_swap_cache",
    "clear_shadow_from_swap_cache",
    "delete_from_cache_locked",
    "delete_from_swap_cache",
    "free_swap_cache",
    "get_shadow_from_swap_cache",
    "read_swap_cache_async",
    "swap_cache_get_folio",
    "swap_cluster_readahead",
    "swap_read_folio",
    "swap_use_vma_readahead",
    "swap_vma_readahead",
    "swap_writepage",
    "swapin_nr_pages",
    "swapin_readahead",
]

_LOCKED = 1 << PG_locked
_READAHEAD = 1 << PG_readahead
_SWAPCACHE = 1 << PG_swapcache
SWAP_RA_ORDER_CEILING = 5
SWAP_RA_HITS_MAX = 63


def _area(m: Machine, entry: int) -> SwapInfoStruct:
    si = swapfile.swp_swap_info(m, entry)
    if si is None:
        raise KernelBug(f"Bad swap file entry {entry:08x}")
    return si


def get_shadow_from_swap_cache(m: Machine, entry: int) -> int | None:
    """Return what was left when the slot's page was evicted.

    Mirrors mm/swap_state.c:get_shadow_from_swap_cache().
    """
    return _area(m, entry).shadows.get(swp_offset(entry))


def _count(folio: Folio, nr: int) -> None:
    folio.zone.zone_pgdat.vm_stat[NR_FILE_PAGES] += nr
    mm_inline.mod_lruvec_state(mm_inline.folio_lruvec(folio), NR_SWAPCACHE, nr)


def add_to_swap_cache(folio: Folio, entry: int) -> int | None:
    """Put a locked folio into the swap cache; it gets a reference for each page.

    :return: the shadow that was in its place

    Mirrors mm/swap_state.c:add_to_swap_cache().
    """
    if not folio.flags & _LOCKED or folio.flags & _SWAPCACHE:
        raise KernelBug(f"{folio!r} must be locked and not in the swap cache")
    si = _area(folio.zone.machine, entry)
    nr = folio_nr_pages(folio)
    swap.folio_ref_add(folio, nr)
    folio.flags |= _SWAPCACHE
    folio.private = entry
    shadow = None
    for offset in range(swp_offset(entry), swp_offset(entry) + nr):
        old = si.shadows.pop(offset, None)
        shadow = shadow if old is None else old
        si.i_pages[offset] = folio
    _count(folio, nr)
    return shadow


def delete_from_cache_locked(folio: Folio, entry: int, shadow: int | None) -> None:
    """Take a locked folio out of the swap cache and leave @shadow in its place.

    Mirrors mm/swap_state.c:__delete_from_swap_cache().
    """
    si = _area(folio.zone.machine, entry)
    nr = folio_nr_pages(folio)
    for offset in range(swp_offset(entry), swp_offset(entry) + nr):
        if si.i_pages.pop(offset) is not folio:
            raise KernelBug(f"slot {offset} does not cache {folio!r}")
        if shadow is not None:
            si.shadows[offset] = shadow
    folio.private = 0
    folio.flags &= ~_SWAPCACHE
    _count(folio, -nr)


def delete_from_swap_cache(folio: Folio) -> None:
    """Take a folio out of the swap cache, and give back the cache's slots and references.

    Mirrors mm/swap_state.c:delete_from_swap_cache().
    """
    entry = folio.private
    delete_from_cache_locked(folio, entry, None)
    swapfile.put_swap_folio(folio.zone.machine, folio, entry)
    swap.folio_put(folio, folio_nr_pages(folio))


def clear_shadow_from_swap_cache(si: SwapInfoStruct, begin: int, end: int) -> None:
    """Forget what was evicted from slots that are free now.

    Mirrors mm/swap_state.c:clear_shadow_from_swap_cache().
    """
    for offset in range(begin, end + 1):
        si.shadows.pop(offset, None)


def add_to_swap(folio: Folio) -> bool:
    """Give a folio slots and put it into the swap cache, dirty; False if there are none.

    Mirrors mm/swap_state.c:add_to_swap().
    """
    entry = swapfile.folio_alloc_swap(folio.zone.machine, folio)
    if not entry:
        return False
    add_to_swap_cache(folio, entry)
    folio.flags |= 1 << PG_dirty
    return True


def free_swap_cache(folio: Folio) -> None:
    """Try to give back the slots of a folio that is not mapped any more.

    Mirrors mm/swap_state.c:free_swap_cache().
    """
    from mmcore.mm import rmap

    if folio.flags & _SWAPCACHE and not folio.flags & _LOCKED and not rmap.folio_mapcount(folio):
        swapfile.folio_free_swap(folio)


def swap_writepage(folio: Folio) -> None:
    """Write a locked folio to its slots, unless nobody needs them any more; it is unlocked then.

    Mirrors mm/page_io.c:swap_writepage().
    """
    folio.flags &= ~(1 << PG_dirty)
    if not swapfile.folio_free_swap(folio):
        folio.zone.machine.vm_event[PSWPOUT] += folio_nr_pages(folio)
        if folio_nr_pages(folio) >= 512:
            folio.zone.machine.vm_event[THP_SWPOUT] += 1
    folio.flags &= ~_LOCKED


def swap_read_folio(folio: Folio) -> None:
    """Read a locked folio from its slots; it is up to date and unlocked then.

    Mirrors mm/page_io.c:swap_read_folio().
    """
    folio.zone.machine.vm_event[PSWPIN] += folio_nr_pages(folio)
    folio.flags = folio.flags & ~_LOCKED | 1 << PG_uptodate


# --- reading ahead ----------------------------------------------------------------------------


def swap_use_vma_readahead(m: Machine) -> bool:
    """Tell whether what lies around in memory is read, not what lies around on the disk.

    Mirrors mm/swap_state.c:swap_use_vma_readahead().
    """
    return m.swap.enable_vma_readahead and not m.swap.nr_rotate_swap


def swap_cache_get_folio(m: Machine, entry: int, vma: VmAreaStruct, addr: int) -> Folio | None:
    """Look a slot up in the swap cache, and note if it was read in advance.

    The caller gets a reference.

    Mirrors mm/swap_state.c:swap_cache_get_folio().
    """
    folio = _area(m, entry).i_pages.get(swp_offset(entry))
    if folio is None:
        return None
    swap.folio_get(folio)
    if folio.folio is not None:
        return folio
    readahead = folio.flags & _READAHEAD
    folio.flags &= ~_READAHEAD
    vma_ra = swap_use_vma_readahead(m)
    if vma_ra:
        _, win, hits = _ra_info(vma)
        if readahead:
            hits = min(hits + 1, SWAP_RA_HITS_MAX)
        vma.swap_readahead_info = (addr, win, hits)
    if readahead:
        m.vm_event[SWAP_RA_HIT] += 1
        if not vma_ra:
            m.swap.swapin_readahead_hits += 1
    return folio


def _ra_info(vma: VmAreaStruct) -> tuple[int, int, int]:
    """``GET_SWAP_RA_VAL()``: the last fault's address, window and hits; no word at all means 4 hits."""
    info = vma.swap_readahead_info
    return info if any(info) else (0, 0, 4)


def read_swap_cache_async(m: Machine, entry: int, gfp: int) -> tuple[Folio | None, bool]:
    """Find the slot's folio in the swap cache, or put a new locked one there that is to be read.

    The caller gets a reference.

    :return: (folio, it is new); None for a slot that nobody uses, or without memory

    Mirrors mm/swap_state.c:__read_swap_cache_async().
    """
    si = swapfile.swp_swap_info(m, entry)
    if si is None or swp_offset(entry) >= si.max:
        return None, False
    folio = si.i_pages.get(swp_offset(entry))
    if folio is not None:
        swap.folio_get(folio)
        return folio, False
    if not swapfile.swap_swapcount(m, entry):
        return None, False
    folio = page_alloc.folio_alloc(m, gfp, 0)
    if folio is None:
        return None, False
    err = swapfile.swapcache_prepare(m, entry, 1)
    if err:
        if err == -EEXIST:
            raise KernelBug(f"slot {swp_offset(entry)} is marked as cached and is not")
        swap.folio_put(folio)
        return None, False
    folio.flags |= _LOCKED | 1 << PG_swapbacked
    charged = memcontrol.mem_cgroup_disabled(m)
    if not charged and memcontrol.mem_cgroup_swapin_charge_folio(folio, None, gfp, entry):
        swapfile.put_swap_folio(m, folio, entry)
        folio.flags &= ~_LOCKED
        swap.folio_put(folio)
        return None, False
    shadow = add_to_swap_cache(folio, entry)
    if shadow is not None:
        workingset.workingset_refault(folio, shadow)
    swap.folio_add_lru(folio)
    return folio, True


def swapin_nr_pages(prev_offset: int, offset: int, hits: int, max_pages: int, prev_win: int) -> int:
    """Return how many pages to read: two more than were hit, rounded up, not below half the last.

    Mirrors mm/swap_state.c:__swapin_nr_pages().
    """
    pages = hits + 2
    if pages == 2:
        if offset not in (prev_offset + 1, prev_offset - 1):
            pages = 1
    else:
        pages = max(4, 1 << (pages - 1).bit_length())
    return max(min(pages, max_pages), prev_win // 2)


def _cluster_nr_pages(m: Machine, offset: int) -> int:
    """Return the window of a rotating disk.

    Mirrors mm/swap_state.c:swapin_nr_pages().
    """
    state = m.swap
    max_pages = 1 << state.page_cluster
    if max_pages <= 1:
        return 1
    hits, state.swapin_readahead_hits = state.swapin_readahead_hits, 0
    pages = swapin_nr_pages(state.prev_offset, offset, hits, max_pages, state.last_readahead_pages)
    if not hits:
        state.prev_offset = offset
    state.last_readahead_pages = pages
    return pages


def _read(m: Machine, entry: int, gfp: int, target: bool) -> None:
    """Read one slot of a window."""
    folio, new = read_swap_cache_async(m, entry, gfp)
    if folio is None:
        return
    if new:
        swap_read_folio(folio)
        if not target:
            folio.flags |= _READAHEAD
            m.vm_event[SWAP_RA] += 1
    swap.folio_put(folio)


def _target(m: Machine, entry: int, gfp: int) -> Folio | None:
    """Return the folio that the fault is about, which most likely was read a moment ago."""
    folio, new = read_swap_cache_async(m, entry, gfp)
    if folio is not None and new:
        swap_read_folio(folio)
    return folio


def swap_cluster_readahead(m: Machine, entry: int, gfp: int) -> Folio | None:
    """Read the aligned block of slots around @entry.

    Mirrors mm/swap_state.c:swap_cluster_readahead().
    """
    si = _area(m, entry)
    offset = swp_offset(entry)
    mask = _cluster_nr_pages(m, offset) - 1
    if mask:
        start = offset & ~mask or 1
        for at in range(start, min(offset | mask, si.max - 1) + 1):
            _read(m, swp_entry(swp_type(entry), at), gfp, at == offset)
        swap.lru_add_drain(m)
    return _target(m, entry, gfp)


def swap_vma_ra_win(vmf: VmFault, max_win: int) -> tuple[int, int, int]:
    """Return the window of a fault: (pages, first address, end), by its direction.

    Mirrors mm/swap_state.c:swap_vma_ra_win().
    """
    vma, faddr = vmf.vma, vmf.address
    if max_win == 1:
        return 1, faddr, faddr
    prev_faddr, prev_win, hits = _ra_info(vma)
    win = swapin_nr_pages(prev_faddr >> PAGE_SHIFT, faddr >> PAGE_SHIFT, hits, max_win, prev_win)
    vma.swap_readahead_info = (faddr, win, 0)
    if win == 1:
        return 1, faddr, faddr
    if faddr == prev_faddr + PAGE_SIZE:
        left = faddr
    elif prev_faddr == faddr + PAGE_SIZE:
        left = faddr - (win << PAGE_SHIFT) + PAGE_SIZE
    else:
        left = faddr - ((win - 1) // 2 << PAGE_SHIFT)
    right = left + (win << PAGE_SHIFT)
    table = faddr & -pg.PMD_SIZE
    return win, max(left, 0, vma.vm_start, table), min(right, vma.vm_end, table + pg.PMD_SIZE)


def swap_vma_readahead(m: Machine, entry: int, gfp: int, vmf: VmFault) -> Folio | None:
    """Read what lies around the fault in memory and is in swap.

    Mirrors mm/swap_state.c:swap_vma_readahead().
    """
    win, start, end = swap_vma_ra_win(vmf, 1 << min(m.swap.page_cluster, SWAP_RA_ORDER_CEILING))
    if win != 1 and vmf.pmd is not None:
        for addr in range(start, end, PAGE_SIZE):
            ptep = pg.pte_offset_map(vmf.pmd, addr)
            if ptep is None:
                break
            pte = ptep[0][ptep[1]]
            if not swapops.is_swap_pte(pte):
                continue
            found = swapops.pte_to_swp_entry(pte)
            if not swapops.non_swap_entry(found):
                _read(m, found, gfp, addr == vmf.address)
        swap.lru_add_drain(m)
    return _target(m, entry, gfp)


def swapin_readahead(m: Machine, entry: int, gfp: int, vmf: VmFault) -> Folio | None:
    """Read @entry and what may be needed soon; the caller gets a reference to @entry's folio.

    Mirrors mm/swap_state.c:swapin_readahead().
    """
    if swap_use_vma_readahead(m):
        return swap_vma_readahead(m, entry, gfp, vmf)
    return swap_cluster_readahead(m, entry, gfp)
