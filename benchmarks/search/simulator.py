"""A virtual clock that drives a search method with W workers on learning curves.

Nothing here trains or waits: an epoch of a trial is an event. What decides (searcher, scheduler) are the real objects,
called in the order in which Ray Tune's controller calls them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from benchmarks.search.tasks import Task

Verdict = Literal["continue", "stop", "pause"]


@dataclass(frozen=True)
class Start:
    """A worker's next job: a trial by name, from the epoch after `after`."""

    trial: str
    params: Mapping[str, Any]
    after: int = 0


class Method(Protocol):
    """A search method as the clock sees it."""

    def next(self) -> Start | None:
        """The next job for a free worker; None where there is none now."""
        ...

    def report(self, trial: str, epoch: int, score: float, final: bool) -> Verdict:
        """A trial's score (higher is better) after an epoch; NaN where it failed. After a final one the trial is over,
        whatever is answered.
        """
        ...


@dataclass
class Timeline:
    """What happened. A row of `completed` is (wall time, budget spent, final score that counts, final score as it was
    seen), times and budgets in full trainings.
    """

    completed: list[tuple[float, float, float, float]] = field(default_factory=list)
    started: list[tuple[float, Mapping[str, Any]]] = field(default_factory=list)
    failed: list[bool] = field(default_factory=list)

    def best_at(self, budget: float, by: Literal["budget", "wall"] = "budget") -> float:
        """The best final score among the trials that had completed; NaN before the first."""
        place = 1 if by == "budget" else 0
        return max((row[2] for row in self.completed if row[place] <= budget + 1e-9), default=math.nan)


def simulate(method: Method, task: Task, *, workers: int, budget: float, seed: int = 0) -> Timeline:
    """Runs a method until `budget` full trainings are spent (or it has no more to try).

    A trial's epochs take 0.9 to 1.1 of an epoch's time, the same for the same number of the trial, so that workers do
    not march in step.
    """
    clock = _Clock(task, workers, seed)
    while clock.spent < budget * task.epochs:
        while clock.free and (start := method.next()) is not None:
            clock.begin(start)
        if not clock.waiting:
            break
        trial, epoch, score, final = clock.step()
        verdict = method.report(trial, epoch, score, final)
        clock.settle(trial, verdict, final)
    return clock.timeline


@dataclass
class _Running:
    curve: np.ndarray
    counts: float
    epoch: int
    pace: float


class _Clock:
    """Time, workers and what each of them trains."""

    def __init__(self, task: Task, workers: int, seed: int) -> None:
        self.task, self.free, self.spent, self.now = task, workers, 0, 0.0
        self.timeline = Timeline()
        self.waiting: list[tuple[float, int, str]] = []
        self._running: dict[str, _Running] = {}
        self._paces = np.random.default_rng(seed)
        self._ticks = 0

    def begin(self, start: Start) -> None:
        if start.trial not in self._running:
            curve, counts = self.task.train(start.params)
            self._running[start.trial] = _Running(curve, counts, start.after, self._paces.uniform(0.9, 1.1))
            self.timeline.started.append((self.spent / self.task.epochs, dict(start.params)))
            self.timeline.failed.append(bool(np.isnan(curve).any()))
        self.free -= 1
        self._schedule(start.trial)

    def step(self) -> tuple[str, int, float, bool]:
        """The next epoch that ends, whichever trial's: its name, the epoch, the score and whether it is the last."""
        self.now, _, trial = heapq.heappop(self.waiting)
        running = self._running[trial]
        running.epoch += 1
        self.spent += 1
        score = float(running.curve[running.epoch - 1])
        return trial, running.epoch, score, running.epoch == len(running.curve)

    def settle(self, trial: str, verdict: Verdict, final: bool) -> None:
        running = self._running[trial]
        score = float(running.curve[running.epoch - 1])
        if final and not math.isnan(score):
            row = (self.now / self.task.epochs, self.spent / self.task.epochs, running.counts, score)
            self.timeline.completed.append(row)
        if final or verdict != "continue" or math.isnan(score):
            self.free += 1
            if verdict != "pause":
                del self._running[trial]
        else:
            self._schedule(trial)

    def _schedule(self, trial: str) -> None:
        self._ticks += 1
        heapq.heappush(self.waiting, (self.now + self._running[trial].pace, self._ticks, trial))
