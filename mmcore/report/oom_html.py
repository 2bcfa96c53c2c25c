"""An OOM report's analysis as one page, without scripts and without anything from elsewhere.

Everything from the log is escaped. Bars are SVG rectangles with plain fills, so that the page shows them
under any content policy.
"""

from __future__ import annotations

from html import escape

from mmcore.report.oom_parse import OomReport
from mmcore.report.oom_report import MAX_SHOWN, TOP, Analysis, examine, kib, report_lines

__all__ = ["fragment", "page"]

BAR = 320
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em;color:#1a1a1a;"
    "background:#fff}h2{font-size:1.15em;margin:1.6em 0 .4em}table{border-collapse:collapse}"
    "td,th{padding:.15em .8em .15em 0;text-align:right;vertical-align:middle}"
    "td:first-child,th:first-child{text-align:left}pre{overflow-x:auto;background:#f5f5f2;padding:.8em}"
    "svg{vertical-align:middle}@media(prefers-color-scheme:dark){body{color:#e8e8e4;background:#1b1b1b}"
    "pre{background:#262626}}"
)
#: Fill of a part of memory: what it is, in the book's colours; free, anonymous, file, kernel.
FILLS = (("free", "#BFE3D0"), ("anon", "#CC79A7"), ("rss", "#CC79A7"), ("file", "#3B5BA9"))


def _fill(name: str) -> str:
    for part, colour in FILLS:
        if part in name:
            return colour
    return "#D55E00" if name != "in no counter" else "#5A5A5A"


def _bar(part: int, whole: int, fill: str, marks: tuple[int, ...] = ()) -> str:
    """Return a bar of @part in @whole, with marks on it."""
    whole = max(whole, 1)
    width = min(max(part * BAR // whole, 1 if part > 0 else 0), BAR)
    lines = "".join(
        f'<rect x="{min(mark * BAR // whole, BAR - 1)}" y="0" width="2" height="14" fill="#1a1a1a"/>'
        for mark in marks
    )
    return (
        f'<svg width="{BAR}" height="14" role="img" aria-label="{part} of {whole}">'
        f'<rect width="{BAR}" height="14" fill="#e9e9e4"/>'
        f'<rect width="{width}" height="14" fill="{fill}"/>{lines}</svg>'
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table; the cells are markup already."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _zones(a: Analysis) -> str:
    rows = []
    for z in a.zones:
        need = z.mark + z.reserve
        where = z.zone if z.node is None else f"Node {z.node} {z.zone}"
        scale = max(z.free, need) * 5 // 4
        bar = _bar(z.free, scale, "#BFE3D0", (need,)) if z.allowed else ""
        rows.append([escape(where), f"{z.free}", f"{need}", bar, escape(z.why)])
    if not rows:
        return ""
    head = ["zone", "free pages", "must stay free", "", ""]
    return "<h2>Why no zone would do</h2>" + _table(head, rows)


def _memory(a: Analysis) -> str:
    account = a.account
    if account is None:
        return ""
    total = account.total_kb or sum(p.kb for p in account.parts)
    rows = [
        [escape(p.name), kib(p.kb), _bar(p.kb, total, _fill(p.name)), escape(p.words)]
        for p in account.parts
        if p.kb
    ]
    if account.known:
        n = account.unaccounted_kb
        name = "in no counter"
        rows.append([name, kib(n), _bar(max(n, 0), total, _fill(name)), "drivers, vmalloc, ..."])
    return f"<h2>Where memory was: {escape(account.of)}, {kib(total)}</h2>" + _table(
        ["counter", "size", "", ""], rows
    )


def _victims(report: OomReport) -> set[int]:
    return {kill.pid for kill in report.kills if kill.how == "killed"}


def _tasks(a: Analysis) -> str:
    scores = a.ranking.scores
    if not scores:
        return ""
    dead = _victims(a.report)
    shown = scores[: 2 * TOP] + [s for s in scores[2 * TOP :] if s.task.pid in dead][:8]
    most = max((s.high for s in scores if s.eligible), default=1)
    rows = []
    for s in shown:
        points = f"{s.low}" if s.low == s.high else f"{s.low} to {s.high}"
        name = escape(s.task.name) + (" <b>killed</b>" if s.task.pid in dead else "")
        adj = s.task.values.get("oom_score_adj", s.task.values.get("oom_adj", 0))
        rows.append(
            [
                name,
                str(s.task.pid),
                points if s.eligible else "immune",
                _bar(max(s.high, 0), most, "#CC79A7") if s.eligible else "",
                kib(s.task.get("rss") * a.report.mem.page_kb),
                str(adj),
            ]
        )
    return "<h2>Whom the points name</h2>" + _table(
        ["task", "pid", "points", "", "rss", "adj"], rows
    )


def fragment(a: Analysis) -> str:
    """Return one analysis as markup."""
    text = "\n".join(report_lines(a))
    found = "".join(f"<li>{escape(sentence)}</li>" for _, sentence in a.diagnosis)
    return (
        f"<section><p><strong>{escape(a.summary)}</strong></p><ul>{found}</ul>"
        f"{_zones(a)}{_memory(a)}{_tasks(a)}"
        f"<details><summary>All of it as text</summary><pre>{escape(text)}</pre></details></section>"
    )


def page(text: str) -> str:
    """Return the reports of a log as a page.

    :raises ParseError: if there is none
    """
    analyses = examine(text)
    parts = []
    for i, a in enumerate(analyses[:MAX_SHOWN], 1):
        title = f"<h1>OOM report {i} of {len(analyses)}, line {a.report.line}</h1>"
        parts.append(title + fragment(a))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>OOM report</title>'
        f"<style>{STYLE}</style>{''.join(parts)}</html>"
    )
