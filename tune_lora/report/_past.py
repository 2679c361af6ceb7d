"""What the search space knows beside its ranges: past trials that were never scored, and the reasons of its rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.space import Space
from tune_lora import wording
from tune_lora.errors import InputError
from tune_lora.store import StudyRecord


@dataclass(frozen=True)
class PastTrial:
    """A trial from before the study, in words."""

    name: str
    settings: dict[str, str]
    value: str
    note: str


def past_trials(record: StudyRecord) -> list[PastTrial]:
    """The past trials that were carried into the study; of a study from before they were written down, its space's."""
    if record.carried:
        return [_carried(point, record.let_go) for point in record.carried]
    space = _space(record)
    if space is None:
        return []
    return [
        PastTrial(past.name, wording.settings(past.params), wording.number(past.value), past.note)
        for past in space.observations
    ]


def _carried(point: Mapping[str, Any], let_go: Mapping[str, str]) -> PastTrial:
    notes = [*point["notes"], *(["let go"] if point["source"] in let_go and point["value"] is not None else [])]
    shown = wording.settings(point["params"])
    return PastTrial(point["provenance"], shown, wording.number(point["value"]), "; ".join(notes))


def reasons(record: StudyRecord) -> dict[str, str]:
    """Why each rule of the space is there, by its name."""
    space = _space(record)
    return {rule.name: rule.reason for rule in space.constraints} if space else {}


def _space(record: StudyRecord) -> Space | None:
    described = record.spec.get("space")
    if not described:
        return None
    try:
        return Space.load(described)
    except InputError:  # the space's file has moved since; the report lives without it
        return None
