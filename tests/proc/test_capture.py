"""Capture files and folders."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.errors import ParseError, UsageError
from mmcore.proc import capture

TEXT = """# experiment: "x"
# topology_spec: {"mem": "1G"}
# note: not json

=== a | cat /proc/a | rc=0
one
two

=== empty | true | rc=1


=== vals | vals /proc/sys/vm/* | rc=0
/proc/sys/vm/x = 1
/sys/y = a|b

=== SOURCE s.sh | sha256 00 | rc=0
/proc/sys/vm/z = 9
"""


def test_sections() -> None:
    cap = capture.parse(TEXT)
    assert list(cap) == ["a", "empty", "vals", "SOURCE s.sh"]
    assert cap["a"] == "one\ntwo\n" and cap["empty"] == ""
    assert cap.sections[1].rc == "1" and cap.sections[0].line == 6
    assert cap.header == {"experiment": "x", "topology_spec": {"mem": "1G"}, "note": "not json"}
    assert cap.file("/proc/a") == "one\ntwo\n"
    assert cap.file("/proc/sys/vm/x") == "1\n" and cap.file("/sys/y") == "a\nb\n"
    assert cap.file("/proc/sys/vm/z") is None and cap.file("/nothing") is None
    assert "a" in cap and "b" not in cap
    with pytest.raises(UsageError, match="no section 'b'; there are a, empty"):
        cap["b"]


def test_names_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "zoneinfo" in capture.load("n1-1g/physical")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "x.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    monkeypatch.setenv("MMCORE_CAPTURES", str(tmp_path))
    assert capture.load("t/x")["a"] == "one\ntwo\n"
    assert capture.load(tmp_path / "t" / "x.txt.gz")["a"] == "one\ntwo\n"
    with pytest.raises(UsageError, match="no capture 't/y'; looked in"):
        capture.load("t/y")


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "zoneinfo").write_text("z\n")
    (tmp_path / "proc" / "vmstat.gz").write_bytes(gzip.compress(b"v\n"))
    (tmp_path / "meminfo").write_text("m\n")
    (tmp_path / "dmesg").write_text("d\n")
    cap = capture.load(tmp_path)
    assert [cap.file(f"/proc/{n}") for n in ("zoneinfo", "vmstat", "meminfo", "x")] == [
        "z\n",
        "v\n",
        "m\n",
        None,
    ]
    assert cap.dmesg == "d\n"
    assert list(cap.files("/proc/zone*")) == ["/proc/zoneinfo"]


def test_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(TEXT.encode())[:-9])
    with pytest.raises(ParseError, match="gzip"):
        capture.load(path)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    try:
        capture.parse(capture.decode(data, "x"))
    except ParseError:
        pass


def test_what_may_not_be_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "pagetypeinfo").write_text("x\n")
    cap = capture.load(tmp_path)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert cap.file("/proc/pagetypeinfo") is None
    assert cap.file("/proc/pagetypeinfo") is None
    assert cap.unreadable == ["/proc/pagetypeinfo"]
