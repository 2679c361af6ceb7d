"""A trainer that costs nothing: what benchmarks of the driver train."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

from trainables.protocol import Report


def study(
    folder: str, *, trials: int, epochs: int, slots: int, seconds: float = 0.0, **sections: Any
) -> dict[str, Any]:
    """A study file of such trials, on two cores, untracked unless `sections` say otherwise; results lie in `folder`."""
    return {
        "name": "noop",
        "trainable": "benchmarks.noop_trainer:train",
        "space": {
            "name": "noop",
            "parameters": {"learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1}},
            "fixed": {"seconds": seconds},
        },
        "custom": {"horizon": epochs},
        "budget": {"n_trials": trials, "plateau": None},
        "resources": {"cpu": 2 / slots, "concurrent": slots},
        "tracking": {"wandb": "off"},
        "results": folder,
        **sections,
    }


def score(rate: float, epoch: int) -> float:
    """Falls with the epochs. What the learning rate adds is noise: whatever a searcher learns, trials are stopped as
    often, so that studies of different searchers hold as many reports."""
    return random.Random(rate.hex()).random() + 1 / epoch


def train(params: Mapping[str, Any], trial: Any) -> Iterator[Report]:
    """An epoch takes ``seconds``. ``began`` and ``ended`` are the clock's seconds at an epoch's two ends."""
    for epoch in range(trial.done + 1, trial.horizon + 1):
        began = time.time()
        time.sleep(params.get("seconds", 0.0))
        clock = {"began": began, "ended": time.time(), "worker": os.getpid()}
        yield Report(epoch, {"score": score(params["learning_rate"], epoch), **clock})


train.metrics = ["score", "began", "ended", "worker"]  # type: ignore[attr-defined]  # its own way to say so
