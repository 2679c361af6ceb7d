"""How good a model is on rows it did not see, and the one number that trials are compared by. Pure NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

HIGHER_IS_BETTER = frozenset({"exp_r2", "sol_f1", "sol_recall", "sol_accuracy"})


@dataclass(frozen=True)
class ScoreWeights:
    """Of the four terms of the score (SPEC.md section 2)."""

    exp_mae: float = 1.5
    sol_f1: float = 2.0
    sol_recall: float = 1.5
    stage1_mae: float = 0.1


def of_values(told: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """`exp_mae` and `exp_rmse` in the value's unit, and `exp_r2`, absent where the true values do not vary."""
    error = told - true
    found = {"exp_mae": float(np.abs(error).mean()), "exp_rmse": float(np.sqrt(np.square(error).mean()))}
    varied = float(np.square(true - true.mean()).sum())
    return found | ({"exp_r2": 1 - float(np.square(error).sum()) / varied} if varied > 0 else {})


def of_labels(told: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """`sol_f1`, `sol_recall` and `sol_accuracy` of booleans. Where there was nothing to find, recall is 1, and so is F1
    if nothing was found."""
    hits, wanted, found = int((told & true).sum()), int(true.sum()), int(told.sum())
    return {
        "sol_f1": 2 * hits / (wanted + found) if wanted + found else 1.0,
        "sol_recall": hits / wanted if wanted else 1.0,
        "sol_accuracy": float((told == true).mean()),
    }


def score(metrics: Mapping[str, float], weights: ScoreWeights) -> float:
    """``1.5 exp_mae + 2 (1 - sol_f1) + 1.5 (1 - sol_recall) + 0.1 stage1_mae``, lower is better; without labels the two
    terms in the middle are absent."""
    total = weights.exp_mae * metrics["exp_mae"] + weights.stage1_mae * metrics["stage1_mae"]
    if "sol_f1" in metrics:
        total += weights.sol_f1 * (1 - metrics["sol_f1"]) + weights.sol_recall * (1 - metrics["sol_recall"])
    return total
