"""Formulas as MathML, made while the book is built: no script, no font files, nothing to fetch."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape, quoteattr

from docutils import nodes
from docutils.utils.math import MathError, wrap_math_code
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)


def to_mathml(tex: str, node: nodes.Node, block: bool) -> str:
    """Return @tex as a MathML element; a formula that cannot be converted is a warning."""
    try:
        out = tex2mathml(wrap_math_code(tex, block) if block else tex, as_block=block)
    except MathError as error:
        logger.warning("formula not understood: %s: %s", tex, error, location=node)
        return f"<code>{escape(tex)}</code>"
    # A reader without MathML, and a search engine, get the source.
    return str(out).replace("<math", f"<math alttext={quoteattr(tex.strip())}", 1)


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(to_mathml(node.astext(), node, block=False))
    raise nodes.SkipNode


def visit_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    anchor = f" id={quoteattr(node['ids'][0])}" if node.get("ids") else ""
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    formula = to_mathml(node.astext(), node, block=True)
    self.body.append(f'<div class="math-block"{anchor} tabindex="0">{formula}{number}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.config["html_math_renderer"] = "mathml"
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
