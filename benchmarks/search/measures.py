"""Figures of groups of runs: regret, differences of regret, shares of wall time, each with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.search import statistics
from benchmarks.search.plan import BY_TASK, Group, Plan
from benchmarks.search.runs import Key, Row
from benchmarks.search.statistics import Estimate

STEP = 0.05
"""Of wall time, in full trainings, where a share of it is looked for."""


@dataclass(frozen=True)
class Measures:
    """Rows, and what is asked of them. Every method gives None where the rows are not there."""

    rows: Mapping[Key, Row]
    plan: Plan

    def of(self, group: Group) -> BY_TASK:
        """The group's rows by task and seed."""
        return group.rows(self.rows, self.plan)

    def mean(self, group: Group, what: Callable[[Row], float]) -> Estimate | None:
        """The mean of something over the group's runs."""
        return self._estimate(statistics.mean, (group, what))

    def regret(self, group: Group, budget: int) -> Estimate | None:
        """Mean regret at a budget; None where the group's runs are shorter."""
        if any(row.key.budget < budget for row in self.of(group).values()):
            return None
        return self.mean(group, lambda row: row.regret(budget))

    def gain(self, group: Group, over: Group, budget: int) -> Estimate | None:
        """By how much the group's regret at a budget lies below another's, pair by pair."""
        return self._estimate(
            statistics.difference, (over, lambda row: row.regret(budget)), (group, lambda row: row.regret(budget))
        )

    def wall_share(self, group: Group) -> Estimate | None:
        """The wall time at which the group's mean regret is at or below what one-at-a-time TPE has at the end, as a
        share of TPE's wall time (its budget, on one worker); infinity where it never is.
        """
        last = self.plan.all
        times = np.arange(STEP, 1.1 * last, STEP)  # TPE's trainings take 1 on average, so it ends near its budget

        def share(curves: np.ndarray, ends: np.ndarray) -> float:
            return statistics.time_to_reach(curves, times, float(ends.mean())) / last

        reference = (Group("tpe1"), lambda row: row.regret(last))
        return self._estimate(share, (group, lambda row: _over_time(row, times)), reference)

    def _estimate(
        self, statistic: Callable[..., float], *asked: tuple[Group, Callable[[Row], float | np.ndarray]]
    ) -> Estimate | None:
        found = [{place: what(row) for place, row in self.of(group).items()} for group, what in asked]
        tasks, seeds = statistics.common(*found)
        if not seeds:
            return None
        return statistics.estimate(statistic, *(statistics.table(one, tasks, seeds) for one in found))


def _over_time(row: Row, times: np.ndarray) -> np.ndarray:
    """Regret at wall times (ascending), shape (t,). A run's last regret holds after its end."""
    steps = np.array([step[0] for step in row.trace])
    regrets = np.array([1.0, *(step[2] for step in row.trace)])
    found: np.ndarray = regrets[np.searchsorted(steps, times + 1e-9, side="right")]
    return found


def told(value: float) -> float | None:
    """A figure as it is written down: four digits, None for infinity."""
    return None if math.isinf(value) else float(f"{value:.4g}")
