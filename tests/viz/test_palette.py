"""The palette holds what it promises: labels that can be read, hues that stay apart."""

from itertools import combinations

import pytest

from mmcore.errors import UsageError
from mmcore.viz import palette

#: The hues that mean something by themselves; highatomic, cma and isolate borrow one of these.
OWN = ("free", "used", "unmovable", "movable", "reclaimable", "anon", "file", "swap")
BORROWED = {"highatomic": "unmovable", "cma": "movable", "isolate": "used"}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", list(palette.HUES))
def test_a_label_can_be_read_on_its_hue(name, theme):
    hue = palette.HUES[name]
    assert palette.contrast(getattr(hue, theme), getattr(hue, f"on_{theme}")) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "panel", "lit"])
@pytest.mark.parametrize("ink", ["ink", "muted", "wrong", "accent"])
def test_an_ink_can_be_read_on_every_surface(ink, ground, theme):
    value = palette.contrast(
        getattr(palette.INKS[ink], theme), getattr(palette.HUES[ground], theme)
    )
    assert value >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("vision", ["normal", "protan", "deutan", "tritan"])
def test_hues_stay_apart_for_every_vision(vision, theme):
    for a, b in combinations(OWN, 2):
        one, two = getattr(palette.HUES[a], theme), getattr(palette.HUES[b], theme)
        assert palette.delta_e(one, two, vision) >= 19, (a, b)


def test_a_borrowed_hue_is_told_apart_by_its_letter():
    for name, lender in BORROWED.items():
        hue, other = palette.HUES[name], palette.HUES[lender]
        assert (hue.light, hue.dark) == (other.light, other.dark)
        assert hue.letter and hue.letter != other.letter


def test_letters_are_unique():
    letters = list(palette.LETTERS.values())
    assert len(letters) == len(set(letters))


def test_known_contrasts():
    assert palette.contrast("#FFFFFF", "#000000") == pytest.approx(21)
    assert palette.contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)
    assert palette.delta_e("#FF0000", "#FF0000") == 0


def test_a_pale_hue_says_so():
    for name in OWN:
        hue = palette.HUES[name]
        assert hue.pale == (palette.contrast(hue.light, palette.WHITE) < 1.7), name


def test_css_recolours_every_class_in_the_dark():
    sheet = palette.css()
    for name, hue in palette.HUES.items():
        assert f'html[data-theme="dark"] .mm-{name}{{fill:{hue.dark}}}' in sheet
        assert f'body[data-jp-theme-light="false"] .mm-on-{name}{{fill:{hue.on_dark}}}' in sheet
    for name, ink in palette.INKS.items():
        assert f'html[data-theme="dark"] .mm-l-{name}{{stroke:{ink.dark}}}' in sheet
    assert sheet.count("{") == sheet.count("}")


def test_an_unknown_hue_is_refused_by_name():
    with pytest.raises(UsageError, match="no hue 'fre'"):
        palette.hue("fre")
