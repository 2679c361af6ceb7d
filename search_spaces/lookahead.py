"""Whether a partly drawn configuration can still be completed without breaking a rule."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

from search_spaces.constraints import Clause
from search_spaces.domains import Number
from search_spaces.expressions import Expression
from search_spaces.regions import Cell, Region, cells, merged
from search_spaces.space import Space
from search_spaces.thresholds import thresholds
from tune_lora.errors import InputError

NODES = 100_000
"""Partial configurations looked at before the rules count as too entangled to search."""

_REMEMBERED = 50_000
_ABSENT = object()
_BISECTIONS = 24


@dataclass(frozen=True)
class _Watched:
    """A clause with the rule it belongs to and the parameters it depends on. `varying` are the names whose values may
    change.
    """

    number: int
    rule: str
    clause: Clause
    needs: frozenset[str]
    varying: tuple[str, ...]


class Lookahead:
    """Depth-first search over the parameters that rules ask about.

    Discrete parameters are tried value by value. A number that rules only compare with thresholds is tried once in each
    of the `Cell`s between them, which is exact. Any other number is tried at its ends, at what rules mention and
    between. A rule is checked as soon as all it asks about is known.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        watched = [
            _Watched(number, rule.name, clause, space.needs(clause.names), self._varying(clause.names))
            for number, (rule, clause) in enumerate((r, c) for r in space.constraints for c in r.clauses)
        ]
        self._ground = [item for item in watched if not item.needs]
        relevant = self._with_conditions({name for item in watched for name in item.needs})
        self.order = tuple(name for name in space.order if name in relevant)
        self._watching = {name: [item for item in watched if name in item.needs] for name in self.order}
        self._derived_from = {
            name: [item for item, made in space.derived.items() if name in space.needs(made.names)]
            for name in self.order
        }
        self.cells: dict[str, tuple[Cell, ...]] = {}
        self.points = {name: self._points(name) for name in self.order}
        self._known: dict[Any, str | None] = {}
        self._broken: dict[Any, bool] = {}
        self._regions: dict[Any, Region] = {}
        self._nodes = 0

    def obstacle(self, given: Mapping[str, Any]) -> str | None:
        """The name of a rule that stands in the way of completing `given`; None where some completion breaks no rule.

        Raises:
            InputError: more than `NODES` combinations were tried.
        """
        key = self._key(given)
        if key not in self._known:
            _forget(self._known)
            self._known[key] = self._look(dict(key))
        return self._known[key]

    def region(self, given: Mapping[str, Any], name: str) -> Region:
        """The values of a parameter with which `given` can still be completed.

        Exact for discrete parameters and for numbers that rules compare with thresholds. Else between two tried points
        that both lead somewhere all is taken to, so what is drawn there is to be checked with `obstacle`.

        Raises:
            InputError: as `obstacle`.
        """
        domain = self._space.parameters[name].domain
        if name not in self.points:
            values = domain.values()
            return Region(domain, values) if values is not None else Region(domain, None, ((domain.low, domain.high),))  # type: ignore[attr-defined]
        key = (name, self._key({other: value for other, value in given.items() if other != name}))
        if key not in self._regions:
            _forget(self._regions)
            self._regions[key] = self._find_region(dict(key[1]), name)
        return self._regions[key]

    def is_exact(self, name: str) -> bool:
        """Whether every value of `region` leads somewhere."""
        return name not in self.points or name in self.cells or self._space.parameters[name].domain.values() is not None

    def nearest_tried(self, given: Mapping[str, Any], name: str, value: Any) -> Any:
        """The tried point of a number nearest to a value that leads somewhere."""
        good = [point for point in self.points[name] if self.obstacle({**given, name: point}) is None]
        return min(good, key=lambda point: abs(point - value))

    def _find_region(self, given: dict[str, Any], name: str) -> Region:
        domain = self._space.parameters[name].domain
        good = [self.obstacle({**given, name: point}) is None for point in self.points[name]]
        if domain.values() is not None:
            return Region(domain, tuple(compress(self.points[name], good)))
        if name in self.cells:
            return Region(domain, None, merged(compress(self.cells[name], good)))
        return Region(domain, None, self._bisected(given, name, good))

    def _bisected(self, given: dict[str, Any], name: str, good: list[bool]) -> tuple[tuple[float, float], ...]:
        points, found = self.points[name], list[tuple[float, float]]()
        for index, point in enumerate(points):
            if not good[index]:
                continue
            low = point if index == 0 or good[index - 1] else self._border(given, name, point, points[index - 1])
            high = (
                point
                if index == len(points) - 1 or good[index + 1]
                else self._border(given, name, point, points[index + 1])
            )
            if found and index and good[index - 1]:
                found[-1] = (found[-1][0], high)
            else:
                found.append((low, high))
        return tuple(found)

    def _border(self, given: dict[str, Any], name: str, inside: float, outside: float) -> float:
        """The last value from `inside` towards `outside` that leads somewhere."""
        domain = self._space.parameters[name].domain
        for _ in range(_BISECTIONS):
            middle = domain.snap((inside + outside) / 2)
            if middle in (inside, outside):
                break
            if self.obstacle({**given, name: middle}) is None:
                inside = middle
            else:
                outside = middle
        return inside

    # --- what is watched ---------------------------------------------------------------------------------------------

    def _varying(self, names: frozenset[str]) -> tuple[str, ...]:
        return tuple(sorted(name for name in names if name in self._space.parameters or name in self._space.derived))

    def _with_conditions(self, names: set[str]) -> set[str]:
        """The parameters and those that decide whether they exist."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                when = self._space.parameters[name].when
                waiting.extend(self._space.needs(when.names) if when else ())
        return found

    def _points(self, name: str) -> tuple[Any, ...]:
        """Values to try, and the number's cells where rules only compare it with thresholds."""
        domain = self._space.parameters[name].domain
        if not isinstance(domain, Number) or domain.values() is not None:
            return domain.points()
        marks: set[float] = set()
        compared = [thresholds(expression, name) for expression in self._expressions_about(name)]
        for expression, found in zip(self._expressions_about(name), compared, strict=True):
            marks |= expression.constants if found is None else found
        if None in compared:
            return domain.points(marks)
        self.cells[name] = cells(domain, marks)
        return tuple(cell.middle for cell in self.cells[name])

    def _expressions_about(self, name: str) -> list[Expression]:
        """All expressions in which a parameter decides something, derived values among them."""
        parts = [part for item in self._watching[name] for part in (item.clause.when, item.clause.must)]
        parts += [self._space.derived[derived] for derived in self._derived_from[name]]
        parts += [self._space.parameters[other].when for other in self.order]
        return [part for part in parts if part is not None and name in part.names]

    def _key(self, given: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        """What of a configuration decides, cells standing for the numbers in them."""
        return tuple((name, self._stand_in(name, given[name])) for name in self.order if name in given)

    def _stand_in(self, name: str, value: Any) -> Any:
        parts = self.cells.get(name)
        if parts is None or isinstance(value, bool) or not isinstance(value, int | float):
            return value
        index = bisect_left(parts, value, key=lambda cell: cell.high)
        inside = index < len(parts) and parts[index].low <= value
        return parts[index].middle if inside else value

    # --- the search --------------------------------------------------------------------------------------------------

    def _look(self, given: dict[str, Any]) -> str | None:
        self._nodes = 0
        values, decided = dict(self._space.fixed), frozenset[str]()
        broken = next((item.rule for item in self._ground if item.clause.broken(values)), None)
        if broken:
            return broken
        for name, value in given.items():
            decided |= {name}
            values = self._with(values, decided, name, value)
            if (broken := self._first_broken(values, decided, name)) is not None:
                return broken
        blame: list[str] = []
        return None if self._search(0, values, decided, blame) else blame[0]

    def _search(self, index: int, values: dict[str, Any], decided: frozenset[str], blame: list[str]) -> bool:
        while index < len(self.order) and self.order[index] in decided:
            index += 1
        if index == len(self.order):
            return True
        name = self.order[index]
        decided |= {name}
        for value in self.points[name] if self._space.exists(name, values) else (_ABSENT,):
            self._count()
            tried = values if value is _ABSENT else self._with(values, decided, name, value)
            broken = self._first_broken(tried, decided, name)
            if broken is not None:
                blame.append(broken)
            elif self._search(index + 1, tried, decided, blame):
                return True
        return False

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > NODES:
            rules = ", ".join(rule.name for rule in self._space.constraints)
            raise InputError(
                f"the rules {rules} are too entangled: {NODES} combinations tried; must be fewer parameters a rule"
            )

    def _with(self, values: dict[str, Any], decided: frozenset[str], name: str, value: Any) -> dict[str, Any]:
        known = {**values, name: value}
        for derived in self._derived_from[name]:
            made = self._space.derived[derived]
            if self._space.needs(made.names) <= decided and made.names <= known.keys():
                known[derived] = made(known)
        return known

    def _first_broken(self, values: Mapping[str, Any], decided: frozenset[str], name: str) -> str | None:
        watching = (item for item in self._watching[name] if item.needs <= decided)
        return next((item.rule for item in watching if self._is_broken(item, values)), None)

    def _is_broken(self, item: _Watched, values: Mapping[str, Any]) -> bool:
        key = (item.number, *(values.get(name, _ABSENT) for name in item.varying))
        if key not in self._broken:
            _forget(self._broken)
            self._broken[key] = item.clause.broken(values)
        return self._broken[key]


def _forget(known: dict[Any, Any]) -> None:
    if len(known) > _REMEMBERED:
        known.clear()


def clashing(space: Space) -> list[str]:
    """Rules that no configuration can satisfy together, none of which could be left out; empty where the space has a
    point.
    """
    if Lookahead(space).obstacle({}) is None:
        return []
    rules = list(space.constraints)
    for rule in space.constraints:
        others = [other for other in rules if other is not rule]
        if Lookahead(replace(space, constraints=tuple(others))).obstacle({}) is not None:
            rules = others
    return [rule.name for rule in rules]
