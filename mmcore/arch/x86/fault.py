"""The page fault: what the processor reports, and what the kernel makes of it.

Mirrors arch/x86/mm/fault.c. `access()` is the processor: it walks the tables (or finds the translation
in the TLB), checks the rights of all levels and sets the accessed and dirty bits, or makes the error
code. `exc_page_fault()` is the kernel. `touch()` is a program's instruction: access, fault, access again.

Simplified: shadow stacks and SGX appear only as error code bits; no KVM, kprobes, mmiotrace or errata (such as
prefetches that fault), and no exception table of the vdso; the processor has SMAP and SMEP. The accessed bits are
set when the whole access is allowed. A signal is the function's result, not delivered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcore.arch.x86 import pgtable as pg
from mmcore.arch.x86 import tlb as tlb_
from mmcore.arch.x86.pgtable_types import (
    _PAGE_ACCESSED,
    _PAGE_DIRTY,
    _PAGE_GLOBAL,
    _PAGE_NX,
    _PAGE_PKEY_MASK,
    _PAGE_PRESENT,
    _PAGE_PSE,
    _PAGE_RW,
    _PAGE_USER,
    LEVEL_SHIFT,
    PTE_PFN_MASK,
    pte_exec,
    pte_write,
)
from mmcore.cint import ULONG_MAX
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EFAULT, KernelBug, ParseError, UsageError
from mmcore.mm import memcontrol, memory
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    FAULT_FLAG_DEFAULT,
    FAULT_FLAG_INSTRUCTION,
    FAULT_FLAG_TRIED,
    FAULT_FLAG_USER,
    FAULT_FLAG_VMA_LOCK,
    FAULT_FLAG_WRITE,
    VM_FAULT_COMPLETED,
    VM_FAULT_ERROR,
    VM_FAULT_HWPOISON,
    VM_FAULT_HWPOISON_LARGE,
    VM_FAULT_MAJOR,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_FAULT_SIGSEGV,
    VM_PKEY_SHIFT,
    VM_SHADOW_STACK,
    VM_WRITE,
    MmStruct,
    VmAreaStruct,
    mmap_read_unlock,
    vma_end_read,
    vma_is_accessible,
)

if TYPE_CHECKING:
    from mmcore.kernel.fork import TaskStruct
    from mmcore.machine import Machine

# enum x86_pf_error_code
X86_PF_PROT = 1 << 0
X86_PF_WRITE = 1 << 1
X86_PF_USER = 1 << 2
X86_PF_RSVD = 1 << 3
X86_PF_INSTR = 1 << 4
X86_PF_PK = 1 << 5
X86_PF_SHSTK = 1 << 6
X86_PF_SGX = 1 << 15
X86_PF_RMP = 1 << 31
X86_PF_NAMES: dict[int, str] = {
    X86_PF_PROT: "PROT",
    X86_PF_WRITE: "WRITE",
    X86_PF_USER: "USER",
    X86_PF_RSVD: "RSVD",
    X86_PF_INSTR: "INSTR",
    X86_PF_PK: "PK",
    X86_PF_SHSTK: "SHSTK",
    X86_PF_SGX: "SGX",
    X86_PF_RMP: "RMP",
}
# include/uapi/asm-generic/siginfo.h
SEGV_MAPERR = 1
SEGV_ACCERR = 2
SEGV_PKUERR = 4
BUS_ADRERR = 2
BUS_MCEERR_AR = 4
SI_CODE_NAMES: dict[str, dict[int, str]] = {
    "SIGSEGV": {1: "SEGV_MAPERR", 2: "SEGV_ACCERR", 4: "SEGV_PKUERR", 0x80: "SI_KERNEL"},
    "SIGBUS": {2: "BUS_ADRERR", 4: "BUS_MCEERR_AR"},
}
X86_EFLAGS_IF = 1 << 9
X86_EFLAGS_AC = 1 << 18
VSYSCALL_ADDR = 0xFFFFFFFFFF600000
#: Bits of a physical address that the model CPU has; those above are reserved in an entry.
X86_PHYS_BITS = 46
PKRU_AD_BIT, PKRU_WD_BIT = 1, 2


def pf_error_str(error_code: int) -> str:
    """Return the names of a page fault's error code bits, joined by ``|``; "0" for none."""
    return "|".join(n for bit, n in X86_PF_NAMES.items() if error_code & bit) or "0"


# --- what an access ends in -------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Translation:
    """An access that went through.

    :ivar phys: physical address in bytes
    :ivar pfn: page frame that holds it
    :ivar level: 1, 2 or 3: mapped by a PTE, a PMD or a PUD
    :ivar tlb_hit: the tables were not walked
    """

    address: int
    phys: int
    pfn: int
    level: int
    tlb_hit: bool = False
    faults: int = 0

    @property
    def size(self) -> int:
        """Bytes that the leaf maps."""
        return 1 << LEVEL_SHIFT[self.level]


@dataclass(slots=True, frozen=True)
class PageFault:
    """The processor raises #PF: CR2 and the error code."""

    address: int
    error_code: int

    def __str__(self) -> str:
        return f"#PF at {self.address:#x}, error {self.error_code:#x} ({pf_error_str(self.error_code)})"


@dataclass(slots=True, frozen=True)
class GeneralProtection:
    """The processor raises #GP: the address is not canonical, so there is nothing to page in."""

    address: int
    error_code: int = 0


@dataclass(slots=True, frozen=True)
class Handled:
    """The kernel dealt with the fault; the instruction runs again."""


@dataclass(slots=True, frozen=True)
class SigSegv:
    """The task gets SIGSEGV.

    :ivar error_code: as user space sees it (`sanitize_error_code()`)
    :ivar message: the line that the kernel prints, or ""
    """

    address: int
    si_code: int
    error_code: int
    pkey: int = 0
    message: str = ""

    def __str__(self) -> str:
        return f"SIGSEGV ({SI_CODE_NAMES['SIGSEGV'][self.si_code]}) at {self.address:#x}"


@dataclass(slots=True, frozen=True)
class SigBus:
    """The task gets SIGBUS."""

    address: int
    si_code: int
    error_code: int = 0

    def __str__(self) -> str:
        return f"SIGBUS ({SI_CODE_NAMES['SIGBUS'][self.si_code]}) at {self.address:#x}"


@dataclass(slots=True, frozen=True)
class Oops:
    """The kernel prints an oops and ends the task."""

    address: int
    error_code: int
    lines: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Fixup:
    """A kernel access to user memory failed where the kernel was prepared: -EFAULT by the extable."""

    address: int
    error: int = -EFAULT


@dataclass(slots=True, frozen=True)
class OutOfMemory:
    """The fault found no memory; pagefault_out_of_memory() lets the task try again."""

    address: int


@dataclass(slots=True, frozen=True)
class Interrupted:
    """The fault gave up for a signal that is pending."""

    address: int


Outcome = Handled | SigSegv | SigBus | Oops | Fixup | OutOfMemory | Interrupted


@dataclass(slots=True)
class PtRegs:
    """``struct pt_regs``, as far as the fault handler looks.

    :ivar user_mode: the processor was in user mode
    :ivar extable: kernel code that is prepared for a fault (get_user(), copy_from_user() ...)
    """

    ip: int = 0
    sp: int = 0
    flags: int = X86_EFLAGS_IF
    user_mode: bool = True
    extable: bool = False


# --- the processor ----------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class HwTranslation:
    """What a walk of the tables found.

    :ivar pfn: first page frame of the leaf
    :ivar flags: RW, US and NX of all levels together; G, D and the protection key of the leaf
    :ivar entries: pointers to the entries used, top first
    """

    pfn: int
    level: int
    flags: int
    entries: tuple[pg.Ptep, ...]

    def allows(self, flags: int) -> bool:
        """Tell whether a cached translation with @flags has no right that this one lacks."""
        more = flags & ~self.flags & (_PAGE_RW | _PAGE_USER)
        return not more and not (self.flags & ~flags & _PAGE_NX)


def _reserved(entry: int, level: int, levels: int, nx: bool) -> bool:
    """Tell whether a present entry has a reserved bit set."""
    if entry & (1 << 52) - (1 << X86_PHYS_BITS) or (entry & _PAGE_NX and not nx):
        return True
    if entry & _PAGE_PSE:
        if level >= 4:
            return True
        if level > 1:
            return entry & ((1 << LEVEL_SHIFT[level]) - (1 << 13)) != 0
    return False


def hardware_walk(
    mm: MmStruct, address: int, *, user_table: bool = False, nx: bool = True
) -> HwTranslation | None:
    """Walk the tables as the processor does; None if an entry is not present.

    :raises ReservedBit: if a present entry has a reserved bit set
    """
    table = mm.pgd
    if user_table and table.shadow is not None:
        table = table.shadow
    tables = mm.tables.tables
    rights = _PAGE_RW | _PAGE_USER
    no_exec = 0
    used = []
    for level in range(mm.levels, 0, -1):
        i = address >> LEVEL_SHIFT[level] & 511
        entry = table[i]
        if not entry & _PAGE_PRESENT:
            return None
        if _reserved(entry, level, mm.levels, nx):
            raise ReservedBit(entry, level)
        used.append((table, i))
        rights &= entry
        no_exec |= entry & _PAGE_NX
        if level == 1 or (entry & _PAGE_PSE and level < 4):
            leaf = entry & (_PAGE_DIRTY | _PAGE_GLOBAL | _PAGE_PKEY_MASK)
            pfn = (entry & PTE_PFN_MASK & -(1 << LEVEL_SHIFT[level])) >> PAGE_SHIFT
            return HwTranslation(pfn, level, rights | no_exec | leaf | 1, tuple(used))
        table = tables[(entry & PTE_PFN_MASK) >> PAGE_SHIFT]
    raise KernelBug("a walk ended without a leaf")


class ReservedBit(Exception):
    """A walk met a present entry with a reserved bit set."""


_KINDS = {"r": 0, "w": X86_PF_WRITE, "x": X86_PF_INSTR}


def _denied(flags: int, kind: str, user: bool, ac: bool, pkru: int) -> int:
    """Return 0 if the rights allow the access, else the error code bits besides P, W, U and I."""
    user_page = flags & _PAGE_USER
    if kind == "x":
        if flags & _PAGE_NX or user != bool(user_page):  # SMEP: the kernel runs no user page
            return X86_PF_PROT
        return 0
    if (user and not user_page) or (kind == "w" and not flags & _PAGE_RW):
        return X86_PF_PROT
    if not user and user_page and not ac:  # SMAP
        return X86_PF_PROT
    if pkru and user_page:
        key = (flags & _PAGE_PKEY_MASK) >> 59
        bits = pkru >> 2 * key & 3
        if bits & PKRU_AD_BIT or (kind == "w" and bits & PKRU_WD_BIT):
            return X86_PF_PROT | X86_PF_PK
    return 0


def access(
    m: Machine | None,
    mm: MmStruct,
    address: int,
    kind: str = "r",
    user: bool = True,
    *,
    ac: bool = True,
    pkru: int = 0,
) -> Translation | PageFault | GeneralProtection:
    """Do one access as the processor does it.

    :param m: the machine whose current CPU's TLB is used, if it has @mm loaded; None: no TLB
    :param kind: ``"r"``, ``"w"`` or ``"x"``
    :param user: in user mode (else in the kernel)
    :param ac: EFLAGS.AC, which lets the kernel access user pages in spite of SMAP
    :param pkru: the protection key rights register
    :raises UsageError: for an @address that is no 64-bit number, or another @kind
    """
    if kind not in _KINDS:
        raise UsageError(f"kind is {kind!r}; an access is 'r', 'w' or 'x'")
    if not isinstance(address, int) or not 0 <= address <= ULONG_MAX:
        raise UsageError(f"an address is a number of 0 to 2**64-1, not {address!r}")
    if address >> 47 and not pg._is_canonical_address(
        address, pg.virtual_mask_shift(mm.levels) + 1
    ):
        return GeneralProtection(address)
    nx = m is None or m.config.cpu_nx
    code = _KINDS[kind] | (X86_PF_USER if user else 0)
    if kind == "x" and not nx:
        code &= ~X86_PF_INSTR
    state = None
    if m is not None:
        if not m.config.cpu_pku:
            pkru = 0
        state = tlb_.cpu_tlbstate(m)
        if state.loaded_mm is not mm:
            state = None
    if state is not None:
        hit = state.tlb.lookup(state.loaded_mm_asid, address)
        if hit is not None and not (kind == "w" and not hit.flags & _PAGE_DIRTY):
            bad = _denied(hit.flags, kind, user, ac, pkru)
            if bad:
                state.tlb.invlpg(state.loaded_mm_asid, address)
                return PageFault(address, code | bad)
            pfn = hit.pfn + (address >> PAGE_SHIFT) - hit.vpn
            return Translation(address, pfn << 12 | address & 4095, pfn, hit.level, True)
    try:
        found = hardware_walk(mm, address, user_table=user, nx=nx)
    except ReservedBit:
        return PageFault(address, code | X86_PF_PROT | X86_PF_RSVD)
    if found is None:
        return PageFault(address, code)
    bad = _denied(found.flags, kind, user, ac, pkru)
    if bad:
        if state is not None:
            state.tlb.invlpg(state.loaded_mm_asid, address)
        return PageFault(address, code | bad)
    return _complete(state, found, address, kind)


def _complete(
    state: tlb_.CpuTlbState | None, found: HwTranslation, address: int, kind: str
) -> Translation:
    """Set accessed and dirty bits, load the TLB and give the physical address."""
    for table, i in found.entries:
        table[i] |= _PAGE_ACCESSED
    flags = found.flags
    if kind == "w":
        table, i = found.entries[-1]
        table[i] |= _PAGE_DIRTY
        flags |= _PAGE_DIRTY
    if state is not None:
        state.tlb.fill(state.loaded_mm_asid, address, found.level, found.pfn, flags)
    offset = address & (1 << LEVEL_SHIFT[found.level]) - 1
    phys = (found.pfn << PAGE_SHIFT) + offset
    return Translation(address, phys, phys >> PAGE_SHIFT, found.level)


# --- the kernel -------------------------------------------------------------------------------


def _step(m: Machine, function: str, step: str, lock: str = "") -> None:
    if m.trace.on:
        m.trace.emit("model:fault_step", function, step, lock)


def is_vsyscall_vaddr(vaddr: int) -> bool:
    """Tell whether @vaddr is in the vsyscall page.

    Mirrors arch/x86/include/asm/vsyscall.h:is_vsyscall_vaddr().
    """
    return vaddr & -PAGE_SIZE == VSYSCALL_ADDR


def fault_in_kernel_space(mm_levels: int, address: int) -> bool:
    """Tell whether @address is one that user space can never have; the vsyscall page is not.

    Mirrors arch/x86/mm/fault.c:fault_in_kernel_space().
    """
    if is_vsyscall_vaddr(address):
        return False
    return address >= pg.task_size_max(mm_levels)


def arch_vma_access_permitted(vma: VmAreaStruct, write: bool, execute: bool) -> bool:
    """Tell whether the current task's protection key rights allow the access.

    Mirrors arch/x86/include/asm/mmu_context.h:arch_vma_access_permitted().
    """
    m = vma.vm_mm.machine
    if (
        execute
        or m is None
        or not m.config.cpu_pku
        or getattr(m.current, "mm", None) is not vma.vm_mm
    ):
        return True
    bits = m.current.pkru >> 2 * (vma.vm_flags >> VM_PKEY_SHIFT & 0xF)
    return not bits & (PKRU_AD_BIT | (PKRU_WD_BIT if write else 0))


def access_error(error_code: int, vma: VmAreaStruct) -> bool:
    """Tell whether @vma forbids what the faulting instruction wants.

    Mirrors arch/x86/mm/fault.c:access_error().
    """
    if error_code & (X86_PF_PK | X86_PF_SGX):
        return True
    write = bool(error_code & X86_PF_WRITE)
    if not arch_vma_access_permitted(vma, write, bool(error_code & X86_PF_INSTR)):
        return True
    if error_code & X86_PF_SHSTK:
        return not vma.vm_flags & VM_SHADOW_STACK or not vma.vm_flags & VM_WRITE
    if write:
        return bool(vma.vm_flags & VM_SHADOW_STACK) or not vma.vm_flags & VM_WRITE
    if error_code & X86_PF_PROT:  # a read of something present that was refused
        return True
    return not vma_is_accessible(vma)


def sanitize_error_code(mm_levels: int, address: int, error_code: int) -> int:
    """Return what user space may see: kernel addresses always look like protection faults.

    Mirrors arch/x86/mm/fault.c:sanitize_error_code().
    """
    return error_code | X86_PF_PROT if address >= pg.task_size_max(mm_levels) else error_code


def spurious_kernel_fault(m: Machine, error_code: int, address: int) -> bool:
    """Tell whether a stale TLB entry caused the fault: the tables allow the access.

    Mirrors arch/x86/mm/fault.c:spurious_kernel_fault().
    """
    if error_code not in (X86_PF_WRITE | X86_PF_PROT, X86_PF_INSTR | X86_PF_PROT):
        return False
    if m.init_mm is None:
        return False
    ptep, level = pg.lookup_address(m.init_mm, address)
    if ptep is None or not ptep[0][ptep[1]] & 0x101:
        return False
    entries = [ptep[0][ptep[1]]]
    if level == 1:  # the PMD entry above it must allow the access too
        entries.append(pg.walk(m.init_mm, address)[-2][2])
    return not any(
        (error_code & X86_PF_WRITE and not pte_write(entry))
        or (error_code & X86_PF_INSTR and not pte_exec(entry))
        for entry in entries
    )


def page_fault_oops(m: Machine, regs: PtRegs, error_code: int, address: int) -> Oops:
    """Print the oops for a bad access by the kernel.

    Simplified: kernel stacks have no guard pages, and neither EFI nor KFENCE is asked first; of the oops
    itself only the lines about the fault are printed.

    Mirrors arch/x86/mm/fault.c:page_fault_oops().
    """
    _step(m, "page_fault_oops", "oops")
    lines = show_fault_oops(m, regs, error_code, address)
    m.paging.die_counter += 1
    pti = " PTI" if pg.pti_enabled(m) else " NOPTI"
    lines.append(
        f"Oops: Oops: {error_code & 0xFFFF:04x} [#{m.paging.die_counter}] PREEMPT SMP{pti}"
    )
    lines.append(f"CR2: {address:016x}")
    m.dmesg.extend(lines)
    return Oops(address, error_code, tuple(lines))


def kernelmode_fixup_or_oops(
    m: Machine, regs: PtRegs, error_code: int, address: int
) -> Fixup | Oops:
    """End a fault of kernel code: by its exception table entry, or with an oops.

    Mirrors arch/x86/mm/fault.c:kernelmode_fixup_or_oops().
    """
    if regs.extable:
        _step(m, "kernelmode_fixup_or_oops", "extable: -EFAULT")
        return Fixup(address)
    return page_fault_oops(m, regs, error_code, address)


def bad_area(
    m: Machine, regs: PtRegs, error_code: int, address: int, si_code: int, pkey: int = 0
) -> SigSegv | Fixup | Oops:
    """End a fault at a bad address: a signal, a fixup or an oops.

    Mirrors arch/x86/mm/fault.c:__bad_area_nosemaphore().
    """
    if not regs.user_mode:
        return kernelmode_fixup_or_oops(m, regs, error_code, address)
    if not error_code & X86_PF_USER:
        return page_fault_oops(m, regs, error_code, address)
    _step(m, "bad_area", SI_CODE_NAMES["SIGSEGV"][si_code])
    error_code = sanitize_error_code(_levels(m), address, error_code)
    message = show_signal_msg(m, regs, error_code, address)
    m.dmesg.append(message)
    return SigSegv(address, si_code, error_code, pkey, message)


def bad_area_access_error(
    m: Machine, regs: PtRegs, error_code: int, address: int, vma: VmAreaStruct
) -> SigSegv | Fixup | Oops:
    """End a fault that the VMA's rights, or its protection key, forbid.

    Mirrors arch/x86/mm/fault.c:bad_area_access_error().
    """
    key = error_code & X86_PF_PK or not arch_vma_access_permitted(
        vma, bool(error_code & X86_PF_WRITE), bool(error_code & X86_PF_INSTR)
    )
    if m.config.cpu_pku and key:
        pkey = vma.vm_flags >> VM_PKEY_SHIFT & 0xF
        return bad_area(m, regs, error_code, address, SEGV_PKUERR, pkey)
    return bad_area(m, regs, error_code, address, SEGV_ACCERR)


def do_sigbus(
    m: Machine, regs: PtRegs, error_code: int, address: int, fault: int
) -> SigBus | Fixup | Oops:
    """End a fault that the mapping's owner could not serve.

    Simplified: no line about a process that memory corruption kills.

    Mirrors arch/x86/mm/fault.c:do_sigbus().
    """
    if not regs.user_mode:
        return kernelmode_fixup_or_oops(m, regs, error_code, address)
    code = sanitize_error_code(_levels(m), address, error_code)
    poison = fault & (VM_FAULT_HWPOISON | VM_FAULT_HWPOISON_LARGE)
    _step(m, "do_sigbus", "BUS_MCEERR_AR" if poison else "BUS_ADRERR")
    return SigBus(address, BUS_MCEERR_AR if poison else BUS_ADRERR, code)


def _levels(m: Machine) -> int:
    mm: MmStruct | None = getattr(m.current, "mm", None)
    return mm.levels if mm is not None else pg.pgtable_levels(m)


def do_kern_addr_fault(m: Machine, regs: PtRegs, hw_error_code: int, address: int) -> Outcome:
    """Fault at a kernel address: spurious, or bad.

    Mirrors arch/x86/mm/fault.c:do_kern_addr_fault().
    """
    if hw_error_code & X86_PF_PK:
        _step(m, "do_kern_addr_fault", "WARN: protection key")
    if spurious_kernel_fault(m, hw_error_code, address):
        _step(m, "do_kern_addr_fault", "spurious")
        return Handled()
    _step(m, "do_kern_addr_fault", "bad area")
    return bad_area(m, regs, hw_error_code, address, SEGV_MAPERR)


def _refuse_user_fault(
    m: Machine, task: TaskStruct | None, regs: PtRegs, error_code: int, address: int
) -> Outcome | None:
    """The checks at the head of do_user_addr_fault(), in its order; None: go on."""
    fn = "do_user_addr_fault"
    if error_code & (X86_PF_USER | X86_PF_INSTR) == X86_PF_INSTR:
        _step(m, fn, "kernel executes user memory")
        return page_fault_oops(m, regs, error_code, address)
    if error_code & X86_PF_RSVD:
        _step(m, fn, "reserved bit: pgtable_bad")
        line = (
            f"{getattr(m.current, 'comm', 'swapper')}: Corrupted page table at address {address:x}"
        )
        m.dmesg.append(line)
        mm = getattr(task, "mm", None)
        lines = (line, dump_pagetable(mm, address)) if mm is not None else (line,)
        return Oops(address, error_code, lines)
    if not error_code & X86_PF_USER and not regs.flags & X86_EFLAGS_AC:
        _step(m, fn, "SMAP violation")
        return page_fault_oops(m, regs, error_code, address)
    if task is None or task.mm is None or task.pagefault_disabled:
        _step(m, fn, "no mm or page faults disabled")
        return bad_area(m, regs, error_code, address, SEGV_MAPERR)
    if not regs.flags & X86_EFLAGS_IF:
        _step(m, fn, "interrupts off")
        return bad_area(m, regs, error_code, address, SEGV_MAPERR)
    return None


def do_user_addr_fault(m: Machine, regs: PtRegs, error_code: int, address: int) -> Outcome:
    """Fault at an address that user space can have.

    Mirrors arch/x86/mm/fault.c:do_user_addr_fault().
    """
    task: TaskStruct | None = m.current if hasattr(m.current, "mm") else None
    refused = _refuse_user_fault(m, task, regs, error_code, address)
    if refused is not None:
        return refused
    assert task is not None and task.mm is not None
    mm = task.mm
    flags = FAULT_FLAG_DEFAULT
    if error_code & (X86_PF_SHSTK | X86_PF_WRITE):
        flags |= FAULT_FLAG_WRITE
    if error_code & X86_PF_INSTR:
        flags |= FAULT_FLAG_INSTRUCTION
    if regs.user_mode:
        flags |= FAULT_FLAG_USER
    if is_vsyscall_vaddr(address) and emulate_vsyscall(m, error_code, regs, address):
        _step(m, "do_user_addr_fault", "vsyscall emulated")
        return Handled()
    if flags & FAULT_FLAG_USER:
        vma = memory.lock_vma_under_rcu(m, mm, address)
        if vma is not None:
            if access_error(error_code, vma):
                _step(m, "access_error", "yes", "vma")
                vma_end_read(vma)
                m.vma_lock_event["vma_lock_success"] += 1
                return bad_area_access_error(m, regs, error_code, address, vma)
            _step(m, "access_error", "no", "vma")
            fault = memory.handle_mm_fault(vma, address, flags | FAULT_FLAG_VMA_LOCK, regs)
            if not fault & (VM_FAULT_RETRY | VM_FAULT_COMPLETED):
                vma_end_read(vma)
            if not fault & VM_FAULT_RETRY:
                m.vma_lock_event["vma_lock_success"] += 1
                return _fault_done(m, regs, error_code, address, fault)
            m.vma_lock_event["vma_lock_retry"] += 1
            if fault & VM_FAULT_MAJOR:
                flags |= FAULT_FLAG_TRIED
            if fault_signal_pending(task, fault, regs):
                return _interrupted(m, regs, error_code, address)
    return _fault_under_mmap_lock(m, task, regs, error_code, address, flags)


def _fault_under_mmap_lock(
    m: Machine, task: TaskStruct, regs: PtRegs, error_code: int, address: int, flags: int
) -> Outcome:
    """The slow way of do_user_addr_fault(): from its label ``lock_mmap`` on."""
    mm = task.mm
    assert mm is not None
    memory.race_point(m, "lock_mmap")
    while True:
        vma = memory.lock_mm_and_find_vma(mm, address, regs)
        if vma is None:
            _step(m, "lock_mm_and_find_vma", "no vma")
            return bad_area(m, regs, error_code, address, SEGV_MAPERR)
        _step(m, "lock_mm_and_find_vma", "ok", "mmap_lock:r")
        if access_error(error_code, vma):
            _step(m, "access_error", "yes", "mmap_lock:r")
            mmap_read_unlock(mm)
            return bad_area_access_error(m, regs, error_code, address, vma)
        _step(m, "access_error", "no", "mmap_lock:r")
        fault = memory.handle_mm_fault(vma, address, flags, regs)
        if fault_signal_pending(task, fault, regs):
            return _interrupted(m, regs, error_code, address)
        if fault & VM_FAULT_COMPLETED:
            return Handled()
        if fault & VM_FAULT_RETRY:
            flags |= FAULT_FLAG_TRIED
            continue
        mmap_read_unlock(mm)
        return _fault_done(m, regs, error_code, address, fault)


def fault_signal_pending(task: TaskStruct, fault: int, regs: PtRegs) -> bool:
    """Tell whether a fault that must be retried should give up for a signal.

    Mirrors include/linux/sched/signal.h:fault_signal_pending().
    """
    if not fault & VM_FAULT_RETRY:
        return False
    return task.fatal_signal or (regs.user_mode and task.signal_pending)


def _interrupted(m: Machine, regs: PtRegs, error_code: int, address: int) -> Outcome:
    if not regs.user_mode:
        return kernelmode_fixup_or_oops(m, regs, error_code, address)
    return Interrupted(address)


def _fault_done(m: Machine, regs: PtRegs, error_code: int, address: int, fault: int) -> Outcome:
    """What do_user_addr_fault() does at its label ``done``."""
    if not fault & VM_FAULT_ERROR:
        return Handled()
    if fault & VM_FAULT_OOM:
        if not regs.user_mode:
            return kernelmode_fixup_or_oops(m, regs, error_code, address)
        _step(m, "pagefault_out_of_memory", "")
        return OutOfMemory(address)
    if fault & (VM_FAULT_SIGBUS | VM_FAULT_HWPOISON | VM_FAULT_HWPOISON_LARGE):
        return do_sigbus(m, regs, error_code, address, fault)
    if fault & VM_FAULT_SIGSEGV:
        return bad_area(m, regs, error_code, address, SEGV_MAPERR)
    raise KernelBug(f"fault result {fault:#x} that do_user_addr_fault() does not know")


def emulate_vsyscall(m: Machine, error_code: int, regs: PtRegs, address: int) -> bool:
    """Tell whether a call into the vsyscall page is carried out: with vsyscall=xonly, not with none.

    Simplified: the system call itself is not made, nor its arguments or stack looked at. A call of no
    entry ends as a fault with no mapping; the kernel forces SIGSEGV here.

    Mirrors arch/x86/entry/vsyscall/vsyscall_64.c:emulate_vsyscall().
    """
    if error_code & (X86_PF_WRITE | X86_PF_USER) != X86_PF_USER or address != regs.ip:
        return False
    if m.config.vsyscall == "none":
        return False
    return address & 0x3FF == 0 and (address - VSYSCALL_ADDR) >> 10 < 3


def exc_page_fault(m: Machine, regs: PtRegs, error_code: int, address: int) -> Outcome:
    """Handle #PF: CR2 is @address.

    Mirrors arch/x86/mm/fault.c:exc_page_fault().
    """
    if m.trace.on:
        kind = "user" if regs.user_mode else "kernel"
        m.trace.emit(f"exceptions:page_fault_{kind}", address, regs.ip, error_code)
    if fault_in_kernel_space(_levels(m), address):
        _step(m, "exc_page_fault", "kernel address")
        return do_kern_addr_fault(m, regs, error_code, address)
    _step(m, "exc_page_fault", "user address")
    return do_user_addr_fault(m, regs, error_code, address)


def touch(
    m: Machine,
    address: int,
    kind: str = "r",
    user: bool = True,
    *,
    extable: bool = True,
    ip: int = 0,
) -> Translation | SigSegv | SigBus | Oops | Fixup | OutOfMemory | Interrupted | GeneralProtection:
    """Let the current task access @address: access, fault, access again until something is final.

    :param user: from user mode; else from the kernel, as copy_from_user() does
    :param extable: kernel code that is prepared for a fault; else a bad address is an oops
    :raises UsageError: if no task with an address space runs
    """
    task = m.current
    mm: MmStruct | None = getattr(task, "mm", None)
    if mm is None:
        raise UsageError("no task with an address space runs; spawn() one")
    regs = PtRegs(ip=address if kind == "x" else ip, user_mode=user, extable=extable)
    if not user and extable:
        regs.flags |= X86_EFLAGS_AC
    ac = bool(regs.flags & X86_EFLAGS_AC)
    for faults in range(64):
        result = access(m, mm, address, kind, user, ac=ac, pkru=task.pkru)
        if isinstance(result, Translation):
            if faults:
                return Translation(
                    result.address, result.phys, result.pfn, result.level, result.tlb_hit, faults
                )
            return result
        if isinstance(result, GeneralProtection):
            return result
        outcome = exc_page_fault(m, regs, result.error_code, result.address)
        if user:  # irqentry_exit_to_user_mode(): what was charged above memory.high is paid now
            memcontrol.resume_user_mode_work(m)
        if not isinstance(outcome, Handled):
            return outcome
        if is_vsyscall_vaddr(address):
            return Translation(address, 0, 0, 1)
    raise KernelBug(f"{kind} access to {address:#x} faults for ever")


# --- what the kernel prints -------------------------------------------------------------------


def dump_pagetable(mm: MmStruct | None, address: int) -> str:
    """Return the line with the entries on the way to @address, as far as they are present.

    Mirrors arch/x86/mm/fault.c:dump_pagetable().
    """
    if mm is None:
        return "BAD"
    text = ""
    table = mm.pgd
    for level in range(5, 0, -1):
        if level == 5 and mm.levels == 4:  # folded: the PGD entry is the P4D entry
            text += f"PGD {table[address >> 39 & 511]:x} "
            continue
        entry = table[address >> LEVEL_SHIFT[level] & 511]
        text += f"{pg.LEVEL_NAMES[level]} {entry:x}" + (" " if level > 1 else "")
        if level == 1 or not entry & _PAGE_PRESENT or (entry & _PAGE_PSE and level < 4):
            break
        table = mm.tables.tables[(entry & PTE_PFN_MASK) >> PAGE_SHIFT]
    return text


def show_fault_oops(m: Machine, regs: PtRegs, error_code: int, address: int) -> list[str]:
    """Return the first lines of an oops for a page fault.

    Simplified: the user is root; no descriptor tables after an implicit access from user mode, and no
    entry of a confidential guest's RMP table.

    Mirrors arch/x86/mm/fault.c:show_fault_oops().
    """
    mm: MmStruct | None = getattr(m.current, "mm", None) or m.init_mm
    lines = []
    if error_code & X86_PF_INSTR and mm is not None:
        steps = pg.walk(mm, address)
        leaf = steps[-1][2]
        if leaf & _PAGE_PRESENT:
            if any(entry & _PAGE_NX for _, _, entry in steps):
                lines.append(
                    "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)"
                )
            elif steps[0][2] & _PAGE_USER:
                lines.append("unable to execute userspace code (SMEP?) (uid: 0)")
    if address < PAGE_SIZE and not regs.user_mode:
        lines.append(f"BUG: kernel NULL pointer dereference, address: {address:016x}")
    else:
        lines.append(f"BUG: unable to handle page fault for address: {address:016x}")
    lines += describe_error_code(error_code, user_mode=regs.user_mode)
    lines.append(dump_pagetable(mm, address))
    return lines


def describe_error_code(error_code: int, *, user_mode: bool = False) -> list[str]:
    """Return the two ``#PF:`` lines of an oops for @error_code.

    :param user_mode: the processor was in user mode
    """
    who = "user" if error_code & X86_PF_USER else "supervisor"
    what = "instruction fetch" if error_code & X86_PF_INSTR else "read access"
    if error_code & X86_PF_WRITE and not error_code & X86_PF_INSTR:
        what = "write access"
    if not error_code & X86_PF_PROT:
        why = "not-present page"
    elif error_code & X86_PF_RSVD:
        why = "reserved bit violation"
    elif error_code & X86_PF_PK:
        why = "protection keys violation"
    elif error_code & X86_PF_RMP:
        why = "RMP violation"
    else:
        why = "permissions violation"
    return [
        f"#PF: {who} {what} in {'user' if user_mode else 'kernel'} mode",
        f"#PF: error_code(0x{error_code:04x}) - {why}",
    ]


def show_signal_msg(m: Machine, regs: PtRegs, error_code: int, address: int) -> str:
    """Return the line that a task's segmentation fault leaves in the log.

    Simplified: every CPU is a core of socket 0; no task handles the signal itself, the rate is not
    limited, and the line with the code bytes does not follow.

    Mirrors arch/x86/mm/fault.c:show_signal_msg().
    """
    task = m.current
    comm, pid = getattr(task, "comm", "swapper"), getattr(task, "pid", 0)
    text = f"{comm}[{pid}]: segfault at {address:x} ip {regs.ip:016x} sp {regs.sp:016x}"
    text += f" error {error_code:x}"
    text += _print_vma_addr(task, regs.ip)
    return f"{text} likely on CPU {m.this_cpu} (core {m.this_cpu}, socket 0)"


def show_signal(m: Machine, regs: PtRegs, desc: str, error_code: int = 0) -> str:
    """Return the line that another fatal exception leaves: ``traps: comm[pid] general protection ...``.

    Mirrors arch/x86/kernel/traps.c:show_signal().
    """
    task = m.current
    comm, pid = getattr(task, "comm", "swapper"), getattr(task, "pid", 0)
    text = f"traps: {comm}[{pid}] {desc} ip:{regs.ip:x} sp:{regs.sp:x} error:{error_code:x}"
    return text + _print_vma_addr(task, regs.ip)


def _print_vma_addr(task: TaskStruct, ip: int) -> str:
    """Return `` in file[offset,start+size]`` for the file that @ip is mapped from, or ""."""
    mm: MmStruct | None = getattr(task, "mm", None)
    vma = vma_.vma_lookup(mm, ip) if mm is not None else None
    if vma is None or vma.vm_file is None:
        return ""
    offset = ip - vma.vm_start + (vma.vm_pgoff << PAGE_SHIFT)
    name = vma.vm_file.f_mapping.name
    return f" in {name}[{offset:x},{vma.vm_start:x}+{vma.vm_end - vma.vm_start:x}]"


@dataclass(slots=True, frozen=True)
class SegfaultLine:
    """A ``segfault at`` line taken apart.

    :ivar file: name of the mapped file that the instruction is in, or ""
    :ivar offset: the instruction's offset in the file (since 6.8; else None)
    :ivar cpu: the CPU it ran on, or None
    """

    comm: str
    pid: int
    address: int
    ip: int
    sp: int
    error_code: int
    file: str = ""
    offset: int | None = None
    start: int | None = None
    size: int | None = None
    cpu: int | None = None

    @property
    def explanation(self) -> str:
        """What the error code says, in words."""
        e = self.error_code
        what = "instruction fetch" if e & X86_PF_INSTR else "write" if e & X86_PF_WRITE else "read"
        mode = "user" if e & X86_PF_USER else "kernel"
        why = "rights do not allow it" if e & X86_PF_PROT else "no page is mapped"
        if e & X86_PF_RSVD:
            why = "a reserved bit is set in a page table"
        elif e & X86_PF_PK:
            why = "the protection key forbids it"
        return f"{mode}-mode {what} at {self.address:#x}: {why}"


_SEGFAULT = re.compile(
    r"(?:\[ *\d+\.\d+\] *(?:\[[^\]]*\] *)?)?(?P<comm>.{1,64}?)\[(?P<pid>\d{1,10})\]: segfault at "
    r"(?P<address>[0-9a-f]{1,16}) ip (?P<ip>[0-9a-f]{1,16}) sp (?P<sp>[0-9a-f]{1,16}) "
    r"error (?P<error>[0-9a-f]{1,8})"
    r"(?: in (?P<file>[^\[]{0,256})\[(?:(?P<offset>[0-9a-f]{1,16}),)?"
    r"(?P<start>[0-9a-f]{1,16})\+(?P<size>[0-9a-f]{1,16})\])?"
    r"(?: likely on CPU (?P<cpu>\d{1,5}) \(core \d{1,9}, socket \d{1,9}\))?\s*"
)


def parse_segfault_line(text: str) -> SegfaultLine:
    """Take a ``comm[pid]: segfault at ...`` line of the kernel log apart.

    :raises ParseError: if the line is something else
    """
    if not isinstance(text, str):
        raise ParseError("segfault line", 1, repr(text), "not a text")
    found = _SEGFAULT.fullmatch(text.strip()[:1024])
    if found is None:
        raise ParseError("segfault line", 1, text, "not a segfault line")

    def number(name: str, base: int = 16) -> int | None:
        value = found.group(name)
        return None if value is None else int(value, base)

    return SegfaultLine(
        found["comm"],
        int(found["pid"]),
        int(found["address"], 16),
        int(found["ip"], 16),
        int(found["sp"], 16),
        int(found["error"], 16),
        found["file"] or "",
        number("offset"),
        number("start"),
        number("size"),
        number("cpu", 10),
    )


@dataclass(slots=True, frozen=True)
class OopsInfo:
    """What the first lines of a page fault oops say.

    :ivar entries: the page table entries printed, by level name, top first
    """

    address: int
    error_code: int
    null_pointer: bool
    entries: tuple[tuple[str, int], ...] = ()

    @property
    def decoded(self) -> list[str]:
        """The two ``#PF:`` lines that belong to the error code, for kernel mode."""
        return describe_error_code(self.error_code)


_BUG = re.compile(
    r"BUG: (?:(?P<null>kernel NULL pointer dereference), address|"
    r"unable to handle page fault for address): (?P<address>[0-9a-f]{1,16})"
)
_CODE = re.compile(r"#PF: error_code\(0x(?P<code>[0-9a-f]{1,8})\) - (?P<why>.+)")
_ENTRY = re.compile(r"\b(PGD|P4D|PUD|PMD|PTE) ([0-9a-f]{1,16})\b")


def parse_oops(text: str) -> OopsInfo:
    """Read address, error code and page table entries from the text of an oops.

    :raises ParseError: if it has no ``BUG:`` or no ``error_code`` line, or the two ``#PF`` lines
        contradict each other
    """
    if not isinstance(text, str):
        raise ParseError("oops", 1, repr(text), "not a text")
    bug = code = None
    entries: tuple[tuple[str, int], ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        bug = bug or _BUG.search(line)
        match = _CODE.search(line)
        if match and code is None:
            code = match
            value = int(match["code"], 16)
            expected = describe_error_code(value)[1].partition(" - ")[2]
            if match["why"].strip() != expected:
                raise ParseError("oops", number, line, f"error code {value:#x} is {expected}")
        if not entries and "PGD " in line:
            entries = tuple((name, int(v, 16)) for name, v in _ENTRY.findall(line))
    if bug is None:
        raise ParseError("oops", 1, text.partition("\n")[0], "no BUG: line of a page fault")
    if code is None:
        raise ParseError("oops", 1, text.partition("\n")[0], "no #PF: error_code line")
    return OopsInfo(
        int(bug["address"], 16), int(code["code"], 16), bug["null"] is not None, entries
    )


__all__ = [
    "Fixup",
    "GeneralProtection",
    "Handled",
    "HwTranslation",
    "Interrupted",
    "Oops",
    "OopsInfo",
    "OutOfMemory",
    "Outcome",
    "PageFault",
    "PtRegs",
    "ReservedBit",
    "SegfaultLine",
    "SigBus",
    "SigSegv",
    "Translation",
    *[n for n in list(globals()) if n.startswith(("X86_", "SEGV_", "BUS_", "SI_CODE"))],
    "VSYSCALL_ADDR",
    "access",
    "access_error",
    "arch_vma_access_permitted",
    "bad_area",
    "describe_error_code",
    "do_kern_addr_fault",
    "do_user_addr_fault",
    "dump_pagetable",
    "exc_page_fault",
    "fault_in_kernel_space",
    "hardware_walk",
    "parse_oops",
    "parse_segfault_line",
    "pf_error_str",
    "sanitize_error_code",
    "show_fault_oops",
    "show_signal",
    "show_signal_msg",
    "spurious_kernel_fault",
    "touch",
]
