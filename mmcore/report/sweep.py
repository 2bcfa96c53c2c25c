"""Sweep the memory sysctls as the ``watermarks`` captures did, and compare every number.

Such a capture wrote one sysctl after the other on a running kernel and printed, each time, one line
per zone with everything that /proc/zoneinfo derives from it. `sweep()` writes the same values on a
model machine and returns both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mmcore.errors import ParseError, UsageError
from mmcore.machine import Machine
from mmcore.mm import page_alloc
from mmcore.mm.mmzone import Zone, for_each_populated_zone

__all__ = [
    "LINE_FIELDS",
    "SweepRow",
    "apply_setting",
    "parse_defaults",
    "parse_lines",
    "sweep",
    "write_changed",
    "zone_numbers",
]

#: What a line says of a zone, in order; the protection's numbers follow, then the batch.
LINE_FIELDS = ("min", "low", "high", "promo", "boost", "spanned", "present", "managed", "start_pfn")

_LINE = re.compile(
    r"(?P<tag>\S+) node=(?P<node>\d+) zone=(?P<zone>\w+) "
    + " ".join(rf"{name}=(\d+)" for name in LINE_FIELDS)
    + r" protection=\[([\d ]+)\] .*pcp_batch=(\d+)"
)
_DEFAULTS_LINE = re.compile(
    r"defaults min_free_kbytes=(\d{1,12}) watermark_scale_factor=(\d{1,6}) "
    r"lowmem_reserve_ratio=(\d{1,9}(?:[\s_]\d{1,9}){4}) percpu_pagelist_high_fraction=(\d{1,9})\b.*"
)
#: What the script wrote back after each group of settings, where the record does not say.
DEFAULTS = {
    "min_free_kbytes": "45056",
    "watermark_scale_factor": "10",
    "lowmem_reserve_ratio": "256_256_32_0_0",
    "percpu_pagelist_high_fraction": "0",
}

#: (setting, zone such as "0/DMA32", the model's numbers, the kernel's numbers)
SweepRow = tuple[str, str, list[int], list[int]]


def parse_lines(text: str) -> Iterator[tuple[str, str, list[int]]]:
    """Yield (setting, zone, numbers) for each zone line of a sweep.

    :raises ParseError: for a line that names a zone and is damaged
    """
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.match(line)
        if match:
            *marks, protection, batch = match.groups()[3:]
            numbers = [int(n) for n in (*marks, *protection.split(), batch)]
            yield match["tag"], f"{match['node']}/{match['zone']}", numbers
        elif " zone=" in line:
            raise ParseError("sweep", number, line, "a zone line has marks, sizes and protection")


def parse_defaults(text: str) -> dict[str, str]:
    """Return the settings as they were before the sweep, which the script wrote back each time.

    :raises ParseError: if the line that says so is damaged
    """
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("defaults"):
            match = _DEFAULTS_LINE.fullmatch(line)
            if match is None:
                raise ParseError("sweep", number, line, "a defaults line names four settings")
            values = ["_".join(value.split()) for value in match.groups()]
            return dict(zip(DEFAULTS, values, strict=True))
    return dict(DEFAULTS)


def zone_numbers(zone: Zone) -> list[int]:
    """Return the numbers of a sweep line for a zone of the model."""
    boost = zone.watermark_boost
    return [
        *(mark + boost for mark in zone._watermark),
        boost,
        zone.spanned_pages,
        zone.present_pages,
        zone.managed_pages,
        zone.zone_start_pfn,
        *zone.lowmem_reserve,
        zone.per_cpu_pageset[0].batch,
    ]


def apply_setting(m: Machine, tag: str, defaults: dict[str, str] | None = None) -> None:
    """Write the sysctls that @tag names, and the default of every other one, as the script did.

    :param tag: such as ``watermark_scale_factor=50`` or ``default``, which writes nothing
    :param defaults: what the others are set to, see `parse_defaults()`
    :raises UsageError: for a value that no sysctl has
    """
    page_alloc.lowmem_reserve_ratio_sysctl_handler(m, False)  # the script reads it, which acts too
    if tag == "default":
        return
    values = dict(defaults or DEFAULTS)
    for part in tag.partition(":")[0].split(","):
        name, _, value = part.partition("=")
        if name in values:
            if not re.fullmatch(r"\d{1,9}(_\d{1,9}){0,4}", value):
                raise UsageError(f"the sweep's setting {part!r} is no number")
            values[name] = value
    page_alloc.min_free_kbytes_sysctl_handler(m, True, int(values["min_free_kbytes"]))
    page_alloc.watermark_scale_factor_sysctl_handler(m, True, int(values["watermark_scale_factor"]))
    ratios = [int(n) for n in values["lowmem_reserve_ratio"].split("_")]
    page_alloc.lowmem_reserve_ratio_sysctl_handler(m, True, ratios)
    fraction = int(values["percpu_pagelist_high_fraction"])
    page_alloc.percpu_pagelist_high_fraction_sysctl_handler(m, True, fraction)


def write_changed(m: Machine, values: dict[str, str]) -> None:
    """Write those sysctls that were not what the machine has when the sweep began."""
    if int(values["min_free_kbytes"]) != m.min_free_kbytes:
        page_alloc.min_free_kbytes_sysctl_handler(m, True, int(values["min_free_kbytes"]))
    if (factor := int(values["watermark_scale_factor"])) != m.watermark_scale_factor:
        page_alloc.watermark_scale_factor_sysctl_handler(m, True, factor)
    if (
        fraction := int(values["percpu_pagelist_high_fraction"])
    ) != m.percpu_pagelist_high_fraction:
        page_alloc.percpu_pagelist_high_fraction_sysctl_handler(m, True, fraction)
    ratios = [int(n) for n in values["lowmem_reserve_ratio"].split("_")]
    page_alloc.lowmem_reserve_ratio_sysctl_handler(m, True, ratios)


def sweep(m: Machine, text: str) -> list[SweepRow]:
    """Write every setting of a recorded sweep on @m and return both sides' numbers.

    :param m: a machine as it was when the sweep began, changed in the course
    :param text: the capture's section ``sweep``
    :raises ParseError: if a line is damaged, or names a zone that the machine does not have
    """
    rows: list[SweepRow] = []
    current = ""
    defaults = parse_defaults(text)
    for tag, where, kernel in parse_lines(text):
        if tag != current:
            apply_setting(m, tag, defaults)
            current = tag
        zones = {f"{z.node}/{z.name}": z for z in for_each_populated_zone(m)}
        if where not in zones:
            raise ParseError("sweep", 1, tag, f"the machine has no populated zone {where}")
        rows.append((tag, where, zone_numbers(zones[where]), kernel))
    return rows
