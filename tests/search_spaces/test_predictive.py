"""The sampler that predicts final scores: its model is what it says, and its suggestions keep every promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import TrialState
from scipy.integrate import quad
from scipy.stats import norm

from search_spaces.feasible import choose, feasible_sampler
from search_spaces.points import draw, encode
from search_spaces.predictive import FAILED, PredictiveSampler
from search_spaces.predictive.candidates import Cube, best_candidate
from search_spaces.predictive.evidence import REPORTS, longest, observe, read, thinned, time_of
from search_spaces.predictive.past import Past
from search_spaces.predictive.process import Points, Process, _loss, _prior
from search_spaces.predictive.sampler import log_expected_improvement
from search_spaces.space import Space

MIXED: dict[str, Any] = {
    "name": "mixed",
    "parameters": {
        "rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
        "rank": {"type": "categorical", "choices": [64, 16, 32, 8]},
        "optimizer": {"type": "categorical", "choices": ["AdamW", "Lion", "Adafactor"]},
        "warmup": {"type": "int", "low": 0, "high": 200, "step": 50},
        "dropout": {"type": "uniform", "low": 0.0, "high": 0.5},
    },
    "constraints": [
        {"name": "lion_is_slow", "when": "optimizer == 'Lion'", "require": ["rate <= 1e-3"], "reason": "it"}
    ],
}
CONDITIONAL: dict[str, Any] = {
    "name": "conditional",
    "parameters": {
        "robust": {"type": "categorical", "choices": [True, False]},
        "eta": {"type": "uniform", "low": 0.0, "high": 1.0, "when": "robust"},
        "rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
    },
}


def points(n: int = 12, d: int = 3, seed: int = 0) -> Points:
    rng = np.random.default_rng(seed)
    return Points(rng.random((n, d)), rng.choice([0.4, 0.7, 1.0], n), rng.standard_normal(n))


# --- the model -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_gradient_of_the_posterior_is_its_slope(seed: int) -> None:
    data, rng = points(seed=seed), np.random.default_rng(seed)
    theta = _prior(3)[0] + 0.3 * rng.standard_normal(3 * 3 + 4)
    direction = rng.standard_normal(len(theta))
    gradient = _loss(theta, data)[1]
    above, below = (_loss(theta + step * direction, data)[0] for step in (1e-5, -1e-5))
    assert gradient @ direction == pytest.approx((above - below) / 2e-5, rel=1e-4, abs=1e-4)


def test_a_noiseless_report_is_predicted_as_it_was() -> None:
    rng = np.random.default_rng(1)
    x = rng.random((25, 2))
    data = Points(x, np.ones(25), np.sin(3 * x[:, 0]) + x[:, 1])
    mean, deviation = Process.fit(data).predict(data.x, data.t)
    assert np.abs(mean - data.y).max() < 0.1
    assert deviation.max() < 0.2


def test_far_from_all_reports_the_model_is_less_sure() -> None:
    rng = np.random.default_rng(2)
    x = 0.3 * rng.random((30, 2))
    process = Process.fit(Points(x, np.ones(30), np.sin(9 * x[:, 0]) + x[:, 1]))
    _, deviation = process.predict(np.array([[0.15, 0.15], [0.95, 0.95]]), np.ones(2))
    assert deviation[1] > 2 * deviation[0]


def test_a_stopped_curve_counts_as_what_it_would_have_become() -> None:
    """Every curve rises by 1 from the first rung to the end; only some were seen to the end."""
    rng = np.random.default_rng(3)
    x = rng.random((40, 2))
    final = 2 * x[:, 0] - x[:, 1]
    seen_to_the_end = np.arange(40) < 12
    data = Points(
        np.vstack([x, x[seen_to_the_end]]), np.append(np.full(40, 0.5), np.ones(12)),
        np.append(final - 1, final[seen_to_the_end]),
    )  # fmt: skip
    mean, _ = Process.fit(data).predict(x[~seen_to_the_end], np.ones(28))
    assert np.abs(mean - final[~seen_to_the_end]).max() < 0.25


@given(st.floats(-3, 3), st.floats(0.05, 3), st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_expected_improvement_is_its_integral(mean: float, deviation: float, best: float) -> None:
    def gain(value: float) -> float:
        return (value - best) * norm.pdf(value, mean, deviation)

    top = max(best, mean) + 12 * deviation
    found = np.exp(log_expected_improvement(np.array([mean]), np.array([deviation]), best))[0]
    assert found == pytest.approx(quad(gain, best, top, limit=200)[0], rel=0.06, abs=1e-9)


def test_expected_improvement_still_orders_hopeless_candidates() -> None:
    values = log_expected_improvement(np.array([-80.0, -60.0, -40.0]), np.ones(3), 0.0)
    assert np.isfinite(values).all()
    assert (np.diff(values) > 0).all()


# --- what it learns from ---------------------------------------------------------------------------------------------


def study_of(*told: tuple[TrialState, float | None, dict[int, float]], direction: str = "minimize") -> optuna.Study:
    study = optuna.create_study(direction=direction)
    for state, value, curve in told:
        study.add_trial(
            optuna.trial.create_trial(
                state=state, value=value, params={"x": 0.5}, intermediate_values=curve,
                distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
            )
        )  # fmt: skip
    return study


def test_curves_of_complete_pruned_and_running_trials_are_read_and_those_of_lost_ones_are_not() -> None:
    study = study_of(
        (TrialState.COMPLETE, 0.1, {6: 0.5, 18: 0.3, 54: 0.1}),
        (TrialState.PRUNED, None, {6: 0.9}),
        (TrialState.PRUNED, None, {}),
        (TrialState.FAIL, None, {6: 0.2}),
        (TrialState.RUNNING, None, {6: 0.4}),
    )
    seen = observe(study.get_trials(), StudyDirection.MINIMIZE, None)
    assert [(one.runs, one.failed) for one in seen] == [(False, False), (False, False), (False, True), (True, False)]
    assert longest(seen) == 54
    assert read(seen[0], 54) == [(time_of(6, 54), -0.5), (time_of(18, 54), -0.3), (1.0, -0.1)]
    assert read(seen[1], 54) == [(time_of(6, 54), -0.9)]


def test_a_value_that_is_not_finite_is_not_learned() -> None:
    study = study_of((TrialState.PRUNED, None, {6: 0.5, 7: float("nan"), 8: float("inf")}))
    assert dict(observe(study.get_trials(), StudyDirection.MINIMIZE, None)[0].curve) == {6: -0.5}


def test_a_trial_with_a_shorter_horizon_ends_earlier() -> None:
    study = study_of((TrialState.COMPLETE, 0.2, {4: 0.3, 8: 0.2}), (TrialState.PRUNED, None, {16: 0.4}))
    seen = observe(study.get_trials(), StudyDirection.MINIMIZE, lambda _: 8)
    assert read(seen[0], longest(seen))[-1] == (time_of(8, 16), -0.2)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60, unique=True), st.integers(4, 30))
def test_thinning_keeps_the_best_and_no_more_than_asked(scores: list[float], most: int) -> None:
    kept = thinned(np.array(scores), most)
    assert len(kept) == len(set(kept.tolist())) == min(most, len(scores))
    assert int(np.argmax(scores)) in kept


# --- where it looks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", [MIXED, CONDITIONAL, "lora_v2_1"], ids=["mixed", "conditional", "shipped"])
def test_rows_are_the_vectors_of_the_configurations_they_stand_for(document: Any) -> None:
    space = Space.load(document)
    cube, rng = Cube(space), np.random.default_rng(0)
    rows = cube.random(60, rng)
    configurations = [cube.params(row) for row in rows]
    expected = np.array([encode(space, params) for params in configurations])
    np.testing.assert_allclose(cube.vectors(rows), expected, atol=1e-9)
    np.testing.assert_allclose(cube.vectors(cube.rows(configurations)), expected, atol=1e-9)
    assert all(space.within(params) == params for params in configurations)


def test_the_best_candidate_is_near_the_optimum_and_keeps_the_rules() -> None:
    space = Space.load(MIXED)
    cube = Cube(space)
    wanted = {"rate": 5e-2, "rank": 32, "optimizer": "Lion", "warmup": 100, "dropout": 0.1}  # breaks the rule
    goal = encode(space, wanted)
    found = best_candidate(
        cube, lambda rows: -((cube.vectors(rows) - goal) ** 2).sum(axis=1), [], np.random.default_rng(0)
    )
    assert not space.violations(space.resolve(found))
    legal = {**wanted, "rate": 1e-3}
    assert np.linalg.norm(encode(space, found) - goal) <= np.linalg.norm(encode(space, legal) - goal) + 0.05


# --- the sampler -----------------------------------------------------------------------------------------------------


def run(space: Space, n: int, seed: int, study: optuna.Study | None = None) -> list[dict[str, Any]]:
    """Trials one at a time; the score has its best at a rate of 1e-3 and rises with dropout. Every third is stopped."""
    study = study or optuna.create_study(sampler=feasible_sampler(space, "predictive", seed=seed, n_startup_trials=6))
    study.sampler = feasible_sampler(space, "predictive", seed=seed, n_startup_trials=6)
    drawn = []
    for index in range(len(study.trials), n):
        trial = study.ask()
        params = space.suggest(trial)
        score = (np.log10(params["rate"]) + 3) ** 2 + params.get("dropout", 0.0)
        for budget in (2, 6):
            trial.report(score + 1 / budget, budget)
        if index % 3 == 2:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, score)
        drawn.append(params)
    return drawn


@pytest.mark.parametrize("document", [MIXED, CONDITIONAL], ids=["mixed", "conditional"])
def test_it_finds_the_valley_and_breaks_no_rule(document: dict[str, Any]) -> None:
    space = Space.load(document)
    drawn = run(space, 24, seed=1)
    assert all(not space.violations(space.resolve(params)) for params in drawn)
    late = [abs(np.log10(params["rate"]) + 3) for params in drawn[12:]]
    assert np.median(late) < 0.5  # a random rate is 1.2 away on average


def test_the_same_seed_gives_the_same_trials_also_when_the_study_is_continued() -> None:
    space = Space.load(MIXED)
    whole = run(space, 14, seed=4)
    study = optuna.create_study()
    parts = run(space, 9, seed=4, study=study) + run(space, 14, seed=4, study=study)
    assert whole == parts
    assert whole != run(space, 14, seed=5)


def test_regions_that_fail_are_avoided_without_being_forbidden() -> None:
    """A fifth of the space fails, and the scores rise towards it."""
    parameters = {name: {"type": "uniform", "low": 0.0, "high": 1.0} for name in ("x", "y")}
    space = Space.load({"name": "s", "parameters": parameters})
    study = optuna.create_study(sampler=feasible_sampler(space, "predictive", seed=0, n_startup_trials=8))
    failed = []
    for _ in range(40):
        trial = study.ask()
        params = space.suggest(trial)
        failed.append(params["x"] > 0.8)
        if failed[-1]:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            score = abs(params["x"] - 0.65) + abs(params["y"] - 0.3)
            trial.report(score, 3)
            study.tell(trial, score)
    assert sum(failed[20:]) <= 1
    assert study.best_value < 0.1


def test_a_trial_that_failed_after_it_had_reported_is_a_failure() -> None:
    study = study_of((TrialState.PRUNED, None, {6: 0.1}))
    (trial,) = study.get_trials()
    trial.set_user_attr(FAILED, True)
    (seen,) = observe([trial], StudyDirection.MINIMIZE, None)
    assert seen.failed and not seen.curve


def test_running_trials_are_not_asked_for_again() -> None:
    space = Space.load(MIXED)
    study = optuna.create_study(sampler=feasible_sampler(space, "predictive", seed=2, n_startup_trials=5))
    run(space, 12, seed=2, study=study)
    together = [encode(space, space.suggest(study.ask())) for _ in range(4)]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(together) for b in together[:i]]
    assert min(apart) > 0.02


def test_no_configuration_is_tried_twice_while_others_are_left() -> None:
    space = Space.load(
        {
            "name": "few",
            "parameters": {
                "rank": {"type": "categorical", "choices": [8, 16, 32, 64]},
                "alpha": {"type": "categorical", "choices": [16, 32, 64, 128]},
                "fast": {"type": "categorical", "choices": [True, False]},
            },
        }
    )
    study = optuna.create_study(sampler=feasible_sampler(space, "predictive", seed=0, n_startup_trials=5))
    tried = []
    for number in range(32):
        trial = study.ask()
        params = space.suggest(trial)
        tried.append(tuple(params.values()))
        score = params["rank"] / params["alpha"] + np.random.default_rng(number).normal()
        trial.report(score, 1)  # what is measured is mostly noise, so that a second look would pay
        study.tell(trial, state=TrialState.PRUNED) if number % 2 else study.tell(trial, score)
    assert len(set(tried)) == 32


def test_what_somebody_else_chose_is_taken_as_it_is() -> None:
    space = Space.load(MIXED)
    study = optuna.create_study(sampler=feasible_sampler(space, "predictive", seed=2, n_startup_trials=4))
    chosen = {"rate": 2e-4, "rank": 8, "optimizer": "AdamW", "warmup": 50, "dropout": 0.25}
    study.enqueue_trial(chosen)
    assert space.suggest(study.ask()) == chosen


# --- long histories --------------------------------------------------------------------------------------------------


def past_of(space: Space, n: int, seed: int = 0) -> optuna.Study:
    """Complete, stopped and failed trials at random places; the score is the distance from a rate of 1e-3."""
    study, rng = optuna.create_study(), np.random.default_rng(seed)
    for number in range(n):
        params = draw(space, rng)
        score = abs(np.log10(params["rate"]) + 3) + 0.1 * rng.random()
        state = TrialState.COMPLETE if number % 3 == 0 else TrialState.PRUNED
        study.add_trial(
            optuna.trial.create_trial(
                state=state, value=score if number % 3 == 0 else None, params=params,
                distributions={name: space.distributions()[name] for name in params},
                intermediate_values={} if number % 7 == 1 else {2: score + 0.5, 6: score + 0.2},
            )
        )  # fmt: skip
    return study


def test_what_is_looked_at_of_a_long_study_is_bounded_and_every_configuration_of_it_is_known() -> None:
    space = Space.load(MIXED)
    study = past_of(space, 400)
    for running in (study.ask(), study.ask()):
        space.suggest(running)
    whole, few = (Past(space, most=most).evidence(study, without=401) for most in (1000, 50))
    trials = study.get_trials(deepcopy=False)
    told = observe(trials[:401], StudyDirection.MINIMIZE, None)
    assert len(whole.begun) == sum(bool(one.curve) for one in told) + 1
    assert 40 <= len(few.begun) <= 50 + 1
    assert (whole.tried, whole.longest, whole.n_observed, whole.n_scored) == (
        few.tried, few.longest, few.n_observed, few.n_scored
    )  # fmt: skip
    assert (len(few.tried), few.n_observed) == (401, 401)
    best = max(range(400), key=lambda number: _rank(trials[number]))
    assert {best, 400} <= {seen.number for seen in few.begun}
    assert [seen.number for seen in few.failed] == [seen.number for seen in whole.failed][-50:]


def _rank(trial: optuna.trial.FrozenTrial) -> float:
    return -trial.values[0] if trial.values else -np.inf


@given(st.integers(0, 1000), st.integers(8, 40))
@settings(max_examples=6, deadline=None)
def test_a_sampler_that_has_followed_a_study_draws_what_a_new_one_would(seed: int, n: int) -> None:
    space = Space.load(MIXED)
    study, kept = past_of(space, n, seed), Past(space)
    for _ in range(2):
        trial = study.ask()
        frozen = study._storage.get_trial(trial._trial_id)
        followed, new = (
            PredictiveSampler(space, seed, 6, past=past).sample_relative(study, frozen, {}) for past in (kept, None)
        )
        assert followed == new
        for name in space.order:
            space.parameters[name].domain.suggest(trial, name)
        trial.report(0.3, 2)


def test_the_model_is_given_no_more_of_a_long_study_and_still_finds_the_valley(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space, handed = Space.load(MIXED), list[int]()
    predict = Process.predict

    def counting(process: Process, x: Any, t: Any) -> Any:
        handed.append(len(x))
        return predict(process, x, t)

    monkeypatch.setattr(Process, "predict", counting)
    study = past_of(space, 400)
    sampler = PredictiveSampler(space, 0, 6, past=Past(space, most=60))
    drawn = [sampler.sample_relative(study, study._storage.get_trial(study.ask()._trial_id), {}) for _ in range(2)]
    n_trials_predicted = handed[0]
    assert n_trials_predicted <= 60 + 1
    assert all(abs(np.log10(params["rate"]) + 3) < 0.7 for params in drawn)


def test_of_a_very_long_curve_a_bounded_number_of_reports_is_looked_at_the_newest_among_them() -> None:
    study = study_of((TrialState.RUNNING, None, {step: 1 / step for step in range(1, 20_001)}))
    (seen,) = observe(study.get_trials(deepcopy=False), StudyDirection.MINIMIZE, None)
    assert len(seen.curve) == REPORTS
    assert seen.curve[20_000] == -1 / 20_000
    assert [budget for budget, _ in zip(seen.curve, range(3), strict=False)] == [40, 80, 120]


# --- auto ------------------------------------------------------------------------------------------------------------


def test_auto_predicts_where_coordinates_are_few_and_one_objective_is_sought_and_says_so() -> None:
    wide = {"name": "w", "parameters": {f"p{i}": {"type": "uniform", "low": 0.0, "high": 1.0} for i in range(60)}}
    few, many, several = choose("auto", Space.load(MIXED)), choose("auto", Space.load(wide)), None
    several = choose("auto", Space.load(MIXED), objectives=2)
    assert [few.name, many.name, several.name] == ["predictive", "tpe", "tpe"]
    assert "7 coordinates" in few.why and "60 coordinates" in many.why and "2 objectives" in several.why
    assert choose("TPESampler", Space.load(MIXED)).why == ""
