"""Two studies held against each other: known cases, and rules of the tests behind it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tune_lora import compare_statistics as statistics
from tune_lora.compare import compare
from tune_lora.compare_view import summary
from tune_lora.errors import InputError
from tune_lora.records import Objective, StudyRecord, TrialRecord

SPACE: dict[str, Any] = {
    "parameters": {
        "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
        "kind": {"type": "categorical", "choices": ["a", "b"]},
    }
}
FEW = settings(max_examples=20)
SAMPLES = st.lists(st.floats(-5, 5, allow_nan=False, width=16), min_size=3, max_size=12)


def study(name: str, seed: int, n: int, *, best: float = -3.0, space: dict[str, Any] = SPACE) -> StudyRecord:
    """A random search on a bowl around the decade `best`, where kind ``a`` is better."""
    rng, trials = np.random.default_rng(seed), []
    for number in range(n):
        params = {"learning_rate": float(10 ** rng.uniform(-5, -1)), "kind": str(rng.choice(["a", "b"]))}
        params |= {name: float(rng.uniform()) for name in space["parameters"] if name not in params}
        value = (np.log10(params["learning_rate"]) - best) ** 2 + 2 * (params["kind"] == "b") + rng.normal(0, 0.05)
        trials.append(TrialRecord(number, "complete", float(value), params, params))
    return StudyRecord(name, "minimize", tuple(trials), spec={"space": space})


def test_two_seeds_of_one_search_end_in_the_same_region() -> None:
    found = compare(study("one", 1, 60), study("two", 2, 60))
    assert found.verdict == "same region"
    assert [place.difference.call for place in found.places if place.decides] == ["none"] * 2
    assert found.scores is not None
    assert found.scores.p > 0.05


def test_another_optimum_is_different() -> None:
    first, second = study("one", 1, 60), study("two", 2, 60, best=-1.5)
    found = compare(first, second)
    assert found.verdict == "different: run more"
    (rate,) = [place for place in found.places if place.name == "learning_rate"]
    assert rate.difference.call == "real"
    assert rate.difference.low > 0  # the second's best lie higher
    assert found.p is not None
    assert found.p < 0.05
    console = Console(width=160, file=io.StringIO())
    console.print(summary(found, first, second))
    text = console.file.getvalue()
    assert "different: run more" in text
    assert "learning_rate" in text


def test_few_trials_are_no_agreement() -> None:
    found = compare(study("one", 1, 14), study("two", 2, 14))
    assert found.verdict == "cannot tell yet: run more"
    found = compare(study("one", 1, 6), study("two", 2, 60))
    assert found.verdict == "cannot tell yet: run more"
    assert "6 completed trials in one of them; must be 12" in found.why[0]


def test_a_study_agrees_with_itself() -> None:
    one = study("one", 3, 60)
    found = compare(one, one)
    assert found.p == 1
    assert all(place.difference.size == 0 for place in found.places)


def test_other_spaces_are_compared_in_what_they_share() -> None:
    wider = {"parameters": {**SPACE["parameters"], "dropout": {"type": "uniform", "low": 0, "high": 1}}}
    found = compare(study("one", 1, 40), study("two", 2, 40, space=wider))
    assert found.left_out == ("dropout",)
    assert {place.name for place in found.places} == {"learning_rate", "kind"}


def test_what_cannot_be_compared_is_one_line() -> None:
    other = StudyRecord("two", "minimize", (TrialRecord(0, "complete", 1.0, {"x": 1.0}, {"x": 1.0}),))
    with pytest.raises(InputError, match="have no hyperparameter in common"):
        compare(study("one", 1, 20), other)
    with pytest.raises(InputError, match="no trial has completed"):
        compare(study("one", 1, 20), StudyRecord("two", "minimize", ()))
    several = StudyRecord("two", "minimize", (), objectives=(Objective("a"), Objective("b")))
    with pytest.raises(InputError, match="several objectives"):
        compare(several, study("one", 1, 20))


@FEW
@given(SAMPLES, SAMPLES)
def test_a_difference_turns_round_with_its_groups(first: list[float], second: list[float]) -> None:
    one, two = statistics.of_numbers(first, second), statistics.of_numbers(second, first)
    assert one.size == pytest.approx(-two.size)
    assert (one.low, one.high) == pytest.approx((-two.high, -two.low))
    assert one.low <= one.size <= one.high
    assert 0 < one.p <= 1


@FEW
@given(SAMPLES)
def test_equal_samples_are_never_told_apart(values: list[float]) -> None:
    assert statistics.of_numbers(values, values).p == 1
    assert statistics.same_distribution(values, values) == 1
    assert statistics.of_numbers(values, values).call != "real"


def test_permutation_tests_err_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=(2, 12)) for _ in range(60)]
    for test in (lambda a, b: statistics.of_numbers(a, b).p, statistics.same_distribution):
        share = np.mean([test(a, b) < 0.1 for a, b in drawn])
        assert share < 0.25
    far = [test(a, b + 3) for a, b in drawn[:10] for test in (statistics.same_distribution,)]
    assert max(far) < 0.01


def test_the_same_ranks_agree() -> None:
    assert statistics.rank_agreement([1, 2, 3, 4, 5], [10, 20, 30, 40, 50])[0] == pytest.approx(1)
    assert statistics.rank_agreement([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])[0] == pytest.approx(-1)
    assert statistics.rank_agreement([1, 1, 1], [1, 2, 3]) == (0.0, 1.0)


def test_all_choices_must_agree() -> None:
    choice, found = statistics.of_choices(["a"] * 30 + ["b"] * 30, ["a"] * 30 + ["c"] * 30)
    assert choice in ("b", "c")
    assert found.call == "real"
    assert statistics.of_choices(["a", "b"] * 40, ["a", "b"] * 40)[1].call == "none"
