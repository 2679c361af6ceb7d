"""The best and the median final score of each task: ``python -m benchmarks.search.optima`` writes optima.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping

import numpy as np
from scipy.optimize import differential_evolution

from benchmarks.search.sampling import from_unit
from benchmarks.search.tasks import DEVELOPMENT, INPUTS, OPTIMA, all_tasks, final_scores
from benchmarks.search.variants import is_feasible, is_stable

RANDOM = 40_000
RESTARTS = 12
STRATEGIES = ("rand1bin", "best1bin")
"""Taken in turn: neither finds the best basin of every task."""


def everywhere(inputs: np.ndarray) -> np.ndarray:
    """All of the space."""
    return np.ones(len(inputs), bool)


REGIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "": everywhere, "-failing": is_stable, "-constrained": is_feasible
}  # fmt: skip
"""What may be reached, by the ending of a task's name: (n, 7) inputs to (n,) booleans."""


def optimum(task: str, allowed: Callable[[np.ndarray], np.ndarray] = everywhere) -> dict[str, float]:
    """Differential evolution from several seeds and many random configurations; the best of all of them, where a
    configuration is `allowed`.
    """
    drawn = from_unit(np.random.default_rng(0).uniform(size=(RANDOM, len(INPUTS))))
    scores = final_scores(task, drawn[allowed(drawn)])
    best = float(scores.max())

    def loss(points: np.ndarray) -> np.ndarray:
        inputs = from_unit(np.clip(np.atleast_2d(points.T), 0, 1))
        return np.where(allowed(inputs), -final_scores(task, inputs), 0.0)

    for seed in range(RESTARTS):
        found = differential_evolution(
            loss, [(0, 1)] * len(INPUTS),
            popsize=40, maxiter=400, strategy=STRATEGIES[seed % 2], mutation=(0.3, 0.9), recombination=0.8, tol=1e-6,
            vectorized=True, updating="deferred", polish=False, rng=seed,
        )  # fmt: skip
        best = max(best, float(-found.fun))
    return {"best": round(best, 4), "median": round(float(np.median(scores)), 4)}


if __name__ == "__main__":
    known = json.loads(OPTIMA.read_text("utf-8"))
    variants = [name + ending for ending in REGIONS if ending for name in DEVELOPMENT]
    for name in sys.argv[1:] or (*DEVELOPMENT, *variants, *all_tasks()):
        if name not in known:
            task, _, ending = name.partition("-")
            known[name] = optimum(task, REGIONS[f"-{ending}" if ending else ""])
            OPTIMA.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
            print(name, known[name], flush=True)
