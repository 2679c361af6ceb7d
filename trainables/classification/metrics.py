"""How good predicted classes are. Pure NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose class is right."""
    return float(np.mean(predicted == labels))


def f1_macro(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the F1 scores of the classes that are there, in the labels or in what was predicted; a class that is
    never right has 0. As scikit-learn's ``f1_score(average="macro", zero_division=0)``."""
    scores = []
    for one in np.union1d(predicted, labels):
        right = np.sum((predicted == one) & (labels == one))
        scores.append(2.0 * right / (np.sum(predicted == one) + np.sum(labels == one)))
    return float(np.mean(scores))


def by_group(predicted: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> dict[str, float]:
    """Accuracy in each group that has rows."""
    names = np.asarray(groups, dtype=object)
    return {name: accuracy(predicted[names == name], labels[names == name]) for name in sorted(set(groups))}


def group_metrics(accuracies: Mapping[str, float]) -> dict[str, float]:
    """``acc_<group>`` of each group and ``worst_group_acc``; empty where there are no groups."""
    if not accuracies:
        return {}
    return {f"acc_{name}": value for name, value in accuracies.items()} | {"worst_group_acc": min(accuracies.values())}
