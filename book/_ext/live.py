"""Put Python into the built book, so that its figures, cells and tools run in the reader's browser.

Into ``_static/live/`` go: Pyodide (from the npm package, pinned), the engine's own wheel (made here, from the tree as
it is), the captures, and the page's scripts. Every folder's name carries a digest of what is in it, so a browser may
keep it for ever. A page loads only the small scripts; the rest is fetched when the reader asks for it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import web_packages

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "book" / "_live"
CAPTURES = ROOT / "book" / "captures"
#: Modules that a page cannot use: they need numpy, matplotlib or a notebook.
NOT_IN_PAGES = {"mmcore/viz/charts.py", "mmcore/viz/widgets.py"}
#: Date of the files in archives that are made here: the same tree gives the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)


def engine_files(root: Path) -> list[Path]:
    """Return the engine's files that go into the wheel."""
    found = [
        *(root / "mmcore").rglob("*.py"),
        root / "mmcore" / "py.typed",
        *(root / "mmcore" / "viz" / "static").glob("*.*"),
    ]
    return sorted(f for f in found if f.relative_to(root).as_posix() not in NOT_IN_PAGES)


def wheel(root: Path) -> bytes:
    """Return the engine as a wheel. It is pure Python, so a wheel is a zip file with three files of metadata."""
    version = re.search(
        r'^__version__ = "([^"]+)"', (root / "mmcore" / "__init__.py").read_text(), re.M
    )
    assert version is not None
    info = f"mmcore-{version.group(1)}.dist-info"
    files = {f.relative_to(root).as_posix(): f.read_bytes() for f in engine_files(root)}
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: mmcore\nVersion: {version.group(1)}\nLicense: GPL-2.0-only\nRequires-Python: >=3.11\n"
    ).encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: book\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return out.getvalue()


def digest(files: dict[str, bytes]) -> str:
    """Return a short name for what @files hold."""
    h = hashlib.sha256()
    for name, data in sorted(files.items()):
        h.update(f"{name}\0{len(data)}\0".encode() + data)
    return h.hexdigest()[:12]


def _compressed(file: Path) -> bytes:
    """Return @file compressed; it takes a second or two, so what was made once is kept in ``_build/``."""
    data = file.read_bytes()
    kept = ROOT / "_build" / ".live" / f"{hashlib.sha256(data).hexdigest()[:16]}.gz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_bytes(gzip.compress(data, 9, mtime=0))
        part.replace(kept)
    return kept.read_bytes()


def pyodide_files(package: Path) -> dict[str, bytes]:
    """Return the files of Pyodide that a page needs, under names that every host serves with the right type."""
    return {
        "pyodide.js": (package / "pyodide.mjs").read_bytes().partition(b"//# sourceMappingURL")[0],
        "pyodide.asm.js": (package / "pyodide.asm.mjs").read_bytes(),
        "pyodide.asm.wasm.gz": _compressed(package / "pyodide.asm.wasm"),
        "python_stdlib.zip": (package / "python_stdlib.zip").read_bytes(),
    }


def capture_files(folder: Path) -> dict[str, bytes]:
    """Return the book's captures, compressed, by the path under which a page asks for them."""
    found = {}
    for file in sorted(folder.rglob("*.txt*")):
        data = file.read_bytes()
        name = file.relative_to(folder).as_posix()
        if not name.endswith(".gz"):
            name, data = f"{name}.gz", gzip.compress(data, 9, mtime=0)
        found[name] = data
    return found


def places(live: dict[str, Any]) -> bytes:
    """Return the script that tells the others where everything is, relative to themselves."""
    return f"export default {json.dumps(live, indent=1)};\n".encode()


def contents(root: Path, package: Path) -> tuple[dict[str, dict[str, bytes]], str]:
    """Return the files of ``_static/live/`` by folder, and the name of the folder with the scripts."""
    runtime = pyodide_files(package)
    version = json.loads((package / "package.json").read_text())["version"]
    lock = json.loads((package / "pyodide-lock.json").read_text())
    engine = wheel(root)
    captures = capture_files(CAPTURES)
    folders = {
        f"pyodide-{version}-{digest(runtime)}": runtime,
        f"captures-{digest(captures)}": captures,
    }
    runtime_name, captures_name = folders
    engine_name = f"engine-{digest({'wheel': engine})}"
    folders[engine_name] = {"mmcore-py3-none-any.whl": engine}
    fetched = len(engine) + sum(
        len(runtime[n]) for n in ("pyodide.asm.js", "pyodide.asm.wasm.gz", "python_stdlib.zip")
    )
    scripts = {f.name: f.read_bytes() for f in sorted(SCRIPTS.glob("*.*s"))}
    scripts["places.js"] = places(
        {
            "pyodide": f"../{runtime_name}/",
            "engine": f"../{engine_name}/mmcore-py3-none-any.whl",
            "captureBase": f"../{captures_name}/",
            "captures": sorted(captures),
            "bytes": fetched,
            "glueBytes": len(runtime["pyodide.asm.js"]),
            "lock": {"info": lock["info"], "packages": {}},
        }
    )
    page = f"page-{digest(scripts)}"
    folders[page] = scripts
    return folders, page


def prepare(app: Sphinx, config: Config) -> None:
    """Make what is written later, and let every page be written again where its scripts have another name.

    Without Pyodide the book is built without its live parts, which CI refuses.
    """
    why = web_packages.install()
    if why is not None:
        if os.environ.get("CI"):
            raise ExtensionError(f"the live figures need the npm package pyodide: {why}")
        logger.info(f"The book is built without its live figures: {why}")
        return
    app.live_folders, page = contents(ROOT, web_packages.PYODIDE)  # type: ignore[attr-defined]
    config["live_page"] = page
    app.add_css_file(f"live/{page}/live.css")
    app.add_js_file(f"live/{page}/why.js", loading_method="defer")
    app.add_js_file(f"live/{page}/main.js", type="module")


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write ``_static/live/`` after everything else, and nothing that is there already."""
    folders = getattr(app, "live_folders", None)
    if exception is not None or folders is None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "live"
    for old in target.glob("*"):
        if old.name not in folders:
            shutil.rmtree(old)
    for folder, files in folders.items():
        for name, data in files.items():
            file = target / folder / name
            if not file.exists() or file.stat().st_size != len(data):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("live_page", "", "html")
    app.connect("config-inited", prepare)
    app.connect("build-finished", write, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
