"""Standardised numbers, lane by lane: means and deviations of the rows that a lane trains on, of no others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainables.tables import Scaler

LIMIT = 10.0
"""Standardised inputs stay within so many deviations: a column that hardly varied among the training rows would
otherwise outweigh all others in a row where it does."""


@dataclass(frozen=True, eq=False)
class Scales:
    """``(K, d)`` means and deviations."""

    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def fit(
        cls, values: np.ndarray, rows: Sequence[np.ndarray], dtype: torch.dtype, constant: float = math.inf
    ) -> Scales:
        """Of each lane's rows of ``(n, d)`` values. The deviation of a constant column is `constant`; if infinite, it
        becomes 0."""
        fitted = [Scaler.fit(values[mine]) for mine in rows]
        scales = np.stack([one.scale for one in fitted])
        return cls(
            torch.from_numpy(np.stack([one.mean for one in fitted])).to(dtype),
            torch.from_numpy(np.where(scales > 0, scales, constant)).to(dtype),
        )

    def of(self, lanes: Sequence[int]) -> Scales:
        """Those of some lanes."""
        return Scales(self.mean[list(lanes)], self.scale[list(lanes)])


def standardised(x: torch.Tensor, scales: Scales) -> torch.Tensor:
    """``(K, B, d)`` inputs on the lanes' scales."""
    return ((x - scales.mean.unsqueeze(1)) / scales.scale.unsqueeze(1)).clamp_(-LIMIT, LIMIT)


def joined(parts: Sequence[Scales]) -> Scales:
    """Lanes one after the other."""
    return Scales(torch.cat([part.mean for part in parts]), torch.cat([part.scale for part in parts]))
