"""Syne Tune's own schedulers on the same clock: ASHA and MOBSTER.

Syne Tune is no dependency: ``make bench-search-deps`` installs the last release that has MOBSTER (0.13), without the
old numpy it pins.
"""

from __future__ import annotations

import datetime
import math
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from benchmarks.search.simulator import Start, Verdict
from benchmarks.search.tasks import EPOCHS, Task

METRIC, RESOURCE, MAX_RESOURCE = "score", "epoch", "epochs"


class SyneMethod:
    """A scheduler of Syne Tune, in the order in which its tuner calls it."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._trials: dict[str, Any] = {}

    def next(self) -> Start | None:
        from syne_tune.backend.trial_status import Trial

        number = len(self._trials)
        suggestion = self.scheduler.suggest(number)
        if suggestion is None:
            return None
        began = datetime.datetime.now(datetime.UTC)
        trial = self._trials[str(number)] = Trial(number, suggestion.config, began)
        self.scheduler.on_trial_add(trial)
        return Start(str(number), {name: value for name, value in suggestion.config.items() if name != MAX_RESOURCE})

    def report(self, trial: str, epoch: int, score: float, final: bool) -> Verdict:
        known, result = self._trials[trial], {METRIC: score, RESOURCE: epoch}
        if math.isnan(score):
            self.scheduler.on_trial_error(known)
            return "stop"
        if final:
            self.scheduler.on_trial_complete(known, result)
        elif self.scheduler.on_trial_result(known, result) != "CONTINUE":
            self.scheduler.on_trial_remove(known)
            return "stop"
        return "continue"


def asha(task: Task, seed: int) -> SyneMethod:
    """ASHA of the stopping kind with the settings of its documentation: grace 1, eta 3."""
    from syne_tune.optimizer.baselines import ASHA

    return SyneMethod(ASHA(_space(task), **_settings(seed)))


def mobster(task: Task, seed: int, *, grace: int) -> SyneMethod:
    """MOBSTER: a Gaussian process over configurations and epochs, and ASHA of the stopping kind, eta 3. Its
    documentation has grace 1; with 6, where our rungs begin, it is both better and faster.
    """
    from syne_tune.optimizer.baselines import MOBSTER

    return SyneMethod(MOBSTER(_space(task), **_settings(seed, grace)))


def _settings(seed: int, grace: int = 1) -> dict[str, Any]:
    return {
        "metric": METRIC, "mode": "max", "resource_attr": RESOURCE, "max_resource_attr": MAX_RESOURCE,
        "type": "stopping", "grace_period": grace, "reduction_factor": 3, "random_seed": seed,
    }  # fmt: skip


def _space(task: Task) -> dict[str, Any]:
    domains = {name: _domain(one) for name, one in task.space.distributions().items()}
    return {**domains, MAX_RESOURCE: EPOCHS}


def _domain(one: BaseDistribution) -> Any:
    from syne_tune.config_space import lograndint, loguniform, randint, uniform

    if isinstance(one, IntDistribution):
        return lograndint(one.low, one.high) if one.log else randint(one.low, one.high)
    if isinstance(one, FloatDistribution):
        return loguniform(one.low, one.high) if one.log else uniform(one.low, one.high)
    raise TypeError(f"got {one!r}; must be a range of numbers")
