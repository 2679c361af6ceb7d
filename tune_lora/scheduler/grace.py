"""A grace period that is measured: the smallest rung at which trials stand in the order in which they end. Pure.

A rung whose scores have a rank correlation with the final score below 0.7 stops good trials (docs/schedulers.md has the
figures). Before anything is known, the grace period is a fixed share of the longest budget. It goes down when a lower
rung is shown to be good enough, and up when the present one is shown not to be.

The correlation with the end is the product of those from one rung to the next, the last with the final scores. Measured
at once it would rest on the few trials that passed every rung, the best ones, whose order hardly shows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from tune_lora.scheduler.reports import Key
from tune_lora.scheduler.rungs import rungs

ENOUGH = 0.7
"""Rank correlation with the final score from which a rung may stop trials."""
PAIRS = 8
"""Trials below which a correlation says nothing."""
SURE_TO_LOWER, SURE_TO_RAISE = 0.674, 1.645
"""Standard errors that a correlation must lie above `ENOUGH` for a lower grace period (three in four are right), and
below it for a higher one (19 in 20): what a needless grace period costs is certain."""
SHARE = 6 / 52
"""Of the longest budget: where the grace period starts. Measured on learning curves of 52 epochs."""
_NEARLY_ONE = 1 - 1e-9

Scores = Mapping[Key, float]


@dataclass(frozen=True)
class Grace:
    """No trial is stopped before budget `at`; `why` says what was measured."""

    at: int
    why: str = "nothing is measured yet"


@dataclass(frozen=True)
class Agreement:
    """A rank correlation over `pairs` trials, and the bounds it is likely to lie between."""

    correlation: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return (
            f"rank correlation {self.correlation:.2f} (likely {self.low:.2f} to {self.high:.2f}, {self.pairs} trials;"
            f" {ENOUGH} is needed)"
        )


def start_of(longest: int) -> int:
    """The grace period before anything is known: an eighth or so of the longest budget, and at least 2."""
    return max(2, math.ceil(longest * SHARE))


def ladder_of(longest: int, eta: float) -> tuple[int, ...]:
    """All budgets at which trials may ever be compared, the lowest first; known before the study begins.

    They stand at `start_of`, one step of `eta` below it where that is 2 or more, and upwards below `longest`.
    """
    start = start_of(longest)
    lower = round(start / eta)
    upwards = rungs(start, eta, longest)
    return (lower, *upwards) if 2 <= lower < start and upwards else upwards


def candidates_of(ladder: Sequence[int], start: int, longest: int) -> tuple[int, ...]:
    """Rungs that the grace period may move to: later than halfway there is little left to save."""
    return tuple(budget for budget in ladder if budget == start or budget <= longest / 2)


def agreement(early: Scores, late: Scores) -> Agreement | None:
    """How well the order at a rung is the order later on; None with fewer than `PAIRS` trials, or without an order.

    Trials that went on are the better ones, which hides a correlation; it is corrected for how much narrower they lie
    at the rung than all that came there (Thorndike's case 2, on normal scores). Bounds: Bonett and Wright,
    Sample size requirements for estimating Pearson, Kendall and Spearman correlations, 2000.
    """
    both = [key for key in early if key in late]
    if len(both) < PAIRS:
        return None
    first, second = (_ranks([scores[key] for key in both]) for scores in (early, late))
    if not first.std() or not second.std():
        return None
    found = float(np.corrcoef(first, second)[0, 1])
    found = min(max(found, -_NEARLY_ONE), _NEARLY_ONE)
    error = math.sqrt((1 + found**2 / 2) / (len(both) - 3))
    low = math.tanh(math.atanh(found) - SURE_TO_LOWER * error)
    high = math.tanh(math.atanh(found) + SURE_TO_RAISE * error)
    narrowing = _narrowing(early, both)
    found, low, high = (_widened(bound, narrowing) for bound in (found, low, high))
    return Agreement(found, low, high, len(both))


def chained(links: Sequence[Agreement]) -> Agreement:
    """The agreement of the first rung with the last, from those of each with the next; errors add in quadrature.

    A link that is not shown to be positive makes the lower bound 0.
    """
    product = math.prod(max(link.correlation, 0.0) for link in links)
    pairs = min(link.pairs for link in links)
    high = (
        math.prod(max(link.high, 0.0) for link in links) if not product else product * (1 + _spread(links, above=True))
    )
    low = 0.0 if not product else product * (1 - _spread(links, above=False))
    return Agreement(product, max(low, 0.0), min(high, 1.0), pairs)


def _spread(links: Sequence[Agreement], *, above: bool) -> float:
    ends = ((link.high if above else link.low, link.correlation) for link in links)
    return math.sqrt(sum((end / middle - 1) ** 2 for end, middle in ends))


def measure(candidates: Sequence[int], start: int, at_rungs: Mapping[int, Scores], finals: Scores) -> Grace:
    """The grace period that the trials so far speak for.

    `at_rungs` holds the scores at every rung, `finals` those of complete trials. The answer is the smallest candidate
    up to `start` that is shown to agree with the end; else the first from `start` on that is not shown to disagree,
    the highest where all are.
    """
    ascending = sorted(candidates)
    for budget in (one for one in ascending if one <= start):
        links, reaches_end = _links(budget, at_rungs, finals)
        if reaches_end and (found := chained(links)).low >= ENOUGH:
            return Grace(budget, f"at budget {budget} trials stand in the order of the end, {found}")
    why = "nothing is measured yet"
    for budget in (one for one in ascending if one >= start):
        links, _ = _links(budget, at_rungs, finals)
        if not links or (found := chained(links)).high >= ENOUGH:
            return Grace(budget, why)
        why = f"at budget {budget} trials do not stand in the order of the end, {found}"
    return Grace(ascending[-1] if ascending else start, why)


def _links(budget: int, at_rungs: Mapping[int, Scores], finals: Scores) -> tuple[list[Agreement], bool]:
    """Agreements from one rung to the next, from `budget` on, as far as enough trials came; and whether that is the
    end.
    """
    scores = [at_rungs[budget], *(at_rungs[rung] for rung in sorted(at_rungs) if rung > budget), finals]
    links: list[Agreement] = []
    for early, late in pairwise(scores):
        if (link := agreement(early, late)) is None:
            return links, False
        links.append(link)
    return links, True


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1, ties at their mean."""
    _, place, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _narrowing(early: Scores, both: Sequence[Key]) -> float:
    """How much wider all trials at a rung lie than those that went on; 1 where all did."""
    normal = NormalDist()
    ranks = dict(zip(early, _ranks(list(early.values())), strict=True))
    scores = {key: normal.inv_cdf((rank - 0.5) / len(early)) for key, rank in ranks.items()}
    narrow = float(np.std([scores[key] for key in both]))
    return float(np.std(list(scores.values()))) / narrow if narrow > 0 else 1.0


def _widened(correlation: float, narrowing: float) -> float:
    return correlation * narrowing / math.sqrt(1 - correlation**2 + (correlation * narrowing) ** 2)
