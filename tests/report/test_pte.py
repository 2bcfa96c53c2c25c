"""Page table entries, pagemap and kpageflags words: against the engine and recordings of a kernel."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.arch.x86 import pgtable_types as pt
from mmcore.errors import UsageError
from mmcore.mm import swapops
from mmcore.proc import capture, task_mmu
from mmcore.report import pte
from mmcore.report.words import MAX_WORDS, read_words

swp_entry = getattr(pt, "__swp_entry")
WORDS = st.integers(0, (1 << 64) - 1)


def first(text: str, **options: int) -> pte.Decoded:
    return pte.decode_entries(text, **options).words[0]


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("0", "none", "Empty"),
        (
            "8000000012345867",
            "page",
            "frame 0x12345 (physical 0x12345000): read and write, not executable",
        ),
        ("0x12345025", "page", "read-only, executable, for user space; accessed, clean"),
        ("PMD 80000000126000e7", "page", "Maps a 2 MiB page, frame 0x12600"),
        ("pud:8000000040000063|pse", "table", "Points to the next table"),
        ("PUD 80000000400000e3", "page", "Maps a 1 GiB page, frame 0x40000"),
        ("PGD 2c27067", "table", "next table, in frame 0x2c27"),
        (
            f"{pt.pfn_pte(0x1234, pt.PAGE_NONE):x}",
            "prot_none",
            "frame 0x1234 is mapped, but the CPU",
        ),
        (f"{swp_entry(3, 0x1234):x}", "swap", "swap device 3, slot 0x1234"),
        (f"{swp_entry(swapops.SWP_MIGRATION_READ, 0x77):x}", "migration", "frame 0x77 is moving"),
        (f"{swp_entry(swapops.SWP_HWPOISON, 0x77):x}", "hwpoison", "frame 0x77 has a memory error"),
        (f"{swapops.make_pte_marker(1):x}", "marker", "userfaultfd write-protection is remembered"),
        (f"{swapops.make_pte_marker(2):x}", "marker", "poisoned"),
        ("8000000012345877", "page", "memory type uncached"),
        ("b000000012345867", "page", "protection key 6"),
    ],
)
def test_kinds_of_entries(text: str, kind: str, said: str) -> None:
    word = first(text.replace("|pse", ""))
    assert word.kind == kind and said in word.summary


def test_memory_types_are_what_the_kernel_puts_into_the_pat_register() -> None:
    """pat_bp_init(): WB WC UC- UC WB WP UC- WT, index PAT PCD PWT."""
    names = ["write-back", "write-combining", "uncached-", "uncached"]
    names += ["write-back", "write-protect", "uncached-", "write-through"]
    for index, name in enumerate(names):
        small = 0x1000 | 1 | (index & 1) << 3 | (index >> 1 & 1) << 4 | (index >> 2) << 7
        large = 0x200000 | 0x81 | (index & 1) << 3 | (index >> 1 & 1) << 4 | (index >> 2) << 12
        for word in (first(f"{small:x}"), first(f"PMD {large:x}")):
            assert word.kind == "page"
            assert (f"memory type {name}." in word.summary) == (name != "write-back")


def test_the_kernels_two_numberings_of_swap_types() -> None:
    entry = f"{swp_entry(28, 0x55):x}"
    plain, private = pte.decode_entries(entry), pte.decode_entries(f"device_private=yes {entry}")
    assert (plain.words[0].kind, private.words[0].kind) == ("migration", "device")
    assert any("device_private=yes" in note for note in plain.notes)
    assert not any("device_private" in note for note in private.notes)
    word = f"{1 << 62 | 28 | 0x55 << 5:x}"
    assert "SWP_MIGRATION_READ" in pte.decode_pagemap(word).words[0].summary
    assert "SWP_DEVICE_READ" in pte.decode_pagemap(f"device_private=yes {word}").words[0].summary


def test_the_walk_of_a_real_oops() -> None:
    text = capture.load("n1-1g/oops")["oops3"]
    decoding = pte.decode_entries(text)
    assert [w.label for w in decoding.words] == ["PGD", "P4D", "PUD", "PMD", "PTE"]
    lines = decoding.lines()
    assert lines[0].startswith("The walk ends at the PTE. Maps a 4 KiB page, frame 0x502e ")
    assert "PGD and P4D are the same entry: there are four levels." in lines
    ends = pte.decode_entries(capture.load("n1-1g/oops")["oops0"])
    assert ends.lines()[0] == "The walk ends at the PMD. Empty: nothing is mapped here."


@settings(max_examples=300, deadline=None, derandomize=True)
@given(WORDS, st.sampled_from([1, 2, 3]))
def test_every_word_is_some_entry(value: int, level: int) -> None:
    word = first(f"{value:x}", level=level)
    info = pt.decode_pte(value, level)
    assert (word.kind, word.data["pfn"]) == (info.kind, info.pfn)
    covered = 0
    for f in info.fields:
        mask = ((1 << (f.hi - f.lo + 1)) - 1) << f.lo
        assert covered & mask == 0 and (value & mask) >> f.lo == f.value
        covered |= mask
    assert word.summary.endswith(".")


# ---- pagemap -------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, derandomize=True)
@given(WORDS)
def test_pagemap_fields_make_the_word_again(value: int) -> None:
    (word,) = pte.decode_pagemap(f"{value:#x}").words
    total = 0
    for bits, _, field, _ in word.bits:
        total |= field << int(bits.split("-")[-1])
    assert total == value


def test_pagemap_words_of_the_engine() -> None:
    cases = {
        task_mmu.PM_PRESENT
        | task_mmu.PM_SOFT_DIRTY
        | task_mmu.PM_MMAP_EXCLUSIVE
        | 0x2BEE: ("In memory: anonymous (or zero) page, frame 0x2bee, mapped once, soft-dirty."),
        task_mmu.PM_PRESENT
        | task_mmu.PM_FILE: (
            "In memory: file or shared page, frame hidden (needs CAP_SYS_ADMIN), shared or the zero page."
        ),
        task_mmu.PM_SWAP | 3 | 0x10 << 5: "In swap: device 3, slot 0x10.",
        task_mmu.PM_SWAP: "In swap; where is hidden (needs CAP_SYS_ADMIN), or slot 0 of device 0.",
        task_mmu.PM_SOFT_DIRTY: (
            "No page: never touched, or a shared page that left memory, soft-dirty."
        ),
        task_mmu.PM_PRESENT
        | task_mmu.PM_SWAP: "Present and swapped at once: no kernel writes this.",
    }
    for value, said in cases.items():
        assert pte.decode_pagemap(hex(value)).words[0].summary == said


def test_a_recording_of_pagemap_and_kpageflags() -> None:
    """The lab's program printed frame, flags and page flags of each page; make the words and decode them."""
    pages = re.findall(
        r"^(?:a|b)\d [^\n]* \d pfn=([0-9a-f]+) ?([PSFDXW ]*)count=\d+ ?([^\n]*)$",
        capture.load("n1-1g/pagetables")["pgmap"],
        re.M,
    )
    letters = {"P": 63, "S": 62, "F": 61, "D": 55, "X": 56, "W": 57}
    names = {name: bit for bit, name, _ in pte.KPF_BITS}
    assert len(pages) > 80
    zero = 0
    for pfn, flags, words in pages:
        value = int(pfn, 16) | sum(1 << letters[c] for c in flags.split())
        (word,) = pte.decode_pagemap(f"{value:016x}").words
        assert word.data["present"] == ("P" in flags) and word.data["exclusive"] == ("X" in flags)
        kpf = sum(1 << names[w.partition("(")[0]] for w in words.split())
        (frame,) = pte.decode_kpageflags(f"{kpf:x}").words
        assert frame.data["flags"] == [w.partition("(")[0] for w in words.split()]
        if "P" in flags:
            assert frame.kind == ("zero page" if "ZERO_PAGE" in words else "anonymous")
            zero += frame.kind == "zero page"
    assert zero


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("BUDDY", "free"),
        ("NOPAGE", "hole"),
        ("HWPOISON UPTODATE", "poisoned"),
        ("SLAB COMPOUND_HEAD", "slab"),
        ("PGTABLE", "page table"),
        ("OFFLINE", "offline"),
        ("HUGE COMPOUND_TAIL", "hugetlb"),
        ("UPTODATE LRU ACTIVE MMAP", "file"),
        ("UPTODATE LRU SWAPBACKED DIRTY", "shmem"),
        ("UPTODATE LRU MMAP ANON SWAPBACKED THP COMPOUND_HEAD", "anonymous"),
        ("RESERVED", "reserved"),
        ("", "kernel"),
        ("PRIVATE", "other"),
    ],
)
def test_kinds_of_frames(names: str, kind: str) -> None:
    bits = {name: bit for bit, name, _ in pte.KPF_BITS}
    value = sum(1 << bits[name] for name in names.split())
    (word,) = pte.decode_kpageflags(f"{value:#x}").words
    assert word.kind == kind and word.data["flags"] == sorted(names.split(), key=bits.__getitem__)


# ---- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0x10 20\n30", [0x10, 0x20, 0x30]),
        (
            "0000000 8180000000002bee 8080000000002bf4\n0000020",
            [0x8180000000002BEE, 0x8080000000002BF4],
        ),
        (" 8180000000002bee\n", [0x8180000000002BEE]),
        ("[0x10, 0x20]", [0x10, 0x20]),
        ("8180_0000_0000_2bee", [0x8180000000002BEE]),
        ("9331882296111905774", [9331882296111905774]),
    ],
)
def test_words_as_they_are_pasted(text: str, values: list[int]) -> None:
    assert [w.value for w in read_words(text, "a word", decimal=True)] == values


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing was given"),
        ("xyz", "'xyz' is no hexadecimal number"),
        ("10\n20 zz", "line 2: 'zz'"),
        ("1" * 17, "64 bits"),
        ("0x" + "f" * 17, "64 bits"),
    ],
)
def test_what_is_no_word(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read_words(text, "a word")


def test_many_words_are_summed_up() -> None:
    lines = pte.decode_kpageflags("400\n" * 100 + "0\n" * 20).lines()
    assert lines[0] == "120 words: 100 free, 20 kernel"
    assert len(pte.decode_kpageflags("400\n" * 10_000).words) == MAX_WORDS


@pytest.mark.parametrize("text", ["size=3m 0", "levels=6 0", "device_private=1 0"])
def test_options_that_make_no_sense(text: str) -> None:
    from mmcore.report import workbench

    answer = workbench.run("pte", text)
    assert not answer["ok"] and "it is " in answer["error"]
