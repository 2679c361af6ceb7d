"""Does the transfer objective pick better stage-1 settings than stage-1 error alone? Ten problems with a known answer.

For each problem, configurations are drawn at random from the space of the shipped study and each is a trial; both
pickers choose among the same trials, one by `score`, one by `stage1_mae`. The two picks are then trained anew with
seeds that no trial used, on all measured rows, and judged on 4,000 fresh rows. The same pick is no win.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import common
from search_spaces.space import Space
from trainables.protocol import TrialContext
from trainables.transfer.data import TransferData
from trainables.transfer.settings import Stage1Settings, Stage2Settings
from trainables.transfer.stage1 import Pretraining, Stage1Task
from trainables.transfer.stage2 import Stage2Task, Transfer
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TwoStage
from tune_lora import spec

STUDY = Path(__file__).parents[1] / "search_spaces" / "studies" / "transfer.yaml"
PROBLEMS, TRIALS, FRESH = (2, 6, 4000) if common.QUICK else (10, 24, 4000)
FIRST_PROBLEM = 1000
"""No problem that the space or the defaults were chosen on."""
SEEDS = (9001, 9002, 9003)
Params = Mapping[str, Any]


def _trials(problem: SyntheticTransfer, space: Space) -> list[tuple[Params, Mapping[str, float]]]:
    """Configurations with the metrics of their last report."""
    trainer = TwoStage(problem, exclude_overlap=False, tensorboard=False)
    shared: dict[str, Any] = {}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, params in enumerate(_drawn(space, problem.seed)):
            context = TrialContext(params=params, folder=Path(folder), seed=number, shared=shared)
            found.append((params, list(trainer.run(context))[-1].metrics))
    return found


def _drawn(space: Space, seed: int) -> list[Params]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    drawn = []
    for _ in range(TRIALS):
        trial = study.ask({name: one.domain.to_distribution() for name, one in space.parameters.items()})
        drawn.append(space.resolve(trial.params))
    return drawn


def _judged(data: TransferData, fresh: tuple[np.ndarray, ...], params: Params) -> float:
    """Mean error of the measured value on fresh rows, over seeds of both stages."""
    first, second = Stage1Settings.of(params), Stage2Settings.of(params)
    rows = TwoStage(exclude_overlap=False).stage1_rows(data)
    x, y, labels = fresh
    n = len(data.y)
    assert data.labels is not None
    task = Stage2Task(
        np.concatenate([data.x, x]), np.concatenate([data.y, y]), np.concatenate([data.labels, labels]),
        (0,), (np.arange(n),), (np.arange(n, n + len(y)),),
    )  # fmt: skip
    errors = []
    for seed in SEEDS:
        training = Pretraining(Stage1Task(data.stage1_x, data.stage1_y, *rows), first, seed)
        while not training.is_done():
            training.train()
        transfer = Transfer(task, training.result(), second, seed)
        for _ in range(second.epochs):
            transfer.train()
        errors.append(transfer.measure()[0]["exp_mae"])
    return statistics.fmean(errors)


def main() -> None:
    torch.set_num_threads(1)
    chosen = spec.load(STUDY).space
    assert isinstance(chosen, dict)
    space = Space.load(chosen, where="space")
    wins, gains = 0, []
    for seed in range(FIRST_PROBLEM, FIRST_PROBLEM + PROBLEMS):
        problem = dataclasses.replace(SyntheticTransfer(), seed=seed)
        trials = _trials(problem, space)
        picks = [min(trials, key=lambda trial, by=metric: trial[1][by])[0] for metric in ("score", "stage1_mae")]
        data, fresh = problem.load(), problem.fresh(FRESH, seed=7)
        ours, theirs = (_judged(data, fresh, params) for params in picks)
        wins += picks[0] != picks[1] and ours < theirs
        gains.append(1 - ours / theirs)
        print(
            seed, f"{ours:.4f} {theirs:.4f}", [{name: p[name] for name in space.parameters} for p in picks], flush=True
        )
    note = (
        f"{TRIALS} trials a problem; stage-2 error on {FRESH} fresh rows, new seeds of both stages; lower by "
        f"{statistics.median(gains):.1%} in the median ({min(gains):.1%} to {max(gains):.1%})"
    )
    common.write(
        "transfer_beats_stage1",
        [
            common.result(
                "transfer_beats_stage1", measured=wins, goal=None if common.QUICK else ">= 8",
                unit=f"of {PROBLEMS} problems",
                runs=PROBLEMS, note=note,
            )
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
