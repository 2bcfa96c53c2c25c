"""Tests of the decoder of OOM reports: facts of nine kernels' forms, forms of logs, and damaged texts."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from mmcore.errors import ParseError
from mmcore.proc.capture import load
from mmcore.report import oom_html, oom_report

FIXTURES = Path(__file__).parent / "fixtures" / "oom"

#: By fixture: kernel, constraint, cause, who asked, order, gfp names, victim, verdict, rule, total
#: pages, printed score, kB that no counter names.
FACTS: dict[str, tuple[Any, ...]] = {
    "v2.6.18-el5.txt": (
        *(None, "none", "shortage", "httpd", 0, "GFP_HIGHUSER|__GFP_COLD", 2368),
        *("unknown", "badness", 1021792, None, 13936),
    ),
    "v2.6.32-el6.txt": (
        *("2.6.32-642.el6.x86_64", "none", "shortage", "mysqld", 0),
        *("GFP_HIGHUSER_MOVABLE|__GFP_COLD", 2034, "agrees", "permille", 321071, 301, 35080),
    ),
    "v3.10-el7-memcg.txt": (
        *("3.10.0-327.4.5.el7.x86_64", "memcg", "cgroup", "java", 0, "GFP_KERNEL", 28438),
        *("agrees", "pages, less for root", 131072, 0, 68),
    ),
    "v3.2-i686-lowmem.txt": (
        *("3.2.0-4-686-pae", "none", "fragmentation", "squid", 3),
        *("GFP_KERNEL|__GFP_NOWARN|__GFP_COMP", 15540, "agrees", "permille", 9617885, 61, 834568),
    ),
    "v4.19-arm64-64k.txt": (
        *("4.19.36-1.aarch64", "none", "shortage", "stress", 0, "GFP_HIGHUSER_MOVABLE", 8123),
        *("agrees", "pages", 61440, 692, 73472),
    ),
    "v4.4-ubuntu.txt": (
        *("4.4.0-66-generic", "none", "shortage", "java", 0, "GFP_HIGHUSER_MOVABLE|__GFP_COLD"),
        *(2088, "agrees", "pages, less for root", 127562, 726, 5752),
    ),
    "v5.10-journald-multiline.txt": (
        *("5.10.0-8-amd64", "memcg", "cgroup", "((sd-pam))", 0, "GFP_KERNEL", 811),
        *("agrees", "pages, may be negative", 16384, None, 1214),
    ),
    "v5.4-k8s-docker.json": (
        *("5.4.0-1059-azure", "memcg", "cgroup", "node", 0, "GFP_KERNEL", 19402),
        *("agrees", "pages", 262144, None, -40),
    ),
    "v6.8-slab.txt": (
        *("6.8.0-31-generic", "none", "shortage", "cron", 0, "GFP_HIGHUSER_MOVABLE|__GFP_COMP"),
        *(737, "agrees", "pages, may be negative", 243840, None, 195280),
    ),
}


def told(text: str) -> list[dict[str, Any]]:
    """Return the decoder's answer as data, after checking that it can be written out too."""
    said = oom_report.examine(text)
    assert oom_report.lines(said)
    return [oom_report.to_dict(a) for a in said]


@pytest.mark.parametrize("name", sorted(FACTS))
def test_facts_of_nine_kernels(name: str) -> None:
    """What a report says and what follows from it, by that kernel's arithmetic."""
    (row,) = told((FIXTURES / name).read_text())
    request, ranking = row["request"], row["ranking"]
    assert (
        *(row["kernel"], row["constraint"], row["cause"], request["comm"], request["order"]),
        *(request["gfp_names"], row["victim"]["pid"], ranking["verdict"], ranking["rule"]),
        *(ranking["total_pages"], ranking["score_printed"], row["accounting"]["unaccounted_kb"]),
    ) == FACTS[name]


def test_all_fixtures_are_tested() -> None:
    assert sorted(FACTS) == sorted(path.name for path in FIXTURES.iterdir())


@pytest.mark.parametrize("key", ["global_dmesg", "memcg_dmesg", "swap_dmesg"])
def test_the_lab_s_own_reports(key: str) -> None:
    """Reports of the reference kernel: nothing is missing, and every choice agrees with the points."""
    rows = told(load("n1-256m/oom")[key])
    assert rows
    for row in rows:
        assert not row["problems"]
        assert row["victim"] is not None
        if row["ranking"]["tasks"]:
            assert row["ranking"]["verdict"] in ("agrees", "possible"), row["ranking"]["why"]


HEAD = "app invoked oom-killer: gfp_mask=0x{mask}, order={order}, oom_score_adj=0"
ZONES = """\
Mem-Info:
active_anon:800 inactive_anon:90 isolated_anon:0
 active_file:3 inactive_file:4 isolated_file:0
 unevictable:0 dirty:0 writeback:0 unstable:0
 slab_reclaimable:10 slab_unreclaimable:20
 mapped:1 shmem:2 pagetables:5 bounce:0
 free:95 free_pcp:0 free_cma:0
Node 0 DMA32 free:380kB min:400kB low:500kB high:600kB present:4400kB managed:4200kB mlocked:0kB
lowmem_reserve[]: 0 0 0 0
Node 0 DMA32: 15*4kB (U) 40*8kB (U) 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB 0*2048kB 0*4096kB = 380kB
Free swap  = 0kB
Total swap = 400kB
1100 pages RAM
0 pages HighMem/MovableOnly
50 pages reserved
"""
END = """\
[ pid ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
[   12]  1000    12     9000      700        20480       50             0 app
[   13]  1000    13     9000      600        20480       10             0 other
Out of memory: Kill process 12 (app) score 655 or sacrifice child
Killed process 12 (app) total-vm:36000kB, anon-rss:2700kB, file-rss:100kB, shmem-rss:0kB
"""
WHOLE = HEAD.format(mask="6280ca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO)", order=0) + "\n" + ZONES + END


def facts(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        *(row["request"]["comm"], row["request"]["gfp_names"], row["request"]["order"]),
        *(row["victim"]["pid"], row["victim"]["values_kb"], row["swap"], row["counters_pages"]),
        *([(z["zone"], z["free"], z["mark"], z["ok"]) for z in row["zones"]],),
        *(row["ranking"]["verdict"], row["ranking"]["score_computed"], row["accounting"]),
    )


def test_the_numbers_of_a_small_report() -> None:
    """Recomputed by hand: (700 + 50 + 5) * 1000 / 1150 = 656, one more than was printed."""
    (row,) = told(WHOLE)
    assert row["ranking"]["total_pages"] == 1100 - 50 + 100
    assert row["ranking"]["score_computed"] == [656, 656]
    assert row["accounting"]["total_kb"] == 4200
    counted = 800 + 90 + 3 + 4 + 10 + 20 + 5 + 95
    assert row["accounting"]["unaccounted_kb"] == 4200 - 4 * counted


def syslog(line: str) -> str:
    return f"Mar  1 10:00:00 box kernel: [  100.000001] {line}"


def forms() -> dict[str, str]:
    """Return the report in the forms that logs and mails give it."""
    lines = WHOLE.splitlines()
    wrapped: list[str] = []
    for line in lines:
        while len(line) > 76 and " " in line[:76]:
            at = line.rindex(" ", 0, 76)
            wrapped.append("> " + line[:at])
            line = line[at + 1 :]
        wrapped.append("> " + line)
    soft = "\n".join(syslog(line) for line in lines).replace("=", "=3D")
    soft = "\n".join(
        "=\n".join(line[i : i + 60] for i in range(0, len(line), 60)) if "=3D" not in line else line
        for line in soft.split("\n")
    )
    counts = [i for i, line in enumerate(lines) if line.startswith(" ") or "active_anon" in line]
    paragraph = "#012".join(lines[counts[0] : counts[-1] + 1])
    rsyslog = [*lines[: counts[0]], paragraph, *lines[counts[-1] + 1 :]]
    return {
        "syslog": "\n".join(map(syslog, lines)),
        "quoted": "\n".join(f">> [  100.000001] {line}" for line in lines),
        "wrapped mail": "\n".join(wrapped),
        "quoted-printable": soft,
        "backslash": "\n".join(
            f"[  100.1] {line[:70]}\\\n{line[70:]}" if len(line) > 90 else f"[  100.1] {line}"
            for line in lines
        ),
        "rsyslog": "\n".join(map(syslog, rsyslog)),
        "CRLF": "\r\n".join(lines),
        "dmesg -T in French": "\n".join(f"[dim. 19 avril 18:03:30 2026] {line}" for line in lines),
        "dmesg -T in Chinese": "\n".join(f"[三 6月 12 10:11:12 2019] {line}" for line in lines),
        "dmesg -x -T": "\n".join(
            f"kern  :info  : [Thu Aug 17 17:29:27 2023] {line}" for line in lines
        ),
        "twelve quotes": "\n".join("> " * 12 + f"[  100.1] {line}" for line in lines),
    }


@pytest.mark.parametrize("form", sorted(forms()))
def test_forms_of_logs_read_alike(form: str) -> None:
    """A mail's quotes, soft line ends and wraps, rsyslog's #012, a terminal's backslashes change nothing."""
    (row,) = told(forms()[form])
    assert facts(row) == facts(told(WHOLE)[0])


def test_flags_that_moved_are_read_by_their_names() -> None:
    """The number depends on version and configuration; whole names decide, the number is shown as it was."""
    (row,) = told(HEAD.format(mask="16080c0(GFP_KERNEL|__GFP_ZERO|__GFP_NOTRACK)", order=0) + "\n")
    assert "may sleep" in row["request"]["gfp_meaning"]
    (row,) = told(HEAD.format(mask="7f00cc0(GFP_KERNEL|__GFP_ZERO)", order=0) + "\n")
    assert row["request"]["gfp_mask"] == 0x7F00CC0
    assert row["request"]["gfp_names"] == "GFP_KERNEL|__GFP_ZERO"
    assert "may sleep, reclaim" in row["request"]["gfp_meaning"]


def test_a_kernel_between_two_numberings() -> None:
    """2.6.30 with changes of 2.6.31: bit 3 is not in its own table, but in the next."""
    text = HEAD.format(mask="201da", order=0) + "\nPid: 9, comm: app Not tainted 2.6.30 #1\n"
    (row,) = told(text)
    assert row["request"]["gfp_names"] == "GFP_HIGHUSER_MOVABLE|__GFP_COLD"
    assert row["request"]["gfp_sure"] is False


def test_lines_that_people_tidied_up() -> None:
    """Spaces after commas, line breaks in summary and kill line, no space before a bracket."""
    text = (
        "[  5.1] py invoked oom-killer:gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0\n"
        "[  5.2] oom-kill:constraint=CONSTRAINT_MEMCG, oom_memcg=/jobs/a,\n"
        "          task=py, pid=77, uid=5\n"
        "[  5.3] Memory cgroup out of memory: Killed process 77 (py)\n"
        "          total-vm:9000kB, anon-rss:8000kB, file-rss:10kB,\n"
        "          shmem-rss:0kB, pgtables:28kB\n"
    )
    (row,) = told(text)
    assert row["memcg"]["oom_memcg"] == "/jobs/a"
    assert row["victim"]["values_kb"]["pgtables"] == 28
    assert not row["problems"]
    (row,) = told("Out of memory: Kill process 96(db) score 9 or sacrifice child\n")
    assert (row["selected"]["pid"], row["selected"]["score"]) == (96, 9)


def test_negative_free_swap_and_nodes_without_a_paragraph() -> None:
    """swapoff drives free swap below 0; nodes' lines stand in for the counters that are lost."""
    (row,) = told(
        WHOLE.replace("= 400kB", "= 0kB").replace("Free swap  = 0kB", "Free swap  = -8kB")
    )
    assert row["swap"]["free_kb"] == -8
    assert "swapoff" in [d["code"] for d in row["diagnosis"]]
    text = (
        HEAD.format(mask="6280ca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO)", order=0)
        + "\nNode 0 active_anon:3000kB inactive_anon:40kB active_file:0kB inactive_file:8kB\n"
        + ZONES[ZONES.index("Node 0 DMA32 free") : ZONES.index("Free swap")]
    )
    (row,) = told(text)
    assert {p["name"]: p["kb"] for p in row["accounting"]["parts"]} == {
        **{"active_anon": 3000, "free": 380, "inactive_anon": 40, "inactive_file": 8},
        "active_file": 0,
    }


def test_a_stall_between_choice_and_kill() -> None:
    """Another CPU's report of memory comes between the two lines about a kill of 4.9: one report still."""
    choice, killed = END.splitlines()[-2:]
    stall = "b: page allocation stalls for 10014ms, order:0, mode:0x24280ca\n" + ZONES
    text = HEAD.format(mask="24280ca", order=0) + f"\n{choice}\n{stall}{killed}\n"
    (row,) = told(text)
    assert row["victim"]["values_kb"]["anon-rss"] == 2700
    assert not row["zones"]


def test_openvz_and_allocating_task() -> None:
    """A container of OpenVZ is at its limit; whoever asks is killed, and its child in its stead."""
    text = (
        "[19.5] Out of memory in UB 31: OOM killed process 29 (npm) score 0 vm:1500kB, rss:230kB, swap:12kB\n"
        "[23.4] Out of memory in UB 31: OOM killed process 35 (npm) score 0 vm:1600kB, rss:240kB, swap:11kB\n"
    )
    rows = told(text)
    assert [row["victim"]["pid"] for row in rows] == [29, 35]
    assert rows[0]["constraint"] == "memcg"
    assert rows[0]["victim"]["values_kb"] == {"total-vm": 1500, "rss": 230, "swap": 12}
    assert rows[0]["memcg"]["oom_memcg"].startswith("UB 31 ")
    asked = HEAD.format(mask="d0", order=0) + (
        "\nOut of memory (oom_kill_allocating_task): Kill process 6 (sh) score 0 or sacrifice child\n"
        "Killed process 7 (sleep) total-vm:1736kB, anon-rss:44kB, file-rss:200kB\n"
    )
    (row,) = told(asked)
    assert (row["selected"]["pid"], row["victim"]["pid"]) == (6, 7)
    assert any("vm.oom_kill_allocating_task is set" in why for why in row["ranking"]["why"])


def test_low_memory_of_2_6_16() -> None:
    """32 bits, wrapped: slab fills low memory; a second request may use DMA alone, DMA32 is free."""
    text = (
        "oom-killer: gfp_mask=0xd0, order=0\nMem-info:\n"
        "Free pages:     2486564kB (2479256kB HighMem)\n"
        "Active:2000 inactive:390 dirty:7 writeback:0 unstable:0 free:621641 \nslab:216000 mapped:1681\n"
        "Normal free:3720kB min:3756kB low:4692kB high:5632kB active:0kB \n"
        "inactive:0kB present:901120kB pages_scanned:18 all_unreclaimable? yes\n"
        "lowmem_reserve[]: 0 0 25600\n"
        "HighMem free:2479256kB min:512kB low:640kB high:768kB active:8256kB \n"
        "inactive:1568kB present:3276800kB pages_scanned:0 all_unreclaimable? no\n"
        "lowmem_reserve[]: 0 0 0\nOut of Memory: Killed process 44 (portmap).\n"
        "oom-killer: gfp_mask=0xd1, order=4\nMem-info:\n"
        "DMA free:44kB min:32kB low:40kB high:48kB active:0kB inactive:0kB\n"
        "present:16384kB pages_scanned:0 all_unreclaimable? no\nlowmem_reserve[]: 0 0 0 0\n"
        "DMA32 free:2843340kB min:7128kB low:8908kB high:10692kB active:100kB inactive:200kB\n"
        "present:3071744kB pages_scanned:0 all_unreclaimable? no\nlowmem_reserve[]: 0 0 0 0\n"
        "Out of Memory: Killed process 48 (dbus-daemon).\n"
    )
    first, second = told(text)
    assert first["request"]["gfp_numbering"] == "2.6.18" and first["ranking"]["rule"] == "badness"
    assert {"lowmem", "lowmem-slab"} <= {d["code"] for d in first["diagnosis"]}
    assert (first["victim"]["pid"], second["victim"]["pid"]) == (44, 48)
    assert [(z["zone"], z["allowed"]) for z in second["zones"]] == [("DMA", True), ("DMA32", False)]
    assert "zone" in {d["code"] for d in second["diagnosis"]}


def test_arm_of_2_6_36() -> None:
    """Its own words for pages; root's 30 points less: 10200 * 1000 / (16000 - 1000) - 30 = 650."""
    text = (
        "sshd invoked oom-killer: gfp_mask=0x201da, order=0, oom_adj=0, oom_score_adj=0\n"
        "Mem-info:\nNormal per-cpu:\nCPU    0: hi:   18, btch:   3 usd:   3\n"
        "Normal free:1000kB min:1016kB low:1268kB high:1524kB present:60000kB mlocked:0kB\n"
        "lowmem_reserve[]: 0 0\n16000 pages of RAM\n369 free pages\n1000 reserved pages\n"
        "560 slab pages\n140 pages shared\n0 pages swap cached\n"
        "[ pid ]   uid  tgid total_vm      rss cpu oom_adj oom_score_adj name\n"
        "[  410]     0   410      533       52   0     -17         -1000 udevd\n"
        "[  738]     0   738    12586    10200   0       0             0 f951\n"
        "Out of memory: Kill process 738 (f951) score 650 or sacrifice child\n"
    )
    (row,) = told(text)
    ranking = row["ranking"]
    assert (ranking["rule"], ranking["total_pages"]) == ("permille", 15000)
    assert [t["points"] for t in ranking["tasks"]] == [[650, 680], None]
    assert [(z["zone"], z["ok"]) for z in row["zones"]] == [("Normal", False)]


def test_several_reports_in_a_log() -> None:
    """Two reports, noise between them, and one whose beginning is lost."""
    noise = "[ 3.0] eth0: link up\n" * 40
    rows = told(WHOLE + noise + WHOLE.replace("(app)", "(other)").replace("12", "13") + noise + END)
    assert [row["victim"]["pid"] for row in rows] == [12, 13, 12]
    assert rows[2]["request"] is None


def test_damaged_texts_never_fail() -> None:
    """Whatever is cut off, swapped or overwritten: an answer or a ParseError, also as a page."""
    rng = random.Random(9)
    texts = [path.read_text() for path in sorted(FIXTURES.iterdir())]
    for _ in range(150):
        text = list(rng.choice(texts))
        for _ in range(rng.randrange(1, 30)):
            at = rng.randrange(len(text))
            text[at : at + rng.randrange(40)] = rng.choice(
                ["", "\n", "9" * 25, "\x00", "=3D", "[", "]"]
            )
        damaged = "".join(text)[rng.randrange(200) :]
        try:
            told(damaged)
            assert "<html" in oom_html.page(damaged)
        except ParseError as err:
            assert err.line >= 1


@pytest.mark.parametrize("piece", ["\n", " \n", "x", "[ 1.0] ", "Killed process ", "=\n", "\\\n"])
def test_megabytes_of_nothing_take_a_second(piece: str) -> None:
    """Nothing in the search for a report goes quadratic."""
    text = piece * ((1 << 20) // len(piece))
    before = time.process_time()
    with pytest.raises(ParseError):
        told(text)
    assert time.process_time() - before < 4
