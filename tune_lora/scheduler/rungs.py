"""Rungs: where they stand, what they hold, and who may go on from one. Pure.

Source: Li et al., A System for Massively Parallel Hyperparameter Tuning (ASHA), 2020; Deb, An efficient constraint
handling method for genetic algorithms, 2000, for feasibility first.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from tune_lora.errors import InputError
from tune_lora.scheduler.reports import Key, Seen

_ROUNDING = 1e-9
"""Share of the distance between two neighbouring results within which a result ties with a cut-off between them."""


def rungs(grace: int, eta: float, max_budget: int) -> tuple[int, ...]:
    """The budgets at which trials are compared: grace, grace * eta, grace * eta^2, ... below `max_budget`.

    They are absolute, so trials with different horizons meet at the same ones. None stands at `max_budget`: there is
    nothing left to save.

    Raises:
        InputError: grace is below 1, or eta is not above 1.
    """
    if grace < 1 or not eta > 1:
        raise InputError(f"scheduler: got grace {grace} and eta {eta:g}; grace must be 1 or more, eta above 1")
    found: dict[int, None] = {}
    exponent = 0
    while (rung := round(grace * eta**exponent)) < max_budget:
        found[rung] = None
        exponent += 1
    return tuple(found)


def is_among_the_best(reward: float, others: Collection[float], eta: float, min_results: int) -> bool:
    """Whether an arrival goes on: it is not below the point that the best 1/eta of the earlier arrivals lie above.

    Higher is better. The point is interpolated between two of them, as in Ray's ASHA; a tie with it goes on. While the
    rung would hold fewer than `min_results`, the arrival counted, everybody goes on.
    """
    if len(others) + 1 < min_results:
        return True
    ranked = sorted(others)
    position = (1 - 1 / eta) * (len(ranked) - 1)
    below, above = ranked[math.floor(position)], ranked[math.ceil(position)]
    cutoff = below + (position - math.floor(position)) * (above - below)
    return reward >= cutoff - _ROUNDING * (above - below)


@dataclass
class Rung:
    """What trials had reached when they came to budget `at`. `rewards` are of feasible reports, higher is better;
    `excesses` of the others.
    """

    at: int
    rewards: dict[Key, float] = field(default_factory=dict)
    excesses: dict[Key, float] = field(default_factory=dict)

    def __contains__(self, key: Key) -> bool:
        return key in self.rewards or key in self.excesses

    def enter(self, key: Key, seen: Seen, sign: float) -> None:
        """A trial arrives, once; `sign` turns its value into a reward."""
        if key in self or seen.value is None:
            return
        if seen.excess > 0:
            self.excesses[key] = seen.excess
        else:
            self.rewards[key] = sign * seen.value

    def lets_on(self, seen: Seen, sign: float, eta: float, min_results: int) -> bool:
        """Whether an arrival that is not entered yet goes on.

        Feasibility first: a report that breaks a constraint is below every one that does not. Where none does better,
        those that break one are compared by how far they do.
        """
        if seen.excess > 0:
            if self.rewards:
                return False
            others = [-min(excess, _FAR) for excess in self.excesses.values()]
            return is_among_the_best(-min(seen.excess, _FAR), others, eta, min_results)
        return is_among_the_best(sign * (seen.value or 0.0), self.rewards.values(), eta, min_results)

    def ranked(self) -> list[Key]:
        """Trials, best first: feasible ones by reward, then the others by excess; ties by arrival."""
        feasible = sorted(self.rewards, key=lambda key: -self.rewards[key])
        return feasible + sorted(self.excesses, key=lambda key: self.excesses[key])

    def forget(self, key: Key) -> None:
        """The trial failed: others are not compared with it."""
        self.rewards.pop(key, None)
        self.excesses.pop(key, None)


_FAR = 1e300
"""In place of an infinite excess, which cannot be interpolated."""


@dataclass
class Ladder:
    """Rungs, the lowest first."""

    rungs: tuple[Rung, ...]

    @classmethod
    def at(cls, budgets: Collection[int]) -> Ladder:
        """An empty ladder with rungs at these budgets."""
        return cls(tuple(Rung(budget) for budget in sorted(budgets)))

    def reached(self, budget: int) -> Rung | None:
        """The highest rung that a budget reaches. A trial without a report at a lower one is not compared there."""
        return next((rung for rung in reversed(self.rungs) if rung.at <= budget), None)

    def enter(self, key: Key, seen: Seen, sign: float) -> None:
        """A report is taken in without a decision."""
        if (rung := self.reached(seen.budget)) is not None:
            rung.enter(key, seen, sign)

    def forget(self, key: Key) -> None:
        """The trial failed."""
        for rung in self.rungs:
            rung.forget(key)
