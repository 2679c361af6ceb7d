"""One number out of those of several folds. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

Aggregation = Literal["mean", "median", "pessimistic"]
CONFIDENCE = 0.9
"""Of the one-sided interval whose bad end is the pessimistic value."""


def aggregate(values: Sequence[float], how: Aggregation = "mean", higher_is_better: bool = False) -> float:
    """The mean, the median, or the bad end of the one-sided 90 % t-interval of the mean.

    The interval takes folds for independent, which overlapping training rows are not (Bengio and Grandvalet 2004): it
    is a way to prefer settings that hold in every fold, not a statement of coverage. Of one value, that value.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("nothing to aggregate")
    if how == "median":
        return statistics.median(values)
    mean = statistics.fmean(values)
    if how == "mean" or len(values) == 1:
        return mean
    from scipy.special import stdtrit

    margin = float(stdtrit(len(values) - 1, CONFIDENCE)) * spread(values) / math.sqrt(len(values))
    return mean - margin if higher_is_better else mean + margin


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation; 0.0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def fold_metrics(
    done: Sequence[Mapping[str, float]],
    *,
    objective: str,
    how: Aggregation = "mean",
    higher_is_better: Collection[str] = (),
    complete: bool = False,
) -> dict[str, float]:
    """What a report says at the end of a fold.

    Args:
        done: the metrics of each fold so far, in order.
        objective: the metric that trials are compared by; every fold has it.
        how: of every metric; a metric that a fold did not measure is aggregated over those that did.
        higher_is_better: names of the metrics of which that holds.
        complete: this was the last fold.

    Returns:
        The running aggregates under their own names, ``<objective>_spread``, and ``fold_score``: the objective in the
        last of these folds alone, lower is better always. With `complete` also ``fold_<k>_<metric>``, k from 1.
    """
    names = list(dict.fromkeys(name for fold in done for name in fold))
    told = {
        name: aggregate([fold[name] for fold in done if name in fold], how, name in higher_is_better) for name in names
    }
    scores = [fold[objective] for fold in done]
    told[f"{objective}_spread"] = spread(scores)
    told["fold_score"] = -scores[-1] if objective in higher_is_better else scores[-1]
    if complete:
        told |= {f"fold_{k}_{name}": value for k, fold in enumerate(done, start=1) for name, value in fold.items()}
    return told
