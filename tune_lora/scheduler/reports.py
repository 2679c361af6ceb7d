"""What a scheduler sees of one result, and how it knows a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune_lora.trial_log import Result

SCORE = "score"
BUDGET = "budget"
EXCESS = "constraint_excess"
FEASIBLE = "feasible"

Key = int | str
"""A trial as schedulers know it: its number in the study, which outlives a driver, else Tune's id."""


def key_of(trial: Any) -> Key:
    """The key of a Tune trial."""
    number = ((getattr(trial, "config", None) or {}).get("trial") or {}).get("number")
    return str(trial.trial_id) if number is None else int(number)


def is_spared(trial: Any) -> bool:
    """Whether a Tune trial is to be trained to its end whatever it reports: the study's baseline."""
    return bool(((getattr(trial, "config", None) or {}).get("trial") or {}).get("spared", False))


@dataclass(frozen=True)
class Seen:
    """One report. `value` is what is compared, None where it was not measured; `excess` above 0 is a report that breaks
    a constraint, by that much (infinite where nobody says by how much).
    """

    budget: int
    value: float | None
    excess: float = 0.0
    final: bool = False
    is_broken: bool = False
    """The trial failed, or what it reports is not a number."""


def read(result: Mapping[str, Any] | None, watch: str | None = None) -> Seen:
    """What Tune's mapping says, flat (``metrics/val_loss``) or nested. `watch` is compared in place of the score."""
    told = Result.of(result)
    given = {**told.metrics, **{name: value for name, value in (result or {}).items() if name in (EXCESS, FEASIBLE)}}
    value = told.score if watch is None else told.metrics.get(watch)
    broken = told.cause is not None or any(x is not None and not math.isfinite(x) for x in (told.score, value))
    return Seen(told.budget, None if broken else value, excess_of(given), told.final, broken)


def excess_of(metrics: Mapping[str, Any]) -> float:
    """By how much a report breaks a constraint: its `EXCESS`, else infinity where `FEASIBLE` is said to be false."""
    excess = metrics.get(EXCESS)
    if excess is not None:
        return math.inf if math.isnan(excess) else max(0.0, float(excess))
    return 0.0 if metrics.get(FEASIBLE, True) else math.inf
