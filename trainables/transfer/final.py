"""The last training of a study's best configuration: one model on all measured rows but a few, exported."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from trainables.protocol import Report
from trainables.transfer.export import export
from trainables.transfer.judging import score
from trainables.transfer.rows import final_rows
from trainables.transfer.stage1 import Encoders
from trainables.transfer.stage2 import Stage2Task, Transfer, nan_of_fold

if TYPE_CHECKING:
    from trainables.transfer.trial import TransferTrial

REPORT_EVERY = 10


def train_final(trial: TransferTrial, encoders: Encoders) -> Generator[Report, None, None]:
    """Trains stage 2, keeps the weights with the best score on the held-out rows, exports the model into the trial's
    folder. After it stopped early there is a report where somebody decides, and the last."""
    data, settings, begin = trial.data, trial.second, trial.first.epochs
    train, held = final_rows(trial.trainer, data)
    task = Stage2Task(data.x, data.y, data.labels, (0,), (train,), (held,))
    transfer = Transfer(task, encoders, settings, trial.context.seed)
    best, waited, kept = {"score": math.inf}, 0, (transfer.stack.weights.clone(), transfer.stack.stats.clone())
    for epoch in range(1, settings.final_epochs + 1):
        is_over = bool(settings.final_patience) and waited >= settings.final_patience
        if not is_over:
            trial.check_time()
            metrics = _epoch(transfer, epoch)
            metrics["score"] = score(metrics, trial.trainer.weights)
            waited += 1
            if metrics["score"] < best["score"]:
                best, waited, kept = metrics, 0, (transfer.stack.weights.clone(), transfer.stack.stats.clone())
        if epoch == settings.final_epochs:
            transfer.stack.weights, transfer.stack.stats = kept
            export(trial.context.folder, transfer, encoders, data, best)
        if trial.is_due(begin + epoch) or (not is_over and epoch % REPORT_EVERY == 0):
            told = best | {"val_loss": best["stage1_mae"]}
            yield from trial.report(begin + epoch, told, trial.save_with(encoders, begin + epoch))


def _epoch(transfer: Transfer, epoch: int) -> dict[str, float]:
    losses = transfer.train()
    (metrics,) = transfer.measure()
    if not np.isfinite([*losses, *metrics.values()]).all():
        raise nan_of_fold(0, 1, epoch)
    return metrics
