"""What a mapping is there for, and what keeps two neighbours apart, told from lines of maps or smaps."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field

from mmcore.proc.task_mmu import MapsEntry

__all__ = [
    "FLAGS",
    "GATES",
    "Kinds",
    "MADE_BY_EXEC",
    "Obstacle",
    "amount",
    "backing",
    "describe",
    "flag_words",
    "folded",
    "kinds_of",
    "label",
    "obstacle",
    "pattern",
]

#: Shown in maps, but no mapping of the process: the page belongs to the kernel.
GATES = ("[vsyscall]", "[vectors]")
#: Kinds of mappings that are there from the first instruction on.
MADE_BY_EXEC = ("heap", "main stack", "vdso", "vsyscall")
#: glibc's HEAP_MAX_SIZE on 64 bits: arenas but the first are made of such parts.
ARENA = 64 << 20
#: A guard is at most so large, what looks like a stack at least and at most.
MAX_GUARD, MIN_STACK, MAX_STACK = 1 << 20, 32 << 10, 1 << 30

#: The words of VmFlags, and what they mean.
FLAGS: dict[str, str] = {
    "rd": "may be read",
    "wr": "may be written",
    "ex": "may be executed",
    "sh": "shared",
    "mr": "may be made readable",
    "mw": "may be made writable",
    "me": "may be made executable",
    "ms": "may be shared",
    "gd": "grows down, a stack",
    "pf": "frames without struct page",
    "dw": "the file cannot be written meanwhile",
    "lo": "locked in memory, mlock()",
    "io": "device memory",
    "sr": "MADV_SEQUENTIAL",
    "rr": "MADV_RANDOM",
    "dc": "not copied by fork(), MADV_DONTFORK",
    "de": "mremap() cannot extend it",
    "lf": "locked as it is touched, MLOCK_ONFAULT",
    "ac": "charged to the commit limit",
    "nr": "MAP_NORESERVE",
    "ht": "hugetlb pages",
    "sf": "MAP_SYNC",
    "nl": "non-linear",
    "ar": "a flag of the architecture",
    "wf": "MADV_WIPEONFORK",
    "dd": "not in core dumps, MADV_DONTDUMP",
    "bt": "branch targets are guarded, PROT_BTI",
    "sd": "soft-dirty",
    "mm": "frames with and without struct page",
    "hg": "MADV_HUGEPAGE",
    "nh": "MADV_NOHUGEPAGE",
    "mg": "MADV_MERGEABLE, KSM",
    "um": "userfaultfd: missing pages",
    "uw": "userfaultfd: write-protection",
    "ui": "userfaultfd: minor faults",
    "mt": "memory tags, PROT_MTE",
    "ss": "a shadow stack",
    "gu": "a shadow stack",
    "dp": "MAP_DROPPABLE",
    "sl": "sealed, mseal()",
}
#: Flags of mappings that never merge: VM_SPECIAL.
_SPECIAL = ("io", "de", "pf", "mm")
_SPECIAL_NAMES = ("[vdso]", "[vvar]", "[vvar_vclock]", "[sigpage]", "[uprobes]", *GATES)
_NAMED = re.compile(r"\[anon(?:_shmem)?:(.*)\]", re.DOTALL)
_NUMBER = re.compile(r"[0-9a-fA-F]{8,}|\d+")


def amount(kb: int) -> str:
    """Return a number of kB as people say it.

    >>> amount(132), amount(10240), amount(64 << 20)
    ('132 kB', '10 MB', '64 GB')
    """
    for unit in ("kB", "MB", "GB"):
        if kb < 10240:
            return f"{kb} {unit}"
        kb >>= 10
    return f"{kb} TB"


def folded(text: str, width: int) -> list[str]:
    """Return a sentence in lines."""
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def pattern(name: str) -> str:
    """Return a name with its numbers made alike.

    >>> pattern("/memfd:buffer-17"), pattern("[anon:stack_and_tls:4711]")
    ('/memfd:buffer-N', '[anon:stack_and_tls:N]')
    """
    name = _NUMBER.sub("N", name)
    return name if len(name) <= 60 else "..." + name[-57:]


def flag_words(flags: list[str] | tuple[str, ...]) -> str:
    """Return flags with their meaning."""
    return ", ".join(f"{f} ({FLAGS[f]})" if f in FLAGS else f for f in flags)


def backing(e: MapsEntry) -> tuple[str, ...]:
    """Return which file is mapped: device, inode and path; () for anonymous memory."""
    if e.inode == 0 and (not e.name or e.name[0] == "["):
        return ()
    return e.dev, str(e.inode), e.name


def label(e: MapsEntry) -> str:
    """Return the name that the program gave to memory; "" if it has none."""
    match = _NAMED.fullmatch(e.name)
    return match[1] if match else ""


# ---- neighbours ----------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Obstacle:
    """What keeps a mapping from its successor.

    :ivar key: hole, special, rights, flags, key, file, name, offset or hidden: the first in the kernel's order
    :ivar words: all that is seen, in few words
    :ivar reason: the first, as a reason
    :ivar flags: flags that only one has
    """

    key: str
    words: str
    reason: str = ""
    flags: tuple[str, ...] = ()


def _special(e: MapsEntry) -> bool:
    if e.flags is not None:
        return any(flag in _SPECIAL for flag in e.flags)
    return e.name in _SPECIAL_NAMES


def _touched(e: MapsEntry) -> bool:
    """Tell whether a private mapping has pages of its own, and so an anon_vma."""
    return e.perms[3] == "p" and e.sizes.get("Anonymous", 0) + e.sizes.get("Swap", 0) > 0


def _hidden(a: MapsEntry, b: MapsEntry) -> Obstacle:
    """Say what may keep two apart that are alike in all that is shown."""
    if a.flags is None or b.flags is None:
        return Obstacle(
            "hidden",
            "alike in what maps shows",
            "nothing that maps shows: flags, anon_vma, policy, or no call has tried",
        )
    if _touched(a) and _touched(b):
        return Obstacle(
            "hidden",
            "alike; an anon_vma each?",
            "nothing that smaps shows, and both have pages of their own: another anon_vma, most often",
        )
    if backing(a):
        return Obstacle(
            "hidden",
            "alike; opened twice?",
            "nothing that smaps shows: the file was opened twice, or no call has tried",
        )
    if a.name == "[heap]" != b.name:
        return Obstacle(
            "hidden",
            "alike; brk() does not look up",
            "nothing: brk() never merges with what is above the heap",
        )
    return Obstacle(
        "hidden",
        "alike; no call has tried?",
        "nothing that smaps shows: fork(), mremap(), a policy, or no call has tried",
    )


def _differences(a: MapsEntry, b: MapsEntry) -> list[Obstacle]:
    """Return what is seen to differ, in the kernel's order."""
    found: list[Obstacle] = []
    flags: tuple[str, ...] = ()
    if a.flags is not None and b.flags is not None:
        mine, theirs = set(a.flags), set(b.flags)
        flags = tuple(f for f in (*a.flags, *b.flags) if (f in mine) != (f in theirs) and f != "sd")
    if a.perms != b.perms or any(f in ("rd", "wr", "ex", "sh") for f in flags):
        shown = f" ({' '.join(flags)})" if flags else f" ({a.perms} {b.perms})"
        found.append(Obstacle("rights", f"rights{shown}", f"their rights{shown}", flags))
    elif flags:
        shown = " ".join(flags)
        found.append(
            Obstacle("flags", f"flags ({shown})", f"their flags: {flag_words(flags)}", flags)
        )
    if a.sizes.get("ProtectionKey", 0) != b.sizes.get("ProtectionKey", 0):
        found.append(Obstacle("key", "protection key", "their protection keys"))
    one, two = backing(a), backing(b)
    if one != two:
        text = "another file" if one and two else "only one has a file"
        found.append(Obstacle("file", text, f"their files: {text}"))
    if label(a) != label(b):
        found.append(Obstacle("name", "names", "the names that the program gave"))
    if one and one == two and a.offset + a.end - a.start != b.offset:
        found.append(
            Obstacle("offset", "offsets do not continue", "the file's offsets do not continue")
        )
    return found


def obstacle(a: MapsEntry, b: MapsEntry) -> Obstacle:
    """Say why two neighbours are not one mapping: is_mergeable_vma() and its callers, as far as it shows.

    `mmcore.mm.vma.merge_obstacle` asks the same of the model, where nothing is hidden.
    """
    if a.end != b.start:
        far = b.name in GATES
        return Obstacle("hole", "" if far else f"a hole of {amount(b.start - a.end >> 10)}")
    if _special(a) or _special(b):
        return Obstacle("special", "special: never merge", "one is special: such never merge")
    found = _differences(a, b)
    if not found:
        return _hidden(a, b)
    first = found[0]
    words = ", ".join(o.words for o in found)
    return Obstacle(first.key, words, first.reason, first.flags)


# ---- one mapping ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Kinds:
    """What each mapping is there for.

    :ivar kind: a word or two for each
    :ivar program: the file that runs; "" if none is executable
    """

    kind: list[str] = field(default_factory=list)
    program: str = ""


_BRACKETS = {
    "[heap]": "heap",
    "[stack]": "main stack",
    "[vsyscall]": "vsyscall",
    "[vectors]": "vsyscall",
}
_SHARED = ("/dev/shm/", "/dev/ashmem", "/SYSV", "/memfd:", "/dev/zero")
_DEVICE = ("/dev/", "anon_inode:", "socket:", "/dmabuf", "/drm mm", "/i915")


def _anonymous(e: MapsEntry) -> str:
    if e.perms[:3] == "---":
        return "guard or reserve"
    if e.perms[2] == "x":
        return "run-time code"
    return "anonymous" if e.perms[1] == "w" else "read-only anonymous"


def _base_kind(e: MapsEntry, code: dict[tuple[str, ...], str]) -> str:
    """Return a mapping's kind as far as it alone tells."""
    name = e.name
    if not name:
        return "other" if e.inode else _anonymous(e)
    if name[0] == "[":
        if name in _BRACKETS:
            return _BRACKETS[name]
        if name in _SPECIAL_NAMES:
            return "vdso"
        if name.startswith("[stack:"):
            return "stack"
        if name.startswith("[anon:"):
            return "named"
        return "shared memory" if name.startswith("[anon_shmem:") else "other"
    if name.startswith(("/anon_hugepage", "/dev/hugepages")) or "ht" in (e.flags or ()):
        return "huge pages"
    if name.startswith(_SHARED):
        return "shared memory"
    if name.startswith(_DEVICE):
        return "device"
    found = code.get(backing(e))
    return found or ("deleted file" if name.endswith(" (deleted)") else "file")


def _code_files(entries: list[MapsEntry]) -> tuple[dict[tuple[str, ...], str], str]:
    """Return the files of which something may be executed, and which of them is the program."""
    code: dict[tuple[str, ...], str] = {}
    program = ""
    for e in entries:
        if e.perms[2] != "x" or not e.name.startswith("/") or backing(e) in code:
            continue
        is_program = not program and not re.search(r"\.so(?:\.|$| )|/ld[-.]", e.name)
        program = e.name if is_program else program
        code[backing(e)] = "program" if is_program else "library"
    return code, program


def _pairs(entries: list[MapsEntry], kind: list[str]) -> None:
    """Find what takes two mappings: arenas of malloc(), and stacks with their guards."""
    for i in range(len(entries) - 1):
        a, b = entries[i], entries[i + 1]
        if a.end != b.start:
            continue
        one, two = kind[i], kind[i + 1]
        if one == "anonymous" and two == "guard or reserve":
            if a.start % ARENA == 0 and b.end == a.start + ARENA and a.start >> 32:
                kind[i], kind[i + 1] = "arena", "arena's reserve"
        elif one == "guard or reserve" and (two in ("anonymous", "stack") or "stack" in b.name):
            block = b.end - b.start
            if (
                two != "main stack"
                and a.end - a.start <= MAX_GUARD
                and MIN_STACK <= block <= MAX_STACK
                and b.perms == "rw-p"
            ):
                kind[i], kind[i + 1] = "guard of a stack", "stack"


def kinds_of(entries: list[MapsEntry]) -> Kinds:
    """Say of each mapping what it is there for."""
    code, program = _code_files(entries)
    kind = [_base_kind(e, code) for e in entries]
    for i in range(1, len(entries)):
        a, e = entries[i - 1], entries[i]
        if (
            kind[i] == "anonymous"
            and a.end == e.start
            and kind[i - 1] in ("program", "library")
            and a.perms[:2] in ("rw", "r-")
            and a.perms[2] == "-"
        ):
            kind[i] = "bss"
    _pairs(entries, kind)
    return Kinds(kind, program)


_PARTS = {"r-x": "code", "r--": "read-only data", "rw-": "data", "---": "kept free"}
_TEXTS = {
    "bss": ".bss of the file, or behind it",
    "heap": "heap, grows by brk()",
    "main stack": "stack of the first thread",
    "vsyscall": "the kernel's page [vsyscall]",
    "arena": "arena of malloc()?",
    "arena's reserve": "reserve of that arena?",
    "stack": "stack of a thread?",
    "guard of a stack": "guard page of a stack?",
    "anonymous": "anonymous memory",
    "read-only anonymous": "anonymous memory, read-only",
    "run-time code": "code made at run time",
}


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def describe(e: MapsEntry, kind: str, width: int = 34) -> str:
    """Say in a few words what a mapping is there for."""
    base = e.name.removesuffix(" (deleted)").rpartition("/")[2]
    if kind in ("program", "library"):
        part = _PARTS.get(e.perms[:3], "code and data")
        return f"{_fit(base, width - 2 - len(part))}: {part}"
    if kind == "guard or reserve":
        small = e.end - e.start <= MAX_GUARD
        return "guard page, or kept free" if small else "address space kept free"
    if kind == "vdso":
        return f"the kernel's {e.name}"
    if kind in _TEXTS:
        return _fit(_TEXTS[kind], width)
    if kind in ("file", "deleted file", "device"):
        return _fit(f"{kind}: {base}", width)
    return _fit(e.name or f"inode {e.inode}", width)
