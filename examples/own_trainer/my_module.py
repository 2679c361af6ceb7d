"""A trainer of one's own in one file: softmax regression on scikit-learn's handwritten digits, in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from trainables.protocol import Report

PATIENCE = 5
"""Epochs without a better validation loss, then a trial ends by itself."""


def train(params, trial) -> Iterator[Report]:
    """One Report an epoch. `params` are the values that the search chose, `trial` says where, with which seed, and how
    far."""
    pixels, labels = _digits()
    training, held_out = slice(0, 1200), slice(1200, None)
    weights, velocity, best, waited = _begin_or_restore(trial.restore)
    for epoch in range(trial.done + 1, trial.horizon + 1):
        # Random numbers from seed and epoch alone: a trial that goes on after a restart is the same trial.
        order = np.random.default_rng([trial.seed, epoch]).permutation(1200)
        for batch in np.array_split(order, 1200 // params["batch_size"]):
            slope = _slope(weights, pixels[batch], labels[batch]) + params["weight_decay"] * weights
            velocity = params["momentum"] * velocity - params["learning_rate"] * slope
            weights = weights + velocity
        measured = {
            "val_loss": _loss(weights, pixels[held_out], labels[held_out]),
            "val_acc": float(np.mean((pixels[held_out] @ weights).argmax(1) == labels[held_out])),
            "train_loss": _loss(weights, pixels[training], labels[training]),
        }
        best, waited = (measured["val_loss"], 0) if measured["val_loss"] < best else (best, waited + 1)
        yield Report(epoch, measured, save=partial(_save, weights=weights, velocity=velocity, best=best, waited=waited))
        if waited >= PATIENCE:
            return  # the rest of the budget is not spent


train.metrics = ["val_loss", "val_acc", "train_loss"]


def _digits():
    """Pixels with a column of ones (rows, 65), and labels (rows,)."""
    digits = load_digits()
    return np.hstack([digits.data / 16, np.ones((len(digits.data), 1))]), digits.target


def _probabilities(weights, pixels):
    scores = pixels @ weights
    odds = np.exp(scores - scores.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def _loss(weights, pixels, labels) -> float:
    chosen = _probabilities(weights, pixels)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def _slope(weights, pixels, labels):
    return pixels.T @ (_probabilities(weights, pixels) - np.eye(10)[labels]) / len(labels)


def _save(folder: Path, **state) -> None:
    """Writes all that is needed to go on from here."""
    np.savez(folder / "state.npz", **state)


def _begin_or_restore(folder: Path | None):
    if folder is None:
        return np.zeros((65, 10)), np.zeros((65, 10)), np.inf, 0
    state = np.load(folder / "state.npz", allow_pickle=False)
    return state["weights"], state["velocity"], float(state["best"]), int(state["waited"])
