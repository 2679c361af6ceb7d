"""Stage 2: heads for the measured value and the label on an encoder that stage 1 trained, any number of folds at
once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainables.protocol import Cause, TrialFailure
from trainables.transfer import judging
from trainables.transfer.lanes import AdamW, Masks, padded
from trainables.transfer.scaling import Scales, joined, standardised
from trainables.transfer.settings import Stage2Settings
from trainables.transfer.stack import Mlp, Stack, Views
from trainables.transfer.stage1 import ENCODER, Encoders, encoded, predicted
from trainables.transfer.training import Training

EXP, SOL = "exp_head", "sol_head"
_INITIAL, _ORDER = 3, 4


@dataclass(frozen=True, eq=False)
class Stage2Task:
    """What stage 2 learns from: all measured rows, and for each fold its number (from 0), the rows to train on and the
    rows to test on. `labels` are 0 and 1, or None."""

    x: np.ndarray
    y: np.ndarray
    labels: np.ndarray | None
    folds: tuple[int, ...]
    train: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]

    @classmethod
    def of_folds(
        cls, x: np.ndarray, y: np.ndarray, labels: np.ndarray | None, fold_of: np.ndarray, folds: Sequence[int]
    ) -> Stage2Task:
        """Some folds of a cross-validation."""
        train = tuple(np.flatnonzero(fold_of != fold) for fold in folds)
        return cls(x, y, labels, tuple(folds), train, tuple(np.flatnonzero(fold_of == fold) for fold in folds))


class Transfer:
    """Stage 2 in progress, one lane a fold. What a lane does depends on its fold, the seed and the settings, and not on
    which folds train beside it."""

    def __init__(self, task: Stage2Task, encoders: Encoders, settings: Stage2Settings, seed: int) -> None:
        self.task, self._settings = task, settings
        dtype = encoders.stack.weights.dtype
        # There is one encoder for all folds, or one for each.
        self.lanes_of = [fold if encoders.stack.lanes > 1 else 0 for fold in task.folds]
        self.maes = encoders.maes[self.lanes_of]
        self._x = torch.from_numpy(np.asarray(task.x)).to(dtype)
        self._y = torch.from_numpy(np.asarray(task.y)).to(dtype)
        self._labels = None if task.labels is None else torch.from_numpy(np.asarray(task.labels)).to(dtype)
        self.inputs = encoders.inputs.of(self.lanes_of)
        self.target = Scales.fit(task.y[:, None], task.train, dtype, constant=1.0)
        self._prepare(encoders)
        self.stack = self._stack(encoders, [(seed, _INITIAL, fold) for fold in task.folds])
        self._training = Training(
            self.stack,
            AdamW(self.stack.weights, self._rates(), settings.decay),
            settings.batch_size,
            [(seed, _ORDER, fold) for fold in task.folds],
        )
        self.epoch = 0

    def _prepare(self, encoders: Encoders) -> None:
        """What the heads see of each row, ``(K, m, features)``, on the scale of each fold's training rows; where the
        encoder is trained its part is computed anew in each step, and only scaled alike."""
        frozen = encoders.stack
        everything = [np.arange(len(self.task.y))] * frozen.lanes
        latents = encoded(frozen, frozen.views(frozen.weights), encoders.inputs, self._x, everything)[self.lanes_of]
        seen = [latents]
        if self._settings.sees_prediction:
            told = predicted(frozen, encoders.inputs, encoders.target, self._x, everything)
            seen.append(torch.from_numpy(np.stack(told)).to(latents.dtype)[self.lanes_of].unsqueeze(2))
        self.latent_width = latents.shape[2]
        raw = torch.cat(seen, dim=2)
        self.latents = joined(
            [Scales.fit(raw[lane].numpy(), [rows], raw.dtype) for lane, rows in enumerate(self.task.train)]
        )
        self._seen = standardised(raw, self.latents)

    def _stack(self, encoders: Encoders, seeds: Sequence[Sequence[int]]) -> Stack:
        width, hidden, drop = self._seen.shape[2], self._settings.head_hidden, self._settings.dropout
        heads = [Mlp(EXP, (width, hidden, 1), drop)]
        if self._labels is not None:
            heads.append(Mlp(SOL, (width, hidden, 1), drop))
        if self._settings.frozen:
            return Stack.fresh(heads, seeds, self._x.dtype)
        stack = Stack.fresh([*heads, encoders.stack.nets[ENCODER]], seeds, self._x.dtype)
        learned = encoders.stack.views(encoders.stack.weights)
        for name, values in stack.views(stack.weights).items():
            if name.startswith(ENCODER):
                values.copy_(learned[name][self.lanes_of])
        for name, values in stack.stat_views().items():
            values.copy_(encoders.stack.stat_views()[name][self.lanes_of])
        return stack

    def _rates(self) -> float | torch.Tensor:
        if self._settings.frozen:
            return self._settings.rate
        rates = torch.full(self.stack.weights.shape[1:], self._settings.rate, dtype=self._x.dtype)
        return torch.where(self.stack.places(ENCODER), self._settings.encoder_rate, rates)

    def train(self, active: np.ndarray | None = None) -> np.ndarray:
        """One epoch of the active lanes; returns each lane's mean loss, ``(K,)``."""
        self.epoch += 1
        active = np.ones(len(self.task.folds), dtype=bool) if active is None else active
        return self._training.epoch(self.epoch, self.task.train, active, self._losses)

    def _losses(self, views: Views, masks: Masks, rows: np.ndarray, valid: torch.Tensor) -> torch.Tensor:
        index, settings = torch.from_numpy(rows), self._settings
        seen = self._features(views, index, masks.get(ENCODER), valid)
        told = self.stack.run(EXP, views, seen, masks[EXP], valid).squeeze(2)
        wanted = (self._y[index] - self.target.mean) / self.target.scale
        loss = settings.lambda_exp * torch.nn.functional.smooth_l1_loss(told, wanted, reduction="none")
        if self._labels is None:
            return loss
        logits = self.stack.run(SOL, views, seen, masks[SOL], valid).squeeze(2)
        weight = logits.new_tensor(settings.class_weight_pos)
        of_labels = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, self._labels[index], pos_weight=weight, reduction="none"
        )
        return loss + settings.lambda_sol * of_labels

    def _features(
        self, views: Views, index: torch.Tensor, keep: Mapping[int, torch.Tensor] | None, valid: torch.Tensor | None
    ) -> torch.Tensor:
        """What the heads see, ``(K, B, features)``, of rows ``(K, B)``."""
        # Rows of one long table: copied whole, where indexing lane and row would look each number up.
        lanes, rows, width = self._seen.shape
        places = index + torch.arange(0, lanes * rows, rows).unsqueeze(1)
        seen = self._seen.view(-1, width).index_select(0, places.ravel()).view(*index.shape, width)
        if self._settings.frozen:
            return seen
        latents = self.stack.run(ENCODER, views, standardised(self._x[index], self.inputs), keep, valid)
        width = self.latent_width
        scales = Scales(self.latents.mean[:, :width], self.latents.scale[:, :width])
        return torch.cat([standardised(latents, scales), seen[:, :, width:]], dim=2)

    @torch.no_grad()
    def measure(self) -> list[dict[str, float]]:
        """Each lane's metrics on its test rows, `stage1_mae` included; NaN where its predictions are."""
        index = torch.from_numpy(padded(self.task.test)[0])
        views = self.stack.views(self.stack.weights)
        seen = self._features(views, index, None, None)
        values = (self.stack.run(EXP, views, seen).squeeze(2) * self.target.scale + self.target.mean).double().numpy()
        logits = self.stack.run(SOL, views, seen).squeeze(2).numpy() if self._labels is not None else None
        found = []
        for lane, rows in enumerate(self.task.test):
            metrics = judging.of_values(values[lane, : len(rows)], self.task.y[rows])
            if logits is not None and self.task.labels is not None:
                metrics |= judging.of_labels(logits[lane, : len(rows)] > 0, self.task.labels[rows] == 1)
            found.append(metrics | {"stage1_mae": float(self.maes[lane])})
        return found


def nan_of_fold(fold: int, n_folds: int, epoch: int) -> TrialFailure:
    """A loss or a prediction of a fold (from 0) that is no number."""
    return TrialFailure(Cause.NAN_LOSS, f"fold {fold + 1} of {n_folds}: loss is not finite at epoch {epoch}")
