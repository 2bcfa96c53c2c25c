"""check(): right, or the first step that differs and what the engine has there."""

import json
import re
import sys

import pytest

from mmcore.errors import UsageError
from mmcore.viz import check, exercise, live

checks = sys.modules["mmcore.viz.check"]  # the package has a function of that name


@exercise("testc.lists")
def lists(last=10):
    return [("free 8", {0: [8]}), ("free 9", {1: [8]}), (f"free {last}", {2: [8]})]


@exercise("testc.one")
def one():
    return [("error code", 7)]


@exercise("testc.near", compare=lambda expected, given: abs(expected - float(given)) < 0.5)
def near():
    return [("pages", 12.25), ("more", 3)]


RIGHT = [{0: [8]}, {1: [8]}, {2: [8]}]


def test_right():
    verdict = check("testc.lists", RIGHT)
    assert verdict and verdict.text == "Right, all 3 steps." and verdict.step == 0


def test_the_first_wrong_step_is_named():
    verdict = check("testc.lists", [{0: [8]}, {1: [9]}, {}])
    assert not verdict and verdict.step == 2 and verdict.label == "free 9"
    assert (
        verdict.text
        == "Step 1 is right. Step 2, free 9: you have {1: [9]}; the engine has {1: [8]}."
    )


@pytest.mark.parametrize(
    "answer, step, says",
    [
        ([], 1, "No answer yet. It takes 3 values, first: free 8."),
        (RIGHT[:2], 3, "Right so far, 2 of 3 steps. Next is free 10."),
        (RIGHT + [{}], 4, "All 3 steps are right, but your answer has 4."),
        (None, 1, "you have None"),
        ("<script>", 1, "you have <script>"),
        (42, 1, "you have 42"),
    ],
)
def test_answers_of_any_shape(answer, step, says):
    verdict = check("testc.lists", answer)
    assert not verdict and verdict.step == step and says in verdict.text
    assert "<script>" not in verdict.html()


def test_parameters_reach_the_exercise():
    assert "free 12" in check("testc.lists", RIGHT[:2], last=12).text


@pytest.mark.parametrize("answer", [7, "7", "0x7", [7], (7,)])
def test_one_step_takes_a_bare_value(answer):
    assert check("testc.one", answer).text == "Right."


@pytest.mark.parametrize("answer", [8, "seven", [7, 7], [], True, {}, None])
def test_one_step_refuses(answer):
    assert not check("testc.one", answer)


def test_lists_and_tuples_and_keys_as_text_are_the_same():
    assert check("testc.lists", ({"0": (8,)}, {1: [8]}, {2: ["8"]}))


def test_answers_by_label():
    assert check("testc.lists", {"free 8": {0: [8]}, "free 9": {1: [8]}, "free 10": {2: [8]}})


def test_an_exercise_may_compare_in_its_own_way():
    assert check("testc.near", [12, "3.2"])
    assert check("testc.near", [12, "x"]).step == 2


def test_a_verdict_survives_json():
    data = check("testc.lists", [{0: (8,)}, 3]).to_dict()
    assert json.loads(json.dumps(data)) == data and data["step"] == 2


def test_an_unknown_exercise_is_refused():
    with pytest.raises(UsageError, match=r"no exercise 'testc.lost'; there are: .*testc.lists"):
        check("testc.lost", 1)
    with pytest.raises(UsageError, match="needs the form"):
        exercise("Nope")


@pytest.mark.parametrize(
    "typed, expected, means",
    [
        ("1,024", 1024, 1024),
        (" 11 264 ", 11264, 11264),
        ("0x15", 21, 21),
        ("021", 21, 21),
        ("many", 21, "many"),
        ("yes", True, True),
        ("False", False, False),
        ("1", True, "1"),
        ("'vma_lock_abort'", "vma_lock_abort", "vma_lock_abort"),
        ("(0, 8, 'head')", (0, 8, "head"), (0, 8, "head")),
        ("0, 8, head", (0, 8, "head"), (0, 8, "head")),
        ("0 8 head", (0, 8, "head"), (0, 8, "head")),
        ("{0: [8]}", {0: [8]}, {0: [8]}),
        ("__import__('os').getcwd()", {0: [8]}, "__import__('os').getcwd()"),
        ("[" * 100_000, [1], None),
    ],
)
def test_what_a_reader_types_is_understood(typed, expected, means):
    read = checks.read_answer(typed, expected)
    assert means is None or (read == means and type(read) is type(means))


def test_a_form_is_checked_step_by_step():
    right = checks.check_typed("ch02.free-order", ["0 8 head", "1, 8, head", "", "x"], {})
    assert not right and right.step == 3 and "2 of 4 steps" in right.text
    wrong = checks.check_typed("ch02.free-order", ["0 8 head", "1 9 head"], {})
    assert not wrong and wrong.step == 2 and "you have" in wrong.text
    assert checks.check_typed("ch02.high-min", ["3,917"], {})
    assert checks.check_typed("ch02.high-min", [" "], {}).form is not None


def test_an_unanswered_exercise_carries_its_form():
    verdict = check("ch02.free-order", [], seed=3)
    assert verdict.form["params"] == {"seed": 3} and verdict.form["varies"]
    assert "data-exercise=" in verdict.html() and '"name"' not in verdict.html()
    assert "data-exercise=" not in check("ch02.free-order", ["x"]).html()


def test_a_new_seed_is_a_new_problem():
    ch02 = ("ch02.free-order", "ch02.gfp", "ch02.claim", "ch02.high-min")
    ch05 = ("ch05.addresses", "ch05.not-copied", "ch05.cannot-fork", "ch10.first-toucher")
    for name in (*ch02, "ch03.indices", *ch05):
        task = checks.find(name)
        cases = [task.case(seed) for seed in range(1, 6)]
        assert cases == [task.case(seed) for seed in range(1, 6)]
        assert len({str(case) for case in cases}) >= 4, name
        for case in cases:
            steps = task.function(**case)
            assert checks.check_typed(name, [str(expected) for _, expected in steps], case), name
    with pytest.raises(UsageError, match="one case only"):
        checks.find("ch03.oops").case(1)


@pytest.mark.parametrize(
    "name, said",
    [
        ("ch05.cannot-fork", ["database_mib", "ram_mib", "swap_mib"]),  # 0 is in "mode 0", too
        ("ch05.addresses", []),  # the sizes are in the names of the steps
        ("ch05.not-copied", ["n"]),
        ("ch03.indices", []),
        ("ch02.free-order", []),
    ],
)
def test_a_new_problem_says_what_its_steps_do_not(name, said):
    for seed in range(1, 9):
        drawn = json.loads(live.handle("problem", json.dumps({"name": name, "seed": seed})))
        given = dict(re.findall(r"(\w+) = (\w+)", drawn["given"]))
        assert list(given) == said
        assert all(given[word] == str(drawn["params"][word]) for word in said)


def test_a_large_number_is_an_address():
    assert "the engine has 0x7ffff7ff8000" in str(check("ch05.addresses", [1, 2, 3, 4]))
    assert checks.shown(786431) == "786431"
