"""Read a tree of memory cgroups, live or recorded, and say what its settings come to.

A recording is what ``grep -r . /sys/fs/cgroup --include='memory.*'`` prints, one ``PATH/FILE:VALUE`` a
line; a live tree is read into the same form (`live_text()`), and so is a tar archive (`tar_text()`).
Effective protection, the room below each limit and the wait above ``memory.high`` are calculated by
`mmcore.mm.page_counter` and `mmcore.mm.memcontrol`, the functions that the model's reclaim uses.

Options stand in front, in lines of their own: ``recursiveprot=no``, ``hz=1000``. Hierarchies of version 1
are read and named as such; they have no protection, and their limits hold for the tree only with
``use_hierarchy``.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcore.config import PAGE_SIZE
from mmcore.errors import ParseError, UsageError
from mmcore.mm.memcontrol import MEMCG_CHARGE_BATCH, calculate_high_delay, calculate_overage
from mmcore.mm.page_counter import (
    PAGE_COUNTER_MAX,
    PageCounter,
    page_counter_calculate_protection,
    page_counter_charge,
    page_counter_init,
    page_counter_set_high,
    page_counter_set_low,
    page_counter_set_min,
)

__all__ = ["Group", "Tree", "file_text", "live_text", "parse", "recording", "report", "tar_text"]

#: More groups than these are refused.
MAX_GROUPS = 20_000
_LINE_RE = re.compile(r"(?P<path>[^\n]*?)/?(?P<file>memory\.[a-z_.]+):(?P<value>.*)")
_HEAD_RE = re.compile(r"==> (?P<path>[^\n]*?)/?(?P<file>memory\.[a-z_.]+) <==")
_OPTION_RE = re.compile(r"(?:\s*\b(?:recursiveprot|hz)=\S+)+\s*")
_NUMBER_RE = re.compile(r"-?\d{1,20}")
#: Files of which one number, or "max", is read.
NUMBERS = ("current", "peak", "min", "low", "high", "max", "swap.current", "swap.high", "swap.max", "swap.peak", "oom.group")  # fmt: skip
V1_NUMBERS = ("usage_in_bytes", "limit_in_bytes", "soft_limit_in_bytes", "max_usage_in_bytes", "failcnt", "memsw.usage_in_bytes", "memsw.limit_in_bytes", "use_hierarchy")  # fmt: skip
TABLES = ("events", "events.local", "swap.events", "stat", "oom_control")
#: What version 1 shows where there is no limit: the largest number of whole pages.
V1_NO_LIMIT = ((1 << 63) - 1) // PAGE_SIZE * PAGE_SIZE
EVENT_TEXT = {
    "low": "times it was reclaimed although it was within its protection (memory.low)",
    "high": "times it was over memory.high and had to reclaim",
    "max": "times a charge hit memory.max",
    "oom": "times reclaim could not make room and the OOM killer was asked",
    "oom_kill": "processes killed",
    "oom_group_kill": "times the whole group was killed",
}


@dataclass(slots=True, eq=False)
class Group:
    """One group: what its files hold, and the counter that is made of it.

    :ivar values: by file name without "memory."; bytes, None for "max"
    :ivar tables: events and statistics, by file name
    """

    path: str
    values: dict[str, int | None] = field(default_factory=dict)
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    parent: Group | None = None
    counter: PageCounter = field(default_factory=PageCounter)

    @property
    def name(self) -> str:
        """Its path, "/" for the top."""
        return self.path or "/"

    @property
    def depth(self) -> int:
        """How many groups are above it."""
        n, at = 0, self.parent
        while at is not None:
            n, at = n + 1, at.parent
        return n

    def event(self, name: str) -> int:
        """Return how often an event happened, 0 if the file is missing."""
        return self.tables.get("events", {}).get(name, 0)


@dataclass(slots=True)
class Tree:
    """A tree that was read.

    :ivar groups: parents first
    :ivar version: 1 or 2
    :ivar whole: its top is the root of the hierarchy, which has no memory.current
    :ivar problems: lines that could not be used, in words
    """

    groups: list[Group]
    version: int = 2
    whole: bool = True
    recursive: bool = True
    hz: int = 250
    problems: list[str] = field(default_factory=list)


# ---- reading -------------------------------------------------------------------------------------


def _options(tree: Tree, text: str, number: int) -> None:
    for word in text.split():
        name, _, value = word.partition("=")
        if name == "hz":
            if not re.fullmatch(r"\d{1,5}", value) or not 1 <= int(value) <= 10_000:
                raise UsageError(f"hz={value[:20]}: the kernel's HZ, 100 to 1000")
            tree.hz = int(value)
        elif value not in ("yes", "no"):
            raise UsageError(f"recursiveprot={value[:20]}: yes or no")
        else:
            tree.recursive = value == "yes"


def _put(group: Group, file: str, text: str) -> str | None:
    """Keep one line of a file; return what is wrong with it, or None."""
    name = file.removeprefix("memory.")
    text = text.strip()
    if name in TABLES:
        key, _, value = text.partition(" ")
        if not _NUMBER_RE.fullmatch(value.strip()):
            return f"{file} of {group.name[:80]} holds {text[:40]!r}"
        group.tables.setdefault(name, {})[key[:60]] = int(value)
    elif name in NUMBERS or name in V1_NUMBERS:
        if text == "max":
            group.values[name] = None
        elif _NUMBER_RE.fullmatch(text) and int(text) >= 0:
            group.values[name] = int(text)
        else:
            return f"{file} of {group.name[:80]} holds {text[:40]!r}"
    return None


def parse(text: str) -> Tree:
    """Read a recording.

    :raises ParseError: if no line of it is one of a memory cgroup
    :raises UsageError: for an option's value that is not allowed, or too many groups
    """
    tree = Tree([])
    found: dict[str, Group] = {}
    here: tuple[Group, str] | None = None

    def group_of(path: str) -> Group:
        path = path.rstrip("/")
        if path not in found:
            if len(found) >= MAX_GROUPS:
                raise UsageError(f"more than {MAX_GROUPS} groups; give a part of the tree")
            found[path] = Group(path)
        return found[path]

    for number, line in enumerate(text.split("\n"), 1):
        if not found and _OPTION_RE.fullmatch(line):
            _options(tree, line, number)
            continue
        head = _HEAD_RE.fullmatch(line.strip())
        hit = None if head else _LINE_RE.match(line)
        wrong = None
        if head is not None:
            here = (group_of(head["path"]), head["file"])
        elif hit is not None:
            here = None
            wrong = _put(group_of(hit["path"]), hit["file"], hit["value"])
        elif here is not None and line.strip():
            wrong = _put(here[0], here[1], line)
        if wrong is not None:
            tree.problems.append(f"line {number}: {wrong}")
    if not any(g.values or g.tables for g in found.values()):
        why = (
            "no file of a memory cgroup; grep -r . /sys/fs/cgroup --include='memory.*' prints them"
        )
        raise ParseError("a tree of cgroups", 1, text[:60].split("\n")[0], why)
    _link(tree, found)
    return tree


def _link(tree: Tree, found: dict[str, Group]) -> None:
    """Find each group's parent, cut what all paths have in common, and make the counters."""
    usage = "current"
    if any("usage_in_bytes" in g.values for g in found.values()):
        if not any("current" in g.values for g in found.values()):
            tree.version, usage = 1, "usage_in_bytes"
    paths = sorted(found, key=lambda p: p.split("/"))
    top = os.path.commonpath(paths) if all(p.startswith("/") for p in paths) else ""
    if top not in found and len(found) > 1:
        found[top] = Group(top)
        paths.insert(0, top)
    for path in paths:
        group = found[path]
        at = path
        while at != top and "/" in at:
            at = at.rpartition("/")[0]
            if at in found:
                group.parent = found[at]
                break
        else:
            if path != top and top in found:
                group.parent = found[top]
        tree.groups.append(group)
    first = tree.groups[0]
    tree.whole = usage not in first.values or tree.version == 1
    for group in tree.groups:
        if group is not first:
            group.path = group.path[len(top) :] if top else group.path
    first.path = "" if top.endswith("cgroup") or tree.whole else top
    _counters(tree)


def _pages(value: int | None) -> int:
    return PAGE_COUNTER_MAX if value is None else min(value // PAGE_SIZE, PAGE_COUNTER_MAX)


def _counters(tree: Tree) -> None:
    """Make the counters: usage is what the file says, not the sum of the groups below."""
    v1 = tree.version == 1
    for group in tree.groups:
        c, v = group.counter, group.values
        page_counter_init(c, group.parent.counter if group.parent else None, True)
        c.usage = _pages(v.get("usage_in_bytes" if v1 else "current", 0))
        limit = v.get("limit_in_bytes", V1_NO_LIMIT) if v1 else v.get("max")
        c.max = PAGE_COUNTER_MAX if limit is not None and v1 and limit >= V1_NO_LIMIT else _pages(limit)  # fmt: skip
        page_counter_set_high(c, _pages(None if v1 else v.get("high")))
    if v1:
        return
    for group in tree.groups:
        page_counter_set_min(group.counter, _pages(group.values.get("min", 0)))
        page_counter_set_low(group.counter, _pages(group.values.get("low", 0)))
    root = tree.groups[0].counter
    if not tree.whole:
        above = PageCounter()
        page_counter_init(above, None, True)
        page_counter_charge(above, root.usage)
        root.parent = root = above
    for group in tree.groups:
        if group.counter is not root:
            page_counter_calculate_protection(root, group.counter, tree.recursive)


# ---- a live tree, an archive ---------------------------------------------------------------------


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")[:65536]
    except (OSError, ValueError):
        return ""


def _files_of(directory: Path, names: tuple[str, ...]) -> list[str]:
    label = str(directory).replace("\n", "?")
    return [
        f"{label}/memory.{name}:{line}"
        for name in names
        for line in _read(directory / f"memory.{name}").splitlines()
    ]


def _recursiveprot(mounts: str) -> str | None:
    """Return yes or no as /proc/self/mounts says, None if no cgroup2 is mounted."""
    options = [line.split()[3] for line in mounts.splitlines() if len(line.split()) > 3 and line.split()[2] == "cgroup2"]  # fmt: skip
    return ("yes" if "memory_recursiveprot" in options[0].split(",") else "no") if options else None


def live_text(path: str | Path) -> str:
    """Read a group and all below it; of the groups above and beside it what protection needs.

    :raises UsageError: if the path is no folder of a memory cgroup
    """
    top = Path(path).resolve()
    if not top.is_dir():
        raise UsageError(f"{path} is no folder")
    lines: list[str] = []
    names = (*NUMBERS, *V1_NUMBERS, *TABLES)
    seen = 0
    for directory, below, _ in os.walk(top):
        below.sort()
        lines += _files_of(Path(directory), names)
        seen += 1
        if seen > MAX_GROUPS:
            raise UsageError(f"more than {MAX_GROUPS} groups below {path}; give a part of the tree")
    if not lines:
        raise UsageError(
            f"{path} has no memory.* files: no memory cgroup, or none that may be read"
        )
    at = top
    while at.parent != at and (at.parent / "cgroup.controllers").exists():
        at = at.parent
        lines += _files_of(at, (*NUMBERS, "stat"))
        for beside in sorted(p for p in at.iterdir() if p.is_dir() and p not in top.parents and p != top):  # fmt: skip
            lines += _files_of(beside, ("current", "min", "low"))
    option = _recursiveprot(_read(Path("/proc/self/mounts")))
    return "\n".join([*([f"recursiveprot={option}"] if option else []), *lines])


def tar_text(data: bytes) -> str:
    """Return the memory.* files of a tar archive as a recording.

    :raises ParseError: if it is damaged
    """
    lines: list[str] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                folder, _, name = ("/" + member.name.lstrip("./")).rpartition("/")
                if not member.isfile() or not name.startswith("memory."):
                    continue
                stream = archive.extractfile(member)
                text = stream.read(65536).decode("utf-8", "replace") if stream else ""
                lines += [f"{folder}/{name}:{line}" for line in text.splitlines()]
                if len(lines) > 2_000_000:
                    raise ParseError("an archive", 1, "", "it holds too many lines")
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as err:
        raise ParseError("an archive", 1, "", f"it is damaged ({err})") from None
    return "\n".join(lines)


def file_text(data: bytes) -> str:
    """Return what a file holds as a recording, whether it is one or a tar archive.

    :raises ParseError, UsageError: if it is damaged, or too large
    """
    from mmcore.report import workbench

    if data[257:262] == b"ustar" or data[:3] in (b"\x1f\x8b\x08", b"BZh", b"\xfd7z"):
        try:
            return tar_text(data)
        except ParseError:
            if data[:2] != b"\x1f\x8b":
                raise
    return workbench.text_of(data)


def recording(files: dict[str, Any], path: str) -> str:
    """Return the files of one group, by name and as values or tables, as a recording."""
    lines = []
    for name, value in files.items():
        if isinstance(value, dict):
            lines += [f"{path}/{name}:{key} {number}" for key, number in value.items()]
        else:
            lines.append(f"{path}/{name}:{'max' if value is None else value}")
    return "\n".join(lines) + "\n"


# ---- the report ----------------------------------------------------------------------------------


def _size(pages: int) -> str:
    if pages >= PAGE_COUNTER_MAX:
        return "max"
    for unit, shift in (("GiB", 18), ("MiB", 8)):
        if pages >= 1 << shift:
            return f"{pages / (1 << shift):.1f} {unit}"
    return f"{pages * 4} KiB"


def _room(group: Group, hierarchical: bool = True) -> tuple[int, Group]:
    """Return how many pages may still be charged, and the group whose limit says so."""
    best, who = group.counter.max - group.counter.usage, group
    at = group.parent
    while at is not None and hierarchical:
        room = at.counter.max - at.counter.usage
        if room < best:
            best, who = room, at
        at = at.parent
    return best, who


def _row(tree: Tree, group: Group) -> dict[str, Any]:
    """Return a group as data; sizes in bytes, None for no limit."""
    c = group.counter

    def limit(pages: int) -> int | None:
        return None if pages >= PAGE_COUNTER_MAX else pages * PAGE_SIZE

    room, who = _room(group, tree.version == 2 or bool(group.values.get("use_hierarchy", 1)))
    overage = calculate_overage(c.usage, c.high)
    row: dict[str, Any] = {
        "group": group.name,
        "version": tree.version,
        "current": c.usage * PAGE_SIZE,
        "max": limit(c.max),
        "room": None if who.counter.max >= PAGE_COUNTER_MAX else room * PAGE_SIZE,
        "room_limited_by": None if who.counter.max >= PAGE_COUNTER_MAX else who.name,
        "distances": [
            {
                "group": g.name,
                "max": limit(g.counter.max),
                "left": (g.counter.max - g.counter.usage) * PAGE_SIZE,
            }
            for g in _path(group)
            if g.counter.max < PAGE_COUNTER_MAX
        ],
        "events": group.tables.get("events", {}),
    }
    if tree.version == 2:
        row |= {
            "min": c.min * PAGE_SIZE,
            "low": c.low * PAGE_SIZE,
            "high": limit(c.high),
            "effective_min": c.emin * PAGE_SIZE,
            "effective_low": c.elow * PAGE_SIZE,
            "over_high": max(0, c.usage - c.high) * PAGE_SIZE,
            "wait_jiffies": min(
                calculate_high_delay(tree.hz, MEMCG_CHARGE_BATCH, overage), 2 * tree.hz
            ),
        }
    return row


def _path(group: Group) -> list[Group]:
    """Return the group and those above it."""
    out, at = [], group
    while True:
        out.append(at)
        if at.parent is None:
            return out
        at = at.parent


def _over_high(tree: Tree, group: Group) -> list[str]:
    c = group.counter
    if c.usage <= c.high:
        return []
    wait = min(calculate_high_delay(tree.hz, MEMCG_CHARGE_BATCH, calculate_overage(c.usage, c.high)), 2 * tree.hz)  # fmt: skip
    if wait <= tree.hz // 100:
        told = "too little to be made to wait: its tasks reclaim and go on"
    else:
        told = (
            f"a task that charges 64 pages here waits {wait * 1000 // tree.hz} ms when reclaim makes no "
            f"progress ({wait} jiffies at HZ={tree.hz})"
        )
    return [
        f"{group.name} is over memory.high by {_size(c.usage - c.high)} ({_size(c.usage)} of {_size(c.high)}); {told}."
    ]


def _protection(tree: Tree, group: Group) -> list[str]:
    out = []
    c = group.counter
    for name, setting, effective in (("min", c.min, c.emin), ("low", c.low, c.elow)):
        if not setting or not c.usage or group.parent is None:
            continue
        wanted = min(setting, c.usage)
        above = group.parent.counter
        claimed = above.children_min_usage if name == "min" else above.children_low_usage
        given = above.emin if name == "min" else above.elow
        if effective < wanted:
            out.append(
                f"{group.name} claims {_size(wanted)} of memory.{name} and gets {_size(effective)}: "
                f"{group.parent.name} can pass on {_size(given)}, and its children claim {_size(claimed)}."
            )
        elif c.usage <= effective:
            out.append(f"{group.name} is wholly within its effective {name} ({_size(c.usage)}).")
    return out


def _findings(tree: Tree) -> list[str]:
    out: list[str] = []
    for group in tree.groups:
        c = group.counter
        if tree.version == 2:
            out += _over_high(tree, group)
            out += _protection(tree, group)
            if group.values.get("min") and c.low and c.min > c.low and c.emin > c.elow:
                out.append(f"{group.name}: memory.min is above memory.low, which then protects nothing.")  # fmt: skip
        if c.usage >= c.max:
            out.append(f"{group.name} is at its limit of {_size(c.max)}.")
        room, who = _room(group)
        if who is not group and who.counter.max < PAGE_COUNTER_MAX and room < c.max - c.usage:
            if c.max < PAGE_COUNTER_MAX:
                out.append(f"{group.name} may use {_size(c.max)}, and {who.name} above it has room for {_size(max(room, 0))} only.")  # fmt: skip
        told = [f"{group.event(n)} {text}" for n, text in EVENT_TEXT.items() if group.event(n)]
        if told:
            out.append(f"{group.name}: " + "; ".join(told) + ".")
        if tree.version == 1 and group.values.get("failcnt"):
            out.append(f"{group.name}: {group.values['failcnt']} charges hit the limit (failcnt).")
    return out


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "   ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _tree_table(tree: Tree) -> list[str]:
    v1 = tree.version == 1
    head = ["group", "usage", "limit"] if v1 else ["group", "current", "min", "emin", "low", "elow", "high", "max"]  # fmt: skip
    rows = [[*head, "room", "set by"]]
    for group in tree.groups:
        c = group.counter
        room, who = _room(group, not v1 or bool(group.values.get("use_hierarchy", 1)))
        last = group.name.rpartition("/")[2] or "/"
        label = "  " * min(group.depth, 20) + last[-40:]
        limited = who.counter.max < PAGE_COUNTER_MAX
        end = [_size(max(room, 0)) if limited else "-", who.name[-40:] if limited else "-"]
        unknown = group.parent is None and not ("current" in group.values or v1)
        usage = "-" if unknown else _size(c.usage)
        middle = [_size(c.max)] if v1 else [_size(c.min), _size(c.emin), _size(c.low), _size(c.elow), _size(c.high), _size(c.max)]  # fmt: skip
        rows.append([label, usage, *middle, *end])
    return _table(rows)


def _stat_table(tree: Tree) -> list[str]:
    """Account for memory.current with memory.stat, where it was recorded."""
    rows = [["group", "anon", "file", "kernel", "sock", "rest"]]
    for group in tree.groups:
        stat = group.tables.get("stat")
        if tree.version != 2 or stat is None or "current" not in group.values:
            continue
        parts = [stat.get(name, 0) // PAGE_SIZE for name in ("anon", "file", "kernel", "sock")]
        rest = group.counter.usage - parts[0] - parts[1] - parts[2] - parts[3]
        sign = "-" if rest < 0 else ""
        rows.append([group.name[-50:], *[_size(max(n, 0)) for n in parts], sign + _size(abs(rest))])
    if len(rows) == 1:
        return []
    return [
        "",
        "What it consists of; the rest is charged in advance by CPUs (up to 64 pages each), not yet counted "
        "in memory.stat (up to 2 s), or charged without a counter of its own.",
        *_table(rows),
    ]


def report(text: str) -> tuple[list[str], list[dict[str, Any]], str | None]:
    """Return the report on a recording: lines, the groups as data, and None.

    :raises ParseError, UsageError: as `parse()`
    """
    tree = parse(text)
    lines = [f"{len(tree.groups)} groups, cgroup version {tree.version}."]
    if tree.version == 1:
        lines.append(
            "Version 1 has no protection and no memory.high; its soft limit is only where global reclaim begins."
        )
    else:
        lines.append(
            f"Effective protection with{'' if tree.recursive else 'out'} memory_recursiveprot (a mount "
            f"option; recursiveprot=yes or no), for a reclaim that starts "
            + ("at the root." if tree.whole else f"above {tree.groups[0].name}.")
        )
    findings = _findings(tree)
    lines += findings[:200] or ["Nobody is over memory.high or at a limit, no event was counted."]
    if len(findings) > 200:
        lines.append(f"and {len(findings) - 200} more findings of this kind")
    lines += ["", *_tree_table(tree), *_stat_table(tree)]
    if tree.problems:
        lines += ["", f"{len(tree.problems)} lines were not understood and left out:"]
        lines += ["  " + p for p in tree.problems[:10]]
    return lines, [_row(tree, g) for g in tree.groups], None
