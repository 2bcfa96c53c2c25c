"""Keep every page on its own host and small: nothing is fetched from elsewhere, no script is needed to read.

The theme brings an icon script of 1.5 MB, icon fonts, source maps and, on every page, the whole search index. Here
icons become a few inline drawings, and what nobody needs is not shipped.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

#: Icons of the theme by their name, drawn on 16 by 16 units with lines of 1.6.
ICONS = {
    "angle-left": "M10 3L5 8l5 5",
    "angle-right": "M6 3l5 5-5 5",
    "arrow-up": "M8 13V3M4 7l4-4 4 4",
    "bars": "M2 4h12M2 8h12M2 12h12",
    "list": "M2 4h.5M2 8h.5M2 12h.5M5.5 4H14M5.5 8H14M5.5 12H14",
    "magnifying-glass": "M7 2.5a4.5 4.5 0 110 9 4.5 4.5 0 010-9zM10.3 10.3L14 14",
    "download": "M8 2v8M4.5 7L8 10.5 11.5 7M2.5 13.5h11",
    "file": "M4 1.8h5l3.2 3.2v9.2H4zM9 1.8V5h3.2",
    "file-pdf": "M4 1.8h5l3.2 3.2v9.2H4zM9 1.8V5h3.2M6 12V8.5h2v2H6",
    "code": "M5.5 4.5L2 8l3.5 3.5M10.5 4.5L14 8l-3.5 3.5",
    "expand": "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
    "sun": "M8 5a3 3 0 110 6 3 3 0 010-6zM8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15M3 3l1.2 1.2M11.8 11.8L13 13M3 13l1.2-1.2"
    "M11.8 4.2L13 3",
    "moon": "M13.5 9.8A6 6 0 016.2 2.5a6 6 0 107.3 7.3z",
    "circle-half-stroke": "M8 2a6 6 0 110 12A6 6 0 018 2zM8 2v12M10 3v10M12 4.2v7.6",
    "chevron-down": "M3 6l5 5 5-5",
    "chevron-right": "M6 3l5 5-5 5",
    "xmark": "M3.5 3.5l9 9M12.5 3.5l-9 9",
}

_ICON = re.compile(r'<(i|span) class="([^"]*\bfa[srb]?\b[^"]*)"([^>]*)>\s*</\1>')


def _svg(match: re.Match[str]) -> str:
    tag, classes, rest = match.groups()
    names = [c[3:] for c in classes.split() if c.startswith("fa-")]
    name = next((n for n in names if n in ICONS), None)
    if name is None:
        raise ValueError(f"an icon without a drawing: {classes!r} (book/_ext/selfhost.py)")
    kept = ["book-icon"] + [c for c in classes.split() if not re.match(r"fa[srb]?(-|$)", c)]
    rest = re.sub(r'\s(title)="([^"]*)"', r' data-title="\2"', rest)
    return (
        f'<{tag} class="{" ".join(kept)}"{rest} aria-hidden="true"><svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">'
        f'<path d="{ICONS[name]}"/></svg></{tag}>'
    )


#: What is taken out of every page: pattern and reason.
_DROPPED = [
    # the icon script
    r"\s*<!-- So that users can add custom icons -->\s*<script[^>]*fontawesome\.js[^>]*></script>",
    # metadata of a search service
    r'\s*<meta name="docsearch:[^>]*>',
    # a second and third viewport
    r'<meta name="viewport" content="width=device-width, initial-scale=1"\s*/>',
    # the page's title and contents once more, for printing
    r'<div id="jb-print-docs-body" class="onlyprint">.*?</nav>\s*</div>\s*</div>\s*</div>',
    r'<div id="jb-print-docs-body" class="onlyprint">.*?</div>\s*</div>\s*</div>',
]
#: The search index and its script are wanted on the search page alone.
_SEARCH = r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^>]*></script>'


def clean_page(text: str, pagename: str) -> str:
    """Return an HTML page of the theme without what it does not need; the same again for a clean page."""
    for pattern in _DROPPED:
        text = re.sub(pattern, "", text, count=1, flags=re.S)
    text = re.sub(
        r'<meta name="viewport" content="width=device-width, initial-scale=1"\s*/>', "", text
    )
    if pagename != "search":
        text = re.sub(_SEARCH, "", text)
    text = _ICON.sub(_svg, text)
    # a role of books that readers of screens are told no more, inside a list that needs items
    text = text.replace('role="doc-biblioentry"', 'role="listitem"')
    text = text.replace("<th></th>", "<td></td>")  # pandas' corner cell heads nothing
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text)


def clean_css(text: str) -> str:
    """Return a style sheet of the theme without icon fonts and links to source maps."""
    text = re.sub(r"@font-face\{[^}]*Font Awesome[^}]*\}", "", text)
    text = re.sub(
        r"(?<=[}/])(?:\.fa[-\w]*:{1,2}(?:before|after),?)+\{(?:content|--fa)[^{}]*\}", "", text
    )
    return re.sub(r"/\*# sourceMappingURL=.*?\*/", "", text)


def write_404(out: Path, base: str) -> None:
    """Write the page for wrong addresses: complete in itself, because it is served at any depth.

    Its script finds the book's folder. Without scripts its links work where the publisher has said in
    ``BOOK_BASE`` which folder that is (``/memory-book/``); otherwise they lead to the host's root.
    """
    text = Path(__file__).with_name("404.html").read_text(encoding="utf-8")
    folder = f"/{base.strip('/')}/".replace("//", "/")
    text = text.replace("@HOME@", f"{folder}book/index.html" if base else "/")
    text = text.replace("@SEARCH@", f"{folder}search.html" if base else "/search.html")
    (out / "404.html").write_text(text, encoding="utf-8")


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Clean what was written."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    known = {*app.env.found_docs, "index", "genindex", "search", "404"}
    for page in out.rglob("*.html"):
        if "_static" in page.parts:
            continue
        if page.relative_to(out).with_suffix("").as_posix() not in known:
            page.unlink()  # its source was removed or renamed
            continue
        text = page.read_text(encoding="utf-8")
        new = clean_page(text, page.relative_to(out).with_suffix("").as_posix())
        if new != text:
            page.write_text(new, encoding="utf-8")
    static = out / "_static"
    for css in static.rglob("*.css"):
        text = css.read_text(encoding="utf-8")
        new = clean_css(text)
        if new != text:
            css.write_text(new, encoding="utf-8")
    for junk in [
        *static.rglob("*.map"),
        *static.rglob("fontawesome.js*"),
        *static.rglob("*webpack-macros.html"),
    ]:
        junk.unlink(missing_ok=True)
    for folder in ("vendor", "locales", "images"):
        shutil.rmtree(static / folder, ignore_errors=True)
    for script in static.rglob("*.js"):
        text = script.read_text(encoding="utf-8")
        if "sourceMappingURL" in text:
            script.write_text(re.sub(r"\n?//# sourceMappingURL=.*", "", text), encoding="utf-8")
    write_404(out, os.environ.get("BOOK_BASE", ""))
    (out / ".nojekyll").touch()  # a forge that serves pages must not drop _static/


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value(
        "comments_config", {}, "html"
    )  # Jupyter Book sets it; its extension is not loaded
    app.connect("build-finished", finish, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
