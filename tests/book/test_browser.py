"""The book in a browser: keyboard, no scripts, light and dark, a phone, any sub-path."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import check_book
import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PAGES = check_book.pages_of(ROOT / "_toc.yml")
CHAPTERS = [p for p in PAGES if re.search(r"/\d\d-", p)]
AXE = ROOT / "tools" / "web" / "node_modules" / "axe-core" / "axe.min.js"
#: Findings of axe that come from the theme and harm nobody.
ALLOWED = {"label-content-name-mismatch", "region"}

pytestmark = pytest.mark.browser
if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip(
        "there is no chromium (on Debian: apt-get install chromium)", allow_module_level=True
    )
pytest.importorskip("playwright.sync_api")


def open_page(browser: Any, url: str, **options: Any) -> tuple[Any, list[str]]:
    """Open @url; return the page and the list of what went wrong, which grows while it is used."""
    wrong: list[str] = []
    page = browser.new_context(**options).new_page()
    host = url.split("/some/")[0]
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda e: wrong.append(f"error: {e}"))
    page.on(
        "request",
        lambda r: None if r.url.startswith((host, "data:")) else wrong.append(f"request: {r.url}"),
    )
    page.on("response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    page.goto(url)
    return page, wrong


@pytest.mark.parametrize("path", [*PAGES, "search", "genindex"])
def test_pages_open_without_errors_and_stay_on_their_host(
    browser: Any, site: str, path: str
) -> None:
    page, wrong = open_page(browser, f"{site}/{path}.html")
    page.mouse.wheel(0, 5000)
    page.wait_for_timeout(100)
    page.context.close()
    assert wrong == []


@pytest.mark.parametrize("path", PAGES)
def test_a_phone_needs_no_sideways_scrolling(browser: Any, site: str, path: str) -> None:
    page, _ = open_page(
        browser, f"{site}/{path}.html", viewport={"width": 390, "height": 844}, has_touch=True
    )
    wide = page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] :
        [...document.querySelectorAll('.bd-article *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
          && !e.closest('pre, .output, table, svg, math')).slice(0, 5).map(e => e.outerHTML.slice(0, 120))"""
    )
    width = page.evaluate("document.documentElement.scrollWidth")
    page.context.close()
    assert width <= 390, wide


@pytest.mark.parametrize("path", CHAPTERS)
def test_every_stepper_works_from_the_keyboard(browser: Any, site: str, path: str) -> None:
    page, wrong = open_page(browser, f"{site}/{path}.html")
    figures = page.locator(".mm-fig[data-total]")
    assert figures.count() >= 4
    for i in range(figures.count()):
        figure = figures.nth(i)
        total = int(figure.get_attribute("data-total"))
        if total < 2:
            continue
        stage, count = figure.locator(".mm-stage"), figure.locator(".mm-count")
        stage.focus()
        page.keyboard.press("Home")
        assert count.inner_text() == f"1 / {total}"
        first = figure.locator(".mm-caption").inner_text()
        page.keyboard.press("ArrowRight")
        assert count.inner_text() == f"2 / {total}"
        page.keyboard.press("End")
        assert count.inner_text() == f"{total} / {total}"
        page.keyboard.press("ArrowLeft")
        assert count.inner_text() == f"{total - 1} / {total}"
        assert first
    page.context.close()
    assert wrong == []


@pytest.mark.parametrize("path", CHAPTERS)
def test_without_scripts_everything_can_be_read(browser: Any, site: str, path: str) -> None:
    page, wrong = open_page(browser, f"{site}/{path}.html", java_script_enabled=False)
    for figure in page.locator(".mm-fig[data-mm]").all():
        assert figure.locator(".mm-stage svg").first.is_visible()
        assert figure.locator(".mm-caption").first.inner_text()
        assert (
            not figure.locator(".mm-bar").first.is_visible()
            if figure.locator(".mm-bar").count()
            else True
        )
    assert page.locator("article").inner_text().count("\n") > 100
    page.context.close()
    assert wrong == []


@pytest.mark.parametrize("path", [CHAPTERS[0], "book/index"])
def test_dark_is_dark_and_light_is_light(browser: Any, site: str, path: str) -> None:
    for scheme, dark in (("light", False), ("dark", True)):
        page, _ = open_page(browser, f"{site}/{path}.html", color_scheme=scheme)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        drawn = page.evaluate("getComputedStyle(document.querySelector('.mm-stage .mm-free')).fill")
        page.context.close()
        assert (sum(int(n) for n in re.findall(r"\d+", ground)[:3]) < 200) is dark
        assert drawn == ("rgb(23, 65, 58)" if dark else "rgb(191, 227, 208)")


def test_paper_has_the_title_and_no_buttons(browser: Any, site: str) -> None:
    page, _ = open_page(browser, f"{site}/{CHAPTERS[0]}.html", color_scheme="dark")
    page.emulate_media(media="print")
    page.wait_for_timeout(400)  # the theme fades colours
    assert page.locator("article h1").first.is_visible()
    assert page.locator(".mm-stage svg").first.is_visible()
    for unwanted in (
        ".mm-bar",
        ".mm-live",
        ".mm-cell-open",
        ".mm-exercise-form",
        ".bd-sidebar-primary",
    ):
        assert page.locator(f"{unwanted}:visible").count() == 0, unwanted
    ink, ground = page.evaluate(
        "(s => [s.color, getComputedStyle(document.body).backgroundColor])"
        "(getComputedStyle(document.querySelector('article p')))"
    )
    page.emulate_media(media="screen")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    page.context.close()
    assert sum(map(int, re.findall(r"\d+", ink)[:3])) < 300, (ink, ground)
    assert sum(map(int, re.findall(r"\d+", ground)[:3])) > 700


def test_the_first_page_leads_to_the_book(browser: Any, site: str) -> None:
    page, wrong = open_page(browser, f"{site}/index.html")
    page.wait_for_url(f"{site}/book/index.html")
    page.context.close()
    assert wrong == []


@pytest.mark.parametrize("path", [*PAGES, "search", "genindex"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_of(browser: Any, site: str, path: str, scheme: str) -> None:
    if not AXE.exists():
        if os.environ.get("CI"):
            pytest.fail("axe-core is not installed: npm ci in tools/web")
        pytest.skip("axe-core is not installed: npm ci in tools/web")
    page, _ = open_page(browser, f"{site}/{path}.html", color_scheme=scheme)
    # the theme fades its buttons' colours when it sets the scheme; what counts is where they end
    page.evaluate(
        "() => Promise.all(document.getAnimations().map(a => a.finished.catch(() => {})))"
    )
    page.evaluate(AXE.read_text())  # as a script in the page, the page's policy would refuse it
    found = page.evaluate(
        "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
        ".map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 160)])"
    )
    page.context.close()
    assert [f for f in found if f[0] not in ALLOWED] == []


@pytest.mark.parametrize(
    "wrong_path", ["/book/no-such-page.html", "/no/such/folder/x.html", "/x", "/book/a/b/c/"]
)
def test_the_404_page_finds_the_book_from_any_depth(
    browser: Any, site: str, wrong_path: str
) -> None:
    page = browser.new_page()
    answer = page.goto(f"{site}{wrong_path}")
    assert answer.status == 404
    page.locator("a[data-to][href*='/some/book-1/']").first.wait_for()
    page.get_by_text("The book's first page").click()
    page.wait_for_url(f"{site}/book/index.html")
    page.close()


def test_search_finds_a_kernel_function(browser: Any, site: str) -> None:
    page, wrong = open_page(browser, f"{site}/search.html?q=watermark")
    page.wait_for_selector("#search-results li", timeout=10_000)
    assert "02-physical-memory.html" in page.locator("#search-results").inner_html()
    page.context.close()
    assert wrong == []
