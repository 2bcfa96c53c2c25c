"""Write the golden traces anew, or show how the engine's behaviour differs from them.

    python tests/golden/regenerate.py            # show what differs, write nothing
    python tests/golden/regenerate.py --write    # show it, and keep the new behaviour
    python tests/golden/regenerate.py --write buddy pcp

A commit that changes a golden trace says in its message why the engine now behaves as the trace
shows.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))


def load_workloads() -> dict:
    """Return the workloads, wherever this file is run from."""
    spec = importlib.util.spec_from_file_location("golden_workloads", HERE / "workloads.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.WORKLOADS


def main() -> int:
    """Compare, print, and write if asked to; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("workload", nargs="*", help="which; all by default")
    parser.add_argument("--write", action="store_true", help="keep the new behaviour")
    arguments = parser.parse_args()
    workloads = load_workloads()
    differ = 0
    for name in arguments.workload or workloads:
        path = HERE / f"{name}.txt"
        old = path.read_text().splitlines() if path.exists() else []
        new = workloads[name]()
        diff = list(
            difflib.unified_diff(old, new, f"{name} (kept)", f"{name} (now)", lineterm="", n=2)
        )
        if not diff:
            print(f"{name}: {len(new)} lines, as kept")
            continue
        differ += 1
        print("\n".join(diff[:200]))
        if len(diff) > 200:
            print(f"... {len(diff) - 200} more lines of difference")
        if arguments.write:
            path.write_text("\n".join(new) + "\n")
            print(f"{name}: {len(new)} lines written")
    return int(differ > 0 and not arguments.write)


if __name__ == "__main__":
    sys.exit(main())
