"""The directive ``{live-tool} NAME``: a tool of `mmcore.report.workbench` on a reader's own text.

With scripts the page gets a field, buttons and a place for the answer. Without them, and in the PDF, there stand the
example, its answer (computed while the book is built) and the command that does the same.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

#: What the page's script is told about a tool.
TOLD = ("title", "prompt", "placeholder", "rows", "example")


class LiveTool(SphinxDirective):
    """See the module's docstring."""

    required_arguments = 1
    final_argument_whitespace = False

    def run(self) -> list[nodes.Node]:
        from mmcore.report import workbench

        name = self.arguments[0]
        tools = workbench.tools()
        if name not in tools:
            raise self.error(
                f"there is no workbench tool {name!r}; there are: {', '.join(sorted(tools))}"
            )
        tool = tools[name]
        answer = workbench.run(name, tool["example"])
        if not answer["ok"]:
            raise self.error(f"the example of {name!r} is refused: {answer.get('error')}")
        about = json.dumps({key: tool[key] for key in TOLD})
        opening = f'<div class="mm-tool" data-tool="{escape(name)}" data-about="{escape(about)}">'
        parts: list[nodes.Node] = [
            nodes.raw("", opening, format="html"),
            nodes.raw(
                "",
                "<details open><summary>An example and its answer</summary>",
                format="html",
            ),
            self._text(tool["example"]),
            self._text(answer["text"]),
            nodes.raw("", "</details>", format="html"),
        ]
        if tool.get("command"):
            words = nodes.paragraph("", "", classes=["mm-tool-command"])
            words += nodes.Text("The same on the command line: ")
            words += nodes.literal("", tool["command"])
            parts.append(words)
        parts.append(nodes.raw("", "</div>", format="html"))
        return parts

    def _text(self, text: str) -> nodes.literal_block:
        block = nodes.literal_block(text.rstrip("\n"), text.rstrip("\n"), language="none")
        self.set_source_info(block)
        return block


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("live-tool", LiveTool)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
