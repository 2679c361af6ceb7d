"""What pruning between folds saves, and what it loses: the same search with the scheduler `wilcoxon` and without.

Encoders are fine-tuned and stage 1 comes from the cache (one entry a width of the latent), so that folds are where the
time goes. Without a pruner the folds of a trial train side by side, which is the faster way; with one the first two do,
then the others, as studies do it. The scheduler is the project's own with its defaults for folds, fed without Ray;
Optuna's sampler is asked directly. Processor time of the trainer on one thread.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import torch

from benchmarks import common
from trainables.protocol import FOLD_SCORE, TrialContext
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TwoStage
from tune_lora import scheduler as schedulers
from tune_lora.scheduler_spec import SchedulerSpec

SEEDS = (0,) if common.QUICK else (0, 1, 2, 3, 4)
TRIALS = 10 if common.QUICK else 40
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


def _drawn(trial: optuna.Trial) -> dict[str, Any]:
    return FIXED | {
        "encoder_latent_dim": trial.suggest_categorical("encoder_latent_dim", [4, 8, 16, 32, 64]),
        "lr_finetune": trial.suggest_float("lr_finetune", 1e-4, 3e-2, log=True),
        "lr_finetune_encoder": trial.suggest_float("lr_finetune_encoder", 1e-5, 1e-2, log=True),
        "stage2_dropout": trial.suggest_float("stage2_dropout", 0.0, 0.5),
        "stage2_head_hidden_dim": trial.suggest_categorical("stage2_head_hidden_dim", [32, 64, 128]),
    }


def _searched(trainer: TwoStage, seed: int, scheduler: str) -> _Search:
    sampler = optuna.samplers.TPESampler(n_startup_trials=10, seed=seed)
    study = optuna.create_study(sampler=sampler)
    settings = SchedulerSpec(name=scheduler).settings(by_fold=True)
    decides = schedulers.build(scheduler, by_fold=FOLD_SCORE, **settings)
    found, shared = _Search(), {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = replace(trainer, cache=Path(folder) / "cache")
        for number in range(TRIALS):
            trial = study.ask()
            context = TrialContext(params=_drawn(trial), folder=Path(folder), seed=number, shared=shared)
            started = time.process_time()
            value = _trained(trainer, context, trial, decides, found)
            found.seconds += time.process_time() - started
            study.tell(trial, value, optuna.trial.TrialState.PRUNED if value is None else None)
    return found


def _trained(
    trainer: TwoStage, context: TrialContext, trial: optuna.Trial, decides: Any, found: _Search
) -> float | None:
    """The score of a trial, or None where it was stopped."""
    running = trainer.run(context)
    known = SimpleNamespace(trial_id=str(trial.number), config={"trial": {"number": trial.number}})
    decides.on_trial_add(None, known)
    for report in running:
        if FOLD_SCORE not in report.metrics:
            continue
        found.folds += 1
        score = report.metrics["score"]
        trial.report(score, report.budget)
        result = {"budget": report.budget, "score": score, "final": report.final, "metrics": dict(report.metrics)}
        stops = decides.on_trial_result(None, known, result) == "STOP"
        if stops or report.final:
            decides.on_trial_complete(None, known, result)
        if stops:
            running.close()
            return None
    if score < found.best:
        found.best, found.spread = score, report.metrics["score_spread"]
    return score


def main() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    savings, losses, folds = [], [], []
    for seed in SEEDS:
        trainer = TwoStage(SyntheticTransfer(seed=700 + seed, n_stage2=600), exclude_overlap=False, tensorboard=False)
        whole = _searched(replace(trainer, folds="batched"), seed, "none")
        pruned = _searched(replace(trainer, folds="blocks"), seed, "wilcoxon")
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
