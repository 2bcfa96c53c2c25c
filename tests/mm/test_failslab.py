"""Calls that run out of memory for VMAs, their links and tree nodes, at every allocation they make.

Each case is run again and again, with its first, second, ... allocation failing, until none is left to
fail. After each failure the checkers run, the pages that were there must still be there with what was
written to them, what was promised must be what the VMAs say, and the same call must then do what it does
when nothing fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from mmcore.arch.x86.fault import OutOfMemory, Translation, touch
from mmcore.arch.x86.pgtable import translate
from mmcore.errors import EFAULT, ENOMEM
from mmcore.fs import exec as exec_
from mmcore.kernel.fork import TaskStruct, do_exit, kernel_clone, spawn, switch_to
from mmcore.lib.percpu_counter import percpu_counter_sum_positive
from mmcore.machine import Machine, bare_zone
from mmcore.mm import madvise, mlock, mprotect, mremap, shmem
from mmcore.mm.filemap import File
from mmcore.mm.memory import validate_mappings
from mmcore.mm.mm import VM_ACCOUNT, VM_LOCKED, MmStruct, vma_pages
from mmcore.mm.mmap import do_munmap, sys_brk, sys_mmap, sys_munmap

PG = 4096
A = 0x200000000000
FAR = A + (1 << 30)
HEAP = 0x100000000000

Pages = dict[int, tuple[int, int | None]]


@dataclass
class World:
    """A machine with one task, before the call that is to fail."""

    m: Machine
    file: File

    @property
    def mm(self) -> MmStruct:
        return self.m.current.mm

    def map(self, first: int, count: int, prot: int = 3, flags: int = 0x32, at: int = A) -> int:
        file = None if flags & 0x20 else self.file
        return sys_mmap(self.mm, at + first * PG, count * PG, prot, flags, file, first * PG)

    def touch(self, *pages: int) -> None:
        for page in pages:
            assert isinstance(touch(self.m, A + page * PG, "w"), Translation)

    def shape(self) -> list[tuple[int, int]]:
        return [((v.vm_start - A) // PG, (v.vm_end - A) // PG) for v in self.mm.mm_mt]

    def pages(self) -> Pages:
        """Page number -> (vm_flags, the frame behind it)."""
        found: Pages = {}
        for vma in self.mm.mm_mt:
            for at in range(vma.vm_start, vma.vm_end, PG):
                frame = translate(self.mm, at)
                found[at // PG] = (vma.vm_flags, frame)
        return found

    def promised(self) -> int:
        return percpu_counter_sum_positive(self.m.paging.vm_committed_as)

    def check(self) -> None:
        self.check_links()
        vmas = [vma for mm in self.m.pgd_list for vma in mm.mm_mt]
        assert self.promised() == sum(vma_pages(v) for v in vmas if v.vm_flags & VM_ACCOUNT)

    def check_links(self) -> None:
        """Nothing points to VMAs that are in no address space, and files are held by mappings only."""
        validate_mappings(self.m)
        vmas = [vma for mm in self.m.pgd_list for vma in mm.mm_mt]
        for vma in vmas:
            for avc in vma.anon_vma_chain:
                assert all(known.vma in vmas for known in avc.anon_vma.rb_root)
        mapping = [vma for vma in vmas if vma.vm_file is self.file]
        assert self.file.f_count == 1 + len(mapping)
        assert len(self.file.f_mapping.i_mmap) == len(mapping)


def world() -> World:
    m = bare_zone(2048).machine
    m.transparent_hugepage_enabled = "never"
    spawn(m, "t")
    mm = m.current.mm
    mm.start_brk = mm.brk = HEAP
    return World(m, shmem.memfd_create(mm, "f", 64 * PG))


def failing(
    setup: Callable[[World], None], call: Callable[[World], object]
) -> list[tuple[World, Pages, object]]:
    """Run @call with each of its allocations failing: (the world after it, the pages before, result)."""
    runs = []
    for nth in range(1, 100):
        w = world()
        setup(w)
        before = w.pages()
        w.m.paging.fail_nth = nth
        result = call(w)
        if w.m.paging.fail_nth:
            w.m.paging.fail_nth = 0
            return runs
        runs.append((w, before, result))
    raise AssertionError("there is always one more allocation")


def nothing_changes(
    setup: Callable[[World], None], call: Callable[[World], object], error: object = -ENOMEM
) -> int:
    """Check that @call does nothing where it fails, and what it should do when it is repeated."""
    clean = world()
    setup(clean)
    wanted = call(clean)
    runs = failing(setup, call)
    for w, before, result in runs:
        assert result == error
        w.check()
        assert w.pages() == before
        assert call(w) == wanted
        w.check()
        assert {p: v[0] for p, v in w.pages().items()} == {
            p: v[0] for p, v in clean.pages().items()
        }
        do_exit(w.m.current)
        w.check()
    return len(runs)


def eight(w: World) -> None:
    w.map(0, 8)
    w.touch(1, 3, 6)


def three_kinds(w: World) -> None:
    eight(w)
    mprotect.sys_mprotect(w.mm, A + 3 * PG, 2 * PG, 1)


def forked(w: World) -> None:
    """A child two generations down, whose VMA has several links."""
    eight(w)
    for _ in range(2):
        child = kernel_clone(w.m.current)
        assert isinstance(child, TaskStruct)
        switch_to(w.m, child)
        w.touch(2)


@pytest.mark.parametrize(
    ("first", "count", "allocations"),
    [
        (8, 1, 0),  # nothing is there
        (0, 8, 1),  # the hole in the tree
        (0, 2, 4),  # VMA, nodes and link of a split, and the hole
        (6, 2, 4),
        (2, 3, 7),  # two splits
    ],
)
def test_munmap(first, count, allocations):
    found = nothing_changes(eight, lambda w: sys_munmap(w.mm, A + first * PG, count * PG))
    assert found == allocations


def test_munmap_of_several():
    found = nothing_changes(three_kinds, lambda w: sys_munmap(w.mm, A + PG, 6 * PG))
    assert found == 8, "two splits, the tree of detached VMAs, the hole"


def test_a_forked_vma_needs_a_link_for_each_anon_vma():
    found = nothing_changes(forked, lambda w: sys_munmap(w.mm, A + 2 * PG, 3 * PG))
    assert found == 2 * (2 + 3) + 1


def test_a_first_split_stays():
    runs = failing(eight, lambda w: sys_munmap(w.mm, A + 2 * PG, 3 * PG))
    assert [w.shape() for w, _, _ in runs] == [[(0, 8)]] * 3 + [[(0, 2), (2, 8)]] * 3 + [
        [(0, 2), (2, 5), (5, 8)]
    ]


@pytest.mark.parametrize(
    ("first", "count", "allocations"), [(0, 8, 0), (0, 2, 3), (6, 2, 3), (2, 3, 6)]
)
def test_mprotect(first, count, allocations):
    found = nothing_changes(
        eight, lambda w: mprotect.sys_mprotect(w.mm, A + first * PG, count * PG, 1)
    )
    assert found == allocations


@pytest.mark.parametrize(
    ("first", "count", "touched", "allocations"),
    [
        (3, 2, "", 1),  # all three become one
        (3, 1, "", 1),  # the one before grows
        (4, 1, "", 1),  # the one behind grows
        (3, 2, "behind", 2),  # the one before gets a link, which is taken back
        (3, 1, "inside", 3),  # a neighbour that never had pages takes none in: a split
        (4, 1, "inside", 3),
    ],
)
def test_mprotect_that_merges(first, count, touched, allocations):
    def setup(w: World) -> None:
        w.map(0, 3)
        w.map(3, 2, 1 if touched != "inside" else 3, 0x32)
        w.map(5, 3)
        if touched == "behind":
            w.touch(6)
        elif touched == "inside":
            do_munmap(w.mm, A, 8 * PG)
            w.map(3, 2)
            w.touch(3, 4)
            mprotect.sys_mprotect(w.mm, A + 3 * PG, 2 * PG, 1)
            w.map(0, 3)
            w.map(5, 3)

    found = nothing_changes(
        setup, lambda w: mprotect.sys_mprotect(w.mm, A + first * PG, count * PG, 3)
    )
    assert found == allocations
    for w, _, _ in failing(setup, lambda w: mprotect.sys_mprotect(w.mm, A + 3 * PG, 2 * PG, 3)):
        assert len(w.shape()) == 3, "it is not split instead"


def test_what_mprotect_has_done_before_it_fails_stays():
    runs = failing(three_kinds, lambda w: mprotect.sys_mprotect(w.mm, A, 6 * PG, 0))
    assert {result for _, _, result in runs} == {-ENOMEM}
    changed = [sum(not f & 7 for f, _ in w.pages().values()) for w, _, _ in runs]
    assert changed == sorted(changed) and set(changed) == {3, 5}
    for w, before, _ in runs:
        w.check()
        assert {p: v[1] for p, v in w.pages().items()} == {p: v[1] for p, v in before.items()}


@pytest.mark.parametrize("call", ["mlock", "dontfork", "hugepage"])
def test_calls_that_change_flags(call):
    def change(w: World) -> int:
        if call == "mlock":
            return mlock.do_mlock(w.mm, A + 2 * PG, 3 * PG)
        advice = madvise.MADV_DONTFORK if call == "dontfork" else madvise.MADV_NOHUGEPAGE
        return madvise.sys_madvise(w.mm, A + 2 * PG, 3 * PG, advice)

    # madvise() says -EAGAIN where the kernel has no memory for its own structures
    error = -ENOMEM if call == "mlock" else -11
    assert nothing_changes(eight, change, error) == 6


def test_mmap_in_a_hole():
    found = nothing_changes(lambda w: w.touch(), lambda w: w.map(0, 4))
    assert found == 2, "the VMA and the nodes"
    assert nothing_changes(lambda w: w.touch(), lambda w: w.map(0, 4, 3, 0x11)) == 2, "of a file"


@pytest.mark.parametrize("behind", [False, True])
def test_a_mapping_that_cannot_be_merged_is_put_beside(behind):
    def setup(w: World) -> None:
        w.map(0, 2)
        w.map(4, 2)
        if behind:
            w.touch(5)

    runs = failing(setup, lambda w: w.map(2, 2))
    assert len(runs) == 1 + behind, "a link for the one before, and the nodes"
    for w, before, result in runs:
        assert result == A + 2 * PG and w.shape() == [(0, 2), (2, 4), (4, 6)]
        w.check()
        assert {p: v for p, v in w.pages().items() if p in before} == before
        assert not w.mm.mm_mt.walk(A).anon_vma_chain


def test_mmap_over_others_leaves_a_hole_when_it_fails_late():
    runs = failing(eight, lambda w: w.map(2, 3, 1))
    assert [result for _, _, result in runs] == [-ENOMEM] * 8
    for n, (w, before, _) in enumerate(runs):
        w.check()
        lost = range(A // PG + 2, A // PG + 5) if n >= 6 else ()
        assert w.pages() == {p: v for p, v in before.items() if p not in lost}


def test_brk():
    assert nothing_changes(eight, lambda w: sys_brk(w.mm, HEAP + 2 * PG), HEAP) == 2

    def heap(w: World) -> None:
        assert sys_brk(w.mm, HEAP + 4 * PG) == HEAP + 4 * PG

    assert nothing_changes(heap, lambda w: sys_brk(w.mm, HEAP + 6 * PG), HEAP + 4 * PG) == 1
    assert nothing_changes(heap, lambda w: sys_brk(w.mm, HEAP + PG), HEAP + 4 * PG) == 3
    assert nothing_changes(heap, lambda w: sys_brk(w.mm, HEAP), HEAP + 4 * PG) == 1


def test_a_stack_that_cannot_grow():
    def stack(w: World) -> None:
        w.map(0, 2, 3, 0x132)

    def grow(w: World) -> bool:
        return isinstance(touch(w.m, A - PG, "w"), Translation)

    runs = failing(stack, grow)
    assert len(runs) == 3, "nodes, a link and an anon_vma"
    for w, before, result in runs:
        assert result is False
        w.check()
        assert w.pages() == before and not w.mm.mm_mt.walk(A).anon_vma_chain
        assert grow(w)
        w.check()


@pytest.mark.parametrize("neighbour", [False, True])
def test_a_first_write_without_an_anon_vma(neighbour):
    def setup(w: World) -> None:
        w.map(0, 2)
        if neighbour:
            w.touch(0)
            mprotect.sys_mprotect(w.mm, A + PG, PG, 1)
            w.map(2, 1)
        w.check()

    runs = failing(setup, lambda w: touch(w.m, A + (2 if neighbour else 0) * PG, "w"))
    assert len(runs) == (1 if neighbour else 2), "the neighbour's anon_vma needs a link only"
    for w, before, result in runs:
        assert isinstance(result, OutOfMemory)
        w.check()
        assert w.pages() == before
        assert isinstance(touch(w.m, A, "w"), Translation)


def test_mremap_moves_nothing():
    def move(w: World) -> int:
        return mremap.sys_mremap(w.mm, A + 2 * PG, 3 * PG, 3 * PG, 3, FAR)

    runs = failing(eight, move)
    assert [result for _, _, result in runs] == [-ENOMEM] * 3 + [FAR] * 7
    for w, before, _ in runs[:3]:  # VMA, links, nodes
        w.check()
        assert w.pages() == before
    for w, _, _ in runs[3:]:
        w.check_links()


def test_mremap_keeps_the_old_range_when_it_cannot_be_cut_out():
    def move(w: World) -> int:
        return mremap.sys_mremap(w.mm, A + 2 * PG, 3 * PG, 3 * PG, 3, FAR)

    for w, before, result in failing(eight, move):
        if result != FAR:
            continue
        after = w.pages()
        for i in range(3):  # the pages have moved, the empty range is left behind
            assert after[FAR // PG + i][1] == before[A // PG + 2 + i][1]
            assert after[A // PG + 2 + i][1] is None
        assert not any(after[A // PG + i][0] & VM_ACCOUNT for i in range(2, 5))
        assert w.promised() == 11, "but it stays promised"


def test_mremap_of_a_file_holds_it_no_longer_than_it_is_mapped():
    runs = failing(
        lambda w: w.map(0, 4, 3, 0x01),
        lambda w: mremap.sys_mremap(w.mm, A, 4 * PG, 4 * PG, 3, FAR),
    )
    assert [result for _, _, result in runs] == [-ENOMEM] * 2 + [FAR]
    for w, before, result in runs:
        w.check_links()
        if result != FAR:
            assert w.pages() == before


def test_exec_at_every_allocation():
    failed = 0
    for nth in range(1, 100):
        w = world()
        w.m.paging.fail_nth = nth
        error = exec_.do_execve(w.m.current, exec_.PIE)
        if w.m.paging.fail_nth:
            break
        assert error in (0, -ENOMEM, -EFAULT), "a mapping may have been put beside another"
        failed += error != 0
        w.check()
        do_exit(w.m.current)
        assert w.promised() == 0
    assert 10 < failed < nth < 99


def test_mremap_in_place():
    def grow(w: World) -> int:
        return mremap.sys_mremap(w.mm, A, 8 * PG, 10 * PG, 0)

    assert nothing_changes(eight, grow) == 1


def test_mremap_keeping_a_locked_range():
    def setup(w: World) -> None:
        eight(w)
        mlock.do_mlock(w.mm, A, 8 * PG)

    def move(w: World) -> int:
        return mremap.sys_mremap(w.mm, A + 2 * PG, 3 * PG, 3 * PG, 5, FAR)

    found = failing(setup, move)
    assert len(found) == 9 and {r for _, _, r in found} == {-ENOMEM}
    for w, before, _ in found:
        w.check()
        assert w.pages() == before and all(v.vm_flags & VM_LOCKED for v in w.mm.mm_mt)


@pytest.mark.parametrize("setup", [three_kinds, forked])
def test_fork(setup):
    def with_more(w: World) -> None:
        setup(w)
        madvise.sys_madvise(w.mm, A + 7 * PG, PG, madvise.MADV_DONTFORK)
        w.map(10, 2, 3, 0x11)

    fork = lambda w: kernel_clone(w.m.current)  # noqa: E731
    runs = failing(with_more, fork)
    # the tree; for each private VMA itself, its links, an anon_vma and a link to that; for the range
    # that is not copied a hole; for the shared VMA itself
    assert len(runs) == (
        1 + (1 + 3 + 2) + 1 + 1 if setup is forked else 1 + 3 * (1 + 1 + 2) + 1 + 1
    )
    for w, before, result in runs:
        assert result == -ENOMEM
        w.check()
        assert {p: v for p, v in w.pages().items()} == before
        child = fork(w)
        assert isinstance(child, TaskStruct)
        w.check()
        do_exit(child)
        w.check()


def test_a_link_that_fails_leaves_no_part_of_a_chain():
    w = world()
    forked(w)
    vma = w.mm.mm_mt.walk(A)
    known = [len(avc.anon_vma.rb_root) for avc in vma.anon_vma_chain]
    assert len(known) == 3
    for nth in (3, 4, 5):  # after the VMA and the nodes
        w.m.paging.fail_nth = nth
        assert sys_munmap(w.mm, A + 2 * PG, PG) == -ENOMEM
        assert [len(avc.anon_vma.rb_root) for avc in vma.anon_vma_chain] == known
        w.check()
