"""Who stops a trial early: Ray's schedulers behind one rule about which reports they may decide on.

A report without a score is passed over, a score that is not finite stops the trial, and a final report never does: the
trial is complete.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from tune_lora.errors import InputError, nearest
from tune_lora.store import TrialRecord

SCORE = "score"
BUDGET = "budget"
SCHEDULERS = ("asha", "median", "none")


def rungs(grace: int, eta: float, max_budget: int) -> tuple[int, ...]:
    """The budgets at which trials are compared: grace, grace * eta, grace * eta^2, ... below `max_budget`.

    They are absolute, so trials with different horizons meet at the same ones. None stands at `max_budget`: there is
    nothing left to save. Source: Li et al., A System for Massively Parallel Hyperparameter Tuning (ASHA), 2020.

    Raises:
        InputError: grace is below 1, or eta is not above 1.
    """
    if grace < 1 or not eta > 1:
        raise InputError(f"scheduler: got grace {grace} and eta {eta:g}; grace must be 1 or more, eta above 1")
    found: dict[int, None] = {}
    exponent = 0
    while (rung := round(grace * eta**exponent)) < max_budget:
        found[rung] = None
        exponent += 1
    return tuple(found)


def build(
    name: str,
    *,
    direction: str = "minimize",
    grace: int = 2,
    eta: float = 3,
    max_budget: int = 100,
    n_startup_trials: int = 5,
    n_warmup_steps: int = 5,
    watch: str | None = None,
) -> TrialScheduler:
    """A Tune scheduler that reads `SCORE` at `BUDGET`: ``asha``, ``median`` (n_startup_trials, n_warmup_steps) or
    ``none``.

    `watch` is a metric, lower is better, that ``median`` reads in place of the score: it compares at every report, and
    a score that takes images is measured at rungs and at the end only.

    Raises:
        InputError: no such scheduler, or settings it cannot work with.
    """
    mode = "min" if direction == "minimize" else "max"
    if name == "asha":
        return Asha(mode, rungs(grace, eta, max_budget), eta)
    if name == "median":
        return Median(mode, n_startup_trials, n_warmup_steps, watch)
    if name == "none":
        return FIFOScheduler()
    raise InputError(f"scheduler: got {name!r}; {nearest(name, SCHEDULERS)}")


class _Decides:
    """The rule about reports, before Ray's scheduler sees one. Trials are known by their number, which outlives a
    driver.
    """

    metric = None
    """What Tune demands of every report; a score is measured at rungs only."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """CONTINUE or STOP."""
        score = result.get(SCORE)
        if result.get("final") or score is None or BUDGET not in result:
            return str(TrialScheduler.CONTINUE)
        if not math.isfinite(score):
            return str(TrialScheduler.STOP)
        return str(super().on_trial_result(tune_controller, known(trial), result))  # type: ignore[misc]  # a mixin

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A complete trial is one that others are compared with."""
        score = result.get(SCORE)
        if score is not None and BUDGET in result and math.isfinite(score):
            super().on_trial_complete(tune_controller, known(trial), result)  # type: ignore[misc]  # a mixin


class Asha(_Decides, AsyncHyperBandScheduler):
    """Asynchronous successive halving with rungs that are told to trainers beforehand."""

    def __init__(self, mode: str, at: tuple[int, ...], eta: float) -> None:
        highest = max(at, default=1)
        super().__init__(
            time_attr=BUDGET, metric=SCORE, mode=mode, max_t=highest, grace_period=min(at, default=1),
            reduction_factor=eta, stop_last_trials=False,
        )  # fmt: skip
        self._bracket = self._brackets[0]
        # Ray derives rungs from a ratio of logarithms, which loses the last one where that ratio rounds down.
        self._bracket._rungs = [(rung, {}) for rung in reversed(at)]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Ray's book-keeping, under the trial's number."""
        super().on_trial_add(tune_controller, known(trial))

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002  # Ray's signature
        """Ray's book-keeping; a trial may end before it was compared."""
        self._trial_info.pop(known(trial).trial_id, None)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A complete trial is one that others are compared with."""
        self._trial_info.setdefault(known(trial).trial_id, self._bracket)
        super().on_trial_complete(tune_controller, trial, result)

    def replay(self, records: Iterable[TrialRecord]) -> None:
        """Takes in the scores of an earlier run of the study, so that a continued study prunes as one that never
        stopped.
        """
        for record in records:
            trial = _Numbered(str(record.number))
            for budget, score in sorted(record.curve.items()):
                if math.isfinite(score):
                    self._bracket.on_result(trial, budget, self._metric_op * score)


class Median(_Decides, MedianStoppingRule):
    """Stops a trial whose best score is worse than the median of the others' running means at the same budget."""

    def __init__(self, mode: str, n_startup_trials: int, n_warmup_steps: int, watch: str | None = None) -> None:
        self._watch = watch
        super().__init__(
            time_attr=BUDGET,
            metric=SCORE,
            mode="min" if watch else mode,
            grace_period=n_warmup_steps,
            min_samples_required=n_startup_trials,
        )

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """CONTINUE or STOP; what a restarted trial reports again is not counted again."""
        seen = self._results.get(known(trial), ())
        if any(earlier[BUDGET] == result.get(BUDGET) for earlier in seen):
            return str(TrialScheduler.CONTINUE)
        return super().on_trial_result(tune_controller, trial, self._compared(result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A complete trial is one that others are compared with."""
        super().on_trial_complete(tune_controller, trial, self._compared(result))

    def _compared(self, result: dict[str, Any]) -> dict[str, Any]:
        """The result with what is compared as its score; without one where it was not measured."""
        if self._watch is None:
            return result
        rest = {name: value for name, value in result.items() if name != SCORE}
        value = result.get("metrics", {}).get(self._watch)
        return rest if value is None else rest | {SCORE: value}

    def _on_insufficient_samples(self, *_: Any) -> str:
        # Ray would pause the trial for others to catch up, which gives its worker away.
        return str(TrialScheduler.CONTINUE)

    def replay(self, records: Iterable[TrialRecord]) -> None:
        """Takes in the scores of an earlier run of the study."""
        for record in records:
            for budget, score in sorted(self._curve(record).items()):
                if math.isfinite(score):
                    self._results[_Numbered(str(record.number))].append({BUDGET: budget, SCORE: score})

    def _curve(self, record: TrialRecord) -> dict[int, float]:
        if self._watch is None:
            return dict(record.curve)
        return {at: metrics[self._watch] for at, metrics in record.history.items() if self._watch in metrics}


@dataclass(frozen=True)
class _Numbered:
    """Stands for a trial in Ray's book-keeping."""

    trial_id: str


def known(trial: Any) -> _Numbered:
    """A Tune trial as schedulers here know it: by its number in the study, else by Tune's id."""
    number = ((getattr(trial, "config", None) or {}).get("trial") or {}).get("number")
    return _Numbered(str(trial.trial_id if number is None else number))
