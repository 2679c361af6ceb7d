"""Pause and promote: the ASHA of the paper, in which nobody is stopped at a rung for good while the study lasts.

A trial pauses at each rung. It goes on once it is among the best 1/eta of all that have come there, be it at once or
when others have come that are worse. Source: Li et al., A System for Massively Parallel Hyperparameter Tuning (ASHA),
2020, algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from tune_lora.scheduler.deciding import Deciding
from tune_lora.scheduler.reports import Key, Seen, is_spared, key_of
from tune_lora.scheduler.rungs import Ladder, Rung
from tune_lora.store import TrialRecord
from tune_lora.unsaved import Unsaved


class PausingAsha(Deciding):
    """Pauses trials at rungs and promotes them.

    A paused trial keeps nothing but its checkpoint: its worker goes to another trial (`Slots` counts only those that
    run). When nothing new may begin and nobody is left to promote, the paused trials are stopped, and so end as pruned;
    where none has come to its end by then, the best one does first.
    """

    def __init__(self, direction: str, at: Sequence[int], eta: float) -> None:
        super().__init__(direction)
        self._ladder, self._eta = Ladder.at(at), eta
        self._promoted: dict[int, set[Key]] = {budget: set() for budget in at}
        self._paused: dict[Key, Trial] = {}
        self._has_complete = False
        self.nothing_new = False
        """Nothing new may begin before a trial ends; `Slots` says so."""
        self.is_closed = False
        """Nothing new will begin at all, nor is anybody promoted."""
        self.slots: float = math.inf
        """How many trials run at a time."""

    @property
    def n_paused(self) -> int:
        """Trials that wait at a rung and hold no worker."""
        return len(self._paused)

    @property
    def promotable(self) -> Key | None:
        """The paused trial to promote, from the highest rung that has one."""
        if self.is_closed:
            return None
        return next(
            (key for rung in reversed(self._ladder.rungs) for key in self._best(rung) if key in self._paused), None
        )

    def _best(self, rung: Rung) -> list[Key]:
        """Those among the best 1/eta of a rung that were not promoted from it."""
        ranked = rung.ranked()
        return [key for key in ranked[: int(len(ranked) / self._eta)] if key not in self._promoted[rung.at]]

    def _decide(self, trial: Any, key: Key, seen: Seen) -> str:
        rung = self._ladder.reached(seen.budget)
        if rung is None:
            return str(TrialScheduler.CONTINUE)
        rung.enter(key, seen, self.sign)  # told again by a restarted trial: entered already
        if key in self._best(rung) or is_spared(trial):
            self._promoted[rung.at].add(key)
        if key in self._promoted[rung.at]:
            return str(TrialScheduler.CONTINUE)
        if self.is_closed:
            return str(TrialScheduler.STOP)
        self._paused[key] = trial
        return str(TrialScheduler.PAUSE)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """A trial that waits for a worker, else one to promote; at the end of the study, nobody."""
        unfinished = [trial for trial in tune_controller.get_live_trials() if not trial.is_finished()]
        if any(trial.status == Trial.PENDING for trial in unfinished):
            return self._queue.of(unfinished)
        busy = len(unfinished) - self.n_paused
        if (key := self.promotable) is not None:
            return self._promote(key) if busy < self.slots else None
        if busy == 0 and self._paused and (self.nothing_new or self.is_closed):
            return self._wind_up(tune_controller)
        return None

    def _wind_up(self, tune_controller: Any) -> Trial | None:
        if not self._has_complete:
            ranked = [key for rung in reversed(self._ladder.rungs) for key in rung.ranked()]
            return self._promote(next(key for key in ranked if key in self._paused))
        for trial in [trial for trial in self._paused.values() if trial.status == Trial.PAUSED]:
            tune_controller.stop_trial(trial)
        return None

    def _promote(self, key: Key) -> Trial | None:
        if self._paused[key].status != Trial.PAUSED:  # its checkpoint is still being written
            return None
        for rung in self._ladder.rungs:
            if key in rung:
                self._promoted[rung.at].add(key)
        return self._paused.pop(key)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002  # Ray's signature
        """It was stopped while it was paused."""
        self._paused.pop(key_of(trial), None)

    def _end(self, key: Key, seen: Seen) -> None:
        self._ladder.enter(key, seen, self.sign)
        self._has_complete |= seen.final
        self._paused.pop(key, None)

    def _forget(self, key: Key) -> None:
        self._ladder.forget(key)
        self._paused.pop(key, None)

    def _take_in(self, record: TrialRecord) -> None:
        for seen in self._reports(record):
            self._ladder.enter(record.number, seen, self.sign)
        self._has_complete |= record.state == "complete"
        for rung in self._ladder.rungs:
            if record.number in rung and record.last_budget > rung.at:
                self._promoted[rung.at].add(record.number)

    def debug_string(self) -> str:
        """How many wait, and how many went on."""
        held = ", ".join(
            f"{rung.at}: {len(self._promoted[rung.at])} of {len(rung.ranked())}" for rung in self._ladder.rungs
        )
        return f"ASHA with pauses, promoted from rungs: {held}; {self.n_paused} paused"


class Slots(Unsaved, Searcher):
    """A searcher for a scheduler that pauses: at most `count()` trials run at a time, paused ones not counted.

    Tune's own limit counts paused trials, so that with as many of them as slots nothing would ever begin again.
    """

    def __init__(self, searcher: Searcher, scheduler: PausingAsha, count: Callable[[], int]) -> None:
        super().__init__()
        self._inner, self._scheduler, self._count = searcher, scheduler, count
        scheduler.slots = count()
        self._live: set[str] = set()
        self._last: dict[str, dict[str, Any]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A new trial, where a slot is free and nobody waits for promotion."""
        self._scheduler.slots = self._count()
        busy = len(self._live) - self._scheduler.n_paused
        if self._scheduler.promotable is not None or busy >= self._scheduler.slots:
            return None
        answer: dict[str, Any] | str | None = self._inner.suggest(trial_id)
        # A trial that waits to go on is not there yet, but the study is not at its end.
        self._scheduler.nothing_new = answer is None and not getattr(self._inner, "waits", False)
        self._scheduler.is_closed |= answer == Searcher.FINISHED
        if isinstance(answer, dict):
            self._live.add(trial_id)
        return answer

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Remembers the last result: Tune tells none when it stops a paused trial."""
        self._last[trial_id] = result
        self._inner.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The trial ended, a paused one with the last that was heard of it."""
        self._live.discard(trial_id)
        last = self._last.pop(trial_id, None)
        self._inner.on_trial_complete(trial_id, result=result or (None if error else last), error=error)

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """The space, metric and direction are the study's own."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is in its storage."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a new searcher on the same study goes on."""
