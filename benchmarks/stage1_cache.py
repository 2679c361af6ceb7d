"""What a hit of the stage-1 cache costs, in shares of the training that it saves: processor time from the start of a
trial to its report at the end of stage 1, with the shipped space's default configuration on the embedded problem. A
worker's first hit, which reads what the tables hold for the key: later ones know it."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import common
from search_spaces.space import Space
from trainables.protocol import TrialContext
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TwoStage

RUNS = 2 if common.QUICK else 7


def _seconds(trainer: TwoStage, params: dict[str, Any], folder: Path, shared: dict[str, Any]) -> float:
    """Processor time until stage 1 is told of; what is known of the tables is forgotten first."""
    for data in shared.values():
        vars(data).pop("stage1_hash", None)
    running = trainer.run(TrialContext(params=params, folder=folder, shared=shared))
    started = time.process_time()
    next(report for report in running if report.budget == params["stage1_epochs"])
    spent = time.process_time() - started
    running.close()
    return spent


def main() -> None:
    torch.set_num_threads(1)
    space = Space.load("transfer_aware", where="space")
    params = dict(space.resolve(space.defaults()))
    figures = []
    for name, excluded in (("stage1_cache", False), ("stage1_cache_by_fold", True)):
        shared: dict[str, Any] = {}
        misses, hits = [], []
        for _ in range(RUNS):
            with tempfile.TemporaryDirectory() as folder:
                trainer = TwoStage(
                    SyntheticTransfer(), exclude_overlap=excluded, cache=Path(folder) / "cache", tensorboard=False
                )
                if not shared:
                    _seconds(trainer, params | {"stage1_epochs": 1}, Path(folder), shared)  # reads data, warms torch up
                misses.append(_seconds(trainer, params, Path(folder), shared))
                hits.append(_seconds(trainer, params, Path(folder), shared))
        share = statistics.median(hit / miss for hit, miss in zip(hits, misses, strict=True))
        note = (
            f"hit {1000 * statistics.median(hits):.1f} ms, training {statistics.median(misses):.2f} s "
            f"({'one stage 1 for each of five folds' if excluded else 'one stage 1'}), processor time, one thread"
        )
        figures.append(
            common.result(
                name, measured=round(share, 5), goal="<= 0.02", unit="of the training it saves", runs=RUNS, note=note
            )
        )
    common.write("stage1_cache", figures)


if __name__ == "__main__":
    main()
