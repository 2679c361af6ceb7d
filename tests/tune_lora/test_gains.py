"""What a phase gained: paired differences with their interval, single changes, and what the verdict says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tune_lora import gains
from tune_lora.gains import Gain, Interval, PhaseGain

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


def test_the_interval_is_students() -> None:
    found = gains.interval([1.0, 2.0, 4.0], 0.9)
    low, high = stats.t.interval(0.9, 2, loc=7 / 3, scale=stats.sem([1.0, 2.0, 4.0]))
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((7 / 3, low, high))


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert gains.interval([0.3], 0.9) == Interval(0.3, None, None, 1)
    assert gains.interval([], 0.9) is None
    assert not Interval(0.3, None, None, 1).is_clear


@given(VALUES, st.floats(-10, 10))
def test_what_all_seeds_share_is_no_gain_and_a_shift_is_all_gain(values: list[float], shift: float) -> None:
    before = dict(enumerate(values))
    after = {seed: value + shift for seed, value in before.items()}
    for direction, sign in (("maximize", 1), ("minimize", -1)):
        found = gains.paired(before, after, direction, 0.9)  # type: ignore[arg-type]  # a Literal out of a loop
        assert found is not None
        assert found.mean == pytest.approx(sign * shift, abs=1e-9)


def test_only_seeds_that_both_have_are_compared() -> None:
    found = gains.paired({1: 0.5, 2: 0.6, 3: 0.7}, {2: 0.7, 3: 0.9, 9: 100.0}, "maximize", 0.9)
    assert found is not None
    assert (found.n, found.mean) == (2, pytest.approx(0.15))


def test_a_parameter_changes_with_the_one_it_exists_for() -> None:
    start = {"lr": 1e-3, "robust": False, "width": 64}
    best = {"lr": 1e-4, "robust": True, "eta": 0.01, "gamma": 0.9, "width": 64}
    changes = gains.differing(start, best, {"eta": "robust", "gamma": "robust"})
    assert changes == [{"lr": 1e-4}, {"robust": True, "eta": 0.01, "gamma": 0.9}]


def test_between_two_that_both_have_it_a_conditional_parameter_is_a_change_of_its_own() -> None:
    start = {"robust": True, "eta": 0.01}
    assert gains.differing(start, {"robust": True, "eta": 0.005}, {"eta": "robust"}) == [{"eta": 0.005}]


def gain(mean: float, low: float | None, high: float | None, claimed: tuple[float, float] | None = None) -> Gain:
    return Gain({"a": 2}, {"a": 1}, Interval(mean, low, high, 3), claimed)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (gain(0.05, 0.02, 0.08), "better"),
        (gain(-0.05, -0.08, -0.02), "worse"),
        (gain(0.01, -0.02, 0.04), "not told apart from no gain"),
        (gain(0.01, -0.02, 0.04, (0.05, 0.10)), "not told apart from no gain; below what was promised"),
        (gain(0.06, 0.04, 0.08, (0.05, 0.10)), "better; the promise is not refuted"),
        (gain(0.3, 0.2, 0.4, (0.05, 0.10)), "better; above what was promised"),
        (Gain({"a": 2}, {"a": 1}, None), "not measured"),
    ],
)
def test_the_verdict_says_what_was_measured(told: Gain, says: str) -> None:
    assert told.verdict == says


def test_what_did_best_again_is_where_the_next_phase_starts() -> None:
    start, best, single = {"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": 2, "b": 1}
    measured = [(start, {1: 0.5, 2: 0.5}), (best, {1: 0.6, 2: 0.6}), (single, {1: 0.6, 2: 0.7})]
    assert gains.strongest(measured, "maximize") == single
    assert gains.strongest(measured, "minimize") == start
    assert gains.strongest(measured[:2], "maximize") == best
    equal = [(start, {1: 0.5}), (best, {1: 0.5})]
    assert gains.strongest(equal, "maximize") == start  # nothing is changed for nothing


def test_a_configuration_that_lacks_a_seed_is_not_chosen() -> None:
    measured = [({"a": 1}, {1: 0.5, 2: 0.5}), ({"a": 2}, {1: 0.9})]
    assert gains.strongest(measured, "maximize") == {"a": 1}
    assert gains.strongest([({"a": 1}, {}), ({"a": 2}, {})], "maximize") == {"a": 1}


def test_a_phase_says_whether_the_best_of_the_search_did_best_again() -> None:
    def phase(end: dict[str, int]) -> PhaseGain:
        return PhaseGain("p", {"a": 1}, {"a": 2}, 0.9, {}, {}, end, {}, None, None)

    assert phase({"a": 2}).adopted and phase({"a": 2}).is_best_of_search
    assert not phase({"a": 1}).adopted
    assert phase({"a": 3}).adopted and not phase({"a": 3}).is_best_of_search
