"""What the evidence says of a space's ranges: pure, from an analysis to changed settings of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu

from search_spaces.domains import Categorical, Domain, Number
from search_spaces.space import Space
from tune_lora.analysis import Edge, Evidence, best_of, edges, gaps, outside
from tune_lora.next_study import _ranges as ranges

ENOUGH = 20
"""Completed trials from which a range is made narrower: a wrong turn there cannot be seen in the next study."""
NARROWER = 0.75
"""Of a range, what must not be exceeded for a narrower one to be worth it."""
LEAST_OF_A_CHOICE = 5
"""Trials of a choice from which it may be dropped."""
LEVEL = 0.05
TOP_PLACES = 5
"""A reference outside the space is taken in from this place upwards."""


@dataclass(frozen=True)
class Change:
    """New settings of one parameter. `what` is done in a word (widened, narrowed, ...), `why` is the evidence."""

    name: str
    what: str
    was: str
    settings: Mapping[str, Any]
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what} from {self.was} to {ranges.described(self.settings)}: {self.why}"


@dataclass(frozen=True)
class Kept:
    """A change that the evidence asks for and that cannot be made, with the reason."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: left as it is: {self.why}"


def changes(evidence: Evidence, space: Space) -> list[Change | Kept]:
    """The changes that the evidence asks for, in the order of the space, several to a parameter where they follow from
    one another: each starts from the settings of the one before.
    """
    found: list[Change | Kept] = []
    for name in space.parameters:
        if name in evidence.bounded and name in space.source.get("parameters", {}):
            found += _Parameter(evidence, name, dict(space.source["parameters"][name])).changes()
    return found


class _Parameter:
    """One parameter on its way to new settings."""

    def __init__(self, evidence: Evidence, name: str, settings: dict[str, Any]) -> None:
        self._evidence, self._name, self._settings = evidence, name, settings
        self._domain: Domain = evidence.domains[name]

    def changes(self) -> list[Change | Kept]:
        """What is to be changed; nothing where the evidence says nothing."""
        found: list[Change | Kept] = [*self._taken_in()]
        hit = [edge for edge in edges(self._evidence) if edge.name == self._name and edge.is_hit]
        found += [self._at_edge(edge) for edge in hit]
        if isinstance(self._domain, Number):
            return found or list(self._narrowed(self._domain))
        return [*found, *self._offered(), *self._dropped()]

    def _changed(self, what: str, new: Mapping[str, Any], why: str) -> Change:
        was = ranges.described(self._settings)
        self._settings = {**self._settings, **new}
        return Change(self._name, what, was, dict(self._settings), why)

    def _taken_in(self) -> Iterator[Change]:
        for one in outside(self._evidence):
            if one.name != self._name or one.place > TOP_PLACES:
                continue
            why = f"trial {one.trial} ({one.provenance}), in place {one.place}, lies outside with {one.value}"
            if isinstance(self._domain, Categorical):
                yield self._changed("widened", {"choices": _with([one.value], self._settings["choices"])}, why)
            elif isinstance(self._domain, Number) and (new := ranges.holding(self._domain, one.value)):
                yield self._changed("widened", new, why)

    def _at_edge(self, edge: Edge) -> Change | Kept:
        why = (
            f"{edge.near} of the best {edge.top} trials lie at its {edge.end} end, where evenly drawn "
            f"{edge.expected:.1f} would"
        )
        if isinstance(self._domain, Number):
            new = ranges.wider(self._domain, edge.end)
            return self._changed("widened", new, why) if new else Kept(self._name, f"{why}; it cannot go further")
        choices = sorted(self._settings["choices"])
        value = ranges.beyond(choices, edge.end)
        if value is None:
            return Kept(self._name, f"{why}; no value follows {edge.at}")
        return self._changed("widened", {"choices": _with([value], choices)}, why)

    def _narrowed(self, domain: Number) -> Iterator[Change]:
        evidence, effect = self._evidence, self._evidence.effect(self._name)
        if effect is None or len(evidence.record.ranked()) < ENOUGH:
            return
        top = best_of(evidence)
        values = [evidence.record.tried(one).get(self._name) for one in top]
        numbers = [value for value in values if isinstance(value, int | float) and domain.contains(value)]
        if len(numbers) < len(top):
            return
        new = ranges.narrower(domain, numbers)
        low, high = new.get("low", domain.low), new.get("high", domain.high)
        if new and domain.position(high) - domain.position(low) <= NARROWER:
            inside = f"{min(numbers):g} to {max(numbers):g}"
            why = f"it matters, and the best {len(top)} trials lie within {inside}"
            shifted = ranges.moved(domain, new)
            yield self._changed("moved" if len(shifted) > len(new) else "narrowed", shifted, why)

    def _offered(self) -> Iterator[Change]:
        for gap in gaps(self._evidence):
            if gap.name == self._name:
                choices = _with(gap.between, self._settings["choices"])
                why = f"{gap.best} stands best, and what lies beside it was not offered"
                yield self._changed("offered between", {"choices": choices}, why)

    def _dropped(self) -> Iterator[Change]:
        """Choices that are told apart as worse than the others, and that none of the best trials has."""
        evidence = self._evidence
        if evidence.effect(self._name) is None or len(evidence.record.ranked()) < ENOUGH:
            return
        best = {repr(evidence.record.tried(one).get(self._name)) for one in best_of(evidence)}
        tried = [evidence.record.tried(one).get(self._name) for one in evidence.looked_at]
        for choice in (self._domain.values() or ())[:]:
            has = np.array([repr(value) == repr(choice) for value in tried])
            left = [one for one in self._settings["choices"] if repr(one) != repr(choice)]
            if has.sum() < LEAST_OF_A_CHOICE or has.all() or repr(choice) in best or len(left) < 2:
                continue
            test = mannwhitneyu(evidence.standing[has], evidence.standing[~has], alternative="greater")
            if test.pvalue <= LEVEL / len(self._domain.values() or (1,)):
                why = f"its {has.sum()} trials with {choice} stand behind the others, none of the best has it"
                yield self._changed("narrowed", {"choices": left}, why)


def _with(new: Sequence[Any], choices: Sequence[Any]) -> list[Any]:
    """The choices with more of them, numbers in their order."""
    both = list(dict.fromkeys([*choices, *new]))
    are_numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in both)
    return sorted(both) if are_numbers else both
