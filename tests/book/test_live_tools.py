"""The workbench in a browser: each tool with its example, with nonsense, with 10 MB, and with what wants to be markup."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmcore.report import workbench

pytestmark = pytest.mark.browser
if shutil.which("chromium") is None and not os.environ.get("CI"):
    pytest.skip(
        "there is no chromium (on Debian: apt-get install chromium)", allow_module_level=True
    )

#: Milliseconds that a loaded machine may take to bring Python up and to run a tool on 10 MB.
PATIENCE = 120_000
HOSTILE = (
    "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>\u0000\u0007\u001b[31m"
    "\u202e</pre></textarea>{{7*7}}\n0x</div><svg onload=alert(1)>\ud7ff\uffff\n"
)
TOOLS = sorted(workbench.tools())


class Bench:
    """The workbench page with its Python running."""

    def __init__(self, page: Any, wrong: list[str]) -> None:
        self.page = page
        self.wrong = wrong

    def box(self, tool: str) -> Any:
        return self.page.locator(f".mm-tool[data-tool='{tool}']")

    def run(self, tool: str, text: str) -> tuple[str, str]:
        """Run a tool; return what it shows and what it finds wrong."""
        box = self.box(tool)
        box.get_by_role("button", name="Clear").click()
        # Typing 10 MB key by key is not what a paste does.
        box.locator("textarea").evaluate("(e, text) => { e.value = text; }", text)
        box.evaluate(
            "e => e.addEventListener('mm-computed', () => { e.dataset.done = '1'; }, {once: true})"
        )
        box.get_by_role("button", name="Run").click()
        self.page.locator(f".mm-tool[data-tool='{tool}'][data-done]").wait_for(timeout=PATIENCE)
        box.evaluate("e => { delete e.dataset.done; }")
        return (
            box.locator(".mm-tool-output").text_content(),
            box.locator(".mm-control-error").text_content(),
        )


@pytest.fixture(scope="module")
def bench(browser: Any, site: str) -> Iterator[Bench]:
    wrong: list[str] = []
    page = browser.new_context().new_page()
    host = site.split("/some/")[0]
    page.on("pageerror", lambda e: wrong.append(f"error: {e}"))
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("dialog", lambda d: (wrong.append(f"dialog: {d.message}"), d.dismiss()))
    page.on(
        "request",
        lambda r: None if r.url.startswith((host, "data:", "blob:")) else wrong.append(r.url),
    )
    page.goto(f"{site}/book/workbench.html")
    yield Bench(page, wrong)
    page.context.close()


def test_every_tool_is_on_the_page(bench: Bench) -> None:
    there = bench.page.evaluate(
        "[...document.querySelectorAll('.mm-tool')].map(e => e.dataset.tool)"
    )
    assert sorted(there) == TOOLS


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_says_what_the_command_line_says(bench: Bench, tool: str) -> None:
    example = workbench.tools()[tool]["example"]
    expected = workbench.run(tool, example)
    shown, wrong = bench.run(tool, example)
    assert wrong == ""
    assert shown == expected["text"] if not expected.get("html") else shown
    assert bench.wrong == []


def test_sentences_of_an_answer_wrap_on_a_phone_and_tables_do_not(bench: Bench) -> None:
    size = bench.page.viewport_size
    bench.page.set_viewport_size({"width": 390, "height": 844})
    bench.run("zoneinfo", workbench.tools()["zoneinfo"]["example"])
    out = bench.box("zoneinfo").locator(".mm-tool-output")
    edge = out.evaluate("e => e.getBoundingClientRect().right")
    ends = out.locator(".mm-sentence").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().right)"
    )
    assert ends and max(ends) <= edge
    first = out.locator(".mm-first").inner_text()
    assert first.endswith("No zone is below its low mark.")  # two lines of the command's answer
    tall = out.locator(".mm-row").evaluate_all("all => new Set(all.map(e => e.offsetHeight)).size")
    assert tall == 1 and out.locator(".mm-row").count() > 3
    bench.page.set_viewport_size(size)
    bench.box("zoneinfo").get_by_role("button", name="Clear").click()


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_survives_any_text(bench: Bench, tool: str) -> None:
    for text in ("", "nonsense", HOSTILE, HOSTILE + workbench.tools()[tool]["example"]):
        expected = workbench.run(tool, text)
        shown, wrong = bench.run(tool, text)
        assert shown or wrong
        if expected.get("error"):
            assert expected["error"] in wrong
    assert bench.page.evaluate("window.owned") is None
    assert bench.box(tool).locator("img, script, svg[onload]").count() == 0
    assert bench.wrong == []


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_survives_ten_megabytes(bench: Bench, tool: str) -> None:
    example = workbench.tools()[tool]["example"].rstrip("\n") + "\n"
    text = example * (10_000_000 // len(example))
    shown, wrong = bench.run(tool, text)
    assert shown or wrong
    assert len(shown) < 500_000
    bench.box(tool).get_by_role("button", name="Clear").click()
    assert bench.wrong == []


def test_a_file_is_read_in_the_page(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "zoneinfo.txt"
    example = workbench.tools()["zoneinfo"]["example"]
    file.write_bytes(example.encode() + b"\x00\xff")
    box = bench.box("zoneinfo")
    box.evaluate(
        "e => e.addEventListener('mm-computed', () => { e.dataset.done = '1'; }, {once: true})"
    )
    box.locator("input[type=file]").set_input_files(file)
    bench.page.locator(".mm-tool[data-tool='zoneinfo'][data-done]").wait_for(timeout=PATIENCE)
    expected = workbench.run("zoneinfo", file.read_bytes())
    shown = box.locator(".mm-tool-output").text_content()
    assert shown == expected["text"] or expected["error"] in box.inner_text()
    assert bench.wrong == []
