"""Address spaces: `MmStruct`, `VmAreaStruct`, `VmFault`, their flags and their locks.

Mirrors the parts of include/linux/mm_types.h, mm.h and mmap_lock.h that paging needs.

Simplified: one task runs at a time, so a lock is a counter that says who would have to wait. A
request that would wait in the kernel is a mistake in the script that made it, and raises
`KernelBug`; the trylocks fail as they do in the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmcore.config import PAGE_SHIFT
from mmcore.errors import KernelBug
from mmcore.lib.maple_tree import MapleTree
from mmcore.lib.percpu_counter import PercpuCounter

if TYPE_CHECKING:
    from mmcore.arch.x86.pgtable import PageTable, PhysTables, Ptep
    from mmcore.machine import Machine
    from mmcore.mm.mm_types import Folio, Page

# --- vm_flags ---------------------------------------------------------------------------------

VM_NONE = 0
VM_READ = 0x00000001
VM_WRITE = 0x00000002
VM_EXEC = 0x00000004
VM_SHARED = 0x00000008
VM_MAYREAD = 0x00000010
VM_MAYWRITE = 0x00000020
VM_MAYEXEC = 0x00000040
VM_MAYSHARE = 0x00000080
VM_GROWSDOWN = 0x00000100
VM_UFFD_MISSING = 0x00000200
VM_PFNMAP = 0x00000400
VM_UFFD_WP = 0x00001000
VM_LOCKED = 0x00002000
VM_IO = 0x00004000
VM_SEQ_READ = 0x00008000
VM_RAND_READ = 0x00010000
VM_DONTCOPY = 0x00020000
VM_DONTEXPAND = 0x00040000
VM_LOCKONFAULT = 0x00080000
VM_ACCOUNT = 0x00100000
VM_NORESERVE = 0x00200000
VM_HUGETLB = 0x00400000
VM_SYNC = 0x00800000
VM_ARCH_1 = 0x01000000
VM_WIPEONFORK = 0x02000000
VM_DONTDUMP = 0x04000000
VM_SOFTDIRTY = 0x08000000
VM_MIXEDMAP = 0x10000000
VM_HUGEPAGE = 0x20000000
VM_NOHUGEPAGE = 0x40000000
VM_MERGEABLE = 0x80000000
VM_PKEY_BIT0 = 1 << 32
VM_PKEY_BIT1 = 1 << 33
VM_PKEY_BIT2 = 1 << 34
VM_PKEY_BIT3 = 1 << 35
VM_PKEY_SHIFT = 32
VM_SHADOW_STACK = 1 << 37
VM_UFFD_MINOR = 1 << 38
VM_DROPPABLE = 1 << 40
VM_SEALED = 1 << 63
VM_ACCESS_FLAGS = VM_READ | VM_WRITE | VM_EXEC
VM_SPECIAL = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP
VM_LOCKED_MASK = VM_LOCKED | VM_LOCKONFAULT
VM_STACK = VM_GROWSDOWN
VM_STARTGAP_FLAGS = VM_GROWSDOWN | VM_SHADOW_STACK
VM_DATA_DEFAULT_FLAGS = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
VM_STACK_FLAGS = VM_STACK | VM_DATA_DEFAULT_FLAGS | VM_ACCOUNT
VM_STACK_INCOMPLETE_SETUP = VM_RAND_READ | VM_SEQ_READ | VM_STACK
#: The two-letter names of /proc/PID/smaps' VmFlags line, by bit (fs/proc/task_mmu.c).
VM_FLAG_MNEMONICS: dict[int, str] = {
    0: "rd",
    1: "wr",
    2: "ex",
    3: "sh",
    4: "mr",
    5: "mw",
    6: "me",
    7: "ms",
    8: "gd",
    10: "pf",
    13: "lo",
    14: "io",
    15: "sr",
    16: "rr",
    17: "dc",
    18: "de",
    19: "lf",
    20: "ac",
    21: "nr",
    22: "ht",
    23: "sf",
    24: "ar",
    25: "wf",
    26: "dd",
    27: "sd",
    28: "mm",
    29: "hg",
    30: "nh",
    31: "mg",
    9: "um",
    12: "uw",
    37: "ss",
    38: "ui",
    40: "dp",
    63: "sl",
}

# --- faults -----------------------------------------------------------------------------------

# enum fault_flag
FAULT_FLAG_WRITE = 1 << 0
FAULT_FLAG_MKWRITE = 1 << 1
FAULT_FLAG_ALLOW_RETRY = 1 << 2
FAULT_FLAG_RETRY_NOWAIT = 1 << 3
FAULT_FLAG_KILLABLE = 1 << 4
FAULT_FLAG_TRIED = 1 << 5
FAULT_FLAG_USER = 1 << 6
FAULT_FLAG_REMOTE = 1 << 7
FAULT_FLAG_INSTRUCTION = 1 << 8
FAULT_FLAG_INTERRUPTIBLE = 1 << 9
FAULT_FLAG_UNSHARE = 1 << 10
FAULT_FLAG_ORIG_PTE_VALID = 1 << 11
FAULT_FLAG_VMA_LOCK = 1 << 12
FAULT_FLAG_DEFAULT = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE | FAULT_FLAG_INTERRUPTIBLE
FAULT_FLAG_NAMES: tuple[str, ...] = (
    "WRITE",
    "MKWRITE",
    "ALLOW_RETRY",
    "RETRY_NOWAIT",
    "KILLABLE",
    "TRIED",
    "USER",
    "REMOTE",
    "INSTRUCTION",
    "INTERRUPTIBLE",
    "UNSHARE",
    "ORIG_PTE_VALID",
    "VMA_LOCK",
)

# enum vm_fault_reason
VM_FAULT_OOM = 0x000001
VM_FAULT_SIGBUS = 0x000002
VM_FAULT_MAJOR = 0x000004
VM_FAULT_HWPOISON = 0x000010
VM_FAULT_HWPOISON_LARGE = 0x000020
VM_FAULT_SIGSEGV = 0x000040
VM_FAULT_NOPAGE = 0x000100
VM_FAULT_LOCKED = 0x000200
VM_FAULT_RETRY = 0x000400
VM_FAULT_FALLBACK = 0x000800
VM_FAULT_DONE_COW = 0x001000
VM_FAULT_NEEDDSYNC = 0x002000
VM_FAULT_COMPLETED = 0x004000
VM_FAULT_HINDEX_MASK = 0x0F0000
VM_FAULT_ERROR = (
    VM_FAULT_OOM
    | VM_FAULT_SIGBUS
    | VM_FAULT_SIGSEGV
    | VM_FAULT_HWPOISON
    | VM_FAULT_HWPOISON_LARGE
    | VM_FAULT_FALLBACK
)
VM_FAULT_NAMES: dict[int, str] = {
    VM_FAULT_OOM: "OOM",
    VM_FAULT_SIGBUS: "SIGBUS",
    VM_FAULT_MAJOR: "MAJOR",
    VM_FAULT_HWPOISON: "HWPOISON",
    VM_FAULT_HWPOISON_LARGE: "HWPOISON_LARGE",
    VM_FAULT_SIGSEGV: "SIGSEGV",
    VM_FAULT_NOPAGE: "NOPAGE",
    VM_FAULT_LOCKED: "LOCKED",
    VM_FAULT_RETRY: "RETRY",
    VM_FAULT_FALLBACK: "FALLBACK",
    VM_FAULT_DONE_COW: "DONE_COW",
    VM_FAULT_NEEDDSYNC: "NEEDDSYNC",
    VM_FAULT_COMPLETED: "COMPLETED",
}

# enum of mm->rss_stat (include/linux/mm_types_task.h)
MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES = range(4)
NR_MM_COUNTERS = 4
MM_COUNTER_NAMES: tuple[str, ...] = (
    "MM_FILEPAGES",
    "MM_ANONPAGES",
    "MM_SWAPENTS",
    "MM_SHMEMPAGES",
)

# mm->flags bits used here (include/linux/sched/coredump.h)
MMF_VM_MERGEABLE = 16
MMF_UNSTABLE = 22
MMF_OOM_SKIP = 21
MMF_HAS_PINNED = 27
MMF_HAS_MDWE = 28
MMF_HAS_MDWE_NO_INHERIT = 29
MMF_TOPDOWN = 31
#: What a child inherits: dump filter, MMF_DISABLE_THP, MMF_HAS_MDWE, MMF_VM_MERGE_ANY, MMF_TOPDOWN.
MMF_INIT_MASK = 0x7FF | 1 << 24 | 1 << 28 | 1 << 30 | 1 << 31

# include/linux/mm.h: MAX_ELF_SEGMENTS are kept free for core dumps
DEFAULT_MAX_MAP_COUNT = 65535 - 5
# include/uapi/linux/mman.h
OVERCOMMIT_GUESS, OVERCOMMIT_ALWAYS, OVERCOMMIT_NEVER = range(3)

#: struct vm_lock and mm_lock_seq count in 32 bits; UINT_MAX never equals an even sequence.
_UINT_MAX = 0xFFFFFFFF

#: CONFIG_PER_VMA_LOCK_STATS' names in /proc/vmstat.
VMA_LOCK_EVENTS: tuple[str, ...] = (
    "vma_lock_success",
    "vma_lock_abort",
    "vma_lock_retry",
    "vma_lock_miss",
)


def fault_flags_str(flags: int) -> str:
    """Return the names of FAULT_FLAG bits, joined by ``|``."""
    return "|".join(n for b, n in enumerate(FAULT_FLAG_NAMES) if flags >> b & 1) or "0"


def vm_fault_str(ret: int) -> str:
    """Return the names of VM_FAULT bits, joined by ``|``; "0" for success."""
    return "|".join(n for bit, n in VM_FAULT_NAMES.items() if ret & bit) or "0"


def vm_flags_str(vm_flags: int) -> str:
    """Return @vm_flags in the two-letter words of /proc/PID/smaps, in bit order."""
    return " ".join(
        VM_FLAG_MNEMONICS[b] for b in range(64) if vm_flags >> b & 1 and b in VM_FLAG_MNEMONICS
    )


# --- locks ------------------------------------------------------------------------------------


class RwSemaphore:
    """``struct rw_semaphore``: how many readers hold it, and whether a writer does."""

    __slots__ = ("name", "readers", "writer")

    def __init__(self, name: str) -> None:
        self.name = name
        self.readers = 0
        self.writer = False

    def __repr__(self) -> str:
        state = "write-locked" if self.writer else f"{self.readers} reader(s)"
        return f"<{self.name}: {state}>"


def down_read_trylock(sem: RwSemaphore) -> bool:
    """Take @sem for reading if no writer holds it.

    Mirrors kernel/locking/rwsem.c:down_read_trylock().
    """
    if sem.writer:
        return False
    sem.readers += 1
    return True


def down_read(sem: RwSemaphore) -> None:
    """Take @sem for reading.

    :raises KernelBug: if a writer holds it: the caller would sleep for ever

    Mirrors kernel/locking/rwsem.c:down_read().
    """
    if not down_read_trylock(sem):
        raise KernelBug(f"down_read({sem.name}) would wait for a writer that never finishes")


def up_read(sem: RwSemaphore) -> None:
    """Give back a read lock.

    Mirrors kernel/locking/rwsem.c:up_read().
    """
    if sem.readers < 1:
        raise KernelBug(f"up_read({sem.name}) without a reader")
    sem.readers -= 1


def down_write_trylock(sem: RwSemaphore) -> bool:
    """Take @sem for writing if nobody holds it.

    Mirrors kernel/locking/rwsem.c:down_write_trylock().
    """
    if sem.writer or sem.readers:
        return False
    sem.writer = True
    return True


def down_write(sem: RwSemaphore) -> None:
    """Take @sem for writing.

    :raises KernelBug: if somebody holds it: the caller would sleep for ever

    Mirrors kernel/locking/rwsem.c:down_write().
    """
    if not down_write_trylock(sem):
        raise KernelBug(f"down_write({sem.name}) would wait for {sem!r}")


def up_write(sem: RwSemaphore) -> None:
    """Give back the write lock.

    Mirrors kernel/locking/rwsem.c:up_write().
    """
    if not sem.writer:
        raise KernelBug(f"up_write({sem.name}) without a writer")
    sem.writer = False


# --- structs ----------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class VmOperationsStruct:
    """``struct vm_operations_struct``: what a mapping's owner does with it.

    :ivar close: called when a VMA goes; having it keeps a VMA from vanishing in a merge
    :ivar may_split: returns -errno if the VMA must not be split at an address
    :ivar vma_name: returns what /proc/PID/maps calls the mapping (``->name``)

    Mirrors include/linux/mm.h:vm_operations_struct.
    """

    fault: Callable[[VmFault], int] | None = None
    map_pages: Callable[[VmFault, int, int], int] | None = None
    page_mkwrite: Callable[[VmFault], int] | None = None
    pfn_mkwrite: Callable[[VmFault], int] | None = None
    huge_fault: Callable[[VmFault, int], int] | None = None
    name: str = ""
    open: Callable[[VmAreaStruct], None] | None = None
    close: Callable[[VmAreaStruct], None] | None = None
    may_split: Callable[[VmAreaStruct, int], int] | None = None
    mremap: Callable[[VmAreaStruct], int] | None = None
    mprotect: Callable[[VmAreaStruct, int, int, int], int] | None = None
    vma_name: Callable[[VmAreaStruct], str] | None = None


@dataclass(slots=True, eq=False)
class AnonVmaChain:
    """``struct anon_vma_chain``: the link between one VMA and one anon_vma.

    Mirrors include/linux/rmap.h:anon_vma_chain.
    """

    vma: VmAreaStruct
    anon_vma: AnonVma


@dataclass(slots=True, eq=False)
class AnonVma:
    """``struct anon_vma``: what an anonymous page's mapping points to.

    :ivar root: the oldest ancestor, whose lock serves the whole tree of forks
    :ivar parent: the anon_vma of the VMA it was forked from; itself for a root
    :ivar refcount: references; a root is held by each of its descendants
    :ivar num_children: anon_vmas whose parent it is, itself included for a root
    :ivar num_active_vmas: VMAs whose new pages go to it
    :ivar rb_root: the chains that link VMAs to it, in order of insertion

    Simplified: the interval tree is a dict, which `rmap.anon_vma_interval_tree_foreach()` sorts.

    Mirrors include/linux/rmap.h:anon_vma.
    """

    root: AnonVma | None = None
    parent: AnonVma | None = None
    refcount: int = 1
    num_children: int = 0
    num_active_vmas: int = 0
    rb_root: dict[AnonVmaChain, None] = field(default_factory=dict, repr=False)


@dataclass(slots=True, eq=False)
class VmAreaStruct:
    """``struct vm_area_struct``: a range of an address space with one set of rules.

    :ivar anon_vma_chain: ``same_vma`` list, oldest first (the kernel's has the newest at its head)
    :ivar vm_policy: memory policy; None is the task's
    :ivar vm_userfaultfd_ctx: who handles its faults in user space; None is nobody
    :ivar anon_name: name given by prctl(); always None, as in the reference kernel

    Mirrors include/linux/mm_types.h:vm_area_struct.
    """

    vm_start: int
    vm_end: int
    vm_mm: MmStruct = field(repr=False)
    vm_flags: int = 0
    vm_page_prot: int = 0
    vm_pgoff: int = 0
    vm_file: Any = None
    vm_ops: VmOperationsStruct | None = None
    anon_vma: AnonVma | None = field(default=None, repr=False)
    vm_private_data: Any = None
    vm_lock: RwSemaphore = field(default_factory=lambda: RwSemaphore("vma->vm_lock"), repr=False)
    vm_lock_seq: int = _UINT_MAX
    detached: bool = False
    anon_vma_chain: list[AnonVmaChain] = field(default_factory=list, repr=False)
    vm_policy: Any = None
    vm_userfaultfd_ctx: Any = None
    swap_readahead_info: tuple[int, int, int] = (0, 0, 0)  # address, window, hits
    anon_name: str | None = None

    def __repr__(self) -> str:
        f = self.vm_flags
        perms = "".join(c if f >> b & 1 else "-" for b, c in ((0, "r"), (1, "w"), (2, "x"))) + (
            "s" if f & VM_MAYSHARE else "p"
        )
        return f"<vma {self.vm_start:08x}-{self.vm_end:08x} {perms} {self.vm_pgoff << 12:08x}>"


@dataclass(slots=True, eq=False)
class MmContext:
    """``mm_context_t``: what the TLB code keeps per address space.

    Mirrors arch/x86/include/asm/mmu.h:mm_context_t.
    """

    ctx_id: int = 0
    tlb_gen: int = 1
    next_trim_cpumask: int = 0


@dataclass(slots=True, eq=False)
class MmStruct:
    """``struct mm_struct``: one address space.

    :ivar machine: the machine it lives on; None for an address space used on its own
    :ivar pgd: the top-level table
    :ivar tables: where its table pages are, by pfn
    :ivar levels: 4 or 5
    :ivar rss_stat: pages by MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS (entries), MM_SHMEMPAGES
    :ivar pgtables_bytes: PTE, PMD and PUD tables in bytes; PGD and LA57's P4D tables not counted
    :ivar mm_cpumask: CPUs whose TLB may hold entries of it, one bit each
    :ivar sys: the machine's settings (``machine.paging``), or its own without a machine

    Mirrors include/linux/mm_types.h:mm_struct.
    """

    machine: Machine | None = field(repr=False)
    pgd: PageTable = field(repr=False)
    tables: PhysTables = field(repr=False)
    levels: int = 4
    mm_id: int = 0
    mm_mt: MapleTree[VmAreaStruct] = field(default_factory=MapleTree, repr=False)
    mm_users: int = 1
    mm_count: int = 1
    map_count: int = 0
    task_size: int = 0
    mmap_base: int = 0
    mmap_legacy_base: int = 0
    mmap_lock: RwSemaphore = field(default_factory=lambda: RwSemaphore("mmap_lock"), repr=False)
    mm_lock_seq: int = 0
    rss_stat: list[int] = field(default_factory=lambda: [0] * NR_MM_COUNTERS)
    pgtables_bytes: int = 0
    total_vm: int = 0
    data_vm: int = 0
    exec_vm: int = 0
    stack_vm: int = 0
    locked_vm: int = 0
    pinned_vm: int = 0
    def_flags: int = 0
    flags: int = 0
    hiwater_rss: int = 0
    hiwater_vm: int = 0
    start_code: int = 0
    end_code: int = 0
    start_data: int = 0
    end_data: int = 0
    start_brk: int = 0
    brk: int = 0
    start_stack: int = 0
    arg_start: int = 0
    arg_end: int = 0
    env_start: int = 0
    env_end: int = 0
    sys: PagingState = field(default_factory=lambda: PagingState(), repr=False)
    forbids_zeropage: bool = False
    context: MmContext = field(default_factory=MmContext, repr=False)
    owner: Any = field(default=None, repr=False)  # the task whose memory cgroup pays
    mm_cpumask: int = 0
    tlb_flush_pending: int = 0
    ptl: list[int] = field(default_factory=list, repr=False)  # pfns of the tables locked now
    pmd_huge_pte: dict[tuple[int, int], list[Any]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        rss = sum(self.rss_stat) - self.rss_stat[MM_SWAPENTS]
        return (
            f"<mm {self.mm_id}: {self.map_count} VMAs, rss {rss} pages, "
            f"page tables {self.pgtables_bytes >> 10} kB, {self.levels} levels>"
        )


@dataclass(slots=True, eq=False)
class VmFault:
    """``struct vm_fault``: one fault on its way through the handlers.

    Mirrors include/linux/mm.h:vm_fault.
    """

    vma: VmAreaStruct
    address: int
    real_address: int
    flags: int
    pgoff: int
    gfp_mask: int
    pud: Ptep | None = None
    pmd: Ptep | None = None
    orig_pte: int = 0  # orig_pmd shares the word
    cow_page: Page | None = None
    page: Page | None = None
    pte: Ptep | None = None
    ptl: int | None = None
    prealloc_pte: PageTable | None = None

    @property
    def folio(self) -> Folio | None:
        """The folio of ``page``."""
        page = self.page
        if page is None:
            return None
        return page.next if page.prev is None and page.next is not None else page


class PagingState:
    """What a machine's paging code keeps that has no single kernel variable.

    :ivar tables: the machine's table pages
    :ivar next_pid: the pid of the next task
    :ivar next_mm_id: names address spaces in ``kmem:rss_stat`` events
    :ivar last_mm_ctx_id: the TLB code's counter of address spaces
    :ivar cpu_tlbstate: per CPU, the state of its TLB, made when it is first used
    :ivar huge_zero_folio: the shared 2 MiB of zeroes, once somebody read it
    :ivar huge_zero_refcount: how many address spaces hold it
    :ivar layout: where the kernel's regions begin; None: not built yet
    :ivar die_counter: how many oopses there were
    :ivar tlb_single_page_flush_ceiling: a flush of more entries drops everything
    :ivar next_ino: inode number of the next shared-memory file
    :ivar fail_nth: which of the next allocations of VMAs, their links and tree nodes fails; 0: none

    The sysctls and counters of mm/util.c and mm/mmap.c are here under the kernel's names.
    """

    __slots__ = (
        "cpu_tlbstate",
        "dac_mmap_min_addr",
        "die_counter",
        "fail_nth",
        "huge_zero_folio",
        "huge_zero_refcount",
        "ignore_rlimit_data",
        "last_mm_ctx_id",
        "layout",
        "mmap_min_addr",
        "next_ino",
        "next_mm_id",
        "next_pid",
        "randomize_va_space",
        "shmem_huge",
        "stack_guard_gap",
        "sysctl_admin_reserve_kbytes",
        "sysctl_legacy_va_layout",
        "sysctl_max_map_count",
        "sysctl_overcommit_kbytes",
        "sysctl_overcommit_memory",
        "sysctl_overcommit_ratio",
        "sysctl_user_reserve_kbytes",
        "tables",
        "tlb_single_page_flush_ceiling",
        "vm_committed_as",
    )

    def __init__(self) -> None:
        self.tables: PhysTables | None = None
        self.next_pid = 1
        self.next_mm_id = 1
        self.last_mm_ctx_id = 1
        self.cpu_tlbstate: dict[int, Any] = {}
        self.huge_zero_folio: Folio | None = None
        self.huge_zero_refcount = 0
        self.tlb_single_page_flush_ceiling = 33
        self.die_counter = 0
        self.layout: Any = None
        self.next_ino = 1
        self.fail_nth = 0
        self.sysctl_max_map_count = DEFAULT_MAX_MAP_COUNT
        self.stack_guard_gap = 256 << PAGE_SHIFT
        self.mmap_min_addr = self.dac_mmap_min_addr = 65536
        self.sysctl_overcommit_memory = OVERCOMMIT_GUESS
        self.sysctl_overcommit_ratio = 50
        self.sysctl_overcommit_kbytes = 0
        self.sysctl_user_reserve_kbytes = 1 << 17
        self.sysctl_admin_reserve_kbytes = 1 << 13
        self.vm_committed_as = PercpuCounter()
        self.sysctl_legacy_va_layout = 0
        self.randomize_va_space = 2
        self.ignore_rlimit_data = False
        self.shmem_huge = "never"


def should_failslab(sys: PagingState) -> bool:
    """Tell whether the allocation that is asked for now must fail: the ``fail_nth``-th, once.

    A test sets ``m.paging.fail_nth``, as /proc/self/fail-nth does; it is 0 again when one has failed.

    Simplified: the caches of VMAs (with their locks), anon_vmas, anon_vma_chains and maple tree nodes.
    A store asks for all its nodes at once, also where the kernel finds that it needs none; the second
    try of `rmap.anon_vma_clone()` belongs to the first.

    Mirrors mm/failslab.c:should_failslab().
    """
    if not sys.fail_nth:
        return False
    sys.fail_nth -= 1
    return not sys.fail_nth


# --- helpers of mm.h --------------------------------------------------------------------------


def vma_pages(vma: VmAreaStruct) -> int:
    """Return the number of pages in @vma.

    Mirrors include/linux/mm.h:vma_pages().
    """
    return (vma.vm_end - vma.vm_start) >> PAGE_SHIFT


def vma_is_anonymous(vma: VmAreaStruct) -> bool:
    """Tell whether @vma has no ops of its own.

    Mirrors include/linux/mm.h:vma_is_anonymous().
    """
    return vma.vm_ops is None


def vma_is_accessible(vma: VmAreaStruct) -> bool:
    """Tell whether @vma allows any access.

    Mirrors include/linux/mm.h:vma_is_accessible().
    """
    return vma.vm_flags & VM_ACCESS_FLAGS != 0


def is_cow_mapping(flags: int) -> bool:
    """Tell whether writes to a mapping with @flags are private to it.

    Mirrors include/linux/mm.h:is_cow_mapping().
    """
    return flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE


def linear_page_index(vma: VmAreaStruct, address: int) -> int:
    """Return the file (or anonymous) page index of @address in @vma.

    Mirrors include/linux/pagemap.h:linear_page_index().
    """
    return ((address - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff


def maybe_mkwrite(pte: int, vma: VmAreaStruct) -> int:
    """Make @pte writable if @vma is.

    Mirrors include/linux/mm.h:maybe_mkwrite().
    """
    if vma.vm_flags & VM_WRITE:
        from mmcore.arch.x86.pgtable_types import pte_mkwrite

        return pte_mkwrite(pte, vma)
    return pte


def fault_flag_allow_retry_first(flags: int) -> bool:
    """Tell whether this is the first attempt and the lock may be dropped.

    Mirrors include/linux/mm.h:fault_flag_allow_retry_first().
    """
    return bool(flags & FAULT_FLAG_ALLOW_RETRY) and not flags & FAULT_FLAG_TRIED


def mm_forbids_zeropage(mm: MmStruct) -> bool:
    """Tell whether @mm must not map the shared zero page; on x86 nothing forbids it.

    The model lets ``mm.forbids_zeropage`` decide, for experiments (s390 has such a switch).

    Mirrors include/linux/mm.h:mm_forbids_zeropage().
    """
    return mm.forbids_zeropage


def add_mm_counter(mm: MmStruct, member: int, value: int) -> None:
    """Add @value to a counter of resident pages.

    Mirrors include/linux/mm.h:add_mm_counter().
    """
    mm.rss_stat[member] += value
    m = mm.machine
    if m is not None and m.trace.on:
        curr = int(getattr(m.current, "mm", None) is mm)
        m.trace.emit("kmem:rss_stat", mm.mm_id, curr, member, mm.rss_stat[member] << PAGE_SHIFT)


def get_mm_counter(mm: MmStruct, member: int) -> int:
    """Return a counter of resident pages; never below 0.

    Mirrors include/linux/mm.h:get_mm_counter().
    """
    return max(mm.rss_stat[member], 0)


def get_mm_rss(mm: MmStruct) -> int:
    """Return the resident set in pages: file, anonymous and shmem.

    Mirrors include/linux/mm.h:get_mm_rss().
    """
    return (
        get_mm_counter(mm, MM_FILEPAGES)
        + get_mm_counter(mm, MM_ANONPAGES)
        + get_mm_counter(mm, MM_SHMEMPAGES)
    )


# --- mmap_lock and the per-VMA lock -----------------------------------------------------------


def mmap_read_trylock(mm: MmStruct) -> bool:
    """Take mmap_lock for reading if no writer holds it.

    Mirrors include/linux/mmap_lock.h:mmap_read_trylock().
    """
    return down_read_trylock(mm.mmap_lock)


def mmap_read_lock(mm: MmStruct) -> None:
    """Take mmap_lock for reading.

    Mirrors include/linux/mmap_lock.h:mmap_read_lock().
    """
    down_read(mm.mmap_lock)


def mmap_read_unlock(mm: MmStruct) -> None:
    """Give mmap_lock back.

    Mirrors include/linux/mmap_lock.h:mmap_read_unlock().
    """
    up_read(mm.mmap_lock)


def mmap_write_lock(mm: MmStruct) -> None:
    """Take mmap_lock for writing; mm_lock_seq becomes odd.

    Mirrors include/linux/mmap_lock.h:mmap_write_lock().
    """
    down_write(mm.mmap_lock)
    mm.mm_lock_seq = mm.mm_lock_seq + 1 & _UINT_MAX


def vma_end_write_all(mm: MmStruct) -> None:
    """Drop every per-VMA write lock at once: mm_lock_seq becomes even.

    Mirrors include/linux/mmap_lock.h:vma_end_write_all().
    """
    if not mm.mmap_lock.writer:
        raise KernelBug("vma_end_write_all() without mmap_lock held for writing")
    mm.mm_lock_seq = mm.mm_lock_seq + 1 & _UINT_MAX


def mmap_write_unlock(mm: MmStruct) -> None:
    """Give back mmap_lock and with it all per-VMA write locks.

    Mirrors include/linux/mmap_lock.h:mmap_write_unlock().
    """
    vma_end_write_all(mm)
    up_write(mm.mmap_lock)


def mmap_write_downgrade(mm: MmStruct) -> None:
    """Turn the write lock into a read lock.

    Mirrors include/linux/mmap_lock.h:mmap_write_downgrade().
    """
    vma_end_write_all(mm)
    up_write(mm.mmap_lock)
    mm.mmap_lock.readers += 1


def vma_start_read(vma: VmAreaStruct) -> bool:
    """Try to lock @vma for reading; false if a writer has it or has marked it.

    Mirrors include/linux/mm.h:vma_start_read().
    """
    if vma.vm_lock_seq == vma.vm_mm.mm_lock_seq:
        return False
    if not down_read_trylock(vma.vm_lock):
        return False
    if vma.vm_lock_seq == vma.vm_mm.mm_lock_seq:
        up_read(vma.vm_lock)
        return False
    return True


def vma_end_read(vma: VmAreaStruct) -> None:
    """Give back a read lock on @vma.

    Mirrors include/linux/mm.h:vma_end_read().
    """
    up_read(vma.vm_lock)


def vma_start_write(vma: VmAreaStruct) -> None:
    """Lock @vma for writing until mmap_lock is given back.

    Mirrors include/linux/mm.h:vma_start_write().
    """
    mm = vma.vm_mm
    if not mm.mmap_lock.writer:
        raise KernelBug("vma_start_write() without mmap_lock held for writing")
    if vma.vm_lock_seq == mm.mm_lock_seq:
        return
    down_write(vma.vm_lock)
    vma.vm_lock_seq = mm.mm_lock_seq
    up_write(vma.vm_lock)


def vma_mark_detached(vma: VmAreaStruct, detached: bool) -> None:
    """Note that @vma left the tree (or entered it).

    Mirrors include/linux/mm.h:vma_mark_detached().
    """
    if detached and vma.vm_lock_seq != vma.vm_mm.mm_lock_seq:
        raise KernelBug(f"{vma!r} is detached without being write-locked")
    vma.detached = detached


def release_fault_lock(vmf: VmFault) -> None:
    """Give back whichever lock the fault runs under.

    Mirrors include/linux/mm.h:release_fault_lock().
    """
    if vmf.flags & FAULT_FLAG_VMA_LOCK:
        vma_end_read(vmf.vma)
    else:
        mmap_read_unlock(vmf.vma.vm_mm)


__all__ = [
    "AnonVma",
    "AnonVmaChain",
    "DEFAULT_MAX_MAP_COUNT",
    "MmContext",
    "MmStruct",
    "PagingState",
    "VMA_LOCK_EVENTS",
    "RwSemaphore",
    "VmAreaStruct",
    "VmFault",
    "VmOperationsStruct",
    *[
        n
        for n in list(globals())
        if n.startswith(("VM_", "FAULT_FLAG", "MM_", "MMF_", "NR_MM", "down_", "up_", "vma_"))
        or n.startswith(("mmap_", "vm_f", "add_mm", "get_mm", "mm_forbids", "fault_flag"))
    ],
    "OVERCOMMIT_ALWAYS",
    "OVERCOMMIT_GUESS",
    "OVERCOMMIT_NEVER",
    "is_cow_mapping",
    "linear_page_index",
    "maybe_mkwrite",
    "release_fault_lock",
]
