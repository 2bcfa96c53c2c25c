"""Kernel citations: ``[`expand()`](kernel:mm/page_alloc.c#expand)`` becomes a link to that line of the stable tree.

Every citation is looked up in the index of the reference source; one that is not there is a warning, and a
warning fails the build.
"""

from __future__ import annotations

import re
from typing import Any

import kernelindex
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

logger = logging.getLogger(__name__)

#: The heading that `show()` prints over an engine function.
_SHOWN = re.compile(
    r'(<a class="mm-kernel" href=")[^"]*("><code>(?P<path>[\w./-]+)</code>: <code>(?P<name>\w+)\(\)</code></a>)'
)


def _add_index_entry(app: Sphinx, node: nodes.reference, path: str, name: str) -> None:
    """Let the book's index name @name where a page first cites it."""
    if isinstance(node.parent, nodes.TextElement) and not isinstance(node.parent, nodes.title):
        anchor = f"kernel-{app.env.new_serialno('kernel')}-{nodes.make_id(name)}"
        entry = ("single", f"{name}; {path}", anchor, "", None)
        node["ids"].append(anchor)  # the link itself is the place: a search shows its words
        node.parent.insert(node.parent.index(node), addnodes.index(entries=[entry]))


def resolve(app: Sphinx, doctree: nodes.document) -> None:
    """Give the page's kernel links their addresses."""
    index = kernelindex.load()
    indexed: set[tuple[str, str]] = set()
    for node in list(doctree.findall(nodes.reference)):
        uri = node.get("refuri", "")
        if not uri.startswith("kernel:"):
            continue
        found = kernelindex.CITATION.fullmatch(uri)
        if found is None:
            logger.warning("not a kernel citation: %s (kernel:path#name)", uri, location=node)
            continue
        path, name = found.group("path"), found.group("name")
        problem = index.problem(path, name)
        if problem:
            logger.warning("kernel citation: %s", problem, location=node)
        node["refuri"] = index.url(path, name)
        node["reftitle"] = f"{path}{': ' + name if name else ''}, Linux {index.release}"
        node["classes"].append("kernel")
        if name and (path, name) not in indexed:
            indexed.add((path, name))
            _add_index_entry(app, node, path, name)

    def line(m: re.Match[str]) -> str:
        return m.group(1) + index.url(m.group("path"), m.group("name")) + m.group(2)

    for node in doctree.findall(nodes.raw):
        if node.get("format") == "html" and "mm-kernel" in node.astext():
            text = _SHOWN.sub(line, node.astext())
            node.rawsource = text
            node.children = [nodes.Text(text)]


class KernelLinks(SphinxTransform):
    """Resolve before the domains collect what a page holds (850), or the index would miss the entries."""

    default_priority = 800

    def apply(self, **kwargs: Any) -> None:
        resolve(self.app, self.document)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(KernelLinks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
