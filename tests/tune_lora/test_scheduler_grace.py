"""A measured grace period: it finds the rung whose order is the final one, and chance does not move it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_lora import scheduler as schedulers
from tune_lora.scheduler import grace as graces
from tune_lora.store import TrialRecord

LADDER = (2, 6, 18)
Scores = dict[int, dict[int | str, float]]


def drawn(noise: dict[int, float], trials: int, seed: int, keep: float = 1.0) -> tuple[Scores, dict[int | str, float]]:
    """Trials whose score at a rung is their final one with noise; `keep` is the share that goes on from each rung."""
    rng = np.random.default_rng(seed)
    final = rng.normal(size=trials)
    alive = np.arange(trials)
    at_rungs: Scores = {}
    for rung in LADDER:
        scores = final + noise.get(rung, 0.0) * rng.normal(size=trials)
        at_rungs[rung] = {int(number): float(scores[number]) for number in alive}
        if rung >= 6:
            alive = alive[np.argsort(scores[alive])][: max(1, round(keep * len(alive)))]
    return at_rungs, {int(number): float(final[number]) for number in alive}


@pytest.mark.parametrize(("longest", "expected"), [(1, 2), (8, 2), (12, 2), (20, 3), (52, 6), (1000, 116)])
def test_it_starts_at_a_ninth_of_the_longest_budget_and_at_two_or_more(longest: int, expected: int) -> None:
    assert graces.start_of(longest) == expected


@pytest.mark.parametrize(
    ("longest", "eta", "expected"),
    [(52, 3, LADDER), (20, 3, (3, 9)), (12, 2, (2, 4, 8)), (2, 3, ()), (200, 4, (6, 24, 96))],
)
def test_all_rungs_are_known_beforehand(longest: int, eta: float, expected: tuple[int, ...]) -> None:
    assert graces.ladder_of(longest, eta) == expected


@given(st.integers(1, 5000), st.floats(1.2, 6))
def test_the_ladder_holds_where_it_starts_and_ascends_below_the_horizon(longest: int, eta: float) -> None:
    ladder, start = graces.ladder_of(longest, eta), graces.start_of(longest)
    assert list(ladder) == sorted(set(ladder))
    assert all(2 <= rung < longest for rung in ladder)
    assert start in ladder or start >= longest
    assert set(graces.candidates_of(ladder, start, longest)) <= set(ladder)


def test_it_goes_down_where_the_first_rung_orders_trials_as_the_end_does() -> None:
    found = graces.measure(LADDER, 6, *drawn({2: 0.2, 6: 0.1}, 30, seed=0))
    assert found.at == 2
    assert "rank correlation 0.9" in found.why and "30 trials" in found.why


def test_it_stays_where_the_first_rung_is_noise_and_the_next_is_not() -> None:
    found = graces.measure(LADDER, 6, *drawn({2: 3.0, 6: 0.2}, 60, seed=0))
    assert found.at == 6
    assert found.why.startswith("at budget 6 trials stand in the order of the end, rank correlation 0.9")


def test_it_goes_up_where_the_start_is_noise_and_says_why() -> None:
    found = graces.measure(LADDER, 6, *drawn({2: 3.0, 6: 2.0, 18: 0.1}, 60, seed=0))
    assert found.at == 18
    assert "at budget 6 trials do not stand in the order of the end, rank correlation 0." in found.why


def test_too_few_trials_move_nothing() -> None:
    at_rungs, finals = drawn({}, graces.PAIRS - 1, seed=0)
    assert graces.measure(LADDER, 6, at_rungs, finals) == graces.Grace(6)


def test_no_rung_in_order_leaves_the_highest() -> None:
    assert graces.measure(LADDER, 6, *drawn({2: 9.0, 6: 9.0, 18: 9.0}, 200, seed=0)).at == 18


@pytest.mark.parametrize("noise", [0.3, 0.6, 1.0])
def test_that_only_the_best_went_on_does_not_hide_the_order(noise: float) -> None:
    found = []
    for seed in range(30):
        at_rungs, _ = drawn({6: noise}, 120, seed=seed, keep=1 / 3)
        among_survivors = graces.agreement(at_rungs[6], at_rungs[18])
        assert among_survivors is not None and among_survivors.pairs == 40
        assert among_survivors.low <= among_survivors.correlation <= among_survivors.high
        found.append(among_survivors.correlation)
    true = 6 / math.pi * math.asin(1 / math.sqrt(1 + noise**2) / 2)  # Spearman's, of two normal variables
    assert np.mean(found) == pytest.approx(true, abs=0.08)


@pytest.mark.parametrize(("noise", "wrong"), [({2: 0.5, 6: 0.3}, 18), ({2: 2.0, 6: 0.3}, 2)])
def test_chance_rarely_decides(noise: dict[int, float], wrong: int) -> None:
    chosen = [graces.measure(LADDER, 6, *drawn(noise, 60, seed, keep=1 / 2)).at for seed in range(100)]
    assert chosen.count(wrong) <= 10


values = st.lists(st.floats(-100, 100, width=32), min_size=0, max_size=25)


@given(values, values, values, st.sampled_from([0.5, 2.0, 64.0]), st.sampled_from(LADDER))
@settings(max_examples=60)
def test_any_scores_give_a_rung_and_only_their_order_counts(
    first: list[float], second: list[float], third: list[float], scale: float, start: int
) -> None:
    def at(transform: Any) -> tuple[Scores, dict[int | str, float]]:
        columns = [{i: transform(x) for i, x in enumerate(column)} for column in (first, second, third, third[::2])]
        return dict(zip(LADDER, columns[:3], strict=True)), columns[3]  # type: ignore[return-value]  # int keys

    found = graces.measure(LADDER, start, *at(lambda x: x))
    assert found.at in LADDER
    assert found == graces.measure(LADDER, start, *at(lambda x: scale * x))
    assert found.at == graces.measure(LADDER, start, *at(lambda x: -x)).at


def play(scheduler: Any, number: int, final: float, noise: float, rng: np.random.Generator) -> dict[int, float]:
    trial = SimpleNamespace(trial_id=str(number), config={"trial": {"number": number}})
    told: dict[int, float] = {}
    for budget in range(1, 53):
        told[budget] = final + (noise * float(rng.normal()) if budget < 6 else 0.0)
        result = {"budget": budget, "score": told[budget], "final": budget == 52}
        decision = scheduler.on_trial_result(None, trial, result)
        if decision == "STOP" or budget == 52:
            scheduler.on_trial_complete(None, trial, result)
            break
    return told


@pytest.mark.parametrize(("noise", "expected"), [(0.05, 2), (5.0, 6)])
def test_the_scheduler_stops_from_the_measured_rung_on_and_says_so_once(noise: float, expected: int) -> None:
    said: list[str] = []
    scheduler = schedulers.build("asha", grace="auto", eta=3, max_budget=52, say=said.append)
    rng = np.random.default_rng(0)
    curves = [play(scheduler, number, float(rng.normal()), noise, rng) for number in range(150)]
    assert min(map(len, curves[:20])) == 6  # until then it is the share of the longest budget
    assert min(map(len, curves[100:])) == expected
    assert len(said) == (expected == 2)
    if said:
        assert said[0].startswith(
            "grace period 6 -> 2: at budget 2 trials stand in the order of the end, rank correlation"
        )

    replayed = schedulers.build("asha", grace="auto", eta=3, max_budget=52)
    replayed.replay(  # type: ignore[attr-defined]  # Ray's are not typed
        TrialRecord(number, "complete" if len(curve) == 52 else "pruned", None, {}, {}, curve=curve)
        for number, curve in enumerate(curves)
    )
    assert replayed.grace == scheduler.grace == expected  # type: ignore[attr-defined]


def test_a_trial_that_failed_counts_for_nothing() -> None:
    scheduler = schedulers.build("asha", grace="auto", eta=3, max_budget=52)
    rng = np.random.default_rng(0)
    for number in range(120):
        play(scheduler, number, float(rng.normal()), 0.05, rng)
    assert scheduler.grace == 2
    for number in range(120):
        trial = SimpleNamespace(trial_id=str(number), config={"trial": {"number": number}})
        scheduler.on_trial_complete(None, trial, {"budget": 7, "cause": "nan_loss"})
    assert scheduler.grace == 6
