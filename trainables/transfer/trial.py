"""One two-stage trial from its first epoch, or its checkpoint, to its last report."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainables.aggregation import fold_metrics
from trainables.node_lock import alone
from trainables.protocol import Cause, Report, TrialContext, TrialFailure
from trainables.transfer.cache import Stage1Cache, key_of
from trainables.transfer.checkpoint import Checkpoint
from trainables.transfer.data import TransferData
from trainables.transfer.final import train_final
from trainables.transfer.folding import Folding, Measured
from trainables.transfer.judging import HIGHER_IS_BETTER
from trainables.transfer.rows import stage1_rows
from trainables.transfer.settings import Stage1Settings, Stage2Settings
from trainables.transfer.stage1 import Encoders, Pretraining, Stage1Task

if TYPE_CHECKING:
    from trainables.two_stage import TwoStage

DTYPE = torch.float32
FIRST_BLOCK = 2
"""Folds that `blocks` trains before the others: one fold says little, and no test of two of them less than 1/4."""


class TransferTrial:
    """A trial in progress."""

    def __init__(self, trainer: TwoStage, context: TrialContext) -> None:
        self.trainer, self.context = trainer, context
        self.first, self.second = Stage1Settings.of(context.params), Stage2Settings.of(context.params)
        self.horizon = trainer.horizon(context.params)
        self.data = _data(trainer, context)
        width = len(self.data.feature_names)
        before = Checkpoint.read(context.restore, width, self.first) if context.restore else Checkpoint()
        self._before, self._told = before, before.told
        self._results: list[Measured | TrialFailure] = [
            {epoch: dict(metrics) for epoch, metrics in fold.items()} for fold in before.folds
        ]
        self._started = time.monotonic()

    @property
    def told(self) -> int:
        """The budget of the last report, 0 before the first."""
        return self._told

    @property
    def seconds(self) -> float:
        """Training time, that before a restart included."""
        return self._before.seconds + time.monotonic() - self._started

    def reports(self) -> Generator[Report, None, None]:
        """All that are due and were not given before the restart."""
        encoders = yield from self._stage1()
        if self.trainer.final:
            yield from train_final(self, encoders)
        else:
            yield from self._stage2(encoders)

    def is_due(self, budget: int) -> bool:
        """Whether somebody decides at a budget, or it is the last."""
        return budget in self.context.decide_at or budget == self.horizon

    def check_time(self) -> None:
        """Raises TrialFailure when the trial's time is up."""
        limit = self.trainer.trial_timeout_seconds
        if limit is not None and self.seconds > limit:
            raise TrialFailure(Cause.TRIAL_TIMEOUT, f"{self.seconds:.0f} s; the limit is {limit:.0f} s")

    def report(
        self, budget: int, metrics: Mapping[str, float], save: Callable[[Path], None] | None = None
    ) -> Generator[Report, None, None]:
        """Yields a report unless it was given before."""
        if budget <= self._told:
            return
        self._told = budget
        yield Report(budget, dict(metrics), save, final=budget == self.horizon)

    def save_with(self, encoders: Encoders, told: int) -> Callable[[Path], None]:
        """Writes the trial as it is once stage 1 is finished."""
        folds = tuple(result for result in self._results if not isinstance(result, TrialFailure))
        return Checkpoint(told, self.seconds, None, encoders, folds).write

    def _stage1(self) -> Generator[Report, None, Encoders]:
        encoders = self._before.encoders or (yield from self._found_or_trained())
        for epoch in range(self._told + 1, self.first.epochs + 1):
            if self._is_due_in_stage1(epoch, len(encoders.curve)):
                yield from self.report(epoch, encoders.metrics(epoch), self.save_with(encoders, epoch))
        return encoders

    def _found_or_trained(self) -> Generator[Report, None, Encoders]:
        task = Stage1Task(self.data.stage1_x, self.data.stage1_y, *stage1_rows(self.trainer, self.data))
        seed = self.context.seed if self.trainer.stage1_seed is None else self.trainer.stage1_seed
        cache = Stage1Cache(self.trainer.cache)
        key = key_of(self.data, task, self.first, seed, DTYPE)
        if cache.folder is None:
            return (yield from self._pretrain(Pretraining(task, self.first, seed, DTYPE)))
        if (found := cache.find(key, len(self.data.feature_names), self.first)) is not None:
            return found
        with alone(cache.folder / key, self.check_time):
            if (found := cache.find(key, len(self.data.feature_names), self.first)) is not None:
                return found  # trained by another trial of this node while this one waited
            encoders = yield from self._pretrain(Pretraining(task, self.first, seed, DTYPE))
            cache.keep(key, encoders)
        return encoders

    def _pretrain(self, training: Pretraining) -> Generator[Report, None, Encoders]:
        if self._before.running is not None:
            training.restore(*self._before.running)
        while not training.is_done():
            self.check_time()
            training.train()
            epoch = training.epoch
            if not training.is_done() and self._is_due_in_stage1(epoch, epoch):
                tensors, more = training.state()
                copied = {name: values.clone() for name, values in tensors.items()}
                save = Checkpoint(epoch, self.seconds, (copied, {**more, "curve": list(more["curve"])})).write
                yield from self.report(epoch, training.curve[-1], save)
        return training.result()

    def _is_due_in_stage1(self, epoch: int, trained: int) -> bool:
        """After training stopped early, only where somebody decides and at the end."""
        regular = epoch % self.trainer.stage1_report_every == 0 and epoch <= trained
        return regular or epoch == self.first.epochs or self.is_due(epoch)

    def _stage2(self, encoders: Encoders) -> Generator[Report, None, None]:
        data, trainer = self.data, self.trainer
        fold_of = data.fold_of(trainer.n_folds, trainer.fold_seed)
        folding = Folding(
            data.x, data.y, data.labels, fold_of, trainer.n_folds, self.second, trainer.weights, self.context.seed
        )
        for fold in range(trainer.n_folds):
            self.check_time()
            if fold == len(self._results):
                together = range(fold, self._end_of_block(fold))
                self._results += folding.train(encoders, together, {one: self._wanted(one) for one in together})
            result = self._results[fold]
            if isinstance(result, TrialFailure):
                raise result
            yield from self._tell(fold, result, encoders)

    def _end_of_block(self, fold: int) -> int:
        """The first fold that does not train beside this one."""
        how, n_folds = self.trainer.folds, self.trainer.n_folds
        if how == "auto":
            decided = any(self.first.epochs < budget < self.horizon for budget in self.context.decide_at)
            how = "sequential" if decided else "batched"
        if how == "sequential":
            return fold + 1
        return min(FIRST_BLOCK, n_folds) if how == "blocks" and fold < FIRST_BLOCK else n_folds

    def _begin_of(self, fold: int) -> int:
        return self.first.epochs + fold * self.second.epochs

    def _wanted(self, fold: int) -> frozenset[int]:
        """The epochs of a fold after which somebody decides."""
        return frozenset(budget - self._begin_of(fold) for budget in self.context.decide_at)

    def _tell(self, fold: int, measured: Measured, encoders: Encoders) -> Generator[Report, None, None]:
        before = [result[self.second.epochs] for result in self._results[:fold] if not isinstance(result, TrialFailure)]
        for epoch, metrics in sorted(measured.items()):
            budget = self._begin_of(fold) + epoch
            told = fold_metrics(
                [*before, metrics],
                objective="score",
                how=self.trainer.aggregation,
                higher_is_better=HIGHER_IS_BETTER,
                complete=budget == self.horizon,
            )
            yield from self.report(budget, told | {"val_loss": told["stage1_mae"]}, self.save_with(encoders, budget))


def _data(trainer: TwoStage, context: TrialContext) -> TransferData:
    """Read once a worker."""
    key = f"transfer data: {trainer.source!r}"
    if key not in context.shared:
        context.shared[key] = trainer.source.load()
    data: TransferData = context.shared[key]
    return data
