"""Which rules watch which parameters, and which values of those are worth trying."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.constraints import Clause
from search_spaces.domains import Number
from search_spaces.expressions import Expression
from search_spaces.regions import Cell, cells
from search_spaces.space import Space
from search_spaces.thresholds import thresholds

REMEMBERED = 50_000
"""Entries of a memory before it is emptied."""

_ABSENT = object()


@dataclass(frozen=True)
class Watched:
    """A clause with the rule it belongs to and the parameters it depends on. `varying` are the names whose values may
    change.
    """

    number: int
    rule: str
    clause: Clause
    needs: frozenset[str]
    varying: tuple[str, ...]


class Watch:
    """The parameters that rules ask about, in the order in which they are drawn.

    `points` are the values to try: all of a discrete parameter; one in each of the `cells` of a number that rules only
    compare with thresholds; of any other number (`inexact`) its ends, what rules mention and what lies between.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        listed = [(rule.name, clause) for rule in space.constraints for clause in rule.clauses]
        watched = [
            Watched(number, rule, clause, space.needs(clause.names), self._varying(clause.names))
            for number, (rule, clause) in enumerate(listed)
        ]
        self.ground = [item for item in watched if not item.needs]
        relevant = self._with_conditions({name for item in watched for name in item.needs})
        self.order = tuple(name for name in space.order if name in relevant)
        self.watching = {name: [item for item in watched if name in item.needs] for name in self.order}
        self._derived_from = {
            name: [item for item, made in space.derived.items() if name in space.needs(made.names)]
            for name in self.order
        }
        self.cells: dict[str, tuple[Cell, ...]] = {}
        self.points = {name: self._points(name) for name in self.order}
        self.inexact = frozenset(
            name for name in self.order if name not in self.cells and space.parameters[name].domain.values() is None
        )
        self._broken: dict[Any, bool] = {}
        self._components: dict[frozenset[str], tuple[tuple[str, ...], ...]] = {}

    def known(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What of a configuration rules ask about, in order; of numbers in cells, what stands for them."""
        return {name: self._stand_in(name, given[name]) for name in self.order if name in given}

    def components(self, decided: frozenset[str]) -> tuple[tuple[str, ...], ...]:
        """The parameters that are still open, in groups that no rule or condition connects."""
        if decided not in self._components:
            forget(self._components)
            links = [item.needs - decided for items in self.watching.values() for item in items]
            links += [frozenset(self._with_conditions({name})) - decided for name in self.order if name not in decided]
            self._components[decided] = tuple(self._joined(links))
        return self._components[decided]

    def _joined(self, links: Iterable[frozenset[str]]) -> Iterator[tuple[str, ...]]:
        groups: list[set[str]] = []
        for link in filter(None, links):
            touched = [group for group in groups if group & link]
            groups = [group for group in groups if not group & link] + [set(link).union(*touched)]
        for group in sorted(groups, key=len):
            yield tuple(name for name in self.order if name in group)

    def extended(self, values: Mapping[str, Any], decided: frozenset[str], name: str, value: Any) -> dict[str, Any]:
        """`values` with one more and what can be derived from it; `decided` are the parameters known by then."""
        known = {**values, name: value}
        for derived in self._derived_from[name]:
            made = self._space.derived[derived]
            if self._space.needs(made.names) <= decided and made.names <= known.keys():
                known[derived] = made(known)
        return known

    def complete(self, name: str, decided: frozenset[str]) -> list[Watched]:
        """The clauses about a parameter for which all that they need is decided."""
        return [item for item in self.watching[name] if item.needs <= decided]

    def first_broken(self, values: Mapping[str, Any], decided: frozenset[str], name: str) -> str | None:
        """The first rule about a parameter that is broken, of those for which all is decided."""
        return next((item.rule for item in self.complete(name, decided) if self._is_broken(item, values)), None)

    def _is_broken(self, item: Watched, values: Mapping[str, Any]) -> bool:
        key = (item.number, *(values.get(name, _ABSENT) for name in item.varying))
        if key not in self._broken:
            forget(self._broken)
            self._broken[key] = item.clause.broken(values)
        return self._broken[key]

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
        domain = self._space.parameters[name].domain
        if not isinstance(domain, Number) or domain.values() is not None:
            return domain.points()
        asked = self._expressions_about(name)
        compared = [thresholds(expression, name) for expression in asked]
        marks: set[float] = set()
        for expression, found in zip(asked, compared, strict=True):
            marks |= expression.constants if found is None else found
        if None in compared:
            return domain.points(marks)
        self.cells[name] = cells(domain, marks)
        return tuple(cell.middle for cell in self.cells[name])

    def _expressions_about(self, name: str) -> list[Expression]:
        """All expressions in which a parameter decides something, derived values among them."""
        parts = [part for item in self.watching[name] for part in (item.clause.when, item.clause.must)]
        parts += [self._space.derived[derived] for derived in self._derived_from[name]]
        parts += [self._space.parameters[other].when for other in self.order]
        return [part for part in parts if part is not None and name in part.names]

    def _stand_in(self, name: str, value: Any) -> Any:
        parts = self.cells.get(name)
        if parts is None or isinstance(value, bool) or not isinstance(value, int | float):
            return value
        index = bisect_left(parts, value, key=lambda cell: cell.high)
        inside = index < len(parts) and parts[index].low <= value
        return parts[index].middle if inside else value


def forget(memory: dict[Any, Any]) -> None:
    """Empties a memory that has grown too large."""
    if len(memory) > REMEMBERED:
        memory.clear()
