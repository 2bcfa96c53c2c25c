"""Logs of address-space calls: reading them, and repeating them call by call.

The fixture holds the beginnings of two logs recorded on 6.12 (n1-1g): one forks and goes on in the child,
one sets limits, gives up its rights, and has few mappings left; both count after every call.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mmcore.errors import ParseError
from mmcore.mm import vma as vma_
from mmcore.report import vmalog

TEXT = gzip.decompress(
    (Path(__file__).parent / "fixtures" / "vma_limits_and_forks.txt.gz").read_bytes()
).decode()
FORKS, LIMITS = TEXT.split("=== ")[1:]


@pytest.mark.parametrize(("text", "op"), [(FORKS, "fork"), (LIMITS, "setrlimit")])
def test_every_answer_of_the_model_is_the_kernels(text: str, op: str) -> None:
    assert f'"op":"{op}"' in text
    result = vmalog.compare(text)
    assert not result.differences, str(result.differences[0])
    assert result.operations == 228 and result.checks == result.equal > 1700


def test_a_wrong_rule_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vma_, "is_mergeable_anon_vma", lambda one, other, vma: True)
    assert vmalog.compare(FORKS).differences, "forked mappings merged, and nobody saw it"


def _records() -> list[dict[str, Any]]:
    return vmalog.parse_log(LIMITS)


@pytest.mark.parametrize(("key", "value"), [("r", 4096), ("VmSize", 1), ("VmPTE", 1)])
def test_a_changed_number_is_a_difference(key: str, value: int) -> None:
    records = _records()[:30]
    records[20][key] += value
    result = vmalog.replay(records)
    assert len(result.differences) == 1 and result.differences[0].index == records[20]["i"]
    assert result.checks == result.equal + 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not a JSON object"),
        ('{"i":0,"op":"swim","a":[],"r":0,"del":[],"add":[]}', "unknown operation"),
        ('{"i":0,"op":"munmap","a":[1],"r":0,"del":[],"add":[]}', "takes 2 numbers"),
        ('{"i":0,"op":"munmap","a":[1,"2"],"r":0,"del":[],"add":[]}', "takes 2 numbers"),
        ('{"i":0,"op":"munmap","a":[1,2],"del":[],"add":[]}', "result"),
        ('{"i":0,"op":"munmap","a":[1,2],"r":0,"del":["x"],"add":[]}', "no map lines"),
        ('{"init":1}', "only that"),
        ('{"i":0}', "neither a call nor a check"),
    ],
)
def test_damaged_logs(line: str, why: str) -> None:
    first = json.dumps(_records()[0])
    with pytest.raises(ParseError, match=why) as caught:
        vmalog.parse_log(f"{first}\n{line}\n")
    assert caught.value.line == 2


def test_a_log_without_its_beginning() -> None:
    with pytest.raises(ParseError, match="initial map"):
        vmalog.parse_log(LIMITS.split("\n", 2)[2])
    with pytest.raises(ParseError, match="no records"):
        vmalog.parse_log("nothing\n")
