"""Where the boot loader put things: the kernel's image, the initial RAM disk, the options."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["BootParams", "KernelImage"]


@dataclass(slots=True, eq=False)
class KernelImage:
    """Where the kernel lies in memory, in bytes. The defaults are the reference kernel's, unmoved.

    :ivar text: ``_text``, its first byte
    :ivar end_of_kernel_reserve: the end of bss; what follows is the brk area
    :ivar brk: bytes of brk used, for early page tables
    :ivar code: sizes as the "Memory:" line counts them; likewise rwdata, rodata, init, bss
    :ivar smp_locks: (start, end) of what is freed when alternatives are applied
    :ivar decrypted: (start, end) of the unused part of the section for encrypted guests
    :ivar initmem: (start, end) of init code and data
    :ivar rodata_gap: (start, end) of the padding between read-only and writable data
    """

    text: int = 0x1000000
    end_of_kernel_reserve: int = 0x3C00000
    brk: int = 0x11000
    code: int = 16384 << 10
    rwdata: int = 0x272C80
    rodata: int = 0xAA8000
    init: int = 4024 << 10
    bss: int = 0x52A000
    smp_locks: tuple[int, int] = (0x36CB000, 0x36D5000)
    decrypted: tuple[int, int] = (0x3805000, 0x3A00000)
    initmem: tuple[int, int] = (0x32DD000, 0x36CB000)
    rodata_gap: tuple[int, int] = (0x2AA8000, 0x2C00000)


@dataclass(slots=True, eq=False)
class BootParams:
    """What the boot loader hands over, besides the memory map.

    :ivar initrd: (start, end) of the initial RAM disk in bytes, or None
    :ivar reserved: (start, size) of what else must not be touched
    :ivar acpi_tables: (name, start, size) of the firmware's tables, if they are to be reserved
    :ivar bios_start: where the BIOS's own memory below 1 MiB begins
    """

    cmdline: str = ""
    initrd: tuple[int, int] | None = None
    reserved: list[tuple[int, int]] = field(default_factory=list)
    acpi_tables: list[tuple[str, int, int]] = field(default_factory=list)
    bios_start: int = 0x9F000
