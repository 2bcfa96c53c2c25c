"""The memory map that the firmware hands to the kernel, and what the kernel makes of it.

Mirrors arch/x86/kernel/e820.c.

Simplified: one table instead of three (the kernel keeps copies for kexec and for sysfs); no
setup_data, no gap for PCI.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EINVAL, KernelBug
from mmcore.lib.cmdline import memparse
from mmcore.mm import memblock as mb

ULLONG_MAX = (1 << 64) - 1
E820_MAX_ENTRIES = 128 + 3 * 1024
BIOS_BEGIN = 0x000A0000
BIOS_END = 0x00100000

# enum e820_type
E820_TYPE_RAM = 1
E820_TYPE_RESERVED = 2
E820_TYPE_ACPI = 3
E820_TYPE_NVS = 4
E820_TYPE_UNUSABLE = 5
E820_TYPE_PMEM = 7
E820_TYPE_PRAM = 12
E820_TYPE_SOFT_RESERVED = 0xEFFFFFFF
E820_TYPE_RESERVED_KERN = 128
#: What the kernel prints for a type (e820_print_type()).
E820_TYPE_TEXT: dict[int, str] = {
    E820_TYPE_RAM: "usable",
    E820_TYPE_RESERVED_KERN: "usable",
    E820_TYPE_RESERVED: "reserved",
    E820_TYPE_SOFT_RESERVED: "soft reserved",
    E820_TYPE_ACPI: "ACPI data",
    E820_TYPE_NVS: "ACPI NVS",
    E820_TYPE_UNUSABLE: "unusable",
    E820_TYPE_PMEM: "persistent (type 7)",
    E820_TYPE_PRAM: "persistent (type 12)",
}
#: What /proc/iomem calls a type (e820_type_to_string()).
E820_TYPE_IOMEM: dict[int, str] = {
    E820_TYPE_RESERVED_KERN: "System RAM",
    E820_TYPE_RAM: "System RAM",
    E820_TYPE_ACPI: "ACPI Tables",
    E820_TYPE_NVS: "ACPI Non-volatile Storage",
    E820_TYPE_UNUSABLE: "Unusable memory",
    E820_TYPE_PRAM: "Persistent Memory (legacy)",
    E820_TYPE_PMEM: "Persistent Memory",
    E820_TYPE_RESERVED: "Reserved",
    E820_TYPE_SOFT_RESERVED: "Soft Reserved",
}

__all__ = [
    "E820Entry",
    "E820Table",
    "BIOS_BEGIN",
    "BIOS_END",
    "E820_MAX_ENTRIES",
    "E820_TYPE_ACPI",
    "E820_TYPE_IOMEM",
    "E820_TYPE_NVS",
    "E820_TYPE_PMEM",
    "E820_TYPE_PRAM",
    "E820_TYPE_RAM",
    "E820_TYPE_RESERVED",
    "E820_TYPE_RESERVED_KERN",
    "E820_TYPE_SOFT_RESERVED",
    "E820_TYPE_TEXT",
    "E820_TYPE_UNUSABLE",
    "e820_print_type",
    "e820__end_of_low_ram_pfn",
    "e820__end_of_ram_pfn",
    "e820__finish_early_params",
    "e820__mapped_all",
    "e820__mapped_any",
    "e820__memblock_setup",
    "e820__memory_setup",
    "e820__print_table",
    "e820__range_add",
    "e820__range_remove",
    "e820__range_update",
    "e820__update_table",
    "parse_memmap_one",
    "parse_memmap_opt",
    "parse_memopt",
    "ram_alignment",
    "ram_buffer",
    "trim_bios_range",
    "validate_e820",
]


@dataclass(slots=True, eq=False)
class E820Entry:
    """``struct e820_entry``: address and size in bytes.

    Mirrors arch/x86/include/asm/e820/types.h:e820_entry.
    """

    addr: int
    size: int
    type: int = E820_TYPE_RAM

    @property
    def end(self) -> int:
        """The first address behind the entry."""
        return self.addr + self.size

    def __repr__(self) -> str:
        return f"<[mem {self.addr:#018x}-{self.end - 1:#018x}] {e820_print_type(self.type)}>"


@dataclass(slots=True, eq=False)
class E820Table:
    """``struct e820_table``, with the printing and the "user-defined" mark that go with it.

    Mirrors arch/x86/include/asm/e820/types.h:e820_table.
    """

    entries: list[E820Entry] = field(default_factory=list)
    userdef: bool = False
    pr_info: Callable[[str], None] = field(default=lambda text: None, repr=False)


def e820_print_type(type: int) -> str:
    """Return the kernel's word for a type.

    Mirrors arch/x86/kernel/e820.c:e820_print_type().
    """
    return E820_TYPE_TEXT.get(type, f"type {type}")


def _e820__mapped_any(table: E820Table, start: int, end: int, type: int) -> bool:
    """Tell whether any part of a range has @type (0: any type).

    Mirrors arch/x86/kernel/e820.c:_e820__mapped_any().
    """
    return any(
        (not type or e.type == type) and e.addr < end and e.end > start for e in table.entries
    )


def e820__mapped_any(table: E820Table, start: int, end: int, type: int = 0) -> bool:
    """Tell whether any part of a range has @type (0: any type).

    Mirrors arch/x86/kernel/e820.c:e820__mapped_any().
    """
    return _e820__mapped_any(table, start, end, type)


def e820__mapped_all(table: E820Table, start: int, end: int, type: int = 0) -> bool:
    """Tell whether all of a range has @type; the table must be sorted.

    Mirrors arch/x86/kernel/e820.c:e820__mapped_all().
    """
    for e in table.entries:
        if type and e.type != type:
            continue
        if e.addr >= end or e.end <= start:
            continue
        if e.addr <= start:
            start = e.end
        if start >= end:
            return True
    return False


def e820__range_add(table: E820Table, start: int, size: int, type: int) -> None:
    """Append an entry.

    Mirrors arch/x86/kernel/e820.c:e820__range_add().
    """
    if len(table.entries) >= E820_MAX_ENTRIES:
        table.pr_info(
            f"too many entries; ignoring [mem {start:#010x}-{start + size - 1 & ULLONG_MAX:#010x}]"
        )
        return
    table.entries.append(E820Entry(start, size, type))


def e820__print_table(table: E820Table, who: str) -> None:
    """Print the table as it stands in the kernel's log.

    Mirrors arch/x86/kernel/e820.c:e820__print_table().
    """
    for e in table.entries:
        table.pr_info(
            f"{who}: [mem {e.addr:#018x}-{e.end - 1 & ULLONG_MAX:#018x}] {e820_print_type(e.type)}"
        )


def _nomerge(type: int) -> bool:
    return type in (E820_TYPE_PRAM, E820_TYPE_SOFT_RESERVED)


def _change_points(entries: list[E820Entry]) -> list[tuple[int, bool, E820Entry]]:
    """Return (address, is an end, entry) of both ends of each entry, in order; starts first."""
    points: list[tuple[int, bool, E820Entry]] = []
    for e in entries:
        if e.size:
            points += [(e.addr, False, e), (e.end, True, e)]
    # Entries with equal keys never change the result: only the set of open entries counts.
    points.sort(key=lambda p: (p[0], p[1]))
    return points


def e820__update_table(table: E820Table) -> int:
    """Sort the table and resolve overlaps: where entries overlap, the highest type wins.

    :return: 0, or -1 if there are fewer than two entries or one wraps around, and nothing was done

    Mirrors arch/x86/kernel/e820.c:e820__update_table().
    """
    entries = table.entries
    if len(entries) < 2 or any(e.end > ULLONG_MAX for e in entries):
        return -1
    new: list[E820Entry] = []
    overlap: list[E820Entry] = []
    last_type = last_addr = 0
    for addr, is_end, entry in _change_points(entries):
        if is_end:
            overlap.remove(entry)
        else:
            overlap.append(entry)
        current_type = max((e.type for e in overlap), default=0)
        if current_type != last_type or _nomerge(current_type):
            if last_type and addr != last_addr:
                if len(new) >= E820_MAX_ENTRIES:
                    break
                new.append(E820Entry(last_addr, addr - last_addr, last_type))
            if current_type:
                last_addr = addr
            last_type = current_type
    table.entries[:] = new
    return 0


def e820__range_update(
    table: E820Table, start: int, size: int, old_type: int, new_type: int
) -> int:
    """Change the type of what has @old_type within a range.

    :return: ``u64``; bytes changed
    :raises KernelBug: if both types are equal

    Mirrors arch/x86/kernel/e820.c:e820__range_update().
    """
    if old_type == new_type:
        raise KernelBug(f"BUG_ON: e820__range_update: both types are {old_type}")
    size = min(size, ULLONG_MAX - start)
    end = start + size
    table.pr_info(
        f"e820: update [mem {start:#010x}-{end - 1:#010x}] "
        f"{e820_print_type(old_type)} ==> {e820_print_type(new_type)}"
    )
    updated = 0
    for e in list(table.entries):
        if e.type != old_type:
            continue
        if e.addr >= start and e.end <= end:
            e.type = new_type
            updated += e.size
        elif e.addr < start and e.end > end:
            e820__range_add(table, start, size, new_type)
            e820__range_add(table, end, e.end - end, e.type)
            e.size = start - e.addr
            updated += size
        else:
            final_start, final_end = max(start, e.addr), min(end, e.end)
            if final_start >= final_end:
                continue
            e820__range_add(table, final_start, final_end - final_start, new_type)
            updated += final_end - final_start
            e.size -= final_end - final_start
            if e.addr >= final_start:
                e.addr = final_end
    return updated


def e820__range_remove(
    table: E820Table, start: int, size: int, old_type: int, check_type: bool
) -> int:
    """Take a range out of the table, or only what has @old_type in it.

    :return: ``u64``; bytes removed. An entry that is covered whole stays, with size 0.

    Mirrors arch/x86/kernel/e820.c:e820__range_remove().
    """
    size = min(size, ULLONG_MAX - start)
    end = start + size
    what = e820_print_type(old_type) if check_type else ""
    table.pr_info(f"e820: remove [mem {start:#010x}-{end - 1:#010x}] {what}")
    removed = 0
    for e in list(table.entries):
        if check_type and e.type != old_type:
            continue
        if e.addr >= start and e.end <= end:
            removed += e.size
            e.addr = e.size = e.type = 0
        elif e.addr < start and e.end > end:
            e820__range_add(table, end, e.end - end, e.type)
            e.size = start - e.addr
            removed += size
        else:
            final_start, final_end = max(start, e.addr), min(end, e.end)
            if final_start >= final_end:
                continue
            removed += final_end - final_start
            e.size -= final_end - final_start
            if e.addr >= final_start:
                e.addr = final_end
    return removed


def e820__end_ram_pfn(table: E820Table, limit_pfn: int, max_arch_pfn: int) -> int:
    """Return the pfn after the last RAM below @limit_pfn, and print it.

    Mirrors arch/x86/kernel/e820.c:e820__end_ram_pfn().
    """
    last_pfn = 0
    for e in table.entries:
        if e.type not in (E820_TYPE_RAM, E820_TYPE_ACPI):
            continue
        start_pfn, end_pfn = e.addr >> PAGE_SHIFT, e.end >> PAGE_SHIFT
        if start_pfn >= limit_pfn:
            continue
        if end_pfn > limit_pfn:
            last_pfn = limit_pfn
            break
        last_pfn = max(last_pfn, end_pfn)
    last_pfn = min(last_pfn, max_arch_pfn)
    table.pr_info(f"last_pfn = {last_pfn:#x} max_arch_pfn = {max_arch_pfn:#x}")
    return last_pfn


def e820__end_of_ram_pfn(table: E820Table, max_arch_pfn: int) -> int:
    """Return the pfn after the last RAM.

    Mirrors arch/x86/kernel/e820.c:e820__end_of_ram_pfn().
    """
    return e820__end_ram_pfn(table, max_arch_pfn, max_arch_pfn)


def e820__end_of_low_ram_pfn(table: E820Table, max_arch_pfn: int) -> int:
    """Return the pfn after the last RAM below 4 GiB.

    Mirrors arch/x86/kernel/e820.c:e820__end_of_low_ram_pfn().
    """
    return e820__end_ram_pfn(table, 1 << (32 - PAGE_SHIFT), max_arch_pfn)


def parse_memopt(table: E820Table, p: str) -> int:
    """Apply the boot option ``mem=``: no RAM at or above this address.

    :return: 0, or -EINVAL

    Mirrors arch/x86/kernel/e820.c:parse_memopt().
    """
    if p == "nopentium":
        return -EINVAL
    table.userdef = True
    mem_size, _ = memparse(p)
    if not mem_size:
        return -EINVAL
    e820__range_remove(table, mem_size, ULLONG_MAX - mem_size, E820_TYPE_RAM, True)
    return 0


def _parse_memmap_percent(table: E820Table, mem_size: int, start_at: int, p: str) -> int:
    """Apply ``size%start-from+to``: change, add or remove by type number."""
    from_type = to_type = 0
    if p[:1] == "-":
        from_type, p = memparse(p[1:])
    if p[:1] == "+":
        to_type, p = memparse(p[1:])
    if p:
        return -EINVAL
    if from_type and to_type:
        e820__range_update(table, start_at, mem_size, from_type, to_type)
    elif to_type:
        e820__range_add(table, start_at, mem_size, to_type)
    else:
        e820__range_remove(table, start_at, mem_size, from_type, bool(from_type))
    return 0


def parse_memmap_one(table: E820Table, p: str) -> int:
    """Apply one value of the boot option ``memmap=``.

    ``size@start`` RAM, ``#`` ACPI, ``$`` reserved, ``!`` legacy persistent memory, ``%`` by type
    number, ``exactmap`` to begin with an empty table, ``size`` alone as ``mem=``.

    :return: 0, or -EINVAL

    Mirrors arch/x86/kernel/e820.c:parse_memmap_one().
    """
    if p.startswith("exactmap"):
        table.entries.clear()
        table.userdef = True
        return 0
    mem_size, rest = memparse(p)
    if rest == p:
        return -EINVAL
    table.userdef = True
    types = {
        "@": E820_TYPE_RAM,
        "#": E820_TYPE_ACPI,
        "$": E820_TYPE_RESERVED,
        "!": E820_TYPE_PRAM,
    }
    if rest[:1] in types and rest:
        start_at, tail = memparse(rest[1:])
        e820__range_add(table, start_at, mem_size, types[rest[0]])
    elif rest[:1] == "%":
        start_at, tail = memparse(rest[1:])
        return _parse_memmap_percent(table, mem_size, start_at, tail)
    else:
        tail = rest
        e820__range_remove(table, mem_size, ULLONG_MAX - mem_size, E820_TYPE_RAM, True)
    return -EINVAL if tail else 0


def parse_memmap_opt(table: E820Table, p: str) -> int:
    """Apply the boot option ``memmap=``, a list separated by commas. Errors in it are ignored.

    :return: 0

    Mirrors arch/x86/kernel/e820.c:parse_memmap_opt().
    """
    for one in p.split(","):
        parse_memmap_one(table, one)
    return 0


def e820__finish_early_params(table: E820Table) -> None:
    """Sort the table again if boot options changed it, and print it.

    :raises KernelBug: if what is left cannot be a memory map, where the kernel panics

    Mirrors arch/x86/kernel/e820.c:e820__finish_early_params().
    """
    if table.userdef:
        if e820__update_table(table) < 0:
            raise KernelBug("Kernel panic: Invalid user supplied memory map")
        table.pr_info("user-defined physical RAM map:")
        e820__print_table(table, "user")


def e820__memory_setup(table: E820Table) -> None:
    """Sort what the firmware gave and print it.

    Mirrors arch/x86/kernel/e820.c:e820__memory_setup().
    """
    e820__update_table(table)
    table.pr_info("BIOS-provided physical RAM map:")
    e820__print_table(table, "BIOS-e820")


def trim_bios_range(table: E820Table) -> None:
    """Take page 0 and the area from 640 KiB to 1 MiB out of RAM.

    Mirrors arch/x86/kernel/setup.c:trim_bios_range().
    """
    e820__range_update(table, 0, PAGE_SIZE, E820_TYPE_RAM, E820_TYPE_RESERVED)
    e820__range_remove(table, BIOS_BEGIN, BIOS_END - BIOS_BEGIN, E820_TYPE_RAM, True)
    e820__update_table(table)


def e820__memblock_setup(memblock: mb.Memblock, table: E820Table) -> None:
    """Tell memblock about RAM, and drop partial pages.

    Mirrors arch/x86/kernel/e820.c:e820__memblock_setup().
    """
    mb.memblock_allow_resize(memblock)
    caller = "e820__memblock_setup+0x73/0xb0"
    for e in table.entries:
        if e.end > ULLONG_MAX:
            continue
        if e.type == E820_TYPE_SOFT_RESERVED:
            mb.memblock_reserve(memblock, e.addr, e.size, "e820__memblock_setup+0x48/0xb0")
        if e.type in (E820_TYPE_RAM, E820_TYPE_RESERVED_KERN):
            mb.memblock_add(memblock, e.addr, e.size, caller)
    mb.memblock_trim_memory(memblock, PAGE_SIZE)
    mb.memblock_dump_all(memblock)


def ram_alignment(pos: int) -> int:
    """Return the round size up to which the end of RAM is padded: 64 KiB, 1 MiB or 64 MiB.

    Mirrors arch/x86/kernel/e820.c:ram_alignment().
    """
    mib = pos >> 20
    return 64 << 10 if not mib else 1 << 20 if mib < 16 else 64 << 20


def ram_buffer(end: int) -> tuple[int, int]:
    """Return (first, last) address of the gap between RAM's end and the next round address.

    Devices must not be placed there: the firmware may have hidden RAM in it.

    Mirrors arch/x86/kernel/e820.c:e820__reserve_resources_late().
    Simplified: gives one gap; the kernel reserves those of all RAM entries.
    """
    align = ram_alignment(end)
    return end, (end + align - 1 & -align) - 1


def validate_e820(table: E820Table) -> None:
    """Check that the table is sorted, without overlaps and empty entries.

    :raises KernelBug: naming the first entry that is wrong
    """
    last = 0
    for e in table.entries:
        if e.size <= 0 or e.addr < last:
            raise KernelBug(f"e820: entry out of order or empty: {e}")
        last = e.end
