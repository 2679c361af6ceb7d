"""What pruning between folds saves, and what it loses: the same search with a Wilcoxon pruner on fold scores and
without.

Encoders are fine-tuned and stage 1 comes from the cache (one entry a width of the latent), so that folds are where the
time goes. Without a pruner the folds of a trial train side by side, which is the faster way; with one the first two do,
then the others. Processor time of the trainer on one thread; Optuna's own sampler and pruner, asked directly.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import torch

from benchmarks import common
from trainables.protocol import TrialContext
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TwoStage

SEEDS = (0,) if common.QUICK else (0, 1, 2)
TRIALS = 10 if common.QUICK else 40
P_THRESHOLD = 0.6
"""The test's p-values after two folds are 1/4 (both worse than the best trial's), 1/2 (the larger difference is worse),
3/4 and 1: this stops a trial whose first two folds are worse on the whole."""
FIXED: dict[str, Any] = {
    "encoder_hidden_dims": "512_256",
    "lr_pretrain": 1e-3,
    "stage1_epochs": 20,
    "freeze_encoder_stage2": False,
    "stage2_epochs": 8,
}


@dataclass
class _Search:
    """What a search came to."""

    seconds: float = 0.0
    folds: int = 0
    best: float = float("inf")
    spread: float = 0.0
    reference: dict[int, float] = field(default_factory=dict)


def _drawn(trial: optuna.Trial) -> dict[str, Any]:
    return FIXED | {
        "encoder_latent_dim": trial.suggest_categorical("encoder_latent_dim", [4, 8, 16, 32, 64]),
        "lr_finetune": trial.suggest_float("lr_finetune", 1e-4, 3e-2, log=True),
        "lr_finetune_encoder": trial.suggest_float("lr_finetune_encoder", 1e-5, 1e-2, log=True),
        "stage2_dropout": trial.suggest_float("stage2_dropout", 0.0, 0.5),
        "stage2_head_hidden_dim": trial.suggest_categorical("stage2_head_hidden_dim", [32, 64, 128]),
    }


def _searched(trainer: TwoStage, seed: int, pruner: optuna.pruners.BasePruner) -> _Search:
    sampler = optuna.samplers.TPESampler(n_startup_trials=10, seed=seed)
    study = optuna.create_study(sampler=sampler, pruner=pruner)
    found, shared = _Search(), {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = replace(trainer, cache=Path(folder) / "cache")
        for number in range(TRIALS):
            trial = study.ask()
            context = TrialContext(params=_drawn(trial), folder=Path(folder), seed=number, shared=shared)
            started = time.process_time()
            value = _trained(trainer, context, trial, found)
            found.seconds += time.process_time() - started
            study.tell(trial, value, optuna.trial.TrialState.PRUNED if value is None else None)
    return found


def _trained(trainer: TwoStage, context: TrialContext, trial: optuna.Trial, found: _Search) -> float | None:
    """The score of a trial, or None where it was stopped."""
    running = trainer.run(context)
    for report in running:
        if "fold_score" not in report.metrics:
            continue
        found.folds += 1
        # Against the first trial, trained to its end: Optuna's pruner spares a trial whose mean so far is below
        # the best one's mean over all folds, and would take easy folds for a good trial.
        first = found.reference.setdefault(report.budget, report.metrics["fold_score"])
        trial.report(report.metrics["fold_score"] - first, report.budget)
        if not report.final and trial.should_prune():
            running.close()
            return None
    score = report.metrics["score"]
    if score < found.best:
        found.best, found.spread = score, report.metrics["score_spread"]
    return score


def main() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    savings, losses, folds = [], [], []
    for seed in SEEDS:
        trainer = TwoStage(SyntheticTransfer(seed=500 + seed, n_stage2=600), exclude_overlap=False, tensorboard=False)
        whole = _searched(replace(trainer, folds="batched"), seed, optuna.pruners.NopPruner())
        wilcoxon = optuna.pruners.WilcoxonPruner(p_threshold=P_THRESHOLD)
        pruned = _searched(replace(trainer, folds="blocks"), seed, wilcoxon)
        savings.append(1 - pruned.seconds / whole.seconds)
        folds.append(1 - pruned.folds / whole.folds)
        losses.append((pruned.best - whole.best) / whole.spread)
        print(seed, [whole.seconds, pruned.seconds], savings[-1], folds[-1], losses[-1], flush=True)
    setting = f"{TRIALS} trials of fine-tuned encoders (512_256), 600 measured rows, five folds"
    note = f"{setting}; against folds side by side without a pruner, processor time"
    common.write(
        "fold_pruning_saving",
        [
            common.result(
                "fold_pruning_saving", measured=round(statistics.median(savings), 3), goal=">= 0.35",
                unit="of training time", runs=len(SEEDS),
                note=f"{note}; each run: {', '.join(f'{saving:.2f}' for saving in savings)}",
            ),
            common.result(
                "fold_pruning_folds", measured=round(statistics.median(folds), 3), goal=None,
                unit="of folds not reached", runs=len(SEEDS), note=f"{setting}; what who trains them one by one saves",
            ),
            common.result(
                "fold_pruning_loss", measured=round(max(losses), 3), goal="<= 1", unit="fold spreads", runs=len(SEEDS),
                note=f"{setting}; best with the pruner less best without, the worst run; each run: "
                + ", ".join(f"{loss:.2f}" for loss in losses),
            ),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
