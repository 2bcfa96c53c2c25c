"""maps, smaps, smaps_rollup, status and statm: what a kernel printed comes back, and the model prints alike."""

from __future__ import annotations

import re

import pytest

from mmcore.arch.x86.fault import touch
from mmcore.errors import ParseError
from mmcore.kernel.fork import spawn
from mmcore.machine import Machine
from mmcore.mm import shmem
from mmcore.mm.mmap import sys_mmap
from mmcore.proc import task_mmu
from mmcore.proc.capture import load

PG = 4096
A = 0x200000000000
FAULTS = load("n1-1g/faults")


@pytest.fixture
def mm():
    m = Machine.boot("1G")
    m.transparent_hugepage_enabled = "never"
    mm = spawn(m, "t").mm
    assert mm is not None
    file = shmem.memfd_create(mm, "f", 8 * PG)
    sys_mmap(mm, A, 4 * PG, 3, 0x32, None)
    sys_mmap(mm, A + 8 * PG, 4 * PG, 1, 0x11, file, PG)
    sys_mmap(mm, A + 16 * PG, 2 * PG, 0, 0x32, None)
    sys_mmap(mm, 0x10000, PG, 5, 0x32, None)
    for page in (0, 1, 9):
        touch(m, A + page * PG, "r" if page == 9 else "w")
    return mm


def shapes(text: str) -> list[tuple[str, int]]:
    """Return each value line's name and length: numbers are right-aligned in a column."""
    found = [re.fullmatch(r"([A-Z]\w*):[ \t]+\d+( kB)?", line) for line in text.split("\n")]
    return [(match[1], len(match[0].expandtabs(16))) for match in found if match]


def test_the_recorded_lines_of_maps_come_back() -> None:
    text = FAULTS["maps"]
    entries = task_mmu.parse_maps(text)
    assert [entry.header() for entry in entries] == text.rstrip("\n").split("\n")
    assert len(entries) > 8 and entries[-1].name in ("[stack]", "[vdso]", "[vsyscall]")


def test_the_recorded_smaps_comes_back() -> None:
    """Every line, from what was read; the text is cut after 52 lines, in its third mapping."""
    lines = []
    for entry in task_mmu.parse_smaps(FAULTS["smaps"]):
        lines.append(entry.header())
        for name, value in entry.sizes.items():
            unit = "" if name in ("THPeligible", "ProtectionKey") else " kB"
            lines.append(f"{name + ':':<16}{value:8d}{unit}")
        if entry.flags is not None:
            lines.append(f"VmFlags: {' '.join(entry.flags)} ")
    recorded = FAULTS["smaps"].rstrip("\n").split("\n")
    assert [line.rstrip() for line in lines] == [line.rstrip() for line in recorded]


def test_the_model_prints_smaps_as_the_kernel_does(mm) -> None:
    kernel = FAULTS["smaps"].split("VmFlags:")[0]
    model = task_mmu.render_smaps(mm).split("VmFlags:")[0]
    assert shapes(model) == shapes(kernel) != []


def test_what_the_model_prints_comes_back(mm) -> None:
    text = task_mmu.render_smaps(mm)
    entries = task_mmu.parse_smaps(text)
    assert [e.header() for e in entries] == task_mmu.render_maps(mm).rstrip("\n").split("\n")
    assert [e.pages for e in entries] == [1, 4, 4, 2]
    heap, file = entries[1:3]
    assert (heap.sizes["Rss"], heap.sizes["Private_Dirty"], heap.sizes["Anonymous"]) == (8, 8, 8)
    assert heap.flags is not None and "ac" in heap.flags and "wr" in heap.flags
    assert (file.offset, file.perms, file.dev, file.name) == (
        PG,
        "r--s",
        "00:01",
        "/memfd:f (deleted)",
    )
    rollup = task_mmu.parse_smaps(task_mmu.render_smaps_rollup(mm))[0]
    for name in ("Rss", "Pss", "Private_Dirty", "Anonymous", "Swap"):
        assert rollup.sizes[name] == sum(e.sizes[name] for e in entries), name


def test_the_rollup_has_the_kernels_lines(mm) -> None:
    kernel, model = FAULTS["smaps_rollup"], task_mmu.render_smaps_rollup(mm)
    assert shapes(model) == shapes(kernel) != []
    head = task_mmu.parse_smaps(kernel)[0].header()
    assert head == kernel.split("\n")[0] and head.endswith(" [rollup]")
    assert model.split("\n")[0].index("[rollup]") == head.index("[rollup]")


def test_status_has_the_kernels_lines_and_comes_back(mm) -> None:
    kernel, model = FAULTS["status"], task_mmu.render_status_memory(mm)
    names = [line.split(":")[0] for line in kernel.rstrip("\n").split("\n")]
    assert [line.split(":")[0] for line in model.rstrip("\n").split("\n")][: len(names)] == names
    assert shapes(model)[: len(names)] == shapes(kernel)
    assert task_mmu.parse_status_memory(model) == task_mmu.status_memory(mm)
    assert list(task_mmu.parse_status_memory(kernel)) == names


def test_statm_comes_back_and_agrees_with_status(mm) -> None:
    numbers = task_mmu.parse_statm(task_mmu.render_statm(mm))
    status = task_mmu.status_memory(mm)
    assert numbers[0] * 4 == status["VmSize"] and numbers[1] * 4 == status["VmRSS"]
    assert numbers[5] * 4 == status["VmData"] + status["VmStk"]


def test_a_separator_that_is_no_newline_stays_in_a_name() -> None:
    line = "00400000-00401000 r--p 00000000 08:01 12" + " " * 33 + "/tmp/a\x85b\x0cc\u2028d"
    (entry,) = task_mmu.parse_maps(line + "\n")
    assert entry.name == "/tmp/a\x85b\x0cc\u2028d" and entry.header() == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("00400000-00401000 r--p 0 08:01 1\n00400000-00402000 r--p 0 08:01 1\n", 2),
        ("00401000-00400000 r--p 00000000 08:01 1\n", 1),
        ("Size: 4 kB\n", 1),
        ("00400000-00401000 r--p 00000000 08:01 1\nTHPeligible: x\n", 2),
    ],
)
def test_damaged_texts(text: str, line: int) -> None:
    with pytest.raises(ParseError) as caught:
        task_mmu.parse_smaps(text)
    assert caught.value.line == line
