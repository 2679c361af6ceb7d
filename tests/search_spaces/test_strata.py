"""Wanted but rare values get their share: in every round of start-up trials, and after it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import optuna
import pytest

from search_spaces.feasible import feasible_sampler
from search_spaces.space import Space
from search_spaces.strata import EVERY, strata, strata_of_trial


@pytest.mark.parametrize("n", [1, 7, 10])
def test_a_round_visits_every_part_of_every_range_once(n: int) -> None:
    for turn in range(3):
        places = [strata(["a", "b"], turn * n + index, n, seed=1) for index in range(n)]
        for name in ("a", "b"):
            assert sorted(int(place[name] * n) for place in places) == list(range(n))
    assert strata(["a"], 3, n, seed=1) == strata(["a"], 3, n, seed=1) != strata(["a"], 3, n, seed=2)


def test_after_start_up_one_trial_in_three_goes_on_with_the_rounds() -> None:
    found = [strata_of_trial(["a"], number, 6, seed=0) for number in range(6 + 6 * EVERY)]
    assert all(found[:6])
    later = [place["a"] for place in found[6:] if place]
    assert sorted(int(place * 6) for place in later) == list(range(6))
    assert strata_of_trial(["a"], 0, 0, seed=0) != {} == strata_of_trial(["a"], 1, 0, seed=0)


def drawn(sampler: str, seed: int, n: int = 20) -> list[float]:
    space = Space.load("lora_v2_1")
    study = optuna.create_study(sampler=feasible_sampler(space, sampler, seed=seed))
    scores, ratios = np.random.default_rng(seed), []
    for _ in range(n):
        trial = study.ask()
        ratios.append(space.suggest(trial)["network_alpha_ratio"])
        study.tell(trial, float(scores.uniform()))
    return ratios


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "nsgaii"])
def test_ten_start_up_trials_of_v2_1_cover_the_ratios(sampler: str) -> None:
    for seed in range(5):
        bands = Counter("low" if r <= 0.401 else "middle" if r <= 0.701 else "high" for r in drawn(sampler, seed, 10))
        assert bands["low"] in (2, 3)
        assert bands["middle"] in (4, 5, 6)
        assert bands["high"] in (2, 3)


def test_twenty_trials_of_v2_1_try_high_ratios_whatever_their_results() -> None:
    shares = [sum(ratio >= 0.75 for ratio in drawn("tpe", seed)) for seed in range(20)]
    assert min(shares) >= 2
    assert 5 <= np.mean(shares) <= 7  # SPEC.md section 2: about 6 of 20


def test_two_stratified_numbers_make_a_latin_hypercube() -> None:
    space = Space.from_mapping(
        {
            "parameters": {name: {"type": "uniform", "low": 0, "high": 1} for name in ("a", "b")},
            "stratify": ["a", "b"],
        }
    )
    study = optuna.create_study(sampler=feasible_sampler(space, seed=3, n_startup_trials=8))
    trials = [space.suggest(study.ask()) for _ in range(8)]
    for name in ("a", "b"):
        assert sorted(int(params[name] * 8) for params in trials) == list(range(8))


def test_strata_lie_in_what_the_rules_leave() -> None:
    space = Space.from_mapping(
        {
            "parameters": {"a": {"type": "uniform", "low": 0, "high": 1}},
            "constraints": [{"name": "small", "rule": "a < 0.1 or a >= 0.9", "reason": "x"}],
            "stratify": "a",
        }
    )
    study = optuna.create_study(sampler=feasible_sampler(space, seed=0))
    values = [space.suggest(study.ask())["a"] for _ in range(10)]
    assert sum(value < 0.1 for value in values) == sum(value >= 0.9 for value in values) == 5
