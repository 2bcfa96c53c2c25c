"""Check a built book. The build runs these checks, and the tests use them one by one.

A page that Sphinx wrote without complaint can still lack an output, point nowhere, fetch something from another
host or be too heavy. Each function returns a list of problems, empty if all is well.
"""

from __future__ import annotations

import ast
import gzip
import re
import shutil
import subprocess
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import yaml

#: The most a page may weigh with everything it loads, compressed, in bytes.
PAGE_BUDGET = 500_000
#: Elements that fetch what their attribute names.
_FETCHES = {
    "script": ("src",), "link": ("href",), "img": ("src", "srcset"), "iframe": ("src",), "source": ("src", "srcset"),
    "video": ("src", "poster"), "audio": ("src",), "embed": ("src",), "object": ("data",), "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"), "form": ("action",),
}  # fmt: skip
#: Programs the PDF needs, and the Debian packages that bring them.
TEX_PROGRAMS = {"latexmk": "latexmk", "xelatex": "texlive-xetex", "rsvg-convert": "librsvg2-bin",
                "pdftotext": "poppler-utils", "makeindex": "texlive-binaries"}  # fmt: skip
#: Files the PDF needs.
TEX_FILES = {"fncychap.sty": "texlive-latex-extra", "tabulary.sty": "texlive-latex-extra",
             "framed.sty": "texlive-latex-recommended", "FreeSerif.otf": "fonts-freefont-otf", "DejaVuSansMono.ttf": "fonts-dejavu-core",
             "upquote.sty": "texlive-latex-extra", "tgheros.sty": "tex-gyre"}  # fmt: skip


def pages_of(toc: Path) -> list[str]:
    """Return the pages that the table of contents names, in order."""
    pages: list[str] = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            for key in ("root", "file"):
                if key in node:
                    pages.append(str(node[key]))
            for key in ("parts", "chapters", "sections"):
                walk(node.get(key))
        elif isinstance(node, list):
            for entry in node:
                walk(entry)

    walk(yaml.safe_load(toc.read_text(encoding="utf-8")))
    return pages


class Page(HTMLParser):
    """What the checks want to know of an HTML page."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.path = path
        self.fetched: list[str] = []  # addresses that opening the page fetches
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.unnamed: list[str] = []  # images and drawings without alternative text
        self.outputs = 0
        self.empty_outputs = 0
        self.steppers: list[str] = []
        self.math = 0
        self.lang = ""
        self.headings: list[int] = []
        self._svg: list[dict[str, bool]] = []
        self._output: list[list[int]] = []  # per open output: [depth, characters or drawings seen]
        self._depth = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        a = {k: v or "" for k, v in attrs}
        classes = a.get("class", "").split()
        if "id" in a:
            self.ids.add(a["id"])
        for name in _FETCHES.get(tag, ()):
            if a.get(name) and not (
                tag == "link" and a.get("rel") in ("next", "prev", "index", "search", "canonical")
            ):
                self.fetched.append(a[name].split()[0])
        for style in re.findall(r"url\(([^)]*)\)", a.get("style", "")):
            self.fetched.append(style.strip("'\""))
        if tag == "a" and a.get("href"):
            self.links.append(a["href"])
        if tag == "html":
            self.lang = a.get("lang", "")
        if tag == "math":
            self.math += 1
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "img" and "alt" not in a:
            self.unnamed.append(f"<img src={a.get('src', '')[:60]!r}>")
        if tag == "svg":
            hidden = a.get("aria-hidden") == "true" or a.get("role") == "presentation"
            named = bool(a.get("aria-label") or a.get("aria-labelledby") or hidden)
            if not self._svg and not named:
                self.unnamed.append(
                    f"<svg {' '.join(f'{k}={v!r}' for k, v in list(a.items())[:3])}>"
                )
            self._svg.append({})
        if "data-mm" in a:
            self.steppers.append(a["data-mm"])
        if tag == "div":
            self._depth += 1
            if "cell_output" in classes:
                self.outputs += 1
                self._output.append([self._depth, 0])
        if self._output and tag in ("svg", "img", "table", "math", "canvas"):
            self._output[-1][1] += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag in ("svg", "div"):
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "svg" and self._svg:
            self._svg.pop()
        if tag == "div":
            if self._output and self._output[-1][0] == self._depth:
                if self._output.pop()[1] == 0:
                    self.empty_outputs += 1
            self._depth -= 1

    def handle_data(self, data: str) -> None:
        if self._output and data.strip():
            self._output[-1][1] += 1


@lru_cache(None)
def read_page(path: Path, stamp: float) -> Page:
    return Page(path)


def page_at(path: Path) -> Page:
    """Return what is known of the page at @path."""
    return read_page(path, path.stat().st_mtime)


def html_files(out: Path) -> list[Path]:
    """Return the pages in @out."""
    return sorted(p for p in out.rglob("*.html") if "_static" not in p.parts)


def off_host(address: str) -> bool:
    """Return whether fetching @address leaves the page's own host."""
    return bool(re.match(r"(?:[a-z][a-z0-9+.-]*:)?//", address, re.I))


def check_missing(out: Path, pages: list[str]) -> list[str]:
    """Every page of the table of contents is there, with its notebook."""
    problems = [f"{p}: the page is missing" for p in pages if not (out / f"{p}.html").is_file()]
    for page in pages:
        if not (out / "_notebooks" / f"{Path(page).name}.ipynb").is_file():
            problems.append(f"{page}: its notebook is missing")
    return problems


def check_hosts(out: Path) -> list[str]:
    """No page and no style sheet fetches anything from another host."""
    problems = []
    for path in html_files(out):
        for address in page_at(path).fetched:
            if off_host(address):
                problems.append(f"{path.relative_to(out)}: fetches {address}")
    for path in sorted((out / "_static").rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        for address in re.findall(r"(?:url\(\s*['\"]?|@import\s+['\"])([^'\")]+)", text):
            if off_host(address):
                problems.append(f"{path.relative_to(out)}: fetches {address}")
            elif not address.startswith(("data:", "#")):
                target = (path.parent / unquote(urlsplit(address).path)).resolve()
                if not target.is_file():
                    problems.append(f"{path.relative_to(out)}: {address} is not there")
    return problems


def check_links(out: Path) -> list[str]:
    """Every link and every fetched file inside the book leads somewhere."""
    problems = []
    for path in html_files(out):
        if path.name == "404.html":
            continue  # its links are made for every folder: tested in a browser
        page = page_at(path)
        for address in [*page.links, *page.fetched]:
            if re.match(r"[a-z][a-z0-9+.-]*:", address, re.I) or off_host(address):
                if re.match(r"kernel:", address):
                    problems.append(f"{path.relative_to(out)}: unresolved {address}")
                continue
            parts = urlsplit(address)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target = target / "index.html"
            if not target.is_file():
                problems.append(f"{path.relative_to(out)}: {address} leads nowhere")
            elif parts.fragment and target.suffix == ".html":
                if unquote(parts.fragment) not in page_at(target).ids:
                    problems.append(
                        f"{path.relative_to(out)}: {address}: no such place on that page"
                    )
    return problems


def check_names(out: Path) -> list[str]:
    """Every picture has alternative text, every page a language and one main heading."""
    problems = []
    for path in html_files(out):
        page = page_at(path)
        where = path.relative_to(out)
        problems += [f"{where}: no alternative text: {what}" for what in page.unnamed]
        if path.name == "index.html" and path.parent == out:
            continue  # the redirection to the first page
        if not page.lang:
            problems.append(f"{where}: the page does not say its language")
        if page.headings.count(1) != 1:
            problems.append(f"{where}: {page.headings.count(1)} main headings")
    return problems


def weight(out: Path, path: Path) -> int:
    """Return how many bytes opening the page at @path transfers, compressed."""
    files = {path}
    for address in page_at(path).fetched:
        parts = urlsplit(address)
        if not parts.scheme and parts.path:
            target = (path.parent / unquote(parts.path)).resolve()
            if target.is_file():
                files.add(target)
    return sum(len(gzip.compress(f.read_bytes(), 6)) for f in sorted(files))


def check_weight(out: Path) -> list[str]:
    """No page weighs more than its budget."""
    return [
        f"{p.relative_to(out)}: {weight(out, p) // 1000} kB compressed, more than {PAGE_BUDGET // 1000}"
        for p in html_files(out)
        if weight(out, p) > PAGE_BUDGET
    ]


def shows_something(source: str) -> bool:
    """Return whether a code cell ends in an expression, and so must show a value."""
    try:
        body = ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.M)).body
    except SyntaxError:
        return False
    if not body or source.rstrip().endswith(";") or not isinstance(body[-1], ast.Expr):
        return False
    value = body[-1].value
    return not (isinstance(value, ast.Constant) and isinstance(value.value, str) and len(body) == 1)


def check_outputs(out: Path, pages: list[str], executed: Path) -> list[str]:
    """Every code cell was executed, shows what it ends in, and is shown on the page."""
    problems = []
    for name in pages:
        notebook_file = executed / f"{name}.ipynb"
        page_file = out / f"{name}.html"
        if not page_file.is_file():
            continue  # said by check_missing()
        if not notebook_file.is_file():
            if re.search(r"/\d\d-", name):
                problems.append(f"{name}: the chapter was not executed")
            continue
        notebook = nbformat.read(notebook_file, as_version=4)
        shown = 0
        for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
            tags = set(cell.metadata.get("tags", []))
            first = cell.source.strip().splitlines()[0] if cell.source.strip() else ""
            if cell.execution_count is None and cell.source.strip():
                problems.append(f"{name}: code cell {number} was not executed: {first}")
            if any(o.output_type == "error" for o in cell.outputs):
                problems.append(f"{name}: code cell {number} failed: {first}")
            if shows_something(cell.source) and not cell.outputs and "remove-cell" not in tags:
                problems.append(f"{name}: code cell {number} shows nothing: {first}")
            if cell.outputs and not tags & {"remove-cell", "remove-output"}:
                shown += 1
        page = page_at(page_file)
        if page.outputs != shown:
            problems.append(f"{name}: the page shows {page.outputs} outputs of {shown}")
        if page.empty_outputs:
            problems.append(f"{name}: {page.empty_outputs} outputs on the page are empty")
    return problems


def check_html(out: Path, pages: list[str], root: Path, *, whole: bool) -> list[str]:
    """Return what is wrong with the HTML pages in @out; links are checked where the whole book is there."""
    problems = check_missing(out, pages)
    problems += check_outputs(out, pages, out.parent / "executed")
    problems += check_hosts(out) + check_names(out) + check_weight(out)
    if whole:
        problems += check_links(out)
    return problems


def missing_tex() -> list[tuple[str, str]]:
    """Return (program or file, Debian package) of what the PDF needs and this machine has not."""
    missing = [(p, package) for p, package in TEX_PROGRAMS.items() if shutil.which(p) is None]
    if shutil.which("kpsewhich") is None:
        return missing + [(f, package) for f, package in TEX_FILES.items()]
    for file, package in TEX_FILES.items():
        found = subprocess.run(
            ["kpsewhich", file], capture_output=True, text=True, check=False
        ).stdout.strip()
        if not found and not (file.endswith((".otf", ".ttf")) and _font_installed(file)):
            missing.append((file, package))
    return missing


def _font_installed(file: str) -> bool:
    return any(
        any(Path(d).rglob(file))
        for d in ("/usr/share/fonts", "/usr/share/texmf", "/usr/local/share/fonts")
    )


def pdf_pages(pdf: Path) -> list[str]:
    """Return the text of each page."""
    done = subprocess.run(["pdftotext", "-layout", str(pdf), "-"], capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace").split("\f")[:-1]


def check_pdf(pdf: Path, log: Path, root: Path) -> list[str]:
    """Return what is wrong with the PDF."""
    problems = []
    texts = pdf_pages(pdf)
    for number, text in enumerate(texts, 1):
        if not re.sub(r"[\s\d]", "", text):
            images = subprocess.run(
                ["pdfimages", "-f", str(number), "-l", str(number), "-list", str(pdf)], capture_output=True, text=True, check=False
            ).stdout  # fmt: skip
            if len(images.splitlines()) <= 2:
                problems.append(f"page {number} is blank")
        for debris in ("<mmcore.viz", "ipywidgets", "VBox(", "<explorable", "HTML(value="):
            if debris in text:
                problems.append(f"page {number} shows {debris!r}")
    log_text = log.read_text(encoding="utf-8", errors="replace")
    for missing in sorted(
        set(
            re.findall(r"Missing character: There is no (\S+ \([^)]*\)) in font ([^!]+)!", log_text)
        )
    ):
        problems.append(f"a character is not in its font: {missing[0]} in {missing[1][:40]}")
    if re.search(r"LaTeX Warning: There were undefined references", log_text):
        problems.append("there are undefined references")
    wide = [float(w) for w in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log_text)]
    if wide and max(wide) > 60:
        problems.append(f"{sum(w > 60 for w in wide)} lines run more than 60 pt into the margin")
    return problems
