"""Transparent huge pages, as far as faults decide about them.

Mirrors parts of mm/huge_memory.c and include/linux/huge_mm.h: which sizes a fault may use, mapping
2 MiB anonymous memory with one PMD, the huge zero page, and splitting a huge PMD.

Simplified: anonymous memory only; no splitting of the folios themselves, no deferred split queue, no
khugepaged, no migration of huge pages (chapter 16).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86 import tlb as tlb_
from mmcore.arch.x86.pgtable import (
    PMD_SIZE,
    Ptep,
    pfn_pmd,
    pfn_pte,
    pmd_none,
    pmd_pfn,
    pte_dirty,
    pte_mkclean,
    pte_mkdirty,
    pte_mkold,
    pte_mksoft_dirty,
    pte_mkspecial,
    pte_mkwrite,
    pte_mkyoung,
    pte_soft_dirty,
    pte_write,
    pte_wrprotect,
    pte_young,
)
from mmcore.arch.x86.pgtable_types import _PAGE_PSE, _PAGE_TABLE
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import ENOMEM, KernelBug
from mmcore.mm import gfp as gfp_
from mmcore.mm import memcontrol, mmu_gather, page_alloc, rmap, swap
from mmcore.mm.mm import (
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_WRITE,
    MM_ANONPAGES,
    MMF_TOPDOWN,
    VM_FAULT_FALLBACK,
    VM_FAULT_OOM,
    VM_GROWSDOWN,
    VM_HUGEPAGE,
    VM_NOHUGEPAGE,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    VmFault,
    add_mm_counter,
    mm_forbids_zeropage,
    vma_is_anonymous,
)
from mmcore.mm.mm_types import pfn_to_page
from mmcore.mm.page_flags import PG_dirty, PG_uptodate
from mmcore.mm.vmstat import (
    THP_FAULT_ALLOC,
    THP_FAULT_FALLBACK,
    THP_FAULT_FALLBACK_CHARGE,
    THP_SPLIT_PMD,
    THP_ZERO_PAGE_ALLOC,
    THP_ZERO_PAGE_ALLOC_FAILED,
)

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.mm_types import Folio
    from mmcore.mm.mmu_gather import MmuGather

__all__ = [
    "HPAGE_PMD_NR",
    "PMD_ORDER",
    "PMD_SIZE",
    "change_huge_pmd",
    "copy_huge_pmd",
    "create_huge_pmd",
    "do_huge_pmd_anonymous_page",
    "do_huge_pmd_wp_page",
    "huge_pmd_set_accessed",
    "mm_get_huge_zero_folio",
    "mm_put_huge_zero_folio",
    "move_huge_pmd",
    "split_huge_pmd",
    "split_huge_pmd_address",
    "thp_get_unmapped_area_vmflags",
    "thp_vma_allowable_orders",
    "thp_vma_suitable_order",
    "thp_vma_suitable_orders",
    "vma_adjust_trans_huge",
    "vma_thp_gfp_mask",
    "zap_huge_pmd",
]

PMD_ORDER = 9
HPAGE_PMD_NR = 512
THP_ORDERS_ALL_ANON = (1 << (PMD_ORDER + 1)) - 1 & ~3
MMF_HUGE_ZERO_PAGE = 23
MMF_DISABLE_THP = 24
_VM_STACK_INCOMPLETE_SETUP = VM_RAND_READ | VM_SEQ_READ | VM_GROWSDOWN
_GFP_ZERO: int = getattr(gfp_, "__GFP_ZERO")
_GFP_COMP: int = getattr(gfp_, "__GFP_COMP")
_GFP_MOVABLE: int = getattr(gfp_, "__GFP_MOVABLE")
_GFP_DIRECT_RECLAIM: int = getattr(gfp_, "__GFP_DIRECT_RECLAIM")


def _machine(mm: MmStruct) -> Machine:
    assert mm.machine is not None
    return mm.machine


def thp_vma_allowable_orders(vma: VmAreaStruct, vm_flags: int, orders: int) -> int:
    """Return those of @orders (one bit each) that the switches allow a fault in @vma.

    Simplified: in the page fault with the switches enforced (TVA_IN_PF | TVA_ENFORCE_SYSFS) only.

    Mirrors include/linux/huge_mm.h:thp_vma_allowable_orders().
    """
    m = vma.vm_mm.machine
    if m is None or not m.config.TRANSPARENT_HUGEPAGE or not vma_is_anonymous(vma):
        return 0
    enabled = m.transparent_hugepage_enabled
    advised = vm_flags & VM_HUGEPAGE != 0
    inherit = enabled == "always" or (advised and enabled == "madvise")
    mask = 0
    for order, switch in m.mthp_enabled.items():
        if (
            switch == "always"
            or (switch == "madvise" and advised)
            or (switch == "inherit" and inherit)
        ):
            mask |= 1 << order
    orders &= mask & THP_ORDERS_ALL_ANON
    if not orders or vm_flags & VM_NOHUGEPAGE or vma.vm_mm.flags >> MMF_DISABLE_THP & 1:
        return 0
    if vm_flags & _VM_STACK_INCOMPLETE_SETUP == _VM_STACK_INCOMPLETE_SETUP:
        return 0
    return orders


def thp_vma_suitable_order(vma: VmAreaStruct, addr: int, order: int) -> bool:
    """Tell whether the aligned block of 2**@order pages around @addr lies inside @vma.

    Mirrors include/linux/huge_mm.h:thp_vma_suitable_order().
    """
    size = PAGE_SIZE << order
    if not vma_is_anonymous(vma):
        if ((vma.vm_start >> PAGE_SHIFT) - vma.vm_pgoff) & ((1 << order) - 1):
            return False
    start = addr & -size
    return vma.vm_start <= start and start + size <= vma.vm_end


def thp_vma_suitable_orders(vma: VmAreaStruct, addr: int, orders: int) -> int:
    """Return those of @orders that fit around @addr; if one fits, so do all below it.

    Mirrors include/linux/huge_mm.h:thp_vma_suitable_orders().
    """
    while orders:
        order = orders.bit_length() - 1
        if thp_vma_suitable_order(vma, addr, order):
            break
        orders ^= 1 << order
    return orders


def vma_thp_gfp_mask(vma: VmAreaStruct) -> int:
    """Return the allocation flags for a huge page in @vma.

    Simplified: for ``defrag`` = madvise, the default.

    Mirrors mm/huge_memory.c:vma_thp_gfp_mask().
    """
    advised = vma.vm_flags & VM_HUGEPAGE
    return gfp_.GFP_TRANSHUGE_LIGHT | (_GFP_DIRECT_RECLAIM if advised else 0)


def mm_get_huge_zero_folio(mm: MmStruct) -> Folio | None:
    """Return the huge zero page, allocating it for the first user; None when there is no memory.

    Mirrors mm/huge_memory.c:mm_get_huge_zero_folio().
    """
    m = _machine(mm)
    state = m.paging
    if mm.flags >> MMF_HUGE_ZERO_PAGE & 1:
        return state.huge_zero_folio
    if state.huge_zero_folio is None:
        gfp = (gfp_.GFP_TRANSHUGE | _GFP_ZERO) & ~_GFP_MOVABLE
        state.huge_zero_folio = page_alloc.alloc_pages(m, gfp | _GFP_COMP, PMD_ORDER)
        if state.huge_zero_folio is None:
            m.vm_event[THP_ZERO_PAGE_ALLOC_FAILED] += 1
            return None
        m.vm_event[THP_ZERO_PAGE_ALLOC] += 1
        state.huge_zero_refcount = 1  # the shrinker's own reference
    state.huge_zero_refcount += 1
    mm.flags |= 1 << MMF_HUGE_ZERO_PAGE
    return state.huge_zero_folio


def mm_put_huge_zero_folio(mm: MmStruct) -> None:
    """Give back the address space's reference to the huge zero page.

    Mirrors mm/huge_memory.c:mm_put_huge_zero_folio().
    """
    if mm.flags >> MMF_HUGE_ZERO_PAGE & 1:
        mm.flags &= ~(1 << MMF_HUGE_ZERO_PAGE)
        _machine(mm).paging.huge_zero_refcount -= 1


def is_huge_zero_pmd(m: Machine, pmd: int) -> bool:
    """Tell whether @pmd maps the huge zero page.

    Mirrors include/linux/huge_mm.h:is_huge_zero_pmd().
    """
    folio = m.paging.huge_zero_folio
    return folio is not None and pg.pmd_present(pmd) and pmd_pfn(pmd) == folio.pfn


def _key(pmd: Ptep) -> tuple[int, int]:
    return pmd[0].pfn, pmd[1]


def pgtable_trans_huge_deposit(mm: MmStruct, pmd: Ptep, table: pg.PageTable) -> None:
    """Keep a table of PTEs for the day this huge mapping is split.

    Simplified: kept by PMD entry (the kernel keeps a list per PMD table).

    Mirrors mm/pgtable-generic.c:pgtable_trans_huge_deposit().
    """
    mm.pmd_huge_pte.setdefault(_key(pmd), []).append(table)


def pgtable_trans_huge_withdraw(mm: MmStruct, pmd: Ptep) -> pg.PageTable:
    """Take the table that was kept for this huge mapping.

    Mirrors mm/pgtable-generic.c:pgtable_trans_huge_withdraw().
    """
    kept = mm.pmd_huge_pte.get(_key(pmd))
    if not kept:
        raise KernelBug(f"no table was deposited for {pmd!r}")
    table: Any = kept.pop()
    if not kept:
        del mm.pmd_huge_pte[_key(pmd)]
    assert isinstance(table, pg.PageTable)
    return table


def create_huge_pmd(vmf: VmFault) -> int:
    """Fault where a huge page is allowed.

    Mirrors mm/memory.c:create_huge_pmd().
    """
    if vma_is_anonymous(vmf.vma):
        return do_huge_pmd_anonymous_page(vmf)
    ops = vmf.vma.vm_ops
    if ops is not None and ops.huge_fault is not None:
        return ops.huge_fault(vmf, PMD_ORDER)
    return VM_FAULT_FALLBACK


def do_huge_pmd_anonymous_page(vmf: VmFault) -> int:
    """Map 2 MiB of fresh anonymous memory, or the huge zero page for a read.

    Mirrors mm/huge_memory.c:do_huge_pmd_anonymous_page().
    """
    from mmcore.mm import memory

    vma = vmf.vma
    mm = vma.vm_mm
    m = _machine(mm)
    assert vmf.pmd is not None
    haddr = vmf.address & -PMD_SIZE
    if not thp_vma_suitable_order(vma, haddr, PMD_ORDER):
        return VM_FAULT_FALLBACK
    ret = memory.vmf_anon_prepare(vmf)
    if ret:
        return ret
    read = not vmf.flags & FAULT_FLAG_WRITE
    if read and not mm_forbids_zeropage(mm) and m.transparent_hugepage_use_zero_page:
        table = pg.pte_alloc_one(mm)
        if table is None:
            return VM_FAULT_OOM
        zero = mm_get_huge_zero_folio(mm)
        if zero is None:
            pg.pte_free(mm, table)
            m.vm_event[THP_FAULT_FALLBACK] += 1
            return VM_FAULT_FALLBACK
        entry = pfn_pmd(zero.pfn, vma.vm_page_prot) | _PAGE_PSE
        _deposit_and_set(mm, vmf.pmd, table, entry)
        return 0
    gfp = vma_thp_gfp_mask(vma)
    folio = memory.vma_alloc_folio(gfp, PMD_ORDER, vma, haddr)
    if folio is not None and memcontrol.mem_cgroup_charge(folio, mm, gfp):
        swap.folio_put(folio)
        folio = None
        m.vm_event[THP_FAULT_FALLBACK_CHARGE] += 1
    if folio is None:
        m.vm_event[THP_FAULT_FALLBACK] += 1
        return VM_FAULT_FALLBACK
    table = pg.pte_alloc_one(mm)
    if table is None:
        swap.folio_put(folio)
        return VM_FAULT_OOM
    folio.flags |= 1 << PG_uptodate
    entry = pte_mkdirty(pfn_pmd(folio.pfn, vma.vm_page_prot) | _PAGE_PSE)
    if vma.vm_flags & VM_WRITE:
        entry = pte_mkwrite(entry, vma)
    rmap.folio_add_new_anon_rmap(folio, vma, haddr, rmap.RMAP_EXCLUSIVE)
    swap.folio_add_lru_vma(folio, vma)
    _deposit_and_set(mm, vmf.pmd, table, entry)
    add_mm_counter(mm, MM_ANONPAGES, HPAGE_PMD_NR)
    m.vm_event[THP_FAULT_ALLOC] += 1
    return 0


def _deposit_and_set(mm: MmStruct, pmd: Ptep, table: pg.PageTable, entry: int) -> None:
    """Keep @table for the split and store the huge entry; the table counts as one of the mm's."""
    if not pmd_none(pmd[0][pmd[1]]):
        raise KernelBug("a huge page is mapped where something is mapped already")
    pgtable_trans_huge_deposit(mm, pmd, table)
    pmd[0][pmd[1]] = entry
    pg.mm_inc_nr_ptes(mm)


def huge_pmd_set_accessed(vmf: VmFault) -> None:
    """Set the accessed bit (and the dirty bit for a write) of a huge mapping.

    Mirrors mm/huge_memory.c:huge_pmd_set_accessed().
    """
    assert vmf.pmd is not None
    table, i = vmf.pmd
    write = vmf.flags & FAULT_FLAG_WRITE
    entry = pte_mkyoung(table[i])
    if write:
        entry = pte_mkdirty(entry)
    if entry != table[i] and write:
        table[i] = entry


def do_huge_pmd_wp_page(vmf: VmFault) -> int:
    """Write to a read-only huge page: reuse it if it is this process's own, else split the PMD.

    Mirrors mm/huge_memory.c:do_huge_pmd_wp_page().
    """
    vma = vmf.vma
    m = _machine(vma.vm_mm)
    assert vmf.pmd is not None
    orig = vmf.orig_pte
    table, i = vmf.pmd
    if not is_huge_zero_pmd(m, orig):
        if table[i] != orig:
            return 0
        page = pfn_to_page(m, pmd_pfn(orig))
        exclusive = rmap.PageAnonExclusive(page)
        if exclusive or page._refcount == 1:
            if not exclusive:
                rmap.folio_move_anon_rmap(page, vma)
                rmap.SetPageAnonExclusive(page)
            if not vmf.flags & FAULT_FLAG_UNSHARE:
                entry = pte_mkdirty(pte_mkyoung(orig))
                table[i] = pte_mkwrite(entry, vma) if vma.vm_flags & VM_WRITE else entry
            return 0
    split_huge_pmd(vma, vmf.pmd, vmf.address)
    return VM_FAULT_FALLBACK


def split_huge_pmd(vma: VmAreaStruct, pmd: Ptep, address: int) -> None:
    """Replace a huge mapping by 512 small ones; the page itself stays one folio.

    Mirrors mm/huge_memory.c:__split_huge_pmd().
    """
    mm = vma.vm_mm
    m = _machine(mm)
    table, i = pmd
    old = table[i]
    haddr = address & -PMD_SIZE
    m.vm_event[THP_SPLIT_PMD] += 1
    small = pgtable_trans_huge_withdraw(mm, pmd)
    if is_huge_zero_pmd(m, old):
        table[i] = 0
        tlb_.flush_tlb_range(vma, haddr, haddr + PMD_SIZE)
        entry = pte_mkspecial(pfn_pte(m.zero_pfn, vma.vm_page_prot))
        for n in range(512):
            small[n] = entry
        table[i] = small.pfn << PAGE_SHIFT | _PAGE_TABLE
        return
    tlb_.flush_tlb_range(vma, haddr, haddr + PMD_SIZE)
    folio = pfn_to_page(m, pmd_pfn(old))
    if pte_dirty(old):
        folio.flags |= 1 << PG_dirty
    exclusive = rmap.PageAnonExclusive(folio)
    swap.folio_ref_add(folio, HPAGE_PMD_NR - 1)
    flags = rmap.RMAP_EXCLUSIVE if exclusive else rmap.RMAP_NONE
    rmap.folio_add_anon_rmap_ptes(folio, folio, HPAGE_PMD_NR, vma, haddr, flags)
    entry = pfn_pte(folio.pfn, vma.vm_page_prot)
    if pte_write(old):
        entry = pte_mkwrite(entry, vma)
    if not pte_young(old):
        entry = pte_mkold(entry)
    if pte_dirty(old):
        entry = pte_mkdirty(entry)
    if pte_soft_dirty(old):
        entry = pte_mksoft_dirty(entry)
    pg.set_ptes(mm, haddr, (small, 0), entry, 512)
    rmap.folio_remove_rmap_pmd(folio, folio, vma)
    table[i] = small.pfn << PAGE_SHIFT | _PAGE_TABLE


def zap_huge_pmd(tlb: MmuGather, vma: VmAreaStruct, pmd: Ptep, addr: int) -> bool:
    """Take down a huge mapping and the table kept for its split; True when it was one.

    Mirrors mm/huge_memory.c:zap_huge_pmd().
    """
    mm = tlb.mm
    m = _machine(mm)
    table, i = pmd
    old = table[i]
    table[i] = 0
    mmu_gather.tlb_flush_pmd_range(tlb, addr, PMD_SIZE)
    pg.pte_free(mm, pgtable_trans_huge_withdraw(mm, pmd))
    pg.mm_dec_nr_ptes(mm)
    if not is_huge_zero_pmd(m, old):
        folio = pfn_to_page(m, pmd_pfn(old))
        rmap.folio_remove_rmap_pmd(folio, folio, vma)
        add_mm_counter(mm, MM_ANONPAGES, -HPAGE_PMD_NR)
        if mmu_gather.tlb_remove_folio_pages(tlb, folio, 1, False):
            mmu_gather.tlb_flush_mmu(tlb)
    return True


def copy_huge_pmd(
    dst_mm: MmStruct,
    src_mm: MmStruct,
    dst_pmd: Ptep,
    src_pmd: Ptep,
    addr: int,
    dst_vma: VmAreaStruct,
    src_vma: VmAreaStruct,
) -> int:
    """Copy a huge mapping at fork: 0 or -ENOMEM.

    Simplified: no pinned pages (the kernel splits the parent's mapping then).

    Mirrors mm/huge_memory.c:copy_huge_pmd().
    """
    m = _machine(src_mm)
    table = pg.pte_alloc_one(dst_mm)
    if table is None:
        return -ENOMEM
    pmd = src_pmd[0][src_pmd[1]]
    if is_huge_zero_pmd(m, pmd):
        mm_get_huge_zero_folio(dst_mm)
    else:
        folio = pfn_to_page(m, pmd_pfn(pmd))
        swap.folio_get(folio)
        assert folio.folio is not None
        rmap.ClearPageAnonExclusive(folio)
        folio.folio._entire_mapcount += 1
        folio.folio._large_mapcount += 1
        add_mm_counter(dst_mm, MM_ANONPAGES, HPAGE_PMD_NR)
    if pte_write(pmd):
        pmd = pte_wrprotect(pmd)
        src_pmd[0][src_pmd[1]] = pmd
    if src_vma.vm_flags & VM_SHARED:
        pmd = pte_mkclean(pmd)
    _deposit_and_set(dst_mm, dst_pmd, table, pte_mkold(pmd))
    return 0


# --- what VMA operations need -----------------------------------------------------------------


def split_huge_pmd_address(vma: VmAreaStruct, address: int) -> None:
    """Split the huge mapping at @address if there is one.

    Mirrors mm/huge_memory.c:split_huge_pmd_address().
    """
    ptep, level = pg.lookup_address(vma.vm_mm, address)
    if ptep is not None and level == 2:
        split_huge_pmd(vma, ptep, address)


def split_huge_pmd_if_needed(vma: VmAreaStruct, address: int) -> None:
    """Split the huge mapping that a border at @address would cut.

    Mirrors mm/huge_memory.c:split_huge_pmd_if_needed().
    """
    start = address & -PMD_SIZE
    if start != address and vma.vm_start <= start and start + PMD_SIZE <= vma.vm_end:
        split_huge_pmd_address(vma, address)


def vma_adjust_trans_huge(vma: VmAreaStruct, start: int, end: int, adjust_next: int) -> None:
    """Split huge mappings that the new borders of @vma, and of the VMA behind it, cut.

    Mirrors mm/huge_memory.c:vma_adjust_trans_huge().
    """
    split_huge_pmd_if_needed(vma, start)
    split_huge_pmd_if_needed(vma, end)
    if adjust_next > 0:
        following = vma.vm_mm.mm_mt.find(vma.vm_end)
        if following is not None:
            split_huge_pmd_if_needed(following, following.vm_start + adjust_next)


def can_change_pmd_writable(vma: VmAreaStruct, pmd: int) -> bool:
    """Tell whether @pmd can be writable at once, because a write fault would make it so.

    Mirrors mm/huge_memory.c:can_change_pmd_writable().
    """
    if not vma.vm_flags & VM_WRITE or pg.pte_protnone(pmd):
        return False
    if not vma.vm_flags & VM_SOFTDIRTY and not pte_soft_dirty(pmd):
        return False
    m = _machine(vma.vm_mm)
    if vma.vm_flags & VM_SHARED:
        return pte_dirty(pmd)
    return not is_huge_zero_pmd(m, pmd) and rmap.PageAnonExclusive(pfn_to_page(m, pmd_pfn(pmd)))


def change_huge_pmd(
    tlb: MmuGather, vma: VmAreaStruct, pmd: Ptep, addr: int, try_writable: bool
) -> int:
    """Give a huge mapping the protection of @vma: 512, the number of pages.

    Simplified: no NUMA hinting, no userfaultfd, no migration entries.

    Mirrors mm/huge_memory.c:change_huge_pmd().
    """
    table, i = pmd
    old = table[i]
    entry = pg.pmd_modify(old, vma.vm_page_prot)
    if try_writable and not pte_write(entry) and can_change_pmd_writable(vma, entry):
        entry = pte_mkwrite(entry, vma)
    table[i] = entry
    if tlb_.pte_needs_flush(old, entry):
        mmu_gather.tlb_flush_pmd_range(tlb, addr, PMD_SIZE)
    return HPAGE_PMD_NR


def move_huge_pmd(vma: VmAreaStruct, old_addr: int, old_pmd: Ptep, new_pmd: Ptep) -> bool:
    """Move a huge mapping as a whole, with the table kept for its split.

    Mirrors mm/huge_memory.c:move_huge_pmd().
    """
    mm = vma.vm_mm
    if not pmd_none(new_pmd[0][new_pmd[1]]):
        return False
    entry = old_pmd[0][old_pmd[1]]
    old_pmd[0][old_pmd[1]] = 0
    pgtable_trans_huge_deposit(mm, new_pmd, pgtable_trans_huge_withdraw(mm, old_pmd))
    new_pmd[0][new_pmd[1]] = pte_mksoft_dirty(entry)
    tlb_.flush_tlb_range(vma, old_addr, old_addr + PMD_SIZE)
    return True


def __thp_get_unmapped_area(
    mm: MmStruct, filp: Any, addr: int, length: int, off: int, flags: int, size: int, vm_flags: int
) -> int:
    """Return an address for which file offset and address agree in @size; 0 if that does not work.

    Mirrors mm/huge_memory.c:__thp_get_unmapped_area().
    """
    from mmcore.mm import mmap

    off_align = off + size - 1 & -size
    if off + length <= off_align or off + length - off_align < size:
        return 0
    length_pad = length + size
    if off + length_pad > (1 << 64) - 1:
        return 0
    ret = mmap.mm_get_unmapped_area_vmflags(
        mm, filp, addr, length_pad, off >> PAGE_SHIFT, flags, vm_flags
    )
    if ret < 0:
        return 0
    if ret == addr:
        return addr
    off_sub = off - ret & size - 1
    if mm.flags >> MMF_TOPDOWN & 1 and not off_sub:
        return ret + size
    return ret + off_sub


def thp_get_unmapped_area_vmflags(
    mm: MmStruct, filp: Any, addr: int, length: int, pgoff: int, flags: int, vm_flags: int = 0
) -> int:
    """Return an address for a mapping of huge pages, or any if there is none; or -errno.

    Mirrors mm/huge_memory.c:thp_get_unmapped_area_vmflags().
    """
    from mmcore.mm import mmap

    off = pgoff << PAGE_SHIFT
    ret = __thp_get_unmapped_area(mm, filp, addr, length, off, flags, PMD_SIZE, vm_flags)
    if ret:
        return ret
    return mmap.mm_get_unmapped_area_vmflags(mm, filp, addr, length, pgoff, flags, vm_flags)
