"""Weights of groups: what Sagawa et al.'s update promises, for any losses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.classification.groupdro import GroupWeights

NAMES = ("a", "b", "c")
losses = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, st.floats(0, 50))).filter(bool)


def weights(**changes) -> GroupWeights:
    return GroupWeights(NAMES, **{"eta": 0.01, "gamma": 0.9, "warmup_epochs": 0, **changes})


@given(st.lists(losses, max_size=30), st.floats(1e-3, 10), st.floats(0, 0.99))
def test_weights_are_always_a_distribution(steps, eta, gamma) -> None:
    mine = weights(eta=eta, gamma=gamma)
    for step in steps:
        mine.update(step, epoch=0)
    assert math.isclose(sum(mine.q.values()), 1.0, rel_tol=1e-9)
    assert all(value >= 0 for value in mine.q.values())


@given(st.lists(losses, max_size=10))
def test_weights_stay_equal_during_warm_up(steps) -> None:
    mine = weights(warmup_epochs=2)
    for step in steps:
        mine.update(step, epoch=1)
    assert mine.q == pytest.approx(dict.fromkeys(NAMES, 1 / 3))


@given(st.lists(st.floats(0, 50), min_size=1, max_size=10))
def test_equal_losses_change_nothing(steps) -> None:
    mine = weights(eta=1.0)
    for loss in steps:
        mine.update(dict.fromkeys(NAMES, loss), epoch=0)
    assert mine.q == pytest.approx(dict.fromkeys(NAMES, 1 / 3))


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=30))
def test_the_group_with_the_higher_loss_gains_weight(steps) -> None:
    mine = weights()
    for loss in steps:
        mine.update({"a": loss, "b": 0.5 * loss, "c": 0.25 * loss}, epoch=0)
    assert mine.q["a"] > mine.q["b"] > mine.q["c"]


def test_the_update_is_the_formula() -> None:
    mine = weights(eta=0.5, gamma=0.8)
    mine.update({"a": 2.0, "b": 1.0}, epoch=0)  # at first the loss itself; c was not seen
    mine.update({"a": 1.0, "c": 3.0}, epoch=0)
    ema = {"a": 0.8 * 2.0 + 0.2 * 1.0, "b": 1.0, "c": 3.0}
    first = {"a": 2.0, "b": 1.0, "c": 0.0}
    raw = {name: math.exp(0.5 * (first[name] + ema[name])) for name in NAMES}
    assert mine.q == pytest.approx({name: value / sum(raw.values()) for name, value in raw.items()})


@given(st.lists(losses, min_size=2, max_size=12), st.integers(1, 11))
def test_restored_weights_go_on_as_they_would_have(steps, place) -> None:
    whole, first = weights(), weights()
    for step in steps:
        whole.update(step, epoch=0)
    for step in steps[:place]:
        first.update(step, epoch=0)
    second = weights()
    second.restore(first.state())
    for step in steps[place:]:
        second.update(step, epoch=0)
    assert second.q == pytest.approx(whole.q)
