"""The command line: what it prints, and how it fails."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from mmcore import __version__
from mmcore.__main__ import main
from mmcore.proc import buddyinfo, capture, zoneinfo


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(argv)
    out = capsys.readouterr()
    return status, out.out, out.err


def test_boot(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "boot", "1G")
    assert status == 0
    assert "991364 kB managed, min_free_kbytes 45056" in out
    assert "(0, 943, 943, 943, 943)" in out
    status, out, _ = run(capsys, "boot", "5G", "--nodes", "4G:0,1G:1", "--cpus", "2", "--dmesg")
    assert status == 0 and "Fallback order for Node 1: 1 0" in out
    status, out, _ = run(capsys, "boot", "1G", "--proc", "zoneinfo", "--nodes", "2")
    assert status == 0 and len(zoneinfo.parse(out)) == 10


def test_zoneinfo(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "zoneinfo"
    path.write_text(capture.load("n1-1g/physical")["zoneinfo"])
    status, out, _ = run(capsys, "zoneinfo", str(path))
    assert status == 0
    assert "Node 0 DMA32: 236548 pages free (924 MB) of 244001 managed" in out
    line = next(x for x in out.split("\n") if x.strip().startswith("GFP_ATOMIC"))
    # DMA for itself: 3808 - 66 (176 less half, less a quarter of the rest).
    assert line.split()[1] == str(3808 - 66)
    assert "kswapd sleeps" in out


def test_buddyinfo(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "buddyinfo"
    text = capture.load("n1-1g/physical")["buddyinfo"]
    path.write_text(text + "Node 0, zone   Normal " + "     0 " * 11 + "\n")
    status, out, _ = run(capsys, "buddyinfo", str(path))
    assert status == 0
    for zone in buddyinfo.parse(text):
        assert f"Node 0 {zone.zone}: {zone.free_pages} pages free" in out
    assert "largest free block: order 10 (4096 kB)" in out and "no free block" in out


def test_gfp(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "gfp", "0x140dca")
    assert status == 0
    assert "GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO" in out
    assert "highest zone:    Movable" in out and "migratetype:     Movable" in out
    status, out, _ = run(capsys, "gfp", "GFP_ATOMIC")
    assert "may sleep:       no" in out and "ALLOC_MIN_RESERVE" in out


def test_pte(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "pte", "0x8000000012345867")
    assert status == 0 and "pfn=12345" in out and "NX" in out


def test_alloc_failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"nothing here\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    status, _, err = run(capsys, "alloc-failure", "-")
    assert status == 1 and "page allocation failure" in err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert __version__ in run(capsys, "version")[1]
    with pytest.raises(SystemExit) as info:
        main(["--help"])
    assert info.value.code == 0
    assert "who may allocate what" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["boot", "10M"], 2, "at least 64M"),
        (["boot", "1G", "--cpus", "0"], 2, "cpus is 0"),
        (["boot", "1G", "--nodes", "1G,1G"], 2, "add up"),
        (["gfp", "bogus"], 2, "bogus"),
        (["pte", "xyz"], 2, "no hexadecimal number"),
        (["pte", "1" * 20], 2, "64 bits"),
        (["zoneinfo", "/nonexistent/file"], 2, "No such file"),
        (["buddyinfo", "/dev/null"], 1, "empty"),
    ],
)
def test_errors(
    capsys: pytest.CaptureFixture[str], argv: list[str], status: int, message: str
) -> None:
    found, out, err = run(capsys, *argv)
    assert (found, out) == (status, "")
    assert message in err and err.startswith(f"mmcore {argv[0]}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["boot"], ["boot", "1G", "--cpus", "x"]])
def test_wrong_use_is_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info:
        main(argv)
    assert info.value.code == 2
    assert "usage:" in capsys.readouterr().err
