"""Number chapters, sections and figures by the chapter's file name: ``02-physical-memory`` is chapter 2.

Sphinx counts the pages it is given. This book grows chapter by chapter and not in order, and a reference such
as "figure 7.3" must not change when an earlier chapter is written.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

_CHAPTER = re.compile(r"(?:^|/)(\d\d)-[^/]+$")


def chapter_number(docname: str) -> int | None:
    """Return the number of the chapter that @docname holds, or None if it is not a chapter."""
    found = _CHAPTER.search(docname)
    return int(found.group(1)) if found else None


def _number_toc(node: nodes.Node, prefix: tuple[int, ...]) -> None:
    """Number the entries of a page's table of contents below @prefix."""
    for i, item in enumerate((c for c in node.children if isinstance(c, nodes.list_item)), 1):
        for reference in item.findall(nodes.reference):
            reference["secnumber"] = (*prefix, i)
            break
        for child in item.children:
            if isinstance(child, nodes.bullet_list):
                _number_toc(child, (*prefix, i))


def renumber(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Replace the numbers that Sphinx gave to sections, figures, tables and equations."""
    changed = []
    for docname in sorted(env.found_docs):
        number = chapter_number(docname)
        if number is None or docname not in env.tocs:
            continue
        changed.append(docname)
        numbers: dict[str, tuple[int, ...]] = {}
        toc = env.tocs[docname]
        top = next(toc.findall(nodes.list_item), None)
        if top is None:
            continue
        title = next(top.findall(nodes.reference), None)
        if title is not None:
            title["secnumber"] = (number,)
        for child in top.children:
            if isinstance(child, nodes.bullet_list):
                _number_toc(child, (number,))
        for reference in toc.findall(nodes.reference):
            if "secnumber" in reference and reference.get("refuri") == docname:
                numbers[reference["anchorname"]] = reference["secnumber"]
        env.toc_secnumbers[docname] = numbers
        env.titles[docname]["secnumber"] = (number,)
        env.longtitles[docname]["secnumber"] = (number,)
        _number_floats(env, docname, number)
    return changed


def _number_floats(env: BuildEnvironment, docname: str, number: int) -> None:
    """Number the figures, tables and listings of a chapter in the order they stand in."""
    doctree = env.get_doctree(docname)
    std = env.get_domain("std")
    count: dict[str, int] = {}
    numbers: dict[str, dict[str, tuple[int, ...]]] = {}
    for node in doctree.findall(nodes.Element):
        kind = std.get_enumerable_node_type(node)  # type: ignore[attr-defined]
        if kind is None or kind == "section" or not node["ids"]:
            continue
        if isinstance(node, addnodes.start_of_file):
            continue
        known = env.toc_fignumbers.get(docname, {}).get(kind, {})
        if node["ids"][0] not in known:
            continue  # no caption: it has no number
        count[kind] = count.get(kind, 0) + 1
        numbers.setdefault(kind, {})[node["ids"][0]] = (number, count[kind])
    env.toc_fignumbers[docname] = numbers


def start_latex_chapter(app: Sphinx, doctree: nodes.document) -> None:
    """In the PDF, let chapter 2 be chapter 2, and number no page that is not a chapter."""
    number = chapter_number(app.env.docname)
    depth = -1 if number is None else 2
    latex = rf"\setcounter{{secnumdepth}}{{{depth}}}"
    if number is not None:
        latex += rf"\setcounter{{chapter}}{{{number - 1}}}"
    if app.env.docname == app.config.root_doc:
        latex += r"\chapter{About this book}"  # its own title is the title page
    section = next(doctree.findall(nodes.section), None)
    if section is not None:
        section.parent.insert(
            section.parent.index(section), nodes.raw("", latex + "\n", format="latex")
        )


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("env-get-updated", renumber, priority=900)
    app.connect("doctree-read", start_latex_chapter)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
