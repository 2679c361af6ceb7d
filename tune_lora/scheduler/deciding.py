"""The rule about reports that every scheduler here keeps.

A report without a value to compare is passed over. One that is not a number stops its trial at once. A final report
never does: the trial is complete. Nor is a trial stopped that all others are measured against. A trial that failed is
no longer one that others are compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune_lora.scheduler.queue import Queue
from tune_lora.scheduler.reports import Key, Seen, excess_of, is_spared, key_of, read
from tune_lora.store import TrialRecord


class InTurn(FIFOScheduler):
    """Nobody is stopped early, and free workers go to those who have none on its way (`queue`)."""

    def __init__(self) -> None:
        super().__init__()
        self._queue = Queue()

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The trial to give a worker to. Tune's own looks through all trials that there ever were."""
        return self._queue.first(tune_controller)


class Deciding(InTurn):
    """A Tune scheduler that decides on what a report is worth; those below say how.

    `direction` is ``minimize`` or ``maximize``. `watch` is a metric, lower is better, that is compared in place of the
    score.
    """

    metric = None
    """What Tune demands of every report; a score is measured at rungs only."""

    def __init__(self, direction: str, watch: str | None = None) -> None:
        super().__init__()
        self.sign = 1.0 if direction == "maximize" and watch is None else -1.0
        self._watch = watch
        self._stopped: set[Key] = set()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002  # Ray's
        """CONTINUE, STOP, and PAUSE from those that pause. What was stopped stays stopped."""
        seen, key = read(result, self._watch), key_of(trial)
        if seen.is_broken or key in self._stopped:
            decision = TrialScheduler.STOP
        elif seen.final or seen.budget <= 0 or seen.value is None:
            decision = TrialScheduler.CONTINUE
        else:
            decision = self._decide(trial, key, seen)
            if decision == TrialScheduler.STOP and is_spared(trial):
                decision = TrialScheduler.CONTINUE
        if decision == TrialScheduler.STOP:
            self._stopped.add(key)
        return str(decision)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:  # noqa: ARG002
        """A complete trial is one that others are compared with, and so is one that was stopped; one that failed is
        not.
        """
        seen, key = read(result, self._watch), key_of(trial)
        if seen.is_broken:
            self._forget(key)
        elif seen.value is not None and seen.budget > 0:
            self._end(key, seen)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002  # Ray's signature
        """Its worker was lost. For good, it is forgotten; one that Tune starts again (it is ERROR by then, and not yet
        where it is given up) stands at the rungs where it stood, since it tells them no second time.
        """
        if getattr(trial, "status", None) != Trial.ERROR:
            self._forget(key_of(trial))

    def replay(self, records: Iterable[TrialRecord]) -> None:
        """Takes in an earlier run of the study, so that a continued study prunes as one that never stopped."""
        for record in records:
            if record.state not in ("failed", "waiting"):
                self._take_in(record)

    def _reports(self, record: TrialRecord) -> Iterator[Seen]:
        """What a stored trial reported, in order."""
        for budget, value in sorted(self._curve(record).items()):
            final = record.state == "complete" and budget >= max(record.last_budget, *record.curve, 0)
            yield Seen(budget, value, excess_of(record.history.get(budget, {})), final)

    def _curve(self, record: TrialRecord) -> Mapping[int, float]:
        name = self._watch
        if name is None:
            return record.curve
        return {at: metrics[name] for at, metrics in record.history.items() if name in metrics}

    def _decide(self, trial: Any, key: Key, seen: Seen) -> str:
        raise NotImplementedError

    def _end(self, key: Key, seen: Seen) -> None:
        raise NotImplementedError

    def _forget(self, key: Key) -> None:
        raise NotImplementedError

    def _take_in(self, record: TrialRecord) -> None:
        raise NotImplementedError
