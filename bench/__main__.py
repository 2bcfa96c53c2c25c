"""Measure the engine and print a table: ``python -m bench [--quick] [--only CASE ...]``.

The results go to ``bench/results/latest.json`` and ``latest.txt``. Each rate stands beside a
yardstick from the same run, because a rate alone tells as much about the machine. Where
``bench/results/reference.json`` exists, a ratio that got worse by more than 10 % is marked.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

from bench.cases import CASES, Row
from bench.measure import c_buddy, dict_loop, mixed_script

RESULTS = Path(__file__).with_name("results")
#: A change in a ratio that is worth saying.
NOTICE = 0.10


def _human(value: float, unit: str) -> str:
    if unit.endswith("/s"):
        for limit, suffix in ((1e6, "M"), (1e3, "k")):
            if value >= limit:
                return f"{value / limit:,.2f} {suffix}{unit}"
    return f"{value:,.3f} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def _scores(rows: list[Row], yards: dict[str, float | None]) -> list[dict[str, object]]:
    """Return the rows with their ratios: to the yardstick named, or the plain value without one."""
    scores = []
    for row in rows:
        yard = yards.get(row.per or "")
        ratio = row.value / yard if yard else None
        scores.append(
            {
                "name": row.name,
                "value": row.value,
                "unit": row.unit,
                "ratio": ratio,
                "per": row.per if ratio is not None else None,
                "better": row.better,
            }
        )
    return scores


def _change(score: dict[str, object], before: dict[str, object] | None) -> str:
    """Say how a score compares with the reference run, by ratio where both have one."""
    if before is None:
        return ""
    key = "ratio" if score["ratio"] and before.get("ratio") else None
    if key is None:
        if score["unit"] not in ("kB", "MB", "bytes"):
            return ""
        key = "value"
    was, now = float(str(before[key])), float(str(score[key]))
    gain = now / was - 1 if score["better"] == "higher" else was / now - 1
    mark = "  <- worse by more than 10 %" if gain < -NOTICE else ""
    return f"{gain:+.0%}{mark}"


def _table(scores: list[dict[str, object]], reference: dict[str, dict[str, object]]) -> str:
    lines = [f"{'case':<44}{'measured':>18}{'ratio':>10}  {'of':<6}{'against reference'}"]
    for score in scores:
        ratio = f"{score['ratio']:.4f}" if score["ratio"] is not None else ""
        measured = _human(float(str(score["value"])), str(score["unit"]))
        change = _change(score, reference.get(str(score["name"])))
        lines.append(
            f"{score['name']:<44}{measured:>18}{ratio:>10}  {score['per'] or '':<6}{change}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, for a first look")
    parser.add_argument("--only", nargs="+", choices=CASES, help="run these cases only")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder for latest.json and latest.txt"
    )
    args = parser.parse_args(argv)

    script = mixed_script(100_000, 1 << 16)
    yards = {"dict": dict_loop(), "c": c_buddy(script, 1 << 16)}
    rows: list[Row] = []
    for name in args.only or CASES:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rows.extend(CASES[name](args.quick))
    scores = _scores(rows, yards)

    known = RESULTS / "reference.json"
    reference = {}
    if known.exists() and not args.quick:
        reference = {s["name"]: s for s in json.loads(known.read_text())["scores"]}
    about = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "yardsticks": {
            "dict": "stores per second into a dict of 1,024 keys in a plain Python loop",
            "c": "operations per second of bench/buddy.c on 100,000 mixed operations",
        },
        "yardstick_rates": yards,
    }
    in_c = f"{yards['c']:,.0f} op/s" if yards["c"] else "no C compiler here, so no ratios to C"
    text = (
        f"Python {about['python']}; dict yardstick {yards['dict']:,.0f} op/s; C yardstick {in_c}\n\n"
        + _table(scores, reference)
    )
    print(text)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "latest.json").write_text(json.dumps({**about, "scores": scores}, indent=1) + "\n")
    (args.out / "latest.txt").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
