"""VMAs: splitting, locking, moving; and the checker."""

from __future__ import annotations

import pytest

from mmcore.arch.x86.fault import Translation, touch
from mmcore.errors import EFAULT, EINVAL, ENOMEM, KernelBug
from mmcore.kernel.fork import mm_alloc, spawn
from mmcore.machine import Machine, bare_zone
from mmcore.mm import rmap
from mmcore.mm import vma as vma_
from mmcore.mm.filemap import AddressSpace, File
from mmcore.mm.memory import validate_mappings
from mmcore.mm.mlock import do_mlock, do_munlock
from mmcore.mm.mm import (
    VM_DONTEXPAND,
    VM_IO,
    VM_LOCKED,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_MIXEDMAP,
    VM_PFNMAP,
    VM_READ,
    VM_SOFTDIRTY,
    VM_WRITE,
    AnonVma,
    AnonVmaChain,
    VmAreaStruct,
    VmOperationsStruct,
    mmap_write_lock,
    mmap_write_unlock,
)
from mmcore.mm.mmap import *
from mmcore.mm.mprotect import do_mprotect
from mmcore.mm.mremap import sys_mremap
from mmcore.mm.vma import validate_mm

PG = 4096
A = 0x200000000000


@pytest.fixture
def m() -> Machine:
    machine = bare_zone(2048).machine
    machine.transparent_hugepage_enabled = "never"
    spawn(machine, "t")
    assert do_mmap(machine.current.mm, None, A, 8 * PG, 3, 0x32) == A
    return machine


def ranges(m: Machine) -> list[tuple[int, int]]:
    return [((v.vm_start - A) // PG, (v.vm_end - A) // PG) for v in m.current.mm.mm_mt]


def test_munmap_in_the_middle_makes_two(m):
    assert do_munmap(m.current.mm, A + 2 * PG, 3 * PG) == 0
    assert ranges(m) == [(0, 2), (5, 8)]
    assert [v.vm_pgoff - A // PG for v in m.current.mm.mm_mt] == [0, 5]
    assert m.current.mm.total_vm == 5
    validate_mm(m.current.mm)


def test_mprotect_splits_and_refuses_holes(m):
    mm = m.current.mm
    assert do_mprotect(mm, A + PG, PG, 1) == 0 and ranges(m) == [(0, 1), (1, 2), (2, 8)]
    assert do_mprotect(mm, A + 7 * PG, 2 * PG, 1) == -ENOMEM
    assert do_mprotect(mm, A + 1, PG, 1) == -EINVAL
    assert do_mprotect(mm, A, PG, 16) == -EINVAL
    assert do_mprotect(mm, A, 0, 1) == 0
    validate_mm(mm)


def test_split_errors(m):
    vma = m.current.mm.mm_mt.walk(A)
    mmap_write_lock(m.current.mm)
    with pytest.raises(KernelBug, match="cannot be split"):
        vma_.split_vma(vma, A, True)
    m.paging.sysctl_max_map_count = 1
    assert vma_.split_vma(vma, A + PG, True) == -ENOMEM
    mmap_write_unlock(m.current.mm)


def test_mlock_faults_in_and_counts(m):
    mm = m.current.mm
    assert do_mlock(mm, A + 2 * PG + 100, PG) == 0, "rounded to whole pages"
    assert mm.locked_vm == 2 and ranges(m) == [(0, 2), (2, 4), (4, 8)]
    assert touch(m, A + 2 * PG, "w").faults == 0
    assert mm.mm_mt.walk(A + 2 * PG).vm_flags & VM_LOCKED
    assert do_mlock(mm, A + 7 * PG, 2 * PG) == -ENOMEM
    assert do_munlock(mm, A, 8 * PG) == 0 and mm.locked_vm == 0
    validate_mappings(m)


def test_moving_a_mapping_keeps_its_pages(m):
    mm = m.current.mm
    pfns = [touch(m, A + i * PG, "w").pfn for i in range(4)]
    to = A + (1 << 30)
    assert sys_mremap(mm, A, 4 * PG, 4 * PG, 3, to) == to
    assert [touch(m, to + i * PG, "w").pfn for i in range(4)] == pfns
    assert not isinstance(touch(m, A), Translation)
    validate_mappings(m)


@pytest.mark.parametrize(
    ("addr", "length", "to", "error"),
    [
        (A + 1, PG, A + (1 << 30), -EINVAL),
        (A, 0, A + (1 << 30), -EINVAL),
        (A, 2 * PG, A + PG, -EINVAL),  # overlapping
        (A, 9 * PG, A + (1 << 30), -EFAULT),
        (A - PG, PG, A + (1 << 30), -EFAULT),
    ],
)
def test_moves_that_are_refused(m, addr, length, to, error):
    assert sys_mremap(m.current.mm, addr, length, length, 3, to) == error


def test_the_checker_counts(m):
    m.current.mm.map_count += 1
    with pytest.raises(KernelBug, match="map_count"):
        validate_mm(m.current.mm)


# --- merging, restated from the kernel's own test cases ---------------------------------------
# Mappings are drawn as the kernel's tests draw them: a letter a page, "." for a hole. Offsets are the
# addresses, so that neighbours continue each other.

RW = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE
CLOSE = VmOperationsStruct(name="close", close=lambda vma: None)
PLAIN = VmOperationsStruct(name="plain")


class Drawn:
    """An address space drawn as a string, with its VMAs by letter; mmap_lock is held for writing."""

    def __init__(self, picture: str, anon: str = "", close: str = "", flags: int = RW) -> None:
        mm = mm_alloc(None)
        assert mm is not None
        self.mm = mm
        mmap_write_lock(mm)
        self.vma: dict[str, VmAreaStruct] = {}
        shared = rmap.anon_vma_alloc(mm)
        shared.num_children = 1
        for letter in sorted(set(picture) - {"."}):
            first, last = picture.index(letter), picture.rindex(letter) + 1
            vma = vma_.vm_area_alloc(mm, first * PG, last * PG, flags, first)
            vma.vm_ops = CLOSE if letter in close else PLAIN
            vma_.vma_link(mm, vma)
            vma_.vm_stat_account(mm, flags, last - first)
            self.vma[letter] = vma
            if letter in anon:
                link(vma, shared)

    def picture(self, width: int = 13) -> str:
        """Draw it: a VMA has the letter it was made with."""
        text = ["."] * width
        for vma in self.mm.mm_mt:
            letter = next((k for k, v in self.vma.items() if v is vma), "?")
            for page in range(vma.vm_start // PG, vma.vm_end // PG):
                text[page] = letter
            assert vma.vm_pgoff == vma.vm_start // PG
        return "".join(text).rstrip(".")

    def new(self, first: int, last: int, flags: int = RW, **merge) -> str:
        vmg = vma_.VmaMergeStruct(self.mm, first * PG, last * PG, flags, first, **merge)
        vmg.next, vmg.prev = vma_.find_vma_prev(self.mm, first * PG)
        vma = vma_.vma_merge_new_range(vmg)
        assert (vma is None) == (vmg.state == vma_.VMA_MERGE_NOMERGE)
        return next((k for k, v in self.vma.items() if v is vma), "none")

    def modify(self, letter: str, first: int, last: int, flags: int) -> str:
        vma = self.vma[letter]
        prev = vma if first * PG > vma.vm_start else self.mm.mm_mt.prev(vma.vm_start)
        got = vma_.vma_modify_flags(prev, vma, first * PG, last * PG, flags)
        assert not isinstance(got, int)
        got.vm_flags = flags
        return next((k for k, v in self.vma.items() if v is got), "?")


def link(vma: VmAreaStruct, anon_vma: AnonVma) -> None:
    vma.anon_vma = vma.anon_vma or anon_vma
    anon_vma.num_active_vmas += vma.anon_vma is anon_vma
    avc = AnonVmaChain(vma, anon_vma)
    vma.anon_vma_chain.append(avc)
    rmap.anon_vma_interval_tree_insert(avc, anon_vma)


@pytest.mark.parametrize(
    ("before", "at", "who", "after", "options"),
    [
        ("AA.B.......CC", (7, 9), "none", "AA.B.......CC", {}),
        ("AA.B...DD..CC", (2, 3), "A", "AAAA...DD..CC", {"anon": "B", "close": "A"}),
        ("AAAA...DD..CC", (4, 5), "A", "AAAAA..DD..CC", {"anon": "A"}),
        ("AAAAA..DD..CC", (6, 7), "D", "AAAAA.DDD..CC", {"anon": "AD", "close": "D"}),
        ("AAAAA.DDD..CC", (5, 6), "A", "AAAAAAAAA..CC", {"anon": "AD"}),
        ("AAAAA.DDD..CC", (5, 6), "A", "AAAAAADDD..CC", {"anon": "AD", "close": "D"}),
        ("AAAAAAAAA..CC", (10, 11), "C", "AAAAAAAAA.CCC", {"anon": "AC"}),
        ("AAA", (3, 4), "A", "AAAA", {}),
        ("...BBB", (2, 3), "B", "..BBBB", {"close": "B"}),
    ],
)
def test_a_new_range_merges(before, at, who, after, options):
    d = Drawn(before, **options)
    anon = any(v.anon_vma is not None for v in d.vma.values())
    assert d.new(*at) == who
    assert d.picture() == after
    if who != "none":
        assert d.vma[who].vm_lock_seq == d.mm.mm_lock_seq, "its lock is held for writing"
        assert (d.vma[who].anon_vma is not None) == anon, "the anon_vma goes with the pages"
    d.mm.total_vm = d.mm.data_vm = sum((v.vm_end - v.vm_start) // PG for v in d.mm.mm_mt)
    validate_mm(d.mm)


@pytest.mark.parametrize("special", [VM_IO, VM_DONTEXPAND, VM_PFNMAP, VM_MIXEDMAP])
def test_special_mappings_never_merge(special):
    d = Drawn("AAA", flags=RW | special)
    assert d.new(3, 4, RW | special) == "none"
    d = Drawn("AAAB", flags=RW)
    d.vma["A"].vm_flags |= special
    assert d.modify("B", 3, 4, RW | special) == "B" and d.picture() == "AAAB"


# The VMA that is changed is B; A and C have the flags that it gets (RO).
RO = RW & ~VM_WRITE


@pytest.mark.parametrize(
    ("before", "part", "who", "after", "options"),
    [
        # merge right: the end of B
        ("..BBBCC", (3, 5), "C", "..BCCCC", {}),
        # merge right, all of B, which goes
        ("..BBBCC", (2, 5), "C", "..CCCCC", {}),
        # merge left: the beginning of B
        ("AABBBB", (2, 5), "A", "AAAAAB", {}),
        # merge left, all of B
        ("AABBB", (2, 5), "A", "AAAAA", {}),
        # merge both sides: B and C go
        ("AABBBCC", (2, 5), "A", "AAAAAAA", {}),
        # C must stay: it wants to be closed
        ("AABBBCC", (2, 5), "A", "AAAAACC", {"close": "C"}),
        # B must stay: no merge at all
        ("AABBBCC", (2, 5), "B", "AABBBCC", {"close": "B"}),
        # but a part of B may go
        ("AABBBB", (2, 4), "A", "AAAABB", {"close": "B"}),
        # in the middle: two splits
        (".BBBBBB.", (3, 5), "B", ".??BB??", {}),
        # a hole between: no merge
        ("AA.BB.CC", (3, 5), "B", "AA.BB.CC", {}),
    ],
)
def test_a_changed_range_merges(before, part, who, after, options):
    d = Drawn(before, **options)
    for letter in "AC":
        if letter in d.vma:
            d.vma[letter].vm_flags = RO
    assert d.modify("B", *part, RO) == who
    assert d.picture() == after
    assert d.mm.map_count == len(d.mm.mm_mt)


@pytest.mark.parametrize(
    ("anon", "who", "after"),
    [
        ("", "A", "AAAAAAA"),
        ("B", "B", "AABBBCC"),  # A and C have no pages, and so no single link
        ("C", "A", "AAAAAAA"),
        ("AC", "A", "AAAAAAA"),
        ("ABC", "A", "AAAAAAA"),
    ],
)
def test_whose_anon_vma_is_taken_over(anon, who, after):
    d = Drawn("AABBBCC", anon=anon)
    d.vma["A"].vm_flags = d.vma["C"].vm_flags = RO
    kept = [v.anon_vma for v in d.vma.values() if v.anon_vma]
    assert d.modify("B", 2, 5, RO) == who and d.picture() == after
    merged = d.vma["A"]
    if who != "A":
        return
    if not anon:
        assert merged.anon_vma is None and not merged.anon_vma_chain
    else:
        assert merged.anon_vma is kept[0] and len(merged.anon_vma_chain) == 1
        assert kept[0].num_active_vmas == 1 and list(kept[0].rb_root) == merged.anon_vma_chain


def test_anon_vmas_that_do_not_go_together():
    for part in ("new", "changed"):
        d = Drawn("AA...CC" if part == "new" else "AABBBCC")
        for letter in "AC":
            other = rmap.anon_vma_alloc(d.mm)
            other.num_children = 1
            link(d.vma[letter], other)
            d.vma[letter].vm_flags = RO
        if part == "new":
            assert (
                d.new(2, 5, RO) == "A" and d.picture() == "AAAAACC"
            ), "the previous one is preferred"
        else:
            assert d.modify("B", 2, 5, RO) == "A" and d.picture() == "AAAAACC"


def test_a_forked_vma_does_not_merge_with_one_without_pages():
    d = Drawn("AA...CC", anon="A")
    second = rmap.anon_vma_alloc(d.mm)
    second.num_children = 1
    link(d.vma["A"], second)
    assert d.new(2, 5) == "C", "A's chain has two links"
    d = Drawn("AA...CC", anon="A")
    link(d.vma["A"], second)
    assert d.new(2, 5, anon_vma=d.vma["A"].anon_vma) == "A", "the same anon_vma is no obstacle"


def test_what_differs_keeps_apart():
    file = File(AddressSpace(PG, "f"))
    for what in (
        {"policy": "interleave"},
        {"uffd_ctx": object()},
        {"anon_name": "arena"},
        {"file": file},
    ):
        assert Drawn("AA").new(2, 3, **what) == "none"
    assert Drawn("AA").new(2, 3, RO) == "none"
    assert Drawn("AA").new(2, 3, RW | VM_SOFTDIRTY) == "A", "soft-dirty is no obstacle"
    d = Drawn("AA")
    vmg = vma_.VmaMergeStruct(d.mm, 2 * PG, 3 * PG, RW, 7, prev=d.vma["A"])
    assert vma_.vma_merge_new_range(vmg) is None, "offsets must continue"


def test_expanding_only():
    d = Drawn("AA.BB")
    assert d.new(2, 3, merge_flags=vma_.VMG_FLAG_JUST_EXPAND) == "A"
    assert d.picture() == "AAABB", "what is behind is not looked at"


def test_extending_takes_the_next_one_in():
    d = Drawn("AA..BB")
    assert vma_.vma_merge_extend(d.vma["A"], 2 * PG) is d.vma["A"] and d.picture() == "AAAAAA"
    d = Drawn("AA...BB")
    assert vma_.vma_merge_extend(d.vma["A"], 2 * PG) is d.vma["A"] and d.picture() == "AAAA.BB"


def test_shrinking_and_expanding():
    d = Drawn("AAAAA")
    assert vma_.vma_shrink(d.vma["A"], 0, 2 * PG, 0) == 0 and d.picture() == "AA"
    d = Drawn("AAAAA")
    assert vma_.vma_shrink(d.vma["A"], 2 * PG, 5 * PG, 2) == 0 and d.picture() == "..AAA"
    with pytest.raises(KernelBug, match="both ends"):
        vma_.vma_shrink(d.vma["A"], 3 * PG, 4 * PG, 3)
    d = Drawn("AA.BB")
    vmg = vma_.VmaMergeStruct(d.mm, 0, 5 * PG, RW, 0, vma=d.vma["A"], next=d.vma["B"])
    assert vma_.vma_expand(vmg) == 0 and d.picture() == "AAAAA"


def test_copies_for_mremap():
    d = Drawn("AA.BB", anon="A")
    new, vma, locks = vma_.copy_vma(d.vma["A"], 8 * PG, PG, 8, False)
    assert new is not None and vma is d.vma["A"] and not locks
    assert (new.vm_start, new.vm_end, new.vm_pgoff) == (8 * PG, 9 * PG, 8)
    assert new.anon_vma is d.vma["A"].anon_vma and len(new.anon_vma_chain) == 1
    assert vma_.copy_vma(d.vma["A"], 4 * PG, PG, 4, False)[0] is None, "something is there"


def test_a_copy_of_a_mapping_without_pages_may_merge_with_it():
    d = Drawn("AA.BB")
    for vma in d.vma.values():
        vma.vm_ops = None  # anonymous: its offsets follow its address
    new, vma, locks = vma_.copy_vma(d.vma["A"], 2 * PG, PG, 0, False)
    assert new is vma is d.vma["A"] and locks and d.picture(5) == "AAAAA"
    d = Drawn("AA.BB")
    for vma in d.vma.values():
        vma.vm_ops = None
    new, vma, _ = vma_.copy_vma(d.vma["A"], 2 * PG, PG, 0, True)
    assert new is d.vma["B"] and vma is d.vma["A"], "MREMAP_DONTUNMAP keeps source and copy apart"


def test_splits_respect_their_owner(m):
    mm = m.current.mm
    vma = mm.mm_mt.walk(A)
    vma.vm_ops = VmOperationsStruct(may_split=lambda vma, addr: -EINVAL)
    assert do_munmap(mm, A + PG, PG) == -EINVAL and ranges(m) == [(0, 8)]
    assert do_munmap(mm, A, 8 * PG) == 0


def test_the_reasons_in_words(m):
    mm = m.current.mm
    with m.trace.record("model:vma_*") as log:
        do_mprotect(mm, A, 2 * PG, 1)
        do_mmap(mm, None, A + 8 * PG, PG, 3, 0x32)
        do_mmap(mm, None, A + 20 * PG, PG, 3, 0x32)
    merges = [e.values[2:] for e in log if e.name == "model:vma_merge"]
    assert merges == [
        ("none", "no neighbour", "inside"),
        ("left", "", "no neighbour"),
        ("none", "hole", "no neighbour"),
    ]
    assert [e.values[2] for e in log if e.name == "model:vma_split"] == [A + 2 * PG]
    a, b = list(mm.mm_mt)[:2]
    assert vma_.merge_obstacle(a, b).startswith("flags differ")
    assert vma_.merge_obstacle(b, list(mm.mm_mt)[2]) == "a hole between them"
