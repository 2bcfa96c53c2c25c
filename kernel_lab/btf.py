"""Structure layouts of one kernel image, read from the type information (BTF) inside it.

A guest program that reads kernel memory has to know where each field lies in the very image that
runs. Debian's image carries BTF for this: an ELF section with one record per type. The format is
described in the kernel's Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import lzma
import struct
import subprocess
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from kernel_lab.needs import LabError

__all__ = ["ARRAYS", "OFFSETS", "SIZES", "Btf", "header", "vmlinux"]

INT, PTR, ARRAY, STRUCT, UNION, ENUM = 1, 2, 3, 4, 5, 6
#: typedef, volatile, const, restrict, type_tag: say something of another type.
ALIASES = (8, 9, 10, 11, 18)
#: Bytes that follow the 12-byte head of a record, besides those per member.
EXTRA = {INT: 4, ARRAY: 12, 14: 4, 17: 4}
PER_MEMBER = {STRUCT: 12, UNION: 12, ENUM: 8, 13: 8, 15: 12, 19: 12}

#: What ``layout.h`` defines: OFF_zone_free_area and so on,
OFFSETS = """
    zone.name zone.free_area zone.per_cpu_pageset zone._watermark zone.zone_start_pfn
    zone.spanned_pages zone.lowmem_reserve zone.watermark_boost zone.nr_reserved_highatomic
    zone.vm_stat free_area.free_list free_area.nr_free per_cpu_pages.count per_cpu_pages.high
    per_cpu_pages.high_min per_cpu_pages.high_max per_cpu_pages.batch per_cpu_pages.flags
    per_cpu_pages.alloc_factor per_cpu_pages.free_count per_cpu_pages.lists page.buddy_list
    page.pcp_list mem_section.usage mem_section_usage.pageblock_flags pglist_data.node_zones
    module.name module.init proc_ops.proc_write
""".split()
#: SIZE_zone and so on,
SIZES = "zone free_area per_cpu_pages page mem_section module proc_ops".split()
#: and the number of elements of some arrays.
ARRAYS = {
    "NR_ORDERS": "zone.free_area",
    "NR_MIGRATETYPES": "free_area.free_list",
    "NR_PCP_LISTS": "per_cpu_pages.lists",
    "NR_ZONES": "pglist_data.node_zones",
    "NR_WATERMARKS": "zone._watermark",
}


@dataclass(slots=True)
class Type:
    """One record: @ref is a size or the number of another type, as its kind has it."""

    kind: int
    name: str
    ref: int
    members: list[tuple[str, int, int]] = field(default_factory=list)
    array: tuple[int, int] = (0, 0)


def _unpack(data: bytes, magic: bytes, at: int) -> bytes:
    if magic == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress(data[at:])
    if magic == b"\x1f\x8b\x08":
        return zlib.decompressobj(31).decompress(data[at:])
    done = subprocess.run(["zstd", "-dc"], input=data[at:], capture_output=True, check=False)
    return done.stdout


def vmlinux(image: Path) -> bytes:
    """Return the ELF file inside a compressed kernel image.

    :raises LabError: if there is none
    """
    data = image.read_bytes()
    for magic in (b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"\x1f\x8b\x08"):
        at = data.find(magic)
        while at >= 0:
            try:
                found = _unpack(data, magic, at)
            except (lzma.LZMAError, zlib.error):
                found = b""
            if found.startswith(b"\x7fELF"):
                return found
            at = data.find(magic, at + 1)
    raise LabError(f"{image}: no compressed ELF file in it")


def _section(elf: bytes, name: str) -> bytes:
    """Return the contents of a section of a 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    rows = [struct.unpack_from("<IIQQQQ", elf, table + i * size) for i in range(count)]
    strings = rows[names][4]
    for row in rows:
        start = strings + row[0]
        if elf[start : elf.index(b"\0", start)] == name.encode():
            return elf[row[4] : row[4] + row[5]]
    raise LabError(f"the kernel image has no section {name}")


class Btf:
    """The types of a kernel: `offset`, `size` and `length` by name."""

    def __init__(self, elf: bytes) -> None:
        data = _section(elf, ".BTF")
        header_size, types_at, types_size, names_at, names_size = struct.unpack_from(
            "<IIIII", data, 4
        )
        start = header_size + names_at
        self._names = data[start : start + names_size]
        start = header_size + types_at
        self._types = [Type(0, "void", 0)]
        self._by_name: dict[str, int] = {}
        self._read(data[start : start + types_size])

    def _name(self, at: int) -> str:
        return self._names[at : self._names.index(b"\0", at)].decode()

    def _read(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            name, info, ref = struct.unpack_from("<III", data, at)
            at += 12
            kind, count, bitfields = info >> 24 & 31, info & 0xFFFF, info >> 31
            record = Type(kind, self._name(name), ref)
            if kind in (STRUCT, UNION):
                for i in range(count):
                    member, of, offset = struct.unpack_from("<III", data, at + 12 * i)
                    offset = offset & 0xFFFFFF if bitfields else offset
                    record.members.append((self._name(member), of, offset))
                self._by_name.setdefault(record.name, len(self._types))
            elif kind == ARRAY:
                of, _, length = struct.unpack_from("<III", data, at)
                record.array = (of, length)
            at += EXTRA.get(kind, 0) + count * PER_MEMBER.get(kind, 0)
            self._types.append(record)

    def _plain(self, number: int) -> int:
        while self._types[number].kind in ALIASES:
            number = self._types[number].ref
        return number

    def _member(self, number: int, name: str) -> tuple[int, int] | None:
        """Return type and bit offset of a member, looked for in unnamed members too."""
        for member, of, offset in self._types[number].members:
            if member == name:
                return of, offset
            inner = self._member(self._plain(of), name) if not member else None
            if inner:
                return inner[0], offset + inner[1]
        return None

    def _walk(self, path: str) -> tuple[int, int]:
        struct_name, *members = path.split(".")
        if struct_name not in self._by_name:
            raise LabError(f"the kernel has no struct {struct_name}")
        number, bits = self._by_name[struct_name], 0
        for name in members:
            found = self._member(number, name)
            if found is None:
                raise LabError(f"the kernel has no {path}")
            number, bits = self._plain(found[0]), bits + found[1]
        return number, bits

    def offset(self, path: str) -> int:
        """Return where a field such as "zone.free_area" lies in its struct, in bytes."""
        return self._walk(path)[1] // 8

    def size(self, name: str) -> int:
        """Return the size of a struct in bytes."""
        return self._types[self._walk(name)[0]].ref

    def length(self, path: str) -> int:
        """Return the number of elements of an array field."""
        return self._types[self._walk(path)[0]].array[1]


def header(btf: Btf) -> str:
    """Return the text of ``layout.h``: what guest programs know of this kernel's structures."""
    lines = ["/* made for one kernel image from its BTF */"]
    lines += [f"#define OFF_{path.replace('.', '_')} {btf.offset(path)}" for path in OFFSETS]
    lines += [f"#define SIZE_{name} {btf.size(name)}" for name in SIZES]
    lines += [f"#define {name} {btf.length(path)}" for name, path in ARRAYS.items()]
    return "\n".join(lines) + "\n"
