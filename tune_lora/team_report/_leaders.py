"""The winner beside what it must beat, and the best five."""

from __future__ import annotations

from collections.abc import Iterator

from tune_lora import baseline, wording
from tune_lora.records import CLOCK, PRIOR, StudyRecord, TrialRecord, pareto
from tune_lora.team_report._parts import (
    Block,
    Bullets,
    Cell,
    Comparer,
    Heading,
    Panels,
    Paragraph,
    Pictures,
    Table,
)  # fmt: skip
from tune_lora.team_report._place import There

TOP = 5
METRICS = 5
"""Measures that stand beside the score, at most."""
PICTURES = "images"
"""What the table of pictures is called in a run (`tune_lora.tracking_runs`)."""


def against(record: StudyRecord, there: There) -> Iterator[Block]:
    """The winner, the study's baseline, its other reference configurations and the untrained base."""
    winner, others = record.winner, _references(record)
    if winner is None or not (others or record.baseline):
        return
    yield Heading("Best against baseline and reference")
    names = _metrics(record, winner)
    rows = [_row(record, there, "winner", winner, names)]
    rows += [_row(record, there, name, trial, names) for name, trial in others if trial is not winner]
    if record.baseline:
        rows.append(_untrained(record, names))
    head = ("", "trial", *_values_head(record), "winner is better by", *names)
    yield Table(head, tuple(rows), frozenset(range(2, len(head))))
    if record.verification.get("untrained"):
        yield Paragraph((f"The winner is {wording.improvement(record)}; the table has what the search measured.",))
    if any(trial is winner for _, trial in others):
        yield Paragraph(("The winner is one of the reference configurations: the search found nothing better.",))
    yield from _changes(record)
    runs = there.some_runs("winner and references", [winner, *(trial for _, trial in others)])
    if runs is not None and len(runs.ids) > 1:
        yield Panels(runs, (Comparer(),))


def top(record: StudyRecord, there: There) -> Iterator[Block]:
    """The best five side by side with their pictures; the front, where there is one."""
    leaders = record.ranked()[:TOP]
    if not leaders:
        return
    yield Heading(f"The top {len(leaders)}")
    if record.has_several:
        yield Bullets(tuple((line,) for line in wording.trade(record)))
    shared, front = wording.shared_settings(record), {one.number for one in pareto(record)}
    rows: list[tuple[Cell, ...]] = []
    for trial in leaders:
        mark = "front" if trial.number in front else "recommended" if trial is record.winner else ""
        told = [f"{name} {text}" for name, text in wording.settings(trial.config).items() if name not in shared]
        rows.append((there.link(trial.number), *wording.values(record, trial), mark, ", ".join(told)))
    head = ("trial", *_values_head(record), "", "configuration")
    yield Table(head, tuple(rows), frozenset(range(len(head) - 2)))
    yield from _pictures(leaders, there)


def _pictures(leaders: list[TrialRecord], there: There) -> Iterator[Block]:
    drawn = [trial for trial in leaders if trial.images]
    if not drawn:
        return
    yield Heading("What they draw", 2)
    runs = there.some_runs(f"the top {len(leaders)}", drawn)
    if runs is None:
        yield Paragraph(("Their runs are not uploaded.",))
        return
    yield Panels(runs, (Pictures(PICTURES),))


def _references(record: StudyRecord) -> list[tuple[str, TrialRecord]]:
    """The completed reference configurations by name, the baseline first."""
    found = [(record.origin(trial), trial) for trial in record.ranked()]
    named = [(name.removeprefix(PRIOR), trial) for name, trial in found if name.startswith(PRIOR)]
    return sorted(named, key=lambda one: (one[0] != baseline.BASELINE, one[1].number))


def _metrics(record: StudyRecord, winner: TrialRecord) -> list[str]:
    left_out = {*CLOCK, record.score_name, *(one.name for one in record.objectives)}
    names = [name for name in winner.metrics if name not in left_out and not name.startswith("fold_")]
    names.sort(key=lambda name: name not in record.baseline)  # what was measured of the untrained base as well first
    return names[:METRICS]


def _row(record: StudyRecord, there: There, name: str, trial: TrialRecord, metrics: list[str]) -> tuple[Cell, ...]:
    is_winner = trial is record.winner
    values = wording.values(record, trial)
    if is_winner and not record.has_several:
        values = [wording.number(record.winner_in_the_search)]
    better = "" if is_winner else _better(record, trial.value)
    measured = [wording.number(trial.metrics.get(one)) for one in metrics]
    return (name, there.link(trial.number), *values, better, *measured)


def _untrained(record: StudyRecord, metrics: list[str]) -> tuple[Cell, ...]:
    wanted = [one.name for one in record.objectives] or [record.score_name]
    values = [wording.number(record.baseline.get(name)) for name in wanted]
    measured = [wording.number(record.baseline.get(name)) for name in metrics]
    return (record.untrained_name, "", *values, _better(record, record.untrained), *measured)


def _better(record: StudyRecord, value: float | None) -> str:
    best = record.winner_in_the_search
    if record.has_several or best is None or not value:
        return "–"
    gain = value - best if record.direction == "minimize" else best - value
    return wording.percent(100 * gain / abs(value))


def _values_head(record: StudyRecord) -> list[str]:
    return [f"{one.name} ({one.direction}d)" for one in record.objectives] or [record.score_name]


def _changes(record: StudyRecord) -> Iterator[Block]:
    rows = wording.against_baseline_trial(record)
    if not rows or all(change == "same" for _, _, _, change, _ in rows):
        return
    yield Heading("What the winner does differently from the baseline", 2)
    head = ("hyperparameter", "baseline", "winner", "change", "other trials with another value")
    yield Table(head, tuple(rows), frozenset({1, 2, 3}))
    if stages := wording.stages(record):
        yield Paragraph((f"{wording.capital(stages)}.",))
