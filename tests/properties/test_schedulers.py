"""Every real scheduler, driven through random curves in random orders of arrival: what holds for each of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import ASHAScheduler

from tune_lora import scheduler as schedulers
from tune_lora.store import TrialRecord

HORIZON = 9
EARLY: dict[str, Any] = {"n_startup_trials": 1, "n_warmup_steps": 1}
STOPPING: dict[str, dict[str, Any]] = {
    "asha": {"grace": 1, "eta": 3},
    "asha, patient": {"name": "asha", "grace": 2, "eta": 2, "min_results": 4},
    "asha, measured": {"name": "asha", "grace": "auto", "eta": 2},
    "median": EARLY,
    "percentile": {**EARLY, "percentile": 50.0},
    "hyperband": {"grace": 1, "eta": 3},
    "successive_halving": {"grace": 1, "eta": 2},
    "patient": {**EARLY, "patience": 1},
    "threshold": {"upper": 3.0, "n_warmup_steps": 2},
    "wilcoxon": {"p_threshold": 0.4},
}
ALL = {**STOPPING, "asha, pausing": {"name": "asha", "grace": 1, "eta": 2, "promote": True}}


def build(name: str, direction: str = "minimize", **changes: Any) -> Any:
    return schedulers.build(direction=direction, max_budget=HORIZON, **{"name": name, **ALL[name], **changes})


@dataclass
class Live:
    """What a scheduler looks at in a Tune trial, and how far it is."""

    number: int
    curve: list[float]
    budget: int = 0
    status: str = "PENDING"
    completed: bool = False

    @property
    def trial_id(self) -> str:
        return f"tune-{self.number}"

    @property
    def config(self) -> dict[str, Any]:
        return {"trial": {"number": self.number}}

    def is_finished(self) -> bool:
        return self.status == "TERMINATED"

    def record(self) -> TrialRecord:
        state = ("complete" if self.completed else "pruned") if self.is_finished() else "running"
        curve = dict(enumerate(self.curve[: self.budget], start=1))
        history = {budget: {"score": score} for budget, score in curve.items()}
        return TrialRecord(self.number, state, None, {}, {}, curve=curve, history=history)  # type: ignore[arg-type]


@dataclass
class Game:
    """Trials that move one report at a time, whichever is chosen, as Tune's controller would move them."""

    scheduler: Any
    curves: list[list[float]]
    told_twice: bool = False
    trials: list[Live] = field(default_factory=list)
    decisions: list[tuple[int, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trials = self.trials or [Live(number, curve) for number, curve in enumerate(self.curves)]
        for trial in self.trials:
            self.scheduler.on_trial_add(None, trial)

    def move(self, choice: int) -> None:
        self._promote()
        live = [trial for trial in self.trials if trial.status in ("PENDING", "RUNNING")]
        if live:
            self._report(live[choice % len(live)])

    def _promote(self) -> None:
        if isinstance(self.scheduler, schedulers.PausingAsha):
            controller = SimpleNamespace(
                get_live_trials=lambda: [one for one in self.trials if one.status != "PENDING"]
            )
            if (promoted := self.scheduler.choose_trial_to_run(controller)) is not None:
                promoted.status = "RUNNING"

    def _report(self, trial: Live) -> None:
        trial.budget, trial.status = trial.budget + 1, "RUNNING"
        score = trial.curve[trial.budget - 1]
        result = {"budget": trial.budget, "score": score, "final": trial.budget == len(trial.curve)}
        decision = self.scheduler.on_trial_result(None, trial, result)
        self.decisions.append((trial.number, trial.budget, decision))
        if result["final"] or decision == "STOP":
            trial.status, trial.completed = "TERMINATED", decision != "STOP"
            self.scheduler.on_trial_complete(None, trial, result)
        elif decision == "PAUSE":
            trial.status = "PAUSED"
        if self.told_twice and not trial.is_finished():
            assert self.scheduler.on_trial_result(None, trial, result) == decision

    def play(self, order: list[int]) -> list[tuple[int, int, str]]:
        for choice in order:
            self.move(choice)
        return self.decisions


scores = st.integers(-8, 8).map(float)
curves = st.lists(st.lists(scores, min_size=3, max_size=HORIZON), min_size=2, max_size=12)
orders = st.lists(st.integers(0, 11), min_size=10, max_size=80)
every = pytest.mark.parametrize("name", sorted(ALL))
stopping = pytest.mark.parametrize("name", sorted(STOPPING))


@every
@settings(max_examples=30)
@given(curves, orders, st.data())
def test_what_is_not_a_number_never_goes_on(
    name: str, given_curves: list[list[float]], order: list[int], data: st.DataObject
) -> None:
    broken = data.draw(st.integers(0, len(given_curves) - 1))
    at = data.draw(st.integers(0, len(given_curves[broken]) - 2))
    given_curves[broken][at] = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    for number, budget, decision in Game(build(name), given_curves).play(order):
        if number == broken:
            assert budget <= at + 1
            assert decision == "STOP" or budget <= at


@every
@settings(max_examples=30)
@given(curves, orders)
def test_a_stopped_trial_stays_stopped_and_a_complete_one_was_never_stopped(
    name: str, given_curves: list[list[float]], order: list[int]
) -> None:
    game = Game(build(name), given_curves)
    decisions = game.play(order)
    for number, budget, decision in decisions:
        if budget == len(given_curves[number]):
            assert decision == "CONTINUE"
        elif decision == "STOP":
            again = {"budget": budget + 1, "score": -100.0}
            assert game.scheduler.on_trial_result(None, game.trials[number], again) == "STOP"


@every
@settings(max_examples=30)
@given(curves, orders)
def test_reports_told_again_after_a_restart_change_no_decision(
    name: str, given_curves: list[list[float]], order: list[int]
) -> None:
    once, twice = (Game(build(name), given_curves, told).play(order) for told in (False, True))
    assert once == twice


@every
@settings(max_examples=30)
@given(curves, orders, st.sampled_from([0.25, 0.5, 2.0, 8.0, 1024.0]), st.integers(-1000, 1000))
def test_another_scale_changes_no_decision(
    name: str, given_curves: list[list[float]], order: list[int], scale: float, shift: int
) -> None:
    # Scores are whole numbers, scales powers of two: what differs would differ by more than rounding.
    scaled = [[scale * (score + shift) for score in curve] for curve in given_curves]
    changes = {"upper": scale * (3.0 + shift)} if name == "threshold" else {}
    assert Game(build(name), given_curves).play(order) == Game(build(name, **changes), scaled).play(order)


@every
@settings(max_examples=30)
@given(curves, orders)
def test_maximising_is_minimising_in_a_mirror(name: str, given_curves: list[list[float]], order: list[int]) -> None:
    mirrored = [[-score for score in curve] for curve in given_curves]
    changes = {"upper": None, "lower": -3.0} if name == "threshold" else {}
    least = Game(build(name), given_curves).play(order)
    assert least == Game(build(name, "maximize", **changes), mirrored).play(order)


@stopping
@settings(max_examples=30)
@given(curves, orders, orders)
def test_a_study_cut_anywhere_and_replayed_goes_on_as_one_that_was_not(
    name: str, given_curves: list[list[float]], before: list[int], after: list[int]
) -> None:
    straight = Game(build(name), given_curves)
    straight.play(before)
    replayed = Game(build(name), given_curves, trials=[Live(**vars(trial)) for trial in straight.trials])
    replayed.scheduler.replay([trial.record() for trial in straight.trials if trial.budget])
    so_far = len(straight.decisions)
    assert straight.play(after)[so_far:] == replayed.play(after)


@given(curves, orders)
def test_with_pauses_a_study_always_winds_up_with_a_complete_trial(
    given_curves: list[list[float]], order: list[int]
) -> None:
    game = Game(build("asha, pausing"), given_curves)
    game.play(order)
    stopped: list[Live] = []

    def stop(trial: Live) -> None:
        game.scheduler.on_trial_remove(None, trial)
        trial.status = "TERMINATED"
        stopped.append(trial)

    controller = SimpleNamespace(get_live_trials=lambda: game.trials, stop_trial=stop)
    game.scheduler.nothing_new = True
    for _ in range(1000):
        chosen = game.scheduler.choose_trial_to_run(controller)
        if chosen is not None:
            chosen.status = "RUNNING"
        running = [trial for trial in game.trials if trial.status in ("PENDING", "RUNNING")]
        if running:
            game._report(running[0])
        elif all(trial.is_finished() for trial in game.trials):
            break
    assert all(trial.is_finished() for trial in game.trials)
    assert any(trial.completed for trial in game.trials)
    assert not any(trial.completed for trial in stopped)
    assert game.scheduler.n_paused == 0


finite = st.floats(-1e6, 1e6, allow_nan=False, width=32)


@given(st.lists(st.lists(finite, min_size=1, max_size=30), min_size=1, max_size=20), orders, st.sampled_from([2, 3, 4]))
def test_asha_decides_as_rays_own(given_curves: list[list[float]], order: list[int], eta: int) -> None:
    theirs = ASHAScheduler(
        time_attr="budget", metric="score", mode="min", grace_period=1, max_t=eta**3, reduction_factor=eta,
        stop_last_trials=False,
    )  # fmt: skip
    ours = schedulers.build("asha", grace=1, eta=eta, max_budget=eta**3 + 1)
    decisions = [Game(scheduler, given_curves).play(order) for scheduler in (ours, theirs)]
    assert without_final(decisions[0], given_curves) == without_final(decisions[1], given_curves)


def without_final(decisions: list[tuple[int, int, str]], given_curves: list[list[float]]) -> list[Any]:
    return [one for one in decisions if one[1] < len(given_curves[one[0]])]


@given(curves, orders, st.integers(2, 6))
def test_nobody_is_stopped_at_a_rung_that_holds_too_few(
    given_curves: list[list[float]], order: list[int], least: int
) -> None:
    arrived: dict[int, int] = dict.fromkeys((1, 3), 0)
    for _, budget, decision in Game(build("asha", min_results=least), given_curves).play(order):
        if budget in arrived:
            arrived[budget] += 1
            assert decision == "CONTINUE" or arrived[budget] >= least


@given(st.lists(scores, min_size=1, max_size=30), st.lists(st.booleans(), min_size=30, max_size=30))
def test_feasibility_comes_before_the_score(values: list[float], feasible: list[bool]) -> None:
    scheduler, alone = (build("asha", eta=3) for _ in range(2))
    seen_feasible = False
    for number, (value, keeps) in enumerate(zip(values, feasible, strict=False)):
        trial, result = Live(number, []), {"budget": 1, "score": value}
        if keeps:
            # Reports that break a constraint change nothing for those that do not.
            expected = alone.on_trial_result(None, trial, result)
            assert scheduler.on_trial_result(None, trial, result) == expected
        else:
            decision = scheduler.on_trial_result(None, trial, {**result, "score": -1e6, "feasible": False})
            assert decision == "STOP" or not seen_feasible
        seen_feasible |= keeps


@stopping
@settings(max_examples=30)
@given(curves, orders)
def test_a_trial_that_failed_is_not_compared_with(name: str, given_curves: list[list[float]], order: list[int]) -> None:
    # A trial that was best at every report and then failed leaves no trace.
    touched, untouched = build(name), build(name)
    failing = Live(99, [])
    for budget in range(1, 4):
        touched.on_trial_result(None, failing, {"budget": budget, "score": -100.0})
    touched.on_trial_complete(None, failing, {"budget": 4, "cause": "nan_loss"})
    assert Game(touched, given_curves).play(order) == Game(untouched, given_curves).play(order)
