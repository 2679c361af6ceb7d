"""A trainer that costs nothing: what benchmarks of the driver train."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from trainables.protocol import Report


def train(params: Mapping[str, Any], trial: Any) -> Iterator[Report]:
    """An epoch takes ``seconds``. The score falls with the epochs, and with the learning rate. ``began`` and ``ended``
    are the clock's seconds at an epoch's two ends.
    """
    for epoch in range(trial.done + 1, trial.horizon + 1):
        began = time.time()
        time.sleep(params.get("seconds", 0.0))
        clock = {"began": began, "ended": time.time(), "worker": os.getpid()}
        yield Report(epoch, {"score": params["learning_rate"] + 1 / epoch, **clock})


train.metrics = ["score", "began", "ended", "worker"]  # type: ignore[attr-defined]  # its own way to say so
