"""Carried points and where they are from: values only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from search_spaces.space import Prior, Space
from tune_lora.knowledge._translate import CannotCarry, translate
from tune_lora.records import PRIOR, Direction

CARRIED = "carried:"

Scale = Literal["ranks", "as_is", "shown"]
"""How values of another study are told: as quantiles of this study's own results, as they are, or not at all."""


@dataclass(frozen=True)
class Reference:
    """A configuration to train before the sampler is asked; it may lie outside the space.

    `provenance` is ``prior:<name>`` or ``carried:<study>#<trial>`` and stands once in a study. `notes` say what was
    changed on the way. `seed` is the trial's; None: as the searcher numbers it.
    """

    provenance: str
    params: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Point:
    """A past trial in terms of this space. `value` is on its source's scale; without one it is only shown."""

    provenance: str
    params: Mapping[str, Any]
    value: float | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A past trial that cannot be carried. `reason` is what others may share (a range, a rule), `detail` its own."""

    provenance: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Source:
    """Past trials with one origin, judged together by the guard. `direction` is that of their values; `references` how
    many of them are trained first."""

    label: str
    points: tuple[Point, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    values: Scale = "as_is"
    direction: Direction = "minimize"
    references: int = 0

    @property
    def told(self) -> tuple[Point, ...]:
        """The points that the sampler is told of."""
        return tuple(point for point in self.points if point.value is not None and self.values != "shown")

    @property
    def reasons(self) -> dict[str, int]:
        """How many past trials were left out, by reason, the most frequent first."""
        return dict(Counter(item.reason for item in self.left_out).most_common())

    def summary(self) -> dict[str, Any]:
        """In plain data, without the points."""
        told = len(self.told)
        return {
            "source": self.label,
            "told": told,
            "shown": len(self.points) - told,
            "references": self.references,
            "values": self.values,
            "left_out": self.reasons,
        }


@dataclass(frozen=True)
class Knowledge:
    """All that a study starts with."""

    references: tuple[Reference, ...] = ()
    sources: tuple[Source, ...] = ()

    @classmethod
    def of(cls, space: Space, direction: Direction = "minimize", *, priors: bool | Sequence[str] = True) -> Knowledge:
        """What the space itself holds. `priors` are the names to run; True: all that the space does not hold back."""
        chosen = [prior for prior in space.priors if _is_chosen(prior, priors)]
        references = tuple(Reference(f"{PRIOR}{prior.name}", prior.params, _note(prior.note)) for prior in chosen)
        past = [(f"space:{item.name}", item.params, item.value, item.note) for item in space.observations]
        return cls(references, (observed("space", past, space, direction),) if past else ())


def observed(
    label: str,
    past: Sequence[tuple[str, Mapping[str, Any], float | None, str]],
    space: Space,
    direction: Direction,
) -> Source:
    """Past trials that somebody wrote down (provenance, values by name, result, note) as a source."""
    points, left_out = [], []
    for provenance, params, value, note in past:
        if value is None:  # of a trial without a result little may be known, and it is only shown
            points.append(Point(provenance, params, None, _note(note)))
            continue
        try:
            made = translate(params, space)
        except CannotCarry as reason:
            left_out.append(LeftOut(provenance, reason.reason, reason.detail))
        else:
            points.append(Point(provenance, made.params, value, (*_note(note), *made.notes)))
    return Source(label, tuple(points), tuple(left_out), "as_is", direction)


def _is_chosen(prior: Prior, priors: bool | Sequence[str]) -> bool:
    return (priors and prior.run) if isinstance(priors, bool) else prior.name in priors


def _note(text: str) -> tuple[str, ...]:
    return (text,) if text else ()
