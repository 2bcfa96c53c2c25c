"""What every registered explorable owes its readers. New chapters inherit this: nothing is listed here."""

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
import zlib

import pytest

import mmcore.viz.figures
from mmcore.errors import KernelBug
from mmcore.viz import Actions, ParamError, palette, player, render, svg

ex = importlib.import_module("mmcore.viz.explorable")

MODULES = sorted(m.name for m in pkgutil.iter_modules(mmcore.viz.figures.__path__))
for module in MODULES:
    importlib.import_module(f"mmcore.viz.figures.{module}")
NAMES = [n for n in ex.names() if n.partition(".")[0] in MODULES]
SVG = "{http://www.w3.org/2000/svg}"

every_figure = pytest.mark.parametrize("name", NAMES)
_cache = {}


def rendered(name):
    """Return the figure at its defaults, rendered once for all tests."""
    if name not in _cache:
        _cache[name] = render(name)
    return _cache[name]


def check_frames(r):
    """Assert what must hold for any values."""
    assert 1 <= len(r.frames) <= ex.MAX_FRAMES
    for f in r.frames:
        assert (
            f.caption.strip() and f.alt.strip()
        ), f"step {f.step} has no caption or no alternative text"
        assert "image of" not in f.alt.lower() and "figure showing" not in f.alt.lower()
        ET.fromstring(f.svg)
    json.dumps(r.to_dict())


@every_figure
def test_it_renders_at_its_defaults(name):
    check_frames(rendered(name))


@every_figure
def test_it_renders_at_the_edges_of_every_parameter(name):
    figure = ex.find(name)
    for param, kind in figure.params.items():
        for value in kind.boundaries():
            try:
                check_frames(render(name, {param: value}))
            except ParamError as err:
                assert err.text and "Traceback" not in err.text, (param, value)
                # An action may ask for what is a BUG in the kernel; a plain value may not.
                assert isinstance(kind, Actions) or not isinstance(err.__cause__, KernelBug), err


@every_figure
def test_an_empty_script_shows_the_start_or_says_what_is_missing(name):
    for param, kind in ex.find(name).params.items():
        if isinstance(kind, Actions):
            try:
                check_frames(render(name, {param: ""}))
            except ParamError as err:
                assert err.text != "there is nothing to show for these values", "say what to add"


@every_figure
def test_every_declared_key_frame_occurs(name):
    r = rendered(name)
    marks = {f.mark for f in r.frames}
    assert set(r.explorable.key) <= marks, set(r.explorable.key) - marks


@every_figure
def test_key_frames_say_more_than_one_another(name):
    alts = [f.alt for f in rendered(name).key_frames]
    assert len(alts) == len(set(alts))


@every_figure
def test_its_stepper_is_small(name):
    markup = player.stepper(rendered(name), "p")
    n = player.count_elements(markup)
    assert (
        n <= player.MAX_ELEMENTS
    ), f"{n} elements; keep what does not change byte-identical between frames"


@every_figure
def test_its_drawings_obey_the_rules(name):
    for f in rendered(name).frames:
        assert "var(" not in f.svg
        root = ET.fromstring(f.svg)
        _left, top, width, height = (float(v) for v in root.get("viewBox").split())
        assert width == svg.WIDTH + 4
        for e in root.iter():
            assert e.get("id") is None and e.get("style") is None
            size = e.get("font-size")
            assert size is None or float(size) >= svg.SMALL
            for paint in ("fill", "stroke"):
                assert re.fullmatch(r"#[0-9A-Fa-f]{6}|none", e.get(paint, "none")), e.attrib
            if e.tag == SVG + "text":
                assert e.get("class"), f"text without a class stays black in the dark: {e.text!r}"
                assert -2 <= float(e.get("y")) <= top + height, (e.text, e.get("y"), height)


@every_figure
def test_its_texts_do_not_run_out_of_the_drawing(name):
    for f in rendered(name).frames:
        for e in ET.fromstring(f.svg).iter(SVG + "text"):
            if " " in e.get("x", "0"):
                continue
            mono = "mono" in e.get("font-family", "")
            w = svg.text_width(e.text or "", float(e.get("font-size", svg.SIZE)), mono=mono)
            shift = {"start": 0, "middle": w / 2, "end": w}[e.get("text-anchor", "start")]
            start = float(e.get("x")) - shift
            # text_width() is generous, hence the tenth.
            assert start >= -2 - w * 0.1 and start + w * 0.9 <= svg.WIDTH + 2, (
                e.text,
                start,
                start + w,
            )


@every_figure
def test_its_colours_are_the_palettes(name):
    known = {h.light for h in palette.HUES.values()} | {i.light for i in palette.INKS.values()}
    known |= {palette.BLACK, palette.WHITE}
    for f in rendered(name).frames:
        assert set(re.findall(r'(?:fill|stroke)="(#[^"]+)"', f.svg)) <= known


@every_figure
def test_it_survives_the_way_to_a_browser_and_back(name):
    data = rendered(name).to_dict()
    sent = json.loads(json.dumps(data))
    assert render(name, sent["values"]).to_dict() == sent


def test_figures_are_the_same_in_another_process():
    """Neither the order of sets nor an address nor a clock may reach a figure."""
    if not NAMES:
        pytest.skip("no figures yet")
    code = (
        "import sys, zlib\nfrom mmcore.viz import render\n"
        "for n in sys.argv[1:]:\n"
        "    print(n, zlib.crc32(repr(render(n).to_dict()).encode()))"
    )
    env = os.environ | {"PYTHONHASHSEED": "4711"}
    command = [sys.executable, "-c", code, *NAMES]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    here = [f"{n} {zlib.crc32(repr(rendered(n).to_dict()).encode())}" for n in NAMES]
    assert out.splitlines() == here
