"""Shapes: well-formed, escaped, coloured by class and by plain fill, within their width."""

import re
import xml.etree.ElementTree as ET

import pytest

from mmcore.errors import UsageError
from mmcore.viz import palette, svg

HOSTILE = "<script>alert(1)</script> & \"q\" 'a' ]]> \x00\x1b\ud800 \ufffe"


def parse(drawing):
    return ET.fromstring(str(drawing).encode("utf-8", "strict"))


def drawn(*parts):
    d = svg.Drawing()
    for part in parts:
        d.add(part)
    return d


def texts(drawing):
    return [e.text for e in parse(drawing).iter("{http://www.w3.org/2000/svg}text")]


def every_shape(word):
    """Return each shape with @word as its text, by name."""
    field = svg.FieldSpec(word, 7, 0, word, kind="free")
    nodes = [
        svg.Node("a", word),
        svg.Node("b", word, 1, 1, "choice", word),
        svg.Node("c", word, 0, 2, "end"),
    ]
    edges = [
        svg.Edge("a", "b", word),
        svg.Edge("b", "c", word),
        svg.Edge("c", "a", word, side="left"),
    ]
    return {
        "page_grid": svg.page_grid([svg.Block(0, 5, "movable", label=word[:4])], nr_pages=64),
        "page_strip": svg.page_strip([svg.Block(0, 5, "free", label=word[:4])], nr_pages=64, label=word),
        "free_lists": svg.free_lists([(word, [svg.Entry(word), svg.Entry(7, "movable", True)])], heading=(word, word)),
        "gauge": svg.gauge(5, [(word, 3)], top=10, users=[(word, 3, True), (word, 9.5, False)], unit=word),
        "bit_fields": svg.bit_fields(0xFF, [field], bits=32),
        "bytes_map": svg.bytes_map([field]),
        "cell_map": svg.cell_map(["free", "", "movable"] * 20, levels=[0.5] * 60, focus=[3], row_labels=[word] * 2),
        "ruler": svg.ruler([(word, 0, 4095, "free"), ("x", 4096, 8191, "hole")], focus=word),
        "walk": svg.walk([svg.WalkStep(word, 3, 0x67, word, table=word), svg.WalkStep("PTE", 9, 1, word, "fault")], leaf=word),
        "walk, to the end": svg.walk([svg.WalkStep("PTE", 511, 5, word)], leaf=word),
        "legend": svg.legend(("free", "movable"), ("dirty", "hole", "focus"), labels={"free": word}),
        "table": svg.table([word, word], [[word, svg.Cell(word, kind="free")], [1, 2]], lit={0}, right={1}, mono={1}),
        "flow": svg.flow(nodes, edges, lit=["a", "b"], now="b", margin=20),
        "lanes": svg.lanes([word, word], [(0, word), (1, word)], arrows=[(1, 1, 0, word)], now=0),
        "tree": svg.tree(svg.TreeNode(word, (svg.TreeNode(word), svg.TreeNode(word, kind="free", focus=True)))),
        "lines": svg.lines([svg.Series(word, [(0, 1), (1, 5)], "movable")], x_label=word, y_label=word, rules=[(word, 3)]),
        "bars": svg.bars([(word, 3), (word, 0)], y_label=word, x_label=word),
        "heatmap": svg.heatmap([(word, [1, None, 3])], top=3, columns=[word, "b", "c"], numbers=True),
        "paragraph": svg.paragraph(word, width=100),
    }  # fmt: skip


SHAPES = list(every_shape("x"))


@pytest.mark.parametrize("name", SHAPES)
def test_hostile_text_stays_text(name):
    drawing = drawn(every_shape(HOSTILE)[name])
    tags = {e.tag.partition("}")[2] for e in parse(drawing).iter()}
    assert tags <= {"svg", "rect", "path", "text", "circle"}
    assert "<script" not in str(drawing)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_obeys_the_drawing_rules(name):
    drawing = drawn(every_shape("word")[name])
    source = str(drawing)
    assert "var(" not in source and " id=" not in source and " style=" not in source
    for e in parse(drawing).iter():
        for paint in ("fill", "stroke"):
            assert re.fullmatch(r"#[0-9A-F]{6}|none", e.get(paint, "none")), e.attrib
        painted = e.get("fill", "none") != "none" or e.get("stroke", "none") != "none"
        if painted and e.tag.endswith(("rect", "path", "text", "circle")):
            assert e.get("class"), e.attrib
        size = e.get("font-size")
        assert size is None or float(size) >= svg.SMALL


@pytest.mark.parametrize("name", SHAPES)
def test_class_and_plain_colour_agree(name):
    for e in parse(drawn(every_shape("word")[name])).iter():
        for word in (e.get("class") or "").split():
            key = word.removeprefix("mm-")
            if key in palette.HUES:
                assert e.get("fill") == palette.HUES[key].light
            if key.startswith("l-") and key[2:] in palette.INKS:
                assert e.get("stroke") == palette.INKS[key[2:]].light


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_stays_within_its_width(name):
    for e in parse(drawn(every_shape("word")[name])).iter():
        if e.tag.endswith("text") and " " not in e.get("x", "0"):
            w = svg.text_width(e.text or "", float(e.get("font-size", svg.SIZE)))
            left = (
                float(e.get("x"))
                - {"start": 0, "middle": w / 2, "end": w}[e.get("text-anchor", "start")]
            )
            assert left >= -2 and left + w <= svg.WIDTH + 6, (e.text, left, left + w)


def test_a_block_over_whole_rows_is_one_rectangle():
    part = svg.page_grid([svg.Block(32, 6, "movable")], nr_pages=128, per_row=32, width=352)
    paths = [i for i in part.items if "mm-movable" in i]
    assert len(paths) == 1
    assert paths[0].count("M") == 1 and paths[0].count("H") == 2 and paths[0].count("V") == 1


def test_a_block_is_one_element_however_large():
    small = svg.page_grid([svg.Block(0, 0, "free", label="")], nr_pages=4096, per_row=64)
    large = svg.page_grid([svg.Block(0, 10, "free", label="")], nr_pages=4096, per_row=64)
    assert len(small.items) == len(large.items)


def test_rows_carry_the_pfn_of_their_first_page():
    d = drawn(svg.page_grid([], nr_pages=128, start_pfn=1024, per_row=64))
    assert [t for t in texts(d) if t] == ["1024", "1088"]


def test_a_block_says_letter_and_order():
    d = drawn(
        svg.page_grid(
            [
                svg.Block(0, 3, "unmovable"),
                svg.Block(8, 3, "free"),
                svg.Block(16, nr=9, kind="anon"),
            ],
            nr_pages=32,
        )
    )
    assert {"U3", "3", "a"} <= set(texts(d))


def test_a_hole_has_no_fill():
    part = svg.page_grid([svg.Block(0, nr=8, kind="hole")], nr_pages=32)
    (hole,) = [e for e in parse(drawn(part)).iter() if e.get("stroke-dasharray")]
    assert hole.get("fill") == "none"


def test_states_are_drawn_over_the_hue():
    plain = svg.page_grid([svg.Block(0, 3, "file")], nr_pages=32)
    for state in ("dirty", "writeback", "referenced", "pinned"):
        treated = svg.page_grid([svg.Block(0, 3, "file", states=(state,))], nr_pages=32)
        assert len(treated.items) > len(plain.items), state
    with pytest.raises(UsageError, match="no state 'dirtyy'"):
        svg.page_grid([svg.Block(0, 3, "file", states=("dirtyy",))], nr_pages=32)


def test_hatches_run_both_ways_and_stay_inside():
    for back in (False, True):
        d = svg.hatch(10, 20, 40, 16, "file", back=back)
        for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", d):
            assert 10 <= float(x) <= 50 and 20 <= float(y) <= 36
    assert svg.hatch(0, 0, 40, 16, "file") != svg.hatch(0, 0, 40, 16, "file", back=True)


def test_a_list_is_drawn_in_its_order_and_keeps_its_tail():
    d = drawn(svg.free_lists([("order 0", [svg.Entry(1000 + i) for i in range(50)])]))
    found = [t for t in texts(d) if t and re.fullmatch(r"\d{4}|\+\d+", t)]
    assert found[0] == "1000" and found[-1] == "1049"
    hidden = next(int(t) for t in found if t.startswith("+"))
    assert hidden + len(found) - 1 == 50


def test_bits_show_the_number():
    value = 0x8000000000000867
    part = svg.bit_fields(
        value, [svg.FieldSpec("NX", 63, 63), svg.FieldSpec("P", 0, 0)], listing=False
    )
    digits = [(float(e.get("y")), float(e.get("x").split()[0]), e.text) for e in parse(drawn(part)).iter()
              if e.tag.endswith("text") and e.get("text-anchor") == "middle" and e.get("class", "").startswith("mm-on-")]  # fmt: skip
    assert "".join(t for _, _, t in sorted(digits)) == f"{value:064b}"


def test_text_is_wrapped_at_names():
    assert svg.wrap("get_page_from_freelist()", 90, 12) == [
        "get_page_",
        "from_freelist",
        "()",
    ] or all(part.endswith("_") for part in svg.wrap("get_page_from_freelist()", 90, 12)[:-1])
    assert svg.wrap("one two three", 1000) == ["one two three"]
    assert svg.wrap("a\nb", 100) == ["a", "b"]
    assert "".join(svg.wrap("x" * 200, 50)) == "x" * 200


def test_too_small_a_text_is_refused():
    with pytest.raises(UsageError, match="size 9"):
        svg.text(0, 0, "x", size=9)


def test_an_unknown_colour_is_refused():
    with pytest.raises(UsageError, match="no hue 'green'"):
        svg.rect(0, 0, 1, 1, "green")


def test_a_flow_needs_the_nodes_of_its_edges():
    with pytest.raises(UsageError, match="needs a node 'z'"):
        svg.flow([svg.Node("a", "a")], [svg.Edge("a", "z")])


def test_finish_names_and_describes():
    out = svg.finish(str(drawn(svg.paragraph("x"))), "fig-1", "A <title>", "What & why")
    root = ET.fromstring(out)
    assert root.get("role") == "img"
    ids = root.get("aria-labelledby").split()
    found = {e.get("id"): e.text for e in root.iter() if e.get("id")}
    assert [found[i] for i in ids] == ["A <title>", "What & why"]
    with pytest.raises(UsageError, match="id prefix"):
        svg.finish(out, "1 bad", "", "")


def test_a_gauge_clamps_what_lies_outside():
    d = drawn(svg.gauge(1000, [("min", 2000)], top=100))
    for e in parse(d).iter("{http://www.w3.org/2000/svg}rect"):
        assert float(e.get("x")) + float(e.get("width")) <= svg.WIDTH + 1


@pytest.mark.parametrize("top", [0.4, 1, 7, 63, 640, 12345, 10**7])
def test_axis_ticks_are_few_and_cover(top):
    from mmcore.viz.shapes_diagram import _nice

    ticks = _nice(top)
    assert ticks[0] == 0 and ticks[-1] >= top * 0.999 and 3 <= len(ticks) <= 7
