"""Open the chapters as notebooks in JupyterLab: what `make lab` runs.

The notebooks are copies in ``lab/``, made from the book's pages; the folder is not under version control.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import notebooks  # noqa: E402

#: A text notebook that somebody opens here opens as a notebook, too.
OVERRIDES = {
    "@jupyterlab/docmanager-extension:plugin": {
        "defaultViewers": {"markdown": "Jupytext Notebook", "myst": "Jupytext Notebook"}
    },
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}


def write_settings(prefix: Path) -> Path:
    """Write JupyterLab's settings into the environment, so that a plain ``jupyter lab`` has them as well."""
    folder = prefix / "share" / "jupyter" / "lab" / "settings"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "overrides.json").write_text(json.dumps(OVERRIDES, indent=2) + "\n")
    return folder


def command(extra: list[str]) -> list[str]:
    """Return the command that starts JupyterLab on the readers' notebooks."""
    settings = write_settings(Path(sys.prefix))
    return [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--LabApp.app_settings_dir={settings}",
        f"--ServerApp.root_dir={ROOT / 'lab'}",
        "--LabApp.default_url=/lab/tree/index.ipynb",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        *extra,
    ]


def main() -> None:
    for remark in notebooks.write_lab(ROOT, ROOT / "lab"):
        print(remark)
    path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)
    if "--notebooks-only" in sys.argv:
        print("The notebooks are in lab/.")
        return
    args = command(sys.argv[1:])
    os.execv(args[0], args)


if __name__ == "__main__":
    main()
