"""Decode an address: canonical or not, which region of the layout, which table entries, which memory.

Works for addresses of processes and of the kernel, with four and five levels of page tables. Where the
kernel's movable regions begin is known without KASLR; with it, give the bases::

    print("\\n".join(decode("ffff888012345678").lines()))
    print("\\n".join(decode("page_offset_base=ffff9a0000000000 ffff9a0012345678").lines()))
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mmcore.arch.x86 import kaslr
from mmcore.arch.x86.kaslr import KernelLayout, Region, kernel_layout, memory_layout
from mmcore.arch.x86.pgtable import table_indices, virtual_mask_shift
from mmcore.cint import ULONG_MAX
from mmcore.config import PAGE_SHIFT
from mmcore.errors import UsageError, errno_name
from mmcore.report.words import read_words

__all__ = ["BASES", "MAX_ADDRESSES", "Address", "AddressReport", "Place", "decode", "place"]

MAX_ADDRESSES = 64
MAX_ERRNO = 4095
#: What may be given: where KASLR put things, and the kernel image's shift in physical memory.
BASES = ("page_offset_base", "vmalloc_base", "vmemmap_base", "phys_base")
_MOVABLE = ("direct map", "vmalloc", "memory map (struct page)")
_OPTION = re.compile(r"\b(levels|page_offset_base|vmalloc_base|vmemmap_base|phys_base)=(\w{1,20})")
_START_KERNEL = 0xFFFFFFFF80000000
#: Between these KASLR moves regions, with four levels (from the first on) and with five.
_RANDOM = (0xFF11000000000000, 0xFFFF888000000000)

#: Values that the kernel writes so that they are recognised (include/linux/poison.h, x86-64).
_POISON: dict[int, str] = {
    0xDEAD000000000100: "LIST_POISON1: the next pointer of a list entry that was deleted",
    0xDEAD000000000122: "LIST_POISON2: the previous pointer of a list entry that was deleted",
    0xDEAD000000000300: "TIMER_ENTRY_STATIC, or near it: a timer set up in static data",
    0xDEAD000000000400: "TAIL_MAPPING: page->mapping of a tail page",
}
_POISON_BYTES: dict[int, str] = {
    0x6B: "POISON_FREE: memory of a freed slab object (use after free)",
    0x5A: "POISON_INUSE: memory of a slab object that was never written",
    0xA5: "POISON_END: the last byte of a slab object",
    0xBB: "SLUB_RED_INACTIVE: the red zone of a free slab object",
    0xCC: "SLUB_RED_ACTIVE or freed init memory",
    0xAA: "PAGE_POISON: a free page",
}


@dataclass(slots=True, frozen=True)
class Place:
    """Where an address lies with a number of levels.

    :ivar region: None in a hole
    :ivar what: the region or hole, in words
    :ivar indices: (level, index), top first, and the offset in the page; () if not canonical
    """

    levels: int
    canonical: bool
    region: Region | None
    what: str
    indices: tuple[tuple[str, int], ...]
    physical: int | None = None
    detail: str = ""


def _hole(address: int, regions: list[Region], unknown: list[str]) -> str:
    below = sorted((r for r in regions if r.end < address), key=lambda r: r.end)
    above = sorted((r for r in regions if r.start > address), key=lambda r: r.start)
    if unknown and _RANDOM[0] <= address < kaslr.CPU_ENTRY_AREA_BASE:
        return f"the part where KASLR puts regions whose base was not given ({', '.join(unknown)})"
    if below and above:
        return f"an unused hole between {below[-1].name} and {above[0].name}"
    return "an unused hole at the top of the address space"


def _detail(address: int, region: Region, layout: KernelLayout) -> tuple[int | None, str]:
    """Return the physical address if arithmetic gives it, and what else the place says."""
    offset = address - region.start
    if region.name == "direct map":
        physical = address - layout.page_offset_base
        return physical, f"physical address {physical:#x}, frame {physical >> PAGE_SHIFT:#x}"
    if region.name == "memory map (struct page)":
        pfn, rest = divmod(offset, kaslr.STRUCT_PAGE_SIZE)
        return None, f"the struct page of frame {pfn:#x}" + (f", byte {rest}" if rest else "")
    if region.name == "kernel image":
        physical = address - _START_KERNEL + layout.phys_base
        if layout.kaslr:
            return physical, f"physical address {physical:#x} (phys_base {layout.phys_base:#x})"
        return physical, f"physical address {physical:#x} if the kernel was not moved (nokaslr)"
    if region.name == "user space":
        if address < 4096:
            return (
                None,
                "the first page, never mapped by default: a NULL pointer, or a field of one",
            )
        if address > region.end - 4096:
            return None, "the last page before the hole, which no process gets"
        return None, "its frame is in the process's page tables: see /proc/PID/maps and pagemap"
    if region.name == "KASAN shadow":
        return None, "only in a kernel built with KASAN, else unused"
    if region.name in ("vmalloc", "modules"):
        return None, "its frames are in the kernel's page tables, one by one"
    return None, ""


def place(
    address: int,
    levels: int,
    layout: KernelLayout | None = None,
    given: frozenset[str] | None = None,
) -> Place:
    """Return where an address lies.

    :param levels: 4 or 5
    :param layout: where KASLR put things; None: nowhere
    :param given: which bases of @layout are known; None: all
    :raises UsageError: if it is no 64-bit number, or @levels is not 4 or 5
    """
    if not 0 <= address < 1 << 64:
        raise UsageError(f"an address is a number of 0 to 2**64-1, not {address!r}")
    layout = layout or kernel_layout(levels)
    regions = memory_layout(levels, layout)
    bits = virtual_mask_shift(levels)
    if address >> bits not in (0, (1 << 64 - bits) - 1):
        return Place(levels, False, None, "not canonical", ())
    indices = tuple(table_indices(address, levels))
    unknown = [
        r.name
        for r in regions
        if given is not None and r.name in _MOVABLE and r.symbol not in given
    ]
    regions = [r for r in regions if r.name not in unknown]
    region = next((r for r in regions if r.start <= address <= r.end), None)
    if region is None:
        return Place(levels, True, None, _hole(address, regions, unknown), indices)
    physical, detail = _detail(address, region, layout)
    return Place(levels, True, region, region.name, indices, physical, detail)


@dataclass(slots=True)
class Address:
    """An address with its places: with four levels, with five, or with those asked for."""

    address: int
    places: list[Place]
    given: bool

    @property
    def canonical(self) -> bool:
        """It is, with one of the numbers of levels."""
        return any(p.canonical for p in self.places)

    @property
    def best(self) -> Place:
        """The place with the fewest levels with which it is canonical."""
        return next((p for p in self.places if p.canonical), self.places[0])

    def poison(self) -> str:
        """Return what the kernel means by this value, "" if it is none of its marks."""
        if text := _POISON.get(self.address):
            return text
        if self.address > ULONG_MAX - MAX_ERRNO:
            err = self.address - (1 << 64)
            return f"an error pointer, ERR_PTR({err}): {errno_name(err)}"
        base = min(_POISON, key=lambda value: abs(self.address - value))
        if 0 < self.address - base < 256:
            return f"{_POISON[base]}, plus {self.address - base}"
        first = self.address >> 56
        same = all(self.address >> shift & 255 == first for shift in range(8, 56, 8))
        return _POISON_BYTES.get(first, "") if same else ""

    def why_not(self) -> str:
        """Say why it is not canonical."""
        p = self.places[-1]
        bits = virtual_mask_shift(p.levels)
        levels = " and ".join(str(q.levels) for q in self.places)
        return (
            f"{self.address:#x} is not canonical with {levels} levels: bits 63 to {bits} must be equal. "
            "An access raises a general protection fault, not a page fault."
        )

    def summary(self) -> str:
        """Return the answer: the region and the physical address, or why there is none."""
        if not self.canonical:
            return self.why_not()
        p = self.best
        text = f"{self.address:#x} is in {_the(p)}"
        if p.detail:
            text += f": {p.detail}"
        if p.region is not None and p.region.name in _MOVABLE and not self.given:
            text += ", in the layout without KASLR"
        if p.levels == 5 and len(self.places) == 2:
            text += " (5 levels only: with 4 it is not canonical)"
        return text + "."

    def lines(self) -> list[str]:
        """Return the report, the answer first."""
        out = [self.summary()]
        if mark := self.poison():
            out.append(f"  a mark of the kernel: {mark}")
        for p in self.places:
            if not p.canonical:
                out.append(f"  {p.levels} levels: not canonical")
                continue
            path = "  ".join(f"{name} {index}" for name, index in p.indices[:-1])
            out.append(f"  {p.levels} levels: {path}  offset {p.indices[-1][1]:#x}")
            if p.region is not None:
                inside = self.address - p.region.start
                symbol = f" ({p.region.symbol})" if p.region.symbol else ""
                out.append(
                    f"    {p.what}{symbol}: {p.region.start:#x} to {p.region.end:#x}, {inside:#x} into it"
                )
            else:
                out.append(f"    {p.what}")
        movable = any(p.region is not None and p.region.name in _MOVABLE for p in self.places)
        low, high = _RANDOM[self.best.levels == 4], kaslr.CPU_ENTRY_AREA_BASE
        between = self.best.region is None and low <= self.address < high
        if (movable or between) and not self.given:
            out += [
                "  With KASLR, the default, the direct map, vmalloc and the memory map begin elsewhere:",
                "  give page_offset_base=, vmalloc_base=, vmemmap_base= from a crash dump or debugger.",
            ]
        elif self.best.what == "kernel image" and not self.given:
            out.append(
                "  With KASLR the image is moved: give phys_base= from a crash dump or debugger."
            )
        return out

    def to_dict(self) -> dict[str, object]:
        """Return the same as data."""
        return {
            "address": f"{self.address:#x}",
            "canonical": self.canonical,
            "mark": self.poison() or None,
            "places": [
                {
                    "levels": p.levels,
                    "canonical": p.canonical,
                    "region": p.region.name if p.region else None,
                    "what": p.what,
                    "start": f"{p.region.start:#x}" if p.region else None,
                    "end": f"{p.region.end:#x}" if p.region else None,
                    "indices": dict(p.indices),
                    "physical": p.physical,
                    "detail": p.detail,
                }
                for p in self.places
            ],
        }


def _the(p: Place) -> str:
    """Return a region's name as a sentence uses it."""
    bare = ("user space", "vmalloc", "modules", "cpu_entry_area", "EFI runtime services")
    if p.region is None or p.what in bare:
        return {"vmalloc": "vmalloc space", "modules": "module space"}.get(p.what, p.what)
    return f"the {p.what}"


@dataclass(slots=True)
class AddressReport:
    """All addresses of a text."""

    addresses: list[Address]

    def lines(self) -> list[str]:
        """Return the report, the answer first."""
        out: list[str] = []
        for i, address in enumerate(self.addresses):
            out += ([""] if i else []) + address.lines()
        return out

    @property
    def canonical(self) -> bool:
        """All of them are."""
        return all(a.canonical for a in self.addresses)


def _layout(levels: int, bases: dict[str, int]) -> KernelLayout:
    layout = kernel_layout(levels)
    if bases:
        layout = replace(layout, kaslr=True, **bases)
    return layout


def decode(text: str, levels: int | None = None) -> AddressReport:
    """Decode the addresses in @text.

    ``levels=5`` in it chooses the number of levels (else both are shown), ``page_offset_base=``,
    ``vmalloc_base=``, ``vmemmap_base=`` and ``phys_base=`` say where KASLR put things.

    :raises UsageError: if there is no address, or an option makes no sense
    """
    bases: dict[str, int] = {}
    for match in list(_OPTION.finditer(text[:2000])):
        name, value = match.groups()
        try:
            number = int(value, 10 if name == "levels" else 16)
        except ValueError:
            raise UsageError(f"{name}={value} is no number") from None
        if number >> 64:
            raise UsageError(f"{name}={value} has more than 64 bits")
        if name == "levels":
            levels = number
        else:
            bases[name] = number
    if levels not in (None, 4, 5):
        raise UsageError(f"levels is {levels}; page tables have 4 or 5")
    rest = _OPTION.sub(" ", text[:2000]) + text[2000:]
    values = [word.value for word in read_words(rest, "an address")]
    if len(values) > MAX_ADDRESSES:
        raise UsageError(f"{len(values)} addresses; at most {MAX_ADDRESSES} at a time")
    if levels is None and bases.get("page_offset_base"):
        levels = 5 if bases["page_offset_base"] < 0xFFFF800000000000 else 4
    wanted = [levels] if levels else [4, 5]
    layouts = {n: _layout(n, bases) for n in wanted}
    given = frozenset(bases) if bases else None
    return AddressReport(
        [Address(a, [place(a, n, layouts[n], given) for n in wanted], bool(bases)) for a in values]
    )
