"""What an Optuna study says, as the predictive sampler learns from it. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

Horizon = Callable[[Mapping[str, Any]], int]
"""The longest budget of a trial with the given parameters."""

MARKS = (1 / 9, 1 / 3)
"""Shares of the longest budget at which a curve is read, besides where it stands now. Below the first, the order of
trials says little about the end."""
FAILED = "failed"
"""User attribute of a trial that was told as PRUNED: whether it failed through its configuration."""
TRIED = "tried"
"""User attribute of a trial: its parameters with those that lie outside the space, which Optuna cannot hold."""
REPORTS = 500
"""Reports of one trial that are looked at."""
LATER = 1.5
"""The newest report is read too where its budget is that many times the last one read."""


@dataclass(frozen=True)
class Observed:
    """One trial: its parameters, its curve (higher is better) by budget, and whether it still runs or failed."""

    params: Mapping[str, Any]
    curve: Mapping[int, float]
    runs: bool
    failed: bool
    horizon: int | None


def observe(
    trials: Iterable[FrozenTrial],
    direction: StudyDirection,
    horizon: Horizon | None,
    needed: frozenset[str] = frozenset(),
) -> list[Observed]:
    """The trials that tell something.

    A pruned one that is marked `FAILED` failed through its configuration; so did one without any value, where nobody
    says whether it did. FAIL is somebody else's fault and tells nothing; nor does one that lacks a `needed` parameter.
    """
    sign = -1.0 if direction == StudyDirection.MINIMIZE else 1.0
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    told = (trial for trial in trials if trial.state in states)
    known = (trial for trial in told if needed <= {*trial.user_attrs.get(TRIED, {}), *trial.params})
    return [_observed(trial, sign, horizon) for trial in known]


def _observed(trial: FrozenTrial, sign: float, horizon: Horizon | None) -> Observed:
    reports = trial.intermediate_values
    steps = _spread(sorted(reports))
    curve = {step: sign * reports[step] for step in steps if math.isfinite(reports[step])}
    params = trial.user_attrs.get(TRIED, trial.params)
    end = horizon(params) if horizon is not None else None
    complete = trial.state == TrialState.COMPLETE
    if complete and trial.value is not None and math.isfinite(trial.value):
        end = max(curve, default=None) if end is None else end
        curve = {step: value for step, value in curve.items() if end is not None and step < end}
        curve |= {FINAL: sign * trial.value}
    failed = trial.state == TrialState.PRUNED and trial.user_attrs.get(FAILED, not curve)
    curve = {} if failed else curve
    return Observed(params, dict(sorted(curve.items())), trial.state == TrialState.RUNNING, failed, end)


def _spread(steps: Sequence[int]) -> Sequence[int]:
    """At most `REPORTS` budgets of a curve, as even as can be, the newest among them."""
    if len(steps) <= REPORTS:
        return steps
    return [steps[(index + 1) * len(steps) // REPORTS - 1] for index in range(REPORTS)]


FINAL = 10**9
"""Stands for the budget at which a complete trial ended."""


def longest(observed: Sequence[Observed]) -> int:
    """The longest budget that any trial has or was seen at."""
    seen = [budget for one in observed for budget in one.curve if budget != FINAL]
    return max([*seen, *(one.horizon for one in observed if one.horizon is not None)], default=1)


def time_of(budget: float, longest_budget: int) -> float:
    """A budget on a logarithmic scale: 0 is the first, 1 the longest."""
    return 1.0 if longest_budget <= 1 else min(1.0, max(0.0, math.log(budget) / math.log(longest_budget)))


def read(one: Observed, longest_budget: int) -> list[tuple[float, float]]:
    """(time, score) of the reports of a curve that are worth a row in the model."""
    budgets = [one.horizon or longest_budget if budget == FINAL else budget for budget in one.curve]
    curve = dict(zip(budgets, one.curve.values(), strict=True))
    chosen = [min((b for b in curve if b >= mark * longest_budget), default=None) for mark in MARKS]
    taken = sorted({budget for budget in chosen if budget is not None})
    newest = max(curve, default=0)
    if newest and (not taken or newest > LATER * taken[-1] or FINAL in one.curve):
        taken.append(newest)
    return [(time_of(budget, longest_budget), curve[budget]) for budget in dict.fromkeys(taken)]


def thinned(scores: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    """Which rows to keep where there are too many: the better half of them, and of the rest an even choice."""
    if len(scores) <= most:
        return np.arange(len(scores))
    order = np.argsort(-scores, kind="stable")
    best, rest = order[: most // 2], order[most // 2 :]
    return np.sort(np.append(best, rest[np.linspace(0, len(rest) - 1, most - most // 2).astype(int)]))
