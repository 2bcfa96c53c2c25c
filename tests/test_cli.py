"""The tools on the command line: the same text as the page's, JSON with a stable shape, exit statuses."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mmcore.__main__ as cli
from mmcore.report import workbench

ROOT = Path(__file__).resolve().parents[1]
#: Tools that read a file, and those that take words.
FILES = ("zoneinfo", "buddyinfo", "cgroup", "alloc-failure", "oom-report", "maps", "smaps")
WORDS = ("gfp", "pte", "pagemap", "kpageflags", "address")
EXAMPLES = {name: about["example"] for name, about in workbench.tools().items()}


class Input(io.TextIOWrapper):
    """Standard input with some bytes in it."""

    def __init__(self, data: bytes, tty: bool = False) -> None:
        super().__init__(io.BytesIO(data))
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty


def call(*argv: str, data: bytes = b"", tty: bool = False) -> tuple[int, str, str]:
    """Run a command in this process; return status, output and errors."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", Input(data, tty))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        status = cli.main(argv)
    return status, out.getvalue(), err.getvalue()


def test_every_tool_is_a_command() -> None:
    assert set(FILES) | set(WORDS) == set(workbench.TOOLS)


@pytest.mark.parametrize("tool", [*FILES, *WORDS])
def test_the_command_prints_what_the_page_shows(tool: str, tmp_path: Path) -> None:
    example = EXAMPLES[tool]
    want = workbench.run(tool, example)
    assert want["ok"]
    assert call(tool, "-", data=example.encode()) == (0, want["text"] + "\n", "")
    status, out, err = call(tool, "--json", "-", data=example.encode())
    assert (status, err) == (0, "") and json.loads(out) == want
    if tool in FILES:
        path = tmp_path / "a file"
        path.write_text(example)
        assert call(tool, str(path)) == (0, want["text"] + "\n", "")
    else:
        assert call(tool, data=example.encode()) == (0, want["text"] + "\n", "")
        assert call(tool, *example.split()) == (0, want["text"] + "\n", "")


def test_the_shape_of_the_json() -> None:
    """What programs rely on; a change here is a new schema."""
    answer = json.loads(call("gfp", "--json", "0xcc0")[1])
    assert list(answer) == ["schema", "tool", "ok", "text", "rows", "error", "line"]
    assert (answer["schema"], answer["tool"], answer["ok"], answer["error"]) == (
        1,
        "gfp",
        True,
        None,
    )
    (row,) = answer["rows"]
    assert (row["mask"], row["names"], row["numbering"]) == (0xCC0, "GFP_KERNEL", "6.12")
    assert row["bits"][0] == {
        "bit": 6,
        "name": "__GFP_IO",
        "meaning": "may start disk I/O to free memory",
    }
    (row,) = json.loads(call("pte", "--json", "8000000012345867")[1])["rows"]
    assert (row["value"], row["pfn"], row["level"]) == ("0x8000000012345867", 0x12345, "PTE")
    bad = json.loads(call("buddyinfo", "--json", "-", data=b"\n\nNode 0, zone DMA 1 x\n")[1])
    assert (bad["ok"], bad["rows"], bad["line"]) == (False, [], 3) and "line 3" in bad["error"]


@pytest.mark.parametrize(
    ("argv", "same"),
    [
        (["gfp", "--kernel", "4.19", "0x6000c0"], "kernel=4.19 0x6000c0"),
        (["pte", "--size", "2m", "80000000126000e7"], "size=2m 80000000126000e7"),
        (["pte", "PMD", "80000000126000e7"], "PMD 80000000126000e7"),
        (
            ["pte", "--device-private", "--levels", "5", "e7ffffffffdb9600"],
            "device_private=yes levels=5 e7ffffffffdb9600",
        ),
        (
            ["pagemap", "--device-private", "400000000000247c"],
            "device_private=yes 400000000000247c",
        ),
        (["address", "--levels", "5", "ff11000012345678"], "levels=5 ff11000012345678"),
        (
            ["address", "--page-offset-base", "ffff9a0000000000", "ffff9a0012345678"],
            "page_offset_base=ffff9a0000000000 ffff9a0012345678",
        ),
        (
            ["address", "--phys-base", "3c00000", "ffffffff81000000"],
            "phys_base=3c00000 ffffffff81000000",
        ),
    ],
)
def test_options_are_words_of_the_text(argv: list[str], same: str) -> None:
    want = workbench.run(argv[0], same)
    assert want["ok"] and call(*argv) == (0, want["text"] + "\n", "")


def test_buddyinfo_takes_a_threshold(tmp_path: Path) -> None:
    path = tmp_path / "b"
    path.write_text("Node 0, zone Normal 1000 0 0 0 0\n")
    assert "no block: may compact, fragmented" in call("buddyinfo", str(path))[1]
    strict = call("buddyinfo", "--extfrag-threshold", "1000", str(path))[1]
    assert "no block: no compaction" in strict and "here 1.000" in strict
    assert call("buddyinfo", "--extfrag-threshold", "1001", str(path))[0] == 2


#: Input and the exit status that the module's docstring promises.
STATUS = [
    (["gfp", "0xcc0"], b"", 0),
    (["address", "ffff888000000000"], b"", 0),
    (["address", "0x0123456789abcdef"], b"", 1),
    (["zoneinfo", "-"], b"nothing", 1),
    (["buddyinfo", "-"], b"", 1),
    (["alloc-failure", "-"], b"all is well\n", 1),
    (["oom-report", "-"], b"all is well\n", 1),
    (["maps", "-"], b"all is well\n", 1),
    (["maps", "-"], b"400000-401000 r--p 0 00:00\n", 1),
    (["smaps", "-"], b"00400000-00401000 r--p 00000000 00:00 0 \n", 1),
    (["maps", "9999999"], b"", 2),
    (["smaps", "/nonexistent/smaps"], b"", 2),
    (["maps", "--max-map-count", "-5", "-"], b"00400000-00401000 r--p 00000000 00:00 0 \n", 2),
    (["vmafuzz", "--steps", "0"], b"", 2),
    (["gfp", "GFP_NONSENSE"], b"", 2),
    (["gfp", "-"], b"", 2),
    (["gfp", "--kernel", "1.0", "1"], b"", 2),
    (["pte", "zz"], b"", 2),
    (["pagemap", "1" * 30], b"", 2),
    (["kpageflags", "-"], b"hello", 2),
    (["address", "--phys-base", "x", "0"], b"", 2),
    (["zoneinfo", "/nonexistent/zoneinfo"], b"", 2),
    (["alloc-failure", "/"], b"", 2),
]


@pytest.mark.parametrize(("argv", "data", "status"), STATUS)
def test_exit_status(argv: list[str], data: bytes, status: int) -> None:
    found, out, err = call(*argv, data=data)
    assert found == status
    assert bool(err) == (status != 0)
    if err:
        assert err.startswith(f"mmcore {argv[0]}: ") and err.count("\n") == 1
    if status and argv[0] != "address":
        assert out == ""


def test_a_terminal_is_not_waited_for() -> None:
    status, out, err = call("gfp", tty=True)
    assert (status, out) == (2, "") and "give a number" in err


def test_help_is_complete() -> None:
    with pytest.raises(SystemExit):
        call("--help")
    for tool in (*FILES, *WORDS):
        done = subprocess.run(
            [sys.executable, "-m", "mmcore", tool, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "--json" in done.stdout and done.stderr == ""
        assert len(re.findall(r"^[A-Z].*", done.stdout, re.M)) >= 1, f"{tool} is not described"
    assert cli.__doc__ and all(tool in cli.__doc__ for tool in (*FILES, *WORDS))


def test_through_a_real_pipe() -> None:
    """Bytes that are no text, output to a reader that goes away, 10 MB: no traceback."""

    def piped(argv: list[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "mmcore", *argv],
            cwd=ROOT,
            input=data,
            capture_output=True,
            check=False,
        )

    done = piped(["alloc-failure", "-"], b"\xff\xfe\x00\x80" * 1000)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    done = piped(["buddyinfo", "-"], b"<script>\x1b[31m\n" * 600_000)
    assert done.returncode == 1 and b"\x1b" not in done.stderr and b"Traceback" not in done.stderr
    done = piped(["gfp", "-"], b"a" * (workbench.MAX_INPUT + 10))
    assert done.returncode == 2 and b"more than 16 MiB" in done.stderr
    argv = [sys.executable, "-m", "mmcore", "pte", "8000000012345867"]
    head = subprocess.run(
        f"{' '.join(argv)} | head -1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert head.stdout.startswith("Maps a 4 KiB page") and head.stderr == ""


def test_a_report_in_other_encodings_prints_in_a_plain_terminal() -> None:
    """An output that cannot show a character must not end in a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "mmcore", "alloc-failure", "-"],
        cwd=ROOT,
        input="内存: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), nodemask=(null)\n".encode(),
        capture_output=True,
        check=False,
        env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )
    assert b"Traceback" not in done.stderr and done.returncode == 0
    assert done.stdout.startswith(b"Cause unknown: the report has no zones")


@pytest.mark.parametrize("tool", [*FILES, *WORDS])
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=120))
def test_any_bytes_end_in_words(tool: str, data: bytes) -> None:
    status, out, err = call(tool, "-", data=data)
    assert status in (0, 1, 2) and "Traceback" not in err
    want = workbench.run(tool, data)
    assert (status == 0) == want["ok"]
    assert out == (want["text"] + "\n" if want["ok"] or want["rows"] else "")


@given(st.text(max_size=60))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_any_word_ends_in_words(word: str) -> None:
    for tool in WORDS:
        if word.startswith("-") or "\x00" in word:
            continue
        status, _, err = call(tool, word)
        assert status in (0, 1, 2) and (status == 0) == (err == "")
