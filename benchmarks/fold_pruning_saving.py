"""What pruning between folds saves, and what it loses: the same search with the scheduler `wilcoxon` and without.

Pruning can save folds, never stage 1, which comes before them. So there are two searches. One is over settings of stage
2 with encoders that are fine-tuned: stage 1 comes from the cache (one entry a width of the latent), so that nearly all
of a trial's time is folds. The other is that of the shipped study, over settings of stage 1, where every trial trains
its own: what is saved there is what a search for a pre-training saves.

Without a pruner the folds of a trial train side by side, which is the faster way; with one the first two do, then the
others, as studies do it. The scheduler is the project's own with its defaults for folds, fed without Ray; Optuna's
sampler is asked directly. Processor time of the trainer on one thread.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from benchmarks import common
from search_spaces.space import Space
from trainables.protocol import FOLD_SCORE, TrialContext
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TwoStage
from tune_lora import scheduler as schedulers
from tune_lora import spec
from tune_lora.scheduler_spec import SchedulerSpec

SEEDS = (0,) if common.QUICK else (0, 1, 2, 3, 4)
TRIALS = 10 if common.QUICK else 40
OF_STAGE2, OF_STAGE1 = 700, 800
"""First problems of the two searches; nothing was chosen on them."""
SHIPPED = Path(__file__).parents[1] / "search_spaces" / "studies" / "transfer.yaml"
FIXED: Mapping[str, Any] = {
    "encoder_hidden_dims": "512_256",
    "lr_pretrain": 1e-3,
    "stage1_epochs": 20,
    "freeze_encoder_stage2": False,
    "stage2_epochs": 8,
}
SEARCHED: Mapping[str, BaseDistribution] = {
    "encoder_latent_dim": CategoricalDistribution([4, 8, 16, 32, 64]),
    "lr_finetune": FloatDistribution(1e-4, 3e-2, log=True),
    "lr_finetune_encoder": FloatDistribution(1e-5, 1e-2, log=True),
    "stage2_dropout": FloatDistribution(0.0, 0.5),
    "stage2_head_hidden_dim": CategoricalDistribution([32, 64, 128]),
}


@dataclass(frozen=True)
class _Drawn:
    """What is searched: `whole` makes a configuration of what was drawn, `first` are tried before anything is."""

    distributions: Mapping[str, BaseDistribution]
    whole: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    first: tuple[Mapping[str, Any], ...] = ()


@dataclass
class _Search:
    """What a search came to."""

    seconds: float = 0.0
    folds: int = 0
    best: float = float("inf")
    spread: float = 0.0


def _searched(trainer: TwoStage, drawn: _Drawn, seed: int, scheduler: str) -> _Search:
    sampler = optuna.samplers.TPESampler(n_startup_trials=10, seed=seed)
    study = optuna.create_study(sampler=sampler)
    for params in drawn.first:
        study.enqueue_trial(dict(params))
    settings = SchedulerSpec(name=scheduler).settings(by_fold=True)
    decides = schedulers.build(scheduler, by_fold=FOLD_SCORE, **settings)
    found, shared = _Search(), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        trainer = replace(trainer, cache=Path(folder) / "cache")
        for number in range(TRIALS):
            trial = study.ask(dict(drawn.distributions))
            context = TrialContext(params=drawn.whole(trial.params), folder=Path(folder), seed=number, shared=shared)
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


@dataclass
class _Compared:
    """A search with the pruner against the same without, run by run."""

    savings: list[float] = field(default_factory=list)
    folds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def _compared(trainer_of: Callable[[int], TwoStage], drawn: _Drawn) -> _Compared:
    """Shares of time and of folds saved, and what the final best lost in its own fold spreads, for each seed."""
    found = _Compared()
    for seed in SEEDS:
        trainer = replace(trainer_of(seed), exclude_overlap=False, tensorboard=False)
        whole = _searched(replace(trainer, folds="batched"), drawn, seed, "none")
        pruned = _searched(replace(trainer, folds="blocks"), drawn, seed, "wilcoxon")
        found.savings.append(1 - pruned.seconds / whole.seconds)
        found.folds.append(1 - pruned.folds / whole.folds)
        found.losses.append((pruned.best - whole.best) / whole.spread)
        last = (found.savings[-1], found.folds[-1], found.losses[-1])
        print(seed, [whole.seconds, pruned.seconds], *last, flush=True)
    return found


def _each(values: list[float]) -> str:
    return "each run: " + ", ".join(f"{value:.2f}" for value in values)


def of_stage2() -> list[dict[str, Any]]:
    """The search over settings of stage 2."""
    drawn = _Drawn(SEARCHED, lambda params: {**FIXED, **params})
    found = _compared(lambda seed: TwoStage(SyntheticTransfer(seed=OF_STAGE2 + seed, n_stage2=600)), drawn)
    setting = f"{TRIALS} trials of fine-tuned encoders (512_256), 600 measured rows, five folds"
    note = f"{setting}; stage 1 comes from the cache; against folds side by side without a pruner, processor time"
    return [
        common.result(
            "fold_pruning_saving", measured=round(statistics.median(found.savings), 3), goal=">= 0.35",
            unit="of the time of trials whose stage 1 is cached", runs=len(SEEDS),
            note=f"{note}; {_each(found.savings)}",
        ),
        common.result(
            "fold_pruning_folds", measured=round(statistics.median(found.folds), 3), goal=None,
            unit="of folds not reached", runs=len(SEEDS), note=f"{setting}; what who trains them one by one saves",
        ),
        common.result(
            "fold_pruning_loss", measured=round(max(found.losses), 3), goal="<= 1", unit="fold spreads",
            runs=len(SEEDS),
            note=f"{setting}; best with the pruner less best without, the worst run; {_each(found.losses)}",
        ),
    ]  # fmt: skip


def of_stage1() -> dict[str, Any]:
    """The search over settings of stage 1, as the shipped study has it."""
    study = spec.load(SHIPPED)
    assert isinstance(study.space, dict)
    space = Space.load(study.space, where="space")
    distributions = {name: one.domain.to_distribution() for name, one in space.parameters.items()}
    drawn = _Drawn(distributions, space.resolve, tuple(prior.params for prior in space.priors))
    found = _compared(lambda seed: TwoStage(SyntheticTransfer(seed=OF_STAGE1 + seed)), drawn)
    return common.result(
        "fold_pruning_saving_stage1", measured=round(statistics.median(found.savings), 3), goal=None,
        unit="of training time, stage 1 included", runs=len(SEEDS),
        note=f"{TRIALS} trials of search_spaces/studies/transfer.yaml, each with a stage 1 of its own, which no pruner "
        f"between folds can save; folds not reached {statistics.median(found.folds):.2f}; against folds side by side "
        f"without a pruner, processor time; {_each(found.savings)}; best with the pruner less best without in fold "
        f"spreads, {_each(found.losses)}",
    )  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    common.write("fold_pruning_saving", [*of_stage2(), of_stage1()])


if __name__ == "__main__":
    main()
