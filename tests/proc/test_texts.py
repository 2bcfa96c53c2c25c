"""The /proc files: what real kernels printed comes back byte for byte; any other bytes are refused
with the line that is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore import Machine
from mmcore.errors import ParseError
from mmcore.proc import buddyinfo, capture, iomem, meminfo, pagetypeinfo, vmstat, zoneinfo

ROOT = Path(__file__).resolve().parents[2]
MODULES: dict[str, ModuleType] = {
    "/proc/buddyinfo": buddyinfo,
    "/proc/iomem": iomem,
    "/proc/meminfo": meminfo,
    "/proc/pagetypeinfo": pagetypeinfo,
    "/proc/vmstat": vmstat,
    "/proc/zoneinfo": zoneinfo,
}


def recorded() -> list[tuple[str, str, str]]:
    """(file, where, text) of every such text in the captures."""
    out = []
    for path in sorted((ROOT / "book" / "captures").glob("*/*.txt")):
        for section in capture.load(path).sections:
            file = section.command.removeprefix("cat ")
            if file in MODULES and section.text:
                out.append((file, f"{path.parent.name}/{path.stem}:{section.name}", section.text))
    return out


TEXTS = recorded()


def test_every_file_is_among_the_captures() -> None:
    assert {file for file, _, _ in TEXTS} == set(MODULES)


@pytest.mark.parametrize(("file", "where", "text"), TEXTS, ids=[t[1] for t in TEXTS])
def test_what_a_kernel_printed_comes_back(file: str, where: str, text: str) -> None:
    module = MODULES[file]
    assert module.render(module.parse(text)) == text


@pytest.mark.parametrize("file", MODULES)
def test_a_machines_text_comes_back(file: str) -> None:
    module = MODULES[file]
    m = Machine.boot("5G", nodes=2, cpus=3)
    text = module.show(m)
    assert module.parse(text) == module.snapshot(m)
    assert module.render(module.parse(text)) == text


@pytest.mark.parametrize("file", ["/proc/meminfo", "/proc/vmstat", "/proc/zoneinfo"])
def test_a_machine_prints_the_kernels_names_in_its_order(file: str) -> None:
    """Blank out the numbers: what is left is the same text."""
    import re

    m = Machine.boot("1G")
    kernel = capture.load("n1-1g/physical")[file.rsplit("/", 1)[1]]

    def names(text: str) -> list[str]:
        return [re.sub(r" *-?\d+", " N", line) for line in text.split("\n")]

    assert names(MODULES[file].show(m)) == names(kernel)


def test_iomem_of_a_machine_is_the_kernels_without_devices() -> None:
    kernel = iomem.parse(capture.load("n1-1g/physical")["iomem"])
    mine = iomem.snapshot(Machine.boot("1G"))
    devices = ("PCI Bus", "Video ROM", "System ROM", "IOAPIC", "HPET", "PNP", "Local APIC")
    keep = [
        (depth, r.start, r.end, r.name)
        for depth, r in iomem.walk(kernel)
        if not r.name.startswith(devices)
    ]
    assert [(depth, r.start, r.end, r.name) for depth, r in iomem.walk(mine)] == keep


def test_large_counts_are_capped_as_the_kernel_caps_them() -> None:
    text = capture.load("n1-1g/physical")["pagetypeinfo"]
    line = "Node    0, zone    DMA32, type    Unmovable      1 "
    assert line in text
    capped = text.replace(line, "Node    0, zone    DMA32, type    Unmovable >100000 ")
    nodes = pagetypeinfo.parse(capped)
    assert nodes[0].zones[1].free["Unmovable"][0] == -1
    assert pagetypeinfo.render(nodes) == capped


# ---- damaged and foreign texts -------------------------------------------------------------------


def _parse(module: ModuleType, text: str) -> None:
    """Parse; all that may happen is a result or a ParseError with a line of the text."""
    try:
        module.parse(text)
    except ParseError as err:
        assert 1 <= err.line <= text.count("\n") + 1
        assert str(err.line) in str(err)


@pytest.mark.parametrize("file", MODULES)
def test_truncated_texts(file: str) -> None:
    text = next(t for f, _, t in TEXTS if f == file)
    for cut in range(0, min(len(text), 3000), 7):
        _parse(MODULES[file], text[:cut])


@pytest.mark.parametrize("file", MODULES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.binary(max_size=300))
def test_any_bytes(file: str, data: bytes) -> None:
    try:
        text = capture.decode(data, file)
    except ParseError:
        return
    _parse(MODULES[file], text)


@pytest.mark.parametrize("file", MODULES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(at=st.integers(0, 1500), piece=st.text(max_size=8), length=st.integers(0, 30))
def test_texts_with_one_damage(file: str, at: int, piece: str, length: int) -> None:
    text = next(t for f, _, t in TEXTS if f == file)
    _parse(MODULES[file], text[:at] + piece + text[at + length :])


@pytest.mark.parametrize(
    ("module", "text", "line"),
    [
        (buddyinfo, "", 1),
        (buddyinfo, "Node 0, zone DMA x\n", 1),
        (meminfo, "MemTotal: 1 kB\nMemFree: -2 kB\n", 2),
        (meminfo, "MemTotal: 1 kB\nMemTotal: 1 kB\n", 2),
        (vmstat, "nr_free_pages 1\nnr_free_pages\n", 2),
        (vmstat, "a " + "9" * 5000 + "\n", 1),
        (zoneinfo, "Node 0, zone      DMA\n  pages free     x\n", 2),
        (iomem, "00000000-00000fff : a\n      00001000-00001fff : b\n", 2),
        (pagetypeinfo, "Page block order: 9\nPages per block:  512\nx\n", 3),
    ],
)
def test_errors_name_the_line(module: ModuleType, text: str, line: int) -> None:
    with pytest.raises(ParseError) as info:
        module.parse(text)
    assert info.value.line == line


def test_values_that_a_newer_kernel_lines_up_come_back_lined_up() -> None:
    text = next(t for f, _, t in TEXTS if f == "/proc/zoneinfo")
    lined_up = re.sub(r"^( {14})(\w+:) +", lambda m: f"{m[1]}{m[2]:<9} ", text, flags=re.MULTILINE)
    assert lined_up != text
    assert zoneinfo.render(zoneinfo.parse(lined_up)) == lined_up


def test_foreign_lines_are_kept() -> None:
    """Counters of other kernels: read, and written again."""
    for module, text in (
        (vmstat, "nr_free_pages 1\nnr_something_new 2\n"),
        (meminfo, "MemTotal:              1 kB\nZswap:                 2 kB\n"),
    ):
        parse: Callable[[str], object] = module.parse
        assert module.render(parse(text)) == text


@pytest.mark.parametrize("file", MODULES)
@pytest.mark.parametrize("piece", ["1", "1 ", " 1", "a", " a ", ">1"])
def test_long_lines_are_refused_quickly(file: str, piece: str) -> None:
    """No pattern may try all ways to cut a long line (this took hours before it took none)."""
    import time

    text = next(t for f, _, t in TEXTS if f == file)
    start = time.process_time()
    for i, line in enumerate(text.split("\n")[:12]):
        damaged = text.split("\n")[:i] + [line.rstrip() + piece * 2000 + "!"]
        _parse(MODULES[file], "\n".join(damaged))
    assert time.process_time() - start < 2
