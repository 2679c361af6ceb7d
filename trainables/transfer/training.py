"""An epoch of several lanes: batches, dropout, one backward pass, one optimizer step. Both stages train with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from trainables.transfer.lanes import AdamW, Dropout, Masks, batches, generators
from trainables.transfer.stack import Stack, Views

RowLosses = Callable[[Views, Masks, np.ndarray, torch.Tensor], torch.Tensor]
"""From weights, dropout masks, rows ``(K, B)`` and their validity ``(K, B)`` to a loss for each row, ``(K, B)``."""


class Training:
    """A stack with its optimizer. `seeds` has one for each lane: all that is random in a lane comes from its own."""

    def __init__(self, stack: Stack, optimizer: AdamW, size: int, seeds: Sequence[Sequence[int]]) -> None:
        self.stack, self.optimizer = stack, optimizer
        self._size, self._seeds = size, seeds
        self._dropout = Dropout(list(stack.nets.values()), stack.weights.dtype)

    def epoch(self, number: int, rows: Sequence[np.ndarray], active: np.ndarray, losses: RowLosses) -> np.ndarray:
        """Trains the active lanes on their rows once; returns each lane's mean loss ``(K,)``, 0 where it rested."""
        drawn = generators(self._seeds, number, active)
        total = torch.zeros(self.stack.lanes, dtype=self.stack.weights.dtype)
        plan = list(batches(rows, self._size, drawn))
        for batch, masks in zip(plan, self._dropout.draw(self._size, len(plan), drawn), strict=True):
            valid = torch.from_numpy(batch.valid).to(total.dtype)
            weights = self.stack.weights.detach().requires_grad_()
            by_row = losses(self.stack.views(weights), masks, batch.rows, valid) * valid
            summed = by_row.sum(1)
            (gradient,) = torch.autograd.grad((summed / valid.sum(1).clamp(min=1)).sum(), weights)
            self.optimizer.step(gradient, batch.active)
            total += summed.detach()
        lengths = np.array([max(1, len(mine)) for mine in rows])
        return total.numpy() / lengths
