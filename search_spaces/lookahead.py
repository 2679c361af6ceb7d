"""Whether a partly drawn configuration can still be completed without breaking a rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import compress
from typing import Any

from search_spaces.completion import Completer
from search_spaces.regions import Region, merged, whole_of
from search_spaces.space import Space
from search_spaces.watch import Watch, forget
from tune_lora.errors import InputError

_BISECTIONS = 12


class Lookahead:
    """What beginnings of a configuration lead somewhere, by search (`Completer`), and remembered.

    Every yes is proven by a
    completion. A no is certain unless rules compare numbers with each other, or are so entangled that the search of a
    beginning was given up, which then counts as leading nowhere.
    """

    def __init__(self, space: Space) -> None:
        self._space, self._watch = space, Watch(space)
        self._completer = Completer(space, self._watch)
        self._known: dict[Any, tuple[str | None, dict[str, Any]]] = {}
        self._regions: dict[Any, Region] = {}

    @property
    def is_certain(self) -> bool:
        """Whether a no is as certain as a yes."""
        return not self._watch.inexact

    def is_exact(self, name: str) -> bool:
        """Whether every value of a parameter's `region` leads somewhere."""
        return name not in self._watch.inexact

    def obstacle(self, given: Mapping[str, Any]) -> str | None:
        """The name of a rule that stands in the way of completing `given`; None where some completion breaks no rule.

        Raises:
            TooEntangled: `given` is empty, and nothing was found in `NODES` combinations.
        """
        return self._completed(self._watch.known(given))[0]

    def region(self, given: Mapping[str, Any], name: str) -> Region:
        """The values of a parameter with which `given` can still be completed.

        Exact for discrete parameters and for numbers that rules only compare with thresholds. Else all between tried
        values that lead somewhere is taken to lead there, so what is drawn is to be checked with `obstacle`.

        Raises:
            InputError: there is none, or as `obstacle`.
        """
        domain = self._space.parameters[name].domain
        if name not in self._watch.points:
            return whole_of(domain)
        known = {other: value for other, value in self._watch.known(given).items() if other != name}
        key = (name, *known.items())
        if key not in self._regions:
            forget(self._regions)
            self._regions[key] = self._find_region(known, name)
        if not self._regions[key]:
            raise InputError(
                f"no value of {name} keeps {self._completed(known)[0]} given {known}; widen its range or drop a rule"
            )
        return self._regions[key]

    def nearest_tried(self, given: Mapping[str, Any], name: str, value: Any) -> Any:
        """The value of a number nearest to `value` that is known to lead somewhere."""
        points = self._points_of(self._watch.known(given), name)
        good = [point for point in points if self.obstacle({**given, name: point}) is None]
        return min(good, key=lambda point: abs(point - value))

    # --- regions -----------------------------------------------------------------------------------------------------

    def _find_region(self, known: dict[str, Any], name: str) -> Region:
        domain, points = self._space.parameters[name].domain, self._points_of(known, name)
        good = [self.obstacle({**known, name: point}) is None for point in points]
        if domain.values() is not None:
            return Region(domain, tuple(compress(points, good)))
        if name in self._watch.cells:
            return Region(domain, None, merged(compress(self._watch.cells[name], good)))
        return Region(domain, None, tuple(self._bisected(known, name, points, good)))

    def _points_of(self, known: dict[str, Any], name: str) -> tuple[Any, ...]:
        """The values to try of a parameter; of an inexact number also that of the completion that is known."""
        points = self._watch.points[name]
        if name not in self._watch.inexact:
            return points
        completion = self._completed({other: value for other, value in known.items() if other != name})[1]
        return tuple(sorted({*points, completion[name]})) if name in completion else points

    def _bisected(
        self, known: dict[str, Any], name: str, points: tuple[Any, ...], good: list[bool]
    ) -> Iterator[tuple[float, float]]:
        """Intervals around runs of good points, out to the border with the bad ones beside them."""
        first = None
        for index, leads in enumerate(good):
            if leads and first is None:
                first = points[index] if not index else self._border(known, name, points[index], points[index - 1])
            if leads and (index + 1 == len(good) or not good[index + 1]):
                assert first is not None
                beside = points[min(index + 1, len(points) - 1)]
                yield first, self._border(known, name, points[index], beside)
                first = None

    def _border(self, known: dict[str, Any], name: str, inside: float, outside: float) -> float:
        """The last value from `inside` towards `outside` that leads somewhere."""
        domain = self._space.parameters[name].domain
        for _ in range(_BISECTIONS):
            middle = domain.snap((inside + outside) / 2)
            if middle in (inside, outside):
                break
            if self.obstacle({**known, name: middle}) is None:
                inside = middle
            else:
                outside = middle
        return inside

    # --- completions -------------------------------------------------------------------------------------------------

    def _completed(self, known: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """A rule in the way and nothing, or None and a completion."""
        key = tuple(known.items())
        if key not in self._known:
            forget(self._known)
            # The last value may be that of the completion of what comes before it, however hard that was to find.
            completion = self._known.get(key[:-1], (None, {}))[1] if key else {}
            goes_on = completion and key[-1][0] in completion and completion[key[-1][0]] == key[-1][1]
            self._known[key] = (None, completion) if goes_on else self._look(known)
        return self._known[key]

    def _look(self, known: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        values, decided = dict(self._space.fixed), frozenset[str]()
        broken = next((item.rule for item in self._watch.ground if item.clause.broken(values)), None)
        if broken:
            return broken, {}
        for name, value in known.items():
            decided |= {name}
            values = self._watch.extended(values, decided, name, value)
            if (broken := self._watch.first_broken(values, decided, name)) is not None:
                return broken, {}
        return self._completer.complete(values, decided)


def clashing(space: Space) -> list[str]:
    """Rules that no configuration can satisfy together, none of which could be left out; empty where the space has a
    point. With rules that compare numbers with each other: rules for which none was found.
    """
    if Lookahead(space).obstacle({}) is None:
        return []
    rules = list(space.constraints)
    for rule in space.constraints:
        others = [other for other in rules if other is not rule]
        if Lookahead(replace(space, constraints=tuple(others))).obstacle({}) is not None:
            rules = others
    return [rule.name for rule in rules]
