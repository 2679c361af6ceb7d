"""What a phase gained, and what each change in it gained alone: pure functions of measured values."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scipy import stats

from tune_lora.records import Direction


@dataclass(frozen=True)
class Interval:
    """A mean with its interval at some confidence. The ends are None where one value says nothing of the spread."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Gain:
    """One change against the phase's start. `measured` is the difference with the same seeds, better is positive; None
    where no seed was measured for both. `claimed` are the ends of a gain that somebody promised."""

    change: Mapping[str, Any]
    instead_of: Mapping[str, Any]
    measured: Interval | None
    claimed: tuple[float, float] | None = None

    @property
    def verdict(self) -> str:
        """What the measurement says of the change, and of the claim where there is one."""
        if self.measured is None:
            return "not measured"
        if not self.measured.is_clear:
            found = "not told apart from no gain"
        else:
            found = "better" if self.measured.mean > 0 else "worse"
        if self.claimed is None or self.measured.low is None or self.measured.high is None:
            return found
        if self.measured.high < self.claimed[0]:
            return f"{found}; below what was promised"
        if self.measured.low > self.claimed[1]:
            return f"{found}; above what was promised"
        return f"{found}; the promise is not refuted"


@dataclass(frozen=True)
class PhaseGain:
    """What became of a phase.

    `start`, `best` and `end` are configurations of searched parameters, `start_values`, `best_values` and `end_values`
    their objective by seed. `searched` is the best's value in the search: a lucky one, as every best of many is. `end`,
    where the next phase starts, is what did best when it was measured again: the search's best, one of the single
    changes, or the start itself. `whole` is the gain of the best over the start, `gained` that of the end, which was
    chosen by the same values and so is a little too good.
    """

    name: str
    start: Mapping[str, Any]
    best: Mapping[str, Any]
    searched: float | None
    start_values: Mapping[int, float]
    best_values: Mapping[int, float]
    end: Mapping[str, Any]
    end_values: Mapping[int, float]
    whole: Interval | None
    gained: Interval | None
    singles: tuple[Gain, ...] = ()
    n_trials: int = 0
    changed: tuple[Mapping[str, Any], ...] = field(default=())

    @property
    def adopted(self) -> bool:
        """Whether the next phase starts from something else than this one did."""
        return self.end != self.start

    @property
    def is_best_of_search(self) -> bool:
        """Whether the search's best did best again."""
        return self.adopted and self.end == self.best


@dataclass(frozen=True)
class PhasesRecord:
    """A study of phases as far as it has come.

    `start` is where the first phase begins. `values` hold the objective by seed of ``start``, ``end`` and each of the
    space's references, once all phases are done; `whole` is the gain of the end over the start;
    `stop_reason` says why it stands where it does.
    """

    name: str
    metric: str
    direction: Direction
    start: Mapping[str, Any]
    phases: tuple[PhaseGain, ...]
    seeds: int
    confidence: float
    values: Mapping[str, Mapping[int, float]]
    whole: Interval | None = None
    stop_reason: str = ""

    @property
    def end(self) -> Mapping[str, Any]:
        """Where the last finished phase ended."""
        return self.phases[-1].end if self.phases else self.start


def paired(
    before: Mapping[int, float], after: Mapping[int, float], direction: Direction, confidence: float
) -> Interval | None:
    """The mean difference over the seeds that both have, better is positive, with Student's interval.

    Source: the paired t interval; differences are taken to be about normal, which few seeds cannot check.
    """
    sign = 1 if direction == "maximize" else -1
    return interval([sign * (after[seed] - before[seed]) for seed in sorted(before.keys() & after.keys())], confidence)


def interval(values: Sequence[float], confidence: float) -> Interval | None:
    """The mean of some values with Student's two-sided interval; None of none."""
    if not values:
        return None
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Interval(mean, None, None, 1)
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * statistics.stdev(values) / n**0.5
    return Interval(mean, mean - reach, mean + reach, n)


def strongest(
    measured: Sequence[tuple[Mapping[str, Any], Mapping[int, float]]], direction: Direction
) -> Mapping[str, Any]:
    """The configuration with the best mean among those that have every seed that any of them has; the first of equals.
    The first one of all where none has every seed."""
    sign = 1 if direction == "maximize" else -1
    seeds = {seed for _, values in measured for seed in values}
    complete = [(config, values) for config, values in measured if values and values.keys() == seeds]
    if not complete:
        return measured[0][0]
    return max(complete, key=lambda one: sign * statistics.fmean(one[1].values()))[0]


def differing(start: Mapping[str, Any], best: Mapping[str, Any], belongs_to: Mapping[str, str]) -> list[dict[str, Any]]:
    """The single changes from one configuration to another. A parameter that exists only because of another one
    (`belongs_to`) changes with it; between configurations that both have it, it is a change of its own."""
    changes: dict[str, dict[str, Any]] = {}
    for name, value in best.items():
        if name in start and start[name] == value:
            continue
        owner = name
        while name not in start and owner in belongs_to and start.get(belongs_to[owner]) != best.get(belongs_to[owner]):
            owner = belongs_to[owner]
        changes.setdefault(owner, {})[name] = value
    return list(changes.values())
