"""What rows say: means with bootstrap intervals over tasks and seeds, paired differences, shares of wall time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 4000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95% interval. `n` is the number of runs (of pairs, where it is a difference)."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def common(*values: Mapping[tuple[str, int], object]) -> tuple[list[str], list[int]]:
    """The tasks and the seeds of which every mapping (by task and seed) has all pairs: all tasks that each of them has
    anything of, and the seeds that none of these lacks; nothing where there are none.
    """
    tasks = sorted(set.intersection(*({task for task, _ in one} for one in values)))
    seeds = {seed for one in values for _, seed in one}
    whole = sorted(seed for seed in seeds if all((task, seed) in one for one in values for task in tasks))
    return tasks, whole if tasks else []


def table(
    values: Mapping[tuple[str, int], float | np.ndarray], tasks: Sequence[str], seeds: Sequence[int]
) -> np.ndarray:
    """Values as an array, shape (tasks, seeds, length of a value)."""
    return np.array([[np.atleast_1d(values[task, seed]) for seed in seeds] for task in tasks], float)


def estimate(statistic: Callable[..., float], *arrays: np.ndarray, seed: int = 0) -> Estimate:
    """A statistic of arrays of shape (tasks, seeds, ...), which are paired, with its percentile bootstrap interval.

    Tasks are drawn with replacement and, within each, seeds: runs of one task are alike, so an interval over runs as if
    they were independent would be too narrow. `statistic` is given arrays of shape (tasks * seeds, ...).
    """
    n_tasks, n_seeds = arrays[0].shape[:2]
    rng, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        rows = rng.integers(n_tasks, size=(n_tasks, 1))
        columns = rng.integers(n_seeds, size=(n_tasks, n_seeds))
        found.append(statistic(*(_flat(one[rows, columns]) for one in arrays)))
    low, high = np.percentile(found, (2.5, 97.5), method="nearest")
    return Estimate(statistic(*(_flat(one) for one in arrays)), float(low), float(high), n_tasks * n_seeds)


def mean(values: np.ndarray) -> float:
    """The mean of everything."""
    return float(values.mean())


def difference(values: np.ndarray, others: np.ndarray) -> float:
    """The mean of `values` less that of `others`, pair by pair."""
    return float((values - others).mean())


def time_to_reach(curves: np.ndarray, times: np.ndarray, target: float) -> float:
    """The first of `times`, shape (t,), at which the mean of curves, shape (runs, t), is at or below a target;
    infinity where it is at none.
    """
    reached = np.flatnonzero(curves.mean(axis=0) <= target)
    return float(times[reached[0]]) if len(reached) else math.inf


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *values.shape[2:])
