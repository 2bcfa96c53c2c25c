"""The live page in a browser: figures run with other values, and what is shown is what CPython computes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import check_book
import pytest

from mmcore.viz import player
from mmcore.viz.explorable import (
    Actions,
    Bool,
    Choice,
    Explorable,
    Float,
    Hex,
    Int,
    ParamError,
    Seed,
    find,
    render,
)

ROOT = Path(__file__).resolve().parents[2]
PAGES = check_book.pages_of(ROOT / "_toc.yml")
CHAPTERS = [p for p in PAGES if re.search(r"/\d\d-", p)]
AXE = ROOT / "tools" / "web" / "node_modules" / "axe-core" / "axe.min.js"
#: Findings of axe that come from the theme and harm nobody.
ALLOWED = {"label-content-name-mismatch", "region"}
#: Milliseconds that a loaded machine may take to bring Python up, and to run a figure.
START, RUN = 120_000, 60_000

pytestmark = pytest.mark.browser
if shutil.which("chromium") is None and not os.environ.get("CI"):
    pytest.skip(
        "there is no chromium (on Debian: apt-get install chromium)", allow_module_level=True
    )


class Live:
    """A page whose Python runs; one for all tests of a chapter."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.wrong: list[str] = []
        self.page = browser.new_context(**options).new_page()
        host = url.split("/some/")[0]
        wrong = self.wrong
        self.page.on("pageerror", lambda e: wrong.append(f"error: {e}"))
        self.page.on(
            "console", lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None
        )
        self.page.on(
            "request",
            lambda r: None if r.url.startswith((host, "data:", "blob:")) else wrong.append(r.url),
        )
        self.page.on(
            "response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None
        )
        self.page.goto(url)

    def box(self, figure: str) -> Any:
        """The live part that belongs to a figure, given by its id."""
        return self.page.locator(f".mm-live:has(+ #{figure})")

    def open(self, figure: str) -> Any:
        """Press "Run it live" unless that was done; return the panel."""
        panel = self.box(figure).locator(".mm-live-panel")
        if not panel.count():
            self.box(figure).get_by_role("button", name="Run it live").click()
            panel.wait_for(timeout=START)
            self.settled(figure)
        return panel

    def settled(self, figure: str) -> str:
        """Wait until the figure is computed; return the line that says so."""
        status = self.box(figure).get_by_role("status").filter(has_text="computed here")
        status.wait_for(timeout=RUN)
        return str(status.inner_text())

    def change(self, figure: str, label: str, value: Any) -> None:
        """Set one control as a reader does, and wait for the new drawing."""
        control = self.box(figure).get_by_label(label, exact=True).last
        self.page.evaluate(
            "() => { window.drawn = 0; document.addEventListener('mm-computed', () => { window.drawn += 1; }, {once: true}); }"
        )
        set_control(control, value)
        for _ in range(RUN // 50):
            if self.page.evaluate("window.drawn"):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(
            f"{figure}: no drawing after {label} = {value}: {self.box(figure).inner_text()}"
        )

    def shown(self, figure: str) -> dict[str, Any]:
        """What the figure consists of, whichever step is shown."""
        return dict(self.page.evaluate(SHOWN, [f"#{figure}", ""]))

    def expected(self, figure: str, html: str) -> dict[str, Any]:
        """The same of a stepper that CPython made."""
        return dict(self.page.evaluate(SHOWN, ["", html]))


SHOWN = """([selector, html]) => {
  const root = selector ? document.querySelector(selector)
    : new DOMParser().parseFromString(html, "text/html").body.firstElementChild;
  const parts = [...root.querySelectorAll(".mm-stage svg > *")].filter(e => e.tagName !== "desc").map(e => {
    const copy = e.cloneNode(true); copy.removeAttribute("display"); copy.classList.remove("mm-in");
    if (!copy.getAttribute("class")) copy.removeAttribute("class");
    return copy.outerHTML; });
  return {name: root.dataset.mm, total: root.dataset.total, drawing: parts.join(""),
    steps: [...root.querySelectorAll(".mm-words li")].map(li => li.value + " " + li.textContent)};
}"""


def set_control(control: Any, value: Any) -> None:
    kind = control.evaluate("e => e.type || e.tagName")
    if kind == "checkbox":
        control.set_checked(bool(value))
    elif kind.startswith("select"):
        control.select_option(str(value))
    else:
        control.fill(str(value))


def label_of(name: str, param: Any) -> str:
    """The label that a parameter's control has."""
    words = getattr(param, "label", "") or name.replace("_", " ")
    unit = getattr(param, "unit", "")
    return f"{words} ({unit})" if unit and unit != words else words


def other_values(figure: Explorable, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (parameter, another value for it) that are likely to work."""
    for name, param in figure.params.items():
        now = given[name]
        if isinstance(param, Actions):
            words = param.format(now).split("; ")
            yield name, "; ".join(words[: max(1, len(words) - 2)])
        elif isinstance(param, Bool):
            yield name, not now
        elif isinstance(param, Choice):
            yield from ((name, word) for word in param.options if word != now)
        elif isinstance(param, Seed):
            yield name, now + 1
        elif isinstance(param, Hex):
            yield name, hex(now ^ 0x1000)
        elif isinstance(param, Int):
            yield name, now + param.step if now + param.step <= param.hi else now - param.step
        elif isinstance(param, Float):
            yield name, param.lo


def another(figure: Explorable, given: dict[str, Any]) -> tuple[str, Any, Any]:
    """Return a parameter, another value for it, and CPython's rendering that differs from what is printed."""
    before = player.stepper(render(figure.name, given), "x")
    for name, value in other_values(figure, given):
        try:
            made = render(figure.name, {**given, name: value})
        except ParamError:
            continue
        if player.stepper(made, "x") != before:
            return name, value, made
    raise AssertionError(f"{figure.name}: no other value changes the drawing")


@pytest.fixture(scope="module", params=CHAPTERS)
def live(request: Any, browser: Any, site: str) -> Iterator[Live]:
    page = Live(browser, f"{site}/{request.param}.html", viewport={"width": 1200, "height": 900})
    yield page
    page.page.context.close()


def test_every_figure_runs_live_as_in_cpython(live: Live) -> None:
    figures = live.page.evaluate(
        "[...document.querySelectorAll('.mm-fig[data-values]')].map(f => [f.id, f.dataset.mm, JSON.parse(f.dataset.values)])"
    )
    assert len(figures) >= 4
    for id_, name, printed in figures:
        live.open(id_)
        figure = find(name)
        given = figure.parse(printed)
        # As printed first: the same frames as the page was built with.
        html = player.stepper(render(name, printed), id_)
        assert live.shown(id_) == live.expected(id_, html), name
        changed, value, made = another(figure, given)
        live.change(id_, label_of(changed, figure.params[changed]), value)
        expected = live.expected(id_, player.stepper(made, id_))
        assert live.shown(id_) == expected, f"{name} with {changed} = {value}"
        assert "#live/" in live.page.url and f"{id_}?" in live.page.url
        live.box(id_).get_by_role("button", name="Reset").click()
        live.page.wait_for_timeout(100)
        live.settled(id_)
    assert live.wrong == []


def test_a_wrong_value_is_explained_beside_its_control(browser: Any, site: str) -> None:
    page = Live(browser, f"{site}/{CHAPTERS[0]}.html")
    panel = page.open("mm-ch02-buddy")
    before = page.shown("mm-ch02-buddy")
    script = panel.get_by_label("script", exact=True)
    for text, word in (
        ("alloc 11", "too large"),
        ("fly 3", "there is no 'fly'"),
        ("free 5", "5"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
    ):
        script.fill(text)
        error = panel.locator(".mm-control-actions .mm-control-error").filter(has_text=word)
        error.wait_for(timeout=RUN)
        assert script.get_attribute("aria-invalid") == "true"
        assert error.get_attribute("id") in script.get_attribute("aria-describedby").split()
        assert page.shown("mm-ch02-buddy") == before
    assert page.page.locator("img[src=x]").count() == 0
    # Buttons of the script's verbs, undo, and reset.
    script.fill("alloc 0")
    page.settled("mm-ch02-buddy")
    panel.get_by_label("ORDER", exact=False).or_(panel.locator(".mm-argument")).first.fill("2")
    panel.get_by_role("button", name="alloc", exact=True).click()
    assert script.input_value() == "alloc 0; alloc 2"
    panel.get_by_role("button", name="Undo").click()
    assert script.input_value() == "alloc 0"
    panel.get_by_role("button", name="Reset").click()
    assert script.input_value() == find("ch02.buddy").params["script"].default
    page.page.context.close()
    assert page.wrong == []


def test_a_link_carries_the_values(browser: Any, site: str) -> None:
    values = {"pages": 256, "script": "alloc 3; alloc 0; free 0"}
    link = f"{site}/{CHAPTERS[0]}.html#live/mm-ch02-buddy?{urlencode(values)}"
    page = Live(browser, link)
    box = page.box("mm-ch02-buddy")
    assert "alloc 3; alloc 0; free 0" in box.get_by_role("status").inner_text()
    box.get_by_role("button", name="Run it live with the values of this link").click()
    page.box("mm-ch02-buddy").locator(".mm-live-panel").wait_for(timeout=START)
    page.settled("mm-ch02-buddy")
    html = player.stepper(render("ch02.buddy", values), "mm-ch02-buddy")
    assert page.shown("mm-ch02-buddy") == page.expected("mm-ch02-buddy", html)
    panel = box.locator(".mm-live-panel")
    assert panel.get_by_label("script", exact=True).input_value() == values["script"]
    # A hostile link is text.
    page.page.goto("about:blank")
    hostile = urlencode({"script": "<script>alert(1)</script>", "nonsense": "x"})
    page.page.goto(f"{site}/{CHAPTERS[0]}.html#live/mm-ch02-buddy?{hostile}")
    box = page.box("mm-ch02-buddy")
    assert "<script>alert(1)</script>" in box.get_by_role("status").inner_text()
    box.get_by_role("button", name="Run it live").click()
    box.locator(".mm-live-panel").wait_for(timeout=START)
    page.page.context.close()
    assert page.wrong == []


def test_a_run_can_be_stopped_and_started_again(browser: Any, site: str) -> None:
    page = Live(browser, f"{site}/{CHAPTERS[0]}.html")
    box = page.box("mm-ch02-buddy")
    box.get_by_role("button", name="Run it live").click()
    stop = box.get_by_role("button", name="Stop")
    stop.wait_for()
    stop.click()
    box.get_by_role("status").filter(has_text="Stopped").wait_for()
    assert page.page.locator("#mm-ch02-buddy .mm-stage svg").is_visible()
    page.open("mm-ch02-buddy")  # a fresh Python
    page.page.context.close()
    assert page.wrong == []


def test_a_cell_runs_after_those_before_it(live: Live) -> None:
    cells = live.page.locator("div.cell.tag_live")
    assert cells.count() > 20
    # Solutions are folded, and what is folded has no role.
    live.page.evaluate(
        "document.querySelectorAll('.toggle-hidden').forEach(e => e.classList.remove('toggle-hidden'))"
    )

    def run(cell: Any, code: str | None = None) -> str:
        if cell.get_by_role("button", name="Edit and run").count():
            cell.get_by_role("button", name="Edit and run").click()
        if code is not None:
            cell.locator("textarea").fill(code)
        cell.get_by_role("status").evaluate("e => { e.textContent = ''; }")
        cell.locator("textarea").press("Shift+Enter")
        cell.get_by_role("status").filter(has_text=DONE).wait_for(timeout=START)
        return str(cell.locator(".mm-cell-output").inner_text())

    # As printed: the last cell that shows text, after all those before it.
    printed = [
        i
        for i in range(cells.count())
        if cells.nth(i).locator(".cell_output > .output.text_plain").count()
    ]
    last = cells.nth(printed[-1])
    expected = last.locator(".cell_output").inner_text()
    assert run(last).strip() == expected.strip()
    # Changed: the first cell gets a name that a later one uses.
    first, second = cells.nth(0), cells.nth(1)
    code = first.locator("pre").first.inner_text()
    assert "ZeroDivisionError" in run(second, "1 / 0")
    run(first, code + "\nmine = 41")
    assert run(second, "print('<b>x</b>')\nmine + 1").split() == ["<b>x</b>", "42"]
    assert second.locator(".mm-cell-output b").count() == 0
    # A figure in a cell steps like any other.
    run(second, "explore('ch03.walk')")
    second.locator(".mm-fig .mm-stage").focus()
    live.page.keyboard.press("ArrowRight")
    assert second.locator(".mm-count").inner_text().startswith("2 / ")
    # A cell before this one fails: it is named.
    run(first, "nonsense")
    second.locator("textarea").press("Shift+Enter")
    second.get_by_role("status").filter(has_text="cell 1 fails: NameError").wait_for(timeout=RUN)
    for cell in (first, second):
        cell.get_by_role("button", name="Reset").click()
    assert first.locator("textarea").input_value() == code.rstrip("\n")
    assert second.locator(".mm-cell-output").is_hidden()
    assert live.wrong == []


DONE = re.compile(r"Run here|It failed|Stopped|fails:|could not")


def test_an_endless_cell_can_be_stopped(live: Live) -> None:
    cell = live.page.locator("div.cell.tag_live").nth(2)
    cell.get_by_role("button", name="Edit and run").click()
    cell.locator("textarea").fill("while True: pass")
    cell.locator("textarea").press("Control+Enter")
    cell.get_by_role("button", name="Stop").click(timeout=START)
    cell.get_by_role("status").filter(has_text="Stopped").wait_for()
    cell.get_by_role("button", name="Reset").click()
    assert live.wrong == []


def test_exercises_answer_back(live: Live) -> None:
    forms = live.page.locator(".mm-exercise-form")
    assert forms.count() >= 5
    varied = 0
    for form in forms.all():
        if not form.get_by_role("button", name="New problem").count():
            continue
        varied += 1
        form.get_by_role("button", name="New problem").click()
        form.locator("p").filter(has_text="Problem ").wait_for(timeout=START)
        fields = form.locator(".mm-answers input")
        for field in fields.all():
            field.fill("999999")
        form.get_by_role("button", name="Check").click()
        verdict = form.locator(".mm-wrong-answer")
        verdict.wait_for(timeout=RUN)
        # It names the first difference: put right what it says, again and again, and all is right.
        for _ in range(fields.count()):
            said = re.search(r"the engine has (.*)\.$", verdict.inner_text())
            assert said is not None, verdict.inner_text()
            wrong = form.locator(".mm-answers [aria-invalid=true]")
            assert wrong.count() == 1
            wrong.fill(said.group(1))
            before = verdict.inner_text()
            form.get_by_role("button", name="Check").click()
            form.locator(".mm-verdict").filter(has_not_text=before).wait_for(timeout=RUN)
        assert form.locator(".mm-right-answer").inner_text().startswith("Right"), form.inner_text()
        form.get_by_role("button", name="The book's own").click()
    assert varied >= 2
    assert live.wrong == []


def test_live_controls_fit_a_phone_and_are_accessible(browser: Any, site: str) -> None:
    phone = {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}, "has_touch": True}
    page = Live(browser, f"{site}/{CHAPTERS[0]}.html", **phone)
    for figure in ("mm-ch02-buddy", "mm-ch02-fragmentation", "mm-ch02-zonelist"):
        page.open(figure)
    cell = page.page.locator("div.cell.tag_live").first
    cell.get_by_role("button", name="Edit and run").click()
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.page.evaluate(
        "() => Promise.all(document.getAnimations().map(a => a.finished.catch(() => {})))"
    )
    page.page.evaluate(AXE.read_text())
    found = page.page.evaluate(
        "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
        ".map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 160)])"
    )
    page.page.context.close()
    assert [f for f in found if f[0] not in ALLOWED] == []
    assert page.wrong == []


def test_a_page_opened_from_a_file_says_why_it_cannot_run(browser: Any, html: Path) -> None:
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.goto((html / f"{CHAPTERS[0]}.html").as_uri())
    why = page.locator(".mm-why").first
    why.locator("summary").click()
    assert "opened from a file" in why.inner_text()
    assert page.get_by_role("button", name="Run it live").count() == 0
    stage = page.locator("#mm-ch02-buddy .mm-stage")
    stage.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#mm-ch02-buddy .mm-count").inner_text().startswith("2 / ")
    page.close()
    assert wrong == []


def test_nothing_is_loaded_before_the_reader_asks(browser: Any, site: str) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    page.goto(f"{site}/{CHAPTERS[0]}.html", wait_until="networkidle")
    page.close()
    live = [url for url in asked if "/_static/live/" in url]
    assert live and all("/page-" in url for url in live)
