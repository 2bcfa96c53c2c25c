"""The command line: ``python -m mmcore COMMAND ...``.

Exit status: 0 done; 1 the input says no (a damaged text, no report in it, an address that is not
canonical); 2 wrong use (an unknown option, a file that is not there, a word that is no number).
``compare`` and ``vmafuzz``: 0 every exact comparison is equal; 1 one differs; 2 nothing could be compared, or the input
is bad. A reader of the output that goes away (``| head``) is no error.

The tools (zoneinfo, buddyinfo, maps, smaps, alloc-failure, oom-report, cgroup, gfp, pte, pagemap, kpageflags, address)
print what `mmcore.report.workbench.run()` returns, which is also what the book's workbench page shows. With --json
they print it as data: ``schema``, ``tool``, ``ok``, ``text``, ``rows``, ``error``, ``line``; the exit
status is the same.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmcore import Machine, __version__
from mmcore.errors import MMError, UsageError
from mmcore.proc import buddyinfo, capture, meminfo, zoneinfo

if TYPE_CHECKING:
    from mmcore.report import compare

__all__ = ["main"]

EPILOG = """examples:
  python -m mmcore boot 1G                          zones of a 1 GiB machine
  python -m mmcore boot 5G --nodes 4G,1G --cpus 2   two nodes
  python -m mmcore zoneinfo                         who may allocate what on this machine now
  python -m mmcore buddyinfo                        free blocks by order, fragmentation
  python -m mmcore maps 1234                        why so many mappings; what keeps neighbours apart
  python -m mmcore smaps 1234                       what a process has in memory
  python -m mmcore pagemap 1234 7ffd2a1b3000        where a page of a process is
  python -m mmcore gfp 0x140dca                     names, zone and migratetype of a gfp mask
  python -m mmcore gfp --kernel 4.19 0x6000c0       the same in an older kernel's numbers
  python -m mmcore pte 0x8000000012345867           bits of a page table entry
  python -m mmcore address ffff888012345678         which region, which indices
  dmesg | python -m mmcore alloc-failure -          why an allocation failed
  journalctl -k | python -m mmcore oom-report -     who was killed for want of memory, and why
  python -m mmcore cgroup /sys/fs/cgroup            protection and limits of a cgroup tree
  python -m mmcore compare                          this machine's /proc beside the model
  python -m mmcore compare -v capture.txt           a recorded kernel beside the model
  python -m mmcore vmafuzz --seeds 3                random calls on this kernel and on the model
"""


def _bytes(path: str) -> bytes:
    """Return what a file holds, or standard input for "-", as far as a tool may read it.

    :raises UsageError: if it cannot be read
    """
    from mmcore.report.workbench import MAX_INPUT

    try:
        if path == "-":
            return sys.stdin.buffer.read(MAX_INPUT + 1)
        with open(path, "rb") as file:
            return file.read(MAX_INPUT + 1)
    except OSError as err:
        raise UsageError(f"{path}: {err.strerror}") from None


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


def _report(tool: str, data: str | bytes, as_json: bool) -> int:
    """Run a tool and print what it says; return the exit status."""
    from mmcore.report import workbench

    result = workbench.examine(tool, data)
    if as_json:
        print(json.dumps(result.to_dict(), indent=1))
    elif result.lines:
        print(result.text)
    if result.error is not None:
        sys.stdout.flush()
        print(f"mmcore {tool}: {result.error}", file=sys.stderr)
    return result.status


def _words(args: argparse.Namespace, **options: str | None) -> str | bytes:
    """Return the words of the command line, or standard input, with the options in front."""
    chosen = " ".join(f"{name}={value}" for name, value in options.items() if value is not None)
    if args.words and args.words != ["-"]:
        return f"{chosen} {' '.join(args.words)}"
    if not args.words and sys.stdin.isatty():
        raise UsageError("give a number or -, for standard input; --help has examples")
    return chosen.encode() + b" " * bool(chosen) + _bytes("-")


def cmd_zoneinfo(args: argparse.Namespace) -> int:
    """Say who may allocate from which zone now, from /proc/zoneinfo and, if it follows, /proc/buddyinfo.

    Texts of older kernels are read, too. Without a file, both files of this machine are.
    """
    if args.file:
        return _report("zoneinfo", _bytes(args.file), args.json)
    if not Path("/proc/zoneinfo").exists():
        raise UsageError("there is no /proc/zoneinfo here: give a file, or - for standard input")
    data = _bytes("/proc/zoneinfo")
    if Path("/proc/buddyinfo").exists():
        data += _bytes("/proc/buddyinfo")
    return _report("zoneinfo", data, args.json)


def cmd_buddyinfo(args: argparse.Namespace) -> int:
    """Print free blocks by order, with the kernel's fragmentation indices."""
    threshold = args.extfrag_threshold
    setting = Path("/proc/sys/vm/extfrag_threshold")
    if not args.file:
        if not Path("/proc/buddyinfo").exists():
            raise UsageError(
                "there is no /proc/buddyinfo here: give a file, or - for standard input"
            )
        if threshold is None and setting.exists():
            threshold = setting.read_text().strip()
    data = _bytes(args.file or "/proc/buddyinfo")
    if threshold is not None:
        data = f"extfrag_threshold={threshold}\n".encode() + data
    return _report("buddyinfo", data, args.json)


def cmd_maps(args: argparse.Namespace) -> int:
    """Say why a process has its mappings, which would merge with their neighbours, and how many may follow.

    SOURCE is a process, a copy of its maps or smaps, or - for standard input; without it, this process.
    Of a process smaps is read, because it has the flags, too.
    """
    from mmcore.report import live

    data = live.mappings_of(args.source, ("smaps", "maps"))
    if args.max_map_count is not None:
        if args.max_map_count < 0:
            raise UsageError(f"--max-map-count is {args.max_map_count}; it is 0 to 2147483647")
        data = re.sub(rb"\Amax_map_count=\d+\n", b"", data)
        data = f"max_map_count={args.max_map_count}\n".encode() + data
    return _report("maps", data, args.json)


def cmd_smaps(args: argparse.Namespace) -> int:
    """Add up what a process has in memory, by what its mappings are there for.

    SOURCE is a process, a copy of its smaps or smaps_rollup, or - for standard input; without it, this
    process.
    """
    from mmcore.report import live

    return _report("smaps", live.mappings_of(args.source, ("smaps",)), args.json)


def cmd_gfp(args: argparse.Namespace) -> int:
    """Decode gfp masks: numbers, names, or lines of a log that have them.

    The numbers changed between kernels. Where number and names stand together they tell which kernel;
    else Linux 6.12 is assumed, and the others are shown below.
    """
    return _report("gfp", _words(args, kernel=args.kernel), args.json)


def cmd_pte(args: argparse.Namespace) -> int:
    """Decode page table entries, each with or without its level, or the PGD ... PTE line of an oops."""
    data = _words(
        args,
        size=args.size,
        levels=args.levels,
        device_private="yes" if args.device_private else None,
    )
    return _report("pte", data, args.json)


def cmd_pagemap(args: argparse.Namespace) -> int:
    """Say where pages of a process are: PID ADDRESS ..., FILE ADDRESS ..., or the words themselves.

    An address may be a range as maps prints it. A FILE is a copy of /proc/PID/pagemap from its beginning,
    or a text with lines "ADDRESS: WORD". Words alone are read as ``od -A n -t x8`` prints them. Frame
    numbers need root.
    """
    from mmcore.report import live

    words = args.words
    if len(words) > 1 and (live.is_process(words[0]) or Path(words[0]).is_file()):
        args.words = [live.pagemap_of(words[0], words[1:])]
    data = _words(args, device_private="yes" if args.device_private else None)
    return _report("pagemap", data, args.json)


def cmd_kpageflags(args: argparse.Namespace) -> int:
    """Decode words of /proc/kpageflags, such as ``od -A n -t x8`` prints them."""
    return _report("kpageflags", _words(args), args.json)


def cmd_address(args: argparse.Namespace) -> int:
    """Say where in the address space an address lies, and which table entries lead there.

    Exit status 1 if one is not canonical.
    """
    data = _words(
        args,
        levels=args.levels,
        page_offset_base=args.page_offset_base,
        vmalloc_base=args.vmalloc_base,
        vmemmap_base=args.vmemmap_base,
        phys_base=args.phys_base,
    )
    return _report("address", data, args.json)


def cmd_alloc_failure(args: argparse.Namespace) -> int:
    """Explain the memory reports in a kernel log: failed allocations, OOM kills, SysRq-m.

    Any log prefix will do; reports may be wrapped or cut short, and of older kernels.
    """
    return _report("alloc-failure", _bytes(args.file), args.json)


def cmd_oom_report(args: argparse.Namespace) -> int:
    """Explain the OOM killer's reports in a log: who asked, why it could not be had, who died and why.

    Logs of Linux 2.6 to 6.x in any form: dmesg, journalctl (-o json, too), syslog, JSON of container
    platforms; wrapped, cut short, several reports at once. The ranking is recomputed by the rule of the
    report's kernel, and all memory is accounted for. --html prints a page.
    """
    data = _bytes(args.file)
    if not args.html:
        return _report("oom-report", data, args.json)
    from mmcore.report import oom_html, workbench

    result = workbench.examine("oom-report", data)
    if result.error is not None:
        print(f"mmcore oom-report: {result.error}", file=sys.stderr)
    else:
        print(oom_html.page(workbench.text_of(data)))
    return result.status


def cmd_cgroup(args: argparse.Namespace) -> int:
    """Say what the memory settings of a tree of cgroups come to: protection, limits, throttling, events.

    PATH is a cgroup's folder, a recording (``grep -r . /sys/fs/cgroup --include='memory.*'``), a tar
    archive of a tree, or - for standard input; without it, /sys/fs/cgroup. Version 1 is read, too.
    """
    from mmcore.report import cgroup

    path = args.file or "/sys/fs/cgroup"
    if path != "-" and Path(path).is_dir():
        data = cgroup.live_text(path)
    else:
        data = cgroup.file_text(_bytes(path))
    chosen = f"hz={args.hz}\n" if args.hz else ""
    if args.recursiveprot:
        chosen += f"recursiveprot={args.recursiveprot}\n"
        data = data.removeprefix("recursiveprot=yes\n").removeprefix("recursiveprot=no\n")
    return _report("cgroup", chosen + data, args.json)


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


def cmd_oom_score(args: argparse.Namespace) -> int:
    """Recompute /proc/PID/oom_score of this machine, and say whom the OOM killer would choose now.

    Scores follow from resident memory, swap, page tables and oom_score_adj alone; what the kernel
    shows stands beside. --pid P --adj N asks how process P would stand with that adjustment.
    """
    import json

    from mmcore.errors import UsageError
    from mmcore.report import oom_score

    try:
        if (args.pid is None) != (args.adj is None):
            raise UsageError("--pid and --adj go together")
        system = oom_score.read_proc(args.proc)
        rows = oom_score.table(system, {} if args.pid is None else {args.pid: args.adj})
    except UsageError as err:
        print(f"mmcore oom-score: {err}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps({"total_pages": system.totalpages, "rows": oom_score.to_dict(rows)}))
    else:
        print("\n".join(oom_score.lines(system, rows, args.top)))
    return 0


def cmd_vmafuzz(args: argparse.Namespace) -> int:
    """Make random calls that change an address space, on this kernel and on the model, and compare.

    A child process makes them; the same seed makes the same calls. Differences between kernel releases
    are named. Exit status: 0 all equal, 1 a difference, 2 this machine cannot be asked.
    """
    from mmcore.report import vmafuzz

    if not (1 <= args.steps <= 20000 and 8 <= args.pages <= 4096 and 1 <= args.seeds <= 10000):
        raise UsageError("--steps is 1 to 20000, --pages 8 to 4096, --seeds 1 to 10000")
    numbers = ("seed", "seeds", "steps", "pages")
    return vmafuzz.main([f"--{name}={getattr(args, name)}" for name in numbers])


def cmd_version(args: argparse.Namespace) -> int:
    """Print the version."""
    print(f"mmcore {__version__}, a model of Linux 6.12 (stable series, 6.12.117), x86-64")
    return 0


#: Makes a subcommand: name, function, help.
Command = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]


def _add_tools(command: Command) -> None:
    """Add the tools for people's own data."""
    files = (
        ("zoneinfo", cmd_zoneinfo, "say who may allocate from which zone now", "/proc/zoneinfo"),
        ("buddyinfo", cmd_buddyinfo, "free blocks by order and how fragmented", "/proc/buddyinfo"),
        ("cgroup", cmd_cgroup, "limits and protection of a cgroup tree", "/sys/fs/cgroup"),
        ("alloc-failure", cmd_alloc_failure, "explain failures and OOM reports in a log", ""),
        ("oom-report", cmd_oom_report, "say who was killed for want of memory, and why", ""),
    )
    words = (
        ("gfp", cmd_gfp, "decode a gfp mask", "0xcc0, GFP_KERNEL|__GFP_ZERO, a line of a log"),
        ("pte", cmd_pte, "decode a page table entry", "8000000012345867, PMD 80000000126000e7"),
        (
            "pagemap",
            cmd_pagemap,
            "say where a page of a process is",
            "81800000000036d8, or PID ADDRESS",
        ),
        ("kpageflags", cmd_kpageflags, "decode a word of /proc/kpageflags", "400205848"),
        ("address", cmd_address, "decode an address", "ffff888012345678"),
    )
    subs: dict[str, argparse.ArgumentParser] = {}
    for name, run, text, default in files:
        subs[name] = sub = command(name, run, text)
        told = f"file, or - for standard input (default: {default})" if default else "file, or -"
        if default:
            sub.add_argument("file", nargs="?", default="", help=told)
        else:
            sub.add_argument("file", help=told)
    for name, run, text, example in words:
        subs[name] = sub = command(name, run, text)
        sub.add_argument(
            "words", nargs="*", metavar="VALUE", help=f"such as {example}; - reads stdin"
        )
    for name, run, text in (
        ("maps", cmd_maps, "say why a process has so many mappings"),
        ("smaps", cmd_smaps, "add up what a process has in memory"),
    ):
        subs[name] = sub = command(name, run, text)
        sub.add_argument(
            "source",
            nargs="?",
            default="",
            metavar="SOURCE",
            help="PID, file, or - (default: self)",
        )
    for sub in subs.values():
        sub.add_argument("--json", action="store_true", help="print JSON instead")
    subs["cgroup"].add_argument("--hz", metavar="N", help="the kernel's HZ (default: 250)")
    subs["cgroup"].add_argument(
        "--recursiveprot", choices=("yes", "no"), help="mounted with memory_recursiveprot"
    )
    subs["oom-report"].add_argument("--html", action="store_true", help="print a page instead")
    subs["buddyinfo"].add_argument(
        "--extfrag-threshold", metavar="N", help="vm.extfrag_threshold, 0 to 1000 (default: 500)"
    )
    subs["maps"].add_argument(
        "--max-map-count", type=int, metavar="N", help="vm.max_map_count there"
    )
    subs["gfp"].add_argument("--kernel", metavar="X.Y", help="whose numbering, such as 4.19")
    subs["pte"].add_argument("--size", choices=("4k", "2m", "1g"), help="page that entries map")
    for name in ("pte", "address"):
        subs[name].add_argument("--levels", choices=("4", "5"), help="of page tables")
    for name in ("pte", "pagemap"):
        subs[name].add_argument(
            "--device-private", action="store_true", help="the kernel has CONFIG_DEVICE_PRIVATE"
        )
    for base in ("page-offset-base", "vmalloc-base", "vmemmap-base", "phys-base"):
        subs["address"].add_argument(f"--{base}", metavar="HEX", help="where KASLR put it")


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
    _add_tools(command)
    sub = command(
        "oom-score", cmd_oom_score, "rank this machine's processes as the OOM killer does"
    )
    sub.add_argument("--pid", type=int, metavar="P", help="process whose adjustment is assumed")
    sub.add_argument("--adj", type=int, metavar="N", help="oom_score_adj to assume, -1000 to 1000")
    sub.add_argument("--top", type=int, default=15, metavar="N", help="rows (default: 15)")
    sub.add_argument("--proc", default="/proc", metavar="DIR", help="procfs, or a copy of it")
    sub.add_argument("--json", action="store_true", help="print JSON instead")
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
    sub = command("vmafuzz", cmd_vmafuzz, "random mmap() calls on this kernel and on the model")
    sub.add_argument("--seed", type=int, default=1, metavar="N", help="first seed (default: 1)")
    sub.add_argument("--seeds", type=int, default=1, metavar="N", help="how many (default: 1)")
    sub.add_argument(
        "--steps", type=int, default=1000, metavar="N", help="calls per seed (default: 1000)"
    )
    sub.add_argument(
        "--pages", type=int, default=64, metavar="N", help="pages of the window (default: 64)"
    )
    command("version", cmd_version, "print the version")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    args = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name in a log that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
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
