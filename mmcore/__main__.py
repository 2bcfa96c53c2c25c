"""The command line: ``python -m mmcore COMMAND ...``.

Exit status: 0 done; 1 the input says no (a damaged text, no report in it); 2 wrong use. ``compare``:
0 every exact comparison is equal; 1 one differs; 2 nothing could be compared, or the input is bad.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmcore import Machine, __version__
from mmcore.errors import MMError, UsageError
from mmcore.mm import gfp as gfp_
from mmcore.mm.internal import alloc_flags_str
from mmcore.mm.mmzone import MIGRATETYPE_NAMES, ZONE_NAMES
from mmcore.proc import buddyinfo, capture, meminfo, zoneinfo

if TYPE_CHECKING:
    from mmcore.report import compare

__all__ = ["main"]

EPILOG = """examples:
  python -m mmcore boot 1G                          zones of a 1 GiB machine
  python -m mmcore boot 5G --nodes 4G,1G --cpus 2   two nodes
  python -m mmcore zoneinfo                         who may allocate what on this machine now
  python -m mmcore buddyinfo /proc/buddyinfo        free blocks by order, with sizes
  python -m mmcore gfp 0x140dca                     names, zone and migratetype of a gfp mask
  python -m mmcore pte 0x8000000012345867           bits of a page table entry
  dmesg | python -m mmcore alloc-failure -          why an allocation failed
  python -m mmcore compare                          this machine's /proc beside the model
  python -m mmcore compare -v capture.txt           a recorded kernel beside the model
"""


def _read(path: str, default: str) -> str:
    """Return the text of a file, of standard input for "-", or of @default for ""."""
    if path == "-":
        return capture.decode(sys.stdin.buffer.read(), "standard input")
    file = Path(path or default)
    if not path and not file.exists():
        raise UsageError(f"there is no {default} here: give a file, or - for standard input")
    return capture.read_text(file)


def _kb(pages: int) -> str:
    kb = pages << 2
    for unit in ("kB", "MB", "GB"):
        if kb < 10240:
            return f"{kb} {unit}"
        kb >>= 10
    return f"{kb} TB"


def cmd_boot(args: argparse.Namespace) -> int:
    """Boot a machine and print its zones."""
    nodes = args.nodes.split(",") if args.nodes else None
    if nodes and len(nodes) == 1 and nodes[0].isdecimal() and int(nodes[0]) < 1024:
        m = Machine.boot(args.size, nodes=int(nodes[0]), cpus=args.cpus, cmdline=args.append)
    else:
        m = Machine.boot(args.size, nodes=nodes, cpus=args.cpus, cmdline=args.append)
    if args.dmesg:
        print("\n".join(m.dmesg))
        return 0
    if args.proc:
        shows: dict[str, Callable[[Machine], str]] = {
            "zoneinfo": zoneinfo.show,
            "buddyinfo": buddyinfo.show,
            "meminfo": meminfo.show,
        }
        print(shows[args.proc](m), end="")
        return 0
    print(
        f"{len(m.node_data)} node(s), {m.cpus} CPU(s), {m.totalram_pages << 2} kB managed, "
        f"min_free_kbytes {m.min_free_kbytes}"
    )
    print(
        f"{'node zone':<14}{'first pfn':>10}{'spanned':>11}{'present':>11}{'managed':>11}"
        f"{'min':>8}{'low':>8}{'high':>8}  protection"
    )
    for info in zoneinfo.snapshot(m):
        p = info.pages
        if not p["present"]:
            continue
        print(
            f"{f'{info.node} {info.zone}':<14}{info.tail['start_pfn']:>10}{p['spanned']:>11}"
            f"{p['present']:>11}{p['managed']:>11}{p['min']:>8}{p['low']:>8}{p['high']:>8}"
            f"  ({', '.join(map(str, info.protection))})"
        )
    return 0


def cmd_zoneinfo(args: argparse.Namespace) -> int:
    """Say who may allocate from which zone."""
    from mmcore.report import zone_state

    print(zone_state.report(_read(args.file, "/proc/zoneinfo")), end="")
    return 0


def cmd_buddyinfo(args: argparse.Namespace) -> int:
    """Print free blocks with their sizes."""
    zones = buddyinfo.parse(_read(args.file, "/proc/buddyinfo"))
    for zone in zones:
        orders = [order for order, n in enumerate(zone.nr_free) if n]
        print(
            f"Node {zone.node} {zone.zone}: {zone.free_pages} pages free ({_kb(zone.free_pages)})"
        )
        for order, n in enumerate(zone.nr_free):
            if n:
                share = 100 * (n << order) / zone.free_pages
                size = _kb(1 << order)
                print(
                    f"  order {order:2}: {n:8} x {size:>8} = {_kb(n << order):>9}  {share:5.1f} %"
                )
        if orders:
            largest = max(orders)
            print(f"  largest free block: order {largest} ({_kb(1 << largest)})")
        else:
            print("  no free block")
    return 0


def cmd_gfp(args: argparse.Namespace) -> int:
    """Decode a gfp mask."""
    from mmcore.mm import page_alloc

    value = gfp_.parse_gfp(args.mask)
    machine = Machine()
    flags = page_alloc.gfp_to_alloc_flags(machine, value, 0)
    zone = gfp_.gfp_zone(value)
    print(f"{value:#x} = {gfp_.gfp_str(value)}")
    print(f"highest zone:    {ZONE_NAMES[zone]} (starts there, falls back to lower ones)")
    print(f"migratetype:     {MIGRATETYPE_NAMES[gfp_.gfp_migratetype(value)]}")
    print(f"may sleep:       {'yes' if gfp_.gfpflags_allow_blocking(value) else 'no'}")
    print(f"slow path flags: {alloc_flags_str(flags)}")
    return 0


def cmd_pte(args: argparse.Namespace) -> int:
    """Decode a page table entry."""
    from mmcore.arch.x86 import pgtable_types

    try:
        value = int(args.value, 16)
    except ValueError:
        raise UsageError(f"{args.value!r} is no hexadecimal number") from None
    if not 0 <= value < 1 << 64:
        raise UsageError(f"{args.value}: an entry has 64 bits")
    levels = {"4k": 1, "2m": 2, "1g": 3}
    info = pgtable_types.decode_pte(value, levels[args.size])
    print(info)
    for field in info.fields:
        bits = f"{field.hi}-{field.lo}" if field.hi != field.lo else str(field.lo)
        print(f"  {bits:>6}  {field.name:<12} {field.value:#x}  {field.meaning}")
    return 0


def cmd_alloc_failure(args: argparse.Namespace) -> int:
    """Explain page allocation failures in a kernel log."""
    from mmcore.report import alloc_failure

    text = _read(args.file, "/var/log/kern.log")
    reports = alloc_failure.parse_all(text) or [alloc_failure.parse(text)]
    for i, report in enumerate(reports):
        if i:
            print()
        print(alloc_failure.explain(report))
    return 0


def _compare_all(args: argparse.Namespace) -> tuple[list[compare.Report], list[str]]:
    """Return the reports on all captures that were named, and what is wrong with the others."""
    from mmcore.report import compare

    comparisons = compare.select(args.only)
    if not args.files:
        here = capture.Capture("this machine", root=Path("/"))
        return [compare.compare(here, comparisons)], []
    reports, bad = [], []
    for name in args.files:
        try:
            paths = compare.captures_in(capture.find(name))
        except (MMError, OSError) as err:
            bad.append(str(err))
            continue
        for path in paths:
            try:
                reports.append(compare.compare(path, comparisons))
            except (MMError, OSError) as err:
                bad.append(str(err))
    return reports, bad


def cmd_compare(args: argparse.Namespace) -> int:
    """Hold the model against captures of real kernels, or against this machine's /proc and /sys."""
    from mmcore.report import compare

    reports, bad = _compare_all(args)
    status = compare.exit_status(reports, bool(bad))
    total = compare.summary(reports)
    if args.json:
        data = {
            "captures": [report.to_dict() for report in reports],
            "bad_input": bad,
            "summary": total,
            "exit": status,
        }
        print(json.dumps(data, indent=1))
    else:
        for report in reports:
            print(compare.to_text(report, args.verbose))
        for kind, n in total.items():
            if n["comparisons"]:
                print(
                    f"{kind}: {n['comparisons_equal']} of {n['comparisons']} comparisons equal, "
                    f"{n['values_equal']} of {n['values']} values"
                )
        if not any(n["comparisons"] for n in total.values()):
            print("nothing could be compared")
    for text in bad:
        print(f"mmcore compare: {text}", file=sys.stderr)
    return status


def cmd_version(args: argparse.Namespace) -> int:
    """Print the version."""
    print(f"mmcore {__version__}, a model of Linux 6.12 (stable series, 6.12.117), x86-64")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmcore",
        description="A model of the Linux 6.12 memory manager, and readers for its texts.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], help: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=run.__doc__)
        sub.set_defaults(run=run)
        return sub

    sub = command("boot", cmd_boot, "boot a machine and print its zones")
    sub.add_argument("size", help="memory, such as 1G; a PC as QEMU builds it")
    sub.add_argument("--nodes", default="", help="number of nodes, or their sizes: 4G:0-1,1G:2")
    sub.add_argument("--cpus", type=int, default=1, help="number of CPUs (default: 1)")
    sub.add_argument("--append", default="", help="boot options, such as 'movablecore=300M'")
    sub.add_argument("--dmesg", action="store_true", help="print the kernel's log instead")
    sub.add_argument(
        "--proc", choices=("zoneinfo", "buddyinfo", "meminfo"), help="print a /proc file instead"
    )
    sub = command("zoneinfo", cmd_zoneinfo, "say who may allocate from which zone now")
    sub.add_argument("file", nargs="?", default="", help="file, or - (default: /proc/zoneinfo)")
    sub = command("buddyinfo", cmd_buddyinfo, "print free blocks by order, with sizes")
    sub.add_argument("file", nargs="?", default="", help="file, or - (default: /proc/buddyinfo)")
    sub = command("gfp", cmd_gfp, "decode a gfp mask")
    sub.add_argument("mask", help="a number or names: 0xcc0, GFP_KERNEL|__GFP_ZERO")
    sub = command("pte", cmd_pte, "decode a page table entry")
    sub.add_argument("value", help="the entry in hexadecimal")
    sub.add_argument("--size", choices=("4k", "2m", "1g"), default="4k", help="page it maps")
    sub = command("alloc-failure", cmd_alloc_failure, "explain page allocation failures in a log")
    sub.add_argument("file", help="kernel log, or - for standard input")
    sub = command("compare", cmd_compare, "hold the model against a real kernel's capture or /proc")
    sub.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="captures or folders of them (default: this machine)",
    )
    sub.add_argument("-v", "--verbose", action="store_true", help="print each difference")
    sub.add_argument("--json", action="store_true", help="print JSON instead")
    sub.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="run this comparison only"
    )
    command("version", cmd_version, "print the version")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except UsageError as err:
        print(f"mmcore {args.command}: {err}", file=sys.stderr)
        return 2
    except MMError as err:
        print(f"mmcore {args.command}: {err}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of a pipe has seen enough; keep Python from complaining at exit.
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
