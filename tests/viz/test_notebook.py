"""explore(): what a notebook gets while the book is built, and in a live kernel."""

import subprocess
import sys

import pytest

from mmcore.viz import (
    Actions,
    Bool,
    Choice,
    Float,
    Frame,
    Hex,
    Int,
    ParamError,
    Seed,
    Text,
    explorable,
    explore,
    svg,
)

VERBS = {"alloc": Int(0, 0, 10), "drain": None}


@explorable(
    "testn.all",
    title="All controls",
    params=dict(
        n=Int(5, 1, 500, help="how <many>"), big=Int(0, 0, 1 << 30), f=Float(0.5), on=Bool(True),
        kind=Choice("a", {"a": "first", "b": "second"}), mask=Hex(0xCC0), text=Text("x", lines=3), line=Text("y"),
        seed=Seed(1), script=Actions("alloc 1", verbs=VERBS),
    ),
)  # fmt: skip
def everything(p):
    if p.n == 13:
        raise ParamError("n", "13 is unlucky <b>")
    if p.n == 14:
        raise ParamError("", "nothing at all")
    for i in range(p.n + len(p.script)):
        yield Frame(svg.Drawing().add(svg.paragraph(f"{i}")), f"Step `{i}`.", f"number {i}")


def test_the_book_gets_html_and_svg_and_nothing_else(monkeypatch):
    monkeypatch.setenv("MMCORE_BOOK", "1")
    bundle = explore("testn.all")._repr_mimebundle_()
    assert list(bundle) == ["text/html", "image/svg+xml"]
    assert "<script" not in bundle["text/html"] and "<style" not in bundle["text/html"]


def test_building_the_book_never_imports_ipywidgets():
    code = (
        "import sys; from mmcore.viz import *; from mmcore.viz import svg\n"
        "@explorable('testn.x', title='x')\n"
        "def x(p): yield Frame(svg.Drawing().add(svg.paragraph('x')), 'c', 'a')\n"
        "explore('testn.x')._repr_mimebundle_()\n"
        "bad = {'ipywidgets', 'numpy', 'matplotlib', 'pandas', 'IPython'} & set(sys.modules)\n"
        "print(sorted(bad)); sys.exit(bool(bad))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"MMCORE_BOOK": "1", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_ipywidgets_the_output_brings_its_own_script(monkeypatch):
    monkeypatch.delenv("MMCORE_BOOK", raising=False)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.delitem(sys.modules, "mmcore.viz.widgets", raising=False)
    bundle = explore("testn.all")._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/svg+xml", "text/plain"}
    assert "mmFigures" in bundle["text/html"] and "<style>" in bundle["text/html"]


def test_a_live_kernel_gets_widgets(monkeypatch):
    pytest.importorskip("ipywidgets")
    monkeypatch.delenv("MMCORE_BOOK", raising=False)
    bundle = explore("testn.all")._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and "text/html" in bundle


def test_two_figures_of_a_page_have_different_ids(monkeypatch):
    monkeypatch.setenv("MMCORE_BOOK", "1")
    one, two = explore("testn.all").html(), explore("testn.all").html()
    other = explore("testn.all", n=3).html()
    import re

    ids = [set(re.findall(r' id="([^"]+)"', m)) for m in (one, two, other)]
    assert not ids[0] & ids[1] and not ids[0] & ids[2] and not ids[1] & ids[2]


def test_a_wrong_value_says_what_is_allowed():
    with pytest.raises(ParamError, match="0 is too small; it may be 1 to 500"):
        explore("testn.all", n=0)


def panel(**values):
    pytest.importorskip("ipywidgets")
    return explore("testn.all", **values).widget().mm_panel


def test_every_parameter_has_a_control():
    p = panel()
    assert list(p.controls) == [
        "n",
        "big",
        "f",
        "on",
        "kind",
        "mask",
        "text",
        "line",
        "seed",
        "script",
    ]
    for name, control in p.controls.items():
        assert control.input.description == name
        assert control.read() == p.rendering.values[name]


def test_a_panel_opens_where_it_is_told():
    pytest.importorskip("ipywidgets")
    p = explore("testn.all", start=3).widget().mm_panel
    assert p.frame.step == 3 and p.count.value == "3 of 6"


def test_a_changed_value_recomputes():
    p = panel()
    p.controls["n"].input.value = 9
    assert len(p.rendering.frames) == 10 and p.count.value == "1 of 10"
    p.step(4)
    assert "Step <code>4</code>." in p.caption.value and ">4<" in p.stage.value
    p.step(100)
    assert p.frame.step == 10
    p.controls["n"].input.value = 2
    assert p.frame.step == 3


def test_a_wrong_value_leaves_the_figure_and_is_said_beside_its_control():
    p = panel()
    before = p.rendering
    p.controls["mask"].input.value = "zz<b>"
    assert p.rendering is before
    assert (
        "base 16" in p.controls["mask"].error.value and "<b>" not in p.controls["mask"].error.value
    )
    assert p.controls["n"].error.value == ""
    p.controls["mask"].input.value = "0x1"
    assert p.controls["mask"].error.value == "" and p.rendering.values["mask"] == 1


def test_what_the_figure_refuses_is_said_where_it_belongs():
    p = panel()
    p.controls["n"].input.value = 13
    assert "unlucky &lt;b&gt;" in p.controls["n"].error.value
    p.controls["n"].input.value = 14
    assert "nothing at all" in p.error.value
    p.controls["n"].input.value = 3
    assert p.error.value == p.controls["n"].error.value == ""


def test_verbs_add_and_undo():
    p = panel()
    script = p.controls["script"]
    script.verbs["alloc"][1][0].value = "7"
    script.add("alloc")
    script.add("drain")
    assert script.input.value == "alloc 1; alloc 7; drain"
    assert p.rendering.values["script"] == [("alloc", 1), ("alloc", 7), ("drain",)]
    assert p.frame.step == p.rendering.total, "who adds an action sees what it did"
    script.undo()
    script.undo()
    assert script.input.value == "alloc 1" and script.undo_button.disabled
    script.verbs["alloc"][1][0].value = "77"
    script.add("alloc")
    assert "77 is too large" in script.error.value and script.input.value == "alloc 1"


def test_reset_restores_every_value():
    p = panel(n=4, script="drain")
    p.controls["n"].input.value = 9
    p.controls["script"].input.value = "alloc 2"
    p.controls["mask"].input.value = "zz"
    p.restore()
    assert p.rendering.values["n"] == 4 and p.rendering.values["script"] == [("drain",)]
    assert p.controls["mask"].error.value == "" and p.controls["mask"].input.value == "0xcc0"


def test_no_label_of_a_control_is_cut():
    pytest.importorskip("ipywidgets")
    panel = explore("ch03.walk").widget().mm_panel
    labels = {c.input.description: c.input.style.description_width for c in panel.controls.values()}
    longest = max(labels, key=len)
    assert len(longest) > 15
    assert float(labels[longest].removesuffix("em")) > 0.6 * len(longest)
    assert len(set(labels.values())) == 1  # they stand in one line
