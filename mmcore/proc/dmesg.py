"""The kernel's log: the lines about memory that it prints while it boots.

Each kind of line stands once, as a template from which both directions are made: `parse_line()`
turns a line into its kind and values, `render_line()` turns those into the very same line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mmcore.arch.x86 import e820
from mmcore.arch.x86.e820 import E820Entry
from mmcore.errors import ParseError

__all__ = [
    "BootLog",
    "DmesgLine",
    "KINDS",
    "MemblockRegionLine",
    "parse",
    "parse_e820",
    "parse_line",
    "render_line",
    "strip_prefix",
]

# A field is {name:spec}. Specs: d a decimal, d3 right-aligned in 3, s- signed; x bare hex, h 0x and
# hex, h8/h16 with at least so many digits; w a word; t any text.
SPECS: dict[str, str] = {
    "d": r"\d{1,20}",
    "d3": r" {0,2}\d{1,20}",
    "s": r"-?\d{1,20}",
    "x": r"[0-9a-f]{1,16}",
    "h": r"0x[0-9a-f]{1,16}",
    "h8": r"0x[0-9a-f]{8,16}",
    "h16": r"0x[0-9a-f]{16}",
    "w": r"\S+",
    "t": r".*",
}
FIELD_RE = re.compile(r"\{(\w+):(\w+)\}")

#: Each kind of line with its template.
KINDS: dict[str, str] = {
    "cmdline": "Command line: {cmdline:t}",
    "e820": "BIOS-e820: [mem {start:h16}-{last:h16}] {type:t}",
    "e820_user": "user: [mem {start:h16}-{last:h16}] {type:t}",
    "e820_update": "e820: update [mem {start:h8}-{last:h8}] {old:t} ==> {new:t}",
    "e820_remove": "e820: remove [mem {start:h8}-{last:h8}] {type:t}",
    "e820_buffer": "e820: reserve RAM buffer [mem {start:h8}-{last:h8}]",
    "last_pfn": "last_pfn = {last_pfn:h} max_arch_pfn = {max_arch_pfn:h}",
    "gbpages": "Using GB pages for direct mapping",
    "ramdisk": "RAMDISK: [mem {start:h8}-{last:h8}]",
    "ramdisk_new": "Allocated new RAMDISK: [mem {start:h8}-{last:h8}]",
    "ramdisk_move": (
        "Move RAMDISK from [mem {start:h8}-{last:h8}] to [mem {start2:h8}-{last2:h8}]"
    ),
    "acpi_reserve": "ACPI: Reserving {table:w} table memory at [mem {start:h}-{last:h}]",
    "srat_mem": "ACPI: SRAT: Node {node:d} PXM {pxm:d} [mem {start:h8}-{last:h8}]{flags:t}",
    "numa_merge": (
        "NUMA: Node {node:d} [mem {start:h8}-{last:h8}] + [mem {start2:h8}-{last2:h8}] -> "
        "[mem {start3:h8}-{last3:h8}]"
    ),
    "numa_distance": "NUMA: Initialized distance table, cnt={cnt:d}",
    "node_data": "NODE_DATA({node:d}) allocated [mem {start:h8}-{last:h8}]",
    "node_data_on": "    NODE_DATA({node:d}) on node {on:d}",
    "faking": "Faking a node at [mem {start:h16}-{last:h16}]",
    "zone_range": "  {zone:w}{pad:t} [mem {start:h16}-{last:h16}]",
    "zone_empty": "  {zone:w}{pad:t} empty",
    "movable_start": "  Node {node:d}: {start:h16}",
    "early_node": "  node {node:d3}: [mem {start:h16}-{last:h16}]",
    "initmem": "Initmem setup node {node:d} [mem {start:h16}-{last:h16}]",
    "memoryless": "Initmem setup node {node:d} as memoryless",
    "unavailable": "On node {node:d}, zone {zone:w}: {pages:d} pages in unavailable ranges",
    "fallback": "Fallback order for Node {node:d}: {order:t}",
    "zonelists": "Built {count:d} zonelists, mobility grouping {grouping:w}.  Total pages: {pages:d}",
    "policy_zone": "Policy zone: {zone:w}",
    "hash_table": (
        "{table:t} hash table entries: {entries:d} (order: {order:d}, {bytes:d} bytes, {where:t})"
    ),
    "percpu": "setup_percpu: NR_CPUS:{nr_cpus:d} nr_cpumask_bits:{bits:d} nr_cpu_ids:{ids:d} "
    "nr_node_ids:{nodes:d}",
    "deferred": "node {node:d} deferred pages initialised in {ms:d}ms",
    "cpu0": "smpboot: CPU0: {model:t}",
    "brought_up": "smp: Brought up {nodes:d} {node_s:w} {cpus:d} {cpu_s:w}",
    "memory": (
        "Memory: {free:d}K/{total:d}K available ({code:d}K kernel code, {rwdata:d}K rwdata, "
        "{rodata:d}K rodata, {init:d}K init, {bss:d}K bss, {reserved:d}K reserved, "
        "{cma:d}K cma-reserved)"
    ),
    "freeing": "Freeing {what:t} memory: {kb:d}K",
    "mb_config": "MEMBLOCK configuration:",
    "mb_sizes": " memory size = {memory:h16} reserved size = {reserved:h16}",
    "mb_cnt": " {type:w}.cnt  = {cnt:h}",
    "mb_region": " {type:w}[{idx:h}]\t[{start:h16}-{last:h16}], {size:h16} bytes{nid:t} flags: {flags:h}",
    "mb_add": "memblock_add: [{start:h16}-{last:h16}]{caller:t}",
    "mb_add_node": (
        "memblock_add_node: [{start:h16}-{last:h16}] nid={nid:s} flags={flags:x}{caller:t}"
    ),
    "mb_remove": "memblock_remove: [{start:h16}-{last:h16}]{caller:t}",
    "mb_reserve": "memblock_reserve: [{start:h16}-{last:h16}]{caller:t}",
    "mb_phys_free": "memblock_phys_free: [{start:h16}-{last:h16}]{caller:t}",
    "mb_free_late": "memblock_free_late: [{start:h16}-{last:h16}]{caller:t}",
    "mb_phys_alloc_range": (
        "memblock_phys_alloc_range: {size:d} bytes align={align:h} from={from_:h16} "
        "max_addr={max:h16}{caller:t}"
    ),
    "mb_alloc": (
        "memblock_alloc_{variant:w}: {size:d} bytes align={align:h} nid={nid:s} from={from_:h16} "
        "max_addr={max:h16}{caller:t}"
    ),
    "mb_doubled": "memblock: {type:w} is doubled to {max:d} at [{start:h16}-{last:h16}]",
}


class Template:
    """A line with fields, for both directions."""

    __slots__ = ("fields", "parts", "regex")

    def __init__(self, text: str) -> None:
        self.parts: list[str] = []
        self.fields: list[tuple[str, str]] = []
        pattern = ""
        pos = 0
        for match in FIELD_RE.finditer(text):
            literal = text[pos : match.start()]
            self.parts.append(literal)
            self.fields.append((match.group(1), match.group(2)))
            pattern += re.escape(literal) + f"({SPECS[match.group(2)]})"
            pos = match.end()
        self.parts.append(text[pos:])
        self.regex = re.compile(pattern + re.escape(text[pos:]), re.ASCII)

    def parse(self, line: str) -> dict[str, Any] | None:
        """Return the fields of @line, or None if it is of another kind."""
        match = self.regex.fullmatch(line)
        if match is None:
            return None
        values: dict[str, Any] = {}
        for (name, spec), text in zip(self.fields, match.groups(), strict=True):
            if spec in ("w", "t"):
                values[name] = text
            else:
                values[name] = int(text, 16 if spec[0] in "xh" else 10)
        return values if self.render(values) == line else None

    def render(self, values: dict[str, Any]) -> str:
        """Return the line with these fields."""
        out = [self.parts[0]]
        for (name, spec), literal in zip(self.fields, self.parts[1:], strict=True):
            value = values[name]
            if spec[0] == "h":
                out.append(f"0x{value:0{spec[1:] or 1}x}")
            elif spec == "x":
                out.append(f"{value:x}")
            else:
                out.append(f"{value:>3}" if spec == "d3" else str(value))
            out.append(literal)
        return "".join(out)


TEMPLATES: dict[str, Template] = {kind: Template(text) for kind, text in KINDS.items()}
#: The first letters of a line, with the kinds that may follow them.
_BY_START: dict[str, list[str]] = {}
for _kind, _template in TEMPLATES.items():
    _BY_START.setdefault(_template.parts[0][:6], []).append(_kind)

PREFIX_RE = re.compile(r"(?:<\d+>)?(\[ *\d{1,12}\.\d{6}\](?:\[ *[TC]\d+\])? )?(.*)", re.DOTALL)


def strip_prefix(line: str) -> tuple[str, str]:
    """Return (``[    0.003045] ``, text) of a line of the log; the first is empty if it has none."""
    match = PREFIX_RE.fullmatch(line)
    assert match is not None
    return match.group(1) or "", match.group(2)


@dataclass(slots=True)
class DmesgLine:
    """One line that was understood.

    :ivar number: its number in the text, counted from 1
    """

    kind: str
    values: dict[str, Any]
    prefix: str = ""
    number: int = 0


def parse_line(line: str) -> DmesgLine | None:
    """Return kind and values of a line, or None if it is not about memory."""
    prefix, text = strip_prefix(line)
    for start in (text[:6], text[:5], text[:2], text[:1], ""):
        for kind in _BY_START.get(start, ()):
            values = TEMPLATES[kind].parse(text)
            if values is not None:
                return DmesgLine(kind, values, prefix)
    return None


def render_line(line: DmesgLine) -> str:
    """Return the line as the kernel prints it."""
    return line.prefix + TEMPLATES[line.kind].render(line.values)


def parse_e820(text: str) -> list[E820Entry]:
    """Return the entries of the ``BIOS-e820:`` lines in a log.

    :raises ParseError: if there is none, or one is damaged
    """
    names = {name: number for number, name in e820.E820_TYPE_TEXT.items()}
    names["usable"] = e820.E820_TYPE_RAM
    entries: list[E820Entry] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if "BIOS-e820:" not in line:
            continue
        found = TEMPLATES["e820"].parse(strip_prefix(line.strip("\r"))[1].lstrip())
        type = None
        if found is not None:
            match = re.fullmatch(r"(?:persistent \()?type (\d{1,10})\)?", found["type"])
            type = int(match.group(1)) if match else names.get(found["type"])
        if found is None or type is None or found["last"] < found["start"]:
            raise ParseError("memory map", number, line, "not a BIOS-e820 line of a 64-bit kernel")
        size = found["last"] + 1 - found["start"]
        entries.append(E820Entry(found["start"], size, type))
    if not entries:
        raise ParseError("memory map", 1, lines[0], "there is no 'BIOS-e820:' line")
    return entries


@dataclass(slots=True)
class MemblockRegionLine:
    """A region in a memblock dump."""

    start: int
    size: int
    nid: int | None
    flags: int


@dataclass(slots=True)
class BootLog:
    """What a log says about memory.

    :ivar lines: every line that was understood
    """

    lines: list[DmesgLine] = field(default_factory=list)

    def of(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """Yield the values of the lines of some kinds, in order."""
        for line in self.lines:
            if line.kind in kinds:
                yield line.values

    def first(self, kind: str) -> dict[str, Any] | None:
        """Return the values of the first line of a kind, or None."""
        return next(self.of(kind), None)

    def has_memblock_log(self) -> bool:
        """Tell whether memblock=debug was on."""
        return self.first("mb_config") is not None

    def dumps(self) -> list[dict[str, list[MemblockRegionLine]]]:
        """Return the memblock dumps: the regions of "memory" and of "reserved" of each."""
        dumps: list[dict[str, list[MemblockRegionLine]]] = []
        for line in self.lines:
            if line.kind == "mb_config":
                dumps.append({})
            elif line.kind == "mb_cnt" and dumps:
                dumps[-1][line.values["type"]] = []
            elif line.kind == "mb_region" and dumps and line.values["type"] in dumps[-1]:
                v = line.values
                nid = re.fullmatch(r" on node (\d{1,4})", v["nid"])
                dumps[-1][v["type"]].append(
                    MemblockRegionLine(
                        v["start"], v["size"], int(nid.group(1)) if nid else None, v["flags"]
                    )
                )
        return dumps


def parse(text: str) -> BootLog:
    """Read a log. Lines that are not about memory are passed over, whatever they hold."""
    log = BootLog()
    for number, line in enumerate(text.split("\n"), 1):
        found = parse_line(line)
        if found is not None:
            found.number = number
            log.lines.append(found)
    return log
