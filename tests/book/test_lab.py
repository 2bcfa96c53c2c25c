"""JupyterLab as `make lab` starts it: a chapter opens with a double click, runs from top to bottom, and its figures have controls."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = "03-virtual-memory"
#: Milliseconds that a loaded machine may take to bring JupyterLab up, and to run a chapter.
START, RUN = 120_000, 180_000

pytestmark = [pytest.mark.browser, pytest.mark.slow]
if shutil.which("chromium") is None and not os.environ.get("CI"):
    pytest.skip(
        "there is no chromium (on Debian: apt-get install chromium)", allow_module_level=True
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a ``lab/`` of its own."""
    copy = tmp_path_factory.mktemp("lab") / "project"
    copy.mkdir()
    shutil.copytree(
        ROOT / "tools", copy / "tools", ignore=shutil.ignore_patterns("web", "__pycache__")
    )
    shutil.copytree(ROOT / "book", copy / "book", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "mmcore").symlink_to(ROOT / "mmcore")
    return copy


@pytest.fixture(scope="module")
def lab(project: Path) -> Iterator[str]:
    """The address of a running JupyterLab."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if k not in ("MMCORE_BOOK", "PYTHONPATH")}
    for name in (
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_DATA_DIR",
        "JUPYTER_RUNTIME_DIR",
        "JUPYTERLAB_WORKSPACES_DIR",
        "JUPYTERLAB_SETTINGS_DIR",
        "IPYTHONDIR",
    ):
        env[name] = str(project.parent / name.lower())
    command = [sys.executable, "tools/lab.py", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--allow-root", "--IdentityProvider.token=", "--ServerApp.password="]
    log = (project.parent / "log").open("w+")
    server = subprocess.Popen(command, cwd=project, env=env, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    for _ in range(START // 500):
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
            break
        except OSError:
            assert server.poll() is None, Path(log.name).read_text()
            time.sleep(0.5)
    yield address
    server.terminate()
    server.wait(30)


@pytest.fixture(scope="module")
def page(browser: Any, lab: str, project: Path) -> Iterator[Any]:
    """The page that `make lab` opens."""
    # What `make lab` opens is in its command; a browser is not started here.
    first = re.search(r"default_url=(\S+?)\"", (project / "tools" / "lab.py").read_text())
    assert first is not None
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    page.asked = []
    page.on("request", lambda r: page.asked.append(r.url))
    page.goto(lab + first.group(1))
    yield page
    page.context.close()


def shown(page: Any) -> Any:
    """The notebook in front."""
    return page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook")


def saved(project: Path) -> dict[str, Any]:
    return dict(json.loads((project / "lab" / f"{CHAPTER}.ipynb").read_text()))


def test_it_opens_on_the_contents_page(page: Any) -> None:
    shown(page).locator("h1", has_text="Linux memory management, running").wait_for(timeout=START)
    link = shown(page).get_by_role("link", name="Virtual memory", exact=False).first
    link.scroll_into_view_if_needed()
    link.click()
    shown(page).locator("h1", has_text="Virtual memory").wait_for(timeout=START)


def test_a_double_click_opens_a_notebook_and_run_all_passes(page: Any, project: Path) -> None:
    page.locator(f".jp-DirListing-item[title*='{CHAPTER}.ipynb']").dblclick()
    shown(page).locator("h1", has_text="Virtual memory").wait_for(timeout=START)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    code = sum(c["cell_type"] == "code" for c in saved(project)["cells"])
    last = shown(page).locator(".jp-InputPrompt", has_text=f"[{code}]:")
    last.first.wait_for(state="attached", timeout=RUN)
    page.keyboard.press("Control+s")
    for _ in range(RUN // 500):
        cells = [c for c in saved(project)["cells"] if c["cell_type"] == "code"]
        if all(c["execution_count"] for c in cells):
            break
        page.wait_for_timeout(500)
    assert [c["execution_count"] for c in cells] == list(range(1, code + 1))
    outputs = [o for c in cells for o in c["outputs"]]
    wrong = [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert wrong == []
    assert sum("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in outputs) > 3


def test_its_controls_drive_a_figure(page: Any) -> None:
    figure = shown(page).locator(".jp-OutputArea .jupyter-widgets", has=page.locator(".mm-stage"))
    figure = figure.filter(has=page.locator("label", has_text="address")).first
    figure.scroll_into_view_if_needed()
    field = figure.get_by_label("address").or_(figure.locator("input[type=text]")).first
    before = figure.locator(".mm-stage svg").inner_html()
    field.fill("0x123456789000")
    field.press("Enter")
    page.wait_for_function(
        "([box, before]) => box.querySelector('.mm-stage svg').innerHTML !== before",
        arg=[figure.element_handle(), before],
    )
    caption = figure.locator(".mm-caption").inner_text()
    figure.get_by_title("previous step").click()
    figure.locator(".mm-caption").filter(has_not_text=caption).wait_for()
    field.fill("nonsense")
    field.press("Enter")
    figure.get_by_role("alert").filter(has_text="nonsense").wait_for()


def test_a_readers_changes_stay_out_of_the_source(page: Any, project: Path) -> None:
    for source in (ROOT / "book").glob("*.md"):
        assert (project / "book" / source.name).read_bytes() == source.read_bytes()
    assert {p.name for p in project.iterdir()} == {"book", "mmcore", "tools", "lab"}
    host = page.url.split("/lab")[0]
    assert [u for u in page.asked if not u.startswith((host, "data:", "blob:", "ws:"))] == []
