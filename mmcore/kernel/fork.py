"""Tasks and address spaces: making, copying and ending them.

Mirrors parts of kernel/fork.c, kernel/exit.c and kernel/sched/core.c.

Simplified: a task is what memory management looks at; there is no scheduler, `switch_to()` says who
runs. Copying a VMA keeps its anon_vma (chapter 5 has the chains).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86 import tlb
from mmcore.errors import ENOMEM, UsageError
from mmcore.machine import Machine
from mmcore.mm import memory
from mmcore.mm import vma as vma_
from mmcore.mm.internal import DEFAULT_PRIO
from mmcore.mm.mm import (
    VM_DONTCOPY,
    VM_LOCKED_MASK,
    VM_SHARED,
    VM_WIPEONFORK,
    MmStruct,
    mmap_write_lock,
    mmap_write_unlock,
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
    children: list[TaskStruct] = field(default_factory=list, repr=False)


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
    mm.mmap_base = 0x7FFFF7FFF000
    if m is not None:
        mm.mm_id = m.paging.next_mm_id
        m.paging.next_mm_id += 1
        m.paging.last_mm_ctx_id += 1
        mm.context.ctx_id = m.paging.last_mm_ctx_id
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
    ret = 0
    mmap_write_lock(oldmm)
    mmap_write_lock(mm)
    for mpnt in oldmm.mm_mt:
        vma_start_write(mpnt)
        if mpnt.vm_flags & VM_DONTCOPY:
            continue
        tmp = vma_.vm_area_dup(mpnt)
        tmp.vm_mm = mm
        tmp.vm_flags &= ~VM_LOCKED_MASK
        if tmp.vm_flags & VM_WIPEONFORK:
            tmp.anon_vma = None
        vma_.vma_link(mm, tmp)
        vma_.vm_stat_account(mm, tmp.vm_flags, vma_pages(tmp))
        if tmp.vm_file is not None and tmp.vm_flags & VM_SHARED:
            tmp.vm_file.f_mapping.i_mmap_writable += 1
        if not tmp.vm_flags & VM_WIPEONFORK:
            ret = memory.copy_page_range(tmp, mpnt)
        if ret:
            break
    mmap_write_unlock(mm)
    tlb.flush_tlb_mm(oldmm)
    mmap_write_unlock(oldmm)
    return ret


def dup_mm(m: Machine, oldmm: MmStruct) -> MmStruct | None:
    """Copy an address space; None when there is no memory.

    Mirrors kernel/fork.c:dup_mm().
    """
    mm = mm_alloc(m, oldmm.levels)
    if mm is None:
        return None
    mm.flags, mm.def_flags = oldmm.flags, oldmm.def_flags
    mm.mmap_base, mm.task_size = oldmm.mmap_base, oldmm.task_size
    mm.forbids_zeropage = oldmm.forbids_zeropage
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
    task.children.append(child)
    return child


def mmput(mm: MmStruct) -> None:
    """Give back a user of @mm; the last one takes the address space down.

    Mirrors kernel/fork.c:mmput().
    """
    mm.mm_users -= 1
    if mm.mm_users:
        return
    memory.exit_mmap(mm)
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
