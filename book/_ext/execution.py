"""Execute chapters, a few at a time, into a cache that notices when the engine changes.

Jupyter's cache compares the code cells of a chapter with those it has executed before. It does not see that a
module the cells import has changed, and hands out old outputs without a word. Here the cache's folder is named
by a digest of everything the cells depend on besides themselves: the engine, the captures, the pinned
packages and the Python version. When any of these changes, every chapter is read and executed again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util import logging

logger = logging.getLogger(__name__)

#: What a chapter's outputs depend on besides the chapter.
INPUTS = ("mmcore", "book/captures", "tests/captures", "requirements.txt")
#: How many caches of earlier engines to keep, so that going back to one is quick.
KEEP = 4
#: A chapter that takes longer than this many seconds to execute is reported.
BUDGET = 60.0


def input_files(root: Path) -> list[Path]:
    """Return the files under @root that the chapters' outputs depend on, in a fixed order."""
    found: list[Path] = []
    for name in INPUTS:
        path = root / name
        if path.is_file():
            found.append(path)
        found += (f for f in path.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return sorted(found)


def digest(root: Path) -> str:
    """Return the name of the state that the engine, the captures and the pinned packages are in."""
    h = hashlib.sha256(f"python {sys.version_info[0]}.{sys.version_info[1]}".encode())
    for file in input_files(root):
        h.update(f"\0{file.relative_to(root).as_posix()}\0".encode())
        h.update(file.read_bytes())
    return h.hexdigest()[:16]


def prepare_environment(root: Path) -> None:
    """Set what the chapters' kernels inherit: this tree's engine, the book's output, nobody's own start-up files."""
    path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{root}{os.pathsep}{path}" if path else str(root)
    os.environ["MMCORE_BOOK"] = "1"
    os.environ["PYTHONHASHSEED"] = "0"
    os.environ["IPYTHONDIR"] = str(root / "_build" / ".ipython")
    profile = root / "_build" / ".ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    # The kernels talk over this machine's loopback; their remark about it is noise in a build.
    (profile / "ipython_kernel_config.py").write_text(
        "c = get_config()\nc.IPKernelApp.log_level = 40\n"
    )
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"


def configure(app: Sphinx, config: Config) -> None:
    """Name the cache after the digest, before MyST-NB reads its configuration."""
    root = Path(app.srcdir)
    state = digest(root)
    caches = root / "_build" / ".jupyter_cache"
    # A draft's outputs may hold errors: they must never be taken for the book's.
    cache = caches / (f"draft-{state}" if config["nb_execution_allow_errors"] else state)
    cache.mkdir(parents=True, exist_ok=True)
    os.utime(cache)
    old = sorted((d for d in caches.iterdir() if d.is_dir()), key=lambda d: d.stat().st_mtime)
    for folder in old[:-KEEP]:
        shutil.rmtree(folder, ignore_errors=True)
    config["nb_execution_cache_path"] = str(cache)
    config["book_state"] = state
    prepare_environment(root)


def _execute(notebook: Any, cwd: str, timeout: int, allow_errors: bool) -> Any:
    """Run one notebook, with one more try where its kernel did not come up in time."""
    from jupyter_cache.executors.utils import single_nb_execution

    for last in (False, True):
        try:
            return single_nb_execution(
                notebook, cwd=cwd, timeout=timeout, allow_errors=allow_errors
            )
        except RuntimeError:  # the kernel died or did not answer
            if last:
                raise
    raise AssertionError("not reached")


def cell_error(result: Any) -> str:
    """Return what a reader of the build's log needs of a failed execution: the cell and its error."""
    from nbclient.client import CellExecutionError

    if isinstance(result.err, CellExecutionError):
        return re.sub(r"\x1b\[[0-9;]*m", "", str(result.err))
    return str(result.exc_string)


#: The chapters' texts as they were executed: an editor may save a page while the build runs.
_texts: dict[str, str] = {}


def same_text(app: Sphinx, docname: str, source: list[str]) -> None:
    """Let Sphinx read the text that was executed."""
    source[0] = _texts.get(docname, source[0])


def keep_executed(app: Sphinx, docname: str, notebook: Any) -> None:
    """Write an executed chapter beside the pages, for the check that nothing was lost on the way."""
    import nbformat

    target = Path(app.outdir).parent / "executed" / f"{docname}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.from_dict(notebook), target)


def execute(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Execute those of @docnames that are notebooks and not in the cache, before anything is read."""
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn
    from myst_nb.core.read import create_nb_reader

    cache = get_cache(app.config.nb_execution_cache_path)
    todo = []
    for docname in sorted(docnames):
        path = env.doc2path(docname)
        text = Path(path).read_text(encoding="utf-8")
        reader = create_nb_reader(path, env.myst_config, env.mystnb_config, text)
        if reader is None:
            continue
        notebook = reader.read(text)
        _texts[docname] = text
        if not any(cell.cell_type == "code" for cell in notebook.cells):
            continue
        try:
            cache.match_cache_notebook(notebook)
        except KeyError:
            todo.append((docname, path, notebook, reader.read_fmt))
        else:
            keep_executed(app, docname, cache.merge_match_into_notebook(notebook)[1])
    if not todo:
        return
    jobs = max(1, min(len(todo), os.cpu_count() or 1, 8))
    logger.info(f"executing {len(todo)} chapter(s), {jobs} at a time ...")
    start = time.monotonic()
    failed: list[str] = []
    with ThreadPoolExecutor(jobs) as pool:
        running: dict[Future[Any], tuple[str, str, Any]] = {}
        for docname, path, notebook, fmt in todo:
            future = pool.submit(
                _execute,
                notebook,
                str(Path(path).parent),
                app.config.nb_execution_timeout,
                app.config.nb_execution_allow_errors,
            )
            running[future] = (docname, path, fmt)
        for done, future in enumerate(as_completed(running), 1):
            docname, path, fmt = running[future]
            result = future.result()
            progress = f"[{done}/{len(todo)}] {docname}: {result.time:.1f} s"
            if result.err is not None:
                logger.info(f"{progress}, FAILED")
                failed.append(f"{docname}: {cell_error(result)}")
                continue
            logger.info(progress)
            if result.time > BUDGET:
                logger.info(f"  {docname} takes longer than its {BUDGET:.0f} s")
            keep_executed(app, docname, result.nb)
            record = cache.add_nb_to_project(path, **({"read_data": fmt} if fmt else {}))
            cache.cache_notebook_bundle(
                CacheBundleIn(result.nb, record.uri, data={"execution_seconds": result.time}),
                check_validity=False,
                overwrite=True,
            )
    logger.info(f"executed in {time.monotonic() - start:.1f} s")
    if failed:
        raise ExtensionError("a cell failed in\n" + "\n".join(failed))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("book_state", "", "env")  # another digest: read every page again
    app.connect("config-inited", configure, priority=400)
    app.connect("env-before-read-docs", execute, priority=900)
    app.connect("source-read", same_text)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
