"""Exact: what the kernel answered to the questions about mappings, line by line."""

from __future__ import annotations

import pytest

from mmcore.errors import ParseError
from mmcore.proc import capture
from mmcore.report import mapscript


@pytest.fixture(scope="module")
def text() -> str:
    return capture.read_text(capture.find("n1-1g/mappings"))


@pytest.fixture(scope="module")
def cap(text: str) -> capture.Capture:
    return capture.parse(text, "test")


def differing(rows):
    return [where for where, mine, theirs in rows if mine != theirs]


def test_every_answer_is_the_kernels(cap):
    rows = mapscript.compare(cap)
    assert differing(rows) == [] and len(rows) == 55
    assert ("mappings after", "65530", "65530") in rows
    # The lines of maps are whole: rights, offset, device, inode, padding and name.
    assert sum(mine.count("-") and " 00:00 0 " in mine for _, mine, _ in rows) == 12


def test_each_answer_can_differ(text, cap, monkeypatch):
    """One character off anywhere in an answer is one difference, in that answer."""
    asked = mapscript._asked(cap)
    monkeypatch.setattr(mapscript, "_asked", lambda _capture: asked)
    lines = cap["mappings"].splitlines()
    names = {where for where, _, _ in mapscript.compare(cap)}
    seen = 0
    for line in lines:
        name, _, answer = line.partition(": ")
        if name not in names:
            continue
        digit = next(i for i in range(len(answer) - 1, -1, -1) if answer[i].isdigit())
        other = f"{answer[:digit]}{(int(answer[digit]) + 1) % 10}{answer[digit + 1 :]}"
        bad = capture.parse(text.replace(f"\n{line}\n", f"\n{name}: {other}\n", 1), "test")
        assert differing(mapscript.compare(bad)) == [name]
        seen += 1
    assert seen == 54


def test_an_answer_that_is_missing_or_new_is_a_difference(text):
    cut = text.replace("\nbrk(1): 1\n", "\n", 1).replace("\nno type:", "\nnew: 1\nno type:", 1)
    assert differing(mapscript.compare(capture.parse(cut, "test"))) == ["brk(1)", "new"]


def test_a_machine_with_more_memory_grants_more(text):
    large = text.replace('topology_spec: {"memory": "1G"', 'topology_spec: {"memory": "80G"', 1)
    assert differing(mapscript.compare(capture.parse(large, "test"))) == ["mode 0, 64 GiB at once"]


def test_a_dynamic_program_is_refused_in_words(text):
    cut = text.replace("at the start 2: 00401000-00498000 r-xp", "at the start 2: (none) r-xp", 1)
    with pytest.raises(ParseError, match="static program"):
        mapscript.compare(capture.parse(cut, "test"))
