"""Every page has a strict policy that fits it, and nothing in it that the policy would refuse."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import check_book
import csp
import pytest

META = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')


def test_every_page_has_its_policy(html: Path) -> None:
    pages = check_book.html_files(html)
    assert len(pages) > 8
    for page in pages:
        text = page.read_text(encoding="utf-8")
        (policy,) = META.findall(text)
        assert policy == csp.policy(text), page
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        scripts = rules["script-src"].split()
        assert scripts[:2] == ["'self'", "'wasm-unsafe-eval'"]
        assert all(re.fullmatch(r"'sha256-[\w+/]{43}='", s) for s in scripts[2:]), page
        assert rules["default-src"] == "'none'" and rules["connect-src"] == "'self'"
        assert rules["worker-src"] == "'self'"
        # It counts from where it stands: before any script or style.
        assert not re.search(r"<(script|link|style)\b", text[: text.index(policy)]), page
        assert csp.handlers(text) == [], page


def test_the_digest_is_of_what_stands_between_the_tags() -> None:
    script = "\n  let a = '<é>';\n"
    expected = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = f"<head><meta charset='utf-8'><script data-x='1'>{script}</script><script src='a.js'></script></head>"
    assert csp.hashes(page) == [f"'sha256-{expected}'"]
    assert csp.policy(page).count("sha256") == 1


@pytest.mark.parametrize(
    "page, found",
    [
        ('<button onclick="x()">', ["onclick"]),
        ("<img src=x\n onerror = x()>", ["onerror"]),
        ("<p>on = 3</p><pre><span onclick=</pre>", []),
        ('<a data-on="x" href="?on=1">', []),
    ],
)
def test_handlers_are_found(page: str, found: list[str]) -> None:
    assert csp.handlers(page) == found


def test_securing_twice_changes_nothing() -> None:
    page = '<html><head><meta charset="utf-8"><script>1</script></head><body><button onclick="window.print()"></body>'
    once = csp.secured(page)
    assert csp.secured(once) == once and "onclick" not in once and "data-mm-print" in once
