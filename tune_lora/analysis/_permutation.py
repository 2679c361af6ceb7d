"""Which of several groups of columns go with an outcome, by permutation: no claim without a stated rate of error.

Freedman and Lane's scheme (1983): what is known already is taken out of the outcome, its residuals are shuffled, and
the smallest p of all groups is compared with the smallest p of each shuffle (Westfall and Young), so that one group or
more is named in at most `LEVEL` of all studies in which none has an effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution
from scipy.stats import norm, rankdata

Array = NDArray[np.float64]

LEVEL = 0.05
"""Share of studies without any effect in which one is claimed."""
SHUFFLES = 999
LEAST_FREE = 8
"""Degrees of freedom of the residuals below which nothing is tested."""


@dataclass(frozen=True)
class Effect:
    """A group that goes with the outcome: the share of its variance that it adds, and the p of that, corrected for
    having looked at all groups."""

    name: str
    share: float
    p: float


def normal_scores(standing: Array) -> Array:
    """Van der Waerden's scores of an outcome (n,), ties at their mean: one wild value moves nothing."""
    return np.asarray(norm.ppf(rankdata(standing) / (len(standing) + 1)), dtype=float)


def told_apart(
    outcome: Array, groups: Mapping[str, Array], known: Array | None = None, *, seed: int = 0
) -> list[Effect]:
    """The groups of columns (n, k) that go with `outcome` (n,), strongest first: one is taken in as long as it is told
    apart from chance given those before it. `known` (n, m) are columns that are taken for granted.

    Empty where there are too few rows, or where the outcome is the same everywhere.
    """
    base = _basis(np.column_stack([np.ones(len(outcome)), *([] if known is None else [known])]))
    left, found = dict(groups), []
    total = float(np.sum((outcome - outcome.mean()) ** 2)) if len(outcome) else 0.0
    shuffle = np.random.default_rng(seed)
    while left and total > 0:
        step = _strongest(outcome, base, left, shuffle)
        if step is None or step[2] > LEVEL:
            break
        name, gained, p = step
        found.append(Effect(name, gained / total, p))
        base = _basis(np.column_stack([base, left.pop(name)]))
    return found


def can_tell(rows: int, groups: Mapping[str, Array], known: Array | None = None) -> bool:
    """Whether there are rows enough to test the widest group."""
    width = 1 + (0 if known is None else known.shape[1])
    return rows - width - max((columns.shape[1] for columns in groups.values()), default=0) >= LEAST_FREE


def _strongest(
    outcome: Array, base: Array, groups: Mapping[str, Array], shuffle: np.random.Generator
) -> tuple[str, float, float] | None:
    """Name, sum of squares that it adds, and corrected p of the strongest group."""
    rest = outcome - base @ (base.T @ outcome)
    bases = {name: _basis(columns - base @ (base.T @ columns)) for name, columns in groups.items()}
    bases = {name: own for name, own in bases.items() if own.shape[1]}
    free = len(outcome) - base.shape[1]
    if not bases or free - max(own.shape[1] for own in bases.values()) < LEAST_FREE or not rest.any():
        return None
    shuffled = shuffle.permuted(np.tile(rest, (SHUFFLES, 1)), axis=1).T
    tried = np.column_stack([rest, shuffled - base @ (base.T @ shuffled)])
    left = np.sum(tried**2, axis=0)
    gained = {name: np.sum((own.T @ tried) ** 2, axis=0) for name, own in bases.items()}
    ps = {name: _tail(gained[name], left, bases[name].shape[1], free) for name in bases}
    best = min(ps, key=lambda name: float(ps[name][0]))
    smallest = np.min(np.stack(list(ps.values())), axis=0)
    p = float(np.mean(smallest <= smallest[0] * (1 + 1e-9)))  # the study itself is one of the shuffles
    return best, float(gained[best][0]), p


def _tail(gained: Array, left: Array, width: int, free: int) -> Array:
    ratio = (gained / width) / np.maximum((left - gained) / (free - width), 1e-12 * np.maximum(left, 1e-300))
    return np.asarray(f_distribution.sf(ratio, width, free - width), dtype=float)


def _basis(columns: Array) -> Array:
    """An orthonormal basis (n, rank) of the columns' span."""
    if not columns.shape[1]:
        return columns
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, values > 1e-9 * max(float(values.max(initial=0.0)), 1e-9)], dtype=float)
