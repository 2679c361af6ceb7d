"""Five folds of the stage-2 heads side by side against one after the other, and against a plain loop of torch's own
layers and optimizer; processor time on one thread, alternating, with the results held against each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import common
from trainables.transfer.folding import Folding
from trainables.transfer.judging import ScoreWeights
from trainables.transfer.settings import Stage1Settings, Stage2Settings
from trainables.transfer.stage1 import Encoders, Pretraining, Stage1Task, encoded
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TwoStage

RUNS = 3 if common.QUICK else 11
FOLDS = 5
PROBLEM = SyntheticTransfer(n_stage2=1200)
FIRST, SECOND = Stage1Settings(epochs=3), Stage2Settings()


def _encoders(data: Any) -> Encoders:
    rows = TwoStage(exclude_overlap=False).stage1_rows(data)
    training = Pretraining(Stage1Task(data.stage1_x, data.stage1_y, *rows), FIRST, 0)
    while not training.is_done():
        training.train()
    return training.result()


def _plain_fold(data: Any, encoders: Encoders, fold_of: np.ndarray, fold: int) -> None:
    """The same training as a script would write it."""
    everything = [np.arange(len(data.y))]
    stack = encoders.stack
    x = torch.from_numpy(data.x)
    z = encoded(stack, stack.views(stack.weights), encoders.inputs, x, everything)[0]
    train = torch.from_numpy(np.flatnonzero(fold_of != fold))
    z = (z - z[train].mean(0)) / z[train].std(0)
    y, labels = torch.from_numpy(data.y).float(), torch.from_numpy(data.labels).float()
    y = (y - y[train].mean()) / y[train].std()
    heads = [
        nn.Sequential(
            nn.Linear(FIRST.latent, SECOND.head_hidden), nn.ReLU(), nn.Dropout(SECOND.dropout),
            nn.Linear(SECOND.head_hidden, 1),
        )
        for _ in range(2)
    ]  # fmt: skip
    optimizer = torch.optim.AdamW([p for head in heads for p in head.parameters()], lr=SECOND.rate)
    weight = torch.tensor(SECOND.class_weight_pos)
    for _ in range(SECOND.epochs):
        for rows in train[torch.randperm(len(train))].split(SECOND.batch_size):
            loss = SECOND.lambda_exp * nn.functional.smooth_l1_loss(heads[0](z[rows])[:, 0], y[rows])
            loss = loss + SECOND.lambda_sol * nn.functional.binary_cross_entropy_with_logits(
                heads[1](z[rows])[:, 0], labels[rows], pos_weight=weight
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _spent(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    torch.set_num_threads(1)
    data = PROBLEM.load()
    encoders, fold_of = _encoders(data), data.fold_of(FOLDS, 0)
    run = Folding(data.x, data.y, data.labels, fold_of, FOLDS, SECOND, ScoreWeights(), seed=0)
    batched = run.train(encoders, range(FOLDS), {})
    alone = [run.train(encoders, [fold], {})[0] for fold in range(FOLDS)]
    apart = max(
        abs(first[SECOND.epochs][name] - value)
        for first, second in zip(batched, alone, strict=True)
        if isinstance(first, dict) and isinstance(second, dict)
        for name, value in second[SECOND.epochs].items()
    )
    assert apart < 1e-3, f"the results differ by {apart}"
    times: dict[str, list[float]] = {"batched": [], "sequential": [], "plain": []}
    for _ in range(RUNS):
        times["batched"].append(_spent(lambda: run.train(encoders, range(FOLDS), {})))
        times["sequential"].append(_spent(lambda: [run.train(encoders, [fold], {}) for fold in range(FOLDS)]))
        times["plain"].append(_spent(lambda: [_plain_fold(data, encoders, fold_of, fold) for fold in range(FOLDS)]))
    figures = []
    for name, other, what in (
        ("folds_batched_ratio", "sequential", "the trainer's own folds one after the other"),
        ("folds_batched_ratio_plain", "plain", "a plain loop of torch.nn and torch.optim.AdamW"),
    ):
        ratio = statistics.median(a / b for a, b in zip(times[other], times["batched"], strict=True))
        note = (
            f"against {what}; {len(data.y)} rows, batch {SECOND.batch_size}, {SECOND.epochs} epochs, frozen encoder: "
            f"{statistics.median(times[other]):.3f} s against {statistics.median(times['batched']):.3f} s"
        )
        if other == "sequential":
            note += f"; metrics at most {apart:.1e} apart"
        figures.append(
            common.result(name, measured=round(ratio, 2), goal=">= 2.5", unit="times as fast", runs=RUNS, note=note)
        )
    common.write("folds_batched_ratio", figures)


if __name__ == "__main__":
    main()
