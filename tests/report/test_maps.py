"""maps and smaps explained: each pattern of a full address space, the model's own merge rules, damaged texts."""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mmcore.arch.x86.fault import touch
from mmcore.errors import ParseError, UsageError
from mmcore.kernel.fork import spawn
from mmcore.machine import bare_zone
from mmcore.mm import filemap, madvise, mlock, mmap, mprotect, vma
from mmcore.proc.capture import load
from mmcore.proc.task_mmu import parse_smaps, render_maps, render_smaps
from mmcore.report import live, maps, smaps, workbench
from mmcore.report.mapkinds import FLAGS, describe, kinds_of, obstacle

PG = 4096
BASE = 0x7E00_0000_0000


def line(
    start: int, size: int, perms: str = "rw-p", off: int = 0, ino: int = 0, name: str = ""
) -> str:
    dev = "08:02" if ino else "00:00"
    head = f"{start:08x}-{start + size:08x} {perms} {off:08x} {dev} {ino} "
    return f"{head:<73}{name}\n" if name else head + "\n"


PROGRAM = (
    line(0x555555554000, PG, "r--p", 0, 42, "/usr/bin/prog")
    + line(0x555555555000, 4 * PG, "r-xp", PG, 42, "/usr/bin/prog")
    + line(0x555555559000, PG, "r--p", 5 * PG, 42, "/usr/bin/prog")
    + line(0x55555555A000, PG, "rw-p", 6 * PG, 42, "/usr/bin/prog")
    + line(0x55555555B000, PG)
    + line(0x555555560000, 33 * PG, name="[heap]")
)
END = line(0x7FFFFFFDE000, 33 * PG, name="[stack]")
VSYSCALL = line(0xFFFFFFFFFF600000, PG, "--xp", name="[vsyscall]")


def many(piece: Callable[[int], list[tuple[int, str, int, int, str]]], n: int, gap: int = 0) -> str:
    """Return a process with n times some mappings, one behind the other: size, rights, offset, inode, name."""
    at, out = BASE, []
    for i in range(n):
        for size, perms, off, ino, name in piece(i):
            out.append(line(at, size, perms, off, ino, name))
            at += size
        at += gap
    return PROGRAM + "".join(out) + END + VSYSCALL


def anon(size: int, perms: str = "rw-p") -> tuple[int, str, int, int, str]:
    return size, perms, 0, 0, ""


#: A pattern, the mappings of one repetition, and what the answer says.
PATTERNS: dict[str, tuple[str, int, str]] = {
    "threads": (
        many(lambda i: [anon(PG, "---p"), anon(8 << 20)], 32760),
        65520,
        "guard pages and blocks above them that look like 32,760 stacks of threads or coroutines (8192 kB each; "
        "guards 4 kB each)",
    ),
    "java threads": (
        many(lambda i: [anon(4 * PG, "---p"), anon(1012 << 10)], 3000, gap=PG),
        6000,
        "look like 3,000 stacks of threads or coroutines (1012 kB each; guards 16 kB each)",
    ),
    "guarded blocks": (
        many(lambda i: [anon(PG), anon(PG, "---p")], 32760),
        65520,
        "small pieces of anonymous memory between guard pages (4 kB each)",
    ),
    "mprotect": (
        many(lambda i: [anon(PG, "r--p"), anon(PG)], 32760),
        65520,
        "pieces of anonymous memory with changing rights: 32,760 r--p, 32,760 rw-p (4 kB each)",
    ),
    "files": (
        many(
            lambda i: [(PG * (1 + i % 3), "r--s", 0, 100 + i, f"/var/lib/x/{i % 9}/_{i}.cfs")],
            20000,
        ),
        20000,
        "mappings of 20,000 files in /var/lib/x/N/",
    ),
    "windows": (
        many(lambda i: [(PG, "rw-s", i * 7919 % 20000 * PG, 100, "/data/big.db")], 20000),
        20000,
        "pieces of /data/big.db, offsets that do not continue (4 kB each)",
    ),
    "scattered windows": (
        many(lambda i: [(PG, "rw-s", i * PG, 100, "/data/big.db")], 5000, gap=PG),
        5000,
        "pieces of one file, /data/big.db (4 kB each)",
    ),
    "blocks of malloc": (
        many(lambda i: [anon(33 * PG)], 65500, gap=PG),
        65500,
        "anonymous memory, apart from each other (132 kB each)",
    ),
    "alike": (
        many(lambda i: [anon(16 * PG)], 65500),
        65500,
        "pieces of anonymous memory that touch and are alike (64 kB each)",
    ),
    "arenas": (
        many(lambda i: [anon(33 * PG), anon((64 << 20) - 33 * PG, "---p")], 300),
        600,
        "what looks like 300 arenas of malloc(), the used part and the reserve",
    ),
    "named": (
        many(lambda i: [(PG, "rw-p", 0, 0, f"[anon:buffer {i}]")], 500, gap=PG),
        500,
        "memory that the program named [anon:buffer N]",
    ),
    "memfds": (
        many(lambda i: [(PG, "rw-s", 0, 7 + i, f"/memfd:b{i} (deleted)")], 500),
        500,
        "shared memory: /memfd:bN",
    ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_a_full_address_space_is_named(name: str) -> None:
    text, n, want = PATTERNS[name]
    start = time.process_time()
    said = maps.report(text)
    first = said.lines()[0]
    assert time.process_time() - start < 8
    largest = said.groups.groups[0]
    assert (len(largest.members), want in largest.what, want in first or n < 1000) == (
        n,
        True,
        True,
    )
    everyone = sorted(i for group in said.groups.groups for i in group.members)
    assert everyone == list(range(len(said.reading.entries)))
    assert said.map_count == len(said.reading.entries) - 1 == n + 7  # not [vsyscall]
    assert len("\n".join(said.lines())) < 20_000


def test_flags_that_change_are_named() -> None:
    text = "".join(
        line(BASE + i * PG, PG) + f"Rss: 4 kB\nVmFlags: rd wr mr mw me ac {'dc ' * (i % 2)}sd \n"
        for i in range(1000)
    )
    said = maps.report(text)
    assert "flags change: dc (not copied by fork(), MADV_DONTFORK)" in said.lines()[0]
    assert Counter(o.key for o in said.groups.apart) == {"flags": 999}


def test_the_distance_is_the_kernels() -> None:
    """The model, asked at each distance: mmap(), a split, a move."""
    m = bare_zone(4096).machine
    task = spawn(m, "t")
    mm = task.mm
    assert mm is not None
    m.paging.sysctl_max_map_count = 12
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_FIXED
    for i in range(13):
        text = render_maps(mm)
        if text:
            said = maps.report(f"max_map_count=12\n{text}")
            assert (said.map_count, said.given) == (mm.map_count, True)
            split = mprotect.sys_mprotect(mm, BASE, PG, mmap.PROT_READ)
            assert (split == 0) == (said.splits >= 1)
            if not split:
                mprotect.sys_mprotect(mm, BASE, PG, mmap.PROT_READ | mmap.PROT_WRITE)
            assert mm.map_count == said.map_count
        got = mmap.sys_mmap(mm, BASE + i * 16 * PG, 4 * PG, 3, flags, None, 0)
        assert got > 0 and (not text or said.new >= 1)
    said = maps.report(render_maps(mm), 12)
    assert (said.map_count, said.new, said.splits) == (13, 0, 0)
    assert mmap.sys_mmap(mm, BASE - 16 * PG, PG, 3, flags, None, 0) < 0
    assert "the limit is reached" in said.lines()[0]


#: What the model's `merge_obstacle()` says, and what smaps lets one see of it.
SEEN = {
    "a hole between them": ("hole",),
    "a special mapping": ("special",),
    "another file": ("file",),
    "only one has a file": ("file",),
    "another anon_vma": ("hidden", "offset"),
    "offsets do not continue": ("offset", "hidden"),
    "": ("hidden",),
}


@pytest.mark.parametrize("seed", range(6))
def test_what_keeps_neighbours_apart_is_what_the_model_says(seed: int) -> None:
    rng = random.Random(seed)
    m = bare_zone(4096).machine
    task = spawn(m, "t")
    mm = task.mm
    assert mm is not None
    m.current = task
    files = [
        filemap.File(
            filemap.AddressSpace(1 << 20, f"f{i}", i_ino=13 + i, s_dev=(8, 1)), f_path=f"/bin/f{i}"
        )
        for i in range(2)
    ]
    for _ in range(150):
        at, size = BASE + rng.randrange(64) * PG, rng.randint(1, 6) * PG
        what = rng.randrange(6)
        if what < 2:
            file = rng.choice([None, *files])
            flags = mmap.MAP_FIXED | mmap.MAP_PRIVATE | (0 if file else mmap.MAP_ANONYMOUS)
            off = (at - BASE if rng.random() < 0.7 else 0) if file else 0
            mmap.sys_mmap(mm, at, size, rng.choice((1, 3)), flags, file, off)
        elif what == 2:
            mprotect.sys_mprotect(mm, at, size, rng.choice((0, 1, 3)))
        elif what == 3:
            madvise.sys_madvise(
                mm, at, size, rng.choice((madvise.MADV_DONTFORK, madvise.MADV_DOFORK))
            )
        elif what == 4:
            mlock.sys_mlock(mm, at, size)
        else:
            found = vma.vma_lookup(mm, at)
            if found is not None and found.vm_flags & 2:
                touch(m, at, "w")
    entries = parse_smaps(render_smaps(mm))
    pairs = list(itertools.pairwise(mm.mm_mt))
    seen: Counter[str] = Counter()
    for (a, b), (one, two) in zip(pairs, itertools.pairwise(entries), strict=True):
        why, said = vma.merge_obstacle(a, b), obstacle(one, two)
        allowed = ("rights", "flags") if why.startswith("flags") else SEEN[why]
        assert said.key in allowed, (why, said)
        seen[said.key] += 1
    assert seen["rights"] and seen["hole"] and len(seen) >= 4
    text = "\n".join(maps.report(render_smaps(mm)).lines())
    assert text.count("rights") > 1


def test_why_each_mapping_is_there() -> None:
    """The recorded program; and a list with most things that a process can have."""
    text = load("n1-1g/faults")["maps"]
    kinds = kinds_of(maps.read(text).entries)
    want = ["program"] * 5 + ["bss", "heap", "anonymous", "vdso", "vdso", "main stack"]
    assert (kinds.kind, kinds.program) == (want, "/bin/busybox")
    named = {
        "/dev/shm/x": "shared memory",
        "/SYSV00000000 (deleted)": "shared memory",
        "/memfd:pulse (deleted)": "shared memory",
        "/dev/zero (deleted)": "shared memory",
        "/anon_hugepage (deleted)": "huge pages",
        "/dev/ashmem/dalvik-main space (deleted)": "shared memory",
        "/dev/nvidia0": "device",
        "anon_inode:[io_uring]": "device",
        "/usr/share/x.mo": "file",
        "/tmp/old.so (deleted)": "deleted file",
        "[anon:scudo:primary]": "named",
        "[anon_shmem:x]": "shared memory",
        "[stack:4711]": "stack",
        "[uprobes]": "vdso",
        "[something new]": "other",
    }
    text = "".join(
        line(BASE + 2 * i * PG, PG, "rw-p", 0, 0 if n[0] == "[" else 9 + i, n)
        for i, n in enumerate(named)
    )
    entries = maps.read(text).entries
    assert dict(zip(named, kinds_of(entries).kind, strict=True)) == named
    for e, kind in zip(entries, kinds_of(entries).kind, strict=True):
        assert 0 < len(describe(e, kind)) <= 34


def test_texts_of_other_kernels_and_machines() -> None:
    """arm64 with 64 KiB pages, 32 bits, 2.6 without VmFlags, Android's Name lines, a wrapped mail, a core's junk."""
    arm = "aaaac0000000-aaaac0010000 r-xp 00000000 b3:02 1  /system/bin/app\n" + line(
        0xFFFF80000000, 65536, "r--p", name="[vvar]"
    )
    assert maps.report(arm).map_count == 2
    old = "08048000-08056000 r-xp 00000000 03:0c 64593      /usr/sbin/gpm\nSize: 56 kB\nRss: 40 kB\nShared_Clean: 40 kB\n"
    said = smaps.report(old)
    assert said.total["Rss"] == 40 and "Pss" not in said.total
    assert any("no VmFlags" in x for x in said.lines()) and any("no Pss" in x for x in said.lines())
    android = (
        line(BASE, PG, name="[anon:libc_malloc]")
        + "Name:           [anon:libc_malloc]\nSize: 4 kB\nRss: 4 kB\n"
    )
    assert smaps.report(android).total["Rss"] == 4
    wrapped = (
        "7f0000000000-7f0000001000 r-xp 00000000 08:02 339380\n                /usr/lib/libc.so.6\n"
    )
    assert maps.read(wrapped).entries[0].name == "/usr/lib/libc.so.6"
    junk = "======= Memory map: ========\n" + line(BASE, PG) + "Aborted\n"
    assert maps.report(junk).reading.left_out == 2
    assert maps.report("1048576\n" + line(BASE, PG)).max_map_count == 1048576
    assert maps.report("vm.max_map_count = 99\n" + line(BASE, PG)).max_map_count == 99
    strange = line(BASE, PG, "r--p", 0, 5, "/tmp/a\x0cb\u2028c\x85d")
    entries = maps.read(strange + line(BASE + PG, PG)).entries
    assert [e.name for e in entries] == ["/tmp/a\x0cb\u2028c\x85d", ""]
    ends = line(BASE, PG, "r--p", 0, 5, "/tmp/a\x1e")
    assert maps.read(ends).entries[0].name == "/tmp/a\x1e"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no mappings here"),
        ("7f0000000000-7f0000001000 rw-p 00000000\n", "not a mapping"),
        (line(BASE, PG) + line(BASE, PG), "several processes"),
        (line(BASE + PG, PG) + line(BASE, PG), "several processes"),
        (line(BASE, PG).replace("rw-p", "rwwp"), "not a mapping"),
        ("Rss: 4 kB\n" + line(BASE, PG), "before the first mapping"),
        (line(BASE, PG) + "Rss: many kB\n", "not a mapping"),
    ],
)
def test_damage_is_named(text: str, why: str) -> None:
    with pytest.raises(ParseError, match=why):
        maps.report(text)


def test_what_is_no_maps() -> None:
    with pytest.raises(UsageError, match="smaps_rollup"):
        maps.report(load("n1-1g/faults")["smaps_rollup"])
    with pytest.raises(ParseError, match="no values"):
        smaps.report(load("n1-1g/faults")["maps"])


def test_smaps_adds_up() -> None:
    text = load("n1-1g/faults")["smaps_rollup"]
    said = smaps.report(text)
    assert said.rollup and said.total["Rss"] == 1460 and said.total["Private"] == 48
    m = bare_zone(4096).machine
    task = spawn(m, "t")
    assert task.mm is not None
    m.current = task
    at = mmap.sys_mmap(task.mm, 0, 64 * PG, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, None, 0)
    for i in range(10):
        touch(m, at + i * PG, "w")
    said = smaps.report(render_smaps(task.mm))
    assert (said.total["Rss"], said.total["Private"], said.total["Anonymous"]) == (40, 40, 40)
    assert said.by_kind["anonymous"]["Size"] == 256
    assert "40 kB in memory (Rss); 40 kB of them its own" in said.lines()[0]


def test_a_large_smaps_is_condensed_without_loss() -> None:
    text = load("n1-1g/faults")["smaps"]
    whole, short = smaps.report(text), smaps.condensed(text.encode().splitlines(keepends=True))
    assert len(short) * 2 < len(text)
    again = smaps.report(short.decode())
    for name, kb in whole.total.items():
        assert again.total[name] == (0 if name in ("Pss_Dirty", "Referenced") else kb), name
    assert [e.flags for e in whole.reading.entries] == [e.flags for e in again.reading.entries]


def test_every_flag_that_6_12_prints_has_words() -> None:
    from mmcore.mm.mm import VM_FLAG_MNEMONICS

    assert all(flag in FLAGS for flag in VM_FLAG_MNEMONICS.values() if flag)


# ---- a process of this machine -------------------------------------------------------------------

linux = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc of Linux")


@linux
def test_this_process() -> None:
    data = live.mappings_of("", ("smaps", "maps"))
    answer = workbench.run("maps", data)
    (row,) = answer["rows"]
    assert answer["ok"] and row["max_map_count_given"]
    assert row["max_map_count"] == int(Path("/proc/sys/vm/max_map_count").read_text())
    assert abs(row["mappings"] - Path("/proc/self/maps").read_text().count("\n")) < 30
    answer = workbench.run("smaps", live.mappings_of(str(os.getpid()), ("smaps",)))
    assert answer["ok"] and answer["rows"][0]["total_kb"]["Rss"] > 1000


@linux
def test_pagemap_of_this_process(tmp_path: Path) -> None:
    import mmap as memory

    with memory.mmap(-1, 4 * memory.PAGESIZE, memory.MAP_PRIVATE | memory.MAP_ANONYMOUS) as area:
        import ctypes

        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        area[0] = 1
        area[2 * memory.PAGESIZE] = 1
        text = live.pagemap_of("self", [f"{start:x}-{start + 4 * memory.PAGESIZE:x}"])
        ctypes.pythonapi.PyErr_Clear()
        rows = workbench.run("pagemap", text)["rows"]
        assert [row["present"] for row in rows] == [True, False, True, False]
        assert rows[0]["label"] == f"{start:x}"
        saved = tmp_path / "words"
        saved.write_text(text)
        assert live.pagemap_of(str(saved), [hex(start)]) == text.split("\n")[0] + "\n"
        with pytest.raises(UsageError, match="no line for"):
            live.pagemap_of(str(saved), ["1000"])
        import gc

        gc.collect()


def test_pagemap_of_a_copy(tmp_path: Path) -> None:
    copy = tmp_path / "pagemap"
    copy.write_bytes(b"\0" * 8 * 16 + (0x8180000000002BEE).to_bytes(8, "little"))
    if sys.byteorder == "little":
        assert live.pagemap_of(str(copy), ["10abc"]) == "10000: 8180000000002bee\n"
    for words, why in (
        (["fffffffffffff000"], "nothing for|no such address|Invalid"),
        (["zz"], "no hexadecimal"),
        (["1000-zz"], "no hexadecimal"),
        (["2000-1000"], "pages in all"),
        (["0-7fffffffffff"], "pages in all"),
        (["400000"], "nothing for"),
    ):
        with pytest.raises(UsageError, match=why):
            live.pagemap_of(str(copy), words)
