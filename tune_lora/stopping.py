"""When to stop a study: pure rules over its record, and the clock as a Tune stopper."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from ray.tune import Stopper

from tune_lora import pareto as geometry
from tune_lora.records import StudyRecord, TrialRecord, completed, losses
from tune_lora.unsaved import Unsaved

LEAST_GROWTH = 0.005
"""Share of a front's hypervolume by which it must grow for a study to go on."""


def reason_to_stop(
    record: StudyRecord,
    *,
    plateau: int | None = 10,
    n_startup: int = 10,
    target: float | None = None,
    n_trials: int | None = None,
) -> str | None:
    """Why a study has had enough trials, or None.

    `plateau`: the best has not improved for that many finished trials; the first `n_startup` finished trials never
    count as such, nor do failures of the infrastructure or draws that a rule refused. `target`: a score at least this
    good. `n_trials`: this many trials have finished. None switches a rule off.

    With several objectives a plateau is `plateau` finished trials over which the hypervolume of the Pareto front has
    grown by less than `LEAST_GROWTH`: a front is filled up with small steps for ever. `target` is not looked at.
    """
    if record.has_several:
        target = None
    finished = sorted((trial for trial in record.trials if trial.counts), key=_ended)
    if target is not None and (reason := _target_reached(record, target)):
        return reason
    if n_trials is not None and len(finished) >= n_trials:
        return f"all {n_trials} trials have run"
    if plateau is not None and record.has_several:
        return _front_stands_still(record, finished, plateau, n_startup)
    if plateau is not None and (best := record.best) is not None:
        since = len(finished) - max(_trials_until_best(finished, record.direction), n_startup)
        if since >= plateau:
            return f"plateau: the best ({best.value:.4g}, trial {best.number}) has not improved for {since} trials"
    return None


def _front_stands_still(record: StudyRecord, finished: list[TrialRecord], plateau: int, n_startup: int) -> str | None:
    if len(finished) < n_startup + plateau:
        return None
    earlier = {trial.number for trial in finished[: len(finished) - plateau]}
    done = completed(record)
    points = losses(record, done)
    before = [point for trial, point in zip(done, points, strict=True) if trial.number in earlier]
    if not before:
        return None
    corner = geometry.reference(points)
    volume = geometry.hypervolume(points, corner)
    if volume > (1 + LEAST_GROWTH) * geometry.hypervolume(before, corner):
        return None
    return (
        f"plateau: the front of {len(geometry.front(points))} trials has grown by less than {LEAST_GROWTH:.1%} "
        f"(hypervolume {volume:.4g}) over {plateau} trials"
    )


def _target_reached(record: StudyRecord, target: float) -> str | None:
    best = record.best
    if best is None or best.value is None:
        return None
    reached = best.value <= target if record.direction == "minimize" else best.value >= target
    return f"target {target:g} reached by trial {best.number} with {best.value:.4g}" if reached else None


def _ended(trial: TrialRecord) -> tuple[float, int]:
    return (trial.finished.timestamp() if trial.finished else 0.0, trial.number)


def _trials_until_best(finished: list[TrialRecord], direction: str) -> int:
    """How many trials had finished when the best one did."""
    best, position = None, 0
    for index, trial in enumerate(finished, start=1):
        if trial.state != "complete" or trial.value is None:
            continue
        if best is None or (trial.value < best if direction == "minimize" else trial.value > best):
            best, position = trial.value, index
    return position


class Interruptible(Protocol):
    """What the clock tells that time is up."""

    def interrupt(self, reason: str) -> None:
        """The run ends now."""
        ...


class TimeoutStopper(Unsaved, Stopper):
    """Ends the run after `hours` (None: never) from its making. Running trials stay RUNNING in the store, to be
    continued.
    """

    def __init__(self, hours: float | None, searcher: Interruptible, now: Callable[[], float] = time.monotonic) -> None:
        self._hours, self._searcher, self._now = hours, searcher, now
        self._end = None if hours is None else now() + hours * 3600

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002  # Ray's signature
        """No single trial is stopped by the clock."""
        return False

    def stop_all(self) -> bool:
        """Whether time is up."""
        if self._end is None or self._now() < self._end:
            return False
        self._searcher.interrupt(f"timeout: {self._hours:g} h are over")
        return True
