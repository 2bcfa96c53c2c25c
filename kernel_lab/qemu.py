"""QEMU: its command line for a topology, and one run of it.

Three things make a run repeat bit for bit. The guest's clock is the number of instructions it has
executed (``-icount shift=0,sleep=off``), so an interrupt comes after the same instruction each time.
Nothing random differs: ``-seed``, ``nokaslr``, ``norandmaps``, a fixed date. And results leave through
a second serial port, which needs no answer from QEMU's own threads as a virtio device would.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kernel_lab.topology import Topology, megabytes

__all__ = ["PROGRAM", "Outcome", "command", "kernel_command_line", "run"]

PROGRAM = "qemu-system-x86_64"
BASE = (
    "-nodefaults -no-user-config -no-reboot -display none -machine pc -accel tcg,thread=single "
    "-cpu max,-la57,-pku -seed 1 -rtc base=2026-01-01T00:00:00,clock=vm -icount shift=0,sleep=off"
).split()
KERNEL = (
    "console=ttyS0 loglevel=4 panic=-1 nokaslr norandmaps mitigations=off tsc=reliable "
    "random.trust_cpu=on rdinit=/init"
)


@dataclass(slots=True)
class Outcome:
    """How a run ended.

    :ivar status: "ok", "timeout", or "died" if the guest stopped before its script's end
    :ivar stream: what it wrote to the result port
    """

    status: str
    stream: bytes
    console: str
    errors: str
    seconds: float


def kernel_command_line(topology: Topology, append: str = "") -> str:
    """Return the kernel's command line for a topology and what an experiment adds to it."""
    return " ".join(part for part in (KERNEL, topology.append, append) if part)


def _numa(topology: Topology) -> list[str]:
    words: list[str] = []
    for number, node in enumerate(topology.nodes):
        text = f"node,nodeid={number}" + "".join(f",cpus={cpu}" for cpu in node.cpus)
        if megabytes(node.memory):
            words += ["-object", f"memory-backend-ram,id=m{number},size={node.memory}"]
            text += f",memdev=m{number}"
        words += ["-numa", text]
    for (a, b), distance in sorted(topology.distance.items()):
        words += ["-numa", f"dist,src={a},dst={b},val={distance}"]
    return words


def command(topology: Topology, kernel: str, append: str, folder: str = "") -> list[str]:
    """Return QEMU's command line.

    :param kernel: the kernel image
    :param append: the kernel's command line
    :param folder: where its files are, with a slash at the end; "" for the form that captures show
    """
    return [
        PROGRAM,
        *BASE,
        *("-smp", str(topology.cpus), "-m", f"{megabytes(topology.memory)}M"),
        *_numa(topology),
        *("-chardev", f"file,id=console,path={folder}console.txt", "-serial", "chardev:console"),
        *("-chardev", f"file,id=results,path={folder}results.txt", "-serial", "chardev:results"),
        *("-kernel", kernel, "-initrd", f"{folder}initramfs.cpio", "-append", append),
    ]


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def run(
    words: list[str], folder: Path, timeout: float, progress: Callable[[float, bytes], None]
) -> Outcome:
    """Run QEMU until it ends or @timeout seconds have passed, and then stop it.

    :param folder: where it writes ``console.txt`` and ``results.txt``
    :param progress: called several times a second with the time and the results so far
    """
    start = time.monotonic()
    timed_out = False
    with open(folder / "errors.txt", "wb") as errors:
        # Ctrl-C must not come between the start of the guest and the block that stops it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stderr=errors,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
        )
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            while process.poll() is None:
                seconds = time.monotonic() - start
                if seconds > timeout:
                    timed_out = True
                    break
                progress(seconds, _read(folder / "results.txt"))
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    stream = _read(folder / "results.txt")
    finished = stream.rstrip().endswith(b"@@DONE")
    return Outcome(
        "timeout" if timed_out else "ok" if finished else "died",
        stream,
        _read(folder / "console.txt").decode("utf-8", "replace"),
        _read(folder / "errors.txt").decode("utf-8", "replace"),
        time.monotonic() - start,
    )
