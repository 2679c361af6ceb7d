"""Whether a partly drawn configuration can still be completed without breaking a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from search_spaces.constraints import Clause
from search_spaces.space import Space
from tune_lora.errors import InputError

NODES = 100_000
"""Partial configurations looked at before the rules count as too entangled to search."""

_REMEMBERED = 50_000
_ABSENT = object()


@dataclass(frozen=True)
class _Watched:
    """A clause with the rule it belongs to and the parameters it depends on. `varying` are the names whose values may
    change.
    """

    rule: str
    clause: Clause
    needs: frozenset[str]
    varying: tuple[str, ...]


class Lookahead:
    """Depth-first search over the parameters that rules ask about.

    Discrete parameters are tried value by value; continuous ones at their ends, at every number that a rule mentions,
    and between those, which is exact where rules compare a parameter with a number. A rule is checked as soon as all it
    asks about is known.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        watched = [self._watch(rule.name, clause) for rule in space.constraints for clause in rule.clauses]
        self._ground = [item for item in watched if not item.needs]
        relevant = self._with_conditions({name for item in watched for name in item.needs})
        self.order = tuple(name for name in space.order if name in relevant)
        self._watching = {name: [item for item in watched if name in item.needs] for name in self.order}
        self._derived_from = {
            name: [item for item, made in space.derived.items() if name in space.needs(made.names)]
            for name in self.order
        }
        marks = {
            name: {mark for item in watched if name in item.needs for mark in item.clause.constants}
            for name in self.order
        }
        self.points = {name: space.parameters[name].domain.points(marks[name]) for name in self.order}
        self._known: dict[Any, str | None] = {}
        self._broken: dict[Any, bool] = {}
        self._nodes = 0

    def obstacle(self, given: Mapping[str, Any]) -> str | None:
        """The name of a rule that stands in the way of completing `given`; None where some completion breaks no rule.

        Raises:
            InputError: more than `NODES` combinations were tried.
        """
        key = tuple((name, given[name]) for name in self.order if name in given)
        if key not in self._known:
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            self._known[key] = self._look(dict(key))
        return self._known[key]

    def _watch(self, rule: str, clause: Clause) -> _Watched:
        varying = sorted(name for name in clause.names if name in self._space.parameters or name in self._space.derived)
        return _Watched(rule, clause, self._space.needs(clause.names), tuple(varying))

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
        key = (id(item), *(values.get(name, _ABSENT) for name in item.varying))
        if key not in self._broken:
            if len(self._broken) > _REMEMBERED:
                self._broken.clear()
            self._broken[key] = item.clause.broken(values)
        return self._broken[key]


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
