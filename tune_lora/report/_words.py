"""What the page says in sentences beside its tables: findings, the success table, what people liked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tune_lora import analysis, findings_view, preferences, rating_view, verify_words, wording
from tune_lora import verification as verifications
from tune_lora.analysis import Finding
from tune_lora.records import StudyRecord


@dataclass(frozen=True)
class Success:
    """The success table: a heading, a row a criterion (name, measured, goal, holds, note), how the trials spread."""

    heading: str
    rows: tuple[tuple[str, str, str, bool | None, str], ...]
    spread: tuple[str, ...]


@dataclass(frozen=True)
class Again:
    """The leaders measured again: a heading, a row each (trial, in the search, now, interval, is the best), and what it
    means."""

    heading: str
    rows: tuple[tuple[int, str, str, str, str], ...]
    failed: tuple[tuple[int, str], ...]
    lines: tuple[str, ...]


def findings(record: StudyRecord) -> tuple[Finding, ...]:
    """Each sign; none of a study without trials."""
    return analysis.findings(record) if record.trials else ()


def success(record: StudyRecord) -> Success | None:
    """None unless image LoRAs were trained."""
    table = analysis.success_table(record) if record.trials else None
    if table is None:
        return None
    return Success(
        table.summary,
        tuple((one.name, one.measured, one.goal, one.holds, one.note) for one in table.criteria),
        tuple(findings_view.distribution(one) for one in table.distributions),
    )


def again(record: StudyRecord, place: str) -> Again | None:
    """None where the leaders were not measured again; `place` is what the study is named by."""
    found = verifications.of(record)
    if found is None:
        return None
    said = found.deciding
    rows = ((one.trial, *verify_words.cells(one)) for one in said.candidates)
    lines = tuple(verify_words.lines(found, place))
    return Again(verify_words.heading(said), tuple(rows), tuple(said.failed.items()), lines)


def liked(record: StudyRecord) -> dict[str, Any] | None:
    """What people preferred, beside the study's own order; None where nobody rated."""
    found = preferences.of(record)
    if found is None:
        return None
    trials = {trial.number: trial for trial in record.trials}
    places = {trial.number: str(place) for place, trial in enumerate(record.ranked(), start=1)}
    rows = [
        (
            one.trial,
            rating_view.liked(one),
            f"{one.chance:.0%}",
            places.get(one.trial, "–"),
            wording.result(record, trials[one.trial]),
        )
        for one in found.likings
    ]
    return {"rows": rows, "lines": rating_view.lines(found)}
