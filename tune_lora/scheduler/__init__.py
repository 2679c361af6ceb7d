"""Who stops a trial early: ASHA, every Optuna pruner, or nobody, behind one rule about reports (`deciding`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.schedulers import TrialScheduler

from tune_lora.errors import InputError, nearest
from tune_lora.scheduler.asha import Asha, MeasuredAsha
from tune_lora.scheduler.deciding import InTurn
from tune_lora.scheduler.grace import ladder_of
from tune_lora.scheduler.optuna_pruners import OptunaPruner, pruner_of
from tune_lora.scheduler.pausing import PausingAsha, Slots
from tune_lora.scheduler.reports import BUDGET, SCORE
from tune_lora.scheduler.rungs import rungs
from tune_lora.scheduler_spec import AUTO, DEFAULTS, READS, scheduler_name

__all__ = ["BUDGET", "SCHEDULERS", "SCORE", "PausingAsha", "Slots", "build", "decides_at", "rungs"]

SCHEDULERS = tuple(READS)
_DECIDE_AT_RUNGS = ("asha", "hyperband", "successive_halving")
_WATCH_EVERY_REPORT = ("median", "percentile", "patient", "threshold")


def build(
    name: str,
    *,
    direction: str = "minimize",
    max_budget: int = 100,
    in_every_report: str | None = None,
    by_fold: str | None = None,
    say: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> TrialScheduler:
    """A Tune scheduler that reads `SCORE` at `BUDGET`. `settings` are those of the study file's scheduler section; the
    ones that the scheduler does not read are ignored.

    `max_budget` is the longest budget of any trial. `in_every_report` is a metric, lower is better, that pruners which
    look at every report read in place of the score unless `watch` names another (``score``: the score): a score that
    takes images is measured at rungs and at the end only. `by_fold` is the value of a fold alone, lower is better,
    where trials are cross-validated: pruners that look at every report, and Wilcoxon's test, compare fold with fold
    and count folds.
    `say` hears what a scheduler finds out, a line at a time.

    Raises:
        InputError: no such scheduler or setting, or settings it cannot work with.
    """
    name = scheduler_name(name)
    chosen = _complete(settings)
    if name == "none":
        return InTurn()
    if name == "asha":
        return _asha(chosen, direction, max_budget, say)
    usual = by_fold or (in_every_report if name in _WATCH_EVERY_REPORT else None)
    watch = _watched(chosen["watch"], usual if "watch" in READS[name] else None)
    pruner_of(name, chosen, max_budget)
    folds = by_fold is not None and watch == by_fold
    return OptunaPruner(lambda: pruner_of(name, chosen, max_budget), direction, watch, by_fold=folds)


def decides_at(name: str, *, max_budget: int, **settings: Any) -> tuple[int, ...]:
    """The budgets at which `build`'s scheduler decides, for trainers that measure the score there and at the end only;
    none where it looks at every report. Arguments are those of `build`.
    """
    chosen = _complete(settings)
    if scheduler_name(name) not in _DECIDE_AT_RUNGS:
        return ()
    if chosen["grace"] == AUTO:
        return ladder_of(max_budget, chosen["eta"])
    return rungs(chosen["grace"], chosen["eta"], max_budget)


def _complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    for name in settings:
        if name not in DEFAULTS:
            raise InputError(f"scheduler: unknown setting {name!r}; {nearest(name, DEFAULTS)}")
    return {**DEFAULTS, **settings}


def _asha(chosen: Mapping[str, Any], direction: str, max_budget: int, say: Callable[[str], None]) -> TrialScheduler:
    grace, eta = chosen["grace"], chosen["eta"]
    if grace == AUTO:
        return MeasuredAsha(direction, max_budget, eta, min_results=chosen["min_results"], say=say)
    at = rungs(grace, eta, max_budget)
    if chosen["promote"]:
        return PausingAsha(direction, at, eta)
    return Asha(direction, at, eta, chosen["min_results"])


def _watched(told: str | None, usual: str | None) -> str | None:
    if told is None:
        return usual
    return None if told == SCORE else told
