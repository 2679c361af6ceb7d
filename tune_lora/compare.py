"""Whether two studies found the same: where their best trials lie, how their scores are spread, and what mattered.

Two searches of one space that end in different regions are a sign that neither has seen enough. Agreement is not taken
from a test that found nothing: it must be shown (`tune_lora.compare_statistics`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from search_spaces.domains import Categorical, Domain, Number
from tune_lora import analysis
from tune_lora import compare_statistics as statistics
from tune_lora.compare_statistics import LEVEL, Difference
from tune_lora.errors import InputError
from tune_lora.records import StudyRecord, TrialRecord

Verdict = Literal["same region", "different: run more", "cannot tell yet: run more"]
BEST_SHARE = 0.25
"""Of the completed trials, those whose configurations are the best region."""
LEAST_BEST = 5
LEAST = 12
"""Completed trials of a study below which nothing is claimed."""
MATTERS = 0.1
"""A hyperparameter's share of what the results vary, in either study, from which on it decides."""


@dataclass(frozen=True)
class Place:
    """Where the best trials of both studies lie in one hyperparameter. `difference` is in shares of the range that both
    searched together, or of the share of trials that have `choice`. `decides` where it matters in either study."""

    name: str
    difference: Difference
    choice: object = None
    decides: bool = True
    shares: tuple[float, float] | None = None


@dataclass(frozen=True)
class Scores:
    """Both studies' results: `p` of all completed trials being of one distribution, and the means of the best ones in
    units of what the completed trials vary."""

    p: float
    best: Difference


@dataclass(frozen=True)
class Comparison:
    """What there is to say of two studies. `left_out` are hyperparameters that only one of them searched. `p` is of the
    two best regions being one, over all common hyperparameters at once. `scores` is None where the studies measure
    different things, `importance` (Spearman's coefficient and its p) where that cannot be told."""

    verdict: Verdict
    why: tuple[str, ...]
    places: tuple[Place, ...]
    left_out: tuple[str, ...]
    p: float | None
    scores: Scores | None
    importance: tuple[float, float] | None
    counts: tuple[int, int]


def compare(first: StudyRecord, second: StudyRecord) -> Comparison:
    """Holds two studies against each other.

    Raises:
        InputError: they have no hyperparameter in common, or one of them several objectives or no completed trial.
    """
    sides = _Side(first), _Side(second)
    for side in sides:
        side.check()
    names = [name for name in sides[0].domains if name in sides[1].domains and _comparable(name, sides)]
    if not names:
        others = ", ".join(sides[1].domains) or "none"
        raise InputError(
            f"studies {first.name!r} and {second.name!r} have no hyperparameter in common: got "
            f"{', '.join(sides[0].domains) or 'none'} beside {others}; must share at least one"
        )
    counts = len(sides[0].done), len(sides[1].done)
    left_out = tuple(sorted((sides[0].domains.keys() | sides[1].domains.keys()) - set(names)))
    scores, importance = _scores(sides), _importance(sides, names)
    if min(counts) < LEAST:
        why: tuple[str, ...] = (
            f"{min(counts)} completed trials in one of them; must be {LEAST} in each before anything can be said",
        )
        return Comparison("cannot tell yet: run more", why, (), left_out, None, scores, importance, counts)
    places = tuple(place for name in names if (place := _place(name, sides, len(names))) is not None)
    p = _apart(sides, [place.name for place in places])
    verdict, why = _verdict(places, p)
    return Comparison(verdict, why, places, left_out, p, scores, importance, counts)


@dataclass(frozen=True)
class _Side:
    """One of the studies."""

    record: StudyRecord

    @cached_property
    def evidence(self) -> analysis.Evidence:
        """Its trials as statistics sees them."""
        return analysis.Evidence(self.record)

    @property
    def domains(self) -> Mapping[str, Domain]:
        """The domain of each sampled hyperparameter."""
        return self.evidence.domains

    @cached_property
    def done(self) -> list[TrialRecord]:
        """Completed trials, best first."""
        return self.record.ranked()

    @property
    def best(self) -> list[TrialRecord]:
        """The best quarter of them."""
        return self.done[: max(LEAST_BEST, math.ceil(BEST_SHARE * len(self.done)))]

    @cached_property
    def shares(self) -> dict[str, float]:
        """What each hyperparameter explains; empty where that cannot be told."""
        return {one.name: one.share for one in analysis.importances(self.evidence)}

    def values(self, name: str) -> list[object]:
        """What the best trials tried of a hyperparameter, those without it left out."""
        tried = [self.record.tried(trial) for trial in self.best]
        return [one[name] for one in tried if name in one]

    def check(self) -> None:
        """Raises InputError where the study cannot be compared."""
        if self.record.has_several:
            names = ", ".join(one.name for one in self.record.objectives)
            raise InputError(f"study {self.record.name!r} has several objectives ({names}); must have one")
        if not self.done:
            raise InputError(f"study {self.record.name!r}: no trial has completed; must have {LEAST} for a comparison")


_Sides = tuple[_Side, _Side]


def _comparable(name: str, sides: _Sides) -> bool:
    one, two = (side.domains[name] for side in sides)
    return isinstance(one, Number) == isinstance(two, Number)


def _place(name: str, sides: _Sides, count: int) -> Place | None:
    """Where the best lie in one hyperparameter; None where fewer than two of a study's best have it."""
    one, two = (side.values(name) for side in sides)
    if min(len(one), len(two)) < 2:
        return None
    shares = (sides[0].shares.get(name), sides[1].shares.get(name))
    known = [share for share in shares if share is not None]
    decides = not known or max(known) >= MATTERS
    told = (shares[0] or 0.0, shares[1] or 0.0) if known else None
    level = LEVEL / count
    if isinstance(sides[0].domains[name], Categorical):
        choice, found = statistics.of_choices(one, two, level=level)
        return Place(name, found, choice, decides, told)
    difference = statistics.of_numbers(_positions(one, name, sides), _positions(two, name, sides), level=level)
    return Place(name, difference, None, decides, told)


def _positions(values: Sequence[object], name: str, sides: _Sides) -> list[float]:
    """Places in the range that both studies searched together, from 0 to 1, on its own scale; outside of it beyond."""
    ranges = [domain for side in sides if isinstance(domain := side.domains[name], Number)]
    low, high = min(one.low for one in ranges), max(one.high for one in ranges)
    if all(one.log for one in ranges):
        return [
            math.log(float(value) / low) / math.log(high / low) if high > low else 0.0 for value in map(_number, values)
        ]
    return [(value - low) / (high - low) if high > low else 0.0 for value in map(_number, values)]


def _number(value: object) -> float:
    assert isinstance(value, int | float)  # a number's domain holds nothing else
    return float(value)


def _apart(sides: _Sides, names: Sequence[str]) -> float | None:
    """The p of the best of both lying in the same place, over all common hyperparameters; None without any."""
    rows = [[side.record.tried(trial) for trial in side.best] for side in sides]
    names = [name for name in names if all(name in row for part in rows for row in part)]
    if not names:
        return None
    distances = []
    for name in names:
        both = [row[name] for part in rows for row in part]
        if isinstance(sides[0].domains[name], Categorical):
            column = np.array([[float(a != b) for b in both] for a in both])
        else:
            at = np.array(_positions(both, name, sides))
            column = np.abs(at[:, None] - at[None, :])
        distances.append(column)
    return statistics.apart(np.sqrt(np.mean(np.square(distances), axis=0)), len(rows[0]))


def _scores(sides: _Sides) -> Scores | None:
    """How the results are spread, where both studies measure the same and that in trials enough."""
    one, two = (side.record for side in sides)
    values = [[trial.value for trial in side.done if trial.value is not None] for side in sides]
    if (one.score_name, one.direction) != (two.score_name, two.direction) or min(map(len, values)) < LEAST:
        return None
    unit = float(np.std(np.concatenate(values))) or 1.0
    best = [[value / unit for value in part[: len(side.best)]] for part, side in zip(values, sides, strict=True)]
    return Scores(statistics.same_distribution(*values), statistics.of_numbers(best[0], best[1]))


def _importance(sides: _Sides, names: Sequence[str]) -> tuple[float, float] | None:
    """Whether the same hyperparameters mattered; None where either cannot tell, or there are too few to rank."""
    shared = [name for name in names if all(name in side.shares for side in sides)]
    if len(shared) < 3:
        return None
    return statistics.rank_agreement(*([side.shares[name] for name in shared] for side in sides))


def _verdict(places: Sequence[Place], p: float | None) -> tuple[Verdict, tuple[str, ...]]:
    deciding = [place for place in places if place.decides] or list(places)
    real = [place for place in deciding if place.difference.call == "real"]
    open_ones = [place for place in deciding if place.difference.call == "open"]
    if real and p is not None and p < LEVEL:
        names = ", ".join(place.name for place in real)
        return "different: run more", (f"their best trials lie apart in {names} (all together: p {p:.3f})",)
    if not real and not open_ones and deciding:
        return "same region", (f"their best trials lie together in {', '.join(place.name for place in deciding)}",)
    names = ", ".join(place.name for place in (*real, *open_ones)) or "nothing that could be measured"
    return "cannot tell yet: run more", (f"neither the same nor different is shown for {names}",)
