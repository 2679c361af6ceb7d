"""Results of one study on the scale of another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tune_lora.store import Direction


def quantiles(values: Sequence[float], direction: Direction) -> NDArray[np.float64]:
    """Where each result stands among its own: above 0 for the best, below 1 for the worst; ties share the middle."""
    signed = np.asarray(values, dtype=float) * (1 if direction == "minimize" else -1)
    _, places, counts = np.unique(signed, return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - counts / 2  # in ranks, of each distinct value
    return np.asarray(middles[places] / max(len(values), 1), dtype=float)


def as_own(shares: NDArray[np.float64], own: Sequence[float], direction: Direction) -> list[float]:
    """Results at these quantiles (0: the best) of a study's own results.

    Linear between the own results in order, so the order is kept and no carried result is better than the best that was
    measured here, nor worse than the worst. While the own results have no spread (none, one, all alike) their order is
    all that a carried result can tell: they stand around what is there, a unit apart from best to worst.
    """
    sign = 1.0 if direction == "minimize" else -1.0
    signed = np.sort(np.asarray(own, dtype=float) * sign)
    if len(signed) < 2 or signed[0] == signed[-1]:
        middle = float(signed[0]) if len(signed) else 0.0
        return [float(sign * (middle + share - 0.5)) for share in shares]
    return [float(sign * value) for value in np.quantile(signed, shares)]
