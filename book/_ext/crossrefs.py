"""References of one page to another, and citations, as links between the notebooks that readers get.

JupyterLab resolves what a notebook says about itself. A reference to another page it shows as the bare label, and a
citation as a key. So the notebooks carry links instead: to the other page's notebook, and to the bibliography, whose
list is written out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_REF = re.compile(r"\{(ref|numref)\}`([^`]+)`")
_CITE = re.compile(r"\{cite(?::t|:p)?\}`([^`]+)`")
_BIBLIOGRAPHY = re.compile(r"^```\{bibliography\}\n(?:.*\n)*?```$", re.M)
_ENTRY = re.compile(r"@\w+\{(\w+),\n(.*?)\n\}", re.S)
_FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*)\},?$", re.M)


@dataclass(frozen=True)
class Target:
    """What a label stands for: the page, and the words of a reference to it."""

    page: str
    title: str


def _labels(text: str, stem: str) -> dict[str, Target]:
    """Return the labels of a page: of headings, of figures with captions, and of exercises."""
    found: dict[str, Target] = {}
    for block, title in re.findall(r"^((?:\([\w-]+\)=\n+)+)#+ (.*)$", text, re.M):
        for label in re.findall(r"\(([\w-]+)\)=", block):
            found[label] = Target(stem, title.strip())
    chapter = re.match(r"\d+", stem)
    figures = re.findall(r"^    name: ([\w-]+)$", text, re.M)
    for number, label in enumerate(figures, 1):
        words = f"Fig. {int(chapter.group())}.{number}" if chapter else "the figure"
        found[label] = Target(stem, words)
    for label in re.findall(r"^:label: ([\w-]+)$", text, re.M):
        found[label] = Target(stem, "exercise")
    return found


def labels(folder: Path) -> dict[str, Target]:
    """Return the labels of all pages in @folder."""
    found: dict[str, Target] = {}
    for page in sorted(folder.glob("*.md")):
        found |= _labels(page.read_text(encoding="utf-8"), page.stem)
    return found


def _names(authors: str) -> list[str]:
    return [re.sub(r"[{}\\']", "", a).split(",")[0].strip() for a in authors.split(" and ")]


def _plain(text: str) -> str:
    """Return a field of the bibliography without TeX."""
    text = re.sub(r"\\url\{([^}]*)\}", r"<\1>", text).replace("--", "–")
    text = text.replace("``", "“").replace("''", "”")
    return re.sub(r"[{}\\]", "", text)


@dataclass(frozen=True)
class Work:
    """An entry of the bibliography: how it is cited, and its line in the list."""

    cited: str
    line: str


def works(file: Path) -> dict[str, Work]:
    """Return the entries of a BibTeX file."""
    found: dict[str, Work] = {}
    if not file.exists():
        return found
    for key, body in _ENTRY.findall(file.read_text(encoding="utf-8")):
        fields = dict(_FIELD.findall(body))
        names = _names(fields["author"])
        short = names[0] if len(names) == 1 else f"{names[0]} et al."
        short = " and ".join(names) if len(names) == 2 else short
        where = [
            f"<{fields[name]}>" if name == "url" else _plain(fields[name])
            for name in ("journal", "booktitle", "publisher", "note", "howpublished", "url")
            if name in fields
        ]
        authors = ", ".join(names)
        title = _plain(fields["title"])
        line = (
            ". ".join(
                [f"{authors} ({fields['year']}): *{title}*", *filter(None, [", ".join(where)])]
            )
            + "."
        )
        found[key] = Work(f"{short} ({fields['year']})", line)
    return found


class Links:
    """Where the labels of the pages in a folder lead, and what its bibliography holds."""

    def __init__(self, folder: Path) -> None:
        self.labels = labels(folder)
        self.works = works(folder / "references.bib")

    def resolve(self, text: str, stem: str) -> str:
        """Return the Markdown @text of page @stem with links: see `resolve()`."""
        return resolve(text, stem, self.labels, self.works)


def resolve(text: str, stem: str, known: Mapping[str, Target], cited: Mapping[str, Work]) -> str:
    """Return Markdown with links where references lead out of page @stem, and with names where it cites."""

    def reference(match: re.Match[str]) -> str:
        role, inner = match.groups()
        inner = " ".join(inner.split())
        own = re.fullmatch(r"(.*\S)\s*<([\w-]+)>", inner)
        words, label = own.groups() if own else ("", inner)
        target = known.get(label)
        if target is None:
            return match.group(0)
        if role == "numref":  # JupyterLab numbers no figure of a code cell
            return target.title
        if target.page == stem:
            return match.group(0)
        return f"[{words or target.title}]({target.page}.ipynb)"

    def citation(match: re.Match[str]) -> str:
        keys = [key.strip() for key in match.group(1).split(",")]
        if any(key not in cited for key in keys):
            return match.group(0)
        names = "; ".join(cited[key].cited for key in keys)
        return names if stem == "bibliography" else f"[{names}](bibliography.ipynb)"

    text = _CITE.sub(citation, _REF.sub(reference, text))
    listed = "\n".join(f"- {w.line}" for w in sorted(cited.values(), key=lambda w: w.line.lower()))
    return _BIBLIOGRAPHY.sub(lambda _: listed, text)
