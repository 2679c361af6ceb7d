"""A classifier's trial from its first epoch, or its checkpoint, to its last report: one training, or one a fold."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from trainables.aggregation import Aggregation, fold_metrics
from trainables.classification.fit import Fit, is_higher_better
from trainables.epoch_log import EpochLog
from trainables.lora.safety import out_of_memory_is_a_cause
from trainables.protocol import Cause, Report, TrialContext, TrialFailure

CHECKPOINT = "classifier.pt"
OF_TRAINING = ("train_loss", "train_acc", "learning_rate")
"""Metrics of an epoch that need no other rows."""


@dataclass
class Standing:
    """Where a trial stands: `told` is the budget of its last report, `epoch` what is done of the training in progress,
    `latest` what that epoch was worth, `finished` the folds behind it. All of it is in a checkpoint."""

    told: int = 0
    epoch: int = 0
    latest: dict[str, float] = field(default_factory=dict)
    finished: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Course:
    """How a trial goes: `epochs` of one training, `n_folds` of them or (0) one that is judged by its validation rows.

    `fit` makes the training of a fold (0-based) from the beginning. `objective` is what trials are compared by.
    `export` is given the last training and its metrics.
    """

    fit: Callable[[int], Fit]
    epochs: int
    n_folds: int = 0
    aggregation: Aggregation = "mean"
    objective: str = "val_acc"
    timeout_seconds: float | None = None
    export: Callable[[Fit, Mapping[str, float]], None] | None = None

    @property
    def horizon(self) -> int:
        """Epochs of the whole trial."""
        return self.epochs * max(1, self.n_folds)


class Trial:
    """Runs a course, from its beginning or from where a checkpoint stands."""

    def __init__(self, course: Course, context: TrialContext) -> None:
        self.course, self.context = course, context
        self.standing = Standing()
        self.fit: Fit | None = None
        self._started = time.monotonic()
        if context.restore is not None:
            self.restore(context.restore)

    @property
    def seconds(self) -> float:
        """Of this trial, those before a restart counted."""
        return self.standing.seconds + time.monotonic() - self._started

    def run(self, log: EpochLog) -> Generator[Report, None, None]:
        """One Report an epoch; with folds one a fold, and where somebody decides.

        Raises:
            TrialFailure: with its cause, and the fold where there are folds.
        """
        for fold in range(len(self.standing.finished), max(1, self.course.n_folds)):
            try:
                with out_of_memory_is_a_cause():
                    self.fit = fit = self.fit or self.course.fit(fold)
                    yield from self._training(fit, fold, log)
            except TrialFailure as failure:
                if not self.course.n_folds:
                    raise
                message = f"fold {fold + 1} of {self.course.n_folds}: {failure.message}"
                raise TrialFailure(failure.cause, message, failure.metrics) from None

    def _training(self, fit: Fit, fold: int, log: EpochLog) -> Generator[Report, None, None]:
        """The epochs of one training; where it stopped early, what it kept is told wherever somebody still decides."""
        start, epochs = fold * self.course.epochs, self.course.epochs
        while not self._is_over(fit):
            self._check_time(start)
            self._train(fit, start, log)
            if not self._is_over(fit) and self._speaks_at(start + self.standing.epoch):
                yield self._report(start + self.standing.epoch, self._running(self._worth(fit)))
        if fit.best.patience:
            fit.best.put_back(fit.network)
        worth = self._worth(fit, kept=True)
        left = range(max(start + self.standing.epoch, self.standing.told + 1), start + epochs)
        for budget in left:
            if budget in self.context.decide_at:
                yield self._report(budget, self._running(worth))
        yield self._end(fit, start + epochs, worth, log)

    def _is_over(self, fit: Fit) -> bool:
        return self.standing.epoch >= self.course.epochs or fit.best.is_over

    def _speaks_at(self, budget: int) -> bool:
        return not self.course.n_folds or budget in self.context.decide_at

    def _train(self, fit: Fit, start: int, log: EpochLog) -> None:
        """One epoch, watched on rows that may be looked at: those held out of a fold's training rows, else those that
        judge the trial."""
        epoch = self.standing.epoch + 1
        told = fit.epoch(epoch)
        watched = fit.split.inner if self.course.n_folds else fit.split.validation
        if len(watched):
            told |= fit.measure(watched)
            fit.seen(told)
        self.standing.epoch, self.standing.latest = epoch, told
        prefix = f"fold_{start // self.course.epochs + 1}/" if self.course.n_folds else ""
        log.scalars(start + epoch, told | fit.group_weights(), prefix)

    def _worth(self, fit: Fit, *, kept: bool = False) -> dict[str, float]:
        """What the network as it stands is worth by the rows that judge it; `kept`: it is the best epoch's."""
        told = fit.best.metrics if kept and fit.best.patience else self.standing.latest
        if not self.course.n_folds:
            return dict(told)
        of_training = {name: told[name] for name in OF_TRAINING}
        return of_training | fit.measure(fit.split.validation)

    def _running(self, worth: Mapping[str, float]) -> dict[str, float]:
        """Between the ends of folds: the folds done so far, the first one as it stands; ``fold_score`` is that of the
        fold in progress."""
        if not self.course.n_folds:
            return dict(worth)
        now = self._of_folds([worth])
        return {**self._of_folds(self.standing.finished or [worth]), "fold_score": now["fold_score"]}

    def _of_folds(self, folds: Sequence[Mapping[str, float]], *, complete: bool = False) -> dict[str, float]:
        names = {name for fold in folds for name in fold}
        objective = self.course.objective if self.course.objective in names else "val_acc"
        higher = {name for name in names if is_higher_better(name)}
        own = [{name: value for name, value in fold.items() if name != "learning_rate"} for fold in folds]
        told = fold_metrics(
            own, objective=objective, how=self.course.aggregation, higher_is_better=higher, complete=complete
        )
        return {**told, "learning_rate": folds[-1]["learning_rate"]}

    def _end(self, fit: Fit, budget: int, worth: Mapping[str, float], log: EpochLog) -> Report:
        """The report at the end of a training: the last one of the trial, or of a fold."""
        final = budget == self.course.horizon
        told = dict(worth)
        if self.course.n_folds:
            self.standing.finished.append(told)
            told = self._of_folds(self.standing.finished, complete=final)
            log.scalars(budget, told)
            self.standing.epoch, self.standing.latest, self.fit = 0, {}, None
        if final and self.course.export is not None:
            self.course.export(fit, told)
        return self._report(budget, told, final=final)

    def _report(self, budget: int, told: Mapping[str, float], *, final: bool = False) -> Report:
        self.standing.told = budget
        return Report(budget, {**told, "seconds": self.seconds}, self.save, final=final)

    def _check_time(self, start: int) -> None:
        limit = self.course.timeout_seconds
        if limit is not None and self.seconds > limit:
            raise TrialFailure(
                Cause.TRIAL_TIMEOUT,
                f"{self.seconds:.0f} s at epoch {start + self.standing.epoch} of {self.course.horizon}; the limit is "
                f"{limit:.0f} s",
            )

    def save(self, folder: Path) -> None:
        """Writes all that is needed to continue from the last report."""
        standing = asdict(self.standing) | {"seconds": self.seconds}
        fit = None if self.fit is None else self.fit.state()
        torch.save({"standing": standing, "fit": fit}, folder / CHECKPOINT)

    def restore(self, folder: Path) -> None:
        """Continues from what `save` wrote."""
        state: dict[str, Any] = torch.load(folder / CHECKPOINT, weights_only=True, map_location="cpu")
        self.standing = Standing(**state["standing"])
        if state["fit"] is not None:
            self.fit = self.course.fit(len(self.standing.finished))
            self.fit.restore(state["fit"])
