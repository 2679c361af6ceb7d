"""Whether the phases of a study fit its space, and where the first one starts."""

from __future__ import annotations

from typing import Any

from search_spaces.space import Space
from tune_lora.errors import InputErrors, nearest
from tune_lora.spec import StudySpec


def start_of(space: Space) -> dict[str, Any]:
    """Where the first phase starts: the space's defaults, and what is fixed in place of a parameter."""
    return dict(space.complete({}))


def check(spec: StudySpec, space: Space) -> None:
    """Whether the phases fit the space.

    Raises:
        InputErrors: they name parameters that it does not have, or it lacks a default to start from.
    """
    mistakes, config = [], start_of(space)
    for number, phase in enumerate(spec.phases):
        for name in phase.parameters:
            if name not in space.parameters:
                hint = nearest(name, space.parameters)
                mistakes.append(f"phases.{number}.parameters: unknown parameter {name!r}; {hint}")
        for claim in phase.claims:
            mistakes += [
                f"phases.{number}.claims: {name!r} is not searched in this phase; {nearest(name, phase.parameters)}"
                for name in claim.change
                if name not in phase.parameters
            ]
    names = [phase.name for phase in spec.phases]
    mistakes += [
        f"phases: {name!r} is given twice; must be different names" for name in set(names) if names.count(name) > 1
    ]
    unset = (name for name in space.parameters if space.exists(name, space.resolve(config)) and name not in config)
    mistakes += [f"space: {name} has no default; must have one, since the first phase starts from it" for name in unset]
    if spec.objective.several:
        mistakes.append("objective.metrics: a study of phases compares one value; must be one metric and its direction")
    if mistakes:
        raise InputErrors(mistakes)
