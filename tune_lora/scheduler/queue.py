"""Which trial gets a worker that has become free.

Tune gives it to the trial that has waited longest. For that trial a worker is being started already, and that start is
cut off. Where trials end sooner than workers start, hardly any start is ever finished: of 64 slots a few are busy, and
the driver spends its time on asking for places and giving them back. So a free worker takes the newest trial, for
which nothing has been asked yet, and the others get the workers that are on their way to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from ray.tune.experiment import Trial

PATIENCE_SECONDS = 60.0
"""A trial that has waited so long takes any worker: the place for its own may never come, as where a node has left."""


class Queue:
    """The trials that wait for a worker, by Tune's id. `now` is a clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._since: dict[str, float] = {}
        self._now = now

    def first(self, tune_controller: Any) -> Trial | None:
        """The one to give a worker to. None where each has one on its way."""
        return self.of(tune_controller.get_live_trials())

    def of(self, live: Iterable[Trial]) -> Trial | None:
        """The same, of these trials."""
        waiting = {trial.trial_id: trial for trial in live if trial.status == Trial.PENDING}
        self._since = {one: since for one, since in self._since.items() if one in waiting}
        now, new = self._now(), min(waiting.keys() - self._since.keys(), default=None)
        if new is not None:
            self._since[new] = now
            return waiting[new]
        oldest = min(self._since, key=lambda one: (self._since[one], one), default=None)
        return waiting[oldest] if oldest is not None and now - self._since[oldest] > PATIENCE_SECONDS else None
