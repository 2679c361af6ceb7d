"""Rank correlations with intervals, and how far raters can be relied on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tune_lora.rank_agreement import ENOUGH, agreement, consistency


def test_few_are_too_few_to_say() -> None:
    few = [(float(n), float(n)) for n in range(ENOUGH - 1)]
    assert agreement(few).verdict == "too few to say"
    assert agreement([]).verdict == "too few to say"


def test_equal_ones_have_no_order() -> None:
    assert agreement([(1.0, float(n)) for n in range(20)]).verdict == "too few to say"


def test_coefficients_are_scipy_s_and_lie_in_their_intervals() -> None:
    draw = np.random.default_rng(3)
    first, second = draw.normal(size=30), draw.normal(size=30)
    found = agreement(list(zip(first, second, strict=True)))
    assert found.spearman is not None and found.kendall is not None
    assert found.spearman.value == pytest.approx(stats.spearmanr(first, second).statistic)
    assert found.kendall.value == pytest.approx(stats.kendalltau(first, second).statistic)
    for one in (found.spearman, found.kendall):
        assert -1 <= one.low < one.value < one.high <= 1


def test_perfect_orders_are_told_with_an_interval() -> None:
    for sign, verdict in ((1, "agree"), (-1, "disagree")):
        found = agreement([(float(n), float(sign * n)) for n in range(12)])
        assert found.verdict == verdict
        assert found.spearman is not None and -1 <= found.spearman.low <= found.spearman.high <= 1


@pytest.mark.parametrize(("rho", "low", "high"), [(0.0, 0.86, 0.94), (0.7, 0.85, 0.95)])
def test_the_interval_holds_the_true_coefficient_at_its_rate(rho: float, low: float, high: float) -> None:
    draw = np.random.default_rng(1)
    true = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of a normal distribution with that correlation
    held = []
    for _ in range(600):
        sample = draw.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 15)
        found = agreement([(float(a), float(b)) for a, b in sample]).spearman
        assert found is not None
        held.append(found.low <= true <= found.high)
    assert low <= np.mean(held) <= high


def test_noise_is_not_told_apart_from_chance() -> None:
    draw = np.random.default_rng(5)
    verdicts = [agreement([(float(a), float(b)) for a, b in draw.normal(size=(12, 2))]).verdict for _ in range(200)]
    assert np.mean([verdict == "not told apart from chance" for verdict in verdicts]) > 0.82


def test_a_rater_is_held_against_the_first_answer() -> None:
    answers = [("anna", (0, 1), 0, "left"), ("anna", (0, 1), 0, "right"), ("anna", (0, 1), None, "tie")]
    found = consistency([*answers, ("anna", (1, 2), 2, "right")])
    assert (found.repeated, found.same, found.shared) == (2, 1, 0)


def test_raters_are_held_against_each_other() -> None:
    found = consistency([("anna", (0, 1), 0, "left"), ("ben", (0, 1), 1, "left"), ("cem", (0, 1), 0, "right")])
    assert (found.shared, found.alike, found.repeated) == (3, 1, 0)


def test_a_side_that_is_always_preferred_is_told() -> None:
    always = [("anna", (n, n + 1), n, "left") for n in range(12)]
    by_turns = [("anna", (n, n + 1), n, ("left", "right")[n % 2]) for n in range(12)]
    assert consistency(always).prefers_a_side
    assert not consistency(by_turns).prefers_a_side
    assert not consistency([]).prefers_a_side
