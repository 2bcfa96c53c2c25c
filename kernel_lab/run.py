"""One run: an experiment on a topology, from the archive to the capture."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from kernel_lab import capture, initramfs, programs, qemu
from kernel_lab.experiment import GUEST, Experiment
from kernel_lab.kernel import Kernel
from kernel_lab.needs import LabError, installed
from kernel_lab.topology import TOPOLOGIES, Topology

__all__ = [
    "Failed",
    "Progress",
    "Result",
    "differences",
    "own_modules",
    "programs_needed",
    "run",
    "sources",
    "topology",
]

#: Packages whose versions decide what a capture says, besides the kernel's own.
RECORDED = ("busybox-static", "gcc-12", "gcc", "libc6-dev", "qemu-system-x86")


class Failed(LabError):
    """The guest did not reach the end of its script."""


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run: its capture's text, and the sections whose command failed."""

    text: str
    sections: list[capture.Section]
    seconds: float

    @property
    def failing(self) -> list[str]:
        """Names of the sections whose command did not exit with 0."""
        return [section.name for section in self.sections if section.rc != "0"]


class Progress:
    """One line on a terminal that says what the guest is at; nothing where there is no terminal."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.live = sys.stderr.isatty()

    def __call__(self, seconds: float, stream: bytes) -> None:
        if not self.live:
            return
        started = re.findall(rb"^@@BEGIN (\S+)", stream, re.MULTILINE)
        doing = f"{started[-1].decode()} ({len(started)})" if started else "booting"
        print(f"\r\x1b[K{self.label}: {seconds:4.0f} s  {doing}", end="", file=sys.stderr)
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr)
            sys.stderr.flush()


def topology(name: str) -> Topology:
    """Return a topology by name.

    :raises LabError: if there is none of that name
    """
    if name not in TOPOLOGIES:
        raise LabError(f"no topology {name!r}; there are {', '.join(TOPOLOGIES)}")
    return TOPOLOGIES[name]


def programs_needed(experiments: list[Experiment]) -> list[str]:
    """Return the programs of this machine that some experiments need."""
    needed = [qemu.PROGRAM, "busybox"]
    if any(e.programs for e in experiments):
        needed += ["gcc", "/usr/lib/x86_64-linux-gnu/libc.a"]
    elif any(own_modules(e) for e in experiments):
        needed.append("gcc")
    if any(_uses_layout(name) for e in experiments for name in (*e.programs, *own_modules(e))):
        needed.append("zstd")
    return needed


def own_modules(experiment: Experiment) -> list[str]:
    """Return the modules of an experiment that are this lab's, not the kernel package's."""
    return [name for name in experiment.modules if programs.is_module(name)]


def _uses_layout(program: str) -> bool:
    path = GUEST / f"{program}.c"
    return path.is_file() and '#include "layout.h"' in path.read_text(encoding="utf-8")


def sources(experiment: Experiment) -> dict[str, str]:
    """Return file name -> text of the scripts and programs that an experiment runs."""
    names = ["init.sh", "record.sh"]
    if experiment.programs:
        names += ["guest.h", *(f"{name}.c" for name in experiment.programs)]
    names += [f"{name}.c" for name in own_modules(experiment)]
    texts = {name: (GUEST / name).read_text(encoding="utf-8") for name in names}
    return {**texts, f"{experiment.name}.sh": experiment.script}


def _header(
    experiment: Experiment, name: str, kernel: Kernel, shown: list[str], archive: bytes
) -> dict[str, Any]:
    version = subprocess.run([qemu.PROGRAM, "--version"], capture_output=True, text=True)
    package, package_version = kernel.package
    machine = TOPOLOGIES[name]
    spec: dict[str, Any] = {"memory": machine.memory, "cpus": machine.cpus}
    if machine.nodes:
        spec["nodes"] = [{"memory": n.memory, "cpus": list(n.cpus)} for n in machine.nodes]
        spec["distance"] = [[*pair, d] for pair, d in sorted(machine.distance.items())]
    if machine.append:
        spec["append"] = machine.append
    return {
        "experiment": experiment.name,
        "records": experiment.records,
        "topology": name,
        "topology_spec": spec,
        "kernel_release": kernel.release,
        "packages": {package: package_version, **installed(RECORDED)},
        "qemu": version.stdout.split("\n")[0],
        "qemu_command": shlex.join(shown),
        "kernel_cmdline": shown[-1],
        "initrd_bytes": len(archive),
        "initrd_sha256": hashlib.sha256(archive).hexdigest(),
        "status": "ok",
    }


def run(experiment: Experiment, name: str, kernel: Kernel, cache: Path) -> Result:
    """Boot @kernel on the topology of that name and run an experiment.

    :param cache: where compiled programs are kept, and the console of a guest that failed
    :raises Failed: if the guest died or took too long; its last words are in the text
    """
    machine = topology(name)
    archive = initramfs.build(experiment, kernel, cache / "programs")
    append = qemu.kernel_command_line(machine, experiment.append)
    label = f"{name}/{experiment.name}"
    progress = Progress(label)
    with tempfile.TemporaryDirectory(prefix="kernel-lab-") as temporary:
        folder = Path(temporary)
        (folder / "initramfs.cpio").write_bytes(archive)
        words = qemu.command(machine, str(kernel.image), append, f"{folder}/")
        outcome = qemu.run(words, folder, experiment.timeout, progress)
        progress.clear()
        if outcome.status != "ok":
            kept = cache / "failed" / f"{name}-{experiment.name}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("*.cpio"))
            why = "took too long" if outcome.status == "timeout" else "ended before its script did"
            tail = "\n".join([*outcome.console.split("\n")[-15:], outcome.errors]).strip()
            raise Failed(f"{label}: the guest {why}; what it wrote is in {kept}/\n{tail}")
    shown = qemu.command(machine, kernel.image.name, append)
    head = _header(experiment, name, kernel, shown, archive)
    found = capture.sections(outcome.stream)
    timing = {"seconds": round(outcome.seconds, 1)}
    text = capture.render(head, timing, found, sources(experiment))
    return Result(text, found, outcome.seconds)


def _sections(text: str) -> dict[str, list[str]]:
    """Return name -> lines of the sections and sources of a capture."""
    parts = re.split(r"^=== ", text, flags=re.MULTILINE)[1:]
    return {part.partition(" | ")[0]: part.rstrip("\n").split("\n") for part in parts}


def _section_difference(name: str, old: list[str] | None, new: list[str] | None) -> str:
    """Return in words how a section differs: how many lines, and the first of them."""
    if old is None or new is None:
        return f"section {name}: only {'now' if old is None else 'when recorded'}"
    pairs = list(zip_longest(old, new, fillvalue="(no line)"))
    where = [number for number, (a, b) in enumerate(pairs) if a != b]
    a, b = pairs[where[0]]
    return (
        f"section {name}: {len(where)} of {len(pairs)} lines differ; the first, line {where[0]}:\n"
        f"    recorded  {a[:160]}\n    now       {b[:160]}"
    )


def differences(recorded: str, again: str) -> list[str]:
    """Return in words how a second capture differs from a recorded one; nothing if it does not.

    First what explains the rest, the packages, then other lines of the header, then sections.
    """
    if capture.without_timing(recorded) == capture.without_timing(again):
        return []
    old, new = capture.header(recorded), capture.header(again)
    out: list[str] = []
    packages = [dict(h.get("packages", {})) for h in (old, new)]
    for package in sorted(packages[0].keys() | packages[1].keys()):
        versions = [p.get(package, "none") for p in packages]
        if versions[0] != versions[1]:
            out.append(f"package {package}: {versions[0]} when recorded, {versions[1]} now")
    for key in {**old, **new}:
        if key not in ("packages", capture.TIMING) and old.get(key) != new.get(key):
            out.append(f"header {key}: {old.get(key)!r} when recorded, {new.get(key)!r} now")
    before, now = _sections(recorded), _sections(again)
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            out.append(_section_difference(name, before.get(name), now.get(name)))
    return out
