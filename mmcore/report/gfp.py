"""Decode a gfp mask from a log, a trace or a crash dump, of this kernel or an older one.

The numbers of the flags changed between releases: GFP_KERNEL is 0xcc0 in Linux 6.12, 0x6000c0 in 4.19
and 0xd0 in 3.13. `NUMBERINGS` holds the tables of the releases whose ``include/linux/gfp.h`` (from 6.0
on ``gfp_types.h``) was read for it. `asked()` finds the table for a release between two of them, and
which bits could mean something else there. Where a log gives number and names, the numbering is the one
in which they agree::

    print("\\n".join(decode("mode:0x24000c0(GFP_KERNEL)")[0].lines()))
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from mmcore.errors import ParseError, UsageError
from mmcore.machine import Machine
from mmcore.mm import gfp as g
from mmcore.mm import page_alloc
from mmcore.mm.internal import (
    ALLOC_HIGHATOMIC,
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NON_BLOCK,
    alloc_flags_str,
)
from mmcore.mm.mmzone import MIGRATETYPE_NAMES, ZONE_NAMES

__all__ = [
    "MAX_MASKS",
    "NUMBERINGS",
    "Asked",
    "asked",
    "by_names",
    "GfpMask",
    "Numbering",
    "decode",
    "fits",
    "nameless",
    "find_masks",
    "numbering",
    "to_reference",
]

#: At most this many different masks of one text are decoded.
MAX_MASKS = 32

#: What each flag says, in a few words.
MEANINGS: dict[str, str] = {
    "__GFP_DMA": "zone DMA, the first 16 MiB of memory",
    "__GFP_HIGHMEM": "the kernel needs no permanent address for it",
    "__GFP_DMA32": "zone DMA32, the first 4 GiB of memory",
    "__GFP_MOVABLE": "the page can be moved or reclaimed",
    "__GFP_RECLAIMABLE": "a slab page that a shrinker can free",
    "__GFP_HIGH": "urgent: may take part of the reserve below min",
    "__GFP_IO": "may start disk I/O to free memory",
    "__GFP_FS": "may call into filesystems to free memory",
    "__GFP_ZERO": "zero the memory",
    "__GFP_ATOMIC": "cannot sleep and is urgent",
    "__GFP_WAIT": "may sleep and reclaim by itself",
    "__GFP_DIRECT_RECLAIM": "may sleep and reclaim by itself",
    "__GFP_KSWAPD_RECLAIM": "wakes kswapd when memory gets low",
    "__GFP_NO_KSWAPD": "does not wake kswapd",
    "__GFP_WRITE": "the page will be dirtied soon",
    "__GFP_NOWARN": "no report if it fails",
    "__GFP_REPEAT": "tries harder, may still fail",
    "__GFP_RETRY_MAYFAIL": "tries harder, may still fail",
    "__GFP_NOFAIL": "must not fail: tries for ever",
    "__GFP_NORETRY": "gives up early, calls no OOM killer",
    "__GFP_MEMALLOC": "may take all memory: it helps to free more",
    "__GFP_COMP": "the pages form one compound page (a folio)",
    "__GFP_NOMEMALLOC": "no emergency reserve, whoever asks",
    "__GFP_HARDWALL": "only nodes that the task's cpuset allows",
    "__GFP_THISNODE": "this node or none",
    "__GFP_ACCOUNT": "charged to the task's memory cgroup",
    "__GFP_KMEMCG": "charged to the task's memory cgroup",
    "__GFP_ZEROTAGS": "zero the memory tags, too (arm64)",
    "__GFP_NO_OBJ_EXT": "a slab without extensions for its objects",
    "__GFP_COLD": "rather a page that is not in the CPU's cache",
    "__GFP_NOTRACK": "not tracked by kmemcheck",
    "__GFP_NO_GROW": "no new pages for the slab",
    "__GFP_OTHER_NODE": "on behalf of another node",
    "__GFP_SKIP_ZERO": "not zeroed by init_on_alloc (KASAN_HW_TAGS)",
    "__GFP_SKIP_KASAN": "KASAN leaves it alone (KASAN_HW_TAGS)",
    "__GFP_SKIP_KASAN_UNPOISON": "KASAN does not unpoison it (KASAN_HW_TAGS)",
    "__GFP_SKIP_KASAN_POISON": "KASAN does not poison it (KASAN_HW_TAGS)",
}


@dataclass(frozen=True, slots=True)
class Numbering:
    """The flags of one release.

    :ivar flags: single bits by name
    :ivar combined: names of several bits, the largest first
    :ivar config: bits whose meaning depends on the configuration
    """

    version: str
    flags: dict[str, int]
    combined: dict[str, int]
    config: int = 0

    def value(self, name: str) -> int | None:
        """Return the bits of @name, None if the release does not know it."""
        return self.flags.get(name, self.combined.get(name))

    def names(self, mask: int) -> str:
        """Return @mask in names, as the kernel's reports write it."""
        if self.version == "6.12":
            return g.gfp_str(mask)
        if not mask:
            return "none"
        out, left = [], mask
        for name, bits in [*self.combined.items(), *self.flags.items()]:
            if bits and left & bits == bits:
                out.append(name)
                left &= ~bits
        if left:
            out.append(f"{left:#x}")
        return "|".join(out)


def _bits(names: str, first: int = 0) -> dict[str, int]:
    """Return flags by name for consecutive bits; a dash is a bit without a flag."""
    words = names.split()
    return {f"__GFP_{w}": 1 << first + i for i, w in enumerate(words) if w != "-"}


def _combined(flags: dict[str, int], nowait_nowarn: bool = False) -> dict[str, int]:
    """Return the composed masks, as a release defines them from its flags."""
    f = {name.removeprefix("__GFP_"): bit for name, bit in flags.items()}
    wait = f.get("WAIT", 0)
    kswapd = f.get("KSWAPD_RECLAIM", 0)
    reclaim = wait or f["DIRECT_RECLAIM"] | kswapd
    user = reclaim | f["IO"] | f["FS"] | f["HARDWALL"]
    skip = f.get("SKIP_KASAN", 0) if "SKIP_ZERO" in f else 0
    movable = user | f["HIGHMEM"] | f.get("MOVABLE", 0) | skip
    light = movable | f["COMP"] | f["NOMEMALLOC"] | f["NOWARN"]
    out = {
        "GFP_TRANSHUGE": (light & ~reclaim | f.get("DIRECT_RECLAIM", 0)) if not wait else 0,
        "GFP_TRANSHUGE_LIGHT": light & ~reclaim if not wait else 0,
        "GFP_HIGHUSER_MOVABLE": movable,
        "GFP_HIGHUSER": user | f["HIGHMEM"],
        "GFP_USER": user,
        "GFP_KERNEL_ACCOUNT": reclaim | f["IO"] | f["FS"] | f.get("ACCOUNT", 0),
        "GFP_KERNEL": reclaim | f["IO"] | f["FS"],
        "GFP_NOFS": reclaim | f["IO"],
        "GFP_ATOMIC": f["HIGH"] | f.get("ATOMIC", 0) | kswapd,
        "GFP_NOIO": reclaim,
        "GFP_NOWAIT": kswapd | (f["NOWARN"] if nowait_nowarn else 0),
        "GFP_DMA": f["DMA"],
        "GFP_DMA32": f["DMA32"],
    }
    if "NO_KSWAPD" in f:
        out["GFP_TRANSHUGE"] = light | f["NORETRY"] | f["NO_KSWAPD"]
    if "ACCOUNT" not in f:
        del out["GFP_KERNEL_ACCOUNT"]
    if "REPEAT" in f and "RECLAIMABLE" in f:
        out["GFP_TEMPORARY"] = reclaim | f["IO"] | f["FS"] | f["RECLAIMABLE"]
    if "MOVABLE" not in f:
        del out["GFP_HIGHUSER_MOVABLE"]
    known = [(name, bits) for name, bits in out.items() if bits]
    return dict(sorted(known, key=lambda pair: -pair[1].bit_count()))


_LOW_OLD = (
    "DMA HIGHMEM DMA32 MOVABLE WAIT HIGH IO FS COLD NOWARN REPEAT NOFAIL NORETRY MEMALLOC COMP "
)
_3_13 = _bits(
    _LOW_OLD + "ZERO NOMEMALLOC HARDWALL THISNODE RECLAIMABLE KMEMCG NOTRACK NO_KSWAPD "
    "OTHER_NODE WRITE"
)
_2_6_18 = _bits(
    "DMA HIGHMEM DMA32 - WAIT HIGH IO FS COLD NOWARN REPEAT NOFAIL NORETRY NO_GROW COMP ZERO "
    "NOMEMALLOC HARDWALL"
)
_2_6_24 = {name: bit for name, bit in _2_6_18.items() if name != "__GFP_NO_GROW"} | _bits(
    "THISNODE RECLAIMABLE MOVABLE", 18
)
_4_9 = _bits(
    _LOW_OLD.replace("WAIT", "RECLAIMABLE") + "ZERO NOMEMALLOC HARDWALL THISNODE ATOMIC ACCOUNT "
    "NOTRACK DIRECT_RECLAIM OTHER_NODE WRITE KSWAPD_RECLAIM"
)
_4_14 = _bits(
    _LOW_OLD.replace("WAIT", "RECLAIMABLE").replace("REPEAT", "RETRY_MAYFAIL")
    + "ZERO NOMEMALLOC HARDWALL THISNODE ATOMIC ACCOUNT NOTRACK DIRECT_RECLAIM WRITE KSWAPD_RECLAIM"
)
_4_19 = _bits(
    "DMA HIGHMEM DMA32 MOVABLE RECLAIMABLE HIGH IO FS WRITE NOWARN RETRY_MAYFAIL NOFAIL NORETRY "
    "MEMALLOC COMP ZERO NOMEMALLOC HARDWALL THISNODE ATOMIC ACCOUNT DIRECT_RECLAIM KSWAPD_RECLAIM"
)
_5_10 = _bits(
    "DMA HIGHMEM DMA32 MOVABLE RECLAIMABLE HIGH IO FS ZERO ATOMIC DIRECT_RECLAIM KSWAPD_RECLAIM "
    "WRITE NOWARN RETRY_MAYFAIL NOFAIL NORETRY MEMALLOC COMP NOMEMALLOC HARDWALL THISNODE ACCOUNT"
)
_5_15 = _5_10 | _bits("ZEROTAGS", 23)
_6_6 = {name: bit for name, bit in _5_15.items() if name != "__GFP_ATOMIC"}
_6_12 = _6_6 | {"__GFP_NO_OBJ_EXT": 1 << 24}

#: Newest first. A table is here because the release's own header was read.
NUMBERINGS: tuple[Numbering, ...] = (
    Numbering("6.12", _6_12, _combined(_6_12, nowait_nowarn=True), 0xFF << 24),
    Numbering("6.6", _6_6, _combined(_6_6), 0xFF << 24),
    Numbering("6.1", _5_15, _combined(_5_15), 0xFF << 24),
    Numbering("5.15", _5_15, _combined(_5_15), 0xFF << 24),
    Numbering("5.10", _5_10, _combined(_5_10), 0xFF << 23),
    Numbering("4.19", _4_19, _combined(_4_19), 0xFF << 23),
    Numbering("4.14", _4_14, _combined(_4_14), 0xFE << 24),
    Numbering("4.9", _4_9, _combined(_4_9)),
    Numbering("3.13", _3_13, _combined(_3_13)),
    Numbering("2.6.24", _2_6_24, _combined(_2_6_24)),
    Numbering("2.6.18", _2_6_18, _combined(_2_6_18)),
)


#: Where a table holds before its own release: __GFP_MOVABLE went from bit 20 to bit 3 in 2.6.31.
HOLDS_FROM: dict[str, tuple[int, ...]] = {"3.13": (2, 6, 31)}
#: The oldest release that is asked about.
OLDEST = (2, 6, 12)
_RELEASE = re.compile(r"v?(\d{1,3})\.(\d{1,3})(?:\.(\d{1,4}))?(?!\d)[\w.+~-]{0,60}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Asked:
    """The table for a release that somebody named.

    :ivar table: its own, or the nearest
    :ivar other: the table on the other side of the release, None if @table is its own or the last
    :ivar differ: bits that @table and @other name differently
    """

    version: str
    table: Numbering
    other: Numbering | None = None
    differ: int = 0
    exact: bool = True

    def sure(self, mask: int) -> bool:
        """Tell whether @mask means the same in the tables on both sides of the release."""
        return self.exact or (self.other is not None and not mask & self.differ)

    def why(self, mask: int) -> str:
        """Say which numbering was used for @mask, and how well it is known to be the right one."""
        near, other = f"Linux {self.table.version}", self.other
        if self.exact:
            return f"{near}, as asked"
        if other is None:
            side = "newest" if self.table is NUMBERINGS[0] else "oldest"
            return f"{near}'s, the {side} known here; {self.version}'s own is not"
        text = f"{near}'s for {self.version}, between the tables of {' and '.join(self._ends())}"
        if not self.differ:
            return f"{text}, which are alike"
        if not mask & self.differ:
            return f"{text}; the bits set here are the same in both"
        bits = ", ".join(str(i) for i in range(32) if mask & self.differ & 1 << i)
        return (
            f"{text}; they differ in bits set here ({bits}), and which release changed them is not "
            "known here"
        )

    def _ends(self) -> list[str]:
        tables = [t for t in (self.table, self.other) if t is not None]
        return [t.version for t in sorted(tables, key=lambda t: _release(t.version))]


def _release(version: str) -> tuple[int, ...]:
    """Return a release as numbers that compare, () if it is none; 2.6's third number counts."""
    match = _RELEASE.fullmatch(version)
    if match is None:
        return ()
    numbers = tuple(int(word or 0) for word in match.groups())
    return numbers if numbers[:2] <= (2, 6) else (*numbers[:2], 0)


def _differ(a: Numbering, b: Numbering) -> int:
    """Return the bits that two tables name differently."""
    names = [{bit: name for name, bit in table.flags.items()} for table in (a, b)]
    bits = (1 << i for i in range(32))
    return sum(bit for bit in bits if names[0].get(bit) != names[1].get(bit))


def asked(version: str) -> Asked:
    """Return the table for a release such as ``3.18`` or ``4.19.0-26-amd64``.

    Between two tables it is the older one's, but for `HOLDS_FROM`.

    :raises UsageError: if it is no release from 2.6.12 on
    """
    release = _release(version)
    if release < OLDEST:
        known = ", ".join(t.version for t in NUMBERINGS)
        raise UsageError(
            f"no table of gfp flags for kernel {version[:20]!r}: give a release from 2.6.12 on, such "
            f"as 4.19; there are tables of {known}, and those between use the nearest"
        )
    newer: Numbering | None = None
    for table in NUMBERINGS:
        if release >= (own := _release(table.version)):
            exact = release == own
            other = None if exact else newer
            differ = _differ(table, other) if other else 0
            return Asked(version, table, other, differ, exact)
        if release >= HOLDS_FROM.get(table.version, own):
            older = NUMBERINGS[NUMBERINGS.index(table) + 1]
            return Asked(version, table, older, _differ(table, older), False)
        newer = table
    return Asked(version, NUMBERINGS[-1], None, 0, False)


def numbering(version: str) -> Numbering:
    """Return the table for a release.

    :raises UsageError: if it is no release from 2.6.12 on
    """
    return asked(version).table


def _words(names: str) -> list[str]:
    return [word.strip() for word in names.split("|") if word.strip()]


def _value_of(table: Numbering, names: str) -> int | None:
    """Return the mask that @names make in a numbering, None if it does not know one of them."""
    mask = 0
    for word in _words(names):
        if word == "none":
            continue
        bits = table.value(word)
        if bits is None and word == "__GFP_RECLAIM":
            bits = table.combined["GFP_NOIO"] if "__GFP_WAIT" not in table.flags else None
        if bits is None and re.fullmatch(r"0x[0-9a-fA-F]{1,8}", word):
            bits = int(word, 16)
        if bits is None:
            return None
        mask |= bits
    return mask


def fits(mask: int, names: str) -> list[Numbering]:
    """Return the numberings in which @names make exactly @mask, newest first."""
    return [table for table in NUMBERINGS if _value_of(table, names) == mask]


def by_names(names: str) -> tuple[Numbering, int] | None:
    """Return the newest numbering that knows all of @names, and their mask in it."""
    for table in NUMBERINGS:
        mask = _value_of(table, names)
        if mask is not None:
            return table, mask
    return None


def to_reference(table: Numbering, mask: int) -> int:
    """Return the mask of Linux 6.12 that asks for the same, flag by flag, as far as it has them.

    ``__GFP_WAIT`` becomes ``__GFP_DIRECT_RECLAIM``, ``__GFP_REPEAT`` ``__GFP_RETRY_MAYFAIL``; what
    6.12 does not have is left out.
    """
    if table.version == "6.12":
        return mask
    renamed = {"__GFP_WAIT": "__GFP_DIRECT_RECLAIM", "__GFP_REPEAT": "__GFP_RETRY_MAYFAIL"}
    out = 0
    for name, bit in table.flags.items():
        if mask & bit:
            out |= NUMBERINGS[0].flags.get(renamed.get(name, name), 0)
    return out


@dataclass(slots=True)
class GfpMask:
    """A mask with the numbering it is read in.

    :ivar mask: the number as it was given, or as the names make it
    :ivar table: the numbering
    :ivar why: why this numbering
    :ivar sure: the text itself decided the numbering
    :ivar count: how often it stood in the text
    :ivar near: the numberings that it could be in if it is not sure
    """

    mask: int
    table: Numbering
    why: str
    sure: bool = False
    count: int = 1
    given: str = ""
    near: tuple[Numbering, ...] = NUMBERINGS

    @property
    def names(self) -> str:
        """The mask in names."""
        return self.table.names(self.mask)

    @property
    def reference(self) -> int:
        """The mask in the numbering of Linux 6.12."""
        return to_reference(self.table, self.mask)

    @property
    def unknown(self) -> int:
        """Bits that the numbering does not name."""
        known = 0
        for bit in self.table.flags.values():
            known |= bit
        return self.mask & ~known

    def bits(self) -> list[tuple[int, str, str]]:
        """Return (bit number, name, meaning) of each bit that is set, low to high."""
        by_bit = {bit: name for name, bit in self.table.flags.items()}
        out = []
        for i in range(32):
            if self.mask >> i & 1:
                name = by_bit.get(1 << i, "")
                meaning = MEANINGS.get(name, "")
                if not name:
                    config = self.table.config >> i & 1
                    meaning = "depends on the configuration" if config else "no flag has this bit"
                out.append((i, name or "?", meaning))
        return out

    def facts(self) -> list[tuple[str, str]]:
        """Return what follows for the allocator, as (name, text).

        :raises UsageError: for a combination that the kernel forbids
        """
        ref = self.reference
        zone, mt = g.gfp_zone(ref), g.gfp_migratetype(ref)
        flags = page_alloc.gfp_to_alloc_flags(Machine(), ref, 0)
        below = ", falls back to lower ones" if zone else ""
        return [
            ("highest zone", f"{ZONE_NAMES[zone]} (starts there{below})"),
            ("migratetype", MIGRATETYPE_NAMES[mt]),
            ("may sleep", "yes" if g.gfpflags_allow_blocking(ref) else "no"),
            ("wakes kswapd", self._kswapd()),
            ("goes down to", _floor(flags)),
            ("slow path flags", alloc_flags_str(flags)),
        ]

    def _kswapd(self) -> str:
        bit = self.table.flags.get("__GFP_KSWAPD_RECLAIM")
        if bit is None:
            off = self.mask & self.table.flags.get("__GFP_NO_KSWAPD", 0)
            return "no" if off else "unless something else forbids it"
        return "yes" if self.mask & bit else "no"

    def lines(self) -> list[str]:
        """Return the report, the answer first."""
        out = [f"{self.given or hex(self.mask)} = {self.names}"]
        try:
            facts = self.facts()
            out.append(_summary(self.reference))
        except UsageError as err:
            facts = []
            out.append(f"The kernel forbids this: {err}")
        out.append("")
        out += textwrap.wrap(
            f"{'numbering:':<17}{self.why}", 100, subsequent_indent=" " * 17, break_long_words=False
        )
        if self.table.version != "6.12" and facts:
            out.append(f"{'rules:':<17}Linux 6.12's for the same flags, {self.reference:#x} there")
        out += [f"{name + ':':<17}{text}" for name, text in facts]
        out += [f"  bit {i:2} {1 << i:#10x}  {n:<21} {m}".rstrip() for i, n, m in self.bits()]
        if not self.sure:
            out += self._elsewhere()
        return out

    def _elsewhere(self) -> list[str]:
        """Return what the number means in the other numberings, if it means something else."""
        seen = [sorted(_words(self.names))]
        out = []
        for table in self.near:
            names = table.names(self.mask)
            if sorted(_words(names)) not in seen:
                seen.append(sorted(_words(names)))
                lines = textwrap.wrap(names.replace("|", "| "), 68)
                out.append(f"  {table.version:<8}{lines[0].replace('| ', '|')}")
                out += [f"  {'':<8}{line.replace('| ', '|')}" for line in lines[1:]]
        return [f"the number {self.mask:#x} in other kernels:", *out] if out else []

    def to_dict(self) -> dict[str, object]:
        """Return the same as data."""
        try:
            facts = {name.replace(" ", "_"): text for name, text in self.facts()}
        except UsageError as err:
            facts = {"forbidden": str(err)}
        return {
            "mask": self.mask,
            "names": self.names,
            "numbering": self.table.version,
            "sure": self.sure,
            "mask_6_12": self.reference,
            "count": self.count,
            "bits": [{"bit": i, "name": n, "meaning": m} for i, n, m in self.bits()],
            "facts": facts,
        }


def _summary(ref: int) -> str:
    """Return one sentence on a mask of Linux 6.12: who asks, and what it may do."""
    if ref & g.__GFP_MOVABLE:
        what = "A movable page, as user space gets them"
    elif ref & g.__GFP_RECLAIMABLE:
        what = "A reclaimable slab page"
    elif ref & g.__GFP_HARDWALL:
        what = "Memory on behalf of a user process"
    else:
        what = "Memory for the kernel itself"
    if not ref & g.__GFP_DIRECT_RECLAIM:
        how = "it may not sleep" + (
            ", but use part of the reserve"
            if ref & g.__GFP_HIGH and not ref & g.__GFP_NOMEMALLOC
            else ""
        )
    elif ref & g.__GFP_IO and ref & g.__GFP_FS:
        how = "it may sleep, reclaim and write to disk"
    elif ref & g.__GFP_IO:
        how = "it may sleep, reclaim and start I/O, but not enter filesystems"
    else:
        how = "it may sleep and reclaim, but not start I/O"
    extra = ", and must not fail" if ref & g.__GFP_NOFAIL else ""
    return f"{what}; {how}{extra}."


def _floor(flags: int) -> str:
    """Say how far below the min watermark requests with these ALLOC_* flags may go."""
    if flags & ALLOC_NO_WATERMARKS:
        return "the last page"
    if flags & ALLOC_MIN_RESERVE and flags & (ALLOC_NON_BLOCK | ALLOC_HIGHATOMIC):
        return "3/8 of the min watermark"
    if flags & ALLOC_MIN_RESERVE:
        return "half of the min watermark"
    return "the min watermark"


# ---- finding masks in a text ---------------------------------------------------------------------

_KEYED = re.compile(
    r"\b(?:gfp_mask|gfp_flags|gfp|mode|flags)[=:] ?"
    r"(?:(0x[0-9a-fA-F]{1,16})(?: ?\(([\w|]{1,600})\))?|((?:__)?GFP_[\w|]{1,600}))"
)
_PAIR = re.compile(r"(0x[0-9a-fA-F]{1,16}) ?\(([\w|]{1,600})\)")
_OPTION = re.compile(r"kernel=([\w.+~-]{1,80})")
_TOKEN = re.compile(r"[^\s,;()]+")


def _number(mask: str, names: str | None, chosen: Asked | None) -> GfpMask:
    """Read a number, with the names beside it if there are any."""
    value = int(mask, 16)
    if value >> 32:
        raise UsageError(f"{mask[:40]} does not fit gfp_t, an unsigned int of 32 bits")
    if chosen is not None:
        return _as_asked(value, chosen, mask)
    if names:
        tables = fits(value, names)
        if tables:
            versions = ", ".join(t.version for t in tables)
            why = f"Linux {tables[0].version} (number and names agree in: {versions})"
            return GfpMask(value, tables[0], why, True, given=mask)
        known = by_names(names)
        if known is not None:
            table, bits = known
            why = (
                f"the names, as in Linux {table.version}; the number is of a kernel not known here"
            )
            return GfpMask(bits, table, why, True, given=mask)
        why = f"Linux 6.12 assumed; {names} is not this number there, nor in any table here"
        return GfpMask(value, NUMBERINGS[0], why, given=mask)
    return GfpMask(value, NUMBERINGS[0], "Linux 6.12 assumed; the number alone does not say", False)


def _as_asked(value: int, chosen: Asked, given: str = "") -> GfpMask:
    """Read a number in the numbering of a release that was named."""
    found = GfpMask(value, chosen.table, chosen.why(value), chosen.sure(value), given=given)
    if chosen.other is None:
        return found
    found.near = (chosen.other,)
    if found.unknown and not GfpMask(value, chosen.other, "").unknown:
        found.table, found.near = chosen.other, (chosen.table,)
        found.why = (
            f"Linux {chosen.other.version}'s for {chosen.version}: it has a flag in each of these "
            f"bits, {chosen.table.version}'s, on the other side of that release, has not"
        )
    return found


def nameless(value: int) -> GfpMask:
    """Read the number of a failure or OOM report that has no names beside it.

    Reports of 4.9 and later have them. Of the two older tables, the one with bit 25 (it wakes kswapd,
    nearly every request has it) is 4.9's.
    """
    table = numbering("4.9" if value >> 25 else "3.13")
    why = f"Linux {table.version}: reports of later kernels give names beside the number"
    return GfpMask(value, table, why)


def _from_names(names: str, chosen: Asked | None) -> GfpMask:
    """Read names, in the newest numbering that knows them all."""
    tables = list(NUMBERINGS)
    if chosen is not None:
        tables = [chosen.table] if chosen.other is None else [chosen.table, chosen.other]
    for table in tables:
        value = _value_of(table, names)
        if value is None:
            continue
        if chosen is None:
            return GfpMask(value, table, f"Linux {table.version}", True)
        if table is chosen.table:
            return _as_asked(value, chosen)
        why = f"Linux {table.version}'s: {chosen.table.version}'s, the other near {chosen.version}"
        return GfpMask(value, table, f"{why}, lacks one of the names", True)
    bad = next((w for w in _words(names) if all(_value_of(t, w) is None for t in tables)), names)
    where = f"in kernel {chosen.version}" if chosen else "in any kernel known here"
    raise UsageError(
        f"{bad[:60]!r} is no gfp flag {where}; give a number such as 0xcc0 or names such as "
        "GFP_KERNEL|__GFP_ZERO"
    )


def _token(word: str, chosen: Asked | None) -> GfpMask:
    """Read one word: a number or names."""
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", word):
        return _number(word.lower(), None, chosen)
    if re.fullmatch(r"[0-9]+", word, re.ASCII):
        if len(word) > 10:
            raise UsageError(f"{word[:40]} does not fit gfp_t, an unsigned int of 32 bits")
        found = _number(hex(int(word)), None, chosen)
        found.why += f" ({word} is read as decimal; write 0x{word} for hexadecimal)"
        return found
    if re.fullmatch(r"[0-9a-fA-F]{1,16}", word) and any(c.isdigit() for c in word):
        return _number("0x" + word.lower(), None, chosen)
    return _from_names(word, chosen)


def _keep(found: dict[tuple[int, str], GfpMask], mask: GfpMask) -> None:
    known = found.setdefault((mask.mask, mask.table.version), mask)
    if known is not mask:
        known.count += 1


def find_masks(text: str, chosen: Asked | None = None) -> list[GfpMask]:
    """Return the different masks that a log or a trace names, at most `MAX_MASKS`."""
    found: dict[tuple[int, str], GfpMask] = {}
    known: dict[tuple[str, str, str, bool], GfpMask | None] = {}
    for pattern in (_KEYED, _PAIR):
        for match in pattern.finditer(text):
            line = text[max(0, match.start() - 120) : match.start()].rpartition("\n")[2]
            report = "allocation failure" in line or "invoked oom-killer" in line
            names = match[3] if pattern is _KEYED else None
            key = (match[1] or "", match[2] or "", names or "", report)
            if key in known:
                mask = known[key]
                if mask is not None:
                    mask.count += 1
                continue
            if len(known) >= 4 * MAX_MASKS or len(found) >= MAX_MASKS:
                break
            known[key] = mask = _match_mask(key, chosen)
            if mask is not None:
                _keep(found, mask)
                known[key] = found[mask.mask, mask.table.version]
        if found:
            break
    return list(found.values())


def _match_mask(key: tuple[str, str, str, bool], chosen: Asked | None) -> GfpMask | None:
    """Read what a pattern found: number, names beside it, names alone; None if it makes no sense."""
    number, beside, alone, report = key
    try:
        if alone:
            return _from_names(alone, chosen)
        if report and not beside and chosen is None and int(number, 16) >> 32 == 0:
            return nameless(int(number, 16))
        return _number(number.lower(), beside or None, chosen)
    except UsageError:
        return None


def decode(text: str) -> list[GfpMask]:
    """Decode the masks in @text: numbers, names, or lines of a log that have them.

    ``kernel=4.19`` anywhere in it chooses a numbering.

    :raises UsageError: if a word is neither a number nor a flag, or a release is not known
    :raises ParseError: if a longer text has no mask at all
    """
    chosen = None
    if option := _OPTION.search(text[:200]):
        chosen = asked(option[1])
        text = text[: option.start()] + text[option.end() :]
    found = find_masks(text, chosen)
    if found:
        return found
    stripped = re.sub(r"\s{0,20}\|\s{0,20}", "|", text[:8192].strip())
    if not stripped:
        raise UsageError("nothing was given: a number such as 0xcc0, or GFP_KERNEL|__GFP_ZERO")
    words = _TOKEN.findall(stripped)
    if len(words) > MAX_MASKS or len(text) > 8192:
        first = text.strip().partition("\n")[0]
        raise ParseError("text", 1, first, "no gfp mask in it (such as gfp_mask=0xcc0)")
    out: dict[tuple[int, str], GfpMask] = {}
    for word in words:
        _keep(out, _token(word, chosen))
    if not out:
        raise UsageError(f"{stripped[:60]!r} is no gfp mask")
    return list(out.values())
