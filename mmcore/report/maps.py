"""Why each mapping of a process is there, what keeps it apart from its neighbour, how many may follow.

Reads /proc/PID/maps or smaps, of any kernel, and answers the question that people bring::

    print("\\n".join(report(open("/proc/self/maps").read()).lines()))

"Why does my program have 65,530 mappings": they are put into groups that look alike (guard pages and
stacks, pages whose rights were changed one by one, a file in pieces, many files, blocks of malloc()),
with numbers. For neighbours that touch, the kernel's conditions for merging are tested in the kernel's
order as far as the text shows what they are about (`obstacle()`). maps shows rights, file, offset and
name; smaps has the flags as well. Neither shows an anon_vma, a memory policy or the offset of anonymous
memory; where only those are left, that is said.

Groups are told by their shape, so what they are called is a guess where it says "look like"; the counts
are not.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mmcore.errors import ParseError, UsageError
from mmcore.mm.mm import DEFAULT_MAX_MAP_COUNT
from mmcore.proc.task_mmu import MapsEntry, parse_smaps
from mmcore.report import mapkinds
from mmcore.report.kernlog import MAX_LINE, numbered_lines
from mmcore.report.mapkinds import Kinds, Obstacle, amount, describe, flag_words, kinds_of, obstacle

__all__ = ["Group", "Groups", "MapsReport", "Reading", "grouped", "read", "report"]

#: So many mappings are listed one by one; of more, groups and examples are shown.
MAX_LISTED = 120
#: At most so many go into the data.
MAX_ROWS = 2000
#: At most so many groups are shown.
MAX_GROUPS = 10
#: So many mappings in a row that touch make a pattern.
RUN = 8
#: A file, or a directory, with so many mappings is a group of its own.
MANY = 12

_MAPPING = re.compile(r"[0-9a-f]{3,16}-[0-9a-f]{3,16} ")
_VALUE = re.compile(
    r"(?:Size|KernelPageSize|MMUPageSize|Rss|Pss(?:_\w{1,8})?|(?:Shared|Private)_\w{1,8}|Referenced|Anonymous"
    r"|KSM|LazyFree|\w{4,5}HugePages|\w{4,5}PmdMapped|Swap|SwapPss|Locked|THPeligible|ProtectionKey|VmFlags):"
)
_SETTING = re.compile(r"(?:vm\.)?(max_map_count|threads) ?[=:]\s*(\d{1,10})", re.IGNORECASE)


@dataclass(slots=True)
class Reading:
    """What a text holds.

    :ivar settings: max_map_count and threads, if the text says them
    :ivar detailed: there are values of smaps
    :ivar left_out: lines that are neither mappings nor values
    """

    entries: list[MapsEntry]
    settings: dict[str, int] = field(default_factory=dict)
    detailed: bool = False
    left_out: int = 0


def _kept(text: str) -> tuple[list[str], dict[str, int], int]:
    """Return the lines that matter, each in its place, what is set, and how many others there are."""
    lines: list[str] = []
    settings: dict[str, int] = {}
    left_out = 0
    begun = nameless = False
    for number, raw in numbered_lines(text):
        line = raw.strip(" \t\r")  # what else splits lines for Python may stand in a name
        if not line:
            continue
        if _MAPPING.match(line) or _VALUE.match(line):
            lines += [""] * (number - 1 - len(lines))
            nameless = len(line.split(None, 5)) == 5
            begun = True
            lines.append(line)
        elif setting := _SETTING.fullmatch(line):
            settings[setting[1].lower()] = int(setting[2])
        elif not begun and len(line) <= 10 and line.isascii() and line.isdecimal():
            settings["max_map_count"] = int(line)  # cat /proc/sys/vm/max_map_count /proc/PID/maps
        elif nameless and line[0] in "/[" and len(lines) == number - 1:
            lines[-1] += " " + line  # a path that a mailer put into the next line
            nameless = False
        else:
            left_out += 1
            nameless = False
    return lines, settings, left_out


def read(text: str) -> Reading:
    """Read the text of /proc/PID/maps or smaps.

    Lines before, between and behind the mappings that are something else are left out and counted.
    Lines ``max_map_count=N`` (or as sysctl prints it, or the number alone in the first line) and ``Threads: N`` are
    taken.

    :raises ParseError: if there is no mapping, one is damaged, or they are not in order
    """
    lines, settings, left_out = _kept(text)
    if not any(_MAPPING.match(line) for line in lines):
        raise ParseError(
            "/proc/PID/maps",
            1,
            text.lstrip()[:MAX_LINE].partition("\n")[0],
            "no mappings here; they look like 7f0000000000-7f0000001000 rw-p 00000000 00:00 0",
        )
    try:
        entries = parse_smaps("\n".join(lines))
    except ParseError as err:
        if "order" not in err.why:
            raise
        why = "not above the mapping before it; if these are several processes, give one"
        raise ParseError(err.what, err.line, err.text, why) from None
    return Reading(entries, settings, any(e.sizes for e in entries), left_out)


# ---- groups --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Group:
    """Mappings that are there for one reason.

    :ivar what: the reason, in words
    :ivar advice: what is known about such groups; "" if there is nothing to say
    :ivar members: indices into the mappings
    """

    key: tuple[str, ...]
    what: str = ""
    advice: str = ""
    members: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Groups:
    """All mappings, each in one group; the largest group first.

    :ivar apart: for each mapping what keeps it from its successor
    """

    entries: list[MapsEntry]
    kinds: Kinds
    apart: list[Obstacle]
    groups: list[Group] = field(default_factory=list)

    def kb(self, group: Group) -> int:
        """Return how large a group's mappings are together."""
        return sum(self.entries[i].end - self.entries[i].start >> 10 for i in group.members)

    def sizes(self, group: Group, kinds: tuple[str, ...] = ()) -> Counter[int]:
        """Return how many mappings of a group have how many kB."""
        sizes: Counter[int] = Counter()
        for i in group.members:
            if not kinds or self.kinds.kind[i] in kinds:
                sizes[self.entries[i].end - self.entries[i].start >> 10] += 1
        return sizes

    def rights(self, group: Group) -> Counter[str]:
        """Return how many mappings of a group have which rights."""
        return Counter(self.entries[i].perms for i in group.members)


def _common(sizes: Counter[int]) -> str:
    """Return the most common size, and whether there are others."""
    if not sizes:
        return ""
    kb, n = max(sizes.items(), key=lambda item: (item[1], item[0]))
    total = sum(sizes.values())
    if n == total:
        return f"{amount(kb)} each"
    if n * 2 >= total:
        return f"mostly {amount(kb)}"
    span = f"{amount(min(sizes))} to {amount(max(sizes))}"
    return f"{span}, {n:,} of them {amount(kb)}" if n * 8 >= total and n >= RUN else span


def _same_backing(a: MapsEntry, b: MapsEntry) -> bool:
    """Tell whether two mappings are of the same file, or both of nameless memory."""
    ours = (mapkinds.backing(a), mapkinds.label(a))
    return ours == (mapkinds.backing(b), mapkinds.label(b))


def _run_key(g: Groups, first: int, last: int) -> tuple[str, ...] | None:
    """Return what a run of mappings that touch has been cut by; None if by nothing special."""
    reasons = Counter(g.apart[i].key for i in range(first, last))
    key, n = max(reasons.items(), key=lambda item: (item[1], item[0]))
    if n * 2 < last - first:
        return None
    file = mapkinds.backing(g.entries[first])
    where = file[-1] if file else mapkinds.pattern(mapkinds.label(g.entries[first]))
    if key == "rights":
        closed = sum(g.entries[i].perms[:3] == "---" for i in range(first, last + 1))
        if not file and 3 * closed >= last - first:
            return "guards", where
        return "rights", where
    if key == "flags":
        words: Counter[str] = Counter()
        for i in range(first, last):
            words[" ".join(g.apart[i].flags)] += g.apart[i].key == "flags"
        return "flags", where, max(words.items(), key=lambda item: (item[1], item[0]))[0]
    if key in ("offset", "hidden", "name", "key"):
        return key, where
    return None


def _runs(g: Groups, keys: list[tuple[str, ...] | None]) -> None:
    """Give mappings in long runs of the same backing that touch their key."""
    first, n = 0, len(g.entries)
    for i in range(n):
        together = (
            i + 1 < n
            and g.apart[i].key != "hole"
            and keys[i + 1] is None
            and keys[i] is None
            and g.kinds.kind[i] not in mapkinds.MADE_BY_EXEC
            and _same_backing(g.entries[i], g.entries[i + 1])
        )
        if together:
            continue
        if i + 1 - first >= RUN and (key := _run_key(g, first, i)) is not None:
            for j in range(first, i + 1):
                keys[j] = keys[j] or key
        first = i + 1


def _kind_key(kind: str, e: MapsEntry, per_file: Counter[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the key of a mapping outside of every pattern."""
    file = mapkinds.backing(e)
    if file and per_file[file] >= MANY:
        return "pieces", file[-1]
    if kind in ("program", "library", "bss"):
        return ("code",)
    if kind in ("file", "deleted file"):
        return "directory", mapkinds.pattern(e.name.rpartition("/")[0] or "/")
    if kind in mapkinds.MADE_BY_EXEC:
        return ("exec",)
    if kind in ("named", "shared memory", "device", "huge pages", "other"):
        return kind, mapkinds.pattern(e.name.removesuffix(" (deleted)"))
    return kind, ""


_ADVICE = {
    "stacks": "a thread that has ended keeps its stack until it is joined or detached",
    "guards": "a guard page is a mapping of its own, and so is what it guards; from Linux 6.13 on "
    "MADV_GUARD_INSTALL makes guard pages that are none",
    "rights": "each mprotect() of a part splits; equal rights merge again, unless both parts have an "
    "anon_vma of their own",
    "flags": "a call for a part of a mapping (madvise(), mlock() ...) splits it; the same call for whole blocks does "
    "not",
    "pieces": "windows of one file: map larger ones, or the whole file once",
    "offset": "windows of one file in another order than in the file: they cannot merge",
    "directory": "one mapping or more for each file: programs that read data files by mmap() need "
    "a higher limit",
    "hidden": "neighbours that are alike in all that is shown stay apart if each was written to before they "
    "met (another anon_vma), after fork(), after mremap(), or under another memory policy",
    "anonymous": "each is a call of mmap() of its own; malloc() does that for blocks from 128 kB on "
    "(M_MMAP_THRESHOLD), at most 65,536 times (M_MMAP_MAX)",
    "arenas": "malloc() makes up to 8 arenas per CPU for threads (MALLOC_ARENA_MAX); two mappings for each part of "
    "64 MB",
}


def _name(g: Groups, group: Group) -> str:
    """Return the name, or directory, that all of a group have; "" if they differ."""
    kind = group.key[0]
    names = {g.entries[i].name.removesuffix(" (deleted)") for i in group.members[:5000]}
    if kind == "directory":
        names = {name.rpartition("/")[0] or "/" for name in names}
    return min(names) if len(names) == 1 else ""


def _title(g: Groups, group: Group) -> str:
    """Say what a group is."""
    kind, *rest = group.key
    where = _name(g, group) or (rest[0] if rest else "")
    of = f" of {where}" if where else " of anonymous memory"
    if kind == "stacks":
        blocks, guards = g.sizes(group, ("stack",)), g.sizes(group, ("guard of a stack",))
        return (
            f"guard pages and blocks above them that look like {sum(blocks.values()):,} stacks of "
            f"threads or coroutines ({_common(blocks)}; guards {_common(guards)})"
        )
    if kind == "guards":
        return f"small pieces{of} between guard pages ({_common(g.sizes(group))})"
    if kind == "arenas":
        arenas = sum(g.sizes(group, ("arena",)).values())
        return f"what looks like {arenas:,} arenas of malloc(), the used part and the reserve"
    if kind == "rights":
        rights = ", ".join(f"{n:,} {p}" for p, n in sorted(g.rights(group).items()))
        return f"pieces{of} with changing rights: {rights} ({_common(g.sizes(group))})"
    if kind == "flags":
        return f"pieces{of} whose flags change: {flag_words(rest[1].split())}"
    if kind == "hidden":
        return f"pieces{of} that touch and are alike ({_common(g.sizes(group))})"
    if kind == "offset":
        return f"pieces{of}, offsets that do not continue ({_common(g.sizes(group))})"
    if kind in ("name", "key"):
        why = "names" if kind == "name" else "protection keys"
        return f"pieces{of} that touch and have different {why}"
    return _plain_title(g, group, kind, where)


def _plain_title(g: Groups, group: Group, kind: str, where: str) -> str:
    """Say what a group without a pattern is."""
    if kind == "pieces":
        return f"pieces of one file, {where} ({_common(g.sizes(group))})"
    if kind == "directory":
        files = len({mapkinds.backing(g.entries[i]) for i in group.members})
        inside = "in /" if where == "/" else f"in {where}/" if where else "without a path"
        return f"mappings of {files:,} file{'s' * (files != 1)} {inside}"
    if kind == "code":
        files = len(
            {b for i in group.members if (b := mapkinds.backing(g.entries[i]))},
        )
        return f"the program and its libraries: {files:,} file{'s' * (files != 1)} in segments, and .bss"
    if kind == "exec":
        return "made by the kernel: heap, first stack, vdso and what belongs to it"
    if kind == "named":
        return f"memory that the program named {where}"
    if kind in ("shared memory", "device", "huge pages", "other"):
        return f"{kind if kind != 'other' else 'the kernel calls them'}: {where}"
    texts = {
        "anonymous": "anonymous memory, apart from each other",
        "read-only anonymous": "anonymous memory, read-only",
        "run-time code": "anonymous memory that is executable: code made at run time",
        "guard or reserve": "address space that is kept and may not be touched (---)",
    }
    return f"{texts.get(kind, kind)} ({_common(g.sizes(group))})"


def grouped(entries: list[MapsEntry]) -> Groups:
    """Put each mapping into the group of those that are there for the same reason."""
    g = Groups(entries, kinds_of(entries), [])
    g.apart = [obstacle(a, b) for a, b in itertools.pairwise(entries)]
    keys: list[tuple[str, ...] | None] = [
        (
            ("arenas",)
            if "arena" in k
            else ("stacks",) if "stack" in k.split() and k != "main stack" else None
        )
        for k in g.kinds.kind
    ]
    _runs(g, keys)
    per_file: Counter[tuple[str, ...]] = Counter(
        b for e, k in zip(entries, keys, strict=True) if k is None and (b := mapkinds.backing(e))
    )
    found: dict[tuple[str, ...], Group] = {}
    for i, e in enumerate(entries):
        key = keys[i] or _kind_key(g.kinds.kind[i], e, per_file)
        found.setdefault(key, Group(key)).members.append(i)
    for group in found.values():
        group.what = _title(g, group)
        group.advice = _ADVICE.get(group.key[0], "")
    g.groups = sorted(found.values(), key=lambda group: (-len(group.members), group.key))
    return g


# ---- the report ----------------------------------------------------------------------------------


@dataclass(slots=True)
class MapsReport:
    """The answer.

    :ivar map_count: mappings that count, which are all but the one of vsyscall
    :ivar max_map_count: the limit; the default if it was not given
    :ivar given: it was
    """

    reading: Reading
    groups: Groups
    map_count: int
    max_map_count: int
    given: bool

    @property
    def new(self) -> int:
        """How many mappings mmap() may still make: it is refused above the limit."""
        return max(self.max_map_count + 1 - self.map_count, 0)

    @property
    def splits(self) -> int:
        """How often a mapping may still be split: that is refused at the limit."""
        return max(self.max_map_count - self.map_count, 0)

    def lines(self) -> list[str]:
        """Return the report, the answer first."""
        out = [self._answer(), "", *self._limit()]
        out += ["", *self._groups()]
        out += ["", *self._apart()]
        if len(self.reading.entries) <= MAX_LISTED:
            out += ["", *self._list(range(len(self.reading.entries)))]
        else:
            many = [group for group in self.groups.groups[:3] if len(group.members) >= MANY]
            out += ["", "The first mappings of the largest groups, and why they do not merge:"]
            for group in many:
                first = group.members[0]
                some = [i for n, i in enumerate(group.members[:4]) if i == first + n]
                out += ["", group.what, *self._list(range(first, some[-1] + 1))]
        return out + self._notes()

    def _answer(self) -> str:
        n, limit = self.map_count, self.max_map_count
        largest = self.groups.groups[0]
        share = len(largest.members) * 100 / len(self.reading.entries)
        state = "the limit is reached" if n >= limit else f"{n * 100 / limit:.1f}% of the limit"
        if 0 < limit - n < limit // 100:
            state = f"{limit - n:,} below the limit"
        if not self.given and n > limit + 1:
            state = "more than the default limit allows"
        tail = f"; {len(largest.members):,} ({share:.1f}%) are {largest.what}"
        return f"{n:,} mapping{'s' * (n != 1)}, {state}{tail if (n >= RUN and share >= 50) or n > 1000 else ''}."

    def _limit(self) -> list[str]:
        n, limit = self.map_count, self.max_map_count
        where = "vm.max_map_count" if self.given else "not given, so the default is assumed"
        if not self.given and n > limit + 1:
            return [
                f"The limit, vm.max_map_count, was not given. It is above the default of {limit:,}: "
                "write max_map_count=N in front of the mappings."
            ]
        moves = max(limit - 3 - n, 0)
        return [
            f"Limit {limit:,} ({where}): mmap() and brk() may make {self.new:,} more; calls for a part of a "
            f"mapping (mprotect(), munmap(), madvise() ...) may split {self.splits:,} more times; "
            f"mremap() moves {'while' if moves else 'nothing until'} there are fewer than {max(limit - 3, 0):,} "
            f"(to a given address: {max(limit - 5, 0):,}). "
            "Then ENOMEM (pthread_create(): EAGAIN), however much memory is free."
        ]

    def _groups(self) -> list[str]:
        out = [f"{'mappings':>8}  {'share':>6}  {'size':>9}   what they are"]
        total = len(self.reading.entries)
        shown = self.groups.groups[:MAX_GROUPS]
        advice: list[str] = []
        for group in shown:
            share, kb = len(group.members) * 100 / total, amount(self.groups.kb(group))
            head = f"{len(group.members):>8,}  {share:>5.1f}%  {kb:>9}   "
            words = mapkinds.folded(group.what, 52)
            out.append(head + words[0])
            out += [" " * len(head) + word for word in words[1:]]
            if group.advice and len(group.members) >= MANY and group.advice not in advice:
                advice.append(group.advice)
                out += [" " * len(head) + word for word in mapkinds.folded(group.advice + ".", 52)]
        rest = self.groups.groups[MAX_GROUPS:]
        if rest:
            n = sum(len(group.members) for group in rest)
            out.append(
                f"{n:>8,}  {n * 100 / total:>5.1f}%  {'':>9}   in {len(rest):,} smaller groups"
            )
        threads = self.reading.settings.get("threads")
        if threads is not None:
            out.append(f"The process has {threads:,} thread{'s' * (threads != 1)}.")
        return out

    def _apart(self) -> list[str]:
        reasons = Counter(o.key for o in self.groups.apart)
        if not reasons:
            return ["There is one mapping, so nothing to merge."]
        touching = sum(n for key, n in reasons.items() if key != "hole")
        out = [
            f"Between neighbours: {reasons['hole']:,} holes; {touching:,} pairs touch and are two because of"
        ]
        words: Counter[str] = Counter(o.reason for o in self.groups.apart if o.key != "hole")
        ordered = sorted(words.items(), key=lambda item: (-item[1], item[0]))
        out += [f"{n:>8,}  {text}" for text, n in ordered[:8]]
        if len(ordered) > 8:
            out.append(f"{sum(n for _, n in ordered[8:]):>8,}  other combinations of flags")
        return out if touching else [f"Between neighbours: {reasons['hole']:,} holes; none touch."]

    def _list(self, which: range) -> list[str]:
        out = [f"{'range':<33} {'':4} {'size':>9}   {'what':<34} and the next"]
        entries, apart = self.groups.entries, self.groups.apart
        for i in which:
            e = entries[i]
            span = f"{e.start:08x}-{e.end:08x}"
            next_ = apart[i].words if i < len(apart) else ""
            out.append(
                f"{span:<33} {e.perms} {amount(e.end - e.start >> 10):>9}   "
                f"{describe(e, self.groups.kinds.kind[i]):<34} {next_}".rstrip()
            )
        return out

    def _notes(self) -> list[str]:
        out: list[str] = []
        if not self.reading.detailed and any(o.key == "hidden" for o in self.groups.apart):
            out.append("smaps of the same process shows the flags, too, and tells more.")
        if len(self.reading.entries) != self.map_count:
            out.append("[vsyscall] is shown, but is no mapping of the process and does not count.")
        if not self.given and self.map_count <= self.max_map_count + 1:
            out.append("Some distributions set vm.max_map_count to 1,048,576.")
        if self.reading.left_out:
            n = self.reading.left_out
            out.append(f"{n:,} line{'s' * (n != 1)} with something else were left out.")
        return ["", *out] if out else []

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row, with the groups and the first `MAX_ROWS` mappings in it."""
        g = self.groups
        maps = [
            {
                "start": f"{e.start:#x}",
                "end": f"{e.end:#x}",
                "perms": e.perms,
                "name": e.name,
                "kind": g.kinds.kind[i],
                "next": g.apart[i].words if i < len(g.apart) else None,
            }
            for i, e in enumerate(g.entries[:MAX_ROWS])
        ]
        groups = [
            {
                "pattern": group.key[0],
                "what": group.what,
                "mappings": len(group.members),
                "kb": g.kb(group),
            }
            for group in g.groups
        ]
        return [
            {
                "mappings": self.map_count,
                "max_map_count": self.max_map_count,
                "max_map_count_given": self.given,
                "mmap_left": self.new,
                "splits_left": self.splits,
                "groups": groups[:MAX_ROWS],
                "apart": dict(sorted(Counter(o.key for o in g.apart).items())),
                "maps": maps,
                "maps_left_off": max(len(g.entries) - MAX_ROWS, 0),
            }
        ]


def report(text: str, max_map_count: int | None = None) -> MapsReport:
    """Explain the mappings in the text of /proc/PID/maps or smaps.

    :param max_map_count: the limit, if the text does not say it
    :raises ParseError: if there is no mapping, one is damaged, or they are not in order
    :raises UsageError: if the limit is none
    """
    reading = read(text)
    limit = reading.settings.get("max_map_count", max_map_count)
    if limit is not None and not 0 <= limit < 1 << 31:
        raise UsageError(f"max_map_count is {limit}; it is 0 to 2147483647")
    if reading.entries[0].name == "[rollup]":
        raise UsageError("this is smaps_rollup, one sum; give maps or smaps")
    count = sum(e.name not in mapkinds.GATES for e in reading.entries)
    known = DEFAULT_MAX_MAP_COUNT if limit is None else limit
    return MapsReport(reading, grouped(reading.entries), count, known, limit is not None)
