"""Booting and rebuilding machines, held against what real 6.12 kernels printed.

Every capture in book/captures (and in $MMCORE_CAPTURES, if that is set) is one case.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmcore import Machine, boot, rebuild
from mmcore.arch.x86.e820 import E820Entry, E820Table
from mmcore.arch.x86.numa import SratNode
from mmcore.errors import ParseError, UsageError
from mmcore.machine import bare_zone
from mmcore.mm import page_alloc
from mmcore.mm.mmzone import Zone, wmark_pages
from mmcore.proc import capture, dmesg, meminfo, zoneinfo
from mmcore.report import sweep

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [ROOT / "book" / "captures", ROOT / "tests" / "captures"]
if os.environ.get("MMCORE_CAPTURES"):
    FOLDERS.append(Path(os.environ["MMCORE_CAPTURES"]))


def captures(*experiments: str) -> list[Path]:
    """The captures of some experiments, one of each topology."""
    found: dict[str, Path] = {}
    for folder in FOLDERS:
        for experiment in experiments:
            for path in sorted(folder.glob(f"*/{experiment}.txt*")):
                found.setdefault(f"{path.parent.name}/{path.name}", path)
    return list(found.values())


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.name.partition('.')[0]}"


def test_there_are_captures() -> None:
    """The tests below would pass with nothing to compare."""
    names = [name(p) for p in captures("physical", "memblock", "watermarks")]
    assert {"n1-1g/physical", "n1-1g/memblock", "n1-1g/watermarks", "n2-5g/physical"} <= set(names)


@pytest.mark.parametrize("path", captures("physical", "memblock"), ids=name)
def test_every_derived_number_is_the_kernels(path: Path) -> None:
    m = Machine.from_capture(path)
    rows = rebuild.compare(m)
    assert len(rows) > 100
    assert [row for row in rows if not row.equal] == []
    # Managed pages were computed, not copied.
    assert not [note for note in m.notes if "taken from the record" in note]
    if m.memblock_replay is not None:
        assert m.memblock_replay.requests > 40
        assert m.memblock_replay.mismatches == []
    for pgdat in m.node_data.values():
        for zone in pgdat.node_zones:
            if zone.present_pages:
                page_alloc.validate_zone(zone)


@pytest.mark.parametrize("path", captures("memblock"), ids=name)
def test_memblock_log_from_the_map_alone(path: Path) -> None:
    """With only map, nodes, CPUs, options and initrd, the machine prints the kernel's own log."""
    cap = capture.load(path)
    log = dmesg.parse(cap.dmesg or "")
    zones = zoneinfo.parse(cap["zoneinfo"])
    m = Machine(cpus=max(c.cpu + 1 for z in zones for c in z.pagesets))
    m.boot_params.cmdline = log.first("cmdline")["cmdline"]  # type: ignore[index]
    m.e820_table.entries = dmesg.parse_e820(cap.dmesg or "")
    ramdisk = log.first("ramdisk")
    assert ramdisk is not None
    m.boot_params.initrd = (ramdisk["start"], ramdisk["last"] + 1)
    m.boot_params.acpi_tables = [
        (v["table"], v["start"], v["last"] + 1 - v["start"]) for v in log.of("acpi_reserve")
    ]
    m.srat = rebuild._srat(log, rebuild._cpus_of_nodes(cap, log))
    if len(m.srat) > 1:
        m.slit = [[10 if i == j else 20 for j in range(len(m.srat))] for i in range(len(m.srat))]
    boot.start_kernel(m)
    assert _memblock_lines(m.dmesg) == _memblock_lines((cap.dmesg or "").split("\n"))
    managed = {(z.node, z.zone): z.pages["managed"] for z in zones}
    assert {(z.node, z.zone): z.pages["managed"] for z in zoneinfo.snapshot(m)} == managed


def _memblock_lines(lines: list[str]) -> list[str]:
    texts = [dmesg.strip_prefix(line)[1] for line in lines]
    keep = (" memory", " reserved", "memblock_", "MEMBLOCK")
    return [text for text in texts if text.startswith(keep)]


# ---- the sweeps of sysctls -----------------------------------------------------------------------

LINE_RE = re.compile(r"(\S+) node=(\d+) zone=(\w+) (.*)")


def _write(m: Machine, setting: str) -> None:
    key, value = setting.split("=")
    if key == "min_free_kbytes":
        page_alloc.min_free_kbytes_sysctl_handler(m, True, int(value))
    elif key == "watermark_scale_factor":
        page_alloc.watermark_scale_factor_sysctl_handler(m, True, int(value))
    elif key == "lowmem_reserve_ratio":
        ratios = [int(n) for n in value.split("_")]
        page_alloc.lowmem_reserve_ratio_sysctl_handler(m, True, ratios)
    elif key == "percpu_pagelist_high_fraction":
        page_alloc.percpu_pagelist_high_fraction_sysctl_handler(m, True, int(value))
    elif key == "dirty_ratio":
        m.vm_dirty_ratio = int(value)
    elif key == "dirty_background_ratio":
        m.dirty_background_ratio = int(value)
    elif key == "overcommit_ratio":
        m.sysinfo.overcommit_ratio = int(value)


DEFAULTS = {
    "watermark_scale_factor": "10",
    "lowmem_reserve_ratio": "256_256_32_0_0",
    "percpu_pagelist_high_fraction": "0",
    "overcommit_ratio": "50",
}


def _settings(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each setting of the sweep with the lines that were printed under it."""
    group: list[str] = []
    last = ""
    for line in lines:
        tag = line.partition(" ")[0]
        if not tag or tag == "defaults":
            continue
        if tag != last and group:
            yield last, group
            group = []
        last = tag
        group.append(line)
    if group:
        yield last, group


def _zone_values(zone: Zone) -> dict[str, str]:
    values = {
        "min": wmark_pages(zone, 0),
        "low": wmark_pages(zone, 1),
        "high": wmark_pages(zone, 2),
        "promo": wmark_pages(zone, 3),
        "boost": zone.watermark_boost,
        "spanned": zone.spanned_pages,
        "present": zone.present_pages,
        "managed": zone.managed_pages,
        "start_pfn": zone.zone_start_pfn,
        "pcp_batch": zone.per_cpu_pageset[0].batch,
    }
    out = {key: str(value) for key, value in values.items()}
    return out | {"protection": f"[{' '.join(map(str, zone.lowmem_reserve))}]"}


def _background_fits(m: Machine, thresh: int, background: int) -> bool:
    """Tell whether some number of dirtyable pages gives both thresholds.

    Both come from one reading of the free pages, which the sweep does not record.
    """
    ratio = m.vm_dirty_ratio * 4096 // 100
    low, high = -(-thresh * 4096 // ratio), ((thresh + 1) * 4096 - 1) // ratio

    def fit(available: int) -> int:
        bg = m.dirty_background_ratio * 4096 // 100 * available // 4096
        return thresh // 2 if bg >= thresh else bg

    return fit(low) <= background <= fit(high)


def _check_group(m: Machine, lines: list[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (line's subject, name, model, kernel) of every number printed under one setting."""
    info = meminfo.snapshot(m)
    stat: dict[str, int] = {}
    for line in lines:
        match = LINE_RE.fullmatch(line)
        if match:
            nid, zone_name, text = int(match.group(2)), match.group(3), match.group(4)
            zone = next(z for z in m.node_data[nid].node_zones if z.name == zone_name)
            mine = _zone_values(zone)
            for key, value in re.findall(r"(\w+)=(\[[^\]]*\]|\S+)", text):
                if key in mine:
                    yield f"{nid} {zone_name}", key, mine[key], value
            continue
        _, kind, key, value = line.split()
        if key == "CommitLimit:":
            yield kind, key, str(info["CommitLimit"]), value
        elif kind == "vmstat":
            stat[key] = int(value)
    if stat:
        both = stat["nr_dirty_threshold"], stat["nr_dirty_background_threshold"]
        yield "vmstat", "dirty thresholds", str(_background_fits(m, *both)), "True"


def _same_boot(a: capture.Capture, b: capture.Capture) -> bool:
    """Tell whether two boots of a topology had RAM disks of as many pages: all else is equal."""
    return -(-a.header["initrd_bytes"] // 4096) == -(-b.header["initrd_bytes"] // 4096)


@pytest.mark.parametrize("path", captures("watermarks"), ids=name)
def test_sysctl_sweeps(path: Path) -> None:
    """Watermarks, protection and batch after each of about forty sysctl writes."""
    if capture.load(path).header.get("status") != "ok":
        pytest.skip("the guest did not survive its sweep")
    own = capture.load(path)
    physical = capture.load(path.with_name(path.name.replace("watermarks", "physical")))
    m = Machine.from_capture(physical)
    after_boot = _same_boot(own, physical)
    if not after_boot:  # the marks that the boot left are not known
        m.min_free_kbytes = int(sweep.parse_defaults(own["sweep"])["min_free_kbytes"])
    lines = own["sweep"].split("\n")
    # The script begins by reading the settings, and reading this one recomputes the reserves.
    page_alloc.lowmem_reserve_ratio_sysctl_handler(m, False)
    boot_min = m.min_free_kbytes
    wrong: list[tuple[str, ...]] = []
    checked = 0
    keys: list[str] = []
    for tag, group in _settings(lines):
        settings = [] if tag == "default" else tag.split(":")[0].split(",")
        new = [s.split("=")[0] for s in settings]
        for key in keys:  # the script restores what the last sweep changed
            if key not in new:
                _write(m, f"{key}={DEFAULTS.get(key, boot_min)}")
        keys = [k for k in new if k in DEFAULTS or k == "min_free_kbytes"]
        for setting in settings:
            _write(m, setting)
        for row in _check_group(m, group):
            if tag == "default" and not after_boot and row[1] in ("min", "low", "high", "promo"):
                continue
            checked += 1
            if row[2] != row[3]:
                wrong.append((tag, *row))
    assert checked > 500
    assert wrong == []


# ---- defaults and misuse -------------------------------------------------------------------------


def test_boot_1g_is_the_captured_machine() -> None:
    """The default is the very machine of the captures: 991364 kB, 45056 kB kept free."""
    m = Machine.boot("1G")
    cap = capture.load("n1-1g/physical")
    theirs = meminfo.parse(cap["meminfo"])
    assert meminfo.snapshot(m)["MemTotal"] == theirs["MemTotal"] == 991364
    assert m.min_free_kbytes == 45056
    for mine, kernel in zip(zoneinfo.snapshot(m), zoneinfo.parse(cap["zoneinfo"]), strict=True):
        for key in ("min", "low", "high", "promo", "spanned", "present", "managed"):
            assert mine.pages[key] == kernel.pages[key]
        assert mine.protection == kernel.protection


def test_boot_gives_every_page_to_the_buddy_allocator() -> None:
    for size in ("64M", "300M", "1G", "5G"):
        m = Machine.boot(size)
        for pgdat in m.node_data.values():
            for zone in pgdat.node_zones:
                if zone.present_pages:
                    page_alloc.validate_zone(zone)
                    pcp = sum(p.count for p in zone.per_cpu_pageset)
                    assert zone.vm_stat[0] + pcp == zone.managed_pages


def test_first_pageblock_is_unmovable() -> None:
    """Page 0 is no memory, so nothing makes its pageblock movable (1 and 7 blocks in the capture)."""
    zone = Machine.boot("1G").node_data[0].node_zones[0]
    assert list(zone.pageblock_flags) == [0, 1, 1, 1, 1, 1, 1, 1]


def test_boot_from_lines_entries_and_table() -> None:
    text = "\n".join(line for line in Machine.boot("1G").dmesg if line.startswith("BIOS-e820"))
    table = boot.pc_memory_map(1 << 30)
    entries = [(e.addr, e.size, e.type) for e in table.entries]
    managed = Machine.boot("1G").totalram_pages
    assert Machine.boot(text).totalram_pages == managed
    assert Machine.boot(table).totalram_pages == managed
    assert Machine.boot(entries).totalram_pages == managed


def test_reserved_memory_is_not_managed() -> None:
    plain = Machine.boot("1G")
    m = Machine.boot("1G", reserved=[(256 << 20, 64 << 20)])
    assert m.totalram_pages == plain.totalram_pages - (64 << 20) // 4096


def test_options() -> None:
    assert Machine.boot("1G", cmdline="mem=512M").node_data[0].node_present_pages < 131072
    movable = Machine.boot("1G", cmdline="movablecore=300M").node_data[0].node_zones[3]
    assert 299 << 20 < movable.present_pages * 4096 < 300 << 20
    assert Machine.boot("1G", cmdline="transparent_hugepage=never").min_free_kbytes < 10000
    assert Machine.boot("5G", nodes=2, cmdline="numa=off").nr_online_nodes == 1
    with_pmem = Machine.boot("1G", cmdline="memmap=64M!256M")
    assert with_pmem.totalram_pages < Machine.boot("1G").totalram_pages - 16000


def test_nodes_and_distances() -> None:
    m = Machine.boot("5G", nodes=["4G:0", "1G:1"], cpus=2, distances={(0, 1): 21})
    assert m.cpu_to_node == [0, 1]
    assert m.node_distance == [[10, 21], [21, 10]]
    assert [p.node_present_pages for p in m.node_data.values()] == [1048446, 262144]
    assert "Fallback order for Node 1: 1 0 " in m.dmesg
    srat = [SratNode(7, [(0, 0x20000000)], [0]), SratNode(3, [(0x20000000, 0x40000000)])]
    assert sorted(Machine.boot("1G", nodes=srat).node_data) == [0, 1]
    memoryless = [SratNode(0, [(0, 1 << 30)], [0]), SratNode(1, [], [1])]
    m = Machine.boot("1G", nodes=memoryless, cpus=2)
    assert m.node_states["N_MEMORY"] == [0] and m.node_states["N_ONLINE"] == [0, 1]
    assert "Initmem setup node 1 as memoryless" in m.dmesg


@pytest.mark.slow
def test_a_tebibyte_boots() -> None:
    m = Machine.boot("1T")
    assert m.totalram_pages > (1 << 40) // 4096 * 0.98


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(memory_map="10M"), "at least 64M"),
        (dict(memory_map="1X"), "size '1X'"),
        (dict(memory_map=[]), "is empty"),
        (dict(memory_map=[(0, 1 << 30, "reserved")]), "is empty"),
        (dict(memory_map=[(0, 1 << 30), (1 << 29, 1 << 30)]), "overlaps"),
        (dict(memory_map=[(0, -5)]), "size above 0"),
        (dict(memory_map=[(0, 1 << 30, "ram")]), "type is one of"),
        (dict(memory_map=[(1 << 30, 1 << 30)]), "holds the kernel image"),
        (dict(memory_map=[7]), "entry 7"),
        (dict(cpus=0), "cpus is 0"),
        (dict(cpus=9000), "8192"),
        (dict(nodes=0), "at least 1"),
        (dict(nodes=[]), "empty list"),
        (dict(nodes=["512M", "1G"]), "add up"),
        (dict(nodes=["512M:0", "512M:5"]), "CPU 5"),
        (dict(nodes=["512M:0", "512M:0"]), "two nodes"),
        (dict(nodes=["512M:x", "512M"]), "CPU list"),
        (dict(nodes=2, distances=[[10]]), "matrix of 2 by 2"),
        (dict(nodes=2, distances={(0, 1): 5}), "10 to itself"),
        (dict(distances={(0, 1): 20}), "without nodes"),
        (dict(reserved=[(-1, 4096)]), "reserved"),
    ],
)
def test_misuse_says_what_is_allowed(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        Machine.boot(**arguments)  # type: ignore[arg-type]


def test_overlapping_table_is_resolved_as_the_kernel_does() -> None:
    table = E820Table([E820Entry(0, 1 << 30), E820Entry(1 << 29, 1 << 29, 2)])
    m = Machine.boot(table)
    assert m.max_pfn == (1 << 29) >> 12


@pytest.mark.parametrize("pages", [1, 7, 64, 1000, 1024, 5000])
@pytest.mark.parametrize("start", [0, 1, 513, 4096])
def test_bare_zone(pages: int, start: int) -> None:
    zone = bare_zone(pages, start)
    page_alloc.validate_zone(zone)
    assert zone.vm_stat[0] == zone.managed_pages == pages
    assert sum(area.nr_free << order for order, area in enumerate(zone.free_area)) == pages
    empty = bare_zone(pages, start, free=False, name="DMA32", cpus=2)
    assert empty.vm_stat[0] == 0 and empty.name == "DMA32" and len(empty.per_cpu_pageset) == 2


def test_bare_zone_misuse() -> None:
    for bad in (lambda: bare_zone(0), lambda: bare_zone(8, -1), lambda: bare_zone(8, name="High")):
        with pytest.raises(UsageError, match="bare_zone"):
            bad()


# ---- captures that are no help -------------------------------------------------------------------


def test_a_folder_that_looks_like_root(tmp_path: Path) -> None:
    cap = capture.load("n2-5g/physical")
    files = {
        "proc/zoneinfo": cap["zoneinfo"],
        "proc/buddyinfo": cap["buddyinfo"],
        "proc/pagetypeinfo": cap["pagetypeinfo"],
        "proc/meminfo": cap["meminfo"],
        "proc/sys/vm/min_free_kbytes": "90112\n",
        "sys/devices/system/node/node0/cpulist": "0\n",
        "sys/devices/system/node/node1/cpulist": "\n",
        "sys/devices/system/node/node0/distance": "10 21\n",
        "sys/devices/system/node/node1/distance": "21 10\n",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    m = Machine.from_capture(tmp_path)
    assert m.node_distance == [[10, 21], [21, 10]]
    rows = rebuild.compare(m)
    # Without the log, managed at boot is not known: marks may lie a few pages off, nothing else.
    assert all(row.equal for row in rows if not re.match("min|low|high|promo|protection", row.name))
    for row in rows:
        if isinstance(row.model, int) and isinstance(row.kernel, int):
            assert abs(row.model - row.kernel) <= max(10, row.kernel // 100)
    (tmp_path / "dmesg").write_text(cap["dmesg"])
    assert all(row.equal for row in rebuild.compare(Machine.from_capture(tmp_path)))


def test_a_rebuilt_machine_allocates() -> None:
    from mmcore.mm.gfp import GFP_KERNEL

    m = Machine.from_capture("n1-1g/physical")
    before = m.node_data[0].node_zones[1].vm_stat[0]
    page = page_alloc.alloc_pages(m, GFP_KERNEL, 0)
    assert page is not None and page.zone.name == "DMA32"
    assert m.node_data[0].node_zones[1].vm_stat[0] < before
    page_alloc.validate_zone(page.zone)


def test_captures_without_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no capture 'nowhere'"):
        Machine.from_capture("nowhere")
    with pytest.raises(UsageError, match="neither"):
        Machine.from_capture(tmp_path)
    (tmp_path / "x.txt").write_text("no sections")
    with pytest.raises(ParseError, match="no section"):
        Machine.from_capture(tmp_path / "x.txt")
    (tmp_path / "y.txt").write_text("=== zoneinfo | cat /proc/zoneinfo | rc=0\nNode 0, zone DMA\n")
    with pytest.raises(ParseError, match="line 1: the text ends too early"):
        Machine.from_capture(tmp_path / "y.txt")


def test_boot_with_a_memblock_log() -> None:
    cap = capture.load("n1-1g/memblock")
    log = cap.dmesg or ""
    m = Machine.boot(log, memblock_log=log)
    assert m.memblock_replay is not None and m.memblock_replay.mismatches == []
    managed = {z.zone: z.pages["managed"] for z in zoneinfo.parse(cap["zoneinfo"])}
    assert {z.name: z.managed_pages for z in m.node_data[0].node_zones} == managed
    with pytest.raises(UsageError, match="MEMBLOCK configuration"):
        Machine.boot("1G", memblock_log="nothing")
    with pytest.raises(UsageError, match="one of them"):
        Machine.boot("1G", memblock_log=log, reserved_is_all=True)


def test_boot_with_all_that_is_reserved() -> None:
    m = Machine.boot([(0, 1 << 30)], reserved=[(0, 1 << 20)], reserved_is_all=True)
    # Page 0 and the area up to 1 MiB are no RAM; all else is managed.
    assert m.totalram_pages == ((1 << 30) - (1 << 20)) // 4096


def test_damaged_captures_are_refused_not_crashed_on() -> None:
    """A number, a character or a piece changed anywhere: a machine, or an error that says why."""
    import random

    rng = random.Random(20)
    text = capture.read_text(capture.find("n1-1g/physical"))
    text = text[: text.index("=== SOURCE")]
    numbers = list(re.finditer(r"0x[0-9a-f]{4,}|\d+", text))
    refused = 0
    for _ in range(80):
        match = rng.choice(numbers)
        kind = rng.randrange(3)
        if kind == 0:
            new = hex(rng.randrange(1 << rng.randrange(8, 60)))
        elif kind == 1:
            new = str(rng.randrange(1 << rng.randrange(1, 60)))
        else:
            new = rng.choice(["", "x", "\n", "-1", "9" * 30])
        damaged = text[: match.start()] + new + text[match.end() :]
        try:
            Machine.from_capture(capture.parse(damaged))
        except (ParseError, UsageError):
            refused += 1
    assert refused > 5


def test_impossible_numbers_name_their_line() -> None:
    text = capture.read_text(capture.find("n1-1g/physical"))
    for old, new, message in (
        ("Freeing initrd memory: 1952K", "Freeing initrd memory: 195200000000K", "more is freed"),
        (
            "RAMDISK: [mem 0x3fdf8000-0x3ffdffff]",
            "RAMDISK: [mem 0x3fdf8000-0x03ffdfff]",
            "ends before",
        ),
        ("0x000000003ffdffff] usable", "0x00ff00003ffdffff] usable", "at most 16 TiB"),
    ):
        assert old in text
        with pytest.raises((ParseError, UsageError), match=message):
            Machine.from_capture(capture.parse(text.replace(old, new)))


def test_a_machine_whose_firmware_gives_no_distances_has_no_table_of_them() -> None:
    """Its allocation moved every later one by a page, on machines of several nodes without a SLIT."""
    text = capture.read_text(capture.find("n2-5g/physical"))
    without = re.sub(r"\[.*(ACPI:.* SLIT |Initialized distance table).*\n", "", text)
    assert text.count("SLIT") > without.count("SLIT")
    m = Machine.from_capture(capture.parse(without))
    assert m.slit == [] and m.numa.distance_cnt == 0
    assert not any("distance table" in line for line in m.dmesg)
    assert any("distance table" in line for line in Machine.from_capture("n2-5g/physical").dmesg)


def test_huge_pages_of_every_size_are_not_promised() -> None:
    """Numbers of a kernel booted with one huge page of 1 GiB and 100 of 2 MiB, of 6 GiB."""
    text = capture.read_text(capture.find("n1-1g/physical"))
    kb = {"MemTotal": 6074992, "HugePages_Total": 100, "Hugetlb": 1253376, "CommitLimit": 2410808}
    info = meminfo.parse(capture.parse(text).file("/proc/meminfo") or "")
    m = Machine.boot("1G")
    m.totalram_pages = kb["MemTotal"] >> 2
    rebuild._take_meminfo(m, {**info, **kb})
    assert meminfo.vm_commit_limit(m) << 2 == kb["CommitLimit"]
    assert meminfo.snapshot(m)["Hugetlb"] == kb["Hugetlb"]
