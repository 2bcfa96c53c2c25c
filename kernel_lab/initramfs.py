"""The guest's root file system: a cpio archive that is the same for the same contents.

The kernel unpacks a "newc" archive into its first file system (Documentation/driver-api/early-userspace
of its source describes the format): per entry a header of 110 hexadecimal characters, the name, the
contents, each padded to four bytes. Inode numbers count up and times are 0, so nothing in it depends
on when or where it was made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kernel_lab import programs
from kernel_lab.experiment import GUEST, Experiment
from kernel_lab.kernel import Kernel, modules
from kernel_lab.needs import LabError, where

__all__ = ["Entry", "build", "newc"]

DIRECTORY, EXECUTABLE, FILE, LINK, CONSOLE = 0o040755, 0o100755, 0o100644, 0o120777, 0o020600
FOLDERS = ("bin", "cg", "dev", "lab", "mnt", "modules", "proc", "sys", "tmp")
#: What guest scripts use of busybox.
APPLETS = """
    awk basename cat cp cut date dd dmesg echo env expr find free grep head hexdump id insmod kill ln
    ls mkdir mkswap mknod mount nproc poweroff printf ps pwd readlink rm rmdir sed seq sh sleep sort
    stty swapoff swapon sync tail tee test timeout touch tr true umount uname uniq usleep wc xargs
""".split()


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder, link (its contents are its target) or device of the archive."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    fields = (
        *(inode, entry.mode, 0, 0, 1, 0),  # owner, group, links, time
        *(len(entry.data), 0, 0, *entry.device, len(name), 0),
    )
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + name
    head += b"\0" * (-len(head) % 4)
    return head + entry.data + b"\0" * (-len(entry.data) % 4)


def newc(entries: Iterable[Entry]) -> bytes:
    """Return a newc archive of some entries, in their order."""
    out = b"".join(_record(number, entry) for number, entry in enumerate(entries, 1))
    out += _record(0, Entry("TRAILER!!!", 0))
    return out + b"\0" * (-len(out) % 512)


def build(experiment: Experiment, kernel: Kernel, cache: Path) -> bytes:
    """Return the archive for one experiment: busybox, the guest's scripts, programs and modules.

    :raises LabError: if a program does not compile
    """
    busybox = where("busybox")
    if busybox is None:
        raise LabError("not found: busybox (Debian package busybox-static)")
    own = [name for name in experiment.modules if programs.is_module(name)]
    loadable = modules(kernel, [name for name in experiment.modules if name not in own])
    loadable += [(name, programs.build_module(name, kernel, cache)) for name in own]
    entries = [Entry(name, DIRECTORY) for name in FOLDERS]
    entries.append(Entry("dev/console", CONSOLE, device=(5, 1)))
    entries.append(Entry("bin/busybox", EXECUTABLE, Path(busybox).read_bytes()))
    entries += [Entry(f"bin/{applet}", LINK, b"busybox") for applet in APPLETS]
    entries.append(Entry("init", EXECUTABLE, (GUEST / "init.sh").read_bytes()))
    entries.append(Entry("lab/record.sh", FILE, (GUEST / "record.sh").read_bytes()))
    for name in experiment.programs:
        entries.append(Entry(f"bin/{name}", EXECUTABLE, programs.build(name, kernel, cache)))
    entries += [Entry(f"modules/{name}.ko", FILE, data) for name, data in loadable]
    order = "".join(f"{name}\n" for name, _ in loadable)
    entries.append(Entry("modules/order", FILE, order.encode()))
    entries.append(Entry("lab/experiment.sh", FILE, experiment.script.encode()))
    return newc(entries)
