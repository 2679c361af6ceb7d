"""Suggestions from real Optuna samplers break no rule, are reproducible, and keep the study's distributions whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution

from search_spaces.feasible import SAMPLERS, FeasibleSampler, feasible_sampler, sampler_name
from search_spaces.space import Space
from tune_lora.errors import InputError


def trials(space: Space, sampler: FeasibleSampler, n: int, start: optuna.Study | None = None) -> list[dict[str, Any]]:
    """Drawn and told, one at a time; the score prefers what the rules make rare."""
    study = start or optuna.create_study(sampler=sampler)
    drawn = []
    for _ in range(n):
        trial = study.ask()
        params = space.suggest(trial)
        study.tell(trial, -params["network_alpha_ratio"] - 5e3 * params["learning_rate"])
        drawn.append(params)
    return drawn


@pytest.mark.parametrize("name", ["tpe", "random", "cmaes", "gp", "nsgaii", "qmc", "grid", "TPESampler"])
def test_nothing_drawn_breaks_a_rule_even_where_the_score_pulls_that_way(name: str) -> None:
    space = Space.load("lora_v2_1")
    drawn = trials(space, feasible_sampler(space, name, seed=5), 40)
    assert [space.violations(space.resolve(params)) for params in drawn] == [[]] * 40


def test_values_that_were_drawn_together_are_repaired() -> None:
    space = Space.load("lora_v2_1")
    sampler = FeasibleSampler(
        space, lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=5), reseed=False
    )
    drawn = trials(space, sampler, 40)
    assert all(not space.violations(space.resolve(params)) for params in drawn)
    assert sum(params["network_alpha_ratio"] >= 0.75 for params in drawn[20:]) > 5


def test_the_same_seed_gives_the_same_trials_and_another_seed_others() -> None:
    space = Space.load("lora_tiny")
    first, again, other = (trials(space, feasible_sampler(space, seed=seed), 15) for seed in (42, 42, 123))
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", ["tpe", "random", "cmaes", "nsgaii", "grid"])
def test_a_continued_study_draws_what_an_uninterrupted_one_would_have(name: str) -> None:
    space = Space.load("lora_tiny")

    def sampler() -> FeasibleSampler:
        return feasible_sampler(space, name, seed=42, n_startup_trials=6)

    whole = trials(space, sampler(), 16)
    study = optuna.create_study(sampler=sampler())
    begun = trials(space, sampler(), 9, study)
    study.sampler = sampler()
    assert begun + trials(space, sampler(), 7, study) == whole


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_stored_distributions_are_the_full_ones_and_values_have_no_rounding_noise(name: str) -> None:
    space = Space.load("lora_v2_1")
    study = optuna.create_study(sampler=feasible_sampler(space, name, seed=0))
    trials(space, feasible_sampler(space), 30, study)
    assert all(trial.distributions == space.distributions() for trial in study.trials)
    assert all(
        trial.params["network_alpha_ratio"] == round(trial.params["network_alpha_ratio"], 2) for trial in study.trials
    )
    assert study.trials[0].distributions["network_alpha_ratio"] == FloatDistribution(0.25, 0.9, step=0.05)


def test_rejected_draws_are_counted_by_the_rule_that_stood_in_the_way() -> None:
    space = Space.load("lora_v2_1")
    sampler = feasible_sampler(space, "random", seed=0)
    trials(space, sampler, 40)
    assert set(sampler.rejected) <= {rule.name for rule in space.constraints}
    assert sampler.rejected["high_alpha_safety"] > 10


def test_high_ratios_keep_their_share() -> None:
    space = Space.load("lora_v2_1")
    bands: Counter[bool] = Counter()
    for seed in range(20):
        bands.update(
            params["network_alpha_ratio"] >= 0.75
            for params in trials(space, feasible_sampler(space, "random", seed=seed), 20)
        )
    assert 0.22 < bands[True] / 400 < 0.36  # 4 of 14 ratios


def test_rules_over_derived_values_and_several_continuous_parameters() -> None:
    space = Space.from_mapping(
        {
            "parameters": {
                name: {"type": "uniform", "low": 0, "high": 1} for name in ("a", "b", "network_alpha_ratio")
            },
            "derived": {"total": "a + b"},
            "constraints": [
                {"name": "together", "rule": "total <= 0.4", "reason": "x"},
                {"name": "order", "rule": "a <= b", "reason": "x"},
            ],
        }
    )
    study = optuna.create_study(sampler=feasible_sampler(space, seed=1))
    for _ in range(40):
        trial = study.ask()
        config = space.resolve(space.suggest(trial))
        assert config["a"] <= config["b"]
        assert config["a"] + config["b"] <= 0.4
        study.tell(trial, -config["a"])


def test_an_unknown_sampler_comes_with_the_nearest_right_one() -> None:
    with pytest.raises(InputError, match="did you mean 'random'"):
        sampler_name("randon")
    assert sampler_name("RandomSampler") == "random"


def test_a_sampler_whose_package_is_absent_says_so_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = replace(SAMPLERS["cmaes"], needs="no_such_package")
    monkeypatch.setitem(SAMPLERS, "cmaes", kind)
    with pytest.raises(InputError, match="pip install no_such_package"):
        feasible_sampler(Space.load("lora_tiny"), "cmaes")


@pytest.mark.parametrize("name", ["GridSampler", "BruteForceSampler"])
def test_optunas_exhaustive_samplers_are_the_grid(name: str) -> None:
    assert sampler_name(name) == "grid"


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_trials_that_are_drawn_at_the_same_time_do_not_mix(name: str) -> None:
    space = Space.load("lora_tiny")
    study = optuna.create_study(sampler=feasible_sampler(space, name, seed=1, n_startup_trials=4))
    for _ in range(4):
        begun = [study.ask() for _ in range(3)]
        drawn = [space.suggest(trial) for trial in begun]
        assert len({tuple(params.items()) for params in drawn}) == 3
        assert all(not space.violations(space.resolve(params)) for params in drawn)
        for trial in begun:
            study.tell(trial, trial.params["network_alpha_ratio"])
