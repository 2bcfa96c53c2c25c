"""Properties that hold for any text, any script and any run of frames."""

import importlib
import re
import xml.etree.ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

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
    player,
    svg,
)

ex = importlib.import_module("mmcore.viz.explorable")

quick = settings(max_examples=150, deadline=None, derandomize=True)
VERBS = {"alloc": Int(0, 0, 10), "move": (Hex(0), Choice("up", ["up", "down"])), "drain": None}
PARAMS = [
    Int(5, 0, 9),
    Int(64, 64, 640, step=64),
    Float(0.5),
    Bool(True),
    Choice("a", ["a"]),
    Hex(0),
    Text("", limit=50),
    Seed(),
    Actions("", verbs=VERBS),
]
anything = st.one_of(
    st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.binary(max_size=9),
    st.lists(st.one_of(st.text(), st.integers(), st.lists(st.text(), max_size=3)), max_size=4),
)  # fmt: skip
step = st.one_of(
    st.tuples(st.just("alloc"), st.integers(0, 10)),
    st.tuples(st.just("move"), st.integers(0, 2**64 - 1), st.sampled_from(["up", "down"])),
    st.tuples(st.just("drain")),
)


@quick
@given(st.sampled_from(PARAMS), anything)
def test_a_parameter_takes_a_value_or_says_why_not(param, value):
    try:
        parsed = param.parse("p", value)
    except ParamError as err:
        assert err.param == "p" and err.text and len(err.text) < 300
    else:
        assert param.parse("p", param.format(parsed)) == parsed


@quick
@given(st.lists(step, max_size=20))
def test_a_script_survives_being_written_down(steps):
    a = Actions("", verbs=VERBS)
    assert a.parse("s", a.format(steps)) == steps
    assert a.parse("s", steps) == steps


@quick
@given(st.text())
def test_any_text_is_safe_in_a_drawing(value):
    d = svg.Drawing().add(svg.paragraph(value, width=200), svg.text(0, 0, value))
    root = ET.fromstring(str(d))
    assert {e.tag.partition("}")[2] for e in root.iter()} <= {"svg", "text"}
    ET.fromstring(svg.finish(str(d), "p", value, value))


@quick
@given(st.text())
def test_any_caption_is_balanced_markup(value):
    inner = player.inline(value)
    root = ET.fromstring(f"<p>{inner}</p>")
    assert {e.tag for e in root.iter()} <= {"p", "code", "strong"}


@quick
@given(st.text(), st.floats(20, 400))
def test_wrapping_loses_no_word(value, width):
    wrapped = svg.wrap(value, width)
    assert "".join("".join(wrapped).split()) == "".join(value.split())


@quick
@given(st.lists(st.lists(st.integers(0, 6), max_size=8), min_size=1, max_size=8))
def test_merged_frames_can_be_told_apart_again(runs):
    frames = []
    for run in runs:
        d = svg.Drawing(height=20)
        d.add(*(svg.rect(n, 0, 5, 5, "free") for n in run))
        frames.append(Frame(str(d), "c", "a"))
    _, items = player.split_svg(player.merged_svg(frames, 0, "p", "t"))
    for i, frame in enumerate(frames):
        shown = []
        for item in items[2:]:
            m = re.search(r' data-f="([\d,-]+)"( display="none")?', item)
            spans = (
                [s.split("-") for s in m.group(1).split(",")] if m else [["0", str(len(frames))]]
            )
            if any(int(s[0]) <= i <= int(s[-1]) for s in spans):
                shown.append(item.replace(m.group(0), "") if m else item)
        assert shown == player.split_svg(frame.svg)[1]


@quick
@given(st.integers(1, 3000), st.sets(st.integers(0, 2999), max_size=3))
def test_sampling_keeps_ends_and_marks(n, marked):
    keys = {k: f"k{i}" for i, k in enumerate(sorted(marked))}
    run = (Frame("<svg></svg>", "c", "a", keys.get(i, "")) for i in range(n))
    frames, total = ex._sampled(run, tuple(keys.values()), "x")
    steps = [f.step for f in frames]
    assert total == n and len(frames) <= ex.MAX_FRAMES
    assert steps == sorted(set(steps)) and steps[0] == 1 and steps[-1] == n
    assert {k + 1 for k in keys if k < n} <= set(steps)
