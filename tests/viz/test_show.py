"""show(): the source that runs, under the name of its original."""

import sys

import pytest

from mmcore import cint
from mmcore.errors import UsageError
from mmcore.viz import show


def test_a_listing_is_the_source_with_its_original():
    listing = show(cint.int_sqrt)
    assert listing.source.startswith("def int_sqrt(")
    assert listing.where == "mmcore/cint.py" and listing.original == (
        "lib/math/int_sqrt.c",
        "int_sqrt",
    )
    assert str(listing).startswith(
        "# mmcore/cint.py, after lib/math/int_sqrt.c:int_sqrt()\ndef int_sqrt"
    )
    bundle = listing._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert "h=v6.12.117" in bundle["text/html"] and "lib/math/int_sqrt.c" in bundle["text/html"]
    assert 'class="highlight"' in bundle["text/html"]


def test_without_pygments_it_is_plain(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygments", None)
    assert "<pre>def int_sqrt(" in show(cint.int_sqrt).html()


def test_a_long_docstring_can_be_left_out():
    def f(x):
        """Say <b>.

        Much more.
        """
        return x < 1

    short = show(f, doc=False)
    assert (
        "Much more" not in short.source
        and '"""Say <b>."""' in short.source
        and "return x < 1" in short.source
    )
    assert short.original is None and "<b>" not in short.html()


@pytest.mark.parametrize("what", [len, 3, "page_alloc", None])
def test_what_has_no_source_is_refused(what):
    with pytest.raises(UsageError, match="show\\(\\) needs a function"):
        show(what)
