"""Plots in the palette: text stays text, colours follow the page, and the same data gives the same bytes."""

import re
import xml.etree.ElementTree as ET

import pytest

from mmcore.errors import UsageError
from mmcore.trace import Event

charts = pytest.importorskip("mmcore.viz.charts")

LOG = [
    Event(10, 0, "init", "kmem:mm_page_alloc", (7, 0, 0xCC0, 1)),
    Event(20, 1, "init", "kmem:mm_page_free", (7, 0)),
]


def plot(title="x"):
    fig, ax = charts.subplots()
    charts.line(ax, [0, 1, 2], [3, 1, 2], "movable", "count <1>")
    charts.line(ax, [0, 1, 2], [1, 1, 2], "ink", "high")
    ax.bar([0], [2], color=charts.colour("free"), edgecolor=charts.colour("ink"))
    ax.set(xlabel="step", ylabel="pages")
    return charts.chart(fig, alt=f"{title} & more", title=title)


def test_a_chart_is_inline_svg_with_a_name():
    c = plot()
    root = ET.fromstring(c.svg())
    words = {"".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"step", "pages", "count <1>", "high"} <= words
    assert root.get("role") == "img" and root.get("width") is None
    assert "x &amp; more" in c.html()


def test_a_chart_follows_the_page():
    c = plot().svg()
    for cls in (
        "mm-paper",
        "mm-free",
        "mm-l-movable",
        "mm-l-ink",
        "mm-t-ink",
        "mm-l-faint",
        "mm-t-muted",
    ):
        assert re.search(rf'class="[^"]*\b{cls}\b', c), cls
    assert "var(" not in c
    assert not re.findall(r'style="[^"]*(?:fill|stroke)[^"]*"', c)
    known = {v.lower() for v in charts._FILL_CLASS}
    assert {v for v in re.findall(r'(?:fill|stroke)="(#[^"]+)"', c)} <= known


def test_a_chart_is_the_same_each_time():
    assert plot().html() == plot().html()


def test_two_charts_share_no_id():
    fig, ax = charts.subplots()
    ax.plot([1, 2], [2, 9])
    other = charts.chart(fig, alt="other")
    one, two = (set(re.findall(r' id="([^"]+)"', c.html())) for c in (plot(), other))
    assert one and two and not one & two


def test_what_is_referred_to_exists():
    c = plot().html()
    ids = set(re.findall(r' id="([^"]+)"', c))
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', c):
        assert target in ids


def test_a_chart_needs_its_alternative_text():
    fig, _ = charts.subplots()
    with pytest.raises(UsageError, match="needs alt="):
        charts.chart(fig, alt=" ")


def test_no_figure_is_left_for_the_notebook_to_show_twice():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    plot()
    assert plt.get_fignums() == before


def test_events_as_a_table():
    frame = charts.events_frame(LOG)
    assert list(frame["event"]) == ["kmem:mm_page_alloc", "kmem:mm_page_free"]
    assert list(frame["pfn"]) == [7, 7] and frame["migratetype"][0] == 1


def test_events_as_a_plot():
    _fig, ax = charts.event_plot(LOG)
    assert ax.get_ylabel() == "pfn" and len(ax.lines) == 2


def test_counters_as_a_plot():
    _fig, ax = charts.vmstat_plot(
        [{"pgfault": 1, "pgmajfault": 0}, {"pgfault": 5, "pgmajfault": 1}],
        ["pgfault", "pgmajfault"],
    )
    assert [list(line.get_ydata()) for line in ax.lines] == [[1, 5], [0, 1]]
    assert {t.get_text() for t in ax.texts} == {"pgfault", "pgmajfault"}


def test_rows_as_a_table():
    frame = charts.series_frame([{"order": 0, "free": 3}, {"order": 1, "free": 1}], index="order")
    assert frame.loc[1, "free"] == 1


def test_a_table_has_no_empty_heading_and_no_style():
    frame = charts.series_frame(
        [
            {"zone": "<DMA>", "free": 3840, "share": 0.5},
            {"zone": "Normal", "free": 7, "share": float("nan")},
        ]
    )
    page = charts.table(frame).html()
    assert (
        "<th></th>" not in page
        and "style" not in page
        and "&lt;DMA&gt;" in page
        and "3,840" in page
    )
    assert page.count("<tr>") == 3 and '<td class="mm-word">Normal</td>' in page
    indexed = charts.table(charts.series_frame([{"order": 3, "free": 1}], index="order"))
    assert '<th scope="col">order</th>' in indexed.html()
    assert "order" in repr(indexed)


def test_a_printed_table_fits_the_line_and_keeps_its_columns():
    many = "many words " * 20
    rows = [{"name": "a", "n": 1234567, "what": many}, {"name": "bb", "n": 2, "what": "few"}]
    frame = charts.series_frame(rows)
    lines = repr(charts.table(frame)).splitlines()
    assert max(map(len, lines)) <= charts.LINE
    assert lines[0] == "name          n  what" and lines[-1] == "bb            2  few"
    assert lines[1].startswith("a     1,234,567  many") and lines[2].startswith(" " * 17 + "words")
    text = "".join(line[17:] + " " for line in lines[1:-1])
    assert text.split() == ["many", "words"] * 20
