"""Small pictures for the trial pages, within a budget of bytes: of the best larger ones, and at every rung."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tune_lora.records import StudyRecord, TrialRecord
from tune_lora.report._pictures import PER_TRIAL, of_study

BYTES = 6_000_000
"""Of all thumbnails together; a report of any study stays well under 15 MB."""
LARGE_FOR, LARGE, SMALL = 10, 480, 256
"""So many of the best have their pictures at every rung with sides of up to `LARGE` pixels; the others `SMALL`."""
TRIALS = 300
"""With thumbnails: to read, shrink and write one takes 10 to 20 ms."""
RUNGS = 6
"""Evaluations shown of one of the best: the newest, the first, and evenly chosen ones between."""
SMALL_PICTURES = 2
"""Shown of a trial that is not among the best."""


def thumbnails(record: StudyRecord, folder: Path) -> dict[int, list[dict[str, Any]]]:
    """By trial its pictures as ``{budget, label, uri}``, the first evaluation first; best trials first in the budget.

    A picture that is missing or broken has an empty `uri`; of a trial that the budget has no room for none is there.
    """
    left, found = BYTES, {}
    for trial, is_large in _in_order(record):
        made = list(_of(trial, folder, is_large=is_large))
        cost = sum(len(one["uri"]) for one in made)
        if cost > left:
            break
        left -= cost
        found[trial.number] = made
    return found


def base_thumbnails(record: StudyRecord, folder: Path) -> list[dict[str, Any]]:
    """The untrained base's pictures, to stand beside a trial's."""
    shown = list(record.base_images.items())[:PER_TRIAL]
    return [{"label": label, "uri": _uri(folder, relative, LARGE)} for label, relative in shown]


def _in_order(record: StudyRecord) -> list[tuple[TrialRecord, bool]]:
    ranked = [trial for trial in record.ranked() if trial.images]
    if record.winner in ranked:  # what was verified may not be what led the search
        ranked.sort(key=lambda trial: trial is not record.winner)
    others = [trial for trial in record.trials if trial.images and trial.state != "complete"]
    return [(trial, place < LARGE_FOR) for place, trial in enumerate([*ranked, *others][:TRIALS])]


def _of(trial: TrialRecord, folder: Path, *, is_large: bool) -> Iterator[dict[str, Any]]:
    budgets = sorted(trial.images)
    for budget in _rungs(budgets) if is_large else budgets[-1:]:
        shown = list(trial.images[budget].items())[: PER_TRIAL if is_large else SMALL_PICTURES]
        for label, relative in shown:
            yield {"budget": budget, "label": label, "uri": _uri(folder, relative, LARGE if is_large else SMALL)}


def _rungs(budgets: list[int]) -> list[int]:
    if len(budgets) <= RUNGS:
        return budgets
    return sorted({budgets[round(place * (len(budgets) - 1) / (RUNGS - 1))] for place in range(RUNGS)})


def _uri(folder: Path, relative: str, longest: int) -> str:
    return of_study(folder, relative, "", longest, quality=75).uri
