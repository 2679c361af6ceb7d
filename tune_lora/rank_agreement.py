"""How far two orders agree, and raters with themselves and each other. Pure.

Intervals are Fisher's, with the standard errors of Bonett and Wright (Psychometrika 65, 2000): of Spearman's
coefficient sqrt((1 + r^2/2) / (n - 3)), of Kendall's sqrt(0.437 / (n - 4)), on the scale of atanh.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from scipy import stats

ENOUGH = 8
"""Trials below which a rank correlation is not told: its interval is wider than half of what is possible."""
_SIGMAS = 1.6449  # 90%
_SIDE_IS_SUSPICIOUS = 0.02  # the probability of such a preference for one side by chance

Pair = tuple[int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Correlation:
    """A coefficient from -1 to 1 with its 90% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """Rank correlations of two orders of `n` things; both None where there are too few of them, or all are equal in
    one of the orders."""

    n: int
    spearman: Correlation | None = None
    kendall: Correlation | None = None

    @property
    def verdict(self) -> str:
        """In words: ``agree``, ``disagree``, ``not told apart from chance``, ``too few to say``."""
        if self.spearman is None:
            return "too few to say"
        if self.spearman.low > 0:
            return "agree"
        return "disagree" if self.spearman.high < 0 else "not told apart from chance"


@dataclass(frozen=True)
class Consistency:
    """How far raters can be relied on.

    `same` of `repeated` pairs that a rater saw again were answered as before; `alike` of `shared` pairs that two raters
    saw were answered alike. `left` and `right` count answers by the side that was preferred.
    """

    repeated: int
    same: int
    shared: int
    alike: int
    left: int
    right: int

    @property
    def prefers_a_side(self) -> bool:
        """Whether one side was preferred more often than chance does, though sides are drawn."""
        told = self.left + self.right
        return told > 0 and float(stats.binomtest(self.left, told).pvalue) < _SIDE_IS_SUSPICIOUS


def agreement(pairs: Sequence[tuple[float, float]]) -> Agreement:
    """How far the first numbers of pairs are ordered as the second ones."""
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    if len(pairs) < ENOUGH or len(set(first)) < 2 or len(set(second)) < 2:
        return Agreement(len(pairs))
    rho, tau = float(stats.spearmanr(first, second).statistic), float(stats.kendalltau(first, second).statistic)
    errors = math.sqrt((1 + rho**2 / 2) / (len(pairs) - 3)), math.sqrt(0.437 / (len(pairs) - 4))
    return Agreement(len(pairs), _with_interval(rho, errors[0]), _with_interval(tau, errors[1]))


def _with_interval(value: float, error: float) -> Correlation:
    bent = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, value)))
    return Correlation(value, math.tanh(bent - _SIGMAS * error), math.tanh(bent + _SIGMAS * error))


def consistency(answers: Iterable[tuple[str, Pair, int | None, str]]) -> Consistency:
    """Of answers in order: (rater, pair, the preferred trial or None, the side or ``tie``). An answer is held against
    the same rater's first one to that pair, and first answers of raters against each other."""
    mine: dict[Pair, dict[str, list[int | None]]] = defaultdict(lambda: defaultdict(list))
    sides: list[str] = []
    for rater, pair, preferred, side in answers:
        mine[pair][rater].append(preferred)
        sides.append(side)
    again = [(said[0], later) for by_rater in mine.values() for said in by_rater.values() for later in said[1:]]
    firsts = [[said[0] for said in by_rater.values()] for by_rater in mine.values()]
    both = [(one, other) for said in firsts for at, one in enumerate(said) for other in said[at + 1 :]]
    return Consistency(
        repeated=len(again),
        same=_alike(again),
        shared=len(both),
        alike=_alike(both),
        left=sides.count("left"),
        right=sides.count("right"),
    )


def _alike(answers: Iterable[tuple[T, T]]) -> int:
    return sum(one == other for one, other in answers)
