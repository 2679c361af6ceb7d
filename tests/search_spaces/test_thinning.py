"""Long histories: who stands for all the others; and what is drawn is as if nobody were left out, until many are."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import _split_trials, default_gamma, default_gamma_multiobjective
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.bounded import BoundedGP, SharedSpace
from search_spaces.feasible import feasible_sampler
from search_spaces.masked_tpe import MaskedTPE
from search_spaces.space import Space
from search_spaces.thinning import OTHERS, Follower, Ranked, standing_for

DISTRIBUTIONS = {
    "x": optuna.distributions.FloatDistribution(0, 1),
    "c": optuna.distributions.CategoricalDistribution(("a", "b", "c")),
}
STATES = (TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL)
# Few different values, so that many trials tie.
told = st.tuples(st.sampled_from(STATES), st.integers(-4, 4), st.integers(0, 3), st.integers(0, 3))


def trial(state: TrialState, value: float, step: int, excess: int, n_values: int = 1) -> FrozenTrial:
    """`step` 0 reports nothing, 3 a NaN; `excess` 3 breaks a constraint."""
    curve = {step: math.nan if step == 3 else float(value)} if step and n_values == 1 else {}
    return create_trial(
        state=state,
        values=[float(value), float(value * step)][:n_values] if state == TrialState.COMPLETE else None,
        params={"x": (value + 4) / 8, "c": "abc"[step % 3]},
        distributions=DISTRIBUTIONS,
        intermediate_values=curve,
        system_attrs={"constraints:limit": float(value)} if excess == 3 else {},
    )


def study_of(trials: list[Any], direction: str = "minimize", n_values: int = 1) -> optuna.Study:
    study = optuna.create_study(directions=[direction, "minimize"][:n_values])
    study.add_trials([trial(*one, n_values=n_values) for one in trials])
    return study


def long_study(n: int, seed: int = 0, n_values: int = 1) -> optuna.Study:
    rng = np.random.default_rng(seed)
    states = [STATES[int(which)] for which in rng.integers(3, size=n)]
    return study_of([(state, float(rng.normal()), 1, 0) for state in states], n_values=n_values)


# --- who is told of, and when ----------------------------------------------------------------------------------------


def test_each_finished_trial_is_told_once_whenever_it_finishes() -> None:
    study, follower = optuna.create_study(), Follower()
    first, second = study.ask(), study.ask()
    news = follower.look(study)
    assert (news.finished, [one.number for one in news.running], news.anew) == ([], [0, 1], True)
    study.tell(second, 1.0)
    news = follower.look(study)
    assert ([one.number for one in news.finished], [one.number for one in news.running]) == ([1], [0])
    study.tell(first, state=TrialState.FAIL)
    news = follower.look(study)
    assert ([one.number for one in news.finished], news.running, news.anew) == ([0], [], False)
    assert not follower.look(study).finished


def test_another_study_is_taken_in_whole() -> None:
    follower, ranked = Follower(), Ranked()
    for n in (5, 3):
        study = long_study(n)
        news = follower.look(study)
        assert (news.anew, len(news.finished)) == (True, n)
        ranked.look(study)
        assert len(ranked) == n


# --- who stands for the others ---------------------------------------------------------------------------------------


@given(st.permutations(range(60)), st.integers(1, 80))
def test_the_best_and_the_newest_stand_for_the_others_and_not_too_many(order: list[int], most: int) -> None:
    newest = range(60 - min(60, most // 4), 60)
    kept = standing_for(order, newest, most)
    assert kept == sorted(set(kept))
    assert len(kept) <= most
    if most >= 60:
        assert kept == list(range(60))
    else:
        assert {*order[: most // 4], *newest} <= set(kept)
        below = [rank for rank, number in enumerate(order) if number in kept and rank >= most // 4]
        assert np.diff(below).max(initial=0) <= 60 / (most - 2 * (most // 4)) + 1  # no stretch of ranks is forgotten


@given(st.lists(told, max_size=40), st.sampled_from(["minimize", "maximize"]), st.sampled_from([0, 1, 4, 100]))
@settings(max_examples=80, deadline=None)
def test_the_good_ones_are_those_of_tpe_however_few_stand_for_the_others(
    trials: list[Any], direction: str, most: int
) -> None:
    study, ranked = study_of(trials, direction), Ranked(most)
    ranked.look(study)
    known = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    n_good = default_gamma(len(known))
    good, others = (part(one) for part, one in zip((numbers, numbers), ranked.split(study, n_good), strict=True))
    expected_good, expected_others = _split_trials(study, known, n_good)
    assert good == numbers(expected_good)
    assert set(others) <= set(numbers(expected_others))
    assert len(others) == min(most, len(expected_others)) or len(others) <= most < len(expected_others)


@given(st.lists(told, min_size=2, max_size=40), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_with_several_objectives_the_good_ones_are_the_fronts_of_tpe(trials: list[Any], most: int) -> None:
    study, ranked = study_of(trials, n_values=2), Ranked(most)
    ranked.look(study)
    known = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    n_good = default_gamma_multiobjective(len(known))
    good, others = ranked.split(study, n_good)
    assert numbers(good) == numbers(_split_trials(study, known, n_good)[0])
    assert len(others) <= most


def test_who_stands_for_the_others_does_not_depend_on_the_order_in_which_trials_finished() -> None:
    study, at_once, one_by_one = optuna.create_study(), Ranked(20), Ranked(20)
    rng = np.random.default_rng(0)
    begun = [study.ask(DISTRIBUTIONS) for _ in range(60)]
    for index in rng.permutation(60):
        study.tell(begun[index], float(rng.normal()))
        one_by_one.look(study)
        one_by_one.split(study, 3)
    at_once.look(study)
    assert [numbers(part) for part in at_once.split(study, 6)] == [numbers(part) for part in one_by_one.split(study, 6)]


def numbers(trials: list[FrozenTrial]) -> list[int]:
    return [one.number for one in trials]


# --- what TPE draws --------------------------------------------------------------------------------------------------


def tpe(kind: type[TPESampler], **more: Any) -> TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return kind(seed=5, n_startup_trials=4, multivariate=False, prior_weight=2.0, **more)


def drawn(sampler: TPESampler, study: optuna.Study, n: int = 3) -> list[Any]:
    """Values of both parameters, each drawn again and again, and then once more after another trial has ended."""
    found = []
    for value in (0.5, -1.0):
        number = study.ask().number
        new = study.get_trials(deepcopy=False)[number]
        found += [
            sampler.sample_independent(study, new, name, distribution)
            for name, distribution in DISTRIBUTIONS.items()
            for _ in range(n)
        ]
        values = [value] * len(study.directions)
        study.add_trial(create_trial(values=values, params={"x": 0.2, "c": "a"}, distributions=DISTRIBUTIONS))
    return found


@given(st.lists(told, max_size=60), st.sampled_from(["minimize", "maximize"]), st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_a_study_of_the_usual_size_gets_the_draws_of_optunas_own_tpe(
    trials: list[Any], direction: str, n_values: int
) -> None:
    ours, theirs = (study_of(trials, direction, n_values) for _ in range(2))
    assert drawn(tpe(MaskedTPE), ours) == drawn(tpe(TPESampler), theirs)


def test_a_value_that_is_drawn_again_costs_no_new_estimate_and_running_trials_that_change_do() -> None:
    built = []

    class Counting(MaskedTPE):
        def _build_parzen_estimator(self, *given: Any, **more: Any) -> Any:
            built.append(given)
            return super()._build_parzen_estimator(*given, **more)

    study, sampler = long_study(50), tpe(Counting)
    new = create_trial(state=TrialState.RUNNING)
    new.number = 99
    for _ in range(8):
        sampler.sample_independent(study, new, "x", DISTRIBUTIONS["x"])
    assert len(built) == 2
    other = study.ask()
    sampler.sample_independent(study, new, "x", DISTRIBUTIONS["x"])
    assert len(built) == 4
    other.suggest_float("x", 0, 1)
    sampler.sample_independent(study, new, "x", DISTRIBUTIONS["x"])
    assert len(built) == 6
    assert other.number in [one.number for one in built[-1][2]]


@pytest.mark.parametrize("n", [OTHERS + 200, 2 * OTHERS])
def test_what_tpe_looks_at_does_not_grow_with_the_study(n: int) -> None:
    handed: list[int] = []

    class Counting(MaskedTPE):
        def _build_parzen_estimator(self, study: Any, space: Any, trials: Any, handle_below: bool) -> Any:
            handed.append(len(trials))
            return super()._build_parzen_estimator(study, space, trials, handle_below)

    study, past = long_study(n), Ranked()
    running = [study.ask({"x": DISTRIBUTIONS["x"]}) for _ in range(3)]
    new = create_trial(state=TrialState.RUNNING)
    new.number = n + 10
    tpe(Counting, past=past).sample_independent(study, new, "x", DISTRIBUTIONS["x"])
    assert handed[0] == 25
    assert 0.8 * OTHERS < handed[1] <= OTHERS + len(running)
    study.tell(running[0], 0.0)
    tpe(Counting, past=past).sample_independent(study, new, "x", DISTRIBUTIONS["x"])
    assert handed[2] == 25 and handed[3] <= OTHERS + 2


# --- the others ------------------------------------------------------------------------------------------------------

SPACE = Space.load(
    {
        "name": "s",
        "parameters": {
            "x": {"type": "uniform", "low": 0.0, "high": 1.0},
            "c": {"type": "categorical", "choices": ["a", "b", "c"]},
        },
    }
)


def test_optunas_gp_is_given_a_bounded_number_the_best_among_them() -> None:
    study = long_study(40)
    running = study.ask({"x": DISTRIBUTIONS["x"]})
    seen: list[FrozenTrial] = []

    class Looking(optuna.samplers.GPSampler):
        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            seen[:] = study._get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
            return {}

    class Both(BoundedGP, Looking):
        """Our GP in front of one that only looks."""

    new = create_trial(state=TrialState.RUNNING)
    for most in (8, 100):
        Both(most=most, seed=0).sample_relative(study, new, {})
        complete = [one for one in seen if one.state == TrialState.COMPLETE]
        assert study.best_trial.number in numbers(complete)
        assert running.number in numbers(seen)
        assert len(complete) <= most


@pytest.mark.parametrize("name", ["nsgaii", "cmaes"])
def test_parameters_that_trials_share_are_found_once_and_anew_in_another_study(name: str) -> None:
    space, sampler = SharedSpace(), feasible_sampler(SPACE, name, seed=0)
    for n in (30, 12):  # the second study has no trial 12 to 29
        study = long_study(n)
        assert set(space.calculate(study)) == {"x", "c"}
        study.sampler = sampler
        for _ in range(3):
            trial = study.ask()
            SPACE.suggest(trial)
            study.tell(trial, 0.1)
        assert set(space.calculate(study)) == {"x", "c"}
    fresh = optuna.create_study()
    assert space.calculate(fresh) == {}


def test_a_grid_is_walked_once_though_another_study_begins() -> None:
    """As where past results are let go: the sampler is told everything anew."""
    space = Space.load({"name": "g", "parameters": {"c": {"type": "categorical", "choices": list("abcdef")}}})
    sampler = feasible_sampler(space, "grid", seed=0)
    first = optuna.create_study(sampler=sampler)
    tried = []
    for _ in range(2):
        trial = first.ask()
        tried.append(space.suggest(trial)["c"])
        first.tell(trial, 0.0)
    second = optuna.create_study(sampler=sampler)
    second.add_trials(first.get_trials())
    distributions = space.distributions()
    left = next(choice for choice in "abcdef" if choice not in tried)
    second.add_trial(create_trial(value=0.0, params={"c": left}, distributions=distributions))  # somebody else's
    while not sampler.exhausted(second):
        trial = second.ask()
        tried.append(space.suggest(trial)["c"])
        second.tell(trial, state=TrialState.FAIL)
    assert sorted([*tried, left]) == list("abcdef")


def test_generations_are_counted_as_trials_complete() -> None:
    sampler = feasible_sampler(SPACE, "nsgaii", seed=0, n_startup_trials=3)
    study = optuna.create_study(sampler=sampler)
    generations = []
    for number in range(8):
        generations.append(next(iter((sampler.marks(study) or {}).values())))
        state = TrialState.PRUNED if number == 2 else TrialState.COMPLETE
        study.add_trial(trial(state, 0.5, 1, 0))
    assert generations == [0, 0, 0, 0, 1, 1, 1, 2]
    assert sampler.marks(optuna.create_study()) == {next(iter(sampler.marks(study) or {})): 0}
