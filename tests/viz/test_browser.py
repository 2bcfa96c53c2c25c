"""The stepper in a real browser: keys, buttons, the range, what a screen reader is told, and no script at all."""

import shutil
from pathlib import Path

import pytest

from mmcore import cint
from mmcore.viz import Frame, Int, beside, explorable, player, render, show, svg

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@explorable("testb.walk", title="A walk", key=("third", "last"), params=dict(n=Int(6, 1, 500)))
def walk(p):
    for i in range(p.n):
        d = svg.Drawing()
        d.add(svg.page_grid([svg.Block(i % 64, 0, "movable", focus=True)], nr_pages=64))
        d.add(svg.text(0, 60, f"number {i + 1}"))
        d.height = 70
        mark = "third" if i == 2 else "last" if i == p.n - 1 else ""
        yield Frame(
            d, f"Step **{i + 1}** is here. " + "More words. " * (i * 8), f"alt {i + 1}", mark
        )


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium")
    with playwright.sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield b
        b.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page as the book makes it: style and script from files, under a strict policy."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "a.css").write_text(player.style())
    (folder / "a.js").write_text(player.script())
    figures = player.stepper(render("testb.walk"), "one") + player.stepper(
        render("testb.walk", {"n": 300}), "two"
    )
    policy = "default-src 'none'; script-src 'self' file:; style-src 'self' file: 'unsafe-inline'"
    (folder / "index.html").write_text(
        f'<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>t</title>'
        f'<meta name="viewport" content="width=device-width"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<link rel="stylesheet" href="a.css"><script src="a.js" defer></script></head><body>{figures}</body></html>'
    )  # fmt: skip
    return folder / "index.html"


def opened(browser, page_file, **options):
    page = browser.new_context(**options).new_page()
    page.errors = []
    page.on("pageerror", lambda e: page.errors.append(str(e)))
    page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
    page.goto(page_file.as_uri())
    return page


def state(page):
    return page.evaluate(
        """() => { const f = document.querySelector('#one');
        const words = [...f.querySelectorAll('.mm-stage svg text')].filter(t => t.getAttribute('display') !== 'none')
            .map(t => t.textContent).filter(t => t.startsWith('number'));
        return [words.join(), f.querySelector('.mm-count').textContent, f.querySelector('.mm-range').value,
                f.querySelector('.mm-caption').textContent.split(' is')[0], f.querySelector('svg > desc').textContent] }"""
    )


def at(i, n=6):
    return [f"number {i}", f"{i} / {n}", str(i), f"Step {i}", f"alt {i}"]


def test_keys_step(browser, page_file):
    page = opened(browser, page_file)
    assert state(page) == at(1)
    page.locator("#one .mm-stage").focus()
    for key, i in [("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2), ("End", 6), ("ArrowRight", 6),
                   ("Home", 1), ("ArrowLeft", 1), ("ArrowDown", 2), ("ArrowUp", 1)]:  # fmt: skip
        page.keyboard.press(key)
        assert state(page) == at(i), key
    page.keyboard.press("Control+ArrowRight")
    assert state(page) == at(1)
    assert page.errors == []


def test_buttons_and_range_step(browser, page_file):
    page = opened(browser, page_file)
    for name, i in [("Next step", 2), ("Last step", 6), ("Previous step", 5), ("First step", 1)]:
        page.locator("#one").get_by_role("button", name=name, exact=True).click()
        assert state(page) == at(i), name
    page.locator("#one .mm-range").focus()
    page.keyboard.press("ArrowRight")
    assert state(page) == at(2)
    page.keyboard.press("End")
    assert state(page) == at(6)
    assert page.errors == []


def test_play_runs_to_the_end_and_can_be_stopped(browser, page_file):
    page = opened(browser, page_file)
    page.clock.install()
    page.reload()
    play = page.locator('#one [data-do="play"]')
    play.click()
    assert play.get_attribute("aria-label") == "Pause"
    page.clock.run_for(3000)
    assert state(page) == at(3)
    play.click()
    page.clock.run_for(5000)
    assert state(page) == at(3)
    page.locator("#one .mm-stage").focus()
    page.keyboard.press("Space")
    page.clock.run_for(20000)
    assert state(page) == at(6) and play.get_attribute("aria-label") == "Play"


def test_a_sampled_run_says_the_real_step(browser, page_file):
    page = opened(browser, page_file)
    page.locator("#two .mm-stage").focus()
    page.keyboard.press("End")
    assert page.locator("#two .mm-count").text_content() == "300 / 300"


def test_nothing_jumps_while_stepping(browser, page_file):
    page = opened(browser, page_file, viewport={"width": 390, "height": 800})
    tops = set()
    page.locator("#one .mm-stage").focus()
    for _ in range(6):
        tops.add(
            page.evaluate(
                "document.querySelector('#one .mm-words').getBoundingClientRect().top + scrollY"
            )
        )
        page.keyboard.press("ArrowRight")
    assert len(tops) == 1


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_sideways_scrolling(browser, page_file, width):
    page = opened(browser, page_file, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_scripts_the_key_frames_stand_there(browser, page_file):
    page = opened(browser, page_file, java_script_enabled=False)
    assert page.locator("#one .mm-bar").is_hidden()
    assert page.locator("#one .mm-stage svg text", has_text="number 3").is_visible()
    assert page.locator("#one .mm-key svg text", has_text="number 6").is_visible()
    assert (
        page.locator("#one .mm-key .mm-caption")
        .inner_text()
        .startswith("Step 6 of 6. Step 6 is here.")
    )
    page.locator("#one summary").click()
    assert page.locator("#one .mm-words li").count() == 6
    assert page.locator("#one .mm-words li").first.is_visible()


def test_it_follows_the_theme(browser, page_file):
    page = opened(browser, page_file)
    fill = "getComputedStyle(document.querySelector('#one .mm-movable')).fill"
    assert page.evaluate(fill) == "rgb(86, 180, 233)"
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert page.evaluate(fill) == "rgb(124, 200, 242)"


def test_reduced_motion_is_respected(browser, page_file):
    for motion, animated in (("reduce", 0), ("no-preference", 1)):
        page = opened(browser, page_file, reduced_motion=motion)
        page.locator("#one .mm-stage").focus()
        page.keyboard.press("ArrowRight")
        assert bool(page.locator("#one .mm-in").count()) == bool(animated)


def test_nothing_for_axe_to_complain_about(browser, page_file):
    axe = ROOT / "tools" / "web" / "node_modules" / "axe-core" / "axe.min.js"
    if not axe.is_file():
        pytest.skip("no axe-core (npm ci in tools/web)")
    page = browser.new_page()
    figures = player.stepper(render("testb.walk"), "one")
    outputs = show(cint.int_sqrt).html() + beside({"a": 1, "b": 2}, {"a": 1, "b": 3}).html()
    for theme in ("light", "dark"):
        ground = {"light": "#ffffff", "dark": "#14181e"}[theme]
        page.set_content(
            f'<!doctype html><html lang="en" data-theme="{theme}"><head><title>t</title><style>body{{background:{ground}}}'
            f"{player.style()}</style></head><body><main><h1>t</h1>{figures}{outputs}</main></body></html>"
        )  # fmt: skip
        page.add_script_tag(content=player.script())
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        page.evaluate(axe.read_text())
        found = page.evaluate("axe.run()")["violations"]
        seen = [(v["id"], v["nodes"][0]["html"][:100]) for v in found]
        assert seen == [], theme


@pytest.mark.parametrize("width", [320, 390, 700, 1280])
def test_words_in_a_drawing_can_be_read(browser, page_file, width):
    page = opened(browser, page_file, viewport={"width": width, "height": 800})
    scale = page.evaluate(
        "document.querySelector('#one .mm-stage svg').getBoundingClientRect().width"
    ) / (svg.WIDTH + 4)
    assert scale * svg.SMALL >= 11
    assert page.evaluate("document.querySelector('#one .mm-stage').tabIndex") == 0
