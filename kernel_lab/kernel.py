"""The reference kernel: fetched by apt without being installed, and found again."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kernel_lab.needs import LabError

__all__ = ["FLAVOURS", "Kernel", "fetch", "find", "modules", "newest"]

#: Debian's builds for x86-64, by the end of their release: for cloud machines, small, and for all.
FLAVOURS = {"cloud": "cloud-amd64", "full": "amd64"}
DEPENDS_RE = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel package.

    :ivar root: the folder it was unpacked into
    :ivar release: such as "6.12.117+deb12-cloud-amd64"
    """

    root: Path
    release: str

    @property
    def image(self) -> Path:
        """The compressed image that QEMU boots."""
        return self.root / "boot" / f"vmlinuz-{self.release}"

    @property
    def package(self) -> tuple[str, str]:
        """Name and version of the package, the version from its change log ("?" if that is gone)."""
        for name in (f"linux-image-{self.release}-unsigned", f"linux-image-{self.release}"):
            log = self.root / "usr/share/doc" / name / "changelog.Debian.gz"
            if log.exists():
                first = gzip.decompress(log.read_bytes()).decode("utf-8", "replace").split("\n")[0]
                match = re.search(r"\(([^)]+)\)", first)
                return name, match[1] if match else "?"
        return f"linux-image-{self.release}-unsigned", "?"


def _release_key(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def newest(names: str, flavour: str = "cloud", release: str = "") -> str:
    """Return the newest 6.12 image of a flavour among package names, one a line.

    :param release: the one wanted, if it is among them
    :raises LabError: if there is none
    """
    if release and f"linux-image-{release}-unsigned" in names.split():
        return f"linux-image-{release}-unsigned"
    image = re.compile(rf"linux-image-6\.12\.\d+\+deb\d+-{FLAVOURS[flavour]}-unsigned")
    found = [line for line in names.split() if image.fullmatch(line)]
    if not found:
        raise LabError(
            f"apt offers no linux-image-6.12.*-{FLAVOURS[flavour]}-unsigned: is Debian 12 with its "
            "backports, or Debian 13, in the apt sources, and has `apt-get update` run?"
        )
    return max(found, key=_release_key)


def find(root: Path, flavour: str = "cloud", release: str = "") -> Kernel:
    """Return the newest kernel of a flavour unpacked under @root.

    :param release: the one wanted, if it is among them
    :raises LabError: if there is none
    """
    releases = [path.name.removeprefix("vmlinuz-") for path in root.glob("boot/vmlinuz-*")]
    wanted = re.compile(rf"[\d.]+\+deb\d+-{FLAVOURS[flavour]}")
    found = [name for name in releases if wanted.fullmatch(name)]
    if not found:
        option = "" if flavour == "cloud" else f" {flavour}"
        raise LabError(
            f"no boot/vmlinuz-*-{FLAVOURS[flavour]} under {root}: "
            f"`python -m kernel_lab fetch{option}` gets one"
        )
    return Kernel(root, release if release in found else max(found, key=_release_key))


def fetch(root: Path, flavour: str = "cloud", release: str = "") -> Kernel:
    """Download the newest 6.12 kernel of a flavour and unpack it under @root; nothing is installed.

    :param release: the one wanted, if apt still offers it
    :raises LabError: if apt does not offer or deliver it
    """
    names = subprocess.run(
        ["apt-cache", "pkgnames", "linux-image-6.12"], capture_output=True, text=True, check=False
    )
    package = newest(names.stdout, flavour, release)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kernel-lab-") as folder:
        # As root, apt downloads as the user _apt, who must be able to write here.
        os.chmod(folder, 0o777)
        done = subprocess.run(
            ["apt-get", "download", package],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        debs = sorted(Path(folder).glob("*.deb"))
        if done.returncode or not debs:
            raise LabError(f"apt-get download {package} failed:\n{done.stderr.strip()}")
        subprocess.run(["dpkg", "-x", str(debs[0]), str(root)], check=True)
    return find(root, flavour, release)


def modules(kernel: Kernel, names: list[str]) -> list[tuple[str, bytes]]:
    """Return (name, contents) of some modules and of what they depend on, in the order to load.

    A name that is no module of this kernel is taken to be built in.
    """
    base = kernel.root / "lib/modules" / kernel.release
    index = {path.name.split(".ko")[0].replace("-", "_"): path for path in base.rglob("*.ko*")}
    order: dict[str, bytes] = {}
    seen: list[str] = []

    def add(name: str) -> None:
        name = name.replace("-", "_")
        if name in seen or name not in index:
            return
        seen.append(name)
        data = index[name].read_bytes()
        if index[name].suffix == ".xz":
            data = lzma.decompress(data)
        match = DEPENDS_RE.search(data)
        for dependency in match[1].decode().split(",") if match else []:
            add(dependency)
        order[name] = data

    for name in names:
        add(name)
    return list(order.items())
