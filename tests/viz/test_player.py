"""The static stepper: complete without a script, small with many frames, safe with any text."""

import html
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from mmcore.errors import UsageError
from mmcore.viz import Frame, Int, Text, explorable, player, render, svg

HOSTILE = "<img src=x onerror=alert(1)> `</code><script>` **<b>** &amp; ]]>"


@explorable(
    "testp.walk",
    title="A <b>walk</b>",
    key=("mid", "end"),
    params=dict(n=Int(6, 1, 2000), text=Text("x", limit=200)),
)
def walk(p):
    for i in range(p.n):
        d = svg.Drawing()
        d.add(svg.page_grid([svg.Block(i % 64, 0, "movable", focus=True)], nr_pages=64))
        d.add(svg.paragraph(p.text, y=d.bottom + 4))
        mark = "mid" if i == 3 else "end" if i == p.n - 1 else ""
        yield Frame(d, f"**Page {i}.** `{p.text}` {p.text}", f"page {i} of 64: {p.text}", mark)


class Tags(HTMLParser):
    """Collects what a browser would see, with scripting on: the inside of noscript is text."""

    def __init__(self):
        super().__init__()
        self.tags, self.attrs, self.open, self.skip = [], [], [], 0

    def handle_starttag(self, tag, attrs):
        if self.skip:
            return
        self.tags.append(tag)
        self.attrs.append((tag, dict(attrs)))
        if tag == "noscript":
            self.skip = 1
        elif tag not in ("input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        if not self.skip:
            self.tags.append(tag)
            self.attrs.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag == "noscript":
            self.skip = 0
        elif not self.skip:
            assert self.open.pop() == tag


def seen(markup):
    tags = Tags()
    tags.feed(markup)
    assert tags.open == []
    return tags


def test_all_frames_can_be_recovered_from_the_one_svg():
    r = render("testp.walk", {"n": 20})
    merged = player.merged_svg(r.frames, 0, "p", "t")
    _, items = player.split_svg(merged)
    for i, frame in enumerate(r.frames):
        shown = []
        for item in items:
            if item.startswith(("<title", "<desc")):
                continue
            m = re.search(r' data-f="([\d,-]+)"( display="none")?', item)
            spans = [part.split("-") for part in m.group(1).split(",")] if m else [["0", "19"]]
            if any(int(s[0]) <= i <= int(s[-1]) for s in spans):
                shown.append(item.replace(m.group(0), "", 1) if m else item)
        assert shown == player.split_svg(frame.svg)[1]


def test_only_the_chosen_frame_is_visible():
    r = render("testp.walk", {"n": 20})
    for i in (0, 7, 19):
        items = player.split_svg(player.merged_svg(r.frames, i, "p", "t"))[1]
        visible = [re.sub(r' data-f="[^"]*"', "", x) for x in items if 'display="none"' not in x]
        assert visible[2:] == player.split_svg(r.frames[i].svg)[1]


def test_a_long_run_stays_small():
    markup = player.stepper(render("testp.walk", {"n": 119}), "p")
    assert player.count_elements(markup) <= player.MAX_ELEMENTS
    assert len(markup) < 80_000


def test_counting_elements_is_what_a_parser_counts():
    markup = player.stepper(render("testp.walk"), "p")
    assert (
        player.count_elements(markup) == len(seen(markup).tags) - 1
    )  # a parser sees noscript itself
    assert player.count_elements("<a><b/><c>x</c></a>") == 3


def test_hostile_text_never_becomes_markup():
    markup = player.stepper(render("testp.walk", {"text": HOSTILE}), "p", error=HOSTILE)
    tags = seen(markup)
    assert not {"img", "script", "b"} & set(tags.tags)
    assert "<script" not in markup and "<img" not in markup
    for _, attrs in tags.attrs:
        assert not [a for a in attrs if a.startswith("on") or a == "style"]


def test_everything_has_a_name():
    tags = seen(player.stepper(render("testp.walk"), "p"))
    for tag, attrs in tags.attrs:
        if tag in ("button", "input"):
            assert attrs["aria-label"]
        if tag == "button":
            assert attrs["type"] == "button"
        if tag == "svg":
            assert attrs.get("role") == "img" or attrs.get("aria-hidden") == "true"


def test_ids_carry_the_prefix_and_are_unique():
    markup = player.stepper(render("testp.walk"), "pre")
    ids = re.findall(r' id="([^"]+)"', markup)
    assert len(ids) == len(set(ids)) and all(i.startswith("pre") for i in ids)


def test_without_a_script_every_key_frame_and_every_word_is_there():
    r = render("testp.walk")
    markup = player.stepper(r, "p")
    assert '<div class="mm-bar" hidden>' in markup
    hidden = re.search(r"<noscript>(.*?)</noscript>", markup, re.S).group(1)
    assert hidden.count("<svg") == len(r.key_frames) - 1
    assert player.inline(r.key_frames[0].caption) in markup.split("<noscript>")[0]
    words = markup.split("<details")[1]
    for f in r.frames:
        assert player.inline(f.caption) in words and svg.esc(f.alt) in words


def test_a_stepper_that_opens_elsewhere_keeps_every_key_frame():
    markup = player.stepper(render("testp.walk"), "p", start=2)
    hidden = re.search(r"<noscript>(.*?)</noscript>", markup, re.S).group(1)
    assert hidden.count("<svg") == 2 and "Page 3." in hidden and "Page 5." in hidden
    markup = player.stepper(render("testp.walk"), "p", start="end")
    hidden = re.search(r"<noscript>(.*?)</noscript>", markup, re.S).group(1)
    assert hidden.count("<svg") == 1 and "Page 3." in hidden


def test_a_description_that_repeats_the_caption_is_printed_once():
    d = svg.Drawing().add(svg.paragraph("x"))
    r = render("testp.walk", {"n": 1})
    one = type(r)(
        r.explorable,
        r.values,
        [Frame(d, "**It merges.**", "It merges. Two blocks remain.", step=1)],
        1,
    )
    words = player.stepper(one, "p").split("<details")[1]
    assert '<p class="mm-alt" data-join>Two blocks remain.</p>' in words


def test_one_frame_needs_no_controls():
    markup = player.stepper(render("testp.walk", {"n": 1}), "p")
    assert "mm-bar" not in markup and "noscript" not in markup
    assert "tabindex" not in markup.split("<details")[0]


def test_sampling_is_said():
    markup = player.stepper(render("testp.walk", {"n": 500}), "p")
    assert re.search(r"\d+ of 500 steps are drawn", markup)
    assert '<li value="500">' in markup


def test_captions():
    assert (
        player.inline("**a `b` c** d `<x>`")
        == "<strong>a <code>b</code> c</strong> d <code>&lt;x&gt;</code>"
    )
    assert player.inline("`__GFP_ZERO` * 2 ** 3") == "<code>__GFP_ZERO</code> * 2 ** 3"
    assert player.plain_text("**a `b` c** d") == "a b c d"


def test_ranges():
    assert player.ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert player.ranges([3]) == "3"


def test_key_frames_travel_in_one_svg():
    r = render("testp.walk", {"text": HOSTILE})
    whole = player.key_svg(r, "k")
    root = ET.fromstring(whole)
    assert root.get("role") == "img"
    parts = player.split_key_svg(whole)
    assert [alt for _, _, alt in parts] == [player.plain_text(f.alt) for f in r.key_frames]
    for (one, caption, _), f in zip(parts, r.key_frames, strict=True):
        assert player.split_svg(one)[1] == player.split_svg(f.svg)[1]
        assert player.view_box(one) == player.view_box(f.svg)
        assert caption == f"Step {f.step} of 6. {f.caption}"
    assert player.split_key_svg("<svg></svg>") == []


def test_a_printed_drawing_places_each_glyph_by_itself():
    part = svg.bit_fields(0b1011, [svg.FieldSpec("f", 3, 0)], bits=4, listing=False)
    before = str(svg.Drawing().add(part))
    after = player.glyph_by_glyph(before)
    root = ET.fromstring(after)
    digits = [
        e for e in root.iter("{http://www.w3.org/2000/svg}text") if e.get("font-weight") == "700"
    ]
    assert [e.text for e in digits] == ["1", "0", "1", "1"]
    places = re.search(r' x="([\d.]+ [^"]+)"', before).group(1).split()
    assert [e.get("x") for e in digits] == places
    assert not any(" " in e.get("x", "") for e in root.iter())
    plain = str(svg.Drawing().add(svg.paragraph("a b")))
    assert player.glyph_by_glyph(plain) == plain


def test_the_words_of_key_frames_are_in_the_picture_too():
    text = "".join(ET.fromstring(player.key_svg(render("testp.walk"), "k")).itertext())
    assert "Step 4 of 6. Page 3." in html.unescape(text)


@pytest.mark.parametrize("bad", ["", "x", "<p>x</p>", "<svg><g></svg", "<svg/>"])
def test_a_drawing_that_is_none(bad):
    with pytest.raises(UsageError):
        player.split_svg(bad)


def test_style_and_script_are_self_contained():
    for text in (player.style(), player.script()):
        assert "http" not in text and "@import" not in text and "url(" not in text
    code = player.script()
    assert "eval(" not in code and "new Function" not in code and "document.write" not in code


def test_rendering_is_deterministic():
    a = player.stepper(render("testp.walk", {"n": 300}), "p")
    b = player.stepper(render("testp.walk", {"n": "300"}), "p")
    assert a == b


def test_a_drawing_can_stand_alone():
    f = render("testp.walk").frames[0]
    root = ET.fromstring(player.standalone(f.svg, "A walk", f.alt))
    assert root.get("role") == "img"
    style = root.find("{http://www.w3.org/2000/svg}style").text
    assert "prefers-color-scheme:dark" in style and ".mm-movable{fill:#7CC8F2}" in style
    ground = root.find("{http://www.w3.org/2000/svg}rect")
    assert ground.get("class") == "mm-paper" and float(ground.get("width")) == svg.WIDTH + 4


def test_a_stepper_opens_where_it_is_told() -> None:
    from mmcore.viz import explore
    from mmcore.viz.explorable import ParamError

    figure = explore("ch02.buddy", start="merge", pages=64)
    first = next(i for i, f in enumerate(figure.rendering.frames) if f.mark == "merge")
    assert f'data-start="{first}"' in figure.html()
    assert 'data-start="1"' in explore("ch02.buddy", start=2, pages=64).html()
    assert "data-start" not in explore("ch02.buddy", pages=64).html()
    for wrong in (0, 10_000, "no such mark"):
        with pytest.raises(ParamError, match="start"):
            explore("ch02.buddy", start=wrong, pages=64).html()
