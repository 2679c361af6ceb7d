"""Pictures over hyperparameters: one at a time, in pairs, and all together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tune_lora.figures._axis import ParamAxis, completed, param_axes, varying
from tune_lora.figures._canvas import BLUE, GREY, INK, ORANGE, Missing, beyond, number, panels, robust_limits, short
from tune_lora.figures._importance import most_important
from tune_lora.store import StudyRecord, TrialRecord

MOST_AXES = 10
"""Axes of a parallel-coordinate picture beyond which its labels collide."""
_SMOOTHING = 0.12  # of an axis: the width of the contour's kernel


def slice_plot(record: StudyRecord, study: optuna.Study, params: Sequence[str] | None) -> Figure:
    """Score over each hyperparameter, a panel each; later trials darker, the best in colour."""
    done = completed(record, 1)
    axes_of = _wanted(record, study, params)
    columns = min(3, len(axes_of))
    rows = math.ceil(len(axes_of) / columns)
    figure, panes = panels(max(4.6, 3.1 * columns), 0.6 + 2.5 * rows, rows, columns)
    for pane, (name, axis) in zip(panes, axes_of.items(), strict=False):
        _slice(pane, record, axis, [trial for trial in done if name in record.tried(trial)])
    for pane in panes[len(axes_of) :]:
        pane.set_axis_off()
    for pane in panes[::columns]:
        pane.set_ylabel(record.score_name)
    scores = [trial.value for trial in done if trial.value is not None]
    note = beyond(scores, robust_limits(scores))
    figure.suptitle(f"{_titled(record)} by hyperparameter: orange is best, darker is later{note}", x=0.01, ha="left")
    return figure


def contour(record: StudyRecord, study: optuna.Study, params: Sequence[str] | None) -> Figure:
    """Smoothed score over pairs of hyperparameters: those asked for (three at most), or the most important three."""
    done = completed(record, 2)
    axes_of = _wanted(record, study, params)
    names = [name for name in varying(axes_of, record, done) if params is None or name in params]
    if len(names) < 2:
        raise Missing("Needs two hyperparameters that took at least two values each in completed trials.")
    names = list(params)[:3] if params and set(params) <= set(names) else most_important(record, study, names, 3)
    pairs = list(combinations(names, 2))
    size = (8.0, 5.8) if len(pairs) == 1 else (1.2 + 3.7 * len(pairs), 3.7)
    figure, panes = panels(*size, 1, len(pairs))
    colours = _colours(record, done)
    for pane, (first, second) in zip(panes, pairs, strict=True):
        _contour(pane, record, axes_of[first], axes_of[second], done, colours)
    figure.colorbar(colours, ax=panes, label=record.score_name, pad=0.01, format=lambda value, _: number(value))
    figure.suptitle(f"{_titled(record)} over pairs of hyperparameters, smoothed between the trials", x=0.01, ha="left")
    return figure


def parallel_coordinate(record: StudyRecord, study: optuna.Study, params: Sequence[str] | None) -> Figure:
    """One line a completed trial over all hyperparameters, coloured by its score; pruned trials dimmed behind."""
    done = completed(record, 1)
    axes_of = _wanted(record, study, params)
    if len(axes_of) > MOST_AXES:
        axes_of = {name: axes_of[name] for name in most_important(record, study, list(axes_of), MOST_AXES)}
    figure, (axes,) = panels(max(6.0, 2.0 + 1.12 * len(axes_of)), 4.9)
    pruned = [trial for trial in record.trials if trial.state == "pruned"]
    _lines(axes, record, pruned, axes_of, color=GREY, lw=0.8, alpha=0.4)
    colours, ranked = _colours(record, done), record.ranked()[::-1]  # the best on top, which is the last
    scores = np.array([trial.value for trial in ranked], dtype=float)
    _lines(
        axes, record, ranked, axes_of, color=colours.to_rgba(scores), lw=[*[1.4] * (len(ranked) - 1), 3.0], alpha=0.9
    )
    _rails(axes, list(axes_of.values()))
    axes.set_title("Parallel coordinates (thick: best; grey: pruned)", pad=12)
    figure.colorbar(colours, ax=axes, label=record.score_name, pad=0.02, format=lambda value, _: number(value))
    return figure


def _titled(record: StudyRecord) -> str:
    return "Score" if record.score_name == "score" else record.score_name


def _wanted(record: StudyRecord, study: optuna.Study, params: Sequence[str] | None) -> dict[str, ParamAxis]:
    axes_of = param_axes(record, study, params)
    if not axes_of:
        raise Missing("No trial of this study has a hyperparameter.")
    return axes_of


def _slice(pane: Axes, record: StudyRecord, axis: ParamAxis, trials: Sequence[TrialRecord]) -> None:
    limits = robust_limits([trial.value for trial in record.ranked() if trial.value is not None])
    values = [trial.value for trial in trials if trial.value is not None]
    if limits:
        pane.set_ylim(*limits)
        values = [min(max(value, limits[0]), limits[1]) for value in values]
    at = [axis.place(record.tried(trial)[axis.name]) + _jitter(axis, trial.number) for trial in trials]
    shade = [0.35 + 0.65 * trial.number / max(1, len(record.trials) - 1) for trial in trials]
    colours = [
        ORANGE if trial == record.best else (*mpl.colors.to_rgb(BLUE), alpha)
        for trial, alpha in zip(trials, shade, strict=True)
    ]
    pane.scatter(at, values, c=colours, s=[64 if trial == record.best else 26 for trial in trials], clip_on=False)
    pane.set_xlim(-0.04, 1.04)
    pane.set_xticks(*axis.ticks(4))
    if len(axis.choices) > 2 and max(len(short(choice, 18)) for choice in axis.choices) > 6:
        pane.tick_params(axis="x", labelsize=8)
        for label in pane.get_xticklabels():
            label.set(rotation=20, ha="right", rotation_mode="anchor")
    pane.set_xlabel(short(axis.name, 32) + (" (log)" if axis.log else ""), weight="bold")
    if not trials:
        pane.text(0.5, 0.5, "no completed trial has it", ha="center", transform=pane.transAxes)


def _contour(
    pane: Axes,
    record: StudyRecord,
    first: ParamAxis,
    second: ParamAxis,
    done: Sequence[TrialRecord],
    colours: ScalarMappable,
) -> None:
    both = [trial for trial in done if {first.name, second.name} <= record.tried(trial).keys()]
    x, y = (np.array([axis.place(record.tried(trial)[axis.name]) for trial in both]) for axis in (first, second))
    scores = np.array([trial.value for trial in both], dtype=float)
    look: dict[str, Any] = {"cmap": colours.get_cmap(), "norm": colours.norm}
    if len(both) > 1:
        grid = np.linspace(0, 1, 80)
        surface = _smoothed(x, y, scores, grid)
        levels = np.linspace(*colours.get_clim(), 13)
        pane.contourf(grid, grid, surface, levels=levels, extend="both", alpha=0.75, **look)
    sizes = [70 if trial == record.best else 24 for trial in both]
    edges = [ORANGE if trial == record.best else "white" for trial in both]
    pane.scatter(x, y, c=scores, s=sizes, edgecolors=edges, linewidths=1.2, zorder=3, **look)
    pane.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    pane.grid(visible=False)
    pane.set_xticks(*first.ticks(4))
    pane.set_yticks(*second.ticks(4))
    pane.set_xlabel(short(first.name, 30), weight="bold")
    pane.set_ylabel(short(second.name, 30), weight="bold")
    for label in pane.get_yticklabels() if len(second.choices) > 0 else []:
        label.set(rotation=90, va="center", fontsize=8, text=short(label.get_text(), 14))


def _smoothed(x: np.ndarray, y: np.ndarray, scores: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Kernel-weighted mean of the scores at each grid point, (len(grid), len(grid)); NaN far from every trial.

    A kernel holds for two points, for points on a line and on the few places of two categories; a triangulation fails.
    """
    columns, rows = np.meshgrid(grid, grid)
    distance = (columns[..., None] - x) ** 2 + (rows[..., None] - y) ** 2
    weights = np.exp(-distance / (2 * _SMOOTHING**2))
    total = weights.sum(-1)
    surface = np.full(total.shape, np.nan)
    near = total > math.exp(-4.5)  # three kernel widths
    surface[near] = (weights @ scores)[near] / total[near]
    return surface


def _lines(
    axes: Axes, record: StudyRecord, trials: Sequence[TrialRecord], axes_of: dict[str, ParamAxis], **style: Any
) -> None:
    """A line a trial, all drawn at once: thousands of lines drawn one by one take minutes and gigabytes."""
    if trials:
        lines = [_line(record.tried(trial), trial.number, axes_of) for trial in trials]
        axes.add_collection(LineCollection(lines, capstyle="round", joinstyle="round", zorder=2, **style))


def _line(tried: Mapping[str, Any], number: int, axes_of: dict[str, ParamAxis]) -> list[tuple[int, float]]:
    """A trial's place on each axis, not a number on those that it has no value of."""
    heights = [
        axis.place(tried[name]) + _jitter(axis, number) / 2 if name in tried else math.nan
        for name, axis in axes_of.items()
    ]
    return list(enumerate(heights))


def _rails(axes: Axes, rails: Sequence[ParamAxis]) -> None:
    for at, rail in enumerate(rails):
        axes.axvline(at, color="#8a9099", lw=0.9, zorder=3)
        for height, label in zip(*rail.ticks(5), strict=True):
            axes.text(
                at + 0.04, height, short(label, 13), fontsize=7.5, va="center", zorder=5,
                bbox={"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none", "alpha": 0.75},
            )  # fmt: skip
    axes.set_xticks(range(len(rails)), [short(rail.name, 30) for rail in rails], rotation=22, ha="right", color=INK)
    axes.set(xlim=(-0.15, len(rails) - 0.4), ylim=(-0.04, 1.04), yticks=[])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)


def _colours(record: StudyRecord, done: Sequence[TrialRecord]) -> ScalarMappable:
    scores = [trial.value for trial in done if trial.value is not None]
    low, high = robust_limits(scores) or (min(scores) - 0.5, max(scores) + 0.5)
    name = "viridis" if record.direction == "minimize" else "viridis_r"
    return ScalarMappable(Normalize(low, high), mpl.colormaps[name])


def _jitter(axis: ParamAxis, trial: int) -> float:
    # Trials that share a choice would hide one another; the golden ratio spreads consecutive numbers evenly.
    return ((trial * 0.618034) % 1 - 0.5) * 0.35 / len(axis.choices) if axis.choices else 0.0
