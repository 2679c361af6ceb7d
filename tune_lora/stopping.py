"""When to stop a study: pure rules over its record, and the clock as a Tune stopper."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from ray.tune import Stopper

from tune_lora import pareto as geometry
from tune_lora.live_study import LiveStudy
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
    best = record.best
    value = None if best is None else best.value
    if target is not None and best is not None and value is not None and _reaches(value, target, record.direction):
        return _target_reached(best, target)
    if n_trials is not None and len(finished) >= n_trials:
        return f"all {n_trials} trials have run"
    if plateau is not None and record.has_several:
        return _front_stands_still(record, finished, plateau, n_startup)
    if plateau is not None and best is not None:
        since = len(finished) - max(_trials_until_best(finished, record.direction), n_startup)
        if since >= plateau:
            return _plateau_reached(best, since)
    return None


class Rules:
    """`reason_to_stop` for a study as it runs, in time that does not grow with it where it has one objective.

    Trials are taken in as they end, in the order in which they are known to have.
    """

    def __init__(self, *, plateau: int | None = 10, n_startup: int = 10, target: float | None = None) -> None:
        self._plateau, self._n_startup, self._target = plateau, n_startup, target
        self._mark, self._reason = 0, ""
        self._ended: set[int] = set()
        self._finished, self._finished_at_best = 0, 0
        self._best: TrialRecord | None = None

    def __call__(self, live: LiveStudy) -> str | None:
        """Why the study has had enough trials, or None."""
        changed, self._mark = live.since(self._mark)
        ended = [live.of(trial.number) for trial in changed if trial.state.is_finished()]
        if new := [trial for trial in ended if trial.number not in self._ended]:
            self._ended.update(trial.number for trial in new)
            self._reason = self._of_several(live) if live.has_several else self._of_one(new, live.direction)
        return self._reason or None

    def _of_several(self, live: LiveStudy) -> str:
        return reason_to_stop(live.record(), plateau=self._plateau, n_startup=self._n_startup) or ""

    def _of_one(self, ended: list[TrialRecord], direction: str) -> str:
        for trial in sorted((trial for trial in ended if trial.counts), key=_ended):
            self._finished += 1
            if trial.state == "complete" and trial.value is not None:
                self._compare(trial, trial.value, direction)
        best = self._best
        if best is None or best.value is None:
            return ""
        if self._target is not None and _reaches(best.value, self._target, direction):
            return _target_reached(best, self._target)
        since = self._finished - max(self._finished_at_best, self._n_startup)
        return _plateau_reached(best, since) if self._plateau is not None and since >= self._plateau else ""

    def _compare(self, trial: TrialRecord, value: float, direction: str) -> None:
        best = self._best
        if best is None or best.value is None or _is_better(value, best.value, direction):
            self._best, self._finished_at_best = trial, self._finished
        elif value == best.value and trial.number < best.number:
            self._best = trial


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


def _plateau_reached(best: TrialRecord, since: int) -> str:
    return f"plateau: the best ({best.value:.4g}, trial {best.number}) has not improved for {since} trials"


def _target_reached(best: TrialRecord, target: float) -> str:
    return f"target {target:g} reached by trial {best.number} with {best.value:.4g}"


def _reaches(value: float, target: float, direction: str) -> bool:
    return value == target or _is_better(value, target, direction)


def _is_better(value: float, other: float, direction: str) -> bool:
    return value < other if direction == "minimize" else value > other


def _ended(trial: TrialRecord) -> tuple[float, int]:
    return (trial.finished.timestamp() if trial.finished else 0.0, trial.number)


def _trials_until_best(finished: list[TrialRecord], direction: str) -> int:
    """How many trials had finished when the best one did."""
    best, position = None, 0
    for index, trial in enumerate(finished, start=1):
        if trial.state != "complete" or trial.value is None:
            continue
        if best is None or _is_better(trial.value, best, direction):
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
