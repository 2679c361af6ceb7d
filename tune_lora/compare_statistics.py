"""Whether two groups of trials lie in the same place: differences with intervals, permutation tests, and equivalence.

Pure. "Not told apart" is not "the same": two small studies are never told apart. A difference is called *none* where
its whole 90% interval lies within a margin (two one-sided tests at 5%, Schuirmann 1987), *real* where the permutation
test tells it from chance and the interval does not fit in the margin, and *open* otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

Array = np.ndarray
Call = Literal["none", "real", "open"]
LEVEL = 0.05
CONFIDENCE = 0.9
MARGIN = 0.2
"""Of a number's range: best regions whose centres lie nearer than that are the same for whoever picks a value."""
CHOICE_MARGIN = 0.3
"""The same of how often a choice is among the best."""
PERMUTATIONS = 2_000


@dataclass(frozen=True)
class Difference:
    """Second minus first, with its interval and what `first` and `second` are; `p` by permutation, two-sided."""

    first: float
    second: float
    low: float
    high: float
    p: float
    call: Call

    @property
    def size(self) -> float:
        """Second minus first."""
        return self.second - self.first


def of_numbers(
    first: Sequence[float], second: Sequence[float], margin: float = MARGIN, level: float = LEVEL
) -> Difference:
    """The difference of two means: Welch's interval, and a permutation test. At least two values each."""
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    parts = one.var(ddof=1) / len(one), two.var(ddof=1) / len(two)
    error = float(np.sqrt(sum(parts)))
    size = float(two.mean() - one.mean())
    reach = 0.0
    if error > 0:
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(one) - 1) + parts[1] ** 2 / (len(two) - 1))
        reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    p = permuted(np.concatenate([one, two]), len(one), lambda a, b: np.abs(a.mean(axis=-1) - b.mean(axis=-1)))
    low, high = size - reach, size + reach
    return Difference(float(one.mean()), float(two.mean()), low, high, p, call(low, high, p, margin, level))


def of_choices(first: Sequence[Any], second: Sequence[Any], level: float = LEVEL) -> tuple[Any, Difference]:
    """The choice whose share differs most between two groups, and that difference. All choices must agree within the
    margin for none; the test is corrected for their number.

    Source of the interval: Agresti and Caffo, The American Statistician 54 (2000), two trials added to each group.
    """
    choices = list(dict.fromkeys([*first, *second]))
    found = [(choice, _of_choice([x == choice for x in first], [x == choice for x in second])) for choice in choices]
    corrected = [(choice, _judged(one, level / len(choices))) for choice, one in found]
    order: tuple[Call, ...] = ("real", "open", "none")
    return min(corrected, key=lambda pair: (order.index(pair[1].call), -abs(pair[1].size)))


def _of_choice(first: Sequence[bool], second: Sequence[bool]) -> Difference:
    shares = [(sum(group) + 1) / (len(group) + 2) for group in (first, second)]
    error = np.sqrt(sum(p * (1 - p) / (len(g) + 2) for p, g in zip(shares, (first, second), strict=True)))
    reach = float(stats.norm.ppf((1 + CONFIDENCE) / 2) * error)
    size = shares[1] - shares[0]
    p = float(stats.fisher_exact([[sum(g), len(g) - sum(g)] for g in (first, second)])[1])
    means = [float(np.mean(group)) for group in (first, second)]
    return Difference(means[0], means[1], size - reach, size + reach, p, "open")


def _judged(one: Difference, level: float) -> Difference:
    found = call(one.low, one.high, one.p, CHOICE_MARGIN, level)
    return Difference(one.first, one.second, one.low, one.high, one.p, found)


def call(low: float, high: float, p: float, margin: float, level: float = LEVEL) -> Call:
    """Whether a difference is none, real or open."""
    if -margin < low and high < margin:
        return "none"
    return "real" if p < level else "open"


def apart(distances: Array, n_first: int) -> float:
    """The permutation p of two groups of points lying in the same place, by the energy statistic (Szekely and Rizzo
    2004) of their distances ``(n, n)``; the first group's points come first."""
    rng, n = np.random.default_rng(0), len(distances)

    def energy(rows: Array) -> float:
        one, two = rows[:n_first], rows[n_first:]
        between = distances[np.ix_(one, two)].mean()
        return float(2 * between - distances[np.ix_(one, one)].mean() - distances[np.ix_(two, two)].mean())

    seen = energy(np.arange(n))
    larger = sum(energy(rng.permutation(n)) >= seen - 1e-12 for _ in range(PERMUTATIONS))
    return (larger + 1) / (PERMUTATIONS + 1)


def permuted(values: Array, n_first: int, statistic: Callable[[Array, Array], Array]) -> float:
    """The share of random divisions of `values` that are as far apart as the given one, itself counted."""
    rng = np.random.default_rng(0)
    shuffled = rng.permuted(np.tile(values, (PERMUTATIONS, 1)), axis=1)
    seen = float(statistic(values[:n_first], values[n_first:]))
    larger = np.sum(statistic(shuffled[:, :n_first], shuffled[:, n_first:]) >= seen - 1e-12)
    return float((larger + 1) / (PERMUTATIONS + 1))


def same_distribution(first: Sequence[float], second: Sequence[float]) -> float:
    """The permutation p of two samples being of one distribution, by the largest gap of their distribution functions
    (Kolmogorov and Smirnov)."""
    values = np.concatenate([np.asarray(first, dtype=float), np.asarray(second, dtype=float)])
    rng, n = np.random.default_rng(0), len(first)
    ranks = stats.rankdata(values, method="max").astype(int) - 1
    shuffled = np.vstack([ranks, rng.permuted(np.tile(ranks, (PERMUTATIONS, 1)), axis=1)])
    order = np.argsort(shuffled, axis=1, kind="stable")
    is_first = order < n
    ends = np.unique(ranks)
    gaps = np.abs(np.cumsum(is_first, axis=1) / n - np.cumsum(~is_first, axis=1) / (len(values) - n))[:, ends].max(
        axis=1
    )
    return float((np.sum(gaps[1:] >= gaps[0] - 1e-12) + 1) / len(gaps))


def rank_agreement(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Spearman's coefficient of two lists of numbers about the same things, and the one-sided permutation p of it being
    no more than chance."""
    one, two = stats.rankdata(first), stats.rankdata(second)
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return 0.0, 1.0
    seen = float(np.corrcoef(one, two)[0, 1])
    shuffled = np.random.default_rng(0).permuted(np.tile(two, (PERMUTATIONS, 1)), axis=1)
    centred = (shuffled - two.mean()) @ (one - one.mean())
    drawn = centred / (len(one) * one.std() * two.std())
    return seen, float((np.sum(drawn >= seen - 1e-12) + 1) / (PERMUTATIONS + 1))
