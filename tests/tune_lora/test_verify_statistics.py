"""What repeated measurements say of candidates: rules that hold for all numbers, and known cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tune_lora.verify_statistics import Estimate, chosen, estimates

FEW = settings(max_examples=15)
"""Each example samples a model: about a tenth of a second."""


@st.composite
def measurements(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Values of two to five candidates with two to six seeds, and what the search said of them."""
    k, n = draw(st.integers(2, 5)), draw(st.integers(2, 6))
    cells = st.floats(-3, 3, allow_nan=False, width=16)
    values = draw(arrays.arrays(np.float64, (k, n), elements=cells))
    return values, draw(arrays.arrays(np.float64, (k,), elements=cells))


@FEW
@given(measurements(), st.booleans())
def test_probabilities_are_one_together_and_intervals_hold_the_mean(
    given: tuple[np.ndarray, np.ndarray], maximize: bool
) -> None:
    values, searched = given
    found = estimates(values, searched, maximize=maximize)
    assert sum(one.best for one in found) == pytest.approx(1)
    assert all(0 <= one.best <= 1 for one in found)
    assert all(one.low <= one.high for one in found)
    assert all(np.isfinite([one.mean, one.low, one.high]).all() for one in found)
    best = chosen(found, maximize=maximize)
    assert found[best].mean == (max if maximize else min)(one.mean for one in found)


@FEW
@given(measurements(), st.randoms())
def test_candidates_may_stand_in_any_order(given: tuple[np.ndarray, np.ndarray], random: object) -> None:
    values, searched = given
    distinct = values + np.arange(len(values))[:, None] * 1e-3  # equal candidates have no order
    order = np.random.default_rng(random.randrange(2**32)).permutation(len(values))  # type: ignore[attr-defined]
    straight, shuffled = estimates(distinct, searched), estimates(distinct[order], searched[order])
    if len({row.tobytes() for row in distinct}) == len(distinct):
        assert [straight[place] for place in order] == shuffled


@FEW
@given(measurements(), st.floats(0.1, 50), st.floats(-20, 20))
def test_other_units_change_units_only(given: tuple[np.ndarray, np.ndarray], scale: float, shift: float) -> None:
    values, searched = given
    values = values + np.random.default_rng(0).normal(size=values.shape)  # exact ties are not a matter of units
    plain, other = estimates(values, searched), estimates(values * scale + shift, searched * scale + shift)
    for one, two in zip(plain, other, strict=True):
        assert two.mean == pytest.approx(one.mean * scale + shift, abs=0.02 * scale * (1 + abs(one.high - one.low)))
        assert two.best == pytest.approx(one.best, abs=0.05)


def simulated(seed: int, n_seeds: int, worths: list[float], shared: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array(worths)[:, None] + rng.normal(size=n_seeds) * shared + rng.normal(size=(len(worths), n_seeds))


def test_more_seeds_are_not_wider_in_expectation() -> None:
    widths = {}
    for n in (3, 6, 12):
        found = [one for seed in range(12) for one in estimates(simulated(seed, n, [0, 0.5, 1, 1.5, 2]))]
        widths[n] = np.mean([one.high - one.low for one in found])
    assert widths[3] > widths[6] > widths[12]


def test_a_clear_winner_is_clear_and_equals_are_not() -> None:
    clear = estimates(simulated(1, 8, [-6, 0, 0, 0]))
    assert clear[0].best > 0.95
    equal = estimates(simulated(2, 8, [0, 0, 0, 0]))
    assert max(one.best for one in equal) < 0.8


def test_what_seeds_do_to_all_does_not_blur_the_comparison() -> None:
    rng = np.random.default_rng(3)
    values = np.array([0.0, 0.5])[:, None] + rng.normal(size=6) * 10 + rng.normal(size=(2, 6)) * 0.01
    found = estimates(values)
    assert found[0].best > 0.95  # although each value is uncertain by far more than the difference
    assert found[0].high - found[0].low > 1


def test_the_best_of_equals_is_pulled_to_the_others() -> None:
    gaps = []
    for seed in range(10):
        values = simulated(seed, 5, [0.0] * 5)
        best = int(values.mean(axis=1).argmin())
        gaps.append(estimates(values)[best].mean - values[best].mean())
    assert min(gaps) > 0
    assert np.mean(gaps) > 0.1


def test_the_search_helps_to_tell_and_says_nothing_of_the_level() -> None:
    values = simulated(5, 3, [0.0, 0.3])
    for searched, better in (([-2.0, 2.0], 0), ([2.0, -2.0], 1)):
        far = estimates(values, [one + 1_000 for one in searched])
        near = estimates(values, searched)
        assert abs(np.mean([one.mean for one in far]) - values.mean()) < 2
        assert near[better].best > estimates(values, searched[::-1])[better].best


def test_values_without_any_noise() -> None:
    found = estimates([[1.0, 1.0], [1.0, 1.0]])
    assert found == [Estimate(1, 1, 1, 0.5)] * 2
    apart = estimates([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    assert apart[0].best > 0.99


def test_one_candidate_has_an_interval() -> None:
    (one,) = estimates([[0.1, 0.2, 0.15, 0.12]])
    assert one.best == 1
    assert one.low < 0.1425 < one.high


@pytest.mark.parametrize("values", [[[1.0]], [], [[1.0, float("nan")]], [1.0, 2.0]])
def test_too_little_is_refused(values: list) -> None:
    with pytest.raises(ValueError, match="must be"):
        estimates(values)


def test_a_search_value_is_needed_for_each() -> None:
    with pytest.raises(ValueError, match="one a candidate"):
        estimates([[1.0, 2.0], [2.0, 3.0]], [1.0])
