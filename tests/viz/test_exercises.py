"""What every registered exercise owes its readers. New chapters inherit this: nothing is listed here."""

import importlib
import json
import pkgutil

import pytest

import mmcore.viz.exercises
from mmcore.viz import check

exercises = importlib.import_module("mmcore.viz.check")

MODULES = sorted(m.name for m in pkgutil.iter_modules(mmcore.viz.exercises.__path__))
for module in MODULES:
    importlib.import_module(f"mmcore.viz.exercises.{module}")
NAMES = [n for n in exercises.names() if n.partition(".")[0] in MODULES]

every_exercise = pytest.mark.parametrize("name", NAMES)


def steps(name):
    return list(exercises.find(name).function())


@every_exercise
def test_the_engines_own_answer_is_right(name):
    expected = [value for _, value in steps(name)]
    assert expected
    verdict = check(name, expected if len(expected) > 1 else expected[0])
    assert verdict, verdict.text
    json.dumps(verdict.to_dict())


@every_exercise
def test_a_wrong_step_is_found_where_it_is(name):
    expected = [value for _, value in steps(name)]
    for i in range(len(expected)):
        wrong = [*expected[:i], "certainly wrong", *expected[i + 1 :]]
        verdict = check(name, wrong if len(wrong) > 1 else wrong[0])
        assert not verdict and verdict.step == i + 1
        assert verdict.label and verdict.label in verdict.text


@every_exercise
def test_answering_nothing_gives_nothing_away(name):
    verdict = check(name, [])
    assert not verdict and verdict.step == 1


@every_exercise
def test_it_is_the_same_each_time(name):
    assert repr(steps(name)) == repr(steps(name))
