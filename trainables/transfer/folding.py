"""The folds of one trial, trained side by side or one after the other, with the same results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainables.protocol import TrialFailure
from trainables.transfer.judging import ScoreWeights, score
from trainables.transfer.settings import Stage2Settings
from trainables.transfer.stage1 import Encoders
from trainables.transfer.stage2 import Stage2Task, Transfer, nan_of_fold

Measured = dict[int, dict[str, float]]
"""Metrics on a fold's test rows by epoch of stage 2; the last epoch is always among them."""


@dataclass(frozen=True, eq=False)
class Folding:
    """What the folds of a trial have in common. `fold_of` is the fold of each measured row, from 0."""

    x: np.ndarray
    y: np.ndarray
    labels: np.ndarray | None
    fold_of: np.ndarray
    n_folds: int
    settings: Stage2Settings
    weights: ScoreWeights
    seed: int

    def train(
        self, encoders: Encoders, folds: Sequence[int], wanted: Mapping[int, frozenset[int]]
    ) -> list[Measured | TrialFailure]:
        """Trains some folds together; `wanted` are the epochs to measure after, by fold, beside the last. A fold whose
        numbers are not finite is given as its failure; the others do not notice."""
        task = Stage2Task.of_folds(self.x, self.y, self.labels, self.fold_of, folds)
        transfer = Transfer(task, encoders, self.settings, self.seed)
        results: list[Measured | TrialFailure] = [{} for _ in folds]
        active = np.ones(len(folds), dtype=bool)
        for epoch in range(1, self.settings.epochs + 1):
            due = [epoch == self.settings.epochs or epoch in wanted.get(fold, ()) for fold in folds]
            finite = np.isfinite(transfer.train(active))
            measured = transfer.measure() if any(due) else [{} for _ in folds]
            for lane, fold in enumerate(folds):
                result = results[lane]
                if isinstance(result, TrialFailure):
                    continue
                if not finite[lane] or not np.isfinite(list(measured[lane].values())).all():
                    results[lane], active[lane] = nan_of_fold(fold, self.n_folds, epoch), False
                elif due[lane]:
                    result[epoch] = measured[lane] | {"score": score(measured[lane], self.weights)}
            if not active.any():
                break
        return results
