"""The page cache as a fault sees it.

Mirrors the fault side of mm/filemap.c, and include/linux/fs.h's address_space as far as that needs.

Simplified: the page cache of a file is a dict from index to folio, of single pages; a read from disk
takes no time and does not fail; readahead is one window around the fault (`do_sync_mmap_readahead()`),
its adaptive part is chapter 11's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86.pgtable import pmd_none, pmd_trans_huge, pte_none, pte_unmap_unlock
from mmcore.config import PAGE_SHIFT
from mmcore.errors import KernelBug, UsageError
from mmcore.mm import gfp as gfp_
from mmcore.mm import memcontrol, memory, page_alloc, swap, workingset
from mmcore.mm.mm import (
    FAULT_FLAG_RETRY_NOWAIT,
    FAULT_FLAG_TRIED,
    VM_FAULT_LOCKED,
    VM_FAULT_MAJOR,
    VM_FAULT_NOPAGE,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_RAND_READ,
    VmAreaStruct,
    VmFault,
    VmOperationsStruct,
    add_mm_counter,
    fault_flag_allow_retry_first,
    release_fault_lock,
)
from mmcore.mm.page_flags import (
    PG_dirty,
    PG_hwpoison,
    PG_locked,
    PG_readahead,
    PG_swapbacked,
    PG_uptodate,
)
from mmcore.mm.vmstat import NR_FILE_PAGES, NR_SHMEM, PGMAJFAULT

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.mm_types import Folio

__all__ = [
    "AddressSpace",
    "File",
    "filemap_add_folio",
    "filemap_fault",
    "filemap_map_pages",
    "filemap_remove_folio",
    "fput",
    "generic_file_vm_ops",
    "get_file",
    "mmap_file",
    "populate",
    "truncate_setsize",
]

_UPTODATE = 1 << PG_uptodate
_LOCKED = 1 << PG_locked
_READAHEAD = 1 << PG_readahead


@dataclass(slots=True, eq=False)
class AddressSpace:
    """``struct address_space`` with its inode's size: one file's pages.

    :ivar i_size: size of the file in bytes
    :ivar i_pages: page index -> folio; what is not there is not cached
    :ivar i_shadows: page index -> what reclaim left when it took the page
    :ivar swapbacked: memory of shmem or tmpfs, whose "disk" is swap
    :ivar ra_pages: pages that one readahead reads (128 KiB by default)
    :ivar i_mmap: the VMAs that map it, in order of insertion (an interval tree in the kernel)
    :ivar i_mmap_writable: shared mappings that may write to it; negative: none may be made
    :ivar i_ino, s_dev: what /proc/PID/maps shows of its inode: number, (major, minor)
    :ivar seals: F_SEAL_ bits of a memfd
    :ivar acct_size: bytes promised for it when it was made (shared anonymous memory)
    :ivar acct_blocks: its pages are promised one by one (shmem with VM_NORESERVE)
    :ivar can_writeback: there is a disk behind it, so that writes to shared pages must be seen
    :ivar swapfile, append_only: S_SWAPFILE, S_APPEND
    :ivar get_unmapped_area: how it chooses addresses, if it has a way of its own

    Mirrors include/linux/fs.h:address_space.
    """

    i_size: int = 0
    name: str = ""
    swapbacked: bool = False
    i_pages: dict[int, Folio] = field(default_factory=dict, repr=False)
    i_shadows: dict[int, int] = field(default_factory=dict, repr=False)
    gfp_mask: int = gfp_.GFP_HIGHUSER_MOVABLE
    ra_pages: int = 32
    i_mmap: dict[VmAreaStruct, None] = field(default_factory=dict, repr=False)
    i_mmap_writable: int = 0
    read_errors: dict[int, int] = field(default_factory=dict, repr=False)  # index -> -errno
    i_ino: int = 0
    s_dev: tuple[int, int] = (0, 0)
    seals: int = 0
    acct_size: int = 0
    acct_blocks: bool = False
    can_writeback: bool = False
    swapfile: bool = False
    append_only: bool = False
    get_unmapped_area: Callable[..., int] | None = field(default=None, repr=False)

    @property
    def nrpages(self) -> int:
        """How many pages are cached."""
        return len(self.i_pages)


@dataclass(slots=True, eq=False)
class File:
    """``struct file``: an open file.

    :ivar writable, readable: how it was opened (FMODE_WRITE, FMODE_READ)
    :ivar noexec: it is on a file system mounted noexec
    :ivar can_mmap: its file system can map files
    :ivar f_path: what /proc/PID/maps shows
    :ivar f_count: references: whoever opened it, and each VMA

    Mirrors include/linux/fs.h:file.
    """

    f_mapping: AddressSpace
    writable: bool = True
    mmap_miss: int = 0  # f_ra.mmap_miss
    readable: bool = True
    noexec: bool = False
    can_mmap: bool = True
    f_path: str = ""
    f_count: int = 1


def get_file(file: File) -> File:
    """Take a reference.

    Mirrors include/linux/fs.h:get_file().
    """
    file.f_count += 1
    return file


def fput(m: Machine | None, file: File) -> None:
    """Drop a reference; memory that only this file stood for goes with the last.

    Simplified: the inode of shared memory goes with its file, others stay.

    Mirrors fs/file_table.c:fput().
    """
    from mmcore.mm import shmem

    file.f_count -= 1
    if file.f_count < 0:
        raise KernelBug(f"{file!r} is put more often than it was got")
    if not file.f_count and file.f_mapping.swapbacked and m is not None:
        shmem.shmem_evict_inode(m, file.f_mapping)


def mmap_file(file: File, vma: VmAreaStruct) -> int:
    """Let the file system prepare a new mapping (``->mmap()``): 0 or -errno.

    Mirrors mm/internal.h:mmap_file().
    """
    from mmcore.mm import shmem

    if file.f_mapping.swapbacked:
        return shmem.shmem_mmap(file, vma)
    vma.vm_ops = generic_file_vm_ops
    return 0


def _max_index(mapping: AddressSpace) -> int:
    return (mapping.i_size + 4095) >> PAGE_SHIFT


def filemap_add_folio(m: Machine, mapping: AddressSpace, index: int) -> Folio | None:
    """Allocate a page for @index and put it into the cache, locked; None when there is no memory.

    Mirrors mm/filemap.c:filemap_add_folio().
    """
    folio = page_alloc.folio_alloc(m, mapping.gfp_mask, 0)
    if folio is None:
        return None
    if memcontrol.mem_cgroup_charge(folio, None, mapping.gfp_mask):
        swap.folio_put(folio)
        return None
    folio.flags |= _LOCKED
    if mapping.swapbacked:
        folio.flags |= 1 << PG_swapbacked
        folio.zone.zone_pgdat.vm_stat[NR_SHMEM] += 1
    folio.zone.zone_pgdat.vm_stat[NR_FILE_PAGES] += 1
    folio.mapping = mapping
    folio.index = index
    mapping.i_pages[index] = folio
    shadow = mapping.i_shadows.pop(index, None)
    if shadow is not None:
        workingset.workingset_refault(folio, shadow)
    swap.folio_add_lru(folio)
    return folio


def filemap_remove_folio(mapping: AddressSpace, folio: Folio) -> None:
    """Take @folio out of the cache and drop the cache's reference.

    Mirrors mm/filemap.c:filemap_remove_folio().
    """
    if folio.folio is not None or mapping.i_pages.get(folio.index) is not folio:
        raise UsageError(f"{folio!r} is not a cached page of this file")
    del mapping.i_pages[folio.index]
    folio.mapping = None
    folio.zone.zone_pgdat.vm_stat[NR_FILE_PAGES] -= 1
    if folio.flags >> PG_swapbacked & 1:
        folio.zone.zone_pgdat.vm_stat[NR_SHMEM] -= 1
    folio.flags &= ~(1 << PG_dirty)
    if mapping.acct_blocks:
        from mmcore.mm import shmem

        shmem.shmem_unacct(folio.zone.machine, 1)
    swap.folio_put(folio)


def truncate_setsize(m: Machine, mapping: AddressSpace, newsize: int) -> None:
    """Make the file shorter (or longer): cut pages leave all mappings and the cache.

    Private copies of them go, too: an access there is SIGBUS afterwards.

    :raises UsageError: for a negative size

    Mirrors mm/truncate.c:truncate_setsize().
    """
    if newsize < 0:
        raise UsageError(f"a file cannot have {newsize} bytes")
    oldsize, mapping.i_size = mapping.i_size, newsize
    if newsize < oldsize:
        hole = (newsize + 4095) >> PAGE_SHIFT
        memory.unmap_mapping_pages(m, mapping, hole, 0, True)
        for index in sorted(i for i in mapping.i_pages if i >= hole):
            filemap_remove_folio(mapping, mapping.i_pages[index])
        for index in [i for i in mapping.i_shadows if i >= hole]:
            del mapping.i_shadows[index]


def populate(m: Machine, mapping: AddressSpace, first: int, nr_pages: int) -> None:
    """Read @nr_pages from page @first into the cache, as a read() would have done.

    :raises UsageError: for a range outside the file, or when there is no memory
    """
    if first < 0 or nr_pages < 0 or first + nr_pages > _max_index(mapping):
        raise UsageError(f"pages {first}+{nr_pages} are not in a file of {mapping.i_size} bytes")
    for index in range(first, first + nr_pages):
        if index in mapping.i_pages:
            continue
        folio = filemap_add_folio(m, mapping, index)
        if folio is None:
            raise UsageError("no memory for the page cache")
        folio.flags = folio.flags & ~_LOCKED | _UPTODATE


def _maybe_unlock_mmap_for_io(vmf: VmFault) -> bool:
    """Give the lock back before I/O if the fault may be retried.

    Mirrors mm/internal.h:maybe_unlock_mmap_for_io().
    """
    if fault_flag_allow_retry_first(vmf.flags) and not vmf.flags & FAULT_FLAG_RETRY_NOWAIT:
        release_fault_lock(vmf)
        return True
    return False


def do_sync_mmap_readahead(vmf: VmFault) -> bool:
    """Start reading a window of pages around the fault; True if the lock was given back for it.

    Simplified: always the read-around window (no VM_HUGEPAGE, VM_SEQ_READ or miss counting); the pages
    are up to date when this returns.

    Mirrors mm/filemap.c:do_sync_mmap_readahead().
    """
    vma = vmf.vma
    file: File = vma.vm_file
    mapping = file.f_mapping
    if vma.vm_flags & VM_RAND_READ or not mapping.ra_pages:
        return False
    fpin = _maybe_unlock_mmap_for_io(vmf)
    m = vma.vm_mm.machine
    assert m is not None
    start = max(0, vmf.pgoff - mapping.ra_pages // 2)
    async_index = start + mapping.ra_pages - mapping.ra_pages // 4
    for index in range(start, min(start + mapping.ra_pages, _max_index(mapping))):
        if index in mapping.i_pages:
            continue
        folio = filemap_add_folio(m, mapping, index)
        if folio is None:
            break
        folio.flags &= ~_LOCKED
        if index not in mapping.read_errors:
            folio.flags |= _UPTODATE
        if index == async_index:
            folio.flags |= _READAHEAD
    return fpin


def filemap_fault(vmf: VmFault) -> int:
    """Find the page in the cache, or read it: then the fault is major.

    :return: VM_FAULT_LOCKED with ``vmf.page`` set; VM_FAULT_RETRY when the lock was given back

    Mirrors mm/filemap.c:filemap_fault().
    """
    mapping: AddressSpace = vmf.vma.vm_file.f_mapping
    m = vmf.vma.vm_mm.machine
    assert m is not None
    index = vmf.pgoff
    if index >= _max_index(mapping):
        return VM_FAULT_SIGBUS
    ret = 0
    fpin = False
    folio = mapping.i_pages.get(index)
    if folio is not None:
        if not vmf.flags & FAULT_FLAG_TRIED and folio.flags & _READAHEAD:
            folio.flags &= ~_READAHEAD  # the next window would be started here
            fpin = _maybe_unlock_mmap_for_io(vmf)
    else:
        m.vm_event[PGMAJFAULT] += 1
        ret = VM_FAULT_MAJOR
        fpin = do_sync_mmap_readahead(vmf)
        folio = mapping.i_pages.get(index)
        if folio is None:
            folio = filemap_add_folio(m, mapping, index)
            if folio is None:
                return ret | VM_FAULT_RETRY if fpin else VM_FAULT_OOM
            folio.flags &= ~_LOCKED
    if folio.flags & _LOCKED:  # somebody else reads it
        if not fpin:
            fpin = _maybe_unlock_mmap_for_io(vmf)
        return ret | VM_FAULT_RETRY
    if not folio.flags & _UPTODATE:
        if not fpin:
            fpin = _maybe_unlock_mmap_for_io(vmf)
        error = mapping.read_errors.get(index, 0)
        if not error:
            folio.flags |= _UPTODATE
        elif not fpin:
            return VM_FAULT_SIGBUS
    if fpin:
        return ret | VM_FAULT_RETRY
    swap.folio_get(folio)
    folio.flags |= _LOCKED
    if index >= _max_index(mapping):
        folio.flags &= ~_LOCKED
        swap.folio_put(folio)
        return VM_FAULT_SIGBUS
    vmf.page = folio
    return ret | VM_FAULT_LOCKED


def next_uptodate_folio(mapping: AddressSpace, index: int) -> Folio | None:
    """Return the folio at @index if it can be mapped at once: up to date, unlocked, not readahead's.

    Mirrors mm/filemap.c:next_uptodate_folio().
    """
    folio = mapping.i_pages.get(index)
    if folio is None or folio.flags & (_LOCKED | _READAHEAD) or not folio.flags & _UPTODATE:
        return None
    return folio if index < _max_index(mapping) else None


def filemap_map_pages(vmf: VmFault, start_pgoff: int, end_pgoff: int) -> int:
    """Map what is cached of [@start_pgoff, @end_pgoff] where there is no entry yet; no I/O.

    :return: VM_FAULT_NOPAGE if the faulting address was among it, else 0

    Mirrors mm/filemap.c:filemap_map_pages().
    """
    vma = vmf.vma
    mm = vma.vm_mm
    mapping: AddressSpace = vma.vm_file.f_mapping
    assert vmf.pmd is not None
    end_pgoff = min(end_pgoff, _max_index(mapping) - 1)
    found = [i for i in range(start_pgoff, end_pgoff + 1) if next_uptodate_folio(mapping, i)]
    if not found:
        return 0
    if pmd_trans_huge(vmf.pmd[0][vmf.pmd[1]]):
        return VM_FAULT_NOPAGE
    if pmd_none(vmf.pmd[0][vmf.pmd[1]]) and vmf.prealloc_pte is not None:
        if pg.pmd_install(mm, vmf.pmd, vmf.prealloc_pte):
            vmf.prealloc_pte = None
    base = vma.vm_start - (vma.vm_pgoff << PAGE_SHIFT)
    start = pg.pte_offset_map_lock(mm, vmf.pmd, base + (found[0] << PAGE_SHIFT))
    if start is None:
        return 0
    ret = rss = 0
    counter = memory.mm_counter_file(mapping.i_pages[found[0]])
    for index in found:
        folio = mapping.i_pages[index]
        addr = base + (index << PAGE_SHIFT)
        vmf.pte = (start[0], start[1] + index - found[0])
        if folio.flags >> PG_hwpoison & 1 or not pte_none(vmf.pte[0][vmf.pte[1]]):
            continue
        if vmf.address == addr:
            ret = VM_FAULT_NOPAGE
        memory.set_pte_range(vmf, folio, folio, 1, addr)
        rss += 1
        swap.folio_ref_add(folio, 1)
    if rss:
        add_mm_counter(mm, counter, rss)
    pte_unmap_unlock(mm, start)
    vmf.pte = None
    return ret


#: What an ordinary file system gives its mappings.
generic_file_vm_ops = VmOperationsStruct(
    fault=filemap_fault, map_pages=filemap_map_pages, name="generic_file_vm_ops"
)
