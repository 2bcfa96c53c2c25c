"""The tools that people bring their own data to, in one registry: for the command line and for the page.

`run()` takes the name of a tool and a text and returns what the tool says; it never raises, whatever the
text. ``python -m mmcore TOOL`` prints the same ``text``. `tools()` describes the tools for the page that
offers them::

    run("gfp", "0x140dca")["text"]

Options stand in the text as ``name=value``, such as ``kernel=4.19 0x6000c0``; each tool names its own.
All input is data. Text that goes back has no control characters and is never markup.
"""

from __future__ import annotations

import re
import textwrap
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mmcore.errors import MMError, ParseError, UsageError
from mmcore.report import (
    address,
    alloc_failure,
    buddyinfo,
    cgroup,
    gfp,
    maps,
    oom_report,
    pte,
    smaps,
    zone_state,
)
from mmcore.report.oom_log import plain

__all__ = ["MAX_INPUT", "SCHEMA", "Result", "TOOLS", "Tool", "examine", "run", "text_of", "tools"]

#: Larger texts are refused; in characters, or bytes of a file.
MAX_INPUT = 16 << 20
#: The version of what ``--json`` prints and `run()` returns; keys may be added to it, none removed.
SCHEMA = 1
#: Sentences are folded at this width; tables are not.
WIDTH = 92

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


@dataclass(slots=True)
class Result:
    """What a tool says.

    :ivar lines: the report, the answer first; [] if the input was refused
    :ivar rows: the same as data, ready for JSON
    :ivar error: why the input was refused, in words
    :ivar line: the line of the input that is to blame, if it is known
    :ivar status: the exit status on the command line: 0; 1 the input says no; 2 wrong use
    """

    tool: str
    lines: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    line: int | None = None
    status: int = 0

    @property
    def text(self) -> str:
        """The report as text, without a line end."""
        return "\n".join(self.lines)

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON; ``text`` is always there."""
        out: dict[str, Any] = {
            "schema": SCHEMA,
            "tool": self.tool,
            "ok": self.status == 0,
            "text": self.text if self.lines else self.error or "",
            "rows": self.rows,
            "error": self.error,
            "line": self.line,
        }
        return out


@dataclass(slots=True, frozen=True)
class Tool:
    """A tool: how it is presented, and the function that does the work.

    :ivar prompt: what to paste, and where to get it
    :ivar rows: how many lines the field has
    :ivar section: the label of the book's section that explains it
    :ivar options: what may stand in the text: ``name=value`` and what it does
    :ivar work: takes the text; returns lines, rows, and an error that leaves the lines valid
    :ivar example: returns a text from a real machine
    """

    name: str
    title: str
    prompt: str
    placeholder: str
    rows: int
    command: str
    section: str
    work: Callable[[str], tuple[list[str], list[dict[str, Any]], str | None]]
    example: Callable[[], str]
    options: tuple[tuple[str, str], ...] = ()


def text_of(data: str | bytes) -> str:
    """Return what was given as text: files may be compressed, and in UTF-8, UTF-16 or anything.

    :raises UsageError: if it is longer than `MAX_INPUT`
    """
    if isinstance(data, bytes):
        if data[:2] == b"\x1f\x8b":
            unpack = zlib.decompressobj(wbits=31)
            try:
                data = unpack.decompress(data[: MAX_INPUT + 1], MAX_INPUT + 1)
            except zlib.error as err:
                raise UsageError(
                    f"the file looks compressed (gzip) and is damaged: {err}"
                ) from None
        if len(data) > MAX_INPUT:
            raise UsageError(f"more than {MAX_INPUT >> 20} MiB; give a part of it")
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
        data = data.decode(encoding, "replace").removeprefix("\ufeff")
    if len(data) > MAX_INPUT:
        raise UsageError(f"more than {MAX_INPUT >> 20} MiB; give a part of it")
    return data.replace("\r\n", "\n").replace("\u00a0", " ")


def _fold(lines: list[str]) -> list[str]:
    """Fold sentences; leave tables, which have columns, alone; take out what is not text."""
    out: list[str] = []
    for line in lines:
        line = _UNSAFE.sub("\ufffd", line).replace("\n", " ")
        indent = len(line) - len(line.lstrip(" "))
        if len(line) <= WIDTH or indent > 12 or "   " in line.strip():
            out.append(line)
            continue
        out += textwrap.wrap(
            line,
            WIDTH,
            subsequent_indent=" " * (indent + 2 if indent else 0),
            break_long_words=True,
            break_on_hyphens=False,
        )
    return out


def examine(tool: str, data: str | bytes) -> Result:
    """Run a tool; whatever goes wrong is in the result."""
    result = Result(tool)
    try:
        if tool not in TOOLS:
            raise UsageError(f"there is no tool {tool[:40]!r}; there are {', '.join(TOOLS)}")
        lines, result.rows, result.error = TOOLS[tool].work(text_of(data))
        result.lines = _fold(lines)
        result.status = 1 if result.error else 0
    except ParseError as err:
        result.error, result.line, result.status = str(err), err.line, 1
    except UsageError as err:
        result.error, result.status = str(err), 2
    except MMError as err:
        result.error, result.status = str(err), 1
    except MemoryError:
        result.error, result.status = "there is not enough memory for a text of this size", 1
    except Exception as err:  # a fault of ours: say so, and go on
        result.error = f"the tool failed, which is a fault in it: {type(err).__name__}: {err}"
        result.status = 1
    if result.error is not None:
        result.error = _UNSAFE.sub("\ufffd", result.error.replace("\n", " "))
    return result


def run(tool: str, text: str | bytes) -> dict[str, Any]:
    """Run a tool on a reader's text, or on the bytes of a file. Never raises.

    :return: ``ok``; ``text``, what the command line prints; ``rows``, the same as data; ``error`` in
        words and its ``line``, or None
    """
    return examine(tool, text).to_dict()


def tools() -> dict[str, dict[str, Any]]:
    """Return what the page needs to know of each tool, its example included."""
    return {
        tool.name: {
            "title": tool.title,
            "prompt": tool.prompt,
            "placeholder": tool.placeholder,
            "rows": tool.rows,
            "example": tool.example(),
            "command": tool.command,
            "section": tool.section,
            "options": [list(option) for option in tool.options],
        }
        for tool in TOOLS.values()
    }


# ---- the tools -----------------------------------------------------------------------------------

Work = tuple[list[str], list[dict[str, Any]], str | None]


def _gfp(text: str) -> Work:
    masks = gfp.decode(text)
    lines: list[str] = []
    for i, mask in enumerate(masks):
        lines += [""] if i else []
        part = mask.lines()
        lines.append(part[0] + (f"  ({mask.count} times)" if mask.count > 1 else ""))
        lines += part[1:]
    if len(masks) == gfp.MAX_MASKS:
        lines += ["", f"Only the first {gfp.MAX_MASKS} different masks are shown."]
    return lines, [mask.to_dict() for mask in masks], None


def _zoneinfo(text: str) -> Work:
    report = zone_state.examine(text)
    return report.lines(), report.to_rows(), None


_THRESHOLD = re.compile(r"extfrag_threshold ?= ?(\d{1,10})\b")


def _buddyinfo(text: str) -> Work:
    threshold = buddyinfo.EXTFRAG_THRESHOLD
    if match := _THRESHOLD.search(text[:400]):
        threshold = int(match[1])
        text = text[: match.start()] + text[match.end() :]
    report = buddyinfo.report(text, threshold)
    return report.lines(), report.to_rows(), None


#: At most this many reports of one log are explained.
MAX_EXPLAINED = 32


def _reports(text: str) -> list[alloc_failure.AllocFailure]:
    """Return the reports of a log, also of one that a collector keeps as JSON or journal fields.

    :raises ParseError: if there is none
    """
    log = plain(text) if alloc_failure.START_RE.search(text) else None
    reports = alloc_failure.parse_all(log.text) if log else []
    if log is None or not reports:
        alloc_failure.parse(text)  # raises, and says what was looked for
        return alloc_failure.parse_all(text)
    for report in reports:
        report.line = log.line(report.line)
        report.problems = [
            re.sub(r"^line (\d+)", lambda m: f"line {log.line(int(m[1]))}", problem)
            for problem in report.problems
        ]
    return reports


def _alloc_failure(text: str) -> Work:
    reports = _reports(text)
    said = [alloc_failure.explain(report) for report in reports[:MAX_EXPLAINED]]
    lines: list[str] = []
    if len(reports) > 1:
        causes: dict[str, int] = {}
        for explanation in said:
            causes[explanation.cause] = causes.get(explanation.cause, 0) + 1
        counts = ", ".join(f"{n} {cause}" for cause, n in causes.items())
        lines += [f"{len(reports)} reports: {counts}.", ""]
    for i, explanation in enumerate(said):
        lines += [""] if i else []
        part = explanation.lines()
        where = f"line {explanation.report.line}: " if len(reports) > 1 else ""
        lines += [where + part[0], *part[1:]]
    if any(report.kind == "oom" for report in reports):
        lines += ["", "Which process the OOM killer chose, and why, the oom-report tool tells."]
    if len(reports) > MAX_EXPLAINED:
        more = "or more " if len(reports) >= alloc_failure.MAX_REPORTS else ""
        lines += ["", f"The first {MAX_EXPLAINED} of {len(reports)} {more}reports are explained."]
    return lines, [explanation.to_dict() for explanation in said], None


def _oom_report(text: str) -> Work:
    said = oom_report.examine(text)
    return oom_report.lines(said), [oom_report.to_dict(analysis) for analysis in said], None


def _maps(text: str) -> Work:
    report = maps.report(text)
    return report.lines(), report.to_rows(), None


def _smaps(text: str) -> Work:
    report = smaps.report(text)
    return report.lines(), report.to_rows(), None


def _pte(text: str) -> Work:
    level = 1
    if match := re.search(r"\bsize=(\w{1,8})", text[:400]):
        level = pte.level_of(match[1])
        text = text[: match.start()] + text[match.end() :]
    decoding = pte.decode_entries(text, level)
    return decoding.lines(), decoding.to_rows(), None


def _pagemap(text: str) -> Work:
    decoding = pte.decode_pagemap(text)
    return decoding.lines(), decoding.to_rows(), None


def _kpageflags(text: str) -> Work:
    decoding = pte.decode_kpageflags(text)
    return decoding.lines(), decoding.to_rows(), None


def _address(text: str) -> Work:
    report = address.decode(text)
    bad = [a.why_not() for a in report.addresses if not a.canonical]
    rows = [a.to_dict() for a in report.addresses]
    return report.lines(), rows, bad[0] if bad else None


def _zoneinfo_example() -> str:
    """A small guest's /proc/zoneinfo, the lines that matter, and its /proc/buddyinfo."""
    from mmcore.proc.capture import load

    capture = load("n1-1g/physical")
    wanted = (
        "Node",
        "pages free",
        "boost ",
        "min ",
        "low ",
        "high ",
        "promo ",
        "managed ",
        "protection",
    )
    lines = capture["zoneinfo"].split("\n")
    kept = [x for x in lines if x.strip().startswith(wanted) and not x.strip().startswith("high:")]
    return "\n".join(kept) + "\n" + capture["buddyinfo"]


def _buddyinfo_example() -> str:
    """The free blocks of a guest that has been exhausted again and again, as its log shows them."""
    from mmcore.proc.capture import load

    lines = load("n1-256m/oom")["global_dmesg"].split("\n")
    found = [line for line in lines if "*4096kB" in line]
    return "\n".join(found[-2:]) + "\n"


def _cgroup_example() -> str:
    """A group of a guest over its memory.high."""
    from mmcore.proc.capture import load
    from mmcore.report import cgrouplog

    loads = cgrouplog.parse(load("n1-256m-pmem/cgroup")["limits"])
    return cgroup.recording(loads[0].used, "/sys/fs/cgroup/g")


def _oom_example() -> str:
    """A cgroup's OOM report of a guest, without its stack trace and the counters of events."""
    from mmcore.proc.capture import load

    lines = load("n1-256m/oom")["memcg_dmesg"].split("\n")
    first = [i for i, line in enumerate(lines) if "invoked oom-killer" in line][:2]
    report = lines[first[0] : first[1]]
    memory = next(i for i, line in enumerate(report) if "memory: usage" in line)
    events = re.compile(r"\] (?:workingset|pg|swp|thp|numa)\w* \d")
    kept = [line for line in report[memory:] if not events.search(line)]
    return "\n".join([*report[:2], *kept]) + "\n"


def _failure_example() -> str:
    """The failure report of an exhausted guest, without the registers."""
    from mmcore.proc.capture import load

    report = str(alloc_failure.parse(load("n1-256m/oom")["swap_dmesg"])).split("\n")
    memory = next(i for i, line in enumerate(report) if "Mem-Info:" in line)
    registers = next(i for i, line in enumerate(report) if "RIP:" in line)
    return "\n".join([*report[:registers], *report[memory:]]) + "\n"


def _maps_example() -> str:
    """The mappings of a small program in a guest, and the guest's limit."""
    from mmcore.proc.capture import load

    return "max_map_count=65530\n" + load("n1-1g/faults")["maps"]


def _smaps_example() -> str:
    """The first mappings of that program, as far as they were recorded whole."""
    from mmcore.proc.capture import load

    text = load("n1-1g/faults")["smaps"]
    return (
        text[: text.rindex("VmFlags:")] + text[text.rindex("VmFlags:") :].partition("\n")[0] + "\n"
    )


def _oops_example() -> str:
    """The walk that an oops printed: a write to read-only kernel text."""
    from mmcore.proc.capture import load

    lines = load("n1-1g/oops")["oops3"].split("\n")
    return next(line for line in lines if line.startswith("PGD")) + "\n"


_DEVICE_PRIVATE = (
    "device_private=yes",
    "the kernel has CONFIG_DEVICE_PRIVATE, which moves some swap types",
)

TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "alloc-failure",
            "Why did this allocation fail?",
            "Paste a page allocation failure, an OOM report or a whole dmesg; any log prefix will do.",
            "swapper/0: page allocation failure: order:4, mode:0x40820(GFP_ATOMIC|__GFP_COMP), ...",
            12,
            "dmesg | python -m mmcore alloc-failure -",
            "sec-watermarks",
            _alloc_failure,
            _failure_example,
        ),
        Tool(
            "oom-report",
            "Why was this process killed?",
            "Paste what the OOM killer wrote to the log, or a whole log: dmesg, journalctl, syslog, JSON.",
            "java invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0 ...",
            12,
            "dmesg | python -m mmcore oom-report -",
            "sec-watermarks",
            _oom_report,
            _oom_example,
        ),
        Tool(
            "cgroup",
            "What do the limits of these cgroups come to?",
            "Paste the output of: grep -r . /sys/fs/cgroup --include='memory.*'",
            "/sys/fs/cgroup/system.slice/memory.current:123456789 ...",
            12,
            "python -m mmcore cgroup /sys/fs/cgroup",
            "workbench",
            cgroup.report,
            _cgroup_example,
            (
                ("hz=1000", "the kernel's HZ"),
                ("recursiveprot=no", "mounted without memory_recursiveprot"),
            ),
        ),
        Tool(
            "zoneinfo",
            "Who may allocate from which zone now?",
            "Paste the output of: cat /proc/zoneinfo /proc/buddyinfo",
            "Node 0, zone      DMA ...",
            12,
            "python -m mmcore zoneinfo",
            "sec-watermarks",
            _zoneinfo,
            _zoneinfo_example,
        ),
        Tool(
            "buddyinfo",
            "How fragmented is free memory?",
            "Paste the output of: cat /proc/buddyinfo (or the free-block lines of an OOM report)",
            "Node 0, zone   Normal   216    55   189   101 ...",
            6,
            "python -m mmcore buddyinfo",
            "sec-buddy",
            _buddyinfo,
            _buddyinfo_example,
            (("extfrag_threshold=500", "the machine's vm.extfrag_threshold"),),
        ),
        Tool(
            "gfp",
            "What does this gfp mask ask for?",
            "Type a number or names, or paste lines of a log or trace that have them.",
            "0xcc0, GFP_KERNEL|__GFP_ZERO, or mode:0x6000c0(GFP_KERNEL)",
            3,
            "python -m mmcore gfp 0x140dca",
            "sec-gfp",
            _gfp,
            lambda: "mode:0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP)\n",
            (("kernel=4.19", "whose numbering: of any release from 2.6.12 on"),),
        ),
        Tool(
            "maps",
            "Why does this process have so many mappings?",
            "Paste the output of: cat /proc/sys/vm/max_map_count /proc/PID/maps (or smaps)",
            "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 ...",
            12,
            "python -m mmcore maps PID",
            "sec-um-mapcount",
            _maps,
            _maps_example,
            (("max_map_count=65530", "the machine's vm.max_map_count, in a line of its own"),),
        ),
        Tool(
            "smaps",
            "What does this process have in memory?",
            "Paste the output of: cat /proc/PID/smaps (or smaps_rollup)",
            "00400000-00401000 r--p 00000000 00:02 13    /bin/busybox ...",
            12,
            "python -m mmcore smaps PID",
            "sec-um-practice",
            _smaps,
            _smaps_example,
        ),
        Tool(
            "pte",
            "What does this page table entry say?",
            "Type entries in hexadecimal, or paste the PGD ... PTE line of an oops.",
            "8000000012345867, or PMD 80000000126000e7",
            3,
            "python -m mmcore pte 8000000012345867",
            "sec-vm-pte",
            _pte,
            _oops_example,
            (
                ("size=2m", "the page that entries without a level map: 4k, 2m, 1g"),
                ("levels=5", "the kernel has five levels of page tables"),
                _DEVICE_PRIVATE,
            ),
        ),
        Tool(
            "pagemap",
            "What does /proc/PID/pagemap say of this page?",
            "Type 64-bit words, or paste: sudo od -A n -t x8 -j $((0xADDR / 4096 * 8)) -N 8 /proc/PID/pagemap",
            "81800000000036d8",
            3,
            "python -m mmcore pagemap PID ADDRESS",
            "sec-vm-practice",
            _pagemap,
            lambda: "8180000000002bee 80800000000036d8 0080000000000000\n",
            (_DEVICE_PRIVATE,),
        ),
        Tool(
            "kpageflags",
            "What is this page frame used for?",
            "Type 64-bit words, or paste: sudo od -A n -t x8 -j $((0xPFN * 8)) -N 8 /proc/kpageflags",
            "0000000400205848",
            3,
            "python -m mmcore kpageflags 400205848",
            "sec-practice",
            _kpageflags,
            lambda: "0000000400205848 0000000101000000 0000000000000400\n",
        ),
        Tool(
            "address",
            "What is at this address?",
            "Type addresses in hexadecimal: of a process or of the kernel, from an oops or a crash dump.",
            "ffff888012345678",
            3,
            "python -m mmcore address ffff888012345678",
            "sec-vm-layout",
            _address,
            lambda: "ffffc900005fbd88 ffff8880049f6480\n",
            (
                ("levels=5", "five levels of page tables, or levels=4; else both are shown"),
                ("page_offset_base=ffff9a0000000000", "where KASLR put the direct map"),
                ("vmalloc_base=...", "where KASLR put vmalloc space"),
                ("vmemmap_base=...", "where KASLR put the memory map"),
                ("phys_base=...", "how far the kernel image was moved in physical memory"),
            ),
        ),
    )
}
