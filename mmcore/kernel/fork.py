"""Tasks and address spaces: making, copying and ending them.

Mirrors parts of kernel/fork.c, kernel/exit.c and kernel/sched/core.c.

Simplified: a task is what memory management looks at; there is no scheduler, `switch_to()` says who
runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86 import tlb
from mmcore.arch.x86.mmap import PF_RANDOMIZE, arch_pick_mmap_layout
from mmcore.errors import ENOMEM, UsageError
from mmcore.kernel.cgroup.cgroup import cgroup_exit, cgroup_fork
from mmcore.lib.maple_tree import MapleTree, mt_dup, mt_leaves
from mmcore.machine import Machine
from mmcore.mm import filemap, memory, mmap, rmap, util
from mmcore.mm import vma as vma_
from mmcore.mm.internal import DEFAULT_PRIO
from mmcore.mm.mm import (
    MMF_HAS_MDWE,
    MMF_HAS_MDWE_NO_INHERIT,
    MMF_INIT_MASK,
    MMF_UNSTABLE,
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_LOCKED_MASK,
    VM_WIPEONFORK,
    MmStruct,
    VmAreaStruct,
    mmap_write_lock,
    mmap_write_unlock,
    should_failslab,
    vma_pages,
    vma_start_write,
)

__all__ = [
    "TaskStruct",
    "do_exit",
    "dup_mm",
    "dup_mmap",
    "exit_mm",
    "kernel_clone",
    "mm_alloc",
    "mmput",
    "spawn",
    "switch_to",
]

PF_MEMALLOC = 0x00000800
PF_EXITING = 0x00000004


@dataclass(slots=True, eq=False)
class TaskStruct:
    """``struct task_struct``: the fields that memory management reads or counts.

    Mirrors include/linux/sched.h:task_struct.
    """

    machine: Machine = field(repr=False)
    pid: int
    comm: str
    mm: MmStruct | None = field(default=None, repr=False)
    active_mm: MmStruct | None = field(default=None, repr=False)
    flags: int = 0
    prio: int = DEFAULT_PRIO
    min_flt: int = 0
    maj_flt: int = 0
    in_lru_fault: bool = False
    pagefault_disabled: int = 0
    fatal_signal: bool = False
    signal_pending: bool = False
    pkru: int = 0
    personality: int = 0
    rlim: dict[int, tuple[int, int]] = field(default_factory=lambda: dict(util.INIT_RLIMITS))
    cap_effective: int = util.CAP_FULL_SET
    children: list[TaskStruct] = field(default_factory=list, repr=False)
    cgroup: Any = field(default=None, repr=False)
    memcg_nr_pages_over_high: int = 0
    active_memcg: Any = field(default=None, repr=False)
    objcg: Any = field(default=None, repr=False)
    objcg_update: bool = False  # CURRENT_OBJCG_UPDATE_FLAG


def mm_alloc(m: Machine | None = None, levels: int | None = None) -> MmStruct | None:
    """Make an empty address space; None when there is no memory for its top-level table.

    :param m: the machine; None for an address space on its own, with tables from a stub pool
    :param levels: 4 or 5; by default what the machine's kernel and CPU have
    :raises UsageError: if @levels is neither

    Mirrors kernel/fork.c:mm_alloc().
    """
    if levels is None:
        levels = pg.pgtable_levels(m)
    if levels not in (4, 5):
        raise UsageError(f"levels is {levels!r}; page tables have 4 or 5")
    if m is None:
        tables = pg.PhysTables()
    else:
        memory.paging_init(m)
        if m.paging.tables is None:
            m.paging.tables = pg.PhysTables(m)
        tables = m.paging.tables
    mm = MmStruct(m, None, tables, levels)  # type: ignore[arg-type]
    mm.task_size = pg.task_size_max(levels)
    if m is not None:
        mm.sys = m.paging
        mm.mm_id = m.paging.next_mm_id
        m.paging.next_mm_id += 1
        m.paging.last_mm_ctx_id += 1
        mm.context.ctx_id = m.paging.last_mm_ctx_id
    arch_pick_mmap_layout(mm)
    return None if pg.pgd_alloc(mm) is None else mm


def spawn(m: Machine, comm: str = "task", mm: MmStruct | None = None) -> TaskStruct:
    """Make a task with an empty address space (or @mm) and let it run.

    :raises UsageError: if there is no memory for its page table
    """
    if mm is None:
        mm = mm_alloc(m)
        if mm is None:
            raise UsageError("no memory for a new address space")
    else:
        mm.mm_users += 1
    pid = m.paging.next_pid
    m.paging.next_pid += 1
    task = TaskStruct(m, pid, comm, mm, mm)
    if mm.owner is None:
        mm.owner = task
    switch_to(m, task)
    return task


def switch_to(m: Machine, task: TaskStruct | None) -> None:
    """Let @task run on the current CPU; a task without an address space leaves the TLB lazy.

    Mirrors kernel/sched/core.c:context_switch().
    """
    if task is None or task.mm is None:
        tlb.enter_lazy_tlb(m)
    else:
        tlb.switch_mm_irqs_off(m, task.mm)
    if task is not None:
        m.current = task


def dup_mmap(mm: MmStruct, oldmm: MmStruct) -> int:
    """Copy all VMAs and page tables that must be copied from @oldmm to @mm.

    :return: 0 or -ENOMEM

    Mirrors kernel/fork.c:dup_mmap().
    """
    mmap_write_lock(oldmm)
    mmap_write_lock(mm)
    mm.total_vm, mm.data_vm = oldmm.total_vm, oldmm.data_vm
    mm.exec_vm, mm.stack_vm = oldmm.exec_vm, oldmm.stack_vm
    gone: list[VmAreaStruct] = []
    ret = -ENOMEM if should_failslab(oldmm.sys) else 0
    mm.mm_mt = MapleTree() if ret else mt_dup(oldmm.mm_mt)
    for leaf in mt_leaves(mm.mm_mt):
        for i, mpnt in enumerate(leaf.slots):
            if mpnt is None:
                continue
            tmp = mpnt if ret else _dup_vma(mm, mpnt)
            if isinstance(tmp, int):
                ret, tmp = tmp, mpnt
            if tmp is mpnt:  # VM_DONTCOPY, or no memory for this one and the rest
                gone.append(mpnt)
                continue
            leaf.slots[i] = tmp
            if not tmp.vm_flags & VM_WIPEONFORK:
                ret = memory.copy_page_range(tmp, mpnt)
    for mpnt in gone:
        mm.mm_mt.store(mpnt.vm_start, mpnt.vm_end - 1, None)
    if ret:
        mm.flags |= 1 << MMF_UNSTABLE
    mmap_write_unlock(mm)
    tlb.flush_tlb_mm(oldmm)
    mmap_write_unlock(oldmm)
    return ret


def _dup_vma(mm: MmStruct, mpnt: VmAreaStruct) -> VmAreaStruct | int:
    """Copy one VMA of the parent for the child: the copy, @mpnt itself to skip it, or -ENOMEM."""
    vma_start_write(mpnt)
    pages = vma_pages(mpnt)
    if mpnt.vm_flags & VM_DONTCOPY:
        if should_failslab(mm.sys):  # vma_iter_clear_gfp()
            return -ENOMEM
        vma_.vm_stat_account(mm, mpnt.vm_flags, -pages)
        return mpnt
    charge = pages if mpnt.vm_flags & VM_ACCOUNT else 0
    if charge and util.vm_enough_memory(mpnt.vm_mm, charge):
        return -ENOMEM
    tmp = vma_.vm_area_dup(mpnt)
    if tmp is None:
        util.vm_unacct_memory(mpnt.vm_mm, charge)
        return -ENOMEM
    tmp.vm_mm = mm
    if tmp.vm_flags & VM_WIPEONFORK:
        tmp.anon_vma = None
    elif rmap.anon_vma_fork(tmp, mpnt):
        util.vm_unacct_memory(mpnt.vm_mm, charge)
        return -ENOMEM
    tmp.vm_flags &= ~VM_LOCKED_MASK
    mm.map_count += 1
    if tmp.vm_ops is not None and tmp.vm_ops.open is not None:
        tmp.vm_ops.open(tmp)
    if tmp.vm_file is not None:
        filemap.get_file(tmp.vm_file)
        vma_.vma_link_file(tmp)
    return tmp


#: Where things are, which the child has at the same addresses.
_COPIED = (
    "start_code",
    "end_code",
    "start_data",
    "end_data",
    "start_brk",
    "brk",
    "start_stack",
    "arg_start",
    "arg_end",
    "env_start",
    "env_end",
)


def mmf_init_flags(flags: int) -> int:
    """Return those of an address space's flags that a child inherits.

    Mirrors include/linux/sched/coredump.h:mmf_init_flags().
    """
    if flags >> MMF_HAS_MDWE_NO_INHERIT & 1:
        flags &= ~(1 << MMF_HAS_MDWE | 1 << MMF_HAS_MDWE_NO_INHERIT)
    return flags & MMF_INIT_MASK


def dup_mm(m: Machine, oldmm: MmStruct) -> MmStruct | None:
    """Copy an address space; None when there is no memory.

    Mirrors kernel/fork.c:dup_mm().
    """
    mm = mm_alloc(m, oldmm.levels)
    if mm is None:
        return None
    mm.flags = mmf_init_flags(oldmm.flags)
    mm.mmap_base, mm.mmap_legacy_base = oldmm.mmap_base, oldmm.mmap_legacy_base
    mm.task_size, mm.forbids_zeropage = oldmm.task_size, oldmm.forbids_zeropage
    for name in _COPIED:
        setattr(mm, name, getattr(oldmm, name))
    if dup_mmap(mm, oldmm):
        mmput(mm)
        return None
    return mm


def kernel_clone(task: TaskStruct, *, vm: bool = False) -> TaskStruct | int:
    """Fork @task: the child, or -ENOMEM.

    :param vm: share the address space (CLONE_VM: a thread)

    Mirrors kernel/fork.c:kernel_clone().
    """
    m = task.machine
    if task.mm is None:
        raise UsageError(f"task {task.comm} has no address space to copy")
    if vm:
        mm: MmStruct | None = task.mm
        task.mm.mm_users += 1
    else:
        mm = dup_mm(m, task.mm)
    if mm is None:
        return -ENOMEM
    pid = m.paging.next_pid
    m.paging.next_pid += 1
    child = TaskStruct(m, pid, task.comm, mm, mm, pkru=task.pkru)
    child.flags = task.flags & PF_RANDOMIZE
    child.personality, child.cap_effective = task.personality, task.cap_effective
    child.rlim = dict(task.rlim)
    if mm.owner is None:
        mm.owner = child
    cgroup_fork(task, child)
    task.children.append(child)
    return child


def mmput(mm: MmStruct) -> None:
    """Give back a user of @mm; the last one takes the address space down.

    Mirrors kernel/fork.c:mmput().
    """
    mm.mm_users -= 1
    if mm.mm_users:
        return
    mmap.exit_mmap(mm)
    memory.mm_put_huge_zero_folio(mm)
    m = mm.machine
    if m is not None:
        for cpu in sorted(m.paging.cpu_tlbstate):
            state = m.paging.cpu_tlbstate[cpu]
            if state.loaded_mm is mm:
                here, m.this_cpu = m.this_cpu, cpu
                tlb.switch_mm_irqs_off(m, None)
                m.this_cpu = here
    pg.pgd_free(mm, mm.pgd)


def exit_mm(task: TaskStruct) -> None:
    """Take its address space from @task; the CPU stays in lazy TLB mode with it.

    Mirrors kernel/exit.c:exit_mm().
    """
    mm = task.mm
    if mm is None:
        return
    m = task.machine
    task.mm = None
    if m.current is task:
        tlb.enter_lazy_tlb(m)
    mmput(mm)


def do_exit(task: TaskStruct) -> None:
    """End @task.

    Mirrors kernel/exit.c:do_exit().
    """
    task.flags |= PF_EXITING
    exit_mm(task)
    cgroup_exit(task)
