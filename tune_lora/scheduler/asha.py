"""Asynchronous successive halving: a trial that is not among the best 1/eta at a rung is stopped there.

The decision is that of Ray's ASHAScheduler but for what is said in docs/schedulers.md: first arrivals, ties,
feasibility, failures, restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ray.tune.schedulers import TrialScheduler

from tune_lora.scheduler.deciding import Deciding
from tune_lora.scheduler.grace import Grace, candidates_of, ladder_of, measure, start_of
from tune_lora.scheduler.reports import Key, Seen
from tune_lora.scheduler.rungs import Ladder
from tune_lora.store import TrialRecord


class Asha(Deciding):
    """Stops at rungs that are told to trainers beforehand.

    `min_results` is how many results a rung must hold, the arrival counted, before it stops anybody. Two, as in Ray's
    ASHA, did best where it was measured (docs/schedulers.md); with noisy scores more may be wanted.
    """

    def __init__(self, direction: str, at: Sequence[int], eta: float, min_results: int = 2) -> None:
        super().__init__(direction)
        self._ladder, self._eta = Ladder.at(at), eta
        self._min_results = min_results

    def _decide(self, trial: Any, key: Key, seen: Seen) -> str:  # noqa: ARG002  # of those that pause
        rung = self._ladder.reached(seen.budget)
        if rung is None or key in rung:
            return str(TrialScheduler.CONTINUE)
        goes_on = rung.at < self.grace or rung.lets_on(seen, self.sign, self._eta, self._min_results)
        rung.enter(key, seen, self.sign)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    @property
    def grace(self) -> int:
        """No trial is stopped before this budget."""
        return self._ladder.rungs[0].at if self._ladder.rungs else 0

    def _end(self, key: Key, seen: Seen) -> None:
        self._ladder.enter(key, seen, self.sign)

    def _forget(self, key: Key) -> None:
        self._ladder.forget(key)

    def _take_in(self, record: TrialRecord) -> None:
        for seen in self._reports(record):
            self._ladder.enter(record.number, seen, self.sign)

    def debug_string(self) -> str:
        """How many results each rung holds."""
        held = ", ".join(f"{rung.at}: {len(rung.rewards)} + {len(rung.excesses)}" for rung in self._ladder.rungs)
        return f"ASHA, results at rungs (feasible + infeasible): {held}"


class MeasuredAsha(Asha):
    """ASHA that decides from the smallest rung whose order is the final order (`tune_lora.scheduler.grace`).

    `longest` is the longest budget of any trial. Every rung of the ladder is recorded, those below the grace period
    without a decision. `say` hears one line when the grace period moves.
    """

    def __init__(
        self,
        direction: str,
        longest: int,
        eta: float,
        *,
        min_results: int = 2,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        steps, self._start = ladder_of(longest, eta), start_of(longest)
        super().__init__(direction, steps, eta, min_results)
        self._candidates = candidates_of(steps, self._start, longest)
        self._say = say
        self._scores: dict[int, dict[Key, float]] = {budget: {} for budget in steps}
        self._finals: dict[Key, float] = {}
        self._now = Grace(self._start)

    @property
    def grace(self) -> int:
        """No trial is stopped before this budget, as far as is known now."""
        return self._now.at

    def replay(self, records: Iterable[TrialRecord]) -> None:
        """Takes in an earlier run of the study, and measures once."""
        super().replay(records)
        self._measure()

    def _decide(self, trial: Any, key: Key, seen: Seen) -> str:
        self._note(key, seen)
        return super()._decide(trial, key, seen)

    def _end(self, key: Key, seen: Seen) -> None:
        super()._end(key, seen)
        self._note(key, seen)
        self._measure()

    def _forget(self, key: Key) -> None:
        super()._forget(key)
        for scores in (*self._scores.values(), self._finals):
            scores.pop(key, None)
        self._measure()

    def _take_in(self, record: TrialRecord) -> None:
        super()._take_in(record)
        for seen in self._reports(record):
            self._note(record.number, seen)

    def _note(self, key: Key, seen: Seen) -> None:
        if seen.value is None or seen.excess > 0:
            return
        if seen.final:
            self._finals[key] = seen.value
        elif seen.budget in self._scores:
            self._scores[seen.budget].setdefault(key, seen.value)

    def _measure(self) -> None:
        before = self._now
        self._now = measure(self._candidates, self._start, self._scores, self._finals)
        if self._now.at != before.at:
            self._say(f"grace period {before.at} -> {self._now.at}: {self._now.why}")
