"""Trace lines: the events of the allocator and of page faults as /sys/kernel/tracing/trace has them.

A line of a real trace and an event of the model are the same thing in two spellings: `parse()` turns
a trace into `mmcore.trace.Event`, `render()` prints events as the kernel does.

Mirrors kernel/trace/trace_output.c:trace_print_context() and the TP_printk formats of
include/trace/events/kmem.h and arch/x86/include/asm/trace/exceptions.h.
Simplified: the kernel prints a hashed pointer behind ``page=``; the model prints the address of the
``struct page`` in the vmemmap. The flags column of an event of the model is all dots.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mmcore.errors import ParseError, UsageError
from mmcore.mm.gfp import gfp_str, parse_gfp
from mmcore.mm.mmzone import pageblock_order
from mmcore.trace import TRACEPOINTS, Event

__all__ = ["TraceLine", "between", "parse", "parse_line", "render", "render_event"]

VMEMMAP_START = 0xFFFF_EA00_0000_0000
PAGE_STRUCT_SIZE = 64

LINE_RE = re.compile(
    r"\s*(?P<comm>.+)-(?P<pid>\d+)\s+\[(?P<cpu>\d+)\] (?P<flags>\S+)\s+"
    r"(?P<sec>\d+)\.(?P<usec>\d{6}): (?P<name>\w+): (?P<args>.*)",
    re.ASCII,
)
ARG_RE = re.compile(r"(\w+)=(\S+)")

#: How each event's fields are printed; ``{page}`` is the pointer, the rest are fields or derived.
FORMATS: dict[str, str] = {
    "kmem:mm_page_alloc": (
        "page={page} pfn={pfn:#x} order={order} migratetype={migratetype} gfp_flags={gfp}"
    ),
    "kmem:mm_page_alloc_zone_locked": (
        "page={page} pfn={pfn:#x} order={order} migratetype={migratetype} "
        "percpu_refill={percpu_refill}"
    ),
    "kmem:mm_page_alloc_extfrag": (
        "page={page} pfn={pfn:#x} alloc_order={alloc_order} fallback_order={fallback_order} "
        "pageblock_order={pageblock_order} alloc_migratetype={alloc_migratetype} "
        "fallback_migratetype={fallback_migratetype} fragmenting={fragmenting} "
        "change_ownership={change_ownership}"
    ),
    "kmem:mm_page_free": "page={page} pfn={pfn:#x} order={order}",
    "kmem:mm_page_free_batched": "page={page} pfn={pfn:#x} order=0",
    "kmem:mm_page_pcpu_drain": "page={page} pfn={pfn:#x} order={order} migratetype={migratetype}",
    "exceptions:page_fault_user": "address={address:#x} ip={ip:#x} error_code={error_code:#x}",
    "exceptions:page_fault_kernel": "address={address:#x} ip={ip:#x} error_code={error_code:#x}",
}
_BY_SHORT_NAME = {name.partition(":")[2]: name for name in FORMATS}


@dataclass(slots=True)
class TraceLine:
    """One line of a trace.

    :ivar number: the line's number in the text
    :ivar event: the event, or None for a line that is none of ours (a marker, another tracepoint)
    :ivar name: the name as printed, without the trace system
    :ivar args: what stands behind the name, as printed
    """

    number: int
    comm: str
    pid: int
    cpu: int
    flags: str
    time: int
    name: str
    args: str
    event: Event | None

    def __str__(self) -> str:
        seconds, ns = divmod(self.time, 1_000_000_000)
        return (
            f"{self.comm:>16}-{self.pid:<7} [{self.cpu:03}] {self.flags} "
            f"{seconds:5}.{ns // 1000:06}: {self.name}: {self.args}"
        )


def _value(field: str, args: dict[str, str]) -> int:
    if field == "gfp_flags":
        return parse_gfp(args[field])
    return int(args[field], 0)


def _fields(name: str, args: dict[str, str]) -> tuple[int, ...]:
    """Return the event's values in table order from its printed arguments."""
    return tuple(_value(field, args) for field in TRACEPOINTS[name])


def parse_line(line: str, number: int = 1) -> TraceLine | None:
    """Return one line of a trace, or None for a comment or an empty line.

    :param number: the line's number, for the error
    :raises ParseError: if the line is none that a trace can have
    """
    if not line.strip() or line.lstrip().startswith("#"):
        return None
    found = LINE_RE.fullmatch(line)
    if found is None:
        raise ParseError("a trace", number, line, "not a line of /sys/kernel/tracing/trace")
    time = int(found["sec"]) * 1_000_000_000 + int(found["usec"]) * 1000
    comm, cpu = found["comm"].strip(), int(found["cpu"])
    event = None
    full = _BY_SHORT_NAME.get(found["name"])
    if full is not None:
        try:
            values = _fields(full, dict(ARG_RE.findall(found["args"])))
        except KeyError as missing:
            raise ParseError("a trace", number, line, f"the field {missing} is missing") from None
        except (UsageError, ValueError):
            raise ParseError("a trace", number, line, "a field has no number") from None
        event = Event(time, cpu, comm, full, values)
    return TraceLine(
        number,
        comm,
        int(found["pid"]),
        cpu,
        found["flags"],
        time,
        found["name"],
        found["args"],
        event,
    )


def parse(text: str) -> list[TraceLine]:
    """Return the lines of a trace; comments are left out.

    :raises ParseError: for a line that no trace has
    """
    lines = (parse_line(line, i) for i, line in enumerate(text.split("\n"), 1))
    return [line for line in lines if line is not None]


def between(lines: Iterable[TraceLine], begin: str = "", end: str = "") -> Iterator[TraceLine]:
    """Yield the lines with events between two texts that somebody wrote to ``trace_marker``.

    :param begin: the marker after which to start; "" for the first line
    :param end: the marker before which to stop; "" for the last line
    """
    on = not begin
    for line in lines:
        if line.name == "tracing_mark_write":
            if end and line.args == end:
                return
            on = on or line.args == begin
        elif on and line.event is not None:
            yield line


def render_event(event: Event) -> tuple[str, str]:
    """Return the name and the arguments of @event as the kernel prints them.

    :raises UsageError: for an event whose format the model does not know
    """
    form = FORMATS.get(event.name)
    if form is None:
        raise UsageError(f"{event.name} has no trace line; known are {', '.join(FORMATS)}")
    fields = dict(event.fields)
    if "pfn" in fields:
        fields["page"] = f"{VMEMMAP_START + fields['pfn'] * PAGE_STRUCT_SIZE:016x}"
    if "gfp_flags" in fields:
        fields["gfp"] = gfp_str(fields["gfp_flags"])
    if "fallback_order" in fields:
        fields["pageblock_order"] = pageblock_order
        fields["fragmenting"] = int(fields["fallback_order"] < pageblock_order)
        fields["change_ownership"] = int(fields["change_ownership"])
    if "percpu_refill" in fields:
        fields["percpu_refill"] = int(fields["percpu_refill"])
    return event.name.partition(":")[2], form.format(**fields)


def render(log: Iterable[Event], pid: int = 0) -> str:
    """Return recorded events as lines of a trace; events that have no trace line are left out.

    :param pid: the process id to print behind the task's name
    """
    out = []
    for event in log:
        if event.name in FORMATS:
            name, args = render_event(event)
            line = TraceLine(0, event.task, pid, event.cpu, ".....", event.time, name, args, event)
            out.append(f"{line}\n")
    return "".join(out)
