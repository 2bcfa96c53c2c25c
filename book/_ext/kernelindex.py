"""Look up names of the reference kernel source: which file defines what, and where. Standard library only."""

from __future__ import annotations

import lzma
import re
from functools import lru_cache
from pathlib import Path

INDEX = Path(__file__).with_name("kernel-index.txt.xz")
TREE = "https://git.kernel.org/pub/scm/linux/kernel/git/stable/linux.git/tree"

#: A citation in a chapter: ``kernel:mm/page_alloc.c#expand`` or ``kernel:mm/page_alloc.c``.
CITATION = re.compile(r"kernel:(?P<path>[\w./+-]+)(?:#(?P<name>\w+))?")
#: A citation in a docstring: ``Mirrors mm/page_alloc.c:expand().``
MIRRORS = re.compile(r"Mirrors\s+(?P<path>[\w./+-]+):(?P<name>\w+)(?:\(\))?")


class KernelIndex:
    """The names that the files of one kernel release define."""

    def __init__(self, release: str, files: dict[str, dict[str, int]]) -> None:
        self.release = release
        self.files = files

    def problem(self, path: str, name: str | None) -> str | None:
        """Return what is wrong with a citation, or None."""
        if path not in self.files:
            return f"{path} is not in the index of Linux {self.release}"
        if name and self.line(path, name) is None:
            elsewhere = [p for p, names in self.files.items() if name in names]
            hint = f"; it is in {', '.join(elsewhere[:3])}" if elsewhere else ""
            return f"{path} of Linux {self.release} does not define {name}{hint}"
        return None

    def line(self, path: str, name: str) -> int | None:
        """Return the line where @path defines @name; ``alloc_pages`` finds ``alloc_pages_noprof``, too."""
        names = self.files.get(path, {})
        return names.get(f"{name}_noprof", names.get(name))

    def url(self, path: str, name: str | None = None) -> str:
        """Return where @path is read online, at the line that defines @name."""
        line = self.line(path, name) if name else None
        return f"{TREE}/{path}?h=v{self.release}" + (f"#n{line}" if line else "")


def parse(text: str) -> KernelIndex:
    """Return the index that tools/kernel_index.py wrote as @text."""
    lines = text.splitlines()
    head = re.match(r"# Names and lines of Linux (\S+),", lines[0])
    if head is None:
        raise ValueError(f"not a kernel index: {lines[0]!r}")
    files: dict[str, dict[str, int]] = {}
    names: dict[str, int] = {}
    for row in lines[1:]:
        if not row.startswith(" "):
            names = files.setdefault(row, {})
            continue
        words = row.split()
        line = 0
        for name, distance in zip(words[::2], words[1::2], strict=True):
            line += int(distance)
            names[name] = line
    return KernelIndex(head.group(1), files)


@lru_cache(1)
def load() -> KernelIndex:
    """Return the index of the reference source."""
    return parse(lzma.decompress(INDEX.read_bytes()).decode())


def resolve_text(text: str) -> str:
    """Return @text with every ``kernel:`` link replaced by its address."""
    index = load()
    return re.sub(
        r"(?<=\]\()" + CITATION.pattern + r"(?=\))",
        lambda m: index.url(m.group("path"), m.group("name")),
        text,
    )
