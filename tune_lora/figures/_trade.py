"""Pictures of several objectives: what they cost each other, and how the front grew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tune_lora import pareto as geometry
from tune_lora.figures._canvas import BLUE, GREY, INK, ORANGE, Missing, panels, robust_limits
from tune_lora.records import CLOCK, Objective, StudyRecord, TrialRecord, completed, losses, pareto

Limits = tuple[float, float] | None

LABELLED = 12
"""Members of a front up to which each has its number beside it."""


def pareto_front(record: StudyRecord, study: optuna.Study, params: Sequence[str] | None) -> Figure:
    """Completed trials by two objectives, a panel for each pair: the front in colour, the dominated faint behind it."""
    del study, params
    done = _done(record)
    pairs = list(combinations(range(len(record.objectives)), 2))
    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure, panes = panels(7.0 if columns == 1 else 4.2 * columns, 0.9 + 4.0 * rows, rows, columns)
    for pane, pair in zip(panes, pairs, strict=False):
        _panel(pane, record, done, pair)
    for pane in panes[len(pairs) :]:
        pane.set_axis_off()
    limits = _limits(record, done)
    far = sum(any(value != _held(value, one) for value, one in zip(t.values, limits, strict=True)) for t in done)
    note = f" ({far} beyond the axes, drawn on their edge)" if far else ""
    figure.suptitle(f"Pareto front: {len(pareto(record))} of {len(done)} completed trials{note}", x=0.01, ha="left")
    handles, labels = panes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def hypervolume_history(record: StudyRecord, study: optuna.Study, params: Sequence[str] | None) -> Figure:
    """How much of the objectives' space the front dominates, by trial number."""
    del study, params
    done = _done(record)
    points = losses(record, done)
    corner = geometry.reference(points)
    volumes: list[float] = []
    front: list[tuple[float, ...]] = []
    for point in points:
        front = [*front, point]
        front = [front[index] for index in geometry.front(front)]
        volumes.append(geometry.hypervolume(front, corner) if point in front else volumes[-1])
    figure, (axes,) = panels(8.4, 4.4)
    numbers = [trial.number for trial in done]
    last = max(trial.number for trial in record.trials)
    axes.step([*numbers, last], [*volumes, volumes[-1]], where="post", color=ORANGE, lw=1.8)
    axes.scatter(numbers, volumes, color=BLUE, s=20, zorder=3, clip_on=False)
    at = ", ".join(
        f"{objective.name} {objective.loss(value):.4g}"
        for objective, value in zip(record.objectives, corner, strict=True)
    )
    axes.set(xlabel="trial", ylabel="hypervolume of the front (higher is better)", title="Hypervolume history")
    axes.text(0.99, 0.03, f"measured from {at}", transform=axes.transAxes, ha="right", fontsize=8.5, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(-0.6, max(4, last) + 0.6)
    axes.set_ylim(bottom=0)
    return figure


def _done(record: StudyRecord) -> list[TrialRecord]:
    done = completed(record)
    if not done:
        raise Missing("Needs at least 1 completed trial; 0 trials completed so far.")
    return done


def _panel(pane: Axes, record: StudyRecord, done: Sequence[TrialRecord], pair: tuple[int, int]) -> None:
    first, second = pair
    leading = {trial.number for trial in pareto(record)}
    behind = [trial for trial in done if trial.number not in leading]
    objective, front = record.objectives[first], [trial for trial in done if trial.number in leading]
    front.sort(key=lambda trial: (objective.loss(trial.values[first]), trial.number))
    limits = [_limits(record, done)[index] for index in pair]
    _scatter(pane, behind, pair, limits, color=GREY, s=24, alpha=0.6, label=f"dominated ({len(behind)})")
    if len(record.objectives) == 2:
        along = [trial.values for trial in front]
        pane.step(*zip(*along, strict=True), where="post", color=BLUE, lw=1.2, alpha=0.7)
    _scatter(pane, front, pair, limits, color=BLUE, s=40, zorder=3, label=f"Pareto front ({len(front)})")
    if (best := record.best) is not None:
        _scatter(pane, [best], pair, limits, color=ORANGE, s=80, zorder=4, label=f"recommended: trial {best.number}")
    for trial in front if len(front) <= LABELLED else ():
        place = (trial.values[first], trial.values[second])
        pane.annotate(str(trial.number), place, (5, 5), textcoords="offset points", fontsize=8, color=INK)
    pane.set(xlabel=_label(objective), ylabel=_label(record.objectives[second]))


def _limits(record: StudyRecord, done: Sequence[TrialRecord]) -> list[Limits]:
    """Limits of each objective's axis; the whole front lies within them."""
    front = pareto(record)
    columns = range(len(record.objectives))
    return [_widened(robust_limits([t.values[i] for t in done]), [t.values[i] for t in front]) for i in columns]


def _scatter(
    pane: Axes, trials: Sequence[TrialRecord], axes: tuple[int, int], limits: Sequence[Limits], **look: Any
) -> None:
    x, y = ([_held(trial.values[axis], one) for trial in trials] for axis, one in zip(axes, limits, strict=True))
    pane.scatter(x, y, clip_on=False, **look)
    pane.set_xlim(limits[0])
    pane.set_ylim(limits[1])


def _held(value: float, limits: Limits) -> float:
    return value if limits is None else min(max(value, limits[0]), limits[1])


def _widened(limits: Limits, front: Sequence[float]) -> Limits:
    """Limits in which the whole front lies: what may be chosen is never cut off."""
    if limits is None or not front:
        return limits
    margin = 0.04 * (max(limits[1], *front) - min(limits[0], *front))
    low = limits[0] if min(front) >= limits[0] else min(front) - margin
    return low, limits[1] if max(front) <= limits[1] else max(front) + margin


def _label(objective: Objective) -> str:
    better = "lower" if objective.direction == "minimize" else "higher"
    return f"{objective.name} ({'s, ' if objective.name in CLOCK else ''}{better} is better)"
