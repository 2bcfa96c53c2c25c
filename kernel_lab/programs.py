"""Guest programs and modules: small C, programs linked statically, compiled once per content."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from kernel_lab import btf
from kernel_lab.experiment import GUEST
from kernel_lab.kernel import Kernel
from kernel_lab.needs import LabError

__all__ = ["build", "build_module", "is_module", "layout"]

WARNINGS = ("-Wall", "-Wextra", "-Werror")
FLAGS = ("-O1", "-static", *WARNINGS, "-I.", "-s", "-o", "program")
#: A kernel module is one object file. With frame pointers the kernel finds its callers without tables.
MODULE_FLAGS = (
    *("-O1", "-c", *WARNINGS, "-I.", "-ffreestanding", "-fno-pic", "-fno-omit-frame-pointer"),
    *("-mcmodel=kernel", "-mno-red-zone", "-mgeneral-regs-only", "-fcf-protection=none"),
    *("-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-o", "program"),
)


def layout(kernel: Kernel, cache: Path) -> str:
    """Return the structure layouts of a kernel as a C header, from @cache if it was made before."""
    image = hashlib.sha256(kernel.image.read_bytes() + Path(btf.__file__).read_bytes())
    path = cache / f"layout-{image.hexdigest()[:16]}.h"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(btf.header(btf.Btf(btf.vmlinux(kernel.image))), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def is_module(name: str) -> bool:
    """Return whether a module is one of this lab's own: its source names the module's structure."""
    path = GUEST / f"{name}.c"
    return path.is_file() and "__this_module" in path.read_text(encoding="utf-8")


def build(name: str, kernel: Kernel | None, cache: Path) -> bytes:
    """Return a static executable made from ``guest/NAME.c``.

    It is compiled in a folder of its own under fixed names, so that no path of this machine gets
    into it.

    :param kernel: the kernel whose structures it reads; None where it reads none
    :raises LabError: if there is no such program, or it does not compile
    """
    return _compiled(name, kernel, cache, FLAGS)


def build_module(name: str, kernel: Kernel, cache: Path) -> bytes:
    """Return a kernel module made from ``guest/NAME.c``, likewise.

    :raises LabError: if it does not compile
    """
    return _compiled(name, kernel, cache, MODULE_FLAGS)


def _compiled(name: str, kernel: Kernel | None, cache: Path, flags: tuple[str, ...]) -> bytes:
    source = GUEST / f"{name}.c"
    if not source.is_file():
        raise LabError(f"no guest program {name!r} (kernel_lab/guest/{name}.c)")
    text = source.read_text(encoding="utf-8")
    files = {"program.c": text, "guest.h": (GUEST / "guest.h").read_text(encoding="utf-8")}
    if '#include "layout.h"' in text:
        if kernel is None:
            raise LabError(f"{name} reads structures of one kernel image")
        files["layout.h"] = layout(kernel, cache)
    compiler = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True)
    key = hashlib.sha256("\0".join([compiler.stdout, *flags, *files.values()]).encode())
    path = cache / f"{name}-{key.hexdigest()[:16]}"
    if not path.exists():
        with tempfile.TemporaryDirectory(prefix="kernel-lab-") as folder:
            for file, contents in files.items():
                (Path(folder) / file).write_text(contents, encoding="utf-8")
            done = subprocess.run(
                ["gcc", *flags, "program.c"],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise LabError(f"guest/{name}.c does not compile:\n{done.stderr}")
            cache.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(folder) / "program", path)
    return path.read_bytes()
