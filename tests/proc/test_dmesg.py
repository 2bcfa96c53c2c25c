"""Lines of the log, both ways, and the replay of a memblock log."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore import Machine
from mmcore.errors import ParseError, UsageError
from mmcore.proc import capture, dmesg, memblock_log

ROOT = Path(__file__).resolve().parents[2]
CAPTURES = [
    p for p in sorted((ROOT / "book" / "captures").glob("*/*.txt")) if capture.load(p).dmesg
]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_understood_lines_come_back(path: Path) -> None:
    lines = (capture.load(path).dmesg or "").split("\n")
    found = [(line, dmesg.parse_line(line)) for line in lines]
    known = [(line, parsed) for line, parsed in found if parsed is not None]
    assert len(known) > 30
    for line, parsed in known:
        assert parsed is not None and dmesg.render_line(parsed) == line


def test_a_machines_log_is_understood() -> None:
    m = Machine.boot("5G", nodes=2, cmdline="memblock=debug movablecore=1G")
    log = dmesg.parse("\n".join(m.dmesg))
    kinds = {line.kind for line in log.lines}
    assert {"e820", "mb_add", "mb_alloc", "mb_region", "zone_range", "movable_start"} <= kinds
    assert {"early_node", "unavailable", "fallback", "zonelists", "memory", "freeing"} <= kinds
    dumps = log.dumps()
    assert [r.nid for r in dumps[-1]["memory"]] == [0, 0, 1, 1]


def test_prefixes() -> None:
    for line in (
        "[    0.003122] memblock_add: [0x0000000000001000-0x000000000009fbff] f+0x1/0x2",
        "<6>[    0.003122] memblock_add: [0x0000000000001000-0x000000000009fbff] f+0x1/0x2",
        "[    0.003122][    T0] memblock_add: [0x0000000000001000-0x000000000009fbff] f+0x1/0x2",
        "memblock_add: [0x0000000000001000-0x000000000009fbff] f+0x1/0x2",
    ):
        parsed = dmesg.parse_line(line)
        assert parsed is not None and parsed.kind == "mb_add" and parsed.values["last"] == 0x9FBFF


def test_e820_errors() -> None:
    with pytest.raises(ParseError, match="no 'BIOS-e820:' line"):
        dmesg.parse_e820("hello")
    good = "BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable"
    with pytest.raises(ParseError) as info:
        dmesg.parse_e820(f"{good}\nBIOS-e820: [mem 0x0-0x1] usable\n")
    assert info.value.line == 2
    with pytest.raises(ParseError):
        dmesg.parse_e820(good.replace("usable", "free beer"))
    entries = dmesg.parse_e820(good.replace("usable", "persistent (type 12)"))
    assert entries[0].type == 12


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=120))
def test_any_line(text: str) -> None:
    parsed = dmesg.parse_line(text)
    if parsed is not None and not text.startswith("<"):
        assert dmesg.render_line(parsed) == text


def test_replay_notices_what_differs() -> None:
    """Move one recorded reservation: the replay says which request it was, and goes on."""
    text = capture.load("n1-1g/memblock").dmesg or ""
    log = dmesg.parse(text)
    end = 0x3FFE0000
    assert memblock_log.replay(log, end, lambda m: None).requests == 49
    moved = text.replace(
        "[0x000000003f948440-0x000000003f948488]", "[0x000000003f940440-0x000000003f940488]"
    )
    assert moved != text
    replay = memblock_log.replay(dmesg.parse(moved), end, lambda m: None)
    wrong = [x for x in replay.mismatches if "acpi_parse_hpet" in x.request]
    assert [(x.kernel, x.model) for x in wrong] == [(0x3F940440, 0x3F948440)]
    with pytest.raises(UsageError, match="memblock=debug"):
        memblock_log.replay(dmesg.parse("nothing"), end)
