"""Pre-training on many computed labels, transfer to few measured ones, judged by cross-validation (SPEC.md section 2,
`transfer_aware`). What it trains and reports is told in docs/transfer.md."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from trainables.aggregation import Aggregation
from trainables.protocol import Params, Report, TrialContext
from trainables.rules import mistakes
from trainables.transfer.data import TransferData
from trainables.transfer.judging import ScoreWeights
from trainables.transfer.settings import REQUIRED, RULES, Stage1Settings, Stage2Settings
from trainables.transfer.synthetic import SyntheticTransfer

METRICS = (
    "score", "exp_mae", "exp_rmse", "exp_r2", "sol_f1", "sol_recall", "sol_accuracy", "stage1_mae", "val_loss",
    "score_spread", "fold_score",
)  # fmt: skip
"""What the last report of a trial holds (those of the label where there are labels), beside ``fold_<k>_<metric>``."""


class TransferSource(Protocol):
    """Where the two tables come from."""

    def load(self) -> TransferData:
        """Reads or draws them."""
        ...

    def fingerprint(self) -> str:
        """A digest of their content."""
        ...


@dataclass(frozen=True)
class TwoStage:
    """The two-stage trainer. Its budget is epochs: those of stage 1, then those of each fold of stage 2.

    Attributes:
        source: of the data.
        n_folds: of the measured rows; `fold_seed` deals them out and holds rows of stage 1 out, the same for every
            trial.
        aggregation: of the folds' metrics.
        exclude_overlap: stage 1 does not see the computed rows of a fold's test entities, so that it is trained once
            for each fold; where no keys tell the entities, nothing can be excluded.
        weights: of the score.
        stage1_seed: of stage 1's weights and batches, the same for every trial, so that trials that differ in stage 2
            share it; None is the trial's own.
        stage1_held_out: share of the computed entities that stage 1 is judged by.
        stage1_report_every: epochs between reports of stage 1.
        folds: side by side (`batched`), one after the other (`sequential`), the first two and then the others
            (`blocks`), or as `auto` finds best: side by side unless somebody decides before the last one ends. The
            results are the same.
        cache: folder of finished stage-1 results; None keeps none.
        final: trains one model on all measured rows but `final_held_out` of them, by which it stops early, and exports
            it.
        tensorboard: what is reported is logged in the trial's folder, too.
    """

    source: TransferSource = field(default_factory=SyntheticTransfer)
    n_folds: int = 5
    fold_seed: int = 0
    aggregation: Aggregation = "mean"
    exclude_overlap: bool = True
    weights: ScoreWeights = field(default_factory=ScoreWeights)
    stage1_seed: int | None = 0
    stage1_held_out: float = 0.15
    stage1_report_every: int = 10
    folds: Literal["auto", "batched", "blocks", "sequential"] = "auto"
    cache: Path | None = None
    final: bool = False
    final_held_out: float = 0.1
    tensorboard: bool = True
    trial_timeout_seconds: float | None = None
    budget_unit: str = "epoch"

    def horizon(self, params: Params) -> int:
        """Epochs of a trial: stage 1's, and stage 2's for each fold."""
        of_stage2 = Stage2Settings.of(params)
        folded = of_stage2.final_epochs if self.final else self.n_folds * of_stage2.epochs
        return Stage1Settings.of(params).epochs + folded

    def check(self, params: Params) -> list[str]:
        """What is wrong with a configuration before anything is loaded; empty when nothing is."""
        missing = [name for name in REQUIRED if name not in params]
        needed = ", ".join(REQUIRED)
        return [f"{name} is missing; the two-stage trainer needs {needed}" for name in missing] + mistakes(
            params, RULES
        )

    def check_data(self) -> TransferData:
        """Reads the tables, folds them and holds rows out, as a trial will.

        Raises:
            InputErrors: everything that is wrong with them.
        """
        data = self.source.load()
        data.fold_of(self.n_folds, self.fold_seed)
        self.stage1_rows(data)
        return data

    def fingerprint(self) -> str:
        """Of the two tables."""
        return self.source.fingerprint()

    def prepare(self, context: TrialContext) -> dict[str, Any]:  # noqa: ARG002  # as others
        """What is said once per study: how many rows there are, what was left out, and what stage 1 does not see.

        Returns ``{"baseline": {}, "calibration": {"data": [sentences]}, "images": {}}``: no model is there before
        stage 1, so trials are compared with the study's own first configuration alone.
        """
        from trainables.transfer.notes import notes

        told = notes(self.source.load(), exclude_overlap=self.exclude_overlap)
        return {"baseline": {}, "calibration": {"data": told}, "images": {}}

    def stage1_rows(self, data: TransferData) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """Which computed rows stage 1 trains on and is judged by: once for all folds, or once for each of them.

        Raises:
            InputError: one table alone says which entities its rows are, or a fold excludes all rows of either kind.
        """
        from trainables.transfer.rows import stage1_rows

        return stage1_rows(self, data)

    def run(self, context: TrialContext) -> Generator[Report, None, None]:
        """Trains both stages. Reports in stage 1 at every `stage1_report_every` epochs and at its end, in stage 2 at
        the end of each fold, and wherever somebody decides."""
        from trainables.lora.safety import out_of_memory_is_a_cause
        from trainables.transfer.trial import TransferTrial

        with out_of_memory_is_a_cause():
            trial = TransferTrial(self, context)
            yield from self._logged(trial.reports(), context, trial.told) if self.tensorboard else trial.reports()

    @staticmethod
    def _logged(
        reports: Generator[Report, None, None], context: TrialContext, told: int
    ) -> Generator[Report, None, None]:
        from trainables.epoch_log import EpochLog

        with EpochLog(context.folder, told) as log:
            if not told:
                log.configuration(context.params, ("score",))
            for report in reports:
                log.scalars(report.budget, report.metrics)
                yield report
