"""What a process has in memory: /proc/PID/smaps added up by what the mappings are there for.

::

    print("\\n".join(report(open("/proc/self/smaps").read()).lines()))

smaps_rollup is read as well, as one sum. Fields that a kernel does not print are left out of the answer,
not taken as 0.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mmcore.errors import ParseError
from mmcore.proc.task_mmu import MapsEntry
from mmcore.report import mapkinds, maps
from mmcore.report.mapkinds import FLAGS, amount, describe, kinds_of

__all__ = ["SmapsReport", "condensed", "report"]

#: So many of the largest mappings are listed.
TOP = 12
MAX_ROWS = 2000

#: Sums by this field where it is there; else by Rss.
_COLUMNS = ("Rss", "Pss", "Private", "Anonymous", "Swap")
#: What mappings are called in the table, by their kind.
_NAMES = {
    "program": "the program",
    "library": "libraries",
    "bss": ".bss, or behind a file's data",
    "heap": "[heap]",
    "main stack": "[stack]",
    "stack": "stacks of threads?",
    "guard of a stack": "guard pages of stacks?",
    "arena": "arenas of malloc()?",
    "arena's reserve": "reserve of arenas?",
    "named": "named by the program",
    "vdso": "vdso and vvar",
    "file": "other files",
    "deleted file": "files that were deleted",
}
#: Flags that change what happens to the memory.
_NOTABLE = (
    "lo",
    "lf",
    "ht",
    "hg",
    "nh",
    "mg",
    "dc",
    "dd",
    "wf",
    "um",
    "uw",
    "ui",
    "nr",
    "dp",
    "sl",
    "io",
    "pf",
    "mt",
)


def condensed(lines: list[bytes]) -> bytes:
    """Return the text of a large smaps without values that are 0 or told by others.

    smaps of 65,530 mappings has 46 MB, more than the tools take.
    """
    keep = (
        b"Rss",
        b"Pss:",
        b"Pri",
        b"Sha",
        b"Ano",
        b"Swap",
        b"Lock",
        b"Laz",
        b"KSM",
        b"Shm",
        b"Fil",
        b"VmF",
        b"Prot",
    )
    out = []
    for line in lines:
        if b":" not in line[:20] or line[:1] in b"0123456789abcdef":
            out.append(line)
        elif line.startswith(keep) and (not line.endswith(b" 0 kB\n") or line.startswith(b"Rss")):
            out.append(b" ".join(line.split()) + b"\n")
    return b"".join(out)


@dataclass(slots=True)
class SmapsReport:
    """The answer.

    :ivar total: every field that was printed, added up, in kB
    :ivar by_kind: the same for each kind of mapping
    """

    reading: maps.Reading
    kind: list[str]
    total: Counter[str] = field(default_factory=Counter)
    by_kind: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def rollup(self) -> bool:
        """It is smaps_rollup: one sum."""
        return self.reading.entries[0].name == "[rollup]"

    def lines(self) -> list[str]:
        """Return the report, the answer first."""
        private = self._private()
        out = [self._answer(), *([""] if private else []), *private]
        if not self.rollup:
            out += ["", *self._table(), "", *self._largest()]
            out += self._flags()
        return out + self._notes()

    def _kb(self, name: str) -> str:
        return f"{self.total[name]:,} kB"

    def _answer(self) -> str:
        t = self.total
        parts = [f"{self._kb('Rss')} in memory (Rss)"]
        if "Private" in t:
            parts.append(f"{self._kb('Private')} of them its own (private)")
        if "Pss" in t:
            parts.append(f"{self._kb('Pss')} if shared pages are divided by their users (Pss)")
        if "Swap" in t:
            parts.append(f"{self._kb('Swap')} in swap")
        return "; ".join(parts) + "."

    def _private(self) -> list[str]:
        t = self.total
        out = []
        if "Private" in t:
            freed = t["Private"] + t["Swap"]
            out.append(
                f"Its end would free about {freed:,} kB of memory and swap, which nobody else maps; what belongs to "
                f"files or tmpfs stays in memory ({self._kb('Private_Clean')} are private and clean)."
            )
        said = [
            f"{text} {self._kb(name)}"
            for name, text in (
                ("Anonymous", "anonymous"),
                ("AnonHugePages", "in huge pages"),
                ("Locked", "locked"),
                ("LazyFree", "given up by MADV_FREE"),
                ("KSM", "KSM"),
                ("Private_Hugetlb", "hugetlb, private (not in Rss)"),
                ("Shared_Hugetlb", "hugetlb, shared (not in Rss)"),
            )
            if t[name]
        ]
        return [*out, "Of it " + "; ".join(said) + "."] if said else out

    def _table(self) -> list[str]:
        shown = [c for c in _COLUMNS if c in self.total]
        out = [
            f"{'what (values in kB)':<32}{'maps':>7}{'size':>10}"
            + "".join(f"{c:>11}" for c in shown)
        ]
        by = "Pss" if "Pss" in self.total else "Rss"
        rows = sorted(
            self.by_kind.items(), key=lambda item: (-item[1][by], -item[1]["Size"], item[0])
        )
        for kind, sums in [*rows, ("all", self.total)]:
            values = "".join(f"{sums[c]:>11,}" for c in shown)
            out.append(
                f"{_NAMES.get(kind, kind):<32}{sums['maps']:>7,}{amount(sums['Size']):>10}{values}"
            )
        return out

    def _largest(self) -> list[str]:
        by = "Pss" if "Pss" in self.total else "Rss"
        entries = self.reading.entries
        order = sorted(range(len(entries)), key=lambda i: (-entries[i].sizes.get(by, 0), i))[:TOP]
        out = [f"{'largest by ' + by:<33} {'':4} {by:>10}   {'what':<34} flags"]
        for i in order:
            e = entries[i]
            if not e.sizes.get(by, 0):
                break
            flags = " ".join(f for f in e.flags or () if f in _NOTABLE)
            out.append(
                f"{f'{e.start:08x}-{e.end:08x}':<33} {e.perms} {e.sizes[by]:>7,} kB   "
                f"{describe(e, self.kind[i]):<34} {flags}".rstrip()
            )
        return out if len(out) > 1 else ["Nothing is in memory."]

    def _flags(self) -> list[str]:
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for e in self.reading.entries:
            for flag in set(e.flags or ()):
                counts[flag] += 1
                sizes[flag] += e.end - e.start >> 10
        out = [
            f"{counts[f]:>8,}  {amount(sizes[f]):>9}   {f}: {FLAGS[f]}"
            for f in _NOTABLE
            if counts[f]
        ]
        return (
            ["", "Flags that matter, how many mappings have them, and their size:", *out]
            if out
            else []
        )

    def _notes(self) -> list[str]:
        out: list[str] = []
        if not self.rollup and all(e.flags is None for e in self.reading.entries):
            out.append("There are no VmFlags: a kernel before 3.8, or a text that was shortened.")
        if "Pss" not in self.total:
            out.append("There is no Pss: shared pages count in full.")
        last = self.reading.entries[-1]
        if (
            not self.rollup
            and len(self.reading.entries) > 1
            and not last.sizes
            and last.name not in mapkinds.GATES
        ):
            out.append("The last mapping has no values: the text was cut.")
        if self.reading.left_out:
            n = self.reading.left_out
            out.append(f"{n:,} line{'s' * (n != 1)} with something else were left out.")
        return ["", *out] if out else []

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row: the sums, by kind, and of the first `MAX_ROWS` mappings what was printed."""
        kinds = {k: dict(sorted(c.items())) for k, c in sorted(self.by_kind.items())}
        return [
            {
                "rollup": self.rollup,
                "mappings": len(self.reading.entries),
                "total_kb": dict(sorted(self.total.items())),
                "kinds": kinds,
                "maps": [
                    {
                        "start": f"{e.start:#x}",
                        "end": f"{e.end:#x}",
                        "perms": e.perms,
                        "name": e.name,
                        "kind": self.kind[i],
                        "kb": dict(e.sizes),
                        "flags": None if e.flags is None else list(e.flags),
                    }
                    for i, e in enumerate(self.reading.entries[:MAX_ROWS])
                ],
            }
        ]


_NO_SUMS = ("KernelPageSize", "MMUPageSize", "THPeligible", "ProtectionKey", "Size")


def _sums(e: MapsEntry) -> Counter[str]:
    """Return what a mapping adds to the sums."""
    sums = Counter({k: v for k, v in e.sizes.items() if k not in _NO_SUMS})
    sums["Size"] = e.end - e.start >> 10
    sums["maps"] = 1
    if "Private_Clean" in e.sizes or "Private_Dirty" in e.sizes:
        sums["Private"] = e.sizes.get("Private_Clean", 0) + e.sizes.get("Private_Dirty", 0)
    return sums


def report(text: str) -> SmapsReport:
    """Add up the text of /proc/PID/smaps or smaps_rollup.

    :raises ParseError: if there is no mapping, one is damaged, or there are no values
    """
    reading = maps.read(text)
    if not reading.detailed:
        first = reading.entries[0]
        raise ParseError(
            "/proc/PID/smaps",
            first.line,
            first.header().rstrip(),
            "there are no values (Rss: ...), so this is maps: give smaps, or take the tool maps",
        )
    out = SmapsReport(reading, kinds_of(reading.entries).kind)
    for e, kind in zip(reading.entries, out.kind, strict=True):
        sums = _sums(e)
        out.total.update(sums)
        out.by_kind.setdefault(kind, Counter()).update(sums)
    return out
