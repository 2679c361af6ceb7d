"""Pictures over time: the study's best so far, and each trial's learning curve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import optuna
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tune_lora.figures._canvas import BLUE, GREY, INK, ORANGE, RED, Missing, beyond, panels, robust_limits
from tune_lora.store import StudyRecord, TrialRecord


def optimization_history(record: StudyRecord, study: optuna.Study, params: Sequence[str] | None) -> Figure:
    """Scores by trial number with the best so far; pruned and failed trials are marked apart."""
    del study, params
    done = sorted(record.ranked(), key=lambda trial: trial.number)
    pruned = [trial for trial in record.trials if trial.state == "pruned"]
    failed = [trial for trial in record.trials if trial.state == "failed"]
    if not done and not pruned and not failed:
        raise Missing("No trial has finished yet.")
    figure, (axes,) = panels(8.4, 4.4)
    cut_off = {trial.number: list(trial.curve.values())[-1] for trial in pruned if trial.curve}
    scores = [*_scores(done), *cut_off.values()]
    limits = _frame(axes, scores, record)
    label = f"pruned, at its last rung ({len(pruned)})" if pruned else None
    axes.scatter(list(cut_off), _inside(cut_off.values(), limits), marker="x", color=GREY, s=26, label=label)
    label = f"completed ({len(done)})"
    axes.scatter(_numbers(done), _inside(_scores(done), limits), color=BLUE, s=26, zorder=3, label=label, clip_on=False)
    _best_so_far(axes, record, done)
    _failures_on_the_edge(axes, failed)
    _baseline(axes, record)
    axes.set_xlabel("trial")
    axes.set_title("Optimization history" + (beyond(scores, limits) if done else ": no trial completed yet"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(-0.6, max(4, *(trial.number for trial in record.trials)) + 0.6)  # whole numbers need some room
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def intermediate_values(record: StudyRecord, study: optuna.Study, params: Sequence[str] | None) -> Figure:
    """The score of each trial at the budgets where it was measured; pruned trials dimmed, the best in colour."""
    del study, params
    curves = [trial for trial in record.trials if trial.curve]
    if not curves:
        raise Missing(f"No trial has reported a {record.score_name} on its way yet.")
    figure, (axes,) = panels(8.4, 4.4)
    best = None if record.best is None else record.best.number
    kinds: dict[str, list[TrialRecord]] = {}
    for trial in sorted(curves, key=lambda trial: trial.state == "complete"):
        kinds.setdefault("best" if trial.number == best else trial.state, []).append(trial)
    for kind, trials in kinds.items():
        _draw_curves(axes, kind, trials)
    scores = [score for trial in curves for score in trial.curve.values()]
    note = beyond(scores, _frame(axes, scores, record)).replace(", drawn on its edge", "")
    axes.set(xlabel="budget spent", title=f"Learning curves{note}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=5)
    return figure


_CURVES = {
    "best": (ORANGE, 2.4, 1.0, 4),
    "complete": (BLUE, 1.3, 0.85, 3),
    "running": ("#5a9e6f", 1.2, 0.9, 3),
    "failed": (RED, 1.0, 0.5, 2),
    "pruned": (GREY, 1.0, 0.55, 2),
}


def _draw_curves(axes: Axes, kind: str, trials: Sequence[TrialRecord]) -> None:
    """All of a kind at once: thousands of lines drawn one by one take minutes and gigabytes."""
    colour, width, alpha, order = _CURVES.get(kind, _CURVES["running"])
    style: dict[str, Any] = {"color": colour, "alpha": alpha, "zorder": order}
    curves = [list(trial.curve.items()) for trial in trials]
    axes.add_collection(LineCollection(curves, lw=width, **style))
    at, heights = zip(*(point for curve in curves for point in curve), strict=True)
    axes.scatter(at, heights, s=(width + 1.8) ** 2, lw=0, label=_curve_label(kind, trials[0].number), **style)


def _curve_label(kind: str, number: int) -> str:
    return {"best": f"best: trial {number}", "complete": "completed"}.get(kind, kind)


def _best_so_far(axes: Axes, record: StudyRecord, done: Sequence[TrialRecord]) -> None:
    better = min if record.direction == "minimize" else max
    best: list[float] = []
    for score in _scores(done):
        best.append(better([*best[-1:], score]))
    if not best:
        return
    last = max(trial.number for trial in record.trials)
    axes.step([*_numbers(done), last], [*best, best[-1]], where="post", color=ORANGE, lw=1.8, label="best so far")
    leader = record.best
    if leader is not None and leader.value is not None:
        axes.scatter(
            [leader.number], [leader.value], color=ORANGE, s=70, zorder=4, label=f"best: trial {leader.number}"
        )


def _failures_on_the_edge(axes: Axes, failed: Sequence[TrialRecord]) -> None:
    # A failed trial has no score: it stands on the upper edge, at its number.
    if failed:
        axes.scatter(
            _numbers(failed), [0.985] * len(failed), transform=axes.get_xaxis_transform(),
            marker="v", color=RED, s=34, zorder=4, clip_on=False, label=f"failed ({len(failed)})",
        )  # fmt: skip


def _baseline(axes: Axes, record: StudyRecord) -> None:
    baseline = record.untrained
    if baseline is not None:
        low, high = axes.get_ylim()
        axes.axhline(baseline, color=INK, lw=1, ls="--", label=f"{record.untrained_name} ({baseline:.4g})")
        axes.set_ylim(min(low, baseline - 0.05 * (high - low)), max(high, baseline + 0.08 * (high - low)))


def _frame(axes: Axes, scores: Sequence[float], record: StudyRecord) -> tuple[float, float] | None:
    limits = robust_limits(scores)
    if limits:
        axes.set_ylim(*limits)
    if not scores:
        axes.set_yticks([])
    better = "lower" if record.direction == "minimize" else "higher"
    axes.set_ylabel(f"{record.score_name} ({better} is better)")
    return limits


def _inside(scores: Iterable[float], limits: tuple[float, float] | None) -> list[float]:
    return [min(max(score, limits[0]), limits[1]) for score in scores] if limits else list(scores)


def _numbers(trials: Sequence[TrialRecord]) -> list[int]:
    return [trial.number for trial in trials]


def _scores(trials: Sequence[TrialRecord]) -> list[float]:
    return [trial.value for trial in trials if trial.value is not None]
