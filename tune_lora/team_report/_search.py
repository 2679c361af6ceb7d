"""How the search went: its course, which hyperparameters matter, how many trials came through each rung."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tune_lora import analysis, wording
from tune_lora.analysis import Finding
from tune_lora.records import StudyRecord, TrialRecord
from tune_lora.team_report._parts import (
    Axis,
    Block,
    Curves,
    Heading,
    Importance,
    Panels,
    Paragraph,
    Parallel,
    Scatter,
    Table,
)  # fmt: skip
from tune_lora.team_report._place import There
from tune_lora.tracking_messages import BUDGET

AXES = 10
"""Hyperparameters among the parallel coordinates, at most: the most important ones."""
CURVES = 100
"""Learning curves in one panel, at most."""
RUNGS = 12
"""Rungs in the table, at most."""
_BAR = 20


def course(record: StudyRecord, there: There, found: Iterable[Finding]) -> Iterator[Block]:
    """Results in their order, learning curves and parallel coordinates."""
    yield Heading("How the search went")
    if not any(there.has(trial.number) for trial in record.trials):
        yield Paragraph(("No run is uploaded.",))
        return
    order = Axis("config", "trial.number")
    points = [
        Scatter(f"{name}, trial by trial", order, axis, "min" if is_minimized else "max")
        for name, axis, is_minimized in goals(record)
    ]
    curves = Curves("What the scheduler saw of each trial as it trained", BUDGET, "score", CURVES)
    values = [Axis("summary", axis.name, is_inverted=is_minimized) for _, axis, is_minimized in goals(record)]
    parallel = Parallel("Parallel coordinates: a line a completed trial", (*_axes(record, found), *values))
    yield Panels(there.all_runs(record), (*points, curves, parallel))


def importance(found: Iterable[Finding]) -> Iterator[Block]:
    """What is told apart from chance, and the shares."""
    yield Heading("Which hyperparameters matter")
    told = next((one for one in found if one.key == "importance"), None)
    if told is not None:
        yield Paragraph((f"{wording.capital(told.sentence)}.",))
        rows = tuple(
            (
                name, wording.number(share), f"{wording.number(low)} to {wording.number(high)}",
                wording.number(told.numbers["among_best"].get(name)),
                "yes" if name in told.numbers["told_apart"] else "no",
            )
            for name, (share, low, high) in told.numbers["shares"].items()
        )  # fmt: skip
        head = ("hyperparameter", "share", "on halves of the trials", "share among the best", "told apart from chance")
        if rows:
            yield Table(head, rows, frozenset({1, 2, 3}))


def wandb_importance(record: StudyRecord, there: There) -> Iterator[Block]:
    """The panel of W&B itself beside ours."""
    if not any(there.has(trial.number) for trial in record.ranked()):
        return
    yield Paragraph(
        ("W&B's own estimate, from completed trials alone; it knows neither the ranges nor what chance does:",)
    )
    yield Panels(there.all_runs(record), tuple(Importance(axis.name) for _, axis, _ in goals(record)))


def survival(record: StudyRecord) -> Iterator[Block]:
    """How many trials came to each rung, and how many ended there."""
    yield Heading("Rung survival")
    pruned = [trial for trial in record.trials if trial.state == "pruned" and trial.last_budget]
    began = [trial for trial in record.trials if trial.last_budget]
    if not pruned:
        yield Paragraph(("No trial was pruned.",))
        return
    budgets = sorted({trial.last_budget for trial in pruned})
    rows = [_rung(budget, began) for budget in _some(budgets)]
    last = max(trial.last_budget for trial in began)
    if last > budgets[-1]:
        rows.append(_rung(last, began))
    yield Table((BUDGET, "trials that came so far", "pruned there", "of those that began"), tuple(rows),
                frozenset({0, 1, 2}))  # fmt: skip


def goals(record: StudyRecord) -> list[tuple[str, Axis, bool]]:
    """Name, place in a run's summary, and whether less is better, of each objective."""
    if not record.has_several:
        return [(record.score_name, Axis("summary", "value"), record.direction == "minimize")]
    return [(one.name, Axis("summary", f"value/{one.name}"), one.direction == "minimize") for one in record.objectives]


def _rung(budget: int, trials: Sequence[TrialRecord]) -> tuple[str, str, str, str]:
    came = sum(trial.last_budget >= budget for trial in trials)
    pruned = sum(trial.state == "pruned" and trial.last_budget == budget for trial in trials)
    share = came / len(trials)
    return str(budget), str(came), str(pruned), f"{'█' * round(_BAR * share)} {share:.0%}"


def _some(budgets: Sequence[int]) -> list[int]:
    """Evenly chosen ones, the first and the last among them."""
    if len(budgets) <= RUNGS:
        return list(budgets)
    return [budgets[round(place * (len(budgets) - 1) / (RUNGS - 1))] for place in range(RUNGS)]


def _axes(record: StudyRecord, found: Iterable[Finding]) -> list[Axis]:
    """The most important hyperparameters: what is told apart from chance first, then by share."""
    told = next((one.numbers for one in found if one.key == "importance"), {})
    apart, shares = told.get("told_apart", {}), told.get("shares", {})
    names = sorted(record.parameter_names, key=lambda name: (name not in apart, -shares.get(name, (0.0,))[0]))[:AXES]
    domains = analysis.Evidence(record).domains if record.trials else {}
    return [Axis("config", name, is_log=bool(getattr(domains.get(name), "log", False))) for name in names]
