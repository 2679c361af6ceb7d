"""The real ASHA and the real TPE, driven by the hundred with no cluster: what holds for every study."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import optuna
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from search_spaces.feasible import feasible_sampler
from search_spaces.space import Space
from trainables.protocol import Cause
from tune_lora import scheduler as schedulers
from tune_lora.live_study import LiveStudy
from tune_lora.memory import Memory
from tune_lora.stopping import Rules, reason_to_stop
from tune_lora.store import StudyRecord, TrialRecord

SPACE = Space.load("lora_tiny")
curves = st.lists(st.floats(-5, 5), min_size=1, max_size=30)


def tune_trial(number: int) -> Any:
    return SimpleNamespace(trial_id=str(number), config={"trial": {"number": number}})


def train(scheduler: Any, number: int, curve: list[float]) -> int:
    """Plays one trial; returns the budget at which it ended."""
    trial = tune_trial(number)
    scheduler.on_trial_add(None, trial)
    for budget, score in enumerate(curve, start=1):
        result = {"budget": budget, "score": score, "final": budget == len(curve)}
        if scheduler.on_trial_result(None, trial, result) == "STOP" or result["final"]:
            scheduler.on_trial_complete(None, trial, result)
            return budget
    return 0


@given(st.integers(1, 50), st.floats(1.1, 6), st.integers(1, 5000))
def test_rungs_ascend_from_grace_and_end_below_the_horizon(grace: int, eta: float, horizon: int) -> None:
    found = schedulers.rungs(grace, eta, horizon)
    assert list(found) == sorted(set(found))
    assert all(grace <= rung < horizon for rung in found)
    assert bool(found) == (grace < horizon)


@given(st.lists(curves, min_size=1, max_size=40), st.integers(1, 6), st.floats(1.5, 5))
def test_a_trial_ends_only_at_a_rung_it_was_told_of_or_at_its_own_end(
    all_curves: list[list[float]], grace: int, eta: float
) -> None:
    scheduler, at = schedulers.build("asha", grace=grace, eta=eta, max_budget=100), schedulers.rungs(grace, eta, 100)
    for number, curve in enumerate(all_curves):
        ended = train(scheduler, number, curve)
        assert ended == len(curve) or ended in at


@given(st.lists(curves, min_size=1, max_size=40))
def test_the_best_so_far_is_never_stopped(all_curves: list[list[float]]) -> None:
    scheduler = schedulers.build("asha", grace=1, eta=3, max_budget=100)
    seen: dict[int, float] = {}
    for number, curve in enumerate(all_curves):
        ended = train(scheduler, number, curve)
        if ended < len(curve):
            assert curve[ended - 1] > seen[ended]
        for rung in (1, 3, 9, 27):
            if rung <= ended:
                seen[rung] = min(curve[rung - 1], seen.get(rung, curve[rung - 1]))


@given(st.lists(curves, min_size=2, max_size=30), st.data())
def test_a_study_cut_anywhere_and_replayed_prunes_as_one_that_was_not(
    all_curves: list[list[float]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(all_curves) - 1))
    straight, second = (schedulers.build("asha", grace=1, eta=2, max_budget=64) for _ in range(2))
    ends = [train(straight, number, curve) for number, curve in enumerate(all_curves)]
    replayed = [
        TrialRecord(number, "complete", None, {}, {}, curve=dict(enumerate(curve[:end], start=1)))
        for number, (curve, end) in enumerate(zip(all_curves[:cut], ends, strict=False))
    ]
    second.replay(replayed)  # type: ignore[attr-defined]  # ASHA has it
    assert [train(second, number, curve) for number, curve in enumerate(all_curves[cut:], start=cut)] == ends[cut:]


outcomes = st.one_of(
    st.tuples(st.just(TrialState.COMPLETE), st.floats(-5, 5)),
    st.tuples(st.sampled_from([TrialState.PRUNED, TrialState.FAIL]), st.none()),
)


@settings(max_examples=25)
@given(st.lists(outcomes, min_size=1, max_size=25), st.integers(0, 2**16))
def test_whatever_becomes_of_its_trials_tpe_goes_on_within_the_rules(ends: list[Any], seed: int) -> None:
    stored = optuna.create_study()
    memory = Memory(SPACE, feasible_sampler(SPACE, seed=seed, n_startup_trials=4), "minimize")
    for number, (state, value) in enumerate(ends):
        memory.learn(stored.get_trials(deepcopy=False))
        params, drawn = memory.draw()
        memory.bind(number, drawn)
        assert SPACE.violations(SPACE.resolve(params)) == []
        curve = {2: 1.0} if state == TrialState.PRUNED else {}
        given_ = {"params": params, "distributions": SPACE.distributions(), "intermediate_values": curve}
        stored.add_trial(create_trial(state=state, value=value, **given_))


@given(st.lists(st.one_of(st.floats(-5, 5), st.none()), max_size=60), st.integers(1, 15), st.integers(0, 15))
def test_a_plateau_needs_its_length_of_trials_after_both_start_up_and_best(
    values: list[float | None], plateau: int, n_startup: int
) -> None:
    trials = tuple(TrialRecord(n, "complete" if v is not None else "pruned", v, {}, {}) for n, v in enumerate(values))
    reason = reason_to_stop(StudyRecord("s", "minimize", trials), plateau=plateau, n_startup=n_startup)
    done = [v for v in values if v is not None]
    if not done:
        assert reason is None
    else:
        since_best = len(values) - 1 - values.index(min(done))
        assert bool(reason) == (since_best >= plateau and len(values) - n_startup >= plateau)


@given(data=st.data())
def test_rules_that_follow_a_study_say_what_its_whole_record_says(data: st.DataObject) -> None:
    live = LiveStudy(optuna.create_study(direction=data.draw(st.sampled_from(["minimize", "maximize"]))))
    said = {"plateau": data.draw(st.none() | st.integers(1, 6)), "n_startup": data.draw(st.integers(0, 6))}
    said["target"] = data.draw(st.none() | st.floats(-2, 2))
    rules, running = Rules(**said), []
    for _ in range(data.draw(st.integers(0, 30))):
        if not running or data.draw(st.booleans()):
            running.append(live.create({}, {}, {}))
            continue
        trial = running.pop(data.draw(st.integers(0, len(running) - 1)))
        value = data.draw(st.none() | st.sampled_from([-1.0, 0.0, 0.5, 1.0]) | st.floats(-3, 3))
        cause = data.draw(st.sampled_from([Cause.NAN_LOSS, Cause.INFRASTRUCTURE, Cause.PRUNED]))
        if value is not None:
            live.end(trial, TrialState.COMPLETE, [value])
        else:
            state = TrialState.PRUNED if cause is Cause.PRUNED else TrialState.FAIL
            live.end(trial, state, None, {"cause": cause.value})
        if data.draw(st.booleans()):  # it is not asked after each
            assert rules(live) == reason_to_stop(live.record(), **said)
    assert rules(live) == reason_to_stop(live.record(), **said)
