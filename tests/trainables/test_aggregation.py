"""Several folds become one number."""

from __future__ import annotations

import math

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from trainables.aggregation import aggregate, fold_metrics, spread

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12)


def test_mean_median_and_the_bad_end_of_the_interval() -> None:
    values = [1.0, 2.0, 6.0]
    assert aggregate(values) == 3.0
    assert aggregate(values, "median") == 2.0
    interval = scipy.stats.t.interval(0.8, 2, loc=3.0, scale=scipy.stats.sem(values))  # 10 % on each side
    assert aggregate(values, "pessimistic") == pytest.approx(interval[1])
    assert aggregate(values, "pessimistic", higher_is_better=True) == pytest.approx(interval[0])
    assert spread(values) == pytest.approx(math.sqrt(7))


@given(VALUES)
def test_pessimism_never_improves_on_the_mean(values: list[float]) -> None:
    slack = 1e-6
    assert aggregate(values, "pessimistic") >= aggregate(values) - slack
    assert aggregate(values, "pessimistic", True) <= aggregate(values) + slack
    mirrored = [-value for value in values]
    assert aggregate(mirrored, "pessimistic", True) == pytest.approx(-aggregate(values, "pessimistic"), abs=slack)


@pytest.mark.parametrize("how", ["mean", "median", "pessimistic"])
def test_one_value_is_itself(how: str) -> None:
    assert aggregate([0.25], how) == 0.25  # type: ignore[arg-type]  # a parameter of the test
    assert spread([0.25]) == 0.0


def test_no_values_are_no_number() -> None:
    with pytest.raises(ValueError, match="nothing to aggregate"):
        aggregate([])


FOLDS = [{"score": 0.2, "val_acc": 0.9}, {"score": 0.4, "val_acc": 0.7}]


def test_a_report_holds_the_running_aggregates_and_this_fold_alone() -> None:
    assert fold_metrics(FOLDS, objective="score") == pytest.approx(
        {"score": 0.3, "val_acc": 0.8, "score_spread": math.sqrt(0.02), "fold_score": 0.4}
    )
    assert fold_metrics(FOLDS[:1], objective="score")["fold_score"] == 0.2


def test_the_score_of_a_fold_is_lower_when_better() -> None:
    told = fold_metrics(FOLDS, objective="val_acc", higher_is_better={"val_acc"}, how="pessimistic")
    assert told["fold_score"] == -0.7
    assert told["val_acc"] < 0.8 and told["score"] > 0.3, "each metric at its own bad end"


def test_the_last_report_holds_every_fold() -> None:
    told = fold_metrics(FOLDS, objective="score", complete=True)
    assert {name: value for name, value in told.items() if name[:5] == "fold_" and name[5].isdigit()} == {
        "fold_1_score": 0.2,
        "fold_1_val_acc": 0.9,
        "fold_2_score": 0.4,
        "fold_2_val_acc": 0.7,
    }


def test_a_metric_that_a_fold_lacks_is_aggregated_over_the_others() -> None:
    told = fold_metrics([{"score": 1.0, "recall": 0.5}, {"score": 3.0}], objective="score")
    assert told["recall"] == 0.5 and told["score"] == 2.0
