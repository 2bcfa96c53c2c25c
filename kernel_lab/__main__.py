"""The command line of the kernel lab."""

from __future__ import annotations

import argparse
import gzip
import signal
import sys
from pathlib import Path

from kernel_lab import capture, experiment, here, kernel, run
from kernel_lab.needs import LabError, require
from kernel_lab.topology import TOPOLOGIES

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "_build" / "kernel-lab"


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m kernel_lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="experiments and topologies")
    fetcher = commands.add_parser(
        "fetch", help="download and unpack the newest 6.12 kernel (not installed)"
    )
    fetcher.add_argument("flavour", nargs="?", choices=kernel.FLAVOURS, default="cloud")
    runner = commands.add_parser("run", help="record captures")
    runner.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="default: all of them")
    runner.add_argument("--topology", action="append", metavar="NAME", help="may be repeated")
    runner.add_argument("--out", type=Path, default=ROOT / "_build" / "captures", metavar="DIR")
    runner.add_argument("--show", action="store_true", help="print the sections too")
    runner.add_argument(
        "--here", action="store_true", help="on this machine's own kernel, where that does no harm"
    )
    checker = commands.add_parser("check", help="record captures again; say what differs")
    checker.add_argument("captures", nargs="+", type=Path, metavar="FILE")
    for command in (runner, checker):
        command.add_argument(
            "--kernel", type=Path, metavar="DIR", help="an unpacked kernel package"
        )
    return parser


def list_all() -> None:
    """Print experiments and topologies."""
    print("experiments")
    for name in experiment.available():
        one = experiment.load(name)
        print(f"  {name:20} {one.records}")
        print(f"  {'':20} on {', '.join(one.topologies)}")
    print("\ntopologies")
    for name, machine in TOPOLOGIES.items():
        again = "" if machine.repeatable else " (not the same bytes each time)"
        print(f"  {name:20} {machine.about}{again}")


def get_kernel(root: Path | None, flavour: str, release: str = "") -> kernel.Kernel:
    """Return the kernel under @root, or the one in the cache, fetched if it is not there yet.

    :param release: the one that a capture was made with, wanted if it can still be had
    """
    if root is not None:
        return kernel.find(root, flavour, release)
    try:
        found = kernel.find(CACHE / "kernel", flavour, release)
        if release in ("", found.release):
            return found
    except LabError:
        pass
    return fetch(flavour, release)


def fetch(flavour: str, release: str = "") -> kernel.Kernel:
    """Download a kernel into the cache."""
    require(["apt-get", "dpkg"])
    size = "34" if flavour == "cloud" else "107"
    print(f"fetching the {flavour} kernel by apt ({size} MB, not installed)", file=sys.stderr)
    return kernel.fetch(CACHE / "kernel", flavour, release)


def run_here(options: argparse.Namespace) -> int:
    """Record captures of the kernel that runs now."""
    loaded = [experiment.load(name) for name in options.experiments or experiment.available()]
    chosen = [one for one in loaded if one.here or options.experiments]
    require(here.NEEDED)
    for one in chosen:
        path = options.out / here.TOPOLOGY / f"{one.name}.txt"
        capture.write(path, here.run(one, CACHE / "programs", run.sources(one)))
        print(path)
    return 0


def run_all(options: argparse.Namespace) -> int:
    """Record captures; returns the number of guests that failed."""
    if options.here:
        return run_here(options)
    chosen = [experiment.load(name) for name in options.experiments or experiment.available()]
    pairs = [(e, name) for e in chosen for name in options.topology or e.topologies]
    for _, name in pairs:
        run.topology(name)
    require(run.programs_needed(chosen))
    images = {one.kernel: get_kernel(options.kernel, one.kernel) for one in chosen}
    failures = 0
    for number, (one, name) in enumerate(pairs, 1):
        path = options.out / name / f"{one.name}.txt"
        try:
            result = run.run(one, name, images[one.kernel], CACHE)
        except run.Failed as error:
            failures += 1
            print(error, file=sys.stderr)
            continue
        capture.write(path, result.text)
        if options.show:
            for section in result.sections:
                print(f"=== {section.name} | {section.command} | rc={section.rc}\n{section.text}\n")
        bad = f"; not 0: {', '.join(result.failing)}" if result.failing else ""
        print(
            f"[{number}/{len(pairs)}] {path}: {len(result.sections)} sections, "
            f"{result.seconds:.0f} s{bad}"
        )
    if failures:
        print(f"{failures} of {len(pairs)} failed; nothing was written for them", file=sys.stderr)
    return failures


def _nearest(text: str) -> str:
    """Return how to record here what another harness recorded, "" if this lab cannot."""
    head = capture.header(text)
    name, machine = str(head.get("experiment", "")), str(head.get("topology", ""))
    if name not in experiment.available() or machine not in TOPOLOGIES:
        return ""
    return f"\nTo record it here: python -m kernel_lab run {name} --topology {machine}"


def check_all(options: argparse.Namespace) -> int:
    """Record some captures again; returns how many are not the same."""
    texts: dict[Path, str] = {}
    for path in options.captures:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        texts[path] = data.decode("utf-8")
        if "\n=== SOURCE record.sh |" not in texts[path]:
            raise LabError(
                f"{path}: recorded by another harness, whose guest is another file system; its own "
                f"sources stand in it.{_nearest(texts[path])}"
            )
    heads = {path: capture.header(text) for path, text in texts.items()}
    chosen = {path: experiment.load(head.get("experiment", "")) for path, head in heads.items()}
    require(run.programs_needed(list(chosen.values())))
    different = 0
    for path, text in texts.items():
        name = heads[path].get("topology", "")
        release = str(heads[path].get("kernel_release", ""))
        image = get_kernel(options.kernel, chosen[path].kernel, release)
        result = run.run(chosen[path], name, image, CACHE)
        lines = run.differences(text, result.text)
        note = "" if run.topology(name).repeatable else " (several CPUs: not expected to be equal)"
        print(f"{path}: {'differs' + note if lines else 'the same, byte for byte'}")
        for line in lines:
            print(f"  {line}")
        different += bool(lines)
    return different


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = arguments().parse_args(argv)
    try:
        if options.command == "list":
            list_all()
            return 0
        if options.command == "fetch":
            found = fetch(options.flavour)
            print(f"{found.image}: {' '.join(found.package)}")
            return 0
        return 1 if (run_all if options.command == "run" else check_all)(options) else 0
    except (LabError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; no capture was left unfinished", file=sys.stderr)
        return 130


def interrupted(number: int, frame: object) -> None:
    """End as Ctrl-C does, so that no guest is left running."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, interrupted)
    sys.exit(main())
