"""A grace period that is measured: the smallest rung at which trials stand in the order in which they end. Pure.

A rung whose scores have a rank correlation with the final score below 0.7 stops good trials (docs/schedulers.md has the
figures). Before anything is known, the grace period is a fixed share of the longest budget. It goes down when a lower
rung is shown to be good enough, and up when the present one is shown not to be; chance has to be excluded either way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from tune_lora.scheduler.reports import Key
from tune_lora.scheduler.rungs import rungs

ENOUGH = 0.7
"""Rank correlation with the final score from which a rung may stop trials."""
PAIRS = 8
"""Trials below which a correlation says nothing."""
SURE = 0.674
"""Standard errors that a correlation must lie above or below `ENOUGH`: three in four."""
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
    """A rank correlation over `pairs` trials, and the bounds it lies between in most cases."""

    correlation: float
    low: float
    high: float
    pairs: int


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
    narrowing = _narrowing(early, both)
    error = SURE * math.sqrt((1 + found**2 / 2) / (len(both) - 3))
    low, high = (math.tanh(math.atanh(found) + side * error) for side in (-1, 1))
    found, low, high = (_widened(bound, narrowing) for bound in (found, low, high))
    return Agreement(found, low, high, len(both))


def measure(
    candidates: Sequence[int], start: int, at_rungs: Mapping[int, Scores], finals: Scores, ladder: Sequence[int] = ()
) -> Grace:
    """The grace period that the trials so far speak for.

    The smallest candidate that is shown to agree with the end, if it is not above `start`; else `start`, or the first
    candidate above it that is not shown to disagree, the highest where all are. A rung disagrees with the end when it
    is shown to disagree with the final scores or with the next rung of the `ladder`, which more trials reach.
    """
    ascending = sorted(candidates)
    steps = sorted({*ladder, *candidates})
    with_end = {budget: agreement(at_rungs.get(budget, {}), finals) for budget in ascending}
    for budget in ascending:
        found = with_end[budget]
        if budget <= start and found is not None and found.low >= ENOUGH:
            return Grace(budget, f"at budget {budget} trials stand in the order of the end, {_said(found)}")
    why = "nothing is measured yet"
    for budget in (one for one in ascending if one >= start):
        against = _against(budget, steps, at_rungs, with_end[budget])
        if against is None:
            return Grace(budget, why)
        why = f"at budget {budget} trials do not stand in the order of {against}"
    return Grace(ascending[-1] if ascending else start, why)


def _against(
    budget: int, steps: Sequence[int], at_rungs: Mapping[int, Scores], with_end: Agreement | None
) -> str | None:
    """What shows that a rung is too early, in words."""
    if with_end is not None and with_end.high < ENOUGH:
        return f"the end, {_said(with_end)}"
    following = next((step for step in steps if step > budget), None)
    if following is None:
        return None
    with_next = agreement(at_rungs.get(budget, {}), at_rungs.get(following, {}))
    if with_next is not None and with_next.high < ENOUGH:
        return f"budget {following}, {_said(with_next)}"
    return None


def _said(found: Agreement) -> str:
    return (
        f"rank correlation {found.correlation:.2f} (likely {found.low:.2f} to {found.high:.2f}, {found.pairs} trials;"
        f" {ENOUGH} is needed)"
    )


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
