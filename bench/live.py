"""The live page in a browser: what it weighs, how long until the first result, how fast each control answers.

Needs chromium and a built book (``make book``); without them the case says so and measures nothing.
"""

from __future__ import annotations

import gzip
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.row import Row
from mmcore.viz.explorable import (
    Actions,
    Bool,
    Choice,
    Explorable,
    Hex,
    Int,
    Param,
    ParamError,
    Seed,
    find,
    render,
)

__all__ = ["live"]

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

#: Runs in the page: a fresh Python for one figure, then each control's other value, `runs` times each.
MEASURE = """async ([name, values, changes, runs]) => {
  const main = [...document.scripts].find(s => s.type === "module").src;
  const { runtime } = await import(main.replace("main.js", "runtime.js"));
  const { fromEngine } = await import(main.replace("main.js", "dom.js"));
  const draw = async (its) => {
    const began = performance.now();
    const answer = await runtime.call("figure", {name, values: its, prefix: "mm-bench"});
    if (answer.error) throw new Error(name + ": " + answer.error.text);
    const [figure] = fromEngine(answer.html);
    document.querySelector("article").append(figure);
    window.mmFigures.start(figure.parentNode);
    figure.getBoundingClientRect();
    const took = performance.now() - began;
    figure.remove();
    return took;
  };
  const first = await draw(values);
  const out = {};
  for (const [param, value] of Object.entries(changes)) {
    out[param] = Infinity;
    for (let i = 0; i < runs; i++) out[param] = Math.min(out[param], await draw({...values, [param]: value}));
  }
  return {first, controls: out};
}"""


def _other(param: Param, now: Any) -> Iterator[Any]:
    """Yield other values that a reader might choose, the nearest first."""
    if isinstance(param, Actions):
        words = str(param.format(now)).split("; ")
        yield "; ".join(words[:-1])
        yield "; ".join([*words, words[-1]])
    elif isinstance(param, Bool):
        yield not now
    elif isinstance(param, Choice):
        yield from (word for word in param.options if word != now)
    elif isinstance(param, Seed):
        yield now + 1
    elif isinstance(param, Hex):
        yield hex(now ^ 0x1000)
    elif isinstance(param, Int):
        yield from (v for v in (now + param.step, now - param.step) if param.lo <= v <= param.hi)


def changes(figure: Explorable, given: dict[str, Any]) -> dict[str, Any]:
    """Return another value for each control that the figure can be drawn with."""
    found = {}
    for name, param in figure.params.items():
        for value in _other(param, given[name]):
            try:
                render(figure.name, {**given, name: value})
            except ParamError:
                continue
            found[name] = value
            break
    return found


def _weights() -> Iterator[Row]:
    """Yield what pages and the runtime transfer, compressed, as a host may compress or not."""
    sys.path.insert(0, str(ROOT / "tools"))
    import check_book

    for page in sorted((HTML / "book").glob("[0-9][0-9]-*.html")):
        weight = check_book.weight(HTML, page)
        yield Row(
            f"live: page {page.stem[:2]} with all it loads", weight / 1000, "kB", better="lower"
        )
    files = [
        *HTML.glob("_static/live/pyodide-*/*"),
        *HTML.glob("_static/live/engine-*/*"),
        *HTML.glob("_static/live/page-*/*"),
    ]
    raw = sum(f.stat().st_size for f in files)
    packed = sum(min(f.stat().st_size, len(gzip.compress(f.read_bytes(), 6))) for f in files)
    yield Row("live: runtime as stored", raw / 1e6, "MB", better="lower")
    yield Row("live: runtime from a host that compresses", packed / 1e6, "MB", better="lower")


def live(quick: bool) -> Iterator[Row]:
    """Weigh the pages; start Python in each chapter's page; change every control of its figures."""
    if CHROMIUM is None or not any(HTML.glob("_static/live/page-*")):
        print("  nothing measured: needs chromium and a built book", file=sys.stderr)
        return
    yield from _weights()
    import serve
    from playwright.sync_api import sync_playwright

    server = serve.server(HTML, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for page in sorted((HTML / "book").glob("[0-9][0-9]-*.html")):
            yield from _page(browser, server.server_address[1], page, quick)
        browser.close()
    server.shutdown()


def _page(browser: Any, port: int, page: Path, quick: bool) -> Iterator[Row]:
    tab = browser.new_context().new_page()
    tab.goto(f"http://127.0.0.1:{port}/book/{page.name}")
    figures = tab.evaluate(
        "[...document.querySelectorAll('.mm-fig[data-values]')].map(f => [f.dataset.mm, JSON.parse(f.dataset.values)])"
    )
    for i, (name, values) in enumerate(figures[:2] if quick else figures):
        figure = find(name)
        wanted = changes(figure, figure.parse(values))
        took = tab.evaluate(MEASURE, [name, values, wanted, 2 if quick else 3])
        if i == 0:
            title = f"live: page {re.sub('-.*', '', page.stem)}, click to first result"
            yield Row(title, took["first"] / 1000, "s", better="lower")
        for control, milliseconds in took["controls"].items():
            yield Row(f"live: {name} {control}", milliseconds, "ms", better="lower")
    tab.context.close()
