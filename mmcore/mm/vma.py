"""VMAs: merging, splitting and removing them.

Mirrors mm/vma.c and mm/vma.h, and vm_area_alloc() and vm_area_dup() of kernel/fork.c.

Simplified: no iterator is carried from call to call: a place in the tree is found again by its address,
which costs log n more. No uprobes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmcore.arch.x86.pgtable_types import vm_get_page_prot
from mmcore.cint import ULONG_MAX
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EINVAL, ENOMEM, EPERM, KernelBug
from mmcore.lib.maple_tree import mt_validate
from mmcore.mm import filemap, huge_memory, memory, mmu_gather, rmap, swap, util
from mmcore.mm.mm import (
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_SEALED,
    VM_SHADOW_STACK,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_SPECIAL,
    VM_STACK,
    VM_UFFD_WP,
    VM_WRITE,
    AnonVma,
    MmStruct,
    VmAreaStruct,
    VmOperationsStruct,
    mmap_read_unlock,
    mmap_write_downgrade,
    mmap_write_unlock,
    should_failslab,
    vma_is_anonymous,
    vma_mark_detached,
    vma_pages,
    vma_start_write,
)

__all__ = [
    "VMA_MERGE_ERROR_NOMEM",
    "VMA_MERGE_NOMERGE",
    "VMA_MERGE_START",
    "VMA_MERGE_SUCCESS",
    "VMG_FLAG_DEFAULT",
    "VMG_FLAG_JUST_EXPAND",
    "VmaMergeStruct",
    "VmaMunmapStruct",
    "can_modify_vma",
    "copy_vma",
    "do_vmi_align_munmap",
    "do_vmi_munmap",
    "find_mergeable_anon_vma",
    "find_vma",
    "find_vma_intersection",
    "find_vma_prev",
    "is_data_mapping",
    "is_exec_mapping",
    "is_stack_mapping",
    "merge_obstacle",
    "remove_vma",
    "split_vma",
    "validate_mm",
    "vm_area_alloc",
    "vm_area_dup",
    "vm_end_gap",
    "vm_start_gap",
    "vm_stat_account",
    "vma_expand",
    "vma_link",
    "vma_lookup",
    "vma_merge_extend",
    "vma_merge_new_range",
    "vma_modify_flags",
    "vma_modify_policy",
    "vma_set_page_prot",
    "vma_set_range",
    "vma_shrink",
    "vma_wants_writenotify",
    "vms_abort_munmap_vmas",
    "vms_clean_up_area",
    "vms_complete_munmap_vmas",
    "vms_gather_munmap_vmas",
]

# enum vma_merge_state
VMA_MERGE_START, VMA_MERGE_ERROR_NOMEM, VMA_MERGE_NOMERGE, VMA_MERGE_SUCCESS = range(4)
# enum vma_merge_flags
VMG_FLAG_DEFAULT, VMG_FLAG_JUST_EXPAND = 0, 1
# The tree of detached VMAs has a node from its second VMA on, and another for each so many more.
_DETACH_NODE = 15


# --- looking up -------------------------------------------------------------------------------


def find_vma(mm: MmStruct, addr: int) -> VmAreaStruct | None:
    """Return the first VMA that ends above @addr, or None.

    Mirrors mm/mmap.c:find_vma().
    """
    return mm.mm_mt.find(addr)


def find_vma_intersection(mm: MmStruct, start_addr: int, end_addr: int) -> VmAreaStruct | None:
    """Return the first VMA that overlaps [@start_addr, @end_addr), or None.

    Mirrors mm/mmap.c:find_vma_intersection().
    """
    return mm.mm_mt.find(start_addr, end_addr - 1)


def find_vma_prev(mm: MmStruct, addr: int) -> tuple[VmAreaStruct | None, VmAreaStruct | None]:
    """Return (find_vma(@addr), the VMA before it or before @addr).

    Mirrors mm/mmap.c:find_vma_prev().
    """
    vma = mm.mm_mt.find(addr)
    inside = vma is not None and vma.vm_start <= addr
    return vma, mm.mm_mt.prev(vma.vm_start if inside and vma is not None else addr)


def vma_lookup(mm: MmStruct, addr: int) -> VmAreaStruct | None:
    """Return the VMA that contains @addr, or None.

    Mirrors include/linux/mm.h:vma_lookup().
    """
    return mm.mm_mt.walk(addr) if 0 <= addr <= ULONG_MAX else None


def vma_next(vma: VmAreaStruct) -> VmAreaStruct | None:
    """Return the VMA after @vma, or None."""
    return vma.vm_mm.mm_mt.find(vma.vm_end)


def vma_prev(vma: VmAreaStruct) -> VmAreaStruct | None:
    """Return the VMA before @vma, or None."""
    return vma.vm_mm.mm_mt.prev(vma.vm_start)


def vm_start_gap(vma: VmAreaStruct) -> int:
    """Return where the space begins that @vma keeps free below itself.

    Mirrors include/linux/mm.h:vm_start_gap().
    """
    gap = 0
    if vma.vm_flags & VM_GROWSDOWN:
        gap = vma.vm_mm.sys.stack_guard_gap
    elif vma.vm_flags & VM_SHADOW_STACK:
        gap = PAGE_SIZE
    return max(vma.vm_start - gap, 0)


def vm_end_gap(vma: VmAreaStruct) -> int:
    """Return where the space ends that @vma keeps free above itself: no stack grows up on x86.

    Mirrors include/linux/mm.h:vm_end_gap().
    """
    return vma.vm_end


# --- making and counting ----------------------------------------------------------------------


def vm_area_alloc(
    mm: MmStruct, start: int, end: int, vm_flags: int, pgoff: int
) -> VmAreaStruct | None:
    """Make a VMA that is in no tree yet; None when there is no memory.

    Mirrors kernel/fork.c:vm_area_alloc().
    """
    if should_failslab(mm.sys):
        return None
    return VmAreaStruct(start, end, mm, vm_flags, vm_get_page_prot(vm_flags), pgoff)


def vm_area_dup(orig: VmAreaStruct) -> VmAreaStruct | None:
    """Copy a VMA; the copy has its own lock and no links, and is in no tree.

    :return: the copy; None when there is no memory

    Mirrors kernel/fork.c:vm_area_dup().
    """
    if should_failslab(orig.vm_mm.sys):
        return None
    new = VmAreaStruct(
        orig.vm_start, orig.vm_end, orig.vm_mm, orig.vm_flags, orig.vm_page_prot, orig.vm_pgoff
    )
    new.vm_file, new.vm_ops, new.anon_vma = orig.vm_file, orig.vm_ops, orig.anon_vma
    new.vm_private_data, new.vm_policy = orig.vm_private_data, orig.vm_policy
    new.vm_userfaultfd_ctx, new.anon_name = orig.vm_userfaultfd_ctx, orig.anon_name
    new.swap_readahead_info = orig.swap_readahead_info
    return new


def vma_set_range(vma: VmAreaStruct, start: int, end: int, pgoff: int) -> None:
    """Set where @vma is and what it shows there.

    Mirrors mm/internal.h:vma_set_range().
    """
    vma.vm_start, vma.vm_end, vma.vm_pgoff = start, end, pgoff


def is_exec_mapping(flags: int) -> bool:
    """Tell whether VmExe and VmLib count a mapping: code that cannot be written.

    Mirrors mm/vma.h:is_exec_mapping().
    """
    return flags & (VM_EXEC | VM_WRITE | VM_STACK) == VM_EXEC


def is_stack_mapping(flags: int) -> bool:
    """Tell whether VmStk counts a mapping.

    Mirrors mm/vma.h:is_stack_mapping().
    """
    return flags & VM_STACK == VM_STACK or flags & VM_SHADOW_STACK != 0


def is_data_mapping(flags: int) -> bool:
    """Tell whether VmData and RLIMIT_DATA count a mapping: private, writable, no stack.

    Mirrors mm/vma.h:is_data_mapping().
    """
    return flags & (VM_WRITE | VM_SHARED | VM_STACK) == VM_WRITE


def vm_stat_account(mm: MmStruct, flags: int, npages: int) -> None:
    """Count @npages more in total_vm and in the kind of memory that @flags say.

    Mirrors mm/mmap.c:vm_stat_account().
    """
    mm.total_vm += npages
    if is_exec_mapping(flags):
        mm.exec_vm += npages
    elif is_stack_mapping(flags):
        mm.stack_vm += npages
    elif is_data_mapping(flags):
        mm.data_vm += npages


def vma_iter_prealloc(mm: MmStruct) -> int:
    """Set aside the nodes that the next store in the tree may need: 0 or -ENOMEM.

    Mirrors mm/vma.h:vma_iter_prealloc().
    """
    return -ENOMEM if should_failslab(mm.sys) else 0


def vma_iter_store(mm: MmStruct, vma: VmAreaStruct) -> None:
    """Put @vma into the tree at its range, over whatever was there.

    Mirrors mm/vma.h:vma_iter_store().
    """
    mm.mm_mt.store(vma.vm_start, vma.vm_end - 1, vma)


def vma_iter_clear(mm: MmStruct, start: int, end: int) -> None:
    """Leave a hole in the tree; the nodes for it are there, or must be found.

    Mirrors mm/vma.h:vma_iter_clear().
    """
    mm.mm_mt.store(start, end - 1, None)


def vma_iter_clear_gfp(mm: MmStruct, start: int, end: int) -> int:
    """Leave a hole in the tree: 0; or -ENOMEM, and nothing is changed.

    Mirrors include/linux/mm.h:vma_iter_clear_gfp().
    """
    if should_failslab(mm.sys):
        return -ENOMEM
    vma_iter_clear(mm, start, end)
    return 0


def can_modify_vma(vma: VmAreaStruct) -> bool:
    """Tell whether @vma is not sealed.

    Mirrors mm/vma.h:can_modify_vma().
    """
    return not vma.vm_flags & VM_SEALED


# --- protection -------------------------------------------------------------------------------


def vma_soft_dirty_enabled(vma: VmAreaStruct) -> bool:
    """Tell whether writes to @vma are tracked: somebody cleared its soft-dirty bit.

    Mirrors mm/internal.h:vma_soft_dirty_enabled().
    """
    return not vma.vm_flags & VM_SOFTDIRTY


def vma_wants_writenotify(vma: VmAreaStruct) -> bool:
    """Tell whether pages of a shared mapping start read-only, so that the first write is seen.

    Mirrors mm/vma.c:vma_wants_writenotify().
    """
    if vma.vm_flags & (VM_WRITE | VM_SHARED) != VM_WRITE | VM_SHARED:
        return False
    ops = vma.vm_ops
    if ops is not None and (ops.page_mkwrite is not None or ops.pfn_mkwrite is not None):
        return True
    if vma_soft_dirty_enabled(vma) or vma.vm_flags & VM_UFFD_WP:
        return True
    if vma.vm_flags & VM_PFNMAP or vma.vm_file is None:
        return False
    return bool(vma.vm_file.f_mapping.can_writeback)


def vma_set_page_prot(vma: VmAreaStruct) -> None:
    """Derive the PTE protection from vm_flags.

    Mirrors mm/mmap.c:vma_set_page_prot().
    """
    vm_flags = vma.vm_flags
    if vma_wants_writenotify(vma):
        vm_flags &= ~VM_SHARED
    vma.vm_page_prot = vm_get_page_prot(vm_flags)


# --- merging: may two be one? -----------------------------------------------------------------


@dataclass(slots=True, eq=False)
class VmaMergeStruct:
    """``struct vma_merge_struct``: a range that is to be mapped or changed, and its neighbours.

    :ivar vma: the VMA that is changed; None for a new range; afterwards the merged one
    :ivar state: how it went, VMA_MERGE_...

    Mirrors mm/vma.h:vma_merge_struct.
    """

    mm: MmStruct
    start: int
    end: int
    flags: int
    pgoff: int
    prev: VmAreaStruct | None = None
    next: VmAreaStruct | None = None
    vma: VmAreaStruct | None = None
    file: Any = None
    anon_vma: AnonVma | None = None
    policy: Any = None
    uffd_ctx: Any = None
    anon_name: str | None = None
    merge_flags: int = VMG_FLAG_DEFAULT
    state: int = VMA_MERGE_START
    give_up_on_oom: bool = False


def vmg_vma_state(
    prev: VmAreaStruct | None, vma: VmAreaStruct, start: int, end: int
) -> VmaMergeStruct:
    """Return a merge of a part of @vma, with all its properties.

    Mirrors mm/vma.h:VMG_VMA_STATE().
    """
    return VmaMergeStruct(
        vma.vm_mm,
        start,
        end,
        vma.vm_flags,
        vma.vm_pgoff + ((start - vma.vm_start) >> PAGE_SHIFT),
        prev=prev,
        vma=vma,
        file=vma.vm_file,
        anon_vma=vma.anon_vma,
        policy=vma.vm_policy,
        uffd_ctx=vma.vm_userfaultfd_ctx,
        anon_name=vma.anon_name,
    )


def is_mergeable_vma(vmg: VmaMergeStruct, merge_next: bool) -> bool:
    """Tell whether policy, flags (but VM_SOFTDIRTY), file, userfaultfd and name are the same.

    Mirrors mm/vma.c:is_mergeable_vma().
    """
    vma = vmg.next if merge_next else vmg.prev
    assert vma is not None
    return (
        vmg.policy == vma.vm_policy
        and not (vma.vm_flags ^ vmg.flags) & ~VM_SOFTDIRTY
        and vma.vm_file is vmg.file
        and vma.vm_userfaultfd_ctx is vmg.uffd_ctx
        and vma.anon_name == vmg.anon_name
    )


def is_mergeable_anon_vma(
    anon_vma1: AnonVma | None, anon_vma2: AnonVma | None, vma: VmAreaStruct | None
) -> bool:
    """Tell whether two anon_vmas can be one: equal, or one is missing and @vma was not forked.

    Mirrors mm/vma.c:is_mergeable_anon_vma().
    """
    if anon_vma1 is None or anon_vma2 is None:
        if vma is None or len(vma.anon_vma_chain) == 1:
            return True
    return anon_vma1 is anon_vma2


def are_anon_vmas_compatible(vma1: VmAreaStruct, vma2: VmAreaStruct) -> bool:
    """Tell whether the anon_vmas of two VMAs can be one.

    Mirrors mm/vma.c:are_anon_vmas_compatible().
    """
    return is_mergeable_anon_vma(vma1.anon_vma, vma2.anon_vma, None)


def can_vma_merge_before(vmg: VmaMergeStruct) -> bool:
    """Tell whether the range can become the beginning of ``vmg.next``.

    Mirrors mm/vma.c:can_vma_merge_before().
    """
    assert vmg.next is not None
    pglen = (vmg.end - vmg.start) >> PAGE_SHIFT
    return (
        is_mergeable_vma(vmg, True)
        and is_mergeable_anon_vma(vmg.anon_vma, vmg.next.anon_vma, vmg.next)
        and vmg.next.vm_pgoff == vmg.pgoff + pglen
    )


def can_vma_merge_after(vmg: VmaMergeStruct) -> bool:
    """Tell whether the range can become the end of ``vmg.prev``.

    Mirrors mm/vma.c:can_vma_merge_after().
    """
    assert vmg.prev is not None
    return (
        is_mergeable_vma(vmg, False)
        and is_mergeable_anon_vma(vmg.anon_vma, vmg.prev.anon_vma, vmg.prev)
        and vmg.prev.vm_pgoff + vma_pages(vmg.prev) == vmg.pgoff
    )


def can_vma_merge_left(vmg: VmaMergeStruct) -> bool:
    """Tell whether the previous VMA touches the range and can take it in.

    Mirrors mm/vma.c:can_vma_merge_left().
    """
    return vmg.prev is not None and vmg.prev.vm_end == vmg.start and can_vma_merge_after(vmg)


def can_vma_merge_right(vmg: VmaMergeStruct, can_merge_left: bool) -> bool:
    """Tell whether the next VMA touches the range and can take it in, besides the previous one.

    Mirrors mm/vma.c:can_vma_merge_right().
    """
    if vmg.next is None or vmg.end != vmg.next.vm_start or not can_vma_merge_before(vmg):
        return False
    if not can_merge_left:
        return True
    assert vmg.prev is not None
    return are_anon_vmas_compatible(vmg.prev, vmg.next)


def can_merge_remove_vma(vma: VmAreaStruct) -> bool:
    """Tell whether @vma may vanish in a merge: nobody wants to hear of its end.

    Mirrors mm/vma.c:can_merge_remove_vma().
    """
    return vma.vm_ops is None or vma.vm_ops.close is None


def merge_obstacle(vma: VmAreaStruct, following: VmAreaStruct) -> str:
    """Return why two neighbours are not one VMA; "" if nothing stands against it.

    The rules of `is_mergeable_vma()` and its callers, in words and in their order.
    """
    differ = (vma.vm_flags ^ following.vm_flags) & ~VM_SOFTDIRTY
    if vma.vm_end != following.vm_start:
        return "a hole between them"
    if (vma.vm_flags | following.vm_flags) & VM_SPECIAL:
        return "a special mapping"
    if vma.vm_policy != following.vm_policy:
        return "another memory policy"
    if differ:
        return f"flags differ: {differ:#x}"
    if vma.vm_file is not following.vm_file:
        return "another file" if vma.vm_file and following.vm_file else "only one has a file"
    if vma.vm_userfaultfd_ctx is not following.vm_userfaultfd_ctx:
        return "another userfaultfd"
    if not is_mergeable_anon_vma(vma.anon_vma, following.anon_vma, following):
        return "another anon_vma"
    if vma.vm_pgoff + vma_pages(vma) != following.vm_pgoff:
        return "offsets do not continue"
    if not can_merge_remove_vma(following):
        return "the second wants to be closed"
    return ""


# --- changing the tree ------------------------------------------------------------------------


def _anon_tree_update(vma: VmAreaStruct) -> None:
    """Move @vma in the interval trees of its anon_vmas, after its range has changed.

    anon_vma_interval_tree_pre_update_vma() and ..._post_update_vma() in one.
    """
    for avc in reversed(vma.anon_vma_chain):
        rmap.anon_vma_interval_tree_remove(avc, avc.anon_vma)
        rmap.anon_vma_interval_tree_insert(avc, avc.anon_vma)


def vma_is_shared_maywrite(vma: VmAreaStruct) -> bool:
    """Tell whether @vma may ever write to its file.

    Mirrors include/linux/mm.h:vma_is_shared_maywrite().
    """
    return vma.vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_SHARED | VM_MAYWRITE


def vma_link_file(vma: VmAreaStruct) -> None:
    """Let the file know that @vma maps it.

    Mirrors mm/vma.c:vma_link_file().
    """
    if vma.vm_file is not None:
        if vma_is_shared_maywrite(vma):
            vma.vm_file.f_mapping.i_mmap_writable += 1
        vma.vm_file.f_mapping.i_mmap[vma] = None


def unlink_file_vma(vma: VmAreaStruct) -> None:
    """Let the file forget @vma.

    Mirrors mm/vma.c:unlink_file_vma().
    """
    if vma.vm_file is not None:
        if vma_is_shared_maywrite(vma):
            vma.vm_file.f_mapping.i_mmap_writable -= 1
        del vma.vm_file.f_mapping.i_mmap[vma]


def _file_tree_update(vma: VmAreaStruct) -> None:
    """Move @vma in the file's interval tree, after its range has changed."""
    if vma.vm_file is not None:
        del vma.vm_file.f_mapping.i_mmap[vma]
        vma.vm_file.f_mapping.i_mmap[vma] = None


def _remove_merged(vma: VmAreaStruct, remove: VmAreaStruct) -> None:
    """Free a VMA that was merged into @vma: the end of vma_complete()."""
    vma_mark_detached(remove, True)
    if remove.vm_file is not None:
        unlink_file_vma(remove)
        filemap.fput(vma.vm_mm.machine, remove.vm_file)
    if remove.anon_vma is not None:
        rmap.anon_vma_merge(vma, remove)
    vma.vm_mm.map_count -= 1


def vma_link(mm: MmStruct, vma: VmAreaStruct) -> int:
    """Put @vma into the tree and tell its file. The caller holds mmap_lock for writing.

    :return: 0 or -ENOMEM

    Mirrors mm/vma.c:vma_link().
    """
    if vma_iter_prealloc(mm):
        return -ENOMEM
    vma_start_write(vma)
    vma_iter_store(mm, vma)
    vma_link_file(vma)
    mm.map_count += 1
    return 0


def _emit_split(vma: VmAreaStruct, addr: int) -> None:
    m = vma.vm_mm.machine
    if m is not None and m.trace.on:
        m.trace.emit("model:vma_split", vma.vm_start, vma.vm_end, addr)


def __split_vma(vma: VmAreaStruct, addr: int, new_below: bool) -> int:
    """Split @vma at @addr without looking at map_count; the new VMA is the part below or above.

    :return: 0, what ->may_split() says, or -ENOMEM: then nothing is changed

    Mirrors mm/vma.c:__split_vma().
    """
    mm = vma.vm_mm
    if not vma.vm_start < addr < vma.vm_end:
        raise KernelBug(f"{vma!r} cannot be split at {addr:#x}")
    if vma.vm_ops is not None and vma.vm_ops.may_split is not None:
        err = vma.vm_ops.may_split(vma, addr)
        if err:
            return err
    pages = (addr - vma.vm_start) >> PAGE_SHIFT
    new = vm_area_dup(vma)
    if new is None:
        return -ENOMEM
    if new_below:
        new.vm_end = addr
    else:
        new.vm_start = addr
        new.vm_pgoff += pages
    if vma_iter_prealloc(mm) or rmap.anon_vma_clone(new, vma):
        return -ENOMEM
    _emit_split(vma, addr)
    if new.vm_file is not None:
        filemap.get_file(new.vm_file)
    if new.vm_ops is not None and new.vm_ops.open is not None:
        new.vm_ops.open(new)
    vma_start_write(vma)
    vma_start_write(new)
    vma_link_file(new)
    huge_memory.vma_adjust_trans_huge(vma, vma.vm_start, addr, 0)
    if new_below:
        vma.vm_start = addr
        vma.vm_pgoff += pages
    else:
        vma.vm_end = addr
    _file_tree_update(vma)
    vma_iter_store(mm, new)
    mm.map_count += 1
    _anon_tree_update(vma)
    return 0


def split_vma(vma: VmAreaStruct, addr: int, new_below: bool) -> int:
    """Split @vma at @addr; the new VMA is the part below or above.

    :return: 0, -ENOMEM at sysctl_max_map_count or without memory

    Mirrors mm/vma.c:split_vma().
    """
    if vma.vm_mm.map_count >= vma.vm_mm.sys.sysctl_max_map_count:
        return -ENOMEM
    return __split_vma(vma, addr, new_below)


def dup_anon_vma(dst: VmAreaStruct, src: VmAreaStruct) -> tuple[int, VmAreaStruct | None]:
    """Give @dst the anon_vmas of @src if it has none: it takes over pages of @src.

    :return: (0 or -ENOMEM, @dst if it has got them)

    Mirrors mm/vma.c:dup_anon_vma().
    """
    if src.anon_vma is None or dst.anon_vma is not None:
        return 0, None
    dst.anon_vma = src.anon_vma
    err = rmap.anon_vma_clone(dst, src)
    return err, None if err else dst


def commit_merge(
    vmg: VmaMergeStruct,
    adjust: VmAreaStruct | None,
    remove: VmAreaStruct | None,
    remove2: VmAreaStruct | None,
    adj_start: int,
    expanded: bool,
) -> int:
    """Do what was decided: ``vmg.vma`` gets its range, @adjust another start, others go.

    :param adj_start: bytes by which the start of @adjust moves
    :param expanded: ``vmg.vma`` grows (else it shrinks, and @adjust grows)
    :return: 0; or -ENOMEM, and nothing is changed

    Mirrors mm/vma.c:commit_merge().
    """
    vma = vmg.vma
    assert vma is not None
    if vma_iter_prealloc(vmg.mm):
        return -ENOMEM
    huge_memory.vma_adjust_trans_huge(vma, vmg.start, vmg.end, adj_start)
    vma_set_range(vma, vmg.start, vmg.end, vmg.pgoff)
    if expanded:
        vma_iter_store(vmg.mm, vma)
    if adj_start:
        assert adjust is not None
        adjust.vm_start += adj_start
        adjust.vm_pgoff += adj_start >> PAGE_SHIFT
        if adj_start < 0:
            vma_iter_store(vmg.mm, adjust)
    if adjust is not None:
        _file_tree_update(adjust)
    _file_tree_update(vma)
    _anon_tree_update(vma)
    if adjust is not None:
        _anon_tree_update(adjust)
    for gone in (remove, remove2):
        if gone is not None:
            _remove_merged(vma, gone)
    return 0


def m_trace_on(mm: MmStruct) -> bool:
    """Tell whether somebody listens to events."""
    return mm.machine is not None and mm.machine.trace.on


def _side_obstacle(vmg: VmaMergeStruct, right: bool) -> str:
    """Return the first predicate that keeps a range from merging with one neighbour, "" if none does."""
    vma = vmg.next if right else vmg.prev
    if vma is None:
        return "no neighbour"
    if (vma.vm_start != vmg.end) if right else (vma.vm_end != vmg.start):
        return "hole"
    pages = (vmg.end - vmg.start) >> PAGE_SHIFT
    follows = vma.vm_pgoff == vmg.pgoff + pages
    if not right:
        follows = vma.vm_pgoff + vma_pages(vma) == vmg.pgoff
    for word, ok in (
        ("special", not vmg.flags & VM_SPECIAL),
        ("policy", vmg.policy == vma.vm_policy),
        ("flags", not (vma.vm_flags ^ vmg.flags) & ~VM_SOFTDIRTY),
        ("file", vma.vm_file is vmg.file),
        ("userfaultfd", vma.vm_userfaultfd_ctx is vmg.uffd_ctx),
        ("name", vma.anon_name == vmg.anon_name),
        ("anon_vma", is_mergeable_anon_vma(vmg.anon_vma, vma.anon_vma, vma)),
        ("pgoff", follows),
    ):
        if not ok:
            return word
    return ""


def _emit_merge(
    vmg: VmaMergeStruct,
    start: int,
    end: int,
    left: bool,
    right: bool,
    inside: tuple[bool, bool] = (False, False),
) -> None:
    """Emit what merges, and why the rest does not; called before anything is changed.

    :param inside: whether the range begins, and whether it ends, in the middle of its VMA
    """
    m = vmg.mm.machine
    if m is None or not m.trace.on:
        return
    why = ["", ""]
    for side, merges in ((0, left), (1, right)):
        if not merges:
            word = "inside" if inside[side] else _side_obstacle(vmg, side == 1)
            if not word:  # each neighbour would do, but not both
                close = vmg.next is not None and not can_merge_remove_vma(vmg.next)
                word = "close" if close else "anon_vmas differ" if left or right else "just expand"
            why[side] = word
    kind = "both" if left and right else "left" if left else "right" if right else "none"
    m.trace.emit("model:vma_merge", start, end, kind, *why)


def _merge_sides(vmg: VmaMergeStruct) -> tuple[bool, bool]:
    """Decide with which neighbours the changed range of ``vmg.vma`` merges, and set vmg.next."""
    vma = vmg.vma
    assert vma is not None
    left_side, right_side = vmg.start == vma.vm_start, vmg.end == vma.vm_end
    if vmg.flags & VM_SPECIAL or not (left_side or right_side):
        return False, False
    merge_left = left_side and can_vma_merge_left(vmg)
    merge_right = False
    if right_side:
        adjacent = vmg.mm.mm_mt.walk(vma.vm_end)
        vmg.next = adjacent
        merge_right = can_vma_merge_right(vmg, merge_left)
    if not merge_left and not merge_right:
        return False, False
    if left_side and right_side and not can_merge_remove_vma(vma):
        return False, False
    if merge_left and merge_right:
        assert vmg.next is not None
        if not can_merge_remove_vma(vmg.next):
            merge_right = False
    return merge_left, merge_right


def _merge_nomem(vmg: VmaMergeStruct, anon_dup: VmAreaStruct | None) -> None:
    """Undo what a merge without memory has done: only links to anon_vmas; and say so."""
    if anon_dup is not None:
        rmap.unlink_anon_vmas(anon_dup)
    if not vmg.give_up_on_oom:
        vmg.state = VMA_MERGE_ERROR_NOMEM


def vma_merge_existing_range(vmg: VmaMergeStruct) -> VmAreaStruct | None:
    """Merge a part of ``vmg.vma``, which is to have other properties, with its neighbours.

    :return: the VMA that has the range now; None if no neighbour can take it, or (``vmg.state``
        is VMA_MERGE_ERROR_NOMEM) there is no memory

    Mirrors mm/vma.c:vma_merge_existing_range().
    """
    vma, prev, start, end = vmg.vma, vmg.prev, vmg.start, vmg.end
    assert vma is not None
    if vmg.next is not None or start >= end or (prev is not None and start <= prev.vm_start):
        raise KernelBug(f"merge of {start:#x}-{end:#x} in {vma!r} was not set up right")
    delete_vma = start == vma.vm_start and end == vma.vm_end
    vmg.state = VMA_MERGE_NOMERGE
    merge_left, merge_right = _merge_sides(vmg)
    following = vmg.next
    if m_trace_on(vmg.mm):
        probe = vmg_vma_state(prev, vma, start, end)
        probe.flags, probe.policy, probe.next = vmg.flags, vmg.policy, vma_next(vma)
        inside = (start != vma.vm_start, end != vma.vm_end)
        _emit_merge(probe, start, end, merge_left, merge_right, inside)
    if not merge_left and not merge_right:
        return None
    vma_start_write(vma)
    if merge_left:
        assert prev is not None
        vma_start_write(prev)
    if merge_right:
        assert following is not None
        vma_start_write(following)
    adjust: VmAreaStruct | None = None
    adj_start = 0
    both = merge_left and merge_right
    if both:
        assert prev is not None and following is not None
        vmg.vma, vmg.start, vmg.end, vmg.pgoff = (
            prev,
            prev.vm_start,
            following.vm_end,
            prev.vm_pgoff,
        )
        source = following if following.anon_vma is not None else vma
        err, anon_dup = dup_anon_vma(prev, source)
    elif merge_left:
        assert prev is not None
        vmg.vma, vmg.start, vmg.pgoff = prev, prev.vm_start, prev.vm_pgoff
        if not delete_vma:
            adjust, adj_start = vma, vmg.end - vma.vm_start
        err, anon_dup = dup_anon_vma(prev, vma)
    else:
        assert following is not None
        pglen = (end - start) >> PAGE_SHIFT
        if delete_vma:
            vmg.vma, vmg.end, vmg.pgoff = following, following.vm_end, following.vm_pgoff - pglen
        else:  # the only case in which vmg.vma shrinks
            vmg.start, vmg.end, vmg.pgoff = vma.vm_start, start, vma.vm_pgoff
            adjust, adj_start = following, -(vma.vm_end - start)
        err, anon_dup = dup_anon_vma(following, vma)
    expanded = not merge_right or delete_vma
    gone = vma if delete_vma else None, following if both else None
    if err or commit_merge(vmg, adjust, *gone, adj_start, expanded):
        _merge_nomem(vmg, anon_dup)
        return None
    vmg.state = VMA_MERGE_SUCCESS
    return prev if merge_left else following


def vma_merge_new_range(vmg: VmaMergeStruct) -> VmAreaStruct | None:
    """Let a neighbour take in a range that is about to be mapped.

    The previous VMA is preferred; if both can be one with the range, the next one goes.

    :return: the VMA that has the range now; None if no neighbour can take it

    Mirrors mm/vma.c:vma_merge_new_range().
    """
    prev, following = vmg.prev, vmg.next
    start, end, pgoff = vmg.start, vmg.end, vmg.pgoff
    just_expand = vmg.merge_flags & VMG_FLAG_JUST_EXPAND
    if vmg.vma is not None:
        raise KernelBug("vma_merge_new_range() is for ranges that are not mapped")
    vmg.state = VMA_MERGE_NOMERGE
    if vmg.flags & VM_SPECIAL or (prev is None and following is None):
        _emit_merge(vmg, start, end, False, False)
        return None
    left = can_vma_merge_left(vmg)
    right = not just_expand and can_vma_merge_right(vmg, left)
    closing = left and right and following is not None and not can_merge_remove_vma(following)
    _emit_merge(vmg, start, end, left, right and not closing)
    if right:
        assert following is not None
        vmg.end, vmg.vma = following.vm_end, following
        vmg.pgoff = following.vm_pgoff - ((end - start) >> PAGE_SHIFT)
    if left:
        assert prev is not None
        vmg.start, vmg.vma, vmg.pgoff = prev.vm_start, prev, prev.vm_pgoff
        if closing:
            vmg.end = end
    if vmg.vma is not None and not vma_expand(vmg):
        vmg.state = VMA_MERGE_SUCCESS
        return vmg.vma
    if not just_expand:
        vmg.vma, vmg.start, vmg.end, vmg.pgoff = None, start, end, pgoff
    return None


def vma_expand(vmg: VmaMergeStruct) -> int:
    """Let ``vmg.vma`` grow to the range of @vmg, over ``vmg.next`` if it ends there.

    :return: 0; or -ENOMEM, and nothing is changed

    Mirrors mm/vma.c:vma_expand().
    """
    vma, following = vmg.vma, vmg.next
    assert vma is not None
    if vma.vm_start < vmg.start or vma.vm_end > vmg.end:
        raise KernelBug(f"vma_expand() cannot make {vma!r} smaller")
    remove_next = following is not None and following is not vma and vmg.end == following.vm_end
    vma_start_write(vma)
    anon_dup = None
    if remove_next:
        assert following is not None
        if not can_merge_remove_vma(following):
            raise KernelBug(f"{following!r} must not vanish")
        vma_start_write(following)
        err, anon_dup = dup_anon_vma(vma, following)
        if err:
            return err
    elif following is not None and following is not vma and vmg.end > following.vm_start:
        raise KernelBug(f"{vma!r} would overlap {following!r}")
    if commit_merge(vmg, None, following if remove_next else None, None, 0, True):
        _merge_nomem(vmg, anon_dup)
        return -ENOMEM
    return 0


def vma_shrink(vma: VmAreaStruct, start: int, end: int, pgoff: int) -> int:
    """Take pages off one end of @vma; they are unmapped already.

    :return: 0; or -ENOMEM, and nothing is changed

    Mirrors mm/vma.c:vma_shrink().
    """
    if vma.vm_start != start and vma.vm_end != end:
        raise KernelBug(f"vma_shrink() of {vma!r} at both ends")
    if vma_iter_prealloc(vma.vm_mm):
        return -ENOMEM
    vma_start_write(vma)
    huge_memory.vma_adjust_trans_huge(vma, start, end, 0)
    if vma.vm_start < start:
        vma_iter_clear(vma.vm_mm, vma.vm_start, start)
    else:
        vma_iter_clear(vma.vm_mm, end, vma.vm_end)
    vma_set_range(vma, start, end, pgoff)
    _file_tree_update(vma)
    _anon_tree_update(vma)
    return 0


def vma_modify(vmg: VmaMergeStruct) -> VmAreaStruct | int:
    """Merge the range with its neighbours, or split it off.

    :return: the VMA of exactly the range, or the merged one; -ENOMEM at sysctl_max_map_count
        or without memory

    Mirrors mm/vma.c:vma_modify().
    """
    vma, start, end = vmg.vma, vmg.start, vmg.end
    assert vma is not None
    merged = vma_merge_existing_range(vmg)
    if merged is not None:
        return merged
    if vmg.state == VMA_MERGE_ERROR_NOMEM:  # vmg_nomem()
        return -ENOMEM
    if vma.vm_start < start:
        err = split_vma(vma, start, True)
        if err:
            return err
    if vma.vm_end > end:
        err = split_vma(vma, end, False)
        if err:
            return err
    return vma


def vma_modify_flags(
    prev: VmAreaStruct | None, vma: VmAreaStruct, start: int, end: int, new_flags: int
) -> VmAreaStruct | int:
    """Prepare [@start, @end) of @vma for other flags, which the caller sets.

    :return: the VMA to change, or -errno

    Mirrors mm/vma.c:vma_modify_flags().
    """
    vmg = vmg_vma_state(prev, vma, start, end)
    vmg.flags = new_flags
    return vma_modify(vmg)


def vma_modify_policy(
    prev: VmAreaStruct | None, vma: VmAreaStruct, start: int, end: int, new_pol: Any
) -> VmAreaStruct | int:
    """Prepare [@start, @end) of @vma for another memory policy, which the caller sets.

    :return: the VMA to change, or -errno

    Mirrors mm/vma.c:vma_modify_policy().
    """
    vmg = vmg_vma_state(prev, vma, start, end)
    vmg.policy = new_pol
    return vma_modify(vmg)


def vma_merge_extend(vma: VmAreaStruct, delta: int) -> VmAreaStruct | None:
    """Let @vma grow by @delta at its end, and merge it with what it then touches.

    Mirrors mm/vma.c:vma_merge_extend().
    """
    vmg = vmg_vma_state(vma, vma, vma.vm_end, vma.vm_end + delta)
    vmg.next = vma_next(vma)
    vmg.vma = None
    return vma_merge_new_range(vmg)


def copy_vma(
    vma: VmAreaStruct, addr: int, length: int, pgoff: int, keep_source: bool
) -> tuple[VmAreaStruct | None, VmAreaStruct, bool]:
    """Make the VMA that mremap() moves pages of @vma to.

    :return: (the new VMA or None, @vma or what it has been merged into, need_rmap_locks)

    Mirrors mm/vma.c:copy_vma().
    """
    mm = vma.vm_mm
    vma_start = vma.vm_start
    vmg = vmg_vma_state(None, vma, addr, addr + length)
    faulted_in_anon_vma = True
    if vma_is_anonymous(vma) and vma.anon_vma is None:
        pgoff = addr >> PAGE_SHIFT
        faulted_in_anon_vma = False
    found, vmg.prev = find_vma_prev(mm, addr)
    if found is not None and found.vm_start < addr + length:
        return None, vma, False
    vmg.vma, vmg.pgoff, vmg.next = None, pgoff, found
    if not faulted_in_anon_vma and keep_source:  # no merge with the source, which stays
        vmg.prev = None if vmg.prev is vma else vmg.prev
        vmg.next = None if vmg.next is vma else vmg.next
        faulted_in_anon_vma = True
    new = vma_merge_new_range(vmg)
    if new is not None:
        if new.vm_start <= vma_start < new.vm_end:
            if faulted_in_anon_vma:
                raise KernelBug(f"{vma!r} was merged with its own copy")
            vma = new
        return new, vma, new.vm_pgoff <= vma.vm_pgoff
    new = vm_area_dup(vma)
    if new is None:
        return None, vma, False
    vma_set_range(new, addr, addr + length, pgoff)
    if rmap.anon_vma_clone(new, vma):
        return None, vma, False
    if new.vm_file is not None:
        filemap.get_file(new.vm_file)
    if new.vm_ops is not None and new.vm_ops.open is not None:
        new.vm_ops.open(new)
    if vma_link(mm, new):
        remove_vma(new)
        rmap.unlink_anon_vmas(new)
        return None, vma, False
    return new, vma, False


# --- anon_vma of a neighbour ------------------------------------------------------------------


def anon_vma_compatible(a: VmAreaStruct, b: VmAreaStruct) -> bool:
    """Tell whether @a and the VMA @b behind it differ only in what mprotect() may change.

    Mirrors mm/vma.c:anon_vma_compatible().
    """
    return (
        a.vm_end == b.vm_start
        and a.vm_policy == b.vm_policy
        and a.vm_file is b.vm_file
        and not (a.vm_flags ^ b.vm_flags) & ~(VM_ACCESS_FLAGS | VM_SOFTDIRTY)
        and b.vm_pgoff == a.vm_pgoff + ((b.vm_start - a.vm_start) >> PAGE_SHIFT)
    )


def reusable_anon_vma(old: VmAreaStruct, a: VmAreaStruct, b: VmAreaStruct) -> AnonVma | None:
    """Return the anon_vma of @old, which is @a or @b, if the other may use it, too.

    Mirrors mm/vma.c:reusable_anon_vma().
    """
    if anon_vma_compatible(a, b) and old.anon_vma is not None and len(old.anon_vma_chain) == 1:
        return old.anon_vma
    return None


def find_mergeable_anon_vma(vma: VmAreaStruct) -> AnonVma | None:
    """Return the anon_vma of a neighbour that @vma can share, the next one's first; or None.

    Mirrors mm/vma.c:find_mergeable_anon_vma().
    """
    following = vma.vm_mm.mm_mt.walk(vma.vm_end)
    if following is not None:
        anon_vma = reusable_anon_vma(following, vma, following)
        if anon_vma is not None:
            return anon_vma
    prev = vma_prev(vma)
    return None if prev is None else reusable_anon_vma(prev, prev, vma)


# --- unmapping --------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class VmaMunmapStruct:
    """``struct vma_munmap_struct``: VMAs on their way out.

    :ivar vma: the first VMA of the range, None if there is none
    :ivar unmap_start, unmap_end: the neighbours' ends: how far page tables may be freed
    :ivar mas_detach: the VMAs that go (a maple tree in the kernel)
    :ivar clear_ptes: their page table entries are still there

    Mirrors mm/vma.h:vma_munmap_struct.
    """

    mm: MmStruct
    vma: VmAreaStruct | None
    start: int = 0
    end: int = 0
    unlock: bool = False
    prev: VmAreaStruct | None = None
    next: VmAreaStruct | None = None
    unmap_start: int = 0
    unmap_end: int = 0
    vma_count: int = 0
    clear_ptes: bool = False
    nr_pages: int = 0
    locked_vm: int = 0
    nr_accounted: int = 0
    exec_vm: int = 0
    stack_vm: int = 0
    data_vm: int = 0
    mas_detach: list[VmAreaStruct] = field(default_factory=list)


def reattach_vmas(vms: VmaMunmapStruct) -> None:
    """Take back that VMAs were marked as gone.

    Mirrors mm/vma.h:reattach_vmas().
    """
    for vma in vms.mas_detach:
        vma_mark_detached(vma, False)
    vms.mas_detach.clear()


def vms_clear_ptes(vms: VmaMunmapStruct) -> None:
    """Take down the page table entries of the VMAs that go, and tables that nobody needs.

    Mirrors mm/vma.c:vms_clear_ptes().
    """
    if not vms.clear_ptes:
        return
    mm = vms.mm
    if mm.machine is not None:
        swap.lru_add_drain(mm.machine)
    tlb = mmu_gather.tlb_gather_mmu(mm)
    update_hiwater_rss(mm)
    memory.unmap_vmas(tlb, vms.mas_detach, vms.start, vms.end)
    memory.free_pgtables(tlb, vms.mas_detach, vms.unmap_start, vms.unmap_end)
    mmu_gather.tlb_finish_mmu(tlb)
    vms.clear_ptes = False


def update_hiwater_rss(mm: MmStruct) -> None:
    """Note the resident set before it becomes smaller.

    Mirrors include/linux/mm.h:update_hiwater_rss().
    """
    from mmcore.mm.mm import get_mm_rss

    mm.hiwater_rss = max(mm.hiwater_rss, get_mm_rss(mm))


def vma_close(vma: VmAreaStruct) -> None:
    """Tell the owner that @vma goes, once.

    Mirrors mm/internal.h:vma_close().
    """
    if vma.vm_ops is not None and vma.vm_ops.close is not None:
        vma.vm_ops.close(vma)
        vma.vm_ops = VmOperationsStruct(name="vma_dummy_vm_ops")


def remove_vma(vma: VmAreaStruct) -> None:
    """Close and free a VMA that is in no tree.

    Mirrors mm/vma.c:remove_vma().
    """
    vma_close(vma)
    if vma.vm_file is not None:
        filemap.fput(vma.vm_mm.machine, vma.vm_file)


def _count_detached(vms: VmaMunmapStruct, vma: VmAreaStruct) -> None:
    """Add a VMA to what goes, and to what will be counted less."""
    vma_start_write(vma)
    vms.mas_detach.append(vma)
    vms.vma_count += 1
    vma_mark_detached(vma, True)
    nrpages = vma_pages(vma)
    vms.nr_pages += nrpages
    if vma.vm_flags & VM_LOCKED:
        vms.locked_vm += nrpages
    if vma.vm_flags & VM_ACCOUNT:
        vms.nr_accounted += nrpages
    if is_exec_mapping(vma.vm_flags):
        vms.exec_vm += nrpages
    elif is_stack_mapping(vma.vm_flags):
        vms.stack_vm += nrpages
    elif is_data_mapping(vma.vm_flags):
        vms.data_vm += nrpages


def vms_gather_munmap_vmas(vms: VmaMunmapStruct) -> int:
    """Split what sticks out of the range, and mark the VMAs in it as gone; the tree still has them.

    map_count is tested only for a hole in the middle of one VMA.

    :return: 0; -ENOMEM at sysctl_max_map_count or without memory, -EPERM for a sealed VMA: splits that
        were made stay

    Mirrors mm/vma.c:vms_gather_munmap_vmas().
    """
    vma, mm = vms.vma, vms.mm
    assert vma is not None
    if vms.start > vma.vm_start:
        if vms.end < vma.vm_end and mm.map_count >= mm.sys.sysctl_max_map_count:
            return -ENOMEM
        if not can_modify_vma(vma):
            return -EPERM
        error = __split_vma(vma, vms.start, True)
        if error:
            return error
    vms.prev = mm.mm_mt.prev(vma.vm_start)
    if vms.prev is not None:
        vms.unmap_start = vms.prev.vm_end
    current: VmAreaStruct | None = vma
    while current is not None:
        error = 0 if can_modify_vma(current) else -EPERM
        if not error and current.vm_end > vms.end:
            error = __split_vma(current, vms.end, False)
        if not error and vms.vma_count % _DETACH_NODE == 1 and should_failslab(mm.sys):
            error = -ENOMEM  # the tree of detached VMAs needs a node
        if error:
            reattach_vmas(vms)
            return error
        _count_detached(vms, current)
        current = mm.mm_mt.find(current.vm_end, vms.end - 1)
    vms.next = mm.mm_mt.find(vms.end)
    if vms.next is not None:
        vms.unmap_end = vms.next.vm_start
    vms.clear_ptes = True
    return 0


def vms_clean_up_area(vms: VmaMunmapStruct) -> None:
    """Take down entries and close VMAs while they are in the tree: a new mapping takes their place.

    Mirrors mm/vma.c:vms_clean_up_area().
    """
    if not vms.nr_pages:
        return
    vms_clear_ptes(vms)
    for vma in vms.mas_detach:
        vma_close(vma)


def vms_complete_munmap_vmas(vms: VmaMunmapStruct) -> None:
    """Finish: count less, take down what is left, free the VMAs, take back promises.

    Mirrors mm/vma.c:vms_complete_munmap_vmas().
    """
    mm = vms.mm
    mm.map_count -= vms.vma_count
    mm.locked_vm -= vms.locked_vm
    if vms.unlock:
        mmap_write_downgrade(mm)
    if not vms.nr_pages:
        return
    vms_clear_ptes(vms)
    mm.hiwater_vm = max(mm.hiwater_vm, mm.total_vm)
    mm.total_vm -= vms.nr_pages
    mm.exec_vm -= vms.exec_vm
    mm.stack_vm -= vms.stack_vm
    mm.data_vm -= vms.data_vm
    for vma in vms.mas_detach:
        remove_vma(vma)
    util.vm_unacct_memory(mm, vms.nr_accounted)
    if vms.unlock:
        mmap_read_unlock(mm)


def vms_abort_munmap_vmas(vms: VmaMunmapStruct) -> None:
    """Undo a munmap for a mapping that failed; if entries are gone already, let a hole remain.

    Mirrors mm/vma.h:vms_abort_munmap_vmas().
    """
    if not vms.nr_pages:
        return
    if vms.clear_ptes:
        reattach_vmas(vms)
        return
    vma_iter_clear(vms.mm, vms.start, vms.end)
    vms_complete_munmap_vmas(vms)


def do_vmi_align_munmap(vma: VmAreaStruct, mm: MmStruct, start: int, end: int, unlock: bool) -> int:
    """Unmap [@start, @end), of which @vma is the first VMA: 0, or -errno with the lock still held.

    :param unlock: give mmap_lock back on success

    Mirrors mm/vma.c:do_vmi_align_munmap().
    """
    vms = VmaMunmapStruct(mm, vma, start, end, unlock)
    error = vms_gather_munmap_vmas(vms)
    if error:
        return error
    if mm.machine is not None and mm.machine.trace.on:
        mm.machine.trace.emit("mmap:vma_mas_szero", mm.mm_id, start, end - 1)
    error = vma_iter_clear_gfp(mm, start, end)
    if error:
        reattach_vmas(vms)
        return error
    vms_complete_munmap_vmas(vms)
    return 0


def do_vmi_munmap(mm: MmStruct, start: int, length: int, unlock: bool) -> int:
    """Unmap a range with mmap_lock held for writing: 0 or -errno.

    :param unlock: give mmap_lock back on success

    Mirrors mm/vma.c:do_vmi_munmap().
    """
    if start & (PAGE_SIZE - 1) or start > mm.task_size or length > mm.task_size - start:
        return -EINVAL
    end = start + (length + PAGE_SIZE - 1 & -PAGE_SIZE)
    if end == start:
        return -EINVAL
    vma = find_vma_intersection(mm, start, end)
    if vma is None:
        if unlock:
            mmap_write_unlock(mm)
        return 0
    return do_vmi_align_munmap(vma, mm, start, end, unlock)


# --- checking ---------------------------------------------------------------------------------


def validate_mm(mm: MmStruct) -> None:
    """Check the VMAs of @mm: tree, order, alignment, counters, anon_vmas, files, locked pages.

    :raises KernelBug: naming what is wrong

    Mirrors mm/vma.c:validate_mm().
    """
    mt_validate(mm.mm_mt)
    last = count = total = locked = execs = stacks = data = 0
    vmas = list(mm.mm_mt)
    for vma in vmas:
        if vma.vm_start >= vma.vm_end or (vma.vm_start | vma.vm_end) & 4095:
            raise KernelBug(f"{vma!r} is empty or not page-aligned")
        if vma.vm_start < last:
            raise KernelBug(f"{vma!r} overlaps the VMA before it")
        if vma.detached or vma.vm_mm is not mm:
            raise KernelBug(f"{vma!r} does not belong into this tree")
        if mm.mm_mt.range_at(vma.vm_start) != (vma.vm_start, vma.vm_end - 1, vma):
            raise KernelBug(f"{vma!r} is stored at another range")
        if vma.vm_file is not None and vma not in vma.vm_file.f_mapping.i_mmap:
            raise KernelBug(f"{vma!r} is not known to its file")
        last = vma.vm_end
        count += 1
        pages = vma_pages(vma)
        total += pages
        locked += pages if vma.vm_flags & VM_LOCKED else 0
        execs += pages if is_exec_mapping(vma.vm_flags) else 0
        stacks += pages if is_stack_mapping(vma.vm_flags) else 0
        if is_data_mapping(vma.vm_flags) and not is_stack_mapping(vma.vm_flags):
            data += pages
    if count != mm.map_count:
        raise KernelBug(f"map_count is {mm.map_count}, there are {count} VMAs")
    for name, counted in (
        ("total_vm", total),
        ("locked_vm", locked),
        ("exec_vm", execs),
        ("stack_vm", stacks),
        ("data_vm", data),
    ):
        if getattr(mm, name) != counted:
            raise KernelBug(f"{name} is {getattr(mm, name)} pages, the VMAs have {counted}")
    rmap.validate_anon_vmas(vmas, False)
