"""Which pair comes next: everything is seen, old pairs come again, and few answers tell much."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tune_lora import rated
from tune_lora import pairs
from tune_lora.preferences import Judgement, fit


def session(
    worth: list[float], n: int, seed: int, rater: str = "anna", before: tuple[Judgement, ...] = ()
) -> list[Judgement]:
    """What a rater answers in `n` pairs that are chosen one after the other."""
    draw, said = random.Random(seed), list(before)
    for number in range(n):
        shown = pairs.next_pair(range(len(worth)), said, rater, draw)
        choice = rated.answer(draw, worth[shown.left], worth[shown.right])
        said.append(Judgement(shown.left, shown.right, choice, rater, str(number)))
    return said[len(before) :]


@given(st.integers(2, 12), st.integers(0, 99))
@settings(max_examples=30)
def test_two_different_trials_and_everyone_is_seen_first(n: int, seed: int) -> None:
    said = session([0.0] * n, (n + 1) // 2, seed)
    assert all(one.left != one.right and {one.left, one.right} <= set(range(n)) for one in said)
    assert {trial for one in said for trial in one.pair} == set(range(n))


def test_some_pairs_come_again_with_their_sides_changed() -> None:
    said = session([0.3 * n for n in range(10)], 30, 4)
    again = [pair for pair, times in Counter(one.pair for one in said).items() if times > 1]
    assert len(again) >= 4
    swapped = 0
    for pair in again:
        first, second = [one for one in said if one.pair == pair][:2]
        swapped += (first.left, first.right) == (second.right, second.left)
    assert swapped >= 4


def test_a_pair_is_not_asked_for_twice_in_a_row() -> None:
    said = session([0.0, 0.0, 0.0], 20, 1)
    assert all(one.pair != other.pair for one, other in pairwise(said))


def test_two_trials_alone_can_be_compared_for_ever() -> None:
    assert len(session([0.0, 1.0], 10, 0)) == 10


def test_sides_are_drawn() -> None:
    sides = [one.left < one.right for seed in range(20) for one in session([0.0] * 6, 10, seed)]
    assert 0.4 < np.mean(sides) < 0.6


def test_another_rater_goes_on_where_the_first_one_stopped() -> None:
    worth = [0.5 * n for n in range(8)]
    first = session(worth, 12, 2)
    second = session(worth, 6, 3, "ben", tuple(first))
    assert all(one.rater == "ben" for one in second)


def test_chosen_pairs_tell_more_than_drawn_ones() -> None:
    chosen, drawn = [], []
    for seed in range(12):
        worth = list(np.random.default_rng(seed).normal(0, 2, 10))
        for said, errors in ((session(worth, 30, seed), chosen), (rated.judged(worth, 30, seed), drawn)):
            model = fit(range(10), said)
            errors.append(float(np.trace(model.covariance)))
    assert np.mean(chosen) < np.mean(drawn)


def test_as_many_pairs_are_planned_as_there_are_to_show() -> None:
    assert pairs.planned(12) == 36
    assert pairs.planned(2) == 2
    assert pairs.planned(3) == 6
