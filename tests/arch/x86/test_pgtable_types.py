"""Page table entries: bits, constructors, decoder."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.arch.x86 import pgtable_types as pt
from mmcore.arch.x86.pgtable_types import *
from mmcore.errors import UsageError
from mmcore.kernel.fork import mm_alloc
from mmcore.mm import swapops
from mmcore.mm.mm import VM_EXEC, VM_READ, VM_SHADOW_STACK, VM_SHARED, VM_WRITE, VmAreaStruct

PFN = st.integers(0, (1 << 40) - 1)
PROTS = st.sampled_from([PAGE_NONE, PAGE_SHARED, PAGE_READONLY, PAGE_COPY_EXEC, PAGE_SHARED_EXEC])
fast = settings(max_examples=150, deadline=None, derandomize=True)


def vma(flags: int) -> VmAreaStruct:
    return VmAreaStruct(0, 4096, mm_alloc(None), flags)


def test_bits_are_where_the_processor_and_the_kernel_have_them():
    bits = [_PAGE_PRESENT, _PAGE_RW, _PAGE_USER, _PAGE_PWT, _PAGE_PCD, _PAGE_ACCESSED, _PAGE_DIRTY]
    assert bits == [1 << b for b in range(7)]
    assert (_PAGE_PSE, _PAGE_GLOBAL, _PAGE_SPECIAL, _PAGE_UFFD_WP) == (128, 256, 512, 1024)
    assert (_PAGE_SOFT_DIRTY, _PAGE_PAT_LARGE) == (2048, 4096)
    assert (_PAGE_DEVMAP, _PAGE_SAVED_DIRTY, _PAGE_NX) == (1 << 57, 1 << 58, 1 << 63)
    assert pt._PAGE_PROTNONE == _PAGE_GLOBAL
    assert (_PAGE_TABLE, _KERNPG_TABLE) == (0x067, 0x063)
    assert (PAGE_KERNEL, PAGE_KERNEL_LARGE) == (0x8000000000000163, 0x80000000000001E3)


@pytest.mark.parametrize(
    ("flags", "prot"),
    [
        (0, PAGE_NONE),
        (VM_READ, 0x8000000000000025),
        (VM_READ | VM_WRITE, 0x8000000000000025),  # private and writable: read-only until copied
        (VM_WRITE, 0x8000000000000025),
        (VM_READ | VM_EXEC, 0x25),
        (VM_READ | VM_WRITE | VM_EXEC, 0x25),
        (VM_SHARED | VM_READ, 0x8000000000000025),
        (VM_SHARED | VM_READ | VM_WRITE, 0x8000000000000027),
        (VM_SHARED | VM_EXEC | VM_WRITE, 0x27),
        (VM_SHARED, PAGE_NONE),
    ],
)
def test_vm_get_page_prot(flags, prot):
    assert vm_get_page_prot(flags) == prot


def test_protection_keys_come_from_vm_flags():
    assert vm_get_page_prot(VM_READ | 5 << 32) == PAGE_READONLY | 5 << 59


def test_the_dirty_bit_moves_aside_when_an_entry_becomes_read_only():
    pte = pfn_pte(0x1234, PAGE_SHARED) | _PAGE_DIRTY
    ro = pte_wrprotect(pte)
    assert not ro & (_PAGE_RW | _PAGE_DIRTY) and ro & _PAGE_SAVED_DIRTY and pte_dirty(ro)
    back = pte_mkwrite(ro, vma(VM_WRITE))
    assert back == pte
    assert pte_mkclean(ro) & (_PAGE_DIRTY | _PAGE_SAVED_DIRTY) == 0
    assert pte_mkwrite(ro, vma(VM_WRITE | VM_SHADOW_STACK)) & 0x42 == 0x40


def test_mkdirty_of_a_read_only_entry_uses_the_saved_bit():
    pte = pte_mkdirty(pfn_pte(7, PAGE_READONLY))
    assert pte & _PAGE_SAVED_DIRTY and not pte & _PAGE_DIRTY and pte_soft_dirty(pte)


def test_an_entry_with_only_accessed_and_dirty_is_empty():
    assert pte_none(0x60) and pte_none(0) and not pte_none(0x61) and not pte_none(0x100)


@fast
@given(PFN, PROTS)
def test_pfn_round_trip_for_every_protection(pfn, prot):
    pte = pfn_pte(pfn, prot)
    assert pte_pfn(pte) == pfn and pte_present(pte)
    assert pte_protnone(pte) == (prot == PAGE_NONE)
    assert decode_pte(pte).pfn == pfn
    # L1TF: what the processor must not use has its high address bits set for low memory.
    if prot == PAGE_NONE and pfn < 1 << 39:
        assert pte >> 51 & 1


@fast
@given(PFN, PROTS, PROTS)
def test_pte_modify_keeps_the_page_and_comes_back(pfn, old, new):
    pte = pfn_pte(pfn, old) | _PAGE_SOFT_DIRTY
    there = pte_modify(pte, new)
    assert pte_pfn(there) == pfn and pte_soft_dirty(there)
    assert there & _PAGE_RW == new & _PAGE_RW and there & _PAGE_NX == new & _PAGE_NX
    back = pte_modify(there, old)
    assert back == pte


@fast
@given(PFN.map(lambda p: p & -512), PROTS)
def test_large_pages_keep_their_pfn(pfn, prot):
    assert pmd_pfn(pfn_pmd(pfn, prot | _PAGE_PSE)) == pfn
    gb = pfn & -(1 << 18)
    assert pud_pfn(pfn_pud(gb, prot | _PAGE_PSE)) == gb


@fast
@given(st.integers(0, 1000), PROTS)
def test_advance_steps_through_inverted_entries_too(n, prot):
    assert pte_pfn(pte_advance_pfn(pfn_pte(5000, prot), n)) == 5000 + n


@fast
@given(st.integers(0, 31), st.integers(0, (1 << 50) - 2))
def test_swap_entries_round_trip(kind, offset):
    """Any type and offset but the last slot of device 0, whose entry is all zeros: an empty one."""
    entry = swapops.swp_entry(kind, offset)
    pte = swapops.swp_entry_to_pte(entry)
    assert not pte & (_PAGE_PRESENT | pt._PAGE_PROTNONE | _PAGE_PSE)
    assert swapops.pte_to_swp_entry(pte) == entry
    for make, test, clear in (
        (pte_swp_mkexclusive, pte_swp_exclusive, pte_swp_clear_exclusive),
        (pte_swp_mksoft_dirty, pte_swp_soft_dirty, pte_swp_clear_soft_dirty),
        (pte_swp_mkuffd_wp, pte_swp_uffd_wp, pte_swp_clear_uffd_wp),
    ):
        marked = make(pte)
        assert test(marked) and not test(pte) and clear(marked) == pte
        assert swapops.pte_to_swp_entry(marked) == entry
    info = decode_pte(pte)
    assert (info.swp_type, info.swp_offset) == (kind, offset)


def test_a_swap_entry_by_hand():
    """Type 2, offset 0x1234: type in bits 59-63, the offset inverted in bits 9-58."""
    assert swapops.swp_entry_to_pte(swapops.swp_entry(2, 0x1234)) == 0x17FFFFFFFFDB9600


@pytest.mark.parametrize(
    ("pte", "kind"),
    [
        (0x8000000123456867, "page"),
        (0x8000000001234225, "page"),
        (0, "none"),
        (pfn_pte(5, PAGE_NONE), "prot_none"),
        (swapops.swp_entry_to_pte(swapops.swp_entry(0, 1)), "swap"),
        (swapops.swp_entry_to_pte(swapops.make_writable_migration_entry(0x99)), "migration"),
        (swapops.make_pte_marker(swapops.PTE_MARKER_UFFD_WP), "marker"),
        (swapops.swp_entry_to_pte(swapops.swp_entry(swapops.SWP_HWPOISON, 3)), "hwpoison"),
    ],
)
def test_decoder_names_the_kind(pte, kind):
    assert decode_pte(pte).kind == kind


def test_decoder_of_the_chapters_two_entries():
    written, zero = decode_pte(0x8000000123456867), decode_pte(0x8000000001234225)
    assert written.flags == ("P", "RW", "US", "A", "D", "SOFT_DIRTY", "NX")
    assert zero.flags == ("P", "US", "A", "SPECIAL", "NX")
    assert (written.pfn, zero.pfn) == (0x123456, 0x1234)
    assert str(zero) == "PTE 8000000001234225 page pfn=1234 P US A SPECIAL NX"


def test_decoder_by_level():
    assert decode_pte(0x3C01067, 4).kind == "table"
    large = decode_pte(0x80000000002001E3, 2)
    assert (large.kind, large.pfn, large.size) == ("page", 0x200, 2 << 20)
    assert decode_pte(0x80000000400001E3, 3).size == 1 << 30


@fast
@given(st.integers(0, (1 << 64) - 1), st.integers(1, 5))
def test_decoder_takes_any_entry_and_its_fields_do_not_overlap(value, level):
    info = decode_pte(value, level)
    end = -1
    for f in info.fields:
        assert f.lo > end and f.hi >= f.lo
        assert f.value == value >> f.lo & (1 << (f.hi - f.lo + 1)) - 1
        end = f.hi


@pytest.mark.parametrize("bad", [-1, 1 << 64, "800", None])
def test_decoder_refuses_what_is_no_entry(bad):
    with pytest.raises(UsageError, match="an entry is a number"):
        decode_pte(bad)


def test_decoder_refuses_a_level_that_does_not_exist():
    with pytest.raises(UsageError, match="level is 6"):
        decode_pte(0, 6)


@pytest.mark.parametrize(("kind", "offset"), [(32, 0), (-1, 0), (0, 1 << 50), (0, -1)])
def test_swp_entry_refuses_what_does_not_fit(kind, offset):
    with pytest.raises(UsageError):
        swapops.swp_entry(kind, offset)


def test_the_small_constructors():
    pte = pfn_pte(9, PAGE_SHARED) | _PAGE_DIRTY
    assert pte_exec(pte_mkexec(pte)) and not pte_exec(pte)
    assert pte_mkhuge(pte) == pte | _PAGE_PSE and pmd_leaf(pte_mkhuge(pte))
    wp = pte_mkuffd_wp(pte)
    assert pte_uffd_wp(wp) and not pte_write(wp) and wp & _PAGE_SAVED_DIRTY
    assert pte_clear_uffd_wp(wp) == pte_wrprotect(pte)
    assert pte_mkwrite_novma(wp) & (_PAGE_RW | _PAGE_SAVED_DIRTY) == _PAGE_RW | _PAGE_SAVED_DIRTY
    assert pte_flags(pte) | 9 << 12 == pte
    assert pte_young(pte) and not pte_young(pte_mkold(pte)) and pte_mkyoung(pte_mkold(pte)) == pte


def test_migration_entries_say_what_the_mapping_was():
    exclusive = swapops.make_readable_exclusive_migration_entry(7)
    for entry in (exclusive, swapops.make_readable_migration_entry(7)):
        assert swapops.is_migration_entry(entry)
        assert not swapops.is_writable_migration_entry(entry)
    assert swapops.is_writable_migration_entry(swapops.make_writable_migration_entry(7))
    assert swapops.swp_offset_pfn(exclusive) == 7 and swapops.non_swap_entry(exclusive)
    assert not swapops.non_swap_entry(swapops.swp_entry(26, 7))


def test_a_migration_entry_holds_a_and_d_above_the_frame_number():
    """MAX_PHYSMEM_BITS is 46 with four levels and 52 with five; young and dirty follow the pfn."""
    for levels, bits in ((4, 34), (5, 40)):
        entry = swapops.make_writable_migration_entry(0x99 | 3 << bits)
        info = decode_pte(swapops.swp_entry_to_pte(entry), levels=levels)
        assert (info.pfn, info.flags) == (0x99, ("YOUNG", "DIRTY"))
    assert (
        swapops.swp_offset_pfn(swapops.make_writable_migration_entry(7 | swapops.SWP_MIG_DIRTY))
        == 7
    )


def test_swap_types_are_numbered_as_the_kernel_was_configured():
    """32 types, the last ones not swap devices: 5 of them, or 9 with CONFIG_DEVICE_PRIVATE."""

    def kinds(**config):
        entries = [swapops.swp_entry_to_pte(swapops.swp_entry(t, 1)) for t in range(32)]
        return [decode_pte(entry, **config).kind for entry in entries]

    tail = ["hwpoison", "migration", "migration", "migration", "marker"]
    assert kinds() == ["swap"] * 27 + tail
    assert kinds(device_private=True) == ["swap"] * 23 + tail[:4] + ["device"] * 4 + tail[4:]
    assert swapops.MAX_SWAPFILES == swapops.SWP_HWPOISON == 27
    assert (swapops.SWP_MIGRATION_READ, swapops.SWP_PTE_MARKER) == (28, 31)
