"""What the sampler is told: it learns from explosions, ignores lost workers, and starts from past observations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.feasible import feasible_sampler
from search_spaces.predictive.evidence import observe
from search_spaces.space import Space
from trainables.protocol import Cause
from tune_lora import store
from tune_lora.live_study import LiveStudy
from tune_lora.memory import Memory, as_told


def space(**more: Any) -> Space:
    return Space.from_mapping({"parameters": {"lr": {"type": "uniform", "low": 0.0, "high": 1.0}}, **more})


def failed(cause: Cause, **more: Any) -> FrozenTrial:
    return create_trial(state=TrialState.FAIL, user_attrs={store.CAUSE: cause.value}, **more)


def begin(stored: optuna.Study, spec: Space, params: Mapping[str, Any], config: Mapping[str, Any]) -> FrozenTrial:
    """A running trial as a searcher makes it."""
    distributions = {name: found for name, found in spec.distributions().items() if name in params}
    return LiveStudy(stored).create(params, distributions, {store.CONFIG: dict(config)})


def play(cause: Cause) -> list[float]:
    """Half of the space fails with `cause`; elsewhere all is the same. The rates tried last."""
    spec = space()
    stored = optuna.create_study()
    memory = Memory(spec, feasible_sampler(spec, seed=3), "minimize")
    tried = []
    for number in range(60):
        memory.learn(stored.get_trials())
        params, drawn = memory.draw()
        memory.bind(number, drawn)
        fails = params["lr"] > 0.5
        stored.add_trial(
            create_trial(
                state=TrialState.FAIL if fails else TrialState.COMPLETE,
                value=None if fails else 1.0,
                params=params,
                distributions=spec.distributions(),
                user_attrs={store.CAUSE: cause.value} if fails else {},
            )
        )
        tried.append(params["lr"])
    return tried[30:]


def test_the_sampler_leaves_the_region_in_which_training_explodes() -> None:
    exploding = sum(rate > 0.5 for rate in play(Cause.NAN_LOSS))
    untold = sum(rate > 0.5 for rate in play(Cause.INFRASTRUCTURE))
    assert exploding < untold
    assert exploding <= 6


@pytest.mark.parametrize("cause", list(Cause))
def test_only_the_configurations_own_faults_are_told(cause: Cause) -> None:
    state, value, curve = as_told(failed(cause, intermediate_values={1: 0.1}))
    assert (state == TrialState.PRUNED) == cause.is_fault_of_configuration
    assert (value, curve) == (None, {})


def test_a_pruned_trial_is_told_with_its_intermediate_values_and_never_as_complete() -> None:
    pruned = create_trial(state=TrialState.PRUNED, intermediate_values={2: 0.5, 6: 0.4})
    assert as_told(pruned) == (TrialState.PRUNED, None, {2: 0.5, 6: 0.4})


def test_past_observations_steer_the_sampler_where_they_have_a_value() -> None:
    def rates(value: float | None) -> list[float]:
        past = [{"name": f"past{i}", "params": {"lr": 0.9 + i / 1000}, "value": value and value + i} for i in range(6)]
        past += [{"name": f"bad{i}", "params": {"lr": i / 10}, "value": value and 100.0} for i in range(8)]
        spec = space(observations=past)
        memory = Memory(spec, feasible_sampler(spec, seed=0, n_startup_trials=10), "minimize")
        return [memory.draw()[0]["lr"] for _ in range(20)]

    assert sum(rate > 0.8 for rate in rates(0.1)) > sum(rate > 0.8 for rate in rates(None)) + 5


def test_a_prior_outside_the_space_teaches_what_lies_inside() -> None:
    spec = Space.load("lora_v2_1")
    memory = Memory(spec, feasible_sampler(spec, seed=0), "minimize")
    within = spec.within(spec.priors[0].params)
    assert memory.adopt(within).params == within


def test_a_sampler_that_predicts_hears_running_trials_and_knows_those_that_failed_after_reports() -> None:
    stored = optuna.create_study()
    spec = Space.load("lora_tiny")
    memory = Memory(spec, feasible_sampler(spec, "predictive"), "minimize")
    for index in range(3):
        params, drawn = memory.draw()
        trial = begin(stored, spec, params, spec.resolve(params))
        memory.bind(trial.number, drawn)
        stored._storage.set_trial_intermediate_value(trial._trial_id, 2, 0.5 + index)
    memory.learn(stored.get_trials(deepcopy=False))
    mirrored = memory._study.get_trials()
    assert [dict(trial.intermediate_values) for trial in mirrored] == [{2: 0.5}, {2: 1.5}, {2: 2.5}]
    failed = stored.get_trials(deepcopy=False)[1]
    stored._storage.set_trial_user_attr(failed._trial_id, store.CAUSE, Cause.NAN_LOSS.value)
    stored.tell(failed.number, state=TrialState.FAIL)
    memory.learn(stored.get_trials(deepcopy=False))
    seen = observe(memory._study.get_trials(), memory._study.direction, None)
    assert [(one.runs, one.failed) for one in seen] == [(True, False), (False, True), (True, False)]


def test_a_reference_outside_the_space_is_learned_as_it_was_trained() -> None:
    stored = optuna.create_study()
    spec = Space.load("lora_v2_1")
    memory = Memory(
        spec, feasible_sampler(spec, "predictive", horizon=lambda p: int(p["max_train_epochs"])), "minimize"
    )
    (prior,) = [prior for prior in spec.priors if prior.name == "trial_3_5"]
    config = spec.resolve(spec.complete(prior.params))
    assert config["max_train_epochs"] == 18  # no choice of the space
    trial = begin(stored, spec, spec.within(prior.params), config)
    memory.bind(trial.number, memory.adopt(spec.within(prior.params)))
    memory.learn(stored.get_trials(deepcopy=False))
    memory.draw()
    seen = observe(memory._study.get_trials(), memory._study.direction, lambda p: int(p["max_train_epochs"]))
    assert (seen[0].params["max_train_epochs"], seen[0].horizon) == (18, 18)


def test_a_trial_stopped_before_its_first_score_did_not_fail() -> None:
    """A pruner that watches the validation loss may stop a trial before anything was scored."""
    stored = optuna.create_study()
    spec = Space.load("lora_tiny")
    memory = Memory(spec, feasible_sampler(spec, "predictive"), "minimize")
    for cause in (None, Cause.GRADIENT_EXPLOSION):
        params, drawn = memory.draw()
        trial = begin(stored, spec, params, spec.resolve(params))
        memory.bind(trial.number, drawn)
        if cause:
            stored._storage.set_trial_user_attr(trial._trial_id, store.CAUSE, cause.value)
        stored.tell(trial.number, state=TrialState.FAIL if cause else TrialState.PRUNED)
    for told in (memory, Memory(spec, feasible_sampler(spec, "predictive"), "minimize")):  # the study goes on
        told.learn(stored.get_trials(deepcopy=False))
        seen = observe(told._study.get_trials(), told._study.direction, None)
        assert [one.failed for one in seen] == [False, True]


def test_what_a_running_trial_reported_is_known_as_soon_as_a_study_goes_on() -> None:
    stored = optuna.create_study()
    spec = Space.load("lora_tiny")
    params = spec.defaults()
    trial = begin(stored, spec, spec.within(params), spec.resolve(params))
    stored._storage.set_trial_intermediate_value(trial._trial_id, 2, 0.5)
    memory = Memory(spec, feasible_sampler(spec, "predictive"), "minimize")
    memory.learn(stored.get_trials(deepcopy=False))
    (seen,) = observe(memory._study.get_trials(), memory._study.direction, None)
    assert seen.runs and dict(seen.curve) == {2: -0.5}
