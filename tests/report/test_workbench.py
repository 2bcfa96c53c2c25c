"""The workbench: every tool on its example, on what people paste by mistake, and on hostile input."""

from __future__ import annotations

import gzip
import json
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.report import workbench

NAMES = list(workbench.TOOLS)
EXAMPLES = {name: about["example"] for name, about in workbench.tools().items()}
KEYS = {"schema", "tool", "ok", "text", "rows", "error", "line"}
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

#: The keys of a row of each tool: what programs rely on. Keys may be added, none removed.
ROWS = {
    "alloc-failure": "line kind comm order gfp_mask gfp_names numbering cause summary highest_zone "
    "alloc_flags zones notes killed problems",
    "zoneinfo": "node zone free min low high managed request highest_zone asks floor pages largest_order",
    "buddyinfo": "node zone order blocks pages unusable_free_index fragmentation_index outcome",
    "gfp": "mask names numbering sure mask_6_12 count bits facts",
    "pte": "value label kind summary level pfn size flags swp_type swp_offset bits",
    "pagemap": "value label kind summary present swapped file soft_dirty exclusive uffd_wp pfn swp_type "
    "swp_offset",
    "kpageflags": "value label kind summary flags",
    "address": "address canonical mark places",
    "maps": "mappings max_map_count max_map_count_given mmap_left splits_left groups apart maps maps_left_off",
    "smaps": "rollup mappings total_kb kinds maps",
    "cgroup": "group version current min low high max effective_min effective_low over_high wait_jiffies "
    "room room_limited_by distances events",
    "oom-report": "line when kernel complete problems summary request constraint cause zones swap "
    "accounting ranking selected victim kills",
}


def checked(tool: str, data: str | bytes) -> dict[str, object]:
    """Run a tool and check what holds for every answer."""
    answer = workbench.run(tool, data)
    assert set(answer) >= KEYS and answer["schema"] == 1 and answer["tool"] == tool
    assert json.loads(json.dumps(answer)) == answer
    assert answer["text"] and not CONTROL.search(answer["text"].replace("\n", ""))
    if not answer["ok"]:
        assert answer["error"] and "\n" not in answer["error"]
        assert "fault in it" not in answer["error"], answer["error"]
    else:
        assert answer["error"] is None
        assert answer["rows"] or answer["text"].startswith("No zone has memory.")
    return answer


@pytest.mark.parametrize("tool", NAMES)
def test_the_example_is_answered(tool: str) -> None:
    answer = checked(tool, EXAMPLES[tool])
    assert answer["ok"]
    rows = answer["rows"]
    assert isinstance(rows, list) and set(rows[0]) >= set(ROWS[tool].split())
    assert checked(tool, EXAMPLES[tool].encode()) == answer
    assert checked(tool, EXAMPLES[tool].replace("\n", "\r\n")) == answer


def test_what_the_page_is_told() -> None:
    labels = "".join(p.read_text() for p in (Path(__file__).parents[2] / "book").glob("*.md"))
    for name, about in workbench.tools().items():
        assert {"title", "prompt", "placeholder", "rows", "example", "command", "section"} <= set(
            about
        )
        assert f"({about['section']})=" in labels, f"{name}: no section {about['section']}"
        assert f"python -m mmcore {name}" in about["command"]


WRONG = [
    "",
    " \n\t\n",
    "\x00" * 300,
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>" * 50,
    "\x1b[2J\x1b]0;title\x07 0xcc0",
    "\u202e0xcc0\u202c",
    "\ud800\udfff",
    "Node 0, zone",
    "Node 0, zone DMA",
    "Node 999999999999999999999, zone DMA 1 2 3",
    "Node 0, zone DMA " + "9" * 5000,
    "Node 0, zone DMA " + "1 " * 2000,
    "order:99999999, mode:0xcc0",
    "x: page allocation failure: order:99999999999, mode:0xffffffffffffffff",
    "x: page allocation failure: order:4000, mode:0xcc0(GFP_KERNEL)",
    "x: page allocation failure: order:3, mode:0x3(GFP_DMA|__GFP_HIGHMEM), nodemask=0-99999",
    "invoked oom-killer: gfp_mask=0x",
    "Mem-Info:",
    "Mem-Info:\nNode 0 DMA free:99999999999999999999kB min:1kB",
    "0x" + "f" * 5000,
    "1" * 5000,
    "PTE PTE PTE",
    "PMD: PTE:",
    "kernel=99.99 0xcc0",
    "kernel=",
    "levels=9 0",
    "levels=x 0",
    "size=9g 0",
    "device_private=maybe 0",
    "page_offset_base=zz 0",
    "page_offset_base=" + "f" * 17 + " 0",
    "extfrag_threshold=4000\nNode 0, zone DMA 1 2 3",
    "GFP_" * 2000,
    "GFP_KERNEL|" * 2000,
    "|||",
    "0xcc0" * 1000,
    "内存不足 нет памяти ذاكرة 🙂",
    "－０ｘｃｃ０",
    "٣٤٥",
    "null",
    '{"a": [1, 2]}',
    "%s%n{0}{}",
    "../../etc/passwd",
    "'; DROP TABLE pages; --",
]


@pytest.mark.parametrize("tool", NAMES)
def test_what_is_no_such_text_is_refused_in_words(tool: str) -> None:
    for text in WRONG:
        checked(tool, text)
        checked(tool, text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("tool", NAMES)
def test_hostile_text_around_a_good_one_stays_text(tool: str) -> None:
    evil = "<script>alert(1)</script>\x1b[31m\x07\u202e&lt;"
    answer = checked(tool, EXAMPLES[tool].rstrip("\n") + "\n" + evil + "\n")
    assert "\x1b" not in str(answer["text"]) and "&amp;" not in str(answer["text"])


def test_a_name_in_a_log_can_carry_nothing_out() -> None:
    head = (
        "<b>\x1b[1mevil\u202e: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), nodemask=0"
    )
    answer = checked("alloc-failure", head)
    assert answer["ok"] and "<b>" in str(answer["text"]) and "evil\ufffd" in str(answer["text"])


def test_an_unknown_tool() -> None:
    answer = workbench.run("nonsense\x1b", "x")
    assert not answer["ok"] and "there are " + ", ".join(NAMES) in answer["error"]
    assert "\x1b" not in answer["error"]


def test_files_of_all_kinds() -> None:
    text = EXAMPLES["buddyinfo"]
    want = workbench.run("buddyinfo", text)
    assert want["ok"]
    for data in (
        text.encode("utf-16"),
        b"\xef\xbb\xbf" + text.encode(),
        gzip.compress(text.encode()),
        text.replace(" ", "\u00a0").encode(),
    ):
        assert workbench.run("buddyinfo", data) == want
    damaged = bytearray(gzip.compress(random.Random(1).randbytes(5000)))
    damaged[2:60] = b"\xff" * 58
    assert "damaged" in workbench.run("buddyinfo", bytes(damaged))["error"]


def test_too_large_a_text_is_refused_at_once() -> None:
    bomb = gzip.compress(b"\0" * (workbench.MAX_INPUT + 2))
    for data in ("a" * (workbench.MAX_INPUT + 1), b"a" * (workbench.MAX_INPUT + 1), bomb):
        start = time.process_time()
        answer = workbench.run("gfp", data)
        assert "more than 16 MiB" in answer["error"] and time.process_time() - start < 2


TEN_MB = 10_000_000
HUGE = {
    "one line": "a",
    "empty lines": "\n",
    "blanks": " ",
    "markup": "<script>alert(1)</script>\n",
    "zones": "Node 0, zone DMA 1 2 3 4\n",
    "unfinished zones": "Node 0, zone   Normal\n",
    "heads": "x: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), nodemask=(null)\n",
    "prefixes": "Jan  1 00:00:00 h kernel: [  1.0] ",
    "words": "PTE 8000000012345867 ",
    "mappings": "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \nRss: 4 kB\n",
}


@pytest.mark.parametrize("kind", HUGE)
@pytest.mark.parametrize("tool", NAMES)
def test_ten_megabytes_take_seconds(tool: str, kind: str) -> None:
    text = (HUGE[kind] * (TEN_MB // len(HUGE[kind]) + 1))[:TEN_MB]
    start = time.process_time()
    answer = checked(tool, text)
    assert time.process_time() - start < 15
    assert len(str(answer["text"])) < 1_000_000


@pytest.mark.parametrize("tool", NAMES)
def test_twice_the_text_takes_about_twice_the_time(tool: str) -> None:
    """No input of a few hundred kilobytes is worse than linear: 8 times as much, at most 24 times."""
    for piece in ("[ ", "(", "GFP_A|", "1*4kB ", "a:1 ", "page allocation failure: ", "0x1 "):

        def seconds(n: int) -> float:
            text = (piece * (n // len(piece) + 1))[:n]  # noqa: B023
            start = time.process_time()
            workbench.run(tool, text)
            return time.process_time() - start

        small = min(seconds(50_000) for _ in range(2))
        assert seconds(400_000) < 24 * small + 0.5


FUZZ = settings(max_examples=60, deadline=None, derandomize=True)


@FUZZ
@given(st.sampled_from(NAMES), st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_gets_an_answer(tool: str, data: str | bytes) -> None:
    checked(tool, data)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(NAMES), st.randoms(use_true_random=False))
def test_any_damage_to_a_good_text_gets_an_answer(tool: str, chance: random.Random) -> None:
    """Cut it, double lines, drop characters, put other tools' words in."""
    text = EXAMPLES[tool]
    for _ in range(chance.randint(1, 6)):
        a, b = sorted(chance.randint(0, len(text)) for _ in range(2))
        what = chance.randint(0, 4)
        if what == 0:
            text = text[:b]
        elif what == 1:
            text = text[:a] + text[min(b, a + 5) :]
        elif what == 2:
            text = text[:b] + text[a:]
        elif what == 3:
            insert = chance.choice(["\n", " ", "\x00", "9" * 30, "-1", "kB", "(", "Node 7 ", "0x"])
            text = text[:a] + insert + text[a:]
        else:
            other = EXAMPLES[chance.choice(NAMES)]
            text = text[:a] + other[: chance.randint(0, 200)] + text[a:]
    checked(tool, text[:60_000])


def test_logs_that_a_collector_keeps() -> None:
    """Docker's and journald's JSON, journal fields, colours: the same answer, lines counted in the original."""
    log = EXAMPLES["alloc-failure"].split("\n")
    want = workbench.run("alloc-failure", "\n".join(log))["text"]
    bare = [line.partition("] ")[2] for line in log]
    for text in (
        "\n".join(json.dumps({"log": line + "\n", "stream": "stdout"}) for line in log),
        "\n".join(json.dumps({"MESSAGE": line, "_HOSTNAME": "h"}) for line in bare),
        "\n".join(f"    MESSAGE={line}" for line in bare),
        "\n".join(f"\x1b[32m{line}\x1b[0m" for line in log),
    ):
        assert workbench.run("alloc-failure", text)["text"] == want
    twice = "\n".join(json.dumps({"log": line}) for line in ["first", *log, *log])
    lines = [row["line"] for row in workbench.run("alloc-failure", twice)["rows"]]
    assert lines == [2, 2 + len(log)]
