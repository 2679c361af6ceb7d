"""Intervals, paired differences and shares of wall time say what they claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.search import statistics

SHAPE = (4, 5, 1)
VALUES = arrays(float, SHAPE, elements=st.floats(-5, 5))


@pytest.fixture(autouse=True, scope="module")
def few_draws() -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(statistics, "DRAWS", 300)
    yield
    patch.undo()


@given(VALUES)
@settings(max_examples=20, deadline=None)
def test_an_interval_lies_within_what_was_seen(values: np.ndarray) -> None:
    found = statistics.estimate(statistics.mean, values)
    assert found.value == pytest.approx(values.mean())
    assert values.min() - 1e-9 <= found.low <= found.high <= values.max() + 1e-9


@given(VALUES, st.floats(-2, 2))
@settings(max_examples=20, deadline=None)
def test_pairs_that_differ_by_a_constant_leave_no_doubt(values: np.ndarray, shift: float) -> None:
    found = statistics.estimate(statistics.difference, values + shift, values)
    assert (found.low, found.value, found.high) == pytest.approx((shift,) * 3, abs=1e-9)


def test_tasks_that_differ_are_not_taken_for_independent_runs() -> None:
    rng = np.random.default_rng(0)
    alike = np.arange(4.0)[:, None, None] + rng.normal(0, 0.01, (4, 50, 1))
    found = statistics.estimate(statistics.mean, alike)
    as_if_independent = 1.96 * alike.std() / math.sqrt(alike.size)
    assert found.high - found.low > 4 * 2 * as_if_independent


def test_seeds_are_drawn_as_well() -> None:
    one_task = np.random.default_rng(0).normal(0, 1, (1, 100, 1))
    found = statistics.estimate(statistics.mean, one_task)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 / 10, rel=0.3)


def test_only_seeds_that_all_have_are_compared() -> None:
    whole = {(task, seed): 0.0 for task in "ab" for seed in range(3)}
    lacking = {place: 0.0 for place in whole if place != ("b", 1)}
    assert statistics.common(whole, lacking) == (["a", "b"], [0, 2])
    assert statistics.common(whole, {})[1] == []


def test_the_time_to_reach_is_where_the_mean_gets_there_first() -> None:
    times = np.array([1.0, 2.0, 3.0])
    curves = np.array([[1.0, 0.2, 0.1], [1.0, 0.6, 0.1]])
    assert statistics.time_to_reach(curves, times, 0.4) == 2.0
    assert statistics.time_to_reach(curves, times, 0.39) == 3.0
    assert statistics.time_to_reach(curves, times, 0.05) == math.inf
