"""Domains of parameters: frozen values that know what they contain and how Optuna calls them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any, ClassVar, Protocol

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

FEW = 64
"""Domains up to this size are searched value by value."""


class Domain(Protocol):
    """The values a parameter may take."""

    type: ClassVar[str]

    def contains(self, value: Any) -> bool:
        """Whether a trial of the study may have this value."""
        ...

    def snap(self, value: Any) -> Any:
        """A contained value without the rounding noise of its arithmetic: 0.85, not 0.8500000000000001."""
        ...

    def values(self) -> tuple[Any, ...] | None:
        """All values where they are `FEW`, else None."""
        ...

    def points(self, marks: Iterable[float] = ()) -> tuple[Any, ...]:
        """All values where they are few, else some: the ends, every mark (a threshold in a rule) and what lies
        between.
        """
        ...

    def to_distribution(self) -> BaseDistribution:
        """Optuna's distribution of the same values."""
        ...

    def suggest(self, trial: Trial, name: str) -> Any:
        """Asks an Optuna trial for a value."""
        ...

    def describe(self) -> str:
        """For a person: ``6e-05 .. 0.00012 (log)``."""
        ...


@dataclass(frozen=True)
class Categorical:
    """One of `choices`: texts, numbers, booleans or null."""

    choices: tuple[Any, ...]
    type: ClassVar[str] = "categorical"

    def contains(self, value: Any) -> bool:
        return any(_same(value, choice) for choice in self.choices)

    def snap(self, value: Any) -> Any:
        return value

    def values(self) -> tuple[Any, ...] | None:
        return self.choices

    def points(self, marks: Iterable[float] = ()) -> tuple[Any, ...]:  # noqa: ARG002  # the seam's
        return self.choices

    def to_distribution(self) -> BaseDistribution:
        return CategoricalDistribution(self.choices)

    def suggest(self, trial: Trial, name: str) -> Any:
        return trial.suggest_categorical(name, self.choices)

    def describe(self) -> str:
        return ", ".join(str(choice) for choice in self.choices)


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`, both included; on a grid of `step` where one is given, uniform in its logarithm
    where `log`.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    type: ClassVar[str] = "uniform"

    def contains(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or math.isclose(self.snap(value), value, rel_tol=1e-9, abs_tol=1e-12)

    def snap(self, value: Any) -> Any:
        if self.step is None:
            return value
        low, step = Decimal(str(self.low)), Decimal(str(self.step))
        return self._number(low + step * round((float(value) - self.low) / self.step))

    def values(self) -> tuple[Any, ...] | None:
        if self.low == self.high:
            return (self.low,)
        if self.step is None or self._count() > FEW:
            return None
        return tuple(self.snap(self.low + index * self.step) for index in range(self._count()))

    def points(self, marks: Iterable[float] = ()) -> tuple[Any, ...]:
        few = self.values()
        if few is not None:
            return few
        inside = {self.low, self.high, *(mark for mark in marks if self.low < mark < self.high)}
        inside |= {self._between(share) for share in (0.25, 0.5, 0.75)}
        edges = sorted(inside)
        middles = ((left + right) / 2 for left, right in pairwise(edges))
        return tuple(sorted({self.snap(point) for point in (*edges, *middles)}))

    def to_distribution(self) -> BaseDistribution:
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def suggest(self, trial: Trial, name: str) -> Any:
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def position(self, value: float) -> float:
        """From 0 (`low`) to 1 (`high`) on the domain's own scale; what lies outside is at an end."""
        if self.low == self.high:
            return 0.5
        clipped = min(max(value, self.low), self.high)
        if self.log:
            return math.log(clipped / self.low) / math.log(self.high / self.low)
        return (clipped - self.low) / (self.high - self.low)

    def at(self, position: float) -> Any:
        """The contained value nearest to a position from 0 to 1."""
        return self.snap(min(max(self._between(min(max(position, 0.0), 1.0)), self.low), self.high))

    def describe(self) -> str:
        details = (["log"] if self.log else []) + ([f"step {self.step:g}"] if self.step not in (None, 1) else [])
        return f"{self.low:g} .. {self.high:g}" + (f" ({', '.join(details)})" if details else "")

    def _count(self) -> int:
        assert self.step is not None
        return round((self.high - self.low) / self.step) + 1

    def _between(self, share: float) -> float:
        if self.log:
            return float(self.low ** (1 - share) * self.high**share)
        return self.low + share * (self.high - self.low)

    def _number(self, value: Decimal) -> float:
        return float(value)


@dataclass(frozen=True)
class Uniform(Number):
    """A uniform real number."""


@dataclass(frozen=True)
class LogUniform(Number):
    """A real number, uniform in its logarithm; `low` is above 0."""

    log: bool = True
    type: ClassVar[str] = "loguniform"


@dataclass(frozen=True)
class Int(Number):
    """A whole number."""

    low: int
    high: int
    step: int = 1
    type: ClassVar[str] = "int"

    def contains(self, value: Any) -> bool:
        return isinstance(value, int) and super().contains(value)

    def to_distribution(self) -> BaseDistribution:
        return IntDistribution(self.low, self.high, log=self.log, step=self.step)

    def suggest(self, trial: Trial, name: str) -> Any:
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def _number(self, value: Decimal) -> float:
        return int(value)


def _same(left: Any, right: Any) -> bool:
    # 1 == True in Python, but they are two choices to a person.
    return isinstance(left, bool) == isinstance(right, bool) and left == right
