"""The best and the median final score of each task: ``python -m benchmarks.search.optima`` writes optima.json."""

from __future__ import annotations

import json
import sys

import numpy as np
from scipy.optimize import differential_evolution

from benchmarks.search.tasks import DEVELOPMENT, INPUTS, OPTIMA, SPACE, all_tasks, final_scores

RANDOM = 40_000
RESTARTS = 12
STRATEGIES = ("rand1bin", "best1bin")
"""Taken in turn: neither finds the best basin of every task."""


def from_unit(points: np.ndarray) -> np.ndarray:
    """Inputs, shape (n, 7), of points in the unit cube."""
    columns = []
    for index, name in enumerate(INPUTS):
        domain, unit = SPACE["parameters"][name], points[:, index]
        low, high = domain["low"], domain["high"]
        log = domain["type"] == "loguniform" or domain.get("log", False)
        value = low * (high / low) ** unit if log else low + (high - low) * unit
        columns.append(np.round(value) if domain["type"] == "int" else value)
    return np.column_stack(columns)


def optimum(task: str) -> dict[str, float]:
    """Differential evolution from several seeds and many random configurations; the best of all of them."""
    scores = final_scores(task, from_unit(np.random.default_rng(0).uniform(size=(RANDOM, len(INPUTS)))))
    best = float(scores.max())
    for seed in range(RESTARTS):
        found = differential_evolution(
            lambda points: -final_scores(task, from_unit(np.clip(np.atleast_2d(points.T), 0, 1))), [(0, 1)] * len(INPUTS),
            popsize=40, maxiter=400, strategy=STRATEGIES[seed % 2], mutation=(0.3, 0.9), recombination=0.8, tol=1e-6,
            vectorized=True, updating="deferred", polish=False, rng=seed,
        )  # fmt: skip
        best = max(best, float(-found.fun))
    return {"best": round(best, 4), "median": round(float(np.median(scores)), 4)}


if __name__ == "__main__":
    known = json.loads(OPTIMA.read_text("utf-8")) if OPTIMA.exists() else {}
    for name in sys.argv[1:] or (*DEVELOPMENT, *all_tasks()):
        if name not in known:
            known[name] = optimum(name)
            OPTIMA.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
            print(name, known[name], flush=True)
