"""Overcommit: how much memory is promised, and when a promise is refused. Limits and capabilities.

Mirrors the accounting side of mm/util.c, with rlimit() and capable() as memory management asks them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.config import PAGE_SHIFT
from mmcore.errors import ENOMEM
from mmcore.lib.percpu_counter import (
    percpu_counter_add_batch,
    percpu_counter_read_positive,
    percpu_counter_sum_positive,
    percpu_counter_sync,
)
from mmcore.mm.mm import OVERCOMMIT_ALWAYS, OVERCOMMIT_GUESS, OVERCOMMIT_NEVER, MmStruct

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = [
    "CAP_IPC_LOCK",
    "CAP_SYS_ADMIN",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "INIT_RLIMITS",
    "RLIMIT_AS",
    "RLIMIT_DATA",
    "RLIMIT_MEMLOCK",
    "RLIMIT_STACK",
    "RLIM_INFINITY",
    "capable",
    "rlimit",
    "rlimit_max",
    "set_overcommit_memory",
    "vm_acct_memory",
    "vm_commit_limit",
    "vm_enough_memory",
    "vm_memory_committed",
    "vm_unacct_memory",
]

# include/uapi/asm-generic/resource.h
RLIMIT_DATA = 2
RLIMIT_STACK = 3
RLIMIT_MEMLOCK = 8
RLIMIT_AS = 9
RLIM_INFINITY = (1 << 64) - 1
#: What a task has that nobody set limits for: (soft, hard) in bytes.
INIT_RLIMITS: dict[int, tuple[int, int]] = {
    RLIMIT_DATA: (RLIM_INFINITY, RLIM_INFINITY),
    RLIMIT_STACK: (8 << 20, RLIM_INFINITY),
    RLIMIT_MEMLOCK: (8 << 20, 8 << 20),
    RLIMIT_AS: (RLIM_INFINITY, RLIM_INFINITY),
}

# include/uapi/linux/capability.h
CAP_IPC_LOCK = 14
CAP_SYS_RAWIO = 17
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
CAP_FULL_SET = (1 << 41) - 1

_INT_MAX = 0x7FFFFFFF


def rlimit(mm: MmStruct, limit: int) -> int:
    """Return the running task's soft limit in bytes; the initial one when no task runs.

    Mirrors include/linux/sched/signal.h:rlimit().
    """
    task = None if mm.machine is None else mm.machine.current
    limits: dict[int, tuple[int, int]] = getattr(task, "rlim", INIT_RLIMITS)
    return limits.get(limit, INIT_RLIMITS[limit])[0]


def rlimit_max(mm: MmStruct, limit: int) -> int:
    """Return the running task's hard limit in bytes.

    Mirrors include/linux/sched/signal.h:rlimit_max().
    """
    task = None if mm.machine is None else mm.machine.current
    limits: dict[int, tuple[int, int]] = getattr(task, "rlim", INIT_RLIMITS)
    return limits.get(limit, INIT_RLIMITS[limit])[1]


def capable(mm: MmStruct, cap: int) -> bool:
    """Tell whether the running task has a capability; root has all, and so has nobody.

    Mirrors kernel/capability.c:capable().
    """
    task = None if mm.machine is None else mm.machine.current
    caps: int = getattr(task, "cap_effective", CAP_FULL_SET)
    return caps >> cap & 1 == 1


def mm_compute_batch(m: Machine, overcommit_policy: int) -> int:
    """Return how far one CPU's part of the committed pages may be from what all know.

    Mirrors mm/mm_init.c:mm_compute_batch().
    """
    share = 256 if overcommit_policy == OVERCOMMIT_NEVER else 4
    memsized = min(m.totalram_pages // m.cpus // share, _INT_MAX)
    return max(memsized, m.cpus * 2, 32)


def vm_acct_memory(mm: MmStruct, pages: int) -> None:
    """Promise @pages more.

    Mirrors include/linux/mman.h:vm_acct_memory().
    """
    m = mm.machine
    sys = mm.sys
    batch = 1 if m is None else mm_compute_batch(m, sys.sysctl_overcommit_memory)
    percpu_counter_add_batch(sys.vm_committed_as, 0 if m is None else m.this_cpu, pages, batch)


def vm_unacct_memory(mm: MmStruct, pages: int) -> None:
    """Take a promise of @pages back.

    Mirrors include/linux/mman.h:vm_unacct_memory().
    """
    vm_acct_memory(mm, -pages)


def vm_memory_committed(m: Machine) -> int:
    """Return how many pages are promised: Committed_AS.

    Mirrors mm/util.c:vm_memory_committed().
    """
    return percpu_counter_sum_positive(m.paging.vm_committed_as)


def vm_commit_limit(m: Machine) -> int:
    """Return how many pages may be promised with vm.overcommit_memory = 2: CommitLimit.

    Simplified: no hugetlb pool to subtract.

    Mirrors mm/util.c:vm_commit_limit().
    """
    sys = m.paging
    if sys.sysctl_overcommit_kbytes:
        allowed = sys.sysctl_overcommit_kbytes >> (PAGE_SHIFT - 10)
    else:
        allowed = m.totalram_pages * sys.sysctl_overcommit_ratio // 100
    return allowed + m.total_swap_pages


def set_overcommit_memory(m: Machine, policy: int) -> None:
    """Set vm.overcommit_memory; the strict policy first makes all CPUs pass on their parts.

    Mirrors mm/util.c:overcommit_policy_handler().
    """
    if policy == OVERCOMMIT_NEVER:
        for cpu in range(m.cpus):
            percpu_counter_sync(m.paging.vm_committed_as, cpu)
    m.paging.sysctl_overcommit_memory = policy


def vm_enough_memory(mm: MmStruct, pages: int) -> int:
    """Promise @pages to @mm if the policy allows it: 0 or -ENOMEM.

    An address space without a machine has no memory to run out of, and is always promised it.

    Mirrors mm/util.c:__vm_enough_memory().
    """
    m = mm.machine
    sys = mm.sys
    vm_acct_memory(mm, pages)
    policy = sys.sysctl_overcommit_memory
    if policy == OVERCOMMIT_ALWAYS or m is None:
        return 0
    if policy == OVERCOMMIT_GUESS:
        if pages <= m.totalram_pages + m.total_swap_pages:
            return 0
    else:
        allowed = vm_commit_limit(m)
        if not capable(mm, CAP_SYS_ADMIN):
            allowed -= sys.sysctl_admin_reserve_kbytes >> (PAGE_SHIFT - 10)
        reserve = sys.sysctl_user_reserve_kbytes >> (PAGE_SHIFT - 10)
        allowed -= min(mm.total_vm // 32, reserve)
        if percpu_counter_read_positive(sys.vm_committed_as) < allowed:
            return 0
    task = m.current
    m.pr_info(
        f"__vm_enough_memory: pid: {getattr(task, 'pid', 0)}, comm: "
        f"{getattr(task, 'comm', 'swapper')}, bytes: {pages << PAGE_SHIFT} not enough memory for "
        "the allocation"
    )
    vm_unacct_memory(mm, pages)
    return -ENOMEM
