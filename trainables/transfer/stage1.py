"""Stage 1: an encoder and a head learn the computed labels, as many lanes at once as there are different sets of rows
to learn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainables.protocol import Cause, TrialFailure
from trainables.transfer.lanes import AdamW, Masks, padded
from trainables.transfer.scaling import Scales, standardised
from trainables.transfer.settings import Stage1Settings
from trainables.transfer.stack import Mlp, Stack
from trainables.transfer.training import Training

ENCODER, HEAD = "encoder", "chi_head"
_INITIAL, _ORDER = 1, 2
"""Tell the random numbers of a lane's initial weights from those of its epochs."""
_CHUNK = 2048
"""Rows that are predicted at a time."""


@dataclass(frozen=True, eq=False)
class Stage1Task:
    """What stage 1 learns from: all computed rows ``(n, d)`` and ``(n,)``, and for each lane the rows to train on and
    those to judge by (early stopping looks at these alone)."""

    x: np.ndarray
    y: np.ndarray
    train: tuple[np.ndarray, ...]
    held: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class Encoders:
    """What stage 1 left: the kept weights of L lanes, and what they were trained with.

    `maes` is each lane's held-out error in the label's unit; `curve` holds what was measured after each epoch that was
    trained.
    """

    stack: Stack
    inputs: Scales
    target: Scales
    maes: np.ndarray
    curve: tuple[Mapping[str, float], ...]

    def metrics(self, epoch: int) -> dict[str, float]:
        """What was measured after `epoch`, or after the last that was trained."""
        return dict(self.curve[min(epoch, len(self.curve)) - 1])

    @property
    def stage1_mae(self) -> float:
        """Held-out error, the mean over lanes."""
        return float(self.maes.mean())


def networks(inputs: int, settings: Stage1Settings) -> tuple[Mlp, Mlp]:
    """The encoder, and the head of the computed label."""
    return (
        Mlp(
            ENCODER,
            (inputs, *settings.hidden, settings.latent),
            settings.dropout,
            settings.norm,
            settings.input_dropout,
        ),
        Mlp(HEAD, (settings.latent, settings.head_hidden, 1), settings.head_dropout),
    )


class Pretraining:
    """Stage 1 in progress; `state` is all that is needed to continue exactly."""

    def __init__(
        self, task: Stage1Task, settings: Stage1Settings, seed: int, dtype: torch.dtype = torch.float32
    ) -> None:
        self._task, self._settings = task, settings
        lanes = range(len(task.train))
        # The same seed for each lane: what differs between them is their rows, and nothing else.
        self.stack = Stack.fresh(networks(task.x.shape[1], settings), [(seed, _INITIAL)] * len(lanes), dtype)
        self._optimizer = AdamW(self.stack.weights, settings.rate, settings.decay)
        self._training = Training(self.stack, self._optimizer, settings.batch_size, [(seed, _ORDER)] * len(lanes))
        self._x = torch.from_numpy(np.asarray(task.x)).to(dtype)
        self.inputs = Scales.fit(task.x, task.train, dtype)
        self.target = Scales.fit(task.y[:, None], task.train, dtype, constant=1.0)
        self._y = torch.from_numpy(np.asarray(task.y)).to(dtype)
        self.curve: list[dict[str, float]] = []
        self._best_weights, self._best_stats = self.stack.weights.clone(), self.stack.stats.clone()
        self._best, self._waited = np.full(len(lanes), math.inf), np.zeros(len(lanes), dtype=np.int64)

    @property
    def epoch(self) -> int:
        """Epochs that were trained."""
        return len(self.curve)

    def is_done(self) -> bool:
        """Whether there is nothing left to train: the horizon is reached, or every lane has stopped early."""
        return self.epoch >= self._settings.epochs or not self._active().any()

    def _active(self) -> np.ndarray:
        patience = self._settings.patience
        return np.ones(len(self._best), dtype=bool) if not patience else self._waited < patience

    def train(self) -> None:
        """One epoch.

        Raises:
            TrialFailure: the loss of a lane is not finite.
        """
        active = self._active()
        losses = self._training.epoch(self.epoch + 1, self._task.train, active, self._losses)
        maes = self._maes()
        if not np.isfinite(losses[active]).all() or not np.isfinite(maes[active]).all():
            raise TrialFailure(Cause.NAN_LOSS, f"stage 1: loss is not finite at epoch {self.epoch + 1}")
        better = active & (maes < self._best)
        self._keep(better, maes)
        self._waited[active & ~better] += 1
        mae = float(self._best.mean())
        train_loss = float(losses[active].mean())
        self.curve.append({"stage1_mae": mae, "val_loss": mae, "train_loss": train_loss})

    def _keep(self, better: np.ndarray, maes: np.ndarray) -> None:
        chosen = torch.from_numpy(np.flatnonzero(better))
        self._best[better], self._waited[better] = maes[better], 0
        self._best_weights[chosen], self._best_stats[chosen] = self.stack.weights[chosen], self.stack.stats[chosen]

    def _losses(
        self,
        views: Mapping[str, torch.Tensor],
        masks: Masks,
        rows: np.ndarray,
        valid: torch.Tensor,
    ) -> torch.Tensor:
        index = torch.from_numpy(rows)
        latent = self.stack.run(ENCODER, views, standardised(self._x[index], self.inputs), masks[ENCODER], valid)
        told = self.stack.run(HEAD, views, latent, masks[HEAD], valid).squeeze(2)
        wanted = (self._y[index] - self.target.mean) / self.target.scale
        return torch.nn.functional.smooth_l1_loss(told, wanted, reduction="none")

    def _maes(self) -> np.ndarray:
        """Each lane's mean absolute error on the rows held out from it, ``(L,)``, in the label's unit."""
        told = predicted(self.stack, self.inputs, self.target, self._x, self._task.held)
        return np.array(
            [np.abs(mine - self._task.y[rows]).mean() for mine, rows in zip(told, self._task.held, strict=True)]
        )

    def result(self) -> Encoders:
        """The kept weights."""
        stack = Stack(list(self.stack.nets.values()), self._best_weights.clone(), self._best_stats.clone())
        return Encoders(stack, self.inputs, self.target, self._best.copy(), tuple(self.curve))

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and plain data that `restore` reads."""
        tensors = {
            "weights": self.stack.weights,
            "stats": self.stack.stats,
            "mean": self._optimizer.mean,
            "square": self._optimizer.square,
            "steps": self._optimizer.steps,
            "best_weights": self._best_weights,
            "best_stats": self._best_stats,
        }
        best = [None if math.isinf(value) else value for value in self._best.tolist()]
        return tensors, {"curve": self.curve, "best": best, "waited": self._waited.tolist()}

    def restore(self, tensors: Mapping[str, torch.Tensor], more: Mapping[str, Any]) -> None:
        """Continues from what `state` gave."""
        mine, _ = self.state()
        for name, values in mine.items():
            values.copy_(tensors[name])
        self.curve = [dict(point) for point in more["curve"]]
        self._best = np.array([math.inf if value is None else value for value in more["best"]])
        self._waited = np.array(more["waited"], dtype=np.int64)


@torch.no_grad()
def predicted(
    stack: Stack, inputs: Scales, target: Scales, x: torch.Tensor, rows: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The computed label of each lane's rows, in its unit."""
    latents = encoded(stack, stack.views(stack.weights), inputs, x, rows)
    views = stack.views(stack.weights)
    told = stack.run(HEAD, views, latents).squeeze(2) * target.scale + target.mean
    return [told[lane, : len(mine)].double().numpy() for lane, mine in enumerate(rows)]


@torch.no_grad()
def encoded(
    stack: Stack, views: Mapping[str, torch.Tensor], inputs: Scales, x: torch.Tensor, rows: Sequence[np.ndarray]
) -> torch.Tensor:
    """Latents ``(K, most rows, latent)`` of each lane's rows, without dropout, zero-filled rows at the end."""
    index = torch.from_numpy(padded(rows)[0])
    parts = [
        stack.run(ENCODER, views, standardised(x[index[:, start : start + _CHUNK]], inputs))
        for start in range(0, index.shape[1], _CHUNK)
    ]
    return torch.cat(parts, dim=1)
