"""Metrics to score. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping


def score_of(metrics: Mapping[str, float], metric: str) -> float | None:
    """The score that a report carries: the metric where it was measured and is finite, else None."""
    value = metrics.get(metric)
    return float(value) if value is not None and math.isfinite(value) else None


def gain(value: float, baseline: float, direction: str) -> float:
    """How much better than the baseline a value is, in percent of the baseline's size; 0 where the baseline is 0."""
    if baseline == 0:
        return 0.0
    change = (baseline - value) / abs(baseline) * 100
    return change if direction == "minimize" else -change
