"""The TLB, address space identifiers, and who must be told when an entry changes.

Mirrors arch/x86/mm/tlb.c and arch/x86/include/asm/tlbflush.h.

`Tlb` is hardware: sets of entries, the least recently used of a set leaves first. The rest is the
kernel's: which identifier (ASID) an address space gets on a CPU, and when a flush is needed.

Simplified: one level of 64 entries by default, shared by code and data, with true LRU; no
paging-structure caches and no speculation. Interrupts to other CPUs run at once, and a switch is one
step, so that nobody sees a CPU between two address spaces. With page table isolation user and kernel
mode share one tag. Not modelled: LAM, the LDT, the speculation barriers at a switch, MMU notifiers,
the counters of CONFIG_DEBUG_TLBFLUSH.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmcore.arch.x86 import pgtable_types as pt
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EINVAL, UsageError

if TYPE_CHECKING:
    from mmcore.machine import Machine
    from mmcore.mm.mm import MmStruct, VmAreaStruct

__all__ = [
    "LEVEL_PAGES",
    "TLB_FLUSH_ALL",
    "TLB_FLUSH_REASON_NAMES",
    "TLB_LOCAL_MM_SHOOTDOWN",
    "TLB_LOCAL_SHOOTDOWN",
    "TLB_FLUSH_ON_TASK_SWITCH",
    "TLB_NR_DYN_ASIDS",
    "TLB_REMOTE_SEND_IPI",
    "TLB_REMOTE_SHOOTDOWN",
    "CpuTlbState",
    "FlushTlbInfo",
    "Tlb",
    "TlbEntry",
    "choose_new_asid",
    "cpu_tlbstate",
    "enter_lazy_tlb",
    "flush_tlb_func",
    "flush_tlb_kernel_range",
    "flush_tlb_mm",
    "flush_tlb_mm_range",
    "flush_tlb_page",
    "flush_tlb_range",
    "inc_mm_tlb_gen",
    "pte_needs_flush",
    "should_flush_tlb",
    "switch_mm_irqs_off",
    "tlb_set_single_page_flush_ceiling",
    "validate_tlb",
]

TLB_NR_DYN_ASIDS = 6
TLB_FLUSH_ALL = (1 << 64) - 1
TLB_GENERATION_INVALID = 0
# enum tlb_flush_reason
(
    TLB_FLUSH_ON_TASK_SWITCH,
    TLB_REMOTE_SHOOTDOWN,
    TLB_LOCAL_SHOOTDOWN,
    TLB_LOCAL_MM_SHOOTDOWN,
    TLB_REMOTE_SEND_IPI,
) = range(5)
TLB_FLUSH_REASON_NAMES: tuple[str, ...] = (
    "flush on task switch",
    "remote shootdown",
    "local shootdown",
    "local mm shootdown",
    "remote ipi send",
)
#: Pages of 4 KiB that a leaf of level 1, 2 or 3 maps.
LEVEL_PAGES: tuple[int, ...] = (0, 1, 512, 512 * 512)


@dataclass(slots=True)
class TlbEntry:
    """One cached translation.

    :ivar pcid: the tag it was loaded with; None for a global entry, which every tag matches
    :ivar vpn: first virtual page number
    :ivar level: 1, 2 or 3: 4 KiB, 2 MiB, 1 GiB
    :ivar pfn: first page frame
    :ivar flags: the rights of all levels together, with the leaf's D, G and protection key
    """

    pcid: int | None
    vpn: int
    level: int
    pfn: int
    flags: int


class Tlb:
    """A set-associative TLB with least-recently-used replacement.

    :param entries: how many translations it holds
    :param ways: entries per set; a divisor of @entries
    :raises UsageError: if the numbers are not positive or do not divide
    """

    __slots__ = ("_mask", "entries", "hits", "misses", "sets", "ways")

    def __init__(self, entries: int = 64, ways: int = 4) -> None:
        if entries < 1 or ways < 1 or entries % ways:
            raise UsageError(f"a TLB of {entries} entries cannot have {ways} ways")
        self.entries = entries
        self.ways = ways
        self.sets: list[dict[tuple[int | None, int, int], TlbEntry]] = [
            {} for _ in range(entries // ways)
        ]
        self._mask = len(self.sets)
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def __repr__(self) -> str:
        return f"<TLB {len(self)}/{self.entries} entries, {self.hits} hits, {self.misses} misses>"

    def lookup(self, pcid: int, address: int) -> TlbEntry | None:
        """Return the entry that translates @address under tag @pcid, or None: a miss."""
        vpn = address >> PAGE_SHIFT
        for level in (1, 2, 3):
            page = vpn >> 9 * (level - 1)
            where = self.sets[page % self._mask]
            for tag in (pcid, None):
                key = (tag, level, page)
                entry = where.get(key)
                if entry is not None:
                    where[key] = where.pop(key)
                    self.hits += 1
                    return entry
        self.misses += 1
        return None

    def fill(self, pcid: int, address: int, level: int, pfn: int, flags: int) -> TlbEntry:
        """Load a translation; the least recently used entry of a full set leaves."""
        page = address >> PAGE_SHIFT + 9 * (level - 1)
        tag = None if flags & pt._PAGE_GLOBAL else pcid
        where = self.sets[page % self._mask]
        key = (tag, level, page)
        where.pop(key, None)
        if len(where) >= self.ways:
            del where[next(iter(where))]
        entry = where[key] = TlbEntry(tag, page << 9 * (level - 1), level, pfn, flags)
        return entry

    def access(self, vpn: int, pcid: int = 0, level: int = 1) -> bool:
        """Look up virtual page @vpn, loading it on a miss; True for a hit (for reach studies)."""
        if self.lookup(pcid, vpn << PAGE_SHIFT) is not None:
            return True
        self.fill(pcid, vpn << PAGE_SHIFT, level, vpn, 0)
        return False

    def invlpg(self, pcid: int, address: int) -> None:
        """Drop every entry of @address under @pcid, and a global one, as INVLPG does."""
        vpn = address >> PAGE_SHIFT
        for level in (1, 2, 3):
            page = vpn >> 9 * (level - 1)
            where = self.sets[page % self._mask]
            where.pop((pcid, level, page), None)
            where.pop((None, level, page), None)

    def flush_pcid(self, pcid: int) -> None:
        """Drop all entries of one tag, not the global ones (a CR3 write)."""
        for where in self.sets:
            for key in [k for k in where if k[0] == pcid]:
                del where[key]

    def flush_all(self) -> None:
        """Drop everything, global entries too (INVPCID type 2, or a change of CR4.PGE)."""
        for where in self.sets:
            where.clear()

    def __iter__(self) -> Any:
        for where in self.sets:
            yield from where.values()


@dataclass(slots=True)
class TlbContext:
    """``struct tlb_context``: which address space an ASID holds, and how far it is up to date."""

    ctx_id: int = 0
    tlb_gen: int = 0


@dataclass(slots=True, eq=False)
class CpuTlbState:
    """``struct tlb_state`` of one CPU, and its TLB.

    Mirrors arch/x86/include/asm/tlbflush.h:tlb_state.
    """

    cpu: int
    loaded_mm: MmStruct | None = None  # None stands for init_mm
    loaded_mm_asid: int = 0
    next_asid: int = 1
    invalidate_other: bool = False
    user_pcid_flush_mask: int = 0
    is_lazy: bool = False
    ctxs: list[TlbContext] = field(
        # Slot 0 holds init_mm from the start: initialize_tlbstate_and_flush().
        default_factory=lambda: [
            TlbContext(1, 1),
            *(TlbContext() for _ in range(TLB_NR_DYN_ASIDS - 1)),
        ]
    )
    tlb: Tlb = field(default_factory=Tlb)
    irq_tlb_count: int = 0


@dataclass(slots=True)
class FlushTlbInfo:
    """``struct flush_tlb_info``: one request to flush.

    Mirrors arch/x86/include/asm/tlbflush.h:flush_tlb_info.
    """

    mm: MmStruct | None
    start: int
    end: int
    new_tlb_gen: int
    initiating_cpu: int
    stride_shift: int
    freed_tables: bool
    trim_cpumask: bool = False


def cpu_tlbstate(m: Machine, cpu: int | None = None) -> CpuTlbState:
    """Return the TLB state of @cpu, by default of the one running now."""
    cpu = m.this_cpu if cpu is None else cpu
    state: CpuTlbState | None = m.paging.cpu_tlbstate.get(cpu)
    if state is None:
        state = m.paging.cpu_tlbstate[cpu] = CpuTlbState(cpu)
    return state


def _trace_tlb_flush(m: Machine, reason: int, pages: int) -> None:
    if m.trace.on:
        m.trace.emit("tlb:tlb_flush", reason, -1 if pages == TLB_FLUSH_ALL else pages)


def inc_mm_tlb_gen(mm: MmStruct) -> int:
    """Count one more change that TLBs must follow.

    Mirrors arch/x86/include/asm/tlbflush.h:inc_mm_tlb_gen().
    """
    mm.context.tlb_gen += 1
    return mm.context.tlb_gen


def clear_asid_other(state: CpuTlbState) -> None:
    """Forget all contexts but the loaded one: kernel entries changed under page table isolation.

    Mirrors arch/x86/mm/tlb.c:clear_asid_other().
    """
    for asid, ctx in enumerate(state.ctxs):
        if asid != state.loaded_mm_asid:
            ctx.ctx_id = 0
    state.invalidate_other = False


def choose_new_asid(
    m: Machine, state: CpuTlbState, next_mm: MmStruct, next_tlb_gen: int
) -> tuple[int, bool]:
    """Choose the identifier that @next_mm gets on this CPU: (asid, whether it must be flushed).

    Mirrors arch/x86/mm/tlb.c:choose_new_asid().
    """
    if not m.config.cpu_pcid:
        return 0, True
    if state.invalidate_other:
        clear_asid_other(state)
    for asid, ctx in enumerate(state.ctxs):
        if ctx.ctx_id == next_mm.context.ctx_id:
            return asid, ctx.tlb_gen < next_tlb_gen
    asid = state.next_asid
    state.next_asid += 1
    if asid >= TLB_NR_DYN_ASIDS:
        asid = 0
        state.next_asid = 1
    return asid, True


def switch_mm_irqs_off(m: Machine, next_mm: MmStruct | None) -> None:
    """Load @next_mm (None: init_mm) on this CPU.

    Mirrors arch/x86/mm/tlb.c:switch_mm_irqs_off().
    """
    state = cpu_tlbstate(m)
    prev, bit = state.loaded_mm, 1 << m.this_cpu
    was_lazy, state.is_lazy = state.is_lazy, False
    asid, need_flush, gen = state.loaded_mm_asid, True, 0
    if prev is next_mm:
        if not was_lazy or next_mm is None:
            return
        gen = next_mm.context.tlb_gen
        if state.ctxs[asid].tlb_gen == gen:
            return
    else:
        if prev is not None:
            prev.mm_cpumask &= ~bit
        if next_mm is None:
            # init_mm has context id 1 in the kernel; its slot is chosen like any other.
            next_ctx, gen = _INIT_CTX, 1
            asid, need_flush = choose_new_asid(m, state, next_ctx, gen)
        else:
            next_mm.mm_cpumask |= bit
            gen = next_mm.context.tlb_gen
            asid, need_flush = choose_new_asid(m, state, next_mm, gen)
    if need_flush:
        state.ctxs[asid].ctx_id = 1 if next_mm is None else next_mm.context.ctx_id
        state.ctxs[asid].tlb_gen = gen
        state.tlb.flush_pcid(asid)
    _trace_tlb_flush(m, TLB_FLUSH_ON_TASK_SWITCH, TLB_FLUSH_ALL if need_flush else 0)
    state.loaded_mm = next_mm
    state.loaded_mm_asid = asid


class _InitMmContext:
    """Stands for init_mm where only its context is asked for."""

    class context:
        ctx_id = 1
        tlb_gen = 1


_INIT_CTX: Any = _InitMmContext()


def enter_lazy_tlb(m: Machine) -> None:
    """A kernel thread runs: keep the address space loaded, and expect to come back to it.

    Mirrors arch/x86/mm/tlb.c:enter_lazy_tlb().
    """
    state = cpu_tlbstate(m)
    if state.loaded_mm is not None:
        state.is_lazy = True


def flush_tlb_func(m: Machine, info: FlushTlbInfo) -> None:
    """Do on this CPU what @info asks for, as far as it is still needed.

    Mirrors arch/x86/mm/tlb.c:flush_tlb_func().
    """
    state = cpu_tlbstate(m)
    mm = state.loaded_mm
    local = m.this_cpu == info.initiating_cpu
    if not local:
        state.irq_tlb_count += 1
        if info.mm is not None and info.mm is not mm:
            return
    if mm is None:
        return
    if state.is_lazy:
        switch_mm_irqs_off(m, None)
        return
    ctx = state.ctxs[state.loaded_mm_asid]
    if info.new_tlb_gen != TLB_GENERATION_INVALID and info.new_tlb_gen <= ctx.tlb_gen:
        return
    mm_gen = mm.context.tlb_gen
    pages = 0
    if ctx.tlb_gen != mm_gen:
        if info.end != TLB_FLUSH_ALL and info.new_tlb_gen == ctx.tlb_gen + 1 == mm_gen:
            pages = (info.end - info.start) >> info.stride_shift
            address = info.start
            while address < info.end:
                state.tlb.invlpg(state.loaded_mm_asid, address)
                address += 1 << info.stride_shift
        else:
            pages = TLB_FLUSH_ALL
            state.tlb.flush_pcid(state.loaded_mm_asid)
        ctx.tlb_gen = mm_gen
    reason = TLB_LOCAL_MM_SHOOTDOWN if info.mm is not None else TLB_LOCAL_SHOOTDOWN
    _trace_tlb_flush(m, reason if local else TLB_REMOTE_SHOOTDOWN, pages)


def should_flush_tlb(m: Machine, cpu: int, info: FlushTlbInfo) -> bool:
    """Tell whether @cpu needs an interrupt for @info: a lazy one flushes when it comes back.

    Mirrors arch/x86/mm/tlb.c:should_flush_tlb().
    """
    state = cpu_tlbstate(m, cpu)
    if state.is_lazy:
        return False
    if info.mm is None or state.loaded_mm is info.mm:
        return True
    return info.trim_cpumask


def flush_tlb_multi(m: Machine, cpumask: int, info: FlushTlbInfo) -> None:
    """Flush on all CPUs of @cpumask that need it; all of them if tables were freed.

    Mirrors arch/x86/mm/tlb.c:native_flush_tlb_multi().
    """
    if info.end == TLB_FLUSH_ALL:
        pages = TLB_FLUSH_ALL
    else:
        pages = (info.end - info.start) >> PAGE_SHIFT
    _trace_tlb_flush(m, TLB_REMOTE_SEND_IPI, pages)
    here = m.this_cpu
    for cpu in range(m.cpus):
        if cpumask >> cpu & 1 and (info.freed_tables or should_flush_tlb(m, cpu, info)):
            m.this_cpu = cpu
            flush_tlb_func(m, info)
    m.this_cpu = here


def flush_tlb_mm_range(
    m: Machine | None, mm: MmStruct, start: int, end: int, stride_shift: int, freed_tables: bool
) -> None:
    """Make every CPU forget the translations of a range; everything if it is more than 33 entries.

    :raises UsageError: if the range is reversed

    Mirrors arch/x86/mm/tlb.c:flush_tlb_mm_range().
    """
    if end < start:
        raise UsageError(f"flush of a reversed range {start:#x}-{end:#x}")
    ceiling = 33 if m is None else m.paging.tlb_single_page_flush_ceiling
    if end == TLB_FLUSH_ALL or (end - start) >> stride_shift > ceiling:
        start, end = 0, TLB_FLUSH_ALL
    gen = inc_mm_tlb_gen(mm)
    if m is None:
        return
    info = FlushTlbInfo(mm, start, end, gen, m.this_cpu, stride_shift, freed_tables)
    if mm.mm_cpumask & ~(1 << m.this_cpu):
        if m.jiffies > mm.context.next_trim_cpumask:
            mm.context.next_trim_cpumask = m.jiffies + m.config.HZ
            info.trim_cpumask = True
        flush_tlb_multi(m, mm.mm_cpumask, info)
    elif cpu_tlbstate(m).loaded_mm is mm:
        flush_tlb_func(m, info)


def flush_tlb_mm(mm: MmStruct) -> None:
    """Make every CPU forget all translations of @mm.

    Mirrors arch/x86/include/asm/tlbflush.h:flush_tlb_mm().
    """
    flush_tlb_mm_range(mm.machine, mm, 0, TLB_FLUSH_ALL, 0, True)


def flush_tlb_range(vma: VmAreaStruct, start: int, end: int) -> None:
    """Make every CPU forget a range of @vma.

    Simplified: no hugetlb mappings, whose stride is their page's size.

    Mirrors arch/x86/include/asm/tlbflush.h:flush_tlb_range().
    """
    flush_tlb_mm_range(vma.vm_mm.machine, vma.vm_mm, start, end, PAGE_SHIFT, True)


def flush_tlb_page(vma: VmAreaStruct, address: int) -> None:
    """Make every CPU forget one page of @vma.

    Mirrors arch/x86/include/asm/tlbflush.h:flush_tlb_page().
    """
    mm = vma.vm_mm
    flush_tlb_mm_range(mm.machine, mm, address, address + PAGE_SIZE, PAGE_SHIFT, False)


def flush_tlb_kernel_range(m: Machine, start: int, end: int) -> None:
    """Make every CPU forget a range of kernel addresses.

    Mirrors arch/x86/mm/tlb.c:flush_tlb_kernel_range().
    """
    from mmcore.arch.x86.pgtable import pti_enabled

    everything = end == TLB_FLUSH_ALL or end - start > (
        m.paging.tlb_single_page_flush_ceiling << PAGE_SHIFT
    )
    for cpu in range(m.cpus):
        state = cpu_tlbstate(m, cpu)
        if everything:
            state.tlb.flush_all()
            continue
        for address in range(start, end, PAGE_SIZE):
            state.tlb.invlpg(state.loaded_mm_asid, address)
            if pti_enabled(m):
                state.invalidate_other = True


def tlb_set_single_page_flush_ceiling(m: Machine, ceiling: int) -> int:
    """Set how many entries are flushed one by one; 0, or -EINVAL for a negative number.

    Mirrors arch/x86/mm/tlb.c:tlbflush_write_file().
    """
    if ceiling < 0:
        return -EINVAL
    m.paging.tlb_single_page_flush_ceiling = ceiling
    return 0


_FLUSH_ON_CLEAR = pt._PAGE_DIRTY | pt._PAGE_PRESENT | pt._PAGE_ACCESSED
_FLUSH_ON_CHANGE = (
    pt._PAGE_RW
    | pt._PAGE_USER
    | pt._PAGE_PWT
    | pt._PAGE_PCD
    | pt._PAGE_PSE
    | pt._PAGE_GLOBAL
    | pt._PAGE_PAT_LARGE
    | pt._PAGE_PKEY_MASK
    | pt._PAGE_NX
)


def pte_flags_need_flush(oldflags: int, newflags: int, ignore_access: bool) -> bool:
    """Tell whether a change of flags needs a flush.

    Mirrors arch/x86/include/asm/tlbflush.h:pte_flags_need_flush().
    """
    diff = oldflags ^ newflags
    if ignore_access:
        diff &= ~pt._PAGE_ACCESSED
    return diff & oldflags & _FLUSH_ON_CLEAR != 0 or diff & _FLUSH_ON_CHANGE != 0


def pte_needs_flush(oldpte: int, newpte: int) -> bool:
    """Tell whether changing @oldpte to @newpte leaves a TLB entry that must go.

    Mirrors arch/x86/include/asm/tlbflush.h:pte_needs_flush().
    """
    if not oldpte & pt._PAGE_PRESENT:
        return False
    if pt.pte_pfn(oldpte) != pt.pte_pfn(newpte):
        return True
    mask = pt.PTE_FLAGS_MASK
    return pte_flags_need_flush(oldpte & mask & ~(1 << 12), newpte & mask & ~(1 << 12), True)


def validate_tlb(m: Machine) -> None:
    """Check that no usable TLB entry allows more than the tables do.

    An ASID whose generation is behind counts as empty: it is flushed before it is used.

    :raises KernelBug: naming the entry
    """
    from mmcore.arch.x86.fault import hardware_walk
    from mmcore.errors import KernelBug

    for cpu in sorted(m.paging.cpu_tlbstate):
        state = cpu_tlbstate(m, cpu)
        mm = state.loaded_mm
        if mm is None:
            continue
        if not mm.mm_cpumask >> cpu & 1 and not state.is_lazy:
            raise KernelBug(f"CPU {cpu} runs {mm!r} but is not in its cpumask")
        ctx = state.ctxs[state.loaded_mm_asid]
        if ctx.tlb_gen > mm.context.tlb_gen:
            raise KernelBug(f"CPU {cpu} is ahead of {mm!r}: {ctx.tlb_gen}")
        if ctx.tlb_gen != mm.context.tlb_gen:
            continue
        for entry in state.tlb:
            if entry.pcid != state.loaded_mm_asid:
                continue
            found = hardware_walk(mm, entry.vpn << PAGE_SHIFT)
            if found is None or found.pfn != entry.pfn or not found.allows(entry.flags):
                raise KernelBug(
                    f"CPU {cpu}: TLB entry for {entry.vpn << PAGE_SHIFT:#x} -> pfn "
                    f"{entry.pfn:#x} flags {entry.flags:#x} is stale"
                )
