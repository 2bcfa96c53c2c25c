"""Page faults, copying page tables at fork, and taking mappings down.

Mirrors mm/memory.c.

Every decision of a fault emits ``model:fault_step`` (function, step, locks held), so that a figure can
follow it. `race_point()` marks the places where a scripted actor may step in.

Simplified: pages have no contents, so nothing is zeroed or copied; no MMU
notifiers, no userfaultfd, no hugetlb, no PUD-sized pages, no NUMA hinting beyond making the entry
accessible again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmcore.arch.x86 import fault as fault_
from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86 import tlb as tlb_
from mmcore.arch.x86.pgtable import (
    PMD_SIZE,
    PTE_PFN_MASK,
    Ptep,
    pfn_pte,
    pmd_none,
    pmd_present,
    pmd_trans_huge,
    pte_alloc,
    pte_mkclean,
    pte_mkdirty,
    pte_mkold,
    pte_mkspecial,
    pte_mkwrite,
    pte_mkyoung,
    pte_modify,
    pte_none,
    pte_offset_map,
    pte_offset_map_lock,
    pte_offset_map_nolock,
    pte_pfn,
    pte_present,
    pte_protnone,
    pte_same,
    pte_special,
    pte_unmap_unlock,
    pte_write,
    pte_wrprotect,
    ptep_get,
    ptep_get_and_clear,
    ptep_set_wrprotect,
    set_ptes,
    spin_lock_ptl,
)
from mmcore.cint import ALIGN_DOWN, ULONG_MAX
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EAGAIN, EINVAL, ENOMEM, KernelBug, UsageError
from mmcore.mm import gfp as gfp_
from mmcore.mm import (
    huge_memory,
    memcontrol,
    mmap,
    mmu_gather,
    page_alloc,
    rmap,
    swap,
    swap_state,
    swapfile,
    swapops,
    workingset,
)
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    FAULT_FLAG_INSTRUCTION,
    FAULT_FLAG_MKWRITE,
    FAULT_FLAG_ORIG_PTE_VALID,
    FAULT_FLAG_RETRY_NOWAIT,
    FAULT_FLAG_TRIED,
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_VMA_LOCK,
    FAULT_FLAG_WRITE,
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SHMEMPAGES,
    MM_SWAPENTS,
    MMF_UNSTABLE,
    NR_MM_COUNTERS,
    VM_DROPPABLE,
    VM_FAULT_DONE_COW,
    VM_FAULT_ERROR,
    VM_FAULT_FALLBACK,
    VM_FAULT_HWPOISON,
    VM_FAULT_LOCKED,
    VM_FAULT_MAJOR,
    VM_FAULT_NOPAGE,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_FAULT_SIGSEGV,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MIXEDMAP,
    VM_PFNMAP,
    VM_SHARED,
    VM_WRITE,
    AnonVma,
    MmStruct,
    VmAreaStruct,
    VmFault,
    add_mm_counter,
    is_cow_mapping,
    linear_page_index,
    maybe_mkwrite,
    mm_forbids_zeropage,
    mmap_read_lock,
    mmap_read_trylock,
    mmap_read_unlock,
    mmap_write_downgrade,
    mmap_write_lock,
    mmap_write_unlock,
    vm_fault_str,
    vma_end_read,
    vma_is_accessible,
    vma_is_anonymous,
    vma_pages,
    vma_start_read,
)
from mmcore.mm.mm_types import folio_nr_pages, page_folio, pfn_to_page
from mmcore.mm.page_flags import (
    PG_dirty,
    PG_locked,
    PG_lru,
    PG_swapbacked,
    PG_swapcache,
    PG_uptodate,
)
from mmcore.mm.vmstat import PGFAULT, PGMAJFAULT, PGREUSE

if TYPE_CHECKING:
    from mmcore.arch.x86.fault import PtRegs
    from mmcore.machine import Machine
    from mmcore.mm.filemap import AddressSpace
    from mmcore.mm.mm_types import Folio, Page
    from mmcore.mm.mmu_gather import MmuGather

__all__ = [
    "alloc_anon_folio",
    "copy_page_range",
    "copy_present_ptes",
    "copy_pte_range",
    "do_anonymous_page",
    "do_cow_fault",
    "do_fault",
    "do_fault_around",
    "do_numa_page",
    "do_pte_missing",
    "do_read_fault",
    "do_shared_fault",
    "do_swap_page",
    "do_wp_page",
    "fault_around_bytes_set",
    "finish_fault",
    "free_pgd_range",
    "free_pgtables",
    "handle_mm_fault",
    "handle_pte_fault",
    "is_zero_pfn",
    "lock_mm_and_find_vma",
    "lock_vma_under_rcu",
    "mm_account_fault",
    "mm_counter_file",
    "mm_put_huge_zero_folio",
    "paging_init",
    "race_point",
    "set_pte_range",
    "unmap_mapping_pages",
    "unmap_page_range",
    "unmap_vmas",
    "validate_mappings",
    "vm_normal_page",
    "vma_alloc_folio",
    "wp_can_reuse_anon_folio",
    "wp_page_copy",
    "wp_page_reuse",
    "zap_page_range_single",
    "zap_pte_range",
]

_UPTODATE = 1 << PG_uptodate
_LOCKED = 1 << PG_locked
_FAILED = VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_RETRY
_GFP_COMP: int = getattr(gfp_, "__GFP_COMP")
_GFP_ZERO: int = getattr(gfp_, "__GFP_ZERO")
_GFP_FS_IO: int = getattr(gfp_, "__GFP_FS") | getattr(gfp_, "__GFP_IO")


# --- set-up and small helpers -----------------------------------------------------------------


def paging_init(m: Machine) -> None:
    """Set up what address spaces need once per machine: the kernel's tables and the zero page.

    On a booted machine the zero page lies in the kernel's bss, where the reference kernel has it; a
    machine without a kernel gives up one page for it.

    Mirrors mm/memory.c:init_zero_pfn().
    """
    if m.zero_pfn >= 0:
        return
    mmap.init_reserves(m)
    from mmcore.arch.x86 import init_64

    init_64.init_kernel_tables(m)
    if m.direct_map_tables:
        page: Page | None = pfn_to_page(m, (m.kernel_image.smp_locks[1] >> PAGE_SHIFT) + 3)
    else:
        page = page_alloc.alloc_pages(m, gfp_.GFP_KERNEL, 0)
    if page is None:
        raise UsageError("the machine has no page left for the zero page")
    m.zero_pfn = page.pfn


def race_point(m: Machine, name: str) -> None:
    """Let scripted actors step in here: those in ``m.race_points[name]`` run once."""
    if m.race_points:
        for actor in m.race_points.pop(name, ()):
            actor()


def _machine(mm: MmStruct) -> Machine:
    if mm.machine is None:
        raise UsageError("faults need pages: make the address space on a machine, mm_alloc(m)")
    return mm.machine


def _step(vmf: VmFault, function: str, step: str) -> None:
    """Emit a step of a fault with the locks that are held."""
    m = vmf.vma.vm_mm.machine
    if m is not None and m.trace.on:
        lock = "vma" if vmf.flags & FAULT_FLAG_VMA_LOCK else "mmap_lock:r"
        if vmf.vma.vm_mm.ptl:
            lock += "+ptl"
        m.trace.emit("model:fault_step", function, step, lock)


def is_zero_pfn(m: Machine, pfn: int) -> bool:
    """Tell whether @pfn is the shared page of zeroes.

    Mirrors include/linux/pgtable.h:is_zero_pfn().
    """
    return pfn == m.zero_pfn


def vm_normal_page(vma: VmAreaStruct, addr: int, pte: int) -> Page | None:
    """Return the page that @pte maps, or None if it is not one to be counted (zero page, PFN map).

    Simplified: what is not counted has the special bit, as on all of x86 but device memory: no
    ->find_special_page(), no devmap entries, no complaint (print_bad_pte()) about frames beyond memory.

    Mirrors mm/memory.c:vm_normal_page().
    """
    if pte_special(pte):
        return None
    m = _machine(vma.vm_mm)
    pfn = pte_pfn(pte)
    return None if pfn == m.zero_pfn else pfn_to_page(m, pfn)


def mm_counter_file(folio: Folio) -> int:
    """Return which rss counter a page cache folio is in: shmem pages are swap-backed.

    Mirrors include/linux/mm.h:mm_counter_file().
    """
    return MM_SHMEMPAGES if folio.flags >> PG_swapbacked & 1 else MM_FILEPAGES


def mm_counter(folio: Folio) -> int:
    """Return which rss counter @folio is in.

    Mirrors include/linux/mm.h:mm_counter().
    """
    return MM_ANONPAGES if isinstance(folio.mapping, AnonVma) else mm_counter_file(folio)


def vma_alloc_folio(gfp: int, order: int, vma: VmAreaStruct, addr: int) -> Folio | None:
    """Allocate a folio for @addr in @vma; None when there is no memory.

    Simplified: no memory policy of the VMA (chapter 8), so an order that a PMD maps is not asked for on
    the local node alone (__GFP_THISNODE | __GFP_NORETRY) before it is asked for anywhere.

    Mirrors mm/mempolicy.c:vma_alloc_folio().
    """
    if vma.vm_flags & VM_DROPPABLE:
        gfp |= gfp_.__GFP_NOWARN
    return page_alloc.folio_alloc(_machine(vma.vm_mm), gfp, order)


def folio_prealloc(vma: VmAreaStruct, addr: int, need_zero: bool) -> Folio | None:
    """Allocate one page for @addr, zeroed or to be copied to.

    Mirrors mm/memory.c:folio_prealloc().
    """
    gfp = gfp_.GFP_HIGHUSER_MOVABLE | (_GFP_ZERO if need_zero else 0)
    folio = vma_alloc_folio(gfp, 0, vma, addr)
    if folio is not None and memcontrol.mem_cgroup_charge(folio, vma.vm_mm, gfp_.GFP_KERNEL):
        swap.folio_put(folio)
        return None
    return folio


def check_stable_address_space(mm: MmStruct) -> int:
    """Return VM_FAULT_SIGBUS if the OOM reaper may have taken pages, else 0.

    Mirrors include/linux/oom.h:check_stable_address_space().
    """
    return VM_FAULT_SIGBUS if mm.flags >> MMF_UNSTABLE & 1 else 0


def vmf_anon_prepare(vmf: VmFault) -> int:
    """Make sure that the VMA has an anon_vma; needs mmap_lock for a moment.

    Mirrors mm/memory.c:__vmf_anon_prepare().
    """
    vma = vmf.vma
    if vma.anon_vma is not None:
        return 0
    if vmf.flags & FAULT_FLAG_VMA_LOCK:
        if not mmap_read_trylock(vma.vm_mm):
            _step(vmf, "__vmf_anon_prepare", "mmap_lock busy: retry")
            vma_end_read(vma)
            return VM_FAULT_RETRY
        ret = _anon_vma_prepare(vmf)
        mmap_read_unlock(vma.vm_mm)
        return ret
    return _anon_vma_prepare(vmf)


def _anon_vma_prepare(vmf: VmFault) -> int:
    if rmap.anon_vma_prepare(vmf.vma):
        _step(vmf, "__vmf_anon_prepare", "no memory for an anon_vma")
        return VM_FAULT_OOM
    anon_vma = vmf.vma.anon_vma
    shared = anon_vma is not None and anon_vma.num_active_vmas > 1
    _step(vmf, "__vmf_anon_prepare", "a neighbour's anon_vma" if shared else "new anon_vma")
    return 0


def vmf_can_call_fault(vmf: VmFault) -> int:
    """Return VM_FAULT_RETRY if ->fault needs mmap_lock and only the VMA is locked.

    Mirrors mm/memory.c:vmf_can_call_fault().
    """
    ops = vmf.vma.vm_ops
    if (ops is not None and ops.map_pages is not None) or not vmf.flags & FAULT_FLAG_VMA_LOCK:
        return 0
    _step(vmf, "vmf_can_call_fault", "no ->map_pages: retry with mmap_lock")
    vma_end_read(vmf.vma)
    return VM_FAULT_RETRY


def vmf_pte_changed(vmf: VmFault) -> bool:
    """Tell whether the entry is not what it was when the fault began.

    Mirrors mm/memory.c:vmf_pte_changed().
    """
    assert vmf.pte is not None
    pte = vmf.pte[0][vmf.pte[1]]
    if vmf.flags & FAULT_FLAG_ORIG_PTE_VALID:
        return pte != vmf.orig_pte
    return not pte_none(pte)


def pte_range_none(ptep: Ptep, nr_pages: int) -> bool:
    """Tell whether @nr_pages entries are empty.

    Mirrors mm/memory.c:pte_range_none().
    """
    table, i = ptep
    return not any(table[i : i + nr_pages])


def _lock_pte(vmf: VmFault, addr: int) -> Ptep | None:
    """``vmf->pte = pte_offset_map_lock(...)``, after a moment in which others may act."""
    assert vmf.pmd is not None
    mm = vmf.vma.vm_mm
    if mm.machine is not None:
        race_point(mm.machine, "pte_offset_map_lock")
    vmf.pte = pte_offset_map_lock(mm, vmf.pmd, addr)
    return vmf.pte


def _unlock_pte(vmf: VmFault) -> None:
    assert vmf.pte is not None
    pte_unmap_unlock(vmf.vma.vm_mm, vmf.pte)


def ptep_set_access_flags(vma: VmAreaStruct, ptep: Ptep, entry: int, dirty: int) -> bool:
    """Store @entry if it differs and this is a write; True if it differs. No TLB flush on x86.

    Mirrors arch/x86/mm/pgtable.c:ptep_set_access_flags().
    """
    table, i = ptep
    changed = table[i] != entry
    if changed and dirty:
        table[i] = entry
    return changed


def ptep_clear_flush(vma: VmAreaStruct, address: int, ptep: Ptep) -> int:
    """Empty an entry and flush the page from the TLBs.

    Mirrors mm/pgtable-generic.c:ptep_clear_flush().
    """
    pte = ptep_get_and_clear(vma.vm_mm, address, ptep)
    if pte & 1:
        tlb_.flush_tlb_page(vma, address)
    return pte


# --- anonymous memory -------------------------------------------------------------------------


def alloc_anon_folio(vmf: VmFault) -> Folio | int | None:
    """Allocate the folio for an anonymous fault: the largest enabled order that fits and is free.

    :return: the folio; None when there is no memory; -EAGAIN when the page table is gone

    Mirrors mm/memory.c:alloc_anon_folio().
    """
    vma = vmf.vma
    assert vmf.pmd is not None
    orders = huge_memory.thp_vma_allowable_orders(vma, vma.vm_flags, (1 << 9) - 1)
    orders = huge_memory.thp_vma_suitable_orders(vma, vmf.address, orders)
    if orders:
        table = pte_offset_map(vmf.pmd, vmf.address & -PMD_SIZE)
        if table is None:
            return -EAGAIN
        while orders:
            order = orders.bit_length() - 1
            addr = ALIGN_DOWN(vmf.address, PAGE_SIZE << order)
            if pte_range_none((table[0], addr >> PAGE_SHIFT & 511), 1 << order):
                break
            orders ^= 1 << order
    if orders:
        gfp = huge_memory.vma_thp_gfp_mask(vma)
        while orders:
            order = orders.bit_length() - 1
            addr = ALIGN_DOWN(vmf.address, PAGE_SIZE << order)
            folio = vma_alloc_folio(gfp, order, vma, addr)
            if folio is not None:
                if not memcontrol.mem_cgroup_charge(folio, vma.vm_mm, gfp):
                    return folio
                swap.folio_put(folio)
            orders ^= 1 << order
    return folio_prealloc(vma, vmf.address, True)


def _map_zero_page(vmf: VmFault) -> int:
    """Map the zero page read-only: the read branch of do_anonymous_page()."""
    vma = vmf.vma
    m = _machine(vma.vm_mm)
    entry = pte_mkspecial(pfn_pte(m.zero_pfn, vma.vm_page_prot))
    if _lock_pte(vmf, vmf.address) is None:
        return 0
    assert vmf.pte is not None
    ret = 0
    if vmf_pte_changed(vmf):
        _step(vmf, "do_anonymous_page", "entry changed meanwhile")
    else:
        ret = check_stable_address_space(vma.vm_mm)
        if not ret:
            _step(vmf, "do_anonymous_page", "zero page")
            set_ptes(vma.vm_mm, vmf.address, vmf.pte, entry, 1)
    _unlock_pte(vmf)
    return ret


def do_anonymous_page(vmf: VmFault) -> int:
    """Map fresh anonymous memory: the zero page for a read, a new folio for a write.

    Mirrors mm/memory.c:do_anonymous_page().
    """
    vma = vmf.vma
    mm = vma.vm_mm
    assert vmf.pmd is not None
    if vma.vm_flags & VM_SHARED:
        _step(vmf, "do_anonymous_page", "shared without a file: SIGBUS")
        return VM_FAULT_SIGBUS
    if pte_alloc(mm, vmf.pmd):
        return VM_FAULT_OOM
    if not vmf.flags & FAULT_FLAG_WRITE and not mm_forbids_zeropage(mm):
        return _map_zero_page(vmf)
    ret = vmf_anon_prepare(vmf)
    if ret:
        return ret
    folio = alloc_anon_folio(vmf)
    if isinstance(folio, int):
        return 0
    if folio is None:
        return VM_FAULT_OOM
    nr_pages = folio_nr_pages(folio)
    addr = ALIGN_DOWN(vmf.address, nr_pages * PAGE_SIZE)
    folio.flags |= _UPTODATE
    entry = pfn_pte(folio.pfn, vma.vm_page_prot)
    if vma.vm_flags & VM_WRITE:
        entry = pte_mkwrite(pte_mkdirty(entry), vma)
    if _lock_pte(vmf, addr) is None:
        swap.folio_put(folio)
        return 0
    assert vmf.pte is not None
    changed = vmf_pte_changed(vmf) if nr_pages == 1 else not pte_range_none(vmf.pte, nr_pages)
    ret = 0 if changed else check_stable_address_space(mm)
    if changed or ret:
        _step(vmf, "do_anonymous_page", "entry changed meanwhile" if changed else "unstable mm")
        swap.folio_put(folio)
        _unlock_pte(vmf)
        return ret
    _step(vmf, "do_anonymous_page", f"new folio of {nr_pages} page{'s'[: nr_pages > 1]}")
    swap.folio_ref_add(folio, nr_pages - 1)
    add_mm_counter(mm, MM_ANONPAGES, nr_pages)
    rmap.folio_add_new_anon_rmap(folio, vma, addr, rmap.RMAP_EXCLUSIVE)
    swap.folio_add_lru_vma(folio, vma)
    set_ptes(mm, addr, vmf.pte, entry, nr_pages)
    _unlock_pte(vmf)
    return 0


# --- files ------------------------------------------------------------------------------------


def __do_fault(vmf: VmFault) -> int:
    """Ask the mapping's owner for the page; it comes back locked.

    Simplified: no owner returns a poisoned page (VM_FAULT_HWPOISON).

    Mirrors mm/memory.c:__do_fault().
    """
    vma = vmf.vma
    assert vmf.pmd is not None and vma.vm_ops is not None and vma.vm_ops.fault is not None
    if pmd_none(vmf.pmd[0][vmf.pmd[1]]) and vmf.prealloc_pte is None:
        vmf.prealloc_pte = pg.pte_alloc_one(vma.vm_mm)
        if vmf.prealloc_pte is None:
            return VM_FAULT_OOM
    ret = vma.vm_ops.fault(vmf)
    _step(vmf, "__do_fault", vm_fault_str(ret))
    if ret & (_FAILED | VM_FAULT_DONE_COW):
        return ret
    folio = vmf.folio
    assert folio is not None
    if not ret & VM_FAULT_LOCKED:
        folio.flags |= _LOCKED
    elif not folio.flags & _LOCKED:
        raise KernelBug(f"->fault says that {folio!r} is locked, and it is not")
    return ret


def set_pte_range(vmf: VmFault, folio: Folio, page: Page, nr: int, addr: int) -> None:
    """Map @nr pages of @folio at @addr; a private write maps it as new anonymous memory.

    Mirrors mm/memory.c:set_pte_range().
    """
    vma = vmf.vma
    write = vmf.flags & FAULT_FLAG_WRITE
    assert vmf.pte is not None
    entry = pfn_pte(page.pfn, vma.vm_page_prot)
    if write:
        entry = maybe_mkwrite(pte_mkdirty(entry), vma)
    if write and not vma.vm_flags & VM_SHARED:
        rmap.folio_add_new_anon_rmap(folio, vma, addr, rmap.RMAP_EXCLUSIVE)
        swap.folio_add_lru_vma(folio, vma)
    else:
        rmap.folio_add_file_rmap_ptes(folio, page, nr, vma)
    set_ptes(vma.vm_mm, addr, vmf.pte, entry, nr)


def finish_fault(vmf: VmFault) -> int:
    """Map the page that ->fault found, or its private copy.

    Simplified: one page at a time, also of large folios; no PMD mapping of files.

    Mirrors mm/memory.c:finish_fault().
    """
    vma = vmf.vma
    mm = vma.vm_mm
    assert vmf.pmd is not None
    is_cow = vmf.flags & FAULT_FLAG_WRITE and not vma.vm_flags & VM_SHARED
    page = vmf.cow_page if is_cow else vmf.page
    assert page is not None
    folio = page_folio(page)
    if not vma.vm_flags & VM_SHARED:
        ret = check_stable_address_space(mm)
        if ret:
            return ret
    if pmd_none(vmf.pmd[0][vmf.pmd[1]]):
        if vmf.prealloc_pte is not None:
            if pg.pmd_install(mm, vmf.pmd, vmf.prealloc_pte):
                vmf.prealloc_pte = None
        elif pte_alloc(mm, vmf.pmd):
            return VM_FAULT_OOM
    if _lock_pte(vmf, vmf.address) is None:
        return VM_FAULT_NOPAGE
    if vmf_pte_changed(vmf):
        _step(vmf, "finish_fault", "entry changed meanwhile")
        ret = VM_FAULT_NOPAGE
    else:
        _step(vmf, "finish_fault", "private copy mapped" if is_cow else "page mapped")
        set_pte_range(vmf, folio, page, 1, vmf.address)
        add_mm_counter(mm, MM_ANONPAGES if is_cow else mm_counter_file(folio), 1)
        ret = 0
    _unlock_pte(vmf)
    return ret


def fault_around_bytes_set(m: Machine, val: int) -> int:
    """Set how much do_fault_around() maps, as /sys/kernel/debug/fault_around_bytes does.

    :return: 0, or -EINVAL above one page table's reach (2 MiB)

    Mirrors mm/memory.c:fault_around_bytes_set().
    """
    if val < 0 or val // PAGE_SIZE > 512:
        return -EINVAL
    pages = max(val, PAGE_SIZE) >> PAGE_SHIFT
    m.fault_around_pages = 1 << (pages.bit_length() - 1)
    return 0


def do_fault_around(vmf: VmFault) -> int:
    """Map the cached pages around the fault: a naturally aligned window inside VMA and table.

    Mirrors mm/memory.c:do_fault_around().
    """
    vma = vmf.vma
    assert vmf.pmd is not None and vma.vm_ops is not None and vma.vm_ops.map_pages is not None
    nr_pages = _machine(vma.vm_mm).fault_around_pages
    pte_off = vmf.address >> PAGE_SHIFT & 511
    vma_off = vmf.pgoff - vma.vm_pgoff
    from_pte = max(ALIGN_DOWN(pte_off, nr_pages), pte_off - min(pte_off, vma_off))
    to_pte = min(from_pte + nr_pages, 512, pte_off + vma_pages(vma) - vma_off) - 1
    if pmd_none(vmf.pmd[0][vmf.pmd[1]]):
        vmf.prealloc_pte = pg.pte_alloc_one(vma.vm_mm)
        if vmf.prealloc_pte is None:
            return VM_FAULT_OOM
    _step(vmf, "do_fault_around", f"{from_pte}..{to_pte}")
    return vma.vm_ops.map_pages(vmf, vmf.pgoff + from_pte - pte_off, vmf.pgoff + to_pte - pte_off)


def should_fault_around(vmf: VmFault) -> bool:
    """Tell whether the pages around are worth a try.

    Mirrors mm/memory.c:should_fault_around().
    """
    ops = vmf.vma.vm_ops
    if ops is None or ops.map_pages is None:
        return False
    return _machine(vmf.vma.vm_mm).fault_around_pages > 1


def do_read_fault(vmf: VmFault) -> int:
    """Read from a file mapping: fault-around first, ->fault if the page is not cached.

    Mirrors mm/memory.c:do_read_fault().
    """
    if should_fault_around(vmf):
        ret = do_fault_around(vmf)
        if ret:
            _step(vmf, "do_read_fault", f"fault-around: {vm_fault_str(ret)}")
            return ret
    ret = vmf_can_call_fault(vmf)
    if ret:
        return ret
    ret = __do_fault(vmf)
    if ret & _FAILED:
        return ret
    ret |= finish_fault(vmf)
    folio = vmf.folio
    assert folio is not None
    folio.flags &= ~_LOCKED
    if ret & _FAILED:
        swap.folio_put(folio)
    return ret


def do_cow_fault(vmf: VmFault) -> int:
    """Write to a private file mapping: the page is copied at once.

    Mirrors mm/memory.c:do_cow_fault().
    """
    vma = vmf.vma
    ret = vmf_can_call_fault(vmf)
    if not ret:
        ret = vmf_anon_prepare(vmf)
    if ret:
        return ret
    folio = folio_prealloc(vma, vmf.address, False)
    if folio is None:
        return VM_FAULT_OOM
    vmf.cow_page = folio
    ret = __do_fault(vmf)
    if ret & _FAILED:
        swap.folio_put(folio)
        return ret
    if ret & VM_FAULT_DONE_COW:
        return ret
    folio.flags |= _UPTODATE
    ret |= finish_fault(vmf)
    source = vmf.folio
    assert source is not None
    source.flags &= ~_LOCKED
    swap.folio_put(source)
    if ret & _FAILED:
        swap.folio_put(folio)
    return ret


def do_page_mkwrite(vmf: VmFault, folio: Folio) -> int:
    """Tell the file system that the page is about to become writable.

    Mirrors mm/memory.c:do_page_mkwrite().
    """
    ops = vmf.vma.vm_ops
    assert ops is not None and ops.page_mkwrite is not None
    old_flags = vmf.flags
    vmf.flags = FAULT_FLAG_WRITE | FAULT_FLAG_MKWRITE
    ret = ops.page_mkwrite(vmf)
    vmf.flags = old_flags
    if ret & (VM_FAULT_ERROR | VM_FAULT_NOPAGE):
        return ret
    if not ret & VM_FAULT_LOCKED:
        folio.flags |= _LOCKED
        if folio.mapping is None:
            folio.flags &= ~_LOCKED
            return 0
        ret |= VM_FAULT_LOCKED
    return ret


def fault_dirty_shared_page(vmf: VmFault) -> int:
    """Mark the page cache page dirty and unlock it.

    Simplified: nobody is throttled (chapter 11).

    Mirrors mm/memory.c:fault_dirty_shared_page().
    """
    folio = vmf.folio
    assert folio is not None
    folio.flags |= 1 << PG_dirty
    folio.flags &= ~_LOCKED
    return 0


def do_shared_fault(vmf: VmFault) -> int:
    """Write to a shared file mapping: the page cache page itself becomes writable and dirty.

    Mirrors mm/memory.c:do_shared_fault().
    """
    ret = vmf_can_call_fault(vmf)
    if ret:
        return ret
    ret = __do_fault(vmf)
    if ret & _FAILED:
        return ret
    folio = vmf.folio
    ops = vmf.vma.vm_ops
    assert folio is not None and ops is not None
    if ops.page_mkwrite is not None:
        folio.flags &= ~_LOCKED
        tmp = do_page_mkwrite(vmf, folio)
        if not tmp or tmp & (VM_FAULT_ERROR | VM_FAULT_NOPAGE):
            swap.folio_put(folio)
            return tmp
    ret |= finish_fault(vmf)
    if ret & _FAILED:
        folio.flags &= ~_LOCKED
        swap.folio_put(folio)
        return ret
    return ret | fault_dirty_shared_page(vmf)


def do_fault(vmf: VmFault) -> int:
    """Fault in a mapping that has an owner: a read, a private write, or a shared write.

    Mirrors mm/memory.c:do_fault().
    """
    vma = vmf.vma
    assert vma.vm_ops is not None and vmf.pmd is not None
    if vma.vm_ops.fault is None:
        if _lock_pte(vmf, vmf.address) is None:
            ret = VM_FAULT_SIGBUS
        else:
            assert vmf.pte is not None
            none = pte_none(vmf.pte[0][vmf.pte[1]])
            ret = VM_FAULT_SIGBUS if none else VM_FAULT_NOPAGE
            _unlock_pte(vmf)
    elif not vmf.flags & FAULT_FLAG_WRITE:
        _step(vmf, "do_fault", "read")
        ret = do_read_fault(vmf)
    elif not vma.vm_flags & VM_SHARED:
        _step(vmf, "do_fault", "private write")
        ret = do_cow_fault(vmf)
    else:
        _step(vmf, "do_fault", "shared write")
        ret = do_shared_fault(vmf)
    if vmf.prealloc_pte is not None:
        pg.pte_free(vma.vm_mm, vmf.prealloc_pte)
        vmf.prealloc_pte = None
    return ret


# --- entries that are there -------------------------------------------------------------------


def do_pte_missing(vmf: VmFault) -> int:
    """Fault where there is no entry.

    Mirrors mm/memory.c:do_pte_missing().
    """
    if vma_is_anonymous(vmf.vma):
        return do_anonymous_page(vmf)
    return do_fault(vmf)


def handle_pte_marker(vmf: VmFault) -> int:
    """Fault on a marker: a poisoned one kills, others fault again without it.

    Mirrors mm/memory.c:handle_pte_marker().
    """
    marker = swapops.pte_marker_get(swapops.pte_to_swp_entry(vmf.orig_pte))
    if not marker:
        return VM_FAULT_SIGBUS
    if marker & swapops.PTE_MARKER_POISONED:
        return VM_FAULT_HWPOISON
    if _lock_pte(vmf, vmf.address) is None:
        return 0
    assert vmf.pte is not None
    if vmf.pte[0][vmf.pte[1]] == vmf.orig_pte:
        vmf.pte[0][vmf.pte[1]] = 0
    _unlock_pte(vmf)
    return 0


def do_swap_page(vmf: VmFault) -> int:
    """Fault on an entry that is neither empty nor a mapping.

    Simplified: the pages of a large folio come back one by one; swapped shared memory, KSM and poisoned
    pages do not occur; on a machine without any swap area an entry's page is made anew.

    Mirrors mm/memory.c:do_swap_page().
    """
    m = _machine(vmf.vma.vm_mm)
    entry = swapops.pte_to_swp_entry(vmf.orig_pte)
    if swapops.non_swap_entry(entry):
        if swapops.is_migration_entry(entry):
            _step(vmf, "do_swap_page", "migration entry: wait")
            return 0
        if swapops.is_pte_marker_entry(entry):
            _step(vmf, "do_swap_page", "marker")
            return handle_pte_marker(vmf)
        if swapops.swp_type(entry) == swapops.SWP_HWPOISON:
            return VM_FAULT_HWPOISON
        return VM_FAULT_SIGBUS
    if not m.swap.swap_info:
        return _swap_page_of_no_area(vmf)
    si = swapfile.swp_swap_info(m, entry)
    if si is None or swapops.swp_offset(entry) >= si.max:
        return 0
    ret = 0
    direct = False
    folio = swap_state.swap_cache_get_folio(m, entry, vmf.vma, vmf.address)
    if folio is None:
        direct = bool(
            si.flags & swapfile.SWP_SYNCHRONOUS_IO and swapfile.swap_swapcount(m, entry) == 1
        )
        if direct:
            folio = _swapin_direct(vmf, entry)
        else:
            folio = swap_state.swapin_readahead(m, entry, gfp_.GFP_HIGHUSER_MOVABLE, vmf)
        if folio is None:
            unchanged = _lock_pte(vmf, vmf.address) is not None and not vmf_pte_changed(vmf)
            if vmf.pte is not None:
                _unlock_pte(vmf)
            return VM_FAULT_OOM if unchanged else 0
        ret = VM_FAULT_MAJOR
        m.vm_event[PGMAJFAULT] += 1
        memcontrol.count_memcg_event_mm(m, vmf.vma.vm_mm, PGMAJFAULT)
    ret |= _map_swapped_page(vmf, entry, folio, direct)
    if direct:
        swapfile.swapcache_clear(m, si, entry, 1)
    return ret


def _swapin_direct(vmf: VmFault, entry: int) -> Folio | None:
    """Read a slot that only one entry names without the swap cache; the folio comes back locked.

    Simplified: single pages.

    Mirrors mm/memory.c:alloc_swap_folio().
    """
    m = _machine(vmf.vma.vm_mm)
    _step(vmf, "do_swap_page", "read from swap, past the cache")
    folio = vma_alloc_folio(gfp_.GFP_HIGHUSER_MOVABLE, 0, vmf.vma, vmf.address)
    if folio is None:
        return None
    if not memcontrol.mem_cgroup_disabled(m) and memcontrol.mem_cgroup_swapin_charge_folio(
        folio, vmf.vma.vm_mm, gfp_.GFP_KERNEL, entry
    ):
        swap.folio_put(folio)
        return None
    folio.flags |= _LOCKED | 1 << PG_swapbacked
    if swapfile.swapcache_prepare(m, entry, 1):
        raise KernelBug(f"slot {swapops.swp_offset(entry)} is cached and was not found")
    shadow = swap_state.get_shadow_from_swap_cache(m, entry)
    if shadow is not None:
        workingset.workingset_refault(folio, shadow)
    swap.folio_add_lru(folio)
    swap_state.swap_read_folio(folio)
    return folio


def should_try_to_free_swap(folio: Folio, vma: VmAreaStruct, fault_flags: int) -> bool:
    """Tell whether the slot of a page that is back in memory should be given back.

    Mirrors mm/memory.c:should_try_to_free_swap().
    """
    if not folio.flags >> PG_swapcache & 1:
        return False
    if memcontrol.mem_cgroup_swap_full(folio) or vma.vm_flags & VM_LOCKED:
        return True
    wants = fault_flags & FAULT_FLAG_WRITE != 0
    return wants and folio._refcount == 1 + folio_nr_pages(folio)


def _map_swapped_page(vmf: VmFault, entry: int, folio: Folio, direct: bool) -> int:
    """Map a page that is back from swap, and take the entry's use from its slot."""
    vma = vmf.vma
    mm = vma.vm_mm
    m = _machine(mm)
    folio.flags |= _LOCKED
    if vmf.flags & FAULT_FLAG_WRITE and not direct and not folio.flags >> PG_lru & 1:
        swap.lru_add_drain(m)
    if _lock_pte(vmf, vmf.address) is None or vmf_pte_changed(vmf):
        if vmf.pte is not None:
            _unlock_pte(vmf)
        folio.flags &= ~_LOCKED
        swap.folio_put(folio)
        return 0
    assert vmf.pte is not None
    page = folio if direct else pfn_to_page(m, folio.pfn + entry - folio.private)
    exclusive = pg.pte_swp_exclusive(vmf.orig_pte) or direct
    swapfile.swap_free_nr(m, entry)
    if should_try_to_free_swap(folio, vma, vmf.flags):
        swapfile.folio_free_swap(folio)
    add_mm_counter(mm, MM_ANONPAGES, 1)
    add_mm_counter(mm, MM_SWAPENTS, -1)
    pte = pfn_pte(page.pfn, vma.vm_page_prot)
    if pg.pte_swp_soft_dirty(vmf.orig_pte):
        pte = pg.pte_mksoft_dirty(pte)
    rmap_flags = rmap.RMAP_NONE
    if exclusive or folio._refcount == 1:
        if vma.vm_flags & VM_WRITE:
            pte = pte_mkwrite(pte, vma)
            if vmf.flags & FAULT_FLAG_WRITE:
                pte = pte_mkdirty(pte)
                vmf.flags &= ~FAULT_FLAG_WRITE
        rmap_flags = rmap.RMAP_EXCLUSIVE
    vmf.orig_pte = pte
    if not rmap.folio_test_anon(folio):
        rmap.folio_add_new_anon_rmap(folio, vma, vmf.address, rmap_flags)
    else:
        rmap.folio_add_anon_rmap_ptes(folio, page, 1, vma, vmf.address, rmap_flags)
    set_ptes(mm, vmf.address, vmf.pte, pte, 1)
    folio.flags &= ~_LOCKED
    _step(vmf, "do_swap_page", "back from swap" + (", exclusive" if rmap_flags else ""))
    if vmf.flags & FAULT_FLAG_WRITE:
        ret = do_wp_page(vmf)
        return ret & VM_FAULT_ERROR or ret
    _unlock_pte(vmf)
    return 0


def _swap_page_of_no_area(vmf: VmFault) -> int:
    """Give a page back whose entry was written by hand: the machine has no swap area to read from."""
    vma = vmf.vma
    mm = vma.vm_mm
    m = _machine(mm)
    _step(vmf, "do_swap_page", "read from swap")
    ret = vmf_anon_prepare(vmf)
    if ret:
        return ret
    folio = folio_prealloc(vma, vmf.address, False)
    if folio is None:
        return VM_FAULT_OOM
    m.vm_event[PGMAJFAULT] += 1
    folio.flags |= _UPTODATE
    if _lock_pte(vmf, vmf.address) is None or vmf_pte_changed(vmf):
        if vmf.pte is not None:
            _unlock_pte(vmf)
        swap.folio_put(folio)
        return VM_FAULT_MAJOR
    assert vmf.pte is not None
    exclusive = pg.pte_swp_exclusive(vmf.orig_pte)
    pte = pfn_pte(folio.pfn, vma.vm_page_prot)
    if pg.pte_swp_soft_dirty(vmf.orig_pte):
        pte = pg.pte_mksoft_dirty(pte)
    if vmf.flags & FAULT_FLAG_WRITE:  # nobody else holds the new folio
        exclusive = True
    if exclusive and vma.vm_flags & VM_WRITE:
        pte = pte_mkwrite(pte_mkdirty(pte) if vmf.flags & FAULT_FLAG_WRITE else pte, vma)
    add_mm_counter(mm, MM_ANONPAGES, 1)
    add_mm_counter(mm, MM_SWAPENTS, -1)
    flags = rmap.RMAP_EXCLUSIVE if exclusive else rmap.RMAP_NONE
    rmap.folio_add_new_anon_rmap(folio, vma, vmf.address, flags)
    swap.folio_add_lru_vma(folio, vma)
    set_ptes(mm, vmf.address, vmf.pte, pte, 1)
    _unlock_pte(vmf)
    return VM_FAULT_MAJOR


def do_numa_page(vmf: VmFault) -> int:
    """Fault on an entry that NUMA balancing made inaccessible: make it accessible again.

    Simplified: never migrates (chapter 8).

    Mirrors mm/memory.c:do_numa_page().
    """
    vma = vmf.vma
    assert vmf.pte is not None
    spin_lock_ptl(vma.vm_mm, vmf.pte[0])
    table, i = vmf.pte
    if table[i] == vmf.orig_pte:
        _step(vmf, "do_numa_page", "accessible again")
        pte = pte_mkyoung(pte_modify(vmf.orig_pte, vma.vm_page_prot))
        if pte_write(pte):
            pte = pte_mkwrite(pte, vma)
        table[i] = pte
    _unlock_pte(vmf)
    return 0


def wp_page_reuse(vmf: VmFault, folio: Folio | None) -> None:
    """Make the entry writable: the page is shared on purpose, or nobody else uses it.

    Mirrors mm/memory.c:wp_page_reuse().
    """
    vma = vmf.vma
    assert vmf.pte is not None
    if folio is not None and rmap.folio_test_anon(folio):
        if vmf.page is None or not rmap.PageAnonExclusive(vmf.page):
            raise KernelBug(f"{folio!r} is reused and not exclusive")
    _step(vmf, "wp_page_reuse", "writable")
    entry = pte_mkyoung(vmf.orig_pte)
    entry = maybe_mkwrite(pte_mkdirty(entry), vma)
    ptep_set_access_flags(vma, vmf.pte, entry, 1)
    _unlock_pte(vmf)
    _machine(vma.vm_mm).vm_event[PGREUSE] += 1


def wp_can_reuse_anon_folio(folio: Folio, vma: VmAreaStruct) -> bool:
    """Tell whether this mapping holds the only reference to @folio.

    Mirrors mm/memory.c:wp_can_reuse_anon_folio().
    """
    if folio.folio is not None or folio._refcount > 3:
        return False
    if not folio.flags >> PG_lru & 1:
        swap.lru_add_drain(_machine(vma.vm_mm))
    if folio._refcount > 1 + (folio.flags >> PG_swapcache & 1):
        return False
    if folio.flags & _LOCKED:
        return False
    folio.flags |= _LOCKED
    if folio.flags >> PG_swapcache & 1:
        swapfile.folio_free_swap(folio)
    folio.flags &= ~_LOCKED
    if folio._refcount != 1:
        return False
    rmap.folio_move_anon_rmap(folio, vma)
    return True


def wp_page_shared(vmf: VmFault, folio: Folio) -> int:
    """Write to a page of a shared mapping that is mapped read-only.

    Mirrors mm/memory.c:wp_page_shared().
    """
    ops = vmf.vma.vm_ops
    swap.folio_get(folio)
    if ops is not None and ops.page_mkwrite is not None:
        _unlock_pte(vmf)
        tmp = vmf_can_call_fault(vmf)
        if not tmp:
            tmp = do_page_mkwrite(vmf, folio)
            if tmp and not tmp & (VM_FAULT_ERROR | VM_FAULT_NOPAGE):
                tmp = finish_mkwrite_fault(vmf, folio)
                if tmp & (VM_FAULT_ERROR | VM_FAULT_NOPAGE):
                    folio.flags &= ~_LOCKED
                else:
                    ret = fault_dirty_shared_page(vmf)
                    swap.folio_put(folio)
                    return ret
        swap.folio_put(folio)
        return tmp
    wp_page_reuse(vmf, folio)
    folio.flags |= _LOCKED
    ret = fault_dirty_shared_page(vmf)
    swap.folio_put(folio)
    return ret


def finish_mkwrite_fault(vmf: VmFault, folio: Folio | None) -> int:
    """Make the entry writable after page_mkwrite, if it is still the same.

    Mirrors mm/memory.c:finish_mkwrite_fault().
    """
    if _lock_pte(vmf, vmf.address) is None:
        return VM_FAULT_NOPAGE
    assert vmf.pte is not None
    if vmf.pte[0][vmf.pte[1]] != vmf.orig_pte:
        _unlock_pte(vmf)
        return VM_FAULT_NOPAGE
    wp_page_reuse(vmf, folio)
    return 0


def do_wp_page(vmf: VmFault) -> int:
    """Write to a present, read-only page: share, reuse or copy. Enters with the PTL held.

    Mirrors mm/memory.c:do_wp_page().
    """
    vma = vmf.vma
    unshare = vmf.flags & FAULT_FLAG_UNSHARE
    vmf.page = vm_normal_page(vma, vmf.address, vmf.orig_pte)
    folio = vmf.folio
    if vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        if folio is None:
            wp_page_reuse(vmf, None)
            return 0
        _step(vmf, "do_wp_page", "shared")
        return wp_page_shared(vmf, folio)
    if folio is not None and rmap.folio_test_anon(folio):
        assert vmf.page is not None
        exclusive = rmap.PageAnonExclusive(vmf.page)
        if exclusive or wp_can_reuse_anon_folio(folio, vma):
            rmap.SetPageAnonExclusive(vmf.page)
            _step(vmf, "do_wp_page", "exclusive: reuse" if exclusive else "only user: reuse")
            if unshare:
                _unlock_pte(vmf)
                return 0
            wp_page_reuse(vmf, folio)
            return 0
    if folio is not None:
        swap.folio_get(folio)
    what = "zero page" if folio is None else "anonymous" if rmap.folio_test_anon(folio) else "file"
    _step(vmf, "do_wp_page", f"copy ({what})")
    _unlock_pte(vmf)
    return wp_page_copy(vmf)


def wp_page_copy(vmf: VmFault) -> int:
    """Give the mapping a page of its own.

    Mirrors mm/memory.c:wp_page_copy().
    """
    vma = vmf.vma
    mm = vma.vm_mm
    old_folio = vmf.folio
    ret = vmf_anon_prepare(vmf)
    new_folio: Folio | None = None
    if not ret:
        zero = is_zero_pfn(_machine(mm), pte_pfn(vmf.orig_pte))
        new_folio = folio_prealloc(vma, vmf.address, zero)
        if new_folio is None:
            ret = VM_FAULT_OOM
    if ret:
        if old_folio is not None:
            swap.folio_put(old_folio)
        return ret
    assert new_folio is not None
    new_folio.flags |= _UPTODATE
    drop = new_folio
    if _lock_pte(vmf, vmf.address) is not None:
        assert vmf.pte is not None
        if vmf.pte[0][vmf.pte[1]] == vmf.orig_pte:
            _replace_copied(vmf, old_folio, new_folio)
            drop = old_folio  # type: ignore[assignment]
        else:
            _step(vmf, "wp_page_copy", "entry changed meanwhile")
        _unlock_pte(vmf)
    if drop is not None:
        swap.folio_put(drop)
    if old_folio is not None:
        swap.folio_put(old_folio)
    return 0


def _replace_copied(vmf: VmFault, old_folio: Folio | None, new_folio: Folio) -> None:
    """Put the copy in the place of the old page: the locked part of wp_page_copy()."""
    vma = vmf.vma
    mm = vma.vm_mm
    assert vmf.pte is not None
    if old_folio is None:
        add_mm_counter(mm, MM_ANONPAGES, 1)
    elif not rmap.folio_test_anon(old_folio):
        add_mm_counter(mm, mm_counter_file(old_folio), -1)
        add_mm_counter(mm, MM_ANONPAGES, 1)
    entry = pfn_pte(new_folio.pfn, vma.vm_page_prot)
    if vmf.flags & FAULT_FLAG_UNSHARE:
        if pg.pte_soft_dirty(vmf.orig_pte):
            entry = pg.pte_mksoft_dirty(entry)
    else:
        entry = maybe_mkwrite(pte_mkdirty(entry), vma)
    _step(vmf, "wp_page_copy", "copied")
    ptep_clear_flush(vma, vmf.address, vmf.pte)
    rmap.folio_add_new_anon_rmap(new_folio, vma, vmf.address, rmap.RMAP_EXCLUSIVE)
    swap.folio_add_lru_vma(new_folio, vma)
    set_ptes(mm, vmf.address, vmf.pte, entry, 1)
    if old_folio is not None:
        assert vmf.page is not None
        rmap.folio_remove_rmap_ptes(old_folio, vmf.page, 1, vma)


# --- the way in -------------------------------------------------------------------------------


def handle_pte_fault(vmf: VmFault) -> int:
    """Fault at the lowest level: dispatch on what the entry holds.

    Mirrors mm/memory.c:handle_pte_fault().
    """
    assert vmf.pmd is not None
    if pmd_none(vmf.pmd[0][vmf.pmd[1]]):
        vmf.pte = None
        vmf.flags &= ~FAULT_FLAG_ORIG_PTE_VALID
    else:
        vmf.pte = pte_offset_map_nolock(vmf.vma.vm_mm, vmf.pmd, vmf.address)
        if vmf.pte is None:
            _step(vmf, "handle_pte_fault", "table gone: retry")
            return 0
        vmf.orig_pte = ptep_get(vmf.pte)
        vmf.flags |= FAULT_FLAG_ORIG_PTE_VALID
        if pte_none(vmf.orig_pte):
            vmf.pte = None
    if vmf.pte is None:
        _step(vmf, "handle_pte_fault", "none")
        return do_pte_missing(vmf)
    if not pte_present(vmf.orig_pte):
        _step(vmf, "handle_pte_fault", "swap")
        return do_swap_page(vmf)
    if pte_protnone(vmf.orig_pte) and vma_is_accessible(vmf.vma):
        _step(vmf, "handle_pte_fault", "protnone")
        return do_numa_page(vmf)
    mm = vmf.vma.vm_mm
    if mm.machine is not None:
        race_point(mm.machine, "spin_lock(ptl)")
    spin_lock_ptl(mm, vmf.pte[0])
    entry = vmf.orig_pte
    if not pte_same(ptep_get(vmf.pte), entry):
        _step(vmf, "handle_pte_fault", "entry changed meanwhile")
        _unlock_pte(vmf)
        return 0
    if vmf.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE):
        if not pte_write(entry):
            _step(vmf, "handle_pte_fault", "wp")
            return do_wp_page(vmf)
        if vmf.flags & FAULT_FLAG_WRITE:
            entry = pte_mkdirty(entry)
    entry = pte_mkyoung(entry)
    changed = ptep_set_access_flags(vmf.vma, vmf.pte, entry, vmf.flags & FAULT_FLAG_WRITE)
    _step(vmf, "handle_pte_fault", "access flags" if changed else "spurious")
    _unlock_pte(vmf)
    return 0


def get_fault_gfp_mask(vma: VmAreaStruct) -> int:
    """Return the allocation flags for a fault in @vma.

    Mirrors mm/memory.c:__get_fault_gfp_mask().
    """
    if vma.vm_file is not None:
        gfp_mask: int = vma.vm_file.f_mapping.gfp_mask
        return gfp_mask | _GFP_FS_IO
    return gfp_.GFP_KERNEL


def __handle_mm_fault(vma: VmAreaStruct, address: int, flags: int) -> int:
    """Allocate the tables down to the PMD and see whether a huge page will do.

    Simplified: no huge page of PUD size (create_huge_pud(), wp_huge_pud() and the second look at the PUD
    under pmd_alloc()), which only DAX devices have; no devmap PMDs; a PMD migration entry is waited for by
    trying again; no NUMA hint of a whole PMD (do_huge_pmd_numa_page(), chapter 8).

    Mirrors mm/memory.c:__handle_mm_fault().
    """
    vmf = VmFault(
        vma,
        address & -PAGE_SIZE,
        address,
        flags,
        linear_page_index(vma, address),
        get_fault_gfp_mask(vma),
    )
    mm = vma.vm_mm
    p4d = pg.p4d_alloc(mm, pg.pgd_offset(mm, address), address)
    if p4d is None:
        return VM_FAULT_OOM
    vmf.pud = pg.pud_alloc(mm, p4d, address)
    if vmf.pud is None:
        return VM_FAULT_OOM
    vmf.pmd = pg.pmd_alloc(mm, vmf.pud, address)
    if vmf.pmd is None:
        return VM_FAULT_OOM
    pmd = vmf.pmd[0][vmf.pmd[1]]
    if pmd_none(pmd):
        if huge_memory.thp_vma_allowable_orders(vma, vma.vm_flags, 1 << 9):
            ret = huge_memory.create_huge_pmd(vmf)
            _step(vmf, "create_huge_pmd", vm_fault_str(ret))
            if not ret & VM_FAULT_FALLBACK:
                return ret
        return handle_pte_fault(vmf)
    vmf.orig_pte = pmd
    if not pmd_present(pmd):
        _step(vmf, "__handle_mm_fault", "PMD migration entry: wait")
        return 0
    if pmd_trans_huge(pmd):
        if flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE) and not pte_write(pmd):
            ret = huge_memory.do_huge_pmd_wp_page(vmf)
            _step(vmf, "wp_huge_pmd", vm_fault_str(ret))
            if not ret & VM_FAULT_FALLBACK:
                return ret
        else:
            huge_memory.huge_pmd_set_accessed(vmf)
            return 0
    return handle_pte_fault(vmf)


def sanitize_fault_flags(vma: VmAreaStruct, flags: int) -> tuple[int, int]:
    """Check the flags against each other and the VMA: (VM_FAULT bits, flags).

    Mirrors mm/memory.c:sanitize_fault_flags().
    """
    if flags & FAULT_FLAG_UNSHARE:
        if flags & FAULT_FLAG_WRITE:
            return VM_FAULT_SIGSEGV, flags
        if not is_cow_mapping(vma.vm_flags):
            flags &= ~FAULT_FLAG_UNSHARE
    elif flags & FAULT_FLAG_WRITE:
        if not vma.vm_flags & VM_MAYWRITE:
            return VM_FAULT_SIGSEGV, flags
        if not vma.vm_flags & VM_WRITE and not is_cow_mapping(vma.vm_flags):
            return VM_FAULT_SIGSEGV, flags
    both = FAULT_FLAG_VMA_LOCK | FAULT_FLAG_RETRY_NOWAIT
    if flags & both == both:
        return VM_FAULT_SIGSEGV, flags
    return 0, flags


def mm_account_fault(m: Machine, mm: MmStruct, flags: int, ret: int) -> None:
    """Count a completed fault: PGFAULT always, min_flt or maj_flt of the task if it succeeded.

    Mirrors mm/memory.c:mm_account_fault().
    """
    if ret & VM_FAULT_RETRY:
        return
    m.vm_event[PGFAULT] += 1
    memcontrol.count_memcg_event_mm(m, mm, PGFAULT)
    if ret & VM_FAULT_ERROR:
        return
    task = m.current
    if not hasattr(task, "min_flt"):
        return
    if ret & VM_FAULT_MAJOR or flags & FAULT_FLAG_TRIED:
        task.maj_flt += 1
    else:
        task.min_flt += 1


def handle_mm_fault(vma: VmAreaStruct, address: int, flags: int, regs: PtRegs | None = None) -> int:
    """Handle a fault at @address in @vma, under the VMA's lock or mmap_lock.

    :param flags: FAULT_FLAG bits
    :return: VM_FAULT bits; with VM_FAULT_RETRY or COMPLETED the lock has been given back

    Simplified: no OOM killer of a memory cgroup that waits until the fault is over
    (mem_cgroup_oom_synchronize()), no hugetlb_fault(), no count of perf events.

    Mirrors mm/memory.c:handle_mm_fault().
    """
    mm = vma.vm_mm
    m = _machine(mm)
    droppable = vma.vm_flags & VM_DROPPABLE
    ret, flags = sanitize_fault_flags(vma, flags)
    if not ret and not fault_.arch_vma_access_permitted(
        vma, bool(flags & FAULT_FLAG_WRITE), bool(flags & FAULT_FLAG_INSTRUCTION)
    ):
        ret = VM_FAULT_SIGSEGV
    if not ret:
        task = m.current
        counts = hasattr(task, "in_lru_fault")
        if counts:
            task.in_lru_fault = True
        ret = __handle_mm_fault(vma, address, flags)
        if counts:
            task.in_lru_fault = False
        if droppable:
            ret &= ~VM_FAULT_OOM
    mm_account_fault(m, mm, flags, ret)
    if m.trace.on:
        m.trace.emit("model:fault_step", "handle_mm_fault", vm_fault_str(ret), "")
    return ret


# --- finding and locking the VMA --------------------------------------------------------------


def lock_vma_under_rcu(m: Machine, mm: MmStruct, address: int) -> VmAreaStruct | None:
    """Find and read-lock the VMA of @address without mmap_lock; None: use mmap_lock instead.

    Mirrors mm/memory.c:lock_vma_under_rcu().
    """

    def step(text: str, lock: str) -> None:
        if m.trace.on:
            m.trace.emit("model:fault_step", "lock_vma_under_rcu", text, lock)

    while m.config.PER_VMA_LOCK:
        vma = mm.mm_mt.walk(address)
        race_point(m, "mas_walk")
        if vma is None:
            step("no vma", "rcu")
            break
        if not vma_start_read(vma):
            step("write-locked", "rcu")
            break
        if vma.detached:
            vma_end_read(vma)
            m.vma_lock_event["vma_lock_miss"] += 1
            step("detached", "rcu")
            continue
        if address < vma.vm_start or address >= vma.vm_end:
            vma_end_read(vma)
            step("range changed", "rcu")
            break
        step("ok", "vma")
        return vma
    m.vma_lock_event["vma_lock_abort"] += 1
    return None


def lock_mm_and_find_vma(mm: MmStruct, addr: int, regs: PtRegs | None) -> VmAreaStruct | None:
    """Take mmap_lock for reading and find the VMA; grows a stack. None: neither, and no lock held.

    Mirrors mm/memory.c:lock_mm_and_find_vma().
    """
    if not mmap_read_trylock(mm):
        if regs is not None and not regs.user_mode and not regs.extable:
            return None
        mmap_read_lock(mm)
    vma = vma_.find_vma(mm, addr)
    if vma is not None and vma.vm_start <= addr:
        return vma
    mmap_read_unlock(mm)
    if vma is None or not vma.vm_flags & VM_GROWSDOWN:
        return None
    if regs is not None and not regs.user_mode and not regs.extable:
        return None
    mmap_write_lock(mm)
    vma = vma_.find_vma(mm, addr)
    if vma is None or (
        vma.vm_start > addr
        and (not vma.vm_flags & VM_GROWSDOWN or mmap.expand_stack_locked(vma, addr))
    ):
        mmap_write_unlock(mm)
        return None
    mmap_write_downgrade(mm)
    return vma


# --- fork -------------------------------------------------------------------------------------


def _pmd_ranges(mm: MmStruct, addr: int, end: int) -> Iterator[tuple[Ptep, int, int]]:
    """Yield (pmd, address, end) for every PMD entry in a range whose table exists.

    Stands for the loops over pgd, p4d and pud entries.
    """
    while addr < end:
        pgd = pg.pgd_offset(mm, addr)
        if pmd_none(pgd[0][pgd[1]]):
            addr = (addr >> pg.pgdir_shift(mm.levels)) + 1 << pg.pgdir_shift(mm.levels)
            continue
        p4d = pg.p4d_offset(pgd, addr)
        if pmd_none(p4d[0][p4d[1]]):
            addr = (addr >> 39) + 1 << 39
            continue
        pud = pg.pud_offset(p4d, addr)
        if pmd_none(pud[0][pud[1]]):
            addr = (addr >> 30) + 1 << 30
            continue
        following = min((addr >> 21) + 1 << 21, end)
        yield pg.pmd_offset(pud, addr), addr, following
        addr = following


def _add_mm_rss_vec(mm: MmStruct, rss: list[int]) -> None:
    for member, value in enumerate(rss):
        if value:
            add_mm_counter(mm, member, value)


def _copy_ptes(
    dst_vma: VmAreaStruct,
    src_vma: VmAreaStruct,
    dst_pte: Ptep,
    src_pte: Ptep,
    pte: int,
    nr: int,
) -> None:
    """Write the child's entries; copy-on-write mappings become read-only in both.

    Mirrors mm/memory.c:__copy_present_ptes().
    """
    if is_cow_mapping(src_vma.vm_flags) and pte_write(pte):
        table, i = src_pte
        for n in range(i, i + nr):
            ptep_set_wrprotect(src_vma.vm_mm, 0, (table, n))
        pte = pte_wrprotect(pte)
    if src_vma.vm_flags & VM_SHARED:
        pte = pte_mkclean(pte)
    pte = pg.pte_clear_uffd_wp(pte_mkold(pte))
    set_ptes(dst_vma.vm_mm, 0, dst_pte, pte, nr)


def copy_present_ptes(
    dst_vma: VmAreaStruct,
    src_vma: VmAreaStruct,
    dst_pte: Ptep,
    src_pte: Ptep,
    pte: int,
    addr: int,
    rss: list[int],
) -> int:
    """Copy one present entry to the child: 1, or -EAGAIN if the child needs its own page now.

    Simplified: page by page, also for large folios (the kernel copies a run of them at once).

    Mirrors mm/memory.c:copy_present_ptes().
    """
    page = vm_normal_page(src_vma, addr, pte)
    if page is not None:
        folio = page_folio(page)
        swap.folio_get(folio)
        if rmap.folio_test_anon(folio):
            if rmap.folio_try_dup_anon_rmap_ptes(folio, page, 1, src_vma):
                swap.folio_put(folio)
                return -EAGAIN
            rss[MM_ANONPAGES] += 1
        else:
            rmap.folio_dup_file_rmap_pte(folio, page)
            rss[mm_counter_file(folio)] += 1
    _copy_ptes(dst_vma, src_vma, dst_pte, src_pte, pte, 1)
    return 1


def copy_present_page(
    dst_vma: VmAreaStruct, src_vma: VmAreaStruct, dst_pte: Ptep, addr: int, rss: list[int]
) -> int:
    """Give the child a copy of a page that may be pinned: 0 or -ENOMEM.

    Mirrors mm/memory.c:copy_present_page().
    """
    folio = folio_prealloc(src_vma, addr, False)
    if folio is None:
        return -ENOMEM
    folio.flags |= _UPTODATE
    rmap.folio_add_new_anon_rmap(folio, dst_vma, addr, rmap.RMAP_EXCLUSIVE)
    swap.folio_add_lru_vma(folio, dst_vma)
    rss[MM_ANONPAGES] += 1
    pte = maybe_mkwrite(pte_mkdirty(pfn_pte(folio.pfn, dst_vma.vm_page_prot)), dst_vma)
    set_ptes(dst_vma.vm_mm, addr, dst_pte, pte, 1)
    return 0


def copy_pte_range(
    dst_vma: VmAreaStruct,
    src_vma: VmAreaStruct,
    dst_pmd: Ptep,
    src_pmd: Ptep,
    addr: int,
    end: int,
) -> int:
    """Copy the entries of one page table: 0 or -ENOMEM.

    Mirrors mm/memory.c:copy_pte_range().
    """
    dst_mm = dst_vma.vm_mm
    if pte_alloc(dst_mm, dst_pmd):
        return -ENOMEM
    dst = pte_offset_map_lock(dst_mm, dst_pmd, addr)
    src = pte_offset_map_lock(src_vma.vm_mm, src_pmd, addr)
    assert dst is not None and src is not None
    rss = [0] * NR_MM_COUNTERS
    ret = 0
    for i in range(src[1], src[1] + ((end - addr) >> PAGE_SHIFT)):
        pte = src[0][i]
        if pte_none(pte):
            continue
        here = addr + ((i - src[1]) << PAGE_SHIFT)
        if pte_present(pte):
            ret = copy_present_ptes(dst_vma, src_vma, (dst[0], i), (src[0], i), pte, here, rss)
            if ret == -EAGAIN:
                ret = copy_present_page(dst_vma, src_vma, (dst[0], i), here, rss)
                if ret:
                    break
        elif not swapops.non_swap_entry(swapops.pte_to_swp_entry(pte)):
            if _machine(dst_mm).swap.swap_info:
                swapfile.swap_duplicate(_machine(dst_mm), swapops.pte_to_swp_entry(pte))
            if pg.pte_swp_exclusive(pte):
                pte = src[0][i] = pg.pte_swp_clear_exclusive(pte)
            dst[0][i] = pte
            rss[MM_SWAPENTS] += 1
        elif not swapops.is_pte_marker_entry(swapops.pte_to_swp_entry(pte)):
            raise KernelBug(f"fork meets an entry that chapter 3 does not have: {pte:016x}")
    _add_mm_rss_vec(dst_mm, rss)
    pte_unmap_unlock(src_vma.vm_mm, src)
    pte_unmap_unlock(dst_mm, dst)
    return min(ret, 0)


def copy_page_range(dst_vma: VmAreaStruct, src_vma: VmAreaStruct) -> int:
    """Copy the page tables of a VMA at fork, if a fault could not fill them again.

    :return: 0 or -ENOMEM

    Mirrors mm/memory.c:copy_page_range().
    """
    if src_vma.anon_vma is None and not src_vma.vm_flags & (VM_PFNMAP | VM_MIXEDMAP):
        return 0  # vma_needs_copy()
    src_mm, dst_mm = src_vma.vm_mm, dst_vma.vm_mm
    for src_pmd, addr, end in _pmd_ranges(src_mm, src_vma.vm_start, src_vma.vm_end):
        # The kernel allocates the child's upper tables as soon as the parent's exist.
        p4d = pg.p4d_alloc(dst_mm, pg.pgd_offset(dst_mm, addr), addr)
        pud = None if p4d is None else pg.pud_alloc(dst_mm, p4d, addr)
        dst_pmd = None if pud is None else pg.pmd_alloc(dst_mm, pud, addr)
        if dst_pmd is None:
            return -ENOMEM
        pmd = src_pmd[0][src_pmd[1]]
        if pmd_trans_huge(pmd):
            if huge_memory.copy_huge_pmd(dst_mm, src_mm, dst_pmd, src_pmd, addr, dst_vma, src_vma):
                return -ENOMEM
            continue
        if pmd_none(pmd):
            continue
        if copy_pte_range(dst_vma, src_vma, dst_pmd, src_pmd, addr, end):
            return -ENOMEM
    return 0


# --- unmapping --------------------------------------------------------------------------------


def zap_present_ptes(
    tlb: MmuGather, vma: VmAreaStruct, pte: Ptep, addr: int, rss: list[int], even_cows: bool
) -> bool:
    """Take down one present entry; True when the TLB must be flushed before the lock is dropped.

    Mirrors mm/memory.c:zap_present_ptes().
    """
    page = vm_normal_page(vma, addr, ptep_get(pte))
    if page is not None and not even_cows and rmap.folio_test_anon(page_folio(page)):
        return False  # should_zap_folio()
    ptent = ptep_get_and_clear(vma.vm_mm, addr, pte)
    mmu_gather.tlb_flush_pte_range(tlb, addr, PAGE_SIZE)
    if page is None:
        return False
    folio = page_folio(page)
    delay_rmap = False
    if rmap.folio_test_anon(folio):
        rss[MM_ANONPAGES] -= 1
    else:
        if pg.pte_dirty(ptent):
            folio.flags |= 1 << PG_dirty
            delay_rmap = mmu_gather.tlb_delay_rmap(tlb)
        if pg.pte_young(ptent):
            swap.folio_mark_accessed(folio)
        rss[mm_counter_file(folio)] -= 1
    if not delay_rmap:
        rmap.folio_remove_rmap_ptes(folio, page, 1, vma)
    full = mmu_gather.tlb_remove_folio_pages(tlb, page, 1, delay_rmap)
    return delay_rmap or full


def zap_pte_range(
    tlb: MmuGather, vma: VmAreaStruct, pmd: Ptep, addr: int, end: int, even_cows: bool = True
) -> None:
    """Empty the entries of one page table and gather their pages.

    :param even_cows: private copies, too (else only pages of the file)

    Simplified: page by page, also for large folios.

    Mirrors mm/memory.c:zap_pte_range().
    """
    mm = tlb.mm
    while addr != end:
        rss = [0] * NR_MM_COUNTERS
        force_flush = False
        start = pte_offset_map_lock(mm, pmd, addr)
        if start is None:
            return
        table, first = start
        base = addr
        for i in range(first, first + ((end - addr) >> PAGE_SHIFT)):
            addr = base + ((i + 1 - first) << PAGE_SHIFT)
            ptent = table[i]
            if pte_none(ptent):
                continue
            if pte_present(ptent):
                before = len(tlb.batches), tlb.nr[-1]
                flush = zap_present_ptes(tlb, vma, (table, i), addr - PAGE_SIZE, rss, even_cows)
                force_flush |= flush
                full = flush and (len(tlb.batches), tlb.nr[-1]) != before and _gather_full(tlb)
                if full:
                    break
                continue
            entry = swapops.pte_to_swp_entry(ptent)
            if not swapops.non_swap_entry(entry):
                if not even_cows:
                    continue
                rss[MM_SWAPENTS] -= 1
                if _machine(mm).swap.swap_info:
                    swapfile.free_swap_and_cache(_machine(mm), entry)
            elif swapops.is_migration_entry(entry):
                folio = page_folio(pfn_to_page(_machine(mm), swapops.swp_offset_pfn(entry)))
                rss[mm_counter(folio)] -= 1
            table[i] = 0
        _add_mm_rss_vec(mm, rss)
        if force_flush:
            mmu_gather.tlb_flush_mmu_tlbonly(tlb)
            mmu_gather.tlb_flush_rmaps(tlb, vma)
        pte_unmap_unlock(mm, start)
        if force_flush:
            mmu_gather.tlb_flush_mmu(tlb)


def _gather_full(tlb: MmuGather) -> bool:
    """Tell whether the gather could not get another batch, so that the loop must stop."""
    last = len(tlb.batches)
    room = mmu_gather.MMU_GATHER_BUNDLE if last == 1 else mmu_gather.MAX_GATHER_BATCH
    return tlb.nr[-1] >= room - 1


def unmap_page_range(
    tlb: MmuGather, vma: VmAreaStruct, addr: int, end: int, even_cows: bool = True
) -> None:
    """Take down the mappings of a range of @vma; the tables stay.

    Mirrors mm/memory.c:unmap_page_range().
    """
    if addr >= end:
        raise KernelBug(f"unmap_page_range({addr:#x}, {end:#x})")
    mmu_gather.tlb_start_vma(tlb, vma)
    for pmd, start, following in _pmd_ranges(vma.vm_mm, addr, end):
        value = pmd[0][pmd[1]]
        if pmd_trans_huge(value):
            if following - start != PMD_SIZE:
                huge_memory.split_huge_pmd(vma, pmd, start)
            elif huge_memory.zap_huge_pmd(tlb, vma, pmd, start):
                continue
        if pmd_none(pmd[0][pmd[1]]):
            continue
        zap_pte_range(tlb, vma, pmd, start, following, even_cows)
    mmu_gather.tlb_end_vma(tlb, vma)


def unmap_vmas(tlb: MmuGather, vmas: list[VmAreaStruct], start: int, end: int) -> None:
    """Take down what @vmas map between @start and @end.

    Mirrors mm/memory.c:unmap_vmas().
    """
    for vma in vmas:
        first, last = max(vma.vm_start, start), min(vma.vm_end, end)
        if first < last:
            unmap_page_range(tlb, vma, first, last)


def zap_page_range_single(
    vma: VmAreaStruct, address: int, size: int, even_cows: bool = True
) -> None:
    """Take down the mappings of a range inside one VMA, as MADV_DONTNEED does.

    :raises UsageError: if the range is not inside @vma

    Mirrors mm/memory.c:zap_page_range_single().
    """
    if size <= 0 or address < vma.vm_start or address + size > vma.vm_end:
        raise UsageError(f"{size:#x} bytes at {address:#x} are not inside {vma!r}")
    swap.lru_add_drain(_machine(vma.vm_mm))
    tlb = mmu_gather.tlb_gather_mmu(vma.vm_mm)
    unmap_page_range(tlb, vma, address, address + size, even_cows)
    mmu_gather.tlb_finish_mmu(tlb)


def unmap_mapping_pages(
    m: Machine, mapping: AddressSpace, start: int, nr: int, even_cows: bool
) -> None:
    """Take down all mappings of @nr pages of a file from @start on, 0 for all.

    Mirrors mm/memory.c:unmap_mapping_pages().
    """
    last = start + nr - 1 if nr else ULONG_MAX
    for vma in list(rmap.vma_interval_tree_foreach(mapping, start, last)):
        first = max(start, vma.vm_pgoff)
        end = min(last + 1, vma.vm_pgoff + vma_pages(vma))
        addr = vma.vm_start + ((first - vma.vm_pgoff) << PAGE_SHIFT)
        zap_page_range_single(vma, addr, (end - first) << PAGE_SHIFT, even_cows)


def _child(entryp: Ptep) -> pg.PageTable:
    table, i = entryp
    return table.space.tables[(table[i] & PTE_PFN_MASK) >> PAGE_SHIFT]


def _ends_table(start: int, end: int, floor: int, ceiling: int, shift: int) -> bool:
    """Tell whether the table that covers @start ends within floor and ceiling: nobody else uses it."""
    start &= -(1 << shift)
    if start < floor:
        return False
    if ceiling:
        ceiling &= -(1 << shift)
        if not ceiling:
            return False
    return (end - 1) & ULONG_MAX <= (ceiling - 1) & ULONG_MAX


def free_pmd_range(
    tlb: MmuGather, pud: Ptep, addr: int, end: int, floor: int, ceiling: int
) -> None:
    """Free the PTE tables in a range, and the PMD table if nothing else can use it.

    Mirrors mm/memory.c:free_pmd_range().
    """
    start = addr
    table = _child(pud)
    while addr != end:
        following = min((addr >> 21) + 1 << 21, end)
        pmd = (table, addr >> 21 & 511)
        if not pmd_none(pmd[0][pmd[1]]):
            token = _child(pmd)
            table[pmd[1]] = 0
            mmu_gather.pte_free_tlb(tlb, token, addr)
            pg.mm_dec_nr_ptes(tlb.mm)
        addr = following
    if _ends_table(start, end, floor, ceiling, 30):
        pud[0][pud[1]] = 0
        mmu_gather.pmd_free_tlb(tlb, table, start & -(1 << 30))
        tlb.mm.pgtables_bytes -= PAGE_SIZE


def free_pud_range(
    tlb: MmuGather, p4d: Ptep, addr: int, end: int, floor: int, ceiling: int
) -> None:
    """Free the tables below a P4D entry, and the PUD table if nothing else can use it.

    Mirrors mm/memory.c:free_pud_range().
    """
    start = addr
    table = _child(p4d)
    while addr != end:
        following = min((addr >> 30) + 1 << 30, end)
        pud = (table, addr >> 30 & 511)
        if not pmd_none(pud[0][pud[1]]):
            free_pmd_range(tlb, pud, addr, following, floor, ceiling)
        addr = following
    if _ends_table(start, end, floor, ceiling, 39):
        if p4d[0] is tlb.mm.pgd:
            pg.set_pgd(p4d, 0)
        else:
            p4d[0][p4d[1]] = 0
        mmu_gather.pud_free_tlb(tlb, table, start & -(1 << 39))
        tlb.mm.pgtables_bytes -= PAGE_SIZE


def free_p4d_range(
    tlb: MmuGather, pgd: Ptep, addr: int, end: int, floor: int, ceiling: int
) -> None:
    """Free the tables below a PGD entry; with five levels also the P4D table.

    Mirrors mm/memory.c:free_p4d_range().
    """
    start = addr
    while addr != end:
        following = min((addr >> 39) + 1 << 39, end)
        p4d = pg.p4d_offset(pgd, addr)
        if not pmd_none(p4d[0][p4d[1]]):
            free_pud_range(tlb, p4d, addr, following, floor, ceiling)
        addr = following
    if tlb.mm.levels == 5 and _ends_table(start, end, floor, ceiling, 48):
        table = _child(pgd)
        pg.set_pgd(pgd, 0)
        mmu_gather.p4d_free_tlb(tlb, table, start & -(1 << 48))


def free_pgd_range(tlb: MmuGather, addr: int, end: int, floor: int, ceiling: int) -> None:
    """Free the page tables between @addr and @end that no VMA outside [@floor, @ceiling) uses.

    0 is the bottom of the address space as @addr and @floor, the top as @end and @ceiling.

    Mirrors mm/memory.c:free_pgd_range().
    """
    addr &= -PMD_SIZE
    if addr < floor:
        addr += PMD_SIZE
        if not addr & ULONG_MAX:
            return
    if ceiling:
        ceiling &= -PMD_SIZE
        if not ceiling:
            return
    if (end - 1) & ULONG_MAX > (ceiling - 1) & ULONG_MAX:
        end -= PMD_SIZE
    if addr > (end - 1) & ULONG_MAX:
        return
    shift = pg.pgdir_shift(tlb.mm.levels)
    while addr != end:
        following = min((addr >> shift) + 1 << shift, end)
        pgd = pg.pgd_offset(tlb.mm, addr)
        if not pmd_none(pgd[0][pgd[1]]):
            free_p4d_range(tlb, pgd, addr, following, floor, ceiling)
        addr = following


def free_pgtables(tlb: MmuGather, vmas: list[VmAreaStruct], floor: int, ceiling: int) -> None:
    """Free the page tables of @vmas, which lie between @floor and @ceiling and are unmapped.

    Before that, their pages and files forget them.

    Mirrors mm/memory.c:free_pgtables().
    """
    for vma in vmas:
        rmap.unlink_anon_vmas(vma)
        vma_.unlink_file_vma(vma)
    i = 0
    while i < len(vmas):
        addr, end = vmas[i].vm_start, vmas[i].vm_end
        i += 1
        while i < len(vmas) and vmas[i].vm_start <= end + PMD_SIZE:
            end = vmas[i].vm_end
            i += 1
        free_pgd_range(tlb, addr, end, floor, vmas[i].vm_start if i < len(vmas) else ceiling)


def mm_put_huge_zero_folio(mm: MmStruct) -> None:
    """Give back the address space's reference to the huge zero page.

    Mirrors mm/huge_memory.c:mm_put_huge_zero_folio().
    """
    huge_memory.mm_put_huge_zero_folio(mm)


# --- checking ---------------------------------------------------------------------------------


def _count_leaf(
    m: Machine, mm: MmStruct, address: int, level: int, entry: int, maps: dict[int, int]
) -> tuple[int, int]:
    """Return (rss member, pages) of one leaf, and count the mappings of its pages in @maps."""
    vma = mm.mm_mt.walk(address)
    if vma is None:
        raise KernelBug(f"{address:#x} is mapped in {mm!r} outside any VMA: {entry:016x}")
    if not pte_present(entry):
        swapped = swapops.is_swap_pte(entry)
        real = swapped and not swapops.non_swap_entry(swapops.pte_to_swp_entry(entry))
        return MM_SWAPENTS, int(real)
    if level == 2:
        if huge_memory.is_huge_zero_pmd(m, entry):
            return MM_ANONPAGES, 0
        pfn, nr = pg.pmd_pfn(entry), 512
    else:
        if vm_normal_page(vma, address, entry) is None:
            if entry & 2:
                raise KernelBug(f"zero page or PFN map at {address:#x} is writable: {entry:016x}")
            return MM_ANONPAGES, 0
        pfn, nr = pte_pfn(entry), 1
    for i in range(nr):
        maps[pfn + i] = maps.get(pfn + i, 0) + 1
    page = pfn_to_page(m, pfn)
    folio = page_folio(page)
    if entry & 2 and rmap.folio_test_anon(folio) and not rmap.PageAnonExclusive(page):
        raise KernelBug(f"{page!r} is writable at {address:#x} and not exclusive")
    return mm_counter(folio), nr


def validate_mappings(m: Machine) -> None:
    """Check page tables, counters and pages of all address spaces against each other.

    Each address space's rss_stat is what its entries map (the zero pages not counted); each page's
    map count is the number of entries that map it, and its reference count is at least that; an
    exclusive anonymous page is mapped once; what is writable and anonymous is exclusive; nothing is
    mapped outside a VMA; tables and pgtables_bytes agree.

    :raises KernelBug: naming what is wrong
    """
    maps: dict[int, int] = {}
    rmap.validate_anon_vmas([vma for mm in m.pgd_list for vma in mm.mm_mt], True)
    for mm in m.pgd_list:
        vma_.validate_mm(mm)
        pg.validate_pgtables(mm)
        rss = [0] * NR_MM_COUNTERS
        for address, level, entry in pg.iter_leaves(mm, 0, mm.task_size):
            member, pages = _count_leaf(m, mm, address, level, entry, maps)
            rss[member] += pages
        if rss != mm.rss_stat:
            raise KernelBug(f"{mm!r}: rss_stat is {mm.rss_stat}, the entries map {rss}")
    for pfn, count in maps.items():
        page = pfn_to_page(m, pfn)
        if rmap.page_mapcount(page) != count:
            raise KernelBug(f"{page!r} is mapped by {count} entries")
        if page_folio(page)._refcount < count:
            raise KernelBug(f"{page!r} has fewer references than mappings")
        if count > 1 and rmap.folio_test_anon(page_folio(page)) and rmap.PageAnonExclusive(page):
            raise KernelBug(f"{page!r} is exclusive and mapped {count} times")
