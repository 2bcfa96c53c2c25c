"""All calls that change an address space, in any order, against a plain dict: page -> what it is.

The dict knows no VMAs, no merging and no splitting. After every call each page of each VMA must be what
the dict says, each page of the dict must lie in a VMA, and the checkers of VMAs, page tables and TLB run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mmcore.arch.x86.fault import SigSegv, Translation, touch
from mmcore.arch.x86.pgtable import translate
from mmcore.errors import EEXIST, EFAULT, EINVAL, ENOMEM, EPERM
from mmcore.kernel.fork import TaskStruct, do_exit, kernel_clone, spawn, switch_to
from mmcore.machine import bare_zone
from mmcore.mm import madvise, mlock, mprotect, mremap, mseal, rmap, shmem, util
from mmcore.mm.memory import validate_mappings
from mmcore.mm.mm import (
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_NOHUGEPAGE,
    VM_SEALED,
    VM_SHARED,
    VM_WIPEONFORK,
    vma_pages,
)
from mmcore.mm.mm_types import page_folio, pfn_to_page
from mmcore.mm.mmap import sys_brk, sys_mmap, sys_munmap
from mmcore.mm.vma import validate_mm

PG = 4096
A = 0x200000000000
HEAP = 0x100000000000
PAGES = 14
WATCHED = (
    7 | VM_SHARED | VM_DONTCOPY | VM_DONTDUMP | VM_HUGEPAGE | VM_NOHUGEPAGE | VM_WIPEONFORK
) | (VM_LOCKED | VM_LOCKONFAULT | VM_SEALED)


@dataclass(frozen=True)
class Page:
    """What a page of the address space is.

    :ivar flags: its vm_flags, as far as they are watched
    :ivar offset: page of the memory file; None for anonymous memory
    :ivar token: what was last written to it; None if nothing was
    """

    flags: int
    offset: int | None = None
    token: int | None = None

    @property
    def private(self) -> bool:
        return not self.flags & VM_SHARED


FIRST = st.integers(0, PAGES - 1)
COUNT = st.integers(1, 6)
PROT = st.sampled_from([3, 3, 3, 1, 0, 5, 7])
#: advice -> (flags it sets, flags it clears)
ADVICE = {
    madvise.MADV_DONTFORK: (VM_DONTCOPY, 0),
    madvise.MADV_DOFORK: (0, VM_DONTCOPY),
    madvise.MADV_DONTDUMP: (VM_DONTDUMP, 0),
    madvise.MADV_DODUMP: (0, VM_DONTDUMP),
    madvise.MADV_HUGEPAGE: (VM_HUGEPAGE, VM_NOHUGEPAGE),
    madvise.MADV_NOHUGEPAGE: (VM_NOHUGEPAGE, VM_HUGEPAGE),
    madvise.MADV_WIPEONFORK: (VM_WIPEONFORK, 0),
    madvise.MADV_KEEPONFORK: (0, VM_WIPEONFORK),
}


class AddressSpace(RuleBasedStateMachine):
    """One process and, after forks, the youngest child, whose ancestors live on."""

    @initialize()
    def start(self) -> None:
        self.m = bare_zone(8192).machine
        self.m.transparent_hugepage_enabled = "never"
        self.tasks: list[TaskStruct] = [spawn(self.m, "t0")]
        self.pages: dict[int, Page] = {}  # page number -> page
        self.file = shmem.memfd_create(self.mm, "f", 64 * PG)
        self.fresh = 0
        self.mm.start_brk = self.mm.brk = HEAP
        for first, count in ((0, 5), (7, 4), (12, 2)):  # something to begin with
            where = self.range_of(first, count)
            assert sys_mmap(self.mm, where.start * PG, count * PG, 3, 0x32, None)
            self.pages.update((p, Page(3)) for p in where)
            self.touch_page(where.start + 1, True)

    @property
    def mm(self):
        return self.m.current.mm

    def range_of(self, first: int, count: int) -> range:
        return range(A // PG + first, A // PG + first + count)

    def has(self, pages: range, flag: int = 0) -> bool:
        """Tell whether any of @pages is mapped, with @flag if given."""
        return any(p in self.pages and (not flag or self.pages[p].flags & flag) for p in pages)

    # --- calls ---

    @rule(
        first=FIRST,
        count=COUNT,
        prot=PROT,
        kind=st.sampled_from(["anon", "anon", "anon", "file", "shared"]),
        offset=st.integers(0, 40),
        keep=st.booleans(),
    )
    def mmap(self, first, count, prot, kind, offset, keep):
        where = self.range_of(first, count)
        addr = where.start * PG
        flags = (0x100000 if keep else 0x10) | (1 if kind == "shared" else 2)
        file = None if kind == "anon" else self.file
        got = sys_mmap(
            self.mm, addr, count * PG, prot, flags | (0 if file else 0x20), file, offset * PG
        )
        if keep and self.has(where):
            assert got == -EEXIST
        elif self.has(where, VM_SEALED):
            assert got == -EPERM
        else:
            assert got == addr
            bits = prot | (VM_SHARED if kind == "shared" else 0)
            for i, p in enumerate(where):
                self.pages[p] = Page(bits, offset + i if file else None)

    @rule(first=FIRST, count=COUNT)
    def munmap(self, first, count):
        where = self.range_of(first, count)
        got = sys_munmap(self.mm, where.start * PG, count * PG)
        assert got == (-EPERM if self.has(where, VM_SEALED) else 0)
        if not got:
            for p in where:
                self.pages.pop(p, None)

    @rule(first=FIRST, count=COUNT, prot=PROT)
    def mprotect(self, first, count, prot):
        want = 0
        where = self.range_of(first, count)
        got = mprotect.sys_mprotect(self.mm, where.start * PG, count * PG, prot)
        for p in where:
            page = self.pages.get(p)
            if page is None:
                want = -ENOMEM
            elif page.flags & VM_SEALED and page.flags & 7 != prot:
                want = -EPERM
            elif page.flags & VM_SEALED:
                want = -EPERM
            if want:
                break
            self.pages[p] = replace(page, flags=page.flags & ~7 | prot)
        assert got == want

    @rule(first=FIRST, count=COUNT, advice=st.sampled_from(sorted(ADVICE)))
    def advise(self, first, count, advice):
        add, drop = ADVICE[advice]
        want = 0
        where = self.range_of(first, count)
        got = madvise.sys_madvise(self.mm, where.start * PG, count * PG, advice)
        for p in where:
            page = self.pages.get(p)
            if page is None:
                want = -ENOMEM
                continue
            if advice == madvise.MADV_WIPEONFORK and (not page.private or page.offset is not None):
                want = -EINVAL
                break
            self.pages[p] = replace(page, flags=page.flags & ~drop | add)
        assert got == want

    @rule(first=FIRST, count=COUNT)
    def dontneed(self, first, count):
        want = 0
        where = self.range_of(first, count)
        got = madvise.sys_madvise(self.mm, where.start * PG, count * PG, madvise.MADV_DONTNEED)
        for p in where:
            page = self.pages.get(p)
            if page is None:
                want = -ENOMEM
                continue
            if page.flags & VM_SEALED and not page.flags & 2 and page.private:
                if page.offset is None:
                    want = -EPERM
                    break
            if page.flags & VM_LOCKED:
                want = -EINVAL
                break
            self.pages[p] = replace(page, token=None)
        assert got == want

    @rule(first=FIRST, count=COUNT, lock=st.booleans())
    def lock(self, first, count, lock):
        want = 0
        where = self.range_of(first, count)
        if lock:
            got = mlock.sys_mlock2(self.mm, where.start * PG, count * PG, mlock.MLOCK_ONFAULT)
        else:
            got = mlock.sys_munlock(self.mm, where.start * PG, count * PG)
        for p in where:
            page = self.pages.get(p)
            if page is None:
                want = -ENOMEM
                break
            bits = VM_LOCKED | VM_LOCKONFAULT
            self.pages[p] = replace(page, flags=page.flags & ~bits | (bits if lock else 0))
        assert got == want

    @rule(first=FIRST, count=st.integers(1, 2))
    def seal(self, first, count):
        where = self.range_of(first, count)
        got = mseal.sys_mseal(self.mm, where.start * PG, count * PG, 0)
        if all(p in self.pages for p in where):
            assert got == 0
            for p in where:
                self.pages[p] = replace(self.pages[p], flags=self.pages[p].flags | VM_SEALED)
        else:
            assert got == -ENOMEM

    @rule(first=FIRST, count=COUNT, to=FIRST)
    def move(self, first, count, to):
        old, new = self.range_of(first, count), self.range_of(to, count)
        vma = self.mm.mm_mt.walk(old.start * PG)
        if vma is None or vma.vm_end < old.stop * PG:
            return  # across VMAs: refused, after the target is gone (test_mmap)
        overlap = old.start < new.stop and new.start < old.stop
        got = mremap.sys_mremap(self.mm, old.start * PG, count * PG, count * PG, 3, new.start * PG)
        if self.has(old, VM_SEALED):
            assert got == -EPERM
        elif overlap:
            assert got == -EINVAL
        elif self.has(new, VM_SEALED):
            assert got == -EPERM
        else:
            assert got == new.start * PG
            moved = [self.pages.pop(p) for p in old]
            for p in new:
                self.pages[p] = moved[p - new.start]

    @rule(first=FIRST, count=COUNT, fewer=st.integers(1, 8))
    def shrink(self, first, count, fewer):
        where = self.range_of(first, count)
        vma = self.mm.mm_mt.walk(where.start * PG)
        if vma is None or vma.vm_end < where.stop * PG or fewer >= count:
            return
        got = mremap.sys_mremap(self.mm, where.start * PG, count * PG, (count - fewer) * PG, 0)
        if self.has(where, VM_SEALED):
            assert got == -EPERM
            return
        assert got == where.start * PG
        for p in where[count - fewer :]:
            del self.pages[p]

    @rule(size=st.integers(0, 12))
    def brk(self, size):
        first = HEAP // PG
        old = (self.mm.brk - HEAP) // PG
        assert sys_brk(self.mm, HEAP + size * PG) == HEAP + size * PG
        for p in range(first + old, first + size):
            self.pages[p] = Page(3)
        for p in range(first + size, first + old):
            del self.pages[p]

    @rule(first=FIRST, write=st.booleans(), heap=st.sampled_from([False, False, False, True]))
    def touch(self, first, write, heap):
        self.touch_page((HEAP if heap else A) // PG + first, write)

    def touch_page(self, p, write):
        page = self.pages.get(p)
        result = touch(self.m, p * PG, "w" if write else "r")
        if page is None or not page.flags & (2 if write else 7):
            assert isinstance(result, SigSegv)
            assert result.si_code == (1 if page is None else 2)
            return
        assert isinstance(result, Translation)
        if write and page.private:
            self.fresh += 1
            self.pages[p] = replace(page, token=self.fresh)

    @precondition(lambda self: hasattr(self, "tasks") and len(self.tasks) < 4)
    @rule()
    def fork(self):
        child = kernel_clone(self.m.current)
        assert isinstance(child, TaskStruct)
        switch_to(self.m, child)
        self.tasks.append(child)
        locks = VM_LOCKED | VM_LOCKONFAULT
        pages, self.pages = self.pages, {}
        for p, page in pages.items():
            if not page.flags & VM_DONTCOPY:
                token = None if page.flags & VM_WIPEONFORK else page.token
                assert token is not None or translate(self.mm, p * PG) is None or not page.token
                self.pages[p] = replace(page, flags=page.flags & ~locks, token=token)

    @rule(
        first=FIRST,
        call=st.sampled_from(["munmap", "mprotect", "mlock", "madvise", "mseal", "mmap", "mremap"]),
        bad=st.sampled_from(["unaligned", "zero", "wraps", "huge"]),
    )
    def misuse(self, first, call, bad):
        """Addresses inside a page, no length, lengths that wrap: refused, or nothing to do."""
        mm = self.mm
        addr = A + first * PG + (1 if bad == "unaligned" else 0)
        length = {"zero": 0, "wraps": (1 << 64) - PG, "huge": (1 << 64) - 1}.get(bad, PG)
        if call == "mlock" and bad == "unaligned":
            return  # mlock() rounds
        got = {
            "munmap": lambda: sys_munmap(mm, addr, length),
            "mprotect": lambda: mprotect.sys_mprotect(mm, addr, length, 1),
            "mlock": lambda: mlock.sys_mlock2(mm, addr, length, 1),
            "madvise": lambda: madvise.sys_madvise(mm, addr, length, madvise.MADV_DONTFORK),
            "mseal": lambda: mseal.sys_mseal(mm, addr, length, 0),
            "mmap": lambda: sys_mmap(mm, addr, length, 3, 0x32, None),
            "mremap": lambda: mremap.sys_mremap(mm, addr, PG, length, 3, addr + 64 * PG),
        }[call]()
        nothing_to_do = bad == "zero" and call in ("mprotect", "mlock", "madvise", "mseal")
        # PAGE_ALIGN() of the largest length is 0, which these two take for no length at all
        wrapped = bad == "huge" and call in ("mprotect", "mseal", "mlock")
        if nothing_to_do:
            assert got == 0
        elif wrapped:
            assert got in (0, -EINVAL, -ENOMEM)
        elif call == "mremap" and bad != "unaligned" and got == -EFAULT:
            assert bad != "huge" and A // PG + first not in self.pages, "looked for first"
        else:
            assert got in (-EINVAL, -ENOMEM)

    # --- what must hold ---

    @invariant()
    def every_page_is_what_the_dict_says(self):
        if not hasattr(self, "m"):
            return
        seen = {}
        for vma in self.mm.mm_mt:
            for i in range(vma_pages(vma)):
                offset = None if vma.vm_file is None else vma.vm_pgoff + i
                seen[vma.vm_start // PG + i] = (vma.vm_flags & WATCHED, offset)
        assert seen == {p: (page.flags, page.offset) for p, page in self.pages.items()}
        assert self.mm.total_vm == len(self.pages)
        locked = sum(page.flags & VM_LOCKED != 0 for page in self.pages.values())
        assert self.mm.locked_vm == locked

    @invariant()
    def contents_are_there_and_nobody_elses(self):
        if not hasattr(self, "m"):
            return
        frames: dict[int, int] = {}
        for p, page in self.pages.items():
            if page.token is not None:
                frame = translate(self.mm, p * PG)
                assert frame is not None, f"what was written to page {p:#x} is gone"
                assert frames.setdefault(frame, page.token) == page.token
                found = []
                rmap.rmap_walk(
                    page_folio(pfn_to_page(self.m, frame // PG)),
                    lambda vma, addr, found=found: found.append((vma.vm_mm, addr)) or True,
                )
                assert (self.mm, p * PG) in found, f"the reverse map does not find page {p:#x}"

    @invariant()
    def promises_are_what_the_mappings_were_promised(self):
        if hasattr(self, "m"):
            promised = sum(
                vma_pages(vma)
                for task in self.tasks
                for vma in task.mm.mm_mt
                if vma.vm_flags & VM_ACCOUNT
            )
            assert util.vm_memory_committed(self.m) - self.file_promise() == promised

    def file_promise(self) -> int:
        """Pages of the memory file are promised one by one, when they are made."""
        return len(self.file.f_mapping.i_pages)

    @invariant()
    def the_checkers_agree(self):
        if hasattr(self, "m"):
            for task in self.tasks:
                validate_mm(task.mm)
            validate_mappings(self.m)

    def teardown(self):
        if hasattr(self, "m"):
            for task in self.tasks:
                do_exit(task)
            assert util.vm_memory_committed(self.m) == self.file_promise()


AddressSpace.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, derandomize=True
)
TestAddressSpace = AddressSpace.TestCase
