"""Decode page table entries, words of /proc/PID/pagemap and of /proc/kpageflags.

Each function takes a text with the numbers in it and returns the decoded words; ``lines()`` of the
result is the report, the answer first::

    print("\\n".join(decode_entries("PMD 80000000126000e7").lines()))
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from mmcore.arch.x86 import pgtable_types as pt
from mmcore.config import PAGE_SHIFT
from mmcore.errors import UsageError
from mmcore.proc.task_mmu import PagemapEntry, pagemap_decode
from mmcore.report.kernlog import numbered_lines
from mmcore.report.words import MAX_WORDS, Word, read_words

__all__ = [
    "KPF_BITS",
    "Decoded",
    "Decoding",
    "decode_entries",
    "decode_kpageflags",
    "decode_pagemap",
    "entry_summary",
    "kpageflags_summary",
    "pagemap_summary",
]

#: At most this many words are shown bit by bit, and this many in a line each.
MAX_DETAILED, MAX_LISTED = 16, 512


@dataclass(slots=True, frozen=True)
class Decoded:
    """One word: what it says in a sentence, and bit by bit.

    :ivar bits: (bits such as ``51-12``, name, value, meaning)
    """

    value: int
    label: str
    kind: str
    summary: str
    title: str
    bits: tuple[tuple[str, str, int, str], ...]
    data: dict[str, object]


@dataclass(slots=True)
class Decoding:
    """All words of a text.

    :ivar walk: labels are levels of a walk, not addresses
    """

    words: list[Decoded]
    notes: list[str]
    walk: bool = True

    def lines(self) -> list[str]:
        """Return the report, the answer first."""
        out: list[str] = []
        if len(self.words) > MAX_DETAILED:
            out.append(f"{len(self.words)} words: {self._kinds()}")
            for word in self.words[:MAX_LISTED]:
                out.append(
                    f"{word.label + ' ' if word.label else ''}{word.value:016x}  {word.summary}"
                )
            if len(self.words) > MAX_LISTED:
                out.append(f"... and {len(self.words) - MAX_LISTED} more")
            return out + self.notes
        shown = self.words
        if self.walk and sum(1 for word in self.words if word.label) > 1:
            shown = self.words[-1:]
            out.append(f"The walk ends at the {shown[0].label}. {shown[0].summary}")
            out += [f"  {w.label:<4}{w.value:016x}  {w.summary}" for w in self.words] + [""]
        for i, word in enumerate(shown):
            out += [""] if i else []
            out += [word.title] if out and out[-1] == "" and i == 0 else [word.summary, word.title]
            out += [
                f"  {bits:>6}  {name:<13} {value:#x}  {meaning}".rstrip()
                for bits, name, value, meaning in word.bits
            ]
        return out + ([""] if self.notes else []) + self.notes

    def _kinds(self) -> str:
        counts: dict[str, int] = {}
        for word in self.words:
            counts[word.kind] = counts.get(word.kind, 0) + 1
        return ", ".join(f"{n} {kind}" for kind, n in counts.items())

    def to_rows(self) -> list[dict[str, object]]:
        """Return one row per word."""
        return [
            {
                "value": f"{w.value:#x}",
                "label": w.label,
                "kind": w.kind,
                "summary": w.summary,
                **w.data,
            }
            for w in self.words
        ]


@dataclass(slots=True, frozen=True)
class _Options:
    """What the text says of the kernel that it comes from.

    :ivar device_private: it has CONFIG_DEVICE_PRIVATE, which moves some swap types
    :ivar levels: of its page tables
    """

    device_private: bool = False
    levels: int = 4
    given: bool = False


_OPTION = re.compile(r"\b(device_private|levels)=(\w{1,8})")


def _options(text: str) -> tuple[_Options, str]:
    """Take ``device_private=yes`` and ``levels=5`` out of a text.

    :raises UsageError: for another value
    """
    values: dict[str, str] = {}
    head = text[:400]
    for name, value in _OPTION.findall(head):
        allowed = ("yes", "no") if name == "device_private" else ("4", "5")
        if value not in allowed:
            raise UsageError(f"{name}={value}: it is {' or '.join(allowed)}")
        values[name] = value
    options = _Options(
        values.get("device_private") == "yes",
        int(values.get("levels", "4")),
        "device_private" in values,
    )
    return options, _OPTION.sub(" ", head) + text[400:]


def _device_note(options: _Options, types: list[int | None]) -> list[str]:
    """Return a note if a swap type means something else with the other setting."""
    if options.given or not any(
        t is not None and pt._swap_kind(t, False) != pt._swap_kind(t, True) for t in types
    ):
        return []
    return [
        "The swap type is read as in a kernel without CONFIG_DEVICE_PRIVATE; with it the number means "
        "something else: write device_private=yes."
    ]


def _all(words: list[Word], decode: Callable[[Word], Decoded], notes: list[str]) -> Decoding:
    return Decoding([decode(word) for word in words], notes)


# ---- page table entries --------------------------------------------------------------------------

_LEVELS = {"pte": 1, "pmd": 2, "pud": 3, "p4d": 4, "pgd": 5, "4k": 1, "2m": 2, "1g": 3}
_SIZES = {1: "4 KiB page", 2: "2 MiB page", 3: "1 GiB page"}
#: The memory types that Linux programs into the PAT register, by PAT, PCD and PWT.
_PAT: tuple[str, ...] = (
    "write-back",
    "write-combining",
    "uncached-",
    "uncached",
    "write-back",
    "write-protect",
    "uncached-",
    "write-through",
)


def _memory_type(value: int, level: int) -> str:
    """Return a leaf's memory type, as pat_bp_init() sets the table up."""
    pat = value >> (pt._PAGE_BIT_PAT if level == 1 else pt._PAGE_BIT_PAT_LARGE) & 1
    pcd, pwt = value >> pt._PAGE_BIT_PCD & 1, value >> pt._PAGE_BIT_PWT & 1
    return _PAT[pat << 2 | pcd << 1 | pwt]


def _leaf_summary(info: pt.PteInfo) -> str:
    value, pfn = info.value, info.pfn or 0
    who = "user space" if value & pt._PAGE_USER else "the kernel only"
    rights = "read and write" if value & pt._PAGE_RW else "read-only"
    run = "not executable" if value & pt._PAGE_NX else "executable"
    state = "accessed" if value & pt._PAGE_ACCESSED else "not accessed"
    state += ", dirty" if value & pt._PAGE_DIRTY_BITS else ", clean"
    extra = ""
    if (pkey := value >> pt._PAGE_BIT_PKEY_BIT0 & 15) != 0:
        extra += f"; protection key {pkey}"
    if (kind := _memory_type(value, info.level)) != "write-back":
        extra += f"; memory type {kind}"
    return (
        f"Maps a {_SIZES[info.level]}, frame {pfn:#x} (physical {pfn << PAGE_SHIFT:#x}): "
        f"{rights}, {run}, for {who}; {state}{extra}."
    )


def entry_summary(info: pt.PteInfo) -> str:
    """Say in one sentence what an entry is."""
    pfn = info.pfn or 0
    if info.kind == "none":
        return "Empty: nothing is mapped here."
    if info.kind == "page":
        return _leaf_summary(info)
    if info.kind == "table":
        return f"Points to the next table, in frame {pfn:#x} (physical {pfn << PAGE_SHIFT:#x})."
    if info.kind == "prot_none":
        return f"PROT_NONE (or a NUMA hint): frame {pfn:#x} is mapped, but the CPU must not see it."
    if info.kind == "swap":
        return f"Swapped out: swap device {info.swp_type}, slot {info.swp_offset:#x}."
    if info.kind == "migration":
        return f"Being migrated: the page of frame {pfn:#x} is moving; an access waits."
    if info.kind == "hwpoison":
        return f"Poisoned: frame {pfn:#x} has a memory error; an access gets SIGBUS."
    if info.kind == "device":
        return f"Device memory that the CPU cannot reach, frame {pfn:#x}; an access moves it back."
    marker = info.swp_offset or 0
    if marker & 2:
        return "A marker: poisoned, an access gets SIGBUS."
    return "A marker: no page, but userfaultfd write-protection is remembered."


def _decode_entry(word: Word, default: int, options: _Options) -> Decoded:
    level = _LEVELS.get(word.label.lower(), default)
    info = pt.decode_pte(
        word.value, level, device_private=options.device_private, levels=options.levels
    )
    bits = tuple(
        (f"{f.hi}-{f.lo}" if f.hi != f.lo else str(f.lo), f.name, f.value, f.meaning)
        for f in info.fields
    )
    data: dict[str, object] = {
        "level": pt.LEVEL_NAMES[level],
        "pfn": info.pfn,
        "size": info.size,
        "flags": list(info.flags),
        "swp_type": info.swp_type,
        "swp_offset": info.swp_offset,
        "bits": [{"bits": b, "name": n, "value": v, "meaning": m} for b, n, v, m in bits],
    }
    name = word.label.upper() if word.label else ""
    return Decoded(word.value, name, info.kind, entry_summary(info), str(info), bits, data)


def decode_entries(text: str, level: int = pt.PG_LEVEL_4K) -> Decoding:
    """Decode page table entries: numbers, each with or without its level, or the lines of an oops.

    :param level: the level of numbers without a name: 1 PTE, 2 PMD, 3 PUD
    :raises UsageError: if there is none, or one has more than 64 bits
    """
    options, text = _options(text)
    words = read_words(text, "an entry", set(_LEVELS))
    notes = []
    if any(w.label.lower() == "pgd" for w in words) and any(
        w.label.lower() == "p4d" for w in words
    ):
        pairs = {w.label.lower(): w.value for w in words}
        if pairs["pgd"] == pairs["p4d"]:
            notes.append("PGD and P4D are the same entry: there are four levels.")
    if not any(w.label for w in words):
        names = {1: "PTEs (4 KiB)", 2: "PMDs (2 MiB)", 3: "PUDs (1 GiB)"}[level]
        notes.append(
            f"Read as {names}. At another level write PMD or PUD before the number; x86-64, Linux 6.12."
        )
    out = _all(words, lambda word: _decode_entry(word, level, options), notes)
    types = [t if isinstance(t := w.data["swp_type"], int) else None for w in out.words]
    out.notes += _device_note(options, types)
    return out


# ---- pagemap -------------------------------------------------------------------------------------

_PAGEMAP_BITS: tuple[tuple[int, str, str, str], ...] = (
    (
        55,
        "SOFT_DIRTY",
        "written since clear_refs, or a new mapping",
        "not written since clear_refs",
    ),
    (56, "EXCLUSIVE", "mapped once (since 4.2)", "mapped more than once, or not counted"),
    (57, "UFFD_WP", "write-protected by userfaultfd (since 5.13)", "not write-protected so"),
    (61, "FILE", "a file's page, or shared memory", "anonymous, or no page"),
    (62, "SWAP", "not in memory: swapped, migrating or poisoned", "not in swap"),
    (63, "PRESENT", "in memory", "not in memory"),
)


def pagemap_summary(e: PagemapEntry, device_private: bool = False) -> str:
    """Say in one sentence what a pagemap word is."""
    flags = ", soft-dirty" if e.soft_dirty else ""
    flags += ", write-protected by userfaultfd" if e.uffd_wp else ""
    if e.present and e.swapped:
        return "Present and swapped at once: no kernel writes this."
    if e.present:
        what = "file or shared page" if e.file else "anonymous (or zero) page"
        shared = "mapped once" if e.exclusive else "shared or the zero page"
        frame = f"frame {e.pfn:#x}" if e.pfn else "frame hidden (needs CAP_SYS_ADMIN)"
        return f"In memory: {what}, {frame}, {shared}{flags}."
    if e.swapped:
        kind = e.swp_type or 0
        family, name = pt._swap_kind(kind, device_private)
        if family != "swap":
            return f"Not mapped now: {family}, {name}, offset {e.swp_offset:#x}{flags}."
        if not kind and not e.swp_offset:
            return f"In swap; where is hidden (needs CAP_SYS_ADMIN), or slot 0 of device 0{flags}."
        return f"In swap: device {kind}, slot {e.swp_offset:#x}{flags}."
    if e.pfn:
        return "Neither present nor swapped, but with a frame number: no kernel from 4.2 on writes this."
    return f"No page: never touched, or a shared page that left memory{flags}."


#: A line of a text that says which address the word is of.
_OF_ADDRESS = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,16}):[ \t]+(?:0[xX])?([0-9a-fA-F]{1,16})")


def _words_of_addresses(text: str) -> list[Word]:
    """Return the words of a text whose lines are all ``ADDRESS: WORD``; [] for another text."""
    words: list[Word] = []
    for number, line in numbered_lines(text):
        if not (line := line.strip()):
            continue
        match = _OF_ADDRESS.fullmatch(line)
        if match is None:
            return []
        words.append(Word(int(match[2], 16), f"{int(match[1], 16):x}", number))
        if len(words) >= MAX_WORDS:
            break
    return words


def _decode_pagemap(word: Word, options: _Options) -> Decoded:
    e = pagemap_decode(word.value)
    bits: list[tuple[str, str, int, str]] = []
    if e.swapped:
        name = pt._swap_kind(e.swp_type or 0, options.device_private)[1]
        bits.append(("4-0", "swap type", e.swp_type or 0, name))
        bits.append(("54-5", "swap offset", e.swp_offset or 0, ""))
    else:
        bits.append(("54-0", "pfn", e.pfn or 0, "" if e.pfn else "none, or hidden"))
    for bit, name, yes, no in _PAGEMAP_BITS:
        on = word.value >> bit & 1
        bits.append((str(bit), name, on, yes if on else no))
    if zero := word.value >> 58 & 7:
        bits.append(
            ("60-58", "zero", zero, "6.12 leaves these 0; before 3.11: part of a page shift")
        )
    kind = "present" if e.present else "swapped" if e.swapped else "none"
    data: dict[str, object] = {
        "present": e.present,
        "swapped": e.swapped,
        "file": e.file,
        "soft_dirty": e.soft_dirty,
        "exclusive": e.exclusive,
        "uffd_wp": e.uffd_wp,
        "pfn": e.pfn,
        "swp_type": e.swp_type,
        "swp_offset": e.swp_offset,
    }
    title = f"{word.label}: {e}" if word.label else str(e)
    summary = pagemap_summary(e, options.device_private)
    return Decoded(word.value, word.label, kind, summary, title, tuple(bits), data)


def decode_pagemap(text: str) -> Decoding:
    """Decode words of /proc/PID/pagemap, or lines ``ADDRESS: WORD``.

    :raises UsageError: if there is none, or one has more than 64 bits
    """
    options, text = _options(text)
    words = _words_of_addresses(text) or read_words(text, "a pagemap word", decimal=True)
    out = _all(words, lambda word: _decode_pagemap(word, options), [])
    out.walk = False
    types = [t if isinstance(t := w.data["swp_type"], int) else None for w in out.words]
    out.notes += _device_note(options, types)
    return out


# ---- kpageflags ----------------------------------------------------------------------------------

#: Bit, name and meaning: the stable ones, and from 32 on those for kernel developers.
KPF_BITS: tuple[tuple[int, str, str], ...] = (
    (0, "LOCKED", "locked, for example during I/O"),
    (1, "ERROR", "unused in 6.12; an I/O error in older kernels"),
    (2, "REFERENCED", "used since it was put on its list"),
    (3, "UPTODATE", "its contents are valid"),
    (4, "DIRTY", "to be written back"),
    (5, "LRU", "on one of the reclaim lists"),
    (6, "ACTIVE", "on the active list"),
    (7, "SLAB", "belongs to the slab allocator (shown on the head page)"),
    (8, "WRITEBACK", "being written back now"),
    (9, "RECLAIM", "to be reclaimed once it is written"),
    (10, "BUDDY", "free, in the buddy allocator"),
    (11, "MMAP", "mapped by a process"),
    (12, "ANON", "anonymous memory"),
    (13, "SWAPCACHE", "has a place in swap, too"),
    (14, "SWAPBACKED", "goes to swap when it must go"),
    (15, "COMPOUND_HEAD", "first page of a compound page"),
    (16, "COMPOUND_TAIL", "a later page of a compound page"),
    (17, "HUGE", "part of a hugetlb page"),
    (18, "UNEVICTABLE", "cannot be reclaimed (mlock, ramfs)"),
    (19, "HWPOISON", "has a hardware memory error"),
    (20, "NOPAGE", "there is no page frame"),
    (21, "KSM", "merged by KSM; 6.12 shows it for every anonymous page"),
    (22, "THP", "part of a large folio, of any size"),
    (23, "OFFLINE", "logically offline (a balloon, hotplug)"),
    (24, "ZERO_PAGE", "the zero page"),
    (25, "IDLE", "not used since it was marked idle"),
    (26, "PGTABLE", "holds a page table"),
    (32, "RESERVED", "reserved (kernel image, firmware, hole)"),
    (33, "MLOCKED", "locked in memory by mlock"),
    (34, "OWNER_2", "for its owner; anonymous: exclusive to one process"),
    (35, "PRIVATE", "its owner keeps private data"),
    (36, "PRIVATE_2", "its owner keeps private data"),
    (37, "OWNER_PRIVATE", "for its owner (filesystem, Xen)"),
    (38, "ARCH", "for the architecture"),
    (40, "SOFTDIRTY", "defined, not set by the kernel"),
    (41, "ARCH_2", "for the architecture (memory tags)"),
    (42, "ARCH_3", "for the architecture (memory tags)"),
)
_KPF = {name: bit for bit, name, _ in KPF_BITS}


def kpageflags_summary(value: int) -> tuple[str, str]:
    """Return what a page is, as a word and as a sentence."""

    def on(name: str) -> bool:
        return bool(value >> _KPF[name] & 1)

    whole = " (a later page of a compound one)" if on("COMPOUND_TAIL") else ""
    state = ", mapped" if on("MMAP") else ", not mapped"
    state += ", dirty" if on("DIRTY") else ""
    state += ", under writeback" if on("WRITEBACK") else ""
    state += ", unevictable" if on("UNEVICTABLE") else ""
    where = " on the active list" if on("ACTIVE") else " on a reclaim list" if on("LRU") else ""
    if on("NOPAGE"):
        return "hole", "No page frame exists there."
    if on("HWPOISON"):
        return "poisoned", "Has a hardware memory error; it is not used any more."
    for name, kind, text in (
        ("BUDDY", "free", "Free, in the buddy allocator."),
        ("OFFLINE", "offline", "Logically offline: a balloon or memory hotplug has it."),
        ("PGTABLE", "page table", "Holds a page table."),
        ("SLAB", "slab", f"Belongs to the slab allocator{whole}."),
        ("ZERO_PAGE", "zero page", "The zero page, which all untouched memory shares."),
        ("HUGE", "hugetlb", f"Part of a hugetlb page{whole}{state}."),
    ):
        if on(name):
            return kind, text
    if on("ANON"):
        thp = "a large folio of " if on("THP") else ""
        return "anonymous", f"Part of {thp}anonymous memory{whole}{where}{state}."
    if on("SWAPBACKED"):
        return "shmem", f"Shared memory (shmem, tmpfs){whole}{where}{state}."
    if on("LRU") or on("MMAP") or on("UPTODATE"):
        return "file", f"A file's page in the page cache{whole}{where}{state}."
    if on("RESERVED"):
        return "reserved", "Reserved: kernel image, firmware, or memory that nobody manages."
    if not value:
        return "kernel", "No flag: the kernel's own, or on a per-CPU list of free pages."
    return "other", "In use by the kernel; the flags do not say for what."


def _decode_kpageflags(word: Word) -> Decoded:
    kind, summary = kpageflags_summary(word.value)
    known = {bit: (name, meaning) for bit, name, meaning in KPF_BITS}
    bits = []
    for i in range(64):
        if word.value >> i & 1:
            name, meaning = known.get(i, ("?", "no flag has this bit in 6.12"))
            bits.append((str(i), name, 1, meaning))
    names = [name for _, name, _, _ in bits]
    title = f"{word.value:016x} {' '.join(names)}".rstrip()
    return Decoded(word.value, "", kind, summary, title, tuple(bits), {"flags": names})


def decode_kpageflags(text: str) -> Decoding:
    """Decode words of /proc/kpageflags.

    :raises UsageError: if there is none, or one has more than 64 bits
    """
    words = read_words(text, "a kpageflags word", decimal=True)
    notes = []
    if any(w.value >> _KPF["KSM"] & 1 and w.value >> _KPF["ANON"] & 1 for w in words):
        notes.append(
            "KSM: 6.12 tests two bits of page->mapping of which ANON is one, so every anonymous page shows it."
        )
    return _all(words, _decode_kpageflags, notes)


def level_of(size: str) -> int:
    """Return the level of a page size: ``4k``, ``2m`` or ``1g``.

    :raises UsageError: for anything else
    """
    level = {"4k": 1, "2m": 2, "1g": 3}.get(size.lower())
    if level is None:
        raise UsageError(f"size is {size[:20]!r}; it is 4k, 2m or 1g")
    return level
