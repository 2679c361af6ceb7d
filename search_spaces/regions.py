"""The part of a domain that rules leave open, and the cells into which thresholds cut a number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.domains import Categorical, Domain, Number


@dataclass(frozen=True)
class Region:
    """Some values of a parameter: `choices` where it has few, else the numbers in `intervals`, which are ascending and
    disjoint and include both ends.
    """

    domain: Domain
    choices: tuple[Any, ...] | None = None
    intervals: tuple[tuple[float, float], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.choices or self.intervals)

    def __contains__(self, value: Any) -> bool:
        if self.choices is not None:
            return Categorical(self.choices).contains(value)
        return any(low <= value <= high for low, high in self.intervals)

    def holds(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of many numbers lie in `intervals`; shape of `values`."""
        found = np.zeros(values.shape, dtype=bool)
        for low, high in self.intervals:
            found |= (low <= values) & (values <= high)
        return found

    def uniform(self, random: np.random.Generator) -> Any:
        """One of the values, each as likely as another on the parameter's own scale."""
        return self.at(float(random.random()))

    def at(self, share: float) -> Any:
        """The value below which a share (0 to 1) of the region lies; choices count in their order."""
        if self.choices is not None:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        domain, spans = self._number, self._spans
        total = sum(upper - lower for lower, upper in spans)
        if total <= 0:
            return self.intervals[min(int(share * len(spans)), len(spans) - 1)][0]
        rest = share * total
        for (low, high), (lower, upper) in zip(self.intervals, spans, strict=True):
            if rest <= upper - lower or (low, high) == self.intervals[-1]:
                return min(max(domain.at(lower + rest), low), high)
            rest -= upper - lower
        raise AssertionError("unreachable: the last interval takes what is left")

    def nearest(self, value: Any) -> Any:
        """The value itself where it is in the region, else the nearest number; the first choice where there is no
        nearness.
        """
        if value in self:
            return value
        if self.choices is not None:
            if isinstance(self.domain, Number):
                return min(self.choices, key=lambda choice: abs(choice - value))
            return self.choices[0]
        ends = [end for interval in self.intervals for end in interval]
        place = self._number.position
        return min(ends, key=lambda end: abs(place(end) - place(value)))

    @property
    def _number(self) -> Number:
        assert isinstance(self.domain, Number)
        return self.domain

    @cached_property
    def _spans(self) -> list[tuple[float, float]]:
        """Positions of the intervals; a value of a grid is as wide as the step around it."""
        domain, half = self._number, (self._number.step or 0) / 2
        return [(_beyond(domain, low, -half), _beyond(domain, high, half)) for low, high in self.intervals]


def whole_of(domain: Domain) -> Region:
    """All values of a domain."""
    values = domain.values()
    if values is not None:
        return Region(domain, values)
    assert isinstance(domain, Number)  # choices are few
    return Region(domain, None, ((domain.low, domain.high),))


def _beyond(domain: Number, value: float, distance: float) -> float:
    """The position of `value + distance`, which may lie outside 0 to 1."""
    if domain.low == domain.high:
        return 0.5
    if domain.log:
        return math.log((value + distance) / domain.low) / math.log(domain.high / domain.low)
    return (value + distance - domain.low) / (domain.high - domain.low)


@dataclass(frozen=True)
class Cell:
    """Neighbouring values between which no rule makes a difference, both ends included; `middle` stands for them."""

    low: float
    high: float
    middle: float


def cells(domain: Number, marks: Iterable[float]) -> tuple[Cell, ...]:
    """A number's values cut at thresholds: each threshold is a cell of its own, and so is what lies between two."""
    edges = sorted({domain.low, domain.high, *(mark for mark in marks if domain.low < mark < domain.high)})
    found = [_cell(domain, edges[0], edges[0])]
    for left, right in pairwise(edges):
        found += [_cell(domain, math.nextafter(left, math.inf), math.nextafter(right, -math.inf))]
        found += [_cell(domain, right, right)]
    return tuple(cell for cell in found if cell is not None)


def _cell(domain: Number, low: float, high: float) -> Cell | None:
    if domain.step is not None:
        low, high = _on_grid(domain, low, math.ceil), _on_grid(domain, high, math.floor)
    if low > high:
        return None
    middle = domain.snap((low + high) / 2)
    return Cell(low, high, middle)


def _on_grid(domain: Number, value: float, whole: Any) -> float:
    """The next grid value in the direction of `whole`, unless the value is on the grid but for rounding noise."""
    snapped = domain.snap(value)
    assert domain.step is not None
    if math.isclose(snapped, value, rel_tol=1e-12, abs_tol=1e-15):
        beyond = snapped != value and ((whole is math.ceil) == (value > snapped))
        return domain.snap(snapped + domain.step * (1 if whole is math.ceil else -1)) if beyond else snapped
    return domain.snap(domain.low + domain.step * whole((value - domain.low) / domain.step))


def merged(parts: Iterable[Cell]) -> tuple[tuple[float, float], ...]:
    """Intervals out of cells in ascending order; neighbours become one."""
    found: list[tuple[float, float]] = []
    for cell in parts:
        if found and math.nextafter(found[-1][1], math.inf) >= cell.low:
            found[-1] = (found[-1][0], cell.high)
        else:
            found.append((cell.low, cell.high))
    return tuple(found)
