"""What the command line reads of a process, or of a copy of its files, before a tool sees it.

Linux only where a process is named; copies are read anywhere.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from mmcore.errors import MMError, UsageError
from mmcore.report.smaps import condensed
from mmcore.report.words import MAX_WORDS
from mmcore.report.workbench import MAX_INPUT, text_of

__all__ = ["is_process", "mappings_of", "pagemap_of", "pages_asked", "settings_of"]

#: A file of smaps may be so large.
MAX_SMAPS = 1 << 28
_ADDRESS = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,16})")
_PAIR = re.compile(r"(?:0[xX])?([0-9a-fA-F]{3,16}):?[ \t]+(?:0[xX])?([0-9a-fA-F]{16})")


def is_process(word: str) -> bool:
    """Tell whether a word names a process of this machine: a number, or ``self``."""
    number = word.isascii() and word.isdecimal() and len(word) <= 7
    return (number or word == "self") and Path(f"/proc/{word}/maps").exists()


def _whole(file: BinaryIO) -> bytes:
    """Return what a file holds; of a large smaps without what is 0."""
    data = file.read(MAX_INPUT + 1)
    if len(data) <= MAX_INPUT or (b"\nVmFlags:" not in data and b"\nRss:" not in data):
        return data
    data += file.read(MAX_SMAPS - len(data))
    if len(data) >= MAX_SMAPS:
        raise UsageError(f"more than {MAX_SMAPS >> 20} MiB; give a part of it")
    return condensed(data.splitlines(keepends=True))


def settings_of(pid: str) -> bytes:
    """Return the limit on mappings and a process's number of threads, as lines of a text."""
    out = ""
    limit = Path("/proc/sys/vm/max_map_count")
    if limit.exists():
        out += f"max_map_count={limit.read_text().strip()}\n"
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return out.encode()
    threads = re.search(r"^Threads:\s*(\d+)$", status, re.MULTILINE)
    return (out + (f"threads={threads[1]}\n" if threads else "")).encode()


def mappings_of(source: str, files: tuple[str, ...]) -> bytes:
    """Return the text of the first of a process's @files that can be read, or of a copy.

    :param source: a process, "" for this one, a file, or "-" for standard input
    :raises UsageError: if nothing can be read
    :raises MMError: if the process has no memory
    """
    try:
        if source == "-":
            return _whole(sys.stdin.buffer)
        if source and not is_process(source):
            with open(source, "rb") as file:
                return _whole(file)
    except OSError as err:
        if source.isdecimal():
            raise UsageError(f"there is no process {source}, and no such file") from None
        raise UsageError(f"{source}: {err.strerror}") from None
    pid = source or "self"
    if not Path("/proc/self/maps").exists():
        raise UsageError("there is no /proc here: give a file, or - for standard input")
    why = ""
    for name in files:
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                data = _whole(file)
        except OSError as err:
            why = why or f"/proc/{pid}/{name}: {err.strerror}"
            continue
        if not data:
            raise MMError(f"process {pid} has no mappings: a kernel thread, or it has ended")
        if len(data) + 100 <= MAX_INPUT or name == files[-1]:
            return settings_of(pid) + data
    raise UsageError(why)


# ---- pagemap -------------------------------------------------------------------------------------


def pages_asked(words: Iterable[str], page: int) -> list[int]:
    """Return the addresses of the pages that are asked for: addresses, and ranges as maps prints them.

    :raises UsageError: if a word is neither, or there are too many pages
    """
    pages: list[int] = []
    for word in words:
        first, dash, last = word.partition("-")
        one, two = _ADDRESS.fullmatch(first), _ADDRESS.fullmatch(last)
        if one is None or (dash and two is None):
            raise UsageError(f"{word[:40]!r} is no hexadecimal address or range of addresses")
        start = int(one[1], 16) // page
        end = -(-int(two[1], 16) // page) if two is not None else start + 1
        if end <= start or end - start > MAX_WORDS - len(pages):
            raise UsageError(f"{word[:40]}: it is 1 to {MAX_WORDS} pages in all")
        pages += [n * page for n in range(start, end)]
    return pages


def _from_text(text: str, source: str, pages: list[int]) -> str:
    known = {
        int(m[1], 16) & ~0xFFF: m[2]
        for m in map(_PAIR.fullmatch, map(str.strip, text.split("\n")))
        if m
    }
    if not known:
        raise UsageError(f"{source}: no lines with an address and a word of pagemap")
    missing = [p for p in pages if p not in known]
    if missing:
        raise UsageError(f"{source} has no line for {missing[0]:#x}")
    return "".join(f"{p:x}: {known[p]}\n" for p in pages)


def pagemap_of(source: str, words: list[str]) -> str:
    """Return the words of pagemap for some addresses, a line ``ADDRESS: WORD`` each.

    :param source: a process; a copy of /proc/PID/pagemap from its beginning, which may have holes; or a
        text with lines ``ADDRESS: WORD``
    :raises UsageError: if there is no such page in it, or it cannot be read
    """
    live = is_process(source)
    page = os.sysconf("SC_PAGE_SIZE") if live else 4096
    pages = pages_asked(words, page)
    path = f"/proc/{source}/pagemap" if live else source
    out = []
    try:
        with open(path, "rb", buffering=0) as file:
            if not live:
                head = file.read(1 << 16)
                if b"\0" not in head[:4096] and head.strip():
                    return _from_text(text_of(head + file.read(MAX_INPUT)), source, pages)
            for at in pages:
                file.seek(at // page * 8)
                word = file.read(8)
                if len(word) < 8:
                    raise UsageError(f"{path} has nothing for {at:#x}: not an address of a process")
                out.append(f"{at:x}: {int.from_bytes(word, sys.byteorder):016x}\n")
    except (OSError, OverflowError) as err:
        said = err.strerror if isinstance(err, OSError) else "no such address"
        raise UsageError(f"{path}: {said}") from None
    return "".join(out)
