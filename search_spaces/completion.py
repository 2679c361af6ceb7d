"""The search for a configuration that breaks no rule, from any beginning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from search_spaces import gaps
from search_spaces.domains import Number
from search_spaces.expressions import Expression
from search_spaces.regions import whole_of
from search_spaces.space import Space
from search_spaces.watch import Watch
from tune_lora.errors import InputError

NODES = 20_000
"""Partial configurations looked at before the rules count as too entangled to search; a tenth from a beginning."""
STARTS = 64
"""Random beginnings of a configuration tried before rules that compare numbers with each other count as clashing."""

_NODES_A_GAP = 20
_ABSENT = object()

Points = Mapping[str, tuple[Any, ...]]


class TooEntangled(InputError):
    """`NODES` combinations were not enough to tell whether there is a configuration."""


class Completer:
    """Depth-first search over the parameters that rules ask about; see `Watch` for the values it tries.

    Parameters that no rule connects are searched apart. A rule is checked as soon as all it asks about is known. Where
    none of the tried values of a number keeps the rules, what rules about two numbers leave open between them is sought
    (`gaps`).
    """

    def __init__(self, space: Space, watch: Watch) -> None:
        self._space, self._watch = space, watch
        self._nodes = 0

    def complete(self, values: dict[str, Any], decided: frozenset[str]) -> tuple[str | None, dict[str, Any]]:
        """A rule in the way and nothing, or None and a completion of `values`, which hold the `decided` parameters.

        A beginning whose search is given up counts as leading nowhere.

        Raises:
            TooEntangled: nothing is decided, and nothing was found in `NODES` combinations.
        """
        limit = NODES // 10 if decided else NODES
        found, rule = self._searched(values, decided, self._watch.points, limit)
        if found is None and not decided:
            gave_up = self._nodes > limit
            found = self._from_anywhere(values)
            if found is None and gave_up:
                rules = ", ".join(rule.name for rule in self._space.constraints)
                raise TooEntangled(
                    f"the rules {rules} are too entangled: {NODES} combinations tried; must be fewer parameters a rule"
                )
        return (rule, {}) if found is None else (None, found)

    def _from_anywhere(self, values: dict[str, Any]) -> dict[str, Any] | None:
        """A whole configuration that begins at random numbers, where those that are usually tried lead nowhere."""
        random = np.random.default_rng(0)
        inexact = {name: whole_of(self._space.parameters[name].domain) for name in sorted(self._watch.inexact)}
        for _ in range(STARTS if inexact else 0):
            drawn = {name: (region.uniform(random),) for name, region in inexact.items()}
            found, _rule = self._searched(values, frozenset(), {**self._watch.points, **drawn}, NODES // 10)
            if found is not None:
                return found
        return None

    def _searched(
        self, values: dict[str, Any], decided: frozenset[str], points: Points, limit: int
    ) -> tuple[dict[str, Any] | None, str]:
        """A completion, or None and the first rule that was in the way."""
        self._nodes = 0
        for names in self._watch.components(decided):
            blame: list[str] = []
            found = self._search(names, values, decided, blame, points, limit)
            if found is None:
                return None, blame[0]
            values, decided = found, decided | set(names)
        return values, ""

    def _search(
        self,
        names: tuple[str, ...],
        values: dict[str, Any],
        decided: frozenset[str],
        blame: list[str],
        points: Points,
        limit: int,
    ) -> dict[str, Any] | None:
        if not names:
            return values
        name, *_ = names
        decided |= {name}
        for value in self._tried(name, values, decided, points) if self._space.exists(name, values) else (_ABSENT,):
            self._nodes += 1
            if self._nodes > limit:
                return None
            tried = values if value is _ABSENT else self._watch.extended(values, decided, name, value)
            broken = self._watch.first_broken(tried, decided, name)
            if broken is not None:
                blame.append(broken)
            elif (found := self._search(names[1:], tried, decided, blame, points, limit)) is not None:
                return found
        return None

    def _tried(self, name: str, values: Mapping[str, Any], decided: frozenset[str], points: Points) -> Iterator[Any]:
        yield from points[name]
        domain = self._space.parameters[name].domain
        if name in self._watch.inexact and isinstance(domain, Number):
            asked = [margin for item in self._watch.complete(name, decided) for margin in gaps.margins(item.clause)]
            self._nodes += _NODES_A_GAP * len(asked)

            def height(margin: Expression, position: float) -> float:
                return float(margin(self._watch.extended(values, decided, name, domain.at(position))))

            yield from gaps.candidates(domain, [partial(height, margin) for margin in asked])
