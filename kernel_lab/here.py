"""An experiment on the kernel that runs now, without QEMU, for those that say they do no harm.

The script and `record.sh` are those of the guest; their programs are compiled once and found in PATH.
What the guest gets from its kernel command line, fixed addresses, `setarch -R` gives to one process.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

from kernel_lab import capture, programs
from kernel_lab.experiment import GUEST, Experiment
from kernel_lab.needs import LabError, installed

__all__ = ["NEEDED", "TOPOLOGY", "run"]

#: Under which name such captures are kept.
TOPOLOGY = "here"
NEEDED = ["gcc", "/usr/lib/x86_64-linux-gnu/libc.a", "setarch"]


def _script(experiment: Experiment, folder: Path) -> str:
    """Return what the shell runs: the experiment with its results on descriptor 3, as in a guest."""
    return (
        f"PATH={folder}:$PATH\nexec 3>{folder}/results.txt\n. {GUEST}/record.sh\n"
        f"record uname uname -a\n{experiment.script}\necho @@DONE >&3\n"
    )


def run(experiment: Experiment, cache: Path, sources: dict[str, str]) -> str:
    """Run an experiment on this machine's own kernel and return its capture.

    :param cache: where compiled programs are kept
    :param sources: what the capture shows of what ran
    :raises LabError: if the experiment is not made for that, fails or takes too long
    """
    if not experiment.here:
        raise LabError(f"{experiment.name} is only for a guest: its head has no line '# here: yes'")
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kernel-lab-") as temporary:
        folder = Path(temporary)
        for name in experiment.programs:
            path = folder / name
            path.write_bytes(programs.build(name, None, cache))
            path.chmod(0o755)
        (folder / "script.sh").write_text(_script(experiment, folder), encoding="utf-8")
        try:
            done = subprocess.run(
                ["setarch", "-R", "sh", str(folder / "script.sh")],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=experiment.timeout,
                check=False,
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"{experiment.name} took longer than {experiment.timeout} s") from None
        results = folder / "results.txt"
        stream = results.read_bytes() if results.exists() else b""
        if not stream.rstrip().endswith(b"@@DONE"):
            raise LabError(f"{experiment.name} did not reach its end\n{done.stderr.strip()}")
    packages = installed(("gcc-12", "gcc", "libc6-dev"))
    head = {
        "experiment": experiment.name,
        "records": experiment.records,
        "topology": TOPOLOGY,
        "kernel_release": platform.release(),
        "packages": packages,
        "status": "ok",
    }
    timing = {"seconds": round(time.monotonic() - start, 1)}
    return capture.render(head, timing, capture.sections(stream), sources)
