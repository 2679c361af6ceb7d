"""Standardisation, of training rows only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Scaler:
    """Means and population standard deviations of the rows it was fitted on; of a constant column the scale is 0.

    Attributes:
        mean: ``(d,)`` float64, or ``()`` of a target.
        scale: the same shape.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray) -> Scaler:
        """Of ``(n, d)`` features or an ``(n,)`` target: training rows, and no others.

        Raises:
            ValueError: there are no rows.
        """
        if not len(x):
            raise ValueError("a scaler needs at least one row")
        x = np.asarray(x, dtype=np.float64)
        constant = (x == x[0]).all(axis=0)  # a standard deviation of equal values need not round to 0
        return cls(np.where(constant, x[0], x.mean(axis=0)), np.where(constant, 0.0, x.std(axis=0)))

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Standardised, float32; constant columns are 0 whatever they hold."""
        divisor = np.where(self.scale > 0, self.scale, 1.0)
        return ((np.asarray(x, dtype=np.float64) - self.mean) / divisor * (self.scale > 0)).astype(np.float32)

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """Back in the original unit, float64; constant columns are what they were."""
        return np.asarray(z, dtype=np.float64) * self.scale + self.mean

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Scaler:
        """What `as_dict` wrote."""
        return cls(np.asarray(told["mean"], dtype=np.float64), np.asarray(told["scale"], dtype=np.float64))
