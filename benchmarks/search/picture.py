"""Regret over budget of every method, with bands, as a picture for the docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.search.catalogue import METHODS
from benchmarks.search.measures import Measures
from benchmarks.search.plan import BY_TASK, Group

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "search_regret.png"
COLORS: Mapping[str, str] = {
    "random": "#9a9a9a", "tpe1": "#4d4d4d", "ray-1-4": "#e69f00", "ray-3-3": "#b8860b", "ray-tpe": "#8c510a",
    "optuna-median": "#cc79a7", "optuna-hyperband": "#9467bd", "optuna-halving": "#e377c2", "syne-asha": "#56b4e9",
    "mobster": "#2ca02c", "mobster-1": "#98c379", "tpe": "#0072b2", "auto": "#d62728",
}  # fmt: skip
OURS = ("tpe", "auto")
TICKS = (0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)


def draw(found: Measures, path: Path = PICTURE) -> None:
    """Mean regret at every budget from 2 full trainings on; a band is the standard error over seeds, tasks held
    fixed.
    """
    mpl.use("Agg")
    figure = Figure(figsize=(9.5, 5.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    ends = [end for method in COLORS if (end := _line(axes, found, method)) is not None]
    _label(axes, ends, found.plan.all)
    _dress(axes, found.plan.all)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _line(axes: Axes, found: Measures, method: str) -> tuple[float, float, str] | None:
    rows = found.of(Group(method))
    if not rows:
        return None
    budgets = np.arange(2, next(iter(rows.values())).key.budget + 1)
    curves, error = _mean_and_error(rows, budgets)
    strong = method in OURS
    axes.plot(budgets, curves, color=COLORS[method], lw=2.4 if strong else 1.3, zorder=3 if strong else 2)
    axes.fill_between(budgets, curves - error, curves + error, color=COLORS[method], alpha=0.16, lw=0)
    return float(budgets[-1]), float(curves[-1]), method


def _mean_and_error(rows: BY_TASK, budgets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    curves = np.array([[row.regret(float(budget)) for budget in budgets] for row in rows.values()])
    tasks = np.array([task for task, _ in rows])
    variances = [
        curves[tasks == task].var(axis=0, ddof=1) / (tasks == task).sum() if (tasks == task).sum() > 1 else 0 * budgets
        for task in np.unique(tasks)
    ]
    return curves.mean(axis=0), np.sqrt(np.mean(variances, axis=0) / len(variances))


def _label(axes: Axes, ends: Sequence[tuple[float, float, str]], last: int) -> None:
    """Names at the right, moved apart where lines end close to each other; thin lines lead to them."""
    places: list[tuple[float, float, str, float]] = []
    least = 0.0
    for x, y, method in sorted(ends, key=lambda end: end[1]):
        height = max(np.log(y), least) if places else np.log(y)
        places.append((x, y, method, height))
        least = height + 0.115
    for x, y, method, height in places:
        shown = float(np.exp(height))
        axes.plot(
            (x, last * 1.015), (y, shown), color=COLORS[method], lw=0.6, ls=":" if x < last else "-", clip_on=False
        )
        label = METHODS[method].label.replace("`", "")
        weight = "bold" if method in OURS else "normal"
        axes.text(last * 1.02, shown, label, color=COLORS[method], va="center", fontsize=7.5, weight=weight)


def _dress(axes: Axes, last: int) -> None:
    axes.set_yscale("log")
    axes.set_xlim(2, last)
    low = axes.get_ylim()[0]
    axes.set_ylim(low, 1.15)
    axes.set_yticks([tick for tick in TICKS if tick >= low])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set_xlabel("budget, in full trainings (4 workers)")
    axes.set_ylabel("regret: 0 the best known, 1 the median of random")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
