"""Moving mappings and changing their size.

Mirrors mm/mremap.c.

Simplified: no hugetlb, no userfaultfd, no huge PUDs.
"""

from __future__ import annotations

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86 import tlb as tlb_
from mmcore.arch.x86.pgtable import PMD_SIZE, Ptep
from mmcore.arch.x86.pgtable_types import _PAGE_TABLE
from mmcore.cint import ULONG_MAX
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EAGAIN, EFAULT, EINVAL, ENOMEM, EPERM
from mmcore.mm import gup, huge_memory, ksm, mmap, rmap, swapops, util
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    VM_ACCOUNT,
    VM_DONTEXPAND,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_MAYSHARE,
    VM_PFNMAP,
    VM_SHARED,
    MmStruct,
    VmAreaStruct,
    mmap_write_lock,
    mmap_write_unlock,
    vma_is_anonymous,
    vma_start_write,
)

__all__ = [
    "MREMAP_DONTUNMAP",
    "MREMAP_FIXED",
    "MREMAP_MAYMOVE",
    "move_page_tables",
    "move_vma",
    "mremap_to",
    "sys_mremap",
    "vma_to_resize",
]

MREMAP_MAYMOVE = 1
MREMAP_FIXED = 2
MREMAP_DONTUNMAP = 4
PUD_SIZE = 1 << 30


# --- page tables ------------------------------------------------------------------------------


def move_soft_dirty_pte(pte: int) -> int:
    """Mark a moved entry soft-dirty: user space shall notice.

    Mirrors mm/mremap.c:move_soft_dirty_pte().
    """
    if pg.pte_present(pte):
        return pg.pte_mksoft_dirty(pte)
    return pg.pte_swp_mksoft_dirty(pte) if swapops.is_swap_pte(pte) else pte


def get_extent(size: int, old_addr: int, old_end: int, new_addr: int) -> int:
    """Return how many bytes can be moved before an entry of @size bytes ends at either side.

    Mirrors mm/mremap.c:get_extent().
    """
    extent = min((old_addr + size & -size) - old_addr, old_end - old_addr)
    return min(extent, (new_addr + size & -size) - new_addr)


def can_align_down(vma: VmAreaStruct, addr: int, for_stack: bool) -> bool:
    """Tell whether nothing is mapped between @addr and the 2 MiB border below it.

    Mirrors mm/mremap.c:can_align_down().
    """
    masked = addr & -PMD_SIZE
    if not for_stack and vma.vm_start != addr:
        return False
    if for_stack and masked >= vma.vm_start:
        return True
    return vma_.find_vma_intersection(vma.vm_mm, masked, vma.vm_start) is None


def try_realign_addr(
    old_addr: int, old_vma: VmAreaStruct, new_addr: int, new_vma: VmAreaStruct, for_stack: bool
) -> tuple[int, int]:
    """Return both addresses rounded down to 2 MiB if whole tables can be moved then.

    Mirrors mm/mremap.c:try_realign_addr().
    """
    low = old_addr & PMD_SIZE - 1
    if not low or low != new_addr & PMD_SIZE - 1:
        return old_addr, new_addr
    if not can_align_down(old_vma, old_addr, for_stack):
        return old_addr, new_addr
    if not can_align_down(new_vma, new_addr, for_stack):
        return old_addr, new_addr
    return old_addr - low, new_addr - low


def _walk(mm: MmStruct, addr: int) -> tuple[Ptep | None, Ptep | None]:
    """Return (pud, pmd) of @addr as far as the tables exist: get_old_pud() and get_old_pmd()."""
    pgd = pg.pgd_offset(mm, addr)
    if pg.pmd_none(pgd[0][pgd[1]]):
        return None, None
    p4d = pg.p4d_offset(pgd, addr)
    if pg.pmd_none(p4d[0][p4d[1]]):
        return None, None
    pud = pg.pud_offset(p4d, addr)
    if pg.pmd_none(pud[0][pud[1]]):
        return None, None
    pmd = pg.pmd_offset(pud, addr)
    return pud, None if pg.pmd_none(pmd[0][pmd[1]]) else pmd


def _move_table(vma: VmAreaStruct, old_addr: int, old: Ptep, new: Ptep, size: int) -> bool:
    """Move a whole table from one upper entry to another (move_normal_pmd(), move_normal_pud())."""
    if not pg.pmd_none(new[0][new[1]]):
        return False
    entry = old[0][old[1]]
    old[0][old[1]] = 0
    new[0][new[1]] = entry & pg.PTE_PFN_MASK | _PAGE_TABLE
    tlb_.flush_tlb_range(vma, old_addr, old_addr + size)
    return True


def move_ptes(
    vma: VmAreaStruct, old_pmd: Ptep, old_addr: int, old_end: int, new_pmd: Ptep, new_addr: int
) -> None:
    """Move the entries of one table one by one.

    Mirrors mm/mremap.c:move_ptes().
    """
    mm = vma.vm_mm
    old = pg.pte_offset_map_lock(mm, old_pmd, old_addr)
    if old is None:
        return
    table, first = old
    new = pg.pte_offset_kernel(new_pmd, new_addr)
    flush = False
    for i in range((old_end - old_addr) >> PAGE_SHIFT):
        if pg.pte_none(table[first + i]):
            continue
        at = old_addr + (i << PAGE_SHIFT)
        pte = pg.ptep_get_and_clear(mm, at, (table, first + i))
        flush |= pg.pte_present(pte)
        pg.set_pte((new[0], new[1] + i), move_soft_dirty_pte(pte))
    if flush:
        tlb_.flush_tlb_range(vma, old_addr, old_end)
    pg.pte_unmap_unlock(mm, old)


def _move_pmd(
    vma: VmAreaStruct, old_pmd: Ptep, old_addr: int, new_pmd: Ptep, new_addr: int, extent: int
) -> bool:
    """Move what one PMD entry covers; False when there is no memory for a table."""
    entry = old_pmd[0][old_pmd[1]]
    if pg.pmd_trans_huge(entry):
        if extent == PMD_SIZE and huge_memory.move_huge_pmd(vma, old_addr, old_pmd, new_pmd):
            return True
        huge_memory.split_huge_pmd(vma, old_pmd, old_addr)
    elif extent == PMD_SIZE and _move_table(vma, old_addr, old_pmd, new_pmd, PMD_SIZE):
        return True
    if pg.pmd_none(old_pmd[0][old_pmd[1]]):
        return True
    if pg.pte_alloc(vma.vm_mm, new_pmd):
        return False
    move_ptes(vma, old_pmd, old_addr, old_addr + extent, new_pmd, new_addr)
    return True


def move_page_tables(
    vma: VmAreaStruct,
    old_addr: int,
    new_vma: VmAreaStruct,
    new_addr: int,
    length: int,
    for_stack: bool = False,
) -> int:
    """Move the entries of a range, whole tables where both ends are aligned.

    :return: how many bytes were moved (less when there is no memory for tables)

    Mirrors mm/mremap.c:move_page_tables().
    """
    mm = vma.vm_mm
    old_end = old_addr + length
    if not length:
        return 0
    if length >= PMD_SIZE - (old_addr & PMD_SIZE - 1):
        old_addr, new_addr = try_realign_addr(old_addr, vma, new_addr, new_vma, for_stack)
    while old_addr < old_end:
        extent = get_extent(PUD_SIZE, old_addr, old_end, new_addr)
        old_pud, old_pmd = _walk(mm, old_addr)
        if old_pud is not None:
            p4d = pg.p4d_alloc(mm, pg.pgd_offset(mm, new_addr), new_addr)
            new_pud = None if p4d is None else pg.pud_alloc(mm, p4d, new_addr)
            if new_pud is None:
                break
            if extent == PUD_SIZE and _move_table(vma, old_addr, old_pud, new_pud, PUD_SIZE):
                old_addr, new_addr = old_addr + extent, new_addr + extent
                continue
            extent = get_extent(PMD_SIZE, old_addr, old_end, new_addr)
            if old_pmd is not None:
                new_pmd = pg.pmd_alloc(mm, new_pud, new_addr)
                if new_pmd is None:
                    break
                if not _move_pmd(vma, old_pmd, old_addr, new_pmd, new_addr, extent):
                    break
        old_addr, new_addr = old_addr + extent, new_addr + extent
    if old_addr < old_end - length:
        return 0
    return length + old_addr - old_end


# --- mappings ---------------------------------------------------------------------------------


def _may_move(vma: VmAreaStruct, old_addr: int, old_len: int, flags: int) -> int:
    """Return 0 if the VMA may be cut where the move cuts it; -errno else (start of move_vma())."""
    before, after = vma.vm_start != old_addr, vma.vm_end != old_addr + old_len
    err = 0
    if vma.vm_ops is not None and vma.vm_ops.may_split is not None:
        if before:
            err = vma.vm_ops.may_split(vma, old_addr)
        if not err and after:
            err = vma.vm_ops.may_split(vma, old_addr + old_len)
    if not err and flags & MREMAP_DONTUNMAP and vma.vm_flags & VM_LOCKED:
        if before:
            err = vma_.split_vma(vma, old_addr, True)
        if not err and after:
            err = vma_.split_vma(vma, old_addr + old_len, False)
    return err


def _keep_source(vma: VmAreaStruct, old_addr: int, old_len: int) -> None:
    """Leave the old VMA in place, empty (MREMAP_DONTUNMAP)."""
    vma.vm_flags &= ~VM_LOCKED_MASK
    if vma.vm_start == old_addr and vma.vm_end == old_addr + old_len:
        rmap.unlink_anon_vmas(vma)
        if vma_is_anonymous(vma) and vma.vm_file is None:
            vma.vm_pgoff = vma.vm_start >> PAGE_SHIFT


def move_vma(
    vma: VmAreaStruct,
    old_addr: int,
    old_len: int,
    new_len: int,
    new_addr: int,
    locked: list[bool],
    flags: int,
) -> int:
    """Move a range to @new_addr, where nothing is mapped: the address or -errno.

    :param locked: gets True if the new pages must be faulted in

    Mirrors mm/mremap.c:move_vma().
    """
    mm = vma.vm_mm
    vm_flags = vma.vm_flags
    to_account = new_len if flags & MREMAP_DONTUNMAP else new_len - old_len
    if mm.map_count >= mm.sys.sysctl_max_map_count - 3:
        return -ENOMEM
    err = _may_move(vma, old_addr, old_len, flags)
    if err:
        return err
    vm_flags = ksm.ksm_madvise_unmergeable(vma, vm_flags)
    if vm_flags & VM_ACCOUNT and util.vm_enough_memory(mm, to_account >> PAGE_SHIFT):
        return -ENOMEM
    vma_start_write(vma)
    pgoff = vma.vm_pgoff + ((old_addr - vma.vm_start) >> PAGE_SHIFT)
    keep = flags & MREMAP_DONTUNMAP != 0
    new_vma, vma, _rmap_locks = vma_.copy_vma(vma, new_addr, new_len, pgoff, keep)
    if new_vma is None:
        if vm_flags & VM_ACCOUNT:
            util.vm_unacct_memory(mm, to_account >> PAGE_SHIFT)
        return -ENOMEM
    moved = move_page_tables(vma, old_addr, new_vma, new_addr, old_len)
    if moved < old_len:
        err = -ENOMEM
    elif vma.vm_ops is not None and vma.vm_ops.mremap is not None:
        err = vma.vm_ops.mremap(new_vma)
    if err:  # move back, and unmap the new range instead of the old one
        move_page_tables(new_vma, new_addr, vma, old_addr, moved)
        vma, old_len, old_addr, new_addr = new_vma, new_len, new_addr, err
    account = vm_flags & VM_ACCOUNT and not keep
    account_start = account_end = False
    if account:
        vma.vm_flags &= ~VM_ACCOUNT
        account_start = vma.vm_start < old_addr
        account_end = vma.vm_end > old_addr + old_len
    hiwater_vm = mm.hiwater_vm
    vma_.vm_stat_account(mm, vma.vm_flags, new_len >> PAGE_SHIFT)
    if not err and keep:
        _keep_source(vma, old_addr, old_len)
        return new_addr
    if vma_.do_vmi_munmap(mm, old_addr, old_len, False) < 0:
        if account:
            util.vm_acct_memory(mm, old_len >> PAGE_SHIFT)
        account_start = account_end = False
    if vm_flags & VM_LOCKED:
        mm.locked_vm += new_len >> PAGE_SHIFT
        locked[0] = True
    mm.hiwater_vm = hiwater_vm
    for wanted, piece in (
        (account_start, mm.mm_mt.prev(old_addr)),
        (account_end, mm.mm_mt.find(old_addr)),
    ):
        if wanted and piece is not None:
            piece.vm_flags |= VM_ACCOUNT
    return new_addr


def vma_to_resize(
    mm: MmStruct, addr: int, old_len: int, new_len: int, flags: int
) -> VmAreaStruct | int:
    """Return the VMA whose range is to change if that is allowed, else -errno.

    Mirrors mm/mremap.c:vma_to_resize().
    """
    vma = vma_.vma_lookup(mm, addr)
    if vma is None:
        return -EFAULT
    if not old_len and not vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        return -EINVAL
    fixed_size = vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP)
    if flags & MREMAP_DONTUNMAP and fixed_size:
        return -EINVAL
    if old_len > vma.vm_end - addr:
        return -EFAULT
    if new_len == old_len:
        return vma
    pgoff = ((addr - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff
    if pgoff + (new_len >> PAGE_SHIFT) > ULONG_MAX:
        return -EINVAL
    if fixed_size:
        return -EFAULT
    if not mmap.mlock_future_ok(mm, vma.vm_flags, new_len - old_len):
        return -EAGAIN
    if not mmap.may_expand_vm(mm, vma.vm_flags, (new_len - old_len) >> PAGE_SHIFT):
        return -ENOMEM
    return vma


def mremap_to(
    mm: MmStruct,
    addr: int,
    old_len: int,
    new_addr: int,
    new_len: int,
    locked: list[bool],
    flags: int,
) -> int:
    """Move to a given place (MREMAP_FIXED), or away and keep the range (MREMAP_DONTUNMAP).

    What was at the new place is unmapped before it is known whether the move is possible.

    :return: the new address or -errno

    Mirrors mm/mremap.c:mremap_to().
    """
    if new_addr & (PAGE_SIZE - 1):
        return -EINVAL
    if new_len > mm.task_size or new_addr > mm.task_size - new_len:
        return -EINVAL
    if addr + old_len & ULONG_MAX > new_addr and new_addr + new_len > addr:
        return -EINVAL
    if mm.map_count + 2 >= mm.sys.sysctl_max_map_count - 3:
        return -ENOMEM
    if flags & MREMAP_FIXED:
        ret = mmap.do_munmap(mm, new_addr, new_len)
        if ret:
            return ret
    if old_len > new_len:
        ret = mmap.do_munmap(mm, addr + new_len, old_len - new_len)
        if ret:
            return ret
        old_len = new_len
    vma = vma_to_resize(mm, addr, old_len, new_len, flags)
    if isinstance(vma, int):
        return vma
    if flags & MREMAP_DONTUNMAP:
        if not mmap.may_expand_vm(mm, vma.vm_flags, old_len >> PAGE_SHIFT):
            return -ENOMEM
    map_flags = mmap.MAP_FIXED if flags & MREMAP_FIXED else 0
    ret = _new_place(vma, addr, new_addr, new_len, map_flags)
    if ret < 0:
        return ret
    if not flags & MREMAP_FIXED:
        new_addr = ret
    return move_vma(vma, addr, old_len, new_len, new_addr, locked, flags)


def _new_place(vma: VmAreaStruct, addr: int, new_addr: int, new_len: int, map_flags: int) -> int:
    if vma.vm_flags & VM_MAYSHARE:
        map_flags |= mmap.MAP_SHARED
    pgoff = vma.vm_pgoff + ((addr - vma.vm_start) >> PAGE_SHIFT)
    return mmap.get_unmapped_area(vma.vm_mm, vma.vm_file, new_addr, new_len, pgoff, map_flags)


def vma_expandable(vma: VmAreaStruct, delta: int) -> bool:
    """Tell whether there is room for @delta bytes behind @vma.

    Mirrors mm/mremap.c:vma_expandable().
    """
    end = vma.vm_end + delta
    if end > ULONG_MAX:
        return False
    if vma_.find_vma_intersection(vma.vm_mm, vma.vm_end, end) is not None:
        return False
    found = mmap.get_unmapped_area(
        vma.vm_mm, None, vma.vm_start, end - vma.vm_start, 0, mmap.MAP_FIXED
    )
    return found >= 0


def _expand_in_place(vma: VmAreaStruct, delta: int, locked: list[bool]) -> int:
    """Let @vma grow where it is: 0 or -ENOMEM."""
    mm, pages = vma.vm_mm, delta >> PAGE_SHIFT
    charged = 0
    if vma.vm_flags & VM_ACCOUNT:
        if util.vm_enough_memory(mm, pages):
            return -ENOMEM
        charged = pages
    grown = vma_.vma_merge_extend(vma, delta)
    if grown is None:
        util.vm_unacct_memory(mm, charged)
        return -ENOMEM
    vma_.vm_stat_account(mm, grown.vm_flags, pages)
    if grown.vm_flags & VM_LOCKED:
        mm.locked_vm += pages
        locked[0] = True
    return 0


def _mremap_grow(
    mm: MmStruct, addr: int, old_len: int, new_len: int, flags: int, locked: list[bool]
) -> int:
    """Grow in place, or move if that is allowed: the address or -errno."""
    vma = vma_to_resize(mm, addr, old_len, new_len, flags)
    if isinstance(vma, int):
        return vma
    if old_len == vma.vm_end - addr and vma_expandable(vma, new_len - old_len):
        return _expand_in_place(vma, new_len - old_len, locked) or addr
    if not flags & MREMAP_MAYMOVE:
        return -ENOMEM
    new_addr = _new_place(vma, addr, 0, new_len, 0)
    if new_addr < 0:
        return new_addr
    return move_vma(vma, addr, old_len, new_len, new_addr, locked, flags)


def sys_mremap(
    mm: MmStruct, addr: int, old_len: int, new_len: int, flags: int, new_addr: int = 0
) -> int:
    """mremap(): the address or -errno.

    Mirrors mm/mremap.c:mremap().
    """
    addr, new_addr = addr & ULONG_MAX, new_addr & ULONG_MAX
    if flags & ~(MREMAP_FIXED | MREMAP_MAYMOVE | MREMAP_DONTUNMAP):
        return -EINVAL
    if flags & MREMAP_FIXED and not flags & MREMAP_MAYMOVE:
        return -EINVAL
    old_len, new_len = old_len & ULONG_MAX, new_len & ULONG_MAX
    if flags & MREMAP_DONTUNMAP and (not flags & MREMAP_MAYMOVE or old_len != new_len):
        return -EINVAL
    if addr & (PAGE_SIZE - 1):
        return -EINVAL
    old_len, new_len = mmap.page_align(old_len), mmap.page_align(new_len)
    if not new_len:
        return -EINVAL
    mmap_write_lock(mm)
    locked = [False]
    vma = vma_.vma_lookup(mm, addr)
    if vma is None:
        ret = -EFAULT
    elif not vma_.can_modify_vma(vma):
        ret = -EPERM
    elif flags & (MREMAP_FIXED | MREMAP_DONTUNMAP):
        ret = mremap_to(mm, addr, old_len, new_addr, new_len, locked, flags)
    elif old_len == new_len:
        ret = addr
    elif old_len > new_len:
        ret = vma_.do_vmi_munmap(mm, addr + new_len & ULONG_MAX, old_len - new_len, True)
        if not ret:
            return addr
    else:
        ret = _mremap_grow(mm, addr, old_len, new_len, flags, locked)
    mmap_write_unlock(mm)
    if locked[0] and ret >= 0 and new_len > old_len:
        gup.mm_populate(mm, ret + old_len, new_len - old_len)
    return ret
