"""Build the book: what `make book`, `make book CH=02` and `make pdf` run.

    python tools/build_book.py html                # the whole book        -> _build/html/
    python tools/build_book.py html --chapter 02   # one chapter, quickly  -> _build/ch02/html/
    python tools/build_book.py pdf                 # LaTeX and PDF         -> _build/pdf/
    python tools/build_book.py clean-outputs       # forget the outputs of executed chapters

Any warning, failed cell, missing page or missing output makes the build fail.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
#: Pages every chapter may refer to.
SHARED_PAGES = ["book/coming", "book/glossary", "book/bibliography"]

sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "book" / "_ext")]


def chapter_file(number: str) -> str:
    """Return the page of chapter @number ("2", "02") as the table of contents names it."""
    wanted = f"{int(number):02d}" if number.isdigit() else number
    found = sorted((ROOT / "book").glob(f"{wanted}-*.md"))
    if not found:
        there = ", ".join(p.name[:2] for p in sorted((ROOT / "book").glob("[0-9][0-9]-*.md")))
        sys.exit(f"make book CH={number}: there is no chapter {number}; there are {there}")
    return f"book/{found[0].stem}"


def doctrees(builder: str, out: Path, toc: Path) -> Path:
    """Return the folder of the pages as Sphinx has read them; they are forgotten when the contents change.

    A chapter that joins takes a label from the page of those to come, and Sphinx, which reads one changed
    page after the other, would then find the label twice.
    """
    folder = out.parent / f".doctrees-{builder}"
    mark = folder / "contents"
    contents = toc.read_bytes()
    if folder.exists() and not (mark.exists() and mark.read_bytes() == contents):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_bytes(contents)
    return folder


def run_sphinx(builder: str, out: Path, overrides: dict[str, Any], *, strict: bool) -> None:
    """Run Jupyter Book's Sphinx build; leave the program if it fails."""
    from jupyter_book.sphinx import build_sphinx

    settings: dict[str, Any] = {
        "external_toc_path": str(ROOT / "_toc.yml"),
        "latex_individualpages": False,
        "nitpicky": strict,
    }
    settings.update(overrides)
    result = build_sphinx(
        ROOT,
        out,
        noconfig=True,
        path_config=ROOT / "_config.yml",
        confoverrides=settings,
        doctreedir=doctrees(builder, out, Path(settings["external_toc_path"])),
        builder=builder,
        warningiserror=strict,
        keep_going=True,
    )
    if result:
        sys.exit("The build failed: see the messages in front of this line.")


def secure_first_page(page: Path) -> None:
    """Give the page that leads to the book's first one, which Jupyter Book writes last, what all pages have."""
    import csp

    lead = re.search(r'<meta http-equiv="Refresh"[^>]*>', page.read_text(encoding="utf-8"))
    assert lead is not None, "Jupyter Book's index.html is no longer what it was"
    icon = '<link rel="icon" href="_static/favicon.svg">'
    head = f'<meta charset="utf-8">{lead.group(0)}{icon}<title>Linux memory management, running</title>'
    link = '<p><a href="book/index.html">Linux memory management, running</a></p>'
    page.write_text(
        csp.secured(
            f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{link}</body></html>\n'
        ),
        encoding="utf-8",
    )


def html(chapter: str | None, draft: bool) -> None:
    """Build the HTML book, or one chapter of it; a draft shows failing cells instead of stopping."""
    import check_book

    if draft and chapter is None:
        out = BUILD / "draft" / "html"
        run_sphinx("html", out, {"nb_execution_allow_errors": True}, strict=False)
        print(f"\nThe draft is in {out.relative_to(ROOT)}/.")
        return
    if chapter is None:
        out = BUILD / "html"
        run_sphinx("html", out, {}, strict=True)
        secure_first_page(out / "index.html")
        pages = check_book.pages_of(ROOT / "_toc.yml")
    else:
        page = chapter_file(chapter)
        folder = BUILD / f"ch{page[5:7]}"
        folder.mkdir(parents=True, exist_ok=True)
        toc = folder / "_toc.yml"
        toc.write_text(
            yaml.safe_dump(
                {"format": "jb-book", "root": page, "chapters": [{"file": f} for f in SHARED_PAGES]}
            )
        )
        out = folder / "html"
        # References to the other chapters cannot be resolved here, which is no fault of this one.
        run_sphinx(
            "html",
            out,
            {
                "nb_execution_allow_errors": draft,
                "external_toc_path": str(toc),
                "suppress_warnings": ["myst.domains", "myst.xref_missing", "ref.*", "toc.*"],
            },
            strict=False,
        )
        pages = [page]
    if draft:
        print(f"\nThe draft is {(out / pages[0]).relative_to(ROOT)}.html")
        return
    problems = check_book.check_html(out, pages, ROOT, whole=chapter is None)
    report(problems)
    first = out / (f"{pages[0]}.html" if chapter else "index.html")
    print(f"\nThe book is in {first.relative_to(ROOT)} (make serve shows it in a browser).")


def pdf(draft: bool) -> None:
    """Build the PDF."""
    import check_book

    missing = check_book.missing_tex()
    if missing:
        sys.exit(
            "The PDF needs programs that are not here: "
            + ", ".join(what for what, _ in missing)
            + "\nOn Debian:  sudo apt-get install --no-install-recommends "
            + " ".join(sorted({package for _, package in missing}))
        )
    out = BUILD / "latex"
    shutil.rmtree(out, ignore_errors=True)  # no picture of an earlier build stays
    overrides: dict[str, Any] = {}
    if draft:
        overrides["nb_execution_allow_errors"] = True
    run_sphinx("latex", out, overrides, strict=not draft)
    print("running LaTeX (a minute or two) ...", flush=True)
    log = BUILD / "latex.log"
    with log.open("w") as f:
        done = subprocess.run(
            [
                "latexmk",
                "-pdf",
                "-dvi-",
                "-ps-",
                "-interaction=nonstopmode",
                "-halt-on-error",
                "book.tex",
            ],
            cwd=out,
            stdout=f,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    if done.returncode:
        lines = log.read_text(errors="replace").splitlines()
        print("\n".join(lines[-40:]))
        sys.exit(f"LaTeX failed; its whole output is in {log.relative_to(ROOT)}")
    (BUILD / "pdf").mkdir(exist_ok=True)
    target = BUILD / "pdf" / "linux-memory-management-running.pdf"
    shutil.copyfile(out / "book.pdf", target)
    problems = check_book.check_pdf(target, out / "book.log", ROOT)
    if draft:
        print("\n".join(problems))
        return
    report(problems)
    print(f"\nThe PDF is {target.relative_to(ROOT)}.")


def report(problems: list[str]) -> None:
    """Leave the program if there are @problems."""
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    if problems:
        sys.exit(
            f"The book is not right: {len(problems)} problem(s), listed in front of this line."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("what", choices=["html", "pdf", "clean-outputs"])
    parser.add_argument("--chapter", metavar="NN", help="build this chapter only")
    parser.add_argument("--draft", action="store_true", help="show failing cells, do not stop")
    args = parser.parse_args()
    os.chdir(ROOT)
    start = time.monotonic()
    if args.what == "clean-outputs":
        shutil.rmtree(BUILD / ".jupyter_cache", ignore_errors=True)
        return
    BUILD.mkdir(exist_ok=True)
    if args.what == "html":
        html(args.chapter, args.draft)
    else:
        pdf(args.draft)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
