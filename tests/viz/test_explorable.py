"""Parameters, scripts, registry, sampling and the one entry that renders."""

import importlib
import itertools
import json

import pytest

from mmcore.errors import BadPage, KernelBug, UsageError
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
    render,
    svg,
)

# The package exports a function of the same name, which hides the module.
ex = importlib.import_module("mmcore.viz.explorable")

VERBS = {
    "alloc": Int(0, 0, 10),
    "move": (Int(0, 0, 99), Choice("up", ["up", "down"])),
    "drain": None,
}


def drawing(text="x"):
    return svg.Drawing().add(svg.paragraph(text))


@explorable(
    "testx.count",
    title="Counting",
    key=("third", "end"),
    params=dict(
        n=Int(5, 1, 5000),
        f=Float(0.5, 0, 1),
        on=Bool(False),
        kind=Choice("a", {"a": "the first", "b": "the second"}),
        mask=Hex(0xCC0),
        text=Text("hello", limit=10),
        seed=Seed(7),
        script=Actions("alloc 3; drain", verbs=VERBS),
    ),
)
def count(p):
    for i in range(p.n):
        mark = "third" if i == 2 else "end" if i == p.n - 1 else ""
        yield Frame(
            drawing(f"{i} {p.text}"), f"Step {i}.", f"number {i}", mark, data={"i": i, "p": [p.f]}
        )


@pytest.mark.parametrize(
    "given, meant",
    [(5, 5), ("5", 5), (" 0x10 ", 16), ("1_000", 1000), ("1,000", 1000), ("010", 10), (3.0, 3)],
)
def test_whole_numbers(given, meant):
    assert Int(0, 0, 5000).parse("n", given) == meant


@pytest.mark.parametrize(
    "given, says",
    [
        ("x", "needs a whole number, not 'x'"),
        ("", "needs a whole number"),
        (2.5, "needs a whole number"),
        (True, "needs a whole number"),
        (None, "needs a whole number"),
        ([], "needs a whole number"),
        ("9" * 5000, "needs a whole number"),
        (-1, "-1 is too small; it may be 0 to 5000"),
        ("5001", "5001 is too large; it may be 0 to 5000"),
    ],
)
def test_whole_numbers_refused(given, says):
    with pytest.raises(ParamError) as e:
        Int(0, 0, 5000).parse("n", given)
    assert e.value.param == "n" and says in e.value.text and "\n" not in e.value.text


def test_steps_of_a_whole_number():
    assert Int(64, 64, 4096, step=64).parse("n", 128) == 128
    with pytest.raises(ParamError, match="nearest below is 64"):
        Int(64, 64, 4096, step=64).parse("n", 100)


@pytest.mark.parametrize("given", ["nan", "x", True, None, "1e999", 1.5, -0.1])
def test_numbers_refused(given):
    with pytest.raises(ParamError):
        Float(0.5, 0, 1).parse("f", given)


@pytest.mark.parametrize(
    "given, meant", [("on", True), ("FALSE", False), (1, True), (False, False), ("no", False)]
)
def test_switches(given, meant):
    assert Bool(True).parse("b", given) is meant


@pytest.mark.parametrize("given", ["maybe", 2, None, ""])
def test_switches_refused(given):
    with pytest.raises(ParamError, match="needs yes or no"):
        Bool(True).parse("b", given)


@pytest.mark.parametrize(
    "given, meant", [("0xCC0", 0xCC0), ("cc0", 0xCC0), (3264, 3264), ("ffff`0000", 0xFFFF0000)]
)
def test_masks(given, meant):
    assert Hex(0).parse("m", given) == meant


@pytest.mark.parametrize("given", ["", "0x", "xyz", "-1", -1, 1 << 64, "1" * 40, None])
def test_masks_refused(given):
    with pytest.raises(ParamError):
        Hex(0).parse("m", given)


def test_choices_and_texts():
    assert Choice("a", ["a", "b"]).parse("c", " b ") == "b"
    with pytest.raises(ParamError, match="'z' is not one of a, b"):
        Choice("a", ["a", "b"]).parse("c", "z")
    with pytest.raises(ParamError, match="has 11 characters; 10 are allowed"):
        Text("", limit=10).parse("t", "x" * 11)


def test_a_script_is_a_list_of_actions():
    a = Actions("", verbs=VERBS)
    assert a.parse("s", " alloc 3;; move 7,down\n drain ") == [
        ("alloc", 3),
        ("move", 7, "down"),
        ("drain",),
    ]
    assert a.parse("s", [("alloc", 3), ["drain"], "move 1 up"]) == [
        ("alloc", 3),
        ("drain",),
        ("move", 1, "up"),
    ]
    assert a.format(a.parse("s", "alloc 3; move 7 down; drain")) == "alloc 3; move 7 down; drain"
    assert a.parse("s", "") == []


@pytest.mark.parametrize(
    "given, says",
    [
        ("alloc 1; frea 3", "action 2, 'frea 3': there is no 'frea'; use alloc, move or drain"),
        ("alloc 11", "action 1, 'alloc 11': 11 is too large; it may be 0 to 10"),
        ("alloc", "alloc takes one argument, not 0"),
        ("drain 3", "drain takes no argument, not 1"),
        ("move 3", "move takes 2 arguments, not 1"),
        ("move 3 left", "'left' is not one of up, down"),
        ("drain;" * 401, "has 401 actions; 400 are allowed"),
        (7, "needs actions such as"),
        ([7], "needs actions such as"),
        ("<script>alert(1)</script>", "there is no '<script>alert"),
    ],
)
def test_scripts_refused(given, says):
    with pytest.raises(ParamError) as e:
        Actions("drain", verbs=VERBS).parse("script", given)
    assert says in str(e.value)


def test_render_takes_defaults_and_text():
    r = render("testx.count")
    assert (r.name, r.title, len(r.frames), r.total, r.sampled) == (
        "testx.count",
        "Counting",
        5,
        5,
        False,
    )
    assert [f.mark for f in r.key_frames] == ["third", "end"]
    assert len(render("testx.count", {"n": "3", "script": "drain"}).frames) == 3
    assert r.values["script"] == [("alloc", 3), ("drain",)]


def test_an_unknown_parameter_or_figure_is_refused_by_name():
    with pytest.raises(ParamError, match=r"m: is not a parameter of testx.count; it has: n, f"):
        render("testx.count", {"m": 1})
    with pytest.raises(
        ParamError, match=r"there is no figure 'testx.cont'; there are: testx.count"
    ):
        render("testx.cont")
    for name in ("", "..", "os.path", "a.b; import os", 7, "ch99.nothing", "../../x.y"):
        with pytest.raises(ParamError):
            render(name)


def test_long_runs_are_sampled_openly():
    r = render("testx.count", {"n": 4999})
    assert r.total == 4999 and r.sampled and len(r.frames) <= ex.MAX_FRAMES
    steps = [f.step for f in r.frames]
    assert steps == sorted(set(steps)) and steps[0] == 1 and steps[-1] == 4999
    assert [f.mark for f in r.key_frames] == ["third", "end"]
    regular = [s for s in steps if s not in (3, 4999)]
    assert len({b - a for a, b in itertools.pairwise(regular)}) == 1


def test_the_longest_unsampled_run():
    r = render("testx.count", {"n": ex.MAX_FRAMES - 1})
    assert not r.sampled and len(r.frames) == ex.MAX_FRAMES - 1


def test_rendering_survives_json():
    data = render("testx.count").to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["values"]["mask"] == "0xcc0" and data["values"]["script"] == "alloc 3; drain"
    again = render("testx.count", data["values"]).to_dict()
    assert again == data
    assert data["params"]["script"]["verbs"]["move"][1]["kind"] == "choice"
    assert data["frames"][0]["svg"].startswith("<svg") and data["key"] == [2, 4]


def test_what_the_engine_refuses_is_said_at_the_script():
    @explorable("testx.bad", title="x", params=dict(script=Actions("go", verbs={"go": None})))
    def bad(p):
        yield Frame(drawing(), "c", "a")
        raise BadPage(5, "nonzero _refcount")

    with pytest.raises(ParamError, match="nonzero _refcount") as e:
        render("testx.bad")
    assert e.value.param == "script" and isinstance(e.value.__cause__, KernelBug)


def test_a_figures_own_refusal_passes():
    @explorable("testx.picky", title="x", params=dict(n=Int(1, 0, 9)))
    def picky(p):
        raise ParamError("n", "not today")
        yield

    with pytest.raises(ParamError, match="n: not today"):
        render("testx.picky")


def test_a_figure_without_frames_says_so():
    @explorable("testx.empty", title="x")
    def empty(p):
        return iter(())

    with pytest.raises(ParamError, match="nothing to show"):
        render("testx.empty")


def test_an_endless_figure_is_stopped(monkeypatch):
    monkeypatch.setattr(ex, "MAX_STEPS", 500)

    @explorable("testx.endless", title="x")
    def endless(p):
        while True:
            yield Frame("<svg></svg>", "c", "a")

    with pytest.raises(ParamError, match="more than 500 steps"):
        render("testx.endless")


def test_wrong_declarations_are_refused():
    with pytest.raises(UsageError, match=r"'ch02.buddy'"):
        explorable("Buddy!", title="x")
    with pytest.raises(UsageError, match="its own default is refused"):
        explorable("testx.a", title="x", params=dict(n=Int(99, 0, 9)))
    with pytest.raises(UsageError, match="not a Param"):
        explorable("testx.a", title="x", params={"n": 3})
    with pytest.raises(UsageError, match="not a usable parameter name"):
        explorable("testx.a", title="x", params={"a b": Int(0, 0, 9)})


def test_a_frame_must_be_a_frame():
    @explorable("testx.noframe", title="x")
    def noframe(p):
        yield "svg"

    with pytest.raises(ParamError, match="yielded str, not a Frame"):
        render("testx.noframe")


def test_plain_data():
    from mmcore.trace import Event

    value = {
        "a": (1, 2.5, None),
        3: {"x", "y"},
        "e": Event(1, 0, "t", "model:warn", ("hi",)),
        "inf": float("inf"),
    }
    data = ex.plain(value)
    assert json.loads(json.dumps(data)) == data
    assert data["3"] == ["x", "y"] and data["e"]["name"] == "model:warn"
