"""When a study has had enough: plateau, target, number of trials, the clock."""

from __future__ import annotations

import pytest

from trainables.protocol import Cause
from tune_lora.stopping import TimeoutStopper, reason_to_stop
from tune_lora.store import Direction, StudyRecord, TrialRecord


def study(values: list[float | Cause | None], direction: Direction = "minimize") -> StudyRecord:
    """Finished trials in order: a score, a cause of failure, or None for pruned."""
    trials = []
    for number, value in enumerate(values):
        if isinstance(value, Cause):
            trials.append(TrialRecord(number, "failed", None, {}, {}, cause=value))
        else:
            trials.append(TrialRecord(number, "pruned" if value is None else "complete", value, {}, {}))
    return StudyRecord("s", direction, tuple(trials))


def test_a_plateau_is_ten_finished_trials_without_a_better_best_after_the_start_up() -> None:
    start = [0.5] * 10
    assert reason_to_stop(study([*start, *[0.6] * 9])) is None
    assert "plateau" in (reason_to_stop(study([*start, *[0.6] * 10])) or "")


def test_an_improvement_begins_the_plateau_anew() -> None:
    assert reason_to_stop(study([0.5] * 15 + [0.4] + [0.6] * 9)) is None
    reason = reason_to_stop(study([0.5] * 15 + [0.4] + [0.6] * 10)) or ""
    assert "trial 15" in reason
    assert "0.4" in reason


def test_pruned_and_exploded_trials_count_towards_it_and_lost_workers_do_not() -> None:
    start: list[float | Cause | None] = [0.5] * 10
    assert reason_to_stop(study(start + [None, Cause.NAN_LOSS] * 5)) is not None
    assert reason_to_stop(study(start + [Cause.INFRASTRUCTURE] * 30)) is None


def test_without_a_completed_trial_there_is_no_plateau() -> None:
    assert reason_to_stop(study([None] * 50)) is None


def test_each_rule_can_be_switched_off() -> None:
    assert reason_to_stop(study([0.5] * 50), plateau=None) is None


@pytest.mark.parametrize(("direction", "value", "reached"), [("minimize", 0.1, True), ("minimize", 0.11, False)])
def test_the_target(direction: Direction, value: float, reached: bool) -> None:
    assert bool(reason_to_stop(study([0.9, value], direction), target=0.1)) == reached
    assert bool(reason_to_stop(study([-0.9, -value], "maximize"), target=-0.1)) == reached


def test_the_number_of_trials() -> None:
    assert reason_to_stop(study([0.5, None, Cause.INFRASTRUCTURE]), n_trials=3) is None
    assert reason_to_stop(study([0.5, None, Cause.CRASH]), n_trials=3) == "all 3 trials have run"


class Run:
    """What the clock interrupts."""

    reason = ""

    def interrupt(self, reason: str) -> None:
        self.reason = reason


def test_the_clock_interrupts_the_run_when_its_hours_are_over() -> None:
    run, now = Run(), [0.0]
    stopper = TimeoutStopper(1.5, run, now=lambda: now[0])
    assert not stopper.stop_all()
    now[0] = 1.5 * 3600 - 1
    assert not stopper.stop_all()
    assert run.reason == ""
    now[0] += 1
    assert stopper.stop_all()
    assert run.reason == "timeout: 1.5 h are over"
    assert not stopper("any", {})


def test_without_hours_the_clock_never_ends() -> None:
    assert not TimeoutStopper(None, Run(), now=lambda: 1e12).stop_all()
