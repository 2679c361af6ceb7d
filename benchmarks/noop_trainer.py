"""A trainer that costs nothing: what benchmarks of the driver train."""

from __future__ import annotations

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
        yield Report(epoch, {"score": params["learning_rate"] + 1 / epoch, "began": began, "ended": time.time()})


train.metrics = ["score", "began", "ended"]  # type: ignore[attr-defined]  # how a trainer says what it measures
