"""Where the best trials lie in their ranges: at an edge, beside a gap between choices, or outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from scipy.stats import binomtest

from search_spaces.domains import Categorical, Domain, Number
from tune_lora.analysis._domains import is_number, ordered
from tune_lora.analysis._evidence import Evidence
from tune_lora.records import TrialRecord

NEAR = 0.1
"""Share of a range that counts as its edge."""
VERY_NEAR = 0.05
"""Of the best trial alone."""
FEW = 10
"""Of up to so many values an edge is the last one."""
FAR = 5.0
"""From this ratio of two neighbours what lies between them is halfway in logarithms."""
LEAST_TOP, MOST_TOP = 5, 10
TOP_SHARE = 0.1
ENOUGH = 15
"""Completed trials below which nothing is said of edges."""
LEVEL = 0.05
LEAST_OF_A_CHOICE = 3

End = Literal["low", "high"]


@dataclass(frozen=True)
class Edge:
    """How many of the `top` best trials lie at one end of a range: within `NEAR` of it, or on its last choice.

    `expected` is that of trials drawn evenly over the range. `is_hit`: more than half of them do, more than chance
    gives, and the hyperparameter is told apart from chance.
    """

    name: str
    end: End
    at: Any
    near: int
    top: int
    expected: float
    p: float
    holds_best: bool
    is_hit: bool


@dataclass(frozen=True)
class Gap:
    """Values worth offering between the best choice and its neighbours."""

    name: str
    best: Any
    between: tuple[Any, ...]


@dataclass(frozen=True)
class Outside:
    """A value of a reference configuration outside the range, and the place of its trial among the completed ones."""

    name: str
    value: Any
    trial: int
    provenance: str
    place: int


def best_of(evidence: Evidence) -> list[TrialRecord]:
    """The best trials: a tenth of the completed ones, five at least and ten at most."""
    ranked = evidence.record.ranked()
    return ranked[: min(MOST_TOP, max(LEAST_TOP, round(TOP_SHARE * len(ranked))))]


def edges(evidence: Evidence) -> list[Edge]:
    """Both ends of each range, those that are hit first."""
    found = [edge for name in evidence.domains if name in evidence.bounded for edge in _ends(evidence, name)]
    return sorted(found, key=lambda one: (not one.is_hit, -one.near))


def is_enough(evidence: Evidence) -> bool:
    """Whether there are trials enough to say that an edge is hit."""
    return len(evidence.record.ranked()) >= ENOUGH


def at_edge(evidence: Evidence) -> dict[str, Any]:
    """The best trial's values within `VERY_NEAR` of an end of a range; of choices an end is nothing special."""
    best, ranges = evidence.record.best, ranges_of(evidence)
    tried = evidence.record.tried(best) if best else {}
    places = {name: domain.position(tried[name]) for name, domain in ranges.items() if is_number(tried.get(name))}
    return {name: tried[name] for name, place in places.items() if not VERY_NEAR < place < 1 - VERY_NEAR}


def ranges_of(evidence: Evidence) -> dict[str, Number]:
    """The hyperparameters that are drawn from a range of more than a few values."""
    return {
        name: domain
        for name, domain in evidence.domains.items()
        if isinstance(domain, Number) and name in evidence.bounded and len(domain.values() or range(FEW + 1)) > FEW
    }


def gaps(evidence: Evidence) -> list[Gap]:
    """What lies between the best choice and its neighbours, for numbers among choices that matter."""
    found = []
    for name, domain in evidence.domains.items():
        choices = ordered(domain.choices) if isinstance(domain, Categorical) else []
        if name not in evidence.bounded or len(choices) < 2 or evidence.effect(name) is None:
            continue
        best = _best_choice(evidence, name, choices)
        between = [between_two(low, high) for low, high in pairwise(choices) if best in (low, high)]
        if best is not None and (new := tuple(one for one in between if one is not None)):
            found.append(Gap(name, best, new))
    return found


def outside(evidence: Evidence) -> list[Outside]:
    """Values of reference configurations that lie outside the ranges, the best trials' first."""
    found = []
    for place, trial in enumerate(evidence.record.ranked(), start=1):
        unknown = {name: trial.config[name] for name in evidence.bounded - trial.params.keys() if name in trial.config}
        found += [
            Outside(name, unknown[name], trial.number, trial.provenance, place)
            for name, domain in evidence.domains.items()
            if name in unknown and unknown[name] is not None and not domain.contains(unknown[name])
        ]
    return found


def between_two(low: float, high: float) -> float | None:
    """A value between two numbers, whole where both are; None where there is none."""
    if isinstance(low, int) and isinstance(high, int):
        whole = (low + high) // 2
        return whole if low < whole < high else None
    middle = float(f"{np.sqrt(low * high) if low > 0 and high / low >= FAR else (low + high) / 2:.3g}")
    return middle if low < middle < high else None


def _ends(evidence: Evidence, name: str) -> list[Edge]:
    top = best_of(evidence)
    values = [evidence.record.tried(one).get(name) for one in top]
    if not values or not all(map(is_number, values)):
        return []
    return [
        _edge(evidence, name, side, [side.holds(value) for value in values]) for side in _sides(evidence.domains[name])
    ]


@dataclass(frozen=True)
class _Side:
    """One end of a domain: what lies at it, and the share of evenly drawn values that do."""

    end: End
    at: Any
    holds: Callable[[Any], bool]
    share: float


def _sides(domain: Domain) -> list[_Side]:
    """Of few values an edge is the last one, of many and of ranges a tenth; of two values each would be one."""
    few = ordered(domain.values() or ())
    if 0 < len(few) <= FEW:
        if len(few) < 3:
            return []
        low, high = few[0], few[-1]
        return [
            _Side("low", low, lambda value: value <= low, 1 / len(few)),
            _Side("high", high, lambda value: value >= high, 1 / len(few)),
        ]
    if not isinstance(domain, Number):
        return []
    return [
        _Side("low", domain.low, lambda value: domain.position(value) <= NEAR, NEAR),
        _Side("high", domain.high, lambda value: domain.position(value) >= 1 - NEAR, NEAR),
    ]


def _edge(evidence: Evidence, name: str, side: _Side, near: Sequence[bool]) -> Edge:
    n, count = len(near), sum(near)
    p = float(binomtest(count, n, side.share, alternative="greater").pvalue)
    hit = is_enough(evidence) and evidence.effect(name) is not None and count > n / 2 and p <= LEVEL
    return Edge(name, side.end, side.at, count, n, n * side.share, p, near[0], hit)


def _best_choice(evidence: Evidence, name: str, choices: Sequence[Any]) -> Any:
    """The choice whose trials stand best in the median, of those with enough of them."""
    stood: dict[Any, list[float]] = {choice: [] for choice in choices}
    for trial, place in zip(evidence.looked_at, evidence.standing, strict=True):
        value = evidence.record.tried(trial).get(name)
        if value in stood:
            stood[value].append(float(place))
    known = {choice: float(np.median(places)) for choice, places in stood.items() if len(places) >= LEAST_OF_A_CHOICE}
    return min(known, key=lambda choice: known[choice]) if known else None
