"""/proc/iomem: what the physical addresses are.

Mirrors kernel/resource.c:r_show().

Simplified: a machine's own text shows what the memory manager knows (RAM, reserved ranges, the
kernel's sections, the buffers behind RAM), not devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.arch.x86 import e820
from mmcore.proc.lines import Lines

if TYPE_CHECKING:
    from mmcore.machine import Machine

__all__ = ["Resource", "find", "insert_resource", "parse", "render", "show", "snapshot", "walk"]


@dataclass(slots=True)
class Resource:
    """``struct resource``: addresses from ``start`` to ``end``, both included.

    Mirrors include/linux/ioport.h:resource.
    """

    start: int
    end: int
    name: str
    child: list[Resource] = field(default_factory=list)


def parse(text: str) -> list[Resource]:
    """Read the file into a tree.

    :raises ParseError: with the first line that does not belong
    """
    lines = Lines(text, "/proc/iomem")
    top: list[Resource] = []
    path: list[list[Resource]] = [top]
    while lines:
        match = lines.match(
            r"((?:  )*)([0-9a-f]{8,16})-([0-9a-f]{8,16}) : (.*)", "'START-END : NAME'"
        )
        depth = len(match.group(1)) // 2
        if depth >= len(path):
            raise lines.error("a line lies deeper than the one above allows", back=1)
        resource = Resource(int(match.group(2), 16), int(match.group(3), 16), match.group(4))
        path[depth].append(resource)
        path[depth + 1 :] = [resource.child]
    if not top:
        raise lines.error("the text is empty")
    return top


def walk(resources: list[Resource], depth: int = 0) -> list[tuple[int, Resource]]:
    """Return (depth, resource) of the whole tree, in the file's order."""
    out: list[tuple[int, Resource]] = []
    stack = [(depth, r) for r in reversed(resources)]
    while stack:
        level, resource = stack.pop()
        out.append((level, resource))
        stack += [(level + 1, child) for child in reversed(resource.child)]
    return out


def find(resources: list[Resource], name: str) -> list[Resource]:
    """Return all resources of a name, e.g. "System RAM" or "Kernel code"."""
    return [resource for _, resource in walk(resources) if resource.name == name]


def render(resources: list[Resource]) -> str:
    """Write the file.

    Mirrors kernel/resource.c:r_show().
    """
    return "".join(
        f"{'  ' * depth}{r.start:08x}-{r.end:08x} : {r.name}\n" for depth, r in walk(resources)
    )


def insert_resource(siblings: list[Resource], new: Resource) -> bool:
    """Insert a resource into the tree, taking those that lie within it as children.

    :return: False if it overlaps another without one containing the other

    Mirrors kernel/resource.c:insert_resource().
    """
    for r in siblings:
        if r.start <= new.start and new.end <= r.end and (r.start, r.end) != (new.start, new.end):
            return insert_resource(r.child, new)
    inside = [r for r in siblings if new.start <= r.start and r.end <= new.end]
    if any(r.start <= new.end and new.start <= r.end for r in siblings if r not in inside):
        return False
    new.child += inside
    siblings[:] = sorted([r for r in siblings if r not in inside] + [new], key=lambda r: r.start)
    return True


def _reserve_region_with_split(top: list[Resource], start: int, end: int, name: str) -> None:
    """Insert a resource wherever the range is not taken yet.

    Mirrors kernel/resource.c:reserve_region_with_split().
    """
    for r in list(top):
        if r.end < start or r.start > end:
            continue
        if start < r.start:
            insert_resource(top, Resource(start, r.start - 1, name))
        start = r.end + 1
    if start <= end:
        insert_resource(top, Resource(start, end, name))


def snapshot(m: Machine) -> list[Resource]:
    """Return the resources that a machine's memory manager knows."""
    top: list[Resource] = []
    for entry in m.e820_table.entries:
        name = e820.E820_TYPE_IOMEM.get(entry.type, "Unknown E820 type")
        insert_resource(top, Resource(entry.addr, entry.end - 1, name))
    image = m.kernel_image
    text = image.text
    rodata = text + image.code
    sections = (
        (text, image.code, "Kernel code"),
        (rodata, image.rodata, "Kernel rodata"),
        (image.rodata_gap[1], image.rwdata, "Kernel data"),
        (image.end_of_kernel_reserve - image.bss, image.bss, "Kernel bss"),
    )
    for start, size, name in sections:
        insert_resource(top, Resource(start, start + size - 1, name))
    for entry in m.e820_table.entries:
        if entry.type == e820.E820_TYPE_RAM:
            start, end = e820.ram_buffer(entry.end)
            if start < end:
                _reserve_region_with_split(top, start, end, "RAM buffer")
    return top


def show(m: Machine) -> str:
    """Return the file of a machine."""
    return render(snapshot(m))
