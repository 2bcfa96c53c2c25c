"""The kernel's address space: the constants of mm.rst, and what KASLR may do with them."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.arch.x86 import kaslr
from mmcore.arch.x86.kaslr import find_random_virt_addr, kernel_randomize_memory, memory_layout
from mmcore.arch.x86.pgtable import walk
from mmcore.errors import UsageError
from mmcore.kernel.fork import mm_alloc
from mmcore.machine import Machine

#: Documentation/arch/x86/x86_64/mm.rst, both tables (the image and modules as RANDOMIZE_BASE has them).
L4 = {
    "user space": (0x0000000000000000, 0x00007FFFFFFFFFFF),
    "guard hole, for hypervisors": (0xFFFF800000000000, 0xFFFF87FFFFFFFFFF),
    "LDT remap for PTI": (0xFFFF880000000000, 0xFFFF887FFFFFFFFF),
    "direct map": (0xFFFF888000000000, 0xFFFFC87FFFFFFFFF),
    "vmalloc": (0xFFFFC90000000000, 0xFFFFE8FFFFFFFFFF),
    "memory map (struct page)": (0xFFFFEA0000000000, 0xFFFFEAFFFFFFFFFF),
    "KASAN shadow": (0xFFFFEC0000000000, 0xFFFFFBFFFFFFFFFF),
    "cpu_entry_area": (0xFFFFFE0000000000, 0xFFFFFE7FFFFFFFFF),
    "espfix stacks": (0xFFFFFF0000000000, 0xFFFFFF7FFFFFFFFF),
    "EFI runtime services": (0xFFFFFFEF00000000, 0xFFFFFFFEFFFFFFFF),
    "kernel image": (0xFFFFFFFF80000000, 0xFFFFFFFFBFFFFFFF),
    "modules": (0xFFFFFFFFC0000000, 0xFFFFFFFFFEFFFFFF),
    "vsyscall": (0xFFFFFFFFFF600000, 0xFFFFFFFFFF600FFF),
}
L5 = {
    "user space": (0x0000000000000000, 0x00FFFFFFFFFFFFFF),
    "guard hole, for hypervisors": (0xFF00000000000000, 0xFF0FFFFFFFFFFFFF),
    "LDT remap for PTI": (0xFF10000000000000, 0xFF10FFFFFFFFFFFF),
    "direct map": (0xFF11000000000000, 0xFF90FFFFFFFFFFFF),
    "vmalloc": (0xFFA0000000000000, 0xFFD1FFFFFFFFFFFF),
    "KASAN shadow": (0xFFDF000000000000, 0xFFFFFBFFFFFFFFFF),
}


@pytest.mark.parametrize(("levels", "table"), [(4, L4), (5, L5)])
def test_regions_are_those_of_the_documentation(levels, table):
    regions = {r.name: (r.start, r.end) for r in memory_layout(levels)}
    assert {name: regions[name] for name in table} == table


@pytest.mark.parametrize("levels", [4, 5])
def test_regions_are_in_order_and_apart(levels):
    regions = memory_layout(levels)
    for a, b in itertools.pairwise(regions):
        assert a.end < b.start, f"{a.name} and {b.name}"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 10**9), st.sampled_from([4, 5]))
def test_kaslr_keeps_order_and_alignment(seed, levels):
    layout = kernel_randomize_memory(random.Random(seed), levels)
    start = kaslr.kernel_layout(levels).page_offset_base
    assert start <= layout.page_offset_base < layout.vmalloc_base < layout.vmemmap_base
    assert layout.vmemmap_base < kaslr.CPU_ENTRY_AREA_BASE
    for base in (layout.page_offset_base, layout.vmalloc_base, layout.vmemmap_base):
        assert base % (1 << 30) == 0
    regions = memory_layout(levels, layout)
    for a, b in itertools.pairwise(regions):
        assert a.end < b.start, f"{a.name} and {b.name}"


def test_the_same_seed_moves_the_same_way():
    a = kernel_randomize_memory(Machine(seed=7).rng("aslr"))
    b = kernel_randomize_memory(Machine(seed=7).rng("aslr"))
    c = kernel_randomize_memory(Machine(seed=8).rng("aslr"))
    assert a == b != c


def test_without_zone_device_small_memory_leaves_more_room():
    class Largest(random.Random):
        def getrandbits(self, k):
            return (1 << k) - 1

    spread = [
        kernel_randomize_memory(Largest(), 4, 1 << 18, zone_device=z).physmem_end for z in (1, 0)
    ]
    assert spread == [(64 << 40) - 1, (11 << 40) - 1]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_the_image_moves_in_steps_of_2_mib_inside_1_gib(seed):
    size = 0x2C11000
    at = find_random_virt_addr(random.Random(seed), size)
    assert at % 0x200000 == 0 and 0x1000000 <= at <= (1 << 30) - size


@pytest.mark.parametrize("size", [0, -1, 1 << 30])
def test_an_impossible_image_is_refused(size):
    with pytest.raises(UsageError, match="does not fit"):
        find_random_virt_addr(random.Random(1), size)


def test_pa_and_va():
    m = Machine.boot("1G")
    mm_alloc(m)
    assert kaslr.va(m, 0x1234000) == 0xFFFF888001234000
    assert kaslr.pa(m, 0xFFFF888001234000) == 0x1234000
    assert kaslr.pa(m, 0xFFFFFFFF81000000) == 0x1000000
    with pytest.raises(UsageError, match="not in the direct map"):
        kaslr.pa(m, 0xFFFFC90000000000)
    with pytest.raises(UsageError, match="beyond the direct map"):
        kaslr.va(m, 1 << 46)


def test_kaslr_moves_the_direct_map_in_the_tables():
    m = Machine.boot("1G", seed=3)
    m.paging.layout = kernel_randomize_memory(m.rng("aslr"))
    mm = mm_alloc(m)
    va = kaslr.va(m, 0x200000)
    assert va != 0xFFFF888000200000
    assert walk(mm, va)[-1][2] == 0x80000000002001E3


@pytest.mark.parametrize("levels", [3, 6])
def test_levels(levels):
    with pytest.raises(UsageError, match="4 or 5"):
        memory_layout(levels)
