"""Geometry of several objectives: which points none is better than, which of them is the fairest trade, how much they
cover.

A point holds one loss an objective; lower is better in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = Sequence[Sequence[float]]

_REACH = 3.0
"""Interquartile ranges beyond the quartiles from which a value says nothing about the others' worth."""
_FARTHEST = 1e100
"""Share of the front's range beyond which distances are not told apart; its square is still a number."""
_MARGIN = 0.1
"""Of each objective's range, between its worst value and the reference: an extreme point covers something too."""


def front(points: Points) -> list[int]:
    """Indices of the points that no other dominates (at least as good everywhere, better somewhere), in order. Of equal
    points all are kept.
    """
    losses = np.asarray(points, dtype=float)
    kept: list[int] = []
    # In lexicographic order only an earlier point can dominate.
    for index in np.lexsort(losses.T[::-1]) if len(losses) else ():
        others, mine = losses[kept], losses[index]
        if not np.any(np.all(others <= mine, axis=1) & np.any(others < mine, axis=1)):
            kept.append(int(index))
    return sorted(kept)


def distances(points: Points) -> list[float]:
    """How far each point is from the best of every objective at once, as the Euclidean distance in shares of the
    front's range (0: best in all). An objective that is the same all over the front counts for nothing on it.
    """
    if not len(points):
        return []
    losses = np.asarray(points, dtype=float)
    on_front = losses[front(points)]
    ideal, span = on_front.min(axis=0), np.ptp(on_front, axis=0)
    with np.errstate(over="ignore"):  # off a front that is next to flat, a point may be farther than a number says
        shares = (losses - ideal) / np.where(span > 0, span, np.maximum(np.ptp(losses, axis=0), 1e-300))
    shares = np.minimum(shares, _FARTHEST)
    return [float(distance) for distance in np.sqrt((shares**2).sum(axis=1))]


def reference(points: Points) -> tuple[float, ...]:
    """The corner from which hypervolumes are measured: the worst value of each objective and a tenth of its range.

    Values far beyond the others (three interquartile ranges, as in pictures) do not count unless they lie on the front:
    one training that exploded would make all differences look small.
    """
    losses = np.asarray(points, dtype=float)
    low, high = np.percentile(losses, [25, 75], axis=0)
    usual = np.where(losses <= high + _REACH * (high - low), losses, -np.inf).max(axis=0)
    worst = np.maximum(usual, losses[front(points)].max(axis=0))
    span = worst - losses.min(axis=0)
    return tuple(float(at) for at in worst + np.where(span > 0, _MARGIN * span, 1.0))


def hypervolume(points: Points, corner: Sequence[float]) -> float:
    """Volume of what the points dominate up to a corner; points beyond the corner cover nothing.

    Exact, by slices along the last objective: the volume of a slice is that of the points in front of it, with one
    objective less, times its thickness.
    """
    losses = np.asarray(points, dtype=float).reshape(-1, len(corner))
    return _volume(losses[np.all(losses < np.asarray(corner), axis=1)], np.asarray(corner, dtype=float))


def _volume(losses: NDArray[np.float64], corner: NDArray[np.float64]) -> float:
    if not len(losses):
        return 0.0
    if len(corner) == 1:
        return float(corner[0] - losses.min())
    losses = losses[np.argsort(losses[:, -1], kind="stable")]
    if len(corner) == 2:  # each slice reaches from the best first objective so far to the corner
        steps = np.minimum.accumulate(losses[:, 0])
        return float((corner[0] - steps) @ np.diff([*losses[:, 1], corner[1]]))
    heights = np.diff([*losses[:, -1], corner[-1]])
    slices = (_volume(losses[: index + 1, :-1], corner[:-1]) for index in range(len(losses)))
    return float(sum(volume * height for volume, height in zip(slices, heights, strict=True)))
