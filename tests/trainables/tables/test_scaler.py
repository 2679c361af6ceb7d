"""Standardisation keeps to the rows it was fitted on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trainables.tables import Scaler

ROWS = arrays(
    np.float64, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.floats(-1e3, 1e3, allow_subnormal=False)
)


@given(ROWS)
def test_there_and_back(x: np.ndarray) -> None:
    scaler = Scaler.fit(x)
    assert scaler.transform(x).dtype == np.float32
    assert np.all(np.isfinite(scaler.transform(x)))
    np.testing.assert_allclose(scaler.inverse(scaler.transform(x)), x, atol=1e-3)


@given(ROWS)
def test_a_scaler_is_what_its_json_says(x: np.ndarray) -> None:
    scaler = Scaler.fit(x)
    again = Scaler.from_dict(json.loads(json.dumps(scaler.as_dict())))
    np.testing.assert_array_equal(again.transform(x), scaler.transform(x))


def test_standardised_rows_have_mean_zero_and_deviation_one() -> None:
    z = Scaler.fit(x := np.random.default_rng(0).normal(5, 3, (200, 2))).transform(x)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-6)


def test_a_constant_column_is_nothing_even_where_it_changes_later() -> None:
    train = np.full((7, 1), 0.1)
    scaler = Scaler.fit(train)
    assert scaler.transform(np.array([[0.1], [5.0]])).tolist() == [[0.0], [0.0]]
    assert scaler.inverse(np.zeros((1, 1))).tolist() == [[0.1]]


def test_a_target_of_one_dimension() -> None:
    scaler = Scaler.fit(np.array([1.0, 3.0]))
    assert scaler.transform(np.array([1.0, 3.0, 5.0])).tolist() == [-1.0, 1.0, 3.0]
    assert Scaler.from_dict(scaler.as_dict()).inverse(np.array([1.0])).tolist() == [3.0]


def test_no_rows_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Scaler.fit(np.empty((0, 3)))
