"""Give every page a strict Content-Security-Policy, and make the theme's pages fit it.

No script runs in a page but those from its own host and the few inline ones that were there when the book was built:
their digests are in the page. Text that a reader pastes or a link carries can therefore never become code.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

#: What a page may do besides running scripts. Styles may stand in the page: drawings and charts have them.
POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'"
)
#: Handlers in the theme's markup, and what the page's own script (explorables.js) looks for instead.
HANDLERS = {'onclick="window.print()"': 'data-mm-print=""'}

_INLINE = re.compile(r"<script\b(?![^>]*\bsrc=)([^>]*)>(.*?)</script>", re.S)
_HANDLER = re.compile(r"<[a-z][^>]*\s(on[a-z]+)\s*=", re.I)
_META = re.compile(r'\s*<meta http-equiv="Content-Security-Policy"[^>]*>')


def hashes(page: str) -> list[str]:
    """Return the sources that allow a page's inline scripts, each one once, in order."""
    found: dict[str, None] = {}
    for _, script in _INLINE.findall(page):
        made = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
        found[f"'sha256-{made}'"] = None
    return list(found)


def policy(page: str) -> str:
    """Return the policy for a page."""
    return POLICY.format(scripts=" ".join(["'self'", "'wasm-unsafe-eval'", *hashes(page)]))


def without_svg_text(page: str) -> str:
    """Return @page without what is text in it: scripts and code listings."""
    return re.sub(r"<(script|pre|style)\b.*?</\1>", "", page, flags=re.S)


def handlers(page: str) -> list[str]:
    """Return the inline event handlers of a page: there must be none."""
    return _HANDLER.findall(without_svg_text(page))


def secured(page: str) -> str:
    """Return @page with its policy first in its head, and without the theme's inline handlers."""
    for old, new in HANDLERS.items():
        page = page.replace(old, new)
    page = _META.sub("", page)
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy(page)}">'
    charset = re.search(r"<meta charset=[^>]*>", page)
    if charset is not None:
        return page[: charset.end()] + "\n" + meta + page[charset.end() :]
    head = re.search(r"<head[^>]*>", page)
    if head is None:  # a page that only leads to another one
        return f"<!DOCTYPE html><html><head>{meta}</head>{page}</html>"
    return page[: head.end()] + meta + page[head.end() :]


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Secure every page that was written."""
    if exception is not None or app.builder.format != "html":
        return
    for file in sorted(Path(app.outdir).rglob("*.html")):
        if "_static" in file.relative_to(app.outdir).parts:
            continue
        text = file.read_text(encoding="utf-8")
        new = secured(text)
        if new != text:
            file.write_text(new, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", finish, priority=990)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
