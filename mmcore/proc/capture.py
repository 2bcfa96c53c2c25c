"""Recorded texts of a real machine: one file with many sections, or a folder that looks like /.

A capture file begins with ``# key: value`` lines (values are JSON) and goes on with sections::

    === zoneinfo | cat /proc/zoneinfo | rc=0
    Node 0, zone      DMA
    ...

A folder holds copies under their own paths: ``proc/zoneinfo``, ``proc/sys/vm/min_free_kbytes``,
``sys/devices/system/node/node0/cpulist``; ``dmesg`` or ``dmesg.txt`` at its top is the log. Files
may be compressed (``.gz``).
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mmcore.errors import ParseError, UsageError

__all__ = ["Capture", "Section", "find", "load", "parse", "read_text"]

SECTION_RE = re.compile(r"=== (\S[^|]*?) \| (.*) \| rc=(\S+)")
HEADER_RE = re.compile(r"# ([^:]+): ?(.*)")
VALS_RE = re.compile(r"(/(?:proc|sys)/\S+) = (.*)")
#: What a folder may call the kernel's log.
LOG_NAMES = ("dmesg", "dmesg.txt", "var/log/dmesg")


@dataclass(slots=True)
class Section:
    """One section: what ran, its exit status, and what it printed.

    :ivar line: number of the line in the file that its text starts on
    """

    name: str
    command: str
    rc: str
    text: str
    line: int


@dataclass(slots=True)
class Capture:
    """A capture: sections in order, or the files of a folder.

    ``capture["zoneinfo"]`` is the text of a section; ``capture.file("/proc/zoneinfo")`` finds the
    text of a file whichever way it was recorded.

    :ivar header: the ``# key: value`` lines
    :ivar unreadable: files of the folder that exist and may not be read
    """

    name: str
    header: dict[str, Any] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    root: Path | None = None
    unreadable: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        text = self.get(name)
        if text is None:
            raise UsageError(f"{self.name}: no section {name!r}; there are {', '.join(self)}")
        return text

    def __iter__(self) -> Iterator[str]:
        return (section.name for section in self.sections)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str) -> str | None:
        """Return the text of the first section of that name, or None."""
        for section in self.sections:
            if section.name == name:
                return section.text
        return None

    def file(self, path: str) -> str | None:
        """Return the text of a file such as "/proc/zoneinfo", or None if it was not recorded.

        Where several sections hold it, the first counts.
        """
        if self.root is not None:
            names = [path.lstrip("/") + suffix for suffix in ("", ".txt", ".gz")]
            if path.count("/") == 2:
                names.append(path.rsplit("/", 1)[-1])
            return self._first(names)
        for section in self.sections:
            if section.command == f"cat {path}":
                return section.text
        return self._vals().get(path)

    def _first(self, names: Sequence[str]) -> str | None:
        """Return the text of the first file under the root that is there and may be read."""
        assert self.root is not None
        for name in names:
            path = self.root / name
            try:
                if path.is_file():
                    return decode(path.read_bytes(), str(path))
            except OSError:
                if f"/{name}" not in self.unreadable:
                    self.unreadable.append(f"/{name}")
        return None

    def files(self, pattern: str) -> dict[str, str]:
        """Return path and text of each recorded file that matches a pattern with ``*`` in it.

        Only the folders that the pattern names are looked at, so that the root may be "/".
        """
        if self.root is None:
            return {path: text for path, text in self._vals().items() if fnmatchcase(path, pattern)}
        found: dict[str, str] = {}
        for path in sorted(self.root.glob(pattern.lstrip("/"))):
            name = path.relative_to(self.root).as_posix()
            text = self._first([name])
            if text is not None:
                found["/" + name] = text
        return found

    @property
    def dmesg(self) -> str | None:
        """The kernel's log, or None."""
        if self.root is not None:
            return self._first([name + suffix for name in LOG_NAMES for suffix in ("", ".gz")])
        return self.get("dmesg")

    def _vals(self) -> dict[str, str]:
        """Return the small files that were recorded as ``path = value``, lines joined by ``|``."""
        out: dict[str, str] = {}
        for section in self.sections:
            if section.name.startswith("SOURCE "):
                continue
            for line in section.text.split("\n"):
                match = VALS_RE.fullmatch(line)
                if match and match.group(1) not in out:
                    out[match.group(1)] = match.group(2).replace("|", "\n") + "\n"
        return out


def read_text(path: Path) -> str:
    """Return the text of a file, decompressed if need be. Bytes that are no UTF-8 become U+FFFD.

    :raises ParseError: if a compressed file is damaged
    :raises UsageError: if it cannot be read
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise UsageError(f"{path}: {err.strerror or err}") from None
    return decode(data, str(path))


def decode(data: bytes, what: str) -> str:
    """Return bytes as text, decompressed if they are gzip.

    :raises ParseError: if they are damaged gzip
    """
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as err:
            raise ParseError(
                what, 1, repr(data[:16]), f"not a complete gzip file ({err})"
            ) from None
    return data.decode("utf-8", "replace").replace("\r\n", "\n")


def _parse_header(line: str, header: dict[str, Any]) -> None:
    match = HEADER_RE.fullmatch(line)
    if match:
        try:
            header[match.group(1)] = json.loads(match.group(2))
        except (ValueError, RecursionError):
            header[match.group(1)] = match.group(2)


def parse(text: str, name: str = "capture") -> Capture:
    """Read a capture file.

    :raises ParseError: if there is no section in it
    """
    capture = Capture(name)
    lines = text.split("\n")
    start: int | None = None
    current: re.Match[str] | None = None

    def close(end: int) -> None:
        if current is None or start is None:
            return
        body = "\n".join(lines[start:end])
        # The recorder ends a section with one empty line.
        body = body[:-1] if body.endswith("\n") else body
        if body and not body.endswith("\n"):
            body += "\n"
        title, command, rc = current.groups()
        capture.sections.append(Section(title, command, rc, body, start + 1))

    for number, line in enumerate(lines):
        match = SECTION_RE.fullmatch(line) if line.startswith("=== ") else None
        if match:
            close(number)
            current, start = match, number + 1
        elif current is None and line.startswith("# "):
            _parse_header(line, capture.header)
    close(len(lines))
    if not capture.sections:
        raise ParseError(name, 1, lines[0], "no section '=== name | command | rc=N' in it")
    return capture


def _candidates() -> Iterator[Path]:
    """Yield the folders in which captures are looked for."""
    env = os.environ.get("MMCORE_CAPTURES")
    if env:
        yield Path(env)
    here = Path.cwd()
    for folder in (here, *here.parents):
        yield folder / "book" / "captures"
        yield folder / "captures"
    yield Path(__file__).resolve().parents[2] / "book" / "captures"


def find(name: str) -> Path:
    """Return the path of a capture such as "n1-1g/physical".

    A path that exists is taken as it is; else ``$MMCORE_CAPTURES`` and ``book/captures`` are searched.

    :raises UsageError: if there is none; names where it was looked for
    """
    if Path(name).exists():
        return Path(name)
    tried: list[str] = []
    for folder in _candidates():
        for suffix in (".txt", ".txt.gz", ""):
            path = folder / (name + suffix)
            if path.exists():
                return path
        if folder.is_dir() and str(folder) not in tried:
            tried.append(str(folder))
    raise UsageError(
        f"no capture {name!r}; looked in {', '.join(tried) or 'no folder: none exists'} "
        "(set MMCORE_CAPTURES to say where captures are)"
    )


def load(name: str | Path) -> Capture:
    """Return a capture by name ("n1-1g/physical"), or from a file or a folder.

    :raises UsageError: if it is not found
    :raises ParseError: if it is no capture
    """
    path = find(str(name))
    if path.is_dir():
        return Capture(str(name), root=path)
    return parse(read_text(path), str(name))
