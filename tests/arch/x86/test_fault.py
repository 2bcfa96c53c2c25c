"""The processor's error codes, the kernel's order of checks, and the per-VMA lock under races."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.arch.x86 import fault as f
from mmcore.arch.x86.fault import *
from mmcore.arch.x86.pgtable import (
    _PAGE_NX,
    PAGE_KERNEL,
    lookup_address,
    map_page,
    vm_get_page_prot,
)
from mmcore.config import Config
from mmcore.errors import KernelBug, ParseError, UsageError
from mmcore.kernel.fork import kernel_clone, mm_alloc, spawn
from mmcore.machine import Machine, bare_zone
from mmcore.mm import filemap, memory
from mmcore.mm.mm import *
from mmcore.mm.mmap import *

PG = 4096
A = 0x200000000000
ANON = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


def machine(pages: int = 4096, **config) -> Machine:
    m = bare_zone(pages).machine
    if config:
        m.config = Config(**config)
    m.transparent_hugepage_enabled = "never"
    spawn(m, "task")
    return m


def mapped(m: Machine, pages: int = 8, prot: int = PROT_READ | PROT_WRITE, addr: int = A) -> int:
    assert do_mmap(m.current.mm, None, addr, pages * PG, prot, ANON) == addr
    return addr


# --- the processor ----------------------------------------------------------------------------

USER, KERNEL = 0x25, 0x21
NX = 1 << 63


@pytest.mark.parametrize(
    ("entry_flags", "kind", "user", "error"),
    [
        (None, "r", True, 4),
        (None, "w", True, 6),
        (None, "x", True, 0x14),
        (None, "r", False, 0),
        (None, "w", False, 2),
        (None, "x", False, 0x10),  # the chapter's exercise: a bad function pointer in the kernel
        (USER | NX, "w", True, 7),  # the chapter's exercise: write to a present read-only page
        (USER | NX, "x", True, 0x15),
        (USER | NX, "w", False, 3),  # CR0.WP
        (KERNEL, "r", True, 5),
        (KERNEL | 2, "w", True, 7),
        (USER, "x", False, 0x11),  # SMEP
    ],
)
def test_error_codes_of_the_processor(entry_flags, kind, user, error):
    mm = mm_alloc(None)
    if entry_flags is not None:
        map_page(mm, A, 0x77, entry_flags)
    assert access(None, mm, A + 5, kind, user) == PageFault(A + 5, error)


@pytest.mark.parametrize(
    ("entry_flags", "kind", "user"),
    [(USER | NX, "r", True), (USER | 2, "w", True), (USER, "x", True), (KERNEL | 2, "w", False)],
)
def test_what_the_processor_allows(entry_flags, kind, user):
    mm = mm_alloc(None)
    map_page(mm, A, 0x77, entry_flags & ~0x20)
    result = access(None, mm, A + 5, kind, user)
    assert isinstance(result, Translation) and result.phys == 0x77005
    entry = lookup_address(mm, A)[0]
    assert entry[0][entry[1]] & 0x20, "the processor sets the accessed bit"
    assert bool(entry[0][entry[1]] & 0x40) == (kind == "w"), "and the dirty bit on a write"


def test_smap_forbids_the_kernel_user_pages_without_ac():
    mm = mm_alloc(None)
    map_page(mm, A, 0x77, USER | NX)
    assert access(None, mm, A, "r", False, ac=False) == PageFault(A, 1)


def test_rights_are_those_of_all_levels_together():
    mm = mm_alloc(None)
    map_page(mm, A, 0x77, USER | 2)
    pud = (mm.pgd, A >> 39)
    mm.pgd[pud[1]] &= ~2
    assert access(None, mm, A, "w") == PageFault(A, 7)
    mm.pgd[pud[1]] |= 2 | _PAGE_NX
    assert access(None, mm, A, "x") == PageFault(A, 0x15)
    mm.pgd[pud[1]] &= ~4
    assert access(None, mm, A, "r") == PageFault(A, 5)


@pytest.mark.parametrize("bit", [46, 51])
def test_reserved_bits_give_rsvd_and_prot(bit):
    mm = mm_alloc(None)
    map_page(mm, A, 0x77, USER)
    table, i = lookup_address(mm, A)[0]
    table[i] |= 1 << bit
    assert access(None, mm, A, "r") == PageFault(A, X86_PF_RSVD | X86_PF_PROT | X86_PF_USER)


def test_an_unaligned_large_page_has_reserved_bits():
    mm = mm_alloc(None)
    from mmcore.arch.x86.pgtable import map_range

    map_range(mm, 0, 0, 512, USER, level=2)
    table, i = lookup_address(mm, 0)[0]
    table[i] |= 1 << 13
    assert access(None, mm, 0, "r") == PageFault(0, 13)


def test_protection_keys():
    m = machine(cpu_pku=True)
    mm = m.current.mm
    map_page(mm, A, 0x77, vm_get_page_prot(VM_READ | VM_WRITE | VM_SHARED | 3 << 32))
    assert isinstance(access(m, mm, A, "r"), Translation)
    assert access(m, mm, A, "r", pkru=1 << 6) == PageFault(A, X86_PF_PK | 5)
    assert access(m, mm, A, "w", pkru=2 << 6) == PageFault(A, X86_PF_PK | 7)
    assert isinstance(access(m, mm, A, "r", pkru=2 << 6), Translation)
    assert isinstance(access(m, mm, A, "r", pkru=3), Translation)  # another key
    without = machine()
    map_page(without.current.mm, A, 0x77, vm_get_page_prot(VM_READ | 3 << 32))
    assert isinstance(access(without, without.current.mm, A, "r", pkru=1 << 6), Translation)


@pytest.mark.parametrize("address", [1 << 47, (1 << 64) - (1 << 47) - 1, 1 << 62])
def test_non_canonical_addresses_raise_gp_not_pf(address):
    m = machine()
    assert access(None, mm_alloc(None), address, "r") == GeneralProtection(address)
    assert touch(m, address) == GeneralProtection(address)


@pytest.mark.parametrize(
    ("address", "kind", "text"),
    [(-1, "r", "an address is"), (1 << 64, "r", "an address is"), (0, "q", "kind is 'q'")],
)
def test_misuse_is_named(address, kind, text):
    with pytest.raises(UsageError, match=text):
        access(None, mm_alloc(None), address, kind)


# --- the kernel -------------------------------------------------------------------------------


def handle(m: Machine, error_code: int, address: int, **regs):
    return exc_page_fault(m, PtRegs(**regs), error_code, address)


def test_order_of_checks_for_user_addresses():
    m = machine()
    mapped(m)
    kernel = dict(user_mode=False)
    # A kernel instruction fetch is an oops whatever else holds.
    assert isinstance(handle(m, X86_PF_INSTR | X86_PF_RSVD, A, **kernel), Oops)
    # Then reserved bits, before SMAP.
    bad = handle(m, X86_PF_RSVD | X86_PF_PROT, A, **kernel)
    assert isinstance(bad, Oops) and bad.lines[0] == (
        f"task: Corrupted page table at address {A:x}"
    )
    # Then SMAP: a kernel access without AC is an oops although an extable entry exists.
    assert isinstance(handle(m, 0, A, extable=True, **kernel), Oops)
    # Then page faults disabled.
    m.current.pagefault_disabled = 1
    fixed = handle(m, 0, A, extable=True, flags=f.X86_EFLAGS_IF | f.X86_EFLAGS_AC, **kernel)
    assert fixed == Fixup(A)
    m.current.pagefault_disabled = 0
    # Then interrupts off.
    assert isinstance(handle(m, X86_PF_USER, A, flags=0), SigSegv)
    assert handle(m, X86_PF_USER, A) == Handled()


def test_access_error_rules():
    m = machine()
    mm = m.current.mm
    ro = mapped(m, 1, PROT_READ)
    none = mapped(m, 1, PROT_NONE, A + 0x10000)
    rw = mapped(m, 1, addr=A + 0x20000)
    by = {a: mm.mm_mt.walk(a) for a in (ro, none, rw)}
    assert access_error(X86_PF_WRITE, by[ro]) and not access_error(X86_PF_WRITE, by[rw])
    assert access_error(0, by[none]) and not access_error(0, by[ro])
    assert access_error(X86_PF_PROT, by[rw]), "a read of something present that was refused"
    for bit in (X86_PF_PK, X86_PF_SGX):
        assert access_error(bit, by[rw])
    assert access_error(X86_PF_SHSTK, by[rw]), "not a shadow stack"
    by[rw].vm_flags |= VM_SHADOW_STACK
    assert not access_error(X86_PF_SHSTK, by[rw]) and access_error(X86_PF_WRITE, by[rw])


def test_si_codes():
    m = machine()
    mapped(m, 1, PROT_READ)
    hole = touch(m, A + 0x100000)
    assert (hole.si_code, hole.error_code) == (SEGV_MAPERR, 4)
    assert touch(m, A, "w").si_code == SEGV_ACCERR
    assert str(hole) == f"SIGSEGV (SEGV_MAPERR) at {A + 0x100000:#x}"


def test_protection_key_signal():
    m = machine(cpu_pku=True)
    mapped(m, 1)
    m.current.mm.mm_mt.walk(A).vm_flags |= 2 << VM_PKEY_SHIFT
    m.current.pkru = 1 << 4
    result = touch(m, A)
    assert (result.si_code, result.pkey) == (SEGV_PKUERR, 2)


def test_kernel_addresses_look_like_protection_faults_to_users():
    m = machine()
    result = touch(m, 0xFFFFC90000000000)
    assert (result.si_code, result.error_code) == (SEGV_MAPERR, 5)


def test_a_stale_kernel_entry_is_a_spurious_fault():
    m = machine()
    base = m.paging.layout.page_offset_base
    assert handle(m, X86_PF_WRITE | X86_PF_PROT, base, user_mode=False) == Handled()
    # Never for a page that is not present, or reads.
    assert isinstance(handle(m, X86_PF_WRITE, base, user_mode=False), (Oops, Fixup))
    assert isinstance(handle(m, X86_PF_PROT, base, user_mode=False), (Oops, Fixup))


def test_no_spurious_fault_where_the_pmd_takes_the_right_away():
    """The leaf allows the write, the entry above it does not: the tables are wrong, not the TLB."""
    m = machine()
    base = m.paging.layout.vmemmap_base + (1 << 30)
    map_page(m.init_mm, base, 5, PAGE_KERNEL)
    assert handle(m, X86_PF_WRITE | X86_PF_PROT, base, user_mode=False) == Handled()
    table, i = f.hardware_walk(m.init_mm, base).entries[-2]
    table[i] &= ~2
    assert isinstance(handle(m, X86_PF_WRITE | X86_PF_PROT, base, user_mode=False), (Oops, Fixup))


def test_vsyscall_is_called_but_not_read():
    refused = touch(machine(), VSYSCALL_ADDR, "x")  # the reference kernel: vsyscall=none
    assert isinstance(refused, SigSegv) and (refused.si_code, refused.error_code) == (1, 0x15)
    m = machine(vsyscall="xonly")
    assert isinstance(touch(m, VSYSCALL_ADDR, "x"), Translation)
    result = touch(m, VSYSCALL_ADDR, "r")
    assert isinstance(result, SigSegv) and result.error_code & X86_PF_PROT
    assert isinstance(touch(m, VSYSCALL_ADDR + 0xC00, "x"), SigSegv)


def test_no_task_no_touch():
    m = bare_zone(512).machine
    with pytest.raises(UsageError, match="spawn"):
        touch(m, 0)


def test_out_of_memory_is_not_enomem():
    m = machine(64)
    m.paging.sysctl_overcommit_memory = 1  # always
    mapped(m, 4096)
    results = [touch(m, A + i * PG, "w") for i in range(80)]
    assert isinstance(results[-1], OutOfMemory)
    memory.validate_mappings(m)


def test_the_tracepoints_of_a_fault():
    m = machine()
    mapped(m)
    with m.trace.record("exceptions:*") as log:
        touch(m, A, "r", ip=0x401000)
        touch(m, A, "w", user=False)
    assert [e.name for e in log] == ["exceptions:page_fault_user", "exceptions:page_fault_kernel"]
    assert log[0].fields == {"address": A, "ip": 0x401000, "error_code": 4}
    assert log[1].fields["error_code"] == 3


def test_the_steps_of_a_first_read_and_write():
    m = machine()
    mapped(m)
    with m.trace.record("model:fault_step") as log:
        touch(m, A, "r")
        touch(m, A, "w")
    steps = [(e.fields["function"], e.fields["step"], e.fields["lock"]) for e in log]
    assert steps == [
        ("exc_page_fault", "user address", ""),
        ("lock_vma_under_rcu", "ok", "vma"),
        ("access_error", "no", "vma"),
        ("handle_pte_fault", "none", "vma"),
        ("do_anonymous_page", "zero page", "vma+ptl"),
        ("handle_mm_fault", "0", ""),
        ("exc_page_fault", "user address", ""),
        ("lock_vma_under_rcu", "ok", "vma"),
        ("access_error", "no", "vma"),
        ("handle_pte_fault", "wp", "vma+ptl"),
        ("do_wp_page", "copy (zero page)", "vma+ptl"),
        ("__vmf_anon_prepare", "new anon_vma", "vma"),
        ("wp_page_copy", "copied", "vma+ptl"),
        ("handle_mm_fault", "0", ""),
    ]


# --- the per-VMA lock -------------------------------------------------------------------------


def counters(m: Machine) -> tuple[int, ...]:
    return tuple(m.vma_lock_event[k] for k in VMA_LOCK_EVENTS)  # success, abort, retry, miss


def test_an_undisturbed_fault_takes_only_the_vma_lock():
    m = machine()
    mapped(m)
    touch(m, A)
    assert counters(m) == (1, 0, 0, 0)
    assert m.current.mm.mmap_lock.readers == 0


def test_kernel_mode_faults_never_use_the_vma_lock():
    m = machine()
    mapped(m)
    touch(m, A, "w", user=False)
    assert counters(m) == (0, 0, 0, 0)


def test_without_per_vma_locks_everything_takes_mmap_lock():
    m = machine(PER_VMA_LOCK=False)
    mapped(m)
    with m.trace.record("model:fault_step") as log:
        touch(m, A)
    assert ("lock_mm_and_find_vma", "ok", "mmap_lock:r") in [tuple(e.values) for e in log]


def test_a_writer_that_marked_the_vma_makes_the_reader_fall_back():
    m = machine()
    mapped(m)
    mm = m.current.mm
    vma = mm.mm_mt.walk(A)

    def writer_begins():
        mmap_write_lock(mm)
        vma_start_write(vma)

    def writer_ends():
        mmap_write_unlock(mm)

    m.race_points["mas_walk"] = [writer_begins]
    m.race_points["lock_mmap"] = [writer_ends]
    assert isinstance(touch(m, A, "w"), Translation)
    assert counters(m) == (0, 1, 0, 0)
    assert vma.vm_lock_seq != mm.mm_lock_seq, "unlocked, with the sequence moved on"


def test_a_vma_that_was_replaced_is_looked_up_again():
    m = machine()
    mapped(m)
    mm = m.current.mm
    old = mm.mm_mt.walk(A)

    def replace():
        assert do_munmap(mm, A, 8 * PG) == 0
        mapped(m)

    m.race_points["mas_walk"] = [replace]
    assert isinstance(touch(m, A, "w"), Translation)
    assert counters(m) == (1, 0, 0, 1)
    assert old.detached and mm.mm_mt.walk(A) is not old


def test_a_vma_that_shrank_before_it_was_locked():
    m = machine()
    mapped(m)
    mm = m.current.mm
    m.race_points["mas_walk"] = [lambda: do_munmap(mm, A + 4 * PG, 4 * PG)]
    result = touch(m, A + 5 * PG, "w")
    assert isinstance(result, SigSegv) and counters(m)[1] == 1


def test_two_threads_fault_on_one_page():
    m = machine()
    mapped(m)
    a = m.current
    b = kernel_clone(a, vm=True)

    def other():
        m.current = b
        assert isinstance(touch(m, A, "w"), Translation)
        m.current = a

    m.race_points["pte_offset_map_lock"] = [other]
    before = m.current.mm.rss_stat[MM_ANONPAGES]
    assert isinstance(touch(m, A, "w"), Translation)
    assert m.current.mm.rss_stat[MM_ANONPAGES] - before == 1, "the loser frees its page"
    assert (a.min_flt, b.min_flt) == (1, 1)
    memory.validate_mappings(m)


def test_mappings_whose_owner_needs_mmap_lock_retry():
    m = machine()
    file = filemap.File(filemap.AddressSpace(4 * PG, "f"))
    filemap.populate(m, file.f_mapping, 0, 4)
    mm = m.current.mm
    assert do_mmap(mm, file, A, 4 * PG, PROT_READ, MAP_PRIVATE | MAP_FIXED) == A
    vma = mm.mm_mt.walk(A)
    vma.vm_ops = VmOperationsStruct(fault=filemap.filemap_fault)  # no ->map_pages
    assert isinstance(touch(m, A), Translation)
    assert counters(m) == (0, 0, 1, 0)
    assert (m.current.min_flt, m.current.maj_flt) == (1, 0), "a retry without I/O is not major"


def test_stack_growth_goes_the_slow_way():
    m = machine()
    top = 0x7FFFFFFFF000 - (1 << 30)
    flags = ANON | MAP_GROWSDOWN
    assert do_mmap(m.current.mm, None, top - 4 * PG, 4 * PG, 3, flags) == top - 4 * PG
    assert isinstance(touch(m, top - 20 * PG, "w"), Translation)
    vma = m.current.mm.mm_mt.walk(top - 1)
    assert vma.vm_start == top - 20 * PG and counters(m) == (0, 1, 0, 0)
    # Not into the 256 pages above a neighbour.
    mapped(m, 1, addr=top - 400 * PG)
    assert isinstance(touch(m, top - 200 * PG, "w"), SigSegv)


def test_a_major_fault_retries_and_counts_once():
    m = machine()
    file = filemap.File(filemap.AddressSpace(64 * PG, "f"))
    assert do_mmap(m.current.mm, file, A, 64 * PG, PROT_READ, MAP_SHARED | MAP_FIXED) == A
    from mmcore.mm.vmstat import PGFAULT, PGMAJFAULT

    before = m.vm_event[PGFAULT], m.vm_event[PGMAJFAULT]
    assert isinstance(touch(m, A), Translation)
    assert counters(m) == (0, 0, 1, 0)
    assert (m.current.min_flt, m.current.maj_flt) == (0, 1)
    assert (m.vm_event[PGFAULT], m.vm_event[PGMAJFAULT]) == (before[0] + 1, before[1] + 1)


def test_a_pending_fatal_signal_ends_the_retry():
    m = machine()
    file = filemap.File(filemap.AddressSpace(64 * PG, "f"))
    assert do_mmap(m.current.mm, file, A, 64 * PG, PROT_READ, MAP_SHARED | MAP_FIXED) == A
    m.current.fatal_signal = True
    assert touch(m, A) == Interrupted(A)
    assert m.current.mm.mmap_lock.readers == 0
    assert m.current.mm.mm_mt.walk(A).vm_lock.readers == 0


# --- texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        (0x0010, ("supervisor instruction fetch in kernel mode", "not-present page")),
        (0x0002, ("supervisor write access in kernel mode", "not-present page")),
        (0x0003, ("supervisor write access in kernel mode", "permissions violation")),
        (0x0009, ("supervisor read access in kernel mode", "reserved bit violation")),
        (0x0025, ("user read access in kernel mode", "protection keys violation")),
        (0x80000001, ("supervisor read access in kernel mode", "RMP violation")),
    ],
)
def test_error_codes_in_words(code, lines):
    assert describe_error_code(code) == [
        f"#PF: {lines[0]}",
        f"#PF: error_code(0x{code:04x}) - {lines[1]}",
    ]


def test_an_oops_of_the_model_reads_back():
    m = machine()
    oops = touch(m, 0x8, "w", user=False, extable=False)
    info = parse_oops("\n".join(oops.lines))
    assert (info.address, info.error_code, info.null_pointer) == (8, 2, True)
    assert [name for name, _ in info.entries] == ["PGD", "P4D"]
    assert oops.lines[-1] == "CR2: 0000000000000008"
    m2 = machine()
    nx = touch(m2, m2.paging.layout.page_offset_base, "x", user=False, extable=False)
    assert nx.lines[0].startswith("kernel tried to execute NX-protected page")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=200), st.binary(max_size=100).map(lambda b: b.decode("latin-1"))))
def test_the_parsers_take_any_text(text):
    for parse in (parse_segfault_line, parse_oops):
        try:
            parse(text)
        except ParseError as error:
            assert str(error)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 16) - 1),
    st.sampled_from(["a", "sh", "my prog [x]", "segv-test"]),
)
def test_segfault_lines_round_trip(address, ip, error, comm):
    m = _shared()
    m.current.comm = comm
    line = show_signal_msg(m, PtRegs(ip, 0x7FFE00000000), error, address)
    parsed = parse_segfault_line("[  123.456789] " + line)
    assert (parsed.comm, parsed.address, parsed.ip, parsed.error_code) == (comm, address, ip, error)


_M: list[Machine] = []


def _shared() -> Machine:
    if not _M:
        _M.append(machine())
    return _M[0]


@pytest.mark.parametrize(
    "text",
    ["", "x[1]: segfault at zz ip 0 sp 0 error 4", "BUG: kernel NULL pointer dereference", b"x"],
)
def test_broken_lines_are_named(text):
    with pytest.raises(ParseError):
        parse_segfault_line(text)
    with pytest.raises(ParseError):
        parse_oops(text)


def test_an_oops_whose_lines_contradict_each_other():
    text = "BUG: unable to handle page fault for address: 0000000000000008\n"
    text += "#PF: error_code(0x0000) - permissions violation\n"
    with pytest.raises(ParseError, match="error code 0x0 is not-present page"):
        parse_oops(text)


def test_a_lock_misuse_is_a_bug():
    m = machine()
    mm = m.current.mm
    mapped(m)
    vma = mm.mm_mt.walk(A)
    with pytest.raises(KernelBug, match="mmap_lock held for writing"):
        vma_start_write(vma)
    mmap_write_lock(mm)
    with pytest.raises(KernelBug, match="would wait"):
        mmap_read_lock(mm)
    assert not mmap_read_trylock(mm)
    assert do_munmap(mm, vma.vm_start, vma.vm_end - vma.vm_start) == 0
    mmap_write_unlock(mm)
    assert vma.detached and PAGE_KERNEL
