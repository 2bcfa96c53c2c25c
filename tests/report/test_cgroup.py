"""The cgroup tool: what it calculates, what it reads, and input that means no good; and the replay of a record."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pytest

from mmcore.errors import MMError, ParseError, UsageError
from mmcore.proc.capture import load
from mmcore.report import cgroup, cgrouplog

GIB = 1 << 30
TREE = f"""/sys/fs/cgroup/memory.stat:anon 4096
/sys/fs/cgroup/p/memory.current:{16 * GIB}
/sys/fs/cgroup/p/memory.low:{10 * GIB}
/sys/fs/cgroup/p/memory.max:{17 * GIB}
/sys/fs/cgroup/p/a/memory.current:{8 * GIB}
/sys/fs/cgroup/p/a/memory.low:{8 * GIB}
/sys/fs/cgroup/p/b/memory.current:{4 * GIB}
/sys/fs/cgroup/p/b/memory.low:{8 * GIB}
/sys/fs/cgroup/p/b/memory.max:{8 * GIB}
/sys/fs/cgroup/p/c/memory.current:{4 * GIB}
/sys/fs/cgroup/p/c/memory.low:0
/sys/fs/cgroup/p/c/memory.high:{4 * GIB * 10 // 11}
/sys/fs/cgroup/p/c/memory.events:high 12
"""


def rows(text: str) -> dict[str, dict[str, object]]:
    return {row["group"]: row for row in cgroup.report(text)[1]}


def test_effective_protection_of_a_tree() -> None:
    got = rows(TREE)
    assert [got[f"/p/{n}"]["effective_low"] for n in "abc"] == [
        10 * GIB * 8 // 12 // 4096 * 4096,
        10 * GIB * 4 // 12 // 4096 * 4096,
        0,
    ]
    text = "\n".join(cgroup.report(TREE)[0])
    assert "/p/a claims 8.0 GiB of memory.low and gets 6.7 GiB" in text


def test_recursive_protection_is_an_option() -> None:
    text = TREE.replace(f"memory.low:{8 * GIB}", f"memory.low:{2 * GIB}")
    assert [rows(text)[f"/p/{n}"]["effective_low"] for n in "abc"] == [5 * GIB, 3 * GIB, 2 * GIB]
    none = rows("recursiveprot=no\n" + text)
    assert [none[f"/p/{n}"]["effective_low"] for n in "abc"] == [2 * GIB, 2 * GIB, 0]


def test_room_is_what_the_nearest_full_ancestor_leaves() -> None:
    got = rows(TREE)
    assert (got["/p/b"]["room"], got["/p/b"]["room_limited_by"]) == (GIB, "/p")
    assert [d["group"] for d in got["/p/b"]["distances"]] == ["/p/b", "/p"]  # type: ignore[union-attr,index,attr-defined]
    assert got["/"]["room"] is None


@pytest.mark.parametrize(("hz", "jiffies"), [(250, 159), (1000, 639)])
def test_the_wait_above_high(hz: int, jiffies: int) -> None:
    """110 % of memory.high, up to a page of rounding."""
    row = rows(f"hz={hz}\n{TREE}")["/p/c"]
    assert abs(int(str(row["wait_jiffies"])) - jiffies) <= 1
    assert row["events"] == {"high": 12}


def test_a_part_of_a_tree_says_where_it_begins() -> None:
    lines, data, _ = cgroup.report(TREE.split("\n", 1)[1])
    assert any("starts above /sys/fs/cgroup/p." in line for line in lines)
    assert data[0]["effective_low"] == 10 * GIB


def test_version_one_is_named() -> None:
    text = (
        f"/cg/memory/x/memory.usage_in_bytes:{GIB}\n/cg/memory/x/memory.limit_in_bytes:{GIB}\n"
        "/cg/memory/x/memory.failcnt:7\n"
        f"/cg/memory/memory.limit_in_bytes:9223372036854771712\n/cg/memory/memory.usage_in_bytes:{2 * GIB}\n"
    )
    lines, data, _ = cgroup.report(text)
    assert lines[0] == "2 groups, cgroup version 1."
    assert "/x: 7 charges hit the limit (failcnt)." in lines
    assert data[1]["room"] == 0 and "low" not in data[1]


def test_head_prints_files_with_names() -> None:
    text = "==> /sys/fs/cgroup/g/memory.current <==\n8192\n\n==> /sys/fs/cgroup/g/memory.max <==\nmax\n"
    assert rows(text)[next(iter(rows(text)))]["current"] == 8192


def test_a_live_tree_and_an_archive(tmp_path: Path) -> None:
    for line in TREE.splitlines():
        path, _, value = line.partition(":")
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / "cgroup.controllers").write_text("memory\n")
        file.write_text(value + "\n")
    top = tmp_path / "sys/fs/cgroup"
    (top / "cgroup.controllers").write_text("memory\n")
    whole = {row["group"]: row for row in cgroup.report("recursiveprot=yes\n" + cgroup.live_text(top).split("\n", 1)[-1])[1]}  # fmt: skip
    assert whole["/p/a"]["effective_low"] == rows(TREE)["/p/a"]["effective_low"]
    # A group alone: those above and beside it are read as well.
    part = {row["group"]: row for row in cgroup.report(cgroup.live_text(top / "p" / "a"))[1]}
    assert part["/p/a"]["effective_low"] == whole["/p/a"]["effective_low"]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        archive.add(top, "sys/fs/cgroup")
    packed = cgroup.tar_text(out.getvalue())
    assert rows(packed)["/p/b"]["effective_low"] == rows(TREE)["/p/b"]["effective_low"]
    with pytest.raises(ParseError):
        cgroup.tar_text(out.getvalue()[:200])
    with pytest.raises(UsageError, match="no folder"):
        cgroup.live_text(tmp_path / "none")


def test_damaged_lines_are_named_and_left_out() -> None:
    lines, data, _ = cgroup.report(TREE + "/sys/fs/cgroup/p/a/memory.max:lots\n" + "x" * 5000)
    assert any("memory.max of /sys/fs/cgroup/p/a holds 'lots'" in line for line in lines)
    assert len(data) == 5


@pytest.mark.parametrize("text", ["", "all is well\n", "memory.current", "\0\0\0", "hz=250\n"])
def test_what_is_no_group(text: str) -> None:
    with pytest.raises(ParseError, match="no file of a memory cgroup"):
        cgroup.report(text)


@pytest.mark.parametrize("option", ["hz=0", "hz=abc", "recursiveprot=maybe"])
def test_an_option_that_is_not_allowed(option: str) -> None:
    with pytest.raises(UsageError):
        cgroup.report(f"{option}\n{TREE}")


def test_hostile_texts_never_raise_anything_else() -> None:
    rng = random.Random(10)
    pieces = ["/memory.current:5", "a/memory.max:max", "9" * 5000, "/..//../memory.low:1", "==> memory.high <==", "\n", ":", "\0", "memory.stat:anon -5", "/a/b/c/d/memory.min:18446744073709551615", "/memory.events:oom x", "hz=1", "é\u202e"]  # fmt: skip
    for _ in range(300):
        base = list(TREE) if rng.random() < 0.5 else []
        for _ in range(rng.randint(1, 8)):
            base.insert(rng.randint(0, len(base)), rng.choice(pieces))
            if base and rng.random() < 0.5:
                del base[rng.randrange(len(base))]
        try:
            cgroup.report("".join(base))
        except MMError:
            pass
    deep = "".join(f"{'/d' * n}/memory.current:4096\n" for n in range(1, 1500, 50))
    assert len(cgroup.report(deep)[1]) == 30


CAPTURE = load("n1-256m-pmem/cgroup")
LOADS = cgrouplog.parse(CAPTURE["charges"]) + cgrouplog.parse(CAPTURE["limits"])


def test_the_record_is_done_again() -> None:
    """Every usage, peak and event of the recorded groups follows from what their processes used."""
    even = 0
    for done, used, after in cgrouplog.replay(LOADS):
        if done.uneven:
            continue
        even += 1
        for mine, theirs in ((used, done.used), (after, done.after)):
            shown = {name: theirs[name] for name in mine if name in theirs}
            assert {name: mine[name] for name in shown} == shown, done.name
    assert (even, len(LOADS)) == (9, 10)


def test_another_batch_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgrouplog.mc, "MEMCG_CHARGE_BATCH", 32)
    got = cgrouplog.replay(LOADS[:2])
    assert any(used["memory.current"] != done.used["memory.current"] for done, used, _ in got)


@pytest.mark.parametrize("text", ["memory.current 5", "-- no limits, anon=1\nmemory.current x", "-- no limits, anon=1\nexit 1"])  # fmt: skip
def test_a_damaged_record(text: str) -> None:
    with pytest.raises(ParseError):
        cgrouplog.parse(text)
