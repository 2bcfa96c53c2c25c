"""Figures on their way through Sphinx: one numbered figure in HTML, every key frame with its words in LaTeX."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.book
pytest.importorskip("myst_nb")
ROOT = Path(__file__).resolve().parents[2]

CONF = """
import sys
sys.path.insert(0, {ext!r})
project, author, language = "t", "t", "en"
extensions = ["myst_nb", "sphinxcontrib.rsvgconverter", "explorables"]
root_doc = "index"
numfig = True
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_mime_priority_overrides = [["latex", "image/svg+xml", 5]]
latex_engine = "xelatex"
"""

PAGE = """---
jupytext: {{text_representation: {{extension: .md, format_name: myst}}}}
kernelspec: {{name: python3, display_name: Python 3, language: python}}
---
# A page

Look at {{numref}}`fig-walk`.

```{{code-cell}} ipython3
import sys; sys.path.insert(0, {root!r})
from mmcore import cint
from mmcore.viz import Frame, Int, explorable, explore, show, svg

@explorable("tests.walk", title="A walk", key=("a", "b"), params=dict(high=Int(60, 10, 5000)))
def walk(p):
    for i, mark in enumerate(["", "a", "", "b"]):
        d = svg.Drawing(height=p.high).add(svg.paragraph(f"number {{i}}"))
        yield Frame(d, f"**Step {{i}}** of `walk_{{i}}()` & more.", f"alt {{i}}", mark)
```

```{{code-cell}} ipython3
---
mystnb:
  figure:
    name: fig-walk
    caption: "**It walks.** Use the arrow keys."
---
explore("tests.walk")
```

```{{code-cell}} ipython3
---
mystnb:
  figure:
    name: fig-tall
    caption: "**It is tall.**"
---
explore("tests.walk", high=900)
```

```{{code-cell}} ipython3
show(cint.int_sqrt)
```
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    if shutil.which("rsvg-convert") is None:
        pytest.skip("no rsvg-convert (package librsvg2-bin)")
    out = tmp_path_factory.mktemp("built")
    src = tmp_path_factory.mktemp("book")
    (src / "conf.py").write_text(CONF.format(ext=str(ROOT / "book" / "_ext")))
    (src / "index.md").write_text(PAGE.format(root=str(ROOT)))
    for builder in ("html", "latex"):
        done = subprocess.run(
            [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-b", builder, "-d", str(out / "trees"), str(src), str(out / builder)],
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_html_has_one_numbered_figure_for_each_cell(built):
    page = (built / "html" / "index.html").read_text()
    figure = re.search(r'<figure[^>]*id="fig-walk".*?</figure>', page, re.S).group(0)
    assert figure.count('class="mm-fig"') == 1 and "It walks." in figure and "Fig. 1" in figure
    assert 'href="#fig-walk"' in page
    assert "explorables.js" in page and "explorables.css" in page
    assert "widget" not in page.lower()


def test_the_static_files_are_there(built):
    static = built / "html" / "_static"
    assert "mmFigures" in (static / "explorables.js").read_text()
    assert ".mm-movable{fill:#7CC8F2}" in (static / "explorables.css").read_text()


def test_every_key_frame_is_printed_with_its_caption(built):
    (tex,) = (built / "latex").glob("*.tex")
    source = tex.read_text()
    figure = re.search(r"\\begin\{figure\}.*?\\end\{figure\}", source, re.S).group(0)
    assert figure.count(r"\sphinxincludegraphics") == 2
    assert re.search(
        r"Step 2 of 4.*Step 1.*walk\\_1\(\).*Step 4 of 4.*Step 3.*It walks", figure, re.S
    )
    for name in re.findall(r"\\sphinxincludegraphics.*?\{\{(\w+)\}\.pdf\}", source):
        assert (built / "latex" / f"{name}.pdf").stat().st_size > 500


def test_frames_too_tall_for_a_page_are_not_in_one_float(built):
    (tex,) = (built / "latex").glob("*.tex")
    source = tex.read_text()
    figure = re.findall(r"\\begin\{figure\}.*?\\end\{figure\}", source, re.S)[1]
    assert figure.count(r"\sphinxincludegraphics") == 1 and "It is tall" in figure
    assert source.count(r"\sphinxincludegraphics") == 4


def test_a_listing_is_printed_as_python(built):
    (tex,) = (built / "latex").glob("*.tex")
    assert re.search(r"\\PYG\{k\}\{def\}.*int\\PYGZus\{\}sqrt", tex.read_text())
